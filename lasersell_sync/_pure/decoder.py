"""JSON text to instances of the schema's classes: the reference decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lasersell_sync._pure import json_scan
from lasersell_sync._pure.json_scan import ScanError, expect, skip_space

__all__ = ["Decoder", "InstanceFactory"]


# ── Instances of slotted classes from the values of their slots ─────────────────────────────────────────────────────


class InstanceFactory:
    """Makes instances of ``cls`` from the values of the slots ``names``, in that order.

    No default, converter or validator is asked. The instances stay outside the garbage collector: nothing in them may
    ever refer to something mutable.

    Raises:
        TypeError: ``cls`` is not a slotted class with exactly these slots.

    Threads: any.
    """

    def __init__(self, cls: type, names: Sequence[str]) -> None:
        slots = {name for kind in cls.__mro__ for name in getattr(kind, "__slots__", ())}
        if slots != set(names) or len(set(names)) != len(names) or "__dict__" in dir(cls):
            raise TypeError(f"{cls.__name__} is not a slotted class with exactly the slots {', '.join(names)}")
        self._cls = cls
        # The slots' own descriptors: frozen classes refuse setattr.
        self._write = [getattr(cls, name).__set__ for name in names]

    def __call__(self, *values: Any) -> Any:
        """An instance; raises TypeError unless there is a value for each slot."""
        if len(values) != len(self._write):
            raise TypeError(f"{self._cls.__name__} has {len(self._write)} slots, and {len(values)} values were given")
        made: Any = object.__new__(self._cls)
        for write, value in zip(self._write, values, strict=True):
            write(made, value)
        return made


# ── JSON text to message objects, driven by the schema in the wire classes ──────────────────────────────────────────
# How a message is read, in both implementations: the text must be one object; its top level is searched for ``type``
# (the server writes it first; what stands before it is checked and passed over); then the whole object is read from
# its start into the class of that name. A message of an unknown type is read as a class without fields. So every text
# has exactly one first error, with one path and one offset.


_INTEGER_RANGES: Final = {
    "u64": (0, 2**64 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "u32": (0, 2**32 - 1),
    "u16": (0, 2**16 - 1),
    "u8": (0, 2**8 - 1),
}
_MAX_INTEGER_DIGITS: Final = 20
_WANTED: Final = {
    **dict.fromkeys(_INTEGER_RANGES, "a number"),
    "f64": "a number",
    "bool": "a boolean",
    "str": "a string",
    "object": "an object",
    "list": "an array",
    "str_list": "an array",
}
_SHOWN_TYPE_CHARACTERS: Final = 64


class _Field:
    """One field of a plan: its schema, and the writer of its slot."""

    __slots__ = ("accepts_one", "default", "kind", "name", "null_is_default", "plan", "required", "write")

    def __init__(self, cls: type, spec: Any) -> None:
        self.name: str = spec.name
        self.kind: str = spec.kind
        self.required: bool = spec.required
        self.default: object = spec.absent
        self.accepts_one: bool = spec.accepts_one
        # Absent and null mean the same for optional fields everywhere, and for all defaults in what the server writes.
        self.null_is_default = not spec.required and (spec.absent is None or bool(cls.null_is_default))  # type: ignore[attr-defined]
        self.plan = None if spec.cls is None else _Plan(spec.cls)
        # The slot's own descriptor: frozen classes refuse setattr.
        self.write: Callable[[object, object], None] = getattr(cls, spec.name).__set__


class _Plan:
    """How to read one class: its fields by every spelling, and in wire order."""

    __slots__ = ("by_name", "cls", "fields")

    def __init__(self, cls: type | None) -> None:
        self.cls = cls
        self.fields: list[_Field] = []
        self.by_name: dict[str, _Field] = {}
        if cls is not None:
            self.fields = [_Field(cls, spec) for spec in cls.wire_fields]  # type: ignore[attr-defined]
            self.by_name = {field.name: field for field in self.fields}
            self.by_name.update({old: self.by_name[name] for old, name in cls.wire_aliases.items()})  # type: ignore[attr-defined]


class Decoder:
    """Reads messages of the given classes.

    Args:
        classes: wire type name to attrs class; the class's ``wire_fields``, ``wire_aliases`` and ``null_is_default``
            are the schema.
        unknown: builds the object for a well-formed message of any other type from the type's name and the message's
            bytes; None makes such a message an error.
        error: what unreadable input raises, called with (reason, path, offset in bytes of the UTF-8 form).

    Threads: any; a decoder does not change after construction.
    """

    __slots__ = ("_plans", "_unknown", "error")

    def __init__(
        self,
        classes: Mapping[str, type],
        unknown: Callable[[str, bytes], object] | None,
        error: type[Exception],
    ) -> None:
        self._plans = {name: _Plan(cls) for name, cls in classes.items()}
        self._unknown = unknown
        #: What unreadable input raises.
        self.error = error

    def knows(self, cls: type) -> bool:
        """True for a class that is one of the messages."""
        return any(plan.cls is cls for plan in self._plans.values())

    def decode(self, data: str | bytes | bytearray | memoryview, /) -> object:
        """The message that ``data`` spells: JSON text, as str or as UTF-8 bytes.

        Returns:
            An instance of the class of the message's ``type``, or what ``unknown`` makes of it.

        Raises:
            DecodeError: (the ``error`` given) it cannot be read; ``path``, ``offset`` and ``reason`` say where and why.
            TypeError: ``data`` is of another type.

        Threads: any.
        """
        try:
            text = _utf8(data)
            return self._read_message(text)
        except ScanError as error:
            path = "$" + "".join(reversed(error.steps))
            reason, offset = error.reason, error.offset
        raise self.error(reason, path, offset)

    def _read_message(self, text: bytes) -> object:
        start = skip_space(text, 0)
        _check_kind(text, start, "an object")
        type_name, type_offset = _find_type(text, start)
        plan = self._plans.get(type_name)
        if plan is None and self._unknown is None:
            shown = repr(type_name[:_SHOWN_TYPE_CHARACTERS])
            raise _at_field("type", ScanError(f"unknown message type {shown}", type_offset))
        message, at = _read_object(text, start, plan or _Plan(None), 1)
        at = skip_space(text, at)
        if at < len(text):
            raise ScanError("text goes on after the message", at)
        if plan is None:
            assert self._unknown is not None  # refused above
            return self._unknown(type_name, text)
        return message


def _utf8(data: object) -> bytes:
    """The message's UTF-8 form; a copy of anything that another thread could change while we read."""
    if isinstance(data, str):
        try:
            return str.encode(data, "utf-8")  # not a subclass's own idea of it
        except UnicodeEncodeError as error:
            raise ScanError("lone surrogate", len(str.encode(data[: error.start], "utf-8"))) from None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return data if type(data) is bytes else memoryview(data).tobytes()
    raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(data).__name__}")


def _at_field(name: str, error: ScanError) -> ScanError:
    error.steps.append(f".{name}")
    return error


def _check_kind(text: bytes, at: int, wanted: str) -> None:
    found = json_scan.find_kind(text, at)
    if found != wanted:
        raise ScanError(f"expected {wanted}, found {found}", at)


def _read_key(text: bytes, at: int) -> tuple[str, int]:
    """A field's name, and the offset of its value."""
    expect(text, at, b'"', "expected a field name")
    key, at = json_scan.string(text, at)
    at = expect(text, skip_space(text, at), b":", "expected ':'")
    return key, skip_space(text, at)


def _find_type(text: bytes, start: int) -> tuple[str, int]:
    """The message's ``type`` and the offset of its value, wherever it stands in the object at ``start``."""
    at = skip_space(text, start + 1)
    more = text[at : at + 1] != b"}"
    while more:
        key, at = _read_key(text, at)
        if key == "type":
            try:
                _check_kind(text, at, "a string")
                return json_scan.string(text, at)[0], at
            except ScanError as error:
                raise _at_field("type", error) from None
        at = skip_space(text, json_scan.skip_value(text, at, 1))
        more = text[at : at + 1] != b"}"
        if more:
            at = skip_space(text, expect(text, at, b",", "expected ',' or '}'"))
    raise _at_field("type", ScanError("missing field", at))


def _read_object(text: bytes, at: int, plan: _Plan, depth: int) -> tuple[object, int]:
    """The object at ``at``, as an instance of the plan's class; ``depth`` is its own level, the message's is 1."""
    values: dict[str, object] = {}
    at = skip_space(text, at + 1)
    more = text[at : at + 1] != b"}"
    while more:
        key_offset = at
        key, at = _read_key(text, at)
        field = plan.by_name.get(key)
        name = key if field is None else field.name
        known = field is not None or (key == "type" and depth == 1)
        if known and name in values:
            raise _at_field(name, ScanError("duplicate field", key_offset))
        if field is None:
            at = json_scan.skip_value(text, at, depth)
            values.update({name: None} if known else {})
        else:
            try:
                values[name], at = _read_field(text, at, field, depth)
            except ScanError as error:
                raise _at_field(name, error) from None
        at = skip_space(text, at)
        more = text[at : at + 1] != b"}"
        if more:
            at = skip_space(text, expect(text, at, b",", "expected ',' or '}'"))
    return _build(plan, values, at), at + 1


def _build(plan: _Plan, values: dict[str, object], closing_brace: int) -> object:
    instance = None if plan.cls is None else object.__new__(plan.cls)
    for field in plan.fields:
        if field.name in values:
            field.write(instance, values[field.name])
        elif field.required:
            raise _at_field(field.name, ScanError("missing field", closing_brace))
        else:
            field.write(instance, field.default)
    return instance


def _read_field(text: bytes, at: int, field: _Field, depth: int) -> tuple[object, int]:
    found = json_scan.find_kind(text, at)
    if found == "null" and field.null_is_default:
        return field.default, json_scan.literal(text, at)[1]
    if found == "a string" and field.accepts_one:
        value, at = json_scan.string(text, at)
        return (value,), at
    _check_kind(text, at, _WANTED[field.kind])
    if field.kind in _INTEGER_RANGES:
        return _read_integer(text, at, field.kind)
    if field.kind == "f64":
        return _read_float(text, at)
    if field.kind == "str":
        return json_scan.string(text, at)
    if field.kind == "bool":
        return json_scan.literal(text, at)
    if field.plan is not None and field.kind == "object":
        return _read_object(text, at, field.plan, depth + 1)
    return _read_array(text, at, field.plan, depth + 1)


def _read_integer(text: bytes, at: int, kind: str) -> tuple[int, int]:
    """64 bits exactly: never through a float."""
    token, behind = json_scan.number(text, at)
    if not token.lstrip(b"-").isdigit():
        raise ScanError("expected an integer, found a fraction or exponent", at)
    if token == b"-0":
        raise ScanError("expected an integer, found -0", at)
    low, high = _INTEGER_RANGES[kind]
    # The length is asked first: int() of many digits is slow, and refuses more than 4300.
    if len(token) > _MAX_INTEGER_DIGITS or not low <= int(token) <= high:
        raise ScanError(f"out of range for {kind}", at)
    return int(token), behind


def _read_float(text: bytes, at: int) -> tuple[float, int]:
    token, behind = json_scan.number(text, at)
    value = float(token)
    if math.isinf(value):
        raise ScanError("number out of range", at)
    return value, behind


def _read_array(text: bytes, at: int, plan: _Plan | None, depth: int) -> tuple[tuple[object, ...], int]:
    """A tuple of the plan's objects, or of strings when there is no plan."""
    items: list[object] = []
    at = skip_space(text, at + 1)
    more = text[at : at + 1] != b"]"
    while more:
        try:
            if plan is None:
                _check_kind(text, at, "a string")
                item: object
                item, at = json_scan.string(text, at)
            else:
                _check_kind(text, at, "an object")
                item, at = _read_object(text, at, plan, depth + 1)
        except ScanError as error:
            error.steps.append(f"[{len(items)}]")
            raise
        items.append(item)
        at = skip_space(text, at)
        more = text[at : at + 1] != b"]"
        if more:
            at = skip_space(text, expect(text, at, b",", "expected ',' or ']'"))
    return tuple(items), at + 1
