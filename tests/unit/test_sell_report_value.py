"""What a sale's report says about money: whose estimate, of which part, and when it says nothing."""

from __future__ import annotations

import attrs
import pytest

from lasersell_sync.autosell.services import SellTerms
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.selling import Rig, on_another_block


def signal(rig: Rig, profit_units: int, **more):
    another = on_another_block(rig.signal.unsigned_tx_b64)
    return attrs.evolve(rig.signal, profit_units=profit_units, unsigned_tx_b64=another, **more)


@pytest.mark.parametrize("profit_units", [70, -70, 0])
def test_sell_report_of_a_whole_position_has_the_signals_profit(profit_units: int):
    rig = Rig()
    rig.opened(1_000, quote_currency="USD1")
    rig.exit(signal(rig, profit_units, market_context=None))
    rig.settle(SellOutcome.CONFIRMED)
    (report,) = rig.reports
    assert (report.wallet, report.mint) == (rig.signal.wallet_pubkey, rig.signal.mint)
    assert (report.profit_units, report.proceeds_units, report.quote_currency) == (
        profit_units,
        1_000 + profit_units,
        "USD1",
    )


def test_sell_report_of_a_level_has_its_share():
    rig = Rig()
    rig.opened(1_000)
    tokens = rig.signal.position_tokens
    level = rig.level(0, tokens=tokens // 4)
    rig.settle(SellOutcome.CONFIRMED)
    (report,) = rig.reports
    assert report.profit_units == level.profit_units * (tokens // 4) // tokens
    assert report.proceeds_units == 1_000 * (tokens // 4) // tokens + report.profit_units


def test_sell_report_after_a_dead_transaction_has_the_newest_signals_profit():
    rig = Rig()
    rig.opened(1_000)
    rig.exit(signal(rig, 70))
    rig.settle(SellOutcome.FAILED_ONCHAIN)
    rig.exit(signal(rig, 30))
    rig.settle(SellOutcome.CONFIRMED)
    (report,) = rig.reports
    assert (report.profit_units, report.proceeds_units) == (30, 1_030)


def test_sell_report_without_an_announcement_has_no_proceeds():
    rig = Rig(terms=SellTerms(sell_unannounced=True))
    rig.exit(signal(rig, 70))
    rig.settle(SellOutcome.CONFIRMED)
    (report,) = rig.reports
    assert (report.profit_units, report.proceeds_units) == (70, None)


def test_sell_report_of_what_was_not_sold_has_no_value():
    rig = Rig()
    rig.opened(1_000)
    rig.exit(attrs.evolve(signal(rig, 70), unsigned_tx_b64="AAAA"))
    (report,) = rig.reports
    assert report.outcome is SellOutcome.REJECTED
    assert (report.profit_units, report.proceeds_units) == (None, None)


def test_sell_report_of_an_exit_that_an_earlier_process_sold_has_no_value():
    """What the signal said is not in the journal; a number of another moment would be worse than none."""
    rig = Rig()
    rig.opened(1_000)
    rig.exit(signal(rig, 70))
    signature = rig.sender.open[-1]
    rig.restart()
    rig.settle(SellOutcome.CONFIRMED, signature)
    (report,) = rig.reports
    assert report.outcome is SellOutcome.CONFIRMED
    assert (report.profit_units, report.proceeds_units) == (None, None)
