"""What can't be logged is refused, what is answered is found in the log with equal text: all text, every way in, both databases; and what waits for a database stays within its bound."""

import asyncio
import json
import math
import sqlite3
import struct
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.log import test_predictions as test_log
from tests.serving import test_rest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.released import released_file
from mlops_nb.serving import inference_pb2 as pb
from mlops_nb.serving.feedback import FeedbackQueue
from mlops_nb.model.rows import Refused
from mlops_nb.serving.grpc import Inference
from mlops_nb.serving.rest import Rest
from mlops_nb.serving.serve import Options, service_of
from mlops_nb.serving.lines import Line, Lines
from mlops_nb.log.assignment import Experiment, ExperimentPlan, end_experiment, start_experiment
from mlops_nb.log.events import Alerts, Events
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.feedback_file import import_file
from mlops_nb.log.items import BadItem, Item, item_of
from mlops_nb.log.history import History
from mlops_nb.log.predictions import PredictionLog
from mlops_nb.log.values import MOST_TEXT, fitted, text_fault

made, sample, serving, postgres = test_rest.made, test_rest.sample, test_rest.serving, test_log.postgres
ODD = ["", "\0", "a\0b", "\ud800", "a\udfff", "\x01\x7f\x85\ufeff", "\u202eשלום", "김민준", "🧪" * 300, "'); DROP TABLE predictions; --", "é", "e\u0301", "x" * (MOST_TEXT + 1), "🧪" * 20_000]
ALL_TEXT = st.text(st.characters(), max_size=40) | st.sampled_from(ODD) | st.builds(lambda text, n: text * n, st.text(st.characters(), min_size=1, max_size=6), st.integers(1, 2000))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request) -> str:
    return request.getfixturevalue("postgres") if request.param == "postgres" else ""


class Ways:
    """A service in this process, asked the ways that a client can."""

    def __init__(self, root: Path, home: Path, url: str, log: str = "batched"):
        released = released_file(test_rest.settings(root).registry_uri)
        self.service = service_of(Options(released=str(released), model="income", which="staging", home=str(home), log=log, log_url=url, lines=False))
        self.rest, self.grpc, self.loop = Rest(self.service), Inference(self.service), asyncio.Runner()

    def post(self, path: str, body: bytes, headers: tuple = ()) -> tuple[int, dict]:
        said: list[dict] = []

        async def receive() -> dict:
            return {"type": "http.request", "body": body}

        async def send(message: dict) -> None:
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers), "client": None}
        self.loop.run(self.rest(scope, receive, send))
        return said[0]["status"], json.loads(said[1]["body"])

    def plain(self, row: dict, subject: str | None) -> tuple[int, str]:
        code, said = self.post("/v1/predict", json.dumps({"rows": [row], "subjects": [subject]}).encode())
        return code, said["predictions"][0]["id"] if code == 200 else said["error"]

    def tensors(self, row: dict, subject: str | None) -> tuple[int, str]:
        inputs = [{"name": k, "datatype": "BYTES" if isinstance(v, str) else "FP64", "shape": [1], "data": [v]} for k, v in row.items()]
        return self._inferred(*self.post("/v2/models/income/infer", json.dumps({"inputs": inputs, "parameters": {"subject": subject} if subject is not None else {}}).encode()))

    def binary(self, row: dict, subject: str | None) -> tuple[int, str]:
        inputs, parts = [], []
        for name, value in row.items():
            parts.append(_element(value))
            inputs.append({"name": name, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(parts[-1])}})
        head = json.dumps({"inputs": inputs, "parameters": {"subject": subject} if subject is not None else {}}).encode()
        return self._inferred(*self.post("/v2/models/income/infer", head + b"".join(parts), ((b"inference-header-content-length", str(len(head)).encode()),)))

    def call(self, row: dict, subject: str | None) -> tuple[int, str]:
        asked = pb.ModelInferRequest(model_name="income")
        for name, value in row.items():
            asked.inputs.add(name=name, datatype="BYTES", shape=[1])
            asked.raw_input_contents.append(_element(value))
        text = b"" if subject is None else subject.encode(errors="surrogatepass")  # protobuf itself wouldn't write what is no UTF-8
        more = b"" if subject is None else _field(4, _field(1, b"subject") + _field(2, _field(3, text)))
        answer, code, wrong = self.loop.run(self.grpc.infer(asked.SerializeToString() + more, "test", "", ""))
        if code != 200:
            return code, wrong
        place = [o.name for o in answer.outputs].index("prediction_id")
        return code, answer.raw_output_contents[place][4:].decode()

    def _inferred(self, code: int, said: dict) -> tuple[int, str]:
        return code, next(o["data"][0] for o in said["outputs"] if o["name"] == "prediction_id") if code == 200 else said["error"]

    def close(self) -> None:
        self.service.close()
        self.loop.close()


def _element(value: object) -> bytes:
    data = b"" if value is None else str(value).encode(errors="surrogatepass")
    return struct.pack("<I", len(data)) + data


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    length, size = b"", len(data)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


# -- all text, every way in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", ["batched", "strict"])
def test_every_request_is_refused_with_a_sentence_or_found_in_the_log(made, sample, tmp_path, url, log):
    """Subjects and what a feature says: answered exactly when both can be kept."""
    expected, refusals, row = {}, Counter(), dict(sample.rows[30])
    with closing(Ways(made, tmp_path, url, log)) as ways:

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(subject=st.none() | ALL_TEXT, said=ALL_TEXT.filter(lambda text: len(text) < 10_000), way=st.sampled_from(["plain", "tensors", "binary", "call"]))
        def ask(subject, said, way):
            code, what = getattr(ways, way)(row | {"occupation": said}, subject)
            whole = all(text.isascii() or text.encode(errors="replace").decode() == text for text in (subject or "", said))
            if code != 200:
                assert code in (400, 422) and len(what) > 20, (code, what)
                assert not whole or text_fault(subject or ""), (way, subject, said, what)
                refusals[what[:40]] += 1
            else:
                assert whole and not text_fault(subject or "")
                expected[what] = (subject, said or (None if way in ("binary", "call") else said))

        ask()
        for way in ("plain", "tensors", "binary", "call"):
            for text in ODD:
                ask.hypothesis.inner_test(text, "any", way)
                ask.hypothesis.inner_test(None, text[:2000], way)
        assert ways.service.log.flush() and ways.service.log.state().dropped == 0
    logged = {r["id"]: (r["subject"], json.loads(r["inputs"])["occupation"]) for r in History(tmp_path, url).read().to_pylist()}
    assert logged == expected and len(expected) > 50 and sum(refusals.values()) > 20
    assert History(tmp_path, url).roll(datetime.now(UTC).date() + timedelta(days=1)) == len(expected)
    rolled = {r["id"]: (r["subject"], json.loads(r["inputs"])["occupation"]) for r in History(tmp_path, url).read().to_pylist()}
    assert rolled == expected
    name = "\u202eשלום"
    assert History(tmp_path, url).erase(name) == sum(subject == name for subject, _ in expected.values()) > 0


def test_every_number_is_refused_or_found(made, sample, tmp_path, url):
    expected, row = {}, dict(sample.rows[30])
    numbers = st.integers(0, 99) | st.floats(0, 99) | st.floats() | st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([-0.0, 5e-324, 1e308, 10**400, 2**53 + 1, 2**63, math.nan, math.inf])
    with closing(Ways(made, tmp_path, url)) as ways:
        names = [c.name for c in ways.service.model.current.row_schema.columns if c.kind in ("number", "integer")]

        @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(name=st.sampled_from(names), number=numbers, way=st.sampled_from(["plain", "tensors", "binary", "call"]))
        def ask(name, number, way):
            code, what = getattr(ways, way)(row | {name: number}, None)
            assert code == 200 or (code in (400, 413, 422) and len(what) > 20)
            if code == 200:
                expected[what] = (name, None if number != number else float(number))

        for age, way in enumerate(["plain", "tensors", "binary", "call"] * 3, 20):  # each way is taken
            ask.hypothesis.inner_test("age", age, way)
        ask()
        assert ways.service.log.flush() and ways.service.log.state().dropped == 0
    found = {r["id"]: json.loads(r["inputs"]) for r in History(tmp_path, url).read().to_pylist()}
    assert found.keys() == expected.keys() and len(found) > 10
    for key, (name, number) in expected.items():
        value = found[key][name]
        assert value is number is None or (float(value) == number and (isinstance(value, int) or math.copysign(1, value) == math.copysign(1, number)))


def test_a_request_that_the_log_could_never_hold_is_refused(made, sample, tmp_path):
    with closing(Ways(made, tmp_path, "")) as ways:
        ways.service.log.max_bytes = 50_000
        code, said = ways.plain(dict(sample.rows[30]) | {"occupation": "x" * 60_000}, None)
        assert code == 413 and "send fewer rows or shorter texts" in said
        assert ways.plain(dict(sample.rows[30]), None)[0] == 200
        assert ways.service.log.flush() and ways.service.log.state() == (1, 0, 0, None)


@given(text=ALL_TEXT, most=st.integers(4, 3000))
def test_what_is_made_to_fit_can_be_kept(text, most):
    assert text_fault(fitted(text, most), most) is None
    assert text_fault(text, most) or fitted(text, most) == text


# -- feedback, alerts, experiments ---------------------------------------------------------------------------------------


def test_every_item_of_feedback_is_refused_or_found(made, sample, tmp_path, url):
    moments = st.none() | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=23, minutes=59)), timezone(-timedelta(hours=23, minutes=59))]))
    with closing(Ways(made, tmp_path, url)) as ways:
        keys = iter([ways.plain(dict(sample.rows[30]), "ann")[1] for _ in range(120)])
        assert ways.service.log.flush()
        expected, refused = {}, 0

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(comment=ALL_TEXT, label=st.sampled_from(["<=50K", ">50K"]) | ALL_TEXT, at=moments)
        def give(comment, label, at):
            nonlocal refused
            key = next(keys)
            item = {"id": key, "rating": 3, "comment": comment} | ({"label": label} if label in ("<=50K", ">50K") else {}) | ({"at": at.isoformat()} if at else {})
            code, said = ways.post("/v1/feedback", json.dumps(item).encode())
            assert code == 200 or (code in (400, 422) and len(said["error"]) > 20), (code, said)
            refused += code != 200
            if code == 200:
                assert said["counts"]["accepted"] == 1
                expected[key] = comment or None

        give()
    found = {r["id"]: r["comment"] for r in Feedback(tmp_path, url).ratings().to_pylist()}
    assert found == expected and expected and refused


def test_a_file_of_feedback_with_texts_that_no_database_holds(tmp_path, url):
    with closing(PredictionLog(tmp_path, url)) as log:
        log.put([test_log.record(n, datetime.now(UTC).date())._replace(output=b'{"decision": ">50K", "probabilities": {"<=50K": 0.4, ">50K": 0.6}}') for n in range(3)])
    file = tmp_path / "\udcff said.jsonl"  # a name that is no UTF-8
    file.write_text("".join(json.dumps({"id": f"p{n:07}", "label": ">50K", "comment": c}) + "\n" for n, c in enumerate(["fine", "a\0b", "x" * 3000])))
    done = import_file(Feedback(tmp_path, url), file)
    assert done.counts["accepted"] == 1 and done.counts["refused"] == 2 and "none of them NUL" in done.examples[0]


@pytest.mark.parametrize("field, value", [("comment", "\ud800"), ("label", "\ud800"), ("comment", "a\0b"), ("comment", "x" * 2001), ("label", "y" * 1001), ("id", "i" * 201), ("at", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))])
def test_an_item_that_cannot_be_kept_says_which_field(field, value):
    with pytest.raises(BadItem) as refused:
        item_of({"id": "p1", "rating": 3} | {field: value})
    assert refused.value.field == field


def test_people_and_their_words_are_refused_beyond_a_length(tmp_path, url):
    alerts = Alerts(tmp_path, url)
    alert = alerts.raise_("income/drift", "drift \0\ud800", "cause " * 10**5, model="m" * 10**4)
    assert len(alert.cause) == 2000 and len(alert.model) == 200
    for by, note, said in (("a" * 201, "seen", "201 characters; expected at most 200"), ("ann", "n" * 2001, "2,001 characters; expected at most 2,000"), ("a\0", "seen", "NUL"), ("ann", "\ud800", "half a character")):
        with pytest.raises(MlopsError, match=said):
            alerts.acknowledge(alert.id, by, note)
    assert alerts.acknowledge(alert.id, "ann", "n" * 2000).note == "n" * 2000
    Events(tmp_path, url).add("k" * 300 + "\ud800", "\0" * 5000, "model\0")
    assert len(Events(tmp_path, url).list()) == 3
    start_experiment(tmp_path, Experiment("trees", "income", {"a": 1, "b": 2}, {"a": 0.5, "b": 0.5}, "salt", ExperimentPlan("accuracy", 0.1)), [1, 2])
    for reason, said in (("r" * 2001, "2,001 characters"), ("\ud800", "half a character")):
        with pytest.raises(MlopsError, match=said):
            end_experiment(tmp_path, "income", reason)
    with pytest.raises(MlopsError, match="no prediction can be about this subject.*half a character"):
        History(tmp_path, url).erase("\ud800")


# -- one bad row costs no other ------------------------------------------------------------------------------------------


def test_what_a_trigger_or_an_index_refuses_costs_no_other(tmp_path, postgres):
    """Causes that nobody who asks knows of: the log's owner has added rules of their own."""
    import psycopg

    with closing(PredictionLog(tmp_path, postgres)) as log:
        log.put([test_log.record(0)])
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE INDEX ON predictions (subject)")
        connection.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.arm = 'poison' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$")
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON predictions FOR EACH ROW EXECUTE FUNCTION no()")
    noise = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(9000))  # doesn't compress into a page of the index
    bad = {17: {"arm": "poison"}, 60: {"subject": noise}}
    log = PredictionLog(tmp_path, postgres)
    log.put([test_log.record(n)._replace(**bad.get(n, {})) for n in range(1, 100)])
    assert log.flush() and log.state() == (97, 0, 2, None)
    log.put([test_log.record(100)])
    log.close()
    assert test_log.ids(tmp_path, postgres) == [test_log.record(n).id for n in range(101) if n not in bad]
    assert sum(e["rows"] for e in History(tmp_path, postgres).events() if e["kind"] == "dropped") == 2


def test_feedback_that_cannot_be_kept_costs_no_other(tmp_path):
    with closing(PredictionLog(tmp_path)) as log:
        log.put([test_log.record(n, datetime.now(UTC).date())._replace(output=b'{"decision": 1.5}') for n in range(6)])
    feedback = Feedback(tmp_path)
    assert feedback.put([Item("p0000000", label=1)])[0].verdict == "accepted"
    with closing(sqlite3.connect(tmp_path / "predictions.db")) as connection:
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON feedback WHEN NEW.comment = 'poison' BEGIN SELECT RAISE(ABORT, 'not this one'); END")

    async def all_at_once() -> list:
        queue = FeedbackQueue(feedback, "income")
        said = await asyncio.gather(*(queue.put([Item(f"p{n:07}", rating=3, comment="poison" if n == 3 else "fine")], "test") for n in range(6)), return_exceptions=True)
        queue.close()
        return said

    said = asyncio.run(all_at_once())
    assert isinstance(said[3], Refused) and said[3].status == 422 and "can't hold this" in str(said[3])
    assert [v[0].verdict for n, v in enumerate(said) if n != 3] == ["accepted"] * 5


def test_half_a_character_in_a_line_costs_no_other():
    written: list[bytes] = []
    lines = Lines(written.append, pause=0.01)
    with lines.lock:  # one batch
        for n in range(5):
            lines.put(Line(1.0, "r", 400, 0.1, error="\ud800" if n == 2 else "fine"))
    lines.close()
    said = [json.loads(line) for line in b"".join(written).splitlines()]
    assert [line["error"] for line in said] == ["fine", "fine", "\ud800", "fine", "fine"] and lines.dropped == 0


# -- within the bound ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["id", "model", "arm", "subject", "inputs", "output", "flags", "version", "wide"])
def test_every_byte_that_waits_counts(tmp_path, field):
    home, bound = tmp_path / "home", 6_000_000
    home.write_text("in the way")
    makes = {"version": lambda n: 10**20_000 + n, "wide": lambda n: f"{n:05}" + "🧪" * 20_000, "inputs": lambda n: b"%05d" % n * 4000, "output": lambda n: b"%05d" % n * 4000, "flags": lambda n: b"%05d" % n * 4000}
    make = makes.get(field, lambda n: f"{n:05}" * 4000)
    log = PredictionLog(home, max_bytes=bound)
    test_log.wait_for(lambda: log._thread.is_alive())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(1500):
            log.put([test_log.record(n)._replace(**{"subject" if field == "wide" else field: make(n)})])
        test_log.wait_for(lambda: log.state().error is not None)
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        log.close(1)
    assert bound / 4 < took < 1.3 * bound and log.state().dropped > 500, took


def test_small_records_take_what_is_counted(tmp_path):
    home = tmp_path / "home"
    home.write_text("in the way")
    log = PredictionLog(home, max_bytes=3_000_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(20_000):
            log.put([test_log.record(n)._replace(subject=f"person {n}", inputs=b'{"age": %d}' % n, output=b'{"probability": %d}' % n, flags=b"[%d]" % n)])
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        log.close(1)
    assert took < 1.3 * log.max_bytes and log.state().dropped > 1000, took


def test_what_the_writer_holds_counts_too(tmp_path):
    """A commit that takes for ever: rows in the writer's hands and those that wait stay within one bound, and the newest are kept."""
    begun, go_on = threading.Event(), threading.Event()

    class Stuck(test_log.Sqlite):
        def insert(self, connection, records):
            begun.set()
            assert go_on.wait(60)
            super().insert(connection, records)

    log = PredictionLog(tmp_path, max_rows=300)
    log._database = Stuck(tmp_path / "predictions.db")
    log.put([test_log.record(n) for n in range(300)])
    assert begun.wait(60)
    for n in range(300, 2000):
        log.put([test_log.record(n)])
        assert log.state().waiting <= 300
    assert log.state().waiting == 300 and log.state().dropped == 1700
    go_on.set()
    assert log.flush(60)
    log.close()
    held = test_log.ids(tmp_path)
    assert len(held) == 300 and held[-1] == test_log.record(1999).id


def test_lines_that_cannot_be_written_stay_within_their_bound():
    go_on = threading.Event()

    def write(data: bytes) -> None:
        go_on.wait(60)

    lines = Lines(write, pause=0.001, most=4_000_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(3000):
            lines.put(Line(time.time(), "r", 400, 0.1, error=f"{n:05}" * 2000, ids=[f"{n:032x}"]))
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        go_on.set()
    lines.close()
    assert took < 2.2 * 4_000_000 and lines.dropped > 1000, took  # what is being written is there twice


def dropped(server: test_rest.Server) -> float:
    """Records that its log has let go of."""
    figures = server.get("/metrics")[1]["text"]
    return float(figures.split("\nmlops_nb_log_dropped ")[1].split()[0])


@pytest.mark.slow
def test_a_service_whose_database_is_away_stays_within_its_bound(made, sample, tmp_path):
    """1,500 requests with subjects of 900 kB are refused, 1,500 whose features say 40 kB are answered; the process grows by less than twice the log's bound."""
    root = test_rest.copied(made, tmp_path / "project")
    row = dict(sample.rows[30])
    with serving(root, "income@staging") as server:

        def resident() -> int:
            return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096

        for _ in range(200):
            assert server.predict([row])[0] == 200
        time.sleep(0.5)  # they are written down
        with closing(sqlite3.connect(root / ".mlops/predictions.db", isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            before = resident()
            for n in range(1500):
                code, said, _ = server.ask("POST", "/v1/predict", {"rows": [row], "subjects": [f"{n:09}" * 100_000]})
                assert code == 400 and "expected at most 1,000" in said["error"]
            refused = resident() - before
            for n in range(1500):
                code, said, _ = server.predict([row | {"occupation": f"{n:08}" * 5000}])
                assert code == 200
            answered = resident() - before
        server.until(lambda: dropped(server) > 0)
    assert refused < 40e6 and answered < 2 * 64e6, (refused / 1e6, answered / 1e6)
