"""What careless and hostile clients send over HTTP: it is answered or cut off, never a 500, and the next honest request is answered. Seeds are printed."""

import concurrent.futures
import contextlib
import http.client
import json
import random
import re
import secrets
import socket
import string
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.serving import test_rest

made, sample, serving = test_rest.made, test_rest.sample, test_rest.serving
DOCUMENTED = {200, 204, 400, 401, 403, 404, 408, 413, 415, 422, 503}
HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(scope="module")
def server(made):
    with serving(made, "income@staging", "--limit", "receive=2", "--log", "off") as one:
        yield one
        assert one.process.poll() is None and "Traceback" not in one.said.read_text()


def memory(server: test_rest.Server) -> float:
    """MB in use."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096 / 1e6


def well(server: test_rest.Server, sample: dict) -> None:
    """An honest request is answered, and right."""
    code, said, _ = server.predict(sample.rows[:1])
    assert code == 200 and abs(said["predictions"][0]["probability"] - sample.expected[0][1]) < 1e-9


# -- by the description ------------------------------------------------------------------------------------------------

# What a schema can't say: a text that reads as a number is taken for one, and subjects must be as many as rows.
LEFT_OUT = "negative_data_rejection,positive_data_acceptance"


@pytest.mark.parametrize("n", [pytest.param(3, id="few"), pytest.param(300, id="many", marks=pytest.mark.deep)])
def test_answers_are_those_that_the_description_promises(server, sample, tmp_path, n):
    seed, (host, port) = secrets.randbelow(10**6), server.address
    tool = Path(sys.executable).with_name("schemathesis")
    how = ["--max-examples", str(n), "--seed", str(seed), "--exclude-checks", LEFT_OUT, "--continue-on-failure", "--warnings", "off", "--no-color"]
    phases = ["--phases", "examples,fuzzing" if n < 10 else "examples,coverage,fuzzing,stateful"]
    done = subprocess.run([tool, "run", f"http://{host}:{port}/openapi.json", *how, *phases], cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tested = int(re.search(r"Tested: (\d+)", done.stdout)[1])
    print(f"seed {seed}: {tested} operations", re.search(r"\d+ generated.*", done.stdout)[0])
    assert tested == sum(len(methods) for methods in server.get("/openapi.json")[1]["paths"].values())
    well(server, sample)


def test_pages_ask_nothing_of_others(server):
    code, page, headers = server.get("/docs")
    assert code == 200 and "<script" not in page["text"] and not re.search(r"(src|href)=.?(https?:)?//", page["text"])
    assert headers["content-security-policy"].startswith("default-src 'none'")
    for path, methods in server.get("/openapi.json")[1]["paths"].items():
        assert all(f"<h2>{method.upper()} {path}</h2>" in page["text"] for method in methods)
    assert server.get("/redoc")[0] == 404


# -- random requests ---------------------------------------------------------------------------------------------------

VALUES = [
    "null", "true", "-1", "0", "-0.0", "38.5", "1e15", "1e308", "1e309", "-1e400", "9" * 30, "9" * 400, "9" * 5000, "0." + "0" * 5000 + "1", "NaN", "Infinity", "-Infinity",
    '""', '"39"', '" 39 "', '"NaN"', '"1e999"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\x00"', '"2026-13-45"', '"' + "x" * 5000 + '"',
    "[]", "{}", "[[]]", '{"a": {"b": []}}', "undefined", "'x'", "0x10", "01", "+1", "1_000", '"\\x41"', '"unended', '{"age": 38, "age": 39}',
]  # fmt: skip
BYTES = [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\xef\xbb\xbf", b"\x1b[2J", "\u202e".encode()]
PATHS = [
    "/v1/predict", "/v1/predict/", "/v1//predict", "/v1/predict?x=1", "/V1/PREDICT", "/v2/models/income/infer", "/v2/models/income/versions/1/infer", "/v2/models/income/versions/99/infer", "/v2/models//infer",
    "/v2/models/income/versions/" + "9" * 400, "/v2/models/%ff%fe/infer", "/v2/models/income%2Finfer", "/v2/models/%00/ready", "/v2/models/" + "x" * 5000, "/../../etc/passwd", "/%2e%2e/", "/metrics", "/docs", "/openapi.json", "/v1/models", "*", "//", "/v2",
]  # fmt: skip
HEADERS = [
    ("Content-Encoding", "gzip"), ("Content-Encoding", "identity"), ("Content-Type", "text/xml"), ("Content-Type", "application/json; charset=utf-16"), ("Accept", "image/png"), ("Inference-Header-Content-Length", "x"),
    ("Inference-Header-Content-Length", "-1"), ("Inference-Header-Content-Length", "9" * 30), ("Inference-Header-Content-Length", "5"), ("X-API-Key", "\xff" * 50), ("Authorization", "Bearer"), ("Authorization", "Basic eDp5"),
    ("Expect", "100-continue"), ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Range", "bytes=0-1"), ("X-Forwarded-For", "1.2.3.4"), ("Cookie", "a=" * 4000), ("X-HTTP-Method-Override", "DELETE"),
]  # fmt: skip


def nested(dice: random.Random) -> str:
    """JSON in JSON; the depths around an interpreter's own limit among them."""
    depth = dice.choice([2, 30, dice.randrange(850, 1010), dice.randrange(1010, 20_000), 100_000])
    return dice.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])


def odd_text(dice: random.Random, good: str) -> str:
    """A request with something in the place of a value, a key, or anything else."""
    value = dice.choice(VALUES) if dice.random() < 0.8 else nested(dice)
    kind = dice.randrange(7)
    if kind < 3:  # a value
        spans = [m.span(1) for m in re.finditer(r': ("[^"]*"|\d+\.?\d*|null|\[[^\[\]{}]*\])', good)]
        begin, end = dice.choice(spans)
        return good[:begin] + value + good[end:]
    if kind == 3:  # a key: renamed, doubled, one more
        key = dice.choice(re.findall(r'"\w+": ', good))
        return good.replace(key, dice.choice([f'"{"k" * dice.choice([1, 90, 3000])}": ', f"{key} {value}, {key}", f'"more": {value}, {key}', '"": ', f'"{key[1:4]}\\u0000": ']), 1)
    if kind == 4:  # a piece out, or in
        at = dice.randrange(len(good))
        return good[:at] + dice.choice(["", value, "".join(dice.choices(string.printable, k=9))]) + good[at + dice.choice([0, 1, 30]) :]
    if kind == 5:
        return good[:-1] + f', "{dice.choice(["subjects", "parameters", "outputs", "rows", "id"])}": {value}}}'
    return dice.choice([value, f'{{"rows": {value}}}', f'{{"rows": [{value}]}}', f'{{"inputs": {value}}}', f'{{"inputs": [{value}]}}'])


def odd_request(dice: random.Random, rows: str, tensors: str, binary: tuple[bytes, str]) -> tuple[str, str, bytes, dict]:
    """Method, path, body and headers of something that isn't quite a request."""
    method, path, headers = "POST", dice.choice(["/v1/predict", "/v1/predict", "/v2/models/income/infer"]), {}
    body = odd_text(dice, rows if path == "/v1/predict" else tensors).encode()
    kind = dice.randrange(8)
    if kind == 0:
        at = dice.randrange(len(body) + 1)
        body = body[:at] + dice.choice(BYTES) + body[at + dice.choice([0, 1, 3]) :]
    elif kind == 1:
        body = dice.choice([dice.randbytes(dice.choice([0, 1, 300, 60_000])), body.decode().encode("utf-16"), b" " * 500_000 + body, b"x" * (1 << 20 | 1)])
    elif kind == 2:
        method, path = dice.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "POST", "PROPFIND"]), dice.choice(PATHS)
    elif kind == 3:
        headers = dict(dice.sample(HEADERS, dice.choice([1, 2, 4])))
    elif kind == 4:
        path, (body, length) = "/v2/models/income/infer", binary
        headers["Inference-Header-Content-Length"] = dice.choice([length, length, str(int(length) + dice.choice([-1, 1, 8])), str(len(body)), "0", str(len(body) + 1)])
        data = bytearray(body)
        for _ in range(dice.choice([1, 3, 20])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        body = bytes(data[: dice.choice([len(data), dice.randrange(len(data))])])
    return method, path, body, headers


def tensors_of(row: dict) -> tuple[str, tuple[bytes, str]]:
    """A row as tensors in JSON, and with its numbers in binary."""
    inputs = [{"name": k, "shape": [1], "datatype": "FP64" if isinstance(v, int) else "BYTES", "data": [v]} for k, v in row.items()]
    said = json.dumps({"inputs": inputs, "outputs": [{"name": "probability"}], "id": "7", "parameters": {"subject": "ada"}})
    raw = b""
    for one in inputs:
        data = struct.pack("<d", one["data"][0]) if one["datatype"] == "FP64" else struct.pack("<I", len(one["data"][0])) + one["data"][0].encode()
        del one["data"]
        one["parameters"], raw = {"binary_data_size": len(data)}, raw + data
    text = json.dumps({"inputs": inputs}).encode()
    return said, (text + raw, str(len(text)))


@pytest.mark.parametrize("n", [pytest.param(500, id="few"), pytest.param(20_000, id="many", marks=pytest.mark.deep)])
def test_random_requests(server, sample, n):
    seed = secrets.randbelow(10**6)
    dice, row, seen = random.Random(seed), next(r for r in sample.rows if None not in r.values()), {}
    rows, (tensors, binary) = json.dumps({"rows": [row, row]}), tensors_of(row)
    assert server.ask("POST", "/v2/models/income/infer", binary[0], {"Inference-Header-Content-Length": binary[1]})[0] == 200
    assert server.ask("POST", "/v2/models/income/infer", tensors)[0] == server.ask("POST", "/v1/predict", rows)[0] == 200
    before, connection = memory(server), http.client.HTTPConnection(*server.address, timeout=30)
    for turn in range(n):
        method, path, body, headers = odd_request(dice, rows, tensors, binary)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
        except ConnectionError:  # refused while its body was on the way
            connection.close()
            seen[0] = seen.get(0, 0) + 1
            continue
        said, code, where = answer.read(), answer.status, (seed, turn, method, path[:80], body[:200], headers)
        seen[code] = seen.get(code, 0) + 1
        assert code in DOCUMENTED | {405} and not (method == "POST" and path == "/v1/predict" and code in (404, 405)), (code, said[:300], where)
        if code >= 400 and method != "HEAD" and answer.getheader("content-type") == "application/json":
            error = json.loads(said)["error"]
            assert 10 < len(error) < 2000 and "Traceback" not in error, where
        elif code >= 400 and method != "HEAD":
            assert (code, said) == (400, b"Invalid HTTP request received."), where
        if turn % 100 == 0:
            well(server, sample)
    connection.close()
    well(server, sample)
    print(f"seed {seed}: {seen}, {memory(server) - before:+.0f} MB")
    assert seen.get(0, 0) < n / 50
    assert memory(server) - before < 100 and {200, 400, 405, 413, 415, 422} <= set(seen)


@pytest.mark.parametrize("depth", [20, 900, 940, 960, 980, 990, 1000, 1010, 100_000])
def test_nesting_of_any_depth_is_refused(server, sample, depth):
    rows = json.dumps({"rows": sample.rows[:1]})
    tensor = '{"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [1], "parameters": %s}], "parameters": {"subject": %s}}'
    for deeper in range(depth, depth + 10):
        for value in ("[" * deeper + "]" * deeper, '{"a":' * deeper + "1" + "}" * deeper):
            for path, body in (
                ("/v1/predict", re.sub(r'"age": \d+', f'"age": {value}', rows)), ("/v1/predict", f'{{"rows": [{value}]}}'), ("/v1/predict", f'{rows[:-1]}, "subjects": {value}}}'), ("/v1/predict", value),
                ("/v2/models/income/infer", tensor % ("{}", value)), ("/v2/models/income/infer", tensor % (f'{{"binary_data_size": {value}}}', "null")),
            ):  # fmt: skip
                code, said, _ = server.ask("POST", path, body)
                assert code in (400, 422) and said["error"], (deeper, path, body[:80], said)


def test_a_compressed_body_is_refused_with_a_sentence(server, sample):
    body = json.dumps({"rows": sample.rows[:1]})
    for name in ("gzip", "br", "gzip, identity"):
        code, said, _ = server.ask("POST", "/v1/predict", body, {"Content-Encoding": name})
        assert code == 415 and said["error"] == f"Content-Encoding {name} isn't read here; send the body as it is"
    assert server.ask("POST", "/v1/predict", body, {"Content-Encoding": "identity"})[0] == 200


# -- below HTTP --------------------------------------------------------------------------------------------------------


def open_to(server: test_rest.Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=20)


def answers(connection: socket.socket, n: int) -> list[tuple[int, bytes]]:
    """The next answers of a connection."""
    file, found = connection.makefile("rb"), []
    for _ in range(n):
        code, length = int(file.readline().split()[1]), 0
        while (line := file.readline()) != b"\r\n":
            length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
        found.append((code, file.read(length)))
    return found


def test_pipelined_requests_are_answered_in_order(server, sample):
    bodies = [json.dumps({"rows": sample.rows[i : i + 1]}).encode() for i in range(20)]
    with open_to(server) as connection:
        connection.sendall(b"".join(HEAD + b"content-length: %d\r\n\r\n%b" % (len(b), b) for b in bodies))
        said = answers(connection, 20)
    assert [code for code, _ in said] == [200] * 20
    assert [json.loads(body)["predictions"][0]["probability"] for _, body in said] == pytest.approx([e[1] for e in sample.expected[:20]], abs=1e-9)


@pytest.mark.slow
def test_half_open_connections_and_bodies_of_another_length(server, sample):
    body = json.dumps({"rows": sample.rows[:1]}).encode()
    left = [open_to(server) for _ in range(150)]  # they say nothing, or half of something, and leave or stay
    for number, connection in enumerate(left):
        said = [b"", b"P", HEAD, HEAD + b"content-length: 500\r\n\r\n{", HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{"][number % 5]
        connection.sendall(said)
        if number % 3 == 0:
            connection.shutdown(socket.SHUT_WR)
        elif number % 3 == 1:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a farewell
            connection.close()
    well(server, sample)
    with open_to(server) as longer:  # what is over is no request, and who knows then what the first part was
        longer.sendall(HEAD + b"content-length: %d\r\n\r\n%b}}}" % (len(body), body))
        assert answers(longer, 1)[0][0] == 400
    with open_to(server) as shorter:
        shorter.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body) + 5, body))
        assert answers(shorter, 1)[0][0] == 408
    with open_to(server) as halved:
        halved.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body) - 5, body[:-5]))
        assert answers(halved, 1)[0][0] == 400
    well(server, sample)
    for connection in left:
        with connection, contextlib.suppress(OSError):
            while connection.recv(4096):  # answered 408, or cut off
                pass
    server.until(lambda: re.search(r"mlops_nb_in_flight [01]\.0", server.get("/metrics")[1]["text"]))


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("transfer-encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", b"-1\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", b"2\r\n{}oops"),
        ("transfer-encoding: chunked\r\ncontent-length: 2", b"2\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: gzip, chunked, x", b"2\r\n{}\r\n0\r\n\r\n"),
        ("content-length: -1", b"{}"),
        ("content-length: 2\r\ncontent-length: 3", b"{}"),
        ("content-length: " + "9" * 40, b"{}"),
        ("content-length: 1e3", b"{}"),
        (" folded: x", b""),
        ("no colon", b""),
        ("nul: \x00", b""),
    ],
)
def test_what_is_no_http_is_a_400(server, sample, head, body):
    with open_to(server) as connection:
        connection.sendall(HEAD + head.encode() + b"\r\n\r\n" + body)
        assert answers(connection, 1)[0][0] == 400
    well(server, sample)


def pour(server: test_rest.Server, begin: bytes, more: bytes, most: float = 1e8) -> float:
    """MB that a client got rid of before it was cut off."""
    sent = 0
    with open_to(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(begin)
        while sent < most:
            connection.sendall(more)
            sent += len(more)
    return sent / 1e6


@pytest.mark.parametrize("begin", [b"GET /v2 HTTP/1.1\r\n", HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"], ids=["head", "trailer"])
def test_endless_heads_are_cut_off(server, sample, begin):
    before = memory(server)
    for more in (b"a: " + b"x" * 50_000 + b"\r\n", b"x" * 50_000, b"a:b\r\n" * 10_000):
        assert pour(server, begin, more) < 50
    assert memory(server) - before < 50
    well(server, sample)


def test_a_connection_with_too_many_requests_waiting_is_cut_off(server, sample):
    before = memory(server)
    assert pour(server, b"", b"GET /v2/health/live HTTP/1.1\r\n\r\n" * 8000) < 50
    assert memory(server) - before < 50
    well(server, sample)


@pytest.mark.slow
def test_clients_that_never_read_are_cut_off(made, sample):
    body = json.dumps({"rows": sample.rows * 12}).encode()

    def ask_and_never_read() -> None:
        with socket.create_connection(server.address, timeout=30) as connection:
            for _ in range(5000):  # more than any buffer on the way holds
                connection.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))

    with serving(made, "income@staging", "--limit", "receive=1", "--limit", "in_flight=20", "--log", "off") as server:
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            for deaf in [pool.submit(ask_and_never_read) for _ in range(5)]:
                with pytest.raises(ConnectionError):
                    deaf.result()
        server.until(lambda: server.predict(sample.rows[:1])[0] == 200)


@pytest.mark.slow
def test_the_rest_of_a_refused_body_is_not_waited_for(server, sample):
    with open_to(server) as connection:
        connection.sendall(HEAD + b"content-length: 99999999\r\n\r\n")
        assert answers(connection, 1)[0][0] == 413
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < 60:
                connection.sendall(b"x")
                time.sleep(0.1)
    well(server, sample)
