"""Folds where rows are in time: nobody learns from what comes after, and what can't be judged is said."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

from mlops_nb.base.errors import MlopsError
from mlops_nb.model.folds import folds_in_time, learns_from
from mlops_nb.model.problem import Problem
from mlops_nb.stages.ensemble import ensemble_said, fit_final
from mlops_nb.stages.train import cross_validate, make_folds

STATED = Problem.model_validate({"name": "sales", "goal": "Know how much is asked for", "task": "regression", "target": "y", "metric": "r2", "data": {"source": "rows.csv"}})


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(12, 200), st.integers(2, 8), st.floats(0, 5), st.booleans())
def test_the_past_teaches_and_what_comes_after_judges(seed, n, count, gap, classes):
    draw = np.random.default_rng(seed)
    moments = draw.integers(0, draw.integers(3, 80), n).astype(float)
    labels = draw.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]) if classes else None
    try:
        fold_of = folds_in_time(moments, count, gap, labels)
    except MlopsError as error:
        assert "bring more rows" in str(error)
        return
    assert 2 <= fold_of.max() + 1 <= count
    for fold in range(fold_of.max() + 1):
        taught, judged = learns_from(fold_of, fold), fold_of == fold
        assert taught.sum() > 1 and judged.any() and moments[taught].max() < moments[judged].min() - gap
        assert labels is None or (set(labels[judged]) <= set(labels[taught]) and len(set(labels[judged])) > 1)
        assert fold == 0 or taught.sum() > learns_from(fold_of, fold - 1).sum()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_as_scikit_learn_cuts_the_later_half(count):
    moments = np.arange(120.0)
    fold_of = folds_in_time(moments, count)
    for fold, (taught, judged) in enumerate(TimeSeriesSplit(count, test_size=60 // count).split(moments)):
        assert np.array_equal(np.flatnonzero(fold_of == fold), judged) and np.array_equal(np.flatnonzero(learns_from(fold_of, fold)), taught)


def test_a_trend_is_not_learnt_from_tomorrow():
    """Folds dealt at random know the days around each row; those in time don't, as a model in use won't."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import Pipeline

    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"day": np.arange(400.0), "y": np.cumsum(draw.normal(size=400))})
    model = {"forest": Pipeline([("estimator", RandomForestRegressor(20, random_state=0))])}
    mean = {}
    for name, moments in (("dealt", None), ("in time", frame["day"].to_numpy())):
        fold_of = make_folds(frame, STATED, 5, 0, None, moments)
        mean[name] = np.mean([fit.scores["r2"] for fit in cross_validate(model, frame, STATED, fold_of)["forest"]])
    assert mean["dealt"] > 0.9 and mean["in time"] < 0, mean


def test_a_stack_learns_from_earlier_blocks_only():
    """Its weights for a block come from blocks before it; the first block has none before it and gets the vote of equals; weights of a vote likewise."""
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline
    from sklearn.tree import DecisionTreeRegressor

    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.normal(size=300)})
    frame["y"] = frame["x"] + draw.normal(size=300)
    models = {"line": Pipeline([("estimator", LinearRegression())]), "tree": Pipeline([("estimator", DecisionTreeRegressor(max_depth=3, random_state=0))])}
    fold_of = make_folds(frame, STATED, 3, 0, None, np.arange(300.0))
    fits = cross_validate(models, frame, STATED, fold_of)
    vote, stack = (ensemble_said(name, fits, frame, STATED, fold_of) for name in ("voting", "stacking"))
    assert np.array_equal(vote[0].given, stack[0].given) and not np.array_equal(vote[1].given, stack[1].given)
    later = frame.assign(y=np.where(fold_of == 2, 1e6, frame["y"]))
    seen, unseen = (fit_final("stacking", fits, rows, STATED, fold_of, without=1) for rows in (frame, later))
    assert np.array_equal(seen.coef_, unseen.coef_)
    assert fit_final("voting", fits, later, STATED, fold_of, without=1) == fit_final("voting", fits, frame, STATED, fold_of, without=1)


@pytest.mark.parametrize(("gap", "blocks"), [(0.2, 2), (0.24, 2), (0.26, 2), (0.3, 2)])
def test_a_gap_for_which_the_later_half_is_too_short_starts_earlier(gap, blocks):
    """The share of all time that a model may not learn from before each block; refused once, from 0.25 on."""
    moments = np.arange(2000.0) / 2000
    fold_of = folds_in_time(moments, 5, gap)
    assert fold_of.max() + 1 == blocks
    for fold in range(blocks):
        taught, judged = learns_from(fold_of, fold), fold_of == fold
        assert taught.sum() > 1 and judged.sum() > 1 and moments[judged].min() - moments[taught].max() >= gap - 1e-9
