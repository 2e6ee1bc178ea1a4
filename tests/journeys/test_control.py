"""A policy's whole way, cell by cell of ARCHITECTURE.md's table: learnt, judged, registered, served, scored, watched, shown; and what means nothing for it, in a sentence."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.conftest import command, opened_app

from mlops_nb.base.charter import load_charter
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.model.conform import conform
from mlops_nb.model.control.policies import states_frame
from mlops_nb.model.extensions import open_project
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.registry.loading import load
from mlops_nb.serving.prediction import Predictor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """The example as a project of its own, run on few rows, its policy in production."""
    root = tmp_path_factory.mktemp("acting") / "ice"
    command(root.parent, "init", "ice", "--example", "lake")
    charter = root / "nbs" / "charters" / "ice.yaml"
    charter.write_text(charter.read_text() + "  monitor: {trials: 2}\n")
    assert "sound" in command(root, "check")
    said = command(root, "run", "-p", "learn_policy.seeds=5", "-p", "learn_policy.max_rows=1000", "-p", "explain.rows=20")
    assert "phase staging; released as it was judged" in said and "pass        gap_to_optimum" in said, said
    command(root, "models", "promote", "lake", "1")
    settings = open_project(root)
    made = load(settings.registry_uri, "lake", 1)
    frame = states_frame(("row", "column"), (4, 4))
    return SimpleNamespace(root=root, settings=settings, made=made, evidence=made.evidence, frame=frame, known=conform(frame, made.evidence.form))


def test_evaluate(lake):
    found = lake.evidence.evaluation
    assert found.n == 200 and set(found.metrics) == set(lake.evidence.problem.kind.metrics) - {"accuracy"}
    assert all(m.low <= m.value <= m.high for m in found.metrics.values())
    assert found.metrics["gap_to_optimum"].value <= 0.01 and found.metrics["seeds_reaching"].value == 1
    assert "gain_over_random" in command(lake.root, "models", "show", "lake", "1")


def test_fairness_is_none_and_says_so(lake):
    assert "Nobody is decided about" in lake.evidence.fairness_audit["note"] and lake.evidence.fairness_audit["by"] == {}


def test_explain(lake):
    told = lake.evidence.explanation
    assert told["units"] == "probability" and {g["feature"] for g in told["global"]} == {"row", "column"}


def test_compiled_serving(lake):
    """For every state there is, the compiled policy is the learnt one."""
    served = Predictor.load(lake.settings, "lake", 1)
    assert served.served.compiled and [a.decision for a in served.predict(lake.frame)] == lake.made.model.predict(lake.known).tolist()
    assert "lake" in command(lake.root, "serve", "lake", "--check")


def test_a_service(lake):
    from ..serving.test_rest import Server

    server = Server(lake.root, "lake")
    try:
        status, answer = server.predict([{"row": 0, "column": 0}, {"row": 2, "column": 1}])[:2]
        lost = server.predict([{"row": 0}])
    finally:
        server.stop()
    assert [a["decision"] for a in answer["predictions"]] == lake.made.model.predict(pd.DataFrame({"row": [0, 2], "column": [0, 1]})).tolist()
    assert status == 200 and lost[0] in (400, 422) and "column" in json.dumps(lost[1])


def test_batch(lake):
    lake.frame.to_csv(lake.root / "states.csv", index=False)
    command(lake.root, "score", "states.csv", "scores.csv", "--model", "lake@production")
    assert pd.read_csv(lake.root / "scores.csv")["decision"].tolist() == lake.made.model.predict(lake.known).tolist()


def test_drift(lake):
    """A usual day raises no alarm; one in a corner of the lake does, and labels say how often others agree."""
    predictor, log = Predictor.load(lake.settings, "lake", 1), PredictionLog(lake.settings.home)
    day = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    met = lake.made.evidence.sample
    from mlops_nb.base.artifacts import Store, Table

    usual = Table.load(Store(lake.settings.home).get(lake.evidence.digests["train"])).sample(400, random_state=0, replace=True)[["row", "column"]].reset_index(drop=True)
    for back, rows in ((2, usual), (1, usual.assign(row=0, column=np.arange(400) % 4))):
        at, answers, asked = day - timedelta(days=back), predictor.predict(rows), predictor.check(rows)
        log.put([Record(a.id, int((at + timedelta(seconds=k)).timestamp() * 1e6), "lake", 1, "", None, predictor.served.row_schema.dump(row), msgspec.json.encode(a), 0.001, b"[]") for k, (a, row) in enumerate(zip(answers, asked, strict=True))])
        assert log.flush()
        assert {v.verdict for v in Feedback(lake.settings.home).put([Item(a.id, a.decision) for a in answers], "test")} == {"accepted"}
    assert not log.close().error and met is not None
    reports = [json.loads(json.dumps(msgspec.to_builtins(r), default=str)) for r in monitor_due(lake.settings, load_charter(lake.settings.charter), "lake", datetime.now(UTC))]
    calm, strange = (report["parts"][0] for report in reports[:2])
    assert not [a for a in calm["alarms"] if a["channel"] == "drift"] and "drift" in {a["channel"] for a in strange["alarms"]}
    assert calm["quality"]["realised"]["accuracy"]["value"] == 1 and "mean_return is undefined" in calm["quality"]["why"]


def test_what_means_nothing_is_refused_with_a_sentence(lake):
    assert "learns by acting" in command(lake.root, "retrain", fails=True)
    refused = command(lake.root, "experiment", "start", "lake", "--arm", "control=1", "--arm", "new=1", fails=True)
    assert "can't be compared by mean_return" in refused


def test_app(lake, monkeypatch):
    at = opened_app(lake.root, monkeypatch)
    assert not at.exception and "mean_return" in [m.label.replace("\\", "") for m in at.metric]
    assert any("200 fresh episodes" in c.value for c in at.caption)
    for name in ("predictions", "fairness", "monitoring", "data"):
        page = at.switch_page(f"views/{name}.py").run()
        assert not page.exception, (name, page.exception)
        assert name != "predictions" or page.metric[0].value
        assert name != "fairness" or any("Nobody is decided about" in m.value for m in [*page.markdown, *page.caption, *page.info])


def test_the_same_seeds_give_the_same_model(lake):
    """Learnt again, the artifacts are the same to the digest, so all that lies downstream is cached."""
    before = json.loads(command(lake.root, "runs", "show", "--json"))["stages"]["learn_policy"]["outputs"]
    command(lake.root, "run", "learn_policy", "--force", "learn_policy", "-p", "learn_policy.seeds=5", "-p", "learn_policy.max_rows=1000")
    after = json.loads(command(lake.root, "runs", "show", "--json"))["stages"]["learn_policy"]
    assert after["status"] == "done" and after["outputs"] == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("source: gym:FrozenLake-v1?is_slippery=true", "source: gym:FrozenPond-v1"), "no environment"),
        (("source: gym:FrozenLake-v1?is_slippery=true", "source: people.csv"), "learns by acting in one environment"),
        (("task: control", "task: multiclass"), "say 'task: control'"),
        (("target: action", "target: row"), "give it another name"),
        (("source: gym:FrozenLake-v1?is_slippery=true", "source: gym:MountainCarContinuous-v0"), "continuous"),
    ],
)
def test_a_charter_that_makes_no_sense(tmp_path, change, said):
    command(tmp_path, "init", "ice", "--example", "lake")
    charter = tmp_path / "ice" / "nbs" / "charters" / "ice.yaml"
    charter.write_text(charter.read_text().replace(*change))
    assert said in command(tmp_path / "ice", "check", fails=True)


def test_a_method_that_does_not_fit_is_said_with_the_way_out(lake):
    assert "say learn_policy.method=q_learning" in command(lake.root, "run", "learn_policy", "-p", "learn_policy.method=reinforce", fails=True)
