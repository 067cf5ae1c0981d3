"""One process, one set of threads: guards against fork() and against late monkey-patching.

A forked child inherits our objects without the threads that give them life, and maybe with their locks held; waiting on
one would wait for ever. gevent and eventlet replace threads and locks by cooperative ones; objects made before that
would block the whole hub.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Final, Protocol

from lasersell_sync.exceptions import ConcurrencyError, ForkedProcessError

__all__ = ["NO_THREAD", "ProcessGuard", "after_fork", "notice_fork", "process_id", "refuse_late_patching"]

#: How an error begins that tells of a missing thread.
NO_THREAD: Final = "no thread could be started; raise this process's limit (ulimit -u), or end what is not needed"
#: Linux 4.14; Python has no name for it.
_MADV_WIPEONFORK: Final = 18
#: What was imported when this module was: a patch that comes later changes the module, not what we hold.
_lock_at_import = threading.Lock


def _thread_starter() -> object:
    """What starts threads; the name changed with Python 3.13."""
    return getattr(threading, "_start_new_thread", None) or getattr(threading, "_start_joinable_thread", None)


_thread_starter_at_import = _thread_starter()


class _Mark(Protocol):
    """``[0]`` is 0 in a process that was forked since the mark was set."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class _IdMark:
    """Where the kernel wipes no page: the process id, which costs a system call."""

    def __init__(self) -> None:
        self._marked = os.getpid()

    def __getitem__(self, index: int, /) -> int:
        return os.getpid() == self._marked

    def __setitem__(self, index: int, value: int, /) -> None:
        self._marked = os.getpid()


def _new_mark() -> _Mark:
    """A private page that the kernel wipes in every child, whoever forks: os.fork() runs hooks, a fork() in C does not.

    Reading it costs nothing on a hot path; asking the system for the process id would.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except (AttributeError, OSError, ValueError):
        return _IdMark()
    page[0] = 1
    return page


_mark = _new_mark()
_pid = os.getpid()
#: What is done once in a child, before anything else.
_in_children: list[Callable[[], None]] = []


def _in_child() -> None:
    global _pid  # noqa: PLW0603 - one number for the process is the point
    if _pid != os.getpid():
        _pid = os.getpid()
        for do in _in_children:
            do()
    # Last: another thread of the child that finds the mark set finds everything done.
    _mark[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def after_fork(do: Callable[[], None]) -> None:
    """Call ``do`` in every forked child, at once, or where the fork ran no hooks, as soon as it is noticed.

    It must wait for no lock: the parent's may be held by a thread that does not exist in the child.
    """
    _in_children.append(do)


def notice_fork() -> None:
    """Find out whether this process was forked, and do what is to be done then. Costs a look at a page."""
    if not _mark[0]:
        _in_child()


def process_id() -> int:
    """This process's id, without a system call."""
    notice_fork()
    return _pid


class ProcessGuard:
    """Remembers which process an object belongs to.

    Threads: any; takes no lock, because a child may have inherited one that is held.
    """

    __slots__ = ("_pid", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = process_id()

    @property
    def is_child(self) -> bool:
        """True in a forked child: the object is its parent's."""
        if not _mark[0]:
            _in_child()
        return self._pid != _pid

    def check(self) -> None:
        """Raise in a forked child.

        Raises:
            ForkedProcessError: this is not the process that made the object.
        """
        if self.is_child:
            raise ForkedProcessError(self._what, self._pid, _pid)


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
