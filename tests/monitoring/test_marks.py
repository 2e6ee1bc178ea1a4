"""What happened around a window explains its alarms and silences none: releases, schemas, experiments, dates of a file."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.monitoring.test_monitor import CHARTER, NOON, people, place, records, write  # noqa: F401 - fixture

from mlops_nb.base.charter import Monitoring
from mlops_nb.log.events import Alerts, Events
from mlops_nb.monitoring import marks
from mlops_nb.monitoring.dates import read_dates
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.monitoring.marks import marked, marks_of
from mlops_nb.monitoring.reports import Mark, Report, reports
from mlops_nb.registry.versions import Change, Version

HOUR = timedelta(hours=1)


def at(moment: datetime, action: str = "promote", phase: str = "production") -> Change:
    return Change(at=moment.isoformat().replace("+00:00", "Z"), action=action, phase=phase, by="ada", reason="better")


def version(number: int, *events: Change) -> Version:
    return Version(name="shop", version=number, phase="production", created="", model_digest="", evidence_digest="", mlflow_run="", events=events)


def with_dates(place, text: str) -> Monitoring:  # noqa: F811
    (place.home / "dates.csv").write_text(text, encoding="utf-8")
    place.root = place.home
    return CHARTER.model_copy(update={"monitoring": CHARTER.monitoring.model_copy(update={"dates": "dates.csv"})})


def test_a_release_explains_an_alarm_and_silences_none(place, monkeypatch):  # noqa: F811
    place.registry_uri = "sqlite:///none.db"
    known = [version(1, at(NOON - 30 * HOUR)), version(2, at(NOON + timedelta(minutes=70)))]
    monkeypatch.setattr(marks, "versions", lambda uri, name: known)
    write(place, records(people(400, 1), NOON) + records(people(400, 2).assign(age=80.0), NOON + HOUR) + records(people(400, 3), NOON + 2 * HOUR))
    write(place, records(people(400, 4), NOON + 3 * HOUR))
    quiet, loud, after, later = monitor_due(place, CHARTER, "shop", NOON + 4 * HOUR)
    said = loud.part(1).told("drift")
    assert "'age' differs" in said and "2025-01-15 13:10 UTC: version 2 went into production, by ada: better (in this window)" in said
    assert [len(r.marks) for r in (quiet, loud, after, later)] == [0, 2, 2, 0] and not after.part(1).told("drift")
    assert {m.kind for m in loud.marks} == {"release", "schema"} and "is not known" in loud.marks[1].said  # that registry is gone
    (alert,) = [a for a in Alerts(place.home).list() if a.key == "shop/drift"]
    assert "version 2 went into production" in alert.cause
    assert reports(place.home, "shop")[1].marks == loud.marks  # kept
    monkeypatch.setattr(marks, "versions", lambda uri, name: [])
    (place.home / "monitoring" / "shop").rename(place.home / "monitoring" / "before")
    without = monitor_due(place, CHARTER, "shop", NOON + 4 * HOUR)[1].part(1).alarms
    assert [(a["what"], a["p"], a["threshold"]) for a in loud.part(1).alarms] == [(a["what"], a["p"], a["threshold"]) for a in without]


def test_in_the_window_before(place):  # noqa: F811
    charter = with_dates(place, "2025-01-15T11:58,a campaign starts\n2025-01-15T09:00,long over\n2025-01-15T13:00,yet to come\n")
    write(place, records(people(400, 2).assign(age=80.0), NOON))
    (report,) = monitor_due(place, charter, "shop", NOON + HOUR)
    assert [m.said for m in report.marks] == ["a campaign starts"]
    assert "2025-01-15 11:58 UTC: a campaign starts (in the window before)" in report.part(1).told("drift")


def test_a_day_covers_its_windows(place):  # noqa: F811
    charter = with_dates(place, "2025-01-15,a holiday\n")
    write(place, records(people(30), NOON) + records(people(30, 1), NOON + 12 * HOUR) + records(people(30, 2), NOON + 14 * HOUR))
    found = {r.start: [m.words for m in r.marks] for r in monitor_due(place, charter, "shop", NOON + 15 * HOUR)}
    assert found[NOON] == found[NOON + 12 * HOUR] == ["2025-01-15: a holiday"]  # of the hour after midnight the window before
    assert found[NOON + 13 * HOUR] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2025-13-01,no month\n2025-01-15,kept\n", "line 1 of dates.csv is left out: '2025-13-01' is no date; expected one such as 2025-12-24"),
        ("2025-01-15,kept\n15.01.2025,a day\n", "line 2 of dates.csv is left out: '15.01.2025' is no date"),
        ("2025-01-15,kept\n2025-01-15\n", "line 2 of dates.csv is left out: '2025-01-15' has no name"),
        ("date,name\n2025-01-15,kept\n2025-01-15,kept\n", "1 line says in dates.csv what another one says, and counts once"),
        ("x\n" * 50 + "2025-01-15,kept\n", "47 more lines of dates.csv are left out"),
        ('2025-01-15,kept\n"2025-01-14,a quote\n', "'2025-01-14,a quote' has no name"),
        ("2025-01-15,kept\n9999-12-31,the end\n9999-12-32,after it\n", "line 3 of dates.csv is left out: '9999-12-32' is no date"),
    ],
)
def test_a_slip_in_the_calendar_is_told_and_the_rest_counts(place, text, said):  # noqa: F811
    charter = with_dates(place, text)
    write(place, records(people(30), NOON))
    (report,) = monitor_due(place, charter, "shop", NOON + HOUR)
    assert any(said in note for note in report.notes) and [m.said for m in report.marks] == ["kept"]


@pytest.mark.parametrize("what", ["nowhere", "folder", "bytes", "large"])
def test_a_calendar_that_cannot_be_read(place, what, monkeypatch):  # noqa: F811
    charter = with_dates(place, "")
    file = place.home / "dates.csv"
    if what in ("nowhere", "folder"):
        file.unlink()
    if what == "folder":
        file.mkdir()
    if what == "bytes":
        file.write_bytes(b"2025-01-15,\xff\xfe")
    if what == "large":
        file.write_bytes(b"#" * 20_000_001)
    write(place, records(people(30), NOON))
    (report,) = monitor_due(place, charter, "shop", NOON + HOUR)
    assert any("dates.csv" in note and "no date is marked" in note for note in report.notes) and report.marks == []


def test_a_hundred_thousand_lines(tmp_path):
    file = tmp_path / "dates.csv"
    file.write_text("".join(f"{datetime(1900, 1, 1) + timedelta(days=i // 3):%Y-%m-%d},day {i}\n" for i in range(100_000)))
    begun = time.process_time()
    known = read_dates(file)
    assert len(known.marks) == 100_000 and not known.faults and time.process_time() - begun < 20
    report = Report("shop", NOON, NOON + HOUR, 0, [])
    marked(report, [Mark(NOON, NOON, "date", f"day {i}") for i in range(100_000)])
    assert len(report.marks) == 40 and "100,000 things happened" in report.notes[-1]


def test_what_a_calendar_says_is_text(tmp_path):
    file = tmp_path / "dates.csv"
    file.write_text("2025-01-15,<img src=x onerror=alert(1)> \x1b[2Jgone\x07 " + "long " * 100 + "\n", encoding="utf-8")
    (mark,) = read_dates(file).marks
    assert mark.said.startswith("<img") and "\x1b" not in mark.said and "\x07" not in mark.said and len(mark.said) <= 80


def test_experiments_of_this_model(place):  # noqa: F811
    write(place, records(people(5), NOON))
    log = Events(place.home)
    log.add("experiment", "control 50%, new 50%", "shop", experiment="e1", state="started")
    log.add("promotion", "new is better", "shop", experiment="e1", state="won")
    log.add("experiment", "of another", "other", experiment="e2", state="started")
    log.add("promotion", "by a person", "shop")  # the registry says that
    now = datetime.now(UTC)
    found, faults = marks_of(place, "shop", now - HOUR, now + HOUR)
    assert [m.said.split(":")[0] for m in found] == ["experiment 'e1' was started", "experiment 'e1' was won"] and not faults


def test_a_registry_that_does_not_answer_is_told(place, tmp_path):  # noqa: F811
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\0" + b"nonsense" * 200)
    place.registry_uri = f"sqlite:///{tmp_path}/broken.db"
    write(place, records(people(30), NOON))
    (report,) = monitor_due(place, CHARTER, "shop", NOON + HOUR)
    assert any("releases are not marked" in note for note in report.notes)
