"""Messages as the server sends them, made from a seed: field order of the protocol, realistic sizes and repetition.

A session of 200 positions (or as many as asked for) of three wallets; every position has its own mint and token
account. ``mixed()`` draws types in the proportions of a busy session: over 95 % is price, trade and liquidity traffic.
"""

from __future__ import annotations

import base64
import json
import random
from typing import Any, Final

__all__ = ["MIX", "POSITIONS", "TYPES", "Session", "frame", "growing", "mixed", "one_type"]

SEED: Final = 20_250_117
POSITIONS: Final = 200

#: Share of each type in a mixed stream, in per mille.
MIX: Final = {
    "pnl_update": 700,
    "trade_tick": 150,
    "liquidity_snapshot": 100,
    "balance_update": 20,
    "position_opened": 15,
    "exit_signal_with_tx": 15,
}
TYPES: Final = tuple(MIX)

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_TOKEN_PROGRAM: Final = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"


class Session:
    """The positions of one session, and messages about them.

    Args:
        seed: same seed, same messages.
        positions: how many there are.
    """

    def __init__(self, seed: int = SEED, positions: int = POSITIONS) -> None:
        self._random = random.Random(seed)
        self._now_ms = 1_736_000_000_000
        self._wallets = [self._base58(44) for _ in range(3)]
        first = self._random.randrange(10**5, 10**7)
        self._positions = [
            {
                "position_id": first + 17 * index,
                "wallet_pubkey": self._wallets[index % 3],
                "mint": self._base58(40) + "pump",
                "token_account": self._base58(44),
                "tokens": self._random.randrange(10**9, 10**14),
                "entry": self._random.randrange(10**7, 10**10),
                "opened_at_ms": self._now_ms,
                "pool": self._base58(44),
                # Not every pool's price is known, and that does not change from message to message.
                "priced": self._random.random() < 0.9,
            }
            for index in range(positions)
        ]

    def message(self, kind: str) -> bytes:
        """The next message of the type ``kind``, about any position, as the wire has it."""
        position = self._random.choice(self._positions)
        # Updates of one flush share their time.
        self._now_ms += self._random.choice((0, 0, 0, 1, 100))
        return self._text(kind, position)

    def of_each(self, kind: str) -> list[bytes]:
        """One message of the type ``kind`` about each position, in the positions' order."""
        return [self._text(kind, position) for position in self._positions]

    def _text(self, kind: str, position: dict[str, Any]) -> bytes:
        fields = getattr(self, f"_{kind}")(position)
        return json.dumps({"type": kind, **fields}, separators=(",", ":"), ensure_ascii=False).encode()

    def _base58(self, length: int) -> str:
        return "".join(self._random.choices(_BASE58, k=length))

    def _pnl_update(self, position: dict[str, Any]) -> dict[str, Any]:
        proceeds = int(position["entry"] * self._random.uniform(0.4, 2.5))
        out = {
            "position_id": position["position_id"],
            "profit_units": proceeds - position["entry"],
            "proceeds_units": proceeds,
            "server_time_ms": self._now_ms,
        }
        if position["priced"]:
            out["token_price_quote"] = self._random.randrange(10**3, 10**6)
            out["market_cap_quote"] = self._random.randrange(10**10, 10**13)
        return out

    def _trade_tick(self, position: dict[str, Any]) -> dict[str, Any]:
        return {
            "position_id": position["position_id"],
            "time_ms": self._now_ms,
            "side": self._random.choice(("buy", "sell")),
            "token_amount": self._random.randrange(10**8, 10**13),
            "quote_amount": self._random.randrange(10**6, 10**10),
            "price_quote": self._random.randrange(10**3, 10**6),
            "maker": self._base58(44),
            "tx_signature": self._base58(88),
        }

    def _liquidity_snapshot(self, position: dict[str, Any]) -> dict[str, Any]:
        tokens = position["tokens"]
        bands = []
        for bps, share in ((100, 0.1), (200, 0.25), (500, 0.6), (1000, 1.1)):
            depth = int(tokens * share * self._random.uniform(0.5, 1.5))
            bands.append(
                {
                    "slippage_bps": bps,
                    "max_tokens": depth,
                    "coverage_pct": round(min(100.0, 100 * depth / tokens), 2),
                }
            )
        return {
            "position_id": position["position_id"],
            "bands": bands,
            "liquidity_trend": self._random.choice(("growing", "stable", "draining")),
            "server_time_ms": self._now_ms,
        }

    def _balance_update(self, position: dict[str, Any]) -> dict[str, Any]:
        return {
            "wallet_pubkey": position["wallet_pubkey"],
            "mint": position["mint"],
            "token_account": position["token_account"],
            "token_program": _TOKEN_PROGRAM,
            "tokens": position["tokens"],
            "slot": self._slot(),
        }

    def _position_opened(self, position: dict[str, Any]) -> dict[str, Any]:
        return {
            "position_id": position["position_id"],
            "wallet_pubkey": position["wallet_pubkey"],
            "mint": position["mint"],
            "token_account": position["token_account"],
            "token_program": _TOKEN_PROGRAM,
            "tokens": position["tokens"],
            "entry_quote_units": position["entry"],
            "market_context": {"market_type": "pump_swap", "pumpswap": {"pool": position["pool"]}},
            "token_name": "Some Token",
            "token_symbol": "SOME",
            "token_decimals": 6,
            "token_price_quote": self._random.randrange(10**3, 10**6),
            "market_cap_quote": self._random.randrange(10**10, 10**13),
            "pool_liquidity_quote": self._random.randrange(10**10, 10**12),
            "opened_at_ms": position["opened_at_ms"],
            "slot": self._slot(),
        }

    def _exit_signal_with_tx(self, position: dict[str, Any]) -> dict[str, Any]:
        return {
            "session_id": 778_812_345,
            "position_id": position["position_id"],
            "wallet_pubkey": position["wallet_pubkey"],
            "mint": position["mint"],
            "token_account": position["token_account"],
            "token_program": _TOKEN_PROGRAM,
            "position_tokens": position["tokens"],
            "profit_units": self._random.randrange(-(10**9), 10**10),
            "reason": self._random.choice(("target_profit", "stop_loss", "trailing_stop")),
            "triggered_at_ms": self._now_ms,
            "market_context": {"market_type": "pump_swap", "pumpswap": {"pool": position["pool"]}},
            "unsigned_tx_b64": base64.b64encode(self._random.randbytes(self._random.randrange(420, 820))).decode(),
        }

    def _slot(self) -> int:
        return 312_000_000 + (self._now_ms - 1_736_000_000_000) // 400


def one_type(kind: str, count: int, seed: int = SEED, positions: int = POSITIONS) -> list[bytes]:
    """``count`` messages of one type."""
    session = Session(seed, positions)
    return [session.message(kind) for _ in range(count)]


def mixed(count: int, seed: int = SEED, positions: int = POSITIONS) -> list[bytes]:
    """``count`` messages in the proportions of ``MIX``, exact up to rounding, in random order."""
    session = Session(seed, positions)
    kinds = [kind for kind, share in MIX.items() for _ in range(round(count * share / 1000))]
    random.Random(seed).shuffle(kinds)
    return [session.message(kind) for kind in kinds]


def growing(size: int, seed: int = SEED) -> bytes:
    """A ``liquidity_snapshot`` of about ``size`` bytes: one of the usual size, with as many bands as it takes."""
    snapshot = json.loads(Session(seed).message("liquidity_snapshot"))
    bands = snapshot["bands"]
    band_bytes = len(json.dumps(bands, separators=(",", ":"))) / len(bands)
    snapshot["bands"] = [bands[index % len(bands)] for index in range(max(1, round((size - 140) / band_bytes)))]
    return json.dumps(snapshot, separators=(",", ":")).encode()


def frame(text: bytes) -> bytes:
    """The text in one WebSocket frame, unmasked as a server sends it (RFC 6455 5.2)."""
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text
