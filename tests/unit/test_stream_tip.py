"""The tip that the stream was configured with reaches the guard, for exits and for copied purchases."""

from __future__ import annotations

import time

import attrs
import pytest

from lasersell_sync.autosell.mirror_buys import MirrorBuyer
from lasersell_sync.autosell.services import SellTerms
from lasersell_sync.messages import MirrorBuySignal
from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.market_transactions import desk, draft
from tests.support.selling import MARKET, Rig
from tests.unit.test_guard import pay

HELIUS = TIP_ACCOUNTS["helius_sender"][0]


def tipping(tx_b64: str, lamports: int) -> str:
    parts = draft(tx_b64)
    return parts.with_more(pay(parts.payer, HELIUS, lamports)).b64()


@pytest.mark.parametrize(
    ("asked", "minimum", "tip", "is_sent"),
    [
        (1_000, 0, 1_000, True),
        (1_000, 0, 1_001, False),
        (1_000, 1_000_000, 1_000_000, True),
        (1_000, 1_000_000, 1_000_001, False),
        (2_000_000, 1_000_000, 2_000_000, True),
        (None, 0, 10_000_000, True),
        (None, 0, 10_000_001, False),
    ],
)
def test_exit_with_a_larger_tip_than_the_stream_asked_for_is_not_signed(
    asked: int | None, minimum: int, tip: int, is_sent: bool
):
    rig = Rig(terms=SellTerms(minimum_tip_lamports=minimum))
    rig.stream.tip_lamports = asked
    rig.opened()
    rig.exit(attrs.evolve(rig.signal, unsigned_tx_b64=tipping(rig.signal.unsigned_tx_b64, tip)))
    rig.journal.close()
    assert len(rig.sender.sent) == is_sent


@pytest.mark.parametrize(("tip", "is_sent"), [(1_000, True), (1_001, False)])
def test_copied_purchase_with_a_larger_tip_than_the_stream_asked_for_is_not_signed(tip: int, is_sent: bool):
    trader = desk(MARKET)
    rig = Rig(guard=SigningGuard(max_buy_lamports=2 * 10**9))
    rig.stream.tip_lamports = 1_000
    signal = MirrorBuySignal(
        session_id=1, watched_wallet="watched", mint=trader.mint, user_wallet=trader.address,
        amount_quote_units=10**9, input="SOL", unsigned_tx_b64=tipping(trader.buy(), tip), slippage_bps=1_000,
    )  # fmt: skip
    mirror = MirrorBuyer(rig.services)
    rig.lines.put("", lambda: mirror.signalled(signal, time.monotonic_ns()))
    rig.lines.run()
    rig.journal.close()
    assert len(rig.sender.sent) == is_sent
    assert [buy.outcome for buy in rig.buys] == ([] if is_sent else [SellOutcome.REJECTED])
