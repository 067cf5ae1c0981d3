"""Handlers and dispatchers without a socket."""

from __future__ import annotations

import queue
import threading

import pytest

from lasersell_sync import EventQueue, StreamEvent, UnknownMessage
from lasersell_sync.session.dispatch import Dispatcher, HandlerRegistry
from tests.support.waiting import PATIENCE_S


def event(kind: str = "unknown") -> StreamEvent:
    return StreamEvent(kind, UnknownMessage(kind, b"{}"))


def parts() -> tuple[EventQueue[StreamEvent], HandlerRegistry, Dispatcher]:
    lanes: EventQueue[StreamEvent] = EventQueue()
    registry = HandlerRegistry()
    return lanes, registry, Dispatcher(lanes, registry, lanes.put_high)


def test_specific_handlers_come_before_those_for_everything() -> None:
    """Whatever the order of registration; within each group that order counts."""
    _, registry, dispatcher = parts()
    calls: list[str] = []
    registry.add("*", lambda e: calls.append("every"))
    registry.add("unknown", lambda e: calls.append("first"))
    registry.add(UnknownMessage, lambda e: calls.append("second"))
    dispatcher.handle(event())
    assert calls == ["first", "second", "every"]


def test_removing_one_all_or_none() -> None:
    """A handler that is not registered is no error."""
    _, registry, _ = parts()
    registry.add("pong", print)
    registry.add("pong", repr)
    registry.remove("pong", len)
    registry.remove("pong", print)
    assert registry.of("pong") == (repr,)
    registry.remove("pong")
    assert registry.of("pong") == ()


def test_a_handler_that_changes_the_handlers_affects_the_next_event() -> None:
    """The event under way sees the list it began with."""
    _, registry, dispatcher = parts()
    calls: list[str] = []

    def once(e: StreamEvent) -> None:
        calls.append("once")
        registry.remove("unknown", once)
        registry.add("unknown", lambda _: calls.append("new"))

    registry.add("unknown", once)
    dispatcher.handle(event())
    dispatcher.handle(event())
    assert calls == ["once", "new"]


def test_ending_from_inside_a_handler_before_the_second_lane_has_started() -> None:
    """``per_lane``: the first lane's thread may handle an event, and end everything, before the second one is started."""
    for _ in range(200):
        lanes, registry, dispatcher = parts()
        joined: queue.Queue[list[str]] = queue.Queue()

        def end(
            e: StreamEvent,
            lanes: EventQueue[StreamEvent] = lanes,
            dispatcher: Dispatcher = dispatcher,
            joined: queue.Queue[list[str]] = joined,
        ) -> None:
            lanes.finish(None)
            joined.put(dispatcher.join(PATIENCE_S))

        registry.add("unknown", end)
        lanes.put_high(event())
        dispatcher.start("per_lane")
        assert joined.get(timeout=PATIENCE_S) == []
        assert dispatcher.join(PATIENCE_S) == []


def test_join_leaves_a_stuck_handler_behind_and_says_so() -> None:
    """Its thread ends by itself once the handler returns, without touching the events that still wait."""
    lanes, registry, dispatcher = parts()
    release, inside = threading.Event(), threading.Event()
    calls: list[StreamEvent] = []

    def stuck(e: StreamEvent) -> None:
        calls.append(e)
        inside.set()
        release.wait(PATIENCE_S)

    registry.add("unknown", stuck)
    lanes.put_high(event())
    lanes.put_high(event())
    dispatcher.start("thread")
    assert inside.wait(PATIENCE_S)
    (name,) = dispatcher.join(0.01)
    assert name.endswith("stuck")
    release.set()
    assert dispatcher.join(PATIENCE_S) == []
    assert len(calls) == 1
    assert lanes.qsize() == 1


def test_run_lets_keyboard_interrupt_through() -> None:
    """Ctrl-C inside a handler on the main thread must end the program, not become an event."""
    lanes, registry, dispatcher = parts()

    def interrupt(e: StreamEvent) -> None:
        raise KeyboardInterrupt

    registry.add("unknown", interrupt)
    lanes.put_high(event())
    with pytest.raises(KeyboardInterrupt):
        dispatcher.run("thread")
