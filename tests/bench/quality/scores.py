"""What predictions are worth on held-out rows, and how far two tools are apart there, beside what is chance of those
rows.

One metric a task ranks the tools: ROC AUC, log loss, RMSE. Probabilities are cut at 1e-6, so that one sure and wrong
answer costs 13.8, not infinity.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

LEAST = 1e-6
METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
GREATER = {"roc_auc": True, "log_loss": False, "rmse": False}
RESAMPLES = 200


class Answers(NamedTuple):
    "Truth and predictions of the same rows: classes by number and probabilities, or numbers."

    task: str
    truth: np.ndarray  # n
    said: np.ndarray  # n x classes, or n


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    "Area under the ROC curve (Mann-Whitney); nan where one class is missing."
    positive = truth.sum()
    if positive in (0, len(truth)):
        return float("nan")
    return (rankdata(score)[truth == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive))


def losses(answers: Answers) -> np.ndarray:
    "What each row adds: its log loss, or its squared error."
    if answers.task == "regression":
        return (answers.truth - answers.said) ** 2
    proba = np.clip(answers.said[np.arange(len(answers.truth)), answers.truth], LEAST, 1)
    return -np.log(proba)


def ece(answers: Answers, bins: int = 15) -> float:
    "Expected calibration error in bins of equally many rows: of the second of two classes, else of the likeliest."
    binary = answers.said.shape[1] == 2
    sure = answers.said[:, 1] if binary else answers.said.max(axis=1)
    right = answers.truth == 1 if binary else answers.said.argmax(axis=1) == answers.truth
    parts = np.array_split(np.argsort(sure, kind="stable"), min(bins, len(sure)))
    return float(sum(len(p) / len(sure) * abs(sure[p].mean() - right[p].mean()) for p in parts))


def scores(answers: Answers) -> dict[str, float]:
    "Every figure of one tool on one division of a table."
    if answers.task == "regression":
        mean = float(losses(answers).mean())
        return {
            "rmse": mean**0.5,
            "r2": 1 - mean / float(np.var(answers.truth)),
            "mae": float(np.abs(answers.truth - answers.said).mean()),
        }
    one_hot = np.eye(answers.said.shape[1])[answers.truth]
    found = {
        "log_loss": float(losses(answers).mean()),
        "brier": float(((answers.said - one_hot) ** 2).sum(axis=1).mean()),
        "ece": ece(answers),
    }
    found["accuracy"] = float((answers.said.argmax(axis=1) == answers.truth).mean())
    return found | ({"roc_auc": auc(answers.truth, answers.said[:, 1])} if answers.task == "binary" else {})


def primary(answers: Answers, rows: np.ndarray | slice = slice(None)) -> float:
    "The metric that ranks, on some of the rows."
    part = Answers(answers.task, answers.truth[rows], answers.said[rows])
    if answers.task == "binary":
        return auc(part.truth, part.said[:, 1])
    mean = float(losses(part).mean())
    return mean**0.5 if answers.task == "regression" else mean


def lead(
    one: Answers, other: Answers, resamples: int = RESAMPLES
) -> tuple[float, float]:  # by how much one is better; its standard error
    "The paired difference in the metric, above zero where the first is better; its standard error by the bootstrap."
    sign = 1 if GREATER[METRIC[one.task]] else -1
    draw, n = np.random.default_rng(0), len(one.truth)
    apart = [primary(one, rows) - primary(other, rows) for rows in (draw.integers(0, n, n) for _ in range(resamples))]
    return sign * (primary(one) - primary(other)), float(np.nanstd(apart, ddof=1))
