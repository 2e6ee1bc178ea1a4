"""Intervals of segments' figures count people and not their rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from mlops_nb.model.problem import Problem
from mlops_nb.model.segments import Segments
from mlops_nb.stages.evaluate_clusters import apart, evaluate_segments

PEOPLE, ROWS = 40, 25
UNITS = np.repeat(np.arange(PEOPLE), ROWS)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and segments: a person is in one segment, at a place of its own."""
    rng = np.random.default_rng(seed)
    mine = np.repeat(rng.random(PEOPLE) < 0.3, ROWS)
    own = np.repeat(rng.normal(0, 1.2, (PEOPLE, 2)), ROWS, axis=0)
    return own + 6 * mine[:, None] + rng.normal(0, 0.3, (len(UNITS), 2)), mine


@pytest.mark.parametrize("name, figure", [("davies_bouldin", davies_bouldin_score), ("calinski_harabasz", calinski_harabasz_score)])
def test_intervals_are_as_wide_as_redraws_of_people(name, figure):
    """Beside the spread over 200 draws of people; by rows they are several times too narrow."""
    low, high = np.quantile([figure(*drawn(seed)) for seed in range(200)], [0.025, 0.975])
    by = [[apart(*drawn(seed), units, 60)[0][name] for seed in range(200, 215)] for units in (UNITS, None)]
    people, rows = (np.median([one["high"] - one["low"] for one in spans]) for spans in by)
    assert 0.5 * (high - low) < people < 2 * (high - low) and rows < 0.5 * people


def test_the_smallest_share_is_of_people():
    """The standard deviation of the share of 40 people is 0.07, whatever rows they have."""
    (learnt, _), (X, _) = drawn(0), drawn(1)
    train, test = pd.DataFrame(learnt, columns=["a", "b"]), pd.DataFrame(X, columns=["a", "b"])
    task = Problem.model_validate({"name": "x", "goal": "g", "task": "clustering", "target": "segment", "metric": "silhouette", "data": {"source": "a.csv"}})
    recipe = Pipeline([("columns", ColumnTransformer([("number", StandardScaler(), ["a", "b"])]))])
    model = Pipeline([("recipe", recipe), ("estimator", Segments("kmeans", 2, 0))]).fit(train)
    found = evaluate_segments(task, model, train, test, {"structure": {"found": True}}, units=UNITS, resamples=4)[0]
    share = found["metrics"]["smallest_share"]
    exact = np.sqrt(share["value"] * (1 - share["value"]) / PEOPLE)
    assert 0.8 * 2 * 1.96 * exact < share["high"] - share["low"] < 1.2 * 2 * 1.96 * exact
    assert [share["low"], share["high"]] in [[s["low"], s["high"]] for s in found["segments"]]
