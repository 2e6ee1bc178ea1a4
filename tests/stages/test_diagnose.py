"""What holds a model back is said where it is known to be so, and not where nothing does."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.model.conform import learn_schema
from mlops_nb.model.problem import Problem
from mlops_nb.stages.diagnose import regularisation_path, validation_curve, verdicts
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import cross_validate, learning_curve, make_folds, make_model

CASE = Problem.model_validate({"name": "made", "goal": "Know why", "task": "regression", "target": "y", "metric": "r2", "data": {"source": "made.csv"}})


def made(seed: int, n: int, noise: float, shape) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, (n, 3))
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=shape(x) + rng.normal(0, noise, n))


def waves(x):
    return np.sin(2 * x[:, 0]) * 2 + np.sin(2 * x[:, 1]) * 2


def said(frame: pd.DataFrame, name: str, params: dict) -> set[str]:
    recipe = make_recipe(learn_schema(frame, CASE), CASE)
    chosen, dealt = make_model(name, recipe, "regression", 0, params), make_folds(frame, CASE, 5)
    fits = cross_validate({name: chosen}, frame, CASE, dealt)[name]
    curve = learning_curve(chosen, frame, CASE, dealt, (0.5, 1.0), fits=fits)
    return {v.name for v in verdicts(curve, validation_curve(name, chosen, frame, CASE, dealt), CASE)}


KNOWN = {
    # rows, noise, parameters; the last is seen by five folds in half of the draws, for their noise is taken seriously
    "too flexible": (600, 3.0, {"max_leaf_nodes": 256, "min_samples_leaf": 1}),
    "not flexible enough": (1500, 0.2, {"max_leaf_nodes": 8, "min_samples_leaf": 5}),
    "too little data": (300, 0.1, {"max_leaf_nodes": 128, "min_samples_leaf": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_what_is_made_to_hold_it_back_is_named(name):
    n, noise, params = KNOWN[name]
    found = [name in said(made(seed, n, noise, waves), "decision_tree", params) for seed in range(20)]
    assert np.mean(found) >= (0.3 if name == "too little data" else 0.9), np.mean(found)


@pytest.mark.slow
def test_where_nothing_does_hardly_anything_is_said():
    """A straight line learnt by a linear model from plenty of rows: no more rows, no other penalty helps."""
    line = lambda x: x @ [1.0, 2.0, 0.0]  # noqa: E731
    quiet = [said(made(seed, 600, 2.0, line), "linear", {"alpha": 1.0}) == {"neither"} for seed in range(60)]
    assert np.mean(quiet) >= 0.9, np.mean(quiet)


def test_the_path_is_scikit_learns():
    from sklearn.linear_model import Ridge

    frame = made(1, 300, 1.0, lambda x: x @ [1.0, 2.0, 0.0])
    recipe = make_recipe(learn_schema(frame, CASE), CASE)
    path = regularisation_path(recipe, frame, CASE)
    assert path["names"][:2] == ["b", "a"] and path["knob"] == "alpha"
    whole = make_model("linear", recipe, "regression")
    table = whole["recipe"].fit_transform(frame[["a", "b", "c"]], frame["y"])
    names = [n.partition("__")[2] or n for n in whole["recipe"].get_feature_names_out()]
    for strength, found in zip(path["strengths"], path["coefficients"], strict=True):
        theirs = dict(zip(names, Ridge(alpha=strength).fit(table, frame["y"]).coef_, strict=True))
        assert found == pytest.approx([theirs[n] for n in path["names"]], abs=1e-6)
