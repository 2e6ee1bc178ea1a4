"""A kind of row that is worse is found, and in noise none is claimed: by simulation."""

import math

import numpy as np
import pandas as pd
import pytest

from mlops_nb.stats.slices import confirm, in_slice, propose


def rows(rng, n: int) -> pd.DataFrame:
    return pd.DataFrame({"carrier": rng.choice(list("abcdef"), n), "hour": rng.integers(0, 24, n), "wind": rng.gamma(2, 3, n), "age": rng.integers(0, 30, n)})


def claimed(seed: int, planted: float, made) -> list:
    """What is said of 1,500 rows that propose and 600 that count, where carrier b after 14:00 is so many times worse."""
    rng = np.random.default_rng(seed)
    both = [rows(rng, n) for n in (1500, 600)]
    errors = [made(rng, len(r)) * np.where((r["carrier"] == "b") & (r["hour"] >= 14), planted, 1.0) for r in both]
    return confirm(propose(both[0], errors[0]), both[1], errors[1])


def sizes(rng, n):
    return rng.exponential(10, n)


def decisions(rng, n):
    return (rng.random(n) < 0.2).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("made", [sizes, decisions])
def test_in_noise_hardly_any_slice_is_claimed(made):
    """Two standard errors of 500 seeds above 5% at most."""
    assert np.mean([bool(claimed(seed, 1.0, made)) for seed in range(500)]) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize("times", [3.0])
def test_a_planted_slice_is_found_by_its_names(times):
    found = [claimed(1000 + seed, times, sizes) for seed in range(60)]
    named = [any("carrier = b" in s.words and "hour" in s.words for s in one) for one in found]
    assert np.mean(named) >= 0.95, np.mean(named)
    assert np.mean([one[0].low > one[0].elsewhere for one in found if one]) > 0.9


@pytest.mark.slow
def test_intervals_of_slices_hold_the_mean():
    """The mean size within the planted slice is known where its conditions are the planted ones."""
    inside = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        fresh = rows(rng, 600)
        bad = ((fresh["carrier"] == "b") & (fresh["hour"] > 13)).to_numpy()
        errors = rng.exponential(10, 600) * np.where(bad, 3.0, 1.0)
        said = confirm([[("carrier", "is", "b"), ("hour", ">", 13.0)]], fresh, errors)
        inside += [one.low <= 30 <= one.high for one in said]
    assert len(inside) > 250 and np.mean(inside) > 0.88  # Student's interval of skewed sizes in 40 rows


EXACT = {
    "months": (lambda rng: rng.choice([202401, 202402, 202403, 202404], 4000), lambda v: v >= 202402, "x > 202401.5"),
    "near a million": (lambda rng: 1_000_000 + rng.integers(0, 4, 4000), lambda v: v >= 1_000_002, "x > 1000001.5"),
    "beyond single precision": (lambda rng: 2**40 + rng.integers(0, 4, 4000), lambda v: v >= 2**40 + 2, f"x > {2**40 + 1}.5"),
    "neighbours": (lambda rng: np.nextafter(0.3, rng.choice([0.0, 1.0], 4000)), lambda v: v > 0.3, "x > 0.3"),
    "hours": (lambda rng: rng.integers(0, 24, 4000), lambda v: v >= 17, "x > 16.5"),
    "yes, no, unknown": (lambda rng: rng.choice([True, False, None], 4000, p=[0.3, 0.6, 0.1]), lambda v: v == True, "x = True"),  # noqa: E712
    "no, with unknown": (lambda rng: rng.choice([True, False, None], 4000, p=[0.6, 0.3, 0.1]), lambda v: v == False, "x = False"),  # noqa: E712
    "missing": (lambda rng: np.where(rng.random(4000) < 0.1, np.nan, rng.integers(0, 9, 4000)), lambda v: v >= 5, "x > 4.5"),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_slice_is_confirmed_and_worded_as_it_was_found(name):
    made, bad, words = EXACT[name]
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"x": made(rng)})
    worse = np.asarray(bad(frame["x"].to_numpy()), bool)
    errors = worse + rng.normal(0, 0.1, 4000)
    found = propose(frame[:2000], errors[:2000])
    fresh = frame[2000:].reset_index(drop=True)
    assert found and not any((in_slice(fresh, one) & ~worse[2000:]).any() for one in found)
    said = confirm(found, fresh, errors[2000:])
    assert len(said) == len(found) and all(abs(s.value - 1) < 0.05 for s in said)
    assert words in [s.words.split(" and ")[0] for s in said]
