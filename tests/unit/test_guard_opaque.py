"""Transactions of a program whose layout nobody knows: hundreds of changed ones, of which none is signed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import attrs
import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address

from lasersell_sync.exceptions import UnsafeTransactionError
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.keys.signer import Signer
from tests.support import router_trade as rt
from tests.support.router_trade import RouterTrade, address
from tests.support.solana_node import SolanaNode

Change = Callable[[RouterTrade], None]
SIGNER = Signer.from_keypair(rt.KEYPAIR)
HONEST = {"sale": rt.honest_sale, "purchase": rt.honest_purchase, "usd1 sale": rt.honest_usd1_sale}
WAYS = [{"is_parsed": parsed, "says_before": before} for parsed in (True, False) for before in (True, False)]


class Mutant(NamedTuple):
    """One changed trade.

    Attributes:
        name: what was changed.
        trade: which of the honest ones.
        change: does it.
        rules: one of these is named by the refusal.
    """

    name: str
    trade: str
    change: Change
    rules: tuple[str, ...]


# ── the transaction itself ───────────────────────────────────────────────────────────────────────────────────────


def changed_transactions() -> Iterator[Mutant]:
    for trade in HONEST:
        for name, change, rules in _transaction_changes():
            yield Mutant(name, trade, change, rules)


def _transaction_changes() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    for data in (b"", b"\1", b"\1\2\3\4\5\6\7\x08" + rt.u64(1)):
        yield f"a second opaque instruction with {data!r}", _second_instruction(data), ("opaque",)
    for mint in (rt.OTHER_MINT, address("a third coin")):
        for program in (rt.TOKEN, rt.TOKEN_2022):
            ours = get_associated_token_address(rt.WALLET, mint, program)
            for writable in (True, False):
                yield (
                    f"our account of another token, writable={writable}",
                    _adds(ours, mint, writable=writable),
                    ("opaque",),
                )
    known = address("an account that the session knows")
    yield "an account that the session knows", _knows(known), ("opaque",)
    yield "the token account is only read", _reads_token_account, ("opaque",)
    yield "the token account is missing", _without(rt.ACCOUNT), ("opaque",)
    yield "the mint is missing", _without(rt.MINT), ("mint",)
    yield "our wallet is missing", _without(rt.WALLET), ("opaque",)
    for name in ("a market", "a lender", "a mixer"):
        yield f"{name} that is on no list", _more(Instruction(address(name), b"\1" * 8, [])), ("program",)
    for name, data, accounts in (
        ("approve", b"\4" + rt.u64(rt.TOKENS), (rt.ACCOUNT, rt.THIEF, rt.WALLET)),
        ("set_authority", b"\6\2\1" + bytes(rt.THIEF), (rt.ACCOUNT, rt.WALLET)),
        ("burn", b"\x08" + rt.u64(1), (rt.ACCOUNT, rt.MINT, rt.WALLET)),
        ("transfer to a thief", b"\3" + rt.u64(rt.TOKENS), (rt.ACCOUNT, rt.THIEF, rt.WALLET)),
        ("close in favour of a thief", b"\x09", (rt.ACCOUNT, rt.THIEF, rt.WALLET)),
    ):
        rules = ("instruction", "token_transfer", "token_close")
        yield f"token {name} beside it", _more(_of(rt.TOKEN, data, *accounts)), rules
    yield "assign beside it", _more(_of(rt.SYSTEM, b"\1\0\0\0" + bytes(rt.THIEF), rt.WALLET)), ("instruction",)
    gift = transfer(TransferParams(from_pubkey=rt.WALLET, to_pubkey=rt.THIEF, lamports=10**9))
    yield "a transfer to a thief beside it", _more(gift), ("destination",)
    yield "a second signer", _second_signer, ("only_signer",)


def _second_instruction(data: bytes) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.more.append(Instruction(rt.ROUTER, data, list(trade.metas)))

    return change


def _adds(account: Pubkey, mint: Pubkey, *, writable: bool) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.reads(mint)
        (trade.writes if writable else trade.reads)(account)

    return change


def _knows(account: Pubkey) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.writes(account)
        trade.context = attrs.evolve(trade.context, own_token_accounts={str(account)})

    return change


def _reads_token_account(trade: RouterTrade) -> None:
    trade.metas = [
        AccountMeta(meta.pubkey, meta.is_signer, is_writable=meta.is_writable and meta.pubkey != rt.ACCOUNT)
        for meta in trade.metas
    ]


def _without(account: Pubkey) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.metas = [meta for meta in trade.metas if meta.pubkey != account]

    return change


def _of(program: Pubkey, data: bytes, *accounts: Pubkey) -> Instruction:
    metas = [AccountMeta(key, is_signer=key == rt.WALLET, is_writable=True) for key in accounts]
    return Instruction(program, data, metas)


def _more(instruction: Instruction) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.more.append(instruction)

    return change


def _second_signer(trade: RouterTrade) -> None:
    trade.metas.append(AccountMeta(rt.THIEF, is_signer=True, is_writable=False))


# ── what happens inside ──────────────────────────────────────────────────────────────────────────────────────────


def changed_effects() -> Iterator[Mutant]:
    for trade in HONEST:
        for name, change, rules in _effect_changes():
            yield Mutant(name, trade, change, rules)
    for name, change, rules in _sale_changes():
        yield Mutant(name, "sale", change, rules)
    for name, change, rules in _usd1_changes():
        yield Mutant(name, "usd1 sale", change, rules)
    for name, change, rules in _purchase_changes():
        yield Mutant(name, "purchase", change, rules)


def _effect_changes() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    for depth in (2, 3):
        yield f"an unlisted program at depth {depth}", _calls_unlisted(depth), ("program",)
    money = ("lamports", "price", "spend")
    for lamports in (100_000_000, 500_000_000, 3_000_000_000):
        yield f"{lamports} lamports drained by a call", _drains(lamports, is_shown=True), money
        yield f"{lamports} lamports drained without a call", _drains(lamports, is_shown=False), money
    for name, how in (
        ("a delegate", {"delegate": rt.THIEF}), ("a close authority", {"close": rt.THIEF}), ("frozen", {"frozen": True})
    ):  # fmt: skip
        yield f"our account with {name}", _leaves(how), ("own_account",)
    yield "our account with another owner", _gives_away, ("own_account", "amount", "price")
    yield "our wallet assigned", _assigns_wallet, ("own_account",)
    yield "another token of ours", _takes_other_token, ("own_account",)
    for name, item in (
        ("approve", rt.parsed(rt.TOKEN, "approve", 2, source=rt.ACCOUNT, delegate=rt.CURVE, owner=rt.WALLET, amount="1")),
        ("revoke", rt.parsed(rt.TOKEN, "revoke", 2, source=rt.ACCOUNT, owner=rt.WALLET)),
        ("set authority", rt.parsed(rt.TOKEN, "setAuthority", 2, account=rt.ACCOUNT, authority=rt.WALLET)),
        ("burn", rt.parsed(rt.TOKEN, "burn", 2, account=rt.ACCOUNT, mint=rt.MINT, authority=rt.WALLET, amount="1")),
        ("assign", rt.parsed(rt.SYSTEM, "assign", 2, account=rt.WALLET)),
        ("approve, deep", rt.parsed(rt.TOKEN, "approve", 3, source=rt.ACCOUNT, delegate=rt.CURVE, owner=rt.WALLET, amount="1")),
    ):  # fmt: skip
        yield f"{name} inside, whatever it leaves behind", _calls(item), ("instruction",)
    close = rt.parsed(rt.TOKEN, "closeAccount", 2, account=rt.ACCOUNT, destination=rt.CURVE, owner=rt.WALLET)
    yield "our account closed in favour of another", _calls(close), ("own_account",)
    create = rt.parsed(
        rt.ATA, "create", 2, source=rt.WALLET, account=rt.CURVE, wallet=rt.CURVE, mint=rt.MINT,
        systemProgram=rt.SYSTEM, tokenProgram=rt.TOKEN,
    )  # fmt: skip
    yield "a token account for another", _calls(create), ("own_account",)


def _calls(item: dict[str, object]) -> Change:
    def change(trade: RouterTrade) -> None:
        # At the end, below something if it stands deep.
        trade.inner.extend(rt.sold_inside(1)[:1] if trade.side == "sale" else rt.bought_inside(1, 1)[:1])
        trade.inner.append(item)

    return change


def _calls_unlisted(depth: int) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.reads(address("a program of a thief"))
        item = rt.raw(address("a program of a thief"), b"\1", [], depth)
        trade.inner.insert(1, item)
        if depth == 2:
            del trade.inner[2:]

    return change


def _drains(lamports: int, *, is_shown: bool) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.writes(rt.THIEF)
        trade.holds(rt.THIEF, rt.Account(10**9))
        trade.add_lamports(rt.WALLET, -lamports)
        trade.add_lamports(rt.THIEF, lamports)
        if is_shown:
            trade.inner.append(rt.paid(rt.WALLET, rt.THIEF, lamports))

    return change


def _leaves(how: dict[str, object]) -> Change:
    def change(trade: RouterTrade) -> None:
        amount = int.from_bytes(trade.after[rt.ACCOUNT].data[64:72], "little")
        trade.after[rt.ACCOUNT] = rt.token(rt.MINT, rt.WALLET, amount, **how)  # type: ignore[arg-type]

    return change


def _gives_away(trade: RouterTrade) -> None:
    trade.before.setdefault(rt.ACCOUNT, rt.token(rt.MINT, rt.WALLET, 0))
    trade.after[rt.ACCOUNT] = rt.token(rt.MINT, rt.THIEF, rt.TOKENS)


def _assigns_wallet(trade: RouterTrade) -> None:
    trade.after[rt.WALLET] = trade.after[rt.WALLET]._replace(owner=rt.ROUTER)


def _takes_other_token(trade: RouterTrade) -> None:
    """It lies in an account that nobody could derive or know."""
    hidden = address("an account of ours that nobody knows")
    trade.writes(hidden)
    trade.before[hidden] = rt.token(rt.OTHER_MINT, rt.WALLET, 77)
    trade.after[hidden] = rt.token(rt.OTHER_MINT, rt.WALLET, 0)


def _sale_changes() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    for percent in (40, 55, 75, 100):
        for is_shown in (True, False):
            yield (
                f"{percent} % of the proceeds to a thief, shown={is_shown}",
                _diverts(percent, is_shown=is_shown),
                ("price", "lamports"),
            )
    for more in (1, rt.TOKENS):
        yield f"{more} tokens more than signalled", _sells_more(more), ("amount",)
    yield "the market asked for more", _calls(rt.sold_inside(rt.TOKENS + 1)[0]), ("amount",)
    yield "a purchase inside a sale", _calls(rt.bought_inside(1, 1)[0]), ("side",)
    yield "tokens of another account of ours", _sells_elsewhere, ("own_account",)
    for percent in (3, 5, 10):
        yield f"a routing fee of {percent} %", _routes(percent), ("lamports",)
    yield "a gift to the market", _gives_to_the_market, ("lamports",)
    yield "tips beyond their cap", _tips(20_000_000), ("lamports", "price")


def _diverts(percent: int, *, is_shown: bool) -> Change:
    return _drains(rt.PROCEEDS * percent // 100, is_shown=is_shown)


def _sells_more(more: int) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.before[rt.ACCOUNT] = rt.token(rt.MINT, rt.WALLET, rt.TOKENS + more)

    return change


def _sells_elsewhere(trade: RouterTrade) -> None:
    elsewhere = address("another account of ours for the coin")
    trade.writes(elsewhere)
    trade.before[elsewhere] = rt.token(rt.MINT, rt.WALLET, 5)
    trade.after[elsewhere] = rt.token(rt.MINT, rt.WALLET, 0)
    trade.after[rt.ACCOUNT] = rt.token(rt.MINT, rt.WALLET, 5)


def _routes(percent: int) -> Change:
    def change(trade: RouterTrade) -> None:
        more = rt.PROCEEDS * percent // 100 - rt.ROUTING
        trade.add_lamports(rt.WALLET, -more)
        trade.add_lamports(rt.VAULT, more)
        trade.inner[-1] = rt.paid(rt.WALLET, rt.VAULT, rt.ROUTING + more)

    return change


def _gives_to_the_market(trade: RouterTrade) -> None:
    """To a pool of which the thief owns a share."""
    trade.add_lamports(rt.WALLET, -300_000_000)
    trade.add_lamports(rt.CURVE, 300_000_000)
    trade.inner.append(rt.paid(rt.WALLET, rt.CURVE, 300_000_000))


def _tips(lamports: int) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.writes(rt.SENDER_TIP)
        trade.holds(rt.SENDER_TIP, rt.Account(10**9))
        trade.add_lamports(rt.SENDER_TIP, lamports)
        trade.add_lamports(rt.WALLET, -lamports)
        trade.inner.append(rt.paid(rt.WALLET, rt.SENDER_TIP, lamports))

    return change


def _usd1_changes() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    ours = get_associated_token_address(rt.WALLET, rt.USD1, rt.TOKEN)
    for units in (0, 1, 90_000_000):
        yield f"{units} USD1 units come", _brings_usd1(ours, units, to_thief=False), ("price",)
    for percent in (3, 6, 60):
        units = 200_000_000 * (100 - percent) // 100
        yield f"{percent} % of the USD1 to a thief", _brings_usd1(ours, units, to_thief=True), ("lamports", "price")
    yield "lamports in place of USD1", _pays_lamports(ours), ("price",)
    yield "a few lamports lost", _drains(9_000_000, is_shown=True), ("lamports",)


def _brings_usd1(ours: Pubkey, units: int, *, to_thief: bool) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.after[ours] = rt.token(rt.USD1, rt.WALLET, units)
        if to_thief:
            vault = address("usd1 fees")
            trade.after[vault] = rt.token(rt.USD1, rt.VAULT, 10**9 + 200_000_000 - units)

    return change


def _pays_lamports(ours: Pubkey) -> Change:
    """As many lamports as USD1 units were due: hardly anything."""

    def change(trade: RouterTrade) -> None:
        trade.after[ours] = trade.before[ours]
        trade.add_lamports(rt.WALLET, 196_000_000)

    return change


def _purchase_changes() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    yield "no tokens come", _brings_no_tokens, ("price",)
    yield "tokens go", _takes_tokens, ("side", "price")
    for lamports in (60_000_000, 300_000_000):
        yield f"it costs {lamports} lamports more, to the market", _costs_more(lamports), ("spend",)
    yield "a sale inside a purchase", _calls(rt.sold_inside(1)[0]), ("side",)


def _brings_no_tokens(trade: RouterTrade) -> None:
    trade.after[rt.ACCOUNT] = rt.token(rt.MINT, rt.WALLET, 0)


def _takes_tokens(trade: RouterTrade) -> None:
    trade.before[rt.ACCOUNT] = rt.token(rt.MINT, rt.WALLET, 9)
    trade.after[rt.ACCOUNT] = rt.token(rt.MINT, rt.WALLET, 0)


def _costs_more(lamports: int) -> Change:
    def change(trade: RouterTrade) -> None:
        trade.add_lamports(rt.WALLET, -lamports)
        trade.add_lamports(rt.CURVE, lamports)

    return change


# ── none of them is signed ───────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def guarded(node: SolanaNode, **options: object) -> Iterator[SigningGuard]:
    with contextlib.closing(SigningGuard(rpc=node.url, max_buy_lamports=1_000_000_000, **options)) as guard:  # type: ignore[arg-type]
        yield guard


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(key for key, value in way.items() if value) or "plain")
@pytest.mark.parametrize("name", HONEST)
def test_opaque_honest_trade_is_signed(name, way):
    """So that it is the change that is refused below, and not the way it is made."""
    with SolanaNode() as node, guarded(node) as guard:
        trade = HONEST[name](**way)
        trade.answers(node)
        assert SIGNER.sign(trade.signal(), guard=guard, context=trade.context)


def test_opaque_changed_trades_none_is_signed():
    counted = 0
    ways = random.Random(7)
    with SolanaNode() as node, guarded(node) as guard:
        for mutant in [*changed_transactions(), *changed_effects()]:
            for way in WAYS if mutant.trade != "purchase" else ways.sample(WAYS, 2):
                trade = HONEST[mutant.trade](**way)
                mutant.change(trade)
                trade.answers(node)
                guard._simulating._simulators.peers[0].says_before = None
                with pytest.raises(UnsafeTransactionError) as refusal:
                    SIGNER.sign(trade.signal(), guard=guard, context=trade.context)
                broken = {offence.rule for offence in refusal.value.offences}
                assert broken & set(mutant.rules), f"{mutant.trade}, {mutant.name}, {way}: {refusal.value}"
                counted += 1
    print(f"{counted} changed trades")
    assert counted >= 300
