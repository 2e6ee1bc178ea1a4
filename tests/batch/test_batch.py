"""Batch scoring: equal to the model in every format, equal to the row schema value by value, whole or absent after kills and full disks."""

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from tests.faults.test_faults import small_disk

from mlops_nb.model.columns import FLAGS, Scorer, flagged, forbidden, read_column
from mlops_nb.base.charter import Rule
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.compile import compile_model
from mlops_nb.model.decision import Decision
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.registry.registration import register
from mlops_nb.registry.released import released_file
from mlops_nb.registry.sample import plain_rows, sample_of
from mlops_nb.batch import readers
from mlops_nb.batch.score import score
from mlops_nb.cli.main import app, run_program
from mlops_nb.model.rows import RowSchema, Refused
from mlops_nb.serving.served import ServedModel
from mlops_nb.stages.features import make_recipe
from mlops_nb.model.problem import Problem
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.model.schema import Field, Schema
from mlops_nb.model.tasks.known import TASKS
from mlops_nb.model.tasks.regression import Regression

DATA = Path(readers.__file__).parents[1] / "data" / "income.parquet"
RULES = {"age": {"min": 17, "max": 90, "required": True}, "sex": {"allowed": ["Female", "Male"], "required": True}}


class Shop:
    "A registry with census models: `compiled` answers by its compiled model, `plain` by its pipeline."

    def __init__(self, home: Path):
        self.home, self.uri = home, f"sqlite:///{home}/mlflow.db"
        self.people = pd.read_parquet(DATA).head(6000)
        self.stated = Problem(
            name="income", goal="an example", task="binary", target="income", positive=">50K", metric="roc_auc",
            data={"source": "package:income.parquet"}, exclude={"fnlwgt": "survey weight"}, rules=RULES,
        )  # fmt: skip
        self.schema = learn_schema(self.people.head(3000), self.stated)
        self.known = conform(self.people, self.schema)
        recipe = make_recipe(self.schema, self.stated)["tree"]
        self.model = Pipeline([("recipe", recipe), ("estimator", HistGradientBoostingClassifier(max_iter=30, random_state=0))])
        self.model.fit(self.known.head(3000), self.people.income.head(3000))
        self.add("income", self.model, self.stated, 0.4)
        self.add("plain", self.model, self.stated, 0.4, compiled=False)

    def add(self, name: str, model, stated: Problem, threshold: float | None, compiled: bool = True, schema: Schema | None = None) -> None:
        form, known = schema or self.schema, self.known.head(200)
        evidence = as_evidence({
            "problem": stated, "schema": form, "decision": {"threshold": threshold}, "sample": sample_of(model, known.head(8)), "background": plain_rows(known.head(20)),
        })  # fmt: skip
        made = compile_model(model, form, known, target_type=stated.kind.target_type, positive=stated.positive, threshold=threshold) if compiled else None
        register(self.uri, name, model, evidence, "staging", compiled=made)

    def served(self, name: str = "income"):
        return ServedModel(released_file(self.uri), name, "released").current

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "MLOPS_NB_REGISTRY_URI": self.uri, "MLOPS_NB_HOME": str(self.home)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def rows(shop) -> pd.DataFrame:
    "Census rows with an id, missing values and unseen categories among them; all of them can be scored."
    frame = shop.people.drop(columns="income").assign(id=[f"{n:05d}" for n in range(len(shop.people))])
    frame.loc[::7, "occupation"] = None
    frame.loc[::11, "native_country"] = "Wakanda"
    return frame


@pytest.fixture(scope="module")
def expected(shop, rows) -> np.ndarray:
    return shop.model.predict_proba(conform(rows, shop.schema))[:, 1]


def put(frame: pd.DataFrame, folder: Path, kind: str) -> str:
    "The address of a table that holds the rows."
    at = f"{folder}/rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), at, row_group_size=1000)
    elif kind == "csv":
        frame.to_csv(at, index=False)
    elif kind == "jsonl":
        frame.to_json(at, orient="records", lines=True)
    else:
        with sqlite3.connect(at) as base:
            frame.to_sql("rows", base, index=False)
        at = f"sqlite:///{at}#rows"
    return at


def got(address: str) -> pd.DataFrame:
    if address.startswith("sqlite"):
        file, _, table = address.removeprefix("sqlite:///").partition("#")
        return pd.read_sql(f"select * from {table}", sqlite3.connect(file))
    reader = {"parquet": pd.read_parquet, "csv": lambda f: pd.read_csv(f, dtype={"id": str}), "jsonl": lambda f: pd.read_json(f, lines=True, dtype={"id": str})}
    return reader[address.rpartition(".")[2]](address)


@pytest.mark.parametrize("source", ["parquet", "csv", "jsonl", "db"])
@pytest.mark.parametrize("target", ["parquet", "csv", "jsonl", "db"])
def test_every_format_gives_the_models_answers(shop, rows, expected, tmp_path, source, target, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = f"sqlite:///{tmp_path}/out.db#scores" if target == "db" else f"{tmp_path}/out.{target}"
    done = score(put(rows, tmp_path, source), out, shop.served(), keep=["id"], part_rows=1700, threads=2)
    said = got(out)
    assert (done.rows, done.scored, done.refused, done.engine) == (len(rows), len(rows), 0, "compiled")
    assert said.id.tolist() == rows.id.tolist() and said.row.tolist() == list(range(len(rows))) and np.abs(said.probability - expected).max() < 1e-9
    assert (said.decision == np.where(expected >= 0.4, ">50K", "<=50K")).all() and set(said.version) == {1}
    assert done.flags["occupation: missing"] == rows.occupation.isna().sum() and done.flags["native_country: unseen"] >= len(rows) // 11
    assert not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob("*quarantine*"))


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_addresses_of_fsspec(shop, rows, expected, tmp_path, scheme):
    if scheme == "memory":
        store = pytest.importorskip("fsspec").filesystem("memory")
        place = "memory://batch"
        store.makedirs("/batch", exist_ok=True)
        with store.open("/batch/rows.parquet", "wb") as file:
            rows.to_parquet(file)
    else:
        place = f"file://{tmp_path}"
        rows.to_parquet(tmp_path / "rows.parquet")
    done = score(f"{place}/rows.parquet", f"{place}/out.parquet", shop.served(), part_rows=2000)
    assert done.scored == len(rows)
    if scheme == "memory":
        with store.open("/batch/out.parquet", "rb") as file:
            said = pd.read_parquet(file)
        assert store.glob("/batch/*") == ["/batch/out.parquet", "/batch/rows.parquet"]
    else:
        said = pd.read_parquet(tmp_path / "out.parquet")
    assert np.abs(said.probability - expected).max() < 1e-9


def test_a_model_that_is_not_compiled_says_so(shop, rows, expected, tmp_path):
    done = score(put(rows, tmp_path, "parquet"), f"{tmp_path}/out.parquet", shop.served("plain"))
    assert done.engine == "plain pipeline" and any("has no compiled model" in note for note in done.notes)
    assert np.abs(got(f"{tmp_path}/out.parquet").probability - expected).max() < 1e-9


class Counts(Regression):
    "A task of a project's own."

    name = "count"


def test_many_classes_and_numbers(shop, rows, tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "count", Counts())
    base = {**shop.stated.model_dump(mode="json"), "positive": None, "target": "education_num", "rules": {}}
    names = [n for n in shop.schema.names if n != "education_num"]
    schema = shop.schema.model_copy(update={"fields": [f for f in shop.schema.fields if f.name in names], "target": "education_num"})
    recipe = make_recipe(schema, shop.stated)["tree"]
    grades = np.array(["few", "some", "many"])[np.digitize(shop.people.education_num, [9, 12])]
    tasks = {
        "multiclass": (HistGradientBoostingClassifier(max_iter=5), grades, ["few", "many", "some"]), "regression": (HistGradientBoostingRegressor(max_iter=5), shop.people.education_num, None),
        "count": (HistGradientBoostingRegressor(loss="poisson", max_iter=5), shop.people.education_num, None),
    }  # fmt: skip
    source = put(rows, tmp_path, "parquet")
    for task, (estimator, target, classes) in tasks.items():
        model = Pipeline([("recipe", recipe), ("estimator", estimator)]).fit(shop.known[names], target)
        form = schema.model_copy(update={"classes": classes})
        shop.add(task, model, Problem(**{**base, "task": task, "metric": "r2" if classes is None else "accuracy"}), None, compiled=task != "count", schema=form)
        score(source, f"{tmp_path}/{task}.parquet", shop.served(task))
        said, frame = got(f"{tmp_path}/{task}.parquet"), conform(rows, form)
        if classes is None:
            assert np.abs(said.decision - model.predict(frame)).max() < 1e-9 and "probability" not in said
        else:
            chances = model.predict_proba(frame)
            assert np.abs(said[[f"probability_{c}" for c in classes]].to_numpy() - chances).max() < 1e-9
            assert (said.decision == model.predict(frame)).all() and np.allclose(said.probability, chances.max(axis=1))


# ------------------------------------------------------------------ value by value as the row schema has it

FIELDS = [
    Field(name="whole", kind="integer", nullable=False, min=18, max=88),
    Field(name="number", kind="number", nullable=True, min=0.5, max=9.5),
    Field(name="truth", kind="boolean", nullable=True),
    Field(name="text", kind="category", nullable=True, categories=["a", "b", "7"]),
    Field(name="time", kind="datetime", nullable=True, min="2026-01-01T00:00:00", max="2026-12-31T00:00:00"),
]
LAWS = {"whole": Rule(min=17, max=90), "text": Rule(allowed=["a", "b", "c", "7", "True"])}
WORDS = st.sampled_from(["", " ", "39", " 39 ", "39.0", "39.5", "4e1", "+7", ".5", "5.", "1_0", "0x1", "inf", "nan", "1e999", "true", "False", " TRUE", "0", "1", "a", "c", "z", "2026-01-31", " 2026-01-31T12:00+02:00", "20260131", "2026-13-01", "٣"])
TYPED = {
    "texts": st.lists(st.none() | WORDS | st.text(max_size=4)),
    "floats": st.lists(st.none() | st.floats() | st.sampled_from([39.0, 1.0, 0.0, 7.0])),
    "ints": st.lists(st.none() | st.integers(-(2**62), 2**62) | st.integers(-2, 100)),
    "truths": st.lists(st.none() | st.booleans()),
}


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
@pytest.mark.parametrize("kind", TYPED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_column_is_read_as_a_request_reads_its_values(field, kind, data):
    values = data.draw(TYPED[kind])
    rule = LAWS.get(field.name, Rule())
    row_schema = RowSchema(Schema(fields=[field], target="y"), {field.name: rule})
    arrow = {"texts": pa.string(), "floats": pa.float64(), "ints": pa.int64(), "truths": pa.bool_()}[kind]
    array = pa.array(values, arrow)
    for one in (array, array.dictionary_encode() if kind == "texts" else array.slice(0)):
        column = read_column(one, field)
        refused, flags = forbidden(column, field, rule), flagged(column, field)
        for place, value in enumerate(values):
            try:
                ((taken,),) = row_schema.check([[value]])
            except Refused:
                assert refused[place], (value, column)
                continue
            assert not refused[place], (value, column.values[place])
            found = row_schema.flags((taken,))
            assert FLAGS[flags[place]] == (found[0].kind if found else ""), (value, found)
            if taken is None:
                assert math.isnan(column.values[place])
            elif field.kind == "category":
                assert column.texts[int(column.values[place])] == taken
            elif field.kind != "datetime":
                assert column.values[place] == float(taken)


JSON_CELLS = st.none() | st.booleans() | st.integers(-5, 120) | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.lists(st.integers(), max_size=1) | st.dictionaries(st.just("a"), st.integers(), max_size=1)


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(st.fixed_dictionaries({"whole": st.just(39) | JSON_CELLS, "text": st.just("a") | JSON_CELLS, "truth": st.booleans() | JSON_CELLS}), min_size=1, max_size=6))
def test_json_lines_are_read_as_requests_are(lines):
    form = Schema(fields=[f for f in FIELDS if f.name in ("whole", "text", "truth")], target="y")
    row_schema = RowSchema(form, LAWS)
    wanted = pa.schema({c.name: readers._PLAIN[c.kind] for c in row_schema.columns})
    chunk = readers.json_chunk([json.dumps(one).encode() for one in lines], wanted, row_schema)
    scorer = Scorer("x", 1, form, LAWS, Decision(), lambda frame: np.zeros(len(frame)))
    said = scorer.score(chunk.table, 0, (), chunk.lost)
    bad = {r["row"] for r in said.refused}
    for number, line in enumerate(lines):
        try:
            row_schema.check([[line[name] for name in form.names]])
        except Refused:
            assert number in bad, line
        else:
            assert number not in bad, line
    assert len(said.answers) == len(lines) - len(bad)


# ------------------------------------------------------------------ what can't be scored

def test_bad_rows_are_set_aside_with_their_reason(shop, rows, tmp_path):
    frame = rows.head(50).astype({"age": object})
    frame.loc[3, "age"], frame.loc[7, "sex"], frame.loc[9, "age"], frame.loc[11, "hours_per_week"] = 200, "robot", None, 40
    text = frame.to_csv(index=False).splitlines()
    text[14] = text[14].replace(",", ",x", 1)  # an unknown workclass is only flagged
    text.insert(20, "one,two")
    text[31] = "abc" + text[31].lstrip("0123456789")
    (tmp_path / "rows.csv").write_text("\n".join(text))
    done = score(f"{tmp_path}/rows.csv", f"{tmp_path}/out.csv", shop.served(), keep=["id"], part_rows=13)
    aside = [json.loads(line) for line in Path(done.quarantine).read_text().splitlines()]
    assert [(r["row"], r["field"], r["value"]) for r in aside] == [(3, "age", "200"), (7, "sex", "robot"), (9, "age", None), (19, None, "one,two"), (30, "age", "abc")]
    assert aside[0]["reason"] == "expected a whole number from 17 up to 90, it is required" and "one of Female, Male" in aside[1]["reason"]
    assert aside[3]["reason"].startswith("2 values, expected") and (done.rows, done.scored, done.refused) == (51, 46, 5)
    assert not set(got(f"{tmp_path}/out.csv").id) & {"00003", "00007", "00009", "00029"}
    assert got(f"{tmp_path}/out.csv").set_index("row").id[[18, 20, 31]].tolist() == ["00018", "00019", "00030"]  # numbers as in the file
    again = score(put(rows, tmp_path, "csv"), f"{tmp_path}/out.csv", shop.served())
    assert again.quarantine == "" and not Path(done.quarantine).exists()


def test_a_broken_byte_and_an_open_quote_cost_their_rows(shop, rows, tmp_path, monkeypatch):
    lines = rows.head(400).to_csv(index=False).encode().splitlines()
    at = lines[0].split(b",").index(b"workclass")
    for line, how in ((5, b"%b\xff"), (50, b'"%b'), (52, b'%b"')):
        values = lines[line].split(b",")
        values[at] = how % values[at]
        lines[line] = b",".join(values)
    lines[8] = b"\xe4 broken"
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines))
    for block in (8 << 20, 4096):
        monkeypatch.setattr(readers, "_BLOCK", block)
        done = score(f"{tmp_path}/rows.csv", f"{tmp_path}/out.csv", shop.served(), keep=["id"], part_rows=37)
        aside = [json.loads(line) for line in Path(done.quarantine).read_text().splitlines()]
        assert [r["row"] for r in aside] == [4, 7, 49] and "UTF-8" in aside[0]["reason"] and "3 lines" in aside[2]["reason"]
        made = got(f"{tmp_path}/out.csv").set_index("row").id
        assert (done.rows, done.refused, len(made)) == (398, 3, 395) and made[397] == "00399" and made[48] == "00048"
    values = lines[60].split(b",")
    values[at] = b'"' + values[at]
    lines[60] = b",".join(values)
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines))
    with pytest.raises(MlopsError, match="a quote isn't closed"):  # more than a block
        score(f"{tmp_path}/rows.csv", f"{tmp_path}/out.csv", shop.served())


def test_a_database_column_may_change_its_type(shop, rows, tmp_path):
    some = pd.concat([rows] * (40_000 // len(rows) + 1), ignore_index=True).head(40_000).astype({"hours_per_week": float, "age": object, "workclass": object})
    some.loc[:16_999, "workclass"] = None
    some["age"] = pd.Series([float(a) if i > 17_000 else int(a) for i, a in enumerate(some.age)], dtype=object)
    some.loc[20_000:, "hours_per_week"] = None
    with sqlite3.connect(tmp_path / "x.db") as base:
        base.execute(f"CREATE TABLE q ({', '.join(some.columns)})")
        base.executemany(f"INSERT INTO q VALUES ({', '.join('?' * some.shape[1])})", some.astype(object).where(some.notna(), None).to_numpy().tolist())
    base.close()
    done = score(f"sqlite:///{tmp_path}/x.db#q", f"{tmp_path}/out.parquet", shop.served(), keep=["age"], part_rows=19_000)
    same = score(put(some.astype({"age": float}), tmp_path, "csv"), f"{tmp_path}/same.parquet", shop.served())
    assert (done.scored, done.refused, done.decisions) == (same.scored, same.refused, same.decisions) and done.scored == 40_000


def words(shop: Shop, *given: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mlops_nb.cli.main", "score", *given, "--model", "income@staging"]
    charter = str(Path(readers.__file__).parents[2] / "nbs" / "charters" / "income.yaml")
    return subprocess.run(command, cwd=cwd, env={**shop.env, "MLOPS_NB_CHARTER": charter}, capture_output=True, text=True, timeout=120)


def main(words: list[str]) -> int:
    "The command in this process, and its exit code."
    with patch.object(sys, "argv", ["mlops-nb", "score", *words]), pytest.raises(SystemExit) as end:
        run_program(app)
    return end.value.code or 0


@pytest.fixture
def sentence(shop, tmp_path, capsys, monkeypatch):
    "What the command says when it can't score, one line; nothing is left under the target's name."
    monkeypatch.setenv("MLOPS_NB_REGISTRY_URI", shop.uri)

    def said(source: str, target: str = "", *more: str) -> str:
        target = target or f"{tmp_path}/out.parquet"
        source = source if "/" in source else f"{tmp_path}/{source}"
        code = main([source, target, "--model", "income@staging", *more])
        text = capsys.readouterr().err
        assert code == 1 and text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text, text
        assert not os.path.exists(target) or not os.path.isfile(target)
        return text

    return said


def test_bad_input_is_one_sentence(shop, rows, tmp_path, sentence, capsys):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\0\0" * 99)
    (tmp_path / "picture.parquet").write_bytes(b"\x89PNG\r\n\0\0" * 99)
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    (tmp_path / "folder.csv").mkdir()
    assert "is empty" in sentence("empty.csv") and "is empty" in sentence("empty.parquet")
    assert "holds binary data" in sentence("picture.csv") and "can't be read" in sentence("picture.parquet")
    assert "isn't a JSON object" in sentence("list.jsonl") and "there is no such file" in sentence("absent.csv")
    assert "it is a folder" in sentence("folder.csv")
    assert "did you mean 'parquet'" in sentence("rows.parqet") and "did you mean 'parquet'" in sentence("empty.csv", f"{tmp_path}/out.parqet")
    source = put(rows, tmp_path, "csv")
    assert "no column 'tow' to keep" in sentence(source, "", "--keep", "tow")
    kept = Path(source).read_bytes()
    assert main([source, f"{tmp_path}/../{tmp_path.name}/{Path(source).name}", "--model", "income@staging"]) == 1 and "is to be read and written" in capsys.readouterr().err
    assert Path(source).read_bytes() == kept
    for option, value in (("--threads", "-1"), ("--part-rows", "0"), ("--part-rows", "many")):
        assert main([source, f"{tmp_path}/out.parquet", option, value]) == 2
        assert f"'{option}'" in (said := capsys.readouterr().err) and "Traceback" not in said
    misspelt = put(rows.rename(columns={"sex": "sexx"}), tmp_path, "csv")
    assert "no column 'sex'; did you mean 'sexx'?" in sentence(misspelt)
    (tmp_path / "twice.csv").write_text("age,age\n1,2\n")
    assert "two columns are called 'age'" in sentence("twice.csv")
    pq.write_table(pa.Table.from_pandas(rows.head(100).assign(age="old"), preserve_index=False), tmp_path / "words.parquet")
    assert "column 'age' holds no value that can be read, for example 'old'; expected a whole number" in sentence("words.parquet")
    pq.write_table(pa.Table.from_pandas(rows.head(100), preserve_index=False).set_column(0, "age", pa.array([[1]] * 100)), tmp_path / "nested.parquet")
    assert "column 'age' holds no value" in sentence("nested.parquet")
    sqlite3.connect(tmp_path / "shop.db").close()
    (tmp_path / "shop.db").touch()
    assert "names no table" in sentence(f"sqlite:///{tmp_path}/shop.db") and "no such table" in sentence(f"sqlite:///{tmp_path}/shop.db#rows")
    assert "no such file" in sentence(f"sqlite:///{tmp_path}/absent.db#rows") and not (tmp_path / "absent.db").exists()
    assert "***@" in (said := sentence("postgresql://ann:secret@127.0.0.1:1/db#rows")) and "secret" not in said
    for model, way in (("incme", "did you mean 'income'?"), ("income@7", "has no version 7"), ("income", "say so: income@staging"), ("income@released", "MODEL@staging")):
        assert main([source, f"{tmp_path}/out.parquet", "--model", model]) == 1 and way in capsys.readouterr().err


def test_targets_that_cant_be_written(shop, rows, tmp_path, sentence):
    source = put(rows, tmp_path, "parquet")
    (tmp_path / "file").touch()
    assert "can't be written" in sentence(source, f"{tmp_path}/file/out.parquet")
    assert "can't be written" in sentence(source, "/proc/out.parquet")
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("create table scores (a int)")
    assert "is there already" in sentence(source, f"sqlite:///{tmp_path}/shop.db#scores")


def test_a_full_disk_leaves_parts_that_the_next_run_goes_on_with(shop, rows, tmp_path):
    source, disk = put(pd.concat([rows] * 4), tmp_path, "parquet"), tmp_path / "disk"
    with small_disk(disk, "4m"):
        with pytest.raises(MlopsError, match="No space left.*what is done stays"):
            filler = disk / "filler"
            filler.write_bytes(bytes(3_900_000))
            score(source, f"{disk}/out.parquet", shop.served(), keep=["id"], part_rows=500)
        assert not (disk / "out.parquet").exists()
        filler.unlink()
        again = score(source, f"{disk}/out.parquet", shop.served(), keep=["id"], part_rows=500)
        assert again.resumed > 0 and len(got(f"{disk}/out.parquet")) == 4 * len(rows) == again.scored


def test_extra_columns_are_said_once_and_no_rows_is_a_result(shop, rows, tmp_path):
    done = score(put(rows.head(0), tmp_path, "parquet"), f"{tmp_path}/out.parquet", shop.served(), keep=["id"])
    assert [n for n in done.notes if n.startswith("not read")] == ["not read: fnlwgt"] and done.rows == 0
    assert got(f"{tmp_path}/out.parquet").columns.tolist() == ["row", "id", "decision", "probability", "flags", "model", "version"]
    (tmp_path / "head.csv").write_text(",".join(rows.columns) + "\n")
    assert score(f"{tmp_path}/head.csv", f"{tmp_path}/out.csv", shop.served()).rows == 0


# ------------------------------------------------------------------ killed, changed

@pytest.mark.slow
@pytest.mark.parametrize(("kind", "times"), [("parquet", 2), *(pytest.param(kind, 12, marks=pytest.mark.deep) for kind in ("parquet", "csv", "jsonl"))])
def test_killed_at_any_point_the_same_command_finishes_equal(shop, rows, tmp_path, kind, times):
    frame = pd.concat([rows] * 10, ignore_index=True).assign(id=lambda f: [f"{n:06d}" for n in range(len(f))])
    frame.loc[::997, "age"] = 200
    source, seed = put(frame, tmp_path, kind), random.randrange(10**6)
    print("seed", seed)
    command = [sys.executable, "-m", "mlops_nb.cli.main", "score", source, f"{tmp_path}/out.parquet", "--model", "income@staging", "--keep", "id", "--part-rows", "700"]
    dice = random.Random(seed)
    calm = score(source, f"{tmp_path}/calm.parquet", shop.served(), keep=["id"], part_rows=700)
    parts, survived = tmp_path / "out.parquet.parts", 0
    while survived < times and not (tmp_path / "out.parquet").exists():
        child = subprocess.Popen(command, env=shop.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(parts.glob("*.parquet"))) if parts.exists() else 0
        more = dice.randrange(0, 30)
        while child.poll() is None and not (parts.exists() and len(list(parts.glob("*.parquet"))) >= before + more):
            time.sleep(0.002)
        time.sleep(dice.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        survived += child.wait() == -9
    assert survived
    done = words(shop, *command[4:6], "--keep", "id", "--part-rows", "700", cwd=Path.cwd())
    assert done.returncode == 0 and ("behind row" in done.stdout or (tmp_path / "out.parquet").exists()), done.stderr
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "calm.parquet").read_bytes()
    assert (tmp_path / "out.parquet.quarantine.jsonl").read_bytes() == Path(calm.quarantine).read_bytes()
    assert calm.refused == len(frame.loc[::997]) and not parts.exists()


def test_another_input_or_model_starts_anew(shop, rows, tmp_path, monkeypatch):
    source, out = put(rows, tmp_path, "csv"), f"{tmp_path}/out.csv"
    served = shop.served()

    def stopped(rows_done: int, share: float | None) -> None:
        if rows_done >= 4000:
            raise KeyboardInterrupt

    def begun() -> None:
        with pytest.raises(KeyboardInterrupt):
            score(source, out, served, part_rows=1000, progress=stopped)

    begun()
    assert 4000 <= score(source, out, served, part_rows=1000).resumed <= 6000
    begun()
    put(rows.head(5999), tmp_path, "csv")
    done = score(source, out, served, part_rows=1000)
    assert done.resumed == 0 and any("the source changed since: started anew" in n for n in done.notes) and len(got(out)) == 5999
    begun()
    done = score(source, out, shop.served("plain"), part_rows=1000)
    assert done.resumed == 0 and any("the model changed since" in n for n in done.notes) and set(got(out).model) == {"plain"}


@pytest.mark.slow
@pytest.mark.parametrize("change", ["", "extensions", "steps"])
def test_a_change_of_the_projects_own_code_starts_anew(shop, rows, tmp_path, change):
    """A plain pipeline may run what a project adds, and whatever its extensions import."""
    source, out, package = put(pd.concat([rows] * 3), tmp_path, "parquet"), tmp_path / "out.parquet", tmp_path / "dairy"
    package.mkdir()
    (tmp_path / "settings.ini").write_text("[mlops_nb]\npackage = dairy\n")
    (package / "extensions.py").write_text("from dairy.steps import LITRE\n")
    (package / "steps.py").write_text("LITRE = 1.0\n")
    command = [sys.executable, "-m", "mlops_nb.cli.main", "score", source, str(out), "--model", "plain@staging", "--part-rows", "200"]
    killed = subprocess.Popen(command, cwd=tmp_path, env=shop.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and len(list(tmp_path.glob("out.parquet.parts/*.parquet"))) < 3:  # one of them is kept for sure
        time.sleep(0.002)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL and not out.exists()
    if change:
        (package / f"{change}.py").write_text(f"{(package / f'{change}.py').read_text()}MORE = 2.0\n")
    done = subprocess.run(command, cwd=tmp_path, env=shop.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(got(str(out))) == 3 * len(rows), done.stderr
    assert ("the project's extensions changed since: started anew" in done.stdout) == bool(change), done.stdout
    assert ("going on behind row" in done.stdout) == (not change), done.stdout


def test_two_runs_on_one_target_dont_mix(shop, rows, tmp_path):
    source, out, refusals = put(rows, tmp_path, "parquet"), f"{tmp_path}/out.parquet", []

    def meanwhile(rows_done: int, share: float | None) -> None:
        try:
            score(source, out, shop.served())
        except MlopsError as error:
            refusals.append(str(error))

    score(source, out, shop.served(), part_rows=4000, progress=meanwhile)
    assert len(refusals) == 2 and "another run is writing" in refusals[0] and len(got(out)) == len(rows)


@pytest.mark.deep
def test_ten_million_rows_in_bounded_memory():
    bench = Path(__file__).parents[1] / "bench" / "batch.py"
    done = subprocess.run([sys.executable, bench, "10_000_000"], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert facts["peak_gb"] < 1.5 and facts["worst"] < 1e-9  # how fast, the benchmark itself says
