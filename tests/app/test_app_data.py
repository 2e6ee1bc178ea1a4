"""The app's page of the data: what the chosen version's run wrote, else the newest, as text, without a request."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.base.artifacts import Store
from mlops_nb.pipeline.data_page import data_html
from mlops_nb.pipeline.stage import view_file
from mlops_nb.registry import versions

pytest.importorskip("streamlit")
import streamlit as st
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A project's folder for what is stored, empty."""
    monkeypatch.setenv("MLOPS_NB_ROOT", str(ROOT))
    monkeypatch.setenv("MLOPS_NB_HOME", str(tmp_path))
    monkeypatch.setenv("MLOPS_NB_REPORTS", str(tmp_path / "reports"))
    return tmp_path


@pytest.fixture
def two_versions(home, monkeypatch):
    """Version 1 by run r1, of which there is a page; version 2 by run r2, whose page is the newest; version 3 by a run of which nothing is left."""
    there = [versions.Version(name="income", version=n, phase="staging", created="2026-01-01T00:00:00Z", model_digest="a", evidence_digest="b", mlflow_run="c", pipeline_run=f"r{n}") for n in (3, 2, 1)]
    monkeypatch.setattr(versions, "versions", lambda *asked: there)
    for n, page in ((1, "<p>rows of May</p>"), (2, "<p>rows of June</p>")):
        stages = {"validate": {"outputs": {"data_page": keep(home, page)}}}
        (folder := home / "reports" / f"r{n}").mkdir(parents=True)
        record = {"run": f"r{n}", "charter": "income", "status": "done", "seconds": 1, "stages": stages, "model": None, "started": f"2026-0{n}-01T10:20:30Z"}
        (folder / "summary.json").write_text(json.dumps(record))
    anew()
    yield
    monkeypatch.undo()
    anew()


def anew() -> None:
    """What the pages share is read again."""
    sys.modules.pop("common", None)
    st.cache_data.clear()


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


def test_the_page_is_that_of_the_chosen_version_and_names_its_run(two_versions):
    at = opened()
    for number, rows, said in ((2, "rows of June", "r2**, 2026-02-01 10:20 UTC, which made version 2."), (1, "rows of May", "r1**, 2026-01-01 10:20 UTC, which made version 1.")):
        at = at.selectbox[0].set_value(number).run()
        assert not at.exception and shown(at) == f"<p>{rows}</p>" and said in at.caption[0].value
    at = at.selectbox[0].set_value(3).run()
    assert shown(at) == "<p>rows of June</p>" and "version 3 was made from is not here any more" in at.info[0].value and "r2**" in at.info[0].value
