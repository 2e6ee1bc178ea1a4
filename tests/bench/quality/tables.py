"""A folder of tables as a person has them: CSV files, each with an optional YAML of the same name; divided by seed
into rows to learn from and rows held out.

    target: price        # default: the last column
    task: regression     # binary, multiclass or regression; default: as the target's values look
    split: later         # the held-out rows come after the others in the file; default: random, classes in proportion

Rows are divided as they are written: encoding, separator and missing values stay. Rows without a target are left out.
"""

import codecs
import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rows import label, number

TASKS = ("binary", "multiclass", "regression")
SPLITS = ("random", "later")
MISSING = {"", "na", "n/a", "nan", "null", "?"}
HELD_OUT = 0.25  # share of rows; `later`: 0.2
csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Table:
    "A CSV file, how it is written, and what is learnt from it."

    name: str
    header: tuple[str, ...]
    rows: list[list[str]]  # with a target
    target: str
    task: str
    split: str
    encoding: str
    separator: str
    digest: str

    @property
    def truth(self) -> list[str]:
        place = self.header.index(self.target)
        return [row[place] for row in self.rows]


def encoding_of(data: bytes) -> str:
    "How the bytes are to be read, and written again."
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    for name in ("utf-8", "cp1252"):
        try:
            data.decode(name)
            return name
        except UnicodeDecodeError:
            continue
    return "latin-1"


def separator_of(text: str) -> str:
    "What cuts the first lines into the most columns, all of them alike."

    def columns(separator: str) -> tuple[bool, int]:
        lines = [
            line
            for _, line in zip(range(50), csv.reader(io.StringIO(text, newline=""), delimiter=separator), strict=False)
        ]
        widths = [len(line) for line in lines if line]
        return len(set(widths)) == 1, widths[0] if widths else 0

    return max(",;\t|", key=columns)


def task_of(values: list[str]) -> str:
    "What the target's values look like: numbers with many values are amounts."
    different = {label(v) for v in values}
    if len(different) <= 2:
        return "binary"
    try:
        whole = all(number(v).is_integer() for v in different)
    except ValueError:
        return "multiclass"
    return "multiclass" if whole and len(different) <= 10 else "regression"


def said_of(file: Path) -> dict[str, str]:
    "What the YAML beside a table says."
    beside = next((f for end in (".yaml", ".yml") if (f := file.with_suffix(end)).is_file()), None)
    said = (yaml.safe_load(beside.read_text("utf-8")) or {}) if beside else {}
    if not isinstance(said, dict):
        raise SystemExit(f"{beside.name} is no mapping; expected lines such as target: price")
    if unknown := set(said) - {"target", "task", "split"}:
        raise SystemExit(f"{beside.name} says {', '.join(sorted(map(str, unknown)))}; known are target, task and split")
    for key, known in (("task", TASKS), ("split", SPLITS)):
        if key in said and said[key] not in known:
            raise SystemExit(f"{beside.name}: {key} is {said[key]!r}; expected one of {', '.join(known)}")
    return {key: str(value) for key, value in said.items()}


def read(file: Path) -> Table:
    "A table, ready to be divided."
    data, said = file.read_bytes(), said_of(file)
    encoding = encoding_of(data)
    text = data.decode(encoding)
    separator = separator_of(text)
    header, *rows = (line for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if line)
    target = said.get("target", header[-1])
    if target not in header:
        raise SystemExit(f"{file.name} has no column {target!r}; it has {', '.join(header[:20])}")
    place = header.index(target)
    rows = [row for row in rows if len(row) > place and row[place].strip().lower() not in MISSING]
    task = said.get("task", task_of([row[place] for row in rows]))
    digest = hashlib.sha256(data + json.dumps(said, sort_keys=True).encode()).hexdigest()
    return Table(file.stem, tuple(header), rows, target, task, said.get("split", "random"), encoding, separator, digest)


def folder(place: Path) -> list[Table]:
    "All tables of a folder, in the order of their names."
    files = sorted(f for f in place.iterdir() if f.suffix.lower() == ".csv")
    if not files:
        raise SystemExit(
            f"{place} has no CSV file; expected tables such as prices.csv, each with an optional prices.yaml"
        )
    return [read(file) for file in files]


def held_out(table: Table, seed: int) -> np.ndarray:  # bool, one a row
    "Which rows are held out. `later`: a fifth of the rows, after the first half, 60% or 70% of them by seed."
    n, held = len(table.rows), np.zeros(len(table.rows), dtype=bool)
    if table.split == "later":
        first = int(n * (0.5 + 0.1 * (seed % 4)))
        held[first : first + max(1, int(n * 0.2))] = True
        return held
    draw = np.random.default_rng(seed)
    classes = (
        np.zeros(n, dtype=int)
        if table.task == "regression"
        else np.unique([label(v) for v in table.truth], return_inverse=True)[1]
    )
    for one in range(classes.max() + 1):
        rows = draw.permutation(np.flatnonzero(classes == one))
        held[rows[: round(len(rows) * HELD_OUT)]] = True
    return held


def parts(table: Table, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    "Rows to learn from, and rows held out."
    held = held_out(table, seed)
    known = range(len(held)) if table.split == "random" else range(int(np.flatnonzero(held)[0]))
    return [table.rows[i] for i in known if not held[i]], [table.rows[i] for i in np.flatnonzero(held)]


def targets(table: Table, seed: int) -> tuple[list[str], list[str]]:
    "The targets of both."
    place = table.header.index(table.target)
    known, asked = parts(table, seed)
    return [row[place] for row in known], [row[place] for row in asked]


def divide(table: Table, seed: int, into: Path) -> tuple[Path, Path]:
    "Write the rows to learn from, and the held-out rows without their target."
    place, files = table.header.index(table.target), (into / "train.csv", into / "test.csv")
    for path, rows in zip(files, parts(table, seed), strict=True):
        with open(path, "w", encoding=table.encoding, newline="") as file:
            lines = csv.writer(file, delimiter=table.separator)
            lines.writerows(
                [v for i, v in enumerate(row) if i != place or path == files[0]] for row in [table.header, *rows]
            )
    return files
