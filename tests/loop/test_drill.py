"""The fire drill: the whole loop through the real service under a clock of its own, in a small setting."""

from pathlib import Path

import pytest

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import load_settings
from mlops_nb.cli.drill import ways_in
from mlops_nb.loop.drill import Score, Setting, drill, verdict
from mlops_nb.log.events import Events
from mlops_nb.log.history import History
from tests.conftest import command

ROOT = Path(__file__).parents[2]
QUICK = {"train": {"folds": 2, "candidates": ["dummy", "linear"]}, "tune": {"trials": 1}}


def drilled(folder: Path, name: str, setting: Setting, charter_file: Path | None = None) -> Score:
    settings = load_settings(ROOT, home=folder / "home", reports=folder / "reports")
    charter = load_charter(charter_file or settings.charter).model_copy(update={"sample": QUICK})
    return drill(settings, charter, name, setting, folder / "drill", print)


@pytest.mark.slow
def test_a_concept_change_is_seen_and_answered(tmp_path):
    score = drilled(tmp_path, "concept_change", Setting(windows=4, onset=2, rows=500, learn=1000))
    assert score.detected_after == 1 and score.false_alarms == 0
    assert (score.asked, score.answered, score.lost) == (2000, 2000, 0)
    assert score.quality_worst < score.quality_before - 0.1 and score.versions[0] == 1
    kinds = [e.kind for e in Events(tmp_path / "drill" / "home").list(model="income")]
    for step in ("alarm", "trigger", "retraining", "comparison"):
        assert step in kinds, f"no event '{step}' among {set(kinds)}"
    assert ("promotion" in kinds) == (len(score.versions) > 1)
    kept_can_be_looked_at(tmp_path / "drill", score)


def kept_can_be_looked_at(folder: Path, score: Score) -> None:
    """What `drill --keep` says about it is so."""
    there, app, *others = ways_in(folder)
    assert (there, app) == (f"cd {folder}", "mlops-nb app")
    alerts, models, runs = (command(folder, *words.split()[1:]) for words in others)
    assert "income/quality" in alerts and f"income              {max(score.versions)}  production" in models and "done" in runs
    pytest.importorskip("streamlit")
    from streamlit.testing.v1 import AppTest

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_NB_ROOT", str(folder))
        at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()
        for page in ("overview", "predictions", "fairness", "monitoring"):
            at = at.switch_page(f"views/{page}.py").run()
            assert not at.exception and not at.error, page
    assert len(next(w for w in at.selectbox if w.label == "Window").options) == 4


@pytest.mark.slow
def test_flights_come_in_the_order_of_time_and_drift_by_themselves(tmp_path):
    score = drilled(tmp_path, "nothing", Setting(windows=4, onset=1, rows=300, learn=1000), ROOT / "nbs" / "charters" / "flights.yaml")
    assert (score.asked, score.answered, score.lost, score.drifts) == (1200, 1200, 0, True)
    assert score.false_alarms or score.detected_after, "the weather of July isn't that of December"
    assert "in a world that drifts by itself" in verdict(score)
    replayed = History(tmp_path / "drill" / "home").read(model="flights")
    assert replayed.num_rows == 1200 and (tmp_path / "drill" / "learn.parquet").is_file()


@pytest.mark.deep
@pytest.mark.parametrize("name", ["nothing", "outage", "poisoned_feedback", "missing_burst"])
def test_other_faults_lose_nothing(tmp_path, name):
    score = drilled(tmp_path, name, Setting(windows=5, onset=2, rows=500, learn=1000))
    assert score.lost == 0 and score.false_alarms <= 1
    assert score.refused == (500 if name == "outage" else 0)


def test_a_source_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(MlopsError, match=r"needs twice as many"):
        drilled(tmp_path, "nothing", Setting(learn=40_000))
    with pytest.raises(MlopsError, match=r"onset 9 of 4 windows"):
        drilled(tmp_path, "nothing", Setting(windows=4, onset=9))
    assert not (tmp_path / "drill").exists()
