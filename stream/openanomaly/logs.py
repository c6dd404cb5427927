"""Logs of a process: lines of text or of JSON on standard error."""

import json
import logging
import sys
import time


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _tells_people(record: logging.LogRecord) -> bool:
    """False for what Faust's services say of their own starts and stops, under names of our modules."""
    return record.levelno >= logging.WARNING or not str(record.msg).startswith("[^")


def set_up_logging(form: str, level: str) -> None:
    """Log to standard error, as lines of text or of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.addFilter(_tells_people)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These tell at `info` what only their authors want to know.
    for name in ("faust", "mode", "aiokafka", "aiohttp.access"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
