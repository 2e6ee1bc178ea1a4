"""How the model treats groups of people, and whether that is within the rules of the charter."""

import re

import altair as alt
import pandas as pd
import streamlit as st
from common import BLUE, GREY, badge, between, chosen, interval, message, number, table

from mlops_nb.base.text import in_markdown
from mlops_nb.registry.evidence import Span

here, version, evidence = chosen()
audit, problem = evidence.fairness_audit, evidence.problem
MEASURES = {
    "selection_rate": "chosen: share of the group that gets the positive decision",
    "true_positive_rate": "found: of those who are positive in truth, the share that is decided so",
    "false_positive_rate": "wrongly chosen: of those who are not, the share that is decided positive",
    "accuracy": "right: share of the group that is decided correctly",
    "mean_error": "leaning: what is said minus what is true, on average; above 0 too high for the group, below 0 too low",
    "mean_absolute_error": "off: how far what is said is from what is true, on average",
}


def verdict(rule: dict) -> tuple[str, str]:
    "Icon and word for a rule: a gate stops a version, the others warn."
    if rule["passed"] is None:
        return ":gray[:material/help:]", "cannot say"
    if rule["passed"]:
        return ":green[:material/check_circle:]", "passed"
    return (":red[:material/cancel:]", "failed") if rule["gate"] else (":orange[:material/warning:]", "warning")


def show_rule(rule: dict) -> None:
    "One rule of the charter in words."
    icon, word = verdict(rule)
    asked = f"asked: {rule['sense'].replace('_', ' ')} {number(rule['bound'], 2)}" if "sense" in rule else f"bound {number(rule['bound'], 2)}"
    said = in_markdown(message(rule)) or f"{number(rule['value'])}, {asked}"
    st.markdown(f"{icon} **{in_markdown(rule['metric'])} by {in_markdown(rule['by'].replace('_', ' '))}** · {word}{' · gate' if rule['gate'] else ''}  \n{said[0].upper() + said[1:]}")
    if rule.get("reason"):
        st.caption(in_markdown(rule["reason"]))


def in_order(item: tuple[str, dict]) -> tuple:
    "Bands by their numbers, names by the alphabet, unknown last."
    group, number_in = item[0], re.search(r"-?\d+(\.\d+)?", item[0])
    return group == "unknown", not group.startswith("under "), float(number_in[0]) if number_in else 0.0, group


def measures_of(by: dict) -> list[str]:
    "What is measured of the groups: those that are known here in their order, then those of a project's own task."
    found = dict.fromkeys(m for part in by.values() for group in part["groups"].values() for m, value in group.items() if isinstance(value, dict))
    return [*(m for m in MEASURES if m in found), *(m for m in found if m not in MEASURES)]


def figures(groups: dict, measures: list[str]) -> pd.DataFrame:
    "One line a group, each figure with its interval."
    def cell(found: dict | None) -> str:
        span = Span.model_validate(found or {})
        shrunk = (found or {}).get("shrunk")
        beside = "; ".join(filter(None, [interval(span), "" if shrunk is None else f"shrunk {number(shrunk)}"]))
        return (number(span.value) + (f"  ({beside})" if beside else "")).replace("-", "−")  # a hyphen begins a formula

    return pd.DataFrame([{"group": g, "rows": f["n"], **{m: cell(f[m]) for m in measures if m in f}} for g, f in groups.items()])


def groups_chart(groups: dict, measure: str) -> alt.LayerChart:
    "One figure for every group, with 95% intervals; pale where they stand on few people."
    rows = [{"group": f"{g} (n = {f['n']:,})", "few": measure in f["small"], **f[measure]} for g, f in groups.items() if (f.get(measure) or {}).get("value") is not None]
    base = alt.Chart(pd.DataFrame(rows, columns=["group", "few", "value", "low", "high"])).encode(
        y=alt.Y("group:N", sort=[r["group"] for r in rows], title=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)), color=alt.condition("datum.few", alt.value(GREY), alt.value(BLUE))
    )
    scale = alt.Scale(domain=[0, 1]) if problem.kind.has_classes else alt.Scale(zero=False)
    lines = base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", title=f"{measure}, 95% interval", scale=scale, axis=alt.Axis(tickCount=6)), x2="high:Q")
    tips = ["group", *(alt.Tooltip(f"{k}:Q", format=".3f") for k in ("value", "low", "high"))]
    return lines + base.mark_point(filled=True, size=90).encode(x="value:Q", tooltip=tips)


st.title("Fairness")
badge(version)
if not audit.get("by"):
    st.info(in_markdown(problem.kind.group_note) if "fairness" in problem.kind.omits else "The charter names no sensitive features, so nothing was audited. Name them under `sensitive` and run again: `mlops-nb run`", icon=":material/info:")
    st.stop()

if audit.get("note"):
    st.info(in_markdown(audit["note"]), icon=":material/info:")
st.subheader("The charter's rules")
if problem.policy:
    st.markdown(f"**Policy.** {in_markdown(problem.policy)}")
failed = [r for r in audit["rules"] if r["gate"] and r["passed"] is False]
warned = [r for r in audit["rules"] if not r["gate"] and r["passed"] is False]
if failed:
    st.error(f"{len(failed)} gate{'s' * (len(failed) > 1)} failed: this version can't be promoted.", icon=":material/block:")
elif warned:
    st.warning(f"No gate failed; {len(warned)} warning{'s' * (len(warned) > 1)} to know about.", icon=":material/warning:")
elif any(r["passed"] is None and r["gate"] for r in audit["rules"]):
    st.info("No gate failed, but the test rows can't decide every gate: a person does, and no program promotes this version.", icon=":material/help:")
elif any(r["passed"] is None for r in audit["rules"]):
    st.info("No rule is broken, but the test rows can't decide every rule.", icon=":material/help:")
elif audit["rules"]:
    st.success("Every rule is met.", icon=":material/check_circle:")
for one in sorted(audit["rules"], key=lambda r: (r["passed"] is not False, not r["gate"])):
    show_rule(one)
if not audit["rules"]:
    st.caption("The charter has no fairness rules; the figures below are for reading.")

st.subheader("Group by group")
measures = measures_of(audit["by"])
measure = st.segmented_control("Figure", measures, default=measures[0], format_func=in_markdown, required=True, key="measure")
small = f"figures that stand on fewer than {audit['min_group']} people are grey: read them with care; shrunk is the figure nearer to everybody's, the more the fewer people it stands on."
st.caption(f"{MEASURES[measure].capitalize() if measure in MEASURES else in_markdown(measure)}. On the test rows; {small}")
names = sorted(audit["by"], key=[s.name for s in problem.sensitive].index)
for tab, name in zip(st.tabs([in_markdown(n.replace("_", " ")) for n in names]), names, strict=True):
    part = {**audit["by"][name], "groups": dict(sorted(audit["by"][name]["groups"].items(), key=in_order))}
    with tab:
        st.altair_chart(groups_chart(part["groups"], measure).properties(height=40 * len(part["groups"]) + 70), width="stretch")
        table(figures(part["groups"], measures))
        between(part["metrics"])

if data := audit.get("data"):
    st.subheader("The rows that were learnt from")
    for name, rows in data.items():
        st.markdown(f"**{in_markdown(name.replace('_', ' '))}**: " + (in_markdown(" ".join(rows["said"])) or "nothing uneven was found."))
        if there := rows.get("representation"):
            shares = [{"group": in_markdown(g), "rows": one["n"], "share": f"{one['share']:.1%}  ({one['low']:.1%} to {one['high']:.1%})", "in the population": f"{one['asked']:.1%}"} for g, one in there["groups"].items()]
            st.table(pd.DataFrame(shares), border="horizontal")
