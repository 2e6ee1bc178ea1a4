"""The service while its surroundings fail: poisoned files, a registry that vanishes, clocks that jump, shared logs, full disks, kill -9. Seeds are printed."""

import concurrent.futures
import http.client
import json
import random
import secrets
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from tests.serving import test_rest
from tests.faults.test_faults import full, small_disk
from tests.serving.test_rest import Server, settings

from mlops_nb.base.artifacts import digest_of, write_atomic
from mlops_nb.registry.promotion import promote
from mlops_nb.registry.released import read_released
from mlops_nb.base.settings import stock
from mlops_nb.base.text import in_markdown
from mlops_nb.model.rows import Refused
from mlops_nb.log.history import History
from mlops_nb.serving.prediction import Predictor

pytestmark = pytest.mark.slow
made, sample, project, serving, server = test_rest.made, test_rest.sample, test_rest.project, test_rest.serving, test_rest.server

CLOCK = """
import time
from pathlib import Path

ahead, real, real_ns = Path(__file__).with_name("ahead"), time.time, time.time_ns
time.time = lambda: real() + float(ahead.read_text())
time.time_ns = lambda: real_ns() + int(float(ahead.read_text()) * 1e9)
"""
SLOW = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"


def ready(server: Server) -> dict:
    return server.get("/v2/health/ready")[1]


def logged(home: Path) -> list[str]:
    """Ids in the order of writing."""
    with closing(sqlite3.connect(home / "predictions.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [key for (key,) in connection.execute("SELECT id FROM predictions ORDER BY seq")]


@contextmanager
def asking(server: Server, rows: list[dict], callers: int = 3) -> Iterator[list[tuple[float, int, list[str]]]]:
    """Callers that ask without a pause; (when it was answered, code, ids) of every answer that came back whole."""
    stop, found, body = threading.Event(), [], json.dumps({"rows": rows})

    def call() -> None:
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        while not stop.is_set():
            try:
                connection.request("POST", "/v1/predict", body)
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                break  # the server is gone
            found.append((time.monotonic(), answer.status, [p["id"] for p in said.get("predictions", [])]))
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(call) for _ in range(callers)]
        try:
            yield found
        finally:
            stop.set()
        for one in asked:
            one.result()


# -- the registry ------------------------------------------------------------------------------------------------------


def facts_of(root: Path, version: int) -> dict:
    return read_released(root / ".mlops/released.json")["models"]["income"]["versions"][str(version)]


def publish(root: Path, version: int, **digests: str) -> None:
    """Put a version into production behind the registry's back, with these digests."""
    released = json.loads((root / ".mlops/released.json").read_text())
    released["models"]["income"]["production"] = version
    released["models"]["income"]["versions"][str(version)] |= digests
    write_atomic(root / ".mlops/released.json", json.dumps(released).encode())


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


POISON: dict[str, Callable[[bytes], bytes]] = {"flipped": flipped, "halved": lambda data: data[: len(data) // 2], "empty": lambda data: b"", "noise": lambda data: random.Random(1).randbytes(len(data))}


@pytest.mark.parametrize("how", [pytest.param(how, marks=[] if how == "flipped" else pytest.mark.deep) for how in POISON])
@pytest.mark.parametrize("trusted", [False, True], ids=["digest-differs", "digest-agrees"])
def test_poisoned_files_are_refused_and_the_old_version_goes_on(project, sample, how, trusted):
    """Also when the digests in released.json were forged to fit."""
    folder = Path(facts_of(project, 2)["folder"])
    with serving(project, "income@production", "--log", "off") as server:
        digests = {}
        for part, name in (("fold", "fold.zip"), ("model", "model/model.skops")):
            bad = POISON[how]((folder / name).read_bytes())
            (folder / name).write_bytes(bad)
            digests[part] = digest_of(bad)
        code, said, _ = server.ask("GET", "/v2/models/income/versions/2")  # on demand
        assert code == 503 and said["error"].startswith("version 2 of 'income' can't be served: ") and "Traceback" not in said["error"]
        with asking(server, sample.rows[:1]) as answers:
            publish(project, 2, **digests if trusted else {})
            server.until(lambda: ready(server)["problem"])
            time.sleep(0.3)
        assert {code for _, code, _ in answers} == {200} and len(answers) > 20
        about = ready(server)
        assert about["model"] == "income/1" and len(about["problem"]) > 20 and server.predict(sample.rows[:1])[1]["version"] == 1
        publish(project, 1)
        server.until(lambda: not ready(server)["problem"])


def test_a_registry_that_vanishes_and_returns_while_serving(project, sample):
    home, away = project / ".mlops", project / "away"
    with serving(project, "income@production") as server, asking(server, sample.rows[:1]) as answers:
        time.sleep(0.3)
        home.rename(away)
        server.until(lambda: "nothing is published" in ready(server)["problem"])
        assert server.ask("GET", "/v2/models/income/versions/2/ready")[0] in (200, 503)
        if home.exists():  # made anew by the prediction log
            shutil.rmtree(home)
        away.rename(home)
        server.until(lambda: not ready(server)["problem"])
        promote(settings(project).registry_uri, "income", 2)
        server.until(lambda: ready(server)["model"] == "income/2")
    assert {code for _, code, _ in answers} == {200}


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_clocks_that_jump(project, sample, tmp_path, monkeypatch):
    """A day ahead, a year back, before 1970: nothing waits, nothing is cut off, the log keeps its order."""
    clock, home, ids = tmp_path / "ahead", project / ".mlops", []
    clock.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with serving(project, "income@production", "--limit", "receive=2") as server:
        with asking(server, sample.rows[:1], 1) as answers:
            for ahead in ("0", "86400", "-31536000", "-2e9", "4e9", "0"):
                write_atomic(clock, ahead.encode())
                begun = time.monotonic()
                ids += [p["id"] for p in server.predict(sample.rows[:2])[1]["predictions"]]
                with test_rest.slow(server, SLOW) as late:
                    assert b"408" in late.recv(1000) and 1.5 < time.monotonic() - begun < 60
        assert {code for _, code, _ in answers} == {200} and len(answers) > 50
        promote(settings(project).registry_uri, "income", 2)
        server.until(lambda: ready(server)["model"] == "income/2")
    held = logged(home)
    assert [key for key in held if key in set(ids)] == ids, "the order of writing is the order of answers, whatever the clock says"
    assert [key for key in held if key not in set(ids)] == [key for _, _, (key,) in answers]
    times = History(home).read().select(["id", "time"]).to_pylist()
    years = {row["id"]: row["time"].year for row in times}
    assert min(years.values()) < 1970 and max(years.values()) > 2100
    lines = [json.loads(line) for line in server.said.read_text().splitlines()]
    assert {i for line in lines for i in line.get("ids", [])} == set(held)


# -- the prediction log ------------------------------------------------------------------------------------------------


def test_two_services_on_one_log(project, sample):
    with serving(project, "income@production") as one, serving(project, "income@staging", "--log", "strict") as two:
        with asking(one, sample.rows[:2]) as first, asking(two, sample.rows[2:3]) as second:
            time.sleep(2)
    assert {code for _, code, _ in first + second} == {200} and min(len(first), len(second)) > 20
    held = logged(project / ".mlops")
    assert len(held) == len(set(held)) and set(held) == {key for _, _, ids in first + second for key in ids}


@pytest.mark.parametrize("durability", [pytest.param("batched", marks=pytest.mark.deep), "strict"])
def test_full_disk_under_the_log_and_the_lines(project, sample, durability):
    """The service goes on answering (strict: says that it can't), counts what it dropped, and recovers by itself."""
    disk = project / "disk"
    with small_disk(disk, "3m"):
        (disk / "settings.ini").write_text(f"[mlops_nb]\nregistry_uri = sqlite:///{project}/.mlops/mlflow.db\n")
        home = disk / ".mlops"
        with serving(disk, "income@production", "--log", durability) as server:

            def metric(name: str) -> float:
                return float(server.get("/metrics")[1]["text"].split(f"\nmlops_nb_{name} ")[1].split()[0])

            def written() -> set[str]:
                with suppress(sqlite3.OperationalError):  # it isn't there yet
                    return set(logged(home))
                return set()

            before = [p["id"] for p in server.predict(sample.rows[:5])[1]["predictions"]]
            server.until(lambda: written() == set(before))
            filler, many = full(disk), sample.rows * 12
            answers = [server.predict(many) for _ in range(110 if durability == "batched" else 10)]
            server.until(lambda: "the prediction log can't be written" in ready(server)["problem"])
            if durability == "strict":
                assert 503 in {code for code, _, _ in answers} and "prediction log can't be written" in answers[-1][1]["error"]
            else:
                assert {code for code, _, _ in answers} == {200}
                server.until(lambda: metric("log_dropped") > 0)
                assert metric("log_waiting") > 1000
            assert metric("resident_bytes") < 5e8
            filler.unlink()
            subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)  # what waits is more than the small disk holds
            server.until(lambda: metric("log_waiting") == 0 and not ready(server)["problem"])
            dropped, ids = metric("log_dropped"), {p["id"] for p in server.predict(sample.rows[:5])[1]["predictions"]}
            server.until(lambda: ids <= set(logged(home)))
            answered = {p["id"] for code, said, _ in answers if code == 200 for p in said["predictions"]} | ids | set(before)
            held = logged(home)
            if durability == "strict":
                assert answered <= set(held) and len(held) == len(set(held)), "what was answered is written; what was refused may be, too"
            else:
                assert len(answered) == len(held) + dropped and set(held) <= answered
                assert sum(e["rows"] for e in History(home).events() if e["kind"] == "dropped") == dropped
            server.until(lambda: any(i in server.said.read_text() for i in ids))
            said = [json.loads(line) for line in server.said.read_bytes().split(b"\n")[:-1] if line.endswith(b"}")]
            assert len(said) > 10 and (durability == "strict" or any("lines could not be written" in line.get("message", "") for line in said))
    assert server.process.returncode in (0, -signal.SIGTERM)


def has_table(home: Path) -> bool:
    """Whether the log's file is there with its table; on a busy machine that takes a while."""
    with closing(sqlite3.connect(home / "predictions.db")) as connection:
        return connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'predictions'").fetchone() == (1,)


def killed(root: Path, rows: list[dict], durability: str, times: int) -> None:
    seed = secrets.randbelow(10**6)
    chance, home = random.Random(seed), root / ".mlops"
    for turn in range(times):
        server = Server(root, "income@production", "--log", durability)
        try:
            with asking(server, rows) as answers:
                server.until(lambda: sum(len(ids) for _, code, ids in list(answers) if code == 200) > 20 and has_table(home))
                time.sleep(chance.uniform(0, 1.4))
                at = time.monotonic()
                server.process.kill()
                server.process.wait(30)
        finally:
            server.stop(signal.SIGKILL)
        held = logged(home)
        missing = [at - when for when, code, ids in answers if code == 200 and not set(ids) <= set(held)]
        told = sum(len(ids) for when, _, ids in answers)
        print(f"{durability}, seed {seed}, turn {turn}: {told} answered, {len(missing)} requests missing, the oldest {1000 * max(missing, default=0):.0f} ms before the kill")
        assert told > 20 and len(held) == len(set(held))
        assert not missing or (durability == "batched" and max(missing) < 0.2), f"seed {seed}, turn {turn}"


@pytest.mark.parametrize("durability", ["strict", "batched"])
@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(20, id="twenty", marks=pytest.mark.deep)])
def test_killed_under_load_at_random_points(project, sample, durability, times):
    killed(project, sample.rows[:2], durability, times)


# -- the app -----------------------------------------------------------------------------------------------------------


def test_the_apps_page_refuses_in_the_services_words(made, server, sample):
    predictor, row = Predictor.load(settings(made), "income", "staging"), sample.rows[30]
    odd = [{"age": 103}, {"age": "old"}, {"age": None}, {"sex": "X"}, {"occupation": ["Sales"]}, {"ocupation": "Sales"}, {"age": 10**30}, {"hours_per_week": True}, {"occupation": "x" * 300}, {"occupation": None}, {"age": " 39 "}]
    for change in odd:
        code, said, _ = server.predict([row | change])
        try:
            (here,) = predictor.predict([row | change])
        except Refused as refusal:
            assert (code, said["error"]) == (refusal.status, str(refusal)) and said["field"] == refusal.facts["field"], change
        else:
            (there,) = said["predictions"]
            assert code == 200 and (there["decision"], there["probability"]) == (here.decision, here.probability), change
            assert [f["message"] for f in there["flags"]] == [f.message for f in here.flags], change


def test_the_page_itself_answers_and_refuses_as_the_service_does(made, sample, monkeypatch):
    pytest.importorskip("streamlit")
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("MLOPS_NB_ROOT", str(made))
    monkeypatch.setenv("MLOPS_NB_CHARTER", str(stock("charters") / "income.yaml"))
    main = Path(__file__).parents[2] / "app" / "main.py"
    at = AppTest.from_file(str(main), default_timeout=120).run()
    at.switch_page("views/predictions.py").run()
    with serving(made, "income@production", "--log", "off") as server:
        shown = {widget.key: widget.value for widget in (*at.number_input, *at.selectbox, *at.text_input)}  # the page starts from a real row
        row = {c["name"]: shown[f"income/1:{c['name']}"] for c in server.get("/v1/models")[1]["models"][0]["fields"]}
        for age in (44, 103, None):
            at.number_input(key="income/1:age").set_value(age)
            at.button[0].click().run()
            assert not at.exception, at.exception
            code, said, _ = server.predict([row | {"age": age}])
            if code == 200:
                (there,) = said["predictions"]
                assert at.metric[0].value == in_markdown(there["decision"]) and any(f"**{there['probability']:.1%}**" in m.value for m in at.markdown)
            else:
                assert (code, at.error[0].value) == (422, said["error"].removeprefix("row 0, "))
