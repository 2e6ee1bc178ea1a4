"""The command beyond its lessons: pages for people, bad input and damaged records are one sentence, and a cancelled run ends cleanly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlops_nb import __version__


def imported(words: list[str], modules: set[str], cwd: Path) -> list[str]:
    """What the command says, and, as its last line, which of some modules it has imported."""
    code = f"import sys; sys.argv = {['mlops-nb', *words]}\nfrom mlops_nb.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n    print(sorted({modules} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()


def test_version_and_help_import_nothing_heavy(ran):
    assert ran.call("--version").stdout.strip() == f"mlops-nb {__version__}"
    said = imported(["--help"], {"rich", "pydantic", "yaml", "pandas", "jupyter_client"}, ran.root)
    assert said[0].startswith("Usage: mlops-nb") and said[-1] == "[]"


def test_check_imports_nothing_heavy(ran):
    said = imported(["check"], {"rich", "pandas", "numpy", "nbformat", "jupyter_client", "papermill", "mlflow", "skops"}, ran.root)
    assert said[0].startswith("sound: 4 stages") and said[-1] == "[]"


def test_a_run_compiles_no_grammar(ran):
    """jsonschema would load lark and compile the grammar of addresses, a second in every run."""
    assert imported(["run", "--force", "scale"], {"papermill", "jsonschema", "lark", "rfc3987_syntax"}, ran.root)[-1] == "['jsonschema', 'papermill']"


def test_runs_show_is_a_page_and_json_is_everything(ran):
    page = ran.call("runs", "show").stdout
    assert len(page.splitlines()) < 30 and "charter tiny, started 2" in page
    assert [line.split()[0] for line in page.splitlines()[3:8]] == ["stage", "ingest", "scale", "total", "count"]
    assert "report: " in page and json.loads(ran.call("runs", "show", "--json").stdout) == ran.summary()


@pytest.mark.slow
def test_damaged_records_are_passed_over(finished):
    good = finished.summary()["run"]
    for name, content in {"20990101-000000-aaaa": '{"run": "2099', "20990102-000000-bbbb": "{}", "20990103-000000-cccc": "[1]"}.items():
        (finished.root / "reports" / name).mkdir()
        (finished.root / "reports" / name / "summary.json").write_text(content)
        listed, shown = finished.call("runs", "list"), finished.call("runs", "show", name)
        assert listed.returncode == 0 and listed.stdout.startswith(good) and f"{name}/summary.json is no run's record" in listed.stderr
        assert shown.returncode == 1 and "delete the folder" in shown.stderr and "Traceback" not in shown.stderr
    status = finished.call("status")
    assert status.returncode == 0 and f"newest run: {good}" in status.stdout


def test_a_killed_run_is_marked_when_runs_are_listed_or_shown(project):
    for day, word in enumerate(("list", "show"), start=1):
        run = f"2099010{day}-000000-aaaa"
        folder = project.root / "reports" / run
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"run": run, "charter": "tiny", "status": "running", "seconds": 0.0, "stages": {}, "model": None}))
        (project.root / ".mlops" / "work" / run).mkdir(parents=True)
        said = project.call("runs", word, *([run] if word == "show" else [])).stdout
        assert "killed" in said and "0.0 s" not in said, "how long it ran, nobody knows"


@pytest.mark.parametrize(("words", "message"), [
    (("runs", "list", "--most", "-1"), "--most"),
    (("runs", "show", "nothing"), "no run 'nothing'"),
    (("models", "list", "--name", "nope"), "no model 'nope'"),
    (("models", "show", "nope"), "no model 'nope'"),
    (("models", "promote", "nope", "1"), "no model 'nope'"),
    (("models", "rollback", "nope"), "no model 'nope'"),
    (("run", "-p", "scale.factor=2.5"), "scale.factor = 2.5: expected a whole number between 1 and 9"),
    (("run", "-p", "total.fail=perhaps"), "total.fail = perhaps: expected true or false"),
    (("run", "--budget", "60"), "no stage 'train'"),
    (("run", "-p", "ingest.max_rows=few"), "ingest.max_rows = few: expected a whole number or null (for none)"),
])  # fmt: skip
def test_bad_input_is_one_sentence(ran, words, message):
    done = ran.call(*words)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("words", [("status",), ("run", "--dry-run"), ("models", "list"), ("runs", "list")])
@pytest.mark.parametrize("key", ["home", "reports"])
def test_a_file_where_a_folder_should_be(ran, words, key):
    done = ran.call(*words, env={f"MLOPS_NB_{key.upper()}": "rows.csv/deeper"})
    assert done.returncode == 1 and f"{key} = " in done.stderr and "rows.csv is a file; expected a folder" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_version_is_a_page_of_facts(project, tables):
    from mlops_nb.registry.registration import register

    home = project.root / ".mlops"
    home.mkdir()
    shutil.copy(tables, home)
    evidence = {
        "metrics": {"roc_auc": {"value": 0.93, "low": 0.92, "high": 0.94}, "f1": None}, "params": {"C": 1.0},
        "data": {"source": "rows.csv", "sha256": "ab" * 32, "rows": 48842, "rows_train": 30000}, "git": {"commit": "c" * 40, "dirty": True},
        "libraries": {"python": "3.12.0"}, "big": list(range(20000)),
        "evaluation": {"criteria": [{"metric": "roc_auc", "passed": True, "message": "0.93, asked: at least 0.9: met"}]},
        "division": {"rules": [
            {"name": "no leak by job", "passed": False, "gate": True, "message": "split: 'job' alone ranks 'income'"},
            {"name": "no leak by age", "passed": False, "gate": False, "message": "split: 'age' gives it away"}]},
        "schema": {"target": "income", "classes": ["<=50K", ">50K"], "fields": [
            {"name": "age", "kind": "integer", "nullable": False, "min": 17, "max": 90, "categories": None},
            {"name": "job", "kind": "category", "nullable": True, "min": None, "max": None, "categories": ["clerk", "nurse"]}]},
    }  # fmt: skip
    register(f"sqlite:///{home}/mlflow.db", "tiny", [1.0], evidence, "staging", reason="1 of 1 gates passed", run="run-7")
    promoted = project.call("models", "promote", "tiny", "1", "--by", "ada", "--reason", "seen in the field")
    assert promoted.returncode == 0 and "tiny version 1: production" in promoted.stdout, promoted.stderr
    page = project.call("models", "show", "tiny").stdout
    assert len(page.splitlines()) < 40
    for fact in ("tiny version 1: production", "by ada", "seen in the field", "0.92 to 0.94", "48,842 rows", "C 1", "cccccccccccc, with changes", "python 3.12.0", "17 to 90", "clerk, nurse", "run-7", "pass"):
        assert fact in page, fact
    gates, findings = page.split("\ngate ")[1].split("\nfinding\n")
    assert "no leak by job  FAIL     split: 'job' alone ranks 'income'" in gates and "roc_auc" in gates and findings.startswith("split: 'age' gives it away\n")
    assert json.loads(project.call("models", "show", "tiny", "--json").stdout)["evidence"]["big"] == evidence["big"]
    for words in (("models", "list", "--name", "tny"), ("models", "show", "tny"), ("models", "rollback", "tny")):
        assert "did you mean 'tiny'" in project.call(*words).stderr
    assert "no earlier production version" in project.call("models", "rollback", "tiny").stderr
    assert project.call("models", "promote", "tiny", "1", "--to", "archived", "--reason", "beaten by version 2").returncode == 0
    assert "production; it was archived before: beaten by version 2" in project.call("models", "promote", "tiny", "1").stdout


def test_sigterm_ends_a_run_as_ctrl_c_does(project):
    project.edit("stages/20_scale.ipynb", "scaled.write(", "import time; time.sleep(60)\nscaled.write(")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_") and k != "IN_TEST"}
    run = subprocess.Popen([Path(sys.executable).with_name("mlops-nb"), "run"], cwd=project.root, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wanted = time.monotonic() + 120
        while not list(project.root.glob("reports/*/ingest.ipynb")):
            assert time.monotonic() < wanted and run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        out, said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130 and "Traceback" not in said, (out, said)
    summary = project.summary()
    assert summary["status"] == "interrupted" and summary["stages"]["scale"]["status"] in ("failed", "skipped")
