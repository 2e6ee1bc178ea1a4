"""Rows about one subject are one draw: intervals of a window cover, alarms keep to the budget, and what can't be said isn't."""

# ruff: noqa: F811 - a fixture of test_monitor

import math
from datetime import timedelta
from functools import cache

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import confusion_matrix
from tests.monitoring.test_monitor import CHARTER, EVIDENCE, NOON, RULES, hour, people, place, records, write  # noqa: F401

from mlops_nb.base.charter import Monitoring
from mlops_nb.log.drawn import Drawn, drawn_of
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.monitoring.judge import SHARES, look_at_part
from mlops_nb.monitoring.quality import groups_of, quality_of
from mlops_nb.monitoring.reference import make_reference
from mlops_nb.monitoring.reports import Report, reports
from mlops_nb.monitoring.windows import Part
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.stats.influence import MEASURES
from mlops_nb.stats.quality import realised

BINARY = MEASURES["binary"]
LOOSE = Monitoring(window="hour", min_rows=20, min_labels=20, quality_drop=0.0, false_alarms=0.1)


def window(rng: np.random.Generator, subjects: int, base: float = 0.3, jobs: int = 3) -> Part:
    """One to twenty rows of each subject; part of what the model says, and of what it doesn't know, is the subject's own."""
    who = np.repeat(np.arange(subjects), rng.integers(1, 21, subjects))
    n = len(who)
    score = 0.8 * rng.normal(size=subjects)[who] + 0.6 * rng.normal(size=n)
    y_true = rng.random(n) < expit(1.2 * score + rng.normal(size=subjects)[who] + logit(base))
    proba = expit((1.2 * score + logit(base)) / math.sqrt(1 + 0.346))  # calibrated, but for the subject's own part
    job = np.array([f"job {j}" for j in range(jobs)])[rng.integers(0, jobs, subjects)[who]]
    inputs = pa.table({"job": job})
    return Part(1, n, inputs, proba >= base, proba, np.ones(n, bool), y_true, {}, [], Drawn("subject", who))


@cache
def truth(base: float) -> tuple[Part, dict[str, float]]:
    many = window(np.random.default_rng(99), 60_000, base)
    return many, {k: e.value for k, e in realised(many.y_true, many.proba, many.y_pred, BINARY).items()}


@cache
def evidence(base: float, metric: str = "roc_auc"):
    """Of a version whose quality is known well."""
    many, known = truth(base)
    real, picked = many.y_true, many.y_pred
    spans = {k: {"value": v, "low": v - 0.004, "high": v + 0.004} for k, v in known.items()}
    said = np.quantile(many.proba, np.linspace(0, 1, 500)).tolist()
    (tn, fp), (fn, tp) = confusion_matrix(real, picked).tolist()
    counts = {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    tested = {
        "n": 20_000, "threshold": base, "metrics": spans,
        "errors": dict.fromkeys(known, 0.002), "said": said,
        "confusion": counts,
    }  # fmt: skip
    content = EVIDENCE.content()
    stated = content["problem"] | {"metric": metric}
    return as_evidence(content | {"problem": stated, "decision": {"threshold": base}, "evaluation": tested})


def by_rows(part: Part) -> Part:
    return part._replace(drawn=Drawn())


def covered(part: Part, base: float) -> dict[str, bool]:
    """Which intervals there are, and which of them hold the truth."""
    found = quality_of(part, evidence(base), LOOSE)["realised"]
    return {k: e["low"] <= truth(base)[1][k] <= e["high"] for k, e in found.items() if e["low"] is not None}


def share_covered(subjects: int, base: float, count: int, seed: int, how=lambda part: part) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    held = pd.DataFrame([covered(how(window(rng, subjects, base)), base) for _ in range(count)])
    often = held.notna().sum() > count / 2
    held = held.loc[:, often].astype(float)
    return held.mean().to_dict()


def holds(found: dict[str, float], count: int) -> None:
    """As tests/stats/test_coverage.py asks: 93% less two Monte-Carlo errors each, 94 to 97% on average."""
    error = math.sqrt(0.93 * 0.07 / count)
    assert {k: v for k, v in found.items() if v < 0.93 - 2 * error - 1 / count} == {}
    assert 0.94 - 2 * error / math.sqrt(len(found)) <= np.mean(list(found.values())) <= 0.97 + error


@pytest.mark.parametrize("subjects", [60])
def test_intervals_of_a_window_cover(subjects):
    holds(share_covered(subjects, 0.3, 100, 1), 100)
    naive = share_covered(subjects, 0.3, 60, 1, by_rows)
    assert np.mean(list(naive.values())) < 0.85, "row by row they would not"


@pytest.mark.deep
@pytest.mark.parametrize("subjects", [60, 120, 200])
@pytest.mark.parametrize("base", [0.1, 0.3, 0.5])
def test_intervals_of_a_window_cover_in_full(subjects, base):
    holds(share_covered(subjects, base, 1000, subjects), 1000)
    naive = share_covered(subjects, base, 300, subjects, by_rows)
    assert np.mean(list(naive.values())) < 0.85


def alarms(subjects: int, count: int, seed: int, how=lambda part: part) -> dict[str, int]:
    """Undisturbed windows in which each test of quality would raise an alarm."""
    rng, told = np.random.default_rng(seed), {"quality": 0, "estimated": 0}
    for _ in range(count):
        p = quality_of(how(window(rng, subjects)), evidence(0.3, "brier"), LOOSE)["p"]
        for channel in told:
            told[channel] += p[channel] <= LOOSE.false_alarms * SHARES[channel]
    return told


def within(told: dict[str, int], count: int) -> None:
    for channel, n in told.items():
        assert stats.binom.sf(n - 1, count, LOOSE.false_alarms * SHARES[channel]) > 1e-3, (channel, n)


@pytest.mark.slow
def test_undisturbed_windows_keep_to_the_budget():
    within(alarms(60, 300, 3), 300)
    naive = alarms(60, 300, 3, by_rows)
    assert naive["quality"] > 300 * LOOSE.false_alarms * SHARES["quality"] * 2, "row by row they would not"


@pytest.mark.deep
@pytest.mark.parametrize("subjects", [25, 60, 200])
def test_undisturbed_windows_keep_to_the_budget_in_full(subjects):
    within(alarms(subjects, 3000, subjects), 3000)


def gaps_of_windows(subjects: int, jobs: int, count: int, seed: int, how=lambda part: part) -> tuple[int, dict[str, int]]:
    """Windows in which groups that are treated alike are told apart by some rate; and in how many each rate's is."""
    rng, any_, each = np.random.default_rng(seed), 0, dict.fromkeys(("demographic_parity", "equal_opportunity", "equalized_odds"), 0)
    for _ in range(count):
        found = groups_of(how(window(rng, subjects, 0.3, jobs)), evidence(0.3).problem, LOOSE)["job"]["gaps"]
        apart = {name: (found[f"{name}_difference"]["low"] or 0) > 0 for name in each}
        any_ += any(apart.values())
        for name, yes in apart.items():
            each[name] += yes
    return any_, each


def seldom(subjects: int, jobs: int, count: int) -> None:
    told, naive = (gaps_of_windows(subjects, jobs, count, 4, how)[1] for how in (lambda part: part, by_rows))
    for name, n in told.items():
        assert stats.binom.sf(n - 1, count, 0.05) > 1e-3, (name, n)
    assert naive["demographic_parity"] > 2 * 0.05 * count, "row by row they would be"


@pytest.mark.slow
def test_groups_that_are_treated_alike_are_told_apart_as_seldom_as_promised():
    seldom(60, 2, 60)


@pytest.mark.deep
@pytest.mark.parametrize(("subjects", "jobs"), [(60, 2), (200, 5), (200, 20)])
def test_groups_that_are_treated_alike_are_told_apart_as_seldom_as_promised_in_full(subjects, jobs):
    seldom(subjects, jobs, 400)


# What is read from the log, and what is said

REFERENCE = make_reference(1, EVIDENCE, people(2000))


def about(rows: pd.DataFrame, who: list[str | None], tag: str = "") -> list:
    return [r._replace(subject=w) for r, w in zip(records(rows, NOON, tag=tag), who, strict=True)]


def labelled(place, made: list, labels) -> None:
    Feedback(place.home).put([Item(r.id, label, at=NOON + timedelta(hours=1)) for r, label in zip(made, labels, strict=True)])


def true_labels(rows: int, seed: int = 0) -> list[str]:
    from tests.monitoring.test_monitor import chances

    return np.where(np.random.default_rng(seed).random(rows) < chances(people(rows)), "yes", "no").tolist()


def report_of(place, who: list[str | None], labels: list[str] | None = None) -> Report:
    made = about(people(len(who)), who)
    write(place, made)
    labelled(place, made, labels or true_labels(len(who)))
    (report,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=2))[:1]
    assert reports(place.home, "shop")[0] == report, "what is kept can be read"
    return report


def test_a_window_counts_its_subjects(place):
    """Ten rows of each: intervals are wider than of as many rows of nobody known, and the report says why."""
    report = report_of(place, [f"c{i // 10}" for i in range(600)])
    (part,) = report.parts
    assert any("count 60 subjects, not 600 rows" in note for note in part.notes)
    alone = quality_of(by_rows_of(place), EVIDENCE, RULES)["realised"]["accuracy"]
    assert part.quality["realised"]["accuracy"]["value"] == alone["value"] and part.quality["realised"]["accuracy"]["error"] != alone["error"]
    assert part.quality["p"]["quality"] is not None and part.quality["why"] == ""


def by_rows_of(place) -> Part:
    from mlops_nb.monitoring.windows import part_of

    return by_rows(part_of(hour(place), 1, EVIDENCE))


def test_a_log_without_subjects_says_that_rows_are_taken_as_independent(place):
    (part,) = report_of(place, [None] * 300).parts
    assert any("each of 300 rows is taken as drawn by itself, for none names a subject" in note for note in part.notes)


def test_rows_that_name_nobody_count_by_themselves(place):
    (part,) = report_of(place, [f"c{i // 10}" if i < 300 else None for i in range(400)]).parts
    assert any("count 130 subjects, not 400 rows" in n and "100 rows name none" in n for n in part.notes)


def test_subjects_of_one_row_each_are_rows(place):
    (part,) = report_of(place, [f"c{i}" for i in range(300)]).parts
    assert any("no two of 300 rows share a subject" in note for note in part.notes)


def test_a_logged_group_of_the_charter_stands_in():
    rows = pd.DataFrame({"subject": [None] * 4, "time": pd.date_range("2025-01-15", periods=4, freq="h"), "inputs": ['{"club": "a", "id": 1}', '{"club": "b", "id": 2}', '{"club": "a"}', "[" * 5000]})
    stated = EVIDENCE.content()
    by_club = as_evidence(stated | {"division": {"strategy": "group", "by": "club"}})
    found = drawn_of(rows, by_club)
    assert (found.by, found.codes.tolist(), found.nameless) == ("club", [0, 1, 0, 2], 1)
    by_id = as_evidence(stated | {"problem": stated["problem"] | {"id": "id"}})
    assert drawn_of(rows, by_id).by == "id" and drawn_of(rows, by_id).codes is None
    assert drawn_of(rows, EVIDENCE) == Drawn()
    in_time = drawn_of(pd.concat([rows] * 25, ignore_index=True), as_evidence(stated | {"division": {"strategy": "time", "by": "day"}}))
    assert in_time.by == "time" and in_time.draws == 10


def test_one_subject_says_nothing_about_others(place):
    (part,) = report_of(place, ["ada"] * 300, ["no"] * 299 + ["yes"]).parts
    assert part.quality["p"]["quality"] is None and part.quality["p"]["estimated"] is None
    assert "labels about 1 subject are too few" in part.quality["why"] and part.quality["why"] in part.notes
    span = part.quality["realised"]["accuracy"]
    assert span["high"] - span["low"] > 0.5 and part.quality["realised"]["roc_auc"]["low"] is None
    assert not part.quality_down and all(b["seen"]["high"] - b["seen"]["low"] > 0.5 for b in part.quality["calibration"]["bins"])
    assert part.quality["calibration"]["p"] is None and set(part.groups["job"]["small"]) == set(part.groups["job"]["rates"])


@pytest.mark.parametrize("who", [[None] * 300, [f"c{i // 5}" for i in range(300)]])
def test_one_class_in_a_window(place, who):
    (part,) = report_of(place, who, ["no"] * 300).parts
    assert part.quality["realised"]["roc_auc"]["value"] is None and "roc_auc is undefined on these labels" in part.quality["why"]
    assert part.quality["why"] in part.notes and not part.quality_down


def test_few_positives_raise_an_alarm_without_an_interval(place):
    """Eight positives are too few for an interval, and enough to see that ranks are upside down."""
    from tests.monitoring.test_monitor import chances

    rows = people(300)
    worst = np.argsort(chances(rows))[1:60:8]
    (part,) = report_of(place, [None] * 300, ["yes" if i in worst else "no" for i in range(300)]).parts
    assert part.quality["realised"]["roc_auc"]["low"] is None and "too few for an interval" in part.quality_down


def test_labels_that_come_late_change_what_is_said(place):
    made = about(people(400), [f"c{i // 4}" for i in range(400)])
    write(place, made)
    labelled(place, made[:60], true_labels(60))
    (first,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1))
    assert "labels about 15 subjects are too few" in first.parts[0].quality["why"] and first.parts[0].looks == 1
    labelled(place, made[60:], true_labels(400)[60:])
    (again,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1, minutes=5))
    part = again.parts[0]
    assert part.quality["why"] == "" and part.quality["p"]["quality"] is not None and not any("too few to judge" in n for n in part.notes)


def still(n: int, who, **how) -> Part:
    """Nothing varies: one chance, one decision, one label."""
    return Part(1, n, pa.table({"job": ["clerk"] * n}), np.ones(n, bool), np.full(n, 0.7), np.ones(n, bool), np.ones(n, bool), {}, [], who)._replace(**how)


@pytest.mark.parametrize("who", [Drawn(), Drawn("subject", np.arange(400) // 4), Drawn("subject", np.zeros(400, int))])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_zero_variance(who, task):
    part, stated = still(400, who), EVIDENCE.content()
    if task == "multiclass":
        part = part._replace(proba=np.tile([0.6, 0.2, 0.2], (400, 1)), y_pred=np.array(["a"] * 400, object), y_true=np.array(["a"] * 400, object))
    if task == "regression":
        part = part._replace(proba=None, y_pred=np.full(400, 3.0), y_true=np.full(400, 3.0))
    metric, classes = {"binary": ("log_loss", ["no", "yes"]), "multiclass": ("roc_auc_ovr", list("abc")), "regression": ("r2", None)}[task]
    positive, sensitive = ("yes", stated["problem"]["sensitive"]) if task == "binary" else (None, [])
    shown = as_evidence(stated | {
        "problem": stated["problem"] | {"task": task, "metric": metric, "positive": positive, "sensitive": sensitive},
        "schema": stated["schema"] | {"classes": classes}, "evaluation": {"n": 500, "metrics": {metric: {"value": 0.4, "low": 0.3, "high": 0.5}}},
    })  # fmt: skip
    found = quality_of(part, shown, RULES)
    assert found["p"]["quality"] is None and found["why"], "nothing varies, so nobody knows how much it might"
    msgspec.json.encode(found | groups_of(part, shown.problem, RULES))


@pytest.mark.parametrize("groups", [200, 10_000])
def test_groups_that_are_all_tiny(groups):
    """Two or three subjects each: all are marked as small, and none is told apart from the others."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(2 * groups), 2)
    part = still(4 * groups, Drawn("subject", who), inputs=pa.table({"job": [f"g{w // 2}" for w in who]}), y_true=rng.random(4 * groups) < 0.4, y_pred=(rng.random(2 * groups) < 0.5)[who])
    found = groups_of(part, EVIDENCE.problem, RULES)["job"]
    assert len(found["small"]) == len(found["rates"]) == groups
    gap = found["gaps"]["demographic_parity_difference"]
    assert gap["value"] == 1 and gap["low"] == 0 and gap["chance_end"] > 0.9


def test_ten_thousand_subjects():
    rng = np.random.default_rng(1)
    part = window(rng, 10_000, 0.3, 3)
    found, groups = quality_of(part, evidence(0.3), LOOSE), groups_of(part, evidence(0.3).problem, LOOSE)["job"]
    span = found["realised"]["roc_auc"]
    assert 0 < span["high"] - span["low"] < 0.02 and found["p"]["quality"] > 0.001 and not groups["small"]


def test_a_measure_that_is_undefined_on_most_draws_has_no_interval():
    """Five positives, all of one subject: a third of the resamples has none."""
    who = np.arange(300) // 10
    y_true = who == 0
    y_true[5:] = False
    found = realised(y_true, np.linspace(0, 1, 300), y_true, {"own": lambda real, proba, picked: proba[real].mean() if real.any() else math.nan}, units=who, resamples=200)["own"]
    assert math.isfinite(found.value) and math.isnan(found.low + found.high + found.error)


def test_a_part_with_subjects_is_looked_at_as_a_whole():
    part = window(np.random.default_rng(2), 100)
    bare = make_reference(1, evidence(0.3), people(500))._replace(profile=None, why="they are gone")
    made, channels = look_at_part(part._replace(rows=len(part.y_true)), bare, LOOSE)
    assert {"quality", "estimated"} <= set(channels) and any("100 subjects" in note for note in made.notes)
    msgspec.json.encode(made)
