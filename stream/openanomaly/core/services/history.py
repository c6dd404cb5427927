"""Stored samples of many given series, in few queries.

Series of one name that have the same labels are asked for together, by a selector with the values they
have: `cpu{instance=~"a|b",mode="user"}`. What it finds besides them is left out of the result.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from openanomaly.core.ports.tsdb_client import Samples, TSDBClient
from openanomaly.core.series import Labels, decode_labels, encode_labels
from openanomaly.errors import AnswerTooLargeError

SELECTOR_BYTES = 16_000
"""Longest selector: servers bound the size of a request, and regular expressions get slow."""
_META = re.compile(r"([\\.+*?()|\[\]{}^$])")


@dataclass(frozen=True, slots=True)
class Group:
    """Series that one selector finds.

    Attributes:
        rows: places of the series among those asked for.
    """

    selector: str
    rows: tuple[int, ...]


def groups(blocks: Sequence[bytes], size: int, absent: Collection[str] = ()) -> list[Group]:
    """Selectors that together find all of the series, for at most `size` of them each.

    Args:
        blocks: canonical label blocks, each once.
        absent: labels that the database does not have: a Prometheus adds its external labels when it sends,
            and does not store them.
    """
    shapes: dict[tuple[str, ...], list[tuple[Labels, int]]] = {}
    for row, block in enumerate(blocks):
        labels = tuple(pair for pair in decode_labels(block) if pair[0] not in absent)
        name = dict(labels).get("__name__", "")
        shapes.setdefault((name, *(label for label, _ in labels)), []).append((labels, row))
    # Neighbours in this order share most of their values: selectors are short, and find little else.
    return [group for shape in shapes.values() for group in _cut(sorted(shape), size)]


def read_history(
    client: TSDBClient,
    blocks: Sequence[bytes],
    start_ms: int,
    end_ms: int,
    size: int = 500,
    absent: Collection[str] = (),
) -> Iterator[Samples]:
    """The stored samples of `blocks` in [start_ms, end_ms]: an answer for each query, when it is asked for.

    The caller takes the next one when it has time: it alone decides how fast a database is asked. `blocks` of
    an answer are those given, also where the database has no samples of them, and `absent` labels are there.
    What is above the limit of an answer is asked for again in halves; a series that is so alone is left out.

    Raises:
        TsdbUnavailableError: no answer to the query asked now.
        QueryRejectedError: it is refused.
    """
    todo = groups(blocks, size, absent)[::-1]
    while todo:
        group = todo.pop()
        try:
            found = client.raw_query(group.selector, start_ms, end_ms)
        except AnswerTooLargeError:
            if len(group.rows) > 1:
                half = len(group.rows) // 2
                for rows in (group.rows[half:], group.rows[:half]):
                    some = [blocks[row] for row in rows]
                    todo += [
                        Group(g.selector, tuple(rows[i] for i in g.rows))
                        for g in groups(some, len(some), absent)
                    ]
            continue
        yield _chosen(found, [blocks[row] for row in group.rows], absent)


def _chosen(found: Samples, wanted: list[bytes], absent: Collection[str]) -> Samples:
    """The samples of the wanted series, which are its `blocks` in their order."""
    stored = wanted
    if absent:
        stored = [encode_labels([p for p in decode_labels(b) if p[0] not in absent]) for b in wanted]
    place = {block: row for row, block in enumerate(stored)}
    row_of = np.array([place.get(block, -1) for block in found.blocks], np.int64)
    row = row_of[found.row] if len(found) else np.zeros(0, np.int64)
    at = np.flatnonzero(row >= 0)
    at = at[np.argsort(row[at], kind="stable")]
    return Samples(wanted, row[at].astype(np.uint32), found.timestamp_ms[at], found.value[at], found.warnings)


def _cut(series: Sequence[tuple[Labels, int]], size: int) -> Iterator[Group]:
    """Groups of neighbours; smaller ones where a selector would be too long."""
    todo = [series[i : i + size] for i in range(0, len(series), size)][::-1]
    while todo:
        some = todo.pop()
        selector = _selector([labels for labels, _ in some])
        if len(selector.encode()) > SELECTOR_BYTES and len(some) > 1:
            half = len(some) // 2
            todo += [some[half:], some[:half]]
        else:
            yield Group(selector, tuple(row for _, row in some))


def _selector(series: Sequence[Labels]) -> str:
    matchers = []
    for i, (name, _) in enumerate(series[0]):
        values = sorted({labels[i][1] for labels in series})
        if len(values) == 1:
            matchers.append(f"{name}={_quoted(values[0])}")
        else:
            matchers.append(f"{name}=~{_quoted('|'.join(_literally(values)))}")
    return "{" + ",".join(matchers) + "}"


def _literally(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield _META.sub(r"\\\1", value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
