"""The Monitoring page on real reports and alerts."""

# ruff: noqa: F811 - fixtures of test_app

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

st = pytest.importorskip("streamlit")
from tests.app.test_app import PEOPLE, STATED, home, made, page, staged, text, uri  # noqa: E402, F401 - fixtures

from mlops_nb.registry.files import read_evidence  # noqa: E402
from mlops_nb.registry.versions import released  # noqa: E402
from mlops_nb.base.charter import Charter  # noqa: E402
from mlops_nb.base.settings import load_settings  # noqa: E402
from mlops_nb.monitoring import due, reference  # noqa: E402
from mlops_nb.monitoring.due import monitor_due  # noqa: E402
from mlops_nb.log.events import Alerts  # noqa: E402
from mlops_nb.log.feedback import Feedback  # noqa: E402
from mlops_nb.log.items import Item  # noqa: E402
from mlops_nb.log.predictions import PredictionLog, Record  # noqa: E402

START = datetime(2025, 1, 15, 8, tzinfo=UTC)


def serve(place, rows: pd.DataFrame, start: datetime, names: list[str]) -> list[Record]:
    """An hour of predictions, in the log."""
    chance = np.random.default_rng(len(rows)).uniform(0.01, 0.99, len(rows))
    inputs = json.loads(rows[names].to_json(orient="records"))
    when = [int((start + timedelta(minutes=59 * i / len(rows))).timestamp() * 1e6) for i in range(len(rows))]
    answers = [json.dumps({"decision": ">50K" if c >= 1 / 3 else "<=50K", "probability": c}).encode() for c in chance]
    made = [Record(f"{start:%d%H}{i:06}", w, "income", 1, "", None, json.dumps(row).encode(), a, 0.0004, b"[]") for i, (row, a, w) in enumerate(zip(inputs, answers, when, strict=True))]
    log = PredictionLog(place)
    log.put(made)
    log.close()
    return made


def test_before_anything_is_served_the_page_says_how(staged):
    said = text(page("monitoring"))
    assert "Nothing was served yet" in said and "mlops-nb serve income" in said
    assert not (staged / "predictions.db").exists()  # looking makes nothing


def test_without_a_model(home):
    assert "No model yet" in text(page("monitoring"))


def test_a_log_that_nobody_has_looked_at(staged):
    serve(staged, PEOPLE.head(30), START, ["age", "sex"])
    said = text(page("monitoring"))
    assert "was looked at yet" in said and "mlops-nb monitor" in said


def test_the_running_window_is_preliminary_as_monitor_now_says(staged, monkeypatch):
    monkeypatch.setattr(due, "window_at", lambda now, size: (now - timedelta(hours=2), now + timedelta(hours=1)))
    start, stop = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) - timedelta(days=3)
    serve(staged, PEOPLE.head(30), start, ["age", "sex"])
    at = page("monitoring")
    said = text(at)
    (choice,) = next(w for w in at.selectbox if w.label == "Window").options
    assert "· preliminary · 30 predictions" in choice and "still running" not in said
    assert re.search(r"30 predictions of 'income' wait for the end of the day, \d{4}-\d\d-\d\d \d\d:\d\d UTC\. .* preliminary; `mlops-nb monitor`", said)
    assert not list(staged.glob("monitoring/income/*.json"))  # looking keeps nothing
    serve(staged, PEOPLE.head(30), stop, ["age", "sex"])
    monitor_due(load_settings(tracking="disabled"), Charter.model_validate(STATED), "income", datetime.now(UTC))
    st.cache_data.clear()
    said = text(page("monitoring"))
    assert "30 predictions of 'income' wait for the end" in said and "switch on *The running window*" in said


def test_windows_drift_quality_and_an_alert_that_is_acknowledged(staged, monkeypatch):
    version = released(uri(), "income")
    evidence = read_evidence(uri(), version)
    monkeypatch.setattr(reference, "reference_of", lambda *_: reference.make_reference(1, evidence, PEOPLE.head(1600)))
    names = evidence.form.names
    old = PEOPLE.tail(400).assign(age=80)
    first = serve(staged, PEOPLE.tail(400), START, names)
    serve(staged, old, START + timedelta(hours=1), names)
    Feedback(staged).put([Item(r.id, str(t), at=START + timedelta(hours=1)) for r, t in zip(first, PEOPLE.tail(400)["income"], strict=True)])
    dates = staged / "dates.csv"
    dates.write_text("2025-01-15T09:20,<b>campaign</b> [mail](https://x.example)\n")
    charter = Charter.model_validate(STATED | {"monitoring": {"window": "hour", "dates": str(dates)}})
    found = monitor_due(load_settings(tracking="disabled"), charter, "income", START + timedelta(hours=2))
    assert len(found) == 2 and found[1].part(1).told("drift")
    at = page("monitoring")
    said = text(at)
    assert [m.label for m in at.metric][:3] == ["Predictions", "Median latency", "Drifted features"] and at.metric[0].value == "400"
    assert "inputs are not what the model learnt from" in said and "'age' differs" in said and "Where it comes from" in said
    marks = [m.value for m in at.markdown if "2025-01-15 09:20 UTC" in m.value]
    assert len(marks) >= 3 and not any("<b>" in m.replace("\\<", "") or "[mail](h" in m for m in marks)  # text, in page and alert
    assert at.dataframe[0].value["feature"][0] == "age" and bool(at.dataframe[0].value["drifted"][0])
    key = max(a.id for a in Alerts(staged).open("income"))  # the newest is shown first
    at.text_input(key=f"who {key}").set_value("ada")
    at.text_input(key=f"note {key}").set_value("a campaign")
    next(b for b in at.button if b.label == "I have seen it").click().run()
    assert not at.exception and "ada has seen it" in text(at) and [a.by for a in Alerts(staged).open("income") if a.id == key] == ["ada"]
    window = next(w for w in at.selectbox if w.label == "Window")
    window.set_value(1).run()
    assert not at.exception and at.metric[4].value != "-" and "400 labels" in text(at)


def test_a_group_that_is_served_worse(staged, monkeypatch):
    """Ten hours in which decisions are right for 85% of all; then for women mostly not."""
    evidence = read_evidence(uri(), released(uri(), "income"))
    monkeypatch.setattr(reference, "reference_of", lambda *_: reference.make_reference(1, evidence, PEOPLE.head(1600))._replace(some=PEOPLE.head(19)))
    rng = np.random.default_rng(0)
    for h in range(12):
        rows = PEOPLE.sample(400 + h, random_state=h)
        hour = serve(staged, rows, START + timedelta(hours=h), evidence.form.names)
        right = rng.random(len(rows)) < np.where((rows["sex"] == "Female") & (h > 9), 0.3, 0.85)
        said = [json.loads(r.output)["decision"] == ">50K" for r in hour]
        labels = np.where(np.array(said) == right, ">50K", "<=50K")
        Feedback(staged).put([Item(r.id, str(t), at=START + timedelta(hours=h, minutes=59)) for r, t in zip(hour, labels, strict=True)])
    charter = Charter.model_validate(STATED | {"monitoring": {"window": "hour"}})
    last = monitor_due(load_settings(tracking="disabled"), charter, "income", START + timedelta(hours=12))[-1]
    assert "roc_auc for sex = Female is" in last.part(1).told("groups")
    at = page("monitoring")
    said = text(at)
    assert "Each group is held against its own windows before" in said


def test_a_damaged_report_is_left_out(staged):
    serve(staged, PEOPLE.head(30), START, ["age", "sex"])
    folder = staged / "monitoring" / "income"
    folder.mkdir(parents=True)
    (folder / "2025-01-15T0800.json").write_bytes(b"\x00half")
    assert "was looked at yet" in text(page("monitoring"))


@pytest.mark.parametrize(("who", "said"), [(lambda i: f"client {i // 8}", "count 50 subjects, not 400 rows"), (lambda i: None, "each of 400 rows is taken as drawn by itself")])
def test_the_page_says_how_rows_were_drawn(staged, monkeypatch, who, said):
    evidence = read_evidence(uri(), released(uri(), "income"))
    monkeypatch.setattr(reference, "reference_of", lambda *_: reference.make_reference(1, evidence, PEOPLE.head(1600)))
    log = PredictionLog(staged)
    made = [r._replace(subject=who(i)) for i, r in enumerate(serve(staged / "another", PEOPLE.tail(400), START, evidence.form.names))]
    log.put(made)
    log.close()
    labels = PEOPLE.tail(400)["income"]
    Feedback(staged).put([Item(r.id, str(t), at=START + timedelta(hours=1)) for r, t in zip(made, labels, strict=True)])
    monitor_due(load_settings(tracking="disabled"), Charter.model_validate(STATED | {"monitoring": {"window": "hour"}}), "income", START + timedelta(hours=1))
    at = page("monitoring")
    assert not at.exception and said in text(at) and "400 labels" in text(at)


def test_one_class_and_one_subject_on_the_page(staged, monkeypatch):
    """Figures without an interval are shown as such; why nothing is judged stands there."""
    evidence = read_evidence(uri(), released(uri(), "income"))
    monkeypatch.setattr(reference, "reference_of", lambda *_: reference.make_reference(1, evidence, PEOPLE.head(1600)))
    made = [r._replace(subject="one client") for r in serve(staged / "another", PEOPLE.tail(400), START, evidence.form.names)]
    log = PredictionLog(staged)
    log.put(made)
    log.close()
    Feedback(staged).put([Item(r.id, "<=50K", at=START + timedelta(hours=1)) for r in made])
    monitor_due(load_settings(tracking="disabled"), Charter.model_validate(STATED | {"monitoring": {"window": "hour"}}), "income", START + timedelta(hours=1))
    at = page("monitoring")
    assert not at.exception and "labels about 1 subject are too few to judge the quality" in text(at)
