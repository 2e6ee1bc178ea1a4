"""Long streams of undisturbed windows of six kinds, and what disturbs them: judged by `monitoring.judge.look`, as a service's log would be."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats
from scipy.special import expit

from mlops_nb.base.charter import Monitoring
from mlops_nb.monitoring.judge import look
from mlops_nb.monitoring.reference import Reference, make_reference
from mlops_nb.monitoring.reports import Report
from mlops_nb.monitoring.windows import SPANS, Window
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.stats.quality import realised

KINDS = {
    "independent": "day",  # each row by itself
    "pairs": "day",  # each person sends two rows
    "crowd": "day",  # 25 people send 20 rows each
    "serial": "day",  # a row resembles the one before
    "hourly": "hour",  # what is asked depends on the hour; training rows are of all hours
    "wander": "day",  # as by the hour, and the hour that most rows are of is another one each day
    "wander hourly": "hour",  # the whole day comes earlier or later
}
START = datetime(2025, 1, 6, tzinfo=UTC)
SHARED, LATENT = 0.8, 6  # of a row's variance that is a person's or an hour's; hidden variables of a row
CITIES, UPTO = np.array(["Kiel", "Bonn", "Jena", "Ulm", "Hof"]), np.array([0.5, 0.75, 0.9, 0.95])
FIELDS = {"age": "number", "income": "number", "ties": "integer", "gap": "number", "city": "category", "member": "boolean", "spend": "number"}


class Shift(NamedTuple):
    """What changes from a window on."""

    at: int = 10**9  # window
    moved: float = 0.0  # standard deviations of the age
    share: float = 0.05  # of the rarest city; the others shrink alike
    missing: float = 0.2  # of the gap
    zero: float = 0.1  # of the spend
    right: float = 0.0  # how much rarer decisions are right in the city of Jena, in log odds


NOTHING = Shift()


class World:
    """Where rows come from."""

    def __init__(self, kind: str, seed: int, window: str = ""):
        self.kind, self.rng, self.window = kind, np.random.default_rng(seed), window or KINDS[kind]
        self.state = self.rng.normal(size=LATENT)
        self.labels = np.random.default_rng([seed, 1])  # of their own: rows are the same with and without them

    def latent(self, n: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:  # n x LATENT; subjects
        """Hidden variables of rows at hours that were counted from the start."""
        noise, own = self.rng.normal(size=(n, LATENT)), np.sqrt(1 - SHARED)
        if self.kind in ("pairs", "crowd"):
            who = np.repeat(np.arange(n), 2 if self.kind == "pairs" else 20)[:n]
            order = self.rng.permutation(n)
            shared = self.rng.normal(size=(who.max() + 1, LATENT))[who]
            names = np.array([f"p{self.rng.integers(2**60)}" for _ in range(who.max() + 1)])[who]
            return (np.sqrt(SHARED) * shared + own * noise)[order], names[order]
        if self.kind == "serial":
            made, phi = np.empty((n, LATENT)), 0.9
            for i in range(n):
                made[i] = self.state = phi * self.state + np.sqrt(1 - phi**2) * noise[i]
            return made, None
        if self.kind in ("hourly", "wander", "wander hourly"):
            turn = 2 * np.pi * (at[:, None] / 24 - np.arange(LATENT) / LATENT)
            return np.sqrt(2 * SHARED) * np.cos(turn) + own * noise, None
        return noise, None

    def hours(self, n: int, days: Sequence[int]) -> np.ndarray:
        """When rows of whole days came, in hours from the start."""
        day = np.repeat(days, -(-n // len(days)))[:n]
        if self.kind != "wander":
            late = self.rng.normal(0, 1.5, len(days)).repeat(-(-n // len(days)))[:n] if self.kind == "wander hourly" else 0
            return day * 24 + self.rng.random(n) * 24 + late
        peak = self.rng.normal(14, 1.5, len(days)).repeat(-(-n // len(days)))[:n]
        return day * 24 + (peak + self.rng.normal(0, 3, n)) % 24

    def rows(self, z: np.ndarray, shift: Shift = NOTHING) -> pd.DataFrame:
        """Columns that are seen."""
        z = z.copy()
        cuts = stats.norm.ppf(UPTO * (1 - shift.share) / UPTO[-1])
        return pd.DataFrame({
            "age": z[:, 0] + shift.moved,
            "income": np.exp(0.7 * z[:, 1] + 0.3 * z[:, 0]),
            "ties": np.round(2 * z[:, 2]),
            "gap": np.where(z[:, 3] > stats.norm.isf(shift.missing), np.nan, z[:, 1] + z[:, 5]),
            "city": CITIES[np.searchsorted(cuts, z[:, 4])],
            "member": z[:, 5] > 0.5,
            "spend": np.where(z[:, 3] < stats.norm.ppf(shift.zero), 0.0, np.exp(0.5 * z[:, 5])),
        })  # fmt: skip

    def truth(self, rows: pd.DataFrame, z: np.ndarray, shift: Shift = NOTHING) -> np.ndarray:  # n bools
        """What comes of rows: decisions are right for 85% of them, and more often for some people or hours."""
        odds = 2.1 + SHARED * z[:, 2] - shift.right * (rows["city"] == "Jena").to_numpy()
        right = self.labels.random(len(rows)) < expit(odds)
        return (said(rows) >= 0.5) == right

    def learnt(self, n: int, days: int = 60) -> pd.DataFrame:
        """Training rows, or test rows: of the same kind."""
        return self.rows(self.latent(n, self.hours(n, range(-days, 0)))[0])


def said(rows: pd.DataFrame) -> np.ndarray:
    """What the model says."""
    return expit(0.8 * rows["age"] + 0.5 * np.log(rows["income"]) - 0.4 * rows["member"]).to_numpy()


def facts_of(world: World, labels: bool = False) -> dict[str, Any]:
    """The evidence of a version, as its registry keeps it."""
    z, who = world.latent(3000, world.hours(3000, range(-60, 0)))
    rows = world.rows(z)
    proba = said(rows)
    real = world.rng.random(3000) < proba
    picked = proba >= 0.5
    real = world.truth(rows, z) if labels else real
    units = None if who is None else np.unique(who, return_inverse=True)[1]
    right = realised(real, proba, picked, ["accuracy"], units=units)["accuracy"]
    metric, tested = ("accuracy", right.plain()) if labels else ("roc_auc", {"value": 0.75, "low": 0.73, "high": 0.77})
    counts = {"tp": real & picked, "fp": ~real & picked, "fn": real & ~picked, "tn": ~real & ~picked}
    return {
        "problem": {
            "name": "shop", "goal": "Whom to call.", "task": "binary", "target": "buys", "positive": "yes",
            "metric": metric, "data": {"source": "shop.csv"},
            "sensitive": [{"name": "city", "column": "city"}] if labels else [],
        },
        "schema": {"target": "buys", "classes": ["no", "yes"], "fields": [{"name": n, "kind": k, "nullable": True} for n, k in FIELDS.items()]},
        "evaluation": {
            "n": 3000, "threshold": 0.5, "metrics": {metric: tested}, "errors": {"accuracy": right.error},
            "confusion": {k: int(v.sum()) for k, v in counts.items()}, "said": np.quantile(proba, np.linspace(0, 1, 500)).tolist(),
        },
    }  # fmt: skip


def window_of_rows(
    rows: pd.DataFrame,
    when: np.ndarray,
    subjects: np.ndarray | None,
    start: datetime,
    span: timedelta,
    real: np.ndarray | None = None,
) -> Window:
    """As the log has them; `when`: hours from START."""
    order, n, proba = np.argsort(when, kind="stable"), len(rows), said(rows)
    plain = rows.astype(object).where(rows.notna(), None).to_dict("records")
    answer = [json.dumps({"decision": "yes" if p >= 0.5 else "no", "probability": p}) for p in proba]
    micros = [int(START.timestamp() * 1e6 + h * 3.6e9) for h in when]
    columns = {
        "id": [f"{start:%y%m%d%H}{i}" for i in range(n)], "version": pa.array([1] * n, pa.int64()),
        "time": pa.array(micros, pa.timestamp("us", tz="UTC")), "arm": [""] * n,
        "subject": pa.array(subjects if subjects is not None else [None] * n, pa.string()),
        "inputs": [json.dumps(r) for r in plain], "output": answer,
        "latency": np.full(n, 0.001), "label": pa.array([None] * n if real is None else np.where(real, "yes", "no"), pa.string()),
    }  # fmt: skip
    return Window("shop", start, start + span, n, pa.table(columns).take(pa.array(order)), [])


def windows(
    world: World, count: int, rows: int = 500, shift: Shift = NOTHING, first: int = 0, labels: bool = False
) -> Iterator[Window]:
    """A stream of them; `first`: so many were before."""
    span, late = SPANS[world.window], 0.0
    hours = span / timedelta(hours=1)
    for t in range(first, first + count):
        n = rows
        if world.window == "hour":
            when = t + np.sort(world.rng.random(n))
            late = world.rng.normal(0, 1.5) if world.kind == "wander hourly" and t % 24 == 0 else late
            n = int(rows * (1 + 0.4 * np.cos(2 * np.pi * (t + late) / 24))) if world.kind in ("hourly", "wander hourly") else rows
            when = t + np.sort(world.rng.random(n))
        elif world.kind == "wander":
            when = np.sort(world.hours(n, [t]))
        else:
            when = (t + np.sort(world.rng.random(n))) * hours
        z, subjects = world.latent(n, when + late)
        here = shift if t >= shift.at else NOTHING
        made = world.rows(z, here)
        real = world.truth(made, z, here) if labels else None
        yield window_of_rows(made, when, subjects, START + t * span, span, real)


@cache
def reference_of_kind(
    kind: str, seed: int, n: int = 5000, window: str = "", labels: bool = False
) -> tuple[Reference, World]:
    """A fixed reference of `n` training rows, and the world that it was drawn from."""
    world = World(kind, seed, window)
    evidence = as_evidence(facts_of(world, labels))
    return make_reference(1, evidence, world.learnt(n)), world


def judged(
    kind: str,
    count: int,
    seed: int = 0,
    shift: Shift = NOTHING,
    rows: int = 500,
    window: str = "",
    classifier: bool = True,
    false_alarms: float = 0.01,
    labels: bool = False,  # they are known, and the city is a group
) -> list[Report]:
    """Reports of a stream, each made with the reports before it."""
    reference, world = reference_of_kind.__wrapped__(kind, seed, window=window, labels=labels)
    if not classifier:
        reference = reference._replace(some=reference.some[:19])
    rules = Monitoring(window=world.window, false_alarms=false_alarms)
    past: list[Report] = []
    for made in windows(world, count, rows, shift, labels=labels):
        season = 24 if world.window == "hour" and len(past) >= 24 * 8 else 1
        past.append(look(made, {1: reference}, rules, past[-400:], season))
    return past
