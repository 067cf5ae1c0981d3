"""The stream service: WebSocket connections on one event loop, in one thread of its own.

The server only moves frames: what they mean is ``StreamDesk``'s. Each connection has an outbox, a queue that the
exchange fills from any thread in batches and a writer task empties.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lasersell_sync.sandbox.exchange import Exchange
from lasersell_sync.sandbox.sessions import Frame, Session

_log = logging.getLogger("lasersell_sync.sandbox.stream")

STREAM_PATH = "/v1/ws"
MAX_MESSAGE_BYTES = 2**20
#: Frames waiting for one client above which low-lane batches are dropped.
MAX_BACKLOG_FRAMES = 100_000
_CLOSE_TIMEOUT_S = 0.5
_STOP_TIMEOUT_S = 1.0


class _LibraryLog(logging.LoggerAdapter):  # type: ignore[type-arg]
    """What the websockets library says, at debug level, without tracebacks and without the frames and headers.

    At debug level the library logs request headers, and with them API keys; and it reports every garbled handshake as
    an error with a traceback, where for a sandbox garbage is an ordinary guest.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (the base class's name)
        """Never at debug level: that is where the library logs headers."""
        return level > logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ARG002
        """Everything else, as debug."""
        if level > logging.DEBUG:
            self.logger.debug("websockets: %s", msg)


class _Outbox:
    """The queue of one connection; ``post`` and ``close`` may be called from any thread and never block."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._frames: deque[Frame] = deque()
        self._closing: tuple[int, str] | None = None
        self._signalled = False
        #: low-lane frames dropped because the client does not drain its socket
        self.dropped = 0
        self._ready = asyncio.Event()

    def post(self, frames: Sequence[Frame], *, low_lane: bool = False) -> None:
        """Queue frames in order."""
        with self._lock:
            if low_lane and len(self._frames) > MAX_BACKLOG_FRAMES:
                self.dropped += len(frames)
                return
            self._frames.extend(frames)
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
        with suppress(RuntimeError):  # the loop is closed: the server stopped
            self._loop.call_soon_threadsafe(self._ready.set)

    async def take(self) -> tuple[list[Frame], tuple[int, str] | None]:
        """Everything queued, and how to close after it (None: not at all). On the loop."""
        await self._ready.wait()
        with self._lock:
            self._ready.clear()
            self._signalled = False
            frames = list(self._frames)
            self._frames.clear()
            return frames, self._closing


class StreamServer:
    """Owns the thread ``lasersell-sandbox-stream``.

    Threads: ``start``, ``stop`` and the hooks may be called from any thread.
    """

    def __init__(self, exchange: Exchange, listeners: list[socket.socket]) -> None:
        self._exchange = exchange
        self._listeners = listeners
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lasersell-sandbox-stream", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        # On the loop only.
        self._stop_requested: asyncio.Event | None = None
        self._connections: set[ServerConnection] = set()
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
            self._loop.close()
            for listener in self._listeners:
                listener.close()
            return
        with suppress(RuntimeError):  # the loop is closed: stopped already
            self._loop.call_soon_threadsafe(self._request_stop)
        self._thread.join(2 * _STOP_TIMEOUT_S)

    def _request_stop(self) -> None:
        if self._stop_requested is not None:
            self._stop_requested.set()

    # -- faults

    def drop(self, code: int | None) -> None:
        """Abort every TCP connection, or close every WebSocket with a code."""
        self._on_loop(self._drop(code))

    async def _drop(self, code: int | None) -> None:
        for connection in list(self._connections):
            if code is None:
                connection.transport.abort()
        if code is not None:
            await asyncio.gather(*(connection.close(code) for connection in list(self._connections)))

    def set_muted(self, *, muted: bool) -> None:
        """Stop (or resume) reading, writing and answering; sockets stay open."""
        self._on_loop(self._set_muted(muted=muted))

    async def _set_muted(self, *, muted: bool) -> None:
        assert self._unmuted is not None
        if muted:
            self._unmuted.clear()
        else:
            self._unmuted.set()
        for connection in list(self._connections):
            # Not reading is what keeps the library from answering pings.
            if muted:
                connection.transport.pause_reading()
            else:
                connection.transport.resume_reading()

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * _STOP_TIMEOUT_S)

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
            self._loop.close()
            asyncio.set_event_loop(None)

    async def _serve(self) -> None:
        self._stop_requested = asyncio.Event()
        self._unmuted = asyncio.Event()
        self._unmuted.set()
        servers = [await self._listen(listener) for listener in self._listeners]
        self._started.set()
        await self._stop_requested.wait()
        if not self._unmuted.is_set():
            # Nobody answers closing handshakes that we do not read.
            await self._drop(None)
            self._unmuted.set()
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
        server: Server = await serve(
            self._converse,
            sock=listener,
            process_request=self._check_upgrade,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            logger=_LibraryLog(_log, {}),
        )
        return server

    async def _check_upgrade(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Refuse wrong paths and keys before the WebSocket exists."""
        assert self._unmuted is not None
        await self._unmuted.wait()
        if request.path.partition("?")[0] != STREAM_PATH:
            return _refusal(HTTPStatus.NOT_FOUND, "not found")
        api_keys = request.headers.get_all("x-api-key")
        if not api_keys:
            return _refusal(HTTPStatus.UNAUTHORIZED, "missing x-api-key")
        if len(api_keys) > 1 or self._exchange.keys.match(api_keys[0]) is None:
            return _refusal(HTTPStatus.UNAUTHORIZED, "invalid api key")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """One connection from upgrade to close."""
        assert connection.request is not None
        key_id = self._exchange.keys.match(connection.request.headers["x-api-key"])
        assert key_id is not None  # checked at the upgrade, and keys do not change
        outbox = _Outbox(self._loop)
        session = self._exchange.connect(key_id, outbox)
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

    async def _read(self, connection: ServerConnection, session: Session) -> None:
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

    async def _write(self, connection: ServerConnection, outbox: _Outbox) -> None:
        assert self._unmuted is not None
        try:
            while True:
                frames, closing = await outbox.take()
                for frame in frames:
                    await self._unmuted.wait()
                    if isinstance(frame, bytes):
                        connection.transport.write(frame)
                    else:
                        await connection.send(frame)
                if closing is not None:
                    await connection.close(*closing)
                    return
        except ConnectionClosed:
            pass  # the reader sees it too and cleans up


def _refusal(status: HTTPStatus, message: str) -> Response:
    body = json.dumps({"error": message}, separators=(",", ":")).encode()
    headers = Headers()
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
