"""Labels and ratings by prediction id: rules, files, several writers, kill -9, databases away, erasure; and POST /v1/feedback as its callers see it."""

import concurrent.futures
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from tests.log import test_predictions as test_log
from tests.serving import test_rest

from mlops_nb.base.errors import MlopsError
from mlops_nb.serving.keys import add_key
from mlops_nb.log.events import Events
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.feedback_file import import_file
from mlops_nb.log.items import Item
from mlops_nb.log.history import History
from mlops_nb.log.values import micros
from mlops_nb.log.predictions import PredictionLog, Record
from mlops_nb.log.tables import Away

made, sample, serving, postgres = test_rest.made, test_rest.sample, test_rest.serving, test_log.postgres
SAID = b'{"id": "x", "decision": ">50K", "flags": [], "probability": 0.61, "probabilities": {"<=50K": 0.39, ">50K": 0.61}}'
NUMBER = b'{"id": "x", "decision": 11.5, "flags": []}'


@pytest.fixture(params=["sqlite", "postgres"])
def url(request) -> str:
    return request.getfixturevalue("postgres") if request.param == "postgres" else ""


def predicted(home: Path, url: str, n: int, day: date | None = None, output: bytes = SAID, model: str = "income", prefix: str = "p", subject: str | None = None) -> None:
    """Predictions in the log; now, or on a day."""
    begin = time.time_ns() // 1000 if day is None else micros(day)
    with closing(PredictionLog(home, url)) as log:
        log.put([Record(f"{prefix}{i}", begin - i if day is None else begin + i, model, 3, "", subject or f"person {i % 10}", b'{"age": 31}', output, 3e-4, b"[]") for i in range(n)])
        assert log.flush()


def words(verdicts: list) -> list[str]:
    return [v.verdict for v in verdicts]


# -- rules, in both databases ------------------------------------------------------------------------------------------


def test_from_a_label_to_its_erasure(tmp_path, url):
    today, old = datetime.now(UTC).date(), datetime.now(UTC).date() - timedelta(days=20)
    predicted(tmp_path, url, 20)
    predicted(tmp_path, url, 20, old, prefix="old")
    predicted(tmp_path, url, 3, output=NUMBER, prefix="n")
    feedback, past = Feedback(tmp_path, url), History(tmp_path, url)
    assert words(feedback.put([Item(f"p{i}", ">50K") for i in range(20)])) == ["accepted"] * 20
    assert words(feedback.put([Item("p0", ">50K"), Item("p0", "<=50K"), Item("p0", "<=50K"), Item("nobody", ">50K")])) == ["repeated", "contradicts", "repeated", "unknown"]
    assert words(feedback.put([Item("n0", 12), Item("n1", "12.5"), Item("n2", "many"), Item("n2", float("nan")), Item("n2", True)])) == ["accepted", "accepted", "refused", "refused", "refused"]
    assert words(feedback.put([Item("old0", ">50K"), Item("p1", rating=2, comment="too high"), Item("p1", rating=3)])) == ["late", "accepted", "contradicts"]
    assert past.roll(today) == 20 and words(feedback.put([Item("old0", ">50K"), Item("old1", "<=50K")])) == ["repeated", "late"]
    labels = {row["id"]: row for row in feedback.labels().to_pylist()}
    assert len(labels) == 24 and labels["p0"]["label"] == "<=50K" and labels["p0"]["given"] == 2 and labels["n0"]["label"] == "12.0"
    assert feedback.labels(since=today - timedelta(days=1), model="income").num_rows == 22 and feedback.labels(model="other").num_rows == 0
    assert [r["rating"] for r in feedback.ratings().to_pylist()] == [3]
    assert feedback.counts() == {"accepted": 23, "late": 2, "repeated": 3, "contradicts": 2, "unknown": 1, "refused": 3}
    assert [(e.kind, e.model) for e in Events(tmp_path, url).list(kinds=["feedback"])] == [("feedback", "income")] * 2
    assert past.erase("person 0") == 5  # p0, p10, n0, old0, old10
    assert "p0" not in feedback.labels()["id"].to_pylist() and "old0" not in feedback.labels()["id"].to_pylist() and feedback.labels().num_rows == 20
    past.retain(10)
    assert "old1" not in feedback.labels()["id"].to_pylist() and feedback.labels().num_rows == 19
    assert words(feedback.put([Item("p0", ">50K"), Item("old1", ">50K")])) == ["unknown", "unknown"]
    feedback.close()


def test_clocks_that_disagree(tmp_path, url):
    predicted(tmp_path, url, 5)
    feedback, now = Feedback(tmp_path, url), datetime.now(UTC)
    put = lambda item: feedback.put([item])[0]  # noqa: E731
    assert put(Item("p0", ">50K", at=now + timedelta(minutes=4))).verdict == "accepted"
    ahead = put(Item("p1", ">50K", at=now + timedelta(minutes=10)))
    assert ahead.verdict == "refused" and "in the future" in ahead.reason
    before = put(Item("p2", ">50K", at=now - timedelta(hours=3)))
    assert before.verdict == "accepted" and "observed 3.0 hours before the prediction" in before.reason
    assert words([put(Item("p3", ">50K", at=now)), put(Item("p3", "<=50K", at=now - timedelta(minutes=1))), put(Item("p3", "<=50K", at=now - timedelta(minutes=1)))]) == ["accepted", "contradicts", "repeated"]
    counts = dict(zip(feedback.labels()["id"].to_pylist(), feedback.labels()["label"].to_pylist(), strict=True))
    assert counts["p3"] == ">50K", "what was observed later counts, whatever came later"
    for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)):
        assert put(Item("p4", ">50K", at=at)).verdict in ("accepted", "refused")
    feedback.close()


def test_many_writers_count_each_item_once(tmp_path, url):
    predicted(tmp_path, url, 40)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        several = [Feedback(tmp_path, url) for _ in range(4)]
        said = list(pool.map(lambda n: several[n % 4].put([Item(f"p{i}", ">50K") for i in range(40)]), range(8)))
    assert Counter(v.verdict for one in said for v in one) == {"accepted": 40, "repeated": 280}
    assert several[0].labels()["given"].to_pylist() == [1] * 40
    for feedback in several:
        feedback.close()


def test_erased_feedback_is_nowhere(tmp_path):
    predicted(tmp_path, "", 100, subject="ada-7391")
    feedback = Feedback(tmp_path)
    feedback.put([Item(f"p{i}", rating=1, comment=f"a-secret-comment {i}") for i in range(100)])
    feedback.put([Item("p1", rating=5)])
    feedback.close()
    assert any(b"a-secret-comment" in f.read_bytes() for f in tmp_path.glob("predictions.db*"))
    History(tmp_path).erase("ada-7391")
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert b"a-secret-comment" not in file.read_bytes() and b"ada-7391" not in file.read_bytes(), file


def test_feedback_beside_rolling_and_erasing(tmp_path):
    """What is moved meanwhile is found, what is erased meanwhile leaves nothing behind."""
    day = datetime.now(UTC).date() - timedelta(days=2)
    for turn in range(4):
        predicted(tmp_path, "", 200, day + timedelta(days=turn % 2), prefix=f"t{turn}-")
    past, feedback, said, failed = History(tmp_path), Feedback(tmp_path), [], []

    def give() -> None:
        try:
            for turn in range(4):
                for begin in range(0, 200, 20):
                    said.extend(feedback.put([Item(f"t{turn}-{i}", ">50K") for i in range(begin, begin + 20)]))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=give)
    thread.start()
    past.roll(day + timedelta(days=1))
    past.erase("person 3")
    past.roll(day + timedelta(days=2))
    past.erase("person 4")
    thread.join()
    assert not failed and len(said) == 800
    unknown = [v.id for v in said if v.verdict == "unknown"]
    assert all(int(i.split("-")[1]) % 10 in (3, 4) for i in unknown), "nobody else is lost"
    held = feedback.labels()["id"].to_pylist()
    assert len(held) == 640 and not [i for i in held if int(i.split("-")[1]) % 10 in (3, 4)]
    feedback.close()


# -- killed, and away --------------------------------------------------------------------------------------------------

GIVE = """
import os, sys
from pathlib import Path
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item

feedback = Feedback(Path(sys.argv[1]), sys.argv[2])
for n in range(10**6):
    if feedback.put([Item(f"p{n % 3000}", rating=n // 3000 % 5 + 1, comment=str(n))])[0].verdict in ("accepted", "contradicts"):
        os.write(1, b"%d\\n" % n)
"""


@pytest.mark.slow
def test_killed_with_every_acknowledged_item_kept(tmp_path, url):
    predicted(tmp_path, url, 3000)
    with subprocess.Popen([sys.executable, "-c", GIVE, str(tmp_path), url], stdout=subprocess.PIPE) as process:
        said = [process.stdout.readline()]
        time.sleep(0.7)
        process.kill()
        said += process.stdout.readlines()
    acknowledged = {line.strip().decode() for line in said if line.endswith(b"\n")}
    feedback = Feedback(tmp_path, url)
    held = [row[0] for row in feedback._tables.run(lambda t: t.execute("SELECT comment FROM feedback").fetchall(), write=False)]
    print(f"{len(acknowledged)} acknowledged, {len(held)} held")
    assert len(acknowledged) > 10 and acknowledged <= set(held) and len(held) == len(set(held)) <= len(acknowledged) + 1
    feedback.close()


def test_database_away_and_back(tmp_path):
    home = tmp_path / "home"
    predicted(home, "", 10)
    feedback = Feedback(home)
    feedback._tables.database.wait = 0.1
    assert words(feedback.put([Item("p0", ">50K")])) == ["accepted"]
    feedback.close()
    with closing(sqlite3.connect(home / "predictions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Away, match="can't be used at present .*locked.*; nothing of this was kept, try again later"):
            feedback.put([Item("p1", ">50K")])
        other.execute("ROLLBACK")
    home.rename(tmp_path / "elsewhere")
    home.write_text("in the way")
    with pytest.raises(Away):
        feedback.put([Item("p1", ">50K")])
    home.unlink()
    (tmp_path / "elsewhere").rename(home)
    assert words(feedback.put([Item("p0", ">50K"), Item("p1", ">50K")])) == ["repeated", "accepted"]
    feedback.close()


def test_postgres_drops_the_connection(tmp_path, postgres):
    import psycopg

    predicted(tmp_path, postgres, 10)
    feedback = Feedback(tmp_path, postgres)
    assert words(feedback.put([Item("p0", ">50K")])) == ["accepted"]
    with psycopg.connect(test_log.POSTGRES, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [feedback._tables._connection.info.backend_pid])
    assert words(feedback.put([Item("p0", ">50K"), Item("p1", ">50K")])) == ["repeated", "accepted"]
    feedback.close()
    with pytest.raises(Away, match="try again later"):
        Feedback(tmp_path, "postgresql://root@127.0.0.1:1/test").put([Item("p0", ">50K")])


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_of_each_kind(tmp_path):
    predicted(tmp_path, "", 40)
    feedback = Feedback(tmp_path)
    pd.DataFrame({"id": [f"p{i}" for i in range(10)], "label": [">50K", None] * 5}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"id": [f"p{i}" for i in range(10, 20)], "rating": [1.0, 2.5] * 5, "comment": ["fine", None] * 5, "at": pd.Timestamp("2026-11-01 10:00")}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"id": f"p{i}", "label": ">50K", "at": "2026-11-01T10:00:00Z"}) + "\n" for i in range(20, 30)))
    assert {k: v for k, v in import_file(feedback, tmp_path / "a.csv").counts.items() if v} == {"accepted": 5, "refused": 5}
    done = import_file(feedback, tmp_path / "b.parquet")
    assert done.counts["accepted"] == 5 and "row 2: refused: rating: 2.5; expected a whole number from 1 to 5" in done.examples
    assert import_file(feedback, tmp_path / "c.jsonl").counts["accepted"] == 10 and import_file(feedback, tmp_path / "c.jsonl").counts["repeated"] == 10
    assert feedback.labels()["source"].to_pylist() == ["a.csv"] * 5 + ["c.jsonl"] * 10
    assert feedback.labels()["at"].to_pylist()[-1] == datetime(2026, 11, 1, 10, tzinfo=UTC)
    feedback.close()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("empty.csv", "", "empty.csv is empty"),
        ("no_rows.csv", "id,label\n", "no rows"),
        ("columns.csv", "idd,label\np1,>50K\n", "has no column 'id'; .*did you mean 'idd'"),
        ("columns2.csv", "id,lable\np1,>50K\n", "has no column 'label', .*did you mean 'lable'"),
        ("columns3.csv", "id,raiting\np1,4\n", "did you mean 'raiting'"),
        ("empty.jsonl", "", "empty.jsonl is empty"),
        ("broken.jsonl", '{"id": "p1", "label": 1}\n{"id"\n', "line 2"),
        ("deep.jsonl", "[" * 100_000, "line 1"),
        ("list.jsonl", "[1]\n", "line 1: a list; expected an object a line"),
        ("kind.xml", "<a/>", "format 'xml' can't be read"),
        ("binary.csv", "id,label\n\0\0", "binary data"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with closing(Feedback(tmp_path / "home")) as feedback, pytest.raises(MlopsError, match=said):
        import_file(feedback, tmp_path / name)


def test_the_command(tmp_path):
    (tmp_path / "settings.ini").write_text("[mlops_nb]\nhome = store\n")
    predicted(tmp_path / "store", "", 5)
    predicted(tmp_path / "store", "", 1, model="credit", prefix="c")
    (tmp_path / "labels.csv").write_text("id,label,branch\np0,>50K,Oslo\np1,rich,Oslo\nnobody,>50K,Oslo\nc0,>50K,Oslo\n")
    tool = [str(Path(sys.executable).with_name("mlops-nb")), "feedback"]
    run = lambda *words: subprocess.run([*tool, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)  # noqa: E731
    done = run("labels.csv", "--model", "income")
    assert done.returncode == 0, done.stderr
    assert "labels.csv: 1 accepted, 1 unknown, 2 refused" in done.stdout and "columns that were left alone: branch" in done.stdout
    assert "row 2: refused: label: 'rich'; expected one of the classes of the version that answered: <=50K, >50K" in done.stdout and "row 4: refused: the prediction is one of 'credit'" in done.stdout
    (tmp_path / "labels.csv").write_text("id,label\nnobody,>50K\n")
    done = run("labels.csv", "--model", "income")
    assert done.returncode == 1 and "nothing of labels.csv was taken" in done.stderr and "Traceback" not in done.stderr
    assert run("absent.csv", "--model", "income").returncode == 1 and run("labels.csv").returncode == 2


# -- over HTTP ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(made):
    with serving(made, "income@staging") as one:
        yield one
        assert "Traceback" not in one.said.read_text()


def give(server: test_rest.Server, body: dict | str | bytes, **headers: str) -> tuple[int, dict]:
    return server.ask("POST", "/v1/feedback", body, headers)[:2]


def test_feedback_right_behind_the_answer(server, sample):
    for row in sample.rows[:5]:
        key = server.predict([row])[1]["predictions"][0]["id"]
        code, said = give(server, {"id": key, "label": ">50K"})
        assert code == 200 and said["feedback"] == [{"id": key, "verdict": "accepted"}] and said["counts"]["accepted"] == 1
    keys = [p["id"] for p in server.predict(sample.rows[:20])[1]["predictions"]]
    code, said = give(server, {"feedback": [*({"id": k, "label": "<=50K"} for k in keys), {"id": keys[0], "label": ">50K"}, {"id": keys[0], "rating": 4, "comment": "so ist es \U0001f600"}, {"id": "0" * 32, "label": ">50K"}, {"id": keys[1], "label": 7}]})
    assert code == 200 and said["counts"] == {"accepted": 21, "late": 0, "repeated": 0, "contradicts": 1, "unknown": 1, "refused": 1}
    assert said["feedback"][-1]["reason"] == "label: 7; expected one of the classes of the version that answered: <=50K, >50K"
    assert give(server, {"feedback": [{"id": k, "label": "<=50K"} for k in keys[1:]]})[1]["counts"]["repeated"] == 19
    metrics = server.get("/metrics")[1]["text"]
    assert 'route="/v1/feedback"' in metrics and 'mlops_nb_feedback_total{verdict="accepted"}' in metrics


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("{", 400, "isn't JSON"),
        ("[" * 100_000, 400, ""),
        ('{"id": "a", "label": NaN}', 400, "isn't JSON"),
        ("[]", 422, "expected an object"),
        ('{"feedback": []}', 422, "at least one item"),
        ('{"feedback": 1}', 422, "must be a list"),
        ('{"label": ">50K"}', 422, "id: not given"),
        ('{"id": "a"}', 422, "nothing is said about a; expected label"),
        ('{"id": "a", "rating": 6}', 422, "rating: 6; expected a whole number from 1 to 5"),
        ('{"id": "a", "rating": 3.5}', 422, "rating: 3.5; expected a whole number from 1 to 5"),
        ('{"id": "a", "rating": "5"}', 422, "expected a whole number from 1 to 5"),
        ('{"id": "a", "rating": 3, "comment": "%s"}' % ("x" * 2001), 422, "expected a text of at most 2,000 characters"),
        ('{"id": "a", "label": {"a": 1}}', 422, "expected a class of the version that answered, or a finite number"),
        ('{"id": "a", "label": 1, "at": "2026-11-25 10:00"}', 422, "expected a time with its zone"),
        ('{"id": "a", "lable": 1}', 422, "did you mean 'label'"),
        ('{"id": "a", "label": 1, "label": 2}', 422, "given twice"),
        ('{"id": "a", "label": 1%s}' % ("0" * 5000), None, ""),
        ('{"id": "a", "label": "\\ud800"}', None, ""),
        ('{"id": "a", "label": "\\u0000"}', 422, "expected a class"),
        ('{"id": "a\\u0000", "label": 1}', 422, "expected the id of a prediction"),
    ],
)  # fmt: skip
def test_what_is_no_feedback_is_refused(server, body, code, said):
    answered, answer = give(server, body)
    assert answered == code or (code is None and answered in (200, 400, 422)), answer
    assert said in answer.get("error", "") or code == 200


def test_a_label_of_another_kind_is_refused_with_what_is_expected(server, sample):
    key = server.predict(sample.rows[:1])[1]["predictions"][0]["id"]
    for label in (">50k", 1, True, 0.5):
        code, said = give(server, {"id": key, "label": label})
        assert code == 422 and "expected one of the classes of the version that answered: <=50K, >50K" in said["error"]
    code, said = give(server, {"id": key, "label": ">50K", "at": "2999-01-01T00:00:00Z"})
    assert code == 422 and "in the future" in said["error"]
    assert give(server, {"feedback": [{"id": "a", "label": 1}] * 1001})[0] == 413
    assert server.ask("GET", "/v1/feedback")[0] == 405


@pytest.mark.slow
@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_comments_with_characters_no_database_likes(made, sample, where, request):
    words = ["--log-url", request.getfixturevalue("postgres")] if where == "postgres" else []
    with serving(made, "income@staging", *words) as server:
        keys = [p["id"] for p in server.predict(sample.rows[:3])[1]["predictions"]]
        code, said = give(server, json.dumps({"id": keys[0], "rating": 3, "comment": "a\0b"}))
        assert code == 422 and "none of them NUL" in said["error"]
        for key, comment in zip(keys, ("'); DROP TABLE feedback; --", "\U0001f600 \u202e \x1b[2J", "%s ? {} \\"), strict=True):
            assert give(server, json.dumps({"id": key, "rating": 3, "comment": comment}))[1]["counts"]["accepted"] == 1
    ratings = Feedback(made / ".mlops", words[1] if words else "").ratings().to_pylist()
    assert {r["id"]: r["comment"] for r in ratings}[keys[1]] == "\U0001f600 \u202e \x1b[2J"


def test_the_key_needs_the_scope(made, sample, tmp_path):
    file = tmp_path / "keys.json"
    asks, tells = add_key(file, "asks", ("predict",)), add_key(file, "tells", ("feedback",))
    with serving(made, "income@staging", "--keys", str(file)) as server:
        key = server.predict(sample.rows[:1], **{"X-API-Key": asks})[1]["predictions"][0]["id"]
        body = {"id": key, "label": ">50K"}
        assert give(server, body)[0] == 401 and give(server, body, **{"X-API-Key": asks})[0] == 403
        assert give(server, body, **{"X-API-Key": tells})[1]["counts"]["accepted"] == 1
        assert server.predict(sample.rows[:1], **{"X-API-Key": tells})[0] == 403
    labels = Feedback(made / ".mlops").labels()
    assert {r["id"]: r["source"] for r in labels.to_pylist()}[key] == "tells"


@pytest.mark.slow
def test_two_workers_and_a_database_that_goes_away(made, sample, tmp_path):
    with serving(made, "income@staging", "--workers", "2") as server:
        keys = []
        for _ in range(30):  # answered by one worker, told to another
            keys.append(server.predict(sample.rows[:1])[1]["predictions"][0]["id"])
            assert give(server, {"id": keys[-1], "label": ">50K"})[1]["counts"]["accepted"] == 1
        with closing(sqlite3.connect(made / ".mlops" / "predictions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                told = [pool.submit(give, server, {"id": k, "label": "<=50K"}) for k in keys[:4]]
                time.sleep(0.2)
                assert server.predict(sample.rows[:1])[0] == 200, "predictions go on"
                answers = [one.result() for one in told]
            assert {code for code, _ in answers} == {503} and "send all of this again later" in answers[0][1]["error"]
            other.execute("ROLLBACK")
        assert give(server, {"feedback": [{"id": k, "label": ">50K"} for k in keys]})[1]["counts"]["repeated"] == 30


@pytest.mark.slow
def test_acknowledged_over_http_and_killed(made, sample):
    told = []
    with serving(made, "income@staging") as server:
        keys = [p["id"] for _ in range(6) for p in server.predict(sample.rows)[1]["predictions"]]

        def tell(key: str) -> None:
            with contextlib.suppress(OSError):
                if give(server, {"id": key, "label": ">50K"})[1]["counts"]["accepted"]:
                    told.append(key)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for key in keys:
                pool.submit(tell, key)
            server.until(lambda: len(told) > 100)
            os.kill(server.process.pid, 9)
    assert 100 < len(told) <= len(keys) and set(told) <= set(Feedback(made / ".mlops").labels()["id"].to_pylist())
