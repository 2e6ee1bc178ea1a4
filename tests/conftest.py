"""A small made-up project: notebooks, their exported package, a charter and a CSV, all real, all in a temporary folder."""

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPORT = "#| export\n"
CHARTER = """
name: tiny
goal: Learn whether runs behave
task: regression
target: y
metric: r2
data: {source: rows.csv}
"""
NOTEBOOKS = {
    "services/deep.ipynb": ["#| default_exp services.deep", EXPORT + "def offset():\n    return 1"],
    "services/helper.ipynb": [
        "#| default_exp services.helper",
        EXPORT + "from tiny.services.deep import offset\n\n\ndef shift(x):\n    return x + offset()",
    ],
    "stages/010_ingest.ipynb": [
        "#| default_exp stages.ingest",
        EXPORT + "import csv\nfrom mlops_nb.pipeline.stage import Input, Json, Output, Source, log",
        'PARAMETERS\nsource = Input("source", Source)\nraw = Output("raw", Json)\nmax_rows: int | None = None  # rows to use',
        'with open(source.read().path) as file:\n    numbers = [int(r["y"]) for r in csv.DictReader(file)][:max_rows]\nraw.write(numbers)\nlog(n=len(numbers))',
    ],
    "stages/20_scale.ipynb": [
        "#| default_exp stages.scale",
        EXPORT + "from typing import Annotated\nfrom annotated_types import Interval\nfrom mlops_nb.pipeline.stage import Input, Json, Output, log\nfrom tiny.services.helper import shift",
        'PARAMETERS\nraw = Input("raw", Json)\nscaled = Output("scaled", Json)\nfactor: Annotated[int, Interval(ge=1, le=9)] = 2  # times',
        EXPORT + "def scale(numbers, factor):\n    return [shift(n * factor) for n in numbers]",
        'assert scale([1], 2) == [3]  # LESSON',
        "scaled.write(scale(raw.read(), factor))\nlog(factor=factor)",
    ],
    "stages/30_total.ipynb": [
        "#| default_exp stages.total",
        EXPORT + "from mlops_nb.pipeline.stage import Input, Json, Output, log",
        'PARAMETERS\nscaled = Input("scaled", Json)\ntotal = Output("total", Json)\nfail: bool = False  # raise',
        'if fail:\n    raise ValueError("asked to fail")\ntotal.write(sum(scaled.read()))\nlog(total=sum(scaled.read()))',
    ],
    "stages/40_count.ipynb": [
        "#| default_exp stages.count",
        EXPORT + "from mlops_nb.pipeline.stage import Input, Json, Output, log",
        'PARAMETERS\nraw = Input("raw", Json)\nn = Output("n", Json)',
        "n.write(len(raw.read()))\nlog(n_rows=len(raw.read()))",
    ],
}


def notebook(cells: list[str]) -> dict:
    """A notebook from cell sources; PARAMETERS and LESSON mark those cells."""
    made = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Title\n\n> What it does."}]
    for i, source in enumerate(cells):
        tags = ["parameters"] if source.startswith("PARAMETERS") else ["lesson"] if "LESSON" in source else []
        made.append(
            {
                "cell_type": "code",
                "id": f"cell{i}",
                "metadata": {"tags": tags},
                "source": source.removeprefix("PARAMETERS\n"),
                "outputs": [],
                "execution_count": None,
            }
        )
    spec = {"name": "python3", "display_name": "python3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": made}


def called(root: Path, *words: str, timeout: int = 1500, env: dict | None = None) -> subprocess.CompletedProcess:
    """`mlops-nb` in a folder, as a user calls it: by that folder's settings alone."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_") and k != "IN_TEST"}
    tool = Path(sys.executable).with_name("mlops-nb")
    return subprocess.run([tool, *words], cwd=root, capture_output=True, text=True, timeout=timeout, env=clean | (env or {}))


def command(root: Path, *words: str, fails: bool = False) -> str:
    """All that a command says, which ends well, or has to fail."""
    done = called(root, *words)
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def project_of(file: Path, rows: list[dict], *asked: str) -> Path:
    """A table, and the project `gym` that `mlops-nb init` makes of it, beside it; asked: its target, or options of init."""
    with open(file, "w", newline="") as into:
        writer = csv.DictWriter(into, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    command(file.parent, "init", "gym", "--data", file.name, *(asked if len(asked) > 1 else ("--target", *asked)))
    return file.parent / "gym"


def opened_app(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # streamlit's AppTest
    """The app's first page for a project, with nothing kept of another one."""
    pytest.importorskip("streamlit")
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("MLOPS_NB_ROOT", str(root))
    st.cache_data.clear()
    st.cache_resource.clear()
    return AppTest.from_file(str(Path(__file__).parents[1] / "app" / "main.py"), default_timeout=120).run()


class Project:
    """A project in a folder, run as a user would: by the command line."""

    def __init__(self, root: Path, like: Path | None = None):
        self.root = root
        if like:  # a copy, with its store and reports
            shutil.copytree(like, root, symlinks=True, dirs_exist_ok=True)
            return
        root.mkdir(exist_ok=True)
        (root / "rows.csv").write_text("y\n1\n2\n3\n")
        (root / "tiny.yaml").write_text(CHARTER)
        (root / "settings.ini").write_text(
            "[mlops_nb]\ncharter = tiny.yaml\npackage = tiny\njobs = 2\nthreads = 1\nkernel = python3\ntracking = disabled\n"
        )
        (root / "pyproject.toml").write_text(
            '[project]\nname = "tiny"\nversion = "0.1"\n[tool.nbdev]\nlib_path = "tiny"\nallowed_cell_metadata_keys = ["tags"]\n'
        )
        for name, cells in NOTEBOOKS.items():
            self.write(name, cells)
        self.export()

    def write(self, name: str, cells: list[str]) -> None:
        file = self.root / "nbs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(notebook(cells)))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in a notebook, as an author would."""
        file = self.root / "nbs" / name
        text = file.read_text()
        old, new = json.dumps(old)[1:-1], json.dumps(new)[1:-1]
        assert old in text
        file.write_text(text.replace(old, new))

    def export(self) -> None:
        tool = Path(sys.executable).with_name("nbdev-export")
        (self.root / "tiny").mkdir(exist_ok=True)
        (self.root / "tiny" / "__init__.py").touch()
        subprocess.run([tool], cwd=self.root, check=True, capture_output=True, timeout=60)

    def call(self, *words: str, env: dict | None = None) -> subprocess.CompletedProcess:
        return called(self.root, *words, timeout=180, env=env)

    def run(self, *words: str, stages: tuple[str, ...] = ("total", "count"), fails: bool = False) -> dict[str, str]:
        """Status of every stage after `mlops-nb run`."""
        done = self.call("run", *stages, *words)
        assert done.returncode == (1 if fails else 0), done.stdout + done.stderr
        return {name: stage["status"] for name, stage in self.summary()["stages"].items()}

    def summary(self) -> dict:
        latest = (self.root / "reports" / "latest").read_text().strip()
        return json.loads((self.root / "reports" / latest / "summary.json").read_text())


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of pytest's workers fills for all of them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / ".done").touch()
    return folder


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody whom git knows, whatever this machine's user has set up."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ada@example.org")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that has not run yet."""
    return Project(tmp_path)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run, to be copied."""

    def make(folder: Path) -> None:
        assert set(Project(folder / "project").run().values()) == {"done"}

    return once(tmp_path_factory, "template", make) / "project"


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Project:
    """A project of the test's own whose pipeline has run."""
    return Project(tmp_path, like=template)


@pytest.fixture(scope="module")
def ran(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has run; tests that use it leave it as it was, or say so."""
    return Project(tmp_path_factory.mktemp("tiny"), like=template)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's database without an entry, to be copied: MLflow takes seconds to make one."""

    def make(folder: Path) -> None:
        from mlops_nb.registry.client import mlflow_client

        mlflow_client(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return once(tmp_path_factory, "tables", make) / "mlflow.db"
