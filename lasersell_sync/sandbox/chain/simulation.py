"""What a transaction would do now: it is run on the ledger, looked at, and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.account_data import AccountInfo, account_info
from lasersell_sync.sandbox.chain.execution import LoadedAccounts, Processor, Run, TransactionError, load_accounts
from lasersell_sync.sandbox.chain.ledger import Ledger, TokenAccount
from lasersell_sync.sandbox.chain.programs import Programs
from lasersell_sync.sandbox.chain.transactions import Transaction

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
