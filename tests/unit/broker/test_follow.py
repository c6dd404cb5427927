"""How far behind a topic its follower is."""

import asyncio
from typing import Any, cast

from openanomaly.broker.follow import Follower
from openanomaly.broker.topics import TopicSpec


def test_how_long_ago_there_was_nothing_unread_is_known_while_records_come() -> None:
    now_s = 100.0
    follower = Follower(cast("Any", None), TopicSpec("t", 2, 60), lambda *_: None, 1, clock=lambda: now_s)
    ends = {0: 0, 1: 0}
    follower._at = {0: 0, 1: 0}
    behind = []
    # Ten records a second come; twenty are read while all is well, and none for a while.
    for second in range(1, 61):
        now_s += 1.0
        ends[0] += 10
        follower._look(ends)
        behind.append(follower.behind_s)
        if not 20 <= second < 40:
            first = follower._at[0]
            records = [(offset, 0, b"") for offset in range(first, min(first + 20, ends[0]))]
            asyncio.run(follower._put(0, records, 0))
    assert max(behind[:20]) <= 2
    assert behind[38] >= 18
    assert max(behind[:39]) <= 22
    assert behind[59] < behind[50] < behind[40]
