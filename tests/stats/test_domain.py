"""Which rows are of the window: nothing but the rows says so."""

import numpy as np

from mlops_nb.stats.domain import _codes


def test_rare_categories_share_a_code_whoever_came_first():
    "Ties of frequency once went to whoever came first, the reference: that alone told it from the window."
    draw = np.random.default_rng(0)
    rows = draw.choice([f"k{i}" for i in range(300)], 720).astype(object)
    code, texts = _codes(rows, 50)
    swapped, same = _codes(rows[::-1], 50)
    assert list(texts) == list(same) and np.array_equal(code, swapped[::-1])
    assert len(texts) == 50 and set(code) == set(range(51))
