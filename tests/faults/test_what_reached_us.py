"""What reached our socket is delivered, and what we asked for is asked again: also across a broken link."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from lasersell_sync import ConnectionState, SendBufferFull
from lasersell_sync.stream.desired_state import MAX_PENDING
from tests.faults.rigs import Rig, WebsocketsRig, frame
from tests.support.stream_server import ACCOUNT, Peer, exit_signal, opened
from tests.support.waiting import PATIENCE_S, until

COUNT = 500


def numbered(n: int) -> bytes:
    return frame(1, b'{"type":"error","code":"high","message":"%d"}' % n)


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_messages_before_the_end_of_a_link_are_delivered(rig: Rig, how: str) -> None:
    """Acknowledged by our kernel means delivered, however the link ends a moment later."""
    with rig.session() as session:
        connection = rig.proxy.wait_for_connection(1)
        rig.proxy.settled()
        before = connection.sent_to_client
        data = b"".join(numbered(n) for n in range(COUNT))
        rig.send(data)
        until(lambda: connection.reached_client >= before + len(data))
        getattr(rig.proxy, how)()
        assert connection.reached_client >= before + len(data)
        session.wait_for("disconnected", PATIENCE_S)
        got = [int(e.message.message) for e in session.events.get_batch(10_000) if e.type == "error"]
        assert got == list(range(COUNT))


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_a_full_lane_loses_nothing_of_a_link_that_ends_meanwhile(plain_rig: WebsocketsRig, how: str) -> None:
    """While the high lane is full nothing is read; what waits in the kernel survives the link's end."""
    with plain_rig.session(high_capacity=10, max_backoff_s=0.05) as session:
        # From its first event on, a consumer loses nothing.
        session.events.get(timeout=PATIENCE_S)
        # More than the lane takes; the rest waits in the kernel, as far as it has room.
        big = b"x" * 2000
        frames = [frame(1, b'{"type":"error","code":"%s","message":"%d"}' % (big, n)) for n in range(COUNT)]
        connection = plain_rig.proxy.wait_for_connection(1)
        plain_rig.proxy.settled()
        before = connection.sent_to_client
        plain_rig.send(b"".join(frames))
        until(lambda: connection.reached_client > before + 60 * 1024)
        getattr(plain_rig.proxy, how)()
        whole = sum(end <= connection.reached_client - before for end in itertools.accumulate(map(len, frames)))
        assert whole > 10
        got: list[int] = []

        def consume() -> bool:
            got.extend(int(e.message.message) for e in session.events.get_batch(20, PATIENCE_S) if e.type == "error")
            return len(got) >= whole

        until(consume)
        # Bytes without an acknowledgement by then may have arrived as well.
        assert got == list(range(len(got)))
        until(lambda: session.status is ConnectionState.LIVE)


def test_an_exit_request_cut_off_by_a_dead_link_is_sent_once_more(rig: Rig) -> None:
    """Asked for into a black hole: after the reconnect the server gets the request, once."""
    with rig.session(ping_interval_s=0.2, pong_timeout_s=1.0, max_backoff_s=0.05) as session:
        rig.send(opened(7))
        handle = session.wait_for("position_opened", PATIENCE_S).handle
        assert handle is not None
        rig.proxy.black_hole()
        session.request_exit_signal(handle, slippage_bps=250)
        session.sender().update_strategy(rig.configure().strategy)
        until(lambda: session.status not in (ConnectionState.LIVE, ConnectionState.STALE))
        rig.proxy.heal()
        session.wait_for(lambda e: e.type == "connected" and e.message.reconnected, PATIENCE_S)
        # The sandbox does not know this position; the foreign server announces nothing by itself.
        if isinstance(rig, WebsocketsRig):
            rig.send(opened(7))
        until(lambda: any(c["type"] == "request_exit_signal" for c in rig.commands()))
        rig.send({"type": "error", "code": "fence", "message": "."})
        session.wait_for(lambda e: e.type == "error" and e.message.code == "fence", PATIENCE_S)
        asked = [c for c in rig.commands() if c["type"] == "request_exit_signal"]
        assert [(c.get("token_account"), c["slippage_bps"]) for c in asked] == [(ACCOUNT, 250)]


def test_an_answered_exit_request_is_not_sent_again(rig: Rig) -> None:
    """Once the signal came, a broken link is no reason to ask for another exit."""
    with rig.session(max_backoff_s=0.05) as session:
        rig.send(opened(7))
        handle = session.wait_for("position_opened", PATIENCE_S).handle
        assert handle is not None
        session.request_exit_signal(handle)
        until(lambda: any(c["type"] == "request_exit_signal" for c in rig.commands()))
        rig.send(exit_signal(7))
        session.wait_for("exit_signal_with_tx", PATIENCE_S)
        rig.proxy.reset()
        session.wait_for(lambda e: e.type == "connected" and e.message.reconnected, PATIENCE_S)
        until(lambda: session.status is ConnectionState.LIVE and rig.sessions == session.stats().sessions)
        rig.send(opened(7))
        rig.send({"type": "error", "code": "fence", "message": "."})
        session.wait_for(lambda e: e.type == "error" and e.message.code == "fence", PATIENCE_S)
        assert len([c for c in rig.commands() if c["type"] == "request_exit_signal"]) == 1


@pytest.mark.parametrize("backlog_meets", ["a slow link", "a link that dies"])
def test_more_requests_than_the_send_buffer_holds_given_offline_all_arrive(
    plain_rig: WebsocketsRig, backlog_meets: str
) -> None:
    """20,000 exit requests, 14 MiB, while there is no link; the next one takes nothing at first, or never any."""
    accounts = [f"{n:05d}-{'x' * 640}" for n in range(MAX_PENDING)]

    def script(peer: Peer) -> None:
        peer.recv()
        if peer.number == 2:
            plain_rig.proxy.pause("up")
        plain_rig.greet(peer)
        peer.serve()

    plain_rig.server.script = script
    # The link is quiet for long: what is tested is the backlog, not the keepalive.
    with plain_rig.session(ping_interval_s=30, app_ping_interval_s=None, max_backoff_s=0.05) as session:
        plain_rig.proxy.refuse()
        plain_rig.proxy.reset()
        until(lambda: session.status not in (ConnectionState.LIVE, ConnectionState.STALE))
        for account in accounts:
            session.sender().request_exit_signal(account)
        plain_rig.proxy.accept()
        # Full to the last frame: the rest of what was accepted has no room.
        until(lambda: session.stats().send_buffer_bytes > 2**20 - 1000)
        assert session.status is ConnectionState.LIVE
        with pytest.raises(SendBufferFull):
            session.sender().request_exit_signal("a new one")
        if backlog_meets == "a link that dies":
            plain_rig.proxy.reset()
        plain_rig.proxy.resume()
        sessions = 2 if backlog_meets == "a slow link" else 3
        received = lambda: sum(len(peer.received) for peer in list(plain_rig.peers))  # noqa: E731
        until(lambda: received() == MAX_PENDING + sessions, 6 * PATIENCE_S)
        asked = Counter(c["token_account"] for c in plain_rig.commands())
        assert sorted(asked) == accounts
        assert max(asked.values()) == 1
        assert session.stats().sessions == sessions
        session.sender().request_exit_signal("a new one")
        until(lambda: plain_rig.commands()[-1]["token_account"] == "a new one")


@pytest.mark.parametrize("count", [0, 1, 100, 129, 130, 500, 501])
def test_a_link_cut_inside_a_message_delivers_the_whole_ones(plain_rig: WebsocketsRig, count: int) -> None:
    """A cut after any number of bytes: whole messages arrive, half a one is forgotten, and the next link starts clean."""
    with plain_rig.session(max_backoff_s=0.05) as session:
        size = len(numbered(1000))
        plain_rig.proxy.cut_after(count)
        if count:
            plain_rig.send(b"".join(numbered(n) for n in range(1000, 1020)))
        session.wait_for("disconnected", PATIENCE_S)
        session.wait_for(lambda e: e.type == "connected" and e.message.reconnected, PATIENCE_S)
        until(lambda: plain_rig.sessions == session.stats().sessions)
        plain_rig.send(numbered(1))
        session.wait_for(lambda e: e.type == "error" and e.message.message == "1", PATIENCE_S)
        got = [int(e.message.message) for e in session.events.get_batch(10_000) if e.type == "error"]
        assert got == [*range(1000, 1000 + count // size), 1]
        assert session.stats().decode_errors == 0
