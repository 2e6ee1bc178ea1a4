"""The model: where it stands, how good it is, what it came from."""

import os

import altair as alt
import pandas as pd
import streamlit as st
from common import BLUE, GREY, badge, chosen, command, interval, judged, message, number, table

from mlops_nb.model.metrics import Metric
from mlops_nb.registry.evidence import Evaluation, Evidence, leaks_in
from mlops_nb.registry.versions import Version
from mlops_nb.base.text import in_markdown

here, version, evidence = chosen()
problem, evaluation = evidence.problem, evidence.evaluation


def standing(version: Version, others: list[Version]) -> None:
    "What the phase means, and what to do next."
    last = version.events[-1] if version.events else None
    gates = in_markdown(version.events[0].reason) if version.events else "No gate failed"
    promote = command(f"models promote {version.name} {version.version} --reason '...'")
    if version.phase == "rejected":
        st.error(f"This version failed a gate and can't be promoted. {in_markdown(last.reason) if last else ''}", icon=":material/block:")
    elif version.requested_by:
        st.info(f"{in_markdown(version.requested_by)} asked for this version to go to production. A second person must approve it:", icon=":material/how_to_reg:")
        st.code(promote, language="bash")
    elif version.phase == "staging":
        live = next((v for v in others if v.phase == "production"), None)
        now = f"Version {live.version} stays in production until then." if live else "Nothing is in production yet."
        st.info(f"{gates}; a person has to approve it. {now} Look at the figures and at **Fairness**, try it under **Predictions**, then:", icon=":material/how_to_reg:")
        st.code(promote, language="bash")
    elif version.phase == "production" and last:
        newer = [v for v in others if v.phase == "staging" and v.version > version.version]
        st.success(f"In production since {last.at[:16].replace('T', ' ')} UTC, by {in_markdown(last.by)}" + (f": {in_markdown(last.reason)}" if last.reason else "."), icon=":material/check_circle:")
        if newer:
            st.info(f"Version {newer[0].version} waits in staging. Choose it on the left to compare.", icon=":material/hourglass_top:")


def headline(evaluation: Evaluation, first: list[str], known: dict[str, Metric]) -> None:
    "The figures that matter, each with its interval."
    metrics = evaluation.metrics
    names = [n for n in dict.fromkeys([*first, *metrics]) if n in metrics]
    for column, name in zip(st.columns(len(names[:5])), names[:5], strict=True):
        found = metrics[name]
        column.metric(in_markdown(name), number(found.value), help=in_markdown(f"{name}: {known[name].meaning}" if name in known else name), border=True)
        column.caption(f"95%: {interval(found)}" if interval(found) else "no interval")
    if names[5:]:
        rest = " · ".join(f"{in_markdown(n)} {number(metrics[n].value)} ({interval(metrics[n])})" for n in names[5:])
        st.caption(f"Also: {rest}")


def criteria(gates: list[dict]) -> None:
    "The charter's gates: its success criteria, and what it demands for groups."
    for c in gates:
        icon = {True: ":green[:material/check_circle:]", False: ":red[:material/cancel:]"}.get(c["passed"], ":gray[:material/help:]")
        by = f" by {in_markdown(c['by'].replace('_', ' '))}" if "by" in c else ""
        st.markdown(f"{icon} **{in_markdown(c['metric'])}{by}**: {in_markdown(message(c)) or number(c['value'])}", help=in_markdown(c["reason"]) or None)
    if not gates:
        st.caption("The charter names no success criteria.")


def confusion_chart(c: dict, positive: object) -> alt.LayerChart:
    "What was decided, by what was true."
    if "matrix" in c:
        cells = [{"truth": t, "decided": d, "rows": n} for t, line in zip(c["classes"], c["matrix"], strict=True) for d, n in zip(c["classes"], line, strict=True)]
    else:
        yes, no = str(positive), f"not {positive}"
        cells = [{"truth": t, "decided": d, "rows": c[k]} for t, d, k in ((no, no, "tn"), (no, yes, "fp"), (yes, no, "fn"), (yes, yes, "tp"))]
    frame = pd.DataFrame(cells)
    frame["share"] = frame["rows"] / frame.groupby("truth")["rows"].transform("sum").clip(lower=1)
    frame["label"] = [f"{n:,} ({s:.0%})" for n, s in zip(frame["rows"], frame["share"], strict=True)]
    base = alt.Chart(frame).encode(x=alt.X("decided:N", title="decided", sort=None, axis=alt.Axis(labelAngle=0)), y=alt.Y("truth:N", title="true", sort=None))
    boxes = base.mark_rect().encode(color=alt.Color("share:Q", scale=alt.Scale(range=["#eef2f6", BLUE], domain=[0, 1]), legend=None), tooltip=["truth", "decided", "rows", alt.Tooltip("share:Q", format=".1%")])
    return boxes + base.mark_text(fontSize=15).encode(text="label:N", color=alt.condition("datum.share > 0.55", alt.value("white"), alt.value("#222")))


def roc_chart(curves: dict) -> alt.LayerChart:
    "True positives against false positives at every threshold."
    lines = curves["roc"] if isinstance(curves["roc"], dict) else {"model": curves["roc"]}
    frame = pd.DataFrame([{"class": k, "false": x, "true": y} for k, line in lines.items() for x, y in line])
    colour = alt.Color("class:N", legend=alt.Legend(orient="bottom") if len(lines) > 1 else None, scale=alt.Scale(range=[BLUE]) if len(lines) == 1 else alt.Undefined)
    line = alt.Chart(frame).mark_line(interpolate="step-after").encode(
        x=alt.X("false:Q", title="false positive rate", scale=alt.Scale(domain=[0, 1])), y=alt.Y("true:Q", title="true positive rate", scale=alt.Scale(domain=[0, 1])), color=colour,
        tooltip=[alt.Tooltip("false:Q", format=".3f"), alt.Tooltip("true:Q", format=".3f")],
    )
    guess = alt.Chart(pd.DataFrame({"false": [0, 1], "true": [0, 1]})).mark_line(color=GREY, strokeDash=[4, 4]).encode(x="false:Q", y="true:Q")
    return guess + line


def calibration_chart(curves: dict, unit: str) -> alt.LayerChart:
    "Said against seen, with 95% intervals."
    frame = pd.DataFrame(curves["calibration"]).rename(columns={"fraction_positive": "seen", "mean_true": "seen", "mean_predicted": "said"})
    ends = [0.0, 1.0] if unit == "probability" else [float(frame[["said", "seen"]].min().min()), float(frame[["said", "seen"]].max().max())]
    base = alt.Chart(frame).encode(x=alt.X("said:Q", title=f"said ({unit})", scale=alt.Scale(domain=ends)))
    rules = base.mark_rule(color=BLUE).encode(y=alt.Y("low:Q", title="seen (95% interval)", scale=alt.Scale(domain=ends, clamp=True)), y2="high:Q")
    points = base.mark_point(color=BLUE, filled=True, size=50).encode(y="seen:Q", tooltip=["n", alt.Tooltip("said:Q", format=".3f"), alt.Tooltip("seen:Q", format=".3f")])
    honest = alt.Chart(pd.DataFrame({"said": ends, "seen": ends})).mark_line(color=GREY, strokeDash=[4, 4]).encode(x="said:Q", y="seen:Q")
    return honest + rules + points


def policy_chart(policy: dict, unit: str) -> alt.LayerChart:
    "What was earned, and what the policy would have earned, with 95% intervals."
    frame = pd.DataFrame([{"estimate": name, **span} for name, span in policy["values"].items()])
    base = alt.Chart(frame).encode(y=alt.Y("estimate:N", sort=list(policy["values"]), title=None, axis=alt.Axis(labelLimit=220)))
    spans = base.mark_rule(color=BLUE).encode(x=alt.X("low:Q", title=f"mean {unit} of a decision", scale=alt.Scale(zero=False)), x2="high:Q")
    return spans + base.mark_point(color=BLUE, filled=True, size=60).encode(x="value:Q", tooltip=["estimate", "value", "low", "high"])


def learning_chart(learning: dict, metric: str) -> alt.LayerChart:
    "What the seeds reach as they learn, with the 95% interval."
    base = alt.Chart(pd.DataFrame(learning)).encode(x=alt.X("at:Q", title="episodes learnt from"))
    band = base.mark_area(color=BLUE, opacity=0.25).encode(y=alt.Y("low:Q", title=f"{metric.replace('_', ' ')} of the seeds (interquartile, 95% interval)"), y2="high:Q")
    return band + base.mark_line(color=BLUE).encode(y="iqm:Q", tooltip=["at", alt.Tooltip("iqm:Q", format=".4g")])


def importance_chart(explanation: dict) -> alt.LayerChart:
    "What moves the model's answers most."
    frame = pd.DataFrame(explanation["global"]).head(10)
    base = alt.Chart(frame).encode(y=alt.Y("feature:N", sort=list(frame["feature"]), title=None, axis=alt.Axis(labelLimit=220, labelOverlap=False)))
    bars = base.mark_bar(color=BLUE, size=14).encode(x=alt.X("mean_abs_shap:Q", title=f"mean absolute contribution ({explanation.get('units', 'model output')}), 95% interval", axis=alt.Axis(tickCount=6)))
    return bars + base.mark_rule(color="#111").encode(x="low:Q", x2="high:Q")


def lineage(version: Version, evidence: Evidence) -> pd.DataFrame:
    "Where the version came from, as one table."
    problem, data, git, decision = evidence.problem, evidence.data, evidence.git, evidence.decision
    code = "not in a checkout" if git["commit"] is None else git["commit"][:12] + (" with uncommitted changes" if git["dirty"] else "")
    facts = {
        "registered": version.created.replace("T", " ").replace("Z", " UTC"),
        "pipeline run": version.pipeline_run or "by hand",
        "model": decision.why or decision.chosen,
        "decides": problem.kind.decides(problem, decision.threshold),
        "data": f"{data.get('name') or problem.data.source}, sha256 {str(data.get('sha256', ''))[:12]}",
        "rows": f"{data.get('rows', 0):,} read, {data['rows_train']:,} to train on, {evidence.evaluation.n:,} {problem.kind.judged_on} to be judged by",
        "learnt": evidence.learnt.said,
        "licence": problem.data.every("licence") or "not said",
        "code": code,
        "libraries": ", ".join(f"{k} {v}" for k, v in evidence.libraries.items()),
        "model file": f"sha256 {version.model_digest[:12]}",
        "evidence": f"sha256 {version.evidence_digest[:12]}, MLflow run {version.mlflow_run[:12]}",
    }
    return pd.DataFrame({"what": [in_markdown(fact) for fact in facts.values()]}, index=facts.keys())


st.title(in_markdown(problem.title or version.name))
badge(version)
st.markdown(in_markdown(problem.goal))
standing(version, st.session_state["versions"])
headline(evaluation, [problem.metric, *problem.secondary, *(c["metric"] for c in evaluation.criteria)], problem.kind.metrics)
learnt = f"{evidence.learnt.said[:1].upper()}{evidence.learnt.said[1:]}." if evidence.learnt.rows is not None else ""
st.caption(f"On {evaluation.n:,} {problem.kind.judged_on} that nothing was chosen by. {judged(here.registry_uri, version, evidence)} {learnt}".strip())
if evaluation.cost:
    st.caption(f"Mean cost of a decision, by the charter's costs: {number(evaluation.cost.value)} ({interval(evaluation.cost)})")

st.subheader("Good enough?")
for leak in leaks_in(evidence):
    st.warning(in_markdown(leak["message"]), icon=":material/warning:")
leaks = [{"metric": r["name"], "reason": "", **r} for r in leaks_in(evidence, gate=True)]
criteria([*evaluation.criteria, *(r for r in evidence.fairness_audit.get("rules", ()) if r["gate"]), *leaks])
if problem.policy:
    st.caption(f"Policy: {in_markdown(problem.policy)}")

if evaluation.segments:
    st.subheader("Segments")
    st.caption("What sets each one apart, on rows that had no part in finding it.")
    for one in evaluation.segments:
        st.markdown(f"**{in_markdown(one['name'])}**, {one['share']:.0%} of the rows: {in_markdown(one['words'])}")
if curves := evaluation.curves:
    st.subheader("How it decides" if problem.kind.has_classes else "How it answers")
    columns = st.columns(3 if evaluation.confusion and "roc" in curves else 1)
    if evaluation.confusion and "roc" in curves:
        columns[0].markdown("**Decisions** on the test rows", help="Each line adds up to 100%: the share of the rows of that class.")
        columns[0].altair_chart(confusion_chart(evaluation.confusion, problem.positive).properties(height=300), width="stretch")
        columns[1].markdown("**Ranking**: ROC curve", help="The further above the dashed line of guessing, the better it ranks.")
        columns[1].altair_chart(roc_chart(curves).properties(height=300), width="stretch")
    if "calibration" in curves:
        columns[-1].markdown("**Honesty**: what it says, and what is so", help="On the dashed line, what the model says is what happens.")
        columns[-1].altair_chart(calibration_chart(curves, problem.kind.unit(problem.target)).properties(height=300), width="stretch")
    if "learning" in curves:
        columns[-1].markdown("**Learning**: what was reached, by episodes", help="Interquartile mean of all seeds with its 95% interval.")
        columns[-1].altair_chart(learning_chart(curves["learning"], problem.metric).properties(height=300), width="stretch")
if policy := (evaluation.model_extra or {}).get("off_policy"):
    st.subheader("How it decides")
    st.markdown("**Beside the log**: what would have been earned", help="Estimated from decisions that the policy has not learnt from; each with its 95% interval.")
    st.altair_chart(policy_chart(policy, str(problem.reward)).properties(height=180), width="stretch")
    table(pd.DataFrame(policy["actions"]).T.rename(columns={"logged": "share in the log", "policy": "share by the policy"}).round(3))
    st.caption(in_markdown(policy["overlap"]["why"]) or f"{policy['overlap']['n']:,} logged decisions are worth {policy['overlap']['effective']:,.0f} of the policy's own.")

if evaluation.intervals:
    held = evaluation.intervals
    st.markdown(f"**Intervals** of {held['level']:.0%}: they hold the truth of **{held['coverage']['value']:.1%}** of the test rows, and are {held['mean_width']['value']:,.4g} wide on average.", help=in_markdown(held["promise"]))
    parts = [{"by": by, "group": g, "rows": p["n"], "held": p["coverage"]["value"], "from": p["coverage"]["low"], "to": p["coverage"]["high"], "mean width": p["mean_width"]["value"]} for by, of in held["by"].items() for g, p in of.items()]
    if parts:
        table(pd.DataFrame(parts).round(3))
for found in evaluation.residuals:
    st.markdown(f"- {in_markdown(found['sentence'])}.")

if evidence.explanation.get("global"):
    st.subheader("What it goes by")
    st.altair_chart(importance_chart(evidence.explanation).properties(height=26 * min(10, len(evidence.explanation["global"])) + 20), width="stretch")

st.subheader("Where it came from")
st.table(lineage(version, evidence), border="horizontal", hide_header=True)

st.subheader("All versions")
history = [{"version": v.version, "when (UTC)": e.at[:19].replace("T", " "), "phase": e.phase, "what": e.action, "by": e.by, "why": e.reason} for v in st.session_state["versions"] for e in v.events]
table(pd.DataFrame(history).sort_values("when (UTC)", ascending=False))
st.caption(f"Reports of every run are in the folder {in_markdown(os.path.relpath(here.reports, here.root))}; `{command('models list')}` shows the same in a terminal.")
