"""What a row costs is counted right, and a candidate that costs more than the charter grants isn't chosen."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, ExtraTreesRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.census import census_problem, census_rows
from mlops_nb.model.conform import learn_schema
from mlops_nb.model.ensembles import make_ensemble
from mlops_nb.model.latency import Work, first_quick_enough, micros, work_of
from mlops_nb.stages.ensemble import hold_contest, single_models
from mlops_nb.stages.features import make_recipe


def rows(n=600):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 5))
    return x, np.where(x[:, 0] * x[:, 1] + x[:, 2] + rng.logistic(size=n) > 0, "yes", "no")


def asked_of(tree, x) -> int:
    """An oracle: the questions that rows are asked on their way, one by one."""
    count = 0
    for row in x:
        at = 0
        while not tree.nodes[at]["is_leaf"]:
            node = tree.nodes[at]
            at, count = node["left"] if row[node["feature_idx"]] <= node["num_threshold"] else node["right"], count + 1
    return count


def test_boosting_is_counted_as_it_is_walked():
    x, y = rows()
    model = HistGradientBoostingClassifier(max_iter=12).fit(x, y)
    grown = [group[0] for group in model._predictors]
    found = work_of(model)
    assert found.trees == 12 and found.stored == sum(len(t.nodes) for t in grown)
    assert found.nodes == pytest.approx(sum(asked_of(t, x) for t in grown) / len(x))


def test_ensembles_cost_what_their_parts_do():
    x, y = rows()
    forest, weighted = RandomForestClassifier(10, random_state=0), make_pipeline(StandardScaler(), LogisticRegression())
    stack = make_ensemble("stacking", {"forest": forest, "weighted": weighted}, "binary", cv=3).fit(x, y)
    assert work_of(stack) == work_of(stack.estimators_[0]) + Work(products=5) + Work(products=2)
    assert work_of(stack.estimators_[0]).nodes == pytest.approx(stack.estimators_[0].decision_path(x)[0].sum() / len(x) - 10, rel=0.15)  # it has seen resamples
    curved = CalibratedClassifierCV(forest, cv=3, ensemble=False).fit(x, y)
    assert work_of(curved).trees == 10
    bag = BaggingClassifier(HistGradientBoostingClassifier(max_iter=5), 3, bootstrap=False, random_state=0).fit(x, y)
    assert work_of(bag).trees == 15 and micros(work_of(bag), 5) < micros(work_of(stack), 5)
    assert work_of(ExtraTreesRegressor(7).fit(x, x[:, 0])).trees == 7


@pytest.fixture(scope="module")
def scene():
    people = census_rows(1200)
    frame, others = people.head(900), people.tail(300).reset_index(drop=True)
    tuned = {"folds": 3, "seed": 0, "models": [{"name": "linear", "params": {}}, {"name": "gradient_boosting", "params": {"max_iter": 60, "max_leaf_nodes": 8}}]}

    def contest(latency):
        problem = census_problem(secondary=[]).model_copy(update={"latency": latency})
        return hold_contest(tuned, frame, others, problem, make_recipe(learn_schema(frame, problem), problem))

    return contest


def test_who_is_over_the_charters_latency_is_not_chosen(scene):
    free, bound = scene(None), scene(8.0)
    said = {r["name"]: r for r in bound.candidates}
    assert set(said) == {r["name"] for r in free.candidates}
    assert said[bound.name]["microseconds"] <= 8 and "left_out" not in said[bound.name]
    late = [n for n, r in said.items() if "left_out" in r]
    assert late and all(said[n]["microseconds"] > 8 and not said[n]["better"] and f"{n} takes about" in bound.why for n in late)
    assert "a row may take 8 microseconds (the charter's latency)" in bound.why and len(bound.answers.proba) == 300
    again = scene(8.0)
    assert again.why == bound.why and again.candidates == bound.candidates, "a count, no clock"
    with pytest.raises(MlopsError, match="no candidate answers a row within 1 microseconds, as the charter's latency.*raise latency in the charter"):
        scene(1.0)


def test_a_charter_says_it_and_older_ones_say_what_they_said(tmp_path):
    text = "name: a\ngoal: g\ntask: regression\ntarget: y\nmetric: r2\ndata: {source: x.csv}\n"
    file = Path(tmp_path, "a.yaml")
    file.write_text(text)
    assert load_charter(file).latency is None and "latency" not in load_charter(file).statement()
    file.write_text(text + "latency: 25\n")
    assert load_charter(file).latency == 25 and load_charter(file).statement()["latency"] == 25
    for wrong in ("0", "-3", ".inf", "quick"):
        file.write_text(text + f"latency: {wrong}\n")
        with pytest.raises(MlopsError, match="latency"):
            load_charter(file)


def test_a_larger_memory_costs_more():
    frame = pd.Series([micros(Work(300, 4000.0, stored), 10) for stored in (10_000, 100_000, 1_000_000, 10_000_000)])
    assert frame.is_monotonic_increasing and frame.iloc[-1] < 20 * frame.iloc[0]


def test_a_rule_of_ours_is_no_reason_to_have_no_model():
    """Every single model takes more than ten times what plain boosting takes, and the charter says nothing: the best one is taken."""
    scores, work = {"a": [0.8], "b": [0.9]}, {"a": Work(5000, 60_000.0, 500_000), "b": Work(9000, 90_000.0, 900_000)}

    def best(some, alone):
        return max(some, key=some.get), "the best", [{"name": n, "mean": s[0], "better": False} for n, s in some.items()]

    none = dict.fromkeys(scores, "")
    found = first_quick_enough(scores, ["a", "b"], best, lambda n: SimpleNamespace(work=work[n]), none, lambda: Work(100, 500.0, 6000), 10)
    assert found.name == "b" and found.why == "the best" and all("left_out" not in r and r["microseconds"] > 1000 for r in found.candidates)


def test_who_was_not_tuned_is_asked_where_a_row_may_not_take_long():
    tuned = {"folds": 3, "seed": 0, "models": [{"name": "gradient_boosting", "params": {}}], "others": ["linear"]}
    made = make_recipe(learn_schema(census_rows(200), census_problem()), census_problem())
    usual, every = (single_models(tuned, made, "binary", every=asked) for asked in (False, True))
    assert "linear" not in usual and set(every) == {*usual, "linear"}
