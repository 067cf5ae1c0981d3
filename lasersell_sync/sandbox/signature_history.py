"""Which landed transactions named an account: what ``getSignaturesForAddress`` answers from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from solders.pubkey import Pubkey

if TYPE_CHECKING:
    from lasersell_sync.sandbox.chain import TransactionRecord


class SignatureHistory:
    """The landed transactions of each account, oldest first.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        self._by_account: dict[Pubkey, list[TransactionRecord]] = {}

    def add(self, record: TransactionRecord, accounts: Iterable[Pubkey]) -> None:
        """Note a transaction that has landed, failed ones included, with every account that it names."""
        for account in dict.fromkeys(accounts):
            self._by_account.setdefault(account, []).append(record)

    def of(
        self, account: Pubkey, *, limit: int, newest_slot: int, before: str | None = None, until: str | None = None
    ) -> list[TransactionRecord]:
        """The newest transactions of an account that have landed up to a slot, newest first.

        Args:
            account: Any account.
            limit: How many at the most.
            newest_slot: What landed later is not shown.
            before: Begin behind this signature; None: at the newest.
            until: End in front of this signature; None: at the oldest.
        """
        found: list[TransactionRecord] = []
        waiting = before is not None
        for record in reversed(self._by_account.get(account, [])):
            if record.signature == until or len(found) == limit:
                break
            if not waiting and record.slot <= newest_slot:
                found.append(record)
            waiting = waiting and record.signature != before
        return found
