"""The service as its callers see it: a real process on a free port, a real registry behind it."""

import concurrent.futures
import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import once
from prometheus_client.parser import text_string_to_metric_families
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from mlops_nb.base.artifacts import write_atomic
from mlops_nb.base.charter import load_charter
from mlops_nb.model.compile import compile_model
from mlops_nb.registry.evidence import PlainRows, as_evidence
from mlops_nb.registry.loading import load
from mlops_nb.registry.promotion import promote, rollback
from mlops_nb.registry.registration import register
from mlops_nb.registry.released import read_released
from mlops_nb.registry.sample import plain_rows, sample_frame, sample_of
from mlops_nb.base.settings import Settings, stock
from mlops_nb.serving.keys import add_key, remove_key
from mlops_nb.serving.prediction import Predictor
from mlops_nb.stages.features import make_recipe
from mlops_nb.model.problem import check_problem
from mlops_nb.model.conform import conform, learn_schema


def make(root: Path) -> None:
    """A project whose registry has income/1 in production and income/2 in staging."""
    (root / "settings.ini").write_text("[mlops_nb]\n")
    stated = check_problem(load_charter(stock("charters") / "income.yaml").statement())
    people = pd.read_parquet(files("mlops_nb") / "data" / "income.parquet").head(3000)
    schema = learn_schema(people.head(2000), stated)
    known = conform(people, schema)
    odd = known.tail(20).copy()
    odd.loc[odd.index[:5], "occupation"] = None
    odd.loc[odd.index[5:10], "native_country"] = "Wakanda"
    rows, uri = pd.concat([odd, known.head(60)], ignore_index=True), Settings(root=root).registry_uri
    for kind, estimator, phase in (("linear", LogisticRegression(max_iter=300), "development"), ("tree", HistGradientBoostingClassifier(max_iter=60, random_state=0), "staging")):
        model = Pipeline([("recipe", make_recipe(schema, stated)[kind]), ("estimator", estimator)]).fit(known, people.income)
        evidence = as_evidence({"problem": stated, "schema": schema, "decision": {"threshold": 1 / 3}, "sample": sample_of(model, rows), "background": plain_rows(known.head(9))})
        compact = compile_model(model, schema, rows, target_type="binary", positive=">50K", threshold=1 / 3)
        register(uri, "income", model, evidence, phase, compiled=compact)
    promote(uri, "income", 1)


def copied(made: Path, root: Path) -> Path:
    """A copy of the project. MLflow's file names absolute folders, so they are rewritten."""
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("predictions*", "said*"))
    with sqlite3.connect(root / ".mlops/mlflow.db") as database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location"), ("model_versions", "source"), ("model_versions", "storage_location")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(made), str(root)))
    database.close()
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The project, never changed by a test."""
    return copied(once(tmp_path_factory, "served", make), tmp_path_factory.mktemp("served") / "made")


@pytest.fixture
def project(made, tmp_path) -> Path:
    """A copy of it that a test may change."""
    return copied(made, tmp_path / "project")


def settings(root: Path) -> Settings:
    return Settings(root=root)


class Server:
    """A running service."""

    def __init__(self, root: Path, *words: str, wait: bool = True, within: tuple[str, ...] = ()):
        self.root, self.said = root, root / f"said-{time.monotonic_ns()}.log"
        with open(self.said, "wb") as out:
            self.process = subprocess.Popen([*within, sys.executable, "-m", "mlops_nb.cli.main", "serve", *words, "--port", "0"], cwd=root, stdout=out, stderr=subprocess.STDOUT)
        until = time.monotonic() + 60
        while wait and time.monotonic() < until and self.process.poll() is None:
            if found := re.search(r"https?://([0-9.]+):(\d+)", self.said.read_text()):
                self.address = (found[1], int(found[2]))
                try:
                    if "--tls-cert" in words or self.get("/v2/health/live")[0] == 200:
                        socket.create_connection(self.address).close()
                        return
                except OSError:
                    pass
            time.sleep(0.05)
        if wait:
            raise AssertionError(self.said.read_text())

    def ask(self, method: str, path: str, body: bytes | str | dict | None = None, headers: dict | None = None) -> tuple[int, dict, dict]:
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
            parsed = json.loads(data) if data and (answer.getheader("content-type") or "").startswith("application/json") else {"text": data.decode()}
            return answer.status, parsed, {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict, dict]:
        return self.ask("GET", path, headers=headers)

    def predict(self, rows: list, **headers: str) -> tuple[int, dict, dict]:
        return self.ask("POST", "/v1/predict", {"rows": rows}, headers)

    def until(self, what, seconds: float = 60.0) -> float:
        """Seconds until something is so."""
        begun = time.monotonic()
        while not what():
            assert time.monotonic() - begun < seconds, self.said.read_text()[-2000:]
            time.sleep(0.02)
        return time.monotonic() - begun

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        self.process.wait(30)


@contextmanager
def serving(root: Path, *words: str):
    server = Server(root, *words)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(made):
    with serving(made, "income@staging", "--limit", "receive=2", "--limit", "in_flight=8") as one:
        yield one


@pytest.fixture(scope="module")
def sample(made) -> PlainRows:
    return load(settings(made).registry_uri, "income", "staging").evidence.sample


def test_answers_are_the_plain_pipelines(made, server, sample):
    plain = load(settings(made).registry_uri, "income", "staging").model.predict_proba(sample_frame(sample))[:, 1]
    code, said, _ = server.predict(sample.rows)
    assert code == 200 and (said["model"], said["version"]) == ("income", 2)
    got = np.array([p["probability"] for p in said["predictions"]])
    assert np.abs(got - plain).max() < 1e-9
    assert [p["decision"] for p in said["predictions"]] == [">50K" if p >= 1 / 3 else "<=50K" for p in plain]
    alone = [server.predict([row])[1]["predictions"][0]["probability"] for row in sample.rows[:10]]
    assert alone == got[:10].tolist() and len({p["id"] for p in said["predictions"]}) == len(plain)
    assert {f["kind"] for p in said["predictions"] for f in p["flags"]} >= {"missing", "unseen"}


def test_the_app_answers_alike(made, server, sample):
    here = Predictor.load(settings(made), "income", "staging").predict(sample.rows)
    there = server.predict(sample.rows)[1]["predictions"]
    assert [(a.decision, a.probability, [f.message for f in a.flags]) for a in here] == [(p["decision"], p["probability"], [f["message"] for f in p["flags"]]) for p in there]


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"age": 103}, "age", "from 17 up to 90"),
        ({"age": "old"}, "age", "a whole number"),
        ({"age": 38.5}, "age", "a whole number"),
        ({"age": None}, "age", "required"),
        ({"age": True}, "age", "a whole number"),
        ({"sex": "X"}, "sex", "one of Female, Male"),
        ({"occupation": ["Sales"]}, "occupation", "a text"),
        ({"ocupation": "Sales"}, "ocupation", "did you mean 'occupation'"),
    ],
)
def test_a_row_that_cannot_be_predicted_is_refused(server, sample, change, field, said):
    rows = [sample.rows[0], sample.rows[1] | change]
    code, answer, _ = server.predict(rows)
    assert code == 422 and answer["row"] == 1 and answer["field"] == field and said in answer["error"] and answer["allowed"]


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/v1/predict", "{", 400),
        ("POST", "/v1/predict", "", 400),
        ("POST", "/v1/predict", "[" * 100_000, 400),
        ("POST", "/v1/predict", "[]", 422),
        ("POST", "/v1/predict", '{"rows": []}', 422),
        ("GET", "/v1/predict", None, 405),
        ("POST", "/v1/predict", b"x" * (1 << 20 | 1), 413),
        ("POST", "/v2/models/incom/infer", "{}", 404),
        ("POST", "/v2/models/income/versions/99/infer", "{}", 404),
        ("POST", "/v2/models/income/versions/x/infer", "{}", 404),
        ("POST", "/v2/models/income/infer", "{}", 400),
        ("GET", "/v2/models/incom", None, 404),
        ("GET", "/v3", None, 404),
    ],
)
def test_a_request_that_is_none_is_refused(server, method, path, body, code):
    answered, said, _ = server.ask(method, path, body)
    assert answered == code and (said.get("error") or said.get("detail"))
    assert server.get("/v2/health/ready")[1]["ready"]


def test_too_many_rows_and_a_body_in_chunks(server, sample):
    assert server.predict([{"age": 1}] * 1001)[0] == 413
    body = json.dumps({"rows": sample.rows[:3]}).encode()
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    connection.request("POST", "/v1/predict", iter([body[:9], body[9:200], body[200:]]), encode_chunked=True, headers={"transfer-encoding": "chunked"})
    answer = connection.getresponse()
    assert answer.status == 200 and len(json.loads(answer.read())["predictions"]) == 3
    connection.request("POST", "/v1/predict", iter([b"x" * 65536] * 40), encode_chunked=True, headers={"transfer-encoding": "chunked"})
    assert connection.getresponse().status == 413
    connection.close()


def slow(server: Server, said: bytes) -> socket.socket:
    """A connection that has said something and then goes quiet."""
    made = socket.create_connection(server.address, timeout=60)
    made.sendall(said)
    return made


@pytest.mark.slow
def test_slow_clients_are_answered_or_cut_off(server):
    body = slow(server, b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    head = slow(server, b"POST /v1/predict HTTP/1.1\r\nho")
    quiet = slow(server, b"")
    assert b"408" in body.recv(1000)
    assert head.recv(1000) == b"" and quiet.recv(1000) == b""
    for one in (body, head, quiet):
        one.close()


def test_clients_that_have_said_all_are_answered_beside_others(server, sample):
    """`nc -N` and the like close their side behind the request; one more request is in flight all the while."""
    body = json.dumps({"rows": sample.rows[:2]}).encode()
    asked = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    beside = slow(server, b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    try:
        for _ in range(50):
            with socket.create_connection(server.address, timeout=20) as one:
                one.sendall(asked)
                one.shutdown(socket.SHUT_WR)
                said = b"".join(iter(lambda: one.recv(65536), b""))  # noqa: B023 - read at once
            assert said.startswith(b"HTTP/1.1 200") and len(json.loads(said.partition(b"\r\n\r\n")[2])["predictions"]) == 2
    finally:
        beside.close()


def test_overload_is_refused_at_once_and_passes(server, sample):
    body = json.dumps({"rows": (sample.rows * 13)[:1000]}).encode()
    asked = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    callers = [slow(server, asked[:-1]) for _ in range(40)]
    assert server.predict(sample.rows[:1])[0] == 200 and server.get("/v2/health/ready")[0] == 200  # none of them is there as a whole
    for one in callers:
        one.sendall(asked[-1:])
    said = []
    for one in callers:
        answer = http.client.HTTPResponse(one)
        answer.begin()
        said.append((answer.status, answer.getheader("retry-after"), answer.read()))
        one.close()
    assert {code for code, _, _ in said} == {200, 503} and {retry for code, retry, _ in said if code == 503} == {"1"}
    assert all(b"try again" in text for code, _, text in said if code == 503)
    server.until(lambda: server.predict(sample.rows[:1])[0] == 200)


def test_metadata_and_documentation(server, sample):
    about = server.get("/v2/models/income")[1]
    assert about["name"] == "income" and about["parameters"]["engine"] == "compiled" and {i["name"] for i in about["inputs"]} == set(sample.rows[0])
    assert server.get("/v2/models/income/versions/1/ready")[1]["ready"]
    assert server.get("/v2")[1]["name"] == "mlops-nb" and server.get("/docs")[0] == 200
    fields = {f["name"]: f for f in server.get("/v1/models")[1]["models"][0]["fields"]}
    assert (fields["age"]["min"], fields["age"]["max"], fields["sex"]["values"]) == (17, 90, ["Female", "Male"])
    page = server.get("/openapi.json")[1]
    assert set(page["components"]["schemas"]["Row"]["properties"]) == set(fields) and "/v1/predict" in page["paths"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(page)))
    assert references <= set(page["components"]["schemas"])


def test_the_protocols_route_answers_alike(server, sample):
    rows = sample.rows[:4]
    kinds = {i["name"]: i["datatype"] for i in server.get("/v2/models/income")[1]["inputs"]}
    inputs = [{"name": n, "datatype": kinds[n], "shape": [len(rows)], "data": [row[n] for row in rows]} for n in rows[0]]
    code, said, _ = server.ask("POST", "/v2/models/income/infer", {"id": "7", "inputs": inputs})
    outputs = {o["name"]: o["data"] for o in said["outputs"]}
    assert code == 200 and said["id"] == "7" and outputs["probability"] == [p["probability"] for p in server.predict(rows)[1]["predictions"]]
    older = server.ask("POST", "/v2/models/income/versions/1/infer", {"inputs": inputs})[1]
    assert older["model_version"] == "1" and older["outputs"] != said["outputs"]


def test_metrics(server, sample):
    def read() -> dict:
        text = server.get("/metrics")[1]["text"]
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in text_string_to_metric_families(text) for s in family.samples}

    def requests(found: dict, code: str) -> float:
        return sum(v for (name, labels), v in found.items() if name == "mlops_nb_requests_total" and ("route", "/v1/predict") in labels and ("code", code) in labels)

    before = read()
    for _ in range(3):
        server.predict(sample.rows[:2])
    server.predict([{}])
    after = read()
    assert requests(after, "200") - requests(before, "200") == 3 and requests(after, "422") - requests(before, "422") == 1
    count = ("mlops_nb_request_seconds_count", (("route", "/v1/predict"),))
    assert after[count] - before[count] == 4
    assert after[("mlops_nb_model", (("engine", "compiled"), ("model", "income"), ("phase", "staging"), ("version", "2")))] == 1
    assert 1e7 < after[("mlops_nb_resident_bytes", ())] < 4e8 and after[("mlops_nb_cpu_seconds", ())] > 0


def test_a_request_is_a_line_with_its_predictions(server, sample):
    ids = [p["id"] for p in server.predict(sample.rows[:2])[1]["predictions"]]

    def lines() -> list[dict]:
        return [json.loads(line) for line in server.said.read_text().splitlines() if line.endswith("}")]

    server.until(lambda: any(line.get("ids") == ids for line in lines()))
    (line,) = [line for line in lines() if line.get("ids") == ids]
    assert line["code"] == 200 and line["model"] == "income/2" and line["ms"] > 0 and line["time"].endswith("Z")


def ask_on(server: Server, row: dict, stop: threading.Event) -> list[tuple[int, int]]:
    """Code and version of request after request over one connection."""
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    found, body = [], json.dumps({"rows": [row]})
    while not stop.is_set():
        connection.request("POST", "/v1/predict", body)
        answer = connection.getresponse()
        found.append((answer.status, json.loads(answer.read())["version"]))
    connection.close()
    return found


def test_promotion_and_rollback_reach_a_service_under_load(project, sample):
    uri, stop = settings(project).registry_uri, threading.Event()
    with serving(project, "income@production") as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask_on, server, sample.rows[30], stop) for _ in range(3)]
        try:
            took = []
            for change, version in ((lambda: promote(uri, "income", 2), 2), (lambda: rollback(uri, "income"), 1)):
                change()
                took.append(server.until(lambda version=version: server.get("/v2/health/ready")[1]["model"] == f"income/{version}"))
            time.sleep(0.2)
        finally:
            stop.set()
        answers = [caller.result() for caller in callers]
    assert max(took) < 5
    for one in answers:
        assert {code for code, _ in one} == {200}
        versions = [version for _, version in one]
        assert [v for i, v in enumerate(versions) if i == 0 or v != versions[i - 1]] == [1, 2, 1]


@pytest.mark.slow
def test_a_damaged_or_vanished_release_changes_nothing(project, sample):
    released = project / ".mlops/released.json"
    good = released.read_bytes()
    with serving(project, "income@production") as server:
        for bad in (b"", good[: len(good) // 2], b'{"format": 9}', None, good.replace(b'"production":1', b'"production":77')):
            if bad is None:
                released.unlink()
            else:
                write_atomic(released, bad)
            server.until(lambda: server.get("/v2/health/ready")[1]["problem"])
            assert server.predict(sample.rows[:1])[1]["version"] == 1
            write_atomic(released, good)
            server.until(lambda: not server.get("/v2/health/ready")[1]["problem"])
        staged = read_released(released)["models"]["income"]["versions"]["2"]["folder"]
        for name in ("fold.zip", "model/model.skops"):
            Path(staged, name).write_bytes(b"poison")
        write_atomic(released, good.replace(b'"production":1', b'"production":2'))
        server.until(lambda: "isn't what was registered" in server.get("/v2/health/ready")[1]["problem"])
        assert server.predict(sample.rows[:1])[1]["version"] == 1


@pytest.mark.slow
def test_without_its_compiled_model_the_plain_pipeline_serves(project, sample):
    facts = read_released(project / ".mlops/released.json")["models"]["income"]["versions"]["2"]
    Path(facts["folder"], "fold.zip").write_bytes(b"poison")
    with serving(project, "income@2") as server:
        about = server.get("/v2/models/income")[1]["parameters"]
        assert about["engine"] == "plain pipeline" and "fold.zip isn't what was registered" in about["why"]
        got = np.array([p["probability"] for p in server.predict(sample.rows)[1]["predictions"]])
        assert np.abs(got - np.array(sample.expected)[:, 1]).max() < 1e-9


def test_what_nobody_has_approved_is_served_only_where_that_was_said(project, sample):
    uri = settings(project).registry_uri
    promote(uri, "income", 1, "archived")
    server = Server(project, "income", wait=False)
    assert server.process.wait(60) != 0
    (said,) = server.said.read_text().splitlines()
    assert "mlops-nb models promote income 2" in said and "income@staging" in said
    kinds = {k: "FP64" if isinstance(v, int) else "BYTES" for k, v in sample.rows[30].items()}
    inputs = [{"name": k, "datatype": kinds[k], "shape": [1], "data": [v]} for k, v in sample.rows[30].items()]
    with serving(project, "income", "--allow-staging") as server:
        assert "income/2 in staging" in server.said.read_text()
        for path in ("/v2/health/ready", "/v2/models/income/ready"):
            assert server.get(path)[1]["phase"] == "staging"
        assert server.predict(sample.rows[:1])[1]["phase"] == server.get("/v1/models")[1]["models"][0]["phase"] == server.get("/v2/models/income")[1]["parameters"]["phase"] == "staging"
        assert server.ask("POST", "/v2/models/income/infer", {"inputs": inputs})[1]["parameters"] == {"phase": "staging"}
        assert server.ask("POST", "/v2/models/income/versions/1/infer", {"inputs": inputs})[1]["parameters"] == {"phase": "archived"}
        promote(uri, "income", 1)  # as a version of its own, and when it is the one that is served
        server.until(lambda: server.predict(sample.rows[:1])[1]["phase"] == "production")
        assert server.ask("POST", "/v2/models/income/versions/1/infer", {"inputs": inputs})[1]["parameters"] == {"phase": "production"}
    lines = [json.loads(line) for line in server.said.read_text().splitlines() if '"route":"/v1/predict"' in line]
    assert {line["phase"] for line in lines} == {"staging", "production"}


def test_a_service_whose_version_leaves_production_says_so_and_takes_no_other(project, sample):
    uri = settings(project).registry_uri
    with serving(project, "income") as server:
        assert server.predict(sample.rows[:1])[1]["phase"] == "production"
        promote(uri, "income", 1, "archived")
        server.until(lambda: server.get("/v2/health/ready")[1]["problem"])
        about, (code, said, _) = server.get("/v2/health/ready")[1], server.predict(sample.rows[:1])
        assert (about["model"], about["phase"]) == ("income/1", "archived") and "promote income 2" in about["problem"]
        assert (code, said["version"], said["phase"]) == (200, 1, "archived")
        promote(uri, "income", 2)
        server.until(lambda: server.predict(sample.rows[:1])[1]["version"] == 2)
        assert server.get("/v2/health/ready")[1] == {"ready": True, "model": "income/2", "phase": "production", "problem": ""}


def test_a_removed_key_ends_what_is_open(project, sample):
    """A connection that is kept alive, and a request that was half sent when the key was removed."""
    file, body = project / "keys.json", json.dumps({"rows": sample.rows[:1]}).encode()
    key = add_key(file, "shop")
    add_key(file, "other")
    with serving(project, "income", "--keys", str(file), "--log", "off") as server:
        half = slow(server, b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\nx-api-key: %b\r\ncontent-length: %d\r\n\r\n%b" % (key.encode(), len(body), body[:-1]))
        kept = http.client.HTTPConnection(*server.address, timeout=20)

        def ask() -> int:
            kept.request("POST", "/v1/predict", body, {"X-API-Key": key})
            answer = kept.getresponse()
            answer.read()
            return answer.status

        assert ask() == 200
        remove_key(file, "shop")
        server.until(lambda: ask() == 401)
        half.sendall(body[-1:])
        assert b" 401 " in half.recv(1000)
        half.close()
        kept.close()


def test_keys(project, sample):
    file = project / "keys.json"
    first, watcher = add_key(file, "shop"), add_key(file, "watch", ("feedback",))
    with serving(project, "income", "--keys", str(file), "--log", "off") as server:
        row = sample.rows[:1]
        assert server.predict(row)[0] == 401 and server.predict(row, **{"X-API-Key": "guess"})[0] == 401
        assert server.predict(row, **{"X-API-Key": first})[0] == 200 and server.predict(row, Authorization=f"Bearer {first}")[0] == 200
        assert server.predict(row, **{"X-API-Key": watcher})[0] == 403 and server.get("/metrics", **{"X-API-Key": watcher})[0] == 200
        assert server.get("/metrics")[0] == 401 and server.get("/openapi.json")[0] == 401 and server.get("/v2/health/ready")[0] == 200
        second = add_key(file, "shop-2")
        remove_key(file, "shop")
        server.until(lambda: server.predict(row, **{"X-API-Key": second})[0] == 200)
        assert server.predict(row, **{"X-API-Key": first})[0] == 401
        file.write_text("{")
        time.sleep(0.7)
        assert server.predict(row, **{"X-API-Key": second})[0] == 200
        asked = server.get("/docs")
        assert asked[0] == 401 and asked[2]["www-authenticate"].startswith("Basic")  # a browser asks for the key
        basic = "Basic " + base64.b64encode(f"anybody:{second}".encode()).decode()
        assert server.get("/docs", Authorization=basic)[0] == server.get("/openapi.json", Authorization=basic)[0] == 200
        assert server.predict(row, Authorization=basic)[0] == 401  # or a page elsewhere could have the browser ask
        file.unlink()
        server.until(lambda: server.predict(row, **{"X-API-Key": second})[0] == 401)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("income", "--host", "0.0.0.0"), "--no-keys"),
        pytest.param(("incom",), "did you mean 'income'", marks=pytest.mark.slow),
        pytest.param(("income@9",), "no version 9", marks=pytest.mark.slow),
        (("income@prod",), "MODEL@production"),
        pytest.param(("income@released",), "MODEL@production", marks=pytest.mark.slow),
        (("income", "--cors", "shop.example.com"), "is no origin"),
        pytest.param(("income", "--host-name", "https://shop"), "is no host name", marks=pytest.mark.slow),
        (("income", "--limit", "bodi=1"), "did you mean 'body'"),
        pytest.param(("income", "--limit", "in_flight=0"), "in_flight is 0; expected", marks=pytest.mark.slow),
        pytest.param(("income", "--limit", "receive=nan"), "receive is nan; expected", marks=pytest.mark.slow),
        pytest.param(("income@²",), "MODEL@NUMBER", marks=pytest.mark.slow),
        pytest.param(("income", "--log", "foo"), "'strict'", marks=pytest.mark.slow),
        (("income", "--grpc", "0.0.0.0:0"), "--no-keys"),
        pytest.param(("income", "--keys", "none.json"), "none.json", marks=pytest.mark.slow),
        (("incom", "--workers", "2"), "did you mean 'income'"),
    ],
)
def test_a_service_that_may_not_start_says_why(made, words, said):
    server = Server(made, *words, wait=False)
    try:
        assert server.process.wait(60) != 0
    finally:
        server.stop(signal.SIGKILL)
    text = server.said.read_text()
    assert said in text and "Traceback" not in text and " at http" not in text  # nobody was told that it answers


def logged(root: Path) -> set[str]:
    connection = sqlite3.connect(root / ".mlops/predictions.db")
    try:
        return {key for (key,) in connection.execute("SELECT id FROM predictions")}
    finally:
        connection.close()


def test_a_strict_log_holds_whatever_was_answered(project, sample):
    with serving(project, "income", "--log", "strict") as server:
        body = {"rows": sample.rows[:3], "subjects": ["ada", None, "bob"]}
        ids = {p["id"] for _ in range(20) for p in server.ask("POST", "/v1/predict", body)[1]["predictions"]}
        server.stop(signal.SIGKILL)
    assert len(ids) == 60 and logged(project) >= ids


def test_what_was_answered_is_logged_at_the_end(project, sample):
    with serving(project, "income") as server:
        ids = {server.predict([row])[1]["predictions"][0]["id"] for row in sample.rows}
    assert logged(project) == ids and server.process.returncode in (0, -signal.SIGTERM)
    connection = sqlite3.connect(project / ".mlops/predictions.db")
    inputs, output = connection.execute("SELECT inputs, output FROM predictions WHERE seq = 1").fetchone()
    connection.close()
    assert json.loads(inputs) == sample.rows[0] and set(json.loads(output)) >= {"decision", "probability"}


def test_workers_share_port_and_metrics_and_are_replaced(project, sample):
    with serving(project, "income", "--workers", "2") as server:
        for _ in range(40):
            assert server.predict(sample.rows[:1])[0] == 200

        def answered() -> float:
            text = server.get("/metrics")[1]["text"]
            return sum(s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == "mlops_nb_requests_total" and s.labels["route"] == "/v1/predict")

        server.until(lambda: answered() == 40)  # the other worker may be about to note its last answer

        def versions() -> dict:
            text = server.get("/metrics")[1]["text"]
            return {s.labels["version"]: s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == "mlops_nb_model" and s.value}

        promote(settings(project).registry_uri, "income", 2)
        server.until(lambda: versions() == {"2": 2})
        rollback(settings(project).registry_uri, "income")
        server.until(lambda: versions() == {"1": 2})
        assert "Clearing" not in server.said.read_text()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        workers = [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGKILL)
        server.until(lambda: server.predict(sample.rows[:1])[0] == 200)
    assert server.process.returncode == 0


def test_tls(project, sample):
    import ssl

    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(made, cwd=project, check=True, capture_output=True)
    with serving(project, "income", "--tls-cert", str(project / "cert.pem"), "--tls-key", str(project / "key.pem")) as server:
        context = ssl.create_default_context(cafile=str(project / "cert.pem"))
        connection = http.client.HTTPSConnection(*server.address, context=context, timeout=30)
        connection.request("POST", "/v1/predict", json.dumps({"rows": sample.rows[:1]}))
        assert connection.getresponse().status == 200
        connection.close()


def test_a_worker_imports_nothing_heavy(made):
    program = f"""
import os, sys
os.environ["MLOPS_NB_SERVE"] = '{{"released": "{made}/.mlops/released.json", "model": "income", "home": "{made}/elsewhere", "lines": false}}'
from mlops_nb.serving.serve import make_app
app = make_app()
assert app.service.model.current.engine == "compiled"
heavy = ("pandas", "sklearn", "scipy.linalg", "scipy.sparse", "mlflow", "skops", "pyarrow", "joblib", "matplotlib", "mlops_nb.stages", "mlops_nb.serving.prediction")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
