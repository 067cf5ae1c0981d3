"""A feed that falls silent, and a message that never ends, behind a link that answers."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any

import pytest

from lasersell_sync import StreamClient, StreamConfigure, StreamOptions, StreamSession
from lasersell_sync.session.health import FeedWatch
from tests.faults.rigs import KEY, STRATEGY, WebsocketsRig, frame
from tests.support.stream_server import WALLET, Peer, ScriptedServer, closed, opened, pnl
from tests.support.waiting import PATIENCE_S, until

SCALED: dict[str, Any] = {
    "ping_interval_s": 0.3,
    "pong_timeout_s": 1.0,
    "app_ping_interval_s": 0.3,
    "app_pong_timeout_s": 0.5,
}


def test_feed_silent_is_told_with_open_positions_only(
    plain_rig: WebsocketsRig, caplog: pytest.LogCaptureFixture
) -> None:
    """The pings are answered all the while; the next price ends it."""
    with plain_rig.session(feed_silent_after_s=0.4, **SCALED) as session:
        frames = session.stats().frames_received
        until(lambda: session.stats().frames_received >= frames + 6)
        assert session.health().feed_silent_seconds is None
        plain_rig.send(opened(7))
        event = session.wait_for("feed_silent", PATIENCE_S)
        assert event.message.positions == 1
        assert event.message.silent_seconds >= 0.4
        health = session.health()
        assert not health.ok
        assert "no price" in health.problem
        assert "no price of 1 open positions came" in caplog.text
        plain_rig.send(pnl(7))
        until(lambda: session.health().ok)
        plain_rig.send(closed(7))
        session.wait_for("position_closed", PATIENCE_S)
        until(lambda: session.health().ok)
        assert session.stats().sessions == 1


@pytest.mark.parametrize("handlers", ["inline", "thread"])
def test_feed_with_prices_is_not_silent(plain_rig: WebsocketsRig, handlers: str) -> None:
    """However they are consumed: also where nobody takes them, and where no handler is for them."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.05):
            plain_rig.send(pnl(7))

    with plain_rig.session(feed_silent_after_s=1.0, dispatch=handlers) as session:
        if handlers == "inline":
            session.on("position_closed", print)
            session.start()
        plain_rig.send(opened(7))
        plain_rig.send(pnl(7))
        talker = threading.Thread(target=talk)
        talker.start()
        messages = session.stats().messages_received
        until(lambda: session.stats().messages_received >= messages + 50)
        stop.set()
        talker.join()
        assert session.stats().messages_received > 50
        with pytest.raises(queue.Empty):
            session.wait_for("feed_silent", 0)


def test_feed_silent_reconnects_when_asked(plain_rig: WebsocketsRig) -> None:
    """Again and again, for the new link may be as mute; each only after its time."""
    with plain_rig.session(feed_silent_after_s=0.3, reconnect_on_feed_silent=True, stable_after_s=0.1) as session:
        plain_rig.send(opened(7))
        lost = session.wait_for("disconnected", PATIENCE_S)
        assert "no price of 1 open positions" in lost.message.reason
        session.wait_for(lambda event: event.type == "connected" and event.message.reconnected, PATIENCE_S)
        # Until the position is announced again nothing is owed.
        until(lambda: len(plain_rig.peers) == 2)
        plain_rig.send(opened(7))
        session.wait_for("disconnected", PATIENCE_S)


def test_feed_silent_limit_follows_the_server(plain_rig: WebsocketsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the option: 30 times the session's ``pnl_flush_ms`` (500 here), and a least that is 30 s otherwise."""
    monkeypatch.setattr(FeedWatch, "LEAST_S", 0.2)
    monkeypatch.setattr(FeedWatch, "FLUSHES", 2)
    with plain_rig.session() as session:
        assert session.limits is not None
        plain_rig.send(opened(7))
        event = session.wait_for("feed_silent", PATIENCE_S)
        assert event.message.silent_seconds >= max(0.2, 2 * session.limits.pnl_flush_ms / 1000)


NEVER_ENDING = {
    "fragments of one byte": (frame(0x1, b'{"type":' + b" " * 200, final=False), frame(0x0, b" ", final=False)),
    "one frame, byte by byte": (frame(0x1, b" " * 10_000)[:300], b" "),
}


@pytest.mark.parametrize("shape", NEVER_ENDING)
def test_message_that_never_ends_is_no_life(shape: str) -> None:
    """Bytes come, pings are answered below, and yet nothing else can ever follow on this link."""
    begin, piece = NEVER_ENDING[shape]
    stop = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number > 1:
            peer.serve()
        peer.connection.socket.sendall(begin)
        with contextlib.suppress(OSError):
            while not stop.wait(0.01):
                peer.connection.socket.sendall(piece)

    with ScriptedServer(script) as server:
        client = StreamClient(KEY, options=StreamOptions(**SCALED)).with_endpoint(server.url)
        with StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY)) as session:
            lost = session.wait_for("disconnected", PATIENCE_S)
            stop.set()
            assert "no message came" in lost.message.reason
            until(lambda: session.stats().sessions == 2)
