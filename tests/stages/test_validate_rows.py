"""Rows that are judged where they lie, a column at a time, are judged as the whole table is: the same artifacts, byte by byte."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.base import rows as rows_module
from mlops_nb.base.artifacts import Store, Table
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.rows import Rows, kept, stored
from mlops_nb.base.validation import Validation
from mlops_nb.model.census import census_problem, census_rows
from mlops_nb.pipeline.data_page import data_html
from mlops_nb.stages.validate import check_left, judge_rows, quality_summary
from mlops_nb.stats.columns import taken

DAY = datetime.datetime(2026, 1, 1)
VALUES = {
    "age": st.sampled_from([1, 39, 130, -2]), "paid": st.sampled_from([0.0, -0.0, 1.5, float("inf"), float("nan"), 1e300]),
    "sex": st.sampled_from(["Female", "Male", "male ", "other"]), "code": st.sampled_from(["1", "2", "n/a", "3.5", "4", "5"]),
    "left": st.booleans(), "day": st.sampled_from([DAY, DAY + datetime.timedelta(days=1)]),
    "said": st.sampled_from(["2026-01-01 10:00", "2026-01-02T10:00Z"]), "big": st.sampled_from([2**62, 2**62 + 1, 5]),
    "income": st.sampled_from(["<=50K", ">50K", ">50K."]),
}  # fmt: skip
ASKED = [
    {}, {"checks": ["age <= big", "paid / age < 2"]}, {"key": ["age", "sex"]}, {"severity": {"spelling": "warn", "near": "warn"}},
    {"missing": {"sex": {"max": 0.1}}, "severity": {"missing": "warn", "copies": "warn"}}, {"units": {"big": {"from": "inch", "to": "cm"}}},
]  # fmt: skip
RULES = {"age": {"min": 0, "max": 90, "required": True}, "sex": {"allowed": ["Female", "Male", "other"]}, "code": {"max": 4}, "left": {"required": True}}


def outcome(rows, problem: object, copies: bool, asked: Validation, folder: Path) -> list:
    """All that the stage writes."""
    page = data_html(rows, "income")
    try:
        judged = judge_rows(rows, problem, copies, asked)
        told = quality_summary(judged, problem)
        check_left(judged, problem, 0.95)
    except MlopsError as refused:
        return [page, str(refused)]
    return [page, told, Table.dump(judged.quarantine), bytes_of(judged.rows, folder), judged.faults.to_csv()]


def bytes_of(rows, folder: Path) -> bytes:
    if isinstance(rows, pd.DataFrame):
        return Table.dump(rows)
    Table.stream(rows.batches(), rows.schema, folder / "streamed")
    return (folder / "streamed").read_bytes()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data(), st.integers(1, 40), st.booleans(), st.sampled_from(ASKED), st.sampled_from([{}, RULES]))
def test_as_the_whole_table_is_judged(tmp_path_factory, data, n, copies, asked, rules):
    folder = tmp_path_factory.mktemp("rows")
    columns = {}
    for name, values in VALUES.items():
        gaps = data.draw(st.sampled_from([0, 0, 3, 7]))
        columns[name] = pa.array([None if gaps and k % gaps == 1 else data.draw(values) for k in range(n)])
    for name in data.draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=3)):  # rows that differ in little
        columns[name] = pa.array([columns[name][0].as_py()] * n, columns[name].type)
    form, size = Table.form, rows_module.GROUP
    try:
        Table.form, rows_module.GROUP = form | {"row_group_size": 7}, 7
        store = Store(folder)
        digest = store.put(Table.dump(pa.table(columns).to_pandas()))
        problem = census_problem(rules=rules, weight=None, exclude={}, sensitive=[], fairness=[])
        whole = Table.load(store.get(digest))
        lying = stored(type("Context", (), {"writes": store, "store": store, "get": store.get}), digest)
        assert isinstance(lying, Rows) or any(c.null_count == n or pa.types.is_null(c.type) for c in columns.values())
        demands = Validation.model_validate(asked)
        one, other = (outcome(rows, problem, copies, demands, folder) for rows in (lying, whole))
        for mine, theirs in zip(one, other, strict=True):
            assert mine == theirs
    finally:
        Table.form, rows_module.GROUP = form, size


@pytest.mark.slow
def test_the_same_of_many_rows(tmp_path: Path):
    """Over several row groups, with copies, gaps, odd values and more rows than are sampled."""
    chance, n = np.random.default_rng(0), 300_000
    whole = pd.concat([census_rows()] * 8, ignore_index=True).head(n)
    whole["age"] = whole["age"].astype(float).where(chance.random(len(whole)) > 0.01, 200)
    whole["paid"] = chance.normal(size=len(whole)).round(2)
    whole["left"] = pd.Series(chance.choice([True, False, None], len(whole)))
    store = Store(tmp_path)
    digest = store.put(Table.dump(whole))
    lying = Rows(store.path(digest))
    problem = census_problem(rules={"age": {"max": 90}, "sex": {"allowed": ["Female"]}})
    one, other = (outcome(rows, problem, True, Validation(), tmp_path) for rows in (lying, Table.load(store.get(digest))))
    assert one == other


def test_some_rows_and_other_columns(tmp_path: Path):
    whole = pd.DataFrame({"a": [1.0, None, 3, 4], "b": [True, None, None, False], "c": ["x", "y", None, "z"]})
    whole.to_parquet(tmp_path / "rows.parquet")
    rows = Rows(tmp_path / "rows.parquet")
    some = kept(rows, np.array([False, True, True, True]))
    some["a"] = pd.Series([7, 8, 9])
    expected = whole[1:].reset_index(drop=True).assign(a=[7, 8, 9])
    for step in (some, kept(some, np.array([True, True, False]))):
        expected = expected.head(len(step))
        assert bytes_of(step, tmp_path) == Table.dump(expected)
        pd.testing.assert_frame_equal(step[["a", "b", "c"]], expected)
    pd.testing.assert_frame_equal(taken(rows, np.array([1, 3])), whole.iloc[[1, 3]])
    assert len(rows) == 4 and rows["a"].equals(whole["a"])  # the file's rows are what they were


def test_a_damaged_table_is_refused(tmp_path: Path):
    store = Store(tmp_path)
    digest = store.put(Table.dump(pd.DataFrame({"a": [1, 2]})))
    context = type("Context", (), {"writes": store, "store": store, "get": store.get})
    assert isinstance(stored(context, digest), Rows)
    store.path(digest).write_bytes(b"PAR1")
    with pytest.raises(MlopsError, match="is damaged"):
        stored(context, digest)
