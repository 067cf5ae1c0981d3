"""Selling a position in legs: each as much as the market takes at a slippage limit, until all is sold."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final

import attrs

from lasersell_sync.autosell.reports import SellReport
from lasersell_sync.exceptions import ConfigurationError, StreamClosed
from lasersell_sync.messages import BalanceUpdate, LiquiditySnapshot, PositionClosed
from lasersell_sync.positions import PositionHandle
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.session.events import StreamEvent
from lasersell_sync.session.stream_session import StreamSession
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.trading.sending.outcome import SellOutcome

__all__ = ["LegPlan", "LegsReport", "sell_in_legs"]

log = logger("autosell")

#: Slippage bands come at these (docs/protocol.md 6).
_BANDS_BPS: Final = (1_000, 500, 200, 100)
_ENDED: Final = (ConnectionState.CLOSED, ConnectionState.FAILED)
_DRAINING: Final = "draining"
#: A server that does not tell the new balance is not waited for longer than this.
_BALANCE_WITHIN_S: Final = 15.0
_numbers = itertools.count(1)


def _number(low: float, high: float) -> Any:
    def check(_: object, attribute: attrs.Attribute[float], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ConfigurationError(attribute.name, f"a number from {low:g} to {high:g} is needed")

    return check


@attrs.frozen(kw_only=True)
class LegPlan:
    """How a position is sold in legs.

    Args:
        slippage_bps: basis points that no leg may give away more than; also the band that is looked at (the widest of
            100, 200, 500 and 1 000 within it).
        min_tokens: atomic units; the market is waited for rather than selling less than this, except for the last leg.
        draining_share: of what the band absorbs, while liquidity drains: others are selling into the same pool.
        shrink: of what the band absorbs, after each leg that failed.
        max_failures: legs in a row that may fail.
        timeout_s: seconds for all of it; a leg that was sent is still followed to its end.

    Raises:
        ConfigurationError: a value out of range, named.
    """

    slippage_bps: int = attrs.field(validator=_number(_BANDS_BPS[-1], 10_000))
    min_tokens: int = attrs.field(default=1, validator=_number(1, 2**64 - 1))
    draining_share: float = attrs.field(default=0.5, validator=_number(0.01, 1))
    shrink: float = attrs.field(default=0.5, validator=_number(0.01, 1))
    max_failures: int = attrs.field(default=3, validator=_number(1, 100))
    timeout_s: float = attrs.field(default=600.0, validator=_number(0.001, 7 * 24 * 3600))

    @property
    def band_bps(self) -> int:
        """The slippage band to look at."""
        return next(band for band in _BANDS_BPS if band <= self.slippage_bps)


@attrs.frozen(kw_only=True)
class LegsReport:
    """What came of a sale in legs.

    Attributes:
        tokens_sold: confirmed, in atomic units.
        tokens_left: by the session's last word.
        legs: each leg's report, in order.
        detail: why it ended.

    Threads: immutable, any.
    """

    tokens_sold: int
    tokens_left: int
    legs: tuple[SellReport, ...]
    detail: str


#: Sells so many tokens, with a name for the leg; cancelled when the seller is closed first.
SellLeg = Callable[[str, int], "Future[SellReport]"]


class _Ear:
    """Wakes a waiting thread when the session says something about one position.

    Threads: ``hear`` on the reader, ``wait`` on the caller's.
    """

    def __init__(self, handle: PositionHandle) -> None:
        self._handle = handle
        self._changed = threading.Condition()
        self._balances = 0
        self.is_closed = False

    def hear(self, event: StreamEvent) -> None:
        handle, message = event.handle, event.message
        if handle is None or handle.key != self._handle.key:
            return
        with self._changed:
            if isinstance(message, BalanceUpdate):
                self._balances += 1
            self.is_closed = self.is_closed or isinstance(message, PositionClosed)
            self._changed.notify_all()

    @property
    def balances(self) -> int:
        return self._balances

    def wait_for_balance(self, since: int, timeout_s: float) -> None:
        """Until another balance was told than the first ``since``, or the position was closed, or time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or self._balances > since, timeout_s)


def sell_in_legs(session: StreamSession, handle: PositionHandle, plan: LegPlan, sell: SellLeg) -> LegsReport:
    """See ``AutoSeller.sell_in_legs``."""
    ear = _Ear(handle)
    stop_hearing = session.tap(ear.hear)
    try:
        return _Seller(session, handle, plan, sell, ear).run()
    finally:
        stop_hearing()


class _Seller:
    """One position's sale in legs, on the caller's thread."""

    def __init__(self, session: StreamSession, handle: PositionHandle, plan: LegPlan, sell: SellLeg, ear: _Ear) -> None:
        self._session = session
        self._handle = handle
        self._plan = plan
        self._sell = sell
        self._ear = ear
        self._budget = TimeBudget(plan.timeout_s)
        self._legs: list[SellReport] = []
        self._failures = 0

    def run(self) -> LegsReport:
        while True:
            handle = self._present()
            if handle is None or handle.tokens == 0:
                return self._ended("all is sold" if handle is not None else "the position is closed")
            if self._failures >= self._plan.max_failures:
                return self._ended(f"{self._failures} legs in a row failed")
            if self._session.status in _ENDED:
                return self._ended("the session has ended")
            if self._budget.expired():
                return self._ended(f"not all was sold within {self._plan.timeout_s:g} s")
            tokens = self._leg_tokens(handle)
            if tokens == 0:
                self._wait_for_liquidity()
            elif not self._sell_one(handle, tokens):
                return self._ended("the seller was closed")

    def _present(self) -> PositionHandle | None:
        """The position as it is now; None when it is closed."""
        if self._ear.is_closed:
            return None
        key = self._handle.key
        return next((handle for handle in self._session.positions() if handle.key == key), None)

    def _leg_tokens(self, handle: PositionHandle) -> int:
        """What the market takes within the limit now; 0: too little, or not known."""
        absorbed = self._session.get_max_sell_at_slippage(handle.position_id, self._plan.band_bps) or 0
        if self._session.get_liquidity_trend(handle.position_id) == _DRAINING:
            absorbed = int(absorbed * self._plan.draining_share)
        absorbed = int(absorbed * self._plan.shrink**self._failures)
        if absorbed >= handle.tokens:
            return handle.tokens
        return absorbed if absorbed >= self._plan.min_tokens else 0

    def _wait_for_liquidity(self) -> None:
        """Until the next snapshot of this position."""
        key, left_s = self._handle.key, self._budget.remaining_s()

        def is_news(event: StreamEvent) -> bool:
            is_ours = event.handle is not None and event.handle.key == key
            return is_ours and isinstance(event.message, (LiquiditySnapshot, PositionClosed))

        with contextlib.suppress(queue.Empty, StreamClosed):
            self._session.wait_for(is_news, left_s, only_new=True)

    def _sell_one(self, handle: PositionHandle, tokens: int) -> bool:
        """Sell a leg and wait for its end; False when there will be none."""
        balances = self._ear.balances
        name = f"{time.time_ns() // 1_000_000}-{next(_numbers)}"
        log.info("leg %s: %d of %d tokens of %s", name, tokens, handle.tokens, handle.token_account)
        try:
            report = self._sell(name, tokens).result()
        except CancelledError:
            return False
        self._legs.append(report)
        outcome = report.outcome
        if outcome is SellOutcome.UNKNOWN:
            return False
        if outcome is SellOutcome.CONFIRMED:
            self._failures = 0
            self._ear.wait_for_balance(balances, _BALANCE_WITHIN_S)
        else:
            self._failures += 1
        return True

    def _ended(self, detail: str) -> LegsReport:
        handle = self._present()
        sold = sum(leg.tokens for leg in self._legs if leg.outcome is SellOutcome.CONFIRMED)
        left = 0 if handle is None else handle.tokens
        return LegsReport(tokens_sold=sold, tokens_left=left, legs=tuple(self._legs), detail=detail)
