"""Recordings: writing what a session receives and what nodes answer its guard, reading it, and replaying it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import queue
import secrets
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import attrs

from lasersell_sync._version import __version__
from lasersell_sync.codec import server_message_from_text, server_message_to_text
from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, LaserSellError, TxSubmitError
from lasersell_sync.messages import ServerMessage, StrategyConfig
from lasersell_sync.runtime.fork_guard import ProcessGuard, refuse_late_patching
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget, wait_s
from lasersell_sync.session.dispatch import Dispatch
from lasersell_sync.session.stream_session import StreamSession
from lasersell_sync.stream.client import StreamClient
from lasersell_sync.stream.connection import StreamConnection
from lasersell_sync.stream.options import StreamConfigure, StreamOptions
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.solana.send_targets import SendTargetRpc

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Exchange", "RecordedFrame", "Recorder", "Recording", "RecordingError", "answering", "replay", "taping"]

log = logger("recording")


# ── What a guard asks its Solana nodes, written down, and answered again from what was written down ─────────────────


#: One question and its answer: ``node`` (from 0), ``method``, ``params``, and ``result`` or ``error``.
Exchange = Mapping[str, Any]

#: Of a ``TxSubmitError``; its other attributes name the node.
_ERROR_FIELDS: Final = ("detail", "status", "code")


def taping(guard: SigningGuard, take: Callable[[Exchange], None]) -> SigningGuard:
    """A guard like this one, that hands every exchange with its nodes to ``take``, on the threads that ask."""
    targets = [_TapedTarget(**_arguments(target), number=n, take=take) for n, target in enumerate(guard.rpc)]
    return guard.with_rpc(targets) if targets else guard


def answering(guard: SigningGuard, exchanges: Iterable[Exchange]) -> SigningGuard:
    """A guard like this one, whose nodes are those of a recording: nothing is sent anywhere."""
    tape = _Tape(exchanges)
    targets = [
        _RecordedTarget(f"https://node-{number}.recorded.invalid", number=number, tape=tape)
        for number in range(tape.nodes)
    ]
    return guard.with_rpc(targets) if targets else guard


def _arguments(target: SendTargetRpc) -> dict[str, Any]:
    return {field.name: getattr(target, field.name) for field in attrs.fields(SendTargetRpc) if field.init}


@attrs.frozen(kw_only=True)
class _TapedTarget(SendTargetRpc):
    """A node that is asked, and whose exchanges are handed over."""

    number: int = attrs.field(eq=False)
    take: Callable[[Exchange], None] = attrs.field(eq=False, repr=False)

    def asked_through(self, client: Any) -> Any:
        return _TapedClient(client, self.number, self.take)


@attrs.frozen(kw_only=True)
class _RecordedTarget(SendTargetRpc):
    """A node that is not asked."""

    number: int = attrs.field(eq=False)
    tape: _Tape = attrs.field(eq=False, repr=False)

    def asked_through(self, client: Any) -> Any:
        return _RecordedNode(client.label, self.number, self.tape)


class _TapedClient:
    """In the place of an ``RpcClient``."""

    def __init__(self, client: Any, number: int, take: Callable[[Exchange], None]) -> None:
        self.label = client.label
        self._client = client
        self._number = number
        self._take = take

    def held_for_s(self) -> float:
        held_s: float = self._client.held_for_s()
        return held_s

    def call(self, method: str, params: list[Any], *, budget: TimeBudget, secrets: tuple[str, ...] = ()) -> Any:
        question = {"node": self._number, "method": method, "params": params}
        try:
            result = self._client.call(method, params, budget=budget, secrets=secrets)
        except TxSubmitError as error:
            words = {name: getattr(error, name) for name in _ERROR_FIELDS}
            self._take({**question, "error": {"kind": error.kind, **words}})
            raise
        self._take({**question, "result": result})
        return result

    def warm(self, path: str | None, *, budget: TimeBudget) -> None:
        self._client.warm(path, budget=budget)


class _RecordedNode:
    """In the place of an ``RpcClient``."""

    def __init__(self, label: str, number: int, tape: _Tape) -> None:
        self.label = label
        self._number = number
        self._tape = tape

    def held_for_s(self) -> float:
        return 0.0

    def call(self, method: str, params: list[Any], *, budget: TimeBudget, secrets: tuple[str, ...] = ()) -> Any:
        del budget, secrets
        answer = self._tape.next(self._number, method, params)
        if answer is None:
            problem = f"the recording has no answer to this {method}"
            raise TxSubmitError("response_read", problem, target=self.label)
        if "error" in answer:
            error = answer["error"]
            raise TxSubmitError(
                error["kind"], error["detail"], target=self.label, status=error["status"], code=error["code"]
            )
        return answer.get("result")

    def warm(self, path: str | None, *, budget: TimeBudget) -> None:
        """There is no connection."""


class _Tape:
    """Recorded answers, by question; of several to one question the first first, and the last again and again.

    Threads: any.
    """

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self._lock = threading.Lock()
        self._answers: defaultdict[str, deque[Exchange]] = defaultdict(deque)
        self.nodes = 0
        for exchange in exchanges:
            self.nodes = max(self.nodes, exchange["node"] + 1)
            self._answers[_key(exchange["node"], exchange["method"], exchange["params"])].append(exchange)

    def next(self, node: int, method: str, params: list[Any]) -> Exchange | None:
        """The next answer to a question; None: it was not asked."""
        with self._lock:
            answers = self._answers.get(_key(node, method, params))
            if not answers:
                return None
            return answers.popleft() if len(answers) > 1 else answers[0]


def _key(node: int, method: str, params: list[Any]) -> str:
    return json.dumps([node, method, params], sort_keys=True)


# ── Record what a session receives, and play it back ────────────────────────────────────────────────────────────────
# A recording is a gzip file of JSON lines: a header, then one line per text frame with the microseconds since the
# first (docs/recording.md has the format). It holds what the server sent and nothing of what was sent to it: no API
# key, no keypair, no signature. Who may read it learns the wallets, their positions and trades.


FORMAT: Final = "lasersell-recording"
VERSION: Final = 1
#: Frames that wait for the disk, at the most; beyond it they are dropped and counted, because the stream goes first.
MAX_WAITING_BYTES: Final = 64 * 2**20
#: What a crash may cost: how long written lines may stay in the compressor.
FLUSH_INTERVAL_S: Final = 1.0
_COMPRESSION: Final = 3
_GZIP: Final = 16 + zlib.MAX_WBITS
_READABLE_BY_OWNER: Final = 0o600
_LINES_AT_ONCE: Final = 1024

#: For a replay that is told no other: nobody reads it there, but a session must have a wallet and an exit.
_ANY_CONFIGURE: Final = StreamConfigure(["1" * 32], StrategyConfig(target_profit_pct=100.0, stop_loss_pct=0.0))
#: Links that end within moments are no reason to wait.
_REPLAY_OPTIONS: Final = StreamOptions(initial_backoff_s=0.001, max_backoff_s=0.01, stable_after_s=0.001)


class RecordingError(LaserSellError, ValueError):
    """A file that is no recording, or one that is damaged.

    Attributes:
        path: the file.
        line: from 1; None when the file as a whole cannot be read.
        problem: what is wrong, and what to do.
    """

    def __init__(self, path: str, problem: str, *, line: int | None = None) -> None:
        self.path = path
        self.problem = problem
        self.line = line

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f', line {self.line}'}: {self.problem}"


# ── recording ────────────────────────────────────────────────────────────────────────────────────────────────────


class Recorder:
    """Writes every text frame that a session receives to a file, beside whoever consumes the session.

    ::

        with Recorder("today.jsonl.gz") as recorder:
            session = StreamSession.connect(recorder.wrap(client), configure)

    Use as a context manager, or ``close`` it: the last second may be missing from a file that was not closed. A disk
    that is full or too slow costs frames of the recording, never of the session.

    Args:
        path: the file to make; readable by its owner alone.

    Raises:
        ConcurrencyError: gevent or eventlet came too late.
        ConfigurationError: the file exists already, or cannot be made.

    Threads: ``lasersell-recorder`` writes. Every method may be called from any thread.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        refuse_late_patching()
        self.path = Path(path)
        self._file = _LineFile(_create(self.path))
        header = {"format": FORMAT, "version": VERSION, "library": __version__, "started_at_ms": _now_ms()}
        self._file.write([json.dumps(header).encode("ascii") + b"\n"])
        #: Payload, when it came, and whether it is an exchange of a guard with a node.
        self._frames: queue.SimpleQueue[tuple[bytes, int, bool] | None] = queue.SimpleQueue()
        #: Each is written by one thread only, the tap's or the writer's: no lock is needed.
        self._taken_bytes = 0
        self._written_bytes = 0
        self._dropped = 0
        self._written = 0
        #: What ended the writing before ``close``.
        self.error: OSError | None = None
        # Guards the next three.
        self._lock = signal_safe_lock()
        self._guard = ProcessGuard("recorder")
        self._connection: StreamConnection | None = None
        self._remove_tap = _nothing
        self._closed = False
        #: Never in the file, even if a server quotes it.
        self._api_key = b""
        self._first_ns: int | None = None
        self._thread = threading.Thread(target=self._write_all, name="lasersell-recorder", daemon=True)
        self._thread.start()

    # ── what to record ───────────────────────────────────────────────────────────────────────────────────────────

    def wrap(self, client: StreamClient) -> StreamClient:
        """A client like this one, whose connections are recorded from their first frame on."""
        return _RecordedClient(client, self)

    def wrap_guard(self, guard: SigningGuard) -> SigningGuard:
        """A guard like this one, whose questions to its nodes are recorded with their answers.

        ``Recording.guard`` gives a replay the same answers. Without this, a replay cannot simulate anything.
        """
        return taping(guard, self._take_exchange)

    def attach(self, source: StreamSession | StreamConnection) -> None:
        """Record a session that runs already, from now on; its latest ``hello_ok`` is written first.

        What it received before is not in the recording: positions that are open now are unknown to a replay until the
        server announces them again.

        Raises:
            ConcurrencyError: the recorder is closed, or records another connection that is still alive.
        """
        connection = source if isinstance(source, StreamConnection) else source.connection
        with self._lock:
            if self._closed:
                raise ConcurrencyError("this recorder is closed; make one for each recording")
            if self._connection is not None and not self._connection.reader.lifecycle.ended:
                raise ConcurrencyError("this recorder has a connection already; make one for each connection")
            self._remove_tap()
            self._connection = connection
            _, api_key = connection._identity
            self._api_key = api_key.encode()
            hello = connection.reader.hello
            if hello is not None:
                self._take(server_message_to_text(hello).encode(), time.monotonic_ns())
            self._remove_tap = connection.tap(self._take)

    def close(self, timeout: float | None = 5.0) -> None:
        """Write what waits and end the recording; idempotent. The session goes on.

        Args:
            timeout: seconds to wait for the disk.

        Raises:
            OSError: the file could not be written to its end; ``error`` tells before ``close``.
        """
        if self._guard.is_child:
            return  # the file is the parent's
        with self._lock:
            self._remove_tap()
            self._closed = True
            # Each call puts its own: a signal handler may have interrupted another call right here, and waits below.
            self._frames.put(None)
        self._thread.join(wait_s(timeout))
        if self._thread.is_alive():
            log.warning("the recording %s is not written yet after %s s; its last frames may be missing", self, timeout)
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def frames_written(self) -> int:
        """Frames in the file so far."""
        return self._written

    @property
    def frames_dropped(self) -> int:
        """Frames that are not in the file, because the disk was full or too slow."""
        return self._dropped

    # ── on the reader thread ─────────────────────────────────────────────────────────────────────────────────────

    def _take_exchange(self, exchange: Exchange) -> None:
        self._take(json.dumps(exchange).encode("ascii"), time.monotonic_ns(), is_exchange=True)

    def _take(self, payload: bytes, received_ns: int, *, is_exchange: bool = False) -> None:
        """Hand a frame to the writer; never waits."""
        if self.error is not None or self._taken_bytes - self._written_bytes > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._taken_bytes += len(payload)
        self._frames.put((payload, received_ns, is_exchange))

    # ── on the writer thread ─────────────────────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        try:
            while self._write_some():
                pass
        except OSError as error:
            self.error = error
            log.warning("the recording %s ends here, the session goes on: %s", self.path, error)
        finally:
            self._file.close(whole=self.error is None)

    def _write_some(self) -> bool:
        """Wait for frames and write them; False after the last."""
        try:
            batch = [self._frames.get(timeout=FLUSH_INTERVAL_S if self._file.unflushed else None)]
        except queue.Empty:
            self._file.flush()
            return True
        with contextlib.suppress(queue.Empty):
            while len(batch) < _LINES_AT_ONCE:
                batch.append(self._frames.get_nowait())
        frames = [frame for frame in batch if frame is not None]
        self._file.write([self._line(*frame) for frame in frames])
        # Not before: whoever sees the count finds the frames in the file.
        self._written += sum(not is_exchange for _, _, is_exchange in frames)
        self._written_bytes += sum(len(payload) for payload, _, _ in frames)
        return None not in batch

    def _line(self, payload: bytes, received_ns: int, is_exchange: bool) -> bytes:  # noqa: FBT001 - from the queue
        if self._first_ns is None:
            self._first_ns = received_ns
        # A frame may have been read just before the ``hello_ok`` that ``attach`` wrote ahead of it.
        at_us = max(0, received_ns - self._first_ns) // 1000
        payload = payload.replace(self._api_key, b"[redacted]") if self._api_key else payload
        text = payload.decode("utf-8", "surrogateescape")
        if is_exchange:
            return f'{{"at_us":{at_us},{text[1:]}\n'.encode("ascii")
        # By hand, for a full stream has 200,000 of them a second. In ASCII, so that a byte that is no UTF-8 (a lone
        # surrogate by now) survives as an escape.
        return f'{{"at_us":{at_us},"frame":{json.dumps(text)}}}\n'.encode("ascii")

    def __repr__(self) -> str:
        return f"<Recorder {self.path} frames={self._written}>"


class _RecordedClient(StreamClient):
    """A client whose connections are recorded from their first frame on."""

    def __init__(self, client: StreamClient, recorder: Recorder) -> None:
        vars(self).update(vars(client))  # the same key, options and endpoint
        self._recorder = recorder

    def prepare(self, configure: StreamConfigure) -> StreamConnection:
        """A connection that is not open yet, and is tapped already."""
        connection = super().prepare(configure)
        self._recorder.attach(connection)
        return connection


class _LineFile:
    """A gzip file that lines are appended to; it writes when told to, and never because it is garbage.

    (``gzip.GzipFile`` writes its end when it is collected: in a forked child, into the parent's file.)

    Threads: one at a time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._compressor = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, _GZIP)
        #: True while a crash would lose lines.
        self.unflushed = False
        self._flushed_at = time.monotonic()

    def write(self, lines: list[bytes]) -> None:
        """Append lines; a reader sees them after at most ``FLUSH_INTERVAL_S``."""
        self._put(self._compressor.compress(b"".join(lines)))
        self.unflushed = True
        if time.monotonic() - self._flushed_at > FLUSH_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Let a reader see every line."""
        self._put(self._compressor.flush(zlib.Z_SYNC_FLUSH))
        self.unflushed = False
        self._flushed_at = time.monotonic()

    def close(self, *, whole: bool) -> None:
        """End the file; one that could not be written stays without its end."""
        try:
            if whole:
                self._put(self._compressor.flush(zlib.Z_FINISH))
        finally:
            os.close(self._descriptor)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags, _READABLE_BY_OWNER)
    except FileExistsError:
        raise ConfigurationError(
            "path", f"{path} exists already: a recording is not written over another file"
        ) from None
    except OSError as error:
        raise ConfigurationError("path", f"{path} cannot be made: {error.strerror}") from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _nothing() -> None:
    """No tap to remove."""


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class RecordedFrame:
    """One text frame.

    Attributes:
        at_us: microseconds since the recording's first frame.
        payload: as received.
    """

    at_us: int
    payload: bytes

    def message(self) -> ServerMessage:
        """The frame, decoded. Raises DecodeError."""
        return server_message_from_text(self.payload)


class Recording:
    """A recording on disk.

    Attributes:
        path: the file.
        started_at_ms: when it was begun, Unix milliseconds by the recording machine's clock.
        library: version of lasersell_sync that wrote it.

    Raises:
        RecordingError: it is not a recording, or one of a newer version.
        OSError: the file cannot be opened.

    Threads: any; ``frames`` reads the file anew each time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _, header = next(self._lines(), (1, {}))
        if header.get("format") != FORMAT:
            raise RecordingError(str(self.path), "it is not a recording; Recorder makes one")
        if header.get("version") != VERSION:
            raise RecordingError(
                str(self.path),
                f"its format has version {header.get('version')!r}, this library reads {VERSION}: update it",
            )
        self.started_at_ms = header.get("started_at_ms")
        self.library = header.get("library")

    def frames(self) -> Iterator[RecordedFrame]:
        """Every frame, in order. A file that was not closed ends where it was cut, with a warning in the log.

        Raises:
            RecordingError: a line is damaged; the frames before it were given.
        """
        for number, line in self._lines():
            if number == 1 or "method" in line:
                continue
            at_us, text = line.get("at_us"), line.get("frame")
            if not isinstance(at_us, int) or not isinstance(text, str):
                raise RecordingError(str(self.path), "it needs at_us, an integer, and frame, a text", line=number)
            yield RecordedFrame(at_us, text.encode("utf-8", "surrogateescape"))

    def exchanges(self) -> Iterator[Exchange]:
        """What a guard asked its nodes, and what they answered (``Recorder.wrap_guard``), in order.

        Raises:
            RecordingError: a line is damaged; the exchanges before it were given.
        """
        for number, line in self._lines():
            if number > 1 and "method" in line:
                if not isinstance(line.get("node"), int) or not isinstance(line.get("params"), list):
                    raise RecordingError(str(self.path), "it needs node, an integer, and params, a list", line=number)
                yield line

    def guard(self, guard: SigningGuard) -> SigningGuard:
        """A guard with the same options that gets the recorded answers of its nodes, and asks nobody.

        Raises:
            RecordingError: as ``exchanges``.
        """
        return answering(guard, self.exchanges())

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        with gzip.open(self.path, "rb") as file:
            try:
                for number, line in enumerate(file, 1):
                    yield number, self._parsed(line, number)
            except EOFError:
                log.warning("%s was not closed: it ends after line %d", self.path, number)
            except (gzip.BadGzipFile, zlib.error) as error:
                raise RecordingError(str(self.path), f"it is no whole gzip file: {error}", line=number + 1) from error

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise RecordingError(str(self.path), f"it is not JSON: {error}", line=number) from error
        if not isinstance(fields, dict):
            raise RecordingError(str(self.path), "it is not a JSON object", line=number)
        return fields

    def __repr__(self) -> str:
        return f"<Recording {self.path}>"


# ── replaying ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def replay(
    recording: Recording | str | os.PathLike[str],
    configure: StreamConfigure | None = None,
    *,
    speed: float | None = None,
    options: StreamOptions | None = None,
    dispatch: Dispatch = "thread",
) -> Iterator[StreamSession]:
    """A session that receives what was recorded, and ends by itself after the last frame.

    ::

        with replay("today.jsonl.gz", speed=10) as session:
            for event in session:
                bot.handle(event)

    It is a StreamSession like any other, over a loopback connection to a server in this process: positions, deadlines
    and lost links (where the recording has one) behave as they do live. Commands go nowhere. The session's own time
    limits run in real time, whatever the speed.

    At every speed the order is the recording's: the next frame comes when the consumer has taken the last event. The
    replay waits for its consumer. Only beside an AutoSeller, ``tap()`` or ``wait_for`` does it go on after a second
    without one, and a later consumer's first event is ``lagged``.

    Args:
        recording: or its path.
        configure: for the deadline; the server's part of it is not looked at. None for no deadline.
        speed: 1.0 as recorded, 10.0 ten times as fast; None as fast as the consumer takes them.
        options: their ``low_lane`` and capacities mean nothing here: nothing is conflated, dropped or overtaken.
        dispatch: as ``StreamSession.connect``.

    Raises:
        RecordingError: the file is no recording, or an empty one; or, when the block ends, it is damaged further on.
        ConfigurationError: a speed that makes no sense.
        ImportError: the extra ``sandbox`` is missing; with the line that installs it.
    """
    # The one edge to the sandbox, whose server plays; it loads only for those who use it.
    from lasersell_sync.sandbox.servers.replay_server import ReplayServer

    source = recording if isinstance(recording, Recording) else Recording(recording)
    if next(source.frames(), None) is None:
        raise RecordingError(str(source.path), "it holds no frame: nothing was received while it was open")
    api_key = secrets.token_hex()  # nobody else on this machine gets the recording
    try:
        server = ReplayServer(
            lambda: timed_frames(source), api_key=api_key, port=0, speed=speed, in_step=True, close_at_end=False
        )
    except ValueError as error:
        raise ConfigurationError("speed", str(error)) from error
    with server:
        # One event waits at the most, so one frame is on its way, and the server waits until it was read.
        in_step = attrs.evolve(options or _REPLAY_OPTIONS, low_lane="lossless", low_capacity=1, high_capacity=1)
        client = StreamClient(api_key, options=in_step).with_endpoint(server.stream_url)
        connection = client.prepare(configure or _ANY_CONFIGURE)
        with StreamSession.over(connection, dispatch=dispatch, waits_for_consumer=True) as session:
            server.when_finished(session.connection.stop_soon)
            yield session
    if server.error is not None:
        raise server.error


def timed_frames(recording: Recording) -> Iterator[tuple[int, str]]:
    """The frames as the sandbox's ``ReplayServer`` takes them."""
    for frame in recording.frames():
        yield frame.at_us, frame.payload.decode("utf-8", "surrogateescape")
