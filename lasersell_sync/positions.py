"""A position as the session knows it: a frozen snapshot with an identity that outlives reconnects."""

from __future__ import annotations

from typing import NamedTuple

import attrs

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

    @property
    def key(self) -> PositionKey:
        """The identity: wallet and token account."""
        return PositionKey(self.wallet_pubkey, self.token_account)
