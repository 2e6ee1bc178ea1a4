"""A bandit's experiment counts rewards of what was drawn, and nothing else."""

import json

import numpy as np
import pandas as pd
import pytest

from mlops_nb.model.problem import Problem
from mlops_nb.log.assignment import Experiment, ExperimentPlan, assign
from mlops_nb.stages.abtest import conclude

TEST = Experiment("b", "shop", {"control": 1, "new": 2}, {"control": 0.5, "new": 0.5}, "salt", ExperimentPlan("value", 0.05, 500, 500, mode="sequential"), started="2026-11-01T00:00:00Z")
OFFERS = Problem(name="shop", goal="g", task="bandit", target="offer", metric="value", reward="paid", propensity="chance", data={"source": "x.csv"})


@pytest.mark.parametrize("name", ["1", "green"])
def test_a_label_of_what_was_not_drawn_is_no_reward(name):
    """Each unit is asked first without a draw, and told an action's name, or a number that is one."""
    rng, n = np.random.default_rng(0), 1500
    arms = np.array([assign(TEST, f"c-{i}") for i in range(n)])
    time = pd.Timestamp("2026-11-02", tz="UTC") + pd.to_timedelta(np.arange(n), "min")
    said = json.dumps({"decision": "1", "propensity": 0.5})
    drawn = pd.DataFrame({"id": [f"d{i}" for i in range(n)], "time": time, "model": "shop", "version": [TEST.arms[a] for a in arms], "arm": arms, "subject": [f"c-{i}" for i in range(n)], "output": said, "latency": 0.002})
    asked = drawn.assign(id=[f"a{i}" for i in range(n)], time=time - pd.Timedelta(seconds=5), output=json.dumps({"decision": "1"}))
    paid = rng.random(n) + 0.5 * (arms == "new")
    rewards, names = dict(zip(drawn["id"], map(repr, paid.tolist()), strict=True)), dict.fromkeys(asked["id"], name)
    alone, beside = conclude(TEST, drawn, rewards, OFFERS), conclude(TEST, pd.concat([asked, drawn]), rewards | names, OFFERS)
    assert beside.units.equals(alone.units) and beside.verdict == alone.verdict and beside.counts["labelled"] == n
    assert beside.units.groupby("arm")["value"].mean()["new"] == pytest.approx(paid[arms == "new"].mean())
    assert conclude(TEST, asked, names, OFFERS).units.empty
