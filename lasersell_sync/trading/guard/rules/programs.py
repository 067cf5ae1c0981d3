"""Which programs and instructions are called, and where their accounts stand."""

from __future__ import annotations

from lasersell_sync.trading.guard.addresses import to_text
from lasersell_sync.trading.guard.decoded import Decoded, Instruction, shown
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["PROGRAM_RULES"]


@rule("lookup_table", "no account hides in a look-up table that is not known")
def _lookup_table(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    if tx.unknown_tables:
        table = tx.unknown_tables[0]
        return Offence(
            f"accounts stand in the look-up table {shown(table)}, which is not known", table,
            f"fetch the table and give it to the guard: guard.add_lookup_table('{shown(table)}', addresses)",
        )  # fmt: skip
    if tx.has_gaps:
        return Offence(
            "an account stands behind the end of a look-up table as it is known", None,
            "fetch the table again and give it to the guard: guard.add_lookup_table(table, addresses)",
        )  # fmt: skip
    return None


@rule("program", "every program is on the list")
def _program(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    for item in tx.unlisted:
        if item.program is None:
            key = shown(item.program_key)
            return Offence(
                f"instruction {item.number} calls {key}, which is not on the list", item.program_key,
                f"if you trust it with your wallet: SigningGuard(allow={{'{key}': ['{_first_bytes(item, 8)}']}}) "
                "for this instruction, ['*'] for all",
            )  # fmt: skip
    return None


@rule("instruction", "every instruction is one of those that its program is listed with")
def _instruction(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    for item in tx.unlisted:
        if item.program is not None and not item.is_trusted:
            address, prefix = to_text(item.program.address), _first_bytes(item, item.program.prefix_bytes)
            return Offence(
                f"instruction {item.number} is {item.name}, which is not on the list", item.program_key,
                f"if it must be: SigningGuard(allow={{'{address}': ['{prefix}']}})",
            )  # fmt: skip
    return None


def _first_bytes(item: Instruction, count: int) -> str:
    """As ``allow`` takes them."""
    return f"0x{item.data[:count].hex()}" if item.data else "*"


PROGRAM_RULES = (_lookup_table, _program, _instruction)
