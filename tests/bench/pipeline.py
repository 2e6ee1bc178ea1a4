"""The whole run beside the same stage code in one plain Python process; the command's own answers.

Ratios within one run of this file. `python tests/bench/pipeline.py --sample 2000` gives a quick look on few rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _figures import tell

ROOT = Path(__file__).parents[2]
TOOL = Path(sys.executable).with_name("mlops-nb")


def environment(home: Path, jobs: int) -> dict[str, str]:
    """A store, reports and registry of their own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")}
    return {**clean, "MLOPS_NB_HOME": str(home), "MLOPS_NB_REPORTS": str(home / "reports"), "MLOPS_NB_JOBS": str(jobs)}


def seconds(command: list, env: dict[str, str]) -> float:
    since = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - since


def plain(sample: int | None) -> None:
    """Every stage's signature and run cells, one after the other in this process, on the same store and with the same knobs."""
    from mlops_nb.pipeline import runner
    from mlops_nb.pipeline.plan import prepare
    from mlops_nb.pipeline.stage import bind, roots

    plan = prepare(runner.load_settings(), sample=sample)
    store = runner.Store(plan.settings.home)
    digests = roots(plan.settings, store)
    source = runner._Run(plan, [], set(), None, lambda *a, **k: None).source
    for name, stage in plan.graph.stages.items():
        work = plan.settings.home / "plain" / name
        work.mkdir(parents=True)
        context = {
            "run": "plain", "stage": name, "home": str(plan.settings.home), "source": source, "record": str(work / "record.jsonl"),
            "inputs": {p.artifact: digests[p.artifact] for p in stage.inputs}, "targets": {t: plan.settings.registry_uri for t in stage.targets},
        }  # fmt: skip
        (work / "context.json").write_text(json.dumps(context))
        os.environ["MLOPS_NB_CONTEXT"] = str(work / "context.json")
        names = {**bind(stage.module), "display": lambda *shown, **more: None}
        for role in ("parameters", "run"):
            for cell in stage.source(role):
                exec(compile(cell.source, f"{name}:{cell.id}", "exec"), names)
            names.update(plan.knobs[name])
        for line in (work / "record.jsonl").read_text().splitlines():
            said = json.loads(line)
            if "output" in said:
                digests[said["output"]] = said["digest"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int)
    parser.add_argument("--plain", action="store_true", help="be the plain process")
    given = parser.parse_args()
    if given.plain:
        return plain(given.sample)
    more = ["--sample", str(given.sample)] if given.sample else []
    with tempfile.TemporaryDirectory() as folder:
        homes = {name: Path(folder, name) for name in ("plain", "one", "two")}
        threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "12", "PYTHONHASHSEED": "0"}
        beside = seconds([sys.executable, __file__, "--plain", *more], environment(homes["plain"], 1) | threads)
        one = seconds([TOOL, "run", *more], environment(homes["one"], 1))
        two = seconds([TOOL, "run", *more], environment(homes["two"], 2))
        again = statistics.median(seconds([TOOL, "run", *more], environment(homes["two"], 2)) for _ in range(5))
        check = statistics.median(seconds([TOOL, "check"], environment(homes["two"], 2)) for _ in range(5))
    print(f"plain process {beside:.1f} s, run with one job {one:.1f} s, with two jobs {two:.1f} s")
    tell("run_over_plain_jobs1", one / beside, "<=1.15", one / beside <= 1.15)
    tell("run_jobs2_over_jobs1", two / one, "<=1.0", two <= one)
    tell("rerun_seconds", again, "<=1.0", again <= 1.0)
    tell("check_seconds", check, "<=0.5", check <= 0.5)
    if not given.sample:
        tell("pipeline_seconds", two, "<=120", two <= 120)


if __name__ == "__main__":
    main()
