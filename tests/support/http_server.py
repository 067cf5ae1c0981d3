"""A real HTTP server on loopback that answers by script: refusals, slow bodies, garbage, redirects, silence.

Each test makes its own with what it shall answer, and reads afterwards what arrived, over how many connections.
"""

from __future__ import annotations

import contextlib
import json as json_module
import selectors
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import Self

#: Seconds that a test waits for something that should happen at once; reached only when it fails.
GENEROUS_S = 10.0

# A certificate for localhost and 127.0.0.1 that nobody trusts, good until 2125. For tests of refusals and, given to the
# client as its only authority, of TLS at all.
TEST_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBrjCCAVWgAwIBAgIUNyoHVxqRmDc8aSlHmy8SPNE83BUwCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTbGFzZXJzZWxsX3N5bmMgdGVzdDAgFw0yNjExMjMwMTMxNTRa
GA8yMTI2MTAzMDAxMzE1NFowHjEcMBoGA1UEAwwTbGFzZXJzZWxsX3N5bmMgdGVz
dDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPYOtWpYFid7ZyZMjRUWa9Qo06M/
3LcXDNwT600gQhPQEsGZX7UKaal2I7I8OhuQcIuYhz/9f0YPRlHGrEfkS/mjbzBt
MB0GA1UdDgQWBBQmN++zLeBAp/rUODZCdFm9gnyMWjAfBgNVHSMEGDAWgBQmN++z
LeBAp/rUODZCdFm9gnyMWjAPBgNVHRMBAf8EBTADAQH/MBoGA1UdEQQTMBGCCWxv
Y2FsaG9zdIcEfwAAATAKBggqhkjOPQQDAgNHADBEAiAq8H3Mdmd4E2rWGlZjqjq2
ZHB6dnwlp7PHo2gvblBYOAIgUsxXL7XSTBtFmXY0I9d7jVjryebzC8nREWij0/ac
+2g=
-----END CERTIFICATE-----
"""
_TEST_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsxGoUNTeU7gd6gdn
8dth0yHGc86JJ2tTXyfBvvNqSbqhRANCAAT2DrVqWBYne2cmTI0VFmvUKNOjP9y3
FwzcE+tNIEIT0BLBmV+1CmmpdiOyPDobkHCLmIc//X9GD0ZRxqxH5Ev5
-----END PRIVATE KEY-----
"""


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json_module.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to answer.

    Attributes:
        hold: answer only when this is set (the server sets it when it stops).
        pieces: bytes written one by one, 20 ms apart, in place of ``body``; nothing tells how many come.
        raw: written in place of a whole HTTP answer; the connection then ends.
        last: the connection ends after this answer, without telling so.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    pieces: Iterable[bytes] | None = None
    raw: bytes | None = None
    last: bool = False


def json_answer(value: object, status: int = 200, **headers: str) -> Answer:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json_module.dumps(value).encode(), {"content-type": "application/json", **names})


Responder = Callable[[Seen], Answer]


class HttpServer:
    """Answers the n-th request with the n-th answer, or each one with ``respond(request)``.

    A request beyond the script gets status 599, which no test expects.
    """

    def __init__(self, *answers: Answer, respond: Responder | None = None, tls: bool = False) -> None:
        self._answers = list(answers)
        self._respond = respond
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self.closing = threading.Event()
        self.requests: list[Seen] = []
        #: Connections accepted so far.
        self.connections = 0
        #: What went wrong inside the server: looked at when it stops.
        self.failures: list[BaseException] = []
        self._server = _Server(self)
        self._scheme = "http"
        if tls:
            self._scheme = "https"
            self._server.socket = _server_context().wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_until_woken, name="test-http-server")

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if kind is None:
            assert not self.failures, self.failures

    def stop(self) -> None:
        self.closing.set()
        for answer in self._answers:
            if answer.hold is not None:
                answer.hold.set()
        self._server.wake()
        self._thread.join(GENEROUS_S)
        self.drop_connections()
        self._server.server_close()

    def drop_connections(self) -> None:
        """Ends every open connection, as a server does with idle ones."""
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open.intersection(connections), GENEROUS_S)

    def wait_for_requests(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, GENEROUS_S), self.requests

    # ── called by the handler threads ──

    def answer_to(self, seen: Seen) -> Answer:
        with self._changed:
            self.requests.append(seen)
            number = len(self.requests)
            self._changed.notify_all()
        if self._respond is not None:
            return self._respond(seen)
        if number > len(self._answers):
            return Answer(599, b"the test's script has no answer to this request")
        return self._answers[number - 1]

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self.connections += 1
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    # A burst of threads in a test must not be refused.
    request_queue_size = 64

    def __init__(self, owner: HttpServer) -> None:
        self.owner = owner
        self._waker, self._woken = socket.socketpair()
        super().__init__(("127.0.0.1", 0), _Handler)

    def serve_until_woken(self) -> None:
        """As ``serve_forever``, which would look every so often whether it is to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is self for key, _ in selector.select()):
                self._handle_request_noblock()

    def wake(self) -> None:
        self._waker.send(b"x")

    def server_close(self) -> None:
        super().server_close()
        self._waker.close()
        self._woken.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.owner.closed(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys

        error = sys.exc_info()[1]
        # A client that gives up is what many tests are about.
        if error is not None and not isinstance(error, ConnectionError | ssl.SSLError):
            self.owner.failures.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    # The handshake and small answers should not wait for each other.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner = self.server.owner
        answer = owner.answer_to(Seen(self.command, self.path, headers, body))
        if answer.hold is not None:
            answer.hold.wait(GENEROUS_S)
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.pieces is None:
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = answer.last
            return
        self.end_headers()
        for piece in answer.pieces:
            self.wfile.write(piece)
            if owner.closing.wait(0.02):
                break
        self.close_connection = True

    do_GET = do_POST = do_DELETE = _serve

    def log_message(self, *_: object) -> None:
        pass


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "server.pem"
        pem.write_text(_TEST_KEY + TEST_CERTIFICATE)
        context.load_cert_chain(pem)
    return context


def trusting_context() -> ssl.SSLContext:
    """A client's context that trusts the test certificate and nothing else."""
    return ssl.create_default_context(cadata=TEST_CERTIFICATE)


#: Bound and never listening: the kernel refuses who connects, and gives the port to nobody else.
_HELD: list[socket.socket] = []


def closed_port() -> int:
    """A port where nothing listens, as long as this process lives."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return int(held.getsockname()[1])
