"""An automatic seller with default settings on the service's Router: every exit is sold, whatever its layout is."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.trading import close_rpc_connections
from tests.loopback.test_router_guard import BUDGETS, SHAPES, TIPS, all_markets
from tests.support.market_transactions import MARKETS, SEND_MODES
from tests.support.sellers import Trader
from tests.support.waiting import PATIENCE_S

CONFIRMED = ls.SellOutcome.CONFIRMED
#: Patient with a machine that other tests keep busy.
PATIENT = {"simulation_timeout_s": 20.0}


def sandbox_with(shape: int | None, **settings: Any) -> Sandbox:
    router = {"router": False} if shape is None else {"router": True, "router_shape": shape}
    return Sandbox(
        scenario=all_markets(), stream_port=0, api_port=0, rpc_port=0, landing_delay_ms=50, **router, **settings
    )


def buy(trader: Trader, mint: str, mode: str, guard: ls.SigningGuard) -> None:
    quote = trader.sandbox.mint_info[mint].quote
    order = ls.BuildBuyTxRequest(
        mint, trader.wallet, amount_in_total=BUDGETS[quote] // 5, slippage_bps=2_000, input=quote, send_mode=mode,
        tip_lamports=TIPS[mode],
    )  # fmt: skip
    with trader.api() as api:
        signed = ls.Signer(trader.keypair).sign(api.build_buy_tx(order), request=order, guard=guard)
    ls.send_transaction_b64_to(trader.rpc, signed)
    assert trader.sandbox.wait_for(lambda: trader.sandbox.token_balance(trader.wallet, mint) > 0, PATIENCE_S)


def sell_everything(
    shape: int | None, mode: str, markets: list[tuple[str, str]], folder: Path, tier: int = 2, **settings: Any
) -> None:
    """Buy one coin of each market, have the server signal an exit of each, and see them sold."""
    with sandbox_with(shape, tier=tier, **settings) as sandbox:
        trader = Trader(sandbox, folder)
        trader.register()
        wanted = [mint for mint, info in sandbox.mint_info.items() if (info.market_type, info.quote) in markets]
        with ls_guard(sandbox) as guard, trader.session(send_mode=mode, tip_lamports=TIPS[mode]) as session:
            refused: list[Any] = []
            with trader.seller(session, guard=ls.SigningGuard(**PATIENT)) as seller:
                seller.on_refused(refused.append)
                for mint in wanted:
                    buy(trader, mint, mode, guard)
                sandbox.wait_for(lambda: len(sandbox.positions()) >= len(wanted), PATIENCE_S)
                trader.exit_positions()
                reports = trader.wait_for_reports(len(wanted))
        assert refused == []
        assert [report.outcome for report in reports] == [CONFIRMED] * len(wanted), reports
        assert all(sandbox.token_balance(trader.wallet, mint) == 0 for mint in wanted)
    close_rpc_connections()


def ls_guard(sandbox: Sandbox) -> Any:
    import contextlib

    return contextlib.closing(ls.SigningGuard(rpc=sandbox.rpc_url, **PATIENT))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [*SHAPES, None])
def test_router_autosell_sample_of_markets_is_sold(shape: int | None, tmp_path: Path):
    """Each layout, and direct trades: one market for SOL and one for USD1, one send mode."""
    chance = random.Random(7 if shape is None else shape)
    sample = [chance.choice([market for market in MARKETS if market[1] == quote]) for quote in ("SOL", "USD1")]
    sell_everything(shape, chance.choice(SEND_MODES), sample, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", SEND_MODES)
@pytest.mark.parametrize("shape", [*SHAPES, None])
def test_router_autosell_every_market_is_sold(shape: int | None, mode: str, tmp_path: Path):
    sell_everything(shape, mode, MARKETS, tmp_path)


@pytest.mark.parametrize("instructions", ["today", "classic"])
@pytest.mark.parametrize("transaction_format", ["legacy", "0", "1"])
def test_autosell_direct_trades_of_every_market_in_each_format_are_sold(
    transaction_format: str, instructions: str, tmp_path: Path
):
    """Without the Router: legacy, version 0 and version 1, in the instructions of today and in those of before."""
    mode = SEND_MODES[len(transaction_format + instructions) % len(SEND_MODES)]
    settings = {"transaction_format": transaction_format, "instructions": instructions}
    sell_everything(None, mode, MARKETS, tmp_path, **settings)


@pytest.mark.parametrize("seed", [13, 14, 18])
@pytest.mark.parametrize("shape", [None, 2, 5, 6])
def test_autosell_of_cashback_coins_is_sold(seed: int, shape: int | None, tmp_path: Path):
    """Seeds whose PumpSwap coin pays its creator fee to the trader: through the Router and directly."""
    market = ("pump_swap", "SOL")
    with sandbox_with(None, seed=seed) as sandbox:
        assert any(
            listing.cashback
            for listing in sandbox._exchange.market.listings.values()
            if listing.market_type == market[0]
        )
    sell_everything(shape, "rpc", [market], tmp_path, seed=seed)


def test_router_autosell_theft_waits_in_refused_and_is_sold_when_it_is_over(tmp_path: Path):
    """Nothing is signed for a compromised Router; a later signal for the same exit is sold."""
    with sandbox_with(0) as sandbox:
        trader = Trader(sandbox, tmp_path)
        trader.register()
        mint = next(mint for mint, info in sandbox.mint_info.items() if info.quote == "SOL")
        with ls_guard(sandbox) as guard, trader.session() as session:
            was_refused = threading.Event()
            with trader.seller(session, guard=ls.SigningGuard(**PATIENT)) as seller:
                seller.on_refused(lambda refusal: was_refused.set())
                buy(trader, mint, "rpc", guard)
                sandbox.wait_for(sandbox.positions, PATIENCE_S)
                landed = len(sandbox.transactions())
                sandbox.faults.router("some_lamports")
                trader.exit_positions()
                assert was_refused.wait(PATIENCE_S)
                (report,) = trader.wait_for_reports()
                assert report.outcome is ls.SellOutcome.REJECTED
                (refusal,) = seller.refused()
                assert "lamports" in {offence.rule for offence in refusal.error.offences}
                assert len(sandbox.transactions()) == landed
                sandbox.faults.router(None)
                sandbox.skip_slots(10)  # for another block, so that it is not the same transaction once more
                (handle,) = session.positions()
                session.request_exit_signal(handle, 2_000)
                assert trader.wait_for_reports(2)[1].outcome is CONFIRMED
    close_rpc_connections()


def test_router_autosell_failing_simulation_is_asked_for_anew_with_more_slippage(tmp_path: Path):
    with sandbox_with(0) as sandbox:
        trader = Trader(sandbox, tmp_path)
        trader.register()
        mint = next(mint for mint, info in sandbox.mint_info.items() if info.quote == "SOL")
        with ls_guard(sandbox) as guard, trader.session() as session:
            asked: list[Any] = []
            with trader.seller(session, guard=ls.SigningGuard(**PATIENT)):
                buy(trader, mint, "rpc", guard)
                sandbox.wait_for(sandbox.positions, PATIENCE_S)
                sandbox.faults.router("fails")
                trader.exit_positions()

                def slippages() -> list[int]:
                    messages = [one for all_of in sandbox.received.values() for one in all_of]
                    return [one["slippage_bps"] for one in messages if one["type"] == "request_exit_signal"]  # type: ignore[misc]

                assert sandbox.wait_for(lambda: len(slippages()) >= 2, PATIENCE_S)
                asked = slippages()
                sandbox.faults.router(None)
                assert trader.wait_for_reports()[0].outcome is CONFIRMED
            assert asked[:2] == [2_020, 2_060]
    close_rpc_connections()


def test_router_autosell_warns_at_start_of_a_rich_wallet(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with sandbox_with(0, initial_lamports=100 * 10**9) as sandbox:
        trader = Trader(sandbox, tmp_path)
        trader.register()
        with trader.session() as session, trader.seller(session):
            assert sandbox.wait_for(lambda: "max_unsimulated_lamports" in caplog.text, PATIENCE_S)
        assert "nothing that goes through a program of unknown layout" not in caplog.text
    close_rpc_connections()
