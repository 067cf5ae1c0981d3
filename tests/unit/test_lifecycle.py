"""The connection's states and what a failure means in them; no socket, no clock."""

from __future__ import annotations

import random

import pytest

from lasersell_sync import (
    AuthenticationError,
    ConnectionState,
    HandshakeError,
    ProtocolError,
    SessionLimitError,
    StrategyError,
    ThreadDiedError,
    TransportError,
    WalletNotRegisteredError,
)
from lasersell_sync.stream.lifecycle import AUTH_ATTEMPTS, QUICK_LOSSES, Lifecycle, ReconnectRules, handshake_error

LOST = TransportError("link", "h:1", "gone")


def live(**rules: float) -> Lifecycle:
    lifecycle = Lifecycle(ReconnectRules(**rules), random.Random(1))
    lifecycle.opened()
    return lifecycle


def again(lifecycle: Lifecycle) -> None:
    """Lose the link, wait, come back."""
    lifecycle.go(ConnectionState.BACKOFF)
    lifecycle.go(ConnectionState.CONNECTING)
    lifecycle.opened()


def test_the_drawn_ways_exist_and_no_others() -> None:
    """The picture in the module's docstring is the truth."""
    ways = {
        ConnectionState.CONNECTING: {"LIVE", "BACKOFF", "DEGRADED", "FAILED", "CLOSED"},
        ConnectionState.LIVE: {"STALE", "BACKOFF", "DEGRADED", "FAILED", "CLOSED"},
        ConnectionState.STALE: {"LIVE", "BACKOFF", "DEGRADED", "FAILED", "CLOSED"},
        ConnectionState.BACKOFF: {"CONNECTING", "DEGRADED", "FAILED", "CLOSED"},
        ConnectionState.DEGRADED: {"CONNECTING", "FAILED", "CLOSED"},
        ConnectionState.FAILED: set(),
        ConnectionState.CLOSED: set(),
    }
    assert set(ways) == set(ConnectionState)
    for start, allowed in ways.items():
        for goal in ConnectionState:
            lifecycle = Lifecycle()
            lifecycle.state = start
            if goal.name in allowed:
                lifecycle.go(goal)
                assert lifecycle.state is goal
            else:
                with pytest.raises(AssertionError, match=goal.name):
                    lifecycle.go(goal)


def test_silence_makes_a_session_stale_and_a_byte_makes_it_live() -> None:
    """And neither means anything outside a session."""
    lifecycle = live()
    lifecycle.silent(stale=True)
    assert lifecycle.state is ConnectionState.STALE
    assert lifecycle.in_session
    lifecycle.silent(stale=True)
    lifecycle.silent(stale=False)
    assert lifecycle.state is ConnectionState.LIVE
    lifecycle.go(ConnectionState.BACKOFF)
    lifecycle.silent(stale=True)
    assert lifecycle.state is ConnectionState.BACKOFF


def test_before_the_first_session_every_failure_is_final() -> None:
    """``connect`` raises instead of trying for ever."""
    for error in (LOST, HandshakeError("no"), AuthenticationError("no"), OSError()):
        assert Lifecycle().is_final(error)


def test_afterwards_links_and_servers_are_retried_and_bugs_are_not() -> None:
    """A lost link, a refusing server, a limit: again. An exception nobody meant: the end, with its traceback."""
    for error in (LOST, HandshakeError("503", status=503), SessionLimitError("busy"), ProtocolError("x"), OSError()):
        assert not live().is_final(error)
    assert not live().is_final(WalletNotRegisteredError("w"))
    assert live().is_final(ZeroDivisionError())


def test_a_refused_key_is_final_after_so_many_tries_in_a_row() -> None:
    """A session in between starts the count again."""
    lifecycle = live()
    refused = AuthenticationError("no")

    def refuse() -> bool:
        lifecycle.attempt_failed(refused, live_s=None)
        return lifecycle.is_final(refused)

    assert [refuse() for _ in range(AUTH_ATTEMPTS - 1)] == [False] * (AUTH_ATTEMPTS - 1)
    again(lifecycle)
    assert [refuse() for _ in range(AUTH_ATTEMPTS)] == [False] * (AUTH_ATTEMPTS - 1) + [True]


@pytest.mark.parametrize("between", [LOST, HandshakeError("busy", status=503), SessionLimitError("busy"), OSError()])
def test_refusals_of_the_key_with_another_failure_between_them_are_not_final(between: Exception) -> None:
    """Three in a row end the connection; a server that is down or restarting in between starts the count again."""
    lifecycle = live()
    refused = AuthenticationError("no")
    for _ in range(3 * AUTH_ATTEMPTS):
        for _ in range(AUTH_ATTEMPTS - 1):
            lifecycle.attempt_failed(refused, live_s=None)
            assert not lifecycle.is_final(refused)
        lifecycle.attempt_failed(between, live_s=None)


def test_sessions_replaced_again_and_again_are_met_with_growing_waits() -> None:
    """Each attempt succeeds, for it replaces the other session in its turn; a session that lived ends the growth."""
    lifecycle = live()
    replaced = SessionLimitError("another session took over", code="session_replaced")
    bound_s = 1.0
    for _ in range(12):
        lifecycle.attempt_failed(replaced, live_s=0.1)
        wait = lifecycle.wait_after(replaced)
        assert wait.state is ConnectionState.BACKOFF
        assert bound_s / 2 <= wait.seconds <= bound_s
        bound_s = min(90.0, 2 * bound_s)
        again(lifecycle)
    lifecycle.attempt_failed(replaced, live_s=60.0)
    assert lifecycle.wait_after(replaced).seconds <= 1.0


def test_the_death_of_a_thread_is_final() -> None:
    """Nobody can say what it left undone."""
    assert live().is_final(ThreadDiedError("lasersell-dispatch", "SystemExit"))


def test_an_unreachable_server_is_met_with_full_jitter_up_to_two_seconds() -> None:
    """Forever, without ever becoming DEGRADED."""
    lifecycle = live()
    refused = TransportError("tcp", "h:1", "refused")
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    for n in range(200):
        lifecycle.attempt_failed(refused, live_s=None)
        wait = lifecycle.wait_after(refused)
        assert wait.state is ConnectionState.BACKOFF
        assert 0 <= wait.seconds <= bounds[min(n, len(bounds) - 1)]


def test_after_ten_dead_minutes_recovery_is_one_short_wait_away() -> None:
    """Whatever the seed: the longest wait stays two seconds, so a server that comes back is met within them."""
    refused = TransportError("dns", "h:1", "no such host")
    for seed in range(100):
        lifecycle = Lifecycle(rand=random.Random(seed))
        lifecycle.opened()
        now, attempts = 0.0, 0
        while now < 600:
            lifecycle.attempt_failed(refused, live_s=None)
            wait = lifecycle.wait_after(refused)
            assert wait.seconds <= 2.0
            lifecycle.go(wait.state)
            lifecycle.go(ConnectionState.CONNECTING)
            # A look-up or connect that fails at once costs next to nothing.
            now += wait.seconds + 0.001
            attempts += 1
        # About one attempt a second: patient, and not a hammer.
        assert 400 < attempts < 900


def test_only_a_stable_session_ends_the_count_of_failures() -> None:
    """Short sessions in a row make the wait DEGRADED and long; one stable session ends that."""
    lifecycle = live()
    for n in range(1, QUICK_LOSSES + 4):
        lifecycle.attempt_failed(LOST, live_s=0.2)
        wait = lifecycle.wait_after(LOST)
        assert (wait.state is ConnectionState.DEGRADED) == (n > QUICK_LOSSES)
        if n > QUICK_LOSSES:
            bound = min(60.0, 4.0 * 2 ** (n - QUICK_LOSSES - 1))
            assert bound / 2 <= wait.seconds <= bound
        again(lifecycle)
    lifecycle.attempt_failed(LOST, live_s=5.0)
    wait = lifecycle.wait_after(LOST)
    assert wait.state is ConnectionState.BACKOFF
    assert wait.seconds <= 0.1


def test_a_server_that_drops_every_session_is_met_at_most_20_times_in_5_minutes() -> None:
    """For every one of 1,000 seeds, on a virtual clock; and DEGRADED is reported each time."""
    most = 0
    for seed in range(1000):
        lifecycle = Lifecycle(rand=random.Random(seed))
        now, connects, degraded = 0.0, 0, False
        while True:
            connects += 1
            lifecycle.opened()
            lifecycle.attempt_failed(LOST, live_s=0.01)
            wait = lifecycle.wait_after(LOST)
            degraded = degraded or wait.state is ConnectionState.DEGRADED
            now += 0.01 + wait.seconds
            if now > 300:
                break
            lifecycle.go(wait.state)
            lifecycle.go(ConnectionState.CONNECTING)
        assert degraded, seed
        most = max(most, connects)
    assert most <= 20


def test_another_session_is_waited_for() -> None:
    """Longer each time, never more than 90 s, never less than half."""
    lifecycle = live()
    busy = SessionLimitError("busy")
    for n in range(12):
        lifecycle.attempt_failed(busy, live_s=None)
        bound = min(90.0, 2.0**n)
        wait = lifecycle.wait_after(busy)
        assert bound / 2 <= wait.seconds <= bound
        assert wait.state is ConnectionState.BACKOFF
    lifecycle.attempt_failed(LOST, live_s=None)
    assert lifecycle.wait_after(LOST).seconds <= 2.0


def test_retry_after_is_honoured_up_to_its_bound() -> None:
    """At least as long as the server asks, but not for ever."""
    lifecycle = live()
    for asked, expected in ((7.0, 7.0), (10_000.0, 300.0)):
        error = HandshakeError("slow down", status=429, retry_after_s=asked)
        lifecycle.attempt_failed(error, live_s=None)
        assert lifecycle.wait_after(error).seconds == expected


def test_after_a_standstill_the_link_is_made_anew_at_once() -> None:
    """Whatever happened before."""
    lifecycle = live()
    for _ in range(10):
        lifecycle.attempt_failed(LOST, live_s=0.1)
    stopped = TransportError("stop", "h:1", "stood still")
    lifecycle.attempt_failed(stopped, live_s=100.0)
    assert lifecycle.wait_after(stopped).seconds == 0.0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_api_key", AuthenticationError),
        ("unauthorized", AuthenticationError),
        ("wallet_not_registered", WalletNotRegisteredError),
        ("session_limit", SessionLimitError),
        ("session_replaced", SessionLimitError),
        ("invalid_strategy", StrategyError),
        ("limit_exceeded", HandshakeError),
    ],
)
def test_codes_become_exceptions(code: str, kind: type[Exception]) -> None:
    """Each code has its state; an unknown one, too."""
    error = handshake_error(code, "words")
    assert type(error) is kind
    assert error.code == code  # type: ignore[attr-defined]
    assert "words" in str(error)
