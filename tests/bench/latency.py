"""What one row takes in compiled models of several sizes, held against the count of `model.latency`.

Processor microseconds of one process, other rows in turns, so that no row is answered from memory of the one before.
"""

import statistics
import time

from _figures import tell
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.latency import micros, work_of
from mlops_nb.model.schema import Field, Schema

ROWS, ROUNDS = 300, 5


def one_row(model: CompiledModel) -> float:
    "Processor microseconds, the median of some rounds over different rows."
    plain, taken = model.header["proof"]["rows"], []
    for _ in range(ROUNDS):
        since = time.process_time()
        for row in plain:
            model.predict(model.encode([row]))
        taken.append((time.process_time() - since) / len(plain) * 1e6)
    return statistics.median(taken)


def main() -> None:
    rng, seen, said = np.random.default_rng(0), [], []
    for fields in (8, 40):
        frame = pd.DataFrame(rng.normal(size=(4000, fields)), columns=[f"x{k}" for k in range(fields)])
        y = np.where(frame.x0 * frame.x1 + frame.x2 + rng.logistic(size=4000) > 0, "yes", "no")
        form = Schema(fields=[Field(name=c, kind="number", nullable=False) for c in frame], target="y", classes=["no", "yes"])
        boosted = [HistGradientBoostingClassifier(max_iter=n, max_leaf_nodes=leaves) for n, leaves in ((100, 31), (400, 8), (1000, 31), (3000, 16))]
        forests = [RandomForestClassifier(n, min_samples_leaf=leaf) for n, leaf in ((100, 5), (300, 1))]
        for estimator in (LogisticRegression(), *boosted, *forests):
            fitted = Pipeline([("estimator", estimator.fit(frame, y))])
            data = compile_model(fitted, form, frame[:ROWS], target_type="binary", keep=ROWS)
            work = work_of(fitted)
            seen.append(one_row(CompiledModel.load(data)))
            said.append(micros(work, fields))
            print(f"{type(estimator).__name__:32} {fields:3} fields {work.trees:5} trees {work.nodes:8,.0f} nodes: {seen[-1]:7.1f} us, said {said[-1]:7.1f}")
    apart = np.array(said) / np.array(seen)
    print(f"said by seen: {apart.min():.2f} to {apart.max():.2f}")
    worst = float(max(apart.max(), 1 / apart.min()))
    tell("latency_count_off_by_at_most", worst, "2", worst <= 2)


if __name__ == "__main__":
    main()
