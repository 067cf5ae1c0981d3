"""An HTTP and a SOCKS5 proxy on loopback, with passwords, that can be told to fail; and two that others wrote.

Whatever a client asks for, the connection goes to this machine: a test can use any name for its server.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from typing_extensions import Self

from tests.support.waiting import PATIENCE_S

USER = "trader"
#: Must never be seen in a text; the characters are such as need percent-encoding in a URL.
PASSWORD = "canary-P@ss/word"
PASSWORD_IN_URL = "canary-P%40ss%2Fword"


class LoopbackProxy:
    """Accepts on a free port; each connection runs ``_shake_hands`` and then carries bytes both ways.

    Args:
        password: demanded of ``USER``; None for an open proxy.
        script: run with the socket in place of the proxy's own manners.
    """

    scheme = ""

    def __init__(self, *, password: str | None = None, script: Callable[[socket.socket], object] | None = None) -> None:
        self._password = password
        self.script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        #: Connections accepted so far.
        self.accepted = 0
        #: What clients asked for, as they wrote it.
        self.targets: list[tuple[str, int]] = []
        self._acceptor = threading.Thread(target=self._accept, name="loopback-proxy", daemon=True)
        self._acceptor.start()

    def url(self, *, user: str = USER, password: str | None = None) -> str:
        """For the ``proxy`` option: with the proxy's own password, another one, or none."""
        if password is None and self._password is None:
            return f"{self.scheme}://127.0.0.1:{self.port}"
        return f"{self.scheme}://{user}:{PASSWORD_IN_URL if password is None else password}@127.0.0.1:{self.port}"

    def wait_for_connections(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.accepted >= count, PATIENCE_S), self.accepted

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            with self._changed:
                self.accepted += 1
                self._changed.notify_all()
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            if self.script is not None:
                self.script(sock)
                return
            upstream = self._shake_hands(sock)
            if upstream is not None:
                self._open.append(upstream)
                back = threading.Thread(target=_carry, args=(upstream, sock), daemon=True)
                back.start()
                _carry(sock, upstream)
                back.join(PATIENCE_S)
        sock.close()

    def _shake_hands(self, sock: socket.socket) -> socket.socket | None:
        raise NotImplementedError

    def _dial(self, host: str, port: int) -> socket.socket:
        self.targets.append((host, port))
        return socket.create_connection(("127.0.0.1", port))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for sock in self._open:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ConnectProxy(LoopbackProxy):
    """HTTP CONNECT, with Basic authentication."""

    scheme = "http"

    def _shake_hands(self, sock: socket.socket) -> socket.socket | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += _exactly(sock, 1)
        request, *lines = head.decode("ascii").split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        if self._password is not None:
            wanted = base64.b64encode(f"{USER}:{self._password}".encode()).decode()
            if headers.get("proxy-authorization") != f"Basic {wanted}":
                # A proxy that quotes what it got, as some do.
                words = headers.get("proxy-authorization", "nobody")
                sock.sendall(f"HTTP/1.1 407 {words}\r\ncontent-length: 0\r\n\r\n".encode())
                return None
        if method != "CONNECT":
            sock.sendall(b"HTTP/1.1 405 only CONNECT\r\n\r\n")
            return None
        host, _, port = target.rpartition(":")
        try:
            upstream = self._dial(host.strip("[]"), int(port))
        except OSError:
            sock.sendall(b"HTTP/1.1 502 unreachable\r\n\r\n")
            return None
        sock.sendall(b"HTTP/1.1 200 go ahead\r\nvia: loopback\r\n\r\n")
        return upstream


class SocksProxy(LoopbackProxy):
    """SOCKS5 (RFC 1928) with user and password (RFC 1929)."""

    scheme = "socks5h"

    def _shake_hands(self, sock: socket.socket) -> socket.socket | None:
        _, count = _exactly(sock, 2)
        methods = _exactly(sock, count)
        wanted = 0 if self._password is None else 2
        sock.sendall(bytes([5, wanted if wanted in methods else 255]))
        if wanted not in methods or (wanted == 2 and not self._is_known(sock)):
            return None
        _, _, _, kind = _exactly(sock, 4)
        if kind == 3:
            host = _exactly(sock, _exactly(sock, 1)[0]).decode()
        else:
            host = socket.inet_ntop(
                *((socket.AF_INET, _exactly(sock, 4)) if kind == 1 else (socket.AF_INET6, _exactly(sock, 16)))
            )
        (port,) = struct.unpack("!H", _exactly(sock, 2))
        try:
            upstream = self._dial(host, port)
        except OSError:
            sock.sendall(b"\x05\x05\x00\x01\0\0\0\0\0\0")
            return None
        sock.sendall(b"\x05\x00\x00\x01\x7f\0\0\x01\0\0")
        return upstream

    def _is_known(self, sock: socket.socket) -> bool:
        user = _exactly(sock, _exactly(sock, 2)[1]).decode()
        password = _exactly(sock, _exactly(sock, 1)[0]).decode()
        known = (user, password) == (USER, self._password)
        sock.sendall(bytes([1, 0 if known else 1]))
        return known


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def foreign_proxy(kind: str, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy that someone else wrote, in a process of its own: ``proxy.py`` (HTTP) or ``pproxy`` (both)."""
    with (tmp_path / "proxy.log").open("wb") as log:
        for _ in range(3):  # somebody else may take the port before the proxy does
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            process = subprocess.Popen([sys.executable, *_foreign_command(kind, port)], stdout=log, stderr=log)
            if _listens(port, process):
                break
    try:
        assert process.poll() is None, "the proxy ended"
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _foreign_command(kind: str, port: int) -> list[str]:
    # pproxy takes uvloop where it finds it (the benchmarks install it) and then fails to start. It also counts on a main
    # thread that has an event loop from the start, which Python 3.14 does not make any more.
    pproxy = (
        "import asyncio, sys; sys.modules['uvloop'] = None; asyncio.set_event_loop(asyncio.new_event_loop()); "
        "from pproxy.server import main; main()"
    )
    return {
        "proxy.py": ["-m", "proxy", "--hostname", "127.0.0.1", "--port", str(port), "--basic-auth", f"{USER}:{PASSWORD}",
                     "--num-workers", "1", "--num-acceptors", "1", "--threadless"],
        "pproxy": ["-c", pproxy, "-l", f"http+socks5://127.0.0.1:{port}#{USER}:{PASSWORD}"],
    }[kind]  # fmt: skip


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it does; False when it has ended in place of that."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    pause = threading.Event()
    while process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        assert time.monotonic() < deadline, "the proxy does not listen"
        pause.wait(0.02)
    return False
