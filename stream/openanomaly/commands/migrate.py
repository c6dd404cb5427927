"""`openanomaly migrate SOURCE TARGET`: history, catalogue and unread records to another broker."""

import argparse
import asyncio
import os
import sys
from typing import Any

from openanomaly.errors import BrokerError, ConfigError, OpenAnomalyError
from openanomaly.exits import CONFIG, CRASH
from openanomaly.settings import Settings
from openanomaly.settings.sources import CONFIG_VARIABLE, DEFAULT_FILE, flags_of, load

_DESCRIPTION = """\
Moves what windows know, and what nobody has read yet, to a broker without records, also to another number of
partitions. Stop every role on both sides first. SOURCE is only read. Exit status: 0 when all of it has moved,
2 if a setting or a person is in the way, 1 if a broker did not answer. See docs/moving-to-kafka.md.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "migrate", help="move an installation to another broker", description=_DESCRIPTION
    )
    parser.add_argument("source", metavar="SOURCE", help="embedded://PATH or kafka://HOST:PORT")
    parser.add_argument("target", metavar="TARGET", help="the same; it must not have had records")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"settings file with the pipelines; {DEFAULT_FILE} in the working folder if it exists, or "
        f"{CONFIG_VARIABLE}",
    )
    parser.add_argument(
        "--partitions", type=int, metavar="N", help="of the target; without it the setting broker.partitions"
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-prefix",
            metavar="PREFIX",
            help=f"of the topics and groups of {side.upper()}; without it the setting broker.topic_prefix",
        )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any setting by its dotted name, e.g. --set broker.replication=3",
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-set",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            help=f"the same for {side.upper()} alone, e.g. broker.sasl_username=...",
        )
    parser.add_argument(
        "--dry-run", action="store_true", help="check both sides, say what would be moved, write nothing"
    )


def main(options: argparse.Namespace) -> int:
    """Run the command; its exit status."""
    try:
        source = _settings(options, "source")
        target = _settings(options, "target", options.partitions)
        asyncio.run(_migrate(source, target, is_dry=options.dry_run))
    except OpenAnomalyError as exc:
        _tell(f"openanomaly: {exc}")
        return CONFIG if isinstance(exc, ConfigError | BrokerError) else CRASH
    except KeyboardInterrupt:
        _tell("openanomaly: interrupted; what was written to the target is not used by anybody: delete it")
        return CRASH
    return 0


def _settings(options: argparse.Namespace, side: str, partitions: int | None = None) -> Settings:
    flags = flags_of(options.set) | flags_of(getattr(options, f"{side}_set"))
    named = {"url": getattr(options, side), "topic_prefix": getattr(options, f"{side}_prefix")}
    named["partitions"] = None if partitions is None else str(partitions)
    flags.update({f"broker.{name}": value for name, value in named.items() if value is not None})
    file = options.config or os.environ.get(CONFIG_VARIABLE)
    return load(file or DEFAULT_FILE, os.environ, flags, explicit=file is not None)


async def _migrate(source: Settings, target: Settings, *, is_dry: bool) -> None:
    from openanomaly.agents import installation  # heavy: Faust
    from openanomaly.broker.migrate import Job, Side, migrate
    from openanomaly.broker.offline import open_log
    from openanomaly.core.windows.plan import plan

    plans = plan(target.pipelines)
    before = open_log(installation.broker_config(source.broker))
    after = open_log(installation.broker_config(target.broker), absent="empty" if is_dry else "made")
    async with before, after:
        samples = installation.topics_of(source.broker).samples.name
        partitions = await before.partitions(samples)
        if not partitions:
            raise ConfigError(
                f"no topic {samples} in {before}: nothing to move; see --source-prefix for another prefix"
            )
        found = source.broker.model_copy(update={"partitions": partitions})
        job = Job(
            plans,
            source.sink.emit,
            source.sink.emit_all_limit,
            compress=target.broker.compression == "zstd",
            is_dry=is_dry,
        )
        old, new = (
            Side.of(log, broker.topic_prefix, installation.topics_of(broker), plans)
            for log, broker in ((before, found), (after, target.broker))
        )
        _tell(f"{old}, {old.partitions} partitions -> {new}, {new.partitions} partitions")
        moved = await migrate(old, new, job, _tell)
    print(
        f"{'would move' if is_dry else 'moved'} {moved.series} series ({moved.rows} rows), "
        f"{moved.forecasts} forecasts, {moved.contexts} contexts, {moved.samples} unread samples, "
        f"{moved.scores} unread scores, {moved.letters} dead letters: {moved.records} records, "
        f"{moved.size_bytes / 1e6:.1f} MB in {moved.seconds:.1f} s"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
