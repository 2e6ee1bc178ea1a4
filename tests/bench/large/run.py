"""Peak memory of ingest, validate and split over Parquet of 20 columns, and how it grows with the rows.

    python tests/bench/large/run.py [--rows 100000 1000000 10000000] [--upto ingest]

The file is made in parts, so that making it is no part of the figure. Each size is run in a project of its own through
`mlops-nb run split`; a stage's figure is the high-water mark of its kernel's resident memory, as the system keeps it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.bench._figures import tell  # noqa: E402

GOAL = 2.0  # GB, of the largest stage at ten million rows
BIN = Path(sys.executable).parent
CHARTER = """
name: large
goal: Say who answers
task: binary
target: answers
positive: "yes"
metric: roc_auc
id: number
data: {source: rows.parquet}
knobs: {validate: {max_quarantine: 0.5}}
"""


def make(path: Path, rows: int, at_once: int = 100_000) -> None:
    """Ten columns of measurements, four of counts, four of words, an id and a target; a few values are missing."""
    writer, words = None, np.array([f"kind {k}" for k in range(40)])
    for begin in range(0, rows, at_once):
        n, chance = min(at_once, rows - begin), np.random.default_rng(begin)
        columns: dict[str, pa.Array] = {"number": pa.array(np.arange(begin, begin + n))}
        for k in range(10):
            values = chance.normal(k, 1 + k, n).round(4)
            columns[f"measure_{k}"] = pa.array(values, mask=chance.random(n) < 0.01 * (k % 3))
        for k in range(4):
            columns[f"count_{k}"] = pa.array(chance.integers(0, 10 ** (k + 1), n))
        for k in range(4):
            columns[f"word_{k}"] = pa.array(words[chance.integers(0, 5 * (k + 1), n)], mask=chance.random(n) < 0.02 * (k % 2))
        odds = np.asarray(columns["measure_0"].to_numpy(zero_copy_only=False), dtype=float) + columns["count_0"].to_numpy() / 5 - 1
        columns["answers"] = pa.array(np.where(chance.random(n) < 1 / (1 + np.exp(-np.nan_to_num(odds))), "yes", "no"))
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def descendants(of: int) -> list[int]:
    """All processes below one."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, rest = stat.read_text().split(" ", 1)
            parents.setdefault(int(rest.rsplit(")", 1)[1].split()[1]), []).append(int(pid))
    found, todo = [], [of]
    while todo:
        todo += (below := parents.get(todo.pop(), []))
        found += below
    return found


def marks(pids: list[int]) -> dict[int, int]:
    """High-water marks of resident memory, bytes."""
    found = {}
    for pid in pids:
        with suppress(OSError, TypeError):
            found[pid] = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    return found


STAGES = ("problem", "ingest", "validate", "split")


def measure(rows: int, keep: Path, upto: str) -> dict[str, float]:
    """GB of each stage, one run after the other."""
    project, made = keep / f"rows-{rows}", {}
    (project / "nbs" / "charters").mkdir(parents=True)
    (project / "nbs" / "stages").mkdir()
    (project / "nbs" / "charters" / "large.yaml").write_text(CHARTER)
    (project / "settings.ini").write_text("[mlops_nb]\ncharter = nbs/charters/large.yaml\nstock = yes\npackage = large\ntracking = disabled\n")
    make(project / "rows.parquet", rows)
    quiet = {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "TTY_COMPATIBLE": "0"}
    for stage in STAGES[: STAGES.index(upto) + 1]:
        run = subprocess.Popen([BIN / "mlops-nb", "run", stage], cwd=project, env=os.environ | quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        peaks: dict[int, int] = {}
        while run.poll() is None:
            peaks |= marks(descendants(run.pid))
            time.sleep(0.05)
        if run.returncode:
            raise SystemExit(f"{stage} over {rows:,} rows ended with {run.returncode}: {run.stdout.read()[-2000:]}")
        made[stage] = max(peaks.values()) / 1e9
        print(f"{rows:>12,} rows  {stage:9} {made[stage]:6.2f} GB", flush=True)
    return made


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    asked.add_argument("--work", type=Path, help="a folder on a disk with room; else a temporary one")
    asked.add_argument("--upto", choices=STAGES[1:], default="split", help="the last stage that is run")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        found = {rows: measure(rows, Path(work), given.upto) for rows in sorted(given.rows)}
    empty, most = found[min(found)]["problem"], max(found)
    for stage, gb in list(found[most].items())[1:]:
        tell(f"data_large_{stage}_{most}_rows_gb", gb, f"<={GOAL:g}", gb <= GOAL)
        whole = 20 * 8 * most / 1e9  # what the rows take as numbers of 64 bits
        print(f"{stage}: {gb - empty:.2f} GB above an empty stage, {(gb - empty) / whole:.2f} of the rows themselves as 64-bit numbers")
    print(json.dumps({str(rows): {k: round(v, 3) for k, v in one.items()} for rows, one in found.items()}))


if __name__ == "__main__":
    main()
