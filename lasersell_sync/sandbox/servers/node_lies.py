"""How a JSON-RPC node lies: heights ahead, old answers, odd items, absurd numbers, no history, silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

OddItem = Literal["text", "number", "list", "empty", "null", "missing", "wrong_types"]
SimulationLie = Literal["fails", "harmless"]
_ODD_ITEMS: dict[OddItem, object] = {"text": "processed", "number": 5, "list": [], "empty": {}, "null": None}
#: The JSON-RPC error of a node that keeps no transaction history.
NO_HISTORY = (-32011, "Transaction history is not available from this node")
#: Beyond what a signed 64-bit number holds, and still a JSON integer.
_ABSURD = 2**63 + 2**40


@dataclass(frozen=True, slots=True)
class NodeLies:
    """How one node lies; without arguments it is honest.

    Attributes:
        lag_slots: Everything it shows is as old, slots included: it is behind, and does not hide it.
        heights_ahead: Its slots and block heights are so far ahead of the chain; with them it calls blockhashes dead.
        stale_index_slots: What it says of signatures is as old, while its slots are those of now.
        stale_accounts_slots: Balances and accounts are as old, while its slots are those of now.
        no_history: It keeps no transaction history: whoever asks for it gets -32011.
        odd_item: One item of a batch of statuses, accounts or signatures is nonsense of this kind, the others are
            right: ``text``, ``number``, ``list``, ``empty`` (an object without fields), ``null``, ``missing`` (the list
            is one short), ``wrong_types`` (every field is a list around its value).
        absurd_numbers: Its slots, heights and lamports lie beyond 2^63.
        simulation: ``fails``: every simulated transaction fails in its last instruction; ``harmless``: it succeeds and
            changes nothing.
        hangs: It takes requests and never answers them, nor does it obey them.
    """

    lag_slots: int = 0
    heights_ahead: int = 0
    stale_index_slots: int = 0
    stale_accounts_slots: int = 0
    no_history: bool = False
    odd_item: OddItem | None = None
    absurd_numbers: bool = False
    simulation: SimulationLie | None = None
    hangs: bool = False

    def __post_init__(self) -> None:
        for name in ("lag_slots", "heights_ahead", "stale_index_slots", "stale_accounts_slots"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**6:
                raise ValueError(f"{name} must be a whole number from 0 to a million, not {value!r}")
        for name in ("no_history", "absurd_numbers", "hangs"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")  # noqa: TRY004
        for name, kinds in (("odd_item", get_args(OddItem)), ("simulation", get_args(SimulationLie))):
            if getattr(self, name) not in (None, *kinds):
                raise ValueError(f"{name} must be one of {', '.join(kinds)}, or None, not {getattr(self, name)!r}")

    def named(self) -> dict[str, object]:
        """The active lies by name; ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def accounts_lag_slots(self) -> int:
        """How old the accounts are that the node shows."""
        return self.lag_slots + self.stale_accounts_slots

    def reported(self, number: int) -> int:
        """A slot or height as the node reports it."""
        return _ABSURD + number if self.absurd_numbers else number + self.heights_ahead

    def lamports(self, number: int) -> int:
        """A balance as the node reports it."""
        return _ABSURD + number if self.absurd_numbers else number

    def spoiled(self, entries: Sequence[dict[str, object] | None]) -> list[object]:
        """Statuses, signatures or accounts as the node shows them: the middle one may be odd, every slot absurd."""
        shown: list[object] = list(entries)
        if self.absurd_numbers:
            shown = [{**item, "slot": _ABSURD} if item is not None and "slot" in item else item for item in entries]
        if self.odd_item is None or not shown:
            return shown
        middle = len(shown) // 2
        if self.odd_item == "missing":
            del shown[middle]
        elif self.odd_item == "wrong_types":
            shown[middle] = {name: [value] for name, value in (entries[middle] or {"slot": None}).items()}
        else:
            shown[middle] = _ODD_ITEMS[self.odd_item]
        return shown


TRUTHFUL = NodeLies()
