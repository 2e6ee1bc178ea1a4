"""Rows that lie in a file are the whole table: the same columns, the same bytes in the store."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.base import rows as rows_module
from mlops_nb.base.artifacts import Table
from mlops_nb.base.data import Data
from mlops_nb.base.rows import NotPlain, Rows
from mlops_nb.sources.gather import gather, lying
from mlops_nb.sources.local import hashed
from mlops_nb.stages.ingest import draw, drawn

KINDS = {
    "whole": (pa.int64(), st.integers(-(2**62), 2**62)), "small": (pa.int8(), st.integers(-128, 127)),
    "decimal": (pa.float64(), st.floats(width=64)), "single": (pa.float32(), st.floats(width=32)),
    "exact": (pa.decimal128(9, 2), st.decimals(-9999, 9999, places=2)), "truth": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)), "large": (pa.large_string(), st.sampled_from(["a", "b", ""])),
    "day": (pa.date32(), st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 1, 1))),
    "time": (pa.timestamp("ms"), st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)).map(lambda t: t.replace(microsecond=0))),
    "zoned": (pa.timestamp("us", "UTC"), st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))),
}  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data(), st.integers(1, 40), st.sampled_from([1, 3, 7, 1000]))
def test_as_a_whole_table_has_it(tmp_path_factory, data, n, group):
    """Columns, types, gaps, some rows and the bytes, whatever the file's row groups are; batches of seven rows."""
    folder = tmp_path_factory.mktemp("rows")
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5, unique=True))
    columns = {}
    for name in names:
        kind, values = KINDS[name]
        gaps = data.draw(st.sampled_from([0, 1, 2]))
        columns[name] = pa.array([None if gaps and k % (gaps + 1) == 0 else data.draw(values) for k in range(n)], kind)
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=group)
    form, size = Table.form, rows_module.GROUP
    try:
        Table.form, rows_module.GROUP = form | {"row_group_size": 7}, 7
        file = hashed(folder / "rows.parquet")
        whole, rows = gather(file, Data(source="rows.parquet")).frame, lying(file, Data(source="rows.parquet"))
        if rows is None:
            assert any(columns[c].null_count == n and pa.types.is_boolean(columns[c].type) for c in names), "these are left to whole tables"
            return
        Table.stream(rows.batches(), rows.schema, folder / "batches.parquet")
        assert (folder / "batches.parquet").read_bytes() == Table.dump(whole)
    finally:
        Table.form, rows_module.GROUP = form, size
    assert list(rows.columns) == list(whole.columns) and len(rows) == len(whole)
    for name in names:
        pd.testing.assert_series_equal(rows[name], whole[name])
        assert rows.missing[name] == whole[name].isna().sum()
    some = np.flatnonzero(np.arange(n) % 3 == 0)
    pd.testing.assert_frame_equal(rows.take(some), whole.iloc[some].reset_index(drop=True), check_dtype=False)


def test_the_same_bytes_over_several_row_groups(tmp_path: Path):
    chance = np.random.default_rng(0)
    n = 300_000
    whole = pd.DataFrame({"id": np.arange(n), "x": np.where(chance.random(n) < 0.1, np.nan, chance.normal(size=n)), "k": chance.choice(["a", "b", None], n), "late": [None] * (n - 1) + [1.5]})
    whole.to_parquet(tmp_path / "rows.parquet", row_group_size=77_777)
    file = hashed(tmp_path / "rows.parquet")
    rows = lying(file, Data(source="rows.parquet"))
    Table.stream(rows.batches(), rows.schema, tmp_path / "batches.parquet")
    assert (tmp_path / "batches.parquet").read_bytes() == Table.dump(gather(file, Data(source="rows.parquet")).frame)


def test_what_has_to_be_read_whole(tmp_path: Path):
    for name, column in {"nested": [[1]], "bytes": [b"a"], "kind": pd.Categorical(["a"]), "big": np.array([2**63], dtype="uint64")}.items():
        pd.DataFrame({name: column}).to_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(NotPlain):
            Rows(tmp_path / f"{name}.parquet")
    pd.DataFrame({"text": ["a" * 11]}).to_parquet(tmp_path / "long.parquet")
    with pytest.raises(NotPlain):
        Rows(tmp_path / "long.parquet", 10)
    pd.DataFrame({"a": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(NotPlain):
        Rows(tmp_path / "none.parquet")


def test_the_same_rows_are_drawn(tmp_path: Path):
    """By the target's column alone, those that are drawn of a whole table; rare classes among them."""
    chance = np.random.default_rng(0)
    whole = pd.DataFrame({"id": np.arange(5000), "x": chance.normal(size=5000), "y": np.where(np.arange(5000) % 999 == 0, "rare", chance.choice(["a", "b"], 5000))})
    whole.to_parquet(tmp_path / "rows.parquet", row_group_size=700)
    rows = Rows(tmp_path / "rows.parquet")
    for most, salt, target in ((200, 0, None), (200, 3, "y"), (4999, 1, "y")):
        pd.testing.assert_frame_equal(drawn(rows, most, salt, target), draw(whole, most, salt, target))
    assert drawn(rows, None) is rows and drawn(rows, 5000) is rows
