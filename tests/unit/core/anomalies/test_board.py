"""What is kept of scores, and which series are anomalous."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.core.anomalies.board import Board, Limits
from openanomaly.core.anomalies.report import gauges
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.series_column import SeriesColumn
from scores import MARKER, NOW_MS
from unit.core.anomalies.boards import (
    END,
    OPEN,
    START,
    STEP_MS,
    board,
    census,
    give,
    hosts,
    names,
    series,
    shown,
    step,
)

FLEET = hosts(4)


def test_a_series_is_anomalous_from_the_start_of_an_episode_to_its_end() -> None:
    found = board(*(step(FLEET, n) for n in range(5)))
    assert shown(found)["summary"]["anomalous"] == 0
    give(found, step(FLEET, 5, {2: START}))
    give(found, step(FLEET, 6, {2: OPEN}, {2: 3.0}))
    give(found, step(FLEET, 7, {2: OPEN}, {2: 0.5}))
    answer = shown(found)
    [anomaly] = answer["anomalies"]
    assert answer["summary"]["anomalous"] == 1
    assert anomaly["labels"] == {"__name__": "load", "instance": "host-2", "job": "node"}
    assert (anomaly["state"], anomaly["since_ms"]) == ("open", NOW_MS + 5 * STEP_MS)
    assert (anomaly["score"], anomaly["peak"]["score"]) == (0.5, 3.0)
    assert anomaly["peak"]["time_ms"] == NOW_MS + 6 * STEP_MS
    assert anomaly["expected"] == {"median": 2.25, "lower": 1.0, "upper": 3.0}
    assert anomaly["is_start_known"]
    give(found, step(FLEET, 8, {2: END}, {2: 0.1}))
    answer = shown(found)
    assert answer["summary"]["anomalous"] == 0
    assert (answer["anomalies"][0]["state"], answer["anomalies"][0]["ended_ms"]) == (
        "ended",
        NOW_MS + 8 * STEP_MS,
    )


def test_a_chart_begins_before_its_episode_and_has_no_steps_of_normal_series() -> None:
    frames = [step(FLEET, n) for n in range(10)] + [step(FLEET, 10, {1: START})]
    found = board(*frames, lead_steps=4)
    [anomaly] = shown(found)["anomalies"]
    assert anomaly["steps"]["time_ms"] == [NOW_MS + n * STEP_MS for n in range(7, 11)]
    assert anomaly["steps"]["is_open"] == [False, False, False, True]
    assert len(found.tracks.held) == 1


def test_of_a_long_episode_the_newest_steps_are_kept() -> None:
    frames = [step(FLEET, 0, {0: START})] + [step(FLEET, n, {0: OPEN}) for n in range(1, 30)]
    [anomaly] = shown(board(*frames, steps=8))["anomalies"]
    assert anomaly["steps"]["time_ms"] == [NOW_MS + n * STEP_MS for n in range(22, 30)]
    assert anomaly["since_ms"] == NOW_MS


def times(found: Board) -> list[int]:
    """Numbers of the steps on the chart of the only anomaly."""
    [anomaly] = shown(found)["anomalies"]
    return [(time_ms - NOW_MS) // STEP_MS for time_ms in anomaly["steps"]["time_ms"]]


def test_an_ended_episode_stays_on_its_chart_and_the_next_one_follows() -> None:
    found = board(step(FLEET, 0, {0: START}), step(FLEET, 1, {0: END}), lead_steps=3, steps=12)
    for n in range(2, 8):
        give(found, step(FLEET, n))
    assert times(found) == [0, 1, 2, 3, 4]
    assert shown(found)["anomalies"][0]["newest_ms"] == NOW_MS + 7 * STEP_MS
    give(found, step(FLEET, 8, {0: START}))
    assert times(found) == [0, 1, 2, 3, 4, 6, 7, 8]
    [anomaly] = shown(found)["anomalies"]
    assert (anomaly["state"], anomaly["since_ms"]) == ("open", NOW_MS + 8 * STEP_MS)


def test_a_chart_has_no_episode_of_long_ago() -> None:
    found = board(step(FLEET, 0, {0: START}), step(FLEET, 1, {0: END}), lead_steps=3, steps=12)
    for n in range(2, 40):
        give(found, step(FLEET, n))
    give(found, step(FLEET, 40, {0: START}))
    assert times(found) == [38, 39, 40]


def test_of_an_episode_whose_start_was_not_seen_that_is_said() -> None:
    [anomaly] = shown(board(step(FLEET, 3, {0: OPEN}), step(FLEET, 4, {0: OPEN})))["anomalies"]
    assert (anomaly["since_ms"], anomaly["is_start_known"]) == (NOW_MS + 3 * STEP_MS, False)


@pytest.mark.parametrize("after", [{}, {0: END}], ids=["a step outside it", "its end"])
def test_an_episode_whose_end_was_not_seen_ends_with_the_next_step(after: dict[int, int]) -> None:
    found = board(step(FLEET, 0, {0: START}), step(FLEET, 9, after))
    assert shown(found)["anomalies"][0]["ended_ms"] == NOW_MS + 9 * STEP_MS


def test_steps_that_come_again_or_late_change_nothing() -> None:
    frames = [step(FLEET, n, {0: START if n == 2 else OPEN} if n >= 2 else {}) for n in range(6)]
    once, twice = board(*frames), board(*frames, *frames[1:4])
    assert shown(once)["anomalies"] == shown(twice)["anomalies"]
    assert twice.counts["repeated"] == 3 * 4
    assert twice.counts["in"] == twice.counts["taken"] + twice.counts["repeated"] + twice.counts["left_out"]


def test_now_is_the_newest_step_of_a_series_however_long_ago_its_events_are() -> None:
    # History is replayed: a day of events in a second, of two sources that are months apart.
    old, new = hosts(2, "old"), hosts(2, "new")
    found = board()
    for n in range(300):
        for labels, shift in ((old, -10_000_000), (new, 0)):
            frame = step(labels, n, {0: START if n == 280 else OPEN} if n >= 280 else {})
            moved = replace(frame, timestamp_ms=frame.timestamp_ms + shift * 1000, closed_ms=NOW_MS + n * 10)
            found.take(moved, moved.closed_ms)
    answer = shown(found)
    assert answer["summary"]["anomalous"] == 2
    assert [(g["name"], g["anomalous"], g["series"]) for g in answer["groups"]] == [
        ("old", 1, 2),
        ("new", 1, 2),
    ]


def test_what_began_last_stands_first_and_of_one_moment_the_highest_score() -> None:
    found = board(
        step(FLEET, 0, {0: START, 1: START}, {0: 1.5, 1: 4.0}),
        step(FLEET, 1, {0: OPEN, 1: OPEN, 3: START}, {3: 1.1}),
        step(FLEET, 2, {0: OPEN, 1: OPEN, 2: START, 3: END}),
    )
    assert names(shown(found)) == ["host-2", "host-1", "host-0", "host-3"]


def test_a_series_that_vanished_in_its_episode_is_no_longer_anomalous_now() -> None:
    found = board(step(FLEET, 0, {0: START}))
    for n in range(1, 12):
        give(found, step(FLEET[1:], n))
    answer = shown(found)
    assert answer["summary"]["anomalous"] == 0
    assert [a["state"] for a in answer["anomalies"]] == ["away"]
    assert [(g["series"], g["anomalous"]) for g in answer["groups"]] == [(3, 0)]


def test_who_went_away_stands_behind_what_is_open_and_before_what_ended_the_latest_first() -> None:
    fleet = hosts(6)
    found = board(step(fleet, 0, dict.fromkeys(range(4), int(START))))
    give(found, step(fleet[1:], 1, {0: OPEN, 1: OPEN, 2: END}))  # host-0 is away, host-3 over
    give(found, step(fleet[2:], 2, {0: OPEN}))  # host-1 too
    for n in range(3, 12):  # and host-2
        give(found, step(fleet[3:], n, {2: START} if n == 11 else {}))
    answer = shown(found)
    assert names(answer) == ["host-5", "host-2", "host-1", "host-0", "host-3"]
    assert [a["state"] for a in answer["anomalies"]] == ["open", "away", "away", "away", "ended"]
    assert (answer["summary"]["anomalous"], answer["summary"]["away"]) == (1, 3)


def test_where_room_is_short_what_is_over_gives_way_then_who_went_away_then_lower_peaks() -> None:
    fleet = hosts(8)
    found = board(
        step(fleet, 0, {0: START, 1: START, 2: START}, {0: 9.0, 1: 9.0, 2: 3.0}),
        step(fleet[1:], 1, {0: END, 1: OPEN}),
        anomalies=3,
    )
    for n in range(2, 12):  # the first is away, the second ended, the third is open
        give(found, step(fleet[1:], n, {1: OPEN}))
    states = {a["labels"]["instance"]: a["state"] for a in shown(found)["anomalies"]}
    assert states == {"host-0": "away", "host-1": "ended", "host-2": "open"}
    scores = {2: 2.0, 3: 1.5, 4: 5.0, 5: 4.0}  # by place, the first is host-1
    began: dict[int, int] = {1: int(OPEN)}
    for n, (place, expected) in enumerate(
        [
            (2, {"host-0", "host-2", "host-3"}),  # host-1 ended
            (3, {"host-2", "host-3", "host-4"}),  # host-0 is away
            (4, {"host-2", "host-3", "host-5"}),  # 1.5 is the lowest peak
            (5, {"host-2", "host-5", "host-6"}),  # then 2.0
        ]
    ):
        give(found, step(fleet[1:], 12 + n, began | {place: int(START)}, {1: 3.0} | scores))
        began[place] = int(OPEN)
        assert set(names(shown(found, state="open")) + names(shown(found))) == expected
    # One that is lower than all of them displaces none, and is counted.
    give(found, step(fleet[1:], 16, began | {6: int(START)}, {1: 3.0, 6: 1.2} | scores))
    answer = shown(found)
    assert set(names(answer)) == {"host-2", "host-5", "host-6"}
    assert (answer["summary"]["anomalous"], answer["summary"]["left_out"]) == (6, 3)


def test_an_outage_of_everything_leaves_the_picture_as_it_was() -> None:
    found = board(step(FLEET, 0, {0: START}))
    assert shown(found)["summary"]["anomalous"] == 1
    assert shown(found)["summary"]["seen_ms"] == NOW_MS


def test_what_is_over_for_long_is_forgotten() -> None:
    found = board(step(FLEET, 0, {0: START}), step(FLEET, 1, {0: END}), recent_ms=10 * STEP_MS)
    for n in range(2, 14):
        give(found, step(FLEET, n))
    assert shown(found)["anomalies"] == []
    assert found.tracks.room == found.tracks.limit


def test_a_series_that_has_gone_gives_its_place_back() -> None:
    found = board(step(FLEET, 0), series=6)
    for n in range(1, 40):
        give(found, step(hosts(2, f"job-{n}"), n))
    assert found.counts["left_out"] < 39 * 2
    assert shown(found)["summary"]["series"] <= 6
    assert sum(g["series"] for g in shown(found)["groups"]) == shown(found)["summary"]["series"]


def test_ten_thousand_at_once_are_bounded_and_counted_the_worst_first() -> None:
    many = hosts(10_000)
    flags, score = dict.fromkeys(range(10_000), int(START)), {i: 1 + i / 2000 for i in range(10_000)}
    found = board(step(many, 0), step(many, 1, flags, score), anomalies=100)
    answer = shown(found, limit=5)
    summary = answer["summary"]
    assert (summary["anomalous"], summary["left_out"], summary["matching"]) == (10_000, 9_900, 100)
    assert names(answer) == [f"host-{i}" for i in range(9_999, 9_994, -1)]
    assert answer["groups"][0]["share"] == 1.0
    # Those that end make room for the others.
    ends = {i: int(END) if i >= 9_900 else int(OPEN) for i in range(10_000)}
    give(found, step(many, 2, ends, score))
    give(found, step(many, 3, dict.fromkeys(range(9_900), int(OPEN)), score))
    answer = shown(found, limit=1)
    assert (answer["summary"]["anomalous"], answer["summary"]["left_out"]) == (9_900, 9_800)
    assert names(answer) == ["host-9899"]


def test_beyond_the_limit_of_series_anomalous_ones_displace_normal_ones() -> None:
    found = board(step(hosts(10), 0), series=8)
    assert (shown(found)["summary"]["series"], found.counts["left_out"]) == (8, 2)
    give(found, step(hosts(10, "other"), 1, {5: START, 7: START}))
    answer = shown(found)
    assert sorted(names(answer)) == ["host-5", "host-7"]
    assert answer["summary"]["series"] == 8


def test_where_only_episodes_come_the_share_of_a_group_is_unknown() -> None:
    odd = FLEET[:1]
    found = board(step(odd, 0, {0: START}), step(odd, 1, {0: MARKER}))
    give(found, step(odd, 5, {0: START}))
    answer = shown(found)
    [group] = answer["groups"]
    assert (group["series"], group["share"], group["anomalous"]) == (None, None, 1)
    assert answer["pipelines"][0]["emits"] == "episodes"
    assert answer["anomalies"][0]["steps"]["time_ms"] == [NOW_MS + n * STEP_MS for n in (0, 1, 5)]


def test_a_fleet_that_grew_until_only_episodes_are_emitted_has_no_false_shares() -> None:
    found = board(*(step(FLEET, n) for n in range(3)), step(FLEET, 3, {0: START}))
    assert shown(found)["groups"][0]["share"] == 0.25
    for n in range(4, 20):
        give(found, step(FLEET[:1], n, {0: OPEN}))
    assert shown(found)["groups"][0]["share"] is None


def test_where_only_episodes_come_windows_tell_how_many_series_and_forecasts_there_are() -> None:
    blind = {0: int(START | ScoreFlag.NO_FORECAST)}
    found = board(step(FLEET[:1], 0, blind))
    for partition, told in enumerate(({"judged": 30, "unforecast": 3}, {"judged": 40, "unforecast": 4})):
        give(found, census(0, emits_all=False, **told), partition)
    answer = shown(found)
    [pipeline] = answer["pipelines"]
    expected = {"series": 70, "without": 7, "share_without": 0.1}
    assert answer["forecasts"] == pipeline["forecasts"] == expected
    assert (answer["summary"]["series"], pipeline["series"], pipeline["emits"]) == (70, 70, "episodes")
    assert (pipeline["judged"], pipeline["warming"]) == (70, {"series": 10, "steps_left": None})
    assert (answer["groups"][0]["share"], answer["groups"][0]["without_forecast"]) == (None, None)
    assert gauges(found)["series_without_forecast"] == 7
    # The newest of a partition holds, however often one comes.
    for _ in range(2):
        give(found, census(1, emits_all=False, unforecast=40), 1)
    assert shown(found)["forecasts"] == {"series": 70, "without": 43, "share_without": 0.6143}


def test_of_windows_that_do_not_tell_shares_are_unknown_where_only_episodes_come() -> None:
    blind = {0: int(START | ScoreFlag.NO_FORECAST)}
    found = board(step(FLEET[:1], 0, blind), step(FLEET[1:2], 0, {0: MARKER}))
    unknown = {"series": None, "without": None, "share_without": None}
    assert shown(found)["forecasts"] == shown(found)["pipelines"][0]["forecasts"] == unknown
    # Of two pipelines it is told of the one that is known.
    give(found, step(FLEET, 1, pipeline="other"))
    assert shown(found)["forecasts"] == {"series": 4, "without": 0, "share_without": 0.0}


def test_a_census_tells_that_steps_close_where_none_is_emitted() -> None:
    found = board(step(FLEET[:1], 0, {0: MARKER}))
    give(found, census(9, emits_all=False))
    give(found, census(12, emits_all=False, closed=0, newest_ms=NOW_MS + 9 * STEP_MS))
    [pipeline] = shown(found)["pipelines"]
    assert pipeline["seen_ms"] == pipeline["newest_ms"] == NOW_MS + 9 * STEP_MS


def test_what_a_partition_told_that_is_no_longer_written_is_forgotten() -> None:
    found = board()
    for partition in range(2):
        give(found, census(0), partition)
    give(found, census(60), 1)
    assert shown(found)["pipelines"][0]["judged"] == 40


def test_series_are_grouped_by_job_or_by_name() -> None:
    fleet = [*hosts(3), series("up"), series("up", instance="a"), series("", job="")]
    answer = shown(board(step(fleet[:5], 0, {0: START, 3: START})))
    groups = [(g["label"], g["name"], g["series"], g["anomalous"]) for g in answer["groups"]]
    assert groups == [("__name__", "up", 2, 1), ("job", "node", 3, 1)]


def test_how_many_are_judged_without_a_forecast_is_told() -> None:
    blind = {0: int(ScoreFlag.NO_FORECAST), 1: int(ScoreFlag.NO_FORECAST | START)}
    answer = shown(board(step(FLEET, 0, blind)))
    expected = {"series": 4, "without": 2, "share_without": 0.5}
    assert answer["forecasts"] == answer["pipelines"][0]["forecasts"] == expected
    assert answer["groups"][0]["without_forecast"] == 2
    assert answer["anomalies"][0]["has_forecast"] is False
    assert answer["anomalies"][0]["steps"]["has_forecast"] == [False]


def test_a_series_of_two_pipelines_is_two() -> None:
    found = board(step(FLEET, 0, {0: START}), step(FLEET, 0, pipeline="other"))
    answer = shown(found)
    assert [(p["name"], p["series"], p["anomalous"]) for p in answer["pipelines"]] == [
        ("default", 4, 1),
        ("other", 4, 0),
    ]
    assert len({a["id"] for a in answer["anomalies"]}) == 1


def test_many_steps_of_a_series_in_one_frame_are_taken_in_their_order() -> None:
    one = step(FLEET, 0, {2: START})
    rows = np.array([2, 2, 0, 2], np.uint32)
    times = NOW_MS + np.array([0, 1, 0, 2]) * STEP_MS
    flags = np.array([0, START, 0, OPEN], np.uint8)
    frame = replace(one, row=rows, timestamp_ms=times, flags=flags)
    found = board(frame)
    [anomaly] = shown(found)["anomalies"]
    assert anomaly["since_ms"] == NOW_MS + STEP_MS
    assert anomaly["steps"]["time_ms"] == [NOW_MS, NOW_MS + STEP_MS, NOW_MS + 2 * STEP_MS]
    assert found.counts["taken"] == 4


def test_series_whose_labels_cannot_be_read_are_left_out_and_counted() -> None:
    frame = step(FLEET, 0)
    blocks = [frame.series.block(i) for i in range(4)]
    broken = replace(frame, series=SeriesColumn.of([blocks[0], b"\x0a\xff\xff", blocks[2], blocks[3]]))
    found = board(broken, broken)
    assert (found.counts["taken"], found.counts["left_out"], found.counts["repeated"]) == (3, 2, 3)


def test_labels_of_an_anomaly_are_bounded() -> None:
    huge = series("load", **{f"label_{i}": "x" * 4000 for i in range(60)})
    [anomaly] = shown(board(step([huge], 0, {0: START})))["anomalies"]
    assert max(map(len, anomaly["labels"].values())) == 256
    assert len(anomaly["labels"]) == 61


def test_a_frame_from_a_clock_that_is_ahead_does_not_make_all_others_old() -> None:
    found = board(step(FLEET, 0, {0: START}))
    found.take(replace(step(hosts(1, "x"), 1), closed_ms=NOW_MS * 3), NOW_MS + STEP_MS)
    assert shown(found)["summary"]["anomalous"] == 1


@pytest.mark.parametrize("skew_ms", [-3_600_000, 3_600_000])
def test_the_clock_of_a_window_worker_makes_nobody_look_as_if_they_had_gone(skew_ms: int) -> None:
    odd = hosts(2, "odd")
    found = Board(Limits())
    for n in range(12):
        now_ms = NOW_MS + n * STEP_MS
        found.take(step(FLEET, n), now_ms, 0)
        late = step(odd, n, {0: START if n == 3 else OPEN} if n >= 3 else {})
        found.take(replace(late, closed_ms=late.closed_ms + skew_ms), now_ms + 1, 1)
    answer = shown(found)
    assert [a["state"] for a in answer["anomalies"]] == ["open"]
    assert (answer["summary"]["anomalous"], answer["summary"]["away"], answer["summary"]["series"]) == (
        1,
        0,
        6,
    )
    assert answer["summary"]["seen_ms"] == NOW_MS + 11 * STEP_MS + 1


def test_our_own_clock_may_be_set_back() -> None:
    found = board(step(FLEET, 0, {0: START}))
    for n in range(1, 12):
        found.take(step(FLEET, n, {0: OPEN}), NOW_MS - 3_600_000 + n * STEP_MS)
    answer = shown(found)
    assert (answer["summary"]["anomalous"], answer["summary"]["series"]) == (1, 4)
    assert answer["summary"]["seen_ms"] == NOW_MS - 3_600_000 + 11 * STEP_MS


def test_what_was_written_before_we_came_is_as_old_as_its_worker_says() -> None:
    found = Board(Limits())
    began_ms = NOW_MS + 30 * STEP_MS
    for n in range(30):
        there, flags = (FLEET, {0: int(START)}) if n == 0 else (FLEET[1:], {})
        found.take(step(there, n, flags), began_ms, is_live=False)
    answer = shown(found)
    assert [a["state"] for a in answer["anomalies"]] == ["away"]
    assert answer["summary"]["seen_ms"] == NOW_MS + 29 * STEP_MS


@given(st.lists(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=5, max_size=5), max_size=25))
def test_counts_agree_with_a_slow_reference(moves: list[list[int | None]]) -> None:
    """Each step of each series is missing, normal, in an episode, or the end of one."""
    fleet = hosts(5)
    found = board()
    newest: dict[int, tuple[int, int]] = {}
    for n, row in enumerate(moves):
        there = [i for i, move in enumerate(row) if move is not None]
        if not there:
            continue
        flags = {k: [0, int(OPEN), int(END)][row[i] or 0] for k, i in enumerate(there)}
        give(found, step([fleet[i] for i in there], n, flags))
        for k, i in enumerate(there):
            newest[i] = n, flags[k]
    last = max((n for n, _ in newest.values()), default=0)
    current = {i: flags for i, (n, flags) in newest.items() if last - n <= 5}
    answer = shown(found)
    assert answer["summary"]["series"] == len(current)
    assert answer["summary"]["anomalous"] == sum(flags == OPEN for flags in current.values())
    listed = [a for a in answer["anomalies"] if a["state"] == "open"]
    assert len(listed) == answer["summary"]["anomalous"]


def test_a_pipeline_that_is_removed_is_not_shown_any_more_and_may_come_back() -> None:
    """Neither its open episodes, nor what its window workers still send."""
    found = board(*(step(FLEET, n) for n in range(5)), step(FLEET, 5, {2: START}))
    other = replace(step(FLEET, 5, {1: START}), pipeline="other")
    give(found, other)
    assert [p["name"] for p in shown(found)["pipelines"]] == ["default", "other"]

    found.keep_only(["other"])
    give(found, step(FLEET, 6, {2: OPEN}))
    answer = shown(found)
    assert [p["name"] for p in answer["pipelines"]] == ["other"]
    assert [a["pipeline"] for a in answer["anomalies"]] == ["other"]
    assert found.known.rows.size == len(FLEET)
    assert found.counts["in"] == found.counts["taken"] + found.counts["left_out"]

    found.keep_only(["other", "default"])
    give(found, step(FLEET, 7, {2: START}))
    assert sorted(a["pipeline"] for a in shown(found)["anomalies"]) == ["default", "other"]
