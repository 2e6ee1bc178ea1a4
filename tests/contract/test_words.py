"""What a word in a charter means: its text, until its field's type or the column's type reads it."""

import re
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_nb.base.charter import Charter, load_charter
from mlops_nb.model.sense import check_sense
from mlops_nb.model.columns import forbidden, read_column
from mlops_nb.model.rows import RowSchema, Refused
from mlops_nb.model.schema import Field, Schema
from mlops_nb.base.errors import MlopsError
from mlops_nb.pipeline.knobs import knob_values
from mlops_nb.cli.draft import charter_text
from mlops_nb.cli.guess import Column, Guess, TargetTask
from mlops_nb.pipeline.graph import stock_graph
from mlops_nb.base.scalars import Null, number_in, read_as
from mlops_nb.base.settings import stock
from mlops_nb.model.problem import Problem
from mlops_nb.stages.validate import judge_rows

YAML = """
name: shop
goal: an example
task: binary
target: buys
positive: {positive}
metric: roc_auc
data: {{source: shop.csv}}
"""
#: Words that YAML 1.1 reads as a truth, a number, a time of day, a date or nothing, and what has signs of YAML in it.
WORDS = ["yes", "NO", "on", "Off", "y", "1.10", "12:30", "1:30:00", "0o17", "0x1F", "017", "1_000", "2013-01-05", "2013-01-05T12:00:00Z", "1e3", ".5", "+1", "=", "<<", "null", "~", ".inf", ".nan", ""]
TEXTS = st.one_of(st.sampled_from([*WORDS, "a: b", "#x", "- a", "'", '"', "it's", "\\", "{a}", "[a]", "&a", "*a", "!a", "|", ">", "%", "@", "`", " a ", "a #b", "ä", "\u2028", "\x85", "\ufeff", "𝔘", "\t", "a\nb"]), st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12))


def load(text: str) -> Charter:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "shop.yaml")
        file.write_text(text, encoding="utf-8")
        return load_charter(file)


@pytest.mark.parametrize("word", [w for w in WORDS if w not in ("null", "~", "")])
def test_bare_words_keep_their_text(word):
    plain = "" if word in ("<<",) else f"\n  {word}: {{required: true}}"
    made = load(YAML.format(positive=word) + f"exclude: {{{word if word != '<<' else 'a'}: {word}}}\nrules:\n  land: {{allowed: [{word}, x]}}{plain}\n")
    assert made.positive == made.rules["land"].allowed[0] == next(iter(made.exclude.values())) == word
    if word != "<<":
        assert list(made.exclude) == [word] and made.rules[word].required is True
    quoted = load(YAML.format(positive=f'"{word}"'))
    assert quoted.statement() == load(YAML.format(positive=word)).statement(), "quoted or not, the same word"


def test_nothing_is_nothing_where_a_field_may_have_nothing():
    for nothing in ("~", "null", "Null", "NULL", ""):
        made = load(YAML.format(positive=nothing) + f"weight: {nothing}\nid: {nothing}\nknobs: {{split: {{time: {nothing}}}}}\nretraining: {{new_labels: {nothing}}}\n")
        assert (made.positive, made.weight, made.id, made.knobs["split"]["time"], made.retraining.new_labels) == (None,) * 5
    made = load(YAML.format(positive='"null"') + "weight: '~'\nrules: {land: {allowed: [null, ~, NULL]}}\nexclude: {null: ~}\n")
    assert (made.positive, made.weight, made.rules["land"].allowed, made.exclude) == ("null", "~", ["null", "~", "NULL"], {"null": "~"})
    assert type(made.rules["land"].allowed[0]) is str
    for slip, said in (("goal2: ", "unknown key"), ("metric:", "metric = None; expected a valid string")):
        with pytest.raises(MlopsError, match=said):
            load(YAML.format(positive="a").replace("metric: roc_auc", slip if slip == "metric:" else "metric: roc_auc\n" + slip))


def test_fields_read_their_words():
    made = load(YAML.format(positive="a") + "costs: {false_positive: '2', false_negative: 0x10}\nrules: {a: {min: -.5, max: +1e3, required: True}, b: {required: no}}\n"
                "sensitive: [{name: age, column: age, bins: [25, '45', 6.5e1]}]\nmonitoring: {window: week, min_rows: 500, quality_drop: 0}\nretraining: {on: [drift], budget: 2}\n")  # fmt: skip
    assert made.costs.false_positive == 2.0 and made.costs.false_negative == 16 and made.sensitive[0].bins == [25, 45, 65]
    assert (made.rules["a"].min, made.rules["a"].max, made.rules["a"].required, made.rules["b"].required) == (-0.5, 1000, True, False)
    assert made.monitoring.min_rows == 500 and type(made.monitoring.min_rows) is int and made.retraining.on == ["drift"]
    for slip, said in {
        "costs: {false_positive: 1_000}": "costs.false_positive = '1_000'; expected a valid number", "costs: {false_positive: 12:30}": "= '12:30'", "retraining: {budget: 1.5}": "budget = 1.5; expected a valid integer",
        "rules: {a: {required: maybe}}": "rules.a.required = 'maybe'; expected a valid boolean", "monitoring: {min_rows: 2013-01-05}": "'2013-01-05'", "rules: {a: {min: .nan}}": None,
    }.items():  # fmt: skip
        if said is None:
            assert "finite" in check_sense(load(YAML.format(positive="a") + slip + "\n"))[0]
            continue
        with pytest.raises(MlopsError, match=re.escape(said)):
            load(YAML.format(positive="a") + slip + "\n")


def test_knobs_read_their_words():
    graph = stock_graph("binary")
    layer = load(YAML.format(positive="a") + "knobs:\n  split: {strategy: time, test_size: 0.25, time: 1.10, group: no, valid_from: 2013-01-05, seed: 7}\n"
                 "  ingest: {max_rows: 60000}\n  train: {candidates: [linear, dummy]}\n  abtest: {watched: false, minimum_effect: ~, table: 12:30}\n").knobs  # fmt: skip
    values = knob_values(graph, layer)
    assert values["split"] | {} == values["split"] | {"strategy": "time", "test_size": 0.25, "time": "1.10", "group": "no", "valid_from": "2013-01-05", "seed": 7}
    assert values["ingest"]["max_rows"] == 60000 and values["train"]["candidates"] == ["linear", "dummy"]
    assert values["abtest"]["watched"] is False and values["abtest"]["minimum_effect"] is None and values["abtest"]["table"] == "12:30"
    for slip, said in (("split: {test_size: 1.5}", "split.test_size = 1.5: expected a number between 0 and 1"), ("ingest: {max_rows: 1_000}", "ingest.max_rows = 1_000: expected a whole number"), ("split: {strategy: tme}", "split.strategy = tme")):
        with pytest.raises(MlopsError, match=re.escape(said)):
            knob_values(graph, load(YAML.format(positive="a") + f"knobs: {{{slip}}}\n").knobs)
    assert knob_values(graph, {"split": {"test_size": 0.25, "time": None}})["split"]["test_size"] == 0.25, "values that are none of a file"


DEEP = 20_000


@pytest.mark.parametrize(
    ("what", "said"),
    {
        "secondary: " + "[" * DEEP: "nested more than 50 deep",
        "secondary: " + "[" * DEEP + "]" * DEEP: "nested more than 50 deep",
        "knobs: " + "{a: " * DEEP + "1" + "}" * DEEP: "nested more than 50 deep",
        "secondary:\n" + "- " * DEEP + "a": "nested more than 50 deep",
        "\n".join("  " * i + "a:" for i in range(300)): "nested more than 50 deep",
        "knobs: &a {a: *a}": "an alias stands inside of what it stands for",
        "a: &a [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '*a'] * 9)}]\n" for i in range(12)): "aliases make more than",
        "a: &a [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else '*a'}]\n" for i in range(2000)): "nested more than 50 deep",
        "? [a]\n: 1": "unhashable key", "name: twice": "key 'name' given twice", "a: !!python/name:os.system x": "could not determine a constructor", "b: !!int x": "unknown key 'b'", "a: !!str [x]": "expected a scalar node",
    }.items(),
)  # fmt: skip
def test_what_is_too_much_is_a_sentence(what, said):
    with pytest.raises(MlopsError, match=said) as slip:
        load(YAML.format(positive="a") + what + "\n")
    assert len(str(slip.value)) < 600


def test_aliases_and_merges_still_work():
    made = load(YAML.format(positive="a") + "rules: {a: &land {allowed: [NO, SE]}, b: *land, c: {<<: *land, required: true}}\n")
    assert made.rules["b"] == made.rules["a"] and made.rules["c"].allowed == ["NO", "SE"] and made.rules["c"].required


def test_charters_that_ship_mean_what_they_meant():
    for file in sorted(stock("charters").glob("*.yaml")):
        guessed = yaml.safe_load(file.read_text(encoding="utf-8"))
        if "retraining" in guessed:
            guessed["retraining"] = {"on" if key is True else key: value for key, value in guessed["retraining"].items()}
        made, before = load_charter(file), Charter.model_validate(guessed)
        told, meant = made.statement(), before.statement()
        assert told | {"positive": None} == meant | {"positive": None} and check_sense(made) == [] and made.monitoring == before.monitoring and made.retraining == before.retraining
        assert str(told["positive"]).lower() == str(meant["positive"]).lower()
        graph = stock_graph(made.task)
        assert knob_values(graph, made.knobs, made.sample) == knob_values(graph, before.knobs, before.sample)


GRAPH = stock_graph("binary")


@settings(max_examples=25, deadline=None)
@given(TEXTS, TEXTS, TEXTS.filter(bool), TEXTS)
@example("no", "1.10", "null", "12:30")
@example("0x1F", "~", "<<", "=")
def test_init_writes_what_it_read(positive, target, left_out, value):
    """Every text that init writes into a charter is read back, commented rules that somebody puts to use included."""
    columns = [Column("land", "category", 2, 0, values=(value, "x")), Column(left_out, "text", 9, 0)]
    guess = Guess(60, columns, target, "", TargetTask("binary", "two different values", positive, "by its name", 2, 0.5), [{"name": "land", "column": value}], left_out, {left_out: value} if left_out != "land" else {})
    text = charter_text("shop", f"data/{left_out}.csv".replace("\n", " "), guess, GRAPH)
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("rules: {}"))
    used = "\n".join([*lines[:rule], "rules:", *(line.replace("#", " ", 1) for line in lines[rule + 1 : rule + 2]), *lines[rule + 3 :]])
    for made in (load(text), load(used)):
        assert (made.positive, made.target, made.id, made.sensitive[0].column) == (positive, target, left_out, value)
        assert made.exclude == ({left_out: value} if left_out != "land" else {})
    assert load(used).rules["land"].allowed == [value, "x"]


@settings(deadline=None)
@given(st.recursive(TEXTS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6))
def test_what_retraining_writes_is_read_back(value):
    """PyYAML writes charters for challengers and drills; its texts come back as texts, its numbers as their text."""
    written = yaml.safe_dump({"knobs": {"split": {"x": value}}}, sort_keys=False)
    assert same(load(YAML.format(positive="a") + written).knobs["split"]["x"], value)


def same(read, value) -> bool:
    if isinstance(value, dict):
        return isinstance(read, dict) and list(read) == list(value) and all(same(read[k], v) for k, v in value.items())
    if isinstance(value, list):
        return len(read) == len(value) and all(map(same, read, value))
    if value is None or isinstance(value, str):
        return read == value
    return read_as(read, bool | int | float) == value


@settings(deadline=None)
@given(st.integers(-(10**30), 10**30) | st.floats(allow_nan=False))
def test_numbers(number):
    text = {"inf": ".inf", "-inf": "-.inf"}.get(repr(number), repr(number))
    assert number_in(text) == number and read_as(text, type(number)) == number and read_as(text, str) == text
    assert number_in("9" * 5000) is None and read_as(Null("~"), float) == "~"


# ---- rules, by the column's own type ------------------------------------------------------------


def problem(rules: dict) -> Problem:
    return Problem.model_validate(load(YAML.format(positive="1") + yaml.safe_dump({"rules": rules}).replace("'", "")).statement())


KINDS = {
    "text": (["NO", "SE", "false"], "[NO, SE]", "category", [True, True, False]),
    "padded": (["01", "02", "1"], "[01, 02]", "category", [True, True, False]),
    "whole": ([1, 2, 3], "[1, 2.0, x]", "integer", [True, True, False]),
    "numbers": ([1.5, 2.0, 3.0], "[1.50, 0x2]", "number", [True, True, False]),
    "truths": ([True, True, False], "[yes]", "boolean", [True, True, False]),
    "truths as numbers": ([True, True, False], "[1]", "boolean", [True, True, False]),
    "times": (["2013-01-05T00:00:00", "2013-01-06T12:30:00", "2013-01-07T00:00:00"], "[2013-01-05, 2013-01-06T12:30]", "datetime", [True, True, False]),
}


@pytest.mark.parametrize("how", KINDS)
def test_allowed_values_are_read_by_the_columns_type(how):
    """The same rule in the charter's three readers: validate, the row schema and batch scoring."""
    values, words, kind, good = KINDS[how]
    made = load(YAML.format(positive="1") + f"rules: {{x: {{allowed: {words}}}}}\n")
    series = pd.Series(pd.to_datetime(values)) if kind == "datetime" else pd.Series(values)
    frame = pd.DataFrame({"x": series, "n": range(3), "buys": [0, 1, 0]})
    kept = judge_rows(frame, Problem.model_validate(made.statement()))
    assert kept.rows.n.tolist() == np.flatnonzero(good).tolist(), kept.faults
    field, rule = Field(name="x", kind=kind, nullable=False), made.rules["x"]
    assert (~forbidden(read_column(pa.Array.from_pandas(series), field), field, rule)).tolist() == good
    row_schema = RowSchema(Schema(fields=[field], target="buys"), {"x": rule})
    for value, fine in zip(values, good, strict=True):
        for ask in (lambda v=value: row_schema.check([[v]]), lambda v=value: row_schema.read(msgspec.json.encode({"rows": [{"x": v}]}))):
            if fine:
                ask()
            else:
                with pytest.raises(Refused, match="expected one of "):
                    ask()


def test_gaps_in_truths_are_no_other_type():
    frame = pd.DataFrame({"x": [True, False, None, True], "n": range(4), "buys": [0, 1, 0, 1]})
    made = load(YAML.format(positive="1") + "rules: {x: {allowed: [true]}}\n")
    assert judge_rows(frame, Problem.model_validate(made.statement())).rows.n.tolist() == [0, 2, 3]


def test_positive_among_the_allowed_ones():
    for allowed, fine in (("[0, 1]", True), ("[0.0, 1.0]", True), ("[true, false]", True), ("[yes, no]", True), ("[2, 3]", False), ("[a, b]", False)):
        found = check_sense(load(YAML.format(positive="1") + f"rules: {{buys: {{allowed: {allowed}}}}}\n"))
        assert bool(found) != fine and all("positive '1' is not among the values allowed for 'buys'" in f for f in found)


def test_classes_of_the_costs_among_the_allowed_ones():
    several = YAML.format(positive="1").replace("task: binary", "task: multiclass").replace("metric: roc_auc", "metric: accuracy").replace("positive: 1\n", "")
    for allowed, fine in (("[0, 1]", True), ("[0.0, 1.0]", True), ("[true, false]", True), ("[0, 2]", False), ("[a, b]", False)):
        found = check_sense(load(several + f"rules: {{buys: {{allowed: {allowed}}}}}\ncosts: {{matrix: {{1: {{0: 2}}}}}}\n"))
        assert bool(found) != fine and all("is not among the values allowed for 'buys'; known: " in f for f in found)
