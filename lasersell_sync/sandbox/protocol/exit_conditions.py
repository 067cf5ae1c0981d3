"""When to exit, and how much: every condition of docs/protocol.md 6 that the server watches.

Pure values and functions; no clock, no I/O. Percentages are exact fractions of the decimal text that came over the
wire, and profits are integers, so a condition fires on the very lamport it names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

TARGET_PROFIT = "target_profit"
STOP_LOSS = "stop_loss"
TRAILING_STOP = "trailing_stop"
#: The stop that moved to zero profit.
BREAKEVEN_TRAIL = "breakeven_trail"
#: One rung of a ladder: the only exit that may sell a part.
LADDER_LEVEL = "chained_tp"
GRADUATION = "graduation"
#: The pool takes half of what it once took, where the liquidity guard is read as an exit.
LIQUIDITY_GUARD = "liquidity_guard"


def exact_pct(value: float) -> Fraction:
    """The percentage as it was written: ``0.1`` is one tenth, not the nearest binary number."""
    return Fraction(repr(value))


@dataclass(frozen=True, slots=True)
class Level:
    """One rung of a take-profit ladder: at ``profit_pct``, sell ``sell_pct`` % of what is left, then trail the rest."""

    profit_pct: Fraction
    sell_pct: Fraction
    trailing_stop_pct: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy's settings; a percentage of 0 switches its condition off."""

    target_profit_pct: Fraction
    stop_loss_pct: Fraction
    trailing_stop_pct: Fraction = Fraction(0)
    sell_on_graduation: bool = False
    take_profit_levels: tuple[Level, ...] = ()
    liquidity_guard: bool = False
    breakeven_trail_pct: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Readings:
    """How conditions are read on which official sources disagree; see ``Policies``."""

    trail_from_level: bool = False
    #: so far below the entry lies the breakeven trail
    breakeven_margin_pct: Fraction = Fraction(0)
    liquidity_guard: Literal["scale", "defer", "exit"] = "scale"


_CRATE = Readings()


@dataclass(frozen=True, slots=True)
class Exit:
    """Sell ``sell_tokens`` (None: everything), for a reason; ``level_index`` counts a ladder's rungs from 0."""

    reason: str
    sell_tokens: int | None = None
    level_index: int | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """A strategy at work on one position."""

    strategy: Strategy
    #: the best profit seen, at least 0
    peak_profit: int = 0
    #: why everything is to be sold; None while armed
    fired: str | None = None
    #: the profit has once reached the breakeven percentage
    breakeven_armed: bool = False
    #: the first rung of the ladder that has not fired
    next_level: int = 0
    #: the trailing stop a rung has set, in place of the strategy's
    level_trailing_pct: Fraction = Fraction(0)
    #: (rung, tokens) that were signalled and are not sold yet, lowest rung first
    pending: tuple[tuple[int, int], ...] = ()
    #: held back by the liquidity guard, for the rungs to come
    carried_tokens: int = 0
    #: the most tokens that the pool has ever taken
    peak_absorbed: int = 0

    @property
    def pending_tokens(self) -> int:
        """Signalled by rungs and not sold yet."""
        return sum(tokens for _, tokens in self.pending)

    def with_strategy(self, strategy: Strategy) -> Watch:
        """The same watch under another strategy; armed again if it really changed.

        The best profit stays: it is the position's. A ladder that did not change goes on where it was.
        """
        if strategy == self.strategy:
            return self
        watch = replace(self, strategy=strategy, fired=None, breakeven_armed=False)
        if strategy.take_profit_levels == self.strategy.take_profit_levels:
            return watch
        return replace(watch, next_level=0, level_trailing_pct=Fraction(0), carried_tokens=0)

    def scaled(self, kept_tokens: int, of_tokens: int) -> Watch:
        """The same watch after a partial sale: the peak shrinks with the position, and what was asked for is sold."""
        return replace(
            self,
            peak_profit=self.peak_profit * kept_tokens // of_tokens,
            pending=_without(self.pending, of_tokens - kept_tokens),
            carried_tokens=min(self.carried_tokens, kept_tokens),
        )

    def observe(
        self, entry: int, profit: int, *, tokens: int, absorbed: int, readings: Readings = _CRATE
    ) -> tuple[Watch, tuple[Exit, ...]]:
        """Look at the newest profit: the watch from now on, and the exits that have become due just now.

        Args:
            entry: What the position cost, in quote units. 0 never fires: a percentage of nothing is no condition.
            profit: What selling all of it would bring now, less ``entry``.
            tokens: The position's size.
            absorbed: The most tokens the pool takes at tolerable slippage, for the liquidity guard.
            readings: How disputed conditions are read.
        """
        watch = self._remember(entry, profit, absorbed)
        if entry <= 0 or watch.fired is not None:
            return watch, ()
        reason = watch._exit_reason(entry, profit, absorbed, readings)
        if reason is not None:
            return replace(watch, fired=reason), (Exit(reason),)
        return watch._climb(entry, profit, tokens, absorbed, readings)

    def graduated(self) -> tuple[Watch, tuple[Exit, ...]]:
        """The token has moved from its bonding curve to an AMM pool."""
        if not self.strategy.sell_on_graduation or self.fired is not None:
            return self, ()
        return replace(self, fired=GRADUATION), (Exit(GRADUATION),)

    def _remember(self, entry: int, profit: int, absorbed: int) -> Watch:
        peak = max(self.peak_profit, profit)
        breakeven_pct = self.strategy.breakeven_trail_pct
        armed = self.breakeven_armed or bool(breakeven_pct and entry > 0 and _reaches(peak, entry, breakeven_pct))
        taken = max(self.peak_absorbed, absorbed) if self.strategy.liquidity_guard else 0
        if (peak, armed, taken) == (self.peak_profit, self.breakeven_armed, self.peak_absorbed):
            return self
        return replace(self, peak_profit=peak, breakeven_armed=armed, peak_absorbed=taken)

    def _exit_reason(self, entry: int, profit: int, absorbed: int, readings: Readings) -> str | None:
        """Why to sell everything, or None. The first condition that holds, in this order, is the reason."""
        strategy = self.strategy
        capped = not strategy.take_profit_levels or readings.trail_from_level
        target_pct = strategy.target_profit_pct if capped else None
        if target_pct and _reaches(profit, entry, target_pct):
            return TARGET_PROFIT
        if strategy.stop_loss_pct and _reaches(-profit, entry, strategy.stop_loss_pct):
            return STOP_LOSS
        if self.breakeven_armed and _reaches(-profit, entry, readings.breakeven_margin_pct):
            return BREAKEVEN_TRAIL
        if strategy.liquidity_guard and readings.liquidity_guard == "exit" and 2 * absorbed <= self.peak_absorbed:
            return LIQUIDITY_GUARD
        trailing_pct = self.level_trailing_pct or strategy.trailing_stop_pct
        if trailing_pct and self.peak_profit > 0 and _reaches(self.peak_profit - profit, entry, trailing_pct):
            return TRAILING_STOP
        return None

    # -- the ladder

    def _climb(
        self, entry: int, profit: int, tokens: int, absorbed: int, readings: Readings
    ) -> tuple[Watch, tuple[Exit, ...]]:
        """Fire every rung that is reached; a jump in price may reach several at once."""
        watch, exits = self, []
        levels = self.strategy.take_profit_levels
        while watch.next_level < len(levels) and _reaches(profit, entry, levels[watch.next_level].profit_pct):
            level = levels[watch.next_level]
            if readings.trail_from_level and level.trailing_stop_pct:
                watch = replace(watch, next_level=watch.next_level + 1, level_trailing_pct=level.trailing_stop_pct)
                continue
            if watch._defers(level, tokens, absorbed, readings):
                break
            watch, sell_tokens = watch._rung(level, tokens, absorbed, readings)
            absorbed -= sell_tokens
            if sell_tokens:
                exits.append(Exit(LADDER_LEVEL, sell_tokens, watch.next_level - 1))
        return watch, tuple(exits)

    def _wanted(self, level: Level, tokens: int) -> int:
        """What a rung is to sell."""
        # What earlier rungs have signalled is as good as sold: two rungs must not sell the same tokens.
        left = max(0, tokens - self.pending_tokens)
        share = left * level.sell_pct.numerator // (100 * level.sell_pct.denominator)
        return min(left, share + self.carried_tokens)

    def _defers(self, level: Level, tokens: int, absorbed: int, readings: Readings) -> bool:
        """Whether a rung waits until the pool takes all that it is to sell."""
        guarded = self.strategy.liquidity_guard and readings.liquidity_guard == "defer"
        return guarded and self._wanted(level, tokens) > max(0, absorbed)

    def _rung(self, level: Level, tokens: int, absorbed: int, readings: Readings) -> tuple[Watch, int]:
        """The watch above a rung, and how much the rung sells."""
        wanted = self._wanted(level, tokens)
        scaled = self.strategy.liquidity_guard and readings.liquidity_guard == "scale"
        sell_tokens = min(wanted, max(0, absorbed)) if scaled else wanted
        above = replace(
            self,
            next_level=self.next_level + 1,
            level_trailing_pct=level.trailing_stop_pct or self.level_trailing_pct,
            pending=(*self.pending, (self.next_level, sell_tokens)) if sell_tokens else self.pending,
            carried_tokens=wanted - sell_tokens,
        )
        return above, sell_tokens


def _without(pending: tuple[tuple[int, int], ...], sold: int) -> tuple[tuple[int, int], ...]:
    """What is still to be sold after a sale: of the rung that asked for just so much, else of the lowest first."""
    rung = next((rung for rung, tokens in pending if tokens == sold), None)
    if rung is not None:
        return tuple(item for item in pending if item[0] != rung)
    left = []
    for rung, tokens in pending:
        taken = min(tokens, sold)
        sold -= taken
        if tokens > taken:
            left.append((rung, tokens - taken))
    return tuple(left)


def _reaches(amount: int, entry: int, pct: Fraction) -> bool:
    """Whether an amount is at least ``pct`` percent of the entry, in integers alone."""
    return amount * 100 * pct.denominator >= entry * pct.numerator
