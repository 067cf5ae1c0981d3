"""The replay server: a recorded session's frames, served again to any client that speaks the stream.

It knows nothing of files and little of the wire: frames come from whoever has them, with their times, and are sent as
they are. What a recording cannot hold, answers to this client's own pings, it makes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from http import HTTPStatus
from socket import socket
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lasersell_sync.sandbox.servers.sockets import Startable, listen, url_of
from lasersell_sync.sandbox.servers.stream_server import STREAM_PATH, refusal, serve_websockets

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger("lasersell_sync.sandbox.replay")

#: "Going away": where the recorded session lost its link, the replayed one does too.
LINK_LOST = 1001
_STOP_TIMEOUT_S = 2.0
#: A normal end: the whole recording was sent.
OVER = 1000
OVER_REASON = "the recording is over"
#: A client that comes back so soon after the end reconnects by itself: it is refused again instead of played to again.
AGAIN_AFTER_S = 30.0
#: Frames sent in a row, when there is nothing to wait for, until other connections get their turn.
_FRAMES_IN_A_ROW = 64

#: (microseconds since the recording began, the text of one frame)
TimedFrame = tuple[int, str]


class ReplayServer(Startable):
    """Serves one recorded session, from its beginning, to every client that connects and configures.

    A client is known by its API key. A second ``hello_ok`` in the recording means that its link was lost and replaced:
    the server closes the connection there, and goes on when the same key comes back. Who leaves anywhere else gets the
    recording from its beginning the next time. Recorded ``pong`` frames answered pings that nobody sends now: they are
    left out, and the client's own pings are answered, in the recording's time. Other commands change nothing.

    After the last frame, once the client has read it, the connection is closed with code 1000 and ``OVER_REASON``. Most
    clients reconnect by themselves, so the same key gets the same close until it has stayed away for 30 s
    (``AGAIN_AFTER_S``). Then, or with another key, the recording plays from its beginning.

    Use as a context manager, or ``start`` and ``stop``.

    Args:
        frames: Called for each playing; gives the frames in order.
        api_key: The key that clients must send; None takes any.
        port: WebSocket port; 0 picks a free one.
        host: An IP address to listen on; None means loopback only.
        speed: 1.0 is as recorded, 10.0 ten times as fast; None is as fast as the client reads. What passed between two
            links is not waited for.
        in_step: Send a frame only when the client has read the one before it, at every speed.
        close_at_end: False: leave the connection open, and silent, after the last frame.
        on_end: Called on the serving thread each time a client has read the last frame; must not block.

    Raises:
        ValueError: ``speed`` makes no sense.

    Threads: ``lasersell-sandbox-replay`` serves. Every method may be called from any thread.
    """

    def __init__(
        self,
        frames: Callable[[], Iterable[TimedFrame]],
        *,
        api_key: str | None = None,
        port: int = 8082,
        host: str | None = None,
        speed: float | None = 1.0,
        in_step: bool = False,
        close_at_end: bool = True,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        is_number = isinstance(speed, (int, float)) and not isinstance(speed, bool)
        if speed is not None and not (is_number and math.isfinite(speed) and speed > 0):
            raise ValueError(f"speed must be a number above 0, or None for as fast as possible, not {speed!r}")
        self._frames = frames
        self._api_key = api_key
        self._address = (port, host)
        self._speed = speed
        self._in_step = in_step
        self._close_at_end = close_at_end
        self._on_end = on_end
        self._url: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lasersell-sandbox-replay", daemon=True)
        # On the loop only. Who is between two links, by API key.
        self._waiting: dict[str, _Playing] = {}
        #: Who has received everything, and when it was here last, by API key.
        self._ended_at: dict[str, float] = {}
        self._servers: list[Server] = []
        # Guards the next three.
        self._lock = threading.Lock()
        self._finished = False
        self._error: Exception | None = None
        self._callbacks: list[Callable[[], object]] = []

    # -- life cycle

    def start(self) -> Self:
        """Open the port and serve. Raises OSError for a port that is taken."""
        sockets = listen("replay", *self._address)
        self._url = url_of("ws", sockets) + STREAM_PATH
        self._thread.start()
        self._on_loop(self._open(sockets))
        return self

    def stop(self) -> None:
        """Close every connection and join the thread, in under two seconds; again is fine, and without ``start``."""
        if self._thread.is_alive():
            with suppress(TimeoutError):
                self._on_loop(self._shut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_TIMEOUT_S)

    @property
    def stream_url(self) -> str:
        """The WebSocket's URL; after ``start``."""
        if self._url is None:
            raise RuntimeError("stream_url is known once the replay server is started")
        return self._url

    # -- the end of the recording

    @property
    def error(self) -> Exception | None:
        """What ``frames`` raised, which ended a playing early."""
        with self._lock:
            return self._error

    def when_finished(self, callback: Callable[[], object]) -> None:
        """Call back once, when some client has read the last frame; at once, when one has already.

        On the serving thread, or the caller's: it must not block.
        """
        with self._lock:
            if not self._finished:
                self._callbacks.append(callback)
                return
        callback()

    def _finish(self, error: Exception | None = None) -> None:
        with self._lock:
            self._finished = True
            self._error = self._error or error
            callbacks, self._callbacks = self._callbacks, []
        if self._on_end is not None and error is None:
            callbacks = [*callbacks, self._on_end]
        for callback in callbacks:
            callback()

    # -- on the loop

    async def _open(self, sockets: list[socket]) -> None:
        for listener in sockets:
            self._servers.append(await serve_websockets(self._converse, listener, self._check_upgrade, _log))

    async def _shut(self) -> None:
        for server in self._servers:
            server.close()
        for server in self._servers:
            await server.wait_closed()

    def _check_upgrade(self, _connection: ServerConnection, request: Request) -> Response | None:
        if request.path.partition("?")[0] != STREAM_PATH:
            return refusal(HTTPStatus.NOT_FOUND, "not found")
        if self._api_key is not None and request.headers.get_all("x-api-key") != [self._api_key]:
            return refusal(HTTPStatus.UNAUTHORIZED, "invalid api key")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """One connection: one link of the recording."""
        assert connection.request is not None
        key = connection.request.headers.get("x-api-key", "")
        try:
            await connection.recv()  # as the live server, which says nothing before ``configure``
            if self._is_over(key):
                await connection.close(OVER, OVER_REASON)
                return
            playing = self._waiting.pop(key, None) or _Playing(self._frames(), self._speed, in_step=self._in_step)
            if await playing.one_link(connection):
                self._waiting[key] = playing
                await connection.close(LINK_LOST, "the recorded link was lost here")
                return
            # Frames are handled in order: who answers this has handled every one before it.
            await (await connection.ping())
            if self._close_at_end:
                self._ended_at[key] = time.monotonic()
            self._finish()
            if self._close_at_end:
                await connection.close(OVER, OVER_REASON)
            await connection.wait_closed()
        except ConnectionClosed:
            pass  # the client left
        except Exception as error:  # noqa: BLE001 (the recording cannot be read: whoever waits for its end gets the error)
            self._finish(error)

    def _is_over(self, key: str) -> bool:
        """True for a client that has just received everything, and comes back by itself."""
        now = time.monotonic()
        self._ended_at = {known: at for known, at in self._ended_at.items() if now - at < AGAIN_AFTER_S}
        if key not in self._ended_at:
            return False
        self._ended_at[key] = now
        return True


class _Playing:
    """Where one client is in the recording."""

    def __init__(self, frames: Iterable[TimedFrame], speed: float | None, *, in_step: bool) -> None:
        self._frames = iter(frames)
        self._next = next(self._frames, None)
        self._speed = speed
        self._in_step = in_step
        #: (server time in its last ``hello_ok``, when that was sent)
        self._clock = (0, 0.0)

    async def one_link(self, connection: ServerConnection) -> bool:
        """Send everything up to the next link; False when there is none."""
        pings = asyncio.ensure_future(self._answer_pings(connection))
        try:
            return await self._send_link(connection, pings)
        finally:
            pings.cancel()
            await asyncio.gather(pings, return_exceptions=True)

    async def _send_link(self, connection: ServerConnection, left: asyncio.Future[None]) -> bool:
        greeted, sent = False, 0
        started_s, first_us = time.monotonic(), self._next[0] if self._next else 0
        while self._next is not None:
            at_us, text = self._next
            message = _message_of_note(text)
            if message.get("type") == "hello_ok":
                if greeted:
                    return True
                greeted = True
                self._clock = (_milliseconds(message.get("server_time_ms")), time.monotonic())
            if message.get("type") != "pong":
                if self._speed is not None:
                    due_s = started_s + (at_us - first_us) / 1e6 / self._speed
                    await asyncio.wait({left}, timeout=max(0.0, due_s - time.monotonic()))
                elif sent % _FRAMES_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                await connection.send(text)
                sent += 1
                if self._in_step:
                    # Frames are handled in order: who answers this has read the one before it.
                    await (await connection.ping())
            self._next = next(self._frames, None)
        return False

    async def _answer_pings(self, connection: ServerConnection) -> None:
        """Until the client leaves, which ends every wait for a frame's time."""
        async for data in connection:
            with suppress(ValueError, RecursionError):
                message = json.loads(data)
                if isinstance(message, dict) and message.get("type") == "ping":
                    await connection.send(json.dumps({"type": "pong", "server_time_ms": self._server_time_ms()}))

    def _server_time_ms(self) -> int:
        """What the recorded server's clock would show now."""
        hello_ms, hello_at_s = self._clock
        return hello_ms + int((time.monotonic() - hello_at_s) * 1000 * (self._speed or 1.0))


def _message_of_note(text: str) -> dict[str, Any]:
    """A ``hello_ok`` or ``pong``, parsed; empty for all else, which is sent without being looked at."""
    if '"hello_ok"' not in text and '"pong"' not in text:
        return {}
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _milliseconds(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
