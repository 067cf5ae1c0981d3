"""A server that contradicts itself: everything is delivered or counted, and nothing raises."""

from __future__ import annotations

import logging

import pytest

from tests.faults.rigs import Rig, drain
from tests.support.stream_server import ACCOUNT, MINT, OTHER_WALLET, WALLET, closed, exit_signal, opened, pnl
from tests.support.waiting import PATIENCE_S, until

REPEATS = 100


@pytest.fixture(autouse=True)
def _no_error_is_logged(caplog: pytest.LogCaptureFixture):
    """Confusion is the server's, not an error of ours."""
    yield
    errors = [
        r.getMessage() for r in caplog.records if r.name.startswith("lasersell_sync") and r.levelno >= logging.ERROR
    ]
    assert not errors


def fenced(rig: Rig, session) -> list:
    """Everything delivered up to a message of now."""
    rig.send({"type": "error", "code": "fence", "message": "."})
    session.wait_for(lambda event: event.type == "error" and event.message.code == "fence", PATIENCE_S)
    return drain(session)


def test_closed_before_opened(rig: Rig) -> None:
    """The close is told without a handle; the later announcement opens the position all the same."""
    with rig.session() as session:
        rig.send(closed(7))
        rig.send(opened(7))
        events = [e for e in fenced(rig, session) if e.type.startswith("position")]
        assert [(e.type, e.handle is None) for e in events] == [("position_closed", True), ("position_opened", False)]
        assert [handle.position_id for handle in session.positions()] == [7]


def test_exits_for_unknown_positions_are_delivered(rig: Rig) -> None:
    """Each holds a transaction that may save money: all come through, without a handle, once each."""
    with rig.session() as session:
        for n in range(REPEATS):
            rig.send(exit_signal(1000 + n, account=f"account-{n}", triggered_at_ms=n))
        events = [e for e in fenced(rig, session) if e.type == "exit_signal_with_tx"]
        assert [e.message.position_id for e in events] == list(range(1000, 1000 + REPEATS))
        assert all(e.handle is None for e in events)
        assert session.positions() == []


def test_an_exit_signal_repeated_is_delivered_once_and_counted(rig: Rig) -> None:
    """The same signal a hundred times over: one event, 99 counted; a fresh transaction is a new signal."""
    with rig.session() as session:
        rig.send(opened(7))
        for _ in range(REPEATS):
            rig.send(exit_signal(7))
        rig.send(exit_signal(7, unsigned_tx_b64="BBBB"))
        events = [e for e in fenced(rig, session) if e.type == "exit_signal_with_tx"]
        assert [e.message.unsigned_tx_b64 for e in events] == ["AAAA", "BBBB"]
        assert session.stats().duplicates == REPEATS - 1


def test_a_position_announced_again_and_again_is_one_position(rig: Rig) -> None:
    """A hundred announcements under a hundred ids: one position with the last id; old ids mean nothing any more."""
    with rig.session() as session:
        for n in range(1, REPEATS + 1):
            rig.send(opened(n))
            rig.send(pnl(n, n))
        fenced(rig, session)
        assert [handle.position_id for handle in session.positions()] == [REPEATS]
        newest = session.pnl(session.positions()[0])
        assert newest is not None
        assert newest.profit_units == REPEATS


def test_a_close_repeated_is_told_each_time_and_changes_nothing_more(rig: Rig) -> None:
    """The first close has the handle; the others have none, and none of them takes another position along."""
    with rig.session() as session:
        rig.send(opened(7))
        rig.send(opened(8, account="another"))
        for _ in range(REPEATS):
            rig.send(closed(7))
        events = [e for e in fenced(rig, session) if e.type == "position_closed"]
        assert len(events) == REPEATS
        assert events[0].handle is not None
        assert [handle.position_id for handle in session.positions()] == [8]


def test_updates_of_strangers_and_of_the_dead(rig: Rig) -> None:
    """Updates of unknown positions come without a handle; those of closed ones are counted as late."""
    with rig.session() as session:
        rig.send(pnl(5))
        rig.send(opened(7))
        rig.send(closed(7))
        for n in range(REPEATS):
            rig.send(pnl(7, n))
        events = [e for e in fenced(rig, session) if e.type == "pnl_update"]
        assert [(e.message.position_id, e.handle) for e in events] == [(5, None)]
        assert session.stats().late >= REPEATS


def test_one_account_in_two_wallets_is_two_positions(rig: Rig) -> None:
    """Identity is wallet and account together, also for a server that mixes them up."""
    with rig.session() as session:
        rig.send(opened(7))
        rig.send({**opened(8), "wallet_pubkey": OTHER_WALLET})
        fenced(rig, session)
        assert {handle.position_id for handle in session.positions()} == {7, 8}


def test_hello_in_mid_session_limits_and_session_id_follow_it(rig: Rig) -> None:
    """A second greeting is a message like any other; what follows it works."""
    from tests.support.stream_server import hello

    with rig.session() as session:
        latest = hello(4242)
        latest["limits"]["max_positions_per_session"] = 3
        rig.send(latest)
        rig.send(opened(7))
        fenced(rig, session)
        until(lambda: len(session.positions()) == 1)
        assert session.stats().sessions == 1
        assert session.session_id == 4242
        assert session.limits is not None
        assert session.limits.max_positions_per_session == 3


def test_one_id_for_two_accounts_on_one_link_keeps_both_and_is_reported(rig: Rig) -> None:
    """The newer owner has the id; what names an account is about that account; each contradiction is counted."""
    with rig.session() as session:
        rig.send(opened(1))
        rig.send(pnl(1, 5))
        rig.send(opened(1, account="another"))
        rig.send(pnl(1, 6))
        rig.send(exit_signal(1))
        rig.send(exit_signal(1, account="another"))
        rig.send(
            {
                "type": "balance_update",
                "wallet_pubkey": WALLET,
                "mint": MINT,
                "token_account": ACCOUNT,
                "tokens": 3,
                "slot": 9,
            }
        )
        events = fenced(rig, session)
        assert [e.handle.token_account for e in events if e.type == "exit_signal_with_tx"] == [ACCOUNT, "another"]
        assert {handle.token_account: handle.tokens for handle in session.positions()} == {ACCOUNT: 3, "another": 1000}
        first, second = session.positions()
        newest = session.pnl(second)
        assert newest is not None
        assert (session.pnl(first), newest.profit_units) == (None, 6)
        (told,) = [e.message for e in events if e.type == "contradiction"]
        assert (told.position_id, told.token_account, told.count) == (1, "another", 1)
        rig.send({**closed(1), "token_account": None})
        (gone,) = [e for e in fenced(rig, session) if e.type == "position_closed"]
        assert gone.handle is not None
        assert gone.handle.token_account == "another"
        assert [handle.token_account for handle in session.positions()] == [ACCOUNT]
        assert session.health().contradictions == session.stats().contradictions == 2
        assert session.health().ok
