"""A change that is said to break nobody breaks nobody: rows that one version takes, the other takes, too, and reads alike."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.base.charter import Rule
from mlops_nb.model.rows import Refused, RowSchema
from mlops_nb.model.schema import Field, Schema
from mlops_nb.model.schema_changes import Asks, breaking_line, schema_changes

names = st.sampled_from(["age", "pay", "city", "ok", "day"])
VALUES = {
    "number": [0.0, -3.5, 17.0, 18.0, 50.25, 1e6], "integer": [-1, 0, 17, 18, 50, 99], "category": ["a", "b", "zz", ""],
    "boolean": [True, False], "datetime": ["2026-01-31T10:00", "1999-01-01"], "text": ["so it is", "a"],
}  # fmt: skip


@st.composite
def fields(draw, name):
    kind = draw(st.sampled_from(list(VALUES)))
    known = {"number": (0.0, 50.0), "integer": (0, 50), "datetime": ("2020-01-01", "2026-01-01")}.get(kind)
    low = {"min": known[0], "max": draw(st.sampled_from([known[1], known[1]]))} if known else {}
    told = {"categories": draw(st.sampled_from([["a"], ["a", "b"], ["b", "zz"]]))} if kind == "category" else {}
    return Field(name=name, kind=kind, nullable=draw(st.booleans()), **low, **told)


@st.composite
def asks(draw):
    chosen = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    form = Schema(fields=[draw(fields(n)) for n in sorted(chosen)], target="y", classes=["no", "yes"])
    rules = {}
    for f in form.fields:
        if f.kind in ("number", "integer"):
            rules[f.name] = draw(st.sampled_from([Rule(), Rule(min=0), Rule(min=18, max=99), Rule(max=50)]))
        elif f.kind == "category":
            rules[f.name] = draw(st.sampled_from([Rule(), Rule(allowed=["a", "b"]), Rule(allowed=["a"])]))
    return Asks(form, rules)


@st.composite
def rows_of(draw, one):
    return {f.name: draw(st.sampled_from(VALUES[f.kind] + [None] * f.nullable)) for f in one.form.fields}


def taken(one: Asks, row: dict) -> bool:
    """Whether a service with this version answers the row."""
    try:
        RowSchema(one.form, one.rules).named([row])
    except Refused:
        return False
    return True


@settings(max_examples=400, deadline=None)
@given(asks(), asks(), st.data())
def test_what_breaks_nobody_is_taken(before, after, data):
    changes = schema_changes(before, after)
    row = data.draw(rows_of(before))
    if taken(before, row) and not any(c.breaks for c in changes):
        assert taken(after, row), (row, changes)


@settings(max_examples=400, deadline=None)
@given(asks(), asks(), st.data())
def test_what_is_refused_was_told(before, after, data):
    row = data.draw(rows_of(before))
    if taken(before, row) and not taken(after, row):
        told = schema_changes(before, after)
        assert any(c.effect == "refused" for c in told) and breaking_line(told)


@settings(max_examples=50, deadline=None)
@given(asks())
def test_the_same_changes_nothing(one):
    assert schema_changes(one, one) == []


def test_columns_that_come_and_go_break_every_row():
    one = Asks(Schema(fields=[Field(name="age", kind="number", nullable=True)], target="y"), {})
    more = Asks(Schema(fields=[*one.form.fields, Field(name="pay", kind="number", nullable=True)], target="y"), {})
    for before, after in ((one, more), (more, one)):
        row = {f.name: 1.0 for f in before.form.fields}
        assert taken(before, row) and not taken(after, row) and [c.column for c in schema_changes(before, after) if c.breaks] == ["pay"]


def test_another_question_is_read_otherwise():
    field = Field(name="age", kind="number", nullable=True)
    told = schema_changes(Asks(Schema(fields=[field], target="y", classes=["a", "b"]), {}), Asks(Schema(fields=[field], target="z", classes=["a", "c"]), {}))
    assert [c.effect for c in told] == ["read otherwise"] * 2


def test_another_unit_is_read_otherwise_and_said_at_the_door():
    inch, cm, none = (Schema(fields=[Field(name="height", kind="number", nullable=True, unit=u)], target="y") for u in ("inch", "cm", None))
    for old, new in ((inch, cm), (none, cm), (cm, none)):
        (change,) = schema_changes(Asks(old, {}), Asks(new, {}))
        assert change.breaks and change.change == "another unit" and breaking_line([change]) == "height: another unit"
    assert schema_changes(Asks(cm, {}), Asks(cm, {})) == []
    (column,) = RowSchema(cm).columns
    assert column.expected == "a number in cm, or null" and column.facts["unit"] == "cm" and "unit" not in none.model_dump_json()


def test_the_unit_of_a_field_is_the_charters():
    import pandas as pd

    from mlops_nb.model.census import census_problem
    from mlops_nb.model.conform import learn_schema

    units = {"units": {"height": {"from": "inch", "to": "cm"}}}
    problem = census_problem(validation=units, weight=None, exclude={}, sensitive=[], fairness=[], rules={}).without_texts()
    rows = pd.DataFrame({"height": [170.5, 160.2], "age": [3.5, 4.5], "income": ["<=50K", ">50K"]})
    assert [f.unit for f in learn_schema(rows, problem).fields] == ["cm", None]


def test_nobody_says_the_same_where_a_version_tells_nothing(monkeypatch):
    from types import SimpleNamespace

    from mlops_nb.registry import promotion

    monkeypatch.setattr(promotion, "read_evidence", lambda uri, version: SimpleNamespace(shape=None))
    one, other = (SimpleNamespace(name="m", version=v) for v in ("1", "2"))
    assert promotion.asked_otherwise("x", other, one) is None
