"""Rows from several places: joined by key and by time, asked of real databases and servers, and what is refused."""

import base64
import getpass
import hashlib
import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_nb.base.artifacts import Json, Store
from mlops_nb.base.charter import Charter, Joined
from mlops_nb.base.errors import MlopsError, why_refused
from mlops_nb.base.settings import load_settings
from mlops_nb.loop.challenger import challenger_charter
from mlops_nb.model.problem import Problem
from mlops_nb.pipeline import stage
from mlops_nb.pipeline.tracking import _public
from mlops_nb.sources import remote
from mlops_nb.sources.files import source_file
from mlops_nb.sources.gather import check_sources, gather, source_rows
from mlops_nb.sources.joins import join
from mlops_nb.stages.ingest import describe_origin

STATED = {"name": "shop", "goal": "Whom to call", "task": "binary", "target": "buys", "positive": "yes", "metric": "roc_auc"}
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def charter_of(*data: dict) -> Charter:
    return Charter.model_validate(STATED | {"data": list(data)})


def rows_of(folder: Path, *data: dict) -> pd.DataFrame:
    return source_rows(charter_of(*data), folder).frame


def refusal(folder: Path, *data: dict) -> str:
    return why_refused(source_rows, charter_of(*data), folder)


def shop_db(folder: Path, rows: list[tuple], name: str = "shop.db") -> None:
    """A SQLite database with one table of visits."""
    with closing(sqlite3.connect(folder / name)) as db:
        db.execute("create table visits (id integer, n integer)")
        db.executemany("insert into visits values (?, ?)", rows)
        db.commit()


@pytest.fixture
def people(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("id,age,buys\n1,39,yes\n2,50,no\n3,28,yes\n4,31,no\n")
    return tmp_path


PEOPLE = {"source": "people.csv"}
VISITS = {"source": "sqlite:///shop.db#visits", "key": "id", "lost": 0.5}


# joins

keys = st.one_of(st.integers(0, 4), st.none())
times = st.integers(0, 30)


@QUICK
@given(
    st.lists(st.tuples(keys, times), min_size=1, max_size=25),
    st.lists(st.tuples(keys, times), max_size=25, unique=True),
    st.sampled_from([None, 0, 1, 5]), st.sampled_from([None, 0, 3, 12]), st.booleans(),
)
def test_no_joined_row_is_newer_than_the_row_that_asks(asks, known, delay, within, clocks):
    """Against the definition, row by row: the newest of the same key that is known by then, and not too old."""
    rows, more = pd.DataFrame(asks, columns=["k", "t"]), pd.DataFrame(known, columns=["k", "at"]).assign(value=range(len(known)))
    rows["k"], more["k"] = rows["k"].astype("float64"), more["k"].astype("float64")
    span = {"delay": delay, "within": within}
    if clocks:
        rows["t"], more["at"] = (pd.to_datetime(c, unit="h", origin="2026-03-01") for c in (rows["t"], more["at"].astype("int64")))
    how = Joined(source="s", key=["k"], as_of="t", known_at="at", lost=1.0, doubled=9.0, **{n: f"{v} hours" if clocks else str(v) for n, v in span.items() if v is not None})
    made = join(rows, more, how)
    for (key, time), got in zip(asks, made.frame["value"], strict=True):
        there = [(at, n) for n, (k, at) in enumerate(known) if key is not None and k == key and at + (delay or 0) <= time and (within is None or at + (delay or 0) >= time - within)]
        assert (np.isnan(got) and not there) or got == max(there)[1], (key, time, got, there)
    assert made.facts["lost"] == int(made.frame["value"].isna().sum()) and len(made.frame) == len(rows)
    assert made.frame[["k", "t"]].equals(rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_by_time_as_duckdb_has_it(seed):
    """The same join by another program: DuckDB's ASOF JOIN."""
    duckdb = pytest.importorskip("duckdb")
    random = np.random.default_rng(seed)
    rows = pd.DataFrame({"k": random.integers(0, 5, 60), "t": pd.Timestamp("2026-03-01") + pd.to_timedelta(random.integers(0, 500, 60), "h"), "row": range(60)})
    more = pd.DataFrame({"k": random.integers(0, 5, 80), "at": pd.Timestamp("2026-03-01") + pd.to_timedelta(random.choice(500, 80, replace=False), "h"), "value": range(80)})
    made = join(rows, more, Joined(source="s", key=["k"], as_of="t", known_at="at", lost=1.0)).frame
    told = duckdb.sql("select row, value from rows asof left join more on rows.k = more.k and rows.t >= more.at order by row").df()
    assert made["value"].fillna(-1).tolist() == told["value"].fillna(-1).tolist()


@QUICK
@given(st.lists(keys, min_size=1, max_size=20), st.lists(keys, max_size=20), st.booleans())
def test_by_key_as_a_database_has_it(ours, theirs, texts):
    """SQLite's left join: missing keys find nothing, and who finds several stands there several times."""
    as_key = (lambda k: None if k is None else f"k{k}") if texts else (lambda k: k)
    left, right = [(n, as_key(k)) for n, k in enumerate(ours)], [(as_key(k), n) for n, k in enumerate(theirs)]
    kind = "str" if texts else "float64"
    rows, more = pd.DataFrame(left, columns=["row", "k"]).astype({"k": kind}), pd.DataFrame(right, columns=["k", "value"]).astype({"k": kind})
    made = join(rows, more, Joined(source="s", key=["k"], lost=1.0, doubled=99.0))
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("create table a (row, k)")
        db.execute("create table b (k, value)")
        db.executemany("insert into a values (?, ?)", left)
        db.executemany("insert into b values (?, ?)", right)
        told = db.execute("select row, value from a left join b on a.k = b.k").fetchall()
    got = [(int(r), None if np.isnan(v) else int(v)) for r, v in zip(made.frame["row"], made.frame["value"].astype("float64"), strict=True)]
    assert sorted(got, key=str) == sorted(told, key=str)
    assert made.facts["doubled"] == len(told) - len(ours) and made.facts["lost"] == sum(v is None for _, v in told)


def test_a_join_stops_where_more_is_lost_or_doubled_than_may_be(people):
    shop_db(people, [(1, 4), (3, 9), (3, 1)])
    doubled = refusal(people, PEOPLE, VISITS)
    assert "id = 3 stands 2 times" in doubled and "4 rows would become 5" in doubled and "join by time" in doubled
    assert len(rows_of(people, PEOPLE, VISITS | {"doubled": 0.25})) == 5
    lost = refusal(people, PEOPLE, VISITS | {"doubled": 0.25, "lost": 0.25})
    assert "2 of 4 rows (50.0%) find nothing by id, such as id = 2; at most 25.0% are expected" in lost
    (people / "other.csv").write_text("id,size\na7,3\n")
    assert "holds numbers in the rows so far and text" in refusal(people, PEOPLE, {"source": "other.csv", "key": "id"})
    (people / "other.csv").write_text("id,age\n1,3\n")
    assert "column 'age' is in the rows already" in refusal(people, PEOPLE, {"source": "other.csv", "key": "id", "lost": 1.0})


def test_large_numbers_are_not_taken_for_each_other(people):
    """2**53 and the next number are one float: with a missing key beside them, they would find each other."""
    pd.DataFrame({"id": [2**53, 7], "buys": ["yes", "no"]}).to_parquet(people / "big.parquet")
    pd.DataFrame({"id": [2.0**53, None], "n": [1, 2]}).to_parquet(people / "more.parquet")
    near = pd.DataFrame({"id": [2**53 + 1, 8], "buys": ["yes", "no"]})
    near.to_parquet(people / "big.parquet")
    assert "over 2**53" in refusal(people, {"source": "big.parquet"}, {"source": "more.parquet", "key": "id", "lost": 1.0})


# databases

POSTGRES = os.environ.get("TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/test")
MARIADB = os.environ.get("TEST_MARIADB", "mariadb://root@localhost/test?unix_socket=/var/run/mysqld/mysqld.sock")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request, people):
    """An address, and what runs a statement there."""
    import sqlalchemy as sa

    if request.param == "sqlite":
        address, real = "sqlite:///made.db", f"sqlite:///{people}/made.db"
    else:
        address = POSTGRES if request.param == "postgresql" else MARIADB
        real = address.replace("postgresql://", "postgresql+psycopg://").replace("mariadb://", "mariadb+pymysql://")
        pytest.importorskip("psycopg" if request.param == "postgresql" else "pymysql")
    engine = sa.create_engine(real)
    name = f"visits_{os.getpid()}"

    def run(*said: str) -> None:
        with engine.begin() as connection:
            for one in said:
                connection.execute(sa.text(one.replace("VISITS", name)))

    try:
        run("drop table if exists VISITS")
    except sa.exc.SQLAlchemyError as error:
        pytest.skip(f"{request.param} doesn't answer: {str(error).splitlines()[0][:80]}")
    yield address, name, run
    run("drop table if exists VISITS")
    engine.dispose()


def test_what_a_database_answers(database, people):
    address, name, run = database
    run("create table VISITS (id integer, n numeric(8, 2), plan varchar(9), since date)", *[f"insert into VISITS values ({k}, {k}.25, 'gold', '2026-03-0{k}')" for k in (1, 2, 3)])
    asked = {"source": address, "query": f"select id, n, plan, since from {name} where plan <> 'a:b'", "key": "id", "lost": 0.5}
    first = source_file(charter_of(PEOPLE, asked), people)
    made = gather(first, charter_of(PEOPLE, asked).data).frame
    assert made["n"].fillna(0).tolist() == [1.25, 2.25, 3.25, 0] and made["plan"].dropna().tolist() == ["gold"] * 3
    run("delete from VISITS where id = 1", "insert into VISITS values (1, 1.25, 'gold', '2026-03-01')")  # the same rows in another order
    assert source_file(charter_of(PEOPLE, asked), people).sha256 == first.sha256
    run("update VISITS set n = 8 where id = 2")
    assert source_file(charter_of(PEOPLE, asked), people).sha256 != first.sha256
    with pytest.raises(MlopsError, match="failed: .*nn"):
        source_file(charter_of(PEOPLE, asked | {"query": f"select nn from {name}"}), people)
    with pytest.raises(MlopsError, match="."):
        source_file(charter_of(PEOPLE, asked | {"query": f"with gone as (select 1) delete from {name}"}), people)
    whole = source_file(charter_of(PEOPLE, asked | {"query": f"select count(*) as n from {name}"}), people)
    assert pd.read_parquet(Store(people / ".mlops").path(whole.parts[1].sha256))["n"].tolist() == [3]


def test_a_database_that_is_away_and_a_password(people, monkeypatch):
    pytest.importorskip("psycopg")
    away = {"source": "postgresql://reader:${SHOP_DB_PASSWORD}@127.0.0.1:1/shop", "query": "select 1 as id", "key": "id"}
    assert "the environment has no SHOP_DB_PASSWORD" in refusal(people, PEOPLE, away)
    monkeypatch.setenv("SHOP_DB_PASSWORD", "hunter2/x")
    said = refusal(people, PEOPLE, away)
    assert "is away" in said and "hunter2" not in said
    spoken = refusal(people, PEOPLE, away | {"source": "postgresql://reader:hunter2@127.0.0.1:1/shop"})
    assert "holds a password" in spoken and "hunter2" not in spoken and "${SHOP_DB_PASSWORD}" in spoken
    assert "no such file" in refusal(people, PEOPLE, {"source": "sqlite:///none.db#t", "key": "id"}) and not (people / "none.db").exists()


def test_what_no_join_can_keep_is_refused(people):
    """Whole numbers that lose digits, keys and spans that make no sense, paths that are none."""
    (people / "big.csv").write_text(f"id,account\n1,{2**53 + 1}\n2,7\n3,8\n4,9\n")
    big = {"source": "big.csv", "key": "id"}
    assert rows_of(people, PEOPLE, big)["account"].tolist()[0] == 2**53 + 1
    (people / "big.csv").write_text(f"id,account\n1,{2**53 + 1}\n2,7\n3,8\n")
    assert "column 'account' has numbers over 2**53" in refusal(people, PEOPLE, big | {"lost": 0.5})
    kept = rows_of(people, PEOPLE, big | {"lost": 0.5, "columns": {"account": {"kind": "text"}}})["account"]
    assert kept.tolist()[0] == str(2**53 + 1) and kept.isna().tolist() == [False, False, False, True]
    by_time = {"source": "big.csv", "key": "id", "as_of": "age", "known_at": "account"}
    for wrong in ({"key": ["id", "id"]}, {"delay": "-5"}, {"delay": "nan"}, {"within": "inf"}, {"within": "99999999 weeks"}, {"delay": "9" * 400 + " days"}):
        assert why_refused(charter_of, PEOPLE, by_time | wrong, error=ValueError), wrong
    long_ago = pd.DataFrame({"k": [1], "t": [2**60]}), pd.DataFrame({"k": [1], "at": [2**60 + 1], "v": [1]})
    assert "can't be told apart" in why_refused(join, *long_ago, Joined(source="s", key=["k"], as_of="t", known_at="at", lost=1.0))
    for name in ("a\0.csv", "**a.csv", "data/**a.csv", "*\0"):
        assert "can't be read" in refusal(people, {"source": name}), name


# clocks

SEOUL = {"columns": {"t": {"kind": "datetime", "zone": "Asia/Seoul"}}}
MIDNIGHT = [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02")]


def test_a_time_zone_is_applied_once(tmp_path):
    """Nine in Seoul is midnight in UTC, whatever file the texts stand in; and a retraining's rows, in UTC already, stay so."""
    texts = pd.DataFrame({"id": [1, 2], "t": ["2026-01-01 09:00:00", "2026-01-02 09:00:00"], "buys": ["yes", "no"]})
    texts.to_csv(tmp_path / "a.csv", index=False)
    texts.to_parquet(tmp_path / "a.parquet")
    texts.assign(t=pd.to_datetime(texts["t"])).to_parquet(tmp_path / "typed.parquet")
    (tmp_path / "more.csv").write_text("id,n\n1,4\n2,5\n")
    for name in ("a.csv", "a.parquet"):
        made = rows_of(tmp_path, {"source": name} | SEOUL)
        assert made["t"].tolist() == MIDNIGHT and made["t"].dtype == "datetime64[us]"
    for name in ("a.csv", "a.parquet", "typed.parquet"):
        assert rows_of(tmp_path, {"source": name} | SEOUL, {"source": "more.csv", "key": "id"})["t"].tolist() == MIDNIGHT
    charter = Charter.model_validate(STATED | {"data": {"source": "a.csv"} | SEOUL})
    champion = source_rows(charter, tmp_path)
    champion.frame.to_parquet(tmp_path / "rows.parquet")
    challenger = Charter.model_validate(challenger_charter(charter, tmp_path / "rows.parquet", tmp_path, ["id", "t"], champion.readings))
    assert source_rows(challenger, tmp_path).frame.equals(champion.frame) and challenger.data.columns["t"].zone == "Asia/Seoul"


def test_times_of_several_zones_in_one_column(tmp_path):
    """Zones that are named are applied, row by row; beside times that name none, a person says whose clock those show."""
    (tmp_path / "a.csv").write_text("id,t,buys\n1,2026-01-01T09:00+09:00,yes\n2,2026-01-01T01:00+01:00,no\n3,2026-01-01T00:00Z,no\n")
    assert rows_of(tmp_path, {"source": "a.csv"})["t"].tolist() == [MIDNIGHT[0]] * 3
    (tmp_path / "a.csv").write_text("id,t,buys\n1,2026-01-01T01:00+01:00,yes\n2,2026-01-01T09:00:00,no\n")
    said = refusal(tmp_path, {"source": "a.csv"})
    assert "column 't': some times name their time zone and others don't" in said and '"t": {kind: datetime, zone: UTC}' in said
    assert rows_of(tmp_path, {"source": "a.csv"} | SEOUL)["t"].tolist() == [MIDNIGHT[0]] * 2
    (tmp_path / "b.csv").write_text("id,t,buys\n1,2026-01-01T01:00Z,yes\n2,2026-01-01T09:00Z,no\n")
    (tmp_path / "c.csv").write_text("id,t,buys\n1,2026-01-01T01:00,yes\n2,2026-01-01T09:00,no\n")
    assert "some times name their time zone" in refusal(tmp_path, {"source": "[bc].csv"})


def test_no_clock_lets_the_future_through(tmp_path):
    """Times whose clock is known, by texts or charter, are compared in UTC; with times of unknown clocks they aren't."""
    asked = ["2026-01-01 09:00:00", "2026-01-02 09:00:00"]
    pd.DataFrame({"id": [1, 2], "t": asked}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"id": [1, 2], "t": pd.to_datetime(asked).tz_localize("Asia/Seoul")}).to_parquet(tmp_path / "aware.parquet")
    pd.DataFrame({"id": [1, 2], "t": pd.to_datetime(asked)}).to_parquet(tmp_path / "bare.parquet")
    how = {"key": "id", "as_of": "t", "known_at": "w", "lost": 1.0}
    seoul = {"columns": {"w": {"kind": "datetime", "zone": "Asia/Seoul"}}}
    zoned = [{"source": "a.csv"} | SEOUL, {"source": "aware.parquet"}, {"source": "bare.parquet"} | SEOUL]
    for hour, found in (("15", [0, 0]), ("08", [1, 2])):  # known six hours later, an hour before
        days = [f"2026-01-0{day}T{hour}:00:00" for day in (1, 2)]
        pd.DataFrame({"id": [1, 2], "w": days, "v": [1, 2]}).to_csv(tmp_path / "bare.csv", index=False)
        pd.DataFrame({"id": [1, 2], "w": [f"{day}+09:00" for day in days], "v": [1, 2]}).to_csv(tmp_path / "offset.csv", index=False)
        pd.DataFrame({"id": [1, 2], "w": pd.to_datetime(days).tz_localize("Asia/Seoul"), "v": [1, 2]}).to_parquet(tmp_path / "w.parquet")
        pd.DataFrame({"id": [1, 2], "w": [f"{days[0]}+09:00", days[1]], "v": [1, 2]}).to_csv(tmp_path / "some.csv", index=False)
        with closing(sqlite3.connect(tmp_path / f"{hour}.db")) as db:
            db.execute("create table m (id integer, w text, v real)")
            db.executemany("insert into m values (?, ?, ?)", [(1, days[0], 1.0), (2, days[1], 2.0)])
            db.commit()
        pd.DataFrame({"id": [1, 2], "w": [f"{day}+09:00" for day in days], "v": [1, 2]}).to_json(tmp_path / "w.jsonl", orient="records", lines=True)
        (tmp_path / "some.jsonl").write_text(f'{{"id": 1, "w": "{days[0]}+09:00"}}\n{{"id": 2, "w": "{days[1]}"}}\n')
        clocked = [{"source": "bare.csv"} | seoul, {"source": "offset.csv"}, {"source": "w.jsonl"}, {"source": "w.parquet"}, {"source": f"sqlite:///{hour}.db#m"} | seoul]
        for facts in clocked:
            for rows in zoned:
                assert rows_of(tmp_path, rows, facts | how)["v"].fillna(0).tolist() == found, (rows, facts)
            said = refusal(tmp_path, {"source": "a.csv"}, facts | how)
            assert "'t' in the rows so far has none" in said and "zone: UTC" in said, facts
        for rows in zoned:
            assert "'w' in bare.csv has none" in refusal(tmp_path, rows, {"source": "bare.csv"} | how)
            assert "some.csv: column 'w': some times name their time zone" in refusal(tmp_path, rows, {"source": "some.csv"} | how)
            told = {"source": "some.jsonl", "columns": {"w": {"kind": "datetime"}}}
            assert "some.jsonl: column 'w': some times name their time zone" in refusal(tmp_path, rows, told | how)
        assert rows_of(tmp_path, zoned[0], {"source": "some.csv"} | seoul | how)["v"].fillna(0).tolist() == found
        assert rows_of(tmp_path, {"source": "a.csv"}, {"source": "bare.csv"} | how)["v"].fillna(0).tolist() == found


# what a run sees

def test_what_is_elsewhere_is_asked_again_by_each_run_and_not_by_each_read(project, monkeypatch):
    """A notebook looks at its view at every read and write; a run asks once, whatever was asked before."""
    shop_db(project.root, [(1, 4), (2, 5), (3, 6)])
    text = (project.root / "tiny.yaml").read_text()
    (project.root / "tiny.yaml").write_text(text.replace("data: {source: rows.csv}", "data: [{source: rows.csv}, {source: 'sqlite:///shop.db#visits', rename: {id: y}, key: y}]"))
    asked, real = [], stage.source_file
    monkeypatch.setattr(stage, "source_file", lambda *given: asked.append(1) or real(*given))
    where = load_settings(project.root)
    store = Store(where.home)
    first = [stage.roots(where, store)["source"] for _ in range(3)]
    assert len(asked) == 1 and stage.roots(where, store, fresh=True)["source"] == first[0] and len(asked) == 2
    with closing(sqlite3.connect(project.root / "shop.db")) as db:
        db.execute("update visits set n = 9 where id = 1")
        db.commit()
    assert stage.roots(where, store)["source"] == first[0]
    changed = stage.roots(where, store, fresh=True)["source"]
    assert changed != first[0] and stage.roots(where, store)["source"] == changed
    content = Json.load(store.get(changed))
    assert [part["name"] for part in content["parts"]] == ["rows.csv", "shop.db#visits"] and str(project.root) not in json.dumps(content)


# files elsewhere

class Answers(BaseHTTPRequestHandler):
    """A server that answers by its table `says`, and keeps what it was asked."""

    says: dict[str, tuple[int, bytes]] = {}
    heard: list[str | None] = []  # who asked

    def do_GET(self):  # noqa: N802 - as http.server calls it
        self.heard.append(self.headers.get("Authorization"))
        code, body = self.says.get(self.path.partition("?")[0], (404, b""))
        length = len(body) + (100 if "cut" in self.path else 0)
        place = b"Location: " + body + b"\r\n" if code == 302 else b""
        self.wfile.write(f"HTTP/1.0 {code} said\r\nContent-Length: {length}\r\n".encode() + place + b"\r\n" + body)

    def log_message(self, *said):
        pass


@pytest.fixture
def web():
    """The address of a server, and the table of its answers."""
    handler = type("Handler", (Answers,), {"says": {}})
    Answers.heard.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.says
        server.shutdown()


MORE = b"id,n\n1,4\n2,5\n3,6\n4,7\n"


def test_over_the_web_by_its_digest(people, web, monkeypatch):
    address, says = web
    says["/more.csv"] = 200, MORE
    more = {"source": f"{address}/more.csv", "key": "id", "sha256": hashlib.sha256(MORE).hexdigest()}
    assert rows_of(people, PEOPLE, more)["n"].tolist() == [4, 5, 6, 7]
    says["/more.csv"] = 200, MORE.replace(b"7", b"8")
    refused = refusal(people, PEOPLE, more)
    assert f"the charter says {more['sha256'][:12]}" in refused and "is kept in .mlops/refused/" in refused
    kept = sorted((people / ".mlops" / "refused").iterdir())
    assert [f.suffix for f in kept] == [".csv", ".txt"] and kept[0].read_bytes() == MORE.replace(b"7", b"8") and more["sha256"] in kept[1].read_text()
    says["/cut.csv"] = 200, MORE
    assert "is away: the connection ended 100 bytes early" in refusal(people, PEOPLE, {"source": f"{address}/cut.csv", "key": "id"})
    says["/shut.csv"] = 403, b""
    monkeypatch.setenv("SHOP_TOKEN", "abcdefgh")
    shut = refusal(people, PEOPLE, {"source": f"{address}/shut.csv?token=${{SHOP_TOKEN}}", "key": "id"})
    assert "answers 403" in shut and "may you read it?" in shut and "abcdefgh" not in shut
    assert not [f for f in (people / ".mlops").iterdir() if f.name.startswith("arriving")]


def test_a_password_for_the_web_goes_to_its_place_alone(people, web, monkeypatch):
    address, says = web
    says["/more.csv"], says["/moved.csv"], says["/away.csv"] = (200, MORE), (302, f"{address}/more.csv".encode()), (302, b"ftp://127.0.0.1:1/more.csv")
    monkeypatch.setenv("SHOP_PASSWORD", "s3cr:t/V@lue 9")
    with_password = address.replace("//", "//ada:${SHOP_PASSWORD}@")
    assert rows_of(people, PEOPLE, {"source": f"{with_password}/more.csv", "key": "id"})["n"].tolist() == [4, 5, 6, 7]
    assert rows_of(people, PEOPLE, {"source": f"{with_password}/moved.csv", "key": "id"})["n"].tolist() == [4, 5, 6, 7]
    basic = f"Basic {base64.b64encode(b'ada:s3cr:t/V@lue 9').decode()}"
    assert Answers.heard == [basic, basic, None]
    assert "it sends us to ftp:" in refusal(people, PEOPLE, {"source": f"{address}/away.csv", "key": "id"})
    for place in ("127.0.0.1:1", "127.0.0.1:nine", "127.0.0.1:99999", "exa mple"):
        for scheme in ("http", "https", "ftp", "sftp"):
            said = refusal(people, PEOPLE, {"source": f"{scheme}://ada:${{SHOP_PASSWORD}}@{place}/more.csv", "key": "id"})
            assert said and not [form for form in ("s3cr", "lue 9", "lue%209") if form in said], said


def test_an_answer_without_end(people, web, monkeypatch):
    address, says = web
    says["/more.csv"] = 200, MORE
    monkeypatch.setattr(remote, "_MOST", len(MORE) - 1)
    said = refusal(people, PEOPLE, {"source": f"{address}/more.csv", "key": "id"})
    assert "gives more than 0 bytes, and no more is brought" in said and not [f for f in (people / ".mlops").iterdir() if f.name.startswith("arriving")]
    monkeypatch.setattr(remote, "_MOST", len(MORE))
    assert rows_of(people, PEOPLE, {"source": f"{address}/more.csv", "key": "id"})["n"].tolist() == [4, 5, 6, 7]
    monkeypatch.setattr(remote, "_LEFT", 1 << 60)
    assert "the disk has no room for more" in refusal(people, PEOPLE, {"source": f"{address}/more.csv", "key": "id"})
    says["/api/v1/json/data/61"] = 200, b"{" * 100
    monkeypatch.setenv("OPENML_SERVER", address)
    monkeypatch.setattr(remote, "_DESCRIBED", 10)
    assert "answers no description of a data set: b'{{{{{{{{{{'" in refusal(people, PEOPLE, {"source": "openml:61", "key": "id"})


@pytest.mark.parametrize("source", [
    "postgresql://ada:hun/ter22@127.0.0.1:1/shop#t", "postgresql://ada:hun@ter22@127.0.0.1:1/shop#t", "postgresql://ada:hun?ter22@127.0.0.1:1/shop#t",
    "postgresql://ada:hun#ter22@127.0.0.1:1/shop#t", "postgresql://:hun-ter22@h/db#t", "postgresql://h/db?user=u&password=hun-ter22#t",
    "https://h/x.csv?sig=hun-ter22", "https://h/x.csv?signature=hun-ter22", "https://h/x.csv?X-Amz-Credential=hun-ter22", "https://h/x.csv?x-goog-signature=hun-ter22",
    "https://h/x.csv?a=1;password=hun-ter22", "https://h/x.csv;token=hun-ter22", "https://h/x.csv#token=hun-ter22", "https://ghp_hunhunhunter22@h/x.csv",
    "https://hun-hun-hun-hun-ter22@h/x.csv", "mssql+pyodbc:///?odbc_connect=UID%3Dada%3BPWD%3Dhun-ter22#t", "zip://x.csv::https://ada:hun-ter22@h/x.zip",
])  # fmt: skip
def test_a_password_in_a_charter_is_refused_and_not_shown(people, source):
    said = [refusal(people, PEOPLE, {"source": source, "key": "id"}), why_refused(check_sources, charter_of(PEOPLE, {"source": source, "key": "id"}).data, people)]
    assert all("holds a password or a key" in one and "hun" not in one and "ter22" not in one for one in said), said
    assert "ter22" not in json.dumps(_public({"data": {"source": source, "query": "select 'hun-ter22'"}}))


def test_a_data_set_of_openml(people, web, monkeypatch):
    """A local server that speaks OpenML's API: its description names the Parquet file, the licence and who made it."""
    address, says = web
    pd.read_csv(io.BytesIO(MORE)).to_parquet(made := io.BytesIO())
    told = {"id": "61", "name": "visits", "version": "2", "licence": "CC0", "creator": ["A. Lovelace", "G. Hopper"], "url": f"{address}/61.arff", "parquet_url": f"{address}/61.pq"}
    says["/api/v1/json/data/61"] = 200, json.dumps({"data_set_description": told}).encode()
    says["/61.pq"] = 200, made.getvalue()
    monkeypatch.setenv("OPENML_SERVER", address)
    asked = {"source": "openml:61", "key": "id"}
    assert rows_of(people, PEOPLE, asked)["n"].tolist() == [4, 5, 6, 7]
    found = source_file(charter_of(PEOPLE, asked), people).parts[1]
    assert found.about == {"licence": "CC0", "attribution": "A. Lovelace, G. Hopper"} and found.name == "openml:61 visits version 2"
    alone, rows = charter_of({"source": "openml:61"}), pd.read_csv(io.BytesIO(MORE))
    said = describe_origin(source_file(alone, people), rows, rows, Problem.model_validate(alone.statement()))
    assert said["licence"] == "CC0" and said["attribution"] == "A. Lovelace, G. Hopper"
    says["/api/v1/json/data/61"] = 200, json.dumps({"data_set_description": told | {"parquet_url": None}}).encode()
    assert "OpenML has no Parquet file of it" in refusal(people, PEOPLE, asked)
    assert "answers 404" in refusal(people, PEOPLE, asked | {"source": "openml:62"}) and "such as openml:61" in refusal(people, PEOPLE, asked | {"source": "openml:iris"})
    says["/api/v1/json/data/63"] = 200, b"<html>busy</html>"
    assert "answers no description" in refusal(people, PEOPLE, asked | {"source": "openml:63"})


def test_a_storage_that_fsspec_knows(people):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://shop/more.csv", "wb") as file:
        file.write(MORE)
    assert rows_of(people, PEOPLE, {"source": "memory://shop/more.csv", "key": "id"})["n"].tolist() == [4, 5, 6, 7]
    assert "there is no such file" in refusal(people, PEOPLE, {"source": "memory://shop/none.csv", "key": "id"})
    assert "expected an address such as" in refusal(people, PEOPLE, {"source": "nowhere://shop/none.csv", "key": "id"})


# formats and what goes wrong with files

@pytest.mark.parametrize("ending", ["csv", "parquet", "feather", "jsonl", "xlsx"])
def test_the_same_rows_in_every_format(people, ending):
    rows = pd.DataFrame({"id": [1, 2, 3, 4], "plan": ["gold", None, "basic", "gold"], "n": [1.5, 2.25, None, -3.0], "on": pd.to_datetime(["2026-03-01 12:30", "2026-03-02 00:00", "2026-03-03 08:15", "2026-03-04 23:59"])})
    file = people / f"more.{ending}"
    if ending == "xlsx":
        pytest.importorskip("openpyxl", reason="openpyxl isn't installed: mlops-nb[data]")
        rows.to_excel(file, index=False)
    elif ending == "jsonl":
        rows.assign(on=rows["on"].dt.strftime("%Y-%m-%dT%H:%M:%S")).to_json(file, orient="records", lines=True)
    else:
        {"csv": lambda: rows.to_csv(file, index=False), "parquet": lambda: rows.to_parquet(file), "feather": lambda: rows.to_feather(file)}[ending]()
    made = rows_of(people, PEOPLE, {"source": file.name, "key": "id"})
    assert made["plan"].fillna("-").tolist() == ["gold", "-", "basic", "gold"] and made["n"].fillna(0).tolist() == [1.5, 2.25, 0, -3.0]
    assert pd.to_datetime(made["on"]).tolist() == rows["on"].tolist()
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open(f"memory://formats/more.{ending}", "wb") as there:
        there.write(file.read_bytes())
    assert rows_of(people, PEOPLE, {"source": f"memory://formats/more.{ending}", "key": "id"}).equals(made)


def test_a_workbook_of_several_sheets(people):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl isn't installed: mlops-nb[data]")
    book = openpyxl.Workbook()
    book.active.append(["id", "n", "note"])
    for row in ([1, 4, "x"], [2, "n/a", None], [3, 6, 7], [4, "#N/A", None]):
        book.active.append(row)
    book.create_sheet("more").append(["id"])
    book["more"].append([1])
    book.save(people / "more.xlsx")
    more = {"source": "more.xlsx", "key": "id"}
    assert "has 2 sheets with rows" in refusal(people, PEOPLE, more) and "has no sheet 'Sheets'" in refusal(people, PEOPLE, more | {"sheet": "Sheets"})
    made = rows_of(people, PEOPLE, more | {"sheet": "Sheet"})
    assert made["n"].fillna("-").tolist() == ["4", "n/a", "6", "-"] and made["note"].dropna().tolist() == ["x", "7"]
    assert rows_of(people, PEOPLE, more | {"sheet": "Sheet", "columns": {"n": {"kind": "number", "missing": ["n/a"]}}})["n"].dropna().tolist() == [4, 6]


def test_files_of_one_folder_that_drift(people):
    months = people / "months"
    months.mkdir()
    (months / "01.csv").write_text("id,at,n\n1,03/04/2026,4\n2,17/04/2026,5\n")
    (months / "02.csv").write_text("id,at,n\n3,2026-05-01,6\n4,2026-05-02,7\n")
    said = refusal(people, PEOPLE, {"source": "months", "key": "id"})
    assert "column 'at' holds times (a time such as 31.12.2026) in 01.csv and times in 02.csv" in said
    (months / "02.csv").write_text("id,n,at\n3,6,18/05/2026\n4,,\n")
    made = rows_of(people, PEOPLE, {"source": "months/*.csv", "key": "id"})
    assert made["n"].fillna(0).tolist() == [4, 5, 6, 0] and made["at"].dropna().dt.month.tolist() == [4, 4, 5]
    (months / "03.csv").write_text("id,n,at,more\n5,6,18/05/2026,1\n")
    assert "03.csv has a column 'more' more" in refusal(people, PEOPLE, {"source": "months", "key": "id"})
    before = source_file(charter_of({"source": "months"}), people).sha256
    (months / "03.csv").unlink()
    assert source_file(charter_of({"source": "months"}), people).sha256 != before


def test_ten_thousand_columns(people):
    wide = pd.DataFrame(np.arange(40_000.0).reshape(4, 10_000), columns=[f"c{k}" for k in range(10_000)]).assign(id=[4, 3, 2, 1])
    wide.to_parquet(people / "wide.parquet")
    made = rows_of(people, PEOPLE, {"source": "wide.parquet", "key": "id"})
    assert made.shape == (4, 10_003) and made["c9999"].tolist() == [39_999.0, 29_999.0, 19_999.0, 9_999.0]


SSHD = os.environ.get("TEST_SSHD") or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.fixture
def ssh(people, monkeypatch):
    """A real sshd on a loopback port, that lets in by a key; its address, and the home of who asks."""
    pytest.importorskip("paramiko", reason="paramiko isn't installed: mlops-nb[data]")
    if not SSHD:
        pytest.skip("no sshd on this machine (TEST_SSHD names one)")
    home = people / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (people / "host", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = f"Port {port}\nListenAddress 127.0.0.1\nHostKey {people}/host\nPidFile none\nStrictModes no\nUsePAM no\nAuthorizedKeysFile {home}/.ssh/id_ed25519.pub\nSubsystem sftp internal-sftp\n"
    (people / "sshd_config").write_text(said)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", people / "sshd_config"], stderr=subprocess.PIPE, text=True)
    line = server.stderr.readline()
    if "listening" not in line:
        server.wait(5)
        pytest.skip(f"sshd doesn't start: {line.strip()}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    kind, key = (people / "host.pub").read_text().split()[:2]
    try:
        yield f"sftp://{getpass.getuser()}@127.0.0.1:{port}", home / ".ssh" / "known_hosts", f"[127.0.0.1]:{port} {kind} {key}\n"
    finally:
        server.terminate()
        server.wait(10)


def test_over_sftp(people, ssh):
    address, known, line = ssh
    (people / "there.csv").write_bytes(MORE)
    more = {"source": f"{address}{people}/there.csv", "key": "id"}
    unknown = refusal(people, PEOPLE, more)
    assert "whose key isn't in ~/.ssh/known_hosts" in unknown and "ssh-keyscan -p" in unknown
    known.write_text(line)
    assert rows_of(people, PEOPLE, more)["n"].tolist() == [4, 5, 6, 7]
    assert "there is no such file" in refusal(people, PEOPLE, more | {"source": f"{address}{people}/none.csv"})
    (known.parent / "id_ed25519").unlink()
    assert "doesn't let us in" in refusal(people, PEOPLE, more)
    words = line.split()
    words[2] = (people / "home" / ".ssh" / "id_ed25519.pub").read_text().split()[1]
    known.write_text(" ".join(words) + "\n")
    assert "shows another key" in refusal(people, PEOPLE, more)


def test_an_sftp_server_that_is_away(people):
    pytest.importorskip("paramiko", reason="paramiko isn't installed: mlops-nb[data]")
    assert "is away" in refusal(people, PEOPLE, {"source": "sftp://127.0.0.1:1/rows.csv", "key": "id"})


def test_a_bucket_on_s3(people, monkeypatch):
    """A real S3 client against moto's server; credentials and endpoint come from the environment, as AWS has it."""
    for name in ("s3fs", "boto3", "moto.server"):
        pytest.importorskip(name, reason=f"{name} isn't installed; it needs an older python-dateutil than the lock has")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret", "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="shop")
        client.put_object(Bucket="shop", Key="may/more.csv", Body=MORE)
        more = {"source": "s3://shop/may/more.csv", "key": "id"}
        assert rows_of(people, PEOPLE, more)["n"].tolist() == [4, 5, 6, 7]
        assert "there is no such file" in refusal(people, PEOPLE, more | {"source": "s3://shop/may/none.csv"})
        away = refusal(people, PEOPLE, more | {"source": "s3://nobodys/more.csv"})
        assert "there is no such" in away and "testing-secret" not in away
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other-secret")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
        nobody = refusal(people, PEOPLE, more)
        assert "is away" in nobody and "other-secret" not in nobody
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
        client.put_object(Bucket="shop", Key="may/more.csv", Body=MORE.replace(b"7", b"8"))
        assert rows_of(people, PEOPLE, more)["n"].tolist() == [4, 5, 6, 8], "nothing of what was there before is kept back"
    finally:
        server.stop()
