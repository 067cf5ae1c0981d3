"""A dispatcher's loop: who is called for what, what a handler's error does, and what others can see of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.parity import programs
from tests.parity.cores import core, cores
from tests.support.waiting import PATIENCE_S, until


class Event(NamedTuple):
    """What a caller looks at."""

    type: str
    number: int = 0


class Ended(Exception):
    """Nothing more will come."""


class Desk:
    """Lanes with a caller at them."""

    def __init__(self, name: str, lane: str = "any") -> None:
        module = core(name)
        self.lanes = module.PriorityQueue((), 100, 100)
        self.handlers: dict[str, tuple[Callable[[Event], object], ...]] = {}
        self.errors: list[tuple[Any, Event, BaseException]] = []
        self.caller = module.HandlerLoop(self.lanes, lane, self.handlers, self.on_error)

    def on_error(self, handler: Any, event: Event, error: BaseException) -> None:
        self.errors.append((handler, event, error))
        if not isinstance(error, Exception):
            raise error

    def run(self, *events: Event) -> None:
        """With these in the lanes, to their end."""
        for event in events:
            self.lanes.put_high(event)
        self.lanes.end(Ended)
        with pytest.raises(Ended):
            self.caller.run()


@pytest.fixture(params=cores())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_handler_of_a_type_in_order(name: str) -> None:
    """Types without a handler, or with an empty tuple of them, are passed over."""
    desk = Desk(name)
    calls: list[tuple[str, Event]] = []
    desk.handlers.update(
        a=(lambda event: calls.append(("first", event)), lambda event: calls.append(("second", event))), b=()
    )
    desk.run(Event("a", 1), Event("b", 2), Event("c", 3), Event("a", 4))
    assert calls == [(who, Event("a", number)) for number in (1, 4) for who in ("first", "second")]
    assert desk.caller.running is None


def test_an_event_under_way_sees_the_handlers_it_began_with(name: str) -> None:
    """The next one sees the new ones; what was replaced may be gone by then."""
    desk = Desk(name)
    calls: list[str] = []

    def change(_: Event) -> None:
        calls.append("old")
        desk.handlers["a"] = (lambda _: calls.append("new"),)

    desk.handlers["a"] = (change, lambda _: calls.append("old too"))
    del change
    desk.run(Event("a"), Event("a"))
    assert calls == ["old", "old too", "new"]


def test_an_error_is_told_and_ends_nothing(name: str) -> None:
    """Unless whoever is told raises it again."""
    desk = Desk(name)
    calls: list[int] = []

    def fail(event: Event) -> None:
        raise [ValueError("bad"), SystemError("worse")][event.number]

    desk.handlers["a"] = (fail, lambda event: calls.append(event.number))
    desk.run(Event("a", 0), Event("a", 1))
    assert calls == [0, 1]
    assert [(handler, event.number, str(error)) for handler, event, error in desk.errors] == [
        (fail, 0, "bad"),
        (fail, 1, "worse"),
    ]
    assert all(error.__traceback__ is not None for _, _, error in desk.errors)

    desk = Desk(name)

    def interrupt(_: Event) -> None:
        raise KeyboardInterrupt

    desk.handlers["a"] = (interrupt, lambda event: calls.append(event.number))
    desk.lanes.put_high(Event("a", 2))
    with pytest.raises(KeyboardInterrupt):
        desk.caller.run()
    assert calls == [0, 1]
    assert desk.caller.running is None


def test_an_event_without_a_type(name: str) -> None:
    """A mistake of whoever put it there, told as such."""
    desk = Desk(name)
    desk.lanes.put_high(object())
    with pytest.raises(AttributeError):
        desk.caller.run()


def test_what_runs_can_be_seen_and_stopped(name: str) -> None:
    """From another thread: the handler, its event, since when; ``stop`` leaves what waits."""
    desk = Desk(name)
    release = threading.Event()

    def slow(_: Event) -> None:
        release.wait(PATIENCE_S)

    desk.handlers["a"] = (slow,)
    thread = threading.Thread(target=desk.caller.run, daemon=True)
    before = time.monotonic()
    thread.start()
    for number in (1, 2):
        desk.lanes.put_high(Event("a", number))
    desk.lanes.wake()
    until(lambda: desk.caller.running)
    handler, event, since = desk.caller.running
    assert (handler, event) == (slow, Event("a", 1))
    assert before <= since <= time.monotonic()
    desk.caller.stop()
    release.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert desk.lanes.pop() == Event("a", 2)
    assert desk.caller.running is None


def test_one_lane(name: str) -> None:
    """The other one's events are another caller's."""
    desk = Desk(name, lane="low")
    calls: list[int] = []
    desk.handlers["a"] = (lambda event: calls.append(event.number),)
    desk.lanes.put_low(Event("a", 1), "a", None)
    desk.run(Event("a", 2))
    assert calls == [1]
    assert desk.lanes.pop() == Event("a", 2)


def test_nothing_is_kept_between_events(name: str) -> None:
    """A caller that waits holds neither the last event nor its handler."""
    import weakref

    class Kept:
        type = "a"

    desk = Desk(name)
    desk.handlers["a"] = (lambda _: None,)
    event = Kept()
    gone = weakref.ref(event)
    desk.lanes.put_high(event)
    del event

    def run() -> None:
        with pytest.raises(Ended):
            desk.caller.run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: gone() is None)
    desk.lanes.end(Ended)
    thread.join(PATIENCE_S)


def test_ctrl_c_without_handlers(name: str) -> None:
    """A flood that nobody handles runs no Python code; the main thread can be interrupted all the same."""
    program = """
import os, signal, sys, threading
from tests.parity.cores import core
module = core(sys.argv[1])
class Event: type = "a"
lanes = module.PriorityQueue((), 10, 10)
stop = threading.Event()
def flood():
    while not stop.is_set():
        lanes.put_high(Event); lanes.wake()
threading.Thread(target=flood, daemon=True).start()
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try: module.HandlerLoop(lanes, "any", {}, None).run()
except KeyboardInterrupt: print("interrupted")
stop.set()
"""
    assert programs.run(program, name) == "interrupted\n"
