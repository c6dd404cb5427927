"""A receiver under a million mutated bodies: no 5xx but deliberate 503, no hang, memory bounded.

    uv run --all-extras tests/contract/receiver/mutate.py [--bodies 1000000] [--seed 1]

A receiver is `openanomaly receiver` on the embedded broker, a process of its own, with room for 8,192
series: mutated labels are new ones, so the table fills up many times. `--receivers` of them share the
bodies and use more than one core. Bodies travel over HTTP/1.1 written by hand: a client with features
would take more of the machine than the receiver does. Every 10,000 bodies a valid request must be taken.

The last line is one JSON object. Exit status 1 if an answer is 5xx other than 503, takes more than
10 s or is none at all, if a valid request is not answered 204, if resident memory grows by more than
`--growth-limit-mib` from the first answer on, if samples in are not samples out and dropped, or if the
receiver logs an exception that it had not foreseen.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from contract.receiver.mutations import Body, mutated
from messages import HEADERS, Series, encode, named, packed
from parts.part import HOST
from parts.product import Product, openanomaly

HANG_S = 10.0
VALID_EVERY = 10_000


@dataclass
class Seen:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    max_latency_s: float = 0.0

    def fault(self, text: str) -> None:
        """Keep the first few, whole enough to send them again."""
        if len(self.faults) < 20:
            self.faults.append(text)


class Connection:
    """One HTTP/1.1 connection; opened anew when the receiver closes it."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._heads = {
            version: (
                f"POST /api/v1/write HTTP/1.1\r\nHost: {host}:{port}\r\n"
                + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                + "Content-Length: "
            ).encode()
            for version, headers in HEADERS.items()
        }

    async def post(self, body: Body) -> int:
        """The status of the answer."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._to)
        assert self._reader is not None
        head = b"%s%d\r\n\r\n" % (self._heads[body.version], len(body.packed))
        self._writer.write(head + body.packed)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = answer.partition(b"content-length: ")
        if found:
            await self._reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        if b"connection: close" in answer:
            self.close()
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = self._reader = None


async def send(port: int, bodies: Iterator[Body], connections: int, seen: Seen) -> None:
    """Send all bodies; each connection waits for its answer before it sends the next."""
    valid = itertools.count(1)

    async def worker() -> None:
        connection = Connection(HOST, port)
        for body in bodies:
            if await one(connection, body, seen) and next(valid) % VALID_EVERY == 0:
                for version in (1, 2):
                    good = Body(version, packed(encode(version, [_now()])))
                    if (status := await one(connection, good, seen, "valid ")) not in (204, 503):
                        seen.fault(f"valid request of {version}.0: {status}")
        connection.close()

    await asyncio.gather(*(worker() for _ in range(connections)))


async def one(connection: Connection, body: Body, seen: Seen, kind: str = "") -> int:
    began = time.perf_counter()
    status = 0
    try:
        async with asyncio.timeout(HANG_S):
            status = await connection.post(body)
    except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as exc:
        connection.close()
        seen.fault(f"{exc!r} to {body.version}.0 {body.packed.hex()}")
    seen.statuses[f"{kind}{status or 'none'}"] += 1
    seen.max_latency_s = max(seen.max_latency_s, time.perf_counter() - began)
    if status >= 500 and status != 503:
        seen.fault(f"{status} to {body.version}.0 {body.packed.hex()}")
    return status


def _now() -> Series:
    return Series(named("valid", job="mutate"), [(int(time.time() * 1000), 1.0)])


def rss_bytes(product: Product) -> int:
    """Resident memory of the receiver and what it started."""
    total = 0
    for pid in product.worker_pids():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


@dataclass
class Run:
    """One receiver and its share of the bodies."""

    product: Product
    bodies: int
    seed: int
    seen: Seen = field(default_factory=Seen)
    memory: list[int] = field(default_factory=list)

    async def send(self, connections: int) -> None:
        port = int(self.product.address.rsplit(":", 1)[1])
        # What is loaded and allocated with the first requests is no growth.
        await send(port, itertools.islice(mutated(-1 - self.seed), 200), 4, Seen())
        self.memory.append(rss_bytes(self.product))
        watcher = asyncio.create_task(self._watch())
        await send(port, itertools.islice(mutated(self.seed), self.bodies), connections, self.seen)
        watcher.cancel()
        self.memory.append(rss_bytes(self.product))

    async def _watch(self) -> None:
        """Memory twice a second, and a line of progress every ten seconds."""
        for tick in itertools.count(1):
            await asyncio.sleep(0.5)
            self.memory.append(rss_bytes(self.product))
            if tick % 20 == 0:
                sent = sum(self.seen.statuses.values())
                print(f"{sent} of {self.bodies}, {self.memory[-1] >> 20} MiB, {dict(self.seen.statuses)}")

    def figures(self, growth_limit_mib: int) -> dict[str, Any]:
        """What is reported of it, while it still runs."""
        total = self.product.metrics()

        def count(name: str) -> int:
            name = f"openanomaly_receiver_{name}"
            return int(sum(value for key, value in total.items() if key.split("{")[0] == name))

        log = self.product.process.log.read_text(errors="replace")
        unforeseen = log.count("Traceback (most recent call last)")
        if unforeseen:
            print(log[log.index("Traceback") :][:6000], file=sys.stderr)
        for fault in self.seen.faults:
            print(fault, file=sys.stderr)
        out = {
            "seed": self.seed,
            "bodies": self.bodies,
            "statuses": dict(sorted(self.seen.statuses.items())),
            "max_latency_s": round(self.seen.max_latency_s, 3),
            "rss_mib": {
                "start": self.memory[0] >> 20,
                "end": self.memory[-1] >> 20,
                "max": max(self.memory) >> 20,
            },
            "samples": count("samples_total"),
            "published": count("samples_published_total"),
            "dropped": count("samples_dropped_total"),
            "known_series": count("known_series"),
            "unforeseen_exceptions": unforeseen,
            "faults": len(self.seen.faults),
        }
        growth = max(self.memory) - self.memory[0]
        is_counted = out["samples"] == out["published"] + out["dropped"]
        is_clean = not unforeseen and not self.seen.faults
        out["passed"] = is_counted and is_clean and growth <= growth_limit_mib << 20
        return out


async def send_all(runs: list[Run], connections: int) -> None:
    await asyncio.gather(*(run.send(connections) for run in runs))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bodies", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--receivers", type=int, default=2, help="they share the bodies")
    parser.add_argument("--connections", type=int, default=32, help="to each receiver")
    parser.add_argument("--growth-limit-mib", type=int, default=256)
    o = parser.parse_args()
    with ExitStack() as stack:
        runs = []
        for i in range(o.receivers):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            flags = ("--broker", f"embedded://{folder}/broker", "--set", "receiver.known_series=8192")
            product = stack.enter_context(openanomaly(folder, *flags, command="receiver"))
            share = o.bodies * (i + 1) // o.receivers - o.bodies * i // o.receivers
            runs.append(Run(product, share, o.seed * 1000 + i))
        began = time.perf_counter()
        asyncio.run(send_all(runs, o.connections))
        wall_s = time.perf_counter() - began
        each = [run.figures(o.growth_limit_mib) for run in runs]
    passed = all(figures["passed"] for figures in each)
    figures = {
        "bodies": o.bodies,
        "seed": o.seed,
        "statuses": dict(sorted(sum((run.seen.statuses for run in runs), Counter[str]()).items())),
        "max_latency_s": max(figures["max_latency_s"] for figures in each),
        "bodies_per_s": round(o.bodies / wall_s),
        "growth_limit_mib": o.growth_limit_mib,
        "receivers": each,
        "passed": passed,
    }
    print(json.dumps(figures))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
