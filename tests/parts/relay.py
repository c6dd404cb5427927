"""A network that can be cut: what connects to its port is connected to another one."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from parts.part import HOST, free_port


class Relay:
    """Passes bytes on in both directions, until it is cut."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def mend(self) -> None:
        listener = socket.create_server((HOST, self.port))
        self._listener = listener
        self._begin(self._accept, listener)

    def cut(self) -> None:
        """Ends every connection; new ones are refused."""
        with self._lock:
            ends, self._ends = self._ends, []
            if self._listener is not None:
                ends.append(self._listener)
                self._listener = None
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in ends:
            end.close()
        self._threads.clear()

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((HOST, self._target))
            with self._lock:
                if self._listener is not listener:  # cut meanwhile
                    near.close()
                    far.close()
                    return
                self._ends += [near, far]
                self._begin(self._pass, near, far)
                self._begin(self._pass, far, near)

    @staticmethod
    def _pass(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                to.sendall(content)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(target: int) -> Iterator[Relay]:
    """A relay to a port of this machine."""
    running = Relay(target)
    running.mend()
    try:
        yield running
    finally:
        running.cut()
