"""Which scores are sent: every one, or those of episodes with a marker where each ends."""

import numpy as np

from openanomaly.core.frames import ScoreFlag
from openanomaly.core.pipelines.pipeline import OutputOptions, ScoreOptions
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
