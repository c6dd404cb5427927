"""Presets: chosen by name, beside the user's own pipelines, wherever those are defined."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from openanomaly import cli, definitions, presets
from openanomaly.core.ports.config_store import Definitions
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import load

NODE = [pipeline.name for pipeline in presets.pipelines("node-exporter")]
POLL_S = 0.05


def running(settings: Settings) -> list[str]:
    return [pipeline.name for pipeline in definitions.filled(settings).pipelines]


def test_without_presets_everything_is_watched_by_one_pipeline() -> None:
    assert running(Settings()) == ["default"]


def test_a_preset_takes_the_place_of_the_pipeline_that_watches_everything() -> None:
    assert running(Settings(presets=("node-exporter",))) == NODE


def test_own_pipelines_stand_beside_a_preset() -> None:
    settings = Settings.model_validate({"presets": ["node-exporter"], "pipelines": [{"name": "mine"}]})
    assert running(settings) == ["mine", *NODE]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            "[node-exporer]",
            "there is no preset 'node-exporer'; did you mean 'node-exporter'? they are kubernetes",
        ),
        ("[what]", "there is no preset 'what'; they are kubernetes, node-exporter"),
        ("[kubernetes, kubernetes]", "'kubernetes' is there twice"),
    ],
)
def test_what_cannot_be_chosen_is_said_with_its_line(chosen: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(f"log: {{level: info}}\npresets: {chosen}\n")
    with pytest.raises(ConfigError) as failed:
        load(str(file), {}, {})
    assert str(failed.value).startswith(f"{file}, line 2: presets: {message}")


def test_a_name_that_a_preset_has_too_is_refused() -> None:
    with pytest.raises(ValueError, match="'node-cpu' is defined here and in the preset 'node-exporter'"):
        Settings.model_validate({"presets": ["node-exporter"], "pipelines": [{"name": "node-cpu"}]})


@pytest.mark.parametrize(
    ("environ", "flags"),
    [
        ({"OPENANOMALY_PRESETS": "[node-exporter, kubernetes]"}, {}),
        ({"OPENANOMALY_PRESETS": "[kubernetes]"}, {"presets": '["node-exporter", "kubernetes"]'}),
    ],
)
def test_variables_and_flags_choose_too(environ: dict[str, str], flags: dict[str, str]) -> None:
    assert load(None, environ, flags).presets == ("node-exporter", "kubernetes")


def test_the_flag_may_be_given_repeatedly(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--preset", "node-exporter", "--preset", "kubernetes", "--dry-run"]
    assert cli.main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["presets"] == ["node-exporter", "kubernetes"]
    assert {"node-cpu", "k8s-cpu"} < {pipeline["name"] for pipeline in plan["settings"]["pipelines"]}


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preset", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [*presets.names(), "health", "scores"]
    assert ["pipelines" in line for line in listed] == [True, True, False, False]
    for line in listed:
        name, about = line.split()[0], line.split(" alerts  ")[1]
        assert f"dashboard  {presets.alerts(name).count('- alert: '):2} alerts" in line
        assert about.endswith(".")

    assert cli.main(["preset", "show", "node-exporter"]) == 0
    assert capsys.readouterr().out == presets.text("node-exporter")
    assert cli.main(["preset", "show", "node"]) != 0
    assert "there is no preset 'node'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*presets.names(), *presets.without_pipelines()])
def test_dashboards_and_alerts_are_printed_for_other_programs_to_read(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["preset", "dashboard", name]) == 0
    assert json.loads(capsys.readouterr().out)["uid"] == f"openanomaly-{name}"
    assert cli.main(["preset", "alerts", name]) == 0
    [group] = yaml.safe_load(capsys.readouterr().out)["groups"]
    assert group["name"] == f"openanomaly-{name}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("alerts", "score"), "there is no file of alerts 'score'; did you mean 'scores'? they are health,"),
        (("dashboard", "zzz"), "there is no dashboard 'zzz'; they are health, kubernetes, node-exporter"),
        (("show", "health"), "'health' has a dashboard and alerts, and no pipelines; presets are kubernetes"),
    ],
)
def test_what_a_name_has_not_is_said(
    words: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["preset", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_what_is_shown_can_be_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(presets.text("kubernetes"))
    assert load(str(tmp_path / "own.yaml"), {}, {}).pipelines == presets.pipelines("kubernetes")


# -- beside a store, and while a process runs -------------------------------------------------------


def stored(folder: Path, name: str) -> Settings:
    (folder / "stored.yaml").write_text(f"pipelines: [{{name: {name}}}]\n")
    store = {"url": str(folder / "stored.yaml"), "poll_s": POLL_S}
    return Settings.model_validate({"presets": ["node-exporter"], "store": store})


def test_pipelines_of_a_store_stand_beside_a_preset(tmp_path: Path) -> None:
    assert running(stored(tmp_path, "mine")) == ["mine", *NODE]
    with pytest.raises(ConfigError, match="'node-load' is defined here and in the preset"):
        definitions.filled(stored(tmp_path, "node-load"))


def test_an_empty_store_and_a_preset_are_enough(tmp_path: Path) -> None:
    settings = stored(tmp_path, "mine")
    (tmp_path / "stored.yaml").write_text("pipelines: []\n")
    assert running(settings) == NODE


def test_changes_of_a_store_come_with_the_preset(tmp_path: Path) -> None:
    settings = stored(tmp_path, "mine")

    async def scenario() -> None:
        told = changes(settings, "", lambda: settings)
        assert names(await anext(told)) == ["mine", *NODE]

        stored(tmp_path, "node-clock")
        refused = await asyncio.wait_for(anext(told), 10)
        assert "'node-clock' is defined here and in the preset" in refused.problems[0]

        stored(tmp_path, "other")
        assert names(await asyncio.wait_for(anext(told), 10)) == ["other", *NODE]

    asyncio.run(scenario())


def test_a_preset_that_is_chosen_while_a_process_runs_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "openanomaly.yaml"
    file.write_text(f"store: {{poll_s: {POLL_S}}}\npipelines: [{{name: mine}}]\n")

    def read() -> Settings:
        return load(str(file), {}, {})

    async def scenario(settings: Settings) -> None:
        told = changes(settings, str(file), read)
        assert names(await anext(told)) == ["mine"]
        file.write_text(file.read_text() + "presets: [node-exporter]\n")
        assert names(await asyncio.wait_for(anext(told), 10)) == ["mine", *NODE]

    asyncio.run(scenario(definitions.filled(read())))
    assert "after a restart" not in caplog.text


def changes(settings: Settings, file: str, read: Callable[[], Settings]) -> AsyncIterator[Definitions]:
    found = definitions.changes(settings, file, read)
    assert found is not None
    return found()


def names(found: Definitions) -> list[str]:
    assert not found.problems
    return [pipeline.name for pipeline in found.pipelines]
