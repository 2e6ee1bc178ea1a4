"""From people's decisions to the registry's phase: fair models are let through, unfair ones are not, and what the rows can't say is a person's."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_nb.base.charter import FairnessRule, Sensitive
from mlops_nb.model.census import census_problem
from mlops_nb.stages.fairness import audit, audit_groups, check_rules, data_bias, decision_measures
from mlops_nb.stages.register import gate_list, phase_of

RULES = [
    FairnessRule(metric="equal_opportunity_ratio", by="who", at_least=0.8, gate=True),
    FairnessRule(metric="equal_opportunity_difference", by="who", at_most=0.1, gate=True),
    FairnessRule(metric="equalized_odds_ratio", by="who", at_least=0.8, gate=True),
]


def judged(found: list[float], positives: int, seed: int, rules: list[FairnessRule] = RULES) -> list[dict]:
    """Rules about groups of whose positives such shares are found, and a tenth of as many others by mistake."""
    rng, k = np.random.default_rng(seed), len(found)
    codes, real = np.tile(np.repeat(np.arange(k), positives), 2), np.repeat([True, False], k * positives)
    picked = rng.random(len(codes)) < np.where(real, np.array(found)[codes], 0.1)
    by = audit_groups(decision_measures(real, picked), codes, [f"g{i}" for i in range(k)], min_group=50, resamples=400, seed=seed)
    return check_rules(rules, {"who": by}, "yes")


@pytest.mark.parametrize("count", [pytest.param(25, id="few"), pytest.param(400, id="full", marks=pytest.mark.deep)])
@pytest.mark.parametrize(("groups", "positives"), [(2, 50), (5, 250), (20, 50), (20, 250)])
def test_fair_models_are_not_rejected(groups, positives, count):
    done = [phase_of(gate_list({}, {"rules": judged([0.7] * groups, positives, i)}))[0] for i in range(count)]
    assert stats.binom.sf(done.count("rejected") - 1, count, 0.05) > 1e-4, "of three gates together"


@pytest.mark.parametrize("count", [pytest.param(20, id="few"), pytest.param(400, id="full", marks=pytest.mark.deep)])
@pytest.mark.parametrize("groups", [2, 10])
def test_unfair_models_are_rejected(groups, count):
    done = [phase_of(gate_list({}, {"rules": judged([0.42] + [0.7] * (groups - 1), 500, i, RULES[:1])}))[0] for i in range(count)]
    assert stats.binom.cdf(done.count("rejected"), count, 0.8) > 1e-4 and done.count("rejected") > count / 2


@pytest.mark.parametrize(("undecided", "phase"), [("person", "staging"), ("accept", "staging"), ("reject", "rejected")])
def test_what_the_rows_cannot_say(undecided, phase):
    rules = [r.model_copy(update={"undecided": undecided}) for r in RULES[:1]]
    told = judged([0.7, 0.6], 60, 0, rules)
    assert not told[0]["sure"] and "cannot say" in told[0]["message"]
    done = phase_of(gate_list({}, {"rules": told}))
    assert done[0] == phase and ("a person decides: equal_opportunity_ratio by who" in done[1]) == (undecided == "person")


def test_rows_of_a_person_count_once():
    """Ten copies of each row make nothing surer, when the charter says whose they are."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"sex": rng.choice(["Female", "Male"], 400), "age": rng.integers(20, 60, 400), "who": np.arange(400)})
    rows["income"] = np.where(rng.random(400) < np.where(rows["sex"] == "Male", 0.5, 0.35), ">50K", "<=50K")

    class Guess:
        classes_ = np.array(["<=50K", ">50K"])
        feature_names_in_ = np.array(["age"])

        def predict_proba(self, given: pd.DataFrame) -> np.ndarray:
            share = (given["age"].to_numpy() % 10) / 10
            return np.column_stack([1 - share, share])

    problem = census_problem(sensitive=[Sensitive(name="sex", column="sex")], fairness=[])
    often = pd.concat([rows] * 10, ignore_index=True)
    once, tenfold, known = (audit(problem, Guess(), r, 0.5, resamples=300, units=g)["by"]["sex"] for r, g in ((rows, None), (often, None), (often, often["who"].to_numpy())))
    width = [a["metrics"]["demographic_parity_difference"]["high"] - a["metrics"]["demographic_parity_difference"]["value"] for a in (once, tenfold, known)]
    assert width[2] == pytest.approx(width[0], rel=0.05) and width[1] < 0.5 * width[0]
    assert known["groups"]["Male"]["selection_rate"]["worth"] == pytest.approx(once["groups"]["Male"]["n"], rel=0.02)


def test_the_rows_are_asked_as_well():
    """Who is missing, whose values are missing, and what gives the group away."""
    rng = np.random.default_rng(1)
    female = rng.random(3000) < 0.3
    rows = pd.DataFrame({"sex": np.where(female, "Female", "Male"), "age": rng.integers(20, 60, 3000).astype(float), "height": rng.normal(np.where(female, 165, 178), 7)})
    rows["income"] = np.where(rng.random(3000) < np.where(female, 0.1, 0.3), ">50K", "<=50K")
    rows.loc[female & (rng.random(3000) < 0.3), "age"] = np.nan
    problem = census_problem(sensitive=[Sensitive(name="sex", column="sex", population={"Female": 0.5, "Male": 0.5})], fairness=[])
    found = data_bias(problem, rows, resamples=300)["sex"]
    assert found["representation"]["off"] == ["Female", "Male"] and found["labels"]["difference"]["low"] > 0.1
    assert list(found["missing"]) == ["age"] and [p["column"] for p in found["proxies"]][0] == "height"
    assert len(found["said"]) == 6 and "The model itself reads the column." in found["said"]
