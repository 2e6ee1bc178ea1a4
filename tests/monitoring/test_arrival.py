"""Labels that come sooner of one outcome than of another: no false alarms by them, and a true drop is found."""

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from tests.monitoring.arrivals import DAY, NOW, World, evidence_of, judged, known_of
from tests.monitoring.test_monitor import NOON, chances, people, place, records, write  # noqa: F401 - fixture

from mlops_nb.base.charter import Charter
from mlops_nb.log import feedback as feedback_module
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.monitoring.awaited import Awaited, late_of
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.stats.arrival import arrival_curve, delays_alike_p
from tests.monitoring.test_monitor import CHARTER


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "contrast"), [("brier", 0.95), ("accuracy", 0.05)])
def test_no_change_and_delays_by_outcome(metric, contrast):
    """Of 60 undisturbed windows of eight days no more have an alarm than the budget says; as labels come, nearly all have (brier)."""
    evidence, budget, p = evidence_of(metric), 0.05, {"plain": [], "even": [], "drop": []}
    values = {"plain": [], "even": []}
    for seed in range(60):
        world = World(seed)
        known, window = known_of(world.rows(range(62), 300), 61), world.rows(range(8, 9), 800)
        for how, by in (("plain", None), ("even", known)):
            found = judged(window, by, evidence)[0]
            p[how].append(found["p"]["quality"])
            values[how] += [found["realised"][metric]["value"]] if p[how][-1] is not None else []
        p["drop"].append(judged(world.rows(range(8, 9), 800, flipped=0.3), known, evidence)[0]["p"]["quality"])
    alarms = {how: sum(x is not None and x <= budget for x in some) for how, some in p.items()}
    assert stats.binom.sf(alarms["even"] - 1, 60, budget) > 0.01, alarms  # one-sided 99%
    assert sum(x is not None for x in p["even"]) >= 50
    assert alarms["plain"] >= 60 * contrast and alarms["drop"] >= 48, alarms
    truth = evidence.evaluation.metrics[metric].value
    assert abs(np.mean(values["even"]) - truth) < 0.2 * abs(np.mean(values["plain"]) - truth) + 0.005


@pytest.mark.parametrize("steady", [True, False])
def test_in_the_first_weeks_the_quality_waits(steady):
    """Nothing is known of the slow outcome: as labels come, windows would be alarmed."""
    evidence, world = evidence_of("brier"), World(3, steady=steady)
    rows, plain = world.rows(range(45), 200), 0
    for now in range(3, 18, 3):  # days since the start
        young = rows.age > 45 - now
        here = rows._replace(**{k: v[young] for k, v in rows._asdict().items()})
        here = here._replace(age=here.age - (45 - now), day=here.day - (45 - now))
        known = known_of(here, now - 1)
        for age in {1, min(4, now - 1), now - 1}:
            window = here._replace(**{k: v[here.day == age] for k, v in here._asdict().items()})
            found, late = judged(window, known, evidence)
            assert found["p"].get("quality") is None and (late.waits or not found["realised"]), (now, age)
            p = judged(window, None, evidence)[0]["p"].get("quality")
            plain += p is not None and p <= 0.05
    assert plain >= 5


def test_delays_that_do_not_depend_on_the_outcome_change_nothing():
    evidence = evidence_of("accuracy")
    waiting = 0
    for seed in range(12):
        world = World(seed, quick=6, slow=6)
        known, window = known_of(world.rows(range(62), 300), 61), world.rows(range(4, 5), 800)
        found, late = judged(window, known, evidence)
        waiting += bool(late.waits or late.said)
        assert late.waits or found["labelled"] == late.labels or late.said
    assert waiting <= 2


def test_a_batch_of_labels_that_comes_at_once_is_taken_as_it_is():
    """All of last month's labels in one file: delays follow the calendar, not the outcome."""
    evidence, world = evidence_of("accuracy"), World(1)
    rows = world.rows(range(30), 200)
    rows = rows._replace(delay=rows.age.copy())
    some = world.rng.random(len(rows.age)) < 0.6  # the others have none
    rows = rows._replace(delay=np.where(some, rows.delay, np.inf))
    window = rows._replace(**{k: v[rows.day == 5] for k, v in rows._asdict().items()})
    found, late = judged(window, known_of(rows, 29), evidence)
    assert not late.waits and not late.said and found["p"]["quality"] is not None


def test_numbers_by_fifths():
    rng, n = np.random.default_rng(0), 20_000
    y, age = rng.normal(100, 10, n), rng.uniform(0, 62, n)
    delay = rng.exponential(np.where(y > 105, 1, 12))
    came = delay <= age
    rule = SimpleNamespace(classes=[], names=[])
    evidence = SimpleNamespace(rule=rule, evaluation=SimpleNamespace(confusion=None))
    text = np.array([f"{v}" for v in y], object)
    known = Awaited(NOW, 61 * DAY, delay[came] * DAY, age[came] * DAY, text[came], age[came].astype(int))
    young = came & (age > 3) & (age < 6)
    late = late_of(known, evidence, text[young], age[young] * DAY, int(((age > 3) & (age < 6)).sum()))
    assert "labels come sooner" in late.said and y[young].mean() > 101.5
    assert abs(y[young][late.counts].mean() - 100) < 1.2


def test_clocks_that_went_backwards_and_nothing_at_all():
    empty = np.empty(0)
    assert arrival_curve(empty, empty, 1.0).n == 0 and delays_alike_p(empty, empty.astype(int), empty.astype(int)) == 1
    assert arrival_curve(np.array([3.0, 2.0]), np.array([1.0, 5.0]), 4.0).n == 1  # the first is older than its row: left out
    one = delays_alike_p(np.full(50, 2.0), np.arange(50) % 2, np.zeros(50, int))
    assert one == 1  # all delays equal


def test_from_the_log_a_window_waits_and_is_judged_when_the_slow_have_come(place, monkeypatch):  # noqa: F811
    """`yes` is known in an hour, `no` in twenty: the hour is not judged by the first labels, and is by all of them."""
    clock = SimpleNamespace(time_ns=lambda: int(clock.now.timestamp() * 1e9))
    monkeypatch.setattr(feedback_module, "time", clock)
    rows, rng = people(400, 5), np.random.default_rng(1)
    made = records(rows, NOON)
    write(place, made)
    real = rng.random(400) < chances(rows)
    charter = Charter.model_validate(CHARTER.model_dump() | {"metric": "accuracy"})
    monitor_due(place, charter, "shop", NOON + timedelta(hours=1))
    feedback = Feedback(place.home)
    clock.now = NOON + timedelta(hours=2)
    feedback.put([Item(r.id, "yes", at=clock.now) for r, y in zip(made, real, strict=True) if y])
    first, *_ = monitor_due(place, charter, "shop", NOON + timedelta(hours=2, minutes=1))
    part = first.parts[0]
    assert part.quality["waits"] and "100% of the labels say yes" in part.quality["why"] and part.looks == 0 and not part.quality_down
    assert any("shown and not judged" in note for note in part.notes)
    clock.now = NOON + timedelta(hours=20)
    feedback.put([Item(r.id, "no", at=clock.now) for r, y in zip(made, real, strict=True) if not y])
    again, *_ = monitor_due(place, charter, "shop", NOON + timedelta(hours=20, minutes=1))
    part = again.parts[0]
    assert not part.quality["waits"] and part.quality["labelled"] == 400 and part.looks == 1 and not part.quality_down
    assert not any("shown and not judged" in note for note in part.notes)


def test_quality_of_groups_with_its_interval():
    """Shown for each group, by subjects where rows name them; of one class it is undefined, and says so."""
    import pyarrow as pa

    from mlops_nb.log.drawn import Drawn
    from mlops_nb.monitoring.quality import groups_of
    from mlops_nb.monitoring.windows import Part
    from tests.monitoring.test_monitor import EVIDENCE, RULES

    rows = people(600, 8)
    proba, job = chances(rows), np.where(np.arange(600) < 3, "nurse", rows["job"])
    real = np.random.default_rng(0).random(600) < proba
    real[:3] = True
    job[3:][job[3:] == "nurse"] = "cook"
    known = np.ones(600, bool)
    made = {}
    for how, drawn in (("rows", Drawn()), ("subjects", Drawn("subject", np.arange(600) // 10))):
        part = Part(1, 600, pa.table({"job": job}), proba >= 0.5, proba, known, real, {}, [], drawn)
        made[how] = groups_of(part, EVIDENCE.problem, RULES)["job"]["rates"]
    clerk = made["rows"]["clerk"]["roc_auc"]
    from sklearn.metrics import roc_auc_score

    here = job == "clerk"
    assert clerk["value"] == pytest.approx(roc_auc_score(real[here], proba[here]), abs=1e-6) and clerk["low"] < clerk["value"] < clerk["high"]
    assert made["rows"]["nurse"]["roc_auc"]["value"] is None  # three, all of one class
    assert made["subjects"]["clerk"]["roc_auc"]["error"] != clerk["error"]
