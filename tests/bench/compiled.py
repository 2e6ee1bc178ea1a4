"""The compiled model beside the pipeline that it was made of: one row, all rows, and whether they say the same.

The model is the registered one (`mlops-nb run` registers it). Processor seconds of one process, so that other work on the machine
counts little; batches are divided over all cores on both sides, in turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _figures import tell
import numpy as np
import pandas as pd

from mlops_nb.model.compile import compile_model, matrix_of
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.registry.loading import load
from mlops_nb.registry.sample import sample_frame
from mlops_nb.base.settings import load_settings
from mlops_nb.model.conform import conform

ROOT = Path(__file__).parents[2]
CHUNK = 10_000  # rows
START = """import sys, time
since = time.perf_counter()
from mlops_nb.model.compiled_model import CompiledModel
made = CompiledModel.load(open(sys.argv[1], "rb").read())
made.predict(made.encode(made.header["proof"]["rows"][:1]))
print(time.perf_counter() - since, time.process_time())"""


def micros(call: Callable, times: int, rounds: int = 5) -> float:
    "Processor microseconds of one call, the median of some rounds."
    taken = []
    for _ in range(rounds):
        since = time.process_time()
        for _ in range(times):
            call()
        taken.append((time.process_time() - since) / times * 1e6)
    return statistics.median(taken)


def seconds(call: Callable) -> float:
    since = time.perf_counter()
    call()
    return time.perf_counter() - since


def starts(data: bytes) -> tuple[float, float]:
    "Seconds from nothing to the first answer in a process of its own: without compiled code on disk, and with it."
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "compiled.zip")
        file.write_bytes(data)
        env = {**os.environ, "NUMBA_CACHE_DIR": folder}
        runs = [subprocess.run([sys.executable, "-c", START, str(file)], env=env, capture_output=True, text=True, check=True).stdout.split() for _ in range(4)]
    return float(runs[0][1]), min(float(r[1]) for r in runs[1:])


def main() -> None:
    loaded = load(load_settings(ROOT).registry_uri, "income", "released")
    form = loaded.evidence.form
    rows = conform(pd.read_parquet(ROOT / "mlops_nb" / "data" / "income.parquet"), form)
    data = compile_model(loaded.model, form, pd.concat([sample_frame(loaded.evidence.sample), rows[:3000]], ignore_index=True), target_type="binary")
    made, model = CompiledModel.load(data), loaded.model
    matrix = matrix_of(rows, made.fields, made.header["vocabulary"])

    expected = model.predict_proba(rows)
    worst = float(np.abs(made.predict(matrix) - expected).max())
    flipped = int((made.predict(matrix)[:, 1] >= 0.5).sum() - (expected[:, 1] >= 0.5).sum())
    one, frame, plain = matrix[:1].copy(), rows[:1], made.header["proof"]["rows"][:1]
    quick, encoded, slow = micros(lambda: made.predict(one), 2000), micros(lambda: made.encode(plain), 2000), micros(lambda: model.predict_proba(frame), 10)
    cores = os.cpu_count() or 1
    turns = [(seconds(lambda: made.predict(matrix, threads=cores)), seconds(lambda: [model.predict_proba(rows[i : i + CHUNK]) for i in range(0, len(rows), CHUNK)])) for _ in range(5)]
    batch, chunks = (statistics.median(t) for t in zip(*turns, strict=True))
    cold, warm = starts(data)

    print(f"{len(rows):,} rows, {len(made._arrays[3])} trees: the largest difference is {worst:.2g}, decisions that differ: {flipped}")
    print(f"one row: {quick:.1f} us, and {encoded:.1f} us to encode it; the pipeline {slow:,.0f} us")
    print(f"batches on {cores} cores: {len(rows) / batch:,.0f} rows/s; the pipeline {len(rows) / chunks:,.0f} rows/s, chunks of {CHUNK:,}")
    print(f"processor seconds from nothing to the first answer: {warm:.2f}; the very first start on a machine, which compiles: {cold:.2f}")
    tell("compiled_difference", worst, "<=1e-9", worst <= 1e-9)
    tell("compiled_one_row_us", quick, "<=15", quick <= 15)
    tell("compiled_one_row_ratio", slow / (quick + encoded), ">=100", slow / (quick + encoded) >= 100)
    tell("compiled_batch_ratio", chunks / batch, ">=4", chunks / batch >= 4)
    tell("compiled_start_s", warm, "<=1", warm <= 1)
    tell("compiled_first_start_s", cold, "<=5", cold <= 5)


if __name__ == "__main__":
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":  # threads that wait by spinning would be counted against the pipeline
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})  # noqa: S606
    main()
