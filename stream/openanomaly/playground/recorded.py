"""What a pipeline is tried on: the simulated fleet, an uploaded file, or samples of a database."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from openanomaly.adapters.recordings import database, files, labels
from openanomaly.adapters.recordings.times import Style
from openanomaly.core.pipelines.pipeline import DEFAULT_SELECTOR, Pipeline
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.core.recording import Limit, RecordedSeries, Recording, Span, infer_step_ms
from openanomaly.demo.faults import World, deployments, plan
from openanomaly.demo.fleet import DAY, Fleet
from openanomaly.errors import ConfigError
from openanomaly.reports.page import clock
from openanomaly.settings import PlaygroundSettings

EXAMPLE_STEP_S = 300
_EXAMPLE_DAYS = 7
_EXAMPLE_FLEET, _EXAMPLE_SERIES = 200, 30
_EXAMPLE_BEGIN_MS = 1_767_225_600_000  # 2026-01-01
_QUIET_END = 24
_ENDINGS = (".csv", ".tsv", ".parquet")
_NOT_OF_A_NAME = re.compile(r"[^\w.:-]+")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording, and how its times are meant.

    Attributes:
        title: for people.
        step_ms: as samples are spaced; None where that tells nothing of steps.
        by_end: times are the ends of steps, as of queries, and not those of samples.
        warnings: for people.
    """

    title: str
    recording: Recording
    step_ms: int | None
    style: Style = "iso"
    by_end: bool = False
    warnings: tuple[str, ...] = ()


@cache
def example() -> Recorded:
    """Some series of the demo's fleet: days of normal life, and then its faults, the known events."""
    fleet = Fleet(_EXAMPLE_FLEET, 1)
    world = World(fleet, EXAMPLE_STEP_S)
    faults = plan(fleet, _EXAMPLE_DAYS * DAY, 1, np.zeros(len(fleet), np.int64))
    past = world.take(_EXAMPLE_DAYS * DAY, deployments(fleet, _EXAMPLE_DAYS, 1))
    now = world.take(max(f.stop for f in faults) + _QUIET_END - fleet.step, faults)
    value = np.concatenate([past.value, now.value])
    is_there = np.concatenate([past.is_there, now.is_there])
    time_ms = _EXAMPLE_BEGIN_MS + np.arange(len(value)) * EXAMPLE_STEP_S * 1000
    events: dict[int, list[Span]] = defaultdict(list)
    for fault in faults:
        if fault.kind.must_alarm:
            events[fault.series].append((int(time_ms[fault.start]), int(time_ms[fault.stop - 1])))
    faulty = {fault.series for fault in faults}
    others = [i for i in range(len(fleet)) if i not in faulty]
    chosen = sorted([*events, *others[: _EXAMPLE_SERIES - len(events)]])
    series = [
        RecordedSeries(fleet.labels[i], time_ms[is_there[:, i]], value[is_there[:, i], i]) for i in chosen
    ]
    recording = Recording(series, [events[i] for i in chosen])
    return Recorded("simulated fleet with known faults", recording, EXAMPLE_STEP_S * 1000)


def of_file(name: str, content: bytes, known: bytes | None, limits: PlaygroundSettings) -> Recorded:
    """An uploaded CSV or Parquet file.

    Args:
        known: a CSV of what is known to be anomalous; None for none.

    Raises:
        ConfigError: it cannot be read, or is too large.
    """
    ending = Path(name).suffix.lower()
    with tempfile.TemporaryDirectory() as folder:
        # A file with one column of values names its series.
        stem = _NOT_OF_A_NAME.sub("_", Path(name).stem)[:100] or "data"
        file = Path(folder, "data", stem + (ending if ending in _ENDINGS else ".csv"))
        events = Path(folder, "events.csv")
        file.parent.mkdir()
        file.write_bytes(content)
        try:
            recording, style = files.read(file, limit_of(limits))
            if known is not None:
                events.write_bytes(known)
                recording = replace(recording, events=labels.read(events, recording))
        except ConfigError as exc:
            text = str(exc).replace(str(file), name).replace(str(events), "known events")
            raise ConfigError(text) from exc
    if not recording.samples:
        raise ConfigError(f"{name}: there is no sample in it")
    return Recorded(name, recording, _step_ms(recording), style, warnings=tuple(_remarks(recording)))


def of_database(
    client: TSDBClient,
    pipeline: Pipeline,
    start_ms: int,
    end_ms: int,
    limits: PlaygroundSettings,
    look: Callable[[], None],
) -> Recorded:
    """What a database has for a pipeline: the answers to its query, or the samples that its selector chooses.

    Args:
        look: is called between pieces; what it raises ends the reading.

    Raises:
        ConfigError: there is nothing, or too much.
        OpenAnomalyError: the database does not answer.
    """
    steps = (end_ms - start_ms) // pipeline.step_ms
    if not 0 < steps <= limits.samples_limit:
        raise ConfigError(
            f"from {clock(start_ms)} to {clock(end_ms)} are {steps:,} steps of {pipeline.step_s:g} s; "
            f"at least one, and at most playground.samples_limit={limits.samples_limit:,}"
        )
    told: list[str] = []
    if pipeline.query is None:
        asked = pipeline.selector
        if asked == DEFAULT_SELECTOR:
            raise ConfigError(f"selector={asked} is everything: say which series the database is asked for")
        limit = limit_of(limits)
        recording = database.stored(client, not_ours(asked), start_ms, end_ms, told.append, limit, look)
    else:
        asked = pipeline.query
        step_ms = pipeline.step_ms
        recording = database.query(client, asked, start_ms, end_ms, step_ms, told.append, limit_of(limits))
    by_end = pipeline.query is not None
    return Recorded(asked, recording, None if by_end else _step_ms(recording), "iso", by_end, tuple(told))


def not_ours(selector: str) -> str:
    """The selector without our own scores, which are never scored: they have the label `for`."""
    text = selector.rstrip()
    if not text.endswith("}"):
        return f'{text}{{for=""}}'
    inside = text[:-1].rstrip()
    return f'{inside}{"" if inside.endswith(("{", ",")) else ","}for=""}}'


def limit_of(limits: PlaygroundSettings) -> Limit:
    """What a trial may have."""
    return Limit(limits.series_limit, limits.samples_limit, "playground")


def _remarks(recording: Recording) -> list[str]:
    out = []
    if recording.unsorted:
        out.append(f"{recording.unsorted:,} series were not in the order of time, and were sorted")
    if recording.duplicates:
        out.append(f"{recording.duplicates:,} samples had the time of an earlier one, and were left out")
    return out


def _step_ms(recording: Recording) -> int | None:
    try:
        return infer_step_ms(recording.series)
    except ConfigError:
        return None
