"""A solders Pubkey stands wherever a public key is expected, and nothing else is turned into text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

import lasersell_sync as ls
from lasersell_sync.pubkeys import pubkey_text, pubkey_texts, require_pubkey
from lasersell_sync.stream.connection import StreamSender

KEYPAIR = Keypair.from_seed(bytes([9]) * 32)  # always the same: its address is a part of test names
KEY = KEYPAIR.pubkey()
TEXT = str(KEY)
OTHER = Pubkey.from_string("So11111111111111111111111111111111111111112")
STRATEGY = ls.StrategyConfig(target_profit_pct=15, stop_loss_pct=10)


class Port:
    """Takes what a sender sends."""

    deadline_timeout_sec = 0.0

    def __init__(self) -> None:
        self.sent: list[str] = []

    def command(self, message: ls.ClientMessage) -> None:
        self.sent.append(ls.client_message_to_text(message))

    def position_id_of(self, token_account: str) -> int | None:
        assert token_account == TEXT
        return 5


def sent(command: Callable[[StreamSender], None]) -> str:
    port = Port()
    command(StreamSender(port))
    (text,) = port.sent
    return text


def requested(request: Any) -> str:
    return json.dumps(request.to_payload())


def configured(configure: ls.StreamConfigure) -> str:
    configure.validate()
    from lasersell_sync.stream.desired_state import DesiredState

    return ls.client_message_to_text(DesiredState(configure).configure_message())


BUY = ls.AutoBuyConfig(wallet_pubkey=KEY, amount_quote_units=1)
PLACES: dict[str, Callable[[], str]] = {
    "StreamConfigure": lambda: configured(ls.StreamConfigure([KEY], STRATEGY)),
    "StreamConfigure, a tuple": lambda: configured(ls.StreamConfigure((KEY, str(OTHER)), STRATEGY)),
    "single_wallet_stream_configure": lambda: configured(ls.single_wallet_stream_configure(KEY, STRATEGY)),
    "WatchWallet": lambda: configured(
        ls.StreamConfigure([str(OTHER)], STRATEGY, watch_wallets=[ls.WatchWallet(pubkey=KEY)])
    ),
    "AutoBuyConfig": lambda: configured(
        ls.StreamConfigure([str(OTHER)], STRATEGY, watch_wallets=[ls.WatchWallet(pubkey=OTHER, auto_buy=BUY)])
    ),
    "Configure": lambda: ls.client_message_to_text(ls.Configure(wallet_pubkeys=(KEY,), strategy=STRATEGY)),
    "UpdateWallets": lambda: ls.client_message_to_text(ls.UpdateWallets(wallet_pubkeys=[KEY])),
    "update_wallets": lambda: sent(lambda sender: sender.update_wallets([KEY])),
    "update_watch_wallets": lambda: sent(lambda sender: sender.update_watch_wallets([ls.WatchWallet(pubkey=KEY)])),
    "request_exit_signal": lambda: sent(lambda sender: sender.request_exit_signal(KEY)),
    "close_position": lambda: sent(lambda sender: sender.close_position(KEY)),
    "mirror_buy_result": lambda: sent(lambda sender: sender.mirror_buy_result(KEY, success=True)),
    "BuildBuyTxRequest, mint": lambda: requested(ls.BuildBuyTxRequest(KEY, OTHER, 100, amount=1)),
    "BuildBuyTxRequest, user": lambda: requested(ls.BuildBuyTxRequest(OTHER, KEY, 100, amount=1)),
    "BuildBuyTxRequest, partner": lambda: requested(
        ls.BuildBuyTxRequest(OTHER, OTHER, 100, amount=1, partner_fee_recipient=KEY)
    ),
    "BuildSellTxRequest, mint": lambda: requested(ls.BuildSellTxRequest(KEY, OTHER, 0, "SOL", 100)),
    "BuildSellTxRequest, user": lambda: requested(ls.BuildSellTxRequest(OTHER, KEY, 0, "SOL", 100)),
    "WalletProof": lambda: ls.WalletProof(KEY, "signature", "message").wallet_pubkey,
}


@pytest.mark.parametrize("place", PLACES)
def test_pubkey_object_is_written_as_its_text(place: str) -> None:
    assert TEXT in PLACES[place]()


def test_pubkey_object_names_a_position_for_its_override() -> None:
    assert '"position_id":5' in sent(lambda sender: sender.update_position_strategy(KEY, STRATEGY))


@pytest.mark.parametrize("option", ["partner", "own_accounts", "tip_accounts", "never_sell", "allow"])
def test_pubkey_object_is_an_option_of_the_guard(option: str) -> None:
    value: Any = {"partner": KEY, "allow": {KEY: ["*"]}}.get(option, [KEY])
    text: Any = {"partner": TEXT, "allow": {TEXT: ["*"]}}.get(option, [TEXT])
    with_object, with_text = (ls.SigningGuard(**{option: one})._limits for one in (value, text))
    assert with_object == with_text


def test_pubkey_object_is_a_table_and_its_entries() -> None:
    ls.SigningGuard().add_lookup_table(KEY, [OTHER, TEXT])


def test_pubkey_text_turns_nothing_else_into_text() -> None:
    """The text of a Keypair is the secret key."""

    class Pubkey(str):
        __slots__ = ()

    for value in (KEYPAIR, None, 5, b"x", [KEYPAIR], Pubkey("x"), bytes(KEY)):
        assert pubkey_text(value) is value
    assert pubkey_texts((KEY, "x", KEYPAIR)) == (TEXT, "x", KEYPAIR)
    assert pubkey_texts("x") == "x"


@pytest.mark.parametrize("place", ["StreamConfigure", "BuildBuyTxRequest", "require_pubkey"])
def test_keypair_in_place_of_a_public_key_is_refused_and_not_shown(place: str) -> None:
    calls = {
        "StreamConfigure": lambda: ls.StreamConfigure([KEYPAIR], STRATEGY).validate(),  # type: ignore[list-item]
        "BuildBuyTxRequest": lambda: ls.BuildBuyTxRequest(KEYPAIR, TEXT, 100, amount=1),  # type: ignore[arg-type]
        "require_pubkey": lambda: require_pubkey("wallet", KEYPAIR),
    }
    with pytest.raises(ls.ConfigurationError) as caught:
        calls[place]()
    assert "Keypair" in str(caught.value)
    assert str(KEYPAIR) not in str(caught.value)


@pytest.mark.parametrize("wallets", [KEY, TEXT, 5, None])
def test_stream_configure_with_one_wallet_outside_a_list_says_so(wallets: Any) -> None:
    with pytest.raises(ls.ConfigurationError, match=r"Write \[pubkey\]"):
        ls.StreamConfigure(wallets, STRATEGY).validate()


def test_stream_configure_keeps_a_list_a_list() -> None:
    kinds = itertools.product((list, tuple), (TEXT, KEY))
    for kind, key in kinds:
        assert ls.StreamConfigure(kind([key]), STRATEGY).wallet_pubkeys == kind([TEXT])
