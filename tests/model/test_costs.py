"""What decisions cost is one number everywhere: by row, in evaluation, in experiments, in retraining; of two classes and of several."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from mlops_nb.base.charter import Costs
from mlops_nb.base.errors import MlopsError
from mlops_nb.loop.retraining import Labelled, compare
from mlops_nb.model.decision import costs_of, name_of
from mlops_nb.model.problem import Problem
from mlops_nb.model.rule import with_rule
from mlops_nb.registry.evidence import Evaluation, as_evidence
from mlops_nb.registry.loading import Loaded
from mlops_nb.registry.versions import Version
from mlops_nb.stages.abtest import check_comparable, contributed, figures, is_greater_better
from mlops_nb.stages.evaluate import evaluate
from mlops_nb.stages.ingest import check_target

CLASSES = {"text": ["few", "many", "some"], "numbers": [1.0, 2.0, 10.0]}
prices = st.sampled_from([0.0, 0.5, 1.0, 7.0, 90.0])


def problem(costs: dict, task: str = "multiclass", **more) -> Problem:
    usual = {"name": "shop", "goal": "g", "task": task, "target": "y", "metric": "accuracy", "data": {"source": "x.csv"}, "costs": costs}
    return Problem.model_validate(usual | more)


def by_hand(costs: Costs, true, decided) -> float:
    """What one decision costs, read from the charter as a person reads it."""
    if name_of(true) == name_of(decided):
        return 0.0
    return costs.matrix.get(name_of(true), {}).get(name_of(decided), 1.0)


@given(st.data())
def test_costs_of_several_classes(data):
    classes = data.draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=2, max_size=5, unique=True))
    names = st.sampled_from(classes)
    matrix = data.draw(st.dictionaries(names, st.dictionaries(names, prices, min_size=1), min_size=1))
    costs = Costs(matrix={t: {d: 0.0 if t == d else c for d, c in row.items()} for t, row in matrix.items()})
    rows = data.draw(st.lists(st.tuples(st.integers(0, len(classes) - 1), st.integers(0, len(classes) - 1)), max_size=20))
    found = costs_of([t for t, _ in rows], [d for _, d in rows], costs, classes)
    assert found.tolist() == [by_hand(costs, classes[t], classes[d]) for t, d in rows]


@given(prices, prices, st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_costs_of_two_classes(mistaken, missed, rows):
    found = costs_of(np.array([t for t, _ in rows], bool), np.array([d for _, d in rows], bool), Costs(false_positive=mistaken, false_negative=missed))
    assert found.tolist() == [missed if t and not d else mistaken if d and not t else 0.0 for t, d in rows]


def people(classes: list, n: int = 3000, noise: float = 0.6) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.normal(0, 1, n), "wage": rng.normal(0, 1, n)})
    return rows.assign(y=np.array(classes)[np.digitize(rows.wage + rng.normal(0, noise, n), [-0.7, 0.7])])


def dear(classes: list) -> dict:
    """Taking the last class for the first one is dear; it may be written as the data write it or as answers have it."""
    return {"matrix": {str(classes[2]): {name_of(classes[0]): 90.0}}}


@pytest.mark.parametrize("kind", CLASSES)
def test_evaluation_plan_and_experiment_say_one_cost(kind):
    classes = CLASSES[kind]
    stated, rows = problem(dear(classes)), people(classes)
    check_target(rows, stated)
    assert stated.has_costs and not is_greater_better("cost", stated)
    model = with_rule(LogisticRegression(), classes, costs=stated.costs).fit(rows[["wage"]][:1000], rows.y[:1000])
    test, decided = rows[1000:], model.predict(rows[["wage"]][1000:])
    as_written = Costs(matrix={name_of(classes[2]): {name_of(classes[0]): 90.0}})
    each = np.array([by_hand(as_written, t, d) for t, d in zip(test.y, decided, strict=True)])
    found = json.loads(json.dumps(evaluate(stated, model, test, None, resamples=200)))
    assert found["cost"]["value"] == pytest.approx(each.mean(), abs=1e-6) and found["cost"]["low"] < each.mean() < found["cost"]["high"]
    planned = figures(Evaluation.model_validate(found), "cost", stated)
    assert planned == pytest.approx((each.mean(), each.std(ddof=1), 0.0, False))
    chances = [{name_of(c): float(p) for c, p in zip(classes, line, strict=True)} for line in model.predict_proba(test[["wage"]])]
    plain = [d if isinstance(d, str) else int(d) for d in decided.tolist()]
    answered = pd.DataFrame({"label": [name_of(t) for t in test.y], "decision": plain, "probabilities": chances})
    assert contributed(answered, "cost", stated).tolist() == each.tolist()


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_where_nothing_has_a_cost(task):
    stated, rows = problem({}, task, metric="accuracy" if task == "multiclass" else "mae"), people(CLASSES["text"], 400)
    rows = rows if task == "multiclass" else rows.assign(y=rows.wage)
    model = (LogisticRegression() if task == "multiclass" else LinearRegression()).fit(rows[["wage"]], rows.y)
    assert not stated.has_costs and evaluate(stated, model, rows, None, resamples=100)["cost"] is None
    with pytest.raises(MlopsError, match=f"no metric 'cost' to compare versions of a {task} task by"):
        check_comparable("cost", stated)


def test_two_classes_are_evaluated_by_cost():
    rows = people(["no", "no", "yes"], 1000)
    stated = problem({"false_positive": 1.0, "false_negative": 5.0}, "binary", positive="yes")
    model = LogisticRegression().fit(rows[["wage"]], rows.y)
    found = evaluate(stated, model, rows, 1 / 6, resamples=100)
    assert found["cost"]["value"] == pytest.approx((found["confusion"]["fp"] + 5 * found["confusion"]["fn"]) / 1000, abs=1e-6)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_challenger_whose_mistakes_are_dear_is_not_better(kind):
    """Among several classes as between two: more accurate, and dearer by the charter's matrix."""
    classes = CLASSES[kind]
    stated, rows = problem(dear(classes)), people(classes, noise=1.2)
    form = {"fields": [{"name": "wage", "kind": "number", "nullable": False}], "target": "y", "classes": classes}

    def version_of(number: int, boldness: float) -> Loaded:
        model = LogisticRegression().fit(rows[["wage"]][:1000], rows.y[:1000])
        model.coef_, model.intercept_ = boldness * model.coef_, boldness * model.intercept_
        about = Version(name="shop", version=number, phase="staging", created="2026-11-25", model_digest="", evidence_digest="", mlflow_run="")
        return Loaded(about, model, as_evidence({"problem": stated.model_dump(mode="json"), "schema": form}))

    careful, careless = version_of(1, 1.0), version_of(2, 4.0)  # too sure of itself: a small chance of a dear mistake seems none
    held = rows[1000:].reset_index(drop=True)
    told = Labelled(held[["wage"]], held.y.map(name_of), pd.Series(pd.to_datetime(["2026-01-01"] * 2000, utc=True)), pd.Series(["k"] * 2000))
    found, back = compare(careful, careless, told, 100), compare(careless, careful, told, 100)
    rule = careful.evidence.problem.kind
    decided = [rule.answers(v.model, held[["wage"]], stated).y_pred for v in (careful, careless)]
    as_written = Costs(matrix={name_of(classes[2]): {name_of(classes[0]): 90.0}})
    paid = [np.mean([by_hand(as_written, t, d) for t, d in zip(held.y, y, strict=True)]) for y in decided]
    accuracy = [np.mean(y == held.y) for y in decided]
    assert accuracy[1] > accuracy[0] and paid[1] > paid[0]
    assert (found.verdict, back.verdict) == ("not better", "not better") and "its decisions cost more" in found.said
    saved = [float(re.search(r"its decisions save (\S+) a row", c.said)[1]) for c in (found, back)]
    assert saved == pytest.approx([paid[0] - paid[1], paid[1] - paid[0]], abs=1e-3)


def test_a_matrix_in_which_every_mistake_is_free_is_refused():
    rows = people(CLASSES["text"], 60)
    free = {t: {d: 0.0 for d in CLASSES["text"] if d != t} for t in CLASSES["text"]}
    with pytest.raises(MlopsError, match="the matrix makes every mistake free.*give at least one a cost"):
        check_target(rows, problem({"matrix": free}))
    check_target(rows, problem({"matrix": free | {"few": {"many": 0.0}}}))  # few for some costs 1, as it isn't named
