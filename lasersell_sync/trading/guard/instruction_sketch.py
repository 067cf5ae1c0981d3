"""Sketches of instructions whose layout nobody knows: what their accounts and bytes are, without personal data.

A sketch names roles instead of addresses: the wallet, its token accounts, amounts and the block are not in it. Several
transactions that were built for the same trade, with another amount and another slippage, show where these two stand.
What a sketch finds is a draft of an entry of a layout file (docs/guard-layouts.md); the rest is a ``"?"``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from lasersell_sync.trading.guard.addresses import to_text, token_account
from lasersell_sync.trading.guard.decoded import Decoded, Instruction
from lasersell_sync.trading.guard.programs import KnownPrograms

__all__ = ["InstructionSketch", "Sample", "sketch_unknown_instructions"]

SALE: Final = "sale"
PURCHASE: Final = "purchase"
UNKNOWN: Final = "?"

_U64_BYTES: Final = 8
_BPS: Final = 10_000
#: How far the market may have moved between two samples.
_MOVED: Final = 0.03
#: A constant of so many bytes is a flag; a longer one may name somebody, and is not shown.
_FLAG_BYTES: Final = 2

WALLET: Final = "the wallet"
MINT: Final = "the mint"
TOKENS: Final = "the wallet's token account"
POOL: Final = "the pool"


@attrs.frozen
class Sample:
    """One transaction, and what it was built for; None: not known.

    Attributes:
        decoded: the transaction, read.
        amount: what the trade pays at the most, in atomic units.
        slippage_bps: as it was asked for.
    """

    decoded: Decoded
    amount: int | None = None
    slippage_bps: int | None = None


@attrs.frozen
class InstructionSketch:
    """One instruction.

    Attributes:
        number: its place in the transaction, from 1.
        program: the program's address, base58; ``?``: it stands in a look-up table that is not known.
        accounts: a role for each account, in order.
        data: what the bytes are, in order.
        layout: a draft of the file; fields that were not found are ``"?"``.
    """

    number: int
    program: str
    accounts: tuple[str, ...]
    data: tuple[str, ...]
    layout: Mapping[str, Any]

    def __str__(self) -> str:
        lines = [f"instruction {self.number}, program {self.program}", "  accounts:"]
        lines += [f"    {index:>2}  {role}" for index, role in enumerate(self.accounts)]
        return "\n".join([*lines, "  data:", *(f"    {line}" for line in self.data)])

    def layout_text(self) -> str:
        """The draft as a JSON text."""
        return json.dumps(self.layout, indent=2) + "\n"


def sketch_unknown_instructions(
    samples: Sequence[Sample],
    known: KnownPrograms,
    *,
    wallet: bytes,
    mint: bytes | None,
    side: str | None,
    pool: bytes | None = None,
) -> list[InstructionSketch]:
    """A sketch of each instruction of the first sample that no layout describes.

    Args:
        samples: the transaction, and others that were built for the same trade with other numbers.
        known: the programs on the guard's list.
        wallet: who pays and signs.
        mint: the traded token; None: it is looked for among the accounts.
        side: ``sale`` or ``purchase``; None: not known.
        pool: the market's account of the token, where the server named it.
    """
    first = samples[0].decoded
    if mint is None:
        mint = _mint_among(first, known, wallet)
    roles = _Roles(first, known, wallet=wallet, mint=mint, pool=pool)
    return [
        _sketch(item, [(one, one.decoded.instructions[item.number - 1]) for one in _alike(samples, item)], roles, side)
        for item in first.instructions
        if item.layout is None and not item.is_trusted
    ]


def _mint_among(tx: Decoded, known: KnownPrograms, wallet: bytes) -> bytes | None:
    """The account for which the wallet's own token account is there, too."""
    keys = [key for key in tx.keys if key is not None and key not in known.currencies]
    found = (key for key in keys if any(token_account(wallet, key, one) in keys for one in known.token_programs))
    return next(found, None)


def _alike(samples: Sequence[Sample], item: Instruction) -> list[Sample]:
    """Samples that have an instruction of the same program and size in the same place."""
    alike = []
    for sample in samples:
        instructions = sample.decoded.instructions
        other = instructions[item.number - 1] if item.number <= len(instructions) else None
        if other is not None and other.program_key == item.program_key and len(other.data) == len(item.data):
            alike.append(sample)
    return alike


class _Roles:
    """What each account of a transaction is."""

    def __init__(
        self, tx: Decoded, known: KnownPrograms, *, wallet: bytes, mint: bytes | None, pool: bytes | None
    ) -> None:
        self.known = known
        self._written = set(tx.writable_keys)
        self._letters: dict[bytes, str] = {}
        self._roles: dict[bytes, str] = {program.address: f"program {name}" for name, program in _named(known)}
        self._roles |= dict.fromkeys(known.inner_programs, "a program that markets call")
        for currency, name in known.currencies.items():
            self._roles[currency] = f"the {name} mint"
            for program in known.token_programs:
                self._roles[token_account(wallet, currency, program)] = f"the wallet's {name} account"
        for seeded in tx.seeded:
            self._roles[seeded.derived] = "the wallet's SOL account"
        if pool is not None:
            self._roles[pool] = POOL
        if mint is not None:
            self._roles[mint] = MINT
            for program in known.token_programs:
                self._roles[token_account(wallet, mint, program)] = TOKENS
        self._roles[wallet] = WALLET

    def role(self, account: bytes | None) -> str:
        """A role, or a letter that stands for the same account everywhere."""
        if account is None:
            return "an account of a look-up table that is not known"
        if account in self._roles:
            return self._roles[account]
        if account not in self._letters:
            number = len(self._letters)
            self._letters[account] = f"account {chr(ord('A') + number % 26)}{number // 26 or ''}"
        return self._letters[account]

    def shown(self, account: bytes | None) -> str:
        """The role, and whether it may be written to."""
        return f"{self.role(account)}{', writable' if account in self._written else ''}"


def _named(known: KnownPrograms) -> Iterator[tuple[str, Any]]:
    return ((program.name, program) for program in known.programs.values())


def _sketch(
    item: Instruction, samples: Sequence[tuple[Sample, Instruction]], roles: _Roles, side: str | None
) -> InstructionSketch:
    program = UNKNOWN if item.program_key is None else to_text(item.program_key)
    paid_at = _amount_at(samples)
    got_at = _least_at(samples, paid_at)
    prefix_bytes = _prefix_bytes([one.data for _, one in samples], paid_at, got_at)
    found = [roles.role(account) for account in item.accounts]
    fields: dict[str, Any] = {**_accounts_of(found, side), "in": _or_unknown(paid_at), "out": _or_unknown(got_at)}
    if POOL in found:
        fields["pool"] = found.index(POOL)
    if any(roles.role(program.address) in found for _, program in _named(roles.known) if program.is_market):
        fields["calls_market"] = True
    prefix = item.data[:prefix_bytes].hex()
    fields["prefix"] = f"0x{prefix}"
    name = item.program.name if item.program is not None else "program_" + prefix[:8]
    accounts = tuple(roles.shown(account) for account in item.accounts)
    layout = {
        "about": [
            f'A draft by lasersell-sync explain-tx, of a {side or "trade"}. Check every field; a "?" was not found.',
            *(f"account {index}: {role}" for index, role in enumerate(accounts)),
        ],
        "programs": {
            name: {"address": program, "prefix_bytes": prefix_bytes, "swaps": {f"{side or 'trade'}_{prefix}": fields}}
        },
    }
    data = tuple(_described(samples, prefix_bytes, paid_at, got_at))
    return InstructionSketch(item.number, program, accounts, data, layout)


def _or_unknown(value: int | None) -> int | str:
    return UNKNOWN if value is None else value


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _accounts_of(roles: Sequence[str], side: str | None) -> dict[str, Any]:
    def place(wanted: str) -> int | str:
        return roles.index(wanted) if wanted in roles else UNKNOWN

    money = next((name for name in ("USD1", "SOL") if f"the wallet's {name} account" in roles), None)
    quote_account = None if money is None else place(f"the wallet's {money} account")
    quote_mint: int | str = "SOL"
    if money is not None:
        quote_mint = place(f"the {money} mint")
        quote_mint = "SOL" if quote_mint == UNKNOWN and money == "SOL" else quote_mint
    fields: dict[str, Any] = {"user": place(WALLET), "from": UNKNOWN, "to": UNKNOWN, "mints": [UNKNOWN, UNKNOWN]}
    if side == SALE:
        fields |= {"from": place(TOKENS), "to": quote_account, "mints": [place(MINT), quote_mint]}
    elif side == PURCHASE:
        fields |= {"from": quote_account, "to": place(TOKENS), "mints": [quote_mint, place(MINT)]}
    return fields


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _prefix_bytes(data: Sequence[bytes], *numbers_at: int | None) -> int:
    """How many first bytes say which instruction it is; they may hold no part of an amount.

    Where there is one sample alone: eight, as of Anchor programs, whose eight are a hash. A zero among them is more
    likely a part of a small number behind one byte.
    """
    most = min(_U64_BYTES, len(data[0]), *(at for at in numbers_at if at is not None))
    if len(data) == 1:
        return most if 0 not in data[0][:most] else min(1, most)
    alike = (len({one[at] for one in data}) == 1 for at in range(most))
    return sum(1 for _ in itertools.takewhile(bool, alike))


def _numbers(data: bytes, near: int | None = None) -> dict[int, int]:
    """Every eight bytes but the very first as a number, by position; likely positions first."""
    beside = () if near is None else (near + _U64_BYTES, near - _U64_BYTES)
    places = range(1, len(data) - _U64_BYTES + 1)
    ordered = sorted(places, key=lambda at: (at not in beside, at < _U64_BYTES or at % _U64_BYTES != 0, at))
    return {at: int.from_bytes(data[at : at + _U64_BYTES], "little") for at in ordered}


def _amount_at(samples: Sequence[tuple[Sample, Instruction]]) -> int | None:
    """Where every sample has the amount that it was built for; of a purchase maybe with the slippage added."""
    told = [(one, _numbers(item.data)) for one, item in samples if one.amount]
    if not told:
        return None
    for test in (_is_amount, _is_most_paid):
        for at in told[0][1]:
            if all(test(numbers[at], one) for one, numbers in told):
                return at
    return None


def _is_amount(number: int, sample: Sample) -> bool:
    return number == sample.amount


def _is_most_paid(number: int, sample: Sample) -> bool:
    assert sample.amount is not None  # others are left out
    most = sample.amount * (_BPS + (sample.slippage_bps or 0)) / _BPS
    return sample.amount * 0.9 <= number <= most * 1.001 + 1


def _least_at(samples: Sequence[tuple[Sample, Instruction]], paid_at: int | None) -> int | None:
    """Where a number falls as the amount falls and the slippage rises, as the least that is got does."""
    told = [
        (one.amount, one.slippage_bps, _numbers(item.data, paid_at))
        for one, item in samples
        if one.amount and one.slippage_bps
    ]
    if len({(amount, bps) for amount, bps, _ in told}) < len(samples) or len(samples) == 1:
        return None
    amount, bps, numbers = told[0]
    data = [item.data for _, item in samples]
    # A purchase may name the tokens that it gets, and add the slippage to what it pays.
    for slippage_counts in (True, False):
        for at, number in numbers.items():
            overlaps = paid_at is not None and abs(at - paid_at) < _U64_BYTES
            if overlaps or number == 0 or not _begins_at(data, at, paid_at):
                continue
            if all(
                _falls_alike(
                    other[at] / number, of_amount / amount, (_BPS - of_bps) / (_BPS - bps) if slippage_counts else 1.0
                )
                for of_amount, of_bps, other in told[1:]
            ):
                return at
    return None


def _begins_at(data: Sequence[bytes], at: int, paid_at: int | None) -> bool:
    """Whether a number that differs in the samples begins here, and not a byte before or behind."""
    varies = [len({one[place] for one in data}) > 1 for place in (at - 1, at)]
    return varies[1] and (not varies[0] or (paid_at is not None and at == paid_at + _U64_BYTES))


def _falls_alike(ratio: float, by_amount: float, by_slippage: float) -> bool:
    """A pool gives a little more than half for half, and the market moves between two samples."""
    is_constant = ratio == 1 and by_amount * by_slippage != 1
    most = by_slippage * by_amount**0.5 * (1 + _MOVED)
    return not is_constant and by_slippage * by_amount * (1 - _MOVED) <= ratio <= most


def _described(
    samples: Sequence[tuple[Sample, Instruction]], prefix_bytes: int, paid_at: int | None, got_at: int | None
) -> Iterator[str]:
    data = samples[0][1].data
    yield f"0 to {prefix_bytes}: 0x{data[:prefix_bytes].hex()}, which instruction it is"
    meanings = {paid_at: "the most that is paid", got_at: "the least that is got"}
    known = {at + offset: at for at in meanings if at is not None for offset in range(_U64_BYTES)}
    rest = range(prefix_bytes, len(data))
    for meaning_at, group in itertools.groupby(rest, key=lambda at: known.get(at, _constant(samples, at))):
        places = list(group)
        start, end = places[0], places[-1] + 1
        if meaning_at in meanings and known.get(start) == meaning_at:
            yield f"{start} to {end}: {meanings[meaning_at]}"
        elif meaning_at is _CONSTANT and len(samples) > 1 and end - start <= _FLAG_BYTES:
            yield f"{start} to {end}: 0x{data[start:end].hex()}, the same in all samples"
        else:
            same = "the same in all samples" if meaning_at is _CONSTANT else "different in the samples"
            yield f"{start} to {end}: {end - start} bytes" + (f", {same}" if len(samples) > 1 else "")


_CONSTANT: Final = -1
_VARYING: Final = -2


def _constant(samples: Sequence[tuple[Sample, Instruction]], at: int) -> int:
    return _CONSTANT if len({item.data[at] for _, item in samples}) == 1 else _VARYING
