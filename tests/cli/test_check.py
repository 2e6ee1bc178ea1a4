"""What `mlops-nb check` calls sound can be imported and run; what can't says which notebook, which cell, and the way out."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import EXPORT, NOTEBOOKS, Project, notebook
from nbdev.export import nb_export

from mlops_nb.base.errors import MlopsError
from mlops_nb.pipeline.plan import prepare
from mlops_nb.base.settings import load_settings

STAGE = "nbs/stages/50_more.ipynb"
IMPORTS = EXPORT + "from mlops_nb.pipeline.stage import Input, Json, Output"
SIGNATURE = 'PARAMETERS\nraw = Input("raw", Json)\nmore = Output("more", Json)'
RUN = "more.write(raw.read())"


def stage(*exported: str, run: str = RUN, first: str = "#| default_exp stages.more") -> list[str]:
    return [first, IMPORTS, SIGNATURE, *[EXPORT + e for e in exported], run]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Project(tmp_path_factory.mktemp("plain") / "project").root


@pytest.fixture
def root(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound project of the test's own."""
    for name in [n for n in os.environ if n.startswith("MLOPS_NB_")]:
        monkeypatch.delenv(name)
    return shutil.copytree(plain, tmp_path / "project")


def put(root: Path, name: str, cells: list[str] | None = None, change: Callable[[dict], object] = lambda made: None, export: bool = True) -> Path:
    """Write a notebook, and export it as nbdev-export would."""
    file, made = root / name, notebook(cells or stage())
    change(made)
    file.write_text(json.dumps(made))
    if export:
        nb_export(file, lib_path=root / "tiny")
        for module in (root / "tiny").rglob("*.py"):  # outside of a project nbdev leaves out the folder that a cell comes from
            module.write_text(module.read_text().replace(f"# %% {file.as_posix()}", f"# %% ../../{name}"))
    return file


def said(root: Path) -> str:
    """What check says; empty when the project is sound."""
    try:
        prepare(load_settings(root))
    except MlopsError as error:
        return str(error)
    return ""


def settings(root: Path, line: str) -> None:
    file = root / "settings.ini"
    key = line.partition("=")[0].strip()
    file.write_text(re.sub(rf"(?m)^{key} *=.*\n", "", file.read_text()) + line + "\n")


MARKS = "<" * 7 + " HEAD\n{}\n=======\n{}\n" + ">" * 7 + " other"
CELLS: dict[str, tuple[list[str], str]] = {  # a stage's cells, what is said of them
    "a cell magic in an exported cell": (stage("%%time\ndef f():\n    return 1"), "`%%time` is IPython's"),
    "a line magic in an exported cell": (stage("%matplotlib inline\nx = 1"), "`%matplotlib inline` is IPython's"),
    "a shell line in an exported cell": (stage("x = 1\n!ls"), "`!ls` is IPython's"),
    "a magic that is assigned": (stage("x = %env HOME"), "`x = %env HOME` is IPython's"),
    "help in an exported cell": (stage("len?"), "`len?` is IPython's"),
    "a syntax error in an exported cell": (stage("def f(:\n    pass"), "invalid syntax in `def f(:`"),
    "a syntax error in a run cell": (stage(run="more.write(("), "was never closed"),
    "a return in a run cell": (stage(run=RUN + "\nreturn 1"), "'return' outside function"),
    "await in an exported cell": (stage("import asyncio\nx = 1\nawait asyncio.sleep(0)"), "'await' outside function"),
    "a keyword given twice": (stage("def f(a, a):\n    return a"), "duplicate argument 'a'"),
    "a late import from the future": (stage("x = 1\nfrom __future__ import annotations, nothing"), "nothing"),
    "a null byte": (stage("x = 1\0"), "null byte"),
    "half a surrogate": (stage("x = 1"), ""),
    "a default that is no name": (stage("def f(x=undefined):\n    return x"), "undefined is not defined when tiny.stages.more is imported"),
    "a decorator that is no name": (stage("@undefined\ndef f():\n    return 1"), "undefined is not defined"),
    "a base class that is no name": (stage("class A(Undefined):\n    pass"), "Undefined is not defined"),
    "a class's body": (stage("class A:\n    x = undefined"), "undefined is not defined"),
    "an annotation that is no name": (stage("def f(x: Undefined):\n    return x"), "Undefined is not defined"),
    "a name bound below": (stage("x = y + 1", "y = 2"), "y is not defined when tiny.stages.more is imported; define it above that line"),
    "a name used nowhere bound, in a function": (stage("def f():\n    return lenght([])"), "lenght is defined nowhere in tiny.stages.more"),
    "a module of the project that isn't there": (stage("from tiny.services.helpr import shift"), "no notebook is exported to tiny.services.helpr; did you mean 'tiny.services.helper'?"),
    "the same inside a function": (stage("def f():\n    from tiny.services.helpr import shift\n    return shift(1)"), "no notebook is exported to tiny.services.helpr"),
    "a name that a module of the project hasn't": (stage("from tiny.services.helper import shifd"), "tiny.services.helper has no 'shifd'; did you mean 'shift'?"),
    "a name that mlops_nb hasn't": (stage("from mlops_nb.pipeline.stage import Inputs"), "mlops_nb.pipeline.stage has no 'Inputs'"),
    "a package that isn't installed": (stage("import no_such_package_anywhere"), "there is no module 'no_such_package_anywhere' here"),
    "a module that an installed package hasn't": (stage("import yaml.no_such_part"), "there is no module 'yaml.no_such_part'"),
    "a name that an installed package hasn't": (stage("from yaml import no_such_name"), "yaml has no 'no_such_name'"),
    "a name that its own first value reads": (stage("import os\nframe = frame.dropna()"), "frame is not defined when tiny.stages.more is imported; define it above that line"),
    "a name that is added to before it is there": (stage("count += 1"), "count is not defined when"),
    "a function that is its own default": (stage("def f(a=f):\n    return a"), "f is not defined when"),
    "a class that is its own base": (stage("class A(A):\n    pass"), "A is not defined when"),
    "a default that only the body binds": (stage("def f(a=late):\n    late = a\n    return late"), "late is"),
    "an import after a type checker's": (stage("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import yaml\nelse:\n    import no_such_package_anywhere"), "there is no module 'no_such_package_anywhere' here"),
    "main": (stage('if __name__ == "__main__":\n    x = 1'), "in JupyterLab __name__ is '__main__', headless it is tiny.stages.more"),
    "an export to elsewhere": ([*stage(), "#| export stages.other\nx = 1"], "sends it to another module"),
    "a stage that is a keyword": (stage(first="#| default_exp stages.class"), "names no module that Python can import, because of 'class'"),
    "a stage with a dash": (stage(first="#| default_exp stages.my-sums"), "because of 'my-sums'"),
    "a stage that is a path": (stage(first="#| default_exp ../../evil"), "names no module that Python can import"),
    "a stage that another notebook has": (stage(first="#| default_exp stages.count"), "40_count.ipynb and 50_more.ipynb are both exported to the stage count"),
    "a run cell with a name of nowhere": (stage(run=RUN + "\nprint(lost)"), "lost will not exist headless"),
}  # fmt: skip
CELLS.pop("half a surrogate")


@pytest.mark.parametrize("case", CELLS)
def test_cells_that_cannot_run(root, case):
    cells, expected = CELLS[case]
    try:
        put(root, STAGE, cells)
    except Exception:  # nbdev-export itself stumbles over some of them
        assert case in ("a null byte", "a stage that is a path", "an export to elsewhere")
    found = said(root)
    assert expected in found and "50_more.ipynb" in found, found
    assert "Traceback" not in found and len(found.splitlines()) <= 2
    if not case.startswith("a stage "):
        assert re.search(r"50_more\.ipynb, cell cell\d", found), found


FORMS: dict[str, tuple[Callable[[dict], object], str]] = {
    "format 3": (lambda made: made.update(nbformat=3, worksheets=[]), "is of Jupyter's format 3, expected 4; open it in JupyterLab and save it"),
    "an id twice": (lambda made: made["cells"][3].update(id="cell1"), "has two cells with the id cell1"),
    "R": (lambda made: made["metadata"].update(kernelspec={"name": "ir", "language": "R"}), "is written in R"),
    "Julia, by language_info": (lambda made: made["metadata"].update(language_info={"name": "julia"}, kernelspec={}), "is written in julia"),
    "no source": (lambda made: made["cells"][3].pop("source"), "every cell needs a cell_type and a source"),
    "metadata that is a list": (lambda made: made["cells"][3].update(metadata=[]), "its metadata"),
    "no cells": (lambda made: made.update(cells=[]), "every cell needs"),
    "a conflict in a cell": (lambda made: made["cells"][4].update(source=MARKS.format("more.write(1)", "more.write(2)")), "50_more.ipynb, cell cell3, line 1: git left a conflict there (`<<<<<<< HEAD`); keep one of the two sides"),
    "a conflict that nbdev-fix kept": (lambda made: made["cells"].insert(1, {"cell_type": "markdown", "id": "x", "metadata": {}, "source": "`<<<<<<< HEAD`"}), "50_more.ipynb, cell x, line 1: git left a conflict"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORMS)
def test_notebooks_that_are_none(root, case):
    change, expected = FORMS[case]
    put(root, STAGE, change=change, export=False)
    assert f"{expected}" in said(root) and "50_more.ipynb" in said(root), said(root)


def test_texts_that_are_no_notebook(root):
    file = put(root, STAGE)
    good = file.read_text()
    for content, expected in (
        (good.replace('"nbformat"', "\n" + MARKS.format('"a": 1,', '"a": 2,') + '\n"nbformat"'), "git left a conflict there (`<<<<<<< HEAD`); choose one side and save, or let nbdev-fix 50_more.ipynb"),
        ("\ufeff" + good, "starts with a byte order mark"), ("[1]", "expected 4"), ("", "is no notebook"), ("[" * 100_000, "is no notebook"), ('{"cells": [1]}', "every cell needs"),
    ):  # fmt: skip
        file.write_text(content, encoding="utf-8")
        assert expected in said(root) and "50_more.ipynb" in said(root), said(root)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kernel = ../../evil", "settings.ini: kernel = '../../evil'; expected a kernel's name"), ("kernel = ..", "expected a kernel's name"), ("kernel = nope", "there is no kernel 'nope'"),
        ("package = os; import os", "settings.ini: package = 'os; import os'; expected a name that Python can import"), ("package = json", "expected a name that Python can import"),
        ("package = class", "expected a name that Python can import"), ("package = ../x", "expected a name that Python can import"), ("package = yaml", "is the name of an installed package, which the project's would hide"),
        ("jobs = many", "settings.ini: jobs = 'many'; expected a valid integer"), ("threads = -1", "threads = '-1'; expected greater than or equal to 0"), ("timeout = 0", "timeout = '0'"),
        ("home = /", "holds" and "there is the project itself"), ("home = .", "the project itself"), ("home = ..", "the project itself"), ("reports = nbs/x", "there is the notebooks"), ("home = tiny", "there is the package"),
        ("home = reports", "are inside each other"), ("home = reports/store", "are inside each other"), ("reports = .mlops/objects", "are inside each other"),
        ("charter = missing.yaml", "no charter missing.yaml"), ("charter = nbs", "charter nbs is a folder"), (MARKS.format("jobs = 1", "jobs = 2"), "settings.ini, line 8: git left a conflict there"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(root, line, expected):
    settings(root, line) if "\n" not in line else (root / "settings.ini").write_text((root / "settings.ini").read_text() + line + "\n")
    assert expected in said(root), said(root)


def test_conflicts_in_charter_and_module(root):
    charter, module = root / "tiny.yaml", root / "tiny" / "services" / "deep.py"
    good = charter.read_text()
    charter.write_text(good + MARKS.format("title: A", "title: B"))
    assert "charter tiny.yaml, line 8: git left a conflict there" in said(root)
    charter.write_text(good)
    module.write_text(module.read_text() + MARKS.format("x = 1", "x = 2"))
    assert "git left a conflict there" in said(root) or "differ from tiny.services.deep; run nbdev-export" in said(root)


def test_helpers_are_in_step_with_their_modules(root):
    put(root, "nbs/services/deep.ipynb", ["#| default_exp services.deep", EXPORT + "def offset():\n    return 2"], export=False)
    assert said(root) == "deep.ipynb: exported cells cell1 differ from tiny.services.deep; run nbdev-export"


def test_modules_that_import_each_other(root):
    put(root, "nbs/services/one.ipynb", ["#| default_exp services.one", EXPORT + "from tiny.services.two import second", EXPORT + "def first():\n    return second()"])
    put(root, "nbs/services/two.ipynb", ["#| default_exp services.two", EXPORT + "from tiny.services.one import first", EXPORT + "def second():\n    return first()"])
    assert "imports this module in turn, and hasn't bound it by then" in said(root) and "two.ipynb, cell cell1" in said(root)
    put(root, "nbs/services/two.ipynb", ["#| default_exp services.two", EXPORT + "def second():\n    from tiny.services.one import first\n\n    return first"])
    assert said(root) == ""


@pytest.mark.parametrize("name", ['a "b"', "a\\b", "a\tb"])
def test_a_column_of_any_name_is_sound(root, name):
    quoted = name.replace('"', '""')
    (root / "rows.csv").write_text(f'y,"{quoted}"\n1,2\n2,3\n')
    assert said(root) == ""


def test_a_class_that_costs_and_cant_be(root):
    charter, kinds = root / "tiny.yaml", "rules: {y: {allowed: [fine, ill]}}\ncosts: {matrix: {ill: {fnie: 9}}}\n"
    charter.write_text(charter.read_text().replace("regression", "multiclass").replace("r2", "accuracy") + kinds)
    assert "costs: the matrix's class 'fnie' is not among the values allowed for 'y'; did you mean 'fine'?" in said(root)
    charter.write_text(charter.read_text().replace("fnie", "fine"))
    assert said(root) == ""


def no_ids(made: dict) -> None:
    made["nbformat_minor"] = 4
    for cell in made["cells"]:
        del cell["id"]


def crlf(made: dict) -> None:
    for cell in made["cells"]:
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")


SOUND: dict[str, tuple[list[str], Callable[[dict], object]]] = {
    "as it is": (stage(), lambda made: None),
    "no cell ids": (stage("def f(x):\n    return x", "def g(x):\n    return f(x)"), no_ids),
    "lines that end as on Windows": (stage("def f(x):\n    return x"), crlf),
    "magics in a run cell": (stage(run="%%time\nfor i in range(2):\n    %time i\n" + RUN), lambda made: None),
    "a line magic in a block, a shell line, help": (stage(run="if True:\n    %time 1\nfiles = !ls\nprint(len(files))\n%env HOME\n" + RUN), lambda made: None),
    "a cell of another language": ([*stage(), "%%bash\nfor i in 1 2; do echo $i; done"], lambda made: None),
    "what a cell captures": ([*stage(), "%%capture kept\nprint(1)", "str(kept)"], lambda made: None),
    "await in a run cell": (stage(run="import asyncio\nawait asyncio.sleep(0)\n" + RUN), lambda made: None),
    "names of every alphabet": (stage("größe = 1\n数 = größe\n\n\ndef 합(값=数):\n    return 값"), lambda made: None),
    "names of inner scopes": (stage(run="def f():\n    import math\n    try:\n        return math.pi\n    except ValueError as error:\n        return error\nmatch raw.read():\n    case [first, *rest]:\n        print(first, rest)\n[last := n for n in (1, 2)]\nprint(last, f())\n" + RUN), lambda made: None),
    "postponed annotations": ([*stage()[:1], EXPORT + "from __future__ import annotations", *stage()[1:3], EXPORT + "def f(x: Later) -> Later:\n    return x\n\n\nclass Later:\n    y: Later", RUN], lambda made: None),
    "guarded imports": (stage("try:\n    import no_such_package_anywhere as fast\nexcept ImportError:\n    fast = None\n\n\ndef f():\n    import no_such_package_anywhere\n\n    return no_such_package_anywhere"), lambda made: None),
    "imports for type checkers": (stage("import typing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from no_such_package_anywhere import A\n    from tiny.services.nonexist import zz\n    from tiny.stages.more import f as this\nif typing.TYPE_CHECKING:\n    import no_such_package_anywhere\n\n\ndef f(x: 'A') -> 'zz':\n    return x"), lambda made: None),
    "imports guarded in other ways": (stage("from contextlib import suppress\nwith suppress(ImportError):\n    import no_such_package_anywhere\nclass A:\n    try:\n        import no_such_package_anywhere as fast\n    except ImportError:\n        fast = None\nfor _ in range(1):\n    try:\n        from no_such_package_anywhere import fast\n    except ImportError:\n        fast = None\ntry:\n    from tiny.services.nonexist import zz\nexcept ImportError:\n    zz = None\ntry:\n    from tiny.services.helper import nonexist\nexcept ImportError:\n    nonexist = None"), lambda made: None),
    "a name behind a star import inside a try": (stage("from yaml import CSafeLoader"), lambda made: None),
    "names bound by name": (stage("for n in ('P', 'R'):\n    globals()[n] = 1\nglobals().update(S=2)\nexec('Q = 1')\ntotal = P + Q + R + S\n\n\ndef f():\n    return P"), lambda made: None),
    "a global that a function has bound by then": (stage("def begin():\n    global state\n    state = 1\n\n\nbegin()\nnow = state"), lambda made: None),
    "names that are bound anew": (stage("x = [x for x in range(3)]\nx = x + [1]\nx += [2]\nprint = print\ny = (z := 1) + z\ni, x[i] = 0, 1\nf = lambda: f\n\n\ndef g(a=[g for g in x]):\n    return a\n\n\ndef g(a=g):\n    return a\n\n\nclass A:\n    pass\n\n\nclass A(A):\n    pass"), lambda made: None),
    "names of a class in a run cell": (stage(run="from dataclasses import dataclass\n@dataclass\nclass P:\n    lo: int = 1\n    hi: int = lo + 1\nclass A:\n    z = 1\n    def f(self, k=z):\n        return k\nprint(P(), A().f())\n" + RUN), lambda made: None),
    "a directive inside a text": (stage(run="T = '''\n#| export me\nhello\n'''\nassert T.splitlines()[1] == '#| export me'\n" + RUN), lambda made: None),
    "a directive below a comment, which is none": ([*stage(), "# a note\n#| export\nassert True"], lambda made: None),
    "directives as nbdev lets them be written": (["#|default_exp: stages.more", IMPORTS, SIGNATURE, "\n# | export: true\nx = 1", EXPORT + "y = x", RUN], lambda made: None),
    "names that a class, a comprehension and a loop make": (stage("class A:\n    x = 1\n    y = x + 1\n\n    def f(self) -> 'A':\n        return A()\n\n\nz = [i * j for i in range(3) for j in range(i)]\nfor k in z:\n    last = k\nw = (lambda n: n + 1)(1)\nglobal_name = [a for a in z if (b := a)]"), lambda made: None),
    "os.path and the like": (stage("import os.path\nimport xml.etree.ElementTree as tree\nfrom os.path import join\nfrom collections import abc\nimport numpy.linalg\nfrom sklearn.linear_model import Ridge\nfrom IPython.display import HTML"), lambda made: None),
    "a global that a function binds": (stage("def begin():\n    global state\n    state = 1\n\n\ndef read():\n    return state, __file__, __name__"), lambda made: None),
}  # fmt: skip


def sound_project(root: Path) -> None:
    """All the sound variants, as stages of one project: export takes long, and a run starts a kernel for each."""
    for n, (cells, change) in enumerate(SOUND.values()):
        mine = [c.replace("stages.more", f"stages.more{n}").replace('more = Output("more"', f'more = Output("more{n}"') for c in cells]
        put(root, f"nbs/stages/{50 + n}_more.ipynb", mine, change, export=False)
    tool = Path(sys.executable).with_name("nbdev-export")
    subprocess.run([tool], cwd=root, check=True, capture_output=True, timeout=120)


def test_what_is_sound_can_be_imported(root):
    sound_project(root)
    assert said(root) == ""
    code = "import importlib\n" + "".join(f"importlib.import_module('tiny.stages.more{n}')\n" for n in range(len(SOUND)))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_is_sound_runs(root):
    sound_project(root)
    settings(root, "kernel = mlops-nb")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_") and k != "IN_TEST"}
    done = subprocess.run([Path(sys.executable).with_name("mlops-nb"), "run"], cwd=root, capture_output=True, text=True, timeout=600, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    latest = root / "reports" / (root / "reports" / "latest").read_text().strip() / "summary.json"
    stages = json.loads(latest.read_text())["stages"]
    assert {s["status"] for s in stages.values()} == {"done"} and len(stages) == len(SOUND) + 4


def test_the_case_of_the_fixture_is_sound(root):
    assert said(root) == "" and set(NOTEBOOKS) >= {"services/deep.ipynb"}
