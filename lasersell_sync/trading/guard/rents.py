"""What a token account must hold to exist, as the nodes said last."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading.guard.simulators import Peer

__all__ = ["OLD_TOKEN_ACCOUNT_RENT_LAMPORTS", "TokenAccountRent"]

log = logger("trading.guard")

#: What it was before rents began to fall: where nobody can be asked.
OLD_TOKEN_ACCOUNT_RENT_LAMPORTS: Final = 2_039_280
#: Of the classic token program.
_TOKEN_ACCOUNT_BYTES: Final = 165
#: The nodes are asked again after so long; nothing waits for their answers.
_KEPT_S: Final = 3_600.0
_ASK_S: Final = 5.0


class TokenAccountRent:
    """Lamports that a token account must hold.

    Args:
        peers: the nodes to ask (``getMinimumBalanceForRentExemption``), on their own threads.

    Threads: every method from any; none blocks.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers
        # Guards everything below.
        self._lock = threading.Lock()
        #: By the node's place.
        self._said: dict[int, int] = {}
        self._ask_at = 0.0

    @property
    def lamports(self) -> int:
        """The most that any node said last; before the first answer, what it was once."""
        with self._lock:
            is_due = time.monotonic() >= self._ask_at
            if is_due:
                self._ask_at = time.monotonic() + _KEPT_S
            known = max(self._said.values(), default=OLD_TOKEN_ACCOUNT_RENT_LAMPORTS)
        if is_due:
            for place, peer in enumerate(self._peers):
                peer.submit(partial(self._ask, place, peer))
        return known

    def _ask(self, place: int, peer: Peer) -> None:
        try:
            rent = peer.node.rent_lamports(_TOKEN_ACCOUNT_BYTES, budget=TimeBudget(_ASK_S))
        except TxSubmitError as error:
            log.info("%s did not say what rent a token account takes: %s", peer.label, error)
            return
        with self._lock:
            self._said[place] = rent
