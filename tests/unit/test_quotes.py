"""Quote currencies and amounts for people."""

from __future__ import annotations

import math

import pytest

from lasersell_sync import MarketContext, PositionHandle, SigningGuard, format_quote
from lasersell_sync.messages import (
    MeteoraDammV2Context,
    MeteoraDbcContext,
    PumpFunContext,
    PumpSwapContext,
    RaydiumCpmmContext,
    RaydiumLaunchpadContext,
)
from lasersell_sync.quotes import QUOTE_MINTS, quote_currency_of, whole_quote
from lasersell_sync.trading.guard.addresses import from_text
from lasersell_sync.trading.guard.programs import known_programs

SOL = "So11111111111111111111111111111111111111112"
USD1 = "USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
ELSEWHERE = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"


def launchpad(quote_mint: str) -> MarketContext:
    place = RaydiumLaunchpadContext(pool="p", config="c", platform="f", quote_mint=quote_mint, user_quote_account="u")
    return MarketContext(market_type="raydium_launchpad", raydium_launchpad=place)


def cpmm(quote_mint: str) -> MarketContext:
    place = RaydiumCpmmContext(pool="p", config="c", quote_mint=quote_mint, user_quote_account="u")
    return MarketContext(market_type="raydium_cpmm", raydium_cpmm=place)


def dbc(quote_mint: str) -> MarketContext:
    place = MeteoraDbcContext(pool="p", config="c", quote_mint=quote_mint)
    return MarketContext(market_type="meteora_dbc", meteora_dbc=place)


@pytest.mark.parametrize("market", [launchpad, cpmm, dbc])
@pytest.mark.parametrize(
    ("mint", "currency"),
    [(SOL, "SOL"), ("1" * 32, "SOL"), (USD1, "USD1"), (USDC, "USDC"), (ELSEWHERE, None), ("", None)],
)
def test_quote_currency_of_a_market_is_that_of_its_quote_mint(market, mint, currency):
    assert quote_currency_of(market(mint)) == currency


@pytest.mark.parametrize(
    ("context", "currency"),
    [
        (None, None),
        (MarketContext(market_type="pump_fun", pumpfun=PumpFunContext()), "SOL"),
        (MarketContext(market_type="pumpfun"), "SOL"),
        (MarketContext(market_type="pump_swap", pumpswap=PumpSwapContext(pool="p")), "SOL"),
        (MarketContext(market_type="pumpswap"), "SOL"),
        (MarketContext(market_type="meteora_damm_v2", meteora_damm_v2=MeteoraDammV2Context(pool="p")), None),
        (MarketContext(market_type="tomorrows_market"), None),
    ],
)
def test_quote_currency_of_a_market_without_a_quote_mint(context, currency):
    """Not guessed where both are possible: USD1 base units read as lamports are a thousandth."""
    assert quote_currency_of(context) == currency


def test_quote_mints_agree_with_those_of_the_guard():
    """Two layers need them; they may not differ."""
    ours = {from_text(mint): name for mint, name in QUOTE_MINTS.items()}
    for mint, name in known_programs().currencies.items():
        assert ours[mint] == name
    assert set(SigningGuard.NEVER_SELL) == set(QUOTE_MINTS) - {"1" * 32}


@pytest.mark.parametrize(
    ("units", "currency", "signed", "text"),
    [
        (1_500_000_000, "SOL", False, "1.500000 SOL"),
        (-1, "SOL", True, "-0.000000 SOL"),
        (12_000_000, "SOL", True, "+0.012000 SOL"),
        (9_980_000, "USD1", False, "9.9800 USD1"),
        (-250_000, "USD1", True, "-0.2500 USD1"),
        (1_234_500_000, "USDC", False, "1,234.5000 USDC"),
        (1_234, None, False, "1,234 quote units"),
        (1_234, None, True, "+1,234 quote units"),
        (5, "EUR", False, "5 quote units"),
    ],
)
def test_format_quote_writes_whole_units_and_the_currency(units, currency, signed, text):
    assert format_quote(units, currency, signed=signed) == text


def test_whole_quote_of_an_unknown_currency_is_none():
    assert (whole_quote(2_000_000, "USD1"), whole_quote(5, None), whole_quote(5, "EUR")) == (2.0, None, None)


def handle(**more):
    fields = {"position_id": 1, "token_account": "a", "wallet_pubkey": "w", "mint": "m", "tokens": 1_500_000}
    return PositionHandle(**fields, **{"entry_quote_units": 10_000_000, **more})


def test_position_handle_shows_whole_units_and_percent():
    one = handle(token_decimals=6, quote_currency="USD1")
    assert one.whole_tokens == 1.5
    assert one.format_quote(-20_000, signed=True) == "-0.0200 USD1"
    assert one.profit_pct(-500_000) == -5.0


def test_position_handle_without_decimals_and_entry_says_that_it_does_not_know():
    assert handle().whole_tokens is None
    assert handle().format_quote(5) == "5 quote units"
    assert math.isnan(handle(entry_quote_units=0).profit_pct(5))
