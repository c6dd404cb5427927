"""A real Kafka: one or more KRaft nodes, each a broker and a controller.

The jars come from Maven (43 MB) into `.parts/kafka-VERSION`. One node takes about 3 s to start and
160 MB of memory.

    with kafka.cluster(tmp_path) as cluster:          # one node
        app = faust.App(..., broker=cluster.url)

    with kafka.cluster(tmp_path, nodes=3) as cluster:
        cluster.kill(2)                               # kill -9
        cluster.start(2)
"""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from parts import maven
from parts.part import HOST, PartError, Process, free_port, wait_until

VERSION = "4.4.0"
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
JAVA = ("java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
LOG = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>parts</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://{host}:{port}{listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={folder}
num.partitions=4
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.segment.bytes=67108864
"""


def install() -> Path:
    """The folder with Kafka's jars."""
    return maven.jars("Kafka", f"kafka-{VERSION}", POM, {"java": "default-jre-headless"})


class Cluster:
    """Running nodes 1..N; `url` is what an app is given.

    Attributes:
        listeners: HOST:PORT of each listener that was asked for beside the plain one, on node 1.
    """

    def __init__(
        self,
        root: Path,
        nodes: int,
        properties: Mapping[str, str],
        protocols: Mapping[str, str],
        format_flags: Sequence[str],
    ) -> None:
        assert nodes == 1 or not protocols
        self.listeners = {name: f"{HOST}:{free_port()}" for name in protocols}
        self._format_flags = format_flags
        self._jars = install()
        self._root = root
        self._ports = {node: free_port() for node in range(1, nodes + 1)}
        controllers = {node: free_port() for node in self._ports}
        voters = ",".join(f"{node}@{HOST}:{port}" for node, port in controllers.items())
        self._processes: dict[int, Process] = {}
        for node, port in self._ports.items():
            folder = root / f"kafka-{node}"
            folder.mkdir(parents=True)
            text = PROPERTIES.format(
                node=node,
                voters=voters,
                host=HOST,
                port=port,
                controller_port=controllers[node],
                folder=folder / "log",
                replicas=min(3, nodes),
                in_sync=min(2, nodes),
                listeners="".join(f",{name}://{address}" for name, address in self.listeners.items()),
                protocols="".join(f",{name}:{protocol}" for name, protocol in protocols.items()),
            )
            config = folder / "server.properties"
            config.write_text(text + "".join(f"{key}={value}\n" for key, value in properties.items()))
            self._processes[node] = Process([*self._java(), "kafka.Kafka", config], folder / "kafka.out")

    def _java(self) -> list[str]:
        return [*JAVA, LOG, "-cp", f"{self._jars}/*"]

    @property
    def bootstrap(self) -> str:
        """HOST:PORT of every node, comma between them."""
        return ",".join(f"{HOST}:{port}" for port in self._ports.values())

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "socket.timeout.ms": 5000})

    def format(self) -> None:
        for node, process in self._processes.items():
            config = self._root / f"kafka-{node}" / "server.properties"
            command = [
                *self._java(),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                CLUSTER_ID,
                "-c",
                str(config),
                *self._format_flags,
            ]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PartError(f"cannot format {process.log.parent}: {done.stdout}{done.stderr}")

    def start(self, *nodes: int) -> None:
        """Starts these nodes (all by default) and waits until every running one is known to the others."""
        for node in nodes or tuple(self._processes):
            self._processes[node].start()
        expected = {node for node, process in self._processes.items() if process.is_running}
        self.wait_until_alive(expected)

    def wait_until_alive(self, expected: set[int], timeout_s: float = 60.0) -> None:
        def all_known() -> bool:
            for node in expected:
                if not self._processes[node].is_running:
                    raise PartError(f"Kafka node {node} ended on its own:\n{self._processes[node].tail()}")
            try:
                return set(admin.list_topics(timeout=1).brokers) >= expected
            except KafkaException:
                return False

        admin = self.admin()
        wait_until(all_known, f"Kafka nodes {sorted(expected)}", timeout_s, every_s=0.2)

    def kill(self, node: int) -> None:
        """kill -9 of one node; `start(node)` brings it back with its log."""
        self._processes[node].kill()

    def pid(self, node: int) -> int:
        return self._processes[node].pid

    def stop(self) -> None:
        # Controllers that cannot hand over to anybody wait long; the files of a test need no clean end.
        for process in self._processes.values():
            if process.is_running:
                process.kill()


@contextlib.contextmanager
def cluster(
    root: Path,
    nodes: int = 1,
    properties: Mapping[str, str] | None = None,
    protocols: Mapping[str, str] | None = None,
    format_flags: Sequence[str] = (),
) -> Iterator[Cluster]:
    """A running cluster whose files are below `root`.

    Args:
        properties: added to server.properties.
        protocols: further listeners of a single node, by name: SASL_SSL, SSL or SASL_PLAINTEXT.
        format_flags: for `kafka-storage format`, where users of SCRAM are made.
    """
    running = Cluster(root, nodes, properties or {}, protocols or {}, format_flags)
    try:
        running.format()
        running.start()
        yield running
    finally:
        running.stop()
