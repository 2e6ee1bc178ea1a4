"""The Open Inference Protocol's bytes: what goes out comes back, and whatever comes in is read or refused in a sentence."""

import json
import math
import random
import subprocess
import sys

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.model.rows import RowSchema, Refused
from mlops_nb.model.schema import Field, Schema
from mlops_nb.serving.protocol import read_request, rows_of
from mlops_nb.serving.tensors import DATATYPES, Tensor, from_json, from_raw, to_raw

FIELDS = [Field(name="age", kind="integer", nullable=True), Field(name="pay", kind="number", nullable=True), Field(name="job", kind="category", nullable=True, categories=["nurse"])]
SCHEMA = RowSchema(Schema(fields=FIELDS, target="rich"))
FEW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(FEW, max_examples=10_000)


def values_of(datatype: str) -> st.SearchStrategy:
    kind = DATATYPES[datatype]
    if datatype == "BYTES":
        return st.text(min_size=1)
    if datatype == "BOOL":
        return st.booleans()
    return st.floats(width=kind.size * 8, allow_nan=False) if datatype.startswith("FP") else st.integers(kind.low, kind.high)


tensors = st.sampled_from(sorted(DATATYPES)).flatmap(lambda d: st.lists(values_of(d), min_size=1, max_size=20).map(lambda v: Tensor("x", d, [len(v)], v)))


@FEW
@given(tensors)
def test_binary_comes_back(tensor):
    assert list(from_raw("x", tensor.datatype, len(tensor.data), to_raw(tensor))) == list(tensor.data)


@FEW
@given(tensors.filter(lambda t: all(not isinstance(v, float) or math.isfinite(v) for v in t.data)))
def test_json_comes_back(tensor):
    flat = msgspec.json.decode(msgspec.json.encode(tensor.data))
    n = len(flat)
    assert from_json("x", tensor.datatype, n, flat) == from_json("x", tensor.datatype, n, [[v] for v in flat]) == list(tensor.data)


@FEW
@given(tensors, st.binary(max_size=60), st.integers(0, 40))
def test_broken_binary_is_refused(tensor, noise, cut):
    for raw in (noise, to_raw(tensor)[:cut], to_raw(tensor) + noise):
        try:
            assert len(from_raw("x", tensor.datatype, len(tensor.data), raw)) == len(tensor.data)
        except Refused as error:
            assert error.status == 400 and 0 < len(str(error)) <= 400


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "data", "shape", "datatype", "parameters", "binary_data_size", "x"]), inner, max_size=4), max_leaves=12)
inputs = st.fixed_dictionaries(
    {"name": st.sampled_from(["age", "pay", "job"]), "shape": st.just([1]) | json_values, "datatype": st.sampled_from(sorted(DATATYPES)) | st.text(max_size=5), "data": st.lists(json_values, min_size=1, max_size=2)},
    optional={"parameters": json_values},
)
requests = st.fixed_dictionaries({"inputs": st.lists(inputs, max_size=4) | json_values}, optional={"id": json_values, "parameters": json_values, "outputs": json_values})


def read_or_refuse(body: bytes, header: str | None) -> None:
    """What every input must come to."""
    try:
        rows = rows_of(read_request(body, header), SCHEMA)
    except Refused as error:
        assert error.status in (400, 413, 422) and 0 < len(str(error)) <= 1000
    else:
        assert rows and all(len(row) == 3 for row in rows)


def fuzz(asked, noise, header):
    body = json.dumps(asked).encode()
    read_or_refuse(body, None)
    read_or_refuse(body + noise, str(len(body)))
    read_or_refuse(noise + body, header)


arguments = given(requests, st.binary(max_size=30), st.none() | st.text(max_size=6) | st.integers(-5, 500).map(str))
test_requests_are_read_or_refused = FEW(arguments(fuzz))
test_many_requests_are_read_or_refused = pytest.mark.deep(MANY(arguments(fuzz)))


@pytest.mark.parametrize("body", [b"[" * 10**6, b'{"inputs":' * 10**5, b'{"inputs": [{"name": "age", "shape": [1], "datatype": "BYTES", "data": ["' + b"x" * 10**6, b'{"inputs": [' + b'{"name":"","shape":[],"datatype":""},' * 25_000], ids=["arrays", "objects", "text", "inputs"])
def test_floods_are_refused(body):
    with pytest.raises(Refused):
        read_request(body)


def test_each_missing_value_is_missing():
    rows = []
    for age, pay, job in ((("INT64", "null"), ("FP32", "null"), ("BYTES", "null")), (("BYTES", "null"), ("INT8", "null"), ("BOOL", "null"))):
        given_ = [f'{{"name": "{n}", "shape": [1], "datatype": "{d}", "data": [{v}]}}' for n, (d, v) in (("age", age), ("pay", pay), ("job", job))]
        rows += rows_of(read_request(f'{{"inputs": [{", ".join(given_)}]}}'.encode()), SCHEMA)
    parts = [to_raw(t) for t in (Tensor("age", "FP64", [1], [math.nan]), Tensor("pay", "FP16", [1], [math.nan]), Tensor("job", "BYTES", [1], [""]))]
    head = json.dumps({"inputs": [{"name": n, "shape": [1], "datatype": d, "parameters": {"binary_data_size": len(p)}} for n, d, p in zip(("age", "pay", "job"), ("FP64", "FP16", "BYTES"), parts, strict=True)]}).encode()
    rows += rows_of(read_request(head + b"".join(parts), str(len(head))), SCHEMA)
    assert rows == [(None, None, None)] * 3


def test_order_and_repetition_of_inputs():
    data = {"age": (44, "INT64"), "pay": (1.5, "FP64"), "job": ("nurse", "BYTES")}
    for seed in range(6):
        names = random.Random(seed).sample(sorted(data), 3)
        parts = [{"name": n, "shape": [1], "datatype": data[n][1], "data": [data[n][0]]} for n in names]
        assert rows_of(read_request(json.dumps({"inputs": parts}).encode()), SCHEMA) == [(44, 1.5, "nurse")]
        with pytest.raises(Refused, match="twice"):
            read_request(json.dumps({"inputs": [*parts, parts[0]]}).encode())


def test_the_protocol_is_light():
    """A worker that reads tensors imports no pandas, scikit-learn or mlflow."""
    found = "import sys, mlops_nb.serving.grpc; print([m for m in ('pandas', 'sklearn', 'scipy', 'mlflow', 'mlops_nb.stages') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_what_need_not_be_said_may_be_null():
    tensor = {"name": "age", "shape": [1], "datatype": "INT64", "data": [30]}
    wanted = [{"name": "decision"}]
    bare = read_request(json.dumps({"inputs": [tensor], "outputs": wanted}).encode())
    nulls = {"inputs": [tensor | {"parameters": None}], "id": None, "parameters": None, "outputs": [w | {"parameters": None} for w in wanted]}
    assert read_request(json.dumps(nulls).encode()) == bare and bare.id == ""
    assert read_request(json.dumps(nulls | {"outputs": None}).encode()).wanted == {}
