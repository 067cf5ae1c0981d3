"""Where an instruction keeps what the rules need, and how ``programs.json`` and a user's file write that down.

docs/guard-layouts.md explains the format. Whoever writes a file gets errors that name the place and the remedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError

__all__ = ["ANCHOR_BYTES", "Layout", "SwapLayout", "anchor_prefix", "hex_bytes", "read_swap"]

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
