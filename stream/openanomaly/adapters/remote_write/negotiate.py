"""Which message a remote-write request carries, by its headers alone."""

from enum import Enum

from openanomaly.errors import UnsupportedMediaError

_MEDIA = "application/x-protobuf"


class Version(Enum):
    """The remote-write messages we speak, by the name they have in a content type."""

    V1 = "prometheus.WriteRequest"
    V2 = "io.prometheus.write.v2.Request"


def negotiate(content_type: str | None, content_encoding: str | None) -> Version:
    """The message of a request.

    As Prometheus's own receiver does, a missing content type means 1.0 and a missing encoding snappy,
    for old senders set neither; what is there must be right. The type is judged before the encoding.

    Raises:
        UnsupportedMediaError: another media type, message or encoding.
    """
    version = _version(content_type or "")
    if content_encoding and content_encoding.strip().lower() != "snappy":
        raise UnsupportedMediaError(f"cannot read encoding {content_encoding!r}: only snappy is accepted")
    return version


def _version(content_type: str) -> Version:
    media, *parameters = content_type.split(";")
    if media.strip().lower() not in ("", _MEDIA):
        raise UnsupportedMediaError(f"cannot read content type {content_type!r}: only {_MEDIA} is accepted")
    for parameter in parameters:
        name, separator, value = parameter.partition("=")
        if not separator:
            raise UnsupportedMediaError(f"cannot read content type {content_type!r} at {parameter!r}")
        if name.strip().lower() == "proto":
            try:
                return Version(value.strip().strip('"'))
            except ValueError:
                known = " or ".join(v.value for v in Version)
                raise UnsupportedMediaError(f"cannot read message {value.strip()!r}: only {known}") from None
    return Version.V1
