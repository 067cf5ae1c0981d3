"""One of two sandbox nodes lies about a level's transaction: the level is sold once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.assertions import LedgerAssertions
from lasersell_sync.sandbox.servers.node_lies import NodeLies
from lasersell_sync.trading import close_rpc_connections
from tests.support.sellers import Trader
from tests.support.waiting import PATIENCE_S, until

#: Virtual milliseconds; a blockhash lives for 60,000.
LATE_MS = 25_000


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seed=1, speed=10.0, stream_port=0, api_port=0, rpc_port=0, rpc_nodes=2, router=False) as running:
        yield running
        close_rpc_connections()


class Questions:
    """Counts what the second node is asked."""

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._look = sandbox.faults.node_lies
        monkeypatch.setattr(sandbox.faults, "node_lies", self._counted)

    def _counted(self, number: int) -> NodeLies:
        self.count += number
        return self._look(number)


def test_level_that_one_of_two_nodes_calls_dead_is_sold_once(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That node calls the blockhash valid, jumps 500 blocks ahead, and lists no new transaction; then the level lands."""
    trader = Trader(sandbox, tmp_path)
    trader.register()
    ledger = LedgerAssertions(sandbox, timeout_s=PATIENCE_S)
    level = ls.TakeProfitLevel(profit_pct=10.0, sell_pct=30.0)
    targets = [ls.SendTargetRpc(sandbox.rpc_url)]
    questions = Questions(sandbox, monkeypatch)
    with (
        ls.TxSender(targets, rpcs=sandbox.rpc_urls, poll_s=0.05, rebroadcast_s=0.5) as sender,
        trader.session(take_profit_levels=(level,)) as session,
        trader.seller(session, sender=sender),
        ls.Journal(tmp_path / "sales.journal", read_only=True) as journal,
    ):
        trader.buy()
        session.wait_for("position_opened", PATIENCE_S)
        sandbox.faults.transactions("late", landing_delay_ms=LATE_MS)
        sandbox.set_price_multiplier(sandbox.mints[0], 1.15)
        until(lambda: [record for record in journal.exits() if record.state == "signed"])
        asked, landed_by_s = questions.count, sandbox.now_s + LATE_MS / 1_000 + 10
        until(lambda: questions.count > asked + 20)
        sandbox.faults.node(1, heights_ahead=500, stale_index_slots=600)
        (report,) = trader.wait_for_reports()
        assert (report.key.part, report.outcome) == ("level 0", ls.SellOutcome.CONFIRMED)
        until(lambda: sandbox.now_s > landed_by_s)
    (sale,) = ledger.sales(trader.wallet)
    assert (sale.tokens, sale.signature) == (report.tokens, report.signature)
