"""`openanomaly api` as its document shows it, beside a running `openanomaly run`."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from e2e.sender import push, request
from parts.part import missing
from parts.product import openanomaly

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"


def call(url: str, content: Any) -> urllib.request.Request:
    return urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})


def test_the_calls_of_the_document_work(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl", "apt-get install curl")
    (tmp_path / "pipelines").mkdir()
    with openanomaly(tmp_path, command="api", config={"store": {"url": str(tmp_path / "pipelines")}}) as api:
        blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        script = "set -eu\n" + "\necho; echo ---\n".join(blocks)
        found = subprocess.run(
            ["sh", "-c", script.replace("curl -s", "curl -f -s")],
            env={"API": api.url, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        shown = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        assert shown is not None
        wrong = {"name": "web", "score": {"tolerance": 11}}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(call(f"{api.url}/api/v1/validate", wrong))
        with refused.value as answer:
            assert json.loads(answer.read()) == json.loads(shown[1])
    lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith('{"kind"')]
    assert [line["kind"] for line in lines] == ["progress", "scores", "progress", "summary"]
    assert lines[-1]["steps"] == 3
    assert '"step_s": 15.0' in found.stdout


def test_a_dry_run_counts_the_series_of_a_running_process(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    config = {
        "broker": {"url": f"embedded://{tmp_path / 'data'}"},
        "web": {"admin_auth": {"bearer_token": "sesame"}},
        "pipelines": [{"name": "all"}, {"name": "slow", "step_s": 300}],
    }
    with openanomaly(tmp_path, config=config) as product:
        now_ms = int(time.time() * 1000)
        series = [(("__name__", name), ("i", str(i))) for name in ("up", "down") for i in range(30)]
        push(product.write_url, request({labels: [(now_ms, 1.0)] for labels in series}))
        settings = {
            "store": {"url": str(tmp_path / "pipelines")},
            "api": {"admin_url": product.url, "admin_token": "sesame"},
        }
        with openanomaly(tmp_path, command="api", config=settings) as api:

            def counted(selector: str) -> Any:
                asked = {"pipeline": {"name": "new", "selector": selector}}
                with urllib.request.urlopen(call(f"{api.url}/api/v1/dry-run", asked)) as answer:
                    return json.loads(answer.read())["series"]

            product.wait_until(lambda: counted('{i=~".+"}')["count"] == 60, "all series are known")
            assert counted("up") == {
                "count": 30,
                "of": f"series that pipelines of {product.url} watch now",
                "note": None,
            }
            assert counted('up{i="7"}')["count"] == 1
            assert counted("none")["count"] == 0
