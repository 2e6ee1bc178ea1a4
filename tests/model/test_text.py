"""Columns of texts: told from identifiers, read by their words whatever the script, the same at every door, and never a burden."""

import json
import math
import string

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from mlops_nb.base.artifacts import Model
from mlops_nb.base.charter import Rule
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.columns import forbidden, frame_of, read_column
from mlops_nb.model.compilable import why_not_compilable
from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.conform import conform, learn_schema, with_types
from mlops_nb.model.problem import Problem
from mlops_nb.model.rows import Refused, RowSchema
from mlops_nb.model.schema import LONGEST, Field, Schema
from mlops_nb.model.words import Texts, terms_of, why_no_text, words_of
from mlops_nb.stages.features import make_recipe, recipe_effects
from mlops_nb.stages.train import make_model

FIELD = Field(name="note", kind="text", nullable=True)
FORM = Schema(fields=[FIELD, Field(name="x", kind="number", nullable=True)], target="y")
WORDS = [a + b for a in "ba ko ti mu re sa lo ne".split() for b in "dan fel gor mis tup ren lin var".split()]


def spoken(n: int, seed: int = 0, words: list[str] | None = None) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(words or WORDS, draw.integers(3, 12))) for _ in range(n)]


def problem(task: str = "binary") -> Problem:
    more = {"positive": "yes", "metric": "roc_auc"} if task == "binary" else {"metric": "r2"}
    return Problem.model_validate({"name": "notes", "goal": "Know", "task": task, "target": "y", "data": {"source": "rows.csv"}} | more)


def table(n: int = 300, seed: int = 0) -> pd.DataFrame:
    """Rows whose answer is whether a word stands in the text."""
    notes = spoken(n, seed)
    says = ["yes" if "badan" in t.split() or "kofel" in t.split() else "no" for t in notes]
    return pd.DataFrame({"note": notes, "x": np.random.default_rng(seed + 1).normal(size=n), "y": says})


# --- what is text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("review", spoken(200), ""),
        ("title", [f"Wireless {a} {b} {k % 9}" for k, (a, b) in enumerate(zip(spoken(200), spoken(200, 1), strict=True))], ""),
        ("후기", [f"배송이 {a} 품질이 {b} 요 {k}" for k, (a, b) in enumerate(zip(["빨라서", "느려서", "좋아서"] * 40, ["좋아", "나빠"] * 60, strict=True))], ""),
        ("レビュー", ["".join(np.random.default_rng(k).choice(list("値段高安良悪早遅品質配送"), 8)) for k in range(200)], ""),
        ("mail", [f"{a}.{k}@example.org" for k, a in enumerate(WORDS * 3)], "identifiers or single words"),
        ("page", [f"https://example.org/shop/item/{k}" for k in range(200)], "identifiers or single words"),
        ("digest", [np.random.default_rng(k).bytes(16).hex() for k in range(200)], "identifiers or single words"),
        ("uuid", [f"{k:08x}-12ab-34cd-56ef-{k * 7:012x}" for k in range(200)], "identifiers or single words"),
        ("Name", [f"{a.title()}, Mr. {WORDS[k % 7].title()} {WORDS[k % 5].title()}" for k, a in enumerate(WORDS * 2)], "names of people"),
        ("codes", [" ".join(np.random.default_rng(k).bytes(3).hex() for _ in range(4)) + f" {k}" for k in range(200)], "identifiers or single words"),
        ("kind", ["one of the few", "another of the few"] * 100, "categories"),
    ],
)
def test_what_is_taken_for_text(name, values, said):
    found = why_no_text(pd.Series(values, name=name))
    assert said in found if said else found == "", found


def test_words_of_their_own_teach_nothing():
    own = pd.Series([" ".join(np.random.default_rng(k).bytes(4).hex() for k in range(4 * n, 4 * n + 4)) for n in range(200)])
    assert why_no_text(own) == "most of its words stand in one row only"


def test_texts_that_are_too_long_are_left_to_a_person():
    assert "100,001 characters" in why_no_text(pd.Series([*spoken(100), "x" * (LONGEST + 1)]))


def test_a_schema_learns_that_a_column_is_text():
    rows = table()
    form = learn_schema(rows, problem())
    assert form.fields[0].kind == "text" and form.fields[0].typical is None, "a row's text is no example for strangers"
    ruled = problem().model_copy(update={"rules": {"note": Rule(allowed=sorted(set(rows["note"])))}})
    assert learn_schema(rows, ruled).fields[0].kind == "category"
    whole = pd.concat([rows, rows.assign(note="the same")], ignore_index=True)
    assert learn_schema(whole[300:], problem(), typed_by=rows).fields[0].kind == "text", "the whole file says what a column is"


# --- words ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_words(text):
    words = words_of(text)
    assert all(w and not w.isspace() and len(w) <= 4 * len(text) + 20 for w in words)
    assert words_of(text) == words and len(terms_of(text)) == max(2 * len(words) - 1, 0)


def test_plain_words_are_those_of_scikit_learn():
    """Of English, the terms are what its own analyzer makes of pairs, but for words of one letter."""
    own = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").build_analyzer()
    for text in [*spoken(50), "The battery ISN'T good, 5/10!", "a b\tc\n1,000.5"]:
        assert terms_of(text) == own(text)


def test_reading_takes_time_in_proportion():
    """Work is counted in what is found, for the pattern has one way at each character: no text makes it go back."""
    for bad in ("a" * 50_000, "́" * 50_000, "가" * 50_000, "_" * 50_000, "a_" * 25_000, "😀" * 20_000, "ﷺ" * 20_000):
        assert len(words_of(bad)) <= len(bad) * 4


# --- as numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notes",
    [
        [None] * 40, [""] * 40, ["the the the"] * 40, [f"own{k}" for k in range(40)], ["😀", "👎👎", "🎉"] * 14, ["!!!", "...", "\x00\x07"] * 14, ["one"], [None, "a b c"],
    ],
    ids=["missing", "empty", "one word everywhere", "no word twice", "emoji", "no words", "one row", "a row and a gap"],
)  # fmt: skip
def test_columns_that_say_little_break_nothing(notes):
    frame = pd.DataFrame({"note": pd.Series(notes, dtype="str")})
    made = Texts().fit(frame)
    asked = pd.DataFrame({"note": pd.Series([*notes, "never seen", None, "", "x" * LONGEST], dtype="str")})
    numbers = made.transform(asked)
    assert np.isfinite(numbers).all() and numbers.shape == (len(asked), len(made.get_feature_names_out()))
    assert (numbers[-2] == 0).all() and (numbers[-3] == 0).all()


def test_a_row_alone_is_what_it_is_in_a_table():
    frame = pd.DataFrame({"note": [*spoken(200), None, "", "zzz"]})
    made = Texts().fit(frame)
    whole = made.transform(frame)
    assert all(np.array_equal(made.transform(frame[k : k + 1])[0], whole[k]) for k in range(len(frame)))
    assert np.array_equal(made.transform(frame[::-1]), whole[::-1])


def test_rare_words_are_not_kept():
    frame = pd.DataFrame({"note": [*spoken(600), *["secret melody"] * 4]})
    kept = Texts().fit(frame).words_[0].vocabulary_
    assert "secret" not in kept and "badan" in kept and len(Texts(most=10).fit(frame).words_[0].vocabulary_) == 10


def test_stored_without_pickle_and_equal():
    frame = pd.DataFrame({"note": spoken(200), "title": spoken(200, 7)})
    made = Texts(parts=5).fit(frame)
    data = Model.dump(made)
    again = Model.load(data)
    assert np.array_equal(again.transform(frame), made.transform(frame))
    assert Model.dump(Texts(parts=5).fit(frame)) == data, "equal rows, equal bytes"


def test_a_damaged_file_is_refused():
    made = Texts(parts=5).fit(pd.DataFrame({"note": spoken(200)}))
    made.words_[0].vocabulary_ = {term: place + 1 for term, place in made.words_[0].vocabulary_.items()}
    with pytest.raises(MlopsError, match="words"):
        Model.load(Model.dump(made))


# --- the recipe -----------------------------------------------------------------------------------------------------


def test_both_recipes_read_texts():
    rows = table(400)
    form = learn_schema(rows, problem())
    rows = with_types(rows, form)
    made = make_recipe(form, problem())
    effects = recipe_effects(made, form, rows, rows["y"])
    assert effects.loc["note", "for linear models"] == effects.loc["note", "for trees"] == "words" and effects.loc["note", "columns"] > 5
    rest = with_types(table(400, 9), form)
    for name in ("linear", "gradient_boosting"):
        model = make_model(name, made, "binary").fit(rows[form.names], rows["y"])
        assert (model.predict(rest[form.names]) == rest["y"]).mean() > (rest["y"] == "no").mean() + 0.03, name
        assert why_not_compilable(model) == ""


def test_a_model_that_leaves_texts_out_is_compiled():
    rows = table()
    form = learn_schema(rows, problem())
    rows = with_types(rows, form)
    made = make_recipe(form, problem(), text="leave_out")
    model = make_model("gradient_boosting", made, "binary").fit(rows[form.names], rows["y"])
    data = compile_model(model, form, rows[form.names], target_type="binary", positive="yes", threshold=0.5)
    compiled = CompiledModel.load(data)
    said = compiled.predict(compiled.encode([["any text", 0.5], [None, None]]))
    assert np.allclose(said, model.predict_proba(conform(pd.DataFrame({"note": ["any text", None], "x": [0.5, None]}), form)), rtol=0, atol=1e-9)


# --- the doors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["plain", "", "\x00\x07 \u202e", "x" * LONGEST, "가" * LONGEST, 12, 3.0, 2.5, None], ids=str)
def test_what_a_door_takes(value):
    """Rows, JSON, tables and frames take the same texts, and read them alike."""
    door = RowSchema(FORM)
    taken = door.check([[value, 1.0]])[0]
    if value is None or isinstance(value, str):
        assert door.read(json.dumps({"rows": [{"note": value, "x": 1.0}]}).encode()).rows == [taken]
    column = read_column(pa.array([value]), FIELD)
    assert not forbidden(column, FIELD, Rule()).any()
    frame = frame_of([column, read_column(pa.array([1.0]), FORM.fields[1])], FORM.fields)
    plain = conform(pd.DataFrame([taken], columns=FORM.names, dtype=object), FORM)
    assert frame["note"].isna()[0] == plain["note"].isna()[0] == (value is None) and (value is None or frame["note"][0] == plain["note"][0] == taken[0])


def test_a_text_that_is_too_long_is_refused_in_a_sentence():
    long, door, said = "x" * (LONGEST + 1), RowSchema(FORM), "a text of at most 100,000 characters"
    with pytest.raises(Refused, match=said) as refused:
        door.check([[long, 1.0]])
    assert len(str(refused.value)) < 300 and len(json.dumps(refused.value.facts)) < 500
    with pytest.raises(Refused, match=said):
        door.read(json.dumps({"rows": [{"note": long, "x": 1.0}]}).encode())
    with pytest.raises(MlopsError, match=said) as error:
        conform(pd.DataFrame({"note": [long], "x": [1.0]}), FORM)
    assert len(str(error.value)) < 300
    column = read_column(pa.array([long, "fine", None]), FIELD)
    assert forbidden(column, FIELD, Rule()).tolist() == [True, False, False]
    with pytest.raises(Refused):
        door.check([[["a", "list"], 1.0]])


def test_half_a_character_is_an_answer_or_a_refusal():
    """A lone surrogate can't be written as UTF-8: JSON doesn't bring one in."""
    with pytest.raises(Refused):
        RowSchema(FORM).read(b'{"rows": [{"note": "\\ud800", "x": 1.0}]}')


def test_a_table_is_answered_as_its_rows_are():
    rows = table()
    form = learn_schema(rows, problem())
    rows = with_types(rows, form)
    model = make_model("linear", make_recipe(form, problem()), "binary").fit(rows[form.names], rows["y"])
    frame = pd.DataFrame({"note": ["badan kofel", None, "", "never seen words", "x" * (LONGEST + 1)], "x": [0.0, 1.0, math.nan, 2.0, 3.0]})
    checked = RowSchema(form).check([[None if pd.isna(v) else v for v in row] for row in frame[:4].to_numpy().tolist()])
    single = model.predict_proba(conform(pd.DataFrame(checked, columns=form.names, dtype=object), form))
    columns = [read_column(pa.array(frame[c], from_pandas=True), f) for c, f in zip(form.names, form.fields, strict=True)]
    assert forbidden(columns[0], form.fields[0], Rule()).tolist() == [False] * 4 + [True]
    assert np.array_equal(model.predict_proba(frame_of(columns, form.fields)[:4]), single)


def test_letters_of_every_script_are_read():
    for text, words in {
        "Größe ÉTÉ": ["grösse", "été"], "не работает": ["не", "работает"], "لا يعمل": ["لا", "يعمل"], "สินค้าดี": None, "商品很好": ["商品", "品很", "很好"], "한국어": ["한국", "국어"],
        string.punctuation: [], "５つ星": None,
    }.items():  # fmt: skip
        found = words_of(text)
        assert found == words if words is not None else found, text


def test_how_texts_are_read_is_the_same_at_every_door():
    """What the charter says of a column's words counts for its texts, too: a word for "no value" is none anywhere."""
    rows = table()
    rows.loc[::9, "note"] = None
    how = {"note": {"kind": "text", "missing": ["unbekannt"]}}
    form = learn_schema(rows, problem(), readings=how)
    assert form.fields[0].kind == "text" and form.fields[0].reading is not None
    given = ["unbekannt", "badan fel", None]
    assert [row[0] for row in RowSchema(form, {}).check([[t, 1.0] for t in given])] == [None, "badan fel", None]
    read = [read_column(pa.array(given), form.fields[0]), read_column(pa.array([1.0] * 3), form.fields[1])]
    assert frame_of(read, form.fields)["note"].isna().tolist() == [True, False, True]
