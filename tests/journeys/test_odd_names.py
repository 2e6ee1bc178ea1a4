"""Names as people write them, with quotes, backslashes, dollars, brackets, tags and letters of other scripts, from `init` to the app: each is text everywhere."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mlops_nb.base.charter import load_charter
from mlops_nb.base.settings import Settings, load_settings
from mlops_nb.monitoring.due import monitor_due
from tests.conftest import command, project_of
from tests.serving.test_rest import Server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WEIGHT, PRICE, PATH, SHARE, NAME, BOLD, YEAR, ANSWER = COLUMNS = [
    'weight "net" (kg)', "Price ($) vs cost ($)", r"a'b\c", "100% {x} [y]", "한글 이름", "<b>bold</b>", "年齢（さい）", "결과 `*?*`",
]  # fmt: skip
YES, NO = "예 <1>", "아니오 $0"
POLICY = "Nobody is refused for `<b>`; costs $5 to $9, and 모두 are asked."
KNOBS: dict[str, dict[str, Any]] = {
    "train": {"candidates": ["dummy", "linear", "gradient_boosting"], "folds": 3}, "tune": {"n_models": 1, "trials": 2},
    "evaluate": {"resamples": 100}, "fairness": {"resamples": 100}, "explain": {"rows": 10, "background": 10}, "monitor": {"trials": 2},
}  # fmt: skip


def rows(n: int = 400) -> list[dict]:
    """Numbers and words under odd names; some words are as odd."""
    draw = np.random.default_rng(0)
    columns = {
        WEIGHT: draw.normal(50, 9, n).round(2), PRICE: draw.gamma(2, 30, n).round(2), PATH: draw.choice(["C:\\new", "it's", '"q"', "{x}"], n),
        SHARE: draw.integers(0, 100, n), NAME: draw.choice(["가나", "다라", "마바 $a$"], n), BOLD: draw.choice(["<i>", "& so", "plain"], n), YEAR: draw.integers(18, 80, n),
    }  # fmt: skip
    score = (columns[WEIGHT] - 50) / 9 + (columns[SHARE] - 50) / 30 + (columns[NAME] == "가나") + draw.normal(0, 0.5, n)
    answers = np.where(score > 0.5, YES, NO)
    return [dict(zip(COLUMNS, line, strict=True)) for line in zip(*(c.tolist() for c in columns.values()), answers.tolist(), strict=True)]


def asked() -> list[dict]:
    return [{k: v for k, v in row.items() if k != ANSWER} for row in rows()[:40]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A project with such a table, run whole, its model in production."""
    root = project_of(tmp_path_factory.mktemp("odd") / "rows.csv", rows(), ANSWER)
    file = root / "nbs" / "charters" / "gym.yaml"
    charter = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert charter["target"] == ANSWER and charter["positive"] == YES
    rule = {"metric": "equal_opportunity_ratio", "by": NAME, "at_least": 0.01, "gate": False, "reason": "So that it is looked at, see the policy."}
    charter |= {
        "knobs": KNOBS, "policy": POLICY, "sensitive": [{"name": NAME, "column": NAME}, {"name": YEAR, "column": YEAR, "bins": [30, 60]}],
        "fairness": [rule], "success": [{"metric": "roc_auc", "at_least": 0.6, "reason": "As the policy says."}], "monitoring": {"min_rows": 20, "min_labels": 20},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(charter, allow_unicode=True, sort_keys=False), encoding="utf-8")
    assert command(root, "check").startswith("sound: ")
    said = command(root, "run")
    assert "gym version 1, phase staging" in said
    command(root, "models", "promote", "gym", "1", "--by", "ada", "--reason", "looked at")
    return root


def settings(shop: Path) -> Settings:
    return load_settings(shop, tracking="disabled")


def pages(shop: Path) -> dict[str, str]:
    (run,) = [d for d in (shop / "reports").iterdir() if (d / "index.html").is_file()]
    return {p.stem: p.read_text(encoding="utf-8") for p in run.glob("*.html")}


def test_pictures_of_all_stages_have_every_letter(shop):
    notebooks = list((shop / "reports").glob("*/*.ipynb"))
    assert len(notebooks) == 16
    pictures = 0
    for file in notebooks:
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                pictures += "image/png" in output.get("data", {})
                assert output.get("name") != "stderr", (file.name, "".join(output["text"])[:500])
    assert pictures > 10


def test_reports_show_each_name_as_text(shop):
    made = pages(shop)
    whole = "".join(made.values())
    for name in COLUMNS:
        escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert escaped in whole or escaped.replace('"', "&quot;").replace("'", "&#x27;") in whole, name
    assert "<b>bold" not in whole and "<i>" not in whole.replace("<i></i>", "")
    policy = "Nobody is refused for `&lt;b&gt;`; costs $5 to $9, and 모두 are asked."
    assert all(policy in made[page] for page in ("index", "problem", "fairness"))


def test_a_table_is_scored(shop):
    command(shop, "score", "data/rows.csv", "out.csv", "--model", "gym@production")
    scored = pd.read_csv(shop / "out.csv")
    assert len(scored) == 400 and set(scored["decision"]) == {YES, NO}
    assert (scored["decision"] == [row[ANSWER] for row in rows()]).mean() > 0.7


@pytest.fixture(scope="module")
def service(shop) -> Iterator[tuple[Server, str]]:
    from tests.serving.test_grpc import free_port

    address = f"127.0.0.1:{free_port()}"
    server = Server(shop, "gym", "--grpc", address)
    yield server, address
    server.stop()


def test_rest_and_grpc_answer_alike(shop, service):
    server, address = service
    command(shop, "score", "data/rows.csv", "same.csv", "--model", "gym@production")
    own = pd.read_csv(shop / "same.csv").head(40)
    code, said, _ = server.predict(asked())
    assert code == 200 and [a["decision"] for a in said["predictions"]] == own["decision"].tolist()
    code, refused, _ = server.predict([asked()[0] | {WEIGHT: "heavy <b>"}])
    assert code == 422 and WEIGHT in json.dumps(refused, ensure_ascii=False).replace('\\"', '"')
    assert {f["name"] for f in server.get("/v2/models/gym")[1]["inputs"]} >= set(COLUMNS) - {ANSWER}
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)
    frame, tensors = pd.DataFrame(asked()), []
    for field in client.get_model_metadata("gym").inputs:
        values = frame[field.name]
        data = values.map(str.encode).to_numpy(object) if field.datatype == "BYTES" else values.to_numpy("float64" if field.datatype == "FP64" else "int64")
        tensor = triton.InferInput(field.name, [40, *[1] * (len(field.shape) - 1)], field.datatype)
        tensor.set_data_from_numpy(data.reshape(tensor.shape()))
        tensors.append(tensor)
    answered = client.infer("gym", tensors)
    assert [d.decode() for d in answered.as_numpy("decision").ravel()] == own["decision"].tolist()


@pytest.fixture
def app(shop, monkeypatch):
    pytest.importorskip("streamlit")
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("MLOPS_NB_ROOT", str(shop))
    st.cache_data.clear()
    st.cache_resource.clear()
    return AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)


def view(app: Any, name: str) -> tuple[Any, str]:
    """A page, and all that it says, without the backslashes that make signs of Markdown text."""
    at = app.run() if name == "overview" else app.run().switch_page(f"views/{name}.py").run()
    assert not at.exception and not at.error, (name, at.exception, [e.value for e in at.error])
    said = [e.value for kind in ("title", "subheader", "markdown", "caption", "info", "warning") for e in getattr(at, kind)]
    return at, re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", "\n".join(map(str, said)))


def test_the_apps_form_answers(shop, app):
    at, said = view(app, "predictions")
    labels = [re.sub(r"\\(.)", r"\1", w.label) for w in [*at.number_input, *at.selectbox]]
    assert set(COLUMNS) - {ANSWER} <= set(labels), labels
    at.number_input(key=f"gym/1:{WEIGHT}").set_value(90.0)
    at.selectbox(key=f"gym/1:{NAME}").set_value("가나")
    next(b for b in at.button if b.label == "Predict").click().run()
    assert not at.exception and not at.error
    decision = next(m for m in at.metric if "Decision on" in m.label)
    assert re.sub(r"\\(.)", r"\1", decision.value) == YES


def test_the_apps_other_views(shop, app, service):
    server, _ = service
    server.predict(asked())
    at, said = view(app, "overview")
    assert "As the policy says." in str([m.help for m in at.markdown]) and POLICY in said
    at, said = view(app, "fairness")
    assert POLICY in said and f"equal_opportunity_ratio by {NAME}" in said and "see the policy" in said
    assert set(at.dataframe[0].value["group"]) == {"가나", "다라", "마바 $a$"}
    at, said = view(app, "monitoring")
    assert "wait for the end of the" in said
    monitor_due(settings(shop), load_charter(settings(shop).charter), "gym", datetime.now(UTC) + timedelta(days=2))
    at, said = view(app, "monitoring")
    assert set(at.dataframe[0].value["feature"]) == set(COLUMNS) - {ANSWER}
