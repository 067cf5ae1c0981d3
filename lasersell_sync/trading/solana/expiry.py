"""When a transaction can no longer land, and what proves it; slot time. Rules without sockets, threads or a clock."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

__all__ = [
    "BLOCKHASH_LIFE_BLOCKS",
    "FALLBACK_SLOT_S",
    "READS_NEEDED",
    "STATUS_CACHE_SLOTS",
    "ExpiryRule",
    "SlotTime",
    "Tip",
]


# ── How long a slot takes, by the nodes' own words, and how many blocks a time is ───────────────────────────────────
# Slots became shorter and will again (400 ms once, 200 ms by SIMD-0525), so that nothing here multiplies by a fixed
# one.


#: Before any node answered, and where none does: the shortest slots that the network has. Shorter slots are more
#: blocks in the same time, so that whoever waits for blocks waits too long rather than too short.
FALLBACK_SLOT_S: Final = 0.2
#: What a node can say and be believed.
_SHORTEST_S: Final = 0.05
_LONGEST_S: Final = 1.0
#: How far a node may lag behind the cluster and still be believed to know nothing of a newer blockhash. One that lags
#: by a minute calls itself unhealthy (agave: 128 slots of 400 ms), and providers take it out.
_LAG_S: Final = 120.0
#: A branch that is given up is no longer than this: then the other one is final (32 slots of 400 ms). Alpenglow has
#: none so long.
_FORK_S: Final = 12.8


class SlotTime:
    """The slot time that nodes tell; the shortest counts.

    Threads: any; each step is one that no thread interrupts.
    """

    def __init__(self) -> None:
        self._by_node: dict[int, float] = {}

    def saw(self, node: int, seconds: float) -> None:
        """A node's newest performance samples say so; nonsense counts as the nearest that can be true."""
        self._by_node[node] = min(max(seconds, _SHORTEST_S), _LONGEST_S)

    @property
    def slot_s(self) -> float:
        """Seconds."""
        return min(tuple(self._by_node.values()), default=FALLBACK_SLOT_S)

    @property
    def lag_blocks(self) -> int:
        """How many blocks a node may lag behind."""
        return math.ceil(_LAG_S / self.slot_s)

    @property
    def fork_blocks(self) -> int:
        """How long a branch may grow that is given up."""
        return math.ceil(_FORK_S / self.slot_s)


# ── When a transaction can no longer land, and what proves it. A rule without sockets ───────────────────────────────
# A block takes a transaction when the transaction's blockhash is at most 150 blocks old (Solana's
# ``MAX_PROCESSING_AGE``; docs/protocol.md §9). The server chose the blockhash and does not tell of which block it is,
# so the last height at which it is good can only be bounded from above:
#
# - A node that calls the blockhash valid has the block in its chain. Whatever node is asked afterwards: a confirmed
#   block in a slot not older than that answer's stands on it, so its height is the block's or more. How far the nodes
#   lag behind does not matter, nor whether one URL stands for several of them; the lowest such bound counts.
# - A blockhash that no node ever called valid (it was dead already, or every node lags) is at most as high as the
#   highest block that any of them reported after the transaction arrived, plus what such a node may lag behind.
#
# A transaction is dead when, beyond that bound, its status was asked for twice and there was none. An answer counts
# only when it comes from a state that is not older than a confirmed block at the bound: ``getEpochInfo`` tells the
# slot of such a block, and the answer of ``getSignatureStatuses`` tells its own. It counts only from nodes that know
# the blockhash, where any does: another cluster's node knows nothing of this one's transactions, and says so politely.
#
# That is one node's word. Whoever sells again because of it needs more: each node's own verdict (``is_dead_by``), by
# its own heights where it knows the blockhash, so that heights that are wrong by any constant do no harm.
#
# A node without a transaction history searches its status cache only. The cache holds the newest 300 rooted slots, so
# finding nothing counts while the transaction cannot have landed before those (``STATUS_CACHE_SLOTS``).


#: A blockhash is good while it is at most 150 blocks old, as seen from the block *before* the one that takes the
#: transaction: that one may be 151 blocks higher.
BLOCKHASH_LIFE_BLOCKS: Final = 151
#: One answer may come from a node that has just lost its way.
READS_NEEDED: Final = 2
#: How far back a status cache reaches: agave keeps 300 rooted slots, less what stands above the root.
STATUS_CACHE_SLOTS: Final = 300 - 32


class Tip(NamedTuple):
    """A block of a node's chain, as ``getEpochInfo`` tells it.

    Attributes:
        slot: its slot.
        height: how many blocks stand below it; never more than the slots.
    """

    slot: int
    height: int


class ExpiryRule:
    """What is known of one transaction's end. Nodes are told apart by any number.

    Args:
        slot_time: how many blocks a node may lag behind, and a branch may grow.

    Threads: none; the caller guards it.
    """

    __slots__ = (
        "_bounds", "_first_heights", "_first_slots", "_highest", "_past", "_reads", "_reads_by", "_slot_time",
        "_valid_at",
    )  # fmt: skip

    def __init__(self, slot_time: SlotTime) -> None:
        self._slot_time = slot_time
        #: Slot of each node's first word that the blockhash is valid.
        self._valid_at: dict[int, int] = {}
        #: Height of the first block that each node reported.
        self._first_heights: dict[int, int] = {}
        #: The lowest height, by node, from which on no block takes the transaction; True: from a confirmed block.
        self._bounds: dict[int, tuple[int, bool]] = {}
        #: The transaction cannot have landed in an older slot than this, by node.
        self._first_slots: dict[int, int] = {}
        #: By node and bound: the lowest slot of a confirmed block at that bound or beyond.
        self._past: dict[tuple[int, int], int] = {}
        self._highest = 0
        #: Reads that found nothing beyond the lowest bound, of all nodes.
        self._reads = 0
        #: The same by node, beyond the node's own bound.
        self._reads_by: dict[int, int] = {}

    def is_known_to(self, node: int) -> bool:
        """Whether the node has called the blockhash valid; it need not be asked again."""
        return node in self._valid_at

    def is_bounded_by(self, node: int, *, confirmed: bool = True) -> bool:
        """Whether a block of this node, a confirmed one, has given a bound that needs no guess."""
        bound = self._bounds.get(node)
        return bound is not None and (bound[1] or not confirmed)

    @property
    def bound(self) -> int | None:
        """From this height on no block takes the transaction; None: not known yet."""
        if self._bounds:
            return min(height for height, _ in self._bounds.values())
        if self._valid_at or not self._first_heights:
            return None
        return max(self._first_heights.values()) + BLOCKHASH_LIFE_BLOCKS + self._slot_time.lag_blocks

    def wants_tip(self, node: int, newest_height: int, height: int) -> bool:
        """Whether the node's newest confirmed block would tell something.

        Args:
            node: who would be asked.
            newest_height: of the newest confirmed block that it has told.
            height: what that may have grown to.
        """
        if node not in self._first_heights or (node in self._valid_at and not self.is_bounded_by(node)):
            return True
        bound = self.bound
        return bound is not None and newest_height < bound <= height

    def saw_valid(self, node: int, slot: int) -> None:
        """``isBlockhashValid`` said true.

        Args:
            node: who said it.
            slot: of the state it was said of (``context.slot``), whatever its commitment.
        """
        self._valid_at.setdefault(node, slot)

    def saw_tip(self, node: int, tip: Tip, *, confirmed: bool = True) -> None:
        """``getEpochInfo`` answered, asked after the transaction was there.

        Args:
            node: who answered.
            tip: what it said.
            confirmed: the commitment asked for was ``confirmed``, not ``processed``.
        """
        self._first_heights.setdefault(node, tip.height)
        if confirmed:
            self._highest = max(self._highest, tip.height)
        valid_at = self._valid_at.get(node)
        # A block of an older slot may stand below the blockhash's: another node behind the same URL told it.
        if valid_at is None or tip.slot < valid_at:
            return
        height = tip.height + BLOCKHASH_LIFE_BLOCKS + (0 if confirmed else self._slot_time.fork_blocks)
        known = self._bounds.get(node)
        self._bounds[node] = (height, confirmed) if known is None else (min(height, known[0]), confirmed or known[1])

    def began_at(self, node: int, slot: int) -> None:
        """The transaction cannot have landed below this slot of the node's chain; only the first call counts."""
        self._first_slots.setdefault(node, slot)

    def saw_status(self) -> None:
        """Some node knows the transaction: what was not found before says little."""
        self._reads = 0
        self._reads_by.clear()

    def saw_no_status(self, node: int, tip: Tip | None, slot: int, *, searched_history: bool = True) -> bool:
        """``getSignatureStatuses`` found nothing.

        Args:
            node: who answered.
            tip: a confirmed block that this node reported before it was asked; None without one.
            slot: of the state that was searched (``context.slot``).
            searched_history: False when only the node's status cache was searched.

        Returns:
            True when it is proven, by one node's word, that the transaction will not land.
        """
        if not searched_history and slot - self._first_slots.get(node, 0) > STATUS_CACHE_SLOTS:
            return False
        if self._is_past(node, self._own_bound(node), tip, slot):
            self._reads_by[node] = self._reads_by.get(node, 0) + 1
        if not self._is_past(node, self.bound, tip, slot) or (self._valid_at and node not in self._valid_at):
            return False
        self._reads += 1
        return self._reads >= READS_NEEDED

    def is_dead_by(self, node: int) -> bool:
        """Whether this node's own answers prove that the transaction will not land."""
        return self._reads_by.get(node, 0) >= READS_NEEDED

    def _own_bound(self, node: int) -> int | None:
        """By the node's own heights where it knows the blockhash, else the highest that any node gives."""
        own = self._bounds.get(node)
        if own is not None:
            return own[0]
        if node in self._valid_at:
            return None
        return max((height for height, _ in self._bounds.values()), default=self.bound)

    def _is_past(self, node: int, bound: int | None, tip: Tip | None, slot: int) -> bool:
        """Whether a state of this slot holds everything that could take the transaction."""
        if bound is None or tip is None:
            return False
        place = (node, bound)
        if tip.height >= bound:
            self._past[place] = min(tip.slot, self._past.get(place, tip.slot))
        return slot >= self._past.get(place, slot + 1)

    def explain(self) -> str:
        """What is missing for a proof, in words."""
        bound = self.bound
        if bound is None:
            return "no node has told yet how long its blockhash is good"
        seen = f"; the highest confirmed block seen is {self._highest}" if self._highest else ""
        return f"no block from height {bound} on takes it{seen}"
