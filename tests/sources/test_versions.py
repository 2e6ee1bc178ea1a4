"""Versions of data sets with the real git and the real DVC: what survives kills, races, odd names, damage and absent remotes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest

from mlops_nb.base.artifacts import Store
from mlops_nb.base.charter import Charter
from mlops_nb.base.errors import MlopsError, why_refused
from mlops_nb.base.git import git
from mlops_nb.base.settings import load_settings
from mlops_nb.cli.data import data_which
from mlops_nb.loop.challenger import challenger_charter, own_rows
from mlops_nb.model.problem import Problem
from mlops_nb.registry.evidence import as_evidence
from mlops_nb.sources import dvc_cache, tracked
from mlops_nb.sources.changed import changes
from mlops_nb.sources.files import source_file
from mlops_nb.sources.gather import check_sources, gather, source_rows
from mlops_nb.sources.local import hashed
from mlops_nb.sources.versions import find, versions
from mlops_nb.stages.ingest import describe_origin

pytest.importorskip("dvc", reason="versions of data need the extra data")
pytestmark = pytest.mark.usefixtures("ada")
ROWS = "id,age,buys\n1,39,yes\n2,50,no\n3,28,yes\n"
STATED = {"name": "shop", "goal": "Whom to call", "task": "binary", "target": "buys", "positive": "yes", "metric": "roc_auc"}


def dvc(root: Path, *words: str) -> str:
    tool = Path(sys.executable).with_name("dvc")
    done = subprocess.run([tool, *words], cwd=root, capture_output=True, text=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project's folder with one table, as `init` leaves it: /data/ is ignored by git."""
    root = tmp_path / "shop"
    (root / "data").mkdir(parents=True)
    (root / ".gitignore").write_text("/data/\n.mlops\n")
    (root / "data" / "rows.csv").write_text(ROWS)
    return root


def rows(root: Path) -> Path:
    return root / "data" / "rows.csv"


def two(root: Path) -> None:
    """Two versions."""
    tracked.add(root, rows(root), reason="the first")
    rows(root).write_text(ROWS + "4,31,no\n")
    tracked.add(root, rows(root), reason="one more")


def pinned(*sources: dict) -> Charter:
    return Charter.model_validate(STATED | {"data": list(sources)})


# adding


def test_a_version_knows_who_when_and_why(shop):
    done = tracked.add(shop, rows(shop), reason="as the shop sent them")
    assert done.said == ["git: a new repository", "DVC: begun in .dvc, without telemetry"]
    v = done.version
    assert (v.label, v.author, v.reason, v.rows, v.columns, v.size) == ("rows@1", "Ada", "as the shop sent them", 3, 3, len(ROWS))
    assert abs(time.time() - pd.Timestamp(v.at, tz="UTC").timestamp()) < 120
    assert "analytics = false" in (shop / ".dvc" / "config").read_text()
    assert git(shop, "tag") == "data/rows/v1" and git(shop, "cat-file", "-t", "data/rows/v1") == "tag"
    assert git(shop, "ls-files").split() == [".dvc/.gitignore", ".dvc/config", ".dvcignore", "versions/rows.dvc"]
    assert "up to date" in dvc(shop, "status"), "plain DVC reads it, too"
    again = tracked.add(shop, rows(shop), reason="by mistake")
    assert not again.new and again.version == v and "nothing to add" in again.said[-1]


def test_only_its_own_files_are_committed(shop):
    git(shop, "init", "-q")
    (shop / "staged.txt").write_text("mine")
    (shop / "changed.txt").write_text("old")
    git(shop, "add", "staged.txt", "changed.txt", ".gitignore")
    git(shop, "commit", "-q", "-m", "before", "--", "changed.txt", ".gitignore")
    (shop / "changed.txt").write_text("new")
    two(shop)
    assert git(shop, "status", "--porcelain").splitlines() == ["M changed.txt", "A  staged.txt"]
    assert git(shop, "show", "--name-only", "--format=", "HEAD") == "versions/rows.dvc"
    assert git(shop, "log", "-1", "--format=%s%n%b") == "data: rows@2\none more"


def test_projects_that_share_a_repository(tmp_path, shop):
    git(tmp_path, "init", "-q")
    other = tmp_path / "team b~"
    (other / "data").mkdir(parents=True)
    (other / "data" / "rows.csv").write_text("a\n1\n")
    two(shop)
    assert tracked.add(other, rows(other), reason="ours").version.number == 1
    assert [v.number for v in versions(shop)] == [2, 1] and [v.reason for v in versions(other)] == ["ours"]
    assert git(tmp_path, "tag").split() == ["data/shop/rows/v1", "data/shop/rows/v2", "data/team%20b%7E/rows/v1"]
    assert not (tmp_path / ".dvc").exists() and (shop / ".dvc").is_dir()


@pytest.mark.parametrize("name", ["größe & co (2).csv", "-rf.csv", "a'b\"c.csv", "수입.csv", "x[1].csv", "no ending"])
def test_odd_file_names(shop, name):
    file = shop / "data" / name
    file.write_text(ROWS)
    v = tracked.add(shop, file, reason=name).version
    file.write_text("gone")
    with pytest.raises(MlopsError, match="changes that are in no version"):
        tracked.checkout(shop, v)
    assert tracked.checkout(shop, v, force=True).read_text() == ROWS and v.path == f"data/{name}" and v.reason == name


def test_files_that_are_not_tables(shop):
    empty, image = shop / "data" / "empty.csv", shop / "data" / "image.png"
    empty.touch()
    image.write_bytes(bytes(range(256)))
    a, b = (tracked.add(shop, f, reason="r").version for f in (empty, image))
    assert (a.size, a.rows, b.size, b.rows) == (0, None, 256, None)
    empty.write_text(ROWS)
    later = tracked.add(shop, empty, reason="filled").version
    with tracked.proven(shop, a) as one, tracked.proven(shop, later) as other:
        told = changes([(one[""], "empty.csv")], [(other[""], "empty.csv")])
    assert told["added"] == 3 and told["columns"]["added"] == {"id": "int64", "age": "int64", "buys": "large_string"}
    with tracked.proven(shop, b) as one:
        assert "can't be read" in changes([(one[""], "image.png")], [(one[""], "image.png")])["why"]


def test_a_folder(shop):
    folder = shop / "data" / "months"
    (folder / "deep").mkdir(parents=True)
    (folder / "may.csv").write_text(ROWS)
    (folder / "deep" / "ü.bin").write_bytes(b"\0")
    v = tracked.add(shop, folder, reason="May").version
    (folder / "june.csv").write_text(ROWS.replace("39", "40"))
    (folder / "deep" / "ü.bin").unlink()
    later = tracked.add(shop, folder, reason="June").version
    assert (v.files, later.files) == (2, 2) and later.rows == 6
    tracked.checkout(shop, v)
    assert sorted(p.name for p in folder.rglob("*.*")) == ["may.csv", "ü.bin"]
    out = tracked.copy_to(shop, later, shop.parent / "out")
    assert sorted(p.name for p in out.iterdir()) == ["june.csv", "may.csv"]
    (folder / "new.csv").write_text("a")
    assert "changes that are in no version" in why_refused(tracked.checkout, shop, later)
    made = source_file(pinned({"source": "months@2"}), shop)
    assert [p.name for p in made.parts] == ["june.csv", "may.csv"] and made.sha256 == later.sha256
    assert len(gather(made, pinned({"source": "months@2"}).data).frame) == 6


def test_what_is_refused(shop, tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text(ROWS)
    (shop / "data" / "link.csv").symlink_to(outside)
    assert "copy it into it" in why_refused(tracked.add, shop, outside, reason="r")
    assert "is a link" in why_refused(tracked.add, shop, shop / "data" / "link.csv", reason="r")
    assert "isn't there" in why_refused(tracked.add, shop, shop / "data" / "none.csv", reason="r")
    assert "isn't inside" in why_refused(tracked.add, shop, shop, reason="r")
    assert "--reason TEXT" in why_refused(tracked.add, shop, rows(shop))
    assert versions(shop) == [] and "can't be called" in why_refused(tracked.add, shop, rows(shop), "a b", "r")
    tracked.add(shop, rows(shop), reason="r")
    (shop / "other").mkdir()
    (shop / "other" / "rows.csv").write_text("a\n1\n")
    assert "give other/rows.csv another: --name NAME" in why_refused(tracked.add, shop, shop / "other" / "rows.csv", reason="r")
    assert "is the data set 'rows' already" in why_refused(tracked.add, shop, rows(shop), "else", "r")
    assert tracked.add(shop, shop / "other" / "rows.csv", "rows2", "r").version.label == "rows2@1"
    assert "overlap" in why_refused(tracked.add, shop, shop / "data", "all", "r")


def test_a_table_that_plain_dvc_has_already(shop):
    git(shop, "init", "-q")
    (shop / ".gitignore").write_text("")
    dvc(shop, "init", "-q")
    dvc(shop, "add", "-q", "data/rows.csv")
    assert "dvc remove data/rows.csv.dvc, then again" in why_refused(tracked.add, shop, rows(shop), reason="r")
    dvc(shop, "remove", "data/rows.csv.dvc")
    assert tracked.add(shop, rows(shop), reason="r").version.number == 1


def test_without_a_name_git_takes_the_user(shop, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{who}_NAME")
        monkeypatch.delenv(f"GIT_{who}_EMAIL")
    monkeypatch.setenv("LOGNAME", "grace")
    git(shop, "init", "-q")
    git(shop, "config", "user.useConfigOnly", "true")
    assert tracked.add(shop, rows(shop), reason="r").version.author == "grace"


# kills and races

ADD = "import sys; from pathlib import Path; from mlops_nb.sources import tracked; print(tracked.add(Path(sys.argv[1]), Path(sys.argv[2]), reason=sys.argv[3]).version.label)"


def adding(root: Path, file: Path, reason: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", ADD, str(root), str(file), reason], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_at(root: Path, step: str) -> None:
    """An `add` that is killed with -9 just before a step."""
    code = f"""
import os, signal, sys
from pathlib import Path
from mlops_nb.sources import tracked
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
place = {step!r}
if place.startswith("git "):
    real = tracked.git
    tracked.git = lambda root, *words, **k: die() if place.split()[1] in words[:2] and words[:2] != ("tag", "-d") else real(root, *words, **k)
elif place == "dump":
    tracked._described = die
else:
    tracked._record = die
tracked.add(Path(sys.argv[1]), Path(sys.argv[2]), reason="killed")
"""
    done = subprocess.run([sys.executable, "-c", code, str(root), str(rows(root))], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("step", ["dump", "record", "git add", "git commit", "git tag"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_an_add_that_was_killed_is_taken_up(shop, step, first):
    if not first:
        two(shop)
        rows(shop).write_text(ROWS + "9,9,no\n")
    before, wanted = rows(shop).read_bytes(), 1 if first else 3
    kill_at(shop, step)
    assert rows(shop).read_bytes() == before
    done = tracked.add(shop, rows(shop), reason="again")
    assert done.version.number == wanted and done.version.reason == ("killed" if step == "git tag" else "again")
    assert done.new == (step != "git tag")
    assert git(shop, "status", "--porcelain", "--", "versions", ".dvc") == "" and "up to date" in dvc(shop, "status")
    out = tracked.copy_to(shop, done.version, shop.parent / "out.csv")
    assert out.read_bytes() == before and [v.number for v in versions(shop)] == list(range(wanted, 0, -1))


@pytest.mark.slow
def test_killed_at_any_time(shop):
    """At moments drawn at random, with a table of some size."""
    random, reason = np.random.default_rng(3), 0
    pd.DataFrame(random.normal(size=(200_000, 5))).to_csv(rows(shop), index=False)
    tracked.add(shop, rows(shop), reason="the first")
    for _ in range(25):
        with open(rows(shop), "a") as file:
            file.write(f"{','.join(['1'] * 5)}\n")
        before, reason = rows(shop).read_bytes(), reason + 1
        process = adding(shop, rows(shop), f"r{reason}")
        time.sleep(random.uniform(0.3, 2.5))
        process.kill()
        process.communicate()
        assert rows(shop).read_bytes() == before
        done = tracked.add(shop, rows(shop), reason="after it")
        assert tracked.checkout(shop, done.version).read_bytes() == before
        for v in versions(shop):
            with tracked.proven(shop, v) as files:
                assert files[""].stat().st_size == v.size
    assert git(shop, "fsck", "--no-dangling") == ""


def test_two_at_once(shop):
    two(shop)
    others = [shop / "data" / f"more{k}.csv" for k in range(3)]
    for k, file in enumerate(others):
        file.write_text(f"a\n{k}\n")
    rows(shop).write_text("id,age,buys\n7,7,no\n")
    at_once = [adding(shop, f, "at once") for f in [*others, rows(shop), rows(shop)]]
    said = [p.communicate(timeout=120) for p in at_once]
    assert [p.returncode for p in at_once] == [0] * 5, said
    assert [out.strip() for out, _ in said] == ["more0@1", "more1@1", "more2@1", "rows@3", "rows@3"]
    assert len(versions(shop)) == 6 and git(shop, "status", "--porcelain", "--", "versions") == ""


def test_a_command_that_waits_for_ever_says_so(shop, monkeypatch):
    monkeypatch.setattr(dvc_cache, "_PATIENCE", 0.3)
    with tracked.alone(shop):
        assert "another command has changed the data" in why_refused(tracked.add, shop, rows(shop), reason="r")


# back again


def test_rolling_back(shop):
    two(shop)
    newer = rows(shop).read_text()
    tracked.checkout(shop, find(shop, "rows@1"))
    assert rows(shop).read_text() == ROWS and "up to date" in dvc(shop, "status")
    done = tracked.add(shop, rows(shop))
    assert (done.version.label, done.version.reason, done.version.md5) == ("rows@3", "rolled back to v1", find(shop, "rows@1").md5)
    assert tracked.checkout(shop, find(shop, "rows@2")).read_text() == newer


def test_what_people_write_never_reaches_the_cache(shop):
    """In place, by a program that may write wherever it likes (as root does), with DVC's links as they come."""
    two(shop)
    tracked.checkout(shop, find(shop, "rows@2"))
    for _ in range(2):
        with open(rows(shop), "r+") as file:
            file.write("XXXX")
        for v in versions(shop):
            with tracked.proven(shop, v) as files:
                assert files[""].stat().st_size == v.size
        tracked.checkout(shop, find(shop, "rows@1"), force=True)


def test_a_damaged_cache_is_found_and_brought_anew(shop, tmp_path):
    two(shop)
    dvc(shop, "config", "cache.type", "hardlink")
    tracked.checkout(shop, find(shop, "rows@1"))
    dvc(shop, "checkout", "--relink", "versions/rows.dvc")
    assert rows(shop).stat().st_nlink == 2, "what a person has set counts"
    os.chmod(rows(shop), 0o644)
    rows(shop).write_text(ROWS.replace("39", "93"))  # and so the cache's object
    v = find(shop, "rows@1")
    said = why_refused(tracked.copy_to, shop, v, tmp_path / "out.csv")
    assert "was damaged in the cache, and taken out there" in said and not (tmp_path / "out.csv").exists()
    (tmp_path / "again.csv").write_text(ROWS)
    shutil.copy(tmp_path / "again.csv", rows(shop)) if rows(shop).unlink() is None else None
    tracked.add(shop, rows(shop))  # the same bytes, from somebody who has them
    assert tracked.copy_to(shop, v, tmp_path / "out.csv").read_text() == ROWS


def test_a_place_that_is_taken(shop, tmp_path):
    two(shop)
    v = find(shop, "rows@1")
    (tmp_path / "there.csv").write_text("mine")
    assert "is there already" in why_refused(tracked.copy_to, shop, v, tmp_path / "there.csv")
    assert tracked.copy_to(shop, v, tmp_path / "there.csv", force=True).read_text() == ROWS
    (tmp_path / "folder").mkdir()
    assert tracked.copy_to(shop, v, tmp_path / "folder") == tmp_path / "folder" / "rows.csv"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_version_that_was_deleted(shop):
    two(shop)
    rows(shop).write_text("a\n1\n")
    tracked.add(shop, rows(shop), reason="third")
    git(shop, "tag", "-d", "data/rows/v2")
    said = why_refused(find, shop, "rows@2")
    assert "has no version 2, there are: 3, 1; its tag data/rows/v2 was deleted: git fetch --tags" in said
    assert "git tag data/rows/v2 COMMIT" in said
    git(shop, "tag", "data/rows/v2", git(shop, "log", "--format=%H", "--grep", "rows@2"))
    assert find(shop, "rows@2").reason == "one more", "a plain tag does, too"
    shutil.rmtree(shop / ".dvc" / "cache")
    rows(shop).unlink()
    assert "the bytes of rows@2 aren't here; no remote is named" in why_refused(tracked.checkout, shop, find(shop, "rows@2"))


# remotes


def copies(root: Path, to: Path) -> Path:
    """Somebody else's clone."""
    git(root.parent, "clone", "-q", str(root), str(to))
    return to


def there_and_back(shop: Path, url: str, to: Path) -> None:
    """Two versions pushed, pulled and checked out by somebody else; each again, with nothing to do."""
    two(shop)
    dvc(shop, "remote", "add", "-d", "storage", url)
    given, n = tracked.push(shop)
    assert (len(given), n) == (2, 2) and tracked.push(shop)[1] == 0
    git(shop, "commit", "-q", "-am", "remote")
    clone = copies(shop, to)
    with tracked.opened(clone) as repo:
        assert not any(tracked.here(repo, v) for v in versions(clone))
    assert [v.label for v in tracked.pull(clone, ["rows@1"])] == ["rows@1"]
    assert tracked.checkout(clone, find(clone, "rows@2")).read_text() == ROWS + "4,31,no\n"
    assert tracked.pull(clone) == [] and len(versions(clone)) == 2


def test_a_folder_as_remote(shop, tmp_path):
    there_and_back(shop, str(tmp_path / "storage"), tmp_path / "clone")
    assert "there is no remote 'storag'; there are: storage" in why_refused(tracked.push, shop, (), "storag")
    shutil.rmtree(tmp_path / "storage")
    other = copies(shop, tmp_path / "other")
    said = why_refused(tracked.pull, other, ["rows"])
    assert "rows@2, rows@1 are neither here nor on the remote storage" in said and "mlops-nb data push rows" in said


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch):
    """A real S3 client and DVC's against moto's server; credentials and endpoint come from the environment."""
    for name in ("s3fs", "dvc_s3", "boto3", "moto.server"):
        pytest.importorskip(name, reason=f"{name} isn't installed")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    urlopen(f"{address}/moto-api/reset", b"").close()  # moto remembers from one server to the next
    for name, value in {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="shop-data")
    yield client, server
    server.stop()


def test_s3_as_remote(shop, tmp_path, s3):
    client, server = s3
    there_and_back(shop, "s3://shop-data/versions", tmp_path / "clone")
    assert len(client.list_objects_v2(Bucket="shop-data")["Contents"]) == 2
    committed = git(shop, "show", "HEAD:.dvc/config")
    assert "testing" not in committed and "secret" not in committed
    for key in [o["Key"] for o in client.list_objects_v2(Bucket="shop-data")["Contents"]]:
        client.delete_object(Bucket="shop-data", Key=key)
    other = copies(shop, tmp_path / "other")
    assert "neither here nor on the remote" in why_refused(tracked.checkout, other, find(other, "rows@1"))
    server.stop()
    said = why_refused(tracked.pull, other)
    assert "aren't here; the remote storage (s3://shop-data/versions) is away" in said and "testing-secret" not in said


@pytest.mark.parametrize("to", [None, "out.csv"])
def test_a_damaged_remote_is_said_and_once_it_is_mended_pulled_from(shop, tmp_path, s3, to):
    there_and_back(shop, "s3://shop-data/versions", tmp_path / "clone")
    v = find(shop, "rows@1")

    def bring() -> Path:
        return tracked.copy_to(shop, v, tmp_path / to) if to else tracked.checkout(shop, v)

    (key,) = [o["Key"] for o in s3[0].list_objects_v2(Bucket="shop-data")["Contents"] if o["Key"].endswith(v.md5[2:])]
    s3[0].put_object(Bucket="shop-data", Key=key, Body=b"damaged")
    shutil.rmtree(shop / ".dvc" / "cache")
    said = why_refused(bring)
    assert "the bytes here aren't what rows@1 was" in said and said.endswith("mlops-nb data pull rows@1"), said
    s3[0].put_object(Bucket="shop-data", Key=key, Body=ROWS.encode())
    assert [one.label for one in tracked.pull(shop, ["rows@1"])] == ["rows@1"]
    assert bring().read_text() == ROWS


@pytest.mark.parametrize("key", ["password", "secret_access_key", "access_key_id", "session_token", "connection_string"])
def test_no_secret_goes_with_git(shop, key):
    two(shop)
    dvc(shop, "remote", "add", "-d", "storage", "azure://shop" if key == "connection_string" else "ssh://host/x" if key == "password" else "s3://shop-data")
    dvc(shop, "remote", "modify", "storage", key, "hunter2")
    said = why_refused(tracked.push, shop)
    assert f".dvc/config holds {key} of the remote storage" in said and "hunter2" not in said
    dvc(shop, "remote", "modify", "--unset", "storage", key)
    dvc(shop, "remote", "modify", "--local", "storage", key, "hunter2")
    with tracked.opened(shop) as repo:
        assert repo.config["remote"]["storage"][key] == "hunter2"


# pinned by a charter


def test_a_charter_reads_exactly_the_pinned_bytes(shop, tmp_path, monkeypatch):
    two(shop)
    charter = pinned({"source": "rows@1", "licence": "our own"})
    first = source_file(charter, shop)
    assert first.about == {"version": "rows@1", "author": "Ada", "reason": "the first"}
    rows(shop).write_text("id,age,buys\n8,8,no\n")
    assert source_rows(charter, shop).frame["id"].tolist() == [1, 2, 3]
    stored = Path(first.path)
    with tracked.opened(shop) as repo:
        cached = tracked.files_of(repo, find(shop, "rows@1"))[""]
    assert stored.samefile(cached) or stored.stat().st_dev != cached.stat().st_dev, "one file on the disk"
    origin = describe_origin(first, source_rows(charter, shop).frame, source_rows(charter, shop).frame, Problem.model_validate(charter.model_dump()))
    assert (origin["version"], origin["author"], origin["reason"], origin["sha256"]) == ("rows@1", "Ada", "the first", first.sha256)
    shutil.rmtree(shop / ".dvc" / "cache")
    monkeypatch.setattr(tracked, "opened", None)  # what the store has needs no DVC
    assert source_file(charter, shop).content() == first.content()


def test_a_pinned_source_is_pulled_and_mended(shop, tmp_path):
    two(shop)
    dvc(shop, "remote", "add", "-d", "storage", str(tmp_path / "storage"))
    tracked.push(shop)
    shutil.rmtree(shop / ".dvc" / "cache")
    charter = pinned({"source": "rows@v2"})
    made = source_file(charter, shop)
    assert Path(made.path).read_text() == ROWS + "4,31,no\n"
    place = Store(shop / ".mlops").path(made.sha256)
    os.chmod(place, 0o644)
    place.write_text("damaged")  # and the cache's object, which is the same file
    assert Path(source_file(charter, shop).path).read_text() == ROWS + "4,31,no\n"


def test_a_challengers_evidence_names_the_pinned_version(shop, tmp_path, monkeypatch, capsys):
    """Its rows are a file of the retraining's own; what that was made from stays known, and can be brought back."""
    two(shop)
    charter = pinned({"source": "rows@1"})
    (shop / "settings.ini").write_text("[mlops_nb]\ncharter = shop.yaml\n")
    monkeypatch.chdir(shop)
    settings = load_settings()
    seen, made_of = own_rows(charter, settings)
    (folder := shop / ".mlops" / "retraining").mkdir(parents=True)
    seen.frame.to_parquet(folder / "rows.parquet")
    challenger = Charter.model_validate(challenger_charter(charter, folder / "rows.parquet", shop, list(seen.frame), {}, made_of))
    file = source_file(challenger, shop)
    origin = describe_origin(file, seen.frame, seen.frame, Problem.model_validate(challenger.model_dump()))
    (of,) = origin["derived_from"]
    assert (of["version"], of["author"], of["reason"], of["sha256"]) == ("rows@1", "Ada", "the first", find(shop, "rows@1").sha256) and "version" not in origin
    evidence = as_evidence({"data": origin | {"rows_train": 3}})
    monkeypatch.setattr("mlops_nb.registry.versions.get", lambda uri, name, which: None)
    monkeypatch.setattr("mlops_nb.registry.files.read_evidence", lambda uri, version: evidence)
    rows(shop).write_text("id,age,buys\n8,8,no\n")
    data_which("gym@2", restore=tmp_path / "back.csv")
    said = capsys.readouterr().out
    assert "rows.parquet, sha256" in said and "made of labelled predictions and of" in said and "rows@1 by Ada" in said
    assert hashed(tmp_path / "back.csv").sha256 == of["sha256"]
    from mlops_nb.cli.models import _facts
    from mlops_nb.registry.versions import Version

    version = Version(name="gym", version=2, phase="staging", created="", model_digest="", evidence_digest="", mlflow_run="")
    assert ("made from", f"{of['name']}, sha256 {of['sha256'][:12]}, rows@1, by Ada, the first") in list(_facts(version, evidence))
    alone = Charter.model_validate(challenger_charter(charter, folder / "rows.parquet", shop, list(seen.frame), {}))
    assert "derived_from" not in describe_origin(file, seen.frame, seen.frame, Problem.model_validate(alone.model_dump()))


def test_each_of_several_sources_may_be_pinned(shop):
    two(shop)
    visits = shop / "data" / "visits.parquet"
    pd.DataFrame({"id": [1, 2, 3], "n": [4, 5, 6]}).to_parquet(visits)
    tracked.add(shop, visits, reason="from the till")
    charter = pinned({"source": "rows@1"}, {"source": "visits@1", "key": "id"})
    file = source_file(charter, shop)
    read = gather(file, charter.data)
    assert read.frame["n"].tolist() == [4, 5, 6]
    origin = describe_origin(file, read.frame, read.frame, Problem.model_validate(charter.model_dump()), read)
    assert [s["version"] for s in origin["sources"]] == ["rows@1", "visits@1"] and origin["version"] == "rows@1; visits@1"


def test_a_pin_that_can_not_be_read(shop):
    assert "no data set 'rows' has versions here" in why_refused(check_sources, pinned({"source": "rows@1"}).data, shop)
    two(shop)
    for word, said in {"rows@9": "has no version 9, there are: 2, 1", "rows@latest": "a charter pins a number", "rowz@1": "did you mean 'rows'"}.items():
        assert said in why_refused(check_sources, pinned({"source": word}).data, shop)
    assert "the charter says 00000000" in why_refused(source_file, pinned({"source": "rows@1", "sha256": "0" * 64}), shop)
    assert Charter.model_validate(STATED | {"data": "rows@1"}).data.source == "rows@1"


def test_versions_of_an_attacker(shop, tmp_path):
    """A tag whose file leads out of the project is no version; a list of files that does is not restored."""
    two(shop)
    file = shop / "versions" / "rows.dvc"
    file.write_text(file.read_text().replace("path: data/rows.csv", "path: ../../outside.csv"))
    git(shop, "commit", "-q", "-am", "evil")
    git(shop, "tag", "data/rows/v3")
    git(shop, "tag", "data/rows/v4", "HEAD:versions/rows.dvc")  # on no commit at all
    assert [v.number for v in versions(shop)] == [2, 1]
    folder = shop / "data" / "f"
    folder.mkdir()
    (folder / "a.csv").write_text("a")
    v = tracked.add(shop, folder, reason="r").version
    with tracked.opened(shop) as repo:
        listing = Path(repo.cache.local.oid_to_path(v.md5))
    os.chmod(listing, 0o644)
    listing.write_text("[]")  # not what its name says: taken out, and asked for
    assert "aren't here" in why_refused(tracked.copy_to, shop, v, tmp_path / "out") and not listing.exists()
    for n, (md5, name) in enumerate((("0cc175b9c0f1b6a831c399e269772661", "../../../outside.csv"), ("../../../outside", "a"), ("0" * 32, ".git/config"))):
        text = json.dumps([{"md5": md5, "relpath": name}]).encode()
        digest = hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"
        with tracked.opened(shop) as repo:
            place = Path(repo.cache.local.oid_to_path(digest))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text)
        evil = v.model_copy(update={"md5": digest})
        assert "outside of its folder" in why_refused(tracked.copy_to, shop, evil, tmp_path / f"out{n}")


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("md5: {md5}", "md5: aa../../../../../victim.txt"),
        ("wdir: ..", "wdir: ../../outside"),
        ("path: data/rows.csv", "path: .git/hooks/post-checkout"),
        ("path: data/rows.csv", "path: data/rows.csv\n- {{md5: {md5}, path: ../../victim.txt}}"),
        ("hash: md5", "hash: md5\n  remote: theirs"),
    ],
)
def test_a_tag_that_leads_out_is_no_version(shop, tmp_path, was, now):
    (victim := tmp_path / "victim.txt").write_text("precious")
    md5 = tracked.add(shop, rows(shop), reason="r").version.md5
    good = (shop / "versions" / "rows.dvc").read_text()
    assert was.format(md5=md5) in good
    (shop / "versions" / "evil.dvc").write_text(good.replace(was.format(md5=md5), now.format(md5=md5)))
    git(shop, "add", "-f", "versions/evil.dvc")
    git(shop, "commit", "-q", "-m", "evil")
    git(shop, "tag", "data/evil/v1")
    assert "no data set 'evil'" in why_refused(find, shop, "evil@1") and victim.read_text() == "precious"


def test_what_is_refused_leaves_nothing(shop):
    before = sorted(p.name for p in shop.iterdir())
    assert "--reason TEXT" in why_refused(tracked.add, shop, rows(shop))
    assert sorted(p.name for p in shop.iterdir()) == before
    git(shop, "init", "-q")
    git(shop, "add", "-f", "data/rows.csv")
    assert "git tracks data/rows.csv itself" in why_refused(tracked.add, shop, shop / "data", reason="r")
    assert not (shop / ".dvc").exists()
    git(shop, "rm", "-q", "--cached", "data/rows.csv")
    tracked.add(shop, rows(shop), reason="r")
    head = git(shop, "rev-parse", "HEAD")
    rows(shop).write_text("a\n1\n")
    assert "rows@1 is there and has other bytes" in why_refused(tracked.add, shop, rows(shop), "rows", "r", 1)
    git(shop, "tag", "data/rows/v2", "HEAD:versions/rows.dvc")  # on no commit
    assert git(shop, "rev-parse", "HEAD") == head and tracked.add(shop, rows(shop), reason="r").version.number == 3


def test_long_numbers_and_files_called_as_pins(shop):
    tracked.add(shop, rows(shop), reason="r")
    assert "expected a number" in why_refused(find, shop, "rows@" + "1" * 5000)
    (shop / "rows@2").write_text(ROWS)
    assert "say ./rows@2" in why_refused(check_sources, pinned({"source": "rows@2"}).data, shop)


def test_a_remote_that_holds_a_token(shop):
    tracked.add(shop, rows(shop), reason="r")
    dvc(shop, "remote", "add", "--local", "-d", "storage", "http://127.0.0.1:1/x?token=hunter2")
    said = why_refused(tracked.push, shop)
    assert "storage" in said and "hunter2" not in said


@pytest.mark.parametrize("name", ["raw", "mine"])
def test_a_folder_takes_the_place_of_its_own_versions_only(shop, tmp_path, name):
    place = shop / "data" / name
    place.mkdir()
    (place / "own.csv").write_text(ROWS)

    def fresh(k: int) -> Path:
        (made := shop / f".made{k}" / "new").mkdir(parents=True)
        (made / "model.json").write_text(str(k))
        return made

    with pytest.raises(MlopsError, match="is no version of a data set"), tracked.replaced(shop, name, fresh(0)):
        pass
    with pytest.raises(MlopsError, match="can't be called"), tracked.replaced(shop, "../nbs", fresh(1)):
        pass
    assert (place / "own.csv").read_text() == ROWS
    tracked.add(shop, place, name, "r")
    with pytest.raises(MlopsError, match="has other bytes"), tracked.replaced(shop, name, fresh(2)) as there:
        tracked.add(shop, there, name, "r", 1)
    assert (place / "own.csv").read_text() == ROWS, "back again"
    with tracked.replaced(shop, name, fresh(3)) as there:
        assert tracked.add(shop, there, name, "r", 2).version.label == f"{name}@2"
    assert [p.name for p in place.iterdir()] == ["model.json"]


# what differs


def test_rows_that_differ_as_pandas_has_it(tmp_path):
    """Against another program, on tables drawn at random: rows whole as multisets, and by key."""
    from collections import Counter

    random = np.random.default_rng(5)
    for turn in range(12):
        sides = [pd.DataFrame({"k": random.permutation(60)[:40], "A": random.integers(0, 4, 40), "a": random.choice(["x", "y", None], 40)}) for _ in range(2)]
        files = []
        for n, side in enumerate(sides):
            side.to_parquet(tmp_path / f"{n}")
            files.append([(tmp_path / f"{n}", "t.parquet")])
        by_key, whole = changes(*files, key=["k"]), changes(*files)
        a, b = (s.set_index("k") for s in sides)
        both = a.index.intersection(b.index)
        apart = a.loc[both].fillna("-") != b.loc[both].fillna("-")
        assert (by_key["added"], by_key["removed"], by_key["changed"]) == (len(b.index.difference(a.index)), len(a.index.difference(b.index)), int(apart.any(axis=1).sum()))
        assert by_key["values"] == {c: int(n) for c, n in apart.sum().items() if n}, turn
        for drop, told in ((["k"], None), ([], whole)):
            parts = []
            for n, side in enumerate(sides):
                side.drop(columns=drop).to_parquet(tmp_path / f"{n}")
                parts.append(Counter(map(str, side.drop(columns=drop).itertuples(index=False))))
            told = told or changes(*files)
            assert (told["added"], told["removed"]) == ((parts[1] - parts[0]).total(), (parts[0] - parts[1]).total())


def test_types_columns_and_order(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("id,x,gone\n1,1.0,a\n2,2.0,b\n")
    other.write_text("id,x,new\n2,two,b\n1,1,a\n")
    told = changes([(one, "t.csv")], [(other, "t.csv")], key=["id"])
    assert told["columns"]["types"].keys() == {"x"} and [*told["columns"]["added"]] == ["new"] and [*told["columns"]["removed"]] == ["gone"]
    other.write_text("id;x;gone\n2;2.0;b\n1;1.0;a\n")
    told = changes([(one, "t.csv")], [(other, "t.csv")])
    assert (told["added"], told["removed"], told["examples"]) == (0, 0, {"added": [], "removed": []})


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    n, random = 1_000_000, np.random.default_rng(0)
    frame = pd.DataFrame({"id": np.arange(n), "x": random.normal(size=n), "word": random.choice(["a", "b", "c"], n)})
    later = frame.copy()
    later.loc[:9, "x"] = 0.0
    later = pd.concat([later.iloc[:-7], pd.DataFrame({"id": [n + 1], "x": [1.0], "word": ["z"]})]).sample(frac=1, random_state=1)
    frame.to_parquet(tmp_path / "a")
    later.to_parquet(tmp_path / "b")
    files = [(tmp_path / "a", "t.parquet")], [(tmp_path / "b", "t.parquet")]
    told, whole = changes(*files, key=["id"]), changes(*files)
    assert (told["added"], told["removed"], told["changed"], told["values"]) == (1, 7, 10, {"x": 10})
    assert (whole["added"], whole["removed"]) == (11, 17)
