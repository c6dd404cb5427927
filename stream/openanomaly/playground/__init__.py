"""A page to try pipelines on data before they run: a thin face of core, in Streamlit."""
