"""The chart's figures are those of `openanomaly size` (core/sizing.py): memory limits, and its texts."""

import re

import pytest

from deploy.chart import CHART, ROOT, container, pods, render
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.sizing import Fleet, Rates, Retentions, size
from openanomaly.settings import Settings

DEFAULTS = Settings()
KEPT = Retentions(samples_s=21_600, due_s=3_600, forecasts_s=21_600, scores_s=21_600)
IDLE = Rates.idle.value
SHOWN_BYTES = 12_000
"""Of an anomalous series on the status page (settings/roles.py, `series_limit`)."""
PLAYGROUND_BYTES = 550_000_000
"""Of a playground beside its pages: four of them, with trials at the limits, made 879 MB (2026-11-27)."""
SAMPLE_BYTES, SERIES_BYTES = 70, 14_000
"""Of a trial that a page shows (settings/web.py, `samples_limit` and `series_limit`)."""
SPARE = 1.05
"""What a limit has beyond what was measured, at least."""
VALUES = (CHART / "values.yaml").read_text()
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text()


def memory(series: int) -> dict[str, float]:
    """Bytes of one process of each role that has so many series, all of whose scores are written."""
    fleet = Fleet(series, 15.0, Pipeline(name="size"), is_all_emitted=True, worker_series=series)
    return {role: each.memory_bytes for role, each in size(fleet, KEPT).roles.items()}


def in_bytes(quantity: str) -> int:
    [(number, unit)] = re.findall(r"^(\d+)([MG])i$", quantity)
    return int(number) << {"M": 20, "G": 30}[unit]


def limit(shape: str, role: str) -> int:
    return in_bytes(container(pods(render(shape))[role])["resources"]["limits"]["memory"])


def needed() -> dict[str, float]:
    """Bytes of a pod that has as many series as its settings let it have."""
    full = memory(DEFAULTS.window.max_series)
    page = DEFAULTS.status.series_limit * SHOWN_BYTES
    own = DEFAULTS.playground
    every = sum(full.values()) - (len(full) - 1) * IDLE
    return {
        "receiver": memory(DEFAULTS.receiver.known_series)["receiver"],
        "window": full["window"],
        "inference": full["inference"],
        "sink": full["sink"] + page,
        "standalone": every + page,
        "playground": PLAYGROUND_BYTES + own.sessions * (page_of_trial() + own.upload_limit_bytes),
    }


def page_of_trial() -> int:
    """Bytes of a page of the playground, without the file."""
    own = DEFAULTS.playground
    return own.samples_limit * SAMPLE_BYTES + own.series_limit * SERIES_BYTES


@pytest.mark.parametrize("role", needed())
def test_the_memory_of_a_pod_holds_the_series_that_it_takes(role: str) -> None:
    """Beyond the limit of a setting new ones are refused and counted; beyond the memory the pod is killed."""
    shape = role if role in ("standalone", "playground") else "kafka"
    assert limit(shape, role) > SPARE * needed()[role]


def sentences(text: str) -> str:
    """A text without line ends and the marks of comments."""
    return " ".join(re.sub(r"^ *#( --)?", "", line).strip() for line in text.splitlines())


@pytest.mark.parametrize("text", [VALUES, DOCUMENT], ids=["values.yaml", "kubernetes.md"])
@pytest.mark.parametrize(
    "figure",
    [
        f"{Rates.receiver.value / 1e6:.1f} million samples a second",
        f"{Rates.window.value:,.0f} steps a second",
        f"{Rates.inference.value:,.0f} series a second",
        f"{Rates.receiver_series.value:,.0f} bytes",
        f"{Rates.window_series.value:,.0f} bytes",
        f"{Rates.sink_series.value:,.0f} bytes",
        f"{IDLE / 1e6:.0f} MB",
    ],
)
def test_figures_in_words_are_those_that_were_measured(text: str, figure: str) -> None:
    assert figure in sentences(text)


def test_sums_in_words_are_right() -> None:
    full = memory(DEFAULTS.window.max_series)
    every = sum(full.values()) - (len(full) - 1) * IDLE
    assert f"{every / 1e9:.1f} GB for all roles together" in sentences(VALUES)
    request = container(pods(render("kafka"))["window"])["resources"]["requests"]["memory"]
    held = (in_bytes(request) - IDLE) / Rates.window_series.value
    assert f"one window pod holds {round(held, -4):,.0f} series" in sentences(DOCUMENT)
    own = DEFAULTS.playground
    page = round((page_of_trial() + own.upload_limit_bytes) / 1e6)
    assert f"playground.sessions pages, {own.sessions} by default, of {page} MB each" in sentences(VALUES)
    beside = f"{PLAYGROUND_BYTES / 1e6:.0f} MB"
    assert f"and {beside}." in sentences(VALUES)
    each = f"A playground needs {beside}, and {page} MB for each of `playground.sessions` ({own.sessions})"
    assert each in sentences(DOCUMENT)
    for name in ("receiver.known_series", "window.max_series"):
        group, _, setting = name.partition(".")
        value = f"{getattr(getattr(DEFAULTS, group), setting):,}"
        assert re.search(rf"{re.escape(name)}[^.]*{value}", sentences(VALUES)), name
