"""Tiers and their limits (docs/protocol.md 8), and the limit on how often a key may ask."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lasersell_sync.sandbox.markets.pools import RoutingFee

HIGH_LANE_CAPACITY = 256
RATE_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Tier:
    """What an API key may do. ``inactivity_s`` is None where sessions may stay silent for ever."""

    number: int
    name: str
    max_wallets: int
    max_watch_wallets: int
    max_positions_per_wallet: int
    max_positions_per_session: int
    inactivity_s: float | None
    liquidity_snapshots: bool
    partner_fees: bool
    routing_fee: RoutingFee
    max_sessions_per_key: int = 1

    def stream_limits(self, pnl_flush_ms: int) -> dict[str, int]:
        """The ``limits`` of ``hello_ok``, in wire order."""
        return {
            "hi_capacity": HIGH_LANE_CAPACITY,
            "pnl_flush_ms": pnl_flush_ms,
            "max_positions_per_session": self.max_positions_per_session,
            "max_wallets_per_session": self.max_wallets,
            "max_positions_per_wallet": self.max_positions_per_wallet,
            "max_sessions_per_api_key": self.max_sessions_per_key,
            "max_watch_wallets_per_session": self.max_watch_wallets,
        }

    def account_answer(self) -> dict[str, object]:
        """The body of ``GET /v1/account``."""
        limits = {
            "max_wallets": self.max_wallets,
            "max_positions_per_wallet": self.max_positions_per_wallet,
            "max_positions_per_session": self.max_positions_per_session,
        }
        name = f"tier_{self.number}" if self.number else "free"
        return {"tier": self.number, "tier_name": name, "limits": limits}


_LEAST_LAMPORTS = 10_000_000
TIERS = (
    Tier(
        0,
        "Personal",
        1,
        2,
        2,
        2,
        inactivity_s=45 * 60,
        liquidity_snapshots=False,
        partner_fees=False,
        routing_fee=RoutingFee(200, _LEAST_LAMPORTS),
    ),
    Tier(
        1,
        "Professional",
        5,
        10,
        100,
        500,
        inactivity_s=None,
        liquidity_snapshots=True,
        partner_fees=False,
        routing_fee=RoutingFee(90, _LEAST_LAMPORTS),
    ),
    Tier(
        2,
        "Advanced",
        200,
        25,
        100,
        20_000,
        inactivity_s=None,
        liquidity_snapshots=True,
        partner_fees=True,
        routing_fee=RoutingFee(50, 0),
    ),
    # Enterprise: limits by contract; here above all others, and with another fee, so that nobody counts on tier 2's.
    Tier(
        3,
        "Enterprise",
        1_000,
        100,
        1_000,
        100_000,
        inactivity_s=None,
        liquidity_snapshots=True,
        partner_fees=True,
        routing_fee=RoutingFee(30, 0),
    ),
)


class RateLimiter:
    """Allows each key so many requests in any minute.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._times: dict[str, deque[float]] = {}

    def wait_s(self, key: str, now_s: float) -> float:
        """0 if a request is allowed now, which counts it; else the seconds until one will be."""
        if self._per_minute is None:
            return 0.0
        times = self._times.setdefault(key, deque())
        while times and now_s - times[0] >= RATE_WINDOW_S:
            times.popleft()
        if len(times) >= self._per_minute:
            return RATE_WINDOW_S - (now_s - times[0])
        times.append(now_s)
        return 0.0
