"""Who gets trials, what quick trials are worth, and where what is left of a budget goes: the rules, on made scores."""

import math

import numpy as np
import pytest
from scipy import stats

from mlops_nb.model.budget import Budget
from mlops_nb.model.contenders import out_of_reach
from mlops_nb.model.model_types import MODEL_TYPES
from mlops_nb.model.search import Trial, start_search
from mlops_nb.stages.tune import _average_more, _settle, choose_models, score_by_seconds, tuned_result

FOLDS = range(5)
DEFAULT = {"name": "slow_boosting", "scores": [0.80, 0.82, 0.81, 0.79, 0.83], "mean": 0.81}


def board(scores: dict[str, np.ndarray], greater: bool = True) -> dict:
    rows = [{"name": n, "scores": s.tolist(), "mean": float(s.mean())} for n, s in scores.items()]
    return {"candidates": sorted(rows, key=lambda e: e["mean"], reverse=greater), "greater_is_better": greater}


@pytest.mark.parametrize("seed", range(8))
def test_in_reach_is_who_the_middle_half_of_the_corrected_t_does_not_leave_behind(seed):
    draw = np.random.default_rng(seed)
    scores = {n: draw.normal(0.8, 0.02, 5) for n in ("linear", "random_forest", "gradient_boosting", "slow_boosting", "dummy")}
    made = board(scores)
    best = made["candidates"][0]["name"]
    far = set()
    for name in set(scores) - {best}:  # by hand: t beyond the quartile, its variance by 1/k + 1/(k - 1)
        apart = scores[best] - scores[name]
        if apart.mean() / math.sqrt((1 / 5 + 1 / 4) * apart.var(ddof=1)) > stats.t.isf(0.25, 4):
            far.add(name)
    assert set(out_of_reach(made)) == far
    losses = board({n: -s for n, s in scores.items()}, greater=False)
    assert set(out_of_reach(losses)) == far
    able = [e["name"] for e in made["candidates"] if e["name"] not in far | {"dummy"}]
    assert [e["name"] for e in choose_models(made, 5)] == (able or [next(e["name"] for e in made["candidates"] if e["name"] != "dummy")])


def searched(better: float) -> tuple:
    """A search of slow boosting whose quick trial is ahead of the quick defaults, and whose parameters with all fits differ by `better` from the defaults."""
    quick = {**DEFAULT, "scores": [s - 0.02 for s in DEFAULT["scores"]], "mean": 0.79}
    search = start_search(quick, {f"estimator__{n}" for n in ("learning_rate", "max_leaf_nodes")}, True)
    search.default = DEFAULT
    search.tell(search.ask(), [Trial(s + 0.01, None) for s in quick["scores"]])
    calls = []

    def score(name: str, params: dict, fold: int) -> Trial:
        calls.append((params, fold))
        fits = params.get("n_estimators", 3)
        return Trial(DEFAULT["scores"][fold] + better + 0.03 * (1 / 3 - 1 / fits), "said")

    return search, score, calls


@pytest.mark.parametrize("better", [0.004, -0.004])
def test_what_quick_trials_find_stands_where_all_fits_beat_the_defaults(better):
    search, score, calls = searched(better)
    found = dict(search.best["params"])
    _settle(search, score, FOLDS, None)
    assert sorted(fold for _, fold in calls) == list(FOLDS) and all("n_estimators" not in p and p == found for p, _ in calls)
    assert search.best["mean"] == pytest.approx(0.81 + max(better, 0))
    assert search.best["params"] == (found if better > 0 else {}) and bool(search.said) == (better > 0)
    result = tuned_result([search], False, {**board({"slow_boosting": np.array(DEFAULT["scores"])}), "metric": "roc_auc", "folds": 5}, _problem())
    assert result["models"][0]["default"] == 0.81 and result["models"][0]["mean"] >= 0.81  # not the quick ones' level


def _problem():
    from mlops_nb.model.census import census_problem

    return census_problem()


def test_what_is_left_of_a_budget_goes_to_fits_that_pay():
    """Twice as many and again, four times at most; not where they are no better, and not where time is short."""
    search, score, calls = searched(0.004)
    _settle(search, score, FOLDS, None)
    _average_more(search, 3, score, FOLDS, Budget(1e6, fit_seconds={"slow_boosting": 1.0}))
    assert search.best["params"]["n_estimators"] == 12 and len(calls) == 15
    assert search.best["mean"] == pytest.approx(0.814 + 0.03 * (1 / 3 - 1 / 12))
    flat, _, _ = searched(0.004)
    _average_more(flat, 3, lambda n, p, f: Trial(flat.best["scores"][f], None), FOLDS, Budget(1e6))
    assert "n_estimators" not in flat.best["params"] and sum("settled" in h for h in flat.history) == 1
    poor, judge, asked = searched(0.004)
    _average_more(poor, 3, judge, FOLDS, Budget(10.0, fit_seconds={"slow_boosting": 1.0}))  # 3 are kept, 13 more are needed
    assert not asked


def test_quick_trials_are_no_points_of_the_curve():
    search, score, _ = searched(0.004)
    search.history[-1] |= {"seconds": 1.0, "value": 0.99}  # one fit's luck
    made = {**board({"slow_boosting": np.array(DEFAULT["scores"])}), "budget": {"spent": 0.5}}
    _settle(search, score, FOLDS, Budget(1e6))
    curve = score_by_seconds([search], made)
    assert [p["score"] for p in curve] == pytest.approx([0.81, 0.814])


def test_the_portfolio_lies_in_the_spaces_that_it_begins():
    for name, entry in MODEL_TYPES.items():
        for one in entry.starts:
            assert all(entry.space[k].low <= v <= entry.space[k].high for k, v in one.items()), name
