"""A server of the query API and of remote-write that answers as a test says, for clients that block."""

import contextlib
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from parts.part import HOST

EMPTY = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}).encode()


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.body.decode()))


@dataclass(frozen=True)
class Answer:
    """`how`: `close` drops the connection, `hang` never answers, `dribble` sends a byte now and then."""

    status: int = 200
    body: bytes = EMPTY
    headers: dict[str, str] = field(default_factory=dict)
    how: str = ""


@dataclass
class Server:
    """Gives the answers in its script, then `rule`'s."""

    script: list[Answer] = field(default_factory=list)
    rule: Callable[[Asked], Answer] = lambda asked: Answer()
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator["Server"]:
        server, over = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = Asked(self.path, dict(self.headers), body)
                server.asked.append(asked)
                answer = server.script.pop(0) if server.script else server.rule(asked)
                if answer.how in ("hang", "close"):
                    if answer.how == "hang":
                        over.wait(60)
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if answer.how == "dribble":
                    with contextlib.suppress(OSError):
                        for byte in answer.body:
                            self.wfile.write(bytes((byte,)))
                            if over.wait(0.05):
                                break
                    return
                self.wfile.write(answer.body)

            def log_message(self, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass  # a client that goes away, or whose certificate is refused

        http = Quiet((HOST, 0), Handler)
        if tls is not None:
            http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://{HOST}:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            over.set()
            http.shutdown()
            thread.join()
            http.server_close()


def wait_for(is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.005)
