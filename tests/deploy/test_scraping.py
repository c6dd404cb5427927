"""The scrape configuration of docs/deployment.md makes one installation of several roles."""

import contextlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from openanomaly import presets
from openanomaly.cli import ROLES
from openanomaly.telemetry import Telemetry
from parts import debian
from parts.exporters import Page, serve
from parts.part import HOST, Process, answers, free_port, get, running

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs/deployment.md").read_text().split("\n## Scrape it\n")[1].split("\n## ")[0]
[SHOWN] = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
ROLE_OF = dict(re.findall(r"- (\S+:\d+)  # (\w+)", SHOWN))
"""Target of the document -> its role."""


def page(role: str) -> Page:
    """The metrics of a process that has one role."""
    telemetry = Telemetry()
    telemetry.is_ready.labels(role).set(1)
    return Page(generate_latest(telemetry.registry).decode())


def away(url: str) -> set[tuple[str, str]]:
    """Job, and which role of it is said to be away; an alert is there as soon as its `for` has begun."""
    alerts = json.loads(get(f"{url}/api/v1/alerts"))["data"]["alerts"]
    labels = [alert["labels"] for alert in alerts]
    found = [(each["job"], re.fullmatch(r"OpenAnomaly(\w+)Away", each["alertname"])) for each in labels]
    return {(job, name[1].lower()) for job, name in found if name}


def test_every_role_is_scraped_and_prometheus_takes_the_file(tmp_path: Path) -> None:
    assert set(ROLE_OF.values()) == set(ROLES["run"])
    (tmp_path / "prometheus.yml").write_text(SHOWN)
    command = [debian.program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("apart", [False, True])
def test_no_role_is_away_if_all_have_one_job_and_each_is_if_every_role_has_its_own(
    tmp_path: Path, apart: bool
) -> None:
    with contextlib.ExitStack() as stack:
        served = {target: stack.enter_context(serve(page(role))) for target, role in ROLE_OF.items()}
        config: dict[str, Any] = yaml.safe_load(SHOWN)
        [job] = config["scrape_configs"]
        [targets] = job["static_configs"]
        targets["targets"] = [served[target] for target in targets["targets"]]
        expected: set[tuple[str, str]] = set()
        if apart:
            config["scrape_configs"] = [
                {"job_name": role, "static_configs": [{"targets": [served[target]]}]}
                for target, role in ROLE_OF.items()
            ]
            roles = ROLE_OF.values()
            expected = {(role, other) for role in roles for other in roles if role != other}
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(tmp_path / "health.yaml")]
        del config["remote_write"]  # to a machine of the document
        (tmp_path / "health.yaml").write_text(presets.alerts("health"))
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        url = f"http://{HOST}:{free_port()}"
        command = [
            debian.program("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address={url.removeprefix('http://')}",
        ]
        process = Process(command, tmp_path / "prometheus.log")
        stack.enter_context(running(process))
        process.wait_until_ready(answers(f"{url}/-/ready"))
        # With the first two seconds of the rules behind us, in which targets may be seen one after another.
        evaluations = f'{url}/api/v1/query?query=count_over_time(openanomaly_ready{{role="sink"}}[1h])>3'
        process.wait_until_ready(lambda: json.loads(get(evaluations))["data"]["result"])
        process.wait_until_ready(lambda: away(url) == expected)
