"""Which exits have a transaction that may land: tokens that are bought meanwhile could be sold by it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lasersell_sync.autosell.exits import ExitKey

__all__ = ["ExitsUnderWay"]


class ExitsUnderWay:
    """Holds purchases of a token back while an exit of the same wallet and token may still land.

    Threads: every method from any; what was held back is called by whoever ends the last exit, with no lock held.
    """

    def __init__(self) -> None:
        # Guards both.
        self._lock = threading.Lock()
        #: By (wallet, mint).
        self._live: dict[tuple[str, str], set[ExitKey]] = {}
        self._held_back: dict[tuple[str, str], list[Callable[[], None]]] = {}

    def set_live(self, key: ExitKey, *, is_live: bool) -> None:
        """An exit has a transaction that may land, or has none any more."""
        place = (key.wallet, key.mint)
        with self._lock:
            live = self._live.setdefault(place, set())
            (live.add if is_live else live.discard)(key)
            if not live:
                del self._live[place]
            freed = [] if live else self._held_back.pop(place, [])
        for then in freed:
            then()

    def hold_back(self, wallet: str, mint: str, then: Callable[[], None]) -> bool:
        """Whether something may still land; if so, ``then`` is called once nothing can."""
        place = (wallet, mint)
        with self._lock:
            is_busy = place in self._live
            if is_busy:
                self._held_back.setdefault(place, []).append(then)
        return is_busy

    def waiting(self) -> int:
        """How many purchases are held back."""
        return sum(map(len, list(self._held_back.values())))
