"""A project that several people change, in git: notebooks merge, and an earlier run comes back with its code, knobs, data and results."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlops_nb.base.charter import Charter
from mlops_nb.base.git import git
from mlops_nb.cli.restore import _bring_data
from mlops_nb.pipeline.origin import Origin
from mlops_nb.sources.files import source_file
from tests.conftest import Project

IGNORED = ".mlops\n/rows.csv\nreports/\n__pycache__/\n"
pytestmark = pytest.mark.usefixtures("ada")


def shared(project: Project) -> str:
    (project.root / ".gitignore").write_text(IGNORED)
    done = project.call("init", ".", "--git")
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_executed(project: Project, name: str, count: int) -> None:
    """The notebook as it is after somebody ran it: counts, and what cells showed."""
    file = project.root / "nbs" / name
    book = json.loads(file.read_text())
    for place, cell in enumerate(c for c in book["cells"] if c["cell_type"] == "code"):
        cell["execution_count"] = count + place
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": [f"seen at {count + place}\n"]}]
    file.write_text(json.dumps(book, indent=1))


def test_two_branches_of_a_notebook_merge(project):
    as_executed(project, "stages/20_scale.ipynb", 1)
    said = shared(project)
    assert "a new repository" in said and "first commit" in said
    assert git(project.root, "status", "--porcelain") == "" and ".mlops" not in git(project.root, "ls-files")
    changes = {"ada": ("scale([1], 2) == [3]  # LESSON", "scale([2], 2) == [5]  # LESSON"), "bo": ("log(factor=factor)", "log(times=factor)")}
    for count, (branch, change) in enumerate(changes.items(), 1):
        git(project.root, "switch", "--create", branch, "main")
        project.edit("stages/20_scale.ipynb", *change)
        as_executed(project, "stages/20_scale.ipynb", 100 * count)
        project.export()
        git(project.root, "commit", "--all", "--message", branch)
    shown = git(project.root, "diff", "main", "--", "nbs")
    assert "modified cell5" in shown and "{+times+}" in shown and "execution_count" not in shown, "a change is shown as cells"
    git(project.root, "merge", "--no-edit", "ada")
    text = (project.root / "nbs" / "stages" / "20_scale.ipynb").read_text()
    assert all(new in text for _, new in changes.values()) and "<<<<<<<" not in text
    checked = project.call("check")
    assert checked.returncode == 0 and "sound: 4 stages" in checked.stdout, checked.stderr


def test_a_clone_and_a_repository_that_is_there(project, tmp_path_factory):
    shared(project)
    clone = tmp_path_factory.mktemp("team") / "clone"
    git(project.root, "clone", "--quiet", str(project.root), str(clone))
    done = project.call("init", str(clone), "--git")
    assert done.returncode == 0 and "the repository clone" in done.stdout and "commit" not in done.stdout
    assert "nbdev-merge" in git(clone, "config", "merge.jupyternotebook.driver")


def restored(project: Project, run: str, *words: str) -> tuple[Project, str]:
    """An earlier run in a folder of its own, and what was said."""
    folder = project.root.with_name(f"{project.root.name}-back")
    done = project.call("restore", run, "--to", str(folder), *words)
    assert done.returncode == 0, done.stderr
    back = Project.__new__(Project)
    back.root = folder
    return back, done.stdout


def digests(project: Project) -> dict[str, dict[str, str]]:
    return {name: stage["outputs"] for name, stage in project.summary()["stages"].items()}


def test_a_run_comes_back(project):
    shared(project)
    project.run("-p", "scale.factor=3")
    first, made = project.summary()["run"], digests(project)
    project.edit("services/deep.ipynb", "return 1", "return 5")
    project.export()
    git(project.root, "commit", "--all", "--message", "another offset")
    project.run()
    assert digests(project) != made
    back, said = restored(project, first)
    assert "beware" not in said and "proof: all 4 stages" in said and "scale.factor=3" in said and "rows.csv, the same as then" in said
    assert set(back.run().values()) == {"cached"} and digests(back) == made
    assert set(back.run("--force", "scale").values()) == {"cached", "done"} and digests(back) == made, "made anew, the same"
    told = project.call("runs", "compare", first, project.summary()["run"]).stdout
    assert [line.split()[0] for line in told.splitlines()[1:]] == ["code", "scale.factor", "scale.factor", "total.total"], told


def test_what_cannot_be_brought_back_is_said(project):
    shared(project)
    project.edit("services/deep.ipynb", "return 1", "return 7")
    project.export()
    project.run()
    (project.root / "rows.csv").write_text("y\n4\n")
    _, said = restored(project, "latest")
    assert "never committed" in said and "rows.csv has changed since" in said
    assert "ingest" in said.partition("would run again")[0].rpartition("beware")[2]
    again = project.call("restore", "latest", "--to", str(project.root))
    assert again.returncode == 1 and "is there already" in again.stderr


def test_without_git_there_is_nothing_to_restore(finished):
    done = finished.call("restore", "latest", env={"GIT_CEILING_DIRECTORIES": str(finished.root.parent)})
    assert done.returncode == 1 and "mlops-nb init . --git" in done.stderr
    assert not Path(os.path.dirname(finished.root), f"{finished.root.name}-{finished.summary()['run']}").exists()


def test_sources_of_every_kind_come_back(tmp_path):
    """A file, a glob and a folder with one file or several, a SQLite database; nothing is written outside of the folder."""
    root, back = tmp_path / "shop? 100%20", tmp_path / "deep" / "back"
    (root / "data").mkdir(parents=True)
    (root / "data" / "x1.csv").write_text("a,b\n1,2\n")
    with closing(sqlite3.connect(root / "data" / "shop.db")) as db:
        db.execute("create table visits (a integer)")
        db.execute("insert into visits values (1)")
        db.commit()
    (root / "more").mkdir()
    for n in (1, 2):
        (root / "more" / f"{n}.csv").write_text(f"a\n{n}\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "1.csv").write_text("a\n1\n")

    def brought(source: str, committed: tuple[str, ...] = ()) -> tuple[str, list[str]]:
        stated = {"name": "shop", "goal": "Whom to call", "task": "binary", "target": "b", "positive": 1, "metric": "roc_auc"}
        charter = Charter.model_validate(stated | {"data": {"source": source}})
        shutil.rmtree(back, ignore_errors=True)
        for name in committed:
            (back / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, back / name)
        back.mkdir(parents=True, exist_ok=True)
        then = source_file(charter, root, tmp_path / "store")
        said = _bring_data(root, back, tmp_path / "store", charter, Origin(None, then.content(), None))
        return said, sorted(str(f.relative_to(back)) for f in back.rglob("*") if f.is_file())

    both = ["more/1.csv", "more/2.csv"]
    for source, files in {"data/x1.csv": ["data/x1.csv"], "data/*.csv": ["data/x1.csv"], "data/x?.csv": ["data/x1.csv"], "more": both, "more/*.csv": both, "sqlite:///data/shop.db#visits": ["data/shop.db"]}.items():
        said, there = brought(source)
        assert "the same as then" in said and there == files, (said, there)
    said, there = brought("more/*.csv", committed=("more/1.csv",))
    assert "the same as then" in said and there == both and not (back / "more" / "1.csv").is_symlink()
    said, there = brought("../shared/*.csv")
    assert "outside of the folder" in said and there == [] and sorted(p.name for p in back.parent.iterdir()) == ["back"]
