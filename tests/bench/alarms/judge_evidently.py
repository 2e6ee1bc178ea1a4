"""Evidently's DataDriftPreset with its defaults, of inputs and the model's probability: its own verdict (half of the columns), and any column.

The preset spends most of its time on figures, so that the tests it chooses are called by themselves; that they say what the preset says is held of the first window.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from rows import Stream, Verdict, answer, each_alone, frame

warnings.filterwarnings("ignore")
from evidently import DataDefinition, Dataset, Report  # noqa: E402
from evidently.legacy.calculations.stattests import get_stattest  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402


def drifted(reference: pd.DataFrame, window: pd.DataFrame) -> list[str]:
    found = []
    for name in reference:
        kind = "num" if reference[name].dtype.kind in "if" else "cat"
        before, now = (rows[name].replace([-np.inf, np.inf], np.nan).dropna() for rows in (reference, window))
        if get_stattest(before, now, kind, None)(before, now, kind, None).drifted:
            found.append(name)
    return found


def by_preset(reference: pd.DataFrame, window: pd.DataFrame) -> int:
    """Columns that drifted."""
    numbers = [n for n in reference if reference[n].dtype.kind in "if"]
    form = DataDefinition(numerical_columns=numbers, categorical_columns=[n for n in reference if n not in numbers])
    made = Report([DataDriftPreset()]).run(*(Dataset.from_pandas(rows, form) for rows in (window, reference))).dict()
    return int(next(m["value"]["count"] for m in made["metrics"] if m["metric_name"].startswith("DriftedColumnsCount")))


def judge(stream: Stream) -> Iterator[Verdict]:
    first = frame(stream.calm[-1], stream.learnt)
    if len(stream.cases) == 1 and len(drifted(stream.learnt, first)) != by_preset(stream.learnt, first):
        raise AssertionError(f"{stream.name}: the preset says something else than its tests")

    def one(_: int, log: pa.Table) -> dict[str, bool]:
        found = drifted(stream.learnt, frame(log, stream.learnt))
        return {"Evidently, half of the columns": len(found) >= stream.learnt.shape[1] / 2, "Evidently, any column": bool(found)}

    return each_alone(stream, one)


if __name__ == "__main__":
    answer(judge)
