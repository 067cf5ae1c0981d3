"""The newest market view of each position: liquidity snapshot, and profit and loss."""

from __future__ import annotations

from lasersell_sync._backend import Newest
from lasersell_sync.codec import SERVER_DECODER
from lasersell_sync.messages import LiquiditySnapshot, PnlUpdate, SlippageBand

__all__ = ["MarketView"]


class MarketView:
    """Latest value wins; a closed position takes its values with it.

    Threads: written by the reader (the router writes into the two tables directly); read by any. Each value is one
    immutable object, so a reader of it sees either the old or the new one, and no lock is needed.
    """

    def __init__(self) -> None:
        #: By position id.
        self.snapshots = Newest(SERVER_DECODER)
        self.updates = Newest(SERVER_DECODER)

    def forget(self, position_id: int) -> None:
        """The position is closed."""
        self.snapshots.forget(position_id)
        self.updates.forget(position_id)

    def pnl(self, position_id: int) -> PnlUpdate | None:
        """The newest profit and loss; None before the first."""
        update: PnlUpdate | None = self.updates.get(position_id)
        return update

    def bands(self, position_id: int) -> tuple[SlippageBand, ...] | None:
        """The newest slippage bands; None before the first snapshot."""
        snapshot = self._snapshot(position_id)
        return None if snapshot is None else snapshot.bands

    def _snapshot(self, position_id: int) -> LiquiditySnapshot | None:
        snapshot: LiquiditySnapshot | None = self.snapshots.get(position_id)
        return snapshot

    def max_sell_at_slippage(self, position_id: int, slippage_bps: int) -> int | None:
        """Tokens sellable within a band; None when the server reports no band of exactly ``slippage_bps``."""
        for band in self.bands(position_id) or ():
            if band.slippage_bps == slippage_bps:
                return band.max_tokens
        return None

    def trend(self, position_id: int) -> str | None:
        """growing, stable or draining; None before the first snapshot."""
        snapshot = self._snapshot(position_id)
        return None if snapshot is None else snapshot.liquidity_trend
