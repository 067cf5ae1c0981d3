"""Text to messages and back through the public functions: round trips, checks before sending, error facts."""

from __future__ import annotations

import enum
import json
import math
import pickle
import threading
from typing import Any

import pytest

from lasersell_sync import codec, messages
from lasersell_sync.codec import (
    client_message_from_text,
    client_message_to_text,
    message_to_dict,
    server_message_from_text,
    server_message_to_text,
)
from lasersell_sync.exceptions import ConfigurationError, DecodeError
from lasersell_sync.messages import (
    ClosePosition,
    Configure,
    HelloOk,
    Limits,
    LiquiditySnapshot,
    MirrorConfig,
    Ping,
    PnlUpdate,
    Pong,
    RequestExitSignal,
    SlippageBand,
    StrategyConfig,
    TakeProfitLevel,
    UnknownMessage,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
    WatchWallet,
)
from tests.parity import corpus

STRATEGY = StrategyConfig(target_profit_pct=50, stop_loss_pct=20.5)


def test_backend_names_the_core() -> None:
    assert codec.backend() in ("compiled", "pure")
    assert type(codec.server_message_from_text(b'{"type":"pong","server_time_ms":1}')) is Pong


def test_every_valid_message_of_the_corpus_comes_back() -> None:
    """Writing what was read and reading that gives the same message, and the dict is the text's."""
    count = 0
    for case in corpus.cases():
        if case["verdict"] != "ok" or case["client_policy"] != "same":
            continue
        reads, writes = (
            (server_message_from_text, server_message_to_text)
            if case["side"] == "server"
            else (client_message_from_text, client_message_to_text)
        )
        message: Any = reads(case["data"])
        text = writes(message)
        assert reads(text) == message
        assert reads(text.encode()) == message
        assert message_to_dict(message) == json.loads(text)
        assert list(message_to_dict(message)) == list(json.loads(text))
        count += 1
    assert count > 500


def test_what_is_written_is_what_the_reference_writes() -> None:
    """Byte for byte the order and the defaults of the reference, but for absent values, which we leave out."""
    for case in corpus.cases():
        if case["verdict"] != "ok" or case["client_policy"] != "same" or "$repeat" in str(case["canonical"]):
            continue
        side = case["side"]
        reads = server_message_from_text if side == "server" else client_message_from_text
        message: Any = reads(case["data"])
        got = message_to_dict(message)
        expected = {
            key: value
            for key, value in case["canonical"].items()
            if value is not None and not (side == "server" and key == "watched" and value is False)
        }
        assert list(got) == list(expected), case["id"]


def test_compact_utf8_text() -> None:
    """No spaces, no escapes that JSON does not ask for, type first."""
    text = client_message_to_text(UpdateWallets(wallet_pubkeys=["ключ", "b"]))  # type: ignore[arg-type]
    assert text == '{"type":"update_wallets","wallet_pubkeys":["ключ","b"]}'


def test_what_is_left_out_and_what_is_always_written() -> None:
    """Absent optionals, false watched and empty optional lists go; the reference's defaults stay."""
    assert message_to_dict(PnlUpdate(position_id=1, profit_units=-2, proceeds_units=3, server_time_ms=4)) == {
        "type": "pnl_update",
        "position_id": 1,
        "profit_units": -2,
        "proceeds_units": 3,
        "server_time_ms": 4,
    }
    assert message_to_dict(UpdateStrategy(strategy=STRATEGY))["strategy"] == {
        "target_profit_pct": 50.0,
        "stop_loss_pct": 20.5,
        "trailing_stop_pct": 0.0,
        "sell_on_graduation": False,
        "liquidity_guard": False,
        "breakeven_trail_pct": 0.0,
    }
    assert message_to_dict(UpdateWatchWallets(watch_wallets=())) == {
        "type": "update_watch_wallets",
        "watch_wallets": [],
    }


MIRROR_FIELDS = {
    "max_positions_per_wallet": 0,
    "cooldown_sec": 0,
    "skip_creator_tokens": False,
    "max_active_sol": 0.0,
    "buy_slippage_bps": 0,
    "min_liquidity_sol": 0.0,
    "max_entry_drift_pct": 0.0,
    "max_consecutive_losses": 0,
}


@pytest.mark.parametrize("fields", [{}, *({name: value} for name, value in MIRROR_FIELDS.items()), MIRROR_FIELDS])
def test_mirror_config_writes_the_fields_that_were_set(fields: dict[str, Any]) -> None:
    """An absent limit is the server's default; a written 0 lifts it. So 0 is written only when the user said 0."""
    configure = Configure(wallet_pubkeys=("w",), strategy=STRATEGY, mirror_config=MirrorConfig(**fields))
    assert message_to_dict(configure)["mirror_config"] == fields


def test_mirror_config_absent_limits_are_read_as_zero() -> None:
    """The protocol crate says so; the last three stay absent, for absence is a meaning of theirs."""
    text = '{"type":"configure","wallet_pubkeys":["w"],"strategy":{},"mirror_config":{"cooldown_sec":5}}'
    text = text.replace('"strategy":{}', '"strategy":{"target_profit_pct":1,"stop_loss_pct":1}')
    read = client_message_from_text(text)
    assert isinstance(read, Configure)
    assert read.mirror_config == MirrorConfig(
        max_positions_per_wallet=0,
        cooldown_sec=5,
        skip_creator_tokens=False,
        max_active_sol=0.0,
        buy_slippage_bps=0,
    )


def test_an_alias_is_read_and_never_written() -> None:
    message = client_message_from_text('{"type":"sell_now","position_id":7}')
    assert message == RequestExitSignal(position_id=7)
    assert client_message_to_text(message) == '{"type":"request_exit_signal","position_id":7}'


def test_floats_are_written_as_floats() -> None:
    """An int is taken for a float field; what is written keeps its value through a round trip."""
    assert '"target_profit_pct":50.0' in client_message_to_text(UpdateStrategy(strategy=STRATEGY))
    for value in (0.1, 1e-320, 1.7976931348623157e308, -0.0, 2.0**60):
        strategy = StrategyConfig(target_profit_pct=value, stop_loss_pct=1.0)
        back: Any = client_message_from_text(client_message_to_text(UpdateStrategy(strategy=strategy)))
        assert back.strategy.target_profit_pct.hex() == value.hex()


class Mode(str, enum.Enum):
    RPC = "rpc"


class Number(enum.IntEnum):
    SEVEN = 7


def test_enums_become_their_values() -> None:
    text = client_message_to_text(
        Configure(wallet_pubkeys=("w",), strategy=STRATEGY, send_mode=Mode.RPC, tip_lamports=Number.SEVEN)
    )
    assert '"send_mode":"rpc","tip_lamports":7' in text


LEVEL = TakeProfitLevel(profit_pct=1, sell_pct=1)


@pytest.mark.parametrize(
    ("message", "field", "remedy"),
    [
        (Ping(client_time_ms=-1), "client_time_ms", "from 0 to 18446744073709551615 (u64)"),
        (Ping(client_time_ms=2**64), "client_time_ms", "u64"),
        (Ping(client_time_ms=True), "client_time_ms", "give an int"),
        (Ping(client_time_ms=1.0), "client_time_ms", "give an int"),  # type: ignore[arg-type]
        (Ping(client_time_ms=None), "client_time_ms", "give an int"),  # type: ignore[arg-type]
        (RequestExitSignal(position_id=1, slippage_bps=65536), "slippage_bps", "from 0 to 65535 (u16)"),
        (ClosePosition(token_account=5), "token_account", "give a str"),  # type: ignore[arg-type]
        (ClosePosition(token_account="\ud800"), "token_account", "lone surrogates"),
        (UpdateStrategy(strategy=None), "strategy", "give a StrategyConfig"),  # type: ignore[arg-type]
        (UpdateStrategy(strategy=LEVEL), "strategy", "give a StrategyConfig"),  # type: ignore[arg-type]
        (UpdateStrategy(strategy=StrategyConfig(target_profit_pct=math.nan, stop_loss_pct=1)), "strategy.target_profit_pct", "finite"),
        (UpdateStrategy(strategy=StrategyConfig(target_profit_pct=1, stop_loss_pct=math.inf)), "strategy.stop_loss_pct", "finite"),
        (UpdateStrategy(strategy=StrategyConfig(target_profit_pct=10**400, stop_loss_pct=1)), "strategy.target_profit_pct", "finite"),
        (UpdateStrategy(strategy=StrategyConfig(target_profit_pct=True, stop_loss_pct=1)), "strategy.target_profit_pct", "float"),
        (
            UpdatePositionStrategy(
                position_id=1,
                strategy=StrategyConfig(
                    target_profit_pct=1,
                    stop_loss_pct=1,
                    take_profit_levels=[LEVEL, TakeProfitLevel(profit_pct="2", sell_pct=1)],  # type: ignore[arg-type]
                ),
            ),
            "strategy.take_profit_levels[1].profit_pct",
            "finite",
        ),
        (UpdateStrategy(strategy=StrategyConfig(target_profit_pct=1, stop_loss_pct=1, liquidity_guard=1)), "strategy.liquidity_guard", "True or False"),
        (UpdateWallets(wallet_pubkeys="one"), "wallet_pubkeys", "tuple or list of str"),  # type: ignore[arg-type]
        (UpdateWallets(wallet_pubkeys=("a", b"b")), "wallet_pubkeys[1]", "give a str"),  # type: ignore[arg-type]
        (UpdateWatchWallets(watch_wallets=(WatchWallet(pubkey="p"), "q")), "watch_wallets[1]", "give a WatchWallet"),  # type: ignore[arg-type]
        (UpdateWatchWallets(watch_wallets=None), "watch_wallets", "tuple or list of WatchWallet"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_sent_names_field_value_and_remedy(message: Any, field: str, remedy: str) -> None:
    """Found before anything is written, for the dict as for the text."""
    for write in (client_message_to_text, message_to_dict):
        with pytest.raises(ConfigurationError) as caught:
            write(message)
        assert caught.value.field == field
        assert remedy in caught.value.problem
        assert "cannot be sent" in caught.value.problem


def test_a_refused_value_is_shown_but_not_at_length() -> None:
    with pytest.raises(ConfigurationError, match="-5 cannot be sent"):
        client_message_to_text(Ping(client_time_ms=-5))
    with pytest.raises(ConfigurationError) as caught:
        client_message_to_text(UpdateWallets(wallet_pubkeys="x" * 10_000))  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


def test_the_wrong_side_is_a_type_error() -> None:
    """So is what is no message at all, a part of one too."""
    with pytest.raises(TypeError, match="Pong is not a client message"):
        client_message_to_text(Pong(server_time_ms=1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Ping is not a server message"):
        server_message_to_text(Ping(client_time_ms=1))  # type: ignore[arg-type]
    for other in (STRATEGY, None, "text", {"type": "ping"}):
        with pytest.raises(TypeError, match="is not a"):
            message_to_dict(other)  # type: ignore[arg-type]


def test_unknown_messages_keep_their_bytes() -> None:
    """They are written back as they came, spaces and all."""
    raw = b' { "type" : "new\\u0041" , "x" : [1] } '
    message = server_message_from_text(raw)
    assert message == UnknownMessage("newA", raw)
    assert server_message_to_text(message) == raw.decode()
    assert message_to_dict(message) == {"type": "newA", "x": [1]}
    with pytest.raises(ConfigurationError, match="raw"):
        server_message_to_text(UnknownMessage("x", b"\xff"))


@pytest.mark.parametrize(
    ("text", "path", "offset", "reason"),
    [
        ("", "$", 0, "text ends too early"),
        ("[]", "$", 0, "expected an object, found an array"),
        ("{}", "$.type", 1, "missing field"),
        ('{"type":1}', "$.type", 8, "expected a string, found a number"),
        ('{"type":"pong"}', "$.server_time_ms", 14, "missing field"),
        ('{"type":"pong","server_time_ms":1}}', "$", 34, "text goes on after the message"),
        ('{"type":"pong","server_time_ms":-1}', "$.server_time_ms", 32, "out of range for u64"),
        ('{"type":"pong","server_time_ms":1.0}', "$.server_time_ms", 32, "expected an integer, found a fraction or exponent"),
        ('{"é":1,"type":"pong","server_time_ms":"x"}', "$.server_time_ms", 39, "expected a number, found a string"),
        ('{"type":"pong","server_time_ms":1,"server_time_ms":2}', "$.server_time_ms", 34, "duplicate field"),
        ('{"type":"pong","x":[tru]}', "$", 20, "invalid literal"),
        (
            '{"type":"liquidity_snapshot","bands":[{"slippage_bps":1,"max_tokens":2,"coverage_pct":3},{"coverage_pct":3}]}',
            "$.bands[1].slippage_bps",
            106,
            "missing field",
        ),
        ("\ud800", "$", 0, "lone surrogate"),
        ('{"type":"é\udfff"}', "$", 11, "lone surrogate"),
    ],
)  # fmt: skip
def test_decode_errors_carry_path_offset_and_reason(text: str, path: str, offset: int, reason: str) -> None:
    """Offsets count bytes of the UTF-8 form; the error is a ValueError and survives pickling."""
    with pytest.raises(DecodeError) as caught:
        server_message_from_text(text)
    error = caught.value
    assert (error.path, error.offset, error.reason) == (path, offset, reason)
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_values_have_the_documented_types() -> None:
    """f64 fields are float, arrays are tuples, booleans are bool, integers int."""
    message: Any = server_message_from_text(
        '{"type":"liquidity_snapshot","position_id":1,"bands":[{"slippage_bps":1,"max_tokens":18446744073709551615,'
        '"coverage_pct":3}],"liquidity_trend":"stable","server_time_ms":1,"watched":true}'
    )
    band = SlippageBand(slippage_bps=1, max_tokens=2**64 - 1, coverage_pct=3.0)
    assert message == LiquiditySnapshot(
        position_id=1, bands=(band,), liquidity_trend="stable", server_time_ms=1, watched=True
    )
    assert type(message.bands) is tuple
    assert type(message.bands[0].coverage_pct) is float
    assert message.watched is True


def test_messages_are_as_good_as_constructed_ones() -> None:
    """Frozen, hashable, printable, picklable, copyable, and every slot is filled."""
    message: Any = server_message_from_text(
        '{"type":"hello_ok","session_id":1,"server_time_ms":2,'
        '"limits":{"hi_capacity":3,"pnl_flush_ms":4,"max_positions_per_session":5}}'
    )
    made = HelloOk(
        session_id=1, server_time_ms=2, limits=Limits(hi_capacity=3, pnl_flush_ms=4, max_positions_per_session=5)
    )
    assert message == made
    assert hash(message) == hash(made)
    assert repr(message) == repr(made)
    assert pickle.loads(pickle.dumps(message)) == made
    with pytest.raises(AttributeError):
        message.session_id = 5


def test_many_threads_read_at_once() -> None:
    """A decoder may be shared: results are right however calls interleave."""
    texts = [
        f'{{"type":"balance_update","wallet_pubkey":"w{n % 7}","mint":"m{n}","tokens":{n},"slot":{n}}}'
        for n in range(500)
    ]
    wrong: list[object] = []

    def read() -> None:
        for _ in range(10):
            for number, text in enumerate(texts):
                message: Any = server_message_from_text(text)
                if (message.mint, message.tokens) != (f"m{number}", number):
                    wrong.append(message)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_all_is_public() -> None:
    assert set(codec.__all__) <= set(vars(codec))
    assert messages.SERVER_MESSAGES.keys().isdisjoint(messages.CLIENT_MESSAGES.keys())
