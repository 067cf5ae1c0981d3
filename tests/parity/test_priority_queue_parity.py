"""Waiting at the lanes: nobody sleeps while something waits for him, whoever gives up, dies or ends meanwhile."""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity import programs
from tests.parity.cores import core, cores, scaled
from tests.support.waiting import PATIENCE_S


class Ended(Exception):
    """Nothing more will come."""


@pytest.fixture(params=cores())
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A lossless handover of either make."""

    def handover(**options: Any) -> Any:
        return core(request.param).PriorityQueue((), 10**6, 10**6, lossless=True, **options)

    return handover


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(*works: Callable[[], object]) -> None:
    """All at once, to their ends; a thread that hangs or fails is a failure."""
    problems: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread sleeps on"
    assert not problems, problems


# ── nobody sleeps for ever ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("hasty")
def test_one_item_at_a_time_always_wakes(make: Callable[..., Any]) -> None:
    """The next item is put when the last one was taken, so the consumer is just falling asleep."""
    there, back = make(), make()
    rounds = scaled(5000)

    def put_and_wait() -> None:
        for number in range(rounds):
            there.put_high(number)
            there.wake()
            assert back.take() == number

    def answer() -> None:
        for _ in range(rounds):
            back.put_low(there.take(), "kind", None)
            back.wake()

    in_threads(put_and_wait, answer)


@pytest.mark.usefixtures("hasty")
def test_many_consumers_of_all_lanes_with_all_kinds_of_patience(make: Callable[..., Any], rand: random.Random) -> None:
    """Woken once a batch: every item reaches one consumer, and all of them learn of the end."""
    lanes = make()
    producers, items = 3, scaled(3000)
    seeds = [rand.random() for _ in range(producers)]
    taken: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    left = threading.Barrier(producers, action=lambda: lanes.end(Ended))

    def produce(producer: int, seed: int) -> None:
        mine = random.Random(seed)
        for number in range(producer, items, producers):
            if number % 2:
                lanes.put_high(("high", number))
            else:
                lanes.put_low(("low", number), "kind", None)
            if mine.random() < 0.3:
                lanes.wake()
            if mine.random() < 0.01:
                time.sleep(0.001)
        lanes.wake()
        left.wait(PATIENCE_S)

    def consume(lane: str, timeout_s: float | None) -> None:
        while True:
            try:
                item = lanes.take(lane=lane, timeout_s=timeout_s)
            except queue.Empty:
                assert timeout_s is not None
            except Ended:
                return
            else:
                assert lane in ("any", item[0])
                taken.put(item)

    in_threads(
        *(lambda n=n: produce(n, seeds[n]) for n in range(producers)),  # type: ignore[misc]
        *(
            lambda lane=lane, timeout_s=timeout_s: consume(lane, timeout_s)  # type: ignore[misc]
            for lane in ("any", "high", "low")
            for timeout_s in (None, 0.0001, PATIENCE_S)
        ),
    )
    assert sorted(taken.get()[1] for _ in range(taken.qsize())) == list(range(items))


STEPS = st.lists(st.sampled_from(["high", "low", "wake", "put and wake", "pause"]), max_size=30)


@pytest.mark.parametrize("name", cores())
@settings(max_examples=scaled(60), deadline=None)
@given(steps=STEPS, lanes_of=st.lists(st.sampled_from(["any", "high", "low"]), min_size=1, max_size=4))
def test_whatever_is_put_reaches_those_who_wait_for_it(name: str, steps: list[str], lanes_of: list[str]) -> None:
    """Consumers that wait for ever, any order of putting and waking, and one wake at the end."""
    lanes = core(name).PriorityQueue((), 10**6, 10**6, lossless=True)
    taken: list[str] = []

    def consume(lane: str) -> None:
        try:
            while True:
                taken.append(lanes.take(lane=lane))
        except Ended:
            pass

    def produce() -> None:
        for step in steps:
            if step in ("high", "put and wake"):
                lanes.put_high("high")
            elif step == "low":
                lanes.put_low("low", "kind", 1)
            if "wake" in step:
                lanes.wake()
            elif step == "pause":
                time.sleep(0.0005)
        lanes.end(Ended)

    in_threads(produce, *(lambda lane=lane: consume(lane) for lane in lanes_of))  # type: ignore[misc]
    served = {lane for lane in ("high", "low") if {"any", lane} & set(lanes_of)}
    expected = ["high" if step == "put and wake" else step for step in steps if step in ("high", "low", "put and wake")]
    assert sorted(taken) == sorted(item for item in expected if item in served)
    assert lanes.qsize() == sum(item not in served for item in expected)


def test_ctrl_c_ends_a_wait_and_loses_nothing() -> None:
    """On the main thread, for ever or with a limit, also when an item comes at the same moment."""
    program = """
import os, queue, signal, threading, time
from tests.parity.cores import core
import sys
lanes = core(sys.argv[1]).PriorityQueue((), 10, 10)
got = interrupted = 0
def disturb(put):
    if put: lanes.put_high("item"); lanes.wake()
    os.kill(os.getpid(), signal.SIGINT)
for turn in range(60):
    put = turn % 3 > 0
    thread = threading.Timer(0.002, disturb, (put,))
    try:
        try:
            thread.start()
            got += lanes.take(timeout_s=None if turn % 2 else 60) == "item"
            time.sleep(60)  # the signal comes behind the item
        finally:
            thread.join()
    except KeyboardInterrupt:
        interrupted += 1
try:
    while True: got += lanes.take(block=False) == "item"
except queue.Empty: pass
lanes.wake()
print(got, interrupted)
"""
    for name in ("_pure", "_core"):
        core(name)
        # At the very moment at which an item is handed over Ctrl-C may take it along, as with every queue of Python's.
        got, interrupted = map(int, programs.run(program, name).split())
        assert interrupted == 60
        assert 38 <= got <= 40


# ── how it waits ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_time_limits(make: Callable[..., Any]) -> None:
    """None is for ever, zero and ``block=False`` are no wait, what is negative or no number is an error."""
    lanes = make()
    started = time.monotonic()
    with pytest.raises(queue.Empty):
        lanes.get(timeout=0.05)
    assert time.monotonic() - started >= 0.05
    for options in ({"block": False}, {"timeout": 0}, {"block": False, "timeout": 60}):
        with pytest.raises(queue.Empty):
            lanes.get(**options)
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="seconds ≥ 0"):
            lanes.get(timeout=wrong)
    threading.Timer(0.01, lambda: (lanes.put_high("item"), lanes.wake())).start()
    # More than a lock can wait for.
    assert lanes.take(timeout_s=1e30) == "item"


def test_who_gave_up_is_forgotten(make: Callable[..., Any]) -> None:
    """A wake after a thousand consumers that gave up finds nobody, and the next one is woken."""
    lanes = make()
    for _ in range(1000):
        with pytest.raises(queue.Empty):
            lanes.take(timeout_s=0.00001)
    lanes.put_high("item")
    lanes.wake()
    lanes.wake()
    assert lanes.take() == "item"


def test_a_lane_is_for_its_own_consumers(make: Callable[..., Any]) -> None:
    """What waits in the low lane ends no wait at the high one."""
    lanes = make()
    lanes.put_low("tick", "kind", None)
    timer = threading.Timer(0.02, lanes.wake)
    timer.start()
    with pytest.raises(queue.Empty):
        lanes.take(lane="high", timeout_s=0.1)
    timer.join()
    assert lanes.take(lane="low") == "tick"


def test_the_end(make: Callable[..., Any]) -> None:
    """Everyone wakes; what waits is handed out first; the first end counts; a class is raised anew each time."""
    lanes = make()
    lanes.put_high("last")
    causes: list[BaseException] = []

    def wait() -> None:
        try:
            lanes.take(lane="low")
        except Ended as cause:
            causes.append(cause)

    in_threads(wait, wait, lambda: (time.sleep(0.01), lanes.end(Ended), lanes.end(OSError("later"))))
    assert len(set(map(id, causes))) == 2
    assert lanes.ending is Ended
    assert lanes.get() == "last"
    for block in (True, False):
        with pytest.raises(Ended):
            lanes.get(block)
    failed, cause = make(), OSError("cause")
    failed.end(cause)
    with pytest.raises(OSError, match="cause") as caught:
        failed.take()
    assert caught.value is cause


def test_whoever_must_be_asked_is_asked(make: Callable[..., Any]) -> None:
    """``guard`` before a wait, ``on_use`` until a ``get`` has succeeded and never for ``take``; both may refuse."""
    asked: list[str] = []
    lanes = make(guard=lambda: asked.append("guard"), on_use=lambda: asked.append("use"))
    with pytest.raises(queue.Empty):
        lanes.get(block=False)
    assert asked == ["use", "guard"]
    lanes.put_high("one")
    assert lanes.get() == "one"
    assert asked.count("use") == 2
    lanes.put_high("two")
    assert lanes.take() == "two"
    lanes.put_high("three")
    assert lanes.get() == "three"
    assert asked.count("use") == 2

    def refuse() -> None:
        raise RuntimeError("not you")

    for options in ({"guard": refuse}, {"on_use": refuse}):
        lanes = make(**options)
        with pytest.raises(RuntimeError, match="not you"):
            lanes.get(timeout=60)


@pytest.mark.parametrize("name", cores())
def test_the_producer_is_told_of_room(name: str) -> None:
    """By ``get``, ``take`` and ``tell_room``, once each time the lanes were full."""
    told: list[int] = []
    lanes = core(name).PriorityQueue((), 10, 4, on_room=lambda: told.append(lanes.qsize()))
    for take in (lanes.get, lanes.take, lambda: (lanes.pop(), lanes.tell_room())):
        told.clear()
        for number in range(4):
            lanes.put_high(number)
        assert lanes.full()
        for _ in range(4):
            take()
        assert told == [2]


@pytest.mark.parametrize("name", cores())
def test_a_forked_child_is_refused(name: str) -> None:
    """Whatever waits in the lanes, ``guard`` is asked first."""
    program = """
import os, sys
from tests.parity.cores import core
def guard():
    if os.getpid() != parent: raise PermissionError
parent = os.getpid()
lanes = core(sys.argv[1]).PriorityQueue((), 10, 10, guard=guard)
lanes.put_high("item"); lanes.put_high("item")
lanes.get()
child = os.fork()
if child == 0:
    refused = 0
    for take in (lanes.get, lanes.take):
        try: take()
        except PermissionError: refused += 1
    os._exit(refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert programs.run(program, name) == "2\n"
