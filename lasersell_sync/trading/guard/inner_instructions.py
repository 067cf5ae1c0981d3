"""Instructions that programs call while a transaction is simulated, in the three spellings that nodes use.

Agave answers ``jsonParsed`` for the programs that it knows (``{"program", "programId", "parsed"}``) and base58 data
with base58 accounts for the others. Nodes and libraries beside it answer ``{"programIdIndex", "accounts", "data"}``
with positions. All three become one ``InnerInstruction``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from lasersell_sync.pubkeys import decode_base58
from lasersell_sync.trading.guard.addresses import from_text
from lasersell_sync.trading.guard.programs import Program

__all__ = ["InnerInstruction", "Senseless", "read_inner_instructions"]

#: A program's name as a node spells it in ``parsed`` is not used: the address says which program it is.
_CAMEL = re.compile(r"(?<!^)(?=[A-Z])")
_MAX_DEPTH: Final = 16

# Where the accounts with a meaning stand in instructions of Solana's own programs, named as nodes name them.
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "system.transfer": ("source", "destination"),
    "system.create_account": ("source", "newAccount"),
    "system.create_account_with_seed": ("source", "newAccount"),
    "token.transfer": ("source", "destination", "authority"),
    "token.transfer_checked": ("source", "mint", "destination", "authority"),
    "token.close_account": ("account", "destination", "owner"),
    "token.initialize_account": ("account", "mint", "owner"),
    "token.sync_native": ("account",),
    "associated_token.create": ("source", "account", "wallet", "mint"),
    "associated_token.create_idempotent": ("source", "account", "wallet", "mint"),
}
_LAMPORTS_AT: Final = {"system.transfer": 4, "system.create_account": 4}
_CREATE_ACCOUNT: Final = b"\0\0\0\0"


class Senseless(ValueError):
    """A node's answer is not one to the question."""


@attrs.define(eq=False)
class InnerInstruction:
    """One instruction that a program called.

    Attributes:
        program_key: the program called.
        name: ``token.approve``; None for an instruction that is on no list.
        depth: 2 when a top-level instruction called it, 3 when that one's callee did, and so on.
        caller: the program that called it.
        accounts: all accounts that it names.
        roles: accounts by the name that nodes give them, for Solana's own programs.
        data: its bytes; None when the node parsed them.
        lamports: of a transfer or a creation by the System program, else 0.
    """

    program_key: bytes
    name: str | None
    depth: int
    caller: bytes
    accounts: tuple[bytes, ...]
    roles: Mapping[str, bytes]
    data: bytes | None
    lamports: int


def read_inner_instructions(
    value: Any, top_level: Sequence[bytes | None], keys: Sequence[bytes | None], programs: Mapping[bytes, Program]
) -> list[InnerInstruction]:
    """``innerInstructions`` of a simulation.

    Args:
        value: as the node answered.
        top_level: the programs of the transaction's instructions, in order.
        keys: all accounts of the transaction.
        programs: the listed programs.

    Raises:
        Senseless: it is not of the documented shape, or leaves open which program called which.
    """
    if not isinstance(value, list):
        raise Senseless("no inner instructions")
    found: list[InnerInstruction] = []
    seen: set[int] = set()
    for group in value:
        index: Any = group.get("index") if isinstance(group, dict) else None
        items = group.get("instructions") if isinstance(group, dict) else None
        if not _is_index(index, len(top_level)) or not isinstance(items, list) or index in seen:
            raise Senseless("inner instructions of no instruction")
        seen.add(index)
        program = top_level[index]
        if program is None:
            raise Senseless("inner instructions of an unknown program")
        found += _read_group(items, program, keys, programs)
    return found


def _read_group(
    items: Sequence[Any], program: bytes, keys: Sequence[bytes | None], programs: Mapping[bytes, Program]
) -> Iterator[InnerInstruction]:
    #: The programs from the top-level instruction down to the latest one.
    stack = [program]
    for item in items:
        depth = item.get("stackHeight") if isinstance(item, dict) else None
        # Without the height nobody knows who called it.
        if isinstance(depth, bool) or not isinstance(depth, int) or not 2 <= depth <= min(len(stack) + 1, _MAX_DEPTH):
            raise Senseless("an inner instruction without its stack height")
        del stack[depth - 1 :]
        read = _read(item, depth, stack[-1], keys, programs)
        stack.append(read.program_key)
        yield read


def _read(
    item: Any, depth: int, caller: bytes, keys: Sequence[bytes | None], programs: Mapping[bytes, Program]
) -> InnerInstruction:
    if "parsed" in item:
        return _parsed(item, depth, caller, programs)
    accounts = item.get("accounts")
    if not isinstance(accounts, list):
        raise Senseless("an inner instruction without accounts")
    if "programIdIndex" in item:
        program, named = _key(item["programIdIndex"], keys), tuple(_key(place, keys) for place in accounts)
    else:
        program, named = _address(item.get("programId")), tuple(map(_address, accounts))
    return _compiled(program, named, _base58(item.get("data")), depth, caller, programs)


# ── data in bytes ────────────────────────────────────────────────────────────────────────────────────────────────


def _compiled(
    program_key: bytes, accounts: tuple[bytes, ...], data: bytes, depth: int, caller: bytes,
    programs: Mapping[bytes, Program],
) -> InnerInstruction:  # fmt: skip
    name = _name_of(data, len(accounts), programs.get(program_key))
    roles = dict(zip(_ROLES.get(name or "", ()), accounts, strict=False))
    lamports_at = _LAMPORTS_AT.get(name or "")
    lamports = 0 if lamports_at is None else int.from_bytes(data[lamports_at : lamports_at + 8], "little")
    return InnerInstruction(program_key, name, depth, caller, accounts, roles, data, lamports)


def _name_of(data: bytes, accounts: int, program: Program | None) -> str | None:
    if program is None:
        return None
    if program.name == "system" and data.startswith(_CREATE_ACCOUNT) and len(data) >= 12:
        return "system.create_account"
    layout = program.layout_of(data, accounts)
    if layout is not None:
        return layout.name
    refused = program.refused.get(data[: program.prefix_bytes])
    return None if refused is None else f"{_family(program)}.{refused}"


# ── data in words ────────────────────────────────────────────────────────────────────────────────────────────────


def _parsed(item: Any, depth: int, caller: bytes, programs: Mapping[bytes, Program]) -> InnerInstruction:
    program_key, parsed = _address(item.get("programId")), item["parsed"]
    program = programs.get(program_key)
    if isinstance(parsed, str) or program is None:  # a memo's text, or a program that is on no list anyway
        return InnerInstruction(program_key, None, depth, caller, (), {}, None, 0)
    kind, info = (parsed.get(name) if isinstance(parsed, dict) else None for name in ("type", "info"))
    if not isinstance(kind, str) or not isinstance(info, dict | None):
        raise Senseless("a parsed inner instruction without a type")
    name = f"{_family(program)}.{_CAMEL.sub('_', kind).lower()}"
    roles = dict(_addresses(info or {}))
    lamports = (info or {}).get("lamports", 0) if program.name == "system" else 0
    if isinstance(lamports, bool) or not isinstance(lamports, int) or lamports < 0:
        raise Senseless("a number of lamports that is none")
    return InnerInstruction(program_key, name, depth, caller, tuple(roles.values()), roles, None, lamports)


def _addresses(info: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for name, value in info.items():
        texts = value if isinstance(value, list) else [value]
        for number, text in enumerate(texts):
            if isinstance(text, str) and 32 <= len(text) <= 44:
                try:
                    yield (name if number == 0 else f"{name}[{number}]", from_text(text))
                except ValueError:
                    continue  # a seed, for example


def _family(program: Program) -> str:
    """Both token programs' instructions have the names of one."""
    return "token" if program.name == "token_2022" else program.name


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_index(value: object, count: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and 0 <= value < count


def _key(place: Any, keys: Sequence[bytes | None]) -> bytes:
    key: bytes | None = keys[place] if _is_index(place, len(keys)) else None
    if key is None:
        raise Senseless("an account that is not the transaction's")
    return key


def _address(text: Any) -> bytes:
    try:
        return from_text(text)
    except (TypeError, ValueError):
        raise Senseless("an address that is none") from None


#: An instruction's data fit into a transaction of 4 096 bytes, which are 5 600 characters.
_MAX_BASE58: Final = 5_600


def _base58(text: object) -> bytes:
    data = decode_base58(text, _MAX_BASE58)
    if data is None:
        raise Senseless("instruction data that is not base58")
    return data
