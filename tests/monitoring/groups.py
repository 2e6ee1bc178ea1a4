"""Streams in which only groups are looked at: quick enough for thousands of windows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from tests.monitoring.streams import KINDS, NOTHING, START, Shift, World, facts_of, said

from mlops_nb.base.charter import Monitoring
from mlops_nb.log.drawn import Drawn
from mlops_nb.monitoring.groups import watch
from mlops_nb.monitoring.judge import SHARES
from mlops_nb.monitoring.null import Null, windows_before
from mlops_nb.monitoring.quality import groups_of
from mlops_nb.monitoring.reports import PartReport, Report
from mlops_nb.monitoring.windows import SPANS, Part
from mlops_nb.registry.evidence import Evidence, as_evidence
from mlops_nb.stats import gaps
from mlops_nb.stats.alarm import judge
from mlops_nb.stats.quality import drop_test, realised

#: What the rest of a window is measured by in each kind, as the streams of test_streams.py show.
NULLS = {"independent": ("rows", 1), "pairs": ("subjects", 1), "crowd": ("subjects", 1), "serial": ("past", 1), "hourly": ("past", 24), "wander": ("past", 1)}


class Watched(NamedTuple):
    p: Mapping[str, float]  # of the figures that were judged
    alarms: list[str]
    quality: float  # p-value of the whole window, against the test rows


def _looked_at(world: World, evidence: Evidence, t: int, n: int, shift: Shift) -> tuple[Part, float]:
    """The rows of a window as `part_of` reads them, without the log in between; p-value of the quality of all of them."""
    hours = SPANS[world.window] / SPANS["hour"]
    when = world.hours(n, [t]) if world.kind == "wander" else (t + world.labels.random(n)) * hours
    z, who = world.latent(n, when)
    rows = world.rows(z, shift)
    proba, real = said(rows), world.truth(rows, z, shift)
    drawn = Drawn("subject", np.unique(who, return_inverse=True)[1]) if who is not None else Drawn()
    part = Part(1, n, pa.table({"city": rows["city"]}), proba >= 0.5, proba, np.ones(n, bool), real, {}, [], drawn)
    now = realised(real, proba, part.y_pred, ["accuracy"], units=drawn.codes)["accuracy"]
    return part, drop_test(now, evidence.evaluation.estimate("accuracy"), Monitoring().quality_drop)


def watched(kind: str, count: int, seed: int, shift: Shift = NOTHING, rows: int = 500) -> list[Watched]:
    """Each window of a stream, by group; that hours differ is known from the first on."""
    world = World(kind, seed)
    evidence = as_evidence(facts_of(world, labels=True))
    rules, span, past, made = Monitoring(window=KINDS[kind]), SPANS[KINDS[kind]], [], []
    by, season = NULLS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "gaps_of", lambda *_, **__: {})  # shown only, and most of the time
        for t in range(count):
            part, quality = _looked_at(world, evidence, t, rows, shift if t >= shift.at else NOTHING)
            told = groups_of(part, evidence.problem, rules)
            counted = [{"name": "age", "counts": [1]}]  # a window before is one that was counted
            report = PartReport(1, part.rows, part.rows, True, features=counted, groups=told, promise="kept")
            whole = Report("shop", START + t * span, START + (t + 1) * span, part.rows, [report])
            before = windows_before(past, whole, 1)
            found = watch(report, Null(by, "", True, season), before, whole, evidence.problem, rules)
            p = {name: j.p for name, j in found.items()}
            alarms = judge({"groups": p}, rules.false_alarms, {"groups": SHARES["groups"]}) if p else []
            report.alarms = [a._asdict() | {"windows": 1} for a in alarms]
            made.append(Watched(p, [a.what for a in alarms], quality))
            past = [*past, whole][-400:]
    return made


def first(found: list[bool]) -> float:
    """Windows until one is true, from 1; inf: never."""
    return float(np.argmax(found)) + 1 if any(found) else np.inf
