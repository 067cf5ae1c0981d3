"""From exit signal to landed sale against the sandbox: what is sold is what was meant, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.assertions import LedgerAssertions
from lasersell_sync.trading import close_rpc_connections
from tests.support.sellers import Trader
from tests.support.waiting import PATIENCE_S, until

CONFIRMED = ls.SellOutcome.CONFIRMED


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seed=1, speed=10.0, stream_port=0, api_port=0, rpc_port=0, router=False) as running:
        yield running
        close_rpc_connections()


@pytest.fixture
def trader(sandbox: Sandbox, tmp_path: Path) -> Trader:
    made = Trader(sandbox, tmp_path)
    made.register()
    return made


@pytest.fixture
def ledger(sandbox: Sandbox) -> LedgerAssertions:
    return LedgerAssertions(sandbox, timeout_s=PATIENCE_S)


def test_an_exit_is_sold_confirmed_and_told(trader: Trader, ledger: LedgerAssertions):
    """The whole way, beside a consumer that gets every event as well."""
    consumed: list[str] = []
    with trader.session() as session, trader.seller(session):
        session.on("*", lambda event: consumed.append(event.type))
        session.start()
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        trader.exit_positions()
        (report,) = trader.wait_for_reports()
        trade = ledger.assert_sold_exactly_once(trader.wallet, trader.sandbox.mints[0])
        session.wait_for("position_closed", PATIENCE_S)
    assert (report.outcome, report.signature, report.slot) == (CONFIRMED, trade.signature, trade.slot)
    assert (report.tokens, report.reason, report.transactions) == (trade.tokens, "manual", 1)
    assert {"exit_signal_with_tx", "position_closed"} <= set(consumed)
    with ls.Journal(trader.folder / "sales.journal") as journal:
        (record,) = journal.exits()
    assert (record.outcome, record.is_reported) == (CONFIRMED, True)


def test_a_ladder_sells_each_level_once(trader: Trader, ledger: LedgerAssertions):
    """Level by level, the amounts the server named, and nothing twice."""
    levels = tuple(ls.TakeProfitLevel(profit_pct=profit, sell_pct=30) for profit in (10, 20, 30))
    with trader.session(take_profit_levels=levels) as session, trader.seller(session):
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        reports = trader.wait_for_reports(3)
    assert sorted(report.key.part for report in reports) == ["level 0", "level 1", "level 2"]
    assert [report.outcome for report in reports] == [CONFIRMED] * 3
    sales = ledger.sales(trader.wallet)
    assert sorted(trade.tokens for trade in sales) == sorted(report.tokens for report in reports)


def test_signals_from_before_the_start_are_followed(trader: Trader, ledger: LedgerAssertions):
    with trader.session() as session:
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        trader.exit_positions()
        session.wait_for("exit_signal_with_tx", PATIENCE_S)
        with trader.seller(session):
            trader.wait_for_reports()
    ledger.assert_sold_exactly_once(trader.wallet, trader.sandbox.mints[0])


def test_a_lost_transaction_is_replaced_once_it_is_proven_dead(trader: Trader, ledger: LedgerAssertions):
    """The first one never lands; the slots that prove it pass quickly here."""
    with trader.session() as session, trader.seller(session):
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        trader.sandbox.faults.transactions("never")
        trader.exit_positions()
        stop = threading.Event()

        def let_slots_pass() -> None:
            while not stop.wait(0.5):
                trader.sandbox.skip_slots(40)

        thread = threading.Thread(target=let_slots_pass)
        thread.start()
        try:
            (report,) = trader.wait_for_reports()
        finally:
            stop.set()
            thread.join()
    assert (report.outcome, report.transactions) == (CONFIRMED, 2)
    ledger.assert_sold_exactly_once(trader.wallet, trader.sandbox.mints[0])


def test_a_sale_that_fails_on_the_chain_is_made_anew(trader: Trader, ledger: LedgerAssertions):
    """The price leaves the signed limit before it lands."""
    with trader.session() as session, trader.seller(session):
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        # Late enough for a slow machine to change the price before.
        trader.sandbox.faults.transactions("late", landing_delay_ms=15_000)
        trader.exit_positions()
        session.wait_for("exit_signal_with_tx", PATIENCE_S)
        trader.sandbox.set_price_multiplier(trader.sandbox.mints[0], 0.4)
        (report,) = trader.wait_for_reports()
    assert (report.outcome, report.transactions) == (CONFIRMED, 2)
    assert len(ledger.failed_transactions(trader.wallet)) == 1
    ledger.assert_sold_exactly_once(trader.wallet, trader.sandbox.mints[0])


def test_a_restart_in_the_middle_sells_once(trader: Trader, ledger: LedgerAssertions):
    """Closed while the sale is on its way: reported unknown, found confirmed by the next seller, sold once."""
    with trader.session() as session:
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        trader.sandbox.faults.transactions("late", landing_delay_ms=30_000)
        with trader.seller(session):
            trader.exit_positions()
            with ls.Journal(trader.folder / "sales.journal", read_only=True) as journal:
                assert trader.sandbox.wait_for(lambda: [r for r in journal.exits() if r.state == "signed"], PATIENCE_S)
        assert [report.outcome for report in trader.reports] == [ls.SellOutcome.UNKNOWN]
    with trader.session() as session, trader.seller(session):
        reports = trader.wait_for_reports(2)
    assert reports[1].outcome is CONFIRMED
    ledger.assert_sold_exactly_once(trader.wallet, trader.sandbox.mints[0])


@pytest.mark.parametrize("is_sold", [True, False])
def test_an_unfinished_exit_ends_by_the_trade_history_when_nodes_cannot_say(
    trader: Trader, ledger: LedgerAssertions, is_sold: bool
):
    """Sold by hand while no seller ran, or still held: the history ends the exit, or says nothing about it."""
    mint = trader.sandbox.mints[0]
    with trader.session() as session:
        trader.buy()
        opened = session.wait_for("position_opened", PATIENCE_S).message
        assert isinstance(opened, ls.PositionOpened)
    with ls.Journal(trader.folder / "sales.journal") as journal:
        generation = journal.opened(
            trader.wallet, opened.token_account, mint, opened.entry_quote_units, opened.opened_at_ms, opened.slot
        )
        key = ExitKey(trader.wallet, opened.token_account, mint, "whole", generation)
        journal.received(key, position_id=1, reason="stop_loss", tokens=opened.tokens, slot=opened.slot)
    if is_sold:
        trader.sell_by_hand(mint, opened.tokens)
    trader.sandbox.faults.rpc("getMultipleAccounts", times=None, error_code=-32005)
    problems: list[Exception] = []
    with trader.session() as session, trader.seller(session) as seller:
        seller.on_problem(problems.append)
        if is_sold:
            (report,) = trader.wait_for_reports()
            assert report.outcome is ls.SellOutcome.EXPIRED
            assert "the trade history lists its position as sold at" in report.detail
        else:
            until(lambda: [note for note in session.health().notes if "waits for a proof" in str(note)])
            assert trader.reports == []
            trader.sandbox.faults.clear()
            (report,) = trader.wait_for_reports()
            assert report.outcome is CONFIRMED
    ledger.assert_sold_exactly_once(trader.wallet, mint)
    assert problems == []


def test_what_the_last_process_did_not_come_to_tell_is_told(trader: Trader):
    """It wrote the end of two exits down and died: of one that was sold by its first transaction, and of one given up."""
    sold, given_up = (
        ExitKey(trader.wallet, "account", trader.sandbox.mints[0], part, 1) for part in ("whole", "level 0")
    )
    with ls.Journal(trader.folder / "sales.journal") as journal:
        exit_id = journal.received(sold, position_id=1, reason="stop_loss", tokens=7).id
        for signature, outcome, slot in (("first", CONFIRMED, 5), ("second", ls.SellOutcome.FAILED_ONCHAIN, 6)):
            journal.signed(exit_id, signature=signature, blockhash="block")
            journal.settled(exit_id, signature, outcome, slot=slot, detail="")
        journal.finished(exit_id, CONFIRMED, detail="")
        exit_id = journal.received(given_up, position_id=1, reason="chained_tp", tokens=3).id
        journal.finished(exit_id, ls.SellOutcome.EXPIRED, detail="nobody answered")
    with trader.session() as session, trader.seller(session):
        reports = trader.wait_for_reports(2)
    told = {report.key: (report.outcome, report.signature, report.slot, report.detail) for report in reports}
    assert told == {
        sold: (CONFIRMED, "first", 5, ""),
        given_up: (ls.SellOutcome.EXPIRED, None, None, "nobody answered"),
    }
    with ls.Journal(trader.folder / "sales.journal") as journal:
        assert journal.unreported() == []


def test_copies_are_bought_and_the_server_is_told(trader: Trader, tmp_path: Path):
    """A watched wallet buys; ours follows within the guard's cap, and the position is known as a copy."""
    with Sandbox(scenario="mirror", seed=1, speed=10.0, stream_port=0, api_port=0, rpc_port=0) as sandbox:
        copier = Trader(sandbox, tmp_path / "..")
        copier.folder = tmp_path
        copier.register()
        whale = next(str(keypair.pubkey()) for name, keypair in sandbox.wallets.items() if "whale" in name)
        watch = ls.WatchWallet(
            pubkey=whale,
            auto_buy=ls.AutoBuyConfig(wallet_pubkey=copier.wallet, amount_quote_units=10**8, amount_usd1_units=10**7),
        )
        guard = ls.SigningGuard(max_buy_lamports=2 * 10**8, max_buy_usd1_units=2 * 10**7)
        with (
            copier.session(watch_wallets=[watch]) as session,
            copier.seller(session, guard=guard, mirror_buys=True),
        ):
            # On a slow machine one comes too late for its price and fails on the chain; the whale buys on.
            until(lambda: any(report.outcome is CONFIRMED for report in copier.buys), 3 * PATIENCE_S)
            report = next(report for report in copier.buys if report.outcome is CONFIRMED)
            opened = session.wait_for(
                lambda event: event.type == "position_opened" and event.message.mirror_source == whale, PATIENCE_S
            )
        assert opened.message.mint == report.mint
        assert sandbox.token_balance(copier.wallet, report.mint) > 0
        close_rpc_connections()


def test_copies_need_a_cap(trader: Trader, tmp_path: Path):
    """Without one no seller is made; above it nothing is signed, and both the server and the user are told."""
    with Sandbox(scenario="mirror", seed=1, speed=10.0, stream_port=0, api_port=0, rpc_port=0) as sandbox:
        copier = Trader(sandbox, tmp_path)
        copier.register()
        whale = next(str(keypair.pubkey()) for name, keypair in sandbox.wallets.items() if "whale" in name)
        auto_buy = ls.AutoBuyConfig(wallet_pubkey=copier.wallet, amount_quote_units=10**8, amount_usd1_units=10**7)
        watch = ls.WatchWallet(pubkey=whale, auto_buy=auto_buy)
        tight = ls.SigningGuard(max_buy_lamports=10**7, max_buy_usd1_units=10**6)
        with copier.session(watch_wallets=[watch]) as session:
            for guard in (None, ls.SigningGuard()):
                with (
                    pytest.raises(
                        ls.ConfigurationError,
                        match=r"mirror_buys.*max_buy_lamports.*max_buy_usd1_units.*max_buy_usdc_units",
                    ),
                    copier.seller(session, mirror_buys=True, guard=guard),
                ):
                    pass
            with copier.seller(session, mirror_buys=True, guard=tight) as seller:
                with pytest.raises(ls.ConfigurationError, match="mirror_buys"):
                    seller.guard = ls.SigningGuard()
                assert seller.guard is tight
                (report,) = copier.wait_for_buys()[:1]
        assert report.outcome is ls.SellOutcome.REJECTED
        assert isinstance(report.error, ls.UnsafeTransactionError)
        close_rpc_connections()


def test_graduated_coins_are_sold_in_the_pools_that_they_moved_to(tmp_path: Path):
    """One pool follows from the coin; the positions of the other two are announced again."""
    with Sandbox(scenario="graduation", seed=3, speed=10.0, stream_port=0, api_port=0, rpc_port=0) as sandbox:
        trader = Trader(sandbox, tmp_path)
        trader.register()
        refusals: list[ls.Refusal] = []
        with trader.session(sell_on_graduation=True) as session, trader.seller(session) as seller, trader.api() as api:
            seller.on_refused(refusals.append)
            for mint, info in sandbox.mint_info.items():
                amount = 0.1 if info.quote == "SOL" else 10.0
                order = ls.BuildBuyTxRequest(mint, trader.wallet, slippage_bps=2_000, amount=amount, input=info.quote)  # type: ignore[arg-type]
                signed = ls.sign_unsigned_tx_b64(api.build_buy_tx(order).tx, trader.keypair)
                ls.send_transaction_b64_to(trader.rpc, signed)
            reports = trader.wait_for_reports(3)
        assert [report.outcome for report in reports] == [ls.SellOutcome.CONFIRMED] * 3
        assert refusals == []
        close_rpc_connections()


def test_a_position_is_sold_in_legs(tmp_path: Path):
    """More than the band absorbs is sold piece by piece, to the last token."""
    with Sandbox(scenario="thin-liquidity", seed=1, speed=10.0, stream_port=0, api_port=0, rpc_port=0) as sandbox:
        trader = Trader(sandbox, tmp_path)
        trader.register()
        mint = next(info.mint for info in sandbox.mint_info.values() if info.quote == "SOL")
        with trader.session() as session, trader.seller(session) as seller:
            trader.buy(mint, sol=0.5)
            handle = session.wait_for("position_opened", PATIENCE_S).handle
            plan = ls.LegPlan(slippage_bps=1_000, timeout_s=PATIENCE_S)
            result = seller.sell_in_legs(handle, plan)
        assert result.tokens_left == 0, result
        assert len(result.legs) > 1
        assert sum(leg.tokens for leg in result.legs if leg.outcome is CONFIRMED) == handle.tokens
        ledger = LedgerAssertions(sandbox, timeout_s=PATIENCE_S)
        assert sum(trade.tokens for trade in ledger.sales(trader.wallet)) == handle.tokens
        close_rpc_connections()
