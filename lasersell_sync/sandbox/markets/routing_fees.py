"""The service's routing fee (docs/protocol.md §8): a share of the SOL or USD1 that a trade moves, by tier."""

from __future__ import annotations

from dataclasses import dataclass

from lasersell_sync.sandbox.markets.currencies import Currency
from lasersell_sync.sandbox.markets.pools import BPS, ceil_div


@dataclass(frozen=True, slots=True)
class RoutingFee:
    """``bps`` of a trade, and at least ``least_lamports`` of one for SOL; USD1 has no least fee."""

    bps: int
    least_lamports: int

    def of(self, units: int, quote: Currency) -> int:
        """The fee of a trade that moves so many quote units."""
        share = ceil_div(units * self.bps, BPS)
        return max(share, self.least_lamports) if quote.is_native else share

    def budget_without(self, units: int, quote: Currency) -> int:
        """What is left for the market when a purchase may take so many quote units, its fee included; at least 0."""
        left = units * BPS // (BPS + self.bps)
        return max(0, min(left, units - self.of(left, quote)))


#: Of direct trades.
NO_ROUTING_FEE = RoutingFee(0, 0)
