"""The stream service: WebSocket connections on one event loop, in one thread of its own.

The server only moves frames: what they mean is ``StreamService``'s. Each connection has an outbox, which the exchange
fills from any thread in batches and a writer task empties. Frames are framed here and written in large pieces: at
200,000 messages a second a call into the WebSocket library for each would be too much.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.exchange.sessions import Frame, Session
from lasersell_sync.sandbox.exchange.stream_service import POLICY_VIOLATION
from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.servers.network_conditions import NetworkConditions, ThrottledTransport
from lasersell_sync.sandbox.servers.sockets import BACKLOG, close_all, connection_limit, log_loop_errors

_log = logging.getLogger("lasersell_sync.sandbox.stream")

STREAM_PATH = "/v1/ws"
MAX_MESSAGE_BYTES = 2**20
#: Bytes waiting for one client above which low-lane batches are dropped.
MAX_LOW_LANE_BACKLOG_BYTES = 2**25
#: Bytes waiting for one client above which its connection is cut: it does not read at all.
MAX_BACKLOG_BYTES = 2**26
#: Frames go to the socket in pieces of about this size, each a whole number of frames.
_PIECE_BYTES = 2**17
#: How long low-lane frames may gather after a write.
_GATHER_S = 0.001
_CLOSE_TIMEOUT_S = 0.5
_STOP_TIMEOUT_S = 1.0


class _LibraryLog(logging.LoggerAdapter):  # type: ignore[type-arg]
    """What the websockets library says, at debug level, without tracebacks and without the frames and headers.

    At debug level the library logs request headers, and with them API keys; and it reports every garbled handshake as
    an error with a traceback, although garbage is ordinary input for a sandbox.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (the base class's name)
        """Never at debug level: that is where the library logs headers."""
        return level > logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ARG002
        """Everything else, as debug."""
        if level > logging.DEBUG:
            self.logger.debug("websockets: %s", msg)


def _header(size: int) -> bytes:
    """What stands before an unmasked text frame of so many bytes (RFC 6455 5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


_HEADERS = [_header(size) for size in range(1_024)]


def framed(frames: Sequence[Frame]) -> list[bytes]:
    """Texts as text frames, bytes as they are; joined to pieces that are written at once."""
    pieces: list[bytes] = []
    parts: list[bytes] = []
    room = _PIECE_BYTES
    for frame in frames:
        # A lone surrogate is not valid UTF-8: whoever sends one wants a damaged frame.
        data = frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")
        size = len(data)
        if not isinstance(frame, bytes):
            parts.append(_HEADERS[size] if size < 1_024 else _header(size))
        parts.append(data)
        room -= size
        if room < 0:
            pieces.append(b"".join(parts))
            parts, room = [], _PIECE_BYTES
    return [*pieces, b"".join(parts)] if parts else pieces


class _Outbox:
    """The queue of one connection; ``post`` and ``close`` may be called from any thread and never block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, cut: Callable[[], object]) -> None:
        self._loop = loop
        self._cut = cut
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._closing: tuple[int, str] | None = None
        self._overflowed = False
        self._signalled = False
        self._gathering = False
        #: low-lane frames dropped because the client does not drain its socket
        self.dropped = 0
        self._ready = asyncio.Event()

    def post(self, frames: Sequence[Frame], *, low_lane: bool = False) -> None:
        """Queue frames in order."""
        with self._lock:
            if self._overflowed or not frames:
                return
            if low_lane and self._waiting_bytes > MAX_LOW_LANE_BACKLOG_BYTES:
                self.dropped += len(frames)
                return
            pieces = framed(frames)
            self._pieces.extend(pieces)
            self._waiting_bytes += sum(map(len, pieces))
            if self._waiting_bytes > MAX_BACKLOG_BYTES:
                _log.info("a client that does not read is cut off")
                self._overflowed = True
                self._pieces.clear()
                self._call(self._cut)
            if not (low_lane and self._gathering):
                self._signal()

    def close(self, code: int, reason: str) -> None:
        """Close once everything queued is written."""
        with self._lock:
            self._closing = (code, reason)
            self._signal()

    def _signal(self) -> None:
        # One wake-up per batch taken, however many posts: this is what keeps a busy loop from drowning in callbacks.
        if self._signalled:
            return
        self._signalled = True
        self._call(self._ready.set)

    def _call(self, callback: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server stopped
            self._loop.call_soon_threadsafe(callback)

    async def wait(self) -> None:
        """Until there is something to do. On the loop."""
        await self._ready.wait()
        with self._lock:
            self._ready.clear()
            self._signalled = False

    def gather(self) -> None:
        """For a moment, let low-lane frames come together instead of waking the loop for each. On the loop."""
        with self._lock:
            self._gathering = True
        self._loop.call_later(_GATHER_S, self._stop_gathering)

    def _stop_gathering(self) -> None:
        with self._lock:
            self._gathering = False
            if self._pieces:
                self._ready.set()

    def take(self) -> Iterator[bytes]:
        """Everything queued, in large pieces; what is being written still counts as waiting. On the loop."""
        while True:
            parts, size = [], 0
            with self._lock:
                while self._pieces and size < _PIECE_BYTES:
                    parts.append(self._pieces.popleft())
                    size += len(parts[-1])
            if not parts:
                return
            yield parts[0] if len(parts) == 1 else b"".join(parts)
            with self._lock:
                self._waiting_bytes -= size

    @property
    def closing(self) -> tuple[int, str] | None:
        """How to close once everything is written; None: not at all."""
        with self._lock:
            return self._closing


class _Connection(ServerConnection):
    """The library's connection on a link of ours; known to the server from the first byte. On the loop only."""

    def __init__(self, *arguments: Any, stream_server: StreamServer, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stream_server = stream_server
        self._writable = asyncio.Event()
        self._writable.set()
        self.session: Session | None = None
        self.outbox: _Outbox | None = None

    @property
    def throttled(self) -> ThrottledTransport:
        """What stands in for the transport."""
        return cast("ThrottledTransport", self.transport)

    @property
    def configured(self) -> bool:
        """Whether the client has introduced itself."""
        return self.session is not None and self.session.configure is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        throttled = ThrottledTransport(cast("asyncio.Transport", transport), self._stream_server.conditions)
        super().connection_made(cast("asyncio.Transport", throttled))
        self._stream_server.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's callback."""
        self._stream_server.left(self)
        self._writable.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Asyncio's callback: the client does not read as fast as we write."""
        self._writable.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Asyncio's callback."""
        self._writable.set()
        super().resume_writing()

    async def write(self, piece: bytes) -> None:
        """Write whole frames and wait until the client has taken most of them. Raises ConnectionError."""
        if self.state is not State.OPEN or self.throttled.is_closing():
            raise ConnectionError("the connection is closing")
        self.throttled.write(piece)
        await asyncio.sleep(0)  # the waits below do not give others their turn while there is room
        await self.throttled.room()
        await self._writable.wait()


class StreamServer:
    """Owns the thread ``lasersell-sandbox-stream``.

    Threads: ``start``, ``stop`` and the hooks may be called from any thread.
    """

    def __init__(
        self, exchange: Exchange, listeners: list[socket.socket], conditions: NetworkConditions | None = None
    ) -> None:
        self._exchange = exchange
        self._listeners = listeners
        self.conditions = conditions or NetworkConditions()
        self._limit = connection_limit()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lasersell-sandbox-stream", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        # Guards that no order is given to a loop which is about to close.
        self._orders_lock = threading.Lock()
        self._over = False
        # On the loop only.
        self._stop_requested: asyncio.Event | None = None
        self._connections: set[_Connection] = set()
        #: those that have not introduced themselves, longest first (some may have since)
        self._unconfigured: dict[_Connection, None] = {}
        self._open_count = 0
        #: half-open ones: their clients still wait for frames
        self._half_open_connections: set[_Connection] = set()
        self._unmuted: asyncio.Event | None = None

    def start(self) -> None:
        """Start serving. Raises what kept the loop from starting."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close every connection and join the thread; fine if it never started."""
        if self._thread.ident is None:
            self._over = True
            self._loop.close()
            close_all(self._listeners)
            return
        with suppress(RuntimeError):  # the loop is closed: stopped already
            self._loop.call_soon_threadsafe(self._request_stop)
        self._thread.join(2 * _STOP_TIMEOUT_S)

    def _request_stop(self) -> None:
        if self._stop_requested is not None:
            self._stop_requested.set()

    # -- too many connections

    def arrived(self, connection: _Connection) -> None:
        """A TCP connection came up; when there are too many, the longest silent one makes room."""
        self._open_count += 1
        self._unconfigured[connection] = None
        if self._open_count > self._limit:
            self._oldest_unconfigured(connection).throttled.abort()

    def _oldest_unconfigured(self, newcomer: _Connection) -> _Connection:
        while self._unconfigured:
            oldest = next(iter(self._unconfigured))
            del self._unconfigured[oldest]
            if not oldest.configured and not oldest.throttled.is_closing():
                return oldest
        return newcomer

    def left(self, connection: _Connection) -> None:
        """A TCP connection is gone."""
        self._open_count -= 1
        self._unconfigured.pop(connection, None)
        self._half_open_connections.discard(connection)

    # -- faults

    def drop(self, code: int | None, reason: str = "", session_id: int | None = None) -> int:
        """Abort TCP connections, or close WebSockets with a code: one session's, or all; how many there were."""
        return self._on_loop(self._drop(code, reason, session_id))

    async def _drop(self, code: int | None, reason: str = "", session_id: int | None = None) -> int:
        chosen = self._chosen(session_id)
        if code is None:
            for connection in chosen:
                connection.throttled.abort()
        else:
            await asyncio.gather(*(connection.close(code, reason) for connection in chosen))
        return len(chosen)

    def _chosen(self, session_id: int | None) -> list[_Connection]:
        if session_id is None:
            return list(self._connections)
        return [item for item in self._connections if item.session and item.session.session_id == session_id]

    def set_muted(self, *, muted: bool) -> None:
        """Stop (or resume) reading, writing and answering; sockets stay open."""
        self._on_loop(self._set_muted(muted=muted))

    async def _set_muted(self, *, muted: bool) -> int:
        assert self._unmuted is not None
        if muted:
            self._unmuted.clear()
        else:
            self._unmuted.set()
        for connection in self._connections:
            # Not reading is what keeps the library from answering pings.
            if muted:
                connection.transport.pause_reading()
            else:
                connection.transport.resume_reading()
        return len(self._connections)

    def half_open(self, session_id: int | None = None) -> int:
        """Forget connections without telling their clients: one session's, or all; how many there were.

        The TCP connection stays, nothing passes any more, and the session is over for the exchange.
        """
        return self._on_loop(self._half_open(session_id))

    async def _half_open(self, session_id: int | None) -> int:
        chosen = self._chosen(session_id)
        for connection in chosen:
            self._connections.discard(connection)
            self._half_open_connections.add(connection)
            connection.throttled.die()
            if connection.session is not None:
                self._exchange.disconnect(connection.session)
        return len(chosen)

    def post(self, frames: Sequence[Frame], session_id: int | None = None) -> int:
        """Put frames on one session's connection, or on all; how many there were."""
        return self._on_loop(self._post(frames, session_id))

    async def _post(self, frames: Sequence[Frame], session_id: int | None) -> int:
        chosen = self._chosen(session_id)
        for connection in chosen:
            if connection.outbox is not None:
                connection.outbox.post(frames)
        return len(chosen)

    def _on_loop(self, work: Coroutine[Any, Any, int]) -> int:
        with self._orders_lock:
            if self._over:  # down for a restart: there is nobody to disturb
                work.close()
                return 0
            order = asyncio.run_coroutine_threadsafe(work, self._loop)
        return order.result(2 * _STOP_TIMEOUT_S)

    # -- the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits in `start`)
            _log.exception("the stream server failed")
            self._failure = error
        finally:
            self._started.set()
            with self._orders_lock:
                self._over = True
            # Who gave an order in the last moment would wait for it in vain.
            self._loop.run_until_complete(_few_turns())
            self._loop.close()
            asyncio.set_event_loop(None)

    async def _serve(self) -> None:
        self._stop_requested = asyncio.Event()
        self._unmuted = asyncio.Event()
        self._unmuted.set()
        log_loop_errors(self._loop, _log)
        servers = [await self._listen(listener) for listener in self._listeners]
        self._started.set()
        await self._stop_requested.wait()
        if not self._unmuted.is_set():
            # Nobody answers closing handshakes that we do not read.
            await self._drop(None)
            self._unmuted.set()
        for connection in list(self._half_open_connections):
            connection.throttled.abort()
        for server in servers:
            server.close()
        await self._finish(servers)

    async def _finish(self, servers: list[Server]) -> None:
        """Wait for the closing handshakes, but not for clients that ignore them."""
        waits = [asyncio.ensure_future(server.wait_closed()) for server in servers]
        await asyncio.wait(waits, timeout=_STOP_TIMEOUT_S)
        for connection in list(self._connections):
            connection.transport.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _listen(self, listener: socket.socket) -> Server:
        connection = cast("type[ServerConnection]", partial(_Connection, stream_server=self))
        return await serve_websockets(
            self._converse, listener, self._check_upgrade, _log, create_connection=connection, backlog=BACKLOG
        )

    async def _check_upgrade(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Refuse wrong paths and keys before the WebSocket exists."""
        assert self._unmuted is not None
        await self._unmuted.wait()
        if request.path.partition("?")[0] != STREAM_PATH:
            return refusal(HTTPStatus.NOT_FOUND, "not found")
        api_keys = request.headers.get_all("x-api-key")
        if self._exchange.policies.refuse_keys_in_stream:
            return None
        if not api_keys:
            return refusal(HTTPStatus.UNAUTHORIZED, "missing x-api-key")
        if len(api_keys) > 1 or self._exchange.keys.match(api_keys[0]) is None:
            return refusal(HTTPStatus.UNAUTHORIZED, "invalid api key")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """One connection from upgrade to close."""
        assert isinstance(connection, _Connection)
        assert connection.request is not None
        api_keys = connection.request.headers.get_all("x-api-key")
        key_id = self._exchange.keys.match(api_keys[0]) if len(api_keys) == 1 else None
        if key_id is None:  # the upgrade let it pass: refuse it in the stream
            await _refuse_key(connection, missing=not api_keys)
            return
        outbox = _Outbox(self._loop, cut=connection.throttled.abort)
        session = self._exchange.connect(key_id, outbox)
        connection.session, connection.outbox = session, outbox
        _log.debug("session %d connected", session.session_id)
        self._connections.add(connection)
        if self._unmuted is not None and not self._unmuted.is_set():
            connection.transport.pause_reading()  # muted while this one was shaking hands
        writer = asyncio.ensure_future(self._write(connection, outbox))
        try:
            await self._read(connection, session)
        finally:
            self._connections.discard(connection)
            self._exchange.disconnect(session)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            _log.debug("session %d gone, code %s", session.session_id, connection.close_code)

    async def _read(self, connection: _Connection, session: Session) -> None:
        assert self._unmuted is not None
        try:
            async for frame in connection:
                await self._unmuted.wait()
                self._exchange.receive(session, frame)
        except ConnectionClosed:
            pass  # with a code that is no farewell: none of our business
        except Exception:
            _log.exception("session %d: a frame could not be handled", session.session_id)
            raise

    async def _write(self, connection: _Connection, outbox: _Outbox) -> None:
        assert self._unmuted is not None
        try:
            while True:
                await outbox.wait()
                for piece in outbox.take():
                    await self._unmuted.wait()
                    await connection.write(piece)
                if outbox.closing is not None:
                    await connection.close(*outbox.closing)
                    return
                outbox.gather()
        except (ConnectionClosed, ConnectionError):
            pass  # the reader sees it too and cleans up


async def _few_turns() -> None:
    """Let the loop do what was asked of it; orders wait for nothing when no connection is left."""
    for _ in range(5):
        await asyncio.sleep(0)


async def _refuse_key(connection: ServerConnection, *, missing: bool) -> None:
    code, message = ("unauthorized", "missing x-api-key") if missing else ("invalid_api_key", "invalid api key")
    with suppress(ConnectionClosed):
        await connection.send(wire.error(code, message))
        await connection.close(POLICY_VIOLATION, code)


async def serve_websockets(
    converse: Callable[[ServerConnection], Awaitable[None]],
    listener: socket.socket,
    check_upgrade: Callable[[ServerConnection, Request], Any],
    log: logging.Logger,
    **options: Any,
) -> Server:
    """Serve WebSockets on a listening socket as the live service does: no compression, no pings of its own."""
    server: Server = await serve(
        converse,
        sock=listener,
        process_request=check_upgrade,
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
        ping_interval=None,
        close_timeout=_CLOSE_TIMEOUT_S,
        logger=_LibraryLog(log, {}),
        **options,
    )
    return server


def refusal(status: HTTPStatus, message: str) -> Response:
    """An HTTP answer in place of the upgrade."""
    body = json.dumps({"error": message}, separators=(",", ":")).encode()
    headers = Headers()
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
