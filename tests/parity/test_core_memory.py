"""The compiled core keeps its books: references, memory, the garbage collector, and classes it must refuse."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import sys
import tracemalloc
import weakref
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import (
    SERVER_MESSAGES,
    HelloOk,
    Limits,
    LiquiditySnapshot,
    MarketContext,
    PnlUpdate,
    SlippageBand,
    WireField,
)
from lasersell_sync.session.events import StreamEvent
from tests.parity import programs
from tests.parity.cores import SANITIZED, compiled, decoder, handles_of, scaled
from tests.parity.routing import SLOTTED, Rig, handle, pnl
from tests.parity.streams import frame

_core = compiled()
#: What a million messages may leave behind: fragments of the allocator's, nothing that grows with their number. A
#: sanitizer keeps what was freed for a while.
MAX_GROWTH_KIB = 150 * 1024 if SANITIZED else 1024
measures_memory = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc tells a process's memory")
EVENT_SLOTS = ("type", "message", "handle", "received_ns")
PNL = '{"type":"pnl_update","position_id":70001,"profit_units":-70002,"proceeds_units":70003,"server_time_ms":70004}'
SNAPSHOT = (
    '{"type":"liquidity_snapshot","position_id":1,"bands":[{"slippage_bps":1,"max_tokens":2,"coverage_pct":3.5},'
    '{"slippage_bps":1,"max_tokens":2,"coverage_pct":3.5}],"liquidity_trend":"stable","server_time_ms":4}'
)


def test_references_are_balanced() -> None:
    """Classes, defaults, the error class and cached strings are not counted up by reading, well or badly."""
    decode = decoder(_core, "server").decode
    wallet = decode('{"type":"mirror_buy_failed","watched_wallet":"wallet","mint":"m","reason":"r"}').watched_wallet
    bad = [SNAPSHOT[:at] for at in range(len(SNAPSHOT))] + [SNAPSHOT.replace("3.5}]", "x}]"), PNL + "x"]
    watched = (PnlUpdate, LiquiditySnapshot, SlippageBand, DecodeError, wallet, ())
    unknown = '{"type":"unheard_of"}'

    def work() -> None:
        for _ in range(200):
            decode(PNL)
            decode(SNAPSHOT)
            decode(unknown)
            decode('{"type":"mirror_buy_failed","watched_wallet":"wallet","mint":"m","reason":"r"}')
        for text in bad:
            with pytest.raises(DecodeError):
                decode(text)

    work()
    gc.collect()
    before = [sys.getrefcount(item) for item in watched]
    work()
    gc.collect()
    after = [sys.getrefcount(item) for item in watched]
    assert [later - earlier for earlier, later in zip(before, after, strict=True)] == [0] * len(watched)


def test_a_value_is_held_once() -> None:
    """A message holds one reference to each of its values, and its death releases them."""
    message = decoder(_core, "server").decode(PNL)
    value = message.profit_units
    held = sys.getrefcount(value)
    del message
    assert sys.getrefcount(value) == held - 1


def test_a_decoder_releases_what_it_holds() -> None:
    """Its plans, its callables and its cache go with it."""

    class Error(DecodeError):
        pass

    def unknown(name: str, raw: bytes) -> object:
        return name, raw

    # Not from a table that others share: the test counts.
    classes = {"pnl_update": PnlUpdate}
    counts = [sys.getrefcount(item) for item in (PnlUpdate, Error, unknown)]
    made = _core.Decoder(classes, unknown, Error)
    made.decode(PNL)
    del made
    assert [sys.getrefcount(item) for item in (PnlUpdate, Error, unknown)] == counts


def test_finished_messages_leave_the_collector() -> None:
    """Nothing in them can form a cycle, so the collector need not look at them; nested parts too."""
    decode = decoder(_core, "server").decode
    message = decode(SNAPSHOT)
    assert not gc.is_tracked(message)
    assert not gc.is_tracked(message.bands)
    assert not gc.is_tracked(message.bands[0])
    assert gc.is_tracked(PnlUpdate(position_id=[], profit_units=0, proceeds_units=0, server_time_ms=0))  # type: ignore[arg-type]


def test_repeated_short_strings_are_one_object() -> None:
    """A wallet that comes a thousand times is kept once; a signature is not worth remembering."""
    decode = decoder(_core, "server").decode
    wallet, signature = "W" * 44, "S" * 88
    text = (
        f'{{"type":"trade_tick","position_id":1,"time_ms":1,"side":"sell","token_amount":1,"quote_amount":1,'
        f'"price_quote":1,"maker":"{wallet}","tx_signature":"{signature}"}}'
    )
    one, other = decode(text), decode(text)
    assert one.maker is other.maker
    assert one.side is other.side
    assert one.tx_signature is not other.tx_signature
    assert one.tx_signature == other.tx_signature


def test_instances_made_by_hand_are_released_alike() -> None:
    """The classes' deallocator is the core's; constructed, subclassed, cyclic and half-made instances all pass it."""
    decoder(_core, "server")

    class Child(PnlUpdate):
        __slots__ = ("extra",)

    class Open(PnlUpdate):
        pass

    marker = object.__new__(type("Marker", (), {}))
    before = sys.getrefcount(marker)
    for cls in (PnlUpdate, Child, Open):
        counted = sys.getrefcount(cls)
        made: Any = cls(position_id=marker, profit_units=0, proceeds_units=0, server_time_ms=0)  # type: ignore[arg-type]
        assert sys.getrefcount(marker) == before + 1
        if cls is not PnlUpdate:
            object.__setattr__(made, "extra", marker)
        del made
        half = object.__new__(cls)
        del half
        assert sys.getrefcount(marker) == before
        assert sys.getrefcount(cls) == counted
    knot: list[object] = []
    knot.append(PnlUpdate(position_id=knot, profit_units=marker, proceeds_units=0, server_time_ms=0))  # type: ignore[arg-type]
    del knot
    gc.collect()
    assert sys.getrefcount(marker) == before
    chain: object = None
    for _ in range(200_000):
        chain = MarketContext(market_type=chain)  # type: ignore[arg-type]
    del chain  # one by one, not by recursion


@measures_memory
def test_memory_stays_flat() -> None:
    """A million messages, good, bad and unknown, leave nothing behind."""
    program = """
import random, sys
from benchmarks import data
from tests.parity.programs import resident_kib
from lasersell_sync._core import Decoder
from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import SERVER_MESSAGES, UnknownMessage
decode = Decoder(SERVER_MESSAGES, UnknownMessage, DecodeError).decode
good = data.mixed(1000)
bad = [text[: len(text) * 2 // 3] for text in good[:200]] + [text.replace(b":", b": [1, ", 1) for text in good[:50]]
other = [text.replace(b'"type":"', b'"type":"un') for text in good[:200]]
def run(rounds):
    for _ in range(rounds):
        for text in good:
            decode(text)
        for text in other:
            decode(text)
    for text in bad:
        try:
            decode(text)
        except DecodeError:
            pass
    return resident_kib()
rounds = int(sys.argv[1])
first = run(rounds)
for _ in range(9):
    last = run(rounds)
print(last - first)
"""
    grown_kib = int(programs.run(program, str(scaled(100))))
    assert grown_kib < MAX_GROWTH_KIB


def test_hostile_bytes_never_crash(rand: random.Random) -> None:
    """Hundreds of thousands of broken texts and frames, in a process whose crash would be seen."""
    program = """
import random, sys
from benchmarks import data
from lasersell_sync._core import Decoder, FrameParser
from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import CLIENT_MESSAGES, SERVER_MESSAGES, UnknownMessage
rand = random.Random(int(sys.argv[1]))
decoders = [Decoder(SERVER_MESSAGES, UnknownMessage, DecodeError), Decoder(CLIENT_MESSAGES, None, DecodeError)]
texts = [*data.mixed(200), b'{"type":"configure","wallet_pubkeys":["a"],"strategy":{"target_profit_pct":1,"stop_loss_pct":2}}']
tokens = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\\\", b"\\\\u12", b"null", b"-", b"9" * 30, b"\\xed\\xa0\\x80", b"\\x00"]
for _ in range(60_000):
    text = bytearray(rand.choice(texts))
    for _ in range(rand.choice((1, 2, 8))):
        at = rand.randrange(len(text) + 1)
        text[at : at + rand.choice((0, 1, 5))] = rand.choice((rand.choice(tokens), rand.randbytes(3), b""))
    for decoder in decoders:
        try:
            decoder.decode(text)
        except DecodeError:
            pass
for _ in range(20_000):
    parser = FrameParser(rand.choice((10, 1000, 2**24)))
    for _ in range(4):
        head = bytes([rand.choice((0x81, 0x82, 0x01, 0x80, 0x89, 0x88, rand.randrange(256))), rand.choice((0, 5, 126, 127, rand.randrange(256)))])
        parser.feed(head + rand.randbytes(rand.choice((0, 3, 8, 200))))
"""
    programs.run(program, str(rand.randrange(10**9)))


# ── from the link to the consumer ────────────────────────────────────────────────────────────────────────────────


@measures_memory
@pytest.mark.parametrize("way", ["conflate", "drop_oldest", "lossless", "inline", "bare"])
def test_a_session_stays_flat(way: str) -> None:
    """Hundreds of thousands of messages through pipeline, router and lanes or handlers, with positions that come and go, leave nothing."""
    program = """
import sys
from benchmarks import data
from tests.parity.programs import resident_kib
from tests.parity.routing import Rig, handle
from tests.parity.streams import frame
from lasersell_sync._core import FrameParser, MessagePipeline
way = sys.argv[1]
policy = way if way in ("conflate", "drop_oldest", "lossless") else "conflate"
rig = Rig("_core", bare=way == "bare", policy=policy, low_capacity=500)
texts = data.mixed(1000)
wire = b"".join(map(frame, [1] * 1000, texts)) + frame(1, b'{"type":"un') + frame(1, b'{"type":"unheard_of"}')
ids = sorted({rig.decoder.decode(text).position_id for text in texts if b'"position_id"' in text})
heard = []
pipeline = MessagePipeline(FrameParser(), rig.decoder, on_message=lambda *_: None, on_frame=print, on_unreadable=lambda *_: None)
def bad(event):
    raise ValueError(event)
if way == "inline":
    kept = [None] * 100
    rig.router.handlers = {
        "pnl_update": (lambda event: kept.__setitem__(event.received_ns % 100, event),),
        "trade_tick": (lambda event: None,),
        "liquidity_snapshot": (bad,),
    }
def run(rounds):
    for number in range(rounds):
        for position in ids:
            rig.handles[position] = handle(position) if number % 10 == 0 else rig.handles[position]
        for at in range(0, len(wire), 60_000):
            pipeline.feed(wire[at : at + 60_000], 10**15 + number, rig.router)
            if number % 3:
                rig.lanes.pop_into([], 300)
        for position in ids[number % 7 :: 7]:
            rig.lanes.forget_position(position)
        if rig.lanes.full():
            rig.lanes.pop_into([], 10**6)
        rig.log.clear()
    return resident_kib()
rounds = int(sys.argv[2])
first = run(3 * rounds)
for _ in range(7):
    last = run(rounds)
assert pipeline.messages >= 10_000 * rounds, pipeline.messages
print(last - first)
"""
    grown_kib = int(programs.run(program, way, str(scaled(40))))
    assert grown_kib < MAX_GROWTH_KIB


def test_gaps_behind_a_waiting_item_take_no_memory() -> None:
    """A stalled consumer, and positions that are opened and closed ten thousands of times meanwhile."""
    for conflated in (SLOTTED, ()):
        lanes = _core.Lanes(conflated, 100, 100)
        lanes.put_low("waits", "pnl_update", 0)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for position in range(1, 30_000):
                lanes.put_low("comes and goes", "pnl_update", position)
                if position > 40:
                    assert lanes.forget_position(position - 40) == 1
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 20_000
        assert lanes.qsize() == 41


def test_references_of_a_session_are_balanced() -> None:
    """Kinds, handles, ids, times, messages, handlers: counted as before once their events are gone, on every way."""
    kind = PnlUpdate.type[:3] + "_update"  # a string of its own
    number, received_ns = int("70001"), int("123456789012345")
    known, message = handle(number), pnl(number)
    calls: list[Any] = []
    returned = object()

    def good(event: Any) -> object:
        calls.append(event.received_ns)
        return returned

    def bad(event: Any) -> None:
        raise ValueError("bad")

    def heard(*what: Any) -> None:
        calls.append(len(what))

    reader = decoder(_core, "server")
    lanes = _core.Lanes((kind,), 3, 10)
    newest = _core.LatestByKey(reader)
    handlers = (good, bad)
    router = _core.EventRouter(
        reader, {PnlUpdate: (kind, newest)}, "position_id", lanes, handles=handles_of(_core, {number: known}), on_error=heard,
        event=_core.InstanceFactory(StreamEvent, EVENT_SLOTS),
    )  # fmt: skip
    pipeline = _core.MessagePipeline(_core.FrameParser(), reader, on_message=heard, on_frame=heard, on_unreadable=heard)
    wire = frame(1, PNL.encode()) + frame(1, PNL.encode()[:-9]) + frame(9, b"ping") + frame(1, b'{"type":"other"}')
    watched = (
        returned,
        kind,
        number,
        received_ns,
        known,
        message,
        good,
        bad,
        heard,
        handlers,
        StreamEvent,
        PnlUpdate,
        newest,
        router,
    )

    def work() -> None:
        for inline in (False, True):
            router.handlers = {kind: handlers} if inline else None
            for _ in range(50):
                router.take(message, received_ns)
                pipeline.tap = heard
                pipeline.feed(wire, received_ns, router)
                router.low(kind, known, number)
                router.high(kind, known)
            lanes.put_low(known, "other", number)
            lanes.put_low(known, "other", None)
            for _ in range(10):  # more than may wait
                lanes.put_low(message, "other", number)
            lanes.forget_position(number)
            lanes.put_low(message, kind, number)
            lanes.put_low(message, kind, number)
            lanes.pop_into([], 4)
            lanes.get() if lanes.has() else None
            lanes.pop_into([], 1000)
        router.handlers = {kind: (heard,)}
        router.take(None, 1)
        router.take(pnl(number), 1)  # the event that a router keeps for the next call holds this one
        newest.get(number)
        newest.put(number, message)
        calls.clear()

    lanes.unpark()
    work()
    gc.collect()
    before = [sys.getrefcount(item) for item in watched]
    work()
    gc.collect()
    after = [sys.getrefcount(item) for item in watched]
    assert [later - earlier for earlier, later in zip(before, after, strict=True)] == [0] * len(watched)


def test_an_integer_that_is_kept_never_changes(rand: random.Random) -> None:
    """A released message's integers serve the next one, but only those that nobody else has."""
    decode = decoder(_core, "server").decode
    bounds = (2**8, 2**30, 2**60, 2**63 - 1)
    kept: list[tuple[int, str]] = []
    for _ in range(scaled(20_000)):
        numbers = [rand.randrange(-bound, bound) for bound in (rand.choice(bounds), rand.choice(bounds))]
        positive = [rand.randrange(rand.choice((*bounds, 2**64))) for _ in range(3)]
        text = (
            f'{{"type":"pnl_update","position_id":{positive[0]},"profit_units":{numbers[0]},'
            f'"proceeds_units":{positive[1]},"server_time_ms":{positive[2]}}}'
        )
        message = decode(text)
        assert [message.position_id, message.profit_units, message.proceeds_units, message.server_time_ms] == [
            positive[0], numbers[0], positive[1], positive[2],
        ]  # fmt: skip
        if rand.random() < 0.3:
            kept.append((message.profit_units, str(numbers[0])))
        if rand.random() < 0.05:
            kept.append((message.position_id, str(positive[0])))
    assert [(str(number), hash(number)) for number, _ in kept] == [(spelt, hash(int(spelt))) for _, spelt in kept]


def test_integers_of_messages_made_by_hand_are_nobody_elses() -> None:
    """Booleans, subclasses, constants and small integers in a message's slots are left alone when it goes."""

    class Own(int):
        pass

    decode = decoder(_core, "server").decode
    own, constant, small = Own(2**40), 987_654_321, 7
    for _ in range(1000):
        values = (own, constant, small, True)
        PnlUpdate(position_id=own, profit_units=constant, proceeds_units=small, server_time_ms=True)
        PnlUpdate(position_id=Own(2**41), profit_units=int("98765432109"), proceeds_units=0, server_time_ms=False)
        read = decode(PNL)
        assert (read.position_id, read.profit_units, read.proceeds_units) == (70001, -70002, 70003)
    assert values == (Own(2**40), 987_654_321, 7, True)
    assert type(values[0]) is Own


def test_memory_of_one_class_serves_another() -> None:
    """Classes with equally many slots share what is released: type, values and references stay their own."""
    reader = decoder(_core, "server")
    make = _core.InstanceFactory(StreamEvent, EVENT_SLOTS)
    before = [sys.getrefcount(cls) for cls in (StreamEvent, LiquiditySnapshot)]
    for number in range(5000):  # both have four slots
        event = make("kind", number + 2**31, None, 5)
        assert (type(event), event.message) == (StreamEvent, number + 2**31)
        assert not gc.is_tracked(event)
        del event
        snapshot = reader.decode(SNAPSHOT)
        assert (type(snapshot), snapshot.liquidity_trend, len(snapshot.bands)) == (LiquiditySnapshot, "stable", 2)
        assert not gc.is_tracked(snapshot)
        del snapshot
    assert [sys.getrefcount(cls) for cls in (StreamEvent, LiquiditySnapshot)] == before


def test_a_deep_nest_of_messages_is_released(rand: random.Random) -> None:
    """Messages inside messages inside tuples, a hundred thousand levels: built by hand, released without recursion."""
    nest: Any = None
    for level in range(100_000):
        nest = HelloOk(session_id=nest, server_time_ms=level + 2**31, limits=(nest,) if rand.random() < 0.5 else None)
    del nest


@pytest.mark.parametrize("waits", ["high", "slotted", "loose"])
def test_lanes_release_what_waits_in_them(waits: str) -> None:
    """Dropped while full, or half emptied: no item outlives them."""
    lanes = _core.Lanes(SLOTTED, 1000, 1000)
    item = object()
    counted = sys.getrefcount(item)
    for number in range(200):
        if waits == "high":
            lanes.put_high(item)
        else:
            lanes.put_low(item, "pnl_update" if waits == "slotted" else "trade_tick", 2**40 + number)
    assert sys.getrefcount(item) == counted + 200
    lanes.pop_into([], 50)
    for number in range(60, 80):
        lanes.forget_position(2**40 + number)
    assert sys.getrefcount(item) == counted + lanes.qsize() > counted
    del lanes
    assert sys.getrefcount(item) == counted


def test_a_cycle_through_the_high_lane_is_collected() -> None:
    """What waits there may refer to the lanes: a handler's error, with its traceback, to the whole session."""

    class News:
        pass

    lanes = _core.Lanes((), 10, 10)
    news = News()
    news.lanes = lanes  # type: ignore[attr-defined]
    lanes.put_high(news)
    gone = weakref.ref(news)
    del lanes, news
    gc.collect()
    assert gone() is None


def test_an_owner_of_pump_and_router_is_collected() -> None:
    """Callbacks are methods of whoever owns them: the usual cycle, with an event left in the router and in the lanes."""

    class Owner:
        def __init__(self) -> None:
            self.rig = Rig("_core", on_error=self.heard)
            self.rig.router.handlers = {"pnl_update": (self.heard,)}
            self.pipeline = _core.MessagePipeline(
                _core.FrameParser(),
                self.rig.decoder,
                on_message=self.heard,
                on_frame=self.heard,
                on_unreadable=self.heard,
            )
            self.pipeline.tap = self.heard

        def heard(self, *what: Any) -> None:
            """Whatever it is."""

    owner = Owner()
    owner.rig.router.take(pnl(1), 1)
    owner.pipeline.feed(frame(1, PNL.encode()) + frame(1, b"{"), 1, owner.rig.router)
    owner.rig.lanes.put_high(owner)
    owner.rig.watchers.append(owner)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_events_of_the_router_are_like_constructed_ones() -> None:
    """Equal, of equal hash and repr, copied and pickled alike; only the collector does not see them."""
    rig = Rig("_core")
    for inline in (False, True):
        kept: list[Any] = []
        rig.router.handlers = {"pnl_update": (kept.append,)} if inline else None
        assert rig.router.take(pnl(1), 17)
        event = kept[0] if inline else rig.lanes.pop()
        made = StreamEvent("pnl_update", pnl(1), rig.handles[1], 17)
        assert type(event) is StreamEvent
        assert event == made
        assert hash(event) == hash(made)
        assert repr(event) == repr(made)
        assert copy.copy(event) == copy.deepcopy(event) == pickle.loads(pickle.dumps(event)) == made
        assert attrs.evolve(event, received_ns=18) == StreamEvent("pnl_update", pnl(1), rig.handles[1], 18)
        assert not gc.is_tracked(event)
        assert gc.is_tracked(made)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            event.type = "other"


def test_made_instances_hold_their_values_once() -> None:
    """A InstanceFactory's values are counted like any instance's, and wrong numbers of them leave nothing behind."""
    make = _core.InstanceFactory(StreamEvent, EVENT_SLOTS)
    value = object()
    counted, classes = sys.getrefcount(value), sys.getrefcount(StreamEvent)
    made = make(value, value, value, value)
    assert (made.type, made.message, made.handle, made.received_ns) == (value,) * 4
    assert sys.getrefcount(value) == counted + 4
    for values in ((), (value,) * 3, (value,) * 5):
        with pytest.raises(TypeError, match="4 slots"):
            make(*values)
    del made, values
    assert sys.getrefcount(value) == counted
    assert sys.getrefcount(StreamEvent) == classes
    for names in (EVENT_SLOTS[:3], (*EVENT_SLOTS[:3], "other"), (*EVENT_SLOTS[:3], "type"), (*EVENT_SLOTS, "other")):
        with pytest.raises(TypeError):
            _core.InstanceFactory(StreamEvent, names)
    with pytest.raises(TypeError, match="not a class"):
        _core.InstanceFactory(made := object(), EVENT_SLOTS)
    assert sys.getrefcount(made) == 2


def test_half_made_parts_do_not_exist() -> None:
    """No part of the core can be had without what its constructor takes, nor be made anew."""
    for cls in (_core.MessagePipeline, _core.EventRouter, _core.InstanceFactory, _core.Decoder):
        with pytest.raises(TypeError):
            cls.__new__(cls)
    with pytest.raises(TypeError):
        _core.MessagePipeline(None, None, on_message=print, on_frame=print, on_unreadable=print)
    with pytest.raises(TypeError):
        _core.EventRouter(None, {}, "key", _core.Lanes((), 1, 1))
    lanes = _core.Lanes(SLOTTED, 10, 10)
    lanes.put_low("item", "pnl_update", 1)
    with pytest.raises(RuntimeError, match="made already"):
        lanes.__init__((), 10, 10)
    assert lanes.pop() == "item"
    bare = _core.Lanes.__new__(_core.Lanes)
    for use in (
        lambda: bare.put_low("item", "pnl_update", 1),
        lambda: bare.put_high("item"),
        lambda: bare.forget_position(1),
        lambda: bare.pop_into([], 1),
        bare.pop,
        bare.full,
        bare.qsize,
        bare.has,
    ):
        with pytest.raises((TypeError, AttributeError, SystemError)):
            use()


# ── classes that must be refused ─────────────────────────────────────────────────────────────────────────────────


def wire_class(**changes: Any) -> Any:
    """A small class with the schema's face; ``changes`` are what attrs.define is told besides."""

    @attrs.define(**{"slots": True, "weakref_slot": False, **changes})
    class Made:
        one: int
        wire_fields: ClassVar = (WireField("one", "u64", required=True),)
        wire_aliases: ClassVar = {}
        null_is_default: ClassVar = False

    return Made


def test_a_small_class_is_accepted() -> None:
    made = _core.Decoder({"made": wire_class()}, None, DecodeError).decode('{"type":"made","one":5}')
    assert made.one == 5


@pytest.mark.parametrize("changes", [{"slots": False}, {"weakref_slot": True}])
def test_classes_with_more_than_slots_are_refused(changes: dict[str, bool]) -> None:
    """A dictionary or a weak reference list would be left unset."""
    with pytest.raises(TypeError, match="slotted class with exactly its wire fields"):
        _core.Decoder({"made": wire_class(**changes)}, None, DecodeError)


def test_other_misfits_are_refused() -> None:
    """Wrong counts, inherited slots, mutable defaults, unknown kinds and deep schemas are found at construction."""
    base = wire_class()

    def variant(**members: Any) -> Any:
        return type("Variant", (), {"__slots__": ("one",), "wire_aliases": {}, "null_is_default": False, **members})

    field = WireField("one", "u64", required=True)
    with pytest.raises(TypeError, match="exactly its wire fields"):
        _core.Decoder({"made": variant(wire_fields=())}, None, DecodeError)
    with pytest.raises(TypeError, match="exactly its wire fields"):
        _core.Decoder({"made": type("Heir", (base,), {"__slots__": ()})}, None, DecodeError)
    with pytest.raises(TypeError, match="immutable"):
        _core.Decoder({"made": variant(wire_fields=(field._replace(required=False, default=[]),))}, None, DecodeError)
    with pytest.raises(KeyError):
        _core.Decoder({"made": variant(wire_fields=(field._replace(kind="u128"),))}, None, DecodeError)
    with pytest.raises(TypeError, match="not a plain short field name"):
        _core.Decoder({"made": variant(wire_fields=(field._replace(name="o" * 65),))}, None, DecodeError)
    with pytest.raises(TypeError, match="not a type name"):
        _core.Decoder({'a"b': base}, None, DecodeError)
    deep: Any = base
    for _ in range(8):
        deep = variant(wire_fields=(field._replace(kind="object", cls=deep),))
    with pytest.raises(TypeError, match="deep"):
        _core.Decoder({"made": deep}, None, DecodeError)
    loop = variant(wire_fields=())
    loop.wire_fields = (field._replace(kind="object", cls=loop),)
    with pytest.raises(TypeError, match="deep"):
        _core.Decoder({"made": loop}, None, DecodeError)


def test_classes_may_be_shared_by_decoders() -> None:
    """Each decoder has its own plans; a nested class may stand in several."""
    first = _core.Decoder(SERVER_MESSAGES, None, DecodeError)
    second = _core.Decoder({"hello": HelloOk}, None, DecodeError)
    text = '{"type":"%s","session_id":1,"server_time_ms":2,"limits":{"hi_capacity":3,"pnl_flush_ms":4,"max_positions_per_session":5}}'
    expected = HelloOk(
        session_id=1, server_time_ms=2, limits=Limits(hi_capacity=3, pnl_flush_ms=4, max_positions_per_session=5)
    )
    assert first.decode(text % "hello_ok") == second.decode(text % "hello") == expected
