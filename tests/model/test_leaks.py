"""Leaks are found where they were made, and nowhere else."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.model.entities import entity_codes
from mlops_nb.model.leaks import Looked, split_leaks, target_leaks
from mlops_nb.model.problem import Problem
from mlops_nb.stages.split import Division, split_rows
from mlops_nb.stats.apart import far_from, later_dates, told_apart


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
    """What is found, but for information: kind and columns."""
    return [(leak.kind, leak.columns) for leak in target_leaks(frame, target, list(frame.columns), classes, **how) if leak.kind != "far off"]


def stated(classes: bool, kinds: int = 2, **more) -> Problem:
    """A charter's facts about the target y."""
    task = "regression" if not classes else "binary" if kinds == 2 else "multiclass"
    facts = {"name": "t", "goal": "g", "task": task, "target": "y", "metric": "mae" if not classes else "accuracy", "data": {"source": "t.csv"}}
    return Problem.model_validate(facts | ({"positive": True} if task == "binary" else {}) | more)


def looked(table: pd.DataFrame, problem: Problem, **how) -> tuple[Division, Looked]:
    """The way of a run: rows divided, then looked at."""
    parts = split_rows(table, problem, **how)
    things = entity_codes(parts.entities, "train"), entity_codes(parts.entities, "test")
    return parts, split_leaks((parts.train, parts.valid, parts.test), problem, things, how.get("time"))


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


def honest(seed: int) -> tuple[pd.DataFrame, Problem]:
    """A clean table of any size, sorted or not, with texts, dates, and in every second one a column of AUC .95."""
    draw = np.random.default_rng(seed + 50_000)
    frame, target, classes = clean(seed, int(draw.choice([80, 120, 200, 500, 1500, 4000])))
    n, said = len(frame), pd.Series(pd.factorize(target, sort=True)[0] if classes else target.rank(pct=True), index=frame.index).astype(float)
    if draw.random() < 0.5:
        frame["best"] = said + draw.normal(0, (0.43, 0.5, 0.08)[seed % 3] * (1 + said.max() * (seed % 3 == 1)), n)
    words = ["asks", "pays", "likes", "calls", "never", "often", "came", "went"]
    frame["note"] = [" ".join(draw.choice(words, 4)) + f" {k}" for k in draw.integers(0, 10**6, n)]
    frame["rate"] = (pd.Series(draw.normal(size=int(frame["shop_id"].max()) + 1)))[frame["shop_id"]].to_numpy()
    table = frame.assign(y=target.to_numpy())
    order = draw.choice(["none", "y", "on", "city", "age"])
    table = table if order == "none" else table.sort_values(order, kind="stable", ignore_index=True)
    more = {"id": "customer_id"} if draw.random() < 0.5 else {}
    return table, stated(classes, 2 if seed % 3 == 0 else 3, **more)


def warned(seed: int) -> list:
    """All that a run warns of in a clean table."""
    parts, found = looked(*honest(seed))
    return [rule["message"] for rule in parts.rules + found.rules]


def false_alarms(seeds: range) -> list:
    """Clean tables that are warned of."""
    return [(seed, found) for seed in seeds if (found := warned(seed))]


def test_a_few_clean_tables_warn_nobody():
    assert false_alarms(range(6)) == []


@pytest.mark.slow
def test_forty_clean_tables_warn_at_most_once():
    assert len(false := false_alarms(range(100, 140))) <= 1, false


@pytest.mark.deep
def test_two_hundred_clean_tables_warn_at_most_twice():
    assert len(false := false_alarms(range(1000, 1200))) <= 2, false


@pytest.mark.slow
def test_the_best_honest_column_is_that_strong():
    """Clean tables hold columns of AUC .93 to .97, so that their silence says something."""
    from sklearn.metrics import roc_auc_score

    strong = [roc_auc_score(t["y"], t["best"]) for seed in range(0, 240, 3) if "best" in (t := honest(seed)[0]) and len(t) >= 1500]
    assert len(strong) >= 5 and 0.93 < np.mean(strong) < 0.97, strong


def made(seed: int = 0, n: int = 1500) -> tuple[pd.DataFrame, np.random.Generator]:
    """A clean table with a yes or no and its id, as a run reads it."""
    frame, target, _ = clean(3 * seed, n)
    return frame.assign(y=target.to_numpy()), np.random.default_rng(seed + 1)


def one(name: str, make) -> tuple:
    """A table with one column more."""
    return name, lambda t, d: t.assign(added=make(t, d))


#: What a run warns of: name, how the table is made worse; the column added gives y away, but where a word says otherwise.
MADE = dict([
    one("renamed", lambda t, d: t["y"]),
    one("negated", lambda t, d: ~t["y"]),
    one("minus itself", lambda t, d: -t["y"].astype(int)),
    one("as text", lambda t, d: t["y"].map({True: "yes", False: "no"})),
    one("hash of the target", lambda t, d: t["y"].map({True: "9f86d081", False: "60303ae2"})),
    one("many codes a class", lambda t, d: LETTERS[d.integers(0, 6, len(t)) + 6 * t["y"].astype(int)]),
    one("one percent wrong", lambda t, d: t["y"] ^ (d.random(len(t)) < 0.01)),
    one("with noise", lambda t, d: t["y"] + d.normal(0, 0.25, len(t))),
    one("a model's score", lambda t, d: d.beta(1 + 8 * t["y"], 9 - 8 * t["y"])),
    one("a date that yes has later", lambda t, d: pd.Timestamp("2025-01-01") + pd.to_timedelta(d.integers(0, 100, len(t)) + 100 * t["y"], "D")),
    one("a date of the outcome", lambda t, d: (pd.Timestamp("2025-01-01") + pd.to_timedelta(pd.Series(d.integers(0, 300, len(t)), index=t.index), "D")).where(t["y"])),
    one("missing only for yes", lambda t, d: np.where(t["y"] & (d.random(len(t)) < 0.4), np.nan, d.normal(size=len(t)))),
    one("a text only for yes", lambda t, d: pd.Series(np.where(t["y"] & (d.random(len(t)) < 0.6), "settled", None))),
    one("group mean on all rows", lambda t, d: t["y"].groupby(t["shop_id"]).transform("mean")),
    one("group mean, rounded", lambda t, d: t["y"].groupby(t["city"]).transform("mean").round(4)),
    one("file name", lambda t, d: [f"out/{'bad' if y else 'good'}_{k:05d}.png" for k, y in zip(d.permutation(len(t)), t["y"], strict=True)]),
    one("a text that contains the label", lambda t, d: [f"{w} {'has left us' if y else 'stays with us'}, {k}" for k, (w, y) in enumerate(zip(d.choice(["she", "he"], len(t)), t["y"], strict=True))]),
    one("a number in a text", lambda t, d: [f"EUR {v:.3f} due" for v in t["y"] * 50 + d.normal(20, 9, len(t))]),
    one("row number of a sorted file", lambda t, d: pd.Series(np.argsort(np.argsort(t["y"] + d.normal(0, 0.5, len(t)))), index=t.index)),
    one("even for yes", lambda t, d: 2 * d.permutation(len(t)) + t["y"]),
    ("difference", lambda t, d: t.assign(start=(s := d.normal(size=len(t))), added=s + np.where(t["y"], 1, -1) * d.uniform(0.1, 1, len(t)))),
    ("sum", lambda t, d: t.assign(start=(s := d.integers(0, 9, len(t))), added=np.where(t["y"], 9, 8) - s)),
    ("equality of words", lambda t, d: t.assign(start=(s := d.choice([*LETTERS], len(t))), added=np.where(t["y"], s, np.roll(LETTERS, 1)[np.searchsorted(LETTERS, s)]))),
    ("equality of numbers", lambda t, d: t.assign(start=(s := d.integers(0, 30, len(t))), added=s + np.where(t["y"], 0, d.integers(1, 9, len(t)) * d.choice([-1, 1], len(t))))),
    ("signs that agree", lambda t, d: t.assign(start=(s := d.normal(size=len(t))), added=np.abs(d.normal(size=len(t))) * np.sign(s) * np.where(t["y"], 1, -1))),
])  # fmt: skip


QUICK = ("renamed", "with noise", "group mean on all rows", "file name", "equality of words", "signs that agree")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MADE])
def test_a_made_leak_is_a_warning_of_the_run(name):
    """And it is the only one: in the same table without it nothing is said."""
    table, draw = made()
    parts, found = looked(MADE[name](table, draw), stated(True, id="customer_id"))
    told = [rule["name"] for rule in parts.rules + found.rules]
    assert told and all("added" in one for one in told), (told, found.notes)


def test_the_same_table_without_a_leak_is_silent():
    parts, found = looked(made()[0], stated(True, id="customer_id"))
    assert parts.rules == found.rules == found.notes == []


OF_NUMBERS = {
    "renamed": lambda y, d: y, "negated": lambda y, d: -y, "binned": lambda y, d: pd.qcut(y, 12, labels=False), "with noise": lambda y, d: y + d.normal(0, 1, len(y)),
    "as text": lambda y, d: [f"{v:.2f} kg" for v in y], "its logarithm": lambda y, d: np.log(y + 200), "group mean of twos": lambda y, d: y.groupby(np.arange(len(y)) // 2).transform("mean"),
}  # fmt: skip


@pytest.mark.parametrize("name", [n if n in ("binned", "as text") else pytest.param(n, marks=pytest.mark.slow) for n in OF_NUMBERS])
def test_a_number_that_is_given_away_is_a_warning(name):
    frame, target, _ = clean(2, 1500)
    draw = np.random.default_rng(1)
    table = frame.assign(pair=np.arange(1500) // 2, y=target, added=OF_NUMBERS[name](target, draw)).drop(columns=[] if "mean" in name else "pair")
    parts, found = looked(table, stated(False, id="customer_id"))
    assert [rule["name"] for rule in parts.rules + found.rules] == ["no leak by added"], found.notes


def test_a_target_one_hot_is_a_warning():
    frame, three, _ = clean(1, 1500)
    hot = pd.get_dummies(three.map({0: "x", 1: "z", 2: "q"})).add_prefix("is_")
    _, found = looked(pd.concat([frame, hot], axis=1).assign(y=three.to_numpy()), stated(True, 3))
    assert {c for rule in found.rules for c in hot if c in rule["name"]} == set(hot)


def test_the_target_of_the_next_row_is_a_warning_where_rows_follow_each_other():
    draw = np.random.default_rng(0)
    walk = pd.Series(draw.normal(size=1500).cumsum())
    table = pd.DataFrame({"y": walk, "next": walk.shift(-1), "heat": draw.normal(size=1500), "on": pd.date_range("2026-01-01", periods=1500, freq="h")})
    _, found = looked(table.dropna(), stated(False))
    assert "no leak by next" in [rule["name"] for rule in found.rules]


def test_rows_of_one_thing_are_never_on_two_sides():
    """Twice under fresh ids, ten rows of one person, near copies: the first two can't be, the third is said."""
    table, draw = made()
    twice = pd.concat([table, table.assign(customer_id=table["customer_id"] + 10**6, ticket=table["ticket"])], ignore_index=True)
    of_ten = table.assign(customer_id=np.arange(len(table)) // 10)
    for rows in (twice, of_ten):
        parts, found = looked(rows, stated(True, id="customer_id"))
        assert not set(entity_codes(parts.entities, "train")) & set(entity_codes(parts.entities, "valid", "test")) and parts.twins == 0
    measured = [c for c in table if table[c].dtype == float and not table[c].isna().any()]
    some = table.sample(300, random_state=0)
    near = some.assign(**{c: some[c] + draw.normal(size=300) * 1e-3 for c in measured}, customer_id=range(5000, 5300))
    same = table[[*measured, "customer_id", "y"]]
    parts, _ = looked(pd.concat([same, near[same.columns]], ignore_index=True), stated(True, id="customer_id"))
    assert len(parts.rules) == 1 and "but for noise" in parts.rules[0]["message"]


def test_ids_and_order_that_no_model_reads_are_information():
    """A file sorted by its classes, as iris is; ids that order the classes, though the charter names them."""
    table, draw = made()
    order = np.argsort(table["y"] + draw.normal(0, 0.5, len(table)))
    ordered = table.iloc[order].reset_index(drop=True)
    parts, found = looked(ordered, stated(True, id="customer_id"))
    assert parts.rules == found.rules == [] and ["order of rows" in note for note in found.notes] == [True]
    numbered = table.assign(customer_id=np.argsort(order) + 1)
    parts, found = looked(numbered, stated(True, id="customer_id"))
    assert parts.rules == found.rules == [] and ["'customer_id' only numbers" in note for note in found.notes] == [True]
    assert looked(numbered, stated(True, id="customer_id", leaks={"accept": {"customer_id": "Given by office."}}))[1].notes == []
    assert [rule["name"] for rule in looked(numbered, stated(True))[1].rules] == ["no leak by customer_id"]  # a model would read it


@pytest.mark.slow
def test_sorted_files_are_silent_but_for_a_column_that_is_nearly_perfect():
    """Iris and wine are sorted by their classes. An iris' petals tell its species nearly perfectly: that is a finding, and a person accepts it."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

    for load, classes, kinds in ((load_iris, True, 3), (load_wine, True, 3), (load_breast_cancer, True, 2), (load_diabetes, False, 0)):
        table = load(as_frame=True).frame.rename(columns={"target": "y"})
        table["y"] = table["y"].astype(bool) if kinds == 2 else table["y"]
        parts, found = looked(table, stated(classes, kinds))
        assert {rule["name"] for rule in found.rules} <= ({"no leak by petal width (cm)"} if load is load_iris else set()), (load.__name__, found.rules)


@pytest.mark.slow
def test_what_is_weaker_than_nearly_perfect_is_information_or_not_found():
    """Noise on the target: AUC .98 and more warns, .9 to .98 is said where no other column comes near, below nothing is."""
    table, draw = made(n=4000)
    table = table.drop(columns=["strong", "often"])
    said = {}
    for noise in (0.2, 0.4, 0.5, 1.2):
        _, found = looked(table.assign(added=table["y"] + draw.normal(0, noise, len(table))), stated(True, id="customer_id"))
        said[noise] = "warning" if found.rules else "information" if any("'added' alone" in note for note in found.notes) else "nothing"
    assert said == {0.2: "warning", 0.4: "information", 0.5: "information", 1.2: "nothing"}  # AUC 1.00, .96, .92, .72


def test_accepting_one_of_a_pair_accepts_not_the_other():
    table, draw = made()
    paired = MADE["difference"](table, draw)
    for accepted, ways in (((), "{added: why, start: why}"), (("start",), "{added: why}"), (("added", "start"), "")):
        _, found = looked(paired, stated(True, id="customer_id", leaks={"accept": dict.fromkeys(accepted, "Known.")}))
        told = [r["message"] for r in found.rules]
        assert (len(told) == 1 and ways in told[0].replace("{start: why, added: why}", "{added: why, start: why}")) if ways else told == []


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
