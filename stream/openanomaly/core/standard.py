"""Contexts in the units that a model is used to."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def standardise(context: F32, seen: NDArray[np.bool_]) -> tuple[F32, F64, F64]:
    """(b, T) with mean 0 and deviation 1 over what is known, and the (b,) means and deviations.

    In float64, for the square of 3e38 is none in float32, nor is that of 1e-30. A constant has
    deviation 0, so that any forecast of it is itself; nothing known counts as 0 with deviation 1.
    """
    x = np.where(seen, context, 0).astype(np.float64)
    n = np.maximum(seen.sum(axis=1), 1)
    location = x.sum(axis=1) / n
    lowest = np.where(seen, context, np.inf).min(axis=1)
    highest = np.where(seen, context, -np.inf).max(axis=1)
    constant = lowest == highest
    location = np.where(constant, lowest, location)
    x = np.where(seen, x - location[:, None], 0)
    scale = np.sqrt(np.square(x).sum(axis=1) / n)
    known = scale > 0
    z = x / np.where(known, scale, 1)[:, None]
    z[~seen] = np.nan
    # In rows: torch warns of, and copies, what comes in another order.
    return z.astype(np.float32, order="C"), location, np.where(known | constant, scale, 1.0)
