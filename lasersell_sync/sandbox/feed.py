"""The low lane and the pictures of a position: profit, liquidity, ticks, announcements."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from solders.pubkey import Pubkey

from lasersell_sync.sandbox import wire
from lasersell_sync.sandbox.listings import Listing
from lasersell_sync.sandbox.market import Market
from lasersell_sync.sandbox.pools import Reserves, market_cap_lamports, max_sell_tokens, price_lamports, sell_fill
from lasersell_sync.sandbox.positions import Position
from lasersell_sync.sandbox.runtime import Swap
from lasersell_sync.sandbox.sessions import Session

BANDS_BPS = (100, 200, 500, 1_000)
#: Depth changes below this share between two snapshots count as stable.
_STABLE_BPS = 50


class Feed:
    """Writes what sessions are told about their positions again and again.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, market: Market, now_ms: Callable[[], int]) -> None:
        self._market = market
        self._now_ms = now_ms
        #: lamports in the pool at the snapshot before
        self._last_depth: dict[Pubkey, int] = {}

    def flush_pnl(self, sessions: Iterable[Session]) -> None:
        """One ``pnl_update`` per tracked position, one batch per session."""
        now_ms = self._now_ms()
        quotes: dict[Pubkey, tuple[Listing, Reserves, int, int]] = {}
        for session in sessions:
            frames = []
            for position in session.positions.values():
                mint = position.holding.mint
                quote = quotes.get(mint)
                if quote is None:
                    quote = quotes[mint] = self._quote(mint)
                listing, reserves, price, cap = quote
                fees = self._market.venue(listing).fees
                proceeds = sell_fill(reserves, fees, position.holding.tokens).total_lamports
                frames.append(
                    wire.pnl_update(
                        position_id=position.position_id,
                        profit_lamports=proceeds - position.entry_lamports,
                        proceeds_lamports=proceeds,
                        server_time_ms=now_ms,
                        price_lamports=price,
                        market_cap_lamports=cap,
                    )
                )
            if frames:
                session.outbox.post(frames, low_lane=True)

    def _quote(self, mint: Pubkey) -> tuple[Listing, Reserves, int, int]:
        listing = self._market.listings[mint]
        reserves = self._market.reserves(listing)
        price = price_lamports(reserves, listing.decimals)
        return listing, reserves, price, market_cap_lamports(reserves, self._market.supply(listing))

    def flush_liquidity(self, sessions: Iterable[Session]) -> None:
        """One ``liquidity_snapshot`` per tracked position."""
        now_ms = self._now_ms()
        depths: dict[Pubkey, tuple[Reserves, str]] = {}
        for session in sessions:
            frames = []
            for position in session.positions.values():
                mint = position.holding.mint
                if mint not in depths:
                    depths[mint] = self._depth(mint)
                reserves, trend = depths[mint]
                frames.append(
                    wire.liquidity_snapshot(
                        position_id=position.position_id,
                        bands=[_band(reserves, bps, position.holding.tokens) for bps in BANDS_BPS],
                        trend=trend,
                        server_time_ms=now_ms,
                    )
                )
            if frames:
                session.outbox.post(frames, low_lane=True)

    def _depth(self, mint: Pubkey) -> tuple[Reserves, str]:
        """Reserves, and how the pool's money changed since the last snapshot."""
        reserves = self._market.reserves(self._market.listings[mint])
        before = self._last_depth.get(mint, reserves.lamports)
        self._last_depth[mint] = reserves.lamports
        change_bps = (reserves.lamports - before) * 10_000 // before
        if abs(change_bps) < _STABLE_BPS:
            return reserves, "stable"
        return reserves, "growing" if change_bps > 0 else "draining"

    def tick(self, position: Position, swap: Swap, tx_signature: str | None) -> str:
        """A trade in the position's pool."""
        return wire.trade_tick(
            position_id=position.position_id,
            time_ms=self._now_ms(),
            side=swap.side,
            tokens=swap.tokens,
            lamports=swap.lamports,
            price_lamports=swap.price_lamports,
            maker=swap.trader,
            tx_signature=tx_signature,
        )

    def opened(self, position: Position) -> str:
        """The announcement of a position."""
        holding = position.holding
        listing, reserves, price, cap = self._quote(holding.mint)
        return wire.position_opened(
            position_id=position.position_id,
            wallet=holding.wallet,
            mint=holding.mint,
            token_account=holding.token_account,
            tokens=holding.tokens,
            entry_lamports=position.entry_lamports,
            market_context=self._market.venue(listing).market_context(listing),
            token_name=listing.name,
            token_symbol=listing.symbol,
            token_decimals=listing.decimals,
            price_lamports=price,
            market_cap_lamports=cap,
            pool_liquidity_lamports=reserves.lamports,
            opened_at_ms=position.opened_at_ms,
            slot=position.slot,
        )


def _band(reserves: Reserves, bps: int, position_tokens: int) -> tuple[int, int, float]:
    most = max_sell_tokens(reserves, bps)
    return bps, most, min(100.0, most * 100 / position_tokens)
