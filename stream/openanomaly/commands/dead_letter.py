"""`openanomaly dead-letter list | show | replay`: what was rejected, and putting it back."""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from openanomaly.commands.admin_client import AdminClient, AdminError, add_options
from openanomaly.exits import CRASH

_PATH = "dead-letters"
_PAGE = 100
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_HEAD = ("ID", "WHEN", "STATE", "REASON", "RECORD", "PAYLOAD", "DETAIL")
_NARROW = 100


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    text = "records that were set aside: list them, and put them back"
    parser = commands.add_parser("dead-letter", help=text, description=text.capitalize() + ".")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    shown = actions.add_parser("list", help="the newest ones, newest first")
    _add_filter(shown)
    shown.add_argument("--limit", type=_limit, default=_PAGE, help="how many; %(default)s")
    state = shown.add_mutually_exclusive_group()
    state.add_argument("--set-aside", action="store_true", help="only what was set aside for good")
    state.add_argument("--noted", action="store_true", help="only notes of crashes, tried again after them")
    shown.add_argument("--json", action="store_true", help="all that is known, as JSON")

    one = actions.add_parser("show", help="all that is known of one")
    one.add_argument("id", type=_id, metavar="ID")
    one.add_argument("--payload", metavar="FILE", help="write the record's bytes to a file; - for stdout")

    replay = actions.add_parser(
        "replay",
        help="write them again to where they came from",
        description="Write records again, as new ones, to the topic and partition that they came from. "
        "What is older than what its reader has taken since is dropped and counted there: windows "
        "take no sample older than the open step of its series.",
    )
    replay.add_argument("id", type=_id, metavar="ID", nargs="*", default=[])
    replay.add_argument("--all", action="store_true", help="all that were set aside and not replayed yet")
    _add_filter(replay)
    replay.add_argument("--force", action="store_true", help="also what was replayed before")
    replay.add_argument("--dry-run", action="store_true", help="say what would be done")
    for action in (shown, one, replay):
        add_options(action)


def main(options: argparse.Namespace) -> int:
    """Run the command; its exit status: 0, or 1 if anything asked for was not done."""
    actions = {"list": _list, "show": _show, "replay": _replay}
    try:
        return actions[options.action](options)
    except AdminError as exc:
        print(f"openanomaly: {exc}", file=sys.stderr)
        return CRASH
    except BrokenPipeError:  # of `| head`
        sys.stderr.close()
        return CRASH


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topic", help="of this topic: its name, or the end of it, such as scores")
    parser.add_argument("--reason", help="with this reason, for example UnknownVersionError or crash")
    parser.add_argument(
        "--since", type=_since_ms, metavar="WHEN", help="set aside since: 30m, 2h, 7d, or 2026-11-27T08:00"
    )


def _filter(options: argparse.Namespace) -> dict[str, str]:
    given = {"topic": options.topic, "reason": options.reason, "since_ms": options.since}
    return {name: str(value) for name, value in given.items() if value is not None}


def _list(options: argparse.Namespace) -> int:
    query = _filter(options)
    if options.set_aside or options.noted:
        query["set_aside"] = "true" if options.set_aside else "false"
    letters = _find(AdminClient(options), query, options.limit)
    if options.json:
        print(json.dumps(letters, indent=2))
    elif not letters:
        print("no dead letters")
    else:
        width = shutil.get_terminal_size((_NARROW, 0)).columns if sys.stdout.isatty() else None
        print("\n".join(table(letters, width)))
    return 0


def _find(client: AdminClient, query: dict[str, str], limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        size = min(_PAGE, limit - len(found))
        before = {"before": str(found[-1]["id"])} if found else {}
        page = client.get(_PATH, {**query, **before, "limit": str(size)})["letters"]
        found += page
        if len(page) < size:
            break
    return found


def _show(options: argparse.Namespace) -> int:
    client = AdminClient(options)
    if options.payload is not None:
        content = client.read(f"{_PATH}/{options.id}/payload")
        if options.payload == "-":
            sys.stdout.buffer.write(content)
            return 0
        try:
            Path(options.payload).write_bytes(content)
        except OSError as exc:
            raise AdminError(f"cannot write {options.payload}: {exc.strerror}") from exc
        print(f"{len(content)} bytes written to {options.payload}")
        return 0
    letter = client.get(f"{_PATH}/{options.id}")
    lines = {
        "id": letter["id"],
        "when": _time(letter["noted_ms"]),
        "state": _state(letter),
        "reason": letter["reason"],
        "record": f"{_record(letter)} offset {letter['offset']}",
        "payload": f"{letter['payload_bytes']} bytes {_summary(letter)}".rstrip(),
    }
    lines.update({f"replay {i}": f"offset {r['offset']}, {_time(r['at_ms'])}" for i, r in _numbered(letter)})
    if letter["obstacle"]:
        lines["no replay"] = letter["obstacle"]
    for name, value in lines.items():
        print(f"{name + ':':<11}{_plain(str(value))}")
    print("\n" + "\n".join(_plain(line, keep_blanks=True) for line in letter["detail"].splitlines()))
    return 0


def _numbered(letter: dict[str, Any]) -> Iterable[tuple[int, dict[str, Any]]]:
    return enumerate(letter["replays"], 1)


def _replay(options: argparse.Namespace) -> int:
    query = _filter(options)
    if bool(options.id) == options.all:
        raise AdminError("name the letters by their ids, or say --all")
    if options.id and query:
        raise AdminError("--topic, --reason and --since go with --all")
    client = AdminClient(options)
    ids = sorted(set(options.id))
    if options.all:
        able = _find(client, {**query, "set_aside": "true"}, sys.maxsize)
        passed = [x for x in able if x["obstacle"] or (x["replays"] and not options.force)]
        ids = sorted({x["id"] for x in able} - {x["id"] for x in passed})
        if passed:
            print(f"passed over: {len(passed)} that cannot be replayed, or were before")
    outcomes: list[dict[str, Any]] = []
    for i in range(0, len(ids), _PAGE):
        what = {"ids": ids[i : i + _PAGE], "force": options.force, "dry_run": options.dry_run}
        page = client.post(f"{_PATH}/replay", what)["letters"]
        for outcome in page:
            print(_said(outcome))
        outcomes += page
        if any(x["outcome"] == "failed" for x in page):
            break  # the broker does not take it; in their order or not at all
    done = sum(x["outcome"] in ("replayed", "possible") for x in outcomes)
    verb = "could be replayed" if options.dry_run else "replayed"
    print(f"{done} of {len(ids)} {verb}")
    return 0 if done == len(ids) else CRASH


def _said(outcome: dict[str, Any]) -> str:
    where = f"{outcome['topic']}[{outcome['partition']}]"
    texts = {
        "replayed": f"replayed to {where} offset {outcome['offset']}",
        "possible": f"would be replayed to {where}",
    }
    text = texts.get(outcome["outcome"], f"not replayed, {outcome['outcome']}")
    return _plain(f"{outcome['id']}: {text}{': ' * bool(outcome['why'])}{outcome['why']}")


def table(letters: Sequence[dict[str, Any]], width: int | None) -> list[str]:
    """Lines for a terminal `width` columns wide; None for one without an end."""
    rows = [_HEAD, *map(_row, letters)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(size) for cell, size in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[-1]]).rstrip()
        lines.append(line if width is None or len(line) <= width else line[: width - 1] + "…")
    return lines


def _row(letter: dict[str, Any]) -> tuple[str, ...]:
    said = letter["detail"].rstrip().splitlines()  # of a traceback the last line says what it was
    cells = (
        str(letter["id"]),
        _time(letter["noted_ms"]),
        _state(letter),
        letter["reason"],
        f"{_record(letter)}@{letter['offset']}",
        _summary(letter) or f"{letter['payload_bytes']} B",
        said[-1] if said else "",
    )
    return tuple(_plain(cell) for cell in cells)


def _state(letter: dict[str, Any]) -> str:
    if letter["replays"]:
        return "replayed" if len(letter["replays"]) == 1 else f"replayed {len(letter['replays'])}x"
    return "set aside" if letter["set_aside"] else "noted"


def _record(letter: dict[str, Any]) -> str:
    return f"{letter['topic']}[{letter['partition']}]"


def _summary(letter: dict[str, Any]) -> str:
    known = letter["payload"]
    if known is None:
        return ""
    if "unreadable" in known:
        return f"{letter['payload_bytes']} B, unreadable"
    words = [f"{known[name]} {name}" for name in ("series", "samples") if name in known]
    words += [str(known[name]) for name in ("pipeline", "model") if name in known]
    return ", ".join(words)


def _time(unix_ms: int) -> str:
    if not 0 < unix_ms < 253_402_300_800_000:
        return "-"
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")  # of whoever looks


def _plain(text: str, keep_blanks: bool = False) -> str:
    """For a terminal: a line without what would steer it. What was rejected may hold anything."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if keep_blanks else " ".join(shown.split())


def _since_ms(text: str) -> int:
    if found := _DURATION.fullmatch(text):
        return max(0, int((time.time() - int(found[1]) * _SECONDS[found[2]]) * 1000))
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither like 30m, 2h or 7d nor a time") from None
    return max(0, int((when if when.tzinfo else when.astimezone()).timestamp() * 1000))


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is no id: they are whole numbers, see `list`")
    return int(text)


def _limit(text: str) -> int:
    value = _id(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return value
