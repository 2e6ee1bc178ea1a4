"""A policy learnt from a log, from the charter to a reward: the example charter, on few rows, in a store of its own."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_nb.base.charter import load_charter
from mlops_nb.base.settings import load_settings
from mlops_nb.log.decisions import decisions_of
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.history import History
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog
from mlops_nb.model.sense import check_sense, column_findings
from mlops_nb.registry.loading import load
from mlops_nb.serving.draw import drawn_actions
from mlops_nb.serving.example import OneModel
from mlops_nb.serving.prediction import Predictor
from mlops_nb.serving.service import Service
from mlops_nb.sources.offers import ACTIONS, chance_of_buying, offers, true_value

ROOT = Path(__file__).parents[2]
CHARTER = ROOT / "nbs" / "charters" / "offers.yaml"
pytestmark = pytest.mark.slow


def test_the_charter_makes_sense():
    charter = load_charter(CHARTER)
    assert check_sense(charter) == [] and column_findings(charter, list(offers(50))) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The sampled run, green; its settings."""
    home = tmp_path_factory.mktemp("offers")
    env = {**os.environ, "MLOPS_NB_HOME": str(home), "MLOPS_NB_REPORTS": str(home / "reports")}
    tool = Path(sys.executable).with_name("mlops-nb")
    done = subprocess.run([tool, "run", "--sample", "2000", "--charter", CHARTER], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "phase staging" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert "pass        beats the log" in done.stdout
    return load_settings(ROOT).model_copy(update={"home": home / "sample", "registry_uri": f"sqlite:///{home}/sample/mlflow.db"})


def test_the_intervals_hold_the_truth(place):
    """Of the policy that was judged, which is the one that is released; the truth by customers that nobody has seen."""
    made, people = load(place.registry_uri, "offers", 1), offers(50_000, seed=5)
    real = true_value(made.model.predict_proba(people), people)
    found = made.evidence.evaluation
    for name, span in found.model_extra["off_policy"]["values"].items():
        if name != "as logged":
            assert span["low"] < real < span["high"], name
    gain = real - true_value(np.array([[0.25] * 4] * len(people)), people)
    assert gain > 0.03 and made.evidence.learnt.released == "judged"
    assert made.model.predict_proba(people).min() >= 0.05 / 4 - 1e-12, "every action goes on being tried"


def test_decisions_are_drawn_logged_and_learnt_from(place, tmp_path):
    served, people = Predictor.load(place, "offers", 1).served, offers(3000, seed=6)
    log = PredictionLog(tmp_path)
    service = Service(OneModel(served), log=log)
    rows = served.row_schema.named(people[served.form.names].to_dict("records"))
    drawn, _ = asyncio.run(service.answer(served, rows, drawn=True))
    plain, _ = asyncio.run(service.answer(served, rows[:10]))
    log.flush()
    proba = np.array([list(p.probabilities.values()) for p in drawn])
    assert all(p.propensity == p.probabilities[p.decision] for p in drawn) and all(p.propensity is None for p in plain)
    expected, seen = proba.sum(axis=0), np.array([sum(p.decision == a for p in drawn) for a in ACTIONS])
    assert stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), 3) > 1e-6, (seen, expected)
    kept = History(tmp_path).read(columns=["id", "output"]).to_pylist()[: len(drawn)]
    said = [json.loads(one["output"]) for one in kept]
    again, chance = drawn_actions(np.array([list(s["probabilities"].values()) for s in said]), [one["id"] for one in kept], served.label)
    assert [ACTIONS[k] for k in again] == [s["decision"] for s in said] and chance == [s["propensity"] for s in said], "the log can be checked"
    bought = np.random.default_rng(0).random(len(drawn)) < chance_of_buying(people)[np.arange(len(drawn)), [ACTIONS.index(p.decision) for p in drawn]]
    Feedback(tmp_path).put([Item(p.id, float(b)) for p, b in zip(drawn[:2500], bought, strict=False)], "till")
    found = decisions_of(tmp_path, "", "offers", ("offer", "chance", "bought"))
    assert (len(found.table), found.waiting, found.others) == (2500, 500, 10)
    pd.testing.assert_frame_equal(found.table[served.form.names], people[served.form.names][:2500], check_dtype=False)
    real = true_value(proba[:2500], people[:2500])
    assert abs(found.table.bought.mean() - real) < 4 * np.sqrt(real * (1 - real) / 2500), "what was earned is what the policy is worth"
    log.close()
