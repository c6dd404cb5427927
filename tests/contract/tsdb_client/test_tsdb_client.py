"""What every TSDBClient must do. Each database runs, filled with the same recorded samples."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from e2e.sender import push, request
from messages import named
from openanomaly.adapters.prometheus import PrometheusAdapter, QueryLimits
from openanomaly.adapters.remote_write.client import Target
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.ports.tsdb_client import Samples, TSDBClient, Written
from openanomaly.core.series import Labels, encode_labels
from openanomaly.core.services.history import read_history
from openanomaly.errors import AnswerTooLargeError, QueryRejectedError, TsdbUnavailableError
from parts.part import Process, answers
from parts.prometheus import Prometheus, prometheus
from parts.victoria import VictoriaMetrics, victoria_metrics
from recorded import CPUS, INTERVAL_MS, MODES, NodeCpu
from scores import score_frame

ODD: Labels = (("__name__", "odd"), ("what", 'a "quoted" \\ [[1,"2"]] "values":[[ ünïcode\nline'))
"""A label that looks like samples."""
ODD_VALUES = [1.5, math.inf, -math.inf, -0.25]
CPU = "node_cpu_seconds_total"


@dataclass(frozen=True)
class Database:
    url: str
    process: Process
    recorded: NodeCpu
    odd_ms: list[int]

    def client(self, requests: list[str] | None = None, **limits: int) -> TSDBClient:
        """`requests` gets the kind and the status of each one."""
        told = requests if requests is not None else []
        return PrometheusAdapter(
            Target(self.url, timeout_s=20.0, backoff_min_s=0.01, backoff_max_s=0.05),
            Target(self.url, timeout_s=20.0, backoff_min_s=0.01, backoff_max_s=0.05),
            QueryLimits(**limits),
            observe=lambda what, code, seconds: told.append(f"{what} {code}"),
        )


def receiving_prometheus(root: Path) -> contextlib.AbstractContextManager[Prometheus]:
    return prometheus(root, {}, receives=True)


Run = Callable[[Path], contextlib.AbstractContextManager[Prometheus | VictoriaMetrics]]
DATABASES: dict[str, Run] = {"prometheus": receiving_prometheus, "victoria-metrics": victoria_metrics}


@pytest.fixture(scope="module", params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with DATABASES[request.param](tmp_path_factory.mktemp("tsdb")) as store:
        yield filled(store.url, store.process)


def filled(url: str, process: Process) -> Database:
    recorded = NodeCpu.around_now(before_s=1500, after_s=0)
    write_url = f"{url}/api/v1/write"
    recorded.push(write_url)
    odd_ms = [recorded.end_ms - 9_500 + 1000 * i for i in range(len(ODD_VALUES))]
    push(write_url, request({ODD: list(zip(odd_ms, ODD_VALUES, strict=True))}))
    database = Database(url, process, recorded, odd_ms)
    wait_for_samples(database)
    return database


def wait_for_samples(database: Database) -> None:
    """VictoriaMetrics shows what it has taken a second later, or when told to."""
    with contextlib.suppress(OSError):
        answers(f"{database.url}/internal/force_flush")()


def by_series(samples: Samples) -> dict[bytes, dict[int, float]]:
    """Samples in plain values. Checks what the port says of the columns.

    VictoriaMetrics keeps decimal digits, and gives the last bit of a value back as it comes.
    """
    assert len(set(samples.blocks)) == len(samples.blocks)
    assert (np.diff(samples.row.astype(int)) >= 0).all()
    out: dict[bytes, dict[int, float]] = {block: {} for block in samples.blocks}
    for row, at, value in zip(
        samples.row, samples.timestamp_ms.tolist(), samples.value.tolist(), strict=True
    ):
        held = out[samples.blocks[row]]
        assert not held or at > max(held), "ascending, none twice"
        held[at] = round(value, 6)
    return out


def test_a_range_has_every_point_of_its_grid_once(database: Database) -> None:
    recorded = database.recorded
    start_ms, end_ms = recorded.start_ms + 10_000, recorded.start_ms + 70_000
    found = by_series(database.client().range_query(CPU, start_ms, end_ms, 5000))
    assert sorted(found) == sorted(recorded.blocks)
    for block, samples in found.items():
        of = recorded.of(block)
        assert samples == {at: of[at] for at in range(start_ms, end_ms + 1, 5000)}


@pytest.mark.parametrize("points_limit", [2, 7, 60, 61, 62])
@pytest.mark.parametrize("short_ms", [0, 1, 4999])
def test_a_long_range_in_parts_is_the_same(database: Database, points_limit: int, short_ms: int) -> None:
    start_ms = database.recorded.start_ms + 300_000
    end_ms = start_ms + 60 * 5000 - short_ms
    requests: list[str] = []
    query = f"sum by (mode) (rate({CPU}[1m]))"
    whole = database.client().range_query(query, start_ms, end_ms, 5000)
    parts = database.client(requests, points_limit=points_limit).range_query(query, start_ms, end_ms, 5000)
    points = (end_ms - start_ms) // 5000 + 1
    assert len(requests) == -(-points // points_limit)
    assert by_series(parts) == by_series(whole)
    assert len(whole) == points * len(MODES)


def test_a_range_that_the_database_would_refuse_in_one_is_split(database: Database) -> None:
    recorded = database.recorded
    start_ms, end_ms = recorded.start_ms + 100_000, recorded.end_ms
    points = (end_ms - start_ms) // 20 + 1
    query = f"count({CPU})"
    with pytest.raises(QueryRejectedError, match=r"count\(node_cpu_seconds_total\)'.*(resolution|points)"):
        database.client(points_limit=1_000_000).range_query(query, start_ms, end_ms, 20)
    found = database.client().range_query(query, start_ms, end_ms, 20)
    assert found.timestamp_ms.tolist() == list(range(start_ms, end_ms + 1, 20))
    assert len(found) == points
    assert set(found.value) == {len(CPUS) * len(MODES)}


def test_no_range_is_no_samples(database: Database) -> None:
    client = database.client()
    assert len(client.range_query(CPU, 2000, 1000, 1000)) == 0
    assert len(client.raw_query(CPU, 2000, 1000)) == 0
    assert len(client.range_query("nothing_of_this_name", 1000, 2000, 1000)) == 0


def test_series_are_the_labels_of_the_answer(database: Database) -> None:
    at_ms = database.recorded.start_ms + 200_000
    client = database.client()
    by_mode = client.range_query(f"sum by (mode) ({CPU})", at_ms, at_ms, 1000)
    assert sorted(by_mode.blocks) == sorted(encode_labels((("mode", mode),)) for mode in MODES)
    whole = client.range_query(f"sum({CPU})", at_ms, at_ms, 1000)
    assert whole.blocks == [b""]
    expected = sum(database.recorded.of(block)[at_ms] for block in database.recorded.blocks)
    assert whole.value.tolist() == pytest.approx([expected], rel=1e-12)


def test_an_instant_query_has_one_sample_of_each_series(database: Database) -> None:
    recorded = database.recorded
    at_ms = recorded.start_ms + 123_000
    client = database.client()
    found = by_series(client.instant_query(CPU, at_ms))
    assert found == {block: {at_ms: recorded.of(block)[at_ms]} for block in recorded.blocks}
    scalar = client.instant_query(f"scalar(count({CPU}))", at_ms)
    assert (scalar.blocks, scalar.value.tolist()) == ([b""], [len(recorded.blocks)])


@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 3), (5, 700), (0, 1499), (1490, 1600)])
def test_raw_samples_are_as_they_were_stored(database: Database, first: int, last: int) -> None:
    recorded = database.recorded
    start_ms, end_ms = (recorded.start_ms + i * INTERVAL_MS for i in (first, last))
    found = by_series(database.client().raw_query(CPU, start_ms, end_ms))
    assert sorted(found) == sorted(recorded.blocks)
    for block, samples in found.items():
        assert samples == {at: v for at, v in recorded.of(block).items() if start_ms <= at <= end_ms}


def test_odd_labels_and_values_come_through(database: Database) -> None:
    found = by_series(database.client().raw_query("odd", database.odd_ms[0], database.odd_ms[-1]))
    assert found == {encode_labels(ODD): dict(zip(database.odd_ms, ODD_VALUES, strict=True))}
    nans = database.client().instant_query("odd * NaN", database.odd_ms[-1])
    assert np.isnan(nans.value).all(), "NaN is NaN, or no sample"


def test_a_query_that_cannot_be_run_is_named_with_the_words_of_the_database(database: Database) -> None:
    requests: list[str] = []
    with pytest.raises(QueryRejectedError, match=r"refuses the query 'sum by \(': 4\d\d .*pars") as caught:
        database.client(requests).range_query("sum by (", 0, 1000, 1000)
    assert len(requests) == 1, "it is not tried again"
    assert database.url in str(caught.value)


def test_answers_are_bounded(database: Database) -> None:
    at_ms = database.recorded.end_ms
    with pytest.raises(AnswerTooLargeError, match=r"node_cpu.*8 series, limit 7.*pull\.series_limit"):
        database.client(series_limit=7).instant_query(CPU, at_ms)
    assert len(database.client(series_limit=8).instant_query(CPU, at_ms)) == 8
    with pytest.raises(AnswerTooLargeError, match=r"more than 20000 bytes.*pull\.answer_limit_bytes"):
        database.client(answer_limit_bytes=20_000).raw_query(CPU, database.recorded.start_ms, at_ms)
    # Of all parts together.
    with pytest.raises(AnswerTooLargeError, match=r"more than 5000 bytes"):
        database.client(answer_limit_bytes=5000, points_limit=10).range_query(
            CPU, at_ms - 500_000, at_ms, 5000
        )


def test_history_of_many_series_takes_few_queries(database: Database) -> None:
    recorded = database.recorded
    unknown = encode_labels(named(CPU, cpu="9", instance="web:9100", mode="idle"))
    there = [block for block in recorded.blocks if block != recorded.block("1", "user")]
    wanted = [unknown, *there, encode_labels(ODD)]
    requests: list[str] = []
    start_ms, end_ms = recorded.start_ms, recorded.end_ms
    answers = list(read_history(database.client(requests), wanted, start_ms, end_ms))
    assert requests == ["query 200"] * 2, "one of each name"
    found = {block: samples for answer in answers for block, samples in by_series(answer).items()}
    assert found.pop(unknown) == {}
    assert found.pop(encode_labels(ODD)) == dict(zip(database.odd_ms, ODD_VALUES, strict=True))
    assert found == {block: recorded.of(block) for block in there}


def test_history_above_a_limit_is_read_in_smaller_queries(database: Database) -> None:
    recorded = database.recorded
    client = database.client(series_limit=3)
    answers = list(read_history(client, recorded.blocks, recorded.start_ms, recorded.end_ms))
    found = {block: samples for answer in answers for block, samples in by_series(answer).items()}
    assert len(answers) > 2
    assert found == {block: recorded.of(block) for block in recorded.blocks}


def test_history_of_labels_that_are_not_stored(database: Database) -> None:
    """A Prometheus does not store the external labels that it sends."""
    recorded = database.recorded
    sent = encode_labels((*recorded.labels("0", "idle")[:2], ("dc", "eu"), *recorded.labels("0", "idle")[2:]))
    (answer,) = read_history(
        database.client(), [sent], recorded.start_ms, recorded.start_ms + 5000, absent=("dc",)
    )
    assert list(by_series(answer)) == [sent]
    assert len(answer) == 6


def test_scores_are_written_once_however_often_they_are_sent(database: Database) -> None:
    at_ms = database.recorded.end_ms
    frame = score_frame(
        [named("load", host=host) for host in "abcd"],
        score=[0.5, 1.25, 2.0, 0.0],
        timestamp_ms=[at_ms, at_ms, at_ms, at_ms],
        flags=[0, 0, 0, ScoreFlag.SILENT],
        pipeline="cpu",
    )
    client = database.client()
    for _ in range(2):
        assert client.write([frame]) == Written(3, 3, {"silent": 1})
    wait_for_samples(database)
    found = by_series(client.raw_query('anomaly_score{pipeline="cpu"}', at_ms - 1000, at_ms + 1000))
    assert found == {
        encode_labels(named("anomaly_score", **{"for": "load"}, host=host, pipeline="cpu")): {at_ms: score}
        for host, score in zip("abc", [0.5, 1.25, 2.0], strict=True)
    }


def test_a_score_that_is_refused_does_not_take_others_along(database: Database) -> None:
    """Prometheus takes no sample older than the newest one of its series; VictoriaMetrics takes it."""
    now_ms = database.recorded.end_ms
    hosts = [named("load", host=host) for host in "vwxyz"]
    client = database.client()
    first = client.write([score_frame(hosts[:1], score=[0.5], timestamp_ms=[now_ms], pipeline="late")])
    assert first == Written(1, 1)
    late = score_frame(hosts, [0.25] * 5, timestamp_ms=[now_ms - 60_000, *[now_ms] * 4], pipeline="late")
    written = client.write([late])
    wait_for_samples(database)
    found = by_series(client.raw_query('anomaly_score{pipeline="late"}', now_ms - 60_000, now_ms))
    assert sum(map(len, found.values())) == 1 + written.samples
    if written.dropped:
        assert (written.scores, written.dropped) == (4, {"rejected": 1})
        assert "out of order" in written.words
    else:
        assert written == Written(5, 5)


def test_nobody_who_answers_is_told_apart_from_a_refusal(database: Database) -> None:
    requests: list[str] = []
    client = database.client(requests, retries=2)
    database.process.stop()
    try:
        with pytest.raises(TsdbUnavailableError, match=r"cannot be reached"):
            client.instant_query(CPU, database.recorded.end_ms)
        with pytest.raises(TsdbUnavailableError, match=r"cannot be reached"):
            client.write([score_frame([named("load", host="z")], score=[0.5])])
    finally:
        database.process.start()
        database.process.wait_until_ready(answers(f"{database.url}/-/healthy"))
    assert requests == ["query error"] * 3 + ["write error"] * 3
    assert len(client.instant_query(CPU, database.recorded.end_ms)) == 8, "it is there again"
