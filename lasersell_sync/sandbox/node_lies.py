"""What a JSON-RPC node says that is not so: heights ahead, a stale index, odd items, absurd numbers, no history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

OddItem = Literal["text", "number", "list", "empty"]
_ODD_ITEMS: dict[OddItem, object] = {"text": "processed", "number": 5, "list": [], "empty": {}}
#: The JSON-RPC error of a node that keeps no transaction history.
NO_HISTORY = (-32011, "Transaction history is not available from this node")
#: Beyond what a signed 64-bit number holds, and still a JSON integer.
_ABSURD = 2**63 + 2**40


@dataclass(frozen=True, slots=True)
class NodeLies:
    """How one node lies; without arguments it tells the truth.

    Attributes:
        lag_slots: Everything it tells of slots, heights, blockhashes and statuses is as old.
        heights_ahead: Its slots and block heights are so far ahead of the chain; with them it calls blockhashes dead.
        stale_index_slots: What it says of signatures is as old, while its slots are those of now.
        no_history: It keeps no transaction history: whoever asks for it gets -32011.
        odd_item: One item of a batch of statuses is nonsense of this kind, the others are right.
        absurd_numbers: Its slots and heights lie beyond 2^63.
    """

    lag_slots: int = 0
    heights_ahead: int = 0
    stale_index_slots: int = 0
    no_history: bool = False
    odd_item: OddItem | None = None
    absurd_numbers: bool = False

    def __post_init__(self) -> None:
        for name in ("lag_slots", "heights_ahead", "stale_index_slots"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**6:
                raise ValueError(f"{name} must be a whole number from 0 to a million, not {value!r}")
        if self.odd_item is not None and self.odd_item not in get_args(OddItem):
            raise ValueError(f"odd_item must be one of {', '.join(get_args(OddItem))}, or None, not {self.odd_item!r}")

    def told(self, number: int) -> int:
        """A slot or height as the node tells it."""
        return _ABSURD + number if self.absurd_numbers else number + self.heights_ahead

    def spoiled(self, entries: Sequence[dict[str, object] | None]) -> list[object]:
        """Statuses or signatures as the node shows them: the middle one may be odd, every slot absurd."""
        told: list[object] = list(entries)
        if self.absurd_numbers:
            told = [item if item is None else {**item, "slot": _ABSURD} for item in entries]
        if self.odd_item is not None and told:
            told[len(told) // 2] = _ODD_ITEMS[self.odd_item]
        return told


TRUTHFUL = NodeLies()
