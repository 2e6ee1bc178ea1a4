"""Sizes of experiments: no ordinary plan fails, and the size that is said is the smallest that has the power."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mlops_nb.stats.experiment import detectable, power_of, sample_size

SPREADS = [{"sd": sd, "effect": e * sd} for sd in (1e-6, 1, 1e6) for e in (1e-4, 0.01, 0.5, 2, 1e3)]
RATES = [{"rate": r, "effect": e} for r in (0.001, 0.1, 0.5, 0.9) for e in (-0.3, -0.0005, 1e-6, 0.01, 0.09) if 0 <= r + e <= 1]
STATSMODELS = [  # effect, alpha, power, ratio, units of the control
    (0.2, 0.05, 0.8, 1, 393.405693), (0.5, 0.05, 0.9, 0.5, 127.383228), (1, 0.2, 0.8, 3, 6.228434), (0.05, 0.05, 0.8, 1, 6280.048916),
    (0.5, 0.2, 0.5, 20, 6.792882), (1.5, 0.05, 0.99, 1, 17.360516), (0.2, 0.001, 0.8, 0.05, 8969.346052),
]  # fmt: skip
DESIGNS = [*itertools.product((0.001, 0.05, 0.2), (0.5, 0.8, 0.99), (0.05, 1, 20), (1, 5))]


def off(plan, alpha, power, ratio, variants):
    """What is wrong with the size of a plan: too few units, or one more than needed in each arm; None where nothing is."""
    size = sample_size(**plan, alpha=alpha, power=power, ratio=ratio, variants=variants)
    known = {"alpha": alpha / variants} | plan
    enough = power_of(size.control, size.variant, **known)
    less = power_of(size.control - 1, size.variant - 1, **known) if min(size[:2]) > 2 else 0.0
    return None if less - 1e-9 < power <= enough + 1e-9 else (plan, alpha, power, ratio, variants, size, enough, less)


@pytest.mark.parametrize("plans", [SPREADS, RATES], ids=["means", "shares"])
def test_ordinary_plans_have_the_smallest_size(plans):
    """A third of the grid: some three hundred plans."""
    asked = [(p, *d) for p, d in itertools.product(plans, DESIGNS)][::3]
    assert len(asked) >= 200 and not [wrong for a in asked if (wrong := off(*a))]


@pytest.mark.deep
@pytest.mark.parametrize("plans", [SPREADS, RATES], ids=["means", "shares"])
def test_every_plan_has_the_smallest_size(plans):
    more = itertools.product((0.001, 0.01, 0.05, 0.2), (0.5, 0.8, 0.9, 0.99), (0.05, 0.3, 1, 3, 20), (1, 2, 5))
    assert not [wrong for p, d in itertools.product(plans, more) if (wrong := off(p, *d))]


def test_the_power_of_means_is_that_of_the_noncentral_t():
    """scipy's, where it is a number: nearly everywhere with few units, and not in far tails."""
    known = 0
    for n, alpha, shift in itertools.product((2, 3, 5, 20, 100, 1000), (0.2, 0.05, 0.001, 0.0002), (0.1, 1, 2, 4)):
        edge, df = stats.t.isf(alpha / 2, 2 * n - 2), 2 * n - 2
        exact = stats.nct.sf(edge, df, shift) + stats.nct.cdf(-edge, df, shift)
        if np.isfinite(exact):
            known += 1
            assert abs(power_of(n, n, shift * np.sqrt(2 / n), sd=1, alpha=alpha) - exact) < 1e-7
    assert known >= 60


def test_sizes_are_statsmodels():
    """TTestIndPower().solve_power(effect, alpha=, power=, ratio=)."""
    for effect, alpha, power, ratio, n in STATSMODELS:
        assert abs(power_of(n, n * ratio, effect, sd=1, alpha=alpha) - power) < 1e-6
    found = sample_size(0.05, sd=1, alpha=0.001, power=0.99).control
    reach = stats.norm.isf(0.0005) + stats.norm.isf(0.01)
    assert abs(found - 2 * (reach / 0.05) ** 2) < 4  # by the normal, statsmodels' solver ends at 20,867, whose power is .965


@pytest.mark.slow
@pytest.mark.parametrize("n, effect, alpha", [(3, 2, 0.05), (12, 1.5, 0.001), (60, 0.3, 0.2)])
def test_power_is_how_often_a_t_test_finds_it(n, effect, alpha):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40_000, n)), rng.normal(effect, size=(40_000, n))
    found = np.mean(stats.ttest_ind(a, b, axis=1).pvalue <= alpha)
    assert abs(found - power_of(n, n, effect, sd=1, alpha=alpha)) < 4 * np.sqrt(0.25 / 40_000)


def test_the_smallest_rise_that_is_found():
    for known in ({"sd": 1e-3}, {"sd": 1e6}, {"rate": 0.001}, {"rate": 0.9}):
        rise = detectable(500, 800, **known)
        assert abs(power_of(500, 800, rise, **known) - 0.8) < 1e-6
    assert detectable(2, 2, rate=0.9) == np.inf
