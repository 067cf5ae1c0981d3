"""The newest market view of each position: liquidity snapshot, and profit and loss."""

from __future__ import annotations

from lasersell_sync.messages import LiquiditySnapshot, PnlUpdate, SlippageBand

__all__ = ["MarketView"]


class MarketView:
    """Latest value wins; a closed position takes its values with it.

    Threads: written by the reader; read by any. Each value is one immutable object in a dict, so a reader of it sees
    either the old or the new one, and no lock is needed.
    """

    def __init__(self) -> None:
        #: By position id. The reader's fast way writes here too.
        self.snapshots: dict[int, LiquiditySnapshot] = {}
        self.updates: dict[int, PnlUpdate] = {}

    def update_liquidity(self, snapshot: LiquiditySnapshot) -> None:
        """Take a newer snapshot."""
        self.snapshots[snapshot.position_id] = snapshot

    def update_pnl(self, update: PnlUpdate) -> None:
        """Take a newer profit and loss."""
        self.updates[update.position_id] = update

    def forget(self, position_id: int) -> None:
        """The position is closed."""
        self.snapshots.pop(position_id, None)
        self.updates.pop(position_id, None)

    def pnl(self, position_id: int) -> PnlUpdate | None:
        """The newest profit and loss; None before the first."""
        return self.updates.get(position_id)

    def bands(self, position_id: int) -> tuple[SlippageBand, ...] | None:
        """The newest slippage bands; None before the first snapshot."""
        snapshot = self.snapshots.get(position_id)
        return None if snapshot is None else snapshot.bands

    def max_sell_at_slippage(self, position_id: int, slippage_bps: int) -> int | None:
        """Tokens sellable within a band; None when the server reports no band of exactly ``slippage_bps``."""
        for band in self.bands(position_id) or ():
            if band.slippage_bps == slippage_bps:
                return band.max_tokens
        return None

    def trend(self, position_id: int) -> str | None:
        """growing, stable or draining; None before the first snapshot."""
        snapshot = self.snapshots.get(position_id)
        return None if snapshot is None else snapshot.liquidity_trend
