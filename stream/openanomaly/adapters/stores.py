"""Which store of pipeline definitions an address means."""

import re
from collections.abc import Collection
from urllib.parse import unquote, urlsplit

from openanomaly.core.ports.config_store import ConfigStore
from openanomaly.errors import ConfigError

EXPECTED = "PATH, yaml:PATH, file:///PATH or mongodb://HOST:PORT/DATABASE?collection=NAME"
_MONGO = ("mongodb", "mongodb+srv")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(.*)", re.DOTALL)


def make_store(url: str, poll_s: float = 5.0, beside: Collection[str] = ()) -> ConfigStore:
    """The store at `url`. Nothing is read or connected yet.

    Args:
        poll_s: how often to look for changes of a store that does not tell them.
        beside: keys that may stand beside `pipelines` in a file, if it is the one of the settings.

    Raises:
        ConfigError: it is no address of a store, or an extra is missing.
    """
    check_url(url)
    if _scheme(url) in _MONGO:
        try:
            from openanomaly.adapters.mongo_store import MongoAdapter
        except ImportError as exc:
            raise ConfigError(
                f"{shown(url)} needs the extra `mongo` (`uv run --extra mongo openanomaly ...`): {exc}"
            ) from exc
        return MongoAdapter(url, poll_s)
    from openanomaly.adapters.yaml_store import YamlAdapter

    return YamlAdapter(_path(url), poll_s, beside)


def check_url(url: str) -> None:
    """Whether `url` has the form of an address.

    Raises:
        ConfigError: it has not.
    """
    scheme = _scheme(url)
    found = f"expected {EXPECTED}, found {shown(url)!r}"
    if scheme in _MONGO:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigError(found) from None
        database = parts.path.removeprefix("/")
        if not parts.netloc or not database or "/" in database:
            raise ConfigError(found)
    is_elsewhere = scheme == "file" and urlsplit(url).netloc not in ("", "localhost")
    if scheme not in ("", "yaml", "file", *_MONGO) or not _path(url) or is_elsewhere:
        raise ConfigError(found)


def shown(url: str) -> str:
    """An address without what may be secret: the user, the password, and options but the collection."""
    if _scheme(url) in ("", "yaml", "file"):
        return url
    place, _, options = url.partition("?")
    place = re.sub(r"//.*@", "//", place)  # a password may hold @ and /, though it should not
    kept = [option for option in re.split("[&;]", options) if option.startswith("collection=")]
    return f"{place}?{kept[0]}" if kept else place


def _scheme(url: str) -> str:
    found = _SCHEME.fullmatch(url)
    # A relative path may hold a colon: one before the first slash names a scheme, `./a:b` does not.
    return found[1].lower() if found else ""


def _path(url: str) -> str:
    scheme = _scheme(url)
    if scheme == "file":
        return unquote(urlsplit(url).path)
    return url.partition(":")[2] if scheme == "yaml" else url
