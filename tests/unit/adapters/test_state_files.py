"""States of pull mode on a disk."""

from pathlib import Path

import pytest

from openanomaly.adapters.state_files import StateFiles
from openanomaly.errors import ConfigError


@pytest.mark.parametrize("name", ["p", "..", "a:b.c-d_e"])
def test_what_is_saved_is_there_after_a_restart(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / "state"
    files = StateFiles(str(folder))
    assert files.load(name) is None
    files.save(name, b"one")
    files.save(name, b"two")
    files.close()
    again = StateFiles(str(folder))
    assert again.load(name) == b"two"
    assert again.load("other") is None
    again.close()
    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{name}.state", "lock"])


def test_a_state_that_was_not_written_to_its_end_is_not_there(tmp_path: Path) -> None:
    files = StateFiles(str(tmp_path))
    files.save("p", b"whole")
    (tmp_path / "p.state.new").write_bytes(b"ha")
    assert files.load("p") == b"whole"
    files.save("p", b"next")
    assert files.load("p") == b"next"
    files.close()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    files = StateFiles(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"pull\.state_dir={tmp_path} is in use"):
        StateFiles(str(tmp_path))
    files.close()
    StateFiles(str(tmp_path)).close()


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"pull\.state_dir=.*/file/state"):
        StateFiles(str(tmp_path / "file" / "state"))
