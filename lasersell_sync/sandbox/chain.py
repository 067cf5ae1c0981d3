"""The chain: takes signed transactions in, lands them after a delay, and remembers what became of them.

A transaction does what its instructions say, all or nothing; a failed one costs its fee. One whose blockhash expires
before it lands, or whose payer cannot pay the fee, never lands and leaves no trace, as on a real cluster. Neither does
one that gets lost on the way, which the chain is told to let happen, by chance or to order.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from solders.instruction import AccountMeta
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.account_data import AccountInfo, account_info
from lasersell_sync.sandbox.addresses import SYSTEM_PROGRAM, TIP_ACCOUNTS
from lasersell_sync.sandbox.budget import BUILTIN_PROGRAMS, InvalidBudget, read_budget, units_used
from lasersell_sync.sandbox.ledger import InsufficientFunds, Ledger, TokenChanges
from lasersell_sync.sandbox.programs import Programs
from lasersell_sync.sandbox.runtime import ErrorDetail, Invocation, ProgramError, Swap
from lasersell_sync.sandbox.slots import SlotClock, commitment_after
from lasersell_sync.sandbox.summaries import summarise

_log = logging.getLogger("lasersell_sync.sandbox.chain")

BASE_FEE_LAMPORTS_PER_SIGNATURE = 5_000
#: A transaction travels in one packet.
MAX_TRANSACTION_BYTES = 1_232
#: A node sends a transaction to the leaders again this often, until it lands, expires, or ``maxRetries`` is used up.
REBROADCAST_S = 2.0
#: Without ``searchTransactionHistory`` a status is remembered for this many slots.
STATUS_CACHE_SLOTS = 300

#: Solana's JSON form of a transaction error: ``"AccountNotFound"``, ``{"InstructionError": [2, {"Custom": 1}]}``.
TransactionError = str | dict[str, Any]


class TransactionRefused(Exception):
    """A transaction is not accepted; carries the JSON-RPC error."""

    def __init__(self, code: int, message: str, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """A landed transaction. ``instructions`` are one-line summaries; ``err`` is None on success.

    ``tip_lamports`` is what it paid to senders' tip accounts, and ``swaps`` the trades it made, if it succeeded.
    """

    signature: str
    slot: int
    err: TransactionError | None
    fee_lamports: int
    fee_payer: str
    instructions: tuple[str, ...]
    tip_lamports: int = 0
    units_used: int = 0
    swaps: tuple[Swap, ...] = ()


@dataclass(frozen=True, slots=True)
class Execution:
    """What running a transaction did; on failure no swaps and no token changes."""

    err: TransactionError | None
    fee_lamports: int
    swaps: tuple[Swap, ...]
    token_changes: TokenChanges
    logs: tuple[str, ...]
    units_used: int = 0


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do now; ``accounts`` are those that were asked for, as it would leave them."""

    err: TransactionError | None
    logs: tuple[str, ...] = ()
    units_used: int = 0
    swaps: tuple[Swap, ...] = ()
    accounts: tuple[AccountInfo | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What is to become of an accepted transaction, in place of landing after the usual delay.

    ``"late"`` lands after ``landing_delay_s`` if its blockhash still lives then. ``"lost"`` loses what the node sends,
    now and on its own later attempts; the client may send the same bytes again, and meets the next fate then.
    ``"never"`` loses the transaction for good, however often the same bytes are sent.
    """

    kind: Literal["late", "lost", "never"]
    landing_delay_s: float = 0.0


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


@dataclass(slots=True)
class _Flight:
    """A transaction between acceptance and landing. ``retries`` is how often the node may still send it again."""

    transaction: VersionedTransaction
    lands: bool
    retries: float


def sanitise(transaction: VersionedTransaction) -> None:
    """Look at what can be seen without state. Raises ``TransactionRefused`` (-32602)."""
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


def message_of(transaction: VersionedTransaction) -> Message | MessageV0:
    """The message of a transaction that was sanitised."""
    assert isinstance(transaction.message, (Message, MessageV0))
    return transaction.message


class Chain:
    """Mempool, execution and history.

    Args:
        loss_probability: The share of the node's sendings that get lost, from 0 to 1; drawn from ``seed``.

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
        loss_probability: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._ledger = ledger
        self._programs = programs
        self._now_s = now_s
        self.slots = slots
        self.landing_delay_s = landing_delay_s
        self.loss_probability = loss_probability
        self._losses = random.Random(f"{seed}:losses")  # noqa: S311 (chance, not a secret)
        #: what happens to the next accepted transactions, one each
        self.fates: deque[Fate] = deque()
        #: (due, order of arrival, transaction)
        self._flights: list[tuple[float, int, _Flight]] = []
        self._arrivals = 0
        #: sure to reach a leader: the same bytes again change nothing
        self._landing: set[Signature] = set()
        #: lost, and the node will try again
        self._retrying: set[Signature] = set()
        self._doomed: set[Signature] = set()
        self._landed: dict[Signature, TransactionRecord] = {}

    # -- taking in

    def admit(
        self,
        transaction: VersionedTransaction,
        *,
        skip_preflight: bool,
        max_retries: int | None = None,
        certain: bool = False,
    ) -> Signature:
        """Accept a transaction for landing; the same one twice is executed once.

        Args:
            transaction: With all its signatures.
            skip_preflight: Accept it without trying it: what cannot work then fails on the chain, or never lands.
            max_retries: How often the node sends it again if it gets lost; None: until its blockhash expires.
            certain: It cannot get lost, and meets no ordered fate.

        Raises ``TransactionRefused``: malformed (-32602), bad signature (-32003), preflight failed (-32002).
        """
        sanitise(transaction)
        # Verified before it is looked up: a known signature over other bytes is a forgery, not a repetition.
        self._verify(transaction)
        if not skip_preflight:
            self._preflight(transaction)
        signature = transaction.signatures[0]
        if signature not in self._landed and signature not in self._landing:
            if certain:
                self._let_land(transaction, self.landing_delay_s)
            else:
                self._send(transaction, math.inf if max_retries is None else max_retries)
        return signature

    def _let_land(self, transaction: VersionedTransaction, delay_s: float) -> None:
        self._landing.add(transaction.signatures[0])
        self._take_off(delay_s, _Flight(transaction, lands=True, retries=0))

    def _send(self, transaction: VersionedTransaction, retries: float) -> None:
        """What a node does with a transaction: send it to the leaders, and later again."""
        signature = transaction.signatures[0]
        if signature in self._doomed:
            return
        fate = self.fates.popleft() if self.fates else None
        if fate is not None and fate.kind != "late":
            if fate.kind == "never":
                self._doomed.add(signature)
            _log.info("%s is lost to order", signature)
        elif fate is None and self._losses.random() < self.loss_probability:
            _log.info("%s got lost", signature)
            if retries and signature not in self._retrying:
                self._retrying.add(signature)
                self._take_off(REBROADCAST_S, _Flight(transaction, lands=False, retries=retries - 1))
        else:
            self._let_land(transaction, self.landing_delay_s if fate is None else fate.landing_delay_s)

    def _take_off(self, delay_s: float, flight: _Flight) -> None:
        self._arrivals += 1
        heapq.heappush(self._flights, (self._now_s() + delay_s, self._arrivals, flight))

    def _verify(self, transaction: VersionedTransaction) -> None:
        if not all(transaction.verify_with_results()):
            raise TransactionRefused(-32003, "Transaction signature verification failure")

    def _preflight(self, transaction: VersionedTransaction) -> None:
        simulation = self._simulate(transaction)
        if simulation.err is None:
            return
        data: dict[str, object] = {
            "accounts": None,
            "err": simulation.err,
            "innerInstructions": None,
            "logs": list(simulation.logs),
            "returnData": None,
            "unitsConsumed": simulation.units_used,
        }
        raise TransactionRefused(-32002, f"Transaction simulation failed: {describe_error(simulation.err)}", data)

    def simulate(
        self,
        transaction: VersionedTransaction,
        *,
        verify: bool = False,
        any_blockhash: bool = False,
        watched: Sequence[Pubkey] | None = None,
    ) -> Simulation:
        """Run a transaction and take everything back.

        Args:
            transaction: Need not be signed.
            verify: Look at the signatures.
            any_blockhash: Take its blockhash for a good one.
            watched: Tell what state these accounts would be left in.

        Raises ``TransactionRefused``: malformed (-32602), bad signature (-32003).
        """
        sanitise(transaction)
        if verify:
            self._verify(transaction)
        return self._simulate(transaction, any_blockhash=any_blockhash, watched=watched)

    def _simulate(
        self,
        transaction: VersionedTransaction,
        *,
        any_blockhash: bool = False,
        watched: Sequence[Pubkey] | None = None,
    ) -> Simulation:
        err = self._obstacle(transaction, any_blockhash=any_blockhash)
        if err is not None:
            return Simulation(err, accounts=None if watched is None else tuple(map(self.account, watched)))
        self._ledger.begin()
        try:
            self._ledger.debit(transaction.message.account_keys[0], self.fee_lamports(message_of(transaction)))
            run = self._run(transaction)
            accounts = None if watched is None else tuple(map(self.account, watched))
        finally:
            self._ledger.rollback()
        return Simulation(run.err, tuple(run.logs), run.units_used, tuple(run.swaps), accounts)

    def _obstacle(self, transaction: VersionedTransaction, *, any_blockhash: bool = False) -> TransactionError | None:
        """Why a transaction cannot even start, or None."""
        message = message_of(transaction)
        if isinstance(message, MessageV0) and message.address_table_lookups:
            return "AddressLookupTableNotFound"
        if len(set(message.account_keys)) < len(message.account_keys):
            return "AccountLoadedTwice"
        try:
            fee_lamports = self.fee_lamports(message)
        except InvalidBudget as error:
            return error.err
        if not any_blockhash and not self.slots.accepts(message.recent_blockhash):
            return "BlockhashNotFound"
        if transaction.signatures[0] in self._landed:
            return "AlreadyProcessed"
        return self._payer_obstacle(message.account_keys[0], fee_lamports)

    def _payer_obstacle(self, payer: Pubkey, fee_lamports: int) -> TransactionError | None:
        balance_lamports = self._ledger.lamports(payer)
        if balance_lamports == 0:
            return "AccountNotFound"
        if self._ledger.token_account(payer) is not None:
            return "InvalidAccountForFee"
        return "InsufficientFundsForFee" if balance_lamports < fee_lamports else None

    # -- landing

    def next_landing_s(self) -> float | None:
        """When the next transaction in flight is due, on the exchange's clock."""
        return self._flights[0][0] if self._flights else None

    def land_due(self) -> list[Landing]:
        """Execute what is due, in order of arrival."""
        landings = []
        while self._flights and self._flights[0][0] <= self._now_s():
            flight = heapq.heappop(self._flights)[2]
            if flight.lands:
                landings.extend(self._land(flight.transaction))
            else:
                self._try_again(flight)
        return landings

    def _try_again(self, flight: _Flight) -> None:
        transaction = flight.transaction
        signature = transaction.signatures[0]
        self._retrying.discard(signature)
        known = signature in self._landing or signature in self._landed
        if not known and self.slots.accepts(transaction.message.recent_blockhash):
            self._send(transaction, flight.retries)

    def _land(self, transaction: VersionedTransaction) -> list[Landing]:
        signature = transaction.signatures[0]
        self._landing.discard(signature)
        obstacle = self._obstacle(transaction)
        if obstacle is not None:
            _log.info("dropped %s: %s", signature, obstacle)
            return []
        execution = self._execute(transaction)
        record = TransactionRecord(
            signature=str(signature),
            slot=self.slots.slot(),
            err=execution.err,
            fee_lamports=execution.fee_lamports,
            fee_payer=str(transaction.message.account_keys[0]),
            instructions=tuple(summarise(program, data) for program, data in _instructions(message_of(transaction))),
            tip_lamports=0 if execution.err is not None else tip_lamports(message_of(transaction)),
            units_used=execution.units_used,
            swaps=execution.swaps,
        )
        self._landed[signature] = record
        _log.info("landed %s in slot %d, err %s", signature, record.slot, record.err)
        return [Landing(record, execution)]

    def _execute(self, transaction: VersionedTransaction) -> Execution:
        fee_lamports = self.fee_lamports(message_of(transaction))
        self._ledger.debit(transaction.message.account_keys[0], fee_lamports)
        self._ledger.begin()
        try:
            run = self._run(transaction)
        except BaseException:
            self._ledger.rollback()
            raise
        if run.err is not None:
            self._ledger.rollback()
            return Execution(run.err, fee_lamports, (), {}, tuple(run.logs), run.units_used)
        changes = self._ledger.commit()
        return Execution(None, fee_lamports, tuple(run.swaps), changes, tuple(run.logs), run.units_used)

    def _run(self, transaction: VersionedTransaction) -> _Run:
        """Run the instructions on the ledger as it is; on an error the caller takes the ledger back."""
        message = message_of(transaction)
        instructions = _instructions(message)
        run = _Run(read_budget(instructions).limit_units)
        if not all(self._programs.knows(program) for program, _ in instructions):
            run.err = "ProgramAccountNotFound"
            return run
        metas = account_metas(message)
        for index, (program, data) in enumerate(instructions):
            accounts = [metas[account] for account in bytes(message.instructions[index].accounts)]
            detail = self._run_instruction(program, Invocation(self._ledger, accounts, data, run.swaps), run)
            if detail is not None:
                run.err = {"InstructionError": [index, detail]}
                break
        return run

    def _run_instruction(self, program: Pubkey, invocation: Invocation, run: _Run) -> ErrorDetail | None:
        """One instruction and what it writes into the log; None if all went well."""
        units, left = units_used(program, invocation.data), run.limit_units - run.units_used
        run.units_used += min(units, left)
        run.logs.append(f"Program {program} invoke [1]")
        detail: ErrorDetail | None = None
        if units > left:
            failure = "Computational budget exceeded"
            detail = "ComputationalBudgetExceeded" if program in BUILTIN_PROGRAMS else "ProgramFailedToComplete"
        else:
            try:
                self._programs.execute(program, invocation)
            except ProgramError as error:
                failure, detail = str(error), error.detail
            except InsufficientFunds as error:
                failure, detail = str(error), "InsufficientFunds"
        if program not in BUILTIN_PROGRAMS:
            run.logs.append(f"Program {program} consumed {min(units, left)} of {left} compute units")
        run.logs.append(f"Program {program} success" if detail is None else f"Program {program} failed: {failure}")
        return detail

    def fee_lamports(self, message: Message | MessageV0) -> int:
        """What a transaction costs, however it ends. Raises ``InvalidBudget``."""
        base_lamports = BASE_FEE_LAMPORTS_PER_SIGNATURE * message.header.num_required_signatures
        return base_lamports + read_budget(_instructions(message)).priority_fee_lamports

    # -- accounts

    def account(self, address: Pubkey) -> AccountInfo | None:
        """The account at an address, as it is now."""
        return account_info(self._ledger, address, program=self._programs.knows(address))

    # -- history

    def status(
        self, signature: Signature, *, search_history: bool = True, lag_slots: int = 0
    ) -> dict[str, object] | None:
        """The ``getSignatureStatuses`` entry of a landed transaction; None for one that has not landed.

        Without ``search_history`` also None for one that landed more than ``STATUS_CACHE_SLOTS`` ago. With
        ``lag_slots`` as it was so many slots ago.
        """
        record = self._landed.get(signature)
        if record is None:
            return None
        age_slots = self.slots.slot() - lag_slots - record.slot
        if age_slots < 0:
            return None
        if age_slots > STATUS_CACHE_SLOTS and not search_history:
            return None
        stage = commitment_after(age_slots)
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


@dataclass(slots=True)
class _Run:
    """A transaction while it runs, and what it has come to."""

    limit_units: int
    units_used: int = 0
    err: TransactionError | None = None
    swaps: list[Swap] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)


def _instructions(message: Message | MessageV0) -> list[tuple[Pubkey, bytes]]:
    keys = message.account_keys
    return [(keys[instruction.program_id_index], bytes(instruction.data)) for instruction in message.instructions]


_ALL_TIP_ACCOUNTS = frozenset(account for accounts in TIP_ACCOUNTS.values() for account in accounts)


def tip_lamports(message: Message | MessageV0, tip_accounts: Collection[Pubkey] = _ALL_TIP_ACCOUNTS) -> int:
    """What a transaction transfers to the accounts in which senders take their tips."""
    total_lamports, keys = 0, message.account_keys
    for instruction in message.instructions:
        accounts, data = bytes(instruction.accounts), bytes(instruction.data)
        is_transfer = keys[instruction.program_id_index] == SYSTEM_PROGRAM and data[:4] == b"\x02\x00\x00\x00"
        if is_transfer and len(data) >= 12 and len(accounts) >= 2 and keys[accounts[1]] in tip_accounts:
            total_lamports += int.from_bytes(data[4:12], "little")
    return total_lamports


_DESCRIPTIONS = {
    "AccountLoadedTwice": "Account loaded twice",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
    "AlreadyProcessed": "This transaction has already been processed",
    "BlockhashNotFound": "Blockhash not found",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "InvalidAccountForFee": "This account may not be used to pay transaction fees",
    "InvalidLoadedAccountsDataSizeLimit": "LoadedAccountsDataSizeLimit set for transaction must be greater than 0.",
    "ProgramAccountNotFound": "Attempt to load a program that does not exist",
}


def describe_error(err: TransactionError) -> str:
    """The sentence a node writes for an error."""
    if isinstance(err, str):
        return _DESCRIPTIONS.get(err, err)
    if "DuplicateInstruction" in err:
        return f"Transaction contains a duplicate instruction ({err['DuplicateInstruction']}) that is not allowed"
    index, detail = err["InstructionError"]
    return f"Error processing Instruction {index}: {ProgramError(detail)}"
