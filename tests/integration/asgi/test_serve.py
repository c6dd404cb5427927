"""An ASGI application of ours in a process of its own, until its end."""

import signal
from pathlib import Path

import pytest

from parts.part import wait_until
from parts.product import Product


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_is_asked_to_stop_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    store = tmp_path / "pipelines.yaml"
    store.write_text("pipelines: []\n")
    api = Product(tmp_path, command="api", config={"store": {"url": str(store)}})
    api.start()
    try:
        assert api.process.popen is not None
        api.process.popen.send_signal(number)
        wait_until(lambda: not api.process.is_running, "its end")
    finally:
        assert api.stop() == 0, api.process.tail()
    assert "Traceback" not in api.process.tail()
