"""One rule says which class is meant: however the target is written in the data, and whatever word the charter, a request's label or the log has for it."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mlops_nb.model.columns import Scorer
from mlops_nb.model.decision import Decision, as_said, is_one_of, is_positive, name_of, number_of, position, spellings
from mlops_nb.base.charter import Rule
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.serialization import unpack
from mlops_nb.model.schema import Schema
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.registry.sample import plain_rows, sample_of
from mlops_nb.sources.tables import read_table
from mlops_nb.serving.version import ServedVersion
from mlops_nb.serving.plain import plain_engine
from mlops_nb.loop.retraining import as_target
from mlops_nb.stages.abtest import contributed
from mlops_nb.stages.evaluate import positive_probability
from mlops_nb.model.explanation import explained_column
from mlops_nb.stages.ingest import check_target
from mlops_nb.monitoring.windows import part_of
from mlops_nb.model.problem import Problem
from mlops_nb.stages.register import prove_version
from mlops_nb.model.rule import with_rule
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.model.tasks.known import task_of
from mlops_nb.stages.train import answers_of
from mlops_nb.stages.validate import judge_rows
from mlops_nb.log.items import BadItem, label_of

NUMBERS = [1, 1.0, "1", "1.0", "1e0", True, "true", "True", "yes", "on"]
#: How the target is written: the other class, the positive one, a gap; words for the positive one; words that are no class.
WRITTEN = {
    "0/1": (["0", "1"], "", NUMBERS, ["2", "y", "01x"]),
    "0/1 with gaps": (["0", "1"], "?", NUMBERS, ["2"]),
    "0.0/1.0 with gaps": (["0.0", "1.0"], "NA", NUMBERS, ["1.5", "one"]),
    "true/false": (["false", "true"], "", NUMBERS, ["2", "y"]),
    "True/False with gaps": (["False", "True"], "?", NUMBERS, ["wahr"]),
    "1/2": (["1", "2"], "", [2, 2.0, "2", "2.0", "0x2"], ["3", "no"]),
    "-1/1 with gaps": (["-1", "1"], "?", ["1", "+1", 1.0], ["0"]),
    "yes/no": (["no", "yes"], "?", ["yes"], ["Yes", "true", "1", 1, True]),
    "Y/N": (["N", "Y"], "", ["Y"], ["y", "yes", "1"]),
    "padded": (["00", "01"], "", ["01"], ["1", 1]),
    "with spaces": (["not late", "very late"], "?", ["very late"], ["very  late", "late"]),
    "a word of YAML": (["SE", "NO"], "?", ["NO"], ["no", "false", False]),
    "null and none": (["none", "~"], "?", ["~"], ["null"]),
}


def column(both: list[str], gap: str) -> pd.Series:
    """A target as a CSV file gives it."""
    rng = np.random.default_rng(0)
    words = [*rng.choice(both, 58), *both, *([gap] * 4 if gap else [])]
    file = Path("late.csv")
    return _read("age,late\n" + "\n".join(f"{20 + i % 50},{w}" for i, w in enumerate(words)), file)


def _read(text: str, name: Path) -> pd.DataFrame:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(text)
        return read_table(Path(folder, name))


def stated(positive, task: str = "binary") -> Problem:
    metric = {"binary": "roc_auc", "multiclass": "accuracy"}[task]
    return Problem.model_validate({"name": "late", "goal": "x", "task": task, "target": "late", "positive": positive, "metric": metric, "data": {"source": "late.csv"}})


class Learnt:
    """A small model of a target, by the stages' own functions."""

    def __init__(self, raw: pd.DataFrame, positive):
        self.stated = stated(positive)
        check_target(raw, self.stated)
        self.rows = judge_rows(raw, self.stated, copies=False).rows
        self.form = learn_schema(self.rows, self.stated)
        known = conform(self.rows, self.form)
        self.model = with_rule(make_pipeline(LogisticRegression()), sorted(self.rows.late.unique()), positive, 0.3).fit(known, self.rows.late)
        self.known = known
        self.evidence = as_evidence({
            "problem": self.stated, "schema": self.form, "decision": {"threshold": 0.3}, "sample": sample_of(self.model, known.head(4)), "background": plain_rows(known.tail(5)),
        })  # fmt: skip


CASES = [(how, positive) for how, (_, _, words, _) in WRITTEN.items() for positive in words]


@pytest.mark.parametrize(("how", "positive"), CASES, ids=str)
def test_all_mean_the_same_class(how, positive):
    """Every place that asks which class is meant, from the raw rows to an experiment's answers."""
    both, gap, _, _ = WRITTEN[how]
    raw = column(both, gap)
    truth = (raw.late.dropna().map(lambda v: name_of(v)) == name_of(raw.late.dropna().iloc[59])).to_numpy()  # the 60th is the positive one
    assert is_positive(raw.late.dropna(), positive).tolist() == truth.tolist() and is_positive(raw.late, positive).sum() == truth.sum()
    found = Learnt(raw, positive)
    model, evidence, rows = found.model, found.evidence, found.known
    at = 1 if is_positive(list(model.classes_), positive)[1] else 0
    chance = model.predict_proba(rows)[:, at]
    assert len(model.classes_) == 2 and positive_probability(model, rows, positive).tolist() == chance.tolist()
    assert answers_of(model, rows, found.stated).proba.tolist() == chance.tolist()
    assert explained_column(model, rows[:3], positive).tolist() == [at] * 3
    decision = evidence.rule
    assert decision.at == at and decision.classes == [name_or_self(c) for c in model.classes_] and decision.positive == decision.classes[at]
    scored = Scorer("late", 1, evidence.form, evidence.problem.rules, evidence.rule, model.predict_proba).score(pa.Table.from_pandas(rows)).answers
    served = ServedVersion("late", 1, "staging", evidence, plain=plain_engine(model, evidence))
    served.prove()
    answers = served.answer(served.row_schema.named([{"age": int(age)} for age in rows.age]))
    assert [a.decision for a in answers] == scored["decision"].to_pylist() == [as_said(v) for v in model.predict(rows)]
    assert [a.probability for a in answers] == scored["probability"].to_pylist() == pytest.approx(chance.tolist())
    prove_version(model, evidence, None, 4)

    # the log, labels, monitoring, experiments, retraining
    outputs = [msgspec.json.encode(a).decode() for a in answers]
    label = label_of(positive, outputs[0])
    assert label == name_of(decision.positive) and set(answers[0].probabilities) == set(decision.names)
    assert label_of(name_of(decision.positive), outputs[0]) == label_of(decision.positive, outputs[0]) == label
    labels = [label_of(v.item() if hasattr(v, "item") else v, o) for v, o in zip(found.rows.late, outputs, strict=True)]
    real, picked = is_positive(found.rows.late, positive), np.array([a.decision == decision.positive for a in answers])
    part = part_of(window_of(outputs, labels), 1, evidence)
    assert part.known.all() and part.y_true.tolist() == real.tolist() and part.y_pred.tolist() == picked.tolist() and not part.notes
    table = pd.DataFrame({"label": labels, "decision": [json.loads(o)["decision"] for o in outputs], "probability": chance, "probabilities": [json.loads(o)["probabilities"] for o in outputs]})
    assert contributed(table, "accuracy", found.stated).tolist() == (real == picked).astype(float).tolist()
    assert contributed(table, "cost", found.stated).tolist() == (real != picked).astype(float).tolist()
    assert as_target(pd.Series(labels), raw.late, task_of("binary")).tolist() == found.rows.late.tolist()


def name_or_self(value):
    plain = value.item() if hasattr(value, "item") else value
    return int(plain) if isinstance(plain, float) else plain


def window_of(outputs, labels):
    from mlops_nb.monitoring.windows import Window

    n, start = len(outputs), datetime(2026, 1, 1, tzinfo=UTC)
    table = pa.table({
        "id": [f"{i:032x}" for i in range(n)], "version": pa.array([1] * n, pa.int64()), "output": outputs, "inputs": ['{"age": 30}'] * n, "label": labels,
        "arm": [""] * n, "subject": pa.nulls(n, pa.string()), "latency": [0.001] * n, "time": pa.array([start] * n, pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    names = {"table": table, "rows": n, "start": start, "end": start + timedelta(days=1)}
    return Window(**{f: names.get(f, [] if f == "machine" else None) for f in Window._fields})


@pytest.mark.parametrize(("how", "positive"), [(how, word) for how, (*_, wrong) in WRITTEN.items() for word in wrong], ids=str)
def test_what_is_no_class_is_said_before_anything_is_learnt(how, positive):
    raw = column(*WRITTEN[how][:2])
    with pytest.raises(MlopsError, match="no row has late = "):
        check_target(raw, stated(positive))
    with pytest.raises(MlopsError, match="knows no class .*; its classes: "):
        position(raw.late.dropna().unique(), positive)


@pytest.mark.parametrize("kind", ["int8", "Int64", "float32", "boolean", "bool", "uint64", "category"])
def test_parquet_types(kind, tmp_path):
    rows = pd.DataFrame({"late": [0, 1] * 10, "age": range(20)}).astype({"late": kind})
    rows.to_parquet(tmp_path / "rows.parquet")
    raw = read_table(tmp_path / "rows.parquet")
    for positive in NUMBERS:
        assert is_positive(raw.late, positive).tolist() == [False, True] * 10, positive


@pytest.mark.parametrize(("gaps", "kind"), [([0, 1, None], "Int64"), ([False, True, None], "boolean")])
def test_nullable_parquet(gaps, kind, tmp_path):
    pd.DataFrame({"late": pd.array(gaps * 10, dtype=kind), "age": range(30)}).to_parquet(tmp_path / "rows.parquet")
    raw = read_table(tmp_path / "rows.parquet")
    found = judge_rows(raw, stated("1"), copies=False).rows.late
    assert [type(v.item()) for v in found.unique()] == [type(gaps[0])] * 2 and is_positive(raw.late, "1").sum() == is_positive(found, "true").sum() == 10


def test_models_registered_before_are_served():
    """Classes of 0.0 and 1.0, and a positive class that YAML made a number or a truth, as their evidence has them."""
    for classes, positive in (([0.0, 1.0], 1), ([0.0, 1.0], "1.0"), ([0, 1], True), ([False, True], 1), ([False, True], True), (["False", "True"], True)):
        decision = Decision(Schema(fields=[], target="late", classes=classes).classes, positive)
        assert decision.at == 1 and decision.threshold == 0.5
        assert decision.names[1] in ("1", "true", "True") and type(decision.positive) in (int, bool, str)


def test_the_compiled_model_says_the_same(tmp_path):
    found = Learnt(column(*WRITTEN["0.0/1.0 with gaps"][:2]), "yes")
    data = compile_model(found.model, found.form, found.known, target_type="binary", positive="yes", threshold=0.5)
    assert unpack(data)[0]["classes"] == [0, 1]
    served = ServedVersion("late", 1, "staging", found.evidence, compiled=CompiledModel.load(data))
    assert served.positive == 1 and [a.decision for a in served.answer([(30,), (60,)])] == [a.decision for a in ServedVersion("late", 1, "staging", found.evidence, plain=plain_engine(found.model, found.evidence)).answer([(30,), (60,)])]
    prove_version(found.model, found.evidence, data, 4)


def test_register_refuses_what_can_not_be_used():
    found = Learnt(column(*WRITTEN["0/1"][:2]), "1")
    broken = {
        "scored: the model knows no class 'x'": {"problem": found.stated.model_copy(update={"positive": "x"})},
        "scored: age = ": {"problem": found.stated.model_copy(update={"rules": {"age": Rule(max=1)}})},
        "explained": {"background": {"rows": [], "dtypes": {"age": "int64"}}},
    }
    for said, change in broken.items():
        with pytest.raises(MlopsError, match=f"^the model is not registered, for rows that it learnt from can't be {said}"):
            prove_version(found.model, as_evidence(found.evidence.content() | change), None, 4)


def test_multiclass_of_numbers_with_gaps():
    """Grades of 3.0 to 5.0: their names are whole numbers in answers, files and labels; labels logged under the older names still count."""
    evidence = as_evidence({"problem": stated(None, "multiclass"), "schema": Schema(fields=[], target="late", classes=[3.0, 4.0, 5.0])})
    assert evidence.rule.names == ["3", "4", "5"] and evidence.rule.classes == [3, 4, 5]
    for names in (["3", "4", "5"], ["3.0", "4.0", "5.0"]):
        output = json.dumps({"decision": 4, "flags": [], "probability": 0.5, "probabilities": dict(zip(names, (0.2, 0.5, 0.3), strict=True))})
        assert [label_of(given, output) for given in (4, 4.0, "4", "4.0")] == [names[1]] * 4
        part = part_of(window_of([output] * 2, [names[1], names[2]]), 1, evidence)
        assert part.y_true.tolist() == ["4", "5"] and part.y_pred.tolist() == ["4", "4"] and part.proba.tolist() == [[0.2, 0.5, 0.3]] * 2
    with pytest.raises(BadItem, match="expected one of the classes of the version that answered: 3.0, 4.0, 5.0"):
        label_of("4.5", output)


ANY = st.one_of(st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.sampled_from(["1", "1.0", "01", "true", "yes", "NO", "0x1F", "1_0", "nan", ""]))


@settings(deadline=None)
@given(ANY, ANY)
def test_alone_and_in_a_column(value, written):
    """The rule for one value, for a list, and for a numpy column is one rule; and a value is what its own spellings name."""
    alone = bool(is_one_of([value], [written])[0])
    if isinstance(value, str):
        assert alone == (value in spellings(written))
    else:
        assert alone == (number_of(value) is not None and number_of(value) == number_of(written))
    if isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 2**63):
        assert bool(is_one_of(np.array([value]), [written])[0]) == alone or abs(number_of(written) or 0) > 2**53
    if value == value and not (isinstance(value, float) and abs(value) >= 1e15):
        assert all(is_one_of([value], [text])[0] for text in spellings(value))


def test_a_column_of_times():
    times = pd.Series(pd.to_datetime(["2013-01-05", "2013-01-06", None]))
    assert is_one_of(times, ["2013-01-05", "no time", "7"]).tolist() == [True, False, False]
    assert is_one_of(times.dt.tz_localize("UTC"), ["2013-01-06T01:00+01:00"]).tolist() == [False, True, False]


def test_nothing_heavy_is_imported():
    code = "import sys, mlops_nb.model.decision, mlops_nb.base.scalars; print(sorted({'numpy', 'pandas', 'pyarrow', 'sklearn', 'yaml', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
