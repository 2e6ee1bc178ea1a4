"""The default project beside plain boosting, FLAML and AutoGluon on the same rows at the same processor time: metric,
log loss, calibration, time, latency.

    make bench-quality                   the public and the made tables, 3 seeds, 60 s of processor time a cell: hours
    make bench-quality TABLES=folder     other tables: CSV files, each with an optional YAML (see tables.py)
    make bench-quality BENCH="--budget 20 --seeds 1 --tools ours,hgb --only wine,digits"
    make bench-quality GROWTH=1          time and memory of ours from 10,000 rows to a million

A cell (a table, a seed, a tool) is measured once and kept; the same command goes on where it was stopped. Nothing
here is a goal by itself: each figure stands beside another one of the same run.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import growth
import made
import numpy as np
import report
from cells import Results, key
from rows import Job, label, number
from scores import METRIC, Answers, scores
from tables import Table, divide, folder, targets
from tools import HERE, PEERS, ROOT, TOOLS, environment, measured, versions

HOME = ROOT / ".bench" / "quality"
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_THREAD_TIMEOUT": "12",
    "PYTHONWARNINGS": "ignore",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "disabled",
}


def threads_of(n: int) -> dict[str, str]:
    return {f"{name}_NUM_THREADS": str(n) for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "LOKY")} | {
        "LOKY_MAX_CPU_COUNT": str(n)
    }


def stock(cache: Path) -> Path:
    "The folder of the public and the made tables, written once."
    place = cache / "tables"
    done = place / "written"
    wanted = "".join((HERE / name).read_text() for name in ("packaged.py", "made.py", "requirements-tables.txt"))
    if not (done.is_file() and done.read_text() == wanted):
        python, why = environment("tables", cache)
        if why:
            raise SystemExit(f"the packages with the public tables: {why}; or give tables of your own: TABLES=folder")
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python, HERE / "packaged.py", place], check=True)
        made.write(place)
        done.write_text(wanted)
    return place


def answers_of(
    table: Table, known: list[str], truth: list[str], file: Path
) -> tuple[Answers, int]:  # and how many rows had no answer
    "Predictions in the order of the table's classes; a row without an answer gets the average of the known rows."
    kept = np.load(file)
    said = kept["said"]
    if table.task == "regression":
        y, mean = np.array([number(v) for v in truth]), float(np.mean([number(v) for v in known]))
        empty = ~np.isfinite(said)
        return Answers(table.task, y, np.where(empty, mean, said)), int(empty.sum())
    classes = sorted({label(v) for v in table.truth})
    share = np.array([sum(label(v) == c for v in known) for c in classes]) / len(known)
    proba = np.zeros((len(truth), len(classes)))
    for k, name in enumerate(kept["classes"].tolist()):
        if name not in classes:
            raise SystemExit(f"{table.name}: an answer names the class {name!r}; known are {', '.join(classes[:20])}")
        proba[:, classes.index(name)] = said[:, k]
    empty = ~np.isfinite(proba).all(axis=1)
    proba[empty] = share
    return Answers(table.task, np.array([classes.index(label(v)) for v in truth]), proba), int(empty.sum())


def allowed(tool: str, given: argparse.Namespace) -> float:
    "Processor seconds of a tool: the goal is to be as good in a share of a peer's time."
    return given.budget * (given.share if tool == "ours" else 1)


def one_cell(table: Table, seed: int, tool: str, python: Path, given: argparse.Namespace, kept: Path) -> dict[str, Any]:
    "Let one tool learn and answer; what came of it. Its predictions go to `kept`."
    with tempfile.TemporaryDirectory(prefix="quality_") as work:
        place = Path(work)
        (train, test), (known, truth) = divide(table, seed, place), targets(table, seed)
        job = Job(
            str(train),
            str(test),
            table.target,
            table.task,
            METRIC[table.task],
            table.encoding,
            table.separator,
            allowed(tool, given),
            given.threads,
            seed,
            work,
        )
        (place / "job.json").write_text(json.dumps(job._asdict()))
        env = (
            {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")}
            | QUIET
            | threads_of(given.threads)
            | {"TMPDIR": work}
        )
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT)] if tool not in PEERS else [])
        used = measured(
            [python, HERE / f"tool_{tool}.py", place / "job.json"],
            given.limit or 600 + 20 * given.budget,
            env,
            place / "log",
        )
        cell: dict[str, Any] = {
            "cpu": used.cpu,
            "peak_mb": used.peak_mb,
            "wall": used.wall,
            "error": used.error,
            "n_train": len(known),
            "n_test": len(truth),
        }
        if used.error:
            return cell
        shutil.copy(place / "predictions.npz", kept)
        answers, unanswered = answers_of(table, known, truth, kept)
        cell |= {
            "scores": scores(answers),
            "unanswered": unanswered,
            "said": json.loads((place / "said.json").read_text()),
        }
        if tool == "ours":
            done = subprocess.run(
                [sys.executable, HERE / "latency.py", place / "contest"],
                env=env,
                capture_output=True,
                text=True,
                cwd=work,
            )
            last = done.stdout.strip().splitlines()[-1:] or ["{}"]
            cell["latency"] = (
                json.loads(last[0]) if done.returncode == 0 else {"why": " ".join(done.stderr.split())[-300:]}
            )
        return cell


def wanted(
    given: argparse.Namespace,
) -> tuple[list[Table], dict[str, Path], dict[str, str]]:  # tables; tools with their Pythons; why others are not there
    tables = [t for place in (given.tables or [stock(given.cache)]) for t in folder(place)]
    if given.only and (unknown := set(given.only) - {t.name for t in tables}):
        raise SystemExit(f"no table {', '.join(sorted(unknown))}; known are {', '.join(t.name for t in tables)}")
    tools, absent = {}, {}
    for tool in given.tools:
        python, why = environment(tool, given.cache) if tool in PEERS else (Path(sys.executable), "")
        tools |= {} if why else {tool: python}
        absent |= {tool: why} if why else {}
    return [t for t in tables if not given.only or t.name in given.only], tools, absent


def all_cells(
    tables: list[Table], tools: dict[str, Path], given: argparse.Namespace
) -> Iterator[tuple[str, Table, int, str, Path]]:
    "The first seed of every table first, so that a run that is stopped has a little of everything."
    for seed in range(given.seeds):
        for table in tables:
            for tool, python in tools.items():
                name = key(
                    table=table.digest,
                    seed=seed,
                    tool=tool,
                    versions=versions(tool, python),
                    budget=allowed(tool, given) if tool != "hgb" else None,
                    threads=given.threads,
                )
                yield name, table, seed, tool, python


def measure_all(given: argparse.Namespace) -> str:
    "Measure what isn't known, and write the report."
    tables, tools, absent = wanted(given)
    results, predictions = Results(given.cache / "results.jsonl"), given.cache / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    todo = list(all_cells(tables, tools, given))
    for k, (name, table, seed, tool, python) in enumerate(todo, 1):
        old = results.known.get(name)
        if given.report or (old and not (old["error"] and given.retry)):
            continue
        cell = one_cell(table, seed, tool, python, given, predictions / f"{name}.npz")
        results.add(
            {
                "key": name,
                "table": table.name,
                "seed": seed,
                "tool": tool,
                "budget": allowed(tool, given),
                "threads": given.threads,
                **cell,
            }
        )
        print(f"{k}/{len(todo)} {report.in_a_line(results.known[name])}", file=sys.stderr, flush=True)
    cells = [
        (table, results.known[name], predictions / f"{name}.npz") for name, table, *_ in todo if name in results.known
    ]
    judged = [
        (table, cell, None if cell["error"] else answers_of(table, *targets(table, cell["seed"]), file)[0])
        for table, cell, file in cells
    ]
    return report.text(judged, list(tools), absent, given, len(todo))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", type=Path, nargs="+", help="folders of CSV files; default: the public and the made ones"
    )
    parser.add_argument("--only", type=lambda names: names.split(","), help="names of tables, separated by commas")
    parser.add_argument(
        "--tools", type=lambda names: names.split(","), default=list(TOOLS), help=f"default: {','.join(TOOLS)}"
    )
    parser.add_argument("--seeds", type=int, default=3, help="divisions of each table")
    parser.add_argument("--budget", type=float, default=60, help="processor seconds of a cell")
    parser.add_argument("--share", type=float, default=0.5, help="of a peer's budget that ours has")
    parser.add_argument("--threads", type=int, default=1, help="of each tool")
    parser.add_argument(
        "--limit", type=float, help="wall seconds after which a cell is ended; default: 600 + 20 x budget"
    )
    parser.add_argument("--cache", type=Path, default=HOME, help="results, predictions, environments")
    parser.add_argument("--markdown", type=Path, help="where the report goes too; default: report.md in the cache")
    parser.add_argument("--report", action="store_true", help="only say what is known")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument(
        "--growth", type=int, nargs="*", metavar="ROWS", help="measure growth instead; default: 10000 100000 1000000"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # work folders go with it
    if unknown := set(given.tools) - set(TOOLS):
        raise SystemExit(f"no tool {', '.join(sorted(unknown))}; known are {', '.join(TOOLS)}")
    given.share = 1.0 if given.growth is not None else given.share
    given.cache = given.cache.absolute()
    given.cache.mkdir(parents=True, exist_ok=True)
    said = growth.measure(given, one_cell) if given.growth is not None else measure_all(given)
    (given.markdown or given.cache / ("growth.md" if given.growth is not None else "report.md")).write_text(
        said, "utf-8"
    )
    print(said)


if __name__ == "__main__":
    main()
