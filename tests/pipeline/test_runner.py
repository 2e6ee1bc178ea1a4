"""The runner's promises about keys, digests, failure and records, each on real kernels in a small project."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from tests.conftest import NOTEBOOKS

ALL_CACHED = {"ingest": "cached", "scale": "cached", "total": "cached", "count": "cached"}


def test_edited_source_file_is_seen(finished):
    assert finished.run() == ALL_CACHED
    (finished.root / "rows.csv").write_text("y\n1\n2\n4\n")
    # as many rows as before: `count` reads new rows and runs; nothing is left out
    assert finished.run() == {"ingest": "done", "scale": "done", "total": "done", "count": "done"}
    assert finished.summary()["stages"]["total"]["metrics"]["total"] == 17


def test_code_knobs_and_prose(finished):
    first = finished.summary()["stages"]

    # prose, comments and lessons decide nothing
    finished.edit("stages/20_scale.ipynb", "What it does.", "What it really does.")
    finished.edit("stages/20_scale.ipynb", "assert scale([1], 2) == [3]", "assert scale([2], 2) == [5]")
    finished.edit("stages/20_scale.ipynb", "# times", "# how many times")
    assert finished.run() == ALL_CACHED

    # a knob back and forth: what depends on it runs once, then both results are known
    assert finished.run("-p", "scale.factor=3") == ALL_CACHED | {"scale": "done", "total": "done"}
    assert finished.run() == ALL_CACHED
    assert finished.run("-p", "scale.factor=3") == ALL_CACHED
    assert finished.summary()["stages"]["scale"]["key"] != first["scale"]["key"]

    # a helper two imports away
    finished.edit("services/deep.ipynb", "return 1", "return 10")
    finished.export()
    assert finished.run() == ALL_CACHED | {"scale": "done", "total": "done"}

    # other code, same output: what lies downstream stays cached
    finished.edit("services/deep.ipynb", "return 10", "return 5 + 5")
    finished.export()
    assert finished.run() == ALL_CACHED | {"scale": "done"}


def test_edited_exported_cell_without_export_stops(project):
    project.edit("stages/20_scale.ipynb", "return [shift(n * factor) for n in numbers]", "return numbers")
    for command in (["check"], ["run", "total"]):
        done = project.call(*command)
        assert done.returncode == 1
        assert "20_scale.ipynb: exported cells cell3 differ from tiny.stages.scale; run nbdev-export" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (project.root / "reports").exists()


def test_failure_leaves_a_card_and_stops_only_what_depends(project):
    assert project.run("-p", "total.fail=true", stages=("total", "count"), fails=True) == {
        "ingest": "done",
        "scale": "done",
        "total": "failed",
        "count": "done",
    }
    summary = project.summary()
    card = summary["stages"]["total"]["error"]
    assert summary["status"] == "failed"
    assert (card["ename"], card["evalue"], card["line"], card["cell"]) == ("ValueError", "asked to fail", 2, "cell3")
    assert card["repeat"] == "mlops-nb run total -p total.fail=true" and card["knobs"] == {"fail": True}
    executed = json.loads((project.root / "reports" / summary["run"] / "total.ipynb").read_text())
    assert executed["cells"][-1]["outputs"][0]["ename"] == "ValueError"
    # the way on: the same command without the knob picks up where it stopped
    assert project.run() == ALL_CACHED | {"total": "done"}

    # what depends on a failed stage is skipped, and said so
    project.edit("stages/20_scale.ipynb", "scaled.write(", "1 / 0\nscaled.write(")
    assert project.run(fails=True) == {"ingest": "cached", "scale": "failed", "total": "skipped", "count": "cached"}
    assert project.summary()["stages"]["total"]["why"] == "needs scale"


def test_stage_that_forgets_an_output_fails(project):
    project.edit("stages/40_count.ipynb", "n.write(len(raw.read()))\n", "")
    assert project.run(stages=("count",), fails=True)["count"] == "failed"
    assert "wrote no n" in project.summary()["stages"]["count"]["error"]["evalue"]


@pytest.mark.parametrize("damage", [pytest.param("flip", marks=pytest.mark.slow), "truncate"])
def test_damaged_object_is_made_again_once(finished, damage):
    digest = finished.summary()["stages"]["scale"]["outputs"]["scaled"]
    file = finished.root / ".mlops" / "objects" / digest[:2] / digest
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    damaged = bytes(data) if damage == "flip" else bytes(data[:-1])
    file.write_bytes(damaged)
    # a forced reader finds it, and its producer runs once
    assert finished.run("--force", "total") == ALL_CACHED | {"scale": "done", "total": "done"}
    assert finished.summary()["stages"]["scale"]["outputs"]["scaled"] == digest
    (said,) = finished.summary()["warnings"]
    assert said.startswith("scaled in the store was damaged or lost and is made again")
    assert file.is_file() and file.with_name(digest + ".corrupt").is_file()
    assert finished.run() == ALL_CACHED and finished.summary()["warnings"] == []
    # no stage reads it, but the run's records do: they say so, and the next run makes it again
    file.write_bytes(damaged)
    assert finished.run() == ALL_CACHED and "is damaged" in finished.summary()["warnings"][0]
    assert finished.run() == ALL_CACHED | {"scale": "done"} and file.is_file()


@pytest.mark.slow
def test_damaged_object_with_many_readers_is_made_again_once(project):
    """Readers side by side each find the damage, one while the producer is at work: it runs once, and is told once."""
    late = NOTEBOOKS["stages/30_total.ipynb"]
    late = [c.replace("stages.total", "stages.late").replace('total = Output("total"', 'late = Output("late"').replace("total.write(sum(scaled.read()))", "import time\ntime.sleep(1)\nlate.write(sum(scaled.read()))") for c in late]
    project.write("stages/35_late.ipynb", late)
    project.export()
    project.run(stages=("total", "late"))
    digest = project.summary()["stages"]["scale"]["outputs"]["scaled"]
    file = project.root / ".mlops" / "objects" / digest[:2] / digest
    file.write_bytes(file.read_bytes()[:-1])
    done = project.call("run", "total", "late", "--force", "total", "--force", "late")
    assert {n: s["status"] for n, s in project.summary()["stages"].items()} == {"ingest": "cached", "scale": "done", "total": "done", "late": "done"}, done.stdout
    assert len(re.findall("^scale +done", done.stdout, re.MULTILINE)) == 1 and len(project.summary()["warnings"]) == 1


def test_damaged_root_object_is_made_again(finished):
    record = next((finished.root / ".mlops" / "keys" / "ingest").iterdir())
    digest = json.loads(record.read_text())["ingredients"]["inputs"]["source"]
    (finished.root / ".mlops" / "objects" / digest[:2] / digest).write_bytes(b"{}")
    assert finished.run("--force", "ingest") == ALL_CACHED | {"ingest": "done"}


@pytest.mark.slow
def test_warnings_of_the_run_before_are_counted_only(project):
    rule = '{"rules": [{"passed": False, "gate": False, "message": "few women are found"}]}'
    project.edit("stages/40_count.ipynb", "n.write(len(raw.read()))", f"n.write({rule})\nraw.read()")
    first, again = project.call("run", "count"), project.call("run", "count")
    assert "warning: few women are found" in first.stderr
    assert again.stderr == "1 warning as in the run before; to read: mlops-nb runs show\n" and "few women" in project.call("runs", "show").stdout


def test_unreadable_store_is_said(finished):
    for record in (finished.root / ".mlops" / "keys" / "ingest").iterdir():
        record.write_text("{ torn")
    done = finished.call("run", "total")
    assert done.returncode == 1 and "the store can't be read" in done.stderr and "delete" in done.stderr


def test_summary_schema_and_records(ran, template):
    """The documented shape of summary.json (reports/README.md)."""
    summary = ran.summary()
    assert (summary["title"], summary["goal"]) == ("", "Learn whether runs behave")
    assert {"format", "run", "charter", "status", "seconds", "cpu_seconds", "started", "git", "stages", "model"} <= summary.keys()
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", summary["run"]) and summary["charter"] == "tiny"
    assert summary["started"].endswith("+00:00") and summary["status"] == "done" and summary["model"] is None
    for stage in summary["stages"].values():
        assert {"status", "seconds", "cpu_seconds", "key", "metrics", "outputs"} <= stage.keys()
        assert stage["status"] in {"done", "cached", "failed", "skipped"}
        assert all(re.fullmatch("[0-9a-f]{64}", d) for d in [stage["key"], *stage["outputs"].values()])
    folder = ran.root / "reports" / summary["run"]
    assert {f.name for f in folder.iterdir()} >= {"summary.json", "index.html", "scale.ipynb", "scale.html"}
    text = (folder / "scale.ipynb").read_text()
    assert str(template) not in text and str(ran.root) not in text and "LESSON" not in text and "def scale" not in text
    assert 'bind(\\"tiny.stages.scale\\")' in text


def test_processor_time_of_stages_is_part_of_the_runs(ran):
    """Each executed stage says what its kernel has used; the run's holds that, and the runner's own."""
    summary = ran.summary()
    used = [stage["cpu_seconds"] for stage in summary["stages"].values() if stage["status"] == "done"]
    assert used and all(0 < seconds < 60 for seconds in used) and summary["cpu_seconds"] > sum(used)
    assert "of processor time" in (ran.root / "reports" / summary["run"] / "index.html").read_text()


def test_nothing_executed_writes_a_summary_only(ran):
    assert ran.run() == ALL_CACHED
    folder = ran.root / "reports" / ran.summary()["run"]
    assert [f.name for f in folder.iterdir()] == ["summary.json"]


def test_dry_run_says_what_and_why(ran):
    before = {f for f in ran.root.rglob("*") if "objects" not in f.parts}
    said = ran.call("run", "total", "--dry-run", "-p", "scale.factor=5").stdout.splitlines()
    assert said[0].split() == ["ingest", "cached"]
    assert "knobs: factor 2 -> 5" in said[1] and said[2].split()[:2] == ["total", "depends"]
    assert {f for f in ran.root.rglob("*") if "objects" not in f.parts} == before


def test_run_stage_needs_what_lies_before(project):
    refused = project.call("run-stage", "scale")
    assert refused.returncode == 1 and "scale needs ingest" in refused.stderr
    assert project.call("run-stage", "ingest").returncode == 0
    assert project.call("run-stage", "scale").returncode == 0


def test_bad_input_stops_before_anything_runs(ran):
    before = len(list((ran.root / "reports").iterdir()))
    for words, message in {
        ("run", "totl"): "no stage 'totl'; did you mean 'total'?",
        ("run", "-p", "scale.fctor=3"): "no knob 'fctor' in scale; did you mean 'factor'?",
        ("run", "-p", "scale.factor=many"): "scale.factor = many: expected a whole number between 1 and 9",
        ("run", "-p", "scale.factor=12"): "scale.factor = 12: expected a whole number between 1 and 9",
        ("run", "-p", "factor"): "expected stage.knob=value, e.g.",
        ("run", "-p", "factor=3"): "expected stage.knob=value, here scale.factor",
        ("run", "total", "--charter", "no.yaml"): "no charter no.yaml",
        ("runs", "show", "nothing"): "no run 'nothing'",
    }.items():
        done = ran.call(*words)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, (words, done.stderr)
    assert len(list((ran.root / "reports").iterdir())) == before


def test_broken_pipelines_are_named(project):
    stage = "stages/50_more.ipynb"
    first = ["#| default_exp stages.more", "#| export\nfrom mlops_nb.pipeline.stage import Input, Json, Output, Table"]
    for signature, message in {
        'x = Input("scald", Json)': "no stage writes 'scald'; did you mean 'scaled'?",
        'x = Input("scaled", Table)': "is read as Table, but is a Json",
        'x = Output("total", Json)': "more than one producer: 30_total.ipynb, 50_more.ipynb",
        'x = Input("y", Json)\ny = Output("y", Json)': "circle: more <- more",
    }.items():
        project.write(stage, [*first, "PARAMETERS\n" + signature])
        project.export()
        done = project.call("check")
        assert done.returncode == 1 and message in done.stderr, (signature, done.stderr)


def test_runs_list_compare_and_status(ran):
    ran.run("-p", "scale.factor=4")
    listed = ran.call("runs", "list").stdout.splitlines()
    newest, oldest = listed[0].split()[0], listed[-1].split()[0]
    compared = ran.call("runs", "compare", oldest, newest).stdout
    assert "scale.factor" in compared and "total.total" in compared
    assert f"newest run: {newest}, done" in ran.call("status").stdout


@pytest.mark.slow
def test_exploring_by_hand_goes_on_where_the_run_stopped(finished):
    """The plain papermill command on a stage notebook reads as a notebook opened by hand does."""
    out = finished.root / "by_hand.ipynb"

    def by_hand(name: str, *words: str):
        import os
        import subprocess
        import sys

        env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "MLOPS_NB_HOME", "MLOPS_NB_REPORTS")}
        tool = Path(sys.executable).with_name("papermill")
        return subprocess.run(
            [tool, f"nbs/stages/{name}", out, "-k", "python3", *words],
            cwd=finished.root, capture_output=True, text=True, timeout=120, env=env,
        )  # fmt: skip

    assert by_hand("20_scale.ipynb", "-p", "factor", "7").returncode == 0, "scale reads the run's rows"
    total = by_hand("30_total.ipynb")
    assert total.returncode == 0, total.stderr
    lab = {f.stem: json.loads(f.read_text()) for f in (finished.root / ".mlops" / "lab" / "tiny").iterdir()}
    assert lab["total"]["inputs"]["scaled"] == lab["scale"]["outputs"]["scaled"]
    # the pipeline never reads the lab run
    assert finished.run() == ALL_CACHED
    # now the newest run is in view again; an older result made from other inputs is refused with the way out
    by_hand("010_ingest.ipynb", "-p", "max_rows", "2")
    refused = by_hand("30_total.ipynb")
    assert refused.returncode != 0
    assert "'scaled' was made from another 'raw' than the one in view" in refused.stderr
    assert "mlops-nb run scale" in refused.stderr


@pytest.mark.slow
def test_register_runs_again_when_the_registry_is_gone(project):
    """A stage with effects outside the store is cached only while its target still has what it put there."""
    project.write(
        "stages/060_register.ipynb",
        [
            "#| default_exp stages.register",
            "#| export\nimport numpy as np\nimport pandas as pd\nfrom sklearn.linear_model import LinearRegression\n"
            "from mlops_nb.registry.registration import register\nfrom mlops_nb.pipeline.stage import Input, Json, Output, Target",
            'PARAMETERS\ntotal = Input("total", Json)\nversion = Output("version", Json)\ntarget = Target("registry")',
            "rows = pd.DataFrame({'x': np.arange(9.0)})\nmodel = LinearRegression().fit(rows, rows.x * 2)\n"
            "made = register(target.uri, 'tiny', model, {'total': total.read()}, phase='staging')\n"
            "number = getattr(made, 'version', made)\n"
            "version.write({'name': 'tiny', 'version': number, 'phase': 'staging', 'gates': []})",
        ],
    )
    project.export()
    assert project.run(stages=("register",))["register"] == "done"
    assert project.summary()["model"] == {"name": "tiny", "version": 1, "phase": "staging", "gates": []}
    assert set(project.run(stages=("register",)).values()) == {"cached"}
    for file in (project.root / ".mlops").glob("mlflow.db*"):
        file.unlink()
    assert project.run(stages=("register",)) == {"ingest": "cached", "scale": "cached", "total": "cached", "register": "done"}
    with sqlite3.connect(project.root / ".mlops" / "mlflow.db") as db:
        assert db.execute("select count(*) from model_versions").fetchone() == (1,)
