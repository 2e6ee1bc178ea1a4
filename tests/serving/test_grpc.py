"""The Open Inference Protocol spoken by its public client, over HTTP and gRPC, to a real service process."""

import asyncio
import contextlib
import http.client
import itertools
import json
import math
import queue
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path

import grpc
import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc as client_grpc
import tritonclient.http as client_http
from tritonclient.utils import InferenceServerException

from mlops_nb.model.schema import Schema
from mlops_nb.serving import inference_pb2 as pb
from mlops_nb.serving.grpc import SERVICE
from mlops_nb.serving.messages import request_of
from mlops_nb.serving.tensors import DATATYPES

START = """
import sys, json
from pathlib import Path
from mlops_nb.base.settings import Settings
from mlops_nb.serving.serve import serve
home, more = Path(sys.argv[1]), json.loads(sys.argv[2])
keys = more.pop("keys", None)
serve(Settings(root=home, home=home), "income@staging", port=0, keys=keys and Path(keys), **more)
"""
ALLOWED = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A folder with a registered model, rows with missing and unseen values, and what the plain pipeline says of them."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

    from mlops_nb.model.compile import compile_model
    from mlops_nb.registry.evidence import as_evidence
    from mlops_nb.registry.registration import register
    from mlops_nb.registry.sample import sample_of
    from mlops_nb.base.settings import Settings
    from mlops_nb.stages.features import make_recipe
    from mlops_nb.model.problem import Problem
    from mlops_nb.model.conform import conform, learn_schema

    home = tmp_path_factory.mktemp("service")
    stated = Problem(
        name="income", goal="an example", task="binary", target="income", positive=">50K", metric="roc_auc",
        data={"source": "package:income.parquet"}, exclude={"fnlwgt": "survey weight"}, rules={"age": {"required": True, "max": 120}},
    )  # fmt: skip
    people = pd.read_parquet(files("mlops_nb") / "data" / "income.parquet")
    schema = learn_schema(people.head(1500), stated)
    known = conform(people.head(1500), schema)
    trees = Pipeline([("recipe", make_recipe(schema, stated)["tree"]), ("estimator", HistGradientBoostingClassifier(max_iter=15, random_state=0))])
    trees.fit(known, people.head(1500).income)
    evidence = as_evidence({"problem": stated, "schema": schema, "decision": {"threshold": 1 / 3}, "sample": sample_of(trees, known.head(5))})
    settings = Settings(root=home, home=home)
    register(settings.registry_uri, "income", trees, evidence, "staging", compiled=compile_model(trees, schema, known, target_type="binary", positive=">50K", threshold=1 / 3))
    rows = conform(people.iloc[1500:1600], schema)
    rows.loc[rows.index[::7], "native_country"] = "Wakanda"
    rows.loc[rows.index[::5], ["workclass", "hours_per_week"]] = None
    return home, schema, rows, trees.predict_proba(rows)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(home: Path, **more):
    """A service process with REST and gRPC: its two addresses and its id."""
    address = f"127.0.0.1:{free_port()}"
    options = json.dumps({"grpc": address, "lines": False, "log": "batched", **more})
    process = subprocess.Popen([sys.executable, "-c", START, str(home), options], stdout=subprocess.PIPE, text=True)
    try:
        web = json.loads(process.stdout.readline())["message"].split("//")[1]
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(address.split(":"), timeout=1):
                break
            assert process.poll() is None, "the service ended"
            time.sleep(0.1)
        yield web, address, process.pid
        assert process.poll() is None, "the service ended"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def service(registered):
    with running(registered[0]) as found:
        yield found


def memory(pid: int) -> float:
    """MB that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def tensors(kind, form: Schema, rows: pd.DataFrame, column: bool = False) -> list:
    """Inputs for the public client: one a field, missing as NaN or as an empty element."""
    made = []
    for field in form.fields:
        values = rows[field.name]
        if field.kind in ("number", "integer"):
            datatype, data = "FP64", values.to_numpy(float, na_value=np.nan)
        else:
            datatype, data = "BYTES", np.array(["" if pd.isna(v) else v for v in values], dtype=object)
        data = data.reshape(-1, 1) if column else data
        one = kind(field.name, list(data.shape), datatype)
        one.set_data_from_numpy(data)
        made.append(one)
    return made


def test_health_and_metadata(registered, service):
    _, form, _, _ = registered
    for client in (client_grpc.InferenceServerClient(service[1]), client_http.InferenceServerClient(service[0])):
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("income") and client.is_model_ready("income", "1")
        client.close()
    with client_grpc.InferenceServerClient(service[1]) as client:
        server = client.get_server_metadata(as_json=True)
        model = client.get_model_metadata("income", as_json=True)
        with pytest.raises(InferenceServerException, match="NOT_FOUND.*income"):
            client.get_model_metadata("incomes")
    assert server["name"] == "mlops-nb" and "binary_tensor_data" in server["extensions"]
    assert [i["name"] for i in model["inputs"]] == [f.name for f in form.fields] and model["versions"] == ["1"]
    with client_http.InferenceServerClient(service[0]) as client:
        same = client.get_model_metadata("income")
    assert model["platform"] == same["platform"] == "mlops_nb_compiled"
    assert [[t["name"], t["datatype"]] for t in model["inputs"] + model["outputs"]] == [[t["name"], t["datatype"]] for t in same["inputs"] + same["outputs"]]


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("wire", ["grpc", "binary", "json"])
def test_answers_equal_the_plain_pipeline(registered, service, wire, column):
    _, form, rows, expected = registered
    if wire == "json":
        got = over_json(service[0], form, rows, column)
    else:
        module, address = (client_grpc, service[1]) if wire == "grpc" else (client_http, service[0])
        with module.InferenceServerClient(address) as client:
            answer = client.infer("income", tensors(module.InferInput, form, rows, column), request_id="r7")
        got = {name: answer.as_numpy(name) for name in ("prediction_id", "decision", "probability", "probabilities", "flags")}
        assert (answer.get_response().id if wire == "grpc" else answer.get_response()["id"]) == "r7"
    assert np.abs(got["probabilities"] - expected).max() <= 1e-9 and np.array_equal(got["probability"], got["probabilities"][:, 1])
    decided = [d if isinstance(d, str) else d.decode() for d in got["decision"]]
    assert decided == [">50K" if p >= 1 / 3 else "<=50K" for p in expected[:, 1]]
    assert len(set(got["prediction_id"].tolist())) == len(rows)
    kinds = [{f["kind"] for f in json.loads(flags)} for flags in got["flags"]]
    assert all({"missing", "unseen"} <= kinds[i] for i in range(0, len(rows), 35)) and all("unseen" in kinds[i] for i in range(0, len(rows), 7))


def over_json(address: str, form: Schema, rows: pd.DataFrame, column: bool) -> dict:
    """The same without a client library: null where a value is missing."""
    inputs = []
    for field in form.fields:
        number = field.kind in ("number", "integer")
        data = [None if pd.isna(v) else float(v) if number else v for v in rows[field.name]]
        inputs.append({"name": field.name, "datatype": "FP64" if number else "BYTES", "shape": [len(rows), 1] if column else [len(rows)], "data": [[v] for v in data] if column else data})
    status, said = post(address, "/v2/models/income/versions/1/infer", json.dumps({"inputs": inputs}).encode())
    assert status == 200
    return {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in json.loads(said)["outputs"]}


def post(address: str, path: str, body: bytes, headers: dict | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("POST", path, body, headers or {})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, said


def typed(form: Schema, rows: pd.DataFrame, **more) -> "pb.ModelInferRequest":
    """A request with typed contents."""
    made = pb.ModelInferRequest(model_name="income", **more)
    for field in form.fields:
        number = field.kind in ("number", "integer")
        given = made.inputs.add(name=field.name, datatype="FP64" if number else "BYTES", shape=[len(rows)])
        for value in rows[field.name]:
            if number:
                given.contents.fp64_contents.append(math.nan if pd.isna(value) else value)
            else:
                given.contents.bytes_contents.append(b"" if pd.isna(value) else value.encode())
    return made


def test_typed_contents_and_named_outputs(registered, service):
    _, form, rows, expected = registered
    with grpc.insecure_channel(service[1]) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
        said = call(typed(form, rows, id="t", outputs=[{"name": "probabilities"}]))
    assert [o.name for o in said.outputs] == ["probabilities"] and not said.raw_output_contents and said.id == "t"
    assert np.abs(np.array(said.outputs[0].contents.fp64_contents).reshape(said.outputs[0].shape) - expected).max() <= 1e-9
    with client_http.InferenceServerClient(service[0]) as client:
        outputs = [client_http.InferRequestedOutput("decision", binary_data=False), client_http.InferRequestedOutput("probability", binary_data=True)]
        answer = client.infer("income", tensors(client_http.InferInput, form, rows), outputs=outputs)
    assert [o["name"] for o in answer.get_response()["outputs"]] == ["decision", "probability"] and answer.as_numpy("decision")[0] in ("<=50K", ">50K")
    assert np.abs(answer.as_numpy("probability") - expected[:, 1]).max() <= 1e-9


def test_stream_with_requests_in_flight(registered, service):
    _, form, rows, expected = registered
    answers: queue.Queue = queue.Queue()
    with client_grpc.InferenceServerClient(service[1]) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(50):
            client.async_stream_infer("income" if i != 20 else "incomes", tensors(client_grpc.InferInput, form, rows.iloc[[i]]), request_id=str(i))
        got = [answers.get(timeout=30) for _ in range(50)]
        client.stop_stream()
    assert [bool(error) for _, error in got] == [i == 20 for i in range(50)] and "income" in str(got[20][1])
    for i, (result, error) in enumerate(got):
        assert error or (result.get_response().id == str(i) and abs(result.as_numpy("probability")[0] - expected[i, 1]) <= 1e-9)


def test_many_threads_at_once(registered, service):
    _, form, rows, expected = registered
    worst = []

    def ask(start: int) -> None:
        with client_grpc.InferenceServerClient(service[1]) as client:
            for i in range(start, start + 20):
                said = client.infer("income", tensors(client_grpc.InferInput, form, rows.iloc[[i]])).as_numpy("probability")[0]
                worst.append(abs(said - expected[i, 1]))

    threads = [threading.Thread(target=ask, args=(20 * k,)) for k in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(worst) == 100 and max(worst) <= 1e-9


def refusal(address: str, inputs: list, model: str = "income", **more) -> tuple[str, str]:
    with client_grpc.InferenceServerClient(address) as client, pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs, **more)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_refusals_have_a_status_and_a_sentence(registered, service):
    _, form, rows, _ = registered
    good = tensors(client_grpc.InferInput, form, rows)
    old = rows.head(2).copy()
    old["age"] = [44, 4400]
    strange = client_grpc.InferInput("aeg", [len(rows)], "FP64")
    strange.set_data_from_numpy(np.ones(len(rows)))
    for expected, words, said in (
        ("NOT_FOUND", "no model 'incomes'", refusal(service[1], good, "incomes")),
        ("NOT_FOUND", "no version 77", refusal(service[1], good, model_version="77")),
        ("INVALID_ARGUMENT", "'age' is not given", refusal(service[1], good[1:])),
        ("INVALID_ARGUMENT", "did you mean 'age'", refusal(service[1], [strange, *good[1:]])),
        ("INVALID_ARGUMENT", "row 1, field 'age'", refusal(service[1], tensors(client_grpc.InferInput, form, old))),
        ("INVALID_ARGUMENT", "did you mean 'decision'", refusal(service[1], good, outputs=[client_grpc.InferRequestedOutput("decison")])),
        ("RESOURCE_EXHAUSTED", "at most 1,000", refusal(service[1], tensors(client_grpc.InferInput, form, pd.concat([rows] * 11)))),
        ("RESOURCE_EXHAUSTED", "larger than max", refusal(service[1], tensors(client_grpc.InferInput, form, rows.assign(occupation="x" * 20_000)))),
    ):
        assert said[0] == expected and words in said[1], said


def test_keys_tls_and_limits(registered, tmp_path):
    from mlops_nb.serving.keys import add_key

    home, form, rows, expected = registered
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", private, "-out", certificate, *subject], check=True, capture_output=True)
    key = add_key(tmp_path / "keys.json", "shop")
    other = add_key(tmp_path / "keys.json", "clerk", ("feedback",))
    one = tensors(client_grpc.InferInput, form, rows.head(1))
    with running(home, keys=str(tmp_path / "keys.json"), tls_cert=str(certificate), tls_key=str(private), limits={"receive": 0.5, "rows": 5}, log="off") as (_, address, _):
        with client_grpc.InferenceServerClient(address, ssl=True, root_certificates=str(certificate)) as client:
            assert client.is_server_ready()
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
                assert abs(client.infer("income", one, headers=headers).as_numpy("probability")[0] - expected[0, 1]) <= 1e-9
            for headers, status in (({}, "UNAUTHENTICATED"), ({"x-api-key": "guess"}, "UNAUTHENTICATED"), ({"x-api-key": other}, "PERMISSION_DENIED")):
                with pytest.raises(InferenceServerException, match=status):
                    client.infer("income", one, headers=headers)
            with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED.*at most 5"):
                client.infer("income", tensors(client_grpc.InferInput, form, rows.head(6)), headers={"x-api-key": key})
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate.read_bytes())) as channel:
            call = channel.stream_unary(f"/{SERVICE}/ModelInfer")
            never = threading.Event()
            with pytest.raises(grpc.RpcError) as late:
                call(iter(lambda: never.wait(60), True), metadata=[("x-api-key", key)])
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            never.set()


@pytest.mark.slow
def test_silent_streams_are_in_nobodys_way(registered):
    home, form, rows, expected = registered
    never = threading.Event()
    with running(home, limits={"in_flight": 3, "keep_alive": 4, "arriving": 64}, log="off") as (_, address, _), grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        first, more = typed(form, rows.head(1)).SerializeToString(), iter(lambda: never.wait(60), True)
        held = [call(itertools.chain([first], more)) for _ in range(48)]  # one client may have 16
        answered = 0
        for one in held:
            with contextlib.suppress(grpc.RpcError):
                answered += bool(pb.ModelStreamInferResponse.FromString(next(one)).infer_response.outputs)
        half = [call(iter(lambda: never.wait(60), True)) for _ in range(48)]  # not one message
        with client_grpc.InferenceServerClient(address) as client:
            assert client.is_server_live() and client.is_server_ready()
            for _ in range(5):
                assert abs(client.infer("income", tensors(client_grpc.InferInput, form, rows.head(1))).as_numpy("probability")[0] - expected[0, 1]) <= 1e-9
        assert {one.code() for one in held + half} == {grpc.StatusCode.DEADLINE_EXCEEDED} and answered >= 16
        assert sum("an early one" in one.details() for one in held + half) >= 2 * 48 - 16
        never.set()


def test_a_removed_key_ends_an_open_stream(registered, tmp_path):
    from mlops_nb.serving.keys import add_key, remove_key

    home, form, rows, _ = registered
    file, messages = tmp_path / "keys.json", queue.Queue()
    key = add_key(file, "shop")
    add_key(file, "other")
    with running(home, keys=str(file), log="off") as (_, address, _), grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(messages.get, None), metadata=[("x-api-key", key)])
        for _ in range(2):
            messages.put(typed(form, rows.head(1)).SerializeToString())
            assert pb.ModelStreamInferResponse.FromString(next(stream)).infer_response.outputs
        remove_key(file, "shop")
        with pytest.raises(grpc.RpcError) as ended:
            for _ in range(200):  # the file is looked at twice a second
                messages.put(typed(form, rows.head(1)).SerializeToString())
                next(stream)
                time.sleep(0.05)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
        messages.put(None)


def test_every_answer_says_the_phase(registered, service):
    _, form, rows, _ = registered
    with grpc.insecure_channel(service[1]) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
        assert call(typed(form, rows.head(1))).parameters["phase"].string_param == "staging"
        for method, asked in (("ModelReady", pb.ModelReadyRequest(name="income")), ("ModelMetadata", pb.ModelMetadataRequest(name="income"))):
            _, about = channel.unary_unary(f"/{SERVICE}/{method}").with_call(asked.SerializeToString())
            assert ("phase", "staging") in about.trailing_metadata()
    with client_http.InferenceServerClient(service[0]) as client:
        assert client.infer("income", tensors(client_http.InferInput, form, rows.head(1))).get_response()["parameters"] == {"phase": "staging"}


@pytest.mark.slow
def test_workers_share_the_port(registered):
    home, form, rows, expected = registered
    with running(home, workers=2) as (_, address, _):
        for i in range(12):  # a connection each, so that both are asked
            with client_grpc.InferenceServerClient(address, channel_args=[("grpc.use_local_subchannel_pool", 1)]) as client:
                assert abs(client.infer("income", tensors(client_grpc.InferInput, form, rows.iloc[[i]])).as_numpy("probability")[0] - expected[i, 1]) <= 1e-9


def test_a_taken_port_is_said(registered):
    home, _, _, _ = registered
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = json.dumps({"grpc": f"127.0.0.1:{taken.getsockname()[1]}", "lines": False, "log": "off"})
        done = subprocess.run([sys.executable, "-c", START, str(home), options], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "choose a free port" in done.stderr + done.stdout


def test_answers_are_in_the_prediction_log_and_the_metrics(registered):
    import sqlite3

    home, form, rows, expected = registered
    with running(home) as (web, address, _), client_grpc.InferenceServerClient(address) as client:
        said = client.infer("income", tensors(client_grpc.InferInput, form, rows.head(3)), parameters={"subject": "ada"})
        number = said.as_numpy("prediction_id")[0].decode()
        connection = http.client.HTTPConnection(web)
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        connection.close()
    assert 'route="grpc ModelInfer"' in metrics
    with contextlib.closing(sqlite3.connect(home / "predictions.db")) as base:
        found = base.execute("SELECT subject, version, inputs, output FROM predictions WHERE id = ?", [number]).fetchone()
    assert found[:2] == ("ada", 1) and json.loads(found[2])["age"] == rows.age.iloc[0] and abs(json.loads(found[3])["probability"] - expected[0, 1]) <= 1e-9


NASTY_NUMBERS = [0, -1, 1, 2, 3, 7, 255, 300, 2**31 - 1, -(2**31)]
NASTY_FLOATS = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-300, 44.0]
NASTY_TEXTS = [b"", b"\x00", b"\xff\xfe", b"Private", b"x" * 3000, "\u202e\U0001f600".encode(), b"NaN", b"1e999", b"-inf", b"null"]


def broken_message(dice: random.Random, form: Schema, good: bytes) -> bytes:
    """Something that a careless or hostile client may send as a ModelInferRequest."""
    kind = dice.randrange(4)
    if kind == 0:
        return dice.randbytes(dice.choice([0, 1, 5, 60, 2000]))
    if kind == 1:
        data = bytearray(good)
        for _ in range(dice.choice([1, 2, 8, 40])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data[: dice.choice([len(data), dice.randrange(len(data))])])
    asked = pb.ModelInferRequest.FromString(good)
    asked.model_name = dice.choice(["income", "income", "income", "", "x" * 5000])
    asked.model_version = dice.choice(["", "", "1", "0", "-1", "9" * 50, "1.0"])
    for _ in range(dice.choice([1, 1, 3])):
        given = asked.inputs[dice.randrange(len(asked.inputs))]
        what = dice.randrange(6)
        if what == 0:
            given.shape[:] = dice.choice([[], [0], [-1], [2], [1, 1], [1, 2], [2**62], [2**62, 4], [1] * 1000, [-(2**63)]])
        elif what == 1:
            given.name = dice.choice(["", "age", "x" * 9000, "workclass", "\x00"])
        elif what == 2:
            given.datatype = dice.choice([*DATATYPES, "", "FP128", "x" * 9000])
        elif what == 3:
            contents = given.contents
            contents.Clear()
            name = dice.choice([f.name for f in contents.DESCRIPTOR.fields])
            nasty = NASTY_TEXTS if name == "bytes_contents" else NASTY_FLOATS if name.startswith("fp") else [True, False] if name.startswith("b") else NASTY_NUMBERS
            values = [v for v in dice.choices(nasty, k=dice.choice([1, 1, 2, 1001])) if not (name.startswith("u") and v < 0)]
            getattr(contents, name).extend(values)
        elif what == 4:
            asked.inputs.add().CopyFrom(given)
        else:
            for each in asked.inputs:
                each.ClearField("contents")
                asked.raw_input_contents.append(dice.choice([b"", struct.pack("<d", dice.choice(NASTY_FLOATS)), b"\x05\0\0\0hello", b"\xff\xff\xff\xff", b"\x00", dice.randbytes(9)]))
    return asked.SerializeToString()


def broken_body(dice: random.Random, good: bytes) -> tuple[bytes, dict]:
    """Something that a careless or hostile client may post to the infer route."""
    kind = dice.randrange(5)
    headers = {} if dice.random() < 0.7 else {"Inference-Header-Content-Length": dice.choice(["0", "-1", "x", "1", str(len(good)), "9" * 30, str(dice.randrange(len(good)))])}
    if kind == 0:
        return dice.randbytes(dice.choice([0, 1, 60, 2000])), headers
    if kind == 1:
        data = bytearray(good)
        for _ in range(dice.choice([1, 2, 8])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data[: dice.choice([len(data), dice.randrange(len(data))])]), headers
    if kind == 2:
        return dice.choice([b"[" * 50_000, b'{"inputs":' * 5_000, b"null", b'{"inputs": null}', b'{"inputs": [{}]}', b'"' + b"x" * 10**5, b"1e999"]), headers
    asked = json.loads(good)
    given = dice.choice(asked["inputs"])
    given[dice.choice(["name", "shape", "datatype", "data", "parameters"])] = dice.choice(
        [None, 0, -1, 1.5, "", "age", "x" * 9000, [], [1], [2], [[1]], [[[1]]], [None], ["a"], [True], [1e308], [10**300], {}, {"binary_data_size": -1}, {"binary_data_size": 1e9}, {"binary_data_size": True}, [2**63], [math.nan], [-math.inf]]
    )
    if kind == 4:
        asked[dice.choice(["id", "parameters", "outputs", "inputs"])] = dice.choice([None, 0, "x" * 9000, [], {}, [{"name": "decision", "parameters": {"binary_data": 1}}], {"binary_data_output": "yes"}, {"subject": 7}, asked["inputs"] * 2])
    return json.dumps(asked).encode(), headers


@pytest.mark.parametrize("n", [pytest.param(600, id="few"), pytest.param(10_000, id="many", marks=pytest.mark.deep)])
def test_nothing_that_a_client_sends_breaks_the_service(registered, service, n):
    _, form, rows, expected = registered
    web, address, pid = service
    dice, good = random.Random(n), typed(form, rows.head(1))
    seen: dict[str, int] = {}

    async def ask_all() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            one, many = channel.unary_unary(f"/{SERVICE}/ModelInfer"), channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
            for _ in range(n // 10):
                batch = [broken_message(dice, form, good.SerializeToString()) for _ in range(10)]
                for answer in await asyncio.gather(*map(one, batch), return_exceptions=True):
                    code = answer.code().name if isinstance(answer, grpc.aio.AioRpcError) else "OK" if isinstance(answer, bytes) else repr(answer)
                    seen[code] = seen.get(code, 0) + 1
                told = [pb.ModelStreamInferResponse.FromString(data) async for data in many(iter(batch))]
                assert len(told) == 10 and all(bool(t.error_message) != bool(t.infer_response.outputs) for t in told)

    before = memory(pid)
    asyncio.run(ask_all())
    assert set(seen) <= ALLOWED | {"OK"} and seen["INVALID_ARGUMENT"] > n / 2, seen
    plain = {"inputs": [{"name": f.name, "shape": [1], "datatype": "BYTES" if f.kind == "category" else "FP64", "data": [None if f.name != "age" else 44]} for f in form.fields]}
    codes: dict[int, int] = {}
    connection = http.client.HTTPConnection(web, timeout=30)
    for _ in range(n):
        body, headers = broken_body(dice, json.dumps(plain).encode())
        connection.request("POST", "/v2/models/income/infer", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        codes[answer.status] = codes.get(answer.status, 0) + 1
        assert answer.status == 200 or json.loads(said)["error"], said
    connection.close()
    assert set(codes) <= {200, 400, 413, 422} and codes[400] > n / 3, codes
    assert memory(pid) - before < 100
    with client_grpc.InferenceServerClient(address) as client:
        assert abs(client.infer("income", tensors(client_grpc.InferInput, form, rows.head(1))).as_numpy("probability")[0] - expected[0, 1]) <= 1e-9


def test_both_readings_of_a_message_agree(registered):
    """Typed and raw contents of one request give the same columns."""
    _, form, rows, _ = registered
    said = request_of(typed(form, rows))
    raw = pb.ModelInferRequest(model_name="income")
    for one in tensors(client_grpc.InferInput, form, rows):
        raw.inputs.add().ParseFromString(one._get_tensor().SerializeToString())
        raw.raw_input_contents.append(one._get_content())
    other = request_of(raw)
    assert list(said.columns) == list(other.columns)
    for name, values in said.columns.items():
        assert all(a == b or (a != a and b != b) for a, b in zip(values, other.columns[name], strict=True)), name
