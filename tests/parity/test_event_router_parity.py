"""The router: who gets a frequent message, in which form, and what a handler may do meanwhile; alike in both makes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasersell_sync.messages import ErrorMessage, HelloOk, Limits, PnlUpdate, PositionClosed, UnknownMessage
from lasersell_sync.session.events import StreamEvent
from tests.parity.cores import compiled, core, cores, decoder, handles_of, scaled, shape
from tests.parity.routing import KNOWN, Rig, event_shape, handle, liquidity, pnl, tick
from tests.support.examples import examples

compiled()
BOTH = ("_pure", "_core")
each_core = pytest.mark.parametrize("name", cores())


@each_core
def test_a_maker_makes_what_the_constructor_makes(name: str) -> None:
    """From the slots' values in the order asked for; wrong classes, names and counts are refused."""
    module = core(name)
    slots = ("type", "message", "handle", "received_ns")
    made = module.InstanceFactory(StreamEvent, slots)("pnl_update", pnl(1), None, 5)
    assert type(made) is StreamEvent
    assert made == StreamEvent("pnl_update", pnl(1), None, 5)
    assert module.InstanceFactory(StreamEvent, slots[::-1])(5, None, pnl(1), "pnl_update") == made
    for values in ((), ("pnl_update", pnl(1), None), ("pnl_update", pnl(1), None, 5, 6)):
        with pytest.raises(TypeError, match=f"StreamEvent has 4 slots, and {len(values)} values were given"):
            module.InstanceFactory(StreamEvent, slots)(*values)

    class Loose:
        pass

    for cls, names in (
        (StreamEvent, slots[:3]), (StreamEvent, (*slots[:3], "other")), (StreamEvent, (*slots[:3], "type")), (Loose, ()),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            module.InstanceFactory(cls, names)


# ── what it takes ────────────────────────────────────────────────────────────────────────────────────────────────


@each_core
def test_an_event_of_a_session(name: str) -> None:
    """Type, message, the handle of that moment, and when it was read; the newest of each position is kept."""
    rig = Rig(name)
    first, second = pnl(1, 5), liquidity(2)
    assert rig.router.take(first, 17)
    known = rig.handles[1]
    rig.handles[1] = handle(1)
    assert rig.router.take(second, 18)
    assert rig.router.take(tick(1), 19)
    assert rig.updates == {1: first}
    assert rig.snapshots == {2: second}
    event = rig.lanes.pop()
    assert event == StreamEvent("pnl_update", first, known, 17)
    assert event.message is first
    assert event.handle is known
    assert rig.drained() == [
        event_shape(StreamEvent("liquidity_snapshot", second, rig.handles[2], 18)),
        event_shape(StreamEvent("trade_tick", tick(1), rig.handles[1], 19)),
    ]


@each_core
def test_a_bare_connection_gets_messages_with_their_time(name: str) -> None:
    """No handles are asked, no newest kept."""
    rig = Rig(name, bare=True)
    rig.handles.clear()
    assert rig.router.take(pnl(99), 17)
    assert rig.updates == {}
    assert rig.lanes.pop() == (pnl(99), 17)


@each_core
def test_what_needs_a_thought_is_left_to_others(name: str) -> None:
    """Rare messages, positions that are not known, and everything while somebody watches: not taken, nothing changed."""
    rig = Rig(name)
    for message in (
        HelloOk(
            session_id=1, server_time_ms=2, limits=Limits(hi_capacity=3, pnl_flush_ms=4, max_positions_per_session=5)
        ),
        ErrorMessage(code="c", message="m"),
        PositionClosed(position_id=1, wallet_pubkey="w", mint="m", reason="r", slot=1),
        UnknownMessage("unheard_of", b"{}"),
        object(),
        "pnl_update",
        PnlUpdate,
        pnl(99),
    ):
        assert not rig.router.take(message, 1)
    rig.watchers.append("a line of memory")
    assert not rig.router.take(pnl(1), 1)
    assert rig.state() == Rig(name).state()
    rig.watchers.clear()
    assert rig.router.take(pnl(1), 1)


@each_core
def test_a_subclass_is_another_class(name: str) -> None:
    """Nobody said where it goes."""
    made = attrs.make_class("Heir", {}, bases=(PnlUpdate,), frozen=True, slots=True)
    assert not Rig(name).router.take(made(position_id=1, profit_units=1, proceeds_units=1, server_time_ms=1), 1)


@each_core
def test_a_half_made_message_is_an_error(name: str) -> None:
    """One whose constructor never ran has nothing to be routed by."""
    rig = Rig(name)
    with pytest.raises(AttributeError):
        rig.router.take(object.__new__(PnlUpdate), 1)
    assert rig.lanes.qsize() == 0


@each_core
def test_a_message_made_by_hand_of_anything(name: str) -> None:
    """What is no id is no known position's; where a lane has to look it up, it is an error, and the lane is whole."""
    rig = Rig(name)
    assert not rig.router.take(pnl([]), 1)  # type: ignore[arg-type]
    assert not rig.router.take(pnl(-1), 1)
    rig = Rig(name, bare=True)
    with pytest.raises(TypeError):
        rig.router.take(pnl([]), 1)  # type: ignore[arg-type]
    assert (rig.lanes.qsize(), rig.lanes.unfinished) == (0, 0)
    assert rig.router.take(pnl(1), 1)


@each_core
def test_routes_must_make_sense(name: str) -> None:
    """Foreign classes, and classes without the key, are found at construction."""
    module = core(name)
    reader, lanes = decoder(module, "server"), module.Lanes((), 10, 10)

    class Foreign:
        wire_fields = ()

    with pytest.raises(TypeError, match="Foreign is none of the decoder's"):
        module.EventRouter(reader, {Foreign: ("foreign", None)}, "position_id", lanes)
    with pytest.raises(TypeError, match="HelloOk has no position_id"):
        module.EventRouter(reader, {HelloOk: ("hello_ok", None)}, "position_id", lanes)
    # A class inside of messages is no message.
    with pytest.raises(TypeError, match="Limits is none of the decoder's"):
        module.EventRouter(reader, {Limits: ("limits", None)}, "hi_capacity", lanes)


@each_core
def test_routes_are_read_once(name: str) -> None:
    """Whoever made them may throw them away, with everything in them."""
    module = core(name)
    reader, lanes = decoder(module, "server"), module.Lanes((), 10, 10)
    routes = {PnlUpdate: (PnlUpdate.type[:3] + "_update", module.LatestByKey(reader))}  # a string of its own
    made = module.EventRouter(
        reader, routes, "position_id", lanes, handles=handles_of(module, {1: "handle"}),
        event=module.InstanceFactory(StreamEvent, ("type", "message", "handle", "received_ns")),
    )  # fmt: skip
    routes.clear()
    gc.collect()
    filler = [f"filler {number}" for number in range(1000)]
    for _ in range(10):
        assert made.take(pnl(1), 1)
        assert lanes.pop() == StreamEvent("pnl_update", pnl(1), "handle", 1)  # type: ignore[arg-type]
    assert len(filler) == 1000


# ── rare messages ────────────────────────────────────────────────────────────────────────────────────────────────


HELLO = HelloOk(session_id=1, server_time_ms=2, limits=None)  # type: ignore[arg-type]


def ruled(name: str, rule: Callable[[Any, int], None], **more: Any) -> Any:
    """A router with a rule for HelloOk."""
    module = core(name)
    make = module.InstanceFactory(StreamEvent, ("type", "message", "handle", "received_ns"))
    return module.EventRouter(
        decoder(module, "server"),
        {},
        "position_id",
        module.Lanes((), 10, 10),
        event=make,
        rules={HelloOk: rule},
        **more,
    )


@each_core
def test_a_rule_is_called_for_its_class(name: str) -> None:
    """With message and time, watched or not; the message is taken then, and others are not."""
    told: list[Any] = []
    watchers: list[Any] = []
    router = ruled(name, lambda *what: told.append(what), watchers=watchers)
    assert router.take(HELLO, 5)
    watchers.append("somebody")
    assert router.take(HELLO, 6)
    assert not router.take(pnl(1), 7)
    assert told == [(HELLO, 5), (HELLO, 6)]


@each_core
def test_what_a_rule_raises_is_raised(name: str) -> None:
    """It is the library's own code, so nobody catches it here."""
    bad = raiser(KeyError("rule"))
    router = ruled(name, lambda message, _received_ns: bad(message))
    with pytest.raises(KeyError, match="rule"):
        router.take(HELLO, 5)


@each_core
def test_rules_must_make_sense(name: str) -> None:
    """Foreign classes, and classes that have a route, are found at construction."""
    module = core(name)
    reader, lanes = decoder(module, "server"), module.Lanes((), 10, 10)
    with pytest.raises(TypeError, match="Limits is none of the decoder's"):
        module.EventRouter(reader, {}, "position_id", lanes, rules={Limits: print})
    with pytest.raises(TypeError, match="PnlUpdate has both a route and a rule"):
        module.EventRouter(reader, {PnlUpdate: ("p", None)}, "position_id", lanes, rules={PnlUpdate: print})


@each_core
def test_a_delivered_message_is_remembered_then_handled(name: str) -> None:
    """As one event, numbered; without handlers it waits in the high lane."""
    module = core(name)
    memory, lanes, seen = module.EventRing(2), module.Lanes((), 10, 10), []
    router = module.EventRouter(
        decoder(module, "server"), {}, "position_id", lanes, memory=memory,
        event=module.InstanceFactory(StreamEvent, ("type", "message", "handle", "received_ns")),
    )  # fmt: skip
    router.handlers = {"hello_ok": (lambda event: seen.append((event, memory.kept())),)}
    router.deliver("hello_ok", HELLO, "handle", 5)
    event = StreamEvent("hello_ok", HELLO, "handle", 5)  # type: ignore[arg-type]
    assert seen == [(event, [(1, event)])]
    router.deliver("balance_update", HELLO, None, 6)  # nobody handles it
    router.handlers = None
    router.deliver("hello_ok", HELLO, None, 7)
    assert lanes.pop("high") == StreamEvent("hello_ok", HELLO, None, 7)
    assert [number for number, _ in memory.kept()] == [2, 3]


@each_core
def test_while_somebody_watches_the_memory_is_told(name: str) -> None:
    """Through its ``add``, which knows who waits; without a memory nobody is."""
    module = core(name)
    watchers: list[Any] = ["somebody"]
    lanes = module.Lanes((), 10, 10)

    class Memory(module.EventRing):  # type: ignore[misc, name-defined]
        def add(self, event: Any) -> None:
            watchers.append(event)

    reader = decoder(module, "server")
    module.EventRouter(reader, {}, "position_id", lanes, memory=Memory(2), watchers=watchers).deliver(
        "k", HELLO, None, 5
    )
    assert watchers == ["somebody", (HELLO, 5)]
    module.EventRouter(reader, {}, "position_id", lanes, watchers=watchers).deliver("k", HELLO, None, 6)
    assert lanes.qsize() == 2


# ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@each_core
def test_handlers_are_called_here_and_now(name: str) -> None:
    """In their order, with one event; a type without any is taken and forgotten; the lanes see nothing."""
    rig = Rig(name)
    seen: list[Any] = []
    rig.router.handlers = {"pnl_update": (seen.append, rig.handler("second"), seen.append), "trade_tick": ()}
    assert rig.router.take(pnl(1), 5)
    assert rig.router.take(tick(1), 6)
    assert rig.router.take(liquidity(1), 7)
    assert seen[0] is seen[1]
    assert seen[0] == StreamEvent("pnl_update", pnl(1), rig.handles[1], 5)
    assert rig.log == [("second", event_shape(seen[0]))]
    assert rig.snapshots == {1: liquidity(1)}
    assert rig.lanes.qsize() == 0
    rig.router.handlers = None
    assert rig.router.take(pnl(1), 8)
    assert rig.lanes.qsize() == 1


@each_core
def test_an_event_that_is_kept_never_changes(name: str) -> None:
    """Whoever keeps one for later finds in it what came then; those in between may be kept or not."""
    rig = Rig(name)
    kept: list[Any] = []
    rig.router.handlers = {
        kind: (lambda event: kept.append(event) if event.received_ns % 3 else None,)
        for kind in ("pnl_update", "trade_tick", "liquidity_snapshot")
    }
    expected = []
    for number in range(300):
        position = 1 + number % 5
        message = (pnl, tick, liquidity)[number % 7 % 3](position, number)
        assert rig.router.take(message, number)
        if number % 3:
            expected.append(StreamEvent(message.type, message, rig.handles[position], number))
    assert kept == expected
    assert len({id(event) for event in kept}) == len(kept)


@each_core
@pytest.mark.parametrize("error", [ValueError("one"), SystemExit("two"), KeyboardInterrupt("three"), GeneratorExit()])
def test_a_handler_that_raises(name: str, error: BaseException) -> None:
    """Whatever it is: on_error hears of it, with its traceback, and the handlers after it are called."""
    told: list[Any] = []

    def on_error(*what: Any) -> None:
        told.append(what)

    rig = Rig(name, on_error=on_error)

    def bad(event: Any) -> None:
        raise error

    rig.router.handlers = {"pnl_update": (bad, rig.handler("after"))}
    assert rig.router.take(pnl(1), 5)
    event = event_shape(StreamEvent("pnl_update", pnl(1), rig.handles[1], 5))
    assert rig.log == [("failed", "bad", event, type(error), str(error)), ("after", event)]
    assert told[0][0] is bad
    assert told[0][2] is error
    assert error.__traceback__ is not None
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    assert last.tb_frame.f_code is bad.__code__
    error.__traceback__ = None


@each_core
@pytest.mark.parametrize("error", [ValueError("one"), KeyboardInterrupt("three")])
def test_on_error_may_raise_again(name: str, error: BaseException) -> None:
    """Then that is what ``take`` raises, and the handlers after it are not called."""

    def on_error(handler: Any, event: Any, raised: BaseException) -> None:
        raise raised

    rig = Rig(name, on_error=on_error)
    rig.router.handlers = {"pnl_update": (raiser(error), rig.handler("after"))}
    with pytest.raises(type(error)) as caught:
        rig.router.take(pnl(1), 5)
    assert caught.value is error
    assert [entry[0] for entry in rig.log] == ["failed"]
    # The router is as good as before.
    rig.router.handlers = {"pnl_update": (rig.handler("after"),)}
    assert rig.router.take(pnl(1), 6)
    assert rig.log[-1][0] == "after"


@each_core
def test_without_on_error_a_handlers_error_is_raised_as_it_is(name: str) -> None:
    """Nobody else is there to hear it."""
    module = core(name)
    made = module.EventRouter(
        decoder(module, "server"), {PnlUpdate: ("pnl_update", None)}, "position_id", module.Lanes((), 10, 10)
    )
    error = ValueError("mine")
    made.handlers = {"pnl_update": (raiser(error),)}
    with pytest.raises(ValueError, match="mine") as caught:
        made.take(pnl(1), 5)
    assert caught.value is error
    assert caught.value.__context__ is None


def raiser(error: BaseException) -> Callable[[Any], None]:
    def bad(event: Any) -> None:
        raise error

    return bad


@each_core
def test_handlers_replaced_during_a_call(name: str) -> None:
    """The event that is on its way goes where it was going; the next one to the new handlers."""
    rig = Rig(name)
    router = rig.router
    called: dict[str, tuple[Any, ...]] = {}

    def replace(event: Any) -> None:
        called["pnl_update"] = (rig.handler("new"),)
        gc.collect()

    called["pnl_update"] = (rig.handler("old", replace), rig.handler("old too"))
    router.handlers = called
    assert router.handlers is called
    assert router.take(pnl(1, 1), 1)
    assert router.take(pnl(1, 2), 2)
    assert [(tag, event[2]) for tag, event in rig.log] == [
        ("old", shape(pnl(1, 1))),
        ("old too", shape(pnl(1, 1))),
        ("new", shape(pnl(1, 2))),
    ]

    def take_off(event: Any) -> None:
        called.clear()
        router.handlers = None
        gc.collect()

    called["pnl_update"] = (rig.handler("last", take_off), rig.handler("last too"))
    assert router.take(pnl(1, 3), 3)
    assert router.take(pnl(1, 4), 4)
    assert [tag for tag, _ in rig.log[3:]] == ["last", "last too"]
    assert rig.drained() == [event_shape(StreamEvent("pnl_update", pnl(1, 4), rig.handles[1], 4))]


@each_core
def test_a_handler_may_bring_in_messages_itself(name: str) -> None:
    """``take`` inside of a handler: the inner events are handled first, and the outer one is what it was."""
    rig = Rig(name)
    after: list[Any] = []

    def deeper(event: Any) -> None:
        depth = event.message.profit_units
        if depth < 50:
            assert rig.router.take(pnl(1 + depth % 5, depth + 1), depth + 1)
        after.append(event_shape(event))

    rig.router.handlers = {"pnl_update": (rig.handler("down", deeper), rig.handler("up"))}
    assert rig.router.take(pnl(1, 0), 0)
    downs = [event for tag, event in rig.log if tag == "down"]
    assert [event[2] for event in downs] == [
        shape(pnl(1 if depth == 0 else 1 + (depth - 1) % 5, depth)) for depth in range(51)
    ]
    assert [event for tag, event in rig.log if tag == "up"] == downs[::-1] == after


@each_core
def test_rare_events_go_the_same_way(name: str) -> None:
    """``high`` and ``low``: to the handlers of the type if there are handlers at all, else into the lane."""
    rig = Rig(name)
    rig.router.high("exit", "exit 1")
    rig.router.low("pnl_update", "pnl 1", 1)
    rig.router.low("pnl_update", "pnl 2", 1)
    rig.router.low("unheard_of", "other", None)
    assert rig.drained() == ["exit 1", "pnl 2", "other"]
    rig.router.handlers = {"exit": (raiser(ValueError("x")), rig.handler("exits")), "low": (rig.handler("lows"),)}
    rig.router.high("exit", "exit 2")
    rig.router.low("low", "low 1", None)
    rig.router.high("nobody's", "exit 3")
    rig.router.low("nobody's", "low 2", 1)
    assert rig.log == [("failed", "bad", "exit 2", ValueError, "x"), ("exits", "exit 2"), ("lows", "low 1")]
    assert rig.lanes.qsize() == 0


def test_handlers_that_are_no_tuple_are_refused() -> None:
    """The compiled loop walks a tuple's memory, so it must be one."""
    router = Rig("_core").router
    router.handlers = {"pnl_update": [print]}
    with pytest.raises(TypeError):
        router.take(pnl(1), 1)
    with pytest.raises(TypeError):
        router.handlers = [print]


# ── anyone's code in the middle ──────────────────────────────────────────────────────────────────────────────────


class Finalizer:
    """Garbage that the collector must find, and that does something when it is found."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.me = self

    def __del__(self) -> None:
        self.act()


@pytest.mark.parametrize("inline", [True, False])
def test_a_collection_while_an_event_is_made(inline: bool) -> None:
    """A finalizer takes handle and handlers away under the router's hands: what it has looked up stays whole.

    Making the event is the first thing after ``gc.enable()`` that the collector counts.
    """
    rig = Rig("_core")
    seen: list[Any] = []
    called = {"pnl_update": (seen.append,)}  # a tuple that only the dictionary holds
    junk: list[Any] = []
    ran: list[bool] = []

    def take_away() -> None:
        ran.append(True)
        rig.handles.clear()
        called.clear()
        junk.extend(handle(-number) for number in range(50))
        junk.extend((number,) for number in range(50))

    message = pnl(1)
    assert rig.router.take(pnl(1), 0)  # the newest of this position has its place already
    rig.lanes.pop_into([], 1)
    if inline:
        rig.router.handlers = called
    threshold = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        Finalizer(take_away)
        gc.set_threshold(1)
        gc.enable()
        taken = rig.router.take(message, 5)
        gc.set_threshold(*threshold)
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
        gc.enable()
    assert taken
    assert ran
    events = seen if inline else [rig.lanes.pop()]
    # Up to 3.11 the collector runs in the middle of take; later versions wait until it is over.
    assert [event_shape(event) for event in events] == [event_shape(StreamEvent("pnl_update", pnl(1), handle(1), 5))]


# ── everything at random ─────────────────────────────────────────────────────────────────────────────────────────

_steps = st.one_of(
    st.tuples(st.just("take"), st.sampled_from([pnl, tick, liquidity]), st.integers(0, 7), st.integers(-9, 9)),
    st.tuples(st.just("low"), st.sampled_from(["pnl_update", "trade_tick", "x"]), st.none() | st.integers(0, 5)),
    st.tuples(st.just("high"), st.sampled_from(["exit", "pnl_update"])),
    st.tuples(st.just("handle"), st.sampled_from(list(KNOWN))),
    st.tuples(st.just("watch"), st.booleans()),
    st.tuples(st.just("handlers"), st.none() | st.lists(st.sampled_from("abcr"), max_size=3)),
    st.tuples(st.just("pop"), st.integers(0, 4)),
    st.tuples(st.just("forget"), st.integers(0, 5)),
)


def live(rig: Rig, steps: list[tuple[Any, ...]]) -> list[Any]:
    """The steps, and after each what it gave and what there is then."""
    out: list[Any] = []

    def again(event: Any) -> None:
        """A handler that now and then brings in a message of its own."""
        if isinstance(event, StreamEvent) and event.received_ns < 10_000:
            rig.router.take(tick(2, event.received_ns), event.received_ns + 10_000)

    for number, (step, *arguments) in enumerate(steps):
        result: Any = None
        if step == "take":
            make, position, value = arguments
            result = rig.router.take(make(position, abs(value)), number)
        elif step == "low":
            rig.router.low(arguments[0], f"low {number}", arguments[1])
        elif step == "high":
            rig.router.high(arguments[0], f"high {number}")
        elif step == "handle":
            rig.handles[arguments[0]] = handle(arguments[0])
        elif step == "watch":
            rig.watchers[:] = [1] if arguments[0] else []
        elif step == "handlers":
            actions = {"r": again, "b": raiser(ValueError("b")), "c": raiser(SystemExit(3))}
            handlers = tuple(rig.handler(tag, actions.get(tag)) for tag in arguments[0] or ())
            called = dict.fromkeys(("pnl_update", "trade_tick", "exit"), handlers)
            rig.router.handlers = None if arguments[0] is None else called
        elif step == "pop":
            batch: list[Any] = []
            rig.lanes.pop_into(batch, arguments[0])
            result = [event_shape(event) for event in batch]
        else:
            result = rig.lanes.forget_position(arguments[0])
        out.append((result, rig.state()[:2], len(rig.log)))
    return [*out, rig.log, rig.drained()]


@settings(max_examples=scaled(examples(100)), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(_steps, max_size=60),
    st.booleans(),
    st.sampled_from(["conflate", "drop_oldest", "lossless"]),
    st.sampled_from([1, 4, 1000]),
)
def test_any_life(steps: list[tuple[Any, ...]], bare: bool, policy: str, low_capacity: int) -> None:
    """Messages, rare events, handlers that come, go, raise and recurse, consumers: both makes do the same."""
    pure, fast = (live(Rig(name, bare=bare, policy=policy, low_capacity=low_capacity), steps) for name in BOTH)
    assert fast == pure
