"""Near rows are found where they were made, and nowhere else: the lesson's simulation on more tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mlops_nb.stats.near as near

LESSON = next(
    "".join(c["source"])
    for c in json.loads((Path(__file__).parents[2] / "nbs/stats/17_near.ipynb").read_text(encoding="utf-8"))["cells"]
    if "def made_table" in "".join(c["source"])
)


@pytest.mark.deep
def test_two_hundred_clean_tables_warn_at_most_twice_and_copies_are_found():
    names = vars(near) | {"np": np, "pd": pd}
    exec(compile(LESSON.split("shares = ")[0], "lesson", "exec"), names)
    false = [seed for seed in range(200) if names["warned"](seed, False)]
    found = [seed for seed in range(200) if names["warned"](seed, True)]
    assert len(false) <= 2 and len(found) >= 160, (false, len(found))


def test_odd_tables_say_nothing():
    draw = np.random.default_rng(0)
    flat = pd.DataFrame({"a": 1.0, "b": np.nan, "c": draw.normal(size=300), "d": "x"}, index=range(300))
    for table in (flat, flat.head(0), flat.assign(e=range(300), f=pd.Timestamp("2026-01-01")), flat.assign(g=[True, None, "x"] * 100)):
        found = near.noisy_twins(table.head(250), table.tail(50))
        assert near.written_twins(table.head(250), table.tail(50)) == 0 and not (found and found.telling)
