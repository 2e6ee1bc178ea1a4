"""Small and odd tables as a newcomer has them: each ends with a judged model, or with one sentence that names the knob or the charter's line."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import load_settings, stock
from mlops_nb.cli.main import app
from mlops_nb.cli.project import init
from mlops_nb.pipeline.stage import Source
from mlops_nb.sources.files import source_file

STAGES = ("problem", "ingest", "validate", "split", "features", "train", "tune", "ensemble", "evaluate", "explain", "fairness")
FEW: dict[str, dict[str, Any]] = {
    "features": {"points": 60}, "train": {"folds": 3, "candidates": ["dummy", "linear", "gradient_boosting"]}, "tune": {"n_models": 1, "trials": 2},
    "evaluate": {"resamples": 100}, "fairness": {"resamples": 100}, "explain": {"rows": 10, "background": 5},
}  # fmt: skip


class Port:
    """An input or output of a stage, in memory."""

    values: dict[str, Any] = {}
    project: tuple[Any, Path]

    def __init__(self, artifact: str, kind: Any) -> None:
        self.artifact, self.kind = artifact, kind

    def read(self, model: Any = None) -> Any:
        if self.kind is Source:
            return source_file(*self.project)
        value = self.values[self.artifact]
        value = self.kind.load(value) if isinstance(value, bytes) else value
        return model.model_validate(value) if model else value

    def write(self, value: Any) -> None:
        self.values[self.artifact] = self.kind.dump(value)


def run(root: Path, last: str = "fairness", **knobs: dict[str, Any]) -> dict[str, Any]:
    """The run cells of the stages up to `last`, one after the other in this process; the artifacts' bytes."""
    settings = load_settings(root)
    charter = load_charter(settings.charter)
    Port.values, Port.project = {"charter": charter.statement()}, (charter, settings.root)
    for stage in STAGES[: STAGES.index(last) + 1]:
        notebook = json.loads(next(stock("stages").glob(f"*_{stage}.ipynb")).read_text())
        names = {**vars(importlib.import_module(f"mlops_nb.stages.{stage}")), "Input": Port, "Output": Port, "log": lambda *a, **k: None}
        for cell in (c for c in notebook["cells"] if c["cell_type"] == "code"):
            source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
            if source.startswith("#|") or "lesson" in tags:
                continue
            exec(compile(source, stage, "exec"), names)
            if "parameters" in tags:
                names.update(FEW.get(stage, {}) | charter.knobs.get(stage, {}) | knobs.get(stage, {}))
    return Port.values


def made(rows: int, kind: str = "two", columns: int = 3) -> pd.DataFrame:
    """People whose answer follows from one number, and noise."""
    draw = np.random.default_rng(rows)
    size = draw.normal(size=rows).round(3)
    table = pd.DataFrame({"size": size, "age": draw.integers(18, 80, rows), "city": draw.choice(["Lyon", "Bonn", "Oslo"], rows)}).iloc[:, :columns]
    score = size + draw.normal(size=rows)
    answers = {"two": np.where(score > 0, "yes", "no"), "four": np.array(list("abcd"))[np.digitize(score, [-1, 0, 1])], "numbers": (score * 10).round(2)}
    return table.assign(y=answers[kind])


def with_class(few: int, others: tuple[str, ...]) -> pd.DataFrame:
    """80 rows, a few of them of a class of their own."""
    table = made(80)
    table["y"] = [others[i % len(others)] for i in range(80)]
    table.loc[table.index[40 : 40 + few], "y"] = "rare"
    return table


def late() -> pd.DataFrame:
    """All of one class lie in the past."""
    return made(60).assign(day=pd.date_range("2025-01-01", periods=60).astype(str), y=["yes" if i < 40 and i % 2 else "no" for i in range(60)])


BY_GROUP, BY_TIME = {"split": {"strategy": "group", "group": "team"}}, {"split": {"strategy": "time", "time": "day"}}
TABLES: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {  # rows, knobs, what the one sentence names; "": a model comes out
    "12 rows of two classes": (made(12), {}, ""),
    "12 rows of numbers": (made(12, "numbers"), {}, ""),
    "20 rows of four classes": (made(20, "four"), {}, ""),
    "40 rows of two classes": (made(40), {}, ""),
    "60 rows of numbers": (made(60, "numbers"), {}, ""),
    "100 rows of four classes": (made(100, "four"), {}, ""),
    "a class of one row": (with_class(1, ("a", "b")), {}, "rules: {y: {allowed: [a, b]}}"),
    "a class of three rows": (with_class(3, ("a", "b")), {}, "rules: {y: {allowed: [a, b]}}"),
    "a class of five rows": (with_class(5, ("a", "b")), {}, ""),
    "five positives": (with_class(5, ("no",)), {}, ""),
    "three groups": (made(60).assign(team=[i // 20 for i in range(60)]), BY_GROUP, ""),
    "two groups": (made(60).assign(team=[i // 30 for i in range(60)]), BY_GROUP, "split.group"),
    "a class that ends before the test rows": (late(), BY_TIME, "split.test_from"),
    "a column without values": (made(60).assign(void=None), {}, ""),
    "a constant column": (made(60).assign(always=3), {}, ""),
    "one number": (made(60, columns=1), {}, ""),
    "one word": (made(60)[["city", "y"]], {}, ""),
    "a column nearly without values": (made(60).assign(size=lambda t: t["size"].where(t.index > 55)), {}, ""),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_small_table_ends_with_a_model_or_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table, knobs, sentence = TABLES[name]
    table.to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    if sentence:
        with pytest.raises(MlopsError) as refused:
            run(root, **knobs)
        assert sentence in str(refused.value) and "\n" not in str(refused.value)
        return
    artifacts = run(root, **knobs)
    assert json.loads(artifacts["evaluation"])["criteria"] and artifacts["leaderboard_plot"].startswith(b"\x89PNG")


def test_people_who_look_alike_are_kept_and_divided(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    ship = pd.DataFrame({"cabin": draw.choice(["1st", "2nd", "3rd"], 500), "adult": draw.choice(["yes", "no"], 500), "saved": draw.choice(["yes", "no"], 500)})
    ship.to_csv(tmp_path / "ship.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "ship.csv").root
    charter = yaml.safe_load(load_settings(root).charter.read_text())
    assert charter["knobs"] == {"validate": {"duplicates": "keep"}}
    artifacts = run(root, "split")
    parts = [len(pd.read_parquet(__import__("io").BytesIO(artifacts[p]))) for p in ("train", "valid", "test")]
    assert sum(parts) == 500 and min(parts) > 50
    with pytest.raises(MlopsError, match="if they are different ones that look alike: validate.duplicates=keep"):
        run(root, "split", validate={"duplicates": "quarantine"})


def test_check_says_its_findings_to_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(60).to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    monkeypatch.chdir(root)
    sound = CliRunner().invoke(app, ["check", "--json"])
    assert sound.exit_code == 0 and json.loads(sound.stdout) == {"sound": True, "findings": [], "notes": []}
    file = load_settings(root).charter
    file.write_text(file.read_text().replace("metric: roc_auc\nsecondary", "metric: roc_uac\nsecondary"))
    wrong = CliRunner().invoke(app, ["check", "--json"])
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["findings"] == [{"where": "charter project", "what": "no metric 'roc_uac' for a binary task", "way_out": "did you mean 'roc_auc'?"}]
