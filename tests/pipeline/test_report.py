"""Reports: what goes in may come from anywhere; what comes out runs nothing, asks for nothing, and stays small."""

import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.pipeline.page import clean_html, notebook_html
from mlops_nb.pipeline.picture import graph_svg, graph_text
from mlops_nb.pipeline.report import write_report

STAGES = Path(__file__).parents[2] / "nbs" / "stages"
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FORBIDDEN = {"script", "iframe", "object", "embed", "link", "base", "form", "frame", "audio", "video", "source", "template"}


class Audit(HTMLParser):
    """Every way for a page to run or load something."""

    def __init__(self, page):
        super().__init__()
        self.faults = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.faults += [tag] if tag in FORBIDDEN else []
        for name, value in attrs:
            value = value or ""
            if name.startswith("on") or name in ("srcset", "background", "poster", "action", "formaction", "ping", "srcdoc"):
                self.faults.append(name)
            if name in ("src", "xlink:href", "data") and not value.startswith("data:image/"):
                self.faults.append(f"{tag} {name}={value}")
            if name == "href" and not re.match(r"(https?://|mailto:|#|[\w%.-]+\.html$)", value):
                self.faults.append(f"{tag} {name}={value}")
            if name == "style" and re.search(r"url\(|expression|position", value, re.I):
                self.faults.append(value)

    handle_startendtag = handle_starttag


def code(source, outputs=(), tags=()):
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source, "outputs": list(outputs)}


def shown(html):
    return {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}


evil = st.sampled_from([
    "<script>x()</script>", '"><script>x()</script>', "</pre><script>", "</title><script>", "<img src=x onerror=x()>", "<svg onload=x()>", "<svg><style><img src=x onerror=x()>",
    "<a href=javascript:x()>", "<iframe src=//example.com>", "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=x()&gt;'>",
    "<div style='background:url(https://example.com)'>", "<link rel=stylesheet href=//example.com>", "<img srcset='https://example.com/a 1x'>", "[a](javascript:x())",
    "![a](https://example.com/a.png)", "<noscript><p title='</noscript><img src=x onerror=x()>'>", "<meta http-equiv=refresh content='0;url=//example.com'>", "]]>", "<!--", "&lt;script&gt;",
])
odd = st.text(st.characters(codec=None), max_size=12)  # half characters included: JSON can hold them
nasty = st.lists(evil | odd, max_size=5).map("".join)


@few
@given(nasty)
def test_fragments_are_inert(fragment):
    assert Audit(clean_html(fragment)).faults == []


@few
@given(nasty, nasty, nasty)
def test_pages_are_inert_whatever_cells_hold(a, b, c):
    error = {"output_type": "error", "ename": a, "evalue": b, "traceback": [c]}
    text = {"output_type": "stream", "name": "stdout", "text": a}
    book = {"cells": [
        {"cell_type": "markdown", "metadata": {}, "source": a}, code(b), code(f"knob = {b!r}  # {c}", tags=["parameters"]), code(f"knob = {a!r}", tags=["injected-parameters"]),
        code("x", [shown(b), error, text, {"output_type": "execute_result", "data": {"text/plain": c, "text/markdown": b}}]),
    ]}
    page = notebook_html(book, c)
    assert Audit(page).faults == []
    assert page.count("Content-Security-Policy") == 1 and page.index("Content-Security-Policy") < page.index("<title>")


@few
@given(nasty, nasty)
def test_the_runs_page_is_inert_whatever_the_record_holds(tmp_path_factory, a, b):
    folder = tmp_path_factory.mktemp("run")
    error = {"cell": a, "line": 1, "ename": a, "evalue": b, "knobs": {a: b}, "repeat": b}
    record = {"run": a, "charter": b, "status": a, "seconds": 1, "started": b, "git": a, "model": {"name": a, "phase": b, "gates": [{a: b, "passed": True}]},
        "stages": {"split": {"status": b, "seconds": None, "metrics": {a: b}, "outputs": {a: b}, "error": error}}}
    headline = {a: b, "x": {"value": b, "low": a, "high": b}}
    page = write_report(folder, record, {a: {"needs": [], "status": b, "note": a}}, [{"stage": "split", "name": b, "png": b"x"}], headline).read_text()
    assert Audit(page).faults == []


def test_a_column_named_script_is_text():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"<script>alert(1)</script>": ["<img src=x onerror=alert(1)>"]})
    page = notebook_html({"cells": [code("frame", [shown(frame.to_html())])]}, "t")
    assert Audit(page).faults == [] and "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_fitted_pipeline_shows_as_text():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(LogisticRegression())
    bundle = {"output_type": "execute_result", "data": {"text/html": model._repr_html_(), "text/plain": repr(model)}}
    page = notebook_html({"cells": [code("model", [bundle])]}, "t")
    assert "<pre" in page and "Pipeline(steps=" in page and "sk-" not in page.partition("<main>")[2]


def test_code_is_there_but_folded():
    page = notebook_html({"cells": [code("#| export\nanswer = 42", [{"output_type": "stream", "name": "stdout", "text": "hello"}])]}, "t")
    assert "answer" in page and "#| export" not in page and ".code>pre{display:none" in page and 'id="show-code"' in page
    assert "<details open" not in page and "hello" in page


@st.composite
def graphs(draw):
    names = draw(st.lists(st.text("abcdefghij_<&é", min_size=1, max_size=14), min_size=1, max_size=11, unique=True))
    status = st.sampled_from([None, "done", "cached", "failed", "skipped", "running", "waiting"])
    return {n: {"needs": draw(st.lists(st.sampled_from(names[:i]), unique=True, max_size=3)) if i else [], "status": draw(status), "note": draw(st.none() | st.just("1.2 s"))}
        for i, n in enumerate(names)}


WIDE = "ab ac bc ad bd cd de be cf bg dg eg fh fi gi fj hk".split()  # its rows end where many lines turn


@few
@given(graphs())
@example({n * 14: {"needs": [a * 14 for a, b in WIDE if b == n]} for n in "abcdefghijk"})
def test_every_graph_is_drawn_whole(nodes):
    svg = ElementTree.fromstring(graph_svg(nodes))  # noqa: S314
    space = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f".//{space}rect")) == len(nodes)
    assert {t.text for t in svg.findall(f".//{space}text[@class='n']")} == set(nodes)
    _, _, width, height = map(float, svg.get("viewBox").split())
    for box in svg.findall(f".//{space}rect"):
        x, y, w, h = (float(box.get(k)) for k in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height
    text = graph_text(nodes)
    assert all(name in text for name in nodes) and max(map(len, text.splitlines())) <= 100
    assert max(map(len, graph_text(nodes, 60).splitlines())) <= 60
    assert text.count("╰") + text.count("┗") == len(nodes)


def test_boxes_do_not_overlap():
    nodes = {n: {"needs": needs} for n, needs in {"a": [], "x": [], "b": ["a"], "c": ["b"], "d": ["c", "x"], "e": ["x", "b"], "f": ["d", "e", "a"]}.items()}
    svg = ElementTree.fromstring(graph_svg(nodes))  # noqa: S314
    places = [tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in svg.iter("{http://www.w3.org/2000/svg}rect")]
    for i, (x, y, w, h) in enumerate(places):
        for u, v, p, q in places[:i]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y


def test_a_graph_of_a_hundred_is_drawn_in_time():
    nodes = {f"s{i}": {"needs": [f"s{j}" for j in {i // 2, i - 7} if 0 <= j < i]} for i in range(100)}
    assert graph_svg(nodes).count("<rect") == 100 and graph_text(nodes)


def test_wrong_graphs_are_refused():
    with pytest.raises(MlopsError, match="did you mean 'split'"):
        graph_svg({"split": {"needs": []}, "train": {"needs": ["splitt"]}})
    with pytest.raises(MlopsError, match="circle: "):
        graph_text({"a": {"needs": ["b"]}, "b": {"needs": ["a"]}})


def record(*names):
    return {"run": "r", "charter": "c", "status": "done", "seconds": 1, "started": "2026-11-22T19:05:01Z", "git": None, "model": None,
        "stages": {n: {"status": "done", "seconds": 1, "metrics": {}, "outputs": {}} for n in names}}


@pytest.mark.slow
def test_a_run_stays_under_15_mb(tmp_path):
    import os

    names = [f"s{i}" for i in range(12)]
    big = base64.b64encode(os.urandom(1_400_000)).decode()
    table = "<table>" + "<tr><td>1</td></tr>" * 90_000 + "</table>"
    for name in names:
        image = {"output_type": "display_data", "data": {"image/png": big}}
        small = {"output_type": "display_data", "data": {"image/png": base64.b64encode(b"small").decode()}}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": [code("x", [image, shown(table), small])]}))
    nodes = {n: {"needs": []} for n in names}
    write_report(tmp_path, record(*names), nodes, [{"stage": n, "name": "f", "png": os.urandom(500_000 if n < "s2" else 5_000_000)} for n in names], {})
    assert sum(p.stat().st_size for p in tmp_path.glob("*.html")) < 15_000_000
    page = (tmp_path / "s3.html").read_text()
    assert "left out here; the notebook has it" in page and base64.b64encode(b"small").decode() in page


def test_links_lead_to_files_that_are_there(tmp_path):
    for name in ("split", "train"):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": []}))
    index = write_report(tmp_path, record("split", "train", "tune"), {}, [{"stage": "tune", "name": "plot", "png": b"x"}], {})
    for page in tmp_path.glob("*.html"):
        for link in re.findall(r'href="([^"]+)"', page.read_text()):
            assert (tmp_path / link).is_file()
    assert index == tmp_path / "index.html" and "tune" in index.read_text()


def test_a_report_can_be_written_while_the_run_goes(tmp_path):
    going = record("split", "train")
    going["status"], going["stages"]["train"] = "running", {"status": "waiting"}
    for _ in range(2):
        page = write_report(tmp_path, going, {"split": {"needs": [], "status": "running"}, "train": {"needs": ["split"], "status": "waiting"}}, [], {})
    assert "▸ running" in page.read_text() and sorted(p.name for p in tmp_path.iterdir()) == ["index.html"]


def test_images_stay_as_data_and_pictures_have_words():
    buffer = io.BytesIO(b"\x89PNG")
    image = {"output_type": "display_data", "data": {"image/png": base64.b64encode(buffer.getvalue()).decode() + "\n"}}
    page = notebook_html({"cells": [code("plot", [image])]}, "train")
    assert re.search(r'<img class="plot" src="data:image/png;base64,iVBORw==" alt="Output 1 of train">', page)


def test_a_picture_is_called_by_its_title_or_the_heading_above():
    picture = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {}}
    titled = picture | {"metadata": {"image/png": {"alt": 'ROC of "a" <b>'}}}
    odd = [picture | {"metadata": m} for m in ({"image/png": {"alt": " "}}, {"image/png": {"alt": 3}}, {"needs_background": "light"}, None)]
    prose = [{"cell_type": "markdown", "metadata": {}, "source": s} for s in ("# Evaluate\n> Judged.", "## The `run` & *more*\n\nNow.")]
    page = notebook_html({"cells": [prose[0], code("x", [picture]), prose[1], code("y", [picture, titled, *odd])]}, "evaluate")
    said = re.findall(r'alt="([^"]*)"', page)
    assert said == ["Evaluate", "The run &amp; more", "ROC of &quot;a&quot; &lt;b&gt;", *["The run &amp; more"] * 4]


def test_a_failing_binding_cell_is_shown_and_prose_is_kept():
    error = {"output_type": "error", "ename": "ImportError", "evalue": "no such module", "traceback": []}

    def md(source):
        return {"cell_type": "markdown", "metadata": {}, "source": source}

    page = notebook_html({"cells": [
        md("# Split\n\nWhy."), code("bind()", [error], ["bound"]), code("seed: int = 0  # state", tags=["parameters"]), code("seed = 1", tags=["injected-parameters"]),
        md("## Method"), md("## Hashes\n\nBecause."), md("## The run\n\nNow."), code("run()", [shown("<b>result</b>")]), md("## After\n\nDone."),
    ]}, "split").partition("<main>")[2]  # fmt: skip
    assert "ImportError" in page and "bind()" not in page and "<strong>1</strong> (set)" in page
    order = [page.index(t) for t in ("ImportError", "Now.", "result", "Done.", "Why.", "(set)", "how it works", "Because.")]
    assert order == sorted(order) and "Method" not in page and page.count("<details class") == 1


def test_tables_are_for_people():
    import pandas as pd

    frame = pd.DataFrame({"n": [13.0, 4200.0], "roc_auc": [0.911021, float("nan")], "class": ["예", "$5"]}, index=["train", "test"])
    page = notebook_html({"cells": [code("frame", [shown(frame.to_html())])]}, "t")
    assert '<th scope="col" class="num">roc_auc</th>' in page and '<th scope="row">train</th>' in page
    assert all(f'<td class="num">{cell}</td>' in page for cell in ("13", "4200", "0.911", "–")) and "<td>예</td>" in page
    assert "scrolls sideways" not in page
    words = pd.DataFrame([["some words that may be broken between each other and so need no more than a line or two"] * 4])
    assert "scrolls sideways" not in notebook_html({"cells": [code("words", [shown(words.to_html())])]}, "t")
    empty = notebook_html({"cells": [code("none", [shown(frame.head(0).to_html())])]}, "t")
    assert "A table without rows: n, roc_auc, class." in empty and "<table" not in empty
    assert "scrolls sideways" in notebook_html({"cells": [code("wide", [shown(pd.DataFrame([range(1000, 1040)]).to_html())])]}, "t")


@pytest.mark.parametrize("name", ["010_problem", "110_fairness"])
def test_the_policy_stands_where_rules_send_to_it(name):
    charter = load_charter(STAGES.parent / "charters" / "income.yaml")
    page = re.sub(r"\s+", " ", notebook_html(STAGES / f"{name}.ipynb", name).partition("<main>")[2].partition("How it was made")[0])
    assert "see the policy" in page and html.escape(" ".join(charter.policy.split()), quote=False) in page


def test_the_verdict_comes_first(tmp_path):
    gates = [{"name": "roc_auc", "passed": True}, {"name": "brier", "passed": False}]
    done = record("split") | {"goal": "Whom to call.", "policy": "Nobody is <refused>.", "warnings": ["parity"],
        "model": {"name": "shop", "version": 2, "phase": "rejected", "gates": gates}}  # fmt: skip
    headline = {"roc_auc": {"value": 0.91, "low": 0.9, "high": 0.92, "passed": True, "beside": {"dummy": 0.5, "linear": 0.887}}}
    page = write_report(tmp_path, done, {}, [], headline).read_text()
    order = [page.index(t) for t in ("</h1>", "shop version 2 (rejected) meets 1 of 2 gates, misses brier; ", "1 warning below.", "Whom to call.", "Headline figures")]
    assert order == sorted(order) and "dummy 0.500 · linear 0.887" in page and "Policy: Nobody is &lt;refused&gt;." in page
    assert "<div>roc_auc</div>" in page and "roc auc" not in page
