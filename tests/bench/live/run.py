"""`mlops-nb monitor` and `mlops-nb log query` over a log of many live rows, beside commit 6ea964e in the same run: processor time, peak memory, and how memory grows with the log.

The older commit is checked out under .bench/. `--peers` does so when it isn't there; without, it is compared where it was made before. It reads the same rows and the same log; what its own registry
would tell it (schema, evaluation, training rows) is handed to it, for its stages don't run with today's libraries.
"""  # fmt: skip

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

WINDOWS = 31  # that are looked at
HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from _figures import tell  # noqa: E402

ROOT = HERE.parents[2]
OLD, COMMIT = ROOT / ".bench" / "6ea964e", "6ea964e"
COMPARED = int(os.environ.get("COMPARED", 1_000_000))
SAMPLE = ROOT / ".mlops" / "sample"
QUERIES = {
    "count": "SELECT version, count(*) AS n FROM predictions GROUP BY version",
    "days": "SELECT date_trunc('day', time) AS day, count(*) AS n, max(latency) AS most FROM predictions GROUP BY day ORDER BY day",
    "newest": "SELECT count(*) AS n, max(latency) AS most FROM predictions WHERE time >= (date_trunc('day', now()) - INTERVAL 3 DAY)",
    "fields": "SELECT inputs->>'sex' AS sex, round(avg((output->>'probability')::DOUBLE), 6) AS p FROM predictions GROUP BY sex ORDER BY sex",
}
TIMED = """
import sys, time
spent = [0.0]
def timed(module, name):
    work = getattr(module, name)
    def one(*given, **more):
        began = time.process_time()
        try:
            return work(*given, **more)
        finally:
            spent[0] += time.process_time() - began
    setattr(module, name, one)
"""
OURS = """
import sys
if sys.argv[1] == "monitor":
    from mlops_nb.monitoring import due, judge
    timed(due, "window_of"), timed(judge, "part_of")
from mlops_nb.cli.main import main
try:
    main()
finally:
    print(f"reading {spent[0]:.3f}")
"""
THEIRS = """
import json, sys
from pathlib import Path
import pandas as pd
import mlops_nb.stages.monitor as monitor
from mlops_nb.core.cli import main
from mlops_nb.services.monitoring import command
from mlops_nb.stages.problem import Problem

folder = Path(sys.argv.pop(1))
def reference_of(place, model, number):
    evidence = json.loads((folder / "evidence.json").read_text())
    evidence["problem"] = {k: v for k, v in evidence["problem"].items() if k in Problem.model_fields}
    (evidence["problem"].get("costs") or {}).pop("matrix", None)  # it knew none
    return monitor.make_reference(number, evidence, pd.read_parquet(folder / "train.parquet"))
monitor.reference_of = reference_of
timed(monitor, "window_of"), timed(monitor, "part_of")
try:
    command(None, 1, False) if sys.argv[1] == "monitor" else main()
finally:
    print(f"reading {spent[0]:.3f}")
"""


class Cost(NamedTuple):
    "What a command took."

    seconds: float  # of the processor
    peak: float  # MB
    said: str
    reading: float = 0.0  # seconds of it that went into windows of the log, as columns


def run(code: str, words: Sequence[str], home: Path, source: Path) -> Cost:
    "A command in a process of its own; this one stays small, for a child's peak begins with its parent's."
    env = {**os.environ, "PYTHONPATH": str(source), "MLOPS_NB_HOME": str(home), "MLOPS_NB_TRACKING": "disabled"}
    env |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "MLOPS_NB_REGISTRY_URI": "", "MLOPS_NB_LOG_URL": ""}
    with tempfile.TemporaryFile("w+") as told:
        child = subprocess.Popen([sys.executable, "-c", TIMED + code, *words], env=env, cwd=source, stdout=told)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        text = told.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} of {source} ended with {child.returncode}:\n{text[-2000:]}")
    reading = re.search(r"^reading ([\d.]+)$", text, re.MULTILINE)  # of monitor; the older query ends its process at once
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text, float(reading[1]) if reading else 0.0)


def both(words: Sequence[str], homes: Sequence[Path]) -> list[Cost]:
    "Ours, and theirs where there is a home for it."
    made = [run(OURS, words, homes[0], ROOT)]
    if len(homes) > 1:
        made.append(run(THEIRS, [str(homes[0]), *words], homes[1], OLD))
    cost = "; ".join(f"{who} {c.seconds:.1f} s, {c.peak:.0f} MB" for who, c in zip(("ours", COMMIT), made, strict=False))
    print(f"  {words[0]} {words[-1][:40] if len(words) > 1 else ''}: {cost}", flush=True)
    return made


def measure(rows: int, folder: Path, peer: bool) -> dict[str, list[Cost]]:
    "All commands on a log of so many rows."
    homes = [folder / "ours", *([folder / "theirs"] if peer else [])]
    shutil.copytree(SAMPLE, homes[0])
    made = subprocess.run([sys.executable, HERE / "log_of_rows.py", homes[0], str(rows)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    made.check_returncode()
    for home in homes[1:]:
        home.mkdir()
        shutil.copyfile(homes[0] / "predictions.db", home / "predictions.db")
    print(f"{rows:,} live rows in 52 windows, of which {WINDOWS} are looked at:", flush=True)
    found = {name: both(["log", "query", "--json", sql], homes) for name, sql in QUERIES.items()}
    found["monitor"] = both(["monitor"], homes)
    for name, costs in found.items():
        told = [sorted(line for line in c.said.split("\n") if line.startswith("{")) for c in costs]
        if name != "monitor" and (not told[0] or told[0] != told[-1]):
            raise SystemExit(f"query '{name}' is answered otherwise:\n{costs[0].said[:500]}\n{costs[-1].said[:500]}")
        if name == "monitor" and any(c.said.count("features drifted") != WINDOWS for c in costs):
            raise SystemExit(f"not every window was judged:\n{costs[0].said[:1000]}\n{costs[-1].said[:1000]}")
    shutil.rmtree(folder)
    return found


def one_window(rows: int, folder: Path) -> Cost:
    "`monitor` where a single day has so many rows, rolled into files."
    shutil.copytree(SAMPLE, folder)
    made = subprocess.run([sys.executable, HERE / "log_of_rows.py", folder, str(rows), "rolled"], env={**os.environ, "PYTHONPATH": str(ROOT)})
    made.check_returncode()
    print(f"{rows:,} rolled rows in one window:", flush=True)
    (found,) = both(["monitor"], [folder])
    if f" of {rows:,} rows were looked at" not in found.said or found.said.count("features drifted") != 1:
        raise SystemExit(f"the window wasn't judged:\n{found.said[:1000]}")
    return found


def checkout() -> str:  # why not; empty: it is there
    "The older commit's files."
    OLD.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["git", "-C", ROOT, "archive", COMMIT, "-o", OLD / "all.tar"], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(OLD)
        return f"git has no commit {COMMIT}: {made.stderr.strip()}; a shallow clone has not, see: git fetch --unshallow"
    subprocess.run(["tar", "-xf", OLD / "all.tar", "-C", OLD], check=True)
    (OLD / "all.tar").unlink()
    return ""


def grown(small: Sequence[Cost], large: Sequence[Cost]) -> float:
    return large[0].peak / small[0].peak


def main(sizes: Sequence[int], peers: bool, window: int) -> str | None:
    if not (SAMPLE / "mlflow.db").is_file():
        return f"there is no registered model in {SAMPLE}; make one: make sample"
    why = "" if OLD.is_dir() else checkout() if peers else "it isn't checked out; do so: make bench-live"
    costs = {}
    (ROOT / ".bench").mkdir(exist_ok=True)
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as folder:
            costs[rows] = measure(rows, Path(folder, "log"), not why and rows == COMPARED)
    if (most := max(sizes)) > (least := min(sizes)):
        worst = max(grown(costs[least][name], costs[most][name]) for name in QUERIES)
        tell("live_query_memory_growth", worst, "<=1.25", worst <= 1.25)
        growth = grown(costs[least]["monitor"], costs[most]["monitor"])
        tell("live_monitor_memory_growth", growth, "<=1.25", growth <= 1.25)
    if window:
        with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as folder:
            growth = one_window(window, Path(folder, "log")).peak / costs[min(sizes)]["monitor"][0].peak
        tell("live_window_memory_growth", growth, "<=1.25", growth <= 1.25)
    if why or COMPARED not in costs:
        print(f"{COMMIT}: not compared, {why or f'it is where {COMPARED:,} rows are asked for'}")
        return None
    found = costs[COMPARED]
    for name in QUERIES:
        print(f"  query {name}: {found[name][1].seconds / found[name][0].seconds:.1f} times as fast")
    ours, theirs = (sum(found[name][i].seconds for name in QUERIES) for i in (0, 1))
    tell("live_query_ratio", theirs / ours, ">=10", theirs / ours >= 10)
    ratio = found["monitor"][1].seconds / found["monitor"][0].seconds
    tell("live_monitor_ratio", ratio, ">=10", ratio >= 10)
    ours, theirs = found["monitor"]
    reading = theirs.reading / ours.reading
    tell("live_reading_ratio", reading, ">=10", reading >= 10)
    for who, cost in (("ours", ours), (COMMIT, theirs)):
        rest = (cost.seconds - cost.reading) / WINDOWS
        print(f"  {who}: reading {1000 * cost.reading / WINDOWS:.0f} ms a window, judging it and all else {1000 * rest:.0f} ms")
    for what in ("count", "monitor"):
        print(f"  peak memory of {what}: {found[what][1].peak / found[what][0].peak:.1f} times less")
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="check out the older commit where it isn't there")
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000], help=f"of the logs; {COMPARED} is compared (COMPARED in the environment)")
    parser.add_argument("--window", type=int, default=0, help="rows of a single window, rolled; none without")
    asked = parser.parse_args()
    sys.exit(main(asked.rows, asked.peers, asked.window))
