"""A stream server written by someone else (the ``websockets`` package), scripted by a test.

A script is called with a ``Peer`` for every connection, on that connection's own thread. What a peer receives and how
connections come and go is recorded and can be waited for: tests wait on events, not on sleeps.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.support.waiting import PATIENCE_S

WALLET = "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"
OTHER_WALLET = "4ACfpUFoaSD9bfPdeu6DBt89gB6ENTeHBXCAi87NhDEE"
MINT = "So11111111111111111111111111111111111111112"
ACCOUNT = "D2L6yPZ2FmmmTKPgzaMKdhu6EWZcTpLy1Vhx8uvZe7NZ"


def hello(session_id: int = 1, server_time_ms: int = 1_700_000_000_000) -> dict[str, Any]:
    """A ``hello_ok`` with an Advanced tier's limits."""
    return {
        "type": "hello_ok",
        "session_id": session_id,
        "server_time_ms": server_time_ms,
        "limits": {"hi_capacity": 256, "pnl_flush_ms": 100, "max_positions_per_session": 20000},
    }


def opened(position_id: int = 7, *, account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    """A ``position_opened``."""
    return {
        "type": "position_opened",
        "position_id": position_id,
        "wallet_pubkey": WALLET,
        "mint": MINT,
        "token_account": account,
        "tokens": 1000,
        "entry_quote_units": 5000,
        "slot": 1,
        **more,
    }


def closed(position_id: int = 7, *, account: str = ACCOUNT, reason: str = "sold") -> dict[str, Any]:
    """A ``position_closed``."""
    return {
        "type": "position_closed",
        "position_id": position_id,
        "wallet_pubkey": WALLET,
        "mint": MINT,
        "token_account": account,
        "reason": reason,
        "slot": 2,
    }


def pnl(position_id: int = 7, profit_units: int = 1) -> dict[str, Any]:
    """A ``pnl_update``."""
    return {
        "type": "pnl_update",
        "position_id": position_id,
        "profit_units": profit_units,
        "proceeds_units": 5000,
        "server_time_ms": 1,
    }


def exit_signal(position_id: int = 7, *, account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    """An ``exit_signal_with_tx``."""
    return {
        "type": "exit_signal_with_tx",
        "session_id": 1,
        "position_id": position_id,
        "wallet_pubkey": WALLET,
        "mint": MINT,
        "token_account": account,
        "position_tokens": 1000,
        "profit_units": 10,
        "reason": "target_profit",
        "triggered_at_ms": 1,
        "unsigned_tx_b64": "AAAA",
        **more,
    }


class Peer:
    """One connection, from the server's side."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        #: From 1, in the order of arrival.
        self.number = number
        #: Every message received, parsed.
        self.received: list[dict[str, Any]] = []

    @property
    def headers(self) -> Any:
        """Of the upgrade request."""
        assert self.connection.request is not None
        return self.connection.request.headers

    def send(self, *messages: dict[str, Any] | str | bytes) -> None:
        """Send messages; a dict as compact JSON, anything else as it is."""
        for message in messages:
            self.connection.send(json.dumps(message, separators=(",", ":")) if isinstance(message, dict) else message)

    def recv(self) -> dict[str, Any]:
        """The next message."""
        message = json.loads(self.connection.recv(timeout=PATIENCE_S))
        self.received.append(message)
        return dict(message)

    def greet(self, **more: Any) -> dict[str, Any]:
        """Take ``configure`` and answer ``hello_ok``; the configure."""
        configure = self.recv()
        self.send(hello(session_id=self.number, **more))
        return configure

    def serve(self) -> None:
        """Record what comes until the client leaves."""
        with contextlib.suppress(ConnectionClosed):
            for text in self.connection:
                self.received.append(json.loads(text))

    def abort(self) -> None:
        """Drop the TCP connection without a close frame."""
        # shutdown, not close: the server's own thread sits in recv on this descriptor and must wake up.
        with contextlib.suppress(OSError):
            self.connection.socket.shutdown(socket.SHUT_RDWR)


Script = Callable[[Peer], None]


def idle(peer: Peer) -> None:
    """The default script: greet, then record."""
    peer.greet()
    peer.serve()


class ScriptedServer:
    """Serves ``ws://127.0.0.1:<port>/v1/ws``; each connection runs the script."""

    def __init__(
        self,
        script: Script = idle,
        *,
        refuse: Callable[[Request], Response | None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.script = script
        #: Every connection's peer, as it arrives.
        self.peers: queue.Queue[Peer] = queue.Queue()
        self.errors: list[BaseException] = []
        self._count = 0
        self._connections: set[ServerConnection] = set()
        self._scheme = "wss" if ssl_context is not None else "ws"
        self._server = serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=(lambda _connection, request: refuse(request)) if refuse is not None else None,
            ssl=ssl_context,
            ping_interval=None,
            close_timeout=1,
            max_size=2**25,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="scripted-server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self.port}/v1/ws"

    def peer(self) -> Peer:
        """The next connection."""
        return self.peers.get(timeout=PATIENCE_S)

    def _handle(self, connection: ServerConnection) -> None:
        self._count += 1
        peer = Peer(connection, self._count)
        self._connections.add(connection)
        self.peers.put(peer)
        try:
            self.script(peer)
        except (ConnectionClosed, OSError):
            pass
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self._connections.discard(connection)

    def stop(self) -> None:
        """Take it and its connections down."""
        self._server.shutdown()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def refusal(status: int, body: str = "", **headers: str) -> Callable[[Request], Response]:
    """A ``refuse`` that answers every upgrade with ``status``."""
    from websockets.datastructures import Headers

    def refuse(_: Request) -> Response:
        data = body.encode()
        fields = Headers({"content-length": str(len(data)), **{k.replace("_", "-"): v for k, v in headers.items()}})
        return Response(status, HTTPStatus(status).phrase, fields, data)

    return refuse


class RawServer:
    """A TCP server whose every connection runs ``script(socket)`` on a thread of its own: for bytes no library sends."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._script = script
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        #: Connections accepted so far.
        self.accepted = 0
        self._acceptor = threading.Thread(target=self._accept, name="raw-server", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}/v1/ws"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._script(sock)

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in [self._acceptor, *self._threads]:
            thread.join(PATIENCE_S)


def upgrade(sock: socket.socket, extra: bytes = b"") -> bytes:
    """Answer a WebSocket upgrade by hand, ``extra`` in the same segment; the request's bytes."""
    import base64
    import hashlib

    request = b""
    while b"\r\n\r\n" not in request:
        chunk = sock.recv(4096)
        if not chunk:
            raise ConnectionResetError("the client left during the upgrade")
        request += chunk
    key = next(
        line.split(b":")[1].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + extra
    )
    return request


def text_frame(message: dict[str, Any] | str) -> bytes:
    """An unmasked text frame, as a server sends it."""
    payload = (json.dumps(message, separators=(",", ":")) if isinstance(message, dict) else message).encode()
    if len(payload) < 126:
        return bytes([0x81, len(payload)]) + payload
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


def drain(get: Callable[[], Any]) -> Iterator[Any]:
    """What ``get`` returns until it raises ``queue.Empty``."""
    with contextlib.suppress(queue.Empty):
        while True:
            yield get()
