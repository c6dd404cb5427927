"""What gets scraped: a real node_exporter, and a page whose text a test decides."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from parts.debian import program
from parts.part import HOST, Process, answers, free_port, running


@contextlib.contextmanager
def node_exporter(root: Path, *flags: str) -> Iterator[str]:
    """A running node_exporter; gives its HOST:PORT."""
    address = f"{HOST}:{free_port()}"
    command = [program("prometheus-node-exporter"), f"--web.listen-address={address}", *flags]
    process = Process(command, root / "node_exporter.log")
    with running(process):
        process.wait_until_ready(answers(f"http://{address}/metrics"))
        yield address


class Page:
    """Text served as the metrics of a target; change `text` between scrapes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.content_type = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.contextmanager
def serve(page: Page) -> Iterator[str]:
    """A target that answers every scrape with `page.text`; gives its HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    port = free_port()
    with ThreadingHTTPServer((HOST, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"{HOST}:{port}"
        finally:
            server.shutdown()
            thread.join()
