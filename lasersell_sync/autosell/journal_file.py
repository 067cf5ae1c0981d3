"""The journal's file: whose it is, whether it is still in its place, and how SQLite opens it.

Two processes that sell with one journal would sell twice, so a journal is locked by what it is and not by what it is
called: a symbolic or hard link leads to the same lock. Three things guard it:

- a record lock on the file itself, far behind SQLite's own; it follows every link;
- a record lock on ``<file>.lock``, which holds where something in this process opens and closes the file itself: POSIX
  drops all of a process's record locks on a file with any one descriptor of it;
- a registry in this process, where record locks do not conflict.

Record locks are the process's own: a forked child does not keep them.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from typing import Final

from lasersell_sync.exceptions import JournalError

__all__ = ["IN_MEMORY", "JournalFile", "connect", "explain"]

IN_MEMORY: Final = ":memory:"
_PRIVATE_MODE = 0o600
#: How long a look at a busy file waits: another process reads, and nobody but us writes.
_BUSY_S = 5.0
#: The byte of the file that is locked: far behind any that SQLite locks (1 GiB) or writes.
_LOCKED_BYTE: Final = 2**62
TORN_REMEDY: Final = (
    "move it and its -wal file away, look on the chain what was sold, then begin with a new one. Nothing was changed"
)

_Identity = tuple[int, int]

#: What this process has open for writing, by (device, inode) and by path, and the process that opened it: a forked
#: child inherits the table and not the locks.
_open_here: dict[_Identity | str, int] = {}
_registry = threading.Lock()


class JournalFile:
    """One journal's file, locked for writing.

    Args:
        path: where it is or will be; links are followed.

    Raises:
        JournalError: ``missing``, ``read_only`` or ``locked``.

    Threads: one at a time.
    """

    def __init__(self, path: str) -> None:
        self._place = Path(os.path.realpath(path))
        self._lock_place = Path(f"{self._place}.lock")
        self._lock_descriptor = -1
        self._descriptor = -1
        self._names: tuple[_Identity | str, ...] = ()
        try:
            # First: closing any descriptor of a file drops this process's locks on it, an older journal's too.
            self._register()
            self._lock_descriptor = self._lock_beside()
            self._hold()
        except BaseException:
            self.close()
            raise

    def check(self) -> bool:
        """Whether the file is where it was, with its locks; False: it was deleted, and is to be written anew.

        Raises:
            JournalError: ``replaced``: another file is in its place; ``locked``: somebody else has it now.
        """
        self._relock()
        found = _identity_of(self._place)
        if found is None:
            return False
        if found not in self._names:
            raise JournalError(
                "replaced",
                str(self._place),
                "another file is in the journal's place, so nothing is sold: move that file away, and the journal is "
                "written anew; or restart, to sell by that file",
            )
        return True

    def write_anew(self, source: sqlite3.Connection) -> sqlite3.Connection:
        """Make the file again after it was deleted, with everything that ``source`` still has open, and lock it.

        Raises:
            JournalError, sqlite3.Error: it cannot be made; ``source`` stays as it is.
        """
        # What SQLite left beside the deleted file would be taken for the new one's.
        for leftover in (f"{self._place}-wal", f"{self._place}-shm", f"{self._place}.anew"):
            Path(leftover).unlink(missing_ok=True)
        draft = Path(f"{self._place}.anew")
        os.close(self._open(draft))
        copy = sqlite3.connect(draft, isolation_level=None)
        try:
            source.backup(copy)
        finally:
            copy.close()
        # Whole or not at all, and over nobody else's file.
        os.link(draft, self._place)
        draft.unlink()
        former, self._descriptor = self._descriptor, -1
        self._forget()
        self._register()
        self._hold()
        os.close(former)
        return connect(str(self._place), read_only=False)

    def close(self) -> None:
        """Let go of it. Idempotent. In a forked child this closes descriptors and nothing else."""
        self._forget()
        for descriptor in (self._descriptor, self._lock_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock_descriptor = -1

    # ── who has it ───────────────────────────────────────────────────────────────────────────────────────────────

    def _register(self) -> None:
        """Note that this process has the file; its record locks would let it in twice."""
        identity = _identity_of(self._place)
        names = (str(self._place), *(() if identity is None else (identity,)))
        with _registry:
            if any(_open_here.get(name) == os.getpid() for name in names):
                raise self._taken("this process")
            _open_here.update(dict.fromkeys(names, os.getpid()))
            self._names = names

    def _forget(self) -> None:
        with _registry:
            for name in self._names:
                if _open_here.get(name) == os.getpid():
                    del _open_here[name]
            self._names = ()

    def _lock_beside(self) -> int:
        try:
            descriptor = self._open(self._lock_place)
        except FileNotFoundError:
            problem = f"there is no folder {self._place.parent}: make it"
            raise JournalError("missing", str(self._place), problem) from None
        except OSError as error:
            raise self._not_writable(f"its lock file {self._lock_place}", error) from error
        try:
            self._lock(descriptor, 0)
        except JournalError:
            os.close(descriptor)
            raise
        return descriptor

    def _hold(self) -> None:
        """Open the file, or make it, and lock it."""
        try:
            # Made before SQLite does, which asks the umask what others may read; its -wal and -shm take after it.
            self._descriptor = self._open(self._place)
        except OSError as error:
            raise self._not_writable("the file", error) from error
        identity = _identity_of(self._descriptor)
        assert identity is not None
        with _registry:
            _open_here[identity] = os.getpid()
            self._names = (str(self._place), identity)
        self._lock(self._descriptor, _LOCKED_BYTE)
        # A second name of this file, if a process died in the middle of ``write_anew``.
        Path(f"{self._place}.anew").unlink(missing_ok=True)

    def _relock(self) -> None:
        """A lock that something in this process dropped is taken again, unless somebody was faster."""
        self._lock(self._descriptor, _LOCKED_BYTE)
        if _identity_of(self._lock_place) != _identity_of(self._lock_descriptor):
            former, self._lock_descriptor = self._lock_descriptor, self._lock_beside()
            os.close(former)

    def _lock(self, descriptor: int, byte: int) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            raise self._taken("another process") from error

    @staticmethod
    def _open(place: Path) -> int:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_MODE)

    def _not_writable(self, what: str, error: OSError) -> JournalError:
        words = (error.strerror or "it cannot be opened").lower()
        return JournalError("read_only", str(self._place), f"{what} cannot be written: {words}")

    def _taken(self, by: str) -> JournalError:
        problem = f"{by} sells with this journal already, and two would sell twice: stop it, or use another path"
        return JournalError("locked", str(self._place), problem)


def _identity_of(place: Path | int) -> _Identity | None:
    """(device, inode) of a path or descriptor; None: there is nothing."""
    try:
        found = os.fstat(place) if isinstance(place, int) else place.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str, *, read_only: bool) -> sqlite3.Connection:
    """SQLite's connection to a journal, in write-ahead mode.

    Raises:
        JournalError: ``missing``, or ``linked``.
        sqlite3.Error: anything else.
    """
    if path != IN_MEMORY:
        _require_one_name(path)
    if read_only:
        if not Path(path).exists():
            raise JournalError("missing", path, "there is no such file")
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # A checkpoint is made when nothing is being sold (``journal_writer``).
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _require_one_name(path: str) -> None:
    """SQLite finds what a killed process wrote last by the file's name, so by another one it would be forgotten."""
    try:
        names = Path(path).stat().st_nlink
    except FileNotFoundError:
        return
    if names > 1:
        raise JournalError(
            "linked", path,
            f"the file has {names} names (hard links), and what was written last is found by one of them only: remove "
            "the other names, or make symbolic links of them",
        )  # fmt: skip


#: By SQLite's primary result code (sqlite.org/rescode.html).
_PROBLEMS: dict[int, tuple[str, str]] = {
    5: ("locked", "another process holds the file: close it, or wait"),
    6: ("locked", "another process holds the file: close it, or wait"),
    8: ("read_only", "the file, or its folder, cannot be written: give it to this user, or give another path"),
    10: ("failed", "the disk cannot be read or written"),
    11: ("torn", f"the file is damaged: {TORN_REMEDY}"),
    13: ("full", "no room is left on the disk: make some; nothing was sold without being recorded"),
    14: ("missing", "the file cannot be opened: its folder must exist and be this user's"),
    26: ("foreign", "not a journal of lasersell_sync, or a damaged one: give another path"),
}


#: The same codes by SQLite's own texts (``sqlite3_errstr``): Python 3.10 passes on the text alone.
_CODES_BY_TEXT: dict[str, int] = {
    "database is locked": 5,
    "database table is locked": 6,
    "attempt to write a readonly database": 8,
    "disk I/O error": 10,
    "database disk image is malformed": 11,
    "database or disk is full": 13,
    "unable to open database file": 14,
    "file is not a database": 26,
}


def explain(error: sqlite3.Error) -> tuple[str, str]:
    """What a SQLite error means for a journal: ``JournalError``'s kind, and what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        code = _CODES_BY_TEXT.get(str(error), 0)
    kind, problem = _PROBLEMS.get(code & 0xFF, ("failed", "the file cannot be used"))
    return kind, f"{problem} ({error})"
