"""A fleet through `openanomaly run`: does it keep up, in how much memory, and is anything missing?

    uv run --all-extras bench/fleet.py [--series 100000] [--step 10] [--steps 20] [--model statistical]

One process with all roles on the embedded broker takes the scrapes of a fleet over HTTP and sends
every score to a target that counts them. History is pushed first, as fast as it is taken, so that
rings are filled and warm-up is over; then steps are measured in real time. The step is shorter than
the product's default of a minute, so the load is that of `minute / step` times as many series.

The last line is one JSON object. Exit status 1 if forecasts or scores are missing.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np
import snappy
from aiohttp import web
from numpy.typing import NDArray

import load
from openanomaly.pb.prometheus import remote_write_1_pb2 as pb
from procs import cpu_s, free_port, rss_bytes

HISTORY = 160
_BUSY = "openanomaly_inference_batch_seconds_sum"


class Target:
    """A remote-write receiver that counts samples per timestamp."""

    def __init__(self) -> None:
        self.samples: dict[int, int] = {}
        self.last: dict[int, float] = {}

    async def write(self, request: web.Request) -> web.Response:
        message = pb.WriteRequest.FromString(snappy.uncompress(await request.read()))
        for series in message.timeseries:
            for sample in series.samples:
                self.samples[sample.timestamp] = self.samples.get(sample.timestamp, 0) + 1
                self.last[sample.timestamp] = time.time()
        return web.Response(status=204)


async def metrics(session: aiohttp.ClientSession, base: str) -> dict[str, float]:
    """Values of /metrics, summed over labels."""
    out: dict[str, float] = {}
    async with session.get(f"{base}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith("openanomaly"):
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
                short = name.split("{")[0]
                if short != name:
                    out[short] = out.get(short, 0.0) + float(value)
    return out


def values(rng: np.random.Generator, n: int, step: int) -> NDArray[np.float64]:
    return 10 + np.sin(step / 12 + np.arange(n)) + 0.3 * rng.standard_normal(n)


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--series", type=int, default=100_000)
    options.add_argument("--step", type=int, default=10, help="seconds")
    options.add_argument("--scrapes", type=int, default=4, help="scrapes per step")
    options.add_argument("--steps", type=int, default=20, help="steps measured")
    options.add_argument("--history", type=int, default=HISTORY)
    options.add_argument("--model", default="auto", help="who forecasts; the built-in model by default")
    o = options.parse_args()
    target = Target()
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/api/v1/write", target.write)
    runner = web.AppRunner(app)
    await runner.setup()
    sink, port = free_port(), free_port()
    await web.TCPSite(runner, "127.0.0.1", sink).start()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "openanomaly.yaml"
        config.write_text(
            f"pipelines:\n  - name: fleet\n    step_s: {o.step}\n    lateness_s: 1\n    model: {o.model}\n"
            "    group_by: []\n"  # or there would be scores of groups too
            "sink:\n  emit: all\n"
        )
        log = (Path(folder) / "log").open("w+")
        words = ["run", "--config", str(config), "--broker", f"embedded://{folder}/broker"]
        words += ["--listen", f"127.0.0.1:{port}", "--write-to", f"http://127.0.0.1:{sink}/api/v1/write"]
        process = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs yet)
            [sys.executable, "-m", "openanomaly.cli", *words], stdout=log, stderr=log
        )
        try:
            return await measure(o, process.pid, f"http://127.0.0.1:{port}", target)
        except Exception:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(30)


async def measure(o: argparse.Namespace, pid: int, base: str, target: Target) -> int:
    requests = load.requests(o.series)
    rng = np.random.default_rng(0)
    step_ms = o.step * 1000
    async with aiohttp.ClientSession() as session:
        await ready(session, base)
        first = (int(time.time() * 1000) // step_ms - o.history - 2) * step_ms
        began, cpu_began = time.time(), cpu_s(pid)
        pushed = 0
        # Until the present is reached: a gap between history and fleet would make every series due at once.
        while first + (pushed + 1) * step_ms < time.time() * 1000:
            v = values(rng, o.series, pushed)
            bodies = [
                r.body(v[i * 2000 : i * 2000 + len(r.records)], first + pushed * step_ms + 100)
                for i, r in enumerate(requests)
            ]
            await load.send(session, f"{base}/api/v1/write", bodies, 2)
            pushed += 1
        history_s, history_cpu = time.time() - began, cpu_s(pid) - cpu_began
        print(f"history: {o.series * pushed / history_s:,.0f} samples/s pushed and taken in", flush=True)
        begin = int(time.time() * 1000) // step_ms + 1
        while True:  # live from here on, and measured once the backlog of the history is gone
            await live(o, session, base, requests, rng, begin)
            begin += 1
            now = await metrics(session, base)
            waiting = now.get("openanomaly_inference_waiting_rows", 0.0)
            if now.get("openanomaly_oldest_unread_seconds", 0.0) < 1.0 and waiting < o.series / 100:
                break
        before, cpu_before, started = await metrics(session, base), cpu_s(pid), time.time()
        lag, memory, late = [], [], 0.0
        for step in range(begin, begin + o.steps):
            late = max(late, time.time() - step * o.step)
            for now in await live(o, session, base, requests, rng, step):
                lag.append(now.get("openanomaly_oldest_unread_seconds", 0.0))
                memory.append(rss_bytes(pid))
        await asyncio.sleep(o.step + 3)
        await drained(session, base)
        after, cpu_after, elapsed = await metrics(session, base), cpu_s(pid), time.time() - started
    steps = range(begin + 1, begin + o.steps + 1)
    scores = [target.samples.get(s * step_ms, 0) for s in steps]
    delays = [target.last[s * step_ms] - s * o.step for s in steps if s * step_ms in target.last]
    made = after["openanomaly_inference_forecasts_total"] - before["openanomaly_inference_forecasts_total"]
    busy = after.get(_BUSY, 0.0) - before.get(_BUSY, 0.0)
    wanted = o.series * o.steps / 16
    result = {
        "bench": "fleet",
        "series": o.series,
        "model": o.model,
        "step_s": o.step,
        "steps": o.steps,
        "scores": sum(scores),
        "scores_wanted": o.series * o.steps,
        "forecasts": made,
        "forecasts_wanted": wanted,
        "lag_s_max": max(lag),
        "lag_steps_max": max(lag) / o.step,
        "memory_bytes_max": max(memory),
        "step_end_to_score_s_max": max(delays, default=float("nan")),
        "inference_busy": busy / elapsed,
        "device_memory_bytes": after.get("openanomaly_inference_device_memory_reserved_bytes"),
        "cpu_share_of_2_cores": (cpu_after - cpu_before) / elapsed / 2,
        "history_samples_per_cpu_s": o.series * pushed / history_cpu,
        "sender_late_s_max": late,
    }
    good = sum(scores) == o.series * o.steps and abs(made - wanted) <= wanted * 0.13
    print(json.dumps(result))
    return 0 if good else 1


async def live(
    o: argparse.Namespace,
    session: aiohttp.ClientSession,
    base: str,
    requests: list[load.Request],
    rng: np.random.Generator,
    step: int,
) -> list[dict[str, float]]:
    """Send the scrapes of one step, each at its time; the metrics after each."""
    out = []
    for k in range(o.scrapes):
        at = step * o.step + k * o.step / o.scrapes
        await asyncio.sleep(max(0.0, at - time.time()))
        v = values(rng, o.series, step)
        for i, r in enumerate(requests):
            body = r.body(v[i * 2000 : i * 2000 + len(r.records)], int(at * 1000) + 1)
            await load.send(session, f"{base}/api/v1/write", [body], 1)
        out.append(await metrics(session, base))
    return out


async def ready(session: aiohttp.ClientSession, base: str) -> None:
    for _ in range(300):
        try:
            async with session.get(f"{base}/-/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError("not ready after 60 s")


async def drained(session: aiohttp.ClientSession, base: str) -> None:
    """Wait until no room has unread records, and inference has nothing left."""
    before = -1.0
    for _ in range(600):
        now = await metrics(session, base)
        made = now.get("openanomaly_inference_forecasts_total", 0.0)
        if now.get("openanomaly_lag_records", 0.0) == 0.0 and made == before:
            return
        before = made
        await asyncio.sleep(2.0)
    raise TimeoutError("records are still unread after 20 min")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
