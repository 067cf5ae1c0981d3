"""The twelve points at which a seller's process is killed, and the places in our code where it reaches them.

Production code has no hooks for this: the child wraps our own functions before it begins.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.journal_file import JournalWriter, _Item
from lasersell_sync.autosell.signing_gate import SigningGate
from lasersell_sync.stream.connection import StreamSender
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.rest.exit_api import ExitApiClient
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.sending.send_connection import SendConnection
from lasersell_sync.trading.sending.target_sender import Copy, TargetSender
from lasersell_sync.trading.solana.rpc_node import RpcNode

#: In the order in which an exit meets them; some have several places.
PLACES: dict[str, tuple[str, ...]] = {
    "received": ("before the journal hears of it",),
    "journalled": ("it is written, maybe in the middle of a batch",),
    "guarded": ("the guard let it pass",),
    "signed": ("it is signed",),
    "signature journalled": ("its signature is on the disk, and nothing of its batch is sent",),
    "before send": ("before the first byte",),
    "after write": ("the request is written, its answer not read",),
    "after answer": ("the node has answered",),
    "during a poll": ("the question is not sent", "its answer is not heeded"),
    "landed but unreported": (
        "before that it landed is written down",
        "after that",
        "before that the exit ended is written down",
        "before the user is told",
        "after the user was told",
    ),
    "refresh requested": ("another transaction was asked for, or built",),
    "reported": ("that the user was told is written down",),
}
POINTS = tuple(PLACES)


class Killer:
    """Ends this process at the n-th arrival at one place, as ``kill -9`` does.

    Args:
        point: one of ``POINTS``.
        place: one of its places, by number.
        arrivals: it dies at the last of so many.
        tell: told in the last moment.

    Threads: any.
    """

    def __init__(self, point: str, place: int, arrivals: int, tell: Callable[[str], None]) -> None:
        self._where = (point, place)
        self._left = arrivals
        self._tell = tell
        self._lock = threading.Lock()

    def at(self, point: str, place: int = 0) -> None:
        """The process is there."""
        if (point, place) != self._where:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._tell(point)
                os.kill(os.getpid(), signal.SIGKILL)


def arm(killer: Killer) -> None:
    """Wrap the functions at whose beginning or end the points lie."""

    def confirmed(*args: Any, **_: Any) -> bool:
        return SellOutcome.CONFIRMED in args

    def is_copy(*args: Any, **_: Any) -> bool:
        return isinstance(args[1], Copy)

    def leads_to_sale(item: _Item[Any], *_: Any) -> bool:
        return item.then is not None

    def has_signatures(_writer: JournalWriter, batch: list[_Item[Any]]) -> bool:
        return any(map(leads_to_sale, batch))

    around(Journal, "received", lambda: killer.at("received"), lambda: killer.at("journalled"))
    around(Journal, "begun", lambda: killer.at("received"), None)
    around(_Item, "write", None, lambda: killer.at("journalled"), when=leads_to_sale)
    around(SigningGate, "decide", None, lambda: killer.at("guarded"))
    around(Signer, "sign_checked", None, lambda: killer.at("signed"))
    around(JournalWriter, "_write", None, lambda: killer.at("signature journalled"), when=has_signatures)
    around(TargetSender, "wire_of", lambda: killer.at("before send"), None)
    around(SendConnection, "begin", None, lambda: killer.at("after write"), when=is_copy)
    around(TargetSender, "take_outcome", lambda: killer.at("after answer"), None)
    around(RpcNode, "statuses", lambda: killer.at("during a poll", 0), lambda: killer.at("during a poll", 1))
    landed = "landed but unreported"
    around(Journal, "settled", lambda: killer.at(landed, 0), lambda: killer.at(landed, 1), when=confirmed)
    around(Journal, "finished", lambda: killer.at(landed, 2), lambda: killer.at(landed, 3), when=confirmed)
    around(StreamSender, "request_exit_signal", None, lambda: killer.at("refresh requested"))
    around(ExitApiClient, "build_sell_tx", None, lambda: killer.at("refresh requested"))
    around(Journal, "reported", lambda: killer.at(landed, 4), lambda: killer.at("reported"))


def around(
    owner: type,
    name: str,
    before: Callable[[], None] | None,
    after: Callable[[], None] | None,
    *,
    when: Callable[..., bool] = lambda *_, **__: True,
) -> None:
    """Do something before a function begins, and after it has returned."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not when(*args, **kwargs):
            return real(*args, **kwargs)
        if before is not None:
            before()
        result = real(*args, **kwargs)
        if after is not None:
            after()
        return result

    setattr(owner, name, wrapped)
