"""Clients that say half of something, or don't read what they asked for, are in nobody's way; their places and memory come back."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from tests.serving import test_rest
from tests.serving.test_rest import Server, serving

made, sample = test_rest.made, test_rest.sample
HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HALVES = {
    "body": HEAD + b"content-length: 1000\r\n\r\n{",
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
    "head": HEAD,
    "tensors": HEAD.replace(b"/v1/predict", b"/v2/models/income/infer") + b"content-length: 1000\r\n\r\n{",
    "feedback": HEAD.replace(b"/v1/predict", b"/v1/feedback") + b"content-length: 1000\r\n\r\n{",
}


@pytest.fixture(scope="module")
def server(made) -> Iterator[Server]:
    with serving(made, "income@staging", "--limit", "receive=6", "--limit", "in_flight=8", "--log", "off") as one:
        yield one


@contextmanager
def held(server: Server, n: int, said: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have said something and then go quiet."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(server.address, timeout=30)) for _ in range(n)]
        for one in opened:
            with suppress(ConnectionError):  # it was pushed out while it spoke
                one.sendall(said)
        yield opened


def goes_on(server: Server, rows: list) -> None:
    """Predictions, on connections new and kept, and a body in two pieces."""
    kept = http.client.HTTPConnection(*server.address, timeout=20)
    body = json.dumps({"rows": rows}).encode()
    for _ in range(20):
        assert server.predict(rows)[0] == 200
        kept.request("POST", "/v1/predict", body, {"content-type": "application/json"})
        answer = kept.getresponse()
        assert answer.status == 200 and answer.read()
    kept.close()
    with socket.create_connection(server.address, timeout=20) as slow:
        slow.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body[:9]))
        time.sleep(0.05)
        slow.sendall(body[9:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
    code, about, _ = server.get("/v2/health/ready")
    assert code == 200 and about["ready"]


def metric(server: Server, name: str) -> float:
    return float(server.get("/metrics")[1]["text"].split(f"\nmlops_nb_{name} ")[1].split()[0])


@pytest.mark.parametrize("n", [pytest.param(256, marks=pytest.mark.slow), 1000])
def test_withheld_bodies_stop_nobody_and_are_closed(server, sample, n):
    with held(server, n, HALVES["body"]) as waiting:
        goes_on(server, sample.rows[:1])
        assert metric(server, "in_flight") <= 8
        said = []
        for one in waiting:
            said.append(b"".join(iter(lambda: one.recv(4096), b"")))  # noqa: B023 - read at once
    assert all(text.startswith(b"HTTP/1.1 408") and b"connection: close" in text for text in said)
    assert sum(b"an early one" in text for text in said) >= n - 256  # one client has 256 places
    goes_on(server, sample.rows[:1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in HALVES if kind != "body"])
def test_other_halves_stop_nobody_and_are_closed(server, sample, kind):
    with held(server, 300, HALVES[kind]) as waiting:
        goes_on(server, sample.rows[:1])
        for one in waiting:
            with suppress(ConnectionResetError):
                said = b"".join(iter(lambda: one.recv(4096), b""))  # noqa: B023 - read at once
                assert said.startswith(b"HTTP/1.1 408") or (kind == "head" and not said)
    goes_on(server, sample.rows[:1])


def test_many_clients_of_one_address_that_connect_at_once_are_answered(server, sample):
    body = json.dumps({"rows": sample.rows[:1]}).encode()
    with held(server, 400, b"") as connected:  # more than may be half sent by one of them, and none has said a word
        for one in connected:
            one.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            assert one.recv(1000).startswith(b"HTTP/1.1 200")


def test_what_half_sent_bodies_hold_is_bounded_and_given_back(server, sample):
    goes_on(server, sample.rows[:1])
    rounds = [metric(server, "resident_bytes")]
    for _ in range(4):
        with held(server, 250, HEAD + b"content-length: 1000000\r\n\r\n" + b" " * 600_000):  # 150 MB; one client may have 16 MB in half requests
            goes_on(server, sample.rows[:1])
            assert metric(server, "resident_bytes") - rounds[0] < 1.2e8
        time.sleep(2.2)  # it looks at its memory once a second
        rounds.append(metric(server, "resident_bytes"))
    # what closes late on a busy machine is given back late
    server.until(lambda: metric(server, "resident_bytes") - rounds[1] < 3e7)


def test_clients_that_do_not_read_their_answers_stop_nobody(made, sample):
    body = json.dumps({"rows": sample.rows * 12}).encode()
    asked = HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    with serving(made, "income@staging", "--limit", "receive=300", "--limit", "in_flight=4", "--log", "off") as server, held(server, 8, b"") as deaf:
        for one in deaf:
            one.settimeout(1)
            with suppress(TimeoutError):  # until nothing more goes through
                for _ in range(5000):
                    one.sendall(asked)
        goes_on(server, sample.rows[:1])


@pytest.mark.parametrize("said", [pytest.param(b"", marks=pytest.mark.slow), b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"], ids=["silent", "kept"])
def test_idle_connections_leave_file_descriptors_for_others(made, sample, said):
    """More connections than the process may have files, silent, or kept alive after an answer."""
    started = Server(made, "income@staging", "--log", "off", wait=False, within=("sh", "-c", 'ulimit -n 256; exec "$@"', "sh"))
    try:
        server = started
        server.until(lambda: " at http" in server.said.read_text())
        server.address = ("127.0.0.1", int(server.said.read_text().split(" at http://127.0.0.1:")[1].split('"')[0]))
        with held(server, 400, said) as idle:
            goes_on(server, sample.rows[:1])
            assert not said or idle[-1].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        started.stop()
