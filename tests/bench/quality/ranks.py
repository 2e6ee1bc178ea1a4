"""Tools compared over tables: mean ranks, and how sure they are.

Ranks within a table, ties shared, a tool that failed there last (Demsar 2006, JMLR 7); the interval of a difference
of mean ranks is of
pairs, by the bootstrap over tables, and Wilcoxon's signed-rank test is of the metric's relative differences.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range, wilcoxon


class Pair(NamedTuple):
    "Two tools over the tables that both were tried on."

    tables: int
    difference: float  # of mean ranks, below zero where the first is better
    low: float
    high: float  # 95%
    p: float  # Wilcoxon, two-sided; nan where all are equal


def ranks(values: np.ndarray, greater: np.ndarray) -> np.ndarray:  # tables x tools
    "Rank 1 is best; nan in `values` (a tool that failed) shares the last ranks."
    signed = np.where(greater[:, None], -values, values)
    return np.array([rankdata(np.where(np.isnan(line), np.inf, line)) for line in signed])


def pair(ranked: np.ndarray, relative: np.ndarray, first: int, second: int, resamples: int = 10_000) -> Pair:
    "How far the first tool's mean rank is from the second's; `relative`: the first's lead on each table."
    apart = ranked[:, first] - ranked[:, second]
    means = apart[np.random.default_rng(0).integers(0, len(apart), (resamples, len(apart)))].mean(axis=1)
    known = relative[np.isfinite(relative)]
    p = float(wilcoxon(known).pvalue) if np.any(known != 0) else float("nan")
    return Pair(len(apart), float(apart.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975])), p)


def friedman(ranked: np.ndarray) -> float:  # p; nan with fewer than three tools
    "Whether the tools differ at all."
    return float(friedmanchisquare(*ranked.T).pvalue) if ranked.shape[1] > 2 and len(ranked) > 1 else float("nan")


def critical_difference(tables: int, tools: int, level: float = 0.05) -> float:
    "Nemenyi: mean ranks nearer than this are not told apart, all pairs at once."
    return float(studentized_range.ppf(1 - level, tools, np.inf) / 2**0.5 * (tools * (tools + 1) / (6 * tables)) ** 0.5)
