"""The lanes: whatever is put, taken and forgotten, both makes do as a model that is too plain to be wrong."""

from __future__ import annotations

import queue
import random
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.parity import programs
from tests.parity.cores import PURE, compiled, cores, scaled
from tests.support.examples import examples

_core = compiled()
SLOTTED = ("pnl_update", "liquidity_snapshot")
KINDS = (*SLOTTED, "trade_tick", "unheard_of")


class Item:
    """Something that waits; it can be seen to die."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number


def consumable(lanes_class: Any) -> Any:
    """The lanes with what every consumer adds: how to ``get`` when nothing can be handed out at once."""

    class Consumable(lanes_class):  # type: ignore[misc]
        told_room = 0

        def get_blocking(self, block: bool, timeout: float | None) -> Any:
            try:
                item = self.pop()
            except IndexError:
                raise queue.Empty from None
            self.told_room += self.room_again()
            return item

    return Consumable


MAKES = {"pure": consumable(PURE.Lanes), "compiled": consumable(_core.Lanes)}


class Model:
    """What the docstrings of Lanes say, in two plain lists of numbers."""

    def __init__(self, conflated: tuple[str, ...], low_capacity: int, high_capacity: int, *, lossless: bool) -> None:
        self.conflated_kinds, self.low_capacity, self.high_capacity = conflated, low_capacity, high_capacity
        self.lossless = lossless
        self.high: list[int] = []
        self.low: list[list[Any]] = []  # [number, kind, position, is a slot]
        self.dropped = self.conflated = self.high_dropped = self.unfinished = self.told_room = 0
        self.stopped = self.newest_only = False

    def keep_newest(self) -> None:
        self.newest_only = True

    def keep_all(self) -> bool:
        began, self.newest_only = self.newest_only, False
        return began

    def put_high(self, number: int) -> None:
        self.high.append(number)
        self.unfinished += 1
        if self.newest_only and len(self.high) > self.high_capacity:
            self.high.pop(0)
            self.high_dropped += 1
            self.unfinished -= 1

    def put_first(self, number: int) -> None:
        self.high.insert(0, number)
        self.unfinished += 1

    def put_low(self, number: int, kind: str, position: int | None) -> None:
        has_slot = kind in self.conflated_kinds and position is not None
        for entry in self.low if has_slot else ():
            if entry[1:] == [kind, position, True]:
                entry[0] = number
                self.conflated += 1
                return
        self.low.append([number, kind, position, has_slot])
        self.unfinished += 1
        loose = self.loose()
        if not has_slot and len(loose) > self.low_capacity and (self.newest_only or not self.lossless):
            self.low.remove(loose[0])
            self.dropped += 1
            self.unfinished -= 1

    def loose(self) -> list[list[Any]]:
        return [entry for entry in self.low if not entry[3]]

    def forget_position(self, position: int, unwanted: Callable[[int], bool] = lambda _: True) -> int:
        kept = [entry for entry in self.low if entry[2] != position or not unwanted(entry[0])]
        gone = len(self.low) - len(kept)
        self.low = kept
        self.unfinished -= gone
        return gone

    def has(self, lane: str = "any") -> bool:
        return bool((lane != "low" and self.high) or (lane != "high" and self.low))

    def pop(self, lane: str = "any") -> int:
        if self.high and lane != "low":
            return self.high.pop(0)
        if not self.low or lane == "high":
            raise IndexError("nothing waits in this lane")
        return int(self.low.pop(0)[0])

    def get(self) -> int:
        if not self.has():
            raise queue.Empty
        number = self.pop()
        self.told_room += self.room_again()
        return number

    def done(self, count: int) -> int:
        if count > self.unfinished:
            raise ValueError("task_done() called too many times")
        self.unfinished -= count
        return self.unfinished

    def full(self) -> bool:
        self.stopped = not self.newest_only and (
            len(self.high) >= self.high_capacity or (self.lossless and len(self.loose()) >= self.low_capacity)
        )
        return self.stopped

    def room_again(self) -> bool:
        half_empty = len(self.high) <= self.high_capacity / 2 and (
            not self.lossless or len(self.loose()) <= self.low_capacity / 2
        )
        said, self.stopped = self.stopped and half_empty, self.stopped and not half_empty
        return said

    def waiting(self) -> set[int]:
        return {*self.high, *(entry[0] for entry in self.low)}


class Trio:
    """The model and both makes, which do everything together."""

    def __init__(self, conflated: tuple[str, ...], low_capacity: int, high_capacity: int, *, lossless: bool) -> None:
        self.model = Model(conflated, low_capacity, high_capacity, lossless=lossless)
        self.makes = {
            name: make(conflated, low_capacity, high_capacity, lossless=lossless) for name, make in MAKES.items()
        }
        self.alive: dict[str, weakref.WeakSet[Item]] = {name: weakref.WeakSet() for name in MAKES}
        self.numbers = 0

    def put(self, lane: str, *where: Any) -> None:
        """A new item, one object for each make."""
        self.numbers += 1
        getattr(self.model, lane)(self.numbers, *where)
        for name, lanes in self.makes.items():
            item = Item(self.numbers)
            self.alive[name].add(item)
            assert getattr(lanes, lane)(item, *where) is None

    def ask(self, act: Callable[[Any], Any]) -> Any:
        """Their one answer."""
        expected = answer(act, self.model)
        for name, lanes in self.makes.items():
            assert answer(act, lanes) == expected, name
        return expected

    def check(self) -> None:
        """Counters and sizes agree, and each make holds exactly what waits in it."""
        model = self.model
        lost = (model.dropped, model.conflated, model.high_dropped)
        expected = (*lost, model.unfinished, model.told_room, len(model.waiting()))
        for name, lanes in self.makes.items():
            lost = (lanes.dropped, lanes.conflated, lanes.high_dropped)
            counts = (*lost, lanes.unfinished, lanes.told_room, lanes.qsize())
            assert counts == expected, name
            assert {item.number for item in self.alive[name]} == model.waiting(), name


def answer(act: Callable[[Any], Any], lanes: Any) -> Any:
    """What it returned, items by their number, or what it raised."""
    try:
        result = act(lanes)
    except (IndexError, ValueError, queue.Empty) as error:
        return type(error), str(error)
    if isinstance(result, list):
        return [item if isinstance(item, int) else item.number for item in result]
    return result.number if isinstance(result, Item) else result


def number_of(item: Item | int) -> int:
    return item if isinstance(item, int) else item.number


def batch_of(lanes: Any, filled: int, max_items: int) -> list[Any]:
    """What pop_into makes of a list with something in it."""
    batch: list[Any] = list(range(-filled, 0))
    if isinstance(lanes, Model):
        while len(batch) < max_items and lanes.has():
            batch.append(lanes.pop())
    else:
        assert lanes.pop_into(batch, max_items) is None
    return batch


def test_lanes_lossless_then_newest_drop_an_item_for_one_of_their_own_kind() -> None:
    """A position's newest value takes no place of the others, however many of those wait."""
    trio = Trio(SLOTTED, 0, 0, lossless=True)
    trio.put("put_low", SLOTTED[0], None)
    trio.ask(lambda lanes: lanes.keep_newest())
    trio.put("put_low", SLOTTED[0], 0)
    trio.check()
    trio.put("put_low", SLOTTED[0], None)
    trio.check()


POSITIONS = st.integers(0, 5) | st.integers(2**63 - 1, 2**64 - 1)
CAPACITIES = st.integers(0, 6) | st.sampled_from([100, 10_000])


class LanesMachine(RuleBasedStateMachine):
    """Every method in any order."""

    trio: Trio

    @initialize(
        conflated=st.sampled_from([SLOTTED, (), KINDS]), low=CAPACITIES, high=CAPACITIES, lossless=st.booleans()
    )
    def make(self, conflated: tuple[str, ...], low: int, high: int, lossless: bool) -> None:
        self.trio = Trio(conflated, low, high, lossless=lossless)

    @rule()
    def put_high(self) -> None:
        self.trio.put("put_high")

    @rule()
    def put_first(self) -> None:
        self.trio.put("put_first")

    @rule()
    def keep_newest(self) -> None:
        self.trio.ask(lambda lanes: lanes.keep_newest())

    @rule()
    def keep_all(self) -> None:
        self.trio.ask(lambda lanes: lanes.keep_all())

    @rule(kind=st.sampled_from(KINDS), position=st.none() | POSITIONS)
    def put_low(self, kind: str, position: int | None) -> None:
        self.trio.put("put_low", kind, position)

    @rule(kind=st.sampled_from(KINDS), first=st.integers(0, 10), count=st.integers(1, 150))
    def put_a_flood(self, kind: str, first: int, count: int) -> None:
        """More than a row's first capacity."""
        for position in range(first, first + count):
            self.trio.put("put_low", kind, position)

    @rule(position=POSITIONS)
    def forget_position(self, position: int) -> None:
        self.trio.ask(lambda lanes: lanes.forget_position(position))

    @rule(position=POSITIONS, rest=st.integers(0, 1))
    def forget_some(self, position: int, rest: int) -> None:
        self.trio.ask(lambda lanes: lanes.forget_position(position, lambda item: number_of(item) % 2 == rest))

    @rule(first=st.integers(0, 150), step=st.integers(1, 3))
    def forget_many(self, first: int, step: int) -> None:
        for position in range(first, 160, step):
            self.trio.ask(lambda lanes, position=position: lanes.forget_position(position))

    @rule(lane=st.sampled_from(["any", "high", "low"]))
    def pop(self, lane: str) -> None:
        self.trio.ask(lambda lanes: lanes.pop(lane))

    @rule(filled=st.integers(0, 3), max_items=st.integers(-1, 200))
    def pop_into(self, filled: int, max_items: int) -> None:
        self.trio.ask(lambda lanes: batch_of(lanes, filled, max_items))

    @rule()
    def get(self) -> None:
        self.trio.ask(lambda lanes: lanes.get())

    @rule()
    def unpark(self) -> None:
        for lanes in self.trio.makes.values():
            lanes.unpark()

    @rule(count=st.integers(0, 4))
    def done(self, count: int) -> None:
        self.trio.ask(lambda lanes: lanes.done(count))

    @rule()
    def full(self) -> None:
        self.trio.ask(lambda lanes: lanes.full())

    @rule()
    def room_again(self) -> None:
        self.trio.ask(lambda lanes: lanes.room_again())

    @rule(lane=st.sampled_from(["any", "high", "low"]))
    def has(self, lane: str) -> None:
        self.trio.ask(lambda lanes: lanes.has(lane))

    @precondition(lambda self: hasattr(self, "trio"))
    @invariant()
    def agree(self) -> None:
        self.trio.check()


TestLanesMachine = LanesMachine.TestCase
TestLanesMachine.settings = settings(
    max_examples=scaled(examples(60)), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("policy", ["conflate", "drop_oldest", "lossless"])
def test_a_long_life(policy: str, rand: random.Random) -> None:
    """Rows grow, wrap around and close their gaps thousands of times; nothing is lost, mixed up or kept."""
    trio = Trio(SLOTTED if policy == "conflate" else (), 300, 300, lossless=policy == "lossless")
    for step in range(12_000):
        # Fill and drain in turns, so that both ends of the rows travel.
        filling = step // 700 % 2 == 0
        action = rand.random()
        if action < (0.7 if filling else 0.2):
            trio.put("put_low", rand.choice(KINDS), rand.randrange(400))
        elif action < 0.75:
            trio.put("put_high")
        elif action < 0.83:
            position = rand.randrange(400)
            trio.ask(lambda lanes, position=position: lanes.forget_position(position))
        elif action < 0.9:
            size = rand.randrange(4)
            trio.ask(lambda lanes, size=size: batch_of(lanes, 0, size))
        else:
            trio.ask(lambda lanes: lanes.pop())
        if step % 50 == 0:
            trio.check()
    trio.ask(lambda lanes: batch_of(lanes, 0, 100_000))
    trio.check()


def test_gaps_behind_a_waiting_head_are_closed(rand: random.Random) -> None:
    """Positions come and go while the first one's update is not taken; the others keep their order and their slots."""
    trio = Trio(SLOTTED, 10, 10, lossless=False)
    trio.put("put_low", "pnl_update", 0)
    waiting: list[int] = []
    for position in range(1, 3000):
        trio.put("put_low", rand.choice(SLOTTED), position)
        waiting.append(position)
        if len(waiting) > 40:
            gone = waiting.pop(rand.randrange(40))
            assert trio.ask(lambda lanes, gone=gone: lanes.forget_position(gone)) > 0
        if position % 7 == 0:  # a slot that has moved is found again
            trio.put("put_low", "pnl_update", rand.choice(waiting))
    trio.check()
    trio.ask(lambda lanes: batch_of(lanes, 0, 10_000))
    trio.check()


# ── get ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", cores())
def test_get_asks_slowly_when_nothing_waits_and_while_the_producer_does(name: str) -> None:
    """In a unpark or not: who waits for room is never forgotten, and an empty lane is the consumer's own business."""
    asked: list[tuple[bool, float | None]] = []

    class Watched(make_of(name)):  # type: ignore[misc]
        def get_blocking(self, block: bool, timeout: float | None) -> Any:
            asked.append((block, timeout))
            return super().get_blocking(block, timeout)

    lanes = Watched((), 10, 2)
    lanes.put_high("one")
    assert lanes.get() == "one"
    assert asked == [(True, None)]
    lanes.unpark()
    with pytest.raises(queue.Empty):
        lanes.get(False, 0.5)
    assert asked[1:] == [(False, 0.5)]
    with pytest.raises(queue.Empty):
        lanes.get(timeout=2, block=True)
    assert asked[2:] == [(True, 2)]
    for item in ("two", "three"):
        lanes.put_high(item)
    assert lanes.full()
    assert [lanes.get(), lanes.get()] == ["two", "three"]
    assert lanes.told_room == 1


def make_of(name: str) -> Any:
    return MAKES["pure" if name == "_pure" else "compiled"]


@pytest.mark.parametrize("name", cores())
def test_a_forked_child_gets_nothing_at_once(name: str) -> None:
    """The threads that fill the lanes are not in the child: its ``get`` always asks."""
    program = f"""
import os, sys
from tests.parity.test_lanes_parity import make_of
class Asked(make_of({name!r})):
    def get_blocking(self, block, timeout):
        return "asked"
lanes = Asked((), 10, 10)
lanes.unpark()
lanes.put_high("item")
child = os.fork()
if child == 0:
    os._exit(0 if lanes.get() == "asked" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    programs.run(program)


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", cores())
def test_threads_lose_and_double_nothing(name: str) -> None:
    """Several put, several take, one forgets: every item comes out once, in its producer's order."""
    lanes = make_of(name)(SLOTTED, 10**6, 10**6, lossless=True)
    producers, each = 3, 4000
    taken: list[list[tuple[int, int]]] = [[] for _ in range(2)]
    all_put = threading.Event()

    def produce(producer: int) -> None:
        for number in range(each):
            if number % 3:
                lanes.put_low((producer, number), "trade_tick", number)
            else:
                lanes.put_high((producer, number))

    def consume(mine: list[tuple[int, int]]) -> None:
        lanes.unpark()
        while True:
            finished = all_put.is_set()  # asked before the lanes
            batch: list[tuple[int, int]] = []
            lanes.pop_into(batch, 7)
            try:
                batch.append(lanes.get())
            except queue.Empty:
                if finished and not batch:
                    return
            mine.extend(batch)

    def forget() -> None:
        while not all_put.is_set():
            assert lanes.forget_position(-1) == 0
            assert lanes.qsize() >= 0

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        makers = [threading.Thread(target=produce, args=(number,)) for number in range(producers)]
        others = [threading.Thread(target=consume, args=(mine,)) for mine in taken] + [threading.Thread(target=forget)]
        for thread in (*makers, *others):
            thread.start()
        for thread in makers:
            thread.join()
        all_put.set()
        for thread in others:
            thread.join()
    finally:
        all_put.set()
        sys.setswitchinterval(interval)
    assert sorted(taken[0] + taken[1]) == [
        (producer, number) for producer in range(producers) for number in range(each)
    ]
    assert lanes.unfinished == producers * each
    for mine in taken:
        for producer in range(producers):
            for is_low in (False, True):
                numbers = [number for who, number in mine if who == producer and bool(number % 3) == is_low]
                assert numbers == sorted(numbers)


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", cores())
def test_wrong_arguments_change_nothing(name: str) -> None:
    """What cannot be a kind is refused, and the lanes are as before."""
    lanes = make_of(name)(SLOTTED, 10, 10)
    with pytest.raises(TypeError):
        lanes.put_low("item", [], 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        lanes.put_low("item", "pnl_update", [])
    assert (lanes.qsize(), lanes.unfinished) == (0, 0)
    lanes.put_low("item", "pnl_update", 1)
    assert lanes.pop() == "item"


@pytest.mark.parametrize("kind", ["pnl_update", "trade_tick"])
def test_forget_position_items_taken_meanwhile_are_counted_once(kind: str) -> None:
    """The compiled make holds no lock: a consumer takes everything while ``unwanted`` runs."""
    lanes = MAKES["compiled"](SLOTTED, 10, 10)
    for number in range(3):
        lanes.put_low(Item(number), kind, 7)
    count = lanes.qsize()
    taken: list[Item] = []

    def take_all(item: Item) -> bool:
        lanes.pop_into(taken, 10)
        return True

    assert lanes.forget_position(7, take_all) == 0
    assert len(taken) == count
    assert lanes.qsize() == 0
    lanes.put_low(Item(9), kind, 7)
    assert lanes.pop().number == 9


@pytest.mark.parametrize("make", [PURE.Lanes, _core.Lanes])
def test_lanes_slots_of_ids_without_end_are_bounded(make: Any) -> None:
    """A server may name ids that nobody knows: the newest 16,384 wait, and loose items are not pushed out."""
    lanes = make(SLOTTED, 10, 10)
    lanes.put_low("tick", "trade_tick", 1)
    for number in range(40_000):
        lanes.put_low(number, SLOTTED[number % 2], number)
    assert lanes.qsize() == 16_384 + 1
    assert (lanes.dropped, lanes.unfinished) == (40_000 - 16_384, 16_384 + 1)
    assert lanes.pop() == "tick"
    assert lanes.pop() == 40_000 - 16_384
    # A slot that was dropped is a new one, in the last place.
    lanes.put_low("again", SLOTTED[0], 0)
    batch: list[Any] = []
    lanes.pop_into(batch, 10**6)
    assert batch == [*range(40_000 - 16_384 + 1, 40_000), "again"]
