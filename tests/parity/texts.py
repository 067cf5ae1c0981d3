"""JSON texts for the decoders: made from the schema, with every kind of mistake, and broken at random."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

from lasersell_sync.messages import WireValue

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


# ── made from the schema ─────────────────────────────────────────────────────────────────────────────────────────

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


def sample(spec: Any) -> str:
    """One valid text of a field's kind."""
    if spec.kind == "object":
        return "{" + ",".join(f'"{inner.name}":{sample(inner)}' for inner in spec.cls.wire_fields) + "}"
    if spec.kind == "list":
        return "[" + sample(spec._replace(kind="object")) + "]"
    return {"str": '"s"', "bool": "true", "f64": "1.5", "str_list": '["s"]'}.get(spec.kind, "7")


# ── broken at random ─────────────────────────────────────────────────────────────────────────────────────────────

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
