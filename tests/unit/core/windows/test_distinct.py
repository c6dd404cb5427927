"""Series of several blocks: each is counted once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from openanomaly.core.windows.partition import Partition
from unit.core.windows import drive

PIPELINES = (
    drive.pipeline(),
    drive.pipeline("slow", step_s=60, selector='{__name__!="a"}'),
    drive.pipeline("long", context=128, selector='{__name__=~"[abcd]"}'),
)
START_MS, TTL_MS = 1_700_000_000_000, 3_600_000
moves = st.lists(st.one_of(st.sets(st.sampled_from("abcdef"), min_size=1), st.none()), max_size=20)


def held(partition: Partition) -> set[bytes]:
    return {label for block in partition.blocks.values() for label in block.catalogue.labels if label}


@settings(max_examples=60, deadline=None)
@given(moves=moves, limit=st.integers(1, 20))
def test_a_series_counts_once_however_many_blocks_have_it(moves: list[set[str] | None], limit: int) -> None:
    """As they come, are refused and evicted, and after a recovery."""
    partition, now_ms, records = drive.partition(*PIPELINES, limit=limit), START_MS, []
    for offset, names in enumerate(moves):
        now_ms += TTL_MS // 2
        if names is None:
            out = partition.evict(now_ms, TTL_MS)
        else:
            out = partition.put(drive.frame([(n, now_ms, 1.0) for n in sorted(names)]), offset, now_ms)
        records += out.catalogue
        assert partition.distinct_series == len(held(partition))

    again = drive.fresh(*PIPELINES)
    for record in records:
        again.restore(record.key, record.value)
    again.start()
    assert again.distinct_series == len(held(again)) == partition.distinct_series
