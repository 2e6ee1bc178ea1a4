"""One row answered by our registered compiled model and by scikit-learn's default boosting, compiled by the same
compiler on the same rows, in turns.

python latency.py PROJECT TRAIN.csv       # prints one JSON line: processor microseconds of each, encoding included
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from sklearn.pipeline import Pipeline

from mlops_nb.base.charter import load_charter
from mlops_nb.base.settings import load_settings
from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.conform import conform
from mlops_nb.model.model_types import MODEL_TYPES
from mlops_nb.registry.files import read_file
from mlops_nb.registry.loading import load
from mlops_nb.registry.sample import sample_frame
from mlops_nb.registry.versions import get
from mlops_nb.sources.files import source_file
from mlops_nb.sources.tables import read_table
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import truth_of
from mlops_nb.stages.validate import judge_rows

TIMES, ROUNDS = 300, 9


def one_row(model: CompiledModel) -> Callable[[], object]:
    plain = model.header["proof"]["rows"][:1]
    return lambda: model.predict(model.encode(plain))


def micros(calls: list[Callable[[], object]]) -> list[float]:
    "Processor microseconds of each call, the median of some rounds, in turns."
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, seen in zip(calls, taken, strict=True):
            since = time.process_time()
            for _ in range(TIMES):
                call()
            seen.append((time.process_time() - since) / TIMES * 1e6)
    return [statistics.median(seen) for seen in taken]


def main(root: Path) -> dict[str, float | str | None]:
    settings = load_settings(root)
    charter = load_charter(settings.charter)
    version = get(settings.registry_uri, charter.name, 1)
    loaded = load(settings.registry_uri, charter.name, version)
    if not version.fold_digest:
        return {"ours_us": None, "why": "the registered model isn't compiled"}
    ours = CompiledModel.load(read_file(settings.registry_uri, version, "fold.zip"))
    stated, form = loaded.evidence.problem, loaded.evidence.form
    source = source_file(charter, settings.root)
    rows = judge_rows(read_table(source.path, charter.data), stated).rows
    recipe = make_recipe(form, stated)["tree"]
    plain = Pipeline(
        [
            ("recipe", recipe),
            ("estimator", MODEL_TYPES["gradient_boosting"].estimator(stated.task).__class__(random_state=0)),
        ]
    )
    frame = conform(rows, form)
    plain.fit(frame, truth_of(rows, stated))
    proof = pd.concat([sample_frame(loaded.evidence.sample), frame[:200]], ignore_index=True)[form.names]
    hgb = CompiledModel.load(compile_model(plain, form, proof, target_type=stated.kind.target_type))
    one, other = micros([one_row(ours), one_row(hgb)])
    return {"ours_us": one, "hgb_us": other, "ours_trees": len(ours._arrays[3]), "hgb_trees": len(hgb._arrays[3])}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
