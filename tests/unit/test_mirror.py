"""Copies of purchases: sent once, whatever raises."""

from __future__ import annotations

import time

import pytest

from lasersell_sync.autosell.mirror_buys import MirrorBuyer
from lasersell_sync.messages import MirrorBuySignal
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.selling import Rig

CONFIRMED, REJECTED = SellOutcome.CONFIRMED, SellOutcome.REJECTED


@pytest.mark.parametrize("late", [False, True])
def test_after_an_error_a_purchase_that_may_have_left_is_followed_by_its_signature(late: bool):
    """It is neither sent again nor called refused, however old the signal is by then; a repeated one changes nothing."""
    rig = Rig(guard=None)
    desk = MirrorBuyer(rig.services)
    sale = rig.signal
    signal = MirrorBuySignal(
        session_id=1, watched_wallet="watched", mint=sale.mint, user_wallet=sale.wallet_pubkey, amount_quote_units=1,
        input="SOL", unsigned_tx_b64=sale.unsigned_tx_b64, slippage_bps=100,
    )  # fmt: skip
    (rig.sender.bugs if late else rig.sender.early_bugs).append(RuntimeError("a bug"))
    came_ns = [time.monotonic_ns()]
    rig.lines.put("", lambda: desk.signalled(signal, came_ns[0]))
    rig.lines.run()
    assert len(rig.lines.errors) == 1
    came_ns[0] -= 60 * 10**9
    rig.lines.run()
    (record,) = rig.journal.buys(to_do=True)
    assert rig.sender.tracked == rig.sender.open == [record.signature]
    assert len(rig.sender.sent) == late
    rig.settle(CONFIRMED)
    assert [buy.outcome for buy in rig.buys] == [CONFIRMED]
    assert rig.stream.bought == [(sale.mint, True)]
    rig.lines.put("", lambda: desk.signalled(signal, time.monotonic_ns()))
    rig.lines.run()
    assert (len(rig.sender.sent), rig.sender.open, len(rig.buys)) == (late, [], 1)
