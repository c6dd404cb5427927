"""The StateStore of pull mode: a folder with a file for each pipeline."""

import fcntl
import os
from pathlib import Path
from typing import IO

from openanomaly.errors import ConfigError

_SUFFIX = ".state"


class StateFiles:
    """States in a folder, of one process at a time."""

    def __init__(self, folder: str) -> None:
        """
        Raises:
            ConfigError: the folder cannot be used, or another process uses it.
        """
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (self._folder / "lock").open("w")
        except OSError as exc:
            raise ConfigError(f"cannot use pull.state_dir={folder}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._lock.close()
            raise ConfigError(
                f"pull.state_dir={folder} is in use by another process: scores would be written twice"
            ) from exc

    def close(self) -> None:
        self._lock.close()

    def load(self, name: str) -> bytes | None:
        try:
            return self._file(name).read_bytes()
        except FileNotFoundError:
            return None

    def save(self, name: str, state: bytes) -> None:
        file = self._file(name)
        new = file.with_name(file.name + ".new")
        with new.open("wb") as out:
            out.write(state)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # of the new name
        finally:
            os.close(folder)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"  # names of pipelines have no slash
