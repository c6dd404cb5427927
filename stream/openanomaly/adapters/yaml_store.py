"""ConfigStore: pipeline definitions in a YAML file, or in the files of a folder."""

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import xxhash

from openanomaly.adapters import yaml_files, yaml_text
from openanomaly.adapters.yaml_documents import Defined, Document, document
from openanomaly.core.documents import Places, read
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions, Stored
from openanomaly.errors import (
    ConfigError,
    PipelineChangedError,
    PipelineExistsError,
    StoreUnavailableError,
    UnknownPipelineError,
)

log = logging.getLogger(__name__)

_SETTLED_S = 0.2
_READS = 5
"""How often a folder is read again that changes meanwhile, before what was read last is taken."""
_Place = tuple[Path, Defined]
_T = TypeVar("_T")


class YamlAdapter:
    """A file with a list `pipelines`, a file that is one definition, or a folder of such files.

    Only the text of the definition that changes is written; what stands around it stays as it is.
    """

    def __init__(self, path: str, poll_s: float = 5.0, beside: Collection[str] = ()) -> None:
        """
        Args:
            poll_s: how often to look whether the files changed.
            beside: keys that may stand beside `pipelines`: those of the settings, if it is their file.
        """
        self.shown = path
        self._path = Path(path)
        self._poll_s = poll_s
        self._beside = frozenset(beside)

    async def read(self) -> Definitions:
        return (await asyncio.to_thread(self._read))[1]

    async def create(self, pipeline: Pipeline) -> Stored:
        return await asyncio.to_thread(self._change, lambda: self._create(pipeline))

    async def replace(self, pipeline: Pipeline, version: str | None) -> Stored:
        return await asyncio.to_thread(self._change, lambda: self._replace(pipeline, version))

    async def delete(self, name: str, version: str | None) -> None:
        await asyncio.to_thread(self._change, lambda: self._delete(name, version))

    async def watch(self) -> AsyncIterator[Definitions]:
        told: Definitions | None = None
        known: yaml_files.Look | None = None
        last: yaml_files.Look | None = None
        is_away = False
        while True:
            try:
                now = await asyncio.to_thread(self._look)
                # Not before two looks are the same: what an editor has half written may be valid.
                if now != known and (now == last or told is None):
                    known, found = await asyncio.to_thread(self._read)
                    if known != now:
                        known = None
                    elif found != told:
                        told = found
                        yield found
                last, is_away = now, False
            except StoreUnavailableError as exc:
                if not is_away:
                    log.warning("%s; pipelines stay as they are", exc)
                known, last, is_away = None, None, True
            is_settling = last != known and not is_away
            await asyncio.sleep(min(_SETTLED_S, self._poll_s) if is_settling else self._poll_s)

    async def close(self) -> None:
        pass

    # -- in a thread -----------------------------------------------------------------------------

    def _look(self) -> yaml_files.Look:
        try:
            return yaml_files.look(self._path)
        except OSError as exc:
            raise StoreUnavailableError(f"cannot read {exc.filename or self._path}: {exc.strerror}") from exc

    def _read(self) -> tuple[yaml_files.Look, Definitions]:
        """What the files define, all of one moment, and what they looked like then."""
        for _ in range(_READS):
            before = self._look()
            places, problems = self._find()
            if self._look() == before:
                break
        stored = sorted((_stored(defined.pipeline) for _, defined in places), key=lambda s: s.pipeline.name)
        return before, Definitions(tuple(stored), problems)

    def _find(self) -> tuple[list[_Place], tuple[str, ...]]:
        """Every definition, the first of each name, and what is wrong."""
        places: dict[str, _Place] = {}
        problems: list[str] = []
        try:
            for file in yaml_files.listed(self._path):
                found = self._document(file)
                problems += found.problems
                for defined in found.defined:
                    name = defined.pipeline.name
                    if name in places:
                        first = places[name][1].place
                        problems.append(f"{defined.place}: name = {name!r}: the name is used in {first} too")
                    else:
                        places[name] = (file, defined)
        except OSError as exc:
            raise StoreUnavailableError(f"cannot read {exc.filename or self._path}: {exc.strerror}") from exc
        return list(places.values()), tuple(problems)

    def _change(self, change: Callable[[], _T]) -> _T:
        self._look()  # a store that is away is not made anew
        folder = self._path if self._path.is_dir() else self._path.resolve().parent
        for file in yaml_files.listed(self._path):
            yaml_files.check_writable(file)
        with yaml_files.locked(folder):
            return change()

    def _create(self, pipeline: Pipeline) -> Stored:
        places, _ = self._find()
        if any(defined.pipeline.name == pipeline.name for _, defined in places):
            raise PipelineExistsError(f"there is a pipeline {pipeline.name!r} in {self.shown} already")
        if self._path.is_dir():
            text = yaml_text.written(_definition(pipeline))
            self._write(_new_file(self._path, pipeline.name), text, {pipeline.name: pipeline})
            return _stored(pipeline)
        if any(defined.index is None for _, defined in places):
            raise ConfigError(
                f"cannot add to {self.shown}: the file is one definition; make it a list, `pipelines`"
            )
        expected = {defined.pipeline.name: defined.pipeline for _, defined in places}
        text = yaml_text.added(self._text(self._path), _definition(pipeline))
        self._write(self._path, text, expected | {pipeline.name: pipeline})
        return _stored(pipeline)

    def _replace(self, pipeline: Pipeline, version: str | None) -> Stored:
        file, defined = self._current(pipeline.name, version)
        text = yaml_text.replaced(self._text(file), defined.index, _definition(pipeline))
        self._write(file, text, self._in(file) | {pipeline.name: pipeline})
        return _stored(pipeline)

    def _delete(self, name: str, version: str | None) -> None:
        file, defined = self._current(name, version)
        if defined.index is None:
            yaml_files.remove(file)
            return
        expected = {other: pipeline for other, pipeline in self._in(file).items() if other != name}
        self._write(file, yaml_text.removed(self._text(file), defined.index), expected)

    def _current(self, name: str, version: str | None) -> _Place:
        place = next((place for place in self._find()[0] if place[1].pipeline.name == name), None)
        if place is None:
            raise UnknownPipelineError(f"there is no pipeline {name!r} in {self.shown}")
        if version is not None and version != _version(place[1].pipeline):
            raise PipelineChangedError(f"pipeline {name!r} in {self.shown} was changed by somebody else")
        return place

    def _in(self, file: Path) -> dict[str, Pipeline]:
        return {defined.pipeline.name: defined.pipeline for defined in self._document(file).defined}

    def _document(self, file: Path) -> Document:
        try:
            return document(file.read_bytes().decode(), str(file), self._beside)
        except UnicodeDecodeError:
            return Document(problems=(f"{file}: it is not UTF-8",))

    def _text(self, file: Path) -> str:
        """The text that a change begins with.

        Raises:
            ConfigError: it is not YAML; a change would go astray.
        """
        try:
            text = file.read_bytes().decode()
            read(text, str(file), Places(str(file)))
        except UnicodeDecodeError as exc:
            raise ConfigError(f"cannot change {file}: it is not UTF-8") from exc
        except ConfigError as exc:
            raise ConfigError(f"cannot change {file} as it is: {exc}") from exc
        return text

    def _write(self, file: Path, text: str, expected: dict[str, Pipeline]) -> None:
        """Write the changed text of a file, if it says what is expected: anchors may stand in the way."""
        found = document(text, str(file), self._beside)
        if {defined.pipeline.name: defined.pipeline for defined in found.defined} != expected:
            raise ConfigError(
                f"cannot change {file}: what stands around the definition (anchors, brackets) is in the way; "
                "change it with an editor"
            )
        yaml_files.write(file, text)


def _new_file(folder: Path, name: str) -> Path:
    """A file that is not there, not hidden, and whose name every file system takes."""
    quoted = quote(name, safe="")
    stem = "%2E" + quoted[1:] if quoted.startswith(".") else quoted
    names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2)))
    return next(file for file in (folder / f"{name}.yaml" for name in names) if not file.exists())


def _definition(pipeline: Pipeline) -> dict[str, Any]:
    # Only what was said: a default that a later release improves is not written down.
    return pipeline.model_dump(mode="json", exclude_unset=True)


def _stored(pipeline: Pipeline) -> Stored:
    return Stored(pipeline, _version(pipeline))


def _version(pipeline: Pipeline) -> str:
    whole = json.dumps(pipeline.model_dump(mode="json"), sort_keys=True)
    return xxhash.xxh3_128_hexdigest(whole.encode("utf-8", "surrogatepass"))
