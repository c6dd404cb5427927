"""A recording from a time-series database: what a pipeline would have been pushed, or would have pulled."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from openanomaly.adapters.recordings.naming import NAMELESS
from openanomaly.core.ports.tsdb_client import Samples, TSDBClient
from openanomaly.core.recording import Limit, Recording, RecordingBuilder
from openanomaly.core.series import Labels, decode_labels
from openanomaly.errors import AnswerTooLargeError, ConfigError

_RAW_MS = 6 * 3600_000
"""Of stored samples that are asked for at once; less where that is too much."""
Tell = Callable[[str], None]
Look = Callable[[], None]
"""Is called between pieces; what it raises ends the reading."""


def query(
    client: TSDBClient,
    text: str,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    tell: Tell,
    limit: Limit | None = None,
) -> Recording:
    """The steps of a query whose ends are in (start, end].

    A value at t tells of the step that ends at t, and so is a sample of its last moment: as in pull mode.
    """
    first = start_ms // step_ms * step_ms + step_ms
    samples = client.range_query(text, first, end_ms // step_ms * step_ms, step_ms)
    return _recording([samples], -1, client, tell, limit)


def stored(
    client: TSDBClient,
    selector: str,
    start_ms: int,
    end_ms: int,
    tell: Tell,
    limit: Limit | None = None,
    look: Look | None = None,
) -> Recording:
    """The stored samples of the selected series in [start, end): as a stream would have got them."""
    return _recording(_pieces(client, selector, start_ms, end_ms, look), 0, client, tell, limit)


def _pieces(
    client: TSDBClient, selector: str, start_ms: int, end_ms: int, look: Look | None
) -> Iterator[Samples]:
    span_ms = _RAW_MS
    while start_ms < end_ms:
        if look is not None:
            look()
        stop_ms = min(start_ms + span_ms, end_ms)
        try:
            yield client.raw_query(selector, start_ms, stop_ms - 1)
        except AnswerTooLargeError:
            if span_ms <= 60_000:
                raise
            span_ms //= 2
            continue
        start_ms = stop_ms


def _recording(
    answers: Iterable[Samples], shift_ms: int, client: TSDBClient, tell: Tell, limit: Limit | None
) -> Recording:
    builder = RecordingBuilder(limit)
    for samples in answers:
        for warning in samples.warnings:
            tell(f"{client.shown} says: {warning}")
        edges = np.searchsorted(samples.row, np.arange(len(samples.blocks) + 1))
        for i, block in enumerate(samples.blocks):
            at = slice(int(edges[i]), int(edges[i + 1]))
            if at.stop > at.start:
                builder.add(_labels(block), samples.timestamp_ms[at] + shift_ms, samples.value[at])
    recording = builder.build()
    if not recording.series:
        raise ConfigError(f"{client.shown} has no samples of that time")
    return recording


def _labels(block: bytes) -> Labels:
    return decode_labels(block) if block else NAMELESS
