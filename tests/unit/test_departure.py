"""Between a signature and its first byte: the record's COMMIT, and whatever happens before and after it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from lasersell_sync.autosell.exit_key import Departure
from lasersell_sync.autosell.journal import ExitRecord
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.selling import Rig, close_rigs
from tests.support.waiting import PATIENCE_S

CONFIRMED, EXPIRED, FAILED = SellOutcome.CONFIRMED, SellOutcome.EXPIRED, SellOutcome.FAILED_ONCHAIN


class Queue:
    """The journal's queue, which a test empties: signatures wait, and what follows a COMMIT waits, too."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._put = rig.journal._writer.put
        self._waiting: list[tuple[Any, Any]] = []
        self._committed: list[Callable[[], None]] = []
        monkeypatch.setattr(rig.journal._writer, "put", lambda work, then: self._waiting.append((work, then)))

    def __len__(self) -> int:
        return len(self._waiting) + len(self._committed)

    def commit(self) -> None:
        """Write what waits; nothing of it is sent before ``follow``."""
        for work, then in self._waiting:
            self._put(work, lambda result, error, then=then: self._committed.append(lambda: then(result, error)))
        self._waiting.clear()

    def fail(self) -> None:
        """The COMMIT fails."""
        for _, then in self._waiting:
            self._committed.append(lambda then=then: then(None, sqlite3.OperationalError("disk I/O error")))
        self._waiting.clear()

    def die(self) -> None:
        """The process is gone, and what it was about to do."""
        self._waiting.clear()
        self._committed.clear()

    def follow(self) -> None:
        """What follows the COMMIT."""
        committed, self._committed = self._committed, []
        for then in committed:
            then()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.opened(opened_at_ms=1)
    yield rig
    close_rigs()


@pytest.fixture
def queue(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(rig, monkeypatch)


def signatures(rig: Rig, generation: int = 1) -> list[str]:
    record = rig.journal.find(rig.key(generation=generation))
    return [] if record is None else [attempt.signature for attempt in record.attempts]


def finish(rig: Rig, queue: Queue) -> None:
    """Everything that waits, in the queue and in the line."""
    while len(queue) or rig.lines._tasks:
        queue.commit()
        queue.follow()
        rig.lines.run()


def test_new_exit_is_written_with_its_signature_before_it_is_sent(rig: Rig, queue: Queue) -> None:
    rig.exit()
    assert len(queue) == 1
    assert rig.journal.find(rig.key()) is None
    queue.commit()
    assert rig.sender.sent == []
    assert len(signatures(rig)) == 1
    queue.follow()
    assert rig.sender.sent == signatures(rig)
    record = rig.journal.find(rig.key())
    assert record is not None
    assert [step.step for step in rig.journal.steps(record.id)] == ["received", "signed"]


@pytest.mark.parametrize("is_committed", [False, True], ids=["before the COMMIT", "after the COMMIT"])
def test_pause_while_a_signature_waits_holds_it_back_until_resume(rig: Rig, queue: Queue, is_committed: bool) -> None:
    rig.exit()
    if is_committed:
        queue.commit()
    rig.is_paused = True
    finish(rig, queue)
    assert rig.sender.sent == []
    assert signatures(rig) == []
    assert [record.state for record in rig.journal.unfinished()] == ["received"]
    rig.is_paused = False
    rig.do(rig.position.unpaused)
    finish(rig, queue)
    assert len(rig.sender.sent) == 1
    assert rig.sender.sent == signatures(rig)
    assert rig.stream.asked == []


def test_resume_before_the_held_back_exit_is_looked_at_sends_it(rig: Rig, queue: Queue) -> None:
    rig.exit()
    queue.commit()
    rig.is_paused = True
    queue.follow()
    rig.is_paused = False
    rig.do(rig.position.unpaused)
    finish(rig, queue)
    assert len(rig.sender.sent) == 1
    assert rig.sender.sent == signatures(rig)


@pytest.mark.parametrize("is_committed", [False, True], ids=["before the COMMIT", "after the COMMIT"])
@pytest.mark.parametrize("end", ["closed", "opened again"])
def test_position_that_ends_while_a_signature_waits_is_not_sold(
    rig: Rig, queue: Queue, end: str, is_committed: bool
) -> None:
    rig.exit()
    if is_committed:
        queue.commit()
    if end == "closed":
        rig.closed()
    else:
        rig.opened(entry_quote_units=777, opened_at_ms=9)
    finish(rig, queue)
    assert rig.sender.sent == []
    assert rig.outcomes == [("whole", EXPIRED)]
    assert signatures(rig) == []
    assert rig.journal.unfinished() == []
    rig.opened(entry_quote_units=777, opened_at_ms=9)
    rig.exit()
    finish(rig, queue)
    assert rig.sender.sent == signatures(rig, generation=2) != []


def test_position_that_closes_after_the_first_byte_waits_for_its_transaction(rig: Rig, queue: Queue) -> None:
    rig.exit()
    finish(rig, queue)
    rig.closed()
    assert rig.reports == []
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_commit_that_fails_forgets_the_signature_and_is_tried_again(rig: Rig, queue: Queue) -> None:
    """The same transaction has the same signature: it is sent once."""
    rig.exit()
    queue.fail()
    queue.follow()
    rig.lines.run()
    assert [error.kind for error in rig.lines.refusals] == ["failed"]
    assert rig.sender.sent == []
    finish(rig, queue)
    assert len(rig.sender.sent) == 1
    assert rig.sender.sent == signatures(rig)
    assert rig.stream.asked == []
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_commit_of_a_later_transaction_that_fails_is_tried_again(rig: Rig, queue: Queue) -> None:
    rig.exit()
    finish(rig, queue)
    rig.settle(EXPIRED)
    rig.exit()
    queue.fail()
    queue.follow()
    rig.lines.run()
    assert len(rig.lines.refusals) == 1
    finish(rig, queue)
    assert len(rig.sender.sent) == 2
    assert set(rig.sender.sent) == set(signatures(rig))


def test_exit_that_the_journal_has_sold_is_not_sent_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that sold it is gone, and its memory."""
    rig.exit()
    rig.settle(CONFIRMED)
    rig.restart()
    rig.opened()
    rig.sender.amount = 0
    queue = Queue(rig, monkeypatch)
    rig.exit()
    finish(rig, queue)
    assert len(rig.sender.sent) == 1


def test_level_of_a_position_that_the_journal_has_sold_is_not_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.exit()
    rig.settle(CONFIRMED)
    rig.restart()
    rig.opened()
    queue = Queue(rig, monkeypatch)
    rig.level(0)
    finish(rig, queue)
    assert len(rig.sender.sent) == 1
    assert rig.journal.find(rig.key("level 0")) is None


def test_exit_that_failed_before_goes_on_with_its_record(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(journal=rig.journal)
    rig.opened()
    rig.exit()
    rig.settle(FAILED)
    rig.lines.advance(1_000)
    first = rig.journal.find(rig.key())
    assert first is not None
    assert first.is_finished
    rig.restart()
    rig.opened()
    queue = Queue(rig, monkeypatch)
    rig.exit()
    finish(rig, queue)
    again = rig.journal.find(rig.key())
    assert again is not None
    assert (again.id, again.state, len(again.attempts)) == (first.id, "signed", 2)
    assert len(rig.sender.sent) == 2


@pytest.mark.parametrize("is_committed", [False, True], ids=["before the COMMIT", "after the COMMIT"])
def test_error_while_a_signature_waits_loses_nothing_and_sends_nothing_twice(
    rig: Rig, queue: Queue, is_committed: bool
) -> None:
    rig.exit()
    if is_committed:
        queue.commit()

    def bug() -> None:
        if not rig.lines.errors:
            raise RuntimeError("a bug")

    rig.do(bug)
    rig.lines.run()
    finish(rig, queue)
    rig.lines.advance(5)
    assert rig.sender.sent == []
    assert rig.stream.asked
    rig.exit()
    finish(rig, queue)
    rig.settle(CONFIRMED)
    assert len(rig.sender.sent) == 1
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_process_that_dies_between_commit_and_first_byte_waits_for_proof(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(rig, monkeypatch)
    rig.exit()
    queue.commit()
    (signature,) = signatures(rig)
    queue.die()
    rig.restart()
    rig.opened()
    rig.exit()
    rig.lines.advance(60)
    assert rig.sender.tracked == [signature]
    assert rig.sender.sent == []
    rig.settle(EXPIRED)
    rig.exit()
    finish(rig, queue)
    assert len(rig.sender.sent) == 1


def test_error_of_the_sender_is_reported_and_its_transaction_is_followed(rig: Rig, queue: Queue) -> None:
    rig.sender.bugs.append(RuntimeError("a bug"))
    rig.exit()
    finish(rig, queue)
    assert [type(error) for error in rig.lines.errors] == [RuntimeError]
    rig.lines.advance(5)
    assert rig.sender.tracked == rig.sender.sent == signatures(rig)


# ── who is first ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_departure_leaves_or_is_held_back_and_never_both() -> None:
    for _ in range(200):
        departure, left, start = Departure("signature"), threading.Event(), threading.Barrier(2)

        def leave(departure: Departure = departure, left: Any = left, start: Any = start) -> None:
            start.wait(PATIENCE_S)
            departure.leave(left.set)

        leaving = threading.Thread(target=leave)
        leaving.start()
        start.wait(PATIENCE_S)
        is_held_back = departure.hold_back()
        leaving.join(PATIENCE_S)
        assert left.is_set() is not is_held_back
        assert departure.is_held_back is is_held_back
        assert departure.hold_back() is is_held_back


def test_hold_back_waits_for_bytes_that_are_leaving() -> None:
    departure, begun, go = Departure("signature"), threading.Event(), threading.Event()

    def send() -> None:
        begun.set()
        assert go.wait(PATIENCE_S)

    leaving = threading.Thread(target=departure.leave, args=(send,))
    leaving.start()
    assert begun.wait(PATIENCE_S)
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(departure.hold_back()))
    asking.start()
    asking.join(0.05)
    assert asking.is_alive()
    go.set()
    asking.join(PATIENCE_S)
    leaving.join(PATIENCE_S)
    assert answers == [False]


# ── in the journal ───────────────────────────────────────────────────────────────────────────────────────────────


def test_new_exits_of_one_batch_are_written_but_for_the_one_that_cannot_be(rig: Rig) -> None:
    answers: list[tuple[ExitRecord | None, Exception | None]] = []
    held = threading.Event()
    holding = threading.Thread(
        target=rig.journal._write, args=(lambda _: held.wait(PATIENCE_S),), kwargs={"durable": False}
    )
    holding.start()
    for number in range(4):
        record = ExitRecord.to_be(rig.key(f"level {number}"), rig.signal)
        record = attrs.evolve(record, began_ms=2**63 if number == 2 else 1)
        rig.journal.begun(record, Departure(f"s{number}"), blockhash="b", then=lambda *answer: answers.append(answer))
    held.set()
    holding.join(PATIENCE_S)
    assert rig.journal.wait_written(PATIENCE_S)
    assert [None if record is None else record.key.part for record, _ in answers] == [
        "level 0",
        "level 1",
        None,
        "level 3",
    ]
    assert [type(error) for _, error in answers] == [type(None), type(None), OverflowError, type(None)]
    assert {attempt.signature for record in rig.journal.exits() for attempt in record.attempts} == {"s0", "s1", "s3"}


def test_unsent_signature_leaves_its_exit_received(rig: Rig) -> None:
    answers: list[Any] = []
    record = ExitRecord.to_be(rig.key(), rig.signal)
    rig.journal.begun(record, Departure("s"), blockhash="b", then=lambda *answer: answers.append(answer))
    assert answers[0][0] == rig.journal.find(rig.key()) is None or len(answers) == 1
    rig.journal.unsent("s")
    rig.journal.unsent("another")
    found = rig.journal.find(rig.key())
    assert found is not None
    assert (found.state, found.attempts) == ("received", ())
