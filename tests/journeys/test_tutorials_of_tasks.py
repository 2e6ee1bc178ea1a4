"""The tutorials of the kinds of learning, as they are kept and as they come out here."""

import json
import re

from tests.journeys.test_tutorial import BOTH_WAYS, STAGES, notebook_of, said


@BOTH_WAYS
def test_which_rows_are_alike(now, tmp_path):
    """Three kinds are found in a table that has three, and none in one that has none."""
    segments = notebook_of("segments.ipynb", now, tmp_path)
    assert "task: clustering" in said(segments, "^import numpy")
    ran = said(segments, "^os.chdir..shop")
    assert len(re.findall(r"(?m)^\w+ +done ", ran)) == 13 and "shop version 1, phase staging" in ran
    assert "kmeans with 3 segments" in said(segments, "decision.why")
    assert float(re.search(r"agree by (\S+)", said(segments, "adjusted_rand_score"))[1]) > 0.95
    words = said(segments, "found_again")
    assert words.count("found again 1.00") == 3 and "sex" not in words
    assert "answers by its compiled" in said(segments, "Predictor.load") and "has no labels" in said(segments, "retrain")
    nothing = said(segments, "noise.csv")
    assert "phase rejected" in nothing and "no structure was found" in nothing
    shown = json.dumps([c["outputs"] for c in segments["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)


@BOTH_WAYS
def test_how_decisions_learn(now, tmp_path):
    bandit = notebook_of("bandit.ipynb", now, tmp_path)
    assert len(re.findall(r"(?m)^\w+ +done ", said(bandit, "^!mlops-nb run$"))) == 13
    judged = said(bandit, "^from mlops_nb.base.settings")
    low, high, truth = float(re.search(r"doubly robust +[\d.]+ +\(([\d.]+)", judged)[1]), float(re.search(r"doubly robust .* to ([\d.]+)\)", judged)[1]), float(re.search(r"the truth +([\d.]+)", judged)[1])
    assert low < truth < high and "better, for the interval lies above 0" in judged
    assert "'accepted': 1000" in said(bandit, "^import numpy as np") and "1,000 decisions with their rewards" in said(bandit, "log decisions")
    refused = said(bandit, "^charter = Path")
    assert "have no propensity 'chance'" in refused and "was taken more often than 'chance' says" in refused
    assert "a missing one is no 0" in refused and "there is nothing to learn" in refused


@BOTH_WAYS
def test_what_learns_by_acting(now, tmp_path):
    control = notebook_of("control.ipynb", now, tmp_path)
    assert "value iteration 0.740, no policy beats 0.744" in said(control, "^import numpy")
    assert re.search(r"q_learning +0\.740.* 10 of 10", said(control, "learnt = {rule"))
    assert "phase staging; released as it was judged" in said(control, "^!mlops-nb init ice")
    assert said(control, "Predictor.load").splitlines()[0].startswith("left ")
    refused = said(control, "Pendulum")
    assert "continuous" in refused and "has no time limit" in refused and "there is Taxi-v4" in refused
    shown = json.dumps([c["outputs"] for c in control["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)


@BOTH_WAYS
def test_a_number_comes_with_its_bounds(now, tmp_path):
    """Against the bounds that are right by construction, and the sentences that the made errors deserve."""
    numbers = notebook_of("numbers.ipynb", now, tmp_path)
    assert len(re.findall(r"(?m)^\w+ +done ", said(numbers, "^os.chdir..workshop"))) == STAGES
    assert "pass        coverage" in said(numbers, "^os.chdir..workshop")
    held = said(numbers, "^from mlops_nb.model.extensions")
    shares = [float(v) for v in re.search(r"coverage((?: +[\d.]+)+)", held)[1].split()]
    assert len(shares) == 3 and all(0.84 < share < 0.96 for share in shares)
    for line in re.findall(r"(?m)^(?:master|apprentice).*", said(numbers, "Predictor.load")):
        number, low, high, right, least, most = (float(v) for v in re.findall(r"-?\d+", line.partition(": ")[2]))
        assert low < right < high and 0.5 < (high - low) / (most - least) < 2, line  # one width for each cell, not for each row
    assert "errors grow with the number said" in said(numbers, "^for found in")
    shown = json.dumps([c["outputs"] for c in numbers["cells"] if c["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|Users)/|\\u001b", shown)
