"""A pass of a Chronos checkpoint as one piece of work for a GPU.

Contexts go up and forecasts come down; standardising, the model, and the levels in between are done there,
as `core.standard` and `core.quantiles` do them here. A pass is some hundred kernels of a few microseconds
each. Launched one after the other from Python they take ten milliseconds, however small the batch, so a
shape that comes again is recorded as a CUDA graph and launched as a whole.
"""

import logging
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.quantiles import weights
from openanomaly.core.services.shapes import lengths

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
Tensor = Any  # nobody who merely imports this file shall wait for torch

Shape = tuple[int, int, int, tuple[float, ...]]
"""Rows, steps of context, steps of the forecast, and its levels."""

_ROWS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
"""What batches are filled up to. Up to a hundred or two, rows cost next to nothing on a GPU: steps are coarse
there, so that the shapes of a fleet fit into the graphs that are kept."""
_GRAPHS = 256
"""Graphs kept, the latest used ones; each holds a few megabytes, besides the memory that they share."""
_REMEMBERED = 1024
"""Shapes of which it is known that they came before."""
_FAILURES = 3
"""Shapes that cannot be recorded before no other is tried."""
_PAUSE = 64
"""Batches without a new graph after memory was short."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "ALLOC_FAILED", "out of memory")
_TOP = float(np.finfo(np.float32).max)


def is_memory(torch: Any, exc: BaseException) -> bool:
    """Whether memory was short, which torch says in several ways."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(exc, kinds) or any(words in str(exc) for words in _NO_MEMORY)


class Model(Protocol):
    """What is asked of a family of checkpoints."""

    levels: tuple[float, ...]
    max_context: int

    def step(self, z: Tensor, steps: int) -> Tensor:
        """(b, T) standardised contexts -> (b, K, steps) forecasts, in one pass."""
        ...


@dataclass(frozen=True, slots=True)
class _Graph:
    context: Tensor
    forecast: Tensor
    graph: Any


class GpuPass:
    """One pass of a model on `device`, for batches of any shape; graphs for those that come again."""

    def __init__(self, torch: Any, model: Model, device: Any, name: str) -> None:
        self._torch = torch
        self._model = model
        self._device = device
        self._name = name
        self._ladder = lengths(model.max_context)
        self._weights: dict[tuple[float, ...], Tensor] = {}
        self._graphs: OrderedDict[Shape, _Graph] = OrderedDict()
        self._seen: OrderedDict[Shape, None] = OrderedDict()
        self._barred: set[Shape] = set()
        self._records = device.type == "cuda"
        self._pause = 0
        self._pool: Any = None
        self._stream: Any = None

    def fit(self, context: F32) -> F32:
        """(B, T) of one of a few lengths: without steps that no row knows, which change nothing."""
        known = np.isfinite(context).any(axis=0)
        steps = context.shape[1] - int(known.argmax()) if known.any() else 1
        length = int(self._ladder[np.searchsorted(self._ladder, steps)])
        more = length - context.shape[1]
        if more <= 0:
            return context[:, -length:]
        return np.pad(context, ((0, 0), (more, 0)), constant_values=np.nan)

    def rows(self, most: int) -> int:
        """The largest batch of at most so many rows that is not filled up."""
        return max((rows for rows in _ROWS if rows <= most), default=most)

    def forecast(self, context: F32, horizon: int, levels: Sequence[float]) -> F32:
        """(b, T) -> (b, H, Q); NaN in rows for which the model has no number. H is within one pass."""
        b = len(context)
        rows = next((rows for rows in _ROWS if rows >= b), b)
        filled = np.zeros((rows, context.shape[1]), np.float32)
        filled[:b] = context
        shape = (*filled.shape, horizon, tuple(levels))
        x = self._torch.from_numpy(filled)
        graph = self._graphs.get(shape) or self._new(shape)
        if graph is None:
            out = self._whole(x.to(self._device), horizon, shape[3])
        else:
            self._graphs.move_to_end(shape)
            graph.context.copy_(x)
            graph.graph.replay()
            out = graph.forecast
        found: F32 = out[:b].cpu().numpy()
        return found

    def release(self) -> None:
        """Give back the memory of graphs. They are recorded again when their shapes come again."""
        self._graphs.clear()
        self._seen.clear()
        self._pool = None
        self._pause = _PAUSE

    def _new(self, shape: Shape) -> _Graph | None:
        """A graph of a shape that comes for the second time: what comes once only is not worth one."""
        if self._pause:
            self._pause -= 1
            return None
        if not self._records or shape in self._barred:
            return None
        if shape not in self._seen:
            self._seen[shape] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return None
        return self._record(shape)

    def _record(self, shape: Shape) -> _Graph | None:
        """None where it cannot be done: the batch itself may be."""
        while len(self._graphs) >= _GRAPHS:
            old, _ = self._graphs.popitem(last=False)
            self._seen.pop(old, None)
        try:
            graph = self._graph(shape)
        except Exception as exc:
            self._judge(shape, exc)
            return None
        self._graphs[shape] = graph
        return graph

    def _judge(self, shape: Shape, exc: Exception) -> None:
        if is_memory(self._torch, exc):
            log.info("model %s: memory is short for CUDA graphs: all are given up for now", self._name)
            traceback.clear_frames(exc.__traceback__)  # they hold what was made on the way
            self.release()
            if self._device.type == "cuda":
                self._torch.cuda.empty_cache()
            return
        self._barred.add(shape)
        reason = str(exc).split("\n", maxsplit=1)[0]
        if len(self._barred) == 1:
            log.warning("model %s: a batch of %d x %d has no CUDA graph: %s", self._name, *shape[:2], reason)
        elif len(self._barred) == _FAILURES:
            log.warning("model %s runs without CUDA graphs, small batches slower: %s", self._name, reason)
            self.release()
            self._records = False

    def _graph(self, shape: Shape) -> _Graph:
        rows, steps, horizon, levels = shape
        cuda = self._torch.cuda
        with cuda.device(self._device):
            if self._pool is None:
                # One graph runs at a time and its forecast is fetched at once, so all may share memory.
                self._pool = cuda.graph_pool_handle()
            if self._stream is None:
                self._stream = cuda.Stream()  # one for ever: libraries keep memory for each
            context = self._torch.zeros(rows, steps, device=self._device)
            context[:, : steps // 2] = self._torch.nan  # so that the way of holes is gone, too
            # What libraries set up at their first call must not be a part of the graph.
            self._stream.wait_stream(cuda.current_stream())
            with cuda.stream(self._stream):
                self._whole(context, horizon, levels)
            cuda.current_stream().wait_stream(self._stream)
            graph = cuda.CUDAGraph()
            # Others of this process may ask for the memory meanwhile, which must not spoil the graph.
            mode = "thread_local"
            with cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode):
                forecast = self._whole(context, horizon, levels)
        return _Graph(context, forecast, graph)

    def _whole(self, context: Tensor, horizon: int, levels: tuple[float, ...]) -> Tensor:
        torch = self._torch
        if levels not in self._weights:
            made = torch.from_numpy(weights(self._model.levels, levels)).double()
            self._weights[levels] = made.to(self._device)
        z, location, scale = _standardised(torch, context)
        known = self._model.step(z, horizon)
        ordered = known.transpose(1, 2).double().sort(dim=-1).values
        out = (ordered @ self._weights[levels]).cummax(dim=-1).values  # but for rounding in order
        out = out * scale[:, None, None] + location[:, None, None]
        good = known.isfinite().all(dim=2).all(dim=1)
        return torch.where(good[:, None, None], out.clamp(-_TOP, _TOP), torch.nan).float()


def _standardised(torch: Any, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`core.standard.standardise`."""
    seen = torch.isfinite(context)
    x = torch.where(seen, context, 0.0).double()
    n = seen.sum(dim=1).clamp(min=1)
    lowest = torch.where(seen, x, torch.inf).amin(dim=1)
    highest = torch.where(seen, x, -torch.inf).amax(dim=1)
    constant = lowest == highest
    location = torch.where(constant, lowest, x.sum(dim=1) / n)
    x = torch.where(seen, x - location[:, None], 0.0)
    scale = (x.square().sum(dim=1) / n).sqrt()
    known = scale > 0
    z = torch.where(seen, x / torch.where(known, scale, 1.0)[:, None], torch.nan)
    return z.float(), location, torch.where(known | constant, scale, 1.0)
