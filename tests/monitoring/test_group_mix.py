"""Which groups are watched, against which others, and what of the budget they spend over all looks at a window."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from tests.monitoring.streams import START
from tests.monitoring.test_monitor import EVIDENCE, REFERENCE, chances, people
from tests.monitoring.test_monitor import RULES as HOURLY

from mlops_nb.base.charter import Monitoring
from mlops_nb.monitoring.awaited import Late
from mlops_nb.monitoring.groups import WATCHED, groups_said, watch
from mlops_nb.monitoring.judge import SHARES, judge_again
from mlops_nb.monitoring.null import Judged, Null, windows_before
from mlops_nb.monitoring.reports import PartReport, Report
from mlops_nb.monitoring.windows import Part
from mlops_nb.stats.alarm import judge

RULES = Monitoring(window="day")
ROWS = Null("rows", "", True)
SPOKEN = EVIDENCE.problem.model_copy(update={"metric": "accuracy", "fairness": []})


def picked_of(rng, sizes: dict[str, int], rate, t: int) -> dict:
    """What a report keeps of groups whose rows have no label yet."""
    told = {}
    for group, n in sizes.items():
        x = rng.binomial(n, rate(t, group)) / n
        told[group] = {"value": x, "error": float(np.sqrt(x * (1 - x) / n)), "n": n}
    return {"labelled": False, "rates": {}, "picked": told, "drawn": {}}


def course_of(sizes, rate, count: int = 40, seed: int = 0) -> list[tuple[PartReport, list]]:
    """Daily windows of one feature, each judged with those before; sizes(t, rng): rows by group."""
    rng, past, found = np.random.default_rng(seed), [], []
    for t in range(count):
        part = PartReport(1, 2000, 2000, True, features=[{"name": "age", "counts": [1]}], promise="kept")
        part.groups = {"sex": picked_of(rng, sizes(t, rng), rate, t)}
        report = Report("shop", START + timedelta(days=t), START + timedelta(days=t + 1), 2000, [part])
        p = {k: j.p for k, j in watch(part, ROWS, windows_before(past, report, 1), report, SPOKEN, RULES).items()}
        alarms = judge({"groups": p}, 0.01, {"groups": SHARES["groups"]}) if p else []
        part.alarms = [a._asdict() | {"windows": 1} for a in alarms]
        past.append(report)
        found.append((part, alarms))
    return found


def test_of_two_groups_the_same_one_is_watched_whichever_is_larger():
    def halves(t, rng):
        women = int(rng.binomial(2000, 0.5))
        return {"M": 2000 - women, "F": women}

    made = course_of(halves, lambda t, g: 0.52 if g == "F" and t >= 20 else 0.4)
    assert {tuple(part.groups["sex"]["watched"]) for part, _ in made} == {("sex = F: selection_rate",)}
    assert sum(bool(alarms) for _, alarms in made[22:]) >= 15 and not any(alarms for _, alarms in made[:20])


MIXES = {
    "one comes": lambda t, rng: {"B": 600, "C": 400} | ({"A": 1000} if t >= 20 else {}),
    "one goes": lambda t, rng: {"B": 600, "C": 400} | ({"A": 1000} if t < 20 else {}),
    "one grows": lambda t, rng: {"A": 1000 if t >= 20 else 100, "B": 600, "C": 400},
    "one shrinks": lambda t, rng: {"A": 1000 if t < 20 else 300, "B": 600, "C": 400},
}


@pytest.mark.parametrize("how", MIXES)
def test_another_mix_of_groups_is_no_change_of_a_group(how):
    """A differs from the others and always did; that there is more or less of it says nothing of B and C."""
    for seed in range(3):
        found = course_of(MIXES[how], lambda t, g: 0.2 if g == "A" else 0.5, seed=seed)
        assert not [a for _, alarms in found for a in alarms]
        moved = course_of(MIXES[how], lambda t, g: {"A": 0.2, "B": 0.62 if t >= 20 else 0.5}.get(g, 0.5), seed=seed)
        assert any(a.what.startswith("sex = B") for _, alarms in moved[20:30] for a in alarms)


def test_groups_beyond_those_watched_are_counted_and_among_the_others():
    names = [f"g{i:02}" for i in range(WATCHED + 20)]
    made = course_of(lambda t, rng: {g: 100 if i < WATCHED else 90 for i, g in enumerate(names)}, lambda t, g: 0.4, 12)
    part = made[-1][0]
    assert len(part.groups["sex"]["watched"]) == WATCHED and part.groups["sex"]["unwatched"] == 20
    assert groups_said(part)[0].endswith(f"20 smaller groups of sex are not watched, {WATCHED} are")
    few = course_of(lambda t, rng: {"A": 100, "B": 90, "C": 90}, lambda t, g: 0.4, 12)[-1][0]
    assert "not watched" not in groups_said(few)[0]


def test_late_labels_leave_what_needs_none_in_the_report():
    made = course_of(lambda t, rng: {"A": 500, "B": 300, "C": 200}, lambda t, g: 0.4, 21)
    past = [Report("shop", START + timedelta(days=t), START + timedelta(days=t + 1), 1000, [p]) for t, (p, _) in enumerate(made)]
    (last, report), before = (made[-1][0], past[-1]), windows_before(past[:-1], past[-1], 1)
    first = dict(last.groups["sex"]["watched"])
    assert first and watch(last, ROWS, before, report, SPOKEN, RULES, again=True) == {}
    assert last.groups["sex"]["watched"] == first
    report.preliminary = True
    assert watch(last, ROWS, [], report, SPOKEN, RULES) == {}
    assert "the window isn't over" in groups_said(last)[0] and "windows before have it" not in groups_said(last)[0]


@pytest.mark.parametrize("share", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("waits", ["", "some outcome is slow"])
def test_groups_spend_no_more_than_their_share(share, waits, monkeypatch):
    """Over the first look and any number of later ones, whatever had arrived and whether the quality waited."""
    import mlops_nb.monitoring.judge as judging

    spent, usual = [], judging._judged
    monkeypatch.setattr(judging, "_judged", lambda p, b, s, e: (spent.append(s * ("groups" in p)), usual(p, b, s, e))[1])
    monkeypatch.setattr(judging, "watch", lambda *a, **k: {"job = cook: selection_rate": Judged(0.5, 0.0)})
    rows, n = people(400, 3), int(400 * share)
    chance = chances(rows)
    known, real = np.arange(400) < n, np.random.default_rng(0).random(400) < chance
    part = Part(1, 400, pa.Table.from_pandas(rows, preserve_index=False), chance >= 0.5, chance, known, real[known], {}, [])
    made, _ = judging.look_at_part(part, REFERENCE, HOURLY, late=Late(n, waits=waits))
    monkeypatch.setattr(judging, "evenly", lambda window, *rest: (window, Late(400)))
    monkeypatch.setattr(judging, "part_of", lambda *rest: part)
    report = Report("shop", START, START + timedelta(hours=1), 400, [made])
    for _ in range(6 if not made.looks or 2 * n <= 400 else 0):  # else labels can't double
        judge_again(made, None, REFERENCE, HOURLY, report)
    assert 0.5 <= sum(spent) <= 1
