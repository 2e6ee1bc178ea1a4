"""Gaps between groups are fairlearn's, their intervals hold for all pairs at once, and equal groups are called equal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_nb.stats import gaps as g
from mlops_nb.stats.balance import association, missing_gaps, proxies, representation

few = pytest.param(60, id="few")
full = pytest.param(1000, id="full", marks=pytest.mark.deep)


def rare(hits: int, count: int, rate: float, risk: float = 1e-4) -> bool:
    """Whether so many hits are no sign of a rate above `rate`."""
    return stats.binom.sf(hits - 1, count, rate) > risk


def drawn(rates: list[float], n: int | list[int], count: int, seed: int = 0) -> list[g.Gaps]:
    """Gaps of groups with these rates, again and again."""
    rng, sizes = np.random.default_rng(seed), np.broadcast_to(n, len(rates))
    return [g.gaps(g.shares(rng.binomial(sizes, rates), sizes), draws=1000 if count > 100 else 400, seed=i) for i in range(count)]


# ---------------------------------------------------------------- equal groups
@pytest.mark.parametrize("count", [few, full])
@pytest.mark.parametrize("groups", [2, 5, 20])
@pytest.mark.parametrize(("n", "rate"), [(50, 0.7), (250, 0.1), (2000, 0.42), (50, 0.95)])
def test_equal_groups_are_called_equal(groups, n, rate, count):
    """Equality is in the interval, and no gate rejects; the value itself is far from equality."""
    found = drawn([rate] * groups, n, count)
    wrong = sum(f.difference.low > 0 for f in found)
    assert rare(wrong, count, 0.05) and stats.binom.cdf(wrong, count, 0.01) > 1e-4, "held in 95 to 99%"
    assert rare(sum(f.ratio.high < 0.8 for f in found), count, 0.02) and rare(sum(f.difference.low > 0.05 for f in found), count, 0.03)
    assert all((f.difference.low > 0) == (f.ratio.high < 1) for f in found), "both say the same of equality"
    seen, mended, said = (np.mean([getattr(f.difference, k) for f in found]) for k in ("value", "debiased", "chance"))
    assert mended < 0.65 * seen and said == pytest.approx(seen, rel=0.25 if count < 100 else 0.1)


def test_the_value_itself_rejects_equal_groups():
    """Why a gate doesn't go by it: ten equal groups of 250."""
    found = drawn([0.7] * 10, 250, 60)
    assert np.mean([f.ratio.value < 0.9 for f in found]) > 0.5 > 0.05 >= np.mean([f.ratio.high < 0.9 for f in found])


# ---------------------------------------------------------------- groups that differ
@pytest.mark.parametrize("count", [few, full])
@pytest.mark.parametrize("groups", [2, 5, 10])
@pytest.mark.parametrize("lower", ["one", "half"])
def test_unequal_groups_are_found(groups, lower, count):
    """500 positives a group, of whom 0.7 are found in some groups and 0.42 in others: a gate at 0.8 rejects."""
    low = 1 if lower == "one" else groups // 2
    found = drawn([0.42] * low + [0.7] * (groups - low), 500, count)
    assert rare(count - sum(f.ratio.high < 0.8 for f in found), count, 0.2)
    assert rare(sum(not f.difference.low <= 0.28 <= f.difference.high for f in found), count, 0.07)
    assert rare(sum(not f.ratio.low <= 0.6 <= f.ratio.high for f in found), count, 0.07)
    assert np.mean([f.difference.debiased for f in found]) == pytest.approx(0.28, abs=0.02)


UNEVEN = {"mixed": [2000, 1000, 250, 50, 50], "tiny": [2000, 1000, 250, 50, 4]}


@pytest.mark.parametrize("count", [few, full])
@pytest.mark.parametrize("sizes", UNEVEN)
@pytest.mark.parametrize("rates", [[0.7] * 5, [0.7, 0.42, 0.7, 0.7, 0.7], [0.7, 0.7, 0.7, 0.42, 0.7], [0.1] * 5, [0.6, 0.65, 0.7, 0.75, 0.8]])
def test_intervals_cover_whatever_the_sizes(sizes, rates, count):
    true, part = max(rates) - min(rates), min(rates) / max(rates)
    found = drawn(rates, UNEVEN[sizes], count)
    assert rare(sum(not f.difference.low <= true + 1e-9 <= f.difference.high + 1e-9 for f in found), count, 0.07)
    assert rare(sum(not f.ratio.low - 1e-9 <= part <= f.ratio.high + 1e-9 for f in found), count, 0.07)


def test_a_tiny_group_hides_nothing():
    two = g.gaps(g.shares([350, 210], [500, 500])).ratio
    three = g.gaps(g.shares([350, 210, 3], [500, 500, 4])).ratio
    assert two.high < 0.8 and three.high < 0.8


@pytest.mark.parametrize("count", [few, full])
def test_equalised_odds_hold_for_both_rates(count):
    """Of two rates the worse counts, and two equal ones are no more often called unequal than one."""
    rng, wrong, missed = np.random.default_rng(1), 0, 0
    for i in range(count):
        found, odd = rng.binomial([300] * 4, 0.8), rng.binomial([700] * 4, 0.2)
        wrong += g.gaps(g.shares(found, [300] * 4), g.shares(odd, [700] * 4), draws=400, seed=i).difference.low > 0
        odd = rng.binomial([700] * 4, [0.2, 0.2, 0.2, 0.35])
        both = g.gaps(g.shares(found, [300] * 4), g.shares(odd, [700] * 4), draws=400, seed=i).difference
        missed += not both.low <= 0.15 <= both.high
    assert rare(wrong, count, 0.06) and rare(missed, count, 0.07)


@pytest.mark.parametrize("count", [few, full])
def test_means_cover(count):
    rng, missed, wrong = np.random.default_rng(2), 0, 0
    n = np.array([20, 100, 400])
    for i in range(count):
        rows = [rng.normal(m, 10, k) for m, k in zip([0, 0, 4], n, strict=True)]
        rate = g.means([r.mean() for r in rows], [r.std(ddof=1) / math.sqrt(len(r)) for r in rows], n)
        missed += not (d := g.gaps(rate, draws=400, seed=i).difference).low <= 4 <= d.high
        rate = g.means([r.mean() - m for r, m in zip(rows, [0, 0, 4], strict=True)], [r.std(ddof=1) / math.sqrt(len(r)) for r in rows], n)
        wrong += g.gaps(rate, draws=400, seed=i).difference.low > 0
    assert rare(missed, count, 0.07) and rare(wrong, count, 0.06)


@pytest.mark.parametrize("count", [few, full])
def test_rows_of_one_person_are_no_more_people(count):
    """Five equal groups of 60 people with ten rows each, alike within a person: rows as people would reject most of the time."""
    rng, wrong, naive = np.random.default_rng(3), 0, 0
    codes, people = np.repeat(np.arange(5), 600), np.repeat(np.arange(300), 10)
    for i in range(count):
        hit = rng.random(3000) < rng.beta(1.4, 0.6, 300)[people]
        hits = np.bincount(codes, hit, 5)
        size = g.worth(hit.astype(float), codes, people, 5)
        wrong += g.gaps(g.shares(hits, [600] * 5, size), draws=400, seed=i).difference.low > 0
        naive += g.gaps(g.shares(hits, [600] * 5), draws=400, seed=i).difference.low > 0
    assert rare(wrong, count, 0.08) and naive > count / 2


# ---------------------------------------------------------------- by group
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_gaps_are_fairlearns(seed, groups):
    from fairlearn import metrics as flm

    rng, who = np.random.default_rng(seed), np.arange(120) % groups
    truth, decisions = rng.random(120) < 0.4, rng.random(120) < 0.5
    truth[:groups], decisions[:groups] = True, True  # fairlearn calls a rate of nobody 0
    found = g.by_group(truth, decisions, who).gaps
    for name, gap in found.items():
        assert gap.value == pytest.approx(getattr(flm, name)(truth, decisions, sensitive_features=who)), name
        assert gap.low <= gap.value <= gap.high or name.endswith("_ratio") and gap.low <= gap.value
        assert gap.low <= gap.debiased <= gap.high


def test_a_rate_of_nobody_takes_no_part():
    found = g.by_group([True, False, False], [True, False, False], ["a", "b", "b"], min_group=2)
    assert math.isnan(found.rates["b"]["true_positive_rate"].value) and found.small == ["a", "b"]
    assert list(found.gaps) == ["demographic_parity_difference", "demographic_parity_ratio"]
    alone = g.by_group([True], [True], ["a"])
    assert alone.gaps == {} and alone.rates["a"]["accuracy"].n == 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_all_alike_and_all_tiny(rate):
    found = g.gaps(g.shares([3 * rate] * 4, [3] * 4)).difference
    assert (found.value, found.low, found.debiased) == (0, 0, 0) and 0.3 < found.high < 1


def test_ten_thousand_groups_are_compared():
    """Some of them without positives; what is drawn is bounded, not groups times draws."""
    rng = np.random.default_rng(4)
    n = rng.integers(1, 30, 10_000)
    who, truth = np.repeat(np.arange(10_000), n), rng.random(n.sum()) < 0.3
    found = g.by_group(truth, rng.random(n.sum()) < 0.5, who)
    assert len(found.gaps) == 6 and all(found.gaps[f"{f}_difference"].low == 0 for f in g.FAMILIES) and len(found.rates) == 10_000
    assert sum(part.size for part in g._drawn(g.shares(n // 2, n), 2000, 0)) < 100_000


def test_one_unfair_group_of_thousands_is_found():
    n = np.full(2000, 1000)
    hits = np.random.default_rng(5).binomial(n, 0.5)
    hits[7] = 250
    assert g.gaps(g.shares(hits, n)).difference.low > 0.15


def test_shrunken_rates_are_nearer_to_the_truth():
    rng, raw, mended = np.random.default_rng(6), 0.0, 0.0
    for _ in range(50):
        true, n = rng.beta(12, 8, 20), rng.integers(5, 100, 20)
        rate = g.shares(rng.binomial(n, true), n)
        raw, mended = raw + ((rate.x - true) ** 2).sum(), mended + ((g.shrunk(rate) - true) ** 2).sum()
    assert mended < 0.8 * raw


@pytest.mark.parametrize(("hits", "n"), [([3], [2]), ([-1, 2], [4, 4]), ([1, 2], [4])])
def test_counts_that_are_none_are_refused(hits, n):
    with pytest.raises(ValueError, match="hits and how many they are of"):
        g.shares(hits, n)


@pytest.mark.parametrize(("groups", "said"), [([], "no rows in groups"), ([None], "1 of 1 groups are missing")])
def test_groups_without_rows_are_refused(groups, said):
    with pytest.raises(ValueError, match=said):
        g.by_group([True], [True], groups)


# ---------------------------------------------------------------- the rows
@pytest.mark.parametrize("count", [pytest.param(150, id="few"), full])
def test_rows_of_the_population_are_called_so(count):
    """Large groups, and some so small that the usual test is wrong."""
    rng, population = np.random.default_rng(7), {"a": 0.6, "b": 0.37, "c": 0.03}
    for n in (60, 2000):
        found = [representation(dict(zip("abc", rng.multinomial(n, [0.6, 0.37, 0.03]), strict=True)), population) for _ in range(count)]
        assert rare(sum(f.p < 0.05 for f in found), count, 0.06) and rare(sum(bool(f.off) for f in found), count, 0.06)


@pytest.mark.parametrize("count", [pytest.param(60, id="few"), full])
def test_columns_that_say_nothing_are_no_proxies(count):
    """At most one table in twenty has any, of twelve columns."""
    import pandas as pd

    rng, told, gone = np.random.default_rng(8), 0, 0
    for _ in range(count):
        codes = rng.integers(0, 3, 400)
        frame = pd.DataFrame({f"c{i}": rng.normal(size=400) if i % 2 else rng.choice(list("abcdef"), 400) for i in range(12)})
        frame = frame.mask(rng.random(frame.shape) < 0.1)
        told += bool(proxies(frame, codes, least=0.0))
        gone += bool(missing_gaps(frame, codes, 3))
    assert rare(told, count, 0.05) and rare(gone, count, 0.05)


def test_cramers_v_without_its_bias():
    """About 0 of independent columns, where the plain one is well above it."""
    import pandas as pd

    rng = np.random.default_rng(9)
    found = [association(pd.Series(rng.choice(list("abcdefgh"), 200)), rng.integers(0, 4, 200))[0] for _ in range(100)]
    assert np.mean(found) < 0.06
