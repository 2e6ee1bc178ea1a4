"""The cells of the benchmark (a table, a seed, a tool), each measured once and kept as one JSON line; a run that was
killed goes on after the last whole line.
"""

import hashlib
import json
from pathlib import Path
from typing import Any


def key(**what: Any) -> str:
    "What decides a cell's result: the table's digest, seed, tool, versions, budget, threads."
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class Results:
    "What was measured, by key; the last line of a key counts."

    def __init__(self, file: Path):
        self.file, self.known = file, {}
        for line in file.read_text("utf-8").splitlines() if file.exists() else []:
            try:
                cell = json.loads(line)
                self.known[cell["key"]] = cell
            except (json.JSONDecodeError, KeyError, TypeError):  # the line that was being written when it was killed
                continue

    def add(self, cell: dict[str, Any]) -> None:
        "Append a whole line, after a torn one too."
        torn = self.file.exists() and self.file.stat().st_size and not self.file.read_bytes().endswith(b"\n")
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(cell) + "\n")
        self.known[cell["key"]] = cell
