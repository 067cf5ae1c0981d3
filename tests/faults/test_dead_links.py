"""Links that died without a word: noticed in bounded time, whatever else happens.

The promise is twice ``ping_interval_s + pong_timeout_s`` scaled: 0.2 + 0.2 s here, 5 + 5 s in the slow tests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from lasersell_sync import ConnectionState, StreamSession, TransportError
from tests.faults.rigs import Rig, WebsocketsRig, at_s, since
from tests.support.fault_proxy import FaultProxy
from tests.support.stream_server import Peer
from tests.support.waiting import PATIENCE_S, until

PING_S = PONG_S = 0.2
#: The promise at default numbers is 11 s for 5 + 5, 12 s for the retry: a second each, which does not scale.
NOTICED_S = PING_S + PONG_S + 1.0
RETRY_S = NOTICED_S + 1.0

DEATHS: dict[str, Callable[[FaultProxy], None]] = {
    "black hole": lambda proxy: proxy.black_hole(),
    "black hole down": lambda proxy: proxy.black_hole("down"),
    "black hole up": lambda proxy: proxy.black_hole("up"),
    "half-open": lambda proxy: proxy.half_open(),
    "paused": lambda proxy: proxy.pause(),
}


def dies_and_is_noticed(rig: Rig, session: StreamSession, death: str, noticed_s: float, retry_s: float) -> None:
    died_at = time.monotonic()
    DEATHS[death](rig.proxy)
    until(lambda: session.status is not ConnectionState.LIVE, noticed_s)
    assert since(died_at) <= noticed_s
    reconnecting = session.wait_for("reconnecting", max(0.01, died_at + retry_s - time.monotonic()))
    assert at_s(reconnecting) - died_at <= retry_s
    rig.proxy.wait_for_connection(2, max(0.01, died_at + retry_s - time.monotonic()))


@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_link_is_noticed_and_retried_in_time(rig: Rig, death: str) -> None:
    """Not LIVE within ping + pong + 1 s of the last sign of life, a new connection under way 1 s later, then repaired."""
    # Attempts into the black hole must end before the test's patience does; the first connect needs its time as well.
    with rig.session(
        ping_interval_s=PING_S, pong_timeout_s=PONG_S, connect_timeout_s=1.5, max_backoff_s=0.1
    ) as session:
        dies_and_is_noticed(rig, session, death, 2 * NOTICED_S, 2 * RETRY_S)
        rig.proxy.resume()
        rig.proxy.heal()
        assert session.wait_for("connected", PATIENCE_S).message.reconnected


def test_the_gap_counts_from_the_last_sign_of_life(plain_rig: WebsocketsRig) -> None:
    """``gap_seconds`` covers the time in which the link was dead and nobody knew: messages were missed then as well."""
    # Silence is as old as the last byte; the death comes right after one.
    with plain_rig.session(ping_interval_s=0.3, pong_timeout_s=0.5, max_backoff_s=0.1) as session:
        plain_rig.send({"type": "error", "code": "note", "message": "last sign of life"})
        session.wait_for("error", PATIENCE_S)
        plain_rig.proxy.half_open()
        died_at = time.monotonic()
        again = session.wait_for("connected", PATIENCE_S)
        # It took 0.8 s to notice; half of that for what may pass between two lines on a loaded machine.
        assert again.message.gap_seconds >= at_s(again) - died_at - 0.4


def test_a_dead_link_is_noticed_while_commands_are_sent(rig: Rig) -> None:
    """Our own writes are no sign of life: a link that takes commands and answers nothing is dropped all the same."""
    with rig.session(ping_interval_s=PING_S, pong_timeout_s=PONG_S) as session:
        rig.proxy.black_hole()
        died_at = time.monotonic()

        def talk() -> bool:
            # It may have been given up since the last look.
            with contextlib.suppress(TransportError):
                session.sender().ping(1)
            return session.status not in (ConnectionState.LIVE, ConnectionState.STALE)

        until(talk, 2 * NOTICED_S)
        assert since(died_at) <= 2 * NOTICED_S


def test_transport_pongs_without_application_life_are_noticed(plain_rig: WebsocketsRig) -> None:
    """A server that answers WebSocket pings and no application ping is dropped within app interval + timeout + 1 s."""
    # The websockets package answers pings in its own thread, so a script that only sleeps is mute and yet alive.
    plain_rig.server.script = lambda peer: mute(plain_rig, peer)
    connecting = time.monotonic()
    with plain_rig.session(
        ping_interval_s=0.1, pong_timeout_s=1.0, app_ping_interval_s=0.3, app_pong_timeout_s=0.2
    ) as session:
        connected = time.monotonic()
        lost = session.wait_for("disconnected", PATIENCE_S)
        assert "the transport answers" in lost.message.reason
        assert at_s(lost) - connecting >= 0.5
        assert at_s(lost) - connected <= 2 * (0.5 + 1.0)
        plain_rig.proxy.wait_for_connection(2)


def mute(rig: WebsocketsRig, peer: Peer) -> None:
    """A script: greets, then reads and never says a word; pings are answered by the library under it."""
    peer.recv()
    rig.greet(peer)
    peer.serve()


def test_application_pings_can_be_switched_off(plain_rig: WebsocketsRig) -> None:
    """With ``app_ping_interval_s=None`` transport pongs are life enough, and no ``ping`` message is sent."""
    plain_rig.server.script = lambda peer: mute(plain_rig, peer)
    with plain_rig.session(ping_interval_s=0.05, pong_timeout_s=5.0, app_ping_interval_s=None) as session:
        # Twenty answered pings are twenty chances for a false alarm.
        until(lambda: session.stats().frames_received >= 20)
        assert session.status is ConnectionState.LIVE
        assert plain_rig.sessions == 1
        assert [m["type"] for m in plain_rig.peers[0].received] == ["configure"]


def test_traffic_keeps_application_pings_away(plain_rig: WebsocketsRig) -> None:
    """As long as messages come, no application ping is sent: the 45-minute rule and the server's load are respected."""
    interval_s = 0.8
    with plain_rig.session(app_ping_interval_s=interval_s, app_pong_timeout_s=5.0) as session:
        came = [time.monotonic()]
        while came[-1] - came[0] < 2 * interval_s:
            plain_rig.send({"type": "error", "code": "note", "message": "x"})
            came.append(at_s(session.wait_for("error", PATIENCE_S)))
            time.sleep(0.02)  # the pace of the traffic
        kinds = [m["type"] for m in plain_rig.peers[0].received]
        # A machine that stood still for so long made a silence of its own.
        stood_still = max(later - earlier for earlier, later in pairwise(came)) >= interval_s / 2
        assert kinds == ["configure"] or stood_still


@pytest.mark.slow
@pytest.mark.parametrize("death", ["black hole", "half-open"])
def test_a_dead_link_at_the_default_numbers(rig: Rig, death: str) -> None:
    """Not LIVE within 11 s, retry under way within 12 s, with nobody's options."""
    with rig.session() as session:
        dies_and_is_noticed(rig, session, death, 11.0, 12.0)


@pytest.mark.slow
def test_no_application_life_at_the_default_numbers(plain_rig: WebsocketsRig) -> None:
    """A mute application behind an answering transport is noticed within 16 s."""
    plain_rig.server.script = lambda peer: mute(plain_rig, peer)
    with plain_rig.session() as session:
        started = time.monotonic()
        session.wait_for("disconnected", 16.0)
        assert since(started) <= 16.0
