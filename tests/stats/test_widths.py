"""Intervals are no wider than they need to be: mean widths against the narrowest known ones that hold the truth as well."""

import math

import numpy as np
import pandas as pd
import pytest

from mlops_nb.stats.influence import NEEDS_CHANCES, by_chances, by_decisions, number_slope
from mlops_nb.stats.quality import drawn, realised

from .test_coverage import BINARY, CELLS, NUMBERS, SEVERAL, numbers, ranked, several

Z = 1.959964


def bootstrapped(rows, names, kind, resamples=100) -> dict[str, tuple[float, float]]:
    """Percentiles of unstratified resamples (Efron and Tibshirani 1993)."""
    (y_true, proba, y_pred), made = rows, {name: [] for name in names}
    for some in drawn(len(y_true), None, resamples, 0):
        if kind == "continuous":
            values = [number_slope(name, y_true[some], y_pred[some])[0] for name in names]
        else:
            weights = np.eye(int(y_true.max()) + 1)[y_true.astype(int)] * np.bincount(some, minlength=len(y_true))[:, None]
            chances = proba if proba.ndim == 2 else np.column_stack([1 - proba, proba])
            values = [(by_chances(k, weights, chances) if k in NEEDS_CHANCES else by_decisions(k, weights, y_pred.astype(int)))[0] for k in names]
        for name, value in zip(names, values, strict=True):
            made[name].append(value)
    return {name: tuple(np.nanpercentile(values, [2.5, 97.5])) for name, values in made.items()}


def compared(draw, names, count, seed, boot=0, target_type="binary") -> pd.DataFrame:
    """Mean width and coverage, of the tables that have an interval: ours, and three competitors.

    `oracle` knows the true spread over all tables (normal, on either side of the value); `plain` is the value give or take 1.96 standard
    errors (Wald for shares, DeLong et al. 1988 for ROC AUC, the delta method else); `bootstrap` is asked of the first `boot` tables.
    """
    truth = {k: e.value for k, e in realised(*draw(np.random.default_rng(99), 1_000_000), names, target_type).items()}
    rng, found, ends = np.random.default_rng(seed), [], []
    for i in range(count):
        rows = draw(rng, None)
        found.append(realised(*rows, names, target_type))
        ends.append(bootstrapped(rows, names, target_type) if i < boot else {})
    made = []
    for name in names:
        value, low, high, error = np.array([[getattr(f[name], k) for k in ("value", "low", "high", "error")] for f in found]).T
        some, spread = np.isfinite(low), value.std()
        if some.mean() < 0.3:
            continue
        kinds = {"ours": (low, high), "oracle": (value - Z * spread, value + Z * spread), "plain": (value - Z * error, value + Z * error)}
        line = {"metric": name}
        for kind, (a, b) in kinds.items():
            line |= {kind: (b - a)[some].mean(), f"{kind} holds": ((a <= truth[name]) & (truth[name] <= b))[some].mean()}
        if boot:
            asked = some & (np.arange(count) < boot)
            a, b = np.array([ends[i][name] for i in np.flatnonzero(asked)]).T
            scale = (high - low)[some].mean() / (high - low)[asked].mean()  # as if asked of all tables
            line |= {"bootstrap": (b - a).mean() * scale, "bootstrap holds": ((a <= truth[name]) & (truth[name] <= b)).mean()}
        made.append(line)
    return pd.DataFrame(made).set_index("metric")


def ratios(table: pd.DataFrame) -> pd.Series:
    """Mean width by that of the narrowest competitor that covers in 93% or more."""
    rivals = [k for k in ("oracle", "plain", "bootstrap") if k in table]
    best = pd.concat([table[k].where(table[f"{k} holds"] >= 0.93) for k in rivals], axis=1).min(axis=1)
    return table["ours"] / best


def of_two(n, base, apart, count, **more):
    return compared(lambda rng, size: ranked(rng, size or n, base, apart), BINARY, count, n + int(100 * base), **more)


def narrow(table: pd.DataFrame, count: int) -> None:
    """At most 1.15 times as wide, give or take what `count` tables can't tell of the true spread (two standard errors)."""
    assert (found := ratios(table))[found > 1.15 * (1 + 2 / math.sqrt(2 * count))].empty, table.assign(ratio=found).round(3).to_string()


@pytest.mark.parametrize(("n", "base"), [(200, 0.5), (500, 0.1)])
def test_of_two_classes(n, base):
    narrow(of_two(n, base, 1.2, 150), 150)


@pytest.mark.deep
@pytest.mark.parametrize(("n", "base"), CELLS)
@pytest.mark.parametrize("apart", [0.7, 1.2, 2.5])
def test_of_two_classes_in_full(n, base, apart):
    """Resamples of 5,000 rows say what the true spread says."""
    narrow(of_two(n, base, apart, 1000, boot=150 if n < 1000 and apart == 1.2 else 0), 1000)


few, full = pytest.param(300, id="few", marks=pytest.mark.slow), pytest.param(1000, id="full", marks=pytest.mark.deep)


@pytest.mark.parametrize("count", [few, full])
@pytest.mark.parametrize("n", [200, 500, 5000])
@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.8, 0.1, 0.1)])
def test_of_several_classes(n, shares, count):
    boot = 100 if n == 500 and count == 1000 else 0
    narrow(compared(lambda rng, size: several(rng, size or n, shares), SEVERAL, count, 1, boot, "multiclass"), count)


@pytest.mark.parametrize("count", [few, pytest.param(4000, id="full", marks=pytest.mark.deep)])
@pytest.mark.parametrize("n", [200, 500, 5000])
@pytest.mark.parametrize("tails", [100, 5])
def test_of_numbers(n, tails, count):
    """Of errors with heavy tails the plain interval and the bootstrap of R² and RMSE hold too rarely to count."""
    boot = 1000 if n < 1000 and count == 4000 else 0
    of = [name for name in NUMBERS if name != "mape"]  # a rare truth near 0 outweighs all others
    narrow(compared(lambda rng, size: numbers(rng, size or n, tails), of, count, n, boot, "continuous"), count)


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500, 5000])
def test_of_percentages(n):
    """Of truths that stay away from 0: there a percentage has a spread."""

    def away(rng, size):
        y_true, _, said = numbers(rng, size or n, 100)
        far = np.maximum(y_true, 10)
        return far, None, far + said - y_true

    narrow(compared(away, ["mape"], 300, n, 0, "continuous"), 300)


def test_a_wide_interval_would_be_found():
    """Student's bounds with four degrees of freedom are 1.4 times too wide."""
    table = of_two(500, 0.1, 1.2, 100)
    with pytest.raises(AssertionError, match="brier"):
        narrow(table.assign(ours=1.42 * table["ours"]), 100)
