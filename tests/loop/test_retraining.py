"""Retraining: what asks for it, what forbids it, what a challenger learns from, and that the champion goes on whatever happens."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.metrics import mean_poisson_deviance
from sklearn.pipeline import Pipeline

from mlops_nb.base.charter import Retraining, load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.registry.loading import Loaded, load
from mlops_nb.registry.promotion import promote
from mlops_nb.registry.registration import register
from mlops_nb.registry.sample import sample_of
from mlops_nb.registry.evidence import Evidence
from mlops_nb.registry.versions import Version, get
from mlops_nb.base.settings import load_settings
from mlops_nb.sources.tables import read_table
from mlops_nb.log.drawn import Drawn
from mlops_nb.loop import retraining as retrain
from mlops_nb.loop.retraining import Labelled, Look, Retrainer, Trigger, compare, hold_out, only_one, settle, triggers, why_not, why_now
from mlops_nb.stages.evaluate import evaluate
from mlops_nb.stages.features import make_recipe
from mlops_nb.model.metrics import Metric
from mlops_nb.model.problem import Problem
from mlops_nb.model.tasks import known
from mlops_nb.model.tasks.regression import Regression
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.log.assignment import assign, read_experiment
from mlops_nb.log.events import Alerts, Events
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.history import History
from mlops_nb.log.predictions import PredictionLog, Record

CHARTER = """
name: shop
goal: an example
task: binary
target: buys
positive: "yes"
metric: roc_auc
data: {source: shop.csv}
costs: {false_positive: 1.0, false_negative: 2.0}
weight: count
id: number
exclude: {note: it says nothing}
rules: {note: {required: true}, age: {min: 0, required: true}}
monitoring: {min_labels: 100}
retraining: {cooldown_days: 7, budget: 4}
"""
HAND = Trigger("hand", "a test")


def customers(n: int, seed: int, by: str) -> pd.DataFrame:
    "Who buys depends on one of the columns."
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"age": rng.integers(18, 90, n), "wage": rng.normal(30, 8, n).round(3), "club": rng.choice(["a", "b", None], n)})
    strength = (rows[by] - rows[by].mean()) / rows[by].std() + rng.normal(0, 0.5, n)
    return rows.assign(buys=np.where(strength > 0.5, "yes", "no"))


def fit(settings, charter_file: Path, sample=None, spoilt: bool = False):
    "What stands for the pipeline here: one small model, registered in staging."
    charter = load_charter(charter_file)
    rows, stated = read_table(settings.root / charter.data.source), Problem.model_validate(charter.statement())
    form = learn_schema(rows, stated)
    known, truth = conform(rows, form), rows[stated.target]
    truth = truth.sample(frac=1, random_state=0).to_numpy() if spoilt else truth
    model = Pipeline([("recipe", make_recipe(form, stated)["tree"]), ("estimator", HistGradientBoostingClassifier(max_iter=20, random_state=0))]).fit(known, truth)
    evidence = {"problem": stated.model_dump(mode="json"), "schema": form.model_dump(mode="json"), "decision": {"threshold": 1 / 3}, "sample": sample_of(model, known.head(4)),
                "evaluation": evaluate(stated, model, rows.tail(200), 1 / 3, resamples=20)}  # fmt: skip
    return register(settings.registry_uri, charter.name, model, evidence, "staging", reason="0 of 0 gates passed")


_MADE: list[Path] = []  # with a champion


class Shop:
    "A project with a champion that learnt that wages decide, and a log of days in which age does."

    def __init__(self, root: Path, champion: bool = True):
        if champion and _MADE:  # a registry takes seconds to be made
            shutil.copytree(_MADE[0], root, dirs_exist_ok=True)
        source = customers(600, 0, "wage")
        source.assign(count=range(1, 601), number=[f"c{n}" for n in range(600)], note="x").to_csv(root / "shop.csv", index=False)
        (root / "shop.yaml").write_text(CHARTER)
        (root / "settings.ini").write_text("[mlops_nb]\ncharter = shop.yaml\nhome = home\ntracking = disabled\n")
        self.settings = load_settings(root)
        self.charter, self.now = load_charter(root / "shop.yaml"), datetime.now(UTC)
        if champion and not _MADE:
            fit(self.settings, root / "shop.yaml")
            promote(self.settings.registry_uri, "shop", 1, by="ann")
            shutil.copytree(root, kept := root.parent / "kept")
            _MADE.append(kept)

    def serve(self, n: int, labelled: int | None = None, by: str = "age", days: float = 10, turn: int = 1) -> pd.DataFrame:
        "Answered predictions of the last days, and feedback on them."
        rows, begun = customers(n, turn, by), self.now - timedelta(days=days)
        ids = [f"{turn * 10**6 + i:032x}" for i in range(n)]
        at = [int((begun + timedelta(days=days) * i / n).timestamp() * 1e6) for i in range(n)]
        asked = rows.drop(columns="buys").astype(object).where(rows.drop(columns="buys").notna(), None).to_dict("records")
        said = json.dumps({"id": "", "decision": "no", "flags": [], "probability": 0.1, "probabilities": {"no": 0.9, "yes": 0.1}}).encode()
        log = PredictionLog(self.settings.home)
        log.put([Record(i, t, "shop", 1, "", None, json.dumps(a).encode(), said, 0.001, b"[]") for i, t, a in zip(ids, at, asked, strict=True)])
        assert not log.close().error
        Feedback(self.settings.home).put([Item(i, b) for i, b in list(zip(ids, rows.buys, strict=True))[: n if labelled is None else labelled]], "test")
        return rows

    def share(self, test, n: int, better: str) -> None:
        "Requests that came while an experiment ran; one arm knows what will be bought, the other guesses."
        rng, now, records, items = np.random.default_rng(0), time.time_ns() // 1000, [], []
        for i in range(n):
            key, truth = f"e{i:031x}", rng.random() < 0.4
            arm = assign(test, key)
            chance = float(np.clip((0.75 if truth else 0.25) + rng.normal(0, 0.2), 0.01, 0.99)) if arm == better else rng.random()
            said = {"decision": "yes" if chance > 1 / 3 else "no", "flags": [], "probability": chance, "probabilities": {"no": 1 - chance, "yes": chance}}
            records.append(Record(key, now + i, "shop", test.arms[arm], arm, None, b'{"age": 30, "wage": 30.0, "club": null}', json.dumps(said).encode(), 0.001, b"[]"))
            items.append(Item(key, "yes" if truth else "no"))
        log = PredictionLog(self.settings.home)
        log.put(records)
        log.close()
        Feedback(self.settings.home).put(items, "test")

    def retrainer(self, learn=fit) -> Retrainer:
        return Retrainer(self.settings, self.charter, learn=learn)

    def phases(self) -> dict[int, str]:
        from mlops_nb.registry.versions import versions

        return {v.version: v.phase for v in versions(self.settings.registry_uri, "shop")}

    def told(self) -> list[tuple[str, str]]:
        return [(e.kind, e.detail.get("state", "")) for e in Events(self.settings.home).list() if e.kind not in ("alarm", "resolved", "feedback")]


def never(*_):
    raise AssertionError("nothing was to be learnt")


@pytest.fixture
def shop(tmp_path) -> Shop:
    return Shop(tmp_path)


def test_a_better_challenger_waits_for_a_person(shop):
    rows = shop.serve(1000)
    done = shop.retrainer().retrain(HAND, shop.now)
    assert done.state == "asked" and "models promote shop 2" in done.reason, done
    assert shop.phases() == {1: "production", 2: "staging"}
    assert shop.told() == [("trigger", ""), ("retraining", "begun"), ("comparison", ""), ("retraining", "asked")]
    (alert,) = Alerts(shop.settings.home).open("shop")
    assert alert.key == "shop/retraining/2"
    (folder,) = [f for f in (shop.settings.home / "retraining" / "shop").iterdir()]
    learnt = pd.read_parquet(folder / "rows.parquet")
    assert len(learnt) == 600 + 700 and set(learnt["count"][600:]) == {300.5} and learnt.note[600:].isna().all() and learnt.number.is_unique
    held = rows.merge(learnt[600:][["age", "wage"]], how="left", on=["age", "wage"], indicator=True)["_merge"] == "left_only"
    assert held.sum() == 300 and not held[:400].any()  # the comparison's rows are of the most recent, and the challenger has not seen them
    (compared,) = Events(shop.settings.home).list(kinds=["comparison"])
    assert compared.detail["rows"] == 300 and compared.detail["verdict"] == "better" and compared.detail["challenger"] > 0.8 > compared.detail["champion"]
    History(shop.settings.home).erase("nobody in particular")
    assert not (folder / "rows.parquet").exists() and shop.phases()[2] == "staging"
    shop.retrainer().hear()
    assert len(Alerts(shop.settings.home).open("shop")) == 1, "nobody has decided yet"
    promote(shop.settings.registry_uri, "shop", 2, by="ann")
    shop.retrainer().hear()
    assert not Alerts(shop.settings.home).open("shop")


def test_a_challenger_that_became_the_champion_is_compared_on_rows_newer_than_it(shop):
    """It has learnt from all labelled predictions but those held out then: none of those is held out again, few new ones are refused."""
    first = shop.serve(1000)
    assert shop.retrainer().retrain(HAND, shop.now).state == "asked"
    promote(shop.settings.registry_uri, "shop", 2, by="ann")
    shop.now += timedelta(days=8)
    least = shop.charter.monitoring.min_labels
    shop.serve(2 * least - 1, days=7, turn=2)
    few = shop.retrainer().retrain(HAND, shop.now)
    assert few.state == "refused" and f"{2 * least - 1:,} labelled predictions of shop since its champion learnt; expected" in few.reason
    shop.now += timedelta(days=8)
    shop.serve(601, days=7, turn=3, by="wage")
    done = shop.retrainer().retrain(HAND, shop.now)
    assert done.version == 3, done
    newest = max((shop.settings.home / "retraining" / "shop").iterdir())
    learnt = pd.read_parquet(newest / "rows.parquet")[600:]
    new = 600 + 2 * least
    assert len(learnt) == 1000 + new - new // 2 and len(first.merge(learnt, on=["age", "wage"])) >= 1000
    assert Events(shop.settings.home).list(kinds=["comparison"])[-1].detail["rows"] == new // 2


def test_few_rows_are_few_of_the_source(shop):
    shop.charter = shop.charter.model_copy(update={"knobs": {"ingest": {"max_rows": 900}}})
    shop.serve(1000)
    assert shop.retrainer().retrain(HAND, shop.now).state == "asked"
    (rows,) = (shop.settings.home / "retraining" / "shop").glob("*/rows.parquet")
    assert pd.read_parquet(rows).note.notna().sum() == 200 and len(pd.read_parquet(rows)) == 900


def test_what_comes_later_is_read_as_the_source_was(shop):
    """The charter declares nothing, the file has decimal commas: the challenger's charter says so, for its services and batches."""
    file = shop.settings.root / "shop.csv"
    pd.read_csv(file).to_csv(file, sep=";", decimal=",", index=False)
    shop.serve(1000)
    done = shop.retrainer().retrain(HAND, shop.now)
    assert done.state == "asked", done
    (made,) = (shop.settings.home / "retraining" / "shop").glob("*/shop.yaml")
    (how,) = load_charter(made).data.columns.values()
    assert how.kind == "number" and how.decimal == "," and read_table(made.parent / "rows.parquet").wage.dtype == "float64"
    assert not shop.charter.data.columns


def test_a_worse_challenger_is_archived_and_the_champion_goes_on(shop):
    shop.serve(1000, by="wage")
    done = shop.retrainer(lambda *words: fit(*words, spoilt=True)).retrain(HAND, shop.now)
    assert done.state == "not better" and shop.phases() == {1: "production", 2: "archived"}
    assert "version 2 has roc_auc" in get(shop.settings.registry_uri, "shop", 2).events[-1].reason
    assert not Alerts(shop.settings.home).open()


def test_one_that_fails_is_an_alert_and_the_champion_goes_on(shop):
    shop.serve(1000)

    def broken(*_):
        raise MlopsError("run 7 failed: train: no memory")

    done = shop.retrainer(broken).retrain(HAND, shop.now)
    assert done.state == "failed" and "no memory" in done.reason and shop.phases() == {1: "production"}
    assert [a.key for a in Alerts(shop.settings.home).open()] == ["shop/retraining/failed"]
    assert shop.retrainer().retrain(HAND, shop.now).state == "asked"  # what failed spends no cool-down
    assert "cool-down" in shop.retrainer(never).retrain(HAND, shop.now).reason
    assert [a.key for a in Alerts(shop.settings.home).open()] == ["shop/retraining/2"]


def test_failures_use_up_the_budget(shop):
    """A schedule that meets the same fault each time stops at it: no thrashing."""
    shop.serve(1000)
    budget = shop.charter.retraining.budget
    states = [shop.retrainer(never).retrain(HAND, shop.now) for _ in range(budget + 1)]
    assert [done.state for done in states] == ["failed"] * budget + ["refused"] and f"budget of {budget}" in states[-1].reason


def test_one_that_fails_its_gates_or_learns_nothing_new(shop):
    shop.serve(1000)

    def gated(settings, *words):
        made = fit(settings, *words)
        return promote(settings.registry_uri, "shop", made.version, "rejected", by="pipeline", reason="roc_auc: 0.4, asked: at least 0.9")

    assert "rejected: roc_auc" in shop.retrainer(gated).retrain(HAND, shop.now).reason
    same = shop.retrainer(lambda settings, *_: get(settings.registry_uri, "shop", 1)).retrain(HAND, shop.now, force=True)
    assert same.state == "not better" and "nothing new" in same.reason and shop.phases()[1] == "production"


@pytest.mark.parametrize(("rows", "labels", "days"), [(0, 0, 10), (1000, 0, 10), (1000, 199, 10), (1000, 1000, 90)])
def test_empty_windows_and_too_few_labels_are_refused(tmp_path, rows, labels, days):
    shop = Shop(tmp_path)
    shop.charter = shop.charter.model_copy(update={"retraining": Retraining(learn_days=12.0)})
    if rows:
        shop.serve(rows, labels, days=days)
    done = shop.retrainer(never).retrain(HAND, shop.now)
    assert done.state == "refused" and "expected 200 at least" in done.reason
    assert shop.told() == [("trigger", ""), ("refused", "")] and not shop.retrainer().past()


def test_a_champion_must_be_in_production(tmp_path):
    shop = Shop(tmp_path, champion=False)
    shop.serve(1000)
    assert "no champion" in shop.retrainer(never).retrain(HAND, shop.now).reason
    fit(shop.settings, tmp_path / "shop.yaml")  # in staging, and served as long as nothing is in production
    assert shop.retrainer(never).retrain(HAND, shop.now).state == "refused" and why_now(shop.retrainer(), shop.now) == []
    done = subprocess.run([sys.executable, "-m", "mlops_nb.cli.main", "retrain"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout.startswith("refused: there is no champion"), done.stderr


def test_cool_down_budget_and_a_clock_that_was_set_back(shop):
    shop.serve(1000)

    def at(days: float) -> str:
        return shop.retrainer(lambda settings, *_: get(settings.registry_uri, "shop", 1)).retrain(HAND, shop.now + timedelta(days=days)).state

    assert [at(d) for d in (0, 6.9, 7, 14, 21)] == ["not better", "refused", "not better", "not better", "not better"]
    assert at(28) == "refused" and "budget" in Events(shop.settings.home).list(kinds=["refused"])[-1].reason
    assert at(30) == "not better"
    assert at(29) == "refused" and "set back" in Events(shop.settings.home).list(kinds=["refused"])[-1].reason


HOLD = "import sys, time\nfrom pathlib import Path\nfrom mlops_nb.loop.retraining import only_one\nwith only_one(Path(sys.argv[1]), 'shop') as alone:\n    print(alone, flush=True)\n    time.sleep(60)\n"


@pytest.mark.slow
def test_a_trigger_during_a_running_retraining(shop):
    shop.serve(1000)
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(shop.settings.home)], stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "True\n"
    done = shop.retrainer(never).retrain(HAND, shop.now)
    assert done.state == "refused" and "is running" in done.reason and shop.told() == [("trigger", ""), ("refused", "")]
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert shop.retrainer().retrain(HAND, shop.now).state == "asked"


def test_triggers_at_the_same_moment_make_one_challenger(shop):
    shop.serve(1000)
    inside, go_on, learnt = threading.Event(), threading.Event(), []

    def slow(*words):
        inside.set()
        go_on.wait(30)
        learnt.append(fit(*words))
        return learnt[-1]

    first = threading.Thread(target=lambda: shop.retrainer(slow).retrain(HAND, shop.now))
    first.start()
    assert inside.wait(30)
    states = [shop.retrainer(never).retrain(HAND, shop.now, force=True).state for _ in range(3)]
    go_on.set()
    first.join()
    assert states == ["refused"] * 3 and len(learnt) == 1


DIE = """
import sys, os, signal
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.loop.test_retraining import HAND
from mlops_nb.base.charter import load_charter
from mlops_nb.base.settings import load_settings
from mlops_nb.loop.retraining import Retrainer
from datetime import UTC, datetime
root = Path(sys.argv[1])
Retrainer(load_settings(root), load_charter(root / "shop.yaml"), learn=lambda *_: os.kill(os.getpid(), signal.SIGKILL)).retrain(HAND, datetime.now(UTC))
"""


@pytest.mark.slow
def test_kill_9_in_the_middle(shop):
    shop.serve(1000)
    done = subprocess.run([sys.executable, "-c", DIE, str(shop.settings.root), str(Path(__file__).parents[2])], timeout=120)
    assert done.returncode == -9 and shop.told()[-1] == ("retraining", "begun") and shop.phases() == {1: "production"}
    assert shop.retrainer().retrain(HAND, datetime.now(UTC)).state == "asked" and len(shop.retrainer().past()) == 2  # no cool-down
    (failed,) = [e for e in Events(shop.settings.home).list(kinds=["retraining"]) if e.detail["state"] == "failed"]
    assert "killed" in failed.reason and not Alerts(shop.settings.home).open("shop")[1:]


def test_an_automatic_test(tmp_path, monkeypatch):
    shop = Shop(tmp_path)
    shop.charter = shop.charter.model_copy(update={"retraining": Retraining(approve="abtest")})
    shop.serve(1000)
    done = shop.retrainer().retrain(HAND, shop.now)
    assert done.state == "testing" and shop.phases() == {1: "production", 2: "staging"}
    test = read_experiment(shop.settings.home, "shop")
    assert test and test.state == "running" and test.arms == {"champion": 1, "challenger": 2}
    again = shop.retrainer(never).retrain(HAND, shop.now, force=True)
    assert again.state == "refused" and "challenger comes first" in again.reason
    assert settle(shop.retrainer()).startswith("go on") and shop.phases()[1] == "production"
    shop.share(test, 3000, better="challenger")
    with monkeypatch.context() as unsure:  # its test rows could not decide a gate: a person hears of it, and the test goes on
        unsure.setattr(Evidence, "undecided", property(lambda _: ["equal_opportunity_ratio by sex"]))
        assert "a person decides" in settle(shop.retrainer()) and shop.phases() == {1: "production", 2: "staging"}
        assert "shop/retraining/2" in [alert.key for alert in Alerts(shop.settings.home).open()]
    assert settle(shop.retrainer()).startswith("promote") and shop.phases() == {1: "archived", 2: "production"}
    (promoted,) = Events(shop.settings.home).list(kinds=["promotion"])
    assert "better by more than chance" in promoted.reason
    assert settle(shop.retrainer()) == ""  # it is over


@pytest.mark.slow
def test_an_automatic_test_through_the_running_service(tmp_path):
    from mlops_nb.loop.drill import plain, town

    shop = Shop(tmp_path)
    shop.charter = shop.charter.model_copy(update={"retraining": Retraining(approve="abtest")})
    shop.serve(1000)
    assert shop.retrainer().retrain(HAND, shop.now).state == "testing"
    rows = customers(3000, 7, "age")
    asked, labels = plain(rows.drop(columns="buys")), rows.buys.tolist()
    with town(shop.settings, "shop") as place:
        place.now, said = time.time_ns() // 1000, []
        place.until(lambda: place.ask("/v1/predict", {"rows": asked[:1], "subjects": ["nobody"]})[1]["predictions"][0].get("arm"), "no experiment is routed")
        for first in range(0, len(asked), 500):
            code, answer = place.ask("/v1/predict", {"rows": asked[first : first + 500], "subjects": [f"c{first + i}" for i in range(500)]})
            assert code == 200, answer
            said += answer["predictions"]
        assert {(s["arm"], s["version"]) for s in said} == {("champion", 1), ("challenger", 2)}
        assert 1350 < sum(s["arm"] == "champion" for s in said) < 1650
        again = place.ask("/v1/predict", {"rows": asked[:50], "subjects": [f"c{i}" for i in range(50)]})[1]["predictions"]
        assert [s["arm"] for s in again] == [s["arm"] for s in said[:50]], "an arm stays with its subject"
        for first in range(0, len(said), 1000):
            code, answer = place.ask("/v1/feedback", {"feedback": [{"id": s["id"], "label": label} for s, label in zip(said[first : first + 1000], labels[first : first + 1000], strict=True)]})
            assert code == 200 and answer["counts"]["accepted"] == 1000, answer
        place.until(lambda: History(shop.settings.home).count(model="shop") >= 1000 + 3051, "answers are not in the log")
        assert settle(shop.retrainer()).startswith("promote") and shop.phases() == {1: "archived", 2: "production"}
        place.until(lambda: place.served() == 2, "the winner is not served", 60)
        (last,) = place.ask("/v1/predict", {"rows": asked[:1], "subjects": ["c1"]})[1]["predictions"]
        assert not last.get("arm")


def test_an_automatic_test_that_is_lost(tmp_path):
    shop = Shop(tmp_path)
    shop.charter = shop.charter.model_copy(update={"retraining": Retraining(approve="abtest")})
    shop.serve(1000)
    assert shop.retrainer().retrain(HAND, shop.now).state == "testing"
    shop.share(read_experiment(shop.settings.home, "shop"), 3000, better="champion")
    assert settle(shop.retrainer()).startswith("stop") and shop.phases() == {1: "production", 2: "archived"}


def test_what_asks_for_it(shop, monkeypatch):
    shop.charter = shop.charter.model_copy(update={"retraining": Retraining(on=["quality", "labels", "drift"], new_labels=500, drift_windows=2)})
    made = datetime.fromisoformat(get(shop.settings.registry_uri, "shop", 1).created)
    monkeypatch.setattr(retrain, "looks_of", lambda *_: [Look(made - timedelta(days=1), quality="of an earlier champion"), *looks])
    looks: list[Look] = []
    assert why_now(shop.retrainer(), shop.now) == []
    looks = [Look(made + timedelta(days=n), drift="age is up") for n in (1, 2)]
    later = shop.now + timedelta(days=5)
    assert [t.kind for t in why_now(shop.retrainer(), later)] == ["drift"]
    shop.serve(600)
    assert [t.kind for t in why_now(shop.retrainer(), later)] == ["drift", "labels"]
    looks += [Look(made + timedelta(days=3), quality="roc_auc fell")]
    assert [t.kind for t in why_now(shop.retrainer(), later)] == ["quality", "labels"]
    shop.retrainer(lambda settings, *_: get(settings.registry_uri, "shop", 1)).retrain(HAND, later)
    assert why_now(shop.retrainer(), later) == []  # what was seen before the last try is no reason for another


@pytest.mark.parametrize(("kind", "key"), [("age", "max_age_days"), ("labels", "new_labels")])
def test_a_trigger_without_its_number_is_a_mistake(kind, key):
    with pytest.raises(MlopsError, match=f"{key} isn't set"):
        triggers([], datetime.now(UTC), 0, Retraining(on=[kind]), datetime.now(UTC))


@given(st.lists(st.integers(0, 60), min_size=0, max_size=400), st.integers(1, 150))
def test_rows_that_are_held_out(keys, least):
    key = pd.Series([str(k) for k in keys], dtype="str")
    held = hold_out(key, least)
    wanted = max(least, round(0.3 * len(key)))
    if len(key) < 2 * wanted:
        assert not held.any()
    else:
        assert held.sum() >= wanted and not held[: len(key) - 2 * wanted].any()
        assert (held == hold_out(key, least)).all()
        recent = key[len(key) - 2 * wanted :]
        assert not set(recent[held[len(key) - 2 * wanted :]]) & set(recent[~held[len(key) - 2 * wanted :]])  # a key is on one side


@given(st.lists(st.floats(-5, 60), max_size=8), st.integers(1, 5), st.floats(0, 10))
def test_retrainings_never_come_quicker_than_the_rules(tries, budget, rest):
    rules, start, past = Retraining(cooldown_days=rest, budget=budget), datetime(2026, 11, 25, tzinfo=UTC), []
    for days in tries:  # the clock may jump about
        if not why_not(past, rules, now := start + timedelta(days=days)):
            past.append(now)
    assert past == sorted(past)
    assert all(b - a >= timedelta(days=rest) for a, b in zip(past, past[1:], strict=False))
    assert all(sum(timedelta(0) <= b - a < timedelta(days=30) for a in past) <= budget for b in past)


def test_the_comparison_is_honest_about_chance(shop):
    """A challenger that is the champion's equal is called better about as seldom as the interval says."""
    champion = load(shop.settings.registry_uri, "shop", 1)
    twin = fit(shop.settings, shop.settings.root / "shop.yaml", None, True)
    spoilt, rng, verdicts = load(shop.settings.registry_uri, "shop", twin), np.random.default_rng(0), []
    for seed in range(20):
        rows = customers(300, seed + 10, "club" if seed < 0 else "wage")
        rows["buys"] = rng.permutation(rows["buys"])  # nothing is to be known: both are as good as chance
        labelled = Labelled(conform(rows, learn_schema(rows.assign(count=1, number="", note=""), champion.evidence.problem)), rows.buys, pd.Series([shop.now] * 300), pd.Series(["k"] * 300))
        verdicts.append(compare(champion, spoilt, labelled, 100).verdict)
    assert verdicts.count("better") <= 2
    few = labelled.where(slice(0, 50))
    assert compare(champion, spoilt, few, 100).verdict == "too few rows"
    one_class = Labelled(labelled.inputs, pd.Series(["no"] * 300), labelled.time, labelled.key)
    assert compare(champion, spoilt, one_class, 100).verdict == "too few rows"


class Count(Regression):
    "How often, as a project might add it."

    name, meaning = "count", "how often something happens"
    metrics = {"deviance": Metric(lambda y_true, y_pred, classes: mean_poisson_deviance(y_true, y_pred), False, "value", 0, float("inf"), "0 is exact")}


@pytest.mark.parametrize(
    "task, metric, classes",
    [("multiclass", "log_loss", ["few", "many", "some"]), ("multiclass", "f1_macro", [2, 10, 30]), ("regression", "mae", None), ("count", "deviance", None)],
)
def test_every_task_is_compared(monkeypatch, task, metric, classes):
    """By its own metric, labels as they were fed back."""
    monkeypatch.setattr(known, "TASKS", known.TASKS | {"count": Count()})
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.normal(0, 1, 3000), "wage": rng.normal(0, 1, 3000)})
    number = rng.poisson(np.exp(rows.wage.clip(-2, 2)))
    target = number if classes is None else np.array(classes)[np.minimum(number, 2)]

    def version_of(number: int, column: str) -> Loaded:
        form = {"fields": [{"name": column, "kind": "number", "nullable": False}], "target": "y", "classes": classes}
        stated = {"name": "shop", "goal": "g", "task": task, "target": "y", "metric": metric, "data": {"source": "x.csv"}}
        model = (PoissonRegressor() if classes is None else LogisticRegression()).fit(rows[[column]][:1000], target[:1000])
        about = Version(name="shop", version=number, phase="staging", created="2026-11-25", model_digest="", evidence_digest="", mlflow_run="")
        return Loaded(about, model, as_evidence({"problem": stated, "schema": form}))

    by_age, by_wage = version_of(1, "age"), version_of(2, "wage")
    told = Labelled(rows[1000:].reset_index(drop=True), pd.Series(target[1000:]).astype("str"), pd.Series([datetime.now(UTC)] * 2000), pd.Series(["k"] * 2000))
    found = compare(by_age, by_wage, told, 100)
    assert (found.verdict, found.rows) == ("better", 2000) and found.said.startswith(f"on 2,000 recent labelled rows version 2 has {metric}")
    assert found.low <= abs(found.challenger - found.champion) <= found.high and compare(by_wage, by_age, told, 100).verdict == "not better"
    assert compare(by_age, by_wage, told.where(np.zeros(2000, bool)), 100).verdict == "too few rows"


def test_one_lock_a_model(tmp_path):
    with only_one(tmp_path, "a") as first, only_one(tmp_path, "b") as second, only_one(tmp_path, "a") as third:
        assert (first, second, third) == (True, True, False)
    with only_one(tmp_path, "a") as again:
        assert again


@pytest.mark.deep
def test_the_whole_pipeline_makes_a_challenger(tmp_path):
    """Census rows that were served and labelled, in the sample store, by the command."""
    tool = str(Path(sys.executable).with_name("mlops-nb"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")} | {"MLOPS_NB_HOME": str(tmp_path), "MLOPS_NB_REPORTS": str(tmp_path / "reports")}
    root, home = Path(__file__).parents[2], tmp_path / "sample"

    def call(*words: str) -> str:
        done = subprocess.run([tool, *words], cwd=root, capture_output=True, text=True, timeout=900, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("run", "--sample", "2000")
    call("models", "promote", "income", "1", "--sample")
    people = pd.read_parquet(root / "mlops_nb" / "data" / "income.parquet").tail(1500)
    asked = people.drop(columns=["income", "fnlwgt"]).astype(object)
    asked = asked.where(asked.notna(), None).to_dict("records")
    said = json.dumps({"id": "", "decision": "<=50K", "flags": [], "probability": 0.1, "probabilities": {"<=50K": 0.9, ">50K": 0.1}}).encode()
    log, now = PredictionLog(home), time.time_ns() // 1000
    log.put([Record(f"{n:032x}", now - 10**9 + n, "income", 1, "", None, json.dumps(a).encode(), said, 0.001, b"[]") for n, a in enumerate(asked)])
    log.close()
    Feedback(home).put([Item(f"{n:032x}", label) for n, label in enumerate(people.income)], "test")
    out = call("retrain", "--sample", "4000", "--reason", "a trial")
    assert out.split(":")[0] in ("asked", "not better"), out
    kinds = [e.kind for e in Events(home).list(kinds=["trigger", "retraining", "comparison"])]
    assert kinds[:2] == ["trigger", "retraining"]
    assert get(f"sqlite:///{home}/mlflow.db", "income", "production").version == 1


def test_from_what_is_served_to_a_challenger(shop):
    """Windows of the log are judged by monitoring itself; its report is the trigger."""
    from mlops_nb.monitoring.due import monitor_due

    monitoring = shop.charter.monitoring.model_copy(update={"min_rows": 100})
    shop.charter = shop.charter.model_copy(update={"monitoring": monitoring})
    shop.now += timedelta(days=5)  # the champion is some days old
    shop.serve(1000, days=3)
    assert why_now(shop.retrainer(), shop.now) == []
    assert monitor_due(shop.settings, shop.charter, "shop", shop.now)
    (trigger,) = why_now(shop.retrainer(), shop.now)
    assert trigger.kind == "quality" and "roc_auc" in trigger.reason
    assert shop.retrainer().retrain(trigger, shop.now).state == "asked"
    assert why_now(shop.retrainer(), shop.now) == []


def fitted(number: int, column: str, metric: str) -> Loaded:
    """A version that reads one of two columns that say equally much."""
    form = {"fields": [{"name": column, "kind": "number", "nullable": False}], "target": "y", "classes": ["no", "yes"]}
    stated = {"name": "shop", "goal": "g", "task": "binary", "positive": "yes", "target": "y", "metric": metric, "data": {"source": "x.csv"}, "costs": {"false_positive": 0, "false_negative": 0}}
    rng = np.random.default_rng(99)
    x, y, _ = visits(rng, 20_000, 20_000)
    y = np.where(y == "yes", 1, 0)
    both = np.concatenate([x["a"], x["b"]])  # one rule for either column
    model = LogisticRegression().fit(pd.DataFrame({column: both}), np.where(np.concatenate([y, y]) == 1, "yes", "no"))
    about = Version(name="shop", version=number, phase="staging", created="2026-11-25", model_digest="", evidence_digest="", mlflow_run="")
    return Loaded(about, model, as_evidence({"problem": stated, "schema": form, "decision": {"threshold": 0.5}}))


def visits(rng: np.random.Generator, subjects: int, rows: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows of subjects, whose columns and labels are mostly their own."""
    who = np.arange(rows) if subjects == rows else np.repeat(np.arange(subjects), rng.multinomial(rows, rng.dirichlet(np.full(subjects, 2.0))))
    own = rng.normal(size=(subjects, 2))[who] + 0.3 * rng.normal(size=(rows, 2))
    chance = 1 / (1 + np.exp(-own.sum(axis=1) - rng.normal(size=subjects)[who]))
    return pd.DataFrame(own, columns=["a", "b"]), np.where(rng.random(rows) < chance, "yes", "no"), who


def called_better(metric: str, subjects: int, count: int, known: bool = True) -> int:
    """How often one of two versions that are equally good is called better, on 600 rows."""
    champion, challenger, rng, better = fitted(1, "a", metric), fitted(2, "b", metric), np.random.default_rng(7), 0
    for _ in range(count):
        rows, label, who = visits(rng, subjects, 600)
        drawn = Drawn("subject", np.unique(who, return_inverse=True)[1]) if known and subjects < 600 else Drawn()
        told = Labelled(rows, pd.Series(label), pd.Series([0] * 600), pd.Series(who.astype(str)), drawn)
        found = compare(champion, challenger, told, 100)
        assert found.verdict != "too few rows", found.said
        better += found.verdict == "better"
    return better


@pytest.mark.slow
def test_subjects_don_t_promote_by_chance():
    """2.5% of equals are called better, whether rows are drawn one by one or several of a subject; row by row many more would be."""
    alone, clustered, naive = called_better("brier", 600, 150), called_better("brier", 60, 150), called_better("brier", 60, 150, known=False)
    assert max(alone, clustered) <= 11, "more than 11 of 150 has a chance of 1 in 1,000"
    assert naive > 20, "row by row"


@pytest.mark.deep
@pytest.mark.parametrize("metric", ["brier", "log_loss", "accuracy", "roc_auc"])
@pytest.mark.parametrize("subjects", [30, 60, 200])
def test_subjects_don_t_promote_by_chance_in_full(metric, subjects):
    count = 200 if metric == "roc_auc" else 1000
    alone, clustered, naive = called_better(metric, 600, count), called_better(metric, subjects, count), called_better(metric, subjects, count, known=False)
    assert stats.binom.sf(max(alone, clustered) - 1, count, 0.035) > 1e-3 and naive > 2 * clustered, (alone, clustered, naive)


@pytest.mark.parametrize(("who", "said"), [(np.zeros(600, int), "about 1 subject, 1 of the rarest class"), (np.arange(600) // 30, "about 20 subjects")])
def test_few_subjects_are_too_few_to_compare_by(who, said):
    rows, label, _ = visits(np.random.default_rng(0), 600, 600)
    told = Labelled(rows, pd.Series(label), pd.Series([0] * 600), pd.Series(who.astype(str)), Drawn("subject", who))
    found = compare(fitted(1, "a", "brier"), fitted(2, "b", "brier"), told, 100)
    assert found.verdict == "too few rows" and said in found.said and "needs 100 about 25, and 10 of each class" in found.said


def test_equal_versions_and_one_class_are_no_gain():
    rows, label, who = visits(np.random.default_rng(0), 100, 600)
    told = Labelled(rows, pd.Series(label), pd.Series([0] * 600), pd.Series(who.astype(str)), Drawn("subject", np.unique(who, return_inverse=True)[1]))
    same = compare(fitted(1, "a", "roc_auc"), fitted(2, "a", "roc_auc"), told, 100)
    assert (same.verdict, same.low, same.high) == ("not better", 0, 0) and "rows about 97 subjects" in same.said
    assert "may be chance" in same.said and "worse" not in same.said
    assert compare(fitted(1, "a", "roc_auc"), fitted(2, "b", "roc_auc"), told._replace(label=pd.Series(["no"] * 600)), 100).verdict == "too few rows"


def test_rows_of_the_log_know_their_subjects(shop):
    """Those that are held out are about other subjects than those that are learnt from; the comparison counts subjects."""
    rows, begun = customers(1000, 1, "age"), shop.now - timedelta(days=5)
    asked = rows.drop(columns="buys").astype(object).where(rows.drop(columns="buys").notna(), None).to_dict("records")
    said = json.dumps({"decision": "no", "probability": 0.1}).encode()
    log = PredictionLog(shop.settings.home)
    log.put([Record(f"{i:032x}", int((begun + timedelta(minutes=i)).timestamp() * 1e6), "shop", 1, "", f"c{i // 4}", json.dumps(a).encode(), said, 0.001, b"[]") for i, a in enumerate(asked)])
    log.close()
    Feedback(shop.settings.home).put([Item(f"{i:032x}", b) for i, b in enumerate(rows.buys)], "test")
    found = retrain.labelled(shop.settings, load(shop.settings.registry_uri, "shop", 1), None, shop.now)
    assert (found.drawn.by, found.drawn.draws) == ("subject", 250) and found.key.nunique() == 250
    held = hold_out(found.key, 100)
    assert not set(found.where(held).key) & set(found.where(~held).key) and found.where(held).drawn.draws == found.where(held).key.nunique()
    done = shop.retrainer().retrain(HAND, shop.now)
    assert done.state == "asked" and "recent labelled rows about " in done.reason and " subjects version 2" in done.reason
