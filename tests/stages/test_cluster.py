"""Clusters that are there are found, those that aren't are not, and what is served is the model: simulations whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline

from mlops_nb.base.errors import why_refused
from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.conform import conform, learn_schema
from mlops_nb.model.problem import Problem
from mlops_nb.model.segments import Segments
from mlops_nb.stages.cluster import choose_way, density_view, expected_silhouettes, find_segments, matrix_for, numbers_of_segments, ranked, reference_for
from mlops_nb.stages.cluster import assigning
from mlops_nb.stages.evaluate_clusters import evaluate_segments
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.ingest import check_columns
from mlops_nb.stats.clusters import evenly_spread, structure, trials

TASK = Problem.model_validate({"name": "kinds", "goal": "know them", "task": "clustering", "target": "segment", "metric": "silhouette", "data": {"source": "rows.csv"}})


def blobs(k: int, d: int, n: int, seed: int, sep: float = 6.0, noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """k round clusters whose nearest two centres are `sep` standard deviations apart, and columns that say nothing."""
    rng = np.random.default_rng(seed)
    while True:
        centres = rng.normal(size=(k, d))
        apart = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(k, 1)]
        if apart.max() < 2.5 * apart.min():
            break
    true = rng.integers(k, size=n)
    return np.hstack([(centres * sep / apart.min())[true] + rng.normal(size=(n, d)), rng.normal(size=(n, noise))]), true


def framed(X: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])


def chosen(frame: pd.DataFrame, ks: range = range(2, 8), repeats: int = 8) -> tuple[dict, Pipeline]:
    """As the stage chooses, by k-means."""
    made = make_recipe(learn_schema(frame, TASK), TASK)
    laid, X = matrix_for(made, frame, TASK)
    tried = {("kmeans", k): trials(assigning("kmeans", k), X, repeats) for k in ks}
    way = choose_way(ranked(tried, expected_silhouettes(reference_for(laid, frame), ks), 0.01), 0.01)[0]
    return way, find_segments(made, way, frame, frame.head(0), TASK)


@pytest.mark.deep
@pytest.mark.parametrize(("k", "d", "noise"), [(2, 2, 0), (3, 2, 1), (4, 4, 0), (5, 6, 0)])
def test_clusters_that_are_there_are_found(k, d, noise):
    """Their number in at least 9 of 12 tables, and the rows in them."""
    right, agreement = 0, []
    for seed in range(12):
        X, true = blobs(k, d, 400, seed, noise=noise)
        way, model = chosen(framed(X))
        right += way["k"] == k
        agreement += [adjusted_rand_score(true, model.predict(framed(X)))] if way["k"] == k else []
    assert right >= 9, right
    assert np.mean(agreement) > 0.95


@pytest.mark.deep
@pytest.mark.parametrize("rows", ["uniform", "one Gaussian", "a ball in ten dimensions"])
def test_none_is_found_where_there_is_none(rows):
    """Of 60 tables without clusters at most 7 show structure at 0.05: 3 are expected, and 8 or more by luck in one of 66."""
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        X = {"uniform": lambda r: r.uniform(size=(200, 2)), "one Gaussian": lambda r: r.normal(size=(200, 3)), "a ball in ten dimensions": lambda r: r.normal(size=(200, 10))}[rows](rng)
        found += structure(X, lambda draw, X=X: evenly_spread(X, draw), range(2, 5), 19, seed).p <= 0.05
    assert found <= 7, found


def test_structure_is_seen_where_it_is():
    X, _ = blobs(3, 2, 300, 0)
    assert structure(X, lambda draw: evenly_spread(X, draw), range(2, 5), 19).p == 0.05


def test_more_distance_is_more_stability():
    """Agreement of two draws rises with the distance of clusters, and falls where k is too large."""
    by_distance = [trials(assigning("kmeans", 3), blobs(3, 2, 400, 1, sep)[0], 6).agreement.mean() for sep in (0.5, 2.5, 6.0)]
    assert by_distance[0] < by_distance[1] < by_distance[2] and by_distance[2] > 0.95
    assert trials(assigning("kmeans", 7), blobs(3, 2, 400, 1)[0], 6).agreement.mean() < by_distance[2] - 0.1


def test_figures_are_the_librarys():
    X, _ = blobs(3, 3, 400, 2)
    frame = framed(X)
    model = find_segments(make_recipe(learn_schema(frame, TASK), TASK), {"method": "kmeans", "k": 3}, frame[:200], frame[200:260], TASK)
    outcome, _, _ = evaluate_segments(TASK, model, frame[:200], frame[260:].reset_index(drop=True), {}, resamples=4)
    laid, put = model[:-1].transform(frame[260:]), model.predict(frame[260:])
    own = {"silhouette": silhouette_score, "davies_bouldin": davies_bouldin_score, "calinski_harabasz": calinski_harabasz_score}
    for name, figure in own.items():
        assert outcome["metrics"][name]["value"] == pytest.approx(figure(laid, put), rel=1e-5)
        assert outcome["metrics"][name]["low"] < outcome["metrics"][name]["value"] < outcome["metrics"][name]["high"]
    assert sum(s["rows"] for s in outcome["segments"]) == 140


MIXED = pd.DataFrame({"a": np.random.default_rng(3).normal(size=400), "b": np.random.default_rng(4).lognormal(1, 1, 400), "c": np.random.default_rng(5).choice(["x", "y", "z"], 400)}).astype({"c": "str"})


@pytest.mark.parametrize("components", [0, 2, 0.8])
@pytest.mark.parametrize(("method", "k"), [("kmeans", 2), ("kmeans", 5), ("minibatch", 3), ("gaussian_mixture", 2), ("gaussian_mixture", 4)])
def test_what_is_served_is_the_model(method, k, components):
    """Compiled, on rows at random, gaps and unseen words among them: as recipe and clusterer say."""
    frame = MIXED.assign(b=MIXED["b"].where(MIXED.index % 7 > 0))
    form = learn_schema(frame, TASK)
    model = find_segments(make_recipe(form, TASK, components=components), {"method": method, "k": k}, frame[:300], frame[300:], TASK)
    rng = np.random.default_rng(6)
    odd = conform(pd.DataFrame({"a": rng.normal(0, 5, 500), "b": np.where(rng.random(500) < 0.2, np.nan, rng.normal(0, 50, 500)), "c": rng.choice(["x", "y", "z", "never seen"], 500)}), form)
    served = CompiledModel.load(compile_model(model, form, odd, target_type=TASK.kind.target_type))
    answers = served.predict(served.encode(odd.astype(object).where(odd.notna(), None).to_numpy().tolist()))
    assert np.allclose(answers, model.predict_proba(odd), rtol=1e-9, atol=1e-12)
    assert (model.classes_[answers.argmax(axis=1)] == model.predict(odd)).all()


def test_a_mixture_says_what_scikit_learn_says():
    X, _ = blobs(3, 3, 500, 5, 3.0)
    mine, own = Segments("gaussian_mixture", 3).fit(X), GaussianMixture(3, covariance_type="diag", reg_covar=1e-3, n_init=8, random_state=0, max_iter=300).fit(X)
    assert adjusted_rand_score(mine.predict(X), own.predict(X)) == 1.0
    assert np.allclose(np.sort(mine.predict_proba(X)), np.sort(own.predict_proba(X)), atol=1e-9)


def kinds_with_gaps(rows: int = 900, share: float = 0.04) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Three kinds, who is of which, and whose spending nobody knows."""
    rng = np.random.default_rng(0)
    true = rng.choice(3, rows, p=[0.4, 0.35, 0.25])
    near = lambda centres, spread: np.array(centres)[true] + rng.normal(0, spread, rows)  # noqa: E731
    frame = pd.DataFrame({"visits": near([2.0, 12.0, 22.0], 1.2), "spend": near([80.0, 20.0, 50.0], 5), "age": near([30.0, 50.0, 65.0], 4)})
    unknown = rng.random(rows) < share
    return frame.assign(spend=frame["spend"].mask(unknown)), true, unknown


def test_rows_with_a_gap_go_with_their_kind():
    """What is missing at random is no segment: as many as were planted, and incomplete rows are where they belong, compiled too."""
    frame, true, unknown = kinds_with_gaps()
    way, model = chosen(frame, range(2, 6), 4)
    put = model.predict(frame)
    assert way["k"] == 3 and way["stability"] > 0.95
    assert adjusted_rand_score(true, put) > 0.95 and unknown.sum() > 25 and adjusted_rand_score(true[unknown], put[unknown]) > 0.9
    form = learn_schema(frame, TASK)
    served = CompiledModel.load(compile_model(model, form, frame, target_type=TASK.kind.target_type))
    said = served.predict(served.encode(frame.astype(object).where(frame.notna(), None).to_numpy().tolist()))
    assert np.allclose(said, model.predict_proba(frame), rtol=1e-9, atol=1e-12)


def test_names_last():
    """A refit on other rows of the same kind keeps the names, though sizes have changed."""
    X, true = blobs(3, 2, 900, 7)
    first = Segments("kmeans", 3).fit(X)
    rare = X[(first.predict(X) != "segment 1") | (np.arange(900) % 6 == 0)]
    again = clone(first).fit(rare, first.predict(rare))
    assert (again.predict(X) == first.predict(X)).mean() > 0.99 and again.sizes_[0] < again.sizes_[1]


BAD = {
    "twenty rows": (lambda: numbers_of_segments([], 8, np.random.default_rng(0).normal(size=(20, 3))), "20 training rows are too few to look for segments; expected 50 at least"),
    "one segment": (lambda: numbers_of_segments([1], 8, np.arange(40.0)[:, None]), "no division of the rows; expected numbers from 2 on"),
    "more than rows differ": (lambda: numbers_of_segments([9], 8, np.repeat(np.arange(10.0), 5)[:, None]), "differ in 10 ways: 4 can be compared"),
    "rows that hardly differ": (lambda: numbers_of_segments([], 8, np.repeat([1.0, 2.0], 50)[:, None]), "differ in 2 ways only"),
    "more in a fit than rows differ": (lambda: Segments(k=3).fit(np.repeat([[1.0], [2.0]], 9, axis=0)), "3 segments were asked for and the rows differ in 2 ways only"),
    "columns that are all constant": (lambda: chosen(pd.DataFrame({"a": [1.0] * 50, "b": [2.0] * 50})), "see that some column differs"),
    "a cluster of one row": (lambda: chosen(framed(np.vstack([np.random.default_rng(0).normal(size=(300, 2)), [[1e4, 1e4]]])), range(2, 3)), "features.derive=log"),
    "an answer that is a column": (lambda: check_columns(pd.DataFrame({"segment": [1], "a": [2]}), TASK), "give it another name"),
    "columns kept by a target": (lambda: make_recipe(learn_schema(MIXED, TASK), TASK, keep=50), "chooses columns by the target"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_told_with_the_way_out(what):
    call, expected = BAD[what]
    assert expected in why_refused(call)


def test_noise_is_noise_to_hdbscan():
    seen = density_view(np.random.default_rng(1).uniform(size=(300, 6)))
    assert seen["k"] == 0 and seen["said"].startswith("all rows are noise")
