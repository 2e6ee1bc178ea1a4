"""Decisions by weights: best for the metric on rows that nobody has seen, and no worse than the most probable class where rows say little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, matthews_corrcoef

from mlops_nb.base.charter import Costs
from mlops_nb.model.decision import Decision, cost_matrix, cost_threshold, least_cost, name_of, prices
from mlops_nb.model.metrics import METRICS, Metric
from mlops_nb.model.problem import Problem
from mlops_nb.model.tasks.task import Answers
from mlops_nb.model.threshold import choose_threshold, threshold_costs
from mlops_nb.model.weights import balancing, choose_weights, searched, weighed

SCORE = {"balanced_accuracy": balanced_accuracy_score, "f1_macro": lambda y, d: f1_score(y, d, average="macro"), "f1": f1_score, "matthews_corrcoef": matthews_corrcoef, "cohen_kappa": cohen_kappa_score}


def problem(metric: str, task: str = "multiclass", **more) -> Problem:
    usual = {"name": "shop", "goal": "g", "task": task, "target": "y", "metric": metric, "data": {"source": "x.csv"}}
    return Problem.model_validate(usual | ({"positive": "1"} if task == "binary" else {}) | more)


def drawn(seed: int, n: int, shares: list[float], spread: float = 1.3):
    """Chances that are right, and what happens by them."""
    rng = np.random.default_rng(seed)
    proba = softmax(np.log(shares) + rng.normal(0, spread, (n, len(shares))), axis=1)
    return proba, (rng.random((n, 1)) > np.cumsum(proba, axis=1)[:, :-1]).sum(axis=1)


def decided(asked: Problem, proba, classes, weights):
    by = asked.weighed(weights)
    return by.kind.decided(proba, classes, by).y_pred


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1_macro", "matthews_corrcoef", "cohen_kappa"])
@pytest.mark.parametrize("shares", [[0.8, 0.15, 0.05], [0.4, 0.3, 0.15, 0.1, 0.05], [0.5, 0.2, 0.1, 0.08, 0.06, 0.03, 0.02, 0.01]])
def test_fresh_rows_are_decided_better(metric, shares):
    """Chosen on 200 rows; what is gained on 20,000 others is sure."""
    classes, gains = list(range(len(shares))), []
    for seed in range(5):
        proba, y = drawn(seed, 20_200, shares)
        asked = weighed(problem(metric), y[:200])
        weights, why = choose_weights(y[:200], Answers(proba[:200], None, classes), asked)
        before, after = (SCORE[metric](y[200:], decided(asked, proba[200:], classes, w)) for w in (None, weights))
        gains.append(after - before)
        assert weights is None or f"weights chosen for {metric}" in why
    least = 0.01 if metric in ("balanced_accuracy", "f1_macro") else 0.003  # agreement asks less for rare classes
    assert min(gains) > -0.005 and np.mean(gains) > least


@given(st.lists(st.integers(1, 400), min_size=2, max_size=9), st.integers(0, 1000))
def test_balancing_is_the_cheapest_where_a_class_costs_by_its_share(counts, seed):
    """An oracle: Elkan's least expected cost, where mistaking a class costs one over its share."""
    y = np.repeat(np.arange(len(counts)), counts)
    weights = balancing(y)
    proba = np.random.default_rng(seed).dirichlet(np.ones(len(counts)), 50)
    matrix = {name_of(k): {name_of(j): weights[name_of(k)] for j in range(len(counts)) if j != k} for k in range(len(counts))}
    by_cost = least_cost(proba, cost_matrix(Costs(matrix=matrix), range(len(counts))))
    assert (Decision(range(len(counts)), weights=weights).chosen(proba) == by_cost).all()
    assert np.mean([weights[name_of(k)] for k in y]) == pytest.approx(1)
    half = balancing(y, 0.5)
    assert np.mean([half[name_of(k)] for k in y]) == pytest.approx(1) and half["0"] / half["1"] == pytest.approx((counts[1] / counts[0]) ** 0.5)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "matthews_corrcoef", "cohen_kappa"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.85])
def test_between_two_classes_the_threshold_is_the_metrics(metric, share):
    proba, y = drawn(3, 41_500, [1 - share, share])
    chance, y = proba[:, 1], y == 1
    asked = weighed(problem(metric, "binary"), y[:1500])
    asked = asked.weighed(choose_weights(y[:1500], Answers(chance[:1500], None, [False, True]), asked)[0])
    cut, why = choose_threshold(threshold_costs(y[:1500], chance[:1500], asked), asked)
    grid = np.linspace(0.02, 0.98, 97)
    scores = [SCORE[metric](y[1500:], chance[1500:] >= t) for t in grid]
    assert SCORE[metric](y[1500:], chance[1500:] >= cut) > max(scores) - 0.015 and metric in why
    if metric == "balanced_accuracy":
        assert cost_threshold(prices(asked)) == pytest.approx(y[:1500].mean())


def test_costs_go_first():
    y, classes = np.repeat(["a", "b"], [90, 10]), ["a", "b"]
    priced = problem("balanced_accuracy", costs={"matrix": {"b": {"a": 3.0}}})
    two = problem("f1", "binary", costs={"false_positive": 1, "false_negative": 2})
    for asked in (priced, two, problem("accuracy"), problem("log_loss"), problem("recall", "binary"), problem("mae", "regression")):
        assert asked.decides_for is None and weighed(asked, y).class_weights is None
    assert choose_weights(y, Answers(np.full((100, 2), 0.5), None, classes), priced) == (None, "")
    assert Decision(classes, costs=priced.costs, weights={"a": 9.0}).weights is None


def test_few_rows_and_many_classes():
    asked, classes = problem("balanced_accuracy"), [f"c{k:02}" for k in range(100)]
    proba, y = drawn(0, 3000, np.full(100, 0.01).tolist())
    labels = np.array(classes)[y]
    known = weighed(asked, labels)
    for rows in (slice(0, 1), slice(0, 19)):  # one validation row; most classes have none
        weights, why = choose_weights(labels[rows], Answers(proba[rows], None, classes), known)
        assert weights == known.class_weights and "and 88 more" in why and len(why) < 400
    found = searched(Answers(proba[:500], None, classes), problem("f1_macro"), "f1_macro")
    assert len(found) == 100 and all(np.isfinite(w) and w > 0 for w in found.values())
    assert Decision([*classes, "new"], weights=found).weights[-1] == 1  # a class that no row had


def test_a_class_that_is_never_right_is_not_picked_for_good():
    """Probabilities that are wrong about the rare class: its weight would pick it, and it is never it."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [500, 480, 20])
    proba = np.column_stack([np.where(y == 0, 0.6, 0.25), np.where(y == 1, 0.6, 0.25), np.where(y == 2, 0.01, 0.15)]) + rng.uniform(0, 0.02, (1000, 3))
    proba /= proba.sum(axis=1, keepdims=True)
    weights, why = choose_weights(y, Answers(proba, None, [0, 1, 2]), weighed(problem("balanced_accuracy"), y))
    assert weights is None and why.startswith("decides for the most probable class") and "more is lost than noise" in why


def of(function, **how) -> Metric:
    return Metric(lambda y_true, y_pred, classes=None: function(y_true, y_pred), True, "decision", -1, 1, "0 is guessing", **how)


@pytest.mark.parametrize("function", [cohen_kappa_score, matthews_corrcoef])
def test_a_metric_of_a_projects_own(function, monkeypatch):
    """As for accuracy, and a note says so; searched where its entry asks for that."""
    shares, classes = [0.85, 0.1, 0.05], [0, 1, 2]
    proba, y = drawn(1, 20_300, shares)
    said = Answers(proba[:300], None, classes)
    for own, asks in ((of(function), False), (of(function, decide="searched"), True)):
        monkeypatch.setitem(METRICS["multiclass"], "mine", own)
        asked = weighed(problem("mine"), y[:300])
        weights, why = choose_weights(y[:300], said, asked)
        if asks:
            before, after = (function(y[300:], decided(asked, proba[300:], classes, w)) for w in (None, weights))
            assert after > before + 0.01 and "weights chosen for mine on 300 validation rows" in why
        else:
            assert weights is None and 'decide="searched"' in why


@pytest.mark.parametrize("metric", ["f1", "matthews_corrcoef", "cohen_kappa"])
def test_candidates_are_compared_as_they_will_decide(metric):
    """Who ranks better wins, though nobody is more probable than not: its threshold is still to come."""
    right = {"half": 0, "picks": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z = rng.normal(-3, 1.2, 6_000)
        y = rng.random(6_000) < expit(z)
        bold = 3 * (z + rng.normal(0, 1.0, 6_000) + 1.5)  # ranks worse, and is never unsure
        said = {"calm": expit(z + rng.normal(0, 0.3, 6_000)), "bold": expit(bold)}
        fresh = {n: max(SCORE[metric](y[1000:], p[1000:] >= cut) for cut in np.quantile(p, np.linspace(0.5, 0.99, 25))) for n, p in said.items()}
        asked = {"half": problem(metric, "binary"), "picks": weighed(problem(metric, "binary"), y[:1000])}
        for how, by in asked.items():
            score = {n: SCORE[metric](y[:1000], by.kind.decided(p[:1000], [False, True], by).y_pred) for n, p in said.items()}
            right[how] += max(score, key=score.get) == max(fresh, key=fresh.get)
    assert right["picks"] >= 17 and right["half"] <= 10


def test_a_share_is_picked_until_weights_are_settled():
    """As many rows as are positive, and those that say the same as the last of them; a threshold that is given counts more."""
    y, given = np.arange(10) < 3, np.array([0.1, 0.4, 0.4, 0.05, 0.3, 0.2, 0.02, 0.4, 0.01, 0.2])
    asked = weighed(problem("f1", "binary"), y)

    def decide(by, **how):
        return by.kind.decided(given, [False, True], by, **how).y_pred.sum()

    assert asked.picks == pytest.approx(0.3) and decide(asked) == 3 and decide(asked, threshold=0.25) == 4
    assert decide(weighed(problem("f1", "binary"), np.arange(10) < 4)) == 4 and decide(asked.weighed(None, picks=0.1)) == 3
    assert asked.weighed({"false": 0.2, "true": 0.8}).picks is None and decide(asked.weighed({"false": 0.2, "true": 0.8})) == 6
    assert weighed(problem("f1", "binary", costs={"false_negative": 5}), y).picks is None  # costs say where
    assert weighed(problem("roc_auc", "binary"), y).picks is None and asked.model_dump() == problem("f1", "binary").model_dump()


@pytest.mark.parametrize(("given", "share", "picked"), [
    ([0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.1], 0.2, 1),  # the tie holds most rows: none of it
    ([0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.1], 0.7, 9),  # all of it
    ([0.5] * 10, 0.3, 10),  # nothing tells rows apart
    ([], 0.3, 0),
])  # fmt: skip
def test_of_a_tie_the_side_nearest_to_the_share_is_picked(given, share, picked):
    asked = problem("f1", "binary").weighed(None, picks=share)
    assert asked.kind.decided(np.array(given), [False, True], asked).y_pred.sum() == picked
