"""What a transaction says, in order: accounts, instructions, swaps. Nothing is judged here.

A position that points into a look-up table which is not known gives None in place of an account; the rules see that.
"""

from __future__ import annotations

import functools
import struct
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from lasersell_sync.trading.guard.addresses import PUBKEY_BYTES, seeded_address, to_text, token_account
from lasersell_sync.trading.guard.programs import SYSTEM_PROGRAM, KnownPrograms, Layout, Program, SwapLayout
from lasersell_sync.trading.solana.tx_codec import V1, TxConfig, instructions_of, v1_config

if TYPE_CHECKING:
    from solders.message import MessageAddressTableLookup as Lookup
    from solders.message import MessageHeader
    from solders.transaction import VersionedTransaction

    from lasersell_sync.trading.solana.tx_codec import Layout as Places

__all__ = [
    "CREATE_WITH_SEED",
    "EXCHANGE",
    "OPAQUE",
    "PURCHASE",
    "SALE",
    "UNLISTED",
    "Decoded",
    "Instruction",
    "SeededAccount",
    "Swap",
    "decode",
    "lookup_counts",
    "read_swap",
]

Account = bytes | None

_NOTHING: Final[Mapping[Any, Any]] = types.MappingProxyType({})

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TRANSFER_AT = 4
_BASE_AT = 4
_SEED_LENGTH_AT = 36
_SEED_AT = 44
#: 32 bytes of seed at the most, says the System program.
_MAX_SEED_BYTES = 32
#: Kinds of instructions; most are called by the allowed instruction's name.
CREATE_WITH_SEED: Final = "system.create_account_with_seed"
SALE: Final = "sale"
PURCHASE: Final = "purchase"
EXCHANGE: Final = "exchange"
OPAQUE: Final = "opaque"
UNLISTED: Final = "unlisted"


# The classes below are not frozen, though nobody changes them: to write one's fields would cost three times as much.


@attrs.define(eq=False)
class Instruction:
    """One top-level instruction.

    Attributes:
        number: its place, from 1, as in the report.
        program: None when it is on no list.
        layout: None when it is not an allowed instruction, or has too little data or accounts for one.
        program_key: the program's address.
        keys: all accounts of the transaction.
        places: which of them it names, a byte each.
        data: what it says.
    """

    number: int
    program: Program | None
    layout: Layout | None
    program_key: Account
    keys: Sequence[Account]
    places: bytes
    data: bytes

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All that it names; one alone is had for less by ``account``."""
        return tuple(map(self.keys.__getitem__, self.places))

    def account(self, slot: int) -> Account:
        """One of those that it names."""
        return self.keys[self.places[slot]]

    @property
    def is_trusted(self) -> bool:
        """Whether a user allowed it without saying what it does."""
        return self.layout is None and self.program is not None and self.data.startswith(self.program.trusted)

    @property
    def is_cut_short(self) -> bool:
        """Whether it has too little data or too few accounts for the allowed instruction that it begins like."""
        return (
            self.layout is None
            and self.program is not None
            and self.data[: self.program.prefix_bytes] in self.program.allowed
        )

    @property
    def name(self) -> str:
        """``token.close_account``; of an unknown one, what its data begin with."""
        if self.program is None:
            return f"unknown program {shown(self.program_key)}"
        if self.layout is not None:
            return self.layout.name
        prefix = self.data[: self.program.prefix_bytes]
        if self.is_cut_short:
            return f"{self.program.allowed[prefix].name} (cut short)"
        return f"{self.program.name}.{self.program.refused.get(prefix) or '0x' + prefix.hex()}"

    def u32(self, at: int) -> int:
        """Of the data."""
        value: int = _U32.unpack_from(self.data, at)[0]
        return value

    def u64(self, at: int) -> int:
        """Of the data."""
        value: int = _U64.unpack_from(self.data, at)[0]
        return value


@attrs.define(eq=False)
class Swap:
    """A market's instruction, read.

    Attributes:
        paid_mint: what the user pays with; lamports count as wrapped SOL.
        got_mint: what the user gets.
        source: the account that pays, or None for the user's lamports.
        target: the account that is paid, or None for the user's lamports.
        is_purchase: whether it pays with SOL or USD1.
        most_in: at the most so much is paid, in the smallest units.
        least_out: at the least so much is got.
        is_exchange: whether it pays with one currency for another.
        token: what it trades: the mint got in a purchase, else the mint paid.
        currency: what it trades the token against: the other mint.
        calls_market: whether the program is no market itself, and calls the one whose pool is among the accounts.
        third_party_fee: what the instruction gives to somebody else, in the program's units; 0 mostly.
        pool: the market's account of this token; None: the layout does not say where it stands.
    """

    instruction: Instruction
    user: Account
    paid_mint: Account
    got_mint: Account
    source: Account
    target: Account
    pays_lamports: bool
    gets_lamports: bool
    is_purchase: bool
    is_exchange: bool
    token: Account
    currency: Account
    calls_market: bool
    most_in: int
    least_out: int
    third_party_fee: int
    pool: Account


@attrs.define(eq=False)
class SeededAccount:
    """An account that a transaction creates by a seed.

    Attributes:
        address: what the instruction calls it.
        derived: what base, seed and owner make of it.
        base: whose seed it is.
        owner: the program that gets it.
        lamports: what it is given.
    """

    instruction: Instruction
    address: Account
    derived: bytes
    base: bytes
    owner: bytes
    lamports: int


@attrs.define(eq=False)
class ComputeBudget:
    """What a transaction pays and may use; None: it does not say.

    Attributes:
        priority_fee_lamports: in total.
        unit_limit: compute units.
        heap_bytes: of the programs' heap.
        loaded_bytes: of all accounts together.
    """

    priority_fee_lamports: int
    unit_limit: int | None
    heap_bytes: int | None
    loaded_bytes: int | None


class Decoded:
    """A whole transaction.

    Attributes:
        fee_payer: the first signer.
        blockhash: how long the transaction is good depends on it.
        budget: what it pays and may use, once a rule has worked it out.
        config: the limits of a version 1 transaction; None in other versions, which set them by instructions.
        signers: how many must sign.
        keys: all accounts; None for those in tables that are not known.
        unknown_tables: look-up tables that are not known.
        table_problems: why nodes could not say what is in a table, by its address.
        has_gaps: whether an account stands in a table, and not where the table is known.
        instructions: in order.
        unlisted: those of them that are not, or not quite, an allowed instruction of a program on the list.
        by_kind: all of them. Of an allowed one the kind is a name (``token.close_account``, of both token programs), of
            a swap ``sale``, ``purchase`` or ``exchange``, of the others ``opaque`` or ``unlisted``.
        swaps: of the markets' programs.
        trades: those of them that trade a token, and are no exchange of currencies.
        sold: the most that they can sell of each mint but a currency, in its smallest units.
        spending: the most that they can take, by currency; what is paid in tokens is not in it.
        seeded: accounts that it creates by a seed.
        opaque: instructions of programs whose layout nobody knows.
    """

    __slots__ = (
        "_header", "_static_keys", "_written_in_tables", "blockhash", "budget", "by_kind", "config",
        "fee_payer", "has_gaps", "instructions", "keys", "opaque", "seeded", "signers", "sold", "spending",
        "swaps", "table_problems", "trades", "unknown_tables", "unlisted",
    )  # fmt: skip

    def __init__(
        self,
        keys: tuple[Account, ...],
        signers: int,
        blockhash: bytes,
        config: TxConfig | None,
        header: Callable[[], MessageHeader],
    ) -> None:
        self.keys = keys
        self.blockhash = blockhash
        self.config = config
        self.budget: ComputeBudget | None = None
        self.fee_payer = keys[0]
        self.signers = signers
        #: Asked only of a transaction with an opaque instruction: solders copies on the way out.
        self._header = header
        self._static_keys = len(keys)
        self._written_in_tables = 0
        self.opaque: Sequence[Instruction] = ()
        self.unknown_tables: Sequence[bytes] = ()
        self.table_problems: Mapping[bytes, str] = _NOTHING
        self.has_gaps = False
        self.instructions: list[Instruction] = []
        self.unlisted: Sequence[Instruction] = ()
        self.swaps: list[Swap] = []
        self.trades: list[Swap] = []
        self.sold: dict[Account, int] = {}
        self.spending: Mapping[str, int] = _NOTHING
        self.seeded: Sequence[SeededAccount] = ()
        self.by_kind: dict[str, list[Instruction]] = {}

    def look_up(self, lookups: Sequence[Lookup], tables: Mapping[bytes, Sequence[bytes]]) -> None:
        """Add the accounts of the tables: first all that are written to, then all that are read."""
        named = [(bytes(lookup.account_key), lookup) for lookup in lookups]
        found: list[Account] = []
        for positions in ("writable_indexes", "readonly_indexes"):
            for address, lookup in named:
                table = tables.get(address, ())
                found += [table[at] if at < len(table) else None for at in getattr(lookup, positions)]
        self.keys += tuple(found)
        self._written_in_tables = sum(len(lookup.writable_indexes) for _, lookup in named)
        self.has_gaps = None in found
        self.unknown_tables = [address for address, _ in named if address not in tables]

    @property
    def writable_keys(self) -> tuple[Account, ...]:
        """The accounts that any instruction may write to, in the order of ``keys``."""
        header, keys, static = self._header(), self.keys, self._static_keys
        written_signers = header.num_required_signatures - header.num_readonly_signed_accounts
        others_end = static - header.num_readonly_unsigned_accounts
        return (
            *keys[:written_signers],
            *keys[header.num_required_signatures : others_end],
            *keys[static : static + self._written_in_tables],
        )

    def add_unread(self, instruction: Instruction) -> None:
        """An instruction that no layout describes."""
        is_opaque = instruction.program is not None and instruction.program.is_opaque
        self.by_kind.setdefault(OPAQUE if is_opaque else UNLISTED, []).append(instruction)

    def add_swap(self, swap: Swap) -> None:
        """An instruction of a market."""
        self.swaps.append(swap)
        if swap.is_exchange:
            kind = EXCHANGE
        else:
            kind = PURCHASE if swap.is_purchase else SALE
            self.trades.append(swap)
        self.by_kind.setdefault(kind, []).append(swap.instruction)
        if not swap.is_purchase:
            self.sold[swap.token] = self.sold.get(swap.token, 0) + swap.most_in


def decode(
    raw: bytes,
    places: Places,
    parsed: VersionedTransaction,
    programs: Mapping[bytes, Program],
    known: KnownPrograms,
    tables: Mapping[bytes, Sequence[bytes]],
) -> Decoded:
    """Read a transaction that ``wire_tx.parse`` found sound.

    Args:
        raw: its bytes.
        places: where its parts lie.
        parsed: what solders made of it.
        programs: who may be called.
        known: the rest of ``programs.json``.
        tables: the contents of look-up tables, by address.
    """
    accounts = _accounts(places.account_count).unpack_from(raw, places.accounts_at)
    decoded = Decoded(
        accounts, places.required_signatures, places.blockhash(raw), v1_config(raw) if places.version == V1 else None,
        lambda: parsed.message.header,
    )  # fmt: skip
    compiled, end = instructions_of(raw, places)
    # Only version 0 has look-ups; their number ends the transaction when it is 0.
    if places.version == 0 and raw[end:] != b"\0":
        decoded.look_up(parsed.message.address_table_lookups, tables)  # type: ignore[union-attr]
    keys, instructions, by_kind = decoded.keys, decoded.instructions, decoded.by_kind
    for number, (program_at, accounts_at, data) in enumerate(compiled, 1):
        program_key = keys[program_at]
        program = programs.get(program_key)  # type: ignore[arg-type]
        layout = None if program is None else program.layout_of(data, len(accounts_at))
        instruction = Instruction(number, program, layout, program_key, keys, accounts_at, data)
        instructions.append(instruction)
        if layout is None:
            decoded.add_unread(instruction)
        elif layout.swap is not None:
            decoded.add_swap(read_swap(instruction, layout.swap, known))
        elif layout.kind in by_kind:
            by_kind[layout.kind].append(instruction)
        else:
            by_kind[layout.kind] = [instruction]
    if OPAQUE in by_kind:
        decoded.opaque = by_kind[OPAQUE]
    if UNLISTED in by_kind:
        decoded.unlisted = by_kind[UNLISTED]
    if CREATE_WITH_SEED in by_kind:
        decoded.seeded = [_seeded(instruction) for instruction in by_kind[CREATE_WITH_SEED]]
    if PURCHASE in by_kind or EXCHANGE in by_kind:
        decoded.spending = _spending(decoded.swaps, known)
    return decoded


def _spending(swaps: Sequence[Swap], known: KnownPrograms) -> dict[str, int]:
    """The most that they can take together, by currency."""
    spending: dict[str, int] = {}
    brought: dict[str, int] = {}
    for swap in swaps:
        if swap.is_purchase:
            currency = known.currencies[swap.paid_mint]  # type: ignore[index]
            # A hop spends what the hop before it brings at least, and only what is beyond that is the wallet's.
            covered = min(brought.pop(currency, 0), swap.most_in) if swap.is_exchange else 0
            spending[currency] = spending.get(currency, 0) + swap.most_in - covered
        elif swap.got_mint in known.currencies:
            currency = known.currencies[swap.got_mint]  # type: ignore[index]
            brought[currency] = brought.get(currency, 0) + swap.least_out
    return spending


def lookup_counts(parsed: VersionedTransaction) -> dict[bytes, int]:
    """The look-up tables that a transaction uses, and how many entries of each it needs."""
    counts: dict[bytes, int] = {}
    for lookup in getattr(parsed.message, "address_table_lookups", ()):
        address = bytes(lookup.account_key)
        needed = 1 + max([*lookup.writable_indexes, *lookup.readonly_indexes], default=-1)
        counts[address] = max(counts.get(address, 0), needed)
    return counts


@functools.cache
def _accounts(count: int) -> struct.Struct:
    """So many keys, one behind the other."""
    return struct.Struct(f"{PUBKEY_BYTES}s" * count)


def read_swap(instruction: Instruction, layout: SwapLayout, known: KnownPrograms) -> Swap:
    """What an instruction of a market trades."""
    keys, places = instruction.keys, instruction.places
    user = keys[places[layout.user]]
    source = None if layout.source is None else keys[places[layout.source]]
    target = None if layout.target is None else keys[places[layout.target]]
    paid, got = layout.mints
    paid_mint = known.wrapped_sol if paid is None else keys[places[paid]]
    got_mint = known.wrapped_sol if got is None else keys[places[got]]
    if layout.either_way:
        paid_mint, got_mint = _way(paid_mint, got_mint, user, source, target, known)
    if layout.mode is None:
        most_in: int = _U64.unpack_from(instruction.data, layout.most_in[0])[0]
        least_out: int = _U64.unpack_from(instruction.data, layout.least_out[0])[0]
    else:
        most_in, least_out = _amounts(instruction, instruction.data[layout.mode], layout)
    fee = 0 if layout.zero is None else instruction.u64(layout.zero)
    is_purchase = paid_mint in known.currencies
    pool = None if layout.pool is None else keys[places[layout.pool]]
    return Swap(
        instruction, user, paid_mint, got_mint, source, target, layout.source is None, layout.target is None,
        is_purchase, is_purchase and got_mint in known.currencies,
        got_mint if is_purchase else paid_mint, paid_mint if is_purchase else got_mint,
        layout.calls_market, most_in, least_out, fee, pool,
    )  # fmt: skip


def _amounts(instruction: Instruction, mode: int, layout: SwapLayout) -> tuple[int, int]:
    """The most that is paid and the least that is got in this mode."""
    if mode < len(layout.most_in):
        return instruction.u64(layout.most_in[mode]), instruction.u64(layout.least_out[mode])
    # Of a mode that nobody knows, the dearer reading.
    return max(map(instruction.u64, layout.most_in)), 0


def _way(
    one: Account, other: Account, user: Account, source: Account, target: Account, known: KnownPrograms
) -> tuple[Account, Account]:
    """Which of two mints is paid, and which is got: the one whose account pays is; else, the one whose is not paid.

    An account is ours for one mint only, so it does not matter which mint is asked about first. A currency is: its
    account is derived already, where a token's is mostly a new one, and dear.
    """
    if one not in known.currencies and other in known.currencies:
        one, other = other, one
    for paid, got in ((one, other), (other, one)):
        if is_own_token_account(user, paid, source, known):
            return paid, got
        if is_own_token_account(user, paid, target, known):
            return got, paid
    # Neither is the user's: take it for the way that spends money.
    return one, other


def is_own_token_account(wallet: Account, mint: Account, account: Account, known: KnownPrograms) -> bool:
    """Whether it is the wallet's associated account for this mint, of one of its token programs."""
    if wallet is None or mint is None or account is None:
        return False
    # Not any(): derivations are remembered, but the first one is dear.
    for program in known.token_programs_of(mint):  # noqa: SIM110
        if token_account(wallet, mint, program) == account:
            return True
    return False


def _seeded(instruction: Instruction) -> SeededAccount:
    data = instruction.data
    length = min(instruction.u64(_SEED_LENGTH_AT), _MAX_SEED_BYTES)
    lamports_at = _SEED_AT + length
    owner_at = lamports_at + 16
    base, seed = data[_BASE_AT:_SEED_LENGTH_AT], data[_SEED_AT:lamports_at]
    owner = data[owner_at : owner_at + PUBKEY_BYTES].ljust(PUBKEY_BYTES, b"\xff")
    lamports = int.from_bytes(data[lamports_at : lamports_at + 8], "little")
    return SeededAccount(instruction, instruction.account(1), seeded_address(base, seed, owner), base, owner, lamports)


def transferred_lamports(instruction: Instruction) -> int:
    """Of a System transfer."""
    return instruction.u64(_TRANSFER_AT)


def shown(account: Account) -> str:
    """For people."""
    if account is None:
        return "an account in a look-up table that is not known"
    return "the System program" if account == SYSTEM_PROGRAM else to_text(account)
