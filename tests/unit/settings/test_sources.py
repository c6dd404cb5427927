"""Settings from a file, variables and flags: which one wins, and what an error says."""

import contextlib
from collections.abc import Mapping
from datetime import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from openanomaly.core.kernels import SWITCH
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "openanomaly.yaml"


def of(
    file: Path | None, text: str = "", environ: Mapping[str, str] = {}, flags: Mapping[str, str] = {}
) -> Settings:
    if file is not None:
        file.write_text(text)
    return load(str(file) if file else None, environ, flags)


def error(
    file: Path | None, text: str = "", environ: Mapping[str, str] = {}, flags: Mapping[str, str] = {}
) -> str:
    with pytest.raises(ConfigError) as raised:
        of(file, text, environ, flags)
    return str(raised.value).replace(str(file), "FILE")


# -- what is taken -------------------------------------------------------------------------------


def test_later_sources_win(file: Path) -> None:
    text = "window: {max_series: 1, checkpoint_s: 11, idle_ttl_s: 11100}"
    environ = {"OPENANOMALY_WINDOW_CHECKPOINT_S": "22", "OPENANOMALY_WINDOW_IDLE_TTL_S": "22200"}
    window = of(file, text, environ, {"window.idle_ttl_s": "33300"}).window
    assert (window.max_series, window.checkpoint_s, window.idle_ttl_s) == (1, 22, 33300)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "sink:\n  # url: http://a\nweb:\n"])
def test_what_is_left_out_has_its_default(file: Path, text: str) -> None:
    assert of(file, text) == Settings()


def test_a_default_file_may_be_missing(file: Path) -> None:
    assert load(str(file), {}, {}, explicit=False) == Settings()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("6h", 21600), ("90s", 90), ("1.5m", 90), ("2 d", 172800), ("1w", 604800), ("75", 75)],
)
def test_durations_may_have_units(file: Path, value: str, seconds: float) -> None:
    assert of(file, f"broker: {{samples_retention_s: {value}}}").broker.samples_retention_s == seconds
    assert of(None, flags={"broker.samples_retention_s": value}).broker.samples_retention_s == seconds


def test_units_follow_the_name_of_the_setting(file: Path) -> None:
    receiver = of(file, "receiver: {coalesce_ms: 0.01s, body_limit_bytes: 2MiB, unpacked_limit_bytes: 3MB}")
    assert receiver.receiver.coalesce_ms == 10
    assert receiver.receiver.body_limit_bytes == 2 << 20
    assert receiver.receiver.unpacked_limit_bytes == 3_000_000
    assert of(file, "pipelines: [{name: a, step_s: 15s}]").pipelines[0].step_s == 15


def test_lists_and_maps_are_yaml_in_variables_and_flags() -> None:
    environ = {
        "OPENANOMALY_SINK_EXTERNAL_LABELS": "{dc: east, n: '1'}",
        "OPENANOMALY_PIPELINES": "[{name: a, step_s: 15s}]",
    }
    settings = of(None, "", environ, {"receiver.replica_labels": "[replica, __replica__]"})
    assert settings.sink.external_labels == {"dc": "east", "n": "1"}
    assert settings.receiver.replica_labels == ("replica", "__replica__")
    assert settings.pipelines[0].step_ms == 15_000


def test_an_empty_variable_unsets_what_may_be_unset(file: Path) -> None:
    text = "sink: {url: 'http://a/write'}"
    assert of(file, text, {"OPENANOMALY_SINK_URL": ""}).sink.url is None
    assert "broker.partitions = ''" in error(None, environ={"OPENANOMALY_BROKER_PARTITIONS": ""})


def test_variables_of_others_are_left_alone() -> None:
    environ = {
        "PATH": "/bin",
        "OPENANOMALY_CONFIG": "elsewhere.yaml",
        SWITCH: "0",
        # Kubernetes, for services that are called openanomaly and openanomaly-receiver:
        "OPENANOMALY_PORT": "tcp://10.0.0.1:9201",
        "OPENANOMALY_SERVICE_HOST": "10.0.0.1",
        "OPENANOMALY_RECEIVER_SERVICE_PORT_HTTP": "9201",
        "OPENANOMALY_RECEIVER_PORT_9201_TCP_ADDR": "10.0.0.1",
    }
    assert of(None, environ=environ) == Settings()


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "broker:\n  partitions: 5000",
            "FILE, line 2: broker.partitions = 5000: allowed: at least 1 and at most 4096",
        ),
        (
            "inference:\n\n  max_batch: many",
            "FILE, line 3: inference.max_batch = 'many': input should be a valid integer, unable to parse "
            "string as an integer; allowed: at least 1 and at most 65536",
        ),
        ("sink:\n  timeout_s: 0", "FILE, line 2: sink.timeout_s = 0: allowed: more than 0 and at most 600"),
        ("broker:\n  partition: 3", "FILE, line 2: no setting broker.partition; did you mean partitions?"),
        ("brokers: {}", "FILE, line 1: no setting brokers; did you mean broker?"),
        ("xyz: 1", "FILE, line 1: no setting xyz"),
        ("log: {level: loud}", "FILE, line 1: log.level = 'loud': input should be 'debug', 'info'"),
        (
            "pipelines:\n- name: a\n- name: b\n  model: statistic",
            "FILE, line 4: pipelines.1.model: there is no model 'statistic'; did you mean 'statistical'?",
        ),
        ("pipelines:\n- name: a\n- nome: b", "FILE, line 3: pipelines.1.name is missing"),
        (
            "pipelines:\n- name: a\n  score:\n    tolerance: 11",
            "FILE, line 4: pipelines.0.score.tolerance = 11: allowed: at least 0 and at most 10",
        ),
        (
            "pipelines:\n- name: a\n  selector: '{a=}'",
            "FILE, line 3: pipelines.0.selector: cannot parse selector '{a=}': expected a quoted string "
            "at position 4, found '}'",
        ),
        ("pipelines:\n- {name: a}\n- {name: a}", "FILE, line 1: pipelines: pipelines.1.name = 'a'"),
        (
            "sink:\n  backoff_min_s: 99",
            "FILE, line 1: sink: backoff_min_s = 99.0 is above backoff_max_s = 30.0",
        ),
        (
            "broker:\n  partitions: yes",
            "FILE, line 2: broker.partitions: found true, as YAML reads yes, no, on and off; quote a word; "
            "allowed: at least 1 and at most 4096",
        ),
        (
            "pipelines:\n- name: a\n  score:\n    mute: [{days: [sunday]}]",
            "FILE, line 4: pipelines.0.score.mute.0.days.0 = 'sunday': input should be 'mon', 'tue'",
        ),
        (
            "receiver: {replica_labels: a}",
            "FILE, line 1: receiver.replica_labels = 'a': input should be a list",
        ),
        ("sink: {external_labels: [a]}", "FILE, line 1: sink.external_labels = ['a']: input should be a map"),
        ("sink: http://a/write", "FILE, line 1: sink = (secret): expected settings by name"),
        ("broker: {1: 5s}", "FILE, line 1: broker.1 = (int): keys should be strings"),
        ("log:\n  level: info\n  level: debug", "FILE, line 3: log.level is given twice"),
        ("- a", "FILE, line 1: expected settings by name, found list"),
        ("text", "FILE, line 1: expected settings by name, found str"),
        ("a: b\n c: d", "FILE, line 2: mapping values are not allowed here"),
        ("a: {", "FILE, line 1: expected the node content"),
        ("a: 1\n---\nb: 2", "FILE, line 2: but found another document"),
        ("a: 2026-99-99", "FILE: month must be in 1..12"),
        ("a: &a [*a]", "FILE: an alias stands inside of what it names"),
        ("a: \x00", "FILE: "),
    ],
)
def test_errors_name_place_setting_value_and_range(file: Path, text: str, message: str) -> None:
    assert error(file, text).startswith(message)


def test_a_list_of_wrong_things_is_not_called_empty_too(file: Path) -> None:
    said = error(file, "pipelines: [{name: a, score: {channels: [], mute: [{days: [sunday]}]}}]")
    assert [line.split(": ", 2)[1] for line in said.splitlines()] == [
        "pipelines.0.score.channels = []",
        "pipelines.0.score.mute.0.days.0 = 'sunday'",
    ]


def test_hours_need_no_quotes(file: Path) -> None:
    text = "pipelines: [{name: a, score: {mute: [{start: 22:30, end: 06:00}, {start: 10:00:00}]}}]"
    night, noon = of(file, text).pipelines[0].score.mute
    assert (night.start, night.end, noon.start) == (time(22, 30), time(6), time(10))


def test_errors_in_variables_and_flags_name_them() -> None:
    environ = {"OPENANOMALY_BROKER_PARTITIONS": "0", "OPENANOMALY_SINK_ULR": "http://a"}
    flags = {"window.max_series": "-1", "window.max_serie": "5"}
    assert error(None, "", environ, flags).splitlines() == [
        "OPENANOMALY_SINK_ULR: no such setting; did you mean OPENANOMALY_SINK_URL?",
        "--set window.max_serie: no such setting; did you mean window.max_series?",
        "OPENANOMALY_BROKER_PARTITIONS: broker.partitions = '0': allowed: at least 1 and at most 4096",
        "flag for window.max_series: window.max_series = '-1': allowed: at least 1",
    ]


def test_a_variable_that_is_not_yaml_is_one_error_of_several() -> None:
    environ = {"OPENANOMALY_SINK_HEADERS": "{Authorization: hunter2", "OPENANOMALY_BROKER_PARTITIONS": "0"}
    lines = error(None, "", environ).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("OPENANOMALY_SINK_HEADERS: sink.headers: it is not YAML")
    assert "hunter2" not in lines[0]


@pytest.mark.parametrize(
    "text",
    [
        "sink: {bearer_token: [hunter2]}",
        "sink: {password: {hunter2: 1}}",
        "sink: {headers: {Authorization: [hunter2]}}",
        "sink: {headers: hunter2}",
        "sink: hunter2",
        "web: {auth: hunter2}",
        "web: {auth: {username: hunter2}}",
        "web: {auth: {password: hunter2}}",
        "broker: {sasl_password: [hunter2]}",
        "sink: {url: 'x://me:hunter2@a'}",
    ],
)
def test_errors_show_no_secret(file: Path, text: str) -> None:
    assert "hunter2" not in error(file, text)


def test_files_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read settings file .*: No such file or directory"):
        load(str(file), {}, {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(str(file.parent), {}, {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(str(file), {}, {})


@with_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(st.sampled_from("abroker sink:url{}[],'\"&*!|>-#\n\t%@`0158.e~<="), max_size=60),
        st.text(max_size=40),
    )
)
def test_no_file_is_worth_more_than_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(text, "utf-8", errors="replace")
    with contextlib.suppress(ConfigError):
        load(str(file), {}, {})
