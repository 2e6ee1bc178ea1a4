"""A table with a column of free text, from the CSV to an answer by REST: the text is read, and it helps."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, r2_score
from streamlit.testing.v1 import AppTest
from tests.conftest import command
from tests.serving.test_rest import serving

from mlops_nb.model.conform import learn_schema, with_types
from mlops_nb.model.problem import Problem
from mlops_nb.stages.features import make_recipe
from mlops_nb.stages.train import make_model

FEW = {
    "train": {"candidates": ["dummy", "linear", "gradient_boosting"], "folds": 3}, "tune": {"n_models": 1, "trials": 2},
    "explain": {"rows": 20, "background": 10},
}  # fmt: skip
SLOWLY = {"learning_rate": 0.05, "max_iter": 60, "max_leaf_nodes": 15}  # about what tuning finds for as many rows
GOOD, BAD = "great love perfect excellent fast".split(), "broken awful refund slow terrible".split()
OTHER = [a + b for a in "ba ko ti mu re sa lo ne".split() for b in "dan fel gor mis tup ren lin var".split()]


def reviews(n: int = 800, seed: int = 0) -> pd.DataFrame:
    """Whether somebody was satisfied shows in some of the words, and a little in the price."""
    draw = np.random.default_rng(seed)
    satisfied, price = draw.random(n) < 0.5, draw.normal(50, 15, n)
    texts = []
    for yes in satisfied:
        words = list(draw.choice(OTHER, draw.integers(5, 20)))
        for _ in range(draw.integers(1, 4)):
            words.insert(draw.integers(len(words)), draw.choice(GOOD if yes ^ (draw.random() < 0.15) else BAD))
        texts.append(" ".join(words).capitalize() + ".")
    rows = pd.DataFrame({"review": texts, "price": (price - 5 * satisfied).round(2), "mail": [f"p{k}@example.org" for k in range(n)]})
    rows.loc[::40, "review"] = None
    return rows.assign(satisfied=np.where(satisfied, "yes", "no"))


def told(kind: str, n: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Texts of common and rare words, a number beside them, and what both say: by single words, by words that go together, by pairs, or not at all."""
    draw = np.random.default_rng(seed)
    rare = [f"{a}{b}" for a in OTHER for b in "pa vu zi hem rok".split()]
    share = 1 / np.arange(1, len(rare) + 1)
    share /= share.sum()
    topics = [share * np.exp(draw.normal(0, 1, len(rare))) for _ in range(5)] if kind == "topics" else [share] * 5
    topic, x, said = draw.integers(5, size=n), draw.normal(size=n), np.zeros(n)
    docs = [list(draw.choice(rare, length, p=topics[k] / topics[k].sum())) for k, length in zip(topic, draw.integers(6, 40, n), strict=True)]
    if kind == "topics":
        said = np.array([-1.5, -0.7, 0, 0.7, 1.5])[topic]
    for k, words in enumerate(docs):
        if kind == "words":
            good, at = draw.random() < 0.5, draw.integers(len(words))
            words.insert(at, str(draw.choice(GOOD if good else BAD)))
            said[k] = 1.5 if good else -1.5
        if kind == "pairs":
            good, turned, at = draw.random() < 0.5, draw.random() < 0.5, draw.integers(len(words))
            words[at:at] = ["not" if turned else "very", "good" if good else "bad"]
            said[k] = 1.5 if good ^ turned else -1.5
    return pd.DataFrame({"note": [" ".join(words) for words in docs], "x": x}), 0.8 * x + said


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "gain"), [("words", 0.05), ("topics", 0.03), ("pairs", 0.05), ("nothing", -0.015)])
def test_what_texts_are_worth(kind, gain):
    """Log loss and R2 on 2,000 new rows with texts and without: better where words say something, and hardly worse where they say nothing."""
    frame, z = told(kind, 3500)
    draw, found = np.random.default_rng(1), {}
    says = {"binary": np.where(draw.random(3500) < expit(z), "yes", "no"), "regression": z + draw.normal(size=3500)}
    for task, y in says.items():
        more = {"positive": "yes", "metric": "roc_auc"} if task == "binary" else {"metric": "r2"}
        stated = Problem.model_validate({"name": "notes", "goal": "Know", "task": task, "target": "y", "data": {"source": "rows.csv"}} | more)
        form = learn_schema(frame.assign(y=y), stated)
        assert form.fields[0].kind == "text"
        rows, rest = with_types(frame.assign(y=y)[:1500], form), with_types(frame.assign(y=y)[1500:], form)
        for name in ("linear", "gradient_boosting"):
            loss = {}
            for text in ("auto", "leave_out"):
                model = make_model(name, make_recipe(form, stated, text=text), task, params=SLOWLY if name == "gradient_boosting" else None).fit(rows[form.names], rows["y"])
                loss[text] = log_loss(rest["y"], model.predict_proba(rest[form.names])) if task == "binary" else -r2_score(rest["y"], model.predict(rest[form.names]))
            found[task, name] = round(loss["leave_out"] - loss["auto"], 4)
    print(kind, found)
    assert min(found.values()) > gain, found


@pytest.mark.slow
def test_from_a_csv_to_rest(tmp_path, monkeypatch):
    frame = reviews()
    frame.to_csv(tmp_path / "rows.csv", index=False)
    said = command(tmp_path, "init", "shop", "--data", "rows.csv", "--target", "satisfied")
    assert re.search(r"(?m)^review +text .* texts, read by their words$", said)
    assert re.search(r"(?m)^mail +text .* left out: .* identifiers or single words", said)
    root = tmp_path / "shop"
    charter = next((root / "nbs" / "charters").glob("*.yaml"))
    assert re.search(r'(?m)^#  "review": .* GUESS: read by its words', charter.read_text())
    knobs = "\n".join(f"  {stage}: {json.dumps(values)}" for stage, values in FEW.items())
    charter.write_text(charter.read_text().replace("knobs: {}\n", f"knobs:\n{knobs}\n", 1))
    assert "shop version 1" in command(root, "run")
    summary = json.loads((root / "reports" / (root / "reports" / "latest").read_text().strip() / "summary.json").read_text())
    assert all(stage["status"] == "done" for stage in summary["stages"].values())
    assert summary["stages"]["evaluate"]["metrics"]["test_roc_auc"] > 0.85, "by the price alone it would be 0.6"
    assert summary["stages"]["explain"]["metrics"]["top_feature"] == "review"
    command(root, "score", str(tmp_path / "rows.csv"), "scores.csv", "--model", "shop@1", "--keep", "mail")
    scores = pd.read_csv(root / "scores.csv")
    asked = frame.iloc[::37][["review", "price"]]
    with serving(root, "shop@1") as server:
        status, answer, _ = server.predict(asked.astype(object).where(asked.notna(), None).to_dict("records"))
        assert status == 200
        assert np.abs([p["probability"] for p in answer["predictions"]] - scores["probability"].iloc[asked.index]).max() < 1e-9
        good, bad, control = ({"review": text, "price": 50.0} for text in ("Perfect, fast and great!", "Broken and awful, refund", "\x00\x07 ok \u202e"))
        status, answer, _ = server.predict([good, bad, control])
        assert status == 200 and answer["predictions"][0]["probability"] > 0.7 > 0.3 > answer["predictions"][1]["probability"]
        status, answer, _ = server.predict([{"review": "x" * 1_000_000, "price": 50.0}])
        assert status == 422 and "a text of at most 100,000 characters" in json.dumps(answer) and len(json.dumps(answer)) < 2000
    monkeypatch.setenv("MLOPS_NB_ROOT", str(root))
    app = Path(__file__).parents[2] / "app" / "main.py"
    page = AppTest.from_file(str(app), default_timeout=120).run()
    page = page.switch_page("views/predictions.py").run()
    assert not page.exception and [w.label for w in page.text_area] == ["review"]
    page.text_area[0].set_value("Broken and awful, refund")
    page.button[0].click().run()
    assert not page.exception and page.metric[0].value == "no"
