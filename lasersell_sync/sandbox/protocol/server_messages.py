"""Server messages as JSON text, fields in the wire's order (docs/protocol.md 3 and 4).

What is absent is not written: an optional field without a value, and ``watched`` unless it is true. Amounts of money
are in the quote token's smallest unit: lamports where a market trades against SOL, which most do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM

_HOLDING = "wallet_pubkey mint token_account token_program"
#: The fields of each message in the wire's order; those with ``?`` may be absent.
FIELDS = {
    kind: tuple(fields.split())
    for kind, fields in {
        "hello_ok": "session_id server_time_ms limits",
        "pong": "server_time_ms",
        "error": "code message",
        "trade_tick": "position_id time_ms side token_amount quote_amount price_quote maker tx_signature? watched?",
        "balance_update": f"{_HOLDING} tokens slot",
        "position_opened": f"position_id {_HOLDING} tokens entry_quote_units market_context token_name token_symbol "
        "token_decimals token_price_quote market_cap_quote pool_liquidity_quote opened_at_ms slot watched? "
        "mirror_source?",
        "position_closed": "position_id wallet_pubkey mint token_account reason mirror_source? slot watched?",
        "exit_signal_with_tx": f"session_id position_id {_HOLDING} position_tokens profit_units reason triggered_at_ms "
        "market_context unsigned_tx_b64 sell_tokens? level_index? mirror_source?",
        "mirror_buy_signal": "session_id watched_wallet mint user_wallet amount_quote_units input unsigned_tx_b64 "
        "slippage_bps send_mode? tip_lamports? market_context",
        "mirror_buy_failed": "watched_wallet mint reason",
        "mirror_wallet_auto_disabled": "watched_wallet reason loss_count",
    }.items()
}


def message(kind: str, **values: object) -> str:
    """One text frame. Raises KeyError for a field that is missing, ValueError for one that the message has not."""
    written: dict[str, object] = {"type": kind}
    for field in FIELDS[kind]:
        name = field.removesuffix("?")
        if name == "token_program":
            value: object = TOKEN_PROGRAM
        else:
            value = values.pop(name) if name == field else values.pop(name, None)
        if value is not None and value is not False:
            written[name] = str(value) if isinstance(value, Pubkey) else value
    if values:
        raise ValueError(f"{kind}: {', '.join(values)} is not a field of it")
    return json.dumps(written, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def error(code: str, text: str) -> str:
    """An ``error`` message."""
    return message("error", code=code, message=text)


#: The last member of a message about a watched wallet's position.
_WATCHED = ',"watched":true'


def pnl_update(
    *,
    position_id: int,
    profit_lamports: int,
    proceeds_lamports: int,
    server_time_ms: int,
    price_lamports: int,
    market_cap_lamports: int,
    watched: bool = False,
) -> str:
    """``pnl_update``, written without the JSON library: this is the message there are thousands of."""
    return (
        f'{{"type":"pnl_update","position_id":{position_id},"profit_units":{profit_lamports},'
        f'"proceeds_units":{proceeds_lamports},"server_time_ms":{server_time_ms},'
        f'"token_price_quote":{price_lamports},"market_cap_quote":{market_cap_lamports}'
        f"{_WATCHED if watched else ''}}}"
    )


def liquidity_snapshot(
    *, position_id: int, bands: Iterable[tuple[int, int, float]], trend: str, server_time_ms: int, watched: bool = False
) -> str:
    """``liquidity_snapshot``, written without the JSON library too; ``bands`` are (bps, most tokens, coverage in %)."""
    written = ",".join(
        f'{{"slippage_bps":{bps},"max_tokens":{most},"coverage_pct":{coverage!r}}}' for bps, most, coverage in bands
    )
    return (
        f'{{"type":"liquidity_snapshot","position_id":{position_id},"bands":[{written}],'
        f'"liquidity_trend":"{trend}","server_time_ms":{server_time_ms}{_WATCHED if watched else ""}}}'
    )
