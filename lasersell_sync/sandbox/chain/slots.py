"""Slots, blocks and blockhashes: the chain's clock.

A slot is 200 ms of the exchange's clock, which may run faster than the wall's. A block is made in each but those that
are skipped. Nothing ticks in the background: the current slot is worked out when asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from solders.hash import Hash

#: Since SIMD-0525 a slot takes 200 ms.
SLOT_S = 0.2
#: A blockhash is accepted for this many blocks.
BLOCKHASH_LIFE_BLOCKS = 150
SLOTS_IN_EPOCH = 432_000
#: How many slots old a block must be to have each commitment, in rising order. Here no block is ever abandoned.
COMMITMENT_SLOTS = {"processed": 0, "confirmed": 1, "finalized": 32}
_FIRST_SLOT = 300_000_000
#: Slots without a block, since the beginning.
_SKIPPED_SLOTS = 21_000_000


def commitment_after(age_slots: int) -> str:
    """The highest commitment that a block of this age has reached."""
    reached = [name for name, slots in COMMITMENT_SLOTS.items() if age_slots >= slots]
    return reached[-1] if reached else "processed"


class SlotClock:
    """The current slot, and which blockhash belongs to which slot.

    Args:
        now_s: The exchange's clock.
        salt: Tells one cluster's blockhashes from another's. None draws one, so that a transaction of another sandbox's
            run cannot land in this one.
        slot_s: Seconds of a slot.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, now_s: Callable[[], float], *, salt: bytes | None = None, slot_s: float = SLOT_S) -> None:
        self._now_s = now_s
        self.slot_s = slot_s
        self._start_s = now_s()
        self._offset_slots = 0
        #: (first slot, how many) without a block
        self._empty: list[tuple[int, int]] = []
        self._salt = os.urandom(16) if salt is None else salt
        self._slot_of: dict[Hash, int] = {}
        # The cluster is older than the sandbox: whoever asks for a finalized blockhash in the first second gets one.
        self._remembered_to = _FIRST_SLOT - BLOCKHASH_LIFE_BLOCKS - 1

    def slot(self, commitment: str = "processed") -> int:
        """The newest slot at a commitment. Raises KeyError for a commitment there is not."""
        now = _FIRST_SLOT + self._offset_slots + int((self._now_s() - self._start_s) / self.slot_s)
        return now - COMMITMENT_SLOTS[commitment]

    def skip(self, slots: int, *, empty: bool = False) -> None:
        """The slot jumps ahead; without blocks (``empty``) heights stand still, and blockhashes do not age."""
        if empty:
            self._empty.append((self.slot() + 1, slots))
        self._offset_slots += slots

    def block_height(self, slot: int | None = None) -> int:
        """Blocks up to a slot (default: now)."""
        slot = self.slot() if slot is None else slot
        empty = sum(min(max(slot - first + 1, 0), count) for first, count in self._empty)
        return slot - _SKIPPED_SLOTS - empty

    def _last_block(self, slot: int) -> int:
        """The slot of the last block up to a slot."""
        for first, count in reversed(self._empty):
            if first <= slot < first + count:
                slot = first - 1
        return slot

    def latest_blockhash(self, commitment: str = "processed", *, lag_slots: int = 0) -> tuple[Hash, int]:
        """The newest blockhash at a commitment, and the last block height at which it is accepted."""
        slot = self.slot(commitment) - lag_slots
        return self._blockhash(self._last_block(slot)), self.block_height(slot) + BLOCKHASH_LIFE_BLOCKS

    def accepted(self, blockhash: Hash, slot: int) -> bool:
        """Whether a blockhash was known and young enough in a slot of the past."""
        for _ in range(BLOCKHASH_LIFE_BLOCKS + 1):
            slot = self._last_block(slot)
            if self._blockhash(slot) == blockhash:
                return True
            slot -= 1
        return False

    def accepts(self, blockhash: Hash) -> bool:
        """Whether a blockhash is known and young enough."""
        now = self.slot()
        self._remember(now)
        slot = self._slot_of.get(blockhash)
        return slot is not None and self.block_height(now) - self.block_height(slot) <= BLOCKHASH_LIFE_BLOCKS

    def _blockhash(self, slot: int) -> Hash:
        return Hash(hashlib.sha256(self._salt + slot.to_bytes(8, "little")).digest())

    def _remember(self, now: int) -> None:
        oldest = now
        for _ in range(BLOCKHASH_LIFE_BLOCKS):
            oldest = self._last_block(oldest) - 1
        for slot in range(max(oldest, self._remembered_to + 1), now + 1):
            if self._last_block(slot) == slot:
                self._slot_of[self._blockhash(slot)] = slot
        if self._remembered_to < oldest or len(self._slot_of) > 4 * BLOCKHASH_LIFE_BLOCKS:
            self._slot_of = {known: slot for known, slot in self._slot_of.items() if slot >= oldest}
        self._remembered_to = max(self._remembered_to, now)
