"""AutoGluon's preset medium_quality, told the metric and the budget."""

import clock

clock.by_processor()

from pathlib import Path  # noqa: E402

from autogluon.tabular import TabularPredictor  # noqa: E402
from rows import answer, frames, job  # noqa: E402


def main() -> None:
    given = job()
    known, y, asked = frames(given)
    target = "the target of the benchmark"  # no column of the table has this name
    metric = {"rmse": "root_mean_squared_error"}.get(given.metric, given.metric)
    place = str(Path(given.out, "autogluon"))
    predictor = TabularPredictor(target, problem_type=given.task, eval_metric=metric, path=place, verbosity=0)
    predictor.fit(
        known.assign(**{target: y}),
        presets="medium_quality",
        time_limit=given.budget,
        num_cpus=given.threads,
        num_gpus=0,
    )
    said = predictor.predict(asked) if given.task == "regression" else predictor.predict_proba(asked)
    answer(given, said.to_numpy(), [] if given.task == "regression" else said.columns, model=str(predictor.model_best))


if __name__ == "__main__":
    main()
