"""The contract that every stage notebook keeps, a user's own included (anatomy: ARCHITECTURE.md)."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_nb.pipeline.graph import charter_with, stage_files
from mlops_nb.base.settings import load_settings
from mlops_nb.pipeline.signatures import bound_names, faults, read_notebook, read_stage

SETTINGS = load_settings()
FILES = stage_files(SETTINGS.root)
STAGES = {file.stem: read_stage(file, SETTINGS.package) for file in FILES}
TOO_MUCH = 200_000  # bytes a committed notebook may have

stage = pytest.mark.parametrize("name", STAGES)


def module_file(name: str) -> Path:
    return SETTINGS.root.joinpath(*STAGES[name].module.split(".")).with_suffix(".py")


def test_nbdev_keeps_the_tags():
    """nbdev-clean strips the tags `parameters` and `lesson` unless it is told not to."""
    import tomllib

    project = tomllib.loads((SETTINGS.root / "pyproject.toml").read_text())
    assert project["tool"]["nbdev"]["allowed_cell_metadata_keys"] == ["tags"]


@stage
def test_anatomy(name):
    """Title with a one-line summary, directive, imports, one signature, functions with lessons, the run; in this order."""
    found = STAGES[name]
    cells = read_notebook(found.path)["cells"]
    title = "".join(cells[0]["source"]) if cells[0]["cell_type"] == "markdown" else ""
    assert re.match(r"# \S.*\n\n> \S", title), "the first cell is `# Title`, an empty line, `> one line`"
    roles = [c.role for c in found.cells]
    assert roles[0] == "directive" and roles.count("parameters") == 1
    assert roles.index("export") < roles.index("parameters") < len(roles) - 1
    assert roles[-1] == "run" and "lesson" not in roles[roles.index("run") :], "the run comes last"
    assert int(found.path.stem.partition("_")[0]) % 10 == 0, "numbered in reading order with gaps of ten"
    assert found.path.stem.partition("_")[2] == found.name


@stage
def test_same_program_headless_and_by_hand(name):
    assert faults(STAGES[name], module_file(name).read_text()) == []


@stage
def test_every_exported_function_has_a_lesson(name):
    """A lesson uses each public function, asserts something, and shows its result on the last line."""
    found = STAGES[name]
    public = {
        node.name
        for cell in found.source("export")
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    lessons = found.source("lesson")
    used = {n.id for c in lessons for n in ast.walk(ast.parse(c.source)) if isinstance(n, ast.Name)}
    assert public - used == set(), "exported, but in no lesson"
    assert any("assert" in c.source for c in lessons)
    for cell in lessons:
        assert isinstance(ast.parse(cell.source).body[-1], ast.Expr), f"cell {cell.id} shows no result on its last line"


@stage
def test_knobs_have_help(name):
    for knob in STAGES[name].knobs.values():
        assert len(knob.help) > 8, f"{knob.name} needs one line of help behind its default"


@stage
def test_functions_are_short(name):
    """Over 30 lines (docstring and parameter lines aside) it is two functions."""
    tree = ast.parse(module_file(name).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.body[0].lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines"


@stage
def test_nothing_private_or_large_is_committed(name):
    text = STAGES[name].path.read_text(encoding="utf-8")
    assert len(text.encode()) <= TOO_MUCH, "a committed notebook has at most 200 kB"
    for line in json.loads(text)["cells"]:
        said = json.dumps(line.get("outputs", []))
        assert not re.search(r"(/home/|/root/|/Users/|/tmp/)\w", said) and str(SETTINGS.root) not in said, f"a path in the output of cell {line['id']}"
    names = json.loads(text)["metadata"]["kernelspec"]["name"]
    assert names == "python3"


@stage
def test_signature_and_functions_share_no_name(name):
    found = STAGES[name]
    exported = set().union(*(bound_names(ast.parse(c.source)) for c in found.source("export")))
    assert not exported & found.names


def test_importing_has_no_effects(tmp_path):
    """No folder made, no server asked, no W&B run opened, no thread started, and nothing heavy that isn't asked for."""
    modules = sorted(s.module for s in STAGES.values())
    code = (
        "import importlib, sys, threading, os\n"
        f"for m in {modules!r}: importlib.import_module(m)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "heavy = {'wandb', 'mlflow', 'shap', 'streamlit'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert os.listdir('.') == [], os.listdir('.')\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr


@functools.cache
def sampled(charter: Path) -> dict[str, str]:
    """Environment of the sample store, once a charter's run is in it (make test makes the active one's first; it is cached)."""
    tool = Path(sys.executable).with_name("mlops-nb")
    words = [tool, "run", "--sample", "2000", "--charter", charter]
    done = subprocess.run(words, cwd=SETTINGS.root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    home = SETTINGS.home / "sample"
    return {**os.environ, "MLOPS_NB_HOME": str(home), "MLOPS_NB_REPORTS": str(home / "reports"), "IN_TEST": "1"}


@pytest.mark.slow  # nbdev-test runs each of them top to bottom too
@stage
def test_runs_by_hand_in_an_ordinary_kernel(name, tmp_path):
    """The plain papermill command runs the notebook top to bottom on the newest artifacts, lessons included."""
    tool = Path(sys.executable).with_name("papermill")
    out = tmp_path / "out.ipynb"
    charter = charter_with({port.artifact for port in STAGES[name].outputs}, SETTINGS)
    done = subprocess.run(
        [tool, STAGES[name].path, out, "-k", "python3", "--no-progress-bar"],
        cwd=SETTINGS.root, capture_output=True, text=True, timeout=600, env=sampled(charter),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
