"""What the served model is asked, how it answers, how good it is now, and what a person should look at."""

from datetime import UTC, datetime
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from common import BLUE, GREY, ORANGE, badge, between, chosen, command, number, table

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.settings import Settings
from mlops_nb.base.text import in_markdown
from mlops_nb.monitoring.due import look_now, waiting
from mlops_nb.monitoring.reports import PartReport, Report, reports
from mlops_nb.monitoring.windows import SPANS, has_log
from mlops_nb.log.events import Alert, Alerts

here, version, evidence = chosen()
name = version.name
WHAT = {"drift": "inputs", "predictions": "answers", "estimated": "estimated quality", "quality": "quality", "groups": "groups", "system": "system", "errors": "errors"}
SEVERITY = {"critical": ("red", ":material/error:"), "warning": ("orange", ":material/warning:"), "info": ("blue", ":material/info:")}


@st.cache_data(ttl=5, show_spinner=False)
def kept(home: str, model: str) -> list[Report]:
    return reports(here.home, model, 200)


@st.cache_data(ttl=60, show_spinner="Looking at the window that is running ...", max_entries=2)
def running(_settings: Settings, model: str, minute: str) -> Report | None:
    return look_now(_settings, load_charter(_settings.charter), model, datetime.now(UTC))


@st.cache_data(ttl=60, show_spinner=False, max_entries=2)
def waits(_settings: Settings, model: str, minute: str) -> str:
    return waiting(_settings, load_charter(_settings.charter), model, datetime.now(UTC))


def at(report: Report) -> str:
    "When a window was."
    long = report.end - report.start >= SPANS["day"]
    return f"{report.start:%d %b %Y}" if long else f"{report.start:%d %b %Y, %H:%M} to {report.end:%H:%M} UTC"


def show_alert(found: Alert) -> None:
    "An alert with its cause; somebody says that they have seen it."
    colour, icon = SEVERITY[found.severity]
    with st.container(border=True):
        seen = f"seen {found.count} times since" if found.count > 1 else "since"
        st.markdown(f":{colour}[{icon}] **{in_markdown(found.title)}**  \n{in_markdown(found.cause)}")
        st.caption(f"{found.severity}, {seen} {found.opened:%d %b %H:%M} UTC" + (f" · {in_markdown(found.by)} has seen it, {found.acknowledged:%d %b %H:%M} UTC: {in_markdown(found.note)}" if found.acknowledged else ""))
        if not found.acknowledged:
            with st.popover("Acknowledge", icon=":material/done:"), st.form(f"alert {found.id}", border=False):
                who = st.text_input("Who are you?", key=f"who {found.id}")
                note = st.text_input("What is known, or being done about it?", key=f"note {found.id}")
                if st.form_submit_button("I have seen it", type="primary"):
                    try:
                        Alerts(here.home, here.log_url).acknowledge(found.id, who, note)
                        st.rerun()
                    except MlopsError as error:
                        st.error(in_markdown(error))


def show_alerts() -> None:
    "What a person should look at; where there is nothing, that."
    found = [a for a in Alerts(here.home, here.log_url).list(200) if a.model == name]
    unresolved = [a for a in found if not a.resolved]
    for one in sorted(unresolved, key=lambda a: (a.acknowledged is not None, -a.id)):
        show_alert(one)
    if not unresolved:
        st.success("No alert is open.", icon=":material/check_circle:")
    if over := [a for a in found if a.resolved][-20:]:
        with st.expander(f"{len(over)} earlier"):
            lines = [{"opened": f"{a.opened:%d %b %H:%M}", "alert": a.title, "seen": a.count, "acknowledged by": a.by or "", "resolved": f"{a.resolved:%d %b %H:%M}", "cause": a.cause} for a in reversed(over)]
            table(pd.DataFrame(lines))


def headline(report: Report, part: PartReport | None) -> None:
    "The window in a few numbers."
    places = st.columns(5)
    places[0].metric("Predictions", f"{report.rows:,}", border=True)
    took = report.system
    places[1].metric("Median latency", f"{took['latency_p50'] * 1e3:.2f} ms" if "latency_p50" in took else "-", border=True, help=f"99% are below {took['latency_p99'] * 1e3:.2f} ms" if "latency_p99" in took else None)
    if part:
        drifted, metric = [f for f in part.features if f["drifted"]], part.quality.get("metric", "")
        places[2].metric("Drifted features", f"{len(drifted)} of {len(part.features)}", border=True, help="Those that differ from the training rows beyond chance; false discoveries are controlled over the features.")
        for place, how in ((places[3], "estimated"), (places[4], "realised")):
            figure = (part.quality.get(how) or {}).get(metric) or {}
            said = f"{in_markdown(metric)}, 95%: {number(figure['low'])} to {number(figure['high'])}" if figure.get("low") is not None else f"{part.quality.get('labelled', 0):,} labels are known, too few" if how == "realised" else None
            place.metric(f"{in_markdown(metric)} {how}" if len(metric) < 5 else how.capitalize(), number(figure.get("value")) if figure else "-", border=True, help=said)


def marks_chart(found: list[Report]) -> alt.LayerChart:
    "What happened, where it falls: a line over the windows, with its number."
    lines = [{"time": at, "event": "; ".join(said), "number": str(i)} for i, (at, said) in enumerate(marks_by_time(found), 1)]
    data = pd.DataFrame(lines, columns=["time", "event", "number"]).astype({"time": "datetime64[us, UTC]"})
    base = alt.Chart(data).encode(x=alt.X("time:T", title=None, scale=alt.Scale(type="utc")), tooltip=["event:N"])
    named = base.mark_text(color=ORANGE, fontSize=12, fontWeight="bold", dy=-7).encode(text="number:N", y=alt.value(0))
    return base.mark_rule(color=ORANGE, strokeDash=[2, 3], strokeWidth=1.5) + named


def marks_by_time(found: list[Report]) -> list[tuple[datetime, list[str]]]:
    "What happened, by when it falls into the windows, oldest first."
    made: dict[datetime, list[str]] = {}
    for m in dict.fromkeys(m for r in found for m in r.marks if m.end > found[0].start or m.start >= found[0].start):
        made.setdefault(max(m.start, found[0].start), []).append(m.words)
    return sorted(made.items())


def pace_charts(found: list[Report]) -> tuple[alt.LayerChart, alt.Chart]:
    "Predictions and latency over time; one below the other in one chart they would be wider than the page."
    lines = []
    for report in found:
        step = (report.end - report.start) / 24
        lines += [{"time": report.start + p["part"] * step, "predictions": p["rows"], "median": (p["latency_p50"] or 0) * 1e3, "99%": (p["latency_p99"] or 0) * 1e3} for p in report.system.get("pace", [])]
    data = pd.DataFrame(lines, columns=["time", "predictions", "median", "99%"])
    if len(data) > 400:
        data = data.groupby(pd.Grouper(key="time", freq=f"{max(1, round((data['time'].max() - data['time'].min()).total_seconds() / 60 / 300))}min")).agg({"predictions": "sum", "median": "median", "99%": "max"}).dropna().reset_index()
    base = alt.Chart(data).encode(x=alt.X("time:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(format="%d %b %H:%M", tickCount=8)))
    area = base.mark_area(color=BLUE, opacity=0.35, line={"color": BLUE}, interpolate="step-after").encode(y=alt.Y("predictions:Q", title="predictions"), tooltip=["time:T", "predictions:Q"])
    slow = base.transform_fold(["median", "99%"], as_=["latency", "ms"]).mark_line(interpolate="step-after").encode(
        y=alt.Y("ms:Q", title="latency, ms"), strokeDash=alt.StrokeDash("latency:N", title=None, legend=alt.Legend(orient="bottom", direction="horizontal")), color=alt.value(GREY), tooltip=["time:T", "latency:N", alt.Tooltip("ms:Q", format=".2f")]
    ).properties(height=190)  # fmt: skip
    return (area + marks_chart(found)).properties(height=170), slow


def quality_chart(found: list[Report], metric: str) -> alt.LayerChart:
    "The primary metric over the windows: estimated before labels, realised with them; what it was on the test rows."
    lines, before = [], {}
    for report in found:
        for part in report.parts:
            before = part.quality.get("reference", {}).get(metric) or before
            for how in ("estimated", "realised"):
                figure = (part.quality.get(how) or {}).get(metric) or {}
                if figure.get("value") is not None:
                    lines.append({"window": report.start, "how": how, "version": str(part.version), "labels": part.quality["labelled"], **{k: figure[k] for k in ("value", "low", "high")}})
    colours = alt.Color("how:N", title=None, scale=alt.Scale(domain=["estimated", "realised", "test rows"], range=[GREY, BLUE, ORANGE]), legend=alt.Legend(orient="top"))
    base = alt.Chart(pd.DataFrame(lines, columns=["window", "how", "version", "labels", "value", "low", "high"])).encode(x=alt.X("window:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(format="%d %b %H:%M", tickCount=8)), color=colours)
    y = alt.Y("low:Q", title=f"{metric}, 95% interval", scale=alt.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=2, opacity=0.6).encode(y=y, y2="high:Q")
    points = base.mark_line(point=alt.OverlayMarkDef(size=45)).encode(y="value:Q", tooltip=["window:T", "how:N", "version:N", "labels:Q", *(alt.Tooltip(f"{k}:Q", format=".3f") for k in ("value", "low", "high"))])
    line = alt.Chart(pd.DataFrame([{"value": before.get("value"), "how": "test rows"}])).mark_rule(strokeDash=[6, 3], strokeWidth=1.5).encode(y="value:Q", color=colours)
    return (bars + points + line + marks_chart(found)).properties(height=300)


def shape_chart(feature: dict[str, Any], where: str) -> alt.Chart:
    "Both distributions of a feature."
    shape, numeric = feature["shape"], feature["kind"] in ("number", "integer", "datetime")
    places = shape["at"] if not numeric else [f"up to {shape['at'][0]:.3g}", *(f"to {b:.3g}" for b in shape["at"][1:]), f"above {shape['at'][-1]:.3g}"]
    if feature["kind"] == "datetime":
        places = [f"{pd.Timestamp(v, unit='us'):%Y-%m-%d}" for v in [*shape["at"], shape["at"][-1]]]
    lines = [{"place": i, "value": str(p), "rows": where_, "share": s} for where_, key in (("training rows", "reference"), (where, "window")) for i, (p, s) in enumerate(zip(places, shape[key], strict=True))]
    base = alt.Chart(pd.DataFrame(lines))
    return base.mark_bar().encode(
        x=alt.X("value:N", sort=alt.SortField("place"), title=feature["name"].replace("_", " "), axis=alt.Axis(labelAngle=-40, labelLimit=120, labelOverlap=True)),
        xOffset=alt.XOffset("rows:N", sort=["training rows", where]), y=alt.Y("share:Q", title="share of the rows", axis=alt.Axis(format="%")),
        color=alt.Color("rows:N", title=None, sort=["training rows", where], scale=alt.Scale(domain=["training rows", where], range=[GREY, BLUE]), legend=alt.Legend(orient="top")),
        tooltip=["value:N", "rows:N", alt.Tooltip("share:Q", format=".2%")],
    ).properties(height=360)  # fmt: skip


def show_drift(part: PartReport) -> None:
    "Feature by feature against the training rows, the most different first."
    if not part.features:
        st.info("Nothing can be compared: " + in_markdown("; ".join(part.notes)), icon=":material/help:")
        return
    told = pd.DataFrame([
        {"feature": f["name"].replace("_", " "), "differs": f["effect"], "drifted": f["drifted"], "q": f["q"], "missing": f["missing"], "new values": ", ".join(list(f["new"])[:5]), "PSI": f["psi"], "KS": f["ks"], "chi-squared": f["chi2"],
         "Wasserstein (SD)": f["wasserstein"], "Jensen-Shannon": f["js"]} for f in part.features
    ])  # fmt: skip
    left, right = st.columns([6, 5], gap="large")
    share = st.column_config.ProgressColumn("differs", help="Share of the rows that would have to change, at least, to look as the training rows do.", format="percent", min_value=0, max_value=1)
    with left:
        config = {"differs": share, "missing": st.column_config.NumberColumn(format="percent"), "q": st.column_config.NumberColumn(format="%.2g", help="Chance of such a difference without drift, after control of false discoveries over the features.")}
        table(told, column_config=config, height=min(460, 38 + 35 * len(told)))
        if part.domain:
            st.caption(f"A classifier that tries to tell this window from the training rows reaches an AUC of {number(part.domain['auc'])} (0.5: it can't).")
    with right:
        drawn = [f for f in part.features + part.predictions if (f.get("shape") or {}).get("at")]
        picked = st.selectbox("Distribution", range(len(drawn)), format_func=lambda i: ("what the model says: " if drawn[i] in part.predictions else "") + drawn[i]["name"].replace("_", " "), key=f"feature {part.version}")
        st.altair_chart(shape_chart(drawn[picked], "this window"), width="stretch")
    if part.slices:
        said = [f"**{in_markdown(s['name'])}**: {s['share']:.1%} of the rows, {s['share_reference']:.1%} in training" for s in part.slices[:4]]
        st.markdown("Where it comes from: " + " · ".join(said))


def groups_chart(found: list[Report], feature: str, rate: str) -> alt.LayerChart:
    "A rate of each group over the windows."
    lines = [{"window": r.start, "group": g, **rates[rate]} for r in found for p in r.parts for g, rates in (p.groups.get(feature) or {"rates": {}})["rates"].items() if rates.get(rate, {}).get("value") is not None]
    base = alt.Chart(pd.DataFrame(lines, columns=["window", "group", "value", "low", "high", "n", "error"])).encode(x=alt.X("window:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(format="%d %b %H:%M", tickCount=8)), color=alt.Color("group:N", title=None))
    line = base.mark_line(point=True).encode(y=alt.Y("value:Q", title=rate, axis=alt.Axis(format="%")), tooltip=["window:T", "group:N", "n:Q", *(alt.Tooltip(f"{k}:Q", format=".1%") for k in ("value", "low", "high"))])
    return (base.mark_rule(opacity=0.35).encode(y="low:Q", y2="high:Q") + line + marks_chart(found)).properties(height=220)


def show_watched(told: dict[str, Any], part: PartReport) -> None:
    "What is judged of each group, and what isn't."
    raised = {a["what"] for a in part.alarms if a["channel"] == "groups"}
    words = lambda name, w: "alarm" if name in raised else "as before" if w["p"] is not None else w["why"]  # noqa: E731
    lines = [
        {"group": w["group"], "figure": w["figure"].replace("_", " ") + ", above the others" * w["apart"], "now": w["now"], "before": w["usual"], "windows": w["windows"], "held against": w["past"], "p": w["p"], "said": words(name, w)}
        for name, w in told.items()
    ]  # fmt: skip
    if lines:
        figures = {k: st.column_config.NumberColumn(format="%.3f") for k in ("now", "before")} | {"p": st.column_config.NumberColumn(format="%.2g")}
        counts = {"windows": "The newest, taken together.", "held against": "Windows before of the same group."}
        st.caption("Each group is held against its own windows before; above the others: its share less that of all others.")
        table(pd.DataFrame(lines).sort_values("p", na_position="last"), column_config=figures | {k: st.column_config.NumberColumn(help=v) for k, v in counts.items()})


def calibration_chart(bins: list[dict[str, Any]]) -> alt.LayerChart:
    "Said against seen."
    data = pd.DataFrame([{"said": b["said"], **b["seen"]} for b in bins])
    base = alt.Chart(data).encode(x=alt.X("said:Q", title="probability that was said", scale=alt.Scale(domain=[0, 1])))
    ideal = alt.Chart(pd.DataFrame({"x": [0, 1]})).mark_line(color=GREY, strokeDash=[5, 3]).encode(x="x:Q", y="x:Q")
    return (ideal + base.mark_rule(color=BLUE).encode(y=alt.Y("low:Q", title="share that was seen"), y2="high:Q") + base.mark_point(color=BLUE, filled=True, size=60).encode(y="value:Q", tooltip=["said:Q", "value:Q", "n:Q"])).properties(height=240)


st.title("Monitoring")
badge(version)
if not has_log(here):
    if not any(v.phase in ("production", "staging") for v in st.session_state["versions"]):
        st.info(f"Nothing was served yet, and no version of **{in_markdown(name)}** may be: none is in staging or in production. The page Overview says why.", icon=":material/info:")
        st.stop()
    st.info("Nothing was served yet. This serves the model and writes down what it is asked and what it answers:", icon=":material/info:")
    approved = any(v.phase == "production" for v in st.session_state["versions"])
    st.code(command(f"serve {name}{'' if approved else '@staging'}"), language="bash")
    st.stop()
rules = load_charter(here.charter).monitoring
found = kept(str(here.home), name)
st.caption(f"Windows of one {rules.window}; at most {rules.false_alarms:.1%} of undisturbed windows may raise an alarm; a window is judged from {rules.min_rows:,} predictions on, its quality from {rules.min_labels:,} labels on.")
left, right = st.columns([3, 1], vertical_alignment="bottom")
live = right.toggle("The running window", value=not found, help="Looks at the window that isn't over yet; it is looked at anew each minute.")
minute = f"{datetime.now(UTC):%H:%M}"
now = running(here, name, minute) if live else None
if said := waits(here, name, minute):
    then = f"What is shown of it is preliminary; `{command('monitor')}` judges them then." if now else "To look before: switch on *The running window*."
    st.caption(f":material/hourglass_top: {in_markdown(said)}. {then}")
if not found and now is None:
    st.info(f"No {rules.window} with predictions of **{in_markdown(name)}** was looked at yet. This looks at each one that is over:", icon=":material/info:")
    st.code(command("monitor"), language="bash")
    st.stop()
choices = ([now] if now else []) + found[::-1]
usual = next((i for i, r in enumerate(choices) if r is now or any(p.judged for p in r.parts)), 0)
place = left.selectbox("Window", range(len(choices)), index=usual, format_func=lambda i: f"{at(choices[i])}{' · preliminary' if choices[i] is now else ''} · {choices[i].rows:,} predictions" + (f" · {len(choices[i].every_alarm)} alarm{'s' * (len(choices[i].every_alarm) > 1)}" if choices[i].every_alarm else ""))
report = choices[place]
part = max(report.parts, key=lambda p: p.rows, default=None)
if len(report.parts) > 1:
    number_ = st.segmented_control("Version that answered", [p.version for p in report.parts], default=part.version, required=True)
    part = report.part(number_)
headline(report, part)
if part:
    st.caption(f"Estimated: {in_markdown(part.quality.get('metric', ''))} by the model's own probabilities, before labels come. Realised: by the {part.quality.get('labelled', 0):,} labels that are known.")
for note in [*report.notes, *(part.notes if part else [])]:
    st.caption(f":material/info: {in_markdown(note)}")

if report.marks:
    shown_marks = "\n".join(f"- {in_markdown(m.words)}" for m in report.marks)
    st.markdown(f":material/event: At the time, in this window or in the one before:\n{shown_marks}")

st.subheader("Alerts")
show_alerts()
if report.every_alarm and report is not now:
    with st.expander(f"Alarms of this window: {', '.join(dict.fromkeys(WHAT[a['channel']] for a in report.every_alarm))}"):
        st.markdown("\n".join(f"- **{WHAT[a['channel']]}**: {in_markdown(a['said'])} (p = {a['p']:.2g}, at most {a['threshold']:.2g} asked)" for a in report.every_alarm))

history = found[-60:] + ([now] if now else [])
st.subheader("Traffic")
for chart in pace_charts(history[-24:]):
    st.altair_chart(chart, width="stretch")
if happened := [f"**{i}** {in_markdown('; '.join(said))}" for i, (_, said) in enumerate(marks_by_time(history[-24:]), 1)]:
    more = f" · and {len(happened) - 12} before them" if len(happened) > 12 else ""
    st.caption(":material/event: " + " · ".join(happened[-12:]) + more)
machine = {"errors": "{:,.0f} requests failed", "cpu": "{:.1%} of a processor", "memory": "{:,.0f} MB of memory", "received": "{:,.1f} MB in", "sent": "{:,.1f} MB out"}
shown = [text.format(report.system[k] / (1e6 if "MB" in text else 1)) for k, text in machine.items() if report.system.get(k)]
if shown:
    st.caption(" · ".join(shown))
if part:
    st.subheader("Drift")
    show_drift(part)
    metric = part.quality.get("metric", "")
    st.subheader("Quality")
    chart, facts = st.columns([5, 3], gap="large")
    with chart:
        st.altair_chart(quality_chart(history, metric), width="stretch")
    with facts:
        if part.quality.get("calibration"):
            st.altair_chart(calibration_chart(part.quality["calibration"]["bins"]), width="stretch")
        else:
            st.caption(f"{part.quality.get('labelled', 0):,} labels are known for this window, {rules.min_labels:,} are needed. They are given to the service with the prediction's id: POST /v1/feedback.")
    if part.groups:
        st.subheader("Groups")
        tabs = st.tabs([in_markdown(g.replace("_", " ")) for g in part.groups])
        for tab, group in zip(tabs, part.groups, strict=True):
            with tab:
                rates = list(dict.fromkeys(r for known in part.groups[group]["rates"].values() for r in known))
                rate = st.segmented_control("Figure", rates, default=rates[0], format_func=in_markdown, required=True, key=f"rate of {group}")
                st.altair_chart(groups_chart(history, group, rate), width="stretch")
                between(part.groups[group].get("gaps") or {})
                show_watched(part.groups[group].get("watched") or {}, part)
