"""The scripting API, and time moved by hand, on a running sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import PATIENCE_S, Trader, receive, signed, strategy


@pytest.fixture
def manual(make_sandbox: Callable[..., Sandbox]) -> Sandbox:
    return make_sandbox(scenario="mirror", clock="manual", landing_delay_ms=400)


def test_time_stands_still_until_it_is_told(manual: Sandbox, make_trader: Callable[..., Trader]) -> None:
    """Nothing lands and nothing is told between two calls of advance, and within one everything in order."""
    trader = make_trader(manual).register()
    ws = trader.stream()
    signature = trader.buy(manual.mints[0])
    assert manual.transactions() == []
    assert not manual.advance(0.3)
    assert manual.transactions() == []
    manual.advance(0.2)
    assert [record.signature for record in manual.transactions()] == [signature]
    assert manual.now_s == pytest.approx(0.5)
    assert receive(ws, "position_opened")["wallet_pubkey"] == trader.pubkey
    assert manual.advance(10, until=lambda: len(manual.transactions()) == 2), "the whale buys at 2 s"
    assert 2.3 < manual.now_s < 2.5


def test_until_ends_the_time_that_was_given(manual: Sandbox, make_trader: Callable[..., Trader]) -> None:
    """What until left unplayed is not made up for by the next call."""
    make_trader(manual).register().stream()
    manual.advance(100, until=lambda: bool(manual.transactions()))
    stopped_s = manual.now_s
    manual.advance(1)
    assert manual.now_s == pytest.approx(stopped_s + 1)


def test_an_hour_by_hand(manual: Sandbox, make_trader: Callable[..., Trader]) -> None:
    """An hour with nobody in the market passes at once."""
    make_trader(manual).register().stream()
    manual.advance(3_600)
    assert manual.now_s == pytest.approx(3_600)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1"])
def test_only_time_can_be_advanced(manual: Sandbox, seconds: object) -> None:
    """Seconds are a number of at least 0; and a clock that flows cannot be pushed."""
    with pytest.raises(ValueError, match="seconds"):
        manual.advance(seconds)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="manual"):
        Sandbox().advance(1)


def test_everything_a_scenario_can_do(manual: Sandbox, make_trader: Callable[..., Trader]) -> None:
    """Prices, liquidity, halts, graduations, positions, money and other wallets' trades, by symbol or by mint."""
    trader = make_trader(manual).register()
    ws = trader.stream(strategy(stop=50))
    script = manual.script
    script.grant(trader.pubkey, "PEARL", 1.5)
    opened = receive(ws, "position_opened")
    assert opened["entry_quote_units"] == 1_500_000_000
    assert opened["tokens"] == manual.token_balance(trader.pubkey, manual.mints[0])
    script.price(manual.mints[0], 1.25)
    tick = receive(ws, "trade_tick")
    assert (tick["side"], tick["position_id"]) == ("buy", opened["position_id"])
    script.pull_liquidity("PEARL", keep_pct=0.5)
    assert receive(ws, "exit_signal_with_tx")["reason"] == "stop_loss", "a rug is no trade, but it is a loss"
    script.halt("PEARL")
    script.resume("PEARL")
    script.graduate("DICE")
    assert [info.market_type for info in manual.mint_info.values()] == ["pump_swap", "pump_swap", "raydium_cpmm"]
    script.fund(trader.pubkey, sol=5, usd1=7)
    assert manual.balance_lamports(trader.pubkey) == 15 * 10**9
    script.fund("whale", sol=1)
    whale = str(manual.wallets["whale"].pubkey())
    assert manual.balance_lamports(whale) == 501 * 10**9
    script.buy("whale", "MINTED", 100)
    manual.advance(0.5)
    assert manual.token_balance(whale, manual.mints[2]) > 0
    script.sell("whale", "MINTED", share_pct=100)
    manual.advance(0.5)
    assert manual.token_balance(whale, manual.mints[2]) == 0


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda script: script.price("NOPE", 2), "no token 'NOPE'"),
        (lambda script: script.price("PEARL", 0), "multiplier"),
        (lambda script: script.price("PEARL", float("nan")), "multiplier"),
        (lambda script: script.buy("nobody", "PEARL", 1), "wallet 'nobody'"),
        (lambda script: script.buy("whale", "PEARL", -1), "amount"),
        (lambda script: script.sell("whale", "PEARL"), "holds no PEARL"),
        (lambda script: script.sell("whale", "PEARL", 101), "share_pct"),
        (lambda script: script.pull_liquidity("DICE"), "bonding curve"),
        (lambda script: script.pull_liquidity("PEARL", 0), "keep_pct"),
        (lambda script: script.graduate("PEARL"), "bonding curve"),
        (lambda script: script.grant("nobody", "PEARL", 1), "neither a public key"),
        (lambda script: script.grant("whale", "PEARL", 10**8), "the crowd has not"),
        (lambda script: script.fund("whale", sol=-1), "sol"),
    ],
)
def test_mistakes_are_value_errors(call: Callable[[object], None], complaint: str) -> None:
    """Everything that cannot be is a ValueError that names it, and changes nothing."""
    sandbox = Sandbox(scenario="mirror")
    before = sandbox._exchange.ledger.total_lamports()
    with pytest.raises(ValueError, match=complaint):
        call(sandbox.script)
    assert sandbox._exchange.ledger.total_lamports() == before


def test_positions_for_any_number_of_wallets(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """Granted positions exist before anybody connects, and are announced to whoever configures their wallet."""
    sandbox = make_sandbox()
    trader = make_trader(sandbox).register()
    for mint in sandbox.mints[:5]:
        sandbox.script.grant(trader.pubkey, mint, 0.25)
    ws = trader.stream()
    mints = [receive(ws, "position_opened")["mint"] for _ in range(5)]
    assert mints == sandbox.mints[:5]
    sandbox.script.price(mints[0], 1.5)
    ws.send(json.dumps({"type": "request_exit_signal", "position_id": 1}))
    signal = receive(ws, "exit_signal_with_tx")
    assert trader.landed(trader.send(signed(signal["unsigned_tx_b64"], trader.wallet))).err is None
    assert receive(ws, "position_closed")["position_id"] == 1
    assert sandbox.wait_for(lambda: sandbox.token_balance(trader.pubkey, mints[0]) == 0, PATIENCE_S)


def test_a_client_trades_at_twenty_times_the_speed(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """Buy and exit while a second is twenty; a blockhash still lives for three real seconds."""
    sandbox = make_sandbox(scenario="pump", speed=20)
    trader = make_trader(sandbox).register()
    ws = trader.stream(strategy(target=15))
    trader.buy(sandbox.mints[0], slippage_bps=9_000)
    signal = receive(ws, "exit_signal_with_tx")
    assert signal["reason"] == "target_profit"
    assert sandbox.now_s > 5, "the story chops for five seconds before it climbs"
