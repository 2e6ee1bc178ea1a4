"""Alarms keep their word: undisturbed windows have no more of them than was tolerated, and known shifts are found soon."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_nb.stats.alarm import FIGURES, MIN_PAST, anomaly, holm, judge, more_errors
from mlops_nb.stats.drift import compare
from mlops_nb.stats.profile import Profile
from mlops_nb.stats.estimate import Estimate
from mlops_nb.stats.quality import drop_test, realised

RISK = 1e-3  # of a test that fails although the promise holds
WEIGHTS = np.array([0.9, -0.7, 0.5, 0.3, 0.0, 0.6])


class World:
    """A model in service: features that depend on each other, scores, labels, and figures of the system that are uneven and remember a little."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        mix = self.rng.normal(size=(6, 6))
        self.mix = 0.6 * np.eye(6) + 0.25 * mix
        self.load = 0.0
        self.begin()

    def begin(self) -> None:
        """A version is registered: its reference rows are drawn."""
        x, scores, truth = self.rows(4000)
        self.profile = Profile.of(self.frame(x, scores))
        self.quality = realised(truth, scores, scores >= 0.5, ["accuracy", "log_loss"])
        self.past = [self.system() for _ in range(60)]

    def rows(self, n: int, moved: float = 0.0, wrong: float = 0.0, bias: float = 0.0) -> tuple:
        """Features, scores, truth; `moved`: the first feature, in standard deviations; `wrong`: share of rows whose meaning has turned; `bias`: added to the scores' logits."""
        x = self.rng.normal(size=(n, 6)) @ self.mix
        x[:, 0] += moved * x[:, 0].std()
        x[:, 4] = np.round(x[:, 4])  # a feature with ties
        logit = x @ WEIGHTS
        truth = (self.rng.random(n) < 1 / (1 + np.exp(-logit))) ^ (self.rng.random(n) < wrong)
        return x, 1 / (1 + np.exp(-(logit + bias))), truth

    def frame(self, x: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """Features as they are logged, with a category, whole numbers and gaps; and the scores."""
        frame = pd.DataFrame({f"x{i}": x[:, i] for i in range(6)} | {"score": scores})
        frame["x4"] = frame["x4"].astype("int64")
        frame["x5"] = np.array(["low", "middle", "high", "top"])[np.digitize(x[:, 5], [-1, 0, 1.5])]
        frame.loc[self.rng.random(len(frame)) < 0.05, "x2"] = np.nan
        return frame

    def system(self, slow: float = 1.0, failing: float = 0.0) -> dict:
        """Figures of one window; the load has a memory, and now and then a latency jumps."""
        self.load = 0.6 * self.load + 0.1 * self.rng.normal()
        p99 = slow * 0.2 * math.exp(self.load + 0.15 * self.rng.exponential())
        errors = int(self.rng.binomial(400, min(self.rng.gamma(4, 0.002 / 4) + failing, 1)))
        return {"latency_p50": 0.05 * slow * math.exp(self.load), "latency_p99": p99, "throughput": 40 * math.exp(self.load + 0.1 * self.rng.normal()), "cpu": 0.3 * math.exp(self.load), "errors": errors}

    def look(self, n: int = 400, *, moved: float = 0.0, wrong: float = 0.0, bias: float = 0.0, slow: float = 1.0, failing: float = 0.0) -> dict:
        """P-values of one window, by channel."""
        x, scores, truth = self.rows(n, moved, wrong, bias)
        now, figures = realised(truth, scores, scores >= 0.5, ["accuracy", "log_loss"]), self.system(slow, failing)
        drift = {f.name: f.p for f in compare(self.profile, self.frame(x, scores)).features}
        system = {name: anomaly(figures[name], [w[name] for w in self.past], name).p for name in FIGURES if name in figures}
        counted = more_errors(figures["errors"], 400, [w["errors"] for w in self.past], [400] * len(self.past))
        if not (moved or wrong or bias or slow != 1 or failing):
            self.past = [*self.past[1:], figures]
        return {
            "scores": drift.pop("score"),
            "drift": drift,
            "quality": {name: drop_test(now[name], self.quality[name], 0.0, name == "accuracy") for name in now},
            "system": system,
            "errors": counted.p,
        }


def undisturbed(seed: int, windows: int) -> dict[float, int]:
    """Undisturbed windows with any alarm, by the rate that was tolerated; a new version every 20 windows."""
    world, hits = World(seed), {0.1: 0, 0.05: 0, 0.01: 0}
    for i in range(windows):
        if i and i % 20 == 0:
            world.begin()
        seen = world.look()
        for false_alarms in hits:
            hits[false_alarms] += bool(judge(seen, false_alarms))
    return hits


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "windows"), [(1, 500), pytest.param(2, 2500, marks=pytest.mark.deep)])
def test_undisturbed_windows_keep_the_promise(seed, windows):
    hits = undisturbed(seed, windows)
    for false_alarms, count in hits.items():
        assert stats.binom.sf(count - 1, windows, false_alarms) > RISK, f"{count} of {windows} windows had an alarm, tolerated: {false_alarms:.0%}"


@pytest.mark.parametrize(
    ("shift", "channel", "within"),
    [
        ({"moved": 0.5}, "drift", 1),
        ({"moved": 0.25}, "drift", 4),
        ({"bias": 0.6}, "scores", 2),
        ({"wrong": 0.25}, "quality", 1),
        ({"wrong": 0.15}, "quality", 8),
        ({"slow": 5.0}, "system", 2),
        ({"failing": 0.03}, "errors", 1),
    ],
)
def test_known_shifts_are_found_soon(shift, channel, within):
    """Windows from the shift to its alarm: the median of 15 shifts is at most `within`, and none takes longer than ten times that."""
    world, delays = World(6), []
    for _ in range(15):
        world.begin()
        delay = next((i for i in range(1, 10 * within + 1) if channel in {a.channel for a in judge(world.look(**shift), 0.01)}), math.inf)
        delays.append(delay)
    assert np.median(delays) <= within and max(delays) < math.inf, (shift, delays)


def test_dependent_pvalues_do_not_break_the_budget():
    """Equal, opposite and independent p-values: the family's rate holds in each."""
    rng, n = np.random.default_rng(7), 4000
    base = rng.random(n)
    for columns in ([base] * 5, [base, 1 - base], list(rng.random((5, n)))):
        hits = sum(bool(judge({"drift": {str(i): float(c[k]) for i, c in enumerate(columns)}, "scores": float(rng.random())}, 0.05)) for k in range(n))
        assert stats.binom.sf(hits - 1, n, 0.05) > RISK, hits


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_is_scipys(pvalues, alpha):
    """As Holm's adjusted p-values say."""
    ordered = sorted(pvalues.values())
    adjusted = np.maximum.accumulate([p * (len(ordered) - i) for i, p in enumerate(ordered)])
    found = holm(pvalues, alpha)
    clear = [a for a in adjusted if abs(a - alpha) > 1e-12]
    assert len(clear) < len(adjusted) or len(found) == sum(a <= alpha for a in adjusted)
    assert all(pvalues[name] <= threshold <= alpha for name, threshold in found.items())


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.one_of(st.none(), st.floats(0, 1)), min_size=1), st.floats(0, 2), st.floats(0.001, 0.5))
def test_floors_and_gaps_only_take_alarms_away(pvalues, floor, false_alarms):
    sizes = {name: 1.0 for name in pvalues}
    every = judge(pvalues, false_alarms)
    fewer = judge(pvalues, false_alarms, effects=sizes, floors=dict.fromkeys(pvalues, floor))
    assert {a.channel for a in fewer} == ({a.channel for a in every} if floor <= 1 else set())
    gone = judge({**pvalues, min(pvalues): math.nan}, false_alarms)
    assert gone == [a for a in every if a.channel != min(pvalues)], "a channel that isn't judged changes nothing for the others"


def test_an_alarm_says_why():
    (alarm,) = judge({"drift": {"age": 1e-9, "hours": 0.2}, "quality": 0.3}, 0.01, effects={"drift": {"age": 0.31}}, floors={"drift": 0.1})
    assert (alarm.channel, alarm.what, alarm.effect, alarm.threshold) == ("drift", "age", 0.31, 0.0025)
    assert alarm.said.startswith("drift of age") and "0.01 of undisturbed windows" in alarm.said and "0.31" in alarm.said


# ---------------------------------------------------------------- figures of the system
@pytest.mark.slow
@pytest.mark.parametrize("n", [MIN_PAST, 20, 60])
@pytest.mark.parametrize("kind", ["normal", "exponential", "remembers"])
def test_anomaly_keeps_its_rate(kind, n):
    """On logarithms: normal, with a long tail, and with a memory from window to window."""
    rng, hits, count = np.random.default_rng(8), {0.05: 0, 0.01: 0, 0.002: 0}, 3000
    for _ in range(count):
        logs = rng.exponential(size=n + 1) if kind == "exponential" else rng.normal(size=n + 1)
        if kind == "remembers":
            for i in range(1, n + 1):
                logs[i] = 0.4 * logs[i - 1] + math.sqrt(1 - 0.16) * logs[i]
        p = anomaly(math.exp(0.2 * logs[-1]), np.exp(0.2 * logs[:-1]), "latency_p99").p
        for alpha in hits:
            hits[alpha] += p <= alpha
    assert all(stats.binom.sf(h - 1, count, alpha + 0.015 * (alpha == 0.05 and kind == "remembers")) > RISK for alpha, h in hits.items()), hits


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "burst"), [(0.01, 0.0), (0.002, 0.0), (0.01, 0.25)])
def test_more_errors_keeps_its_rate(rate, burst):
    """Independent errors, and rates that differ from window to window."""
    rng, hits, count = np.random.default_rng(9), {0.05: 0, 0.01: 0}, 1500
    for _ in range(count):
        rates = np.full(31, rate) if not burst else rng.gamma(1 / burst, rate * burst, 31)
        errors = rng.binomial(1000, rates.clip(0, 1))
        p = more_errors(int(errors[-1]), 1000, errors[:-1], [1000] * 30).p
        for alpha in hits:
            hits[alpha] += p <= alpha
    assert all(stats.binom.sf(h - 1, count, alpha) > RISK for alpha, h in hits.items()), hits


def test_anomaly_of_odd_pasts():
    assert anomaly(1.0, [1.0] * 20, "cpu").p == 1.0, "as ever"
    assert anomaly(1.005, [1.0] * 20, "cpu").p > 0.04, "half a percent is nothing, though the past never moved"
    assert anomaly(2.0, [1.0] * 20, "cpu").p < 1e-5
    assert anomaly(0.0, [0.0] * 20, "cpu").p == 1.0 and anomaly(5.0, [0.0] * 20, "cpu").p < 1e-5
    assert math.isnan(anomaly(1.0, [], "cpu").p) and "needed" in anomaly(1.0, [1.0] * 3, "cpu").said
    assert math.isnan(anomaly(math.nan, [1.0] * 20, "cpu").p) and "the window has none" in anomaly(math.nan, [1.0] * 20).said
    gaps = anomaly(9.0, [1.0, math.nan] * 10, "cpu")
    assert gaps.p < 0.01 and "10 past windows" in gaps.said
    assert anomaly(0.1, [1.0] * 20, "memory").effect == 0.0 and anomaly(0.1, [1.0] * 20, "throughput").effect == pytest.approx(9)
    with pytest.raises(ValueError, match="above, below or either"):
        anomaly(1.0, [1.0] * 20, direction="sideways")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: judge({"a": 0.1}, 0.0), "above 0 and up to 0.5, not 0"),
        (lambda: judge({"a": 0.1}, 0.51), "not 0.51"),
        (lambda: judge({"a": -0.1}, 0.1), "between 0 and 1, but a has -0.1"),
        (lambda: judge({"drift": {"age": 2}}, 0.1), "drift: age has 2"),
        (lambda: judge({"drift": 0.1}, 0.1, {"drfit": 1.0}), "did you mean 'drift'"),
        (lambda: judge({"drift": 0.1, "scores": 0.1}, 0.1, {"drift": 1.0}), "'scores' has no share"),
        (lambda: judge({"drift": 0.1}, 0.1, {"drift": -1.0}), "0 or more"),
        (lambda: judge({"drift": 0.1}, 0.1, effects={"x": 0.1}), "an effect is given for 'x'"),
        (lambda: anomaly(-1.0, [1.0] * 9, "cpu"), "never negative, but -1"),
        (lambda: more_errors(-1, 5, [0], [5]), "between 0 and the window's requests"),
        (lambda: more_errors(1, 5, [6], [5]), "between 0 and the window's requests"),
        (lambda: more_errors(1, 5, [6], []), "1 past windows have errors and 0 have requests"),
    ],
)
def test_what_is_refused_is_said(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)


def test_undefined_figures_are_not_judged():
    """A window of one class has no ROC AUC: no alarm, and no spending."""
    one_class = realised([True] * 9, [0.7] * 9, [True] * 9, ["roc_auc"])["roc_auc"]
    assert judge({"quality": drop_test(one_class, Estimate.told(0.9, 0.88, 0.92, 1000)), "drift": 0.004}, 0.01)[0].threshold == 0.005
