"""A notebook by hand, or by papermill alone: its knobs are held against its signature before anything is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project


def papermill(project: Project, *words: str) -> subprocess.CompletedProcess:
    """The plain command on the stage `scale`, as people give it."""
    command = [str(Path(sys.executable).with_name("papermill")), "nbs/stages/20_scale.ipynb", "out.ipynb", *words]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_") and k != "IN_TEST"}
    return subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=180, env=clean)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("factor", "12"), "scale.factor = 12: expected a whole number between 1 and 9"),
        (("factor", "two"), "scale.factor = two: expected a whole number between 1 and 9"),
        (("facter", "3"), "scale.facter: no such knob; did you mean 'factor'?"),
    ],
)
def test_papermill_alone_is_held_to_the_signature(ran, words, said):
    done = papermill(ran, "-p", *words)
    assert done.returncode == 1 and f"MlopsError: {said}" in done.stderr, done.stderr
    assert not (ran.root / ".mlops" / "lab" / "tiny" / "scale.json").exists()


def test_a_knob_that_fits_arrives(finished):
    done = papermill(finished, "-p", "factor", "3")
    assert done.returncode == 0, done.stderr
    (written,) = json.loads((finished.root / ".mlops" / "lab" / "tiny" / "scale.json").read_text())["outputs"].values()
    assert json.loads((finished.root / ".mlops" / "objects" / written[:2] / written).read_text()) == [4, 7, 10]
