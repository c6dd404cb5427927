"""Starts the containers of rendered pods as processes of this machine.

Command, arguments, variables and mounted files are those of the chart. What differs: a mount path becomes a
folder below `root`, the address of a Service that of the process behind it, and names of outside hosts those
that tests have.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.chart import Object, container, of_kind, pods, workloads
from parts.part import HOST, PartError, Process, answers, free_port, get

ENTRYPOINT = (sys.executable, "-m", "openanomaly.cli")


def _role(name: str) -> str:
    """Of a pod: `window` of `window-1`."""
    return name.partition("-")[0]


class Kubelet:
    """The pods of one release.

    Args:
        hosts: `HOST:PORT` as values have it -> as it is here.
        secrets: by name, the keys of each Secret and ConfigMap that is not of the chart.
    """

    def __init__(
        self,
        objects: tuple[Object, ...],
        root: Path,
        hosts: Mapping[str, str],
        secrets: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._objects = objects
        self._pods = pods(objects)
        self._root = root
        self._secrets = dict(secrets or {})
        self._maps = {f"release-{name}": each["data"] for name, each in of_kind(objects, "ConfigMap").items()}
        self._hosts = dict(hosts)
        self._ports = {role: free_port() for role in self._pods}
        for name, service in of_kind(objects, "Service").items():
            # A Service with several pods leads to the first one that is started here.
            role = service["spec"]["selector"]["app.kubernetes.io/component"]
            for port in service["spec"]["ports"]:
                address = f"release-{name}.default:{port['port']}"
                self._hosts[address] = f"{HOST}:{self._ports[role]}"
        self.processes: dict[str, Process] = {}
        self._addresses: dict[str, str] = {}

    def process(self, role: str, name: str | None = None) -> Process:
        """The container of a role, not started; `name` is that of the pod, where there are several."""
        name = name or role
        pod = self._pods[role]
        own = container(pod)
        assert not own.get("command"), "the image's own entrypoint is what runs"
        port = self._ports[role] if name == role else free_port()
        self._addresses[name] = f"{HOST}:{port}"
        folders = self._mount(role, name)
        arguments = [self._here(word, folders) for word in own["args"]]
        if "--listen" in arguments:
            arguments[arguments.index("--listen") + 1] = self._addresses[name]
        env = {"TMPDIR": str(folders["/tmp"])}
        for source in own.get("envFrom", []):
            env |= self._secrets[source["secretRef"]["name"]]
        for each in own["env"]:
            if "value" in each:
                env[each["name"]] = self._here(each["value"], folders)
            else:
                chosen = each["valueFrom"]["secretKeyRef"]
                env[each["name"]] = self._secrets[chosen["name"]][chosen["key"]]
        return Process([*ENTRYPOINT, *arguments], self._root / f"{name}.log", env)

    def start(self, role: str, name: str | None = None) -> Process:
        """Begin; `wait` says when it is ready."""
        process = self.process(role, name)
        process.start()
        self.processes[name or role] = process
        return process

    def wait(self, timeout_s: float = 60.0) -> None:
        """Until the readiness probe of every pod passes; startup and liveness then pass too."""
        for name, process in self.processes.items():
            own = container(self._pods[_role(name)])
            asked = {
                kind: own[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "startup", "liveness")
            }
            process.wait_until_ready(
                answers(f"http://{self._addresses[name]}{asked['readiness']}"), timeout_s
            )
            for path in asked.values():
                get(f"http://{self._addresses[name]}{path}")

    def address(self, name: str) -> str:
        """HOST:PORT of a pod that was started."""
        return self._addresses[name]

    def metrics(self, name: str) -> str:
        return get(f"http://{self._addresses[name]}/metrics").decode()

    def stop(self) -> dict[str, int]:
        """A SIGTERM to each, as a kubelet does; the exit statuses. Nobody may take longer than its pod."""
        for process in self.processes.values():
            if process.is_running:
                os.kill(process.pid, signal.SIGTERM)
        told_s = time.monotonic()
        statuses = {}
        for name, process in self.processes.items():
            grace_s = self._pods[_role(name)]["terminationGracePeriodSeconds"]
            statuses[name] = process.wait(max(0.1, told_s + grace_s - time.monotonic()))
        return statuses

    def run_test(self, timeout_s: float = 120.0) -> str:
        """The pod of `helm test` from its start to its end, which must be a good one; what it said."""
        process = self.process("test")
        process.start()
        if status := process.wait(timeout_s):
            raise PartError(f"helm test ended with {status}: {process.tail()}")
        return process.tail()

    def _mount(self, role: str, name: str) -> dict[str, Path]:
        """Folders by mount path, with their files."""
        pod = self._pods[role]
        sources = {each["name"]: each for each in pod["volumes"]}
        claims = workloads(self._objects).get(role, {}).get("spec", {}).get("volumeClaimTemplates", [])
        sources |= {each["metadata"]["name"]: {"emptyDir": {}} for each in claims}
        folders, files = {}, {}
        for mount in container(pod)["volumeMounts"]:
            assert not {"subPath", "subPathExpr"} & set(mount)
            source = sources[mount["name"]]
            folder = folders[mount["mountPath"]] = self._root / name / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "configMap" in source:
                chosen = source["configMap"]["name"]
                files[folder] = self._maps.get(chosen) or self._secrets[chosen]
            elif "secret" in source:
                files[folder] = self._secrets[source["secret"]["secretName"]]
        for folder, content in files.items():
            for file, text in content.items():
                (folder / file).write_text(self._here(text, folders))
        return folders

    def _here(self, text: str, folders: Mapping[str, Path]) -> str:
        """A text of the chart with paths and addresses of this machine."""
        known = {f"{path}/": f"{folder}/" for path, folder in folders.items()} | self._hosts
        # In one go: `root` may itself lie below a path that is mounted.
        pattern = "|".join(re.escape(there) for there in sorted(known, key=len, reverse=True))
        return re.sub(pattern, lambda found: known[found[0]], text)
