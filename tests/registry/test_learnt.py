"""Which rows a version learnt from, and which judged it: typed, in a sentence, and read from evidence of former days."""

import numpy as np
import pandas as pd
from mlops_nb.model.policies import Thompson
from mlops_nb.model.problem import Problem
from mlops_nb.stages.register import release
from pathlib import Path

import pytest

from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.client import mlflow_client
from mlops_nb.registry.evidence import Evidence, Learnt, as_evidence, load_evidence
from mlops_nb.registry.example import fitted, proofs_of
from mlops_nb.registry.files import read_evidence
from mlops_nb.registry.registration import register

KEPT = sorted((Path(__file__).parents[1] / "kept").glob("[0-9]*/evidence.json"))
TWIN = Learnt(released="all", rows=2000, rows_judged=1600, rows_test=400, differ=0.01, worse=-3.0)


@pytest.mark.parametrize("file", KEPT, ids=[f.parent.name for f in KEPT])
def test_what_was_registered_before_is_what_was_judged(file):
    found = load_evidence(file.read_bytes(), "kept/1")
    assert "learnt" not in found.content() and found.learnt == Learnt()
    assert (found.learnt.released, found.learnt.rows, found.learnt.said) == ("judged", None, "released as it was judged")


def test_it_is_written_read_and_told(tmp_path):
    uri, model = f"sqlite:///{tmp_path}/mlflow.db", fitted(1.0)
    made = register(uri, "income", model, proofs_of(model) | {"learnt": TWIN, "digests": {"model": "ab" * 32}}, "staging")
    found = read_evidence(uri, made)
    assert found.learnt == TWIN and found.digests["model"] == "ab" * 32 != made.model_digest
    said = "judged as fitted on 1,600 rows; released fitted on all 2,000 by the same recipe"
    assert found.learnt.said == mlflow_client(uri).get_model_version("income", "1").description == said
    assert register(uri, "income", model, found.content(), "staging").version == 1, "the same content is the same version"


@pytest.mark.parametrize(("learnt", "place"), [({"released": "some"}, "learnt.released"), ({"rows": "many"}, "learnt.rows"), (7, "learnt")])
def test_what_it_can_t_be_is_a_sentence(learnt, place):
    with pytest.raises(MlopsError, match=f"can't be read at {place}: .*register the version again"):
        as_evidence({"learnt": learnt}, "income/3")


def test_a_newer_program_may_say_more():
    assert as_evidence({"learnt": {"released": "all", "rows": 3, "folds": 5}}).content()["learnt"]["folds"] == 5
    assert Evidence(learnt=Learnt(rows=5, rows_judged=5)).learnt.said == "judged and released as fitted on 5 rows"


def test_a_bandits_released_policy_is_the_one_whose_value_is_known():
    rng, n = np.random.default_rng(0), 600
    rows = pd.DataFrame({"x": rng.normal(size=n), "a": rng.choice(["a", "b"], n), "p": 0.5, "r": rng.random(n)})
    asked = Problem(name="x", goal="g", task="bandit", target="a", metric="value", reward="r", propensity="p", data={"source": "a.csv"})
    policy = Thompson().fit(rows[["x"]], rows["a"], reward=rows["r"].to_numpy(), propensity=rows["p"].to_numpy())
    parts = {"train": rows[:300], "valid": rows[300:400], "test": rows[400:].reset_index(drop=True)}
    shipped, learnt = release(policy, parts, pd.DataFrame(), rows[["x"]][:3], asked)
    assert shipped is policy and learnt.said == "judged and released as fitted on 400 rows" and learnt.rows_test == 200
