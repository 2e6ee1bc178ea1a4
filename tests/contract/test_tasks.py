"""Every task means something in every part of the lifecycle: the table in ARCHITECTURE.md, cell by cell, on a whole run.

One of the tasks is made up here, in this file alone: how often something happens, learnt by Poisson regressions."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.conftest import command, opened_app, project_of

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import why_refused
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.model.decision import name_of
from mlops_nb.model.compilable import why_not_compilable
from mlops_nb.model.conform import conform
from mlops_nb.model.extensions import open_project
from mlops_nb.model.metrics import METRICS
from mlops_nb.model.rule import without_rule
from mlops_nb.model.tasks.known import TASKS
from mlops_nb.model.tasks.task import CELLS
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.registry.loading import load
from mlops_nb.serving.prediction import Predictor
from mlops_nb.stages.abtest import contributed, is_greater_better

ROOT = Path(__file__).parents[2]
COUNTS = '''
from scipy.special import xlogy
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_poisson_deviance

from mlops_nb.model.metrics import METRICS as KNOWN
from mlops_nb.model.metrics import Metric
from mlops_nb.model.tasks.regression import Regression


def deviance(y_true, given, classes=None):
    return mean_poisson_deviance(y_true, given.clip(1e-9))


def deviances(y_true, given, classes=None):
    mean = given.clip(1e-9)
    return 2 * (xlogy(y_true, y_true / mean) - y_true + mean)


class Counts(Regression):
    name = "count"
    meaning = "how often something happens"
    metrics = {
        "poisson_deviance": Metric(deviance, False, "value", 0, float("inf"), "twice the loss of likelihood a row; 0 is exact", deviances),
        "mae": KNOWN["regression"]["mae"],
    }
    cells = Regression.cells | {"compiled serving": "the number, equal to the model; Poisson regressions are served plain"}
    trusted = ("sklearn._loss.link.LogLink", "sklearn._loss.loss.HalfPoissonLoss")

    def findings(self, target, asked):
        import pandas as pd

        number = pd.to_numeric(target, errors="coerce").dropna()
        if (number < 0).any() or (number % 1 > 0).any():
            yield f"target '{target.name}' has {number[(number < 0) | (number % 1 > 0)].iloc[0]:g}; counts are whole numbers from 0 on, say task: regression"
        yield from super().findings(target, asked)

    def estimator(self, entry):
        mine = {"linear": PoissonRegressor(), "gradient_boosting": HistGradientBoostingRegressor(loss="poisson")}
        return mine.get(entry.name) or super().estimator(entry)

    def low_bars(self, shares):
        return []


TASKS = [Counts()]
'''
KNOBS = """knobs:
  train: {candidates: [dummy, linear, gradient_boosting], folds: 3}
  tune: {n_models: 1, trials: 2}
  evaluate: {resamples: 100}
  fairness: {resamples: 100}
  explain: {rows: 10, background: 10}
  monitor: {trials: 2}
monitoring: {min_rows: 50, min_labels: 30}"""
MADE_UP = "count"
EVEN = "multiclass, evenly"  # by a metric for which each class counts as much as another: decided by weights
FOUND = """knobs:
  cluster: {methods: [kmeans], repeats: 4, references: 19, max_k: 4}
  evaluate_clusters: {resamples: 4}
  reduce: {points: 100}
  fairness: {resamples: 100}
  explain: {rows: 10, background: 10}
  monitor: {trials: 2}
monitoring: {min_rows: 50, min_labels: 30}"""
METRIC = {"clustering": "silhouette", "binary": "roc_auc", "multiclass": "accuracy", EVEN: "balanced_accuracy", "regression": "mae", "bandit": "value", MADE_UP: "poisson_deviance"}
pytestmark = pytest.mark.slow


def offered(n: int = 1500) -> list[dict]:
    """What a gym's members were offered, how probable that was, and what they paid: the old ones want mornings."""
    rng = np.random.default_rng(0)
    age, fee, sex = rng.integers(18, 80, n), rng.normal(50, 15, n).round(2), rng.choice(["f", "m"], n)
    comes = rng.choice(["evening", "morning"], n)
    paid = (((age > 50) == (comes == "morning")) + rng.normal(0, 0.3, n)).round(3)
    return [{"age": a, "fee": f, "sex": s, "comes": y, "paid": p, "chance": 0.5} for a, f, s, y, p in zip(age.tolist(), fee.tolist(), sex.tolist(), comes.tolist(), paid.tolist(), strict=True)]


def visits(task: str, n: int = 500) -> list[dict]:
    """How a gym's members come, in the words of each task."""
    if task == "bandit":
        return offered()
    rng = np.random.default_rng(0)
    if task == "clustering":  # two kinds of members, and nobody says which is which
        kind, sex = rng.random(n) < 0.35, rng.choice(["f", "m"], n)
        return [{"age": int(a), "fee": round(f, 2), "sex": s} for a, f, s in zip(np.where(kind, 65, 30) + rng.integers(-6, 7, n), np.where(kind, 80.0, 40.0) + rng.normal(0, 6, n), sex, strict=True)]
    age, fee, sex = rng.integers(18, 80, n), rng.normal(50, 15, n).round(2), rng.choice(["f", "m"], n)
    rate = np.exp((age - 50) / 30 + (fee - 50) / 40)
    often = rng.poisson(3 * rate)
    said = {
        "binary": np.where(often > 2, "yes", "no"), "multiclass": np.array(["never", "seldom", "often"])[(often > 0).astype(int) + (often > 3)],
        "regression": (rate + rng.normal(0, 0.3, n)).round(3), MADE_UP: often,
    }[task.partition(",")[0]]  # fmt: skip
    return [{"age": a, "fee": f, "sex": s, "comes": y} for a, f, s, y in zip(age.tolist(), fee.tolist(), sex.tolist(), said.tolist(), strict=True)]


def charter_of(task: str, text: str) -> str:
    """The charter that init guessed, made one of this task; among several classes, errors have their prices."""
    mine = re.sub(r"^task: .*", f"task: {task.partition(',')[0]}", text, flags=re.M)
    mine = re.sub(r"^metric: .*", f"metric: {METRIC[task]}", mine, flags=re.M) if task == EVEN else mine
    if task == "bandit":  # guessed as another task
        mine = re.sub(r"^(positive|secondary|costs): .*\n", "", mine, flags=re.M)
        mine = re.sub(r"^(success|costs|exclude|leaks):\n(  .*\n)*", "", mine, flags=re.M)
        mine = re.sub(r"^metric: .*", "metric: value\nreward: paid\npropensity: chance", mine, flags=re.M)
    mine += "costs: {matrix: {often: {never: 3.0}}}\n" if task == "multiclass" else ""
    if task == MADE_UP:  # guessed as another task
        mine = re.sub(r"^metric: .*", f"metric: {METRIC[task]}", mine, flags=re.M)
        mine = re.sub(r"^secondary: .*", 'secondary: ["mae"]', mine, flags=re.M)
        mine = re.sub(r"^success:\n(  .*\n)*", "success: []\n", mine, flags=re.M)
    mine = mine.replace("knobs: {}", FOUND if task == "clustering" else KNOBS)
    return re.sub(rf"^  ({'|'.join(TASKS['bandit'].omits)}): .*\n", "", mine, flags=re.M) if task == "bandit" else mine


def begun(folder: Path, task: str) -> Path:
    """A project of this task; the made-up one lies in its package."""
    asked = ["--task", task] if task == "clustering" else ["--target", "comes"]
    root = project_of(folder / "visits.csv", visits(task), *asked)
    charter = root / "nbs" / "charters" / "gym.yaml"
    charter.write_text(charter_of(task, charter.read_text()))
    if task == MADE_UP:
        (root / "gym" / "extensions.py").write_text(COUNTS)
    return root


FROM_TABLES = [name for name, task in TASKS.items() if not task.sources]  # what acts in an environment goes its whole way in tests/journeys/test_control.py


@pytest.fixture(scope="module", params=[*FROM_TABLES, EVEN, MADE_UP])
def gym(request, tmp_path_factory):
    """A whole run of a project of each task, and its model in production."""
    task = request.param
    root = begun(tmp_path_factory.mktemp(task), task)
    assert "sound" in command(root, "check")
    said = command(root, "run")
    assert "phase staging" in said, said
    command(root, "models", "promote", "gym", "1")
    settings = open_project(root)
    made = load(settings.registry_uri, "gym", 1)
    frame = pd.read_csv(root.parent / "visits.csv")
    yield SimpleNamespace(task=task, kind=TASKS[task.partition(",")[0]], root=root, settings=settings, made=made, evidence=made.evidence, frame=frame, known=conform(frame, made.evidence.form))
    if task == MADE_UP:
        TASKS.pop(MADE_UP), METRICS.pop(MADE_UP)
        for name in [n for n in sys.modules if n.partition(".")[0] == "gym"]:
            del sys.modules[name]
        sys.path.remove(str(root))


def test_evaluate(gym):
    found = gym.evidence.evaluation
    assert found.n > 50 and set(found.metrics) == set(gym.kind.metrics)
    assert all(m.low <= m.value <= m.high for m in found.metrics.values())
    assert found.cost.low <= found.cost.value <= found.cost.high if gym.evidence.problem.has_costs else found.cost is None
    assert ("cost" in command(gym.root, "models", "show", "gym", "1")) == gym.evidence.problem.has_costs


def test_decisions(gym):
    """By weights only where the metric asks for them; then what is evaluated, told and answered is decided by them."""
    weights, model = gym.evidence.decision.weights, gym.made.model
    assert (weights is not None) == (gym.task == EVEN)
    if weights:
        proba, names = model.predict_proba(gym.known), [name_of(c) for c in model.classes_]
        assert model.predict(gym.known).tolist() == model.classes_[(proba * [weights[n] for n in names]).argmax(axis=1)].tolist()
        assert model.predict(gym.known).tolist() != without_rule(model).predict(gym.known).tolist()
        assert "largest weight x probability; weights chosen for balanced_accuracy" in gym.evidence.decision.weights_why
        rare = max(weights, key=weights.get)
        assert (model.predict(gym.known) == rare).sum() > (without_rule(model).predict(gym.known) == rare).sum() and rare == "never"


def test_fairness(gym):
    audit = gym.evidence.fairness_audit
    groups = audit["by"]["sex"]["groups"]
    assert set(groups) == {"f", "m"} and (audit["note"] or "") == gym.kind.group_note
    assert ("selection_rate" in groups["f"]) == gym.kind.has_positive


def test_explain(gym):
    told = gym.evidence.explanation
    assert told["units"] == gym.kind.unit(gym.evidence.problem.target) and {s["kind"] for s in told["singles"]} == set(gym.kind.singles)
    assert {g["feature"] for g in told["global"]} == {"age", "fee", "sex"}


def test_compiled_serving(gym):
    served = Predictor.load(gym.settings, "gym", 1)
    assert bool(served.served.compiled) == (not why_not_compilable(without_rule(gym.made.model)))
    own = gym.made.model.predict(gym.known).tolist()
    same = (lambda found: found == own) if gym.kind.has_classes else (lambda found: found == pytest.approx(own, rel=1e-9))
    assert same([a.decision for a in served.predict(gym.frame)])
    assert "gym" in command(gym.root, "serve", "gym", "--check")


def test_a_service_of_two_workers(gym):
    """Each worker is a process of its own, that knows the project's task by itself."""
    from ..serving.test_rest import Server

    server = Server(gym.root, "gym", "--workers", "2")
    try:
        rows = gym.frame[["age", "fee", "sex"]].head(20).to_dict("records")
        said = [server.predict(rows)[1]["predictions"] for _ in range(4)]
    finally:
        server.stop()
    own = gym.made.model.predict(gym.known.head(20)).tolist()
    for answers in said:
        assert [a["decision"] for a in answers] == (own if gym.kind.has_classes else pytest.approx(own, rel=1e-9))


def test_batch(gym):
    command(gym.root, "score", "data/visits.csv", "scores.csv", "--model", "gym@production")
    found, own = pd.read_csv(gym.root / "scores.csv")["decision"].tolist(), gym.made.model.predict(gym.known).tolist()
    assert found == own if gym.kind.has_classes else found == pytest.approx(own, rel=1e-9)


@pytest.fixture(scope="module")
def logged(gym):
    """Two days of answers, the second about other people, and what came of them."""
    predictor, log = Predictor.load(gym.settings, "gym", 1), PredictionLog(gym.settings.home)
    day = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    for back, rows in ((2, gym.frame), (1, gym.frame.assign(age=79, fee=95.0))):
        at, asked = day - timedelta(days=back), predictor.check(rows)
        answers = predictor.served.answer(asked, drawn=True) if gym.kind.rewarded else predictor.predict(rows)
        seen = gym.made.model.predict(gym.known) if gym.kind.no_labels else gym.frame.paid if gym.kind.rewarded else gym.frame.comes
        truth = seen.tolist()  # where there are no labels, somebody may send some
        log.put([Record(a.id, int((at + timedelta(seconds=k)).timestamp() * 1e6), "gym", 1, "", None, predictor.served.row_schema.dump(row), msgspec.json.encode(a), 0.001, b"[]") for k, (a, row) in enumerate(zip(answers, asked, strict=True))])
        assert log.flush()
        assert {v.verdict for v in Feedback(gym.settings.home).put([Item(a.id, y) for a, y in zip(answers, truth, strict=True)], "test")} == {"accepted"}
    assert not log.close().error
    reports = monitor_due(gym.settings, load_charter(gym.settings.charter), "gym", datetime.now(UTC))
    return [json.loads(json.dumps(msgspec.to_builtins(r), default=str)) for r in reports]


def test_drift(gym, logged):
    usual, strange = (report["parts"][0] for report in logged[:2])
    assert usual["quality"]["labelled"] == len(gym.frame)
    assert usual["quality"]["realised"].keys() == (set() if gym.kind.no_labels else gym.kind.metrics.keys())
    assert not gym.kind.no_labels or gym.kind.no_labels in usual["notes"]
    assert {a["channel"] for a in strange["alarms"]} >= {"drift", "predictions"} and strange["features"][0]["name"] in ("age", "fee")


def test_ab(gym):
    if why := gym.kind.no_labels:
        assert why in why_refused(contributed, pd.DataFrame(), METRIC[gym.task], gym.evidence.problem)
        assert "abtest" not in json.loads(command(gym.root, "runs", "show", "--json"))["stages"]
        return
    answers = pd.DataFrame([msgspec.to_builtins(a) for a in Predictor.load(gym.settings, "gym", 1).predict(gym.frame)])
    truth = gym.frame.paid if gym.kind.rewarded else gym.frame.comes
    answers["label"] = truth.map(name_of)
    problem, known = gym.evidence.problem, gym.kind.y_true(truth, gym.evidence.problem.positive)
    said = gym.kind.answers(without_rule(gym.made.model), gym.known, problem, gym.evidence.rule.threshold)
    for name, value in gym.kind.scores(said, known, gym.kind.comparable()).items():
        assert is_greater_better(name, problem) == gym.kind.metrics[name].greater_is_better
        assert contributed(answers, name, problem).mean() == pytest.approx(value, abs=1e-6), name
    if problem.has_costs:
        price = {("often", "never"): 3.0} if gym.task == "multiclass" else {}
        paid = [0.0 if t == d else price.get((t, d), 1.0) for t, d in zip(gym.frame.comes, answers["decision"], strict=True)]
        assert contributed(answers, "cost", problem).tolist() == paid
    assert json.loads(command(gym.root, "runs", "show", "--json"))["stages"]["abtest"]["status"] == "done"


def test_retraining(gym):
    from mlops_nb.loop.retraining import Labelled, compare

    if why := gym.kind.no_labels or gym.kind.no_retraining:
        assert why in command(gym.root, "retrain", fails=True)
    if gym.kind.no_labels:
        assert gym.kind.no_labels in command(gym.root, "drill", fails=True)
    if why:
        return
    time = pd.Series(pd.date_range("2026-01-01", periods=len(gym.frame), freq="min", tz="UTC"))
    rows = Labelled(gym.known, gym.frame.comes.astype(str), time, pd.Series(range(len(gym.frame))).astype(str))
    same = compare(gym.made, gym.made, rows, 100)
    assert same.verdict == "not better" and same.champion == same.challenger is not None and same.low == same.high == 0
    assert ("its decisions save 0 a row" in same.said) == gym.evidence.problem.has_costs


def test_app(gym, monkeypatch):
    at = opened_app(gym.root, monkeypatch)
    assert not at.exception and METRIC[gym.task] in [m.label.replace("\\", "") for m in at.metric]
    for name in ("predictions", "fairness", "monitoring"):
        page = at.switch_page(f"views/{name}.py").run()
        assert not page.exception, (name, page.exception)
        assert name != "predictions" or page.metric[0].value


def test_what_is_no_count_is_said(tmp_path):
    root = begun(tmp_path, MADE_UP)
    rows = pd.read_csv(root / "data" / "visits.csv")
    rows.assign(comes=rows.comes - 0.5).to_csv(root / "data" / "visits.csv", index=False)
    assert "counts are whole numbers from 0 on, say task: regression" in command(root, "run", "ingest", fails=True)


def test_the_table_is_the_tasks_own():
    """ARCHITECTURE.md says what the tasks say."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = {m[1]: m[2] for m in re.finditer(r"^\| \*\*(.+?)\*\* \|(.*)\|$", text, re.M)}
    assert table.keys() >= set(CELLS)
    for cell in CELLS:
        assert [c.strip() for c in table[cell].split("|")] == [task.cells[cell] for name, task in TASKS.items() if name != MADE_UP]
