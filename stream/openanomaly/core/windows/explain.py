"""What a partition knows of a series, for people."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.series import decode_labels
from openanomaly.core.windows.block import Block
from openanomaly.core.windows.catalogue import FREE
from openanomaly.core.windows.counters import RATE
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.rows import NONE

_RECENT = 60
_ROWS_AT_ONCE = 256


def explain(partition: Partition, selector: Selector, limit: int) -> Iterator[list[dict[str, Any]]]:
    """At most `limit` series that `selector` chooses: where they live, their recent steps, their forecast.

    A few milliseconds of looking at a time, often for nothing: a million series take 9 s. Inputs may be
    taken between; a row that has lost its series by then is passed over.
    """
    for block in partition.blocks.values():
        live = block.catalogue.live_rows()
        for start in range(0, live.size, _ROWS_AT_ONCE):
            found: list[dict[str, Any]] = []
            for row in live[start : start + _ROWS_AT_ONCE].tolist():
                if len(found) < limit and (written := block.catalogue.labels[row]):
                    labels = decode_labels(written)
                    if selector.matches(labels):
                        found.append(
                            {"labels": dict(labels), "partition": partition.number, **_row(block, row)}
                        )
            limit -= len(found)
            yield found
            if limit <= 0:
                return


def count(partition: Partition, selector: Selector) -> Iterator[int]:
    """How many series `selector` chooses, bit by bit: the sum of all. One in several windows is one.

    As `explain`, a little at a time.
    """
    counted: set[bytes] = set()
    several = len(partition.blocks) > 1
    for block in partition.blocks.values():
        catalogue = block.catalogue
        live = catalogue.live_rows()
        for start in range(0, live.size, _ROWS_AT_ONCE):
            found = 0
            for row in live[start : start + _ROWS_AT_ONCE].tolist():
                written = catalogue.labels[row]
                if not written or not selector.matches(decode_labels(written)):
                    continue
                if several:
                    name = catalogue.ids[row].tobytes()
                    if name in counted:
                        continue
                    counted.add(name)
                found += 1
            yield found


def _row(block: Block, row: int) -> dict[str, Any]:
    catalogue, state = block.catalogue, block.state
    at = np.array([row])
    step_ms = block.spec.step_ms
    closed = state["closed"][at]
    out: dict[str, Any] = {
        "window": str(block.spec),
        "row": row,
        "generation": int(catalogue.generation[row]),
        "born_ms": int(catalogue.born[row]) * step_ms if catalogue.born[row] != FREE else None,
        "is_rate": bool(catalogue.kind[row] & RATE),
        "interval_s": float(state["interval_ms"][row]) / 1000,
        "last_sample_ms": _time(int(state["last_ms"][row])),
        "pipelines": [s.pipeline.name for s in block.scorings if s.members[row]],
    }
    if closed[0] != NONE:
        recent = block.ring.windows(at, closed, catalogue.born[at], min(_RECENT, block.spec.context))[0]
        out["closed_through_ms"] = int(closed[0] + 1) * step_ms
        out["recent"] = [_number(v) for v in recent.astype(np.float64) + catalogue.base[row]]
        out["forecasts"] = [
            {
                "model": f.model,
                "next": [_number(v) for v in block.bands[f.uid].at(at, closed + 1, catalogue.base[at])[0]],
            }
            for f in block.plan.forecasters
        ]
    return out


def _time(value: int) -> int | None:
    return None if value == NONE else value


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
