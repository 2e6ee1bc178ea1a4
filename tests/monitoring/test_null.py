"""What a window is held against: reports of any age, labels that come late, and a window that isn't over."""

# ruff: noqa: F811 - a fixture of test_monitor

from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from tests.monitoring.streams import START, World, reference_of_kind, windows
from tests.monitoring.test_monitor import CHARTER, NOON, people, place, records, write  # noqa: F401

from mlops_nb.base.charter import Monitoring
from mlops_nb.monitoring import judge
from mlops_nb.monitoring.due import look_now, monitor_due
from mlops_nb.monitoring.judge import judge_again, look
from mlops_nb.monitoring.null import Null
from mlops_nb.monitoring.reference import Reference
from mlops_nb.monitoring.reports import Report
from mlops_nb.monitoring.windows import Window

NOON_OF_DAY_TEN = 10 * 24 + 12
RULES = Monitoring(window="hour", min_labels=100)


def hours_of(kind: str, seed: int = 3, rows: int = 500) -> tuple[Reference, Window]:
    reference, _ = reference_of_kind(kind, seed, window="hour")
    return reference._replace(some=reference.some[:19]), next(windows(World(kind, seed, "hour"), 1, rows))


def at(window: Window, t: int) -> Window:
    return window._replace(start=START + timedelta(hours=t), end=START + timedelta(hours=t + 1))


def copied(report: Report, t: int, **told) -> Report:
    """The same report of another hour, as it is kept; `told` is written into its part, None: it isn't there."""
    content = msgspec.json.decode(msgspec.json.encode(report))
    part = content["parts"][0] | told
    content["parts"] = [{k: v for k, v in part.items() if v is not None}]
    spans = {"start": START + timedelta(hours=t), "end": START + timedelta(hours=t + 1)}
    return msgspec.convert(content | spans, Report, strict=False)


def old(report: Report, t: int) -> Report:
    """As it was kept before counts and nulls were."""
    part, new = report.parts[0], ("counts", "serial")
    kept = {"features": part.features, "predictions": part.predictions}
    bare = {name: [{k: v for k, v in f.items() if k not in new} for f in rows] for name, rows in kept.items()}
    return copied(report, t, null=None, season=None, promise=None, **bare)


def quality_of_hours(report: Report, day: float, night: float) -> list[Report]:
    """Ten days and a half in which the quality was this, but for a little."""
    rng, told = np.random.default_rng(1), report.parts[0].quality
    values = [(day if 6 <= t % 24 < 18 else night) + rng.normal(0, 0.01) for t in range(NOON_OF_DAY_TEN)]
    return [copied(report, t, quality=told | {"realised": {"roc_auc": {"value": v}}}) for t, v in enumerate(values)]


def labelled(window: Window, right: bool, subjects: int = 0) -> Window:
    """Labels as the model says chances are, or the other way round; by a few subjects, where so many are asked for."""
    proba = np.array([msgspec.json.decode(o)["probability"] for o in window.table["output"].to_pylist()])
    yes = np.random.default_rng(2).random(len(proba)) < (proba if right else 1 - proba)
    columns = {"label": np.where(yes, "yes", "no")}
    if subjects:
        columns["subject"] = [f"c{i % subjects}" for i in range(len(proba))]
    table = window.table
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return window._replace(table=table)


def test_reports_from_before_counts_were_kept_are_no_windows_before():
    reference, window = hours_of("independent")
    first = look(window, {1: reference}, RULES)
    with_counts = [copied(first, t) for t in range(5)]
    past = [old(first, t) for t in range(30)]
    (part,) = look(at(window, 30), {1: reference}, RULES, past).parts
    assert not part.promise and part.notes[-1].endswith("after 8 windows, 0 are known")
    (part,) = look(at(window, 30), {1: reference}, RULES, [*past[5:], *with_counts]).parts
    assert part.notes[-1].endswith("5 are known")


def test_the_season_is_kept(monkeypatch):
    reference, window = hours_of("independent")
    monkeypatch.setattr(judge, "null_of", lambda *_: Null("past", "the same hour", True, 24))
    found = look(window, {1: reference}, RULES)
    assert found.parts[0].season == copied(found, 0).parts[0].season == 24 and old(found, 0).parts[0].season == 1


@pytest.mark.parametrize(("season", "down"), [(24, True), (1, False)])
def test_late_labels_are_held_against_the_same_hour(season, down):
    """About 0.75 at noon, where it is 0.9 by day and 0.7 by night."""
    reference, window = hours_of("independent")
    first = look(window, {1: reference}, RULES)
    report = copied(first, NOON_OF_DAY_TEN, null="past", season=season, promise="kept")
    part = report.parts[0]
    late = labelled(at(window, NOON_OF_DAY_TEN), right=True)
    judge_again(part, late, reference, RULES, report, quality_of_hours(first, 0.9, 0.7))
    assert 0.7 < part.quality["realised"]["roc_auc"]["value"] < 0.8 and bool(part.quality_down) == down


@pytest.mark.parametrize("right", [True, False])
def test_late_labels_of_an_old_report_are_judged_by_their_rows(right):
    reference, window = hours_of("independent")
    report = old(look(window, {1: reference}, RULES), 0)
    judge_again(report.parts[0], labelled(window, right), reference, RULES, report)
    assert bool(report.parts[0].quality_down) == (not right) and "quality" in report.channels


@pytest.mark.parametrize("subjects", [0, 3])
def test_a_quality_that_can_not_be_judged_is_not_judged_by_the_past(monkeypatch, subjects):
    """Labels the other way round; about three subjects, the report says that they are too few."""
    reference, window = hours_of("independent")
    first = look(window, {1: reference}, RULES)
    past = quality_of_hours(first, 0.9, 0.9)
    bad = labelled(at(window, NOON_OF_DAY_TEN), right=False, subjects=subjects)
    again = copied(first, NOON_OF_DAY_TEN, null="past", promise="kept")
    judge_again(again.parts[0], bad, reference, RULES, again, past)
    monkeypatch.setattr(judge, "null_of", lambda *_: Null("past", "windows before", True))
    at_once = look(bad, {1: reference}, RULES, past)
    for report in (again, at_once):
        part = report.parts[0]
        assert ("labels about 3 subjects are too few" in part.quality["why"]) == bool(subjects)
        assert bool(part.quality_down) == ("quality" in report.channels) == (not subjects)


def test_a_window_that_is_not_over_is_held_against_no_window_before(place):
    for h in range(9):
        write(place, records(people(120, h), NOON + timedelta(hours=h)))
    done = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=8))
    assert len(done) == 8 and "0 are known" in done[0].parts[0].notes[-1]
    running = look_now(place, CHARTER, "shop", NOON + timedelta(hours=8, minutes=55))
    (part,) = running.parts
    assert running.preliminary and part.judged and part.null == "rows" and not part.promise
    assert part.notes[-1].startswith("no promise: rows of a window that isn't over are not held against")
    (over,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=9))
    assert over.parts[0].promise, "once it is over, it is"


def test_half_a_day_of_rows_that_resemble_each_other_raises_nothing():
    """Its hours are not those of whole days: against these it would be found in each of three streams."""
    for seed in (1, 2, 3):
        reference, _ = reference_of_kind("hourly", seed, window="day")
        reference = reference._replace(some=reference.some[:19])
        made, past = list(windows(World("hourly", seed, "day"), 22, 500)), []
        for window in made[:21]:
            past.append(look(window, {1: reference}, Monitoring(), past))
        half = made[21]._replace(rows=250, table=made[21].table.slice(0, 250))
        assert look(half, {1: reference}, Monitoring(), past).parts[0].told("drift"), "called a whole day"
        cut = half._replace(end=half.start + timedelta(hours=12))
        running = look(cut, {1: reference}, Monitoring(), past, preliminary=True)
        assert not running.every_alarm and running.parts[0].null == "" and "isn't over" in running.parts[0].notes[-1]
