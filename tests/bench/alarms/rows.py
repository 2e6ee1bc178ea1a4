"""What every tool reads: streams of windows as a service's log has them, and what the model learnt from. For any Python with pandas and pyarrow."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
START = datetime(2025, 1, 6, tzinfo=UTC)
Case = Sequence[pa.Table]  # a log's rows of each window, in the order of time


class Stream(NamedTuple):
    """Undisturbed windows, and what comes after them in several cases."""

    name: str
    window: str  # hour or day
    facts: dict[str, Any]  # problem, schema, evaluation
    learnt: pd.DataFrame  # training rows, and the model's probability
    calm: Case
    cases: dict[str, Case]
    last: int  # undisturbed windows that are counted


def write(folder: Path, stream: Stream) -> None:
    folder.mkdir(parents=True)
    stream.learnt.to_parquet(folder / "learnt.parquet")
    (folder / "facts.json").write_text(json.dumps({"window": stream.window, "last": stream.last, "facts": stream.facts, "cases": list(stream.cases)}))
    for name, case in {"calm": stream.calm, **stream.cases}.items():
        at = pa.array(np.repeat(np.arange(len(case)), [len(t) for t in case]))
        pq.write_table(pa.concat_tables(case).append_column("window", at), folder / f"{name}.parquet")


def read(folder: Path) -> Stream:
    def case(name: str) -> Case:
        table = pq.read_table(folder / f"{name}.parquet")
        size = np.bincount(table["window"].to_numpy())
        return [table.slice(int(start), int(n)).drop(["window"]) for start, n in zip(np.cumsum(size) - size, size, strict=True)]

    told = json.loads((folder / "facts.json").read_text())
    cases = {name: case(name) for name in told["cases"]}
    return Stream(folder.name, told["window"], told["facts"], pd.read_parquet(folder / "learnt.parquet"), case("calm"), cases, told["last"])


def span(stream: Stream, t: int) -> tuple[datetime, datetime]:
    """From when to when a window is, counted from the first."""
    return START + t * SPANS[stream.window], START + (t + 1) * SPANS[stream.window]


def frame(log: pa.Table, like: pd.DataFrame) -> pd.DataFrame:
    """Inputs and probabilities as columns."""
    made = pd.DataFrame(list(map(json.loads, log["inputs"].to_pylist())))
    made["probability"] = [json.loads(text)["probability"] for text in log["output"].to_pylist()]
    return made[list(like.columns)].astype(like.dtypes.to_dict())


def each_alone(stream: Stream, judge: Callable[[int, pa.Table], dict[str, bool]]) -> "Iterator[Verdict]":
    """For tools that remember no window: of many cases each by itself, of a long stream no more than its end."""
    calm = [] if len(stream.cases) > 1 else [("calm", list(stream.calm)[-stream.last :], len(stream.calm) - stream.last)]
    for name, case, first in [*calm, *((name, case, len(stream.calm)) for name, case in stream.cases.items())]:
        for t, log in enumerate(case, max(first, 0)):
            alarms = judge(t, log)
            yield name, alarms, True
            if name != "calm" and all(alarms.values()):
                break


Verdict = tuple[str, dict[str, bool], bool]  # case; by tool, is there an alarm; was a promise made


def answer(judge: Callable[[Stream], Iterator[Verdict]]) -> None:
    """Judge every stream of the folder, one line of JSON for each."""
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        found: dict[str, list] = {}
        for case, alarms, promise in judge(read(folder)):
            found.setdefault(case, []).append([alarms, promise])
        print(json.dumps({"stream": folder.name, "found": found}), flush=True)
