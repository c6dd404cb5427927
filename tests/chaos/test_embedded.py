"""`openanomaly run` on the embedded broker: each fault at least once, under load."""

from pathlib import Path

import pytest

from chaos import faults
from chaos.clock import Clock
from chaos.disk import small_disk
from chaos.scenes import embedded, outcome
from parts.part import missing

KINDS = {
    "processes": {
        "kill -9 of the worker": faults.kill_worker,
        "kill -9 of all": faults.kill_all,
        "a restart": faults.restart("run"),
        "a pause": faults.pause("run"),
    },
    "a target that takes nothing": {
        "but answers": faults.target("error"),
        "and says nothing": faults.target("hang"),
        "and is not there": faults.target("refuse"),
    },
    "clocks": {"ahead": faults.clock(600), "back": faults.clock(-600)},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_no_score_differs_after(tmp_path: Path, kind: str) -> None:
    outcome(embedded(tmp_path, tmp_path, clock=Clock(tmp_path / "clock")), KINDS[kind])


@pytest.mark.timeout(300)
def test_a_full_disk_loses_nothing_and_needs_nobody(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512 << 20) as disk:
        if disk is None:
            missing("A file system in memory (only root may mount one)", "run the tests as root")
        scene = embedded(tmp_path, disk)
        scene.disk = disk
        outcome(scene, {"full": faults.disk_full, "full again": faults.disk_full})
