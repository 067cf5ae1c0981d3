"""What the web page is given to show, on an exchange whose time moves only when told to."""

from __future__ import annotations

import json

import pytest

from lasersell_sync.sandbox import web
from lasersell_sync.sandbox.web import SignalLog, picture
from tests.sandbox.players import Rig, strategy


def test_open_positions_come_first_and_the_newest_of_each(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: what can still be lost is not pushed out by what is over."""
    wallet = rig.wallet()
    rig.session(wallet, terms=strategy(target=1_000_000))
    listings = list(rig.listings)[:4]
    for listing in listings:
        rig.buy(wallet, listing, lamports=10**8, slippage_bps=5_000)
    rig.sell(wallet, listings[3])
    signals = SignalLog()
    shown = picture(rig.exchange, signals)
    assert [row["symbol"] for row in shown["positions"]] == [listings[n].symbol for n in (2, 1, 0, 3)]
    assert [row["closed"] is None for row in shown["positions"]] == [True, True, True, False]
    assert shown["counts"]["positions"] == 3
    monkeypatch.setattr(web, "ROWS", 2)
    shown = picture(rig.exchange, signals)
    assert [row["symbol"] for row in shown["positions"]] == [listings[n].symbol for n in (2, 1)]
    # Newest first in every table, and the counts are of all there are.
    slots = [row["slot"] for row in shown["transactions"]]
    assert slots == sorted(slots, reverse=True)
    assert (len(slots), shown["counts"]["transactions"]) == (2, 5)


def test_a_profit_is_what_selling_now_would_bring(rig: Rig) -> None:
    wallet, listing = rig.wallet(), rig.listings[0]
    _, outbox = rig.session(wallet, terms=strategy(target=1_000_000))
    rig.buy(wallet, listing)
    rig.advance(0.5)
    (row,) = picture(rig.exchange, SignalLog())["positions"]
    told = {message["profit_units"] for message in outbox.messages("pnl_update")}
    assert row["profit"] in told


def test_signals_are_kept_newest_first_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ROWS", 2)
    log = SignalLog()
    for number in range(3):
        log.observe(json.dumps({"type": "exit_signal_with_tx", "position_id": number, "mint": "m", "reason": "r"}))
    log.observe(json.dumps({"type": "position_opened", "position_id": 9}))
    log.observe(json.dumps({"type": "error", "message": 'no "exit_signal_with_tx" for you'}))
    log.observe('{"type":"exit_signal_with_tx",')
    log.observe(b'\x81\x00"exit_signal_with_tx"')
    assert log.count == 3
    assert [row["position"] for row in log.rows()] == [2, 1]
