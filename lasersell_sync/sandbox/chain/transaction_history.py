"""Landed transactions, and which of them named an account: what ``getSignaturesForAddress`` answers from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.execution import TransactionError
from lasersell_sync.sandbox.chain.runtime import Swap


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """A landed transaction. ``instructions`` are one-line summaries; ``err`` is None on success.

    ``tip_lamports`` is what it paid to senders' tip accounts, and ``swaps`` the trades it made, if it succeeded.
    """

    signature: str
    slot: int
    err: TransactionError | None
    fee_lamports: int
    fee_payer: str
    instructions: tuple[str, ...]
    tip_lamports: int = 0
    units_used: int = 0
    swaps: tuple[Swap, ...] = ()
    #: virtual Unix seconds
    block_time_s: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """A landed transaction and its place in the order of the chain."""

    place: int
    record: TransactionRecord


class SignatureHistory:
    """The landed transactions of each account, oldest first.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        self._by_account: dict[Pubkey, list[_Entry]] = {}
        self._by_signature: dict[str, _Entry] = {}

    def add(self, record: TransactionRecord, accounts: Iterable[Pubkey]) -> None:
        """Note a transaction that has landed, failed ones included, with every account that it names."""
        entry = _Entry(len(self._by_signature), record)
        self._by_signature[record.signature] = entry
        for account in dict.fromkeys(accounts):
            self._by_account.setdefault(account, []).append(entry)

    def of(
        self, account: Pubkey, *, limit: int, newest_slot: int, before: str | None = None, until: str | None = None
    ) -> list[TransactionRecord]:
        """The newest transactions of an account that have landed up to a slot, newest first.

        ``before`` and ``until`` are places in the chain: their transactions need not name the account. As Agave does,
        nothing is found before a transaction that the node does not know, and an unknown ``until`` ends nothing.

        Args:
            account: Any account.
            limit: How many at the most.
            newest_slot: What landed later is not known.
            before: Begin behind this signature; None: at the newest.
            until: End in front of this signature; None: at the oldest.
        """
        start, end = self._place(before, newest_slot), self._place(until, newest_slot)
        if before is not None and start is None:
            return []
        found: list[TransactionRecord] = []
        for entry in reversed(self._by_account.get(account, [])):
            if len(found) == limit or (end is not None and entry.place <= end):
                break
            if entry.record.slot <= newest_slot and (start is None or entry.place < start):
                found.append(entry.record)
        return found

    def _place(self, signature: str | None, newest_slot: int) -> int | None:
        """Where a transaction stands in the chain; None if it has not landed up to a slot."""
        entry = None if signature is None else self._by_signature.get(signature)
        return entry.place if entry is not None and entry.record.slot <= newest_slot else None
