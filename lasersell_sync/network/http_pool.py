"""HTTP requests over kept-alive connections to one origin; the only importer of urllib3.

urllib3 keeps connections, does TLS and reads HTTP/1.1. What is ours: a request leaves in one write, no redirect is
followed (the API key would travel to the next host), proxies are spoken to as in the stream (``network.proxy``),
urllib3's own retries are off (``retry`` decides), one time limit covers headers and body together, a body has a maximum
size, and every failure becomes one ``HttpFailure`` that knows whether the request may have reached the server.

Importing urllib3 costs more than the rest of the client, so this module is imported on first use, inside functions.
"""

from __future__ import annotations

import contextvars
import http.client
import io
import math
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import urllib3.connection
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPSConnectionPool
from urllib3 import exceptions as urllib3_errors
from urllib3.response import HTTPResponse
from urllib3.util import Retry

from lasersell_sync._version import __version__
from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.network import tls
from lasersell_sync.network.http_body import BodyError, decoded_body
from lasersell_sync.network.http_endpoint import Endpoint, Route
from lasersell_sync.network.http_framing import HttpAnswer, HttpFailure
from lasersell_sync.network.proxy import Proxy, TunnelRefused, open_tunnel, preferred_address
from lasersell_sync.network.tcp import tune
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.timeouts import TimeBudget

if TYPE_CHECKING:
    _Connection = urllib3.connection.HTTPConnection
else:
    _Connection = object  # the mix-in below sits before a urllib3 class

logger = _log.logger("trading")

#: Far above any answer of these services (docs/protocol.md 7, 9), far below what hurts.
MAX_BODY_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
#: Connections that are kept to one origin, as many as a sender may use; more work too, and are closed after use.
_KEPT_CONNECTIONS = 256
_WARM_S = 2.0
#: 100 and 102 may be repeated while a server works; one that sends more of them answers nothing.
_MOST_INTERIM_ANSWERS = 64
_DIRECT = Route()
#: Without a body they say nothing of its length (RFC 9110 8.6).
_BODILESS = frozenset({"GET", "HEAD", "DELETE"})
#: ``retry`` decides.
_NO_RETRIES = Retry(total=False, redirect=False)
_NO_HEADERS: dict[str, str] = {}


# ── one attempt, as urllib3's connection sees it ─────────────────────────────────────────────────────────────────


class _Attempt:
    """What one request needs to know below urllib3's pool, and what is learned there."""

    __slots__ = ("budget", "left_over", "method", "sent", "step_s", "wire")

    def __init__(self, method: str, wire: bytes, budget: TimeBudget, step_s: float) -> None:
        self.method = method
        #: The whole request: head and body.
        self.wire = wire
        self.budget = budget
        #: For each of: TCP to one address, the TLS handshake, sending the request.
        self.step_s = step_s
        self.sent = False
        #: Bytes came that are not part of the answer: the next request on this connection could take them for its own.
        self.left_over = False


# The attempt goes beside urllib3, which copies headers and logs URLs on the way down. The connection works on the
# thread that called the pool, so a context variable reaches it and no other request.
_attempt: contextvars.ContextVar[_Attempt] = contextvars.ContextVar("lasersell_sync_http_attempt")


class _BudgetedReader(io.RawIOBase):
    """A socket's bytes, each wait bounded by what is left of the attempt.

    A socket's own timeout starts anew with every byte, so a server that trickles could hold a caller for ever.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, budget: TimeBudget) -> None:
        self._sock = sock
        self._raw = raw
        self._budget = budget
        #: The answer is complete: what the buffer above holds is all that may still be looked at.
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.ended:
            return 0
        left_s = _left_s(self._budget)
        if left_s is not None:
            self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BudgetedResponse(http.client.HTTPResponse):
    """http.client's answer, reading status line, headers and body through a ``_BudgetedReader``.

    It reads past every 1xx: http.client does so with 100 alone, and would hand out a 103 as the answer, whose real one
    the next request on the connection would then get. It notes bytes that follow the answer.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        plain: Any = self.fp  # a BufferedReader over the socket, still empty
        self._attempt = _attempt.get()
        self._budgeted = _BudgetedReader(sock, plain.detach(), self._attempt.budget)
        self.fp = io.BufferedReader(self._budgeted)

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM_ANSWERS):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200:
                return version, status, reason
            if status == http.client.SWITCHING_PROTOCOLS:
                break
            http.client.parse_headers(self.fp)
        raise http.client.UnknownProtocol("interim answers without end, or another protocol")

    def begin(self) -> None:
        super().begin()
        if self.chunked and "content-length" in self.headers:
            # Two lengths (RFC 9112 6.3): who wrote the second one may read the connection otherwise than we do.
            self._attempt.left_over = True
        if self.status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) and self._names_a_body():
            self._attempt.left_over = True

    def _names_a_body(self) -> bool:
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0").strip() != "0"

    def _close_conn(self) -> None:
        self._budgeted.ended = True
        if self.fp is not None and not self.fp.closed and self.fp.peek(1):
            self._attempt.left_over = True
        super()._close_conn()  # type: ignore[misc]


class _HeldResponse(HTTPResponse):
    """urllib3's answer, whose connection goes back to the pool by ``give_back`` only.

    urllib3 gives it back with the body's last byte, before anyone has looked at what came.
    """

    def release_conn(self) -> None:
        """Not yet."""

    def give_back(self, *, reusable: bool) -> None:
        """To the pool; closed when the rest of this answer, or another one, may still be on the wire."""
        connection = self.connection
        if not reusable:
            self.close()
            if connection is not None:
                connection.close()
        super().release_conn()


class _AttemptConnection(_Connection):
    """Mix-in for urllib3's connections: goes through a proxy, sends the attempt's bytes, notes when they may have left.

    urllib3 and http.client build a request's head line by line and send the body after it. Here it is written as a
    whole, ready-made: one system call and one TLS record, and none of the building while a sale waits.
    """

    def __init__(self, *args: Any, through: Proxy | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._through = through

    def _new_conn(self) -> socket.socket:
        attempt = _attempt.get()
        budget, patience_s = attempt.budget, attempt.step_s
        if self._through is None:
            try:
                sock = _connect_any(self.host, self.port or self.default_port, patience_s, budget)
            except socket.gaierror as error:
                raise urllib3_errors.NameResolutionError(self.host, self, error) from error
            except TimeoutError as error:
                raise urllib3_errors.ConnectTimeoutError(self, "no connection in time") from error
            except OSError as error:
                raise urllib3_errors.NewConnectionError(self, "no connection") from error
        else:
            sock = _connect_through(self._through, self.host, self.port or self.default_port, patience_s, budget)
        sock.settimeout(patience_s)  # for the TLS handshake
        return sock

    def request(self, *_: Any, **__: Any) -> None:
        if self.sock is None:
            self.connect()
        attempt = _attempt.get()
        self.sock.settimeout(attempt.step_s)
        attempt.sent = True
        self.sock.sendall(attempt.wire)

    def getresponse(self) -> _HeldResponse:  # type: ignore[override] # as urllib3's own
        answer, response = _response_on(self.sock)
        if answer.will_close:
            self.close()  # the answer keeps the socket open until it is read
        return response


def _response_on(sock: Any) -> tuple[_BudgetedResponse, _HeldResponse]:
    """The answer to the attempt, its head read; its body comes from ``sock``."""
    method = _attempt.get().method
    answer = _BudgetedResponse(sock, method=method)
    try:
        answer.begin()
    except BaseException:
        answer.close()
        raise
    return answer, _HeldResponse(
        answer,
        headers=HTTPHeaderDict(answer.headers.items()),
        status=answer.status,
        preload_content=False,
        decode_content=False,
        original_response=answer,
        request_method=method,
    )


class _Received:
    """Bytes that arrived already, where http.client expects the socket that they came from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))


# urllib3 gives every address the whole time-out, so that a name with several dead ones exceeds any limit.
def _connect_any(host: str, port: int, patience_s: float, budget: TimeBudget) -> socket.socket:
    """A socket to the first address that answers; each gets a fair share of what is left, at most ``patience_s``."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem = OSError("the name has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        share_s = (_left_s(budget) or math.inf) / (len(addresses) - index)
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a machine without IPv6, say
            problem = error
            continue
        try:
            tune(sock)
            sock.settimeout(min(share_s, patience_s))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem


class _ProxyFailed(urllib3_errors.HTTPError):
    """No way through the proxy; its text is ours and ready to be shown."""


# urllib3's own support would need a second SOCKS library, tells a wrong password only as a text, and bounds each read
# of the proxy's answer instead of all of them.
def _connect_through(proxy: Proxy, host: str, port: int, patience_s: float, budget: TimeBudget) -> socket.socket:
    """A socket whose other end is the target, by way of the proxy, within what is left of the attempt."""
    try:
        sock = _connect_any(proxy.host, proxy.port, patience_s, budget)
    except OSError as error:
        reason = "no connection in time" if isinstance(error, TimeoutError) else error.strerror or "no connection"
        raise _ProxyFailed(f"the proxy {proxy.shown} was not reached: {reason.lower()}") from error
    try:
        if not proxy.resolves_names:
            host = preferred_address(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        open_tunnel(proxy, _BlockingChannel(sock, budget), host, port)
    except TunnelRefused as refusal:
        problem = str(refusal)
    except socket.gaierror:
        problem = "the target's name could not be resolved here (socks5h:// leaves that to the proxy)"
    except TimeoutError:
        problem = "it did not open the connection in time"
    except OSError as error:
        problem = f"it broke the connection off: {(error.strerror or 'no reason given').lower()}"
    except BaseException:
        sock.close()
        raise
    else:
        return sock
    sock.close()
    # Out here, so that nothing the proxy or its library said hangs on the error as its context.
    raise _ProxyFailed(f"the proxy {proxy.shown} failed: {problem}")


class _BlockingChannel:
    """The socket to a proxy, each call bounded by what is left of the attempt."""

    def __init__(self, sock: socket.socket, budget: TimeBudget) -> None:
        self._sock = sock
        self._budget = budget

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left_s(self._budget))
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(_left_s(self._budget))
        return self._sock.recv(size)

    def close(self) -> None:
        self._sock.close()


def _left_s(budget: TimeBudget) -> float | None:
    left_s = budget.remaining_s()
    if left_s is not None and left_s <= 0:  # 0 would mean "do not wait at all" to the socket
        raise TimeoutError("the attempt's time is over")
    return left_s


class _PlainConnection(_AttemptConnection, urllib3.connection.HTTPConnection):
    pass


class _TlsConnection(_AttemptConnection, urllib3.connection.HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────────


class HttpPool:
    """Kept-alive connections to one origin.

    Args:
        endpoint: the origin (its target is not used).
        connect_timeout_s: seconds for each of: TCP to one address, the TLS handshake, sending the request.
        attempt_timeout_s: seconds for one request from its start to the last byte of the answer; a host with several
            dead addresses stays within it. It does **not** bound the look-up of the host's name, which no one can
            interrupt, nor does it cut short a TLS handshake (``connect_timeout_s``).
        max_body_bytes: a longer answer is an error.
        route: through whom, and with whose authorities. The dialogue with a proxy, which connects to the endpoint
            meanwhile, has what is left of the attempt's time.
        ssl_context: for TLS, in place of the route's authorities.

    Nothing is opened before the first request. After ``fork()`` the child opens connections of its own; the parent's
    are not touched.

    Threads: any, except that nobody should use it after ``close()``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float,
        attempt_timeout_s: float,
        max_body_bytes: int = MAX_BODY_BYTES,
        route: Route = _DIRECT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._route = route
        self._connect_timeout_s = connect_timeout_s
        self._attempt_timeout_s = attempt_timeout_s
        self._max_body_bytes = max_body_bytes
        self._common_head = _common_head(endpoint)
        # One context for all connections: loading the authorities costs milliseconds each time.
        if ssl_context is None and endpoint.scheme == "https":
            ssl_context = tls.client_context(route.ca_file)
        self._ssl_context = ssl_context
        self._pool = self._new_pool()
        self._pid = os.getpid()
        self._closed = False

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        connect_timeout_s: float | None = None,
        attempt_timeout_s: float | None = None,
        is_expected: Callable[[HttpAnswer], bool] | None = None,
    ) -> HttpAnswer:
        """One attempt, and the whole answer of it.

        Args:
            method: GET, POST, DELETE.
            target: path and query.
            headers: beside User-Agent and the framing ones. They are never logged.
            body: bytes, or None.
            connect_timeout_s: in place of the pool's.
            attempt_timeout_s: in place of the pool's.
            is_expected: False for an answer that belongs to another request: its connection is not used again.

        Raises:
            HttpFailure: no usable answer; a redirect, too.
            ConcurrencyError: the pool is closed.
        """
        limit_s = self._attempt_timeout_s if attempt_timeout_s is None else attempt_timeout_s
        connect_s = self._connect_timeout_s if connect_timeout_s is None else connect_timeout_s
        wire = self.wire(method, target, headers or {}, body)
        attempt = _Attempt(method, wire, TimeBudget(limit_s), min(connect_s, limit_s))
        token = _attempt.set(attempt)
        response: _HeldResponse | None = None
        try:
            response = self._open(method)
            answer = self._read(response, attempt, is_expected)
        except (urllib3_errors.HTTPError, http.client.HTTPException, OSError) as error:
            if isinstance(error, urllib3_errors.ClosedPoolError) and self._closed:
                raise ConcurrencyError("this client was closed by another thread") from error
            raise self._failure(error, attempt, limit_s, response) from _system_error(error)
        finally:
            _attempt.reset(token)
        logger.debug("%s %s: %d, %d bytes", method, self._endpoint.shown, answer.status, len(answer.body))
        return answer

    def warm(self, target: str) -> None:
        """Opens a connection and leaves it ready: TCP and TLS are then not part of the first real request.

        It asks for ``target`` without a key, with 2 s of patience or the pool's limits if those are longer; any status
        but a redirect will do. Servers close idle connections after some time, so
        warm shortly before use.

        Raises:
            HttpFailure: no connection.
            ConcurrencyError: the pool is closed.
        """
        # Connecting is what this call is for, and nobody's trade waits for it: a slow first handshake may take longer.
        self.request(
            "GET",
            target,
            connect_timeout_s=max(self._connect_timeout_s, _WARM_S),
            attempt_timeout_s=max(self._attempt_timeout_s, _WARM_S),
        )

    # ── for those who keep connections of their own ──

    @property
    def max_body_bytes(self) -> int:
        """A longer answer is an error."""
        return self._max_body_bytes

    def connect(self, *, timeout_s: float) -> socket.socket:
        """A new connection, proxy and TLS included, which is the caller's: it is not kept here.

        Args:
            timeout_s: seconds in all; the look-up of the host's name comes on top.

        Raises:
            HttpFailure: no connection.
            ConcurrencyError: the pool is closed.

        Threads: any; blocks the caller.
        """
        attempt = _Attempt("POST", b"", TimeBudget(timeout_s), min(self._connect_timeout_s, timeout_s))
        token = _attempt.set(attempt)
        connection = self._pool_of_this_process()._new_conn()  # urllib3 has no public name for it
        try:
            connection.connect()
        except (urllib3_errors.HTTPError, OSError) as error:
            connection.close()
            raise self._failure(error, attempt, timeout_s, None) from _system_error(error)
        finally:
            _attempt.reset(token)
        sock: socket.socket = connection.sock  # type: ignore[attr-defined] # of http.client
        connection.sock = None  # type: ignore[attr-defined]
        return sock

    def read(self, received: bytes) -> tuple[HttpAnswer, bool]:
        """An answer whose bytes are all there, and whether its connection may be used again.

        Args:
            received: from its first byte to the last one that came; whatever follows the answer, too.

        Raises:
            HttpFailure: no usable answer; a redirect, too.
        """
        attempt = _Attempt("POST", b"", TimeBudget(None), 0.0)
        attempt.sent = True
        token = _attempt.set(attempt)
        response: _HeldResponse | None = None
        try:
            original, response = _response_on(_Received(received))
            answer = self._read(response, attempt, None)
        except (urllib3_errors.HTTPError, http.client.HTTPException, OSError) as error:
            raise self._failure(error, attempt, 0.0, response) from _system_error(error)
        finally:
            _attempt.reset(token)
        return answer, not (attempt.left_over or original.will_close)

    def broken(self, error: OSError, *, status: int | None, limit_s: float) -> HttpFailure:
        """The failure of a request whose connection raised ``error`` before its answer was complete.

        Args:
            error: a ``TimeoutError`` when the time was over.
            status: of the answer that had begun; None: none had.
            limit_s: seconds that the request had.
        """
        is_over = isinstance(error, TimeoutError)
        words = "no complete answer in time" if is_over else describe(error)
        problem = f"{self._endpoint.shown}: {words}" + (f" (the attempt's limit is {limit_s:g} s)" if is_over else "")
        return HttpFailure("send" if status is None else "read", problem, sent=True, status=status)

    def close(self) -> None:
        """Closes the idle connections now and busy ones after their answer. Idempotent, any thread."""
        self._closed = True
        if self._pid == os.getpid():  # in a child they are the parent's
            self._pool.close()

    def _new_pool(self) -> HTTPConnectionPool:
        common: dict[str, Any] = {
            "host": self._endpoint.host,
            "port": self._endpoint.port,
            "maxsize": _KEPT_CONNECTIONS,
            "block": False,
            "retries": False,
            "through": self._route.proxy,
        }
        if self._endpoint.scheme == "https":
            return _TlsPool(ssl_context=self._ssl_context, **common)
        return _PlainPool(**common)

    def _pool_of_this_process(self) -> HTTPConnectionPool:
        if self._pid != os.getpid():
            # The parent's pool may have been locked by one of its threads, and its sockets carry its conversation.
            # Two threads that meet here make two pools and one is dropped: no harm.
            self._pool = self._new_pool()
            self._pid = os.getpid()
        if self._closed:
            raise ConcurrencyError("this client is closed: make a new one")
        return self._pool

    def wire(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """The request as it is written.

        Raises:
            ValueError: a line end or another character that would make a different request of it. It is not repeated.
        """
        own_lines = [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method not in _BODILESS:
            own_lines.append(f"Content-Length: {len(body or b'')}")
        text = "".join(own_lines)
        if not (text.isascii() and text.isprintable() and target.isascii() and target.isprintable()) or " " in target:
            raise ValueError("a target or header holds a character that cannot stand there")
        head = "\r\n".join([f"{method} {target} HTTP/1.1", self._common_head, *own_lines, "", ""])
        return head.encode() + (body or b"")

    def _open(self, method: str) -> _HeldResponse:
        response = self._pool_of_this_process().urlopen(
            method,
            "/",  # all that urllib3 gets to know, and to log: RPC providers put keys into path and query
            headers=_NO_HEADERS,
            retries=_NO_RETRIES,
            redirect=False,
            timeout=None,  # the attempt's limits count
            preload_content=False,
            decode_content=False,
        )
        assert isinstance(response, _HeldResponse)  # of our own connections
        return response

    def _read(
        self, response: _HeldResponse, attempt: _Attempt, is_expected: Callable[[HttpAnswer], bool] | None
    ) -> HttpAnswer:
        """The whole answer; its connection goes back to the pool only when nothing else came on it."""
        reusable = False
        try:
            if 300 <= response.status < 400:
                raise HttpFailure("redirect", self._redirect_problem(response), sent=True, status=response.status)
            body = bytearray()
            for chunk in response.stream(_CHUNK_BYTES, decode_content=False):
                body += chunk
                if len(body) > self._max_body_bytes:
                    problem = f"{self._endpoint.shown}: an answer of more than {self._max_body_bytes} bytes"
                    raise HttpFailure("oversize", problem, sent=True, status=response.status)
            headers = {name.lower(): value for name, value in response.headers.items()}
            answer = HttpAnswer(response.status, headers, self._decoded(bytes(body), headers, response.status))
            reusable = is_expected is None or is_expected(answer)
            return answer
        finally:
            response.give_back(reusable=reusable and not attempt.left_over)

    def _decoded(self, body: bytes, headers: Mapping[str, str], status: int) -> bytes:
        try:
            return decoded_body(body, headers.get("content-encoding", ""), self._max_body_bytes)
        except BodyError as error:
            raise HttpFailure("read", f"{self._endpoint.shown}: {error}", sent=True, status=status) from None

    def _redirect_problem(self, response: HTTPResponse) -> str:
        # Only the host is told: a redirect's path and query come from whoever answers, and may quote ours.
        try:
            host = urlsplit(response.headers.get("location") or "").hostname
        except ValueError:
            host = "(unreadable)"
        where = f"to the host {_log.shorten(host, 100)}" if host else "to another path of the same host"
        return (
            f"{self._endpoint.shown} redirects {where} (HTTP {response.status}); redirects are never followed, "
            "because the API key would go along: check the URL"
        )

    def _failure(
        self, error: Exception, attempt: _Attempt, limit_s: float, response: HTTPResponse | None
    ) -> HttpFailure:
        problem = f"{self._endpoint.shown}: {describe(error)}"
        if isinstance(error, TimeoutError | urllib3_errors.TimeoutError) and attempt.budget.expired():
            problem += f" (the attempt's limit is {limit_s:g} s)"
        if response is None:
            return HttpFailure("send", problem, sent=attempt.sent)
        return HttpFailure("read", problem, sent=True, status=response.status)


def _common_head(endpoint: Endpoint) -> str:
    """What the head of every request says: whom it is for, from whom, and that the answer shall be as it is."""
    # The dot that ends a name and the zone of an address are for this machine's resolver; servers do not know them.
    known = attrs.evolve(endpoint, host=endpoint.host.rstrip(".").partition("%")[0])
    authority = known.shown.partition("://")[2]
    return f"Host: {authority}\r\nAccept-Encoding: identity\r\nUser-Agent: lasersell-sync/{__version__}"


# ── words for urllib3's errors ───────────────────────────────────────────────────────────────────────────────────

#: The one translation of urllib3's errors, by class, looked up along the error's bases. A test enumerates
#: ``urllib3.exceptions`` against it.
PROBLEMS: dict[type[BaseException], str] = {
    urllib3_errors.NameResolutionError: "the host name could not be resolved",
    urllib3_errors.NewConnectionError: "no connection",
    urllib3_errors.ConnectTimeoutError: "no connection in time",
    urllib3_errors.ReadTimeoutError: "no complete answer in time",
    urllib3_errors.TimeoutError: "timed out",
    urllib3_errors.SSLError: "TLS failed",
    urllib3_errors.ProxyError: "the proxy failed",
    urllib3_errors.IncompleteRead: "the answer ended early",
    urllib3_errors.InvalidChunkLength: "the answer's chunks are malformed",
    urllib3_errors.ResponseNotChunked: "the answer's framing is malformed",
    urllib3_errors.BodyNotHttplibCompatible: "the answer's framing is malformed",
    urllib3_errors.ProtocolError: "the connection broke, or the answer is not HTTP",
    urllib3_errors.DecodeError: "the answer's content encoding cannot be read",
    urllib3_errors.InvalidHeader: "the answer has a malformed header",
    urllib3_errors.HeaderParsingError: "the answer has malformed headers",
    urllib3_errors.ResponseError: "the answer cannot be used",
    urllib3_errors.LocationValueError: "the URL cannot be used",
    urllib3_errors.ClosedPoolError: "the connections are closed",
    urllib3_errors.EmptyPoolError: "no free connection",
    urllib3_errors.FullPoolError: "too many connections",
    urllib3_errors.HostChangedError: "the URL names another host",
    urllib3_errors.MaxRetryError: "no usable answer",
    urllib3_errors.RequestError: "the request failed",
    urllib3_errors.PoolError: "the connection pool failed",
    urllib3_errors.TimeoutStateError: "the time limits cannot be used",
    urllib3_errors.UnrewindableBodyError: "the request cannot be sent again",
    # What may pass through urllib3 untranslated.
    http.client.HTTPException: "the answer is not HTTP",
    TimeoutError: "timed out",
    OSError: "the connection broke",
}


def describe(error: BaseException) -> str:
    """The problem in words of ours, with the operating system's or TLS's reason.

    Never urllib3's own text: it may quote URLs, headers and object addresses.
    """
    if isinstance(error, _ProxyFailed):
        return str(error)
    words = next((PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS), f"failed ({type(error).__name__})")
    reason = _system_reason(_system_error(error))
    return f"{words}: {reason}" if reason else words


def _system_error(error: BaseException) -> OSError | None:
    """The first system or TLS error along the chain of causes.

    It is what our errors chain. urllib3's and http.client's own may quote what the server sent, and a server may have
    sent our key back.
    """
    link: BaseException | None = error
    for _ in range(8):  # a chain may be a circle; this one is short
        if link is None or isinstance(link, OSError):
            return link
        wrapped = next((arg for arg in link.args if isinstance(arg, BaseException)), None)
        link = wrapped or link.__cause__ or link.__context__
    return None


def _system_reason(error: OSError | None) -> str | None:
    if isinstance(error, ssl.SSLError):
        return tls.describe(error)
    return error.strerror if error is not None else None
