"""Whether the figures of experiments hold: levels, power, coverage; and an experiment's life from start to promotion."""

import json
import math
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.serving.test_rest import serving

from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.promotion import promote
from mlops_nb.registry.registration import register
from mlops_nb.registry.versions import get
from mlops_nb.base.settings import Settings, stock
from mlops_nb.loop.experiments import Wish, act, begin, look, running
from mlops_nb.model.metrics import METRICS, Metric
from mlops_nb.model.problem import Problem
from mlops_nb.model.tasks import known
from mlops_nb.model.tasks.regression import Regression
from mlops_nb.registry.evidence import Evaluation
from mlops_nb.stages.abtest import Figures, contributed, figures, figures_of_table, plan
from mlops_nb.stats.experiment import (
    Measure, Size, analyse, compare_bootstrap, compare_means, compare_ranks, compare_shares, cuped, decide, holm, linearised, power_of, ratio_mismatch, sample_size,
)  # fmt: skip
from mlops_nb.stats.sequential import always_valid, peeked, planned, watch
from mlops_nb.log.assignment import end_experiment, read_experiment

HALF = {"control": 0.5, "new": 0.5}


def test_sizes_are_those_of_the_books():
    assert sample_size(0.25, rate=0.5, power=0.9).control == 77 and sample_size(1, sd=1, power=0.9).control == 23  # R
    for effect, sd, power, n in ((0.5, 1, 0.8, 63.766), (0.2, 1, 0.9, 526.333), (0.8, 1, 0.8, 25.525), (3, 10, 0.95, 289.729)):  # statsmodels: TTestIndPower().solve_power
        assert sample_size(effect, sd=sd, power=power).control == math.ceil(n)
    assert sample_size(0.5, sd=1, ratio=2)[:2] == (48, 96)  # statsmodels, ratio=2: 47.53
    assert sample_size(0.5, sd=1, explained=0.5).control in (32, 33)
    assert power_of(10**7, 10**7, 1e-3, sd=1) > 0.6  # large tests stay finite


@pytest.mark.parametrize("rate, effect", [(0.05, 0.02), (0.5, -0.08), (0.85, 0.04), (0.02, 0.02)])
def test_power_of_shares(rate, effect):
    n = sample_size(effect, rate=rate).control
    rng = np.random.default_rng(0)
    a, b = rng.binomial(n, rate, 4000), rng.binomial(n, rate + effect, 4000)
    middle = (a + b) / 2 / n
    with np.errstate(invalid="ignore"):
        z = (b - a) / n / np.sqrt(middle * (1 - middle) * 2 / n)
    assert 0.77 < np.mean(abs(z) > 1.96) < 0.86


@pytest.mark.slow
def test_power_of_ratios():
    """A ratio of sums: few rows a unit, and units that differ."""
    rng = np.random.default_rng(1)

    def draw(n, rate):
        per = rng.poisson(3, n) + 1
        return rng.binomial(per, np.clip(rate + rng.normal(0, 0.1, n), 0, 1)), per

    top, per = draw(50_000, 0.5)
    n = sample_size(0.03, sd=float(linearised(top, per).std())).control
    found = [compare_means(linearised(*draw(n, 0.5)), linearised(*draw(n, 0.53))).p < 0.05 for _ in range(400)]
    wrong = [compare_means(linearised(*draw(n, 0.5)), linearised(*draw(n, 0.5))).p < 0.05 for _ in range(400)]
    assert 0.74 < np.mean(found) < 0.86 and np.mean(wrong) < 0.085


@pytest.mark.slow
def test_comparisons_are_scipys_and_cover():
    rng = np.random.default_rng(2)
    a, b = rng.gamma(2, 3, 300), rng.gamma(2, 3.3, 250)
    assert compare_means(a, b).p == stats.ttest_ind(b, a, equal_var=False).pvalue
    assert compare_ranks(a, b).p == stats.mannwhitneyu(b, a).pvalue
    kinds = {"means": compare_means, "ranks": compare_ranks, "bootstrap": lambda x, y: compare_bootstrap(x, y, resamples=300)}
    covered = {name: 0 for name in (*kinds, "shares")}
    for _ in range(300):
        x, y = rng.exponential(1, 80), rng.exponential(1, 120)
        for name, kind in kinds.items():
            covered[name] += (found := kind(x, y)).low <= 0 <= found.high
        found = compare_shares(x < 0.1, y < 0.1)
        covered["shares"] += found.low <= 0 <= found.high
    assert all(0.90 < n / 300 <= 0.99 for n in covered.values()), covered


def test_cuped_saves_units_and_changes_no_effect():
    rng, found, plain = np.random.default_rng(3), [], []
    for _ in range(300):
        arm, past = rng.random(400) < 0.5, rng.normal(0, 1, 400)
        value = past + rng.normal(0, 0.75, 400) + 0.2 * arm
        past[rng.random(400) < 0.1] = np.nan
        adjusted = cuped(value, past, arm)[0]
        found.append(compare_means(adjusted[~arm], adjusted[arm]))
        plain.append(compare_means(value[~arm], value[arm]))
    assert abs(np.mean([c.difference for c in found]) - 0.2) < 0.02
    assert 0.91 < np.mean([c.low <= 0.2 <= c.high for c in found]) < 0.985
    assert np.mean([c.p < 0.05 for c in found]) > np.mean([c.p < 0.05 for c in plain]) + 0.2


def test_several_variants_hold_the_family():
    values = np.random.default_rng(4).normal(size=(4, 4000, 60))
    p = np.array([stats.ttest_ind(v, values[0], axis=1, equal_var=False).pvalue for v in values[1:]]).T
    wins, bare = np.mean([min(holm(line)) < 0.05 for line in p]), np.mean(p.min(axis=1) < 0.05)
    assert wins < 0.06 and bare > 0.09
    assert np.allclose(holm([0.2, 0.01, 0.04]), [0.2, 0.03, 0.08])
    units = pd.DataFrame({"arm": np.repeat(["control", "b", "c", "d"], 60), "y": values[:, 0].ravel()})
    said = analyse(units, [Measure("y")], dict.fromkeys(("control", "b", "c", "d"), 0.25))
    assert np.allclose([c.p for c in said.comparisons], holm(p[0])) and said.comparisons[0].level == 1 - 0.05 / 3


@pytest.mark.slow
def test_the_split_check_is_seldom_wrong():
    counts = np.random.default_rng(5).multinomial(1000, [0.8, 0.2], 4000)
    bad = [not ratio_mismatch({"control": int(a), "new": int(b)}, {"control": 0.8, "new": 0.2}).ok for a, b in counts]
    assert np.mean(bad) < 0.004
    assert not ratio_mismatch({"control": 10_000, "new": 9_300}, HALF).ok


NULLS = {
    "shares of 5%": lambda rng, shape, treated: rng.random(shape) < 0.05,
    "shares of 50%": lambda rng, shape, treated: rng.random(shape) < 0.5,
    "shares of 0.5%": lambda rng, shape, treated: rng.random(shape) < 0.005,
    "skewed means": lambda rng, shape, treated: rng.lognormal(0, 1.5, shape),
    "unequal spread": lambda rng, shape, treated: rng.normal(size=shape) * np.where(treated, 3, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("name", NULLS)
def test_peeking_finds_nothing_where_nothing_is(name, share):
    """2,000 tests without an effect, each looked at after every unit; planned for a quarter of the units that come, for the bound holds beyond the plan."""
    found = peeked(NULLS[name], 1200, share=share, horizon=Size(round(300 * (1 - share)), round(300 * share), 0), tests=2000, seed=11)
    assert np.mean(found > 0) <= 0.05


@pytest.mark.deep
@pytest.mark.parametrize("share", [0.5, 0.1, 0.9, 0.02])
@pytest.mark.parametrize("name", NULLS)
def test_peeking_for_long(name, share):
    for horizon in (None, Size(500, 500, 1000)):
        assert np.mean(peeked(NULLS[name], 6000, share=share, horizon=horizon, tests=2000, seed=12) > 0) <= 0.05


def test_watching_finds_what_is_there():
    fixed = sample_size(0.1, rate=0.4)
    most = planned(fixed)
    found = peeked(lambda rng, shape, treated: rng.random(shape) < np.where(treated, 0.5, 0.4), most.total, tests=400, seed=13)
    assert np.mean(found > 0) >= 0.8 and np.median(found[found > 0]) < most.total * 0.6


def test_one_look_is_a_point_of_the_path():
    rng = np.random.default_rng(6)
    one, y = rng.random(800) < 0.4, rng.exponential(1, 800)
    path, size = watch(y, one, Size(500, 300, 800)), Size(500, 300, 800)
    look_ = always_valid(size)(compare_means(y[~one], y[one]))
    assert math.isclose(look_.low, path["low"][-1], rel_tol=1e-6) and math.isclose(look_.p, path["p"][-1], rel_tol=1e-6)
    assert np.isinf(path["low"][:90]).all()
    constant = watch(np.ones(300), rng.random(300) < 0.5, size)
    assert (constant["p"] == 1).all() and np.isinf(constant["high"]).all()


@pytest.mark.parametrize(
    "units, said",
    [
        (pd.DataFrame({"arm": [], "y": []}), "no unit is in any arm"),
        (pd.DataFrame({"arm": ["control"] * 5, "y": [1.0] * 5}), "the variant has 0 units"),
        (pd.DataFrame({"arm": ["control", "new"], "y": [1.0, 2.0]}), "has 1 unit with a value"),
        (pd.DataFrame({"arm": ["control", "new", "old"] * 3, "y": [1.0] * 9}), "the arm 'old', which the plan hasn't"),
        (pd.DataFrame({"arm": ["control", "new"] * 3, "x": [1.0] * 6}), "no measure 'y'"),
        (pd.DataFrame({"arm": ["control", "new"] * 3, "y": [np.inf] * 6}), "no finite number"),
    ],
)
def test_units_that_say_nothing(units, said):
    with pytest.raises(ValueError, match=said):
        analyse(units, [Measure("y")], HALF)


def test_a_constant_outcome_proves_nothing():
    for value in (0.0, 7.5):
        units = pd.DataFrame({"arm": ["control", "new"] * 100, "y": [value] * 200})
        for widen in (None, always_valid(Size(50, 50, 100))):
            said = analyse(units, [Measure("y")], HALF, widen=widen)
            assert said.comparisons[0].p == 1 and decide(said).action == "stop" and decide(said, final=False, any_time=True).action == "go on"


# an experiment's life


@pytest.fixture(scope="module")
def registered(tmp_path_factory) -> Path:
    """income/1, weak, in production; income/2, better, in staging; income/3 was rejected; income/4 has no figures."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    from mlops_nb.base.artifacts import Json
    from mlops_nb.base.charter import load_charter
    from mlops_nb.registry.evidence import as_evidence
    from mlops_nb.registry.sample import plain_rows, sample_of
    from mlops_nb.stages.evaluate import evaluate
    from mlops_nb.stages.features import make_recipe
    from mlops_nb.model.problem import check_problem
    from mlops_nb.model.conform import conform, learn_schema

    root = tmp_path_factory.mktemp("tested")
    (root / "settings.ini").write_text("[mlops_nb]\n")
    stated = check_problem(load_charter(stock("charters") / "income.yaml").statement())
    people = pd.read_parquet(files("mlops_nb") / "data" / "income.parquet").head(4000)
    schema = learn_schema(people.head(1500), stated)
    known, uri = conform(people, schema), Settings(root=root).registry_uri
    rng = np.random.default_rng(0)
    for number, (phase, noise) in enumerate((("staging", 0.45), ("staging", 0.0), ("rejected", 0.3), ("staging", 0.2)), 1):
        target = people.income.head(1500).to_numpy(copy=True)
        wrong = rng.random(1500) < noise
        target[wrong] = np.where(target[wrong] == ">50K", "<=50K", ">50K")
        model = Pipeline([("recipe", make_recipe(schema, stated)["linear"]), ("estimator", LogisticRegression(max_iter=200, C=0.05))]).fit(known.head(1500), target)
        evidence = {"problem": stated.model_dump(mode="json"), "schema": schema.model_dump(mode="json"), "decision": {"threshold": 0.5}, "sample": sample_of(model, known.head(9)), "background": plain_rows(known.head(9))}
        if number != 4:
            evidence["evaluation"] = Json.load(Json.dump(evaluate(stated, model, people.iloc[1500:2500], 0.5, resamples=100)))
        register(uri, "income", model, as_evidence(evidence), phase)
    promote(uri, "income", 1)
    return root


@pytest.fixture
def store(registered, tmp_path) -> Settings:
    root = tmp_path / "store"
    shutil.copytree(registered, root)
    import sqlite3

    with sqlite3.connect(root / ".mlops/mlflow.db") as database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location"), ("model_versions", "source"), ("model_versions", "storage_location")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(registered), str(root)))
    database.close()
    return Settings(root=root)


def command(root: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "mlops_nb.cli.main", "experiment", *words], cwd=root, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_life(store):
    """Started by the command, answered by a service, labelled by feedback, promoted by its verdict."""
    from mlops_nb.log.events import Events
    from mlops_nb.log.feedback import Feedback
    from mlops_nb.log.items import item_of

    code, said = command(store.root, "start", "income", "--arm", "control=1", "--arm", "new=2", "--name", "clean", "--metric", "accuracy", "--effect", "0.06", "--guard", "latency=0.5")
    assert code == 0 and "experiment clean running" in said, said
    test = running(store, "income")
    assert 200 < test.plan.control < 3000 and test.plan.mode == "sequential"
    assert look(store, test).verdict.reasons == ["nothing was answered yet"]
    people = pd.read_parquet(files("mlops_nb") / "data" / "income.parquet").iloc[2500:4000]
    with serving(store.root, "income") as server:
        names = [f["name"] for f in server.get("/v1/models")[1]["models"][0]["fields"]]
        rows = json.loads(people[names].to_json(orient="records"))
        items = []
        for start in range(0, len(rows), 500):
            asked = {"rows": rows[start : start + 500], "subjects": [f"p{start + i}" for i in range(500)]}
            code, answer, _ = server.ask("POST", "/v1/predict", asked)
            assert code == 200, answer
            items += [item_of({"id": p["id"], "label": y}) for p, y in zip(answer["predictions"], people.income.iloc[start : start + 500], strict=True)]
    code, said = command(store.root, "status", "income")
    assert code == 0 and "assignment: sound" in said, said
    assert look(store, test).verdict.action == "go on"  # no labels yet
    Feedback(store.home).put(items, "test")
    found = look(store, test)
    assert (found.verdict.action, found.verdict.arm) == ("promote", "new"), found.verdict
    assert found.counts["labelled"] == 1500 and not found.counts["misrouted"] and not found.counts["unknown_labels"]
    code, said = command(store.root, "verdict", "income")
    assert code == 0 and "verdict: promote new" in said and get(store.registry_uri, "income", "production").version == 1
    code, said = command(store.root, "verdict", "income", "--act")
    assert code == 0 and "version 2 is in production" in said, said
    now = get(store.registry_uri, "income", "production")
    assert now.version == 2 and now.events[-1].by == "experiment clean" and "better by more than chance" in now.events[-1].reason
    assert read_experiment(store.home, "income").state == "won" and read_experiment(store.home, "income").winner == "new"
    assert [(e.kind, e.detail["state"]) for e in Events(store.home).list(kinds=["experiment", "promotion"])] == [("experiment", "started"), ("promotion", "won")]
    assert "ended already" in act(store, read_experiment(store.home, "income"), found)


def test_two_persons(store):
    """Where two must approve, the verdict asks, and the experiment goes on."""
    from mlops_nb.stages.abtest import Finding
    from mlops_nb.stats.experiment import Conclusion

    test = begin(store, "income", {"control": 1, "new": 2}, Wish("two"))
    strict = Settings(root=store.root, approval="two")
    promised = Finding(Conclusion("promote", "new", ["it is better"]), None, {}, pd.DataFrame())
    assert "second person" in act(strict, test, promised)
    assert get(store.registry_uri, "income", "production").version == 1 and running(store, "income").state == "running"
    assert "control goes on" in act(store, test, Finding(Conclusion("stop", "", ["no better"]), None, {}, pd.DataFrame()))
    assert running(store, "income").state == "stopped"


@pytest.mark.parametrize(
    "arms, wish, shares, said",
    [
        ({"control": 1}, Wish(), None, "at least one other"),
        ({"control": 1, "new": 9}, Wish(), None, "no version 9"),
        ({"control": 1, "new": 3}, Wish(), None, "no version 3 that may answer"),  # rejected
        ({"control": 4, "new": 2}, Wish(), None, "without its figures"),
        ({"control": 1, "new": 2}, Wish(metric="acuracy"), None, "did you mean 'accuracy'"),
        ({"control": 1, "new": 2}, Wish(guardrails={"latencies": 1.0}), None, "did you mean 'latency'"),
        ({"control": 1, "new": 2}, Wish(metric="latency"), None, "is a guardrail"),
        ({"control": 1, "new": 2}, Wish(metric="accuracy", effect=0.9), None, "can't change by 0.9"),
        ({"control": 1, "new": 2}, Wish(metric="accuracy", alpha=2.0), None, "alpha = 2"),
        ({"control": 1, "new": 2}, Wish(), {"control": 0.5, "new": 0.6}, "sum to 1"),
        ({"control": 1, "new": 2}, Wish(), {"control": 0.5, "old": 0.5}, "a share for each"),
    ],
)
def test_what_can_not_be_started(store, arms, wish, shares, said):
    with pytest.raises(MlopsError, match=said):
        begin(store, "income", arms, wish, shares)
    assert read_experiment(store.home, "income") is None


@pytest.mark.parametrize(
    "known, effect, said",
    [
        (Figures(1.0, 0.0, 1.0), None, "nothing can be better"),
        (Figures(1.0, 0.0, 1.0), 0.01, "nothing can be better"),  # not a plan to find a worse one
        (Figures(1.0, 0.0, 1.0, share=True), None, "nothing can be better"),
        (Figures(0.0, 0.0, 0.0), None, "nothing can be better"),  # a loss
        (Figures(0.9, 0.0, 1.0), None, "what doesn't vary needs no test"),
        (Figures(0.9, math.nan, 1.0), None, "expected a number above 0"),
        (Figures(0.98, 0.14, 1.0, share=True), 0.05, "can't change by 0.05"),
    ],
)
def test_what_leaves_nothing_to_plan_is_a_sentence(known, effect, said):
    with pytest.raises(MlopsError, match=said) as refused:
        plan(known, "accuracy", effect)
    assert str(refused.value).startswith("no experiment can be planned") and "\n" not in str(refused.value)


def test_a_table_whose_mean_is_nothing_can_be_planned_with_an_effect():
    """A column that is better when smaller, 0 on average: profit lost; 0 is no bound of it."""
    units = pd.DataFrame({"arm": "control", "loss": [-1.0, 1.0] * 50})
    assert plan(figures_of_table(units, "loss", "control", smaller=True), "loss", 0.5)["hypothesis"].startswith("a variant has lower loss")
    with pytest.raises(MlopsError, match="give one: -p abtest.minimum_effect"):
        plan(figures_of_table(units, "loss", "control", smaller=True), "loss")


def test_a_metric_that_no_row_contributes_to(monkeypatch):
    """A metric of a project's own task can be planned with, and is refused where rows are compared."""

    class Count(Regression):
        name, meaning = "count", "how often something happens"
        metrics = {"deviance": Metric(lambda y_true, y_pred, classes: 0.0, False, "value", 0, math.inf, "0 is exact"), "mae": METRICS["regression"]["mae"]}

    monkeypatch.setattr(known, "TASKS", known.TASKS | {"count": Count()})
    stated = Problem.model_validate({"name": "calls", "goal": "g", "task": "count", "target": "calls", "metric": "deviance", "data": {"source": "x.csv"}})
    tested = Evaluation.model_validate({"n": 100, "metrics": {"deviance": {"value": 1.0, "low": 0.9, "high": 1.1}}})
    assert plan(figures(tested, "deviance", stated), "deviance")["minimum_effect"] == 0.1
    rows = pd.DataFrame({"label": ["3", "5"], "decision": [2.0, 8.0]})
    assert contributed(rows, "mae", stated).tolist() == [1, 3]
    with pytest.raises(MlopsError, match="can't be compared by deviance: .* a count task's can be compared by mae, latency, flagged"):
        contributed(rows, "deviance", stated)
    with pytest.raises(MlopsError, match="no metric 'cost' to compare versions of a count task by"):
        contributed(rows, "cost", stated)


def test_one_at_a_time_and_none(store):
    with pytest.raises(MlopsError, match="has had no experiment"):
        running(store, "income")
    begin(store, "income", {"control": 1, "new": 2})
    with pytest.raises(MlopsError, match="is running"):
        begin(store, "income", {"control": 1, "new": 2})
    code, said = command(store.root, "stop", "income", "--reason", "a slip")
    assert code == 0 and "stopped" in said
    with pytest.raises(MlopsError, match="no experiment of 'income' is running"):
        end_experiment(store.home, "income", "twice")
    code, said = command(store.root, "verdict", "rent")
    assert code == 1 and "has had no experiment" in said
    with pytest.raises(MlopsError, match="no model 'incme'"):
        begin(store, "incme", {"control": 1, "new": 2})


def test_an_undecided_gate_is_for_a_person(store):
    """A version that has won is promoted by no program while a gate of it is undecided; a named person may."""
    from mlops_nb.registry.files import read_evidence
    from mlops_nb.registry.loading import load
    from mlops_nb.stages.abtest import Finding
    from mlops_nb.stats.experiment import Conclusion

    rule = {"metric": "equal_opportunity_ratio", "by": "sex", "passed": None, "gate": True, "message": "0.79 (95% interval 0.6 to 1), asked: at least 0.8: cannot say"}
    told = read_evidence(store.registry_uri, get(store.registry_uri, "income", 2)).content() | {"fairness_audit": {"rules": [rule, rule | {"gate": False, "by": "race"}]}}
    unsure = register(store.registry_uri, "income", load(store.registry_uri, "income", 2).model, told, "staging")
    assert read_evidence(store.registry_uri, unsure).undecided == ["equal_opportunity_ratio by sex"]
    test = begin(store, "income", {"control": 1, "new": unsure.version}, Wish("unsure"))
    won = Finding(Conclusion("promote", "new", ["it is better"]), None, {}, pd.DataFrame())
    for program in ("", "retraining"):
        said = act(store, test, won, program)
        assert "equal_opportunity_ratio by sex could not be decided" in said and f"promote income {unsure.version}" in said
    assert get(store.registry_uri, "income", "production").version == 1 and running(store, "income").state == "running"
    assert "in production" in act(store, test, won, "ada") and get(store.registry_uri, "income", "production").events[-1].by == "ada"
