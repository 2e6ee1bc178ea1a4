"""Drift: figures equal to scipy's, false alarms bounded, profiles that survive their bytes, windows of any kind. Seeds are fixed."""

import random
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlops_nb.stats import drift, profile
from mlops_nb.stats.domain import domain, slices
from mlops_nb.stats.drift import compare, range_p, rank_p, two_shares_p
from mlops_nb.stats.profile import Profile, Texts

NUMBERS = {
    "normal": lambda draw, n: draw.normal(size=n),
    "heavy": lambda draw, n: draw.standard_cauchy(n),
    "tied": lambda draw, n: draw.poisson(3, n).astype(float),
    "zeros": lambda draw, n: draw.exponential(size=n) * (draw.random(n) < 0.3),
    "constant": lambda draw, n: np.full(n, 7.0),
}


def mixed(draw: np.random.Generator, n: int) -> pd.DataFrame:
    """Ten features: continuous, tied, with missing values, frequent and rare categories, an identifier."""
    frame = pd.DataFrame({name: make(draw, n) for name, make in NUMBERS.items()})
    frame["gaps"] = np.where(draw.random(n) < 0.02, np.nan, draw.normal(size=n))
    frame["city"] = draw.choice(["Bonn", "Kiel", "Jena"], n)
    frame["rare"] = [f"r{k}" for k in draw.zipf(1.5, n)]
    frame["flag"] = draw.random(n) < 0.01
    frame["id"] = [f"{k:x}" for k in draw.integers(0, 2**60, n)]
    return frame


# -- figures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(37, 11), (3_000, 900), (20_000, 400), (500, 15_000), (1, 1)])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_as_scipy_has_them(name, sizes):
    draw = np.random.default_rng(5)
    reference, window = NUMBERS[name](draw, sizes[0]), NUMBERS[name](draw, sizes[1]) * 1.1 + 0.05
    found = compare(Profile.load(Profile.of(pd.DataFrame({"x": reference})).dump()), pd.DataFrame({"x": window})).features[0]
    theirs = stats.ks_2samp(reference, window)
    assert found.ks == theirs.statistic and found.ks_p == pytest.approx(theirs.pvalue, rel=1e-9, abs=0)
    outside = range_p(*sizes, int((window < reference.min()).sum()), int((window > reference.max()).sum()))
    mode, often = max(Counter(reference.tolist()).items(), key=lambda item: (item[1], -item[0]))
    point = [[often, sizes[0] - often], [(window == mode).sum(), (window != mode).sum()]]
    tests = [found.ks_p, outside] + ([stats.fisher_exact(point).pvalue] if often >= 0.05 * sizes[0] else [])
    fine = np.unique(np.quantile(reference, np.arange(1, 200) / 200, method="inverted_cdf"))
    slots = [np.searchsorted(fine, x) for x in (reference, window)]
    if np.bincount(slots[0]).max() <= 0.5 * sizes[0]:
        tests.append(stats.mannwhitneyu(*slots, method="asymptotic").pvalue)
    assert found.p == pytest.approx(min(1, len(tests) * min(tests)), rel=1e-9, abs=1e-300)
    unit = reference.std() if len(set(reference)) > 1 else 1.0
    assert np.isclose(found.wasserstein * unit, stats.wasserstein_distance(reference, window), rtol=1e-9, atol=1e-12)
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf"))
    a, b = (np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) / len(x) for x in (reference, window))
    assert np.isclose(found.js, jensenshannon(a, b, base=2))
    a, b = np.maximum(a, 1e-4), np.maximum(b, 1e-4)
    assert np.isclose(found.psi, sum((y - x) * np.log(y / x) for x, y in zip(a, b, strict=True)))
    assert found.below == np.mean(window < reference.min()) and found.above == np.mean(window > reference.max())


COUNT = st.one_of(st.integers(0, 30), st.integers(0, 2_000_000))


@given(COUNT, COUNT, COUNT, COUNT)
@settings(max_examples=300, deadline=None)
def test_two_shares_as_scipy_has_them(a, b, c, d):
    theirs = stats.fisher_exact([[a, b], [c, d]]).pvalue
    assert two_shares_p((a, b), (c, d)) == pytest.approx(theirs, rel=1e-6, abs=1e-300)


def test_values_out_of_range_are_seen_however_few():
    """Exact: who holds the highest ranks is a draw without replacement."""
    draw = np.random.default_rng(12)
    assert range_p(300, 200, 3, 0) == pytest.approx(2 * stats.hypergeom(500, 200, 3).pmf(3))
    reference, window = draw.normal(size=3_000), draw.normal(size=1_000)
    window[:30] *= 100  # a sender's unit
    found = compare(Profile.of(pd.DataFrame({"x": reference})), pd.DataFrame({"x": window})).features[0]
    assert found.ks_p > 0.1 and found.p < 1e-6 and found.drifted
    pairs = [(draw.normal(size=300), draw.normal(size=200)) for _ in range(2_000)]
    hits = sum(range_p(300, 200, int((w < r.min()).sum()), int((w > r.max()).sum())) <= 0.05 for r, w in pairs)
    assert hits <= stats.binom(2_000, 0.05).isf(1e-4)


@pytest.mark.parametrize("shares", [np.full(60, 1 / 60), [0.5, *np.full(50, 0.01)], [0.3, 0.4, 0.2, 0.08, 0.02], [0.25, 0.25, 0.5]])
@pytest.mark.parametrize("rows", [20, 500])
def test_ranks_keep_their_promise_far_out(shares, rows):
    """A normal distribution for few rows and for values that many share: at 1 in 1,000, 30,000 windows, each with its own reference."""
    draw, count = np.random.default_rng(13), 30_000
    pairs = zip(*(draw.multinomial(n, shares, count) for n in (400, rows)), strict=True)
    hits = sum(rank_p(before, now) <= 1e-3 for before, now in pairs)
    assert hits <= stats.binom(count, 1e-3).isf(1e-3)


def test_infinities():
    draw = np.random.default_rng(6)
    reference, window = draw.normal(size=400), draw.normal(size=300)
    reference[:10], reference[10:15], window[:20], window[20:22] = np.inf, -np.inf, np.inf, -np.inf
    found = compare(Profile.of(pd.DataFrame({"x": reference})), pd.DataFrame({"x": window})).features[0]
    assert found.ks == stats.ks_2samp(reference, window).statistic and found.missing == 0
    finite = [x[np.isfinite(x)] for x in (reference, window)]
    assert np.isclose(found.wasserstein * finite[0].std(), stats.wasserstein_distance(*finite))
    for only in (np.inf, -np.inf):
        assert compare(Profile.of(pd.DataFrame({"x": finite[0]})), pd.DataFrame({"x": [only] * 50})).features[0].ks == 1


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_categories_as_scipy_has_them(missing):
    draw = np.random.default_rng(7)
    columns = []
    for n, names in ((5_000, "abcd"), (800, "abce")):
        values = draw.choice(list(names), n).astype(object)
        values[draw.random(n) < missing] = None
        columns.append(pd.Series(values, dtype="str"))
    table = pd.DataFrame([c.fillna("missing").value_counts() for c in columns]).fillna(0).to_numpy()
    theirs = stats.chi2_contingency(table, correction=False)
    found = compare(Profile.of(columns[0].to_frame("x")), columns[1].to_frame("x")).features[0]
    assert np.allclose((found.chi2, found.chi2_p, found.js), (theirs.statistic, theirs.pvalue, jensenshannon(*table, base=2)))
    a, b = (np.maximum(row / row.sum(), 1e-4) for row in table)
    assert np.isclose(found.psi, ((b - a) * np.log(b / a)).sum())
    assert found.new == {"e": int((columns[1] == "e").sum())} and found.missing == columns[1].isna().mean() and found.drifted


def test_missing_values_count_once():
    draw = np.random.default_rng(8)
    reference, window = draw.normal(size=2_000), draw.normal(size=500)
    window[:60], reference[:40] = np.nan, np.nan
    found = compare(Profile.of(pd.DataFrame({"x": reference})), pd.DataFrame({"x": window})).features[0]
    alone = stats.fisher_exact([[40, 1_960], [60, 440]]).pvalue
    assert found.ks_p == stats.ks_2samp(reference[40:], window[60:]).pvalue
    assert found.p == pytest.approx(min(1, 4 * min(alone, found.ks_p)), rel=1e-9) and found.drifted and found.effect == pytest.approx(0.1)


def test_false_discoveries_over_features():
    draw = np.random.default_rng(9)
    found = compare(Profile.of(mixed(draw, 4_000)), mixed(draw, 900).assign(normal=draw.normal(0.3, 1, 900)))
    assert np.allclose([f.q for f in found.features], stats.false_discovery_control([f.p for f in found.features]))
    assert found.drifted[0].name == "normal" and list(found.table().name) == list(mixed(draw, 1))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [60, 1_500])
def test_windows_without_drift(rows):
    """200 windows, each with its own reference; one-sided binomial bound."""
    draw, windows, alpha = np.random.default_rng(10 + rows), 200, 0.1
    hits = sum(bool(compare(Profile.of(mixed(draw, 3_000)), mixed(draw, rows), alpha).drifted) for _ in range(windows))
    print(f"{hits} of {windows} windows of {rows} rows")
    assert stats.binomtest(hits, windows, alpha, alternative="greater").pvalue > 0.01


def test_many_categories_are_no_drift_and_a_share_of_them_is():
    draw = np.random.default_rng(11)
    ids = lambda n: pd.DataFrame({"id": [f"{k:x}" for k in draw.integers(0, 2**60, n)]})  # noqa: E731
    kept = Profile.of(ids(40_000))
    assert kept.features["id"].values is None and len(kept.dump()) < 20_000
    hits = sum(bool(compare(kept, ids(3_000)).drifted) for _ in range(20))
    assert hits <= 4
    window = ids(3_000)
    window.loc[:150, "id"] = "0"
    assert compare(kept, window).drifted and "buckets" in compare(kept, window).features[0].note
    few = Profile.of(pd.DataFrame({"id": ["a"] * 500}))
    assert len(compare(few, ids(5_000)).features[0].new) == drift.MOST_NEW


def test_one_rare_row_is_chance():
    reference = pd.DataFrame({"x": ["a"] * 5_000 + ["b"] * 5_000})
    window = pd.DataFrame({"x": ["a"] * 50 + ["b"] * 49 + ["c"]})
    found = compare(Profile.of(reference), window).features[0]
    assert found.new == {"c": 1} and found.chi2_p < 1e-20 and not compare(Profile.of(reference), window, 0.005).drifted


# -- the window as a whole ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_classifiers_p_value_is_valid():
    draw, trials = np.random.default_rng(12), 40
    found = [domain(*(pd.DataFrame(draw.normal(size=(n, 3)), columns=list("abc")) for n in (120, 80)), seed=k).p for k in range(trials)]
    assert stats.binomtest(sum(p <= 0.1 for p in found), trials, 0.1, alternative="greater").pvalue > 0.01


def test_the_classifier_names_the_cause():
    draw = np.random.default_rng(13)
    reference, window = mixed(draw, 1_500), mixed(draw, 800)
    window["city"] = draw.choice(["Bonn", "Kiel", "Ulm"], 800)
    window["constant"] = np.inf
    found = domain(reference.drop(columns="constant"), window)
    assert found.p < 1e-6 and 0.5 < found.auc < 1 and next(iter(found.importances)) == "city"
    assert found == domain(pa.Table.from_pandas(reference.drop(columns="constant"), preserve_index=False), window)
    assert domain(reference, window).auc == 1
    assert domain(reference, window.head(5)).p == 1 and domain(reference, pd.DataFrame({"z": range(50)})).note


def test_slices_name_what_moved():
    draw = np.random.default_rng(14)
    reference, window = mixed(draw, 6_000), mixed(draw, 3_000)
    both = (window["city"] == "Bonn") & (window["normal"] > 0)
    window.loc[both & (draw.random(3_000) < 0.5), "gaps"] = np.nan
    assert {s.name for s in slices(reference, window, depth=1, most=1)} == {"gaps missing"}
    found = {s.name: s for s in slices(reference, window, kinds={"city": "category", "gaps": "number", "normal": "number"})}
    bonn = found["city = Bonn and gaps missing"] if "city = Bonn and gaps missing" in found else found["gaps missing and city = Bonn"]
    assert bonn.change > 0.03 and bonn.rows == int((window["city"].eq("Bonn") & window["gaps"].isna()).sum()) == round(bonn.share * 3_000)
    with pytest.raises(ValueError, match="depth 3"):
        slices(reference, window, depth=3)


# -- any input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "window, said",
    [
        (lambda rows: rows.head(0), "no rows"),
        (lambda rows: rows.head(1), ""),
        (lambda rows: rows.assign(normal=np.nan), "all values of 'normal' are missing in the window"),
        (lambda rows: rows.assign(city=None), "all values of 'city' are missing in the window"),
        (lambda rows: rows.drop(columns="city"), "'city' is not in the window"),
        (lambda rows: rows.assign(extra=1), "not compared: extra"),
        (lambda rows: rows.assign(normal="many"), "'normal' came as large_string, the reference has number; 300 of 300 values can't be read"),
        (lambda rows: rows.assign(city=range(300)), "'city' came as int64, the reference has category"),
        (lambda rows: rows.assign(city=[1, "a", None] * 100), ""),
        (lambda rows: rows.assign(normal=np.inf), ""),
        (lambda rows: rows.assign(flag=rows.flag.astype(float)), ""),
        (lambda rows: rows.assign(normal=pd.Timestamp("2026-11-25")), "the reference has number"),
        (lambda rows: pd.DataFrame(), "no rows"),
    ],
)
def test_windows_of_any_kind(window, said):
    draw = np.random.default_rng(15)
    found = compare(Profile.of(mixed(draw, 2_000)), window(mixed(draw, 300)))
    notes = [n for n in (found.note, *(f.note for f in found.features)) if n]
    assert any(said in n for n in notes) if said else not notes, notes
    assert len(found.features) == 10 and all(0 <= f.p <= 1 and 0 <= f.q <= 1 and 0 <= f.effect <= 1 for f in found.features)
    gone = {"not in", "missing in"} & {" ".join(n.split()[2:4]) for n in notes}
    assert bool(found.drifted) or not gone


def test_references_of_any_kind():
    empty = Profile.load(Profile.of(pd.DataFrame({"x": [np.nan] * 50, "t": [None] * 50}), {"x": "number", "t": "category"}).dump())
    same, moved = compare(empty, pd.DataFrame({"x": [np.nan] * 9, "t": [None] * 9})), compare(empty, pd.DataFrame({"x": [1.0] * 20, "t": ["a"] * 20}))
    assert not same.drifted and len(moved.drifted) == 2 and "in the reference" in moved.features[0].note
    assert [f.effect for f in moved.features] == pytest.approx([1, 1], abs=0.05)
    for bad, words in (({"a": [[1], [2]]}, "one value a row"), ({"a": [b"x", b"y"]}, "one value a row")):
        with pytest.raises(ValueError, match=words):
            Profile.of(pd.DataFrame(bad))
    with pytest.raises(ValueError, match="two columns"):
        Profile.of(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(ValueError, match="expected one of number"):
        Profile.of(pd.DataFrame({"a": [1]}), {"a": "float"})
    with pytest.raises(ValueError, match="alpha is 5"):
        compare(empty, pd.DataFrame({"x": [1.0]}), alpha=5)


def test_a_type_is_what_it_means():
    """Tables and frames, truths as numbers, whole numbers as text, categories of pandas, zones: the same features."""
    frame = pd.DataFrame({"n": [1, 2, 3, 4], "t": ["1", "2", "2", None], "b": [True, False, True, True], "at": pd.to_datetime(["2026-01-01", "2026-01-02", None, "2026-01-04"])})
    kept = Profile.of(frame)
    others = {
        "table": pa.Table.from_pandas(frame),
        "floats": frame.assign(n=frame.n.astype(float), b=frame.b.astype(float), t=[1.0, 2.0, 2.0, np.nan]),
        "texts": frame.assign(n=frame.n.astype(str), b=frame.b.astype(str), at=frame["at"].astype("str")),
        "others": frame.assign(t=frame.t.astype("category"), b=frame.b.astype("boolean"), at=frame["at"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo").astype("datetime64[ns, Asia/Tokyo]")),
    }
    for name, rows in others.items():
        assert Profile.of(rows, kept.kinds).dump() == kept.dump(), name


# -- profiles ----------------------------------------------------------------------------------------------------------


def test_bytes_are_canonical():
    frame = mixed(np.random.default_rng(16), 3_000)
    data = Profile.of(frame).dump()
    assert data == Profile.load(data).dump() == Profile.of(frame.sample(frac=1, random_state=1)).dump()
    frame.loc[0, "normal"] = 9.0
    assert data != Profile.of(frame).dump()


def test_a_large_reference_is_thinned():
    draw = np.random.default_rng(17)
    reference, window = draw.normal(size=400_000), draw.normal(0.01, 1, 20_000)
    kept = Profile.of(pd.DataFrame({"x": reference}))
    assert len(kept.features["x"].values) <= profile.POINTS + 1 and len(kept.dump()) < 1_300_000
    found, theirs = compare(kept, pd.DataFrame({"x": window})).features[0], stats.ks_2samp(reference, window)
    assert abs(found.ks - theirs.statistic) < 1 / profile.POINTS and found.ks_p == pytest.approx(theirs.pvalue, rel=0.05)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(reference, window) / reference.std(), rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes(seed):
    """A sentence, or a profile that is in form; never anything else."""
    draw, chance = np.random.default_rng(18), random.Random(seed)
    frame = mixed(draw, 50)
    data = Profile.of(frame).dump()
    refused = 0
    for _ in range(150):
        hurt = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 30])):
            hurt[chance.randrange(len(hurt))] = chance.randrange(256)
        try:
            made = Profile.load(bytes(hurt[: chance.choice([len(hurt), len(hurt), chance.randrange(len(hurt))])]))
        except ValueError as error:
            refused += 1
            assert "make it anew" in str(error), error
        else:
            assert all((f.counts if isinstance(f, Texts) else f.upto).min(initial=0) >= 0 for f in made.features.values())
            compare(made, frame)
    assert refused > 20


def claims(rows: int, zero: float, seed: int) -> pd.DataFrame:
    """Sums that most people never claim: 0, or lognormal."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame({"claim": np.where(draw.random(rows) < zero, 0.0, draw.lognormal(3, 1, rows))})


def test_a_frequent_value_that_grows_is_seen() -> None:
    """10% of zeros become 15% in windows of 500: Kolmogorov and Smirnov's test sees a fourth of them, all tests together two thirds; undisturbed windows stay at the level."""
    profile, level = Profile.of(claims(20_000, 0.1, 0)), 0.01
    more = [compare(profile, claims(500, 0.15, 1000 + k)).features[0] for k in range(200)]
    same = [compare(profile, claims(500, 0.1, 5000 + k)).features[0] for k in range(400)]
    seen, by_ks = (np.mean([value(f) <= level for f in more]) for value in (lambda f: f.p, lambda f: f.ks_p))
    assert seen > 0.55 > 0.4 > by_ks
    assert stats.binomtest(sum(f.p <= level for f in same), len(same), level, "greater").pvalue > 0.001
