"""The command line: `openanomaly run | receiver | window | inference | sink | version`."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from openanomaly.errors import BrokerError, ConfigError
from openanomaly.exits import CONFIG, CRASH
from openanomaly.logs import set_up_logging
from openanomaly.settings import Settings
from openanomaly.settings_sources import CONFIG_VARIABLE, load

ROLES = {
    "run": ("receiver", "window", "inference", "sink"),
    "receiver": ("receiver",),
    "window": ("window",),
    "inference": ("inference",),
    "sink": ("sink",),
}
_DEFAULT_FILE = "openanomaly.yaml"
_WORKER = "--worker"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "version":
        print(f"openanomaly {version('openanomaly')} (Python {platform.python_version()})")
        return 0
    try:
        settings = _settings(options)
        if options.dry_run:
            return _dry_run(options.command, settings)
        set_up_logging(settings.log.format, settings.log.level)
        if options.command == "run" and not options.worker:
            return _supervise(arguments)
        from openanomaly import app  # heavy: Faust, and what the roles need

        return app.main(settings, ROLES[options.command])
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
    }
    for name, text in texts.items():
        _add_options(commands.add_parser(name, help=text, description=text.capitalize() + "."))
    commands.add_parser("version", help="print the version")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"settings file; {_DEFAULT_FILE} in the working folder if it exists, or {CONFIG_VARIABLE}",
    )
    parser.add_argument("--broker", metavar="URL", help="embedded://PATH or kafka://HOST:PORT")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address of receiver, metrics and admin API")
    parser.add_argument("--write-to", metavar="URL", help="remote-write address that gets the scores")
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


def _settings(options: argparse.Namespace) -> Settings:
    flags: dict[str, str] = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected NAME=VALUE")
        flags[name.strip()] = value
    named = {
        "broker.url": options.broker,
        "web.listen": options.listen,
        "sink.url": options.write_to,
        "log.format": options.log_format,
        "log.level": options.log_level,
    }
    flags.update({name: value for name, value in named.items() if value is not None})
    file = options.config or os.environ.get(CONFIG_VARIABLE)
    return load(file or _DEFAULT_FILE, os.environ, flags, explicit=file is not None)


def _dry_run(command: str, settings: Settings) -> int:
    from openanomaly.app import check

    plan: dict[str, Any] = {"command": command, "roles": ROLES[command], "starts": check(settings)}
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
