"""Server messages as JSON text, fields in the wire's order (PROTOCOL.md §3 and §4).

Every function returns one text frame. What is absent is not written, and ``watched``, false in this
storey, never is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import TOKEN_PROGRAM


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


def pnl_update(
    *,
    position_id: int,
    profit_lamports: int,
    proceeds_lamports: int,
    server_time_ms: int,
    price_lamports: int,
    market_cap_lamports: int,
) -> str:
    """Profit and loss. Written without the JSON library: this is the message there are thousands of."""
    return (
        f'{{"type":"pnl_update","position_id":{position_id},"profit_units":{profit_lamports},'
        f'"proceeds_units":{proceeds_lamports},"server_time_ms":{server_time_ms},'
        f'"token_price_quote":{price_lamports},"market_cap_quote":{market_cap_lamports}}}'
    )


def liquidity_snapshot(
    *, position_id: int, bands: Sequence[tuple[int, int, float]], trend: str, server_time_ms: int
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
        }
    )


def position_closed(
    *, position_id: int, wallet: Pubkey, mint: Pubkey, token_account: Pubkey, reason: str, slot: int
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
            "slot": slot,
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
) -> str:
    """Sell now, with the transaction to sign."""
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
        }
    )
