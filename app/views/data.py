"""The rows that a run read, as people want to see them first: types, gaps, shapes, examples, and what stands out."""

from typing import Any

import streamlit as st
from common import command, settings

from mlops_nb.base.artifacts import Store
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.text import in_markdown
from mlops_nb.cli.earlier import read_summary, summaries
from mlops_nb.pipeline.cache import last_results
from mlops_nb.pipeline.page import clean_html
from mlops_nb.registry.versions import Version

here, name = settings(), st.session_state["name"]
st.title("Data")


def digest_in(stages: dict[str, Any]) -> str:
    """The page that one of a run's stages has made; empty where none did."""
    return next((stage["outputs"]["data_page"] for stage in stages.values() if "data_page" in stage.get("outputs", {})), "")


def of_version(version: Version | None) -> tuple[dict[str, Any], str]:
    """The run that made a version, and its page; empty where its record or the page is gone."""
    known = {file.parent.name: file for file in here.reports.glob("*/summary.json")}
    if version is None or version.pipeline_run not in known:
        return {}, ""
    run = read_summary(known[version.pipeline_run])
    digest = digest_in(run["stages"])
    return run, digest if Store(here.home).has(digest) else ""


def newest() -> tuple[dict[str, Any], str]:
    """The page of this charter's newest run that has one, and the run that made it as far as its record is there."""
    digest = digest_in(last_results(here, name))
    return next((run for run in summaries(here) if digest and digest_in(run["stages"]) == digest), {}), digest


def said_of(run: dict[str, Any]) -> str:
    """A run's id and when it began."""
    at = str(run.get("started", ""))[:16].replace("T", " ")
    return f"run **{in_markdown(run['run'])}**" + f", {in_markdown(at)} UTC" * bool(at) if run else "a run without a record"


try:
    version = st.session_state["version"]
    run, digest = of_version(version)
    made = bool(digest)
    if not made:
        run, digest = newest()
    page = Store(here.home).get(digest).decode() if digest else ""
except MlopsError as error:
    st.error(in_markdown(error))
    st.stop()
if not page:
    st.write(f"No run of **{in_markdown(name)}** has looked at its rows yet. This does, and stops there:")
    st.code(command("run validate"), language="bash")
    st.stop()
if version and not made:
    st.info(f"The page of the rows that version {version.version} was made from is not here any more. This is the newest one: {said_of(run)}.")
else:
    st.caption(f"Of {said_of(run)}" + (f", which made version {version.version}." if version else "."))
st.caption("The rows as they were read, those that validation puts aside included.")
st.html(clean_html(page))
