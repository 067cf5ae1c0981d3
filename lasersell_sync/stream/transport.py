"""TCP, proxy, TLS and the WebSocket upgrade under one time budget; after that the raw non-blocking socket is ours.

The only importer of websocket-client. It speaks the HTTP upgrade over a socket that we opened, and reads the answer
byte by byte up to the blank line, so a frame sent in the same segment as the 101 is still on the socket for our parser.

Every wait in here ends early when ``close()`` is called, because every wait watches the wake-up descriptor too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import selectors
import socket
import ssl
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import websocket

from lasersell_sync._backend import ReceiveLoop, receive
from lasersell_sync._version import __version__
from lasersell_sync.exceptions import AuthenticationError, HandshakeError, StreamError, TransportError
from lasersell_sync.network import tls
from lasersell_sync.network.http_body import BodyError, decoded_body, text_of
from lasersell_sync.network.proxy import Proxy, TunnelRefused, authority, open_tunnel, preferred_address
from lasersell_sync.network.tcp import tune
from lasersell_sync.network.tls_socket import TlsSocket
from lasersell_sync.retry import parse_retry_after_s
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import scrub, shorten
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.stream.keepalive import kernel_verdict
from lasersell_sync.stream.waiter import Aborted, Address, Waiter, WakeUp, look_up

__all__ = ["Aborted", "Link", "Waiter", "WakeUp", "open_link", "receive_loop_class"]

#: An upgrade's or a proxy's answer is a few hundred bytes; whoever sends more is neither.
MAX_ANSWER_BYTES: Final = 64 * 1024
#: What ``Intake.serve`` returns.
READABLE: Final = 0x1
WRITABLE: Final = 0x4
WOKEN: Final = 0x100
DUE: Final = 0x200
BROKEN: Final = 0x400
STRANGE: Final = 0x800
_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_EMPTY_LINE: Final = b"\r\n\r\n"
#: A shorter key is a word, and taking it out would garble the answer.
_SECRET_BYTES: Final = 8
_INTERIM: Final = re.compile(rb"1[0-9]{2}")


def receive_loop_class() -> type[ReceiveLoop]:
    """What waits for a link: the core's; where ``poll`` is not the system's own, the fallback, which asks Python's."""
    if isinstance(getattr(select, "poll", None), BuiltinFunctionType):
        return ReceiveLoop
    # gevent or eventlet: the system's poll would stop every greenlet. Imported by those alone.
    from lasersell_sync._pure.receive_loop import ReceiveLoop as PatientIntake

    return PatientIntake  # type: ignore[return-value]


class Link:
    """An upgraded connection: a non-blocking socket, plain or TLS.

    Threads: ``recv_into`` by the reader, ``send`` by whoever holds the write lock; the I/O lock serialises the two,
    because an SSL object must not be read and written at once. Neither ever blocks, so the lock is never held long.
    """

    def __init__(self, sock: socket.socket | TlsSocket, endpoint: str) -> None:
        self.endpoint = endpoint
        self._sock = sock
        # Guards every call into the socket.
        self._io_lock = signal_safe_lock()

    def fileno(self) -> int:
        """For selectors; -1 after ``close``."""
        return self._sock.fileno()

    def recv_into(self, buffer: memoryview) -> int | None:
        """Bytes read; 0 when the peer has ended the connection; None when there is nothing now.

        Raises:
            OSError: the link is broken.
        """
        with self._io_lock:
            try:
                if isinstance(self._sock, TlsSocket):
                    return self._sock.recv_into(buffer)
                return receive(self._sock.fileno(), buffer)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None

    def send(self, data: memoryview) -> int:
        """Bytes taken; 0 when the link takes none now.

        Raises:
            OSError: the link is broken.
        """
        with self._io_lock:
            try:
                return self._sock.send(data)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0

    @property
    def plain(self) -> socket.socket | None:
        """The socket, when nothing lies between it and the frames."""
        return None if isinstance(self._sock, TlsSocket) else self._sock

    def kernel_verdict(self, *, unacknowledged_is_dead: bool) -> str | None:
        """Why the connection is dead, as far as the kernel knows; what has arrived stays to be read."""
        sock = self._sock.below if isinstance(self._sock, TlsSocket) else self._sock
        with self._io_lock:
            return kernel_verdict(sock, unacknowledged_is_dead=unacknowledged_is_dead)

    @property
    def more(self) -> bool:
        """True when bytes wait that ``select`` knows nothing of, because they have left the socket."""
        return isinstance(self._sock, TlsSocket) and self._sock.more

    @property
    def unsent_bytes(self) -> int:
        """Bytes that ``send`` took and the socket has not; ``flush`` sends them."""
        return self._sock.unsent_bytes if isinstance(self._sock, TlsSocket) else 0

    def flush(self) -> None:
        """Send what ``send`` took, as far as the socket takes it.

        Raises:
            OSError: the link is broken.
        """
        if isinstance(self._sock, TlsSocket):
            with self._io_lock, contextlib.suppress(ssl.SSLWantWriteError):
                self._sock.flush()

    def close(self) -> None:
        """Take the socket down at once; idempotent."""
        with self._io_lock:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()

    def let_go(self) -> None:
        """In a forked child: close its copy of the descriptor, and leave the connection to the parent.

        Nothing is shut down and no lock is taken: a thread of the parent's may hold it.
        """
        self._sock.close()


def open_link(
    url: str,
    api_key: str,
    *,
    ssl_context: ssl.SSLContext | None,
    budget: TimeBudget,
    waiter: Waiter,
    proxy: Proxy | None = None,
    pins: Sequence[str] = (),
) -> Link:
    """Connect, secure and upgrade.

    Args:
        url: ``ws://`` or ``wss://``.
        api_key: sent with the upgrade, not before.
        ssl_context: for ``wss``; None for the default authorities.
        budget: bounds all of it.
        waiter: ends every wait early when ``close()`` is called.
        proxy: through which the target is reached; None for directly.
        pins: keys of which one must be in the verified chain (``wss``); none for any.

    Raises:
        TransportError: no server was reached within the budget.
        AuthenticationError: 401 or 403.
        HandshakeError: any other answer but 101, a redirect among them: the key goes to no second host.
        Aborted: ``close()`` was called.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    endpoint = authority(host, port)
    try:
        return _open_link(parts, api_key, host, port, ssl_context, budget, waiter, proxy, pins)
    except StreamError:
        raise
    except (OSError, MemoryError) as error:
        # Descriptors, buffers or memory are short. It passes, like a network that is down.
        raise TransportError("tcp", endpoint, _shortage(error)) from error


def _shortage(error: OSError | MemoryError) -> str:
    words = "out of memory" if isinstance(error, MemoryError) else (error.strerror or str(error)).lower()
    remedy = "; raise the limit (ulimit -n), or close what is not needed"
    return words + (remedy if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) else "")


def _open_link(
    parts: SplitResult,
    api_key: str,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    budget: TimeBudget,
    waiter: Waiter,
    proxy: Proxy | None,
    pins: Sequence[str],
) -> Link:
    endpoint = authority(host, port)
    sock: socket.socket | TlsSocket
    if proxy is None:
        sock = _connect_any(look_up(host, port, endpoint, budget, waiter), endpoint, budget, waiter)
    else:
        sock = _connect_through(proxy, host, port, budget, waiter)
    try:
        if parts.scheme == "wss":
            sock = secured = _secure(sock, host, endpoint, ssl_context or tls.client_context(), budget, waiter)
            _check_pins(secured, endpoint, pins)
        _upgrade(_UpgradeSocket(sock, budget, waiter, api_key), parts.geturl(), api_key, endpoint)
    except BaseException:
        sock.close()
        raise
    return Link(sock, endpoint)


# ── TCP ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _connect_any(addresses: list[Address], endpoint: str, budget: TimeBudget, waiter: Waiter) -> socket.socket:
    """A connected non-blocking socket to the first address that answers; each gets a fair share of what is left."""
    problem: Exception = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        left_s = budget.remaining_s()
        share = TimeBudget(None if left_s is None else left_s / (len(addresses) - index))
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a machine without IPv6, say
            problem = error
            continue
        try:
            _connect_one(sock, address, share, waiter)
        except (OSError, TimeoutError) as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(problem, TimeoutError):
        raise TransportError("tcp", endpoint, "no answer in time; is the host right, and does a firewall drop it?")
    reason = os.strerror(problem.errno) if isinstance(problem, OSError) and problem.errno else str(problem)
    raise TransportError("tcp", endpoint, reason.lower()) from problem


def _connect_one(sock: socket.socket, address: Any, budget: TimeBudget, waiter: Waiter) -> None:
    sock.settimeout(0)
    tune(sock)
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)
        return
    waiter.wait(sock, selectors.EVENT_WRITE, budget)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


# ── proxy ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _connect_through(proxy: Proxy, host: str, port: int, budget: TimeBudget, waiter: Waiter) -> socket.socket:
    """A connected non-blocking socket whose other end is the target, by way of the proxy."""
    if not proxy.resolves_names:
        host = preferred_address(look_up(host, port, authority(host, port), budget, waiter))
    try:
        addresses = look_up(proxy.host, proxy.port, proxy.shown, budget, waiter)
        sock = _connect_any(addresses, proxy.shown, budget, waiter)
    except TransportError as error:
        raise TransportError("proxy", proxy.shown, f"it was not reached: {error.problem}") from error.__cause__
    try:
        open_tunnel(proxy, _BudgetedSocket(sock, budget, waiter), host, port)
    except BaseException as error:
        sock.close()
        problem = _tunnel_problem(error)
        if problem is None:
            raise
    else:
        return sock
    # Out here, so that nothing the proxy or its library said hangs on the error as its context.
    raise TransportError("proxy", proxy.shown, problem)


def _tunnel_problem(error: BaseException) -> str | None:
    """What stopped the dialogue with the proxy; None for what is not the network's doing."""
    if isinstance(error, TunnelRefused):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not open the connection in time"
    if isinstance(error, OSError):
        return f"it broke the connection off: {(error.strerror or 'no reason given').lower()}"
    return None


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _secure(
    sock: socket.socket, host: str, endpoint: str, context: ssl.SSLContext, budget: TimeBudget, waiter: Waiter
) -> TlsSocket:
    # The dot that ends a name is for the resolver; no certificate has it.
    secured = TlsSocket(sock, context, host.rstrip("."))
    try:
        _shake_hands(secured, budget, waiter)
    except TimeoutError:
        secured.close()
        raise TransportError(
            "tls", endpoint, "the handshake did not end in time; does a TLS server listen there?"
        ) from None
    except OSError as error:
        secured.close()
        raise TransportError("tls", endpoint, f"{tls.describe(error)}; the key was not sent") from error
    except BaseException:
        secured.close()
        raise
    return secured


def _shake_hands(secured: TlsSocket, budget: TimeBudget, waiter: Waiter) -> None:
    while True:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            waiter.wait(secured, selectors.EVENT_READ, budget)
        except ssl.SSLWantWriteError:
            waiter.wait(secured, selectors.EVENT_WRITE, budget)
        else:
            return


def _check_pins(secured: TlsSocket, endpoint: str, pins: Sequence[str]) -> None:
    if not pins:
        return
    try:
        tls.check_pins(secured.tls, pins)
    except tls.PinMismatch as mismatch:
        raise TransportError("tls", endpoint, f"{mismatch}; the key was not sent") from None


# ── the upgrade ──────────────────────────────────────────────────────────────────────────────────────────────────


class _BudgetedSocket:
    """A socket whose every call stays within one budget, for those who talk before the stream does.

    These are the dialogue with a proxy, and websocket-client during the upgrade. On its own the latter counts a
    time-out per byte read, so a server that sends one byte a second would hold it for minutes.
    """

    def __init__(self, sock: socket.socket | TlsSocket, budget: TimeBudget, waiter: Waiter) -> None:
        self._sock = sock
        self._budget = budget
        self._waiter = waiter
        self._bytes_left = MAX_ANSWER_BYTES

    def recv(self, size: int) -> bytes:
        if self._bytes_left <= 0:
            raise OSError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        data: bytes = self._when_ready(selectors.EVENT_READ, self._sock.recv, min(size, self._bytes_left))
        self._bytes_left -= len(data)
        return data

    def send(self, data: bytes) -> int:
        # websocket-client does not send the rest after a short write.
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            sent += self._when_ready(selectors.EVENT_WRITE, self._sock.send, data[sent:])
        if isinstance(self._sock, TlsSocket):
            self._when_ready(selectors.EVENT_WRITE, self._sock.flush)

    def _when_ready(self, direction: int, call: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                return call(*arguments)
            except ssl.SSLWantWriteError:
                self._waiter.wait(self._sock, selectors.EVENT_WRITE, self._budget)
            except ssl.SSLWantReadError:
                self._waiter.wait(self._sock, selectors.EVENT_READ, self._budget)
            except BlockingIOError:
                self._waiter.wait(self._sock, direction, self._budget)

    def gettimeout(self) -> float:
        # Zero: websocket-client then makes one plain call and leaves the waiting to us.
        return 0.0

    def settimeout(self, timeout_s: float | None) -> None:
        """The budget rules; websocket-client's own setting is ignored."""

    def close(self) -> None:
        self._sock.close()

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def fileno(self) -> int:
        return self._sock.fileno()


class _UpgradeSocket(_BudgetedSocket):
    """Stands between websocket-client and the server during the upgrade.

    websocket-client logs what it sends and receives (``websocket.enableTrace``), keeps cookies for all connections of
    the process, and takes the first answer for the last one. So the key joins the request here, cookies are taken out
    of requests and answers, and every 1xx before the answer is read past.
    """

    def __init__(self, sock: socket.socket | TlsSocket, budget: TimeBudget, waiter: Waiter, api_key: str) -> None:
        super().__init__(sock, budget, waiter)
        self._api_key = api_key.encode("ascii")
        self._asked = False
        #: The answer's head, as far as websocket-client has not read it; None before it has come.
        self._head: bytes | None = None

    def sendall(self, data: bytes) -> None:
        if not self._asked:
            self._asked = True
            lines = [line for line in data.removesuffix(_EMPTY_LINE).split(b"\r\n") if not _is_field(line, b"cookie")]
            data = b"\r\n".join([*lines, b"x-api-key: " + self._api_key]) + _EMPTY_LINE
        super().sendall(data)

    def recv(self, size: int) -> bytes:
        if self._head is None:
            self._head = self._final_head()
        if not self._head:
            return super().recv(size)
        data, self._head = self._head[:size], self._head[size:]
        return data

    def _final_head(self) -> bytes:
        """The first head that is not an interim answer's, without cookies and without the key that it may quote."""
        while True:
            head = self._read_head()
            status = head.split(None, 2)[1:2] if head.startswith(b"HTTP/") else []
            if not status or status[0] == b"101" or not _INTERIM.fullmatch(status[0]):
                lines = [line for line in head.splitlines(keepends=True) if not _is_field(line, b"set-cookie")]
                final = b"".join(lines)
                return final.replace(self._api_key, b"[redacted]") if len(self._api_key) >= _SECRET_BYTES else final

    def _read_head(self) -> bytes:
        """Up to its empty line, or to the end of the connection. Byte by byte: frames may follow it."""
        head = bytearray()
        while not head.endswith((_EMPTY_LINE, b"\n\n")):
            byte = super().recv(1)
            if not byte:
                break
            head += byte
        return bytes(head)


def _is_field(line: bytes, name: bytes) -> bool:
    return line.partition(b":")[0].strip().lower() == name


def _upgrade(sock: _UpgradeSocket, url: str, api_key: str, endpoint: str) -> None:
    """Send the upgrade and accept nothing but 101. Every error of websocket-client's is translated here."""
    client = websocket.WebSocket()
    try:
        client.connect(  # type: ignore[no-untyped-call]
            url,
            socket=sock,
            header=[f"User-Agent: lasersell-sync/{__version__}"],
            host=_host_header(url),
            suppress_origin=True,
            # Both it and HTTP libraries would hand the key to the next host.
            redirect_limit=0,
        )
    except websocket.WebSocketBadStatusException as error:
        raise _refused(error.status_code, error.resp_headers or {}, error.resp_body, url, api_key) from None
    except (TimeoutError, websocket.WebSocketTimeoutException):
        raise TransportError("upgrade", endpoint, "no answer to the upgrade in time") from None
    except websocket.WebSocketConnectionClosedException:
        raise TransportError("upgrade", endpoint, "the server ended the connection during the upgrade") from None
    except (OSError, ssl.SSLError) as error:
        raise TransportError("upgrade", endpoint, scrub(str(error), api_key)) from None
    except Aborted:
        raise
    except Exception as error:  # noqa: BLE001 - garbage makes its header parser raise whatever it meets first
        _require_101(client, url, api_key)
        raise HandshakeError(
            f"the answer to the upgrade is not a WebSocket server's: {shorten(scrub(str(error), api_key))}"
        ) from None
    _require_101(client, url, api_key)
    _refuse_unasked(client)


def _host_header(url: str) -> str:
    """The name as the server knows it: without the dot that ends it and the zone of an address (for the resolver)."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").partition("%")[0]
    port = parts.port
    if port is None or port == _DEFAULT_PORTS[parts.scheme]:
        return f"[{host}]" if ":" in host else host
    return authority(host, port)


def _refuse_unasked(client: websocket.WebSocket) -> None:
    """An extension or protocol that was not asked for changes what the frames mean (RFC 6455 4.1).

    Raises:
        HandshakeError: the answer names one.
    """
    response = client.handshake_response
    headers = {} if response is None else response.headers
    for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
        if name in headers:
            raise HandshakeError(
                f"the server answers with {name}, which was not asked for; is something on the way changing headers?",
                status=101,
            )


def _require_101(client: websocket.WebSocket, url: str, api_key: str) -> None:
    """Some versions of websocket-client raise for a redirect that is not followed, some return as if all were well."""
    response = client.handshake_response
    if response is not None and response.status != 101:
        raise _refused(response.status, response.headers, None, url, api_key)


_STREAM_PATH = "/v1/ws"
#: What a web server answers at a path where there is no stream.
_NO_STREAM_STATUS = {200, 404, 405, 410, 426}


def _refused(status: int, headers: dict[str, str], body: bytes | None, url: str, api_key: str) -> HandshakeError:
    """The error for an upgrade that was answered with something other than 101."""
    code, message = _error_body(body, headers.get("content-encoding", ""))
    message = shorten(scrub(message, api_key))
    if status in (401, 403):
        return AuthenticationError(message or "the server refused the key", code=code, status=status)
    if 300 <= status < 400:
        target = scrub(_host_of(headers.get("location", "")), api_key)
        return HandshakeError(
            f"the server redirects to {target}; redirects are not followed, because the API key would go "
            "along: set the final URL as the endpoint",
            status=status,
        )
    if status in _NO_STREAM_STATUS:
        parts = urlsplit(url)
        place = scrub(shorten(f"{parts.scheme}://{parts.netloc}{parts.path or '/'}"), api_key)
        words = f" ({message})" if message else ""
        message = (
            f"there is no stream at {place}{words}. Check host and path of the endpoint; the service's path is "
            f"{_STREAM_PATH}: StreamClient.with_endpoint('{parts.scheme}://{parts.netloc}{_STREAM_PATH}')"
        )
    return HandshakeError(
        message or "the server refused the upgrade",
        code=code,
        status=status,
        retry_after_s=parse_retry_after_s(headers.get("retry-after", "")),
    )


def _host_of(location: str) -> str:
    """The host of a Location header, which may hold anything; its path and query may hold secrets."""
    try:
        return shorten(urlsplit(location).hostname or "another place")
    except ValueError:
        return "something that is not a URL"


def _error_body(body: bytes | None, content_encoding: str = "") -> tuple[str | None, str]:
    """(code, message) of a JSON error body, or (None, the body's text)."""
    if not body:
        return None, ""
    try:
        text = text_of(decoded_body(body, content_encoding, MAX_ANSWER_BYTES))
    except BodyError:
        return None, ""
    try:
        parsed = json.loads(text)
    except ValueError:
        return None, text
    if not isinstance(parsed, dict):
        return None, text
    words = [parsed.get(name) for name in ("message", "error", "reason")]
    code = parsed.get("code")
    return code if isinstance(code, str) else None, next((word for word in words if isinstance(word, str)), text)
