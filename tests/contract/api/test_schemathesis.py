"""The API against its own description: Schemathesis calls a running `openanomaly api` and finds nothing.

Every check is on. Values are made from a fixed seed; formats.py has those of formats that JSON Schema does
not know.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parts.product import openanomaly

_HERE = Path(__file__).parent
_TOKEN = "sesame"


@pytest.mark.timeout(1200)
def test_what_is_described_is_what_is_done(tmp_path: Path) -> None:
    store = tmp_path / "pipelines"
    store.mkdir()
    config = {"store": {"url": str(store)}, "api": {"auth": {"bearer_token": _TOKEN}}}
    with openanomaly(tmp_path, command="api", config=config) as api:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_HERE / "schemathesis.toml")),
            *("run", f"{api.url}/openapi.json", "-H", f"Authorization: Bearer {_TOKEN}"),
            *("--max-examples", "15", "--continue-on-failure", "--no-color"),
        ]
        environ = {**os.environ, "SCHEMATHESIS_HOOKS": str(_HERE / "formats.py")}
        found = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
        metrics = api.metrics()
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-5_000:]

    # It got through: each operation was done, and not only refused. (That PUT creates takes more luck than
    # there is in so few examples: tests/unit/api.)
    def answered(path: str, code: str) -> float:
        return metrics.get(f'openanomaly_api_requests_total{{code="{code}",path="/api/v1/{path}"}}', 0)

    done = {
        ("pipelines", "200"),
        ("pipelines", "201"),
        ("pipelines/{name}", "200"),
        ("pipelines/{name}", "204"),
        ("pipelines/{name}", "412"),
        ("validate", "200"),
        ("dry-run", "200"),
        ("preview", "200"),
    }
    assert {each for each in done if not answered(*each)} == set()
    assert not [name for name in metrics if 'code="500"' in name]
