"""Which scores are sent: every one, or those of episodes with a marker where each ends."""

import numpy as np
import pytest

from openanomaly.core.frames import SampleFrame, ScoreFlag, ScoreFrame
from openanomaly.core.pipelines.pipeline import OutputOptions, ScoreOptions
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows.output import Emit
from unit.core.windows import drive

STEP_MS = 10_000
STEPS, SPIKE, QUIET = 120, 90, 5
START_MS = 1_700_000_000_000


def sent(emit: Emit, own: Emit | None = None) -> dict[int, ScoreFlag]:
    """Flags of the scores of a series with one spike, by the step they judge."""
    options = ScoreOptions(warmup=3, block=12, quiet=QUIET)
    partition = drive.partition(drive.pipeline(score=options, output=OutputOptions(emit=own)))
    partition.emit = emit
    values = np.sin(np.arange(STEPS + 1))
    values[SPIKE] = 500.0
    out: dict[int, ScoreFlag] = {}
    for step, value in enumerate(values):
        at_ms = START_MS + step * STEP_MS
        for scores in partition.put(drive.frame([("m", at_ms, value)]), step, at_ms).scores:
            for end_ms, flags in zip(scores.timestamp_ms.tolist(), scores.flags.tolist(), strict=True):
                out[(end_ms - START_MS) // STEP_MS - 1] = ScoreFlag(flags)
    return out


def test_all_scores_are_sent_and_the_end_of_an_episode_is_one_of_them() -> None:
    found = sent("all")
    assert sorted(found) == list(range(3, STEPS))
    assert ScoreFlag.START in found[SPIKE]
    assert not any(ScoreFlag.SILENT in flags for flags in found.values())


def test_of_episodes_a_marker_is_sent_where_the_last_score_would_be() -> None:
    everything, found = sent("all"), sent("episodes")
    inside = {s for s, flags in everything.items() if flags & (ScoreFlag.OPEN | ScoreFlag.END)}
    assert set(found) == inside
    assert SPIKE in found
    ends = {s for s, flags in everything.items() if ScoreFlag.END in flags}
    assert ends
    assert {s for s, flags in found.items() if ScoreFlag.SILENT in flags} == ends
    assert all(ScoreFlag.END in found[s] for s in ends)


def test_what_a_pipeline_says_goes_before_what_is_said_for_all() -> None:
    assert sent("all", own="episodes") == sent("episodes")
    assert sent("episodes", own="all") == sent("all")


def test_a_census_says_what_is_sent_of_its_pipeline() -> None:
    named = drive.pipeline("named", output=OutputOptions(emit="episodes"))
    partition = drive.partition(drive.pipeline("usual"), named)
    partition.put(drive.frame([("m", START_MS, 1.0)]), 0, START_MS)

    found = {f.pipeline: f.census.emits_all for f in partition.census(START_MS + STEP_MS) if f.census}
    assert found == {"usual": True, "named": False}


@pytest.mark.parametrize("own", ["all", "episodes"])
def test_shares_of_groups_are_sent_at_every_step_with_or_without_a_score(own: Emit) -> None:
    options = ScoreOptions(warmup=3, block=12, quiet=QUIET)
    of = drive.pipeline(score=options, output=OutputOptions(emit=own), group_by=("job",))
    partition = drive.partition(of)
    share = SeriesColumn.of(
        [encode_labels((("__name__", "anomaly_rate"), ("job", "a"), ("pipeline", of.name)))]
    )
    out: list[ScoreFrame] = []
    for step in range(STEPS):
        frame = SampleFrame(
            share,
            np.zeros(1, np.uint32),
            np.array([START_MS + (step + 1) * STEP_MS - 1]),
            np.array([0.5 if step == SPIKE else 0.0]),
            received_ms=0,
            of_groups=True,
        )
        (said,) = partition.put(SampleFrame.decode(frame.encode()), step, 0).scores
        out.append(said)
    assert [int(f.timestamp_ms[0] - START_MS) // STEP_MS for f in out] == list(range(1, STEPS + 1)), "at once"
    assert all(f.of_groups and ScoreFrame.decode(f.encode()).of_groups for f in out)
    assert np.isnan([f.score[0] for f in out[:3]]).all()
    assert [step for step, f in enumerate(out[3:], 3) if f.score[0] > 1] == [SPIKE]
    assert partition.counts["in"] == partition.counts["scored"] == 0, "of users' series"
    assert partition.share_outcomes["accepted"] == STEPS
    assert (partition.groups, partition.series) == (1, 1)
