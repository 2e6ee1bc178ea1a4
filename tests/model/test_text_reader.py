"""Texts of a compiled model: equal to the fitted pipeline to the last bits, at every door, and nothing that a file says is believed."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from mlops_nb.base.errors import MlopsError
from mlops_nb.model.calibration import calibrated
from mlops_nb.model.columns import Scorer
from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.conform import learn_schema, with_types
from mlops_nb.model.decision import Decision
from mlops_nb.model.explanation import explain_rows
from mlops_nb.model.latency import Work, micros, work_of
from mlops_nb.model.problem import Problem
from mlops_nb.model.serialization import pack, unpack
from mlops_nb.model.text_reader import learnt_reader
from mlops_nb.model.words import Texts
from mlops_nb.stages.ensemble import make_ensemble
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import make_model

WORDS = [a + b for a in "ba ko ti mu re sa lo ne".split() for b in "dan fel gor mis tup ren lin var".split()]
ODD = ["", " ", "Good\u0000", "한국어로 쓴 글", "좋아요 👍👍", "ba" * 5000, "BADAN badan Badan", "e\u0301t\u00e9", "a\u200bb"]


def table(n: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    note, title = ([" ".join(draw.choice(WORDS, draw.integers(low, high))) for _ in range(n)] for low, high in ((3, 14), (3, 6)))
    said = np.array(["badan" in text for text in note])
    frame = pd.DataFrame({"note": note, "x": draw.normal(size=n), "title": title, "y": np.where(said ^ (draw.random(n) < 0.1), "yes", "no")})
    frame.loc[::17, "note"], frame.loc[5::23, "x"] = None, np.nan
    return frame


def problem() -> Problem:
    told = {"name": "notes", "goal": "Know", "task": "binary", "target": "y", "positive": "yes", "metric": "roc_auc"}
    return Problem.model_validate(told | {"data": {"source": "rows.csv"}})


FORM = learn_schema(table(400), problem())
ROWS = with_types(table(400), FORM)


def fitted(name: str):
    made = make_recipe(FORM, problem())
    singles = {n: make_model(n, made, "binary") for n in ("linear", "gradient_boosting", "random_forest")}
    singles["random_forest"].set_params(estimator__n_estimators=10)
    if name in ("voting", "stacking"):
        model = make_ensemble(name, singles, "binary", 2)
    else:
        model = calibrated(singles["gradient_boosting"], "sigmoid", 2) if name == "calibrated" else clone(singles[name])
    return model.fit(ROWS[FORM.names], ROWS["y"])


def compiled_of(model) -> bytes:
    return compile_model(model, FORM, ROWS[FORM.names], target_type="binary", positive="yes", threshold=0.5)


@pytest.mark.parametrize("name", ["linear", "gradient_boosting", "random_forest", "voting", "stacking", "calibrated"])
def test_rows_and_tables_get_the_pipelines_answers(name):
    assert [f.kind for f in FORM.fields] == ["text", "number", "text"]
    model = fitted(name)
    compiled = CompiledModel.load(compiled_of(model))
    rows = with_types(pd.concat([table(150, 1), table(len(ODD), 2).assign(note=ODD, title=ODD[::-1])], ignore_index=True), FORM)[FORM.names]
    plain = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    expected = model.predict_proba(rows)
    assert np.abs(compiled.predict(compiled.encode(plain)) - expected).max() < 1e-12
    clean = rows.iloc[:150]
    said = Scorer("notes", 1, FORM, {}, Decision(["no", "yes"], positive="yes", threshold=0.5), compiled).score(pa.Table.from_pandas(clean, preserve_index=False))
    assert not said.refused and np.abs(np.array(said.answers["probability"]) - expected[:150, 1]).max() < 1e-12
    assert compiled.predict(compiled.encode(plain[:1])).tobytes() == compiled.predict(compiled.encode(plain))[:1].tobytes()


LEARNT = Texts(12).fit(ROWS[["note"]].assign(note=[f"{text} 좋은 물건 not good 👍" if k % 9 == 0 else text for k, text in enumerate(ROWS["note"])]))
READER = learnt_reader(0, LEARNT.words_[0], LEARNT.axes_[0])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(["좋은", "👍", "NOT", "not good", ",", "\n"]), st.text(max_size=8)), max_size=40))
def test_a_text_is_read_as_scikit_learn_reads_it(words):
    text = " ".join(words)
    assert READER(text).tobytes() == LEARNT.transform(pd.DataFrame({"note": pd.Series([text], dtype=object)}))[0].tobytes()


def test_texts_without_a_known_word_have_a_length_only():
    lonely = Texts().fit(pd.DataFrame({"note": [f"w{k} v{k} u{k}" for k in range(30)]}))
    assert lonely.words_ == [None]
    assert learnt_reader(0, None, None)("w1 v1").tolist() == lonely.transform(pd.DataFrame({"note": ["w1 v1"]}))[0].tolist()


def test_a_file_that_says_otherwise_is_refused():
    header, arrays = unpack(compiled_of(fitted("linear")))
    first = header["texts"][0]
    for harm in ({"field": 1}, {"field": 9}, {"field": True}, {"width": 0}, {"width": 10**12}, {"at": len(arrays["constants"])}, {"at": -1}, {"terms": first["terms"][:-1] + [1]}):
        with pytest.raises(MlopsError, match="compiled model refused"):
            CompiledModel.load(pack(header | {"texts": [first | harm, *header["texts"][1:]]}, arrays))
    for texts in ([], None, [first], "note", header["texts"][::-1]):
        with pytest.raises(MlopsError, match="compiled model"):
            CompiledModel.load(pack(header | {"texts": texts}, arrays))


@pytest.mark.parametrize("name", ["linear", "voting"])
def test_reasons_by_the_compiled_model_are_the_pipelines(name):
    "Texts take several places of a row that a compiled model reads; missing ones among them."
    model = fitted(name)
    asked, beside = ROWS[FORM.names].iloc[[0, 3, 5, 17]], ROWS[FORM.names].iloc[30:36]
    plain = explain_rows(model, asked, beside, positive="yes")
    quick = explain_rows(model, asked, beside, positive="yes", compiled=CompiledModel.load(compiled_of(model)))
    assert np.abs(plain.values - quick.values).max() < 1e-12 and quick.gap < 1e-12
    assert asked["note"].isna().any() and np.abs(plain.values[:, FORM.names.index("note")]).max() > 0.05


def test_reading_texts_costs_time():
    unread = make_model("linear", make_recipe(FORM, problem(), text="leave_out"), "binary").fit(ROWS[FORM.names], ROWS["y"])
    two, none = work_of(fitted("linear")).texts, work_of(unread).texts
    assert (two, none) == (2, 0) and micros(Work(texts=two), 3) > micros(Work(), 3) + 50
