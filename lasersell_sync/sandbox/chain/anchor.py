"""Anchor programs: discriminators, derived addresses, error numbers, and the check of an instruction's accounts."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.runtime import custom

#: What an Anchor program's call of itself begins with when it writes an event.
EVENT_TAG = bytes.fromhex("e445a52e51cb9a1d")


_ARGUMENTS = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Call:
    """One instruction's data: 8 bytes discriminator, tokens and limit as u64, then ``tail``."""

    name: str
    limit_first: bool = False
    tail: bytes = b""

    def pack(self, tokens: int, limit: int) -> bytes:
        """The instruction's data."""
        numbers = (limit, tokens) if self.limit_first else (tokens, limit)
        return discriminator(self.name) + _ARGUMENTS.pack(*numbers) + self.tail

    def matches(self, data: bytes) -> bool:
        """Whether data is of this instruction."""
        return data[:8] == discriminator(self.name)

    def unpack(self, data: bytes) -> tuple[int, int] | None:
        """(tokens, limit), or None for data that is too short or asks for another variant."""
        body = data[8:]
        if len(body) < _ARGUMENTS.size + len(self.tail) or not body[_ARGUMENTS.size :].startswith(self.tail):
            return None
        first, second = _ARGUMENTS.unpack_from(body)
        return (second, first) if self.limit_first else (first, second)


@lru_cache(maxsize=64)
def discriminator(name: str) -> bytes:
    """The first 8 bytes of an Anchor instruction."""
    return hashlib.sha256(f"global:{name}".encode()).digest()[:8]


@lru_cache(maxsize=64)
def event_tag(name: str) -> bytes:
    """The 8 bytes that an Anchor event begins with."""
    return hashlib.sha256(f"event:{name}".encode()).digest()[:8]


@lru_cache(maxsize=65_536)
def derived_address(program: Pubkey, *seeds: bytes) -> Pubkey:
    """A program-derived address, remembered because finding one takes many hashes."""
    return Pubkey.find_program_address(list(seeds), program)[0]


class Anchor:
    """Error numbers every Anchor program shares."""

    INSTRUCTION_FALLBACK_NOT_FOUND = 101
    INSTRUCTION_DID_NOT_DESERIALIZE = 102
    CONSTRAINT_MUT = 2000
    CONSTRAINT_SEEDS = 2006
    ACCOUNT_NOT_ENOUGH_KEYS = 3005
    ACCOUNT_NOT_SIGNER = 3010
    ACCOUNT_NOT_INITIALIZED = 3012


def check_anchor_accounts(got: Sequence[AccountMeta], wanted: Sequence[AccountMeta]) -> None:
    """Compare an instruction's accounts with the program's own list; more accounts behind it are allowed."""
    if len(got) < len(wanted):
        raise custom(Anchor.ACCOUNT_NOT_ENOUGH_KEYS)
    for have, want in zip(got, wanted, strict=False):
        if have.pubkey != want.pubkey:
            raise custom(Anchor.CONSTRAINT_SEEDS)
        if want.is_signer and not have.is_signer:
            raise custom(Anchor.ACCOUNT_NOT_SIGNER)
        if want.is_writable and not have.is_writable:
            raise custom(Anchor.CONSTRAINT_MUT)
