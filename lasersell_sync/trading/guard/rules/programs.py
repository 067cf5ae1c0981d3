"""Which programs and instructions are called, and where their accounts stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lasersell_sync.trading.guard.decoded import UNLISTED, Decoded, Instruction, shown
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["PROGRAM_RULES"]


@rule("lookup_table", "no account hides in a look-up table that is not known")
def _lookup_table(tx: Decoded, _: Expected, __: Limits) -> Iterable[Offence]:
    return _hidden_accounts(tx) if tx.unknown_tables or tx.has_gaps or tx.table_problems else ()


def _hidden_accounts(tx: Decoded) -> Iterator[Offence]:
    for table, problem in tx.table_problems.items():
        yield Offence(
            f"accounts stand in the look-up table {shown(table)}, which could not be read: {problem}", table,
            f"ask again later, or give it to the guard: guard.add_lookup_table('{shown(table)}', addresses)",
        )  # fmt: skip
    for table in tx.unknown_tables:
        if table not in tx.table_problems:
            yield Offence(
                f"accounts stand in the look-up table {shown(table)}, which is not known", table,
                "let the guard read it from a Solana node: SigningGuard(rpc=...), or give it to the guard: "
                f"guard.add_lookup_table('{shown(table)}', addresses)",
            )  # fmt: skip
    if tx.has_gaps and not tx.unknown_tables and not tx.table_problems:
        yield Offence(
            "an account stands behind the end of a look-up table as it is known", None,
            "let the guard read it from a Solana node: SigningGuard(rpc=...), or give it to the guard again: "
            "guard.add_lookup_table(table, addresses)",
        )  # fmt: skip


@rule("program", "every program is on the list", kinds=[UNLISTED])
def _program(tx: Decoded, _: Expected, __: Limits) -> Iterator[Offence]:
    for item in tx.unlisted:
        if item.program is None:
            called = f"instruction {item.number} calls {shown(item.program_key)}, which is not on the list"
            yield _unknown(item, called, _first_bytes(item, 8))


@rule("instruction", "every instruction is one of those that its program is listed with", kinds=[UNLISTED])
def _instruction(tx: Decoded, _: Expected, __: Limits) -> Iterator[Offence]:
    for item in tx.unlisted:
        if item.program is None or item.is_trusted:
            continue
        called = f"instruction {item.number} is {item.name}, which is not on the list"
        prefix = _first_bytes(item, item.program.prefix_bytes)
        if item.is_cut_short:
            yield Offence(called, item.program_key, instruction=prefix, accounts=item.accounts)
        elif item.program.is_complete:
            yield Offence(
                called, item.program_key, "no sale needs this, and nothing allows it: do not sign it",
                instruction=prefix, accounts=item.accounts, is_final=True,
            )  # fmt: skip
        else:
            yield _unknown(item, called, prefix)


def _unknown(item: Instruction, called: str, prefix: str) -> Offence:
    """An instruction that a user may trust; says what that would mean."""
    key = shown(item.program_key)
    remedy = (
        f"SigningGuard(allow={{'{key}': ['{prefix}']}}) would trust every instruction of this program that begins so, "
        f"with your signature and with every account that it is given (here {len(item.accounts)}); "
        "the guard looks into none of it"
    )
    return Offence(called, item.program_key, remedy, instruction=prefix, accounts=item.accounts)


def _first_bytes(item: Instruction, count: int) -> str:
    """As ``allow`` takes them."""
    return f"0x{item.data[:count].hex()}" if item.data else "*"


PROGRAM_RULES = (_lookup_table, _program, _instruction)
