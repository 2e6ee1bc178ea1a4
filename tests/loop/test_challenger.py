"""A challenger learns from source rows and logged rows in one unit, whatever its charter demands of the file."""

import datetime

import numpy as np
import pandas as pd
import pytest

from mlops_nb.base.charter import Charter
from mlops_nb.base.validation import Validation
from mlops_nb.loop.challenger import challenger_charter
from mlops_nb.loop.comparison import Labelled
from mlops_nb.loop.retraining import learning_rows
from mlops_nb.model.problem import check_problem
from mlops_nb.stages.validate import check_left, judge_rows

N = 20


def charter_of(**validation) -> Charter:
    asked = {"name": "s", "goal": "Say", "task": "binary", "target": "y", "positive": "yes", "metric": "roc_auc", "id": "visit"}
    return Charter.model_validate(asked | {"data": {"source": "v.csv"}, "exclude": {"unit": "of height"}, "validation": validation})


def source() -> pd.DataFrame:
    height = np.full(N, 66.0) + np.arange(N) % 3
    return pd.DataFrame({"visit": range(N), "height": height, "unit": "inch", "stay": 3, "day": "2020-01-01", "y": ["yes", "no"] * (N // 2)})


def logged() -> Labelled:
    nothing = dict.fromkeys(Labelled._fields)
    times = pd.Series(pd.date_range("2026-01-01", periods=6, tz="UTC"))
    inputs = pd.DataFrame({"height": [168.0, 170, 172, 168, 171, 169]})
    return Labelled(**nothing)._replace(key=pd.Series(list("aabbcc")), time=times, label=pd.Series(["yes", "no"] * 3), inputs=inputs)


def judged(charter: Charter, tmp_path, rows=None):
    """What the challenger learns from."""
    whole = learning_rows(source() if rows is None else rows, logged(), charter)
    about = challenger_charter(charter, tmp_path / "rows.parquet", tmp_path, ["height", "y"], {})
    made = Charter.model_validate(about)
    problem = check_problem(made.statement())
    result = judge_rows(whole, problem, demands=made.validation.at(datetime.datetime.now(datetime.UTC)))
    check_left(result, problem, 0.0)
    return result.rows


@pytest.mark.parametrize("unit", [{"from": "inch", "to": "cm"}, {"column": "unit", "to": "cm"}])
@pytest.mark.parametrize("as_text", [False, True])
def test_each_row_is_converted_once(unit, as_text, tmp_path):
    rows = source().astype({"height": str}) if as_text else source()
    learnt = judged(charter_of(units={"height": unit}), tmp_path, rows)["height"]
    assert np.allclose(learnt[:N], source()["height"] * 2.54) and learnt[N:].tolist() == logged().inputs["height"].tolist()


def test_rows_in_no_known_unit_are_left_out(tmp_path):
    rows = source().assign(unit=["cubit_of_noah", *["inch"] * (N - 1)])
    assert len(judged(charter_of(units={"height": {"column": "unit", "to": "cm"}}), tmp_path, rows)) == N - 1 + 6


def test_demands_on_the_file_do_not_stop_a_retraining(tmp_path):
    asked = {
        "missing": {"unit": 0, "height": 0.1}, "volume": {"min": 5, "max": N}, "freshness": {"column": "day", "since": "2019-01-01"},
        "key": "visit", "checks": ["not isnull(stay)", "height > 1"],
    }  # fmt: skip
    twice = pd.concat([source(), source().head(1)], ignore_index=True)
    twice.loc[3, "stay"] = None
    rows = judged(charter_of(**asked), tmp_path, twice)
    assert len(rows) == N - 1 + 6
    assert pd.factorize(rows["visit"][-6:])[0].tolist() == [0, 0, 1, 1, 2, 2] and not set(rows["visit"][-6:]) & set(rows["visit"][:-6])


def test_the_challengers_field_keeps_its_unit(tmp_path):
    about = challenger_charter(charter_of(units={"height": {"from": "inch", "to": "cm"}}), tmp_path / "r", tmp_path, ["height", "y"], {})
    assert Validation.model_validate(about["validation"]).units["height"].to == "cm"


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "Int64", "str"])
@pytest.mark.parametrize("knobs", [{}, {"split": {"group": "visit"}}])
def test_an_id_of_numbers_stays_one(dtype, knobs, tmp_path):
    """`init` drafts such an id; the key of a labelled prediction is a text: what was sent, where no subject was."""
    charter = charter_of().model_copy(update={"knobs": knobs} | ({"id": None} if knobs else {}))
    keys = pd.Series(['{"height":168}', '{"height":168}', "7", "7", "bob", "bob"])
    whole = learning_rows(source().astype({"visit": dtype}), logged()._replace(key=keys), charter)
    whole.to_parquet(tmp_path / "rows.parquet", index=False)
    back = pd.read_parquet(tmp_path / "rows.parquet")["visit"]
    known, new = back[:N].tolist(), back[N:].tolist()
    assert known == source()["visit"].astype(dtype).tolist() and new[0::2] == new[1::2] and new[2] == known[7]
    assert len({new[0], new[4], *known}) == N + 2, "two things that nobody knows are two, and none of the known"
    about = challenger_charter(charter, tmp_path / "rows.parquet", tmp_path, ["height", "y"], {})
    assert len(judge_rows(whole, check_problem(Charter.model_validate(about).statement())).rows) == N + 6
