"""When to exit: target profit, stop loss, trailing stop (PROTOCOL.md §6).

Pure values and functions; no clock, no I/O. Percentages are exact fractions of the decimal text that came over the
wire, and profits are integers, so a condition fires on the very lamport it names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

TARGET_PROFIT = "target_profit"
STOP_LOSS = "stop_loss"
TRAILING_STOP = "trailing_stop"


def exact_pct(value: float) -> Fraction:
    """The percentage as it was written: ``0.1`` is one tenth, not the nearest binary number."""
    return Fraction(repr(value))


@dataclass(frozen=True, slots=True)
class Level:
    """One rung of a take-profit ladder (kept for a later storey)."""

    profit_pct: Fraction
    sell_pct: Fraction
    trailing_stop_pct: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy's settings; a percentage of 0 switches its condition off.

    This storey acts on the first three; the others are validated and stored.
    """

    target_profit_pct: Fraction
    stop_loss_pct: Fraction
    trailing_stop_pct: Fraction = Fraction(0)
    sell_on_graduation: bool = False
    take_profit_levels: tuple[Level, ...] = ()
    liquidity_guard: bool = False
    breakeven_trail_pct: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Watch:
    """A strategy at work on one position: the best profit seen, and what has fired (None: armed)."""

    strategy: Strategy
    peak_profit: int = 0
    fired: str | None = None

    def with_strategy(self, strategy: Strategy) -> Watch:
        """The same watch under another strategy; armed again if the strategy really changed."""
        return self if strategy == self.strategy else replace(self, strategy=strategy, fired=None)

    def scaled(self, kept_tokens: int, of_tokens: int) -> Watch:
        """The same watch after a partial sale: the peak shrinks with the position."""
        return replace(self, peak_profit=self.peak_profit * kept_tokens // of_tokens)

    def observe(self, entry: int, profit: int) -> Watch:
        """Look at the newest profit; ``fired`` of the result is new if a condition was met just now."""
        peak = max(self.peak_profit, profit)
        fired = self.fired or exit_reason(self.strategy, entry=entry, profit=profit, peak_profit=peak)
        if peak == self.peak_profit and fired == self.fired:
            return self
        return replace(self, peak_profit=peak, fired=fired)


def exit_reason(strategy: Strategy, *, entry: int, profit: int, peak_profit: int) -> str | None:
    """The condition that is met, or None. All amounts in quote units.

    A non-empty ladder replaces target profit. An entry of 0 never fires: a percentage of nothing is no condition.
    """
    if entry <= 0:
        return None
    target_pct = strategy.target_profit_pct if not strategy.take_profit_levels else 0
    if target_pct and profit * 100 >= entry * target_pct:
        return TARGET_PROFIT
    if strategy.stop_loss_pct and -profit * 100 >= entry * strategy.stop_loss_pct:
        return STOP_LOSS
    trailing_pct = strategy.trailing_stop_pct if peak_profit > 0 else 0
    if trailing_pct and (peak_profit - profit) * 100 >= entry * trailing_pct:
        return TRAILING_STOP
    return None
