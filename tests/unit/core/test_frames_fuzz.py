"""Whatever a record holds, reading it gives a frame or says that it cannot be read."""

import contextlib
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dues import due_frame
from messages import named
from openanomaly.adapters.remote_write.encode import ScoreEncoder
from openanomaly.core.frames import DueFrame, ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.errors import RejectedError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from scores import score_frame

LABELS = [named("load", host=f"h{i}") for i in range(5)]


def sample_frame() -> bytes:
    n = 7
    return SampleFrame(
        SeriesColumn.of([encode_labels(x) for x in LABELS]),
        np.arange(n, dtype=np.uint32) % 5,
        np.arange(n, dtype=np.int64),
        np.arange(n, dtype=np.float64),
        1,
    ).encode(compress=True)


def forecast_frame() -> bytes:
    levels = np.array([0.1, 0.9], np.float32)
    return ForecastFrame.pack(due_frame(0), levels, np.ones((3, 4, 2), np.float32)).encode()


def read_scores(record: bytes) -> None:
    frame = ScoreFrame.decode(record)
    ScoreEncoder(("anomaly_score", "yhat", "y")).encode(frame)
    frame.take(np.arange(len(frame.row)))


CASES: dict[str, tuple[bytes, Callable[[bytes], object], type]] = {
    "samples": (sample_frame(), SampleFrame.decode, pb.SampleFrame),
    "due": (due_frame(0).encode(), DueFrame.decode, pb.DueFrame),
    "forecasts": (forecast_frame(), ForecastFrame.decode, pb.ForecastFrame),
    "scores": (score_frame(LABELS).encode(compress=True), read_scores, pb.ScoreFrame),
    "scores, labels plain": (score_frame(LABELS).encode(), read_scores, pb.ScoreFrame),
}


def mutated(record: bytes, rng: random.Random) -> bytes:
    out = bytearray(record)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at : at + rng.randint(1, 20)]
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 12))
            case _:
                out = out[:at]
    return bytes(out)


def cut(message: object, rng: random.Random) -> None:
    """Make one of the columns of a message shorter or longer, or other bytes."""
    fields = [(message, f) for f in message.DESCRIPTOR.fields]  # type: ignore[attr-defined]
    if "series" in message.DESCRIPTOR.fields_by_name:  # type: ignore[attr-defined]
        inner = message.series  # type: ignore[attr-defined]
        fields += [(inner, f) for f in inner.DESCRIPTOR.fields]
    owner, field = rng.choice([(o, f) for o, f in fields if f.type == f.TYPE_BYTES])
    value = getattr(owner, field.name)
    size = rng.choice([0, 1, 4, 8, len(value) // 2, max(0, len(value) - 8), len(value), len(value) + 8])
    setattr(
        owner, field.name, rng.choice([value, value[::-1], rng.randbytes(size)])[:size].ljust(size, b"\1")
    )


@pytest.mark.parametrize("kind", CASES)
def test_other_bytes_are_refused_or_read(kind: str) -> None:
    record, read, message = CASES[kind]
    read(record)
    rng = random.Random(5)
    for _ in range(3000):
        with contextlib.suppress(RejectedError):
            read(mutated(record, rng))
    for _ in range(1000):
        changed = message.FromString(record)
        cut(changed, rng)
        with contextlib.suppress(RejectedError):
            read(changed.SerializeToString())


@given(
    st.lists(st.binary(max_size=200), max_size=9),
    st.integers(0, 30),
    st.integers(0, 2**62),
    st.booleans(),
)
def test_a_sample_frame_is_the_message_that_its_schema_says(
    labels: list[bytes], samples: int, received_ms: int, compress: bool
) -> None:
    rng = np.random.default_rng(samples)
    series = SeriesColumn.of(labels, rng.integers(0, 5, len(labels)).astype(np.uint8))
    n = samples if labels else 0
    frame = SampleFrame(
        series,
        rng.integers(0, max(1, len(labels)), n).astype(np.uint32),
        rng.integers(0, 2**40, n),
        rng.standard_normal(n),
        received_ms,
    )
    message = pb.SampleFrame.FromString(frame.encode(compress))
    assert message.SerializeToString() == frame.encode(compress)
    assert message.received_ms == received_ms
    again = SampleFrame.decode(frame.encode(compress))
    assert [again.series.block(i) for i in range(len(labels))] == labels
    for name in ("row", "timestamp_ms", "value"):
        assert getattr(again, name).tolist() == getattr(frame, name).tolist()
    assert again.series.ids.tolist() == series.ids.tolist()
    assert again.series.kind.tolist() == series.kind.tolist()
