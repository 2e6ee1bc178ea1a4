"""The check of an experiment's split: watched after every unit, it is wrong as seldom as it says, and finds what is there."""

import math

import numpy as np
import pytest
from scipy import special, stats

from mlops_nb.stats.mismatch import CONCENTRATIONS, label_mismatch, log_bayes_factor, ratio_mismatch


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


def label_alarms(rate, delay, units, tests, alpha, shares=(0.5, 0.5), lost=0.0, seed=0):
    """After how many units the check of labels, watched after every unit, first said mismatch; 0: never. Labels come after a mean delay, in units."""
    rng, plan, first = np.random.default_rng(seed), np.array(shares), []
    for _ in range(tests):
        arm = rng.choice(len(plan), size=units, p=plan)
        comes = np.where(rng.random(units) < rate - lost * (arm == 0), np.ceil(np.arange(units) + rng.exponential(delay or 1e-9, units)), np.inf)
        one, known = (arm[:, None] == np.arange(len(plan))).astype(float), np.zeros((units, len(plan)))
        np.add.at(known, (comes[comes < units].astype(int), arm[comes < units]), 1)
        counts, labelled = np.cumsum(one, axis=0), np.cumsum(known, axis=0)
        unknown = counts.sum(axis=1) - labelled.sum(axis=1)
        again = 2 * np.log(counts.sum(axis=1) / np.maximum(unknown, 1))
        evidence = log_bayes_factor(labelled, plan) + np.where(unknown > 0, log_bayes_factor(counts - labelled, plan) - again, 0)
        over = evidence >= -math.log(alpha)
        first.append(over.argmax() + 1 if over.any() else 0)
    return np.array(first)


LABELS = [(rate, delay) for rate in (0.1, 0.5, 0.9, 1.0) for delay in (0, 20, 500)]


def test_the_simulation_is_of_the_check():
    """What is vectorised above says what the check says."""
    for known, counts, shares in (((30, 21), (50, 50), (0.5, 0.5)), ((30, 2, 9), (50, 12, 12), (0.6, 0.2, 0.2)), ((50, 50), (50, 50), (0.5, 0.5)), ((90, 60), (100, 100), (0.5, 0.5))):
        whole, some, plan = (np.array(x, float) for x in (counts, known, shares))
        unknown = (whole - some).sum()
        factor = log_bayes_factor(some, plan) + (log_bayes_factor(whole - some, plan) - 2 * math.log(whole.sum() / unknown) if unknown else 0)
        arms = "abc"[: len(plan)]
        said = label_mismatch(dict(zip(arms, known, strict=True)), dict(zip(arms, counts, strict=True)), dict(zip(arms, shares, strict=True)))
        assert math.isclose(said.p, min(1.0, math.exp(-factor)), rel_tol=1e-9)
        assert said.ok == (said.p > 0.001)


@pytest.mark.parametrize("rate, delay", [(0.5, 20), (0.9, 0), (1.0, 20)])
def test_watching_labels_keeps_the_rate(rate, delay):
    assert np.mean(label_alarms(rate, delay, 800, 100, 0.05) > 0) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 100)


@pytest.mark.deep
@pytest.mark.parametrize("rate, delay, shares", [(*how, (0.5, 0.5)) for how in LABELS] + [(0.9, 20, (0.9, 0.1)), (1.0, 20, (0.4, 0.3, 0.3))])
def test_watching_labels_for_long_keeps_the_rate(rate, delay, shares):
    assert np.mean(label_alarms(rate, delay, 5000, 500, 0.05, shares) > 0) <= 0.05


def test_a_fixed_test_of_labels_at_every_look_would_not():
    """What was here before, at its threshold of .001, when all labels come and come late."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(60):
        arm = rng.random(3000) < 0.5
        comes = np.ceil(np.arange(3000) + rng.exponential(50, 3000)).astype(int)
        counts = np.cumsum(np.stack([arm, ~arm], axis=1), axis=0)
        known = np.stack([np.cumsum(np.bincount(comes[side], minlength=3000)[:3000]) for side in (arm, ~arm)], axis=1)
        share = known.sum(axis=1) / counts.sum(axis=1)
        with np.errstate(all="ignore"):
            chi = ((known - counts * share[:, None]) ** 2 / (counts * (share * (1 - share))[:, None])).sum(axis=1)
        alarms += bool((np.nan_to_num(chi[200:]) > stats.chi2.isf(0.001, 1)).any())
    assert alarms > 9


def test_lost_labels_are_found():
    found = label_alarms(0.9, 0, 2500, 12, 0.001, lost=0.1)
    assert np.mean(found > 0) > 0.8 and np.median(found) <= 1900


@pytest.mark.slow
@pytest.mark.parametrize("rate, lost, most", [(0.95, 0.05, 4500), (0.9, 0.05, 6500), (0.3, 0.05, 8000), (0.1, 0.03, 8500)])
def test_how_fast_lost_labels_are_found(rate, lost, most):
    """At the threshold .001; 90% against 85% is found within some 4,900 units by half of the tests."""
    found = label_alarms(rate, 0, 2 * most, 24, 0.001, lost=lost)
    assert np.mean(found > 0) > 0.9 and np.median(found) <= most
