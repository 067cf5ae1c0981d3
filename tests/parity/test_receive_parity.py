"""``receive``: what a socket has now, its end, or its failure; alike in both makes."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.parity import programs
from tests.parity.cores import core, cores


@pytest.fixture(params=cores())
def receive(request: pytest.FixtureRequest) -> Any:
    return core(request.param).receive


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(ours, not blocking; the peer's)."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_data_nothing_and_the_end(receive: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """A number of bytes, None, 0; the rest of the buffer is left alone."""
    ours, theirs = pair
    buffer = bytearray(b"." * 10)
    assert receive(ours.fileno(), buffer) is None
    theirs.sendall(b"abc")
    assert receive(ours.fileno(), buffer) == 3
    assert buffer == b"abc......."
    assert receive(ours.fileno(), buffer) is None
    theirs.sendall(b"0123456789and more")
    assert receive(ours.fileno(), memoryview(buffer)[:4]) == 4
    assert receive(ours.fileno(), memoryview(buffer)[8:]) == 2
    assert buffer == b"0123....45"
    assert receive(ours.fileno(), buffer) == 10
    theirs.sendall(b"last")
    theirs.close()
    assert receive(ours.fileno(), buffer) == 6
    assert buffer[:6] == b"relast"
    assert receive(ours.fileno(), buffer) == 0
    assert receive(ours.fileno(), buffer) == 0
    buffer.append(0)  # nothing holds on to it


def test_errors_have_their_number(receive: Any) -> None:
    """A descriptor that is none, and one that was closed."""
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    ours.close()
    theirs.close()
    for descriptor in (-1, number):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            receive(descriptor, bytearray(10))
        assert caught.value.errno == errno.EBADF


def test_a_reset_connection(receive: Any) -> None:
    """The peer's reset is a ConnectionResetError, as a socket's own method would raise."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        # To close with this option is a reset, not an end.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        ours.setblocking(False)
        assert select.select([ours], [], [], 30)[0]
        with pytest.raises(ConnectionResetError) as caught:
            receive(ours.fileno(), bytearray(10))
        assert caught.value.errno == errno.ECONNRESET


@pytest.mark.parametrize("buffer", [b"constant", memoryview(b"constant"), memoryview(bytearray(10))[::2]])
def test_buffers_that_cannot_be_written(receive: Any, buffer: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """Refused before anything is read."""
    ours, theirs = pair
    theirs.sendall(b"abc")
    with pytest.raises((BufferError, TypeError)):
        receive(ours.fileno(), buffer)
    with pytest.raises(TypeError):
        receive(ours.fileno(), "text")
    kept = bytearray(10)
    assert receive(ours.fileno(), kept) == 3
    assert kept[:3] == b"abc"


def test_a_blocking_socket_does_not_stop_the_process() -> None:
    """The compiled one keeps the interpreter lock, so it must never wait, whatever the socket is set to."""
    program = """
import socket
from lasersell_sync._core import receive
ours, theirs = socket.socketpair()
ours.setblocking(True)
print(receive(ours.fileno(), bytearray(10)))
"""
    assert programs.run(program) == "None\n"
