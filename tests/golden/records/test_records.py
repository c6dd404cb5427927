"""What any release has written to the broker is read for ever: its bytes, and what is in them."""

from pathlib import Path

import numpy as np
import pytest

from golden.records.capture import (
    CENSUS,
    CHECKPOINTS,
    CONTEXT,
    COUNTS,
    NOW_MS,
    PARTED,
    SHARES,
    STEPS,
    THROUGH,
)
from messages import named
from openanomaly.broker.notes import Notes, Origin
from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.group_frames import GroupFrame
from openanomaly.core.series import decode_labels
from openanomaly.core.windows import records
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.parts import Parts, Start
from openanomaly.core.windows.records import read_key
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as changelog
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from scores import NOW_MS as SCORED_MS
from unit.core.windows import drive

V1 = Path(__file__).parent / "v1"
NAMES = [named("load", host="a"), named("load", host="b")]


def read(name: str) -> bytes:
    return (V1 / f"{name}.bin").read_bytes()


def pairs(name: str) -> list[tuple[bytes, bytes]]:
    lines = (V1 / f"{name}.hex").read_text().splitlines()
    return [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in map(str.split, lines)]


@pytest.mark.parametrize("name", ["samples", "samples-zstd", "samples-unlabelled"])
def test_samples(name: str) -> None:
    frame = SampleFrame.decode(read(name))
    blocks = [frame.series.block(i) for i in range(2)]
    if name == "samples-unlabelled":
        assert blocks == [b"", b""]
    else:
        assert [decode_labels(block) for block in blocks] == NAMES
    assert frame.series.kind.tolist() == [2, 1]
    assert frame.row.tolist() == [0, 1, 0]
    assert frame.timestamp_ms.tolist() == [NOW_MS, NOW_MS + 1, NOW_MS + 2]
    assert frame.value.tolist() == [1.5, -2.25, np.inf]
    assert frame.received_ms == NOW_MS + 5
    assert frame.series.ids.tolist() == SampleFrame.decode(read("samples")).series.ids.tolist()


def test_contexts() -> None:
    frame = DueFrame.decode(read("due"))
    assert (frame.partition, frame.block, frame.forecaster) == (1, 77, 5)
    assert (frame.model, frame.horizon, frame.step_ms) == ("auto", 4, 60_000)
    assert (frame.row.tolist(), frame.generation.tolist()) == ([7, 8, 9], [107, 108, 109])
    assert frame.origin.tolist() == [1007, 1008, 1009]
    np.testing.assert_allclose(frame.context.values, CONTEXT, rtol=1e-3)
    assert (frame.closed_ms, frame.useful_until_ms) == (NOW_MS, NOW_MS + 1)


def test_forecasts() -> None:
    frame = ForecastFrame.decode(read("forecasts"))
    assert (frame.partition, frame.block, frame.forecaster) == (1, 77, 5)
    np.testing.assert_array_equal(frame.level, np.array([0.05, 0.2, 0.5, 0.8, 0.95], np.float32))
    assert (frame.row.tolist(), frame.generation.tolist()) == ([7, 8, 9], [107, 108, 109])
    assert frame.origin.tolist() == [1007, 1008, 1009]
    quantile = frame.quantile.astype(np.float32) * frame.scale[:, None, None] + frame.center[:, None, None]
    np.testing.assert_allclose(quantile, np.arange(60.0).reshape(3, 4, 5).transpose(0, 2, 1), atol=0.02)


@pytest.mark.parametrize("name", ["scores", "scores-zstd"])
def test_scores(name: str) -> None:
    frame = ScoreFrame.decode(read(name))
    assert [decode_labels(frame.series.block(i)) for i in range(2)] == NAMES
    assert (frame.pipeline, frame.step_ms, frame.closed_ms) == ("default", 60_000, SCORED_MS)
    assert (frame.row.tolist(), frame.timestamp_ms.tolist()) == ([0, 1], [SCORED_MS, SCORED_MS])
    assert (frame.score.tolist(), frame.value.tolist()) == ([0.5, 3.0], [0.0, 1.0])
    assert frame.expected.tolist() == [[0.25, -1.0, 1.0], [1.25, 0.0, 2.0]]
    assert (frame.reason.tolist(), frame.flags.tolist()) == ([0, 0], [0, 3])


def test_a_census() -> None:
    frame = ScoreFrame.decode(read("scores-census"))
    assert (frame.pipeline, frame.step_ms, frame.closed_ms) == ("default", 60_000, NOW_MS)
    assert (len(frame.row), frame.census) == (0, CENSUS)
    assert ScoreFrame.decode(read("scores")).census is None


def test_shares_of_groups() -> None:
    samples, scores = (
        SampleFrame.decode(read("samples-of-groups")),
        ScoreFrame.decode(read("scores-of-groups")),
    )
    assert read("samples-of-groups")[:2] == b"\x08\x02", "for no reader that takes them for a user's"
    assert (samples.of_groups, SampleFrame.decode(read("samples")).of_groups) == (True, False)
    assert (scores.of_groups, ScoreFrame.decode(read("scores")).of_groups) == (True, False)
    assert samples.value.tolist() == [1.5, -2.25, np.inf]
    assert scores.score.tolist() == [0.5, 3.0]


def test_counts_of_groups() -> None:
    frame = GroupFrame.decode(read("groups"))
    assert (frame.partition, frame.through) == (3, [THROUGH])
    (found,) = frame.counts
    for name in ("pipeline", "step_ms", "bucket", "part", "due_in_ms", "is_late"):
        assert getattr(found, name) == getattr(COUNTS, name), name
    assert [found.series.block(i) for i in range(2)] == [SHARES.block(i) for i in range(2)]
    assert (found.scored.tolist(), found.anomalous.tolist()) == ([7, 5], [2, 0])


def test_pages_name_the_parts_that_they_are_between() -> None:
    ((_, value),) = pairs("pages-naming-parts")
    parts = Parts()
    parts.restore(changelog.StatePage.FromString(value))
    parts.begin(0)
    assert (parts.now, parts.end) == (Start(CHECKPOINTS[-2] + 1, 0), Start(CHECKPOINTS[-1] + 1, 0))


def test_dead_letters() -> None:
    letter = pb.DeadLetter.FromString(read("dead-letter"))
    assert (letter.version, letter.reason, letter.detail) == (1, "MalformedFrameError", "not it")
    assert (letter.topic, letter.partition, letter.offset) == ("oa.scores", 3, 41)
    assert (letter.key, letter.payload, letter.noted_ms, letter.set_aside) == (b"k", b"p", NOW_MS, True)
    replay = pb.DeadLetter.FromString(read("dead-letter-replay"))
    assert (replay.reason, replay.letter) == ("replayed", 17)
    notes = Notes()
    for name in ("dead-letter", "dead-letter-note", "dead-letter-replay"):
        notes.add(read(name))
    assert notes.count(Origin("oa.scores", 3, 41, NOW_MS)) == 1


def restored(found: list[tuple[bytes, bytes]]) -> Partition:
    partition = drive.fresh()
    for key, value in found:
        partition.restore(key, value)
    partition.start()
    return partition


def test_a_worker_goes_on_from_changelogs_of_the_first_version() -> None:
    found = pairs("changelogs")
    kinds = {read_key(key)[0] for key, _ in found}
    assert kinds == {
        records.COLUMN,
        records.PATCH,
        records.CATALOGUE,
        records.HOT,
        records.COLD,
        records.MOVE,
    }
    assert {value[:2] for _, value in found} == {b"\x08\x01"}
    partition = restored(found)
    (block,) = partition.blocks.values()
    assert [drive.row_of(block, f"m{i}") for i in range(6)] == list(range(6))
    assert max(CHECKPOINTS) == STEPS - 2
    for i in range(6):
        last = 27  # the step that the last checkpoint finds closed; every fourth has the first series only
        expected = [
            float((step * (i + 1)) % 11) if i == 0 or step % 4 != 3 else np.nan for step in range(last + 1)
        ]
        window = drive.window(block, f"m{i}")
        closed = int(block.state["closed"][i]) - NOW_MS // 10_000
        np.testing.assert_allclose(window[-1 - closed :], expected[: closed + 1], rtol=1e-6)
        assert closed >= 26


def test_a_worker_goes_on_from_pages_in_parts() -> None:
    """Version 2 of pages of the state changelog."""
    found = pairs("changelogs-parts")
    assert {value[:2] for _, value in found} == {b"\x08\x02"}
    assert {read_key(key)[0] for key, _ in found} >= {records.CATALOGUE, records.COLD}
    partition = restored(found)
    (block,) = partition.blocks.values()
    assert [drive.row_of(block, f"m{i}") for i in range(PARTED)] == list(range(PARTED))
    # The last checkpoint: all but the first series had their last sample two steps before it.
    closed = block.state["closed"][:PARTED] - NOW_MS // 10_000
    assert closed.tolist() == [27] + [26] * (PARTED - 1)
    (scoring,) = block.scorings
    assert scoring.state["age"][:PARTED].min() > 20
    assert block.catalogue.generation[:PARTED].tolist() == [1] * PARTED
