"""Both decoding cores, imported directly, whichever one the package chose."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from lasersell_sync import _pure
from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import CLIENT_MESSAGES, SERVER_MESSAGES, UnknownMessage, WireValue

PURE: ModuleType = _pure

#: Does this run look for memory errors (sanitized.sh)? Everything takes many times as long then.
SANITIZED = os.environ.get("LASERSELL_SANITIZED") == "1"

#: What a decoder of each side is made of.
SIDES: dict[str, tuple[dict[str, Any], Callable[[str, bytes], object] | None]] = {
    "server": (dict(SERVER_MESSAGES), UnknownMessage),
    "client": (dict(CLIENT_MESSAGES), None),
}


def compiled() -> ModuleType:
    """The compiled core; skips without it, unless this run was to have it."""
    try:
        return importlib.import_module("lasersell_sync._core")
    except ModuleNotFoundError:
        wanted = os.environ.get("LASERSELL_BUILD_EXTENSION") == "yes" or os.environ.get("CI") == "true"
        if wanted:
            raise
        pytest.skip(
            "lasersell_sync._core is not built: LASERSELL_BUILD_EXTENSION=yes pip install -e .", allow_module_level=True
        )


def cores() -> list[Any]:
    """Parameters for tests that hold for both; the compiled one is skipped as above."""
    both = [pytest.param("_pure", id="pure"), pytest.param("_core", id="compiled")]
    return both[1:] if SANITIZED else both  # the fallback has no memory of its own to get wrong


def scaled(count: int) -> int:
    """So many examples or rounds; a fifth under sanitizers, which see a memory error in the first example that has it."""
    return -(-count // 5) if SANITIZED else count


def core(name: str) -> ModuleType:
    """The core of that module name."""
    return PURE if name == "_pure" else compiled()


def decoder(module: ModuleType, side: str) -> Any:
    """A decoder of one side's messages."""
    classes, unknown = SIDES[side]
    return module.Decoder(classes, unknown, DecodeError)


def shape(value: object) -> object:
    """The value with every type spelled out: 1, 1.0 and True are three things here, 0.0 and -0.0 two."""
    if isinstance(value, WireValue):
        return type(value), tuple((name, shape(getattr(value, name))) for name in value.wire_names)
    if isinstance(value, UnknownMessage):
        return UnknownMessage, value.type, type(value.raw), value.raw
    if isinstance(value, tuple):
        return tuple, tuple(map(shape, value))
    if isinstance(value, float):
        return float, value.hex()
    return type(value), value


def outcome(decode: Callable[[Any], object], data: object) -> object:
    """What a decoder makes of it: the value's shape, or the error's facts. Anything else it raises is a failure."""
    try:
        return shape(decode(data))
    except DecodeError as error:
        return "error", error.reason, error.path, error.offset


def handles_of(module: ModuleType, handles: dict[int, Any]) -> Any:
    """The same in the core's own form."""
    made = module.HandleTable()
    for position, handle in handles.items():
        made[position] = handle
    return made
