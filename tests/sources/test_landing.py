"""Landing places: another process writes, the reader is killed with -9 again and again, and each row is there once."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.sources.test_sources import charter_of, database, people  # noqa: F401

from mlops_nb.base.data import Data
from mlops_nb.base.errors import MlopsError, why_refused
from mlops_nb.sources.files import source_file
from mlops_nb.sources.gather import check_sources, gather, source_rows
from mlops_nb.sources.landing import landed
from mlops_nb.stages.ingest import describe_origin

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rows_in(folder: Path, data: Data) -> pd.DataFrame:
    return gather(landed(data, folder, folder / ".mlops"), data).frame


def shop(folder: Path, columns: str, rows: list[tuple]) -> sqlite3.Connection:
    """A database whose table `visits` has these rows, open."""
    db = sqlite3.connect(folder / "shop.db")
    db.execute(f"create table visits ({columns})")
    db.executemany(f"insert into visits values ({', '.join('?' * len(rows[0]))})", rows)
    db.commit()
    return db


def killed_over_and_over(land, until, seed: int, most: int = 2000) -> tuple[int, int]:
    """Readers one after the other, each killed at a random moment, until the writer is done; kills, and in mid-work."""
    chance, kills, busy = random.Random(seed), 0, 0
    while not until() and kills < most:
        ready, told = os.pipe()
        if not (child := os.fork()):
            try:
                while True:
                    with suppress(MlopsError):  # nothing has arrived yet
                        os.write(told, b"<")
                        land()
                    os.write(told, b">")
            finally:
                os._exit(3)
        os.close(told)
        time.sleep(chance.uniform(0.005, 0.12))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "a reader ended by itself"
        with open(ready, "rb") as said:
            busy += said.read().endswith(b"<")
        kills += 1
    return kills, busy


WRITES_FILES = """
import sys, time, random
import pandas as pd
from pathlib import Path
folder, n, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(7)
for k in range(n):
    rows = pd.DataFrame({"id": range(k * 50, k * 50 + 50), "n": [chance.random() for _ in range(50)]})
    if k % 2:  # written under another name, then renamed
        rows.to_parquet(folder / f"{k:04d}.parquet.part")
        (folder / f"{k:04d}.parquet.part").rename(folder / f"{k:04d}.parquet")
    else:  # byte by byte under its own name: without its end, no Parquet
        rows.to_parquet(folder / f".{k}")
        data = (folder / f".{k}").read_bytes()
        with open(folder / f"{k:04d}.parquet", "wb") as file:
            for part in range(0, len(data), 400):
                file.write(data[part : part + 400])
                file.flush()
                time.sleep(0.001)
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_files_while_the_reader_is_killed(tmp_path):
    folder = tmp_path / "landing"
    folder.mkdir()
    data = Data(source="landing/*.parquet", landing={"settle": "0 seconds"})
    rows_in_one = 50
    writer = subprocess.Popen([sys.executable, "-c", WRITES_FILES, folder, "150"])
    try:
        kills, busy = killed_over_and_over(lambda: landed(data, tmp_path, tmp_path / ".mlops"), lambda: writer.poll() is not None, seed=1)
    finally:
        writer.kill()
        writer.wait()
    made = rows_in(tmp_path, data)
    assert sorted(made["id"]) == list(range(150 * rows_in_one)), f"after {kills} kills"
    assert kills > 40 and busy > kills / 2
    whole = pd.concat([pd.read_parquet(f) for f in folder.glob("*.parquet")]).sort_values("id", ignore_index=True)
    assert made.sort_values("id", ignore_index=True).equals(whole)


WRITES_ROWS = """
import sys, time, random
import sqlalchemy as sa
address, name, n, chance = sys.argv[1], sys.argv[2], int(sys.argv[3]), random.Random(7)
engine = sa.create_engine(address)
held = []
for k in range(n):
    some = [4 * k + j for j in range(4)]
    if chance.random() < 0.3:  # these are committed later, below ids that are there already
        held.append(some.pop(0))
    if held and chance.random() < 0.2:
        some.append(held.pop(0))
    with engine.begin() as there:
        there.execute(sa.text(f"insert into {name} values (:id, :n)"), [{"id": i, "n": i % 7} for i in some])
    time.sleep(0.01)
with engine.begin() as there:
    there.execute(sa.text(f"insert into {name} values (:id, :n)"), [{"id": i, "n": i % 7} for i in held or [4 * n]])
"""


@pytest.mark.slow
def test_rows_while_the_reader_is_killed(database, people):  # noqa: F811
    import sqlalchemy as sa

    address, name, run = database
    real = f"sqlite:///{people}/made.db" if address.startswith("sqlite") else address.replace("postgresql://", "postgresql+psycopg://").replace("mariadb://", "mariadb+pymysql://")
    run("create table VISITS (id bigint, n integer)")
    data = Data(source=f"{address}#{name}", landing={"by": "id"})
    writer = subprocess.Popen([sys.executable, "-c", WRITES_ROWS, real, name, "400"])
    try:
        kills, busy = killed_over_and_over(lambda: landed(data, people, people / ".mlops"), lambda: writer.poll() is not None, seed=2)
    finally:
        writer.kill()
        writer.wait()
    landed(data, people, people / ".mlops")
    run("insert into VISITS values (-1, 0)")  # below every watermark: late, however few readers got through
    made = landed(data, people, people / ".mlops")
    with sa.create_engine(real).connect() as there:
        wanted = sorted(there.execute(sa.text(f"select id from {name}")).scalars())  # noqa: S608
    assert sorted(rows_in(people, data)["id"]) == wanted and len(wanted) >= 1600, f"after {kills} kills"
    assert kills > 20 and busy > kills / 2
    assert made.landed["late"] > 0 and made.landed["rows"] == len(wanted) and "gone" not in made.landed


# tables

moments = st.integers(-40, 40)  # minutes from noon


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(st.tuples(moments, st.integers(0, 2)), max_size=8), st.integers(0, 30)), min_size=1, max_size=5), st.sampled_from([None, "0 minutes", "5 minutes", "20 minutes"]), st.sampled_from([" ", "T"]))
def test_each_row_once_whatever_comes_when(tmp_path_factory, turns, delay, sep):
    """Rows of any time, equal ones too, late or from the future: once they are old enough, each is there once."""
    work, now, came = tmp_path_factory.mktemp("shop"), NOW, []
    data = Data(source="sqlite:///shop.db#visits", landing={"by": "at", "delay": delay})
    with closing(sqlite3.connect(work / "shop.db")) as db:
        db.execute("create table visits (at text, n integer)")
        for rows, later in [*turns, ([], 120)]:
            came += [((NOW + timedelta(minutes=m)).replace(tzinfo=None).isoformat(sep), n) for m, n in rows]
            db.executemany("insert into visits values (?, ?)", came[len(came) - len(rows) :])
            db.commit()
            now += timedelta(minutes=later)
            with suppress(MlopsError):
                made = landed(data, work, work / ".mlops", now)
                got = Counter((r.at, r.n) for f in made.parts for r in pd.read_parquet(f.path).itertuples())
                cut = (now - timedelta(minutes=int(delay.split()[0]) if delay else 0)).replace(tzinfo=None).isoformat(sep)
                assert got == Counter(row for row in came if row[0] <= cut)
    if came:
        assert sum(got.values()) == len(came) == made.landed["rows"]


def test_times_of_real_databases(database, people):  # noqa: F811
    """Rows at the border with equal times are neither lost nor doubled; young ones wait, bare ones are told."""
    address, name, run = database
    kind = {"sqlite": "text", "postgresql": "timestamptz", "mariadb": "datetime"}[address.partition(":")[0]]
    run(f"create table VISITS (at {kind}, n numeric(8, 2))")
    data = Data(source=f"{address}#{name}", landing={"by": "at", "delay": "10 minutes"})

    def put(*rows: tuple[str | None, float]) -> None:
        zone = "+00" if kind == "timestamptz" else ""
        times = ["null" if at is None else f"'{at}{zone}'" for at, _ in rows]
        run(*[f"insert into VISITS values ({at}, {n})" for at, (_, n) in zip(times, rows, strict=True)])

    def taken(now: datetime) -> list[float]:
        return sorted(n for file in landed(data, people, people / ".mlops", now).parts for n in pd.read_parquet(file.path)["n"])

    put(("2026-03-01 11:50:00", 1), ("2026-03-01 11:50:00", 2), ("2026-03-01 11:50:01", 3), (None, 9))
    assert taken(NOW) == [1, 2]
    first = landed(data, people, people / ".mlops", NOW)
    assert first.waiting == ["1 row without a value of 'at'", "1 row younger than the delay"]
    put(("2026-03-01 11:50:00", 1.25), ("2026-03-01 09:00:00", 4), ("2026-03-01 11:50:00", 1))
    assert taken(NOW) == [1, 1, 1.25, 2, 4] and taken(NOW + timedelta(seconds=1)) == [1, 1, 1.25, 2, 3, 4]
    made = landed(data, people, people / ".mlops", NOW + timedelta(hours=1))
    assert made.landed == {"batches": 3, "rows": 6, "late": 3} and [f.name for f in made.parts] == ["batch 1", "batch 2 (late)", "batch 3"]
    run("delete from VISITS where n = 2")
    assert landed(data, people, people / ".mlops", NOW + timedelta(hours=1)).landed["gone"] == 1
    put(("2026-03-01 10:00:00", 7))
    later = landed(data, people, people / ".mlops", NOW + timedelta(hours=1)).landed
    assert (later["late"], later["gone"], later["rows"]) == (4, 1, 7), "late rows are seen beside deleted ones"
    table = gather(made, data).frame
    assert sorted(table["n"][:2]) == [1, 2] and table["n"].tolist()[2:] == [4, *table["n"].tolist()[3:5], 3], "batches in order"


def test_numbers_with_a_delay_and_a_time_zone(tmp_path):
    shop(tmp_path, "id integer, at text", [(k, f"2026-03-01 {k + 8:02d}:00:00") for k in range(1, 13)]).close()
    by_number = Data(source="sqlite:///shop.db#visits", landing={"by": "id", "delay": "3"})
    assert landed(by_number, tmp_path, tmp_path / ".mlops", NOW).landed["rows"] == 9
    in_seoul = Data(source="sqlite:///shop.db#visits", landing={"by": "at"}, columns={"at": {"kind": "datetime", "zone": "Asia/Seoul"}})
    assert landed(in_seoul, tmp_path, tmp_path / ".mlops", NOW - timedelta(hours=2)).landed["rows"] == 11  # 10:00 in London, 19:00 there
    for landing, said in (({"by": "id", "delay": "1 hour"}, "holds numbers"), ({"by": "at", "delay": "5"}, "holds times"), ({"by": "whne"}, "has no column 'whne', that landing: by names")):
        refused = Data(source="sqlite:///shop.db#visits", landing=landing)
        assert said in why_refused(landed, refused, tmp_path, tmp_path / ".mlops")


# files


def test_what_waits_and_what_is_refused(tmp_path):
    folder, home = tmp_path / "in", tmp_path / ".mlops"
    folder.mkdir()
    rows = pd.DataFrame({"id": [1, 2], "n": [3.5, 4.0]})
    whole = rows.to_parquet()
    data = Data(source="in", landing={"settle": "5 seconds"})
    (folder / "a.parquet").write_bytes(whole)
    (folder / "b.parquet").write_bytes(whole[:-9])
    (folder / "c.parquet.tmp").write_bytes(whole)
    said = why_refused(landed, data, tmp_path, home)
    assert "nothing has arrived there yet; waiting: a.parquet: it was written within 5 seconds" in said
    for file in folder.iterdir():
        os.utime(file, (time.time() - 60,) * 2)
    made = landed(data, tmp_path, home)
    assert [f.name for f in made.parts] == ["a.parquet"] and made.waits == ["b.parquet: it has no end that Parquet files have", "c.parquet.tmp: its name says that it isn't complete"]
    os.utime(folder / "a.parquet")  # touched: the same bytes
    assert landed(data, tmp_path, home).sha256 == made.sha256
    (folder / "a.parquet").rename(folder / "old.parquet")  # renamed: the same rows
    os.utime(folder / "old.parquet", (time.time() - 60,) * 2)
    renamed = landed(data, tmp_path, home)
    assert renamed.sha256 == made.sha256 and renamed.landed == {"batches": 1, "moved": 1}
    (folder / "old.parquet").write_bytes(rows.assign(n=0.0).to_parquet())
    again = why_refused(landed, data, tmp_path, home)
    assert "old.parquet was read with" in again and "give new rows a file of their own" in again
    (folder / "old.parquet").unlink()
    assert landed(data, tmp_path, home).content() == renamed.content(), "what has landed stays"
    (folder / "twin.parquet").write_bytes(whole)  # the same bytes, beside nothing that they could have been
    os.utime(folder / "twin.parquet", (time.time() - 60,) * 2)
    assert landed(data, tmp_path, home).landed == {"batches": 1, "moved": 2}


def test_places_that_are_none(tmp_path):
    home = tmp_path / ".mlops"
    for said, wanted in (
        ({"source": "none/*.csv", "landing": True}, "a landing place is a folder that is there"),
        ({"source": "https://example.org/a.csv", "landing": True}, "is no landing place"),
        ({"source": "sqlite:///shop.db#t", "landing": True}, "add by: id, or a time"),
        ({"source": "in", "landing": {"by": "id"}}, "are for the rows of a database"),
        ({"source": "in", "landing": {"settle": "5"}}, "expected a span of time"),
    ):
        assert wanted in why_refused(landed, Data(**said), tmp_path, home), said
        if "none" not in said["source"]:
            assert wanted in why_refused(check_sources, Data(**said), tmp_path)
    assert "a landing place grows" in why_refused(landed, Data(source="in", landing=True, sha256="0" * 64), tmp_path, home)
    assert Data(source="in", landing=False).model_dump() == Data(source="in").model_dump()


def test_what_a_charter_learns_from(tmp_path):
    """The rows so far as one table, counted in origin; a landing place may be joined, too."""
    folder = tmp_path / "in"
    folder.mkdir()
    people_in = {"source": "in/*.csv", "landing": {"settle": "0 seconds"}}
    (folder / "1.csv").write_text("id,age,buys\n1,39,yes\n2,50,no\n")
    charter = charter_of(people_in)
    assert source_rows(charter, tmp_path).frame["id"].tolist() == [1, 2]
    (folder / "0.csv").write_text("id,age,buys\n3,28,yes\n4,31,no\n")
    file = source_file(charter, tmp_path)
    made = source_rows(charter, tmp_path).frame
    assert made["id"].tolist() == [1, 2, 3, 4], "in the order in which they came"
    shop(tmp_path, "id integer, n integer", [(k, k) for k in (1, 2, 3, 4)]).close()
    two = charter_of(people_in, {"source": "sqlite:///shop.db#visits", "key": "id", "landing": {"by": "id"}})
    assert source_rows(two, tmp_path).frame["n"].tolist() == [1, 2, 3, 4]
    from mlops_nb.model.problem import Problem

    problem = Problem.model_validate(charter.statement())
    origin = describe_origin(file, made, made, problem)
    assert origin["landed"] == {"batches": 2} and [one["name"] for one in origin["sources"]] == ["1.csv", "0.csv"]
    (folder / "2.csv").write_text("id,age\n5,28\n")
    assert "2.csv has no column 'buys'" in why_refused(source_rows, charter, tmp_path)


def old(file: Path, text: str) -> Path:
    file.write_text(text)
    os.utime(file, (time.time() - 60,) * 2)
    return file


def test_equal_files_that_are_renamed(tmp_path):
    (folder := tmp_path / "in").mkdir()
    data, home = Data(source="in", landing=True), tmp_path / ".mlops"
    for name in "ab":
        old(folder / f"{name}.csv", "x\n1\n")
    assert landed(data, tmp_path, home).landed == {"batches": 2}
    for was, now in ("ac", "bd"):
        (folder / f"{was}.csv").rename(folder / f"{now}.csv")
    assert landed(data, tmp_path, home).landed == {"batches": 2, "moved": 2}
    old(folder / ("z." + "x" * 200), "x\n1\n")
    assert "move that file away" in why_refused(landed, data, tmp_path, home)


def test_damage_in_the_store_is_said(tmp_path):
    (folder := tmp_path / "in").mkdir()
    data, home = Data(source="in", landing=True), tmp_path / ".mlops"
    old(folder / "a.csv", "x\n1\n")
    batch = Path(landed(data, tmp_path, home).parts[0].path)
    before = batch.read_bytes()
    batch.write_text("x\n2\n")
    assert f"has other bytes (landing/{batch.parent.name}/" in why_refused(landed, data, tmp_path, home)
    batch.unlink()
    assert "what was taken of a.csv is gone" in why_refused(landed, data, tmp_path, home)
    batch.write_bytes(before)
    state = batch.with_name("state.json")
    state.write_bytes(state.read_bytes()[:40])
    assert "state.json is damaged; bring it back, or to begin it anew, remove landing/" in why_refused(landed, data, tmp_path, home)
    assert batch.exists()
    import shutil

    shutil.rmtree(batch.parent)
    assert landed(data, tmp_path, home).landed == {"batches": 1}, "the way out leads out"


def test_a_file_of_other_columns_names_the_way_out(tmp_path):
    (folder := tmp_path / "in").mkdir()
    data, home = Data(source="in", landing=True), tmp_path / ".mlops"
    old(folder / "a.csv", "x\n1\n")
    old(folder / "b.csv", "y\n1\n")
    said = why_refused(gather, landed(data, tmp_path, home), data)
    assert "a landing place keeps what it took; mend it there and, to begin it anew, remove landing/" in said


def test_one_row_deleted_and_one_late_at_once(tmp_path):
    data, home = Data(source="sqlite:///shop.db#visits", landing={"by": "n"}), tmp_path / ".mlops"
    with closing(shop(tmp_path, "n integer, v text", [(1, "a"), (2, "b"), (5, "e")])) as db:
        landed(data, tmp_path, home)
        db.execute("delete from visits where n = 1")
        db.execute("insert into visits values (3, 'late')")
        db.commit()
        assert landed(data, tmp_path, home).landed == {"batches": 2, "rows": 4, "gone": 1, "late": 1}
        assert sorted(rows_in(tmp_path, data)["n"]) == [1, 2, 3, 5]
        db.execute("delete from visits where n = 2")
        db.execute("insert into visits values (5, 'twin')")
        db.commit()
        assert landed(data, tmp_path, home).landed == {"batches": 3, "rows": 5, "gone": 2, "late": 2}


@pytest.mark.parametrize("looked", [100_000, 0])
def test_a_row_that_is_updated_is_said_and_neither_lost_nor_doubled(tmp_path, monkeypatch, looked):
    """Its first values stay; where rows are many it is seen when one more comes."""
    monkeypatch.setattr("mlops_nb.sources.growing._LOOKED", looked)
    data, home = Data(source="sqlite:///shop.db#visits", landing={"by": "id"}), tmp_path / ".mlops"
    with closing(shop(tmp_path, "id integer, v text, w real", [(k, f"v{k}", k / 4) for k in range(1, 10)])) as db:
        first = landed(data, tmp_path, home)
        assert landed(data, tmp_path, home).content() == first.content() and not first.waits
        db.execute("update visits set v = 'new' where id in (3, 7)")
        db.commit()
        seen = landed(data, tmp_path, home)
        assert seen.landed == ({"batches": 1, "rows": 9, "altered": 2} if looked else {"batches": 1, "rows": 9})
        db.executemany("insert into visits values (?, ?, ?)", [(0, "late", 0), (12, "next", 3)])
        db.execute("update visits set w = null where id = 5")
        db.execute("delete from visits where id = 1")
        db.commit()
        made, again = landed(data, tmp_path, home), landed(data, tmp_path, home)
    assert made.landed == {"batches": 3, "rows": 11, "late": 1, "gone": 1, "altered": 3}
    assert (again.landed, again.waits) == ((made.landed, made.waits) if looked else ({"batches": 3, "rows": 11, "late": 1, "gone": 1}, [])), "what isn't compared isn't counted"
    (said,) = made.waits
    assert said.startswith("3 rows with other values now than were read with the same 'id'; the first values stay; a table")
    assert "leaving landing out" in said and f"remove landing/{next((home / 'landing').iterdir()).name} in the store" in said
    rows = rows_in(tmp_path, data).set_index("id").sort_index()
    assert rows.index.tolist() == [*range(10), 12] and rows.loc[[3, 7], "v"].tolist() == ["v3", "v7"] and rows.loc[5, "w"] == 1.25


def test_an_updated_row_of_a_time_that_several_have(tmp_path):
    """Which of them it was, nobody can tell: it is read, and the one that it was is gone."""
    data, home = Data(source="sqlite:///shop.db#visits", landing={"by": "at"}), tmp_path / ".mlops"
    with closing(shop(tmp_path, "at text, who text, n integer", [("2026-01-01 10:00:00", "ada", 1), ("2026-01-01 10:00:00", "bo", 2), ("2026-01-02 10:00:00", "di", 4)])) as db:
        landed(data, tmp_path, home)
        db.execute("update visits set n = 5 where who = 'bo'")
        db.execute("update visits set n = 6 where who = 'di'")
        db.commit()
        made = landed(data, tmp_path, home)
        assert made.landed == {"batches": 2, "rows": 4, "late": 1, "gone": 1, "altered": 1}
        assert made.waits[0].startswith("1 row with other values now than were read with the same 'at'")
        assert landed(data, tmp_path, home).content() == made.content(), "once"
    read = rows_in(tmp_path, data)[["who", "n"]].itertuples(index=False, name=None)
    assert sorted(read) == [("ada", 1), ("bo", 2), ("bo", 5), ("di", 4)]


@pytest.mark.parametrize("looked", [100_000, 0])
def test_rows_of_a_day_that_come_while_another_goes(tmp_path, monkeypatch, looked):
    monkeypatch.setattr("mlops_nb.sources.growing._LOOKED", looked)
    data, home = Data(source="sqlite:///shop.db#visits", landing={"by": "day"}), tmp_path / ".mlops"
    with closing(shop(tmp_path, "day integer, who text", [(1, "a"), (1, "b"), (2, "c")])) as db:
        landed(data, tmp_path, home)
        db.execute("delete from visits where who = 'a'")
        db.executemany("insert into visits values (1, ?)", ["y", "z"])
        db.commit()
        made = landed(data, tmp_path, home)
    assert made.landed == {"batches": 2, "rows": 5, "late": 2, "gone": 1} and not made.waits
    assert sorted(rows_in(tmp_path, data)["who"]) == ["a", "b", "c", "y", "z"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=4), min_size=1, max_size=5))
def test_no_row_of_days_that_several_have_is_lost(tmp_path, turns):
    """Rows are deleted and inserted at once, again and again: each that was there when it was read, is read once."""
    from tempfile import TemporaryDirectory

    data = Data(source="sqlite:///shop.db#visits", landing={"by": "day"})
    with TemporaryDirectory(dir=tmp_path) as name, closing(sqlite3.connect((folder := Path(name)) / "shop.db")) as db:
        db.execute("create table visits (day integer, who integer)")
        seen, who = set(range(8)), 8
        db.executemany("insert into visits values (?, ?)", [(k // 2, k) for k in seen])
        db.commit()
        landed(data, folder, folder / ".mlops")
        for turn in turns:
            for day, lost in turn:
                if lost:
                    db.execute("delete from visits where who = (select min(who) from visits where day = ?)", [day])
                db.execute("insert into visits values (?, ?)", [day, who])
                who += 1
            db.commit()
            seen |= {k for (k,) in db.execute("select who from visits")}
            landed(data, folder, folder / ".mlops")
        assert sorted(rows_in(folder, data)["who"]) == sorted(seen)


def test_many_updated_rows_are_found_in_one_pass(tmp_path):
    """The lines of its module that run are counted, and no clock: a fixed number for each row."""
    data, home, n, lines = Data(source="sqlite:///shop.db#visits", landing={"by": "id"}), tmp_path / ".mlops", 20_000, 0

    def line(frame, event, _):
        nonlocal lines
        lines += event == "line"
        assert lines < 40 * n, "more work than one pass over the rows"
        return line

    with closing(shop(tmp_path, "id integer, n integer", [(k, k) for k in range(n)])) as db:
        landed(data, tmp_path, home)
        db.execute("update visits set n = n + 1")
        db.commit()
    before = sys.gettrace()
    sys.settrace(lambda frame, event, _: line if frame.f_code.co_filename.endswith("sources/growing.py") else None)
    try:
        made = landed(data, tmp_path, home)
    finally:
        sys.settrace(before)
    assert made.landed == {"batches": 1, "rows": n, "altered": n} and lines > n
    assert made.waits[0].startswith("20,000 rows with other values now")


def test_no_value_of_a_row_is_in_what_a_run_warns_of(tmp_path):
    """Warnings go to summaries and to tracking servers."""
    data, home = Data(source="sqlite:///shop.db#visits", landing={"by": "at", "delay": "1 day"}), tmp_path / ".mlops"
    with closing(shop(tmp_path, "at text, who text", [("2025-11-13", "zoe"), ("2025-11-14", "yan"), (None, "xi"), ("2026-03-01", "wu")])) as db:
        landed(data, tmp_path, home, NOW)
        db.execute("update visits set who = 'vera' where who = 'zoe'")
        db.commit()
        said = landed(data, tmp_path, home, NOW).waits
    assert [one.partition(";")[0] for one in said] == ["1 row with other values now than were read with the same 'at'", "1 row without a value of 'at'", "1 row younger than the delay"]
    assert not [value for value in ("2025", "2026", "zoe", "vera", "yan", "xi", "wu") if any(value in one.partition("remove landing/")[0] for one in said)]


def test_a_column_that_comes_later(tmp_path):
    data, home = Data(source="sqlite:///shop.db#visits", landing={"by": "id"}), tmp_path / ".mlops"
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute("create table visits (id integer, v integer)")
        db.execute("insert into visits values (1, 5)")
        db.commit()
        landed(data, tmp_path, home)
        db.execute("alter table visits add column w text")
        db.execute("insert into visits values (0, 8, 'late'), (4, 8, 'x')")
        db.commit()
        said = why_refused(landed, data, tmp_path, home)
        assert "has a column 'w' that it lacked when its first rows were read; nothing was taken" in said
        place = next((home / "landing").iterdir())
        assert f"remove landing/{place.name} in the store" in said and len(list(place.glob("*.parquet"))) == 1
        db.execute("alter table visits drop column w")
        db.commit()
        assert landed(data, tmp_path, home).landed == {"batches": 3, "rows": 3, "late": 1}
