"""Requests of real senders decode to the values that the senders hold, and name the same series."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openanomaly.adapters.remote_write import decode_v1, decode_v2
from openanomaly.adapters.remote_write.columns import WriteColumns
from openanomaly.adapters.remote_write.negotiate import Version, negotiate
from openanomaly.adapters.remote_write.unpack import unpack
from openanomaly.core.identity import Identities
from openanomaly.core.series import canonical, encode_labels, series_id
from openanomaly.core.stale import is_stale

SENDERS = ("prometheus-2", "prometheus-3", "prometheus-3-v2", "vmagent")
DECODE = {Version.V1: decode_v1.decode, Version.V2: decode_v2.decode}
Sample = tuple[bytes, int]
"""Series id, timestamp_ms."""


@functools.cache
def capture(sender: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / sender / "capture.json").read_text())
    return loaded


def id_of(labels: dict[str, str]) -> bytes:
    return series_id(encode_labels(canonical(labels.items())))


def decoded(sender: str) -> list[tuple[WriteColumns, list[bytes]]]:
    """Each request's columns, and the ids of its series."""
    identities = Identities(capacity=65_536, partitions=16, select=lambda labels: True)
    found = []
    for request in capture(sender)["requests"]:
        headers = request["headers"]
        version = negotiate(headers["content-type"], headers["content-encoding"])
        body = unpack((Path(__file__).parent / sender / request["file"]).read_bytes(), 1 << 20)
        columns = DECODE[version](body, identities)
        found.append((columns, [entry.tobytes() for entry in identities.entries["id"][columns.slot]]))
    return found


def received(sender: str) -> tuple[dict[Sample, float], set[Sample]]:
    """Every sample pushed, and the staleness markers."""
    samples: dict[Sample, float] = {}
    markers: set[Sample] = set()
    for columns, ids in decoded(sender):
        stale = is_stale(columns.value)
        rows = zip(
            columns.row.tolist(), columns.timestamp_ms.tolist(), columns.value.tolist(), stale, strict=True
        )
        for row, timestamp_ms, value, is_marker in rows:
            key = (ids[row], timestamp_ms)
            if is_marker:
                markers.add(key)
            else:
                samples[key] = value
    return samples, markers


def held(sender: str) -> dict[Sample, float]:
    """Every sample that the sender's API gave."""
    return {
        (id_of(series["labels"]), timestamp_ms): float(value)
        for series in capture(sender)["series"]
        for timestamp_ms, value in series["samples"]
    }


def scraped_ids(sender: str) -> set[bytes]:
    """Ids of the series that every sender sees alike: the targets', not those a sender adds."""
    return {
        id_of(labels)
        for labels in (series["labels"] for series in capture(sender)["series"])
        if labels["job"] in ("page", "node")
        and not labels["__name__"].startswith(("scrape_", "up"))
        # Prometheus 3 writes whole bounds as floats: quantile="1" is another series there, "1.0".
        and not labels.get("quantile", "0.5").isdigit()
        and not labels.get("le", "0.5").isdigit()
    }


@pytest.mark.parametrize("sender", SENDERS)
def test_requests_decode_to_the_values_that_the_sender_holds(sender: str) -> None:
    got, _ = received(sender)
    odd = id_of(with_timestamp(sender))
    since = min(timestamp_ms for key, timestamp_ms in got if key != odd)
    through = capture(sender)["through_ms"]
    expected = {key: value for key, value in held(sender).items() if key[1] >= since}
    got = {key: value for key, value in got.items() if since <= key[1] <= through}
    if sender == "vmagent":
        got = {key: value for key, value in got.items() if not math.isnan(value)}

    assert got.keys() == expected.keys()
    assert len({key for key, _ in got}) > 150
    keys = sorted(got)
    tolerance = 1e-12 if sender == "vmagent" else 0.0
    np.testing.assert_allclose(
        [got[key] for key in keys], [expected[key] for key in keys], rtol=tolerance, atol=0.0, equal_nan=True
    )


def with_timestamp(sender: str) -> dict[str, str]:
    [labels] = [s["labels"] for s in capture(sender)["series"] if s["labels"]["__name__"] == "with_timestamp"]
    found: dict[str, str] = labels
    return found


@pytest.mark.parametrize("sender", SENDERS)
def test_the_end_of_a_series_is_a_staleness_marker(sender: str) -> None:
    _, markers = received(sender)
    [leaving] = [s["labels"] for s in capture(sender)["series"] if s["labels"]["__name__"] == "going_away"]
    assert {key for key, _ in markers} == {id_of(leaving)}
    assert len(markers) == 1


@pytest.mark.parametrize("sender", SENDERS[1:])
def test_series_have_the_same_ids_whoever_sends_them(sender: str) -> None:
    ids = {key for key, _ in received(sender)[0]}
    # Prometheus leaves out a sample that is older than its start.
    expected = scraped_ids(SENDERS[0]) - {id_of(with_timestamp(SENDERS[0]))}
    assert len(expected) > 130
    assert expected <= ids


@pytest.mark.parametrize("sender", SENDERS)
def test_nothing_that_a_real_sender_pushes_is_refused(sender: str) -> None:
    assert not [str(columns.refused) for columns, _ in decoded(sender) if columns.refused]


def test_metadata_exemplars_and_histograms_are_counted() -> None:
    two = [columns for columns, _ in decoded("prometheus-3-v2")]
    assert sum(columns.histograms for columns in two) == 8
    assert sum(columns.exemplars for columns in two) == 1
    assert any(columns.kind is not None and columns.kind.any() for columns in two)
    one = [columns for columns, _ in decoded("prometheus-2")]
    assert sum(columns.exemplars for columns in one) == 2
    assert b"http_requests_total" in {name for columns in one for name, _ in columns.metadata}
