"""One table of metrics: what is computed in two ways is equal, and a new entry alone is a metric everywhere."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import fbeta_score, matthews_corrcoef

from mlops_nb.base.charter import Monitoring
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.metrics import METRICS, Metric, metric_value
from mlops_nb.model.problem import Problem, check_problem
from mlops_nb.monitoring.quality import quality_of
from mlops_nb.monitoring.shop import NOON, open_shop
from mlops_nb.model.tasks import known as tasks
from mlops_nb.model.tasks.binary import Binary
from mlops_nb.model.tasks.known import task_of
from mlops_nb.loop.retraining import Labelled, compare
from mlops_nb.registry.evidence import Evaluation, Span, as_evidence
from mlops_nb.registry.loading import Loaded
from mlops_nb.registry.versions import Version
from mlops_nb.monitoring.windows import part_of, window_at, window_of
from mlops_nb.model.intervals import estimates
from mlops_nb.stages.abtest import check_comparable, contributed, figures, plan
from mlops_nb.stages.evaluate import evaluate_binary
from mlops_nb.stages.train import Answers, scores_of
from mlops_nb.stats.influence import MEASURES
from mlops_nb.stats.quality import realised

ROWS = 400


def answered(task: str, seed: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """y_true, proba and y_pred of rows that were answered better than by chance."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        y_true = rng.normal(10, 3, ROWS)
        return y_true, None, y_true + rng.normal(0, 1, ROWS)
    classes = 2 if task == "binary" else 3
    y_true = rng.integers(0, classes, ROWS)
    proba = rng.dirichlet(np.ones(classes), ROWS) * 0.7 + 0.3 * np.eye(classes)[y_true]
    return (y_true == 1, proba[:, 1], proba[:, 1] > 0.4) if task == "binary" else (y_true, proba, proba.argmax(axis=1))


#: Tasks whose figures aren't computed from y_true and answers of rows: off-policy, of rows that nobody labelled, of episodes.
OTHERS = ("bandit", "clustering", "control")
OF_LABELS = [task for task in METRICS if task not in OTHERS]


def test_a_figure_that_is_none_of_labels_is_none_here():
    """Nothing is said of rows' labels by those tasks' own metrics: a bandit's is a mean of rewards, a clustering's refuse, the others have no value."""
    assert {"binary", "multiclass", "regression"} <= set(OF_LABELS)
    paid = np.array([0.0, 1.0, 1.0, 0.0])
    assert METRICS["bandit"]["value"].compute(paid, None) == 0.5
    for task in OTHERS:
        for name, metric in task_of(task).metrics.items():
            if task == "clustering":
                with pytest.raises(MlopsError):
                    metric.compute(paid, paid)
            elif name not in METRICS["multiclass"] and name != "value":
                assert np.isnan(metric.compute(paid, paid)), (task, name)


@pytest.mark.parametrize("task", OF_LABELS)
@pytest.mark.parametrize("seed", range(5))
def test_evaluation_and_monitoring_compute_what_the_table_says(task, seed):
    y_true, proba, y_pred = answered(task, seed)
    classes = range(3) if task == "multiclass" else None
    table = {name: metric_value(name, y_true, proba, y_pred, classes) for name in METRICS[task]}
    said = Answers(proba, y_pred, None if classes is None else list(classes))
    quick = {name: e.value for name, e in estimates(task_of(task), y_true, said).items()}
    seen = {name: e.value for name, e in realised(y_true, proba, y_pred, target_type=task_of(task).target_type, classes=classes).items()}
    assert set(table) == set(quick) == set(seen) == set(MEASURES[task_of(task).target_type])
    assert quick == pytest.approx(table, rel=1e-9) and seen == pytest.approx(table, rel=1e-9)


@pytest.fixture
def matthews(monkeypatch):
    """A metric that nobody knows but the table."""
    metric = Metric(lambda y_true, given, classes=None: matthews_corrcoef(y_true, given), True, "decision", -1, 1, "correlation of decisions and truth; 0 is guessing")
    monkeypatch.setitem(METRICS["binary"], "mcc", metric)
    return metric


def test_a_new_entry_is_a_metric_everywhere(matthews, tmp_path):
    shop = open_shop(tmp_path)
    charter = shop.evidence.problem.model_dump(exclude={"sensitive"}) | {"metric": "mcc", "success": [{"metric": "mcc", "at_least": 0.2, "reason": "or it isn't worth it"}]}
    stated = Problem.model_validate(check_problem(charter))
    assert stated.greater_is_better
    y_true, proba, y_pred = answered("binary", 0)
    known = matthews_corrcoef(y_true, y_pred)
    assert scores_of(Answers(proba, y_pred, [False, True]), y_true, stated) == {"mcc": pytest.approx(known)}
    found = evaluate_binary(stated, y_true, proba, 0.4, resamples=200, bins=5, seed=0)
    assert found["metrics"]["mcc"]["value"] == pytest.approx(known, abs=1e-6) and found["metrics"]["mcc"]["low"] < known < found["metrics"]["mcc"]["high"]
    assert [c["passed"] for c in found["criteria"]] == [True]
    content = shop.evidence.content()
    evidence = as_evidence(content | {"problem": stated.model_dump(mode="json"), "evaluation": content["evaluation"] | {"metrics": {"mcc": {"value": 0.9, "low": 0.88, "high": 0.92}}}})
    part = part_of(window_of(shop.place, "shop", *window_at(NOON, "hour")), 1, evidence)
    quality = quality_of(part, evidence, Monitoring(min_rows=200, min_labels=100))
    real = matthews_corrcoef(part.y_true, part.y_pred[part.known])
    assert quality["realised"]["mcc"]["value"] == pytest.approx(real, abs=1e-6) and quality["realised"]["mcc"]["low"] < real < quality["realised"]["mcc"]["high"]
    assert quality["p"]["quality"] < 1e-6, "0.9 was promised"


def test_its_interval_covers(matthews):
    """The bootstrap's interval of a metric that only has its definition holds the truth about as often as it says."""
    rng, hits, trials = np.random.default_rng(0), 0, 60
    y, s = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    cells, truth = np.array([0.4, 0.1, 0.15, 0.35]), None
    truth = (cells[3] * cells[0] - cells[1] * cells[2]) / np.sqrt(0.45 * 0.5 * 0.5 * 0.55)
    for trial in range(trials):
        at = rng.choice(4, 300, p=cells)
        stated = Problem.model_validate({"name": "a", "goal": "g", "task": "binary", "target": "t", "positive": "1", "metric": "mcc", "data": {"source": "x.csv"}})
        found = evaluate_binary(stated, y[at] == 1, np.where(s[at] == 1, 0.9, 0.1), 0.5, resamples=200, bins=2, seed=trial)["metrics"]["mcc"]
        hits += found["low"] <= truth <= found["high"]
    assert hits >= 50  # of 60 at 95%: 57 are expected, fewer than 50 have a chance of 1 in 5,800


def test_a_metric_that_is_none_is_a_sentence():
    with pytest.raises(Exception, match="no metric 'roc_acu'; did you mean 'roc_auc'"):
        metric_value("roc_acu", np.array([True, False]), np.array([0.1, 0.2]))


def gained(y_true, given, classes=None):
    """What each decision is worth: finding one five times what leaving one alone is."""
    return np.where(np.asarray(y_true, bool), 5.0 * np.asarray(given, bool), ~np.asarray(given, bool))


class Gains(Binary):
    """A task whose metrics have names of the table's and functions of their own, one of them by row."""

    name, meaning = "gains", "whom to call"
    metrics = {
        "roc_auc": METRICS["binary"]["roc_auc"],
        "f1": Metric(lambda y_true, given, classes=None: fbeta_score(y_true, given, beta=3), True, "decision", 0, 1, "recall counts more"),
        "accuracy": Metric(lambda y_true, given, classes=None: float(gained(y_true, given).mean()), True, "decision", 0, 5, "mean gain", gained),
    }


@pytest.fixture
def gains(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", tasks.TASKS | {"gains": Gains()})
    return lambda metric, **more: {"name": "shop", "goal": "g", "task": "gains", "target": "buys", "positive": "yes", "metric": metric, "data": {"source": "x.csv"}} | more


def own(y_true, y_pred) -> dict[str, float]:
    return {"f1": fbeta_score(y_true, y_pred, beta=3), "accuracy": gained(y_true, y_pred).mean()}


def test_a_name_of_the_tables_is_not_its_definition(gains):
    """Evaluation and experiments ask the task's own function, whatever it is called."""
    stated = Problem.model_validate(gains("f1"))
    y_true, proba, y_pred = answered("binary", 0)
    found = evaluate_binary(stated, y_true, proba, 0.4, resamples=100, bins=5, seed=0)["metrics"]
    assert {name: found[name]["value"] for name in ("f1", "accuracy")} == pytest.approx(own(y_true, y_pred), abs=1e-6)
    assert all(found[name]["low"] < found[name]["value"] < found[name]["high"] for name in found)
    rows = pd.DataFrame({"label": np.where(y_true, "yes", "no"), "decision": np.where(y_pred, "yes", "no"), "probability": proba})
    assert contributed(rows, "accuracy", stated).mean() == pytest.approx(own(y_true, y_pred)["accuracy"])
    with pytest.raises(MlopsError, match="can't be compared by f1: .* a gains task's can be compared by roc_auc, accuracy, cost"):
        check_comparable("f1", stated)
    planned = figures(Evaluation.model_validate({"n": ROWS, "metrics": found}), "accuracy", stated)
    assert planned.value > 1 and not planned.share and planned.sd > 0.5 and planned.best == 5, "no share of rows"


def test_monitoring_asks_the_tasks_own_function(gains, tmp_path):
    shop = open_shop(tmp_path)
    content = shop.evidence.content()
    tested = {"metrics": {"f1": {"value": 0.99, "low": 0.98, "high": 1.0}}, "n": 1000, "threshold": 0.5, "said": [0.2, 0.5, 0.8]}
    evidence = as_evidence(content | {"problem": gains("f1"), "evaluation": tested})
    part = part_of(window_of(shop.place, "shop", *window_at(NOON, "hour")), 1, evidence)
    quality = quality_of(part, evidence, Monitoring(min_rows=200, min_labels=100))
    real, picked = part.y_true, part.y_pred[part.known]
    for name, value in own(real, picked).items():
        seen = quality["realised"][name]
        assert seen["value"] == pytest.approx(value, abs=1e-6) and seen["low"] < value < seen["high"], name
    spread = gained(real, picked).std(ddof=1) / np.sqrt(len(real))
    assert quality["realised"]["accuracy"]["error"] == pytest.approx(spread, abs=1e-6), "by row, as the metric says it"
    assert set(quality["estimated"]) == {"roc_auc"} and quality["p"]["estimated"] is None, "nothing is known of the others before labels come"
    assert quality["p"]["quality"] < 1e-3, "0.99 was promised"


@pytest.mark.parametrize("metric", ["f1", "accuracy"])
def test_retraining_compares_by_the_tasks_own_function(gains, metric):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.normal(0, 1, 3000), "wage": rng.normal(0, 1, 3000)})
    buys = np.where(rows.wage + rng.normal(0, 0.5, 3000) > 0.5, "yes", "no")

    def version_of(number: int, column: str) -> Loaded:
        form = {"fields": [{"name": column, "kind": "number", "nullable": False}], "target": "buys", "classes": ["no", "yes"]}
        about = Version(name="shop", version=number, phase="staging", created="2026-11-25", model_digest="", evidence_digest="", mlflow_run="")
        return Loaded(about, LogisticRegression().fit(rows[[column]][:1000], buys[:1000]), as_evidence({"problem": gains(metric), "schema": form, "decision": {"threshold": 0.3}}))

    old, new = version_of(1, "age"), version_of(2, "wage")
    held = rows[1000:].reset_index(drop=True)
    told = Labelled(held, pd.Series(buys[1000:]), pd.Series([NOON] * 2000), pd.Series(["k"] * 2000))
    found = compare(old, new, told, 100)
    picked = [v.model.predict_proba(held[[c]])[:, 1] >= 0.3 for v, c in ((old, "age"), (new, "wage"))]
    assert [found.champion, found.challenger] == pytest.approx([own(buys[1000:] == "yes", p)[metric] for p in picked])
    assert found.verdict == "better" and found.low < found.challenger - found.champion < found.high


def test_few_rows_have_an_error_though_no_interval():
    """So that an experiment can be planned and a drop be judged by a version that few rows have evaluated."""
    y_true, proba, _ = answered("binary", 0)
    stated = Problem.model_validate({"name": "a", "goal": "g", "task": "binary", "target": "t", "positive": "1", "metric": "roc_auc", "data": {"source": "x.csv"}})
    found = Evaluation.model_validate(evaluate_binary(stated, y_true[:40], proba[:40], 0.5, resamples=100, bins=2, seed=0))
    assert y_true[:40].sum() < 25 and found.metrics["roc_auc"].low is None and found.errors["roc_auc"] > 0
    known = figures(found, "roc_auc", stated)
    assert known.sd == pytest.approx(found.errors["roc_auc"] * 40**0.5) and plan(known, "roc_auc")["watched"]["total"] > 100
    older = found.model_copy(update={"errors": {}, "metrics": {"roc_auc": Span(value=0.8, low=0.7, high=0.9)}})
    assert older.estimate("roc_auc").error == pytest.approx(0.2 / 2 / 1.959964)
