"""The definition of an opening, case by case."""

from __future__ import annotations

import pytest

from lasersell_sync import ExitSignalWithTx
from lasersell_sync.positions import EXIT_UNDER_WAY_S, Opening, OwnSales, is_same_opening


@pytest.mark.parametrize("facts", [{}, {"was_closed": True}, {"part_landed": True}, {"exit_under_way": True}])
@pytest.mark.parametrize("entry", [50, 100, 150])
def test_opening_both_moments_named_moments_decide(entry: int, facts: dict[str, bool]) -> None:
    known = Opening(100, 7)
    assert is_same_opening(known, Opening(entry, 7), **facts)
    assert not is_same_opening(known, Opening(entry, 8), **facts)
    # 0 is a moment like any other.
    assert not is_same_opening(Opening(100, 0), Opening(entry, 7), **facts)


@pytest.mark.parametrize("moments", [(None, None), (7, None), (None, 7)])
@pytest.mark.parametrize(
    ("entry", "facts", "same"),
    [
        (100, {}, True),
        (150, {}, False),
        (50, {}, False),
        (50, {"part_landed": True}, True),
        (150, {"part_landed": True}, False),
        (150, {"exit_under_way": True}, True),
        (50, {"exit_under_way": True}, True),
        (100, {"was_closed": True}, False),
        (50, {"was_closed": True, "part_landed": True}, False),
        (50, {"was_closed": True, "exit_under_way": True}, False),
    ],
)
def test_opening_moment_not_named_close_entry_and_own_sales_decide(
    moments: tuple[int | None, int | None], entry: int, facts: dict[str, bool], same: bool
) -> None:
    assert is_same_opening(Opening(100, moments[0]), Opening(entry, moments[1]), **facts) is same


# ── what exit signals and balances say ───────────────────────────────────────────────────────────────────────────

KEY = ("wallet", "account")


def signal(position_tokens: int = 10, sell_tokens: int | None = None) -> ExitSignalWithTx:
    return ExitSignalWithTx(
        session_id=1, position_id=1, wallet_pubkey="wallet", mint="m", position_tokens=position_tokens, profit_units=1,
        reason="r", triggered_at_ms=1, unsigned_tx_b64="AAAA", sell_tokens=sell_tokens,
    )  # fmt: skip


@pytest.mark.parametrize("sell_tokens", [None, 4, 10])
def test_own_sales_signalled_exit_is_under_way_until_it_lands_or_its_time_is_over(sell_tokens: int | None) -> None:
    now = [5]
    sales = OwnSales(lambda: now[0])
    assert sales.of(KEY, 10) == (False, False)
    sales.signalled(KEY, signal(sell_tokens=sell_tokens), now[0])
    assert sales.of(KEY, 10) == (False, True)
    assert sales.of(("other", "account"), 10) == (False, False)
    now[0] += int(EXIT_UNDER_WAY_S * 1e9)
    assert sales.of(KEY, 10) == (False, False)
    now[0] -= 1
    sales.balance(KEY, 10)
    assert sales.of(KEY, 10) == (False, True)
    sales.balance(KEY, 6)
    assert sales.of(KEY, 6) == (sell_tokens == 4, False)
    sales.forget(KEY)
    assert sales.of(KEY, 6) == (False, False)
    assert not sales.known


def test_own_sales_part_that_landed_stays_landed_through_the_next_signal() -> None:
    sales = OwnSales(lambda: 0)
    sales.signalled(KEY, signal(sell_tokens=4), 0)
    # No balance came; the next signal names fewer tokens.
    sales.signalled(KEY, signal(position_tokens=6, sell_tokens=3), 0)
    assert sales.of(KEY, 6) == (True, True)
    sales.signalled(KEY, signal(position_tokens=6), 0)
    assert sales.of(KEY, 6) == (True, True)


def test_own_sales_announced_with_fewer_tokens_a_part_has_landed() -> None:
    sales = OwnSales(lambda: 0)
    sales.signalled(KEY, signal(sell_tokens=4), 0)
    assert sales.of(KEY, 6)[0]
    assert not sales.of(KEY, 0)[0]
