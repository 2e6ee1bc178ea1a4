"""The rows that a run read, as people want to see them first: types, gaps, shapes, examples, and what stands out."""

import json

import streamlit as st
from common import command, settings

from mlops_nb.base.artifacts import Store
from mlops_nb.base.errors import MlopsError
from mlops_nb.base.text import in_markdown
from mlops_nb.pipeline.page import clean_html
from mlops_nb.pipeline.stage import view_file

here, name = settings(), st.session_state["name"]
st.title("Data")


def newest() -> str:
    """The page that the newest run of this charter wrote; empty where there is none yet."""
    file = view_file(here.home, name)
    stages = json.loads(file.read_text(encoding="utf-8"))["stages"] if file.is_file() else {}
    digest = next((stage["outputs"]["data_page"] for stage in stages.values() if "data_page" in stage["outputs"]), "")
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
st.caption("The rows as they were read, those that validation puts aside included. Raw values are shown: who sees this page sees the data.")
st.html(clean_html(page))
