"""The default project, as a person makes it: `mlops-nb init` on the file, `mlops-nb run`, and the registered,
compiled model is asked.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rows import Job, answer, job, label

COMMAND = Path(sys.executable).with_name("mlops-nb")
MEASURED = (sys.executable, Path(__file__).with_name("measure.py"), "86400")  # says what a tree of processes used
NAME = "contest"  # of the project
SET = {"MLOPS_NB_TRACKING": "disabled", "MLOPS_NB_JOBS": "1"}  # what has nothing to do with the model


def called(where: Path, *words: str | Path, threads: int) -> subprocess.CompletedProcess:
    env = (
        {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")}
        | SET
        | {"MLOPS_NB_THREADS": str(threads)}
    )
    return subprocess.run(words, cwd=where, env=env, capture_output=True, text=True)


def stop_unless(done: subprocess.CompletedProcess, what: str) -> None:
    if done.returncode:
        raise SystemExit(f"{what}: {' '.join((done.stdout + done.stderr).split())[-600:]}")


def made(root: Path) -> dict[str, Any]:  # what the run said of the model
    "The winner and how the run's stages went."
    summary = json.loads(
        (root / "reports" / (root / "reports" / "latest").read_text().strip() / "summary.json").read_text()
    )
    stages = summary["stages"]
    return {
        "stages": {name: [stage["status"], round(stage.get("seconds") or 0, 2)] for name, stage in stages.items()},
        "metrics": {
            name: stage.get("metrics")
            for name, stage in stages.items()
            if name in ("train", "tune", "ensemble", "evaluate", "register")
        },
        "warnings": summary.get("warnings", []),
    }


def predictions(
    given: Job, file: Path, charter: dict[str, Any]
) -> tuple[np.ndarray, list[str]]:  # nan where a row was refused; classes
    "What the model said, one line a held-out row."
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    with open(given.test, encoding=given.encoding, newline="") as lines:
        n = sum(1 for line in csv.reader(lines, delimiter=given.separator) if line) - 1
    if given.task == "regression":
        columns, classes = ["decision"], []
    elif given.task == "binary":
        columns, classes = ["probability"], [label(charter["positive"])]
    else:
        columns = [c for c in rows[0] if c.startswith("probability_")]
        classes = [c.removeprefix("probability_") for c in columns]
    said = np.full((n, len(columns)), np.nan)
    for row in rows:
        said[int(row["row"])] = [float(row[c]) if row[c] else np.nan for c in columns]
    if given.task == "regression":
        return said[:, 0], []
    if given.task == "binary":
        with open(given.train, encoding=given.encoding, newline="") as lines:
            known = {label(row[given.target]) for row in csv.DictReader(lines, delimiter=given.separator)}
        said, classes = np.hstack([1 - said, said]), [*(known - set(classes)), *classes]
    return said, classes


def main() -> None:
    given = job()
    root = Path(given.out, NAME)
    init = called(
        Path(given.out), COMMAND, "init", NAME, "--data", given.train, "--target", given.target, threads=given.threads
    )
    stop_unless(init, "init")
    file = next((root / "nbs" / "charters").glob("*.yaml"))
    charter = yaml.safe_load(file.read_text("utf-8"))
    if charter["task"] != given.task:
        raise SystemExit(f"init took the target for {charter['task']}; the task is {given.task}")
    about = called(root, COMMAND, "run", "--help", threads=1)
    budget = ["--budget", f"{given.budget:g}"] if "--budget" in about.stdout else []
    model = called(root, *MEASURED, COMMAND, "run", "ensemble", *budget, threads=given.threads)
    run = called(root, COMMAND, "run", *budget, threads=given.threads)
    answers = Path(given.out, "answers.csv")
    score = called(
        root,
        sys.executable,
        Path(__file__).with_name("registered.py"),
        root,
        given.test,
        answers,
        threads=given.threads,
    )
    if score.returncode:
        stop_unless(run, "run")
    stop_unless(score, "the registered model")
    said, classes = predictions(given, answers, charter)
    facts = made(root) | {
        "metric": charter["metric"],
        "exclude": charter.get("exclude") or {},
        "run_code": run.returncode,
        "model_cpu": json.loads(model.stdout.splitlines()[-1])["cpu"],
    }
    facts["lines"] = [
        line
        for line in (run.stdout + run.stderr).splitlines()
        if line.startswith(("warning", "  fail", "  MlopsError"))
    ]
    answer(given, said, classes, engine=score.stdout.split("\n")[-2], **facts)


if __name__ == "__main__":
    main()
