"""Intervals hold the truth as often as they say, for rows as they are drawn: alone, by person, in time; few or many, rare or not."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from mlops_nb.stats.estimate import blocks
from mlops_nb.stats.estimate import AGREEMENTS
from mlops_nb.stats.influence import MEASURES
from mlops_nb.stats.quality import calibration, estimated, realised

BINARY, SEVERAL, NUMBERS = (MEASURES[kind] for kind in ("binary", "multiclass", "continuous"))


def ranked(rng: np.random.Generator, n: int, base: float, apart: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A calibrated model whose score is normal in both classes; decided at the base rate."""
    y_true = rng.random(n) < base
    proba = expit(apart * (rng.normal(size=n) + apart * y_true) - apart**2 / 2 + logit(base))
    return y_true, proba, proba >= base


def several(rng: np.random.Generator, n: int, shares: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A calibrated model of several classes."""
    y_true = rng.choice(len(shares), n, p=shares)
    score = rng.normal(size=(n, len(shares)))
    score[np.arange(n), y_true] += 1.5
    odds = np.exp(1.5 * score) * shares
    proba = odds / odds.sum(axis=1, keepdims=True)
    return y_true, proba, proba.argmax(axis=1)


def numbers(rng: np.random.Generator, n: int, tails: float) -> tuple[np.ndarray, None, np.ndarray]:
    """Numbers with errors of Student's distribution."""
    y_true = rng.normal(20, 5, n)
    return y_true, None, y_true + 2 * rng.standard_t(tails, n)


def coverage(draw, names, count: int, seed: int, **how) -> dict[str, float]:
    """How often each interval holds what a million rows say; undefined ones are left out."""
    truth = {k: e.value for k, e in realised(*draw(np.random.default_rng(99), 1_000_000), names, **how).items()}
    rng, held, made = np.random.default_rng(seed), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for _ in range(count):
        for name, e in realised(*draw(rng, None), names, **how).items():
            if not math.isnan(e.low):
                made[name] += 1
                held[name] += e.low <= truth[name] <= e.high
    return {name: held[name] / made[name] for name in names if made[name] > count / 2}


def holds(found: dict[str, float], count: int) -> None:
    """At least 93% less two Monte-Carlo errors each, 94 to 97% on average, give or take what chance does."""
    error = math.sqrt(0.93 * 0.07 / count)
    assert {k: v for k, v in found.items() if v < 0.93 - 2 * error - 1 / count} == {}
    assert 0.94 - 2 * error / math.sqrt(len(found)) <= np.mean(list(found.values())) <= 0.97 + error


COUNT = 200
CELLS = [(200, 0.5), (500, 0.05), (500, 0.1), (500, 0.5), (5000, 0.05), (5000, 0.1), (5000, 0.5)]


def of_two(n: int, base: float, apart: float, count: int) -> dict[str, float]:
    return coverage(lambda rng, size: ranked(rng, size or n, base, apart), BINARY, count, n + int(100 * base))


@pytest.mark.parametrize(("n", "base"), [(500, 0.1)])
def test_of_two_classes(n, base):
    holds(of_two(n, base, 1.2, COUNT), COUNT)


@pytest.mark.deep
@pytest.mark.parametrize(("n", "base"), CELLS)
@pytest.mark.parametrize("apart", [0.7, 1.2, 2.5])
def test_of_two_classes_in_full(n, base, apart):
    holds(of_two(n, base, apart, 1000), 1000)


often, full = pytest.param(400, id="often", marks=pytest.mark.slow), pytest.param(1000, id="full", marks=pytest.mark.deep)


@pytest.mark.parametrize("count", [often, full])
@pytest.mark.parametrize("n", [200, 500, 5000])
@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.8, 0.1, 0.1)])
def test_of_several_classes(n, shares, count):
    holds(coverage(lambda rng, size: several(rng, size or n, shares), SEVERAL, count, 1, target_type="multiclass"), count)


@pytest.mark.parametrize("count", [often, full])
@pytest.mark.parametrize("n", [60, 200, 500, 5000])
@pytest.mark.parametrize("tails", [100, 5])
def test_of_numbers(n, tails, count):
    holds(coverage(lambda rng, size: numbers(rng, size or n, tails), NUMBERS, count, n, target_type="continuous"), count)


def rounded(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A calibrated model that says one of eleven probabilities."""
    proba = np.clip(np.round(rng.beta(0.1, 1.2, n), 1), 0.002, 0.98)
    return rng.random(n) < proba, proba, proba >= 0.3


SURE = {"far apart": lambda rng, n: ranked(rng, n or 500, 0.05, 3.0), "many": lambda rng, n: ranked(rng, n or 500, 0.1, 3.0), "rounded": lambda rng, n: rounded(rng, n or 500)}


@pytest.mark.slow
@pytest.mark.parametrize("model", SURE)
def test_roc_auc_near_one_of_few_positives(model):
    """A table without one of the few positives that rank low looks good and sure at once."""
    found = coverage(SURE[model], ["roc_auc"], 4000, 3)["roc_auc"]
    assert 0.93 - 2 * math.sqrt(0.93 * 0.07 / 2000) <= found <= 0.97


def people(rng: np.random.Generator, count: int, rows: int, base: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Some rows of each person, who mostly has one label and one score."""
    who = np.repeat(np.arange(count), rows)
    label = rng.random(count) < base
    y_true = np.where(rng.random(len(who)) < 0.9, label[who], rng.random(len(who)) < base)
    score = rng.normal(size=count)[who] + 0.3 * rng.normal(size=len(who)) + 1.5 * y_true
    proba = expit(1.5 * score - 1.1 + logit(base))
    return y_true, proba, proba >= base, who


@pytest.mark.slow
def test_rows_of_one_person_count_once():
    """With the person said they cover; each row by itself they would not."""
    truth = {k: e.value for k, e in realised(*people(np.random.default_rng(99), 250_000, 4, 0.3)[:3]).items()}
    rng, count = np.random.default_rng(5), 300
    held, naive = dict.fromkeys(BINARY, 0), dict.fromkeys(BINARY, 0)
    for _ in range(count):
        *rows, who = people(rng, 150, 4, 0.3)
        for found, hits in ((realised(*rows, units=who), held), (realised(*rows), naive)):
            for name, e in found.items():
                hits[name] += e.low <= truth[name] <= e.high
    holds({k: v / count for k, v in held.items()}, count)
    assert naive["log_loss"] < 0.85 * count


@pytest.mark.slow
def test_rows_in_time_count_by_blocks():
    """Errors that resemble their neighbours'."""
    rng, count, hits, naive = np.random.default_rng(6), 300, 0, 0
    truth = math.sqrt(2 / math.pi / (1 - 0.6**2))  # mean size of the errors
    for _ in range(count):
        shocks = rng.normal(size=1100)
        off = np.zeros(1100)
        for i in range(1, 1100):
            off[i] = 0.6 * off[i - 1] + shocks[i]
        y_true = rng.normal(size=1000)
        for units, which in ((blocks(np.arange(1000)), "units"), (None, "rows")):
            e = realised(y_true, None, y_true + off[100:], ["mae"], "continuous", units=units)["mae"]
            hit = e.low <= truth <= e.high
            hits, naive = hits + (hit if which == "units" else 0), naive + (hit if which == "rows" else 0)
    assert stats.binom.cdf(hits, count, 0.93) > 1e-3 and naive < hits


def test_too_few_have_no_interval_and_shares_do():
    found = realised(*ranked(np.random.default_rng(1), 200, 0.05, 1.2))
    none = {name for name, e in found.items() if math.isnan(e.low)}
    assert none == {"roc_auc", "average_precision", "log_loss", "brier", *AGREEMENTS}
    assert not any(math.isnan(e.value) for e in found.values())


def test_one_person_only_has_no_interval_for_ranks():
    y_true, proba, y_pred = ranked(np.random.default_rng(2), 400, 0.5, 1.2)
    found = realised(y_true, proba, y_pred, units=np.zeros(400, int))
    assert math.isnan(found["roc_auc"].low) and math.isnan(found["brier"].high)
    assert found["accuracy"].high - found["accuracy"].low > 0.5, "one draw says next to nothing"


def clients(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One to twenty rows of each subject; chances are exactly right, and half of a subject's labels go by one draw."""
    who = np.repeat(np.arange(count), rng.integers(1, 21, count))
    proba = expit(rng.normal(size=count)[who] + 0.5 * rng.normal(size=len(who)))
    lot = np.where(rng.random(len(who)) < 0.5, rng.random(count)[who], rng.random(len(who)))
    return lot < proba, proba, who


@pytest.mark.parametrize("subjects", [60, 200])
def test_what_labels_of_subjects_will_say(subjects):
    """Before labels come, intervals are wide enough for those of one subject to go together."""
    rng, count, names = np.random.default_rng(8), 150, ["accuracy", "log_loss", "brier", "roc_auc"]
    held, naive = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for _ in range(count):
        y_true, proba, who = clients(rng, subjects)
        seen = realised(y_true, proba, proba >= 0.5, names)
        for units, hits in ((who, held), (None, naive)):
            for name, e in estimated(proba, proba >= 0.5, names, units=units).items():
                hits[name] += e.low <= seen[name].value <= e.high
    assert min(held.values()) >= 0.93 * count and min(naive.values()) < 0.85 * count, (held, naive)


def test_calibration_of_subjects():
    """Perfect chances are called wrong about as seldom as the level says, though labels of a subject go together; row by row they would not."""
    rng, count = np.random.default_rng(9), 200
    rows = [clients(rng, 60) for _ in range(count)]
    off, naive = (sum(calibration(y, p, units=u).p < 0.05 for y, p, u in each) for each in (rows, [(y, p, None) for y, p, _ in rows]))
    assert stats.binom.sf(off - 1, count, 0.05) > 1e-3 and naive > 0.12 * count, (off, naive)
    by_units = np.mean([[calibration(y, p, units=u).by_luck, calibration(y, p).error, calibration(y, p).by_luck] for y, p, u in rows[:60]], axis=0)
    assert 0.75 < by_units[0] / by_units[1] < 1.25 and by_units[2] < 0.85 * by_units[1], "what chance alone shows"


def test_few_subjects_have_no_interval_and_shares_a_wide_one():
    y_true, proba, who = clients(np.random.default_rng(3), 12)
    found = realised(y_true, proba, proba >= 0.5, units=who)
    assert math.isnan(found["roc_auc"].low) and math.isnan(found["log_loss"].low) and not math.isnan(found["roc_auc"].error)
    alone = realised(y_true, proba, proba >= 0.5)["accuracy"]
    assert found["accuracy"].high - found["accuracy"].low > 1.2 * (alone.high - alone.low) and found["accuracy"].n == 12
