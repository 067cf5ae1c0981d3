"""The chain: takes signed transactions in, lands them after a delay, and remembers what became of them.

A transaction does what its instructions say, all or nothing; a failed one costs its fee. One whose blockhash expires
before it lands, or whose payer cannot pay the fee, never lands and leaves no trace, as on a real cluster. Neither does
one that gets lost on the way, by chance or to order.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.account_data import AccountInfo, account_info
from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS
from lasersell_sync.sandbox.chain.compute_budget import InvalidBudget
from lasersell_sync.sandbox.chain.execution import (
    InnerCalls,
    LoadError,
    Processor,
    Run,
    Simulation,
    Simulator,
    TransactionError,
    budget_of,
    load_accounts,
)
from lasersell_sync.sandbox.chain.instructions import transferred_lamports
from lasersell_sync.sandbox.chain.ledger import Ledger, LedgerAt, TokenAccount, TokenChanges
from lasersell_sync.sandbox.chain.programs import Programs
from lasersell_sync.sandbox.chain.runtime import ProgramError, Swap
from lasersell_sync.sandbox.chain.slots import SlotClock, commitment_after
from lasersell_sync.sandbox.chain.transaction_history import SignatureHistory, TransactionRecord
from lasersell_sync.sandbox.chain.transactions import Transaction, of_solders

_log = logging.getLogger("lasersell_sync.sandbox.chain")

BASE_FEE_LAMPORTS_PER_SIGNATURE = 5_000
#: A node sends a transaction to the leaders again this often, until it lands, expires, or ``maxRetries`` is used up.
REBROADCAST_S = 2.0
#: Without ``searchTransactionHistory`` a status is remembered for this many slots.
STATUS_CACHE_SLOTS = 300


class TransactionRefused(Exception):
    """A transaction is not accepted; carries the JSON-RPC error."""

    def __init__(self, code: int, message: str, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Execution:
    """What running a transaction did; on failure no swaps and no token changes."""

    err: TransactionError | None
    fee_lamports: int
    swaps: tuple[Swap, ...]
    token_changes: TokenChanges
    logs: tuple[str, ...]
    units_used: int = 0
    inner: InnerCalls = field(default_factory=dict)


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


@dataclass(slots=True)
class _Flight:
    """A transaction between acceptance and landing. ``retries`` is how often the node may still send it again."""

    transaction: Transaction
    lands: bool
    retries: float


AnyTransaction = Transaction | VersionedTransaction


def sanitise(transaction: AnyTransaction) -> Transaction:
    """Look at what can be seen without state. Raises ``TransactionRefused`` (-32602)."""
    if isinstance(transaction, Transaction):
        return transaction
    try:
        return of_solders(transaction)
    except ValueError as error:
        message = "invalid transaction: Transaction failed to sanitize accounts offsets correctly"
        raise TransactionRefused(-32602, message) from error


class Chain:
    """Mempool, execution and history.

    Args:
        describe: Writes one line for each instruction of a landed transaction.
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
        now_ms: Callable[[], int],
        describe: Callable[[Transaction, InnerCalls], tuple[str, ...]],
        landing_delay_s: float,
        loss_probability: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._ledger = ledger
        self._programs = programs
        self._processor = Processor(ledger, programs)
        self._simulator = Simulator(ledger, programs, self._processor)
        self._now_s = now_s
        self._now_ms = now_ms
        self._describe = describe
        self._history = SignatureHistory()
        self.slots = slots
        ledger.keep_past(slots.slot)
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
        transaction: AnyTransaction,
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
        known = sanitise(transaction)
        # Verified before it is looked up: a known signature over other bytes is a forgery, not a repetition.
        self._verify(known)
        if not skip_preflight:
            self._preflight(known)
        signature = known.signature
        if signature not in self._landed and signature not in self._landing:
            if certain:
                self._let_land(known, self.landing_delay_s)
            else:
                self._send(known, math.inf if max_retries is None else max_retries)
        return signature

    def _let_land(self, transaction: Transaction, delay_s: float) -> None:
        self._landing.add(transaction.signature)
        self._take_off(delay_s, _Flight(transaction, lands=True, retries=0))

    def _send(self, transaction: Transaction, retries: float) -> None:
        """What a node does with a transaction: send it to the leaders, and later again."""
        signature = transaction.signature
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

    def _verify(self, transaction: Transaction) -> None:
        if not transaction.verified():
            raise TransactionRefused(-32003, "Transaction signature verification failure")

    def _preflight(self, transaction: Transaction) -> None:
        simulation = self._simulate(transaction)
        if simulation.err is None:
            return
        data: dict[str, object] = {
            "accounts": None,
            "err": simulation.err,
            "innerInstructions": None,
            "logs": list(simulation.run.logs),
            "returnData": None,
            "unitsConsumed": simulation.run.units_used,
        }
        raise TransactionRefused(-32002, f"Transaction simulation failed: {describe_error(simulation.err)}", data)

    def simulate(
        self,
        transaction: AnyTransaction,
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
            watched: The accounts whose state after it is wanted.

        Raises ``TransactionRefused``: malformed (-32602), bad signature (-32003).
        """
        known = sanitise(transaction)
        if verify:
            self._verify(known)
        return self._simulate(known, any_blockhash=any_blockhash, watched=watched or ())

    def _simulate(
        self, transaction: Transaction, *, any_blockhash: bool = False, watched: Sequence[Pubkey] = ()
    ) -> Simulation:
        err = self._obstacle(transaction, any_blockhash=any_blockhash)
        if err is not None:
            return Simulation(err, Run(0))
        return self._simulator.simulate(transaction, self.fee_lamports(transaction), watched, self.slots.slot())

    def _obstacle(self, transaction: Transaction, *, any_blockhash: bool = False) -> TransactionError | None:
        """Why a transaction cannot even start, or None."""
        try:
            load_accounts(transaction, self._ledger)
            fee_lamports = self.fee_lamports(transaction)
        except (LoadError, InvalidBudget) as error:
            return error.err
        if not any_blockhash and not self.slots.accepts(transaction.blockhash):
            return "BlockhashNotFound"
        if transaction.signature in self._landed:
            return "AlreadyProcessed"
        return self._payer_obstacle(transaction.payer, fee_lamports)

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
        signature = transaction.signature
        self._retrying.discard(signature)
        known = signature in self._landing or signature in self._landed
        if not known and self.slots.accepts(transaction.blockhash):
            self._send(transaction, flight.retries)

    def _land(self, transaction: Transaction) -> list[Landing]:
        signature = transaction.signature
        self._landing.discard(signature)
        obstacle = self._obstacle(transaction)
        if obstacle is not None:
            _log.info("dropped %s: %s", signature, obstacle)
            return []
        accounts = [meta.pubkey for meta in load_accounts(transaction, self._ledger).metas]
        execution = self._execute(transaction)
        record = TransactionRecord(
            signature=str(signature),
            slot=self.slots.slot(),
            err=execution.err,
            fee_lamports=execution.fee_lamports,
            fee_payer=str(transaction.payer),
            instructions=self._describe(transaction, execution.inner),
            tip_lamports=0 if execution.err is not None else tip_lamports(transaction),
            units_used=execution.units_used,
            swaps=execution.swaps,
            block_time_s=self._now_ms() // 1000,
        )
        self._landed[signature] = record
        self._history.add(record, accounts)
        _log.info("landed %s in slot %d, err %s", signature, record.slot, record.err)
        return [Landing(record, execution)]

    def _execute(self, transaction: Transaction) -> Execution:
        fee_lamports = self.fee_lamports(transaction)
        self._ledger.debit(transaction.payer, fee_lamports)
        self._ledger.begin()
        try:
            run = self._processor.run(transaction, self.slots.slot())
        except BaseException:
            self._ledger.rollback()
            raise
        if run.err is not None:
            self._ledger.rollback()
            return Execution(run.err, fee_lamports, (), {}, tuple(run.logs), run.units_used, run.inner)
        changes = self._ledger.commit()
        return Execution(None, fee_lamports, tuple(run.swaps), changes, tuple(run.logs), run.units_used, run.inner)

    def fee_lamports(self, transaction: Transaction) -> int:
        """What a transaction costs, however it ends. Raises ``InvalidBudget``."""
        base_lamports = BASE_FEE_LAMPORTS_PER_SIGNATURE * transaction.required_signatures
        return base_lamports + budget_of(transaction).priority_fee_lamports

    # -- accounts

    def account(self, address: Pubkey, *, lag_slots: int = 0) -> AccountInfo | None:
        """The account at an address, as it was so many slots ago."""
        return account_info(self._ledger_of(lag_slots), address, program=self._programs.knows(address))

    def token_accounts_of(self, owner: Pubkey, *, lag_slots: int = 0) -> list[tuple[Pubkey, TokenAccount]]:
        """Every token account of an owner, as it was so many slots ago."""
        return self._ledger_of(lag_slots).token_accounts_of(owner)

    def _ledger_of(self, lag_slots: int) -> Ledger | LedgerAt:
        return self._ledger.as_of(self.slots.slot() - lag_slots) if lag_slots else self._ledger

    def rent_lamports(self, size: int) -> int:
        """What an account with so many bytes of data must hold."""
        return self._ledger.rent_lamports(size)

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

    def signatures_of(
        self,
        account: Pubkey,
        *,
        limit: int,
        commitment: str,
        lag_slots: int = 0,
        before: str | None = None,
        until: str | None = None,
    ) -> list[dict[str, object]]:
        """The ``getSignaturesForAddress`` entries of an account, newest first, as they were ``lag_slots`` ago."""
        newest_slot = self.slots.slot(commitment) - lag_slots
        records = self._history.of(account, limit=limit, newest_slot=newest_slot, before=before, until=until)
        return [
            {
                "signature": record.signature,
                "slot": record.slot,
                "err": record.err,
                "memo": None,
                "blockTime": record.block_time_s,
                "confirmationStatus": commitment_after(self.slots.slot() - lag_slots - record.slot),
            }
            for record in records
        ]

    def records(self) -> list[TransactionRecord]:
        """Every landed transaction, oldest first."""
        return list(self._landed.values())


_ALL_TIP_ACCOUNTS = frozenset(account for accounts in TIP_ACCOUNTS.values() for account in accounts)


def tip_lamports(transaction: Transaction, tip_accounts: Collection[Pubkey] = _ALL_TIP_ACCOUNTS) -> int:
    """What a transaction transfers to the accounts in which senders take their tips."""
    total_lamports, keys = 0, transaction.keys
    for instruction in transaction.instructions:
        accounts = instruction.accounts
        lamports = transferred_lamports(keys[instruction.program_index], instruction.data)
        # A tip account out of a look-up table is not seen by the senders either.
        if lamports and len(accounts) > 1 and accounts[1] < len(keys) and keys[accounts[1]] in tip_accounts:
            total_lamports += lamports
    return total_lamports


_DESCRIPTIONS = {
    "AccountLoadedTwice": "Account loaded twice",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
    "InvalidAddressLookupTableIndex": "Transaction address table lookup uses an invalid index",
    "InvalidAddressLookupTableOwner": "Transaction loads an address table account with an invalid owner",
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
