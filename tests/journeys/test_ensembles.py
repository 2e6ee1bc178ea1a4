"""Ensembles as they are chosen, on made tables: on rows that nobody has seen they are better than the best single model, on average."""

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

from mlops_nb.base.artifacts import Model, Table
from mlops_nb.model.conform import learn_schema
from mlops_nb.model.problem import Problem, check_problem
from mlops_nb.model.out_of_fold import out_of_fold_table
from mlops_nb.stages.ensemble import blend, choose_model, compare, ensemble_said, fit_and_count, fit_final, hold_contest, known_fits, refit
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import able_candidates, cross_validate, make_folds, make_model, rank_candidates, truth_of
from mlops_nb.stages.tune import choose_models, tune_models, tuned_result

SMALL = {"linear": {}, "naive_bayes": {}, "random_forest": {"n_estimators": 40}, "extra_trees": {"n_estimators": 40, "min_samples_leaf": 1}, "gradient_boosting": {"max_iter": 40}}


def table(seed: int) -> tuple[pd.DataFrame, pd.DataFrame, Problem]:
    """Few rows to learn from, many to judge by: two classes, three classes or a number."""
    rng, n, m = np.random.default_rng(seed), 300, 3000
    if seed % 3 == 2:
        made = [lambda: datasets.make_friedman1(n + m, 8, noise=2, random_state=seed), lambda: datasets.make_friedman2(n + m, noise=100, random_state=seed),
                lambda: datasets.make_regression(n + m, 10, n_informative=5, noise=40, random_state=seed)]  # fmt: skip
        X, y = made[seed // 3 % 3]()
        how = {"task": "regression", "metric": "r2"}
    else:
        classes = 2 + seed % 3
        X, y = datasets.make_classification(n + m, 10, n_informative=5, n_classes=classes, n_clusters_per_class=int(rng.integers(1, 4)), flip_y=0.1, random_state=seed)
        y = np.array(["a", "b", "c"])[y]
        how = {"task": "binary", "metric": "roc_auc", "positive": "b"} if classes == 2 else {"task": "multiclass", "metric": "log_loss"}
    frame = pd.DataFrame(X.round(3), columns=[f"c{i}" for i in range(X.shape[1])]).assign(y=y)
    problem = check_problem({"name": "made", "goal": "none", "target": "y", "data": {"source": "made"}, **how})
    return frame.iloc[:n].reset_index(drop=True), frame.iloc[n:].reset_index(drop=True), problem


def gain_of(seed: int) -> float:
    """By what share of its score the chosen is better on test rows than the single model that is best over folds."""
    train, test, problem = table(seed)
    made, (kind, metric) = make_recipe(learn_schema(train, problem), problem), (problem.kind, problem.metric)
    singles = {n: make_model(n, made, problem.task, 0, SMALL[n]) for n in SMALL if n in able_candidates(SMALL, problem.task)}
    fold_of = make_folds(train, problem, 5, 0)
    fits, truth = cross_validate(singles, train, problem, fold_of), truth_of(train, problem)
    scores = {n: [f.scores[metric] for f in done] for n, done in fits.items()}
    for name in ("voting", "stacking"):
        said = ensemble_said(name, fits, train, problem, fold_of)
        scores[name] = [kind.scores(a, truth[fold_of == f], [metric])[metric] for f, a in enumerate(said)]
    chosen, _, rows = compare(scores, list(singles), problem)
    best = next(r["name"] for r in rows if r["name"] in singles)
    if chosen == best:
        return 0.0
    y_true = truth_of(test, problem)
    said = {name: fitted.said for name, fitted in fit_and_count(singles, train, test, problem).items()}
    joint = blend(chosen, said, problem, fit_final(chosen, fits, train, problem, fold_of))
    after, before = (kind.scores(a, y_true, [metric])[metric] for a in (joint, said[best]))
    return (after - before) * (1 if problem.greater_is_better else -1) / abs(before)


@pytest.mark.slow
@pytest.mark.parametrize("count", [9, pytest.param(45, marks=pytest.mark.deep)])
def test_what_is_chosen_is_better_on_rows_that_nobody_has_seen(count):
    gains = np.array([gain_of(seed) for seed in range(count)])
    assert (gains != 0).sum() > count / 3  # they are used
    assert gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(count) and (gains < 0).sum() <= count / 6 and gains.min() > -0.02


@pytest.mark.parametrize("seed", [0, 1, 2])  # two classes, three classes, a number
def test_answers_that_are_kept_are_the_ones_that_a_fit_gives(seed):
    """The ensemble's choice, and its model's bytes, are the same whether train's and tune's answers are read or fitted anew."""
    frame, others, problem = table(seed)
    others = others.head(200)
    made, fold_of = make_recipe(learn_schema(frame, problem), problem), make_folds(frame, problem, 3, 0)
    models = {n: make_model(n, made, problem.task, 0) for n in ("linear", "decision_tree", "random_forest", "gradient_boosting")}
    fits = cross_validate(models, frame, problem, fold_of)
    board = {"candidates": rank_candidates(fits, models, problem), "greater_is_better": problem.greater_is_better, "folds": 3, "seed": 0}
    searches, capped = tune_models(choose_models(board, 3), frame, problem, made, fold_of, trials=3)
    result = tuned_result(searches, capped, board, problem)
    given = {n: [f.said for f in done] for n, done in fits.items()}, {s.name: s.said for s in searches if s.said}
    kept = tuple(Table.load(Table.dump(out_of_fold_table(said, fold_of, frame["y"], problem))) for said in given)
    assert set(known_fits(result, kept, list(models), frame, problem, fold_of)) == set(models)
    assert given[1]  # some were tuned
    read, fitted = (hold_contest(result, frame, others, problem, made, tables=tables) for tables in (kept, None))
    assert read.candidates == fitted.candidates and read.why == fitted.why and read.luck == fitted.luck
    assert np.array_equal(read.answers.given, fitted.answers.given)
    both = [refit(choose_model(one, frame, others, problem), [frame, others], problem) for one in (read, fitted)]
    assert Model.dump(both[0]) == Model.dump(both[1])
