"""The loop that waits for the link, reads it and feeds the message pipeline; TLS records."""

from __future__ import annotations

import errno
import math
import select
import time
from collections.abc import Callable
from typing import Any, Protocol

from lasersell_sync._pure.frames import FrameParser
from lasersell_sync._pure.message_pipeline import EventRouter, MessagePipeline, receive

__all__ = ["ReceiveLoop", "read_records"]


# ── Waiting for the link, and taking in what comes, until there is something for others to see to ───────────────────


#: POLLIN and POLLOUT, by their numbers (the same on every POSIX system that has poll), for eventlet takes them away.
READABLE, WRITABLE = 0x1, 0x4
#: What else ``serve`` returns.
WOKEN, DUE, BROKEN, STRANGE = 0x100, 0x200, 0x400, 0x800
#: Header and payload of the longest control frame (RFC 6455 5.5); what is longer is part of a message.
MAX_CONTROL_FRAME_BYTES = 127
#: Runs on while the machine is suspended, and the monotonic clock does not (Linux).
BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


class _Fileno(Protocol):
    def fileno(self) -> int: ...


class _Lanes(Protocol):
    def wake(self) -> None: ...
    def full(self) -> bool: ...


class ReceiveLoop:
    """Waits for a link, and takes in what comes.

    Args:
        pipeline: is fed with what is read.
        parser: the pipeline's.
        taps: its ``hearer`` is the pipeline's tap.
        buffer: is read into; of 1 byte at least.
        link: has a ``fileno()``, which is negative once it is closed.
        wake_up: has a ``fileno()`` too; readable when another thread has something.
        reads: read here, for the link is a plain socket; else only tell that there is something to read.
        strange_after_s: a wait that took longer than planned by so much is told.
        due_within_s: ``serve`` returns so soon after a message at the latest.
        patience_s: how long one message that is on its way counts as a sign of life.

    Attributes:
        reads: as above; may be changed.
        received_bytes: so far.
        received_ns, message_ns: when the latest bytes, and the latest (part of a) message, were read; by the monotonic
            clock, 0 before the first.
        waited: the latest wait: (monotonic and boot-time clock before it, the same after it, seconds planned or None).
        cause: what broke the link, as errno; 0 for the peer's end.

    Threads: one, the reader; the attributes may be read by any.
    """

    def __init__(
        self,
        pipeline: MessagePipeline,
        parser: FrameParser,
        taps: Any,
        buffer: bytearray | memoryview,
        link: _Fileno,
        wake_up: _Fileno,
        *,
        reads: bool,
        strange_after_s: float,
        due_within_s: float,
        patience_s: float,
    ) -> None:
        self._buffer = memoryview(buffer)
        self._pipeline = pipeline
        self._parser = parser
        self._taps = taps
        self._link = link
        self._wake_up = wake_up
        self.reads = reads
        self._strange_after_s = strange_after_s
        self._due_within_s = due_within_s
        self._patience_ns = int(patience_s * 1e9)
        #: When the message that is on its way was first seen; 0: none is.
        self._begun_ns = 0
        self.received_bytes = self.received_ns = self.message_ns = self.cause = 0
        self.waited: tuple[tuple[float, float], tuple[float, float], float | None] = ((0.0, 0.0), (0.0, 0.0), None)

    def serve(
        self,
        router: EventRouter | None,
        lanes: _Lanes,
        *,
        reading: bool,
        writing: bool,
        once: bool,
        timeout_s: float | None,
    ) -> int:
        """Wait, and take in what comes, until there is something that the caller must see to.

        Args:
            router: takes the frequent messages; None: the pipeline's ``on_message`` gets all.
            lanes: are woken after each read; when they are full, nothing more is read.
            reading: wait for bytes of the link.
            writing: wait until it takes some.
            once: return after the first read.
            timeout_s: seconds until something is due; None: nothing is.

        Returns:
            A sum of: 0x1 the link is to be read (never if ``reads``), 0x4 it takes bytes, 0x100 ``wake_up`` is set,
            0x200 something is due, 0x400 the link has ended or is broken (see ``cause``), 0x800 the latest wait was
            strange (see ``waited``); 0 when the lanes are full, the peer broke the protocol, or after ``once``.

        Raises:
            Exception: what the pipeline raised.
        """
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        enough = False
        while True:
            ready = self._wait(reading=reading, writing=writing, until=until)
            if ready & READABLE and self.reads:
                known_ns = self.message_ns
                ready = (ready & ~READABLE) | self._read(router, lanes)
                if self.message_ns != known_ns:
                    # What a message may have made due is looked for soon, not at once.
                    until = min(until, self.message_ns / 1e9 + self._due_within_s)
                enough = once or self._parser.failure is not None or lanes.full()
            if self.waited[1][0] >= until:
                ready |= DUE
            if ready or enough:
                return ready

    def _wait(self, *, reading: bool, writing: bool, until: float) -> int:
        """Until one of the descriptors has something, or the time is over."""
        wanted = (READABLE if reading else 0) | (WRITABLE if writing else 0)
        link_fd, wake_fd = self._link.fileno(), self._wake_up.fileno()
        left = _now()
        planned_s = None if until == math.inf else max(0.0, until - left[0])
        if wanted and link_fd < 0:
            # Closed by another thread: whoever reads or writes learns it.
            self.waited = (left, left, planned_s)
            return wanted
        # Not even a hang-up is asked for where nothing is wanted; else it would mean a busy loop.
        descriptors = {wake_fd: READABLE, link_fd: wanted} if wanted else {wake_fd: READABLE}
        found = _poll(descriptors, planned_s)
        back = _now()
        self.waited = (left, back, planned_s)
        ready = WOKEN if wake_fd in found else 0
        if link_fd in found:
            # An error or a hang-up too: whoever reads or writes learns which it is.
            ready |= READABLE if found[link_fd] == READABLE else wanted
        if back[1] - left[1] - (back[0] - left[0] if planned_s is None else planned_s) > self._strange_after_s:
            ready |= STRANGE
        return ready

    def _read(self, router: EventRouter | None, lanes: _Lanes) -> int:
        """One read of the socket, and what it brought on its way; BROKEN at its end."""
        try:
            count = receive(self._link.fileno(), self._buffer)
        except OSError as error:
            self.cause = error.errno or errno.EIO
            return BROKEN
        if count is None:
            return 0
        if count == 0:
            self.cause = 0
            return BROKEN
        self.take(self._buffer[:count], router, lanes)
        return 0

    def take(self, data: bytes | bytearray | memoryview, router: EventRouter | None, lanes: _Lanes, /) -> None:
        """Take in bytes that were read elsewhere."""
        messages = self._pipeline.messages
        self.received_ns = time.monotonic_ns()
        self.received_bytes += len(data)
        self._pipeline.tap = self._taps.hearer
        try:
            self._pipeline.feed(data, self.received_ns, router)
        finally:
            lanes.wake()
            self._note_life(came=self._pipeline.messages != messages)

    def _note_life(self, *, came: bool) -> None:
        """A long message on its way over a narrow link is a sign of life too; one that never ends is not."""
        partial = self._parser.buffered_bytes > MAX_CONTROL_FRAME_BYTES
        if came or not partial:
            self._begun_ns = 0
        if partial and self._begun_ns == 0:
            self._begun_ns = self.received_ns
        if came or (partial and self.received_ns - self._begun_ns < self._patience_ns):
            self.message_ns = self.received_ns


def _now() -> tuple[float, float]:
    """The monotonic clock, and the boot-time clock."""
    monotonic = time.monotonic()
    return monotonic, monotonic if BOOT_CLOCK is None else time.clock_gettime(BOOT_CLOCK)


def _poll(descriptors: dict[int, int], timeout_s: float | None) -> dict[int, int]:
    """What each of them is ready for."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        readers = [fd for fd, wanted in descriptors.items() if wanted & READABLE]
        writers = [fd for fd, wanted in descriptors.items() if wanted & WRITABLE]
        readable, writable, _ = select.select(readers, writers, [], timeout_s)
        return {fd: READABLE * (fd in readable) | WRITABLE * (fd in writable) for fd in {*readable, *writable}}
    poll = select.poll()
    for fd, wanted in descriptors.items():
        poll.register(fd, wanted)
    # Rounded up, or the last millisecond would be spent in a busy loop.
    return dict(poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))


# ── TLS, record by record ───────────────────────────────────────────────────────────────────────────────────────────


def read_records(
    read: Callable[[int, memoryview], Any], record: memoryview, buffer: memoryview, filled: int, /
) -> tuple[int, OSError | None]:
    """Fill a buffer with the plaintext of as many records as there are and fit.

    Args:
        read: called with (size, buffer), as ``ssl.SSLObject.read``: the bytes of one record at the most.
        record: a buffer that one record fits in. Each is read into it: a slice of ``buffer`` costs more than a copy.
        buffer: to be filled.
        filled: how many bytes of it are already.

    Returns:
        (how many bytes of ``buffer`` are filled now, the OSError that ``read`` raised); None in its place when the
        buffer is full or ``read`` returned 0.
    """
    while filled < len(buffer):
        room = min(len(record), len(buffer) - filled)
        try:
            count = min(read(room, record), room)
        except OSError as problem:
            return filled, problem
        if count <= 0:
            break
        buffer[filled : filled + count] = record[:count]
        filled += count
    return filled, None
