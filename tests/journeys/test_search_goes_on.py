"""A search that is killed goes on when it is run again, and ends where an undisturbed one ends; the ways of searching, as a user asks for them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import command, project_of

pytestmark = pytest.mark.slow
FEW = ["-p", 'train.candidates=["dummy", "decision_tree"]', "-p", "train.folds=3", "-p", "tune.trials=12"]


@pytest.fixture(scope="module")
def gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 700)).round(3)
    stays = np.where(a + b**2 + rng.normal(size=700) > 1, "yes", "no")
    rows = [{"a": x, "b": y, "stays": s} for x, y, s in zip(a.tolist(), b.tolist(), stays.tolist(), strict=True)]
    root = project_of(tmp_path_factory.mktemp("search") / "members.csv", rows, "stays")
    command(root, "run", "features", *FEW[:4])
    return root


def tuned(root: Path) -> dict:
    """The digests of what the newest run's search wrote."""
    newest = sorted(p for p in (root / "reports").glob("*/summary.json"))[-1]
    return json.loads(newest.read_text())["stages"]["tune"]["outputs"]


def test_a_killed_search_goes_on(gym: Path):
    command(gym, "run", "tune", *FEW)
    whole = tuned(gym)
    (study,) = (gym / ".mlops" / "studies").glob("tune-*.jsonl")
    lines = study.read_text().splitlines(keepends=True)
    study.unlink()
    run = subprocess.Popen([Path(sys.executable).with_name("mlops-nb"), "run", "tune", "--force", "tune", *FEW], cwd=gym)
    while run.poll() is None and not (study.is_file() and study.read_text().count("\n") >= 5):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    kept = study.read_text().count("\n")
    assert 5 <= kept < len(lines), "it was killed in the middle"
    command(gym, "run", "tune", "--force", "tune", *FEW)
    assert tuned(gym) == whole and study.read_text().count("\n") < kept + len(lines), "some fits were known"
    newest = sorted((gym / "reports").glob("2*"))[-1]
    assert "fits are known from a run that was stopped or had fewer trials" in (newest / "tune.ipynb").read_text()


def test_ways_and_spaces(gym: Path):
    grid = [*FEW, "-p", "tune.search=grid", "-p", "tune.trials=10", "-p", "tune.grid_points=3", "-p", 'tune.space=["decision_tree.max_leaf_nodes=2..20"]']
    command(gym, "run", "tune", *grid)
    store = gym / ".mlops" / "objects"
    digest = tuned(gym)["tuned"]
    found = json.loads((store / digest[:2] / digest).read_bytes())
    sets = {(h["params"]["max_leaf_nodes"], h["params"]["min_samples_leaf"]) for h in found["history"][1:]}
    assert sets == {(n, m) for n in (2, 11, 20) for m in (1, 10, 100)} and "whole grid" in found["models"][0]["ended"]
    command(gym, "run", "tune", *FEW, "-p", "tune.search=halving", "-p", "tune.trials=10")
    said = command(gym, "run", "tune", *FEW, "-p", 'tune.space=["decision_tree.max_leafs=2..20"]', fails=True)
    assert "did you mean 'max_leaf_nodes'" in " ".join(said.split())
    said = command(gym, "run", "tune", *FEW, "-p", "tune.search=gird", fails=True)
    assert "did you mean 'grid'" in " ".join(said.split())
    assert "halving" in " ".join(command(gym, "run", "tune", *FEW, "-p", "tune.search=halving", "--budget", "5", fails=True).split())
