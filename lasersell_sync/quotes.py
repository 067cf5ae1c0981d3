"""Quote currencies: what the amounts of a market are counted in, and the same amounts in whole units, for people.

Amounts on the wire are atomic: lamports on SOL markets, base units of 6 decimals on USD1 markets (docs/protocol.md 3).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lasersell_sync.messages import MarketContext

__all__ = ["QUOTE_MINTS", "format_quote", "quote_currency_of", "whole_quote"]


class _Currency(NamedTuple):
    decimals: int
    #: Digits behind the point in a text.
    shown: int


_CURRENCIES: Final = {
    "SOL": _Currency(9, 6),
    "USD1": _Currency(6, 4),
    "USDC": _Currency(6, 4),
    "USDT": _Currency(6, 4),
}
#: By base58 mint; a market names SOL by the wrapped mint or by the system program's address.
QUOTE_MINTS: Final = {
    "So11111111111111111111111111111111111111112": "SOL",
    "11111111111111111111111111111111": "SOL",
    "USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB": "USD1",
    "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v": "USDC",
    "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB": "USDT",
}
#: Markets whose context names no quote mint, and which the service trades against SOL (both spellings).
_SOL_MARKETS: Final = {"pump_fun", "pump_swap", "pumpfun", "pumpswap"}


def quote_currency_of(context: MarketContext | None) -> str | None:
    """``SOL``, ``USD1``, ``USDC`` or ``USDT``; None where the market's context does not say."""
    if context is None:
        return None
    place = context.meteora_dbc or context.raydium_launchpad or context.raydium_cpmm
    if place is not None:
        return QUOTE_MINTS.get(place.quote_mint)
    return "SOL" if context.market_type in _SOL_MARKETS else None


def whole_quote(units: int, currency: str | None) -> float | None:
    """An amount in whole units: 1.5 for 1 500 000 000 lamports; None for a currency that is not known."""
    known = None if currency is None else _CURRENCIES.get(currency)
    return None if known is None else units / 10**known.decimals


def format_quote(units: int, currency: str | None, *, signed: bool = False) -> str:
    """An amount as people write it: ``1.500000 SOL``, ``-0.2500 USD1``; atomic units where the currency is not known.

    Args:
        units: atomic units, as the wire has them.
        currency: as ``PositionHandle.quote_currency``.
        signed: write a plus before a gain.
    """
    sign = "+" if signed else ""
    whole = whole_quote(units, currency)
    if whole is None or currency is None:
        return f"{units:{sign},} quote units"
    return f"{whole:{sign},.{_CURRENCIES[currency].shown}f} {currency}"
