"""The pipeline: from bytes to messages, control frames and events; both makes do what the parts do one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasersell_sync.codec import server_message_to_text
from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import SERVER_MESSAGES, PnlUpdate, UnknownMessage
from tests.parity.cores import compiled, core, cores, scaled, shape
from tests.parity.routing import Rig, liquidity, pnl, tick
from tests.parity.streams import STREAMS, cuts, frame, random_stream
from tests.parity.texts import broken, objects
from tests.support.examples import examples

compiled()
BOTH = ("_pure", "_core")
each_core = pytest.mark.parametrize("name", cores())
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Ear:
    """Hears everything that a pipeline tells, in order; ``bad`` makes it raise when told of that kind."""

    def __init__(self, bad: str | None = None) -> None:
        self.log: list[Any] = []
        self.bad = bad

    def _told(self, kind: str, *what: Any) -> None:
        self.log.append((kind, *what))
        if kind == self.bad:
            raise KeyError(kind)

    def message(self, message: Any, received_ns: int) -> None:
        self._told("message", shape(message), received_ns)

    def frame(self, opcode: int, payload: bytes) -> None:
        self._told("frame", opcode, type(payload), payload)

    def unreadable(self, error: DecodeError, payload: bytes) -> None:
        self._told("unreadable", type(error), error.reason, error.path, error.offset, type(payload), payload)

    def tap(self, payload: bytes, received_ns: int) -> None:
        self._told("tap", type(payload), payload, received_ns)


class Rigged:
    """A pipeline of one core with an ear, and a rig whose router it may use."""

    def __init__(
        self, name: str, *, bad: str | None = None, tapped: bool = False, max_message_bytes: int = 2**24, **rig: Any
    ):
        module = core(name)
        self.ear = Ear(bad)
        self.rig = Rig(name, **rig)
        self.parser = module.FrameParser(max_message_bytes)
        self.pipeline = self.make(module)
        self.pipeline.tap = self.ear.tap if tapped else None

    def make(self, module: Any) -> Any:
        return module.MessagePipeline(
            self.parser,
            self.rig.decoder,
            on_message=self.ear.message,
            on_frame=self.ear.frame,
            on_unreadable=self.ear.unreadable,
        )

    def told(self) -> Any:
        """All that came of the bytes so far."""
        pipeline = self.pipeline
        return (
            self.ear.log,
            self.rig.state(),
            pipeline.frames,
            pipeline.messages,
            self.parser.failure,
            self.parser.buffered_bytes,
        )


class ByHand:
    """A pipeline made of a parser, a decoder and a router, in plain steps."""

    def __init__(self, rigged: Rigged) -> None:
        self._rigged = rigged
        self.tap: Callable[[bytes, int], None] | None = None
        self.frames = self.messages = 0

    def feed(self, data: bytes, received_ns: int, router: Any = None) -> None:
        ear = self._rigged.ear
        for opcode, payload in self._rigged.parser.feed(data):
            self.frames += 1
            if opcode != TEXT:
                ear.frame(opcode, payload)
                continue
            if self.tap is not None:
                self.tap(payload, received_ns)
            try:
                message = self._rigged.rig.decoder.decode(payload)
            except DecodeError as error:
                ear.unreadable(error, payload)
                continue
            if router is None or not router.take(message, received_ns):
                ear.message(message, received_ns)
            self.messages += 1


class RiggedByHand(Rigged):
    def make(self, module: Any) -> Any:
        return ByHand(self)


def feed(rigged: Rigged, pieces: list[bytes], *, routed: bool, count_pieces: bool = True) -> Any:
    """Everything that came of the pieces, and what waits in the lanes."""
    for number, piece in enumerate(pieces):
        rigged.pipeline.feed(piece, number if count_pieces else 7, rigged.rig.router if routed else None)
    return rigged.told(), rigged.rig.drained()


def text(message: Any) -> bytes:
    return server_message_to_text(message).encode()


def in_parts(opcode: int, payload: bytes, *sizes: int, between: bytes = b"") -> bytes:
    """A message in fragments of these sizes and a last one, with other frames between them."""
    out, at = b"", 0
    for size in sizes:
        out += frame(opcode if at == 0 and out == b"" else 0, payload[at : at + size], fin=False) + between
        at += size
    return out + frame(0, payload[at:])


def test_what_follows_a_text_is_no_part_of_it() -> None:
    """A text may be cut anywhere and what would complete it follow: wide loads see it, the message never does."""
    for message in (pnl(1, -(2**41)), tick(2, 12345), liquidity(3, 7)):
        whole = text(message)
        for at in range(len(whole)):
            for missing in (1, 2, 20):
                stream = frame(TEXT, whole[:at]) + whole[at + missing :] + b" " * 40
                told = []
                for name in BOTH:
                    rigged = Rigged(name)
                    told.append(feed(rigged, [stream], routed=True))
                assert told[0] == told[1]
                assert [entry[0] for entry in told[1][0][0]][:1] == ["unreadable"]


def test_the_last_text_of_a_read_is_read_as_any_other() -> None:
    """Behind it nothing may be touched, however short what is left of it: as the tail of a buffer, and as bytes."""
    for message in (pnl(1, -(2**41)), tick(2, 12345), liquidity(3, 7)):
        whole = text(message)
        for trimmed in (whole, whole[:-1] + b" }", whole.replace(b",", b" , ").replace(b":", b" :  ")):
            for count in (1, 2, 3):
                told = [feed(Rigged(name), [frame(TEXT, trimmed) * count], routed=False) for name in BOTH]
                assert told[0] == told[1]
                assert [entry[0] for entry in told[1][0][0]] == ["message"] * count


ROUND = {
    "frequent": b"".join(frame(TEXT, text(message)) for message in (pnl(1), tick(1), pnl(9), liquidity(2), pnl(1, 5))),
    "rare": frame(TEXT, b'{"type":"error","code":"c","message":"m"}') + frame(TEXT, text(pnl(1))),
    "unknown": frame(TEXT, b'{"type":"unheard_of","a":[1]}') + frame(TEXT, b' {"a":1,"type":"unheard_of"}'),
    "unreadable": b"".join(
        frame(TEXT, bad)
        for bad in (b"", b"{", b"[]", b'{"type":"pnl_update"}', b'{"type":"pong","server_time_ms":-1}', "é".encode())
    ) + frame(TEXT, text(pnl(1))),
    "control between": frame(PING, b"a") + frame(TEXT, text(pnl(1))) + frame(PONG) + frame(TEXT, text(pnl(2))) + frame(PING),
    "fragments": in_parts(TEXT, text(pnl(1)), 5, 0, 20, between=frame(PING, b"inside")) + frame(TEXT, text(pnl(1, 2))),
    "binary": frame(BINARY, text(pnl(1))) + in_parts(BINARY, b"\xff\x00", 1),
    "close": frame(TEXT, text(pnl(1))) + frame(CLOSE, b"\x03\xe8bye") + frame(TEXT, text(pnl(2))),
    "violation": frame(TEXT, text(pnl(1))) + frame(TEXT, text(pnl(2)), masked=True) + frame(TEXT, text(pnl(3))),
    "bad utf-8": frame(TEXT, text(pnl(1))) + frame(TEXT, b'{"type":"\xff"}') + frame(TEXT, text(pnl(3))),
}  # fmt: skip


# ── however the link cuts the bytes ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("routed", [True, False])
@pytest.mark.parametrize("stream", ROUND)
def test_cut_at_every_byte(stream: str, routed: bool) -> None:
    """One piece, single bytes, or two pieces cut anywhere: the same comes out, of both makes."""
    whole = feed(RiggedByHand("_pure", tapped=True), [ROUND[stream]], routed=routed, count_pieces=False)
    for pieces in cuts(ROUND[stream]):
        for name in BOTH:
            assert feed(Rigged(name, tapped=True), pieces, routed=routed, count_pieces=False) == whole


@pytest.mark.parametrize("stream", STREAMS)
def test_frames_as_the_parser_alone_gives_them(stream: str) -> None:
    """Right and wrong frames of every kind: opcode, payload, failure and rest."""
    whole = feed(RiggedByHand("_pure"), [STREAMS[stream]], routed=True, count_pieces=False)
    for pieces in cuts(STREAMS[stream]):
        for name in BOTH:
            assert feed(Rigged(name), pieces, routed=True, count_pieces=False) == whole


def test_random_streams_in_random_pieces(rand: random.Random) -> None:
    """Long frames and wrong ones in the middle of messages, in pieces of any size."""
    for _ in range(100):
        data = bytearray(random_stream(rand, flip=True))
        for _ in range(rand.randrange(4)):
            at = rand.randrange(len(data) + 1)
            data[at:at] = frame(TEXT, text(pnl(rand.randrange(8), rand.randrange(9))))
        pieces, at = [], 0
        while at < len(data):
            size = rand.choice((1, 2, 100, 5000, 100_000))
            pieces.append(bytes(data[at : at + size]))
            at += size
        bound = rand.choice((200, 70_000, 2**24))
        results = [
            feed(kind(name, max_message_bytes=bound, tapped=True), pieces, routed=True)
            for kind in (Rigged, RiggedByHand)
            for name in BOTH
        ]
        assert all(result == results[0] for result in results)


# ── any messages ─────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def wires(draw: st.DrawFn) -> list[bytes]:
    """A session's bytes in pieces: messages of every kind, good and bad, whole and in fragments, control frames between."""
    out = bytearray()
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from("fffmmucp"))
        if kind == "f":
            make = draw(st.sampled_from([pnl, tick, liquidity]))
            payload = text(make(draw(st.integers(0, 7)), draw(st.integers(0, 9))))
        elif kind == "m":
            name = draw(st.sampled_from(sorted(SERVER_MESSAGES)))
            payload = draw(objects(SERVER_MESSAGES[name], name)).encode("utf-8", "surrogatepass")
        elif kind == "u":
            payload = broken(random.Random(draw(st.integers(0, 2**32))), [text(pnl(1)), text(liquidity(2))])
        else:
            payload = draw(st.binary(max_size=125))
            out += frame(draw(st.sampled_from([PING, PONG])) if kind == "c" else BINARY, payload)
            continue
        sizes = draw(st.lists(st.integers(0, 40), max_size=3))
        between = frame(PING, b"inside") if draw(st.booleans()) else b""
        out += in_parts(TEXT, payload, *sizes, between=between) if sizes else frame(TEXT, payload)
    places = sorted(draw(st.lists(st.integers(0, len(out)), max_size=8)))
    return [bytes(out[a:b]) for a, b in zip([0, *places], [*places, len(out)], strict=True)]


@settings(max_examples=scaled(examples(60)), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    wires(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["conflate", "drop_oldest", "lossless"]),
    st.sampled_from([2, 1000]),
    st.booleans(),
)
def test_any_session(
    pieces: list[bytes], routed: bool, bare: bool, tapped: bool, policy: str, low_capacity: int, inline: bool
) -> None:
    """MessagePipeline of either make, or parser, decoder and router by hand: the same messages, frames, errors, events, counts."""
    results = []
    for kind in (RiggedByHand, Rigged):
        for name in BOTH:
            rigged = kind(name, bare=bare, tapped=tapped, policy=policy, low_capacity=low_capacity)
            if inline:
                rigged.rig.router.handlers = {"pnl_update": (rigged.rig.handler("inline"),)}
            results.append(feed(rigged, pieces, routed=routed))
    for result in results[1:]:
        assert result == results[0]


# ── what callbacks do ────────────────────────────────────────────────────────────────────────────────────────────

EVERYTHING = (
    frame(TEXT, text(pnl(1)))
    + frame(TEXT, b'{"type":"error","code":"c","message":"m"}')
    + frame(PING, b"ping")
    + frame(TEXT, b"{")
    + frame(TEXT, b'{"type":"error","code":"d","message":"m"}')
)


@each_core
@pytest.mark.parametrize("bad", ["message", "frame", "unreadable", "tap"])
def test_a_callback_that_raises_ends_the_feed(name: str, bad: str) -> None:
    """What it raised comes out as it is; nothing after it is told; the bytes are let go of."""
    expected = Rigged(name, tapped=True)
    expected.pipeline.feed(EVERYTHING, 1)
    log = expected.ear.log
    up_to = [entry[0] for entry in log].index(bad) + 1

    rigged = Rigged(name, bad=bad, tapped=True)
    data = bytearray(EVERYTHING)
    with pytest.raises(KeyError, match=bad) as caught:
        rigged.pipeline.feed(data, 1)
    assert rigged.ear.log == log[:up_to]
    assert rigged.pipeline.frames == sum(entry[0] == "tap" or entry[0] == "frame" for entry in log[:up_to])
    data.extend(b"a view of it would forbid this")
    if bad == "unreadable":
        assert isinstance(caught.value.__context__, DecodeError)


@each_core
def test_a_handlers_error_that_nobody_keeps_ends_the_feed(name: str) -> None:
    """KeyboardInterrupt in an inline handler reaches whoever reads."""

    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    def raise_again(handler: Any, event: Any, error: BaseException) -> None:
        raise error

    rigged = Rigged(name, on_error=raise_again)
    rigged.rig.router.handlers = {"pnl_update": (interrupt,)}
    with pytest.raises(KeyboardInterrupt):
        rigged.pipeline.feed(EVERYTHING, 1, rigged.rig.router)
    assert rigged.pipeline.messages == 0
    assert rigged.ear.log == []


@each_core
def test_only_the_decoders_own_error_is_an_unreadable_text(name: str) -> None:
    """Another one, from whoever builds unknown messages, is a bug to be seen."""
    module = core(name)

    def unknown(kind: str, raw: bytes) -> object:
        raise ZeroDivisionError(kind)

    ear = Ear()
    pipeline = module.MessagePipeline(
        module.FrameParser(), module.Decoder({"pnl_update": PnlUpdate}, unknown, DecodeError),
        on_message=ear.message, on_frame=ear.frame, on_unreadable=ear.unreadable,
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError, match="new"):
        pipeline.feed(frame(TEXT, b'{"type":"new"}'), 1)
    assert ear.log == []
    assert (pipeline.frames, pipeline.messages) == (1, 0)


@each_core
def test_unknown_messages_go_to_others_with_their_bytes(name: str) -> None:
    """Never to the router, and the bytes are theirs to keep."""
    rigged = Rigged(name)
    data = bytearray(frame(TEXT, b'{"type":"unheard_of"}'))
    rigged.pipeline.feed(data, 1, rigged.rig.router)
    data[:] = bytes(len(data))
    assert rigged.ear.log == [("message", shape(UnknownMessage("unheard_of", b'{"type":"unheard_of"}')), 1)]


@each_core
def test_the_tap_hears_every_text_first(name: str) -> None:
    """Before it is read, readable or not, taken or not; and only as long as it is there."""
    rigged = Rigged(name)
    heard: list[Any] = []

    def tap(payload: bytes, received_ns: int) -> None:
        heard.append((payload, received_ns, rigged.pipeline.messages, rigged.rig.lanes.qsize(), len(rigged.ear.log)))

    rigged.pipeline.tap = tap
    assert rigged.pipeline.tap is tap
    rigged.pipeline.feed(EVERYTHING, 5, rigged.rig.router)
    rigged.pipeline.tap = None
    rigged.pipeline.feed(EVERYTHING, 6, rigged.rig.router)
    error = b'{"type":"error","code":"%s","message":"m"}'
    assert heard == [
        (text(pnl(1)), 5, 0, 0, 0),
        (error % b"c", 5, 1, 1, 0),
        (b"{", 5, 2, 1, 2),
        (error % b"d", 5, 2, 1, 3),
    ]


@each_core
def test_a_router_may_come_and_go(name: str) -> None:
    """The next feed asks the router that it is given; half a message may have come before."""
    rigged = Rigged(name)
    data = frame(TEXT, text(pnl(1)))
    rigged.pipeline.feed(data + data[:9], 1)
    rigged.pipeline.feed(data[9:] + data, 2, rigged.rig.router)
    rigged.pipeline.feed(data, 3, None)
    assert rigged.ear.log == [("message", shape(pnl(1)), 1), ("message", shape(pnl(1)), 3)]
    assert rigged.rig.lanes.conflated == 1
    with pytest.raises((TypeError, AttributeError)):
        rigged.pipeline.feed(data, 4, "router")


@each_core
def test_a_violation_stops_everything(name: str) -> None:
    """What came before it was told; nothing follows, whatever more is fed."""
    rigged = Rigged(name)
    rigged.pipeline.feed(ROUND["violation"], 1)
    assert rigged.parser.failure == (1002, "masked frame from a server")
    log = list(rigged.ear.log)
    assert log == [("message", shape(pnl(1)), 1)]
    rigged.pipeline.feed(EVERYTHING, 2)
    assert rigged.ear.log == log
    assert rigged.pipeline.frames == 1


@each_core
def test_every_form_of_bytes(name: str) -> None:
    """bytes, bytearray, memoryview; one with gaps is refused, and so is what holds no bytes."""
    data = frame(TEXT, text(pnl(1)))
    rigged = Rigged(name)
    for number, form in enumerate((data, bytearray(data), memoryview(data), memoryview(bytearray(data))[:])):
        rigged.pipeline.feed(form, number)
    rigged.pipeline.feed(b"", 9)
    assert rigged.ear.log == [("message", shape(pnl(1)), number) for number in range(4)]
    with pytest.raises(BufferError):
        rigged.pipeline.feed(memoryview(data)[::2], 5)
    with pytest.raises(TypeError):
        rigged.pipeline.feed("text", 6)
    rigged.pipeline.feed(data, 7)
    assert rigged.ear.log[4:] == [("message", shape(pnl(1)), 7)]


@each_core
def test_messages_of_more_classes_than_can_be_routed(name: str) -> None:
    """Those beyond the router's table are for others; nothing beside the table is looked at."""
    module = core(name)
    classes = {f"kind_{number}": wire_copy(number) for number in range(40)}
    reader = module.Decoder(classes, None, DecodeError)
    lanes = module.Lanes((), 100, 100)
    router = module.EventRouter(reader, {classes["kind_0"]: ("kind_0", None)}, "position_id", lanes)
    told: list[Any] = []
    pipeline = module.MessagePipeline(
        module.FrameParser(), reader, on_message=lambda message, _: told.append(type(message)),
        on_frame=print, on_unreadable=print,
    )  # fmt: skip
    for kind in classes:
        pipeline.feed(frame(TEXT, text(pnl(1)).replace(b"pnl_update", kind.encode())), 1, router)
    assert lanes.qsize() == 1
    assert told == list(classes.values())[1:]


def wire_copy(number: int) -> Any:
    """Another class with PnlUpdate's fields."""
    members = {"__slots__": PnlUpdate.wire_names, **{
        name: getattr(PnlUpdate, name) for name in ("wire_fields", "wire_aliases", "wire_names", "null_is_default")
    }}  # fmt: skip
    return type(f"Kind{number}", (), members)


def test_a_router_of_another_decoder_takes_nothing() -> None:
    """Its table was made for other classes: the compiled loop must not look at one through the other."""
    rigged = Rigged("_core")
    rigged.pipeline.feed(frame(TEXT, text(pnl(1))), 1, Rig("_core").router)
    assert rigged.ear.log == [("message", shape(pnl(1)), 1)]
