"""Batch scoring beside scikit-learn's predict_proba over chunks on the same cores: rows a second, peak memory, largest difference. `python tests/bench/batch.py ROWS`; the last line is JSON."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from mlops_nb.model.compile import compile_model
from _figures import tell
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.registry.registration import register
from mlops_nb.registry.sample import sample_of
from mlops_nb.stages.features import make_recipe
from mlops_nb.model.problem import Problem
from mlops_nb.model.conform import conform, learn_schema

DATA = Path(__file__).parents[2] / "mlops_nb" / "data" / "income.parquet"
CHUNK = 1 << 17


def write_rows(people: pd.DataFrame, rows: int, file: Path) -> None:
    "Census rows drawn at random, a million in memory at most."
    table, draw, done = pa.Table.from_pandas(people, preserve_index=False), np.random.default_rng(0), 0
    with pq.ParquetWriter(file, table.schema.append(pa.field("id", pa.int64()))) as writer:
        while done < rows:
            n = min(1_000_000, rows - done)
            writer.write_table(table.take(pa.array(draw.integers(0, len(people), n))).append_column("id", pa.array(np.arange(done, done + n))))
            done += n


def make_model(people: pd.DataFrame, home: Path) -> tuple[Pipeline, object]:
    "200 boosted trees, registered with their compiled model."
    stated = Problem(name="income", goal="a benchmark", task="binary", target="income", positive=">50K", metric="roc_auc", data={"source": "package:income.parquet"})
    schema = learn_schema(people, stated)
    known = conform(people, schema)
    model = Pipeline([("recipe", make_recipe(schema, stated)["tree"]), ("estimator", HistGradientBoostingClassifier(max_iter=200, early_stopping=False, random_state=0))])
    model.fit(known, people.income)
    evidence = as_evidence({"problem": stated, "schema": schema, "decision": {"threshold": 0.33}, "sample": sample_of(model, known.head(8))})
    made = compile_model(model, schema, known.head(500), target_type="binary", positive=">50K", threshold=0.33)
    register(f"sqlite:///{home}/mlflow.db", "income", model, evidence, "staging", compiled=made)
    return model, schema


def by_sklearn(model: Pipeline, schema: object, file: Path, most: int) -> tuple[np.ndarray, float, float]:
    "Probabilities of the first rows, rows a second, and rows a second of CPU, reading included."
    said, n, since, cpu = [], 0, time.perf_counter(), time.process_time()
    for batch in pq.ParquetFile(file).iter_batches(CHUNK):
        frame = conform(batch.to_pandas(), schema)
        said.append(model.predict_proba(frame)[:, 1])
        n += len(frame)
        if n >= most:
            break
    return np.concatenate(said), n / (time.perf_counter() - since), n / (time.process_time() - cpu)


def by_batch(home: Path, file: Path, out: Path) -> tuple[float, float, float]:
    "Seconds of the whole command, start included, those of its CPU, and its peak memory in GB."
    env = {**os.environ, "MLOPS_NB_REGISTRY_URI": f"sqlite:///{home}/mlflow.db", "MLOPS_NB_HOME": str(home)}
    since = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "mlops_nb.cli.main", "score", str(file), str(out), "--model", "income@staging", "--keep", "id"], cwd=DATA.parents[2], env=env, stdout=sys.stderr)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return time.perf_counter() - since, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file, out = home / "rows.parquet", home / "out.parquet"
        people = pd.read_parquet(DATA)
        write_rows(people, rows, file)
        model, schema = make_model(people, home)
        by_batch(home, file, out) if rows <= 2_000_000 else None  # the compiled code is kept from here on
        seconds, cpu, peak = by_batch(home, file, out)
        expected, speed, cpu_speed = by_sklearn(model, schema, file, 400_000)
        said = pq.read_table(out)
        worst = float(np.abs(said["probability"].slice(0, len(expected)).to_numpy() - expected).max())
        whole = len(said) == rows and bool((said["id"].to_numpy() == np.arange(rows)).all())
        facts = {"rows": rows, "seconds": round(seconds, 2), "rows_per_s": round(rows / seconds), "sklearn_rows_per_s": round(speed), "ratio": round(rows / seconds / speed, 1), "ratio_of_cpu": round(rows / cpu / cpu_speed, 1), "peak_gb": round(peak, 3), "worst": worst, "whole": whole}
        print(json.dumps(facts))
        ratio = rows / seconds / speed
        tell("batch_difference", worst, "<=1e-9", worst <= 1e-9)
        tell("batch_ratio", ratio, ">=4", ratio >= 4)
        tell("batch_peak_gb", peak, "<=1.5", peak <= 1.5)


if __name__ == "__main__":
    main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 10_000_000)
