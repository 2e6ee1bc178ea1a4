"""Rows that are divided where they lie, a column and a batch at a time, are divided as the whole table is: byte by byte."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.base import rows as rows_module
from mlops_nb.base.artifacts import Json, Table
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.rows import NotPlain, Rows
from mlops_nb.model.census import census_problem
from mlops_nb.model.conform import learn_schema, with_types
from mlops_nb.model.entities import entity_codes
from mlops_nb.model.leaks import split_leaks
from mlops_nb.stages.split import PARTS, split_rows, summary, unusual

WAYS = [
    {}, {"strategy": "hash"}, {"strategy": "stratified"}, {"group": "shop"}, {"group": "shop", "seed": 3},
    {"time": "day", "twins": "keep"}, {"time": "day"}, {"time": "day", "test_from": "2026-02-20", "valid_from": "2026-02-10", "twins": "keep"},
]  # fmt: skip


def problem(classes: bool, **more):
    facts = {"rules": {"paid": {"required": True}}, "weight": None, "exclude": {}, "sensitive": [], "fairness": []} | more
    task = {"target": "bought", "positive": "yes"} if classes else {"target": "paid", "task": "regression", "positive": None, "metric": "mae", "decision": None}
    return census_problem(**facts, **task)


def visits(seed: int, n: int, gaps: bool, twins: float) -> pd.DataFrame:
    """Numbers, words, truths and days; some rows are there twice under another id, and some ids twice."""
    chance = np.random.default_rng(seed)
    made = pd.DataFrame({
        "who": chance.integers(0, n, n), "paid": chance.normal(size=n).round(3), "nights": chance.integers(0, 9, n), "score": chance.standard_t(3, n),
        "shop": chance.choice([f"s{k}" for k in range(n // 4 + 1)], n), "city": chance.choice(["Lyon", "lyon ", "Bonn"], n), "member": chance.choice([True, False], n),
        "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(chance.integers(0, 60, n), unit="D"),
    })  # fmt: skip
    made["bought"] = np.where(chance.random(n) < 1 / (1 + np.exp(-made["paid"])), "yes", "no")
    if gaps:
        made = made.assign(nights=made["nights"].astype(float), member=made["member"].astype(object))
        made[["nights", "shop", "city", "member"]] = made[["nights", "shop", "city", "member"]].mask(chance.random((n, 4)) < 0.1)
    again = chance.choice(n, int(twins * n), replace=False)
    return pd.concat([made, made.iloc[again].assign(who=lambda t: t["who"] + n)], ignore_index=True)


@contextmanager
def lying(frame: pd.DataFrame, batch: int) -> Iterator[tuple[Path, pd.DataFrame, Rows]]:
    """The table as the store has it, whole and where it lies, in batches of so many rows."""
    form, size = Table.form, rows_module.GROUP
    with tempfile.TemporaryDirectory() as folder:
        try:
            Table.form, rows_module.GROUP = form | {"row_group_size": batch}, batch
            file = Path(folder, "rows.parquet")
            file.write_bytes(Table.dump(frame))
            yield Path(folder), Table.load(file.read_bytes()), Rows(file)
        finally:
            Table.form, rows_module.GROUP = form, size


def outcome(rows, about, way: dict, folder: Path) -> dict:
    """All that the stage writes."""
    try:
        parts = split_rows(rows, about, **way)
        learnt = learn_schema(parts.train, about, typed_by=rows)
        typed = {name: with_types(getattr(parts, name), learnt) for name in PARTS}
    except MlopsError as refused:
        return {"refused": str(refused)}
    said = {}
    for name, table in typed.items():
        if isinstance(table, Rows):
            Table.stream(table.batches(), table.schema, folder / name)
        said[name] = (folder / name).read_bytes() if isinstance(table, Rows) else Table.dump(table)
    parts = parts._replace(**typed)
    found, things = unusual(typed, about, ["iqr", "robust_z", "isolation_forest"]), tuple(entity_codes(parts.entities, name) for name in ("train", "test"))
    looked = split_leaks(tuple(typed.values()), about, things, way.get("time"))
    told = (parts.strategy, parts.gap, parts.twins, parts.rules, parts.chance, looked.rules, looked.notes, found.counts, found.fences)
    return said | {"schema": Json.dump(learnt), "entities": Table.dump(parts.entities), "flags": Table.dump(found.flags), "told": told, "summary": summary(parts, about).to_csv()}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 9999), st.sampled_from([3, 40, 250]), st.booleans(), st.sampled_from([0, 0.02, 0.3]), st.sampled_from([7, 64]), st.sampled_from(WAYS), st.booleans(), st.booleans())
def test_as_the_whole_table_is_divided(seed, n, gaps, twins, batch, way, classes, named):
    about = problem(classes, id="who" if named else None)
    frame = visits(seed, n, gaps, twins)
    try:
        with lying(frame, batch) as (folder, whole, rows):
            one, other = outcome(rows, about, way, folder), outcome(whole, about, way, folder)
    except NotPlain:  # a column of truths without any, of three rows: it is read whole
        assert n == 3
        return
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == other[name], name


@pytest.mark.parametrize("way", [{"strategy": "hash"}, {"strategy": "stratified"}, {"group": "shop"}, {"time": "day", "twins": "keep"}], ids=lambda w: next(iter(w.values())))
def test_what_belongs_together_stays_together(way: dict):
    """In batches of seven: no row is lost, and none of one thing, group or day is on two sides."""
    frame, about = visits(5, 400, False, 0.3), problem(True, id=None)
    with lying(frame, 7) as (_, whole, rows):
        parts = split_rows(rows, about, **way)
        pieces = {name: getattr(parts, name)[list(whole.columns)] for name in PARTS}
    together = pd.concat([piece.assign(part=name) for name, piece in pieces.items()], ignore_index=True)
    assert sorted(map(str, together[list(whole.columns)].itertuples(index=False))) == sorted(map(str, whole.itertuples(index=False)))
    by = [c for c in whole.columns if c != "bought"] if "strategy" in way else [next(iter(way.values()))]
    assert together.groupby(by)["part"].nunique().max() == 1 and parts.twins == 0


def test_an_error_says_which_row_of_all():
    """A value in the last batch that no model reads, named by its place in the part."""
    frame, about = visits(1, 100, False, 0), problem(True, id=None)
    frame.loc[97, "score"] = np.inf
    with lying(frame, 7) as (folder, whole, rows):
        one, other = outcome(rows, about, {}, folder), outcome(whole, about, {}, folder)
        part = next(p for p in (getattr(split_rows(whole, about), name) for name in PARTS) if np.isinf(p["score"]).any())
    assert one == other and f"row {np.flatnonzero(np.isinf(part['score']))[0]}, field 'score': inf" in one["refused"]
