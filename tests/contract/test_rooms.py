"""Arrows between rooms point one way: no import of a higher room, on top of a module, in a function, or by a text that names a module."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BELOW = {  # what each room may import; see ARCHITECTURE.md
    "base": "",
    "stats": "",
    "sources": "base",
    "model": "base stats",
    "registry": "base stats sources model",
    "log": "base stats sources model registry",
    "pipeline": "base stats sources model registry log",
    "monitoring": "base stats sources model registry log",
    "stages": "base stats sources model registry log pipeline monitoring",
    "serving": "base stats sources model registry log",
    "batch": "base stats sources model registry log serving",
    "loop": "base stats sources model registry log pipeline monitoring stages serving batch",
    "cli": "base stats sources model registry log pipeline monitoring stages serving batch loop",
}
NAMED = re.compile(rf"(?:mlops_nb\.)?({'|'.join(BELOW)})\.([a-z_0-9]+)\b")


def imported(file: Path, texts: bool = True) -> Iterator[tuple[int, str]]:
    """Every module of ours that a file imports, or names in a text, with its line."""
    folder = list(file.relative_to(ROOT / "mlops_nb").parts[:-1])
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("mlops_nb."))
        elif isinstance(node, ast.ImportFrom):
            base = ["mlops_nb", *folder[: len(folder) + 1 - node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "mlops_nb" or module.startswith("mlops_nb."):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif texts and isinstance(node, ast.Constant) and isinstance(node.value, str):
            for found in NAMED.finditer(node.value):
                if (ROOT / "mlops_nb" / found[1] / f"{found[2]}.py").exists():
                    yield node.lineno, f"mlops_nb.{found[1]}.{found[2]}"


def upward(room: str) -> list[str]:
    """Imports of a room that it may not have."""
    allowed = {room, *BELOW[room].split(), "_modidx", "__version__"}
    files = sorted((ROOT / "mlops_nb" / room).rglob("*.py"))
    return [
        f"{room}/{file.name}:{line} names {module}"
        for file in files
        for line, module in imported(file)
        if module.split(".")[1] not in allowed
    ]


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_one_way(room):
    assert not (found := upward(room)), "\n".join(found)


def test_every_room_is_known():
    rooms = {f.parent.name for f in (ROOT / "mlops_nb").glob("*/[a-z]*.py")}  # a room may have folders of its own
    assert rooms == set(BELOW), f"rooms and arrows differ: {rooms ^ set(BELOW)}"
    assert {f.parent.name for f in (ROOT / "nbs").glob("*/[0-9]*.ipynb")} == rooms


def test_no_circles():
    """Nor do modules of one room import each other in a circle."""
    files = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in (ROOT / "mlops_nb").rglob("*/[a-z]*.py")}
    below = {name: {m for _, module in imported(file, texts=False) for m in (module, module.rpartition(".")[0])} & set(files) - {name} for name, file in files.items()}
    list(TopologicalSorter(below).static_order())  # a circle is a CycleError that names it
    assert sum(map(len, below.values())) > 200


def test_the_table_of_rooms_names_every_module():
    table = {m[1]: set(re.findall(r"`([a-z_0-9]+)`", m[2])) for m in re.finditer(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", (ROOT / "ARCHITECTURE.md").read_text(), re.M)}
    assert set(table) == set(BELOW)
    for room in BELOW.keys() - {"stages", "cli"}:  # told in words: one notebook a stage, one module a group of commands
        there = {f.stem for f in (ROOT / "mlops_nb" / room).rglob("*.py")} - {"__init__", "inference_pb2"}
        assert table[room] == there, f"{room}: {sorted(table[room] ^ there)}"
