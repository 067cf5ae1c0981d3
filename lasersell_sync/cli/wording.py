"""How amounts and addresses are written for people."""

from __future__ import annotations

LAMPORTS_PER_SOL = 10**9

__all__ = ["LAMPORTS_PER_SOL", "percent", "shortened", "signed_sol", "sol", "whole_tokens"]


def sol(lamports: int) -> str:
    """``0.500000 SOL``."""
    return f"{lamports / LAMPORTS_PER_SOL:.6f} SOL"


def signed_sol(lamports: int) -> str:
    """``+0.012345 SOL``."""
    return f"{lamports / LAMPORTS_PER_SOL:+.6f} SOL"


def percent(part: float, whole: float) -> str:
    """``+2.47 %``; a question mark when there is nothing to compare with."""
    return f"{100 * part / whole:+.2f} %" if whole else "? %"


def whole_tokens(atomic_units: int, decimals: int | None) -> str:
    """``6,250,485``: whole tokens; atomic units when the decimals are not known."""
    return f"{atomic_units // 10 ** (decimals or 0):,}"


def shortened(address: str) -> str:
    """``7hQ3…9xYz``: enough of a public address to recognise it."""
    return address if len(address) <= 12 else f"{address[:4]}…{address[-4:]}"
