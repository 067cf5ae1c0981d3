"""A user's file of instruction layouts, which adds to the packaged one (docs/guard-layouts.md)."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.trading.guard.addresses import require_address
from lasersell_sync.trading.guard.programs import KnownPrograms, Program
from lasersell_sync.trading.guard.swap_layout import ANCHOR_BYTES, Layout, read_swap

__all__ = ["LAYOUTS_ENVIRONMENT", "with_layout_file"]

#: Names a file where ``SigningGuard(layouts=…)`` does not.
LAYOUTS_ENVIRONMENT: Final = "LASERSELL_GUARD_LAYOUTS"
_FIELD = "layouts"
_MAX_BYTES = 1_048_576
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def with_layout_file(known: KnownPrograms, path: str | os.PathLike[str]) -> KnownPrograms:
    """The packaged programs, and those of a file.

    Args:
        known: what is packaged; the file cannot change any of it.
        path: the file.

    Raises:
        ConfigurationError: the file cannot be read, anybody may write to it, it is not of the documented format, or it
            defines what the packaged file defines or refuses.
    """
    shown = os.fspath(path)
    try:
        return _added(known, _content(shown))
    except ConfigurationError as error:
        place = "" if error.field == _FIELD else f"{error.field}: "
        raise ConfigurationError(_FIELD, f"{shown}: {place}{error.problem}") from None


def _content(shown: str) -> dict[str, Any]:
    try:
        with os.fdopen(os.open(shown, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(_FIELD, f"it cannot be read ({error.strerror}). Give the path of a file.") from None
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise ConfigurationError(_FIELD, f"anybody may write to it. Run: chmod o-w {shown}")
    if len(text) > _MAX_BYTES:
        raise ConfigurationError(_FIELD, f"it is longer than {_MAX_BYTES} bytes. Give a file of layouts.")
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(_FIELD, f"it is not JSON ({error}). Correct it.") from None
    return _object("", content, {"about", "programs"})


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Json keeps the last of two entries with one name, where a reader may look at the first."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigurationError(_FIELD, f"{name!r} is there twice. Remove one of the two.")
        found[name] = value
    return found


def _added(known: KnownPrograms, content: dict[str, Any]) -> KnownPrograms:
    programs = dict(known.programs)
    names = {program.name: program for program in known.programs.values()}
    entries = content.get("programs")
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(_FIELD, "programs: nothing is in it. Name at least one program.")
    for name, fields in entries.items():
        place = f"programs.{name}"
        entry = _object(place, fields, {"address", "prefix_bytes", "swaps"})
        if not _NAME.fullmatch(name):
            raise ConfigurationError(_FIELD, f"{place}: the name is not lower-case letters, digits and _. Rename it.")
        address = require_address(f"{place}.address", entry.get("address"))
        before = programs.get(address)
        if before is not None and before.is_complete:
            problem = f"{place}: it is Solana's own {before.name} program, whose list is complete"
            raise ConfigurationError(_FIELD, f"{problem}. Remove this entry.")
        if name in names and names[name].address != address:
            raise ConfigurationError(_FIELD, f"{place}: another program has this name. Give it another one.")
        programs[address] = names[name] = _program(place, name, address, entry, before)
    return attrs.evolve(known, programs=programs)


def _program(place: str, name: str, address: bytes, entry: dict[str, Any], before: Program | None) -> Program:
    if before is not None and before.name != name:
        raise ConfigurationError(_FIELD, f"{place}: the program is known as {before.name}. Name the entry so.")
    prefix_bytes = entry.get("prefix_bytes", ANCHOR_BYTES if before is None else before.prefix_bytes)
    if isinstance(prefix_bytes, bool) or prefix_bytes not in range(1, ANCHOR_BYTES + 1):
        problem = f"{place}.prefix_bytes: {prefix_bytes!r} is not a whole number from 1 to {ANCHOR_BYTES}"
        raise ConfigurationError(_FIELD, f"{problem}. Give how many first bytes of the data name an instruction.")
    if before is not None and prefix_bytes != before.prefix_bytes:
        problem = f"{place}.prefix_bytes: {prefix_bytes} is not {before.prefix_bytes}, as it is packaged"
        raise ConfigurationError(_FIELD, f"{problem}. Remove it.")
    swaps = entry.get("swaps")
    if not isinstance(swaps, dict) or not swaps:
        raise ConfigurationError(_FIELD, f"{place}.swaps: nothing is in it. Describe at least one instruction.")
    found: dict[bytes, Layout] = {} if before is None else dict(before.allowed)
    for instruction, fields in swaps.items():
        prefix, layout = read_swap(name, instruction, fields, prefix_bytes)
        known_as = None if before is None else before.refused.get(prefix)
        known_as = found[prefix].name if prefix in found else known_as
        if known_as is not None:
            problem = f"{place}.swaps.{instruction}: 0x{prefix.hex()} is known already, as {known_as}"
            raise ConfigurationError(_FIELD, f"{problem}. Remove this entry: what is known is not defined again.")
        found[prefix] = layout
    if before is not None:
        return attrs.evolve(before, allowed=found)
    calls_market = any(layout.swap is not None and layout.swap.calls_market for layout in found.values())
    return Program(name, address, prefix_bytes, found, {}, is_market=not calls_market)


def _object(place: str, value: object, fields: set[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(_FIELD, f"{place or 'the file'}: {type(value).__name__} is not an object. Use {{…}}.")
    unknown = sorted(value.keys() - fields)
    if unknown:
        where = f"{place}.{unknown[0]}" if place else unknown[0]
        known = ", ".join(sorted(fields))
        raise ConfigurationError(_FIELD, f"{where}: this field is not one of {known}. Remove it.")
    return dict(value)
