"""The low lane and the pictures of a position: profit, liquidity, ticks, announcements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.runtime import Swap
from lasersell_sync.sandbox.exchange.position_book import Position
from lasersell_sync.sandbox.exchange.sessions import Session
from lasersell_sync.sandbox.markets.currencies import Currency
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.pools import (
    FeeSchedule,
    Reserves,
    market_cap_lamports,
    max_sell_tokens,
    price_lamports,
    sell_fill,
)
from lasersell_sync.sandbox.protocol import server_messages as wire

BANDS_BPS = (100, 200, 500, 1_000)
#: Depth changes below this share between two snapshots count as stable.
_STABLE_BPS = 50


#: Every message of the low lane has the time in it, and often nothing else that is new. It is written with this time
#: first, and cut in two there.
_TIME = '"server_time_ms":'
_NO_TIME = f"{_TIME}0"
_ID = '"position_id":'
_NO_ID = f"{_ID}0"


@dataclass(frozen=True, slots=True)
class _Quote:
    """What a token's positions are valued with."""

    reserves: Reserves
    fees: FeeSchedule
    price_lamports: int
    market_cap_lamports: int
    currency: Currency


@dataclass(frozen=True, slots=True)
class _Depth:
    """What a pool can take, and how that has changed since the snapshot before."""

    reserves: Reserves
    trend: str


T = TypeVar("T", _Quote, _Depth)
#: (what it was written from: the token's state, tokens, entry, watched; the text before the time, and behind it)
_Line = tuple[T, int, int, bool, str, str]


class _Lines(Generic[T]):
    """One kind of message about every position of every session, written again only where something has changed.

    With 20,000 positions sent ten times a second, writing each message from scratch would cost a whole core.
    """

    def __init__(self, look: Callable[[Pubkey], T], write: Callable[[Position, T, Session], str]) -> None:
        self._look: Callable[[Pubkey], T] = look
        self._write: Callable[[Position, T, Session], str] = write
        self._seen: dict[Pubkey, T] = {}
        self._sheets: dict[int, dict[int, _Line[T]]] = {}

    def flush(self, sessions: Sequence[Session], now_ms: int) -> None:
        """One message per tracked position, one batch per session."""
        now = str(now_ms)
        looked: dict[Pubkey, T] = {}
        for session in sessions:
            sheet = self._sheet(session)
            frames = []
            for position_id, position in session.positions.items():
                holding, watched = position.holding, position_id in session.watched_ids
                state = looked.get(holding.mint)
                if state is None:
                    state = looked[holding.mint] = self._state(holding.mint)
                line = sheet.get(position_id)
                written_from = None if line is None else line[:4]
                if line is None or written_from != (state, holding.tokens, position.entry_lamports, watched):
                    head, _, tail = self._write(position, state, session).partition(_NO_TIME)
                    line = (state, holding.tokens, position.entry_lamports, watched, head + _TIME, tail)
                    sheet[position_id] = line
                frames.append(line[4] + now + line[5])
            if frames:
                session.outbox.post(frames, low_lane=True)
        self._forget_but(sessions)

    def _state(self, mint: Pubkey) -> T:
        """The mint's state: the very object it was before, if nothing has changed, because that compares fast."""
        state, before = self._look(mint), self._seen.get(mint)
        if before is not None and before == state:
            return before
        self._seen[mint] = state
        return state

    def _sheet(self, session: Session) -> dict[int, _Line[T]]:
        sheet = self._sheets.setdefault(session.session_id, {})
        if len(sheet) > 2 * len(session.positions) + 16:
            sheet.clear()  # mostly positions that are closed
        return sheet

    def _forget_but(self, sessions: Sequence[Session]) -> None:
        if len(self._sheets) > len(sessions):
            live = {session.session_id for session in sessions}
            self._sheets = {number: sheet for number, sheet in self._sheets.items() if number in live}


class Feed:
    """Writes the messages that repeat for every position, and announcements.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, market: Market, now_ms: Callable[[], int]) -> None:
        self._market = market
        self._now_ms = now_ms
        #: lamports in the pool at the snapshot before
        self._last_depth: dict[Pubkey, int] = {}
        self._pnl = _Lines(self._quote, _pnl_update)
        self._liquidity = _Lines(self._depth, _liquidity_snapshot)
        #: the trade that was written last, for which moment, signature and audience, and its text around the id
        self._ticked: Swap | None = None
        self._tick_for: tuple[int, str | None, bool] | None = None
        self._tick_head = self._tick_tail = ""

    def flush_pnl(self, sessions: Sequence[Session]) -> None:
        """One ``pnl_update`` per tracked position, one batch per session."""
        self._pnl.flush(sessions, self._now_ms())

    def flush_liquidity(self, sessions: Sequence[Session]) -> None:
        """One ``liquidity_snapshot`` per tracked position."""
        self._liquidity.flush(sessions, self._now_ms())

    def _quote(self, mint: Pubkey) -> _Quote:
        listing = self._market.listings[mint]
        reserves = self._market.reserves(listing)
        cap = market_cap_lamports(reserves, self._market.supply(listing))
        price = price_lamports(reserves, listing.decimals)
        return _Quote(reserves, self._market.venue(listing).fees, price, cap, listing.quote)

    def _depth(self, mint: Pubkey) -> _Depth:
        """Reserves, and how the pool's money changed since the last snapshot."""
        reserves = self._market.reserves(self._market.listings[mint])
        before = self._last_depth.get(mint, reserves.lamports)
        self._last_depth[mint] = reserves.lamports
        change_bps = (reserves.lamports - before) * 10_000 // before
        if abs(change_bps) < _STABLE_BPS:
            return _Depth(reserves, "stable")
        return _Depth(reserves, "growing" if change_bps > 0 else "draining")

    def tick(self, position: Position, swap: Swap, tx_signature: str | None, *, watched: bool) -> str:
        """A trade in the position's pool; but for the id it reads alike for every position there."""
        written_for = (self._now_ms(), tx_signature, watched)
        if self._ticked is not swap or self._tick_for != written_for:
            text = wire.message(
                "trade_tick",
                position_id=0,
                time_ms=self._now_ms(),
                side=swap.side,
                token_amount=swap.tokens,
                quote_amount=swap.lamports,
                price_quote=swap.price_lamports,
                maker=swap.trader,
                tx_signature=tx_signature,
                watched=watched,
            )
            self._ticked, self._tick_for = swap, written_for
            head, _, self._tick_tail = text.partition(_NO_ID)
            self._tick_head = head + _ID
        return f"{self._tick_head}{position.position_id}{self._tick_tail}"

    def opened(self, position: Position, *, watched: bool) -> str:
        """The announcement of a position."""
        holding = position.holding
        listing, quote = self._market.listings[holding.mint], self._quote(holding.mint)
        return wire.message(
            "position_opened",
            position_id=position.position_id,
            **holding.place,
            tokens=holding.tokens,
            entry_quote_units=position.entry_lamports,
            market_context=self._market.venue(listing).market_context(listing, holding.wallet),
            token_name=listing.name,
            token_symbol=listing.symbol,
            token_decimals=listing.decimals,
            token_price_quote=quote.price_lamports,
            market_cap_quote=quote.market_cap_lamports,
            pool_liquidity_quote=quote.reserves.lamports,
            opened_at_ms=position.opened_at_ms,
            slot=position.slot,
            watched=watched,
            mirror_source=position.mirror_source,
        )


def _pnl_update(position: Position, quote: _Quote, session: Session) -> str:
    """Net of what the session's tier pays for a sale."""
    gross = sell_fill(quote.reserves, quote.fees, position.holding.tokens).total_lamports
    net = gross - session.tier.routing_fee.of(gross, quote.currency)
    return wire.pnl_update(
        position_id=position.position_id,
        profit_lamports=net - position.entry_lamports,
        proceeds_lamports=max(0, net),
        server_time_ms=0,
        price_lamports=quote.price_lamports,
        market_cap_lamports=quote.market_cap_lamports,
        watched=session.watched(position),
    )


def _liquidity_snapshot(position: Position, depth: _Depth, session: Session) -> str:
    return wire.liquidity_snapshot(
        position_id=position.position_id,
        bands=[_band(depth.reserves, bps, position.holding.tokens) for bps in BANDS_BPS],
        trend=depth.trend,
        server_time_ms=0,
        watched=session.watched(position),
    )


def _band(reserves: Reserves, bps: int, position_tokens: int) -> tuple[int, int, float]:
    most = max_sell_tokens(reserves, bps)
    return bps, most, min(100.0, most * 100 / position_tokens)
