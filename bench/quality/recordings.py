"""Labelled recordings read from a folder: NAB, Microsoft's cloud monitoring dataset, BOOM telemetry."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Recording:
    """One series with its labels, one value per step.

    Attributes:
        windows: first and last step of each labelled event.
    """

    name: str
    time: NDArray[np.datetime64]
    value: NDArray[np.float64]
    windows: list[tuple[int, int]]

    @property
    def labels(self) -> NDArray[np.bool_]:
        out = np.zeros(len(self.value), bool)
        for first, last in self.windows:
            out[first : last + 1] = True
        return out


def nab(folder: Path) -> list[Recording]:
    """`folder` holds `data/` and `labels/combined_windows.json` as NAB's repository does."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    out = []
    for path in sorted((folder / "data").glob("*/*.csv")):
        name = f"{path.parent.name}/{path.name}"
        rows = _rows(path)
        time = np.array([r["timestamp"] for r in rows], "datetime64[ns]")
        windows = []
        for first, last in labels[name]:
            inside = np.flatnonzero((time >= np.datetime64(first)) & (time <= np.datetime64(last)))
            windows.append((int(inside[0]), int(inside[-1])))
        out.append(Recording(name, time, _values(r["value"] for r in rows), windows))
    return out


def mscm(folder: Path) -> list[Recording]:
    """CSV files with TimeStamp, Value and Label, one folder per kind."""
    out = []
    for path in sorted(folder.glob("*/*.csv")):
        rows = _rows(path)
        time = np.array([r["TimeStamp"].rstrip("Z") for r in rows], "datetime64[ns]")
        label = np.array([float(r["Label"] or 0) > 0 for r in rows])
        edge = np.diff(np.concatenate([[0], label.astype(np.int8), [0]]))
        windows = list(zip(np.flatnonzero(edge == 1).tolist(), (np.flatnonzero(edge == -1) - 1).tolist()))  # noqa: B905 (as many ends as starts)
        name = f"{path.parent.name}/{path.name}"
        out.append(Recording(name, time, _values(r["Value"] for r in rows), windows))
    return out


def boom(folder: Path) -> list[tuple[str, str, NDArray[np.float64]]]:
    """(name, frequency, values) of every variate of the Arrow files. Needs pyarrow."""
    import pyarrow as pa

    out = []
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
        values = np.atleast_2d(np.array(table["target"][0].as_py(), float))
        out += [(f"{path.stem}/{i}", str(table["freq"][0]), x) for i, x in enumerate(values)]
    return out


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _values(column: Any) -> NDArray[np.float64]:
    return np.array([float(v) if v else np.nan for v in column])
