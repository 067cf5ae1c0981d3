"""``GET /v1/history``: what it lists, in which order, and its numbers against the ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import PATIENCE_S, Trader, receive, signed, strategy


def history(trader: Trader, query: str = "") -> Any:
    answer = trader.http.get(f"{trader.sandbox.api_url}/v1/history{query}", headers=trader.headers, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sell(trader: Trader, mint: str, **changes: object) -> Any:
    answer = trader.post("/v1/sell", trader.sell_body(mint, **changes)).json()
    return trader.landed(trader.send(signed(answer["tx"], trader.wallet)))


@pytest.fixture
def make_routed(make_sandbox: Callable[..., Sandbox]) -> Callable[..., Sandbox]:
    def make(**options: Any) -> Sandbox:
        return make_sandbox(router=True, router_shape=1, **options)

    return make


def test_history_closed_trade_has_entry_and_exit_net_of_fees(make_routed: Any, make_trader: Any) -> None:
    """Entry and exit are what the wallet paid and got, the routing fees included; profit is their difference."""
    trader = make_trader(make_routed(tier=1)).register()
    trader.stream(strategy(target=500, stop=90, trailing=5))
    mint = trader.sandbox.mints[0]
    assert history(trader) == {"trades": [], "total": 0}
    bought = trader.landed(trader.buy(mint))
    trader.sandbox.wait_for(trader.sandbox.positions, PATIENCE_S)
    (running,) = history(trader)["trades"]
    assert (running["exit_quote_units"], running["profit_quote_units"], running["closed_at"]) == (None, None, None)
    sold = sell(trader, mint)
    (entry,) = history(trader)["trades"]
    paid, got = bought.swaps[0].net_lamports, sold.swaps[0].net_lamports
    assert bought.swaps[0].routing_fee > 0
    assert sold.swaps[0].routing_fee > 0
    assert entry["entry_quote_units"] == running["entry_quote_units"] == paid
    assert (entry["exit_quote_units"], entry["profit_quote_units"]) == (got, got - paid)
    assert entry["tokens"] == bought.swaps[0].tokens
    assert (entry["wallet_pubkey"], entry["mint"]) == (trader.pubkey, mint)
    assert (entry["exit_reason"], entry["id"]) == ("sold", running["id"])
    assert [entry[f"strategy_{name}_pct"] for name in ("target_profit", "stop_loss", "trailing_stop")] == [500, 90, 5]
    opened, closed = (datetime.fromisoformat(entry[name].replace("Z", "+00:00")) for name in ("opened_at", "closed_at"))
    assert opened.tzinfo is not None
    assert opened <= closed


def test_history_partial_sale_counts_all_that_was_bought(make_routed: Any, make_trader: Any) -> None:
    """Two sales of one position are one trade: its exit is their sum, and no profit is told before the end."""
    trader = make_trader(make_routed()).register()
    trader.stream(strategy(target=900))
    mint = trader.sandbox.mints[0]
    bought = trader.landed(trader.buy(mint))
    first = sell(trader, mint, amount_tokens=bought.swaps[0].tokens // 3)
    (part,) = history(trader)["trades"]
    assert (part["exit_quote_units"], part["profit_quote_units"]) == (first.swaps[0].net_lamports, None)
    second = sell(trader, mint)
    (whole,) = history(trader)["trades"]
    assert whole["exit_quote_units"] == first.swaps[0].net_lamports + second.swaps[0].net_lamports
    assert whole["entry_quote_units"] == bought.swaps[0].net_lamports
    assert whole["tokens"] == bought.swaps[0].tokens


def test_history_pages_newest_first_and_filters(make_sandbox: Any, make_trader: Any) -> None:
    """limit and offset page without overlap; mint and wallet filter; total counts what fits."""
    trader = make_trader(make_sandbox()).register()
    trader.stream(strategy(target=900))
    mints = trader.sandbox.mints[:3]
    for mint in (*mints, mints[0]):
        if trader.sandbox.token_balance(trader.pubkey, mint):
            sell(trader, mint)
        trader.landed(trader.buy(mint))
    everything = history(trader)["trades"]
    assert [entry["mint"] for entry in everything] == [mints[0], *reversed(mints)]
    assert history(trader)["total"] == 4
    pages = [history(trader, f"?limit=1&offset={offset}") for offset in range(5)]
    assert [entry for page in pages for entry in page["trades"]] == everything
    assert {page["total"] for page in pages} == {4}
    one = history(trader, f"?mint={mints[0]}")
    assert (len(one["trades"]), one["total"]) == (2, 2)
    assert history(trader, f"?wallet={trader.pubkey}&limit=200")["total"] == 4
    assert history(trader, f"?wallet={Keypair().pubkey()}") == {"trades": [], "total": 0}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "offset=-1", "mint=x", "wallet=0", "limit=1.0"])
def test_history_query_that_makes_no_sense_is_400(trader: Trader, query: str) -> None:
    """Each names the parameter."""
    answer = trader.http.get(f"{trader.sandbox.api_url}/v1/history?{query}", headers=trader.headers, timeout=PATIENCE_S)
    assert answer.status_code == 400
    assert query.split("=", maxsplit=1)[0] in answer.json()["error"]


def test_history_of_another_key_is_not_shown(make_sandbox: Any, make_trader: Any) -> None:
    """A key sees the positions of its own sessions; what closed while it was away is there when it asks."""
    sandbox = make_sandbox(api_keys=["second"])
    first = make_trader(sandbox).register()
    second = make_trader(sandbox, seed=2, api_key="second").register()
    socket = first.stream(strategy(target=900))
    first.landed(first.buy(sandbox.mints[0]))
    receive(socket, "position_opened")
    socket.close()
    assert sandbox.wait_for(lambda: not sandbox.sessions(), PATIENCE_S)
    sold = sell(first, sandbox.mints[0])
    (entry,) = history(first)["trades"]
    assert entry["exit_quote_units"] == sold.swaps[0].lamports
    assert entry["closed_at"] is not None
    assert history(second) == {"trades": [], "total": 0}
    assert first.http.get(f"{sandbox.api_url}/v1/history", timeout=PATIENCE_S).status_code == 401
