"""Links that are bad but alive: late, uneven, cut into single bytes, or narrow. They are kept.

Ten times faster than the promise: 0.2 s of latency for 2 s, pings after 0.5 s for 5 s, 10 KiB/s for 1 KiB/s. Only the
answers get a fifth of their time instead, for the machine may be loaded.
"""

from __future__ import annotations

from typing import Any

import pytest

from lasersell_sync import ConnectionState, StreamSession
from tests.faults.rigs import Rig, WebsocketsRig
from tests.support.stream_server import exit_signal, opened
from tests.support.waiting import PATIENCE_S, until

SCALED: dict[str, Any] = {
    "ping_interval_s": 0.5,
    "pong_timeout_s": 1.0,
    "app_ping_interval_s": 1.0,
    "app_pong_timeout_s": 1.0,
}
WEATHER: dict[str, dict[str, Any]] = {
    "latency": {"latency_s": 0.2},
    "jitter": {"latency_s": 0.05, "jitter_s": 0.15},
    "1-byte slices": {"slice_bytes": 1},
    "narrow": {"bytes_per_s": 10 * 1024},
    "all at once": {"latency_s": 0.05, "jitter_s": 0.1, "slice_bytes": 64, "bytes_per_s": 10 * 1024},
}


def stays_up(rig: Rig, session: StreamSession, count: int) -> None:
    """``count`` messages, then three keepalive rounds of silence, and it is still the first session."""
    for n in range(1, count + 1):
        rig.send(opened(n, account=f"account-{n}"))
    until(lambda: len(session.positions()) == count)
    assert [handle.position_id for handle in session.positions()] == list(range(1, count + 1))
    frames = session.stats().frames_received
    until(lambda: session.stats().frames_received >= frames + 3)  # pongs
    assert session.status in (ConnectionState.LIVE, ConnectionState.STALE)
    assert session.stats().sessions == 1
    assert rig.proxy.accepted == 1


@pytest.mark.parametrize("weather", WEATHER)
def test_a_bad_link_is_no_dead_link(plain_rig: WebsocketsRig, weather: str) -> None:
    """No false disconnect and no lost byte under latency, jitter, 1-byte slices or a narrow pipe."""
    plain_rig.proxy.shape(**WEATHER[weather])
    # The proxy spends time of its own on every slice.
    with plain_rig.session(**{**SCALED, "pong_timeout_s": 3.0, "app_pong_timeout_s": 3.0}) as session:
        stays_up(plain_rig, session, 30)


@pytest.mark.parametrize("weather", ["latency", "1-byte slices"])
def test_connecting_works_in_bad_weather(rig: Rig, weather: str) -> None:
    """The handshake fits into its budget, and the answer to the upgrade may come byte by byte."""
    rig.proxy.shape(**WEATHER[weather])
    with rig.session(connect_timeout_s=5.0) as session:
        assert session.status is ConnectionState.LIVE


def test_a_long_message_over_a_narrow_link_is_a_sign_of_life(plain_rig: WebsocketsRig) -> None:
    """A message that takes longer than the application's silence limit to arrive is progress, not silence."""
    with plain_rig.session(**SCALED) as session:
        plain_rig.send(opened(7))
        session.wait_for("position_opened", PATIENCE_S)
        plain_rig.proxy.shape("down", bytes_per_s=10 * 1024)
        # 30 KiB: 3 s at this pace; the limit for silence is 2 s.
        plain_rig.send(exit_signal(7, unsigned_tx_b64="A" * 30 * 1024))
        session.wait_for("exit_signal_with_tx", PATIENCE_S)
        assert session.stats().sessions == 1


def test_a_burst_through_a_narrow_link_loses_nothing(plain_rig: WebsocketsRig) -> None:
    """Keepalive's answers wait behind data in the same pipe; the data itself is the sign of life."""
    with plain_rig.session(**SCALED) as session:
        plain_rig.proxy.shape("down", bytes_per_s=20 * 1024)
        for n in range(1, 201):
            plain_rig.send(opened(n, account=f"account-{n}"))
        until(lambda: len(session.positions()) == 200)
        assert session.stats().sessions == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "weather",
    [
        {"latency_s": 2.0},
        {"latency_s": 0.5, "jitter_s": 1.5},
        {"slice_bytes": 1},
        {"bytes_per_s": 1024},
    ],
)
def test_a_bad_link_at_the_default_numbers(rig: Rig, weather: dict[str, Any]) -> None:
    """2 s of latency, as much jitter, single bytes, 1 KiB/s: no false disconnect with default options."""
    rig.proxy.shape(**weather)
    with rig.session() as session:
        for n in range(1, 21):
            rig.send(opened(n, account=f"account-{n}"))
        until(lambda: len(session.positions()) == 20, 60)
        frames = session.stats().frames_received
        until(lambda: session.stats().frames_received >= frames + 2, 60)
        assert session.stats().sessions == 1
