"""Dates as features: numpy's calendar, the compiled one and Python's say the same, and a compiled model answers a date as its pipeline does, whichever way it comes."""

import math
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from mlops_nb.base.artifacts import Model
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.reading import Reading
from mlops_nb.model.calendar import clock_of, days_of, microseconds, part_of, telling_parts
from mlops_nb.model.columns import matrix_of as matrix_of_columns
from mlops_nb.model.columns import read_column
from mlops_nb.model.compile import compile_model, matrix_of
from mlops_nb.model.compiled import calendar, date_of
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.model.problem import Problem
from mlops_nb.model.program import PARTS
from mlops_nb.model.rows import RowSchema
from mlops_nb.model.schema import Field, Schema
from mlops_nb.model.serialization import pack, unpack
from mlops_nb.stages.features import linear_recipe, make_recipe, tree_recipe
from mlops_nb.stages.train import make_model

ZONES = (None, "Europe/Berlin", "Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia")
HOLIDAYS = ("2024-02-29", "2024-12-25", "2025-01-01")
SHOWN = [part for part in PARTS if part != "elapsed"]
EVER = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda at: at.replace(microsecond=0))  # floats hold whole seconds, however far
LATELY = st.datetimes(datetime(1900, 1, 2), datetime(2099, 12, 30)).map(lambda at: at.replace(microsecond=0))
DAYS = np.array(sorted(days_of(HOLIDAYS)), dtype=float)


def told(at: datetime, zone: str | None) -> dict[str, float]:
    """What Python's own calendar says of a moment in UTC."""
    here = at.replace(tzinfo=UTC).astimezone(ZoneInfo(zone or "UTC"))
    said = {"month": here.month, "day": here.day, "yearday": here.timetuple().tm_yday, "weekday": here.weekday()}
    return said | {"hour": here.hour, "minute": here.minute, "holiday": here.date().isoformat() in HOLIDAYS}


def compiled_part(at: float, part: str, zone: str | None) -> float:
    """What the compiled loop says of a moment."""
    moments, offsets = clock_of(zone)
    numbers = np.array([list(PARTS).index(part), len(moments), *moments, *offsets, len(DAYS), *DAYS], dtype=float)
    return calendar(at, numbers, 0)


def alike(at: datetime, zone: str | None) -> None:
    exact = microseconds(pd.Series([at], dtype="datetime64[us]"))
    expected = told(at, zone)
    for part in SHOWN:
        assert part_of(exact, part, clock_of(zone), DAYS)[0] == expected[part] == compiled_part(exact[0], part, zone), (at, zone, part)


@settings(deadline=None)
@given(EVER)
@example(datetime(2000, 2, 29, 23, 59, 59))
@example(datetime(1900, 2, 28))
@example(datetime(2100, 3, 1))
@example(datetime(1, 1, 2))
@example(datetime(9999, 12, 30, 23, 59, 59))
def test_every_year(at):
    alike(at, None)


@settings(max_examples=400, deadline=None)
@given(LATELY, st.sampled_from(ZONES))
@example(datetime(2026, 3, 29, 0, 59, 59), "Europe/Berlin")  # the last second of winter
@example(datetime(2026, 3, 29, 1), "Europe/Berlin")
@example(datetime(2026, 10, 25, 0, 59, 59), "Europe/Berlin")
@example(datetime(2026, 10, 25, 1), "Europe/Berlin")
@example(datetime(2011, 12, 30, 9, 59, 59), "Pacific/Apia")  # the day before a day that Samoa left out
@example(datetime(2011, 12, 30, 10), "Pacific/Apia")
def test_every_clock(at, zone):
    alike(at, zone)


@pytest.mark.parametrize("zone", [z for z in ZONES if z])
def test_each_change_of_a_clock_to_the_second(zone):
    for moment in clock_of(zone)[0][-40:]:
        for second in (-1, 0, 1):
            alike(datetime(1970, 1, 1) + timedelta(microseconds=moment) + timedelta(seconds=second), zone)


def test_every_day_of_four_centuries():
    first = date(1800, 1, 1).toordinal()
    for number in range(first, first + 146_097 + 1):
        day = date.fromordinal(number)
        assert date_of((day - date(1970, 1, 1)).days) == (day.month, day.day, number - date(day.year, 1, 1).toordinal() + 1)


def test_beyond_the_calendar():
    """What only a typed file can hold: the two sides still say the same, and nothing overflows."""
    at = np.array([-(2.0**63) + 4096, -9e18, -7e16, 3e17, 9e18, 2.0**63 - 4096, math.nan])
    for part in SHOWN:
        mine = part_of(at, part, clock_of("Asia/Seoul"), DAYS)
        assert np.array_equal(mine, [compiled_part(x, part, "Asia/Seoul") for x in at], equal_nan=True) and np.isnan(mine[-1])


def table(n: int = 3000, seed: int = 0) -> pd.DataFrame:
    """Orders of four years, with gaps; when they were due."""
    rng = np.random.default_rng(seed)
    at = pd.Timestamp("2022-01-01") + pd.to_timedelta(rng.integers(0, 4 * 365 * 86_400, n), unit="s")
    frame = pd.DataFrame({"at": at, "due": at.floor("D") + pd.to_timedelta(rng.integers(1, 30, n), unit="D"), "size": rng.normal(size=n)})
    frame.loc[rng.random(n) < 0.1, "at"] = pd.NaT
    return frame


@pytest.fixture(scope="module", params=["tree", "linear"])
def scene(request):
    """A model that reads two dates, one by a clock with summer time, fitted and compiled."""
    frame = table()
    reading = Reading(kind="datetime", first="day", zone="Europe/Berlin")
    fields = [Field(name="at", kind="datetime", nullable=True, reading=reading), Field(name="due", kind="datetime", nullable=True), Field(name="size", kind="number", nullable=True)]
    form = Schema(fields=fields, target="y")
    rows = conform(frame, form)
    hour = pd.to_datetime(rows["at"]).dt.hour.fillna(0)
    y = np.sin(hour / 4) * 5 + rows["due"].dt.day_of_week + rows["size"]
    dates = telling_parts(rows, {"at": "Europe/Berlin", "due": None}, HOLIDAYS)
    assert set(dates) == {"month", "day", "yearday", "weekday", "hour", "minute", "holiday"} and dates["hour"] == {"at": "Europe/Berlin"}
    dates["between"] = {"at": None, "due": None}
    groups = {"number": ["size"], "datetime": ["at", "due"], "category": [], "many": []}
    recipe = tree_recipe(groups, dates, HOLIDAYS) if request.param == "tree" else linear_recipe(groups, "regression", dates=dates, holidays=HOLIDAYS)
    estimator = HistGradientBoostingRegressor(max_iter=40, random_state=0) if request.param == "tree" else Ridge()
    model = Pipeline([("recipe", recipe), ("estimator", estimator)]).fit(rows, y)
    made = CompiledModel.load(compile_model(model, form, rows, target_type="continuous"))
    return request.param, form, model, made


def same(scene_, frame: pd.DataFrame) -> None:
    kind, form, model, made = scene_
    rows = conform(frame, form)
    mine, theirs = made.predict(matrix_of(rows, made.fields, made.header["vocabulary"])), model.predict(rows)
    if kind == "tree":  # no arithmetic of floats is in between: to the last bit
        assert np.array_equal(mine, theirs)
    assert np.abs(mine - theirs).max() <= 1e-9 * max(1, np.abs(theirs).max())


def test_rows_that_it_was_not_fitted_on(scene):
    same(scene, table(5000, seed=1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.one_of(st.none(), EVER, LATELY), st.one_of(st.none(), LATELY)), min_size=1, max_size=30))
def test_any_dates(scene, pairs):
    frame = pd.DataFrame(pairs, columns=["at", "due"]).astype("datetime64[us]")
    same(scene, frame.assign(size=0.5))


def test_every_hour_around_the_changes_of_clocks(scene):
    for year in (2023, 2031, 2060, 2200):
        hours = pd.date_range(f"{year}-01-01", f"{year}-12-31", freq="h", unit="us")
        same(scene, pd.DataFrame({"at": hours, "due": hours, "size": 0.0}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), LATELY), min_size=1, max_size=8), st.sampled_from(["{:%d.%m.%Y %H:%M:%S}", "{:%d.%m.%Y}", "{:%d.%m.%Y %H:%M:%S}Z"]))
def test_texts_in_a_request_and_in_a_table(scene, moments, shape):
    """A date's text is read by its column's reading; single rows, columns and the pipeline's frame give one answer."""
    _, form, model, made = scene
    texts = [None if at is None else shape.format(at) for at in moments]
    rows = RowSchema(form).check([[text, "2025-06-07", 1.0] for text in texts])
    single = made.predict(made.encode(rows))
    columns = [read_column(pa.array(values, kind), f) for values, kind, f in zip([texts, ["2025-06-07"] * len(texts), [1.0] * len(texts)], [pa.string(), pa.string(), pa.float64()], form.fields, strict=True)]
    assert np.array_equal(single, made.predict(matrix_of_columns(columns, made.codes)))
    frame = conform(pd.DataFrame(rows, columns=form.names).astype({"at": object}), form)
    assert np.allclose(single, model.predict(frame), rtol=0, atol=1e-9)


def test_the_clock_travels_with_the_model(scene, monkeypatch):
    """A model that was stored answers without the machine's time zones."""
    _, form, model, made = scene
    again = Model.load(Model.dump(model))
    monkeypatch.setattr("mlops_nb.model.calendar.ZoneInfo", None)
    rows = conform(table(200, seed=2), form)
    assert np.array_equal(again.predict(rows), model.predict(rows))


def test_a_damaged_calendar_is_refused(scene):
    """Lists that say to be longer than they are never reach the loops."""
    _, form, model, made = scene
    header, arrays = unpack(compile_model(model, form, conform(table(50), form), target_type="continuous"))
    steps = [s for s in arrays["steps"].tolist() if s[0] == 19]
    assert steps
    for step in steps:
        for place in (step[5] + 1, step[5] + 3 + 2 * int(arrays["constants"][step[5] + 1])):
            for lie in (1e9, -1.0, 0.5, math.nan, math.inf):
                broken = arrays | {"constants": arrays["constants"].copy()}
                broken["constants"][place] = lie
                with pytest.raises(MlopsError, match="refused"):
                    CompiledModel.load(pack(header, broken))


def test_parts_that_say_nothing():
    at = pd.Series(pd.date_range("2026-01-05", periods=400, freq="D"))
    found = lambda *series: set(telling_parts(pd.DataFrame({"at": pd.concat(series, ignore_index=True)}), {"at": None}))  # noqa: E731
    assert found(at) == {"month", "day", "yearday", "weekday"}
    assert found(at[:60]) == {"day", "weekday"} and found(at[:5]) == set()
    assert found(pd.Series([pd.NaT] * 9, dtype="datetime64[us]")) == set() and found(at[:1].repeat(5)) == set()
    assert found(pd.Series(pd.date_range("2020-01-01", periods=8, freq="YS"))) == {"weekday"}


FAR = pd.Series(pd.to_datetime(["0001-01-01", "9999-12-31T23:59:59", "2026-01-05T08:00", None, "1969-12-31T23:59"] * 60, format="ISO8601").astype("datetime64[us]"))
ODD = {
    "years 1 and 9999": FAR,
    "all the same": pd.Series([pd.Timestamp("2026-01-05")] * 300, dtype="datetime64[us]"),
    "none at all": pd.Series([pd.NaT] * 300, dtype="datetime64[us]"),
    "nearly none": pd.Series([pd.NaT] * 298 + [pd.Timestamp("2026-01-05"), pd.Timestamp("2026-03-05")], dtype="datetime64[us]"),
    "one day by the minute": pd.Series(pd.date_range("2026-01-05", periods=300, freq="5min", unit="us")),
}


@pytest.mark.parametrize("name", ["linear", "naive_bayes", "random_forest", "gradient_boosting"])
@pytest.mark.parametrize("odd", ODD)
def test_odd_dates_are_learnt_from_and_compiled(odd, name):
    """Whatever a column of dates holds when a model is fitted, and whatever other one comes later."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"at": ODD[odd], "size": draw.normal(size=300), "none": ODD["none at all"]})
    stated = Problem.model_validate({"name": "odd", "goal": "Learn of odd dates", "task": "binary", "target": "y", "positive": "yes", "data": {"source": "rows.csv"}, "metric": "roc_auc"})
    y = pd.Series(np.where(frame["size"] + draw.normal(size=300) > 0, "yes", "no"))
    form = learn_schema(frame.assign(y=y), stated, typed_by=frame.assign(y=y))
    rows = conform(frame, form)
    dates = telling_parts(rows, {"at": "Asia/Seoul"}, HOLIDAYS) | {"between": {"at": None, "none": None}}
    recipe = make_recipe(form, stated, dates=dates, holidays=HOLIDAYS)
    params = {"random_forest": {"n_estimators": 5}, "gradient_boosting": {"max_iter": 10}}.get(name)
    model = make_model(name, recipe, "binary", 0, params).fit(rows, y)
    others = conform(pd.DataFrame({"at": pd.concat([d[:40] for d in ODD.values()], ignore_index=True), "size": 0.25, "none": ODD["one day by the minute"][:200]}), form)
    made = CompiledModel.load(compile_model(model, form, pd.concat([others, rows], ignore_index=True), target_type="binary", positive="yes"))
    said = model.predict_proba(others)
    assert np.isfinite(said).all() and np.abs(made.predict(matrix_of(others, made.fields, made.header["vocabulary"])) - said).max() <= 1e-9


def test_zones_may_differ_from_row_to_row():
    """Texts with zones of their own are one moment each; the calendar is read by one clock."""
    form = Schema(fields=[Field(name="at", kind="datetime", nullable=True)], target="y")
    texts = ["2026-07-01T01:30:00+02:00", "2026-06-30T23:30:00Z", "2026-07-01T08:30:00+09:00"]
    assert len(set(conform(pd.DataFrame({"at": texts}), form)["at"])) == 1
    moments = [microseconds(conform(pd.DataFrame({"at": [text]}), form)["at"]) for text in texts]
    hours = [part_of(at, "hour", clock_of("Europe/Berlin"))[0] for at in moments]
    assert hours == [1, 1, 1]
