"""Groups over time: no alarms beyond their share of the budget, a drop in one group is found, and what can't be judged is said."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from tests.monitoring.groups import NULLS, first, watched
from tests.monitoring.streams import Shift, World, judged, reference_of_kind, windows

from mlops_nb.base.charter import Monitoring
from mlops_nb.cli.monitoring import window_lines
from mlops_nb.log.events import Alerts
from mlops_nb.monitoring.groups import groups_said
from mlops_nb.monitoring.judge import SHARES, judge_again, look
from mlops_nb.monitoring.reports import Report, tell
from mlops_nb.stats.held import Course, held

DROP = Shift(at=30, right=1.25)  # in Jena, 15% of the rows, decisions are right in 70% instead of 87%


def test_the_shares_are_the_whole_budget():
    assert sum(SHARES.values()) == pytest.approx(1)


def quiet(kind: str, count: int, seed: int, least: int) -> None:
    """No more alarms than the share of groups, and p-values that are no smaller than chance makes them."""
    found = [w for w in watched(kind, count, seed) if w.p]
    assert len(found) >= least
    alarms = sum(bool(w.alarms) for w in found)
    assert stats.binom.sf(alarms - 1, len(found), 0.01 * SHARES["groups"]) > 1e-3, alarms
    low = sum(min(w.p.values()) * len(w.p) <= 0.05 for w in found)
    assert low <= 0.15 * len(found), "windows that are taken together go together"


@pytest.mark.parametrize("kind", ["independent", "crowd"])
def test_undisturbed_groups_raise_no_alarm(kind):
    quiet(kind, 40, 5, 20)


@pytest.mark.deep
@pytest.mark.parametrize("kind", NULLS)
def test_undisturbed_groups_raise_no_alarm_in_full(kind):
    """Five groups, two of them of 5% of the rows."""
    quiet(kind, 520 if kind == "hourly" else 330, 5, 300)


def test_a_drop_in_one_group_is_found_where_the_whole_shows_nothing():
    found = watched("independent", 42, 100, DROP)
    assert first([any("Jena" in a for a in w.alarms) for w in found[30:]]) <= 8
    assert not any(a for w in found for a in w.alarms if "Jena" not in a)


@pytest.mark.deep
@pytest.mark.parametrize(("kind", "at", "within"), [("independent", 30, 8), ("pairs", 30, 12), ("crowd", 60, 24), ("serial", 60, 16), ("wander", 60, 16)])
def test_a_drop_in_one_group_is_found_in_full(kind, at, within):
    """In half of the streams within so many windows."""
    delay = [first([any("Jena" in a for a in w.alarms) for w in watched(kind, at + 24, 100 + s, DROP._replace(at=at))[at:]]) for s in range(5)]
    assert np.median(delay) <= within, delay


@pytest.fixture(scope="module")
def dropped() -> list[Report]:
    return judged("independent", 38, 1, DROP, labels=True, classifier=False)


def test_report_command_and_alert_say_which_group(dropped, tmp_path):
    last = next(r for r in dropped[30:] if r.every_alarm)
    (alarm, *_) = [a for a in last.every_alarm if a["channel"] == "groups" and "accuracy" in a["what"]]
    assert alarm["what"] == "city = Jena: accuracy" and "accuracy for city = Jena is 0." in alarm["said"] and "windows before" in alarm["said"]
    assert alarm["threshold"] <= 0.01 * SHARES["groups"] and "groups" in last.channels
    lines = window_lines(last)
    assert any(line.startswith("  ALARM groups: accuracy for city = Jena") for line in lines) and any("by group, 20 of 20 figures" in line for line in lines)

    class Place:
        home, log_url = tmp_path, ""

    tell(Place, last)
    (one,) = [a for a in Alerts(tmp_path).list(10) if a.key == "shop/groups"]
    assert "a group is served worse" in one.title and "city = Jena" in one.cause and one.severity == "critical"
    assert msgspec.json.decode(msgspec.json.encode(last), type=Report) == last


def test_few_windows_and_few_labels_are_said(dropped):
    early, (note,) = dropped[3].parts[0], groups_said(dropped[3].parts[0])
    assert note in early.notes and "by group, 0 of 20 figures" in note and "3 windows before have it, 8 are needed" in note
    assert "groups" not in dropped[3].channels and "groups" in dropped[20].channels


def of_people(window, people: int):
    """The rows of a window, by so many people."""
    at = window.table.column_names.index("subject")
    return window._replace(table=window.table.set_column(at, "subject", pa.array([f"p{i % people}" for i in range(window.rows)])))


@pytest.mark.parametrize("labels", [True, False])
def test_one_person_in_each_window_says_nothing_of_groups(labels):
    reference, world = reference_of_kind.__wrapped__("independent", 4, labels=True)
    reference, past = reference._replace(some=reference.some[:19]), []
    for window in windows(world, 12, 200, labels=labels):
        past.append(look(of_people(window, 1), {1: reference}, Monitoring(min_rows=100), past))
    (note,) = groups_said(past[-1].parts[0])
    assert "0 of" in note and "25 are needed" in note and not any(a["channel"] == "groups" for r in past for a in r.every_alarm)


def test_late_labels_judge_groups_with_half_of_what_was_left():
    """The drop's labels come after the window was looked at: what needs none is not judged twice."""
    reference, world = reference_of_kind.__wrapped__("independent", 1, labels=True)
    reference, past = reference._replace(some=reference.some[:19]), []
    for window in windows(world, 24, 500, DROP._replace(at=16, right=4.0), labels=True):
        past.append(look(window, {1: reference}, Monitoring(), past))
    bare = window._replace(table=window.table.set_column(window.table.column_names.index("label"), "label", pa.nulls(window.rows, pa.string())))
    report = look(bare, {1: reference}, Monitoring(), past[:-1])
    assert set(report.parts[0].groups["city"]["watched"]) == {f"city = {g}: selection_rate" for g in ("Kiel", "Bonn", "Jena", "Ulm", "Hof")}
    judge_again(report.parts[0], window, reference, Monitoring(), report, past[:-1])
    found = [a for a in report.every_alarm if a["channel"] == "groups"]
    assert any(a["what"] == "city = Jena: accuracy" for a in found) and not any("selection" in a["what"] for a in found)
    assert max(a["threshold"] for a in found) <= 0.01 * SHARES["groups"] / 4
    before = list(report.every_alarm)
    judge_again(report.parts[0], window, reference, Monitoring(), report, past[:-1])
    assert [a for a in report.every_alarm if a in before] == before and len({a["what"] for a in found}) == len(found)


def test_a_reference_of_another_season_is_said():
    """Training rows of a time in which all was different: the inputs differ in every window, and the report says what that is."""
    reference, _ = reference_of_kind("independent", 6)
    reference, past = reference._replace(some=reference.some[:19]), []
    for window in windows(World("independent", 7), 10, 300, Shift(at=0, moved=1.5)):
        past.append(look(window, {1: reference}, Monitoring(), past))
    assert all(r.parts[0].told("drift") for r in past)
    said = ["training rows of another season" in " ".join(r.parts[0].notes) for r in past]
    assert said == [False] * 8 + [True] * 2


def test_a_group_that_never_errs_and_one_of_a_row_a_window():
    sure = Course(np.zeros(20), np.zeros(20), np.full(20, 30.0))
    assert held(sure, np.ones(20, bool)).p == 1.0
    one = Course(np.append(np.zeros(19), 1.0), np.zeros(20), np.ones(20))
    assert held(one, np.ones(20, bool)).p is None, "one row that goes wrong is no news"
    nowhere = Course(np.full(20, np.nan), np.full(20, np.nan), np.zeros(20))
    assert held(nowhere, np.ones(20, bool)).why == "this window has no figure"


def test_the_charters_rules_choose_the_rates():
    from mlops_nb.monitoring.groups import _rates
    from mlops_nb.model.problem import Problem

    stated = {"name": "shop", "goal": "Whom to call.", "task": "binary", "target": "buys", "positive": "yes", "metric": "accuracy", "data": {"source": "shop.csv"}, "sensitive": [{"name": "city", "column": "city"}]}
    rule = {"metric": "equal_opportunity_ratio", "by": "city", "at_least": 0.8, "reason": "alike"}
    assert _rates(Problem.model_validate(stated), "city") == ["selection_rate", "true_positive_rate", "false_positive_rate"]
    assert _rates(Problem.model_validate(stated | {"fairness": [rule]}), "city") == ["true_positive_rate"]
