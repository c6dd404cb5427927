"""Services of docker-compose.yml as processes of this machine: what the file says, without containers.

The real `docker compose` reads the file. Each service's command then runs with its environment, its mounted
files and its order of start; only names and ports (to free ones of 127.0.0.1) and the places of files differ.

    with compose.up(tmp_path, "standalone") as running:
        running.url("victoriametrics", 8428)
"""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from parts import kafka, mongo, tools
from parts.debian import program
from parts.part import HOST, PartError, Process, answers, free_port, wait_until

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
# Image -> Debian's program, and the flag and port of its address.
PROGRAMS = {
    "prom/node-exporter": ("prometheus-node-exporter", "--web.listen-address", 9100),
    "prom/prometheus": ("prometheus", "--web.listen-address", 9090),
    "victoriametrics/victoria-metrics": ("victoria-metrics", "-httpListenAddr", 8428),
    "victoriametrics/vmalert": ("vmalert", "-httpListenAddr", 8880),
}
ABSENT = ("grafana/grafana",)
"""Images of programs that are in no package registry; tests/deploy looks at what they are given."""
# What Debian's older versions refuse -> what does the same to what is tested here: Prometheus 2 speaks
# remote-write 1.0 only, vmalert 1.79 wants an address for its alerts (the port is `discard`).
OLDER = {
    r"\n *protobuf_message: .*": "",
    r"^-notifier\.blackhole$": f"-notifier.url=http://{HOST}:9",
}
PORTS = {"api": 9202, "playground": 9204}
"""Command -> its port; 9201 of all others."""
HEALTHY_S = 90.0


def project(*flags: str) -> dict[str, Any]:
    """The file as `docker compose` reads it with these flags."""
    done = tools.run(tools.COMPOSE, "docker-compose", "-f", FILE, *flags, "config", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Running:
    """The services of a profile that can run here.

    Attributes:
        started: their names, in the order of their start.
        processes: by name of the service.
    """

    def __init__(self, root: Path, *flags: str) -> None:
        self.services: dict[str, Any] = project(*flags)["services"]
        self._root = root
        self._ports: dict[tuple[str, int], int] = {}
        self._names = {name: name for name in project("--profile", "*")["services"]}
        for name, service in self.services.items():
            for network in (service.get("networks") or {}).values():
                self._names |= dict.fromkeys((network or {}).get("aliases", []), name)
        self.started: list[str] = []
        self.processes: dict[str, Process] = {}

    # -- names, ports and files ----------------------------------------------------------------

    def port(self, service: str, port: int) -> int:
        """The port of this machine that stands for one of a service, known by its name or an alias."""
        key = (self._names[service], port)
        if key not in self._ports:
            self._ports[key] = free_port()
        return self._ports[key]

    def address(self, service: str, port: int) -> str:
        return f"{HOST}:{self.port(service, port)}"

    def url(self, service: str, port: int) -> str:
        return f"http://{self.address(service, port)}"

    def _here(self, service: str, text: str) -> str:
        """`text` of a service with addresses and paths of this machine."""
        names = "|".join(map(re.escape, sorted(self._names, key=len, reverse=True)))

        def address(found: re.Match[str]) -> str:
            name = service if found[1] in (HOST, "localhost", "") else found[1]
            return self.address(name, int(found[2]))

        text = re.sub(rf"(?<![\w.-])({names}|localhost|127\.0\.0\.1):(\d+)\b", address, text)
        text = re.sub(r"(?<=://)():(\d+)\b", address, text)
        for target, path in sorted(self._mounts(service).items(), reverse=True):
            text = re.sub(rf"(?:(?<![\w./-])|(?<=://)){re.escape(target)}(?![\w-])", str(path), text)
        for pattern, instead in OLDER.items():
            text = re.sub(pattern, instead, text)
        return text

    def _mounts(self, service: str) -> dict[str, Path]:
        """Path in the container -> path here."""
        out = {}
        for mount in self.services[service].get("volumes", []):
            target = mount["target"]
            out[target] = self._root / (
                mount["source"] if mount["type"] == "volume" else service + target.replace("/", "-")
            )
        return out

    def _place_files(self, service: str) -> None:
        for mount in self.services[service].get("volumes", []):
            path = self._mounts(service)[mount["target"]]
            if mount["type"] == "volume":
                path.mkdir(parents=True, exist_ok=True)
                continue
            source = Path(mount["source"])
            assert source.exists(), f"{service} mounts {source}, which is not there"
            shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
            for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
                file.write_text(self._here(service, file.read_text()))

    # -- processes -----------------------------------------------------------------------------

    def _process(self, name: str) -> Process:
        service = self.services[name]
        image = service["image"].split(":")[0]
        environment = {
            key: self._here(name, str(value))
            for key, value in (service.get("environment") or {}).items()
            if value is not None
        }
        words = [self._here(name, word) for word in service.get("command") or ["run"]]
        log = self._root / f"{name}.log"
        if image == "openanomaly":
            listen = [] if words[0] == "demo" else ["--listen", self._listen(name, words[0])]
            return Process([sys.executable, "-m", "openanomaly.cli", *words, *listen], log, environment)
        if image == "apache/kafka":
            return Process(self._kafka(name, environment), log)
        if image == "mongo":  # a server that speaks MongoDB's protocol, without change streams
            return Process(mongo.command(self.port(name, 27017), change_streams=False), log)
        binary, flag, port = PROGRAMS[image]
        words = [] if service.get("command") is None else words
        address = f"{flag}={self.address(name, port)}"
        return Process([program(binary), *words, address], log, environment)

    def _listen(self, name: str, command: str) -> str:
        return self.address(name, PORTS.get(command, 9201))

    def _kafka(self, name: str, environment: dict[str, str]) -> list[str]:
        """Kafka's command. Its image makes properties of variables and formats the folder, as here."""
        properties = {
            key.removeprefix("KAFKA_").lower().replace("_", "."): value for key, value in environment.items()
        }
        file = self._root / f"{name}.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        java = [*kafka.JAVA, kafka.LOG, "-cp", f"{kafka.install()}/*"]
        tool = [*java, "kafka.tools.StorageTool", "format", "-t", kafka.CLUSTER_ID, "-c", str(file)]
        done = subprocess.run(tool, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [*java, "kafka.Kafka", str(file)]

    def start(self) -> None:
        """Every service, each when those it depends on are as it wants them."""
        waiting = {n: s for n, s in self.services.items() if s["image"].split(":")[0] not in ABSENT}
        while waiting:
            name = next(
                n
                for n, s in waiting.items()
                if not any(other in waiting for other in s.get("depends_on", {}))
            )
            for other, how in waiting.pop(name).get("depends_on", {}).items():
                if other in self.processes and how["condition"] == "service_healthy":
                    self.wait_until_healthy(other)
            self._place_files(name)
            self.processes[name] = self._process(name)
            self.processes[name].start()
            self.started.append(name)

    def wait_until_healthy(self, name: str) -> None:
        """Returns when the check of the file says so."""
        check = self.services[name]["healthcheck"]["test"]
        self.processes[name].wait_until_ready(lambda: self._is_healthy(name, check), HEALTHY_S)

    def _is_healthy(self, name: str, check: list[str]) -> bool:
        how, *words = [self._here(name, word) for word in check]
        if how == "CMD-SHELL":  # Kafka's own script is not here: ask as it would
            assert "kafka-broker-api-versions.sh --bootstrap-server" in words[0]
            return _kafka_answers(self.address(name, 9092))
        if words[0] == "wget":
            return answers(words[-1])()
        if words[0] == "mongosh":
            with socket.create_connection((HOST, self.port(name, 27017)), timeout=1):
                return True
        assert words[0] == "python"
        command = [sys.executable, *words[1:]]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0

    def check(self) -> None:
        """Raises PartError where a service that should run has ended."""
        for name, process in self.processes.items():
            if self.services[name].get("restart") != "no" and not process.is_running:
                raise PartError(f"{name} ended on its own:\n{process.tail()}")

    def wait_until(self, is_true: Any, what: str, timeout_s: float = 60.0) -> None:
        """Like `wait_until`, and fails at once when a service has ended."""

        def true_and_alive() -> bool:
            self.check()
            return bool(is_true())

        wait_until(true_and_alive, what, timeout_s, every_s=0.3)

    def stop(self) -> None:
        """In the other order, so that nobody misses what it depends on."""
        for name in reversed(self.started):
            process = self.processes[name]
            if not self.services[name]["image"].startswith("apache/kafka"):
                process.stop(timeout_s=30)
            elif process.is_running:
                process.kill()  # a controller without others takes long to end


def _kafka_answers(address: str) -> bool:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0, "socket.timeout.ms": 2000})
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


@contextlib.contextmanager
def up(root: Path, *flags: str) -> Iterator[Running]:
    """The services that `docker compose FLAGS up` starts, in `root`, until the end of the block."""
    running = Running(root, *flags)
    try:
        running.start()
        yield running
    finally:
        running.stop()
