"""One router of one core, with everything that it speaks to, and a log of what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lasersell_sync.messages import LiquiditySnapshot, PnlUpdate, SlippageBand, TradeTick
from lasersell_sync.positions import PositionHandle
from lasersell_sync.session.events import StreamEvent
from tests.parity.cores import core, decoder, handles_of, shape

#: The positions that the session knows.
KNOWN = range(1, 6)
SLOTTED = (PnlUpdate.type, LiquiditySnapshot.type)


def pnl(position: int, profit: int = 0) -> PnlUpdate:
    return PnlUpdate(position_id=position, profit_units=profit, proceeds_units=2**40, server_time_ms=1_736_000_000_000)


def tick(position: int, amount: int = 0) -> TradeTick:
    return TradeTick(
        position_id=position, time_ms=1, side="buy", token_amount=amount, quote_amount=3, price_quote=4,
        maker="maker", tx_signature="signature",
    )  # fmt: skip


def liquidity(position: int, tokens: int = 0) -> LiquiditySnapshot:
    band = SlippageBand(slippage_bps=100, max_tokens=tokens, coverage_pct=0.5)
    return LiquiditySnapshot(position_id=position, bands=(band,), liquidity_trend="stable", server_time_ms=1)


def handle(position: int) -> PositionHandle:
    return PositionHandle(
        position_id=position, token_account=f"account {position}", wallet_pubkey="wallet", mint="mint", tokens=1,
        entry_quote_units=1,
    )  # fmt: skip


class Rig:
    """A router with its lanes, handles and handlers.

    Args:
        name: the core's module name.
        bare: as a connection without a session has it: no handles, tuples for events.
        policy: of the low lane.
        on_error: asked before the log; may raise.
    """

    def __init__(
        self,
        name: str,
        *,
        bare: bool = False,
        policy: str = "conflate",
        low_capacity: int = 1000,
        on_error: Callable[[Any, Any, BaseException], None] | None = None,
    ) -> None:
        module = core(name)
        self.name = name
        self.decoder = decoder(module, "server")
        self.lanes = module.Lanes(
            SLOTTED if policy == "conflate" else (), low_capacity, 1000, lossless=policy == "lossless"
        )
        self.handles = handles_of(module, {position: handle(position) for position in KNOWN})
        self._updates, self._snapshots = module.LatestByKey(self.decoder), module.LatestByKey(self.decoder)
        self.watchers: list[Any] = []
        self.log: list[Any] = []
        self._on_error = on_error
        self.router = module.EventRouter(
            self.decoder,
            {
                PnlUpdate: (PnlUpdate.type, None if bare else self._updates),
                LiquiditySnapshot: (LiquiditySnapshot.type, None if bare else self._snapshots),
                TradeTick: (TradeTick.type, None),
            },
            "position_id",
            self.lanes,
            event=None if bare else module.InstanceFactory(StreamEvent, ("type", "message", "handle", "received_ns")),
            handles=None if bare else self.handles,
            watchers=self.watchers,
            on_error=self.failed,
        )

    @property
    def updates(self) -> dict[int, Any]:
        """The newest ``pnl_update`` of each position."""
        return dict(self._updates.items())

    @property
    def snapshots(self) -> dict[int, Any]:
        """The newest ``liquidity_snapshot`` of each position."""
        return dict(self._snapshots.items())

    def failed(self, handler: Any, event: Any, error: BaseException) -> None:
        self.log.append(("failed", handler.__name__, event_shape(event), type(error), str(error)))
        if self._on_error is not None:
            self._on_error(handler, event, error)

    def handler(self, tag: str, then: Callable[[Any], None] | None = None) -> Callable[[Any], None]:
        """One that logs its tag and event, then does something."""

        def handler(event: Any) -> None:
            self.log.append((tag, event_shape(event)))
            if then is not None:
                then(event)

        handler.__name__ = tag
        return handler

    def drained(self) -> list[Any]:
        """Everything that waits, spelled out."""
        batch: list[Any] = []
        self.lanes.pop_into(batch, 10**6)
        return [event_shape(event) for event in batch]

    def state(self) -> Any:
        """Everything that a router can change."""
        newest = [{key: shape(message) for key, message in kept.items()} for kept in (self.updates, self.snapshots)]
        counts = (self.lanes.qsize(), self.lanes.dropped, self.lanes.conflated, self.lanes.unfinished)
        return newest, counts, self.log


def event_shape(event: Any) -> Any:
    """An event of either form with its types spelled out."""
    if isinstance(event, StreamEvent):
        return StreamEvent, event.type, shape(event.message), event.handle, event.received_ns
    if isinstance(event, tuple):
        return tuple, shape(event[0]), event[1]
    return event
