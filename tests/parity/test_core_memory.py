"""The compiled core keeps its books: references, memory, the garbage collector, and classes it must refuse."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
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
from tests.parity.cores import compiled, decoder

_core = compiled()
ROOT = Path(__file__).parents[2]
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


def test_memory_stays_flat() -> None:
    """A million messages, good, bad and unknown, leave nothing behind."""
    program = """
import random, resource
from benchmarks import data
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = run(100)
for _ in range(9):
    last = run(100)
print(last - first)
"""
    grown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert grown.returncode == 0, grown.stderr
    assert int(grown.stdout) < 1024, f"{grown.stdout} KiB"


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
    seed = str(rand.randrange(10**9))
    done = subprocess.run(
        [sys.executable, "-c", program, seed], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"


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
