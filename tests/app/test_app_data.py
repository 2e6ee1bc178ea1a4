"""The app's page of the data: what the newest run wrote, as text, without a request."""

import json
from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.base.artifacts import Store
from mlops_nb.pipeline.data_page import data_html
from mlops_nb.pipeline.stage import view_file

pytest.importorskip("streamlit")
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A project's folder for what is stored, empty."""
    monkeypatch.setenv("MLOPS_NB_ROOT", str(ROOT))
    monkeypatch.setenv("MLOPS_NB_HOME", str(tmp_path))
    return tmp_path


def opened() -> AppTest:
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()
    at = at.switch_page("views/data.py").run()
    assert not at.exception, at.exception
    return at


def keep(home: Path, page: str) -> str:
    """As a run leaves it."""
    digest = Store(home).put(page.encode())
    file = view_file(home, "income")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"run": "r", "stages": {"validate": {"inputs": {}, "outputs": {"data_page": digest}}}}))
    return digest


def shown(at: AppTest) -> str:
    return "".join(element.proto.body for element in at.get("html"))


def test_without_a_run_it_says_what_to_run(home):
    at = opened()
    assert "run validate" in at.code[0].value and not shown(at)


def test_the_page_of_the_newest_run(home):
    keep(home, data_html(pd.DataFrame({"age": [1, 2, 2], "<script>x()</script>": ["<img src=//e.com/x.png>", "b", "b"]})))
    body = shown(opened())
    assert "3 rows, 2 columns" in body and "1 rows are copies" in body
    assert "&lt;script&gt;" in body and "<script" not in body and "<img src=//" not in body and "<img" not in body and "█" in body


def test_what_a_store_was_given_by_others_runs_nothing(home):
    keep(home, "<p onclick='x()'>rows</p><script>x()</script><img src='https://example.com/pixel.png'>")
    assert shown(opened()) == '<p>rows</p><img>'


def test_a_damaged_page_is_a_sentence(home):
    digest = keep(home, "<p>rows</p>")
    Store(home).path(digest).write_bytes(b"other")
    at = opened()
    assert "damaged" in at.error[0].value and not shown(at)
