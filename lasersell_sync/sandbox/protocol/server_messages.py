"""Server messages as JSON text, fields in the wire's order (docs/protocol.md §3 and §4).

Every function returns one text frame. What is absent is not written: an optional field without a value, and
``watched`` unless it is true. Amounts of money are in the quote token's smallest unit, whatever the name says: lamports
where a market trades against SOL, which most do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM


def encode(message: dict[str, object]) -> str:
    """Compact JSON; keys keep their order, keys with None are left out."""
    present = {key: value for key, value in message.items() if value is not None}
    return json.dumps(present, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hello_ok(*, session_id: int, server_time_ms: int, limits: dict[str, int]) -> str:
    """The answer to ``configure``."""
    return encode({"type": "hello_ok", "session_id": session_id, "server_time_ms": server_time_ms, "limits": limits})


def pong(*, server_time_ms: int) -> str:
    """The answer to ``ping``."""
    return encode({"type": "pong", "server_time_ms": server_time_ms})


def error(code: str, message: str) -> str:
    """A complaint."""
    return encode({"type": "error", "code": code, "message": message})


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
    """Profit and loss. Written without the JSON library: this is the message there are thousands of."""
    return (
        f'{{"type":"pnl_update","position_id":{position_id},"profit_units":{profit_lamports},'
        f'"proceeds_units":{proceeds_lamports},"server_time_ms":{server_time_ms},'
        f'"token_price_quote":{price_lamports},"market_cap_quote":{market_cap_lamports}'
        f"{_WATCHED if watched else ''}}}"
    )


def liquidity_snapshot(
    *,
    position_id: int,
    bands: Sequence[tuple[int, int, float]],
    trend: str,
    server_time_ms: int,
    watched: bool = False,
) -> str:
    """``bands`` are (slippage_bps, max_tokens, coverage_pct)."""
    keys = ("slippage_bps", "max_tokens", "coverage_pct")
    return encode(
        {
            "type": "liquidity_snapshot",
            "position_id": position_id,
            "bands": [dict(zip(keys, band, strict=True)) for band in bands],
            "liquidity_trend": trend,
            "server_time_ms": server_time_ms,
            "watched": watched or None,
        }
    )


def trade_tick(
    *,
    position_id: int,
    time_ms: int,
    side: str,
    tokens: int,
    lamports: int,
    price_lamports: int,
    maker: Pubkey,
    tx_signature: str | None,
    watched: bool = False,
) -> str:
    """A trade in the pool; the crowd's trades have no transaction."""
    return encode(
        {
            "type": "trade_tick",
            "position_id": position_id,
            "time_ms": time_ms,
            "side": side,
            "token_amount": tokens,
            "quote_amount": lamports,
            "price_quote": price_lamports,
            "maker": str(maker),
            "tx_signature": tx_signature,
            "watched": watched or None,
        }
    )


def balance_update(*, wallet: Pubkey, mint: Pubkey, token_account: Pubkey, tokens: int, slot: int) -> str:
    """A wallet's balance of one token."""
    return encode(
        {
            "type": "balance_update",
            "wallet_pubkey": str(wallet),
            "mint": str(mint),
            "token_account": str(token_account),
            "token_program": str(TOKEN_PROGRAM),
            "tokens": tokens,
            "slot": slot,
        }
    )


def position_opened(
    *,
    position_id: int,
    wallet: Pubkey,
    mint: Pubkey,
    token_account: Pubkey,
    tokens: int,
    entry_lamports: int,
    market_context: dict[str, object],
    token_name: str,
    token_symbol: str,
    token_decimals: int,
    price_lamports: int,
    market_cap_lamports: int,
    pool_liquidity_lamports: int,
    opened_at_ms: int,
    slot: int,
    watched: bool = False,
    mirror_source: Pubkey | None = None,
) -> str:
    """A position is tracked, from now on or again."""
    return encode(
        {
            "type": "position_opened",
            "position_id": position_id,
            "wallet_pubkey": str(wallet),
            "mint": str(mint),
            "token_account": str(token_account),
            "token_program": str(TOKEN_PROGRAM),
            "tokens": tokens,
            "entry_quote_units": entry_lamports,
            "market_context": market_context,
            "token_name": token_name,
            "token_symbol": token_symbol,
            "token_decimals": token_decimals,
            "token_price_quote": price_lamports,
            "market_cap_quote": market_cap_lamports,
            "pool_liquidity_quote": pool_liquidity_lamports,
            "opened_at_ms": opened_at_ms,
            "slot": slot,
            "watched": watched or None,
            "mirror_source": _text(mirror_source),
        }
    )


def position_closed(
    *,
    position_id: int,
    wallet: Pubkey,
    mint: Pubkey,
    token_account: Pubkey,
    reason: str,
    slot: int,
    watched: bool = False,
    mirror_source: Pubkey | None = None,
) -> str:
    """A position is not tracked any more."""
    return encode(
        {
            "type": "position_closed",
            "position_id": position_id,
            "wallet_pubkey": str(wallet),
            "mint": str(mint),
            "token_account": str(token_account),
            "reason": reason,
            "mirror_source": _text(mirror_source),
            "slot": slot,
            "watched": watched or None,
        }
    )


def exit_signal_with_tx(
    *,
    session_id: int,
    position_id: int,
    wallet: Pubkey,
    mint: Pubkey,
    token_account: Pubkey,
    position_tokens: int,
    profit_lamports: int,
    reason: str,
    triggered_at_ms: int,
    market_context: dict[str, object],
    unsigned_tx_b64: str,
    sell_tokens: int | None = None,
    level_index: int | None = None,
    mirror_source: Pubkey | None = None,
) -> str:
    """Sell now, with the transaction to sign. Never about a watched wallet: nobody here could sign for it."""
    return encode(
        {
            "type": "exit_signal_with_tx",
            "session_id": session_id,
            "position_id": position_id,
            "wallet_pubkey": str(wallet),
            "mint": str(mint),
            "token_account": str(token_account),
            "token_program": str(TOKEN_PROGRAM),
            "position_tokens": position_tokens,
            "profit_units": profit_lamports,
            "reason": reason,
            "triggered_at_ms": triggered_at_ms,
            "market_context": market_context,
            "unsigned_tx_b64": unsigned_tx_b64,
            "sell_tokens": sell_tokens,
            "level_index": level_index,
            "mirror_source": _text(mirror_source),
        }
    )


def mirror_buy_signal(
    *,
    session_id: int,
    watched_wallet: Pubkey,
    mint: Pubkey,
    user_wallet: Pubkey,
    amount_quote_units: int,
    currency: str,
    unsigned_tx_b64: str,
    slippage_bps: int,
    send_mode: str | None,
    tip_lamports: int | None,
    market_context: dict[str, object],
) -> str:
    """A watched wallet has bought: the transaction that buys the same. ``currency`` is ``SOL`` or ``USD1``."""
    return encode(
        {
            "type": "mirror_buy_signal",
            "session_id": session_id,
            "watched_wallet": str(watched_wallet),
            "mint": str(mint),
            "user_wallet": str(user_wallet),
            "amount_quote_units": amount_quote_units,
            "input": currency,
            "unsigned_tx_b64": unsigned_tx_b64,
            "slippage_bps": slippage_bps,
            "send_mode": send_mode,
            "tip_lamports": tip_lamports,
            "market_context": market_context,
        }
    )


def mirror_buy_failed(*, watched_wallet: Pubkey, mint: Pubkey, reason: str) -> str:
    """A watched wallet has bought, and the buy is not copied."""
    return encode(
        {"type": "mirror_buy_failed", "watched_wallet": str(watched_wallet), "mint": str(mint), "reason": reason}
    )


def mirror_wallet_auto_disabled(*, watched_wallet: Pubkey, reason: str, loss_count: int) -> str:
    """A watched wallet is not copied any more."""
    return encode(
        {
            "type": "mirror_wallet_auto_disabled",
            "watched_wallet": str(watched_wallet),
            "reason": reason,
            "loss_count": loss_count,
        }
    )


def _text(address: Pubkey | None) -> str | None:
    return None if address is None else str(address)
