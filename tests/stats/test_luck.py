"""What the best of several owes to having been chosen: many equal candidates, one clear winner, choices that follow each other."""

import numpy as np
import pytest
from scipy.stats import norm

from mlops_nb.stats.luck import Luck, joint_luck, luck_by_folds, luck_by_rows, luck_line

N = 200


def by_rows(right, resamples=80, things=None):
    return luck_by_rows(lambda w: w @ right.T / w.sum(axis=1, keepdims=True), np.arange(N) if things is None else things, resamples=resamples)


def by_folds(right):
    return luck_by_folds(right.reshape(len(right), 5, -1).mean(axis=2))


def drawn(rng, chances):
    return (rng.random((len(chances), N)) < np.asarray(chances)[:, None]).astype(float)


def apart(chances, tests, seed=0, copies=1):
    """Means of: the raw best, by rows, by folds; each against what the chosen one is really worth. And the noise of the mean, at most."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(tests):
        right = np.repeat(drawn(rng, chances)[:, : N // copies], copies, axis=1)
        best = right.mean(axis=1).argmax()
        things = np.arange(N) // copies
        real = chances[best]
        found.append([right[best].mean() - real, by_rows(right, things=things).corrected - real, by_folds(right).corrected - real])
    return np.mean(found, axis=0), np.std(found, axis=0).max() / np.sqrt(tests)


@pytest.mark.parametrize("candidates, copies", [(5, 1), (20, 1), (20, 4)])
def test_equal_candidates_are_worth_what_is_said(candidates, copies):
    (raw, rows, folds), noise = apart([0.7] * candidates, 150, copies=copies)
    assert raw > 0.03 and abs(rows) < 3 * noise and abs(folds) < 3 * noise


@pytest.mark.deep
@pytest.mark.parametrize("candidates", [3, 10, 50])
def test_equal_candidates_often(candidates):
    (raw, rows, folds), noise = apart([0.7] * candidates, 2000, seed=1)
    assert raw > 10 * noise and abs(rows) < max(3 * noise, 0.1 * raw) and abs(folds) < max(3 * noise, 0.1 * raw)


def test_candidates_that_differ():
    """The correction doesn't turn into a penalty where one is better than the others."""
    (raw, rows, _), noise = apart([0.7, 0.68, 0.66, 0.62, 0.5], 150, seed=2)
    assert raw > 0.005 and abs(rows) < raw
    (raw, rows, folds), _ = apart([0.9, 0.5, 0.5], 30, seed=3)
    assert abs(rows - raw) < 1e-12 and abs(folds - raw) < 1e-12


def test_less_is_better():
    wrong = drawn(np.random.default_rng(4), [0.3] * 10)
    low = luck_by_rows(lambda w: w @ wrong.T / w.sum(axis=1, keepdims=True), np.arange(N), greater=False)
    same = by_rows(1 - wrong, resamples=200)
    assert np.isclose(low.optimism, same.optimism) and np.isclose(low.corrected, 1 - same.corrected) and low.corrected > wrong.mean(axis=1).min()
    assert luck_by_folds(np.array([[1.0, 2, 3], [2, 1, 3.5]]), greater=False).corrected >= 2


def alike(rng, hard, chances, shared):
    """Rows that are right, of candidates that find the same rows hard."""
    noise = np.sqrt(shared) * hard + np.sqrt(1 - shared) * rng.normal(size=(len(chances), N))
    return (noise < norm.ppf(chances)[:, None]).astype(float)


def chain(rng, differ, shared):
    """Six kinds, of the best two fifteen trials each, then the best of four: how much too good, and what is said of it."""
    hard, six = rng.normal(size=N), rng.normal(0.7, differ, 6)
    first = alike(rng, hard, six, shared)
    steps, order = [by_rows(first)], np.argsort(-first.mean(axis=1))
    worth = [np.append(six[k], rng.normal(0.7, differ, 15)) for k in order[:2]]
    trials = [np.vstack([first[k], alike(rng, hard, w[1:], shared)]) for k, w in zip(order[:2], worth, strict=True)]
    tuned, found = [by_folds(t) for t in trials], [t.mean(axis=1).argmax() for t in trials]
    last = np.vstack([*(t[f] for t, f in zip(trials, found, strict=True)), first[order[2:4]]])
    best = last.mean(axis=1).argmax()
    steps += [by_rows(last), *tuned[best : best + 1]]
    real = [*(w[f] for w, f in zip(worth, found, strict=True)), *six[order[2:4]]]
    return last[best].mean() - real[best], joint_luck(last[best].mean(), steps).optimism


@pytest.mark.parametrize(
    ("differ", "shared", "most", "tests"),
    [pytest.param(0, 0, 1.3, 150, id="equal", marks=pytest.mark.slow)]
    + [pytest.param(d, s, m, 600, id=f"{d} {s}", marks=pytest.mark.deep) for d, m in ((0, 1.3), (0.02, 1.45), (0.05, 2.2)) for s in (0, 0.5, 0.9)],
)
def test_the_luck_of_choices_that_follow_each_other(differ, shared, most, tests):
    """Never too little, at most a third too much among equals; where candidates differ more is said, of less luck: by 0.02 at most."""
    rng = np.random.default_rng(5)
    real, said = np.mean([chain(rng, differ, shared) for _ in range(tests)], axis=0)
    assert 0.95 < said / real < most and said - real < 0.02  # the plain sum would be 1.8 among equals


def test_what_cannot_be_told_is_said():
    found = luck_by_rows(lambda w: np.full((len(w), 3), np.nan), np.arange(5), resamples=5)
    assert "can't be told" in luck_line(found, "roc_auc")
    assert luck_line(Luck(0.0, 0.8, 1), "roc_auc") == "" and "best of 4" in luck_line(Luck(0.01, 0.8, 4), "roc_auc")
    assert luck_by_folds(np.array([[1.0], [2.0]])).optimism is None and joint_luck(0.8, [found]).corrected is None
