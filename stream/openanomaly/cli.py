"""The command line: `openanomaly run | receiver | window | inference | sink | pull | ... | version`."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from openanomaly import definitions
from openanomaly.commands import backtest, dead_letter, export, migrate, preset, probe, schema, size
from openanomaly.definitions import Changes
from openanomaly.errors import BrokerError, ConfigError
from openanomaly.exits import CONFIG, CRASH
from openanomaly.logs import set_up_logging
from openanomaly.settings import Settings
from openanomaly.settings.sources import CONFIG_VARIABLE, DEFAULT_FILE, flags_of, load

ROLES = {
    "run": ("receiver", "window", "inference", "sink"),
    "receiver": ("receiver",),
    "window": ("window",),
    "inference": ("inference",),
    "sink": ("sink",),
}
_WORKER = "--worker"
_LISTEN = {"api": "api.listen", "playground": "playground.listen"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "version":
        print(f"openanomaly {version('openanomaly')} (Python {platform.python_version()})")
        return 0
    try:
        if options.command == "demo":
            return _demo(options)
        if options.command == "dead-letter":
            return dead_letter.main(options)
        if options.command == "migrate":
            return migrate.main(options)
        if options.command == "export":
            return export.main(options)
        if options.command == "probe":
            return probe.main(options)
        if options.command == "schema":
            return schema.main(options)
        if options.command == "size":
            return size.main(options)
        if options.command == "preset":
            return preset.main(options)
        if options.command == "backtest":
            return backtest.main(options)
        settings = _settings(options)
        if options.dry_run:
            return _dry_run(options.command, settings)
        set_up_logging(settings.log.format, settings.log.level)
        if options.command == "api":
            return int(_api().main(settings))
        if options.command == "playground":
            return int(_playground().main(settings))
        if options.command == "run" and not options.worker:
            return _supervise(arguments)
        settings = definitions.filled(settings, wait=True)
        if options.command == "pull":
            return int(_pulling().main(settings, _changes(options, settings)))
        from openanomaly import app  # heavy: Faust, and what the roles need

        return app.main(settings, ROLES[options.command], _changes(options, settings))
    except (ConfigError, BrokerError) as exc:
        print(f"openanomaly: {exc}", file=sys.stderr)
        return CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openanomaly",
        description="Anomaly detection for Prometheus metrics that needs no training and no rules.",
        epilog="Settings come from openanomaly.yaml, OPENANOMALY_* variables and flags; later wins.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {
        "run": "all roles in one process, restarted if it crashes",
        "receiver": "take remote-write requests and publish their samples",
        "window": "keep windows, score steps",
        "inference": "forecast",
        "sink": "write scores to the target",
        "api": "define, check and try pipelines over HTTP",
        "playground": "a page to try pipelines on files and on samples of a database",
        "pull": "ask a database instead of being pushed to, score the answers, write the scores",
    }
    for name, text in texts.items():
        _add_options(commands.add_parser(name, help=text, description=text.capitalize() + "."))
    _add_demo_options(
        commands.add_parser(
            "demo",
            help="a simulated fleet with known faults, and whether they are found",
            description="A simulated fleet with known faults through the whole product. It needs nothing, "
            "reads no settings, and leaves nothing behind. Exit status with --once: 0 if all faults were "
            "found and false alarms stayed under their limit, 1 otherwise.",
        )
    )
    dead_letter.add_parser(commands)
    migrate.add_parser(commands)
    export.add_parser(commands)
    probe.add_parser(commands)
    schema.add_parser(commands)
    size.add_parser(commands)
    preset.add_parser(commands)
    backtest.add_parser(commands)
    commands.add_parser("version", help="print the version")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"settings file; {DEFAULT_FILE} in the working folder if it exists, or {CONFIG_VARIABLE}",
    )
    parser.add_argument("--broker", metavar="URL", help="embedded://PATH or kafka://HOST:PORT")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address of receiver, metrics and admin API")
    parser.add_argument("--write-to", metavar="URL", help="remote-write address that gets the scores")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        action="append",
        help="pipelines that come with the product (`openanomaly preset list`); may be given repeatedly",
    )
    parser.add_argument("--log-format", choices=("text", "json"))
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any setting by its dotted name, e.g. --set window.max_series=50000",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the settings, print what would run, and end"
    )
    parser.add_argument(_WORKER, action="store_true", help=argparse.SUPPRESS)


def _add_demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="end after the last fault of the first round")
    parser.add_argument("--series", type=_between(200), default=200, help="of the fleet; at least 200")
    parser.add_argument("--seed", type=_between(0), default=1, help="of the fleet and of who has which fault")
    parser.add_argument(
        "--port", type=_between(0, 65535), default=9201, help="of the status page; 0 is a free one"
    )
    parser.add_argument(
        "--days",
        type=_between(1),
        default=5,
        help="of history before the first fault; they take seconds each",
    )
    parser.add_argument(
        "--speed", type=_between(1), default=10, help="steps a second, of five minutes each, during faults"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the status page")
    parser.add_argument(
        "--send-to",
        metavar="URL",
        help="send the fleet's past, faults in it, to the remote-write address of a running installation, "
        "say which series have them, and end; its pipeline has steps of five minutes",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of the product under the fleet, e.g. --set inference.threads=1",
    )


def _between(least: int, most: int = 1_000_000) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
        return value

    return number


def _demo(options: argparse.Namespace) -> int:
    from openanomaly.demo import run  # heavy: an HTTP client and server

    if options.send_to is not None:
        return run.send_past(options.send_to, options.series, options.seed, options.days)
    return run.main(
        run.Options(
            series=options.series,
            seed=options.seed,
            port=options.port,
            once=options.once,
            browser=not options.no_browser,
            days=options.days,
            speed=options.speed,
            flags=flags_of(options.set),
        )
    )


def _settings(options: argparse.Namespace) -> Settings:
    flags = flags_of(options.set)
    chosen: list[str] | None = options.preset
    named = {
        "presets": None if chosen is None else json.dumps(chosen),  # JSON is YAML
        "broker.url": options.broker,
        _LISTEN.get(options.command, "web.listen"): options.listen,
        "sink.url": options.write_to,
        "log.format": options.log_format,
        "log.level": options.log_level,
    }
    flags.update({name: value for name, value in named.items() if value is not None})
    file = _file(options)
    return load(file or DEFAULT_FILE, os.environ, flags, explicit=file is not None)


def _file(options: argparse.Namespace) -> str | None:
    """The settings file that was named; None if none was."""
    named: str | None = options.config or os.environ.get(CONFIG_VARIABLE)
    return named


def _changes(options: argparse.Namespace, settings: Settings) -> Changes | None:
    """How a running process hears of other pipelines."""
    return definitions.changes(settings, _file(options) or DEFAULT_FILE, lambda: _settings(options))


def _pulling() -> Any:
    try:
        from openanomaly import pulling  # what it needs is an extra
    except ModuleNotFoundError as exc:
        if exc.name not in ("requests", "apscheduler"):
            raise
        raise ConfigError(f"pull mode needs {exc.name}: pip install 'openanomaly[pull]'") from exc
    return pulling


def _api() -> Any:
    try:
        from openanomaly.api import app  # what it needs is an extra
    except ModuleNotFoundError as exc:
        if exc.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise ConfigError(f"the API needs {exc.name}: pip install 'openanomaly[api]'") from exc
    return app


def _playground() -> Any:
    try:
        from openanomaly.playground import server  # what it needs is an extra
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in ("streamlit", "starlette", "uvicorn"):
            raise
        raise ConfigError(f"the playground needs {exc.name}: pip install 'openanomaly[playground]'") from exc
    return server


def _dry_run(command: str, settings: Settings) -> int:
    if command not in ("api", "playground"):
        settings = definitions.filled(settings)
    if command == "pull":
        starts = _pulling().check(settings)
    elif command == "api":
        starts = _api().check(settings)
    elif command == "playground":
        starts = _playground().check(settings)
    else:
        from openanomaly.app import check

        starts = check(settings, ROLES[command])
    plan: dict[str, Any] = {"command": command, "roles": ROLES.get(command, (command,)), "starts": starts}
    plan["settings"] = settings.model_dump(mode="json")  # secrets are masked by their type
    print(json.dumps(plan, indent=2))
    return 0


def _supervise(arguments: Sequence[str] | None) -> int:
    from openanomaly.supervisor import Supervisor

    given = list(sys.argv[1:] if arguments is None else arguments)
    return Supervisor([sys.executable, "-m", "openanomaly.cli", *given, _WORKER]).run()


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["CRASH", "main"]
