"""Tables that can't be learnt from as they are: each is a sentence with the way out, before anything is fitted; what can be learnt is."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.base.errors import MlopsError
from mlops_nb.cli.guess import guess_from, guess_task
from mlops_nb.model.conform import learn_schema, with_types
from mlops_nb.model.explanation import _CELLS, column_sources, explain_rows
from mlops_nb.model.problem import Problem
from mlops_nb.stages.features import encoding_folds, make_recipe
from mlops_nb.stages.split import MOST_CLASSES, split_rows
from mlops_nb.stages.train import cross_validate, make_folds, make_model, rank_candidates


def problem(task: str = "multiclass") -> Problem:
    more = {"positive": "yes", "metric": "roc_auc"} if task == "binary" else {"metric": "log_loss"}
    return Problem.model_validate({"name": "made", "goal": "Know", "task": task, "target": "y", "data": {"source": "rows.csv"}} | more)


def table(y, seed: int = 0) -> pd.DataFrame:
    x = np.random.default_rng(seed).normal(size=(len(y), 3))
    return pd.DataFrame(x.round(4), columns=["a", "b", "c"]).assign(y=y)


def answers(n: int = 400) -> np.ndarray:
    x = table(np.zeros(n))["a"].to_numpy()
    return np.where(x + np.random.default_rng(1).normal(size=n) > 0, "yes", "no").astype(object)


def test_a_target_of_ten_thousand_values_looks_like_an_identifier(tmp_path):
    y = [f"k{v}" for v in np.random.default_rng(0).permutation(np.arange(20_000) // 2)]
    table(y).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(MlopsError, match="10,000 different values in 20,000 rows.* looks like an identifier.* --target, or join them"):
        guess_from(tmp_path / "rows.csv", "y")
    with pytest.raises(MlopsError, match=f"10,000 different values in 20,000 rows, 2.0 rows each.* at most {MOST_CLASSES} classes.*rules: .*allowed"):
        split_rows(table(y), problem())
    with pytest.raises(MlopsError, match="or say task: regression"):
        split_rows(table(np.arange(20_000) // 2), problem())


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_class_with_few_rows_is_named_with_the_rule_that_leaves_it_out(rows):
    y = answers()
    y[:rows] = "maybe"
    y[rows:60] = "never"
    said = f"{rows} row{'s' if rows > 1 else ''}"
    assert f"'maybe' has {said} only" in guess_task(pd.Series(y, name="y")).note
    with pytest.raises(MlopsError, match=rf"class 'maybe' has {said}, and a model needs .*allowed: \[never, no, yes\]") as found:
        split_rows(table(y), problem())
    assert "task: binary" not in str(found.value)
    left = table(y)[lambda f: f["y"] != "maybe"].reset_index(drop=True)
    assert set(split_rows(left, problem()).test["y"]) == {"never", "no", "yes"}


def test_two_classes_that_are_left_of_three_are_a_binary_task():
    y = answers()
    y[0] = "maybe"
    with pytest.raises(MlopsError, match=r"allowed: \[no, yes\].* say task: binary"):
        split_rows(table(y), problem())
    with pytest.raises(MlopsError, match="two classes among the rows.* say task: binary and positive: "):
        split_rows(table(answers()), problem())
    assert len(split_rows(table(answers()), problem("binary")).test) > 50


def test_a_class_that_only_the_latest_rows_have():
    y = answers()
    y[-8:] = "new"
    frame = table(y).assign(day=pd.date_range("2024-01-01", periods=400))
    with pytest.raises(MlopsError, match="no train row of class 'new'.* split.valid_from and split.test_from"):
        split_rows(frame, problem(), strategy="time", time="day")
    parts = split_rows(frame, problem())  # by hash, or by quotas where that leaves a part without it
    assert all("new" in set(part["y"]) for part in (parts.train, parts.valid, parts.test))


def test_columns_that_are_constant_in_a_fold_are_learnt_with():
    y = answers(300)
    frame = table(y).assign(almost=0.0, word="n", gap=np.nan, flag=False)
    frame.loc[5, "almost"], frame.loc[9, "word"], frame.loc[[11, 12], "gap"], frame.loc[7, "flag"] = 1.0, "m", [2.5, 3.5], True
    about = problem("binary")
    form = learn_schema(frame, about)
    frame = with_types(frame, form)
    made = make_recipe(form, about, folds=encoding_folds(frame["y"], about))
    fold_of = make_folds(frame, about, 3)
    assert any(frame.loc[fold_of != f, "word"].nunique() == 1 for f in range(3))
    names = ["dummy", "linear", "naive_bayes", "decision_tree", "gradient_boosting"]
    models = {n: make_model(n, made, "binary") for n in names}
    ranked = rank_candidates(cross_validate(models, frame, about, fold_of), models, about)
    assert {e["name"] for e in ranked} == set(names) and all(np.isfinite(e["scores"]).all() for e in ranked)


class _Asked:
    """A transformer and a model of many columns that counts what it is asked."""

    def __init__(self, columns: int):
        self.calls, self.largest, self.feature_names_in_ = 0, 0, np.array([f"g{k}" for k in range(columns)], dtype=object)
        self.classes_ = np.array(["no", "yes"])

    def transform(self, rows: pd.DataFrame) -> np.ndarray:
        self.calls += 1
        values = rows.to_numpy(float)
        return np.column_stack([values[:, ::-1], np.ones(len(values))])

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        self.calls, self.largest = self.calls + 1, max(self.largest, rows.size)
        chance = 1 / (1 + np.exp(-rows.to_numpy(float)[:, :3].sum(axis=1)))
        return np.column_stack([1 - chance, chance])


def test_many_columns_cost_no_square_of_transforms_and_no_square_of_memory():
    columns = 900
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(40, columns)), columns=[f"g{k}" for k in range(columns)])
    recipe = _Asked(columns)
    assert column_sources(recipe, rows).tolist() == [*range(columns)[::-1], -1]
    assert recipe.calls < 40
    model = _Asked(columns)
    found = explain_rows(model, rows[:1], rows[10:40], positive="yes")
    assert model.largest <= _CELLS and np.abs(found.values[0, 3:]).max() < 1e-12 < found.gap + 1e-9
    assert abs(found.base[0] + found.values[0].sum() - found.said[0]) < 1e-9


def test_inputs_of_two_columns_are_named():
    recipe = _Asked(5)
    recipe.transform = lambda rows: np.column_stack([rows["g1"] * rows["g4"], rows["g2"]])
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 5)), columns=[f"g{k}" for k in range(5)])
    with pytest.raises(MlopsError, match="1 of the estimator's inputs are made from several columns, e.g. from g1 and g4"):
        column_sources(recipe, rows)
