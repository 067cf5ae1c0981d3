"""Amounts, addresses and ledger lines in words for people."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

__all__ = ["LAMPORTS_PER_SOL", "Ledger", "LedgerError", "percent", "shortened", "signed_sol", "sol", "whole_tokens"]


# ── How amounts and addresses are written for people ────────────────────────────────────────────────────────────────


LAMPORTS_PER_SOL = 10**9


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


# ── A witness for the demo: asks the chain itself what happened, with nothing of the client in between ──────────────
# Python's own HTTP and JSON and no session state: were the client wrong about a sale, this would say so.


_TIMEOUT_S = 5.0


class LedgerError(Exception):
    """The chain could not be asked."""


class Ledger:
    """Reads balances and signature statuses from a Solana JSON-RPC node on this machine.

    Args:
        rpc_url: ``http://host:port``.

    Threads: any; each question is a connection of its own.
    """

    def __init__(self, rpc_url: str) -> None:
        self._host = urlsplit(rpc_url).netloc

    def balance_lamports(self, pubkey: str) -> int:
        """Lamports of an account. Raises LedgerError."""
        return int(self._ask("getBalance", [pubkey])["value"])

    def token_balance(self, owner: str, mint: str) -> int:
        """Atomic units of a token that an owner holds, in all accounts together. Raises LedgerError."""
        answer = self._ask("getTokenAccountsByOwner", [owner, {"mint": mint}, {"encoding": "jsonParsed"}])
        accounts = [entry["account"]["data"]["parsed"]["info"] for entry in answer["value"]]
        return sum(int(account["tokenAmount"]["amount"]) for account in accounts)

    def succeeded(self, signature: str) -> bool:
        """True when the transaction landed without an error. Raises LedgerError."""
        status = self._ask("getSignatureStatuses", [[signature], {"searchTransactionHistory": True}])["value"][0]
        return status is not None and status["err"] is None

    def _ask(self, method: str, params: list[Any]) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", "/", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LedgerError(f"{method}: no answer from the chain ({error})") from error
        finally:
            connection.close()
        if "result" not in answer:
            raise LedgerError(f"{method}: {answer.get('error')}")
        return answer["result"]
