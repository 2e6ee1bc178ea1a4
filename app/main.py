"""The app for people who don't code: `make app`, or `streamlit run app/main.py`."""

import sys
from pathlib import Path

import streamlit as st

FOLDER = Path(__file__).parent
if str(FOLDER) not in sys.path:  # the pages share common.py
    sys.path.insert(0, str(FOLDER))
import common  # noqa: E402

# An icon of our own: Streamlit would fetch an emoji or a Material icon for the tab from the internet.
st.set_page_config(page_title="mlops_nb", page_icon=str(FOLDER / "icon.png"), layout="wide")
page = st.navigation(
    [
        st.Page("views/overview.py", title="Overview", icon=":material/insights:", default=True),
        st.Page("views/data.py", title="Data", icon=":material/table_view:"),
        st.Page("views/predictions.py", title="Predictions", icon=":material/person_search:"),
        st.Page("views/fairness.py", title="Fairness", icon=":material/balance:"),
        st.Page("views/monitoring.py", title="Monitoring", icon=":material/monitor_heart:"),
    ]
)
with st.sidebar:
    common.choose()
page.run()
