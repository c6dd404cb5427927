"""Our own metrics as Prometheus reads them, and log lines as machines do."""

import json
import logging
import re
import subprocess
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dues import Echo, OnDevice
from openanomaly.adapters.chronos import ChronosAdapter
from openanomaly.adapters.engines import built_in_checkpoint
from openanomaly.core.ports.model_engine import DeviceMemory, TellsMemory
from openanomaly.logs import set_up_logging
from openanomaly.telemetry import Telemetry
from parts import debian


@pytest.fixture
def telemetry() -> Telemetry:
    """With everything in it that there may be."""
    found = Telemetry()
    found.receiver.requests.labels("1.0", "204").inc()
    found.inference.engines({"auto": OnDevice("cuda:0")})
    found.inference.batch("auto", 7, 0.1, 448, 8)
    found.sink.requests.labels("204").inc()
    found.lag.records.labels("sink", "scores").set(1)
    found.lag.oldest_seconds.labels("sink", "scores").set(2)
    found.lag.watch("sink", lambda: {"scores": 5})
    gauges = ("series", "series_with_forecast", "partitions", "partitions_replaying", "row_state_bytes")
    found.window.watch(
        lambda: {"in": 9, "accepted": 4, "late": 5},
        lambda: dict.fromkeys((*gauges, "busy_seconds", "checkpoints"), 3.0),
    )
    found.is_ready.labels("sink").set(1)
    return found


def metrics(telemetry: Telemetry) -> Iterable[Metric]:
    return [metric for metric in telemetry.registry.collect() if metric.samples]


def test_promtool_finds_nothing_to_say(telemetry: Telemetry) -> None:
    done = subprocess.run(
        [debian.program("promtool"), "check", "metrics"],
        input=generate_latest(telemetry.registry),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_openmetrics_read_the_same(telemetry: Telemetry) -> None:
    text = generate_openmetrics(telemetry.registry).decode()
    assert {m.name for m in text_string_to_metric_families(text)} == {
        m.name for m in telemetry.registry.collect()
    }


def test_names_have_their_room_and_unit_and_help(telemetry: Telemetry) -> None:
    for metric in metrics(telemetry):
        assert re.fullmatch(r"(openanomaly|process)(_[a-z]+)+", metric.name), metric.name
        assert metric.documentation.endswith("."), metric.name
        assert len(metric.documentation.split()) >= 3, metric.name
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_bytes", "_rows", "_samples")), metric.name


def test_reasons_are_there_before_the_first_drop(telemetry: Telemetry) -> None:
    """Else the first one is no increase, and nobody is told."""
    reasons = {
        metric.name: {s.labels["reason"] for s in metric.samples if "reason" in s.labels}
        for metric in metrics(telemetry)
    }
    assert {"unselected", "future", "unavailable"} <= reasons["openanomaly_receiver_samples_dropped"]
    assert {"duplicate", "late", "max_series"} <= reasons["openanomaly_window_samples_dropped"]
    assert {"stale", "memory"} <= reasons["openanomaly_inference_dropped"]
    assert {"rejected", "no_target"} <= reasons["openanomaly_sink_scores_dropped"]


def test_failovers_are_there_before_the_first_one(telemetry: Telemetry) -> None:
    assert telemetry.registry.get_sample_value("openanomaly_receiver_failovers_total") == 0


def test_what_windows_tell_is_published_as_what_it_is(telemetry: Telemetry) -> None:
    value = telemetry.registry.get_sample_value
    assert value("openanomaly_window_samples_total") == 9
    assert value("openanomaly_window_samples_dropped_total", {"reason": "late"}) == 5
    assert value("openanomaly_window_busy_seconds_total") == 3
    assert value("openanomaly_window_checkpoints_total") == 3
    assert value("openanomaly_window_series") == 3


def test_what_a_role_lost_to_retention_is_counted(telemetry: Telemetry) -> None:
    labels = {"role": "sink", "topic": "scores"}
    assert telemetry.registry.get_sample_value("openanomaly_records_expired_total", labels) == 5


@pytest.fixture
def logging_is_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("logging_is_restored")
def test_a_line_of_json_has_level_place_message_and_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json", "info")
    log = logging.getLogger("openanomaly.test")
    log.debug("not told")
    log.info("%d of\n%d", 1, 2)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it failed")
    told, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert (told["level"], told["logger"], told["message"]) == ("info", "openanomaly.test", "1 of\n2")
    assert told["time"].endswith("Z")
    assert "ValueError: why" in failed["exception"]


def test_models_that_are_no_longer_loaded_are_no_longer_told(telemetry: Telemetry) -> None:
    telemetry.inference.engines({"auto": Echo(), "big": OnDevice("cuda:0")})
    telemetry.inference.engines({"big": OnDevice("cuda:1")})
    found = [
        line for line in generate_latest(telemetry.registry).decode().splitlines() if "engine_info{" in line
    ]
    assert found == ['openanomaly_inference_engine_info{device="cuda:1",model="big"} 1.0']


def memory_told(telemetry: Telemetry) -> list[str]:
    text = generate_latest(telemetry.registry).decode()
    return [line for line in text.splitlines() if line.startswith("openanomaly_inference_device_memory")]


def test_memory_of_a_device_is_told_once_whatever_runs_on_it(telemetry: Telemetry) -> None:
    engines = {"auto": Echo(), "big": OnDevice("cuda:0"), "small": OnDevice("cuda:0")}
    telemetry.inference.engines({**engines, "far": OnDevice("cuda:1", DeviceMemory(8, 4, 2, 1))})
    assert memory_told(telemetry) == [
        'openanomaly_inference_device_memory_bytes{device="cuda:0"} 80.0',
        'openanomaly_inference_device_memory_bytes{device="cuda:1"} 8.0',
        'openanomaly_inference_device_memory_free_bytes{device="cuda:0"} 50.0',
        'openanomaly_inference_device_memory_free_bytes{device="cuda:1"} 4.0',
        'openanomaly_inference_device_memory_reserved_bytes{device="cuda:0"} 20.0',
        'openanomaly_inference_device_memory_reserved_bytes{device="cuda:1"} 2.0',
        'openanomaly_inference_device_memory_allocated_bytes{device="cuda:0"} 10.0',
        'openanomaly_inference_device_memory_allocated_bytes{device="cuda:1"} 1.0',
    ]
    telemetry.inference.engines({"auto": Echo()})
    assert memory_told(telemetry) == []


def test_nothing_is_told_of_memory_where_there_is_none_of_its_own(telemetry: Telemetry) -> None:
    """Neither by an engine of others that knows nothing of it, nor by torch on the processor."""
    on_cpu = ChronosAdapter(str(built_in_checkpoint()), device="cpu", threads=1)
    assert isinstance(on_cpu, TellsMemory)
    assert not isinstance(Echo(), TellsMemory)
    telemetry.inference.engines({"auto": on_cpu, "other": Echo()})
    assert memory_told(telemetry) == []


def test_a_device_that_cannot_be_asked_takes_no_other_metric_with_it(telemetry: Telemetry) -> None:
    failed = OnDevice("cuda:0", RuntimeError("CUDA error: unspecified launch failure"))
    telemetry.inference.engines({"auto": failed, "big": OnDevice("cuda:1")})
    assert len(memory_told(telemetry)) == 4
    assert all('device="cuda:1"' in line for line in memory_told(telemetry))
    assert b'engine_info{device="cuda:0",model="auto"} 1.0' in generate_latest(telemetry.registry)
