"""Events, alerts and their delivery: several processes, receivers that are down, secrets, the command."""

import concurrent.futures
import email.policy
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.log import test_predictions as test_log
from aiosmtpd.controller import Controller

from mlops_nb.base.errors import MlopsError
from mlops_nb.base.secrets import masker, secrets_of
from mlops_nb.base.settings import load_settings
from mlops_nb.loop.alerts import MOST_TRIES, Courier, Delivered, receivers_of, send
from mlops_nb.log.events import Alerts, Events
from mlops_nb.log.history import History
from mlops_nb.log.tables import Away

postgres = test_log.postgres
SECRET = "json://ada:pass-word-7391@127.0.0.1:9/token-4711-Ab"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request) -> str:
    return request.getfixturevalue("postgres") if request.param == "postgres" else ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def receiver(got: list, port: int = 0, code: int = 200, pause: float = 0.0) -> Iterator[int]:
    """A webhook on this machine; its port."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["content-length"])))
            time.sleep(pause)
            got.append(said)
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


# -- events and alerts -------------------------------------------------------------------------------------------------


def test_an_alert_from_opening_to_its_return(tmp_path, url):
    alerts, events = Alerts(tmp_path, url), Events(tmp_path, url)
    first = alerts.raise_("income/drift/age", "age has drifted", "21% of the rows are older")
    again = alerts.raise_("income/drift/age", "age has drifted", "24% of the rows are older", "critical")
    other = alerts.raise_("income/quality", "accuracy fell", "0.87 to 0.81", model="income")
    assert (first.id, first.count, again.id, again.count, again.severity) == (again.id, 1, first.id, 2, "critical") and again.last > again.opened == first.opened
    assert [a.key for a in alerts.open()] == ["income/drift/age", "income/quality"] and not alerts.open("credit")
    assert alerts.acknowledge(first.id, "Ada", "a campaign").by == "Ada"
    with pytest.raises(MlopsError, match="was acknowledged by Ada already, with the note: a campaign"):
        alerts.acknowledge(first.id, "Bob", "me too")
    with pytest.raises(MlopsError, match=f"there is no alert 999; not acknowledged yet: {other.id}"):
        alerts.acknowledge(999, "Bob", "me too")
    assert alerts.resolve("income/drift/age", "3 calm windows").ending == "3 calm windows" and alerts.resolve("income/drift/age", "again") is None
    back = alerts.raise_("income/drift/age", "age has drifted", "26% of the rows are older")
    assert back.id > first.id and back.count == 1 and back.state == "open" and len(alerts.list()) == 3
    assert [e.kind for e in events.list()] == ["alarm", "alarm", "alarm", "acknowledged", "resolved", "alarm"]
    assert all(e.reason and e.model == "income" for e in events.list()) and events.list()[1].detail["count"] == 2


def test_events_are_found_by_time_kind_and_model(tmp_path, url):
    events = Events(tmp_path, url)
    ids = [events.add("trigger" if n % 2 else "firing", f"reason {n}", "income" if n % 3 else "", n=n, when=datetime.now(UTC)) for n in range(12)]
    assert ids == sorted(set(ids)) and [e.detail["n"] for e in events.list(limit=3)] == [9, 10, 11]
    assert {e.kind for e in events.list(kinds=["trigger"])} == {"trigger"} and len(events.list(kinds=["trigger", "firing"], model="")) == 4
    assert not events.list(since=datetime.now(UTC) + timedelta(minutes=1)) and len(events.list(since=datetime.now(UTC) - timedelta(minutes=1))) == 12
    assert [e.id for e in events.list(after=ids[9])] == ids[10:]
    odd = events.add("refused", "a\0b \ud800 %s ? {}" + "x" * 5000, "income")
    assert len(events.list(after=odd - 1)[0].reason) == 2000
    with pytest.raises(MlopsError, match="expected a kind and a reason in words"):
        events.add("trigger", "")


def test_many_raise_one_alert(tmp_path, url):
    several = [Alerts(tmp_path, url) for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        counts = sorted(a.count for a in pool.map(lambda n: several[n % 4].raise_("income/drift", "drift", "seen"), range(40)))
    assert counts == list(range(1, 41)) and len(several[0].list()) == 1


def test_events_live_beside_the_log_and_outlive_an_erasure(tmp_path, url):
    Events(tmp_path, url).add("trigger", "a reason", "income")
    History(tmp_path, url).erase("nobody")
    assert [e.kind for e in Events(tmp_path, url).list()] == ["trigger"]


def test_database_away(tmp_path):
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(Away, match="nothing of this was kept, try again later"):
        Events(tmp_path / "home").add("trigger", "a reason")


# -- delivery ----------------------------------------------------------------------------------------------------------


def test_one_message_when_opened_and_one_when_resolved(tmp_path, url):
    alerts, got = Alerts(tmp_path, url), []
    with receiver(got) as port:
        courier = Courier(tmp_path, url, f"json://127.0.0.1:{port}/a, json://127.0.0.1:{port}/b")
        for share in (21, 24, 29):
            alerts.raise_("income/drift/age", "age has drifted", f"{share}% of the rows are older")
            courier.deliver()
        assert len(got) == 2, "one a receiver, however often it is raised"
        alerts.acknowledge(1, "Ada", "known")
        alerts.resolve("income/drift/age", "calm")
        assert courier.deliver() == Delivered(2, 0, 0) and courier.deliver() == Delivered(0, 0, 0)
        alerts.raise_("income/drift/age", "age has drifted", "back again")
        assert courier.deliver() == Delivered(2, 0, 0)
    assert [g["title"] for g in got] == ["warning: age has drifted"] * 2 + ["resolved: age has drifted"] * 2 + ["warning: age has drifted"] * 2
    assert "21% of the rows are older" in got[0]["message"] and "mlops-nb alerts ack 1" in got[0]["message"] and "calm" in got[2]["message"]


def test_a_mail_and_a_chat_message_arrive(tmp_path):
    mails, chat = [], []

    class Box:
        async def handle_DATA(self, server, session, envelope):
            mails.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=email.policy.default)))
            return "250 taken"

    postbox = Controller(Box(), hostname="127.0.0.1", port=free_port())
    postbox.start()
    try:
        with receiver(chat) as port:
            urls = f"mailto://127.0.0.1:{postbox.port}?from=ml@shop.example&to=ada@shop.example&mode=insecure, mmost://127.0.0.1:{port}/{'a' * 26}"
            Alerts(tmp_path).raise_("income/drift/age", "age has drifted", "29% of the rows are older", "critical")
            assert Courier(tmp_path, receivers=urls).deliver() == Delivered(2, 0, 0), Events(tmp_path).list()
    finally:
        postbox.stop()
    ((to, mail),) = mails
    assert to == ["ada@shop.example"] and mail["subject"] == "critical: age has drifted"
    assert "29% of the rows are older" in mail.get_body(("plain", "html")).get_content() and "29% of the rows are older" in json.dumps(chat)


def test_down_then_up(tmp_path, url):
    got, bad, now = [], [], time.time()
    alerts = Alerts(tmp_path, url)
    with receiver(bad, code=503) as port:
        courier = Courier(tmp_path, url, f"json://127.0.0.1:{port}/hook")
        alerts.raise_("income/drift/age", "age has drifted", "29% of the rows are older")
        alerts.raise_("income/latency", "slow", "p99 is 80 ms", "critical")
        assert courier.deliver(now) == Delivered(0, 1, 0), "one try, then the receiver is left alone"
        assert courier.deliver(now + 1) == Delivered(0, 1, 0) and courier.deliver(now + 2) == Delivered(0, 0, 0)
    assert courier.deliver(now + 40) == Delivered(0, 1, 0)  # refused now: nobody listens
    alerts.resolve("income/latency", "it is quick again")
    with receiver(got, port) as _:
        assert courier.deliver(now + 10_000) == Delivered(3, 0, 0) and courier.deliver(now + 20_000) == Delivered(0, 0, 0)
    assert [g["title"] for g in got] == ["warning: age has drifted", "critical: slow", "resolved: slow"]
    told = Events(tmp_path, url).list(kinds=["delivered", "undelivered"])
    assert [e.kind for e in told] == ["undelivered"] * 3 + ["delivered"] * 3
    assert "503" in told[0].reason and "Connection error" in told[2].reason and "next try in 30 seconds" in told[0].reason


def test_tries_are_bounded_and_the_alert_stays(tmp_path):
    alerts, courier, now, done = Alerts(tmp_path), Courier(tmp_path, receivers="json://127.0.0.1:9/x"), time.time(), []
    alerts.raise_("income/drift/age", "age has drifted", "29% of the rows are older")
    while not done or not done[-1].given_up:
        now += 3601
        done.append(courier.deliver(now))
        assert len(done) <= MOST_TRIES
    assert len(done) == MOST_TRIES and courier.deliver(now + 10**6) == Delivered(0, 0, 0)
    assert "is left alone now, after 48 tries" in Events(tmp_path).list()[-1].reason and len(alerts.open()) == 1


def test_two_couriers_send_each_message_once(tmp_path, url):
    got = []
    alerts = Alerts(tmp_path, url)
    for n in range(6):
        alerts.raise_(f"income/{n}", f"trouble {n}", "seen")
    with receiver(got, pause=0.02) as port, concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: Courier(tmp_path, url, f"json://127.0.0.1:{port}").deliver(), range(3)))
        done.append(Courier(tmp_path, url, f"json://127.0.0.1:{port}").deliver())
    assert sum(d.sent for d in done) == 6 and sorted(g["title"] for g in got) == [f"warning: trouble {n}" for n in range(6)]


COURIER = """
import sys
from pathlib import Path
from mlops_nb.loop.alerts import Courier
print("begun", flush=True)
Courier(Path(sys.argv[1]), receivers=sys.argv[2]).deliver()
"""


@pytest.mark.slow
def test_killed_while_sending(tmp_path):
    got, alerts = [], Alerts(tmp_path)
    alerts.raise_("income/drift/age", "age has drifted", "seen")
    with receiver(got, pause=2.0) as port:
        address = f"json://127.0.0.1:{port}"
        with subprocess.Popen([sys.executable, "-c", COURIER, str(tmp_path), address], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(1.2)
            process.kill()
    with receiver(got, port):
        assert Courier(tmp_path, receivers=address).deliver() == Delivered(0, 0, 0), "it may still be on its way"
        assert Courier(tmp_path, receivers=address).deliver(time.time() + 200) == Delivered(1, 0, 0)
    assert 1 <= len(got) <= 2


def test_addresses_are_never_shown(tmp_path, monkeypatch, caplog, capsys):
    alerts = Alerts(tmp_path)
    drift = alerts.raise_("income/drift/age", "age has drifted", "seen")
    said = send(drift, [SECRET, "nosuch://token-4711-Ab", "mailto://ada:pass-word-7391@127.0.0.1"])
    Courier(tmp_path, receivers=SECRET).deliver()
    seen = f"{said} {Events(tmp_path).list()} {caplog.text} {capsys.readouterr()}"
    assert all(said) and "7391" not in seen and "4711" not in seen and "receiver 1 (json)" in seen
    (tmp_path / "settings.ini").write_text(f"[mlops_nb]\nalerts = {SECRET}\n")
    settings = load_settings(tmp_path)
    assert settings.alerts == SECRET and "7391" not in repr(settings) and "7391" not in str(settings)
    monkeypatch.setenv("MLOPS_NB_ALERTS", "json://other/T-123456")
    assert load_settings(tmp_path).alerts == "json://other/T-123456"
    assert masker(secrets_of(os.environ, (), SECRET))(f"{SECRET} token-4711-Ab T-123456 pass-word-7391") == "[masked] [masked] [masked] [masked]"
    assert b"7391" not in b"".join(f.read_bytes() for f in tmp_path.glob("predictions.db*"))
    assert receivers_of(f"{SECRET},mailto://a@b.c?to=d@e.f,g@h.i") == [SECRET, "mailto://a@b.c?to=d@e.f,g@h.i"]


def test_the_command(tmp_path):
    (tmp_path / "settings.ini").write_text("[mlops_nb]\nhome = store\n")
    got, tool = [], str(Path(sys.executable).with_name("mlops-nb"))
    run = lambda *words, **env: subprocess.run([tool, "alerts", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=os.environ | env)  # noqa: E731
    assert run("list").stdout == "no open alerts\n"
    Alerts(tmp_path / "store").raise_("income/drift/age", "age has drifted", "29% of the rows are older")
    assert "age has drifted: 29% of the rows are older" in run("list").stdout
    assert "there is nobody to send alerts to" in run("send").stderr
    with receiver(got) as port:
        assert run("send", MLOPS_NB_ALERTS=f"json://127.0.0.1:{port}").stdout == "1 sent, 0 to be tried again, 0 given up\n" and len(got) == 1
    assert run("ack", "1", "--note", "a campaign", "--by", "Ada").stdout == "alert 1, age has drifted: acknowledged by Ada\n"
    done = run("ack", "7", "--note", "x")
    assert done.returncode == 1 and "there is no alert 7" in done.stderr and "Traceback" not in done.stderr
    assert "Ada: a campaign" in run("list").stdout


def test_importing_is_light():
    heavy = ["pandas", "sklearn", "mlflow", "sqlalchemy", "psycopg", "pyarrow", "duckdb", "numpy", "apprise"]
    code = f"import sys, mlops_nb.log.events, mlops_nb.log.feedback, mlops_nb.loop.alerts; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
