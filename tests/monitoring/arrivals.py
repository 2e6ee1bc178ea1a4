"""Labels that come at different speeds by outcome, and what a window's quality is by them."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.special import expit

from mlops_nb.base.charter import Monitoring
from mlops_nb.monitoring.awaited import Awaited, Late, late_of
from mlops_nb.monitoring.quality import quality_of
from mlops_nb.monitoring.windows import Part
from mlops_nb.registry.evidence import Evidence, as_evidence

NOW, DAY = datetime(2025, 6, 1, tzinfo=UTC), 86_400.0
RULES = Monitoring(min_labels=50, quality_drop=0.0)
CUT = 0.35


class Rows(NamedTuple):
    proba: np.ndarray
    real: np.ndarray  # bools
    age: np.ndarray  # days
    delay: np.ndarray  # days
    day: np.ndarray


class World:
    """A model that is better on one class than on the other; the slow class takes `slow` days, about."""

    def __init__(self, seed: int, quick: float = 2.0, slow: float = 20.0, steady: bool = False):
        self.rng, self.quick, self.slow, self.steady = np.random.default_rng(seed), quick, slow, steady

    def rows(self, days: range, each: int, flipped: float = 0.0) -> Rows:
        n = each * len(days)
        proba = expit(self.rng.normal(-1, 1.2, n))
        real = self.rng.random(n) < proba
        real ^= self.rng.random(n) < flipped
        day = np.repeat(np.array(days), each)
        mean = np.where(real, self.quick, self.slow)
        delay = mean * self.rng.normal(1, 0.05, n).clip(0.5) if self.steady else self.rng.exponential(mean)
        return Rows(proba, real, day + self.rng.random(n), delay, day)


def evidence_of(metric: str, n: int = 4000) -> Evidence:
    from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score

    rows = World(10_000).rows(range(200), 1000)  # the truth; its interval is that of n rows
    said = rows.proba >= CUT
    value = {"accuracy": accuracy_score(rows.real, said), "brier": brier_score_loss(rows.real, rows.proba), "roc_auc": roc_auc_score(rows.real, rows.proba)}[metric]
    half = 1.96 * {"accuracy": np.sqrt(value * (1 - value) / n), "brier": 0.19 / np.sqrt(n), "roc_auc": 0.012}[metric]
    some = World(10_001).rows(range(4), n // 4)
    told = some.proba >= CUT
    counts = {"tp": some.real & told, "fp": ~some.real & told, "fn": some.real & ~told, "tn": ~some.real & ~told}
    problem = {"name": "shop", "goal": "Whom to call.", "task": "binary", "target": "buys", "positive": "yes", "metric": metric, "data": {"source": "shop.csv"}}
    return as_evidence({
        "problem": problem, "schema": {"target": "buys", "classes": ["no", "yes"], "fields": []},
        "evaluation": {"n": n, "threshold": CUT, "metrics": {metric: {"value": value, "low": value - half, "high": value + half}}, "confusion": {k: int(v.sum()) for k, v in counts.items()}},
    })  # fmt: skip


def known_of(rows: Rows, oldest: float) -> Awaited:
    """As the log's feedback says it."""
    came = rows.delay <= rows.age
    label = np.where(rows.real, "yes", "no").astype(object)
    return Awaited(NOW, oldest * DAY, rows.delay[came] * DAY, rows.age[came] * DAY, label[came], rows.day[came])


def judged(window: Rows, known: Awaited | None, evidence: Evidence, rules: Monitoring = RULES) -> tuple[dict[str, Any], Late]:
    """The quality of a window by the labels that have come: as they come, or as `late_of` counts them."""
    came = window.delay <= window.age
    label = np.where(window.real, "yes", "no").astype(object)
    late = late_of(known, evidence, label[came], window.age[came] * DAY, len(came)) if known else Late()
    seen = came.copy()
    if late.counts is not None:
        seen[np.flatnonzero(came)[~late.counts]] = False
    part = Part(1, len(came), pa.table({"x": window.proba}), window.proba >= CUT, window.proba, seen, window.real[seen], {}, [])
    return quality_of(part, evidence, rules, late), late
