"""One definition of an opening: whether an announced position is the one that was known before, or was bought anew."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Opening", "is_same_opening"]


class Opening(NamedTuple):
    """What an announcement says about the opening of a token account.

    Attributes:
        entry_quote_units: the position's cost, in lamports or USD1 base units.
        opened_at_ms: Unix milliseconds by the server's clock; None when the server names no moment.
    """

    entry_quote_units: int
    opened_at_ms: int | None = None


def is_same_opening(
    known: Opening,
    announced: Opening,
    *,
    was_closed: bool = False,
    part_landed: bool = False,
    exit_under_way: bool = False,
) -> bool:
    """True when ``announced`` is the opening that is ``known`` already; False when the account was opened again.

    When both name their moment, the moments decide: a sale of a part, or another purchase, changes the entry of one
    opening. Otherwise a close in between makes it another opening, and so does another entry, unless our own sale
    explains that entry.

    Deadlines, overrides, the resync after a reconnect and the generations of a seller all use this definition.

    Args:
        known: the latest announcement of the same wallet and token account.
        announced: the announcement to judge.
        was_closed: a ``position_closed`` came between the two.
        part_landed: a part of the known opening was sold, and not all of it.
        exit_under_way: an exit of the known opening may still land.
    """
    if known.opened_at_ms is not None and announced.opened_at_ms is not None:
        return known.opened_at_ms == announced.opened_at_ms
    if was_closed:
        return False
    if known.entry_quote_units == announced.entry_quote_units or exit_under_way:
        return True
    return part_landed and announced.entry_quote_units < known.entry_quote_units
