"""The write side of a link: frames out, never blocking, bounded; and the one lock that orders all commands."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from lasersell_sync._backend import encode_frame
from lasersell_sync.codec import client_message_to_text
from lasersell_sync.exceptions import SendBufferFull, StreamError, TransportError
from lasersell_sync.messages import (
    BalanceUpdate,
    ClientMessage,
    ExitSignalWithTx,
    Ping,
    PositionClosed,
    PositionOpened,
    ServerMessage,
)
from lasersell_sync.positions import OwnSales
from lasersell_sync.runtime.log import logger
from lasersell_sync.stream.desired_state import MAX_PENDING, DesiredState, Dropped
from lasersell_sync.stream.keepalive import OpenPings
from lasersell_sync.stream.transport import Link

__all__ = ["FrameWriter"]

log = logger("stream")

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class FrameWriter:
    """Writes frames to the current link and remembers what must be said again on the next.

    A command goes to the socket on its caller's own thread; what the socket does not take at once waits here, up to
    ``limit_bytes``, and the reader flushes it. "Sent" means written or waiting, not received. What was accepted without
    a link is never refused later: it follows as fast as the new link takes it, and new commands queue behind it.

    Threads: any; the lock inside also guards the DesiredState, so that a command is either in the ``configure`` of a
    connect or sent after it, never neither.
    """

    def __init__(
        self,
        desired: DesiredState,
        *,
        limit_bytes: int,
        wake_reader: Callable[[], None],
        announcements_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Called with a command that will not be sent and why; by the reader, without the lock.
        self.on_dropped: Callable[[ClientMessage, str], None] = lambda *_: None
        self._desired = desired
        self._announcements_s = announcements_s
        self._clock = clock
        #: When the server has announced what it announces; None: it has, or there is no session.
        self._announced_at: float | None = None
        self._limit_bytes = limit_bytes
        self._wake_reader = wake_reader
        # Guards everything below, and the desired state.
        self._lock = threading.Lock()
        #: Threads that are in ``command``, in the lock or on the way there or back.
        self._commanding: set[int] = set()
        #: Commands of signal handlers that interrupted one of these.
        self._behind: deque[tuple[ClientMessage, bool]] = deque()
        self._link: Link | None = None
        self._live = False
        self._waiting = bytearray()
        self._pings = OpenPings()
        self.commands_sent = 0

    # ── commands: any thread ─────────────────────────────────────────────────────────────────────────────────────

    def command(self, message: ClientMessage, *, when_announced: bool = False) -> None:
        """Send now, or hold for the next session.

        Args:
            message: the command.
            when_announced: True: for a wish from before this session. It waits until its position is announced on this
                link, or the time for that is over, and is dropped if the position was closed or opened again.

        Raises:
            SendBufferFull: the link takes nothing and the buffer is full.
            TransportError: there is no link and this command cannot wait for one, or too many wait already.
            ConfigurationError: a value out of its range.

        In a signal handler that interrupted another command on this thread it only queues behind that one; what would
        be raised is then logged.
        """
        text = client_message_to_text(message)
        if self.is_interrupted:
            self._behind.append((message, when_announced))
            return
        with self._may_be_interrupted():
            self._command(message, text, when_announced=when_announced)

    @contextlib.contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        thread = threading.get_ident()
        self._commanding.add(thread)
        try:
            # One that came as the last command ended: before this one, which may be a later handler's.
            self._command_what_is_behind()
            yield
        finally:
            self._command_what_is_behind()
            self._commanding.discard(thread)
        if self._behind:  # a handler came in this moment
            with self._may_be_interrupted():
                pass

    @property
    def is_interrupted(self) -> bool:
        """True in a signal handler that interrupted a command of this thread."""
        return threading.get_ident() in self._commanding

    def _command_what_is_behind(self) -> None:
        while self._behind:
            try:
                message, when_announced = self._behind.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                self._command(message, client_message_to_text(message), when_announced=when_announced)
            except StreamError as error:
                log.warning("%s, given in a signal handler, was not sent: %s", message.type, error)

    def _command(self, message: ClientMessage, text: str, *, when_announced: bool) -> None:
        with self._lock:
            if when_announced and self._can_write() and self._desired.must_wait(message):
                self._desired.hold_back(message)
                return
            for_this_link = self._desired.for_this_link(message)
            if for_this_link is not message:
                message, text = for_this_link, client_message_to_text(for_this_link)
            if self._can_write() and self._desired.has_pending():
                # As much as the link takes now is on its way, and what was accepted before comes first.
                raise SendBufferFull(len(self._waiting), self._limit_bytes)
            written = self._can_write() and self._desired.may_write(message) and self._write_command(message, text)
            if not written and not self._desired.hold(message) and not self._desired.holds_override(message):
                raise TransportError(
                    "link",
                    "stream",
                    f"there is no session now, and {message.type} cannot wait for the next one: a ping, or a "
                    f"position_id that was never announced, means nothing there, "
                    f"or {MAX_PENDING:,} commands wait already",
                )
            self._desired.apply(message, written=written)

    def position_id_of(self, token_account: str) -> int | None:
        """The id under which the server knows this account's position now."""
        if self.is_interrupted:
            return self._desired.position_id_of(token_account)
        with self._may_be_interrupted(), self._lock:
            return self._desired.position_id_of(token_account)

    # ── the session's life: the reader ───────────────────────────────────────────────────────────────────────────

    def begin(self, link: Link) -> None:
        """Take a fresh link and send ``configure`` with everything the user wants by now."""
        with self._lock:
            self._link = link
            self._waiting.clear()
            self._write_text(client_message_to_text(self._desired.configure_message()))

    def go_live(self) -> None:
        """``hello_ok`` came: send what was asked for since ``configure``."""
        with self._lock:
            self._live = True
            self._desired.link_began()
            self._announced_at = self._clock() + self._announcements_s
            self._write_pending()

    def end(self, alive_at: float | None = None) -> None:
        """The link is gone; what it did not take is dropped with it.

        Args:
            alive_at: when its latest byte came, by the monotonic clock; None: none did.
        """
        dropped: list[Dropped] = []
        with self._lock:
            if self._live:
                dropped = self._desired.link_lost(alive_at)
            self._live = False
            self._link = None
            self._announced_at = None
            self._waiting.clear()
            self._pings.forget()
        self._report(dropped)

    def announcements_due_in_s(self) -> float | None:
        """Seconds until commands stop waiting for their position's announcement; None when none of them does."""
        due_at = self._announced_at
        return None if due_at is None else max(0.0, due_at - self._clock())

    def restart_announcements(self) -> None:
        """Nothing was read for a while: the time for announcements, if it is not over, begins again."""
        with self._lock:
            if self._announced_at is not None:
                self._announced_at = self._clock() + self._announcements_s

    def end_announcements(self) -> None:
        """The server has announced what it announces: what waited for it is sent."""
        with self._lock:
            self._announced_at = None
            self._desired.announcements_over()
            self._write_pending()

    def settle(self, alive_at: float | None) -> None:
        """Forget exit requests that have reached the server, for their link still lived at ``alive_at``."""
        with self._lock:
            self._desired.settle(alive_at)

    def app_ping(self) -> None:
        """Send an application ping of our own; its pong is not the user's."""
        message = Ping(client_time_ms=int(time.time() * 1000))
        with self._lock:
            if self._write_text(client_message_to_text(message)):
                self._pings.sent(own=True)

    def pong_came(self) -> tuple[bool, float | None]:
        """(whether the application pong answers one of our own pings, seconds it took)."""
        with self._lock:
            return self._pings.answered()

    def drop_pending(self, message: PositionClosed) -> None:
        """Forget the commands that wait for a position which this message closes, and report them."""
        with self._lock:
            dropped = self._desired.drop_pending(message)
        self._report(dropped)

    def observe(self, message: ServerMessage) -> None:
        """Follow positions, and send what waits for their announcement: an override, a request."""
        with self._lock:
            dropped = self._desired.observe(message)
            if self._desired.has_pending():
                self._write_pending()
        if dropped:
            self._report(dropped)

    def _report(self, dropped: list[Dropped]) -> None:
        for command, reason in dropped:
            self.on_dropped(command, reason)

    def observe_opened(self, message: PositionOpened) -> None:
        """As ``observe``; without the lock when it is no news. Only the reader makes news of positions."""
        if self._lock.locked() or self._desired.learns_from(message):
            self.observe(message)

    def observe_repeat(self, message: PositionOpened) -> None:
        """As ``observe_opened``, when the announcement before this one said the same about the opening."""
        if self._lock.locked() or self._desired.learns_from_repeat(message):
            self.observe(message)

    def observe_exit(self, message: ExitSignalWithTx) -> None:
        """As ``observe``; most exits answer no request of ours, and none should wait for a lock to learn that."""
        if self.awaits_exits:
            self.observe(message)

    @property
    def awaits_exits(self) -> bool:
        """True when an exit signal may answer a request that was sent; without the lock, for the reader."""
        # While a command is being written its answer may come before it is noted as sent; ``observe`` waits for that.
        return self._lock.locked() or bool(self._desired.unanswered)

    def control(self, opcode: int, payload: bytes = b"") -> None:
        """Send a ping, pong or close frame."""
        with self._lock:
            self._write(opcode, payload)

    def flush(self) -> None:
        """Write what waits, as far as the link takes it."""
        with self._lock:
            self._flush()
            self._note_flushed()
            self._write_pending()

    def note_sale(self, message: ExitSignalWithTx, received_ns: int) -> None:
        """Remember an exit signal, which may explain the entry of the next announcement; for the reader."""
        self._desired.note_sale(message, received_ns)

    def note_balance(self, message: BalanceUpdate) -> None:
        """As ``note_sale``."""
        if message.token_account is not None and self._desired.sales.known:
            self._desired.sales.balance((message.wallet_pubkey, message.token_account), message.tokens)

    @property
    def sales(self) -> OwnSales:
        """What the exit signals say about the openings of positions; the reader's."""
        return self._desired.sales

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the link, or in it."""
        link = self._link
        return len(self._waiting) + (0 if link is None else link.unsent_bytes)

    def _can_write(self) -> bool:
        return self._live and self._link is not None

    def _write_pending(self) -> None:
        """Commands that were accepted earlier, as far as there is room; the others go on waiting, and none is lost."""
        with contextlib.suppress(SendBufferFull):
            while self._can_write() and self._desired.has_pending():
                message = self._desired.first_pending()
                if self._write_command(message, client_message_to_text(message)):
                    self._desired.pending_sent()

    def _write_command(self, message: ClientMessage, text: str) -> bool:
        if not self._write_text(text):
            return False
        self._desired.sent(message)
        self._note_flushed()
        if isinstance(message, Ping):
            self._pings.sent(own=False)
        return True

    def _note_flushed(self) -> None:
        if self._link is not None and not self.waiting_bytes:
            self._desired.flushed()

    def _write_text(self, text: str) -> bool:
        written = self._write(TEXT, text.encode())
        self.commands_sent += written
        return written

    def _write(self, opcode: int, payload: bytes) -> bool:
        """True when the link has the frame or it waits here; False when there is no link (any more)."""
        assert self._lock.locked(), "the caller holds the lock"
        if self._link is None:
            return False
        # The mask must be unpredictable (RFC 6455 10.3), so it comes from the system.
        frame = encode_frame(opcode, payload, os.urandom(4))
        if len(self._waiting) + len(frame) > self._limit_bytes and self._waiting:
            raise SendBufferFull(len(self._waiting), self._limit_bytes)
        idle = not self._waiting
        self._waiting += frame
        if idle:
            self._flush()
        if self.waiting_bytes:
            self._wake_reader()
        return self._link is not None

    def _flush(self) -> None:
        assert self._lock.locked(), "the caller holds the lock"
        if self._link is None:
            return
        try:
            self._link.flush()
            while self._waiting:
                with memoryview(self._waiting) as view:
                    taken = self._link.send(view)
                if taken == 0:
                    return
                del self._waiting[:taken]
        except OSError:
            # The reader meets the same broken link on its next read and deals with it there, once, when it has read
            # what had arrived; commands given until then wait for the next link.
            self._link = None
            self._waiting.clear()
            self._wake_reader()
