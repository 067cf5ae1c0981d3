"""TLS read in large pieces: many records a call, halves of records, what does not fit, ends of every kind."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lasersell_sync.network.tls_socket import FETCH_BYTES, RECORD_BYTES, TlsSocket
from tests.support.certificates import Authority


class Peer:
    """The server's side, in memory: what it writes reaches the client's socket when ``deliver`` says so."""

    def __init__(self, context: ssl.SSLContext, wire: socket.socket) -> None:
        self._wire = wire
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._arrived, self._leaving, server_side=True)

    def listen(self) -> None:
        """Take in what the client sent."""
        try:
            while data := self._wire.recv(1 << 20):
                self._arrived.write(data)
        except BlockingIOError:
            pass

    def records(self, *payloads: bytes) -> bytes:
        """Each as a record of its own, encrypted."""
        for payload in payloads:
            self.tls.write(payload)
        return self._leaving.read()

    def deliver(self, data: bytes) -> None:
        self._wire.setblocking(True)
        self._wire.sendall(data)
        self._wire.setblocking(False)

    def shake_hands(self) -> None:
        self.listen()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.deliver(self._leaving.read())

    def hang_up(self) -> None:
        self._wire.shutdown(socket.SHUT_WR)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[TlsSocket, Peer]]:
    """Both sides after the handshake."""
    authority = Authority(tmp_path)
    mine, theirs = socket.socketpair()
    for sock in (mine, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client = TlsSocket(mine, ssl.create_default_context(cafile=str(authority.pem)), "stream.test")
    peer = Peer(authority.server(), theirs)
    for _ in range(4):
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            peer.shake_hands()
    peer.shake_hands()
    yield client, peer
    client.close()
    theirs.close()


def everything(client: TlsSocket, size: int = 1 << 18) -> bytes:
    """What can be read now."""
    buffer, out = memoryview(bytearray(size)), bytearray()
    while True:
        try:
            count = client.recv_into(buffer)
        except ssl.SSLWantReadError:
            return bytes(out)
        if not count:
            return bytes(out)
        out += buffer[:count]


def test_many_records_come_in_one_call(pair: tuple[TlsSocket, Peer]) -> None:
    """A record for each message, all of them from one system call."""
    client, peer = pair
    payloads = [b"message %d " % n for n in range(500)]
    peer.deliver(peer.records(*payloads))
    buffer = memoryview(bytearray(1 << 18))
    count = client.recv_into(buffer)
    assert bytes(buffer[:count]) == b"".join(payloads)
    assert not client.more
    with pytest.raises(ssl.SSLWantReadError):
        client.recv_into(buffer)


def test_a_record_may_arrive_byte_by_byte(pair: tuple[TlsSocket, Peer]) -> None:
    """Until it is complete there is nothing to read, and then all of it."""
    client, peer = pair
    sealed = peer.records(b"slow")
    for at in range(len(sealed) - 1):
        peer.deliver(sealed[at : at + 1])
        with pytest.raises(ssl.SSLWantReadError):
            client.recv_into(memoryview(bytearray(64)))
    peer.deliver(sealed[-1:])
    assert everything(client) == b"slow"


def test_what_does_not_fit_is_told_and_kept(pair: tuple[TlsSocket, Peer]) -> None:
    """``select`` knows nothing of bytes that have left the socket, so ``more`` does."""
    client, peer = pair
    peer.deliver(peer.records(b"abcdef", b"ghi"))
    buffer = memoryview(bytearray(4))
    got = []
    for more in (True, True, False):
        count = client.recv_into(buffer)
        got.append(bytes(buffer[:count]))
        assert client.more is more
    assert got == [b"abcd", b"efgh", b"i"]


def test_more_than_one_fetch_comes_in_one_call(pair: tuple[TlsSocket, Peer], rand: random.Random) -> None:
    """A flood is not read in pieces of one fetch with a wait between each two."""
    client, peer = pair
    payload = rand.randbytes(3 * FETCH_BYTES)
    peer.deliver(peer.records(*(payload[at : at + RECORD_BYTES] for at in range(0, len(payload), RECORD_BYTES))))
    buffer = memoryview(bytearray(4 * FETCH_BYTES))
    count = client.recv_into(buffer)
    assert count > 2 * FETCH_BYTES
    assert bytes(buffer[:count]) + everything(client) == payload


@pytest.mark.parametrize("politely", [True, False])
def test_the_end_comes_after_what_was_sent_before_it(pair: tuple[TlsSocket, Peer], politely: bool) -> None:
    """With a farewell of TLS or without: 0, again and again, after the last byte."""
    client, peer = pair
    last = peer.records(b"last words")
    if politely:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
        last += peer._leaving.read()
    peer.deliver(last)
    peer.hang_up()
    buffer = memoryview(bytearray(64))
    assert client.recv_into(buffer) == len(b"last words")
    assert client.recv_into(buffer) == 0
    assert client.recv_into(buffer) == 0


def test_nothing_is_lost_before_a_forged_record(pair: tuple[TlsSocket, Peer]) -> None:
    """What is authentic is delivered; then the forgery is an error, for good."""
    client, peer = pair
    sealed = peer.records(b"authentic")
    forged = bytearray(peer.records(b"forged"))
    forged[-1] ^= 1
    peer.deliver(sealed + bytes(forged))
    buffer = memoryview(bytearray(64))
    assert client.recv_into(buffer) == len(b"authentic")
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            client.recv_into(buffer)


def test_what_the_socket_does_not_take_waits_encrypted(pair: tuple[TlsSocket, Peer], rand: random.Random) -> None:
    """``send`` takes nothing more before it is gone; the peer gets every byte once."""
    client, peer = pair
    payload = rand.randbytes(8 << 20)
    sent = 0
    while not client.unsent_bytes:
        sent += client.send(payload[sent:])
    with pytest.raises(ssl.SSLWantWriteError):
        client.send(payload[sent:])
    got = bytearray()

    def drain() -> None:
        peer.listen()
        try:
            while data := peer.tls.read(1 << 16):
                got.extend(data)
        except ssl.SSLWantReadError:
            pass

    while sent < len(payload) or client.unsent_bytes:
        drain()
        try:
            client.flush()
            sent += client.send(payload[sent:]) if sent < len(payload) else 0
        except ssl.SSLWantWriteError:
            continue
    drain()
    assert bytes(got) == payload


@pytest.mark.parametrize("act", [lambda client: client.recv(10), lambda client: client.send(b"x")])
def test_a_closed_socket_is_an_error(pair: tuple[TlsSocket, Peer], act: Callable[[TlsSocket], object]) -> None:
    """As with any socket."""
    client, _ = pair
    client.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        act(client)
