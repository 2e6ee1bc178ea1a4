"""What garbage collection takes and what it never takes."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlops_nb.registry.client import experiment_id, mlflow_client
from mlops_nb.registry.loading import load
from mlops_nb.registry.registration import register
from mlops_nb.registry.sample import sample_of
from mlops_nb.base.artifacts import Store, digest_of, write_atomic
from mlops_nb.base.errors import MlopsError
from mlops_nb.cli.gc import account, collect
from mlops_nb.base.settings import Settings

LONG_AGO = time.time() - 86400


def aged(folder: Path) -> None:
    """Make everything look as if it were written yesterday."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def made_up_run(settings: Settings, number: int, results: dict[str, bytes], charter: str = "tiny", **more) -> tuple[str, dict[str, str]]:
    """A run as the runner leaves it: report, cached results with an input each, W&B's folder; and the digests that it made."""
    run, store, stages = f"202601{number // 24 + 1:02}-{number % 24:02}0000-{number:04x}", Store(settings.home), {}
    for stage, content in results.items():
        key, output, given, notebook = digest_of(stage.encode() + content), store.put(content), store.put(b"in " + content), store.put(b"nb " + content)
        stages[stage] = {"key": key, "outputs": {stage: output}, "status": "done", "seconds": 1.0}
        record = {"run": run, "outputs": {stage: output}, "notebook": notebook, "ingredients": {"inputs": {"raw": given}}}
        file = settings.home / "keys" / stage / f"{key}.json"
        if not file.exists():
            write_atomic(file, json.dumps(record).encode())
    write_atomic(settings.reports / run / "summary.json", json.dumps({"run": run, "charter": charter, "status": "done", "stages": stages, **more}).encode())
    write_atomic(settings.reports / run / "fit.html", b"page")
    write_atomic(settings.home / "wandb" / f"offline-run-20260101_000000-{number}" / f"run-{number}.wandb", b":W&B\0" + run.encode() + b"\0")
    return run, {stage: s["outputs"][stage] for stage, s in stages.items()}


def everything(settings: Settings) -> set[str]:
    return {str(f.relative_to(settings.root)) for f in settings.root.rglob("*") if f.is_file()}


@pytest.mark.parametrize("seed", range(20))
def test_what_kept_runs_cite_stays(tmp_path, seed):
    """Random histories: results are shared between runs, charters and runs by hand; whoever stays finds all of it."""
    chance, settings = random.Random(seed), Settings(root=tmp_path)
    runs = [
        made_up_run(settings, n, {stage: f"{stage} {chance.randrange(4)}".encode() for stage in ("fit", "judge")}, charter=chance.choice(["tiny", "other"]))
        for n in range(chance.randrange(1, 12))
    ]
    by_hand = Store(settings.home).put(b"by hand")
    write_atomic(settings.home / "lab" / "tiny" / "fit.json", json.dumps({"inputs": {}, "outputs": {"fit": by_hand}}).encode())
    viewed = chance.choice(runs)[0]
    summary = json.loads((settings.reports / viewed / "summary.json").read_text())
    write_atomic(settings.home / "view" / "tiny.json", json.dumps({"run": viewed, "stages": summary["stages"]}).encode())
    aged(tmp_path)
    keep, before = chance.randrange(1, 4), everything(settings)
    promised = collect(settings, keep, dry_run=True)
    assert everything(settings) == before
    done = collect(settings, keep)
    assert done == promised
    stayed = sorted(f.name for f in settings.reports.iterdir())
    assert viewed in stayed and max(r for r, _ in runs) in stayed and len(stayed) == done.stayed
    for run, outputs in runs:
        if run in stayed:
            record = json.loads((settings.reports / run / "summary.json").read_text())["stages"]
            for stage, digest in outputs.items():
                assert Store(settings.home).has(digest)
                kept = json.loads((settings.home / "keys" / stage / f"{record[stage]['key']}.json").read_text())
                assert all(Store(settings.home).has(d) for d in (kept["notebook"], kept["ingredients"]["inputs"]["raw"]))
    assert Store(settings.home).has(by_hand)
    assert sum((f / "summary.json").is_file() for f in settings.reports.iterdir()) == len(list((settings.home / "wandb").iterdir()))
    assert collect(settings, keep).items == []  # a second time there is nothing left to do


def test_young_runs_and_new_files_stay(tmp_path):
    settings = Settings(root=tmp_path)
    made_up_run(settings, 0, {"fit": b"a"})
    made_up_run(settings, 1, {"fit": b"b"})
    # written in this minute: a run that has just begun may be about to cite them
    assert {kind for kind, _, _ in account(collect(settings, 1, dry_run=True))} == {"W&B", "reports"}
    aged(tmp_path)
    assert {kind for kind, _, _ in account(collect(settings, 1, dry_run=True))} == {"results", "objects", "W&B", "reports"}
    assert collect(settings, 1, older_than=10**5).items == []


@pytest.mark.slow
def test_a_run_in_progress_stops_it(project):
    """A real run, seen at work, and then killed: what it left unfinished goes."""
    tool = Path(sys.executable).with_name("mlops-nb")
    project.edit("stages/30_total.ipynb", "total.write(", "import time; time.sleep(60)\ntotal.write(")
    with subprocess.Popen([tool, "run", "total"], cwd=project.root, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout:
            if line.startswith("scale"):
                break
        before = everything(Settings(root=project.root))
        said = project.call("gc", "--keep", "1")
        assert said.returncode == 1 and re.search(r"error: run \d{8}-\d{6}-\w{4} is in progress, so nothing was removed", said.stderr), said
        lasting = {f for f in before if not Path(f).name.startswith(".")}  # the run's own temporary files come and go
        assert lasting <= everything(Settings(root=project.root))
        running.kill()
    aged(project.root / ".mlops")
    done = project.call("gc", "--keep", "1")
    assert done.returncode == 0 and "unfinished work" in done.stdout, done
    assert not list((project.root / ".mlops" / "work").iterdir())
    assert project.call("run", "--dry-run", "scale").stdout.split()[1::2] == ["cached", "cached"]


def test_a_damaged_summary_and_strange_files(tmp_path):
    settings = Settings(root=tmp_path)
    for n in range(3):
        made_up_run(settings, n, {"fit": b"%d" % n})
    (settings.reports / "20260101-000000-0000" / "summary.json").write_text("{half")
    (settings.reports / "README.md").write_text("mine")
    (settings.reports / "2026-notes").mkdir()
    (settings.home / "objects" / "ab").mkdir(exist_ok=True)
    (settings.home / "objects" / "ab" / "damaged.corrupt").write_bytes(b"?")
    aged(tmp_path)
    collect(settings, 1)
    # a charter of its own nobody knows: the newest of those stays
    assert sorted(f.name for f in settings.reports.iterdir()) == ["2026-notes", "20260101-000000-0000", "20260101-020000-0002", "README.md"]
    assert not (settings.home / "objects" / "ab" / "damaged.corrupt").exists()


def test_what_cannot_be_removed_is_said(tmp_path, monkeypatch):
    settings = Settings(root=tmp_path)
    for n in range(2):
        made_up_run(settings, n, {"fit": b"%d" % n})
    aged(tmp_path)

    def refuse(path):
        raise PermissionError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patch, pytest.raises(MlopsError, match="can't be removed, the first is .*Operation not permitted"):
        patch.setattr("shutil.rmtree", refuse)
        collect(settings, 1)
    assert [f.name for f in settings.reports.iterdir() if f.name.startswith("20260101-00")]  # found again by the next one
    collect(settings, 1)
    assert [f.name for f in settings.reports.iterdir()] == ["20260101-010000-0001"]


def test_a_registered_version_keeps_what_it_cites(tmp_path, monkeypatch):
    """Its report, its MLflow run with the files, and every artifact in its evidence; other MLflow runs of old runs go."""
    settings = Settings(root=tmp_path)
    cited, digests = made_up_run(settings, 0, {"train": b"rows", "fit": b"model"})
    past, _ = made_up_run(settings, 1, {"fit": b"another"})
    made_up_run(settings, 2, {"fit": b"newest"})
    ages = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0]})
    model = LogisticRegression().fit(ages, ["no", "no", "yes", "yes"])
    extra = Store(settings.home).put(b"cited by the evidence alone")
    evidence = {"sample": sample_of(model, ages), "digests": {"train": digests["train"], "other": extra}}
    version = register(settings.registry_uri, "tiny", model, evidence, "rejected", run=cited)
    client = mlflow_client(settings.registry_uri)
    experiment = experiment_id(client, settings.registry_uri, "tiny")
    loose = client.create_run(experiment, tags={"mlops_nb.run": past}).info.run_id
    foreign = client.create_run(experiment, tags={"mlops_nb.run": "20200101-000000-ffff"}).info.run_id  # of a project that shares the registry
    aged(tmp_path)
    done = collect(settings, 1)
    assert done.runs == [past] and (settings.reports / cited / "summary.json").is_file()
    assert all(Store(settings.home).has(d) for d in (*digests.values(), extra))
    assert load(settings.registry_uri, "tiny", version.version).model is not None
    assert client.get_run(version.mlflow_run).info.lifecycle_stage == "active"
    assert (client.get_run(loose).info.lifecycle_stage, client.get_run(foreign).info.lifecycle_stage) == ("deleted", "active")

    # a registry that can't be asked: nothing is touched
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = everything(settings)
    with pytest.raises(MlopsError):
        collect(settings.model_copy(update={"registry_uri": "http://127.0.0.1:9"}), 1)
    assert everything(settings) == before


@pytest.mark.slow
def test_what_stays_is_still_cached(ran):
    """By the command line, on real runs: what gc leaves is enough for the newest run to be taken from the cache."""
    ran.run("-p", "scale.factor=5")
    ran.run("-p", "scale.factor=6")
    aged(ran.root / ".mlops")
    said = ran.call("gc", "--keep", "1", "--dry-run")
    assert said.returncode == 0 and "would free" in said.stdout, said.stderr
    done = ran.call("gc", "--keep", "1")
    assert done.returncode == 0 and "2 runs go, 1 stay" in done.stdout, done.stdout + done.stderr
    assert set(ran.run("-p", "scale.factor=6").values()) == {"cached"}
    assert ran.run("-p", "scale.factor=5")["scale"] == "done"
    assert ran.call("gc", "--keep", "0").returncode == 2  # refused by the command line itself
