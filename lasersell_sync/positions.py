"""A position as a session shows it, and what an opening of a token account is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import attrs

from lasersell_sync.messages import ExitSignalWithTx
from lasersell_sync.quotes import format_quote

__all__ = ["Opening", "OwnSales", "PositionHandle", "PositionKey", "is_same_opening"]


# ── One definition of an opening ────────────────────────────────────────────────────────────────────────────────────


#: An exit whose end is not seen is under way for so long after its latest signal: no transaction lives longer.
EXIT_UNDER_WAY_S: Final = 120.0


class Opening(NamedTuple):
    """What an announcement says about the opening of a token account.

    Attributes:
        entry_quote_units: the position's cost, in lamports or USD1 base units.
        opened_at_ms: Unix milliseconds by the server's clock; None when the server names no moment.
    """

    entry_quote_units: int
    opened_at_ms: int | None = None


def is_same_opening(
    known: Opening,
    announced: Opening,
    *,
    was_closed: bool = False,
    part_landed: bool = False,
    exit_under_way: bool = False,
) -> bool:
    """True when ``announced`` is the opening that is ``known`` already; False when the account was opened again.

    When both name their moment, the moments decide: a sale of a part, or another purchase, changes the entry of one
    opening. Otherwise a close in between makes it another opening, and so does another entry, unless our own sale
    explains that entry.

    Deadlines, overrides, the resync after a reconnect and the generations of a seller all use this definition.

    Args:
        known: the latest announcement of the same wallet and token account.
        announced: the announcement to judge.
        was_closed: a ``position_closed`` came between the two.
        part_landed: a part of the known opening was sold, and not all of it.
        exit_under_way: an exit of the known opening may still land.
    """
    if known.opened_at_ms is not None and announced.opened_at_ms is not None:
        return known.opened_at_ms == announced.opened_at_ms
    if was_closed:
        return False
    if known.entry_quote_units == announced.entry_quote_units or exit_under_way:
        return True
    return part_landed and announced.entry_quote_units < known.entry_quote_units


class OwnSale:
    """What is known of the sales of one opening.

    It holds no message: thousands of positions may be signalled, each with its transaction.

    Attributes:
        position_tokens: what the position held at the latest exit signal.
        is_part: that signal sells a part of it.
        received_ns: when it was received, by the monotonic clock.
        has_landed: its sale has landed.
        part_landed: a part of the opening has landed, by this signal or an earlier one.
    """

    __slots__ = ("has_landed", "is_part", "part_landed", "position_tokens", "received_ns")

    def __init__(self) -> None:
        self.part_landed = False

    def signalled(self, message: ExitSignalWithTx, received_ns: int) -> None:
        """The latest exit signal."""
        sell_tokens, self.position_tokens = message.sell_tokens, message.position_tokens
        self.is_part = sell_tokens is not None and sell_tokens < message.position_tokens
        self.received_ns = received_ns
        self.has_landed = False


class OwnSales:
    """What the exit signals and balances of a session say about the sales of its positions.

    A position is named by (wallet, token account). What is kept ends with the opening: ``forget``.

    Threads: the reader.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        #: Of each position that an exit signal named. A caller on a hot path looks in here before it calls a method.
        self.known: dict[tuple[str, str], OwnSale] = {}

    def signalled(self, key: tuple[str, str], message: ExitSignalWithTx, received_ns: int) -> None:
        """An exit signal came; it was received at ``received_ns`` by the monotonic clock."""
        sale = self.known.get(key)
        if sale is None:
            sale = self.known[key] = OwnSale()
        elif message.position_tokens < sale.position_tokens:
            self.balance(key, message.position_tokens)
        sale.signalled(message, received_ns)

    def balance(self, key: tuple[str, str], tokens: int) -> None:
        """A balance came: fewer tokens than at the latest signal say that its sale has landed."""
        sale = self.known.get(key)
        if sale is not None and tokens < sale.position_tokens:
            sale.has_landed = True
            if sale.is_part and tokens > 0:
                sale.part_landed = True

    def forget(self, key: tuple[str, str]) -> None:
        """The position was closed, or opened again."""
        self.known.pop(key, None)

    def of(self, key: tuple[str, str], tokens: int) -> tuple[bool, bool]:
        """(whether a part of this opening has landed, whether an exit of it is under way), by a balance of now."""
        sale = self.known.get(key)
        if sale is None:
            return False, False
        is_young = self._clock_ns() - sale.received_ns < EXIT_UNDER_WAY_S * 1e9
        part_lands_now = sale.is_part and 0 < tokens < sale.position_tokens
        return sale.part_landed or part_lands_now, is_young and not sale.has_landed


# ── A position as the session knows it: a frozen snapshot with an identity that outlives reconnects ─────────────────


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
