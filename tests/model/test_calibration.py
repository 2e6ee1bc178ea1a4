"""Calibration of several classes: the slope's interval holds what it promises, and a temperature puts right what was spoilt."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB

from mlops_nb.model.calibration import calibrated, check_calibration, method_for, needs_calibration


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
    assert np.mean([needs_calibration(f) for f in found]) < 0.05 if bold == 1 else np.mean([needs_calibration(f) for f in found]) > 0.95


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
