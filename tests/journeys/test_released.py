"""A version that is released has learnt from all rows, once it was judged on those that it had not learnt from."""

import json
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from tests.conftest import command
from tests.journeys.test_small_tables import made

from mlops_nb.base.artifacts import Model, Store, Table
from mlops_nb.base.errors import why_refused
from mlops_nb.base.settings import load_settings, stock
from mlops_nb.cli.project import init
from mlops_nb.log.events import Events
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.model.entities import in_blocks
from mlops_nb.model.problem import Problem
from mlops_nb.model.rule import with_rule
from mlops_nb.pipeline.signatures import read_stage
from mlops_nb.registry.loading import load
from mlops_nb.stages.ensemble import make_ensemble
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.register import compare_twins, compile_version, relearn, release, sample_rows
from mlops_nb.stages.train import features_of

TASKS = {"two": "binary", "four": "multiclass", "numbers": "regression"}


def problem_of(kind: str) -> Problem:
    told = {"binary": {"positive": "yes", "metric": "roc_auc"}, "multiclass": {"metric": "accuracy"}, "regression": {"metric": "rmse"}}[TASKS[kind]]
    return Problem.model_validate({"name": "p", "goal": "g", "task": TASKS[kind], "target": "y", "data": {"source": "p.csv"}} | told)


class Judged:
    """A model that was fitted on three fifths and a fifth, and the rest, which judged it."""

    def __init__(self, kind: str = "two", estimator: Any = None, rows: pd.DataFrame | None = None):
        self.problem, table = problem_of(kind), made(300, kind) if rows is None else rows
        cuts = [len(table) * 3 // 5, len(table) * 4 // 5]
        self.parts = {n: p.reset_index(drop=True) for n, p in zip(("train", "valid", "test"), (table[: cuts[0]], table[cuts[0] : cuts[1]], table[cuts[1] :]), strict=True)}
        self.form = learn_schema(self.parts["train"], self.problem)
        one = estimator if estimator is not None else LogisticRegression() if self.problem.kind.has_classes else LinearRegression()
        pipe = Pipeline([("recipe", make_recipe(self.form, self.problem)["linear"]), ("estimator", one)])
        classes = sorted(set(table.y)) if self.problem.kind.has_classes else []
        known = table[: cuts[1]]
        self.model = with_rule(pipe, classes, self.problem.positive, 0.4 if kind == "two" else None).fit(features_of(known, self.problem), known.y)
        self.things = pd.DataFrame({"part": np.repeat(list(self.parts), [len(p) for p in self.parts.values()]), "entity": range(len(table)), "unit": range(len(table))})
        self.awkward = sample_rows(self.parts["train"], self.form, 5, 0)

    def release(self, **more: Any) -> Any:
        return release(self.model, self.parts, self.things, self.awkward, self.problem, **more)


def test_what_only_the_test_rows_forbid_releases_the_judged_model():
    """A 0 that gamma's loss has no use for: the version is registered all the same, and everyone is told why."""
    rows = made(300, "numbers")
    rows["y"] = np.exp(rows.y / rows.y.std())
    rows.loc[299, "y"] = 0.0
    one = Judged("numbers", HistGradientBoostingRegressor(loss="gamma", max_iter=5), rows)
    model, told = one.release()
    assert model is one.model and told.released == "judged" and told.rows == 240
    assert told.said.startswith("judged and released as fitted on 240 rows; it can't be fitted on the test rows, too: ")


@pytest.mark.parametrize("kind", TASKS)
def test_the_twin_is_the_recipe_on_all_rows_bit_by_bit(kind):
    one = Judged(kind)
    twin, told = one.release()
    every = in_blocks(pd.concat(one.parts.values(), ignore_index=True), one.things, *one.parts)
    assert Model.dump(twin) == Model.dump(one.release()[0]) == Model.dump(relearn(Model.load(Model.dump(one.model)), every, one.problem)) != Model.dump(one.model)
    assert (told.released, told.rows, told.rows_judged, told.rows_test) == ("all", 300, 240, 60) and told.worse < 1
    assert 0 <= told.differ < 0.2, told
    compiled, proved = compile_version(twin, one.form, one.problem, 0.4 if kind == "two" else None, one.awkward, conform(one.parts["test"], one.form))
    assert compiled and proved["made"]


def test_as_judged_is_the_judged_model():
    one = Judged()
    model, told = one.release(source="judged")
    assert model is one.model and (told.released, told.rows, told.rows_judged, told.differ) == ("judged", 240, 240, None)


@pytest.mark.parametrize("estimator", [
    RandomForestClassifier(20, random_state=3), HistGradientBoostingClassifier(max_iter=10, random_state=1),
    CalibratedClassifierCV(RandomForestClassifier(10, random_state=0), cv=3),
    make_ensemble("stacking", {"a": LogisticRegression(), "b": RandomForestClassifier(10, random_state=0)}, "binary", cv=3),
    make_ensemble("voting", {"a": LogisticRegression(), "b": HistGradientBoostingClassifier(max_iter=5, random_state=0)}, "binary", weights={"a": 0.7, "b": 0.3}),
], ids=lambda e: type(e).__name__)  # fmt: skip
def test_whatever_a_model_is_made_of_the_twin_is_the_same_twice(estimator):
    one = Judged(estimator=estimator)
    twin, told = one.release()
    assert Model.dump(twin) == Model.dump(one.release()[0]) and twin.threshold == 0.4 and told.worse < 1


def test_rows_of_one_thing_lie_side_by_side_inside_the_fit():
    """Folds inside a calibration are blocks: a person whose rows lie in two parts would be on both sides else."""
    seen: list[list] = []

    class Witness(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            seen.append(list(X["who"]))
            self.classes_, self.feature_names_in_ = np.unique(y), np.array(list(X.columns), dtype=object)
            return self

        def predict_proba(self, X):
            return np.full((len(X), 2), 0.5)

        def predict(self, X):
            return np.full(len(X), self.classes_[0])

    table = pd.DataFrame({"who": [0, 1, 2, 3, 0, 1, 2, 3, 0, 1], "y": ["no", "yes"] * 5})
    parts = {"train": table[:4], "valid": table[4:8], "test": table[8:].reset_index(drop=True)}
    things = pd.DataFrame({"part": ["train"] * 4 + ["valid"] * 4 + ["test"] * 2, "entity": table.who, "unit": table.who})
    judged = Witness().fit(table[:8][["who"]], table[:8].y)
    release(judged, parts, things, table[["who"]], problem_of("two"))
    assert sorted(seen[-1]) == sorted(table.who) and sorted(who for who, _ in groupby(seen[-1])) == [0, 1, 2, 3]


def test_a_class_that_only_the_test_rows_have_is_refused():
    one = Judged("four")
    one.parts["test"].loc[0, "y"] = "e"
    said = why_refused(one.release)
    assert "knows other classes than the judged one (e)" in said and said.endswith("in the charter: knobs: {register: {learn_from: judged}}")
    assert one.release(source="judged")[0] is one.model


def test_a_column_that_only_the_test_rows_fill():
    """It is no part of the question that was judged: the twin answers without it, and the compiled model as the twin."""
    rows = made(300)
    rows["late"] = np.where(np.arange(300) >= 240, np.random.default_rng(0).normal(size=300), np.nan)
    one = Judged(rows=rows)
    twin, told = one.release()
    assert list(twin.feature_names_in_) == list(one.model.feature_names_in_)
    compiled, proved = compile_version(twin, one.form, one.problem, 0.4, one.awkward, conform(one.parts["test"], one.form))
    assert proved["made"], proved
    asked = conform(one.parts["test"], one.form)
    assert np.isfinite(twin.predict_proba(asked)).all() and told.worse < 1


@pytest.mark.parametrize("kind", TASKS)
def test_a_fit_that_went_wrong_is_refused(kind):
    """Truths beside other rows: the twin is far from the rows that it is said to have learnt."""
    one = Judged(kind, rows=made(1500, kind))
    every = pd.concat(one.parts.values(), ignore_index=True)
    wrong = relearn(one.model, every.assign(y=every.y.sample(frac=1, random_state=0).to_numpy()), one.problem)
    said = why_refused(compare_twins, one.model, wrong, one.parts["test"], one.awkward, one.problem)
    assert "its fit went wrong" in said and "learn_from: judged" in said


def test_answers_that_are_no_numbers_and_other_columns_are_refused():
    one = Judged("numbers")

    class Lost:
        feature_names_in_ = one.model.feature_names_in_

        def predict(self, X):
            return np.full(len(X), np.nan)

    assert "no finite answer" in why_refused(compare_twins, one.model, Lost(), one.parts["test"], one.awkward, one.problem)
    Lost.feature_names_in_ = ["size", "shoe"]
    assert "other columns than the judged one (shoe, age, city)" in why_refused(compare_twins, one.model, Lost(), one.parts["test"], one.awkward, one.problem)


def test_the_knob_is_all_unless_a_charter_says_otherwise():
    knob = read_stage(next(stock("stages").glob("*_register.ipynb"))).knobs["learn_from"]
    assert knob.default == "all" and knob.check("judged") == "judged" and "all rows" in knob.help
    assert "learn_from = 'some'" in why_refused(knob.check, "some")


def customers(n: int, seed: int) -> pd.DataFrame:
    """Who buys is decided by age, mostly."""
    draw = np.random.default_rng(seed)
    age, wage, club = draw.integers(18, 90, n), draw.lognormal(8, 0.4, n).round(5), draw.choice(["gold", "blue", None], n)
    return pd.DataFrame({"age": age, "wage": wage, "club": club, "buys": np.where(draw.random(n) < 1 / (1 + np.exp(-(age - 50) / 6)), "yes", "no")})


FEW = "knobs: {train: {candidates: [dummy, linear, gradient_boosting], folds: 2}, tune: {n_models: 1, trials: 2}, explain: {rows: 30}}"


def shop_of(folder: Path) -> Path:
    """A project as `init` makes it, with few candidates."""
    customers(700, 0).to_csv(folder / "shop.csv", index=False)
    root = init(folder / "project", folder / "shop.csv", "buys").root
    charter = next((root / "nbs" / "charters").glob("*.yaml"))
    text = charter.read_text()
    assert "knobs: {}" in text
    charter.write_text(text.replace("knobs: {}", FEW) + "monitoring: {min_labels: 60}\n")
    return root


def ran(root: Path, *words: str) -> tuple[dict, Any]:
    """The summary of a run, and the newest version, checked."""
    command(root, "run", *words)
    settings = load_settings(root)
    summary = json.loads((settings.reports / (settings.reports / "latest").read_text().strip() / "summary.json").read_text())
    return summary, load(settings.registry_uri, summary["model"]["name"], summary["model"]["version"])


@pytest.mark.slow
def test_from_a_file_to_a_version_that_learnt_from_all_rows_and_to_its_challenger(tmp_path):
    root = shop_of(tmp_path)
    summary, one = ran(root)
    settings, learnt = load_settings(root), one.evidence.learnt
    read = lambda stage, name, kind: kind.load(Store(settings.home).get(summary["stages"][stage]["outputs"][name]))  # noqa: E731
    parts = {name: read("split", name, Table) for name in ("train", "valid", "test")}
    assert (learnt.released, learnt.rows, learnt.rows_test) == ("all", 700, len(parts["test"])) and learnt.rows_judged == 700 - learnt.rows_test
    judged = one.evidence.digests["model"]
    assert judged == summary["stages"]["ensemble"]["outputs"]["model"] != one.version.model_digest == summary["stages"]["register"]["outputs"]["released"]
    assert Store(settings.home).has(judged) and summary["model"]["learnt"] == learnt.said in command(root, "models", "show", one.version.name)
    scores, form = read("score", "scores", Table), one.evidence.form
    assert scores["decision"].tolist() == one.model.predict(conform(pd.read_csv(tmp_path / "shop.csv"), form)).tolist(), "scored by what is registered"
    again, two = ran(root, "--force", "register")
    assert two.version.version == 1 and again["stages"]["register"]["outputs"] == summary["stages"]["register"]["outputs"], "the same rows and seeds, the same bits"
    plain, three = ran(root, "-p", "register.learn_from=judged")
    assert three.version.version == 2 and three.version.model_digest == judged and three.evidence.learnt.released == "judged"

    command(root, "models", "promote", one.version.name, "1")
    fresh, now = customers(500, 9), datetime.now(UTC)
    asked = fresh.drop(columns="buys").astype(object).where(fresh.drop(columns="buys").notna(), None).to_dict("records")
    said = json.dumps({"id": "", "decision": "no", "flags": [], "probability": 0.1, "probabilities": {"no": 0.9, "yes": 0.1}}).encode()
    log = PredictionLog(settings.home)
    at = [int((now - timedelta(hours=5) + timedelta(seconds=20 * i)).timestamp() * 1e6) for i in range(500)]
    log.put([Record(f"{i:032x}", t, one.version.name, 1, "", None, json.dumps(a).encode(), said, 0.001, b"[]") for i, (t, a) in enumerate(zip(at, asked, strict=True))])
    assert not log.close().error
    Feedback(settings.home).put([Item(f"{i:032x}", b) for i, b in enumerate(fresh.buys)], "test")
    out = command(root, "retrain", "--reason", "a trial")
    (compared,) = Events(settings.home).list(kinds=["comparison"])
    challenger = load(settings.registry_uri, one.version.name, compared.detail["challenger_version"])
    rows = [pd.concat(Table.load(Store(settings.home).get(e.digests[p])) for p in ("train", "valid", "test")) for e in (one.evidence, challenger.evidence)]
    assert [e.learnt.rows for e in (one.evidence, challenger.evidence)] == [len(r) for r in rows], out
    unseen = [~fresh.wage.isin(r["wage"].astype(float)) for r in rows]
    assert unseen[0].all() and compared.detail["rows"] == (unseen[0] & unseen[1]).sum() == 150


@pytest.mark.slow
def test_a_rejected_version_is_the_one_that_was_judged(tmp_path):
    root = shop_of(tmp_path)
    charter = next((root / "nbs" / "charters").glob("*.yaml"))
    text = charter.read_text()
    assert text.count("at_least: 0.6\n") == 1
    charter.write_text(text.replace("at_least: 0.6\n", "at_least: 0.999\n"))
    summary, found = ran(root)
    assert found.version.phase == "rejected" and found.evidence.learnt.released == "judged"
    assert found.version.model_digest == found.evidence.digests["model"] == summary["stages"]["register"]["outputs"]["released"]
    assert summary["model"]["learnt"].startswith("judged and released as fitted on ")
