"""Strategies: building one, and the client-side checks before one is sent (docs/protocol.md 5, 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lasersell_sync.exceptions import StrategyError
from lasersell_sync.messages import StrategyConfig, TakeProfitLevel, from_mapping

__all__ = [
    "StrategyConfigBuilder",
    "strategy_config_from_optional",
    "to_strategy",
    "validate_deadline",
    "validate_strategy",
]

_PERCENTAGES = ("target_profit_pct", "stop_loss_pct", "trailing_stop_pct", "breakeven_trail_pct")
_MAX_LEVELS = 10
#: Three shares of 33.333… add up to a little more than 100 in floating point.
_ROUNDING_PCT = 1e-6
# The ladder and graduation count too: the service accepts them, though the official SDKs do not (docs/protocol.md 5).
_NOTHING_ENABLED = (
    "no exit condition is enabled: set at least one of target_profit_pct, stop_loss_pct, trailing_stop_pct, "
    "take_profit_levels, sell_on_graduation or deadline_timeout_sec"
)


def to_strategy(value: StrategyConfig | Mapping[str, Any]) -> StrategyConfig:
    """A dict as a ``StrategyConfig``; anything else is left for ``validate_strategy``.

    Raises:
        StrategyError: a dict with other fields.
    """
    return from_mapping(StrategyConfig, value, lambda problem: StrategyError("strategy", problem))


def validate_strategy(strategy: Any, deadline_timeout_sec: float = 0) -> StrategyConfig:
    """The strategy, a dict as a ``StrategyConfig``; or an error that names the field.

    Raises:
        StrategyError: not a StrategyConfig, a dict with other fields, a percentage that is negative or not finite, a
            ladder that does not climb, has more than 10 levels or sells more than 100 % together, a negative deadline,
            or nothing enabled.
    """
    strategy = to_strategy(strategy)
    if not isinstance(strategy, StrategyConfig):
        raise StrategyError(
            "strategy", f"expected StrategyConfig, got {type(strategy).__name__}: build one with StrategyConfig(...)"
        )
    for name in _PERCENTAGES:
        _require_percentage(f"strategy.{name}", getattr(strategy, name))
    _require_ladder(strategy.take_profit_levels)
    validate_deadline(deadline_timeout_sec)
    enabled = (
        strategy.target_profit_pct > 0
        or strategy.stop_loss_pct > 0
        or strategy.trailing_stop_pct > 0
        or bool(strategy.take_profit_levels)
        or strategy.sell_on_graduation
        or deadline_timeout_sec > 0
    )
    if not enabled:
        raise StrategyError("strategy", _NOTHING_ENABLED)
    return strategy


def validate_deadline(deadline_timeout_sec: object) -> None:
    """A deadline is a finite number of seconds, 0 for none.

    Raises:
        StrategyError: anything else.
    """
    if not _is_finite_number(deadline_timeout_sec) or deadline_timeout_sec < 0:  # type: ignore[operator]
        raise StrategyError(
            "deadline_timeout_sec", f"{deadline_timeout_sec!r} is not a number of seconds ≥ 0 (0 switches it off)"
        )


def _is_finite_number(value: object) -> bool:
    # Compared, for an int may be too large for isfinite().
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def _require_percentage(field: str, value: object) -> None:
    if not _is_finite_number(value):
        raise StrategyError(field, f"{value!r} is not a finite number: percentages are plain numbers, 5 means 5 %")
    if value < 0:  # type: ignore[operator]
        raise StrategyError(field, f"{value!r} is negative: percentages are ≥ 0, and 0 switches the condition off")


def _require_ladder(levels: Sequence[TakeProfitLevel]) -> None:
    if len(levels) > _MAX_LEVELS:
        raise StrategyError(
            "strategy.take_profit_levels", f"{len(levels)} levels are not 0 to {_MAX_LEVELS}. Merge some of them"
        )
    below = 0.0
    for index, level in enumerate(levels):
        field = f"strategy.take_profit_levels[{index}]"
        if not isinstance(level, TakeProfitLevel):
            raise StrategyError(field, f"expected TakeProfitLevel, got {type(level).__name__}")
        for name in ("profit_pct", "sell_pct", "trailing_stop_pct"):
            _require_percentage(f"{field}.{name}", getattr(level, name))
        if not 0 < level.sell_pct <= 100:
            raise StrategyError(f"{field}.sell_pct", f"{level.sell_pct!r} is not in 0 < x ≤ 100")
        if level.profit_pct <= below:
            raise StrategyError(
                f"{field}.profit_pct",
                f"{level.profit_pct!r} must be above {below!r}: levels climb from one to the next",
            )
        below = level.profit_pct
    together = math.fsum(level.sell_pct for level in levels)
    if together > 100 + _ROUNDING_PCT:
        raise StrategyError(
            "strategy.take_profit_levels",
            f"sell_pct of all levels together is {together:g}, which is above 100. Lower the shares",
        )


def strategy_config_from_optional(
    *,
    target_profit_pct: float | None = None,
    stop_loss_pct: float | None = None,
    trailing_stop_pct: float | None = None,
    sell_on_graduation: bool = False,
    take_profit_levels: Iterable[TakeProfitLevel] | None = None,
    liquidity_guard: bool = False,
    breakeven_trail_pct: float | None = None,
) -> StrategyConfig:
    """A strategy from what is set; None switches a condition off. Not validated: connect and update do that."""
    return StrategyConfig(
        target_profit_pct=target_profit_pct or 0.0,
        stop_loss_pct=stop_loss_pct or 0.0,
        trailing_stop_pct=trailing_stop_pct or 0.0,
        sell_on_graduation=sell_on_graduation,
        take_profit_levels=tuple(take_profit_levels or ()),
        liquidity_guard=liquidity_guard,
        breakeven_trail_pct=breakeven_trail_pct or 0.0,
    )


class StrategyConfigBuilder:
    """A strategy, one condition a call; every call returns the builder.

    ``StrategyConfigBuilder().target_profit_pct(20).stop_loss_pct(10).build()``

    Threads: one at a time.
    """

    def __init__(self) -> None:
        self._set: dict[str, Any] = {"target_profit_pct": 0.0, "stop_loss_pct": 0.0}

    def _with(self, **change: object) -> StrategyConfigBuilder:
        self._set.update(change)
        return self

    def target_profit_pct(self, pct: float) -> StrategyConfigBuilder:
        """Exit when the profit reaches ``pct`` % of the entry."""
        return self._with(target_profit_pct=pct)

    def stop_loss_pct(self, pct: float) -> StrategyConfigBuilder:
        """Exit when the loss reaches ``pct`` % of the entry."""
        return self._with(stop_loss_pct=pct)

    def trailing_stop_pct(self, pct: float) -> StrategyConfigBuilder:
        """Exit when the profit has fallen ``pct`` % of the entry below its peak."""
        return self._with(trailing_stop_pct=pct)

    def sell_on_graduation(self, enabled: bool = True) -> StrategyConfigBuilder:  # noqa: FBT001, FBT002 - official name
        """Exit when the token moves from its bonding curve to an AMM pool."""
        return self._with(sell_on_graduation=enabled)

    def take_profit_levels(self, levels: Iterable[TakeProfitLevel]) -> StrategyConfigBuilder:
        """Sell in parts, on the way up; replaces the target profit."""
        return self._with(take_profit_levels=tuple(levels))

    def liquidity_guard(self, enabled: bool = True) -> StrategyConfigBuilder:  # noqa: FBT001, FBT002 - official name
        """Scale ladder sells down to what the pool absorbs."""
        return self._with(liquidity_guard=enabled)

    def breakeven_trail_pct(self, pct: float) -> StrategyConfigBuilder:
        """Once the profit has reached ``pct`` %, stop at zero profit."""
        return self._with(breakeven_trail_pct=pct)

    def build(self, *, deadline_timeout_sec: float = 0) -> StrategyConfig:
        """The strategy, validated; name the deadline if it is the only condition.

        Raises:
            StrategyError: as ``validate_strategy``.
        """
        return validate_strategy(StrategyConfig(**self._set), deadline_timeout_sec)
