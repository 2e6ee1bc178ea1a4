"""From a file to monitored answers, where the target is written in a way that no place may stumble over."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.conftest import command, project_of

from mlops_nb.base.charter import load_charter
from mlops_nb.model.decision import is_positive
from mlops_nb.base.settings import load_settings
from mlops_nb.serving.prediction import Predictor
from mlops_nb.serving.protocol import OUTPUTS, tensors_of
from mlops_nb.monitoring.due import monitor_due
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.predictions import PredictionLog, Record

pytestmark = pytest.mark.slow
KNOBS = """knobs:
  train: {candidates: [dummy, linear, gradient_boosting], folds: 3}
  tune: {n_models: 1, trials: 2}
  evaluate: {resamples: 200}
  fairness: {resamples: 200}
  explain: {rows: 20, background: 10}
  monitor: {trials: 2}
monitoring: {min_rows: 50, min_labels: 30}"""


def people(both: tuple[str, str], gap: str, n: int = 500) -> list[dict]:
    rng = np.random.default_rng(0)
    age, income = rng.integers(18, 80, n), rng.normal(50, 15, n).round(2)
    lapsed = (age - 50) / 15 + (income - 50) / 20 + rng.normal(0, 0.5, n) > 0.3
    return [{"age": a, "income": i, "city": rng.choice(["a", "b", "c"]), "lapsed": gap if gap and k % 40 == 0 else both[int(y)]} for k, (a, i, y) in enumerate(zip(age, income, lapsed, strict=True))]


@pytest.mark.parametrize(
    ("both", "gap", "positive", "labels"),
    [
        (("0.0", "1.0"), " ", None, [1, 1.0, "1", "1.0", True]),
        (("False", "True"), "?", "yes", [True, "true", "True", 1, "yes"]),
    ],
    ids=["0.0/1.0 with gaps", "truths with gaps"],
)
def test_a_whole_journey(both, gap, positive, labels, tmp_path):
    root = project_of(tmp_path / "people.csv", people(both, gap), "lapsed")
    file = root / "nbs" / "charters" / "gym.yaml"
    text = file.read_text().replace("knobs: {}", KNOBS)
    guessed = "positive: 1\n" if both[1] == "1.0" else "positive: true\n"
    assert guessed in text
    file.write_text(text.replace(guessed, f"positive: {positive}\n") if positive else text)
    command(root, "check")
    assert "gym version 1, phase staging" in command(root, "run")
    command(root, "score", "data/people.csv", "scores.csv", "--model", "gym@staging")
    assert "gym" in command(root, "serve", "gym@staging", "--check")

    class_ = 1 if both[1] == "1.0" else True
    settings = load_settings(root)
    predictor = Predictor.load(settings)
    assert predictor.served.positive == class_ and type(predictor.served.positive) is type(class_)
    frame = pd.read_csv(tmp_path / "people.csv", skipinitialspace=True, na_values=["?", ""])
    answers = predictor.predict(frame)
    scores = pd.read_csv(root / "scores.csv")
    assert [a.decision for a in answers] == [bool(d) if isinstance(class_, bool) else d for d in scores.decision] and {type(a.decision) for a in answers} == {type(class_)}
    known = frame.lapsed.notna()
    assert (np.array([a.decision for a in answers])[known] == is_positive(frame.lapsed[known], positive or "1")).mean() > 0.8
    reasons = predictor.reasons({"age": 30, "income": 40.0, "city": "a"})
    assert reasons["units"] == "probability" and reasons["said"] == pytest.approx(predictor.predict([{"age": 30, "income": 40.0, "city": "a"}])[0].probability)

    name = "1" if class_ is not True else "true"
    tensors = tensors_of(answers[:50], predictor.served.kind, list(OUTPUTS))
    assert name in str(tensors) and all(set(a.probabilities) == ({"0", "1"} if name == "1" else {"false", "true"}) for a in answers)

    now = datetime.now(UTC)
    begin = (now - timedelta(days=1)).replace(hour=3, minute=0, second=0, microsecond=0)
    log = PredictionLog(settings.home)
    asked = predictor.check(frame)
    log.put([Record(a.id, int((begin + timedelta(seconds=k)).timestamp() * 1e6), "gym", 1, "", None, predictor.served.row_schema.dump(row), msgspec.json.encode(a), 0.001, b"[]") for k, (a, row) in enumerate(zip(answers, asked, strict=True))])
    assert not log.close().error
    real = is_positive(frame.lapsed, positive or "1")
    told = [Item(a.id, labels[k % len(labels)] if real[k] else [0, 0.0, "0", False][k % 4]) for k, a in enumerate(answers) if known[k]]
    verdicts = Feedback(settings.home).put(told, "test")
    assert {v.verdict for v in verdicts} == {"accepted"}
    assert set(Feedback(settings.home).labels()["label"].to_pylist()) == ({"0", "1"} if name == "1" else {"false", "true"})
    reports = monitor_due(settings, load_charter(file), "gym", now)
    plain = json.dumps([r.model_dump(mode="json") if hasattr(r, "model_dump") else msgspec.to_builtins(r) for r in reports], default=str)
    assert len(reports) == 1 and f'"labelled": {int(known.sum())}' in plain and "can't be read" not in plain


