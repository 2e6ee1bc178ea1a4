"""Compiled models: equal to their pipelines for every recipe and estimator that the stages offer, and refused when the file was tampered with."""

import io
import itertools
import json
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from mlops_nb.base.artifacts import Model, unzip, zip_of
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.compilable import NotCompilable, why_not_compilable
from mlops_nb.model.compile import compile_model, matrix_of
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.program import STEPS
from mlops_nb.model.serialization import FORMAT, unpack
from mlops_nb.stages.ensemble import calibrated, make_ensemble
from mlops_nb.stages.features import date_parts, feature_groups, linear_recipe, make_recipe, mean_columns, target_means, tree_recipe
from mlops_nb.model.problem import Problem
from mlops_nb.model.tasks.known import task_of
from mlops_nb.stages.register import compiled_line, compile_version
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.model.model_types import MODEL_TYPES
from mlops_nb.model.steps import read_fills
from mlops_nb.stages.train import make_model

warnings.filterwarnings("ignore", module="sklearn")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small fits side by side with other work are quicker on one thread."""
    with threadpool_limits(1):
        yield


TASKS = ("binary", "multiclass", "regression")
SINGLES = [(t, n) for t in TASKS for n, c in MODEL_TYPES.items() if c.estimator(t) is not None and c.serving == "compiled"]


def made_up(seed: int, n: int = 600) -> pd.DataFrame:
    """Rows of every kind of field: rare categories, more than a recipe one-hot encodes, gaps everywhere, times."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "few": rng.choice(["a", "b", "c", "nan", "é, \u4e2d"], n, p=[0.4, 0.3, 0.2, 0.08, 0.02]),
            "many": [f"town {i}" for i in rng.zipf(1.5, n) % 300],
            "amount": np.round(rng.lognormal(3, 2, n), 2),
            "count": rng.integers(0, 9, n).astype(float),
            "never": rng.normal(size=n),
            "flag": rng.random(n) < 0.3,
            "since": pd.Timestamp("2001-02-03") + pd.to_timedelta(rng.integers(0, 9_000_000_000, n), unit="ms"),
        }
    )
    for name in ("few", "many", "amount", "count", "flag", "since"):
        frame[name] = frame[name].astype(object).where(rng.random(n) > 0.1, None)
    frame["since"] = pd.to_datetime(frame["since"])
    frame[["amount", "count"]] = frame[["amount", "count"]].astype(float)
    return frame


def problem(task: str) -> Problem:
    """What the stages need to know."""
    positive = {"positive": "yes"} if task == "binary" else {}
    return Problem.model_validate(
        {"name": "made_up", "goal": "Learn whether compiled models keep up", "task": task, "target": "y", "data": {"source": "rows.csv"}, **positive}
        | {"metric": {"binary": "roc_auc", "multiclass": "log_loss", "regression": "r2"}[task]}
    )


@pytest.fixture(scope="module", params=TASKS)
def scene(request):
    """Task, schema, training rows, target, and other rows to prove on, strange ones among them."""
    return make_scene(request.param)


def make_scene(task: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    raw = made_up(seed)
    signal = raw["few"].isin(["a", "c"]) * 1.0 + np.log1p(raw["amount"].astype(float).fillna(3)) / 3 + rng.normal(0, 0.7, len(raw))
    cut = pd.qcut(signal, 3, labels=False).to_numpy()
    y = {"binary": np.where(cut == 2, "yes", "no"), "multiclass": np.array(["low", "mid", "top"])[cut], "regression": signal.to_numpy() * 10}[task]
    schema = learn_schema(raw.assign(y=y), problem(task))
    strange = made_up(seed + 1, 300)
    strange.loc[:40, ["few", "many"]] = "(never seen)"
    strange.loc[41:50] = None
    strange.loc[51:60, "amount"] = 1e300 * 1e-280
    return task, schema, conform(raw, schema), y, conform(strange, schema)


HOLIDAYS = ["2001-02-14", "2001-04-16"]


def recipes(schema, task: str, dates: bool = True, **knobs) -> dict:
    groups = feature_groups(schema, problem(task), 100)
    dates = date_parts(groups, schema, made_up(0), "Europe/Berlin", HOLIDAYS) if dates else {}
    told = {"dates": dates, "holidays": HOLIDAYS}
    means = (["many"] if "many" in groups["many"] else [], target_means(task))
    return {"linear": linear_recipe(groups, task, **knobs, **told), "tree": tree_recipe(groups, **told, means=means)}


def proven(model, scene_, **more) -> CompiledModel:
    """The compiled model of a model fitted on the scene, proven on rows that it was not fitted on; its answers are compared once more here."""
    task, schema, rows, y, strange = scene_
    model.fit(rows, y)
    data = compile_model(model, schema, pd.concat([strange, rows], ignore_index=True), target_type=task_of(task).target_type, **more)
    made = CompiledModel.load(data)
    expected = model.predict(strange) if task == "regression" else model.predict_proba(strange)
    got = made.predict(matrix_of(strange, made.fields, made.header["vocabulary"]))
    assert got.shape == expected.shape and np.abs(got - expected).max() <= 1e-9
    assert made.classes == (None if task == "regression" else model.classes_.tolist())
    return made


@pytest.mark.parametrize("name", [n for n, c in MODEL_TYPES.items() if c.serving == "compiled"])
def test_every_candidate(scene, name):
    task, schema, *_ = scene
    if (task, name) not in SINGLES:
        return
    model = make_model(name, recipes(schema, task), task)
    assert why_not_compilable(model) == ""
    proven(model, skewed(scene) if MODEL_TYPES[name].needs else scene)


@pytest.mark.parametrize("name", ["gradient_boosting", "random_forest"])
def test_means_of_the_target_for_trees(scene, name):
    """Beside the code: towns never seen get the whole mean, missing ones their own; what each row alone has, and a class of two rows, are no error."""
    task, schema, rows, y, strange = scene
    rows, strange = rows.assign(few=[f"n{k}" for k in range(len(rows))]), strange.assign(few="n7")
    wide = learn_schema(rows.assign(y=y), problem(task))
    groups = feature_groups(wide, problem(task), 100)
    assert mean_columns(wide, groups, rows, np.arange(len(rows)), 30)[0] == ["many"]  # a name that each row has for itself says nothing of others
    if task == "multiclass":
        y = np.where(np.arange(len(y)) < 2, "two only", y)
    made = make_recipe(wide, problem(task), folds=2, means=["few", "many"])
    fitted = made["tree"].fit(rows, y)
    columns = [k for k, c in enumerate(fitted.get_feature_names_out()) if c.startswith("mean__many")]
    assert len(columns) == (4 if task == "multiclass" else 1)
    lost = fitted.transform(strange.head(40))[:, columns]
    assert (lost == lost[0]).all() and np.isfinite(lost).all() and strange["many"].iloc[0] == "(never seen)"
    proven(make_model(name, made, task, 0, {"random_forest": {"n_estimators": 9}, "gradient_boosting": {"max_iter": 9}}[name]), (task, wide, conform(rows, wide), y, conform(strange, wide)))


def skewed(scene_):
    """The same rows, with a target that is positive and has a long tail."""
    task, schema, rows, y, strange = scene_
    return task, schema, rows, np.exp(y / 8), strange


@pytest.mark.parametrize("knobs", [{"derive": "none"}, {"derive": "log", "keep": 40}, {"derive": "polynomial", "rare": 60, "keep": 70}], ids=str)
def test_every_linear_recipe(scene, knobs):
    task, schema, *_ = scene
    proven(make_model("linear", recipes(schema, task, **knobs), task), scene)


def test_no_gaps_and_one_number():
    """No column to say where numbers are missing, no product of two: steps that would write nothing."""
    task, schema, rows, y, strange = make_scene("binary")
    few = schema.model_copy(update={"fields": [f for f in schema.fields if f.name in ("few", "never")]})
    for derive in ("polynomial", "log"):
        proven(make_model("linear", recipes(few, task, derive=derive), task), (task, few, rows[few.names], y, strange[few.names].fillna({"never": 0.0})))


@pytest.mark.parametrize("name", ["voting", "stacking"])
def test_ensembles(scene, name):
    task, schema, *_ = scene
    made = recipes(schema, task)
    small = {"random_forest": {"n_estimators": 9}, "gradient_boosting": {"max_iter": 12}, "linear": {}, "dummy": {}}
    members = {n: make_model(n, made, task, 0, params) for n, params in small.items()}
    proven(make_ensemble(name, members, task), scene)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("name", ["gamma_boosting", "log_linear", "log_ridge", "voting", "stacking"])
def test_targets_of_any_unit(name, unit):
    """Cents and millions: digits are counted, and a row like none that was seen gets a finite number."""
    task, schema, rows, y, strange = skewed(make_scene("regression"))
    made = recipes(schema, task)
    members = {n: make_model(n, made, task, 0, p) for n, p in {"gamma_boosting": {"max_iter": 12}, "log_linear": {}, "linear": {}}.items()}
    model = make_ensemble(name, members, task) if name in ("voting", "stacking") else make_model(name, made, task)
    fitted = clone(model).fit(rows, y * unit)
    data = compile_model(fitted, schema, pd.concat([strange, rows], ignore_index=True), target_type="continuous")
    compiled_ = CompiledModel.load(data)
    got, expected = compiled_.predict(matrix_of(strange, compiled_.fields, compiled_.header["vocabulary"])), fitted.predict(strange)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * unit)
    if name.startswith("log"):
        assert 0 <= got.min() and got.max() <= 30 * y.std() * unit * (1 + 1e-12)


def test_targets_that_turn_otherwise_are_refused():
    """An inverse that no step knows is said before anything is fitted, a transformer that none knows while it is compiled."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import PowerTransformer

    task, schema, rows, y, strange = skewed(make_scene("regression"))
    made = recipes(schema, task)["linear"]
    squared = Pipeline([("recipe", made), ("estimator", TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=np.square))])
    assert why_not_compilable(squared) == "the inverse square has no compiled form"
    power = Pipeline([("recipe", made), ("estimator", TransformedTargetRegressor(Ridge(), transformer=PowerTransformer()))])
    with pytest.raises(NotCompilable, match="PowerTransformer"):
        compile_model(power.fit(rows, y), schema, strange, target_type="continuous")


def equal_or_plain(model, scene_) -> None:
    """Naive Bayes is so sure that an isotonic curve may rise by .1 within 3e-14 of a probability, where rounding is 1e-14: such a one is refused, not answered wrongly."""
    try:
        proven(model, scene_)
    except MlopsError as error:
        assert "the plain pipeline must serve" in str(error)


def test_a_weighted_vote(scene):
    """A member without a weight is left out, and the others count as they are weighed."""
    task, schema, *_ = scene
    made = recipes(schema, task)
    members = {n: make_model(n, made, task, 0, p) for n, p in {"linear": {}, "dummy": {}, "gradient_boosting": {"max_iter": 12}}.items()}
    vote = make_ensemble("voting", members, task, weights={"linear": 0.25, "gradient_boosting": 0.75})
    assert [n for n, _ in vote.estimators] == ["linear", "gradient_boosting"] and vote.weights == [0.25, 0.75]
    proven(vote, scene)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("name", ["linear", "random_forest", "voting", *(pytest.param(n, marks=pytest.mark.deep) for n in ("gradient_boosting", "naive_bayes", "stacking"))])
def test_calibration(name, method):
    for task in ("binary", "multiclass")[method == "temperature" :]:  # of two, 1 - p under its logarithm has no digits to compare
        scene_ = make_scene(task)
        made = recipes(scene_[1], task)
        if (name, method) == ("naive_bayes", "isotonic"):
            equal_or_plain(calibrated(make_model(name, made, task), method), scene_)
        elif name in MODEL_TYPES:
            params = {"random_forest": {"n_estimators": 9}, "gradient_boosting": {"max_iter": 12}}.get(name)
            proven(calibrated(make_model(name, made, task, 0, params), method), scene_)
        else:
            members = {n: make_model(n, made, task, 0, p) for n, p in {"decision_tree": {}, "gradient_boosting": {"max_iter": 5}}.items()}
            proven(calibrated(make_ensemble(name, members, task), method), scene_)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("task", "name"), SINGLES)
def test_other_rows(task, name, seed):
    scene_ = make_scene(task, seed=100 + 2 * seed)
    scene_ = skewed(scene_) if MODEL_TYPES[name].needs else scene_
    proven(make_model(name, recipes(scene_[1], task), task, seed), scene_)


@pytest.fixture(scope="module")
def boosted():
    """A fitted pipeline with everything that its compiled model was made of."""
    scene_ = make_scene("binary")
    task, schema, rows, y, strange = scene_
    model = make_model("gradient_boosting", recipes(schema, task), task, 0, {"max_iter": 20}).fit(rows, y)
    return model, schema, strange, compile_model(model, schema, strange, target_type="binary", positive="yes", threshold=0.3)


def test_trees_agree_to_the_last_bit(boosted):
    model, _, strange, data = boosted
    made = CompiledModel.load(data)
    matrix = matrix_of(strange, made.fields, made.header["vocabulary"])
    assert np.array_equal(made.predict(matrix), model.predict_proba(strange))
    many = np.tile(matrix, (3, 1))
    assert np.array_equal(made.predict(many, threads=2), np.tile(made.predict(matrix), (3, 1)))
    assert all(np.array_equal(made.predict(matrix[i : i + 1])[0], made.predict(matrix)[i]) for i in range(0, 300, 7))
    assert all(np.array_equal(made.predict(matrix[:n]), made.predict(matrix)[:n]) for n in (2, 15, 16, 17, 63, 64, 65, 80))  # rows alone and together, whole blocks and parts


def test_header_and_plain_rows(boosted):
    model, form, strange, data = boosted
    made = CompiledModel.load(data)
    assert (made.target_type, made.classes, made.positive, made.threshold) == ("binary", ["no", "yes"], "yes", 0.3)
    assert made.fields == form.model_dump(mode="json")["fields"] and made.header["format"] == FORMAT
    assert [codes is not None for codes in made.codes] == [f.kind == "category" for f in form.fields]
    plain = [[v.isoformat() if isinstance(v, pd.Timestamp) else v for v in row] for row in strange.astype(object).where(strange.notna(), None).to_numpy().tolist()]
    assert np.array_equal(made.encode(plain), matrix_of(strange, made.fields, made.header["vocabulary"]), equal_nan=True)
    with pytest.raises(MlopsError, match="expected rows x 7 fields"):
        made.predict(np.zeros((2, 3)))


def test_codes_beyond_the_vocabulary_are_unseen(boosted):
    made = CompiledModel.load(boosted[3])
    row = made.encode([["(never seen)", "(never seen)", 1.0, 2, 3.0, True, "2020-01-01"]])
    for wild in (7.0, 1e300, -1e300, np.inf, -np.inf, 0.5e9):
        other = row.copy()
        other[0, 0] = wild
        assert np.array_equal(made.predict(other), made.predict(row)), wild


def test_equal_models_make_equal_bytes(boosted):
    model, form, strange, data = boosted
    _, _, rows, y, _ = make_scene("binary")
    again = clone(model).fit(rows, y)
    assert compile_model(again, form, strange, target_type="binary", positive="yes", threshold=0.3) == data


def test_a_compiled_model_that_differs_is_refused(boosted):
    model, form, strange, data = boosted
    header = header_of(data)
    header["proof"]["expected"][3] = [0.5, 0.5]
    with pytest.raises(MlopsError, match="differs from its pipeline"):
        CompiledModel.load(repacked(data, header=header))


def header_of(data: bytes) -> dict:
    """The header as the file has it."""
    return json.loads(unzip(data, "compiled model")["header.json"])


def repacked(data: bytes, header: dict | None = None, method: int = zipfile.ZIP_STORED, **arrays: np.ndarray) -> bytes:
    """The same file with some members replaced."""
    files = unzip(data, "compiled model")
    if header is not None:
        files["header.json"] = json.dumps(header).encode()
    for name, array in arrays.items():
        sink = io.BytesIO()
        np.save(sink, array, allow_pickle=array.dtype == object)
        files[f"{name}.npy"] = sink.getvalue()
    return zip_of(files, method)


WILD = (-1, -(2**31), 2**31 - 1, 10**6)


@pytest.mark.parametrize("name", ["steps", "refs", "roots", "branch", "outputs"])
def test_poisoned_indices(boosted, name):
    """Every entry of every small array (and many of the large ones) set to wild values: refused, or harmless because nothing reads it."""
    model, _, strange, data = boosted
    header, arrays = unpack(data)
    matrix = matrix_of(strange, header["fields"], header["vocabulary"])
    said = CompiledModel.load(data).predict(matrix)
    rng = np.random.default_rng(0)
    places = list(itertools.product(*map(range, arrays[name].shape)))
    if len(places) > 60:
        places = [places[i] for i in rng.choice(len(places), 60, replace=False)]
    for place, value in itertools.product(places, WILD):
        wild = arrays[name].copy()
        wild[place] = value
        try:
            made = CompiledModel.load(repacked(data, **{name: wild}))
        except MlopsError:
            continue
        if name == "branch" and place[1] == 0 and value < 0 <= arrays[name][place]:  # a question that became a leaf: another tree, as whole as the first
            assert np.isfinite(made.predict(matrix)).all()
        else:  # nothing reads it: the right child of a leaf, say
            assert np.array_equal(made.predict(matrix), said), (name, place, value)


def test_poisoned_files(boosted):
    data = boosted[3]
    header, arrays = unpack(data)
    asks = (arrays["branch"][:, 0] >= 0) & (arrays["branch"][:, 0] & 2 == 2)
    inner = np.flatnonzero(arrays["branch"][:, 0] >= 0)
    loop, sets, table, nan = arrays["branch"].copy(), arrays["threshold"].copy(), arrays["constants"].copy(), arrays["constants"].copy()
    loop[inner[5], 1] = inner[5]
    assert asks.any()
    sets[asks] = 1e9
    look = arrays["steps"][arrays["steps"][:, 0] == STEPS.index("lookup")][0]
    table[look[5]] = 1e12
    nan[look[5]] = np.nan
    last, huge = inner[-1], arrays["steps"].copy()
    huge[-1, 2] = 2**40
    bad = {
        "not a zip": b"PK nothing",
        "empty": b"",
        "cut": data[: len(data) // 2],
        "a circle": repacked(data, branch=loop),
        "sets": repacked(data, threshold=sets),
        "no set": repacked(data, sets=arrays["sets"][:0]),
        "a long table": repacked(data, constants=table),
        "no length": repacked(data, constants=nan),
        "few constants": repacked(data, constants=arrays["constants"][:-3]),
        "few nodes": repacked(data, threshold=arrays["threshold"][:-1]),
        "no last tree": repacked(data, threshold=arrays["threshold"][: arrays["roots"][-1] + 1], branch=arrays["branch"][: arrays["roots"][-1] + 1]),
        "no leaf at the end": repacked(data, threshold=arrays["threshold"][: last + 1], branch=arrays["branch"][: last + 1]),
        "many registers": repacked(data, steps=huge),
        "pickle": repacked(data, refs=np.array([{"a": 1}], dtype=object)),
        "float steps": repacked(data, steps=arrays["steps"].astype(float)),
        "flat steps": repacked(data, steps=arrays["steps"].ravel()),
        "another format": repacked(data, header={**header, "format": 99}),
        "no header": repacked(data, header=[]),
        "fewer fields": repacked(data, header={**header, "fields": header["fields"][:-1], "vocabulary": header["vocabulary"][:-1]}),
        "other vocabulary": repacked(data, header={**header, "vocabulary": [None] * 7}),
        "no proof": repacked(data, header={k: v for k, v in header.items() if k != "proof"}),
        "an empty proof": repacked(data, header={**header, "proof": {"rows": [], "expected": []}}),
        "an odd proof": repacked(data, header={**header, "proof": {"rows": [["a"]], "expected": [[0, 1]]}}),
        "odd fields": repacked(data, header={**header, "fields": 7}),
    }
    for what, file in bad.items():
        with pytest.raises(MlopsError):
            pytest.fail(f"{what} was loaded: {CompiledModel.load(file)}")


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "guess"}, {"task": None}, {"task": ["binary"]}, {"threshold": "0.3"}, {"threshold": True}, {"threshold": float("nan")}, {"threshold": [0.3]}, {"classes": "no"},
        {"classes": []}, {"classes": ["no"]}, {"classes": ["no", "yes", "maybe"]}, {"classes": [["no"], ["yes"]]}, {"classes": None}, {"positive": "perhaps"}, {"positive": ["yes"]}, {"task": "regression"},
        {"task": "regression", "classes": None, "positive": None}, {"fields": [7] * 7}, {"fields": [{"name": 1, "kind": "number"}] * 7}, {"vocabulary": 7}, {"proof": []},
    ],
    ids=str,
)  # fmt: skip
def test_poisoned_headers(boosted, changes):
    data = boosted[3]
    with pytest.raises(MlopsError, match="compiled model refused"):
        CompiledModel.load(repacked(data, header={**header_of(data), **changes}))


def test_poisoned_proofs(boosted):
    data = boosted[3]
    header = header_of(data)
    rows, expected = header["proof"]["rows"], header["proof"]["expected"]
    for proof in ({"rows": [[None, None, 10**400, None, None, None, None]], "expected": expected[:1]}, {"rows": rows * 100, "expected": expected * 100}, {"rows": rows, "expected": "a"}, {"rows": [[[]] * 7], "expected": expected[:1]}):
        with pytest.raises(MlopsError, match="compiled model refused"):
            CompiledModel.load(repacked(data, header={**header, "proof": proof}))


def lying(data: bytes, name: str, size: int) -> bytes:
    """An archive that states another unpacked size for one member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo(name)
    central = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    poisoned = bytearray(data)
    for place in (member.header_offset + 22, central + 24):
        poisoned[place : place + 4] = size.to_bytes(4, "little")
    return bytes(poisoned)


@pytest.mark.parametrize("kind", ["compiled", "model"])
def test_archives_are_bounded(boosted, kind):
    """A few kilobytes that unpack to much more are refused before they do."""
    load, data = (CompiledModel.load, boosted[3]) if kind == "compiled" else (Model.load, Model.dump(np.arange(9.0)))
    files = unzip(data, kind)
    large = min(name for name in files if name.endswith(".npy"))
    many = {**files, large: files[large] + bytes(50_000_000)}
    bombs = {
        "bz2": zip_of(many, zipfile.ZIP_BZIP2),
        "lzma": zip_of(many, zipfile.ZIP_LZMA),
        "bz2, small as it says": lying(zip_of(many, zipfile.ZIP_BZIP2), large, 10),
        "deflated, small as it says": lying(zip_of(many), large, 10),
        "deflated, larger than any": lying(lying(zip_of(many), large, 2**32 - 2), min(set(files) - {large}), 2**32 - 2),
        "nothing": zip_of({}),
    }
    for what, bomb in bombs.items():
        tracemalloc.start()
        with pytest.raises(MlopsError):
            pytest.fail(f"{what} was loaded: {load(bomb)}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000_000, what


def test_archives_in_models_are_bounded():
    """A sparse array is an archive in the archive."""
    from scipy.sparse import csr_matrix

    files = unzip(skops.io.dumps({"x": csr_matrix(np.eye(3))}), "model")
    inner = next(name for name in files if name.endswith(".npz"))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(MlopsError, match="neither stored nor deflated"):
            Model.load(zip_of({**files, inner: zip_of(unzip(files[inner], "model"), method)}))


def test_poisoned_members(boosted):
    data = boosted[3]
    files = unzip(data, "compiled model")
    archive = io.BytesIO()
    np.savez(archive, steps=np.zeros(3))
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<i8", "fortran_order": False, "shape": (1 << 60, 8)})
    for what, changes in {"an archive": {"steps.npy": archive.getvalue()}, "an array larger than memory": {"steps.npy": huge.getvalue()}, "deep JSON": {"header.json": b"[" * 10**5}, "no UTF-8": {"header.json": b"\xff"}}.items():
        with pytest.raises(MlopsError, match="compiled model refused"):
            pytest.fail(f"{what} was loaded: {CompiledModel.load(zip_of({**files, **changes}))}")


def step(what: str, out: int, width: int, src: int = 0, read: int = 0, at: int = 0, first: int = 0, count: int = 0) -> list[int]:
    return [STEPS.index(what), out, width, src, read, at, first, count]


def test_too_much_work(boosted):
    """Each of these reads only what is there, and would keep a service busy for seconds or minutes a row."""
    data = boosted[3]
    _, arrays = unpack(data)
    start = arrays["steps"][-1, 1] + arrays["steps"][-1, 2]
    n = 200_000
    chain = np.stack([np.r_[np.full(n - 1, 2 << 2), -1], np.r_[np.full(n - 1, n - 1), -1]], axis=1).astype(np.int32)
    size = len(arrays["constants"])
    sums = np.array([step("linear", start + 10_000 * k, 10_000, 0, 20_000, 0) for k in range(20)])
    again = np.array([step("trees", start + k, 1, at=size, first=0, count=1) for k in range(20_000)])
    bad = {
        "many trees in one chain": {"roots": np.arange(20_000), "branch": chain, "threshold": np.full(n, -1e300)},
        "one tree many times": {"roots": np.array([0]), "branch": chain, "threshold": np.full(n, -1e300), "steps": again, "constants": np.zeros(size + 2)},
        "wide sums": {"steps": np.concatenate([arrays["steps"], sums]), "refs": np.concatenate([arrays["refs"], np.zeros(20_000, int)]), "constants": np.zeros(10_000 * 20_001)[:1]},
        "many steps": {"steps": np.zeros((3_000_000, 8), int)},
        "many outputs": {"outputs": np.zeros(1_000_000, int)},
        "few outputs": {"outputs": arrays["outputs"][:1]},
    }
    for what, changes in bad.items():
        packed = repacked(data, **changes)
        began = time.process_time()
        with pytest.raises(MlopsError, match="compiled model refused"):
            pytest.fail(f"{what} was loaded: {CompiledModel.load(packed)}")
        assert time.process_time() - began < 3, what  # of the processor, so that a busy machine changes nothing


def test_trees_stay_in_their_place(boosted):
    """Roots rise, a walk stays in its tree, and reads only what was there before its step."""
    data = boosted[3]
    header, arrays = unpack(data)
    roots, branch, steps = arrays["roots"], arrays["branch"], arrays["steps"]
    second = next(k for k, root in enumerate(roots[1:], 1) if branch[roots[k - 1], 0] >= 0)
    astray, later = branch.copy(), branch.copy()
    astray[roots[second - 1], 1] = roots[second]
    trees = steps[steps[:, 0] == STEPS.index("trees")][0]
    later[roots[second - 1], 0] = int(trees[1] + trees[2]) << 2  # what the step after the trees writes
    swapped, twice = roots.copy(), roots.copy()
    swapped[:2] = swapped[1::-1]
    twice[1] = twice[0]
    for what, changes in {"another tree": {"branch": astray}, "a later register": {"branch": later}, "falling roots": {"roots": swapped}, "equal roots": {"roots": twice}}.items():
        with pytest.raises(MlopsError, match="compiled model refused.*tree"):
            pytest.fail(f"{what} was loaded: {CompiledModel.load(repacked(data, **changes))}")


def one_hot(column: str, **filled: object) -> tuple:
    """A column as its categories, gaps filled as is said."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return (make_pipeline(SimpleImputer(**filled), encoder) if filled else encoder), [column]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([one_hot("count")], "OneHotEncoder of count, which is not a category"),
        ([one_hot("flag")], "OneHotEncoder of flag, which is not a category"),
        ([one_hot("few", strategy="most_frequent", add_indicator=True)], "SimpleImputer that fills in text has no compiled form but of categories, without indicator"),
        ([one_hot("few", strategy="constant", fill_value=f) for f in ("plumless", "buckeroo")], "two texts, one of them 'buckeroo', can't be told apart"),  # of one CRC-32
    ],
    ids=["integers", "booleans", "text and where it was missing", "texts of one code"],
)  # fmt: skip
def test_own_recipes_that_cannot_be_compiled(parts, why):
    """The model registers all the same, and its page says why the plain model serves."""
    task, schema, rows, y, strange = make_scene("binary")
    model = make_pipeline(make_column_transformer(*parts), LogisticRegression()).fit(rows, y)
    data, told = compile_version(model, schema, problem(task), 0.5, strange.iloc[:5], rows)
    assert data is None and why in told["why"] and "the plain model serves" in compiled_line(told)


@pytest.mark.parametrize("filled", [{"strategy": "most_frequent"}, {"strategy": "constant"}, {"strategy": "constant", "fill_value": "gap"}])
def test_own_recipes_that_fill_in_text_are_compiled(filled):
    task, schema, rows, y, strange = make_scene("binary")
    model = make_pipeline(make_column_transformer(one_hot("few", **filled)), LogisticRegression()).fit(rows, y)
    data, told = compile_version(model, schema, problem(task), 0.5, strange, rows)
    assert data is not None, told


@pytest.mark.parametrize("said", ["amount=constant 7", "few=most_frequent", "few=constant gap", "few=constant unseen anywhere"])
def test_columns_that_are_filled_by_a_strategy_of_their_own_are_compiled(said):
    task, schema, rows, y, strange = make_scene("binary")
    groups, fills = feature_groups(schema, problem=problem(task)), read_fills([said], schema)
    for recipe, model in ((linear_recipe(groups, "binary", fills=fills), LogisticRegression()), (tree_recipe(groups, fills=fills), HistGradientBoostingClassifier(max_iter=5))):
        fitted = make_pipeline(recipe, model).fit(rows, y)
        data, told = compile_version(fitted, schema, problem(task), 0.5, strange, rows)
        assert data is not None, told
        assert why_not_compilable(fitted) == ""


def test_any_error_of_compiling_is_a_reason(boosted, monkeypatch):
    model, form, strange, _ = boosted
    for name in ("_vocabulary_of", "_written", "pack", "matrix_of"):
        with monkeypatch.context() as patched:
            patched.setattr(f"mlops_nb.model.compile.{name}", lambda *_: {}["k"])
            with pytest.raises(NotCompilable, match="KeyError: 'k'"):
                compile_model(model, form, strange, target_type="binary", positive="yes", threshold=0.3)
    with pytest.raises(MlopsError, match="differs from its pipeline") as failed, monkeypatch.context() as patched:
        patched.setattr("mlops_nb.model.compiled_model.TOLERANCE", -1.0)
        compile_model(model, form, strange, target_type="binary", positive="yes", threshold=0.3)
    assert not isinstance(failed.value, NotCompilable)


def test_register_says_what_to_do_without_numba(boosted, monkeypatch):
    """To install it is not enough: a page that is done is not made again."""
    model, _, strange, _ = boosted
    task, schema, rows, *_ = make_scene("binary")
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "mlops_nb.model.compiled", raising=False)
    monkeypatch.delattr("mlops_nb.model.compiled", raising=False)
    data, told = compile_version(model, schema, problem(task), 0.3, strange.iloc[:5], rows)
    assert data is None and "pip install 'mlops-nb[serve]', then: mlops-nb run --force register" in compiled_line(told)


def test_reasons(scene):
    task, schema, rows, y, strange = scene
    if task == "regression":
        model = make_model("neighbours", recipes(schema, task), task)
        assert why_not_compilable(model) == "KNeighborsRegressor has no compiled form"
        assert why_not_compilable(make_ensemble("stacking", {"a": model}, task)) == "KNeighborsRegressor has no compiled form"
        with pytest.raises(NotCompilable, match="KNeighborsRegressor"):
            compile_model(model.fit(rows, y), schema, strange, target_type="continuous")
    tree = make_model("decision_tree", recipes(schema, task), task)
    forest = Pipeline([("recipe", tree[0]), ("estimator", RandomForestClassifier())])
    assert "voting='hard'" in why_not_compilable(VotingClassifier([("a", forest)]))
    assert "passthrough=True" in why_not_compilable(StackingClassifier([("a", forest)], LogisticRegression(), passthrough=True))


def test_a_worker_imports_numpy_and_numba_only(boosted, tmp_path):
    (tmp_path / "compiled.zip").write_bytes(boosted[3])
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['sklearn', 'pandas', 'scipy', 'mlflow', 'pyarrow', 'skops', 'pydantic', 'yaml']))  # none can be imported\n"
        "from mlops_nb.model.compiled_model import CompiledModel; made = CompiledModel.load(open(sys.argv[1], 'rb').read()); print(made.predict(made.encode([[None] * 7])).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "compiled.zip")], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "(1, 2)"), done.stderr
