"""What the errors of numbers show on test rows: people have many rows, in time or not."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from mlops_nb.model.problem import Problem
from mlops_nb.stages.evaluate import errors_shown


def asked(metric: str) -> Problem:
    return Problem.model_validate({"name": "x", "goal": "g", "task": "regression", "target": "y", "metric": metric, "data": {"source": "a.csv"}})


def people(seed: int, together: float = 1.0) -> tuple[pd.DataFrame, np.ndarray]:
    """200 people with 6 rows each, in any order; x is each person's own and says nothing about y."""
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(200), 6)[rng.permutation(1200)]
    rows = pd.DataFrame({"x": rng.normal(size=200)[units], "z": rng.normal(size=1200)})
    return rows.assign(y=rows["z"] + together * rng.normal(size=200)[units] + 0.3 * rng.normal(size=1200)), units


def fitted() -> LinearRegression:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(5000, 2)), columns=["x", "z"])
    return LinearRegression().fit(rows, rows["z"] + rng.normal(size=5000))


@pytest.mark.parametrize("in_time", [True, False])
def test_rows_of_one_person_make_no_finding(in_time):
    """At 1% for all sentences together: of 60 seeds, 4 or more come by chance once in 300 (binomial); of all rows nearly each had one."""
    model, told = fitted(), []
    for seed in range(60):
        rows, units = people(seed)
        shown = errors_shown(model, rows, asked("rmse"), units, np.arange(1200) if in_time else None)
        told.append(bool([f for f in shown if f["name"] != "time"]))
    assert sum(told) < 4


def test_all_rows_of_people_are_asked_about_time():
    """Errors that follow each other are found, in the order of the moments and not of the table."""
    model, (rows, units) = fitted(), people(0, together=0.0)
    rng = np.random.default_rng(1)
    rows["y"] = rows["z"] + np.convolve(rng.normal(size=1201), [1, 0.6], "valid")
    mixed = rng.permutation(1200)
    shown = errors_shown(model, rows.iloc[mixed].reset_index(drop=True), asked("rmse"), units[mixed], mixed)
    assert [f["name"] for f in shown] == ["time"]


@pytest.mark.parametrize("metric, leans", [("rmse", True), ("mae", True), ("mape", False)])
def test_leaning_is_judged_by_what_the_metric_rewards(metric, leans):
    """Half the median is the best by mape of these rows (e to the power of -0.8 squared): too little for means and medians, no fault there."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"x": rng.normal(size=3000)}).assign(y=np.exp(rng.normal(0, 0.8, 3000)))
    model = LinearRegression().fit(rows[["x"]], np.full(3000, np.exp(-0.64)))
    assert ("lean" in [f["name"] for f in errors_shown(model, rows, asked(metric))]) is leans
