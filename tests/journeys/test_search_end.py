"""Whether a search may end before its last trial: replayed on the scores of whole searches that were kept, with what each trial scored on rows that nobody has seen."""

import json
from pathlib import Path

import numpy as np

from mlops_nb.stages.tune import Trial, start_search

#: One search a line, made on 300 rows of scikit-learn's made tables: a trial's scores on five folds (AUC or R2), and on 1,000 other rows.
SEARCHES = [json.loads(line) for line in (Path(__file__).parent / "searches.jsonl").read_text().splitlines()]


def replayed(scores: list[list[float]], may_end: bool) -> tuple[int, int]:
    """The trial that is chosen, and how many fold fits it took."""
    search, fits, chosen = start_search({"name": "linear", "scores": scores[0], "mean": float(np.mean(scores[0]))}, {"C"}, True), 0, 0
    for number, folds in enumerate(scores[1:], 1):
        asked, before = search.ask(), search.best
        done = folds if search.promising(folds[0]) else folds[:1]
        search.tell(asked, [Trial(score, None) for score in done])
        fits, chosen = fits + len(done), number if search.best is not before else chosen
        if may_end:
            search.end(len(scores) - 1 - number)
        if search.ended:
            break
    return chosen, fits


def test_a_search_that_ends_early_loses_nothing_that_can_be_measured():
    """Against the whole search: a third of the fits is saved, and what is lost on unseen rows is within its noise and small beside the search's gain."""
    ended, whole = ([replayed(s["scores"], may_end) for s in SEARCHES] for may_end in (True, False))
    loss = np.array([s["test"][b] - s["test"][a] for s, (a, _), (b, _) in zip(SEARCHES, ended, whole, strict=True)])
    gain = np.array([s["test"][b] - s["test"][0] for s, (b, _) in zip(SEARCHES, whole, strict=True)])
    assert len(SEARCHES) >= 30 and sum(f for _, f in ended) < 0.7 * sum(f for _, f in whole)
    assert gain.mean() > 0 and loss.mean() < min(0.25 * gain.mean(), 2 * loss.std(ddof=1) / np.sqrt(len(loss)))
