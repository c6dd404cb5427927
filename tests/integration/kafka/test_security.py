"""Kafka as production has it: who we are is asked, and a wrong answer ends in a clear error."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import Fleet
from e2e.sender import push, request
from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, offsets, running
from openanomaly.broker.faust_app import BrokerConfig
from openanomaly.exits import CONFIG
from parts.product import Product, openanomaly
from parts.secured_kafka import PASSWORD, USER, Secured, secured_kafka
from waiting import until

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
ROLES = ("run", "receiver", "window", "inference", "sink")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as found:
        yield found


def ways_in(secured: Secured) -> dict[str, dict[str, Any]]:
    """Settings of the broker, by how we say who we are."""
    tls = {"tls": True, "tls_ca_file": secured.ca}
    by_password = {
        name: {
            "url": secured.password_url,
            "sasl_mechanism": name,
            "sasl_username": USER,
            "sasl_password": PASSWORD,
            **tls,
        }
        for name in MECHANISMS
    }
    by_certificate = {
        "url": secured.certificate_url,
        "tls_cert_file": secured.cert,
        "tls_key_file": secured.key,
        **tls,
    }
    return {**by_password, "mTLS": by_certificate}


@pytest.mark.parametrize("way", [*MECHANISMS, "mTLS"])
def test_records_go_both_ways_however_we_say_who_we_are(
    secured: Secured, topic_prefix: str, way: str
) -> None:
    settings = ways_in(secured)[way]
    bus = Bus(
        "kafka", BrokerConfig(partitions=PARTITIONS, topic_prefix=topic_prefix, **settings), secured.plain
    )

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(3))
        reader = Reader(bus, spec)
        async with running(reader.app):
            await until(lambda: reader.count == 3 * PARTITIONS, 30)
        assert reader.read == {p: offsets(0, 3) for p in range(PARTITIONS)}

    asyncio.run(go())


@pytest.mark.timeout(240)
def test_the_product_runs_with_a_password_over_tls(
    tmp_path: Path, secured: Secured, topic_prefix: str
) -> None:
    broker = {**ways_in(secured)["SCRAM-SHA-512"], "partitions": 2, "topic_prefix": topic_prefix}
    pipeline = {"name": "p", "step_s": 1, "min_context": 8, "score": {"warmup": 12, "block": 12}}
    fleet = Fleet(hosts=4, steps=30)
    with openanomaly(tmp_path, config={"broker": broker, "pipelines": [pipeline]}) as product:
        push(product.write_url, request(fleet.samples(0, 30)))
        product.wait_until(
            lambda: product.total("openanomaly_sink_scores_total") >= 4 * (30 - 12 - 1), "scores"
        )
        product.wait_until(lambda: product.total("openanomaly_inference_forecasts_total") > 0, "forecasts")


WRONG = {
    "a wrong password": ({"sasl_password": "wr0ng"}, f"refuses broker.sasl_username={USER}"),
    "an unknown user": ({"sasl_username": "nobody"}, "refuses broker.sasl_username=nobody"),
    "a certificate of somebody else": ({"tls_ca_file": None}, "broker.tls_ca_file"),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("wrong", WRONG)
def test_who_is_refused_ends_with_a_clear_error(
    tmp_path: Path, secured: Secured, wrong: str, role: str
) -> None:
    changes, words = WRONG[wrong]
    broker = {**ways_in(secured)["SCRAM-SHA-256"], **changes, "topic_prefix": f"t{uuid.uuid4().hex[:8]}"}
    product = Product(
        tmp_path, command=role, config={"broker": {k: v for k, v in broker.items() if v is not None}}
    )
    product.process.start()
    status = product.process.wait(60)
    log = product.process.tail()
    assert status == CONFIG, log
    assert words in log
    assert PASSWORD not in log
    assert "wr0ng" not in log


def test_without_a_certificate_nobody_gets_in(tmp_path: Path, secured: Secured) -> None:
    broker = {"url": secured.certificate_url, "tls": True, "tls_ca_file": secured.ca}
    product = Product(tmp_path, command="sink", config={"broker": broker})
    product.process.start()
    status = product.process.wait(60)
    assert status == CONFIG, product.process.tail()
    assert "broker.tls_cert_file" in product.process.tail()
