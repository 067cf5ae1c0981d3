"""What wallets hold in SOL and wrapped SOL, as far as nodes have said: it bounds what an unsimulated sale can lose."""

from __future__ import annotations

import threading
from collections.abc import Mapping

__all__ = ["WalletFunds"]


class WalletFunds:
    """The newest word of each node about each wallet's lamports.

    Threads: every method from any.
    """

    def __init__(self) -> None:
        # Guards everything below.
        self._lock = threading.Lock()
        #: By wallet and node: lamports of the accounts that hold its SOL, by address.
        self._said: dict[tuple[bytes, str], dict[bytes, int]] = {}
        #: What sales that were signed since without a simulation may have brought, by wallet.
        self._expected: dict[bytes, int] = {}

    def saw(self, wallet: bytes, node: str, lamports: Mapping[bytes, int]) -> None:
        """A node said what these accounts hold: the wallet itself, and its wrapped SOL."""
        with self._lock:
            self._said.setdefault((wallet, node), {}).update(lamports)
            self._expected.pop(wallet, None)

    def expects(self, wallet: bytes, lamports: int) -> None:
        """A sale that nobody simulated may bring so much."""
        with self._lock:
            self._expected[wallet] = self._expected.get(wallet, 0) + max(0, lamports)

    def known_lamports(self, wallet: bytes) -> int | None:
        """The most that any node said last; None: no node has said anything."""
        with self._lock:
            sums = [sum(said.values()) for (owner, _), said in self._said.items() if owner == wallet]
            return max(sums) + self._expected.get(wallet, 0) if sums else None
