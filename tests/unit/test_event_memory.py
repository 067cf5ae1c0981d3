"""``wait_for``: in time at any speed of the stream, with a bounded line."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import pytest

from lasersell_sync import StreamEvent
from lasersell_sync.session import event_history as memory_module
from lasersell_sync.session.event_history import EventHistory
from tests.support.waiting import PATIENCE_S, until


def event(kind: str, number: int = 0) -> StreamEvent[Any]:
    return StreamEvent(kind, number)


class Flood:
    """A reader that never rests: low-lane events, and a high-lane one now and then."""

    def __init__(self, memory: EventHistory) -> None:
        self._memory = memory
        self.stop = threading.Event()
        self.number = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.is_set():
            self.number += 1
            self._memory.add(event("pnl_update", self.number), low=True)
            if self.number % 100 == 0:
                self._memory.add(event("error", self.number))

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()


def slow(_: object) -> bool:
    time.sleep(0.001)
    return False


@pytest.mark.parametrize("wanted", ["position_closed", slow, lambda _: False])
@pytest.mark.parametrize("timeout_s", [0.001, 0.3])
def test_wait_for_in_a_flood_ends_in_time(wanted: Any, timeout_s: float) -> None:
    """However many events wait to be looked at."""
    memory = EventHistory()
    with Flood(memory):
        began_s = time.monotonic()
        with pytest.raises(queue.Empty):
            memory.wait(wanted, timeout_s)
        # Generous, for the machine may be loaded; without a limit this does not end at all.
        assert timeout_s <= time.monotonic() - began_s < timeout_s + PATIENCE_S
    assert memory.lines == []


def test_wait_for_nothing_in_zero_seconds_looks_at_what_happened() -> None:
    memory = EventHistory()
    for number in range(100):
        memory.add(event("error", number))
    assert memory.wait(lambda e: e.message == 99, 0).message == 99


def test_wait_for_line_is_bounded_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predicate that does not return keeps no more than the newest events; of both lanes, as they came."""
    monkeypatch.setattr(memory_module, "LINE_HIGH_EVENTS", 5)
    monkeypatch.setattr(memory_module, "LINE_LOW_EVENTS", 3)
    memory = EventHistory()
    release, seen, entered = threading.Event(), [], threading.Event()

    def wanted(one: StreamEvent[Any]) -> bool:
        entered.set()
        release.wait(PATIENCE_S)
        seen.append(one.message)
        return one.type == "end"

    thread = threading.Thread(target=lambda: memory.wait(wanted, None))
    thread.start()
    until(lambda: memory.lines)
    memory.add(event("begin", 0))
    assert entered.wait(PATIENCE_S)
    for number in range(1, 21):
        memory.add(event("any", number), low=number % 2 == 0)
    memory.add(event("end", 21))
    release.set()
    thread.join(PATIENCE_S)
    assert seen == [0, 13, 15, 16, 17, 18, 19, 20, 21]


def test_wait_for_a_type_keeps_no_other_events() -> None:
    memory = EventHistory()
    thread = threading.Thread(target=lambda: memory.wait("closed", None))
    thread.start()
    until(lambda: memory.lines)
    for number in range(1000):
        memory.add(event("error", number))
    assert not memory.lines[0]
    memory.add(event("closed"))
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
