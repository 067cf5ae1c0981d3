"""What the live service leaves open, both ways (docs/protocol.md 2, 12)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from solders.keypair import Keypair
from websockets.exceptions import ConnectionClosed

from lasersell_sync.sandbox import Policies, Sandbox
from tests.sandbox.players import PATIENCE_S, ListOutbox, Rig, Trader, receive, signed, strategy

LADDER = {**strategy(stop=50), "take_profit_levels": [{"profit_pct": 5, "sell_pct": 50}]}


def kinds(outbox: ListOutbox) -> list[str]:
    return [message["type"] for message in outbox.messages()]


def rig_with(**policies: bool) -> Rig:
    return Rig(policies=Policies(**policies))


def held(rig: Rig, wallet: Keypair, **more: Any) -> tuple[Any, ListOutbox]:
    """A session whose wallet has just bought."""
    session, outbox = rig.session(wallet, **more)
    rig.buy(wallet, rig.listing("pump_swap", "climb"))
    return session, outbox


# -- the order of the greeting


@pytest.mark.parametrize("hello_first", [False, True])
def test_hello_comes_first_or_second(hello_first: bool) -> None:
    """The documented server greets at once, the live one after configure; either way there is one greeting."""
    rig = rig_with(hello_first=hello_first)
    session = rig.exchange.connect("key-1", outbox := ListOutbox())
    assert kinds(outbox) == (["hello_ok"] if hello_first else [])
    rig.say(session, {"type": "configure", "wallet_pubkeys": [], "strategy": strategy(target=1)})
    assert kinds(outbox) == ["hello_ok"]


@pytest.mark.parametrize("hello_first", [False, True])
@pytest.mark.parametrize(
    ("configure", "code"),
    [
        ({"wallet_pubkeys": ["nobody"], "strategy": strategy()}, "wallet_not_registered"),
        ({"wallet_pubkeys": [], "strategy": strategy(stop=-1)}, "invalid_strategy"),
        ({"wallet_pubkeys": []}, "bad_message"),
    ],
)
def test_a_bad_configure_ends_the_session_in_either_order(hello_first: bool, configure: Any, code: str) -> None:
    """A greeting does not change what a bad configure gets: its error, then close code 1008."""
    rig = rig_with(hello_first=hello_first)
    session = rig.exchange.connect("key-1", outbox := ListOutbox())
    rig.say(session, {"type": "configure", **configure})
    assert outbox.messages()[-1]["code"] == code
    assert outbox.closed == (1008, code)


@pytest.mark.parametrize("replace_sessions", [False, True])
def test_with_the_greeting_first_a_key_is_taken_from_the_connection_on(replace_sessions: bool) -> None:
    """The second connection of a key is refused, or replaces the first, before either has configured."""
    rig = rig_with(hello_first=True, replace_sessions=replace_sessions)
    first, second = ListOutbox(), ListOutbox()
    rig.exchange.connect("key-1", first)
    rig.exchange.connect("key-1", second)
    loser, winner = (first, second) if replace_sessions else (second, first)
    assert loser.messages()[-1]["code"] == ("session_replaced" if replace_sessions else "session_limit")
    assert loser.closed is not None
    assert (kinds(winner), winner.closed) == (["hello_ok"], None)


# -- coming back


@pytest.mark.parametrize("stable_ids", [True, False])
@pytest.mark.parametrize("reannounce", [True, False])
def test_positions_after_a_reconnect(reannounce: bool, stable_ids: bool) -> None:
    """Known positions are announced again or not, under the same id or another; either way they are tracked."""
    rig = rig_with(reannounce=reannounce, stable_ids=stable_ids)
    wallet = rig.wallet()
    session, outbox = held(rig, wallet)
    old_id = outbox.messages("position_opened")[0]["position_id"]
    rig.exchange.disconnect(session)
    session, again = rig.session(wallet)
    told = ["balance_update", "position_opened"] if reannounce else []
    assert kinds(again) == ["hello_ok", *told]
    rig.advance(0.2)
    new_id = again.messages("pnl_update")[0]["position_id"]
    assert (new_id == old_id) == stable_ids
    rig.say(session, {"type": "request_exit_signal", "position_id": new_id})
    assert again.messages("exit_signal_with_tx")[0]["position_id"] == new_id
    if not stable_ids:
        rig.say(session, {"type": "request_exit_signal", "position_id": old_id})
        assert again.messages("error")[0]["code"] == "unknown_position"
    assert [record.position_id for record in rig.exchange.positions.book.records()] == [new_id]


def test_what_was_never_told_is_told_whatever_the_policy() -> None:
    """reannounce=False is about what a key knows: a purchase made while nobody listened is news."""
    rig = rig_with(reannounce=False)
    wallet = rig.wallet()
    session, _ = held(rig, wallet)
    rig.exchange.disconnect(session)
    rig.buy(wallet, rig.listing("pump_fun", "climb"))
    _, outbox = rig.session(wallet)
    (opened,) = outbox.messages("position_opened")
    assert opened["market_context"]["market_type"] == "pump_fun"


def test_overrides_are_not_kept_across_reconnects(rig: Rig) -> None:
    """A position's own strategy ends with the session (docs/protocol.md 2.6)."""
    wallet = rig.wallet()
    session, _ = held(rig, wallet, terms=strategy(target=500))
    rig.say(session, {"type": "update_position_strategy", "position_id": 1, "strategy": strategy(stop=90)})
    rig.exchange.disconnect(session)
    _, outbox = rig.session(wallet, terms=strategy(target=500))
    rig.price(str(rig.listing("pump_swap", "climb").mint), 0.05)
    assert outbox.messages("exit_signal_with_tx") == []


@pytest.mark.parametrize("resend_exits", [True, False])
@pytest.mark.parametrize(
    ("terms", "reason", "sells"), [(strategy(target=5), "target_profit", None), (LADDER, "chained_tp", 0.5)]
)
def test_a_missed_exit_is_sent_again_or_not(
    resend_exits: bool, terms: dict[str, object], reason: str, sells: float | None
) -> None:
    """An exit that was signalled and not sold is signalled again after a reconnect, if that is the policy."""
    rig = rig_with(resend_exits=resend_exits)
    wallet = rig.wallet()
    session, outbox = held(rig, wallet, terms=terms)
    rig.price(str(rig.listing("pump_swap", "climb").mint), 1.1)
    (first,) = outbox.messages("exit_signal_with_tx")
    rig.exchange.disconnect(session)
    _, again = rig.session(wallet, terms=terms)
    signals = again.messages("exit_signal_with_tx")
    assert [signal["reason"] for signal in signals] == ([reason] if resend_exits else [])
    if resend_exits:
        assert signals[0].get("sell_tokens") == first.get("sell_tokens")
        assert ("sell_tokens" in first) == (sells is not None)


def test_missed_levels_are_sent_again_each_for_itself() -> None:
    """Of three levels that a jump reached, the one that was sold meanwhile is not among them."""
    rig = rig_with(resend_exits=True)
    wallet = rig.wallet()
    levels = [{"profit_pct": profit, "sell_pct": 30} for profit in (5, 10, 15)]
    terms = {**strategy(stop=50), "take_profit_levels": levels}
    session, outbox = held(rig, wallet, terms=terms)
    rig.price(str(rig.listing("pump_swap", "climb").mint), 1.3)
    first = {message["level_index"]: message for message in outbox.messages("exit_signal_with_tx")}
    assert sorted(first) == [0, 1, 2]
    assert rig.send(signed(first[1]["unsigned_tx_b64"], wallet)).err is None
    rig.exchange.disconnect(session)
    _, again = rig.session(wallet, terms=terms)
    signals = [(message["level_index"], message["sell_tokens"]) for message in again.messages("exit_signal_with_tx")]
    assert signals == [(level, first[level]["sell_tokens"]) for level in (0, 2)]


@pytest.mark.parametrize("rebuild_exits", [True, False])
def test_a_failed_exit_is_rebuilt_or_not(rebuild_exits: bool) -> None:
    """An exit that failed on the chain comes again with a fresh transaction, if that is the policy."""
    rig = rig_with(rebuild_exits=rebuild_exits)
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "climb")
    _session, outbox = held(rig, wallet, terms=strategy(stop=20))
    rig.price(str(listing.mint), 0.7)
    (signal,) = outbox.messages("exit_signal_with_tx")
    rig.price(str(listing.mint), 0.3)
    failed = rig.send(signed(signal["unsigned_tx_b64"], wallet), skip_preflight=True)
    assert failed.err is not None
    signals = outbox.messages("exit_signal_with_tx")
    assert len(signals) == (2 if rebuild_exits else 1)
    if rebuild_exits:
        assert rig.send(signed(signals[1]["unsigned_tx_b64"], wallet)).err is None
        assert outbox.messages("position_closed")[0]["reason"] == "stop_loss"


# -- keys


@pytest.mark.parametrize(("key", "code"), [("wrong", "invalid_api_key"), (None, "unauthorized")])
def test_keys_may_be_refused_inside_the_stream(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader], key: str | None, code: str
) -> None:
    """Where the upgrade lets everybody in, the error message says who may not stay; the right key is welcome."""
    trader = make_trader(make_sandbox(policies=Policies(refuse_keys_in_stream=True))).register()
    trader.stream()
    trader.headers = {} if key is None else {"x-api-key": key}
    ws = trader.connect()
    assert receive(ws)["code"] == code
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=PATIENCE_S)
    assert ws.close_code == 1008


def test_policies_reach_the_sandbox(make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]) -> None:
    """A Sandbox made with policies behaves by them; session_policy still speaks for itself."""
    trader = make_trader(make_sandbox(policies=Policies(hello_first=True), session_policy="replace")).register()
    first = trader.connect()
    assert receive(first)["type"] == "hello_ok"
    second = trader.connect()
    assert receive(second)["type"] == "hello_ok"
    assert receive(first)["code"] == "session_replaced"
    second.send(json.dumps({"type": "configure", "wallet_pubkeys": [trader.pubkey], "strategy": strategy()}))
    second.send('{"type":"ping","client_time_ms":1}')
    assert receive(second)["type"] == "pong"
