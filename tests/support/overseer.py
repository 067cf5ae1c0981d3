"""What really happened: every exit that a sandbox signalled, and every transaction that arrived at its node.

It looks from behind the servers, so whatever a client believes, forgets or hides has no part in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import attrs

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.chain.blockchain import Chain
from lasersell_sync.sandbox.chain.execution import load_accounts
from lasersell_sync.sandbox.chain.transactions import Transaction

#: What the server calls an exit that the client asked for: no wish of its own.
ASKED_FOR = "manual_sell"


@attrs.frozen
class Wish:
    """One exit that the server signalled; ``tokens`` is what it named, ``level`` None for the whole position."""

    wallet: str
    mint: str
    level: int | None
    tokens: int
    reason: str
    at: float


@attrs.define
class Arrival:
    """One distinct signed transaction, from its first arrival at ``sendTransaction`` on."""

    signature: str
    wallet: str
    mint: str
    transaction: Transaction
    at: float
    slot: int
    copies: int = 1


@attrs.frozen
class TwoAlive:
    """Two transactions of one position could land at the same moment."""

    wallet: str
    mint: str
    earlier: str
    later: str
    apart_s: float

    def __str__(self) -> str:
        words = f"{self.later[:12]} arrived {self.apart_s:.3f} s after {self.earlier[:12]}, which may still land"
        return f"wallet {self.wallet}, mint {self.mint}: {words}"


class Overseer:
    """Watches one sandbox that runs.

    Args:
        sandbox: whose exits and transactions are watched from now on.

    Threads: any; what it collects is written under the sandbox's own lock.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._exchange: Any = sandbox._exchange
        self._lock = threading.Lock()
        self.wishes: list[Wish] = []
        self.arrivals: dict[str, Arrival] = {}
        #: Each is a moment at which two transactions of one position could land.
        self.two_alive: list[TwoAlive] = []
        #: Signatures of transactions that the user makes by hand: no seller's.
        self.foreign: set[str] = set()
        #: Called with each transaction that arrives for the first time, while the chain stands still.
        self.on_arrival: Callable[[Arrival], None] = _nothing
        exits = self._exchange.positions.exits
        exits.signal = self._watching_signals(exits.signal)
        self._exchange.send_transaction = self._watching_sendings(self._exchange.send_transaction)

    # -- what it sees

    def _watching_signals(self, signal: Callable[..., None]) -> Callable[..., None]:
        def watched(session: Any, position: Any, due: Any, *args: Any, **kwargs: Any) -> None:
            holding = position.holding
            tokens = holding.tokens if due.sell_tokens is None else due.sell_tokens
            wish = Wish(str(holding.wallet), str(holding.mint), due.level_index, tokens, due.reason, time.monotonic())
            with self._lock:
                self.wishes.append(wish)
            signal(session, position, due, *args, **kwargs)

        return watched

    def _watching_sendings(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def watched(transaction: Transaction, **options: Any) -> Any:
            with self._exchange.change():
                self._arrived(self._exchange.chain, transaction)
            return send(transaction, **options)

        return watched

    def _arrived(self, chain: Chain, transaction: Transaction) -> None:
        """With the chain standing still: is every earlier transaction of this position dead, or has it landed?"""
        # A routed transaction may name its token in a look-up table only.
        keys = [str(meta.pubkey) for meta in load_accounts(transaction, chain._ledger).metas]
        signature = str(transaction.signatures[0])
        if signature in self.foreign:
            return
        mint = next((mint for mint in self._sandbox.mints if mint in keys), "")
        with self._lock:
            known = self.arrivals.get(signature)
            if known is not None:
                known.copies += 1
                return
            wallet, now = keys[0], time.monotonic()
            for earlier in self.arrivals.values():
                if (earlier.wallet, earlier.mint) == (wallet, mint) and _may_land(chain, earlier.transaction):
                    self.two_alive.append(TwoAlive(wallet, mint, earlier.signature, signature, now - earlier.at))
            arrival = Arrival(signature, wallet, mint, transaction, now, chain.slots.slot())
            self.arrivals[signature] = arrival
            self.on_arrival(arrival)

    # -- questions

    def wishes_of(self, wallet: str, mint: str) -> list[Wish]:
        """What the server wanted of its own, first word first."""
        with self._lock:
            wishes = list(self.wishes)
        return [wish for wish in wishes if (wish.wallet, wish.mint) == (wallet, mint) and wish.reason != ASKED_FOR]

    def arrivals_of(self, wallet: str, mint: str | None = None) -> list[Arrival]:
        """The distinct transactions of a wallet, oldest first."""
        with self._lock:
            arrivals = list(self.arrivals.values())
        return [one for one in arrivals if one.wallet == wallet and mint in (None, one.mint)]

    def in_the_air(self, wallets: set[str], *, younger_than_s: float) -> bool:
        """Whether a transaction of these wallets is that young and has not landed."""
        now = time.monotonic()
        with self._lock:
            young = [a for a in self.arrivals.values() if a.wallet in wallets and now - a.at < younger_than_s]
        if not young:
            return False
        with self._exchange.request():
            return not all(_has_landed(self._exchange.chain, one.transaction) for one in young)

    def on_its_way(self, wallets: set[str], *, younger_than_s: float) -> bool:
        """Whether an exit was signalled that lately, and nothing has arrived for it."""
        now = time.monotonic()
        with self._lock:
            latest = {one.wallet: one.at for one in self.arrivals.values()}
            wishes = [one for one in self.wishes if one.wallet in wallets and now - one.at < younger_than_s]
        return any(latest.get(wish.wallet, 0.0) < wish.at for wish in wishes)


def _nothing(_arrival: Arrival) -> None:
    """Nobody wants to know."""


def _has_landed(chain: Chain, transaction: Transaction) -> bool:
    return transaction.signatures[0] in chain._landed


def _may_land(chain: Chain, transaction: Transaction) -> bool:
    return not _has_landed(chain, transaction) and chain.slots.accepts(transaction.blockhash)
