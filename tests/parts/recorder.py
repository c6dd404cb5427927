"""An endpoint that keeps every remote-write request as it came, bytes and headers."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from parts.part import HOST, free_port


@dataclass(frozen=True)
class Request:
    headers: dict[str, str]
    body: bytes


@dataclass
class Recorder:
    url: str
    requests: list[Request] = field(default_factory=list)


WRITTEN = ("Samples", "Histograms", "Exemplars")


@contextlib.contextmanager
def recorder() -> Iterator[Recorder]:
    """Takes every request with 204. A sender of 2.0 hears that samples were written, so that it goes on."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            held.requests.append(Request(dict(self.headers.items()), body))
            self.send_response(204)
            for name in WRITTEN:
                self.send_header(f"X-Prometheus-Remote-Write-{name}-Written", "1000000")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    port = free_port()
    held = Recorder(f"http://{HOST}:{port}/api/v1/write")
    with ThreadingHTTPServer((HOST, port), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield held
        finally:
            server.shutdown()
            thread.join()
