"""The position table: identity by wallet and account, balances, late closes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from lasersell_sync import BalanceUpdate, ExitSignalWithTx, MarketContext, PositionClosed, PositionOpened
from lasersell_sync.positions import OwnSales, PositionHandle, PositionKey
from lasersell_sync.session import position_table as table_module
from lasersell_sync.session.position_table import PositionTable


def opened(position_id: int, account: str, mint: str = "m", entry: int = 1, **more: Any) -> PositionOpened:
    return PositionOpened(
        position_id=position_id,
        wallet_pubkey="w",
        mint=mint,
        token_account=account,
        tokens=10,
        entry_quote_units=entry,
        slot=1,
        **more,
    )


def exit_signal(
    position_id: int, account: str | None, *, mint: str = "m", wallet: str = "w", **more: Any
) -> ExitSignalWithTx:
    return ExitSignalWithTx(
        session_id=1,
        position_id=position_id,
        wallet_pubkey=wallet,
        mint=mint,
        token_account=account,
        position_tokens=10,
        profit_units=1,
        reason="r",
        triggered_at_ms=1,
        unsigned_tx_b64="AAAA",
        **more,
    )


def closed(position_id: int, account: str | None) -> PositionClosed:
    return PositionClosed(
        position_id=position_id, wallet_pubkey="w", mint="m", token_account=account, reason="r", slot=1
    )


def balance(tokens: int, account: str | None = None, mint: str = "m") -> BalanceUpdate:
    return BalanceUpdate(wallet_pubkey="w", mint=mint, token_account=account, tokens=tokens, slot=1)


def test_a_position_announced_again_gets_a_new_handle_and_keeps_its_place() -> None:
    """Under the same id; a new id, another wallet or account, or other watching is for ``opened`` to take in."""
    table = PositionTable()
    assert table.announced_again(opened(1, "a")) is None
    table.opened(opened(1, "a"))
    table.opened(opened(2, "b"))
    again = table.announced_again(opened(1, "a", token_name="named"))
    assert again is not None
    assert (again.token_name, table.find(1), table.live_handles.get(1)) == ("named", again, again)
    assert [handle.position_id for handle in table.handles()] == [1, 2]
    for other in (opened(3, "a"), opened(1, "b"), opened(1, "a", watched=True)):
        assert table.announced_again(other) is None
    assert table.find(1) is again
    table.mark_stale({again.key})
    live_handles = table.announced_again(opened(1, "a"))
    assert live_handles is not None
    assert table.live_handles.get(1) is live_handles


def test_a_new_id_replaces_the_old_one_of_the_same_account() -> None:
    """One account, one position."""
    table = PositionTable()
    table.opened(opened(1, "a"))
    table.opened(opened(2, "a"))
    assert [handle.position_id for handle in table.handles()] == [2]
    assert table.find(1) is None
    found = table.by_key(PositionKey("w", "a"))
    assert found is not None
    assert found.position_id == 2


def test_balance_by_account_else_by_a_unique_mint() -> None:
    """Two accounts of one mint: a balance without an account is of neither."""
    table = PositionTable()
    table.opened(opened(1, "a"))
    changed = table.balance(balance(4))
    assert changed is not None
    assert changed.tokens == 4
    table.opened(opened(2, "b"))
    assert table.balance(balance(5)) is None
    changed = table.balance(balance(6, "b"))
    assert changed is not None
    assert (changed.position_id, changed.tokens) == (2, 6)
    assert table.balance(balance(7, "stranger")) is None
    table.closed(closed(2, "b"))
    changed = table.balance(balance(8))
    assert changed is not None
    assert (changed.position_id, changed.tokens) == (1, 8)


def test_a_balance_says_that_a_stale_position_lives() -> None:
    """Whether it changed or not; nothing else of the handle does."""
    table = PositionTable()
    first = table.opened(opened(1, "a", token_name="named")).handle
    for tokens in (10, 4):
        (stale,) = table.mark_stale({first.key})
        assert stale == attrs.evolve(first, tokens=stale.tokens, stale=True)
        assert table.live_handles.get(1) is None
        heard = table.balance(balance(tokens, "a"))
        assert heard == attrs.evolve(first, tokens=tokens, stale=False)
        assert table.live_handles.get(1) is heard


def test_close_by_id_by_account_and_of_strangers() -> None:
    """Each returns the last handle or None; the id is remembered as closed until it opens again."""
    table = PositionTable()
    table.opened(opened(1, "a"))
    last = table.closed(closed(99, "a"))
    assert last is not None
    assert last.position_id == 1
    assert table.was_closed(1)
    assert table.was_closed(99)
    assert table.closed(closed(5, None)) is None
    assert not table.was_closed(6)
    table.opened(opened(1, "a"))
    assert not table.was_closed(1)


# ── ids that mean another position ───────────────────────────────────────────────────────────────────────────────


class Told:
    """A table that records the contradictions it finds."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str | None]] = []
        self.table = PositionTable(on_contradiction=lambda _, *where: self.problems.append(where))


def ids_of(table: PositionTable) -> dict[str, int | None]:
    """Token account to id; None for one whose id names another position, or nothing."""
    return {
        handle.token_account: handle.position_id if table.find(handle.position_id) is handle else None
        for handle in table.handles()
    }


def test_an_id_taken_over_on_one_connection_names_its_new_owner_and_is_reported() -> None:
    rig = Told()
    table = rig.table
    table.opened(opened(1, "a"))
    announced = table.opened(opened(1, "b"))
    assert announced.ousted is not None
    assert announced.ousted.token_account == "a"
    assert rig.problems == [(1, "b")]
    assert ids_of(table) == {"a": None, "b": 1}
    assert not table.has_id(("w", "a"))
    assert table.has_id(("w", "b"))
    changed = table.balance(balance(0, "a"))
    assert changed is not None
    assert (changed.token_account, changed.tokens) == ("a", 0)
    assert table.live_handles.get(1) is table.by_key(("w", "b"))
    last = table.closed(closed(1, None))
    assert last is not None
    assert last.token_account == "b"
    assert ids_of(table) == {"a": None}
    assert table.live_handles.get(1) is None


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_ids_permuted_over_a_reconnect_keep_every_position(order: tuple[int, ...]) -> None:
    rig = Told()
    for position_id, account in enumerate("abc", 1):
        rig.table.opened(opened(position_id, account))
    rig.table.new_connection()
    assert ids_of(rig.table) == {"a": None, "b": None, "c": None}
    for position_id, account in zip(order, "abc", strict=True):
        announced = rig.table.opened(opened(position_id, account))
        assert (announced.known is not None, announced.ousted) == (True, None)
    assert ids_of(rig.table) == dict(zip("abc", order, strict=True))
    assert rig.problems == []


def test_an_old_id_names_nothing_until_its_position_is_found_missing() -> None:
    """A server that announces nothing again goes on under the old ids, but not under one that another position has."""
    table = PositionTable()
    first, second = table.opened(opened(1, "a")).handle, table.opened(opened(2, "b")).handle
    table.new_connection()
    assert table.find(1) is None
    table.opened(opened(2, "c"))
    stale = table.mark_stale({first.key, second.key})
    assert [handle.stale for handle in stale] == [True, True]
    assert ids_of(table) == {"a": 1, "b": None, "c": 2}
    # Its own account says so after all: not a contradiction, for nothing was announced on this connection.
    assert table.opened(opened(1, "d")).ousted is not None


@pytest.mark.parametrize("known", [True, False])
def test_close_and_exit_that_name_another_account_are_about_that_account(known: bool) -> None:
    """The id's owner stays; the contradiction is reported."""
    rig = Told()
    rig.table.opened(opened(1, "a"))
    if known:
        rig.table.opened(opened(2, "b"))
    found = rig.table.exit_of(exit_signal(1, "b"))
    assert found is (rig.table.find(2) if known else None)
    last = rig.table.closed(closed(1, "b"))
    assert last is found
    assert rig.problems == [(1, "b"), (1, "b")]
    assert ids_of(rig.table) == {"a": 1}
    assert not rig.table.was_closed(1)


def test_exit_without_an_account_is_the_owners_only_if_wallet_and_mint_agree() -> None:
    rig = Told()
    handle = rig.table.opened(opened(1, "a")).handle
    assert rig.table.exit_of(exit_signal(1, None)) is handle
    assert rig.table.exit_of(exit_signal(1, None, mint="other")) is None
    assert rig.table.exit_of(exit_signal(1, None, wallet="other")) is None
    assert rig.table.exit_of(exit_signal(2, None)) is None
    assert len(rig.problems) == 2


def test_exit_without_an_account_before_the_announcement_finds_the_only_position_of_its_mint() -> None:
    table = PositionTable()
    table.opened(opened(1, "a"))
    table.new_connection()
    found = table.exit_of(exit_signal(1, None))
    assert found is not None
    assert found.token_account == "a"
    assert table.exit_of(exit_signal(2, None)) is None
    table.opened(opened(5, "b"))
    assert table.exit_of(exit_signal(1, None)) is None


def test_exit_under_an_unknown_id_is_found_by_its_account() -> None:
    table = PositionTable()
    handle = table.opened(opened(1, "a")).handle
    assert table.exit_of(exit_signal(77, "a")) is handle
    assert table.exit_of(exit_signal(77, "b")) is None
    assert table.exit_of(exit_signal(77, "a", wallet="other")) is None


# ── openings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_opening_replaces_the_position_and_moves_to_the_end() -> None:
    table = PositionTable()
    first = table.opened(opened(1, "a", opened_at_ms=7)).handle
    table.opened(opened(2, "b"))
    announced = table.opened(opened(1, "a", opened_at_ms=8))
    assert (announced.replaced, announced.known) == (first, None)
    assert [handle.token_account for handle in table.handles()] == ["b", "a"]
    assert table.live_handles.get(1) is announced.handle


def test_a_moment_that_is_not_named_again_is_kept() -> None:
    table = PositionTable()
    table.opened(opened(1, "a", opened_at_ms=7))
    again = table.opened(opened(1, "a"))
    assert again.known is not None
    assert again.handle.opened_at_ms == 7
    assert table.opened(opened(1, "a", opened_at_ms=8)).replaced is again.handle


def test_a_smaller_entry_after_a_part_was_sold_is_the_same_opening() -> None:
    sales = OwnSales()
    table = PositionTable(sales)
    first = table.opened(opened(1, "a")).handle
    sales.signalled(first.key, exit_signal(1, "a", sell_tokens=4), 0)
    sales.balance(first.key, 6)
    assert table.opened(opened(1, "a", entry=0)).known is first
    sales.forget(first.key)
    assert table.opened(opened(1, "a", entry=1)).known is None


def test_the_memory_of_closed_ids_is_bounded(monkeypatch: Any) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr(table_module, "REMEMBERED_CLOSED", 3)
    table = PositionTable()
    for n in range(5):
        table.closed(closed(n, None))
    assert [table.was_closed(n) for n in range(5)] == [False, False, True, True, True]


def test_a_handle_has_the_values_of_its_announcement() -> None:
    """Every field that both have, each with a value of its own: none is in another's place."""
    shared = {"position_id", "tokens", "entry_quote_units", "token_decimals", "token_price_quote", "market_cap_quote"}
    shared |= {"pool_liquidity_quote", "opened_at_ms", "slot"}
    texts = {"token_account", "wallet_pubkey", "mint", "token_program", "token_name", "token_symbol", "mirror_source"}
    values: dict[str, Any] = {name: number for number, name in enumerate(sorted(shared), 100)}
    values |= {name: name for name in texts}
    context = MarketContext(market_type="pump_swap")
    message = PositionOpened(**values, watched=True, market_context=context)
    handle = PositionTable().opened(message).handle
    assert attrs.asdict(handle) == {
        **values,
        "watched": True,
        "market_type": "pump_swap",
        "stale": False,
        "quote_currency": "SOL",
    }
    assert handle == PositionHandle(**attrs.asdict(handle))
