"""The rows that a run read, as people want to see them first: types, gaps, shapes, examples, and what stands out."""

import streamlit as st
from common import command, settings

from mlops_nb.base.artifacts import Store
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.text import in_markdown
from mlops_nb.pipeline.cache import last_results
from mlops_nb.pipeline.page import clean_html

here, name = settings(), st.session_state["name"]
st.title("Data")


def newest() -> str:
    """The page that the newest run of this charter wrote; empty where there is none yet."""
    stages = last_results(here, name).values()
    digest = next((stage["outputs"]["data_page"] for stage in stages if "data_page" in stage["outputs"]), "")
    return Store(here.home).get(digest).decode() if digest else ""


try:
    page = newest()
except MlopsError as error:
    st.error(in_markdown(error))
    st.stop()
if not page:
    st.write(f"No run of **{in_markdown(name)}** has looked at its rows yet. This does, and stops there:")
    st.code(command("run validate"), language="bash")
    st.stop()
st.caption("The rows as they were read, those that validation puts aside included.")
st.html(clean_html(page))
