"""One journal is one file, whatever it is called, and one process sells with it."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.journal_file import _PROBLEMS, explain
from lasersell_sync.exceptions import JournalError

LIMIT_S = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sales.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as opened:
        yield opened


def begin(journal: Journal, part: str = "whole") -> int:
    return journal.received(ExitKey("Wallet", "Account", "Mint", part, 1), position_id=7, reason="", tokens=1).id


def parts(path: Path) -> list[str]:
    with Journal(path, read_only=True) as journal:
        return [record.key.part for record in journal.exits()]


@pytest.fixture(scope="module")
def open_elsewhere() -> Iterator[Callable[[Path], str]]:
    """What another process gets that opens a journal: ``opened``, or the kind of its error."""
    program = """
        import sys
        from lasersell_sync.autosell import Journal
        from lasersell_sync.exceptions import JournalError
        for line in sys.stdin:
            try:
                Journal(line.removesuffix(chr(10))).close()
                print("opened", flush=True)
            except JournalError as error:
                print(error.kind, flush=True)
    """
    started = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        questions, answers = other.stdin, other.stdout

        def ask(path: Path) -> str:
            print(path, file=questions, flush=True)
            return answers.readline().strip()

        yield ask
        questions.close()


def symbolic_link(path: Path) -> Path:
    link = path.parent / "by another name"
    link.symlink_to(path)
    return link


def hard_link(path: Path) -> Path:
    folder = path.parent / "elsewhere"
    folder.mkdir()
    os.link(path, folder / "hard")
    return folder / "hard"


@pytest.mark.parametrize("other_name", [lambda path: path, symbolic_link, hard_link])
def test_lock_same_file_by_any_name_is_refused(
    journal: Journal, path: Path, other_name: Callable[[Path], Path], open_elsewhere: Callable[[Path], str]
) -> None:
    begin(journal)
    name = other_name(path)
    assert open_elsewhere(name) == "locked"
    with pytest.raises(JournalError, match="this process sells with this journal already") as caught:
        Journal(name)
    assert caught.value.kind == "locked"
    assert open_elsewhere(name) == "locked", "the refused one dropped the lock of the first"
    journal.close()
    if name.stat().st_nlink == 1:
        assert open_elsewhere(name) == "opened"
        Journal(name).close()


def kill_after_a_signature(path: Path) -> None:
    """A process writes a signature down, and is killed before SQLite has copied its log."""
    program = """
        import os, signal, sys
        from lasersell_sync.autosell import Journal
        from lasersell_sync.autosell.exit_key import ExitKey
        journal = Journal(sys.argv[1])
        key = ExitKey("w", "t", "m", "whole", 1)
        record = journal.received(key, position_id=1, reason="stop_loss", tokens=5)
        journal.signed(record.id, signature="s", blockhash="b")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    asked = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    assert subprocess.run(asked, check=False, timeout=LIMIT_S).returncode == -signal.SIGKILL


@pytest.mark.parametrize("read_only", [False, True])
def test_journal_with_two_hard_links_is_refused_and_forgets_nothing(path: Path, read_only: bool) -> None:
    """SQLite finds the log of a killed process by the file's name: by the other one, a signature was forgotten."""
    kill_after_a_signature(path)
    link = hard_link(path)
    for name in (link, path):
        with pytest.raises(JournalError, match="2 names") as caught:
            Journal(name, read_only=read_only)
        assert caught.value.kind == "linked"
    link.unlink()
    with Journal(path, read_only=read_only) as journal:
        (record,) = journal.exits()
        assert [attempt.signature for attempt in record.attempts] == ["s"]


def test_journal_after_a_death_while_it_was_written_anew_opens(path: Path) -> None:
    """The draft's name is a hard link for a moment."""
    kill_after_a_signature(path)
    os.link(path, f"{path}.anew")
    with Journal(path) as journal:
        assert len(journal.exits()) == 1
    assert path.stat().st_nlink == 1


def test_lock_symbolic_link_to_a_journal_that_is_not_there_yet(
    path: Path, open_elsewhere: Callable[[Path], str]
) -> None:
    link = symbolic_link(path)
    with Journal(link) as journal:
        begin(journal)
        assert open_elsewhere(path) == "locked"
    assert parts(path) == ["whole"]


def test_lock_file_opened_and_closed_by_user_code_stays_locked(
    journal: Journal, path: Path, open_elsewhere: Callable[[Path], str]
) -> None:
    """POSIX drops a process's record locks on a file with any one descriptor of it, and a backup does just that."""
    link = hard_link(path)
    path.read_bytes()
    Path(f"{path}.lock").read_bytes()
    begin(journal)
    assert open_elsewhere(path) == "locked"
    assert open_elsewhere(link) == "locked"


@pytest.mark.parametrize("fork", ["os.fork", "libc.fork"])
def test_lock_killed_seller_with_a_living_forked_child_is_free(
    path: Path, open_elsewhere: Callable[[Path], str], fork: str
) -> None:
    """Prefork servers and multiprocessing leave such children; uWSGI's run no hooks."""
    program = """
        import ctypes, os, sys, time
        from lasersell_sync.autosell import Journal
        journal = Journal(sys.argv[1])
        pid = os.fork() if sys.argv[2] == "os.fork" else ctypes.CDLL(None).fork()
        if pid == 0:
            time.sleep(120)
            os._exit(0)
        print(pid, flush=True)
        time.sleep(120)
    """
    asked = [sys.executable, "-c", textwrap.dedent(program), str(path), fork]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as seller:
        assert seller.stdout is not None
        child = int(seller.stdout.readline())
        assert open_elsewhere(path) == "locked"
        seller.kill()
        seller.wait(LIMIT_S)
        try:
            assert open_elsewhere(path) == "opened"
        finally:
            os.kill(child, signal.SIGKILL)


def test_forked_child_close_is_silent_and_leaves_the_parent_its_journal(
    journal: Journal, path: Path, open_elsewhere: Callable[[Path], str]
) -> None:
    begin(journal)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            journal.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    begin(journal, "level 1")
    assert open_elsewhere(path) == "locked"
    assert parts(path) == ["whole", "level 1"]


def test_forked_child_opens_a_journal_of_its_own_after_the_parent_closed(path: Path) -> None:
    """The table of open journals is inherited, and must not refuse what is free."""
    journal = Journal(path)
    reader, writer = os.pipe()
    pid = ctypes.CDLL(None).fork()
    if pid == 0:
        status = 1
        try:
            os.close(writer)
            os.read(reader, 1)
            Journal(path).close()
            status = 0
        finally:
            os._exit(status)
    journal.close()
    os.close(writer)
    os.close(reader)
    assert os.waitpid(pid, 0)[1] == 0


def test_journal_deleted_under_a_running_seller_is_written_anew_and_locked(
    journal: Journal, path: Path, open_elsewhere: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    exit_id = begin(journal)
    for leftover in path.parent.glob("sales.journal*"):
        leftover.unlink()
    with caplog.at_level(logging.WARNING):
        journal.signed(exit_id, signature="sig", blockhash="hash")
    assert "was deleted while it is in use" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_elsewhere(path) == "locked"
    with Journal(path, read_only=True) as reader:
        (record,) = reader.unfinished()
        assert (record.state, record.attempts[0].signature) == ("signed", "sig")
    begin(journal, "level 1")
    journal.close()
    with Journal(path) as successor:
        assert [record.key.part for record in successor.unfinished()] == ["whole", "level 1"]


def test_journal_only_its_file_deleted_ignores_what_sqlite_left_beside(journal: Journal, path: Path) -> None:
    begin(journal)
    path.unlink()
    begin(journal, "level 1")
    journal.close()
    assert parts(path) == ["whole", "level 1"]


def test_journal_another_file_in_its_place_stops_sales_until_it_is_moved(journal: Journal, path: Path) -> None:
    exit_id = begin(journal)
    path.rename(path.parent / "moved")
    path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(JournalError, match="another file is in the journal's place") as caught:
            journal.signed(exit_id, signature="sig", blockhash="hash")
        assert caught.value.kind == "replaced"
    assert path.read_bytes() == b"", "nobody else's file is written"
    path.unlink()
    journal.signed(exit_id, signature="sig", blockhash="hash")
    with Journal(path, read_only=True) as reader:
        assert reader.unfinished()[0].attempts[0].signature == "sig"


def test_journal_folder_deleted_is_an_error_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "sales.journal"
    with Journal(path) as journal:
        exit_id = begin(journal)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        with pytest.raises(JournalError) as caught:
            journal.signed(exit_id, signature="sig", blockhash="hash")
        assert caught.value.kind == "missing"
        folder.mkdir()
        journal.signed(exit_id, signature="sig", blockhash="hash")
        assert parts(path) == ["whole"]


def test_lock_file_deleted_is_made_again(journal: Journal, path: Path, open_elsewhere: Callable[[Path], str]) -> None:
    Path(f"{path}.lock").unlink()
    begin(journal)
    assert Path(f"{path}.lock").exists()
    assert open_elsewhere(path) == "locked"


def test_journal_in_memory_has_no_file(caplog: Any) -> None:
    with Journal(":memory:") as one, Journal(":memory:") as other:
        assert begin(one) == begin(other)


@pytest.mark.parametrize("code", sorted(_PROBLEMS))
def test_sqlite_error_without_its_code_is_explained_by_its_text(code: int) -> None:
    """Python 3.10 does not pass the code on; SQLite's own text for it leads to the same answer."""
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
    library.sqlite3_errstr.restype = ctypes.c_char_p
    text = library.sqlite3_errstr(code).decode()
    kind, problem = _PROBLEMS[code]
    assert explain(sqlite3.OperationalError(text)) == (kind, f"{problem} ({text})")
