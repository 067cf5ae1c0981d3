"""The journal: what it remembers, what it refuses, and what happens to it under bad disks and other processes."""

from __future__ import annotations

import json
import pickle
import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lasersell_sync.autosell import ExitKey, Journal
from lasersell_sync.autosell.exit_key import WHOLE
from lasersell_sync.exceptions import JournalError
from lasersell_sync.trading.sending.outcome import SellOutcome

WALLET, ACCOUNT, MINT = "Wallet", "Account", "Mint"
U64_MAX = 2**64 - 1


def key(part: str = WHOLE, generation: int = 1) -> ExitKey:
    return ExitKey(WALLET, ACCOUNT, MINT, part, generation)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sales.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as opened:
        yield opened


def begin(journal: Journal, part: str = WHOLE, *, tokens: int = 1_000) -> int:
    return journal.received(key(part), position_id=7, reason="stop_loss", tokens=tokens).id


# ── what it remembers ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exit_from_first_to_last_step(journal: Journal, path: Path):
    """Each step is there for the next process: state, attempts, outcome, and the story."""
    exit_id = begin(journal, tokens=U64_MAX)
    journal.signed(exit_id, signature="sig1", blockhash="hash1")
    journal.settled(exit_id, "sig1", SellOutcome.EXPIRED, slot=None, detail="proven")
    journal.asking(exit_id, slippage_bps=2_020)
    journal.signed(exit_id, signature="sig2", blockhash="hash2")
    journal.settled(exit_id, "sig2", SellOutcome.CONFIRMED, slot=5, detail="")
    journal.finished(exit_id, SellOutcome.CONFIRMED, detail="sold")
    (record,) = journal.unreported()
    assert (record.key, record.tokens, record.position_id, record.reason) == (key(), U64_MAX, 7, "stop_loss")
    assert (record.state, record.outcome, record.detail) == ("finished", SellOutcome.CONFIRMED, "sold")
    assert [(a.signature, a.blockhash, a.outcome, a.slot) for a in record.attempts] == [
        ("sig1", "hash1", SellOutcome.EXPIRED, None),
        ("sig2", "hash2", SellOutcome.CONFIRMED, 5),
    ]
    journal.reported(exit_id)
    assert journal.unreported() == journal.unfinished() == []
    told = [step.step for step in journal.steps(exit_id)]
    assert told == ["received", "signed", "expired", "asking", "signed", "confirmed", "finished", "reported"]
    journal.close()
    with Journal(path) as again:
        assert again.find(key()) == again.exits()[0]
        assert again.find(key()).outcome is SellOutcome.CONFIRMED


def test_a_signal_changes_nothing_about_an_exit_under_way_or_sold(journal: Journal):
    """The second signal of an exit finds the first one's record; only one that failed begins anew."""
    exit_id = begin(journal)
    journal.signed(exit_id, signature="sig", blockhash="hash")
    assert journal.received(key(), position_id=9, reason="manual", tokens=5).state == "signed"
    journal.finished(exit_id, SellOutcome.CONFIRMED, detail="")
    assert journal.received(key(), position_id=9, reason="manual", tokens=5).outcome is SellOutcome.CONFIRMED
    journal.finished(exit_id, SellOutcome.EXPIRED, detail="")
    anew = journal.received(key(), position_id=9, reason="manual", tokens=5)
    assert (anew.id, anew.state, anew.outcome, anew.tokens, anew.reason) == (exit_id, "received", None, 5, "manual")
    assert [attempt.signature for attempt in anew.attempts] == ["sig"]


def test_the_parts_and_generations_of_a_position_are_exits_of_their_own(journal: Journal):
    ids = {
        journal.received(key(part, generation), position_id=1, reason="", tokens=1).id
        for part in (WHOLE, "level 0", "level 1")
        for generation in (1, 2)
    }
    assert len(ids) == 6
    assert [record.id for record in journal.exits(newest=2)] == sorted(ids)[-2:]


def test_generations_count_openings_that_are_new(journal: Journal):
    """Announced again with the same entry it is the same opening; with another entry, or after a close, a new one."""
    assert journal.generation(WALLET, ACCOUNT) == 0
    assert [journal.opened(WALLET, ACCOUNT, MINT, 100) for _ in range(3)] == [1, 1, 1]
    assert journal.opened(WALLET, ACCOUNT, MINT, U64_MAX) == 2
    journal.closed(WALLET, ACCOUNT)
    assert journal.opened(WALLET, ACCOUNT, MINT, U64_MAX) == 3
    assert journal.opened("Other", ACCOUNT, MINT, 100) == 1
    assert journal.next_generation(key(generation=3)) == 4 == journal.generation(WALLET, ACCOUNT)
    assert journal.opened(WALLET, ACCOUNT, MINT, U64_MAX) == 4


def test_the_newest_slot_of_an_opening_is_remembered(journal: Journal):
    """In which the server saw its tokens; an opening that was not announced has none."""
    slots = []
    assert journal.announced_slot(WALLET, ACCOUNT) is None
    for entry, slot in ((100, 7), (100, 9), (100, 8), (100, None), (200, 3), (300, None), (300, 4), (300, U64_MAX)):
        journal.opened(WALLET, ACCOUNT, MINT, entry, opened_at_ms=entry, slot=slot)
        slots.append(journal.announced_slot(WALLET, ACCOUNT))
    assert slots == [7, 9, 9, 9, 3, None, 4, 2**63 - 1]
    journal.next_generation(key())
    assert journal.announced_slot(WALLET, ACCOUNT) is None
    # Any u64 may come.
    assert journal.opened(WALLET, ACCOUNT, MINT, 400, opened_at_ms=U64_MAX) == journal.generation(WALLET, ACCOUNT)


def test_journal_transaction_of_another_exit_is_not_written_down_again(journal: Journal):
    """The signal of an earlier opening that is repeated has the same transaction."""
    first = begin(journal)
    assert journal.signed(first, signature="sig", blockhash="hash")
    assert journal.signed(first, signature="sig", blockhash="hash"), "the same attempt"
    later = journal.received(key(generation=2), position_id=7, reason="stop_loss", tokens=5).id
    assert not journal.signed(later, signature="sig", blockhash="hash")
    record = journal.find(key(generation=2))
    assert record is not None
    assert (record.state, record.attempts) == ("received", ())
    assert journal.signatures(WALLET, ACCOUNT) == {"sig"}
    assert [each.id for each in journal.of_opening(WALLET, ACCOUNT, 2)] == [later]


def test_journal_exit_remembers_the_slot_of_its_newest_signal(journal: Journal):
    def slot_of(slot: int | None) -> int | None:
        record = journal.received(key(), position_id=7, reason="r", tokens=5, slot=slot)
        journal.finished(record.id, SellOutcome.EXPIRED, detail="")
        return record.slot

    assert [slot_of(slot) for slot in (None, 8, 9, U64_MAX)] == [None, 8, 9, 2**63 - 1]


def test_journal_of_an_older_version_is_upgraded_by_its_writer(path: Path):
    with Journal(path) as journal:
        begin(journal)
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE exits DROP COLUMN slot")
    db.close()
    with pytest.raises(JournalError) as caught:
        Journal(path, read_only=True)
    assert caught.value.kind == "older"
    with Journal(path) as journal:
        assert [record.slot for record in journal.unfinished()] == [None]
    with Journal(path, read_only=True) as journal:
        assert len(journal.unfinished()) == 1


def test_purchases_are_known_by_their_signature(journal: Journal):
    facts = {"wallet": WALLET, "mint": MINT, "watched_wallet": "Whale", "blockhash": "hash"}
    assert journal.buying(signature="sig", **facts)
    assert not journal.buying(signature="sig", **facts)
    assert [buy.outcome for buy in journal.buys(to_do=True)] == [None]
    journal.bought("sig", SellOutcome.CONFIRMED, slot=3)
    journal.buy_reported("sig")
    assert journal.buys(to_do=True) == []
    assert [(buy.signature, buy.outcome, buy.slot) for buy in journal.buys()] == [("sig", SellOutcome.CONFIRMED, 3)]


def test_threads_write_at_once(journal: Journal):
    """Every record of eight writers is there."""

    def write(writer: int) -> None:
        for number in range(25):
            exit_id = journal.received(key(f"level {writer}-{number}"), position_id=1, reason="", tokens=1).id
            journal.signed(exit_id, signature=f"{writer}-{number}", blockhash="hash")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.unfinished()) == 200
    assert len({attempt.signature for record in journal.exits() for attempt in record.attempts}) == 200


def test_old_records_go_and_unfinished_ones_stay(path: Path):
    with Journal(path) as journal:
        for part in ("level 0", "level 1"):
            exit_id = begin(journal, part)
            journal.signed(exit_id, signature=part, blockhash="hash")
        journal.finished(exit_id, SellOutcome.CONFIRMED, detail="")
        journal.reported(exit_id)
    with Journal(path, keep_days=-1) as journal:
        assert [record.key.part for record in journal.exits()] == ["level 0"]
        assert journal.steps(exit_id) == []


# ── other processes ──────────────────────────────────────────────────────────────────────────────────────────────


def test_one_process_writes_and_others_read(journal: Journal, path: Path):
    """A second writer is refused by name; a reader sees what is there while it is written."""
    exit_id = begin(journal)
    with pytest.raises(JournalError, match="this process sells with this journal already") as caught:
        Journal(path)
    assert caught.value.kind == "locked"
    program = """
        import json, sys
        from lasersell_sync.autosell import Journal
        with Journal(sys.argv[1], read_only=True) as journal:
            print(json.dumps([record.state for record in journal.exits()]))
    """
    asked = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    assert json.loads(subprocess.run(asked, check=True, capture_output=True, timeout=60).stdout) == ["received"]
    with Journal(path, read_only=True) as reader:
        journal.signed(exit_id, signature="sig", blockhash="hash")
        assert reader.find(key()).state == "signed"
        with pytest.raises(JournalError) as caught:
            begin(reader, "level 9")
        assert caught.value.kind == "read_only"


def test_a_killed_writer_lets_go_and_loses_nothing(path: Path):
    """What was written before kill -9 is there for the next process, and the lock is not."""
    program = """
        import os, signal, sys
        from lasersell_sync.autosell import ExitKey, Journal
        journal = Journal(sys.argv[1])
        exit_id = journal.received(ExitKey("Wallet", "Account", "Mint", "whole", 1), position_id=7, reason="", tokens=1).id
        journal.signed(exit_id, signature="sig", blockhash="hash")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)], check=False, timeout=60)
    assert run.returncode == -9
    with Journal(path) as journal:
        (record,) = journal.unfinished()
        assert (record.state, record.attempts[0].signature) == ("signed", "sig")


def test_a_busy_file_is_told(journal: Journal, path: Path):
    """Somebody with a database tool holds the file: no silent loss, and it goes on when they let go."""
    other = sqlite3.connect(path, isolation_level=None)
    journal._connection.execute("PRAGMA busy_timeout = 50")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError) as caught:
        begin(journal)
    assert caught.value.kind == "locked"
    other.execute("ROLLBACK")
    other.close()
    assert begin(journal)


# ── bad files and disks ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path):
    text = tmp_path / "notes.txt"
    text.write_text("my notes\n" * 500)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    for file in (text, other):
        before = file.read_bytes()
        with pytest.raises(JournalError) as caught:
            Journal(file)
        assert caught.value.kind == "foreign"
        assert file.read_bytes()[100:] == before[100:]


def test_a_newer_schema_is_refused(path: Path):
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="schema 99, this one knows 1") as caught:
        Journal(path)
    assert caught.value.kind == "newer"


@pytest.mark.parametrize("read_only", [False, True])
def test_a_missing_folder_or_file_is_told(tmp_path: Path, read_only: bool):
    with pytest.raises(JournalError, match="there is no") as caught:
        Journal(tmp_path / "nowhere" / "sales.journal", read_only=read_only)
    assert caught.value.kind == "missing"


def test_damage_is_found_or_harmless(path: Path, tmp_path: Path, rand: random.Random):
    """A journal with bytes overwritten is refused, or reads as it was: it never tells another story."""
    with Journal(path) as journal:
        for number in range(60):
            exit_id = begin(journal, f"level {number}")
            journal.signed(exit_id, signature=f"sig{number}", blockhash="hash" * 10)
    whole = path.read_bytes()
    refused: list[str] = []
    for number in range(60):
        damaged = tmp_path / f"damaged{number}"
        at, size = rand.randrange(len(whole)), rand.randrange(1, 2_000)
        damaged.write_bytes(whole[:at] + rand.randbytes(size) + whole[at + size :])
        try:
            with Journal(damaged) as journal:
                for record in journal.exits():
                    journal.steps(record.id)
        except JournalError as error:
            refused.append(error.kind)
    assert len(refused) > 20
    assert set(refused) <= {"torn", "foreign", "newer", "failed"}


def test_a_value_that_no_journal_holds_is_damage(path: Path):
    """SQLite has no checksums: a flipped byte in a column is found when it is read."""
    with Journal(path) as journal:
        exit_id = begin(journal)
        journal.finished(exit_id, SellOutcome.EXPIRED, detail="")
        journal.buying(signature="sig", wallet=WALLET, mint=MINT, watched_wallet="Whale", blockhash="hash")
    for change in (
        "UPDATE exits SET outcome = 'expirdd'",
        "UPDATE exits SET outcome = NULL, tokens = '1_0x'",
        "UPDATE buys SET outcome = 'confirmee'",
    ):
        with sqlite3.connect(path) as db:
            db.execute(change)
        db.close()
        with Journal(path) as journal, pytest.raises(JournalError) as caught:
            journal.exits()
            journal.buys()
        assert caught.value.kind == "torn"
        with sqlite3.connect(path) as db:
            db.execute("UPDATE exits SET outcome = 'expired', tokens = '10'")
        db.close()


def test_a_write_ahead_log_cut_anywhere_keeps_whole_steps(path: Path, tmp_path: Path, rand: random.Random):
    """A machine that loses power in the middle of a write leaves a beginning of what was written, never a part of a step."""
    journal = Journal(path)
    ids = [begin(journal, f"level {number}") for number in range(30)]
    for exit_id in ids:
        journal.signed(exit_id, signature=f"sig{exit_id}", blockhash="hash")
    log = path.with_name(path.name + "-wal").read_bytes()
    main = path.read_bytes()
    journal.close()
    seen = set()
    for number in range(40):
        copy = tmp_path / f"cut{number}"
        copy.write_bytes(main)
        copy.with_name(copy.name + "-wal").write_bytes(log[: rand.randrange(len(log) + 1)])
        with Journal(copy) as cut:
            records = cut.exits()
            assert [record.id for record in records] == ids[: len(records)]
            for record in records:
                assert (record.state == "signed") == bool(record.attempts)
                assert len(cut.steps(record.id)) == 1 + len(record.attempts)
            seen.add(len(records))
    assert len(seen) > 3


def test_a_full_disk_refuses_and_recovers(path: Path):
    """Nothing is half written; with room again, the same step works."""
    program = """
        import resource, sys
        from lasersell_sync.autosell import ExitKey, Journal
        from lasersell_sync.exceptions import JournalError
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal(sys.argv[1])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, limits[1]))
        written, number = 0, 0
        while True:
            try:
                journal.received(ExitKey("W", "A", "M", f"level {number}", 1), position_id=1, reason="r" * 500, tokens=1)
            except JournalError as error:
                print(error.kind)
                break
            number += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(journal.exits()) == number, (len(journal.exits()), number)
        journal.received(ExitKey("W", "A", "M", "after", 1), position_id=1, reason="", tokens=1)
        assert len(journal.exits()) == number + 1
        journal.close()
    """
    asked = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    run = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] in {"full", "failed"}


def test_a_folder_that_cannot_be_written():
    """Told at once, not at the first sale. Root may write anywhere, so the process becomes nobody."""
    program = """
        import os, sys
        from lasersell_sync.autosell import Journal
        from lasersell_sync.exceptions import JournalError
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            Journal("/sales.journal")
        except JournalError as error:
            print(error.kind)
    """
    asked = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.split() == ["read_only"]


def test_it_is_for_its_owner_alone(journal: Journal, path: Path):
    begin(journal)
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file.name


def test_after_close_every_method_says_so(journal: Journal):
    journal.close()
    journal.close()
    for use in (lambda: begin(journal), journal.unfinished, journal.buys, lambda: journal.steps(1)):
        with pytest.raises(JournalError) as caught:
            use()
        assert caught.value.kind == "closed"
    assert pickle.loads(pickle.dumps(caught.value)).kind == "closed"


def test_what_precedes_an_action_is_on_the_disk(journal: Journal):
    """Signing, asking and finishing are flushed to the disk; what only notes something is not waited for."""
    exit_id = begin(journal)
    flushed: list[int] = []

    def mode() -> int:
        return journal._connection.execute("PRAGMA synchronous").fetchone()[0]

    for step in (
        lambda: journal.signed(exit_id, signature="sig", blockhash="hash"),
        lambda: journal.asking(exit_id, slippage_bps=1),
        lambda: journal.finished(exit_id, SellOutcome.EXPIRED, detail=""),
    ):
        journal.reported(exit_id)
        assert mode() == 1  # NORMAL
        step()
        flushed.append(mode())
    assert flushed == [2, 2, 2]  # FULL
