"""Figures for people."""

from typing import Any


def shown_figure(value: Any) -> str:
    """As short as it can be; `-` for what is not known."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else f"{value:,}"
