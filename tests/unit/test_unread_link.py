"""What the kernel knows of a link that nobody reads."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from lasersell_sync.stream.keepalive import UnreadLink, kernel_verdict
from tests.support.waiting import until

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_INFO is Linux's")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end of a connection, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def verdict(sock: socket.socket) -> str | None:
    return kernel_verdict(sock, unacknowledged_is_dead=True)


def test_kernel_verdict_living_connection_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    """Whatever lies there unread."""
    ours, theirs = pair
    theirs.sendall(b"x" * 10_000)
    ours.sendall(b"ping")
    until(lambda: verdict(ours) is None)


@linux
def test_kernel_verdict_ended_connection_is_told_and_still_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"last words")
    theirs.close()
    until(lambda: verdict(ours) == "the server ended the connection")
    assert ours.recv(100) == b"last words"


@linux
def test_kernel_verdict_reset_connection_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"last words")
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    until(lambda: verdict(ours) == "the connection was reset")
    assert ours.recv(100) == b"last words"


class Rig:
    """An unread link on a clock of the test's own."""

    def __init__(self) -> None:
        self.now, self.pings = 0.0, 0
        self.dead: str | None = None
        self.unacknowledged = False
        self.link = UnreadLink(
            verdict=self._verdict, ping=self._ping, interval_s=5.0, answer_s=3.0, clock=lambda: self.now
        )

    def _verdict(self, *, unacknowledged_is_dead: bool) -> str | None:
        return self.dead or ("unacknowledged" if unacknowledged_is_dead and self.unacknowledged else None)

    def _ping(self) -> None:
        self.pings += 1

    def look_at(self, now: float) -> float | None:
        self.now = now
        return self.link.look()


def test_unread_link_asks_and_gives_the_kernel_time_to_answer() -> None:
    rig = Rig()
    rig.link.begin()
    assert rig.look_at(1.0) == 4.0
    rig.unacknowledged = True
    assert rig.look_at(5.0) == 3.0
    assert (rig.pings, rig.link.problem) == (1, None)
    assert rig.look_at(7.0) == 1.0
    assert rig.link.problem is None
    assert rig.look_at(8.0) is None
    assert rig.link.problem == "unacknowledged"


def test_unread_link_that_is_acknowledged_is_asked_again_and_again() -> None:
    rig = Rig()
    rig.link.begin()
    for round_ in range(10):
        rig.look_at(8.0 * round_ + 5.0)
        rig.look_at(8.0 * round_ + 8.0)
    assert (rig.pings, rig.link.problem) == (10, None)


def test_unread_link_that_the_peer_ended_is_not_asked() -> None:
    rig = Rig()
    rig.link.begin()
    rig.dead = "the connection was reset"
    rig.look_at(5.0)
    assert (rig.pings, rig.link.problem) == (0, "the connection was reset")
