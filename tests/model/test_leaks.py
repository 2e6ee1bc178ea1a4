"""Leaks are found where they were made, and nowhere else."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.stats.apart import far_from, later_dates, told_apart
from mlops_nb.model.leaks import target_leaks


def clean(seed: int, n: int = 0) -> tuple[pd.DataFrame, pd.Series, bool]:
    """A table as people have them, honest columns only: features, target, whether it is classes."""
    draw = np.random.default_rng(seed)
    n = n or int(draw.choice([200, 500, 1500, 4000]))
    hidden = draw.normal(size=n)
    frame = pd.DataFrame({
        "age": draw.integers(18, 90, n), "height": draw.normal(170, 9, n), "income": np.exp(draw.normal(10, 1, n)).round(),
        "strong": 2 * hidden + draw.normal(size=n), "weak": 0.3 * hidden + draw.normal(size=n), "bent": hidden**2 + draw.normal(size=n),
        "city": draw.choice([f"city {k}" for k in range(30)], n), "sex": draw.choice(["f", "m"], n), "shop_id": draw.integers(0, n // 20, n),
        "customer_id": draw.permutation(n) + 1000, "ticket": [f"T-{k:06d}" for k in draw.permutation(n)], "name": [f"p{k}" for k in draw.integers(0, n // 2, n)],
        "on": pd.Timestamp("2025-01-01") + pd.to_timedelta(draw.integers(0, 365, n), "D"),
    })  # fmt: skip
    frame["often"] = np.where(hidden + draw.normal(size=n) > 0.5, "high", "low")
    frame["gaps"] = np.where(draw.random(n) < np.where(hidden > 0, 0.4, 0.1), np.nan, draw.normal(size=n))
    said = hidden + 0.5 * draw.normal(size=n)
    kind = seed % 3
    target = pd.Series([said > np.quantile(said, draw.choice([0.5, 0.8, 0.95])), pd.cut(said, [-99, -1, 1, 99], labels=False), said * 10 + 50][kind], name="y")
    return frame, target, kind < 2


def findings(frame: pd.DataFrame, target: pd.Series, classes: bool, **how) -> list[tuple]:
    """What is found: kind and columns."""
    return [(leak.kind, leak.columns) for leak in target_leaks(frame, target, list(frame.columns), classes, **how)]


def binary() -> tuple[pd.DataFrame, np.ndarray, np.random.Generator]:
    """A clean table and a yes or no."""
    frame, target, _ = clean(0, 1500)
    return frame, target.to_numpy(), np.random.default_rng(1)


def sides(seed: int) -> list[pd.DataFrame]:
    """Two parts of a clean table, by chance."""
    frame = clean(seed)[0]
    test = np.random.default_rng(seed + 10_000).random(len(frame)) < 0.25
    return [frame[~test], frame[test]]


LETTERS = np.array(list("abcdefghijkl"))
#: name: (what is added, made of a yes or no and chance; the kind that is found)
COLUMNS = {
    "renamed": (lambda y, d: y, "alone"),
    "other words": (lambda y, d: np.where(y, "gone", "here"), "alone"),
    "complement": (lambda y, d: 1 - y.astype(int), "alone"),
    "one percent wrong": (lambda y, d: y ^ (d.random(len(y)) < 0.01), "alone"),
    "with noise": (lambda y, d: y + d.normal(0, 0.25, len(y)), "alone"),
    "a score": (lambda y, d: d.beta(1 + 8 * y, 9 - 8 * y), "alone"),
    "many words a class": (lambda y, d: LETTERS[d.integers(0, 6, len(y)) + 6 * y], "alone"),
    "far from the middle": (lambda y, d: np.where(y, 1, 0.2) * np.where(d.random(len(y)) < 0.5, -1, 1) * d.uniform(0.5, 1, len(y)), "alone"),
    "a date that yes has later": (lambda y, d: pd.Timestamp("2025-01-01") + pd.to_timedelta(d.integers(0, 100, len(y)) + 100 * y, "D"), "alone"),
    "there only for yes": (lambda y, d: np.where(y, d.normal(size=len(y)), np.nan), "alone"),
    "missing only for yes": (lambda y, d: np.where(y & (d.random(len(y)) < 0.4), np.nan, d.normal(size=len(y))), "missing"),
    "a text only for yes": (lambda y, d: pd.Series(np.where(y & (d.random(len(y)) < 0.6), "settled", None)), "missing"),
    "numbers by class": (lambda y, d: np.argsort(np.argsort(y + d.normal(0, 2, len(y)))), "id"),
    "even for yes": (lambda y, d: 2 * d.permutation(len(y)) + y, "id"),
    "tickets by class": (lambda y, d: [f"A-{k:05d}" for k in np.argsort(np.argsort(y + d.normal(0, 2, len(y))))], "id"),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_gives_a_class_away_is_found(name):
    frame, y, draw = binary()
    make, kind = COLUMNS[name]
    found = findings(frame.assign(added=make(y, draw)), pd.Series(y, name="y"), True)
    assert (kind, ("added",)) in found and {columns for _, columns in found} == {("added",)}, found


#: name: (what is added, made of a number and chance; the kind that is found)
NUMBERS = {
    "scaled": (lambda y, d: 3 * y + 7, "alone"),
    "negative": (lambda y, d: -y, "alone"),
    "its logarithm": (lambda y, d: np.log(y + 200), "alone"),
    "rounded": (lambda y, d: (y / 4).round().astype(int).astype(str), "alone"),
    "with noise": (lambda y, d: y + d.normal(0, 1, len(y)), "alone"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_that_gives_a_number_away_is_found(name):
    frame, target, _ = clean(2, 1500)
    make, kind = NUMBERS[name]
    found = findings(frame.assign(added=make(target.to_numpy(), np.random.default_rng(1))), target, False)
    assert found == [(kind, ("added",))]


def test_pairs_several_classes_and_the_order_of_rows_are_found():
    frame, y, draw = binary()
    start = draw.normal(size=len(y))
    pair = findings(frame.assign(start=start, end=start + np.where(y, 1, -1) * draw.uniform(0.1, 1, len(y))), pd.Series(y, name="y"), True)
    assert ("pair", ("end", "start")) in pair or ("pair", ("start", "end")) in pair, pair
    number, target, _ = clean(2, 1500)
    part = target.to_numpy() * draw.uniform(0.2, 0.8, len(target))
    total = findings(number.assign(one=part, two=target.to_numpy() - part), target, False)
    assert {("one", "two"), ("two", "one")} & {columns for kind, columns in total if kind == "pair"}, total
    several, three, _ = clean(1, 1500)
    assert findings(several.assign(added=three.map({0: "x", 1: "y", 2: "z"})), three, True) == [("alone", ("added",))]
    assert findings(several.assign(added=LETTERS[three * 4 + draw.integers(0, 4, len(three))]), three, True) == [("alone", ("added",))]
    sort = np.argsort(y + draw.normal(0, 0.5, len(y)))
    assert findings(frame.iloc[sort], pd.Series(y[sort], name="y"), True) == [("order", ())]
    assert findings(frame.iloc[sort], pd.Series(y[sort], name="y"), True, in_time=True) == []
    turns = np.ravel(np.column_stack([np.flatnonzero(y)[:100], np.flatnonzero(~y)[:100]]))
    assert findings(frame.iloc[turns], pd.Series(y[turns], name="y"), True) == [("order", ())]


def test_rows_of_another_kind_dates_and_a_test_far_off_are_found():
    known, others = sides(3)
    assert told_apart(known, others.assign(age=others["age"] + 15)).kind == "parts"
    assert told_apart(known.assign(batch="a"), others.assign(batch="b")).kind == "parts"
    assert told_apart(known, others.assign(weak=np.nan)).kind == "parts"
    late = known.assign(asked=known["on"] - pd.Timedelta("3D"), closed=known["on"] + pd.Timedelta("9D"))
    assert [leak.columns for leak in later_dates(late, late["on"], late.columns)] == [("closed",)]
    said = {"value": 0.92, "low": 0.89, "high": 0.95}
    assert far_from(said, [0.50, 0.51, 0.52], (300, 1200)) and far_from(said | {"value": 0.4}, [0.71, 0.7, 0.72], (300, 1200))
    assert far_from(said, [0.90, 0.91, 0.95], (300, 1200)) is None and far_from({"value": None, "low": None, "high": None}, [0.5, 0.6], (3, 9)) is None


def test_a_test_of_the_same_kind_is_hardly_ever_far_off():
    draw = np.random.default_rng(7)

    def told(shift: float) -> bool:
        """Means of 200 test rows and of five folds of 160, as a metric has them."""
        test, folds = draw.exponential(size=200) + shift, draw.exponential(size=(5, 160)).mean(axis=1)
        reach = 1.96 * test.std(ddof=1) / np.sqrt(200)
        return bool(far_from({"value": test.mean(), "low": test.mean() - reach, "high": test.mean() + reach}, list(folds), (200, 800)))

    assert sum(told(0) for _ in range(2000)) <= 4 and sum(told(0.6) for _ in range(100)) >= 90 and sum(told(-0.6) for _ in range(100)) >= 90


def warned(seed: int) -> list:
    """All that is found in a clean table."""
    frame, target, classes = clean(seed)
    return findings(frame, target, classes) + [leak for leak in [told_apart(*sides(seed))] if leak]


def test_a_few_clean_tables_warn_nobody():
    assert [found for seed in range(6) if (found := warned(seed))] == []


@pytest.mark.slow
def test_forty_clean_tables_warn_at_most_once():
    false = [(seed, found) for seed in range(100, 140) if (found := warned(seed))]
    assert len(false) <= 1, false


@pytest.mark.deep
def test_two_hundred_clean_tables_warn_at_most_twice():
    false = [(seed, found) for seed in range(1000, 1200) if (found := warned(seed))]
    assert len(false) <= 2, false


def test_odd_tables_say_nothing():
    frame, y, _ = binary()
    yes = pd.Series(y, name="y")
    assert findings(frame, pd.Series(True, index=frame.index, name="y"), True) == []  # one class
    assert findings(frame, pd.Series(1.5, index=frame.index, name="y"), False) == []
    assert findings(frame, pd.Series(np.nan, index=frame.index, name="y"), False) == []
    assert findings(frame.head(10).assign(added=y[:10]), yes.head(10), True) == []
    flat = frame.assign(a=1.0, b=np.nan, c=None, d="x", e=pd.NaT, f=[True, None, "x"] * 500, g=np.inf)
    assert findings(flat, yes, True) == [] and findings(flat.head(0), yes.head(0), True) == []
    assert findings(frame[[]], yes, True) == []
    assert told_apart(flat.head(1000), flat.tail(500)) is None and told_apart(frame.head(5), frame.tail(5)) is None and told_apart(frame[[]], frame[[]]) is None
    assert later_dates(frame, frame["age"], frame.columns) == []


def test_many_columns_are_no_burden_and_no_warning():
    draw = np.random.default_rng(6)
    wide, y = pd.DataFrame(draw.normal(size=(1500, 400))).add_prefix("c"), pd.Series(draw.random(1500) < 0.3, name="y")
    assert findings(wide, y, True) == [] and findings(wide.assign(c7=y), y, True) == [("alone", ("c7",))]


def test_rows_of_one_thing_are_one():
    draw = np.random.default_rng(5)
    person = np.repeat(np.arange(150), 10)
    y = pd.Series(draw.random(150) < 0.5, name="y")[person].reset_index(drop=True)
    frame = pd.DataFrame({"person": person, "doctor": [f"d{p}" for p in person], "height": np.repeat(draw.normal(size=150), 10), "seen": draw.normal(size=1500)})
    assert findings(frame, y, True, things=person) == []
    assert findings(frame, y, True) != []  # as if they were 1,500 people
