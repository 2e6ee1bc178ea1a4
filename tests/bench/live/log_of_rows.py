"""Makes a prediction log with many live rows of a registered model: census rows, its own answers, 52 days that are over; in the last three of them people are older."""

import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_nb.base.artifacts import Store, Table
from mlops_nb.base.settings import Settings
from mlops_nb.log.database import database
from mlops_nb.log.feedback import Feedback
from mlops_nb.log.items import Item
from mlops_nb.log.live import schema
from mlops_nb.log.rolled import save_rolled
from mlops_nb.model.conform import conform
from mlops_nb.registry.loading import load

DAYS, LABELLED = 52, 300  # windows; labelled rows in each
PARTS = {"problem": "problem", "schema": "form", "evaluation": "evaluation"}
CHUNK = 50_000  # rows that are written at a time


def hand_over(place: Settings) -> None:
    "What an older monitor needs to know of the version, as files."
    evidence = load(place.registry_uri, "income", 1).evidence
    (place.home / "evidence.json").write_text(json.dumps({k: getattr(evidence, name).model_dump(mode="json") for k, name in PARTS.items()}))
    (place.home / "train.parquet").write_bytes(Store(place.home).get(evidence.digests["train"]))
    Table.load((place.home / "train.parquet").read_bytes()).to_parquet(place.home / "train.parquet")


def answered(place: Settings) -> tuple[pd.DataFrame, list[str], list[str]]:
    "Census rows, as JSON, and what the released version answers, as JSON."
    model, evidence = (found := load(place.registry_uri, "income", 1)).model, found.evidence
    people = pd.read_parquet(Path(sys.modules["mlops_nb"].__file__).parent / "data" / "income.parquet")
    rows = people[[f.name for f in evidence.form.fields]]
    asked = conform(rows, evidence.form)
    proba = model.predict_proba(asked)[:, list(model.classes_).index(">50K")]
    said = model.predict(asked)
    inputs = [json.dumps(row) for row in rows.astype(object).where(rows.notna(), None).to_dict("records")]
    outputs = [json.dumps({"decision": str(d), "probability": round(float(p), 6)}) for d, p in zip(said, proba, strict=True)]
    return people, inputs, outputs


def write(home: Path, rows: int, place: Settings) -> None:
    "So many rows, of equal windows, in the order of time."
    people, inputs, outputs = answered(place)
    draw, end = np.random.default_rng(0), datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = end - timedelta(days=DAYS)
    step = timedelta(days=DAYS) / rows
    old = np.flatnonzero(people.age > 45)
    log, labels, every = database(home, "", "batched"), [], max(1, rows // (DAYS * LABELLED))
    connection = log.connect()
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        who, day = draw.integers(0, len(people), n), (np.arange(start, start + n) * DAYS) // rows
        older = (day >= DAYS - 3) & (draw.random(n) < 0.2)
        who[older] = draw.choice(old, int(older.sum()))
        took, base = draw.lognormal(-7, 0.4, n), int(first.timestamp() * 1e6)
        at = base + ((np.arange(start, start + n)) * (step / timedelta(microseconds=1))).astype(np.int64)
        records = [
            (hashlib.md5(str(start + i).encode()).hexdigest(), int(at[i]), "income", 1, "", None, inputs[w].encode(), outputs[w].encode(), float(took[i]), b"[]")
            for i, w in enumerate(who)
        ]  # fmt: skip
        with log.transaction(connection):
            log.insert(connection, records)
        labels += [(records[i][0], people.income.iat[who[i]], int(at[i])) for i in range(-start % every, n, every)]
    feedback = Feedback(home)
    feedback.put([Item(i, label, at=datetime.fromtimestamp(t / 1e6, UTC)) for i, label, t in labels], "bench", "income")
    feedback.close()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def write_rolled(home: Path, rows: int, place: Settings) -> None:
    "So many rows of one day, yesterday, rolled into files."
    people, inputs, outputs = answered(place)
    draw, day = np.random.default_rng(0), (datetime.now(UTC) - timedelta(days=1)).date()
    begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1e6)
    asked, said = pa.array(inputs), pa.array(outputs)
    database(home, "", "batched").connect().close()
    for start in range(0, rows, 200_000):
        n = min(200_000, rows - start)
        who, seq = pa.array(draw.integers(0, len(people), n)), np.arange(start + 1, start + n + 1)
        at = begin + (seq - 1) * 86_400_000_000 // rows
        same = {"model": "income", "version": 1, "arm": "", "subject": None, "flags": "[]"}
        columns = {name: pa.repeat(pa.scalar(value, schema().field(name).type), n) for name, value in same.items()}
        columns |= {"seq": seq, "id": pa.array(seq).cast(pa.string()), "time": pa.array(at, schema().field("time").type)}
        columns |= {"inputs": asked.take(who), "output": said.take(who), "latency": draw.lognormal(-7, 0.4, n)}
        file = home / "predictions" / f"day={day}" / f"{seq[0]:012}-{seq[-1]:012}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_rolled(file, pa.table({name: columns[name] for name in schema().names}, schema()))


if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    there = Settings.model_validate({"root": folder, "home": folder, "registry_uri": f"sqlite:///{folder}/mlflow.db"})
    hand_over(there)
    (write_rolled if sys.argv[3:] == ["rolled"] else write)(folder, count, there)
