"""What people read: how it goes, and a table at the end."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from openanomaly.demo.faults import RESTART, RESTARTED_JOB, Fault
from openanomaly.demo.fleet import Fleet
from openanomaly.demo.product import STEP_S
from openanomaly.demo.verdict import ECHO, RATE, Verdict

Reasons = Mapping[int, str]
"""By series: why its score was high, where that is known."""


def tell(seconds: float, text: str) -> None:
    """A line of progress."""
    print(f"{seconds:6.1f} s  {text}", flush=True)


def table(fleet: Fleet, faults: Sequence[Fault], verdict: Verdict, reasons: Reasons) -> str:
    """The faults of a round, what became of them, and the false alarms."""
    rows: list[tuple[str, ...]] = [("FAULT", "SERIES", "SIZE", "FOUND AFTER", "SCORE", "WHY")]
    for f in verdict.found:
        size = f"{f.fault.kind.size:g} x" if f.fault.kind.size else ""
        after = "NOT FOUND: it alarmed before" if f.was_alarming else "NOT FOUND"
        if f.after is not None:
            after = f"{steps(f.after)}, {minutes(f.after)}"
        why = reasons.get(f.fault.series, "")
        rows.append((f.fault.kind.name, fleet.name(f.fault.series), size, after, f"{f.peak:.1f}", why))
    rows += [("", "", "", "", "", ""), *_innocent(fleet, faults, verdict)]
    out = [*_aligned(rows), ""]
    count = len(verdict.false_alarms)
    out.append(
        f"False alarms: {count} in {verdict.series_days:.0f} days of series, limit {verdict.limit} "
        f"({RATE:.3f} a series and day, and two standard deviations)."
    )
    for alarm in verdict.false_alarms[:10]:
        of = f" ({alarm.fault.kind.name})" if alarm.fault else ""
        out.append(f"  {fleet.name(alarm.series)}: {alarm.score:.1f}{of}")
    if count > 10:
        out.append(f"  and {count - 10} more")
    out.append(
        "Sizes are in normal ranges of the series: from its lowest to its highest value before the faults. "
        f"Alarms within {ECHO} steps after a fault of their series are not counted."
    )
    return "\n".join(out)


def _innocent(fleet: Fleet, faults: Sequence[Fault], verdict: Verdict) -> Iterable[tuple[str, ...]]:
    """Rows of what must not alarm: each reset, and the restart as a whole."""
    alarmed = {(a.fault.kind.name, a.series): a for a in verdict.false_alarms if a.fault is not None}
    for fault in faults:
        if not fault.kind.must_alarm and fault.kind is not RESTART:
            alarm = alarmed.get((fault.kind.name, fault.series))
            said, score = ("FALSE ALARM", f"{alarm.score:.1f}") if alarm else ("quiet, as it must be", "")
            yield fault.kind.name, fleet.name(fault.series), "", said, score, ""
    restarted = [f.series for f in faults if f.kind is RESTART]
    if restarted:
        instances = len({fleet.instance[i] for i in restarted})
        alarms = sum(name == RESTART.name for name, _ in alarmed)
        what = f"job {RESTARTED_JOB}, {instances} instances, {len(restarted)} series"
        said = f"FALSE ALARM on {alarms} series" if alarms else "quiet, as it must be"
        yield RESTART.name, what, "", said, "", ""


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def minutes(count: int) -> str:
    """The simulated time of so many steps."""
    total = count * STEP_S // 60
    return f"{total} min" if total < 120 else f"{total / 60:.1f} h"


def complain(text: str) -> None:
    print(f"openanomaly: {text}", file=sys.stderr, flush=True)
