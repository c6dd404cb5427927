"""Secrets that lie in files, read anew each time: who rotates one restarts nothing."""

from openanomaly.errors import SinkUnavailableError


def read_secret(value: str | None, file: str | None, setting: str) -> str | None:
    """A secret of the settings, or the one that its file holds now."""
    if file is None:
        return value
    try:
        with open(file, encoding="utf-8") as text:
            secret = text.read().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SinkUnavailableError(f"cannot read {setting}={file}: {exc}") from exc
    if not secret or not secret.isprintable():
        raise SinkUnavailableError(f"{setting}={file} does not hold one line of text")
    return secret
