"""Slots and blockhashes: the chain's clock.

A slot is 400 ms of the monotonic clock; nothing ticks in the background, the current slot is worked out when asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from solders.hash import Hash

SLOT_S = 0.4
#: A blockhash is accepted for this many slots.
BLOCKHASH_LIFE_SLOTS = 150
_FIRST_SLOT = 300_000_000
#: Slots without a block, since the beginning.
_SKIPPED_SLOTS = 21_000_000


class SlotClock:
    """The current slot, and which blockhash belongs to which slot.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._start_s = now_s()
        self._offset_slots = 0
        # A cluster of its own: a transaction of another sandbox's run must not land in this one.
        self._salt = os.urandom(16)
        self._slot_of: dict[Hash, int] = {}
        self._remembered_to = _FIRST_SLOT - 1

    def slot(self) -> int:
        """The current slot."""
        return _FIRST_SLOT + self._offset_slots + int((self._now_s() - self._start_s) / SLOT_S)

    def skip(self, slots: int) -> None:
        """Let time pass: the slot jumps ahead."""
        self._offset_slots += slots

    def block_height(self, slot: int | None = None) -> int:
        """Blocks up to a slot (default: now)."""
        return (self.slot() if slot is None else slot) - _SKIPPED_SLOTS

    def latest_blockhash(self) -> tuple[Hash, int]:
        """The newest blockhash, and the last block height at which it is accepted."""
        slot = self.slot()
        return self._blockhash(slot), self.block_height(slot) + BLOCKHASH_LIFE_SLOTS

    def accepts(self, blockhash: Hash) -> bool:
        """Whether a blockhash is known and young enough."""
        now = self.slot()
        self._remember(now)
        slot = self._slot_of.get(blockhash)
        return slot is not None and now - slot <= BLOCKHASH_LIFE_SLOTS

    def _blockhash(self, slot: int) -> Hash:
        return Hash(hashlib.sha256(self._salt + slot.to_bytes(8, "little")).digest())

    def _remember(self, now: int) -> None:
        oldest = now - BLOCKHASH_LIFE_SLOTS
        for slot in range(max(oldest, self._remembered_to + 1), now + 1):
            self._slot_of[self._blockhash(slot)] = slot
        if self._remembered_to < oldest or len(self._slot_of) > 4 * BLOCKHASH_LIFE_SLOTS:
            self._slot_of = {known: slot for known, slot in self._slot_of.items() if slot >= oldest}
        self._remembered_to = max(self._remembered_to, now)
