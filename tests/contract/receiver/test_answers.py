"""What a sender is told: status codes, headers and reasons, in both versions of the protocol."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from messages import HEADERS, V1_HEADERS, V2_HEADERS, Series, encode, named, packed, v1, v2
from openanomaly.core.series import Labels
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb2
from receiving import Answer, now_ms, site, until

VERSIONS = (1, 2)
UP = named("up", instance="a:1", job="node")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_is_answered_204_with_an_empty_body_once_the_broker_has_its_samples(
    version: int, tmp_path: Path
) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path) as s:
            answer = await s.write(version, Series(UP, [(now, 1.5)]), Series(named("down"), [(now, 0.0)]))
            assert (answer.status, answer.text) == (204, "")
            assert answer.written == (None if version == 1 else (2, 0, 0))
            assert await s.samples() == {UP: [(now, 1.5)], named("down"): [(now, 0.0)]}

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("content_type", "encoding", "status"),
    [
        ("application/json", "snappy", 415),
        ("image/png", "snappy", 415),
        ("text/plain", "gzip", 415),
        ("application/x-protobuf;proto=prometheus.Unknown", "snappy", 415),
        ("application/x-protobuf;proto=", "snappy", 415),
        ("application/x-protobuf;proto", "snappy", 415),
        (None, "gzip", 415),
        (None, "deflate", 415),
        (None, "zstd", 415),
        (None, "snappy,snappy", 415),
        (None, "SNAPPY", 204),
    ],
)
def test_media_types_are_judged_before_the_body(
    version: int, content_type: str | None, encoding: str, status: int, tmp_path: Path
) -> None:
    async def run() -> None:
        headers = HEADERS[version] | {"Content-Encoding": encoding}
        if content_type is not None:
            headers["Content-Type"] = content_type
        body = packed(encode(version, [Series(UP, [(now_ms(), 1.0)])]))
        async with site(tmp_path) as s:
            answer = await s.post(body if status == 204 else b"\xff\xff nothing that could be read", headers)
            assert answer.status == status
            if status == 415:
                assert answer.written is None
                assert answer.text.startswith("cannot read ")
                assert s.count("requests_total", version="unknown", code="415") == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-protobuf", v1),
        ("application/x-protobuf; proto=prometheus.WriteRequest", v1),
        ('Application/X-Protobuf; charset=utf-8; Proto="prometheus.WriteRequest"', v1),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", v2),
    ],
)
def test_the_message_is_the_one_that_the_content_type_names(
    content_type: str, body: object, tmp_path: Path
) -> None:
    async def run() -> None:
        series = [Series(UP, [(now_ms(), 1.0)])]
        raw = v1(series) if body is v1 else v2(series)
        async with site(tmp_path) as s:
            answer = await s.post(packed(raw), {"Content-Type": content_type, "Content-Encoding": "snappy"})
            assert answer.status == 204
            assert list(await s.samples()) == [UP]

    asyncio.run(run())


def test_an_old_sender_without_content_headers_speaks_1_0(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            body = packed(v1([Series(UP, [(now_ms(), 1.0)])]))
            answer = await s.session.post(s.url, data=body, skip_auto_headers=["Content-Type"])
            assert answer.status == 204
            assert list(await s.samples()) == [UP]

    asyncio.run(run())


MALFORMED = {
    "nothing": b"",
    "no snappy": b"0123456789 this is not a snappy block",
    "a lie about its size": b"\xff\xff\x03" + b"\x00a",
    "a cut-off block": packed(v1([Series(UP, [(1, 1.0)])]))[:-3],
    "no protobuf": packed(b"\xff" * 40),
    "a cut-off message": packed(v1([Series(UP, [(1, 1.0)])])[:-3]),
    "a series that is no message": packed(b"\x0a\x03\xff\xff\xff" + b"\x2a\x03\xff\xff\xff"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_body_that_cannot_be_read_is_answered_400_and_nothing_is_kept(
    version: int, body: bytes, tmp_path: Path
) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            answer = await s.post(body, HEADERS[version])
            assert answer.status == 400
            assert answer.text.startswith("cannot ")
            assert answer.written == (None if version == 1 else (0, 0, 0))
            assert await s.samples() == {}

    asyncio.run(run())


REFUSED: dict[str, tuple[Labels, str]] = {
    "no labels": ((), "no labels"),
    "no name": ((("instance", "a:1"), ("job", "lonely")), "lonely"),
    "an empty name": ((("__name__", ""), ("job", "hollow")), "hollow"),
    "an empty label name": ((("", "x"), ("__name__", "nameless")), "nameless"),
    "a repeated label": ((("__name__", "twice"), ("a", "1"), ("a", "2")), "'a'"),
    "too many labels": (named("many", **{f"l{i}": "v" for i in range(64)}), "65 labels, limit 64"),
    "a long name": (named("long", **{"n" * 1025: "v"}), "1025 bytes, limit 1024"),
    "a long value": (named("wide", label="v" * 4097), "4097 bytes, limit 4096"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("labels", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_never_pass_is_answered_400_and_the_rest_is_kept(
    version: int, labels: Labels, reason: str, tmp_path: Path
) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path) as s:
            for _ in range(2):  # known or not, it is refused
                answer = await s.write(
                    version,
                    Series(UP, [(now, 1.0)]),
                    Series(labels, [(now, 2.0), (now + 1, 3.0)]),
                    Series(named("other"), [(now, 4.0)]),
                )
                assert answer.status == 400
                assert "wrote 2 of 4 samples" in answer.text
                assert reason in answer.text
                assert answer.written == (None if version == 1 else (2, 0, 0))
            assert set(await s.samples()) == {UP, named("other")}
            assert s.dropped() == {"refused": 4}

    asyncio.run(run())


def test_labels_that_are_not_utf8_are_refused_and_shown(tmp_path: Path) -> None:
    async def run() -> None:
        bad = v1([Series(UP, [(now_ms(), 1.0)])]).replace(b"node", b"n\xffde")
        two = v2([Series(UP, [(now_ms(), 1.0)])]).replace(b"node", b"n\xffde")
        async with site(tmp_path) as s:
            for raw, headers in ((bad, V1_HEADERS), (two, V2_HEADERS)):
                answer = await s.post(packed(raw), headers)
                assert answer.status == 400
                assert "UTF-8" in answer.text
                assert "xff" in answer.text
            assert await s.samples() == {}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("refs", "reason"), [([1, 2, 1], "not pairs"), ([1, 99], "reference 99"), ([1, 2**31], "beyond")]
)
def test_references_beyond_the_symbols_are_refused(refs: list[int], reason: str, tmp_path: Path) -> None:
    async def run() -> None:
        request = pb2.Request(symbols=[b"", b"__name__", b"up"])
        request.timeseries.add(labels_refs=refs).samples.add(timestamp=now_ms(), value=1.0)
        request.timeseries.add(labels_refs=[1, 2]).samples.add(timestamp=now_ms(), value=1.0)
        async with site(tmp_path) as s:
            answer = await s.post(packed(request.SerializeToString()), V2_HEADERS)
            assert (answer.status, answer.written) == (400, (1, 0, 0))
            assert reason in answer.text
            assert list(await s.samples()) == [named("up")]

    asyncio.run(run())


def test_symbols_must_start_with_the_empty_one(tmp_path: Path) -> None:
    async def run() -> None:
        request = pb2.Request(symbols=[b"__name__", b"up"])
        request.timeseries.add(labels_refs=[0, 1]).samples.add(timestamp=now_ms(), value=1.0)
        async with site(tmp_path) as s:
            answer = await s.post(packed(request.SerializeToString()), V2_HEADERS)
            assert (answer.status, answer.written) == (400, (0, 0, 0))

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_reason_has_a_bounded_size_however_much_is_refused(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        series = [Series((("job", f"{i}" * 900),), [(now_ms(), 1.0)]) for i in range(1000)]
        async with site(tmp_path) as s:
            answer = await s.write(version, *series)
            assert answer.status == 400
            assert "and 995 more" in answer.text
            assert len(answer.text) < 8000

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_from_the_future_are_refused_by_name(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        ahead = now + 700_000
        async with site(tmp_path) as s:
            answer = await s.write(
                version, Series(UP, [(now, 1.0), (ahead, 2.0)]), Series(named("ok"), [(now + 590_000, 1.0)])
            )
            assert answer.status == 400
            assert "wrote 2 of 3 samples" in answer.text
            assert str(ahead) in answer.text
            assert "job='node'" in answer.text
            assert "receiver.max_future_s" in answer.text
            assert answer.written == (None if version == 1 else (2, 0, 0))
            assert await s.samples() == {UP: [(now, 1.0)], named("ok"): [(now + 590_000, 1.0)]}
            assert s.dropped() == {"future": 1}

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_request_is_fine(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            answer = await s.write(version)
            assert answer.status == 204
            assert answer.written == (None if version == 1 else (0, 0, 0))

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", [1.0, math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_every_float_passes_as_it_is(version: int, value: float, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path) as s:
            assert (await s.write(version, Series(UP, [(now, value)]))).status == 204
            [(_, got)] = (await s.samples())[UP]
            assert repr(got) == repr(value)

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_any_name_of_utf8_is_a_name(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        odd = [
            named("resource.cpu.usage", **{"job.name": "a"}),
            named("resource cpu usage", **{"a b": "c\nd\n"}),
            named("世界", region="\U0001f30d"),
        ]
        async with site(tmp_path) as s:
            answer = await s.write(version, *(Series(labels, [(now_ms(), 1.0)]) for labels in odd))
            assert answer.status == 204
            assert set(await s.samples()) == set(odd)

    asyncio.run(run())


async def chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_its_limit_is_answered_413(is_chunked: bool, tmp_path: Path) -> None:
    async def run() -> None:
        body = packed(v1([Series(named("m", i=f"{i:0200}"), [(now_ms(), 1.0)]) for i in range(2000)]))
        assert len(body) > 20_000
        async with site(tmp_path, body_limit_bytes=20_000) as s:
            answer = await s.post(chunks(body, 1000) if is_chunked else body)
            assert answer.status == 413
            assert "receiver.body_limit_bytes" in answer.text
            assert await s.samples() == {}
            assert s.count("in_flight_bytes") == 0

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_body_that_unpacks_to_too_much_is_answered_413_before_it_is_unpacked(
    version: int, tmp_path: Path
) -> None:
    async def run() -> None:
        async with site(tmp_path, unpacked_limit_bytes=100_000) as s:
            answer = await s.post(packed(bytes(100_001)), HEADERS[version])
            assert answer.status == 413
            assert "100001 bytes unpacked, limit 100000" in answer.text
            assert "receiver.unpacked_limit_bytes" in answer.text
            assert answer.written == (None if version == 1 else (0, 0, 0))

    asyncio.run(run())


def test_chunked_bodies_are_read_whole(tmp_path: Path) -> None:
    async def run() -> None:
        series = [Series(named("m", i=f"{i:050}"), [(now_ms(), float(i))]) for i in range(500)]
        async with site(tmp_path) as s:
            assert (await s.post(chunks(packed(v1(series)), 700))).status == 204
            assert len(await s.samples()) == 500

    asyncio.run(run())


def unavailable(answer: Answer, version: int) -> None:
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) == 7
    assert answer.written == (None if version == 1 else (0, 0, 0))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_full_disk_is_answered_503_with_retry_after_and_counted(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path, disk_limit_bytes=1, retry_after_s=7) as s:
            answer = await s.write(version, Series(UP, [(now_ms(), 1.0)]))
            unavailable(answer, version)
            assert "broker.disk_limit_bytes" in answer.text
            assert s.dropped() == {"unavailable": 1}
            assert s.count("samples_total") == 1

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broker_that_does_not_answer_in_time_is_answered_503(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path, publish_timeout_s=0.2, retry_after_s=7) as s:
            release = asyncio.Event()
            broker = s.app.producer_transport.broker
            writer = asyncio.create_task(broker._on_writer(_hold, asyncio.get_running_loop(), release))
            answer = await s.write(version, Series(UP, [(now_ms(), 1.0)]))
            unavailable(answer, version)
            assert "did not confirm" in answer.text
            release.set()
            await writer
            # What the sender repeats is taken.
            assert (await s.write(version, Series(UP, [(now_ms(), 1.0)]))).status == 204

    asyncio.run(run())


def _hold(loop: asyncio.AbstractEventLoop, release: asyncio.Event) -> None:
    """Keeps the broker's only writer busy until `release`: a disk that hangs."""
    asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)


def test_too_much_in_flight_is_answered_503_and_passes_later(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path, in_flight_limit_bytes=1 << 20, retry_after_s=7) as s:
            filling, taken = asyncio.Event(), asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                yield bytes(900_000)
                filling.set()
                await asyncio.wait_for(taken.wait(), 30)
                yield bytes(1)

            first = asyncio.create_task(s.post(slow()))
            await asyncio.wait_for(filling.wait(), 30)
            await until(lambda: s.count("in_flight_bytes") >= 900_000)
            series = [Series(named("m", i=f"{i:0200}"), [(now_ms(), 1.0)]) for i in range(1000)]
            answer = await s.write(1, *series)
            unavailable(answer, 1)
            assert "receiver.in_flight_limit_bytes" in answer.text
            taken.set()
            assert (await first).status == 400
            assert (await s.write(1, *series)).status == 204
            assert s.count("in_flight_bytes") == 0

    asyncio.run(run())


def test_a_request_alone_is_never_too_much(tmp_path: Path) -> None:
    async def run() -> None:
        series = [Series(named("m", i=f"{i:0200}"), [(now_ms(), 1.0)]) for i in range(8000)]
        assert len(v1(series)) > 1 << 20
        async with site(tmp_path, in_flight_limit_bytes=1 << 20) as s:
            assert (await s.write(1, *series)).status == 204
            assert len(await s.samples()) == 8000

    asyncio.run(run())


def test_a_sender_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            host, port = s.url.split("/")[2].split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + bytes(10)
            )
            await writer.drain()
            await until(lambda: s.count("in_flight_bytes") > 0)
            writer.close()
            await until(lambda: s.count("in_flight_bytes") == 0)
            assert (await s.write(1, Series(UP, [(now_ms(), 1.0)]))).status == 204

    asyncio.run(run())
