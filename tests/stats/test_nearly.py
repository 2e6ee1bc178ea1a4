"""Few rows of honest columns are not said to give a number away, whatever the number is like; a copy of it is."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.stats.leaks import strong_columns, wanted_of

KINDS = {
    "normal": lambda h, d: 10 * h + 50,
    "money": lambda h, d: np.exp(h),
    "mostly none": lambda h, d: np.where(h > 0.84, np.exp(h) * 100, 0),
    "rarely any": lambda h, d: np.where(h > 1.645, np.exp(h) * 100, 0),
    "counts": lambda h, d: d.poisson(np.exp(h - 1.5)).astype(float),
    "marks": lambda h, d: np.digitize(h, [-1, 0, 1]).astype(float),
    "one only": lambda h, d: np.where(np.arange(len(h)) == d.integers(len(h)), 5.0, 0),
}


def made(seed: int, n: int, kind: str) -> tuple[pd.DataFrame, pd.Series]:
    """Honest columns, up to nine tenths of the number's spread, and rare things that happen to anyone."""
    d = np.random.default_rng(seed)
    h = d.normal(size=n)
    target = pd.Series(KINDS[kind](h, d), name="y")
    frame = {f"strong {r}": np.sqrt(r) * h + np.sqrt(1 - r) * d.normal(size=n) for r in (0.5, 0.8, 0.9)}
    frame |= {f"flag {p}": (d.random(n) < p).astype(int) for p in (0.02, 0.03, 0.1)}
    frame |= {f"amount {p}": np.where(d.random(n) < p, d.exponential(size=n), 0) for p in (0.02, 0.05)}
    frame |= {"noise": d.normal(size=n), "same": np.ones(n), "city": d.choice([f"c{k}" for k in range(30)], n), "gaps": np.where(d.random(n) < 0.2, np.nan, d.normal(size=n))}
    return pd.DataFrame(frame), target


def found(seed: int, n: int, kind: str, **more) -> list:
    frame, target = made(seed, n, kind)
    wanted = wanted_of(target, False, np.arange(n))
    leaks = [] if wanted is None else strong_columns(frame.assign(**{k: f(target) for k, f in more.items()}), wanted)
    return [leak for leak in leaks if leak.kind != "far off"]  # information, no warning


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("tables", [pytest.param(10, id="few"), pytest.param(700, id="full", marks=pytest.mark.deep)])
@pytest.mark.parametrize("kind", KINDS)
def test_honest_columns_of_few_rows_warn_in_a_hundredth_at_most(kind, tables):
    sizes = (20, 30, 60, 199) if tables < 100 else (20, 30, 40, 60, 100, 199)
    for n in sizes:
        wrong = sum(bool(found(seed, n, kind)) for seed in range(tables))
        assert wrong <= 0.01 * tables, (n, wrong)


@pytest.mark.parametrize("n", [30, 100])
def test_a_copy_is_found_even_so(n):
    assert [leak.columns for leak in found(1, n, "normal", copy=lambda y: 3 * y + 7)] == [("copy",)]
    assert ("copy",) in [leak.columns for leak in found(1, 100, "mostly none", copy=lambda y: y / 2)]


def test_one_row_that_differs_is_no_proof():
    """A column that is 1 at the only row with a number other than 0: of thirty such columns one is so by chance."""
    sales = pd.Series([0.0] * 29 + [5.0], name="sales")
    assert strong_columns(pd.DataFrame({"flag": sales > 0}), wanted_of(sales, False, np.arange(30))) == []
