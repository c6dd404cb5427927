"""Other pipelines for a partition that runs: what windows stay the same keep all they know.

A partition is changed between two inputs, right behind a checkpoint. What it is then is what a recovery
from that checkpoint with the new pipelines would make of it, so a crash changes nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.pipelines.pipeline import ForecasterSpec
from openanomaly.core.series import decode_labels
from openanomaly.core.windows import output, records
from openanomaly.core.windows.admission import Budget, in_none
from openanomaly.core.windows.bands import Bands
from openanomaly.core.windows.block import Block, Closing, Scoring
from openanomaly.core.windows.migrate import closings, steps
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import BlockPlan
from openanomaly.core.windows.rows import NONE, STATE_PAGE, Rows


def replan(partition: Partition, plans: Sequence[BlockPlan], now_ms: int) -> Output:
    """Watch what `plans` say from the next input on. What is to be written for that.

    Windows of another context begin with the steps that there are; those of another step, transform or
    aggregate begin anew. Series that no pipeline wants lose their rows behind the next checkpoint.

    Raises:
        RestartNeededError: a copy of the partition has passed over records of windows that are now wanted.
    """
    before, partition.blocks = partition.blocks, {}
    for plan in plans:
        uid = plan.spec.uid
        if (block := before.pop(uid, None)) is not None:
            partition.blocks[uid] = block
    for gone in before.values():
        partition.leave(gone)
    out = Output()
    for plan in plans:
        uid = plan.spec.uid
        block = partition.blocks.get(uid)
        if block is not None:
            out.due += output.due_frames(block, _change(block, plan), partition.number, now_ms)
            continue
        block = partition.blocks[uid] = partition.make_block(plan)
        if not partition.is_started:
            partition.recall(uid)
            continue
        if uid in partition.written:
            out.catalogue.append(records.anew_record(records.STATE_ANEW, block))
            out.ring.append(records.anew_record(records.RING_ANEW, block))
        partition.written.add(uid)
        if (old := _nearest(block, [*before.values(), *partition.blocks.values()])) is not None:
            _begin_as(block, old, partition.budget)
            out.catalogue += records.catalogue_records(block)
            out.ring += records.ring_records(block, closings(block), partition.position)
            out.due += output.due_frames(
                block, [block.due_now(block.catalogue.live_rows())], partition.number, now_ms
            )
    # In the order of the plans, as after a start: the first block that has a series' labels gives them.
    partition.blocks = {plan.spec.uid: partition.blocks[plan.spec.uid] for plan in plans}
    if partition.is_started:
        partition.distinct_series = _distinct(list(partition.blocks.values()))
    return out


def _change(block: Block, plan: BlockPlan) -> list[Closing]:
    """Other pipelines on the same windows. Which contexts are wanted at once: those of new forecasters."""
    known = {scoring.pipeline.uid: scoring for scoring in block.scorings}
    bands = block.bands
    block.plan = plan
    block.scorings = []
    labels = None
    live = block.catalogue.live_rows()
    closed = int(block.state["closed"][live].max(initial=NONE))
    for watched in plan.pipelines:
        scoring = known.get(watched.uid)
        if scoring is not None and scoring.pipeline.pipeline.selector == watched.pipeline.selector:
            scoring.judge_for(watched, closed)
            block.scorings.append(scoring)
            continue
        if scoring is None:
            scoring = Scoring(watched, block.counts)
            scoring.grow(block.state.capacity)
        scoring.judge_for(watched, closed)
        block.scorings.append(scoring)
        if labels is None:
            labels = [decode_labels(block.catalogue.labels[row]) for row in live.tolist()]
        members = np.fromiter((watched.selector.matches(x) for x in labels), bool, len(labels))
        left = live[scoring.members[live] & ~members]
        scoring.scorer.reset(scoring.state, left)
        scoring.members[live] = members
    block.bands = {f.uid: bands.get(f.uid) or _fresh_bands(f, block.rows) for f in plan.forecasters}
    block.catalogue.forget_refused()
    _touch(block, live)
    wanted = block.due_now(live, [f for f in plan.forecasters if f.uid not in bands])
    return [wanted] if wanted.due else []


def _fresh_bands(forecaster: ForecasterSpec, rows: int) -> Bands:
    bands = Bands(forecaster.horizon)
    bands.grow(rows)
    return bands


def _nearest(block: Block, others: Sequence[Block]) -> Block | None:
    """A block whose steps are the same and of which only fewer or more are kept; the one with most."""
    spec = block.spec
    alike = [
        other
        for other in others
        if other is not block
        and other.catalogue.live
        and (other.spec.step_ms, other.spec.transform, other.spec.aggregate)
        == (spec.step_ms, spec.transform, spec.aggregate)
    ]
    return max(alike, key=lambda other: other.spec.context, default=None)


def _begin_as(block: Block, old: Block, budget: Budget) -> None:
    """Give rows of `block` to the series of `old` that it wants, with all that is known of them."""
    c = old.catalogue
    live = c.live_rows()
    labels = [decode_labels(c.labels[row]) for row in live.tolist()]
    members = [
        np.fromiter((s.pipeline.selector.matches(x) for x in labels), bool, len(labels))
        for s in block.scorings
    ]
    wanted = np.flatnonzero(np.logical_or.reduce(members))
    wanted = wanted[: budget.take(wanted.size)]
    rows = live[wanted]
    if not rows.size:
        return
    new = block.catalogue.admit(
        c.ids[rows],
        [c.labels[row] for row in rows.tolist()],
        c.kind[rows],
        c.born[rows],
        c.base[rows],
        block.ring.newest,
    )
    block.grow()
    block.fresh(new, [m[wanted] for m in members])
    block.state.copy(new, old.state, rows)
    known = {scoring.pipeline.uid: scoring for scoring in old.scorings}
    for scoring in block.scorings:
        if (theirs := known.get(scoring.pipeline.uid)) is not None:
            for name, array in scoring.state.items():
                array[new] = theirs.state[name][rows]
    for uid, bands in block.bands.items():
        if uid in old.bands:
            bands.columns.copy(new, old.bands[uid].columns, rows)
    place = np.zeros(old.rows, np.int64)
    place[rows] = new
    for some, bucket, value in steps(old.ring, rows, c.born[rows]):
        block.ring.put(place[some], bucket, value)


def _touch(block: Block, rows: Rows) -> None:
    block.touched[rows // STATE_PAGE] = True
    block.touched_cold[rows // STATE_PAGE] = True


def _distinct(blocks: Sequence[Block]) -> int:
    """How many series have a row in some block."""
    total = 0
    for i, block in enumerate(blocks):
        ids: NDArray[np.uint64] = block.catalogue.ids[block.catalogue.live_rows()]
        total += in_none(blocks[:i], ids) if len(ids) else 0
    return total
