"""The receive_loop: what wakes it, what it takes in, when it gives way; alike in both makes."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lasersell_sync.codec import server_message_to_text
from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import SERVER_MESSAGES, UnknownMessage
from tests.parity.cores import core, cores
from tests.parity.routing import pnl
from tests.parity.streams import frame

TEXT, PING = 1, 9
READABLE, WRITABLE, WOKEN, DUE, BROKEN, STRANGE = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800
PATIENCE_S = 30.0


class Taps:
    hearer: Any = None


class Lanes:
    """What the receive_loop asks of lanes."""

    def __init__(self) -> None:
        self.woken = 0
        self.is_full = False

    def wake(self) -> None:
        self.woken += 1

    def full(self) -> bool:
        return self.is_full


class Rig:
    """An receive_loop of one core between two socket pairs: the link's, and the wake-up's."""

    def __init__(
        self,
        name: str,
        *,
        reads: bool = True,
        strange_after_s: float = 60.0,
        due_within_s: float = 60.0,
        patience_s: float = 60.0,
    ):
        module = core(name)
        self.link, self.peer = socket.socketpair()
        self.link.setblocking(False)
        self.waker, self.wake = socket.socketpair()
        self.messages: list[tuple[Any, int]] = []
        self.taps, self.lanes = Taps(), Lanes()
        self.trouble: Exception | None = None
        self.parser = module.FrameParser(1000)
        self.pipeline = module.MessagePipeline(
            self.parser,
            module.Decoder(dict(SERVER_MESSAGES), UnknownMessage, DecodeError),
            on_message=self._message,
            on_frame=lambda opcode, payload: None,
            on_unreadable=lambda error, payload: None,
        )
        self.receive_loop = module.ReceiveLoop(
            self.pipeline,
            self.parser,
            self.taps,
            memoryview(bytearray(500)),
            self.link,
            self.waker,
            reads=reads,
            strange_after_s=strange_after_s,
            due_within_s=due_within_s,
            patience_s=patience_s,
        )

    def _message(self, message: Any, received_ns: int) -> None:
        self.messages.append((message, received_ns))
        if self.trouble is not None:
            raise self.trouble

    def serve(self, **how: Any) -> int:
        """With what a live connection that only reads would say, and an end."""
        usual = {"reading": True, "writing": False, "once": False, "timeout_s": PATIENCE_S}
        ready: int = self.receive_loop.serve(None, self.lanes, **{**usual, **how})
        return ready

    def close(self) -> None:
        for sock in (self.link, self.peer, self.waker, self.wake):
            sock.close()


@pytest.fixture(params=cores())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def rigged(name: str, **how: Any) -> Iterator[Rig]:
    rig = Rig(name, **how)
    try:
        yield rig
    finally:
        rig.close()


def text(profit: int) -> bytes:
    return frame(TEXT, server_message_to_text(pnl(1, profit)).encode())


def test_what_comes_is_taken_in_until_somebody_wakes_it(name: str) -> None:
    """It goes on by itself from read to read, each with its time; the lanes are woken after each."""
    with rigged(name) as rig:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(rig.serve()))
        thread.start()
        before_ns = time.monotonic_ns()
        for n in range(3):
            rig.peer.sendall(text(n))
            until = time.monotonic() + PATIENCE_S
            while rig.lanes.woken <= n and time.monotonic() < until:
                time.sleep(0.001)
        rig.wake.send(b"\0")
        thread.join(PATIENCE_S)
        assert done == [WOKEN]
        assert [message.profit_units for message, _ in rig.messages] == [0, 1, 2]
        times = [received_ns for _, received_ns in rig.messages]
        assert before_ns <= times[0] < times[1] < times[2] <= time.monotonic_ns()
        assert rig.receive_loop.received_ns == rig.receive_loop.message_ns == times[-1]
        assert rig.receive_loop.received_bytes == sum(len(text(n)) for n in range(3))
        assert rig.lanes.woken == 3


def test_once_is_one_read(name: str) -> None:
    """Of as much as the buffer holds; what is left comes with the next."""
    with rigged(name) as rig:
        stream = b"".join(map(text, range(12)))
        assert 500 < len(stream) < 1500
        rig.peer.sendall(stream)
        assert rig.serve(once=True) == 0
        assert rig.receive_loop.received_bytes == 500
        assert 0 < len(rig.messages) < 12
        while rig.receive_loop.received_bytes < len(stream):
            assert rig.serve(once=True) == 0
        assert [message.profit_units for message, _ in rig.messages] == list(range(12))


def test_the_time_ends_it(name: str) -> None:
    """Not before it is over; at once when nothing is left; a wake-up that is there already is told with it."""
    with rigged(name) as rig:
        started = time.monotonic()
        assert rig.serve(timeout_s=0.03) == DUE
        assert time.monotonic() - started >= 0.03
        left, back, planned_s = rig.receive_loop.waited
        assert back[0] - left[0] >= 0.03 >= planned_s > 0.02
        assert started <= left[0] <= back[0] <= time.monotonic()
        rig.wake.send(b"\0")
        assert rig.serve(timeout_s=0.0) == WOKEN | DUE
        assert rig.serve(timeout_s=None) == WOKEN
        assert rig.receive_loop.waited[2] is None


def test_a_message_makes_something_due_soon(name: str) -> None:
    """Though nothing was due before it, and however many follow."""
    with rigged(name, due_within_s=0.05) as rig:
        rig.peer.sendall(text(1))
        started = time.monotonic()
        assert rig.serve(timeout_s=None) == DUE
        assert time.monotonic() - started >= 0.04
        assert len(rig.messages) == 1
        # A frame that is no message only counts as bytes.
        rig.peer.sendall(frame(PING, b""))
        message_ns = rig.receive_loop.message_ns
        assert rig.serve(timeout_s=0.1) == DUE
        assert rig.receive_loop.message_ns == message_ns < rig.receive_loop.received_ns
        assert rig.receive_loop.waited[1][0] - rig.receive_loop.received_ns / 1e9 > 0.07


def test_intake_message_that_never_ends_is_no_sign_of_life(name: str) -> None:
    """After its patience: neither one long frame nor fragments of single bytes. The next message is one again."""
    with rigged(name, patience_s=0.05) as rig:
        stream = frame(TEXT, b" " * 200, fin=False) + frame(0, b" ", fin=False) * 100 + frame(0, b" " * 400)
        rig.peer.sendall(stream[:210])
        assert rig.serve(once=True) == 0
        began_ns = rig.receive_loop.message_ns
        assert began_ns == rig.receive_loop.received_ns
        end_ns = began_ns + 50_000_000
        at = 210
        while rig.receive_loop.received_ns < end_ns + 10_000_000:
            rig.peer.sendall(stream[at : at + 1])
            at += 1
            assert rig.serve(once=True) == 0
            time.sleep(0.001)
        assert began_ns < rig.receive_loop.message_ns < end_ns
        rig.peer.sendall(stream[at:] + text(1))
        while not rig.messages:
            assert rig.serve(once=True) == 0
        assert rig.receive_loop.message_ns == rig.receive_loop.received_ns


def test_part_of_a_long_message_is_a_sign_of_life(name: str) -> None:
    """Part of a short one might be a control frame."""
    with rigged(name) as rig:
        long = frame(TEXT, b" " * 900)
        rig.peer.sendall(long[:100])
        assert rig.serve(once=True) == 0
        assert rig.receive_loop.message_ns == 0 < rig.receive_loop.received_ns
        rig.peer.sendall(long[100:400])
        assert rig.serve(once=True) == 0
        assert rig.receive_loop.message_ns == rig.receive_loop.received_ns
        assert not rig.messages


def test_the_end_of_the_link(name: str) -> None:
    """After what came before it; the peer's end has no cause."""
    with rigged(name) as rig:
        rig.peer.sendall(text(1))
        rig.peer.close()
        assert rig.serve() == BROKEN
        assert rig.receive_loop.cause == 0
        assert len(rig.messages) == 1


def test_a_reset_link(name: str) -> None:
    """Its number is kept, for the system tells it once."""
    with (
        rigged(name) as rig,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        receive_loop = type(rig.receive_loop)(
            rig.pipeline, rig.parser, rig.taps, bytearray(10), ours, rig.waker,
            reads=True, strange_after_s=60, due_within_s=60, patience_s=60,
        )  # fmt: skip
        how = {"reading": True, "writing": False, "once": False, "timeout_s": PATIENCE_S}
        assert receive_loop.serve(None, rig.lanes, **how) == BROKEN
        assert receive_loop.cause == errno.ECONNRESET


def test_a_closed_link_is_told_and_never_waited_for(name: str) -> None:
    """Its number may be somebody else's by now; who only waits for others is not told."""
    with rigged(name) as rig:
        rig.link.close()
        assert rig.serve(timeout_s=None) == BROKEN
        assert rig.receive_loop.cause == errno.EBADF
        assert rig.serve(reading=False, writing=True, timeout_s=None) == WRITABLE
        assert rig.serve(reading=False, timeout_s=0.01) == DUE


def test_reading_is_left_to_others_where_they_ask_for_it(name: str) -> None:
    """TLS: it only tells; what they read goes the same way."""
    with rigged(name, reads=False) as rig:
        rig.peer.sendall(text(1))
        assert rig.serve() == READABLE
        assert not rig.messages
        rig.receive_loop.take(rig.link.recv(500), None, rig.lanes)
        assert rig.lanes.woken == len(rig.messages) == 1
        assert rig.messages[0][1] == rig.receive_loop.received_ns == rig.receive_loop.message_ns
        rig.peer.close()
        assert rig.serve(writing=True) == READABLE | WRITABLE


def test_what_is_not_wanted_is_not_told(name: str) -> None:
    """A full lane: neither data nor a hang-up wakes it, so that it does not spin."""
    with rigged(name) as rig:
        assert rig.serve(reading=False, writing=True) == WRITABLE
        rig.peer.sendall(text(1))
        rig.peer.close()
        assert rig.serve(reading=False, timeout_s=0.02) == DUE
        assert not rig.messages


def test_full_lanes_and_broken_rules_end_it(name: str) -> None:
    """Asked after each read."""
    with rigged(name) as rig:
        rig.lanes.is_full = True
        rig.peer.sendall(text(1))
        assert rig.serve() == 0
        rig.lanes.is_full = False
        rig.peer.sendall(text(2) + b"\x83\x00" + text(3))
        assert rig.serve() == 0
        assert rig.parser.failure is not None
        assert len(rig.messages) == 2


def test_what_a_callback_raises_comes_out_after_the_lanes_were_woken(name: str) -> None:
    """What came before it waits there already."""
    with rigged(name) as rig:
        rig.trouble = KeyError("a bug")
        rig.peer.sendall(text(1))
        with pytest.raises(KeyError):
            rig.serve()
        assert rig.lanes.woken == 1
        assert rig.receive_loop.received_ns > 0


def test_taps_are_asked_for_each_read(name: str) -> None:
    """One that comes while it waits hears the next message."""
    with rigged(name) as rig:
        heard: list[tuple[bytes, int]] = []
        rig.peer.sendall(text(1))
        assert rig.serve(once=True) == 0
        rig.taps.hearer = lambda payload, received_ns: heard.append((payload, received_ns))
        rig.peer.sendall(text(2))
        assert rig.serve(once=True) == 0
        rig.taps.hearer = None
        rig.peer.sendall(text(3))
        assert rig.serve(once=True) == 0
        assert heard == [(server_message_to_text(pnl(1, 2)).encode(), rig.messages[1][1])]


def test_a_wait_that_took_too_long_is_strange(name: str) -> None:
    """Any wait is late by something; an endless one never is, unless the machine was suspended in it."""
    with rigged(name, strange_after_s=0.0) as rig:
        assert rig.serve(timeout_s=0.0101) == DUE | STRANGE
        rig.receive_loop.reads = False
        rig.peer.sendall(b"x")
        assert rig.serve() == READABLE
    with rigged(name, strange_after_s=10.0) as rig:
        assert rig.serve(timeout_s=0.0101) == DUE
