"""The WebSocket upgrade on the wire: interim answers, answers nobody asked for, cookies, traces, names."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import websocket

from lasersell_sync import (
    AuthenticationError,
    ConnectionState,
    HandshakeError,
    HelloOk,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamConnection,
    StreamOptions,
    TransportError,
)
from tests.support.http_server import trusting_context
from tests.support.stream_server import PATIENCE_S, WALLET, RawServer, ScriptedServer, hello, text_frame

KEY = "canary-key-0123456789"
CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0))


def connect(url: str, key: str = KEY, **options: object) -> StreamConnection:
    return StreamClient(key, options=StreamOptions(**options)).with_endpoint(url).connect(CONFIGURE)  # type: ignore[arg-type]


def read_request(sock: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        chunk = sock.recv(4096)
        if not chunk:
            raise ConnectionResetError
        request += chunk
    return request


def accept(request: bytes, extra: bytes = b"") -> bytes:
    """The 101 for this request, with more header lines."""
    import base64
    import hashlib

    key = next(
        line.split(b":")[1].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    digest = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + digest + b"\r\n" + extra + b"\r\n"
    )


class Upgrades:
    """A raw server that answers each upgrade with ``before``, the 101 with ``extra``, and ``hello_ok`` at once."""

    def __init__(self, before: bytes = b"", extra: bytes = b"", *, refuse: bytes | None = None) -> None:
        self.requests: list[bytes] = []
        self._before, self._extra, self._refuse = before, extra, refuse
        self._let_go = threading.Event()
        self._server = RawServer(self._serve)
        self.url = self._server.url

    def _serve(self, sock: socket.socket) -> None:
        request = read_request(sock)
        self.requests.append(request)
        if self._refuse is not None:
            sock.sendall(self._before + self._refuse)
            return
        sock.sendall(self._before + accept(request, self._extra) + text_frame(hello()))
        while sock.recv(65536):
            pass

    def __enter__(self) -> Upgrades:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
INTERIM = [
    EARLY,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    EARLY * 5,
    b"HTTP/1.1 102 Processing\n\n",
    b"HTTP/1.1 199 Odd\r\n\r\n",
]


@pytest.mark.parametrize("interim", INTERIM)
def test_interim_answers_before_the_101_are_read_past(interim: bytes) -> None:
    """And the frame in the same segment as the 101 still arrives."""
    with Upgrades(interim) as server, connect(server.url) as connection:
        assert isinstance(connection.recv(timeout=PATIENCE_S), HelloOk)
        assert connection.status is ConnectionState.LIVE


def test_interim_answer_before_a_refusal_leaves_the_refusal() -> None:
    """401 behind a 103 is still a refused key."""
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 20\r\n\r\n" + b'{"message":"no key"}'
    with Upgrades(EARLY, refuse=refusal) as server, pytest.raises(AuthenticationError, match="no key"):
        connect(server.url)


def test_interim_answers_without_end_are_no_upgrade() -> None:
    """Bounded in bytes, so that a server cannot hold the attempt for as long as it likes."""
    with Upgrades(EARLY * 2000) as server, pytest.raises(TransportError, match="longer than"):
        connect(server.url)


@pytest.mark.parametrize(
    "extra",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
        b"sec-websocket-protocol: chat\r\n",
        b"Sec-WebSocket-Protocol:\r\n",
    ],
)
def test_101_with_an_extension_or_protocol_that_was_not_asked_for_fails(extra: bytes) -> None:
    """The frames would mean something else than we read in them (RFC 6455 4.1)."""
    with Upgrades(extra=extra) as server, pytest.raises(HandshakeError, match="not asked for"):
        connect(server.url)


def test_refusals_words_with_gzip_and_bom_are_read() -> None:
    """The server's own words, whatever a CDN made of them."""
    body = gzip.compress(b"\xef\xbb\xbf" + json.dumps({"code": "maintenance", "message": "back at ten"}).encode())
    head = b"HTTP/1.1 503 Busy\r\nContent-Encoding: gzip\r\nRetry-After: 1.5\r\nContent-Length: %d\r\n\r\n" % len(body)
    with Upgrades(refuse=head + body) as server, pytest.raises(HandshakeError, match="back at ten") as caught:
        connect(server.url)
    assert (caught.value.code, caught.value.retry_after_s) == ("maintenance", 1.5)


# ── cookies and traces ──


def test_cookies_of_a_server_are_neither_kept_nor_sent() -> None:
    """websocket-client keeps one jar for the process: it would tie one key's connections to another's."""
    cookie = b"Set-Cookie: session=canary; Domain=127.0.0.1; Path=/\r\nset-cookie: b=2; Domain=localhost\r\n"
    with Upgrades(extra=cookie) as server:
        for key in ("first", "second"):
            connect(server.url, key).close()
        assert len(server.requests) == 2
        assert not any(b"cookie" in request.lower() for request in server.requests)
    assert not websocket._handshake.CookieJar.get("127.0.0.1")
    assert not websocket._handshake.CookieJar.get("localhost")


def test_cookie_that_another_user_of_websocket_client_left_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jar belongs to the whole process."""
    jar = type(websocket._handshake.CookieJar)()
    jar.add("theirs=1; Domain=127.0.0.1")
    assert jar.get("127.0.0.1")
    monkeypatch.setattr(websocket._handshake, "CookieJar", jar)
    with Upgrades() as server:
        connect(server.url).close()
        assert b"theirs" not in server.requests[0]
        assert f"\r\nx-api-key: {KEY}\r\n".encode() in server.requests[0]


@pytest.fixture
def traced() -> Iterator[list[str]]:
    """Everything that websocket-client logs with its trace switched on."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    websocket.enableTrace(True, handler=Handler())
    yield lines
    websocket.enableTrace(False)
    logging.getLogger("websocket").handlers.clear()


def test_trace_of_websocket_client_never_has_the_key(traced: list[str]) -> None:
    """Neither what is sent nor an answer that quotes it."""
    with Upgrades(extra=f"X-Echo: {KEY}\r\n".encode()) as server:
        connect(server.url).close()
        assert KEY.encode() in server.requests[0]
    quoting = f"HTTP/1.1 403 {KEY}\r\nX-Echo: {KEY}\r\nContent-Length: {len(KEY)}\r\n\r\n{KEY}".encode()
    with Upgrades(refuse=quoting) as server, pytest.raises(AuthenticationError) as caught:
        connect(server.url)
    assert KEY not in str(caught.value)
    assert any("GET /v1/ws" in line for line in traced), traced
    assert not any(KEY in line for line in traced)


@pytest.mark.parametrize("key", ["k", "b", "a", "1", "101", "webs"])
def test_short_key_garbles_no_answer(key: str) -> None:
    """A key that is a piece of every answer is not taken out of it."""
    with Upgrades() as server, connect(server.url, key) as connection:
        assert connection.status is ConnectionState.LIVE


# ── names ──


def test_host_with_a_dot_at_its_end_is_checked_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """``wss://host.`` is the same host: its certificate names it without the dot, and so does the Host header."""
    names: list[str | None] = []
    real = ssl.SSLContext.wrap_bio

    def wrap(self: ssl.SSLContext, *args: object, server_hostname: str | None = None, **options: object) -> object:
        names.append(server_hostname)
        return real(self, *args, server_hostname=server_hostname, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", wrap)
    look_up = socket.getaddrinfo
    # Not every resolver knows this name, with its dot.
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *args, **options: look_up(host.rstrip("."), *args, **options)
    )
    from tests.support.http_server import _server_context

    with ScriptedServer(ssl_context=_server_context()) as server:
        url = server.url.replace("127.0.0.1", "localhost.")
        with connect(url, ssl_context=trusting_context()) as connection:
            assert connection.status is ConnectionState.LIVE
            assert server.peer().headers["host"] == f"localhost:{server.port}"
    assert names == ["localhost"]


def test_socket_of_a_missing_address_family_goes_on_to_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 whose resolver names IPv6 addresses first."""
    real_socket = socket.socket

    def make(family: int = socket.AF_INET, *args: object, **options: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real_socket(family, *args, **options)  # type: ignore[arg-type]

    from lasersell_sync.stream import transport

    real_look_up = transport.look_up
    v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0))
    monkeypatch.setattr(transport, "look_up", lambda *args: [v6, *real_look_up(*args)])
    with ScriptedServer() as server:
        monkeypatch.setattr(socket, "socket", make)
        with contextlib.closing(connect(server.url)) as connection:
            assert connection.status is ConnectionState.LIVE
        monkeypatch.undo()
