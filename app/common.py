"""What the pages share: which version is looked at, its evidence, and a few ways of showing things.

Streamlit reads Markdown in titles, labels, tabs, metrics, messages and table cells: what is not our own text goes through in_markdown."""

from typing import Any

import pandas as pd
import streamlit as st

from mlops_nb.base.charter import load_charter
from mlops_nb.base.errors import MlopsError
from mlops_nb.cli.store import sample_word
from mlops_nb.registry.evidence import Evidence, Span
from mlops_nb.registry.files import read_evidence
from mlops_nb.registry.judged import judged_by, judged_line
from mlops_nb.registry.versions import Version, versions
from mlops_nb.base.settings import Settings
from mlops_nb.model.extensions import open_project
from mlops_nb.base.text import in_csv, in_markdown, in_terminal
from mlops_nb.serving.prediction import Predictor

BLUE, GREY, ORANGE = "#2f5d8a", "#8a94a0", "#c77700"
PHASES: dict[str, tuple[Any, str, str]] = {  # colour, icon, words
    "production": ("green", ":material/check_circle:", "in production"),
    "staging": ("orange", ":material/hourglass_top:", "staging: not yet approved"),
    "rejected": ("red", ":material/block:", "rejected: a gate failed"),
    "archived": ("gray", ":material/inventory_2:", "archived"),
    "development": ("blue", ":material/science:", "development"),
}


def settings() -> Settings:
    "The project's settings; an error ends the page in one sentence."
    try:
        return open_project()
    except MlopsError as error:
        st.error(in_markdown(error))
        st.stop()


@st.cache_data(ttl=5, show_spinner=False)
def _versions(uri: str) -> list[Version]:
    return versions(uri)


@st.cache_data(show_spinner=False, max_entries=8)
def _evidence(uri: str, _version: Version, digest: str) -> Evidence:
    return read_evidence(uri, _version)


@st.cache_resource(show_spinner="Loading and checking the model ...", max_entries=4)
def _predictor(_settings: Settings, _version: Version, key: tuple[str, ...]) -> Predictor:
    return Predictor.load(_settings, _version.name, _version)


@st.cache_data(show_spinner=False, max_entries=8)
def _judged(uri: str, name: str, digest: str, newest: tuple[int, ...]) -> int:
    return len(judged_by(uri, name, digest))


def judged(uri: str, version: Version, evidence: Evidence) -> str:
    "How often the version's test rows have judged versions, as a sentence; empty where nothing is known."
    numbers = tuple(v.version for v in st.session_state["versions"])
    said = judged_line(_judged(uri, version.name, evidence.digests.get("test", ""), numbers), version.name)
    return in_markdown(f"{said[:1].upper()}{said[1:]}.") if said else ""


def best(found: list[Version]) -> Version:
    "What is in production, else the newest in staging, else the newest."
    return next((v for phase in ("production", "staging") for v in found if v.phase == phase), found[0])


def choose() -> None:
    "In the sidebar: which model, and which of its versions."
    here = settings()
    try:
        found, active = _versions(here.registry_uri), load_charter(here.charter).name
    except MlopsError as error:
        st.error(in_markdown(error))
        st.stop()
    names = sorted({v.name for v in found} | {active})
    name = st.selectbox("Model", names, index=names.index(active), key="model") if len(names) > 1 else active
    mine = [v for v in found if v.name == name]
    st.session_state["versions"], st.session_state["name"], st.session_state["version"] = mine, name, None
    if mine:
        labels = {v.version: f"{v.version} · {v.phase}" for v in mine}  # part of the key: when the registry changes, the best version is shown again
        number = st.selectbox("Version", list(labels), index=mine.index(best(mine)), format_func=lambda n: labels.get(n, str(n)), key=f"version of {name}: {labels}")
        st.session_state["version"] = next(v for v in mine if v.version == number)


def chosen() -> tuple[Settings, Version, Evidence]:
    "Settings, version and evidence of what is looked at; says what to do when there is nothing yet."
    here = settings()
    if "version" not in st.session_state:
        choose()
    version = st.session_state["version"]
    if version is None:
        st.title("No model yet")
        st.write(f"Nothing is registered under **{in_markdown(st.session_state['name'])}**. This makes the first version, with everything these pages show:")
        st.code("mlops-nb run", language="bash")
        st.caption("For a first look in seconds, on few rows and in a store of its own: `mlops-nb run --sample 2000`")
        st.stop()
    try:
        return here, version, _evidence(here.registry_uri, version, version.evidence_digest)
    except MlopsError as error:
        st.error(in_markdown(error))
        st.stop()


def predictor(here: Settings, version: Version) -> Predictor:
    "The chosen version, ready to answer; kept as long as it is the same one in the same phase."
    try:
        return _predictor(here, version, (here.registry_uri, version.name, str(version.version), version.model_digest, version.phase))
    except MlopsError as error:
        st.error(in_markdown(error))
        st.stop()


def command(words: str) -> str:
    "A command that looks into the store that the app shows."
    return f"mlops-nb {words}{sample_word(settings())}"


def badge(version: Version) -> None:
    "Version and phase, never to be overlooked."
    colour, icon, words = PHASES[version.phase]
    st.markdown(f":gray-badge[:material/tag: {in_markdown(version.name)} version {version.version}] :{colour}-badge[{icon} {words}]")


def table(frame: pd.DataFrame, **how: Any) -> None:
    "A table of text and figures; as it can be downloaded as CSV, text in it is no formula."
    st.dataframe(frame.map(lambda cell: in_csv(in_terminal(cell)) if isinstance(cell, str) else cell), hide_index=True, width="stretch", **how)


def between(gaps: dict[str, dict[str, Any]]) -> None:
    "Differences and ratios between groups: as seen, with an interval over all pairs, and what of it is chance."
    rows = {}
    for name, gap in gaps.items():
        span = Span.model_validate({k: gap.get(k) for k in ("value", "low", "high")})
        ends = " and ".join(in_markdown(gap[k]) for k in ("lowest", "highest") if gap.get(k))
        rest = [number(gap[k]) if gap.get(k) is not None else "-" for k in ("debiased", "chance")]
        rows[in_markdown(name)] = [number(span.value), interval(span) or "-", *rest, ends]
    if rows:
        st.table(pd.DataFrame.from_dict(rows, orient="index", columns=["seen", "95% interval", "without chance", "of equal groups", "between"]), border="horizontal")
        st.caption("Differences: 0 is equal treatment; ratios: 1 is. The largest of several gaps is there by chance too: the interval holds for all pairs of groups at once, "
                   "*without chance* is the gap less what chance adds, *of equal groups* what groups of these sizes would show that are treated alike.")


def number(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval(span: Span) -> str:
    "The 95% interval of a figure in words."
    return "" if span.low is None else f"{number(span.low)} to {number(span.high)}"


def message(rule: dict) -> str:
    "What was found about one of the charter's rules, without the rule's name in front."
    return (rule.get("message") or "").removeprefix(f"{rule['metric']} by {rule.get('by')}: ")
