"""Whatever node, chain, stream and disk do: one live transaction of an exit at most, and the right outcome told.

``Overseer`` looks at every distinct transaction that arrives at the node, and whether an earlier one could still land.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

import lasersell_sync as ls
from lasersell_sync.autosell import journal_file
from lasersell_sync.autosell.exit_key import WHOLE, ExitKey
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.sandbox import Policies
from lasersell_sync.trading.solana.json_rpc import RpcClient, client_for
from lasersell_sync.trading.solana.rpc_node import RpcNode
from tests.support.stages import Stage
from tests.support.waiting import PATIENCE_S, until

CONFIRMED = ls.SellOutcome.CONFIRMED


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as made:
        yield made


@pytest.fixture
def direct_stage(tmp_path: Path) -> Iterator[Stage]:
    """Where trades go to the markets without the Router: the guard reads them alone, and asks no node first."""
    with Stage(tmp_path, router=False) as made:
        yield made


@pytest.fixture
def unhurried_stage(tmp_path: Path) -> Iterator[Stage]:
    """As ``direct_stage``, where a blockhash lives for 16 s: longer than a slow machine takes for a sale."""
    with Stage(tmp_path, router=False, speed=2.0) as made:
        yield made


@pytest.fixture
def still_stage(tmp_path: Path) -> Iterator[Stage]:
    """Where time stands still until the test lets it pass: nothing lands or dies because the machine is slow."""
    with Stage(tmp_path, clock="manual", landing_delay_ms=0) as made:
        yield made


# ── the node ─────────────────────────────────────────────────────────────────────────────────────────────────────

SENSELESS: dict[str, dict[str, Any]] = {
    "an error": {"error_code": -32005, "error_message": "Node is behind by 42 slots"},
    "HTTP 500": {"status": 500},
    "HTTP 429": {"status": 429, "retry_after_s": 0},
    "HTML": {"status": 200, "body": "<html><h1>502 Bad Gateway</h1></html>"},
    "half a JSON text": {"body": '{"jsonrpc":"2.0","result":'},
    "another's answer": {"body": '{"jsonrpc":"2.0","result":null,"id":0}'},
    "nothing": {"hang_up": True},
}


@pytest.mark.parametrize("is_handled", [True, False], ids=["after obeying", "without looking"])
@pytest.mark.parametrize("answer", SENSELESS)
def test_a_node_that_answers_senselessly(unhurried_stage: Stage, answer: str, is_handled: bool):
    """To the first ten calls, whatever they ask; the transaction was taken or not, and is sold once either way."""
    stage = unhurried_stage
    with stage.selling():
        stage.sandbox.faults.rpc(times=10, handled=is_handled, **SENSELESS[answer])
        stage.want_exits()
        stage.wait_for_reports()
        assert stage.sandbox.faults.pending["answers"] == []
    stage.assert_each_sold_once()
    assert len(stage.overseer.arrivals) == 1


def test_a_refusal_of_the_only_copy_is_followed_by_another_transaction(unhurried_stage: Stage):
    """The node says for certain that it did not take it, and did not: the next one comes at once, without a proof."""
    stage = unhurried_stage
    with stage.selling():
        stage.sandbox.faults.rpc(
            "sendTransaction", error_code=-32002, error_message="Blockhash not found", handled=False
        )
        stage.want_exits()
        (report,) = stage.wait_for_reports()
    assert (report.outcome, report.transactions) == (CONFIRMED, 2)
    stage.assert_each_sold_once()


@pytest.mark.parametrize("fate", [None, "never", "lost"])
def test_a_node_that_lags_two_hundred_slots(direct_stage: Stage, fate: Any):
    """It knows nothing of the blockhash nor of the landing: nothing is believed dead before it is."""
    stage = direct_stage
    with stage.selling(), stage.slots_pass():
        stage.sandbox.faults.rpc_lag(200)
        if fate is not None:
            stage.sandbox.faults.transactions(fate)
        stage.want_exits()
        (report,) = stage.wait_for_reports()
    stage.assert_each_sold_once()
    assert report.transactions == (2 if fate == "never" else 1)


def test_a_node_that_has_not_seen_the_tokens_yet_ends_no_unfinished_exit(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """A process ended before it signed; at the next one's start the node stands before the purchase."""
    asked, real = threading.Semaphore(0), RpcClient.call

    def call(client: RpcClient, method: str, *args: Any, **options: Any) -> Any:
        if method == "getMultipleAccounts":
            asked.release()
        return real(client, method, *args, **options)

    (wallet,) = stage.wallets
    account = get_associated_token_address(Pubkey.from_string(wallet), Pubkey.from_string(stage.mint))
    with ls.Journal(stage.journal_path) as journal:
        key = ExitKey(wallet, str(account), stage.mint, WHOLE, 1)
        slot = RpcNode(client_for(stage.rpc)).tip("confirmed", budget=TimeBudget(PATIENCE_S)).slot
        journal.received(key, position_id=1, reason="stop_loss", tokens=stage.tokens[wallet], slot=slot)
    stage.sandbox.faults.rpc_lag(2_500)
    monkeypatch.setattr(RpcClient, "call", call)
    with stage.selling():
        for _ in range(3):
            assert asked.acquire(timeout=PATIENCE_S)
        assert stage.reports == []
        stage.sandbox.faults.rpc_lag(0)
        stage.wait_for_reports()
    stage.assert_each_sold_once()


def test_a_node_whose_lag_comes_and_goes(stage: Stage):
    """As behind a load balancer: slots go backwards, and what was valid is not known any more."""
    with stage.selling(), stage.slots_pass():
        stage.sandbox.faults.transactions("never", times=2)
        stage.want_exits()
        for lag in (200, 0, 40, 0, 300, 7) * 4:
            stage.sandbox.faults.rpc_lag(lag)
            stage.see_polls(2)
        stage.sandbox.faults.rpc_lag(0)
        (report,) = stage.wait_for_reports()
    stage.assert_each_sold_once()
    assert report.transactions == 3


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_three_targets_hangs(tmp_path: Path, place: int):
    """It takes connections and bytes, and never says a word."""
    with Stage(tmp_path, wallets=3, speed=2.0) as stage, socket.create_server(("127.0.0.1", 0)) as hangs:
        targets = [stage.rpc, stage.rpc]
        targets.insert(place, ls.SendTargetRpc(f"http://127.0.0.1:{hangs.getsockname()[1]}"))
        with stage.selling(targets):
            stage.want_exits()
            reports = stage.wait_for_reports(3)
            hangs.close()  # the sender's end would wait for it
        assert {report.transactions for report in reports} == {1}
        stage.assert_each_sold_once()


# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_landing_29_seconds_late(tmp_path: Path):
    """A second before its blockhash dies: nothing was sent in its place, however long it was unknown."""
    with Stage(tmp_path, clock="manual", landing_delay_ms=400) as stage, stage.selling():
        stage.sandbox.faults.transactions("late", landing_delay_ms=29_000)
        stage.want_exits()
        stage.wait_for_arrivals()
        for _ in range(28):
            stage.sandbox.advance(1)
            stage.see_polls(2)
        assert (len(stage.overseer.arrivals), stage.reports) == (1, [])
        stage.sandbox.advance(2)
        (report,) = stage.wait_for_reports()
        assert (report.outcome, report.transactions) == (CONFIRMED, 1)
        stage.assert_each_sold_once()


def test_a_landing_that_comes_after_the_blockhash_is_none(tmp_path: Path):
    """Two seconds too late: proven dead, and replaced."""
    with Stage(tmp_path, clock="manual", landing_delay_ms=0) as stage, stage.selling():
        stage.sandbox.faults.transactions("late", landing_delay_ms=61_000)
        stage.want_exits()
        stage.wait_for_arrivals()
        stage.sandbox.advance(59)
        assert len(stage.overseer.arrivals) == 1

        def is_replaced() -> bool:
            stage.sandbox.advance(0.4)
            return len(stage.overseer.arrivals) == 2

        until(is_replaced)
        stage.sandbox.advance(2)
        (report,) = stage.wait_for_reports()
        assert (report.outcome, report.transactions) == (CONFIRMED, 2)
        stage.assert_each_sold_once()


def test_a_sale_that_fails_on_the_chain_is_made_anew(still_stage: Stage):
    """The price has left the limit by the time it lands."""
    stage = still_stage
    with stage.selling():
        stage.sandbox.faults.transactions("late", landing_delay_ms=10_000)
        stage.want_exits()
        stage.wait_for_arrivals()
        stage.sandbox.set_price_multiplier(stage.mint, 0.4)
        with stage.slots_pass():
            (report,) = stage.wait_for_reports()
    assert (report.outcome, report.transactions) == (CONFIRMED, 2)
    stage.assert_each_sold_once()


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_signal_that_is_repeated_a_hundred_times(tmp_path: Path):
    """The very bytes, and as many fresh transactions of the same exit: one is sent."""
    # It lands 2.4 s before its blockhash dies: longer than a slow machine takes to send it.
    with Stage(tmp_path, speed=5.0) as stage, stage.selling() as session:
        stage.sandbox.faults.transactions("late", landing_delay_ms=20_000)
        stage.want_exits()
        text = ls.server_message_to_text(session.wait_for("exit_signal_with_tx", 20).message)
        stage.wait_for_arrivals()
        for _ in range(100):
            stage.sandbox.faults.raw(text)
            stage.want_exits()
        stage.wait_for_reports()
        for _ in range(100):  # and when all is over
            stage.sandbox.faults.raw(text)
        stage.sandbox.faults.raw(text.replace('"position_id":', '"position_id":9'))
        stage.sandbox.faults.error("told", "last")
        until(lambda: session.wait_for("error", 20))
        assert len(stage.overseer.arrivals) == 1
        stage.assert_each_sold_once()


@pytest.mark.parametrize(
    "policies",
    [
        Policies(resend_exits=True),
        Policies(resend_exits=True, stable_ids=False),
        Policies(resend_exits=True, stable_ids=False, reannounce=False, rebuild_exits=True),
    ],
    ids=["stable ids", "unstable ids", "nothing told again"],
)
@pytest.mark.parametrize("is_lost", [True, False])
def test_an_exit_that_is_signalled_again_after_each_reconnect(tmp_path: Path, policies: Policies, is_lost: bool):
    """The strategy's exit of before the reconnect, under another number; its transaction may land at any moment."""
    with (
        # Time stands still: however long the reconnects take, it neither lands nor dies before the last one.
        Stage(tmp_path, policies=policies, clock="manual", landing_delay_ms=0) as stage,
        stage.selling(strategy={"stop_loss_pct": 20.0}) as session,
        contextlib.ExitStack() as ends,
    ):
        delay_ms = 0 if is_lost else 20_000
        stage.sandbox.faults.transactions("never" if is_lost else "late", landing_delay_ms=delay_ms)
        stage.sandbox.set_price_multiplier(stage.mint, 0.6)
        stage.wait_for_arrivals()
        for count in range(2, 5):
            stage.sandbox.faults.drop()
            stage.wait_until(lambda count=count: stage.sandbox.sessions() and len(signals(stage)) >= count)
        assert len(stage.overseer.arrivals) == 1
        if is_lost:
            ends.enter_context(stage.slots_pass())
        else:
            stage.sandbox.advance(21)
        (report,) = stage.wait_for_reports()
        assert session.status is ls.ConnectionState.LIVE
    # The transaction of the last reconnect's signal may be dead as well by now.
    assert report.transactions > 1 if is_lost else report.transactions == 1
    stage.assert_each_sold_once()


def signals(stage: Stage) -> list[Any]:
    return stage.overseer.wishes_of(stage.wallets[0], stage.mint)


def test_the_server_refreshes_in_the_middle(still_stage: Stage):
    """By itself and because the user asks; the old transaction is dead, but that takes its proof."""
    stage = still_stage
    with stage.selling() as session:
        stage.sandbox.faults.transactions("never")
        stage.want_exits()
        stage.wait_for_arrivals()
        (handle,) = session.positions()
        for _ in range(5):
            stage.want_exits()
            session.request_exit_signal(handle, slippage_bps=2_400)
        stage.wait_until(lambda: len(stage.overseer.wishes) >= 11)
        assert len(stage.overseer.arrivals) == 1
        with stage.slots_pass():
            (report,) = stage.wait_for_reports()
    assert report.outcome is CONFIRMED
    stage.assert_each_sold_once()


@pytest.mark.parametrize("keeps_sessions", [True, False])
@pytest.mark.parametrize("fate", ["late", "never"])
def test_the_service_restarts_in_the_middle(stage: Stage, fate: Any, keeps_sessions: bool):
    """Without its memory positions have other numbers and nobody remembers that an exit was wanted."""
    with stage.selling(), contextlib.ExitStack() as ends:
        stage.sandbox.faults.transactions(fate, landing_delay_ms=20_000 if fate == "late" else 0)
        stage.want_exits()
        stage.wait_for_arrivals()
        stage.sandbox.faults.restart(keep_sessions=keeps_sessions, down_ms=100)
        if fate == "never":
            ends.enter_context(stage.slots_pass())
        (report,) = stage.wait_for_reports()
    assert report.outcome is CONFIRMED
    stage.assert_each_sold_once()


def test_the_stream_is_lost_while_a_fresh_transaction_is_asked_for(stage: Stage):
    """The answer went to the session that is gone; the next one is asked again."""
    with stage.selling():
        stage.sandbox.faults.transactions("never")
        stage.want_exits()
        stage.wait_for_arrivals()
        stage.sandbox.faults.latency(200)
        with stage.slots_pass():
            stage.wait_until(lambda: [wish for wish in stage.overseer.wishes if wish.reason == "manual_sell"])
            stage.sandbox.faults.drop()
            stage.sandbox.faults.latency(0)
            stage.wait_for_reports()
    stage.assert_each_sold_once()


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def locked(journal: ls.Journal) -> Iterator[None]:
    """Somebody holds the journal's file."""
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def unwritable(_journal: ls.Journal) -> Iterator[None]:
    """The disk takes no further byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def full(journal: ls.Journal) -> Iterator[None]:
    """SQLite finds no room for another page, and the last one of the steps is filled to the brim."""
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        with journal._lock:  # the seller waits for that, and finds no locked file
            other.execute("PRAGMA synchronous = OFF")
            (pages,) = other.execute("PRAGMA page_count").fetchone()
            for connection in (other, journal._connection):
                assert connection is not None
                assert connection.execute(f"PRAGMA max_page_count = {pages}").fetchone() == (pages,)
            step = "INSERT INTO steps (exit_id, at_ms, step, detail) VALUES (0, 0, '', ?)"
            for size in (512, 64, 8, 0):
                with contextlib.suppress(sqlite3.OperationalError):
                    while True:
                        other.execute(step, ("x" * size,))
        yield
        with journal._lock:  # somebody makes room
            other.execute("DELETE FROM steps WHERE exit_id = 0")


@pytest.mark.parametrize(("trouble", "kind"), [(locked, "locked"), (unwritable, "failed"), (full, "full")])
@pytest.mark.parametrize("is_sent", [False, True], ids=["before it is sent", "while it is under way"])
def test_the_journal_is_not_to_be_written_for_a_while(
    still_stage: Stage, trouble: Callable[[ls.Journal], Any], kind: str, is_sent: bool, monkeypatch: pytest.MonkeyPatch
):
    """Told as a problem; what cannot be written down is not done, and not forgotten."""
    stage = still_stage
    monkeypatch.setattr(journal_file, "_BUSY_S", 0.05)
    with ls.Journal(stage.journal_path) as journal, stage.selling(journal=journal):
        if is_sent:
            stage.sandbox.faults.transactions("late", landing_delay_ms=5_000)
            stage.want_exits()
            stage.wait_for_arrivals()
        with trouble(journal):
            if is_sent:
                stage.sandbox.advance(6)
            else:
                stage.want_exits()
            problem = stage.wait_for_problem()
            assert isinstance(problem, ls.JournalError)
            assert problem.kind == kind
            assert len(stage.overseer.arrivals) == is_sent
            assert stage.reports == []
        with stage.slots_pass():
            stage.wait_for_reports()
        assert {type(each) for each in stage.problems} == {ls.JournalError}
    stage.assert_each_sold_once()
    with ls.Journal(stage.journal_path) as journal:
        assert journal.unfinished() == journal.unreported() == []


# ── everything at once ───────────────────────────────────────────────────────────────────────────────────────────


def test_fifty_exits_in_one_rug(tmp_path: Path):
    """Half of what is sent gets lost, some for good, four workers, and the stream breaks in the middle."""
    with (
        Stage(tmp_path, wallets=50, policies=Policies(resend_exits=True)) as stage,
        stage.selling(strategy={"stop_loss_pct": 30.0}, workers=4),
    ):
        stage.sandbox.faults.transactions("never", times=5)
        stage.sandbox.faults.chain(loss_probability=0.5)
        stage.sandbox.set_price_multiplier(stage.mint, 0.5)
        stage.wait_for_arrivals(10)
        stage.sandbox.faults.drop()
        with stage.slots_pass():
            reports = stage.wait_for_reports(50, 60)
    assert {report.outcome for report in reports} == {CONFIRMED}
    stage.assert_each_sold_once()
