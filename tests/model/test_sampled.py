"""Rows to compare on: a sample that is divided as all rows are, and what is chosen on it is fitted on all."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import datasets

from mlops_nb.base.artifacts import Model, Table
from mlops_nb.model.conform import learn_schema
from mlops_nb.model.out_of_fold import out_of_fold_table
from mlops_nb.model.problem import Problem, check_problem
from mlops_nb.model.sampled import sampled_rows
from mlops_nb.stages.ensemble import choose_model, hold_contest, known_fits, refit
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import cross_validate, make_folds, make_model, rank_candidates
from mlops_nb.stages.tune import choose_models, tune_models, tuned_result

TASKS = {"binary": ("roc_auc", "b"), "multiclass": ("log_loss", None), "regression": ("r2", None)}


def problem_of(task: str) -> Problem:
    metric, positive = TASKS[task]
    told = {"task": task, "metric": metric} | ({"positive": positive} if positive else {})
    return check_problem({"name": "made", "goal": "none", "target": "y", "data": {"source": "made"}, **told})


def alone(n: int) -> pd.DataFrame:
    return pd.DataFrame({"part": "train", "entity": np.arange(n)})


def rows(y) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(len(y)), "y": y})


def test_classes_keep_their_shares_and_a_rare_one_stays():
    draw = np.random.default_rng(0)
    y = draw.choice(["a", "b", "c"], 40_000, p=[0.7, 0.29, 0.01])
    y[:7], y[7:30] = "d", "e"  # of 40,000
    some = sampled_rows(rows(y), problem_of("multiclass"), alone(40_000), 4000).frame
    counts, whole = some["y"].value_counts(), pd.Series(y).value_counts()
    assert abs(counts[["a", "b", "c"]] - whole[["a", "b", "c"]] / 10).max() <= 1
    assert counts["d"] == 7 and 9 <= counts["e"] <= 11


@pytest.mark.parametrize("task", list(TASKS))
def test_each_row_is_as_probable_as_another(task):
    """Over many seeds each row is in the sample as often as chance would have it: nothing is favoured."""
    draw, n, most, times = np.random.default_rng(1), 600, 150, 400
    y = draw.exponential(size=n) if task == "regression" else draw.choice(["a", "b", "c"][: 2 + (task == "multiclass")], n)
    things = alone(n).assign(entity=np.repeat(np.arange(n // 2), 2))
    for given in (alone(n), things, alone(n).assign(moment=draw.permutation(n).astype(float))):
        seen = np.zeros(n)
        for seed in range(times):
            seen[sampled_rows(rows(y), problem_of(task), given, most, seed).frame["x"]] += 1
        off = (seen / times - most / n) / np.sqrt(most / n * (1 - most / n) / times)
        assert abs(off).max() < stats.norm.isf(0.001 / n / 9)


def test_groups_are_whole_and_a_few_large_ones_are_all_there():
    draw, n = np.random.default_rng(2), 20_000
    y = draw.choice(["a", "b"], n)
    small = np.sort(draw.integers(0, 4000, n))
    some = sampled_rows(rows(y), problem_of("binary"), alone(n).assign(entity=small), 2000)
    assert (np.bincount(some.things, minlength=4000)[np.unique(some.things)] == np.bincount(small)[np.unique(some.things)]).all()
    assert 1800 < len(some.frame) < 2200
    three = np.sort(draw.choice(3, n, p=[0.6, 0.3, 0.1]))
    thinned = sampled_rows(rows(y), problem_of("binary"), alone(n).assign(entity=three), 2000)
    assert abs(np.bincount(thinned.things) - np.bincount(three) / 10).max() < 60 and len(thinned.frame) == 2000


@pytest.mark.parametrize("task", list(TASKS))
def test_what_is_kept_of_a_sample_is_read_and_who_wins_learns_from_all(task):
    """The ensemble reads train's and tune's answers about the sampled rows, and fits nothing anew but the winner, on all rows."""
    if task == "regression":
        X, y = datasets.make_friedman1(1400, 8, noise=1, random_state=0)
    else:
        X, y = datasets.make_classification(1400, 8, n_informative=5, n_classes=2 + (task == "multiclass"), random_state=0)
        y = np.array(["a", "b", "c"])[y]
    frame, problem = pd.DataFrame(X.round(3), columns=[f"c{k}" for k in range(8)]).assign(y=y), problem_of(task)
    whole, others = frame.iloc[:1200].reset_index(drop=True), frame.iloc[1200:].reset_index(drop=True)
    some = sampled_rows(whole, problem, alone(1200), 300)
    made, fold_of = make_recipe(learn_schema(whole, problem), problem), make_folds(some.frame, problem, 3, 0, some.things)
    models = {n: make_model(n, made, problem.task, 0) for n in ("linear", "random_forest", "gradient_boosting")}
    fits = cross_validate(models, some.frame, problem, fold_of)
    board = {"candidates": rank_candidates(fits, models, problem), "greater_is_better": problem.greater_is_better, "folds": 3, "seed": 0, "search_rows": 300}
    searches, capped = tune_models(choose_models(board, 2), some.frame, problem, made, fold_of, trials=3)
    result = tuned_result(searches, capped, board, problem)
    given = {n: [f.said for f in done] for n, done in fits.items()}, {s.name: s.said for s in searches if s.said}
    kept = tuple(Table.load(Table.dump(out_of_fold_table(said, fold_of, some.frame["y"], problem))) for said in given)
    assert result["search_rows"] == 300 and set(known_fits(result, kept, list(models), some.frame, problem, fold_of)) == set(models)
    told = some.frame, others, problem, made, 0.001, 0, some.things, None
    read, fitted = (hold_contest(result, *told, tables=tables, whole=whole) for tables in (kept, None))
    assert read.candidates == fitted.candidates and read.why == fitted.why
    assert np.array_equal(read.answers.given, fitted.answers.given)
    model = refit(choose_model(read, whole, others, problem), [whole, others], problem)
    again = refit(choose_model(fitted, whole, others, problem), [whole, others], problem)
    assert Model.dump(model) == Model.dump(again)
    by_sample = hold_contest(result, *told, tables=kept)
    assert by_sample.name == read.name and not np.array_equal(by_sample.answers.given, read.answers.given)  # it learnt from less
