"""Known programs and instruction layouts: the packaged file, a user's file, and where instructions keep facts."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.trading.guard.addresses import from_text, require_address, to_text

__all__ = [
    "ANCHOR_BYTES",
    "LAYOUTS_ENVIRONMENT",
    "SYSTEM_PROGRAM",
    "KnownPrograms",
    "Layout",
    "Program",
    "SwapLayout",
    "allow",
    "anchor_prefix",
    "hex_bytes",
    "known_programs",
    "read_data",
    "read_swap",
    "with_layout_file",
    "with_services",
]


# ── Where an instruction keeps what the rules need ──────────────────────────────────────────────────────────────────
# docs/guard-layouts.md explains the format. Whoever writes a file gets errors that name the place and the remedy.


#: Of an Anchor program, so many bytes say which instruction it is.
ANCHOR_BYTES: Final = 8
_HEX = "0x"
_U64_BYTES = 8
_MOST_ACCOUNTS = 255
_MOST_BYTES = 4_096
_SOL = "SOL"
_FIELDS = {
    "accounts", "calls_market", "either_way", "from", "in", "mints", "mode", "out", "pool", "prefix", "to", "user",
    "zero",
}  # fmt: skip
_NEEDED = {"from", "in", "mints", "out", "to", "user"}


@attrs.frozen
class SwapLayout:
    """Where a swap keeps what matters; positions in accounts and data. None as an account: the user's lamports.

    Attributes:
        mints: (paid, got); None as a mint: lamports.
        either_way: whether the second may be paid and the first got; the accounts tell.
        most_in: one position a mode; without modes, one.
        least_out: the same.
        mode: where the byte stands that says which mode it is; None without modes.
        zero: where a third party's fee stands, or None.
        pool: the market's account of this token; None: not known.
        calls_market: whether the program is no market itself, and calls the one whose pool is among the accounts.
    """

    user: int
    source: int | None
    target: int | None
    mints: tuple[int | None, int | None]
    either_way: bool
    most_in: tuple[int, ...]
    least_out: tuple[int, ...]
    mode: int | None
    zero: int | None
    pool: int | None
    calls_market: bool


@attrs.frozen
class Layout:
    """One allowed instruction: its name, the least of its data and accounts, and what a swap adds to that.

    Attributes:
        name: ``token.close_account``; of both token programs, for they mean the same.
        kind: the name, or that of another which means the same for the rules.
    """

    name: str
    kind: str
    least_bytes: int
    least_accounts: int
    swap: SwapLayout | None = None


def anchor_prefix(instruction: str) -> bytes:
    """The first bytes of an Anchor program's instruction."""
    return hashlib.sha256(f"global:{instruction}".encode()).digest()[:ANCHOR_BYTES]


def hex_bytes(text: object) -> bytes | None:
    """Of ``0x…``; None: it is not that."""
    if not isinstance(text, str) or not text.startswith(_HEX):
        return None
    try:
        return bytes.fromhex(text.removeprefix(_HEX)) or None
    except ValueError:
        return None


def read_swap(program: str, name: str, fields: object, prefix_bytes: int) -> tuple[bytes, Layout]:
    """One entry of ``swaps``.

    Args:
        program: the program's name.
        name: the instruction's.
        fields: as JSON has them.
        prefix_bytes: how many first bytes say which of the program's instructions it is.

    Returns:
        Its first bytes, and its layout.

    Raises:
        ConfigurationError: ``programs.<program>.swaps.<name>``, and what is wrong.
    """
    return _SwapReader(f"programs.{program}.swaps.{name}", fields, prefix_bytes).read(f"{program}.{name}", name)


class _SwapReader:
    """Reads the fields of one entry, and complains of the first that is wrong."""

    def __init__(self, place: str, fields: object, prefix_bytes: int) -> None:
        self._place = place
        self._prefix_bytes = prefix_bytes
        if not isinstance(fields, Mapping):
            raise self._wrong("", fields, "an object", "Write the instruction's fields into {…}.")
        self._fields: Mapping[str, Any] = fields
        for field in sorted(fields.keys() - _FIELDS):
            raise self._wrong(field, fields[field], f"one of the fields {', '.join(sorted(_FIELDS))}", "Remove it.")
        for field in sorted(_NEEDED - fields.keys()):
            raise self._wrong(field, None, "given", "Add it.")

    def read(self, full_name: str, name: str) -> tuple[bytes, Layout]:
        most_in, least_out = self._positions("in"), self._positions("out")
        if len(most_in) != len(least_out):
            raise self._wrong("out", self._fields["out"], "as long as 'in'", "Give one position for each mode in both.")
        mode = self._data_at("mode", 1) if "mode" in self._fields else None
        if (mode is None) != (len(most_in) == 1):
            raise self._wrong("mode", mode, "given where 'in' has several positions, and only there", "Correct it.")
        zero = self._data_at("zero", _U64_BYTES) if self._fields.get("zero") is not None else None
        paid, got = self._mints()
        swap = SwapLayout(
            self._account("user"), self._own("from", paid), self._own("to", got), (paid, got), self._flag("either_way"),
            most_in, least_out, mode, zero, self._optional_account("pool"), self._flag("calls_market"),
        )  # fmt: skip
        if swap.either_way and None in (swap.source, swap.target, paid, got):
            raise self._wrong("either_way", "true", "possible with SOL", "Name both accounts and both mints.")
        slots = [swap.user, swap.source, swap.target, swap.pool, paid, got]
        accounts = max(self._least_accounts(), 1 + max(slot for slot in slots if slot is not None))
        ends = [at + _U64_BYTES for at in (*most_in, *least_out, *([] if zero is None else [zero]))]
        least_bytes = max([*ends, 0 if mode is None else mode + 1])
        return self._prefix(name), Layout(full_name, full_name, least_bytes, accounts, swap)

    def _prefix(self, name: str) -> bytes:
        if "prefix" not in self._fields and self._prefix_bytes == ANCHOR_BYTES:
            return anchor_prefix(name)
        text = self._fields.get("prefix")
        prefix = hex_bytes(text)
        if prefix is None or len(prefix) != self._prefix_bytes:
            raise self._wrong(
                "prefix", text, f"{self._prefix_bytes} bytes as 0x…", "Give the first bytes of the instruction's data."
            )
        return prefix

    def _mints(self) -> tuple[int | None, int | None]:
        mints = self._fields["mints"]
        if not isinstance(mints, list) or len(mints) != 2:
            raise self._wrong("mints", mints, "a list of two", 'Give the mint paid and the mint got, or "SOL".')
        paid, got = (None if mint == _SOL else self._number("mints", mint, _MOST_ACCOUNTS - 1) for mint in mints)
        return paid, got

    def _own(self, field: str, mint: int | None) -> int | None:
        """The user's account that pays or is paid; None: lamports."""
        if self._fields[field] is None:
            if mint is not None:
                raise self._wrong(field, None, "an account, for its mint is not SOL", "Give the account's position.")
            return None
        return self._account(field)

    def _account(self, field: str) -> int:
        return self._number(field, self._fields[field], _MOST_ACCOUNTS - 1)

    def _optional_account(self, field: str) -> int | None:
        return None if self._fields.get(field) is None else self._account(field)

    def _least_accounts(self) -> int:
        return self._number("accounts", self._fields.get("accounts", 0), _MOST_ACCOUNTS)

    def _positions(self, field: str) -> tuple[int, ...]:
        value = self._fields[field]
        if isinstance(value, list) and not 2 <= len(value) <= 256:
            raise self._wrong(field, value, "a position, or a list of two or more", "Give one position for each mode.")
        return tuple(self._data(field, item, _U64_BYTES) for item in (value if isinstance(value, list) else [value]))

    def _data_at(self, field: str, size: int) -> int:
        return self._data(field, self._fields[field], size)

    def _data(self, field: str, value: object, size: int) -> int:
        at = self._number(field, value, _MOST_BYTES - size)
        if at < self._prefix_bytes:
            raise self._wrong(field, value, f"{self._prefix_bytes} or more", "Count from the start of the data.")
        return at

    def _number(self, field: str, value: object, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self._wrong(field, value, f"a whole number from 0 to {most}", "Give the position, counted from 0.")
        return value

    def _flag(self, field: str) -> bool:
        value = self._fields.get(field, False)
        if not isinstance(value, bool):
            raise self._wrong(field, value, "true or false", "Write one of the two.")
        return value

    def _wrong(self, field: str, value: object, allowed: str, remedy: str) -> ConfigurationError:
        place = f"{self._place}.{field}" if field else self._place
        return ConfigurationError("layouts", f"{place}: {value!r} is not {allowed}. {remedy}")


# ── Which programs and instructions may stand in a transaction ──────────────────────────────────────────────────────
# The facts are data: ``programs.json``, with addresses by name in ``addresses.json``. A program has a table
# ``allowed`` (instruction, its first bytes in hex, how many bytes and accounts it has at least, and which other one it
# ``counts_as``), and a table ``refused``, which only gives names to what is refused anyway, and for good: what such a
# list does not allow, no sale needs. The markets' programs have ``swaps`` (read below,
# docs/guard-layouts.md explains them).


SYSTEM_PROGRAM: Final = bytes(32)
_EVERYTHING = "*"


@attrs.frozen
class Program:
    """One program.

    Attributes:
        name: as in ``programs.json``, or the address of one that a user allowed.
        address: 32 bytes.
        prefix_bytes: how many of an instruction's first bytes say which one it is.
        allowed: by those bytes.
        refused: names of others, by the same bytes.
        trusted: first bytes of instructions that a user allowed without saying what they do.
        is_complete: its list is Solana's own: what is not allowed there, no sale needs.
        is_market: its instructions are swaps.
        is_opaque: nobody knows the layout of its instructions; the rule ``opaque`` and a simulation judge it.
    """

    name: str
    address: bytes
    prefix_bytes: int
    allowed: Mapping[bytes, Layout]
    refused: Mapping[bytes, str]
    trusted: tuple[bytes, ...] = ()
    is_complete: bool = False
    is_market: bool = False
    is_opaque: bool = False

    def layout_of(self, data: bytes, accounts: int) -> Layout | None:
        """Which of the allowed instructions it is; None if it is none, or has too little data or accounts for it."""
        layout = self.allowed.get(data[: self.prefix_bytes])
        if layout is None or len(data) < layout.least_bytes or accounts < layout.least_accounts:
            return None
        return layout


@attrs.frozen
class KnownPrograms:
    """What ``programs.json`` and ``addresses.json`` say.

    Attributes:
        programs: by address.
        token_programs: the two addresses; the classic one is the first.
        currencies: mints of SOL and USD1 and their names; what buys are paid with.
        usdc: the mint, which is a currency only where a user allows it.
        wrapped_sol: the mint.
        tip_accounts: of all senders.
        inner_programs: programs that markets call beside Solana's own.
        minimum_tips: what each sender takes at least, in lamports.
    """

    programs: Mapping[bytes, Program]
    token_programs: tuple[bytes, ...]
    currencies: Mapping[bytes, str]
    wrapped_sol: bytes
    usdc: bytes
    tip_accounts: frozenset[bytes]
    inner_programs: frozenset[bytes]
    minimum_tips: Mapping[str, int]

    def token_programs_of(self, mint: bytes | None) -> tuple[bytes, ...]:
        """Whose accounts a mint may have: wrapped SOL has those of the classic token program alone."""
        return self.token_programs[:1] if mint == self.wrapped_sol else self.token_programs

    def with_usdc(self) -> KnownPrograms:
        """USDC is a currency, too."""
        return attrs.evolve(self, currencies={**self.currencies, self.usdc: "USDC"})


@functools.cache
def known_programs() -> KnownPrograms:
    """Read once, at the first check."""
    entries, addresses = read_data("programs.json"), read_data("addresses.json")
    programs = {name: from_text(address) for name, address in addresses["programs"].items()}
    mints = {name: from_text(address) for name, address in addresses["mints"].items()}
    listed = [_program(name, programs[name], entries["programs"]) for name in entries["programs"]]
    return KnownPrograms(
        programs={program.address: program for program in listed},
        token_programs=(programs["token"], programs["token_2022"]),
        currencies={mints[mint]: name for name, mint in entries["currencies"].items()},
        wrapped_sol=mints["wrapped_sol"],
        usdc=mints["usdc"],
        minimum_tips=addresses["minimum_tip_lamports"],
        tip_accounts=frozenset(from_text(tip) for tips in addresses["tip_accounts"].values() for tip in tips),
        inner_programs=frozenset(programs[name] for name in entries["called_by_markets"]),
    )


@functools.cache
def read_data(name: str) -> Any:
    """One of the JSON files beside this module; callers do not change it."""
    return json.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))


def _program(name: str, address: bytes, entries: dict[str, Any]) -> Program:
    family = entries[name].get("same_instructions_as", name)
    entry = entries[family]
    if "swaps" in entry:
        swaps = dict(read_swap(name, swap, fields, ANCHOR_BYTES) for swap, fields in entry["swaps"].items())
        return Program(name, address, ANCHOR_BYTES, swaps, {}, is_market=True)
    allowed = {
        bytes.fromhex(prefix): _layout(family, instruction, fields)
        for instruction, fields in entry["allowed"].items()
        for prefix in fields["prefixes"]
    }
    refused = {bytes.fromhex(prefix): instruction for prefix, instruction in entry["refused"].items()}
    return Program(name, address, entry["prefix_bytes"], allowed, refused, is_complete=True)


def _layout(family: str, instruction: str, fields: dict[str, Any]) -> Layout:
    kind = fields.get("counts_as", instruction)
    return Layout(f"{family}.{instruction}", f"{family}.{kind}", fields["bytes"], fields["accounts"])


# ── what users add ───────────────────────────────────────────────────────────────────────────────────────────────


def allow(programs: Mapping[bytes, Program], additions: Mapping[str, Collection[str]]) -> dict[bytes, Program]:
    """The table with what a user trusts beyond it.

    Args:
        programs: the table.
        additions: by program address: Anchor instruction names, first bytes as ``0x…``, or ``*`` for all.

    Raises:
        ConfigurationError: an address that is none or Solana's own program's, or a word that is none of the three.
    """
    table = dict(programs)
    for text, instructions in additions.items():
        address = require_address("allow", text)
        if isinstance(instructions, str):
            raise ConfigurationError("allow", f"{text}: give a list of instructions, for example ['*']")
        trusted = tuple(_trusted_prefix(instruction) for instruction in instructions)
        if address in programs and programs[address].is_complete:
            problem = f"{text} is Solana's own {programs[address].name} program: no sale needs what its list refuses"
            raise ConfigurationError("allow", f"{problem}. Remove this entry.")
        known = table.get(address) or Program(to_text(address), address, ANCHOR_BYTES, {}, {})
        table[address] = attrs.evolve(known, trusted=known.trusted + trusted)
    return table


def _trusted_prefix(instruction: str) -> bytes:
    if instruction == _EVERYTHING:
        return b""
    if instruction.isidentifier() and not instruction.startswith(_HEX):
        return anchor_prefix(instruction)
    prefix = hex_bytes(instruction)
    if prefix is None:
        raise ConfigurationError(
            "allow", f"{instruction!r} is not an instruction's name, its first bytes (0x04), or '*' for all"
        )
    return prefix


#: docs/protocol.md 10: every order of the service goes through it, and its layout is not public.
_LASERSELL_ROUTER: Final = "lasersell_router"


def with_services(programs: Mapping[bytes, Program], others: Collection[str]) -> dict[bytes, Program]:
    """The table with the programs whose layout nobody knows; what a user allowed of them does not count.

    Args:
        programs: the table.
        others: addresses beside the LaserSell Router's.

    Raises:
        ConfigurationError: an address that is none, or one of a program whose layout is known.
    """
    table = dict(programs)
    known = known_programs().programs
    router = read_data("addresses.json")["programs"][_LASERSELL_ROUTER]
    for name, text in [(_LASERSELL_ROUTER, router), *((text, text) for text in others)]:
        address = require_address("service_programs", text)
        if address in known:
            raise ConfigurationError(
                "service_programs", f"{text} is {known[address].name}, whose layout is known. Remove this entry."
            )
        before = table.get(address)
        if before is not None and before.allowed:  # a user's file describes some of its instructions
            table[address] = attrs.evolve(before, trusted=(), is_opaque=True)
        else:
            table[address] = Program(name, address, ANCHOR_BYTES, {}, {}, is_opaque=True)
    return table


# ── A user's file of instruction layouts, which adds to the packaged one (docs/guard-layouts.md) ────────────────────


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
        programs[address] = names[name] = _program_from(place, name, address, entry, before)
    return attrs.evolve(known, programs=programs)


def _program_from(place: str, name: str, address: bytes, entry: dict[str, Any], before: Program | None) -> Program:
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
