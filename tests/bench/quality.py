"""Is our winner at least as good as plain boosted trees?

Over five fixed seeds of the split: mean test ROC AUC of the model that our pipeline ships (features, train, tune and ensemble with the knobs
that the notebooks and the charter set, in one process) against scikit-learn's HistGradientBoostingClassifier with its defaults, category
columns as categories, fitted on the same training and validation rows. The charter's own seed is one of the five and is not tuned.
The time cap of the search is lifted, so that the figures don't depend on the machine.

    python tests/bench/quality.py                # about 45 s of processor time a seed
    python tests/bench/quality.py --seeds 1 --rows 3000
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from _figures import tell
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from mlops_nb.base.charter import Charter, load_charter
from mlops_nb.sources.files import source_file
from mlops_nb.pipeline.signatures import read_stage
from mlops_nb.stages.ensemble import choose_model, hold_contest, refit
from mlops_nb.stages.features import make_recipe
from mlops_nb.model.problem import Problem, check_problem
from mlops_nb.model.metrics import metric_value
from mlops_nb.model.model_types import MODEL_TYPES
from mlops_nb.model.conform import learn_schema
from mlops_nb.stages.split import split_rows
from mlops_nb.stages.train import answers_of, cross_validate, features_of, make_folds, make_model, rank_candidates, truth_of
from mlops_nb.stages.tune import choose_models, tune_models, tuned_result
from mlops_nb.stages.validate import judge_rows

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2, 3, 4)  # of split.seed; fixed


def knobs(charter: Charter, stage: str) -> dict[str, Any]:
    "The knobs of a stage as a run of this charter has them."
    notebook = next((ROOT / "nbs" / "stages").glob(f"*_{stage}.ipynb"))
    return {name: knob.read(charter.knobs.get(stage, {}).get(name, knob.default)) for name, knob in read_stage(notebook).knobs.items()}


def ours(charter: Charter, stated: Problem, train: pd.DataFrame, valid: pd.DataFrame) -> tuple[Any, str]:
    "Our winner, fitted on training and validation rows, and its name."
    k = {stage: knobs(charter, stage) for stage in ("features", "train", "tune", "ensemble")}
    of = {name: k["features"][name] for name in ("derive", "rare", "max_onehot", "keep", "seed")}
    recipe = make_recipe(learn_schema(train, stated), stated, **of)
    fold_of = make_folds(train, stated, k["train"]["folds"], k["train"]["seed"])
    models = {n: make_model(n, recipe, stated.task, k["train"]["seed"]) for n in k["train"]["candidates"] if n in MODEL_TYPES}
    ranked = rank_candidates(cross_validate(models, train, stated, fold_of), models, stated)
    board = {"metric": stated.metric, "greater_is_better": stated.greater_is_better, "folds": k["train"]["folds"], "seed": k["train"]["seed"], "candidates": ranked}
    searched = choose_models(board, k["tune"]["n_models"])
    searches, capped = tune_models(searched, train, stated, recipe, fold_of, trials=k["tune"]["trials"], seconds=float("inf"), seed=k["tune"]["seed"])
    result = tuned_result(searches, capped, board, stated, k["tune"]["seed"])
    contest = hold_contest(result, train, valid, stated, recipe, k["ensemble"]["min_gain"], k["ensemble"]["seed"])
    choice = choose_model(contest, train, valid, stated, k["ensemble"]["calibrate"])
    return refit(choice, [train, valid], stated), choice.name


def baseline(stated: Problem, rows: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    "Probabilities of the positive class by boosted trees with scikit-learn's defaults."
    known, asked = features_of(rows, stated).copy(), features_of(test, stated).copy()
    for name in known.columns[[not pd.api.types.is_numeric_dtype(d) for d in known.dtypes]]:
        known[name] = known[name].astype("category")
        seen = known[name].cat.categories
        asked[name] = asked[name].where(asked[name].isin(seen)).astype(pd.CategoricalDtype(seen))
    plain = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0).fit(known, truth_of(rows, stated))
    return plain.predict_proba(asked)[:, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the five fixed seeds")
    parser.add_argument("--rows", type=int, default=None, help="rows to use; default: all")
    asked = parser.parse_args()
    charter = load_charter(ROOT / "nbs" / "charters" / "income.yaml")
    stated = check_problem(charter.statement())
    rows = judge_rows(pd.read_parquet(source_file(charter, ROOT).path), stated).rows
    rows = rows.sample(min(asked.rows or len(rows), len(rows)), random_state=0, ignore_index=True)
    k = {name: value for name, value in knobs(charter, "split").items() if name != "seed"}
    auc: dict[str, list[float]] = {"ours": [], "baseline": []}
    for seed in SEEDS[: asked.seeds]:
        start = time.monotonic()
        parts = split_rows(rows, stated, **k, seed=seed)
        model, name = ours(charter, stated, parts.train, parts.valid)
        truth = truth_of(parts.test, stated)
        auc["ours"].append(metric_value("roc_auc", truth, answers_of(model, features_of(parts.test, stated), stated).proba))
        plain = baseline(stated, pd.concat([parts.train, parts.valid], ignore_index=True), parts.test)
        auc["baseline"].append(metric_value("roc_auc", truth, plain))
        print(f"seed {seed}: {name} {auc['ours'][-1]:.5f}, baseline {auc['baseline'][-1]:.5f}, {time.monotonic() - start:.0f} s", flush=True)
    mean = {who: float(np.mean(values)) for who, values in auc.items()}
    wins = sum(a >= b for a, b in zip(*auc.values(), strict=True))
    print(f"{len(rows):,} rows; better in {wins} of {len(auc['ours'])} seeds")
    tell("quality_auc", mean["ours"], f">={mean['baseline']:.5f}", mean["ours"] >= mean["baseline"])
    tell("quality_auc_ratio", mean["ours"] / mean["baseline"], ">=1", mean["ours"] >= mean["baseline"])


if __name__ == "__main__":
    main()
