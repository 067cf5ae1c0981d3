"""Which programs and instructions may stand in a transaction.

The facts are data: ``programs.json``, with addresses by name in ``addresses.json``. A program has a table ``allowed``
(instruction, its first bytes in hex, how many bytes and accounts it has at least, and which other one it
``counts_as``), and a table ``refused``, which only gives names to what is refused anyway, and for good: what such a
list does not allow, no sale needs. The markets' programs have ``swaps`` (``swap_layout`` reads them,
docs/guard-layouts.md explains them).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.trading.guard.addresses import from_text, require_address, to_text
from lasersell_sync.trading.guard.swap_layout import ANCHOR_BYTES, Layout, anchor_prefix, hex_bytes, read_swap

__all__ = ["SYSTEM_PROGRAM", "KnownPrograms", "Program", "allow", "known_programs", "read_data", "with_services"]

SYSTEM_PROGRAM: Final = bytes(32)
_EVERYTHING = "*"
_HEX = "0x"


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


#: docs/protocol.md §10: every order of the service goes through it, and its layout is not public.
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
