"""Exit signals that come twice, and exit signals that cannot be read."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple

from lasersell_sync.messages import ExitSignalWithTx

__all__ = ["ExitDedup", "UnreadableExit", "recognise_exit"]

#: Signals remembered; a repeat comes within seconds of its first, or with the next session.
REMEMBERED: Final = 4096
#: How often an unreadable exit of one position makes the session ask for it again, until a readable one comes.
ASK_AGAIN: Final = 3

_TYPE = re.compile(rb'"type"\s*:\s*"exit_signal_with_tx"')
_POSITION_ID = re.compile(rb'"position_id"\s*:\s*(\d{1,20})\b')
_TOKEN_ACCOUNT = re.compile(rb'"token_account"\s*:\s*"([1-9A-HJ-NP-Za-km-z]{32,44})"')
_WATCHED = re.compile(rb'"watched"\s*:\s*true')


class UnreadableExit(NamedTuple):
    """What can be told of an exit signal that cannot be decoded."""

    position_id: int
    token_account: str | None


def recognise_exit(raw: bytes) -> UnreadableExit | None:
    """The position that an unreadable message is an exit signal of; None when it is not recognisably one of ours.

    Deliberately no parser: the parser has just refused these bytes.
    """
    position_id = _POSITION_ID.search(raw)
    if position_id is None or _TYPE.search(raw) is None or _WATCHED.search(raw) is not None:
        return None
    account = _TOKEN_ACCOUNT.search(raw)
    return UnreadableExit(int(position_id[1]), account[1].decode("ascii") if account is not None else None)


class ExitDedup:
    """Tells a repeated exit signal from a new one, and bounds how often an unreadable one is asked for.

    Threads: the reader.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        #: By token account, or by id where a message names none.
        self._asked: dict[str | int, int] = {}

    def is_repeat(self, message: ExitSignalWithTx, token_account: str | None) -> bool:
        """True when this very signal came before: same position, trigger, level and transaction.

        The id has no part in it where the token account is known (None: it is not): after a reconnect the same exit may
        come under another one. A refreshed exit has a new transaction, so it is new.
        """
        position = token_account or message.position_id
        key = (position, message.triggered_at_ms, message.level_index, hash(message.unsigned_tx_b64))
        if self._asked:
            self._asked.pop(position, None)
            self._asked.pop(message.position_id, None)
        seen = self._seen
        known = len(seen)
        seen[key] = None
        if len(seen) == known:
            seen.move_to_end(key)
            return True
        if known >= REMEMBERED:
            seen.popitem(last=False)
        return False

    def may_ask_again(self, position: str | int) -> bool:
        """True the first few times; a server that repeats what we cannot read must not be asked for ever."""
        if len(self._asked) > REMEMBERED:
            self._asked.clear()
        self._asked[position] = self._asked.get(position, 0) + 1
        return self._asked[position] <= ASK_AGAIN

    def new_connection(self) -> None:
        """Ids of the connection before name nothing any more."""
        self._asked = {position: count for position, count in self._asked.items() if isinstance(position, str)}
