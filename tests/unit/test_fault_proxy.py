"""The fault proxy itself: each kind of weather does what it says, to the byte and in its time."""

from __future__ import annotations

import contextlib
import errno
import queue
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.stream_server import RawServer
from tests.support.waiting import PATIENCE_S, until


class Party:
    """A server that hands its sockets to the test."""

    def __init__(self) -> None:
        self.sockets: queue.Queue[socket.socket] = queue.Queue()
        self.server = RawServer(self._keep)

    def _keep(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self.sockets.put(sock)

    def next(self) -> socket.socket:
        return self.sockets.get(timeout=PATIENCE_S)


@pytest.fixture
def party() -> Iterator[Party]:
    made = Party()
    with made.server:
        yield made


@pytest.fixture
def proxy(party: Party) -> Iterator[FaultProxy]:
    with FaultProxy(party.server.port, seed=7) as made:
        yield made


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with dial(proxy) as sock:
        yield sock


def dial(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S)


def take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def silent(sock: socket.socket) -> bool:
    """Nothing arrives for a moment: neither bytes nor an end."""
    sock.settimeout(0.1)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)
    return False


def test_fair_weather_passes_everything_on(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """Bytes go both ways unchanged, and are counted; an end of one side reaches the other after them."""
    server = party.next()
    connection = proxy.wait_for_connection()
    assert connection.server_sees_port == server.getpeername()[1]
    client.sendall(b"up" * 100_000)
    assert take(server, 200_000) == b"up" * 100_000
    server.sendall(b"down")
    assert take(client, 4) == b"down"
    until(lambda: connection.reached_client == 4)
    assert (proxy.bytes_up, proxy.bytes_down, proxy.accepted) == (200_000, 4, 1)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"last words")
    server.close()
    assert take(client, 100) == b"last words"
    assert connection.closed.wait(PATIENCE_S)


def test_latency_delays_and_jitter_keeps_the_order(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """No byte comes before the latency is over, and none overtakes another."""
    server = party.next()
    proxy.shape("down", latency_s=0.15, jitter_s=0.05)
    started = time.monotonic()
    for n in range(50):
        server.sendall(bytes([n]))
    assert take(client, 50) == bytes(range(50))
    assert 0.15 <= time.monotonic() - started < 5  # one after the other they would take 7.5
    client.sendall(b"x")
    assert take(server, 1) == b"x"


def test_bandwidth_is_limited(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """2 000 bytes at 10 kB/s take 0.2 s."""
    server = party.next()
    proxy.shape("down", bytes_per_s=10_000)
    started = time.monotonic()
    server.sendall(b"x" * 2_000)
    assert len(take(client, 2_000)) == 2_000
    assert time.monotonic() - started > 0.14


def test_slices_are_as_small_as_asked(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """With a byte a segment and 100 segments a second, no read sees more than a byte at first."""
    server = party.next()
    proxy.shape("down", slice_bytes=1, bytes_per_s=100)
    server.sendall(b"abc")
    assert [client.recv(10), client.recv(10), client.recv(10)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("which", ["up", "down", "both"])
def test_a_black_hole_swallows_bytes_and_ends(which: str, party: Party, proxy: FaultProxy) -> None:
    """In a swallowed direction nothing arrives, not even the end; the other one works; sockets stay open."""
    with dial(proxy) as client:
        server = party.next()
        proxy.black_hole(which)  # type: ignore[arg-type]
        client.sendall(b"u")
        server.sendall(b"d")
        if which == "up":
            assert take(client, 1) == b"d"
        else:
            assert silent(client)
        if which == "down":
            assert take(server, 1) == b"u"
        else:
            assert silent(server)
            client.close()
            assert silent(server)
            proxy.heal()
            with contextlib.suppress(ConnectionResetError):
                assert server.recv(1) == b""


def test_a_connection_with_a_hole_stays_dead_after_the_weather_clears(
    proxy: FaultProxy, party: Party, client: socket.socket
) -> None:
    """What follows swallowed bytes would be garbage: only new connections work again."""
    server = party.next()
    proxy.black_hole()
    client.sendall(b"lost")
    server.sendall(b"lost")
    assert silent(client)
    proxy.heal()
    client.sendall(b"x")
    server.sendall(b"x")
    assert silent(server)
    assert silent(client)
    with dial(proxy) as second:
        second.sendall(b"fresh")
        assert take(party.next(), 5) == b"fresh"


def test_pause_holds_and_resume_delivers(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """Nothing moves during a pause, and nothing is lost by it."""
    server = party.next()
    proxy.pause()
    server.sendall(b"wait")
    assert silent(client)
    proxy.resume()
    assert take(client, 4) == b"wait"


def test_reset_is_an_rst_and_keeps_what_had_arrived(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """Both sides see ECONNRESET; bytes in the client's socket by then count as arrived, and can be read."""
    server = party.next()
    server.sendall(b"12345")
    connection = proxy.wait_for_connection()
    until(lambda: connection.reached_client == 5)
    assert proxy.reset() == 1
    assert take(client, 5) == b"12345"
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    assert connection.reached_client == 5
    assert proxy.open_connections == 0


def test_fin_is_an_orderly_end(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """Both sides read an end of file."""
    server = party.next()
    proxy.fin()
    assert client.recv(1) == b""
    assert server.recv(1) == b""


def test_a_slow_close_says_fin_first_and_closes_later(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """The client reads the end at once and may still write for a while."""
    party.next()
    proxy.slow_close(0.2)
    assert client.recv(1) == b""
    client.sendall(b"still open")
    assert proxy.wait_for_connection().closed.wait(PATIENCE_S)


def test_half_open_keeps_the_client_in_the_dark(proxy: FaultProxy, party: Party, client: socket.socket) -> None:
    """The server's side is gone; the client may send, hears nothing, and sees no end."""
    server = party.next()
    proxy.half_open()
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    client.sendall(b"anyone?")
    assert silent(client)
    client.close()
    assert proxy.wait_for_connection().closed.wait(PATIENCE_S)


@pytest.mark.parametrize("how", ["reset", "fin"])
@pytest.mark.parametrize("early", [True, False])
def test_a_cut_is_exact_to_the_byte(how: str, early: bool, party: Party, proxy: FaultProxy) -> None:
    """Exactly N bytes arrive, whether the cut was ordered before or after the connection came."""
    if early:
        proxy.cut_after(1234, how)  # type: ignore[arg-type]
    with dial(proxy) as client:
        server = party.next()
        if not early:
            proxy.cut_after(1234, how)  # type: ignore[arg-type]
        server.sendall(b"x" * 5000)
        assert len(take(client, 1234)) == 1234
        if how == "reset":
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""
        assert proxy.wait_for_connection().sent_to_client == 1234


def test_refuse_closes_the_port_and_accept_opens_it_again(proxy: FaultProxy, party: Party) -> None:
    """While refusing, a connect gets ECONNREFUSED; open connections live on; the port stays the same."""
    with dial(proxy) as first:
        server = party.next()
        for _ in range(3):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError) as caught:
                dial(proxy)
            assert caught.value.errno == errno.ECONNREFUSED
            first.sendall(b"here")
            assert take(server, 4) == b"here"
            proxy.accept()
            with dial(proxy) as another:
                another.sendall(b"hi")
                assert take(party.next(), 2) == b"hi"


def test_accept_and_drop_ends_new_connections_at_once(proxy: FaultProxy, party: Party) -> None:
    """The connect works, the connection ends, the server hears nothing of it, and it is counted."""
    proxy.accept_and_drop()
    with dial(proxy) as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
    assert proxy.wait_for_connection(1).closed.is_set()
    assert party.sockets.empty()
    proxy.accept()
    with dial(proxy):
        party.next()
        until(lambda: proxy.accepted == 2)  # counted once it is connected to the server, who may know it first


def test_a_clients_own_close_counts_no_bytes_of_its_last_moment(party: Party) -> None:
    """Bytes that crossed with a client's close are not held against it; older ones are."""
    # A grace that is longer than a loaded machine stands still.
    grace_s = 1.0
    with FaultProxy(party.server.port, closing_grace_s=grace_s) as proxy, dial(proxy) as client:
        server = party.next()
        connection = proxy.wait_for_connection()
        server.sendall(b"old")
        until(lambda: connection.reached_client == 3)
        time.sleep(1.2 * grace_s)  # the grace itself is what is tested
        server.sendall(b"new")
        assert take(client, 6) == b"oldnew"
        until(lambda: connection.reached_client == 6)
        client.close()
        until(lambda: connection.reached_client == 3)


def test_the_same_seed_makes_the_same_jitter() -> None:
    """Two proxies with one seed draw the same numbers."""
    with (
        RawServer(lambda _: None) as server,
        FaultProxy(server.port, seed=3) as a,
        FaultProxy(server.port, seed=3) as b,
    ):
        assert [a._rand.random() for _ in range(5)] == [b._rand.random() for _ in range(5)]
