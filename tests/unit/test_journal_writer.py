"""Group commit: what waits together is committed together, and what fails fails alone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync.autosell import journal_file as journal_writer
from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.journal_file import MAX_BATCH, JournalWriter
from tests.support.waiting import until

LIMIT_S = 30.0


class Disk:
    """A connection whose COMMITs a test counts, holds and lets fail."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.db.execute("CREATE TABLE notes (text TEXT, number INTEGER)")
        self.commits: list[list[str]] = []
        self.said: list[str] = []
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.commit_begins = threading.Event()
        self.fails: Callable[[list[str]], bool] = lambda _texts: False
        self.fails_to_begin = False
        self._known = 0

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def execute(self, sql: str, *values: Any) -> Any:
        self.said.append(sql)
        if sql == "BEGIN IMMEDIATE" and self.fails_to_begin:
            raise sqlite3.OperationalError("database is locked")
        if sql == "COMMIT":
            self.commit_begins.set()
            assert self.may_commit.wait(LIMIT_S)
            texts = self.texts()[self._known :]
            if self.fails(texts):
                raise sqlite3.OperationalError("disk I/O error")
            self._known += len(texts)
            self.commits.append(texts)
        return self.db.execute(sql, *values)

    def texts(self) -> list[str]:
        return [row[0] for row in self.db.execute("SELECT text FROM notes ORDER BY rowid")]

    def count(self, beginning: str) -> int:
        return sum(sql.startswith(beginning) for sql in list(self.said))


class CountingCondition(threading.Condition):
    """Counts how often somebody began to wait."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        return super().wait(timeout)


def note(text: str, number: int = 0) -> Callable[[Any], str]:
    def work(db: Any) -> str:
        db.execute("INSERT INTO notes VALUES (?, ?)", (text, number))
        return text

    return work


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.db.close()


@pytest.fixture
def writer(disk: Disk) -> Iterator[JournalWriter]:
    made = JournalWriter(lambda: disk, threading.Lock())  # type: ignore[arg-type, return-value]
    yield made
    disk.may_commit.set()
    made.close()


@pytest.fixture
def held(disk: Disk, writer: JournalWriter) -> Iterator[threading.Thread]:
    """A write whose COMMIT has begun and does not end before ``disk.may_commit`` is set."""
    disk.may_commit.clear()
    first = threading.Thread(target=lambda: writer.run(note("first"), durable=True), daemon=True)
    first.start()
    assert disk.commit_begins.wait(LIMIT_S)
    yield first
    disk.may_commit.set()
    first.join(LIMIT_S)


def waiting(writer: JournalWriter) -> int:
    return len(writer._urgent) + len(writer._others)


def test_write_alone_commits_on_the_calling_thread(disk: Disk, writer: JournalWriter) -> None:
    where: list[str] = []

    def work(db: Any) -> None:
        where.append(threading.current_thread().name)
        note("one")(db)

    writer.run(work, durable=True)
    assert where == [threading.current_thread().name]
    assert disk.texts() == ["one"]


def test_writes_that_come_during_a_commit_share_the_next_one(disk: Disk, writer: JournalWriter, held: Any) -> None:
    results: list[tuple[Any, Any]] = []
    for number in range(50):
        writer.put(note(f"{number}"), lambda *end: results.append(end))
    disk.may_commit.set()
    until(lambda: len(results) == 50)
    assert results == [(f"{number}", None) for number in range(50)]
    assert disk.commits == [["first"], [f"{number}" for number in range(50)]]


def test_signatures_come_before_everything_else(disk: Disk, writer: JournalWriter, held: Any) -> None:
    others = [threading.Thread(target=lambda n=n: writer.run(note(f"settled {n}"), durable=False)) for n in range(4)]
    for other in others:
        other.start()
    until(lambda: waiting(writer) == 4)
    writer.put(note("signed"), lambda *_: None)
    disk.may_commit.set()
    for other in others:
        other.join(LIMIT_S)
    assert disk.texts()[1] == "signed"


def test_group_is_bounded(disk: Disk, writer: JournalWriter, held: Any) -> None:
    for number in range(MAX_BATCH + 10):
        writer.put(note(f"{number}"), lambda *_: None)
    disk.may_commit.set()
    assert writer.wait_idle(LIMIT_S)
    assert [len(texts) for texts in disk.commits] == [1, MAX_BATCH, 10]


def test_item_that_cannot_be_written_fails_alone(disk: Disk, writer: JournalWriter, held: Any) -> None:
    ends: dict[str, Any] = {}
    for text, number in (("a", 1), ("poison", 2**63), ("b", 2), ("c", 3)):
        writer.put(note(text, number), lambda _result, error, text=text: ends.update({text: error}))
    disk.may_commit.set()
    until(lambda: len(ends) == 4)
    assert isinstance(ends.pop("poison"), OverflowError)
    assert set(ends.values()) == {None}
    assert disk.commits == [["first"], ["a", "b", "c"]]


def test_commit_that_fails_is_tried_once_more_item_by_item(disk: Disk, writer: JournalWriter, held: Any) -> None:
    disk.fails = lambda texts: "poison" in texts
    ends: dict[str, Any] = {}
    for text in ("a", "poison", "b"):
        writer.put(note(text), lambda _result, error, text=text: ends.update({text: error}))
    disk.may_commit.set()
    until(lambda: len(ends) == 3)
    assert isinstance(ends.pop("poison"), sqlite3.OperationalError)
    assert set(ends.values()) == {None}
    assert disk.texts() == ["first", "a", "b"]


def test_file_that_is_busy_fails_the_group_once(disk: Disk, writer: JournalWriter, held: Any) -> None:
    """Nothing was begun, so trying each would wait for the same lock each time."""
    errors: list[Any] = []
    for number in range(20):
        writer.put(note(f"{number}"), lambda _result, error: errors.append(error))
    disk.fails_to_begin = True
    disk.may_commit.set()
    until(lambda: len(errors) == 20)
    assert all(isinstance(error, sqlite3.OperationalError) for error in errors)
    assert disk.count("BEGIN") == 2
    disk.fails_to_begin = False
    assert writer.run(note("later"), durable=True) == "later"


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_must_be_durable_waits_for_the_disk(disk: Disk, writer: JournalWriter, durable: bool) -> None:
    writer.run(note("before"), durable=not durable)
    writer.run(note("one"), durable=durable)
    modes = [sql for sql in disk.said if sql.startswith("PRAGMA synchronous")]
    assert modes[-1] == f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}"


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3), KeyboardInterrupt()])
def test_follower_that_raises_ends_nothing(
    disk: Disk, writer: JournalWriter, held: Any, error: BaseException, caplog: Any
) -> None:
    def raises(*_: object) -> None:
        raise error

    ends: list[Any] = []
    writer.put(note("a"), raises)
    writer.put(note("b"), lambda *end: ends.append(end))
    disk.may_commit.set()
    until(lambda: ends == [("b", None)])
    assert writer.run(note("c"), durable=True) == "c"
    assert "what follows a write to the journal failed" in caplog.text


def test_interrupted_write_lets_everybody_go(disk: Disk, writer: JournalWriter) -> None:
    """Ctrl-C on the thread that commits for others, too."""

    def interrupted(_db: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.run(interrupted, durable=True)
    assert writer.run(note("after"), durable=True) == "after"
    assert disk.texts() == ["after"]


def test_thread_that_cannot_be_started_is_done_without(
    disk: Disk, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def refuses(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    ends: list[Any] = []
    with monkeypatch.context() as patch:
        disk.may_commit.clear()
        patch.setattr(threading.Thread, "start", refuses)
        first = threading.Thread(target=lambda: writer.run(note("first"), durable=True))
        patch.undo()
        first.start()
        assert disk.commit_begins.wait(LIMIT_S)
        patch.setattr(threading.Thread, "start", refuses)
        for number in range(3):
            writer.put(note(f"{number}"), lambda *end: ends.append(end))
        disk.may_commit.set()
        first.join(LIMIT_S)
        assert [end[0] for end in ends] == ["0", "1", "2"]
    assert "the journal's thread cannot be started now" in caplog.text


def test_log_is_copied_when_nothing_is_sold(disk: Disk, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_writer, "_QUIET_S", 0.2)
    monkeypatch.setattr(journal_writer, "_ROOM_PAGES", 0)
    writer.run(note("one"), durable=True)
    assert disk.count("PRAGMA wal_checkpoint") == 0
    until(lambda: disk.count("PRAGMA wal_checkpoint") == 1)
    until(lambda: disk.count("PRAGMA user_version =") == 1)
    writer.run(note("two"), durable=True)
    until(lambda: disk.count("PRAGMA wal_checkpoint") == 2)


def test_log_is_copied_though_a_second_write_came_before_the_first_had_ended(
    disk: Disk, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "_QUIET_S", 0.05)
    writer.run(note("wakes the thread"), durable=True)
    until(lambda: disk.count("PRAGMA wal_checkpoint") == 1)
    writer.put(note("first"), lambda *_: writer.put(note("second"), lambda *_: None))
    until(lambda: disk.count("PRAGMA wal_checkpoint") == 2)


def test_log_is_copied_though_the_pause_ended_during_a_commit(
    disk: Disk, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "_QUIET_S", 0.05)
    state = writer._state = CountingCondition(threading.Lock())
    writer.run(note("wakes the thread"), durable=True)
    until(lambda: disk.count("PRAGMA wal_checkpoint") == 1)
    writer.run(note("begins the pause"), durable=True)
    disk.commit_begins.clear()
    disk.may_commit.clear()
    second = threading.Thread(target=lambda: writer.run(note("during it"), durable=True))
    second.start()
    assert disk.commit_begins.wait(LIMIT_S)
    waits = state.waits
    until(lambda: state.waits > waits or disk.count("PRAGMA wal_checkpoint") == 2)
    copied = disk.count("PRAGMA wal_checkpoint")
    disk.may_commit.set()
    second.join()
    until(lambda: disk.count("PRAGMA wal_checkpoint") > copied)


def test_log_is_made_long_once_so_that_later_writes_find_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_writer, "_QUIET_S", 0.05)
    log = tmp_path / "journal-wal"
    with Journal(tmp_path / "journal") as journal:
        journal.closed("wallet", "account")
        until(lambda: log.stat().st_size > journal_writer._ROOM_PAGES * 4_096)
        assert journal.wait_written(LIMIT_S)
        length = log.stat().st_size
        for number in range(20):
            journal.opened("wallet", f"account {number}", "mint", 1)
        until(lambda: not journal._writer._uncopied_items)
        assert journal.wait_written(LIMIT_S)
        assert log.stat().st_size == length


def test_log_that_grows_long_is_copied_though_sales_go_on(
    disk: Disk, writer: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "_LONGEST_LOG_ITEMS", 10)
    for number in range(25):
        writer.run(note(f"{number}"), durable=True)
    assert disk.count("PRAGMA wal_checkpoint") == 2


def test_close_writes_what_waits(disk: Disk, writer: JournalWriter, held: Any) -> None:
    ends: list[Any] = []
    for number in range(5):
        writer.put(note(f"{number}"), lambda *end: ends.append(end))
    disk.may_commit.set()
    writer.close()
    assert [end[0] for end in ends] == ["0", "1", "2", "3", "4"]
    assert "lasersell-journal" not in [thread.name for thread in threading.enumerate()]


def test_writes_of_many_threads_are_all_there(disk: Disk, writer: JournalWriter) -> None:
    def work(thread: int) -> None:
        for number in range(50):
            writer.run(note(f"{thread}-{number}"), durable=bool(number % 2))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(disk.texts()) == sorted(f"{t}-{n}" for t in range(8) for n in range(50))
