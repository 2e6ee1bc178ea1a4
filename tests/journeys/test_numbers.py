"""The charters delays (numbers in time) and digits (one of ten classes), from nothing to a page: registered, gated, served, scored, monitored, shown."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.conftest import command, opened_app
from tests.serving.test_rest import Server

from mlops_nb.base.charter import load_charter
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.model.conform import conform
from mlops_nb.model.extensions import open_project
from mlops_nb.model.problem import Problem
from mlops_nb.model.sense import check_sense, column_findings
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.pipeline.plan import sample_settings
from mlops_nb.registry.loading import load
from mlops_nb.serving.prediction import Predictor
from mlops_nb.sources import datasets as made

ROOT = Path(__file__).parents[2]
ROWS = {"delays": 3000, "digits": 600}
BLIND = {"delays": ("mae", lambda y: float(np.mean(abs(y.astype(float) - y.astype(float).median())))), "digits": ("log_loss", lambda y: 2.3)}


@pytest.mark.parametrize("name", ROWS)
def test_the_charter_fits_its_table(name):
    charter = load_charter(ROOT / "nbs" / "charters" / f"{name}.yaml")
    rows = made.MAKERS[name]()
    assert check_sense(charter) == [] and column_findings(charter, list(rows)) == []
    assert all(bound.reason for bound in charter.success)
    features = Problem.model_validate(charter.statement()).feature_names(rows)
    assert not {"scheduled", "late", "delay", "digit", "dep_time", "dep_delay", "arr_delay", "air_time"} & set(features)


def test_delays_know_nothing_that_comes_later():
    """Beside the minutes, the table is the one of flights, whose columns are proven to be known at the gate."""
    minutes, flights = made.delays(), made.flights()
    assert minutes.drop(columns="delay").equals(flights.drop(columns="late"))
    assert ((minutes["delay"] > 15) == flights["late"]).all() and minutes["scheduled"].is_monotonic_increasing


@pytest.fixture(scope="module", params=ROWS)
def made_project(request, tmp_path_factory):
    """A project of the example, run on few rows, its model in production."""
    name = request.param
    root = tmp_path_factory.mktemp("example") / "project"
    command(root.parent, "init", "project", "--example", name)
    said = command(root, "run", "--sample", str(ROWS[name]))
    assert f"model {name} version 1, phase staging" in said and "pass" in said and "fail" not in said, said
    command(root, "models", "promote", name, "1", "--sample")
    settings = sample_settings(open_project(root))
    loaded = load(settings.registry_uri, name, 1)
    rows = pd.read_parquet(root / "data" / f"{name}.parquet").tail(300).reset_index(drop=True)
    return SimpleNamespace(name=name, root=root, settings=settings, made=loaded, evidence=loaded.evidence, rows=rows, target=loaded.evidence.problem.target)


@pytest.mark.slow
def test_it_is_gated_and_better_than_knowing_nothing(made_project):
    found = made_project.evidence.evaluation
    assert found.criteria and all(c["passed"] for c in found.criteria) and not [r for r in found.rules if r["name"].startswith("better")]
    metric, blind = BLIND[made_project.name]
    assert found.metrics[metric].value < blind(made_project.rows[made_project.target])


@pytest.mark.slow
def test_it_is_served_as_it_is_scored(made_project):
    """REST, a table and the registered model say the same; a number comes with its interval, which its own rows make plain."""
    g = made_project
    fields = g.evidence.form.names
    asked = g.rows[fields].head(40)
    plain = asked.astype(object).where(asked.notna(), None).to_dict("records")
    server = Server(g.root, g.name, "--sample")
    try:
        status, said, _ = server.predict(plain)
        described = server.get("/openapi.json")[1]
    finally:
        server.stop()
    assert status == 200, said
    own = g.made.model.predict(conform(asked, g.evidence.form)).tolist()
    answers = said["predictions"]
    g.rows.head(40).to_csv(g.root / "few.csv", index=False)
    command(g.root, "score", "few.csv", "said.csv", "--model", f"{g.name}@production", "--sample")
    table = pd.read_csv(g.root / "said.csv", dtype={"decision": str if g.name == "digits" else float})
    if g.name == "digits":
        assert [a["decision"] for a in answers] == own == table["decision"].tolist() and "interval" not in answers[0]
        return
    assert [a["decision"] for a in answers] == pytest.approx(own, rel=1e-9) and table["decision"].tolist() == pytest.approx(own, rel=1e-9)
    low, high = g.evidence.decision.bands.of_many(np.array(own))
    assert np.array([a["interval"] for a in answers]) == pytest.approx(np.column_stack([low, high]), rel=1e-9)
    assert table[["interval_low", "interval_high"]].to_numpy() == pytest.approx(np.column_stack([low, high]), rel=1e-9)
    assert "interval" in described["components"]["schemas"]["Prediction"]["properties"]
    held = g.evidence.evaluation.intervals
    assert held["coverage"]["low"] < 0.9 < held["coverage"]["high"] + 0.03 and set(held["by"]["airport"]) == {"EWR", "JFK", "LGA"}


@pytest.mark.slow
def test_a_week_is_monitored(made_project):
    g = made_project
    predictor, log = Predictor.load(g.settings, g.name, 1), PredictionLog(g.settings.home)
    begun = datetime.now(UTC) - timedelta(days=9)
    answers, asked = predictor.predict(g.rows), predictor.check(g.rows)
    log.put([Record(a.id, int((begun + timedelta(seconds=k)).timestamp() * 1e6), g.name, 1, "", None, predictor.served.row_schema.dump(row), msgspec.json.encode(a), 0.001, b"[]") for k, (a, row) in enumerate(zip(answers, asked, strict=True))])
    assert log.flush()
    items = [Item(a.id, y) for a, y in zip(answers, g.rows[g.target].tolist(), strict=True)]
    assert {v.verdict for v in Feedback(g.settings.home).put(items, "test")} <= {"accepted", "late"}
    assert not log.close().error
    reports = monitor_due(g.settings, load_charter(g.root / "nbs" / "charters" / "project.yaml"), g.name, datetime.now(UTC))
    part = reports[0].parts[0]
    assert part.quality["labelled"] == len(g.rows) and part.quality["realised"].keys() == g.evidence.problem.kind.metrics.keys()


@pytest.mark.slow
def test_it_is_shown(made_project, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_HOME", str(made_project.settings.home))
    monkeypatch.setenv("MLOPS_NB_REPORTS", str(made_project.settings.reports))
    at = opened_app(made_project.root, monkeypatch)
    assert not at.exception
    words = " ".join(m.value for m in at.markdown)
    assert ("hold the truth of" in words) == (made_project.name == "delays")
    page = at.switch_page("views/predictions.py").run()
    assert not page.exception and page.metric[0].value
    assert any("% of such rows" in m.value for m in page.markdown) == (made_project.name == "delays")
