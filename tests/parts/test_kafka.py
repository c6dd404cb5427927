"""The real Kafka starts, keeps what it acknowledged over a kill -9, and is gone afterwards."""

from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewTopic

from parts import kafka


def test_a_node_keeps_acknowledged_records_over_a_kill(tmp_path: Path) -> None:
    with kafka.cluster(tmp_path) as cluster:
        admin = cluster.admin()
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(10)
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "log_level": 0})
        for i in range(100):
            producer.produce("t", value=str(i).encode())
        assert producer.flush(10) == 0

        cluster.kill(1)
        cluster.start(1)

        consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": "g",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        consumer.subscribe(["t"])
        records = consumer.consume(100, timeout=30)
        consumer.close()
        pid = cluster.pid(1)

    assert [record.value() for record in records] == [str(i).encode() for i in range(100)]
    assert not Path(f"/proc/{pid}").exists()
