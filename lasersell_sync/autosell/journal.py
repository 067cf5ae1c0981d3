"""The record of sales: on disk before the action that it describes, read at start (SQLite, write-ahead log).

It holds who sold what and which signatures were made, never a transaction: with its signature, that would be a sale for
whoever reads the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from lasersell_sync.autosell.exit_key import WHOLE, Departure, ExitKey, tokens_of
from lasersell_sync.autosell.journal_file import (
    IN_MEMORY,
    TORN_REMEDY,
    JournalFile,
    JournalWriter,
    Then,
    Work,
    connect,
    explain,
)
from lasersell_sync.exceptions import JournalError
from lasersell_sync.positions import Opening, is_same_opening
from lasersell_sync.runtime.fork_guard import ProcessGuard, refuse_late_patching
from lasersell_sync.runtime.locks import CallsUnderWay
from lasersell_sync.runtime.log import logger
from lasersell_sync.trading.sending.outcome import SellOutcome

if TYPE_CHECKING:
    from typing_extensions import Self

    from lasersell_sync.messages import ExitSignalWithTx

__all__ = ["TO_BE", "Attempt", "BuyRecord", "ExitRecord", "Journal", "Spending", "Step"]

log = logger("autosell.journal")

T = TypeVar("T")

#: "LSJ1": tells a journal from any other SQLite file.
_APPLICATION_ID: Final = 0x4C534A31
_SCHEMA_VERSION: Final = 1
_DAY_MS = 24 * 3600 * 1000

_INTEGER_MAX: Final = 2**63 - 1

# Amounts are u64, wider than SQLite's integers: they are kept as text.
_SCHEMA = f"""
CREATE TABLE openings (
    wallet TEXT NOT NULL, token_account TEXT NOT NULL, mint TEXT NOT NULL,
    generation INTEGER NOT NULL, entry_quote_units TEXT NOT NULL, opened_at_ms INTEGER, slot INTEGER,
    is_closed INTEGER NOT NULL,
    PRIMARY KEY (wallet, token_account)
) WITHOUT ROWID;
CREATE TABLE exits (
    id INTEGER PRIMARY KEY,
    wallet TEXT NOT NULL, token_account TEXT NOT NULL, mint TEXT NOT NULL,
    part TEXT NOT NULL, generation INTEGER NOT NULL,
    position_id TEXT NOT NULL, reason TEXT NOT NULL, tokens TEXT NOT NULL,
    state TEXT NOT NULL, outcome TEXT, detail TEXT NOT NULL, is_reported INTEGER NOT NULL,
    began_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, slot INTEGER,
    UNIQUE (wallet, token_account, mint, part, generation)
);
CREATE INDEX exits_to_do ON exits (id) WHERE state != 'finished' OR is_reported = 0;
CREATE TABLE attempts (
    signature TEXT PRIMARY KEY, exit_id INTEGER NOT NULL REFERENCES exits (id) ON DELETE CASCADE,
    blockhash TEXT NOT NULL, signed_ms INTEGER NOT NULL, outcome TEXT, slot INTEGER
) WITHOUT ROWID;
CREATE INDEX attempts_of ON attempts (exit_id);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, exit_id INTEGER NOT NULL REFERENCES exits (id) ON DELETE CASCADE,
    at_ms INTEGER NOT NULL, step TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX steps_of ON steps (exit_id);
CREATE TABLE buys (
    signature TEXT PRIMARY KEY, wallet TEXT NOT NULL, mint TEXT NOT NULL, watched_wallet TEXT NOT NULL,
    blockhash TEXT NOT NULL, signed_ms INTEGER NOT NULL, outcome TEXT, slot INTEGER, is_reported INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
"""

_EXIT_COLUMNS = (
    "id, wallet, token_account, mint, part, generation, position_id, reason, tokens, state, outcome, detail,"
    " is_reported, began_ms, changed_ms, slot"
)

#: Added by versions that take up an exit only where nobody else has touched its tokens.
_SLOT_COLUMN: Final = "ALTER TABLE exits ADD COLUMN slot INTEGER"
_NEW_EXIT = "?,?,?,?,?,?,?,?,?,NULL,'',0,?,?,?"
_INSERT_EXIT = (
    "INSERT INTO exits (wallet, token_account, mint, part, generation, position_id, reason, tokens, state,"
    " outcome, detail, is_reported, began_ms, changed_ms, slot)"
)
#: Each statement of a sale costs a hand-over of the interpreter lock: this one also looks for the signature.
_INSERT_EXIT_AND_SIGNATURE: Final = (
    f"{_INSERT_EXIT} SELECT {_NEW_EXIT} WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE signature = ?)"  # noqa: S608
    " ON CONFLICT DO NOTHING"
)

#: Added by versions that count what is spent; a file without it is a journal, too.
_SPENDING_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS spending (at_ms INTEGER NOT NULL, buys_lamports TEXT NOT NULL,"
    " buys_usd1_units TEXT NOT NULL, fees_lamports TEXT NOT NULL)"
)

# States of an exit.
RECEIVED: Final = "received"  # a signal came; of this try nothing was signed
SIGNED: Final = "signed"  # a signature was made, and its transaction may be live
ASKING: Final = "asking"  # a fresh transaction was asked for
FINISHED: Final = "finished"
#: The number of an exit that is not written down yet.
TO_BE: Final = 0
#: An exit that ended so is never begun anew.
_NOT_AGAIN: Final = (SellOutcome.CONFIRMED, SellOutcome.UNKNOWN)


@attrs.frozen(kw_only=True)
class Attempt:
    """One signed transaction of an exit.

    Attributes:
        signature: base58; what the chain knows it by.
        blockhash: base58; how long it can land depends on it.
        signed_ms: Unix milliseconds of this machine's clock.
        outcome: what became of it, or None while that is not known.
        slot: where it landed, or None.
    """

    signature: str
    blockhash: str
    signed_ms: int
    outcome: SellOutcome | None
    slot: int | None


@attrs.frozen(kw_only=True)
class ExitRecord:
    """One exit, as the journal knows it.

    Attributes:
        id: its number in this journal.
        key: its identity.
        position_id: the server's number when it was signalled last.
        reason: the server's word.
        tokens: what it is to sell, in atomic units.
        state: ``received``, ``signed``, ``asking`` or ``finished``.
        outcome: of the exit, once it is finished.
        detail: in words.
        is_reported: the user's callbacks were told.
        began_ms, changed_ms: Unix milliseconds of this machine's clock.
        slot: the newest slot at which the server had seen the token account when the exit was signalled; None: unknown.
        attempts: its signed transactions, oldest first.
    """

    id: int
    key: ExitKey
    position_id: int
    reason: str
    tokens: int
    state: str
    outcome: SellOutcome | None
    detail: str
    is_reported: bool
    began_ms: int
    changed_ms: int
    slot: int | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def is_finished(self) -> bool:
        """True when nothing is left to do for it."""
        return self.state == FINISHED

    @classmethod
    def to_be(cls, key: ExitKey, signal: ExitSignalWithTx) -> ExitRecord:
        """Of an exit that is not written down yet."""
        now_ms = _now_ms()
        return cls(
            id=TO_BE, key=key, position_id=signal.position_id, reason=signal.reason, tokens=tokens_of(signal),
            state=RECEIVED, outcome=None, detail="", is_reported=False, began_ms=now_ms, changed_ms=now_ms,
        )  # fmt: skip


@attrs.frozen(kw_only=True)
class Step:
    """One thing that happened to an exit.

    Attributes:
        at_ms: Unix milliseconds of this machine's clock.
        step: the word.
        detail: in words.
    """

    at_ms: int
    step: str
    detail: str


@attrs.frozen(kw_only=True)
class BuyRecord:
    """One signed copy of a watched wallet's purchase; fields as ``Attempt``'s and the signal's."""

    signature: str
    wallet: str
    mint: str
    watched_wallet: str
    blockhash: str
    signed_ms: int
    outcome: SellOutcome | None
    slot: int | None
    is_reported: bool


@attrs.frozen(kw_only=True)
class Spending:
    """What one signed transaction costs at most, when spending is limited.

    Attributes:
        at_ms: Unix milliseconds of this machine's clock.
        buys_lamports, buys_usd1_units: what its purchases may take.
        fees_lamports: network fee, priority fee, tips and partner fee.
    """

    at_ms: int
    buys_lamports: int
    buys_usd1_units: int
    fees_lamports: int


class Journal:
    """The record of one ``AutoSeller``'s exits.

    What precedes an action outside (a send, a question for a fresh transaction, a report) is on the disk, and not only
    on its way there, before the method returns; it outlives a loss of power. What several threads write at the same
    time is committed together. One process at a time may write: the file is locked by what it is, so every link to it
    is the same journal, and a forked child does not keep the lock. A file with several hard links is refused: what a
    killed process wrote last is found by one of its names only. Others may read: ``Journal(path, read_only=True)``,
    ``lasersell-sync journal``. A file that is deleted while it is in use is written anew and logged; while another
    file is in its place, nothing is written and nothing is sold (``JournalError``, ``replaced``).

    Args:
        path: the file; made if it is missing (mode 0600), its folder is not. ``":memory:"`` keeps it for as long as
            this object lives: what a killed process had sent is then unknown to the next one.
        read_only: look at it, also while another process writes.
        keep_days: finished exits older than this are removed when the journal is opened.

    Raises:
        ConcurrencyError: gevent or eventlet came too late.
        JournalError: from every method; ``kind`` tells what is wrong with the file.

    Threads: any. Its own, ``lasersell-journal``, commits what comes while another thread commits.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, keep_days: int = 90) -> None:
        refuse_late_patching()
        self._path = os.fspath(path)
        self._guard = ProcessGuard("journal")
        self._calls_under_way = CallsUnderWay()
        # Guards the connection: one statement or transaction at a time.
        self._lock = threading.Lock()
        self._writer = JournalWriter(self._for_writing, self._lock, copies_log=self._path != IN_MEMORY)
        self._file = None if read_only or self._path == IN_MEMORY else JournalFile(self._path)
        self._connection: sqlite3.Connection | None = None
        try:
            with self._errors():
                self._connection = connect(self._path, read_only=read_only)
                self._check_schema(make=not read_only)
                if not read_only:
                    self._prune(keep_days)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    def close(self) -> None:
        """Write what waits, close the file, and let another process have it. Idempotent.

        In a forked child it only lets go of descriptors: the file is the parent's. In a signal handler that interrupted
        a call of this journal it waits for nothing: the journal is closed when that call returns.
        """
        if self._guard.is_child:
            # Without the lock: a thread of the parent's may hold it.
            _abandoned.append(self._connection)
            self._connection, file, self._file = None, self._file, None
            if file is not None:
                file.close()
            return
        self._calls_under_way.close(self._close, log)

    def _close(self) -> None:
        self._writer.close()
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            # Last: SQLite's own locks go with any descriptor of the file.
            if self._file is not None:
                self._file.close()
                self._file = None

    def wait_written(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing waits to be written, and what follows was called; False when the time is over."""
        return self._writer.wait_idle(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── openings: which generation of a token account is this? ───────────────────────────────────────────────────

    def opened(
        self,
        wallet: str,
        token_account: str,
        mint: str,
        entry_quote_units: int,
        opened_at_ms: int | None = None,
        slot: int | None = None,
    ) -> int:
        """Record that a position was announced; ``slot``, where its tokens were seen, is kept if it is the newest.

        Returns:
            The generation, which rises with each opening that is not the one known before (``is_same_opening``).
        """

        def write(db: sqlite3.Connection) -> int:
            moment, seen_at = _fitting(opened_at_ms), _fitting(slot)
            row = db.execute(
                "SELECT generation, entry_quote_units, opened_at_ms, is_closed, slot FROM openings"
                " WHERE wallet = ? AND token_account = ?",
                (wallet, token_account),
            ).fetchone()
            generation = 0
            if row is not None:
                generation, entry, known_moment, was_closed, known_slot = row
                part_landed, exit_under_way = _sales_of(db, wallet, token_account, generation)
                if is_same_opening(
                    Opening(int(entry), known_moment),
                    Opening(entry_quote_units, moment),
                    was_closed=bool(was_closed),
                    part_landed=part_landed,
                    exit_under_way=exit_under_way,
                ):
                    moment = known_moment if moment is None else moment
                    seen_at = max((one for one in (known_slot, seen_at) if one is not None), default=None)
                    generation -= 1
            return _set_opening(
                db, wallet, token_account, mint, entry_quote_units, generation + 1, opened_at_ms=moment, slot=seen_at
            )

        return self._write(write, durable=False)

    def closed(self, wallet: str, token_account: str) -> None:
        """A position was closed; the next opening of its token account is another one."""

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE openings SET is_closed = 1 WHERE wallet = ? AND token_account = ? AND NOT is_closed",
                (wallet, token_account),
            )

        self._write(write, durable=False)

    def next_generation(self, key: ExitKey) -> int:
        """An opening that was not announced: tokens are there again after all of them were sold."""

        def write(db: sqlite3.Connection) -> int:
            row = db.execute(
                "SELECT generation, entry_quote_units FROM openings WHERE wallet = ? AND token_account = ?",
                (key.wallet, key.token_account),
            ).fetchone()
            known, entry = (key.generation, "0") if row is None else (row[0], row[1])
            return _set_opening(db, key.wallet, key.token_account, key.mint, entry, max(known, key.generation) + 1)

        return self._write(write, durable=False)

    def generation(self, wallet: str, token_account: str) -> int:
        """Of this token account now; 0 when no position of it was ever announced."""
        row = self._one(
            "SELECT generation FROM openings WHERE wallet = ? AND token_account = ?", (wallet, token_account)
        )
        return 0 if row is None else int(row[0])

    def opening(self, wallet: str, token_account: str) -> Opening | None:
        """The latest opening of this token account; None: no position of it was ever announced."""
        sql = "SELECT entry_quote_units, opened_at_ms FROM openings WHERE wallet = ? AND token_account = ?"
        row = self._one(sql, (wallet, token_account))
        return None if row is None else Opening(int(row[0]), row[1])

    def is_announced(self, wallet: str, token_account: str, mint: str) -> bool:
        """Whether a position of this token in this token account was ever announced."""
        sql = "SELECT 1 FROM openings WHERE wallet = ? AND token_account = ? AND mint = ?"
        return self._one(sql, (wallet, token_account, mint)) is not None

    def announced_slot(self, wallet: str, token_account: str) -> int | None:
        """Where the tokens of its latest opening were seen last, by the server's word; None: it was not announced."""
        row = self._one("SELECT slot FROM openings WHERE wallet = ? AND token_account = ?", (wallet, token_account))
        return None if row is None or row[0] is None else int(row[0])

    # ── exits ────────────────────────────────────────────────────────────────────────────────────────────────────

    def received(
        self, key: ExitKey, *, position_id: int, reason: str, tokens: int, slot: int | None = None
    ) -> ExitRecord:
        """A signal came. One that failed begins anew; any other exit stays as it is.

        That is one that is not finished, one that is sold, and one whose end is unknown: it may be sold.

        Args:
            key: which exit.
            position_id: the server's number.
            reason: the server's word.
            tokens: what it is to sell, in atomic units.
            slot: the newest slot at which the server has seen the token account; None: it named none.
        """

        def write(db: sqlite3.Connection) -> ExitRecord:
            known = self._find(db, key)
            if known is not None and (not known.is_finished or known.outcome in _NOT_AGAIN):
                return known
            now_ms = _now_ms()
            db.execute(
                f"{_INSERT_EXIT} VALUES ({_NEW_EXIT})"
                " ON CONFLICT (wallet, token_account, mint, part, generation) DO UPDATE SET"
                " position_id = excluded.position_id, reason = excluded.reason, tokens = excluded.tokens,"
                " state = excluded.state, outcome = NULL, detail = '', is_reported = 0, began_ms = excluded.began_ms,"
                " changed_ms = excluded.changed_ms, slot = excluded.slot",
                (*key, str(position_id), reason, str(tokens), RECEIVED, now_ms, now_ms, _fitting(slot)),
            )
            record = self._find(db, key)
            assert record is not None
            _add_step(db, record.id, "received", f"{reason}, {tokens} tokens")
            return record

        return self._write(write, durable=False)

    def begun(self, record: ExitRecord, departure: Departure, *, blockhash: str, then: Then[ExitRecord]) -> None:
        """Write down a new exit and its first signature as one, and call ``then``; returns at once.

        ``then`` runs right after the COMMIT, on the thread that made it, maybe before this returns. It gets the exit's
        record; the error; or neither, and nothing is written: the transaction is held back, the journal knows it or
        this exit already, or the position is sold as a whole.
        """
        self._put(lambda db: self._begin(db, record, departure, blockhash), then)

    def rehearse(self) -> None:
        """Write down a made-up exit as ``begun`` does, and roll it back.

        The first exit of a process takes longer than later ones, because SQLite reads each statement once.

        Raises:
            JournalError: as ``begun`` passes it on.
        """
        key = ExitKey("rehearsal", "rehearsal", "rehearsal", WHOLE, 0)
        now_ms = _now_ms()
        record = ExitRecord(
            id=TO_BE, key=key, position_id=0, reason="rehearsal", tokens=0, state=RECEIVED, outcome=None, detail="",
            is_reported=False, began_ms=now_ms, changed_ms=now_ms,
        )  # fmt: skip

        def write(db: sqlite3.Connection) -> None:
            db.execute("SAVEPOINT rehearsal")
            self._begin(db, record, Departure("rehearsal"), "rehearsal")
            db.execute("ROLLBACK TO rehearsal")
            db.execute("RELEASE rehearsal")

        self._write(write, durable=True)

    def _begin(
        self, db: sqlite3.Connection, record: ExitRecord, departure: Departure, blockhash: str
    ) -> ExitRecord | None:
        if departure.is_held_back or (not record.key.is_whole and self._is_sold_as_a_whole(db, record.key)):
            return None
        values = (str(record.position_id), record.reason, str(record.tokens), SIGNED, record.began_ms, _now_ms())
        exit_ = (*record.key, *values, _fitting(record.slot), departure.signature)
        cursor = db.execute(_INSERT_EXIT_AND_SIGNATURE, exit_)
        if not cursor.rowcount:
            return None
        assert cursor.lastrowid is not None
        _insert_attempt(db, cursor.lastrowid, departure.signature, blockhash)
        received = f"{record.reason}, {record.tokens} tokens"
        _add_steps(db, cursor.lastrowid, ("received", received), ("signed", departure.signature))
        return attrs.evolve(record, id=cursor.lastrowid, state=SIGNED)

    def _is_sold_as_a_whole(self, db: sqlite3.Connection, key: ExitKey) -> bool:
        known = self._find(db, key._replace(part=WHOLE))
        return known is not None and known.outcome is SellOutcome.CONFIRMED

    def signed(self, exit_id: int, *, signature: str, blockhash: str, then: Then[bool] | None = None) -> bool | None:
        """A transaction of this exit was signed and is about to be sent.

        Args:
            exit_id: of the exit.
            signature: base58.
            blockhash: base58.
            then: as for ``begun``: it gets what this returns otherwise, and this returns at once.

        Returns:
            False when it is a transaction of another exit: nothing was written, and it is not to be sent.
        """

        def write(db: sqlite3.Connection) -> bool:
            if _exit_of(db, signature) not in {None, exit_id}:
                return False
            _insert_attempt(db, exit_id, signature, blockhash)
            _add_step(db, exit_id, "signed", signature)
            _set_state(db, exit_id, SIGNED)
            return True

        if then is None:
            return self._write(write, durable=True)
        self._put(write, then)
        return None

    def unsent(self, signature: str) -> None:
        """Forget a signature whose transaction was never sent, and never will be."""

        def write(db: sqlite3.Connection) -> None:
            exit_id = _exit_of(db, signature)
            if exit_id is not None:
                db.execute("DELETE FROM attempts WHERE signature = ?", (signature,))
                _set_state(db, exit_id, RECEIVED)
                _add_step(db, exit_id, "held back", signature)

        self._write(write, durable=False)

    def settled(self, exit_id: int, signature: str, outcome: SellOutcome, *, slot: int | None, detail: str) -> None:
        """It is proven what became of a transaction; on the disk with the next write that must be."""

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE attempts SET outcome = ?, slot = ? WHERE signature = ?", (outcome.value, slot, signature)
            )
            _add_step(db, exit_id, outcome.value, f"{signature} {detail}".rstrip())

        self._write(write, durable=False)

    def asking(self, exit_id: int, *, slippage_bps: int) -> None:
        """A fresh transaction of this exit is about to be asked for."""

        def write(db: sqlite3.Connection) -> None:
            _set_state(db, exit_id, ASKING)
            _add_step(db, exit_id, "asking", f"{slippage_bps} bps")

        self._write(write, durable=True)

    def finished(self, exit_id: int, outcome: SellOutcome, *, detail: str) -> None:
        """Nothing more is done for this exit; its outcome is about to be reported."""

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE exits SET state = ?, outcome = ?, detail = ?, is_reported = 0, changed_ms = ? WHERE id = ?",
                (FINISHED, outcome.value, detail, _now_ms(), exit_id),
            )
            _add_step(db, exit_id, "finished", f"{outcome.value} {detail}".rstrip())

        self._write(write, durable=True)

    def reported(self, exit_id: int) -> None:
        """The user's callbacks were told the outcome."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("UPDATE exits SET is_reported = 1 WHERE id = ?", (exit_id,))
            _add_step(db, exit_id, "reported", "")

        self._write(write, durable=False)

    def find(self, key: ExitKey) -> ExitRecord | None:
        """The exit of this identity, or None."""
        with self._reading() as db:
            return self._find(db, key)

    def of_opening(self, wallet: str, token_account: str, generation: int) -> list[ExitRecord]:
        """All exits of one opening of a token account, oldest first."""
        where = "WHERE wallet = ? AND token_account = ? AND generation = ? ORDER BY id"
        return self._select(where, wallet, token_account, generation)

    def signatures(self, wallet: str, token_account: str) -> set[str]:
        """Every transaction that was ever signed for a token account, as far as the journal goes back."""
        sql = "SELECT signature FROM attempts JOIN exits ON exits.id = exit_id WHERE wallet = ? AND token_account = ?"
        return {row[0] for row in self._all(sql, (wallet, token_account))}

    def unfinished(self, wallet: str | None = None, token_account: str | None = None) -> list[ExitRecord]:
        """Exits with something left to do, oldest first: all, or those of one token account."""
        if wallet is None:
            return self._select("WHERE state != 'finished' ORDER BY id")
        where = "WHERE state != 'finished' AND wallet = ? AND token_account = ? ORDER BY id"
        return self._select(where, wallet, token_account)

    def unreported(self) -> list[ExitRecord]:
        """Finished exits whose outcome was not told yet: the process may have ended in between."""
        return self._select("WHERE state = 'finished' AND NOT is_reported ORDER BY id")

    def exits(self, *, newest: int | None = None) -> list[ExitRecord]:
        """All exits, oldest first; with ``newest``, so many of the latest."""
        found = self._select("ORDER BY id DESC LIMIT ?", -1 if newest is None else newest)
        return found[::-1]

    def steps(self, exit_id: int) -> list[Step]:
        """What happened to an exit, in order."""
        rows = self._all("SELECT at_ms, step, detail FROM steps WHERE exit_id = ? ORDER BY id", (exit_id,))
        return [Step(at_ms=row[0], step=row[1], detail=row[2]) for row in rows]

    # ── purchases ────────────────────────────────────────────────────────────────────────────────────────────────

    def buying(self, *, signature: str, wallet: str, mint: str, watched_wallet: str, blockhash: str) -> bool:
        """A purchase was signed and is about to be sent; False when this very one was known before."""

        def write(db: sqlite3.Connection) -> bool:
            cursor = db.execute(
                "INSERT INTO buys (signature, wallet, mint, watched_wallet, blockhash, signed_ms, is_reported)"
                " VALUES (?,?,?,?,?,?,0) ON CONFLICT (signature) DO NOTHING",
                (signature, wallet, mint, watched_wallet, blockhash, _now_ms()),
            )
            return cursor.rowcount == 1

        return self._write(write, durable=True)

    def bought(self, signature: str, outcome: SellOutcome, *, slot: int | None) -> None:
        """It is proven what became of a purchase; the server is about to be told."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("UPDATE buys SET outcome = ?, slot = ? WHERE signature = ?", (outcome.value, slot, signature))

        self._write(write, durable=True)

    def buy_reported(self, signature: str) -> None:
        """Server and user were told."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("UPDATE buys SET is_reported = 1 WHERE signature = ?", (signature,))

        self._write(write, durable=False)

    def buys(self, *, to_do: bool = False) -> list[BuyRecord]:
        """All purchases, or those of which nobody was told yet; oldest first."""
        where = "WHERE NOT is_reported" if to_do else ""
        columns = "signature, wallet, mint, watched_wallet, blockhash, signed_ms, outcome, slot, is_reported"
        with self._reading() as db:
            rows = db.execute(f"SELECT {columns} FROM buys {where} ORDER BY signed_ms").fetchall()  # noqa: S608 - literals
            return [
                BuyRecord(
                    signature=row[0], wallet=row[1], mint=row[2], watched_wallet=row[3], blockhash=row[4],
                    signed_ms=row[5], outcome=_outcome(row[6]), slot=row[7], is_reported=bool(row[8]),
                )
                for row in rows
            ]  # fmt: skip

    # ── decisions and budgets ────────────────────────────────────────────────────────────────────────────────────

    # On the disk with the next write that must be: what is signed is written down before it is sent.

    def note(self, exit_id: int, step: str, detail: str) -> None:
        """Add a step to an exit that does not change its state: a refusal, or a user's permission."""
        self._write(lambda db: _add_step(db, exit_id, step, detail), durable=False)

    def spent(self, spending: Spending) -> None:
        """A transaction is about to be signed."""
        amounts = (spending.buys_lamports, spending.buys_usd1_units, spending.fees_lamports)

        def write(db: sqlite3.Connection) -> None:
            db.execute(_SPENDING_SCHEMA)
            db.execute("INSERT INTO spending VALUES (?,?,?,?)", (spending.at_ms, *map(str, amounts)))

        self._write(write, durable=False)

    def spending(self, *, since_ms: int) -> list[Spending]:
        """What was signed since, oldest first."""

        def read(db: sqlite3.Connection) -> list[Any]:
            db.execute(_SPENDING_SCHEMA)
            db.execute("DELETE FROM spending WHERE at_ms < ?", (since_ms,))
            columns = "at_ms, buys_lamports, buys_usd1_units, fees_lamports"
            return db.execute(f"SELECT {columns} FROM spending ORDER BY at_ms").fetchall()  # noqa: S608 - a literal

        return [
            Spending(at_ms=row[0], buys_lamports=int(row[1]), buys_usd1_units=int(row[2]), fees_lamports=int(row[3]))
            for row in self._write(read, durable=False)
        ]

    # ── SQL ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _find(db: sqlite3.Connection, key: ExitKey) -> ExitRecord | None:
        where = "WHERE wallet = ? AND token_account = ? AND mint = ? AND part = ? AND generation = ?"
        return next(iter(_records(db, where, *key)), None)

    def _select(self, where: str, *values: object) -> list[ExitRecord]:
        with self._reading() as db:
            return _records(db, where, *values)

    def _one(self, sql: str, values: tuple[object, ...]) -> Any:
        with self._reading() as db:
            return db.execute(sql, values).fetchone()

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._reading() as db:
            return db.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._guard.check()
        with self._calls_under_way, self._lock, self._errors():
            yield self._open()

    def _write(self, work: Work[T], *, durable: bool) -> T:
        """All or nothing; ``durable``: on the disk, with all that was written before, when this returns."""
        self._guard.check()
        with self._calls_under_way, self._errors():
            return self._writer.run(work, durable=durable)

    def _put(self, work: Work[T], then: Then[T]) -> None:
        """Durably, before everything that is not put; ``then`` gets the result or the error."""

        def explained(result: T | None, error: Exception | None) -> None:
            try:
                with self._errors():
                    if error is not None:
                        raise error
            except Exception as explanation:  # noqa: BLE001 - it is handed over
                error = explanation
            then(result, error)

        self._guard.check()
        with self._calls_under_way:
            self._writer.put(work, explained)

    def _for_writing(self) -> sqlite3.Connection:
        """The connection, once its file is known to be in its place. The lock is held."""
        db = self._open()
        if self._file is not None and not self._file.check():
            log.warning("%s was deleted while it is in use: it is written anew from what is still open", self._path)
            anew = self._file.write_anew(db)
            db.close()
            self._connection = db = anew
        return db

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError("closed", self._path, "the journal is closed")
        return self._connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind, problem = explain(error)
            raise JournalError(kind, self._path, problem) from error
        except (ValueError, TypeError) as error:
            # Damage that SQLite does not see, because it has no checksums: a value that no journal holds.
            raise JournalError("torn", self._path, f"the file is damaged ({error}): {TORN_REMEDY}") from error

    def _check_schema(self, *, make: bool) -> None:
        db = self._open()
        application_id, version = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application_id, version) == (0, 0) and not db.execute("SELECT 1 FROM sqlite_master").fetchone() and make:
            with _immediate(db):
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
            return
        if application_id != _APPLICATION_ID:
            raise JournalError("foreign", self._path, "not a journal of lasersell_sync: give another path")
        if version > _SCHEMA_VERSION:
            raise JournalError(
                "newer",
                self._path,
                f"written by a newer version (schema {version}, this one knows {_SCHEMA_VERSION}): upgrade this one",
            )
        if "slot" not in {row[1] for row in db.execute("PRAGMA table_info(exits)")}:
            if not make:
                raise JournalError("older", self._path, "written by an older version: start a seller with it once")
            db.execute(_SLOT_COLUMN)
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise JournalError("torn", self._path, f"the file is damaged ({problem}): {TORN_REMEDY}")

    def _prune(self, keep_days: int) -> None:
        before_ms = _now_ms() - keep_days * _DAY_MS
        with _immediate(self._open()) as db:
            db.execute("DELETE FROM exits WHERE state = 'finished' AND is_reported AND changed_ms < ?", (before_ms,))
            db.execute("DELETE FROM buys WHERE is_reported AND signed_ms < ?", (before_ms,))


#: Of forked children: SQLite would write to the parent's file when one is closed, also by the garbage collector.
_abandoned: list[sqlite3.Connection | None] = []


@contextlib.contextmanager
def _immediate(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # A full disk makes SQLite take the transaction back by itself.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _set_opening(
    db: sqlite3.Connection,
    wallet: str,
    token_account: str,
    mint: str,
    entry_quote_units: int | str,
    generation: int,
    *,
    opened_at_ms: int | None = None,
    slot: int | None = None,
) -> int:
    db.execute(
        "INSERT OR REPLACE INTO openings (wallet, token_account, mint, generation, entry_quote_units, opened_at_ms,"
        " slot, is_closed) VALUES (?,?,?,?,?,?,?,0)",
        (wallet, token_account, mint, generation, str(entry_quote_units), opened_at_ms, slot),
    )
    return generation


def _sales_of(db: sqlite3.Connection, wallet: str, token_account: str, generation: int) -> tuple[bool, bool]:
    """(whether a part of this opening was sold and not all of it, whether an exit of it is under way)."""
    rows = db.execute(
        "SELECT part, state, outcome FROM exits WHERE wallet = ? AND token_account = ? AND generation = ?",
        (wallet, token_account, generation),
    ).fetchall()
    sold = {part for part, _, outcome in rows if outcome == SellOutcome.CONFIRMED.value}
    return bool(sold) and WHOLE not in sold, any(state != FINISHED for _, state, _ in rows)


def _set_state(db: sqlite3.Connection, exit_id: int, state: str) -> None:
    db.execute("UPDATE exits SET state = ?, changed_ms = ? WHERE id = ?", (state, _now_ms(), exit_id))


def _add_step(db: sqlite3.Connection, exit_id: int, step: str, detail: str) -> None:
    db.execute("INSERT INTO steps (exit_id, at_ms, step, detail) VALUES (?,?,?,?)", (exit_id, _now_ms(), step, detail))


def _exit_of(db: sqlite3.Connection, signature: str) -> int | None:
    row = db.execute("SELECT exit_id FROM attempts WHERE signature = ?", (signature,)).fetchone()
    return None if row is None else row[0]


def _add_steps(db: sqlite3.Connection, exit_id: int, first: tuple[str, str], second: tuple[str, str]) -> None:
    now_ms = _now_ms()
    db.execute(
        "INSERT INTO steps (exit_id, at_ms, step, detail) VALUES (?,?,?,?), (?,?,?,?)",
        (exit_id, now_ms, *first, exit_id, now_ms, *second),
    )


def _insert_attempt(db: sqlite3.Connection, exit_id: int, signature: str, blockhash: str) -> None:
    # Signing is deterministic: the same transaction again has the same signature, and is the same attempt.
    db.execute(
        "INSERT INTO attempts (signature, exit_id, blockhash, signed_ms) VALUES (?,?,?,?)"
        " ON CONFLICT (signature) DO NOTHING",
        (signature, exit_id, blockhash, _now_ms()),
    )


def _records(db: sqlite3.Connection, where: str, *values: object) -> list[ExitRecord]:
    rows = db.execute(f"SELECT {_EXIT_COLUMNS} FROM exits {where}", values).fetchall()  # noqa: S608 - literals
    return [
        ExitRecord(
            id=row[0], key=ExitKey(*row[1:6]), position_id=int(row[6]), reason=row[7], tokens=int(row[8]), state=row[9],
            outcome=_outcome(row[10]), detail=row[11], is_reported=bool(row[12]), began_ms=row[13], changed_ms=row[14],
            slot=row[15],
            attempts=_attempts(db, row[0]),
        )
        for row in rows
    ]  # fmt: skip


def _attempts(db: sqlite3.Connection, exit_id: int) -> tuple[Attempt, ...]:
    rows = db.execute(
        "SELECT signature, blockhash, signed_ms, outcome, slot FROM attempts WHERE exit_id = ? ORDER BY signed_ms",
        (exit_id,),
    ).fetchall()
    return tuple(
        Attempt(signature=row[0], blockhash=row[1], signed_ms=row[2], outcome=_outcome(row[3]), slot=row[4])
        for row in rows
    )


def _outcome(word: str | None) -> SellOutcome | None:
    return None if word is None else SellOutcome(word)


def _fitting(number: int | None) -> int | None:
    """The server's u64 as SQLite can hold it; none that means anything is larger."""
    return None if number is None else min(number, _INTEGER_MAX)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
