"""The programs of the chain: which there are, and who executes an instruction of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain import associated_token_program, system_program, token_program
from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    LASERSELL_ROUTER_PROGRAM,
    PUMP_FEES_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.runtime import Invocation
from lasersell_sync.sandbox.markets import pump_fees
from lasersell_sync.sandbox.markets.listings import Listing, Venue
from lasersell_sync.sandbox.router.program import Router


class Programs:
    """Every program the ledger knows. Stateless; safe wherever the ledger is."""

    def __init__(self, venues: Iterable[Venue], listings: dict[Pubkey, Listing], router: Router) -> None:
        self._listings = listings
        self._table: dict[Pubkey, Callable[[Invocation], None]] = {
            SYSTEM_PROGRAM: system_program.execute,
            COMPUTE_BUDGET_PROGRAM: _compute_budget,
            TOKEN_PROGRAM: token_program.execute,
            ASSOCIATED_TOKEN_PROGRAM: associated_token_program.execute,
            PUMP_FEES_PROGRAM: pump_fees.execute,
            LASERSELL_ROUTER_PROGRAM: router.execute,
        }
        for venue in venues:
            self._table[venue.program] = self._market(venue)

    def _market(self, venue: Venue) -> Callable[[Invocation], None]:
        return lambda invocation: venue.execute(invocation, self._listings)

    def knows(self, program: Pubkey) -> bool:
        """Whether the program exists here."""
        return program in self._table

    def execute(self, program: Pubkey, invocation: Invocation) -> None:
        """Run one instruction. Raises ``ProgramError``; the caller takes the ledger back."""
        self._table[program](invocation)


def _compute_budget(_invocation: Invocation) -> None:
    """Nothing is left to do: what these instructions ask for is read before anything runs (``budget.py``)."""
