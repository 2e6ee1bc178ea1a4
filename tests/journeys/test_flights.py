"""The second charter: a table that is made at need, in the order of time, from nothing that is known only later."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.sources import datasets as made
from mlops_nb.model.sense import check_sense, column_findings
from mlops_nb.base.charter import load_charter
from mlops_nb.sources.files import source_file
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.problem import Problem
from mlops_nb.stages.split import split_rows

ROOT = Path(__file__).parents[2]
CHARTER = ROOT / "nbs" / "charters" / "flights.yaml"
TOOL = str(Path(sys.executable).with_name("mlops-nb"))


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return made.flights()


def test_what_the_table_holds(flights):
    charter = load_charter(CHARTER)
    assert check_sense(charter) == [] and column_findings(charter, list(flights)) == []
    assert len(flights) == 328_521 and flights["scheduled"].is_monotonic_increasing and flights["late"].dtype == bool
    features = Problem.model_validate(charter.statement()).feature_names(flights)
    assert not {"scheduled", "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum", "flight"} & set(features)
    assert flights[["weekday", "minute_of_day", "carrier", "origin", "dest", "distance"]].notna().all(axis=None)
    assert 0.2 < flights["late"].mean() < 0.22 and flights["temp"].notna().mean() > 0.99


def test_it_drifts(flights):
    late = flights["late"].groupby(flights["scheduled"].dt.month).mean()
    assert late[7] > 0.29 and late[9] < 0.15 and late[12] > 0.27


def test_nothing_comes_from_the_future(flights):
    """What is known of a flight doesn't change when all that happens from its scheduled hour on is left out."""
    rows = flights[["origin", "scheduled", "late"]].rename(columns={"scheduled": "time_hour"})
    rows["time_hour"] = rows["time_hour"].dt.floor("h")
    rows = rows[rows["time_hour"] < "2013-02-01"]
    whole = made.late_before(rows).set_index(["origin", "time_hour"])["late_before"]
    for moment in ("2013-01-05 08:00", "2013-01-17 19:00"):
        before = rows[rows["time_hour"] <= moment].copy()
        before.loc[before["time_hour"] > pd.Timestamp(moment) - pd.Timedelta(hours=2), "late"] = False  # not yet known then
        known = made.late_before(before).set_index(["origin", "time_hour"])["late_before"]
        for origin in ("EWR", "JFK", "LGA"):
            assert known[origin][moment] == whole[origin][moment]


def test_rows_are_divided_in_the_order_of_time(flights):
    charter = load_charter(CHARTER)
    parts = split_rows(flights.sample(20_000, random_state=0), Problem.model_validate(charter.statement()), **charter.knobs["split"])
    assert parts.train["scheduled"].max() < parts.valid["scheduled"].min() <= parts.valid["scheduled"].max() < parts.test["scheduled"].min()


def test_the_file_is_made_once_and_always_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(made.MAKERS, "flights", lambda: pd.DataFrame({"late": [True, False]}))
    charter = load_charter(CHARTER)
    first = source_file(charter, tmp_path)
    (tmp_path / "data" / "flights.parquet").unlink()
    assert source_file(charter, tmp_path) == first and first.name == "flights.parquet"
    monkeypatch.setitem(made.MAKERS, "flights", lambda: 1 / 0)
    assert source_file(charter, tmp_path) == first
    assert [f.name for f in (tmp_path / "data").iterdir()] == ["flights.parquet"]


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "find_spec", lambda name: None)
    with pytest.raises(MlopsError, match=r"pip install 'mlops-nb\[flights\]'"):
        source_file(load_charter(CHARTER), tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_project_of_it(tmp_path):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")}
    call = lambda cwd, *words: subprocess.run([TOOL, *words], cwd=cwd, capture_output=True, text=True, timeout=120, env=clean)  # noqa: E731
    assert call(tmp_path, "init", "sky", "--example", "flights").returncode == 0
    done = call(tmp_path / "sky", "check")
    assert done.returncode == 0 and "charter flights" in done.stdout, done.stderr
    assert "did you mean 'flights'" in call(tmp_path, "init", "other", "--example", "flight").stderr and not (tmp_path / "other").exists()


@pytest.mark.deep
def test_the_whole_pipeline(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")} | {"MLOPS_NB_HOME": str(tmp_path), "MLOPS_NB_REPORTS": str(tmp_path / "reports")}
    done = subprocess.run([TOOL, "run", "--charter", str(CHARTER), "--sample", "3000"], cwd=ROOT, capture_output=True, text=True, timeout=900, env=env)
    assert done.returncode == 0 and "model flights version 1, phase staging" in done.stdout, done.stdout + done.stderr
