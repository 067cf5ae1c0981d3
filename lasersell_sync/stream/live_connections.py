"""The open connections of this process: one for each key and endpoint, and none left when the interpreter ends.

Every public tier allows one session for a key (docs/protocol.md §8). Whoever connects again in the same process, a
notebook cell that is run twice above all, wants the new one: the old one is closed first, or the server would refuse
the new.
"""

from __future__ import annotations

import atexit
import time
import weakref
from typing import Final, Protocol

from lasersell_sync._log import logger
from lasersell_sync.locks import signal_safe_lock
from lasersell_sync.processes import after_fork, notice_fork

__all__ = ["register", "unregister"]

log = logger("stream")

#: For all connections together, when the interpreter ends without having closed them.
EXIT_PATIENCE_S: Final = 1.5


class _Closable(Protocol):
    def close(self, timeout: float | None = ...) -> None: ...

    def stop_soon(self) -> None: ...

    def let_go(self) -> None: ...


_Identity = tuple[str, str]

# Guards the table. Not held while a connection is closed, which may take a second.
_lock = signal_safe_lock()
_open: weakref.WeakValueDictionary[_Identity, _Closable] = weakref.WeakValueDictionary()
_exit_hooked = False


def register(url: str, api_key: str, connection: _Closable) -> None:
    """Make this the process's connection for a key and endpoint; an older one is closed."""
    global _exit_hooked  # noqa: PLW0603 - one hook for the process
    notice_fork()
    with _lock:
        older = _open.get((url, api_key))
        _open[url, api_key] = connection
        if not _exit_hooked:
            _exit_hooked = True
            atexit.register(_close_all)
    if older is not None:
        log.warning("an older connection of this process with the same key is closed: a key has one session")
        older.close()


def unregister(url: str, api_key: str, connection: _Closable) -> None:
    """Forget a connection that has ended; a newer one of the same key stays."""
    with _lock:
        if _open.get((url, api_key)) is connection:
            _open.pop((url, api_key), None)


def _close_all() -> None:
    """At exit: say goodbye to the server while sockets and threads still work."""
    notice_fork()
    with _lock:
        connections = list(_open.values())
        _open.clear()
    ends_at = time.monotonic() + EXIT_PATIENCE_S
    for connection in connections:
        connection.stop_soon()
    for connection in connections:
        connection.close(max(0.0, ends_at - time.monotonic()))


def _in_child() -> None:
    """A forked child has none of its parent's connections, and must not say goodbye in the parent's name.

    It closes its copies of their descriptors: with them it would keep a link open that its parent has lost.
    """
    global _lock, _open
    inherited, _lock, _open = list(_open.values()), signal_safe_lock(), weakref.WeakValueDictionary()
    for connection in inherited:
        connection.let_go()


after_fork(_in_child)
