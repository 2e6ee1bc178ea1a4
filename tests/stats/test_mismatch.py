"""The check of an experiment's split: watched after every unit, it is wrong as seldom as it says, and finds what is there."""

import math

import numpy as np
import pytest
from scipy import special, stats

from mlops_nb.stats.mismatch import CONCENTRATIONS, log_bayes_factor, ratio_mismatch


def alarms(real, shares, units, tests, alpha, seed=0):
    """After how many units each test first said mismatch; 0: never."""
    rng, first = np.random.default_rng(seed), []
    for _ in range(tests):
        arm = rng.choice(len(shares), size=units, p=real)
        counts = np.cumsum(arm[:, None] == np.arange(len(shares)), axis=0)
        over = log_bayes_factor(counts, np.array(shares)) >= -math.log(alpha)
        first.append(over.argmax() + 1 if over.any() else 0)
    return np.array(first)


PLANS = [(0.5, 0.5), (0.9, 0.1), (0.98, 0.02), (0.4, 0.2, 0.2, 0.2)]


@pytest.mark.parametrize("shares", PLANS)
def test_watching_after_every_unit_keeps_the_rate(shares):
    assert np.mean(alarms(shares, shares, 2000, 300, 0.05) > 0) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_a_fixed_test_at_every_look_would_not():
    first = np.cumsum(np.random.default_rng(0).random((300, 2000)) < 0.5, axis=1)
    n = np.arange(1, 2001)
    assert np.mean((abs(first - n / 2) / np.sqrt(n / 4) > stats.norm.isf(0.025)).any(axis=1)) > 0.4


@pytest.mark.deep
@pytest.mark.parametrize("alpha, tests", [(0.05, 2000), (0.001, 2000)])
@pytest.mark.parametrize("shares", PLANS)
def test_watching_for_long_keeps_the_rate(shares, alpha, tests):
    assert np.mean(alarms(shares, shares, 10_000, tests, alpha) > 0) <= alpha + 2 * math.sqrt(alpha / tests)


@pytest.mark.parametrize("real, most", [(1.0, 25), (0.6, 600), (0.55, 2200), (0.52, 13_000)])
def test_how_fast_a_mismatch_is_found(real, most):
    """At the threshold .001; a single look finds half of 52% with 6,800 units, if it is the only one."""
    found = alarms((real, 1 - real), (0.5, 0.5), 2 * most, 40, 0.001)
    assert np.mean(found > 0) > 0.9 and np.median(found) <= most


def test_the_factor_is_that_of_the_definition():
    """With one concentration of 1 on each of two arms the counts have all the same probability; here by numerical integration over the other shares."""
    counts, shares = np.array([7.0, 2.0]), np.array([0.7, 0.3])
    grid = (np.arange(200_000) + 0.5) / 200_000
    ratio = 0.0
    for mass in CONCENTRATIONS[1:]:  # smooth ones
        ratio += np.mean(stats.beta.pdf(grid, *(mass * shares)) * (grid / 0.7) ** 7 * ((1 - grid) / 0.3) ** 2)
    a, b = shares
    ratio += math.exp(special.betaln(a + 7, b + 2) - special.betaln(a, b)) / (0.7**7 * 0.3**2)
    assert math.isclose(log_bayes_factor(counts, shares), math.log(ratio / 3), rel_tol=1e-4)


def test_the_present_counts_are_enough_and_err_to_no_alarm():
    path = [ratio_mismatch({"a": n}, {"a": 0.5, "b": 0.5}) for n in range(1, 40)]
    assert [p.ok for p in path] == sorted((p.ok for p in path), reverse=True) and not path[-1].ok
    back = ratio_mismatch({"a": 40, "b": 30}, {"a": 0.5, "b": 0.5})
    assert back.ok and back.p > path[-1].p and "however often one looks" in back.said
    large = ratio_mismatch({"a": 10**9, "b": 10**9}, {"a": 0.5, "b": 0.5})
    assert large.ok and large.p == 1.0
