"""What errors show is said where it is so, and of errors that show nothing, nothing is said."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_nb.stats.residuals import LEVEL, ljung_box, residual_findings


def table(rng, n):
    return pd.DataFrame({"carrier": rng.choice(list("abcde"), n), "hour": rng.integers(0, 24, n), "wind": rng.gamma(2, 3, n)})


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 1000])
def test_of_sound_models_nearly_none_gets_a_sentence(n):
    rng, told = np.random.default_rng(n), []
    for _ in range(1000):
        errors = rng.normal(0, 3, n)
        told.append(bool(residual_findings(rng.normal(size=n), errors, table(rng, n), errors)))
    assert np.mean(told) < LEVEL + 4 * math.sqrt(LEVEL / 1000)


@pytest.mark.slow
def test_long_tails_make_no_other_sentence():
    """Tests by ranks and robust ones hold of Student's errors with three degrees of freedom, too."""
    rng, told = np.random.default_rng(2), []
    for _ in range(1000):
        errors = rng.standard_t(3, 500)
        told.append({f.name for f in residual_findings(rng.normal(size=500), errors, table(rng, 500), errors)} - {"tails"})
    assert np.mean([bool(names) for names in told]) < LEVEL + 4 * math.sqrt(LEVEL / 1000)


PLANTED = {
    "lean": lambda rng, said, columns: rng.normal(0.5, 1, len(said)),
    "slope": lambda rng, said, columns: 0.3 * said + rng.normal(0, 1, len(said)),
    "spread": lambda rng, said, columns: np.exp(0.3 * said) * rng.normal(0, 1, len(said)),
    "tails": lambda rng, said, columns: rng.standard_t(3, len(said)),
    "time": lambda rng, said, columns: np.convolve(rng.normal(0, 1, len(said) + 1), [1, 0.5], "valid"),
    "carrier": lambda rng, said, columns: (columns.carrier == "c") * 0.8 + rng.normal(0, 1, len(said)) - 0.16,
    "wind": lambda rng, said, columns: (columns.wind > 10) * 1.0 + rng.normal(0, 1, len(said)) - 0.15,
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name):
    rng, found = np.random.default_rng(3), []
    for _ in range(40):
        said, columns = rng.normal(size=800), table(rng, 800)
        errors = PLANTED[name](rng, said, columns)
        found.append(name in [f.name for f in residual_findings(said, errors, columns, errors)])
    assert np.mean(found) >= 0.95


def test_ljung_box_is_its_definition():
    """By loops, and uniform where there is nothing."""
    x = np.random.default_rng(4).normal(size=80)
    mean, n, total = x.mean(), len(x), 0.0
    for k in range(1, 6):
        rho = sum((x[t] - mean) * (x[t - k] - mean) for t in range(k, n)) / sum((v - mean) ** 2 for v in x)
        total += rho**2 / (n - k)
    assert ljung_box(x, 5) == pytest.approx(stats.chi2.sf(n * (n + 2) * total, 5))
    rng = np.random.default_rng(5)
    assert stats.kstest([ljung_box(rng.normal(size=500)) for _ in range(500)], "uniform").pvalue > 0.001


def test_a_model_for_mae_says_medians():
    """Its mean error is no fault of it where errors are lopsided; half of the truths above is what it is held to."""
    rng = np.random.default_rng(6)
    said, errors = rng.normal(size=900), rng.exponential(1, 900) - math.log(2)
    assert "lean" in [f.name for f in residual_findings(said, errors)]
    assert "lean" not in [f.name for f in residual_findings(said, errors, sought="median")]
    assert "lean" in [f.name for f in residual_findings(said, errors + 0.2, sought="median")]


def test_a_model_for_mape_leans_neither_way():
    """The best factor by mape is the median weighed by 1 / truth, far below the plain one: found here by search, and no fault."""
    rng = np.random.default_rng(7)
    middle = np.exp(rng.normal(0, 0.2, 4000))
    y = middle * np.exp(rng.normal(0, 0.8, 4000))
    factors = np.linspace(0.2, 1.5, 261)
    best = factors[np.argmin([np.mean(abs(f * middle - y) / y) for f in factors])]
    assert best < 0.7 and np.mean(best * middle < y) > 0.7
    assert {"lean", "slope"}.isdisjoint(f.name for f in residual_findings(best * middle, y - best * middle, sought=None))
