"""Smaller and larger numbers as numpy has them, and the normal score of levels.py."""

from typing import Any

import numpy as np

from openanomaly.core.kernels import jit
from openanomaly.core.scoring.levels import CLIP, LOWEST, OUTER, STEP, TINY

_STEP = tuple(np.float32(s) for s in STEP.ravel())
_ZERO, _ONE = np.float32(0), np.float32(1)

# np.minimum, np.maximum and np.fmax where `b` is a number: one instruction each.


@jit(error_model="numpy")
def least(a: Any, b: Any) -> Any:
    return b if b < a else a


@jit(error_model="numpy")
def most(a: Any, b: Any) -> Any:
    return b if b > a else a


@jit(error_model="numpy")
def fmost(a: Any, b: Any) -> Any:
    return a if a >= b else b


@jit(error_model="numpy")
def fmost_of_any(a: Any, b: Any) -> Any:
    """np.fmax: NaN where both are."""
    return a if a >= b or b != b else b


@jit(error_model="numpy")
def _piece(x: Any, low: Any, high: Any, step: Any) -> Any:
    part = (x - low) / most(high - low, TINY)
    part = least(most(part, _ZERO), _ONE)
    return part * step


@jit(error_model="numpy")
def normal_score(x: Any, q0: Any, q1: Any, q2: Any, q3: Any, q4: Any, floor: Any) -> Any:
    z = _piece(x, q0, q1, _STEP[0]) + _piece(x, q1, q2, _STEP[1])
    z += _piece(x, q2, q3, _STEP[2])
    z += _piece(x, q3, q4, _STEP[3])
    z += LOWEST
    z += most(x - q4, _ZERO) / most(abs(q4 - q2) * OUTER, floor)
    z += least(x - q0, _ZERO) / most(abs(q0 - q2) * OUTER, floor)
    reach = least(abs(x - q2) / floor, CLIP)
    return most(least(z, reach), -reach)
