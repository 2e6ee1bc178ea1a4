"""Both engines of validate, the own one and Great Expectations, find the same faults in the same rows, in the same words."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.stages import injected

from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import Settings
from mlops_nb.base.validation import Validation
from mlops_nb.model.census import census_problem
from mlops_nb.pipeline.graph import stock_stages
from mlops_nb.pipeline.keys import ingredients
from mlops_nb.stages.validate import check_counts, check_left, judge_rows, rule_faults

pytest.importorskip("great_expectations")
from mlops_nb.model.expectations import Expectations  # noqa: E402

RULES = {
    "age": {"min": 17, "max": 90, "required": True}, "hours": {"min": 1}, "sex": {"allowed": ["Female", "Male"]},
    "level": {"allowed": [1, "2", 3.0]}, "flag": {"allowed": [True]}, "day": {"allowed": ["2026-01-01", "2026-01-02"]},
    "<b>name</b>": {"required": True},
}  # fmt: skip
PROBLEM = census_problem(rules=RULES)


def table(n=60):
    """Rows without a fault."""
    i = np.arange(n)
    return pd.DataFrame({
        "age": 17.0 + i, "hours": 1 + i, "sex": np.where(i % 2, "Female", "Male"), "level": 1 + i % 3, "flag": True, "gain": i / 7,
        "day": pd.to_datetime(np.where(i % 2, "2026-01-01", "2026-01-02")), "<b>name</b>": [f"n{k}" for k in i],
        "work": "Private", "income": np.where(i % 3, "<=50K", ">50K"),
    })  # fmt: skip


def put(column, value, row=7):
    """A value somewhere."""
    def inject(frame):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            frame[column] = frame[column].astype(object if frame[column].dtype.kind in "biuf" else frame[column].dtype)
        elif frame[column].dtype.kind in "iu" and isinstance(value, float):
            frame[column] = frame[column].astype(float)
        frame.loc[row, column] = value
        return frame

    return inject


def copy(*rows):
    """Exact copies of row 3, behind all others."""
    return lambda frame: pd.concat([frame, frame.loc[list(rows)]], ignore_index=True)


FAULTS = {
    "below": put("age", 16.999), "far below": put("age", -1e300), "above": put("age", 90.5), "age missing": put("age", np.nan), "age infinite": put("age", np.inf),
    "age less than infinite": put("age", -np.inf), "age as text": put("age", "fifty"), "age as text of a number": put("age", "130"), "age as an empty text": put("age", ""),
    "hours zero": put("hours", 0), "hours half": put("hours", 0.5), "hours as text": put("hours", "full time"), "hours infinite": put("hours", np.inf),
    "gain infinite": put("gain", np.inf), "gain less than infinite": put("gain", -np.inf), "gain too large for others": put("gain", 1.7976931348623157e308),
    "lower case": put("sex", "female"), "blank behind": put("sex", "Male "), "other value": put("sex", "x"), "empty text": put("sex", ""), "markup": put("sex", "<script>alert(1)</script>"),
    "dollars": put("sex", "$Female"), "level 4": put("level", 4), "level 1.5": put("level", 1.5), "level as text": put("level", "two"), "level as its text": put("level", "2"),
    "flag false": put("flag", False), "other day": put("day", pd.Timestamp("2026-01-03")), "day missing": put("day", pd.NaT), "name missing": put("<b>name</b>", None),
    "target missing": put("income", None), "target spelt otherwise": put("income", "<=50K."), "spelt otherwise": put("work", "private"), "copy": copy(3), "copies": copy(3, 3, 9),
    "copies with gaps": lambda frame: copy(3)(put("work", None, 3)(frame)), "every row": lambda frame: frame.assign(age=200.0), "no rows wrong": lambda frame: frame,
    "many at once": lambda frame: copy(5)(put("gain", np.inf, 5)(put("sex", "f", 5)(put("age", 1.0, 5)(frame)))), "all of a column missing": lambda frame: frame.assign(age=np.nan),
}  # fmt: skip


def told(judged):
    """What a person sees of a table that was judged."""
    return judged.rows, judged.quarantine, judged.faults.astype("str").sort_values(["row", "column", "fault"], ignore_index=True)


def test_there_are_enough():
    clean = judge_rows(table(), PROBLEM)
    assert clean.faults.empty and len(clean.rows) == 60
    caught = [name for name, inject in FAULTS.items() if len(judge_rows(inject(table()), PROBLEM).quarantine)]
    assert len(caught) >= 34 and set(FAULTS) - set(caught) <= {"no rows wrong", "level as its text", "gain too large for others", "day missing"}


@pytest.mark.parametrize("name", FAULTS)
def test_engines_agree(name):
    frame = FAULTS[name](table())
    own, other = (told(judge_rows(frame, PROBLEM, rules=rules)) for rules in (rule_faults, Expectations()))
    for mine, theirs in zip(own, other, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_engines_agree_on_many_faults(seed):
    rng, frame = np.random.default_rng(seed), table(200).assign(age=lambda f: 17 + f["age"] % 70)
    for name in rng.choice(sorted(FAULTS), 12, replace=False):
        frame = FAULTS[name](frame) if not name.startswith(("all", "every")) else frame
    own, other = (told(judge_rows(frame, PROBLEM, rules=rules)) for rules in (rule_faults, Expectations()))
    assert len(own[2]) > 3
    for mine, theirs in zip(own, other, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


@pytest.mark.parametrize("fault", injected.FAULTS, ids=lambda fault: fault.name)
def test_engines_agree_on_what_was_injected(fault):
    problem = census_problem(target=injected.TARGET, positive="yes", rules=fault.rules)
    own, other = (told(judge_rows(fault.rows, problem, rules=rules)) for rules in (rule_faults, Expectations()))
    for mine, theirs in zip(own, other, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)
    by_rules = {"range", "allowed", "required", "finite", "copies", "type", "spelling"}
    rows = {row for row, _, check in fault.found if check in by_rules and not fault.validation}
    assert rows <= set(own[2]["row"].astype(int))


def test_a_rule_that_cannot_be_applied_is_a_sentence_in_both():
    frame = table().assign(day=pd.Timestamp("2026-01-01"))
    problem = census_problem(rules={"day": {"min": 3}})
    for rules in (rule_faults, Expectations()):
        with pytest.raises(MlopsError, match="the rules can't be applied"):
            rules(frame, problem)


def suite(folder, *expectations, **more):
    path = folder / "expectations.json"
    path.write_text(json.dumps({"name": "own", "expectations": list(expectations), **more}))
    return Expectations(str(path))


def rule(kind, severity=None, **kwargs):
    return {"type": kind, "kwargs": kwargs, "meta": {"severity": severity} if severity else {}}


def test_a_suites_rows_are_put_aside_by_their_own_expectation(tmp_path):
    frame = put("work", "7 ", 11)(table())
    judged = judge_rows(frame, PROBLEM, rules=suite(tmp_path, rule("expect_column_values_to_match_regex", column="work", regex="^[A-Z]")))
    assert judged.quarantine["quarantine_row"].tolist() == [11]
    assert judged.quarantine["quarantine_reason"][0] == "work: '7 ' fails expect_column_values_to_match_regex (regex ^[A-Z])"


def test_a_suite_has_its_own_severities_and_its_own_words(tmp_path):
    frame = put("work", "7 ", 11)(table())
    kind = rule("expect_column_values_to_match_regex", column="work", regex="^[A-Z]")
    kind["meta"]["fault"] = "exact copy of an earlier row"
    for severity in ({}, {"range": "stop"}, {"copies": "warn"}):
        judged = judge_rows(frame, PROBLEM, demands=Validation.model_validate({"severity": severity}), rules=suite(tmp_path, kind))
        assert judged.quarantine["quarantine_row"].tolist() == [11]
        assert [(c["check"], c["severity"]) for c in check_counts(judged)] == [("expectations", "quarantine")]
        check_left(judged, PROBLEM, 0.5)


def test_mostly_is_met_and_names_nobody(tmp_path):
    frame = put("work", "7 ", 11)(table())
    kind = rule("expect_column_values_to_match_regex", column="work", regex="^[A-Z]", mostly=0.9)
    assert judge_rows(frame, PROBLEM, rules=suite(tmp_path, kind)).quarantine.empty


def test_severity(tmp_path):
    few = {"column": "age", "max_value": 20}
    warned = suite(tmp_path, rule("expect_column_values_to_be_between", "warn", **few))
    assert judge_rows(table(), PROBLEM, rules=warned).quarantine.empty and "56 rows" in warned.findings[0]["finding"]
    assert warned.warnings == ["age fails expect_column_values_to_be_between (max_value 20): 56 rows"]
    of_all = suite(tmp_path, rule("expect_column_mean_to_be_between", "warn", **few))
    judge_rows(table(), PROBLEM, rules=of_all)  # what was seen is data, and stays out of a run's warnings
    assert of_all.warnings == ["age fails expect_column_mean_to_be_between (max_value 20)"]
    with pytest.raises(MlopsError, match="56 rows"):
        judge_rows(table(), PROBLEM, rules=suite(tmp_path, rule("expect_column_values_to_be_between", "stop", **few)))
    with pytest.raises(MlopsError, match="seen 46.5"):
        judge_rows(table(), PROBLEM, rules=suite(tmp_path, rule("expect_column_mean_to_be_between", **few)))
    with pytest.raises(MlopsError, match="expected stop, quarantine or warn"):
        suite(tmp_path, rule("expect_column_mean_to_be_between", "shrug", **few))


@pytest.mark.parametrize("text, said", [
    ("", "can't be read"), ("{", "can't be read"), ("[]", "no list 'expectations'"), ('{"expectations": {}}', "no list"), ('{"expectations": []}', "0 expectations"),
    ('{"expectations": [3]}', "no list"), ('{"expectations": [{"kwargs": {}}]}', "expected 'type'"), ("[" * 100_000, "can't be read"),
    ('{"expectations": [{"type": "expect_it", "kwargs": {}}]}', "no expectation 'expect_it'"),
    ('{"expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min": 3}}]}', "can't be read"),
    ('{"expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": {"$PARAMETER": "x"}}}]}', "x"),
    ('{"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age", "row_condition": "@__import__", "condition_parser": "pandas"}}]}', "holds code"),
    ('{"expectations": [{"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "SELECT 1"}}]}', "holds code"),
    ('{"expectations": [{"type": "expect_column_values_to_match_regex", "kwargs": {"column": "sex", "regex": "("}}]}', "can't be applied"),
])  # fmt: skip
def test_a_suite_that_is_none_is_a_sentence(tmp_path, text, said):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(MlopsError) as refused:
        judge_rows(table(), PROBLEM, rules=Expectations(str(tmp_path / "s.json")))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_no_suite_is_a_sentence():
    with pytest.raises(MlopsError, match="no suite 'nowhere.json'"):
        Expectations("nowhere.json")


def test_a_suites_file_is_in_the_stages_key(tmp_path):
    stage, here = stock_stages()["validate"], Settings(root=tmp_path, threads=1)
    inputs = {port.artifact: "" for port in stage.inputs}
    keys = []
    for text in ("{}", "[]"):
        (tmp_path / "expectations.json").write_text(text)
        keys.append(ingredients(stage, {"engine": "gx", "suite": "expectations.json"}, inputs, here))
    assert keys[0]["files"]["expectations.json"] != keys[1]["files"]["expectations.json"] and keys[0]["versions"]["great_expectations"][0].isdigit()


def test_nobody_waits_for_it_who_has_not_asked():
    code = "import sys; import mlops_nb.stages.validate, mlops_nb.pipeline.data_docs; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
