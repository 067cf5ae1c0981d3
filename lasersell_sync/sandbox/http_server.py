"""A small threaded HTTP/1.1 server for JSON services, on werkzeug, with connections that stay open.

werkzeug's own handler closes every connection after one answer. Ours reads the whole request body first, so it knows
where the next request begins, and then keeps the connection.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

_log = logging.getLogger("lasersell_sync.sandbox.http")

MAX_BODY_BYTES = 2**20
#: An idle connection is closed after this long.
_IDLE_S = 120.0
_JOIN_S = 1.0

Application = Callable[[Request], Response]


def json_response(body: object, status: int = 200) -> Response:
    """A compact JSON answer."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return Response(text, status=status, mimetype="application/json")


class _Handler(WSGIRequestHandler):
    """One connection; one thread."""

    protocol_version = "HTTP/1.1"
    # Without this the second small write of an answer waits for the client's delayed acknowledgement: 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = _IDLE_S
    server: _Server

    def run_wsgi(self) -> None:
        """Answer one request."""
        if self.headers.get("Expect", "").lower().strip() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        body = self._read_body()
        if body is None:
            # What is left of the body would be taken for the next request.
            self.close_connection = True
            self._write(json_response({"error": "request body too large or malformed"}, 413))
            return
        environ = self.make_environ()
        environ["wsgi.input"] = BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        try:
            response = self.server.application(Request(environ))
        except Exception:  # noqa: BLE001 (a bug of ours is one failed answer, not a dead connection)
            _log.exception("%s %s failed", self.command, environ["PATH_INFO"])
            response = json_response({"error": "internal error"}, 500)
        self._write(response)

    def _read_body(self) -> bytes | None:
        """The body; None if it is too large or its length makes no sense."""
        if "transfer-encoding" in self.headers:
            return self._read_chunked()
        text = self.headers.get("Content-Length", "0").strip()
        if not text.isdecimal() or not text.isascii() or len(text) > 19 or int(text) > MAX_BODY_BYTES:
            return None
        body: bytes = self.rfile.read(int(text))
        return body if len(body) == int(text) else None

    def _read_chunked(self) -> bytes | None:
        stream = self.make_environ()["wsgi.input"]
        if stream is self.rfile:
            return None  # an encoding other than chunked
        try:
            body = bytearray()
            while True:
                part = stream.read(65_536)
                if not part:
                    return bytes(body)
                body += part
                if len(body) > MAX_BODY_BYTES:
                    return None
        except (OSError, ValueError):
            return None

    def _write(self, response: Response) -> None:
        body = response.get_data()
        self.send_response(response.status_code)
        for name, value in response.headers.items():
            if name.lower() not in ("content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer something that is not HTTP, and close."""
        self.close_connection = True
        self._write(json_response({"error": message or "bad request"}, code))

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002, ARG002 (the base class's names)
        """To our own logger, quietly; request lines carry no secrets, headers are never logged."""
        _log.debug(message, *args)


class _Server(ThreadedWSGIServer):
    """werkzeug's server over a socket of ours, with named threads that can be joined."""

    timeout = 0.5  # a client may be gone between its knock and our accept

    def __init__(self, listener: socket.socket, application: Application, thread_name: str) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(host, port, app=_no_wsgi, handler=_Handler, fd=listener.fileno())
        listener.close()  # the base class works on a duplicate
        self.application = application
        self._thread_name = thread_name
        self._lock = threading.Lock()
        # Guarded by _lock. A thread outlives its connection by a moment, so they are kept apart.
        self._connections: set[socket.socket] = set()
        self._threads_alive: list[threading.Thread] = []
        self._served = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection on a thread of its own."""
        with self._lock:
            self._served += 1
            name = f"{self._thread_name}-{self._served}"
            arguments = (request, client_address)
            thread = threading.Thread(target=self.process_request_thread, args=arguments, name=name, daemon=True)
            self._connections.add(request)
            self._threads_alive = [*filter(threading.Thread.is_alive, self._threads_alive), thread]
            # Started under the lock: a thread in the list is one that can be joined.
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        """A connection is over."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A connection's thread failed; the others go on."""
        _log.debug("connection from %s failed", client_address, exc_info=True)

    def hang_up(self) -> list[threading.Thread]:
        """Cut every connection; the threads, which are about to end."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # it may be gone already
                    connection.shutdown(socket.SHUT_RDWR)
            return list(self._threads_alive)


def _no_wsgi(_environ: Any, _start_response: Any) -> list[bytes]:
    raise RuntimeError("requests go to the application, not through WSGI")


class HttpService:
    """Serves an application on listening sockets, from ``start`` to ``stop``.

    Threads: one named ``name`` accepts connections, and one ``name-N`` serves each.
    """

    def __init__(self, name: str, listeners: list[socket.socket], application: Application) -> None:
        self._servers = [_Server(listener, application, name) for listener in listeners]
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)

    def start(self) -> None:
        """Start accepting."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything and join every thread; fine if it never started."""
        self._wake_writer.send(b"x")
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        handlers = [thread for server in self._servers for thread in server.hang_up()]
        for server in self._servers:
            server.server_close()
        for thread in handlers:
            thread.join(_JOIN_S)
        self._wake_reader.close()
        self._wake_writer.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            for server in self._servers:
                selector.register(server.socket, selectors.EVENT_READ, server)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    key.data.handle_request()
