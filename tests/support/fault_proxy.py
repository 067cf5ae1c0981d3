"""A loopback TCP proxy that misbehaves on demand: the network between a client and a server port, driven by a test.

One thread and one selector move the bytes of all connections. A test changes the weather at run time; every method that
changes it returns once it is in force: after ``black_hole()`` has returned, not one more byte gets through. Chance
(jitter) comes from a seed.

What reached the client is known to the byte: ``Connection.reached_client`` counts what the client's own kernel has
acknowledged, and keeps its value after the connection's end.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import selectors
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

from tests.support.waiting import PATIENCE_S

T = TypeVar("T")
#: ``up`` is from the client to the server.
Which = Literal["up", "down", "both"]
Ending = Literal["reset", "fin"]

#: Bytes of one direction that wait inside the proxy; beyond it TCP pushes back, as a router's queue would.
HELD_BYTES = 2**20
#: A client that ends a connection may have been between its last read and its close when these last bytes came; on a
#: loaded machine a thread stands still that long.
CLOSING_GRACE_S = 0.25
_RESET = struct.pack("ii", 1, 0)


def _listener() -> socket.socket:
    """A listening socket whose port survives a pause in listening: Linux keeps only one that was asked for by number."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    listener.setblocking(False)
    return listener


class Shape:
    """How one direction treats the bytes of every connection."""

    def __init__(self) -> None:
        self.latency_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.slice_bytes: int | None = None
        self.swallows = False
        self.paused = False


class Pipe:
    """One direction of one connection. On the proxy's thread only."""

    def __init__(
        self, source: socket.socket, target: socket.socket, shape: Shape, rand: random.Random, remember_s: float
    ) -> None:
        self.source = source
        self.target = target
        self._shape = shape
        self._rand = rand
        self._remember_s = remember_s
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._free_at = 0.0
        self._blocked = False
        #: Bytes were swallowed: what follows them would be garbage, so nothing ever follows.
        self.holed = False
        self.ended = False
        self.told_end = False
        self.sent = 0
        #: How many more may pass before the connection is cut.
        self.cut_in: int | None = None
        self._recent: deque[tuple[float, int]] = deque([(0.0, 0)])

    def wants_read(self) -> bool:
        return not self.ended and not self._shape.paused and self._held_bytes < HELD_BYTES

    def wants_write(self) -> bool:
        return self._blocked and not self._shape.paused

    def read(self, now: float) -> None:
        """Take in what came; raises OSError when the source was reset."""
        data = self.source.recv(65536)
        if not data:
            self.ended = True
        elif self._shape.swallows or self.holed:
            self.holed = True
        else:
            ready_at = now + self._shape.latency_s + self._rand.random() * self._shape.jitter_s
            if self._held:
                ready_at = max(ready_at, self._held[-1][0])  # TCP keeps the order
            self._held.append((ready_at, data))
            self._held_bytes += len(data)

    def write(self, now: float) -> None:
        """Pass on what is due; raises OSError when the target was reset."""
        self._blocked = False
        shape = self._shape
        while self._held and not shape.paused and self.cut_in != 0:
            if shape.swallows or self.holed:
                self.holed = True
                self._held.clear()
                self._held_bytes = 0
                return
            ready_at, data = self._held[0]
            if max(ready_at, self._free_at) > now:
                return
            piece = data[: self._most(len(data))]
            try:
                count = self.target.send(piece)
            except BlockingIOError:
                self._blocked = True
                return
            self._sent(count, now)
            if count < len(data):
                self._held[0] = (ready_at, data[count:])
            else:
                self._held.popleft()

    def _most(self, count: int) -> int:
        """How many bytes may go in one segment now."""
        shape = self._shape
        if shape.bytes_per_s is not None:
            count = min(count, max(1, int(shape.bytes_per_s / 20)))
        if shape.slice_bytes is not None:
            count = min(count, shape.slice_bytes)
        return count if self.cut_in is None else min(count, self.cut_in)

    def _sent(self, count: int, now: float) -> None:
        self.sent += count
        self._held_bytes -= count
        if self._shape.bytes_per_s is not None:
            self._free_at = now + count / self._shape.bytes_per_s
        if self.cut_in is not None:
            self.cut_in -= count
        while len(self._recent) > 1 and self._recent[1][0] <= now - self._remember_s:
            self._recent.popleft()
        self._recent.append((now, self.sent))

    def due_in_s(self, now: float) -> float | None:
        """Seconds until bytes become due; None when only the sockets can bring news."""
        if not self._held or self._blocked or self._shape.paused or self.cut_in == 0:
            return None
        return max(0.0, max(self._held[0][0], self._free_at) - now)

    def forget(self) -> None:
        """The connection is over: what waits here will never be passed on."""
        self._held.clear()
        self._held_bytes = 0

    def drained(self) -> bool:
        """True when the source has ended and everything before that was passed on."""
        return self.ended and not self._held and not self.holed

    def sent_before_grace(self) -> int:
        """How many bytes had been sent ``remember_s`` ago."""
        moment = time.monotonic() - self._remember_s
        return max(total for at, total in self._recent if at <= moment)


class Connection:
    """One client's connection through the proxy; the counters may be read from any thread."""

    def __init__(self, number: int, client: socket.socket, server: socket.socket | None, pipes: list[Pipe]) -> None:
        #: From 1, in the order of arrival.
        self.number = number
        self.client = client
        self.server = server
        self.pipes = pipes
        #: Which connection this is from the server's side: the port it sees as its peer's.
        self.server_sees_port = 0 if server is None else server.getsockname()[1]
        self.opened_at = time.monotonic()
        self.client_gone = False
        self.close_at: float | None = None
        self.closed = threading.Event()
        self.cut_how: Ending = "reset"
        self._reached: int | None = None

    @property
    def reached_client(self) -> int:
        """Bytes that the client's kernel has acknowledged: they wait in its socket, or it has read them.

        When it was the client that ended the connection, those of the last moment (``closing_grace_s``) before that do
        not count.
        """
        return self._acknowledged() if self._reached is None else self._reached

    @property
    def sent_to_client(self) -> int:
        """Bytes handed to the socket towards the client."""
        return self.pipes[1].sent if self.pipes else 0

    @property
    def sent_to_server(self) -> int:
        """Bytes handed to the socket towards the server."""
        return self.pipes[0].sent if self.pipes else 0

    def _acknowledged(self) -> int:
        if not self.pipes:
            return 0
        sent = self.pipes[1].sent
        try:
            waiting = struct.unpack("i", fcntl.ioctl(self.client.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        except (OSError, ValueError):
            return 0
        return max(0, sent - waiting)

    def freeze(self, *, by_client: bool) -> None:
        """Note what reached the client, before its socket goes."""
        if self._reached is None:
            reached = self._acknowledged()
            if by_client and self.pipes:
                reached = min(reached, self.pipes[1].sent_before_grace())
            self._reached = reached


class FaultProxy:
    """Listens on a free loopback port and passes connections on to ``server_port``.

    Threads: every method from any; owns the thread ``fault-proxy``.
    """

    def __init__(
        self, server_port: int, *, seed: int = 0, host: str = "127.0.0.1", closing_grace_s: float = CLOSING_GRACE_S
    ) -> None:
        self._server_address = (host, server_port)
        self._rand = random.Random(seed)
        self._closing_grace_s = closing_grace_s
        self._up = Shape()
        self._down = Shape()
        self._listener = _listener()
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._jobs: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._refusing = False
        self._dropping = False
        self._next_cut: tuple[int, Ending] | None = None
        #: Guards ``connections`` for those who wait.
        self._arrived = threading.Condition()
        #: Every connection so far, the accept-and-dropped ones included.
        self.connections: list[Connection] = []
        self._open: list[Connection] = []
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()

    # ── looking on ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        """The stream's URL through this proxy."""
        return f"ws://127.0.0.1:{self.port}/v1/ws"

    @property
    def accepted(self) -> int:
        """How many connections came so far."""
        return len(self.connections)

    @property
    def open_connections(self) -> int:
        """How many are open on the client's side."""
        return len([connection for connection in list(self._open) if not connection.client_gone])

    @property
    def bytes_up(self) -> int:
        """Passed on to the server so far."""
        return sum(connection.sent_to_server for connection in list(self.connections))

    @property
    def bytes_down(self) -> int:
        """Passed on to clients so far."""
        return sum(connection.sent_to_client for connection in list(self.connections))

    def settled(self) -> None:
        """Return when everything that has been passed on by now is counted."""
        self._on_loop(lambda: None)

    def wait_for_connection(self, number: int = 1, timeout_s: float = PATIENCE_S) -> Connection:
        """The ``number``-th connection since the start; fails when it does not come in time."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.connections) >= number, timeout_s)
            assert came, f"connection {number} did not come within {timeout_s} s; there were {len(self.connections)}"
            return self.connections[number - 1]

    # ── the weather ──────────────────────────────────────────────────────────────────────────────────────────────

    def shape(
        self,
        which: Which = "both",
        *,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        bytes_per_s: float | None = None,
        slice_bytes: int | None = None,
    ) -> None:
        """Delay, throttle and slice from now on; without values: not at all."""

        def change() -> None:
            for shape in self._shapes(which):
                shape.latency_s, shape.jitter_s = latency_s, jitter_s
                shape.bytes_per_s, shape.slice_bytes = bytes_per_s, slice_bytes

        self._on_loop(change)

    def black_hole(self, which: Which = "both") -> None:
        """Swallow everything, the ends of connections included; sockets stay open, new ones are accepted."""
        self._on_loop(lambda: self._set(which, "swallows", value=True))

    def pause(self, which: Which = "both") -> None:
        """Pass nothing on and read nothing; nothing is lost."""
        self._on_loop(lambda: self._set(which, "paused", value=True))

    def resume(self, which: Which = "both") -> None:
        """End ``pause``: what waited goes on its way."""
        self._on_loop(lambda: self._set(which, "paused", value=False))

    def heal(self) -> None:
        """Fair weather again. Connections that lost bytes stay dead; the server's ends of orphans are reset."""

        def change() -> None:
            for shape in (self._up, self._down):
                shape.__init__()  # type: ignore[misc]
            self._dropping = False
            self._next_cut = None
            self._listen()
            for connection in list(self._open):
                if connection.client_gone:
                    self._end(connection, "reset", by_client=True)

        self._on_loop(change)

    def reset(self) -> int:
        """Tear down every connection by RST on both sides; how many there were. What was in flight here is lost."""
        return self._on_loop(lambda: self._end_all("reset"))

    def fin(self) -> int:
        """End every connection in order, without a word of WebSocket; how many there were."""
        return self._on_loop(lambda: self._end_all("fin"))

    def slow_close(self, after_s: float) -> None:
        """Say FIN to the clients now, and close ``after_s`` later; what they still send is swallowed."""

        def change() -> None:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.client.shutdown(socket.SHUT_WR)
                connection.close_at = time.monotonic() + after_s
                for pipe in connection.pipes:
                    pipe.holed = True

        self._on_loop(change)

    def half_open(self) -> None:
        """Close the server's side; the clients' sockets stay open and silent, as after a server's power cut."""

        def change() -> None:
            for connection in self._open:
                for pipe in connection.pipes:
                    pipe.holed = True
                if connection.server is not None:
                    self._close(connection.server, reset=True)
                    connection.server = None

        self._on_loop(change)

    def cut_after(self, count: int, how: Ending = "reset") -> None:
        """Let exactly ``count`` more bytes through to each client, then end it; with none open: to the next one."""

        def change() -> None:
            if not self._open:
                self._next_cut = (count, how)
            for connection in list(self._open):
                connection.pipes[1].cut_in = count
                connection.cut_how = how

        self._on_loop(change)

    def inject(self, data: bytes) -> None:
        """Slip bytes of nobody's into every stream towards the clients, at once."""

        def change() -> None:
            for connection in self._open:
                # One that the client has left may still be here.
                with contextlib.suppress(ConnectionError):
                    if connection.client.send(data) != len(data):
                        raise AssertionError("the client's socket takes no more")

        self._on_loop(change)

    def refuse(self) -> None:
        """New connections meet a closed port; open ones live on."""

        def change() -> None:
            if not self._refusing:
                self._refusing = True
                self._selector.unregister(self._listener)
                # Linux keeps the port for us while nothing listens on it, so nobody else can take it meanwhile.
                self._listener.shutdown(socket.SHUT_RDWR)

        self._on_loop(change)

    def accept(self) -> None:
        """End ``refuse`` and ``accept_and_drop``."""

        def change() -> None:
            self._dropping = False
            self._listen()

        self._on_loop(change)

    def accept_and_drop(self) -> None:
        """New connections are accepted and ended at once."""
        self._on_loop(lambda: setattr(self, "_dropping", True))

    def stop(self) -> None:
        """Take everything down; idempotent."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._on_loop(lambda: setattr(self, "_stopping", True))
            self._thread.join(PATIENCE_S)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_loop(self, job: Callable[[], T]) -> T:
        """Run on the proxy's thread, between two rounds; returns when it is done."""
        done = threading.Event()
        result: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                result.append(job())
            except BaseException as error:
                errors.append(error)
            finally:
                done.set()

        if not self._thread.is_alive():
            raise RuntimeError("the proxy has stopped")
        self._jobs.append(run)
        # The thread may have been awake, done the job, and, when that was to stop, closed this socket already.
        with contextlib.suppress(OSError):
            self._wake_w.send(b"\0")
        assert done.wait(PATIENCE_S), "the proxy's thread does not answer"
        if errors:
            raise errors[0]
        return result[0]

    def _shapes(self, which: Which) -> Iterator[Shape]:
        if which != "down":
            yield self._up
        if which != "up":
            yield self._down

    def _set(self, which: Which, name: str, *, value: bool) -> None:
        for shape in self._shapes(which):
            setattr(shape, name, value)

    def _listen(self) -> None:
        if self._refusing:
            self._refusing = False
            self._listener.listen(64)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._round()
        finally:
            for connection in list(self._open):
                self._end(connection, "reset", by_client=False)
            self._selector.close()
            for sock in (self._listener, self._wake_r, self._wake_w):
                sock.close()

    def _round(self) -> None:
        self._interests()
        for key, _ in self._selector.select(self._due_in_s()):
            if key.fileobj is self._wake_r:
                self._wake_r.recv(4096)
            elif key.fileobj is self._listener:
                self._accept()
        while self._jobs:
            self._jobs.popleft()()
        now = time.monotonic()
        for connection in list(self._open):
            self._move(connection, now)

    def _due_in_s(self) -> float | None:
        now = time.monotonic()
        dues: list[float | None] = [pipe.due_in_s(now) for connection in self._open for pipe in connection.pipes]
        dues += [max(0.0, c.close_at - now) for c in self._open if c.close_at is not None]
        return min((due for due in dues if due is not None), default=None)

    def _interests(self) -> None:
        wanted: dict[socket.socket, int] = {}
        for connection in self._open:
            for pipe in connection.pipes:
                if pipe.wants_read() and pipe.source.fileno() >= 0:
                    wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
                if pipe.wants_write() and pipe.target.fileno() >= 0:
                    wanted[pipe.target] = wanted.get(pipe.target, 0) | selectors.EVENT_WRITE
        for key in list(self._selector.get_map().values()):
            sock: Any = key.fileobj
            if sock is self._wake_r or sock is self._listener:
                continue
            events = wanted.pop(sock, 0)
            if not events:
                self._selector.unregister(sock)
            elif events != key.events:
                self._selector.modify(sock, events)
        for sock, events in wanted.items():
            self._selector.register(sock, events)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = self._connect(client)
            with self._arrived:
                self.connections.append(connection)
                self._arrived.notify_all()

    def _connect(self, client: socket.socket) -> Connection:
        number = len(self.connections) + 1
        server = None
        if not self._dropping:
            with contextlib.suppress(OSError):
                # The server is on this machine: it answers or refuses at once.
                server = socket.create_connection(self._server_address, 1.0)
        if server is None:
            connection = Connection(number, client, None, [])
            connection.freeze(by_client=False)
            client.close()
            connection.closed.set()
            return connection
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipes = [
            Pipe(source, target, shape, self._rand, self._closing_grace_s)
            for source, target, shape in ((client, server, self._up), (server, client, self._down))
        ]
        connection = Connection(number, client, server, pipes)
        if self._next_cut is not None:
            pipes[1].cut_in, connection.cut_how = self._next_cut
            self._next_cut = None
        self._open.append(connection)
        return connection

    def _move(self, connection: Connection, now: float) -> None:
        if connection.close_at is not None and now >= connection.close_at:
            self._end(connection, "fin", by_client=False)
            return
        for pipe in connection.pipes:
            self._move_pipe(connection, pipe, now)
            if connection.closed.is_set():
                return
        up, down = connection.pipes
        if down.cut_in == 0:
            self._end(connection, connection.cut_how, by_client=False)
        elif up.told_end and down.told_end:
            self._end(connection, "fin", by_client=up.told_end)

    def _move_pipe(self, connection: Connection, pipe: Pipe, now: float) -> None:
        from_client = pipe is connection.pipes[0]
        if pipe.wants_read() and pipe.source.fileno() >= 0:
            try:
                pipe.read(now)
            except BlockingIOError:
                pass
            except OSError:
                pipe.ended = True
                if not self._lost(connection, pipe, from_client=from_client):
                    self._end(connection, "reset", by_client=from_client)
                    return
        if pipe.ended and from_client:
            connection.freeze(by_client=True)
        try:
            pipe.write(now)
        except OSError:
            self._end(connection, "reset", by_client=not from_client)
            return
        if pipe.ended and self._lost(connection, pipe, from_client=from_client):
            return
        if pipe.drained() and not pipe.told_end:
            pipe.told_end = True
            with contextlib.suppress(OSError):
                pipe.target.shutdown(socket.SHUT_WR)

    def _lost(self, connection: Connection, pipe: Pipe, *, from_client: bool) -> bool:
        """True when the end of a source falls into a black hole: the other side learns nothing of it."""
        if not (pipe.holed or (self._up if from_client else self._down).swallows):
            return False
        pipe.holed = True
        if from_client and not connection.client_gone:
            connection.client_gone = True
            connection.freeze(by_client=True)
            self._close(connection.client, reset=False)
            if connection.server is None:
                self._end(connection, "fin", by_client=True)
        return True

    def _end_all(self, how: Ending) -> int:
        ended = [connection for connection in list(self._open) if not connection.client_gone]
        for connection in ended:
            self._end(connection, how, by_client=False)
        return len(ended)

    def _end(self, connection: Connection, how: Ending, *, by_client: bool) -> None:
        connection.freeze(by_client=by_client)
        for sock in (connection.client, connection.server):
            if sock is not None:
                self._close(sock, reset=how == "reset")
        for pipe in connection.pipes:
            pipe.forget()
        if connection in self._open:
            self._open.remove(connection)
        connection.closed.set()

    def _close(self, sock: socket.socket, *, reset: bool) -> None:
        if sock.fileno() < 0:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        with contextlib.suppress(OSError):
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                # Unread bytes in a socket's buffer would turn its close into a RST.
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        sock.close()
