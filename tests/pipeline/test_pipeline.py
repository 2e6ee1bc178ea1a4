"""The shipped pipeline, end to end on the sample store."""

import json
import secrets
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_nb.base.artifacts import Json, Model, Store, Table
from mlops_nb.pipeline.graph import load_graph
from mlops_nb.pipeline.plan import sample_settings
from mlops_nb.base.settings import load_settings

SETTINGS = sample_settings(load_settings())
STAGES = "problem ingest validate split features train tune ensemble evaluate explain fairness register score monitor abtest diagnose".split()


def call(*words: str) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "MLOPS_NB_HOME", "MLOPS_NB_REPORTS")}
    tool = Path(sys.executable).with_name("mlops-nb")
    return subprocess.run([tool, *words], cwd=SETTINGS.root, capture_output=True, text=True, timeout=600, env=env)


@pytest.fixture(scope="module")
def summary() -> dict:
    done = call("run", "--sample", "2000")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((SETTINGS.reports / (SETTINGS.reports / "latest").read_text().strip() / "summary.json").read_text())


def read(summary: dict, stage: str, artifact: str, kind):
    return kind.load(Store(SETTINGS.home).get(summary["stages"][stage]["outputs"][artifact]))


def test_every_stage_in_order(summary):
    assert list(summary["stages"]) == STAGES
    assert {s["status"] for s in summary["stages"].values()} <= {"done", "cached"}
    registered = read(summary, "register", "version", Json)
    assert registered["name"] == summary["model"]["name"] == "income" and registered["phase"] in ("staging", "rejected")


def test_the_rows_that_judged_a_version_are_known(summary):
    """By their digest, so that it can be counted how often they have judged one."""
    assert read(summary, "evaluate", "evaluation", Json)["test_digest"] == summary["stages"]["split"]["outputs"]["test"]


def test_only_four_stages_judge_by_the_test_rows_and_one_learns_from_them_then():
    """diagnose counts by them the slices that other rows have proposed; nothing is chosen by it."""
    stages = load_graph(SETTINGS).stages.values()
    readers = {s.name for s in stages if any(p.artifact == "test" for p in s.inputs)}
    assert readers == {"evaluate", "explain", "fairness", "register", "diagnose"}
    (last,) = (s for s in stages if s.name == "register")
    assert "diagnosis" not in {p.artifact for s in stages for p in s.inputs}
    assert {"evaluation", "explanation", "fairness_audit"} <= {p.artifact for p in last.inputs}, "it begins when all of them are done"


def test_rows_are_kept_apart(summary):
    parts = {name: read(summary, "split", name, Table) for name in ("train", "valid", "test")}
    raw, quarantine = read(summary, "ingest", "raw", Table), read(summary, "validate", "quarantine", Table)
    assert sum(map(len, parts.values())) + len(quarantine) == len(raw) == 2000
    features = [c for c in raw.columns if c not in ("income", "fnlwgt")]
    seen = [set(part[features].astype(object).fillna("missing").map(str).agg("|".join, axis=1)) for part in parts.values()]
    assert not (seen[0] & seen[1]) and not (seen[0] & seen[2]) and not (seen[1] & seen[2])


def test_model_takes_raw_rows(summary):
    model = read(summary, "ensemble", "model", Model)
    test = read(summary, "split", "test", Table)
    probability = model.predict_proba(test.drop(columns="income"))
    assert probability.shape == (len(test), 2) and (probability >= 0).all()


def test_records_in_mlflow_and_wandb(summary):
    with sqlite3.connect(SETTINGS.home / "mlflow.db") as db:
        version = db.execute("select run_id from model_versions where name = 'income' order by cast(version as int) desc").fetchone()
        figures = dict(db.execute("select key, value from metrics where run_uuid = ?", version))
        assert any("roc_auc" in name for name in figures), figures
    assert list((SETTINGS.home / "wandb").rglob("run-*.wandb"))


def test_second_run_takes_everything(summary):
    done = call("run", "--sample", "2000", "--dry-run")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[s, "cached"] for s in STAGES]


@pytest.mark.slow
def test_another_wording_of_the_charter_learns_nothing_anew(summary, tmp_path):
    reworded = SETTINGS.charter.read_text().replace("title: Who", f"title: Guess {secrets.token_hex(4)}, who").replace("Four-fifths rule.", "The rule of four fifths.")
    (tmp_path / "income.yaml").write_text(reworded)
    done = call("run", "ensemble", "--sample", "2000", "--charter", str(tmp_path / "income.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    stages = json.loads((SETTINGS.reports / (SETTINGS.reports / "latest").read_text().strip() / "summary.json").read_text())["stages"]
    assert {name: s["status"] for name, s in stages.items()} == {s: "done" if s in ("problem", "ingest") else "cached" for s in STAGES[:8]}
    assert stages["problem"]["outputs"]["problem"] != summary["stages"]["problem"]["outputs"]["problem"]


@pytest.mark.slow
def test_forced_again_every_artifact_is_equal(summary):
    """Determinism: all stages again, in new kernels, give the same digests."""
    done = call("run", "--sample", "2000", *[w for s in STAGES[:11] for w in ("--force", s)])
    assert done.returncode == 0, done.stdout + done.stderr
    again = json.loads((SETTINGS.reports / (SETTINGS.reports / "latest").read_text().strip() / "summary.json").read_text())
    for stage in STAGES:
        assert again["stages"][stage]["outputs"] == summary["stages"][stage]["outputs"], stage
