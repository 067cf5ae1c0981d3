"""Assertions for tests of bots: what must be on the ledger once a bot has done its work.

Each waits until what it asks for is so, because bots and chains take their time, and fails with a full report when
it does not come. They read the ledger, not the bot's own state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.transaction_history import TransactionRecord
from lasersell_sync.sandbox.exchange.position_book import PositionRecord
from lasersell_sync.sandbox.sandbox import Sandbox

T = TypeVar("T")


class HasPubkey(Protocol):
    """A keypair, or anything else with a ``pubkey`` method."""

    def pubkey(self) -> Pubkey:
        """The public key."""


Wallet = HasPubkey | Pubkey | str


@dataclass(frozen=True, slots=True)
class Trade:
    """One landed trade: ``side`` is ``buy`` or ``sell``, ``tokens`` the token's smallest units."""

    side: str
    wallet: str
    mint: str
    tokens: int
    signature: str
    slot: int

    def __str__(self) -> str:
        return f"slot {self.slot}: {self.wallet} {self.side} {self.tokens} of {self.mint} ({self.signature[:12]}…)"


class LedgerAssertions:
    """Assertions on one sandbox's ledger.

    Args:
        sandbox: It must run.
        timeout_s: How long each assertion waits before it fails, in real seconds.

    Raises:
        AssertionError: From every ``assert_`` method.

    Threads: any.
    """

    def __init__(self, sandbox: Sandbox, *, timeout_s: float = 10.0) -> None:
        self._sandbox = sandbox
        self._timeout_s = timeout_s

    # -- what there is

    def trades(self, wallet: Wallet | None = None, mint: Pubkey | str | None = None) -> list[Trade]:
        """Landed trades, oldest first: of one wallet, in one token, or all there are."""
        found = [
            Trade(swap.side, str(swap.trader), str(swap.mint), swap.tokens, record.signature, record.slot)
            for record in self._sandbox.transactions()
            for swap in record.swaps
        ]
        return [
            trade
            for trade in found
            if (wallet is None or trade.wallet == _address(wallet)) and (mint is None or trade.mint == str(mint))
        ]

    def sales(self, wallet: Wallet | None = None, mint: Pubkey | str | None = None) -> list[Trade]:
        """As ``trades``, without the buys."""
        return [trade for trade in self.trades(wallet, mint) if trade.side == "sell"]

    def open_positions(self, wallet: Wallet | None = None) -> list[PositionRecord]:
        """Positions that are not closed: of one wallet, or all there are."""
        return [
            record
            for record in self._sandbox.positions()
            if record.close_reason is None and (wallet is None or record.wallet_pubkey == _address(wallet))
        ]

    def failed_transactions(self, wallet: Wallet | None = None) -> list[TransactionRecord]:
        """Transactions that landed and failed; their fee is gone."""
        return [
            record
            for record in self._sandbox.transactions()
            if record.err is not None and (wallet is None or record.fee_payer == _address(wallet))
        ]

    # -- what must be

    def assert_bought(self, wallet: Wallet, mint: Pubkey | str) -> Trade:
        """At least one purchase has landed; the first."""
        __tracebackhide__ = True

        def buys() -> list[Trade]:
            return [trade for trade in self.trades(wallet, mint) if trade.side == "buy"]

        return self._wait(buys, f"{_address(wallet)} never bought {mint}")[0]

    def assert_sold_exactly_once(self, wallet: Wallet, mint: Pubkey | str) -> Trade:
        """One sale has landed, not two, and the wallet holds none of the token any more; that sale.

        A sale that landed and failed sold nothing and does not count; ``assert_nothing_failed`` looks for those.
        """
        __tracebackhide__ = True

        def sold_out() -> bool:
            return bool(self.sales(wallet, mint)) and self._sandbox.token_balance(_pubkey(wallet), mint) == 0

        self._wait(sold_out, f"{_address(wallet)} has not sold all it holds of {mint}")
        sales = self.sales(wallet, mint)
        if len(sales) != 1:
            raise AssertionError(self._report(f"{_address(wallet)} sold {mint} {len(sales)} times, not once"))
        return sales[0]

    def assert_never_sold(self, wallet: Wallet, mint: Pubkey | str) -> None:
        """No sale has landed so far. Does not wait."""
        __tracebackhide__ = True
        if self.sales(wallet, mint):
            raise AssertionError(self._report(f"{_address(wallet)} sold {mint}"))

    def assert_no_position_open(self, wallet: Wallet | None = None) -> None:
        """Every position is closed."""
        __tracebackhide__ = True
        whose = "" if wallet is None else f" of {_address(wallet)}"
        self._wait(lambda: not self.open_positions(wallet), f"a position{whose} is still open")

    def assert_nothing_failed(self, wallet: Wallet | None = None) -> None:
        """No landed transaction has failed so far. Does not wait."""
        __tracebackhide__ = True
        if self.failed_transactions(wallet):
            raise AssertionError(self._report("a transaction landed and failed"))

    def _wait(self, predicate: Callable[[], T], problem: str) -> T:
        __tracebackhide__ = True
        value = self._sandbox.wait_for(predicate, self._timeout_s)
        if not value:
            raise AssertionError(self._report(f"{problem} ({self._timeout_s:g} s waited)"))
        return value

    def _report(self, problem: str) -> str:
        """The problem, and everything that happened."""
        positions = [
            f"position {record.position_id}: {record.wallet_pubkey} {record.tokens} of {record.mint},"
            f" {record.close_reason or 'open'}"
            for record in self._sandbox.positions()
        ]
        failures = [
            f"slot {record.slot}: {record.fee_payer} failed, {record.err} ({record.signature[:12]}…)"
            for record in self.failed_transactions()
        ]
        lines = [*map(str, self.trades()), *failures, *positions] or ["nothing has happened"]
        return "\n  ".join([problem, *lines])


def _address(wallet: Wallet) -> str:
    return wallet if isinstance(wallet, str) else str(_pubkey(wallet))


def _pubkey(wallet: Wallet) -> Pubkey | str:
    return wallet if isinstance(wallet, (str, Pubkey)) else wallet.pubkey()
