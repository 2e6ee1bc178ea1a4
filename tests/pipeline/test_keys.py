"""What decides a stage's result is in its key, however the code comes to it; what decides nothing is not."""

import importlib
import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlops_nb.pipeline.graph import load_graph
from mlops_nb.pipeline.keys import ingredients, key_of
from mlops_nb.pipeline.reach import FRAME, Reach, module_file
from mlops_nb.base.settings import Settings
from mlops_nb.pipeline.signatures import Cell, Stage

#: How a module comes to `value` of module NEXT of package PKG: what it holds so that its own `value()` gives the same.
WAYS = {
    "name": "from PKG.NEXT import value as other\ndef value():\n    return other()",
    "module": "from PKG import NEXT\ndef value():\n    return NEXT.value()",
    "alias": "import PKG.NEXT as other\ndef value():\n    return other.value()",
    "dotted": "import PKG.NEXT\ndef value():\n    return PKG.NEXT.value()",
    "relative": "from .NEXT import value as other\ndef value():\n    return other()",
    "from here": "from . import NEXT\ndef value():\n    return NEXT.value()",
    "in a function": "def value():\n    from PKG.NEXT import value as other\n    return other()",
    "in a function, by module": "def value():\n    import PKG.NEXT\n    return PKG.NEXT.value()",
    "tried": "try:\n    from PKG.NEXT import value as other\nexcept ImportError:\n    other = None\ndef value():\n    return other()",
    "method": "from PKG.NEXT import value as other\nclass Thing:\n    def ask(self):\n        return other()\ndef value():\n    return Thing().ask()",
    "class attribute": "from PKG.NEXT import value as other\nclass Thing:\n    kept = other()\ndef value():\n    return Thing.kept",
    "default": "from PKG.NEXT import value as other\ndef value(given=other()):\n    return given",
    "constant": "from PKG import NEXT\nKEPT = [NEXT.value()]\ndef value():\n    return KEPT[0]",
    "table entry": "from PKG.NEXT import value as other\nTABLE = {}\nTABLE['value'] = other\ndef value():\n    return TABLE['value']()",
    "table update": "from PKG.NEXT import value as other\nTABLE = {}\nTABLE.update(value=other)\ndef value():\n    return TABLE['value']()",
    "grown": "from PKG.NEXT import value as other\nTABLE = []\nTABLE += [other]\ndef value():\n    return TABLE[0]()",
    "attribute": "from PKG.NEXT import value as other\nclass Thing:\n    pass\nThing.ask = other\ndef value():\n    return Thing.ask()",
    "loop": "from PKG.NEXT import value as other\nTABLE = {}\nfor name in ('value',):\n    TABLE[name] = other\ndef value():\n    return TABLE['value']()",
    "decorator of a table": "from PKG.NEXT import value as other\nclass Table(dict):\n    def add(self, function):\n        self[function.__name__] = function\nTABLE = Table()\n@TABLE.add\ndef entry():\n    return other()\ndef value():\n    return TABLE['entry']()",
    "registering decorator": "from PKG.NEXT import value as other\nTABLE = {}\ndef register(function):\n    TABLE[function.__name__] = function\n@register\ndef entry():\n    return other()\ndef value():\n    return TABLE['entry']()",
    "registering call": "from PKG.NEXT import value as other\nTABLE = {}\ndef register(function):\n    TABLE['entry'] = function\n_ = register(other)\ndef value():\n    return TABLE['entry']()",
    "subclass": "from PKG.NEXT import value as other\nclass Base:\n    found = []\n    def __init_subclass__(cls):\n        Base.found.append(cls)\nclass Child(Base):\n    ask = staticmethod(other)\ndef value():\n    return Base.found[0].ask()",
    "single dispatch": "import functools\nfrom PKG.NEXT import value as other\n@functools.singledispatch\ndef ask(thing):\n    return 0\n@ask.register\ndef _(thing: int):\n    return other()\ndef value():\n    return ask(1)",
    "through the package": "from PKG.sub import other\ndef value():\n    return other()",
    "star": "from PKG.NEXT import *",
    "by text": "import importlib\ndef value():\n    return importlib.import_module('PKG.NEXT').value()",
    "by relative text": "import importlib\ndef value():\n    return importlib.import_module('.NEXT', __package__).value()",
    "by a text that is put together": "import importlib\nNAME = 'NEXT'\ndef value():\n    return importlib.import_module(f'PKG.{NAME}').value()",
    "entry point": "import pkgutil\ndef value():\n    return pkgutil.resolve_name('PKG.NEXT:value')()",
    "getattr": "from PKG import NEXT\ndef value():\n    return getattr(NEXT, 'value')()",
    "handed on": "from PKG import NEXT\ndef ask(module):\n    return module.value()\ndef value():\n    return ask(NEXT)",
    "globals": "from PKG.NEXT import value as other\ndef value():\n    return globals()['oth' + 'er']()",
    "eval": "from PKG.NEXT import value as other\ndef value():\n    return eval('oth' + 'er()')",
    "loaded": "import PKG.NEXT\nimport sys\ndef value():\n    return sys.modules['PKG.NEXT'].value()",
    "composed text": "import importlib\ndef value():\n    return importlib.import_module('.'.join(['PKG', 'NEXT'])).value()",
    "plugins": "import importlib, pkgutil\nimport PKG\ndef value():\n    found = {m.name: importlib.import_module(f'{PKG.__name__}.{m.name}') for m in pkgutil.iter_modules(PKG.__path__) if m.name == 'NEXT'}\n    return found['NEXT'].value()",
    "subclass of a subclass": "from PKG.NEXT import value as other\nclass Base:\n    found = []\n    def __init_subclass__(cls):\n        Base.found.append(cls)\nclass Mid(Base):\n    pass\nclass Leaf(Mid):\n    ask = staticmethod(other)\ndef value():\n    return Base.found[-1].ask()",
    "by another name": "from PKG.NEXT import value as other\nTABLE = {}\nALIAS = TABLE\nALIAS['value'] = other\ndef value():\n    return TABLE['value']()",
    "registers itself": "from PKG.NEXT import value as other\nTABLE = []\nclass Entry:\n    def __init__(self, ask):\n        TABLE.append(ask)\none = Entry(other)\ndef value():\n    return TABLE[0]()",
    "quoted annotation": "import typing\nfrom PKG.NEXT import value as other\nclass Part:\n    ask = staticmethod(other)\nclass Whole:\n    part: 'Part'\ndef value():\n    return typing.get_type_hints(Whole)['part'].ask()",
    "unless a program": "from PKG.NEXT import value as other\nif __name__ != '__main__':\n    ask = other\ndef value():\n    return ask()",
    "variables": "from PKG.NEXT import value as other\nTABLE = dict(vars())\ndef value():\n    return TABLE['other']()",
    "in a tuple": "from PKG.NEXT import value as other\nTABLE = {}\nTABLE['value'], x = other, 1\ndef value():\n    return TABLE['value']()",
    "in a class body": "from PKG.NEXT import value as other\nTABLE = []\nclass Thing:\n    TABLE.append(other)\ndef value():\n    return TABLE[0]()",
    "lazy": "__all__ = ['value']\ndef __getattr__(name):\n    if name == 'value':\n        from PKG.NEXT import value\n        return value\n    raise AttributeError(name)",
}
numbers = itertools.count()


class Package:
    """A package of modules m0, m1, ..., each of which gets its value from the next one, the last from a constant."""

    def __init__(self, folder: Path, ways: list[str]):
        self.name, self.root = f"chain{next(numbers)}", folder
        self.files = {f"m{i}": WAYS[way].replace("PKG", self.name).replace("NEXT", f"m{i + 1}") + "\n" for i, way in enumerate(ways)}
        self.files[f"m{len(ways)}"] = "LIMIT = 10\ndef value():\n    return LIMIT\n"
        (folder / self.name / "sub").mkdir(parents=True)
        (folder / self.name / "__init__.py").touch()
        through = [i for i, way in enumerate(ways) if way == "through the package"]
        self.files["sub/__init__"] = f"from ..m{through[0] + 1} import value as other\n" if through else ""
        self.write()

    def write(self) -> None:
        for name, text in self.files.items():
            (self.root / self.name / f"{name}.py").write_text(text)

    def digests(self) -> dict[str, str]:
        run = f"from {self.name} import m0\nanswer = m0.value()" if "__getattr__" in self.files["m0"] else "answer = value()"
        return Reach(self.root, self.root / "home").follow(run, f"{self.name}.m0").digests

    def value(self) -> int:
        "What it really gives: imported afresh."
        importlib.invalidate_caches()
        for module in [m for m in sys.modules if m.partition(".")[0] == self.name]:
            del sys.modules[module]
        shutil.rmtree(self.root / self.name / "__pycache__", ignore_errors=True)
        sys.path.insert(0, str(self.root))
        try:
            return importlib.import_module(f"{self.name}.m0").value()
        finally:
            sys.path.remove(str(self.root))


def chains():
    return st.lists(st.sampled_from(sorted(WAYS)), min_size=1, max_size=4).filter(lambda c: c.count("through the package") < 2)


quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_way_to_a_constant(tmp_path, way):
    hold_a_chain(tmp_path, [way])


@given(chains())
@quick
def test_ways_one_after_the_other(tmp_path, ways):
    hold_a_chain(tmp_path, ways)


def hold_a_chain(folder: Path, ways: list[str]) -> None:
    package = Package(folder, ways)
    assert package.value() == 10
    before = package.digests()
    assert package.digests() == before
    last = f"m{len(ways)}"
    package.files[last] = package.files[last].replace("10", "11")
    package.write()
    after = package.digests()
    assert package.value() == 11
    assert {m for m in after if after[m] != before.get(m)} == {f"{package.name}.{last}"}


@given(chains())
@example(["name", "star", "lazy"])
@quick
def test_words_decide_nothing(tmp_path, ways):
    package = Package(tmp_path, ways)
    before = package.digests()
    package.files = {name: f'"""What it is for."""\n# a comment\n\n\n{text}\n' for name, text in package.files.items()}
    package.write()
    assert package.digests() == before and package.value() == 10


def parts_of(root: Path, run: str, module: str = "own.stages.count", knobs: dict | None = None, kinds: tuple = (), **more) -> dict:
    "The ingredients of a stage of package `own` with this run cell."
    cells = (Cell("c1", frozenset({"parameters"}), {}, "n: int = 1"), Cell("c2", frozenset(), {}, run))
    made = Settings(root=root, package="own", threads=1, **more)
    return ingredients(Stage("count", root / "count.ipynb", module, "Count", kinds, (), (), {}, cells), knobs or {"n": 1}, {p.artifact: "" for p in kinds}, made)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own" / "stages").mkdir(parents=True)
    (tmp_path / "own" / "__init__.py").touch()
    (tmp_path / "own" / "stages" / "count.py").write_text("from pathlib import Path\n")
    return tmp_path


@pytest.mark.parametrize(("run", "file"), [
    ("open('prices.csv')", "prices.csv"),
    ("from pathlib import Path\nPath('data') / 'prices.csv'", "data/prices.csv"),
    ("import os\nos.path.join('data', 'prices.csv')", "data/prices.csv"),
    ("from importlib.resources import files\nfiles('own') / 'data' / 'prices.csv'", "own/data/prices.csv"),
    ("from own.look import read\nread()", "own/prices.csv"),
    ("from helpers import read\nread()", "helpers.py"),
    ("import helpers\nhelpers.read()", "helpers.py"),
    ("from space.inner import read\nread()", "space/inner.py"),
])  # fmt: skip
def test_a_file_that_the_code_names_is_in_the_key(own, run, file):
    (own / "own" / "look.py").write_text("from pathlib import Path\ndef read():\n    return (Path(__file__).parent / 'prices.csv').read_text()\n")
    place = own / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("def read():\n    return 1\n")
    before = key_of(parts_of(own, run))
    assert key_of(parts_of(own, run)) == before
    place.write_text("def read():\n    return 22\n")
    assert key_of(parts_of(own, run)) != before


def test_a_file_that_a_knob_names_is_in_the_key_but_what_runs_write_is_not(own):
    (own / "new.csv").write_text("a\n1")
    (own / "reports").mkdir()
    (own / "reports" / "latest").write_text("1")
    run = "print(table)\nopen('reports/latest')"
    before = parts_of(own, run, knobs={"table": "new.csv", "others": ["new.csv"]})
    (own / "reports" / "latest").write_text("2")
    assert parts_of(own, run, knobs={"table": "new.csv", "others": ["new.csv"]}) == before
    (own / "new.csv").write_text("a\n2")
    assert {k for k, v in parts_of(own, run, knobs={"table": "new.csv", "others": ["new.csv"]}).items() if v != before[k]} == {"files"}


@pytest.mark.parametrize("run", ["import os\nos.environ['REGION']", "import os\nos.getenv('REGION', '')", "from os import environ\nenviron.get('REGION')", "import os\nNAME = 'REGION'\nos.environ[NAME]"])
def test_a_variable_that_the_code_reads_is_in_the_key(own, monkeypatch, run):
    without = parts_of(own, run)
    monkeypatch.setenv("REGION", "north")
    assert parts_of(own, run)["environment"] == {"REGION": "north"} and key_of(parts_of(own, run)) != key_of(without)
    assert parts_of(own, "print('REGION')")["environment"] == {}


def test_a_secret_is_in_no_key(own, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "a-long-secret-value")
    assert "a-long-secret-value" not in json.dumps(parts_of(own, "import os\nos.environ['SHOP_TOKEN']"))


def test_settings_are_in_the_key_of_a_stage_that_loads_them(own):
    run = "from mlops_nb.base.settings import load_settings\nload_settings().jobs"
    assert parts_of(own, run, jobs=1)["settings"] != parts_of(own, run, jobs=3)["settings"]
    assert parts_of(own, "1", jobs=1) == parts_of(own, "1", jobs=3)


def test_another_prediction_log_is_another_key(own):
    from mlops_nb.pipeline.signatures import Port

    kinds = (Port("log_position", "log_position", "Position"),)
    assert key_of(parts_of(own, "1", kinds=kinds, log_url="postgresql://one/x")) != key_of(parts_of(own, "1", kinds=kinds, log_url="postgresql://two/x"))


def test_lines_of_ipython_are_code(own):
    assert key_of(parts_of(own, "if n:\n    %time n\nn")) != key_of(parts_of(own, "if n:\n    %timeit n\nn"))


def test_renaming_an_import_is_seen(own):
    (own / "own" / "rules.py").write_text("def low():\n    return 1\n\n\ndef high():\n    return 2\n")
    stage = own / "own" / "stages" / "count.py"
    found = set()
    for line in ("low as a, high as b", "high as a, low as b"):
        stage.write_text(f"from own.rules import {line}\ndef value():\n    return a() - b()\n")
        found.add(key_of(parts_of(own, "value()")))
    for function in ("floor", "ceil"):
        stage.write_text(f"from math import {function} as rounded\ndef value():\n    return rounded(1.5)\n")
        found.add(key_of(parts_of(own, "value()")))
    assert len(found) == 4


def test_libraries_are_known_by_their_version_wherever_they_are_imported(own, monkeypatch):
    (own / "own" / "deep.py").write_text("def value():\n    import dateutil.parser\n    return dateutil.parser.parse('2026')\n")
    run = "from own.deep import value\nvalue()"
    assert re.match(r"\d+\.", parts_of(own, run)["versions"]["dateutil"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mlops_nb's own project, to be edited."""
    root = tmp_path_factory.mktemp("copy")
    here = Path(__file__).parents[2]
    shutil.copytree(here / "mlops_nb", root / "mlops_nb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(here / "nbs" / "stages", root / "nbs" / "stages")
    return root


def keys_in(root: Path, *names: str) -> dict[str, dict]:
    made = Settings(root=root, threads=1)
    stages = load_graph(made).stages
    return {name: ingredients(stages[name], {}, {p.artifact: "" for p in stages[name].inputs}, made) for name in names or stages}


def test_every_reached_module_but_the_frame_decides(copy):
    """A constant more in any module that stages reach changes the key of a stage that reaches it."""
    before = keys_in(copy)
    reached = {module for parts in before.values() for module in parts["modules"]}
    assert {f"mlops_nb.{m}" for m in ("base.artifacts", "base.charter", "model.columns", "model.compiled", "model.compile", "model.compiled_model", "model.metrics", "model.program", "registry.registration", "registry.versions", "sources.tables")} <= reached
    assert not [m for m in reached if m.startswith(FRAME)]
    for module in sorted(reached):
        file, user = module_file(module, copy), next(name for name, parts in before.items() if module in parts["modules"])
        text = file.read_text()
        file.write_text(text + "\nCHANGED = 1\n")
        try:
            after = keys_in(copy, user)[user]
        finally:
            file.write_text(text)
        assert {m for m in reached if after["modules"].get(m) != before[user]["modules"].get(m)} == {module}


def test_the_frame_is_in_no_key(copy):
    before = keys_in(copy)
    for frame in FRAME:
        if file := module_file(frame, copy):
            text = file.read_text()
            file.write_text(text + "\nCHANGED = 1\n")
            try:
                assert keys_in(copy, "register", "monitor") == {name: before[name] for name in ("register", "monitor")}, frame
            finally:
                file.write_text(text)
