"""What every tool's program shares, in whichever environment it runs: the task it is given, rows as pandas reads
them, predictions as one file.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    "One cell, as a tool's program gets it: `python PROGRAM job.json`."

    train: str  # CSV with the target
    test: str  # CSV without it
    target: str
    task: str  # binary, multiclass or regression
    metric: str  # roc_auc, log_loss or rmse
    encoding: str
    separator: str
    budget: float  # processor seconds
    threads: int
    seed: int
    out: str  # folder: predictions.npz, said.json


def job() -> Job:
    return Job(**json.loads(Path(sys.argv[1]).read_text("utf-8")))


def number(text: str) -> float:
    "A number, with a decimal comma too; ValueError otherwise."
    text = str(text).strip()
    return float(text.replace(",", ".") if "," in text and "." not in text else text)


def label(text: object) -> str:
    "A class's name, one spelling for 1, 1.0 and '1'."
    said = str(text).strip()
    try:
        return f"{float(said):.15g}"
    except ValueError:
        return said


def frames(given: Job) -> tuple[Any, Any, Any]:  # pandas: features to learn from, their targets, features to answer
    "Both files as `pandas.read_csv` reads them; targets are class names or numbers."
    import pandas as pd

    how = {"sep": given.separator, "encoding": given.encoding, "low_memory": False}
    known, asked = (
        pd.read_csv(given.train, dtype={given.target: str}, keep_default_na=True, **how),
        pd.read_csv(given.test, **how),
    )
    y = known.pop(given.target).map(number if given.task == "regression" else label)
    return known, y, asked[known.columns]


def answer(given: Job, said: np.ndarray, classes: Any = (), **facts: Any) -> None:
    "Keep predictions: n numbers, or n x classes probabilities with the classes' names; nan where a row has none."
    names = np.array([label(c) for c in classes], dtype=str)
    np.savez_compressed(Path(given.out, "predictions.npz"), said=np.asarray(said, dtype=float), classes=names)
    Path(given.out, "said.json").write_text(json.dumps(facts))
