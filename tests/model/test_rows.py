"""The row schema reads what `model.conform.conform` reads: the same values, the same refusals, whichever way a row comes."""

import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_nb.base.charter import Rule
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.rows import RowSchema, Refused
from mlops_nb.model.conform import conform
from mlops_nb.model.schema import Field, Schema

KINDS = ("number", "integer", "boolean", "category", "datetime")
RULES = {"number": Rule(min=-5.5, max=1e6), "integer": Rule(min=0, max=120), "category": Rule(allowed=["a", "b", "7", "True"])}
TIMES = ["2026-01-31", "2026-01-31T12:00", "2026-01-31 12:00:01.25", "2026-01-31T12:00:00+02:00", "2026-01-31T12:00:00Z", "soon", "", "2026-13-01"]
WORDS = st.sampled_from(["a", "b", "7", "39", " 39 ", "4.5", "1e3", "-.5", "5.", "inf", "nan", "NaN", "", "true", " False", "1_000", "0x10", "１２", "1e400", "1e-400", "é\u0000", "None"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-130, 130), st.integers(-(2**63) + 1000, 2**63 - 1000), st.floats(-9e18, 9e18), WORDS, st.text(max_size=4), st.just([1]), st.just({"a": 1}))


def form(kind: str, nullable: bool) -> Schema:
    """A schema of one field."""
    return Schema(fields=[Field(name="x", kind=kind, nullable=nullable)], target="y")


def row_schema(kind: str, nullable: bool = True, rules: dict[str, Rule] | None = None) -> RowSchema:
    return RowSchema(form(kind, nullable), rules)


def equal(mine: object, theirs: object) -> bool:
    """Whether the row schema's value is conform's."""
    if mine is None:
        return pd.isna(theirs)
    if isinstance(theirs, pd.Timestamp):
        return pd.Timestamp(mine).tz_convert("UTC").tz_localize(None) == theirs if pd.Timestamp(mine).tzinfo else pd.Timestamp(mine) == theirs
    return mine == theirs or (isinstance(mine, float) and math.isclose(mine, theirs, rel_tol=1e-15))


def conformed(value: object, kind: str, nullable: bool) -> tuple[bool, object]:
    """What conform makes of one value."""
    try:
        return True, conform(pd.DataFrame([{"x": value}], columns=["x"]), form(kind, nullable)).x.iloc[0]
    except (MlopsError, OverflowError):
        return False, None


@given(st.sampled_from(KINDS[:4]), st.booleans(), VALUES)
def test_a_value_is_read_as_conform_reads_it(kind, nullable, value):
    good, theirs = conformed(value, kind, nullable)
    try:
        ((mine,),) = row_schema(kind, nullable).check([[value]])
    except Refused:
        assert not good
    else:
        assert good and equal(mine, theirs)


@pytest.mark.parametrize("value", TIMES)
def test_a_time_is_read_as_conform_reads_it(value):
    good, theirs = conformed(value, "datetime", True)
    try:
        ((mine,),) = row_schema("datetime").check([[value]])
    except Refused:
        assert not good
    else:
        assert good and equal(mine, theirs)


@given(st.sampled_from(KINDS), st.booleans(), st.one_of(VALUES, st.sampled_from(TIMES)), st.booleans())
def test_both_ways_of_reading_agree(kind, nullable, value, ruled):
    one = row_schema(kind, nullable, {"x": RULES.get(kind, Rule())} if ruled else None)
    try:
        expected = one.check([[value]])
    except Refused as refusal:
        with pytest.raises(Refused) as caught:
            one.read(json.dumps({"rows": [{"x": value}]}).encode())
        assert str(caught.value) == str(refusal) and caught.value.facts == refusal.facts
    else:
        assert one.read(json.dumps({"rows": [{"x": value}]}).encode()).rows == expected
        assert json.loads(one.dump(expected[0])) == {"x": expected[0][0]}


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_whatever_comes_is_rows_or_a_refusal(body):
    for wrapped in (body, b'{"rows":[{"x":' + body + b"}]}"):
        try:
            asked = row_schema("number").read(wrapped)
        except Refused as refusal:
            assert refusal.status in (400, 413, 422)
        else:
            assert all(row[0] is None or math.isfinite(row[0]) for row in asked.rows)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"rows": [{"x": 1, "x": 2}]}', 422, "twice"),
        (b'{"rows" : [{"x": 1, "x" : 2}]}', 422, "twice"),
        (b'{"rows": [{"x": 1}], "rows": [{"x": 2}]}', 422, "twice"),
        (b'{"rows": [{"x": NaN}]}', 400, "isn't JSON"),
        (b'{"rows": [{"x": 1e999}]}', 400, "isn't JSON"),
        (b'{"rows": [{"x": ' + b"9" * 400 + b"}]}", 422, "expected a number"),
        (b"[" * 200_000, 400, "nested"),
        (b'{"rows": [{"x": "\xff"}]}', 400, "isn't JSON"),
        (b'{"rows": [{"x": "\\ud800"}]}', 400, "isn't JSON"),
        (b'{"rows": [{"x": 1}], "subjects": []}', 422, "0 subjects for 1 rows"),
        (b'{"rows": [{"x": 1}], "subjects": [7]}', 422, "subjects must be"),
        (b'{"row": [{"x": 1}], "rows": []}', 422, "did you mean 'rows'"),
        (b'{"rows": [{"y": 1}]}', 422, "unknown field 'y'"),
        (b'{"rows": [{}]}', 422, "'x' is not given"),
        (json.dumps({"rows": [{"x": 1}] * 1001}).encode(), 413, "at most 1,000"),
    ],
)  # fmt: skip
def test_refusals(body, status, said):
    with pytest.raises(Refused, match=said) as caught:
        row_schema("number").read(body)
    assert caught.value.status == status
    json.dumps(caught.value.facts)


def test_a_colon_or_an_odd_name_is_no_duplicate():
    shape = Schema(fields=[Field(name=name, kind="category", nullable=True) for name in ("a:b c", "class")], target="y")
    row = {'a:b c': '":', "class": "x: y"}
    assert RowSchema(shape).read(json.dumps({"rows": [row]}).encode()).rows == [tuple(row.values())]
    for name in ('a"b', "a\\b", "a\nb", "a$b %s {x}"):
        odd = RowSchema(Schema(fields=[Field(name=name, kind="category", nullable=True)], target="y"))
        (taken,) = odd.read(json.dumps({"rows": [{name: "x: y"}]}).encode()).rows
        assert taken == ("x: y",) and json.loads(odd.dump(taken)) == {name: "x: y"}
        with pytest.raises(Refused, match="given twice"):
            odd.read(f'{{"rows": [{{{json.dumps(name)}: "x", {json.dumps(name)}: "y"}}]}}'.encode())


def test_rules_refuse_and_what_is_unseen_is_flagged():
    fields = [Field(name="n", kind="number", nullable=True, min=0.0, max=9.0), Field(name="c", kind="category", nullable=True, categories=["a", "b"])]
    one = RowSchema(Schema(fields=fields, target="y"), {"n": Rule(max=20), "c": Rule(allowed=["a", "b", "z"])})
    (row,) = one.check([[12, "z"]])
    assert [f.kind for f in one.flags(row)] == ["range", "unseen"]
    for bad in ([21, "a"], [1, "y"]):
        with pytest.raises(Refused) as caught:
            one.check([bad])
        assert caught.value.status == 422 and caught.value.facts["row"] == 0


@pytest.mark.parametrize("deep", [10, 500, 900, 960, 975, 985, 1000, 5000])
def test_a_key_given_twice_however_deep_the_first_one_is(deep):
    nested = b"[" * deep + b"]" * deep
    with pytest.raises(Refused, match="given twice|nested too deeply"):
        row_schema("category").read(b'{"rows":[{"x":' + nested + b',"x":"a"}]}')
