"""Both decoders against the full schema, read series by series."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from messages import Series, encode, named, v1, v2
from openanomaly.adapters.remote_write import decode_v1, decode_v2
from openanomaly.adapters.remote_write.columns import WriteColumns
from openanomaly.adapters.remote_write.histograms import fault
from openanomaly.core.identity import Identities
from openanomaly.core.series import Labels, canonical, encode_labels, series_id
from openanomaly.core.series_column import SeriesKind
from openanomaly.errors import MalformedRequestError
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb1
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb2

DECODE: dict[int, Callable[[bytes, Identities], WriteColumns]] = {
    1: decode_v1.decode,
    2: decode_v2.decode,
}
VERSIONS = pytest.mark.parametrize("version", [1, 2])
Sample = tuple[bytes, int, str]


def identities() -> Identities:
    return Identities(capacity=65_536, partitions=16, select=lambda labels: True)


def is_good(labels: Labels) -> bool:
    try:
        return any(name == "__name__" for name, _ in canonical(labels))
    except MalformedRequestError:
        return False


def expected(series: list[Series]) -> list[Sample]:
    """Series id, timestamp and bits of every valid sample, as the request has them."""
    return [
        (series_id(encode_labels(canonical(s.labels))), timestamp_ms, bits(value))
        for s in series
        if is_good(s.labels)
        for timestamp_ms, value in s.samples
    ]


def bits(value: float) -> str:
    return str(np.float64(value).view(np.uint64))


def found(columns: WriteColumns, known: Identities) -> list[Sample]:
    ids = known.entries["id"][columns.slot]
    return [
        (ids[row].tobytes(), timestamp_ms, bits(value))
        for row, timestamp_ms, value in zip(
            columns.row.tolist(), columns.timestamp_ms.tolist(), columns.value.tolist(), strict=True
        )
    ]


def good_histograms(series: list[Series]) -> tuple[int, int]:
    """Of how many histograms of valid series are consistent, and of all series those that are not."""
    message = pb1.WriteRequest.FromString(v1(series))
    good = bad = 0
    for s, ts in zip(series, message.timeseries, strict=True):
        for histogram in ts.histograms:
            bad += fault(histogram) is not None
            good += fault(histogram) is None and is_good(s.labels)
    return good, bad


@VERSIONS
@given(st.lists(strategies.requests(odd=True), max_size=3))
def test_every_valid_sample_comes_out_as_it_was_sent(version: int, requests: list[list[Series]]) -> None:
    known = identities()
    for series in [*requests, *requests]:  # unknown, then known
        columns = DECODE[version](encode(version, series), known)
        assert found(columns, known) == expected(series)
        good = [s for s in series if is_good(s.labels)]
        assert columns.exemplars == sum(len(s.exemplars) for s in good)
        assert columns.refused.samples == sum(len(s.samples) for s in series if not is_good(s.labels))
        consistent, wrong = good_histograms(series)
        assert columns.histograms == consistent
        assert columns.refused.series == len(series) - len(good) + wrong
        assert len(columns.slot) == len(series)
        assert (columns.slot >= 0).tolist() == [is_good(s.labels) for s in series]


@given(strategies.requests(odd=True))
def test_both_versions_name_the_same_series(series: list[Series]) -> None:
    known = identities()
    first = decode_v1.decode(v1(series), known)
    second = decode_v2.decode(v2(series), known)
    assert found(first, known) == found(second, known)
    assert (first.histograms, first.exemplars) == (second.histograms, second.exemplars)
    assert (first.refused.samples, first.refused.series) == (second.refused.samples, second.refused.series)
    kinds = [s.kind for s in series if is_good(s.labels)]
    assert second.kind is not None
    numbers = {1: SeriesKind.COUNTER, 2: SeriesKind.GAUGE, 3: SeriesKind.HISTOGRAM, 5: SeriesKind.SUMMARY}
    got = second.kind[second.slot >= 0].tolist()
    for number, kind in zip(kinds, got, strict=True):
        if number in (0, *numbers):
            assert kind == numbers.get(number, SeriesKind.UNKNOWN)


@VERSIONS
@given(data=st.data())
def test_bytes_that_are_changed_anywhere_are_refused_or_read_as_the_full_schema_reads_them(
    version: int, data: st.DataObject
) -> None:
    raw = bytearray(encode(version, data.draw(strategies.requests())))
    for _ in range(data.draw(st.integers(1, 4))):
        if raw:
            at = data.draw(st.integers(0, len(raw) - 1))
            change = data.draw(st.sampled_from(["set", "insert", "delete", "cut"]))
            if change == "set":
                raw[at] = data.draw(st.integers(0, 255))
            elif change == "insert":
                raw[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            elif change == "delete":
                del raw[at]
            else:
                del raw[at:]
    known = identities()
    try:
        columns = DECODE[version](bytes(raw), known)
    except MalformedRequestError:
        return
    again = DECODE[version](bytes(raw), known)
    assert found(columns, known) == found(again, known)
    assert found(columns, known) == (slow_v1(bytes(raw)) if version == 1 else slow_v2(bytes(raw)))


def slow_v1(raw: bytes) -> list[Sample]:
    """Samples of valid series by the full schema; a label that is no UTF-8 makes a series invalid."""
    out: list[Sample] = []
    for ts in pb1.WriteRequest.FromString(raw).timeseries:
        pairs = [(pair.name, pair.value) for pair in ts.labels]
        out += slow_series(pairs, [(s.timestamp, s.value) for s in ts.samples])
    return out


def slow_v2(raw: bytes) -> list[Sample]:
    out: list[Sample] = []
    request = pb2.Request.FromString(raw)
    for ts in request.timeseries:
        ref = list(ts.labels_refs)
        if len(ref) % 2 or any(r >= len(request.symbols) for r in ref):
            continue
        strings = [request.symbols[r] for r in ref]
        pairs = list(zip(strings[::2], strings[1::2], strict=True))
        out += slow_series(pairs, [(s.timestamp, s.value) for s in ts.samples])
    return out


def slow_series(pairs: list[tuple[bytes, bytes]], samples: list[tuple[int, float]]) -> list[Sample]:
    try:
        labels = tuple((name.decode(), value.decode()) for name, value in pairs)
    except UnicodeDecodeError:
        return []
    return expected([Series(labels, samples)])


@VERSIONS
def test_a_sample_whose_value_is_zero_has_none_on_the_wire(version: int) -> None:
    known = identities()
    series = [Series(named("a", i=str(i)), [(strategies.NOW_MS + i, float(i % 2))]) for i in range(20)]
    assert found(DECODE[version](encode(version, series), known), known) == expected(series)


@VERSIONS
@pytest.mark.parametrize("count", [1, 127, 128, 300])
def test_label_references_of_any_length_are_read(version: int, count: int) -> None:
    series = [
        Series(named("a", i=str(i), **{f"l{n}": f"v{i}" for n in range(min(count, 60))}), [(1 << 40, 2.0)])
        for i in range(count)
    ]
    known = identities()
    assert found(DECODE[version](encode(version, series), known), known) == expected(series)


def test_an_exemplar_with_broken_references_is_refused_alone() -> None:
    request = pb2.Request(symbols=[b"", b"__name__", b"up"])
    ts = request.timeseries.add(labels_refs=[1, 2])
    ts.samples.add(timestamp=1, value=math.pi)
    ts.exemplars.add(labels_refs=[7, 8])
    ts.exemplars.add(labels_refs=[1, 2])
    columns = decode_v2.decode(request.SerializeToString(), identities())
    assert (len(columns.row), columns.exemplars, columns.refused.exemplars) == (1, 1, 1)
