"""A user's own project, from the wheel: installed in an environment of its own, made from tables nobody here has seen, run, changed, upgraded."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from tests.conftest import CHARTER, once
from mlops_nb.base.charter import load_charter
from mlops_nb.registry.loading import load
from mlops_nb.registry.promotion import promote
from mlops_nb.registry.versions import versions
from mlops_nb.base.settings import load_settings
from mlops_nb.model.problem import check_problem
from tests.kept.test_kept_model import BARE, EXTRAS, FOLDERS

ROOT = Path(__file__).parents[2]
SITE = next(Path(p) for p in sys.path if p.endswith("site-packages"))
TOOLS = {"papermill": "papermill.__main__:papermill", "nbdev-export": "nbdev.doclinks:nbdev_export"}
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


# ---- environments -------------------------------------------------------------------------------


def uv(*words: str | Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("uv"), *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def sources(to: Path) -> Path:
    """What a wheel is made from, without what lies around in a checkout."""
    left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("mlops_nb", "app", "nbs/stages", "nbs/charters"):
        shutil.copytree(ROOT / name, to / name, ignore=left_out)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to / name)
    return to


def build(folder: Path, change: Callable[[Path], None] = lambda source: None) -> None:
    source = sources(folder / "source")
    change(source)
    uv("build", "--quiet", "--wheel", "--out-dir", folder / "dist", source)


def install(folder: Path, wheel: Path) -> None:
    """An environment with the wheel; what it depends on is taken from here, by a .pth file (which other .pth files are not read through)."""
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    uv("pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--python", folder / "env", wheel)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{SITE}\n")
    for tool, place in TOOLS.items():
        module, _, function = place.partition(":")
        file = folder / "env" / "bin" / tool
        file.write_text(f"#!{folder}/env/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        file.chmod(0o755)


def the_wheel(folder: Path) -> Path:
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    return the_wheel(once(tmp_path_factory, "wheel", build))


@pytest.fixture(scope="session")
def env(tmp_path_factory, wheel) -> Path:
    return once(tmp_path_factory, "installed", lambda folder: install(folder, wheel)) / "env"


def newer(source: Path) -> None:
    """The next version of mlops_nb: the stock split does something new."""
    old, new = "auto: time or group if named", "auto: time or group when named"
    for file in (source / "nbs" / "stages" / "040_split.ipynb", source / "mlops_nb" / "__init__.py"):
        text = file.read_text()
        changed = text.replace(old, new).replace('"0.1.0"', '"0.2.0"')
        assert changed != text
        file.write_text(changed)


@pytest.fixture(scope="session")
def newer_env(tmp_path_factory) -> Path:
    built = once(tmp_path_factory, "newer_wheel", lambda folder: build(folder, newer))
    return once(tmp_path_factory, "newer", lambda folder: install(folder, the_wheel(built))) / "env"


class Shell:
    """The command line of an environment, in a folder."""

    def __init__(self, env: Path, folder: Path):
        self.env, self.folder = env, folder

    def __call__(self, *words: str | Path, fails: bool = False, timeout: int = 120, **more: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLOPS_NB_", "IN_TEST", "PYTHONPATH", "VIRTUAL_ENV", "WANDB_"))}
        clean |= {"PATH": f"{self.env / 'bin'}{os.pathsep}{os.environ['PATH']}", **QUIET, **more}
        done = subprocess.run([self.env / "bin" / words[0] if (self.env / "bin" / words[0]).exists() else words[0], *words[1:]],
                              cwd=self.folder, capture_output=True, text=True, timeout=timeout, env=clean)  # fmt: skip
        assert done.returncode == int(fails), f"{words}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def summary(self, reports: str = "reports") -> dict:
        run = (self.folder / reports / "latest").read_text().strip()
        return json.loads((self.folder / reports / run / "summary.json").read_text())


# ---- tables that nobody here has seen -----------------------------------------------------------


def tumours() -> pd.DataFrame:
    """Two classes; numbers and words, with gaps, an identifier and a comment."""
    data = load_breast_cancer(as_frame=True)
    chance, table = np.random.default_rng(0), data.data.iloc[:, :8].copy()
    table.insert(0, "patient id", [f"P{i:05}" for i in range(len(table))])
    table["Sex"] = chance.choice(["female", "male"], len(table))
    table["Age"] = chance.integers(20, 80, len(table))
    table["clinic"] = chance.choice(["north", "süd", 'the "east"'], len(table))
    table["note"] = [f"seen on day {i}, again" for i in range(len(table))]
    table.loc[chance.random(len(table)) < 0.1, ["mean radius", "clinic"]] = None
    table["diagnosis"] = np.where(data.target == 1, "benign", "malignant")
    return table


TABLES: dict[str, tuple[Callable[[], pd.DataFrame], dict, str]] = {  # file: table, how it is written, the project's folder
    "tumours.csv": (tumours, {"sep": ","}, "tumours"),
    "wine.csv": (lambda: load_wine(as_frame=True).frame, {"sep": ";"}, "Wine list"),
    "progression.parquet": (lambda: load_diabetes(as_frame=True, scaled=False).frame, {}, "progression"),
}
EXPECTED = {
    "tumours.csv": ("binary", "diagnosis", "malignant", "patient id", ["note"], ["sex", "age"], "tumours"),
    "wine.csv": ("multiclass", "target", None, None, [], [], "wine_list"),
    "progression.parquet": ("regression", "target", None, None, [], ["age", "sex"], "progression"),
}
each_table = pytest.mark.parametrize("file", TABLES)


def start(env: Path, folder: Path, file: str) -> Shell:
    """`mlops-nb init` for a table, in a fresh folder."""
    make, how, name = TABLES[file]
    folder.mkdir(parents=True, exist_ok=True)
    make().to_parquet(folder / file) if file.endswith(".parquet") else make().to_csv(folder / file, index=False, **how)
    said = Shell(env, folder)("mlops-nb", "init", name, "--data", file)
    assert f"task: {EXPECTED[file][0]}" in said and f"target: {EXPECTED[file][1]} (a guess" in said
    return Shell(env, folder / name)


@pytest.fixture(scope="session")
def changed(env, tmp_path_factory) -> Shell:
    """The two-class project with a stage of its own and its own split; tests don't change it."""

    def make(folder: Path) -> None:
        shell = start(env, folder, "tumours.csv")
        shell("mlops-nb", "new-stage", "seasons")
        shell("mlops-nb", "new-stage", "split", "--override")

    return Shell(env, once(tmp_path_factory, "changed", make) / "tumours")


# ---- the wheel ----------------------------------------------------------------------------------


def test_the_wheel_has_everything_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    parts = [("mlops_nb", "mlops_nb"), ("nbs/stages", "mlops_nb/stock/stages"), ("nbs/charters", "mlops_nb/stock/charters"), ("app", "mlops_nb/stock/app")]
    wanted = {
        f"{place}/{f.relative_to(ROOT / here).as_posix()}"
        for here, place in parts
        for f in (ROOT / here).rglob("*")
        if f.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(f.parts)
    }
    assert {n for n in names if ".dist-info/" not in n} == wanted
    assert {"mlops_nb/stock/app/.streamlit/config.toml", "mlops_nb/stock/app/icon.png", "mlops_nb/py.typed"} <= names


def test_the_installed_package_is_the_one_in_use(env, tmp_path):
    """The tests below would prove nothing if they ran the checkout."""
    code = "import mlops_nb, mlops_nb.base.settings as s; print(mlops_nb.__file__); print(s.stock('stages'))"
    said = Shell(env, tmp_path)("python", "-c", code).split()
    assert all(Path(line).is_relative_to(env) for line in said), said


# ---- init ---------------------------------------------------------------------------------------


@each_table
def test_init_makes_a_sound_project(env, tmp_path, file):
    shell = start(env, tmp_path, file)
    task, target, positive, row_id, left_out, sensitive, name = EXPECTED[file]
    charter = load_charter(shell.folder / "nbs" / "charters" / f"{name}.yaml")
    problem = check_problem(charter.statement())  # sense, not only form
    assert (problem.task, problem.target, problem.positive, problem.id) == (task, target, positive, row_id)
    assert list(problem.exclude) == left_out and [s.name for s in problem.sensitive] == sensitive
    assert problem.success and all(c.reason for c in problem.success)
    assert shell("mlops-nb", "check").startswith("sound: ")
    assert "register" in shell("mlops-nb", "graph")
    assert shell("mlops-nb", "run", "--dry-run").splitlines()[0].split() == ["problem", "run", "never", "run"]
    assert {"settings.ini", "pyproject.toml", ".gitignore", "README.md", ".ci/run"} <= {f.relative_to(shell.folder).as_posix() for f in shell.folder.rglob("*")}
    assert os.access(shell.folder / ".ci" / "run", os.X_OK)


def test_init_without_data_makes_the_example(env, tmp_path):
    Shell(env, tmp_path)("mlops-nb", "init", "example")
    assert "charter income" in Shell(env, tmp_path / "example")("mlops-nb", "check")


@pytest.mark.slow
def test_what_init_refuses(env, tmp_path):
    shell = Shell(env, tmp_path)
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{i},{'xy'[i % 2]}" for i in range(40)))
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00,b")
    (tmp_path / "wide.csv").write_bytes("a,b\n".encode("utf-16"))
    (tmp_path / "one.csv").write_text("a,b\n" + "1,x\n" * 9)
    (tmp_path / "full" / "nbs").mkdir(parents=True)
    (tmp_path / "full" / "pyproject.toml").write_text("mine")
    for words, part in (
        (["new", "--data", "row.csv"], "did you mean 'rows.csv'?"),
        (["new", "--data", "rows.csv", "--target", "bb"], "did you mean 'b'?"),
        (["new", "--data", "binary.csv"], "binary.csv is no table"),
        (["new", "--data", "wide.csv"], "wide.csv has 2 columns and no rows"),
        (["new", "--data", "one.csv"], "no column could be a target"),
        (["new", "--data", "one.csv", "--target", "b"], "target 'b' has only 'x' in 9 rows"),
        (["new", "--target", "b"], "--target needs --data FILE"),
        (["full", "--data", "rows.csv"], "full has pyproject.toml already, and init overwrites nothing"),
    ):
        assert part in shell("mlops-nb", "init", *words, fails=True), words
    assert not (tmp_path / "new").exists() and (tmp_path / "full" / "pyproject.toml").read_text() == "mine"
    shell("mlops-nb", "init", "new", "--data", "rows.csv", "--target", "a")
    assert "new is a project already" in shell("mlops-nb", "init", "new", "--data", "rows.csv", fails=True)
    assert "make one: mlops-nb init DIR --data FILE" in shell("mlops-nb", "check", fails=True)


# ---- notebooks of one's own ---------------------------------------------------------------------


def test_own_notebooks_are_in_the_pipeline(changed):
    assert changed("mlops-nb", "check") == "sound: 17 stages, 49 artifacts, " + changed("mlops-nb", "check").split("artifacts, ")[1]
    assert "note:" not in changed("mlops-nb", "check") and "seasons" in changed("mlops-nb", "graph")
    assert changed("mlops-nb", "diff", "split") == "no difference\n"
    for words, part in (
        (["new-stage", "Seasons"], "no name for a stage"),
        (["new-stage", "seasons"], "there is a stage 'seasons' already: 170_seasons.ipynb"),
        (["new-stage", "train"], "mlops-nb new-stage train --override"),
        (["new-stage", "trian", "--override"], "did you mean 'train'?"),
        (["new-stage", "split", "--override"], "takes the place of the stock split already"),
        (["diff", "train"], "takes no stock stage's place"),
    ):
        assert part in changed("mlops-nb", *words, fails=True), words


@pytest.mark.slow
def test_the_contract_holds_for_them(changed):
    """tests/contract/test_stage_contract.py, on the user's notebooks; what needs a run is among the deep tests."""
    more = {"MLOPS_NB_ROOT": str(changed.folder), "PYTHONPATH": str(changed.folder)}
    said = changed("python", "-m", "pytest", ROOT / "tests" / "contract" / "test_stage_contract.py", "-k", "not runs_by_hand", "-p", "no:cacheprovider", **more)
    assert re.search(r"\b16 passed", said), said


def test_editing_and_exporting(changed, tmp_path):
    shell = Shell(changed.env, shutil.copytree(changed.folder, tmp_path / "tumours"))
    notebook = shell.folder / "nbs" / "stages" / "170_seasons.ipynb"
    notebook.write_text(notebook.read_text().replace("table.mean(", "table.median("))
    assert "170_seasons.ipynb: exported cells" in shell("mlops-nb", "check", fails=True)
    shell("nbdev-export")
    assert shell("mlops-nb", "check").startswith("sound")
    split = shell.folder / "nbs" / "stages" / "040_split.ipynb"
    split.write_text(split.read_text().replace("test_size: Annotated[float, Interval(gt=0, lt=1)] = 0.2", "test_size: Annotated[float, Interval(gt=0, lt=1)] = 0.3"))
    assert "+test_size: Annotated[float, Interval(gt=0, lt=1)] = 0.3" in shell("mlops-nb", "diff", "split")
    # a project's own module, anywhere in its package, is part of a stage's key
    (shell.folder / "tumours" / "helpers.py").write_text("FACTOR = 1\n")
    notebook.write_text(notebook.read_text().replace("import pandas as pd", "import pandas as pd\\n\",\n    \"from tumours.helpers import FACTOR"))
    shell("nbdev-export")
    code = "from mlops_nb.pipeline.graph import load_graph; from mlops_nb.pipeline.keys import ingredients; from mlops_nb.base.settings import load_settings; s = load_settings(); g = load_graph(s); print(ingredients(g.stages['seasons'], {}, {'rows': ''}, s)['modules'])"
    assert "tumours.helpers" in shell("python", "-c", code)


@pytest.mark.slow
def test_a_newer_wheel_says_what_has_changed(changed, newer_env):
    said = Shell(newer_env, changed.folder)("mlops-nb", "check")
    assert re.search(r"note: 040_split.ipynb: the stock split has changed since it was copied \(mlops_nb 0\.1\.0 then, 0\.2\.0 now\); compare: mlops-nb diff split", said)
    difference = Shell(newer_env, changed.folder)("mlops-nb", "diff", "split")
    assert "-strategy" in difference and "when named" in difference
    # the note says what to write when the change is taken over
    mark = re.search(r"#\| overrides (0\.2\.0 [0-9a-f]{12})", said)[1]
    notebook = changed.folder / "nbs" / "stages" / "040_split.ipynb"
    text = notebook.read_text()
    try:
        notebook.write_text(re.sub(r"#\| overrides 0\.1\.0 [0-9a-f]{12}", f"#| overrides {mark}", text))
        assert "note:" not in Shell(newer_env, changed.folder)("mlops-nb", "check")
    finally:
        notebook.write_text(text)


def test_lab_and_app_start_in_the_project(changed, monkeypatch):
    """What is started, where, and that the project's package can be imported there."""
    from mlops_nb.cli import main as cli

    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(cli, "_start", lambda *words: started.append(words))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "")  # so that it is taken back
    for name in [k for k in os.environ if k.startswith("MLOPS_NB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(changed.folder / "nbs")
    cli.lab()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cli.app_command(port=port)
    assert started[0][:2] == ("jupyter", "lab") and str(changed.folder) in started[0] and "--LabApp.default_url=/lab/tree/nbs/stages" in started[0]
    assert started[1][:3] == ("streamlit", "run", str(ROOT / "app" / "main.py")) and str(port) in started[1]
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(changed.folder)


# ---- two charters, one store --------------------------------------------------------------------


REGISTER = [
    "#| default_exp stages.register",
    "#| export\nimport numpy as np\nimport pandas as pd\nfrom sklearn.linear_model import LinearRegression\n"
    "from mlops_nb.registry.registration import register\nfrom mlops_nb.pipeline.stage import Input, Json, Output, Target",
    'PARAMETERS\ncharter = Input("charter", Json)\ntotal = Input("total", Json)\nversion = Output("version", Json)\ntarget = Target("registry")',
    "rows, name = pd.DataFrame({'x': np.arange(9.0)}), charter.read()['name']\nmodel = LinearRegression().fit(rows, rows.x * total.read())\n"
    "made = register(target.uri, name, model, {'total': total.read()}, phase='staging')\n"
    "version.write({'name': name, 'version': made.version, 'phase': made.phase, 'gates': []})",
]


@pytest.mark.slow
def test_two_charters_share_a_store_and_nothing_else(project):
    """Each has its own view, its own versions and its own data; what is equal is computed once."""
    project.write("stages/060_register.ipynb", REGISTER)
    project.export()
    (project.root / "more.csv").write_text("y\n10\n20\n")
    (project.root / "huge.yaml").write_text(CHARTER.replace("tiny", "huge").replace("rows.csv", "more.csv"))
    uri = load_settings(project.root).registry_uri

    def run(*words: str) -> tuple[dict[str, str], dict]:
        statuses = project.run(*words, stages=())
        return statuses, project.summary()

    ended, first = run()
    assert set(ended.values()) == {"done"} and (first["charter"], first["model"]["name"], first["model"]["version"]) == ("tiny", "tiny", 1)
    ended, second = run("--charter", "huge.yaml")
    assert set(ended.values()) == {"done"}, "other rows, other keys"
    assert (second["charter"], second["model"]["name"], second["model"]["version"]) == ("huge", "huge", 1)

    # the second run disturbed nothing of the first: its view, its cache, its version, its data
    for words, summary in (((), first), (("--charter", "huge.yaml"), second)):
        ended, again = run(*words)
        assert set(ended.values()) == {"cached"} and again["charter"] == summary["charter"]
        assert {n: s["outputs"] for n, s in again["stages"].items()} == {n: s["outputs"] for n, s in summary["stages"].items()}
    assert sorted(f.stem for f in (project.root / ".mlops" / "view").iterdir()) == ["huge", "tiny"]
    assert {(v.name, v.version): load(uri, v.name, v).evidence.content()["total"] for v in versions(uri)} == {("tiny", 1): 15, ("huge", 1): 62}

    # a person's decision about one is none about the other, and a new version of one is none of the other
    promote(uri, "huge", 1, reason="tested")
    assert [(v.name, v.phase) for v in versions(uri)] == [("huge", "production"), ("tiny", "staging")]
    ended, _ = run("-p", "scale.factor=3")
    assert (ended["ingest"], ended["scale"], ended["register"]) == ("cached", "done", "done")
    assert {(v.name, v.version) for v in versions(uri)} == {("tiny", 1), ("tiny", 2), ("huge", 1)}

    # what a notebook opened by hand reads belongs to the charter that is active
    totals = {}
    for charter in ("tiny", "huge"):
        code = "from mlops_nb.pipeline.stage import Input, Json\ntotal = Input('total', Json)\nprint(total.read())"
        env = {k: v for k, v in os.environ.items() if not k.startswith("MLOPS_NB_")} | {"MLOPS_NB_CHARTER": f"{charter}.yaml"}
        done = subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True, timeout=120, env=env)
        totals[charter] = done.stdout.strip() or done.stderr
    assert totals == {"tiny": "21", "huge": "62"}


# ---- runs ---------------------------------------------------------------------------------------


APP = """
import sys
from mlops_nb.base.settings import stock
from streamlit.testing.v1 import AppTest
page = AppTest.from_file(str(stock("app") / "main.py"), default_timeout=120).run()
assert not page.exception, page.exception
print("titles:", [t.value for t in page.title], [h.value for h in page.header])
for name in ("predictions", "fairness"):
    shown = page.switch_page(f"views/{name}.py").run()
    assert not shown.exception, (name, shown.exception)
"""


@pytest.fixture(scope="session")
def sampled(env, changed, tmp_path_factory) -> Shell:
    """The changed project, its pipeline run by its own CI script on few rows."""

    def make(folder: Path) -> None:
        shutil.copytree(changed.folder, folder / "tumours")
        charter = folder / "tumours" / "nbs" / "charters" / "tumours.yaml"
        text = charter.read_text()
        for old, new in (("train: {folds: 3,", "train: {folds: 2, candidates: [dummy, linear],"), ("trials: 3}", "trials: 2}")):  # in seconds
            assert old in text
            text = text.replace(old, new)
        charter.write_text(text)
        Shell(env, folder / "tumours")(folder / "tumours" / ".ci" / "run", "--sample", "300", timeout=600)

    return Shell(env, once(tmp_path_factory, "sampled", make) / "tumours")


@pytest.mark.slow
def test_a_run_on_few_rows_by_the_ci_script(sampled):
    summary = sampled.summary(".mlops/sample/reports")
    assert summary["status"] == "done" and {s["status"] for s in summary["stages"].values()} == {"done"} and len(summary["stages"]) == 17
    assert summary["model"]["name"] == "tumours" and summary["stages"]["seasons"]["metrics"]["columns"] > 1
    report = ElementTree.parse(sampled.folder / "reports" / "junit.xml").getroot()
    stages, gates = report.findall("testsuite")
    assert (stages.get("tests"), stages.get("failures"), gates.get("name")) == ("17", "0", "gates")
    assert {c.get("name") for c in stages} == set(summary["stages"])
    # the project's split ran, and it is what the result's key stands for
    (record,) = (sampled.folder / ".mlops" / "sample" / "keys" / "split").glob("*.json")
    assert "tumours.stages.split" in json.loads(record.read_text())["ingredients"]["modules"]


@pytest.mark.slow
def test_the_stock_app_shows_the_projects_model(sampled):
    home = sampled.folder / ".mlops" / "sample"
    said = sampled("python", "-c", APP, MLOPS_NB_HOME=str(home), MLOPS_NB_REPORTS=str(home / "reports"))
    assert "titles:" in said


@pytest.mark.slow
def test_a_failing_run_says_so_in_the_xml(project):
    done = project.call("run", "total", "--junit", "out/junit.xml", "-p", "total.fail=true")
    assert done.returncode == 1 and "total failed in cell" in done.stdout
    suite = ElementTree.parse(project.root / "out" / "junit.xml").getroot().find("testsuite")
    case = suite.find("testcase[@name='total']/failure")
    assert (suite.get("tests"), suite.get("failures"), case.get("type"), case.get("message")) == ("3", "1", "ValueError", "asked to fail")
    assert "mlops-nb run total -p total.fail=true" in case.text


# ---- deep: the whole runs -----------------------------------------------------------------------


@pytest.fixture
def whole(env, tmp_path) -> Callable[[str], Shell]:
    def run(file: str) -> Shell:
        shell = start(env, tmp_path, file)
        shell("mlops-nb", "run", timeout=900)
        return shell

    return run


@pytest.mark.deep
@each_table
def test_whole_runs(whole, file):
    shell = whole(file)
    summary = shell.summary()
    assert len(summary["stages"]) == 16 and {s["status"] for s in summary["stages"].values()} == {"done"}
    assert summary["model"]["phase"] == "staging", summary["model"]
    shell("python", "-c", APP)
    shell("mlops-nb", "models", "promote", summary["model"]["name"], "1", "--reason", "tested")
    assert set(re.findall(r"(?m)^\w+ +(\w+)", shell("mlops-nb", "run", "--dry-run"))) == {"cached"}


@pytest.mark.deep
def test_the_contract_by_hand(sampled):
    """The user's notebooks run top to bottom in an ordinary kernel, by the plain papermill command."""
    more = {"MLOPS_NB_ROOT": str(sampled.folder), "PYTHONPATH": str(sampled.folder)}
    said = sampled("python", "-m", "pytest", ROOT / "tests" / "contract" / "test_stage_contract.py", "-k", "runs_by_hand", "-p", "no:cacheprovider", timeout=900, **more)
    assert "2 passed" in said, said


PREDICT = """
import sys
from mlops_nb.registry.sample import sample_frame
from mlops_nb.base.settings import load_settings
from mlops_nb.serving.prediction import Predictor
found = Predictor.load(load_settings(), which="latest")
answers = found.predict(sample_frame(found.evidence.sample))
assert len(answers) > 1 and not {"mlflow", "shap", "matplotlib", "optuna", "IPython"} & set(sys.modules)
print(answers[0].model, answers[0].decision)
"""


INSTALLED = """
import importlib.util, sys
print(*(name for words in sys.argv[1:] for name in words.split() if importlib.util.find_spec(name)))
"""


@pytest.mark.slow
def test_base_install_loads_and_asks_a_model(wheel, sampled, tmp_path):
    """What a serving container has: the wheel and its few dependencies, none of the extras."""
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "env")
    uv("pip", "install", "--quiet", "--compile-bytecode", "--python", tmp_path / "env", wheel)
    shell = Shell(tmp_path / "env", sampled.folder)
    assert shell("python", "-c", INSTALLED, *EXTRAS.values()).split() == []
    for folder in FOLDERS:  # models of this version and of earlier ones
        assert int(shell("python", "-c", BARE, folder, "")) >= 10
    assert shell("python", "-c", PREDICT, MLOPS_NB_HOME=str(sampled.folder / ".mlops" / "sample")).startswith("tumours/")
    assert shell("mlops-nb", "check").startswith("sound") and "staging" in shell("mlops-nb", "models", "list", "--sample")
    assert "pip install 'mlops-nb[lab]'" in shell("mlops-nb", "run", "--sample", "300", "-p", "tune.trials=4", fails=True)
    assert re.search("BAD  not installed, but running pipelines needs it: .*papermill", shell("mlops-nb", "doctor", fails=True))


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_checkout() -> Iterator[None]:
    yield
    assert not (ROOT / "build").exists() and not (ROOT / "mlops_nb" / "stock").exists()
