"""Lines: order within a key, side by side between keys, later, again, and the end."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Iterator

import pytest

from lasersell_sync.autosell import keyed_executor as lines_module
from lasersell_sync.autosell.keyed_executor import KeyedExecutor
from lasersell_sync.exceptions import JournalError

PATIENCE_S = 30.0


@pytest.fixture
def troubles() -> list[tuple[Hashable, Exception]]:
    return []


@pytest.fixture
def lines(troubles: list[tuple[Hashable, Exception]]) -> Iterator[KeyedExecutor]:
    made = KeyedExecutor(4, lambda key, error: troubles.append((key, error)))
    made.start()
    yield made
    assert made.close(PATIENCE_S) == []


def test_tasks_of_a_key_keep_their_order_and_never_meet(lines: KeyedExecutor, rand: random.Random):
    """Eight threads put; each key's tasks run one at a time, each putter's in the order it put them."""
    done: dict[int, list[tuple[int, int]]] = defaultdict(list)
    inside: dict[int, int] = defaultdict(int)
    left = threading.Semaphore(0)

    def task(key: int, putter: int, number: int) -> None:
        inside[key] += 1
        assert inside[key] == 1
        done[key].append((putter, number))
        inside[key] -= 1
        left.release()

    def put(putter: int, keys: list[int]) -> None:
        for number, key in enumerate(keys):
            lines.put(key, lambda key=key, number=number: task(key, putter, number))

    putters = [
        threading.Thread(target=put, args=(putter, [rand.randrange(5) for _ in range(200)])) for putter in range(8)
    ]
    for thread in putters:
        thread.start()
    for _ in range(8 * 200):
        assert left.acquire(timeout=PATIENCE_S)
    for runs in done.values():
        for putter in range(8):
            numbers = [number for who, number in runs if who == putter]
            assert numbers == sorted(numbers)


def test_one_key_does_not_hold_up_another(lines: KeyedExecutor):
    release, done = threading.Event(), threading.Event()
    lines.put("slow", lambda: release.wait(PATIENCE_S) and None)
    lines.put("quick", done.set)
    assert done.wait(PATIENCE_S)
    release.set()


def test_later_is_not_sooner(lines: KeyedExecutor):
    order: list[str] = []
    done = threading.Event()
    began = time.monotonic()
    lines.put_later("a", 0.2, lambda: order.append("second") or done.set())
    lines.put_later("a", 0.1, lambda: order.append("first"))
    lines.put("a", lambda: order.append("now"))
    assert done.wait(PATIENCE_S)
    assert order == ["now", "first", "second"]
    assert time.monotonic() - began >= 0.2


def test_a_refused_task_is_run_again_before_what_is_behind_it(
    lines: KeyedExecutor, troubles: list[tuple[Hashable, Exception]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lines_module, "_AGAIN_AFTER_S", 0.05)
    order: list[str] = []
    done = threading.Event()
    left = [JournalError("full", "file", "no room")] * 2

    def task() -> None:
        order.append("try")
        if left:
            raise left.pop()

    lines.put("a", task)
    lines.put("a", lambda: order.append("behind") or done.set())
    assert done.wait(PATIENCE_S)
    assert order == ["try", "try", "try", "behind"]
    assert len(troubles) == 2


def test_a_task_that_raises_is_told_and_run_again_less_and_less_often(
    lines: KeyedExecutor, troubles: list[tuple[Hashable, Exception]], monkeypatch: pytest.MonkeyPatch
):
    """Before what is behind it; refusals of the journal do not count, and the next task begins anew."""
    monkeypatch.setattr(lines_module, "_AGAIN_AFTER_S", 0.05)
    monkeypatch.setattr(lines_module, "_LONGEST_PAUSE_S", 0.15)
    done = threading.Event()
    bug, refusal = ZeroDivisionError(), JournalError("full", "file", "no room")
    first, second = [bug, bug, refusal, bug, bug], [bug]
    began: list[float] = []

    def task(left: list[Exception]) -> None:
        began.append(time.monotonic())
        if left:
            raise left.pop(0)

    lines.put("a", lambda: task(first))
    lines.put("a", lambda: task(second))
    lines.put("a", done.set)
    assert done.wait(PATIENCE_S)
    assert troubles == [("a", error) for error in (bug, bug, refusal, bug, bug, bug)]
    pauses = [later - sooner for sooner, later in itertools.pairwise(began)]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.05, 0.15, 0.15, 0, 0.05), strict=True))


def test_after_close_nothing_begins():
    lines = KeyedExecutor(2, lambda _key, _error: None)
    ran = threading.Event()
    lines.put("before start", ran.set)
    lines.start()
    assert ran.wait(PATIENCE_S)
    lines.put_later("a", 0.05, lambda: pytest.fail("it ran"))
    assert lines.close(PATIENCE_S) == []
    lines.put("b", lambda: pytest.fail("it ran"))
    time.sleep(0.1)  # nothing is waited for: that nothing comes is the point


def test_close_from_a_task_and_beside_one_that_hangs():
    """A callback may close the seller; one that hangs is named and left behind."""
    lines = KeyedExecutor(2, lambda _key, _error: None)
    lines.start()
    hangs, told = threading.Event(), threading.Event()
    stuck: list[list[str]] = []

    def close() -> None:
        stuck.append(lines.close(0.2))
        told.set()

    lines.put("hangs", lambda: hangs.wait(PATIENCE_S) and None)
    lines.put("closes", close)
    assert told.wait(PATIENCE_S)
    assert len(stuck[0]) == 1
    assert stuck[0][0].startswith("lasersell-autosell-")
    hangs.set()
    assert lines.close(PATIENCE_S) == []


def test_waiting_costs_nothing():
    """Idle workers use no processor time."""
    lines = KeyedExecutor(4, lambda _error: None)
    lines.start()
    began = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - began < 0.15
    lines.close(PATIENCE_S)
