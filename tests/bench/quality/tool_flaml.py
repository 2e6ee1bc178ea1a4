"""FLAML with its defaults, told the metric and the budget."""

import clock

clock.by_processor()

from flaml import AutoML  # noqa: E402
from rows import answer, frames, job  # noqa: E402


def main() -> None:
    given = job()
    known, y, asked = frames(given)
    known.columns = asked.columns = [
        f"c{k}" for k in range(known.shape[1])
    ]  # LightGBM refuses names with signs in them
    for name in known.columns[[d.kind not in "iufb" for d in known.dtypes]]:  # it wants categories as such
        known[name], asked[name] = (
            known[name].astype("object").fillna("").astype("category"),
            asked[name].astype("object").fillna("").astype("category"),
        )
    automl = AutoML()
    task = "regression" if given.task == "regression" else "classification"
    automl.fit(
        known,
        y,
        task=task,
        metric=given.metric,
        time_budget=given.budget,
        n_jobs=given.threads,
        seed=given.seed + 1,
        verbose=0,
    )
    said = automl.predict(asked) if given.task == "regression" else automl.predict_proba(asked)
    answer(given, said, [] if given.task == "regression" else automl.classes_, model=str(automl.best_estimator))


if __name__ == "__main__":
    main()
