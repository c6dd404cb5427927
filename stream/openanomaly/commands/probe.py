"""`openanomaly probe`: does a running installation score a spike? Pushes one, and waits for its score."""

import argparse
import base64
import json
import os
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from openanomaly import definitions
from openanomaly.adapters.remote_write.encode import HEADERS, encode_samples, pack
from openanomaly.adapters.secret_files import read_secret
from openanomaly.commands.admin_client import Stay
from openanomaly.commands.probe_series import NAME, ProbeSeries, probe_series
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.series import Labels, canonical, encode_labels, varint
from openanomaly.errors import ConfigError, OpenAnomalyError, SinkUnavailableError
from openanomaly.exits import CRASH
from openanomaly.settings import AuthSettings
from openanomaly.settings.sources import CONFIG_VARIABLE, DEFAULT_FILE, load

_URL = "http://localhost:9201"
_ASK_AGAIN_S = 0.5
_ANSWER_S = 30.0
_LABEL = "probe"


class ProbeError(OpenAnomalyError):
    """The installation did not do what it should."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `openanomaly`."""
    parser = commands.add_parser(
        "probe",
        help="push a series with a spike to a running installation, and wait for its score",
        description=f"Push a new series {NAME} with a spike, all of it in the past, and wait until the "
        "status page has its episode and the target takes scores. Settings and credentials (web.auth) "
        "are those of the installation. Exit status: 0 if it was scored, 1 if not, 2 for wrong settings.",
    )
    parser.add_argument("--config", metavar="FILE", help=f"settings file; {DEFAULT_FILE} if it exists")
    parser.add_argument("--receiver", metavar="URL", default=_URL, help="who takes samples; %(default)s")
    parser.add_argument("--status-page", metavar="URL", help="who shows scores; the receiver by default")
    parser.add_argument("--pipeline", metavar="NAME", help="the first one that selects the series by default")
    parser.add_argument(
        "--label", metavar="NAME=VALUE", action="append", default=[], help="of the series, to be selected"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="who signed the installation's certificate")
    parser.add_argument(
        "--cert-file", metavar="FILE", help="certificate to show, with web.tls.client_ca_file"
    )
    parser.add_argument("--key-file", metavar="FILE", help="its key")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="%(default)g")


def main(options: argparse.Namespace) -> int:
    """Push and wait; the exit status.

    Raises:
        ConfigError: a setting or an option is wrong, or no pipeline selects the series.
    """
    file = options.config or os.environ.get(CONFIG_VARIABLE)
    settings = definitions.filled(load(file or DEFAULT_FILE, os.environ, {}, explicit=file is not None))
    labels = _labels(options.label)
    pipeline = _selecting(settings.pipelines, labels, options.pipeline)
    series = probe_series(pipeline, labels, int(time.time() * 1000))
    client = _Client(settings.web.auth, _tls(options.ca_file, options.cert_file, options.key_file))
    try:
        _wait(lambda: client.push(options.receiver, series), "no answer", options.timeout)
        print(f"pushed {len(series.value)} steps of {pipeline.step_s:g} s for pipeline {pipeline.name}")
        page = options.status_page or options.receiver
        found = _wait(lambda: client.episode(page, pipeline, series), "no score", options.timeout)
    except ProbeError as exc:
        print(f"openanomaly: {exc}", file=sys.stderr)
        return CRASH
    print(f"the spike scores {found['peak']['score']}: {found['peak']['reason']['text']}")
    return 0


def _labels(texts: list[str]) -> Labels:
    given = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--label {text}: expected NAME=VALUE")
        given[name] = value
    # A new series each time: an older one is not as old as its samples, and would refuse them.
    return canonical(({"__name__": NAME} | given | {_LABEL: secrets.token_hex(8)}).items())


def _selecting(pipelines: tuple[Pipeline, ...], labels: Labels, name: str | None) -> Pipeline:
    for pipeline in pipelines:
        is_meant = pipeline.query is None and name in (None, pipeline.name)
        if is_meant and Selector.parse(pipeline.selector).matches(labels):
            return pipeline
    which = "no pipeline selects" if name is None else f"pipeline {name} does not select, or is not there:"
    raise ConfigError(f"{which} {dict(labels)}; give it --label NAME=VALUE so that one does")


def _wait(ask: Callable[[], Any], without: str, timeout_s: float) -> Any:
    """What `ask` gives, once it gives something; what it raises is tried again until time is up."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            if (found := ask()) is not None:
                return found
            reason = "there is no episode of the series"
        except (urllib.error.URLError, OSError, ValueError) as exc:
            reason = _reason(exc)
        if time.monotonic() > end_s:
            raise ProbeError(f"{without} within {timeout_s:g} s: {reason}")
        time.sleep(_ASK_AGAIN_S)


class _Client:
    """Asks receiver and status page, with the credentials that they ask for."""

    def __init__(self, auth: AuthSettings, tls: ssl.SSLContext) -> None:
        """Raises ConfigError: a file cannot be read."""
        self._authorization = _authorization(auth)
        self._opener = urllib.request.build_opener(Stay(), urllib.request.HTTPSHandler(context=tls))

    def push(self, url: str, series: ProbeSeries) -> bool:
        block = encode_labels(series.labels) + encode_samples(series.timestamp_ms, series.value)
        body = pack([b"\x0a" + varint(len(block)) + block])
        self._ask(f"{url.rstrip('/')}/api/v1/write", body, HEADERS)
        return True

    def episode(self, url: str, pipeline: Pipeline, series: ProbeSeries) -> Any | None:
        """The spike on the status page, if the target takes scores too."""
        match = ",".join(f"{name}={json.dumps(value)}" for name, value in series.labels)
        query = {"pipeline": pipeline.name, "match": f"{{{match}}}", "steps": 0}
        content = self._ask(f"{url.rstrip('/')}/api/v1/anomalies?{urllib.parse.urlencode(query)}")
        answer = json.loads(content)
        target = answer["health"]["target"]
        for found in answer["anomalies"]:
            if found["peak"]["time_ms"] == series.spike_ms:
                if target["is_set"] and not target["is_up"]:
                    raise ValueError("the spike was scored, but the target of scores does not take them")
                return found
        return None

    def _ask(self, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        request = urllib.request.Request(url, body, headers or {})
        if self._authorization is not None:
            request.add_header("Authorization", self._authorization)
        with self._opener.open(request, timeout=_ANSWER_S) as answer:
            content: bytes = answer.read()
            return content


def _tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """Raises ConfigError: a file cannot be read."""
    if (cert_file is None) != (key_file is None):
        raise ConfigError("--cert-file and --key-file must be given together")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise ConfigError(f"cannot load --ca-file {ca_file}: {exc}") from exc
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file)
        except OSError as exc:
            raise ConfigError(f"cannot load --cert-file {cert_file}, --key-file {key_file}: {exc}") from exc
    return context


def _authorization(auth: AuthSettings) -> str | None:
    """Raises ConfigError: a file cannot be read."""

    def secret(name: str) -> str | None:
        value: SecretStr | None = getattr(auth, name)
        given = None if value is None else value.get_secret_value()
        try:
            return read_secret(given, getattr(auth, f"{name}_file"), f"web.auth.{name}_file")
        except SinkUnavailableError as exc:
            raise ConfigError(str(exc)) from exc

    if (token := secret("bearer_token")) is not None:
        return f"Bearer {token}"
    if auth.username is None:
        return None
    words = f"{auth.username}:{secret('password')}"
    return f"Basic {base64.b64encode(words.encode()).decode()}"


def _reason(exc: Exception) -> str:
    if isinstance(exc, urllib.error.HTTPError):
        with exc:
            words = exc.read(500).decode(errors="replace").strip()
        return f"{exc.url} answers {exc.code}: {words}"
    return str(getattr(exc, "reason", None) or exc)
