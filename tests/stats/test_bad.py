"""Rows that say nothing: no figure pretends, nothing crashes, nothing warns."""

import math
import tracemalloc

import numpy as np
import pytest

from mlops_nb.stats import gaps as g
from mlops_nb.stats.cutoff import judge_cutoffs
from mlops_nb.stats.luck import luck_by_folds, luck_by_rows, luck_line
from mlops_nb.stats.estimate import AGREEMENTS
from mlops_nb.stats.quality import realised

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.mark.parametrize("label", [True, False])
def test_one_class_only(label):
    found = realised([label] * 50, [0.7] * 50, [True] * 50)
    assert math.isnan(found["roc_auc"].value) and all(math.isnan(found[k].low) for k in ("average_precision", "log_loss", "brier"))
    assert 0 < found["accuracy"].high - found["accuracy"].low < 0.1
    assert label or math.isnan(found["recall"].value)


def test_one_of_three_classes_only():
    found = realised(["a"] * 40, [[0.6, 0.3, 0.1]] * 40, ["a"] * 40, target_type="multiclass", classes=list("abc"))
    assert math.isnan(found["roc_auc_ovr"].value) and math.isnan(found["log_loss"].low)


def test_numbers_that_do_not_vary():
    found = realised([5.0] * 50, None, list(np.arange(50.0)), target_type="continuous")
    assert math.isnan(found["r2"].value) and math.isnan(found["r2"].low) and found["mae"].low < found["mae"].value < found["mae"].high


def test_bounds_of_a_share_lie_between_0_and_1():
    for said in ([True, False], [False, True]):
        found = realised([True, False] * 50, [float(s) for s in said] * 50, said * 50)
        least = {k: -1 if k in AGREEMENTS else 0 for k in found}  # agreement may be worse than chance
        assert all(math.isnan(e.low) or (least[k] <= e.low <= e.high and (k == "log_loss" or e.high <= 1)) for k, e in found.items()), found


@pytest.mark.parametrize("defined", [lambda yes: False, lambda yes: yes == 30, lambda yes: yes > 36])
def test_a_metric_that_is_undefined_in_most_resamples_has_no_interval(defined):
    found = realised([True, False] * 30, None, [True] * 60, {"own": lambda y, p, d: 0.5 if defined(y.sum()) else math.nan})["own"]
    assert found.plain()["low"] is None and found.plain()["high"] is None and found.plain()["error"] is None


def test_a_metric_that_is_nearly_always_defined_has_one():
    found = realised([True, False] * 30, None, [True] * 60, {"own": lambda y, p, d: float(y.mean()) if y.sum() > 20 else math.nan})["own"]
    assert 0.3 < found.low < 0.5 < found.high < 0.7


def test_groups_that_say_nothing():
    for tiny in (g.shares([1] * 30, [1] * 30), g.shares([0, 1] * 100, [1] * 200), g.shares([0] * 3, [1] * 3)):
        found = g.gaps(tiny).difference
        assert found.low == 0 and found.high > 0.7, "of one person each nothing is sure"
    for none in (g.shares([0, 0], [0, 0]), g.shares([], []), g.shares([3], [9]), g.means([1, 2, 3.0], [math.nan] * 3, [1, 1, 1])):
        assert g.gaps(none) == g.Gaps(g.UNKNOWN, g.UNKNOWN) or all(math.isnan(v) for gap in g.gaps(none) for v in gap)
    same = g.gaps(g.means([1, 1, 1.0], [0, 0, 0.0], [10, 10, 10]))
    assert same.difference.low == 0 and same.difference.high < 1e-6 and all(math.isnan(v) for v in same.ratio)


@pytest.mark.parametrize("most", [50, 2000])
def test_ten_thousand_groups_fit_into_memory(most):
    """A table of groups by groups would take 800 MB."""
    rng = np.random.default_rng(0)
    n, rate = rng.integers(1, most, 10_000), rng.beta(5, 5, 10_000)
    tracemalloc.start()
    found = g.gaps(g.shares(rng.binomial(n, rate), n)).difference
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6 and found.low > 0.2


def test_choices_among_what_is_undefined():
    some = luck_by_folds(np.array([[math.nan, 0.5], [0.6, 0.4]]))
    assert some.optimism is None and "can't be told" in luck_line(some, "roc_auc")
    same = luck_by_rows(lambda w: np.full((len(w), 3), 0.5), np.arange(10))
    assert same.optimism == 0 and same.corrected == 0.5
    assert judge_cutoffs(np.zeros(0, bool), np.zeros(0), np.linspace(0.1, 0.9, 81), 40, draws=50).p.min() == 1
