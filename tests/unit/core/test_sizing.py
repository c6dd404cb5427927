"""Sizes follow from measured rates, and stand in the documents as they are."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from openanomaly import cli
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.sizing import Fleet, Measured, Rates, Retentions, size

ROOT = Path(__file__).parents[3]
KEPT = Retentions(samples_s=6 * 3600, due_s=3600, forecasts_s=6 * 3600, scores_s=6 * 3600)
FLEET = Fleet(1_000_000, 15.0, Pipeline(name="size", step_s=60), is_all_emitted=True)


@pytest.mark.parametrize("figure", Rates.all(), ids=lambda figure: figure.what)
def test_a_figure_is_the_one_that_its_bench_tells(figure: Measured) -> None:
    assert (ROOT / "bench" / figure.bench).exists()
    [row] = [
        line
        for line in (ROOT / "bench/README.md").read_text().splitlines()
        if line.startswith(f"| `{figure.bench.split()[0]}")
    ]
    assert figure.said in row
    numbers = [float(text.replace(",", "")) for text in re.findall(r"[\d,]*\d(?:\.\d+)?", figure.said)]
    scaled = {number * factor for number in numbers for factor in (1, 1e6)}
    assert any(abs(figure.value - each) <= 0.06 * each for each in scaled), (
        f"{figure.value} is not in {numbers}"
    )


def test_work_grows_with_series_and_cadence() -> None:
    one, twice = size(FLEET, KEPT), size(replace(FLEET, series=2_000_000), KEPT)
    faster = size(replace(FLEET, scrape_s=7.5), KEPT)
    for role in one.roles:
        assert twice.roles[role].cores == pytest.approx(2 * one.roles[role].cores)
    assert twice.kafka_day_bytes == pytest.approx(2 * one.kafka_day_bytes)
    assert faster.roles["receiver"].cores == pytest.approx(2 * one.roles["receiver"].cores)
    assert faster.roles["inference"].cores == one.roles["inference"].cores


def test_a_million_series_by_hand() -> None:
    found = size(FLEET, KEPT)
    assert found.samples_per_s == pytest.approx(1e6 / 15)
    assert found.forecasts_per_s == pytest.approx(1e6 / 60 / 16)
    assert found.roles["inference"].cores == pytest.approx(1e6 / 60 / 16 / 1800)
    assert found.roles["inference"].processes == 2  # 0.58 core, half of one each
    steps = 1e6 / 60
    flow = 1e6 / 15 * 37.5 + steps * (93 + 26) + steps / 16 * (1058 + 669)
    assert found.kafka_day_bytes == pytest.approx(flow * 86_400)
    assert (found.target_series, found.target_samples_per_s) == (1_000_000, steps)


def test_more_than_a_worker_takes_is_spread_and_has_partitions_to_spread() -> None:
    found = size(replace(FLEET, series=20_000_000, scrape_s=60.0), KEPT)
    windows = found.roles["window"]
    assert windows.processes == 20
    assert windows.memory_bytes == pytest.approx(size(FLEET, KEPT).roles["window"].memory_bytes)
    assert found.partitions == 512
    assert found.partitions * Rates.partition_series.value >= 20_000_000


def test_longer_windows_take_more_memory_and_longer_contexts() -> None:
    longer = Pipeline(name="size", step_s=60, context=1024)
    one, found = size(FLEET, KEPT), size(replace(FLEET, pipeline=longer), KEPT)
    ring = 4 * 512 * FLEET.series  # float32
    assert found.roles["window"].memory_bytes - one.roles["window"].memory_bytes == pytest.approx(
        ring, rel=0.1
    )
    day = 86_400 * FLEET.series / 60 / 16
    assert found.kafka_day_bytes - one.kafka_day_bytes == pytest.approx(2 * 512 * day)


def test_episodes_alone_and_an_engine_of_ones_own() -> None:
    found = size(replace(FLEET, is_all_emitted=False, engine_per_s=20_000.0), KEPT)
    assert found.target_series is None
    assert found.roles["sink"].cores == 0
    assert found.roles["inference"].cores == pytest.approx(1e6 / 60 / 16 / 20_000)


def test_the_parts_of_a_fleet_that_was_measured_as_a_whole() -> None:
    """bench/fleet.py: 100,000 series, four scrapes in a step of 10 s, all scores: 26 % of two cores."""
    fleet = Fleet(100_000, 2.5, Pipeline(name="size", step_s=10), is_all_emitted=True)
    assert sum(role.cores for role in size(fleet, KEPT).roles.values()) == pytest.approx(0.52, rel=0.15)


COMMANDS = re.findall(
    r"```console\n\$ openanomaly (size .*)\n```\n\n((?:\|.*\n)+)", (ROOT / "docs/sizing.md").read_text()
)


@pytest.mark.parametrize(("command", "table"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_the_tables_of_the_document_are_the_output(
    capsys: pytest.CaptureFixture[str], command: str, table: str
) -> None:
    assert cli.main(shlex.split(command)) == 0
    assert capsys.readouterr().out == table


def test_every_table_is_compared() -> None:
    # What a GPU does was measured by a bench, and is computed by no command.
    computed, _, _ = (ROOT / "docs/sizing.md").read_text().partition("## Forecasts of a GPU")
    heads = re.findall(r"^\| ---.*\n", computed, re.MULTILINE)
    assert len(COMMANDS) == len(heads) == 3


@pytest.mark.parametrize("words", [["--series", "0"], ["--scrape", "soon"], ["--use", "2"]])
def test_what_is_no_size_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["size", *words])
