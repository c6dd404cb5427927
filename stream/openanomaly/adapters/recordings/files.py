"""A recording from a file or a folder of them."""

from pathlib import Path

from openanomaly.adapters.recordings import csv_file, parquet_file
from openanomaly.adapters.recordings.times import Style
from openanomaly.core.recording import Limit, Recording, RecordingBuilder
from openanomaly.errors import ConfigError

_READERS = {".csv": csv_file.read, ".tsv": csv_file.read, ".parquet": parquet_file.read}


def read(path: Path, limit: Limit | None = None) -> tuple[Recording, Style]:
    """All series of a file, or of the `*.csv`, `*.tsv` and `*.parquet` of a folder; how times are written.

    A file that ends otherwise is taken for CSV.

    Raises:
        ConfigError: there is nothing, too much, or something cannot be read; the message has file, line and
            value.
    """
    paths = [path]
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.suffix.lower() in _READERS and p.is_file())
        if not paths:
            raise ConfigError(f"{path}: no file in it ends with .csv, .tsv or .parquet")
    builder = RecordingBuilder(limit)
    styles = [_READERS.get(p.suffix.lower(), csv_file.read)(p, builder) for p in paths]
    return builder.build(), styles[0]
