"""Alarms keep to the budget where rows are not drawn one by one, or say that nothing is promised; what changes is found there, too."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from tests.monitoring.streams import KINDS, START, Shift, World, judged, reference_of_kind, windows

from mlops_nb.base.charter import Monitoring
from mlops_nb.monitoring.judge import look
from mlops_nb.monitoring.reports import Report
from mlops_nb.stats.past import MIN_RANKED, each_p, past_p, varies_p

BUDGET = 0.01


def alarmed(found: list[Report]) -> list[int]:
    """Windows in which a promise was made, and an alarm was raised."""
    return [i for i, r in enumerate(found) if r.every_alarm and r.parts[0].promise]


def promised(found: list[Report]) -> list[int]:
    return [i for i, r in enumerate(found) if r.parts and r.parts[0].promise]


def keeps_its_word(found: list[Report], least: int) -> None:
    """Promises are made, and there no more windows have an alarm than chance would give at the budget (1 in 1,000)."""
    n, hits = len(promised(found)), len(alarmed(found))
    assert n >= least, found[-1].parts[0].notes
    assert stats.binom.sf(hits - 1, n, BUDGET) > 1e-3, (hits, n, alarmed(found))


def nulls(found: list[Report]) -> list[str]:
    return [r.parts[0].null for r in found]


@pytest.mark.parametrize(("kind", "null"), [("independent", "rows"), ("pairs", "subjects"), ("crowd", "subjects")])
def test_a_few_windows(kind, null):
    """Eight are needed for a promise; until then the report says that none is made."""
    found = judged(kind, 11, seed=1, rows=300, classifier=False)
    assert set(nulls(found)) == {null} and promised(found) == [8, 9, 10] and not any(r.every_alarm for r in found)
    assert all("no promise yet" in r.parts[0].notes[-1] for r in found[:8])
    kept = msgspec.json.decode(msgspec.json.encode(found[-1]), type=Report)
    assert kept == found[-1], "what is kept can be read"


def test_rows_that_resemble_the_row_before_raise_nothing_until_windows_are_known():
    found = judged("serial", 5, seed=1, rows=300, classifier=False)
    assert set(nulls(found)) == {""} and not any(r.every_alarm for r in found)
    assert all("rows resemble the row before" in r.parts[0].notes[-1] and not r.parts[0].promise for r in found)
    assert all(f["p"] is None and not f["drifted"] for r in found for f in r.parts[0].features)


def test_hours_that_differ_are_known_by_the_fifth():
    """The first windows look like drift, and nothing tells them from it; an alarm says that it promises nothing."""
    found = judged("hourly", 6, seed=1, rows=300, classifier=False)
    assert nulls(found)[3:] == [""] * 3 and not promised(found) and not found[-1].every_alarm
    assert all("no promise yet" in a["said"] for r in found[:2] for a in r.every_alarm)


def test_an_early_incident_is_no_variation():
    """Two windows that are disturbed, among the first four: the fourth is judged by its rows."""
    world = World("independent", 3)
    reference, _ = reference_of_kind("independent", 3)
    reference = reference._replace(some=reference.some[:19])
    past: list[Report] = []
    shifts = [Shift(), Shift(at=0, moved=1.0), Shift(at=0, moved=1.0), Shift()]
    for t, made in enumerate(next(windows(world, 1, 300, s)) for s in shifts):
        span = made.end - made.start
        moved = made._replace(start=START + t * span, end=START + (t + 1) * span)
        past.append(look(moved, {1: reference}, Monitoring(), past))
    assert nulls(past) == ["rows"] * 4 and [bool(r.every_alarm) for r in past] == [False, True, True, False]


def test_small_shares_are_seen_in_several_windows_together():
    """5% become 9%: by the fourth window in each of three streams."""
    for seed in (1, 2, 3):
        found = judged("independent", 4, seed, Shift(at=0, share=0.09), classifier=False)
        assert any(r.every_alarm for r in found), seed


@pytest.mark.parametrize("windows_", [0, 1, 3])
def test_few_windows_have_no_past(windows_):
    means = np.zeros((windows_ + 1, 2))
    p, known = past_p(means, np.ones((windows_ + 1, 2)), np.arange(windows_ + 1))
    assert np.isnan(p).all() and known == windows_ and varies_p(means[:windows_], np.ones((windows_, 2))) == 1.0


def test_clocks_that_jump_and_empty_windows():
    """Windows that are missing, twice there, or out of order; one without rows, one with one subject."""
    reference, world = reference_of_kind("crowd", 5)
    reference = reference._replace(some=reference.some[:19])
    made = list(windows(world, 12, 300))
    span, past = made[0].end - made[0].start, []
    for t in (0, 1, 1, 9, 3, 30, 2, 31, 32, 33, 34):
        window = made[t % 12]._replace(start=START + t * span, end=START + (t + 1) * span)
        past.append(look(window, {1: reference}, Monitoring(), past))
    empty = made[0]._replace(start=START + 40 * span, end=START + 41 * span, rows=0, table=made[0].table.slice(0, 0))
    past.append(look(empty, {1: reference}, Monitoring(), past))
    at = made[1].table.column_names.index("subject")
    one = made[1].table.set_column(at, "subject", pa.array(["ada"] * made[1].rows))
    alone = look(made[1]._replace(start=START + 41 * span, end=START + 42 * span, table=one), {1: reference}, Monitoring(), past)
    assert alone.parts[0].null == "subjects" and not alone.every_alarm, "one person says nothing about others"
    assert past[-1].parts == []


@pytest.mark.parametrize("skew", [False, True])
def test_the_past_is_a_null_for_windows_that_are_far_from_normal(skew):
    """Means as skewed as fourth powers: the surprise of a window among the surprises of those before."""
    rng, hits, count = np.random.default_rng(4), 0, 400
    for _ in range(count):
        base = rng.normal(size=(60, 5))
        means = base**4 if skew else base
        p, _ = past_p(means, np.full((60, 5), 1e-9), np.arange(60))
        hits += p.min() * 5 <= 0.01
    assert stats.binom.sf(hits - 1, count, 0.01) > 1e-3, hits


def test_each_window_against_the_others_is_students_test():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(12, 2))
    others = np.delete(means, 3, axis=0)
    t = (means[3] - others.mean(axis=0)) / (others.std(axis=0, ddof=1) * np.sqrt(1 + 1 / 11))
    assert np.allclose(each_p(means, np.zeros((12, 2)))[3], 2 * stats.t.sf(np.abs(t), 10))
    assert MIN_RANKED <= 20


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("serial", 60), ("wander", 60), ("crowd", 40), ("independent", 40)])
def test_undisturbed_windows_keep_the_promise(kind, count):
    keeps_its_word(judged(kind, count, seed=7, classifier=False), count - MIN_RANKED - 5)


@pytest.mark.slow
def test_hours_are_held_against_the_same_hour():
    """From the ninth day on a promise is made; a shift of 0.4 standard deviations is found within the day."""
    found = judged("hourly", 230, seed=7, shift=Shift(at=210, moved=0.4), rows=300, classifier=False)
    held = {(r.parts[0].null, r.parts[0].season) for r in found[200:] if r.parts[0].judged}
    assert held == {("past", 24)} and not alarmed(found[:210]), "some hours have too few rows to be judged"
    assert any(r.every_alarm for r in found[210:])


#: Windows of a stream: hours are promised anything after eight days, and 500 windows more are asked for.
LONG = {"hourly": 700, "wander hourly": 700}


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_undisturbed_windows_keep_the_promise_in_full(kind):
    """The classifier on, labels known, five groups: at most the stated rate; its one-sided 99% bound is at most twice that."""
    found = judged(kind, LONG.get(kind, 520), seed=11, labels=True)
    n, hits = len(promised(found)), len(alarmed(found))
    assert n >= 450, found[-1].parts[0].notes
    assert hits <= BUDGET * n and stats.beta.ppf(0.99, hits + 1, n - hits) <= 2 * BUDGET, (hits, n, alarmed(found))


@pytest.mark.deep
@pytest.mark.parametrize(("kind", "at", "within"), [("independent", 20, 1), ("pairs", 20, 1), ("crowd", 100, 16), ("serial", 100, 16), ("wander", 100, 24)])
def test_a_shift_is_found_in_full(kind, at, within):
    """0.4 standard deviations of one feature; before it no more alarms than the stated rate gives 95 streams in 100."""
    found = judged(kind, at + within, seed=12, shift=Shift(at=at, moved=0.4), labels=True)
    n, hits = len(promised(found[:at])), len(alarmed(found[:at]))
    assert any(r.every_alarm for r in found[at:]) and hits <= stats.binom.ppf(0.95, n, BUDGET), (hits, n)
