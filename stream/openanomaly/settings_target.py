"""What settings say of a server, as HTTP clients take it."""

from pydantic import SecretStr

from openanomaly.adapters.remote_write.client import Target
from openanomaly.settings import PullSettings, SinkSettings


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


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
