"""The client of databases against a server that misbehaves. Real ones: tests/contract/tsdb_client."""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from answering import EMPTY, Answer, Asked, Server, wait_for
from messages import named
from openanomaly.adapters.prometheus import PrometheusAdapter, QueryLimits
from openanomaly.adapters.remote_write.client import Target
from openanomaly.adapters.remote_write.encode import ScoreEncoder, pack
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.tsdb_client import Written
from openanomaly.core.series import encode_labels
from openanomaly.errors import (
    AnswerTooLargeError,
    ConfigError,
    QueryRejectedError,
    TsdbUnavailableError,
)
from parts.part import HOST, free_port
from scores import samples, score_frame

QUICK: dict[str, Any] = {"backoff_min_s": 0.001, "backoff_max_s": 0.01, "timeout_s": 5.0}
ONE = json.dumps(
    {"data": {"resultType": "vector", "result": [{"metric": {"a": "b"}, "value": [12.345, "7"]}]}}
).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as found:
        yield found


def adapter(server: Server, retries: int = 3, path: str = "", **settings: Any) -> PrometheusAdapter:
    target = Target(**{"url": server.url + path, **QUICK, **settings})
    return PrometheusAdapter(target, target, QueryLimits(retries=retries))


def test_a_query_is_what_a_database_expects(server: Server) -> None:
    server.rule = lambda asked: Answer(body=ONE)
    client = adapter(server, path="/prometheus/", headers={"X-Scope-OrgID": "tenant-1"})
    found = client.instant_query('up{a="b"}', 12_345)
    assert (found.blocks, found.timestamp_ms.tolist(), found.value.tolist()) == (
        [encode_labels((("a", "b"),))],
        [12_345],
        [7.0],
    )
    (asked,) = server.asked
    assert asked.path == "/prometheus/api/v1/query"
    assert asked.headers["X-Scope-OrgID"] == "tenant-1"
    assert "Authorization" not in asked.headers
    form = asked.form
    assert (form["query"], form["time"], form["timeout"]) == ('up{a="b"}', "12.345", "5s")


def test_parts_of_a_range_meet_without_a_gap_or_an_overlap(server: Server) -> None:
    target = Target(server.url, **QUICK)
    client = PrometheusAdapter(target, limits=QueryLimits(points_limit=10))
    client.range_query("x", 1_000, 30_499, 500)
    asked = [(a.form["start"], a.form["end"], a.form["step"]) for a in server.asked]
    assert asked[:2] == [("1", "5.500", "0.500"), ("6", "10.500", "0.500")]
    assert asked[-1] == ("26", "30.499", "0.500")
    assert len(asked) == 6


def test_a_series_that_is_in_some_parts_only_is_one_series(server: Server) -> None:
    def answer(asked: Asked) -> Answer:
        start = int(asked.form["start"])
        rows = [{"metric": {"a": "x"}, "values": [[start, str(start)], [start + 1, "NaN"]]}]
        rows += [{"metric": {"a": "y"}, "values": [[start, "-Inf"]]}] if start == 2 else []
        return Answer(body=json.dumps({"data": {"resultType": "matrix", "result": rows[::-1]}}).encode())

    server.rule = answer
    client = PrometheusAdapter(Target(server.url, **QUICK), limits=QueryLimits(points_limit=2))
    found = client.range_query("x", 0, 5_000, 1_000)
    x, y = (found.blocks.index(encode_labels((("a", name),))) for name in "xy")
    assert len(found.blocks) == 2
    assert found.timestamp_ms[found.row == x].tolist() == [0, 1000, 2000, 3000, 4000, 5000]
    np.testing.assert_array_equal(found.value[found.row == x], [0, np.nan, 2, np.nan, 4, np.nan])
    assert found.timestamp_ms[found.row == y].tolist() == [2000]


@pytest.mark.parametrize("answer", [429, 500, 502, 503, 504, 408, "close"])
def test_what_may_pass_soon_is_tried_again(server: Server, answer: int | str) -> None:
    wrong = Answer(how=answer) if isinstance(answer, str) else Answer(status=answer, body=b"busy")
    server.script = [wrong] * 3
    assert len(adapter(server).range_query("x", 0, 1000, 1000)) == 0
    assert len(server.asked) == 4
    server.script = [wrong] * 4
    with pytest.raises(TsdbUnavailableError, match=r"cannot be reached|answers \d+: busy"):
        adapter(server).range_query("x", 0, 1000, 1000)
    assert server.script == []


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405])
def test_what_a_person_must_heal_is_not_tried_again(server: Server, status: int) -> None:
    server.script = [Answer(status=status, body=b"no", headers={"Location": "http://elsewhere/"})]
    says = {301: "Moved", 307: "Temporary", 401: r"pull\.bearer_token", 403: r"pull\.bearer_token"}
    with pytest.raises(TsdbUnavailableError, match=rf"answers {status}: .*{says.get(status, 'no')}"):
        adapter(server).range_query("x", 0, 1000, 1000)
    assert len(server.asked) == 1


@pytest.mark.parametrize("how", ["hang", "dribble"])
def test_an_answer_that_takes_too_long_is_none(server: Server, how: str) -> None:
    server.rule = lambda asked: Answer(how=how, body=EMPTY * 50)
    with pytest.raises(TsdbUnavailableError, match=r"no answer within 0.3 s \(pull.timeout_s\)"):
        adapter(server, timeout_s=0.3, retries=1).range_query("x", 0, 1000, 1000)
    assert len(server.asked) == 2


def test_retry_after_is_waited_for_and_closing_ends_the_wait(server: Server) -> None:
    server.rule = lambda asked: Answer(status=429, body=b"busy", headers={"Retry-After": "250"})
    client = adapter(server)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            client.instant_query("x", 0)
        except TsdbUnavailableError as exc:
            errors.append(exc)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: len(server.asked) == 1)
    thread.join(0.2)
    assert thread.is_alive(), "it waits"
    client.close()
    thread.join(30)
    assert len(server.asked) == 1
    assert len(errors) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_query_is_named(server: Server, status: int) -> None:
    body = json.dumps({"status": "error", "errorType": "bad_data", "error": "parse\n error"}).encode()
    server.rule = lambda asked: Answer(status=status, body=body)
    with pytest.raises(QueryRejectedError, match=rf"query 'x{{300}}…': {status} bad_data: parse error"):
        adapter(server).range_query("x" * 5000, 0, 1000, 1000)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data":null}',
        b'{"data":{"resultType":"string","result":[0,"x"]}}',
        b'{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"x"]]}]}}',
        b'{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2",3]]}]}}',
        b'{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]',
        b'{"data":{"resultType":"vector","result":[{"metric":{"a":1},"value":[1,"2"]}]}}',
    ],
)
def test_what_is_no_answer_is_none(server: Server, body: bytes) -> None:
    server.rule = lambda asked: Answer(body=body)
    with pytest.raises(TsdbUnavailableError, match="does not answer as a query API"):
        adapter(server, retries=0).range_query("x", 0, 1000, 1000)


def test_an_answer_with_blanks_is_read_too(server: Server) -> None:
    rows = [{"metric": {}, "values": [[1, "1.5"], [2.5, "NaN"]]}, {"metric": {"h": "i"}, "histograms": []}]
    answer = {"data": {"resultType": "matrix", "result": rows}, "warnings": ["w"], "isPartial": True}
    server.rule = lambda asked: Answer(body=json.dumps(answer, indent=2).encode())
    found = adapter(server).range_query("x", 0, 1000, 1000)
    assert (found.blocks, found.timestamp_ms.tolist()) == ([b""], [1000, 2500])
    assert found.warnings == ("w", "a part of the data was away")


def test_a_packed_answer_counts_as_what_it_unpacks_to(server: Server) -> None:
    body = gzip.compress(EMPTY + b" " * 1_000_000)
    server.rule = lambda asked: Answer(body=body, headers={"Content-Encoding": "gzip"})
    assert len(adapter(server).instant_query("x", 0)) == 0
    client = PrometheusAdapter(Target(server.url, **QUICK), limits=QueryLimits(answer_limit_bytes=1_000_000))
    with pytest.raises(AnswerTooLargeError, match=r"pull\.answer_limit_bytes"):
        client.instant_query("x", 0)
    assert len(server.asked) == 2, "asking again would not make it smaller"


def guarded(server: Server, wanted: str) -> None:
    server.rule = lambda asked: Answer(status=200 if asked.headers.get("Authorization") == wanted else 401)


def test_a_token_is_read_again(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    guarded(server, "Bearer old")
    client = adapter(server, bearer_token_file=str(file))
    client.instant_query("x", 0)
    guarded(server, "Bearer new")
    with pytest.raises(TsdbUnavailableError, match="401"):
        client.instant_query("x", 0)
    file.write_text("new\n")
    client.instant_query("x", 0)
    file.unlink()
    with pytest.raises(TsdbUnavailableError, match=r"pull\.bearer_token_file"):
        client.instant_query("x", 0)


@pytest.mark.parametrize("where", ["settings", "file", "url"])
def test_basic_authentication(server: Server, tmp_path: Path, where: str) -> None:
    (tmp_path / "password").write_text("p:ä\n")
    guarded(server, "Basic dXNlcjpwOsOk")  # user:p:ä
    settings: dict[str, Any] = {
        "settings": {"username": "user", "password": "p:ä"},
        "file": {"username": "user", "password_file": str(tmp_path / "password")},
        "url": {"url": server.url.replace("http://", "http://user:p%3A%C3%A4@")},
    }[where]
    client = adapter(server, **settings)
    client.instant_query("x", 0)
    assert client.shown == server.url


def test_passwords_of_the_environment_are_not_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine {HOST} login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://{HOST}:1")
    guarded(server, "Bearer mine")
    adapter(server, bearer_token="mine").instant_query("x", 0)


def server_tls(authority: trustme.CA, clients: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(context)
    return context


def test_tls_with_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    authority, ours, other = trustme.CA(), trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pem, key = tmp_path / "client.pem", tmp_path / "client.key"

    def issue(issuer: trustme.CA) -> None:
        made = issuer.issue_cert("openanomaly")
        key.write_bytes(made.private_key_pem.bytes())
        pem.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    issue(other)
    files = {"ca_file": str(tmp_path / "ca.pem"), "cert_file": str(pem), "key_file": str(key)}
    with Server().running(server_tls(authority, ours)) as server:
        client = adapter(server, retries=1, **files)
        with pytest.raises(TsdbUnavailableError, match="cannot be reached"):
            client.instant_query("x", 0)
        assert server.asked == []
        issue(ours)
        client.instant_query("x", 0)
        assert len(server.asked) == 1
        with pytest.raises(TsdbUnavailableError, match="certificate"):  # not of the system's authorities
            adapter(server, retries=0).instant_query("x", 0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bearer_token_file": "/nowhere"}, "pull.bearer_token_file=/nowhere"),
        ({"username": "u"}, "pull.username=u needs"),
        ({"username": "u", "password": "p", "bearer_token": "t"}, "both set"),
        ({"ca_file": "/nowhere"}, "/nowhere"),
        ({"key_file": "/nowhere"}, "needs pull.cert_file"),
    ],
)
def test_settings_that_cannot_work_refuse_to_start(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PrometheusAdapter(Target(f"http://{HOST}:{free_port()}", **settings))


def test_secrets_are_not_shown() -> None:
    port = free_port()
    client = PrometheusAdapter(Target(f"http://me:hidden@{HOST}:{port}/x?key=hidden", **QUICK))
    assert client.shown == f"http://{HOST}:{port}/x"
    with pytest.raises(TsdbUnavailableError, match="cannot be reached") as caught:
        client.instant_query("x", 0)
    assert "hidden" not in str(caught.value)


# -- scores ----------------------------------------------------------------------------------------


def test_scores_are_those_that_the_sink_writes(server: Server) -> None:
    frames = [
        score_frame([named("load", host=h) for h in "ab"], score=[0.5, 1.5], pipeline="p"),
        score_frame([()], score=[2.5], pipeline="p"),
    ]
    encoder = ScoreEncoder(
        ("anomaly_score", "yhat"), {"site": "lab"}, [Pipeline(name="p", labels={"team": "infra"})]
    )
    server.rule = lambda asked: Answer(status=204, body=b"")
    target = Target(server.url, **QUICK)
    client = PrometheusAdapter(target, target, encoder=encoder)
    assert client.write(frames) == Written(3, 6)
    (asked,) = server.asked
    assert asked.path == "/api/v1/write"
    assert asked.headers["Content-Encoding"] == "snappy"
    expected = [part for frame in frames for part in encoder.encode(frame).parts]
    assert samples(asked.body) == samples(pack(expected))
    alone = (("__name__", "anomaly_score"), ("pipeline", "p"), ("site", "lab"), ("team", "infra"))
    assert alone in [labels for labels, _, _ in samples(asked.body)]


def test_scores_that_are_refused_do_not_take_others_along(server: Server) -> None:
    def answer(asked: Asked) -> Answer:
        is_bad = any(dict(labels)["host"] == "c" for labels, _, _ in samples(asked.body))
        return Answer(status=400, body=b"out of bounds") if is_bad else Answer(status=204, body=b"")

    server.rule = answer
    frame = score_frame([named("load", host=h) for h in "abcdefg"], score=[0.5] * 7)
    written = adapter(server).write([frame])
    assert (written.scores, written.samples, written.dropped) == (6, 6, {"rejected": 1})
    assert "out of bounds" in written.words


def test_behind_a_wrong_path_nothing_is_refused_for_good(server: Server) -> None:
    """VictoriaMetrics answers 400 there: for ever, and to everything."""
    server.rule = lambda asked: Answer(status=400, body=b"unsupported path")
    client, frame = adapter(server), score_frame([named("load", host="a")], score=[0.5])
    with pytest.raises(TsdbUnavailableError, match=r"unsupported path \(even without samples.*sink\.url"):
        client.write([frame])
    server.rule = lambda asked: Answer(status=204, body=b"")
    assert client.write([frame]) == Written(1, 1)
    server.rule = lambda asked: Answer(status=400, body=b"too old")
    server.asked.clear()
    assert client.write([frame]) == Written(0, 0, {"rejected": 1}, server_says(server, "too old"))
    assert len(server.asked) == 1, "a target that took something is believed"


def server_says(server: Server, words: str) -> str:
    return f"{server.url}/api/v1/write answers 400: {words}"


def test_scores_for_a_target_that_is_away_are_not_written(server: Server) -> None:
    server.rule = lambda asked: Answer(status=503)
    with pytest.raises(TsdbUnavailableError, match="503"):
        adapter(server, retries=2).write([score_frame([named("load", host="a")], score=[0.5])])
    assert len(server.asked) == 3


def test_without_a_target_scores_are_counted() -> None:
    client = PrometheusAdapter(Target(f"http://{HOST}:{free_port()}"))
    frame = score_frame([named("load", host="a")], score=[0.5])
    assert client.write([frame]) == Written(0, 0, {"no_target": 1})
