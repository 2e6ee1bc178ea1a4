"""The prediction log under kill -9, full disks, lost and locked databases, several writers, half-done rolls, erasure. Seeds are printed."""

import asyncio
import concurrent.futures
import json
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from tests.faults.test_faults import full, small_disk

from mlops_nb.base.errors import MlopsError
from mlops_nb.log import database, history
from mlops_nb.log.history import History
from mlops_nb.log.rolled import rolled_files
from mlops_nb.log.values import micros
from mlops_nb.log.database import Sqlite
from mlops_nb.log.predictions import PredictionLog, Record, State

POSTGRES = os.environ.get("TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/test")
DAY = date(2026, 11, 11)
LOAD = """
import asyncio, os, sys, time
from pathlib import Path
from mlops_nb.log.predictions import PredictionLog, Record

home, url, name, durability, total = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
log = PredictionLog(home, url, durability)
numbers = iter(range(total))

def record():
    n = next(numbers, None)
    return n if n is None else Record(f"{name}-{n:07}", time.time_ns() // 1000, "income", 3, "", None, b'{"age": 31}', b'{"probability": 0.61}', 3e-4, b"[]")

async def client():
    "Says what is acknowledged."
    while made := record():
        if await log.written([made]):
            os.write(1, f"{made.id} {time.monotonic()}\\n".encode())

async def strict():
    await asyncio.gather(*(client() for _ in range(20)))

if durability == "strict":
    asyncio.run(strict())
while durability == "batched" and (made := record()):
    log.put([made])
    os.write(1, f"{made.id} {time.monotonic()}\\n".encode())
    if int(made.id[-2:]) == 0:
        time.sleep(0.01)
log.close()
"""


def record(number: int, day: date = DAY, subject: str | None = None, inputs: bytes = b'{"age": 31}') -> Record:
    return Record(f"p{number:07}", micros(day) + number, "income", 3, "", subject, inputs, b'{"probability": 0.61}', 3e-4, b"[]")


def ids(home: Path, url: str = "") -> list[str]:
    """In the order of writing."""
    return History(home, url).read()["id"].to_pylist()


def wait_for(what: Callable[[], bool], within: float = 20.0) -> None:
    until = time.monotonic() + within
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


@contextmanager
def load(home: Path, name: str, durability: str, total: int = 10**7, url: str = "") -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", LOAD, str(home), url, name, durability, str(total)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def postgres() -> Iterator[str]:
    """URL of an empty schema on a real server."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg isn't installed")
    try:
        connection = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL answers at {POSTGRES} (TEST_POSTGRES): {error}")
    name = f"log_{secrets.token_hex(6)}"
    with connection:
        connection.execute(f"CREATE SCHEMA {name}")
        try:
            yield f"{POSTGRES}?options=-csearch_path%3D{name}"
        finally:
            connection.execute(f"DROP SCHEMA {name} CASCADE")


# -- killed ------------------------------------------------------------------------------------------------------------


def killed(home: Path, durability: str, times: int, url: str = "") -> None:
    seed = secrets.randbelow(1_000_000)
    chance = random.Random(seed)
    for turn in range(times):
        with load(home, f"turn{turn}", durability, url=url) as process:
            said = [process.stdout.readline()]
            time.sleep(chance.uniform(0.05, 1.0))
            at = time.monotonic()
            process.kill()
            said += process.stdout.readlines()
        told = {line.split()[0].decode(): float(line.split()[1]) for line in said if line.endswith(b"\n")}
        held = [i for i in ids(home, url) if i.startswith(f"turn{turn}-")]
        missing = [at - told[i] for i in told.keys() - set(held)]
        print(f"seed {seed}, turn {turn}: {len(told)} told, {len(missing)} missing, the oldest {1000 * max(missing, default=0):.0f} ms before the kill")
        assert len(told) > 20 and held == sorted(set(held)), "nothing is doubled, the order is kept"
        assert max(missing, default=0) < (0.2 if durability == "batched" else 0) or not missing, f"seed {seed}, turn {turn}"
    if not url:
        with closing(sqlite3.connect(home / "predictions.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["strict", "batched"])
def test_killed_at_random_points(tmp_path, durability):
    killed(tmp_path, durability, 2)


@pytest.mark.deep
@pytest.mark.parametrize("durability", ["strict", "batched"])
def test_killed_at_twenty_random_points(tmp_path, durability):
    killed(tmp_path, durability, 20)


def test_killed_with_postgres(tmp_path, postgres):
    killed(tmp_path, "strict", 1, postgres)


# -- several writers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_two_processes_on_one_log(tmp_path, where, request):
    url = request.getfixturevalue("postgres") if where == "postgres" else ""
    with load(tmp_path, "a", "batched", 5000, url) as first, load(tmp_path, "b", "strict", 1000, url) as second:
        said = [process.communicate(timeout=60)[0].splitlines() for process in (first, second)]
        assert (first.returncode, second.returncode) == (0, 0)
    assert [len(lines) for lines in said] == [5000, 1000]
    held = ids(tmp_path, url)
    assert [i for i in held if i[0] == "a"] == [f"a-{n:07}" for n in range(5000)]
    assert sorted(i for i in held if i[0] == "b") == [f"b-{n:07}" for n in range(1000)]
    assert len(set(History(tmp_path, url).read()["seq"].to_pylist())) == 6000


def test_several_open_a_new_log_at_once(tmp_path):
    def opened(path):
        together.wait()
        Sqlite(path).connect().close()

    together = threading.Barrier(4)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for turn in range(100):
            assert list(pool.map(opened, [tmp_path / f"{turn}.db"] * 4)) == [None] * 4


# -- the database away -------------------------------------------------------------------------------------------------


def test_full_disk(tmp_path):
    home = tmp_path / "disk"
    with small_disk(home, "1m"):
        log = PredictionLog(home)
        log.put([record(n) for n in range(100)])
        assert log.flush()
        filler = full(home)
        log.put([record(n, inputs=b'{"age": %d}' % 10**200) for n in range(100, 1000)])
        wait_for(lambda: log.state().error is not None)
        assert "full" in log.state().error and log.state() == State(100, 900, 0, log.state().error)
        filler.unlink()
        assert log.flush() and log.close() == State(1000, 0, 0, None)
        assert ids(home) == [record(n).id for n in range(1000)]


def test_locked_by_another(tmp_path):
    log = PredictionLog(tmp_path)
    log._database.wait = 0.2
    log.put([record(0)])
    assert log.flush()
    with closing(sqlite3.connect(tmp_path / "predictions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for n in range(1, 1001):
            log.put([record(n)])  # waits for no lock
        wait_for(lambda: log.state().error is not None)
        assert "locked" in log.state().error and log.state().waiting == 1000
        other.execute("ROLLBACK")
    assert log.flush() and log.close() == State(1001, 0, 0, None)
    assert ids(tmp_path) == [record(n).id for n in range(1001)]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_lost_and_found(tmp_path, what):
    home = tmp_path / "home"
    log = PredictionLog(home)
    log.put([record(n) for n in range(1000)])
    assert log.flush()
    if what == "file":  # its write-ahead log stays behind
        (home / "predictions.db").unlink()
    else:
        home.rename(tmp_path / "elsewhere")
        home.write_text("in the way")
    log.put([record(n) for n in range(1000, 2000)])
    if what == "folder":
        wait_for(lambda: log.state().error is not None)
        home.unlink()
        (tmp_path / "elsewhere").rename(home)
    assert log.flush() and log.close() == State(2000, 0, 0, None)
    assert ids(home) == [record(n).id for n in range(1000 if what == "file" else 0, 2000)]
    with closing(sqlite3.connect(home / "predictions.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_numbers_go_on_after_a_lost_database(tmp_path):
    with closing(PredictionLog(tmp_path)) as log:
        log.put([record(n) for n in range(100)])
    assert History(tmp_path).roll(DAY + timedelta(days=1)) == 100
    for file in tmp_path.glob("predictions.db*"):
        file.unlink()
    with closing(PredictionLog(tmp_path)) as log:
        log.put([record(n) for n in range(100, 200)])
    assert ids(tmp_path) == [record(n).id for n in range(200)]


@pytest.mark.parametrize("bound", ["rows", "bytes"])
def test_bounded_while_the_database_is_away(tmp_path, bound):
    home = tmp_path / "home"
    home.write_text("in the way")
    log = PredictionLog(home, max_rows=300) if bound == "rows" else PredictionLog(home, max_bytes=3_000_000)
    for n in range(2000):
        log.put([record(n, inputs=b'"%s"' % (b"x" * 9_575))])
    wait_for(lambda: log.state().error is not None)
    waiting = log.state().waiting
    assert 290 <= waiting <= 300 and log.state().dropped == 2000 - waiting
    home.unlink()
    assert log.flush() and log.close() == State(waiting, 0, 2000 - waiting, None)
    held = ids(home)
    assert held[-1] == record(1999).id and len(held) == waiting
    assert [(e["kind"], e["rows"]) for e in History(home).events()] == [("dropped", 2000 - waiting)]


def test_strict_says_no_while_the_database_is_away(tmp_path):
    home = tmp_path / "home"
    home.write_text("in the way")
    log = PredictionLog(home, durability="strict")
    assert asyncio.run(log.written([record(0)])) is False and log.state().waiting == 1
    home.unlink()
    assert log.flush() and asyncio.run(log.written([record(1)])) is True
    log.close()
    assert ids(home) == [record(0).id, record(1).id]


def test_strict_acknowledges_after_the_commit_only(tmp_path):
    async def held_up() -> list[bool]:
        log = PredictionLog(tmp_path, durability="strict")
        assert await log.written([record(0)])
        assert log._connection.execute("PRAGMA synchronous").fetchone() == (2,), "each commit is synced"
        with closing(sqlite3.connect(tmp_path / "predictions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asked = [asyncio.ensure_future(log.written([record(n)])) for n in range(1, 11)]
            assert not (await asyncio.wait(asked, timeout=0.3))[0], "nobody is told while another holds the lock"
            other.execute("ROLLBACK")
        told = await asyncio.gather(*asked)
        log.close()
        return told

    assert asyncio.run(held_up()) == [True] * 10


def test_a_commit_of_unknown_outcome_is_not_repeated(tmp_path):
    class Breaks(Sqlite):
        left = 3

        @contextmanager
        def transaction(self, connection):
            with super().transaction(connection):
                yield
            if self.left and connection.execute("SELECT count(*) FROM predictions").fetchone()[0]:
                self.left -= 1
                raise ConnectionError("broke after the commit")

    log = PredictionLog(tmp_path)
    log._database = Breaks(tmp_path / "predictions.db")
    log.put([record(n) for n in range(5000)])
    assert log.flush() and log.close() == State(5000, 0, 0, None)
    assert log._database.left < 3 and ids(tmp_path) == [record(n).id for n in range(5000)]


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_a_record_that_cannot_be_held_stops_no_other(tmp_path, where, request):
    url = request.getfixturevalue("postgres") if where == "postgres" else ""
    log = PredictionLog(tmp_path, url)
    bad = {7: {"version": 2**70}, 300: {"model": None}, 301: {"id": "\ud800"}, 999: {"version": object()}}
    log.put([record(n)._replace(**bad.get(n, {})) for n in range(1000)])
    assert log.flush() and log.close() == State(996, 0, 4, None)
    assert ids(tmp_path, url) == [record(n).id for n in range(1000) if n not in bad]


def test_a_newer_format_is_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "predictions.db")) as connection:
        connection.execute("PRAGMA user_version = 2")
    log = PredictionLog(tmp_path)
    log.put([record(0)])
    wait_for(lambda: log.state().error is not None)
    assert "has format 2, this version of mlops-nb writes format 1; update mlops-nb" in log.close().error
    with pytest.raises(MlopsError, match="has format 2"):
        History(tmp_path).read()


# -- read by columns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_batches_of_a_database_are_the_rows_that_were_written(tmp_path, where, request, monkeypatch):
    monkeypatch.setattr(database, "BATCH", 10)
    url = request.getfixturevalue("postgres") if where == "postgres" else ""
    said = [None] * 25 + ["", "é ü 漢", "x" * 5000, None, "0", "12"] + [None] * 25  # what the first rows have is no type of a column
    with closing(PredictionLog(tmp_path, url)) as log:
        log.put([record(n, DAY + timedelta(days=n % 3), subject=who) for n, who in enumerate(said)])
    past = History(tmp_path, url)
    table = past.read()
    assert table.schema == history.schema() and table["subject"].to_pylist() == said
    assert table["id"].to_pylist() == [record(n).id for n in range(len(said))] and table["latency"].to_pylist() == [record(0).latency] * len(said)
    one = past.read(DAY + timedelta(days=1), DAY + timedelta(days=2))
    assert one.to_pylist() == [row for row in table.to_pylist() if row["time"].date() == DAY + timedelta(days=1)] and len(one) > 10
    twice = "SELECT count(*) AS n, count(a.subject) AS known FROM predictions a JOIN predictions b ON a.seq = b.seq + 1"
    assert past.query(twice).to_pylist() == [{"n": len(said) - 1, "known": 5}]  # the database is read once for each
    assert past.query("SELECT * FROM predictions ORDER BY seq").to_pylist() == table.to_pylist()
    assert len(past.read(date(2001, 1, 1), date(2001, 1, 2))) == 0 and past.query("SELECT 1 AS one FROM predictions WHERE false").num_rows == 0


QUERIES = (
    "SELECT count(*) FROM predictions",
    "SELECT id, subject FROM predictions WHERE time >= TIMESTAMPTZ '2026-11-12' AND time < TIMESTAMPTZ '2026-11-13 12:00' ORDER BY seq",
    "SELECT max(latency) FROM predictions WHERE date_trunc('day', time) = TIMESTAMPTZ '2026-11-13' OR subject IS NULL",
    "SELECT version, count(subject) FROM predictions WHERE arm = '' AND NOT (time > TIMESTAMPTZ '2026-11-12') GROUP BY version",
    "SELECT count(*) FROM predictions WHERE time IN (SELECT max(time) FROM predictions) AND id LIKE '%9'",
    "SELECT inputs->>'age' AS age, count(*) AS n FROM predictions WHERE subject = 'person 3' AND time <> TIMESTAMPTZ '2026-11-12' GROUP BY age ORDER BY age",
    "SELECT seq, flags FROM predictions WHERE subject IS NOT NULL AND seq BETWEEN 100 AND 110 ORDER BY seq LIMIT 5",
    "SELECT id FROM predictions WHERE time > TIMESTAMPTZ '2030-01-01'",
)


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_a_query_reads_what_it_asks_for_and_answers_as_over_the_whole_table(tmp_path, where, request, monkeypatch):
    monkeypatch.setattr(database, "BATCH", 100)
    url = request.getfixturevalue("postgres") if where == "postgres" else ""
    with closing(PredictionLog(tmp_path, url)) as log:
        log.put([record(n, DAY + timedelta(days=n % 5), subject=None if n % 7 == 0 else f"person {n % 10}") for n in range(900)])
    past = History(tmp_path, url)
    whole, read = past.read(), []
    batches = type(past._database).batches

    def seen(self, statement, values):
        read.append((statement.split(" FROM ")[0], sum(len(b) for b in batches(self, statement, values))))
        return batches(self, statement, values)

    monkeypatch.setattr(type(past._database), "batches", seen)
    for sql in QUERIES:
        with duckdb.connect() as plain:
            plain.execute("SET TimeZone = 'UTC'")
            plain.register("predictions", whole)
            assert past.query(sql).to_pylist() == plain.sql(sql).to_arrow_table().to_pylist(), sql
    assert read[0] == ("SELECT seq", 900) and "inputs" not in read[1][0] and read[1][1] < 900, "neither columns nor times that nobody asked for"
    assert past.roll(DAY + timedelta(days=2)) == 360 and past.query(QUERIES[0]).to_pylist() == [{"count_star()": 900}]


def test_what_is_no_text_is_read_with_a_mark(tmp_path):
    with closing(PredictionLog(tmp_path)) as log:
        log.put([record(n) for n in range(3)])
    with closing(sqlite3.connect(tmp_path / "predictions.db")) as connection:
        connection.execute("UPDATE predictions SET arm = CAST(x'61ff62' AS TEXT) WHERE seq = 2")
        connection.commit()
    assert History(tmp_path).read()["arm"].to_pylist() == [record(0).arm, "a\ufffdb", record(0).arm]


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def test_postgres_from_writing_to_erasing(tmp_path, postgres):
    with closing(PredictionLog(tmp_path, postgres)) as log:
        log.put([record(n, DAY + timedelta(days=n % 3), subject=f"person {n % 10}") for n in range(3000)])
    past = History(tmp_path, postgres)
    before = past.read()
    assert before["id"].to_pylist() == [record(n).id for n in range(3000)] and not rolled_files(tmp_path)
    assert past.roll(DAY + timedelta(days=2)) == 2000 and len(rolled_files(tmp_path)) == 2
    assert past.read().equals(before)
    assert past.query("SELECT count(*) AS n, sum(CAST(json_extract(inputs, '$.age') AS INTEGER)) AS ages FROM predictions").to_pylist() == [{"n": 3000, "ages": 93000}]
    assert past.erase("person 4") == 300 and "person 4" not in past.read()["subject"].to_pylist()
    assert past.retain((datetime.now(UTC).date() - DAY).days - 2) == 1800
    assert [(e["kind"], e["rows"]) for e in past.events()] == [("erased", 300), ("retained", 1800)]


def test_postgres_drops_the_connection(tmp_path, postgres):
    import psycopg

    log, cuts = PredictionLog(tmp_path, postgres, interval=0.001), 0
    with psycopg.connect(POSTGRES, autocommit=True) as admin:
        for n in range(3000):
            log.put([record(n)])
            if n % 1000 == 500:
                wait_for(lambda: log._connection is not None)
                cuts += admin.execute("SELECT pg_terminate_backend(%s)", [log._connection.info.backend_pid]).fetchone()[0]
    assert log.flush() and log.close() == State(3000, 0, 0, None) and cuts
    assert ids(tmp_path, postgres) == [record(n).id for n in range(3000)]


# -- old days ----------------------------------------------------------------------------------------------------------

ROLL = """
import sys
from datetime import date
from pathlib import Path
from mlops_nb.log import history

history.SLICE = 200
print("begun", flush=True)
history.History(Path(sys.argv[1])).roll(date(2026, 11, 14))
"""


@pytest.mark.slow
def test_roll_killed_at_random_points(tmp_path):
    seed = secrets.randbelow(1_000_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with closing(PredictionLog(tmp_path)) as log:  # of days in no order, as after a clock was set back
        log.put([record(n, DAY + timedelta(days=chance.randrange(4))) for n in range(20_000)])
    expected, kills = History(tmp_path).read(), 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", ROLL, str(tmp_path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            goal = len(rolled_files(tmp_path)) + chance.randrange(1, 20)  # of some 100 files: it is at work, on a quick machine too
            wait_for(lambda goal=goal: len(rolled_files(tmp_path)) >= goal or process.poll() is not None)
            time.sleep(chance.uniform(0, 0.01))
            kills += process.poll() is None
            process.kill()
        assert History(tmp_path).read().equals(expected), f"seed {seed}"
        assert History(tmp_path).query("SELECT count(DISTINCT id) AS n, count(*) AS all FROM predictions").to_pylist() == [{"n": 20_000, "all": 20_000}]
    History(tmp_path).roll(DAY + timedelta(days=3))
    assert kills and History(tmp_path).read().equals(expected), f"seed {seed}"
    with closing(sqlite3.connect(tmp_path / "predictions.db")) as connection:
        (left,) = connection.execute("SELECT count(*) FROM predictions").fetchone()
    assert left == len([when for when in expected["time"].to_pylist() if when.date() == DAY + timedelta(days=3)])
    assert not list(tmp_path.glob("predictions/day=*/.*"))


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_roll_that_ends_between_file_and_deletion(tmp_path, where, request, monkeypatch):
    url = request.getfixturevalue("postgres") if where == "postgres" else ""
    with closing(PredictionLog(tmp_path, url)) as log:
        log.put([record(n, subject="ada" if n % 10 == 0 else None) for n in range(100)])
    past = History(tmp_path, url)
    before = past.read()
    save = history.save_rolled

    def then_ends(*given):
        save(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(history, "save_rolled", then_ends)
    with pytest.raises(KeyboardInterrupt):
        past.roll(DAY + timedelta(days=1))
    monkeypatch.undo()
    assert len(rolled_files(tmp_path)) == 1 and past.read().equals(before)
    with closing(PredictionLog(tmp_path, url)) as log:  # the same day, late
        log.put([record(n) for n in range(100, 110)])
    assert len(past.read()) == 110
    assert past.erase("ada") == 10, "rows that are in both places count once"
    assert past.roll(DAY + timedelta(days=1)) == 10 and len(past.read()) == 100 and len(rolled_files(tmp_path)) == 2


def test_roll_beside_a_writer(tmp_path):
    with load(tmp_path, "w", "strict") as process:  # it writes until it is stopped, however fast the machine is
        said = []
        listener = threading.Thread(target=lambda: said.extend(process.stdout))
        listener.start()
        past, seen, until = History(tmp_path), 0, time.monotonic() + 60
        past._database.wait = 60.0  # a busy writer may keep the lock from a slow reader for long
        while len(rolled_files(tmp_path)) < 3:
            assert time.monotonic() < until, "waited in vain"
            past.roll(datetime.now(UTC).date() + timedelta(days=1))
            assert (now := len(past.read())) >= seen
            seen = now
        process.kill()
        listener.join()
    past.roll(datetime.now(UTC).date() + timedelta(days=1))
    held = sorted(ids(tmp_path))
    acknowledged = {line.split()[0].decode() for line in said if line.endswith(b"\n")}
    assert acknowledged and acknowledged <= set(held)
    assert held == [f"w-{n:07}" for n in range(len(held))], "none missing, none twice"


# -- erasure -----------------------------------------------------------------------------------------------------------


def test_erased_rows_are_nowhere(tmp_path):
    secret = "a-name-7391"
    with closing(PredictionLog(tmp_path)) as log:
        log.put([record(n, DAY + timedelta(days=n % 2), secret if n % 7 == 0 else f"person {n % 7}", b'{"said": "%s"}' % (b"secret-row" if n % 7 == 0 else b"")) for n in range(7000)])
        assert log.flush()
        past = History(tmp_path)
        assert past.roll(DAY + timedelta(days=1)) == 3500
        half = tmp_path / "predictions" / f"day={DAY}" / ".000.parquet.ab12"
        half.write_text(secret)  # as a killed roll leaves it
        log.put([record(7000, subject=secret)])
        assert log.flush() and past.erase(secret) == 1001
        log.put([record(7001, subject="person 1")])
    table = past.read()
    assert len(table) == 6001 and secret not in table["subject"].to_pylist()
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert secret.encode() not in file.read_bytes() and b"secret-row" not in file.read_bytes(), file
    assert [{k: v for k, v in e.items() if k != "time"} for e in past.events()] == [{"kind": "erased", "rows": 1001}]


def test_erase_says_when_a_reader_is_in_the_way(tmp_path):
    with closing(PredictionLog(tmp_path)) as log:
        log.put([record(n, subject="ada") for n in range(10)])
    past = History(tmp_path)
    past._database.wait = 0.2
    with closing(sqlite3.connect(tmp_path / "predictions.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM predictions").fetchone()
        with pytest.raises(MlopsError, match="is being read and can't be emptied of deleted rows; end that reader and repeat"):
            past.erase("ada")
        reader.execute("ROLLBACK")
    assert past.erase("ada") == 0 and len(past.read()) == 0
    assert b"ada" not in b"".join(f.read_bytes() for f in tmp_path.glob("predictions.db*"))


def test_the_command(tmp_path):
    def said(*words: str, code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "mlops_nb.cli.main", "log", *words], cwd=tmp_path, env={**os.environ, "MLOPS_NB_HOME": str(tmp_path / ".mlops")}, capture_output=True, text=True, timeout=60)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    (tmp_path / "settings.ini").write_text("[mlops_nb]\n")
    (tmp_path / ".mlops").mkdir()
    log = PredictionLog(tmp_path / ".mlops")
    log.put([Record(f"{i:032x}", 1_000_000 * i, "income", 1, "", "ann" if i < 2 else None, b"{}", b"{}", 0.001, b"[]") for i in range(5)])
    log.close()
    assert json.loads(said("query", "SELECT count(*) AS n, min(time) AS first FROM predictions", "--json"))["n"] == 5
    assert "5 rows rolled" in said("roll") and "--yes" in said("erase", "ann", code=1) and "2 rows erased" in said("erase", "ann", "--yes")
    assert said("query", "SELECT count(*) AS n FROM predictions").split() == ["n", "3"] and "error: the query can't be answered" in said("query", "SELEC", code=1)
    assert all("gives no table; expected a SELECT" in said("query", sql, code=1) for sql in ("", " ", ";"))
    assert "3 rows deleted" in said("retain", "30") and [json.loads(line)["kind"] for line in said("events", "--json").splitlines()] == ["erased", "retained"]


def test_importing_is_light():
    heavy = ["pandas", "sklearn", "mlflow", "sqlalchemy", "psycopg", "pyarrow", "duckdb", "numpy"]
    code = f"import sys, mlops_nb.log.predictions, mlops_nb.log.history; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
