"""Tracking mirrors a run and never hurts it: read back what was recorded, see what left the machine, kill what can be killed."""

import getpass
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import Settings
from mlops_nb.pipeline.mlflow_runs import record_mlflow
from mlops_nb.pipeline.tracking import Tracker, sync, tracking_mode

CHARTER = {"name": "income", "data": {"source": "/home/ada/private/adult.csv"}, "metric": "roc_auc"}
KNOBS = {"split": {"seed": 0, "test_size": 0.2}}
ROWS = [{"age": 39, "race": "raw-row-marker"}]
END = {"status": "done", "seconds": 3.0, "model": {"name": "income", "version": 3, "phase": "staging", "gates": []}}


def png():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png()


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path, tmp_path_factory):
    """Whatever this machine's user has set up for W&B, and no litter in the temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("t")))
    monkeypatch.setenv("TMPDIR", tempfile.tempdir)
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # set by the tracker; put back at the end
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-config"))


def fill(tracker, model):
    tracker.status("split", "done", 1.25)
    tracker.metrics("split", {"n_train": 31258, "strategy": "stratified", "undefined": float("nan")})
    tracker.metrics("fairness", {"recall/Female": 0.81})
    tracker.figure("train", "leaderboard_plot", PNG)
    tracker.table("train", "leaderboard", [{"model": "boosting", "roc_auc": 0.93}], aggregate=True)
    tracker.table("split", "train", ROWS)
    tracker.artifact("split", "train", "Table", "9f" * 32, {"rows": "ab" * 32})
    tracker.artifact("ensemble", "model", "Model", "cd" * 32, {"train": "9f" * 32}, path=model)
    return tracker.finish(END, timeout=300)


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "model.skops"
    file.write_bytes(b"model-content-marker")
    return file


def records(folder):
    """The records of a .wandb file: a LevelDB log of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = Path(folder).glob("*.wandb")
    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # a block's tail is padding
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or last piece
            yield Record.FromString(part)
            part = b""


def values(items):
    return {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items if i.value_json}


def test_the_offline_run_holds_config_metrics_and_lineage(tmp_path, model):
    tracker = Tracker.open(Settings(root=tmp_path), "20261122-190501-ab12", CHARTER, KNOBS)
    assert fill(tracker, model) == []
    found = list(records(tracker.folder))
    (start,) = [r.run for r in found if r.HasField("run")]
    config, history, summary = values(start.config.update), {}, {}
    for record in found:
        if record.HasField("history"):
            history |= values(record.history.item)
        if record.HasField("summary"):
            summary |= values(record.summary.update)
    assert start.display_name == "20261122-190501-ab12" and start.project == "income"
    assert config["knobs"] == KNOBS and config["charter"]["data"]["source"] == "adult.csv"
    assert history["split/n_train"] == 31258 and history["fairness/recall/Female"] == 0.81 and "split/undefined" not in history
    assert summary["split/strategy"] == "stratified" and summary["stages/split/status"] == "done" and summary["stages/split/seconds"] == 1.25
    assert summary["model/phase"] == "staging" and summary["status"] == "done"
    cards = {r.artifact.name: json.loads(r.artifact.metadata) for r in found if r.HasField("artifact") and r.artifact.metadata}
    assert cards["model"]["inputs"] == {"train": cards["train"]["digest"]} and cards["train"]["stage"] == "split"
    assert (next(tracker.folder.rglob("leaderboard_plot*.png"))).read_bytes() == PNG


def test_rows_and_models_are_in_no_file(tmp_path, model):
    settings = Settings(root=tmp_path)
    assert fill(Tracker.open(settings, "r", CHARTER, KNOBS), model) == []
    written = b"".join(p.read_bytes() for p in (settings.home / "wandb").rglob("*") if p.is_file())
    assert b"boosting" in written and b"raw-row-marker" not in written and b"model-content-marker" not in written


class Fake:
    """A W&B server that says yes (or 403) and remembers what it was sent."""

    def __init__(self, refuse=False):
        fake, self.sent = self, []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                fake.sent.append(self.path.encode() + b"\n" + body)
                asked = json.loads(body) if self.path.endswith("/graphql") else {}
                answer = json.dumps(fake.answer(asked.get("operationName"), asked.get("variables") or {})).encode()
                self.send_response(403 if refuse else 200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_PUT = do_GET = do_POST

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, name, asked):
        bucket = {"id": "b", "name": asked.get("name"), "displayName": "r", "project": {"id": "p", "name": "income", "entity": {"id": "e", "name": "ada"}}}
        made = {"id": "a", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
        files = [{"name": f, "uploadUrl": f"{self.url}/upload/{f}"} for f in asked.get("files") or []]
        put = {"id": "m", "file": {"id": "f", "uploadUrl": f"{self.url}/upload/manifest", "uploadHeaders": []}}
        stored = [{"node": {"id": s["name"], "name": s["name"], "uploadUrl": f"{self.url}/upload/{s['name']}", "uploadHeaders": [], "artifact": made}}
            for s in (asked.get("input") or {}).get("artifactFiles") or []]  # fmt: skip
        return {"data": {
            "Viewer": {"viewer": {"id": "u", "entity": "ada", "username": "ada", "flags": "{}", "teams": {"edges": []}}},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}}, "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}},
            "CreateArtifact": {"createArtifact": {"artifact": made}}, "CreateArtifactManifest": {"createArtifactManifest": {"artifactManifest": put}},
            "UpdateArtifactManifest": {"updateArtifactManifest": {"artifactManifest": put}}, "CreateArtifactFiles": {"createArtifactFiles": {"files": {"edges": stored}}},
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "a", "digest": ""}}},
        }.get(name or "", {"project": {"artifact": None}} if "project" in asked else {})}  # fmt: skip


@pytest.fixture
def server(monkeypatch):
    made = Fake()
    monkeypatch.setenv("WANDB_BASE_URL", made.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    yield made
    made.server.shutdown()


@pytest.mark.parametrize("upload", ["", "tables models"])
def test_online_only_what_may_leaves_the_machine(tmp_path, model, server, upload):
    settings = Settings(root=tmp_path, tracking="online", upload=upload)
    tracker = Tracker.open(settings, "r", CHARTER, KNOBS)
    assert fill(tracker, model) == [] and tracker.mode == "online"
    sent = b"\n".join(server.sent)
    assert b"split/n_train" in sent and PNG in sent and b"boosting" in sent and b"made by ensemble from train@9f9f" in sent
    assert (b"raw-row-marker" in sent) == (b"model-content-marker" in sent) == bool(upload)
    private = (str(tmp_path), "/home/ada", str(Path.home()), socket.gethostname(), getpass.getuser())
    assert [p for p in private if len(p) > 4 and p.encode() in sent] == []
    assert sync(settings) == ["no W&B run waits for upload"]


def test_an_offline_run_is_uploaded_later_once(tmp_path, model, server, monkeypatch):
    settings = Settings(root=tmp_path)
    key = os.environ.pop("WANDB_API_KEY")
    tracker = Tracker.open(settings, "r", CHARTER, KNOBS)
    assert fill(tracker, model) == [] and server.sent == []
    with pytest.raises(MlopsError, match="wait for upload: 1; but W&B has no key; get one at .* export WANDB_API_KEY"):
        sync(settings)
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert sync(settings) == [f"uploaded {tracker.folder.name}"] and b"split/n_train" in b"\n".join(server.sent)
    assert sync(settings) == ["no W&B run waits for upload"]


@pytest.mark.slow
def test_a_refused_key_means_offline(tmp_path, model, server, monkeypatch):
    refusing = Fake(refuse=True)
    monkeypatch.setenv("WANDB_BASE_URL", refusing.url)
    tracker = Tracker.open(Settings(root=tmp_path, tracking="online"), "r", CHARTER, KNOBS)
    (warning,) = fill(tracker, model)
    assert tracker.mode == "offline" and "this run is tracked offline, mlops-nb sync uploads it later" in warning
    assert any(r.HasField("history") for r in records(tracker.folder))
    with pytest.raises(MlopsError, match="W&B took 0 of 1 runs, but not offline-run-"):
        sync(Settings(root=tmp_path), timeout=5)
    refusing.server.shutdown()


SCRIPT = """
import json, os, signal, subprocess, sys, time
from mlops_nb.base.settings import Settings
from mlops_nb.pipeline.tracking import Tracker
tracker = Tracker.open(Settings(root=sys.argv[1]), "r", {"name": "income"}, {})
tracker.metrics("split", {"n_train": 1})
while tracker.folder is None and not tracker.warnings:
    time.sleep(0.05)
time.sleep(0.2)
timeout = 15
HURT
began = time.perf_counter()
for i in range(300):
    tracker.metrics("train", {"loss": i})
held = time.perf_counter() - began
began = time.perf_counter()
warnings = tracker.finish({"status": "done"}, timeout=timeout)
print(json.dumps({"mode": tracker.mode, "warnings": warnings, "held": held, "finish": time.perf_counter() - began}))
"""
SERVICE = """
rows = [line.split(None, 2) for line in subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True).stdout.splitlines()]
service = [int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and "wandb-core" in name]
assert len(service) == 1, rows
"""


PATIENT = "timeout = 300"  # a busy machine may be long about what is not the point


def script(hurt, folder, **more):
    return subprocess.run([sys.executable, "-c", SCRIPT.replace("HURT", hurt), str(folder)], capture_output=True, text=True, timeout=600, **more)  # noqa: S603


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "pause"), [("SIGKILL", 0), ("SIGSTOP", 0), pytest.param("SIGKILL", 6, marks=pytest.mark.deep)])
def test_a_dead_or_hanging_service_is_one_warning_and_nothing_else(tmp_path, sign, pause):
    """W&B's own threads ask every 5 s, so 6 s let them be the first to miss the service."""
    ended = script(f"{SERVICE}os.kill(service[0], signal.{sign})\ntime.sleep({pause})\ntimeout = 2", tmp_path)
    assert ended.returncode == 0 and ended.stderr == ""
    told = json.loads(ended.stdout)
    assert len(told["warnings"]) == 1 and told["warnings"][0].startswith("W&B tracking stopped: ") and "mlops-nb sync" in told["warnings"][0]
    assert told["held"] < 30 and told["finish"] < 30  # a service that hangs does so for ever


def test_without_trouble_there_is_nothing_to_read(tmp_path):
    ended = script(PATIENT, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "") and json.loads(ended.stdout)["warnings"] == []


@pytest.mark.slow
def test_online_without_a_key_never_asks(tmp_path):
    import pty

    ours, theirs = pty.openpty()  # a terminal, so that a question could be asked
    ended = script(PATIENT, tmp_path, stdin=theirs, env={**os.environ, "WANDB_MODE": "online"})
    os.close(theirs)
    os.close(ours)
    told = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, told["mode"]) == (0, "", "offline")
    assert len(told["warnings"]) == 1 and "export WANDB_API_KEY" in told["warnings"][0]


@pytest.mark.slow
def test_a_killed_runner_leaves_no_service(tmp_path):
    hurt = f"{SERVICE}print(service[0], flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    ended = script(hurt, tmp_path)
    assert ended.returncode == -signal.SIGKILL
    for _ in range(600):
        alive = subprocess.run(["ps", "-o", "stat=", "-p", ended.stdout.strip()], capture_output=True, text=True).stdout.strip()  # noqa: S603, S607
        if not alive or alive.startswith("Z"):
            return
        time.sleep(0.1)
    raise AssertionError("wandb-core lives on")


def test_disabled_does_nothing(tmp_path, model, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Tracker.open(Settings(root=tmp_path), "r", CHARTER, KNOBS)
    assert fill(tracker, model) == [] and tracker.folder is None and not (tmp_path / ".mlops").exists()


def test_a_home_that_cannot_be_written_is_a_warning(tmp_path, model):
    (tmp_path / "file").write_text("in the way")
    (warning,) = fill(Tracker.open(Settings(root=tmp_path, home="file"), "r", CHARTER, KNOBS), model)
    assert warning.startswith("W&B tracking stopped: ") and str(tmp_path) not in warning


def test_a_mode_that_is_none_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    mode, warning = tracking_mode(Settings(root=tmp_path))
    assert mode == "offline" and "WANDB_MODE = onlin: not a mode" in warning


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    from mlops_nb.registry.client import mlflow_client

    settings = Settings(root=tmp_path_factory.mktemp("mlflow"))
    return settings, mlflow_client(settings.registry_uri)


SUMMARY = {
    "run": "r1", "charter": "income", "status": "failed", "seconds": 3.0, "started": "2026-11-22T19:05:01Z", "git": {"commit": "15a2eed", "dirty": True}, "model": None,
    "stages": {"split": {"status": "done", "seconds": 1.0, "metrics": {"n_train": 5, "strategy": "hash"}}, "train": {"status": "failed", "seconds": 2.0, "metrics": {}}},
}  # fmt: skip


def test_a_run_is_recorded_in_mlflow(database):
    settings, client = database
    many = {"train": {f"knob_{i}": i for i in range(250)}, "split": {"names": ["a", "b"], "long": "x" * 9000}}
    assert record_mlflow(settings, SUMMARY, CHARTER, many) is None
    (run,) = client.search_runs([client.get_experiment_by_name("income").experiment_id])
    assert run.info.status == "FAILED" and run.info.run_name == "r1" and len(run.data.params) == 252
    assert run.data.params["split.names"] == '["a", "b"]' and len(run.data.params["split.long"]) == 6000
    assert run.data.metrics == {"split.n_train": 5, "seconds.split": 1, "seconds.train": 2, "seconds": 3}
    assert run.data.tags["mlops_nb.stage.train"] == "failed" and "15a2eed" in run.data.tags["mlops_nb.git"]


def test_a_figure_of_any_name_is_recorded_in_mlflow(database):
    """MLflow takes few signs, and no name that is a path to elsewhere: one odd name cost the whole record."""
    settings, client = database
    odd = {"rows of sqlite:///crm.db": 3, "../up": 4, "found in a/b/": 5}
    stages = {"ingest": {"status": "done", "seconds": 1.0, "metrics": odd}}
    assert record_mlflow(settings, SUMMARY | {"run": "r2", "stages": stages}, {"name": "odd names"}, {}) is None
    (run,) = client.search_runs([client.get_experiment_by_name("odd names").experiment_id])
    assert sorted(v for n, v in run.data.metrics.items() if n.startswith("ingest.")) == [3, 4, 5]


def test_a_run_that_registered_uses_its_mlflow_run(database):
    settings, client = database
    made = client.create_run(client.create_experiment("registered"))
    client.log_param(made.info.run_id, "split.seed", "7")
    client.set_terminated(made.info.run_id)
    summary = {**SUMMARY, "status": "done", "model": {"name": "registered", "mlflow_run": made.info.run_id}}
    assert record_mlflow(settings, summary, {"name": "registered"}, KNOBS) is None
    (run,) = client.search_runs([made.info.experiment_id])
    assert run.data.metrics["split.n_train"] == 5 and run.data.params == {"split.seed": "7", "split.test_size": "0.2"}


def test_what_a_run_says_of_itself_in_mlflow(finished, tables, tmp_path_factory):
    """Its name, how long it took, what it read, what it was for and where its report is, on a page of MLflow's for runs and models."""
    from mlops_nb.registry.client import mlflow_client

    summary, place = finished.summary(), tmp_path_factory.mktemp("told")
    shutil.copy(tables, place / "mlflow.db")
    settings = Settings(root=finished.root, registry_uri=f"sqlite:///{place}/mlflow.db")
    assert record_mlflow(settings, summary, {"name": "tiny", "goal": "Learn whether runs behave"}, {}) is None
    client = mlflow_client(settings.registry_uri)
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development", "no page for language models"
    assert run.info.run_name == summary["run"] and run.info.end_time - run.info.start_time == round(1000 * summary["seconds"])
    (read,) = run.inputs.dataset_inputs
    rows = hashlib.sha256((finished.root / "rows.csv").read_bytes()).hexdigest()
    assert (read.dataset.name, read.dataset.digest) == ("rows.csv", rows[:36]) and str(finished.root) not in read.dataset.source
    assert "Learn whether runs behave" in run.data.tags["mlflow.note.content"]
    assert run.data.tags["mlops_nb.report"] == (finished.root / "reports" / summary["run"] / "index.html").as_uri()


def test_a_run_that_registered_has_its_whole_duration(database):
    from mlops_nb.registry.client import begin_run

    settings, client = database
    made = begin_run(client, settings.registry_uri, "lasting", "20261122-190501-ab12")
    client.set_terminated(made.info.run_id)
    summary = {**SUMMARY, "run": "20261122-190501-ab12", "status": "done", "model": {"name": "lasting", "mlflow_run": made.info.run_id}}
    assert record_mlflow(settings, summary, {"name": "lasting"}, KNOBS) is None
    about = client.get_run(made.info.run_id).info
    assert about.run_name == "20261122-190501-ab12" and (about.start_time, about.end_time) == (1795374301000, 1795374304000)


def test_a_run_in_which_nothing_executed_is_left_out(database):
    settings, client = database
    cached = {**SUMMARY, "stages": {"split": {"status": "cached", "seconds": 0.0, "metrics": {"n_train": 5}}}}
    assert record_mlflow(settings, cached, {"name": "idle"}, KNOBS) is None and client.get_experiment_by_name("idle") is None


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db", "ftp://nowhere"])
def test_mlflow_away_is_a_sentence(tmp_path, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warning = record_mlflow(Settings(root=tmp_path, registry_uri=uri), SUMMARY, CHARTER, KNOBS)
    assert warning.startswith("MLflow has no full record of this run: ") and "\n" not in warning
