"""An experiment as its callers see it: a real service that answers by several versions, and what its log says of it."""

import json
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.serving.test_rest import made, project, sample, serving, settings  # noqa: F401 - fixtures

from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.promotion import promote
from mlops_nb.registry.released import read_released
from mlops_nb.log.assignment import Experiment, ExperimentPlan, assign, check_assignment, end_experiment, experiment_file, place, read_experiment, start_experiment
from mlops_nb.log.history import History

BOTH = Experiment("trees", "income", {"control": 1, "new": 2}, {"control": 0.5, "new": 0.5}, "s4lt", ExperimentPlan("accuracy", 0.01, guardrails={"brier": 0.01}))


@pytest.mark.parametrize("n", [10_000, pytest.param(50_000, marks=pytest.mark.deep)])
def test_assignment_is_sticky_uniform_and_independent(n):
    people = [f"p{i}" for i in range(n)]
    assert [assign(BOTH, p) for p in people] == [assign(BOTH, p) for p in people]
    for shares in ({"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.3, "c": 0.5}, {"a": 0.999, "b": 0.001}):
        for salt in ("one", "two"):
            assert check_assignment(shares, salt, people).ok(1e-4)
    assert check_assignment({"a": 0.5, "b": 0.5}, "x", [format(i, "032x") for i in range(20_000)]).ok(1e-4)  # names that are much alike
    assert not check_assignment({"a": 0.5, "b": 0.5}, "x", people, others=["x"]).ok()
    with pytest.raises(MlopsError, match="3 units say nothing"):
        check_assignment({"a": 0.5, "b": 0.5}, "x", ["1", "2", "3"])
    assert all(0 <= place("", u) < 1 for u in ("", "\ud800", "\0", "é" * 10_000))


def test_shares_change_nobody_more_than_they_must():
    """From 10% to 20%: who was in the new arm stays there when the new arm is last."""
    people = [f"p{i}" for i in range(5000)]
    small, large = ({"control": 1 - s, "new": s} for s in (0.1, 0.2))
    before, after = ([assign(replace(BOTH, shares=s), p) for p in people] for s in (small, large))
    assert all(b == "control" or a == "new" for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"arms": {}, "shares": {}}, "two arms or more"),
        ({"arms": {"control": 1}, "shares": {"control": 1.0}}, "two arms or more"),
        ({"shares": {"control": 0.5, "new": 0.6}}, "sum to 1"),
        ({"shares": {"control": float("nan"), "new": 0.6}}, "sum to 1"),
        ({"shares": {"control": 1.0, "new": 0.0}}, "between 0 and 1"),
        ({"shares": {"control": 0.5, "old": 0.5}}, "a share for each"),
        ({"arms": {"control": 1, "new": 9}}, "no version 9"),
        ({"name": "../../etc"}, "can't be the name"),
        ({"model": "../income"}, "no model's name"),
        ({"plan": ExperimentPlan("accuracy", -1)}, "an effect above 0"),
    ],
)
def test_what_is_no_experiment(tmp_path, change, said):
    with pytest.raises(MlopsError, match=said):
        start_experiment(tmp_path, replace(BOTH, **change), [1, 2])
    assert not list(tmp_path.glob("*.json"))


def test_one_runs_at_a_time(tmp_path):
    """Of many that start at once one does; nobody ever reads half a file."""
    said, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            read_experiment(tmp_path, "income")

    def start(i):
        try:
            said.append(start_experiment(tmp_path, replace(BOTH, name=f"t{i}"), [1, 2]).name)
        except MlopsError as error:
            assert "is running" in str(error)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(8)]
    reader = threading.Thread(target=watch)
    reader.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    assert len(said) == 1 and read_experiment(tmp_path, "income").name == said[0]
    end_experiment(tmp_path, "income", "over")
    assert start_experiment(tmp_path, BOTH, [1, 2]).state == "running"
    assert (tmp_path / "experiments" / f"income-{said[0]}.json").exists()


def test_a_service_routes_and_logs(project, sample):  # noqa: F811
    """By subject, sticky, over JSON and tensors; a version asked for by its number is what answers."""
    home, rows = settings(project).home, [dict(sample.rows[30])] * 40
    with serving(project, "income") as server:
        before = server.predict(rows)[1]
        assert "arm" not in before["predictions"][0] and "version" not in before["predictions"][0] and before["version"] == 1
        started = start_experiment(home, BOTH, [1, 2])
        server.until(lambda: server.get("/v1/models")[1]["models"][0]["experiment"])
        people = [f"p{i}" for i in range(40)]
        said = server.ask("POST", "/v1/predict", {"rows": rows, "subjects": people})[1]
        arms = [p["arm"] for p in said["predictions"]]
        assert arms == [assign(started, p) for p in people] and set(arms) == {"control", "new"}
        assert [p["version"] for p in said["predictions"]] == [started.arms[a] for a in arms] and said["version"] == 1
        chances = {a: {p["probability"] for p in said["predictions"] if p["arm"] == a} for a in started.arms}
        assert len(chances["control"]) == len(chances["new"]) == 1 and chances["control"] != chances["new"]
        one = server.ask("POST", "/v1/predict", {"rows": rows[:1], "subjects": [people[arms.index("new")]]})[1]
        assert one["version"] == 2  # one answer, and its version on top
        free = server.predict(rows)[1]["predictions"]  # nobody is named: each row by its own id
        assert [p["arm"] for p in free] == [assign(started, p["id"]) for p in free]
        tensors = [{"name": k, "datatype": "BYTES", "shape": [1], "data": ["" if v is None else str(v)]} for k, v in rows[0].items()]
        asked = {"inputs": tensors, "parameters": {"subject": people[arms.index("new")]}}
        for path, version in (("/v2/models/income/infer", "2"), ("/v2/models/income/versions/1/infer", "1")):
            code, answer, _ = server.ask("POST", path, asked)
            assert (code, answer["model_version"]) == (200, version), answer
            assert ("arm" in [o["name"] for o in answer["outputs"]]) == (version == "2")
        metrics = server.get("/metrics")[1]["text"]
        assert 'mlops_nb_requests_total{code="200",model="income",route="/v1/predict",version="2"} 1.0' in metrics
        end_experiment(home, "income", "enough was seen")
        server.until(lambda: "arm" not in server.predict(rows[:1])[1]["predictions"][0])
    logged = History(home).read().to_pylist()
    assert {r["arm"] for r in logged} == {"", "control", "new"}
    for row in logged:
        if row["arm"]:
            assert row["version"] == started.arms[row["arm"]] and row["arm"] == assign(started, row["subject"] or row["id"])
            assert json.loads(row["output"])["arm"] == row["arm"]


@pytest.mark.slow
def test_several_workers_agree(project, sample):  # noqa: F811
    started = start_experiment(settings(project).home, BOTH, [1, 2])
    with serving(project, "income", "--workers", "2") as server:
        people = [f"p{i}" for i in range(30)]
        for _ in range(4):
            said = server.ask("POST", "/v1/predict", {"rows": [sample.rows[0]] * 30, "subjects": people})[1]
            assert [p["arm"] for p in said["predictions"]] == [assign(started, p) for p in people]


@pytest.mark.slow
def test_a_broken_experiment_stops_no_answer(project, sample):  # noqa: F811
    """A damaged file, an arm that isn't there or whose files are gone: the released version answers, and the reason is told."""
    home = settings(project).home
    rows = [sample.rows[0]] * 20

    def problem() -> str:
        return server.get("/v2/health/ready")[1]["problem"]

    def plain() -> bool:
        code, said, _ = server.predict(rows)
        assert code == 200
        return all("arm" not in p for p in said["predictions"])

    experiment_file(home, "income").write_text("{")
    with serving(project, "income") as server:
        assert "isn't an experiment" in problem() and plain()
        experiment_file(home, "income").unlink()
        server.until(lambda: not problem())
        start_experiment(home, BOTH, [1, 2])
        server.until(lambda: not plain())
        experiment_file(home, "income").write_text("[]")
        server.until(lambda: plain() and "isn't an experiment" in problem())
        experiment_file(home, "income").unlink()
        server.until(lambda: not problem())
        start_experiment(home, replace(BOTH, arms={"control": 1, "new": 77}), [1, 77])
        server.until(lambda: "no version 77" in problem())
        assert plain()
        end_experiment(home, "income", "a slip")
        server.until(lambda: not problem())
    folder = read_released(project / ".mlops/released.json")["models"]["income"]["versions"]["2"]["folder"]
    Path(folder, "evidence.json").write_text("{}")
    with serving(project, "income") as server:  # which has never loaded version 2
        start_experiment(home, replace(BOTH, name="t2"), [1, 2])
        server.until(lambda: "isn't what was registered" in problem())
        assert plain()


@pytest.mark.slow
def test_a_promotion_while_it_runs(project, sample):  # noqa: F811
    """The arms keep their versions whatever is released; a rejected version answers nobody."""
    home, uri = settings(project).home, settings(project).registry_uri
    started = start_experiment(home, BOTH, [1, 2])
    people = [f"p{i}" for i in range(20)]

    def arms() -> list[str]:
        code, said, _ = server.ask("POST", "/v1/predict", {"rows": [sample.rows[0]] * 20, "subjects": people})
        assert code == 200
        return [p.get("arm", "") for p in said["predictions"]]

    with serving(project, "income") as server:
        assert arms() == [assign(started, p) for p in people]
        promote(uri, "income", 2)
        server.until(lambda: server.get("/v1/models")[1]["models"][0]["version"] == 2)
        server.until(lambda: arms() == [assign(started, p) for p in people])
        promote(uri, "income", 1, to="rejected", reason="it was wrong")
        server.until(lambda: arms() == [""] * 20)
        assert "no version 1" in server.get("/v2/health/ready")[1]["problem"]


def test_who_asks_for_a_version_gets_it(project, sample):  # noqa: F811
    start_experiment(settings(project).home, BOTH, [1, 2])
    with serving(project, "income@2") as server:
        time.sleep(0.7)
        said = server.predict([sample.rows[0]] * 20)[1]
        assert said["version"] == 2 and all("arm" not in p for p in said["predictions"])
