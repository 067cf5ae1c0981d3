"""JSON text to messages and back: reading is the decoding core's work, writing and its checks are here.

Both directions are driven by the schema in ``messages``. The wire classes have no validators, so what is to be sent
is checked when it becomes text: kinds, ranges, and the right class for every object.

Threads: any, everywhere in this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, cast

from lasersell_sync import _backend
from lasersell_sync.exceptions import ConfigurationError, DecodeError
from lasersell_sync.messages import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    ClientMessage,
    ServerMessage,
    UnknownMessage,
    WireField,
    WireValue,
)

__all__ = [
    "SERVER_DECODER",
    "backend",
    "client_message_from_text",
    "client_message_to_text",
    "message_to_dict",
    "server_message_from_text",
    "server_message_to_text",
]

_Text: TypeAlias = str | bytes | bytearray | memoryview


def backend() -> Literal["compiled", "pure"]:
    """Which decoding core runs: ``"compiled"`` or, without a C compiler or by ``LASERSELL_PURE=1``, ``"pure"``."""
    return _backend.NAME


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

#: Reads what the server sends; the pump uses it without the function below.
SERVER_DECODER: Final = _backend.Decoder(SERVER_MESSAGES, UnknownMessage, DecodeError)
# The decoder's own method, not a function around it: another call would cost a third of a small message's time.
# Takes the text positionally (str, bytes, bytearray or memoryview); raises DecodeError, or TypeError for another type.
server_message_from_text: Final = cast("Callable[[_Text], ServerMessage]", SERVER_DECODER.decode)
client_message_from_text: Final = cast(
    "Callable[[_Text], ClientMessage]", _backend.Decoder(CLIENT_MESSAGES, None, DecodeError).decode
)

# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def server_message_to_text(message: ServerMessage) -> str:
    """The JSON text of a server message, compact, as the server writes it; an ``UnknownMessage`` as it came.

    Raises:
        ConfigurationError: a value that the wire cannot carry; names the field.
        TypeError: not a server message.

    Threads: any.
    """
    if isinstance(message, UnknownMessage):
        return _unknown_text(message)
    return _dumps(_checked_message(message, SERVER_MESSAGES, "server"))


def client_message_to_text(message: ClientMessage) -> str:
    """The JSON text of a client message, compact, ready to be sent.

    Raises:
        ConfigurationError: a value that the wire cannot carry; names the field (``strategy.stop_loss_pct``).
        TypeError: not a client message.

    Threads: any.
    """
    return _dumps(_checked_message(message, CLIENT_MESSAGES, "client"))


def message_to_dict(message: ServerMessage | ClientMessage) -> dict[str, Any]:
    """What ``json.loads`` makes of the message's text: ``type`` first, then the fields in wire order.

    Absent optionals, a false ``watched`` and empty optional lists are left out; defaults that are always written are
    there. Arrays are lists.

    Raises:
        ConfigurationError: a value that the wire cannot carry; names the field.
        TypeError: not a message.

    Threads: any.
    """
    if isinstance(message, UnknownMessage):
        return cast("dict[str, Any]", json.loads(_unknown_text(message)))
    return _checked_message(message, _ALL_MESSAGES, "server or client")


_ALL_MESSAGES: Final[dict[str, type[WireValue]]] = {**SERVER_MESSAGES, **CLIENT_MESSAGES}


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _unknown_text(message: UnknownMessage) -> str:
    try:
        return bytes(message.raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError("raw", f"is not UTF-8 ({error}); give the bytes as they were received") from error


def _checked_message(message: object, classes: Mapping[str, type[WireValue]], side: str) -> dict[str, Any]:
    cls = type(message)
    if cls not in classes.values():
        raise TypeError(f"{cls.__name__} is not a {side} message")
    assert isinstance(message, WireValue)  # the table holds nothing else
    return {"type": cls.type, **_checked_object(message, "")}  # type: ignore[attr-defined]


def _checked_object(value: WireValue, prefix: str) -> dict[str, Any]:
    """The object's fields, checked; ``prefix`` is its own place in the message, with a dot (``strategy.``)."""
    out: dict[str, Any] = {}
    for spec in value.wire_fields:
        item = getattr(value, spec.name)
        if item is None and not spec.required and spec.default is None:
            continue
        item = _CHECKS[spec.kind](item, f"{prefix}{spec.name}", spec)
        if spec.omit_default and item in (spec.default, []):
            continue
        out[spec.name] = item
    return out


# A check takes the value, its place in the message and its schema, and returns what json.dumps shall write. Values of
# subclasses (enums of str or int) become the plain value.


def _refuse(value: object, path: str, remedy: str) -> ConfigurationError:
    shown = repr(value)
    if len(shown) > 64:
        shown = f"a {type(value).__name__} of {len(shown)} characters"
    return ConfigurationError(path, f"{shown} cannot be sent; {remedy}")


def _integer_check(low: int, high: int) -> Callable[[object, str, WireField], int]:
    def check(value: object, path: str, spec: WireField) -> int:
        # bool is an int to Python and is not one on the wire.
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _refuse(value, path, f"give an int from {low} to {high} ({spec.kind})")
        return int(value)

    return check


def _float_check(value: object, path: str, _spec: WireField) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an int beyond the float range: refused below
    raise _refuse(value, path, "give a finite float (or an int)")


def _bool_check(value: object, path: str, _spec: WireField) -> bool:
    if not isinstance(value, bool):
        raise _refuse(value, path, "give True or False")
    return value


def _str_check(value: object, path: str, _spec: WireField) -> str:
    if not isinstance(value, str):
        raise _refuse(value, path, "give a str")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _refuse(value, path, "give a str without lone surrogates, which UTF-8 cannot carry") from None
    return str.__str__(value)


def _object_check(value: object, path: str, spec: WireField) -> dict[str, Any]:
    assert spec.cls is not None  # kinds "object" and "list" have one
    if type(value) is not spec.cls:
        raise _refuse(value, path, f"give a {spec.cls.__name__}")
    return _checked_object(value, f"{path}.")


def _items(value: object, path: str, what: str) -> Iterable[tuple[str, object]]:
    if not isinstance(value, (tuple, list)):
        raise _refuse(value, path, f"give a tuple or list of {what}")
    return ((f"{path}[{index}]", item) for index, item in enumerate(value))


def _list_check(value: object, path: str, spec: WireField) -> list[dict[str, Any]]:
    assert spec.cls is not None  # kinds "object" and "list" have one
    return [_object_check(item, place, spec) for place, item in _items(value, path, spec.cls.__name__)]


def _str_list_check(value: object, path: str, spec: WireField) -> list[str]:
    return [_str_check(item, place, spec) for place, item in _items(value, path, "str")]


_CHECKS: Final[dict[str, Callable[[object, str, WireField], Any]]] = {
    "u64": _integer_check(0, 2**64 - 1),
    "i64": _integer_check(-(2**63), 2**63 - 1),
    "u32": _integer_check(0, 2**32 - 1),
    "u16": _integer_check(0, 2**16 - 1),
    "u8": _integer_check(0, 2**8 - 1),
    "f64": _float_check,
    "bool": _bool_check,
    "str": _str_check,
    "object": _object_check,
    "list": _list_check,
    "str_list": _str_list_check,
}
