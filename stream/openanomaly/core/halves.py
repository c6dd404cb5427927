"""float16 in compiled loops, which have no such type: by its bits and without branches."""

from typing import Any

import numpy as np

from openanomaly.core import kernels
from openanomaly.core.kernels import jit

_U13, _U16 = np.uint32(13), np.uint32(16)
_LEAST = np.float32(2.0**-24)
_REBIAS = np.uint32(112 << 23)
"""The exponents of float16 and float32 differ by 112."""


@jit(error_model="numpy", inline="always")
def of_half(bits: Any) -> Any:
    """The float32 of a float16's bits."""
    rest = np.uint32(bits & np.uint32(0x7FFF))
    denormal = kernels.bits_of(np.float32(np.int32(rest)) * _LEAST)
    size = denormal if rest < np.uint32(0x400) else np.uint32((rest << _U13) + _REBIAS)
    size = np.uint32(size + _REBIAS) if rest >= np.uint32(0x7C00) else size  # infinite or NaN
    return kernels.of_bits(np.uint32(size | np.uint32((bits & np.uint32(0x8000)) << _U16)))


@jit(error_model="numpy", inline="always")
def to_half(x: Any) -> Any:
    """The bits of a float32 below 2^16 as a float16's, rounded to the nearest and then to even."""
    bits = kernels.bits_of(x)
    size = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = np.uint32((size >> _U13) & np.uint32(1))
    usual = np.uint32((np.uint32(size + np.uint32(0xFFF) + odd) >> _U13) - np.uint32(112 << 10))
    # Below the smallest normal one: let an addition round to its steps of 2^-24.
    small = np.uint32(
        kernels.bits_of(np.float32(kernels.of_bits(size) + np.float32(0.5))) - np.uint32(0x3F000000)
    )
    half = small if size < np.uint32(113 << 23) else usual
    half = np.uint32(0x7E00) if size >= np.uint32(0x7F800000) else half
    return np.uint16(half | np.uint32((bits >> _U16) & np.uint32(0x8000)))
