"""Keep the model that this version registers, in tests/kept/VERSION, for every later version to load.

The whole pipeline runs on a sample of the example project, in a folder of their own. What is kept is the registered version as it lies in the
registry (model.skops, evidence.json), what the registry says about it (version.json), and what the Predictor answers on the rows
that travel with the model (answers.json). A folder that is there stays as it is: it is a promise.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import pandas as pd

from mlops_nb import __version__
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.rows import Refused
from mlops_nb.registry.loading import load
from mlops_nb.registry.sample import sample_frame
from mlops_nb.pipeline.plan import prepare, sample_settings
from mlops_nb.pipeline.runner import run
from mlops_nb.base.settings import load_settings
from mlops_nb.serving.prediction import Predictor

ROWS = 500
WORDS = ['train.candidates=["gradient_boosting", "linear"]', "train.folds=2", "tune.n_models=1", "tune.trials=2", "explain.rows=20"]


def answers_of(predictor: Predictor, rows: pd.DataFrame) -> list[dict | None]:
    "What is said about each row; None where it is refused, for the strange row of a sample may break a rule of the charter."
    said: list[dict | None] = []
    for i in range(len(rows)):
        try:
            (answer,) = msgspec.to_builtins(predictor.predict(rows.iloc[i : i + 1]))
            said.append({k: v for k, v in answer.items() if k != "id"})
        except Refused:
            said.append(None)
    return said


def keep(folder: Path) -> None:
    "Run, register, and copy the version to `folder`."
    if folder.exists():
        raise MlopsError(f"{folder.name} is kept already, and later versions are held to it; raise the version of mlops_nb first")
    with tempfile.TemporaryDirectory() as work:
        settings = load_settings().model_copy(update={"home": Path(work), "tracking": "disabled"})
        summary = run(prepare(settings, words=WORDS, sample=ROWS))
        loaded = load(sample_settings(settings).registry_uri, summary["model"]["name"], "latest")
        artifacts, predictor = Path(loaded.version.location.removeprefix("file://")), Predictor(loaded)
        answers = {kind: answers_of(predictor, sample_frame(getattr(loaded.evidence, kind))) for kind in ("sample", "background")}
        (folder / "model").mkdir(parents=True)
        shutil.copy(artifacts / "evidence.json", folder)
        shutil.copy(artifacts / "model" / "model.skops", folder / "model")
    (folder / "version.json").write_text(loaded.version.model_copy(update={"location": ""}).model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "answers.json").write_text(json.dumps(answers, ensure_ascii=False).replace('}, {"decision"', '},\n{"decision"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    target = Path(__file__).resolve().parent.parent / "tests" / "kept" / __version__
    try:
        keep(target)
    except MlopsError as error:
        sys.exit(f"error: {error}")
    print(*(f"{f.relative_to(target.parent.parent)}  {f.stat().st_size:,} bytes" for f in sorted(target.rglob("*")) if f.is_file()), sep="\n")
