"""Candidates for several classes: forests that are as sure as they may be, and probabilities that sum to one."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from mlops_nb.model.metrics import metric_value
from mlops_nb.model.model_types import MODEL_TYPES, sits_out
from mlops_nb.stages.train import make_estimator

MADE = {"tree": type("Recipe", (), {"transformers": []})()}  # no column is a code


@pytest.fixture(scope="module")
def digits():
    rows, which = load_digits(return_X_y=True)
    place = np.random.default_rng(0).permutation(len(rows))
    return rows[place], which[place].astype(str)


def told(name, digits, seed=0, n=700):
    """What a candidate that learnt n rows says about the others."""
    rows, which = digits
    return make_estimator(name, MADE, "multiclass", seed).fit(rows[:n], which[:n]).predict_proba(rows[n:])


@pytest.mark.parametrize(("name", "plain"), [("calibrated_forest", "random_forest"), ("calibrated_trees", "extra_trees")])
def test_a_calibrated_forest_is_as_sure_as_it_may_be(name, plain, digits):
    """Its log loss on rows that it has not seen is a half of the plain one's at most; the seed says all of it."""
    first, again, other = (told(name, digits, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    truth = digits[1][700:]
    assert log_loss(truth, first) < log_loss(truth, told(plain, digits)) / 2


def test_it_learns_several_classes_only_and_enough_rows_of_each(digits):
    import pandas as pd

    entry = MODEL_TYPES["calibrated_trees"]
    assert [t for t in ("binary", "multiclass", "regression") if entry.estimator(t) is not None] == ["multiclass"]
    assert sits_out(entry, pd.Series(["a", "b", "c"] * 20), "multiclass", "log_loss") == ""
    assert "20 rows of each class" in sits_out(entry, pd.Series(["a", "b", "c"] * 19), "multiclass", "log_loss")


def test_what_divides_its_rows_by_chance_sits_out_where_things_have_several(digits):
    """A twin in another fold makes forests look sure; so may a row of the same hour."""
    import pandas as pd

    y, things = pd.Series(np.repeat(["a", "b", "c"], 80)), np.arange(240) // 4
    forests, asked = ("calibrated_forest", "calibrated_trees"), ("multiclass", "log_loss")
    for name in forests:
        entry = MODEL_TYPES[name]
        assert sits_out(entry, y, *asked, np.arange(240)) == "" == sits_out(entry, y, *asked, np.r_[np.arange(236), 0, 1, 2, 3])
        assert "20 rows of each class" in sits_out(entry, y, *asked, np.arange(240) // 8)
        assert "of one thing belong together" in sits_out(entry, y, *asked, things)
        assert "are in time" in sits_out(entry, y, *asked, np.arange(240), in_time=True)
    assert not sits_out(MODEL_TYPES["extra_trees"], y, *asked, things, in_time=True)
    few = sits_out(MODEL_TYPES["slow_boosting"], y, *asked, np.arange(240) // 8)
    assert few == "it needs 20 rows of each class"  # 80 rows are of 10 things


def test_naive_bayes_far_from_what_it_learnt():
    """Pixels that one class alone has, in a row of another: probabilities sum to one, and the metric over classes is defined."""
    draw, which = np.random.default_rng(0), np.repeat(["one", "seven", "zero"], 200)
    zero = (which == "zero")[:, None]
    rows = np.column_stack([np.where(zero, draw.random((600, 20)), 0.0), np.where(zero, 0.0, np.tile(draw.random((200, 20)), (3, 1))), draw.normal(size=600)])
    blots = np.column_stack([np.full((60, 20), 9.0), np.full((60, 20), 10.0), draw.normal(size=60)])
    said = make_estimator("naive_bayes", MADE, "multiclass").fit(rows, which).predict_proba(blots)
    assert np.abs(said.sum(axis=1) - 1).max() < 1e-12
    assert 0 <= metric_value("roc_auc_ovr", np.tile(["one", "seven", "zero"], 20), proba=said, classes=["one", "seven", "zero"]) <= 1
