"""A real Kafka that asks who we are: SASL (PLAIN, SCRAM) over TLS, and certificates of clients (mTLS)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from parts import kafka

USER, PASSWORD = "ann", "s3cret"
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True, slots=True)
class Secured:
    """Where it listens, and the files of a client.

    Attributes:
        password_url: wants SASL over TLS.
        certificate_url: wants a client certificate.
        plain: the cluster itself, for the administrator.
    """

    password_url: str
    certificate_url: str
    ca: str
    cert: str
    key: str
    plain: kafka.Cluster


@contextlib.contextmanager
def secured_kafka(root: Path) -> Iterator[Secured]:
    authority = trustme.CA()
    server = root / "server.pem"
    server.write_bytes(_pem(authority.issue_cert("127.0.0.1")))
    files = {name: root / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    client = authority.issue_cert("client.test")
    client.cert_chain_pems[0].write_to_path(files["cert"])
    client.private_key_pem.write_to_path(files["key"])
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": server,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": files["ca"],
        "listener.name.password.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.password.plain.sasl.jaas.config": f'{_PLAIN} required user_{USER}="{PASSWORD}";',
        "listener.name.password.scram-sha-256.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.password.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.certificate.ssl.client.auth": "required",
    }
    users = [
        part
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for part in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
    ]
    with kafka.cluster(
        root,
        properties={name: str(value) for name, value in properties.items()},
        protocols={"PASSWORD": "SASL_SSL", "CERTIFICATE": "SSL"},
        format_flags=users,
    ) as cluster:
        yield Secured(
            f"kafka://{cluster.listeners['PASSWORD']}",
            f"kafka://{cluster.listeners['CERTIFICATE']}",
            *(str(files[name]) for name in ("ca", "cert", "key")),
            cluster,
        )


def _pem(cert: trustme.LeafCert) -> bytes:
    """Key and certificates as Java reads them: a key in PKCS #8."""
    key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pkcs8 + b"".join(part.bytes() for part in cert.cert_chain_pems)
