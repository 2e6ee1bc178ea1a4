"""Gaps that chance made are not blamed on a column, those that depend on one are; unusual values are learnt from some rows and asked of all."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.stats.missing import missing_pattern
from mlops_nb.stats.outliers import flag_parts, learn_fences


def table(rng: np.random.Generator, n: int = 600) -> pd.DataFrame:
    """Columns of all kinds that know nothing of each other."""
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "k": rng.integers(0, 5, n),
            "city": rng.choice(["Bonn", "Rome", "Oslo"], n),
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90, n), unit="D"),
            "gap": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        }
    )


@pytest.mark.slow  # 300 tables
def test_chance_is_blamed_in_one_of_a_thousand_tables():
    blamed = sum(bool(missing_pattern(table(np.random.default_rng(seed)))[0].depends) for seed in range(300))
    assert blamed <= 3, "0.3 are expected; more than 3 has a chance of three in ten thousand"


def test_what_depends_is_found():
    for column, where in (("x", lambda t: t["x"] > 0), ("city", lambda t: t["city"] == "Oslo"), ("day", lambda t: t["day"] > "2026-02-14"), ("k", lambda t: t["k"] == 3)):
        rng = np.random.default_rng(3)
        rows = table(rng)
        rows["gap"] = rows["x"].where(~where(rows) | (rng.random(len(rows)) < 0.5), np.nan)
        (gap,) = missing_pattern(rows)
        assert f"'{column}'" in gap.depends, (column, gap.depends)


def test_wide_tables_and_empty_columns_take_their_bounds():
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(np.where(rng.random((300, 2_000)) < 0.1, np.nan, 1.0)).add_prefix("x").assign(nothing=np.nan)
    gaps = missing_pattern(wide)
    assert gaps[0].column == "nothing" and gaps[0].share == 1.0 and len(gaps) == 2_001 and missing_pattern(wide.head(0)) == []


def test_test_rows_have_no_say_in_what_is_usual():
    rng = np.random.default_rng(0)
    train, test = (pd.DataFrame({"a": rng.normal(size=500), "b": rng.normal(size=500)}) for _ in range(2))
    flags = flag_parts({"train": train, "test": test}).flags
    wild = flag_parts({"train": train, "test": test.assign(a=test["a"] * 1e6)})
    assert wild.flags.query("part == 'train'").reset_index(drop=True).equals(flags.query("part == 'train'").reset_index(drop=True))
    assert len(wild.flags.query("part == 'test' and column == 'a' and method == 'iqr'")) > 450


def test_normal_numbers_are_flagged_as_often_as_theory_says():
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"a": rng.normal(size=200_000)})
    counts = flag_parts({"train": rows}, ["iqr", "robust_z"]).counts["a"]
    assert abs(counts["iqr"] - 0.00698 * 200_000) < 5 * (0.00698 * 200_000) ** 0.5  # beyond 2.698 standard deviations
    assert abs(counts["robust_z"] - 0.000465 * 200_000) < 5 * (0.000465 * 200_000) ** 0.5  # beyond 3.5


def test_infinite_constant_and_missing_columns_have_no_fence():
    odd = pd.DataFrame({"inf": [np.inf] * 50, "one": [1.0] * 50, "none": [np.nan] * 50, "text": ["x"] * 50})
    found = flag_parts({"train": odd, "test": odd.head(0)})
    assert found.flags.empty and set(learn_fences(odd[["one"]])) == {"one"} and found.fences["one"]["low"] is None


def test_many_gaps_are_judged_as_scipy_judges_each():
    from scipy.stats import chi2_contingency, mannwhitneyu

    from mlops_nb.stats.missing import _tests

    rng = np.random.default_rng(5)
    rows = table(rng, 400).assign(rounded=lambda t: t["x"].round(1))
    rows.loc[rng.random(400) < 0.1, "x"] = np.nan
    gaps = np.column_stack([rng.random(400) < 0.2, rows["x"].rank(pct=True).fillna(0) * rng.random(400) > 0.6])
    for name in ("x", "rounded", "day", "k", "city"):
        known = rows[name].notna().to_numpy()
        column, there = rows.loc[known, name], gaps[known]
        for (p, _), gap in zip(_tests(gaps, rows[name]), there.T, strict=True):
            if name in ("k", "city"):
                expected = chi2_contingency(pd.crosstab(column, gap), correction=False).pvalue
            else:
                ranks = column.rank().to_numpy()
                expected = mannwhitneyu(ranks[gap], ranks[~gap]).pvalue
            assert np.isclose(p, expected, rtol=1e-9), name


def test_a_wide_table_takes_no_more_tests_than_columns_it_is_held_against(monkeypatch):
    from mlops_nb.stats import missing

    calls, real = [], missing._tests
    monkeypatch.setattr(missing, "_tests", lambda gaps, values: calls.append(1) or real(gaps, values))
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 80))).add_prefix("c")
    wide = wide.mask(np.random.default_rng(1).random(wide.shape) < 0.2)
    assert len(missing_pattern(wide)) == 80 and len(calls) <= 25
