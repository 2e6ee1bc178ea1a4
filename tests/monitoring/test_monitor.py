"""Monitoring from the log to the alert: windows, versions, late labels, clocks, and alarms that keep their word."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_poisson_deviance
from tests.log import test_predictions as test_log

from mlops_nb.base.charter import Charter, Monitoring
from mlops_nb.log.position import log_state
from mlops_nb.model.metrics import METRICS, Metric
from mlops_nb.model.tasks import known
from mlops_nb.model.tasks.regression import Regression
from mlops_nb.monitoring import reference
from mlops_nb.monitoring.due import CATCH_UP, monitor_due
from mlops_nb.monitoring.judge import SHARES, look, look_at_part
from mlops_nb.monitoring.reference import Reference, make_reference
from mlops_nb.monitoring.reports import Report, report_file, reports
from mlops_nb.monitoring.windows import Part, now_of, part_of, window_at, window_of
from mlops_nb.log.events import Alerts, Events
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.registry.evidence import Evidence, as_evidence

postgres = test_log.postgres
NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
RULES = Monitoring(window="hour", min_rows=100, min_labels=50)
CHARTER = Charter(
    name="shop", goal="Whom to call.", task="binary", target="buys", positive="yes", metric="roc_auc", data={"source": "shop.csv"}, monitoring={"window": "hour", "min_rows": 100, "min_labels": 50}
)


def people(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"age": rng.normal(45, 12, n).round().clip(18, 90), "income": rng.lognormal(10, 0.5, n), "job": rng.choice(["clerk", "cook", "nurse"], n, p=[0.5, 0.3, 0.2]), "member": rng.random(n) < 0.3, "constant": 7.0})


def chances(rows: pd.DataFrame) -> np.ndarray:
    return (1 / (1 + np.exp(-(rows["age"].astype(float) - 45) / 8))).to_numpy()


def evidence() -> Evidence:
    """What a version's evidence says; its test rows are of the same kind as the training rows."""
    said = chances(people(3000, 99))
    real = np.random.default_rng(5).random(3000) < said
    from sklearn.metrics import roc_auc_score

    auc, picked = roc_auc_score(real, said), said >= 0.5
    kinds = {"age": "integer", "income": "number", "job": "category", "member": "boolean", "constant": "number"}
    return as_evidence({
        "problem": CHARTER.statement() | {"sensitive": [{"name": "job", "column": "job", "bins": None}]},
        "schema": {"target": "buys", "classes": ["no", "yes"], "fields": [{"name": n, "kind": k, "nullable": True} for n, k in kinds.items()]},
        "evaluation": {
            "n": 3000, "threshold": 0.5, "positive": "yes", "metrics": {"roc_auc": {"value": auc, "low": auc - 0.015, "high": auc + 0.015}},
            "confusion": {"tp": int((real & picked).sum()), "fp": int((~real & picked).sum()), "fn": int((real & ~picked).sum()), "tn": int((~real & ~picked).sum())},
            "said": np.quantile(said, np.linspace(0, 1, 400)).tolist(),
        },
    })  # fmt: skip


EVIDENCE = evidence()
REFERENCE = make_reference(1, EVIDENCE, people(6000))


def records(rows: pd.DataFrame, start: datetime, minutes: float = 59, version: int = 1, tag: str = "") -> list[Record]:
    made = []
    for i, (row, chance) in enumerate(zip(rows.to_dict("records"), chances(rows), strict=True)):
        when = int((start + timedelta(minutes=minutes * i / max(len(rows), 1))).timestamp() * 1e6)
        answer = json.dumps({"id": "x", "decision": "yes" if chance >= 0.5 else "no", "probability": chance}).encode()
        made.append(Record(f"{tag}{start:%d%H}-{version}-{i}", when, "shop", version, "", None, json.dumps(row).encode(), answer, 0.001, b"[]"))
    return made


@pytest.fixture
def place(tmp_path, monkeypatch) -> SimpleNamespace:
    """A home; versions 1 and 2 are registered, as far as monitoring asks."""
    known = {1: REFERENCE, 2: REFERENCE._replace(version=2)}
    monkeypatch.setattr(reference, "reference_of", lambda place, model, number: known[number])
    return SimpleNamespace(root=tmp_path, home=tmp_path, log_url="", registry_uri="", tracking="disabled")


def write(place, made: list[Record]) -> None:
    log = PredictionLog(place.home, place.log_url)
    log.put(made)
    assert log.close().dropped == 0


def hour(place, start: datetime = NOON):
    return window_of(place, "shop", start, start + timedelta(hours=1))


def test_the_root_artifact_follows_the_log(place):
    assert log_state(place.home) == {"predictions": 0, "feedback": 0} and not list(place.home.iterdir())
    made = records(people(20), NOON)
    write(place, made)
    Feedback(place.home).put([Item(made[0].id, "yes", at=NOON + timedelta(hours=1))])
    assert log_state(place.home) == {"predictions": 20, "feedback": 1}


def test_nothing_there_is_nothing_made(place):
    assert monitor_due(place, CHARTER, "shop", NOON) == [] and reports(place.home, "shop") == [] and not list(place.home.iterdir())
    write(place, records(people(5), NOON))
    assert monitor_due(place, CHARTER, "another", NOON + timedelta(hours=3)) == []


@pytest.mark.slow
def test_undisturbed_windows_stay_quiet_and_disturbed_ones_do_not():
    def judged(rows: pd.DataFrame):
        import pyarrow as pa

        truth, known = np.random.default_rng(len(rows)).random(len(rows)) < chances(rows), np.ones(len(rows), dtype=bool)
        part = Part(1, len(rows), pa.Table.from_pandas(rows, preserve_index=False), chances(rows) >= 0.5, chances(rows), known, truth, {}, [])
        return look_at_part(part, REFERENCE, RULES)[0].alarms

    quiet = [judged(people(400, 1000 + i)) for i in range(60)]
    assert sum(map(bool, quiet)) <= 3  # 1% is tolerated: more than 3 of 60 has a chance of 1 in 300
    older = people(400, 3).assign(age=lambda p: p["age"] + 8)
    assert {a["channel"] for a in judged(older)} >= {"drift", "predictions"} and any("'age'" in a["said"] for a in judged(older))


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_small_windows_show_figures_and_raise_nothing(place, rows):
    write(place, records(people(max(rows, 1)).assign(age=90), NOON if rows else NOON - timedelta(hours=5)))
    report = look(hour(place), {1: REFERENCE}, RULES)
    assert report.rows == rows and not report.every_alarm
    assert not report.parts if rows == 0 else "too few to judge" in report.parts[0].notes[-1] and report.parts[0].features
    msgspec.json.decode(msgspec.json.encode(report), type=Report)


def test_a_feature_that_vanished_is_new_or_constant(place):
    rows = people(500, 8)
    write(place, records(rows.drop(columns="income").assign(shoe=44), NOON))
    (part,) = look(hour(place), {1: REFERENCE}, RULES).parts
    assert any("shoe" in note for note in part.notes)
    found = {f["name"]: f for f in part.features}
    assert found["income"]["drifted"] and found["income"]["missing"] == 1 and not found["constant"]["drifted"] and not found["age"]["drifted"]


def test_answers_that_cannot_be_read_are_counted_and_left_out(place):
    made = records(people(300, 8), NOON)
    made[0] = made[0]._replace(output=b'{"decision": 5, "probability": "high"}')
    made[1] = made[1]._replace(output=b"[]", inputs=b"[]")
    made[2] = made[2]._replace(inputs=b'{"age": "old", "job": 3, "member": "maybe"}')
    write(place, made)
    part = part_of(hour(place), 1, EVIDENCE)
    assert len(part.inputs) == 298 and "2 answers can't be read" in part.notes[0] and part.inputs["age"].null_count == 1


def test_a_change_of_model_within_a_window_is_judged_by_version(place):
    rows = people(800, 11)
    write(place, records(rows[:400], NOON, 25) + records(rows[400:].assign(age=lambda p: p["age"] + 15), NOON + timedelta(minutes=30), 25, version=2, tag="b"))
    report = look(hour(place), {1: REFERENCE, 2: REFERENCE._replace(version=2)}, RULES)
    assert [(p.version, p.rows, bool(p.alarms)) for p in report.parts] == [(1, 400, False), (2, 400, True)]
    assert report.part(2).drift_impact and not report.part(1).drift_impact and report.part(3) is None
    stranger = look(hour(place), {1: REFERENCE, 2: "version 2 isn't in the registry"}, RULES)
    assert [p.version for p in stranger.parts] == [1] and "isn't in the registry" in stranger.notes[0]


def test_training_rows_that_are_gone(place):
    write(place, records(people(300), NOON))
    gone = Reference(1, EVIDENCE, None, pd.DataFrame(), "the rows that version 1 learnt from are not in the store any more")
    (part,) = look(hour(place), {1: gone}, RULES).parts
    assert part.features == [] and part.predictions and part.quality["estimated"] and "not in the store" in part.notes[0]


def test_windows_that_are_due_once_each_and_caught_up_within_bounds(place):
    write(place, [r for h in range(40) for r in records(people(3, h), NOON + timedelta(hours=h))])
    first = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=2, minutes=59))
    assert [r.start.hour for r in first] == [12, 13] and monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=2, minutes=59)) == []
    rest = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=40))
    assert len(rest) == CATCH_UP and rest[-1].end == NOON + timedelta(hours=40)
    report_file(place.home, "shop", rest[-1].start).write_bytes(b"{")  # a damaged one is left out, not in the way
    assert len(reports(place.home, "shop")) == 2 + CATCH_UP - 1


def test_alerts_open_count_and_resolve(place):
    drifted, calm = people(300, 1).assign(age=lambda p: p["age"] + 15), people(300, 2)
    for h, rows in enumerate([calm, drifted, drifted, calm]):
        write(place, records(rows, NOON + timedelta(hours=h)))
    monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=3))
    open_ = {a.key: a for a in Alerts(place.home).open("shop")}
    assert open_["shop/drift"].count == 2 and "'age'" in open_["shop/drift"].cause
    Alerts(place.home).acknowledge(open_["shop/drift"].id, "ada", "a campaign for older people")
    monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=4))
    assert Alerts(place.home).open("shop") == []
    assert [e.kind for e in Events(place.home).list(kinds=("acknowledged", "resolved")) if e.detail.get("key") == "shop/drift"] == ["acknowledged", "resolved"]


def test_windows_in_postgresql_are_judged_as_those_in_sqlite(place, postgres):
    made = [r for h, shift in enumerate((0, 15)) for r in records(people(400, 1).assign(age=lambda p, shift=shift: p["age"] + shift), NOON + timedelta(hours=h))]
    wrong = [Item(r.id, "no" if msgspec.json.decode(r.output)["probability"] > 0.5 else "yes", at=NOON + timedelta(hours=3)) for r in made]
    found = []
    for url in ("", postgres):
        there = SimpleNamespace(**{**vars(place), "log_url": url, "home": place.home / ("postgres" if url else "sqlite")})
        there.home.mkdir()
        write(there, made)
        Events(there.home, url).add("system", "a minute", "shop", requests=400, errors=0, received=1, sent=1, cpu=0.1, memory=1, seconds=60)
        Feedback(there.home, url).put(wrong)
        looked = monitor_due(there, CHARTER, "shop", NOON + timedelta(hours=2))
        assert monitor_due(there, CHARTER, "shop", NOON + timedelta(hours=2)) == [] and reports(there.home, "shop") == looked
        found.append((looked, [(a.key, a.cause, a.count, a.severity) for a in Alerts(there.home, url).open("shop")]))
    assert found[0] == found[1]
    (calm, shifted), alerts = found[1]
    assert {"drift"} <= {a["channel"] for a in shifted.every_alarm} - {a["channel"] for a in calm.every_alarm}
    assert {"shop/drift", "shop/quality"} <= {key for key, *_ in alerts} and shifted.parts[0].quality["labelled"] == 400


def test_labels_that_come_late_are_looked_at_with_less_to_spend(place):
    rows = people(600, 21)
    made = records(rows, NOON)
    write(place, made)
    (report,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1))
    assert report.parts[0].quality["realised"] == {} and report.parts[0].looks == 0
    wrong = np.where(np.random.default_rng(0).random(600) < chances(rows), "no", "yes")  # the world has turned round
    feedback = Feedback(place.home)
    feedback.put([Item(r.id, str(t), at=NOON + timedelta(days=2)) for r, t in zip(made[:40], wrong, strict=False)])
    assert monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1, minutes=5)) == []  # too few
    feedback.put([Item(r.id, str(t), at=NOON + timedelta(days=2)) for r, t in zip(made[40:200], wrong[40:], strict=False)])
    (again,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1, minutes=10))
    part = again.parts[0]
    assert part.quality["labelled"] == 200 and part.looks == 1 and "roc_auc is 0." in part.quality_down
    assert part.alarms[-1]["threshold"] <= CHARTER.monitoring.false_alarms * SHARES["quality"] / 2 + 1e-12
    assert [a.severity for a in Alerts(place.home).open("shop") if a.key == "shop/quality"] == ["critical"]
    assert monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1, minutes=15)) == [] and reports(place.home, "shop") == [again]


def test_a_window_of_more_rows_than_are_looked_at_is_looked_at_again_when_labels_double(place, monkeypatch):
    """What has arrived is counted in the log, not in the sample."""
    monkeypatch.setattr("mlops_nb.monitoring.windows.window_of.__defaults__", (500,))
    rows, now = people(1600, 3), NOON + timedelta(hours=1)
    made, feedback = records(rows, NOON), Feedback(place.home)
    write(place, made)
    real = np.where(np.random.default_rng(0).random(1600) < chances(rows), "yes", "no")
    items = [Item(r.id, str(t), at=NOON + timedelta(minutes=59)) for r, t in zip(made, real, strict=True)]
    feedback.put(items[::4])
    (report,) = monitor_due(place, CHARTER, "shop", now)
    assert report.parts[0].looked == 500 and 50 < report.parts[0].quality["labelled"] < 200
    assert monitor_due(place, CHARTER, "shop", now) == []
    feedback.put(items)
    (again,) = monitor_due(place, CHARTER, "shop", now)
    assert again.parts[0].quality["labelled"] == 500 and again.parts[0].quality["came"] == 1600
    assert [monitor_due(place, CHARTER, "shop", now) for _ in range(3)] == [[], [], []]


def test_of_a_sampled_window_rows_are_counted_and_not_guessed(place):
    made = [r._replace(arm="b" if i % 2 else "a", version=2 if i % 20 == 0 else 1) for i, r in enumerate(records(people(2000, 3), NOON))]
    write(place, [made[0]._replace(id="one", version=3), *made])
    window = window_of(place, "shop", NOON, NOON + timedelta(hours=1), most=500)
    assert len(window.table) == 500 and window.arms == {1: {"a": 900, "b": 1000}, 2: {"a": 100}, 3: {"a": 1}}
    report = look(window, {1: REFERENCE, 2: "it is not in the registry"}, RULES)
    (part,) = report.parts
    assert part.rows == 1900 and part.arms == {"a": 900, "b": 1000} and part.looked < 500
    assert any("version 2 answered 100 rows and is not judged: it is not in the registry" in n for n in report.notes)
    assert any("version 3 answered 1 rows and is not judged: none is in the sample" in n for n in report.notes)


def test_clocks_that_disagree(place):
    write(place, records(people(200), NOON) + records(people(3), NOON + timedelta(days=400), tag="ahead"))
    (report,) = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=1))
    assert report.rows == 200 and "3 predictions carry a time that is yet to come" in report.notes[0]
    assert now_of(place, "shop") < NOON + timedelta(hours=1)


def test_rows_that_a_wrong_clock_dated_long_ago_make_no_past(place):
    """Empty windows after them would make the first real one an alarm of throughput."""
    write(place, records(people(20), datetime(1970, 1, 1, tzinfo=UTC), tag="old") + records(people(300), NOON)[::-1] + records(people(300, 1), NOON + timedelta(hours=1)))
    found = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=2))
    assert [r.rows for r in found] == [300, 300] and not [a for r in found for a in r.every_alarm]
    assert any("20 predictions before this window are too old to be looked at, or a clock was wrong: 1970-01-01" in n for n in found[0].notes)
    assert not any("too old" in n for n in found[1].notes)


@pytest.mark.slow
def test_the_machine_is_compared_with_the_past(place):
    for h in range(12):
        rows = records(people(120, h), NOON + timedelta(hours=h))
        write(place, [r._replace(latency=0.5 if h == 11 else 0.001 + 0.0001 * (h % 3)) for r in rows])
    found = monitor_due(place, CHARTER, "shop", NOON + timedelta(hours=12))
    slow = [a for a in found[-1].alarms if a["channel"] == "system"]
    assert not any(r.every_alarm for r in found[:-1]) and {a["what"] for a in slow} >= {"latency_p50"} and "slower" in slow[0]["said"]


class Count(Regression):
    "How often, as a project might add it; `stats.quality` knows influences of one of its metrics."

    name, meaning = "count", "how often something happens"
    metrics = {
        "deviance": Metric(lambda y_true, y_pred, classes: mean_poisson_deviance(y_true, y_pred), False, "value", 0, math.inf, "0 is exact"),
        "mae": METRICS["regression"]["mae"],
    }


def test_a_task_of_the_projects_own(place, monkeypatch):
    monkeypatch.setattr(known, "TASKS", known.TASKS | {"count": Count()})
    rows, rng = people(400, 31), np.random.default_rng(0)
    y_pred = rng.gamma(9, 1, 400)
    write(place, [r._replace(output=json.dumps({"decision": p}).encode()) for r, p in zip(records(rows, NOON), y_pred, strict=True)])
    Feedback(place.home).put([Item(r.id, float(rng.poisson(3 * p)), at=NOON + timedelta(hours=1)) for r, p in zip(records(rows, NOON), y_pred, strict=True)])
    stated = CHARTER.statement() | {"task": "count", "positive": None, "metric": "deviance", "target": "calls"}
    shape = EVIDENCE.content()["schema"] | {"classes": None}
    tested = {"metrics": {"deviance": {"value": 1.0, "low": 0.9, "high": 1.1}}, "n": 2000, "said": y_pred[:150].tolist()}
    shown = as_evidence({"problem": stated, "schema": shape, "evaluation": tested})
    part, channels = look_at_part(part_of(hour(place), 1, shown), make_reference(1, shown, people(3000)), RULES)
    assert list(part.quality["realised"]) == ["deviance", "mae"] and part.quality["estimated"] == part.groups == {}
    assert set(channels) == {"drift", "predictions", "quality"} and "deviance is" in part.quality_down, "three times as many came as were said"
    msgspec.json.encode(part)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(place, task):
    rows, rng = people(400, 31), np.random.default_rng(0)
    stated = EVIDENCE.content()["problem"] | {"task": task, "positive": None, "metric": {"multiclass": "accuracy", "regression": "mae"}[task], "target": "y", "sensitive": []}
    form = EVIDENCE.content()["schema"] | {"classes": ["a", "b", "c"] if task == "multiclass" else None}
    said = rng.dirichlet([2, 3, 4], 400) if task == "multiclass" else rng.normal(10, 2, 400)
    answers = [{"decision": "abc"[int(p.argmax())], "probability": p.max(), "probabilities": dict(zip("abc", p, strict=True))} if task == "multiclass" else {"decision": float(p)} for p in said]
    write(place, [r._replace(output=json.dumps(a).encode()) for r, a in zip(records(rows, NOON), answers, strict=True)])
    labels = [str(rng.choice(list("abc"), p=p)) if task == "multiclass" else float(p + rng.normal(0, 1)) for p in said]
    Feedback(place.home).put([Item(r.id, t, at=NOON + timedelta(hours=1)) for r, t in zip(records(rows, NOON), labels, strict=True)])
    before = {"accuracy": {"value": 0.57, "low": 0.55, "high": 0.59}} if task == "multiclass" else {"mae": {"value": 0.8, "low": 0.77, "high": 0.83}}
    tested = {"metrics": before, "n": 2000, "threshold": None, "confusion": {"classes": list("abc"), "matrix": [[20, 10, 10], [10, 60, 30], [10, 30, 110]]} if task == "multiclass" else None, "said": np.round(said[:150], 5).tolist()}
    shown = as_evidence({"problem": stated, "schema": form, "evaluation": tested})
    part, channels = look_at_part(part_of(hour(place), 1, shown), make_reference(1, shown, people(3000)), RULES)
    assert part.quality["labelled"] == 400 and part.quality["realised"][stated["metric"]]["value"] > 0 and "quality" in channels
    assert bool(part.quality["estimated"]) == (task == "multiclass") and not part.quality_down
    msgspec.json.encode(part)


def test_windows_start_where_people_expect_them():
    for size, start in (("hour", NOON), ("day", NOON.replace(hour=0)), ("week", datetime(2025, 1, 13, tzinfo=UTC))):
        assert window_at(NOON, size)[0] == start == window_at(window_at(NOON, size)[1] - timedelta(microseconds=1), size)[0]


def test_the_command_says_what_it_found(tmp_path):
    import os
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    env = {**os.environ, "MLOPS_NB_ROOT": str(root), "MLOPS_NB_HOME": str(tmp_path / "home")}
    done = subprocess.run([Path(sys.executable).with_name("mlops-nb"), "monitor"], env=env, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "nothing to look at" in done.stdout and "mlops-nb serve income" in done.stdout, done.stderr
