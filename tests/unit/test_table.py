"""The position table: identity by wallet and account, balances, late closes."""

from __future__ import annotations

from typing import Any

import attrs

from lasersell_sync import BalanceUpdate, MarketContext, PositionClosed, PositionOpened
from lasersell_sync.positions import PositionHandle, PositionKey
from lasersell_sync.session import table as table_module
from lasersell_sync.session.table import PositionTable


def opened(position_id: int, account: str, mint: str = "m", **more: Any) -> PositionOpened:
    return PositionOpened(
        position_id=position_id,
        wallet_pubkey="w",
        mint=mint,
        token_account=account,
        tokens=10,
        entry_quote_units=1,
        slot=1,
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
    assert (again.token_name, table.find(1), table.fresh.get(1)) == ("named", again, again)
    assert [handle.position_id for handle in table.handles()] == [1, 2]
    for other in (opened(3, "a"), opened(1, "b"), opened(1, "a", watched=True)):
        assert table.announced_again(other) is None
    assert table.find(1) is again
    table.mark_stale({again.key})
    fresh = table.announced_again(opened(1, "a"))
    assert fresh is not None
    assert table.fresh.get(1) is fresh


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
    first = table.opened(opened(1, "a", token_name="named"))
    for tokens in (10, 4):
        (stale,) = table.mark_stale({first.key})
        assert stale == attrs.evolve(first, tokens=stale.tokens, stale=True)
        assert table.fresh.get(1) is None
        heard = table.balance(balance(tokens, "a"))
        assert heard == attrs.evolve(first, tokens=tokens, stale=False)
        assert table.fresh.get(1) is heard


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


def test_find_falls_back_to_the_account() -> None:
    """An exit signal may carry an id we do not know yet."""
    table = PositionTable()
    table.opened(opened(1, "a"))
    found = table.find(77, "a")
    assert found is not None
    assert found.position_id == 1
    assert table.find(77, "b") is None


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
    handle = PositionTable().opened(message)
    assert attrs.asdict(handle) == {
        **values,
        "watched": True,
        "market_type": "pump_swap",
        "stale": False,
        "quote_currency": "SOL",
    }
    assert handle == PositionHandle(**attrs.asdict(handle))
