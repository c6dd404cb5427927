"""Forecast and value -> score: what is too extreme for a series' own memory.

`scorer.Scorer` is the door. One call judges one step of many rows; state is a structure of arrays.
"""

from openanomaly.core.scoring.levels import LEVELS

__all__ = ["LEVELS"]
