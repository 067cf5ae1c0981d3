"""The journal on disk: whose file it is, how SQLite opens it, and the group commit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from lasersell_sync.exceptions import JournalError
from lasersell_sync.runtime.log import logger

__all__ = ["IN_MEMORY", "JournalFile", "JournalWriter", "Then", "Work", "connect", "explain"]

log = logger("autosell.journal")


# ── The journal's file: whose it is, whether it is still in its place, and how SQLite opens it ──────────────────────
# Two processes that sell with one journal would sell twice, so a journal is locked by what it is and not by what it is
# called: a symbolic or hard link leads to the same lock. Three things guard it:
#
# - a record lock on the file itself, far behind SQLite's own; it follows every link;
# - a record lock on ``<file>.lock``, which holds where something in this process opens and closes the file itself:
#   POSIX drops all of a process's record locks on a file with any one descriptor of it;
# - a registry in this process, where record locks do not conflict.
#
# Record locks are the process's own: a forked child does not keep them.


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
        # A checkpoint is made when nothing is being sold (the group commit below).
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


# ── Group commit: whoever writes puts an item into a queue, and one transaction commits all that wait ───────────────
# An fsync takes the same time for one exit as for a hundred. Whoever finds nobody at work commits on its own thread,
# so a single exit pays for no hand-over; what comes meanwhile waits for the writer's thread and is committed together.
#
# When an item fails, the transaction is rolled back and made again without it: each statement releases the interpreter
# lock, so a savepoint for each item would cost more. When a COMMIT fails, each item is tried once more by itself, so
# that one that can never be written does not hold up the others.


T = TypeVar("T")
#: Writes within one transaction, and returns what it found there. It may run twice.
Work = Callable[[sqlite3.Connection], T]
#: Called with the result, or with the error.
Then = Callable[[T | None, Exception | None], None]

#: More would delay the first of them; fewer cost one more fsync in a burst.
MAX_BATCH: Final = 256
#: Without a write for so long, the write-ahead log is copied into the database.
_QUIET_S: Final = 1.0
#: A log of so many items, some 16 MiB, is copied without waiting for that: it must not grow for ever.
_LONGEST_LOG_ITEMS: Final = 8_192
#: The log is made so long, 1 MiB, before it is begun anew: an fsync of a file that grows takes twice as long, and on a
#: busy disk a hundred milliseconds, because the file system's own journal is written, too.
_ROOM_PAGES: Final = 256


class _Item(Generic[T]):
    """One write, and who waits for it."""

    __slots__ = ("done", "durable", "error", "result", "then", "work")

    def __init__(
        self, work: Work[T], *, durable: bool, then: Callable[[T | None, Exception | None], None] | None
    ) -> None:
        self.work = work
        self.durable = durable
        self.then = then
        self.result: T | None = None
        self.error: Exception | None = None
        #: Set when it is committed or has failed; nobody waits where there is a ``then``.
        self.done = None if then is not None else threading.Event()

    def write(self, db: sqlite3.Connection) -> None:
        """Within a transaction; raises what ``work`` or SQLite raises."""
        self.result = self.work(db)

    def finish(self) -> None:
        """Let go whoever waits."""
        if self.done is not None:
            self.done.set()
        elif self.then is not None:
            try:
                self.then(self.result, self.error)
            except BaseException:
                log.exception("what follows a write to the journal failed")


class JournalWriter:
    """Writes to one SQLite connection, in groups.

    Args:
        connection: called for each group, with the lock held: the connection, or an exception.
        lock: guards the connection, whoever uses it.
        copies_log: copy the write-ahead log while nothing is written; a database in memory has none.

    Threads: any. Its own, ``lasersell-journal``, starts with the first write that finds another one at work.
    """

    def __init__(
        self, connection: Callable[[], sqlite3.Connection], lock: threading.Lock, *, copies_log: bool = True
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._copies_log = copies_log
        # Guards the queue and what follows; never held while anything is written.
        self._state = threading.Condition(threading.Lock())
        #: Records of signatures, whose transactions wait to be sent; they come before everything else.
        self._urgent: deque[_Item[Any]] = deque()
        self._others: deque[_Item[Any]] = deque()
        self._is_at_work = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._is_full_sync = True
        #: Whether the last transaction got as far as its first item.
        self._has_begun = False
        #: Written since the last checkpoint.
        self._uncopied_items = 0
        #: The first write after a checkpoint: the thread must know that its pause has begun.
        self._begins_pause = False
        #: When that was last; monotonic seconds.
        self._written_at = 0.0
        self._has_room = False
        #: Threads that wait until nobody is at work.
        self._idlers = 0
        #: Threads that have committed, and call what follows.
        self._finishing = 0

    def run(self, work: Work[T], *, durable: bool) -> T:
        """Write, and wait until it is committed; ``durable``: until it is on the disk, with all written before.

        Raises:
            Exception: what ``work`` or SQLite raised; nothing of this item was written then.
        """
        item: _Item[T] = _Item(work, durable=durable, then=None)
        self._put(item, self._others)
        assert item.done is not None
        item.done.wait()
        if item.error is not None:
            raise item.error
        return item.result  # type: ignore[return-value] # T may be None

    def put(self, work: Work[T], then: Then[T]) -> None:
        """Write durably before everything that is not ``put``, and call ``then`` with the result or the error.

        ``then`` runs right after the COMMIT, on the thread that made it, maybe before this returns; it must be short.
        """
        self._put(_Item(work, durable=True, then=then), self._urgent)

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until all is written and what follows was called; False when the time is over."""
        with self._state:
            self._idlers += 1
            try:
                return self._state.wait_for(
                    lambda: not (self._is_at_work or self._urgent or self._others or self._finishing), timeout_s
                )
            finally:
                self._idlers -= 1

    def close(self) -> None:
        """Write what waits, and end the thread. Idempotent."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._drain()

    # ── who commits ──────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, item: _Item[Any], queue: deque[_Item[Any]]) -> None:
        with self._state:
            queue.append(item)
            if self._is_at_work:
                return
            self._is_at_work = True
        self._commit_once()
        with self._state:
            is_done = not (self._urgent or self._others or self._copies_log) or self._start()
        if not is_done:
            self._drain()

    def _start(self) -> bool:
        """Whether the writer's thread takes over what comes later. The lock is held."""
        if self._thread is None and not self._is_closed:
            thread = threading.Thread(target=self._run, name="lasersell-journal", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("the journal's thread cannot be started now (%s): the writing threads do its work", error)
            else:
                self._thread = thread
        return self._thread is not None and not self._is_closed

    def _run(self) -> None:
        while (has_items := self._wait_for_work()) is not None:
            if has_items:
                self._commit_once()
            else:
                self._checkpoint()

    def _wait_for_work(self) -> bool | None:
        """True: there are items; False: it is time for a checkpoint; None: the end. The caller is at work then."""
        with self._state:
            while not self._is_closed:
                if self._is_at_work:
                    self._state.wait(_QUIET_S)  # whoever is at work need not know that this thread waits
                elif self._urgent or self._others:
                    self._is_at_work = True
                    return True
                elif not self._uncopied_items or not self._copies_log:
                    self._state.wait()
                elif (quiet_s := time.monotonic() - self._written_at) < _QUIET_S:
                    self._state.wait(_QUIET_S - quiet_s)
                else:
                    self._is_at_work = True
                    return False
            return None

    def _drain(self) -> None:
        """Commit what waits, on this thread."""
        while True:
            with self._state:
                self._idlers += 1
                self._state.wait_for(lambda: not self._is_at_work)
                self._idlers -= 1
                if not (self._urgent or self._others):
                    return
                self._is_at_work = True
            self._commit_once()

    # ── committing ───────────────────────────────────────────────────────────────────────────────────────────────

    def _commit_once(self) -> None:
        """One group. Errors of the writing go to those who wait; the caller was at work, and is not any more."""
        batch: list[_Item[Any]] = []
        try:
            with self._state:
                while len(batch) < MAX_BATCH and (self._urgent or self._others):
                    batch.append((self._urgent or self._others).popleft())
            self._write_all(batch)
        finally:
            with self._state:
                self._is_at_work = False
                self._finishing += 1
                if self._urgent or self._others or self._idlers:
                    self._state.notify_all()
            for item in batch:
                item.finish()
            with self._state:
                self._finishing -= 1
                # The first write after a checkpoint starts the writer's clock for the next one; it does so after the
                # sales that follow the write, because a woken thread takes the interpreter from them.
                if self._idlers or self._begins_pause:
                    self._begins_pause = False
                    self._state.notify_all()

    def _write_all(self, batch: list[_Item[Any]]) -> None:
        try:
            self._write(batch)
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait
            for item in batch:
                item.error = error
            if self._has_begun and len(batch) > 1:
                self._write_each(batch)
        except BaseException:
            for item in batch:
                item.error = InterruptedError("the write was interrupted, and nothing of it is in the journal")
            raise

    def _write_each(self, batch: list[_Item[Any]]) -> None:
        """After a COMMIT that failed: each by itself."""
        for item in batch:
            item.error = None
            try:
                self._write([item])
            except Exception as error:  # noqa: BLE001 - likewise
                item.error = error

    def _write(self, batch: list[_Item[Any]]) -> None:
        with self._lock:
            self._has_begun = False
            db = self._connection()
            self._set_sync(db, full=any(item.durable for item in batch))
            left = batch
            while left and (failed := self._write_together(db, left)) is not None:
                left = [item for item in left if item is not failed]
            self._begins_pause |= not self._uncopied_items
            self._uncopied_items += len(batch)
            self._written_at = time.monotonic()
            if self._copies_log and self._uncopied_items >= _LONGEST_LOG_ITEMS:
                self._copy_log(db)

    def _write_together(self, db: sqlite3.Connection, items: list[_Item[Any]]) -> _Item[Any] | None:
        """One transaction; an item that failed, with its error: nothing is written then. The lock is held."""
        db.execute("BEGIN IMMEDIATE")
        self._has_begun = True
        item: _Item[Any] | None = None
        try:
            for item in items:
                item.write(db)
            item = None
            db.execute("COMMIT")
        except BaseException as error:
            # A full disk makes SQLite take the transaction back by itself.
            is_gone = not db.in_transaction
            if not is_gone:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            if item is None or is_gone or not isinstance(error, Exception):
                raise
            item.error = error
            return item
        return None

    def _set_sync(self, db: sqlite3.Connection, *, full: bool) -> None:
        if full is not self._is_full_sync:
            # In write-ahead mode, NORMAL survives the death of the process but not of the machine.
            db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._is_full_sync = full

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    def _checkpoint(self) -> None:
        """While nothing is being sold; the caller was at work, and is not any more."""
        try:
            with self._lock:
                self._copy_log(self._connection())
        except Exception as error:  # noqa: BLE001 - a later write meets the same disk, and says so
            log.warning("the journal's write-ahead log cannot be copied now: %s", error)
            self._uncopied_items = 0
        finally:
            with self._state:
                self._is_at_work = False
                self._state.notify_all()

    def _copy_log(self, db: sqlite3.Connection) -> None:
        """Copy the log into the database, and begin the log anew. The lock is held.

        The write after it makes the new log's header durable, which otherwise the next sale would do.
        """
        is_long = self._uncopied_items >= _ROOM_PAGES
        self._uncopied_items = 0
        version = db.execute("PRAGMA user_version").fetchone()[0]
        rewrite_a_page = f"PRAGMA user_version = {version}"
        if not self._has_room:
            self._has_room = True
            self._set_sync(db, full=False)
            for _ in range(0 if is_long else _ROOM_PAGES):
                db.execute(rewrite_a_page)
        self._set_sync(db, full=True)
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        db.execute(rewrite_a_page)
