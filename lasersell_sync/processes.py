"""One process, one set of threads: guards against fork() and against late monkey-patching.

A forked child inherits our objects without the threads that give them life, and maybe with their locks held; waiting on
one would wait for ever. gevent and eventlet replace threads and locks by cooperative ones; objects made before that
would block the whole hub.
"""

from __future__ import annotations

import os
import sys
import threading

from lasersell_sync.exceptions import ConcurrencyError, ForkedProcessError

__all__ = ["ProcessGuard", "refuse_late_patching"]

#: How many forks lie between this process and the one that imported us. Comparing two integers costs nothing on a hot
#: path; asking the system for the process id would.
_forks = 0
#: What was imported when this module was: a patch that comes later changes the module, not what we hold.
_lock_at_import = threading.Lock


def _thread_starter() -> object:
    """What starts threads; the name changed with Python 3.13."""
    return getattr(threading, "_start_new_thread", None) or getattr(threading, "_start_joinable_thread", None)


_thread_starter_at_import = _thread_starter()


def _in_child() -> None:
    global _forks  # noqa: PLW0603 - one number for the process is the point
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class ProcessGuard:
    """Remembers which process an object belongs to.

    Threads: any; takes no lock, because a child may have inherited one that is held.
    """

    __slots__ = ("_forks", "_pid", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._forks = _forks
        self._pid = os.getpid()

    @property
    def is_child(self) -> bool:
        """Whether this is a forked child of the process that made the object."""
        return self._forks != _forks

    def check(self) -> None:
        """Raise in a forked child.

        Raises:
            ForkedProcessError: this is not the process that made the object.
        """
        if self._forks != _forks:
            raise ForkedProcessError(self._what, self._pid, os.getpid())


def refuse_late_patching() -> None:
    """Refuse to start when gevent or eventlet patched threading after this library was imported.

    Raises:
        ConcurrencyError: the locks we hold are native, the threads would be cooperative: the first wait would freeze
            the hub.
    """
    if _thread_starter() is _thread_starter_at_import and threading.Lock is _lock_at_import:
        return
    culprit = next((name for name in ("gevent", "eventlet") if name in sys.modules), "something")
    raise ConcurrencyError(
        f"{culprit} patched the threading module after lasersell_sync was imported: its locks would freeze the hub. "
        "Patch first (gevent.monkey.patch_all() at the very top of the program), import lasersell_sync after it"
    )
