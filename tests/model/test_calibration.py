"""Calibration of several classes: the slope's interval holds what it promises, and a temperature puts right what was spoilt."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB

from mlops_nb.model.calibration import calibrated, calibration_gain, check_calibration, method_for, needs_calibration


def drawn(rng, n, classes, bold=1.0):
    """Classes drawn by logits, and the probabilities of who is bold."""
    logits = rng.normal(size=(n, classes)) * 1.5
    return (logits + rng.gumbel(size=(n, classes))).argmax(axis=1), softmax(bold * logits, axis=1)


@pytest.mark.parametrize("bold", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_interval_covers_the_true_slope(bold, count):
    rng = np.random.default_rng(7)
    found = [check_calibration(*drawn(rng, 400, 4, bold), range(4)) for _ in range(count)]
    covered = np.mean([f.slope_low <= 1 / bold <= f.slope_high for f in found])
    assert abs(covered - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / count)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("bold", [0.4, 1.0, 3.0])
def test_what_is_right_is_left_alone(bold, classes):
    """Of tables of 400 rows, right probabilities are touched in 5% at most, wrong ones are found in 95% at least."""
    rng, asked = np.random.default_rng(7), []
    for _ in range(100):
        truth, proba = drawn(rng, 400, classes, bold)
        asked.append(needs_calibration(truth == 1, proba[:, 1]) if classes == 2 else needs_calibration(truth, proba, range(4)))
    assert np.mean(asked) < 0.05 if bold == 1 else np.mean(asked) > 0.95


@pytest.mark.parametrize("classes", [2, 3])
def test_the_gain_is_that_of_an_independent_calibration(classes):
    """An oracle: scikit-learn's own fit on the other rows."""
    truth, proba = drawn(np.random.default_rng(1), 1000, classes, 3.0)
    logs, lost = np.log(np.clip(proba, 1e-6, 1)), np.zeros(1000)
    odds = logs[:, 1:] - logs[:, :1]
    for k in range(5):
        here = np.arange(1000) % 5 == k
        if classes == 2:
            after = LogisticRegression(C=np.inf).fit(odds[~here], truth[~here]).predict_proba(odds[here])
        else:
            best = minimize_scalar(lambda b, those=~here: log_loss(truth[those], softmax(b * logs[those], axis=1)), (0.1, 2)).x
            after = softmax(best * logs[here], axis=1)
        lost[here] = [-np.log(p[t]) for p, t in zip(after, truth[here], strict=True)]
    expected = log_loss(truth, proba) - lost.mean()
    found = calibration_gain(truth == 1, proba[:, 1]) if classes == 2 else calibration_gain(truth, proba, range(3))
    assert found.value == pytest.approx(expected, abs=1e-4) and 0 < found.error < 0.1


def test_rows_that_are_told_apart_for_certain():
    """Nothing is gained, and nothing overflows, where a model is never wrong."""
    truth = np.arange(60) % 2 == 0
    for sure in (0.9, 0.999999, 1.0):
        gain = calibration_gain(truth, np.where(truth, sure, 1 - sure))
        assert np.isfinite(gain.value) and np.isfinite(gain.error)
    assert not needs_calibration(truth, np.where(truth, 1.0, 0.0))


def test_two_classes_as_two_columns_are_as_a_temperature_has_them():
    """An independent oracle: the slope is where scikit-learn's log loss is least."""
    truth, proba = drawn(np.random.default_rng(3), 3000, 3, 2.0)
    found = check_calibration(truth, proba, range(3))
    grid = np.linspace(0.3, 0.8, 501)
    best = grid[np.argmin([log_loss(truth, softmax(b * np.log(proba), axis=1)) for b in grid])]
    assert abs(found.slope - best) <= 0.001 and abs(found.log_loss - log_loss(truth, proba)) < 1e-9


def test_numbers_that_are_no_places_get_curves():
    """scikit-learn 1.9 reads the labels 1, 2, 3 as columns of a temperature: what comes out knows nothing (we go around it)."""
    rows, kinds = load_wine(return_X_y=True)
    bare = {shift: CalibratedClassifierCV(GaussianNB(), method="temperature", cv=5, ensemble=False).fit(rows, kinds + shift) for shift in (0, 1)}
    assert log_loss(kinds, bare[0].predict_proba(rows)) < 0.1 < 1 < log_loss(kinds + 1, bare[1].predict_proba(rows))
    for labels in (kinds, kinds + 1, 2 * kinds, np.array(["a", "b", "c"])[kinds]):
        made = calibrated(GaussianNB(), method_for(np.unique(labels))).fit(rows, labels)
        assert log_loss(labels, made.predict_proba(rows)) < 0.2


@pytest.mark.parametrize("bold", [1.0, 2.0])
def test_rows_that_were_drawn_together_count_once(bold):
    """Right probabilities of people with 20 rows each, whose odds share an effect, are touched too often row by row; by person
    they aren't, and wrong ones are still found."""
    rng, asked = np.random.default_rng(0), {"rows": 0, "people": 0}
    nodes, share = np.polynomial.hermite_e.hermegauss(40)
    for _ in range(120):
        person, odds = np.repeat(np.arange(30), 20), rng.normal(0, 1.3, 600)
        truth = rng.random(600) < expit(odds + 2 * rng.normal(size=30)[person])
        right = (expit(odds[:, None] + 2 * nodes) * share).sum(axis=1) / share.sum()  # over all people
        proba = expit(bold * logit(right))
        asked["rows"] += needs_calibration(truth, proba)
        asked["people"] += needs_calibration(truth, proba, units=person + 7)
    assert asked["people"] <= 3 < 10 < asked["rows"] if bold == 1 else asked["people"] > 90
    by_row, by_person = (calibration_gain(truth, proba, units=units).error for units in (None, person))
    assert by_person > 1.1 * by_row
    assert not needs_calibration(truth, proba, units=np.zeros(600, int)), "one person can't tell"
