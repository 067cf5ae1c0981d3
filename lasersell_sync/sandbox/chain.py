"""The chain: takes signed transactions in, lands them after a delay, and remembers what became of them.

A transaction does what its instructions say, all or nothing; a failed one costs its fee. One whose blockhash expires
before it lands, or whose payer cannot pay the fee, never lands and leaves no trace, as on a real cluster.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from solders.instruction import AccountMeta
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.ledger import InsufficientFunds, Ledger, TokenChanges
from lasersell_sync.sandbox.programs import Programs, priority_fee_lamports
from lasersell_sync.sandbox.runtime import Invocation, ProgramError, Swap
from lasersell_sync.sandbox.slots import SlotClock
from lasersell_sync.sandbox.summaries import summarise

_log = logging.getLogger("lasersell_sync.sandbox.chain")

BASE_FEE_LAMPORTS_PER_SIGNATURE = 5_000
#: A transaction travels in one packet.
MAX_TRANSACTION_BYTES = 1_232
#: Slots after which a landed transaction counts as final.
FINAL_AFTER_SLOTS = 32

#: Solana's JSON form of a transaction error: ``"AccountNotFound"``, ``{"InstructionError": [2, {"Custom": 1}]}``.
TransactionError = str | dict[str, list[Any]]


class TransactionRefused(Exception):
    """A transaction is not accepted; carries the JSON-RPC error."""

    def __init__(self, code: int, message: str, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """A landed transaction. ``instructions`` are one-line summaries; ``err`` is None on success."""

    signature: str
    slot: int
    err: TransactionError | None
    fee_lamports: int
    fee_payer: str
    instructions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Execution:
    """What running a transaction did; on failure no swaps and no token changes."""

    err: TransactionError | None
    fee_lamports: int
    swaps: tuple[Swap, ...]
    token_changes: TokenChanges
    logs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Landing:
    """A transaction that has just landed."""

    record: TransactionRecord
    execution: Execution


def account_metas(message: Message | MessageV0) -> list[AccountMeta]:
    """The message's accounts with their flags, from its header."""
    header, keys = message.header, message.account_keys
    signers = header.num_required_signatures
    metas = []
    for index, key in enumerate(keys):
        if index < signers:
            writable = index < signers - header.num_readonly_signed_accounts
        else:
            writable = index < len(keys) - header.num_readonly_unsigned_accounts
        metas.append(AccountMeta(key, is_signer=index < signers, is_writable=writable))
    return metas


class Chain:
    """Mempool, execution and history.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        ledger: Ledger,
        programs: Programs,
        slots: SlotClock,
        *,
        now_s: Callable[[], float],
        landing_delay_s: float,
    ) -> None:
        self._ledger = ledger
        self._programs = programs
        self._now_s = now_s
        self._landing_delay_s = landing_delay_s
        self.slots = slots
        #: (due, order of arrival, transaction)
        self._pending: list[tuple[float, int, VersionedTransaction]] = []
        self._pending_signatures: set[Signature] = set()
        self._arrivals = 0
        self._landed: dict[Signature, TransactionRecord] = {}

    # -- taking in

    def admit(self, transaction: VersionedTransaction, *, skip_preflight: bool) -> Signature:
        """Accept a transaction for landing; the same one twice is executed once.

        Raises ``TransactionRefused``: malformed (-32602), bad signature (-32003), preflight failed (-32002). With
        ``skip_preflight`` the last is not looked at: what cannot work then fails on the chain, or never lands.
        """
        self._sanitise(transaction)
        # Verified before it is looked up: a known signature over other bytes is a forgery, not a repetition.
        if not all(transaction.verify_with_results()):
            raise TransactionRefused(-32003, "Transaction signature verification failure")
        signature = transaction.signatures[0]
        if signature in self._landed or signature in self._pending_signatures:
            return signature
        if not skip_preflight:
            self._preflight(transaction)
        self._arrivals += 1
        heapq.heappush(self._pending, (self._now_s() + self._landing_delay_s, self._arrivals, transaction))
        self._pending_signatures.add(signature)
        return signature

    def _sanitise(self, transaction: VersionedTransaction) -> None:
        try:
            if not isinstance(transaction.message, (Message, MessageV0)):
                raise TypeError("only legacy and version 0 messages are supported")
            transaction.sanitize()
            signatures, required = len(transaction.signatures), transaction.message.header.num_required_signatures
            if signatures != required:
                raise ValueError(f"{signatures} signatures, {required} required")
        except Exception as error:  # solders has its own exception type here
            message = "invalid transaction: Transaction failed to sanitize accounts offsets correctly"
            raise TransactionRefused(-32602, message) from error

    def _preflight(self, transaction: VersionedTransaction) -> None:
        err, execution = self.simulate(transaction)
        if err is None:
            return
        data: dict[str, object] = {
            "accounts": None,
            "err": err,
            "logs": list(execution.logs) if execution else [],
            "unitsConsumed": 0,
        }
        raise TransactionRefused(-32002, f"Transaction simulation failed: {describe_error(err)}", data)

    def simulate(self, transaction: VersionedTransaction) -> tuple[TransactionError | None, Execution | None]:
        """Run a transaction and take everything back: (error or None, what it would have done)."""
        err = self._obstacle(transaction)
        if err is not None:
            return err, None
        self._ledger.begin()
        try:
            self._ledger.debit(transaction.message.account_keys[0], self._fee_lamports(transaction))
            swaps: list[Swap] = []
            logs: list[str] = []
            err = self._run(transaction, swaps, logs)
        finally:
            self._ledger.rollback()
        return err, Execution(err, self._fee_lamports(transaction), tuple(swaps), {}, tuple(logs))

    def _obstacle(self, transaction: VersionedTransaction) -> TransactionError | None:
        """Why a transaction cannot even start, or None."""
        message = transaction.message
        if isinstance(message, MessageV0) and message.address_table_lookups:
            return "AddressLookupTableNotFound"
        if not self.slots.accepts(message.recent_blockhash):
            return "BlockhashNotFound"
        balance_lamports = self._ledger.lamports(message.account_keys[0])
        if balance_lamports == 0:
            return "AccountNotFound"
        if balance_lamports < self._fee_lamports(transaction):
            return "InsufficientFundsForFee"
        return None

    # -- landing

    def next_landing_s(self) -> float | None:
        """When the next pending transaction is due, on the monotonic clock."""
        return self._pending[0][0] if self._pending else None

    def land_due(self) -> list[Landing]:
        """Execute what is due, in order of arrival."""
        landings = []
        while self._pending and self._pending[0][0] <= self._now_s():
            transaction = heapq.heappop(self._pending)[2]
            self._pending_signatures.discard(transaction.signatures[0])
            obstacle = self._obstacle(transaction)
            if obstacle is None:
                landings.append(self._land(transaction))
            else:
                _log.info("dropped %s: %s", transaction.signatures[0], obstacle)
        return landings

    def _land(self, transaction: VersionedTransaction) -> Landing:
        execution = self._execute(transaction)
        signature = transaction.signatures[0]
        record = TransactionRecord(
            signature=str(signature),
            slot=self.slots.slot(),
            err=execution.err,
            fee_lamports=execution.fee_lamports,
            fee_payer=str(transaction.message.account_keys[0]),
            instructions=tuple(summarise(program, data) for program, data in _instructions(transaction)),
        )
        self._landed[signature] = record
        _log.info("landed %s in slot %d, err %s", signature, record.slot, record.err)
        return Landing(record, execution)

    def _execute(self, transaction: VersionedTransaction) -> Execution:
        fee_lamports = self._fee_lamports(transaction)
        self._ledger.debit(transaction.message.account_keys[0], fee_lamports)
        swaps: list[Swap] = []
        logs: list[str] = []
        self._ledger.begin()
        try:
            err = self._run(transaction, swaps, logs)
        except BaseException:
            self._ledger.rollback()
            raise
        if err is not None:
            self._ledger.rollback()
            return Execution(err, fee_lamports, (), {}, tuple(logs))
        return Execution(None, fee_lamports, tuple(swaps), self._ledger.commit(), tuple(logs))

    def _run(self, transaction: VersionedTransaction, swaps: list[Swap], logs: list[str]) -> TransactionError | None:
        message = transaction.message
        assert isinstance(message, (Message, MessageV0))  # sanitised on the way in
        metas = account_metas(message)
        if not all(self._programs.knows(program) for program, _ in _instructions(transaction)):
            return "ProgramAccountNotFound"
        for index, instruction in enumerate(message.instructions):
            program = message.account_keys[instruction.program_id_index]
            accounts = [metas[account] for account in bytes(instruction.accounts)]
            invocation = Invocation(self._ledger, accounts, bytes(instruction.data), swaps)
            logs.append(f"Program {program} invoke [1]")
            try:
                self._programs.execute(program, invocation)
            except (ProgramError, InsufficientFunds) as error:
                logs.append(f"Program {program} failed: {error}")
                detail = error.detail if isinstance(error, ProgramError) else "InsufficientFunds"
                return {"InstructionError": [index, detail]}
            logs.append(f"Program {program} success")
        return None

    def _fee_lamports(self, transaction: VersionedTransaction) -> int:
        base_lamports = BASE_FEE_LAMPORTS_PER_SIGNATURE * transaction.message.header.num_required_signatures
        return base_lamports + priority_fee_lamports(_instructions(transaction))

    # -- history

    def status(self, signature: Signature) -> dict[str, object] | None:
        """The ``getSignatureStatuses`` entry of a landed transaction; None for one that has not landed."""
        record = self._landed.get(signature)
        if record is None:
            return None
        age_slots = self.slots.slot() - record.slot
        stage = "processed" if age_slots < 1 else "confirmed" if age_slots < FINAL_AFTER_SLOTS else "finalized"
        return {
            "slot": record.slot,
            "confirmations": None if stage == "finalized" else age_slots,
            "err": record.err,
            "status": {"Ok": None} if record.err is None else {"Err": record.err},
            "confirmationStatus": stage,
        }

    def records(self) -> list[TransactionRecord]:
        """Every landed transaction, oldest first."""
        return list(self._landed.values())


def _instructions(transaction: VersionedTransaction) -> list[tuple[Pubkey, bytes]]:
    message = transaction.message
    return [
        (message.account_keys[instruction.program_id_index], bytes(instruction.data))
        for instruction in message.instructions
    ]


_DESCRIPTIONS = {
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "BlockhashNotFound": "Blockhash not found",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "ProgramAccountNotFound": "Attempt to load a program that does not exist",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
}


def describe_error(err: TransactionError) -> str:
    """The sentence a node writes for an error."""
    if isinstance(err, str):
        return _DESCRIPTIONS.get(err, err)
    index, detail = err["InstructionError"]
    return f"Error processing Instruction {index}: {ProgramError(detail)}"
