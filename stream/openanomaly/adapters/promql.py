"""What the query API of Prometheus, and of those who speak like it, answers: JSON to columns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.ports.tsdb_client import Samples
from openanomaly.core.series import encode_labels

# Nearly all of an answer are its numbers: [[1700000000,"1.5"],...]. They are cut out and read by numpy, more
# than twice as fast as by a JSON parser. Nothing in a string can look like this: a quote in it is escaped.
_BEGIN, _END = b'"values":[[', b"]]"
_NOT_NUMBERS = b'[]"'


class AnswerError(ValueError):
    """The bytes are no answer of a query API."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: a series may be there once, its samples are in ascending time.

    Attributes:
        samples: (n, 2) float64 for each of `blocks`: seconds of Unix time, and values.
    """

    blocks: list[bytes]
    samples: list[NDArray[np.float64]]
    warnings: tuple[str, ...]


def decode(body: bytes) -> Answer:
    """The series of an answer with a matrix, a vector or a scalar.

    Raises:
        AnswerError: it is none.
    """
    try:
        rest, found = _cut_out(body)
        answer = json.loads(rest)
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "scalar":
            blocks, samples = [b""], [_one(result)]
        elif kind == "vector":
            blocks, samples = [_block(r["metric"]) for r in result], [_one(r["value"]) for r in result]
        elif kind == "matrix":
            with_values = [r for r in result if "values" in r]  # others have native histograms only
            blocks = [_block(r["metric"]) for r in with_values]
            samples = [_many(r["values"], found) for r in with_values]
        else:
            raise AnswerError(f"a {kind} has no series")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as exc:
        if isinstance(exc, AnswerError):
            raise
        raise AnswerError(f"no answer of a query API: {exc!r}") from exc
    return Answer(blocks, samples, _warnings(answer))


def merge(answers: Sequence[Answer]) -> Samples:
    """One answer of several, of which each is of a later time than the one before.

    VictoriaMetrics shows raw samples that were written twice twice: the later one holds.
    """
    row_of: dict[bytes, int] = {}
    rows, pieces = [], []
    for answer in answers:
        for block, samples in zip(answer.blocks, answer.samples, strict=True):
            rows.append(row_of.setdefault(block, len(row_of)))
            pieces.append(samples)
    row = np.repeat(np.array(rows, np.uint32), [len(piece) for piece in pieces])
    pairs = np.concatenate([*pieces, np.zeros((0, 2))])
    order = np.argsort(row, kind="stable")
    row, timestamp_ms, value = row[order], np.rint(pairs[order, 0] * 1000).astype(np.int64), pairs[order, 1]
    keep = np.ones(row.size, bool)
    keep[:-1] = (row[1:] != row[:-1]) | (timestamp_ms[1:] != timestamp_ms[:-1])
    warnings = tuple(dict.fromkeys(w for answer in answers for w in answer.warnings))
    return Samples(list(row_of), row[keep], timestamp_ms[keep], value[keep], warnings)


def seconds(timestamp_ms: int) -> str:
    """A time or a duration as the API takes it, exact."""
    whole, rest = divmod(timestamp_ms, 1000)
    return f"{whole}.{rest:03d}" if rest else str(whole)


def failure(body: bytes) -> str:
    """What an answer that tells of an error says, on one line."""
    try:
        answer = json.loads(body)
        text = f"{answer.get('errorType', '')}: {answer['error']}".removeprefix(": ")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode(errors="replace")
    return " ".join(text.split())


def _cut_out(body: bytes) -> tuple[bytes, list[NDArray[np.float64]]]:
    """The answer with a number in the place of each array of samples, and the arrays."""
    rest: list[bytes] = []
    found: list[NDArray[np.float64]] = []
    at = 0
    while (begin := body.find(_BEGIN, at)) >= 0:
        end = body.find(_END, begin)
        if end < 0:
            raise AnswerError("it ends within samples")
        rest.append(body[at:begin] + b'"values":%d' % len(found))
        found.append(_numbers(body[begin + len(_BEGIN) - 1 : end + 1]))
        at = end + len(_END)
    return b"".join([*rest, body[at:]]), found


def _many(values: Any, found: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    if isinstance(values, int):
        return found[values]
    return np.array([(float(at), float(value)) for at, value in values]).reshape(-1, 2)  # has blanks


def _numbers(text: bytes) -> NDArray[np.float64]:
    """(n, 2) of `[1,"2"],[3,"NaN"]`."""
    count = text.count(b"[")
    if not count:
        return np.zeros((0, 2))
    try:
        flat = np.fromstring(text.translate(None, _NOT_NUMBERS).decode("ascii"), sep=",")
    except (ValueError, DeprecationWarning) as exc:  # a warning now, an error in numpy's future
        raise AnswerError(f"samples are no pairs of numbers: {exc}") from exc
    if flat.size != 2 * count:
        raise AnswerError(f"{count} samples have {flat.size} numbers")
    return flat.reshape(-1, 2)


def _one(pair: Any) -> NDArray[np.float64]:
    at, value = pair
    return np.array([[float(at), float(value)]])


def _block(metric: dict[str, str]) -> bytes:
    return encode_labels(sorted((name, value) for name, value in metric.items() if value))


def _warnings(answer: dict[str, Any]) -> tuple[str, ...]:
    said = [str(warning) for warning in answer.get("warnings") or ()]
    if answer.get("isPartial"):  # VictoriaMetrics
        said.append("a part of the data was away")
    return tuple(said)
