"""Quality figures are scikit-learn's and fairlearn's, and their intervals and p-values keep their rates."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as skm

from mlops_nb.stats import quality as q
from mlops_nb.stats.estimate import LOSSES
from mlops_nb.stats.influence import MEASURES, NEEDS_CHANCES

COUNT = 400  # windows in each simulation


def window(rng: np.random.Generator, n: int, shift: float = 0.0, bold: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, chances and decisions; calibrated while bold is 1, too sure above."""
    chances = 1 / (1 + np.exp(-rng.normal(shift - 1.2, 2, n)))
    said = chances**bold / (chances**bold + (1 - chances) ** bold)
    return rng.random(n) < chances, said, said >= 0.4


def several(rng: np.random.Generator, n: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, chances and decisions of several classes, calibrated."""
    chances = rng.dirichlet([0.7] * classes, n)
    truth = np.minimum((rng.random(n)[:, None] > chances.cumsum(axis=1)).sum(axis=1), classes - 1)
    return truth, chances, chances.argmax(axis=1)


def at_least(hits: int, count: int, rate: float, risk: float = 1e-4) -> bool:
    """Whether hits are no sign of a rate below `rate`."""
    return stats.binom.cdf(hits, count, rate) > risk


def at_most(hits: int, count: int, rate: float, risk: float = 1e-4) -> bool:
    """Whether hits are no sign of a rate above `rate`."""
    return stats.binom.sf(hits - 1, count, rate) > risk


# ---------------------------------------------------------------- values
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(6, 60), st.sampled_from([0, 1, 2]))
def test_binary_measures_are_scikit_learns(seed, n, decimals):
    """Ties included: chances are rounded."""
    truth, chances, decisions = window(np.random.default_rng(seed), n)
    truth[:2], decisions[:2], chances = [True, False], [True, False], chances.round(decimals)
    found = q.realised(truth, chances, decisions)
    theirs = {
        "accuracy": skm.accuracy_score(truth, decisions), "balanced_accuracy": skm.balanced_accuracy_score(truth, decisions), "precision": skm.precision_score(truth, decisions),
        "recall": skm.recall_score(truth, decisions), "f1": skm.f1_score(truth, decisions), "roc_auc": skm.roc_auc_score(truth, chances),
        "average_precision": skm.average_precision_score(truth, chances), "log_loss": skm.log_loss(truth, chances), "brier": skm.brier_score_loss(truth, chances),
        "matthews_corrcoef": skm.matthews_corrcoef(truth, decisions), "cohen_kappa": skm.cohen_kappa_score(truth, decisions),
    }  # fmt: skip
    assert {k: e.value for k, e in found.items()} == pytest.approx(theirs)
    assert not any(e.low > e.value + 1e-9 or e.value > e.high + 1e-9 for e in found.values())


def test_names_are_the_projects():
    from mlops_nb.model.metrics import METRICS
    from mlops_nb.model.tasks.known import task_of

    ours = {name: METRICS[name] for name in ("binary", "multiclass", "regression")}  # segments and policies have metrics of their own
    assert all(set(MEASURES[task_of(name).target_type]) == set(names) for name, names in ours.items())
    assert {n for names in ours.values() for n, m in names.items() if not m.greater_is_better} == set(LOSSES)
    assert {n for names in ours.values() for n, m in names.items() if m.needs == "probability"} == set(NEEDS_CHANCES)


def test_multiclass_and_regression_measures_are_scikit_learns():
    truth, chances, decisions = several(np.random.default_rng(3), 300)
    found = q.realised(truth, chances, decisions, target_type="multiclass")
    theirs = {
        "accuracy": skm.accuracy_score(truth, decisions), "balanced_accuracy": skm.balanced_accuracy_score(truth, decisions), "f1_macro": skm.f1_score(truth, decisions, average="macro"),
        "roc_auc_ovr": skm.roc_auc_score(truth, chances, multi_class="ovr"), "log_loss": skm.log_loss(truth, chances),
        "matthews_corrcoef": skm.matthews_corrcoef(truth, decisions), "cohen_kappa": skm.cohen_kappa_score(truth, decisions),
    }  # fmt: skip
    assert {k: e.value for k, e in found.items()} == pytest.approx(theirs)
    real = np.random.default_rng(4).normal(1e6, 3, 200)
    said = real + np.random.default_rng(5).normal(0.5, 1, 200)
    found = q.realised(real, y_pred=said, target_type="continuous")
    theirs = {"r2": skm.r2_score(real, said), "rmse": skm.root_mean_squared_error(real, said), "mae": skm.mean_absolute_error(real, said),
              "mse": skm.mean_squared_error(real, said), "mape": skm.mean_absolute_percentage_error(real, said)}  # fmt: skip
    assert {k: e.value for k, e in found.items()} == pytest.approx(theirs)


# ---------------------------------------------------------------- intervals
@pytest.mark.parametrize("name", [*MEASURES["binary"], "f1_macro", "roc_auc_ovr"])
def test_influences_are_slopes(name):
    """By finite differences, with whole and with soft truth."""
    rng = np.random.default_rng(6)
    truth, chances, said = several(rng, 25, 2)
    for weights in (np.eye(2)[truth], chances):
        value, influence, _ = q._slope(name, weights, chances, said)
        for row, one in ((0, 0), (3, 1), (24, 1)):
            moved = weights.copy()
            moved[row, one] += 1e-6
            assert (q._slope(name, moved, chances, said)[0] - value) / 1e-6 * len(weights) == pytest.approx(influence[row, one], abs=1e-3)
        assert (weights * influence).sum() == pytest.approx(0, abs=1e-8)


def test_agreement_of_several_classes_and_of_one():
    """Slopes by finite differences, in-between cells empty too; where one class is all there is, what scikit-learn says."""
    rng = np.random.default_rng(11)
    truth, chances, said = several(rng, 60, 4)
    for name in ("matthews_corrcoef", "cohen_kappa"):
        for weights in (np.eye(4)[truth], chances):
            value, influence, base = q._slope(name, weights, chances, said)
            moved = weights.copy()
            moved[7, 2] += 1e-6
            assert (q._slope(name, moved, chances, said)[0] - value) / 1e-6 * 60 == pytest.approx(influence[7, 2], abs=1e-3) and base > 20
        yes, no = np.ones(40, bool), np.zeros(40, bool)
        for real, picked in ((truth[:40] > 1, yes), (yes, truth[:40] > 1), (yes, no)):
            found = q.realised(real, y_pred=picked, measures=[name])[name]
            assert found.value == 0 and math.isnan(found.low) and math.isnan(found.high), "guesses; how sure that is nobody knows"
        assert math.isnan(q.realised(yes, y_pred=yes, measures=[name])[name].value)


def test_roc_auc_has_delongs_error():
    truth, chances, _ = window(np.random.default_rng(7), 500)
    positive, negative = chances[truth], chances[~truth]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    delong = math.sqrt(wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative))
    assert q.realised(truth, chances, measures=["roc_auc"])["roc_auc"].error == pytest.approx(delong, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 1000])
def test_intervals_cover(n):
    """Realised: the model's own figure. Estimated: the figure that the labels of the same rows say."""
    rng = np.random.default_rng(8)
    true = {k: e.value for k, e in q.realised(*window(rng, 500_000)).items()}
    covered, confirmed = dict.fromkeys(true, 0), dict.fromkeys(true, 0)
    for _ in range(COUNT):
        rows = window(rng, n)
        seen, guess = q.realised(*rows), q.estimated(*rows[1:])
        for name in true:
            covered[name] += seen[name].low <= true[name] <= seen[name].high
            confirmed[name] += guess[name].low <= seen[name].value <= guess[name].high
    for name in true:
        assert at_least(covered[name], COUNT, 0.94), (name, covered[name])
        assert at_least(confirmed[name], COUNT, 0.94), (name, confirmed[name])
        assert at_most(covered[name], COUNT, 0.96) and at_most(confirmed[name], COUNT, 0.97), "no wider than it need be"


@pytest.mark.slow
def test_an_estimate_of_several_classes_covers():
    rng = np.random.default_rng(9)
    hits = dict.fromkeys(MEASURES["multiclass"], 0)
    for _ in range(COUNT):
        rows = several(rng, 400)
        seen, guess = q.realised(*rows, target_type="multiclass"), q.estimated(*rows[1:], target_type="multiclass")
        for name in hits:
            hits[name] += guess[name].low <= seen[name].value <= guess[name].high
    assert all(at_least(h, COUNT, 0.94) for h in hits.values()), hits


def test_a_calibrator_mends_and_its_doubt_counts():
    """A model that is too sure, on harder rows than those that the calibrator learnt from."""
    rng = np.random.default_rng(10)
    names, count = ["accuracy", "f1", "roc_auc", "log_loss"], 150
    mended, raw, blind = (dict.fromkeys(names, 0) for _ in range(3))
    for _ in range(count):
        known, rows = q.calibrator(*window(rng, 300, bold=2)[:2]), window(rng, 1000, 0.5, bold=2)
        seen = q.realised(*rows, names)
        certain = known._replace(sizes=[10**9] * len(known.sizes))
        for hits, how in ((mended, known), (raw, None), (blind, certain)):
            guess = q.estimated(*rows[1:], names, how)
            for name in names:
                hits[name] += guess[name].low <= seen[name].value <= guess[name].high
    assert all(at_least(h, count, 0.93) for h in mended.values()), mended
    assert max(raw["accuracy"], raw["log_loss"], *blind.values()) < 0.75 * count, (raw, blind)


def test_a_calibrator_is_plain_arrays():
    import json

    known = q.calibrator(*window(np.random.default_rng(11), 200, bold=2)[:2])
    again = q.Calibrator(**json.loads(json.dumps(known._asdict())))
    assert again == known and sum(known.sizes) == 200 and len(known.edges) == len(known.sizes) - 1
    assert (np.diff(known.mend(np.linspace(0, 1, 50))) >= 0).all()
    one = q.calibrator([True, True], [0.4, 0.6])
    assert one.mend(np.array([0.1])) == 1.0


# ---------------------------------------------------------------- a drop
@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "brier", "log_loss", "roc_auc"])
def test_drop_test_keeps_its_rate(name):
    """Without a drop, over many references; and at the margin itself, where the bound is tightest."""
    rng = np.random.default_rng(12)
    reference, hits = None, {0.05: 0, 0.01: 0}
    for i in range(1000):
        if i % 10 == 0:
            reference = q.realised(*window(rng, 1500), [name])[name]
        p = q.drop_test(q.realised(*window(rng, 200), [name])[name], reference, 0.0, name not in LOSSES)
        for alpha in hits:
            hits[alpha] += p <= alpha
    assert all(at_most(h, 1000, alpha) for alpha, h in hits.items()), hits


def test_a_drop_of_estimates_keeps_its_rate():
    """Without labels and with a calibrator that both sides share."""
    rng, hits, count = np.random.default_rng(18), 0, 600
    for i in range(count):
        if i % 10 == 0:
            known = q.calibrator(*window(rng, 400, bold=2)[:2])
            reference = q.estimated(*window(rng, 1500, bold=2)[1:], ["accuracy"], known)["accuracy"]
        hits += q.drop_test(q.estimated(*window(rng, 200, bold=2)[1:], ["accuracy"], known)["accuracy"], reference) <= 0.05
    assert at_most(hits, count, 0.05), hits


def test_a_lucky_reference_does_not_alarm_window_after_window():
    rng = np.random.default_rng(13)
    true = q.realised(*window(rng, 500_000), ["accuracy"])["accuracy"]
    error = true.error * math.sqrt(500_000 / 500)
    lucky = q.Estimate(true.value + 1.6 * error, 0, 1, 500, error)  # one reference in twenty is as lucky
    hits = sum(q.drop_test(q.realised(*window(rng, 500), ["accuracy"])["accuracy"], lucky) <= 0.05 for _ in range(COUNT))
    assert at_most(hits, COUNT, 0.05), hits


def test_a_drop_is_found():
    rng = np.random.default_rng(14)
    reference = q.realised(*window(rng, 2000))
    truth, chances, decisions = window(rng, 500)
    names = [n for n in MEASURES["binary"] if n != "precision"]  # random flips make positives of the many negatives, so precision hardly falls
    for name, now in q.realised(truth ^ (rng.random(500) < 0.25), chances, decisions, names).items():
        assert q.drop_test(now, reference[name], 0.02, name not in LOSSES) < 0.01, name
        assert q.drop_test(now, reference[name], 5, name not in LOSSES) > 0.9, "within the margin"


def test_drop_test_where_all_rows_agree():
    perfect = q.realised([True] * 30, y_pred=[True] * 30, measures=["accuracy"])["accuracy"]
    poor = q.realised([True] * 30, y_pred=[True] * 15 + [False] * 15, measures=["accuracy"])["accuracy"]
    assert q.drop_test(perfect, perfect) > 0.4 and q.drop_test(poor, perfect) < 0.01 and q.drop_test(perfect, poor) > 0.99
    with pytest.raises(ValueError, match="0 or more, not -1"):
        q.drop_test(poor, perfect, -1)


# ---------------------------------------------------------------- calibration
def test_spiegelhalters_p_is_even_when_chances_are_right():
    rng = np.random.default_rng(15)
    p = [q.calibration(*window(rng, 300)[:2]).p for _ in range(COUNT)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean([q.calibration(*window(rng, 300, bold=2)[:2]).p < 0.01 for _ in range(50)]) > 0.8


def test_expected_calibration_error_by_luck():
    rng = np.random.default_rng(16)
    made = [q.calibration(*window(rng, 500)[:2]) for _ in range(100)]
    assert np.mean([c.error for c in made]) == pytest.approx(np.mean([c.by_luck for c in made]), rel=0.1)


def test_calibration_of_certain_chances():
    assert math.isnan(q.calibration([True, False], [1.0, 0.0]).p) and q.calibration([True, False], [0.0, 0.0]).p == 0
    assert len(q.calibration([True], [0.7]).bins) == 1


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: q.realised([], [], []), "no rows in labels"),
        (lambda: q.realised([True, None], [0.1, 0.2], [True, False]), "1 of 2 labels are missing"),
        (lambda: q.realised([1.0, math.nan], [0.1, 0.2], [True, False]), "1 of 2 labels are missing"),
        (lambda: q.realised([True], [0.1, 0.2], [True]), "2 chances were given for 1 rows"),
        (lambda: q.realised([True], [-0.1], [True]), "between 0 and 1, not -0.1"),
        (lambda: q.realised([True], [math.nan], [True]), "1 of 1 chances are missing"),
        (lambda: q.realised([True], None, [True]), "'roc_auc' is measured by chances"),
        (lambda: q.realised([True], [0.2], None), "'accuracy' is measured by decisions"),
        (lambda: q.realised(["a"], [0.2], [True]), "compare the labels with the positive class"),
        (lambda: q.realised([True], [0.2], [True], target_type="ranking"), "no target type 'ranking'"),
        (lambda: q.realised([True], [0.2], [True], ["acuracy"]), "did you mean 'accuracy'"),
        (lambda: q.realised(["x"], [[0.2, 0.8]], ["a"], target_type="multiclass", classes=["a", "b"]), "labels have the class 'x'"),
        (lambda: q.realised(["a"], [[0.2, 0.9]], ["a"], target_type="multiclass", classes=["a", "b"]), "add up to 1"),
        (lambda: q.realised(["a"], None, ["a"], target_type="multiclass"), "give `classes`"),
        (lambda: q.realised([1.0], target_type="continuous"), "measured by decisions"),
        (lambda: q.realised([True, False], [[0.2, 0.8], [0.3, 0.7]], [True, False]), "one column, of the positive class"),
        (lambda: q.estimated([], []), "no rows in chances"),
        (lambda: q.estimated([0.2], [True, False]), "2 decisions were given for 1 rows"),
        (lambda: q.estimated([0.2], [5.0], target_type="continuous"), "can't be estimated without labels"),
        (lambda: q.estimated([[0.2, 0.8]], [1], ["accuracy"], q.calibrator([True, False], [0.8, 0.2]), target_type="multiclass"), "binary target"),
        (lambda: q.calibration([True, False], [0.3]), "1 chances were given for 2 rows"),
    ],
)
def test_what_is_refused_is_said(call, said):
    with pytest.raises(ValueError) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("truth", [True, False])
def test_few_rows_of_one_class(rows, truth):
    """Nothing is certain, nothing warns, and what is undefined is None."""
    real, chances = [truth] * rows, [0.7] * rows
    found = q.realised(real, chances, [True] * rows)
    assert math.isnan(found["roc_auc"].value) and found["roc_auc"].plain()["value"] is None
    assert found["accuracy"].high - found["accuracy"].low > 0.3 and math.isnan(q.drop_test(found["roc_auc"], found["roc_auc"]))
    assert all(math.isfinite(e.value) for e in q.estimated(chances, [True] * rows).values())
