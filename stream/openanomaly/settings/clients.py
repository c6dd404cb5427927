"""Settings of a server to the client that asks it."""

from typing import TYPE_CHECKING

from pydantic import SecretStr

from openanomaly.adapters.remote_write.client import Target
from openanomaly.adapters.remote_write.encode import ScoreEncoder
from openanomaly.errors import ConfigError
from openanomaly.settings import PullSettings, Settings, SinkSettings

if TYPE_CHECKING:
    from openanomaly.adapters.http_endpoint import Observe
    from openanomaly.adapters.prometheus import PrometheusAdapter


def target_of(settings: SinkSettings | PullSettings) -> Target | None:
    """Where requests go and how; None without an address."""
    if settings.url is None:
        return None
    return Target(
        url=settings.url,
        timeout_s=settings.timeout_s,
        backoff_min_s=settings.backoff_min_s,
        backoff_max_s=settings.backoff_max_s,
        bearer_token=_plain(settings.bearer_token),
        bearer_token_file=settings.bearer_token_file,
        username=settings.username,
        password=_plain(settings.password),
        password_file=settings.password_file,
        headers={name: value.get_secret_value() for name, value in settings.headers.items()},
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )


def database(
    settings: Settings, observe: "Observe | None" = None, *, writes: bool = False
) -> "PrometheusAdapter | None":
    """The database at `pull.url`; None without an address.

    Args:
        writes: it writes scores to the sink's target. Who only reads may not have that one's credentials.
        observe: is told of every request.

    Raises:
        ConfigError: an extra is missing, or a certificate or a secret file cannot be used.
    """
    pull, sink = settings.pull, settings.sink
    if (read := target_of(pull)) is None:
        return None
    try:
        from openanomaly.adapters.prometheus import PrometheusAdapter, QueryLimits
    except ModuleNotFoundError as exc:
        if exc.name != "requests":
            raise
        raise ConfigError("to ask pull.url needs requests: pip install 'openanomaly[pull]'") from exc
    return PrometheusAdapter(
        read,
        target_of(sink) if writes else None,
        QueryLimits(pull.points_limit, pull.series_limit, pull.answer_limit_bytes, pull.retries),
        ScoreEncoder(sink.series, sink.external_labels, settings.pipelines),
        sink.batch_samples,
        observe or _unheard,
    )


def _unheard(what: str, code: str, seconds: float) -> None:
    pass


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
