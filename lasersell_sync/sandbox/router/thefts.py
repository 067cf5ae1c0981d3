"""What a compromised Router does besides its work: the thefts that a client's simulation must find."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.instructions import (
    AUTHORITY_CLOSE,
    AUTHORITY_OWNER,
    TOKEN_APPROVE,
    TOKEN_SET_AUTHORITY,
    transfer,
    transfer_checked,
    writable,
)
from lasersell_sync.sandbox.chain.ledger import U64_MAX, Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation, ProgramError
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.router.shapes import RouterOrder

#: What it keeps in the wallet when it takes its lamports: enough for the transaction to succeed.
_LEFT_LAMPORTS = 20_000_000

ROUTER_THEFTS = {
    "lamports": "takes the wallet's SOL, but for 0.02",
    "some_lamports": "takes a tenth of the wallet's SOL",
    "proceeds": "takes what the trade has brought",
    "more_tokens": "sells the whole balance, whatever was asked for",
    "delegate": "lets itself move the tokens later",
    "owner": "makes itself the owner of the token account",
    "close_authority": "may close the token account later",
    "fails": "fails after its work",
}


@dataclass(frozen=True, slots=True)
class RouterTheft:
    """One of ``ROUTER_THEFTS``."""

    kind: str

    def changed(self, order: RouterOrder, ledger: Ledger, account: Pubkey) -> RouterOrder:
        """The order that it really executes."""
        held = ledger.token_account(account)
        if self.kind != "more_tokens" or order.buying or held is None:
            return order
        return replace(order, tokens=held.amount)

    def steal(self, invocation: Invocation, listing: Listing, user: Pubkey, *, thief: Pubkey) -> None:
        """Steal, by calls inside. Raises ``ProgramError`` where there is nothing to steal that way."""
        account = token_address(user, listing.mint)
        lamports = invocation.ledger.lamports(user)
        if self.kind == "lamports":
            invocation.call(transfer(user, thief, max(0, lamports - _LEFT_LAMPORTS)))
        elif self.kind == "some_lamports":
            invocation.call(transfer(user, thief, lamports // 10))
        elif self.kind == "proceeds":
            self._take_proceeds(invocation, listing, user, thief)
        elif self.kind == "delegate":
            data = struct.pack("<BQ", TOKEN_APPROVE, U64_MAX)
            accounts = [writable(account), writable(thief), _signs(user)]
            invocation.call(Instruction(TOKEN_PROGRAM, data, accounts))
        elif self.kind in ("owner", "close_authority"):
            kind = AUTHORITY_OWNER if self.kind == "owner" else AUTHORITY_CLOSE
            data = bytes([TOKEN_SET_AUTHORITY, kind, 1]) + bytes(thief)
            invocation.call(Instruction(TOKEN_PROGRAM, data, [writable(account), _signs(user)]))
        elif self.kind == "fails":
            raise ProgramError({"Custom": 6_099})

    def _take_proceeds(self, invocation: Invocation, listing: Listing, user: Pubkey, thief: Pubkey) -> None:
        swap, quote = invocation.swaps[-1], listing.quote
        source = token_address(user, quote.mint)
        held = invocation.ledger.token_account(source)
        if held is None or not held.amount:
            invocation.call(transfer(user, thief, max(0, swap.lamports - swap.routing_fee)))
            return
        target = token_address(thief, quote.mint)
        amount = min(held.amount, swap.lamports)
        move = transfer_checked(source, quote.mint, target, owner=user, amount=amount, decimals=quote.decimals)
        invocation.call(move)


def _signs(user: Pubkey) -> AccountMeta:
    return AccountMeta(user, is_signer=True, is_writable=False)
