"""The clock: what is due, missed times, one leader, killed leaders and jobs, clocks set back, a database that is away."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import Settings, load_settings
from mlops_nb.cli.loop import program
from mlops_nb.loop.schedule import Clock, Job, Timetable, due, jobs_of, lock, watch
from mlops_nb.log.events import Alerts, Events

pytest.importorskip("apscheduler")
SLOW = "import sys, time\nif 'doctor' in sys.orig_argv:\n    time.sleep(60)\n"  # the command doctor takes a minute here
PROGRAM = program()
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def place(folder: Path, *lines: str) -> Settings:
    "A project with a schedule."
    schedule = ["[watch]", *lines] if lines else []
    (folder / "settings.ini").write_text("\n".join(["[mlops_nb]", "home = home", *schedule]))
    (folder / "sitecustomize.py").write_text(SLOW)
    return load_settings(folder)


def overdue(settings: Settings) -> None:
    "As if its jobs had been seen three minutes ago, and nobody had watched since."
    now = datetime.now(UTC)
    for job in jobs_of(settings, PROGRAM):
        Timetable(settings).put(job, now - timedelta(minutes=3), "waiting", "", now)


def watcher(settings: Settings, *words: str) -> subprocess.Popen:
    "A watcher in a process of its own."
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")}
    log = open(settings.root / f"watcher-{time.monotonic_ns()}.log", "wb")
    return subprocess.Popen([sys.executable, "-m", "mlops_nb.cli.main", "watch", *words], cwd=settings.root, env=env, stdout=log, stderr=log)


def events(settings: Settings, kind: str) -> list[str]:
    return [e.reason for e in Events(settings.home).list(kinds=[kind])]


def until(what, seconds: float = 60.0):
    "Wait for something to be true; what it is."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def state(settings: Settings, job: str) -> str:
    return rows[job].state if job in (rows := Timetable(settings).rows()) else ""


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.sampled_from(["* * * * *", "10 * * * *", "30 3 * * *", "0 6 * * mon", "15 */6 1,15 * *"]))
def test_however_long_nobody_watched_a_job_is_due_once(start, slept, cron):
    job, last = Job("x", cron, ("gc",)), NOON + timedelta(seconds=start)
    found = due(job, last, last + timedelta(seconds=slept), most=50)
    if found.at is not None:
        assert last < found.at <= last + timedelta(seconds=slept) and found.at.second == 0
        assert due(job, found.at, found.at).at is None  # and then no more
        assert found.missed >= 50 or job.next(found.at) > last + timedelta(seconds=slept)
    else:
        assert job.next(last) > last + timedelta(seconds=slept)


def test_missed_times_are_made_up_for_by_one_firing(tmp_path):
    settings = place(tmp_path, "tidy = 0 * * * *  gc")
    clock = Clock(settings, PROGRAM)
    clock.tick(NOON)
    assert state(settings, "tidy") == "waiting" and not clock.running  # seen for the first time: not at once
    clock.tick(NOON + timedelta(hours=7, minutes=30))
    assert list(clock.running) == ["tidy"]
    clock.running["tidy"].process.wait(30)
    for minutes in (31, 32):
        clock.tick(NOON + timedelta(hours=7, minutes=minutes))
    assert state(settings, "tidy") == "done" and len(events(settings, "firing")) == 2
    assert events(settings, "missed") == ["tidy was due 7 times from 2026-11-25 13:00 to 2026-11-25 19:00; it fires once, now"]


def test_a_clock_that_is_set_back_stops_nothing_and_starts_no_storm(tmp_path):
    settings = place(tmp_path, "tidy = 0 * * * *  gc")
    clock = Clock(settings, PROGRAM)
    clock.tick(NOON)
    past = NOON - timedelta(days=400)
    for minutes in range(0, 50):
        clock.tick(past + timedelta(minutes=minutes))
    assert not events(settings, "firing") and len(events(settings, "missed")) == 1 and "set back" in events(settings, "missed")[0]
    clock.tick(past + timedelta(minutes=61))
    clock.running["tidy"].process.wait(30)
    clock.tick(past + timedelta(minutes=62))
    assert state(settings, "tidy") == "done"


def test_a_job_that_fails_is_an_alert_until_it_goes_well(tmp_path):
    settings = place(tmp_path, "tidy = * * * * *  gc --keep none")
    overdue(settings)
    assert watch(settings, PROGRAM, threading.Event(), once=True) == 1
    (alert,) = Alerts(settings.home).open()
    assert alert.key == "watch/tidy" and "ended with code 2" in alert.cause and state(settings, "tidy") == "failed"
    place(tmp_path, "tidy = * * * * *  gc")
    overdue(settings)
    assert watch(settings, PROGRAM, threading.Event(), once=True) == 0
    assert not Alerts(settings.home).open() and state(settings, "tidy") == "done"


@pytest.mark.slow
def test_a_job_that_is_killed_or_takes_too_long_does_not_end_the_clock(tmp_path):
    settings = place(tmp_path, "slow = * * * * *  doctor", "quick = * * * * *  gc")
    overdue(settings)
    clock = Clock(settings, PROGRAM, timeout=2 / 3600)
    clock.tick(datetime.now(UTC))
    assert set(clock.running) == {"slow", "quick"}
    until(lambda: clock.tick(datetime.now(UTC)) or state(settings, "slow") == "failed")
    assert "took longer than 0:00:02" in Timetable(settings).rows()["slow"].said
    until(lambda: clock.tick(datetime.now(UTC)) or state(settings, "quick") == "done")
    clock.timeout = timedelta(hours=1)
    overdue(settings)
    clock.tick(datetime.now(UTC))
    clock.running["slow"].process.kill()
    until(lambda: clock.tick(datetime.now(UTC)) or "signal 9" in Timetable(settings).rows()["slow"].said)
    clock.close()


def test_sigterm_ends_the_watcher_and_its_jobs(tmp_path):
    settings = place(tmp_path, "slow = * * * * *  doctor")
    overdue(settings)
    process = watcher(settings)
    until(lambda: state(settings, "slow") == "running")
    assert lock(settings.home / "watch" / "slow.lock") is None
    process.terminate()
    assert process.wait(120) == 0
    held = lock(settings.home / "watch" / "slow.lock")
    assert held is not None and state(settings, "slow") == "failed"
    os.close(held)


@pytest.mark.slow
def test_kill_9_of_the_leader(tmp_path):
    """The one that stands by leads within seconds; the job that the dead one had started isn't started beside itself."""
    settings = place(tmp_path, "slow = * * * * *  doctor", "quick = * * * * *  gc")
    overdue(settings)
    first = watcher(settings)
    until(lambda: state(settings, "slow") == "running" and state(settings, "quick") == "done")
    second = watcher(settings)
    try:
        until(lambda: any("stands by" in log.read_text() for log in tmp_path.glob("watcher-*.log")))
        job = until(lambda: [int(p.name) for p in Path("/proc").glob("[0-9]*") if b"doctor" in _cmdline(p) and _folder(p) == tmp_path.resolve()])
        first.send_signal(signal.SIGKILL)
        first.wait()
        until(lambda: sum("leads:" in log.read_text() for log in tmp_path.glob("watcher-*.log")) == 2)
        overdue_but_running = Timetable(settings).rows()["slow"]
        Timetable(settings).put(jobs_of(settings, PROGRAM)[0], overdue_but_running.last - timedelta(minutes=5), "running", "", datetime.now(UTC))
        time.sleep(2)
        assert [e for e in events(settings, "firing") if e.startswith("slow was due")] == [e for e in events(settings, "firing") if e.startswith("slow")]
        os.kill(job[0], signal.SIGKILL)
        until(lambda: any("had started it was killed" in said for said in events(settings, "firing")))
        until(lambda: len([e for e in events(settings, "firing") if e.startswith("slow was due")]) == 2)  # now it is
    finally:
        second.terminate()
        assert second.wait(30) == 0


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _folder(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None


@pytest.mark.slow
def test_a_database_that_is_away_delays_and_loses_nothing(tmp_path, capfd):
    settings = place(tmp_path, "tidy = * * * * *  gc")
    overdue(settings)
    table = Timetable(settings)
    assert table.rows()["tidy"].state == "waiting"
    other = sqlite3.connect(settings.home / "predictions.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(settings, PROGRAM, stop), kwargs={"pause": 0.1})
    thread.start()
    try:
        time.sleep(5)
        assert table.rows()["tidy"].state == "waiting"
        other.execute("COMMIT")
        until(lambda: state(settings, "tidy") == "done")
    finally:
        stop.set()
        thread.join()
    assert capfd.readouterr().err.count("what is due waits") == 1


def test_the_command(tmp_path):
    settings = place(tmp_path, "tidy = 0 6 * * mon-fri  gc")
    tool = str(Path(sys.executable).with_name("mlops-nb"))
    call = lambda *words: subprocess.run([tool, "watch", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)  # noqa: E731
    assert "not seen" in call("--list").stdout
    assert call("--once").returncode == 0 and "waiting, next" in call("--list").stdout
    for scheduler, word in (("cron", "*/5 * * * * cd "), ("systemd", "OnCalendar=*:0/5")):
        said = call("--print", scheduler).stdout
        assert word in said and "--once" in said
    wrong = call("--print", "crom")
    assert wrong.returncode == 1 and "did you mean 'cron'" in wrong.stderr
    place(tmp_path, "tidy = 0 6 * * mon-fri  gcc")
    wrong = call("--once")
    assert wrong.returncode == 1 and "did you mean 'gc'" in wrong.stderr and "Traceback" not in wrong.stderr
    assert settings.root == tmp_path


@pytest.mark.parametrize("line", ["", "0 6 * *", "0 6 * * 1 gc", "0 24 * * * gc", "0 0 31 feb * gc", "0 6 * * * watch", "0 6 * * * gc 'x", "a b c d e gc"])
def test_a_wrong_schedule_is_refused_at_the_start(tmp_path, line):
    with pytest.raises(MlopsError, match="watch: tidy"):
        jobs_of(place(tmp_path, f"tidy = {line}"), PROGRAM)
