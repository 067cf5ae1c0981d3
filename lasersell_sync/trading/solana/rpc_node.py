"""The questions that are put to a Solana node about transactions, and answers that mean what they should.

A node may answer anything: every answer is looked at, and one that is not of the documented shape is an error
(``TxSubmitError``, ``decode_response``), never a "no". See solana.com/docs/rpc for the methods.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, TypeGuard

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.solana.expiry import STATUS_CACHE_SLOTS, Tip
from lasersell_sync.trading.solana.json_rpc import RpcClient

__all__ = [
    "BEHIND",
    "MAX_ACCOUNTS",
    "MAX_SIGNATURES",
    "MAX_STATUSES",
    "AccountData",
    "Accounts",
    "AddressTx",
    "Landing",
    "RpcNode",
    "SimulationAnswer",
    "Statuses",
    "Unreadable",
]

log = _log.logger("trading")

#: ``getSignatureStatuses`` takes so many signatures, ``getMultipleAccounts`` so many addresses.
MAX_STATUSES: Final = 256
MAX_ACCOUNTS: Final = 100
#: ``getSignaturesForAddress`` lists so many at once.
MAX_SIGNATURES: Final = 1_000
#: The JSON-RPC error of a node whose state is older than ``minContextSlot``.
BEHIND: Final = -32016

#: agave ``rpc-client-api/src/custom_error.rs``: JSON_RPC_SERVER_ERROR_TRANSACTION_HISTORY_NOT_AVAILABLE.
NO_HISTORY_CODE: Final = -32011
#: Several nodes may stand behind one URL, and one may be started anew with a history.
_ASK_FOR_HISTORY_AGAIN_S: Final = 600.0

_LEVELS: Final = {"processed", "confirmed", "finalized"}
#: Slots and heights are u64 on the wire. No chain reaches the upper half, and SQLite does not hold it.
_COUNT_MAX: Final = 2**63 - 1


#: Of ``getRecentPerformanceSamples``: the newest few minutes.
_SAMPLES: Final = 4


class Landing(NamedTuple):
    """What a node knows of a transaction.

    Attributes:
        slot: where it stands.
        level: ``processed``, ``confirmed`` or ``finalized``.
        error: the chain's error as JSON, shortened; None when there is none.
    """

    slot: int
    level: str
    error: str | None

    @property
    def is_sure(self) -> bool:
        """At commitment ``confirmed`` or ``finalized``."""
        return self.level != "processed"


class Unreadable(Enum):
    """Stands for one item of an answer that is not of the documented shape: it says neither yes nor no."""

    ITEM = "unreadable"


class Statuses(NamedTuple):
    """An answer of ``getSignatureStatuses``.

    Attributes:
        slot: of the state that was searched.
        landings: one for each signature, in order; None where there is none.
        searched_history: False when the node keeps no history, so that only its newest slots were searched.
    """

    slot: int
    landings: list[Landing | Unreadable | None]
    searched_history: bool


class AddressTx(NamedTuple):
    """One transaction that names an address.

    Attributes:
        signature: base58.
        slot: where it stands.
        has_failed: the chain took back what it did, so it changed nothing but its payer's lamports.
        time_s: Unix seconds of its block; None: the node does not say.
    """

    signature: str
    slot: int
    has_failed: bool
    time_s: int | None


class AccountData(NamedTuple):
    """An account's owner (base58), bytes and lamports; None: the node did not say how many."""

    owner: str
    data: bytes
    lamports: int | None = None


class Accounts(NamedTuple):
    """An answer of ``getMultipleAccounts``.

    Attributes:
        slot: of the state that was looked at.
        found: one for each address, in order; None where there is none.
    """

    slot: int
    found: list[AccountData | None]


class SimulationAnswer(NamedTuple):
    """An answer of ``simulateTransaction``.

    Attributes:
        slot: of the state that the simulation began from.
        value: the answer's value: an object.
        accounts: those that were asked for, as they are afterwards; None where there is no such list.
    """

    slot: int
    value: dict[str, Any]
    accounts: list[AccountData | None] | None


class RpcNode:
    """One node's answers.

    Every method is one attempt within ``budget``, and raises ``TxSubmitError``: ``request_send response_read
    http_status decode_response rpc_error``.

    Threads: any.
    """

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        #: The last question for accounts or blocks went without an answer: others are asked first.
        self.is_silent = False
        #: Until then the history is not asked for: the node said that it keeps none. Monotonic seconds.
        self._no_history_until = 0.0

    @property
    def label(self) -> str:
        """What errors call it."""
        return self._client.label

    def is_blockhash_valid(self, blockhash: str, *, budget: TimeBudget) -> tuple[bool, int]:
        """Whether the node's newest state takes transactions with this blockhash, and that state's slot."""
        params = [blockhash, {"commitment": "processed"}]
        slot, value = self._in_context(self._client.call("isBlockhashValid", params, budget=budget))
        if not isinstance(value, bool):
            raise self._senseless("isBlockhashValid")
        return value, slot

    def tip(self, commitment: str, *, budget: TimeBudget) -> Tip:
        """The newest block of a commitment."""
        answer = self._client.call("getEpochInfo", [{"commitment": commitment}], budget=budget)
        slot, height = (answer.get(name) for name in ("absoluteSlot", "blockHeight")) if _is_object(answer) else (0, -1)
        # Every block has a slot of its own: a height above its slot is no height.
        if not _is_count(slot) or not _is_count(height) or height > slot:
            raise self._senseless("getEpochInfo")
        return Tip(slot, height)

    def statuses(self, signatures: Sequence[str], *, budget: TimeBudget) -> Statuses:
        """What is known of up to ``MAX_STATUSES`` transactions; the history is searched where the node keeps it."""
        searches = time.monotonic() >= self._no_history_until
        try:
            answer = self._ask_for_statuses(signatures, budget, search_history=searches)
        except TxSubmitError as error:
            if not searches or error.code != NO_HISTORY_CODE:
                raise
            log.warning(
                "%s keeps no transaction history: a landing that it reports counts, and its silence only for the "
                "newest %d slots. Start it with --enable-rpc-transaction-history, or add a node that keeps one",
                self.label, STATUS_CACHE_SLOTS,
            )  # fmt: skip
            self._no_history_until = time.monotonic() + _ASK_FOR_HISTORY_AGAIN_S
            searches = False
            answer = self._ask_for_statuses(signatures, budget, search_history=searches)
        slot, values = self._in_context(answer)
        if not isinstance(values, list) or len(values) != len(signatures):
            raise self._senseless("getSignatureStatuses")
        return Statuses(slot, [None if value is None else _landing(value) for value in values], searches)

    def _ask_for_statuses(self, signatures: Sequence[str], budget: TimeBudget, *, search_history: bool) -> Any:
        params = [list(signatures), {"searchTransactionHistory": search_history}]
        return self._client.call("getSignatureStatuses", params, budget=budget)

    def transactions_of(
        self, address: str, *, budget: TimeBudget, min_context_slot: int, before: str | None = None
    ) -> list[AddressTx]:
        """Confirmed transactions that name an address, newest first, up to ``MAX_SIGNATURES``.

        Args:
            address: base58.
            budget: the whole attempt stays within what is left.
            min_context_slot: a node whose state is older answers with the error ``BEHIND``.
            before: the signature from which on older ones are listed; None: from the newest.
        """
        options: dict[str, object] = {
            "commitment": "confirmed", "limit": MAX_SIGNATURES, "minContextSlot": min_context_slot,
        }  # fmt: skip
        if before is not None:
            options["before"] = before
        answer = self._client.call("getSignaturesForAddress", [address, options], budget=budget)
        listed = [_address_tx(each) for each in answer] if isinstance(answer, list) else [None]
        read = [each for each in listed if each is not None]
        # Newest first: an item out of order may hide another one.
        is_ordered = all(newer.slot >= older.slot for newer, older in itertools.pairwise(read))
        if len(read) != len(listed) or len(read) > MAX_SIGNATURES or not is_ordered:
            raise self._senseless("getSignaturesForAddress")
        return read

    def first_block(self, *, budget: TimeBudget) -> int:
        """The slot of the oldest block that the node still has."""
        answer = self._client.call("getFirstAvailableBlock", [], budget=budget)
        if not _is_count(answer):
            raise self._senseless("getFirstAvailableBlock")
        return answer

    def accounts(
        self,
        addresses: Sequence[str],
        *,
        budget: TimeBudget,
        commitment: str = "confirmed",
        min_context_slot: int | None = None,
    ) -> Accounts:
        """Up to ``MAX_ACCOUNTS`` accounts."""
        options: dict[str, object] = {"encoding": "base64", "commitment": commitment}
        if min_context_slot is not None:
            options["minContextSlot"] = min_context_slot
        answer = self._client.call("getMultipleAccounts", [list(addresses), options], budget=budget)
        slot, values = self._in_context(answer)
        if not isinstance(values, list) or len(values) != len(addresses):
            raise self._senseless("getMultipleAccounts")
        return Accounts(slot, self._accounts(values, "getMultipleAccounts"))

    def simulate(
        self, tx_b64: str, watched: Sequence[str], *, budget: TimeBudget, min_context_slot: int | None = None
    ) -> SimulationAnswer:
        """What a transaction would do to the accounts that it may write to, from the newest state.

        Args:
            tx_b64: the transaction, signed or not; its blockhash does not count.
            watched: accounts of the transaction.
            budget: the whole attempt stays within what is left.
            min_context_slot: a node whose state is older answers with the error ``BEHIND``.
        """
        options: dict[str, object] = {
            "encoding": "base64", "commitment": "processed", "sigVerify": False, "replaceRecentBlockhash": True,
            "innerInstructions": True, "accounts": {"encoding": "base64", "addresses": list(watched)},
        }  # fmt: skip
        if min_context_slot is not None:
            options["minContextSlot"] = min_context_slot
        answer = self._client.call("simulateTransaction", [tx_b64, options], budget=budget, secrets=(tx_b64,))
        slot, value = self._in_context(answer)
        if not _is_object(value) or "err" not in value:
            raise self._senseless("simulateTransaction")
        accounts = value.get("accounts")
        read = self._accounts(accounts, "simulateTransaction") if isinstance(accounts, list) else None
        return SimulationAnswer(slot, value, read)

    def slot_s(self, *, budget: TimeBudget) -> float:
        """How many seconds a slot took lately, by the node's newest performance samples (of a minute each)."""
        answer = self._client.call("getRecentPerformanceSamples", [_SAMPLES], budget=budget)
        samples = answer if isinstance(answer, list) else []
        pairs = [(one.get("samplePeriodSecs"), one.get("numSlots")) for one in samples if _is_object(one)]
        counted = [(period, slots) for period, slots in pairs if _is_count(period) and _is_count(slots) and slots]
        if not counted or len(counted) != len(samples):
            raise self._senseless("getRecentPerformanceSamples")
        return sum(period for period, _ in counted) / sum(slots for _, slots in counted)

    def rent_lamports(self, data_bytes: int, *, budget: TimeBudget) -> int:
        """What an account of so many bytes must hold."""
        answer = self._client.call("getMinimumBalanceForRentExemption", [data_bytes], budget=budget)
        if not _is_count(answer):
            raise self._senseless("getMinimumBalanceForRentExemption")
        return answer

    def _accounts(self, values: list[Any], method: str) -> list[AccountData | None]:
        return [None if value is None else self._account(value, method) for value in values]

    def _account(self, value: Any, method: str) -> AccountData:
        if _is_object(value) and isinstance(value.get("owner"), str):
            data, lamports = value.get("data"), value.get("lamports")
            if isinstance(data, list) and len(data) == 2 and isinstance(data[0], str) and data[1] == "base64":
                try:
                    raw = base64.b64decode(data[0], validate=True)
                    return AccountData(value["owner"], raw, lamports if _is_count(lamports) else None)
                except (binascii.Error, ValueError):
                    pass
        raise self._senseless(method)

    def warm(self, *, budget: TimeBudget) -> None:
        """Opens a connection and leaves it ready."""
        self._client.warm(None, budget=budget)

    def _in_context(self, answer: Any) -> tuple[int, Any]:
        """The slot and the value of an answer that has a context."""
        context = answer.get("context") if isinstance(answer, dict) else None
        slot = context.get("slot") if isinstance(context, dict) else None
        if not _is_count(slot) or "value" not in answer:
            raise TxSubmitError("decode_response", "the answer has no context and value", target=self.label)
        return slot, answer["value"]

    def _senseless(self, method: str) -> TxSubmitError:
        # Not quoted: whoever answers may send our key back.
        return TxSubmitError("decode_response", f"the answer is not one to {method}", target=self.label)


def _address_tx(item: Any) -> AddressTx | None:
    if not _is_object(item) or not isinstance(item.get("signature"), str) or "err" not in item:
        return None
    slot, time_s = item.get("slot"), item.get("blockTime")
    if not _is_count(slot) or not (time_s is None or _is_count(time_s)):
        return None
    return AddressTx(item["signature"], slot, item["err"] is not None, time_s)


def _landing(status: Any) -> Landing | Unreadable:
    if not _is_object(status) or not _is_count(status.get("slot")) or "err" not in status:
        return Unreadable.ITEM
    level = status.get("confirmationStatus")
    if level is None:  # nodes of before 2020 say that it is finalized by null confirmations
        level = "finalized" if status.get("confirmations", 0) is None else "processed"
    if level not in _LEVELS:
        return Unreadable.ITEM
    error = status["err"]
    words = None if error is None else _log.shorten(json.dumps(error))
    return Landing(status["slot"], level, words)


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT_MAX
