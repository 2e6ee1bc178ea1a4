"""The app's pages on real records: a model registered as the last stage does it, in a home of its own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline

from mlops_nb.pipeline.report import write_report
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.registry.files import read_evidence
from mlops_nb.registry.promotion import promote
from mlops_nb.registry.registration import register
from mlops_nb.registry.sample import plain_rows, sample_of
from mlops_nb.registry.versions import Version, released
from mlops_nb.base.settings import load_settings
from mlops_nb.serving.prediction import Predictor
from mlops_nb.stages.evaluate import evaluate
from mlops_nb.model.explanation import background_rows
from mlops_nb.stages.explain import explain
from mlops_nb.stages.fairness import audit
from mlops_nb.stages.features import make_recipe
from mlops_nb.model.problem import Problem
from mlops_nb.stages.register import evidence_of, gate_list, phase_of, sample_rows
from mlops_nb.model.conform import conform, learn_schema

pytest.importorskip("streamlit")
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
PEOPLE = pd.read_parquet(files("mlops_nb") / "data" / "income.parquet").head(2400)
STATED = {
    "name": "income", "title": "Who earns much?", "goal": "An example.", "task": "binary", "target": "income", "positive": ">50K", "metric": "roc_auc",
    "secondary": ["recall"], "data": {"source": "package:income.parquet", "licence": "CC BY 4.0"}, "exclude": {"fnlwgt": "weight"},
    "success": [{"metric": "roc_auc", "at_least": 0.8, "reason": "Worse isn't worth it."}],
    "sensitive": [{"name": "sex", "column": "sex", "population": {"Female": 0.4, "Male": 0.6}}, {"name": "age_band", "column": "age", "bins": [25, 45]}],
    "fairness": [
        {"metric": "equal_opportunity_ratio", "by": "sex", "at_least": 0.2, "gate": True, "reason": "Found about equally often."},
        {"metric": "demographic_parity_ratio", "by": "sex", "at_least": 0.99, "gate": False, "reason": "Said, no gate."},
    ],
    "rules": {"age": {"required": True}}, "policy": "As many women as men; <see> $5.",
}  # fmt: skip


def registered(uri: str, stated: dict, estimator, kind: str = "tree", division: dict | None = None, digests: dict | None = None) -> Version:
    """Register a small model with real evidence, made by the stages' own functions."""
    problem, train, test = Problem.model_validate(stated), PEOPLE.head(1600), PEOPLE.tail(800)
    form = learn_schema(train, problem)
    known = conform(train, form)
    model = Pipeline([("recipe", make_recipe(form, problem)[kind]), ("estimator", estimator)]).fit(known, train[problem.target])
    threshold = 1 / 3 if problem.kind.has_positive else None
    parts = {
        "problem": problem.model_dump(mode="json"), "schema": form.model_dump(mode="json"), "origin": {"name": "income.parquet", "rows": 2400, "sha256": "ab" * 32},
        "decision": {"chosen": type(estimator).__name__, "why": "It is the only one.", "threshold": threshold, "params": {}}, "tuned": {},
        "evaluation": evaluate(problem, model, test, threshold, resamples=100), "fairness_audit": audit(problem, model, test, threshold, resamples=200, min_group=5, learnt=train),
        "explanation": explain(problem, model, known, conform(test, form), threshold, rows=20, background=20)[0],
    }  # fmt: skip
    background = plain_rows(conform(background_rows(model, known, 20, positive=problem.positive), form))
    sample = sample_of(model, sample_rows(train, form, 4, 0))
    parts |= {"division": division or {}}
    gates = gate_list(parts["evaluation"], parts["fairness_audit"], division)
    evidence = evidence_of(parts, digests or {}, sample, background, len(train), {"commit": "c" * 40, "dirty": True}, {"made": False})
    return register(uri, problem.name, model, as_evidence(evidence), phase_of(gates)[0], reason=phase_of(gates)[1], run="run-1")


def boosted() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=25, random_state=0)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLOPS_NB_ROOT", str(ROOT))
    monkeypatch.setenv("MLOPS_NB_HOME", str(tmp_path))
    import streamlit as st

    st.cache_data.clear()
    st.cache_resource.clear()
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A home with one version in staging."""
    folder = tmp_path_factory.mktemp("made")
    assert registered(f"sqlite:///{folder}/mlflow.db", STATED, boosted()).phase == "staging"
    return folder


@pytest.fixture
def staged(home, made) -> Path:
    shutil.copytree(made, home, dirs_exist_ok=True)  # a registry may be moved, its files with it
    return home


def uri() -> str:
    return load_settings().registry_uri


def page(name: str = "") -> AppTest:
    """The app opened at a page; no page may raise."""
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()
    at = at.switch_page(f"views/{name}.py").run() if name else at
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    """Everything a person reads."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success", "code")
    return "\n".join(plain(e.value) for kind in kinds for e in getattr(at, kind))


def plain(markdown: object) -> str:
    """Without the backslashes that make signs of Markdown text."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", str(markdown))


def test_without_a_model_each_page_says_what_to_run(home):
    for name in ("", "predictions", "fairness"):
        said = text(page(name))
        assert "No model yet" in said and "mlops-nb run" in said
    assert list(home.iterdir()) == []  # looking makes nothing


def test_pages_of_a_version_in_staging_and_in_production(staged):
    version = released(uri(), "income")
    overview = page()
    said = text(overview)
    assert said.count("equal_opportunity_ratio by sex") == 1 and "demographic" not in said  # every gate, and what is none only on its page
    assert "Policy: As many women as men; <see> $5." in said
    assert "Who earns much?" in said and "staging: not yet approved" in said and "mlops-nb models promote income 1" in said
    assert "On 800 test rows" in said and "uncommitted changes" in str(overview.table[0].value) and "run-1" in str(overview.table[0].value)
    auc = read_evidence(uri(), version).evaluation.metrics["roc_auc"]
    assert [(plain(m.label), m.value) for m in overview.metric][0] == ("roc_auc", f"{auc.value:.3f}") and f"{auc.low:.3f} to {auc.high:.3f}" in said

    fairness = page("fairness")
    said = text(fairness)
    assert "**Policy.** As many women as men; <see> $5." in said
    assert "No gate failed; 1 warning" in said and "equal_opportunity_ratio by sex** · passed · gate" in said and "demographic_parity_ratio by sex** · warning" in said
    assert list(fairness.dataframe[0].value["group"]) == ["Female", "Male"] and list(fairness.dataframe[1].value["group"]) == ["under 25", "25 to 44", "45 and over"]
    assert [t.label for t in fairness.tabs] == ["sex", "age band"]
    gaps = fairness.table[0].value
    assert list(gaps.columns) == ["seen", "95% interval", "without chance", "of equal groups", "between"] and len(gaps) == 6
    assert "The rows that were learnt from" in said and "group can be told from" in said and "60.0%" in str(fairness.table[2].value)

    promote(uri(), "income", 1, by="ada", reason="looks right")
    import streamlit as st

    st.cache_data.clear()  # five seconds later
    said = text(page())
    assert "in production" in said and "by ada: looks right" in said and "not yet approved" not in said


def test_what_gives_the_target_away_and_how_often_its_rows_have_judged(home):
    """A finding is a warning; where the charter calls it a gate, it is listed as the other gates are."""
    import streamlit as st

    leak = {"name": "no leak by tax_band", "passed": False, "gate": False, "message": "split: 'tax_band' alone ranks 'income'; mend <it>"}
    assert registered(uri(), STATED, boosted(), division={"rules": [leak]}, digests={"test": "5e1f"}).phase == "staging"
    overview = page()
    said = text(overview)
    assert [plain(w.value) for w in overview.warning] == [leak["message"]] and "no leak by tax_band" not in said
    assert "On 800 test rows that nothing was chosen by. These test rows have judged no other version of income." in said
    assert registered(uri(), STATED, boosted(), division={"rules": [leak | {"gate": True}]}, digests={"test": "5e1f"}).phase == "rejected"
    assert registered(uri(), STATED, boosted(), digests={"test": "0ther"}).phase == "staging"
    st.cache_data.clear()  # five seconds later
    for chosen, times, found in ((1, 2, 1), (2, 2, 0), (3, 1, 0)):
        overview = page()
        box = overview.sidebar.selectbox[-1]
        overview = box.select(next(o for o in box.options if f"{chosen}" in o.split("·")[0])).run() if chosen != 3 else overview
        said = text(overview)
        judged = "These test rows have judged 2 versions of income; the more often" if times == 2 else "These test rows have judged no other version of income."
        assert judged in said and len(overview.warning) == found
        assert ("**no leak by tax_band**: split: 'tax_band' alone ranks 'income'; mend <it>" in said) == (chosen == 2)


def test_commands_look_into_the_store_that_is_shown(home, made, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_HOME", str(home / "sample"))
    monkeypatch.setenv("MLOPS_NB_REPORTS", str(home / "sample" / "reports"))
    shutil.copytree(made, home / "sample")
    overview, monitoring = page(), page("monitoring")
    assert [c.value for c in overview.code] == ["mlops-nb models promote income 1 --reason '...' --sample"]
    assert [c.value for c in monitoring.code] == ["mlops-nb serve income@staging --sample"]


def test_app_and_report_spell_a_metric_as_the_charter_does(staged, tmp_path):
    evidence = read_evidence(uri(), released(uri(), "income"))
    overview, fairness = page(), page("fairness")
    rates = [*fairness.dataframe[0].value][2:]
    names = {*evidence.evaluation.metrics, *rates, *(r["metric"] for r in evidence.fairness_audit["rules"])}
    app = "\n".join([text(overview), text(fairness), *(plain(m.label) for m in overview.metric), *rates])
    figures = {name: {"value": 0.5} for name in names}
    record = {"run": "r", "status": "done", "stages": {}, "model": {"name": "income", "gates": gate_list({}, evidence.fairness_audit)}}
    report = write_report(tmp_path, record, {}, [], figures).read_text()
    assert {"roc_auc", "average_precision", "equal_opportunity_ratio", "selection_rate"} <= names
    for name in names:
        assert name in app and name in report and ("_" not in name or name.replace("_", " ") not in app + report), name


def test_the_form_is_the_schema_and_answers_as_the_predictor(staged):
    at, adviser = page("predictions"), Predictor.load(load_settings(), "income")
    typical = next(row for row in adviser.evidence.background.rows if row["age"] == at.number_input(key="income/1:age").value and row["education"] == at.selectbox(key="income/1:education").value)
    asked = {w.key.removeprefix("income/1:"): w.value for w in [*at.number_input, *at.selectbox] if w.key.startswith("income/1:")}
    assert asked == {f.name: typical[f.name] for f in adviser.schema.fields}  # a row that there is: education and education_num go together
    assert abs(typical["age"] - next(f.typical for f in adviser.schema.fields if f.name == "age")) < 15
    answer = adviser.predict([typical])[0]
    assert plain(at.metric[0].value) == answer.decision and f"{answer.probability:.1%}" in text(at) and "Not approved" in text(at)

    at.number_input(key="income/1:age").set_value(103)
    at.selectbox(key="income/1:occupation").set_value(None)
    at.button[0].click().run()
    strange = adviser.predict([typical | {"age": 103, "occupation": None}])[0]
    assert not at.exception and plain(at.metric[0].value) == strange.decision and f"{strange.probability:.1%}" in text(at)
    assert "age = 103 is outside" in at.warning[0].value and "occupation is missing" in at.info[0].value

    at.number_input(key="income/1:age").set_value(None)
    at.button[0].click().run()
    assert not at.exception and "field 'age': no value" in at.error[0].value and "required" in at.error[0].value


def test_a_rejected_version_says_why_and_is_not_hidden(home):
    strict = {**STATED, "fairness": [{**STATED["fairness"][0], "at_least": 0.999}], "success": [{"metric": "roc_auc", "at_least": 0.99, "reason": "A wish."}]}
    version = registered(uri(), strict, boosted())
    assert version.phase == "rejected"
    said = text(page())
    assert "rejected: a gate failed" in said and "failed a gate and can't be promoted. roc_auc: " in said and "promote income" not in said
    assert "Not in use" in text(page("predictions"))
    said = text(page("monitoring"))
    assert "none is in staging or in production" in said and "mlops-nb serve" not in said


def test_an_undecided_gate_is_said(home):
    """Neither passed nor failed: a person decides, and the page says so."""
    close = {**STATED, "fairness": [{**STATED["fairness"][0], "at_least": 0.95}]}
    assert registered(uri(), close, boosted()).phase == "staging"
    said = text(page("fairness"))
    assert "cannot say · gate" in said and "no program promotes this version" in said
    assert "undecided, so a person decides" in text(page())


def test_two_people_have_to_approve(staged):
    promote(uri(), "income", 1, by="ada", approval="two")
    assert "ada asked for this version to go to production" in text(page())


@pytest.mark.parametrize(
    ("task", "target", "metric", "estimator", "kind"),
    [("multiclass", "relationship", "f1_macro", LogisticRegression(max_iter=300), "linear"), ("regression", "hours_per_week", "mae", LinearRegression(), "linear")],
)
@pytest.mark.slow
def test_other_tasks_have_pages_too(staged, task, target, metric, estimator, kind):
    stated = {**STATED, "task": task, "target": target, "positive": None, "metric": metric, "secondary": [], "success": [], "fairness": [], "exclude": {"fnlwgt": "weight", "marital_status": "says too much"}}
    registered(uri(), stated, estimator, kind)
    assert "The charter names no success criteria." in text(page())
    assert page("predictions").metric[0].value
    fairness = page("fairness")
    assert "no fairness rules" in text(fairness) and "do not apply" in text(fairness)
    measures = ["accuracy"] if task == "multiclass" else ["mean_error", "mean_absolute_error"]
    assert [*fairness.dataframe[0].value] == ["group", "rows", *measures] and "undefined" not in str(fairness.dataframe[0].value)


def test_a_damaged_model_is_one_sentence(staged):
    for file in staged.rglob("model.skops"):
        file.write_bytes(file.read_bytes()[:-9])
    at = page("predictions")
    assert at.error, text(at)
    assert "isn't what was registered" in at.error[0].value and not at.number_input


def test_nothing_is_fetched_from_elsewhere():
    """Streamlit fetches emoji and Material icons of the browser tab from the internet, and counts visits unless told not to."""
    source = "".join(f.read_text() for f in (ROOT / "app").rglob("*.py"))
    assert not re.search(r"page_icon=\"|https?://", source) and "page_icon=str(FOLDER" in source
    assert (ROOT / "app" / "icon.png").stat().st_size < 10_000
    assert not re.search("import (sqlite3|mlflow|requests|sklearn)", source)  # pages only call mlops_nb


def test_it_listens_on_this_machine_only(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})
    try:
        for _ in range(100):
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).read() == b"ok"
                break
            except OSError:
                time.sleep(0.2)
        address = socket.gethostbyname(socket.gethostname())
        if not address.startswith("127."):
            with socket.socket() as other:
                other.settimeout(2)
                assert other.connect_ex((address, port)) != 0
    finally:
        server.terminate()
        said = server.communicate(timeout=20)[0]
    assert f"http://127.0.0.1:{port}" in said and "statistics" not in said


def test_pages_of_other_sites_and_names_reach_nothing(home, tmp_path):
    """DNS rebinding: the page's origin and the Host agree, and both are another's. All that the app shows goes over its websocket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlops-nb")), "app", "--port", str(port)]
    server = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "MLOPS_NB_HOSTS": "app.example.com"})

    def opened(host: str, origin: str) -> bytes:
        """The first line that answers a browser which opens the app's websocket."""
        lines = [f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Origin: {origin}"]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
            one.sendall("\r\n".join([*lines, "", ""]).encode())
            return one.recv(1000).split(b"\r\n")[0]

    try:
        for _ in range(300):
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).read() == b"ok"
                break
            except OSError:
                time.sleep(0.2)
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", "app.example.com"):
            assert b" 101 " in opened(host, f"http://{host}")
        for host, origin in (("evil.example", "http://evil.example"), (f"evil.example:{port}", f"http://evil.example:{port}"), (f"localhost:{port}", "http://evil.example"), (f"localhost:{port}", "null")):
            assert b" 403 " in opened(host, origin)
    finally:
        server.terminate()
        server.communicate(timeout=20)


def test_evidence_is_small(staged):
    assert next(staged.rglob("evidence.json")).stat().st_size < 200_000
