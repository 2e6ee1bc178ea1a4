"""The page of the data: bounded, text as text, no request, and never sent anywhere."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from tests.pipeline.test_report import Audit

from mlops_nb.base.settings import Settings
from mlops_nb.pipeline.data_page import data_html
from mlops_nb.pipeline.page import clean_html
from mlops_nb.pipeline.report import part_page, write_report
from mlops_nb.pipeline.tracking import Tracker
from mlops_nb.stats.described import associations, described


def test_counts_are_those_of_the_rows():
    rng, n = np.random.default_rng(3), 50_000
    frame = pd.DataFrame({"x": rng.normal(size=n), "c": rng.choice(["a", "b", None], n), "k": rng.integers(0, 9, n)})
    frame = pd.concat([frame, frame.head(17)], ignore_index=True)
    told = described(frame)
    by_name = {c.name: c for c in told.columns}
    assert told.rows == n + 17 and told.copies == 17 == frame.duplicated().sum() and told.missing == frame.isna().sum().sum()
    assert by_name["c"].missing == frame["c"].isna().sum() and by_name["x"].distinct == frame["x"].nunique()
    assert (by_name["x"].low, by_name["x"].high) == (frame["x"].min(), frame["x"].max()) and told.sampled == sum(by_name["x"].bars) == 20_000
    assert by_name["k"].top == [(str(k), m) for k, m in frame["k"].value_counts().head(8).items()]


def test_missing_together():
    frame = pd.DataFrame({"a": [1, None, None, 4, None], "b": [1, None, None, 4, 5], "c": range(5)})
    assert described(frame).patterns == [(["a", "b"], 2), (["a"], 1)]


def test_independent_columns_are_not_associated():
    rng = np.random.default_rng(0)
    strengths = [associations(pd.DataFrame({"a": rng.choice(list("abcd"), 500), "b": rng.choice(list("xyz"), 500)}))[0].strength for _ in range(200)]
    assert np.mean(strengths) < 0.05 and max(strengths) < 0.2  # the plain V is .1 on average


def test_ten_thousand_columns_make_a_page_of_bounded_size():
    page = part_page("wide", data_html(pd.DataFrame(np.random.default_rng(0).normal(size=(50, 10_000))).add_prefix("c")))
    assert "9,700 columns are left out" in page and len(page) < 1_000_000 and page.count("<span") == 300


@pytest.mark.parametrize("frame, said", [
    (pd.DataFrame(), "0 rows, 0 columns"), (pd.DataFrame({"a": []}), "0 rows, 1 columns"), (pd.DataFrame({"a": [None, None]}), "empty: no value at all"),
    (pd.DataFrame({"a": [[1], [1, 2], None], "b": [b"\x00\xff", b"x", b"x"], "c": [{"k": 1}, {"k": 1}, {}]}), "[1, 2]"),
    (pd.DataFrame({"a": [np.inf, -np.inf, 1.0], "b": [np.nan, np.inf, np.inf]}), "infinite: 2 values"), (pd.DataFrame({"a": [1e308, -1e308]}), "-1e+308"),
    (pd.DataFrame({"a": ["x" * 10_000_000, "y"]}), "…"), (pd.DataFrame({"a": [2**70, 1]}), "number"), (pd.DataFrame([[1, 2]], columns=["a", "a"]), "2 columns"),
    (pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean"), "t": pd.to_datetime(["2026-01-01", None], utc=True)}), "2026-01-01"),
    (pd.DataFrame({"a": pd.to_timedelta([1, 2], unit="h"), "b": pd.Categorical(["u", "v"]), "c": [1j, 2j], "p": pd.period_range("2026", periods=2)}), "1:00:00"),
])  # fmt: skip
def test_odd_tables_have_a_page(frame, said):
    page = part_page("odd", data_html(frame))
    assert said in page and "who sees this page sees the data" in page and len(page) < 100_000 and not Audit(page).faults


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["<script>x()</script>", "<img src=//e.com/x>", "'\"><b>", "</td></table><svg onload=x()>", "]]>", "&lt;b&gt;", "javascript:x()", "\x1b[31m", "\u202e", ""]), min_size=2, max_size=4))
def test_names_and_values_are_text(texts):
    frame = pd.DataFrame({f"{texts[0]}{i}": [texts[0], texts[1]] * 15 for i in range(2)} | {texts[1]: [texts[-1]] * 30})
    part = data_html(frame, texts[1])
    page = part_page(texts[0], part)
    assert not Audit(page).faults and not re.search(r"<script|<svg|<b>|//e\.com/x>", part)
    assert clean_html(part).count("<span") == part.count("<span") and "<img" not in part


def test_a_run_has_it_beside_its_other_pages(tmp_path):
    parts = [{"stage": "validate", "name": "data_page", "html": "<p onclick='x()'>3 rows</p><script>x()</script>"}, {"stage": "s", "name": "large", "html": "x" * 1_000_001}]
    index = write_report(tmp_path, {"run": "r", "stages": {}}, {}, [], {}, parts=parts).read_text()
    page = (tmp_path / "validate-data_page.html").read_text()
    assert 'href="validate-data_page.html"' in index and "s-large" not in index and not (tmp_path / "s-large.html").exists()
    assert "<p>3 rows</p>" in page and 'href="index.html"' in page and not Audit(page).faults and not Audit(index).faults


def test_nobody_elsewhere_is_given_it(tmp_path, monkeypatch):
    sent: list[tuple] = []
    tracker = object.__new__(Tracker)
    tracker._settings = Settings(root=tmp_path, upload="tables, models")
    monkeypatch.setattr(tracker, "_put", lambda *call: sent.append(call))
    for kind in ("Html", "Table"):
        tracker.artifact("validate", "data_page", kind, "d", {}, Path("page.html"))
    assert [call[-1] for call in sent] == [None, Path("page.html")]
