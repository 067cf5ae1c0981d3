"""The exchange's own behaviour: positions, sessions and exits, with time moved by hand and no sockets."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS, TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.protocol.policies import Policies
from tests.sandbox.players import ListOutbox, Rig, signed, strategy


def give_tokens(rig: Rig, owner: Keypair, target: Keypair, listing: Listing, tokens: int) -> None:
    accounts = [
        AccountMeta(token_address(owner.pubkey(), listing.mint), is_signer=False, is_writable=True),
        AccountMeta(token_address(target.pubkey(), listing.mint), is_signer=False, is_writable=True),
        AccountMeta(owner.pubkey(), is_signer=True, is_writable=False),
    ]
    create = rig.exchange.market.venue(listing).buy_instructions(listing, target.pubkey(), 1, 1)[0]
    transaction = rig.transaction(
        owner, create, Instruction(TOKEN_PROGRAM, struct.pack("<BQ", 3, tokens), accounts), signers=[target]
    )
    assert rig.send(transaction).err is None


def sell_signal(rig: Rig, wallet: Keypair, signal: dict[str, Any]) -> Any:
    return rig.send(signed(signal["unsigned_tx_b64"], wallet))


# -- opening


def test_a_buy_opens_a_position_at_what_it_cost(rig: Rig) -> None:
    """A buy by a watched wallet is told as balance_update, then position_opened with the lamports really spent."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    record = rig.buy(wallet, listing, lamports=10**9)
    high = outbox.messages("hello_ok", "balance_update", "position_opened")
    assert [message["type"] for message in high] == ["hello_ok", "balance_update", "position_opened"]
    opened = high[2]
    swap_cost = rig.exchange.positions.book.records()[0].entry_lamports
    assert opened["entry_quote_units"] == swap_cost
    assert 10**9 - 10 < swap_cost <= 10**9
    assert opened["tokens"] == high[1]["tokens"] == rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint)
    assert opened["slot"] == record.slot
    assert opened["market_context"] == {"market_type": "pump_fun", "pumpfun": {}}
    assert (opened["token_symbol"], opened["token_decimals"]) == (listing.symbol, 6)


def test_a_position_keeps_its_id_across_sessions(rig: Rig) -> None:
    """Positions belong to the wallet: a new session is told of the same position under the same id."""
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "climb")
    session, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.exchange.disconnect(session)
    _, again = rig.session(wallet)
    first, second = (box.messages("position_opened")[0] for box in (outbox, again))
    assert first["position_id"] == second["position_id"]
    assert first["entry_quote_units"] == second["entry_quote_units"]
    assert again.messages("balance_update")[0]["tokens"] == first["tokens"]


def test_a_buy_made_while_nobody_watched_is_announced_later(rig: Rig) -> None:
    """Holdings that were bought, and whose cost is known, become positions when a session comes."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    rig.buy(wallet, listing)
    assert rig.exchange.positions.book.records() == []
    _, outbox = rig.session(wallet)
    assert outbox.messages("position_opened")[0]["entry_quote_units"] <= 10**9


def test_gifts_count_at_what_they_are_worth(rig: Rig) -> None:
    """Tokens that come by transfer while a session watches open a position near zero profit; unwatched ones do not."""
    giver, taker, hermit = rig.wallet(1), rig.wallet(2), rig.wallet(3)
    listing = rig.listing("pump_fun", "climb")
    rig.buy(giver, listing)
    _, outbox = rig.session(taker)
    give_tokens(rig, giver, taker, listing, 10**12)
    give_tokens(rig, giver, hermit, listing, 10**12)
    opened = outbox.messages("position_opened")[0]
    pnl = outbox.messages("pnl_update")
    assert opened["tokens"] == 10**12
    assert all(abs(update["profit_units"]) < opened["entry_quote_units"] // 20 for update in pnl)
    assert [item.wallet_pubkey for item in rig.exchange.positions.book.records()] == [str(taker.pubkey())]


def test_a_second_buy_adds_to_the_position(rig: Rig) -> None:
    """More of the same token raises tokens and entry of the one position there is."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing, lamports=10**9)
    rig.buy(wallet, listing, lamports=10**9)
    (position,) = rig.exchange.positions.book.records()
    mine = [tick for tick in outbox.messages("trade_tick") if tick["maker"] == str(wallet.pubkey())]
    assert position.entry_lamports == mine[0]["quote_amount"] + mine[1]["quote_amount"]
    assert len(outbox.messages("position_opened")) == 1
    assert outbox.messages("balance_update")[-1]["tokens"] == position.tokens


def test_a_partial_sale_shrinks_the_entry(rig: Rig) -> None:
    """Selling a part leaves the rest at its own share of the cost, so the sale itself is neither profit nor loss."""
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    before = rig.exchange.positions.book.records()[0]
    assert rig.sell(wallet, listing, tokens=before.tokens // 4).err is None
    after = rig.exchange.positions.book.records()[0]
    assert after.tokens == before.tokens - before.tokens // 4
    assert after.entry_lamports == before.entry_lamports * after.tokens // before.tokens
    assert outbox.messages("position_closed") == []


# -- closing


def test_selling_everything_closes_with_the_reason_of_the_exit(rig: Rig) -> None:
    """position_closed carries the reason the stream signalled, and comes after the balance of 0."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet, terms=strategy(target=10))
    rig.buy(wallet, listing)
    rig.advance(15, until=lambda: outbox.messages("exit_signal_with_tx"))
    signal = outbox.messages("exit_signal_with_tx")[0]
    assert sell_signal(rig, wallet, signal).err is None
    high = outbox.messages("balance_update", "position_closed")
    assert [message["type"] for message in high[-2:]] == ["balance_update", "position_closed"]
    assert high[-2]["tokens"] == 0
    assert high[-1]["reason"] == "target_profit"
    assert high[-1]["position_id"] == signal["position_id"]


def test_selling_on_ones_own_closes_as_sold(rig: Rig) -> None:
    """A sale that no signal asked for closes the position with the reason `sold`."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.sell(wallet, listing)
    assert outbox.messages("position_closed")[0]["reason"] == "sold"


def test_nothing_is_said_about_a_closed_position(rig: Rig) -> None:
    """After position_closed no low-lane message of that position follows."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.sell(wallet, listing)
    rig.advance(3)
    kinds = [message["type"] for message in outbox.messages()]
    assert kinds.index("position_closed") == len(kinds) - 1


# -- strategies at work


@pytest.mark.parametrize(
    ("market_type", "price_path", "terms", "reason"),
    [
        ("pump_fun", "climb", strategy(target=20), "target_profit"),
        ("pump_swap", "climb", strategy(target=20), "target_profit"),
        ("pump_fun", "fall", strategy(target=20, stop=15), "stop_loss"),
        ("pump_swap", "peak", strategy(trailing=12), "trailing_stop"),
    ],
)
def test_stories_end_as_told(market_type: str, price_path: str, terms: dict[str, object], reason: str) -> None:
    """Climbers reach a target of 20 % within 12 s, fallers stop out, peaks trail; the same seed gives the same price path."""
    ends = []
    for _ in range(2):
        rig = Rig(seed=5)
        wallet = rig.wallet()
        _, outbox = rig.session(wallet, terms=terms)
        rig.buy(wallet, rig.listing(market_type, price_path))
        rig.advance(12, until=lambda box=outbox: box.messages("exit_signal_with_tx"))
        signal = outbox.messages("exit_signal_with_tx")[0]
        ticks = [(tick["side"], tick["token_amount"], tick["price_quote"]) for tick in outbox.messages("trade_tick")]
        ends.append((signal["reason"], signal["profit_units"], ticks))
    assert ends[0][0] == reason
    assert ends[0] == ends[1]


def test_an_exit_fires_once(rig: Rig) -> None:
    """An unsold position is not signalled again, not even to a session that comes back with the same strategy."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    session, outbox = rig.session(wallet, terms=strategy(target=5))
    rig.buy(wallet, listing)
    rig.advance(10)
    assert len(outbox.messages("exit_signal_with_tx")) == 1
    rig.exchange.disconnect(session)
    session, outbox = rig.session(wallet, terms=strategy(target=5))
    rig.advance(1)
    assert outbox.messages("exit_signal_with_tx") == []
    rig.say(session, {"type": "update_strategy", "strategy": strategy(target=6)})
    assert [signal["reason"] for signal in outbox.messages("exit_signal_with_tx")] == ["target_profit"]


def test_one_position_may_have_its_own_strategy(rig: Rig) -> None:
    """update_position_strategy changes one position and leaves the others alone."""
    wallet = rig.wallet()
    session, outbox = rig.session(wallet, terms=strategy(target=500))
    for market_type in ("pump_fun", "pump_swap"):
        rig.buy(wallet, rig.listing(market_type, "climb"))
    first, second = (message["position_id"] for message in outbox.messages("position_opened"))
    rig.say(session, {"type": "update_position_strategy", "position_id": second, "strategy": strategy(stop=0.001)})
    rig.say(session, {"type": "update_position_strategy", "position_id": 999, "strategy": strategy(stop=0.001)})
    assert [signal["position_id"] for signal in outbox.messages("exit_signal_with_tx")] == [second]
    assert outbox.messages("error")[0]["code"] == "unknown_position"
    assert first != second


def test_an_exit_signal_carries_a_sale_of_the_whole_position(rig: Rig) -> None:
    """The signal's transaction is unsigned, sells every token, and lands once signed."""
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "climb")
    session, outbox = rig.session(wallet, send_mode="helius_sender", tip_lamports=7_000)
    rig.buy(wallet, listing)
    opened = outbox.messages("position_opened")[0]
    rig.say(session, {"type": "request_exit_signal", "position_id": opened["position_id"], "slippage_bps": 300})
    signal = outbox.messages("exit_signal_with_tx")[0]
    assert list(signal) == [
        *("type", "session_id", "position_id", "wallet_pubkey", "mint", "token_account", "token_program"),
        *("position_tokens", "profit_units", "reason", "triggered_at_ms", "market_context", "unsigned_tx_b64"),
    ]
    assert signal["reason"] == "manual_sell"
    assert signal["position_tokens"] == opened["tokens"]
    transaction = VersionedTransaction.from_bytes(base64.b64decode(signal["unsigned_tx_b64"]))
    assert bytes(transaction.signatures[0]) == bytes(64)
    tipped = [key for key in transaction.message.account_keys if key in TIP_ACCOUNTS["helius_sender"]]
    before = rig.exchange.ledger.lamports(tipped[0])
    record = sell_signal(rig, wallet, signal)
    assert record.err is None
    assert rig.exchange.ledger.lamports(tipped[0]) == before + 7_000
    assert outbox.messages("position_closed")[0]["reason"] == "manual_sell"


def test_the_slippage_asked_for_is_the_slippage_signed(rig: Rig) -> None:
    """request_exit_signal's slippage_bps sets the least the sale may bring."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    session, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    account = outbox.messages("position_opened")[0]["token_account"]
    limits = []
    for slippage_bps in (0, 2_500):
        rig.say(session, {"type": "sell_now", "token_account": account, "slippage_bps": slippage_bps})
        signal = outbox.messages("exit_signal_with_tx")[-1]
        message = VersionedTransaction.from_bytes(base64.b64decode(signal["unsigned_tx_b64"])).message
        limits.append(struct.unpack_from("<Q", bytes(message.instructions[2].data), 16)[0])
    assert limits[1] == limits[0] * 7_500 // 10_000


def test_a_fired_position_gets_a_fresh_signal_on_request(rig: Rig) -> None:
    """When a signalled sale did not happen, asking again gives a transaction with a newer blockhash."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    session, outbox = rig.session(wallet, terms=strategy(target=5))
    rig.buy(wallet, listing)
    rig.advance(10)
    rig.skip_slots(200)
    position_id = outbox.messages("position_opened")[0]["position_id"]
    rig.say(session, {"type": "request_exit_signal", "position_id": position_id})
    stale, fresh = outbox.messages("exit_signal_with_tx")
    assert rig.send(signed(stale["unsigned_tx_b64"], wallet), skip_preflight=True) is None
    assert sell_signal(rig, wallet, fresh).err is None
    assert outbox.messages("position_closed")[0]["reason"] == "target_profit", "the strategy's reason stands"


def test_a_forced_exit_has_the_reason_it_is_given(rig: Rig) -> None:
    """force_exit signals an open position for any reason, and refuses one that is not open."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.exchange.positions.force_exit(1, "graduation")
    assert outbox.messages("exit_signal_with_tx")[0]["reason"] == "graduation"
    with pytest.raises(ValueError, match="position_id 2"):
        rig.exchange.positions.force_exit(2, "graduation")


# -- commands


def test_close_position_stops_tracking_until_more_tokens_arrive(rig: Rig) -> None:
    """close_position ends with reason `manual`, is remembered across sessions, and a new buy opens a new position."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    session, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.say(session, {"type": "close_position", "position_id": 1})
    assert outbox.messages("position_closed")[0]["reason"] == "manual"
    told = len(outbox.messages("pnl_update", "trade_tick"))
    rig.advance(2)
    assert len(outbox.messages("pnl_update", "trade_tick")) == told
    rig.exchange.disconnect(session)
    _, again = rig.session(wallet)
    assert again.messages("position_opened") == []
    rig.buy(wallet, listing)
    opened = again.messages("position_opened")[0]
    assert opened["position_id"] == 2
    assert opened["tokens"] == rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint)


def test_update_wallets_is_the_full_new_list(rig: Rig) -> None:
    """New wallets are announced, wallets that left are tracked until they close, unregistered ones are refused."""
    old, new, foreign = rig.wallet(1), rig.wallet(2), Keypair()
    listing = rig.listing("pump_fun", "climb")
    session, outbox = rig.session(old)
    rig.buy(old, listing)
    rig.buy(new, listing)
    rig.say(session, {"type": "update_wallets", "wallet_pubkeys": str(new.pubkey())})
    wallets = [message["wallet_pubkey"] for message in outbox.messages("position_opened")]
    assert wallets == [str(old.pubkey()), str(new.pubkey())]
    rig.say(session, {"type": "update_wallets", "wallet_pubkeys": [str(foreign.pubkey())]})
    error = outbox.messages("error")[0]
    assert error["code"] == "wallet_not_registered"
    assert str(foreign.pubkey()) in error["message"]
    rig.sell(old, listing)
    assert outbox.messages("position_closed")[0]["wallet_pubkey"] == str(old.pubkey())
    rig.buy(old, listing)
    assert len(outbox.messages("position_opened")) == 2


def test_copy_trading_settings_are_accepted(rig: Rig) -> None:
    """Watch wallets, mirror settings and mirror results are taken without complaint and kept."""
    wallet = rig.wallet()
    watched = {"pubkey": str(Keypair().pubkey()), "auto_buy": None, "mirror_sell": True}
    session, outbox = rig.session(wallet, watch_wallets=[watched], mirror_config={"cooldown_sec": 3})
    rig.say(session, {"type": "update_watch_wallets", "watch_wallets": []})
    rig.say(session, {"type": "mirror_buy_result", "mint": "x", "success": False})
    assert outbox.messages("error") == []
    assert rig.exchange.sessions.records(include_closed=False)[0].watch_wallets == ()


@pytest.mark.parametrize(
    "terms",
    [
        {"target_profit_pct": 0, "stop_loss_pct": 0},
        {"target_profit_pct": 0, "stop_loss_pct": 0, "sell_on_graduation": True},
        {**strategy(), "take_profit_levels": [{"profit_pct": 5, "sell_pct": 50}, {"profit_pct": 9, "sell_pct": 100}]},
        {**strategy(1, 2.5, 3), "liquidity_guard": True, "breakeven_trail_pct": 4, "unknown": [1]},
    ],
)
def test_whatever_the_protocol_allows_is_accepted(rig: Rig, terms: dict[str, object]) -> None:
    """Deadline-only, graduation-only and ladder strategies configure a session."""
    _, outbox = rig.session(rig.wallet(), terms=terms)
    assert [message["type"] for message in outbox.messages()] == ["hello_ok"]


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (strategy(target=-1), "target_profit_pct"),
        (strategy(stop=-0.1), "stop_loss_pct"),
        (strategy(trailing=-5), "trailing_stop_pct"),
        ({**strategy(), "breakeven_trail_pct": -1}, "breakeven_trail_pct"),
        ({**strategy(), "take_profit_levels": [{"profit_pct": 5, "sell_pct": 101}]}, "sell_pct"),
        ({**strategy(), "take_profit_levels": [{"profit_pct": 0, "sell_pct": 1}]}, "profit_pct"),
        (
            {**strategy(), "take_profit_levels": [{"profit_pct": 5, "sell_pct": 1}, {"profit_pct": 5, "sell_pct": 1}]},
            "take_profit_levels[1].profit_pct",
        ),
    ],
)
def test_strategies_that_make_no_sense_are_refused(rig: Rig, terms: dict[str, object], field: str) -> None:
    """A bad number gets invalid_strategy naming the field, and before hello_ok the connection is closed."""
    _, outbox = rig.session(rig.wallet(), terms=terms)
    (error,) = outbox.messages()
    assert error["code"] == "invalid_strategy"
    assert field in error["message"]
    assert outbox.closed is not None


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "null",
        "[]",
        '"configure"',
        "{}",
        '{"type":1}',
        '{"type":"nonsense"}',
        '{"type":"ping"}',
        '{"type":"ping","client_time_ms":"1"}',
        '{"type":"ping","client_time_ms":-1}',
        '{"type":"ping","client_time_ms":1.0}',
        '{"type":"ping","client_time_ms":true}',
        '{"type":"ping","client_time_ms":18446744073709551616}',
        '{"type":"ping","client_time_ms":NaN}',
        '{"type":"update_strategy"}',
        '{"type":"update_strategy","strategy":{"target_profit_pct":"5","stop_loss_pct":1}}',
        '{"type":"update_strategy","strategy":{"target_profit_pct":1e999,"stop_loss_pct":1}}',
        '{"type":"close_position"}',
        '{"type":"close_position","position_id":1,"token_account":"x"}',
        '{"type":"request_exit_signal"}',
        '{"type":"request_exit_signal","position_id":1,"slippage_bps":10001}',
        '{"type":"update_wallets","wallet_pubkeys":[1]}',
        '{"type":"update_watch_wallets"}',
        '{"type":"mirror_buy_result","mint":"\\ud800","success":true}',
        '{"type":"configure","wallet_pubkeys":[],"strategy":{"target_profit_pct":1,"stop_loss_pct":1}}',
        "[" * 100_000,
        '{"type":"ping","client_time_ms":' + "9" * 5_000 + "}",
        b'{"type":"ping","client_time_ms":1}',
    ],
)
def test_garbage_is_answered_and_survived(rig: Rig, message: str | bytes) -> None:
    """Whatever a configured client sends, it gets bad_message and its session goes on."""
    session, outbox = rig.session(rig.wallet())
    rig.exchange.receive(session, message)
    assert [error["code"] for error in outbox.messages("error")] == ["bad_message"]
    rig.say(session, {"type": "ping", "client_time_ms": 1})
    assert outbox.messages()[-1]["type"] == "pong"
    assert outbox.closed is None


def test_configure_must_come_first(rig: Rig) -> None:
    """Anything before configure gets bad_message and close code 1008."""
    session = rig.exchange.connect("key-1", outbox := ListOutbox())
    rig.say(session, {"type": "ping", "client_time_ms": 1})
    assert outbox.messages()[0]["code"] == "bad_message"
    assert outbox.closed == (1008, "bad_message")


@pytest.mark.parametrize("form", ["list", "string", "legacy string", "legacy list"])
def test_wallets_may_be_written_in_four_ways(rig: Rig, form: str) -> None:
    """wallet_pubkeys may be one string, and wallet_pubkey is its old name for either form."""
    wallet = rig.wallet()
    value: object = str(wallet.pubkey()) if "string" in form else [str(wallet.pubkey())]
    outbox = ListOutbox()
    session = rig.exchange.connect("key-1", outbox)
    name = "wallet_pubkey" if "legacy" in form else "wallet_pubkeys"
    rig.say(session, {"strategy": strategy(target=1), name: value, "type": "configure"})
    assert outbox.messages()[0]["type"] == "hello_ok"
    assert rig.exchange.sessions.records(include_closed=False)[0].wallet_pubkeys == (str(wallet.pubkey()),)


def test_wallets_must_be_registered_under_the_key(rig: Rig) -> None:
    """A wallet of another key is as unknown as any other; the error names it and the connection closes."""
    rig = Rig(api_keys=("one", "two"))
    wallet = rig.wallet(key_id="key-2")
    _, outbox = rig.session(wallet, key_id="key-1")
    assert outbox.messages()[0]["code"] == "wallet_not_registered"
    assert str(wallet.pubkey()) in outbox.messages()[0]["message"]
    assert outbox.closed is not None
    _, outbox = rig.session(wallet, key_id="key-2")
    assert outbox.messages()[0]["type"] == "hello_ok"


def test_a_second_session_is_refused_or_replaces_the_first() -> None:
    """One session per key: the policy decides which of two lives."""
    for replace in (False, True):
        rig = Rig(policies=Policies(replace_sessions=replace))
        wallet = rig.wallet()
        first, second = (rig.session(wallet)[1] for _ in range(2))
        loser, winner = (first, second) if replace else (second, first)
        assert loser.messages()[-1]["code"] == ("session_replaced" if replace else "session_limit")
        assert loser.closed is not None
        assert winner.closed is None
        assert len(rig.exchange.sessions.records(include_closed=False)) == 1


# -- the low lane


def test_profit_is_what_selling_now_returns_less_the_entry() -> None:
    """pnl_update's proceeds are, to the lamport, what the sale then brings; updates come every 100 ms."""
    rig = Rig(landing_delay_ms=0)
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.advance(1.05)
    updates = outbox.messages("pnl_update")
    assert 13 <= len(updates) <= 15, "1.05 s, and the 0.41 s in which the purchase landed"
    position = rig.exchange.positions.book.records()[0]
    assert all(item["profit_units"] == item["proceeds_units"] - position.entry_lamports for item in updates)
    # Before the market moves again, the sale lands.
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    record = rig.sell(wallet, listing)
    brought = rig.exchange.ledger.lamports(wallet.pubkey()) - before + record.fee_lamports
    assert brought == updates[-1]["proceeds_units"]


def test_liquidity_comes_once_a_second_in_four_bands(rig: Rig) -> None:
    """Snapshots have bands at 100, 200, 500 and 1000 bps with growing depth, and follow the pool's trend."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing, lamports=3 * 10**9)
    rig.advance(8)
    snapshots = outbox.messages("liquidity_snapshot")
    assert 7 <= len(snapshots) <= 9
    for snapshot in snapshots:
        assert [band["slippage_bps"] for band in snapshot["bands"]] == [100, 200, 500, 1_000]
        depths = [band["max_tokens"] for band in snapshot["bands"]]
        assert depths == sorted(depths)
        assert all(0 < band["coverage_pct"] <= 100 for band in snapshot["bands"])
    assert snapshots[0]["bands"][0]["coverage_pct"] < 100
    assert "growing" in {snapshot["liquidity_trend"] for snapshot in snapshots}


def test_every_trade_is_a_tick(rig: Rig) -> None:
    """Trades of the crowd and of other users tick every position in the mint; users' trades carry their signature."""
    wallet, other = rig.wallet(1), rig.wallet(2)
    listing = rig.listing("pump_swap", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    record = rig.buy(other, listing)
    ticks = outbox.messages("trade_tick")
    (others,) = [tick for tick in ticks if tick["maker"] == str(other.pubkey())]
    assert others["tx_signature"] == record.signature
    assert others["side"] == "buy"
    assert len([tick for tick in ticks if "tx_signature" not in tick]) >= 3


def test_frames_are_compact_and_in_wire_order(rig: Rig) -> None:
    """The server writes no spaces, the type first, and only fields that are there."""
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.advance(1.5)
    orders = {
        "pnl_update": "type position_id profit_units proceeds_units server_time_ms token_price_quote market_cap_quote",
        "liquidity_snapshot": "type position_id bands liquidity_trend server_time_ms",
        "balance_update": "type wallet_pubkey mint token_account token_program tokens slot",
        "hello_ok": "type session_id server_time_ms limits",
        "position_opened": "type position_id wallet_pubkey mint token_account token_program tokens entry_quote_units "
        "market_context token_name token_symbol token_decimals token_price_quote market_cap_quote "
        "pool_liquidity_quote opened_at_ms slot",
    }
    for kind, order in orders.items():
        assert list(outbox.messages(kind)[0]) == order.split(), kind
    for frame in outbox.frames:
        assert frame == json.dumps(json.loads(frame), separators=(",", ":"), ensure_ascii=False)


def test_idle_means_idle(rig: Rig) -> None:
    """With no price path running and no position tracked nothing is planned, even while a session is connected."""
    assert rig.exchange.run_due() is None
    rig.session(rig.wallet())
    assert rig.exchange.run_due() is None


def test_scheduler_late_plays_the_same_scenario(rig: Rig) -> None:
    """A clock that jumps loses time, not ticks: the prices are those of an even clock."""
    prices = []
    for step_s in (0.1, 0.7):
        fresh = Rig()
        wallet, listing = fresh.wallet(), fresh.listing("pump_fun", "climb")
        _, outbox = fresh.session(wallet)
        fresh.buy(wallet, listing)
        while len(outbox.messages("trade_tick")) < 30:
            fresh.now_s += step_s
            fresh.exchange.run_due()
        prices.append([tick["price_quote"] for tick in outbox.messages("trade_tick")][:30])
    assert prices[0] == prices[1]


def test_play_money_comes_once(rig: Rig) -> None:
    """Registering again, or under another key, brings no more."""
    rig = Rig(api_keys=("one", "two"), initial_lamports=5_000_000)
    wallet = rig.wallet()
    rig.wallet()
    rig.wallet(key_id="key-2")
    assert rig.exchange.ledger.lamports(wallet.pubkey()) == 5_000_000


def test_a_plain_transfer_is_nobodys_position(rig: Rig) -> None:
    """Lamports moving between wallets say nothing on the stream."""
    wallet = rig.wallet()
    _, outbox = rig.session(wallet)
    instruction = transfer(TransferParams(from_pubkey=wallet.pubkey(), to_pubkey=Keypair().pubkey(), lamports=10**6))
    assert rig.send(rig.transaction(wallet, instruction)).err is None
    assert [message["type"] for message in outbox.messages()] == ["hello_ok"]
