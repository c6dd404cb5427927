"""What is true of YAML files only: texts that stay, ConfigMaps, folders, files that are half written."""

import asyncio
import os
import re
import stat
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from contract.config_store.places import POLL_S, in_loop, names, watched
from contract.config_store.places import YamlFile as Place
from openanomaly.adapters.yaml_store import YamlAdapter
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import load
from waiting import until

C = Pipeline(name="c", step_s=30, labels={"team": "x"})


def store(path: Path, *beside: str) -> YamlAdapter:
    return YamlAdapter(str(path), POLL_S, beside)


def changed(path: Path, text: str, change: str, *beside: str) -> str:
    """The text after a change: add C, make `b` another one, or delete what is named."""
    path.write_text(textwrap.dedent(text))
    one = store(path, *beside)
    match change.split():
        case ["add"]:
            asyncio.run(one.create(C))
        case ["replace", name]:
            asyncio.run(one.replace(Pipeline(name=name, horizon=32), None))
        case ["delete", *all_of_them]:
            for name in all_of_them:
                asyncio.run(one.delete(name, None))
    return path.read_text()


BLOCK = """\
# Ours.
log: {level: debug}   # loud
pipelines:
  # The API.
  - name: a           # first
    selector: '{job="a"}'

  # Second.
  - name: b
    score:
      quiet: 3        # few
  # Behind.
web:
  listen: :9300       # all
"""


# -- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (
            "add",
            "      quiet: 3        # few\n",
            "      quiet: 3        # few\n  - name: c\n    step_s: 30.0\n    labels:\n      team: x\n",
        ),
        ("replace b", "    score:\n      quiet: 3        # few", "    horizon: 32        # few"),
        ("replace a", "           # first\n    selector: '{job=\"a\"}'", "\n    horizon: 32"),
        ("delete a", "  - name: a           # first\n    selector: '{job=\"a\"}'\n", ""),
        ("delete b", "  - name: b\n    score:\n      quiet: 3        # few\n", ""),
    ],
)
def test_a_change_leaves_the_rest_of_the_file(tmp_path: Path, change: str, old: str, new: str) -> None:
    assert old in BLOCK
    path = tmp_path / "openanomaly.yaml"
    assert changed(path, BLOCK, change, *Settings.model_fields) == BLOCK.replace(old, new)
    assert load(str(path), {}, {}).web.listen == ":9300"


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        ("", "add", "pipelines:\n- name: c\n  step_s: 30.0\n  labels:\n    team: x\n"),
        ("# nothing", "add", "# nothing\npipelines:\n- name: c\n  step_s: 30.0\n  labels:\n    team: x\n"),
        (
            "pipelines: # none\n",
            "add",
            "pipelines:\n- name: c\n  step_s: 30.0\n  labels:\n    team: x # none\n",
        ),
        ("pipelines: []\n", "add", "pipelines: [{name: c, step_s: 30.0, labels: {team: x}}]\n"),
        (
            "pipelines: [ {name: b} ] # few\n",
            "add",
            "pipelines: [ {name: b}, {name: c, step_s: 30.0, labels: {team: x}} ] # few\n",
        ),
        ("pipelines: [{name: b}, {name: a}]", "replace b", "pipelines: [{name: b, horizon: 32}, {name: a}]"),
        ("pipelines: [{name: b}, {name: a}]", "delete b", "pipelines: [{name: a}]"),
        ("pipelines: [{name: a}, {name: b}]", "delete b", "pipelines: [{name: a}]"),
        ("pipelines: [{name: b}]", "delete b", "pipelines: []"),
        ("pipelines: # ours\n  # of b\n  - name: b # few\n", "delete b", "pipelines: [] # ours\n  # of b\n"),
        ("pipelines:\n- name: b", "delete b", "pipelines: []\n"),
        ("pipelines:\n-\n  # b\n  name: b\n- name: a\n", "delete b", "pipelines:\n- name: a\n"),
        (
            "pipelines:\n-   name: b\n    step_s: 5\n",
            "replace b",
            "pipelines:\n-   name: b\n    horizon: 32\n",
        ),
        (
            "pipelines:\n- {name: b} # few\n- name: a",
            "replace b",
            "pipelines:\n- {name: b, horizon: 32} # few\n- name: a",
        ),
        ("pipelines:\n- name: a\n- name: b", "delete b a", "pipelines: []\n"),
        ("# b\nname: b # few\nstep_s: 5\n# end\n", "replace b", "# b\nname: b\nhorizon: 32\n# end\n"),
        (
            "pipelines:\n- name: b\n  selector: |\n    up\n\n# end\n",
            "replace b",
            "pipelines:\n- name: b\n  horizon: 32\n\n# end\n",
        ),
        (
            "---\npipelines:\n- name: b\n...\n",
            "replace b",
            "---\npipelines:\n- name: b\n  horizon: 32\n...\n",
        ),
        ('"pipelines":\n- name: b\n', "delete b", '"pipelines": []\n'),
    ],
)
def test_a_change_is_written_as_its_surroundings_are(
    tmp_path: Path, text: str, change: str, expected: str
) -> None:
    assert changed(tmp_path / "a.yaml", text, change) == expected


def test_line_ends_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"pipelines:\r\n- name: a\r\n- name: b\r\n")
    asyncio.run(store(path).create(C))
    asyncio.run(store(path).replace(Pipeline(name="b", horizon=32), None))
    assert path.read_bytes() == (
        b"pipelines:\r\n- name: a\r\n- name: b\r\n  horizon: 32\r\n- name: c\r\n  step_s: 30.0\r\n"
        b"  labels:\r\n    team: x\r\n"
    )


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("pipelines:\n- &b\n  name: b\n- {<<: *b, name: a}\n", "delete b"),
        ("pipelines:\n- name: b\n  labels: &x {a: b}\n- name: a\n  labels: *x\n", "replace b"),
        ("{log: {}}", "add"),
        ("pipelines:\n- name: b\n...\n", "add"),
        ("name: b", "add"),
        ("pipelines: [{name: b}", "add"),
        ("pipelines:\n- name: b\nlog: {}\nlog: {}\n", "replace b"),
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone(tmp_path: Path, text: str, change: str) -> None:
    path = tmp_path / "a.yaml"
    if text.endswith("...\n"):
        # Behind the end of a document there can be no more; the list ends before it.
        assert "- name: c" in changed(path, text, change)
        return
    with pytest.raises(ConfigError, match=r"cannot (change|add to) .*a.yaml|there is no pipeline 'b'"):
        changed(path, text, change, *(["log"] if "log" in text else []))
    assert path.read_text() == text


def test_a_value_of_another_is_kept_where_it_can_be(tmp_path: Path) -> None:
    text = "x-team: &x {team: y}\npipelines:\n- name: b\n  labels: *x\n- name: a\n  labels: *x\n"
    said = changed(tmp_path / "a.yaml", text, "replace b", "x-team")
    assert said == text.replace("- name: b\n  labels: *x", "- name: b\n  horizon: 32")


def test_a_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("pipelines: []\n")
    real.chmod(0o640)
    link.symlink_to("real.yaml")
    asyncio.run(store(link).create(C))
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert names(asyncio.run(store(real).read())) == ["c"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".openanomaly.lock", "link.yaml", "real.yaml"]


def test_a_new_file_has_the_mode_that_the_process_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        asyncio.run(store(tmp_path).create(C))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.yaml").stat().st_mode) == 0o640


# -- folders -------------------------------------------------------------------------------------


def test_a_folder_holds_a_definition_each_and_lists(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    (tmp_path / "more.yml").write_text("pipelines:\n- name: b\n- name: c\n")
    (tmp_path / "empty.yaml").write_text("# later\n")
    (tmp_path / ".hidden.yaml").write_text("name: hidden\n")
    (tmp_path / "README.md").write_text("- no YAML: of ours\n")
    (tmp_path / "folder.yaml").mkdir()
    one = store(tmp_path)
    assert names(asyncio.run(one.read())) == ["a", "b", "c"]
    asyncio.run(one.delete("b", None))
    asyncio.run(one.delete("a", None))
    assert (tmp_path / "more.yml").read_text() == "pipelines:\n- name: c\n"
    assert not (tmp_path / "a.yaml").exists()
    assert names(asyncio.run(one.read())) == ["c"]


def test_a_name_in_two_files_is_a_problem_of_the_second(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text("name: a\nstep_s: 5\n")
    (tmp_path / "2.yaml").write_text("pipelines:\n- name: b\n- name: a\n")
    found = asyncio.run(store(tmp_path).read())
    assert names(found) == ["a", "b"]
    assert found.pipelines[0].step_s == 5
    assert found.problems == (
        f"{tmp_path}/2.yaml, line 3: name = 'a': the name is used in {tmp_path}/1.yaml, line 1 too",
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [("..data", "%2E.data.yaml"), (".", "%2E.yaml"), ("a:b", "a%3Ab.yaml"), ("A_b-1.c", "A_b-1.c.yaml")],
)
def test_a_file_of_a_folder_is_never_hidden(tmp_path: Path, name: str, file: str) -> None:
    asyncio.run(store(tmp_path).create(Pipeline(name=name)))
    assert (tmp_path / file).read_text() == yaml.safe_dump({"name": name})
    assert names(asyncio.run(store(tmp_path).read())) == [name]


def test_a_file_of_another_definition_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: a\n")
    asyncio.run(store(tmp_path).create(C))
    assert names(asyncio.run(store(tmp_path).read())) == ["a", "c"]
    assert (tmp_path / "c.yaml").read_text() == "name: a\n"
    assert (tmp_path / "c-2.yaml").exists()


# -- problems ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "pipelines:\n- name: a\n- name: b\n  horizn: 5",
            "line 4: no setting pipelines.1.horizn; did you mean horizon?",
        ),
        ("name: a\n\nhorizon: 0", "line 3: horizon = 0: allowed: at least 1 and at most 1024"),
        ("pipeline:\n- name: a", "line 1: no setting pipeline; did you mean pipelines?"),
        ("pipelines: []\nlogs: {}", "line 2: no setting logs; only pipelines is expected here"),
        ("pipelines: {name: a}", "line 1: pipelines: expected a list of pipelines, found dict"),
        ("pipelines:\n- a", "line 2: pipelines.0 = (secret): expected settings by name"),
        ("- name: a", "line 1: expected pipelines, or one pipeline, found list"),
        ("text", "line 1: expected pipelines, or one pipeline, found str"),
        ("step_s: 5", "line 1: name is missing"),
        ("pipelines:\n- name: a\n- name: a", "line 3: name = 'a': the name is used in FILE, line 2 too"),
        ("pipelines:\n- name: a\n  name: b", "line 3: pipelines.0.name is given twice"),
        ("name: [", "line 1: expected the node content"),
        ("name: a\nselector: up\nquery: up", "query='up' and selector='up' exclude each other"),
    ],
)
def test_a_problem_names_file_line_key_value_and_nearest_name(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    [said] = asyncio.run(store(path).read()).problems
    assert said.startswith(f"{path}")
    assert problem in said.replace(str(path), "FILE").removeprefix("FILE, ")


def test_keys_of_the_settings_stand_beside(tmp_path: Path) -> None:
    path = tmp_path / "openanomaly.yaml"
    path.write_text("log: {level: debug}\nwed: {}\n")
    found = asyncio.run(store(path, *Settings.model_fields).read())
    assert found == Definitions((), (f"{path}, line 2: no setting wed; did you mean web?",))


def test_a_file_that_is_not_unicode_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    found = asyncio.run(store(tmp_path).read())
    assert names(found) == ["a"]
    assert found.problems == (f"{tmp_path}/b.yaml: it is not UTF-8",)


# -- ConfigMaps ----------------------------------------------------------------------------------


def volume(path: Path, version: str, files: dict[str, str]) -> None:
    """Write a volume as the kubelet does: a new folder, then the link `..data` to it."""
    path.mkdir(exist_ok=True)
    folder = path / f"..2026_11_27_{version}"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    (path / "..data_tmp").symlink_to(folder.name)
    os.replace(path / "..data_tmp", path / "..data")
    for name in files:
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"..data/{name}")
    for link in list(path.iterdir()):
        if link.is_symlink() and not link.exists():
            link.unlink()


@in_loop
async def test_a_config_map_is_followed_through_its_swaps(tmp_path: Path) -> None:
    class Volume(Place):
        def __init__(self, path: Path) -> None:
            self._home = self.path = path

    path = tmp_path / "volume"
    volume(path, "1", {"a.yaml": "name: a\nstep_s: 15\n", "b.yaml": "name: b\n"})
    async with watched(Volume(path)) as told, watched(Volume(path / "a.yaml")) as told_of_file:
        assert names(told[-1]) == ["a", "b"]
        # The same size, and perhaps the same moment: it is another file.
        volume(path, "2", {"a.yaml": "name: a\nstep_s: 25\n", "c.yaml": "name: c\n"})
        await until(lambda: names(told[-1]) == ["a", "c"])
        assert told[-1].pipelines[0].step_s == 25
        await until(lambda: told_of_file[-1].pipelines[0].step_s == 25)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_config_map_is_read_only(tmp_path: Path, is_file: bool) -> None:
    volume(tmp_path / "volume", "1", {"a.yaml": "pipelines:\n- name: a\n"})
    path = tmp_path / "volume" / "a.yaml" if is_file else tmp_path / "volume"
    for change in (
        store(path).create(C),
        store(path).replace(Pipeline(name="a", step_s=5), None),
        store(path).delete("a", None),
    ):
        with pytest.raises(ConfigError, match=re.escape("the store is read-only (a ConfigMap or Secret)")):
            asyncio.run(change)
    assert names(asyncio.run(store(path).read())) == ["a"]


@pytest.fixture
def nobody_may_write() -> Iterator[Path]:
    """A folder that its reader may not write, also if that is root."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "a.yaml").write_text("pipelines:\n- name: a\n")
        path.chmod(0o555)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield path
        finally:
            os.seteuid(before)
            path.chmod(0o755)


def test_a_folder_that_is_read_only_says_so(nobody_may_write: Path) -> None:
    one = store(nobody_may_write / "a.yaml")
    for change in (one.create(C), one.replace(Pipeline(name="a", step_s=5), None), one.delete("a", None)):
        with pytest.raises(ConfigError, match=r"the store is read-only \(Permission denied"):
            asyncio.run(change)
    assert names(asyncio.run(one.read())) == ["a"]


# -- half of a file ------------------------------------------------------------------------------


@in_loop
async def test_a_file_that_is_half_written_is_a_problem_until_it_is_whole(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.put("a", {})
    async with watched(place) as told:
        place.path.write_text("pipelines:\n- name: a\n- {name: b, sel")
        await until(lambda: told[-1].problems)
        place.path.write_text("pipelines:\n- name: a\n- {name: b, selector: up}\n")
        await until(lambda: not told[-1].problems)
        assert names(told[-1]) == ["a", "b"]


@in_loop
async def test_an_empty_file_is_a_store_without_pipelines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("")
    assert await store(path).read() == Definitions(())


@in_loop
async def test_changes_of_the_same_size_are_seen(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.put("a", {"step_s": 10})
    async with watched(place) as told:
        for step_s in (11, 12, 13):
            place.path.write_text(place.path.read_text().replace(f"{step_s - 1}", f"{step_s}"))
            await until(lambda: told[-1].pipelines[0].step_s == step_s)  # noqa: B023 (awaited at once)
