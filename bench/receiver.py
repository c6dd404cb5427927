"""What the receiver costs until the broker has every sample, beside vmagent taking the same requests.

    uv run --all-extras bench/receiver.py [--series 100000 1000000] [--version 1 2] [--pairs 5]

Ours is `openanomaly receiver` on the embedded broker with full durability, as it comes: it answers once
the samples are on disk. vmagent is Debian's: it answers once they are in its queue, which is in memory at
first and never synced. The address that it forwards to refuses connections, so it parses, encodes and
queues, and pays for no delivery, as our receiver pays for none. (`--deliver` has a target that answers, so
that vmagent sends every sample too, work that belongs to other roles here: kinder to us.)

Every series is sent once before anything is measured, so that both know it. A round then sends fresh
timestamps, the bodies made in advance; ours and vmagent take turns with the same bodies. The figure is
samples per second of CPU, user and system, of the process and its children; it is read a moment after
the last answer, so that work that was put off counts too. The ratio is the median of those of the pairs.

vmagent of Debian (1.79) has no remote-write 2.0. The ratio of version 2 is ours with 2.0 over vmagent with
1.0, on the same samples.

The last line is one JSON object. Exit status 1 if a ratio is below `--limit`.
"""

import argparse
import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web

import load
from procs import cpu_s, free_port, rss_bytes

PER_REQUEST = 2000
SETTLE_S = 1.5
"""vmagent flushes what is left of a block after a second."""
MAKE = {1: load.requests, 2: load.requests_2}
HEADERS = {1: load.HEADERS, 2: load.HEADERS_2}


@dataclass(frozen=True)
class Side:
    """A receiver under measurement."""

    name: str
    pid: int
    base: str
    ready: str
    version: int


@dataclass(frozen=True)
class Round:
    """What one round took."""

    samples: int
    cpu_s: float
    wall_s: float

    @property
    def per_cpu_s(self) -> float:
        return self.samples / self.cpu_s

    @property
    def per_s(self) -> float:
        return self.samples / self.wall_s


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--version", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=2_000_000, help="of a round, at least")
    parser.add_argument("--label-bytes", type=int, default=200)
    parser.add_argument("--senders", type=int, default=8, help="requests under way at a time")
    parser.add_argument("--deliver", action="store_true", help="vmagent's target answers")
    parser.add_argument("--set", action="append", default=[], help="a setting of ours, NAME=VALUE")
    parser.add_argument("--limit", type=float, default=1.0)
    o = parser.parse_args()
    figures = [asyncio.run(measure(o, series, version)) for series in o.series for version in o.version]
    ratio = min(f["ratio"] for f in figures)
    settings = {"pairs": o.pairs, "senders": o.senders, "deliver": o.deliver, "set": o.set}
    print(json.dumps({"bench": "receiver", **settings, "figures": figures, "ratio": ratio, "limit": o.limit}))
    return 0 if ratio >= o.limit else 1


async def measure(o: argparse.Namespace, series: int, version: int) -> dict[str, float]:
    """The figures of so many series, ours with remote-write `version`."""
    versions = sorted({1, version})
    requests = {v: MAKE[v](series, PER_REQUEST, o.label_bytes) for v in versions}
    times = -(-o.samples // series)
    rng = np.random.default_rng(0)
    now = int(time.time() * 1000)

    def bodies(steps: range) -> dict[int, list[bytes]]:
        """By version: the requests of these steps, a millisecond apart, with the same samples."""
        out: dict[int, list[bytes]] = {v: [] for v in versions}
        for step in steps:
            for i in range(len(requests[1])):
                values = 10 + rng.standard_normal(len(requests[1][i].records))
                for v in versions:
                    out[v].append(requests[v][i].body(values, now + step))
        return out

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [
            stack.enter_context(openanomaly(folder, o.set, version)),
            stack.enter_context(vmagent(folder, o.deliver)),
        ]
        session = await aiohttp.ClientSession().__aenter__()
        try:
            for side in sides:
                await ready(session, side)
            first = bodies(range(1))
            new = [await one_round(session, side, first[side.version], series, o.senders) for side in sides]
            rounds: list[list[Round]] = []
            for k in range(o.pairs):
                batch = bodies(range(1 + k * times, 1 + (k + 1) * times))
                pair = [
                    await one_round(session, side, batch[side.version], series * times, o.senders)
                    for side in sides
                ]
                rounds.append(pair)
                print(
                    f"{series} series, {version}.0: ours {pair[0].per_cpu_s:,.0f}, vmagent "
                    f"{pair[1].per_cpu_s:,.0f} samples/CPU-s, {pair[0].per_cpu_s / pair[1].per_cpu_s:.2f}",
                    flush=True,
                )
            memory = [rss_bytes(side.pid) for side in sides]
        finally:
            await session.close()

    def median(of: Callable[[list[Round]], float], digits: int | None = None) -> float:
        return round(statistics.median(map(of, rounds)), digits)

    return {
        "series": series,
        "version": version,
        "ours_samples_per_cpu_s": median(lambda pair: pair[0].per_cpu_s),
        "vmagent_samples_per_cpu_s": median(lambda pair: pair[1].per_cpu_s),
        "ratio": median(lambda pair: pair[0].per_cpu_s / pair[1].per_cpu_s, 3),
        "ratio_min": round(min(a.per_cpu_s / b.per_cpu_s for a, b in rounds), 3),
        "ratio_max": round(max(a.per_cpu_s / b.per_cpu_s for a, b in rounds), 3),
        "ours_samples_per_s": median(lambda pair: pair[0].per_s),
        "vmagent_samples_per_s": median(lambda pair: pair[1].per_s),
        "ours_new_series_per_cpu_s": round(new[0].per_cpu_s),
        "vmagent_new_series_per_cpu_s": round(new[1].per_cpu_s),
        "ours_rss_bytes": memory[0],
        "vmagent_rss_bytes": memory[1],
    }


async def one_round(
    session: aiohttp.ClientSession, side: Side, bodies: list[bytes], samples: int, senders: int
) -> Round:
    """Send the bodies; what that took."""
    cpu_began, began = cpu_s(side.pid), time.perf_counter()
    statuses = await load.send(session, f"{side.base}/api/v1/write", bodies, senders, HEADERS[side.version])
    wall_s = time.perf_counter() - began
    if set(statuses) != {204}:
        raise RuntimeError(f"{side.name} answered {statuses}: a round must be taken at the first attempt")
    await asyncio.sleep(SETTLE_S)
    return Round(samples, cpu_s(side.pid) - cpu_began, wall_s)


@contextmanager
def openanomaly(folder: Path, settings: list[str], version: int) -> Iterator[Side]:
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "openanomaly.cli", "receiver", "--listen", address]
    words += ["--broker", f"embedded://{folder}/broker", *(f"--set={s}" for s in settings)]
    with running(words, folder / "openanomaly.log") as pid:
        yield Side("openanomaly", pid, f"http://{address}", "/-/ready", version)


@contextmanager
def vmagent(folder: Path, deliver: bool) -> Iterator[Side]:
    program = shutil.which("vmagent") or shutil.which("victoria-metrics-vmagent")
    if program is None:
        raise FileNotFoundError("vmagent: apt-get install vmagent, or tests/parts/install.py")
    port = free_port()
    with ExitStack() as stack:
        target = stack.enter_context(answering(folder) if deliver else refusing())
        words = [
            program,
            f"-httpListenAddr=127.0.0.1:{port}",
            f"-remoteWrite.url=http://127.0.0.1:{target}/api/v1/write",
            f"-remoteWrite.tmpDataPath={folder}/vmagent",
        ]
        pid = stack.enter_context(running(words, folder / "vmagent.log"))
        yield Side("vmagent", pid, f"http://127.0.0.1:{port}", "/health", 1)


@contextmanager
def refusing() -> Iterator[int]:
    """A port that is taken and does not listen: nobody else opens it in the meantime."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield int(s.getsockname()[1])


@contextmanager
def answering(folder: Path) -> Iterator[int]:
    """The port of a process that answers 204 to every request, unread."""
    port = free_port()
    with running([sys.executable, __file__, "--target", str(port)], folder / "target.log"):
        yield port


def serve_target(port: int) -> None:
    async def write(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/api/v1/write", write)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


@contextmanager
def running(words: list[str], log_file: Path) -> Iterator[int]:
    """The pid of a process that ends with the context; its log is shown if the context fails."""
    with log_file.open("w+") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            yield process.pid
        except Exception:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(60)


async def ready(session: aiohttp.ClientSession, side: Side) -> None:
    for _ in range(300):
        try:
            async with session.get(side.base + side.ready) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{side.name} is not ready after 60 s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        serve_target(int(sys.argv[2]))
    else:
        sys.exit(main())
