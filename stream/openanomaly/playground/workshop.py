"""What all pages of the process share: settings, the database, models, and one place to work at."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openanomaly import definitions
from openanomaly.adapters.engines import make_engines
from openanomaly.core.pipelines.models import BUILT_IN
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.clients import database
from openanomaly.telemetry import Telemetry

log = logging.getLogger(__name__)

MODELS = ("auto", BUILT_IN, "statistical")
_READ_AGAIN_S = 10.0


class Workshop:
    """Made once, before the first page is opened; pages run in threads of their own.

    Attributes:
        client: of the database at `pull.url`; None without one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = settings.playground
        self.telemetry = Telemetry()
        self.client: TSDBClient | None = database(settings)
        self._engines: dict[str, ModelEngine] = {}
        self._bench = threading.Lock()  # engines are called from one thread at a time
        self._store = threading.Lock()
        self._pipelines: tuple[Pipeline, ...] | ConfigError = ()
        self._read_s = -_READ_AGAIN_S
        self._shelf: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._shelf_lock = threading.Lock()

    @property
    def models(self) -> tuple[str, ...]:
        """What pages may load: a model may be any file, and files are not for everybody."""
        return (*MODELS, *self.limits.models)

    def pipelines(self) -> tuple[Pipeline, ...]:
        """Those that are defined, as they are now.

        Raises:
            ConfigError: the store cannot be read.
        """
        with self._store:
            if time.monotonic() - self._read_s > _READ_AGAIN_S:
                try:
                    self._pipelines = definitions.defined(self.settings)
                except ConfigError as exc:
                    self._pipelines = exc  # a store that is away is not asked for every click
                self._read_s = time.monotonic()
            if isinstance(self._pipelines, ConfigError):
                raise self._pipelines
            return self._pipelines

    def keep(self, page: str, what: str, found: Any) -> None:
        """Hold something large for a page. Those that nobody has looked at for longest give way.

        Streamlit holds the state of pages for some time after they were closed, however many there are.
        """
        with self._shelf_lock:
            self._shelf.setdefault(page, {})[what] = found
            self._shelf.move_to_end(page)
            while len(self._shelf) > self.limits.sessions:
                self._shelf.popitem(last=False)

    def kept(self, page: str, what: str) -> Any | None:
        """What is held for a page; None if nothing is, or not any more."""
        with self._shelf_lock:
            if page not in self._shelf:
                return None
            self._shelf.move_to_end(page)
            return self._shelf[page].get(what)

    @contextmanager
    def bench(self) -> Iterator[None]:
        """The place to work at, for nobody else meanwhile."""
        with self._bench:
            yield

    @contextmanager
    def engines(self, model: str) -> Iterator[dict[str, ModelEngine]]:
        """The engine of a model, by its name, for nobody else meanwhile.

        Raises:
            ConfigError: it cannot be loaded, or not by pages.
        """
        if model not in self.models:
            raise ConfigError(
                f"model={model}: a page loads {', '.join(self.models)}; add it to playground.models"
            )
        with self._bench:
            if model not in self._engines:
                inference = self.settings.inference
                self._engines |= make_engines(
                    [model], inference.threads, inference.device, inference.precision
                )
            yield {model: self._engines[model]}

    @property
    def is_busy(self) -> bool:
        """Whether somebody else is at work."""
        return self._bench.locked()


_ours: list[Workshop] = []


def install(workshop: Workshop) -> None:
    """Make it the one of this process: the script of a page is run anew, and finds it here."""
    _ours[:] = [workshop]


def ours() -> Workshop:
    """The one of this process."""
    return _ours[0]
