"""Random faults under load: is anything lost, wrong or missing, and how long does recovery take?

    uv run --all-extras bench/chaos.py [--broker embedded|kafka] [--faults 100] [--seed 1]
    uv run --all-extras bench/chaos.py --only "target refuse" --faults 1 --shortest 120 --longest 120

A fleet of 20,000 series is pushed through the product while processes are killed, restarted and
stopped, brokers go away, the target does not answer, disks fill up and poisoned records come.
On Kafka there are three brokers and a process for each role, two for windows; embedded, there is
`openanomaly run`. The sender keeps a ledger of what was acknowledged. The target keeps every score, with
the value it judges and the forecast it was judged by, and each is compared with an undisturbed run of the
same input (tests/chaos/oracle.py). On Kafka the brokers' logs take 0.3 GB a fault: keep 40 GB free for 100.

The last line is one JSON object. Exit status 1 if anything was lost, wrong or missing, or if a person
would have had to help.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chaos import campaign, faults
from chaos.clock import Clock
from chaos.disk import small_disk
from chaos.faults import Scene
from chaos.room import EVERY, WARMUP, Room
from parts import kafka

SERIES_PER_PARTITION = 800
DISK_BYTES = 4 << 30
OLD_STEPS = 8
"""A forecast in force is at most `forecast_every` and so many steps old where nothing is late."""
_MEMBERS = ["receiver-1", "window-1", "window-2", "inference-1", "sink-1"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--broker", choices=["embedded", "kafka"], default="embedded")
    options.add_argument("--faults", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--series", type=int, default=20_000)
    options.add_argument("--pace", type=float, default=1.0, help="seconds from one step to the next")
    options.add_argument("--lead", type=int, default=150, help="steps that are sent ahead of their scores")
    options.add_argument("--nodes", type=int, default=3, help="Kafka: brokers")
    options.add_argument("--standby", type=int, default=0, help="Kafka: copies of each window's state")
    options.add_argument("--shortest", type=float, default=1.0, help="seconds of the shortest outages")
    options.add_argument("--longest", type=float, default=10.0, help="seconds of the longest outages")
    options.add_argument("--only", action="append", help="this fault; may be given several times")
    options.add_argument("--keep", type=Path, help="a folder for logs and broker files, kept")
    o = options.parse_args()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # so that whoever stops it leaves nothing behind
    with contextlib.ExitStack() as stack:
        root = o.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oa-chaos-")))
        root.mkdir(parents=True, exist_ok=True)
        return asyncio.run(chaos(o, root, stack))


async def chaos(o: argparse.Namespace, root: Path, stack: contextlib.ExitStack) -> int:
    cluster, disk = None, None
    broker: dict[str, object] = {"partitions": max(4, -(-o.series // SERIES_PER_PARTITION))}
    if o.broker == "kafka":
        cluster = stack.enter_context(kafka.cluster(root, nodes=o.nodes))
        broker |= {"session_timeout_s": 6, "replication": min(3, o.nodes), "standby_replicas": o.standby}
        url, members, choices = cluster.url, _MEMBERS, dict(faults.ON_KAFKA)
        if o.nodes == 1:
            del choices["leader"]
    else:
        disk = stack.enter_context(small_disk(root / "disk", DISK_BYTES))
        url, members, choices = f"embedded://{disk or root}/broker", ["run-1"], dict(faults.ON_EMBEDDED)
        if disk is None:
            print("no file system of its own for the broker: its disk is not filled", flush=True)
            del choices["disk full"]
    if o.only:
        choices = {name: choices[name] for name in o.only}
    most = WARMUP + 200 + round(o.faults * (o.longest + 60) / o.pace)
    room = Room(root, url, broker, members, o.series, most, o.seed, clock=Clock(root / "clock"))
    room.lead = o.lead
    scene = Scene(room, Random(o.seed), cluster, disk=disk, shortest_s=o.shortest, longest_s=o.longest)
    began_s = time.monotonic()
    async with room.running():
        await room.push(WARMUP + EVERY, o.pace)
        await room.scored(WARMUP + EVERY - 2)
        done = await campaign.run(scene, o.faults, choices, o.pace, lambda line: print(line, flush=True))
        result = await room.finish()
    found, all_s = result.findings, done.all_s
    for name, seconds in sorted(done.recovery_s.items()):
        p50, most = statistics.median(seconds), max(seconds)
        print(f"{name}: {len(seconds)}, recovery p50 {p50:.1f} s, max {most:.1f} s")
    for line in [*done.not_recovered, *(f"{e.name} ended: {e.status}\n{e.words}" for e in room.stage.exits)]:
        print(line)
    slow = [s for s in room.stage.stops if s.seconds > 10 or s.status != 0]
    print(f"graceful ends: {len(room.stage.stops)}, of them late or with another status than 0: {slow}")
    print(result.complaints() if not result.is_good else f"{replace(found, ages={}, examples=[])}")
    print(
        json.dumps(
            {
                "bench": "chaos",
                "broker": o.broker,
                "seed": o.seed,
                "series": o.series,
                "steps": result.steps,
                "minutes": round((time.monotonic() - began_s) / 60, 1),
                "faults": len(all_s),
                "acknowledged": result.acknowledged,
                "lost": result.lost,
                "wrong_scores": result.wrong,
                "missing_scores": found.missing,
                "compared_scores": found.compared,
                "other_origin": found.older_than(EVERY + OLD_STEPS),
                "without_forecast": found.unforecast,
                "sent_again": room.sender.again,
                "scores_repeated": result.repeated,
                "samples_dropped": result.dropped,
                "ended_on_their_own": len(room.stage.exits),
                "stops": len(room.stage.stops),
                "stop_s_max": max((s.seconds for s in room.stage.stops), default=0.0),
                "recovery_s": {
                    "p50": percentile(all_s, 0.5),
                    "p90": percentile(all_s, 0.9),
                    "max": max(all_s),
                },
                "memory_bytes_max": {m.name: m.rss_bytes for m in room.stage.members.values()},
            }
        )
    )
    return 0 if result.is_good and not done.not_recovered and not slow else 1


def percentile(ascending: list[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


if __name__ == "__main__":
    sys.exit(main())
