"""What pull mode is told, and what a run of it tells."""

from collections import Counter
from dataclasses import dataclass, field

from openanomaly.core.ports.tsdb_client import Written


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Names are those of the `pull` settings.

    Attributes:
        idle_ttl_s: after so long without a sample a series is forgotten; ten steps at least.
    """

    history_s: float = 7 * 86400
    catch_up_s: float = 3600
    pending_limit: int = 100_000
    series_limit: int = 10_000
    idle_ttl_s: float = 6 * 3600


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes:
        outcome: `ok`, `refused` (the query), `unavailable` (who is asked), `target` (who is written to).
        error: why it is not `ok`.
        steps: that were asked for and answered.
        skipped: steps that were missed for too long.
        samples: in answers.
        scores: that came of them.
        history: of these, scores that are of a time before the pipeline was new, and written nowhere.
        counts: what became of samples and contexts, see LocalScoring.
        written: what became of scores that were written, now or by a run before.
    """

    outcome: str = "ok"
    error: str = ""
    steps: int = 0
    skipped: int = 0
    samples: int = 0
    scores: int = 0
    history: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    written: Written = field(default_factory=Written)


def add_up(one: Written, other: Written) -> Written:
    dropped = Counter(one.dropped) + Counter(other.dropped)
    return Written(
        one.scores + other.scores, one.samples + other.samples, dict(dropped), other.words or one.words
    )
