"""How long a slot takes, by the nodes' own words, and how many blocks a time is.

Slots became shorter and will again (400 ms once, 200 ms by SIMD-0525), so that nothing here multiplies by a fixed one.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["FALLBACK_SLOT_S", "SlotTime"]

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
