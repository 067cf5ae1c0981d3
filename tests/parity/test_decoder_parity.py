"""The twin is the specification: whatever the text, both decoders give the same value or the same error."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasersell_sync.messages import WireValue
from tests.parity import corpus
from tests.parity.cores import PURE, SIDES, compiled, decoder, outcome

_core = compiled()
DECODERS = {side: (decoder(PURE, side).decode, decoder(_core, side).decode) for side in SIDES}
BOUNDED = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

#: Texts that stand where a value is expected: the edges of every kind, and what is not JSON at all.
EDGES = (
    *("0", "-0", "00", "01", "-1", "1.0", "1.", ".5", "1e3", "1E+2", "1e", "1e400", "-1e400", "1e-400", "+1", "0x1"),
    *("255", "256", "65535", "65536", "4294967295", "4294967296", "9007199254740993", "9999999999999999"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *("18446744073709551615", "18446744073709551616", "99999999999999999999", "1" * 25, "1" * 400, "-" + "9" * 400),
    *("1.7976931348623157e308", "1.7976931348623159e308", "179769313486231580793e289", "0." + "0" * 400 + "1e400"),
    *("2.2250738585072011e-308", "5e-324", "0.1", "100.00", "12.5", "123456789012345.6", "0.30000000000000004"),
    *("null", "true", "false", "nul", "tru", "NaN", "Infinity", "{}", "[]", "[[]]", '{"a":1}', "[1,2]", "[1,]", '{"a":1,}'),
    *('""', '"x"', '"\\u0041"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00\\ud83d"', '"é🚀"', '"\\x"', '"a\nb"', '"a', "'a'"),
    *('"' + "k" * 44 + '"', '"' + "k" * 45 + '"', '"\\' + '"', '"tab\\t"', "[" * 126 + "]" * 126, "[" * 127 + "]" * 127),
)  # fmt: skip


def agree(side: str, data: bytes | str) -> None:
    pure, fast = DECODERS[side]
    assert outcome(fast, data) == outcome(pure, data), data


# ── messages made from the schema ────────────────────────────────────────────────────────────────────────────────

_BOUNDS = {
    "u64": (0, 2**64 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "u32": (0, 2**32 - 1),
    "u16": (0, 2**16 - 1),
    "u8": (0, 255),
}
_texts = st.text(max_size=12) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZ", min_size=40, max_size=48)


def values(spec: Any) -> st.SearchStrategy[str]:
    """Valid texts of a field's kind."""
    if spec.kind in _BOUNDS:
        low, high = _BOUNDS[spec.kind]
        return st.integers(low, high).map(str)
    if spec.kind == "f64":
        floats = st.floats(allow_nan=False, allow_infinity=False).map(repr)
        return floats | st.integers(-(10**18), 10**18).map(str) | st.decimals(-1000, 1000, places=3).map(str)
    if spec.kind == "bool":
        return st.sampled_from(["true", "false"])
    if spec.kind == "object":
        return objects(spec.cls)
    if spec.kind == "list":
        return st.lists(objects(spec.cls), max_size=20).map(lambda items: "[" + ", ".join(items) + "]")
    strings = st.builds(lambda text, ascii_only: json.dumps(text, ensure_ascii=ascii_only), _texts, st.booleans())
    if spec.kind == "str_list":
        return strings | st.lists(strings, max_size=20).map(lambda items: "[" + ",".join(items) + "]")
    return strings


@st.composite
def objects(draw: st.DrawFn, cls: type[WireValue], type_name: str | None = None) -> str:
    """An object of the class: mostly valid, at times with a field missing, null, twice, foreign, or of any content."""
    fields = [("type", json.dumps(type_name))] if type_name is not None else []
    for spec in cls.wire_fields:
        fate = draw(st.sampled_from("vvvvvvvvvvvvvvvvane"))
        if fate == "v":
            fields.append((spec.name, draw(values(spec))))
        elif fate == "n":
            fields.append((spec.name, "null"))
        elif fate == "e":
            fields.append((spec.name, draw(st.sampled_from(EDGES))))
    twist = draw(st.sampled_from(["none"] * 6 + ["shuffle", "foreign", "twice", "alias", "escape"]))
    if twist == "shuffle":
        fields = draw(st.permutations(fields))
    elif twist == "foreign":
        fields.insert(draw(st.integers(0, len(fields))), (draw(_texts), draw(st.sampled_from(EDGES))))
    elif twist == "twice" and fields:
        fields.append(draw(st.sampled_from(fields)))
    elif twist == "alias":
        fields += [(old, '["x"]') for old in cls.wire_aliases]
    keys = [json.dumps(name) if twist != "escape" else escaped(name) for name, _ in fields]
    space = draw(st.sampled_from(["", "", "", " ", "\n\t", "\r\n  "]))
    inner = f"{space},{space}".join(f"{key}{space}:{space}{text}" for key, (_, text) in zip(keys, fields, strict=True))
    return f"{space}{{{space}{inner}{space}}}{space}" if type_name is not None else f"{{{space}{inner}{space}}}"


def escaped(name: str) -> str:
    return '"' + "".join(f"\\u{ord(letter):04x}" for letter in name if ord(letter) < 0x10000) + '"'


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


def sample(spec: Any) -> str:
    """One valid text of a field's kind."""
    if spec.kind == "object":
        return "{" + ",".join(f'"{inner.name}":{sample(inner)}' for inner in spec.cls.wire_fields) + "}"
    if spec.kind == "list":
        return "[" + sample(spec._replace(kind="object")) + "]"
    return {"str": '"s"', "bool": "true", "f64": "1.5", "str_list": '["s"]'}.get(spec.kind, "7")


# ── texts broken at random ───────────────────────────────────────────────────────────────────────────────────────

TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"null", b"true", b"0", b"-", b".", b"e", b" ", b"\n"),
    *(b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\\ud800"),
    *(b'"type":', b'"type":"pong",', b'"watched":true,', b"99999999999999999999", b"1e999"),
)  # fmt: skip


def broken(rand: random.Random, texts: list[bytes]) -> bytes:
    """One of the texts with one to four accidents."""
    text = bytearray(rand.choice(texts))
    for _ in range(rand.choice((1, 1, 1, 2, 4))):
        at = rand.randrange(len(text) + 1)
        accident = rand.randrange(6)
        if accident == 0:
            text[at : at + 1] = bytes([rand.randrange(256)])
        elif accident == 1:
            del text[at : at + rand.choice((1, 1, 2, 8, 40))]
        elif accident == 2:
            text[at:at] = rand.choice(TOKENS)
        elif accident == 3:
            del text[at:]
        elif accident == 4:
            other = rand.choice(texts)
            text[at:] = other[rand.randrange(len(other) + 1) :]
        else:
            text[at : at + 1] = rand.choice(TOKENS)
    return bytes(text)


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
