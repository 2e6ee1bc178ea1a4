"""What split counts a few rows at a time is what it counted on whole tables: these are written down here as they were."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.model.entities import _has_copies
from mlops_nb.stages.split import count_twins
from mlops_nb.stats.near import _keys, _some, simplified

ROW = st.tuples(
    st.sampled_from([1, 2, 2**62, 2**62 + 1]), st.sampled_from([0.0, -0.0, 1.5, np.nan, np.inf]), st.sampled_from(["a", "A ", "a", None, ""]),
    st.sampled_from([True, False, None]), st.sampled_from([pd.Timestamp("2026-01-01"), pd.NaT]),
)  # fmt: skip


def table(rows: list[tuple]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["n", "x", "word", "truth", "day"])
    return made.astype({"word": "str", "n": "int64", "x": "float64", "day": "datetime64[us]"})


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=25), st.lists(st.sampled_from([0, 1, 2]), min_size=25, max_size=25))
def test_twins_and_copies(rows, parts):
    frame, part = table(rows), np.array(parts[: len(rows)])
    pieces = [frame[part == k].reset_index(drop=True) for k in range(3)]
    together = pd.concat([p.drop_duplicates() for p in pieces], ignore_index=True)
    assert count_twins(pieces) == len(together[together.duplicated()].drop_duplicates())
    assert _has_copies(frame) == frame.duplicated().any()


@settings(max_examples=100, deadline=None)
@given(st.lists(ROW, max_size=25), st.integers(1, 9))
def test_keys_of_a_few_rows_at_a_time(rows, at_once):
    frame = table(rows)
    pd.testing.assert_series_equal(_keys(frame, at_once=at_once), pd.util.hash_pandas_object(frame, index=False))
    pd.testing.assert_series_equal(_keys(frame, True, at_once), pd.util.hash_pandas_object(simplified(frame), index=False))


def test_rows_that_are_drawn():
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"x": np.where(chance.random(1000) < 0.1, np.nan, chance.normal(size=1000)), "y": chance.normal(size=1000), "k": "a"})
    known = frame.dropna(subset=["x", "y"])
    for most in (100, len(known), 2000):
        expected = known if len(known) <= most else known.sample(most, random_state=0)
        pd.testing.assert_frame_equal(_some(frame, ["x", "y"], most), expected)
