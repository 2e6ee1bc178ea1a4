"""A ratchet on sizes: what is large may shrink and must not grow. Judge by reading; these numbers only say where to look."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CELL, MODULE, PUBLIC = 60, 400, 20  # lines of an exported cell, lines of a module, public names of a module
LONG_LINES = 1_831  # written ones of the package, over 120 characters
#: What is over, by how much it may be, and why: it may shrink and not grow.
CELLS: dict[str, int] = {
    # one class of one idea; its methods come apart by fastcore's patch when it is next worked on
    "base/12_secrets": 110, "batch/30_parts": 109, "loop/10_alerts": 85, "loop/30_retraining": 145, "loop/40_schedule": 80,
    "loop/70_drill": 85, "model/30_rows": 123, "model/40_columns": 81, "pipeline/15_reach": 77, "pipeline/25_soundness": 94,
    "pipeline/45_kernel": 62, "pipeline/70_tracking": 105,
    # short functions that are read together: one step each of one way
    "model/70_compiled": 92, "pipeline/24_keys": 63, 
    "stages/150_abtest": 74,
    # commands of one group, and a table of texts
    "cli/20_project": 96, "cli/85_experiments": 64,
}  # fmt: skip
MODULES: dict[str, int] = {
    # commands: mostly what they say to people
    "cli/main.py": 563,
    # one loop with its state
    "loop/drill.py": 414, "loop/retraining.py": 454,
    # one idea that is long: a kernel, what a notebook says, the last choice, three kinds of statistics
    "pipeline/kernel.py": 480, "pipeline/signatures.py": 453, "stages/ensemble.py": 454,
    "stats/experiment.py": 458,
}  # fmt: skip
NAMES: dict[str, int] = {
    # tests and lessons speak about each step by its name
    "cli/main.py": 25,
    "stats/profile.py": 23,
}  # fmt: skip


def modules() -> dict[str, str]:
    """The text of each exported module, by room/name."""
    files = sorted(f for f in (ROOT / "mlops_nb").glob("*/*.py") if f.name not in ("__init__.py", "inference_pb2.py"))
    return {f"{f.parent.name}/{f.name}": f.read_text(encoding="utf-8") for f in files}


def longest_cell(notebook: Path) -> int:
    """Lines of a notebook's longest exported cell."""
    cells = ["".join(c["source"]) for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    return max((cell.count("\n") for cell in cells if cell.startswith("#| export")), default=0)


def public_names(text: str) -> int:
    """How many names a module exports."""
    found = [n.value for n in ast.parse(text).body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    return len(ast.literal_eval(found[0])) if found else 0


def grown(found: dict[str, int], usual: int, known: dict[str, int]) -> list[str]:
    """What is larger than it may be, and what has shrunk and should be said so."""
    over = [f"{name} has {n}; at most {known.get(name, usual)}" for name, n in found.items() if n > known.get(name, usual)]
    return over + [f"{name} is down to {found.get(name, 0)}: lower its number" for name, most in known.items() if found.get(name, 0) <= max(usual, most * 0.9)]


@pytest.mark.parametrize("what", ["cells", "modules", "names"])
def test_nothing_grows(what):
    found, usual, known = {
        "cells": lambda: ({f"{f.parent.name}/{f.stem}": longest_cell(f) for f in sorted((ROOT / "nbs").glob("*/[0-9]*.ipynb"))}, CELL, CELLS),
        "modules": lambda: ({name: text.count("\n") for name, text in modules().items()}, MODULE, MODULES),
        "names": lambda: ({name: public_names(text) for name, text in modules().items()}, PUBLIC, NAMES),
    }[what]()
    assert not (wrong := grown(found, usual, known)), "\n".join(wrong)


def depth(node: ast.AST) -> int:
    """How many nodes lie in each other."""
    return 1 + max(map(depth, ast.iter_child_nodes(node)), default=0)


def test_no_test_is_nested_deeply():
    """pytest writes assertions anew and shows them node by node; on some Pythons a deep one ends the whole session, and hides what failed."""
    files = [f for f in (ROOT / "tests").rglob("test_*.py")]
    statements = [(f, n) for f in files for n in ast.walk(ast.parse(f.read_text(encoding="utf-8"))) if isinstance(n, ast.stmt) and not hasattr(n, "body")]
    assert not (deep := [f"{f.name}:{n.lineno}" for f, n in statements if depth(n) > 15]), f"take these apart: {', '.join(deep)}"


def test_long_lines():
    written = [re.sub(r"^__all__ = \[.*?\]$", "", text, count=1, flags=re.M | re.S) for text in modules().values()]  # nbdev makes that
    n = sum(len(line) > 120 for text in written for line in text.splitlines())
    assert n <= LONG_LINES, f"{n:,} lines of the package are over 120 characters, {LONG_LINES:,} when this was set: wrap the new ones"
