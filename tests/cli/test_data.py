"""`mlops-nb data` as a user calls it, in a project that `init` made."""

import json
import sys
from pathlib import Path

import pytest

from mlops_nb.base.errors import why_refused
from tests.cli.test_cli import imported
from tests.conftest import command, project_of

ROWS = [{"id": n, "age": 20 + n % 50, "buys": "yes" if n % 3 else "no"} for n in range(120)]


@pytest.fixture
def shop(tmp_path: Path, ada: None) -> Path:
    pytest.importorskip("dvc", reason="versions of data need the extra data")
    return project_of(tmp_path / "rows.csv", ROWS, "buys")


def test_help_and_check_import_no_dvc(shop):
    heavy = {"dvc", "duckdb", "pandas", "pyarrow", "mlflow"}
    assert imported(["data", "--help"], heavy, shop)[-1] == "[]"
    command(shop, "data", "add", "data/rows.csv", "--reason", "first")
    charter = shop / "nbs" / "charters" / "gym.yaml"
    charter.write_text(charter.read_text().replace('"data/rows.csv"', "rows@1"))
    said = imported(["check"], heavy, shop)
    assert said[-1] == "[]" and said[-2].startswith("sound: "), "a pin is checked by git alone"


def test_without_dvc_the_extra_is_named(shop):
    code = "import sys; sys.modules['dvc'] = None; sys.argv = ['mlops-nb', 'data', 'versions']\nfrom mlops_nb.cli.main import main\nmain()"
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], cwd=shop, capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'mlops-nb[data]'" in done.stderr, done.stderr


def test_a_day_with_versions(shop):
    assert "no versions yet; begin: mlops-nb data add" in command(shop, "data", "versions")
    said = command(shop, "data", "add", "data/rows.csv", "--reason", "as the shop sent them")
    assert "git: a new repository" in said and "rows@1: data/rows.csv, 120 rows, 3 columns" in said and "by Ada" in said
    file = shop / "data" / "rows.csv"
    file.write_text(file.read_text().replace("\n1,21,", "\n1,99,").replace("0,20,no\n", "") + "500,1,\x1b[31mred\n")
    assert "--reason TEXT" in command(shop, "data", "add", "data/rows.csv", fails=True)
    command(shop, "data", "add", "data/rows.csv", "--reason", "mended")
    told = command(shop, "data", "diff", "rows", "1", "2", "--key", "id")
    assert "1 added, 1 removed, 1 changed (by id)" in told and "21 -> 99" in told and "\x1b" not in told
    found = json.loads(command(shop, "data", "diff", "rows", "1", "rows@2", "--json"))
    assert (found["added"], found["removed"], found["from"]) == (2, 2, "rows@1")
    listed = json.loads(command(shop, "data", "versions", "rows", "--json"))
    assert [v["number"] for v in listed] == [2, 1] and all(v["here"] for v in listed)
    assert "proven" in command(shop, "data", "checkout", "rows@1") and "1,21," in file.read_text()
    assert "rolled back to v1" in command(shop, "data", "add", "data/rows.csv")
    assert "no remote is named" in command(shop, "data", "push", fails=True)
    assert "expected a file or a folder, or --model" in command(shop, "data", "add", fails=True)
    assert "no model 'gym'" in command(shop, "data", "which", "gym@1", fails=True)


def test_a_page_of_any_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("visits.csv").write_text("age,again\n" + "".join(f"{20 + n % 40},{'yes' if n % 3 else 'no'}\n" for n in range(90)))
    said = command(tmp_path, "data", "report", "visits.csv", "-o", "page.html", "--target", "again")
    assert "the page is in page.html" in said and "90 rows, 2 columns" in Path("page.html").read_text()
    assert "did you mean 'again'" in command(tmp_path, "data", "report", "visits.csv", "--target", "agan", fails=True)
    command(tmp_path, "data", "report", "visits.csv")
    assert Path("visits.csv.html").is_file()


def test_a_model_takes_nobodys_place(shop, monkeypatch):
    """The folder of a registered model as a data set: no other folder is touched, and a number is there once."""
    from types import SimpleNamespace

    from mlops_nb.cli.data import data_add
    from mlops_nb.registry import files
    from mlops_nb.registry import versions as registered

    made = SimpleNamespace(version="1")  # a version of the registry: what `get` and `read_file` give
    monkeypatch.setattr(registered, "get", lambda uri, name, which: made)
    monkeypatch.setattr(files, "digests", lambda version: {"model/m.json": "0"})
    monkeypatch.setattr(files, "read_file", lambda uri, version, path: b"bytes")
    monkeypatch.chdir(shop)
    (raw := shop / "data" / "raw").mkdir()
    (raw / "own.csv").write_text("a")
    nbs = sorted(p.name for p in (shop / "nbs").iterdir())
    for name, said in (("raw", "is no version of a data set 'raw'"), ("../nbs", "can't be called"), ("..", "can't be called")):
        assert said in why_refused(data_add, name=name, model="gym@1")
    assert (raw / "own.csv").read_text() == "a" and sorted(p.name for p in (shop / "nbs").iterdir()) == nbs
    data_add(name="m", model="gym@1")
    assert (shop / "data" / "m" / "model" / "m.json").read_bytes() == b"bytes"
    command(shop, "data", "add", "data/rows.csv", "--name", "rows", "--reason", "first")
    assert "rows@1 is there and has other bytes" in why_refused(data_add, name="rows", model="gym@1")
    assert not (shop / "data" / "rows").exists() and not list(shop.glob(".model-*"))
