"""Encoding against the full schema: labels, values and order of what a request then holds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from messages import named
from openanomaly.adapters.remote_write.encode import ScoreEncoder, pack
from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import Labels, canonical
from openanomaly.core.stale import STALE_BITS
from openanomaly.errors import MalformedRequestError
from scores import MARKER, NOW_MS, Sample, samples, score_frame

LOAD = [named("load", host="a"), named("load", host="b"), named("load", host="c")]


def encoded(encoder: ScoreEncoder, frame: ScoreFrame) -> list[Sample]:
    return samples(pack(encoder.encode(frame).parts))


def expected_labels(labels: Labels, output: str, pipeline: str, external: dict[str, str]) -> Labels:
    """The rule, in plain words: own labels win over external ones, and give way to ours by a prefix."""
    own = dict(labels)
    name = own.pop("__name__", None)
    ours = {"__name__": output, "pipeline": pipeline} | ({"for": name} if name else {})
    for key in ("for", "pipeline"):
        if key in own:
            value, other = own.pop(key), f"exported_{key}"
            while other in own:
                other = f"exported_{other}"
            own[other] = value
    return tuple(sorted({**external, **own, **ours}.items()))


names = st.one_of(strategies.texts, st.sampled_from(["for", "pipeline", "exported_for", "__name__", "dc"]))


@given(
    st.lists(st.dictionaries(names, strategies.texts, min_size=1, max_size=6), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["dc", "team", "host"]), strategies.texts, max_size=3),
    st.integers(1, 6),
)
def test_every_score_is_a_sample_with_the_labels_of_its_series(
    found: list[dict[str, str]], external: dict[str, str], known: int
) -> None:
    """Whatever the labels are, seen before or not, and however few series are remembered."""
    outputs = ("anomaly_score", "yhat")
    encoder = ScoreEncoder(outputs, external, known=known)
    labels = [canonical(x.items()) for x in found]
    frame = score_frame(labels, pipeline="p1")
    want = [
        (expected_labels(x, output, "p1", external), NOW_MS, values[i])
        for output, values in (("anomaly_score", frame.score), ("yhat", frame.expected[:, 0]))
        for i, x in enumerate(labels)
    ]
    assert encoded(encoder, frame) == want
    assert encoded(encoder, frame) == want


def test_each_output_is_a_series_of_its_own() -> None:
    encoder = ScoreEncoder(("anomaly_score", "yhat", "yhat_lower", "yhat_upper", "y"))
    found = encoded(encoder, score_frame(LOAD[:1], score=[0.5], expected=[[3.0, 1.0, 5.0]]))
    assert [(dict(labels)["__name__"], value) for labels, _, value in found] == [
        ("anomaly_score", 0.5),
        ("yhat", 3.0),
        ("yhat_lower", 1.0),
        ("yhat_upper", 5.0),
        ("y", 0.0),
    ]
    assert {dict(labels)["for"] for labels, _, _ in found} == {"load"}


def test_labels_of_the_pipeline_win_over_external_ones() -> None:
    encoder = ScoreEncoder(
        external_labels={"team": "all", "dc": "x"},
        pipelines=[Pipeline(name="p1", labels={"team": "infra"}), Pipeline(name="p2")],
    )
    first, second = (
        dict(encoded(encoder, score_frame(LOAD[:1], pipeline=name))[0][0]) for name in ("p1", "p2")
    )
    assert first == {
        "__name__": "anomaly_score",
        "dc": "x",
        "for": "load",
        "host": "a",
        "pipeline": "p1",
        "team": "infra",
    }
    assert second == {**first, "pipeline": "p2", "team": "all"}


def written(encoder: ScoreEncoder, pipeline: str) -> list[tuple[str, str | None]]:
    """Name and label `team` of each series."""
    found = [dict(labels) for labels, _, _ in encoded(encoder, score_frame(LOAD[:1], pipeline=pipeline))]
    return [(labels["__name__"], labels.get("team")) for labels in found]


def test_a_pipeline_says_what_is_written_of_it() -> None:
    wide = Pipeline(name="wide", output={"series": ("anomaly_score", "y")})
    encoder = ScoreEncoder(("anomaly_score", "yhat"), pipelines=[wide, Pipeline(name="usual")])

    assert written(encoder, "wide") == [("anomaly_score", None), ("y", None)]
    assert written(encoder, "usual") == [("anomaly_score", None), ("yhat", None)]


def test_other_definitions_hold_from_the_next_frame_on() -> None:
    encoder = ScoreEncoder(pipelines=[Pipeline(name="a"), Pipeline(name="b")])
    assert written(encoder, "a") == written(encoder, "b") == [("anomaly_score", None)]

    encoder.redefine([Pipeline(name="a", labels={"team": "x"}, output={"series": ["y"]}), Pipeline(name="b")])

    assert written(encoder, "a") == [("y", "x")]
    assert written(encoder, "b") == [("anomaly_score", None)]
    encoder.redefine([])
    assert written(encoder, "a") == [("anomaly_score", None)]


def test_a_long_label_and_a_request_of_many_series() -> None:
    labels = [named("m", path="/" * length, i=str(length)) for length in [*range(100, 140), 16_000, 20_000]]
    found = encoded(ScoreEncoder(), score_frame(labels))
    assert [dict(x)["path"] for x, _, _ in found] == [dict(x)["path"] for x in labels]


def test_the_end_of_an_episode_is_a_staleness_marker_for_every_output() -> None:
    frame = score_frame(LOAD, flags=[ScoreFlag.OPEN, MARKER, ScoreFlag.END], expected=[[math.nan] * 3] * 3)
    found = encoded(ScoreEncoder(("anomaly_score", "yhat")), frame)
    bits = [(dict(x)["__name__"], dict(x)["host"], np.float64(v).view(np.uint64)) for x, _, v in found]
    assert bits[1] == ("anomaly_score", "b", STALE_BITS)
    assert bits[3] == ("yhat", "b", STALE_BITS)
    assert [(name, host) for name, host, _ in bits] == [
        ("anomaly_score", "a"),
        ("anomaly_score", "b"),
        ("anomaly_score", "c"),
        ("yhat", "b"),
    ]


def test_what_is_not_for_the_target_is_left_out_and_counted() -> None:
    flags = [0, ScoreFlag.SILENT, 0, 0, 0]
    times = [NOW_MS, NOW_MS, -1, 1 << 42, (1 << 42) - 1]
    frame = score_frame(LOAD[:1], row=[0] * 5, flags=flags, timestamp_ms=times)
    found = ScoreEncoder().encode(frame)
    assert found.skipped == {"silent": 1, "timestamp": 2}
    assert found.row.tolist() == [0, 4]
    assert [t for _, t, _ in samples(pack(found.parts))] == [NOW_MS, (1 << 42) - 1]


@given(st.lists(st.integers(0, (1 << 42) - 1), min_size=1, max_size=20))
def test_timestamps_are_exact(times: list[int]) -> None:
    frame = score_frame(LOAD[:1], row=[0] * len(times), timestamp_ms=times)
    assert [t for _, t, _ in encoded(ScoreEncoder(), frame)] == times


@given(st.lists(strategies.values, min_size=1, max_size=10))
def test_values_are_exact_and_a_value_that_is_not_known_is_left_out(values: list[float]) -> None:
    frame = score_frame(LOAD[:1], row=[0] * len(values), expected=[[v, 0, 0] for v in values])
    found = [v for _, _, v in encoded(ScoreEncoder(("yhat",)), frame)]
    assert [str(v) for v in found] == [str(v) for v in values if not math.isnan(v)]


def test_a_score_shows_the_digits_it_has() -> None:
    frame = score_frame(LOAD[:1], row=[0] * 3, score=[0.1, 1.01, 10.0])
    assert [v for _, _, v in encoded(ScoreEncoder(), frame)] == [0.1, 1.01, 10.0]


def test_steps_of_one_series_keep_their_order() -> None:
    frame = score_frame(LOAD, row=[2, 0, 2, 1, 2], timestamp_ms=[1, 2, 3, 4, 5])
    assert [(dict(x)["host"], t) for x, t, _ in encoded(ScoreEncoder(), frame)] == [
        ("c", 1),
        ("a", 2),
        ("c", 3),
        ("b", 4),
        ("c", 5),
    ]


@pytest.mark.parametrize("block", [b"\x0a\x05\x0a\x01a\x12", b"x", b"\x0a"])
def test_labels_that_cannot_be_read_are_refused(block: bytes) -> None:
    frame = score_frame(LOAD[:1])
    series = type(frame.series)(
        frame.series.ids, np.array([0, len(block)], np.uint32), block, frame.series.kind
    )
    broken = ScoreFrame(
        **{name: getattr(frame, name) for name in ScoreFrame.__slots__ if name != "series"}, series=series
    )
    with pytest.raises(MalformedRequestError):
        ScoreEncoder().encode(broken)


GROUPS = [named("anomaly_rate", job="a", pipeline="p1"), named("anomaly_rate", job="b", pipeline="p1")]


def test_shares_of_groups_are_written_whatever_else_is_and_the_band_and_score_say_for_what() -> None:
    pipelines = [Pipeline(name="p1", labels={"team": "infra"}, output={"series": ["y", "yhat"]})]
    encoder = ScoreEncoder(external_labels={"dc": "x"}, pipelines=pipelines)
    frame = replace(score_frame(GROUPS, pipeline="p1"), of_groups=True)
    ours = {"dc": "x", "team": "infra", "pipeline": "p1"}
    assert [(dict(labels), value) for labels, _, value in encoded(encoder, frame)] == [
        ({"__name__": "anomaly_rate", "job": "a", **ours}, 0.0),
        ({"__name__": "anomaly_rate", "job": "b", **ours}, 1.0),
        ({"__name__": "yhat", "for": "anomaly_rate", "job": "a", **ours}, 0.25),
        ({"__name__": "yhat", "for": "anomaly_rate", "job": "b", **ours}, 1.25),
    ]


def test_a_group_that_is_too_young_for_a_score_has_its_share() -> None:
    frame = replace(score_frame(GROUPS, pipeline="p1", score=[math.nan, 2.5]), of_groups=True)
    found = encoded(ScoreEncoder(), frame)
    assert [(dict(labels)["__name__"], dict(labels)["job"], value) for labels, _, value in found] == [
        ("anomaly_rate", "a", 0.0),
        ("anomaly_rate", "b", 1.0),
        ("anomaly_score", "b", 2.5),
    ]
    assert ScoreEncoder().encode(frame).skipped == {}


def test_series_and_groups_of_one_pipeline_are_told_apart() -> None:
    encoder = ScoreEncoder()
    groups = replace(score_frame(GROUPS, pipeline="p1"), of_groups=True)
    for _ in range(2):
        assert len(encoded(encoder, groups)) == 4
        assert len(encoded(encoder, score_frame(LOAD, pipeline="p1"))) == 3
    encoder.redefine([Pipeline(name="p1", labels={"team": "infra"})])
    assert dict(encoded(encoder, groups)[0][0])["team"] == "infra"
