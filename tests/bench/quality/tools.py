"""The tools that are compared: each in its environment, with its versions, called as a program of its own."""

import ast
import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PEERS = {
    "flaml": ("flaml", "lightgbm", "xgboost", "scikit-learn"),
    "autogluon": ("autogluon.tabular", "lightgbm", "catboost", "xgboost-cpu", "scikit-learn"),
}
TOOLS = ("ours", "hgb", *PEERS)  # in the order in which they are tried
VERSIONS = (
    "import json,sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
)


class Measured(NamedTuple):
    "What a command used; see measure.py."

    cpu: float
    peak_mb: float
    wall: float
    code: int | None
    error: str


def environment(name: str, cache: Path) -> tuple[Path, str]:  # its Python; why it is not there
    "An environment with what requirements-NAME.txt says, made when it isn't there or the file has changed."
    asked, place = HERE / f"requirements-{name}.txt", cache / "env" / name
    wanted, mark, python = hashlib.sha256(asked.read_bytes()).hexdigest(), place / "made", place / "bin" / "python"
    if mark.is_file() and mark.read_text() == wanted:
        return python, ""
    uv = Path(sys.executable).with_name("uv")
    for words in (
        ["venv", "--quiet", "--clear", "--python", sys.executable, place],
        ["pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", asked],
    ):
        try:
            done = subprocess.run([uv, *words], capture_output=True, text=True)
        except OSError as error:
            return python, f"uv is not there to install it ({error.strerror})"
        if done.returncode:
            return python, f"it can't be installed: {' '.join(done.stderr.split())[:300]}"
    mark.write_text(wanted)
    return python, ""


def without_prose(tree: ast.Module) -> ast.Module:
    "A program without its docstrings."
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if node.body else None
            if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                node.body = node.body[1:]
    return tree


def code_of(files: Iterable[Path]) -> str:
    "A digest of what would run: of programs their syntax without docstrings, of notebooks the code cells."
    made = hashlib.sha256()
    for file in sorted(files):
        data = file.read_bytes()
        if file.suffix == ".ipynb":
            data = json.dumps([c["source"] for c in json.loads(data)["cells"] if c["cell_type"] == "code"]).encode()
        elif file.suffix == ".py":
            data = ast.dump(without_prose(ast.parse(data))).encode()
        made.update(file.name.encode() + b"\0" + data)
    return made.hexdigest()[:16]


@functools.cache
def versions(tool: str, python: Path) -> dict[str, str]:
    "What a tool's answers depend on besides rows, seed, budget and threads."
    own = {
        "program": code_of(
            [
                HERE / f"tool_{tool}.py",
                HERE / "rows.py",
                *([HERE / "clock.py"] if tool in PEERS else []),
                *([HERE / "registered.py"] if tool == "ours" else []),
            ]
        )
    }
    if tool in PEERS:
        return own | json.loads(
            subprocess.run([python, "-c", VERSIONS, *PEERS[tool]], capture_output=True, text=True, check=True).stdout
        )
    if tool == "ours":
        own["mlops_nb"] = code_of([*(ROOT / "mlops_nb").rglob("*.py"), *(ROOT / "nbs" / "stages").glob("*.ipynb")])
    return own | {name: version(name) for name in ("scikit-learn", "numpy", "pandas")}


def measured(command: list[Any], limit: float, env: dict[str, str], log: Path) -> Measured:
    "Run a command under measure.py; the last words of its output are the error, where it failed."
    asked = [sys.executable, HERE / "measure.py", str(limit), *map(str, command)]
    with (
        open(log, "w") as file,
        subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=file, env=env, text=True) as done,
    ):
        try:
            said = done.communicate()[0]
        except BaseException:  # it ends its tree before itself
            done.terminate()
            done.wait()
            raise
    *_, last = said.strip().splitlines() or [""]
    if done.returncode or not last.startswith("{"):
        raise SystemExit(f"measure.py ended with {done.returncode}: {log.read_text(errors='replace')[-500:]}")
    used = json.loads(last)
    words = " ".join(log.read_text(errors="replace").split())[-500:]
    error = (
        ""
        if used["code"] == 0
        else f"ended after {limit:.0f} s of wall time"
        if used["code"] is None
        else words or f"exit code {used['code']}"
    )
    return Measured(used["cpu"], used["peak_mb"], used["wall"], used["code"], error)
