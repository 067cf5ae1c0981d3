"""The 13 server messages: every field, in the order of docs/protocol.md 4, and nothing where there is nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.protocol.tiers import TIERS

KEY = Pubkey.from_string("So11111111111111111111111111111111111111112")
HUGE = 2**64 - 1
CONTEXT = {"market_type": "pump_fun", "pumpfun": {}}
#: What every call below is given: (its type, what it is given, the fields it writes, those that may be absent).
MESSAGES: list[tuple[str, dict[str, Any], str, str]] = [
    ("hello_ok", {"session_id": HUGE, "server_time_ms": 5, "limits": TIERS[2].stream_limits(100)}, "session_id server_time_ms limits", ""),
    ("pong", {"server_time_ms": 5}, "server_time_ms", ""),
    (
        "trade_tick",
        {"position_id": 1, "time_ms": 5, "side": "buy", "token_amount": HUGE, "quote_amount": 6, "price_quote": 7, "maker": KEY, "tx_signature": "s", "watched": True},
        "position_id time_ms side token_amount quote_amount price_quote maker tx_signature watched",
        "tx_signature watched",
    ),
    (
        "balance_update",
        {"wallet_pubkey": KEY, "mint": KEY, "token_account": KEY, "tokens": HUGE, "slot": 5},
        "wallet_pubkey mint token_account token_program tokens slot",
        "",
    ),
    (
        "position_opened",
        {
            "position_id": 1, "wallet_pubkey": KEY, "mint": KEY, "token_account": KEY, "tokens": 5, "entry_quote_units": 6,
            "market_context": CONTEXT, "token_name": "É", "token_symbol": "E", "token_decimals": 6, "token_price_quote": 7,
            "market_cap_quote": 8, "pool_liquidity_quote": 9, "opened_at_ms": 10, "slot": 11,
            "watched": True, "mirror_source": KEY,
        },
        ("position_id wallet_pubkey mint token_account token_program tokens entry_quote_units market_context token_name "
        "token_symbol token_decimals token_price_quote market_cap_quote pool_liquidity_quote opened_at_ms slot watched "
        "mirror_source"),
        "watched mirror_source",
    ),
    (
        "position_closed",
        {"position_id": 1, "wallet_pubkey": KEY, "mint": KEY, "token_account": KEY, "reason": "sold", "slot": 5, "watched": True, "mirror_source": KEY},
        "position_id wallet_pubkey mint token_account reason mirror_source slot watched",
        "watched mirror_source",
    ),
    (
        "exit_signal_with_tx",
        {
            "session_id": 1, "position_id": 2, "wallet_pubkey": KEY, "mint": KEY, "token_account": KEY, "position_tokens": 5,
            "profit_units": -6, "reason": "r", "triggered_at_ms": 7, "market_context": CONTEXT,
            "unsigned_tx_b64": "AA==", "sell_tokens": 4, "level_index": 0, "mirror_source": KEY,
        },
        ("session_id position_id wallet_pubkey mint token_account token_program position_tokens profit_units reason "
        "triggered_at_ms market_context unsigned_tx_b64 sell_tokens level_index mirror_source"),
        "sell_tokens level_index mirror_source",
    ),
    (
        "mirror_buy_signal",
        {
            "session_id": 1, "watched_wallet": KEY, "mint": KEY, "user_wallet": KEY, "amount_quote_units": HUGE,
            "input": "USD1", "unsigned_tx_b64": "AA==", "slippage_bps": 5, "send_mode": "rpc", "tip_lamports": 6,
            "market_context": CONTEXT,
        },
        ("session_id watched_wallet mint user_wallet amount_quote_units input unsigned_tx_b64 slippage_bps send_mode "
        "tip_lamports market_context"),
        "send_mode tip_lamports",
    ),
    ("mirror_buy_failed", {"watched_wallet": KEY, "mint": KEY, "reason": "r"}, "watched_wallet mint reason", ""),
    (
        "mirror_wallet_auto_disabled",
        {"watched_wallet": KEY, "reason": "r", "loss_count": 3},
        "watched_wallet reason loss_count",
        "",
    ),
]  # fmt: skip
#: Fields whose argument has another name.
ARGUMENTS = {"tx_signature": None, "watched": False, "mirror_source": None, "sell_tokens": None, "level_index": None}
ARGUMENTS |= {"send_mode": None, "tip_lamports": None}


@pytest.mark.parametrize(("kind", "arguments", "fields", "optional"), MESSAGES, ids=[item[0] for item in MESSAGES])
def test_a_message_has_its_fields_in_order(kind: str, arguments: dict[str, Any], fields: str, optional: str) -> None:
    """With everything given every field is there, compact and in the wire's order; what is not given is not written."""
    text = wire.message(kind, **arguments)
    message = json.loads(text)
    assert list(message) == ["type", *fields.split()]
    assert message["type"] == kind
    assert text == json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    absent = {name: ARGUMENTS[name] for name in optional.split()}
    short = json.loads(wire.message(kind, **{**arguments, **absent}))
    assert list(short) == ["type", *(name for name in fields.split() if name not in absent)]


def test_pnl_update_has_its_fields_in_order() -> None:
    """The message that is written without the JSON library reads as the others."""
    given = {"profit_lamports": -(2**63), "proceeds_lamports": HUGE, "price_lamports": 6, "market_cap_lamports": 7}
    fields = ["type", "position_id", "profit_units", "proceeds_units", "server_time_ms", "token_price_quote"]
    for watched in (False, True):
        text = wire.pnl_update(position_id=HUGE, server_time_ms=5, watched=watched, **given)
        message = json.loads(text)
        assert list(message) == [*fields, "market_cap_quote", *(["watched"] if watched else [])]
        assert text == json.dumps(message, separators=(",", ":"))


def test_liquidity_snapshot_has_its_fields_in_order() -> None:
    """The other message that is written without the JSON library."""
    bands = [(100, HUGE, 100.0), (200, 5, 0.25), (500, 6, 1e-07)]
    for watched in (False, True):
        text = wire.liquidity_snapshot(position_id=HUGE, bands=bands, trend="stable", server_time_ms=5, watched=watched)
        message = json.loads(text)
        fields = ["type", "position_id", "bands", "liquidity_trend", "server_time_ms"]
        assert list(message) == [*fields, *(["watched"] if watched else [])]
        assert [tuple(band.values()) for band in message["bands"]] == bands
        assert [list(band) for band in message["bands"]] == [["slippage_bps", "max_tokens", "coverage_pct"]] * 3
        assert text == json.dumps(message, separators=(",", ":"))


@pytest.mark.parametrize(
    ("given", "error"),
    [({}, KeyError), ({"server_time_ms": 5, "session_id": 1}, ValueError)],
    ids=["missing", "foreign"],
)
def test_message_with_other_fields_raises(given: dict[str, object], error: type[Exception]) -> None:
    """A field that is missing, or that the message has not, never reaches the wire."""
    with pytest.raises(error):
        wire.message("pong", **given)


def test_an_error_says_what_and_why() -> None:
    """The thirteenth message."""
    assert wire.error("bad_message", 'a "quote"') == '{"type":"error","code":"bad_message","message":"a \\"quote\\""}'
    assert len(MESSAGES) + 3 == 13
