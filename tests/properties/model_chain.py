"""A chain with one token account, its openings, and nodes that tell the truth about it, are silent, late, or lie."""

from __future__ import annotations

import base64
from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs
from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.trading.solana.signing import read_signed_tx
from tests.support.market_transactions import blank, draft
from tests.support.selling import _sale_of

SLOT_S = 0.2
#: Slots without a block: a height is so much below its slot.
_SKIPPED = 1_000
LIFE_BLOCKS = 150
#: How far a node that lies about heights is ahead.
AHEAD = 500
#: How far behind is what a stale node, or a stale index, tells: one minute.
BEHIND = 300
_TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
_ABSURD = 2**63 + 7


@attrs.define
class ChainTx:
    """A transaction, from its first arrival on.

    Attributes:
        signature: base58.
        tokens: what it sells.
        height: of its blockhash.
        opening: whose tokens it was built to sell.
        slot: where it landed; None: it did not.
        failed: it landed with an error.
    """

    signature: str
    tokens: int
    height: int
    opening: int
    slot: int | None = None
    failed: bool = False

    @property
    def has_sold(self) -> bool:
        return self.slot is not None and not self.failed


class ModelChain:
    """Slots, one token account, and the transactions that arrived.

    Args:
        account: the token account, base58.
        wallet: its owner, base58.
    """

    def __init__(self, account: str, wallet: str) -> None:
        self.account, self.wallet = account, wallet
        self.slot = 100_000
        self.tokens = 0
        #: Number of the present opening; 0: it was never opened.
        self.opening = 0
        #: Balances, each from its slot on.
        self._balances: list[tuple[int, int]] = [(0, 0)]
        #: By blockhash: (tokens, height, opening) of everything that was built.
        self._built: dict[str, tuple[int, int, int]] = {}
        self.arrived: dict[str, ChainTx] = {}
        #: (slot, signature, whether it failed) of everything that touched the account, oldest first.
        self.touched: list[tuple[int, str, bool]] = []
        self._numbers = 0

    @property
    def height(self) -> int:
        return self.slot - _SKIPPED

    def build(self, tokens: int, opening: int) -> str:
        """An unsigned sale of an opening's tokens, with a blockhash of now."""
        self._numbers += 1
        taken = draft(_sale_of(tokens))
        blockhash = Hash(self._numbers.to_bytes(32, "big"))
        self._built[str(blockhash)] = tokens, self.height, opening
        return blank(MessageV0.try_compile(taken.payer, taken.instructions, [], blockhash))

    def take(self, tx_b64: str) -> ChainTx:
        """A signed transaction arrives."""
        signed = read_signed_tx(tx_b64)
        if signed.signature not in self.arrived:
            self.arrived[signed.signature] = ChainTx(signed.signature, *self._built[signed.blockhash])
        return self.arrived[signed.signature]

    def is_valid(self, blockhash: str, height: int) -> bool:
        return (
            blockhash in self._built and self._built[blockhash][1] <= height <= self._built[blockhash][1] + LIFE_BLOCKS
        )

    def may_land(self) -> list[ChainTx]:
        return [tx for tx in self.arrived.values() if tx.slot is None and self.height <= tx.height + LIFE_BLOCKS]

    def land(self, tx: ChainTx, *, fails: bool) -> None:
        tx.slot, tx.failed = self.slot, fails or not 0 < tx.tokens <= self.tokens
        if not tx.failed:
            self._set(self.tokens - tx.tokens)
        self.touched.append((self.slot, tx.signature, tx.failed))

    def trade(self, tokens: int) -> None:
        """Somebody else's transaction of this account: the user's own hand."""
        self._numbers += 1
        self._set(self.tokens + tokens)
        signature = str(Pubkey.from_bytes(self._numbers.to_bytes(32, "big"))) * 2
        self.touched.append((self.slot, signature, False))

    def _set(self, tokens: int) -> None:
        self.tokens = tokens
        self._balances.append((self.slot, tokens))

    def tokens_at(self, slot: int) -> int:
        return next(tokens for since, tokens in reversed(self._balances) if since <= slot)

    def sold_of(self, opening: int) -> int:
        return sum(tx.tokens for tx in self.arrived.values() if tx.has_sold and tx.opening == opening)


class Mood(Enum):
    """How a node answers."""

    HONEST = "honest"
    SILENT = "silent"
    #: Everything it tells is a minute old.
    LATE = "late"
    #: Its heights are far ahead.
    AHEAD = "ahead"
    #: What it says of signatures is a minute old, its slots are of now.
    STALE_INDEX = "stale index"
    NO_HISTORY = "no history"
    ODD_ITEMS = "odd items"
    ABSURD = "absurd numbers"


#: What is no lie.
TRUE_MOODS = (Mood.HONEST, Mood.SILENT, Mood.LATE)


class ModelNode:
    """Stands in for an ``RpcClient``: its JSON is looked at by the library as that of any node."""

    def __init__(self, chain: ModelChain, name: str, failed: Callable[[], None]) -> None:
        self.label = name
        self.mood = Mood.HONEST
        self.lies_told = 0
        self._chain = chain
        self._look = failed

    def held_for_s(self) -> float:
        return 0.0

    def warm(self, path: str | None, *, budget: object) -> None:
        """It is warm."""

    def call(self, method: str, params: list[Any], *, budget: object, secrets: object = ()) -> Any:
        self._look()
        if self.mood is Mood.SILENT:
            raise TxSubmitError("response_read", "it is silent", target=self.label)
        answer = getattr(self, "_" + method, None)
        if answer is None:
            raise TxSubmitError("rpc_error", "no such method", target=self.label, code=-32601)
        self.lies_told += self.mood not in TRUE_MOODS
        return answer(*params)

    def _view(self) -> int:
        return self._chain.slot - (BEHIND if self.mood is Mood.LATE else 0)

    def _told(self, number: int) -> int:
        if self.mood is Mood.ABSURD:
            return _ABSURD
        return number + (AHEAD if self.mood is Mood.AHEAD else 0)

    def _in_context(self, value: Any) -> dict[str, Any]:
        return {"context": {"slot": self._told(self._view())}, "value": value}

    def _isBlockhashValid(self, blockhash: str, *_: Any) -> Any:
        is_valid = self.mood is not Mood.AHEAD and self._chain.is_valid(blockhash, self._view() - _SKIPPED)
        return self._in_context(is_valid)

    def _getEpochInfo(self, *_: Any) -> Any:
        view = self._view()
        return {"absoluteSlot": self._told(view), "blockHeight": self._told(view - _SKIPPED)}

    def _getSlot(self, *_: Any) -> Any:
        return self._told(self._view())

    def _getBlockHeight(self, *_: Any) -> Any:
        return self._told(self._view() - _SKIPPED)

    def _getRecentPerformanceSamples(self, *_: Any) -> Any:
        return [{"numSlots": 300, "samplePeriodSecs": 60}]

    def _getSignatureStatuses(self, signatures: list[str], options: dict[str, Any] | None = None) -> Any:
        if self.mood is Mood.NO_HISTORY and (options or {}).get("searchTransactionHistory"):
            raise TxSubmitError("rpc_error", "Transaction history is not available", target=self.label, code=-32011)
        told: list[Any] = [self._status(signature) for signature in signatures]
        if self.mood is Mood.ODD_ITEMS and told:
            told[len(told) // 2] = "processed"
        return self._in_context(told)

    def _knows_until(self) -> int:
        return self._view() - (BEHIND if self.mood is Mood.STALE_INDEX else 0)

    def _status(self, signature: str) -> dict[str, Any] | None:
        tx = self._chain.arrived.get(signature)
        if tx is None or tx.slot is None or tx.slot > self._knows_until():
            return None
        if self.mood is Mood.NO_HISTORY and self._chain.slot - tx.slot > 300:
            return None
        error = {"InstructionError": [2, {"Custom": 6001}]} if tx.failed else None
        return {"slot": self._told(tx.slot), "err": error, "confirmationStatus": "confirmed", "confirmations": 1}

    def _getSignaturesForAddress(self, _address: str, options: dict[str, Any] | None = None) -> Any:
        if self.mood is Mood.NO_HISTORY:
            raise TxSubmitError("rpc_error", "Transaction history is not available", target=self.label, code=-32011)
        given = options or {}
        known = [one for one in self._chain.touched if one[0] <= self._knows_until()][::-1]
        if "until" in given:
            names = [signature for _, signature, _ in known]
            known = known[: names.index(given["until"])] if given["until"] in names else known
        if "before" in given:
            names = [signature for _, signature, _ in known]
            known = known[names.index(given["before"]) + 1 :] if given["before"] in names else known
        return [
            {
                "signature": signature, "slot": self._told(slot), "err": {"Custom": 1} if failed else None,
                "memo": None, "blockTime": 1_700_000_000, "confirmationStatus": "confirmed",
            }
            for slot, signature, failed in known[: given.get("limit", 1_000)]
        ]  # fmt: skip

    def _getMultipleAccounts(self, addresses: list[str], *_: Any) -> Any:
        return self._in_context([self._account(address) for address in addresses])

    def _getAccountInfo(self, address: str, *_: Any) -> Any:
        return self._in_context(self._account(address))

    def _account(self, address: str) -> dict[str, Any] | None:
        tokens = self._chain.tokens_at(self._view()) if address == self._chain.account else 0
        if not tokens:
            return None
        owner = bytes(Pubkey.from_string(self._chain.wallet))
        data = bytes(32) + owner + tokens.to_bytes(8, "little") + bytes(36) + b"\1" + bytes(56)
        encoded = base64.b64encode(data).decode()
        return {"owner": _TOKEN_PROGRAM, "lamports": 2_039_280, "data": [encoded, "base64"], "executable": False}
