"""Write the records of this release: `uv run python tests/golden/records/capture.py FOLDER`.

Run once for each version of a record, when it is new, and never again: what an older release wrote is not
made by a newer one.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from dues import due_frame
from messages import named
from openanomaly.broker.notes import CRASH
from openanomaly.core.census import Census
from openanomaly.core.contexts import Contexts
from openanomaly.core.frames import ForecastFrame, SampleFrame, ScoreFrame
from openanomaly.core.group_frames import GroupCounts, GroupFrame, Through
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows import catalogue, records, state_pages
from openanomaly.core.windows.records import read_key
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from scores import score_frame
from unit.core.windows import drive

NOW_MS = 1_700_000_000_000
CONTEXT = np.array([[1, np.nan, 3, 4], [5, 6, 7, 8], [-1, 0, 1, np.nan]], np.float32)
CENSUS = Census(7, 5, 2, 30, 6, NOW_MS - 1, emits_all=True)

SHARES = SeriesColumn.of([encode_labels(named("anomaly_rate", job=job, pipeline="p")) for job in ("a", "b")])
COUNTS = GroupCounts(
    "p", 60_000, 28_333_333, part=41, due_in_ms=8_000, is_late=True, series=SHARES,
    scored=np.array([7, 5], np.uint32), anomalous=np.array([2, 0], np.uint32),
)  # fmt: skip
THROUGH = Through("p", 60_000, 28_333_332)


def frames() -> dict[str, bytes]:
    names = [named("load", host="a"), named("load", host="b")]
    series = SeriesColumn.of([encode_labels(x) for x in names], np.array([2, 1], np.uint8))
    samples = SampleFrame(
        series,
        np.array([0, 1, 0], np.uint32),
        np.array([NOW_MS, NOW_MS + 1, NOW_MS + 2], np.int64),
        np.array([1.5, -2.25, np.inf]),
        NOW_MS + 5,
    )
    due = due_frame(7, context=Contexts.pack(CONTEXT), closed_ms=NOW_MS, useful_until_ms=NOW_MS + 1)
    forecast = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    scores = score_frame(names, score=[0.5, 3.0], flags=[0, 3])
    letter = {"version": 1, "topic": "oa.scores", "partition": 3, "offset": 41, "noted_ms": NOW_MS}
    return {
        "samples": samples.encode(),
        "samples-zstd": samples.encode(compress=True),
        "samples-unlabelled": SampleFrame(
            SeriesColumn(series.ids, np.zeros(3, np.uint32), b"", series.kind), *_rest(samples)
        ).encode(),
        "due": due.encode(),
        "forecasts": ForecastFrame.pack(
            due, np.array([0.05, 0.2, 0.5, 0.8, 0.95], np.float32), forecast
        ).encode(),
        "scores": scores.encode(),
        "scores-zstd": scores.encode(compress=True),
        "scores-census": ScoreFrame.of_census("default", 60_000, CENSUS, NOW_MS).encode(),
        "samples-of-groups": replace(samples, of_groups=True).encode(),
        "scores-of-groups": replace(scores, of_groups=True).encode(),
        "groups": next(GroupFrame(3, [COUNTS], [THROUGH]).records()),
        "dead-letter": pb.DeadLetter(
            **letter, reason="MalformedFrameError", detail="not it", key=b"k", payload=b"p", set_aside=True
        ).SerializeToString(),
        "dead-letter-note": pb.DeadLetter(
            **letter, reason=CRASH, detail="Traceback", payload=b"p"
        ).SerializeToString(),
        "dead-letter-replay": pb.DeadLetter(**letter, reason="replayed", letter=17).SerializeToString(),
    }


def _rest(frame: SampleFrame) -> tuple[object, ...]:
    return frame.row, frame.timestamp_ms, frame.value, frame.received_ms


STEPS = 30
PARTED = 70
PAGES = records.HOT, records.COLD
CHECKPOINTS = (5, 14, 15, 28)


def changelogs(series: int = 6) -> list[tuple[bytes, bytes]]:
    """(key, value) of all that a partition writes in its life: every kind, in the order of the logs."""
    partition, out = drive.partition(), []
    for step in range(STEPS):
        rows = [(f"m{i}", NOW_MS + step * 10_000 + i, float((step * (i + 1)) % 11)) for i in range(series)]
        if step % 4 == 3:  # some of the rows alone: a patch
            rows = rows[:1]
        done = partition.put(drive.frame(rows, NOW_MS + step * 10_000), step, NOW_MS + step * 10_000)
        out += done.catalogue + done.ring
        if step in CHECKPOINTS:
            out += partition.checkpoint(NOW_MS + step * 10_000).records
    return [(r.key, r.value) for r in out]


def _is_part(key: bytes) -> bool:
    kind, _, _, slot = read_key(key)
    return kind > records.PATCH and slot != 0


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in frames().items():
        (folder / f"{name}.bin").write_bytes(record)
    found = changelogs()
    kinds = {read_key(key)[0] for key, _ in found}
    assert kinds == {records.COLUMN, records.PATCH, records.CATALOGUE, records.HOT, records.COLD}, kinds
    lines = [f"{key.hex()} {value.hex()}\n" for key, value in found]
    lines.append("{} {}\n".format(*(x.hex() for x in records.move_record("embedded://x", is_complete=True))))
    (folder / "changelogs.hex").write_text("".join(lines))
    # Pages that name the parts of the run they are between.
    pages = [f"{key.hex()} {value.hex()}\n" for key, value in found if read_key(key)[0] in PAGES]
    (folder / "pages-naming-parts.hex").write_text("".join(pages[-1:]))
    # Version 2 of pages: parts of one, which only long pages are written as.
    state_pages.MOST_BYTES, catalogue.MOST_BYTES = 30_000, 1_500
    parts = [f"{key.hex()} {value.hex()}\n" for key, value in changelogs(PARTED) if _is_part(key)]
    (folder / "changelogs-parts.hex").write_text("".join(parts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
