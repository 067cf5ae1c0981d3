"""A witness for the demo: asks the chain itself what happened, with nothing of the client in between.

Python's own HTTP and JSON and no session state: were the client wrong about a sale, this would say so.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Ledger", "LedgerError"]

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
