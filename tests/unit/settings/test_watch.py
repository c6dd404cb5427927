"""A settings file that changes while a process runs."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openanomaly.core.ports.config_store import Definitions
from openanomaly.settings.sources import load
from openanomaly.settings.watch import watch

ONE = "pipelines: [{name: one}]\n"
TWO = "pipelines: [{name: one}, {name: two}]\n"


def told(file: Path, *changes: Callable[[], None]) -> list[Definitions]:
    """What is told at first, and after each of `changes`."""

    async def scenario() -> list[Definitions]:
        telling = watch(str(file), lambda: load(str(file), {}, {}), load(str(file), {}, {}), 0.01)
        found = [await anext(telling)]
        for change in changes:
            change()
            found.append(await asyncio.wait_for(anext(telling), 20))
        return found

    return asyncio.run(scenario())


def names(found: list[Definitions]) -> list[list[str]]:
    return [[p.name for p in each.pipelines] for each in found]


def replace(file: Path, text: str) -> Callable[[], None]:
    def change() -> None:
        file.with_suffix(".new").write_text(text)
        os.replace(file.with_suffix(".new"), file)

    return change


def test_each_change_is_told(tmp_path: Path) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(ONE)
    assert names(told(file, replace(file, TWO), lambda: file.write_text(ONE) and None)) == [
        ["one"], ["one", "two"], ["one"],
    ]  # fmt: skip


def test_a_file_without_pipelines_means_the_default_one(tmp_path: Path) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(ONE)
    assert names(told(file, replace(file, "log: {level: info}\n"))) == [["one"], ["default"]]


def test_what_is_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(ONE)
    _, found, last = told(file, replace(file, "pipelines:\n  - {name: one, stop_s: 3}\n"), replace(file, TWO))
    assert found.problems == (f"{file}, line 2: no setting pipelines.0.stop_s; did you mean step_s?",)
    assert not last.problems


def test_a_config_map_is_swapped_by_a_link(tmp_path: Path) -> None:
    for version, text in (("1", ONE), ("2", TWO)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "openanomaly.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("1")
    file = tmp_path / "openanomaly.yaml"
    file.symlink_to("..data/openanomaly.yaml")

    def swap() -> None:
        (tmp_path / "..tmp").symlink_to("2")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")

    assert names(told(file, swap)) == [["one"], ["one", "two"]]


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(ONE)

    def away_and_back() -> None:
        file.unlink()
        asyncio.get_running_loop().call_later(0.1, replace(file, TWO))

    assert names(told(file, away_and_back)) == [["one"], ["one", "two"]]


def test_half_of_a_file_is_not_taken_for_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openanomaly.settings.watch._SETTLED_S", 2.0)
    file = tmp_path / "openanomaly.yaml"
    file.write_text(ONE)

    def half_and_half() -> None:
        file.write_text("pipelines:\n  - name: one\n")
        rest = "pipelines:\n  - name: one\n  - name: two\n"
        asyncio.get_running_loop().call_later(0.1, lambda: file.write_text(rest) and None)

    assert names(told(file, half_and_half)) == [["one"], ["one", "two"]]


def test_other_settings_hold_after_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(ONE)
    told(file, replace(file, ONE + "window: {max_series: 7}\n"))
    assert "other settings than pipelines have changed; they hold after a restart" in caplog.text
