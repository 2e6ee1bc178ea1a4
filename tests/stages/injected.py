"""Faults that are put into clean rows, one kind each: rows, what a charter says of them, and what has to be found.

Each is made from `clean()`, forty visits without a fault. `found` names (row, column, check): the row's position, or None
where the whole table is meant; the column, or "" where several are meant together; and the check by the name that it has
in `base.validation` (type, finite, required, range, allowed, spelling, copies, key, near, checks, units, zones; missing,
classes, freshness, volume). Nothing else may be found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

TARGET = "again"  # does a visitor come again: yes or no


class Fault(NamedTuple):
    """One kind of fault."""

    name: str
    rows: pd.DataFrame
    rules: dict[str, dict[str, Any]]  # the charter's `rules`, by column
    validation: dict[str, Any]  # the charter's `validation`
    found: set[tuple[int | None, str, str]]


def clean() -> pd.DataFrame:
    """Forty visits."""
    rng = np.random.default_rng(7)
    n = 40
    start = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n) * 13, unit="h")
    return pd.DataFrame(
        {
            "visit": [f"v{i:03}" for i in range(n)],
            "age": rng.integers(18, 80, n).astype(float),
            "sex": np.where(np.arange(n) % 2 == 0, "Female", "Male"),
            "city": rng.choice(["Bonn", "Rome", "Seoul"], n),
            "height": rng.normal(170, 8, n).round(2),
            "paid": rng.gamma(3, 20, n).round(2),
            "nights": rng.integers(1, 9, n),
            "start": start,
            "end": start + pd.to_timedelta(rng.integers(1, 9, n), unit="D"),
            TARGET: np.where(rng.random(n) < 0.4, "yes", "no"),
        }
    )


def put(row: int | list[int], column: str, value: Any) -> pd.DataFrame:
    """The clean rows with another value in some."""
    rows = clean()
    if isinstance(value, str) and rows[column].dtype.kind in "fiM":
        rows[column] = rows[column].astype("str" if rows[column].dtype.kind == "M" else object)
    elif isinstance(value, float) and rows[column].dtype.kind == "i":
        rows[column] = rows[column].astype(float)
    rows.loc[row, column] = value
    return rows


def again(row: int, **changed: Any) -> pd.DataFrame:
    """The clean rows, and one of them once more at the end, with changes."""
    rows = clean()
    return pd.concat([rows, rows.iloc[[row]].assign(**changed)], ignore_index=True)


def rowwise(name: str, rows: pd.DataFrame, column: str, check: str, at: int | list[int], rules: dict | None = None, **validation: Any) -> Fault:
    """A fault of some rows."""
    found: set[tuple[int | None, str, str]] = {(i, column, check) for i in ([at] if isinstance(at, int) else at)}
    return Fault(name, rows, rules or {}, validation, found)


def whole(name: str, rows: pd.DataFrame, column: str, check: str, **validation: Any) -> Fault:
    """A fault of the whole table; it only warns, so that what is found can be looked at."""
    severity = {check: "warn", **validation.pop("severity", {})}
    return Fault(name, rows, {}, {**validation, "severity": severity}, {(None, column, check)})


def between(name: str, rows: pd.DataFrame, check: str, at: int | list[int]) -> Fault:
    """A sentence about several columns that is false for some rows."""
    return rowwise(name, rows, "", "checks", at, checks=[check])


def _zones(named: list[int]) -> pd.DataFrame:
    """Times as texts, some of which name their zone."""
    rows = clean()
    texts = rows["start"].dt.strftime("%Y-%m-%dT%H:%M")
    return rows.assign(start=texts.where(~texts.index.isin(named), texts + "+09:00"))


def _units(**at: str) -> pd.DataFrame:
    """The clean rows with a column that names each height's unit."""
    units = pd.Series("cm", index=range(40))
    for row, unit in at.items():
        units[int(row[1:])] = unit
    return clean().assign(unit=units)


def _of(column: str, how: Callable[[pd.Series], Any]) -> pd.DataFrame:
    """The clean rows with one column changed as a whole."""
    rows = clean()
    return rows.assign(**{column: how(rows[column])})


FAULTS: list[Fault] = [
    # values of one column
    rowwise("below the least", put(3, "age", 12.0), "age", "range", 3, {"age": {"min": 18}}),
    rowwise("above the most", put(4, "age", 131.0), "age", "range", 4, {"age": {"max": 120}}),
    rowwise("below, in whole numbers", put(5, "nights", -1), "nights", "range", 5, {"nights": {"min": 0}}),
    rowwise("above, in several rows", put([6, 30], "height", 1700.0), "height", "range", [6, 30], {"height": {"min": 100, "max": 230}}),
    rowwise("not among the allowed", put(7, "city", "Atlantis"), "city", "allowed", 7, {"city": {"allowed": ["Bonn", "Rome", "Seoul"]}}),
    rowwise("another case than allowed", put(8, "sex", "female"), "sex", "allowed", 8, {"sex": {"allowed": ["Female", "Male"]}}),
    rowwise("a number that is not allowed", put(9, "nights", 99), "nights", "allowed", 9, {"nights": {"allowed": list(range(1, 9))}}),
    rowwise("missing though required", put(10, "age", np.nan), "age", "required", 10, {"age": {"required": True}}),
    rowwise("a text missing though required", put(11, "city", None), "city", "required", 11, {"city": {"required": True}}),
    rowwise("a time missing though required", put(12, "end", pd.NaT), "end", "required", 12, {"end": {"required": True}}),
    rowwise("no target", put(13, TARGET, None), TARGET, "required", 13),
    rowwise("infinite", put(14, "paid", np.inf), "paid", "finite", 14),
    rowwise("infinite below", put(15, "height", -np.inf), "height", "finite", 15),
    rowwise("a word among numbers", put(16, "age", "fifty"), "age", "type", 16, {"age": {"min": 0}}),
    rowwise("a word among numbers without a rule", put(17, "paid", "n.a."), "paid", "type", 17),
    rowwise("another spelling by case", put(18, "city", "BONN"), "city", "spelling", 18),
    rowwise("another spelling by a blank", put(19, "sex", "Male "), "sex", "spelling", 19),
    rowwise("another spelling of the target", put(20, TARGET, "Yes."), TARGET, "spelling", 20),
    # rows that are there twice
    rowwise("an exact copy", again(2), "", "copies", 40),
    rowwise("two exact copies", pd.concat([again(2), clean().iloc[[5]]], ignore_index=True), "", "copies", [40, 41]),
    rowwise("a key twice", again(3, age=44.0), "visit", "key", 40, key="visit"),
    rowwise("a key of two columns twice", again(3, age=44.0, paid=1.0), "visit, city", "key", 40, key=["visit", "city"]),
    rowwise("a copy but for the last digits", again(6, height=clean()["height"][6] + 1e-9), "", "near", 40, severity={"near": "quarantine"}),
    Fault("a copy in other letters", again(4, visit=" V004"), {}, {"severity": {"near": "quarantine"}}, {(40, "", "near"), (4, "visit", "spelling")}),
    # sentences about several columns
    between("ends before it starts", put(21, "end", pd.Timestamp("2025-12-01")), "end >= start", 21),
    between("more nights than days", put(22, "nights", 200), "nights <= end - start + 60", 22),
    between("neither of two", put(23, "age", 12.0), "age >= 18 or sex == 'nobody'", 23),
    between("both at once", put(24, "nights", 0), "not (nights == 0 and paid > 0)", 24),
    between("paid less than a night costs", put(25, "paid", 0.0), "paid / nights > 0.01", 25),
    between("divided by zero", put(26, "nights", 0), "paid / nights > 0.01", 26),
    between("a word that is too short", put(27, "city", "x"), "len(city) >= 2", 27),
    between("before its year", put(28, "start", pd.Timestamp("1926-01-01")), "year(start) >= 2000", 28),
    between("none of a list", put(29, "city", "Atlantis"), "lower(city) in ['bonn', 'rome', 'seoul']", 29),
    between("known of one and not of the other", put(31, "end", pd.NaT), "isnull(end) == isnull(start)", 31),
    # units and clocks
    rowwise("a unit that nobody knows", _units(r5="cubit_of_noah"), "height", "units", 5, units={"height": {"column": "unit", "to": "cm"}}),
    rowwise("a unit of something else", _units(r6="kg"), "height", "units", 6, units={"height": {"column": "unit", "to": "cm"}}),
    rowwise("no unit", _units(r7=None), "height", "units", 7, units={"height": {"column": "unit", "to": "cm"}}),
    rowwise("converted, and then too tall", _units(r8="m"), "height", "range", 8, {"height": {"max": 300}}, units={"height": {"column": "unit", "to": "cm"}}),
    rowwise("some times name a zone", _zones([3, 9]), "start", "zones", [3, 9]),
    # the whole table
    whole("too much is missing", put(list(range(12)), "age", np.nan), "age", "missing", missing={"age": 0.2}),
    whole("a text is missing too often", put(list(range(4)), "city", None), "city", "missing", missing={"city": {"max": 0.05}}),
    whole("too few of a class", _of(TARGET, lambda y: np.where(np.arange(40) < 2, "yes", "no")), TARGET, "classes", classes={"min": 0.1}),
    whole("too old", clean(), "start", "freshness", freshness={"column": "start", "since": "2027-01-01"}),
    whole("too few rows", clean(), "", "volume", volume={"min": 1000}),
    whole("too many rows", clean(), "", "volume", volume={"max": 10}),
]
