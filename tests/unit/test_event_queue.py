"""The two lanes: priority, conflation, bounds, queue.Queue's way to get."""

from __future__ import annotations

import queue
import random
import threading

import pytest

from lasersell_sync import EventQueue, StreamClosed
from lasersell_sync.stream.event_queue import LagCounts, LagReporter
from tests.support.waiting import PATIENCE_S


def lanes(**options: object) -> EventQueue[str]:
    return EventQueue(**options)  # type: ignore[arg-type]


def drain(events: EventQueue[str]) -> list[str]:
    return events.get_batch(10_000) if events.qsize() else []


def test_the_high_lane_goes_first_and_in_order() -> None:
    """High before low, each in order of arrival."""
    events = lanes()
    events.put_low("tick 1", "trade_tick", 1)
    events.put_high("exit 1")
    events.put_low("tick 2", "trade_tick", 1)
    events.put_high("exit 2")
    assert drain(events) == ["exit 1", "exit 2", "tick 1", "tick 2"]


def test_conflation_keeps_the_newest_in_the_first_ones_place() -> None:
    """A position that updates often neither loses its turn nor takes another's."""
    events = lanes()
    events.put_low("a1", "pnl_update", 1)
    events.put_low("b1", "pnl_update", 2)
    events.put_low("a-liquidity", "liquidity_snapshot", 1)
    events.put_low("a2", "pnl_update", 1)
    assert drain(events) == ["a2", "b1", "a-liquidity"]
    assert events.lag() == LagCounts(dropped=0, conflated=1)
    # Once taken, the slot is free: the next one queues behind.
    events.put_low("b2", "pnl_update", 2)
    events.put_low("a3", "pnl_update", 1)
    assert drain(events) == ["b2", "a3"]


def test_ticks_beyond_the_capacity_lose_the_oldest_and_slots_do_not_count() -> None:
    """``low_capacity`` bounds what is not conflated; memory is bounded by it and the number of positions."""
    events = lanes(low_capacity=2)
    events.put_low("slot", "pnl_update", 1)
    for n in range(5):
        events.put_low(f"tick {n}", "trade_tick", 1)
    assert events.lag().dropped == 3
    assert drain(events) == ["slot", "tick 3", "tick 4"]


def test_drop_oldest_keeps_every_kind_up_to_the_capacity() -> None:
    """No conflation: the last ``low_capacity`` messages of any low type."""
    events = lanes(low_lane="drop_oldest", low_capacity=3)
    for n in range(5):
        events.put_low(f"pnl {n}", "pnl_update", 1)
    assert drain(events) == ["pnl 2", "pnl 3", "pnl 4"]
    assert events.lag() == LagCounts(dropped=2, conflated=0)


def test_a_full_lossless_or_high_lane_stops_the_producer_until_half_empty() -> None:
    """``full`` says stop; ``on_room`` is called once, when the lane has half emptied."""
    room: list[int] = []
    events = lanes(low_lane="lossless", low_capacity=4, high_capacity=4, on_room=lambda: room.append(events.qsize()))
    for n in range(4):
        events.put_low(f"tick {n}", "trade_tick", 1)
    assert events.full()
    events.put_low("one buffer may go over", "trade_tick", 1)
    assert events.lag().dropped == 0
    for _ in range(5):
        events.get()
    assert room == [2]
    assert not events.full()
    for n in range(4):
        events.put_high(f"exit {n}")
    assert events.full()
    assert len(events.get_batch(4)) == 4
    assert room == [2, 0]


def test_a_closed_position_leaves_the_low_lane() -> None:
    """Everything low about it goes, nothing else does, and ``join`` does not wait for it."""
    events = lanes()
    events.put_low("a tick", "trade_tick", 1)
    events.put_low("a slot", "pnl_update", 1)
    events.put_low("b tick", "trade_tick", 2)
    assert events.forget_position(1) == 2
    assert events.forget_position(1) == 0
    events.put_low("b tick 2", "trade_tick", 2)
    assert drain(events) == ["b tick", "b tick 2"]
    events.task_done()
    events.task_done()
    events.join()
    assert events.lag() == LagCounts(0, 0)


def test_finish_lets_what_waits_be_read_then_raises() -> None:
    """StreamClosed after a close, the cause after a failure; for every consumer and every time."""
    events = lanes()
    events.put_high("last")
    events.finish(None)
    assert events.get() == "last"
    for _ in range(2):
        with pytest.raises(StreamClosed):
            events.get()
        with pytest.raises(StreamClosed):
            events.get_nowait()
    failed = lanes()
    failed.finish(OSError("cause"))
    failed.finish(None)  # the first end counts
    with pytest.raises(OSError, match="cause"):
        failed.get(timeout=1)


def test_stream_closed_is_queue_shutdown_where_it_exists() -> None:
    """Loops that know queue.ShutDown (Python 3.13) end by themselves."""
    expected = getattr(queue, "ShutDown", Exception)
    assert issubclass(StreamClosed, expected)


def test_waiting_consumers_are_woken_by_both_lanes_and_by_the_end() -> None:
    """Several threads block in ``get``; each item reaches exactly one, and all wake at the end."""
    events = lanes(low_lane="lossless")
    got: queue.Queue[str] = queue.Queue()

    def consume() -> None:
        try:
            while True:
                got.put(events.get())
        except StreamClosed:
            got.put("end")

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(200):
        (events.put_high if n % 3 else lambda item: events.put_low(item, "trade_tick", 1))(str(n))
    events.finish(None)
    for thread in threads:
        thread.join(PATIENCE_S)
    seen = [got.get_nowait() for _ in range(204)]
    assert sorted(item for item in seen if item != "end") == sorted(str(n) for n in range(200))


def test_lanes_can_be_taken_apart() -> None:
    """``take`` of one lane leaves the other alone."""
    events = lanes()
    events.put_high("exit")
    events.put_low("tick", "trade_tick", 1)
    assert events.take(lane="low") == "tick"
    with pytest.raises(queue.Empty):
        events.take(lane="low", block=False)
    assert events.take(lane="high") == "exit"


def test_take_all_hands_over_everything() -> None:
    """High first, then low, and nothing stays."""
    events = lanes()
    events.put_low("tick", "trade_tick", 1)
    events.put_high("exit")
    assert events.take_all() == ["exit", "tick"]
    assert events.empty()
    events.join()


def test_on_use_is_asked_before_every_public_get() -> None:
    """A session keeps its ways to consume apart with it."""

    def refuse() -> None:
        raise RuntimeError("not this way")

    events = lanes(on_use=refuse)
    events.put_high("exit")
    for get in (events.get, events.get_nowait, events.get_batch):
        with pytest.raises(RuntimeError):
            get()
    assert events.take() == "exit"


@pytest.mark.parametrize("bad", [0, -1])
def test_get_batch_wants_a_positive_number(bad: int) -> None:
    """Asking for nothing is a mistake."""
    with pytest.raises(ValueError, match="max_items"):
        lanes().get_batch(bad)


@pytest.mark.parametrize("policy", ["conflate", "drop_oldest", "lossless"])
def test_random_use_agrees_with_a_plain_model(policy: str, rand: random.Random) -> None:
    """Thousands of random operations against a list that follows the rules word by word."""
    capacity = 8
    events: EventQueue[tuple[str, int, int]] = EventQueue(low_lane=policy, low_capacity=capacity)
    high: list[tuple[str, int, int]] = []
    low: list[tuple[str, int, int]] = []
    for n in range(5000):
        action = rand.random()
        item = (rand.choice(["pnl_update", "liquidity_snapshot", "trade_tick"]), rand.randrange(4), n)
        if action < 0.1:
            events.put_high(item)
            high.append(item)
        elif action < 0.6:
            events.put_low(item, item[0], item[1])
            same = [i for i, waiting in enumerate(low) if waiting[:2] == item[:2]]
            if policy == "conflate" and item[0] != "trade_tick":
                if same:
                    low[same[0]] = item
                else:
                    low.append(item)
            else:
                loose = [i for i, w in enumerate(low) if policy != "conflate" or w[0] == "trade_tick"]
                if policy != "lossless" and len(loose) >= capacity:
                    del low[loose[0]]
                low.append(item)
        elif action < 0.65:
            position = rand.randrange(4)
            events.forget_position(position)
            low = [waiting for waiting in low if waiting[1] != position]
        elif high or low:
            assert events.get_nowait() == (high.pop(0) if high else low.pop(0))
        assert events.qsize() == len(high) + len(low)


def test_lagged_is_told_at_most_once_a_second_with_totals() -> None:
    """Nothing without news; the rest waits for its second."""
    now = [100.0]
    reporter = LagReporter(clock=lambda: now[0])
    assert reporter.due(LagCounts(0, 0), 0) == (None, None)
    first, _ = reporter.due(LagCounts(2, 5), waiting=3)
    assert first is not None
    assert (first.dropped, first.conflated, first.waiting) == (2, 5, 3)
    now[0] += 0.25
    assert reporter.due(LagCounts(3, 5), 0) == (None, 0.75)
    now[0] += 0.75
    second, _ = reporter.due(LagCounts(4, 9), 0)
    assert second is not None
    assert (second.dropped, second.conflated, second.total_dropped, second.total_conflated) == (2, 4, 4, 9)
    now[0] += 10
    assert reporter.due(LagCounts(4, 9), 0) == (None, None)
