"""The model's own decision is everybody's: over all tasks, by the compiled model, in tables, as requests, by MLflow."""

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.model.test_compile import TASKS, make_scene, problem, recipes

from mlops_nb.base.artifacts import Model
from mlops_nb.base.charter import Costs
from mlops_nb.base.errors import MlopsError
from mlops_nb.model.columns import Scorer
from mlops_nb.model.compile import compile_model
from mlops_nb.model.compiled_model import CompiledModel
from mlops_nb.model.decision import as_said, cost_matrix, name_of
from mlops_nb.model.rule import with_rule, without_rule
from mlops_nb.model.conform import conform
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.registry.registration import register
from mlops_nb.registry.sample import plain_rows, sample_of
from mlops_nb.serving.version import ServedVersion
from mlops_nb.stages.register import prove_version
from mlops_nb.stages.train import make_model

THRESHOLD = {"binary": 0.21, "multiclass": None, "regression": None}
DEAR = "multiclass by costs"  # taking the last class for the first one costs ninety times as much as another error
EVEN = "multiclass by weights"  # the classes weigh so that each counts the same


@pytest.fixture(scope="module", params=[(task, name) for task in (*TASKS, DEAR, EVEN) for name in ("linear", "random_forest", "gradient_boosting")], ids=lambda p: "-".join(p))
def known(request, tmp_path_factory):
    """A model with its rule, rows that it has not learnt from, and its evidence."""
    how, name = request.param
    task = "multiclass" if how in (DEAR, EVEN) else how
    _, schema, rows, y, strange = make_scene(task)
    classes = [] if task == "regression" else sorted(set(y))
    costs = Costs(matrix={name_of(classes[-1]): {name_of(classes[0]): 90.0}}) if how == DEAR else Costs()
    weights = {name_of(c): 40.0**k for k, c in enumerate(classes)} if how == EVEN else None
    unfitted = with_rule(make_model(name, recipes(schema, task), task), classes, "yes", THRESHOLD[task], costs, weights)
    model = Model.load(Model.dump(unfitted.fit(rows, y)))  # as a registry gives it
    asked = conform(pd.concat([strange, rows], ignore_index=True), schema)
    otherwise = np.flatnonzero(model.predict(asked) != without_rule(model).predict(asked))
    shown = pd.concat([asked.iloc[otherwise[:4]], asked.tail(4)]).head(4)  # rows that the rule decides otherwise, if there are any
    evidence = as_evidence({
        "problem": problem(task).model_dump(mode="json") | {"costs": costs}, "schema": schema, "decision": {"threshold": THRESHOLD[task], "weights": weights}, "sample": sample_of(model, shown), "background": plain_rows(rows.tail(5)),
    })  # fmt: skip
    data = compile_model(model, schema, asked, target_type=evidence.problem.kind.target_type, positive=evidence.rule.positive, threshold=THRESHOLD[task])
    return how, model, asked, evidence, data, tmp_path_factory


def test_one_decision(known):
    task, model, asked, evidence, data, _ = known
    own = [as_said(v) for v in model.predict(asked)]
    say = model.predict if task == "regression" else model.predict_proba
    same = (lambda found: found == pytest.approx(own, abs=1e-9)) if task == "regression" else (lambda found: found == own)
    table = pa.Table.from_pandas(asked, preserve_index=False)
    for engine in (say, CompiledModel.load(data)):
        assert same(Scorer("made_up", 1, evidence.form, evidence.problem.rules, evidence.rule, engine).score(table).answers["decision"].to_pylist())
    plain = asked.astype(object).where(asked.notna(), None)
    served = ServedVersion("made_up", 1, "staging", evidence, compiled=CompiledModel.load(data))
    checked = served.row_schema.named([{k: v.isoformat() if isinstance(v, pd.Timestamp) else v for k, v in row.items()} for row in plain.head(400).to_dict("records")])
    assert [a.decision for a in served.answer(checked)] == (pytest.approx(own[:400]) if task == "regression" else own[:400])
    if task == DEAR:
        by_costs = (model.predict_proba(asked) @ np.array(cost_matrix(evidence.problem.costs, evidence.classes))).argmin(axis=1)
        assert own == [evidence.classes[k] for k in by_costs] and own != [as_said(v) for v in without_rule(model).predict(asked)]
    if task == EVEN:
        by_weights = (model.predict_proba(asked) * [evidence.decision.weights[name_of(c)] for c in evidence.classes]).argmax(axis=1)
        assert own == [evidence.classes[k] for k in by_weights] and own != [as_said(v) for v in without_rule(model).predict(asked)]
        assert own == [as_said(v) for v in evidence.problem.kind.answers(model, asked, evidence.problem).y_pred]
    if task == "binary":
        at_half = [as_said(v) for v in without_rule(model).predict(asked)]
        assert 0 < sum(a != b for a, b in zip(own, at_half, strict=True)), "the rule decides something"
        assert own == np.where(model.predict_proba(asked)[:, 1] >= 0.21, "yes", "no").tolist()


def test_mlflow_decides_the_same(known):
    _, model, asked, evidence, _, folders = known
    uri = f"sqlite:///{folders.mktemp('rule')}/mlflow.db"
    register(uri, "made_up", model, evidence, "staging")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        served = mlflow.pyfunc.load_model("models:/made_up@staging")
        assert list(served.predict(asked)) == model.predict(asked).tolist()
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def test_a_model_that_decides_otherwise_is_not_registered(known):
    task, model, _, evidence, _, _ = known
    if task in ("binary", DEAR, EVEN):
        with pytest.raises(MlopsError, match=r"decided as the model itself decides.*give the model its rule"):
            prove_version(without_rule(model), evidence, None, 4)
    prove_version(model, evidence, None, 4)
