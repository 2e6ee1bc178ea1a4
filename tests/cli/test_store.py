"""One flag for the sample store, wherever a store is read; the first hour's commands say what there is, and what to do next."""

import errno
import json
import os
import shutil
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from mlops_nb.cli import main as cli
from mlops_nb.cli import monitoring
from mlops_nb.log.events import Alerts
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.monitoring.shop import NOON
from tests.cli.test_cli import imported
from tests.cli.test_project import REGISTER
from tests.conftest import Project
from tests.faults.test_faults import full, small_disk

#: Commands that read no store, and those whose --sample is a number of rows.
WITHOUT = {"check", "graph", "init", "new-stage", "extend", "diff", "drill"}
WITHOUT |= {f"data {word}" for word in ("versions", "diff", "checkout", "push", "pull", "report")}  # of files, not of a store
ROWS = {"run", "run-stage", "retrain"}
RECORDS = {"restore"}  # works in the project's own store, on the record of a sample run


def commands() -> dict[str, object]:
    """Every command by its words."""
    found, top = {}, cli.typer.main.get_command(cli.app)
    for name, command in top.commands.items():
        command = cli.loaded(name) if name in cli.LATER else command
        found |= {f"{name} {below}": c for below, c in getattr(command, "commands", {}).items()} or {name: command}
    return found


def test_every_command_that_reads_a_store_has_the_flag():
    known = commands()
    assert len(known) > 30
    for words, command in known.items():
        options = [p for p in command.params if "--sample" in p.opts]
        if {words, words.split()[0]} & WITHOUT:
            assert not options, words
        else:
            assert [p.is_flag for p in options] == [words not in ROWS], words
            assert words in ROWS | RECORDS or options[0].callback is not None, f"{words}: this --sample names no store"


def test_after_a_run_on_few_rows_the_next_step_is_said_and_works(finished):
    said = finished.call("run", "total", "count", "--sample", "50").stdout
    assert said.splitlines()[-1].startswith("next: mlops-nb runs show --sample    mlops-nb app --sample")
    shown, listed, other = (finished.call(*words).stdout for words in (("runs", "show", "--sample"), ("runs", "list", "--sample"), ("runs", "list")))
    assert "charter tiny" in shown and len(listed.splitlines()) == len(other.splitlines()) == 1 and listed != other
    status = finished.call("status", "--sample").stdout.splitlines()
    assert status[0].startswith(f"newest run: {listed.split()[0]}, done") and {line.split()[1] for line in status[1:]} == {"cached"}
    record = json.loads(finished.call("runs", "show", "--json", "--sample").stdout)
    assert record["stages"]["ingest"]["knobs"]["max_rows"] == 50
    assert "0 runs go, 1 stay" in finished.call("gc", "--dry-run", "--sample").stdout


@pytest.mark.parametrize(("words", "said"), [
    (("runs", "list"), "there is no run yet; make one: mlops-nb run --sample 2000"),
    (("models", "list"), "no versions registered; run: mlops-nb run --sample 2000"),
    (("keys", "list"), "nobody holds a key; make one: mlops-nb keys add NAME"),
    (("alerts", "list"), "no open alerts"),
    (("monitor",), "and none waits for its end; to serve it: mlops-nb serve tiny --sample"),
    (("log", "query", "SELECT count(*) AS n FROM feedback"), "0"),
])  # fmt: skip
def test_an_empty_sample_store_says_so(ran, monkeypatch, words, said):
    monkeypatch.chdir(ran.root)
    before = dict(os.environ)
    done = CliRunner().invoke(cli.app, [*words, "--sample"])
    assert done.exit_code == 0 and said in done.output, done.output
    assert dict(os.environ) == before, "the store is named for one command"


def test_what_is_started_looks_into_the_same_store(ran, monkeypatch):
    """The app and JupyterLab, which opens without asking about news."""
    started = []
    monkeypatch.setattr(cli, "_start", lambda *words: started.append((words, os.environ["MLOPS_NB_HOME"], os.environ["MLOPS_NB_REPORTS"])))
    monkeypatch.chdir(ran.root)
    for words in (["app", "--sample", "--port", str(free_port())], ["lab", "--sample"]):
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 0, done.output
    home = (ran.root / ".mlops" / "sample").resolve()
    assert [rest for _, *rest in started] == [[str(home), str(home / "reports")]] * 2
    assert started[0][0][0] == "streamlit" and "--LabApp.news_url=None" in started[1][0]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_strict_ends_with_a_code_of_its_own_and_a_person_who_rejects_is_named(project, tables):
    cells = [cell.replace("phase='staging'", "phase='staging' if total.read() > 9 else 'rejected'") for cell in REGISTER]
    project.write("stages/060_register.ipynb", cells)
    project.export()
    (project.root / ".mlops").mkdir()
    shutil.copy(tables, project.root / ".mlops")
    kept = project.call("run", "--strict")
    assert kept.returncode == 0 and "phase staging" in kept.stdout, kept.stdout + kept.stderr
    assert "tiny version 1: rejected" in project.call("models", "promote", "tiny", "1", "--to", "rejected", "--by", "ada", "--reason", "unfair to nurses").stdout
    again = project.call("run")
    assert again.returncode == 0 and "phase rejected (by ada: unfair to nurses)" in again.stdout and "models show tiny 1" in again.stdout, again.stdout
    assert project.call("run", "--strict").returncode == 3
    failed = project.call("run", "--strict", "-p", "scale.factor=1")
    assert failed.returncode == 3 and "exit code 3" in failed.stderr and "phase rejected\n" in failed.stdout, failed.stdout + failed.stderr
    assert project.call("run", "-p", "scale.factor=1").returncode == 0
    for words in ((), ("run",)):
        assert "3 run --strict" in " ".join(project.call(*words, "--help").stdout.split())


def test_a_drills_help_imports_no_table_and_lists_what_there_is_once(ran):
    said = imported(["drill", "--help"], {"pandas", "numpy", "pyarrow", "sklearn"}, ran.root)
    assert "poisoned_feedback" in " ".join(said) and said[-1] == "[]"
    wrong = ran.call("drill", "nonsense").stderr
    assert wrong.count("covariate_shift") == 1 and wrong.count("outage") == 1


# -- the running window ------------------------------------------------------------------------------------------------


class AtNoon(datetime):
    @classmethod
    def now(cls, tz=None):
        return NOON + timedelta(hours=2)


@pytest.fixture
def logged(ran, monkeypatch, tmp_path) -> Project:
    """A project with 60 predictions of today, which is a day in the past."""
    monkeypatch.chdir(ran.root)
    monkeypatch.setenv("MLOPS_NB_HOME", str(tmp_path))
    monkeypatch.setattr(monitoring, "datetime", AtNoon)
    log = PredictionLog(tmp_path)
    noon = int(NOON.timestamp() * 1e6)
    log.put([Record(f"p{n}", noon + n, "tiny", 1, "", None, b'{"y": 1}', b'{"decision": 2.0}', 3e-4, b"[]") for n in range(60)])
    log.close()
    return ran


def test_what_waits_for_the_end_of_its_window_is_said(logged, tmp_path):
    said = CliRunner().invoke(cli.app, ["monitor"]).output
    end = (NOON + timedelta(days=1)).replace(hour=0)
    assert said == f"60 predictions of 'tiny' wait for the end of the day, {end:%Y-%m-%d} 00:00 UTC; to look before: mlops-nb monitor --now\n"


def test_a_window_judged_before_its_end_is_preliminary_and_kept_nowhere(logged, tmp_path):
    said = CliRunner().invoke(cli.app, ["monitor", "--now"]).output
    assert "60 predictions, no alarms, preliminary: the window is not over" in said.splitlines()[0]
    (line,) = CliRunner().invoke(cli.app, ["monitor", "--now", "--json"]).output.splitlines()
    assert json.loads(line)["preliminary"] is True and json.loads(line)["rows"] == 60
    assert not list(tmp_path.glob("monitoring/tiny/*.json")) and Alerts(tmp_path).open() == []


# -- full disks --------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_with_its_folder_what_was_written_and_the_way_out(ran, tmp_path):
    with small_disk(tmp_path / "disk", "64k"):
        full(tmp_path / "disk")
        said = ran.call("keys", "add", "shop", env={"MLOPS_NB_HOME": str(tmp_path / "disk")}).stderr
    for part in ("disk/keys.json: No space left on device", f"0.0 MB free in {tmp_path / 'disk'}", "make room there", "give the same command again"):
        assert part in said, said


def test_a_full_disk_of_which_no_file_is_told(monkeypatch, ran):
    monkeypatch.chdir(ran.root)
    monkeypatch.setattr("sys.argv", ["mlops-nb", "score", "rows.csv", "out.csv"])
    said = cli._unwritable(OSError(errno.ENOSPC, "No space left on device"))
    assert said.startswith("what mlops-nb score rows.csv out.csv writes: No space left on device (") and " MB free in /" in said
    assert cli._unwritable(OSError(errno.EACCES, "Permission denied", "there")) == "there: Permission denied; give a place that you may read and write"


def test_a_full_disk_at_a_promotion_asks_for_room_and_for_no_upgrade(ran, tables, tmp_path):
    from mlops_nb.registry.registration import register

    with small_disk(tmp_path / "disk", "8m"):
        shutil.copy(tables, tmp_path / "disk")
        uri = f"sqlite:///{tmp_path}/disk/mlflow.db"
        register(uri, "tiny", [1.0], {"metrics": {}}, "staging")
        full(tmp_path / "disk")
        done = ran.call("models", "promote", "tiny", "1", env={"MLOPS_NB_REGISTRY_URI": uri})
    assert done.returncode == 1 and "make room" in done.stderr and "upgrade" not in done.stderr and "Traceback" not in done.stderr, done.stderr
