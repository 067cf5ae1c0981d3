"""The wire between the stream server and one client, with a delay and a width that can be chosen while it runs.

It sits below the WebSocket library, so everything the server says passes through it in order: messages, pongs, closing
handshakes. A narrow link lets frames arrive in pieces, as narrow links do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

#: What a link may hold before the writer is asked to wait.
_FULL_BYTES = 2**18
#: A narrow link passes on what fits into this time at once.
_PIECE_S = 0.02


@dataclass(slots=True)
class NetworkConditions:
    """What every connection's link is like; changes take effect at once.

    Threads: set from any thread, read on the server's loop.
    """

    #: from the server's writing until the client can read it
    latency_s: float = 0.0
    bytes_per_s: int | None = None

    @property
    def disturbed(self) -> bool:
        """Whether bytes have to be held at all."""
        return self.latency_s > 0 or self.bytes_per_s is not None


class ThrottledTransport:
    """Stands in for asyncio's transport: what is written goes out later, or never.

    On the server's loop only.
    """

    def __init__(self, transport: asyncio.Transport, conditions: NetworkConditions) -> None:
        self._transport = transport
        self._conditions = conditions
        self._loop = asyncio.get_running_loop()
        #: (when it may go out, bytes); None stands for the end of what the server says
        self._held: deque[tuple[float, bytes | None]] = deque()
        self._held_bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._closing = False
        self._room = asyncio.Event()
        self._room.set()
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    # -- asyncio's interface

    def write(self, data: bytes) -> None:
        """Send, now or when the link allows."""
        if self._dead:
            return
        if self._pump is None and not self._conditions.disturbed:
            self._transport.write(data)
        else:
            self._hold(bytes(data))

    def write_eof(self) -> None:
        """Send nothing more after what was written."""
        if self._pump is None:
            self._transport.write_eof()
        else:
            self._hold(None)

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._pump is None:
            self._transport.close()
        else:
            self._closing = True

    def abort(self) -> None:
        """Cut the connection; what was not sent is gone."""
        self._held.clear()
        if self._pump is not None:
            self._pump.cancel()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or self._transport.is_closing()

    # -- ours

    def die(self) -> None:
        """From now on nothing passes in either direction, and the client does not know: a half-open connection."""
        self._dead = True
        self._held.clear()
        self._transport.pause_reading()

    async def room(self) -> None:
        """Wait until the link has taken up most of what was written."""
        await self._room.wait()

    def _hold(self, data: bytes | None) -> None:
        self._held.append((self._loop.time() + self._conditions.latency_s, data))
        self._held_bytes += len(data or b"")
        if self._held_bytes > _FULL_BYTES:
            self._room.clear()
        if self._pump is None:
            self._pump = self._loop.create_task(self._pass_on())

    async def _pass_on(self) -> None:
        try:
            while self._held:
                due_s, data = self._held.popleft()
                await asyncio.sleep(due_s - self._loop.time())
                if data is None:
                    self._transport.write_eof()
                    continue
                await self._trickle(data)
                self._held_bytes -= len(data)
                if self._held_bytes <= _FULL_BYTES:
                    self._room.set()
        finally:
            self._pump = None
            self._held_bytes = 0
            self._room.set()
        if self._closing:
            self._transport.close()

    async def _trickle(self, data: bytes) -> None:
        while data and not self._dead:
            bytes_per_s = self._conditions.bytes_per_s
            size = len(data) if bytes_per_s is None else max(1, int(bytes_per_s * _PIECE_S))
            piece, data = data[:size], data[size:]
            self._transport.write(piece)
            if bytes_per_s is not None:
                await asyncio.sleep(len(piece) / bytes_per_s)
