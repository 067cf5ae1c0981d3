"""Runs a transaction's instructions on the ledger, and what they call; writes the log and counts compute units.

A simulation runs a transaction, looks at what it has done, and takes it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.account_data import AccountInfo, account_info
from lasersell_sync.sandbox.chain.compute_budget import BUILTIN_PROGRAMS, Budget, read_budget, units_used
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds, Ledger, TokenAccount
from lasersell_sync.sandbox.chain.programs import Programs
from lasersell_sync.sandbox.chain.runtime import ErrorDetail, Invocation, ProgramError, Swap
from lasersell_sync.sandbox.chain.transactions import Transaction

#: Solana's JSON form of a transaction error: ``"AccountNotFound"``, ``{"InstructionError": [2, {"Custom": 1}]}``.
TransactionError = str | dict[str, Any]


class LoadError(Exception):
    """The accounts that a transaction takes out of look-up tables are not there; ``err`` is Solana's name for it."""

    def __init__(self, err: str) -> None:
        super().__init__(err)
        self.err = err


@dataclass(frozen=True, slots=True)
class LoadedAccounts:
    """Every account of a transaction: those written in it, then those of its look-ups, writable ones first."""

    metas: tuple[AccountMeta, ...]
    writable: tuple[Pubkey, ...] = ()
    readonly: tuple[Pubkey, ...] = ()


@dataclass(frozen=True, slots=True)
class InnerCall:
    """An instruction that a program called while an instruction of the transaction ran."""

    program: Pubkey
    accounts: tuple[Pubkey, ...]
    data: bytes
    #: 2 for what an instruction of the transaction calls
    stack_height: int


#: The calls inside, by the index of the transaction's instruction.
InnerCalls = dict[int, list[InnerCall]]


@dataclass(slots=True)
class Run:
    """A transaction while it runs, and what it has come to."""

    limit_units: int
    units_used: int = 0
    err: TransactionError | None = None
    swaps: list[Swap] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    inner: InnerCalls = field(default_factory=dict)


def budget_of(transaction: Transaction) -> Budget:
    """What a transaction may use and bids. Raises ``InvalidBudget``."""
    return read_budget(programs_and_data(transaction), transaction.budget)


def programs_and_data(transaction: Transaction) -> list[tuple[Pubkey, bytes]]:
    """Each instruction's program and data."""
    return [(transaction.keys[item.program_index], item.data) for item in transaction.instructions]


def load_accounts(transaction: Transaction, ledger: Ledger) -> LoadedAccounts:
    """Look the accounts up. Raises ``LoadError``."""
    writable: list[Pubkey] = []
    readonly: list[Pubkey] = []
    for lookup in transaction.lookups:
        table = ledger.lookup_table(lookup.table)
        if table is None:
            exists = ledger.lamports(lookup.table) > 0
            raise LoadError("InvalidAddressLookupTableOwner" if exists else "AddressLookupTableNotFound")
        writes, reads = table.loaded(lookup.writable), table.loaded(lookup.readonly)
        if writes is None or reads is None:
            raise LoadError("InvalidAddressLookupTableIndex")
        writable += writes
        readonly += reads
    metas = transaction.metas()
    metas += [AccountMeta(address, is_signer=False, is_writable=True) for address in writable]
    metas += [AccountMeta(address, is_signer=False, is_writable=False) for address in readonly]
    if len({meta.pubkey for meta in metas}) < len(metas):
        raise LoadError("AccountLoadedTwice")
    return LoadedAccounts(tuple(metas), tuple(writable), tuple(readonly))


class Processor:
    """Runs transactions.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, ledger: Ledger, programs: Programs) -> None:
        self._ledger = ledger
        self._programs = programs

    def run(self, transaction: Transaction, slot: int) -> Run:
        """Run the instructions on the ledger as it is; on an error the caller takes the ledger back."""
        run = Run(budget_of(transaction).limit_units)
        if not all(self._programs.knows(program) for program, _ in programs_and_data(transaction)):
            run.err = "ProgramAccountNotFound"
            return run
        metas = load_accounts(transaction, self._ledger).metas
        for index, instruction in enumerate(transaction.instructions):
            accounts = [metas[account] for account in instruction.accounts]
            program = transaction.keys[instruction.program_index]
            detail = self._run_top(run, index, program, accounts, instruction.data, slot)
            if detail is not None:
                run.err = {"InstructionError": [index, detail]}
                break
        return run

    def _run_top(
        self, run: Run, index: int, program: Pubkey, accounts: Sequence[AccountMeta], data: bytes, slot: int
    ) -> ErrorDetail | None:
        """One instruction of the transaction itself; None if all went well."""

        def called(called_program: Pubkey, inside: Invocation) -> None:
            addresses = tuple(meta.pubkey for meta in inside.accounts)
            call = InnerCall(called_program, addresses, inside.data, inside.height)
            run.inner.setdefault(index, []).append(call)
            self._execute(run, called_program, inside)

        invocation = Invocation(self._ledger, accounts, data, run.swaps, program, called, slot=slot)
        try:
            self._execute(run, program, invocation)
        except ProgramError as error:
            return error.detail
        return None

    def _execute(self, run: Run, program: Pubkey, invocation: Invocation) -> None:
        """One instruction and what it writes into the log. Raises ``ProgramError``."""
        before = run.units_used
        units, left = units_used(program, invocation.data), run.limit_units - before
        run.units_used += min(units, left)
        run.logs.append(f"Program {program} invoke [{invocation.height}]")
        failure: ProgramError | None = None
        try:
            self._attempt(program, invocation, exhausted=units > left)
        except ProgramError as error:
            failure = error
        if program not in BUILTIN_PROGRAMS:
            run.logs.append(f"Program {program} consumed {run.units_used - before} of {left} compute units")
        run.logs.append(f"Program {program} success" if failure is None else f"Program {program} failed: {failure}")
        if failure is not None:
            raise failure

    def _attempt(self, program: Pubkey, invocation: Invocation, *, exhausted: bool) -> None:
        if exhausted:
            raise ProgramError(
                "ComputationalBudgetExceeded" if program in BUILTIN_PROGRAMS else "ProgramFailedToComplete"
            )
        if not self._programs.knows(program):
            raise ProgramError("UnsupportedProgramId")
        try:
            self._programs.execute(program, invocation)
        except InsufficientFunds as error:
            raise ProgramError("InsufficientFunds") from error


#: the error number of a failure that a node makes up
_LIED_CODE = 6001


@dataclass(frozen=True, slots=True)
class Balances:
    """Lamports of every account of a transaction, and the token accounts among them by their place."""

    lamports: tuple[int, ...]
    tokens: dict[int, TokenAccount]


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do. Without ``loaded`` it could not even start.

    ``accounts`` are those that were asked for, as it would leave them; empty if it failed.
    """

    err: TransactionError | None
    run: Run
    fee_lamports: int = 0
    loaded: LoadedAccounts | None = None
    before: Balances | None = None
    after: Balances | None = None
    accounts: tuple[AccountInfo | None, ...] = ()
    #: bytes of data of all its accounts
    loaded_bytes: int = 0

    def failing(self, instruction: int) -> Simulation:
        """The same as a lying node shows it: an instruction fails with an error of its program."""
        return replace(self, err={"InstructionError": [instruction, {"Custom": _LIED_CODE}]}, accounts=())

    def harmless(self, accounts: Sequence[AccountInfo | None]) -> Simulation:
        """The same as a lying node shows it: it succeeds, calls nobody, and every account stays as it is now."""
        return replace(self, err=None, run=Run(self.run.limit_units), after=self.before, accounts=tuple(accounts))


class Simulator:
    """Runs transactions and takes them back.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, ledger: Ledger, programs: Programs, processor: Processor) -> None:
        self._ledger = ledger
        self._programs = programs
        self._processor = processor

    def simulate(self, transaction: Transaction, fee_lamports: int, watched: Sequence[Pubkey], slot: int) -> Simulation:
        """Run a transaction that can start; ``watched`` are accounts to show as it leaves them."""
        loaded = load_accounts(transaction, self._ledger)
        before = self._balances(loaded)
        self._ledger.begin()
        try:
            self._ledger.debit(transaction.payer, fee_lamports)
            run = self._processor.run(transaction, slot)
            after = self._balances(loaded)
            shown = tuple(map(self._account, watched)) if run.err is None else ()
            infos = [self._account(meta.pubkey) for meta in loaded.metas]
        finally:
            self._ledger.rollback()
        size = sum(len(info.data) for info in infos if info is not None)
        return Simulation(run.err, run, fee_lamports, loaded, before, after, shown, size)

    def _account(self, address: Pubkey) -> AccountInfo | None:
        return account_info(self._ledger, address, program=self._programs.knows(address))

    def _balances(self, loaded: LoadedAccounts) -> Balances:
        tokens = {}
        for index, meta in enumerate(loaded.metas):
            account = self._ledger.token_account(meta.pubkey)
            if account is not None:
                tokens[index] = account
        return Balances(tuple(self._ledger.lamports(meta.pubkey) for meta in loaded.metas), tokens)
