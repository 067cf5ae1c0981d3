"""Every condition of docs/protocol.md 6, to the lamport, and the ladder to the token."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasersell_sync.sandbox.protocol.exit_conditions import Exit, Level, Readings, Strategy, Watch, exact_pct

ENTRY = 1_000_000_007
#: A pool that takes anything.
DEEP = 2**64
TOKENS = 1_000_003


def terms(target: float = 0, stop: float = 0, trailing: float = 0, **more: object) -> Strategy:
    if "breakeven_trail_pct" in more:
        more["breakeven_trail_pct"] = exact_pct(float(str(more["breakeven_trail_pct"])))
    return Strategy(exact_pct(target), exact_pct(stop), exact_pct(trailing), **more)  # type: ignore[arg-type]


def ladder(*levels: tuple[float, ...], **more: object) -> Strategy:
    rungs = tuple(Level(*(exact_pct(number) for number in level)) for level in levels)
    return terms(take_profit_levels=rungs, **more)  # type: ignore[arg-type]


def look(
    watch: Watch, profit: int, *, entry: int = ENTRY, tokens: int = TOKENS, absorbed: int = DEEP
) -> tuple[Watch, tuple[Exit, ...]]:
    return watch.observe(entry, profit, tokens=tokens, absorbed=absorbed)


def reason(strategy: Strategy, profit: int, peak: int = 0, entry: int = ENTRY) -> str | None:
    """The one reason a strategy gives for selling everything at a profit, after a peak."""
    watch, exits = look(Watch(strategy, peak_profit=peak), profit, entry=entry)
    assert [Exit(watch.fired)] == list(exits) if watch.fired else exits == ()
    return watch.fired


def least(pct: float, entry: int = ENTRY) -> int:
    """The least amount that is at least ``pct`` percent of the entry."""
    exact = entry * Fraction(str(pct)) / 100
    return -(-exact.numerator // exact.denominator)


# -- selling everything


@pytest.mark.parametrize("pct", [0.1, 5, 12.5, 33.3, 100, 1e-6])
def test_target_profit_fires_on_the_very_lamport(pct: float) -> None:
    """Target profit fires at the least profit that is at least entry x target%, and not one lamport earlier."""
    assert reason(terms(target=pct), least(pct)) == "target_profit"
    assert reason(terms(target=pct), least(pct) - 1) is None


@pytest.mark.parametrize("pct", [0.1, 5, 12.5, 33.3, 100])
def test_stop_loss_fires_on_the_very_lamport(pct: float) -> None:
    """Stop loss fires at the least loss that is at least entry x stop%, and not one lamport earlier."""
    assert reason(terms(stop=pct), -least(pct)) == "stop_loss"
    assert reason(terms(stop=pct), -least(pct) + 1) is None


@pytest.mark.parametrize("peak", [1, 10**6, 10**9])
def test_trailing_stop_fires_on_the_very_lamport(peak: int) -> None:
    """Trailing stop fires when the profit has come down from its peak by at least entry x trailing%."""
    assert reason(terms(trailing=10), peak - least(10), peak) == "trailing_stop"
    assert reason(terms(trailing=10), peak - least(10) + 1, peak) is None


def test_trailing_stop_needs_a_profit_first() -> None:
    """A position that was never in profit has no peak to trail, however deep it falls."""
    assert reason(terms(trailing=1), -ENTRY, peak=0) is None


@pytest.mark.parametrize("pct", [0.1, 7, 33.3])
def test_breakeven_is_armed_on_the_very_lamport(pct: float) -> None:
    """Once the profit has reached entry x breakeven%, the stop stands at zero profit; one lamport less arms nothing."""
    strategy = terms(breakeven_trail_pct=pct)
    almost, _ = look(Watch(strategy), least(pct) - 1)
    assert look(almost, 0)[1] == ()
    assert look(almost, -ENTRY)[1] == ()
    armed, exits = look(Watch(strategy), least(pct))
    assert exits == ()
    assert look(armed, 1)[1] == ()
    assert look(armed, 0)[1] == (Exit("breakeven_trail"),)


def test_breakeven_leaves_the_stop_loss_its_name() -> None:
    """Before breakeven is armed the stop loss stands where it stood; after it, a fall through both is the stop's."""
    strategy = terms(stop=10, breakeven_trail_pct=5)
    assert reason(strategy, -least(10)) == "stop_loss"
    armed, _ = look(Watch(strategy), least(5))
    assert look(armed, -1)[1] == (Exit("breakeven_trail"),)
    assert look(armed, -least(10))[1] == (Exit("stop_loss"),)


def test_one_reason_when_several_hold() -> None:
    """However many conditions hold at once, one exit is told."""
    strategy = terms(target=1, stop=1, trailing=1, breakeven_trail_pct=1)
    watch, exits = look(Watch(strategy, peak_profit=ENTRY), -ENTRY)
    assert exits == (Exit("stop_loss"),)
    assert look(watch, ENTRY)[1] == ()
    assert watch.graduated()[1] == ()


def test_graduation_sells_if_asked_to() -> None:
    """Graduation fires once, for strategies that want it, and not after another exit."""
    watch, exits = Watch(terms(sell_on_graduation=True)).graduated()
    assert exits == (Exit("graduation"),)
    assert watch.graduated()[1] == ()
    assert Watch(terms(target=5)).graduated()[1] == ()


def test_a_percentage_means_its_decimal_text() -> None:
    """0.1 % of 1000 is 1, although the binary number nearest to 0.1 is larger than a tenth."""
    assert reason(terms(target=0.1), 1, entry=1_000) == "target_profit"


def test_zero_switches_off() -> None:
    """A strategy of zeros never fires; nor does any strategy on a position that cost nothing."""
    assert reason(terms(), 10**18) is None
    assert reason(terms(), -(10**18)) is None
    assert reason(terms(1, 1, 1, breakeven_trail_pct=1), 10, entry=0) is None
    assert look(Watch(ladder((1, 50))), 10, entry=0)[1] == ()


# -- the ladder


def test_a_ladder_replaces_target_profit() -> None:
    """With ladder levels the target percentage is not looked at."""
    rungs = (Level(Fraction(50), Fraction(50)),)
    watch, exits = look(Watch(terms(target=5, take_profit_levels=rungs)), least(50) - 1)
    assert (watch.fired, exits) == (None, ())


@pytest.mark.parametrize("pct", [0.1, 12.5, 33.3])
def test_a_level_fires_on_the_very_lamport(pct: float) -> None:
    """A level sells its share of the tokens, rounded down, at the least profit that reaches it, and once."""
    watch = Watch(ladder((pct, 12.5), (900, 100)))
    assert look(watch, least(pct) - 1)[1] == ()
    watch, exits = look(watch, least(pct))
    assert exits == (Exit("chained_tp", TOKENS * 125 // 1_000, 0),)
    assert look(watch, least(pct))[1] == ()


def test_levels_sell_shares_of_what_is_left() -> None:
    """Each level takes its percentage of the remaining tokens, the last one of 100 % everything."""
    watch = Watch(ladder((10, 50), (20, 50), (30, 100)))
    watch, first = look(watch, 100, entry=1_000, tokens=800)
    assert first == (Exit("chained_tp", 400, 0),)
    watch = watch.scaled(400, 800)
    watch, second = look(watch, 100, entry=500, tokens=400)
    assert second == (Exit("chained_tp", 200, 1),)
    watch = watch.scaled(200, 400)
    assert look(watch, 75, entry=250, tokens=200)[1] == (Exit("chained_tp", 200, 2),)


def test_levels_never_sell_the_same_tokens_twice() -> None:
    """A jump over several levels fires all of them, each on what the ones below leave, sold yet or not."""
    watch, exits = look(Watch(ladder((10, 25), (20, 50), (30, 100))), 300, entry=1_000, tokens=800)
    assert [(item.level_index, item.sell_tokens) for item in exits] == [(0, 200), (1, 300), (2, 300)]
    # One tick later, with nothing landed, there is nothing more to sell.
    assert look(watch, 900, entry=1_000, tokens=800)[1] == ()


def test_a_stop_sells_everything_whatever_the_ladder_did() -> None:
    """The conditions that sell everything stand beside the ladder and end it."""
    watch, _ = look(Watch(ladder((10, 50), (20, 50), stop=5)), 100, entry=1_000)
    watch, exits = look(watch, -50, entry=1_000)
    assert exits == (Exit("stop_loss"),)
    assert look(watch, 10_000, entry=1_000)[1] == ()


def test_a_level_may_bring_its_own_trailing_stop() -> None:
    """A level's trailing stop replaces the strategy's from there on; 0 leaves what was."""
    strategy = ladder((10, 10, 3), (20, 10, 0), trailing=50)
    watch, _ = look(Watch(strategy), 100, entry=1_000)
    assert look(watch, 71, entry=1_000)[1] == ()
    assert look(watch, 70, entry=1_000)[1] == (Exit("trailing_stop"),)
    watch, _ = look(watch, 200, entry=1_000)
    assert look(watch, 171, entry=1_000)[1] == ()
    assert look(watch, 170, entry=1_000)[1] == (Exit("trailing_stop"),)


def test_the_liquidity_guard_moves_what_the_pool_cannot_take_to_later_levels() -> None:
    """A guarded level sells what the pool absorbs; the rest comes on top of the next level's share."""
    watch = Watch(ladder((10, 50), (20, 10), liquidity_guard=True))
    watch, exits = look(watch, 100, entry=1_000, tokens=1_000, absorbed=120)
    assert exits == (Exit("chained_tp", 120, 0),)
    watch = watch.scaled(880, 1_000)
    watch, exits = look(watch, 200, entry=880, tokens=880, absorbed=10_000)
    assert exits == (Exit("chained_tp", 88 + 380, 1),)


def test_a_guarded_level_in_an_empty_pool_sells_nothing() -> None:
    """A pool that takes nothing gets no signal; the level is spent all the same and its tokens wait."""
    watch, exits = look(
        Watch(ladder((10, 50), (20, 1), liquidity_guard=True)), 100, entry=1_000, tokens=1_000, absorbed=0
    )
    assert (exits, watch.next_level, watch.carried_tokens) == ((), 1, 500)


def test_the_guard_counts_levels_of_one_tick_together() -> None:
    """Two levels reached at once share what the pool absorbs."""
    _, exits = look(
        Watch(ladder((10, 50), (20, 50), liquidity_guard=True)), 300, entry=1_000, tokens=1_000, absorbed=600
    )
    assert [item.sell_tokens for item in exits] == [500, 100]


# -- over time


def test_a_watch_fires_once_until_the_strategy_changes() -> None:
    """The reason that fired stays; the same strategy again does not arm it, another one does."""
    watch, _ = look(Watch(terms(target=10)), 10, entry=100)
    assert watch.fired == "target_profit"
    assert look(watch, -90, entry=100) == (watch, ())
    assert watch.with_strategy(terms(target=10)).fired == "target_profit"
    again = watch.with_strategy(terms(stop=50))
    assert again.fired is None
    assert look(again, -50, entry=100)[0].fired == "stop_loss"


def test_the_peak_survives_a_change_of_strategy_and_shrinks_with_the_position() -> None:
    """A trailing stop or a breakeven that comes later knows the best profit seen, and a partial sale scales it."""
    watch, _ = look(Watch(terms(target=900)), 400, entry=1_000)
    assert look(watch.with_strategy(terms(trailing=30)), 100, entry=1_000)[0].fired == "trailing_stop"
    assert look(watch.with_strategy(terms(breakeven_trail_pct=40)), 0, entry=1_000)[0].fired == "breakeven_trail"
    assert look(watch.with_strategy(terms(breakeven_trail_pct=41)), 0, entry=1_000)[0].fired is None
    assert watch.scaled(1, 4).peak_profit == 100


def test_a_ladder_goes_on_through_a_change_beside_it() -> None:
    """Another stop leaves the rungs where they are; another ladder starts at its bottom."""
    watch, _ = look(Watch(ladder((10, 50), (20, 50))), 100, entry=1_000)
    assert look(watch.with_strategy(ladder((10, 50), (20, 50), stop=5)), 150, entry=1_000)[1] == ()
    started, exits = look(watch.with_strategy(ladder((15, 10))), 150, entry=1_000, tokens=1_000_003)
    assert [item.level_index for item in exits] == [0]
    assert started.next_level == 1


@given(st.integers(1, 10**15), st.integers(-(10**15), 10**15), st.floats(0.001, 1e6), st.floats(0.001, 100))
def test_conditions_agree_with_exact_arithmetic(entry: int, profit: int, target: float, stop: float) -> None:
    """Whatever the numbers, the answer is that of exact rational arithmetic on the decimal text."""
    found = reason(terms(target, stop), profit, entry=entry)
    if Fraction(profit) >= entry * Fraction(str(target)) / 100:
        assert found == "target_profit"
    elif Fraction(-profit) >= entry * Fraction(str(stop)) / 100:
        assert found == "stop_loss"
    else:
        assert found is None


@given(
    st.integers(1, 10**12),
    st.lists(st.integers(1, 100), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 10**12), st.booleans()), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_ladder_never_sells_more_than_there_is(
    tokens: int, shares: list[int], ticks: list[tuple[int, bool]], guard: bool
) -> None:
    """Whatever the pool absorbs and whether sales land or not, the rungs together sell at most the position."""
    watch = Watch(ladder(*((10 * (n + 1), share) for n, share in enumerate(shares)), liquidity_guard=guard))
    left, asked = tokens, 0
    for number, (absorbed, lands) in enumerate(ticks):
        watch, exits = look(watch, 100 * (number + 1), entry=1_000, tokens=left, absorbed=absorbed)
        now = sum(item.sell_tokens or 0 for item in exits)
        asked += now
        if guard:
            assert now <= absorbed
        if lands and left > watch.pending_tokens > 0:
            sold = watch.pending_tokens
            watch, left = watch.scaled(left - sold, left), left - sold
    assert asked <= tokens


# -- conditions on which the official sources disagree


def test_trail_from_level_level_starts_a_trailing_stop_and_sells_nothing() -> None:
    """As the strategy page reads it: the level does not sell; its trailing stop, or the target as a cap, sells all."""
    readings = Readings(trail_from_level=True)
    watch = Watch(ladder((10, 50, 5), (20, 50), target=30))

    def seen(at: Watch, pct: float) -> tuple[Watch, tuple[Exit, ...]]:
        return at.observe(ENTRY, least(pct), tokens=TOKENS, absorbed=DEEP, readings=readings)

    above, exits = seen(watch, 10)
    assert (exits, above.next_level, above.pending) == ((), 1, ())
    _, exits = seen(above, 4.9)
    assert exits == (Exit("trailing_stop"),)
    sold, exits = seen(above, 20)
    assert exits == (Exit("chained_tp", TOKENS // 2, 1),)
    _, exits = seen(sold, 30)
    assert exits == (Exit("target_profit"),)
    crate, exits = look(watch, least(10))
    assert exits == (Exit("chained_tp", TOKENS // 2, 0),)
    assert look(crate, least(30))[1] == (Exit("chained_tp", (TOKENS - TOKENS // 2) // 2, 1),)


def test_breakeven_below_entry_fires_two_percent_lower() -> None:
    """Once armed, the stop lies 2 % under the entry, to the lamport."""
    readings = Readings(breakeven_margin_pct=Fraction(2))
    watch, _ = look(Watch(terms(breakeven_trail_pct=10)), least(10))
    for profit, exits in ((0, ()), (1 - least(2), ()), (-least(2), (Exit("breakeven_trail"),))):
        assert watch.observe(ENTRY, profit, tokens=TOKENS, absorbed=DEEP, readings=readings)[1] == exits
    assert look(watch, 0)[1] == (Exit("breakeven_trail"),)


def test_liquidity_guard_deferring_waits_for_the_whole_level() -> None:
    """A level that the pool cannot take whole waits, and is sold whole when the pool can."""
    readings = Readings(liquidity_guard="defer")
    watch = Watch(ladder((10, 50), (20, 50), liquidity_guard=True))
    half = TOKENS // 2
    waiting, exits = watch.observe(ENTRY, least(15), tokens=TOKENS, absorbed=half - 1, readings=readings)
    assert (exits, waiting.next_level) == ((), 0)
    _, exits = waiting.observe(ENTRY, least(15), tokens=TOKENS, absorbed=half, readings=readings)
    assert exits == (Exit("chained_tp", half, 0),)


def test_liquidity_guard_exiting_sells_when_the_pool_takes_half() -> None:
    """Everything is sold once the pool takes at most half of the most it ever took; without the guard never."""
    readings = Readings(liquidity_guard="exit")
    for guarded in (True, False):
        watch = Watch(terms(stop=90, liquidity_guard=guarded))
        for absorbed, exits in ((800, ()), (1_000, ()), (501, ()), (500, (Exit("liquidity_guard"),))):
            watch, told = watch.observe(ENTRY, 0, tokens=TOKENS, absorbed=absorbed, readings=readings)
            assert told == (exits if guarded else ())
