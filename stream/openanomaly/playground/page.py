"""The page. Streamlit runs this file for every page, and again for whatever is done there."""

import streamlit as st

from openanomaly.playground import form, results, sources
from openanomaly.playground.workshop import ours

shop = ours()
st.set_page_config(page_title="OpenAnomaly playground", layout="wide")
with st.sidebar:
    st.title("OpenAnomaly playground")
    sources.begin(shop)
    st.header("1. Recorded", divider="gray")
    source = sources.choose(shop)
    st.header("2. Pipeline", divider="gray")
    sources.choose_pipeline(shop)
    pipeline, is_old = form.show(shop.models)
    is_asked = st.button(
        "Try it", type="primary", disabled=pipeline is None or source is None, width="stretch"
    )
if is_asked and pipeline is not None and source is not None:
    results.attempt(shop, source, pipeline)
if is_old:
    st.rerun()
results.show(shop, form.shown())
