"""Try the model: a form made from what it learnt about the data; answer, reasons and warnings."""

import altair as alt
import pandas as pd
import streamlit as st
from common import BLUE, GREY, ORANGE, badge, chosen, number, predictor

from mlops_nb.model.decision import name_of
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.text import in_markdown
from mlops_nb.serving.prediction import Answer, Predictor
from mlops_nb.model.schema import LONGEST, Field

here, version, evidence = chosen()
model: Predictor = predictor(here, version)
KEY, TYPICAL = f"{model.label}:", "a typical row"


def ask(field: Field) -> object:
    "The widget for a field. One that may be missing can be emptied; a value that training never saw may be typed."
    key, label = KEY + field.name, in_markdown(field.name.replace("_", " "))
    gap = "missing" if field.nullable else "required"
    first = st.session_state[key]
    empty = field.nullable or first is None
    if field.kind in ("number", "integer"):
        seen = f"Seen in training: {field.min:,} to {field.max:,}. Others that the charter allows are answered too, with a warning." if field.min is not None else None
        step = {"step": 1, "format": "%d"} if field.kind == "integer" else {"format": "%g"}
        return st.number_input(label, value=None, key=key, placeholder=gap, help=seen, **step)
    if field.kind == "boolean":
        return st.selectbox(label, [True, False], index=None if empty else 0, key=key, placeholder=gap)
    if field.categories:
        options = field.categories if first is None or first in field.categories else [*field.categories, first]
        return st.selectbox(label, options, index=None if empty else 0, key=key, placeholder=gap, accept_new_options=True)
    if field.kind == "text":
        return st.text_area(label, value=None, key=key, placeholder=gap, max_chars=LONGEST) or None
    return st.text_input(label, value=None, key=key, placeholder=gap) or None


def examples() -> dict[str, dict]:
    "Rows to start from: a typical one, and the single predictions that the explanation picked."
    rows = evidence.background.rows if evidence.background else []
    typical = min(rows, key=_strangeness, default={f.name: f.typical for f in model.schema.fields})
    return {TYPICAL: typical} | {s.get("kind", f"example {i}"): s["row"] for i, s in enumerate(evidence.explanation.get("singles", []), 1)}


def _strangeness(row: dict) -> float:
    "How far a row is from the typical values: a real row, whose values go together, is a better start than those."
    far = 0.0
    for f in model.schema.fields:
        value = row.get(f.name)
        ruled = f.kind in ("number", "integer") and value is not None and f.typical is not None
        far += abs(value - f.typical) / ((f.max - f.min) or 1) if ruled else value != f.typical
    return far


def start_from(example: str, values: dict) -> None:
    "Fill the form with an example, once: when it is chosen, or when the form appears again."
    if st.session_state.get(KEY) == example and all(KEY + f.name in st.session_state for f in model.schema.fields):
        return
    st.session_state[KEY] = example
    for f in model.schema.fields:
        value = values.get(f.name)
        st.session_state[KEY + f.name] = int(value) if f.kind == "integer" and value is not None else value


def probability_chart(answer: Answer) -> alt.LayerChart:
    "The probability as a bar from 0 to 1, the threshold as a line."
    scale = alt.Scale(domain=[0, 1])
    track = alt.Chart(pd.DataFrame({"p": [1.0]})).mark_bar(color="#e8ebef", size=26).encode(x=alt.X("p:Q", scale=scale, title=None, axis=alt.Axis(format="%")))
    bar = alt.Chart(pd.DataFrame({"p": [answer.probability]})).mark_bar(color=BLUE, size=26).encode(x=alt.X("p:Q", scale=scale))
    rule = alt.Chart(pd.DataFrame({"p": [answer.threshold]})).mark_tick(color="#111", thickness=3, size=44).encode(x="p:Q", tooltip=alt.Tooltip("p:Q", title="threshold", format=".3f"))
    return track + bar + rule if answer.threshold is not None else track + bar


def classes_chart(answer: Answer) -> alt.Chart:
    "The probability of each class."
    frame = pd.DataFrame({"class": list(answer.probabilities or {}), "p": list((answer.probabilities or {}).values())})
    return alt.Chart(frame).mark_bar(color=BLUE).encode(x=alt.X("p:Q", title="probability", scale=alt.Scale(domain=[0, 1])), y=alt.Y("class:N", sort="-x", title=None))


def reasons_chart(why: dict, most: int = 8) -> alt.LayerChart:
    "What each field adds to the answer or takes from it, the largest first."
    parts, whole = why["contributions"], {f.name for f in model.schema.fields if f.kind == "integer"}
    said = {c["feature"]: "missing" if c["value"] is None else int(c["value"]) if c["feature"] in whole else c["value"] for c in parts}
    rows = [{"what": f"{c['feature'].replace('_', ' ')} = {said[c['feature']]}", "adds": c["shap"]} for c in parts[:most]]
    if parts[most:]:
        rows.append({"what": f"{len(parts) - most} other fields", "adds": sum(c["shap"] for c in parts[most:])})
    base = alt.Chart(pd.DataFrame(rows)).encode(y=alt.Y("what:N", sort=[r["what"] for r in rows], title=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)))
    bars = base.mark_bar(size=16).encode(x=alt.X("adds:Q", title=f"adds to the {why['units']}"), color=alt.condition("datum.adds > 0", alt.value(BLUE), alt.value(ORANGE)), tooltip=["what", alt.Tooltip("adds:Q", format="+.4f")])
    return bars + alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color=GREY).encode(x="x:Q")


def show(answer: Answer, row: dict) -> None:
    "The answer, what weakens it, and why."
    target, left = in_markdown(model.problem.target), st.container(border=True)
    if not model.problem.kind.has_classes:
        left.metric(target, f"{answer.decision:,.4g}")
        if answer.interval is not None:
            level, (low, high) = model.served.rule.bands.level, answer.interval
            left.markdown(f"Between **{low:,.4g}** and **{high:,.4g}** in {level:.0%} of such rows.")
    else:
        left.metric(f"Decision on {target}", in_markdown(name_of(answer.decision)))
        left.markdown(_sentence(answer))
        for one in (one for one in evidence.evaluation.segments if one["name"] == answer.decision):
            left.caption(f"{one['share']:.0%} of the rows are like this: {in_markdown(one['words'])}")
        left.altair_chart(probability_chart(answer).properties(height=70) if model.problem.kind.has_positive else classes_chart(answer), width="stretch")
    for flag in answer.flags:
        icon = ":material/help:" if flag.kind == "missing" else ":material/warning:"
        (left.info if flag.kind == "missing" else left.warning)(in_markdown(flag.message), icon=icon)
    st.markdown("**Why**")
    why, compared = model.reasons(row), evidence.background or evidence.sample
    st.caption(f"It starts from {number(why['base'])}, the average over {len(compared.rows)} rows from training, and ends at {number(why['said'])}. A reason is what the model goes by, not what causes it.")
    st.altair_chart(reasons_chart(why).properties(height=28 * min(9, len(why["contributions"])) + 20), width="stretch")
    st.caption(f"Answered by {in_markdown(answer.model)} ({answer.phase}).")


def _sentence(answer: Answer) -> str:
    "The decision in words."
    if answer.threshold is None:
        return f"Decided is {in_markdown(model.problem.kind.decides(model.problem, None))}; its probability is **{answer.probability:.1%}**."
    side = "at least" if answer.probability >= answer.threshold else "below"
    asks = f"decisions for {in_markdown(name)} ask" if (name := model.problem.decides_for) else "the costs of errors ask"
    return f"The probability of **{in_markdown(model.problem.positive)}** is **{answer.probability:.1%}**, {side} the threshold of {answer.threshold:.1%} that {asks} for."


st.title("Predictions")
badge(version)
if version.phase != "production":
    st.caption("Not approved: look, but decide nothing by it." if version.phase == "staging" else "Not in use: for looking only.")
form, answer_side = st.columns([5, 4], gap="large")
with form:
    rows = examples()
    example = st.segmented_control("Start from", list(rows), default=TYPICAL, required=True) if len(rows) > 1 else TYPICAL
    start_from(example, rows[example])
    with st.form("row"):
        places = st.columns(2)
        row = {f.name: None for f in model.schema.fields}
        for i, f in enumerate(model.schema.fields):
            with places[i % 2]:
                row[f.name] = ask(f)
        st.form_submit_button("Predict", type="primary", icon=":material/play_arrow:")
with answer_side:
    try:
        show(model.predict([row])[0], row)
    except MlopsError as error:
        st.error(in_markdown(str(error).removeprefix("row 0, ")), icon=":material/error:")
