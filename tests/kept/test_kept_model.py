"""Models that earlier versions registered are loaded by this one and answer as they did. scripts/keep_model.py adds one a release."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import mlops_nb
from mlops_nb.base.artifacts import Model
from mlops_nb.base.errors import MlopsError
from mlops_nb.registry.evidence import load_evidence
from mlops_nb.registry.loading import load
from mlops_nb.registry.sample import sample_frame, verify
from mlops_nb.registry.versions import Version
from mlops_nb.model.rows import Refused
from mlops_nb.serving.prediction import Predictor

KEPT = Path(__file__).parent
FOLDERS = sorted(KEPT.glob("[0-9]*"))
each = pytest.mark.parametrize("folder", FOLDERS, ids=[f.name for f in FOLDERS])
TOLERANCE = 1e-9


def kept_version(folder: Path) -> Version:
    """The registry's record of a kept version, whose files lie in `folder`."""
    return Version.model_validate_json((folder / "version.json").read_text()).model_copy(update={"location": folder.as_uri()})


def predictor_of(folder: Path) -> Predictor:
    version = kept_version(folder)
    return Predictor(load(f"sqlite:///{folder / 'mlflow.db'}", version.name, version))


def is_taken(predictor: Predictor, row) -> bool:
    try:
        return bool(predictor.check(row))
    except Refused:
        return False


def test_this_version_keeps_one():
    assert mlops_nb.__version__ in [f.name for f in FOLDERS], "run scripts/keep_model.py before a release"


@each
def test_it_is_small_and_whole(folder):
    assert {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} >= {"version.json", "evidence.json", "answers.json", "model/model.skops"}
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 300_000


@each
def test_the_model_keeps_its_promise(folder):
    evidence, model = load_evidence((folder / "evidence.json").read_bytes(), folder.name), Model.load((folder / "model" / "model.skops").read_bytes())
    assert verify(model, evidence.sample, TOLERANCE) <= TOLERANCE and len(evidence.sample.rows) >= 10


@each
def test_the_predictor_answers_as_it_did(folder):
    predictor = predictor_of(folder)
    for kind, expected in json.loads((folder / "answers.json").read_text()).items():
        rows = sample_frame(getattr(predictor.evidence, kind))
        taken = [i for i in range(len(rows)) if expected[i] and is_taken(predictor, rows.iloc[i : i + 1])]
        assert len(taken) >= len(rows) - 1, "at most the strange row breaks a rule of the charter; the row schema refuses it since there are services"
        answers, expected = predictor.predict(rows.iloc[taken]), [expected[i] for i in taken]
        assert [a.decision for a in answers] == [e["decision"] for e in expected]
        assert [a.probability for a in answers] == pytest.approx([e["probability"] for e in expected], rel=0, abs=TOLERANCE)
        assert [a.probabilities for a in answers] == [pytest.approx(e["probabilities"], rel=0, abs=TOLERANCE) for e in expected]
        assert [msgspec.to_builtins(a.flags) for a in answers] == [e["flags"] for e in expected]
        assert {a.threshold for a in answers} == {e["threshold"] for e in expected}
        assert len({a.decision for a in answers}) == 2, "rows of both kinds"


@each
def test_one_row_as_a_request(folder):
    """The row goes through the schema that travels with the model, as JSON does."""
    predictor = predictor_of(folder)
    first = json.loads((folder / "answers.json").read_text())["background"][0]
    row = json.loads(json.dumps(predictor.evidence.background.rows[0]))
    assert predictor.predict([row])[0].probability == pytest.approx(first["probability"], rel=0, abs=TOLERANCE)
    with pytest.raises(MlopsError, match="unknown field 'agee'.*did you mean 'age'"):
        predictor.predict([row | {"agee": 1}])


def test_a_changed_byte_is_refused(tmp_path):
    folder = shutil.copytree(FOLDERS[-1], tmp_path / "kept")
    file = folder / "model" / "model.skops"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(MlopsError, match="isn't what was registered"):
        predictor_of(folder)


EXTRAS = {"lab": "mlflow wandb papermill nbdev IPython ipykernel jupyterlab matplotlib shap optuna fairlearn pandera nbconvert nbformat nh3", "app": "streamlit"}
BARE = """
import sys
class Closed:  # what only the extras bring can't be imported, wherever it lies
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split():
            raise ModuleNotFoundError(f"No module named {name!r}: it belongs to an extra", name=name)
sys.meta_path.insert(0, Closed())
from pathlib import Path
from mlops_nb.registry.loading import load
from mlops_nb.registry.sample import sample_frame
from mlops_nb.registry.versions import Version
from mlops_nb.serving.prediction import Predictor
folder = Path(sys.argv[1])
version = Version.model_validate_json((folder / "version.json").read_text()).model_copy(update={"location": folder.as_uri()})
predictor = Predictor(load(f"sqlite:///{folder / 'mlflow.db'}", version.name, version))
print(len(predictor.predict(sample_frame(predictor.evidence.background))))
"""


@each
def test_no_extra_is_needed(folder):
    """A deep test of test_project.py installs the wheel with nothing but its dependencies and does the same."""
    done = subprocess.run([sys.executable, "-c", BARE, str(folder), " ".join(EXTRAS.values())], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and int(done.stdout) >= 10, done.stderr
