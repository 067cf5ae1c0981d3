"""Strategies: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from lasersell_sync import (
    StrategyConfig,
    StrategyConfigBuilder,
    StrategyError,
    TakeProfitLevel,
    strategy_config_from_optional,
    validate_strategy,
)


def strategy(**fields: Any) -> StrategyConfig:
    return StrategyConfig(**{"target_profit_pct": 0.0, "stop_loss_pct": 0.0, **fields})


def level(profit_pct: Any, sell_pct: Any, trailing_stop_pct: Any = 0.0) -> TakeProfitLevel:
    return TakeProfitLevel(profit_pct=profit_pct, sell_pct=sell_pct, trailing_stop_pct=trailing_stop_pct)


@pytest.mark.parametrize(
    "good",
    [
        strategy(target_profit_pct=1),
        strategy(stop_loss_pct=0.5),
        strategy(trailing_stop_pct=3.0),
        strategy(sell_on_graduation=True),
        strategy(take_profit_levels=(level(10, 50), level(20.0, 50))),
    ],
)
def test_any_one_condition_is_enough(good: StrategyConfig) -> None:
    """Ladder and graduation count (docs/protocol.md 5), which the official SDKs forget."""
    assert validate_strategy(good) is good


@pytest.mark.parametrize("shares", [[10] * 10, [100], [33.34, 33.33, 33.33], [100 / 3] * 3, [100 / 7] * 7], ids=len)
def test_strategy_ladder_of_ten_levels_and_100_percent_is_accepted(shares: list[float]) -> None:
    """The limits themselves are allowed, and rounding of thirds and sevenths is not an excess."""
    levels = tuple(level(index + 1, share) for index, share in enumerate(shares))
    validate_strategy(strategy(take_profit_levels=levels))


def test_a_deadline_alone_is_enough() -> None:
    """It is an exit condition, though the client runs it."""
    validate_strategy(strategy(), deadline_timeout_sec=30)
    with pytest.raises(StrategyError, match="no exit condition"):
        validate_strategy(strategy(), deadline_timeout_sec=0)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (strategy(target_profit_pct=-1), "strategy.target_profit_pct"),
        (strategy(stop_loss_pct=float("nan")), "strategy.stop_loss_pct"),
        (strategy(trailing_stop_pct=float("inf")), "strategy.trailing_stop_pct"),
        (strategy(target_profit_pct="5"), "strategy.target_profit_pct"),
        (strategy(target_profit_pct=True), "strategy.target_profit_pct"),
        (strategy(breakeven_trail_pct=None), "strategy.breakeven_trail_pct"),
        (strategy(take_profit_levels=(level(10, 0),)), "strategy.take_profit_levels[0].sell_pct"),
        (strategy(take_profit_levels=(level(10, 101),)), "strategy.take_profit_levels[0].sell_pct"),
        (strategy(take_profit_levels=(level(0, 50),)), "strategy.take_profit_levels[0].profit_pct"),
        (strategy(take_profit_levels=(level(10, 50), level(10, 50))), "strategy.take_profit_levels[1].profit_pct"),
        (strategy(take_profit_levels=(level(10, 50, -1),)), "strategy.take_profit_levels[0].trailing_stop_pct"),
        (strategy(take_profit_levels=("x",)), "strategy.take_profit_levels[0]"),
        (strategy(take_profit_levels=[level(n, 1) for n in range(1, 12)]), "strategy.take_profit_levels"),
        (strategy(take_profit_levels=(level(1, 60), level(2, 40.01))), "strategy.take_profit_levels"),
        (strategy(), "strategy"),
        ({"target_profit_pct": 5}, "strategy"),
    ],
)
def test_each_mistake_names_its_field(bad: Any, field: str) -> None:
    """The field is an attribute, and the message says what to do."""
    with pytest.raises(StrategyError) as caught:
        validate_strategy(bad)
    assert caught.value.field == field
    assert caught.value.code is None


@pytest.mark.parametrize("deadline", [-1, float("nan"), float("inf"), "30", None, True])
def test_deadlines_are_seconds(deadline: Any) -> None:
    """A finite number ≥ 0."""
    with pytest.raises(StrategyError, match="deadline_timeout_sec"):
        validate_strategy(strategy(target_profit_pct=1), deadline)


def test_from_optional_and_builder_agree() -> None:
    """Two ways to the same value."""
    built = (
        StrategyConfigBuilder()
        .target_profit_pct(20)
        .stop_loss_pct(10)
        .trailing_stop_pct(5)
        .sell_on_graduation()
        .take_profit_levels([level(10, 50)])
        .liquidity_guard()
        .breakeven_trail_pct(2)
        .build()
    )
    assert built == strategy_config_from_optional(
        target_profit_pct=20,
        stop_loss_pct=10,
        trailing_stop_pct=5,
        sell_on_graduation=True,
        take_profit_levels=[level(10, 50)],
        liquidity_guard=True,
        breakeven_trail_pct=2,
    )
    with pytest.raises(StrategyError):
        StrategyConfigBuilder().build()
    assert StrategyConfigBuilder().build(deadline_timeout_sec=5) == strategy_config_from_optional()
