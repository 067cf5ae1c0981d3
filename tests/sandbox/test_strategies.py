"""The three conditions of this storey, to the lamport."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasersell_sync.sandbox.strategies import Level, Strategy, Watch, exact_pct, exit_reason

ENTRY = 1_000_000_007


def terms(target: float = 0, stop: float = 0, trailing: float = 0) -> Strategy:
    return Strategy(exact_pct(target), exact_pct(stop), exact_pct(trailing))


def reason(strategy: Strategy, profit: int, peak: int = 0, entry: int = ENTRY) -> str | None:
    return exit_reason(strategy, entry=entry, profit=profit, peak_profit=max(peak, profit))


@pytest.mark.parametrize("pct", [0.1, 5, 12.5, 33.3, 100, 1e-6])
def test_target_profit_fires_on_the_very_lamport(pct: float) -> None:
    """Target profit fires at the least profit that is at least entry x target%, and not one lamport earlier."""
    exact = ENTRY * Fraction(str(pct)) / 100
    least = -(-exact.numerator // exact.denominator)
    assert reason(terms(target=pct), least) == "target_profit"
    assert reason(terms(target=pct), least - 1) is None


@pytest.mark.parametrize("pct", [0.1, 5, 12.5, 33.3, 100])
def test_stop_loss_fires_on_the_very_lamport(pct: float) -> None:
    """Stop loss fires at the least loss that is at least entry x stop%, and not one lamport earlier."""
    exact = ENTRY * Fraction(str(pct)) / 100
    least = -(-exact.numerator // exact.denominator)
    assert reason(terms(stop=pct), -least) == "stop_loss"
    assert reason(terms(stop=pct), -least + 1) is None


@pytest.mark.parametrize("peak", [1, 10**6, 10**9])
def test_trailing_stop_fires_on_the_very_lamport(peak: int) -> None:
    """Trailing stop fires when the profit has come down from its peak by at least entry x trailing%."""
    exact = ENTRY * Fraction(10) / 100
    least = -(-exact.numerator // exact.denominator)
    assert reason(terms(trailing=10), peak - least, peak) == "trailing_stop"
    assert reason(terms(trailing=10), peak - least + 1, peak) is None


def test_trailing_stop_needs_a_profit_first() -> None:
    """A position that was never in profit has no peak to trail, however deep it falls."""
    assert reason(terms(trailing=1), -ENTRY, peak=0) is None


def test_a_percentage_means_its_decimal_text() -> None:
    """0.1 % of 1000 is 1, although the binary number nearest to 0.1 is larger than a tenth."""
    assert reason(terms(target=0.1), 1, entry=1_000) == "target_profit"


def test_zero_switches_off() -> None:
    """A strategy of zeros never fires; nor does any strategy on a position that cost nothing."""
    assert reason(terms(), 10**18) is None
    assert reason(terms(), -(10**18)) is None
    assert reason(terms(1, 1, 1), 10, entry=0) is None


def test_a_ladder_replaces_target_profit() -> None:
    """With ladder levels the target percentage is not looked at."""
    ladder = Strategy(Fraction(5), Fraction(0), take_profit_levels=(Level(Fraction(50), Fraction(50)),))
    assert reason(ladder, ENTRY) is None


def test_a_watch_fires_once_until_the_strategy_changes() -> None:
    """The reason that fired stays; the same strategy again does not arm it, another one does."""
    watch = Watch(terms(target=10)).observe(100, 10)
    assert watch.fired == "target_profit"
    assert watch.observe(100, -90).fired == "target_profit"
    assert watch.with_strategy(terms(target=10)).fired == "target_profit"
    again = watch.with_strategy(terms(stop=50))
    assert again.fired is None
    assert again.observe(100, -50).fired == "stop_loss"


def test_the_peak_survives_a_change_of_strategy_and_shrinks_with_the_position() -> None:
    """A trailing stop that comes later trails the best profit seen, and a partial sale scales it."""
    watch = Watch(terms(target=900)).observe(1_000, 400)
    assert watch.with_strategy(terms(trailing=30)).observe(1_000, 100).fired == "trailing_stop"
    assert watch.scaled(1, 4).peak_profit == 100


@given(
    st.integers(1, 10**15),
    st.integers(-(10**15), 10**15),
    st.floats(0.001, 1e6),
    st.floats(0.001, 100),
)
def test_conditions_agree_with_exact_arithmetic(entry: int, profit: int, target: float, stop: float) -> None:
    """Whatever the numbers, the answer is that of exact rational arithmetic on the decimal text."""
    found = exit_reason(terms(target, stop), entry=entry, profit=profit, peak_profit=max(0, profit))
    if Fraction(profit) >= entry * Fraction(str(target)) / 100:
        assert found == "target_profit"
    elif Fraction(-profit) >= entry * Fraction(str(stop)) / 100:
        assert found == "stop_loss"
    else:
        assert found is None
