"""How well the scorer detects: NAB, Microsoft's cloud monitoring dataset, faults in BOOM telemetry.

    uv run bench/quality/run.py --data DIR [--cache FILE.npz] [--only nab,mscm,faults] [--set tolerance=0.15]
        [--model statistical]

DIR holds `nab/`, `mscm/` and `boom/` as their publishers lay them out (they are not ours to ship);
what is not there is left out. Forecasts are the built-in model's, every 16 steps from 512, the
scorer is the product's, its threshold 1.0 for all. BOOM needs pyarrow: `uv run --with pyarrow ...`.
The last line is one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

import faults
import metrics
import nab
import numpy as np
import recordings
from numpy.typing import NDArray

from openanomaly.adapters.engines import make_engines
from openanomaly.core.pipelines.pipeline import ScoreOptions
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.scoring import LEVELS
from openanomaly.core.scoring.scorer import Scorer

CONTEXT, EVERY, FIRST, QUIET = 512, 16, 64, 24
F32 = NDArray[np.float32]


def forecasts(series: list[NDArray[np.float64]], engine: ModelEngine) -> list[F32]:
    """(T, 5) quantiles for each step of each series, made at most EVERY steps before."""
    contexts, owner = [], []
    for i, x in enumerate(series):
        padded = np.concatenate([np.full(CONTEXT, np.nan), x - np.nanmedian(x[:FIRST])]).astype(np.float32)
        for t in range(FIRST, len(x), EVERY):
            contexts.append(padded[t : t + CONTEXT])
            owner.append((i, t))
    out = [np.full((len(x), len(LEVELS)), np.nan) for x in series]
    for at in range(0, len(owner), 1024):
        made = engine.predict(np.array(contexts[at : at + 1024]), EVERY, LEVELS)
        for (i, t), forecast in zip(owner[at : at + 1024], made, strict=True):
            n = min(EVERY, len(series[i]) - t)
            out[i][t : t + n] = forecast[:n] + np.nanmedian(series[i][:FIRST])
    return out


def scores(
    series: list[NDArray[np.float64]], bands: list[F32], options: ScoreOptions, shift: int = 0
) -> list[F32]:
    """(T,) score of each step of each series, 0 where there is none. `shift` moves the blocks."""
    scorer = Scorer(options)
    order = sorted(range(len(series)), key=lambda i: -len(series[i]))
    longest = len(series[order[0]])
    y = np.full((longest, len(order)), np.nan)
    q = np.full((longest, len(order), len(LEVELS)), np.nan)
    for row, i in enumerate(order):
        y[: len(series[i]), row] = series[i]
        q[: len(series[i]), row] = bands[i]
    state = scorer.allocate(len(order))
    out = np.zeros((longest, len(order)), np.float32)
    for t in range(longest):
        rows = np.flatnonzero(np.isfinite(y[t]))
        at = slice(0, rows.size) if rows.size and rows[-1] == rows.size - 1 else rows
        judged = scorer.update(state, at, np.full(rows.size, t + shift), y[t, rows], q[t, rows])
        out[t, rows] = np.nan_to_num(judged.score)
    result: list[F32] = [np.empty(0, np.float32)] * len(order)
    for row, i in enumerate(order):
        result[i] = out[: len(series[i]), row]
    return result


def onsets(score: F32, threshold: float = 1.0) -> NDArray[np.bool_]:
    """First steps above the threshold after QUIET steps without."""
    out = np.zeros(len(score), bool)
    at = np.flatnonzero(score > threshold)
    if at.size:
        out[at[np.concatenate([[True], np.diff(at) > QUIET])]] = True
    return out


def judge_nab(series: list[recordings.Recording], score: list[F32]) -> dict[str, float]:
    out = {"nab": nab.score([(onsets(s), r.windows) for s, r in zip(score, series, strict=True)])}
    return out | judge_events(series, score, nab.probation)


def judge_events(series, score, start) -> dict[str, float]:  # type: ignore[no-untyped-def]
    rows = [
        metrics.events(r.time, r.labels, s, start=start(len(s))) for r, s in zip(series, score, strict=True)
    ]
    total = metrics.summarise(rows)
    keep = (
        "event_f1",
        "event_recall",
        "event_precision",
        "false_alarms_per_day",
        "events",
        "alarms",
        "false",
    )
    return {k: total[k] for k in keep}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="keep the forecasts here")
    parser.add_argument("--only", default="nab,mscm,faults")
    parser.add_argument("--model", default="auto", help="who forecasts")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="a score option")
    parser.add_argument("--phases", type=int, default=4, help="positions of the blocks to average over")
    args = parser.parse_args()
    options = ScoreOptions(**{k: json.loads(v) for k, v in (s.split("=", 1) for s in args.set)})
    only = args.only.split(",")
    engine = make_engines([args.model])[args.model]
    result: dict[str, object] = {"model": engine.name, "options": options.model_dump(exclude_defaults=True)}
    for name in only:
        folder = args.data / ("boom" if name == "faults" else name)
        if not folder.is_dir():
            print(f"{folder} is not there; {name} is left out", file=sys.stderr)
            continue
        result[name] = run(name, folder, args.cache, options, args.phases, engine)
        print(name, json.dumps(result[name]))
    print(json.dumps(result))


def run(
    name: str, folder: Path, cache: Path | None, options: ScoreOptions, phases: int, engine: ModelEngine
) -> dict[str, object]:
    """Figures of one collection; means over `phases` positions of the blocks where they matter most."""
    if name == "faults":
        x, copies = faults.make(recordings.boom(folder))
        bands = cached(name, cache, list(x), engine)
        return faults.report(copies, np.array(scores(list(x), bands, options)))
    series = recordings.nab(folder) if name == "nab" else recordings.mscm(folder)
    values = [r.value for r in series]
    bands = cached(name, cache, values, engine)
    rounds = []
    for k in range(phases):
        s = scores(values, bands, options, shift=k * options.block // phases)
        rounds.append(judge_nab(series, s) if name == "nab" else judge_events(series, s, nab.probation))
    out: dict[str, object] = dict(_rounded(rounds[0]))
    out["mean_of_phases"] = _rounded({k: float(np.mean([r[k] for r in rounds])) for k in rounds[0]})
    return out


def cached(
    name: str, cache: Path | None, values: list[NDArray[np.float64]], engine: ModelEngine
) -> list[F32]:
    if cache is None:
        return forecasts(values, engine)
    path = cache.with_name(f"{cache.stem}-{name}-{engine.name}.npz")
    if not path.exists():
        np.savez(path, *forecasts(values, engine))
    with np.load(path) as file:
        return [file[k] for k in file.files]


if __name__ == "__main__":
    main()
