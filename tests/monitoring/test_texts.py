"""Texts in a window: their gaps and their length are compared, no text is shown, and undisturbed windows are quiet."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_nb.log.drawn import Drawn
from mlops_nb.model.schema import Field, Schema
from mlops_nb.monitoring.drift import input_drift
from mlops_nb.monitoring.reference import make_reference
from mlops_nb.monitoring.windows import kinds_of, measured

FORM = Schema(fields=[Field(name="note", kind="text", nullable=True), Field(name="x", kind="number", nullable=True)], target="y", classes=["no", "yes"])
WORDS = [a + b for a in "ba ko ti mu re sa lo ne".split() for b in "dan fel gor mis tup ren lin var".split()]


def rows(n: int, seed: int, longest: int = 20, missing: float = 0.1) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    notes = [None if draw.random() < missing else " ".join(draw.choice(WORDS, draw.integers(3, longest))) for _ in range(n)]
    return pd.DataFrame({"note": pd.Series(notes, dtype="str"), "x": draw.normal(size=n)})


def drift_of(window: pd.DataFrame) -> dict[str, dict]:
    reference = make_reference(1, SimpleNamespace(form=FORM), rows(3000, 0))
    assert "note" not in reference.some and reference.profile.kinds == kinds_of(FORM)
    part = SimpleNamespace(inputs=measured(pa.Table.from_pandas(window, preserve_index=False), FORM), drawn=Drawn())
    return {f["name"]: f for f in input_drift(part, reference, 0.01)[0]}


def test_a_quiet_window_is_quiet():
    found = drift_of(rows(1500, 1))
    assert set(found) == {"words of note", "x"} and not any(f["drifted"] for f in found.values())


def test_longer_texts_and_gaps_are_seen():
    longer, gone = drift_of(rows(1500, 1, longest=40)), drift_of(rows(1500, 1, missing=0.4))
    assert longer["words of note"]["drifted"] and not longer["x"]["drifted"]
    assert gone["words of note"]["drifted"] and gone["words of note"]["missing"] > 0.3
    assert not any(word in str(longer) for word in WORDS), "no text stands in a report"


def test_other_words_alone_are_not_tested():
    """Said in the notebook: which words stand in texts is not compared."""
    other = rows(1500, 1)
    other["note"] = other["note"].str.replace("a", "o")
    assert not drift_of(other)["words of note"]["drifted"]
