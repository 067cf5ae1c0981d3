"""What must be true of a simulation before its transaction is signed.

A program whose layout nobody knows may do anything with our signature, so its effects are judged: what it calls, and
what our accounts hold before and after. An account is ours when we own it before *or* after: an account that changes
its owner is the theft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from lasersell_sync.trading.guard.decoded import Decoded, Instruction, Swap, read_swap, shown
from lasersell_sync.trading.guard.expected import BUY, Expected
from lasersell_sync.trading.guard.inner_instructions import InnerInstruction
from lasersell_sync.trading.guard.money import Money, RentOf
from lasersell_sync.trading.guard.programs import SYSTEM_PROGRAM, Program
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, Rule
from lasersell_sync.trading.guard.simulation import NOTHING, AccountState, Simulation

__all__ = ["simulation_offences"]

Before = Mapping[bytes, AccountState]

#: What programs do for a trade, and a transaction need not do by itself.
_INSIDE_ONLY: Final = {"system.create_account"}


def _nothing(_: Decoded, __: Expected, ___: Limits) -> Iterator[Offence]:
    return iter(())


def _inside(name: str, demand: str, *, is_kept: bool = False) -> Rule:
    return Rule(name, demand, _nothing, is_kept_in_report_mode=is_kept)


# The same names as the rules over the transaction's own instructions: they demand the same of what happens inside.
_PROGRAM: Final = _inside("program", "every program that is called inside is on the list")
_INSTRUCTION: Final = _inside("instruction", "no program uses our signature for what no sale needs")
_TRADE: Final = _inside("side", "inside, too, a sale sells and a purchase buys the expected token")
_AMOUNT: Final = _inside("amount", "no more tokens are sold than were asked for")
_OWNERSHIP: Final = _inside("own_account", "our accounts stay ours, with no delegate and no close authority")
_PRICE: Final = _inside("price", "a sale brings its floor, and a purchase brings tokens")
_LAMPORTS: Final = _inside("lamports", "what leaves is fees, tip, rent and a routing fee", is_kept=True)
_SPEND: Final = _inside("spend", "a purchase costs no more than its cap and a routing fee", is_kept=True)

_STOLEN: Final = "do not sign it: the simulation shows a loss; tell the service"


def simulation_offences(
    simulation: Simulation, before: Before, tx: Decoded, trade: Expected, limits: Limits, rent: RentOf
) -> list[tuple[Rule, Offence]]:
    """Every way in which a simulation that ran to its end breaks a rule.

    Args:
        simulation: without ``failure``.
        before: the writable accounts before.
        tx: what was simulated.
        trade: what it should be.
        limits: the guard's.
        rent: lamports that an account of so many bytes must hold.
    """
    found = [*_called(simulation, trade, limits), *_own_accounts(simulation, before, trade, limits)]
    money = Money.of(simulation, before, tx, trade, limits, rent)
    found += _purchase(money, trade, limits) if trade.side == BUY else _sale(money, trade, limits)
    return found


# ── what is called inside ────────────────────────────────────────────────────────────────────────────────────────


def _called(simulation: Simulation, trade: Expected, limits: Limits) -> Iterator[tuple[Rule, Offence]]:
    for inner in simulation.inner:
        key = inner.program_key
        program = limits.programs.get(key)
        if program is None:
            if key not in limits.known.inner_programs:
                yield (
                    _PROGRAM,
                    Offence(
                        f"inside, it calls {shown(inner.program_key)}, which is not on the list", inner.program_key
                    ),
                )
            continue
        if trade.signer not in inner.accounts:
            continue
        if inner.name not in _permitted(program) and not _is_trusted(inner, program):
            name = inner.name or f"an unknown instruction of {program.name}"
            yield _INSTRUCTION, Offence(f"inside, it uses our signature for {name}", inner.program_key, _STOLEN)
        yield from _roles(inner, trade)
        yield from _inner_swap(inner, program, trade, limits)


def _permitted(program: Program) -> set[str]:
    return {layout.name for layout in program.allowed.values()} | _INSIDE_ONLY


def _is_trusted(inner: InnerInstruction, program: Program) -> bool:
    return inner.data is not None and bool(program.trusted) and inner.data.startswith(program.trusted)


def _roles(inner: InnerInstruction, trade: Expected) -> Iterator[tuple[Rule, Offence]]:
    roles, us = inner.roles, trade.signer
    if inner.name == "token.close_account" and roles.get("owner") == us and roles.get("destination") != us:
        problem = "inside, it closes an account of ours in favour of another"
        yield _OWNERSHIP, Offence(problem, roles.get("destination"), _STOLEN)
    creates = inner.name is not None and inner.name.startswith("associated_token.create")
    if creates and roles.get("source") == us and roles.get("wallet") != us:
        problem = "inside, it creates a token account for another with our lamports"
        yield _OWNERSHIP, Offence(problem, roles.get("wallet"), _STOLEN)


def _inner_swap(
    inner: InnerInstruction, program: Program, trade: Expected, limits: Limits
) -> Iterator[tuple[Rule, Offence]]:
    swap = _swap_of(inner, program, limits)
    if swap is None or swap.user != trade.signer or trade.mint not in (swap.paid_mint, swap.got_mint):
        return
    buys = swap.got_mint == trade.mint
    if trade.side is not None and buys != (trade.side == BUY):
        yield _TRADE, Offence(f"inside, {inner.name} is not a {trade.side}", swap.got_mint, _STOLEN)
    if not buys and trade.max_tokens is not None and swap.most_in > trade.max_tokens:
        yield _AMOUNT, Offence(
            f"inside, {inner.name} sells {swap.most_in} tokens, {trade.max_tokens} at most", trade.mint, _STOLEN,
            amount=swap.most_in,
        )  # fmt: skip


def _swap_of(inner: InnerInstruction, program: Program, limits: Limits) -> Swap | None:
    if inner.data is None:
        return None
    layout = program.layout_of(inner.data, len(inner.accounts))
    if layout is None or layout.swap is None:
        return None
    places = bytes(range(len(inner.accounts)))
    instruction = Instruction(0, program, layout, inner.program_key, inner.accounts, places, inner.data)
    return read_swap(instruction, layout.swap, limits.known)


# ── our accounts ─────────────────────────────────────────────────────────────────────────────────────────────────


def _own_accounts(
    simulation: Simulation, before: Before, trade: Expected, limits: Limits
) -> Iterator[tuple[Rule, Offence]]:
    us = trade.signer
    for key, after in simulation.after.items():
        earlier = before.get(key, NOTHING)
        if key == us:
            if after.program != SYSTEM_PROGRAM or after.size:
                yield _OWNERSHIP, Offence("our wallet is given to another program, or is emptied", key, _STOLEN)
            continue
        was = earlier.token is not None and earlier.token.owner == us
        token = after.token
        if was and after.lamports and (token is None or token.owner != us):
            yield _OWNERSHIP, Offence("a token account of ours gets another owner", key, _STOLEN)
            continue
        if was or (token is not None and token.owner == us):
            yield from _own_token_account(key, earlier, after, trade, limits)


def _own_token_account(
    key: bytes, before: AccountState, after: AccountState, trade: Expected, limits: Limits
) -> Iterator[tuple[Rule, Offence]]:
    token, earlier = after.token, before.token
    if token is not None:
        if token.delegate is not None:
            yield _OWNERSHIP, Offence("a token account of ours has a delegate, who may move its tokens", key, _STOLEN)
        if token.close_authority is not None:
            yield _OWNERSHIP, Offence("a token account of ours has a close authority other than us", key, _STOLEN)
        if token.is_frozen:
            yield _OWNERSHIP, Offence("a token account of ours is frozen", key, _STOLEN)
    mint = token.mint if token is not None else earlier.mint if earlier is not None else None
    amount_before = 0 if earlier is None else earlier.amount
    amount_after = 0 if token is None else token.amount
    if mint != trade.mint and mint not in limits.known.currencies:
        if (before.lamports, amount_before) != (after.lamports, amount_after):
            yield _OWNERSHIP, Offence(f"another token of ours changes: {shown(mint)}", key, _STOLEN)
    elif mint == trade.mint and amount_after < amount_before:
        if trade.side == BUY:
            yield _TRADE, Offence("a purchase takes tokens from us", key, _STOLEN)
        elif trade.token_account is not None and key != trade.token_account:
            yield _OWNERSHIP, Offence("tokens are taken from another account than the signal names", key, _STOLEN)


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _sale(money: Money, trade: Expected, limits: Limits) -> Iterator[tuple[Rule, Offence]]:
    if trade.max_tokens is not None and money.tokens_sold > trade.max_tokens:
        yield _AMOUNT, Offence(
            f"it sells {money.tokens_sold} tokens, {trade.max_tokens} at most", trade.mint, _STOLEN,
            amount=money.tokens_sold,
        )  # fmt: skip
    floor = trade.least_proceeds(money.tokens_sold, limits.max_slippage_bps)
    gained, routing = money.gained, money.routing
    if money.currency != "SOL":
        yield from _no_lamports_lost(money)
    # Of a sale whose price nobody knows, or of dust, the least routing fee may be more than it brings.
    brought = gained if floor > 1 else gained + routing
    if brought < floor:
        yield _PRICE, Offence(
            f"it brings {gained} {_UNITS[money.currency]}, {floor} is the floor", trade.mint,
            "ask for a fresh transaction; if this price is meant: SigningGuard(max_slippage_bps=...)",
            amount=floor - brought,
        )  # fmt: skip
    yield from _routing(money, gained + routing)


def _purchase(money: Money, trade: Expected, limits: Limits) -> Iterator[tuple[Rule, Offence]]:
    spent, currency = -money.gained, money.currency
    if money.tokens_sold >= 0:
        yield _PRICE, Offence("the purchase brings no tokens", trade.mint, _STOLEN)
    if currency != "SOL":
        yield from _no_lamports_lost(money)
    caps = [cap for cap in (limits.max_buy.get(currency), trade.max_spend) if cap is not None]
    cap = min(caps, default=0)
    most = cap + money.most_routing(cap)
    if spent > most:
        yield _SPEND, Offence(
            f"it spends {spent} {_UNITS[currency]}, {most} at most with the routing fee", trade.mint, _STOLEN,
            amount=spent,
        )  # fmt: skip
    yield from _routing(money, spent)


_UNITS: Final = {"SOL": "lamports", "USD1": "USD1 base units", "USDC": "USDC base units"}


def _no_lamports_lost(money: Money) -> Iterator[tuple[Rule, Offence]]:
    lost = -money.lamports
    if lost > 0:
        problem = f"{lost} lamports leave beyond fees, tip and rent"
        yield _LAMPORTS, Offence(problem, money.receiver, _STOLEN, amount=lost)


def _routing(money: Money, moved: int) -> Iterator[tuple[Rule, Offence]]:
    most = money.most_routing(max(0, moved))
    if money.routing > most:
        yield _LAMPORTS, Offence(
            f"{money.routing} {_UNITS[money.currency]} go to others than the market, {most} at most for routing",
            money.receiver, _STOLEN, amount=money.routing,
        )  # fmt: skip
    if money.tips_over:
        yield _LAMPORTS, Offence(
            f"inside, tips and partner fees are {money.tips_over} lamports above their caps", None, _STOLEN,
            amount=money.tips_over,
        )  # fmt: skip
