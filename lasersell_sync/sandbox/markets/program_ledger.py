"""The ledger as a market's program uses it: what it moves, it moves by calls of the Token and System programs."""

from __future__ import annotations

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import SYSTEM_PROGRAM
from lasersell_sync.sandbox.chain.instructions import transfer, transfer_checked
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds, Ledger
from lasersell_sync.sandbox.chain.runtime import Invocation


class ProgramLedger(Ledger):
    """The invocation's ledger, with every movement recorded as a call inside.

    A wallet signs for its own accounts, the program for those of the addresses that it derives. Lamports of an account
    that the program owns move without a call, as they do on the main net.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, invocation: Invocation) -> None:
        # The same tables and the same undo log: nothing is copied.
        vars(self).update(vars(invocation.ledger))
        self._invocation = invocation
        self._signers = {meta.pubkey for meta in invocation.accounts if meta.is_signer}
        self._named = {meta.pubkey for meta in invocation.accounts}

    def names(self, address: Pubkey) -> bool:
        """Whether the instruction at work names an account."""
        return address in self._named

    def move_tokens(self, source: Pubkey, target: Pubkey, amount: int) -> None:
        """As ``Ledger.move_tokens``. Raises ``InsufficientFunds``, ``ProgramError``."""
        account = self._tokens[source]
        if account.amount < amount:
            raise InsufficientFunds(f"{source} lacks {amount - account.amount} tokens")
        if not amount:
            return
        decimals = self._mints[account.mint].decimals
        move = transfer_checked(source, account.mint, target, owner=account.owner, amount=amount, decimals=decimals)
        derived = [] if account.owner in self._signers else [account.owner]
        self._invocation.call(move, signed_for=derived)

    def move_lamports(self, source: Pubkey, target: Pubkey, amount_lamports: int) -> None:
        """As ``Ledger.move_lamports``. Raises ``InsufficientFunds``, ``ProgramError``."""
        if source not in self._signers or SYSTEM_PROGRAM not in self._named:
            super().move_lamports(source, target, amount_lamports)
        elif self.lamports(source) < amount_lamports:
            raise InsufficientFunds(f"{source} lacks {amount_lamports - self.lamports(source)} lamports")
        elif amount_lamports:
            self._invocation.call(transfer(source, target, amount_lamports))
