"""The identity of an exit, which exits are under way, and a signed transaction before its first byte."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from lasersell_sync.messages import ExitSignalWithTx

__all__ = ["LEG", "WHOLE", "Departure", "ExitKey", "ExitsUnderWay", "part_of", "tokens_of"]


# ── A signed transaction between its record and its first byte ──────────────────────────────────────────────────────


class Departure:
    """Leaves once, or is held back and never leaves.

    The position's line decides when a transaction is signed; the thread that commits its record sends it. In between
    the position may be closed or opened again: whoever is first, ``leave`` or ``hold_back``, decides.

    Args:
        signature: of the transaction, base58.

    Threads: every method from any.
    """

    def __init__(self, signature: str) -> None:
        self.signature = signature
        # Held while the bytes leave: who asks meanwhile gets the answer after that.
        self._lock = threading.Lock()
        self._has_left = False
        self._is_held_back = False

    @property
    def is_held_back(self) -> bool:
        """Whether it never leaves."""
        return self._is_held_back

    def leave(self, send: Callable[[], object]) -> None:
        """Call ``send``, unless the transaction is held back. What it raises is passed on."""
        with self._lock:
            if not self._is_held_back:
                self._has_left = True
                send()

    def hold_back(self) -> bool:
        """True: it has not left, and never will."""
        with self._lock:
            self._is_held_back = not self._has_left
            return self._is_held_back


# ── Which exit a signal is about: the identity that one sale, and only one, may be made for ─────────────────────────


#: The part of a position that an exit without a ladder level sells.
WHOLE: Final = "whole"
#: How the part of a sale in legs begins.
LEG: Final = "leg "


class ExitKey(NamedTuple):
    """The identity of an exit; at most one transaction of an exit may be live.

    The server's ``position_id`` has no part in it: a reconnect may change that (docs/protocol.md 12), and the same
    exit signalled under another number is still the same sale.

    Attributes:
        wallet: base58.
        token_account: where the tokens lie, base58.
        mint: the token, base58.
        part: ``whole``, ``level 2`` (a ladder level), or ``leg …`` (of a sale in legs).
        generation: how often this token account was opened, as far as it was seen.
    """

    wallet: str
    token_account: str
    mint: str
    part: str
    generation: int

    @property
    def is_whole(self) -> bool:
        """True when it sells all there is."""
        return self.part == WHOLE

    @property
    def is_leg(self) -> bool:
        """True when it is one leg of a sale in legs: whoever sells in legs decides what comes after it."""
        return self.part.startswith(LEG)

    def __str__(self) -> str:
        return f"{self.part} of token account {self.token_account} (generation {self.generation})"


def part_of(signal: ExitSignalWithTx) -> str:
    """The part that a signal sells: one that names no level and no smaller amount sells the whole position."""
    if signal.level_index is not None:
        return f"level {signal.level_index}"
    if signal.sell_tokens is not None and signal.sell_tokens < signal.position_tokens:
        # No level to tell repeats by: the trigger does. A mirrored sale of a share comes like this.
        return f"part {signal.triggered_at_ms}"
    return WHOLE


def tokens_of(signal: ExitSignalWithTx) -> int:
    """How many tokens a signal's transaction sells, in atomic units."""
    return signal.position_tokens if signal.sell_tokens is None else signal.sell_tokens


# ── Which exits have a transaction that may land: tokens that are bought meanwhile could be sold by it ──────────────


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
