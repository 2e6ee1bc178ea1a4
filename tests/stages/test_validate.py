"""Every kind of fault is found, in its row, by its check, and nothing else is; what is done about it is what the charter says."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.base.errors import MlopsError, why_refused
from mlops_nb.base.validation import COLUMNS, ROWS, SURE, TABLES, Validation, held_line
from mlops_nb.model.demands import _volume
from mlops_nb.model.problem import Problem, check_problem
from mlops_nb.stages.validate import Judged, check_left, judge_rows, quality_summary, warnings_of
from tests.stages.injected import FAULTS, TARGET, Fault, clean, put


def problem_of(rules: dict | None = None) -> Problem:
    """The charter's statement about the visits."""
    asked = {"name": "visits", "goal": "Say who comes again", "task": "binary", "target": TARGET, "positive": "yes", "metric": "roc_auc"}
    return check_problem(asked | {"data": {"source": "visits.csv"}, "rules": rules or {}})


def judged(fault: Fault, **severity: str) -> Judged:
    """The fault's rows, judged; severities of the fault's own checks may be another."""
    asked = fault.validation | ({"severity": fault.validation.get("severity", {}) | severity} if severity else {})
    return judge_rows(fault.rows, problem_of(fault.rules), demands=Validation.model_validate(asked))


def found_in(result: Judged) -> set[tuple[int | None, str, str]]:
    """What was found, as the list of faults says it."""
    rows = {(int(f.row), str(f.column), f.check.partition(":")[0]) for f in result.faults.itertuples()}
    return rows | {(None, f.column, f.check) for f in result.findings}


def as_raw(result: Judged) -> pd.DataFrame:
    """Rows and quarantine together, in the order of raw."""
    kept = [i for i in range(len(result.rows) + len(result.quarantine)) if i not in set(result.quarantine["quarantine_row"])]
    held = result.quarantine.set_index("quarantine_row").drop(columns="quarantine_reason")
    return pd.concat([result.rows.set_axis(kept), held]).sort_index()


@pytest.mark.parametrize("fault", FAULTS, ids=[f.name for f in FAULTS])
def test_each_fault_is_found_and_nothing_else(fault):
    result = judged(fault)
    assert found_in(result) == fault.found
    held = {row for row, _, _ in fault.found if row is not None}
    assert set(result.quarantine["quarantine_row"]) == held and len(result.rows) == len(fault.rows) - len(held)


@pytest.mark.parametrize("fault", FAULTS, ids=[f.name for f in FAULTS])
def test_no_row_is_lost_and_what_is_held_back_is_raw(fault):
    result = judged(fault)
    for at, row in zip(result.quarantine["quarantine_row"], result.quarantine.itertuples(), strict=True):
        raw = fault.rows.iloc[at]
        for name in fault.rows.columns:
            same = getattr(row, name) == raw[name] or (pd.isna(getattr(row, name)) and pd.isna(raw[name]))
            assert same, (at, name)
    assert len(as_raw(result)) == len(fault.rows)


def test_clean_rows_have_no_fault():
    asked = Validation.model_validate({"checks": ["end >= start", "nights <= 8"], "key": "visit", "volume": {"min": 10}, "severity": {"near": "quarantine"},
                                       "classes": {"min": 0.1}, "freshness": {"column": "start", "since": "2026-01-01"}, "missing": {"age": 0.0}})
    result = judge_rows(clean(), problem_of({"age": {"min": 18, "max": 80, "required": True}}), demands=asked)
    assert found_in(result) == set() and result.rows.equals(clean()) and not held_line(quality_summary(result, problem_of()))


def test_every_check_has_a_fault():
    assert {check for f in FAULTS for _, _, check in f.found} == {*ROWS, *TABLES} - {"clocks"}  # which ingest has to tell, see below
    assert len({f.name for f in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize("check", sorted(set(ROWS) - set(SURE)))
def test_a_warning_lets_rows_pass_and_says_how_many(check):
    fault = next(f for f in FAULTS if {c for _, _, c in f.found} == {check})
    result = judged(fault, **{check: "warn"})
    (told,) = warnings_of(result)
    assert result.quarantine.empty and len(result.rows) == len(fault.rows) and f"check '{check}'" in told["message"]
    check_left(result, problem_of(fault.rules), 0.0)


@pytest.mark.parametrize("check", sorted({*ROWS, *TABLES} - {"clocks"}))
def test_a_stop_ends_it_with_the_way_out(check):
    fault = next(f for f in FAULTS if {c for _, _, c in f.found} == {check})
    said = why_refused(check_left, judged(fault, **{check: "stop"}), problem_of(fault.rules), 1.0)
    assert "don't meet what the charter demands" in said
    assert f"severity: {{{check}: {'quarantine' if check in SURE else 'warn'}}}" in said


def test_a_sentence_may_have_its_own_severity():
    asked = Validation.model_validate({"checks": [{"check": "end >= start", "severity": "warn"}, "nights <= 8"]})
    rows = put(3, "nights", 90)
    rows.loc[5, "end"] = pd.Timestamp("2025-01-01")
    result = judge_rows(rows, problem_of(), demands=asked)
    assert result.quarantine["quarantine_row"].tolist() == [3] and "`end >= start` is false" in warnings_of(result)[0]["message"]


def odd_columns() -> pd.DataFrame:
    """Two columns that are spelt otherwise in some rows, and an age that is too high."""
    rows = clean().assign(land=["Italy"] * 40)
    rows.loc[[3, 4], "city"] = rows.loc[[3, 4], "city"].str.upper()
    rows.loc[5, "land"] = "italy"
    rows.loc[6, "age"] = 200
    return rows


def test_a_column_may_have_its_own_severity():
    asked = Validation.model_validate({"severity": {"spelling": {"city": "warn"}, "range": {"age": "quarantine"}}})
    result = judge_rows(odd_columns(), problem_of({"age": {"max": 99}}), demands=asked)
    assert result.quarantine["quarantine_row"].tolist() == [5, 6]
    counted = quality_summary(result, problem_of())["checks"]
    assert {"check": "spelling", "severity": "warn", "column": "city", "rows": 2} in counted
    assert {"check": "spelling", "severity": "quarantine", "rows": 1} in counted
    assert {"check": "range", "severity": "quarantine", "column": "age", "rows": 1} in counted
    (told,) = warnings_of(result)
    assert told["message"] == "validate: 2 rows pass though the check 'spelling' finds a fault (first: city)"


def test_a_column_that_stops_says_how_it_would_not():
    asked = {"severity": {"spelling": {"city": "stop", "land": "stop"}, "range": {"age": "stop"}}}
    said = stopped(asked, odd_columns())
    assert "severity: {spelling: {city: warn, land: warn}}" in said and "2 rows fail the check 'spelling' (first: row 3, city:" in said
    assert stopped({"severity": {"spelling": {"city": "warn", "land": "warn"}}}, odd_columns()) == ""
    clocks = Validation.model_validate({"severity": {"clocks": {"start": "stop"}}})
    result = judge_rows(clean(), problem_of(), demands=clocks, clocks={"start": "some", "end": "some"})
    assert [(f.column, f.severity) for f in result.findings] == [("start", "stop"), ("end", "warn")]
    assert "severity: {clocks: {start: warn}}" in why_refused(check_left, result, problem_of(), 1.0)


@pytest.mark.parametrize("check", sorted(SURE))
def test_what_nothing_can_be_learnt_from_or_requests_are_refused_for_cannot_warn(check):
    with pytest.raises(ValueError, match="can't let a row pass"):
        Validation.model_validate({"severity": {check: "warn"}})
    with pytest.raises(ValueError, match="can't let a row pass"):
        Validation.model_validate({"severity": {check: {"age": "warn"}}})


@pytest.mark.parametrize("check", sorted({*ROWS, *TABLES}.difference(COLUMNS)))
def test_what_judges_no_single_column_has_one_severity(check):
    with pytest.raises(ValueError, match="beside each column's share" if check == "missing" else "judges no single column"):
        Validation.model_validate({"severity": {check: {"age": "stop"}}})


@pytest.mark.parametrize("name", ["range: age", "missing: age", "checks: stop", "rangee"])
def test_a_severity_that_would_do_nothing_is_refused(name):
    with pytest.raises(ValueError, match="no check"):
        Validation.model_validate({"severity": {name: "stop"}})


@pytest.mark.parametrize("said", [{"spelling": "wrn"}, {"spelling": {"city": "wrn"}}])
def test_a_severity_that_is_none_is_told_once(said):
    with pytest.raises(ValueError, match="1 validation error") as told:
        Validation.model_validate({"severity": said})
    assert "spelling: 'wrn'; expected stop, quarantine, warn" in str(told.value)


def test_a_way_out_that_is_said_is_taken():
    with pytest.raises(ValueError, match=r"severity: \{range: \{age: quarantine\}\}"):
        Validation.model_validate({"severity": {"range: age": "warn"}})
    assert Validation.model_validate({"severity": {"range": {"age": "quarantine"}}}).severity_of("range", "age") == "quarantine"


@pytest.mark.parametrize("share", [5, 10, 15, 20, 30, 35, 45])
@pytest.mark.parametrize("before", [100, 1000, 1700, 100_000])
def test_as_many_rows_as_may_come_are_let_through(share, before):
    """Of 1,000 rows 700 are left: just the 30% fewer that may be, and not a row less."""
    bounds = {"max_decrease": f"{share}%", "max_increase": f"{share}%", "before": before}
    few, many = before * (100 - share) // 100, before * (100 + share) // 100
    told = {rows: _volume(rows, Validation.model_validate({"volume": bounds})) for rows in (few - 1, few, many, many + 1)}
    assert not told[few] and not told[many] and "fewer are expected" in told[few - 1] and "more are expected" in told[many + 1]


def stopped(asked: dict, rows: pd.DataFrame) -> str:
    """What is said where demands stop a run; nothing where they don't."""
    try:
        check_left(judge_rows(rows, problem_of(), demands=Validation.model_validate(asked)), problem_of(), 1.0)
    except MlopsError as error:
        return str(error)
    return ""


def test_the_ways_out_let_the_run_go_on():
    rows = put(3, TARGET, None)
    rows.loc[4, "nights"] = 90
    rows.loc[5, "age"] = np.nan
    first = {"checks": [{"check": "nights <= 8", "severity": "stop"}], "missing": {"age": {"max": 0, "severity": "stop"}}, "severity": {"required": "stop"}}
    said = stopped(first, rows).split(":\n")[0]
    for way in ("severity: {required: quarantine}", "missing: {age: {severity: warn}}", "checks: severity warn or quarantine beside"):
        assert way in said
    then = {"checks": [{"check": "nights <= 8", "severity": "warn"}], "missing": {"age": {"max": 0, "severity": "warn"}}, "severity": {"required": "quarantine"}}
    assert stopped(then, rows) == ""


def test_what_was_held_back_is_told_without_what_warned():
    rows = put(list(range(20, 40)), "nights", 90)
    rows.loc[3, "visit"] = "v002"
    asked = Validation.model_validate({"checks": ["nights <= 8"], "key": "visit", "severity": {"checks": "warn"}})
    result = judge_rows(rows, problem_of(), demands=asked)
    assert held_line(quality_summary(result, problem_of())) == "1 of 40 rows, kept with the reason (1 visit: is the key of an earlier row)"
    assert "1 of 40 rows break a rule (1 rows: visit" in why_refused(check_left, result, problem_of(), 0.0)


@pytest.mark.parametrize("word", ["dBm/s", "degC**2", "dB", "stone", "_", "1/"])
def test_a_unit_that_pint_cannot_convert_is_a_fault(word):
    rows = clean().assign(unit=["inch"] * 39 + [word])
    result = judge_rows(rows, problem_of(), demands=Validation.model_validate({"units": {"height": {"column": "unit", "to": "cm"}}}))
    assert found_in(result) == {(39, "height", "units")}


def test_times_of_two_clocks_are_told():
    result = judge_rows(clean(), problem_of(), clocks={"start": "some", "end": "UTC"})
    assert [f.column for f in result.findings] == ["start"] and "taken for UTC" in warnings_of(result)[0]["message"]


@pytest.mark.parametrize(
    ("validation", "rows", "said"),
    [
        ({"checks": ["ende >= start"]}, clean(), "no column 'ende'; did you mean 'end'?"),
        ({"key": "visti"}, clean(), "did you mean 'visit'?"),
        ({"missing": {"agee": 0.1}}, clean(), "did you mean 'age'?"),
        ({"severity": {"spelling": {"ctiy": "warn"}}}, clean(), "no column 'ctiy'; did you mean 'city'?"),
        ({"checks": ["city > 3"]}, clean(), "a text can't be compared with a number"),
        ({"units": {"city": {"from": "inch", "to": "cm"}}}, clean(), "holds no numbers"),
        ({"units": {"height": {"from": "inhc", "to": "cm"}}}, clean(), "no unit that pint knows; did you mean 'inch'?"),
        ({"units": {"height": {"from": "kg", "to": "cm"}}}, clean(), "they measure different things"),
    ],
)
def test_demands_that_make_no_sense_are_sentences(validation, rows, said):
    assert said in why_refused(judge_rows, rows, problem_of(), demands=Validation.model_validate(validation))


def test_all_rows_held_back():
    result = judge_rows(clean(), problem_of({"age": {"max": 1}}))
    assert result.rows.empty and len(result.quarantine) == 40
    assert "none is left to learn from" in why_refused(check_left, result, problem_of(), 1.0)
    assert "40 of 40 rows" in held_line(quality_summary(result, problem_of()))


def test_faults_of_several_kinds_in_one_row_are_all_named():
    rows = put(7, "paid", np.inf)
    rows.loc[7, "end"] = pd.Timestamp("2020-01-01")
    result = judge_rows(rows, problem_of(), demands=Validation.model_validate({"checks": ["end >= start"]}))
    (why,) = result.quarantine["quarantine_reason"]
    assert "is not finite" in why and "is false" in why


@pytest.mark.slow
def test_ten_thousand_columns():
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 10_000))).add_prefix("x").assign(**{TARGET: ["yes", "no"] * 100})
    wide.iloc[3, 17] = np.inf
    wide.iloc[5:60, 20] = np.nan
    result = judge_rows(wide, problem_of(), demands=Validation.model_validate({"checks": ["x1 > x2 - 100"], "missing": {"x20": {"max": 0.1, "severity": "warn"}}}))
    assert found_in(result) == {(3, "x17", "finite"), (None, "x20", "missing")}
    assert [m["column"] for m in quality_summary(result, problem_of())["missing"]] == ["x20"]


def test_a_column_of_the_quarantines_name_is_refused():
    with pytest.raises(MlopsError, match="has a column 'quarantine_row', which the quarantine adds; rename it"):
        judge_rows(clean().assign(quarantine_row=1), problem_of())
