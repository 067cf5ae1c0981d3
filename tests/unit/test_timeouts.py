"""Numbers that people write for "no limit": in every option and in every call that waits."""

from __future__ import annotations

import math
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from lasersell_sync import (
    ConfigurationError,
    ExitApiClientOptions,
    RetryPolicy,
    SellPolicy,
    StrategyConfig,
    StrategyError,
    StreamClient,
    StreamConfigure,
    StreamOptions,
    StreamSession,
)
from lasersell_sync.autosell.keyed_executor import KeyedExecutor
from lasersell_sync.positions import PositionHandle
from lasersell_sync.runtime.timeouts import MAX_WAIT_S, TimeBudget, bounded_s, wait_s
from lasersell_sync.session.deadlines import DeadlineClock
from tests.support.stream_server import WALLET, ScriptedServer, idle, opened
from tests.support.waiting import PATIENCE_S, until

NO_LIMIT = [1e7, 1e9, 1e10, 1e18, 1e300, sys.maxsize, 10**400]
SECONDS = [
    (cls, field.name)
    for cls in (StreamOptions, ExitApiClientOptions, RetryPolicy, SellPolicy)
    for field in attrs.fields(cls)
    if field.name.endswith("_s")
]


@pytest.mark.parametrize("number", NO_LIMIT)
@pytest.mark.parametrize(("cls", "name"), SECONDS)
def test_option_number_for_no_limit_is_kept_as_the_longest_wait(cls: Any, name: str, number: float) -> None:
    assert getattr(cls(**{name: number}), name) == MAX_WAIT_S


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, -(10**400), -1])
@pytest.mark.parametrize(("cls", "name"), SECONDS)
def test_option_that_is_no_number_of_seconds_is_refused(cls: Any, name: str, number: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        cls(**{name: number})


def test_option_ordinary_number_is_kept_as_it_is() -> None:
    assert StreamOptions(ping_interval_s=3, feed_silent_after_s=None).ping_interval_s == 3
    assert StreamOptions(app_ping_interval_s=None).app_ping_interval_s is None
    assert [bounded_s(number) for number in (0, 1.5, MAX_WAIT_S, math.inf)] == [0, 1.5, MAX_WAIT_S, math.inf]
    assert [wait_s(number) for number in (None, -1, 2.5, math.inf)] == [None, 0.0, 2.5, MAX_WAIT_S]


@pytest.mark.parametrize("number", [*NO_LIMIT, math.inf])
def test_time_budget_without_limit_gives_waits_that_every_call_takes(number: float) -> None:
    now = [5.0]
    budget = TimeBudget(number, clock=lambda: now[0])
    assert budget.remaining_s() == MAX_WAIT_S
    now[0] += 2 * MAX_WAIT_S
    assert not budget.expired()


@pytest.mark.parametrize("number", NO_LIMIT)
def test_session_every_number_for_no_limit_works(number: float) -> None:
    """All options and all calls at once: it connects, receives, waits, and closes at once."""
    numbers = {field.name: number for field in attrs.fields(StreamOptions) if field.name.endswith("_s")}
    with ScriptedServer(idle) as server:
        client = StreamClient("key", options=StreamOptions(**numbers)).with_endpoint(server.url)
        strategy = StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0)
        session = StreamSession.connect(client, StreamConfigure([WALLET], strategy, number))
        try:
            server.peer().send(opened(7))
            # One that a double cannot hold is no number of seconds for a queue.
            limit = min(number, 1e300)
            assert session.wait_for("position_opened", limit).handle is not None
            assert session.recv(limit) is not None
            waits: list[Callable[[], object]] = [lambda: session.wait_for("error", limit), lambda: session.recv(limit)]
            while session.events.qsize():
                session.recv(limit)
            threads = [threading.Thread(target=_end_of, args=(wait,)) for wait in waits]
            for thread in threads:
                thread.start()
            until(lambda: session._state.memory.lines)
            session.update_strategy(strategy, deadline_timeout_sec=number)
            assert session.health().ok, session.health()
        finally:
            session.close(timeout=number)
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def _end_of(wait: Callable[[], object]) -> None:
    try:
        wait()
    except Exception as error:
        assert not isinstance(error, (OverflowError, queue.Empty)), error  # noqa: PT017 - the thread's end is the test


@pytest.mark.parametrize("number", NO_LIMIT)
def test_deadline_for_no_limit_waits_and_stays_changeable(number: float) -> None:
    fired: list[object] = []
    died: list[object] = []
    clock = DeadlineClock(lambda *what: bool(fired.append(what)) or True, on_death=died.append)
    clock.set_timeout(number)
    handle = PositionHandle(
        position_id=1, token_account="account", wallet_pubkey=WALLET, mint="mint", tokens=1, entry_quote_units=1
    )
    clock.start(handle, age_s=60.0)
    assert not fired
    clock.set_timeout(1.0)
    until(lambda: fired)
    clock.stop()
    assert not died


@pytest.mark.parametrize("number", [math.inf, math.nan, -1, -(10**400)])
def test_deadline_that_is_no_number_of_seconds_is_refused(number: float) -> None:
    configure = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0), number)
    with pytest.raises(StrategyError, match="deadline_timeout_sec"):
        configure.validate()


@pytest.mark.parametrize("number", NO_LIMIT)
def test_executor_close_without_limit_ends_when_its_tasks_do(number: float) -> None:
    lines = KeyedExecutor(2, lambda key, error: None)
    lines.start()
    done = threading.Event()
    lines.put("key", done.set)
    assert done.wait(PATIENCE_S)
    assert lines.close(number) == []
