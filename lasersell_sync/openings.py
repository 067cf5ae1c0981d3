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


class OwnSale:
    """What is known of the sales of one opening.

    It holds no message: thousands of positions may be signalled, each with its transaction.

    Attributes:
        position_tokens: what the position held at the latest exit signal.
        is_part: that signal sells a part of it.
        received_ns: when it was received, by the monotonic clock.
        has_landed: its sale has landed.
        part_landed: a part of the opening has landed, by this signal or an earlier one.
    """

    __slots__ = ("has_landed", "is_part", "part_landed", "position_tokens", "received_ns")

    def __init__(self) -> None:
        self.part_landed = False

    def signalled(self, message: ExitSignalWithTx, received_ns: int) -> None:
        """The latest exit signal."""
        sell_tokens, self.position_tokens = message.sell_tokens, message.position_tokens
        self.is_part = sell_tokens is not None and sell_tokens < message.position_tokens
        self.received_ns = received_ns
        self.has_landed = False


class OwnSales:
    """What the exit signals and balances of a session say about the sales of its positions.

    A position is named by (wallet, token account). What is kept ends with the opening: ``forget``.

    Threads: the reader.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        #: Of each position that an exit signal named. A caller on a hot path looks in here before it calls a method.
        self.known: dict[tuple[str, str], OwnSale] = {}

    def signalled(self, key: tuple[str, str], message: ExitSignalWithTx, received_ns: int) -> None:
        """An exit signal came; it was received at ``received_ns`` by the monotonic clock."""
        sale = self.known.get(key)
        if sale is None:
            sale = self.known[key] = OwnSale()
        elif message.position_tokens < sale.position_tokens:
            self.balance(key, message.position_tokens)
        sale.signalled(message, received_ns)

    def balance(self, key: tuple[str, str], tokens: int) -> None:
        """A balance came: fewer tokens than at the latest signal say that its sale has landed."""
        sale = self.known.get(key)
        if sale is not None and tokens < sale.position_tokens:
            sale.has_landed = True
            if sale.is_part and tokens > 0:
                sale.part_landed = True

    def forget(self, key: tuple[str, str]) -> None:
        """The position was closed, or opened again."""
        self.known.pop(key, None)

    def of(self, key: tuple[str, str], tokens: int) -> tuple[bool, bool]:
        """(whether a part of this opening has landed, whether an exit of it is under way), by a balance of now."""
        sale = self.known.get(key)
        if sale is None:
            return False, False
        is_young = self._clock_ns() - sale.received_ns < EXIT_UNDER_WAY_S * 1e9
        part_lands_now = sale.is_part and 0 < tokens < sale.position_tokens
        return sale.part_landed or part_lands_now, is_young and not sale.has_landed
