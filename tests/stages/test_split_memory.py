"""What split counts a column at a time is what it counted on whole tables: these are written down here as they were."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.model.entities import _has_copies
from mlops_nb.stages.split import PARTS, count_twins
from mlops_nb.stats.columns import columns_of, row_keys
from mlops_nb.stats.disguised import means_of_groups
from mlops_nb.stats.equal import equal_pairs
from mlops_nb.stats.near import _keys, _some, simplified
from mlops_nb.stats.outliers import flag_parts

ROW = st.tuples(
    st.sampled_from([1, 2, 2**62, 2**62 + 1]), st.sampled_from([0.0, -0.0, 1.5, np.nan, np.inf]), st.sampled_from(["a", "A ", "a", None, ""]),
    st.sampled_from([True, False, None]), st.sampled_from([pd.Timestamp("2026-01-01"), pd.NaT]),
)  # fmt: skip


def table(rows: list[tuple]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["n", "x", "word", "truth", "day"])
    return made.astype({"word": "str", "n": "int64", "x": "float64", "day": "datetime64[us]"})


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=25), st.lists(st.sampled_from(PARTS), min_size=25, max_size=25))
def test_twins_and_copies(rows, parts):
    frame, part = table(rows), np.array(parts[: len(rows)])
    pieces = [frame[part == name].reset_index(drop=True) for name in PARTS]
    together = pd.concat([p.drop_duplicates() for p in pieces], ignore_index=True)
    assert count_twins(frame, part) == len(together[together.duplicated()].drop_duplicates())
    assert _has_copies(frame) == frame.duplicated().any()


@settings(max_examples=100, deadline=None)
@given(st.lists(ROW, max_size=25))
def test_keys_tell_rows_apart_as_a_hash_of_the_whole_row_does(rows):
    frame = table(rows)
    for keys, known in ((row_keys(columns_of(frame), len(frame)), frame), (_keys(frame, True), frame.apply(simplified))):
        whole = pd.util.hash_pandas_object(known, index=False) if len(known) else []
        np.testing.assert_array_equal(pd.factorize(keys)[0], pd.factorize(np.asarray(whole, dtype="uint64"))[0])
    sizes = pd.util.hash_pandas_object(frame, index=False).value_counts() if len(frame) else pd.Series(dtype=int)
    assert equal_pairs(columns_of(frame), len(frame)).found == (sizes * (sizes - 1)).sum() // 2


def test_rows_that_are_drawn():
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"x": np.where(chance.random(1000) < 0.1, np.nan, chance.normal(size=1000)), "y": chance.normal(size=1000), "k": "a"})
    known = frame.dropna(subset=["x", "y"])
    for most in (100, len(known), 2000):
        expected = known if len(known) <= most else known.sample(most, random_state=0)
        pd.testing.assert_frame_equal(_some(frame, ["x", "y"], most), expected)


def test_the_strongest_flags_are_kept_whatever_comes_first():
    """Of many flags found column after column, those that the whole list's order would give."""
    chance = np.random.default_rng(1)
    parts = {name: pd.DataFrame(chance.standard_t(3, (n, 6))).add_prefix("x").round(1) for name, n in (("train", 4000), ("test", 900))}
    everything, few = flag_parts(parts), flag_parts(parts, most=50)
    order = {"train": 0, "test": 1}
    ranked = everything.flags.sort_values("score", ascending=False, kind="stable")
    assert len(ranked) > 500 and everything.counts == few.counts and sum(n for c in few.counts.values() for n in c.values()) == len(ranked)
    assert few.flags["score"].sort_values().tolist() == ranked["score"].head(50).sort_values().tolist()
    assert few.flags.equals(few.flags.sort_values(["part", "row", "column", "method"], key=lambda c: c.map(order) if c.name == "part" else c, ignore_index=True))


def test_a_mean_of_a_group_is_found_by_some_of_the_rows_and_proven_by_all():
    chance, n = np.random.default_rng(2), 3000
    frame = pd.DataFrame({"shop": chance.choice([f"s{k}" for k in range(40)], n), "x": chance.normal(size=n)})
    target = pd.Series(chance.random(n) < frame["shop"].str[1:].astype(int) / 40, name="bought")
    frame["share"] = target.groupby(frame["shop"]).transform("mean")
    for most in (n, 100):
        assert [leak.columns for leak in means_of_groups(frame, target, True, most=most)] == [("share",)]
    spoilt = frame.assign(share=frame["share"].where(frame.index != 7, 0.5))
    assert not means_of_groups(spoilt, target, True, most=100)
