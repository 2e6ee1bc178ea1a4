"""Small and odd tables as a newcomer has them: each ends with a judged model, or with one sentence that names the knob or the charter's line."""

import importlib
import io
import json
import re
import subprocess
import sys
from hashlib import sha256
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
from mlops_nb.model.entities import entity_codes
from mlops_nb.model.problem import Problem
from mlops_nb.pipeline.records import broken
from mlops_nb.pipeline.stage import Source
from mlops_nb.sources.files import source_file
from mlops_nb.stages.register import gate_list, phase_of
from mlops_nb.stages.train import make_folds

STAGES = ("problem", "ingest", "validate", "split", "features", "train", "tune", "ensemble", "evaluate", "explain", "fairness", "abtest")
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

    @property
    def digest(self) -> str:
        return sha256(self.values[self.artifact]).hexdigest()

    def rows(self) -> Any:
        return self.read()

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


def alike(rows: int) -> pd.DataFrame:
    """Eight yes/no questions with hardly two kinds of answers: people who answer the same are not one person."""
    table, draw = made(rows), np.random.default_rng(1)
    answers = {f"q{i}": np.where((table["size"] > 0) ^ (draw.random(rows) < 0.02), "yes", "no") for i in range(8)}
    return pd.DataFrame({"number": range(rows)} | answers | {"y": table["y"]})


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
    "three groups": (made(60).assign(team=[i // 20 for i in range(60)]), BY_GROUP, "rows of one id or group (split.group) count once"),
    "two groups": (made(60).assign(team=[i // 30 for i in range(60)]), BY_GROUP, "split.group"),
    "a class that ends before the test rows": (late(), BY_TIME, "split.test_from"),
    "a column without values": (made(60).assign(void=None), {}, ""),
    "a constant column": (made(60).assign(always=3), {}, ""),
    "yes/no questions that say the same": (alike(200), {}, ""),
    "a column of words for two rows each": (made(40).assign(street=lambda t: t.index // 2 + 100).astype({"street": str}), {"features": {"max_onehot": 2}}, ""),
    "words for two rows each, and four classes": (made(60, "four").assign(street=[f"s{i // 4}" for i in range(60)]), {"features": {"max_onehot": 2}}, ""),
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


def twice(rows: int = 750) -> pd.DataFrame:
    """Each row twice under a fresh id, and answers that nothing tells."""
    draw = np.random.default_rng(3)
    table = pd.DataFrame(draw.normal(size=(rows, 5)).round(3)).add_prefix("x").assign(kind=draw.choice(list("abc"), rows), y=draw.choice(["yes", "no"], rows))
    both = pd.concat([table, table]).sample(frac=1, random_state=0, ignore_index=True)
    both.insert(0, "customer_id", np.arange(2 * rows) + 1000)
    return both


def divided(root: Path, **knobs: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """All rows with their part, and with the fold of those that are learnt from; and what split says of it."""
    artifacts = run(root, "split", **knobs)
    parts = [pd.read_parquet(io.BytesIO(artifacts[p])).assign(part=p) for p in ("train", "valid", "test")]
    entities = entity_codes(pd.read_parquet(io.BytesIO(artifacts["entities"])), "train")
    parts[0]["fold"] = make_folds(parts[0], Problem.model_validate(json.loads(artifacts["facts"])), 5, 0, entities)
    return pd.concat(parts), json.loads(artifacts["division"])


THINGS = ["x0", "x1", "x2", "x3", "x4", "kind"]


@pytest.mark.parametrize("strategy", ["auto", "stratified"])
def test_equal_rows_under_fresh_ids_are_on_one_side(strategy: str, tmp_path: Path) -> None:
    twice().to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    assert load_charter(load_settings(root).charter).id == "customer_id"
    rows, said = divided(root, split={"strategy": strategy})
    assert rows.groupby(THINGS)["part"].nunique().max() == 1 and rows.groupby(THINGS).size().eq(2).all() and not said["rules"]
    assert rows.groupby(THINGS)["fold"].nunique().max() == 1 and abs((rows["part"] == "test").mean() - 0.2) < 0.05


@pytest.mark.parametrize("tied, one_side", [(8, True), (750, False)])
def test_rows_of_a_shop_and_equal_rows_are_on_one_side(tied: int, one_side: bool, tmp_path: Path) -> None:
    table = pd.concat([twice().drop_duplicates(THINGS), twice()[twice().duplicated(THINGS)].head(tied)], ignore_index=True)
    table.assign(shop_nr=lambda t: t.index // 5).to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    assert load_charter(load_settings(root).charter).knobs["split"] == {"strategy": "group", "group": "shop_nr"}
    rows, said = divided(root)
    assert rows.groupby("shop_nr")[["part", "fold"]].nunique().max().max() == 1
    assert (rows.groupby(THINGS)["part"].nunique().max() == 1) == one_side
    warned = [rule["message"] for rule in said["rules"]]  # where all shops would be one, shops alone count, and that is said
    assert not warned if one_side else "too many ids or groups would be one" in warned[0]


@pytest.mark.slow
def test_rows_that_stand_twice_under_fresh_ids_teach_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    twice(1500).to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    artifacts = run(root, "evaluate", train={"candidates": ["dummy", "gradient_boosting", "random_forest"]})
    evaluation, best = json.loads(artifacts["evaluation"]), json.loads(artifacts["leaderboard"])["candidates"][0]
    assert abs(evaluation["metrics"]["roc_auc"]["value"] - 0.5) < 0.1 and abs(best["mean"] - 0.5) < 0.1  # 3 standard errors of 300 rows


@pytest.mark.deep
def test_86_positives_in_50_000_rows_end_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table = made(50_000)
    table["y"] = np.where(table.index.isin((table["size"] + np.random.default_rng(1).normal(0, 1, 50_000)).nlargest(86).index), "yes", "no")
    table.to_csv(tmp_path / "rows.csv", index=False)
    artifacts = run(init(tmp_path / "project", tmp_path / "rows.csv", "y").root, train={"candidates": ["dummy", "linear", "gradient_boosting"], "folds": 3})
    parts = [pd.read_parquet(io.BytesIO(artifacts[p]))["y"].eq("yes").sum() for p in ("train", "valid", "test")]
    assert sum(parts) == 86 and min(parts) >= 5
    assert json.loads(artifacts["evaluation"])["metrics"]["roc_auc"]["value"] > 0.8 and artifacts["leaderboard_plot"].startswith(b"\x89PNG")


def test_people_who_look_alike_are_kept_and_divided(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    ship = pd.DataFrame({"cabin": draw.choice(["1st", "2nd", "3rd"], 500), "adult": draw.choice(["yes", "no"], 500), "saved": draw.choice(["yes", "no"], 500)})
    ship.to_csv(tmp_path / "ship.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "ship.csv").root
    charter = yaml.safe_load(load_settings(root).charter.read_text())
    assert charter["knobs"] == {"validate": {"duplicates": "keep"}}
    artifacts = run(root, "split")
    parts = [len(pd.read_parquet(io.BytesIO(artifacts[p]))) for p in ("train", "valid", "test")]
    assert sum(parts) == 500 and min(parts) > 50
    with pytest.raises(MlopsError, match="if they are different ones that look alike: validate.duplicates=keep"):
        run(root, "split", validate={"duplicates": "quarantine"})


def odd(seed: int) -> pd.DataFrame:
    """A small table of anything: types, gaps, constants, empty and doubled columns, yes/no questions that say the same, words that hardly repeat."""
    draw = np.random.default_rng(seed)
    n, classes = int(draw.integers(20, 81)), int(draw.integers(2, 7))
    mood = draw.normal(size=n)
    columns: dict[str, Any] = {
        "size": mood.round(2), "count": draw.poisson(3, n), "town": draw.choice(["Lyon", "Bonn", "Oslo", "서울"], n),
        "always": draw.choice(["x", 7, 0.5]), "void": None, "flag": draw.random(n) < 0.5, "who": [f"person {i}" for i in draw.permutation(n)],
        "street": draw.choice([f"street {i}" for i in range(n // 2)], n), "day": pd.date_range("2024-01-01", periods=n).astype(str), "wild": np.exp(draw.normal(0, 5, n)),
        "code": draw.choice(["01", "02", "10"], n), "price ($)": [f"{v:,.2f} €" for v in draw.lognormal(7, 1, n)], "note": draw.choice(["a", "b", None], n, p=[0.02, 0.03, 0.95]),
    }  # fmt: skip
    chosen = draw.choice([*columns], int(draw.integers(1, 9)), replace=False)
    table = pd.DataFrame({name: columns[name] for name in chosen}, index=range(n))
    if draw.random() < 0.4:
        table = table.join(pd.DataFrame({f"q{i}": np.where((mood > 0) ^ (draw.random(n) < 0.03), "yes", "no") for i in range(8)}))
    if draw.random() < 0.4:
        table[f"{chosen[0]} again"] = table[chosen[0]]
    if draw.random() < 0.4:
        table = table.mask(draw.random(table.shape) < 0.15)
    if draw.random() < 0.3:
        table = pd.concat([table, table.head(n // 4)], ignore_index=True)
    score, rows = draw.normal(size=len(table)), len(table)
    shares = draw.dirichlet([4] * classes)
    labels = draw.choice(list("abcdef")[:classes], rows, p=shares)
    table["y"] = score.round(2) if draw.random() < 0.25 else labels
    return table


WAY = r"\b(split|train|validate|features|tune|ensemble|evaluate|explain|fairness|ingest|data)\.\w+|charter|rules: \{|bring more|--target"


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(60))
def test_an_odd_table_ends_with_a_model_or_one_sentence(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    odd(seed).to_csv(tmp_path / "rows.csv", index=False)
    try:
        artifacts = run(init(tmp_path / "project", tmp_path / "rows.csv", "y").root)
    except MlopsError as refused:
        assert "\n" not in str(refused) and re.search(WAY, str(refused)), str(refused)
    else:
        assert json.loads(artifacts["evaluation"])["metrics"] and artifacts["fairness_plot"].startswith(b"\x89PNG")


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


def test_check_knows_model_types_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(60).to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    settings = load_settings(root)
    charter = yaml.safe_load(settings.charter.read_text())

    def said(*candidates: str) -> str:
        settings.charter.write_text(yaml.safe_dump(charter | {"knobs": {"train": {"candidates": [*candidates]}}, "sample": {}}))
        code = "import sys; from mlops_nb.cli.main import app; app(['check'], standalone_mode=False); assert 'sklearn' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    assert said("dummy", "gradient_boosting").startswith("sound: ")
    assert "train.candidates: no model type 'gradient_bosting'; did you mean 'gradient_boosting'?" in said("dummy", "gradient_bosting")
    (folder := root / settings.package).mkdir(exist_ok=True)
    (folder / "types.py").write_text("ours = lambda: ModelType('own_forest', 'tree')\n")
    assert said("dummy", "own_forest").startswith("sound: ") and "did you mean 'own_forest'?" in said("own_forst")


def test_a_column_that_gives_the_target_away_is_a_warning_a_gate_or_accepted(tmp_path: Path) -> None:
    table = made(600).assign(outcome_code=lambda t: t["y"].map({"yes": 7, "no": 3}))
    table.to_csv(tmp_path / "rows.csv", index=False)
    root = init(tmp_path / "project", tmp_path / "rows.csv", "y").root
    charter = load_settings(root).charter
    stated = yaml.safe_load(charter.read_text())

    def leaks(**how: Any) -> list[dict[str, Any]]:
        charter.write_text(yaml.safe_dump(stated | {"leaks": how}))
        return json.loads(run(root, "split")["division"])["rules"]

    (rule,) = leaks()
    assert broken({"rules": [rule]}) == [rule["message"]] and "'outcome_code' alone ranks 'y' nearly perfectly (AUC 1.000)" in rule["message"]
    assert phase_of(gate_list({}, {}, {"rules": [rule]}))[0] == "staging"
    assert leaks(accept={"outcome_code": "Asked before."}) == []
    (gate,) = leaks(gate=True)
    phase, why = phase_of(gate_list({}, {}, {"rules": [gate]}))
    assert phase == "rejected" and why.startswith("no leak by outcome_code: split: ") and broken({"rules": [gate]}) == []


@pytest.mark.slow
def test_a_perfect_leak_ends_with_its_finding_and_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without a fault leaves nothing to plan; the run ends, and says both."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made(600).assign(outcome_code=lambda t: t["y"].map({"yes": 7, "no": 3})).to_csv(tmp_path / "rows.csv", index=False)
    artifacts = run(init(tmp_path / "project", tmp_path / "rows.csv", "y").root, "abtest")
    said = json.loads(artifacts["experiment"])
    assert json.loads(artifacts["evaluation"])["metrics"]["roc_auc"]["value"] == 1.0
    assert said["plan"] is said["rehearsal"] is said["verdict"] is None and said["assignment"]["ok"]
    assert broken(said) == ["abtest: no experiment can be planned: roc_auc is 1 on the rows that evaluated the model, and nothing can be better; see whether something gives the target away, or plan by another metric"]
    assert "'outcome_code' alone ranks 'y'" in broken(json.loads(artifacts["division"]))[0]
    assert artifacts["experiment_plot"].startswith(b"\x89PNG")
