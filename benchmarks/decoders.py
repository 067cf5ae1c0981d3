"""From bytes to typed objects: ours, and what a user would otherwise write, from the schema in our ``messages``."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any, Final

from benchmarks.command import missing_packages
from lasersell_sync import messages, server_message_from_text

__all__ = ["OURS", "Decode", "decoders", "msgspec_union"]

OURS: Final = "lasersell_sync"
Decode = Callable[[bytes], object]


def decoders() -> dict[str, Decode]:
    """Name to decode function, ours first; without those whose package is not installed."""
    makers: dict[str, tuple[str | None, Callable[[], Decode]]] = {
        OURS: (None, lambda: server_message_from_text),
        "msgspec": ("msgspec", lambda: msgspec_union()[0]),
        "orjson": ("orjson", _orjson),
        "json": (None, lambda: _constructing(json.loads)),
        "official SDK": ("lasersell-sdk", _official),
    }
    return {name: make() for name, (package, make) in makers.items() if not package or not missing_packages([package])}


def msgspec_union() -> tuple[Decode, dict[str, type]]:
    """A decoder to a tagged union of Structs made from our schema, and its Struct of each type.

    Without the wire's integer ranges, which would cost it time.
    """
    import msgspec

    kinds: dict[str, Any] = {
        **dict.fromkeys(("u64", "i64", "u32", "u16", "u8"), int),
        "f64": float,
        "bool": bool,
        "str": str,
    }
    made: dict[type, Any] = {}

    def struct(cls: type, tag: str | None) -> Any:
        if cls in made:
            return made[cls]
        fields: list[Any] = []
        for spec in cls.wire_fields:  # type: ignore[attr-defined]
            kind = kinds.get(spec.kind)
            if kind is None:
                nested: Any = struct(spec.cls, None)
                kind = types.GenericAlias(tuple, (nested, ...)) if spec.kind == "list" else nested
            if spec.required:
                fields.append((spec.name, kind))
            else:
                fields.append((spec.name, kind | None if spec.default is None else kind, spec.default))
        made[cls] = msgspec.defstruct(cls.__name__, fields, tag=tag, frozen=True, kw_only=True, gc=False)
        return made[cls]

    union: Any = None
    for name, cls in messages.SERVER_MESSAGES.items():
        made_struct = struct(cls, name)
        union = made_struct if union is None else union | made_struct
    structs = {name: made[cls] for name, cls in messages.SERVER_MESSAGES.items()}
    return msgspec.json.Decoder(union).decode, structs


def _orjson() -> Decode:
    import orjson

    return _constructing(orjson.loads)


def _official() -> Decode:
    """To dictionaries whose values were checked; it takes text, so the bytes are decoded as its transport does."""
    from lasersell_sdk.stream.proto import server_message_from_text as official

    return lambda text: official(text.decode())


def _constructing(loads: Callable[[bytes], Any]) -> Decode:
    """A parser to dictionaries, then our classes' own constructors: what one writes by hand, without waste."""

    def level(cls: type) -> Callable[[dict[str, Any]], object]:
        nested = [
            (spec.name, spec.kind == "list", level(spec.cls))
            for spec in cls.wire_fields  # type: ignore[attr-defined]
            if spec.cls is not None
        ]
        if not nested:
            return lambda fields: cls(**fields)

        def build(fields: dict[str, Any]) -> object:
            for name, is_list, make in nested:
                value = fields.get(name)
                if value is not None:
                    fields[name] = tuple(map(make, value)) if is_list else make(value)
            return cls(**fields)

        return build

    builders = {name: level(cls) for name, cls in messages.SERVER_MESSAGES.items()}

    def decode(text: bytes) -> object:
        fields = loads(text)
        return builders[fields.pop("type")](fields)

    return decode
