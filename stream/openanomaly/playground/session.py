"""The page that is drawn now."""

from streamlit.runtime.scriptrunner import get_script_run_ctx


def page() -> str:
    """What tells this page from others."""
    context = get_script_run_ctx()
    return context.session_id if context is not None else ""
