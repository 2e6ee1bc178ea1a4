"""Tables whose answer stands in the calendar: from a CSV by the default project to answers by REST, as good as parts made by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import mean_squared_error, r2_score
from tests.conftest import command
from tests.journeys.test_small_tables import run
from tests.serving.test_rest import serving

from mlops_nb.base.artifacts import Json, Model, Table
from mlops_nb.cli.project import init
from mlops_nb.model.calendar import telling_parts
from mlops_nb.model.compilable import why_not_compilable
from mlops_nb.model.conform import with_types
from mlops_nb.model.problem import Problem
from mlops_nb.model.schema import Schema
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import make_model

FEW = {"train": {"candidates": ["dummy", "linear", "gradient_boosting"], "folds": 3}, "tune": {"n_models": 1, "trials": 2}}


def hourly(seed: int = 0, weeks: int = 30, shape: str = "rush") -> pd.DataFrame:
    """Demand by hour and weekday, which go together, with a trend and noise."""
    draw = np.random.default_rng(seed)
    at = pd.Series(pd.date_range("2025-01-06", periods=24 * 7 * weeks, freq="h"))
    hour, free = at.dt.hour, at.dt.day_of_week >= 5
    rush = 30.0 * hour.isin([8, 17]) * ~free + 25.0 * hour.isin([12, 13]) * free - 30.0 * free + 40 * np.sin((hour - 6) / 24 * 2 * np.pi)
    by_day = 60.0 * at.dt.day_of_week.map({0: 1, 1: 0.2, 2: 0.4, 3: 0.1, 4: 0.9, 5: 0, 6: 0.5}) * hour.between(7, 20)
    base = {"rush": rush, "days": by_day}[shape]
    noise = draw.normal(0, 5, len(at))
    return pd.DataFrame({"at": at, "temp": draw.normal(15, 5, len(at)).round(1), "demand": (100 + base + 10 * at.index / len(at) + noise).round(1)})


def by_hand(rows: pd.DataFrame) -> pd.DataFrame:
    """What somebody who knows dates would make of them."""
    at = rows["at"]
    return pd.DataFrame({"hour": at.dt.hour, "weekday": at.dt.day_of_week, "day": at.dt.day, "yearday": at.dt.day_of_year, "days": (at - pd.Timestamp(2025, 1, 1)) / pd.Timedelta(days=1), "temp": rows["temp"]})


def parts_of(frame: pd.DataFrame, target: str = "demand", task: str = "regression") -> tuple[Schema, Problem, pd.DataFrame, pd.DataFrame]:
    """Three quarters to learn from, the rest to judge by, drawn at random."""
    from mlops_nb.model.conform import learn_schema

    positive = {"positive": "yes", "metric": "roc_auc"} if task == "binary" else {"metric": "r2"}
    stated = Problem.model_validate({"name": "sales", "goal": "Know how much is asked for", "task": task, "target": target, "data": {"source": "rows.csv"}} | positive)
    known = frame.sample(frac=0.75, random_state=0)
    rest = frame.drop(known.index)
    form = learn_schema(known, stated)
    return form, stated, with_types(known, form), with_types(rest, form)


@pytest.mark.parametrize("shape", ["rush", "days"])
def test_dates_are_worth_what_parts_by_hand_are(shape):
    """The same boosting on the recipe, on parts made by hand, and on the date as one number."""
    form, stated, known, rest = parts_of(hourly(shape=shape))
    zones = {"at": None}
    error = {}
    for name, dates in (("recipe", telling_parts(known, zones)), ("number", {})):
        model = make_model("gradient_boosting", make_recipe(form, stated, dates=dates), "regression").fit(known[form.names], known["demand"])
        error[name] = mean_squared_error(rest["demand"], model.predict(rest[form.names]))
        boosting = clone(model["estimator"])
    boosting.set_params(categorical_features=None)
    hand = boosting.fit(by_hand(known), known["demand"])
    error["hand"] = mean_squared_error(rest["demand"], hand.predict(by_hand(rest)))
    assert error["recipe"] < 1.1 * error["hand"], error
    assert error["recipe"] < error["number"] / 2, error


def test_lines_know_dates_too():
    """A linear model can't tell a weekday's hours from a Sunday's, but hours and weekdays it can: most of the variance, and of the number nothing."""
    form, stated, known, rest = parts_of(hourly())
    score = {}
    for name, dates in (("recipe", telling_parts(known, {"at": None})), ("number", {})):
        model = make_model("linear", make_recipe(form, stated, dates=dates), "regression").fit(known[form.names], known["demand"])
        score[name] = r2_score(rest["demand"], model.predict(rest[form.names]))
    assert score["recipe"] > 0.85 and score["number"] < 0.1, score


def project_of(tmp_path: Path, frame: pd.DataFrame, target: str = "demand", **change: str) -> Path:
    frame.to_csv(tmp_path / "rows.csv", index=False, date_format="%d.%m.%Y %H:%M")
    root = init(tmp_path / "project", tmp_path / "rows.csv", target).root
    charter = next((root / "nbs" / "charters").glob("*.yaml"))
    text = charter.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    charter.write_text(text)
    return root


@pytest.mark.slow
def test_the_default_project_on_an_hourly_table(tmp_path, monkeypatch):
    """Judged by the weeks that come after: useless without parts of dates, near what can be known with them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = project_of(tmp_path, hourly())
    score = {}
    for name, knobs in (("default", {}), ("without", {"features": {"calendar": False}})):
        artifacts = run(root, "evaluate", **FEW, **knobs)
        test, fitted = Table.load(artifacts["test"]), Model.load(artifacts["model"])
        score[name] = r2_score(test["demand"], fitted.predict(test))
        assert why_not_compilable(fitted) == ""
        board = Json.load(artifacts["leaderboard"])
        assert board["folds"] == 3
    assert score["default"] > 0.93 and score["without"] < 0.2, score  # noise leaves 0.97 at most
    entities = Table.load(artifacts["entities"])
    assert entities["moment"].is_monotonic_increasing


@pytest.mark.slow
def test_from_a_csv_to_rest(tmp_path):
    """Dates as the file writes them: read, learnt from, served, and answered as the pipeline does; one that can't be read is refused in its column's words."""
    frame = hourly(weeks=12)
    frame.to_csv(tmp_path / "rows.csv", index=False, date_format="%d.%m.%Y %H:%M")
    said = command(tmp_path, "init", "shop", "--data", "rows.csv", "--target", "demand")
    assert re.search(r"(?m)^at +datetime .* times, day first; made of it: days, day, weekday, hour$", said)
    root = tmp_path / "shop"
    charter = next((root / "nbs" / "charters").glob("*.yaml"))
    knobs = "\n".join(f"  {stage}: {json.dumps(values)}" for stage, values in (FEW | {"explain": {"rows": 20, "background": 10}}).items())
    charter.write_text(charter.read_text().replace("knobs:\n", f"knobs:\n{knobs}\n", 1))
    assert "shop version 1" in command(root, "run")
    summary = json.loads((root / "reports" / (root / "reports" / "latest").read_text().strip() / "summary.json").read_text())
    assert all(stage["status"] == "done" for stage in summary["stages"].values())
    command(root, "score", str(tmp_path / "rows.csv"), "scores.csv", "--model", "shop@1", "--keep", "at")
    scores = pd.read_csv(root / "scores.csv", dtype={"at": str})
    asked = frame.iloc[::97].assign(at=frame["at"].dt.strftime("%d.%m.%Y %H:%M"))
    with serving(root, "shop@1") as server:
        status, answer, _ = server.predict(asked[["at", "temp"]].to_dict("records"))
        assert status == 200
        single = np.array([p["prediction"] if "prediction" in p else p["decision"] for p in answer["predictions"]], float)
        assert np.allclose(single, scores.iloc[asked.index].filter(regex="prediction|decision").iloc[:, 0], rtol=0, atol=1e-6)
        assert np.corrcoef(single, asked["demand"])[0, 1] > 0.9
        status, answer, _ = server.predict([{"at": "01/06/25 8 o'clock", "temp": 15.0}])
        assert status == 422 and "a time such as 31.12.2026" in json.dumps(answer)
        status, answer, _ = server.predict([{"at": "06.01.2031 08:00", "temp": 15.0}])
        assert status == 200 and "outside of" in json.dumps(answer), "trees don't go beyond what they have seen: it is said"
