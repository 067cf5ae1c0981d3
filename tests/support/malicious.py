"""Transactions that steal, with the signal or request that they pretend to answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lasersell_sync.codec import server_message_from_text
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal, PositionOpened, ServerMessage
from lasersell_sync.trading.guard import SigningGuard, TradeContext
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest

__all__ = ["MALICIOUS", "Malicious"]

_FILE = Path(__file__).parents[1] / "data" / "guard" / "malicious.json"
_REQUESTS = {"BuildSellTxRequest": BuildSellTxRequest, "BuildBuyTxRequest": BuildBuyTxRequest}
_TYPES = {"ExitSignalWithTx": ExitSignalWithTx.type, "MirrorBuySignal": MirrorBuySignal.type}


class Malicious(NamedTuple):
    """One of them.

    Attributes:
        wallet: the victim's.
        guard: the options of a guard that used to sign it.
        source: the signal (with the transaction), or the request.
        tx_b64: the transaction.
        announcement: what ``position_opened`` said, where it was known.
    """

    name: str
    wallet: str
    guard: Mapping[str, Any]
    source: ExitSignalWithTx | MirrorBuySignal | BuildSellTxRequest | BuildBuyTxRequest
    tx_b64: str
    announcement: PositionOpened | None

    def check(self, guard: SigningGuard) -> None:
        """Raises UnsafeTransactionError, one hopes."""
        context = None if self.announcement is None else TradeContext(announcement=self.announcement)
        if isinstance(self.source, (ExitSignalWithTx, MirrorBuySignal)):
            guard.check(self.source, wallet=self.wallet, context=context)
        else:
            guard.check(self.tx_b64, wallet=self.wallet, request=self.source, context=context)


def _message(kind: str, fields: Mapping[str, object]) -> ServerMessage:
    return server_message_from_text(json.dumps({"type": kind, **fields}))


def _read(entry: Mapping[str, Any]) -> Malicious:
    fields, tx_b64 = entry["fields"], entry["base64"]
    source: Any
    if entry["source"] in _REQUESTS:
        source = _REQUESTS[entry["source"]](**fields)
    else:
        source = _message(_TYPES[entry["source"]], {**fields, "unsigned_tx_b64": tx_b64})
    opened: Any = None
    if entry["announcement"] is not None:
        tokens = fields.get("position_tokens", 1)
        account = fields.get("token_account", entry["wallet"])
        about = {"position_id": 1, "wallet_pubkey": entry["wallet"], "mint": fields["mint"], "token_account": account}
        opened = _message(PositionOpened.type, {**about, "tokens": tokens, "slot": 1, **entry["announcement"]})
    return Malicious(entry["name"], entry["wallet"], entry["guard"], source, tx_b64, opened)


MALICIOUS = [_read(entry) for entry in json.loads(_FILE.read_text(encoding="utf-8"))]
