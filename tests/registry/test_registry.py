"""The registry beyond its lessons: two ways of reading agree, MLflow's own tools can use it, and nothing is half done."""

import json
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlops_nb.cli import doctor
from mlops_nb.registry.changes import publish
from mlops_nb.registry.client import mlflow_client, registry_file
from mlops_nb.registry import evidence, files
from mlops_nb.registry.files import has, read_evidence, read_file
from mlops_nb.registry.loading import load
from mlops_nb.registry.promotion import promote, rollback
from mlops_nb.registry.registration import register
from mlops_nb.registry.released import read_released, released_file
from mlops_nb.registry.sample import sample_of
from mlops_nb.registry.versions import Version, _facts_client, _facts_sqlite, get, released, versions
from mlops_nb.base.artifacts import Model, digest_of
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import Settings

PEOPLE = pd.DataFrame({"age": np.tile([25.0, 38.0, 52.0, np.nan], 25), "job": ["clerk", "nurse", None, "smith", "clerk"] * 20})


def fitted(strength: float):
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["job"]), remainder="drop")
    return make_pipeline(columns, LogisticRegression(C=strength)).fit(PEOPLE, np.where(PEOPLE.index % 3 == 0, "yes", "no"))


def evidence_of(model, **more) -> dict:
    return {"metrics": {"roc_auc": {"value": 0.9, "low": 0.8, "high": 1.0}, "f1": None}, "params": {"C": 1.0}, "sample": sample_of(model, PEOPLE.head(4)), **more}


@pytest.fixture
def uri(tables, tmp_path) -> str:
    (tmp_path / "home").mkdir()
    shutil.copy(tables, tmp_path / "home")
    return f"sqlite:///{tmp_path}/home/mlflow.db"


def filled(uri: str) -> None:
    "A registry with every phase in it, a request, a rollback, and a version that was deleted in MLflow's UI."
    for strength, phase in ((1.0, "staging"), (0.5, "rejected"), (0.2, "staging"), (0.1, "development"), (0.05, "staging")):
        model = fitted(strength)
        register(uri, "income", model, evidence_of(model), phase, reason=f"C={strength}", run="run-7")
    register(uri, "other", fitted(1.0), evidence_of(fitted(1.0)), "staging")
    promote(uri, "income", 1, by="ada")
    promote(uri, "income", 3, by="ada", reason="it's \"better\"")
    rollback(uri, "income", by="grace")
    promote(uri, "income", 5, by="ada", approval="two")
    mlflow_client(uri).delete_model_version("income", "4")


def test_both_ways_of_reading_agree(uri):
    filled(uri)
    by_sql = sorted(_facts_sqlite(registry_file(uri), None))
    by_mlflow = sorted(_facts_client(uri, None))
    assert by_sql == by_mlflow and len(by_sql) == 5
    assert [(v.version, v.phase) for v in versions(uri, "income")] == [(5, "staging"), (3, "archived"), (2, "rejected"), (1, "production")]
    assert get(uri, "income", 5).requested_by == "ada"
    assert released(uri, "income").version == 1 and released(uri, "other").version == 1


def test_schema_of_mlflow_is_the_one_we_read(uri):
    mlflow_client(uri)
    with sqlite3.connect(registry_file(uri)) as db:
        columns = {t: {row[1] for row in db.execute(f"PRAGMA table_info({t})")} for t in ("model_versions", "model_version_tags", "registered_model_aliases", "runs")}
    assert {"name", "version", "creation_time", "run_id", "current_stage"} <= columns["model_versions"]
    assert {"name", "version", "key", "value"} <= columns["model_version_tags"]
    assert {"name", "version", "alias"} <= columns["registered_model_aliases"] and {"run_uuid", "artifact_uri"} <= columns["runs"]


def test_reading_imports_no_mlflow_and_makes_no_file(uri, tmp_path):
    model = fitted(1.0)
    register(uri, "income", model, evidence_of(model), "staging")
    code = (
        "import sys; from mlops_nb.registry.files import has; from mlops_nb.registry.loading import load; from mlops_nb.registry.versions import released\n"
        f"assert has({uri!r}, 'income', 1) and not has({uri!r}, 'income', 2) and not has('sqlite:///{tmp_path}/none/mlflow.db', 'income', 1)\n"
        f"assert released({uri!r}, 'income').version == 1 and load({uri!r}, 'income').model is not None\n"
        "assert not {'mlflow', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not (tmp_path / "none").exists()


def test_has_wants_the_files_too(uri):
    model = fitted(1.0)
    version = register(uri, "income", model, evidence_of(model), "staging")
    file = next(registry_file(uri).parent.rglob("model.skops"))
    file.unlink()
    assert not has(uri, "income", 1)
    again = register(uri, "income", model, evidence_of(model), "staging")
    assert again.version == 2 and again.model_digest == version.model_digest and has(uri, "income", 2)


def _register(uri: str) -> int:
    model = fitted(1.0)
    return register(uri, "income", model, evidence_of(model), "staging").version


@pytest.mark.slow
def test_two_processes_register_once(uri):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_register, [uri, uri]) == [1, 1]
    assert len(versions(uri, "income")) == 1


def test_a_kill_leaves_no_half_version(uri, monkeypatch):
    model = fitted(1.0)
    with monkeypatch.context() as patch:
        patch.setattr("mlops_nb.registry.registration._save_flavour", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            register(uri, "income", model, evidence_of(model), "staging")
    assert versions(uri) == []
    assert register(uri, "income", model, evidence_of(model), "staging").version == 1


def test_a_kill_between_alias_and_tags_leaves_one_production(uri, monkeypatch):
    for strength in (1.0, 0.5):
        register(uri, "income", fitted(strength), evidence_of(fitted(strength)), "staging")
    promote(uri, "income", 1, by="ada")
    with monkeypatch.context() as patch:
        patch.setattr("mlops_nb.registry.promotion.record", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote(uri, "income", 2, by="ada")
    assert [(v.version, v.phase) for v in versions(uri, "income")] == [(2, "production"), (1, "archived")]


def test_mlflow_can_serve_what_is_registered(uri, monkeypatch):
    import mlflow

    model = fitted(1.0)
    version = register(uri, "income", model, evidence_of(model), "staging")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        served = mlflow.pyfunc.load_model("models:/income@staging")
        assert list(served.predict(PEOPLE)) == model.predict(PEOPLE).tolist()  # decisions
        run = mlflow.MlflowClient().get_run(version.mlflow_run)
        assert run.data.metrics == {"roc_auc": 0.9} and run.data.params == {"C": "1.0"} and run.info.status == "FINISHED"
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def test_an_untrusted_model_is_refused_even_when_its_digest_fits(uri):
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    model = fitted(1.0)
    version = register(uri, "income", model, {"metrics": {}}, "staging")
    evil = skops.io.dumps(FunctionTransformer(os.system))
    next(registry_file(uri).parent.rglob("model.skops")).write_bytes(evil)
    mlflow_client(uri).set_model_version_tag("income", "1", "mlops_nb.model", digest_of(evil))
    with pytest.raises(MlopsError, match="untrusted types"):
        load(uri, "income")
    with pytest.raises(MlopsError, match="untrusted types"):
        register(uri, "income", evil, {}, "staging")
    assert len(versions(uri)) == version.version == 1


def test_a_model_that_breaks_its_promise_is_not_registered(uri):
    wrong = evidence_of(fitted(0.001))
    with pytest.raises(MlopsError, match="doesn't keep its promise"):
        register(uri, "income", fitted(1.0), wrong, "staging")
    assert versions(uri) == []


def test_the_registered_file_is_the_artifact_byte_for_byte(uri):
    data = Model.dump(fitted(1.0))
    assert Model.dump(Model.load(data)) == data
    register(uri, "income", data, {"metrics": {}}, "staging")
    assert next(registry_file(uri).parent.rglob("model.skops")).read_bytes() == data


def test_a_version_of_another_program_is_listed_and_not_loaded(uri):
    client = mlflow_client(uri)
    client.create_registered_model("income")
    client.create_model_version("income", "/somewhere/else")
    (foreign,) = versions(uri, "income")
    assert (foreign.phase, foreign.model_digest) == ("development", "")
    with pytest.raises(MlopsError, match="another program"):
        load(uri, "income", 1)


def test_nothing_is_written_into_the_current_folder(uri, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    filled(uri)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("detour", ["archived", "development"])
def test_a_rejected_version_stays_rejected_by_any_detour(uri, detour):
    model = fitted(1.0)
    made = register(uri, "income", model, evidence_of(model), "rejected", reason="roc_auc is 0.7")
    promote(uri, "income", made.version, detour, by="ada")
    for to in ("staging", "production"):
        with pytest.raises(MlopsError, match=r"was rejected \(roc_auc is 0.7\)"):
            promote(uri, "income", made.version, to, by="ada")
    assert get(uri, "income", made.version).phase == detour


def test_rollback_passes_over_what_was_rejected_since(uri):
    for strength in (1.0, 0.5, 0.2):
        model = fitted(strength)
        made = register(uri, "income", model, evidence_of(model), "staging")
        promote(uri, "income", made.version, by="ada")
    promote(uri, "income", 2, "rejected", by="ada", reason="unfair")
    promote(uri, "income", 2, "archived", by="ada")
    assert rollback(uri, "income", by="ada").version == 1


def test_rollback_twice_goes_back_twice(uri):
    for strength in (1.0, 0.5, 0.2):
        promote(uri, "income", register(uri, "income", fitted(strength), evidence_of(fitted(strength)), "staging").version, by="ada")
    assert [rollback(uri, "income", by="ada").version for _ in range(2)] == [2, 1]
    with pytest.raises(MlopsError, match="no earlier production version"):
        rollback(uri, "income", by="ada")
    assert promote(uri, "income", 3, by="ada").phase == "production"
    assert rollback(uri, "income", by="ada").version == 1


def folder_of(uri: str, version: Version) -> Path:
    return files.folder_of(registry_file(uri), version.location)


def in_production(uri: str, *strengths: float) -> list[Version]:
    "Versions that went to production one after another, each with a compiled model."
    made = [register(uri, "income", fitted(c), evidence_of(fitted(c)), "staging", compiled=f"compiled {c}".encode()) for c in strengths]
    return [promote(uri, "income", v.version, by="ada") for v in made]


def test_a_compiled_model_lies_beside_the_model_and_makes_no_version(uri):
    model = fitted(1.0)
    version = register(uri, "income", model, evidence_of(model), "staging", compiled=b"compiled")
    assert version.fold_digest == digest_of(b"compiled") and (folder_of(uri, version) / "fold.zip").read_bytes() == b"compiled"
    assert read_file(uri, version, "fold.zip") == b"compiled"
    assert register(uri, "income", model, evidence_of(model), "staging") == version
    assert register(uri, "income", model, evidence_of(model), "staging", compiled=b"compiled otherwise") == version
    plain = register(uri, "income", fitted(0.5), evidence_of(fitted(0.5)), "staging")
    assert plain.fold_digest == "" and has(uri, "income", 2)
    with pytest.raises(MlopsError, match="has no fold.zip"):
        read_file(uri, plain, "fold.zip")
    (folder_of(uri, version) / "fold.zip").unlink()
    assert not has(uri, "income", 1)
    assert register(uri, "income", model, evidence_of(model), "staging", compiled=b"compiled").version == 3


def test_every_change_is_published(uri):
    def told() -> dict:
        return read_released(released_file(uri))["models"]["income"]

    one = register(uri, "income", fitted(1.0), evidence_of(fitted(1.0)), "staging", compiled=b"f")
    assert (told()["production"], told()["staging"]) == (None, 1)
    assert told()["versions"] == {"1": {"phase": "staging", "folder": str(folder_of(uri, one)), "model": one.model_digest, "fold": digest_of(b"f"), "evidence": one.evidence_digest}}
    register(uri, "income", fitted(0.5), evidence_of(fitted(0.5)), "rejected")
    promote(uri, "income", 1, by="ada")
    register(uri, "income", fitted(0.2), evidence_of(fitted(0.2)), "staging")
    assert (told()["production"], told()["staging"], list(told()["versions"])) == (1, 3, ["1", "3"])
    promote(uri, "income", 3, by="ada")
    assert (told()["production"], told()["staging"]) == (3, None)
    rollback(uri, "income", by="ada")
    assert (told()["production"], told()["versions"]["3"]["phase"]) == (1, "archived")
    before = released_file(uri).stat()
    promote(uri, "income", 1, by="ada")  # says the same, so nothing is written
    assert released_file(uri).stat().st_ino == before.st_ino
    released_file(uri).unlink()
    promote(uri, "income", 1, by="ada")
    assert told()["production"] == 1


def test_the_published_file_is_read_without_heavy_imports_and_its_form_is_checked(uri, tmp_path):
    in_production(uri, 1.0)
    path = released_file(uri)
    code = (
        "import sys; from mlops_nb.registry.changes import publish; from mlops_nb.registry.released import read_released\n"
        f"assert read_released(publish({uri!r}))['models']['income']['production'] == 1\n"
        "assert not {'mlflow', 'sqlalchemy', 'pandas', 'numpy', 'sklearn', 'skops'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    good = json.loads(path.read_bytes())
    for damage in (b"", b"{", b"[]", json.dumps(good | {"format": 2}).encode(), json.dumps(good | {"models": {"income": {"production": "x"}}}).encode()):
        path.write_bytes(damage)
        with pytest.raises(MlopsError, match="isn't a list of released versions"):
            read_released(path)
    assert json.loads(publish(uri).read_bytes()) == good


def test_the_registrys_folder_may_be_moved(uri, tmp_path):
    in_production(uri, 1.0)
    old = registry_file(uri).parent
    new = old.rename(old.with_name("moved"))
    version = read_released(new / "released.json")["models"]["income"]["versions"]["1"]
    assert Path(version["folder"]).is_relative_to(new) and (Path(version["folder"]) / "fold.zip").read_bytes() == b"compiled 1.0"


def test_a_damaged_version_is_registered_again(uri):
    model = fitted(1.0)
    one = register(uri, "income", model, evidence_of(model), "staging")
    (folder_of(uri, one) / "model" / "model.skops").write_bytes(b"torn")
    assert register(uri, "income", model, evidence_of(model), "staging").version == 2


def test_the_doctor_finds_damaged_versions(uri, tmp_path):
    one, two = in_production(uri, 1.0, 0.5)
    here = Settings(root=tmp_path, registry_uri=uri, tracking="offline")
    assert all(f.well for f in doctor.services(here))
    for version in (one, two):  # what is archived serves nobody
        (folder_of(uri, version) / "model" / "model.skops").write_bytes(b"!")
    (ill,) = [f for f in doctor.services(here) if not f.well]
    assert ill.what == "registry: income version 2 (production) isn't what was registered" and "promote" in ill.mend


def test_a_promotion_that_broke_off_is_completed(uri, monkeypatch):
    in_production(uri, 1.0)
    register(uri, "income", fitted(0.5), evidence_of(fitted(0.5)), "staging")
    with monkeypatch.context() as broken:
        broken.setattr("mlops_nb.registry.promotion.record", lambda *facts: (_ for _ in ()).throw(MlopsError("database is locked")))
        with pytest.raises(MlopsError, match="locked"):
            promote(uri, "income", 2, by="ada")
    assert read_released(released_file(uri))["models"]["income"]["production"] == 2, "what has changed is published"
    promote(uri, "income", 2, by="ada")
    one, two = get(uri, "income", 1), get(uri, "income", 2)
    assert [e.action for e in two.events] == ["register", "promote"] and one.events[-1].action == "replace"
    in_production(uri, 0.2)
    assert rollback(uri, "income", by="ada").version == 2


def test_a_published_file_that_cannot_be_written_is_said(uri):
    register(uri, "income", fitted(1.0), evidence_of(fitted(1.0)), "staging")
    released_file(uri).unlink()
    released_file(uri).mkdir()
    with pytest.raises(MlopsError, match="services don't know of the change yet"):
        promote(uri, "income", 1, by="ada")
    assert get(uri, "income").phase == "production"
    released_file(uri).rmdir()
    promote(uri, "income", 1, by="ada")
    assert read_released(released_file(uri))["models"]["income"]["production"] == 1


@pytest.mark.parametrize(("file", "damage"), [
    ("model/model.skops", b"!"), ("evidence.json", b"!"), ("fold.zip", b"!"), ("model/model.skops", None), ("evidence.json", None), ("fold.zip", None),
])  # fmt: skip
def test_a_damaged_version_is_not_promoted(uri, file, damage):
    in_production(uri, 1.0)
    two = register(uri, "income", fitted(0.5), evidence_of(fitted(0.5)), compiled=b"compiled")
    before = versions(uri), released_file(uri).read_bytes()
    path = folder_of(uri, two) / file
    if damage:
        path.write_bytes(path.read_bytes() + damage)
    else:
        path.unlink()
    for to in ("staging", "production"):
        with pytest.raises(MlopsError, match=f"{path.name}.*register"):
            promote(uri, "income", 2, to, by="ada")
    assert (versions(uri), released_file(uri).read_bytes()) == before
    assert promote(uri, "income", 2, "archived", by="ada").phase == "archived"  # putting it aside needs no files


def test_a_version_that_breaks_its_promise_is_not_promoted(uri):
    model, other = fitted(1.0), Model.dump(fitted(0.001))
    version = register(uri, "income", model, evidence_of(model), "staging")
    (folder_of(uri, version) / "model" / "model.skops").write_bytes(other)
    mlflow_client(uri).set_model_version_tag("income", "1", "mlops_nb.model", digest_of(other))
    with pytest.raises(MlopsError, match="doesn't keep its promise"):
        promote(uri, "income", 1, by="ada")
    assert get(uri, "income", 1).phase == "staging"


def test_rollback_passes_over_damaged_versions_and_says_so(uri):
    one, two, _ = in_production(uri, 1.0, 0.5, 0.2)
    (folder_of(uri, two) / "fold.zip").write_bytes(b"!")
    back = rollback(uri, "income", by="grace", reason="complaints")
    assert back.version == 1 and back.events[-1].reason.startswith("complaints; passed over version 2: fold.zip of version 2 of 'income' isn't what was registered")
    promote(uri, "income", 3, by="ada")
    (folder_of(uri, one) / "evidence.json").unlink()
    with pytest.raises(MlopsError, match="no earlier production version.*passed over version 1.*lost its evidence.json"):
        rollback(uri, "income", by="grace")
    assert get(uri, "income").version == 3
    with pytest.raises(MlopsError, match="no model 'nope'.*did you mean 'income'"):
        rollback(uri, "nope")


def published_by_a_server(uri: str, into: Path) -> None:
    "What is in production and in staging is fetched, damage is mended, and a change arrives with the next call."
    with pytest.raises(MlopsError, match="is a server"):
        publish(uri)

    def told() -> dict:
        return read_released(publish(uri, into))["models"]["income"]

    six = register(uri, "income", fitted(0.3), evidence_of(fitted(0.3)), "staging", compiled=b"compiled")
    first = told()
    assert (first["production"], first["staging"], sorted(first["versions"])) == (1, six.version, ["1", str(six.version)])
    folder = Path(first["versions"][str(six.version)]["folder"])
    assert (folder / "fold.zip").read_bytes() == b"compiled" and digest_of((folder / "model" / "model.skops").read_bytes()) == six.model_digest
    (folder / "fold.zip").write_bytes(b"torn")
    promote(uri, "income", six.version, by="ada")
    assert (told()["production"], told()["staging"]) == (six.version, 5) and (folder / "fold.zip").read_bytes() == b"compiled"


@pytest.mark.slow
def test_an_mlflow_server_does_as_well(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/files", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, start_new_session=True)
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            assert server.poll() is None
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=20)
                break
            except OSError:
                time.sleep(0.5)
        filled(uri)
        assert [(v.version, v.phase) for v in versions(uri, "income")] == [(5, "staging"), (3, "archived"), (2, "rejected"), (1, "production")]
        assert has(uri, "income", 1) and not has(uri, "income", 9)
        loaded = load(uri, "income")
        assert loaded.version.version == 1 and loaded.evidence == evidence.as_evidence(evidence_of(fitted(1.0)))
        model = fitted(1.0)
        assert register(uri, "income", model, evidence_of(model), "staging").version == 1
        published_by_a_server(uri, tmp_path / "copy")
    finally:
        os.killpg(server.pid, 15)
        server.wait(120)


def test_a_server_that_is_away_is_one_sentence_without_secrets(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlopsError) as refusal:
        versions("http://ada:secret@127.0.0.1:9", "income")
    assert "can't be used" in str(refusal.value) and "secret" not in str(refusal.value)
    assert Path("mlruns").exists() is False


def test_evidence_of_a_newer_program_is_a_sentence(uri, monkeypatch):
    model = fitted(1.0)
    version = register(uri, "income", model, evidence_of(model) | {"format": 1}, "staging")
    monkeypatch.setattr(evidence, "FORMAT", 0)  # as if this program were older
    for read in (lambda: read_evidence(uri, version), lambda: load(uri, "income")):
        with pytest.raises(MlopsError, match=r"evidence of income/1 is of format 1, this program reads up to 0.*pip install -U mlops-nb"):
            read()
