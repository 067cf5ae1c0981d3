"""Which exit a signal is about: the identity that one sale, and only one, may be made for."""

from __future__ import annotations

from typing import Final, NamedTuple

from lasersell_sync.messages import ExitSignalWithTx

__all__ = ["LEG", "WHOLE", "ExitKey", "part_of", "tokens_of"]

#: The part of a position that an exit without a ladder level sells.
WHOLE: Final = "whole"
#: How the part of a sale in legs begins.
LEG: Final = "leg "


class ExitKey(NamedTuple):
    """The identity of an exit; at most one transaction of an exit may be live.

    The server's ``position_id`` has no part in it: a reconnect may change that (docs/protocol.md §12), and the same
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
