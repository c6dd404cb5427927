"""A server that speaks MongoDB's wire protocol, with its documents in memory: mongo-java-server.

The jars come from Maven (3 MB) into `.parts/mongo-VERSION`, where a launcher is compiled. It starts in
half a second and takes 60 MB of memory. It has change streams and no transactions.

    with mongo.server(tmp_path) as server:
        client = AsyncMongoClient(server.url())

Its documents are gone after a stop.
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from parts import maven
from parts.part import HOST, Process, free_port

VERSION = "1.47.0"
JAVA = ("java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>parts</groupId><artifactId>mongo</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>de.bwaldvogel</groupId><artifactId>mongo-java-server</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

# PyMongo wants a newer wire version than the server says it has, and an operation time for change streams.
LAUNCHER = """\
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.ServerVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.BsonTimestamp;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import io.netty.channel.Channel;
import java.time.Instant;

public class Launcher {
  static class Backend extends MemoryBackend {
    private Document newer(Document answer) {
      if (answer != null && answer.containsKey("maxWireVersion")) answer.put("maxWireVersion", 13);
      return answer;
    }

    @Override
    public Document handleCommand(Channel channel, String database, String command, Document query) {
      return newer(super.handleCommand(channel, database, command, query));
    }

    @Override
    public Document handleMessage(MongoMessage message) {
      Document answer = newer(super.handleMessage(message));
      if (answer != null && answer.containsKey("cursor") && !answer.containsKey("operationTime"))
        answer.put("operationTime", new BsonTimestamp(Instant.now(), 1));
      return answer;
    }
  }

  public static void main(String[] arguments) throws Exception {
    MongoServer server = new MongoServer(new Backend().version(ServerVersion.MONGO_5_0));
    if (arguments.length > 1) server.enableOplog();
    server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    Thread.currentThread().join();
  }
}
"""


def install() -> Path:
    """The folder with the server's jars and launcher."""
    return maven.jars(
        "A MongoDB server",
        f"mongo-{VERSION}",
        POM,
        {"java": "default-jre-headless", "javac": "default-jdk-headless"},
        {"Launcher.java": LAUNCHER},
        lambda folder: ["javac", "-cp", f"{folder}/*", "-d", str(folder), str(folder / "Launcher.java")],
    )


def command(port: int, change_streams: bool = True) -> list[str]:
    """What starts a server on a port."""
    jars = install()
    log = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    flags = ["streams"] if change_streams else []
    return [*JAVA, log, "-cp", f"{jars}/*:{jars}", "Launcher", str(port), *flags]


class Server:
    """A server on a port that stays the same over its stops and starts."""

    def __init__(self, root: Path, change_streams: bool) -> None:
        self.port = free_port()
        self._process = Process(command(self.port, change_streams), root / f"mongo-{self.port}.out")

    def url(self, database: str = "openanomaly", options: str = "") -> str:
        return f"mongodb://{HOST}:{self.port}/{database}{options and '?' + options}"

    def start(self) -> None:
        self._process.start()
        self._process.wait_until_ready(self._answers)

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1):
            return True

    def kill(self) -> None:
        """kill -9: its documents are gone."""
        self._process.kill()

    def stop(self) -> None:
        self._process.stop()


@contextlib.contextmanager
def server(root: Path, change_streams: bool = True) -> Iterator[Server]:
    """A running server whose log is below `root`."""
    running = Server(root, change_streams)
    running.start()
    try:
        yield running
    finally:
        running.stop()
