"""How long `openanomaly migrate` takes: an embedded broker with full windows, to another one.

    uv run --all-extras bench/migrate.py --series 100000 --partitions 16 --to 24

The last line is one JSON object: bytes and seconds of the move, and the most memory it had.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from openanomaly.agents import installation
from openanomaly.broker.migrate import Side
from openanomaly.broker.offline import open_log
from openanomaly.core import kernels
from openanomaly.core.frames import SampleFrame
from openanomaly.core.series import encode_labels, ids_of, partition_of
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.migrate import forecast_frames
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.settings import Settings

STEP_MS = 60_000


def labels(i: int) -> bytes:
    return encode_labels(
        (
            ("__name__", f"bench_metric_{i % 50}"),
            ("cluster", "production"),
            ("container", f"app-{i // 50 % 20}"),
            ("instance", f"10.0.{i // 250 % 256}.{i % 250}:9100"),
            ("job", "kubernetes-pods"),
            ("namespace", f"team-{i // 1000}"),
            ("pod", f"app-{i // 50}-{i % 7:05x}"),
        )
    )


async def fill(url: str, series: int, steps: int, partitions: int) -> None:
    """What window workers have written of a fleet whose windows are full."""
    settings = Settings.model_validate(
        {"broker": {"url": url, "partitions": partitions, "synchronous": "NORMAL"}}
    )
    plans = plan(settings.pipelines)
    blocks = [labels(i) for i in range(series)]
    number = partition_of(ids_of(blocks), partitions)
    start_ms = (int(time.time() * 1000) // STEP_MS - steps) * STEP_MS
    async with open_log(installation.broker_config(settings.broker), "made") as log:
        side = Side.of(log, "openanomaly", installation.topics_of(settings.broker), plans)
        await log.create(side.specs)
        for p in range(partitions):
            column = SeriesColumn.of([blocks[i] for i in np.flatnonzero(number == p)])
            partition = Partition(p, plans, Budget(series))
            partition.start()
            rng = np.random.default_rng(p)
            row = np.arange(len(column), dtype=np.uint32)
            for step in range(steps):
                t = np.full(row.size, start_ms + step * STEP_MS)
                frame = SampleFrame(column, row, t, rng.normal(50, 5, row.size), int(t[0]))
                out = partition.put(frame, step, 0)
                for spec, found in ((side.state, out.catalogue), (side.ring, out.ring)):
                    if found:
                        await log.write(spec.name, [(p, *record) for record in found])
            (block,) = partition.blocks.values()
            for bands in block.bands.values():
                bands.columns["origin"][: block.rows] = block.state["closed"][: block.rows]
            forecasts = [frame.encode() for frame in forecast_frames(partition)]
            await log.write(side.topics.forecasts.name, [(p, None, frame) for frame in forecasts])
            done = partition.checkpoint(0)
            await log.write(side.state.name, [(p, *record) for record in done.records])
            print(f"partition {p}: {len(column)} series", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=560)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--to", type=int, default=16, help="partitions of the target")
    parser.add_argument("--target", help="kafka://HOST:PORT; another embedded broker without it")
    options = parser.parse_args()
    kernels.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        source = f"embedded://{folder}/before"
        asyncio.run(fill(source, options.series, options.steps, options.partitions))
        target = options.target or f"embedded://{folder}/after"
        words = ["migrate", source, target, "--partitions", str(options.to)]
        started = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "openanomaly.cli", *words], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = time.monotonic() - started
        size = {each.name: bytes_in(each) for each in Path(folder).iterdir()}
    print(
        json.dumps(
            {
                "series": options.series,
                "partitions": [options.partitions, options.to],
                "seconds": round(seconds, 1),
                "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
                "peak_bytes": after.ru_maxrss * 1024,
                "folder_bytes": size,
            }
        )
    )


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "reserve")


if __name__ == "__main__":
    main()
