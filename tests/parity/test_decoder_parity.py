"""The fallback is the specification: whatever the text, both decoders give the same value or the same error."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity import corpus
from tests.parity.cores import PURE, SIDES, compiled, decoder, outcome, scaled
from tests.parity.texts import EDGES, broken, objects, sample
from tests.support.examples import examples

_core = compiled()
DECODERS = {side: (decoder(PURE, side).decode, decoder(_core, side).decode) for side in SIDES}
BOUNDED = settings(max_examples=scaled(examples(150)), deadline=None, suppress_health_check=list(HealthCheck))


def agree(side: str, data: bytes | str) -> None:
    pure, fast = DECODERS[side]
    assert outcome(fast, data) == outcome(pure, data), data


# ── messages made from the schema ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", SIDES)
def test_messages_made_from_the_schema(side: str) -> None:
    """Every class, in and out of order, with every kind of mistake that a field can have."""

    @BOUNDED
    @given(st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(SIDES[side][0])))
        text = data.draw(objects(SIDES[side][0][name], name))
        agree(side, text)
        agree(side, text.encode("utf-8", "surrogatepass"))

    check()


@pytest.mark.parametrize("side", SIDES)
def test_every_edge_in_every_field(side: str) -> None:
    """Each edge text as the value of each field of each class, everything else as it should be."""
    for name, cls in SIDES[side][0].items():
        plain = {spec.name: sample(spec) for spec in cls.wire_fields}
        for field in plain:
            for edge in EDGES:
                pairs = [f'"{key}":{edge if key == field else text}' for key, text in plain.items()]
                agree(side, f'{{"type":"{name}",' + ",".join(pairs) + "}")


@pytest.mark.parametrize("pattern", ["9", "10", "09", "0", "123456789"])
def test_numbers_of_every_length_everywhere(pattern: str) -> None:
    """Up to more digits than any kind takes, with and without a sign and what cannot follow a number: in each field, at
    the text's beginning too, where the reader of digits must not step back, and with more or less text behind.
    """
    fields = ("position_id", "profit_units", "proceeds_units", "server_time_ms")
    for count in range(1, 23):
        for number in ((pattern * count)[:count], "-" + (pattern * count)[:count]):
            for behind in ("", ".", "e", "-", " ", "x", '"'):
                for field in fields:
                    values = [f'"{key}":{number + behind if key == field else 5}' for key in fields]
                    agree("server", '{"type":"pnl_update",' + ",".join(values) + "}")
                    agree("server", "{" + ",".join(values) + ',"type":"pnl_update"}' + " " * count)


def test_fields_that_come_again_out_of_order() -> None:
    """A field behind one that is out of order is expected next, and may have been there already: an error, and no leak."""
    fields = [f'"{name}":{2**40}' for name in ("position_id", "profit_units", "proceeds_units", "server_time_ms")]
    for order in itertools.product(fields, repeat=4):
        agree("server", '{"type":"pnl_update",' + ",".join((*order, *fields[:1])) + "}" + " " * 40)
        agree("server", '{"type":"pnl_update",' + ",".join(order) + "}")


# ── texts broken at random ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("side", SIDES)
def test_broken_corpus(side: str, rand: random.Random) -> None:
    """Accidents at random places of the corpus's messages."""
    texts = [case["data"] for case in corpus.cases() if case["side"] == side and len(case["data"]) < 3000]
    for _ in range(6000):
        agree(side, broken(rand, texts))


@pytest.mark.parametrize("side", SIDES)
def test_every_beginning_and_every_lost_byte(side: str) -> None:
    """A valid message of each type, cut after every byte, and with every single byte left out."""
    for name, cls in SIDES[side][0].items():
        pairs = [f'"{spec.name}":{sample(spec)}' for spec in cls.wire_fields]
        text = (f'{{"type":"{name}",' + ", ".join(pairs) + "}").encode()
        for at in range(len(text) + 1):
            agree(side, text[:at])
            agree(side, text[:at] + text[at + 1 :])


def test_strings_of_every_length() -> None:
    """Word-sized steps end at every remainder, and so does the table of short strings."""
    for size in range(70):
        for text in ("a" * size, "a" * size + "é", "é" + "a" * size, "\\n" + "a" * size, "a" * size + "\x01"):
            agree("server", f'{{"type":"error","code":"{text}","message":"{text}"}}')
            agree("server", f'{{"type":"error","code":"{text}","message":"{text}')


def test_numbers_of_every_length_and_distance_from_the_end() -> None:
    """The wide reader of digits works up to the text's last byte, and not beyond it."""
    for digits in range(1, 24):
        for first in "123456789":
            number = first + "0123456789012345678901234"[: digits - 1]
            for behind in ("}", " }", ",}", ',"x":1}', "", "x", ".", "e", "-", ".5}", "e5}"):
                agree("server", f'{{"type":"pong","server_time_ms":{number}{behind}')
                agree("server", f'{{"type":"pong","server_time_ms":-{number}{behind}')
                agree(
                    "client", f'{{"type":"update_strategy","strategy":{{"target_profit_pct":{number}.{number}{behind}'
                )
                agree("client", f'{{"type":"update_strategy","strategy":{{"stop_loss_pct":-0.{number}{behind}')


@BOUNDED
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 25))
def test_floats_are_correctly_rounded(value: float, digits: int) -> None:
    """Both read exactly what Python's own float() reads, however many digits there are."""
    for text in (repr(value), f"{value:.{digits}e}", f"{value:.{digits}g}"):
        agree("client", f'{{"type":"update_strategy","strategy":{{"target_profit_pct":{text},"stop_loss_pct":1}}}}')
        if not math.isinf(float(text)):
            message = DECODERS["client"][1](
                f'{{"type":"update_strategy","strategy":{{"target_profit_pct":{text},"stop_loss_pct":1}}}}'
            )
            assert message.strategy.target_profit_pct.hex() == float(text).hex()


@BOUNDED
@given(st.integers(-(2**70), 2**70) | st.integers(-(2**32), 2**32))
def test_integers_are_exact(value: int) -> None:
    """Every 64-bit value is read as it is written; everything beyond is refused."""
    for kind, field in (("pong", "server_time_ms"), ("mirror_wallet_auto_disabled", "loss_count")):
        agree("server", f'{{"type":"{kind}","watched_wallet":"w","reason":"r","{field}":{value}}}')
    text = f'{{"type":"pnl_update","position_id":1,"profit_units":{value},"proceeds_units":1,"server_time_ms":1}}'
    agree("server", text)
    if -(2**63) <= value < 2**63:
        assert DECODERS["server"][1](text).profit_units == value


@BOUNDED
@given(st.text(st.characters(), max_size=40))
def test_any_str(text: str) -> None:
    """A str, with lone surrogates too, gives the same as its bytes would, or the same error."""
    agree("server", text)
    agree("server", f'{{"type":"error","code":"{text}","message":"m"}}')


@pytest.mark.parametrize("data", [None, 1, 1.5, [], {}, object(), ["{}"]])
def test_other_arguments_are_a_type_error(data: object) -> None:
    """The error names what is accepted, in the same words."""
    texts = []
    for decode in DECODERS["server"]:
        with pytest.raises(TypeError, match="str, bytes, bytearray or memoryview") as caught:
            decode(data)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_every_form_of_argument() -> None:
    """bytes, bytearray, memoryview (strided too), str and their subclasses read alike; unknown keeps the bytes."""

    class Text(str):
        pass

    class Octets(bytes):
        pass

    text = '{"type":"né","a":1}'
    raw = text.encode()
    strided = memoryview(b"".join(bytes([byte, 0]) for byte in raw))[::2]
    forms: list[object] = [text, Text(text), raw, Octets(raw), bytearray(raw), memoryview(raw), strided]
    results = [outcome(decode, form) for form in forms for decode in DECODERS["server"]]
    assert len({repr(result) for result in results}) == 1
    assert DECODERS["server"][1](raw).raw is raw
