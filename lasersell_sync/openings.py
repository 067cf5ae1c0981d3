"""One definition of an opening: whether an announced position is the one that was known before, or was bought anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from lasersell_sync.messages import ExitSignalWithTx

__all__ = ["Opening", "OwnSales", "is_same_opening"]

#: An exit whose end is not seen is under way for so long after its latest signal: no transaction lives longer.
EXIT_UNDER_WAY_S: Final = 120.0


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


class _Sale(NamedTuple):
    """The latest exit signal of an opening, and what is known of its sales."""

    position_tokens: int
    is_part: bool
    signalled_ns: int
    has_landed: bool = False
    #: A part of this opening landed, at this signal or an earlier one.
    part_landed: bool = False

    def seen_with(self, tokens: int) -> _Sale:
        """Fewer tokens than at the signal say that its sale has landed."""
        if tokens >= self.position_tokens:
            return self
        return self._replace(has_landed=True, part_landed=self.part_landed or (self.is_part and tokens > 0))


class OwnSales:
    """What the exit signals and balances of a session say about the sales of its positions.

    A position is named by (wallet, token account). What is kept ends with the opening: ``forget``.

    Threads: the reader.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._sales: dict[tuple[str, str], _Sale] = {}

    @property
    def any(self) -> bool:
        """False when no exit signal is remembered."""
        return bool(self._sales)

    def signalled(self, key: tuple[str, str], message: ExitSignalWithTx, received_ns: int) -> None:
        """An exit signal came; it was received at ``received_ns`` by the monotonic clock."""
        before = self._sales.get(key)
        part_landed = before is not None and before.seen_with(message.position_tokens).part_landed
        is_part = message.sell_tokens is not None and message.sell_tokens < message.position_tokens
        self._sales[key] = _Sale(message.position_tokens, is_part, received_ns, part_landed=part_landed)

    def balance(self, key: tuple[str, str], tokens: int) -> None:
        """A ``balance_update`` came."""
        sale = self._sales.get(key)
        if sale is not None:
            self._sales[key] = sale.seen_with(tokens)

    def forget(self, key: tuple[str, str]) -> None:
        """The position was closed, or opened again."""
        self._sales.pop(key, None)

    def of(self, key: tuple[str, str], tokens: int) -> tuple[bool, bool]:
        """(whether a part of this opening has landed, whether an exit of it is under way), by a balance of now."""
        sale = self._sales.get(key)
        if sale is None:
            return False, False
        is_under_way = not sale.has_landed and self._clock_ns() - sale.signalled_ns < EXIT_UNDER_WAY_S * 1e9
        return sale.seen_with(tokens).part_landed, is_under_way
