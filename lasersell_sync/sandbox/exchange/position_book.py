"""Holdings and positions: what a wallet bought, what it cost, and what the stream tracks of it.

A holding is a fact of the ledger: a token account with tokens and, if they were bought, their cost. A position is a
holding that some session tracks; it belongs to the wallet, so it keeps its id when the session goes and comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.protocol.exit_conditions import Watch


@dataclass(slots=True, eq=False)
class Holding:
    """Tokens in one account. ``entry_lamports`` is their cost, None while unknown (they came by transfer)."""

    wallet: Pubkey
    mint: Pubkey
    token_account: Pubkey
    tokens: int
    entry_lamports: int | None
    slot: int
    opened_at_ms: int
    #: a client said ``close_position``: not tracked again before more tokens arrive
    dismissed: bool = False
    position: Position | None = None

    @property
    def place(self) -> dict[str, Pubkey]:
        """Where the tokens are, as messages name it."""
        return {"wallet_pubkey": self.wallet, "mint": self.mint, "token_account": self.token_account}


@dataclass(slots=True, eq=False)
class Position:
    """A tracked holding. ``watches`` has one strategy at work per API key, by key id."""

    position_id: int
    holding: Holding
    entry_lamports: int
    slot: int
    opened_at_ms: int
    watches: dict[str, Watch] = field(default_factory=dict)
    #: the watched wallet whose purchase this copies
    mirror_source: Pubkey | None = None
    #: by trades alone: what was paid for it, and what its sales have brought
    paid_units: int = 0
    returned_units: int = 0
    #: the keys whose sessions know it
    announced: set[str] = field(default_factory=set)
    #: the reason of the last exit signal: a strategy's reason wins over a request
    exit_reason: str | None = None
    close_reason: str | None = None
    closed_at_ms: int | None = None
    #: how many tokens have come into it in all
    tokens_in: int = 0

    @property
    def open(self) -> bool:
        """False once closed."""
        return self.close_reason is None


@dataclass(frozen=True, slots=True)
class PositionRecord:
    """A position at one moment, for tests and tools. ``close_reason`` is None while it is open."""

    position_id: int
    wallet_pubkey: str
    mint: str
    token_account: str
    tokens: int
    entry_lamports: int
    slot: int
    opened_at_ms: int
    exit_reason: str | None
    close_reason: str | None
    mirror_source: str | None


class PositionBook:
    """Every holding and position.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        self._holdings: dict[Pubkey, Holding] = {}
        self._holdings_of: dict[Pubkey, dict[Pubkey, Holding]] = {}
        self._positions: dict[int, Position] = {}
        self._open_by_mint: dict[Pubkey, dict[int, Position]] = {}
        self._last_id = 0

    def holding(self, token_account: Pubkey) -> Holding | None:
        """The holding in a token account."""
        return self._holdings.get(token_account)

    def holdings_of(self, wallet: Pubkey) -> list[Holding]:
        """A wallet's holdings, oldest first."""
        return list(self._holdings_of.get(wallet, {}).values())

    def position(self, position_id: int) -> Position | None:
        """A position, open or closed."""
        return self._positions.get(position_id)

    def open_positions(self) -> list[Position]:
        """Every open position, oldest first within a mint."""
        return [position for positions in self._open_by_mint.values() for position in positions.values()]

    def open_in(self, mint: Pubkey) -> list[Position]:
        """The open positions in a mint."""
        return list(self._open_by_mint.get(mint, {}).values())

    def arrive(
        self,
        address: Pubkey,
        *,
        wallet: Pubkey,
        mint: Pubkey,
        tokens: int,
        cost_lamports: int | None,
        slot: int,
        ms: int,
    ) -> Holding:
        """Tokens came into an account (``tokens`` is the new balance); a cost of None means they were not bought."""
        holding = self._holdings.get(address)
        if holding is None:
            holding = Holding(wallet, mint, address, tokens, cost_lamports, slot, ms)
            self._holdings[address] = self._holdings_of.setdefault(wallet, {})[address] = holding
            return holding
        if holding.position is not None:
            holding.position.tokens_in += tokens - holding.tokens
        holding.tokens = tokens
        holding.dismissed = False
        if cost_lamports is not None:
            holding.entry_lamports = (holding.entry_lamports or 0) + cost_lamports
            if holding.position is not None:
                holding.position.entry_lamports = holding.entry_lamports
                holding.position.paid_units += cost_lamports
        return holding

    def shrink(self, holding: Holding, tokens: int) -> None:
        """Some tokens left: cost and peak profit shrink in proportion, so a partial sale is neither gain nor loss."""
        if holding.entry_lamports is not None:
            holding.entry_lamports = holding.entry_lamports * tokens // holding.tokens
        position = holding.position
        if position is not None:
            position.entry_lamports = position.entry_lamports * tokens // holding.tokens
            position.watches = {key: watch.scaled(tokens, holding.tokens) for key, watch in position.watches.items()}
        holding.tokens = tokens

    def remove(self, holding: Holding) -> None:
        """The last tokens left; close the position separately."""
        holding.tokens = 0
        self._holdings.pop(holding.token_account, None)
        self._holdings_of.get(holding.wallet, {}).pop(holding.token_account, None)

    def track(self, holding: Holding, *, entry_lamports: int) -> Position:
        """The holding's open position, created if there is none."""
        if holding.position is None:
            self._last_id += 1
            position = Position(self._last_id, holding, entry_lamports, holding.slot, holding.opened_at_ms)
            position.paid_units = entry_lamports
            position.tokens_in = holding.tokens
            holding.position = position
            self._positions[position.position_id] = position
            self._open_by_mint.setdefault(holding.mint, {})[position.position_id] = position
        return holding.position

    def renumber(self, position: Position) -> None:
        """Give an open position a new id; its old one is not known any more."""
        del self._positions[position.position_id]
        open_here = self._open_by_mint[position.holding.mint]
        del open_here[position.position_id]
        self._last_id += 1
        position.position_id = self._last_id
        self._positions[position.position_id] = open_here[position.position_id] = position

    def close(self, position: Position, reason: str, *, ms: int) -> None:
        """Stop tracking; the holding stays if it still has tokens."""
        position.close_reason = reason
        position.closed_at_ms = ms
        position.holding.position = None
        self._open_by_mint.get(position.holding.mint, {}).pop(position.position_id, None)

    def newest(self, count: int) -> tuple[int, list[PositionRecord]]:
        """How many positions are open, and the newest ``count`` of all, open ones first."""
        is_open = self.open_positions()
        shown = nlargest(count, is_open, key=lambda position: position.position_id)
        closed = (position for position in reversed(self._positions.values()) if not position.open)
        shown += islice(closed, count - len(shown))
        return len(is_open), [_record(position) for position in shown]

    def records(self) -> list[PositionRecord]:
        """Every position so far, oldest first."""
        return [_record(position) for position in self._positions.values()]


def _record(position: Position) -> PositionRecord:
    holding = position.holding
    return PositionRecord(
        position_id=position.position_id,
        wallet_pubkey=str(holding.wallet),
        mint=str(holding.mint),
        token_account=str(holding.token_account),
        tokens=holding.tokens,
        entry_lamports=position.entry_lamports,
        slot=position.slot,
        opened_at_ms=position.opened_at_ms,
        exit_reason=position.exit_reason,
        close_reason=position.close_reason,
        mirror_source=None if position.mirror_source is None else str(position.mirror_source),
    )
