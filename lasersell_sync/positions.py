"""A position as the session knows it: a frozen snapshot with an identity that outlives reconnects."""

from __future__ import annotations

import math
from typing import NamedTuple

import attrs

from lasersell_sync.quotes import format_quote

__all__ = ["PositionHandle", "PositionKey"]


class PositionKey(NamedTuple):
    """Who holds what: the identity of a position, also when the server gives it a new id."""

    wallet_pubkey: str
    token_account: str


@attrs.frozen(kw_only=True, weakref_slot=False)
class PositionHandle:
    """A position at one moment.

    The session hands out a new handle when a value changes; an old one stays as it was. Two handles of one position
    share their ``key``.

    Attributes:
        position_id: the server's number; it may change over a reconnect.
        token_account: where the tokens lie.
        tokens: the balance now, in the token's atomic units; follows ``balance_update``.
        entry_quote_units: what the position cost, in lamports or USD1 base units.
        opened_at_ms: Unix milliseconds by the server's clock, or None when it does not say.
        slot: the slot of the announcement.
        watched: belongs to a wallet that is only watched; its exits are not yours to sell.
        mirror_source: the watched wallet whose buy it copied.
        stale: not announced again after the latest reconnect, and nothing heard of it since.
        quote_currency: ``SOL`` (amounts are lamports), ``USD1``, ``USDC`` or ``USDT`` (6 decimals); None where the
            market does not say.

    Threads: immutable, any.
    """

    position_id: int
    token_account: str
    wallet_pubkey: str
    mint: str
    token_program: str | None = None
    tokens: int
    entry_quote_units: int
    token_name: str | None = None
    token_symbol: str | None = None
    token_decimals: int | None = None
    market_type: str | None = None
    token_price_quote: int | None = None
    market_cap_quote: int | None = None
    pool_liquidity_quote: int | None = None
    opened_at_ms: int | None = None
    slot: int = 0
    watched: bool = False
    mirror_source: str | None = None
    stale: bool = False
    quote_currency: str | None = None

    @property
    def key(self) -> PositionKey:
        """The identity: wallet and token account."""
        return PositionKey(self.wallet_pubkey, self.token_account)

    @property
    def whole_tokens(self) -> float | None:
        """``tokens`` in whole units; None when the server does not say how many decimals the token has."""
        return None if self.token_decimals is None else self.tokens / 10**self.token_decimals

    def format_quote(self, units: int, *, signed: bool = False) -> str:
        """An amount of this position's market as people write it: ``+0.012000 SOL``, ``9.9800 USD1``.

        Args:
            units: ``entry_quote_units``, ``PnlUpdate.profit_units`` or another amount in quote units.
            signed: write a plus before a gain.
        """
        return format_quote(units, self.quote_currency, signed=signed)

    def profit_pct(self, profit_units: int) -> float:
        """Profit in percent of the entry (5.0 is 5 %); nan when the entry is 0."""
        return 100 * profit_units / self.entry_quote_units if self.entry_quote_units else math.nan
