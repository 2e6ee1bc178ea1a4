"""A formula says of all rows at once what Python says of each; what is missing makes it unknown, by Kleene; all else is refused."""

import ast
import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.base.errors import MlopsError, why_refused
from mlops_nb.base.formula import Formula

NUMBERS, TEXTS, TRUTHS = ("a", "b", "c"), ("s", "t"), ("p", "q")

number = st.recursive(
    st.sampled_from(NUMBERS) | st.integers(-9, 9).map(lambda n: f"({n})") | st.sampled_from(["0.5", "2.25"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda x: f"({x[0]} {x[1]} {x[2]})"),
        inner.map(lambda x: f"abs({x})"),
        inner.map(lambda x: f"(-{x})"),
        st.tuples(inner, inner).map(lambda x: f"min({x[0]}, {x[1]})"),
        st.tuples(inner, inner).map(lambda x: f"max({x[0]}, {x[1]})"),
        inner.map(lambda x: f"round({x})"),
    ),
    max_leaves=5,
)
text = st.sampled_from(TEXTS).flatmap(lambda s: st.sampled_from([s, f"lower({s})", f"upper({s})", f"strip({s})"]))
order = st.sampled_from(["<", "<=", "==", "!=", ">=", ">"])
comparison = st.one_of(
    st.tuples(number, order, number).map(" ".join),
    st.tuples(number, order, number, order, number).map(" ".join),
    st.tuples(text, order, text).map(" ".join),
    st.tuples(text, st.sampled_from(["in", "not in"]), st.just("['Bonn', 'rome', '']")).map(" ".join),
    st.tuples(st.sampled_from(NUMBERS), st.sampled_from(["in", "not in"]), st.just("[1, -2, 3.5]")).map(" ".join),
    text.map(lambda s: f"len({s}) > 3"),
    st.sampled_from(TRUTHS),
    st.sampled_from(["p == True", "p != q"]),
)
truth = st.recursive(
    comparison.map(lambda c: f"({c})"),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda x: f"({x[0]} {x[1]} {x[2]})"),
        inner.map(lambda x: f"(not {x})"),
    ),
    max_leaves=4,
)
rows = st.lists(
    st.fixed_dictionaries(
        {n: st.integers(-20, 20) for n in ("a", "b")}
        | {"c": st.sampled_from([0.0, 0.5, -3.25, 7.0])}
        | {n: st.sampled_from(["Bonn", "rome", "", " Rome ", "SEOUL"]) for n in TEXTS}
        | {n: st.booleans() for n in TRUTHS}
    ),
    min_size=1,
    max_size=5,
)
HELPERS = {
    "lower": str.lower, "upper": str.upper, "strip": str.strip, "len": len, "abs": abs, "min": min, "max": max,
    "round": round, "isnull": lambda v: v is None, "__builtins__": {},
}  # fmt: skip


def kleene(node: ast.expr, row: dict) -> bool | None:
    """What a sentence without gaps says by Kleene's tables, each comparison as Python has it; None where that divides by zero."""
    match node:
        case ast.BoolOp(op, values):
            said, decides = [kleene(value, row) for value in values], isinstance(op, ast.Or)
            return decides if decides in said else None if None in said else not decides
        case ast.UnaryOp(ast.Not(), inner):
            return None if (said := kleene(inner, row)) is None else not said
        case ast.Compare(left, [_, _, *_] as ops, comparators):
            pairs = zip([left, *comparators], ops, comparators, strict=False)
            return kleene(ast.BoolOp(ast.And(), [ast.Compare(one, [op], [other]) for one, op, other in pairs]), row)
    try:
        return bool(eval(ast.unparse(node), HELPERS, dict(row)))  # noqa: S307 - sentences that this test made
    except ZeroDivisionError:
        return None


def frame_of(said: list[dict]) -> pd.DataFrame:
    """Rows as a table."""
    return pd.DataFrame(said)


@settings(max_examples=400, deadline=None)
@given(truth, rows)
def test_it_says_what_python_says(sentence, said):
    try:
        formula = Formula.read(sentence)
    except MlopsError as error:
        assert "names no column" in str(error) or "too many pieces" in str(error)
        return
    answer = formula.answer(frame_of(said))
    for k, row in enumerate(said):
        right = kleene(ast.parse(sentence, mode="eval").body, row)
        said_here = None if answer.holds[k] is pd.NA else bool(answer.holds[k])
        assert (said_here, bool(answer.undefined[k])) == (right, right is None), (sentence, row)


@settings(max_examples=200, deadline=None)
@given(truth, rows, st.data())
def test_what_is_said_of_rows_with_gaps_holds_whatever_stands_there(sentence, said, data):
    try:
        formula = Formula.read(sentence)
    except MlopsError:
        return
    gap = data.draw(st.sampled_from([n for n in formula.names]))
    gaps = frame_of(said)
    gaps[gap] = gaps[gap].astype("boolean" if gap in TRUTHS else "object" if gap in TEXTS else float)
    gaps.loc[0, gap] = None
    told = formula.answer(gaps).holds[0]
    if told is pd.NA:
        return
    could = {"a": range(-20, 21, 4), "b": range(-20, 21, 4), "c": [0.0, 0.5, -3.25, 7.0], "p": [True, False], "q": [True, False]}
    for value in could.get(gap, ["Bonn", "rome", "", " Rome ", "SEOUL"]):
        answer = formula.answer(frame_of([said[0] | {gap: value}]))
        assert answer.holds[0] is pd.NA or bool(answer.holds[0]) == bool(told), (sentence, value)


@pytest.mark.parametrize(("left", "right"), list(product(["true", "false", "unknown"], repeat=2)))
def test_kleenes_tables(left, right):
    value = {"true": True, "false": False, "unknown": None}
    frame = pd.DataFrame({"p": pd.array([value[left]], "boolean"), "q": pd.array([value[right]], "boolean")})
    both = [Formula.read(f"p {op} q").answer(frame).holds[0] for op in ("and", "or")]
    order = {"false": 0, "unknown": 1, "true": 2}
    words = {0: False, 1: pd.NA, 2: True}
    for got, want in zip(both, (words[min(order[left], order[right])], words[max(order[left], order[right])]), strict=True):
        assert got is want if want is pd.NA else bool(got) == want


ATTACKS = [
    "__import__('os').system('true')", "().__class__.__bases__[0]", "a.__class__", "a['b']", "[x for x in a]", "lambda: a", "f'{a}'", "a if b else c",
    "(a := 3) > 2", "exec('a')", "eval('a')", "open('/etc/passwd')", "getattr(a, 'b')", "a @ b", "a ** b > 1", "a << b", "a & b", "a | b", "~a", "await a",
    "a is None", "a in b", "a in [b]", "a in []", "{'a': 1}", "{a}", "*a", "print(a)", "abs(a, b)", "abs(x=a)", "abs(*a)", "min(a)", "col(a)", "col('a', 'b')",
    "col", "a == b'x'", "a == 1j", "a == ...", "a == None", "yield a", "a; b", "a = 1", "import os", "1 < 2", "True", "'x'", "", "a >", "(" * 300 + "a" + ")" * 300,
    "a == 1e999", "a == '" + "x" * 2000 + "'", " or ".join(["a"] * 300), "a\x00 > 1", "year(a, b)", "lower()", "isnull(a)(b)", "len(a).real > 1",
]  # fmt: skip


@pytest.mark.parametrize("sentence", ATTACKS)
def test_all_else_is_refused(sentence):
    if sentence == "col":
        assert Formula.read("col > 1").names == ("col",), "a column may be called so"
        return
    said = why_refused(Formula.read, sentence)
    assert len(said) < 1_500 and said.startswith("check `")


def test_the_piece_is_named():
    assert "`a.__class__` can't stand there" in why_refused(Formula.read, "b > 1 and a.__class__ == 3")
    assert "use isnull(column)" in why_refused(Formula.read, "a is None") and "say and" in why_refused(Formula.read, "(a > 1) & (b > 1)")
    assert "did you mean 'lower'?" in why_refused(Formula.read, "lowr(a) == 'x'") and "==" in why_refused(Formula.read, "a = 3")


def test_nothing_of_a_formula_is_run_as_python():
    import mlops_nb.base.formula as module

    tree = ast.parse(open(module.__file__, encoding="utf-8").read())
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("s > 3", "a text can't be compared with a number"), ("a == 'x'", "a number can't be compared with a text"), ("a", "is a number and no truth"),
        ("s + 1 > 3", "is a text, expected a number"), ("year(a) > 3", "is a number, expected a time"), ("d > 'soon'", "is no time"),
        ("d + d > 3", "expected a number"), ("a in ['x']", "can't be 'x'"), ("p > 1", "a truth can't be compared"), ("not s", "no truth"),
    ],
)  # fmt: skip
def test_kinds_that_don_t_fit_are_sentences(sentence, said):
    frame = pd.DataFrame({"a": [1], "s": ["x"], "p": [True], "d": pd.to_datetime(["2026-01-01"])})
    assert said in why_refused(Formula.read(sentence).answer, frame)


def test_times():
    frame = pd.DataFrame({"d": pd.to_datetime(["2026-01-31 10:00", None]), "e": pd.to_datetime(["2026-02-02 10:00", "2026-02-02 00:00"])})
    zoned = frame.assign(d=frame["d"].dt.tz_localize("UTC"))
    for rows_ in (frame, zoned):
        for sentence in ("e - d == 2", "d < e", "year(d) == 2026", "month(d) == 1", "day(d) == 31", "hour(d) == 10", "weekday(d) == 5", "d >= '2026-01-31'", "d < '2026-02-01T00:00+00:00'"):
            assert Formula.read(sentence).answer(rows_).holds.tolist() == [True, pd.NA], sentence


def test_infinite_and_empty_columns():
    frame = pd.DataFrame({"x": [math.inf, 1.0, np.nan], "y": [math.inf, 0.0, 1.0], "n": [None, None, None]})
    answer = Formula.read("x - y >= 0").answer(frame)
    assert answer.holds.tolist() == [pd.NA, True, pd.NA] and answer.undefined.tolist() == [True, False, False]
    assert Formula.read("x > 1e200").answer(frame).holds.tolist() == [True, False, pd.NA]
    for sentence in ("n > 3", "n == 'a'", "lower(n) == 'a'", "len(n) > 1", "year(n) > 1", "n in ['a']", "n + 1 > x", "n"):
        assert set(Formula.read(sentence).answer(frame).holds.tolist()) == {pd.NA}, sentence
    assert Formula.read("isnull(n)").answer(frame).holds.tolist() == [True] * 3 and len(Formula.read("x > 1").answer(frame.head(0)).holds) == 0


def test_large_whole_numbers_are_not_rounded():
    frame = pd.DataFrame({"x": [2**53 + 1, 2**53], "y": [2**53, 2**53]})
    assert Formula.read("x == y").answer(frame).holds.tolist() == [False, True]


@pytest.mark.parametrize("word", ["now", "today", "", "NaT", "T", "1", "99999999999999999999"])
def test_a_written_time_is_the_same_in_every_run(word):
    times = pd.DataFrame({"s": pd.to_datetime(["2026-01-01"])})
    assert f"'{word}' is no time" in why_refused(Formula.read(f"s < '{word}'").answer, times)
    assert f"'{word}' is no time" in why_refused(Formula.read(f"s in ['2026-01-01', '{word}']").answer, times)


def test_times_are_found_among_written_ones():
    times = pd.DataFrame({"s": pd.to_datetime(["2026-01-01", "2026-02-01", None])})
    for sentence, same in (("s in ['2026-01-01', '2026-03-01']", "s == '2026-01-01'"), ("s not in ['2026-01-01']", "s != '2026-01-01'")):
        assert Formula.read(sentence).answer(times).holds.tolist() == Formula.read(same).answer(times).holds.tolist()
    assert "can't be 3" in why_refused(Formula.read("s in ['2026-01-01', 3]").answer, times)
