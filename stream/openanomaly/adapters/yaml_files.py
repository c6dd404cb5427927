"""Files of a store: what they look like from outside, and changes that are whole or not there."""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from openanomaly.errors import ConfigError, StoreUnavailableError

SUFFIXES = (".yaml", ".yml")
LOCK = ".openanomaly.lock"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY)
Look = tuple[tuple[object, ...], ...]


def listed(path: Path) -> list[Path]:
    """The files of a store: itself, or those of the folder that it is, hidden ones left out.

    Raises:
        OSError: it is not there.
    """
    if not path.is_dir():
        return [path]
    names = (name for name in os.listdir(path) if name.endswith(SUFFIXES) and not name.startswith("."))
    return [path / name for name in sorted(names) if not (path / name).is_dir()]


def look(path: Path) -> Look:
    """What changes when a file of the store does; also when a volume's link is led elsewhere.

    A ConfigMap's files are links through `..data` into a folder that is replaced as a whole.

    Raises:
        OSError: it is not there.
    """
    found: list[tuple[object, ...]] = []
    for file in listed(path):
        state = file.stat()
        found.append((str(file), str(file.resolve()), state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(found)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time, of all processes that see the folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    with _translated(folder):
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def check_writable(file: Path) -> None:
    """Whether a file may be replaced where it is.

    Raises:
        ConfigError: Kubernetes puts it there, and would not keep what we write.
    """
    if any(part.startswith("..") and part != ".." for part in file.resolve().parts):
        raise ConfigError(
            f"cannot change {file}: the store is read-only (a ConfigMap or Secret); change that"
        )


def write(file: Path, text: str) -> None:
    """Replace a file, or make it: after a crash it is the old one or the new one. A link stays one.

    Raises:
        ConfigError: it is read-only.
        StoreUnavailableError: the disk does not take it.
    """
    target = file.resolve()
    try:
        content = text.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"cannot write {file}: a text is not Unicode ({exc.reason})") from exc
    with _translated(file):
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as part:
                part.write(content)
                part.flush()
                os.fchmod(part.fileno(), mode)
                os.fsync(part.fileno())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _sync(target.parent)


def remove(file: Path) -> None:
    """Remove a file durably.

    Raises:
        ConfigError: its folder is read-only.
    """
    with _translated(file):
        file.unlink()
        _sync(file.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The kernel shows it without a change; os.umask would change it for other threads meanwhile.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


@contextlib.contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _READ_ONLY:
            raise ConfigError(f"cannot change {file}: the store is read-only ({exc.strerror})") from exc
        raise StoreUnavailableError(f"cannot change {file}: {exc.strerror}") from exc
