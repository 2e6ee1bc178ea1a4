"""Which rows are of the window: nothing but the rows says so."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.stats.domain import _codes, domain


def test_rare_categories_share_a_code_whoever_came_first():
    "Ties of frequency once went to whoever came first, the reference: that alone told it from the window."
    draw = np.random.default_rng(0)
    rows = draw.choice([f"k{i}" for i in range(300)], 720).astype(object)
    code, texts = _codes(rows, 50)
    swapped, same = _codes(rows[::-1], 50)
    assert list(texts) == list(same) and np.array_equal(code, swapped[::-1])
    assert len(texts) == 50 and set(code) == set(range(51))


@pytest.mark.parametrize("known", [0, 1])
def test_a_column_of_which_nothing_is_known_says_nothing(known):
    "No row of it has a value, or one in thousands has, which the other half must do without."
    draw = np.random.default_rng(0)
    reference, window = (pd.DataFrame({"a": draw.normal(size=n), "x": np.full(n, np.nan)}) for n in (2000, 500))
    reference.loc[3, "x"] = 1.5 if known else np.nan
    for shift, least, most in ((0.0, 0.01, 1.0), (1.0, 0.0, 1e-6)):
        found = domain(reference, window.assign(a=window["a"] + shift), kinds={"a": "number", "x": "number"})
        assert least <= found.p <= most and abs(found.importances["x"]) < 0.02
