"""What a partition tells of the groups of its series, in which part of its run."""

from collections.abc import Iterable, Sequence

from openanomaly.core.group_frames import GroupCounts, GroupNews
from openanomaly.core.windows.block import Block, Closing
from openanomaly.core.windows.groups import Grouping
from openanomaly.core.windows.parts import Parts

Blocks = Iterable[Block]


class PartitionGroups:
    """Counts what closes, and tells it so that a run that is repeated tells the same."""

    def __init__(self) -> None:
        self.parts = Parts()

    def count(self, block: Block, closings: Sequence[Closing], now_ms: int) -> GroupNews:
        """Steps of a block have closed. What is told of it at once: history, where too much of it comes."""
        news = GroupNews()
        for scoring in block.scorings:
            if (groups := scoring.groups) is None:
                continue
            for s in (s for c in closings for s in c.scored if s.pipeline is scoring.pipeline):
                groups.count(s.rows, s.bucket, s.judged, block.catalogue.labels, now_ms)
            news.counts += groups.tell_overdue(self.parts.now.uid)
        return news

    def at_tick(self, blocks: Blocks, now_ms: int) -> GroupNews:
        """What is complete by the wall clock."""
        news = GroupNews()
        for groups in _groupings(blocks):
            news.add(groups.tell_due(now_ms, self.parts.now.uid))
        return news

    def before_input(self, blocks: Blocks, samples: int, tick_ms: int, now_ms: int) -> GroupNews:
        """Before an input that leads there: what is to be told of the part that ends, if one does."""
        if not self.parts.ends_before(samples, tick_ms):
            return GroupNews()
        news = self._so_far(blocks, now_ms)
        self.parts.next()
        return news

    def before_checkpoint(self, blocks: Blocks, now_ms: int) -> GroupNews:
        """What is counted and not told: behind the checkpoint it is not repeated."""
        if self.parts.end is not None:
            return GroupNews()  # told by the run that is repeated, and more of the part may come
        return self._so_far(blocks, now_ms)

    def rest(self, blocks: Blocks) -> list[GroupCounts]:
        """What is counted and not told of any step, where nothing comes later."""
        return [c for groups in _groupings(blocks) for c in groups.tell_all(self.parts.now.uid)]

    def _so_far(self, blocks: Blocks, now_ms: int) -> GroupNews:
        part = self.parts.now.uid
        return GroupNews([c for groups in _groupings(blocks) for c in groups.tell_so_far(now_ms, part)])


def _groupings(blocks: Blocks) -> list[Grouping]:
    scorings = [scoring for block in blocks for scoring in block.scorings]
    return [scoring.groups for scoring in scorings if scoring.groups is not None]
