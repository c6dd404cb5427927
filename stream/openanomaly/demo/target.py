"""Where the product writes its scores: a remote-write receiver that keeps those of some steps."""

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.columns import COUNT_LIMIT, Slices
from openanomaly.adapters.remote_write.decode_v1 import decode
from openanomaly.adapters.remote_write.unpack import unpack
from openanomaly.core.identity import Identities
from openanomaly.core.pipelines.selector import ANOMALY_RATE
from openanomaly.core.series import Labels, canonical, decode_labels
from openanomaly.demo.fleet import F64

PATH = "/api/v1/write"
_BODY_BYTES = 64 << 20
_OUR_LABELS = ("__name__", "for", "pipeline")
SCORE, EXPECTED, OF_GROUP = range(3)
_NAMES = {"anomaly_score": SCORE, "yhat": EXPECTED}


class Target:
    """Takes what the sink writes.

    Attributes:
        scores, forecasts: how many scores came, and how many of them had a forecast beside them.
        kept: (steps, S) scores from step `first` on, NaN where none came.
        last: (S,) the newest step with a score, -1 before the first.
    """

    def __init__(self, labels: list[Labels], step_ms: int, start_ms: int) -> None:
        self._series = {own: i for i, own in enumerate(labels)}
        self._step_ms, self._start_ms = step_ms, start_ms
        # Room for all, and for a whole request of unknown ones: so no slot is ever given to another.
        self._identities = Identities(2 * len(labels) + COUNT_LIMIT, 1, lambda labels: True)
        self._who = np.empty((0, 2), np.int64)  # by slot: which series, and which of its numbers
        self.scores = self.forecasts = 0
        self.last = np.full(len(labels), -1, np.int64)
        self.first = 0
        self.kept: F64 = np.empty((0, len(labels)))
        self.url = ""

    def keep(self, first: int, steps: int) -> None:
        """Forget what was kept, and keep the scores of the `steps` from `first` on."""
        self.first = first
        self.kept = np.full((steps, len(self._series)), np.nan)

    async def serve(self, host: str) -> web.AppRunner:
        """Listen on a free port, until the runner that is returned is cleaned up."""
        app = web.Application(client_max_size=_BODY_BYTES)
        app.router.add_post(PATH, self.write)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        self.url = f"http://{host}:{runner.addresses[0][1]}{PATH}"
        return runner

    async def write(self, request: web.Request) -> web.Response:
        """One request of the sink."""
        self.take(await request.read())
        return web.Response(status=204)

    def take(self, body: bytes) -> None:
        columns = decode(unpack(body, _BODY_BYTES), self._identities)
        assert columns.blocks is not None
        who = self._look_up(columns.slot, columns.blocks)[columns.row]
        step = (columns.timestamp_ms - self._start_ms) // self._step_ms - 1  # at the end of the step
        is_score = who[:, 1] == SCORE
        self.scores += int(is_score.sum())
        self.forecasts += int((who[:, 1] == EXPECTED).sum())
        series, step, value = who[is_score, 0], step[is_score], columns.value[is_score]
        np.maximum.at(self.last, series, step)
        at = step - self.first
        kept = (at >= 0) & (at < len(self.kept))
        self.kept[at[kept], series[kept]] = value[kept]

    def _look_up(self, slot: NDArray[np.int32], blocks: list[bytes] | Slices) -> NDArray[np.int64]:
        """(S, 2) series and number of each time series of a request."""
        if slot.size and slot.max() >= len(self._who):
            grown = np.full((2 * int(slot.max()) + 1024, 2), -1, np.int64)
            grown[: len(self._who)] = self._who
            self._who = grown
        for i in np.flatnonzero(self._who[slot, 0] < 0).tolist():
            labels = dict(decode_labels(blocks[i]))
            if ANOMALY_RATE in (labels["__name__"], labels.get("for")):
                self._who[slot[i]] = 0, OF_GROUP
                continue
            number = _NAMES[labels["__name__"]]
            labels["__name__"] = labels["for"]
            own = canonical((n, v) for n, v in labels.items() if n not in _OUR_LABELS[1:])
            self._who[slot[i]] = self._series[own], number
        return self._who[slot]
