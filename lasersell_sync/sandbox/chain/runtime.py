"""What a program sees while one of its instructions runs, how it calls other programs, and how it fails.

Programs raise ``ProgramError``; the chain turns it into Solana's ``InstructionError`` and takes everything back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.ledger import Ledger

#: As in Solana's JSON: a name, or a program's own number.
ErrorDetail = str | dict[str, int]

#: How deep programs may call each other, the transaction's own instructions included.
MAX_CALL_HEIGHT = 5


class ProgramError(Exception):
    """An instruction failed; ``detail`` is what stands in ``{"InstructionError": [i, detail]}``."""

    def __init__(self, detail: ErrorDetail) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        if isinstance(self.detail, dict):
            return f"custom program error: {self.detail['Custom']:#x}"
        return self.detail


def custom(code: int) -> ProgramError:
    """A program's own error number."""
    return ProgramError({"Custom": code})


@dataclass(frozen=True, slots=True)
class Swap:
    """One executed trade: ``lamports`` is what the market took in all, or paid in all; the price is the one after it.

    ``routing_fee`` is what the Router took on top of a purchase, or out of a sale.
    """

    mint: Pubkey
    side: str
    trader: Pubkey
    token_account: Pubkey
    tokens: int
    lamports: int
    price_lamports: int
    routing_fee: int = 0

    @property
    def net_lamports(self) -> int:
        """What the trader paid in all, or kept of a sale; a fee above the proceeds makes it negative."""
        return self.lamports + self.routing_fee if self.side == "buy" else self.lamports - self.routing_fee


@dataclass(slots=True)
class Invocation:
    """One instruction at work.

    ``swaps`` collects the trades it makes; ``run`` executes an instruction that it calls, and ``height`` counts from 1
    for an instruction of the transaction itself.
    """

    ledger: Ledger
    accounts: Sequence[AccountMeta]
    data: bytes
    swaps: list[Swap]
    program: Pubkey
    run: Callable[[Pubkey, Invocation], None]
    height: int = 1
    #: the slot it runs in
    slot: int = 0

    def call(self, instruction: Instruction, *, signed_for: Collection[Pubkey] = ()) -> None:
        """Call another program (a cross-program invocation), with the runtime's checks.

        Args:
            instruction: Its accounts and its program must be among the caller's own.
            signed_for: Addresses derived from the calling program, for which it signs.

        Raises ``ProgramError``.
        """
        if self.height >= MAX_CALL_HEIGHT:
            raise ProgramError("CallDepth")
        known = {meta.pubkey for meta in self.accounts} | {self.program}
        if instruction.program_id not in known:
            raise ProgramError("MissingAccount")
        signs = {meta.pubkey for meta in self.accounts if meta.is_signer} | set(signed_for)
        writes = {meta.pubkey for meta in self.accounts if meta.is_writable}
        for meta in instruction.accounts:
            if meta.pubkey not in known:
                raise ProgramError("MissingAccount")
            if (meta.is_signer and meta.pubkey not in signs) or (meta.is_writable and meta.pubkey not in writes):
                raise ProgramError("PrivilegeEscalation")
        called = replace(
            self,
            accounts=list(instruction.accounts),
            data=bytes(instruction.data),
            program=instruction.program_id,
            height=self.height + 1,
        )
        self.run(instruction.program_id, called)

    def address(self, index: int, *, signer: bool = False, writable: bool = False) -> Pubkey:
        """The account at ``index``, checked. Raises ``ProgramError`` with the runtime's names."""
        if index >= len(self.accounts):
            raise ProgramError("NotEnoughAccountKeys")
        account = self.accounts[index]
        if signer and not account.is_signer:
            raise ProgramError("MissingRequiredSignature")
        if writable and not account.is_writable:
            raise ProgramError("InvalidArgument")
        return account.pubkey
