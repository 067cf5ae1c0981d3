"""Copy trading: signals, each rule of mirror_config at its boundary, results, mirror sales, what `watched` marks."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.markets.scenario import Action, Scenario, parse_scenario
from tests.sandbox.players import ListOutbox, Rig, signed, strategy

MARKET = """
about = "Still markets, and a whale."
{tokens}
[[wallet]]
name = "whale"
sol = 1000
usd1 = 100000
"""
TOKEN = '[[token]]\nsymbol = "{symbol}"\nmarket = "{market}"\nquote = "{quote}"\nrest_noise_pct = 0\n'
AMOUNT = 10**9


def still() -> Scenario:
    tokens = [TOKEN.format(symbol=symbol, market="pump_swap", quote="SOL") for symbol in ("A", "B", "C", "D")]
    tokens.append(TOKEN.format(symbol="USD", market="raydium_cpmm", quote="USD1"))
    tokens.append(TOKEN.format(symbol="MINE", market="pump_fun", quote="SOL") + 'creator = "whale"\n')
    return parse_scenario(MARKET.format(tokens="\n".join(tokens)), "still")


class Copier:
    """A client that copies the whale, and a whale that does as it is told."""

    def __init__(
        self, *, auto_buy: bool = True, mirror_sell: bool = False, usd1: int | None = None, **config: Any
    ) -> None:
        self.rig = Rig(scenario=still())
        self.whale = self.rig.exchange.player.wallets["whale"].pubkey()
        self.wallet = self.rig.wallet()
        self.watch: dict[str, Any] = {"pubkey": str(self.whale), "mirror_sell": mirror_sell}
        if auto_buy:
            amounts = {"amount_quote_units": AMOUNT, **({} if usd1 is None else {"amount_usd1_units": usd1})}
            self.watch["auto_buy"] = {"wallet_pubkey": str(self.wallet.pubkey()), **amounts}
        self.session, self.outbox = self.rig.session(
            self.wallet, terms=strategy(target=900), watch_wallets=[self.watch], mirror_config=config
        )

    def whale_buys(self, token: str, amount: float = 2.0) -> None:
        self.rig.exchange.act(Action(0.0, "buy", token, wallet="whale", amount=amount))
        self.rig.advance(0.5)

    def whale_sells(self, token: str, share_pct: float = 100.0) -> None:
        self.rig.exchange.act(Action(0.0, "sell", token, wallet="whale", share_pct=share_pct))
        self.rig.advance(0.5)

    @property
    def signals(self) -> list[dict[str, Any]]:
        return self.outbox.messages("mirror_buy_signal")

    @property
    def failures(self) -> list[str]:
        return [message["reason"] for message in self.outbox.messages("mirror_buy_failed")]

    def follow(self) -> None:
        """Sign and land the newest signal, and say so."""
        signal = self.signals[-1]
        assert self.rig.send(signed(signal["unsigned_tx_b64"], self.wallet)).err is None
        self.rig.say(self.session, {"type": "mirror_buy_result", "mint": signal["mint"], "success": True})

    def copy(self, token: str) -> None:
        self.whale_buys(token)
        self.follow()

    def sell_out(self, token: str) -> None:
        assert self.rig.sell(self.wallet, self.rig.token(token)).err is None

    def balance(self, token: str) -> int:
        return self.rig.exchange.ledger.token_balance(self.wallet.pubkey(), self.rig.token(token).mint)


# -- signals


def test_a_purchase_is_offered_and_becomes_a_position_of_its_source() -> None:
    """The signal has its fields in wire order, its transaction lands, and the position says whom it copies."""
    copier = Copier()
    copier.whale_buys("A")
    (signal,) = copier.signals
    assert list(signal) == [
        *("type", "session_id", "watched_wallet", "mint", "user_wallet", "amount_quote_units", "input"),
        *("unsigned_tx_b64", "slippage_bps", "market_context"),
    ]
    assert (signal["watched_wallet"], signal["user_wallet"]) == (str(copier.whale), str(copier.wallet.pubkey()))
    assert (signal["amount_quote_units"], signal["input"], signal["slippage_bps"]) == (AMOUNT, "SOL", 1_000)
    copier.follow()
    own = [message for message in copier.outbox.messages("position_opened") if "watched" not in message]
    (opened,) = own
    assert opened["mirror_source"] == str(copier.whale)
    assert list(opened)[-1] == "mirror_source"
    assert copier.outbox.messages("error") == []
    copier.rig.say(copier.session, {"type": "request_exit_signal", "position_id": opened["position_id"]})
    assert copier.outbox.messages("exit_signal_with_tx")[0]["mirror_source"] == str(copier.whale)
    copier.sell_out("A")
    closed = [message for message in copier.outbox.messages("position_closed") if "watched" not in message]
    assert closed[0]["mirror_source"] == str(copier.whale)
    assert list(closed[0])[5:8] == ["reason", "mirror_source", "slot"]


def test_delivery_stands_in_the_signal() -> None:
    """A session with a sender gets send_mode and tip in the signal, and the tip in the transaction."""
    rig = Rig(scenario=still())
    wallet, whale = rig.wallet(), rig.exchange.player.wallets["whale"].pubkey()
    watch = {"pubkey": str(whale), "auto_buy": {"wallet_pubkey": str(wallet.pubkey()), "amount_quote_units": AMOUNT}}
    _, outbox = rig.session(wallet, watch_wallets=[watch], send_mode="astralane", tip_lamports=9_000)
    rig.exchange.act(Action(0.0, "buy", "A", wallet="whale", amount=1.0))
    rig.advance(0.5)
    (signal,) = outbox.messages("mirror_buy_signal")
    assert (signal["send_mode"], signal["tip_lamports"]) == ("astralane", 9_000)
    record = rig.send(signed(signal["unsigned_tx_b64"], wallet))
    assert any(line == "system.transfer lamports=9000" for line in record.instructions)


def test_a_watched_wallets_positions_are_marked() -> None:
    """Announcements, updates, ticks, snapshots and the end of a watched position say `watched`; balances are not told."""
    copier = Copier(auto_buy=False)
    copier.whale_buys("A")
    copier.rig.advance(1.5)
    copier.whale_sells("A")
    messages = copier.outbox.messages()
    kinds = {message["type"] for message in messages if message.get("watched") is True}
    assert kinds == {"position_opened", "pnl_update", "trade_tick", "liquidity_snapshot", "position_closed"}
    assert {message["type"] for message in messages} == kinds | {"hello_ok"}
    assert all(list(message)[-1] == "watched" for message in messages if "watched" in message)
    assert copier.signals == []


def test_a_watched_position_is_nobodys_to_sell() -> None:
    """No strategy acts on it and no command finds it: the client could not sign for it."""
    copier = Copier(auto_buy=False)
    copier.rig.say(copier.session, {"type": "update_strategy", "strategy": strategy(stop=0.001)})
    copier.whale_buys("A")
    copier.rig.price("A", 0.5)
    position_id = copier.outbox.messages("position_opened")[0]["position_id"]
    copier.rig.say(copier.session, {"type": "request_exit_signal", "position_id": position_id})
    assert copier.outbox.messages("exit_signal_with_tx") == []
    assert copier.outbox.messages("error")[0]["code"] == "unknown_position"


def test_what_a_wallet_holds_already_is_shown_when_it_is_watched() -> None:
    """Naming a wallet shows its open positions at once; naming it again does not repeat them."""
    copier = Copier(auto_buy=False)
    copier.whale_buys("A")
    copier.rig.exchange.disconnect(copier.session)
    session, outbox = copier.rig.session(copier.wallet)
    assert outbox.messages("position_opened") == []
    for _ in range(2):
        copier.rig.say(session, {"type": "update_watch_wallets", "watch_wallets": [copier.watch]})
    (opened,) = outbox.messages("position_opened")
    assert opened["watched"] is True
    assert opened["wallet_pubkey"] == str(copier.whale)


def test_a_watched_wallet_may_become_ones_own() -> None:
    """Configured after all, its positions are announced without the mark, and the strategy acts on them."""
    rig = Rig(scenario=still())
    wallet = rig.wallet()
    session, outbox = rig.session(terms=strategy(stop=10), watch_wallets=[{"pubkey": str(wallet.pubkey())}])
    rig.buy(wallet, rig.token("A"))
    rig.say(session, {"type": "update_wallets", "wallet_pubkeys": [str(wallet.pubkey())]})
    assert [message.get("watched", False) for message in outbox.messages("position_opened")] == [True, False]
    rig.price("A", 0.5)
    assert [signal["reason"] for signal in outbox.messages("exit_signal_with_tx")] == ["stop_loss"]


def test_ones_own_wallet_is_never_copied() -> None:
    """A wallet that is both watched and configured is one's own: no signal, no mark."""
    rig = Rig(scenario=still())
    wallet = rig.wallet()
    auto_buy = {"wallet_pubkey": str(wallet.pubkey()), "amount_quote_units": AMOUNT}
    _, outbox = rig.session(wallet, watch_wallets=[{"pubkey": str(wallet.pubkey()), "auto_buy": auto_buy}])
    rig.buy(wallet, rig.token("A"))
    assert outbox.messages("mirror_buy_signal") == []
    assert "watched" not in outbox.messages("position_opened")[0]


@pytest.mark.parametrize(
    ("watch", "code"),
    [
        ([{"pubkey": "nobody"}], "bad_message"),
        ([{"pubkey": str(Keypair().pubkey()), "auto_buy": {"wallet_pubkey": str(Keypair().pubkey()), "amount_quote_units": 1}}], "wallet_not_registered"),
        ([{"pubkey": str(Keypair().pubkey()), "auto_buy": {"amount_quote_units": 1}}], "bad_message"),
        ([{"pubkey": "So11111111111111111111111111111111111111112"}] * 2, "bad_message"),
    ],
)  # fmt: skip
def test_watch_wallets_must_make_sense(watch: Any, code: str) -> None:
    """Keys must be keys, named once, and who buys must be registered."""
    rig = Rig()
    session, outbox = rig.session()
    rig.say(session, {"type": "update_watch_wallets", "watch_wallets": watch})
    assert [error["code"] for error in outbox.messages("error")] == [code]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"buy_slippage_bps": 10_001}, "buy_slippage_bps"),
        ({"max_active_sol": -1}, "max_active_sol"),
        ({"min_liquidity_sol": -0.1}, "min_liquidity_sol"),
        ({"max_entry_drift_pct": "5"}, "max_entry_drift_pct"),
        ({"max_positions_per_wallet": 2**32}, "max_positions_per_wallet"),
        ({"cooldown_sec": 1.5}, "cooldown_sec"),
    ],
)
def test_mirror_config_must_make_sense(config: dict[str, object], field: str) -> None:
    """A senseless rule is bad_message naming the field."""
    _, outbox = Rig().session(mirror_config=config)
    assert outbox.messages()[0]["code"] == "bad_message"
    assert f"mirror_config.{field}" in outbox.messages()[0]["message"]


# -- the rules


def test_max_positions_per_wallet_counts_open_copies_and_signals() -> None:
    """Two at most: the third mint is refused, more of a held one is not, and a sold or refused copy frees its place."""
    copier = Copier(max_positions_per_wallet=2)
    copier.copy("A")
    copier.whale_buys("B")
    copier.whale_buys("C")
    assert copier.failures == ["max_positions_reached"]
    copier.whale_buys("A")
    assert [signal["mint"] for signal in copier.signals][2] == str(copier.rig.token("A").mint)
    mint = str(copier.rig.token("B").mint)
    copier.rig.say(copier.session, {"type": "mirror_buy_result", "mint": mint, "success": False})
    copier.copy("C")
    copier.whale_buys("D")
    assert copier.failures == ["max_positions_reached"] * 2
    copier.sell_out("A")
    copier.rig.advance(95)
    copier.whale_buys("D")
    assert len(copier.failures) == 2


def test_cooldown_counts_from_the_last_signal() -> None:
    """Within the cooldown nothing is copied; at its end the next purchase is."""
    copier = Copier(cooldown_sec=30)
    copier.whale_buys("A")
    signalled_s = copier.rig.exchange.clock.now_s() - 0.1
    copier.rig.advance(signalled_s + 29.0 - copier.rig.exchange.clock.now_s())
    copier.whale_buys("B")
    assert copier.failures == ["cooldown_active"]
    copier.rig.advance(1)
    copier.whale_buys("C")
    assert len(copier.signals) == 2


@pytest.mark.parametrize("skip", [True, False])
def test_skip_creator_tokens(skip: bool) -> None:
    """A token that the watched wallet has created is copied only if the client does not mind."""
    copier = Copier(skip_creator_tokens=skip)
    copier.whale_buys("MINE")
    copier.whale_buys("A")
    assert copier.failures == (["skip_creator_tokens"] if skip else [])
    assert len(copier.signals) == (1 if skip else 2)


def test_max_active_sol_counts_what_is_at_risk() -> None:
    """Copies and signals together may reach the limit exactly; one lamport above it is refused."""
    copier = Copier(max_active_sol=2.0)
    copier.copy("A")
    copier.whale_buys("B")
    assert len(copier.signals) == 2, "a copy of less than 1 SOL and a signal of 1 SOL"
    copier.whale_buys("C")
    assert copier.failures == ["max_active_sol"]
    exact = Copier(max_active_sol=1.0)
    exact.whale_buys("A")
    assert len(exact.signals) == 1
    above = Copier(max_active_sol=0.999999999)
    above.whale_buys("A")
    assert above.failures == ["max_active_sol"]


def test_a_signal_nobody_followed_stops_counting() -> None:
    """After a blockhash's life an unanswered signal is dead and its SOL is free."""
    copier = Copier(max_active_sol=1.0)
    copier.whale_buys("A")
    copier.whale_buys("B")
    assert copier.failures == ["max_active_sol"]
    copier.rig.advance(90)
    copier.whale_buys("B")
    assert len(copier.signals) == 2


@pytest.mark.parametrize(("bps", "told"), [(0, 1_000), (250, 250)])
def test_buy_slippage_is_signed(bps: int, told: int) -> None:
    """The rule's slippage, or the default for 0, is in the signal and in its transaction's limit."""
    copier = Copier(buy_slippage_bps=bps)
    copier.whale_buys("A")
    (signal,) = copier.signals
    assert signal["slippage_bps"] == told
    message = VersionedTransaction.from_bytes(base64.b64decode(signal["unsigned_tx_b64"])).message
    swap = next(item for item in message.instructions if len(bytes(item.data)) == 24)
    assert struct.unpack_from("<Q", bytes(swap.data), 16)[0] == AMOUNT * (10_000 + told) // 10_000


def test_min_liquidity_is_the_pools_money() -> None:
    """A pool with exactly the least liquidity is deep enough; a lamport less is not."""
    probe = Copier()
    probe.whale_buys("A")
    depth = probe.rig.exchange.market.reserves(probe.rig.token("A")).lamports
    for least_sol, failures in ((depth / 1e9, []), ((depth + 1) / 1e9, ["below_min_liquidity"])):
        copier = Copier(min_liquidity_sol=least_sol)
        copier.whale_buys("A")
        assert copier.failures == failures


def test_max_entry_drift_compares_with_what_the_wallet_paid() -> None:
    """A small purchase leaves the price; a large one drives it away, and the copy would pay too much more."""
    near, far = Copier(max_entry_drift_pct=5), Copier(max_entry_drift_pct=5)
    near.whale_buys("A", amount=0.5)
    assert near.failures == []
    far.whale_buys("A", amount=20.0)
    assert far.failures == ["max_entry_drift_pct"]
    free = Copier()
    free.whale_buys("A", amount=20.0)
    assert len(free.signals) == 1


def test_consecutive_losses_end_the_copying() -> None:
    """The nth loss in a row disables the wallet, with its count; a win in between starts the count anew."""
    copier = Copier(max_consecutive_losses=2)
    for token, multiplier in (("A", 0.7), ("B", 1.5), ("C", 0.7)):
        copier.copy(token)
        copier.rig.price(token, multiplier)
        copier.sell_out(token)
    assert copier.outbox.messages("mirror_wallet_auto_disabled") == []
    copier.copy("D")
    copier.rig.price("D", 0.7)
    copier.sell_out("D")
    (told,) = copier.outbox.messages("mirror_wallet_auto_disabled")
    assert told == {
        "type": "mirror_wallet_auto_disabled",
        "watched_wallet": str(copier.whale),
        "reason": "consecutive_loss_limit_reached",
        "loss_count": 2,
    }
    signals = len(copier.signals)
    copier.whale_buys("A")
    assert (len(copier.signals), copier.failures) == (signals, [])
    copier.rig.say(copier.session, {"type": "update_watch_wallets", "watch_wallets": [copier.watch]})
    copier.whale_buys("A")
    assert len(copier.signals) == signals + 1


def test_a_position_closed_by_hand_is_no_loss() -> None:
    """close_position sells nothing, so it says nothing about the copy's luck."""
    copier = Copier(max_consecutive_losses=1)
    copier.copy("A")
    copier.rig.price("A", 0.5)
    position_id = next(item for item in copier.outbox.messages("position_opened") if "mirror_source" in item)[
        "position_id"
    ]
    copier.rig.say(copier.session, {"type": "close_position", "position_id": position_id})
    assert copier.outbox.messages("mirror_wallet_auto_disabled") == []


@pytest.mark.parametrize("usd1", [None, 25_000_000])
def test_usd1_markets_need_an_amount_in_usd1(usd1: int | None) -> None:
    """With an amount they are copied in USD1, without one they are not copied."""
    copier = Copier(usd1=usd1)
    copier.whale_buys("USD", amount=100)
    if usd1 is None:
        assert copier.failures == ["usd1_amount_missing"]
    else:
        assert (copier.signals[0]["input"], copier.signals[0]["amount_quote_units"]) == ("USD1", usd1)
        copier.follow()
        assert copier.balance("USD") > 0


def test_an_empty_purse_copies_nothing() -> None:
    """A copy that its wallet could not pay is not offered."""
    rig = Rig(scenario=still(), initial_lamports=AMOUNT - 1)
    wallet, whale = rig.wallet(), rig.exchange.player.wallets["whale"].pubkey()
    watch = {"pubkey": str(whale), "auto_buy": {"wallet_pubkey": str(wallet.pubkey()), "amount_quote_units": AMOUNT}}
    _, outbox = rig.session(wallet, watch_wallets=[watch])
    rig.exchange.act(Action(0.0, "buy", "A", wallet="whale", amount=1.0))
    rig.advance(0.5)
    assert [message["reason"] for message in outbox.messages("mirror_buy_failed")] == ["insufficient_balance"]


def test_the_tiers_limit_comes_first() -> None:
    """A copy that could not be tracked is not offered."""
    rig = Rig(scenario=still(), tiers=(0,))
    wallet, whale = rig.wallet(), rig.exchange.player.wallets["whale"].pubkey()
    watch = {"pubkey": str(whale), "auto_buy": {"wallet_pubkey": str(wallet.pubkey()), "amount_quote_units": AMOUNT}}
    _, outbox = rig.session(wallet, watch_wallets=[watch])
    for token in ("A", "B"):
        rig.buy(wallet, rig.token(token), 10**8)
    for token in ("C", "A"):
        rig.exchange.act(Action(0.0, "buy", token, wallet="whale", amount=1.0))
        rig.advance(0.5)
    assert [message["reason"] for message in outbox.messages("mirror_buy_failed")] == ["capacity_exceeded"]
    assert len(outbox.messages("mirror_buy_signal")) == 1


# -- mirror sales


def test_a_watched_sale_is_copied_in_proportion() -> None:
    """Half sold is half signalled; sold out is everything, and closes the position as mirror_sell."""
    copier = Copier(mirror_sell=True)
    copier.copy("A")
    tokens = copier.balance("A")
    copier.whale_sells("A", share_pct=50)
    (half,) = copier.outbox.messages("exit_signal_with_tx")
    assert (half["reason"], half["mirror_source"]) == ("mirror_sell", str(copier.whale))
    assert half["sell_tokens"] == pytest.approx(tokens / 2, abs=1)
    assert copier.rig.send(signed(half["unsigned_tx_b64"], copier.wallet)).err is None
    copier.whale_sells("A")
    rest = copier.outbox.messages("exit_signal_with_tx")[1]
    assert "sell_tokens" not in rest
    assert copier.rig.send(signed(rest["unsigned_tx_b64"], copier.wallet)).err is None
    closed = [message for message in copier.outbox.messages("position_closed") if "watched" not in message]
    assert [message["reason"] for message in closed] == ["mirror_sell"]
    assert copier.balance("A") == 0


def test_only_copies_are_sold_with_their_source() -> None:
    """Without mirror_sell nothing is; with it, what the client has bought by himself is left alone."""
    idle = Copier()
    idle.copy("A")
    idle.whale_sells("A")
    assert idle.outbox.messages("exit_signal_with_tx") == []
    careful = Copier(auto_buy=False, mirror_sell=True)
    careful.rig.buy(careful.wallet, careful.rig.token("A"))
    careful.whale_buys("A")
    careful.whale_sells("A")
    assert careful.outbox.messages("exit_signal_with_tx") == []


def test_sessions_copy_each_for_themselves() -> None:
    """Two keys watch the same wallet with other rules: each gets its own answer."""
    rig = Rig(scenario=still(), api_keys=("a", "b"))
    whale = rig.exchange.player.wallets["whale"].pubkey()
    outboxes: list[ListOutbox] = []
    for key_id, config in (("key-1", {}), ("key-2", {"min_liquidity_sol": 10_000})):
        wallet = rig.wallet(int(key_id[-1]), key_id=key_id)
        auto_buy = {"wallet_pubkey": str(wallet.pubkey()), "amount_quote_units": AMOUNT}
        watch = {"pubkey": str(whale), "auto_buy": auto_buy}
        outboxes.append(rig.session(wallet, key_id=key_id, watch_wallets=[watch], mirror_config=config)[1])
    rig.exchange.act(Action(0.0, "buy", "A", wallet="whale", amount=1.0))
    rig.advance(0.5)
    assert [len(box.messages("mirror_buy_signal")) for box in outboxes] == [1, 0]
    assert [len(box.messages("mirror_buy_failed")) for box in outboxes] == [0, 1]
