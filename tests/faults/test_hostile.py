"""Data is text: names, values and sentences of others, sent through every page, report, message and command."""

# ruff: noqa: F811 - fixtures of test_app

import ast
import csv
import io
import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlops_nb.base.drawing import _fit
from mlops_nb.base.text import as_table, in_csv, in_figure, in_html, in_markdown, in_message, in_terminal, say

ROOT = Path(__file__).parents[2]
NAMES = [  # as columns, categories, classes and words of a charter; no quotes and no backslashes
    "![x](http://evil.example/x.png)", "<script>alert(1)</script>", "<img src=http://evil.example/i onerror=alert(1)>", "[click](javascript:alert(1))",
    "=1+cmd|calc!A0", "$x$ and $y_1$", "{{7*7}}", "[bold red]on[/]", "@everyone <!channel>", "-- ; DROP TABLE predictions", "www.evil.example me@evil.example", "wide " * 40,
]  # fmt: skip
VALUES = [*NAMES, '=HYPERLINK("http://evil.example","x")', "\x1b[2J\x1b]0;pwn\x07red", "\u202egpj.exe", "two\nerror: lines\r\n", "$\\frac{", "\\(x\\)", ":material/check_circle: :smile: :red[x]", "`a` *b* _c_ ~~d~~ &lt;", "| a | b |", "\x9b31m", "- 1. #"]
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")
EVIL = re.compile(r"evil\.example|javascript:|alert\(1\)")
TEXTS = st.lists(st.one_of(st.sampled_from(VALUES), st.text(), st.text(st.sampled_from("`*_[]()!<>:$\\@-+=#|~& \n1.ahttp/w"))), max_size=4).map("".join)
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine says nothing about text
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(markdown: str) -> list:
    """What a reader of Markdown finds, blocks and what is in them."""
    return [inner for token in READER.parse(markdown) for inner in (token, *(token.children or ()))]


def loads_nothing(markdown: str) -> None:
    """No picture, link or tag in Markdown, by CommonMark, and by what GitHub's reader and Streamlit look for in what is plain text then."""
    found = tokens(markdown)
    assert not {t.type for t in found} & {"image", "link_open", "html_inline", "html_block"}, markdown
    plain = [t.content for t in found if t.type in ("text", "text_special")]
    assert not re.search(r"https?://\w|www\.\w|\w@\w+\.\w|:material_\w+:|:(?:smile|streamlit):", "\n".join(plain)), markdown


# one medium at a time


@CALM
@given(TEXTS)
def test_markdown_is_read_as_the_text_it_was(text):
    told = in_terminal(" ".join(text.split()))
    for before, after in (("", ""), ("- ", ""), ("**a**: ", ". *b*"), ("### ", "")):
        markdown = before + in_markdown(text) + after
        loads_nothing(markdown)
        ours = {t.type for t in tokens(markdown)} - {"text", "text_special", "code_inline"}
        assert ours <= {t.type for t in tokens(f"{before}a{after}")}, markdown
    read = "".join(t.content for t in tokens(in_markdown(text)) if t.type in ("text", "text_special", "code_inline"))
    assert read == told


@CALM
@given(TEXTS)
def test_a_terminal_gets_one_line_and_json_stays_json(text):
    assert not UNSEEN.search(in_terminal(text)) and "\n" not in in_terminal(text)
    whole = text.encode("utf-8", "replace").decode()
    assert json.loads(in_terminal(json.dumps([whole], ensure_ascii=False))) == [whole]


@pytest.mark.parametrize("escape", [in_terminal, in_html, in_markdown, in_figure, in_message, in_csv])
@pytest.mark.parametrize("text", ["ü, 한국어, שלום, e\u0301, 👩‍👩‍👧", "Private 65% (0.5 to 0.7)", "12:30 - 14:00"])
def test_ordinary_text_stays(escape, text):
    assert escape(text) == text


def test_what_is_said_is_a_line_each(capsys):
    say("first", *VALUES, error=True)
    said = capsys.readouterr().err
    assert said.count("\n") == len(VALUES) + 1 and not UNSEEN.search(said)


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.loaded = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [(tag, k, v) for k, v in attrs if k in ("src", "href", "srcset", "action", "data") and v or k.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


@CALM
@given(TEXTS)
def test_html_holds_text(text):
    page = Tags(f'<p title="{in_html(text)}">{in_html(text)}</p>')
    assert page.tags == ["p"] and not UNSEEN.search("".join(page.text).replace("\t", ""))


def test_a_table_in_a_notebook():
    page = Tags(as_table(pd.DataFrame({name: [value, [value]] for name, value in zip(NAMES, VALUES[::-1], strict=False)})).data)
    assert set(page.tags) <= {"table", "thead", "tbody", "tr", "th", "td"} and NAMES[1] in page.text


@CALM
@given(TEXTS)
def test_a_figure_draws_text(text):
    from matplotlib.figure import Figure

    label = Figure().text(0, 0, said := in_figure(text))
    _fit([label])
    told, formula = label._preprocess_math(label.get_text())
    whole = in_terminal(text)
    assert not formula and told == said and (told == whole or told[-1] == "…" and whole.startswith(told[:-1]))
    wide = [1 + (unicodedata.east_asian_width(c) in "WF") for c in whole]
    assert sum(wide) <= 60 if told == whole else sum(wide[: len(told)]) > 59 >= sum(wide[: len(told) - 1]) > 57


@CALM
@given(TEXTS)
def test_a_message_mentions_nobody(text):
    said = in_message(text)
    assert not re.search(r"@\w|<[!@#/\w]|\]\(|://|www\.|[\r\n]", said, re.IGNORECASE)
    assert said.replace("\u200b", "") == in_terminal(text).replace("\u200b", "")


@CALM
@given(st.one_of(TEXTS, st.from_regex(r"[=+\-@\t\r ][-0-9.e+%= ]*", fullmatch=True), st.floats().map(str)))
def test_a_spreadsheet_calculates_nothing(text):
    from mlops_nb.batch.writers import write_csv

    cell = in_csv(text)
    number = bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?", text))
    assert number or not re.match(r"\s*[=+\-@]", cell)
    assert cell in (text, f"'{text}") and (cell == text or not number)
    if not re.search("[\ud800-\udfff\x00]", text):
        sink, schema = io.BytesIO(), pa.schema([("=a", pa.string()), ("n", pa.float64())])
        write_csv(sink, [pa.table({"=a": [text, None], "n": [-1.5, None]}, schema=schema)], schema)
        rows = list(csv.reader(io.StringIO(sink.getvalue().decode(), newline="")))
        assert rows[0] == ["'=a", "n"] and rows[1] == [cell, "-1.5"]


def test_commands_print_by_say():
    """Where text leaves for a terminal there is one way out."""
    for file in [f for room in ("cli", "serving", "batch", "loop", "log") for f in sorted((ROOT / "mlops_nb" / room).glob("*.py"))]:
        calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert all(any(k.arg == "file" and isinstance(k.value, ast.Name) for k in n.keywords) for n in calls), file.name


# the app


def strings(proto) -> list[tuple[str, str]]:
    """All texts of a message to the browser, with the names of their fields."""
    found = []
    for field, value in proto.ListFields():
        for one in value if isinstance(value, (list, tuple)) or hasattr(value, "add") or hasattr(value, "append") else [value]:
            found += strings(one) if hasattr(one, "ListFields") else [(f"{proto.DESCRIPTOR.name}.{field.name}", one)] if isinstance(one, str) else []
    return found


PLAIN = {  # fields that the browser shows as they are, or that hold no text; every other one is read as Markdown
    "Selectbox.options", "Selectbox.raw_value", "Selectbox.placeholder", "Selectbox.default", "TextInput.default", "TextInput.value", "TextInput.placeholder", "NumberInput.placeholder",
    "NumberInput.format", "Code.code_text", "ArrowVegaLiteChart.spec", "VegaLiteChart.spec", "Arrow.columns", "ArrowDataframe.columns", "NamedDataSet.name",
}  # fmt: skip


def everything(at) -> None:
    """No page may raise; nothing that came from others is more than text on it."""
    assert not at.exception, at.exception
    seen = 0
    blocks = [at._tree]
    while blocks:
        block = blocks.pop()
        blocks += list(getattr(block, "children", {}).values())
        if getattr(block, "proto", None) is None:
            continue
        for field, text in strings(block.proto):
            seen += 1
            if field.rpartition(".")[2] not in ("id", "form_id", "element_id", "key", "icon", "hash", "url", "spec") and field not in PLAIN:
                loads_nothing(text)
            if field.endswith(".spec"):
                chart = json.dumps([v for v in walk(json.loads(text)) if isinstance(v, dict) and {"href", "url", "signal", "expr"} & v.keys()])
                assert not EVIL.search(chart)
    for table in at.table:
        for cell in table.value.to_numpy().ravel():
            loads_nothing(str(cell))
    for frame in at.dataframe:
        for cell in frame.value.to_numpy().ravel():
            assert not isinstance(cell, str) or (cell == in_csv(cell) and not UNSEEN.search(cell))
    assert seen > 10


def walk(value):
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(one)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, pd.DataFrame, dict]:
    """A home whose model learnt from hostile columns, values and charter texts; the rows and the charter."""
    pytest.importorskip("streamlit")
    from tests.app import test_app
    from sklearn.ensemble import HistGradientBoostingClassifier

    folder = tmp_path_factory.mktemp("hostile")
    rows, stated, answers = hostile_table(test_app.PEOPLE), hostile_charter(test_app.STATED), dict(zip(["<=50K", ">50K"], VALUES[:2], strict=True))
    rows["income"] = rows["income"].map(answers)
    stated |= {"positive": answers[">50K"], "target": "income"}
    people, test_app.PEOPLE = test_app.PEOPLE, rows
    try:
        test_app.registered(f"sqlite:///{folder}/mlflow.db", stated, HistGradientBoostingClassifier(max_iter=15, random_state=0))
    finally:
        test_app.PEOPLE = people
    return folder, rows, stated


def hostile_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Categories and columns with hostile names; sex is a sensitive column, and workclass the one that drifts."""
    named = dict(zip(["workclass", "sex", "age", "education", "occupation"], NAMES, strict=False))
    values = {c: dict(zip(rows[c].dropna().unique(), VALUES, strict=False)) for c in ("workclass", "sex", "education")}
    return rows.assign(**{c: rows[c].map(v).fillna(rows[c]) for c, v in values.items()}).rename(columns=named)


def hostile_charter(stated: dict) -> dict:
    sentence = " ".join(VALUES)
    return {
        **stated, "title": VALUES[0], "goal": sentence, "success": [{"metric": "roc_auc", "at_least": 0.5, "reason": sentence}], "data": {"source": "rows.csv", "licence": VALUES[2], "attribution": sentence},
        "sensitive": [{"name": NAMES[0] + " by", "column": NAMES[1]}], "exclude": {"fnlwgt": sentence}, "rules": {},
        "fairness": [{"metric": m, "by": NAMES[0] + " by", "at_least": b, "gate": g, "reason": sentence} for m, b, g in (("equal_opportunity_ratio", 0.01, True), ("demographic_parity_ratio", 0.99, False))],
    }  # fmt: skip


@pytest.fixture
def opened(hostile, monkeypatch, tmp_path):
    """The hostile home, with a charter file, for the app and the commands."""
    import shutil

    import streamlit

    folder, rows, stated = hostile
    shutil.copytree(folder, tmp_path / "home")
    (tmp_path / "settings.ini").write_text("[mlops_nb]\ncharter = income.yaml\ntracking = disabled\n")
    (tmp_path / "income.yaml").write_text(yaml.safe_dump(stated, allow_unicode=True))
    monkeypatch.setenv("MLOPS_NB_ROOT", str(tmp_path))
    monkeypatch.setenv("MLOPS_NB_HOME", str(tmp_path / "home"))
    streamlit.cache_data.clear()
    streamlit.cache_resource.clear()
    return tmp_path / "home", rows, stated


def served(home: Path, rows: pd.DataFrame, stated: dict, monkeypatch) -> None:
    """Two hours of predictions, the second one drifted; labels, alarms, an alert that somebody saw, one that is over."""
    from mlops_nb.registry.files import read_evidence
    from mlops_nb.registry.versions import released
    from mlops_nb.base.charter import Charter
    from mlops_nb.base.settings import load_settings
    from mlops_nb.monitoring import reference
    from mlops_nb.monitoring.due import monitor_due
    from mlops_nb.log.events import Alerts, Events
    from mlops_nb.log.feedback import Feedback
    from mlops_nb.log.items import Item
    from mlops_nb.log.predictions import PredictionLog, Record

    uri, start = load_settings().registry_uri, datetime(2025, 1, 15, 8, tzinfo=UTC)
    evidence = read_evidence(uri, released(uri, "income"))
    monkeypatch.setattr(reference, "reference_of", lambda *_: reference.make_reference(1, evidence, rows.head(1600)))
    names, log = evidence.form.names, PredictionLog(home)
    for hour, sent in enumerate((rows.tail(300), rows.tail(300).assign(**{NAMES[0]: VALUES[0]}))):
        chance, about = np.random.default_rng(hour).uniform(0.01, 0.99, len(sent)), json.loads(sent[names].to_json(orient="records"))
        log.put([
            Record(f"{hour}-{i}", int((start + timedelta(hours=hour, seconds=10 * i)).timestamp() * 1e6), "income", 1, "", VALUES[i % len(VALUES)], json.dumps(row).encode(), json.dumps({"decision": stated["positive"], "probability": c}).encode(), 0.0004, b"[]")
            for i, (row, c) in enumerate(zip(about, chance, strict=True))
        ])  # fmt: skip
    log.close()
    Feedback(home).put([Item(f"0-{i}", str(t), at=start + timedelta(hours=1)) for i, t in enumerate(rows.tail(300)["income"])])
    found = monitor_due(load_settings(tracking="disabled"), Charter.model_validate(stated | {"monitoring": {"window": "hour"}}), "income", start + timedelta(hours=2))
    assert found[1].part(1).told("drift")
    alerts = Alerts(home)
    for i, value in enumerate(VALUES):
        alert = alerts.raise_(f"income/drift/{value}", value, f"'{value}' differs: {value}")
        if i % 3 == 1:
            alerts.acknowledge(alert.id, value, value)
        if i % 3 == 2:
            alerts.resolve(f"income/drift/{value}", value)
    Events(home)


def told(capsys, run, *words: str) -> str:
    """What a command says, as a terminal gets it."""
    capsys.readouterr()
    try:
        run([*words], standalone_mode=False)
    except SystemExit:
        pass
    said = "".join(capsys.readouterr())
    assert said and not UNSEEN.search(said) and not re.search("^error: (all|lines)", said, re.MULTILINE), said
    return said


def test_every_command_that_shows_what_others_wrote(opened, monkeypatch, capsys):
    from mlops_nb.cli import main as cli
    from mlops_nb.cli import models as models_commands
    from mlops_nb.base.errors import MlopsError
    from mlops_nb.cli import log, monitoring
    from mlops_nb.monitoring.reports import reports

    home, rows, stated = opened
    served(home, rows, stated, monkeypatch)
    say(*(line for report in reports(home, "income", 9) for line in monitoring.window_lines(report)))
    listed = told(capsys, monitoring.alerts_app, "list", "--all")
    assert listed.count("\n") > 2 * len(VALUES) and r"\u001b[2J" in listed
    told(capsys, monitoring.alerts_app, "ack", "1", "--note", VALUES[13], "--by", VALUES[12])
    sql = "select * from predictions limit 40"
    told(capsys, log.log_app, "query", sql)
    lines = told(capsys, log.log_app, "query", sql, "--json").splitlines()
    assert {json.loads(line)["subject"] for line in lines} >= {v for v in VALUES if not UNSEEN.search(v)}  # JSON that is read is what was written
    told(capsys, log.log_app, "events")
    models = models_commands.models_app
    told(capsys, models, "promote", "income", "1", "--reason", VALUES[13], "--by", VALUES[12])
    for words in (["list"], ["show", "income"], ["show", "income", "--json"]):
        told(capsys, models, *words)
    labels = home / "labels.csv"
    pd.DataFrame({"id": VALUES, "label": VALUES, VALUES[12]: 1}).to_csv(labels, index=False)
    with pytest.raises(MlopsError):
        log.feedback_command(labels, "income")
    assert not UNSEEN.search("".join(capsys.readouterr()))
    monkeypatch.setattr("sys.argv", ["mlops-nb"])
    with pytest.raises(SystemExit):
        cli.run_program(lambda: (_ for _ in ()).throw(MlopsError(VALUES[12] + VALUES[14])))
    assert capsys.readouterr().err.count("\nerror") == 0


def test_every_alert_message(tmp_path):
    """By mail and by chat, as they arrive."""
    from tests.log import test_events
    from aiosmtpd.controller import Controller

    from mlops_nb.loop.alerts import Courier
    from mlops_nb.log.events import Alerts, Events

    mails, chat = [], []

    class Box:
        async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
            mails.append(message_from_bytes(envelope.content, policy=policy.default))
            return "250 taken"

    postbox = Controller(Box(), hostname="127.0.0.1", port=test_events.free_port())
    postbox.start()
    try:
        with test_events.receiver(chat) as port:
            urls = f"mailto://127.0.0.1:{postbox.port}?from=ml@shop.example&to=ada@shop.example&mode=insecure, mmost://127.0.0.1:{port}/{'a' * 26}"
            for value in VALUES:
                Alerts(tmp_path).raise_(f"income/drift/{value}", value, f"{value} differs")
            assert Courier(tmp_path, receivers=urls).deliver().sent == 2 * len(VALUES), Events(tmp_path).list()
            for value in VALUES:
                Alerts(tmp_path).resolve(f"income/drift/{value}", value)
            Courier(tmp_path, receivers=urls).deliver()
    finally:
        postbox.stop()
    assert len(mails) == 2 * len(VALUES) and len(chat) >= 2 * len(VALUES)
    for mail in mails:
        assert mail.get_all("to") == ["ada@shop.example"] and not {"Bcc", "error"} & set(mail.keys()) and not UNSEEN.search(mail["subject"])
        for kind in ("html", "plain"):
            if part := mail.get_body((kind,)):
                page = Tags(part.get_content() if kind == "html" else "")
                assert not {"script", "img", "a", "iframe"} & set(page.tags) and not page.loaded, page.tags
                assert not re.search(r"@\w|<[!@#/\w]|\]\(|://", part.get_content() if kind == "plain" else "".join(page.text))
    for said in chat:
        text = json.dumps(said, ensure_ascii=False)
        assert "@everyone" not in text and "<!" not in text and "](" not in text and "evil" in "".join(VALUES)


@pytest.mark.slow
def test_every_page_of_the_app(opened, monkeypatch):
    from tests.app.test_app import page

    home, rows, stated = opened
    for name in ("", "predictions", "fairness"):
        everything(page(name))
    at = page("predictions")
    at.number_input(key=f"income/1:{NAMES[2]}").set_value(103)  # which is flagged, by the column's name
    at.button[0].click().run()
    assert len(at.warning) == 1
    everything(at)
    served(home, rows, stated, monkeypatch)
    everything(page("monitoring"))


# a project


@pytest.mark.slow
def test_a_whole_run(tmp_path):
    """The pipeline on hostile rows and a hostile charter: its notebooks, its report, what the commands say."""
    import os
    import subprocess
    import sys

    from tests.app import test_app

    stated = hostile_charter(test_app.STATED)
    hostile_table(test_app.PEOPLE).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "settings.ini").write_text("[mlops_nb]\ncharter = income.yaml\ntracking = disabled\npackage = hostile\nstock = yes\nthreads = 1\n")
    stated["exclude"] = {"fnlwgt": VALUES[0] + VALUES[1]}
    (tmp_path / "income.yaml").write_text(yaml.safe_dump(stated, allow_unicode=True))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")} | {"MLOPS_NB_ROOT": str(tmp_path)}
    tool = str(Path(sys.executable).with_name("mlops-nb"))

    def call(*words: str) -> str:
        done = subprocess.run([tool, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not UNSEEN.search(done.stdout + done.stderr)
        return done.stdout

    call("run", "--sample", "1200", "-p", "train.candidates=[\"dummy\", \"linear\", \"gradient_boosting\"]", "-p", "tune.trials=2")
    (folder,) = [f.parent for f in tmp_path.rglob("summary.json")]
    for file in folder.glob("*.ipynb"):
        for cell in json.loads(file.read_text())["cells"]:
            for data in [o["data"] for o in cell.get("outputs", []) if "data" in o]:
                page = Tags("".join(data.get("text/html", "")))
                if "sk-container" not in "".join(data.get("text/html", "")):  # scikit-learn's own view of a model
                    assert not {"script", "img", "a", "iframe"} & set(page.tags) and not page.loaded, (file.name, page.tags)
                loads_nothing("".join(data.get("text/markdown", "")))
    pages = list(folder.glob("*.html"))
    assert len(pages) > 10
    for file in pages:
        page = Tags(file.read_text())
        assert not {"script", "iframe", "object"} & set(page.tags)
        assert not [w for w in page.loaded if EVIL.search(w[2]) or not w[2].startswith(("data:", "#", "https:")) and not w[2].endswith(".html")], file.name
    for words in (["runs", "list"], ["runs", "show"], ["models", "list"], ["models", "show", "income"]):
        call(*words, "--sample")
    call("graph")
