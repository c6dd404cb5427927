"""Gets many time series to a target that may refuse some of them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from openanomaly.adapters.remote_write.encode import pack
from openanomaly.errors import RejectedError, RequestTooLargeError

_SPLITS = 256


@dataclass(frozen=True, slots=True)
class Refusal:
    """Time series `start` to `stop` that the target refused for good, and its words."""

    start: int
    stop: int
    words: str


class Delivery:
    """Cuts time series into requests, and a refused request into smaller ones.

    Requests go one after another and every one is decided before the next: samples of a series
    arrive in their order, which many targets insist on.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], batch_samples: int) -> None:
        """`send` returns when a body was taken and raises RejectedError when it never will be."""
        self.batch_samples = batch_samples
        """Time series of one request; less than what was asked where the target finds that too large."""
        self._send = send
        self._asked = batch_samples

    async def deliver(self, parts: Sequence[bytes]) -> list[Refusal]:
        """Send everything that can be sent; what is refused for good, in its order.

        What a target refuses is looked for by halving, some hundred times at most: a target that
        refuses everything does so in groups.
        """
        refused: list[Refusal] = []
        splits = _SPLITS
        count = len(parts) // 2
        size = self.batch_samples
        todo = [(i, min(i + size, count)) for i in range(0, count, size)][::-1]
        while todo:
            start, stop = todo.pop()
            middle = (start + stop) // 2
            try:
                await self._send(pack(parts[2 * start : 2 * stop]))
            except RejectedError as exc:
                is_too_large = isinstance(exc, RequestTooLargeError)
                if stop - start == 1 or (splits == 0 and not is_too_large):
                    refused.append(Refusal(start, stop, str(exc)))
                    if is_too_large:
                        self.batch_samples = self._asked  # it was this one, not how many there were
                    continue
                if is_too_large:
                    self.batch_samples = min(self.batch_samples, stop - middle)
                else:
                    splits -= 1
                todo += [(middle, stop), (start, middle)]
        return refused
