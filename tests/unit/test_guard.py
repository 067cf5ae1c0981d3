"""The signing guard: what the markets build passes; what is changed in it, by rule, does not."""

from __future__ import annotations

import base64
import pickle
import random
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import (
    request_heap_frame,
    set_compute_unit_limit,
    set_compute_unit_price,
    set_loaded_accounts_data_size_limit,
)
from solders.hash import Hash
from solders.instruction import AccountMeta, CompiledInstruction, Instruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from lasersell_sync.exceptions import ConfigurationError, UnsafeTransactionError
from lasersell_sync.messages import ExitSignalWithTx
from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS, TOKEN_PROGRAM, USD1_MINT, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.anchor import discriminator
from lasersell_sync.sandbox.chain.instructions import close_token_account, create_token_account
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.exchange.orders import PartnerFee
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.addresses import token_account
from lasersell_sync.trading.guard.programs import known_programs
from lasersell_sync.trading.guard.rules import RULES
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest, BuildTxResponse
from tests.support.market_transactions import (
    BLOCKHASH,
    BUDGETS,
    MARKETS,
    SEND_MODES,
    Desk,
    Draft,
    blank,
    desk,
    draft,
    stranger,
)
from tests.support.transactions import MANY, AnyMessage, messages, unsigned_bytes

SYSTEM = "11111111111111111111111111111111"
TOKEN = str(TOKEN_PROGRAM)
TOKEN_2022 = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"
ASSOCIATED = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
BUDGET = "ComputeBudget111111111111111111111111111111"
MEMO = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
PROGRAMS = {
    "pump_fun": "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
    "pump_swap": "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA",
    "raydium_cpmm": "CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C",
    "raydium_launchpad": "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj",
    "meteora_dbc": "dbcij3LWUppWqq96dh6gJWwBifmcGfLSB5D4DuSMaqN",
    "meteora_damm_v2": "cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG",
}
#: Rules about what a session knows; test_guard_position.py has theirs.
NEED_A_POSITION = {"price", "announced", "never_sell", "pool"}
#: About programs whose layout nobody knows; test_guard_opaque.py has theirs.
NEED_A_NODE = {"opaque"}
#: About a partner; test_guard_requests.py has theirs.
NEED_A_PARTNER = {"partner_fee"}
#: Rules about currencies; test_guard_formats.py has theirs.
NEED_TWO_CURRENCIES = {"exchange", "output"}
#: Of which nothing is allowed.
REFUSED_PROGRAMS = {
    "stake": "Stake11111111111111111111111111111111111111",
    "vote": "Vote111111111111111111111111111111111111111",
    "config": "Config1111111111111111111111111111111111111",
    "address_lookup_table": "AddressLookupTab1e1111111111111111111111111",
    "native_loader": "NativeLoader1111111111111111111111111111111",
    "loader": "BPFLoader1111111111111111111111111111111111",
    "loader_v2": "BPFLoader2111111111111111111111111111111111",
    "upgradeable_loader": "BPFLoaderUpgradeab1e11111111111111111111111",
    "loader_v4": "LoaderV411111111111111111111111111111111111",
}
STRANGER = stranger()
PARTNER = stranger(7)
#: Enough for what the desks buy, and no more.
CAPPED = {"max_buy_lamports": 10**9 * 105 // 100, "max_buy_usd1_units": 150 * 10**6 * 105 // 100}
MARKET_CASES = pytest.mark.parametrize(("market", "quote"), MARKETS, ids=lambda value: value)


def refusal(tx_b64: str, guard: SigningGuard, wallet: str, **more: object) -> UnsafeTransactionError:
    with pytest.raises(UnsafeTransactionError) as caught:
        guard.check(tx_b64, wallet=wallet, **more)  # type: ignore[arg-type]
    return caught.value


def selling(trader: Desk, tokens: int = 10**9) -> BuildSellTxRequest:
    return BuildSellTxRequest(trader.mint, trader.address, tokens, trader.quote, 500)


def buying(trader: Desk, slippage_bps: int = 500, **more: object) -> BuildBuyTxRequest:
    budget = BUDGETS[trader.quote]
    return BuildBuyTxRequest(
        trader.mint, trader.address, slippage_bps, amount_in_total=budget, input=trader.quote, **more
    )  # type: ignore[arg-type]


# ── what passes ──


@MARKET_CASES
@pytest.mark.parametrize("send_mode", SEND_MODES)
def test_what_the_sandbox_builds_passes(market: str, quote: str, send_mode: str):
    """Every market, currency and send mode; asked for by request, and as text alone under a cap."""
    trader, guard, capped = desk(market, quote), SigningGuard(), SigningGuard(**CAPPED)
    for tx_b64, request in ((trader.buy(send_mode), buying(trader)), (trader.sell(send_mode), selling(trader))):
        checked = guard.check(tx_b64, wallet=trader.address, request=request)
        assert checked.raw == base64.b64decode(tx_b64)
        assert guard.explain(tx_b64, request=request).accepted
        capped.check(tx_b64, wallet=trader.address)
        capped.check(BuildTxResponse(tx_b64), wallet=trader.address, request=request)


@MARKET_CASES
@pytest.mark.parametrize("send_mode", SEND_MODES)
def test_what_the_stream_signals_passes(market: str, quote: str, send_mode: str):
    """Exit signals and copies of purchases, as they come over the wire."""
    trader = Desk(market, quote)
    exit_signal, buy_signal = trader.signals(send_mode)
    SigningGuard().check(exit_signal, wallet=trader.address)
    generous = SigningGuard(max_buy_lamports=2 * 10**9, max_buy_usd1_units=200 * 10**6)
    generous.check(buy_signal, wallet=trader.address)
    assert "max_buy" in refusal(buy_signal, SigningGuard(), trader.address).remedy  # type: ignore[arg-type]


@MARKET_CASES
@pytest.mark.parametrize("fee", [PartnerFee(PARTNER, bps=50), PartnerFee(PARTNER, lamports=50_000_000)])
def test_partner_fees_pass_when_the_partner_is_known(market: str, quote: str, fee: PartnerFee):
    """By the guard's configuration or by the user's own request; to nobody else."""
    trader = desk(market, quote)
    for tx_b64, request in (
        (trader.buy(partner_fee=fee), attrs.evolve(buying(trader), partner_fee_recipient=str(PARTNER))),
        (
            trader.sell(partner_fee=fee, tokens=10**12),
            attrs.evolve(selling(trader, 10**12), partner_fee_recipient=str(PARTNER)),
        ),
    ):
        SigningGuard().check(tx_b64, wallet=trader.address, request=request)
        SigningGuard(partner=str(PARTNER), **CAPPED).check(tx_b64, wallet=trader.address)
        error = refusal(tx_b64, SigningGuard(**CAPPED), trader.address)
        assert (error.rule, error.account) == ("destination", str(PARTNER))


def test_a_budget_in_human_units_is_the_same_cap():
    """amount=1.0 SOL is 10**9 lamports."""
    trader = desk("pump_fun")
    request = BuildBuyTxRequest(trader.mint, trader.address, 500, amount=1.0)
    SigningGuard().check(trader.buy(), wallet=trader.address, request=request)
    less = BuildBuyTxRequest(trader.mint, trader.address, 500, amount=0.999)
    assert refusal(trader.buy(), SigningGuard(), trader.address, request=less).rule == "spend"


def test_an_empty_signature_list_and_legacy_messages_pass():
    """Neither changes what is signed."""
    trader = desk("pump_swap")
    parts = draft(trader.sell())
    legacy = blank(Message.new_with_blockhash(parts.instructions, parts.payer, BLOCKHASH))
    empty = base64.b64encode(unsigned_bytes(parts.message(), empty_list=True)).decode()
    for tx_b64 in (legacy, empty):
        SigningGuard().check(tx_b64, wallet=trader.address, request=selling(trader))


# ── what does not: every case changes one thing in a transaction that passes ──


class Case(NamedTuple):
    """One mutated transaction and the rule that must refuse it."""

    rule: str
    name: str
    tx_b64: str
    trader: Desk
    request: BuildSellTxRequest | BuildBuyTxRequest | None
    account: Pubkey | None = None


_BASES: list[tuple[str, str, str]] = [(market, "SOL", side) for market in PROGRAMS for side in ("buy", "sell")]


def bases() -> Iterator[tuple[str, Desk, Draft, BuildSellTxRequest | BuildBuyTxRequest]]:
    """A purchase and a sale on each market, sent through a sender, so that a tip is in it."""
    for market, quote, side in _BASES:
        trader = desk(market, quote)
        tx_b64 = trader.buy("helius_sender") if side == "buy" else trader.sell("helius_sender")
        yield f"{market}-{side}", trader, draft(tx_b64), buying(trader) if side == "buy" else selling(trader)


def token_call(tag: int, body: bytes, *accounts: Pubkey, program: str = TOKEN, owner: Pubkey) -> Instruction:
    metas = [AccountMeta(account, False, True) for account in accounts] + [AccountMeta(owner, True, False)]
    return Instruction(Pubkey.from_string(program), bytes([tag]) + body, metas)


def system_call(tag: int, body: bytes, owner: Pubkey, *accounts: Pubkey) -> Instruction:
    metas = [AccountMeta(owner, True, True), *(AccountMeta(account, False, True) for account in accounts)]
    return Instruction(Pubkey.from_string(SYSTEM), struct.pack("<I", tag) + body, metas)


def pay(source: Pubkey, target: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=source, to_pubkey=target, lamports=lamports))


def seeded(wallet: Pubkey, *, seed: str = "wsol", lamports: int = 2_039_280, owner: Pubkey = TOKEN_PROGRAM,
           address: Pubkey | None = None) -> Instruction:  # fmt: skip
    made = Pubkey.create_with_seed(wallet, seed, owner) if address is None else address
    text = seed.encode()
    body = bytes(wallet) + struct.pack("<Q", len(text)) + text + struct.pack("<QQ", lamports, 165) + bytes(owner)
    return system_call(3, body, wallet, made)


def initialize(account: Pubkey, owner: Pubkey, mint: Pubkey = WRAPPED_SOL_MINT, tag: int = 18) -> Instruction:
    listed = [account, mint] + ([owner] if tag == 1 else []) + ([stranger(9)] if tag in (1, 16) else [])
    metas = [AccountMeta(key, False, n == 0) for n, key in enumerate(listed)]
    return Instruction(TOKEN_PROGRAM, bytes([tag]) + (b"" if tag == 1 else bytes(owner)), metas)


def mutations(trader: Desk, base: Draft, market: str, *, buys: bool) -> Iterator[tuple[str, str, Draft, Pubkey | None]]:
    """(rule, what was done, the result, the account that the error must name)."""
    us, coin, wsol = (
        base.payer,
        token_address(base.payer, trader.listing.mint),
        token_address(base.payer, WRAPPED_SOL_MINT),
    )
    program = Pubkey.from_string(PROGRAMS[market])
    swap = base.index(str(program))
    data = base.instructions[swap].data
    tip = base.index(SYSTEM, struct.pack("<I", 2) + struct.pack("<Q", 1000))
    # who signs
    yield "fee_payer", "stranger pays", base._replace(payer=STRANGER), STRANGER
    yield "only_signer", "second signer", base.with_more(
        Instruction(program, data, [AccountMeta(STRANGER, True, False), *base.instructions[swap].accounts])
    ), STRANGER  # fmt: skip
    # what is called
    for number, unknown in enumerate((MEMO, "pfeeUxB6jkeY1Hxd7CsFCAjcbHA9rWtchMGdZ6VojVZ", str(stranger(3)))):
        more = Instruction(Pubkey.from_string(unknown), bytes([number]) * number, [AccountMeta(us, True, True)])
        yield "program", f"calls {unknown[:4]}", base.with_more(more), Pubkey.from_string(unknown)
    u64 = struct.pack("<Q", 10**9)
    forbidden = {
        "create_account": system_call(0, u64 + u64 + bytes(32), us, STRANGER),
        "assign": system_call(1, bytes(STRANGER), us),
        "advance_nonce": system_call(4, b"", us, STRANGER),
        "withdraw_nonce": system_call(5, u64, us, STRANGER),
        "initialize_nonce": system_call(6, bytes(us), us),
        "authorize_nonce": system_call(7, bytes(STRANGER), us),
        "allocate": system_call(8, u64, us),
        "allocate_with_seed": system_call(9, bytes(32) + u64, us),
        "assign_with_seed": system_call(10, bytes(32) + u64, us),
        "transfer_with_seed": system_call(11, u64, us, STRANGER),
        "upgrade_nonce": system_call(12, b"", us),
        "cut transfer": Instruction(Pubkey.from_string(SYSTEM), struct.pack("<I", 2) + b"\x01", [AccountMeta(us, True, True)]),
        "approve": token_call(4, u64, coin, STRANGER, owner=us),
        "approve 2022": token_call(4, u64, coin, STRANGER, program=TOKEN_2022, owner=us),
        "revoke": token_call(5, b"", coin, owner=us),
        "set_authority": token_call(6, b"\x02\x01" + bytes(STRANGER), coin, owner=us),
        "set_authority 2022": token_call(6, b"\x02\x01" + bytes(STRANGER), coin, program=TOKEN_2022, owner=us),
        "close authority": token_call(6, b"\x03\x01" + bytes(STRANGER), wsol, owner=us),
        "mint_to": token_call(7, u64, trader.listing.mint, STRANGER, owner=us),
        "burn": token_call(8, u64, coin, trader.listing.mint, owner=us),
        "freeze": token_call(10, b"", coin, trader.listing.mint, owner=us),
        "thaw": token_call(11, b"", coin, trader.listing.mint, owner=us),
        "approve_checked": token_call(13, u64 + b"\x06", coin, trader.listing.mint, STRANGER, owner=us),
        "burn_checked": token_call(15, u64 + b"\x06", coin, trader.listing.mint, owner=us),
        "transfer with fee": token_call(26, b"\x01" + u64, coin, STRANGER, program=TOKEN_2022, owner=us),
        "recover_nested": Instruction(Pubkey.from_string(ASSOCIATED), b"\x02", [AccountMeta(us, True, True)] * 7),
        "request_units": Instruction(Pubkey.from_string(BUDGET), bytes(9), []),
        "other market call": Instruction(program, discriminator("withdraw") + data[8:], base.instructions[swap].accounts),
    }  # fmt: skip
    for name, instruction in forbidden.items():
        yield "instruction", name, base.with_more(instruction), instruction.program_id
    yield "instruction", "swap cut short", base.with_data(swap, data[:20]), program
    # where lamports go
    for number, lamports in enumerate((1, 1000, 10**9)):
        yield (
            "destination",
            f"{lamports} to a stranger",
            base.with_more(pay(us, stranger(number), lamports)),
            stranger(number),
        )
    yield "destination", "tip to a stranger", base.with_account(tip, 1, STRANGER), STRANGER
    yield "destination", "to a stranger's wrapped SOL", base.with_more(
        pay(us, token_address(STRANGER, WRAPPED_SOL_MINT), 5)
    ), None  # fmt: skip
    tip_account = base.instructions[tip].accounts[1].pubkey
    other_tip = next(key for key in TIP_ACCOUNTS["astralane"])
    yield "lamports", "tip bomb", base.with_data(tip, struct.pack("<IQ", 2, 10_000_001)), tip_account
    yield "lamports", "two tips", base.with_more(pay(us, other_tip, 5_000_000), pay(us, tip_account, 5_000_000)), None
    yield "lamports", "wraps the wallet", base.with_more(pay(us, wsol, 50 * 10**9)), wsol
    creations = [create_token_account(us, stranger())] * 5
    yield (
        "lamports",
        "rent for many accounts",
        base.with_more(*creations, pay(us, wsol, 1_100_000_000 if buys else 0)),
        None,
    )
    # created accounts
    yield "account_creation", "for a stranger", base.with_more(
        Instruction(Pubkey.from_string(ASSOCIATED), b"\x01", [
            AccountMeta(us, True, True), *create_token_account(STRANGER, trader.listing.mint).accounts[1:]])
    ), STRANGER  # fmt: skip
    made = Pubkey.create_with_seed(us, "wsol", TOKEN_PROGRAM)
    yield "account_creation", "not initialized", base.with_more(seeded(us)), made
    for tag in (1, 16, 18):
        yield "account_creation", f"initialized for a stranger ({tag})", base.with_more(
            seeded(us), initialize(made, STRANGER, tag=tag)
        ), made  # fmt: skip
    yield "account_creation", "another token", base.with_more(seeded(us), initialize(made, us, USD1_MINT)), made
    yield (
        "account_creation",
        "another program's",
        base.with_more(seeded(us, owner=STRANGER), initialize(made, us)),
        None,
    )
    yield (
        "account_creation",
        "elsewhere",
        base.with_more(seeded(us, address=STRANGER), initialize(STRANGER, us)),
        STRANGER,
    )
    # fees
    price = base.index(BUDGET, b"\x03")
    limit = base.index(BUDGET, b"\x02")
    budget_program = Pubkey.from_string(BUDGET)
    for number in (25_000_001, 10**9, 2**63, 2**64 - 1):
        yield (
            "priority_fee",
            f"price {number}",
            base.with_data(price, b"\x03" + struct.pack("<Q", number)),
            budget_program,
        )
    yield "priority_fee", "second price", base.with_more(set_compute_unit_price(1)), budget_program
    yield "priority_fee", "second limit", base.with_more(set_compute_unit_limit(1)), budget_program
    heap, loaded = request_heap_frame(64 * 1024), set_loaded_accounts_data_size_limit(2**22)
    yield "priority_fee", "second heap", base.with_more(heap, heap), budget_program
    yield "priority_fee", "second data limit", base.with_more(loaded, loaded), budget_program
    for units in (0, 1, 5_000, 9_999):
        yield (
            "compute_budget",
            f"{units} units",
            base.with_data(limit, b"\x02" + struct.pack("<I", units)),
            budget_program,
        )
    for size in (0, 1, 32 * 1024 - 1024, 33_000, 256 * 1024 + 1024, 2**32 - 1):
        yield "compute_budget", f"heap of {size}", base.with_more(request_heap_frame(size)), budget_program
    for size in (0, 1, 10_000, 65_535):
        small = base.with_more(set_loaded_accounts_data_size_limit(size))
        yield "compute_budget", f"{size} bytes of accounts", small, budget_program
    yield "priority_fee", "price without limit", base.without(limit).with_more().with_data(
        price - (limit < price), b"\x03" + struct.pack("<Q", 10**7)
    ), budget_program  # fmt: skip
    # where tokens go
    yield "token_transfer", "transfer", base.with_more(token_call(3, u64, coin, STRANGER, owner=us)), STRANGER
    yield "token_transfer", "transfer 2022", base.with_more(
        token_call(3, u64, coin, STRANGER, program=TOKEN_2022, owner=us)
    ), STRANGER  # fmt: skip
    theirs = token_address(STRANGER, trader.listing.mint)
    yield "token_transfer", "transfer_checked", base.with_more(
        token_call(12, u64 + b"\x06", coin, trader.listing.mint, theirs, owner=us)
    ), theirs  # fmt: skip
    yield "token_transfer", "checked, of another mint", base.with_more(
        token_call(12, u64 + b"\x06", coin, STRANGER, token_address(us, USD1_MINT), owner=us)
    ), token_address(us, USD1_MINT)  # fmt: skip
    close = close_token_account(wsol, us)
    yield "token_close", "to a stranger", base.with_more(
        Instruction(close.program_id, close.data, [close.accounts[0], AccountMeta(STRANGER, False, True), close.accounts[2]])
    ), STRANGER  # fmt: skip
    yield "token_close", "the coin's, to a stranger", base.with_more(
        Instruction(close.program_id, close.data, [AccountMeta(coin, False, True), AccountMeta(theirs, False, True), close.accounts[2]])
    ), theirs  # fmt: skip
    # the swap itself
    known = known_programs().programs[bytes(program)]
    layout = known.allowed[data[:8]].swap
    assert layout is not None
    yield "own_account", "trades for a stranger", base.with_account(swap, layout.user, STRANGER), STRANGER
    if layout.target is not None:
        yield "own_account", "pays a stranger", base.with_account(swap, layout.target, STRANGER), STRANGER
        yield "own_account", "pays a stranger's account", base.with_account(swap, layout.target, theirs), theirs
    if layout.source is not None:
        yield "own_account", "takes from elsewhere", base.with_account(swap, layout.source, STRANGER), STRANGER
    if layout.zero is not None:
        share = data[: layout.zero] + struct.pack("<Q", 1) + data[layout.zero + 8 :]
        yield "own_account", "gives a share", base.with_data(swap, share), None
    yield "mint", "nothing traded", base.without(swap), None
    at = layout.most_in[data[24] if len(layout.most_in) > 1 else 0]
    for number in (1, 10**6, 2**63):
        amount = min(2**64 - 1, struct.unpack_from("<Q", data, at)[0] + number)
        dearer = base.with_data(swap, data[:at] + struct.pack("<Q", amount) + data[at + 8 :])
        yield "spend" if buys else "amount", f"{number} more", dearer, None
    twice = base.with_more(base.instructions[swap])
    yield "spend" if buys else "amount", "twice", twice, None


def other_requests(trader: Desk, tx_b64: str, *, buys: bool) -> Iterator[Case]:
    """The transaction is fine, and not what was asked for."""
    right = buying(trader) if buys else selling(trader)
    for number in range(2):
        wrong_mint = attrs.evolve(right, mint=str(stranger(number)))
        yield Case("mint", f"another token {number}", tx_b64, trader, wrong_mint, stranger(number))
        wrong_wallet = attrs.evolve(right, user_pubkey=str(stranger(number)))
        yield Case("wallet", f"another wallet {number}", tx_b64, trader, wrong_wallet, stranger(number))
    yield Case("side", "the other side", tx_b64, trader, selling(trader) if buys else buying(trader))
    if buys:
        usd1 = attrs.evolve(buying(trader), input="USD1")
        yield Case("spend", "another currency", tx_b64, trader, usd1)
        yield Case("spend", "no cap", tx_b64, trader, None)


def broken_encodings(trader: Desk, base: Draft, tx_b64: str) -> Iterator[Case]:
    raw = base64.b64decode(tx_b64)
    n = raw[68]
    spellings = {
        "a byte behind": raw + b"\0",
        "a transaction behind": raw + raw,
        "cut by one": raw[:-1],
        "cut in half": raw[: len(raw) // 2],
        "long length": raw[:68] + bytes([n | 0x80, 0]) + raw[69:],
        "two signatures": b"\x02" + raw[1:65] * 2 + raw[65:],
        "version 1 behind signatures": raw[:65] + b"\x81" + raw[66:],
        "version 2": raw[:65] + b"\x82" + raw[66:],
        "no signers": raw[:66] + b"\0" + raw[67:],
        "account out of range": blank_wild(base),
        "too long": base64.b64decode(base.with_data(0, base.instructions[0].data + bytes(800)).b64()),
    }
    request = None
    for name, mutated in spellings.items():
        yield Case("encoding", name, base64.b64encode(mutated).decode(), trader, request)
    yield Case("encoding", "not base64", tx_b64[:-4] + "!!!!", trader, request)
    yield Case("encoding", "no text", "", trader, request)


def blank_wild(base: Draft) -> bytes:
    """The last instruction calls an account that does not exist."""
    message = base.message()
    items = [*message.instructions[:-1], CompiledInstruction(250, b"", b"")]
    wild = MessageV0(message.header, message.account_keys, message.recent_blockhash, items, [])
    return base64.b64decode(blank(wild))


def hidden(trader: Desk, base: Draft, request: BuildSellTxRequest | BuildBuyTxRequest) -> Iterator[Case]:
    """Accounts in look-up tables that nobody fetched."""
    table = stranger(50)
    listed = {meta.pubkey for item in base.instructions for meta in item.accounts if not meta.is_signer}
    alone = next(key for key in sorted(listed, key=bytes) if key not in {item.program_id for item in base.instructions})
    with_thief = base.with_more(pay(base.payer, STRANGER, 10**9))
    for name, parts, entries in (
        ("everything", base, list(listed)),
        ("one account", base, [alone]),
        ("a thief", with_thief, [STRANGER]),
        ("a thief among many", with_thief, [*listed, STRANGER]),
    ):
        tx_b64 = parts.b64([AddressLookupTableAccount(table, entries)])
        yield Case("lookup_table", name, tx_b64, trader, request, table)


def cases() -> list[Case]:
    found = []
    for name, trader, base, request in bases():
        market, _, side = name.partition("-")
        buys = side == "buy"
        for rule, what, mutated, account in mutations(trader, base, market, buys=buys):
            found.append(Case(rule, f"{name}: {what}", mutated.b64(), trader, request, account))
        tx_b64 = base.b64()
        blockless = blank(base.message(blockhash=Hash.default()))
        found.append(Case("blockhash", f"{name}: no blockhash", blockless, trader, request))
        more = [
            *other_requests(trader, tx_b64, buys=buys),
            *broken_encodings(trader, base, tx_b64),
            *hidden(trader, base, request),
        ]
        found += [case._replace(name=f"{name}: {case.name}") for case in more]
    return found


def test_every_mutated_transaction_is_refused_by_its_rule():
    """Hundreds of transactions, each with one thing changed; the rule that is meant is among the broken ones."""
    counted: dict[str, int] = {}
    guard = SigningGuard()
    for case in cases():
        counted[case.rule] = counted.get(case.rule, 0) + 1
        refusal(case.tx_b64, guard, case.trader.address, request=case.request)
        report = guard.explain(case.tx_b64, wallet=case.trader.address, request=case.request)
        assert not report.accepted, case.name
        assert case.rule in report.broken, f"{case.name}: {report}"
        if case.account is not None:
            named = [
                verdict.error.account for verdict in report.verdicts if verdict.error and verdict.rule == case.rule
            ]
            assert named == [str(case.account)], f"{case.name}: {report}"
    print(f"{sum(counted.values())} mutated transactions: {counted}")
    assert sum(counted.values()) >= 200
    elsewhere = NEED_A_POSITION | NEED_A_NODE | NEED_TWO_CURRENCIES | NEED_A_PARTNER
    assert set(counted) == {"encoding", *(rule.name for rule in RULES)} - elsewhere
    assert min(counted.values()) >= 12, counted


def test_the_unchanged_transactions_pass_when_taken_apart_and_put_together():
    """So that it is the change that is refused above, and not the way it is made."""
    for name, trader, base, request in bases():
        report = SigningGuard().explain(base.b64(), wallet=trader.address, request=request)
        assert report.accepted, f"{name}: {report}"


# ── signals ──


@pytest.fixture(scope="module")
def signalled() -> tuple[Desk, ExitSignalWithTx]:
    trader = Desk("raydium_cpmm")
    return trader, trader.signals("helius_sender")[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"wallet_pubkey": str(STRANGER)}, "wallet"),
        ({"wallet_pubkey": "nonsense"}, "wallet"),
        ({"mint": str(STRANGER)}, "mint"),
        ({"mint": "0"}, "wallet"),
        ({"sell_tokens": 1}, "amount"),
        ({"position_tokens": 1}, "amount"),
    ],
)
def test_a_signal_that_does_not_fit_its_transaction(signalled: tuple[Desk, ExitSignalWithTx], change: dict[str, object], rule: str):  # fmt: skip
    """Another wallet, another token, more than was signalled."""
    trader, signal = signalled
    SigningGuard().check(signal, wallet=trader.address)
    changed = attrs.evolve(signal, **change)
    assert refusal(changed, SigningGuard(), trader.address).rule == rule  # type: ignore[arg-type]
    assert not SigningGuard().explain(changed, wallet=trader.address).accepted


def test_a_signalled_account_may_be_sold_from_and_never_paid_to(signalled: tuple[Desk, ExitSignalWithTx]):
    """Tokens may lie elsewhere than in the associated account; proceeds must not go where the server says."""
    trader, signal = signalled
    parts = draft(signal.unsigned_tx_b64)
    swap = parts.index(PROGRAMS["raydium_cpmm"])
    elsewhere = attrs.evolve(
        signal, token_account=str(STRANGER), unsigned_tx_b64=parts.with_account(swap, 4, STRANGER).b64()
    )
    SigningGuard().check(elsewhere, wallet=trader.address)
    stolen = attrs.evolve(
        signal, token_account=str(STRANGER), unsigned_tx_b64=parts.with_account(swap, 5, STRANGER).b64()
    )
    error = refusal(stolen, SigningGuard(), trader.address)  # type: ignore[arg-type]
    assert (error.rule, error.account) == ("own_account", str(STRANGER))


def swap_accounts(market: str, instruction: str) -> tuple[int, int]:
    """Which of the instruction's accounts pays, and which is paid."""
    program = known_programs().programs[bytes(Pubkey.from_string(PROGRAMS[market]))]
    layout = program.allowed[discriminator(instruction)].swap
    assert layout is not None
    assert layout.source is not None
    assert layout.target is not None
    return layout.source, layout.target


@pytest.mark.parametrize("market", ["meteora_dbc", "meteora_damm_v2"])
def test_a_swap_that_could_be_either_is_taken_for_a_purchase(market: str):
    """Where the program goes by the accounts, a server cannot call a purchase a sale by naming the account that pays."""
    trader = desk(market)
    parts = draft(trader.buy())
    swap = parts.index(PROGRAMS[market])
    source, _ = swap_accounts(market, "swap2")
    wsol = token_address(trader.wallet.pubkey(), WRAPPED_SOL_MINT)
    assert parts.instructions[swap].accounts[source].pubkey == wsol
    signal = attrs.evolve(
        Desk(market).signals("rpc")[0], token_account=str(wsol), unsigned_tx_b64=parts.b64(), position_tokens=2**63
    )
    report = SigningGuard().explain(signal, wallet=trader.address)
    assert {"side", "spend"} <= set(report.broken), report


@pytest.mark.parametrize("market", ["meteora_dbc", "meteora_damm_v2"])
def test_when_nobody_can_tell_which_way_it_goes_it_spends(market: str):
    """Both accounts are ones that only the user knows: the cap for purchases decides."""
    trader = desk(market)
    parts = draft(trader.sell())
    swap = parts.index(PROGRAMS[market])
    source, target = swap_accounts(market, "swap")
    ours = [stranger(20), stranger(21)]
    tx_b64 = parts.with_account(swap, source, ours[0]).with_account(swap, target, ours[1]).b64()
    known = [str(key) for key in ours]
    assert refusal(tx_b64, SigningGuard(own_accounts=known), trader.address).rule == "spend"
    SigningGuard(own_accounts=known, max_buy_lamports=10**9).check(tx_b64, wallet=trader.address)


@pytest.mark.parametrize("market", ["meteora_dbc", "meteora_damm_v2"])
@pytest.mark.parametrize("pays", ["coin", "wsol", "stranger"])
@pytest.mark.parametrize("paid", ["coin", "wsol", "stranger"])
def test_the_account_that_pays_tells_which_way_it_goes(market: str, pays: str, paid: str):
    """Else the one that is paid does; when neither is ours, it is a purchase."""
    trader = desk(market)
    parts = draft(trader.sell())
    swap = parts.index(PROGRAMS[market])
    source, target = swap_accounts(market, "swap2")
    us, mint = trader.wallet.pubkey(), trader.listing.mint
    accounts = {"coin": token_address(us, mint), "wsol": token_address(us, WRAPPED_SOL_MINT), "stranger": STRANGER}
    parts = parts.with_account(swap, source, accounts[pays]).with_account(swap, target, accounts[paid])
    sells = pays == "coin" or (pays == "stranger" and paid == "wsol")
    line = next(line for line in SigningGuard().explain(parts.b64()).lines if market in line)
    assert (f"units of {mint}, gets at least" in line) == sells, line
    assert ("lamports, gets at least" in line) != sells, line


@MARKET_CASES
def test_a_tokens_first_sale_derives_no_account_of_it(market: str, quote: str, monkeypatch: pytest.MonkeyPatch):
    """That would take a third of the time of the whole check, and the signal names the account."""
    trader = Desk(market, quote)
    signal, _ = trader.signals("rpc")
    derived_of = []

    def noted(wallet: bytes, mint: bytes, token_program: bytes) -> bytes:
        derived_of.append(mint)
        return token_account(wallet, mint, token_program)

    monkeypatch.setattr("lasersell_sync.trading.guard.decoded.token_account", noted)
    SigningGuard().check(signal, wallet=trader.address)
    assert set(derived_of) <= set(known_programs().currencies)


# ── look-up tables ──


def test_a_known_look_up_table_is_looked_into():
    """What is in it is judged like anything else: own things pass, a thief does not, and neither does what is missing."""
    trader, table = desk("pump_swap"), stranger(50)
    parts = draft(trader.sell())
    listed = [meta.pubkey for item in parts.instructions for meta in item.accounts if not meta.is_signer]
    tx_b64 = parts.b64([AddressLookupTableAccount(table, listed)])
    guard = SigningGuard()
    assert refusal(tx_b64, guard, trader.address).rule == "lookup_table"
    guard.add_lookup_table(str(table), [str(key) for key in listed])
    guard.check(tx_b64, wallet=trader.address, request=selling(trader))
    with_thief = parts.with_more(pay(parts.payer, STRANGER, 1)).b64(
        [AddressLookupTableAccount(table, [*listed, STRANGER])]
    )
    short = refusal(with_thief, guard, trader.address)
    assert short.rule == "lookup_table"
    assert "behind the end" in short.problem
    guard.add_lookup_table(str(table), [str(key) for key in [*listed, STRANGER]])
    assert refusal(with_thief, guard, trader.address).account == str(STRANGER)


def test_two_tables_are_read_in_solanas_order():
    """First what is written to, of all tables, then what is read: held against solders' own compiler."""
    trader, tables = desk("pump_swap"), [stranger(51), stranger(52)]
    parts = draft(trader.sell())
    listed = sorted(
        {meta.pubkey for item in parts.instructions for meta in item.accounts if not meta.is_signer}, key=bytes
    )
    halves = [AddressLookupTableAccount(table, listed[n::2]) for n, table in enumerate(tables)]
    guard = SigningGuard()
    for table, half in zip(tables, halves, strict=True):
        guard.add_lookup_table(str(table), [str(key) for key in half.addresses])
    guard.check(parts.b64(halves), wallet=trader.address, request=selling(trader))


def test_a_program_cannot_hide_in_a_table():
    """Solana does not allow it, so such bytes are not a transaction."""
    trader = desk("pump_swap")
    message = draft(trader.sell()).message([AddressLookupTableAccount(stranger(50), [stranger(60)])])
    lookups = message.address_table_lookups
    items = [*message.instructions, CompiledInstruction(len(message.account_keys), b"", b"")]
    wild = MessageV0(message.header, message.account_keys, message.recent_blockhash, items, lookups)
    assert refusal(blank(wild), SigningGuard(), trader.address).rule == "encoding"


# ── wrapped SOL by seed ──


@pytest.mark.parametrize("tag", [1, 16, 18])
def test_wrapped_sol_may_be_made_by_seed(tag: int):
    """Created from our seed, made ours in the same transaction: proceeds may go there."""
    trader = desk("raydium_cpmm")
    parts, us = draft(trader.sell()), trader.wallet.pubkey()
    made = Pubkey.create_with_seed(us, "wsol", TOKEN_PROGRAM)
    swap = parts.index(PROGRAMS["raydium_cpmm"])
    parts = parts.with_account(swap, 5, made).with_more(close_token_account(made, us))
    with_account = parts._replace(instructions=[seeded(us), initialize(made, us, tag=tag), *parts.instructions])
    SigningGuard().check(with_account.b64(), wallet=trader.address, request=selling(trader))
    assert refusal(parts.b64(), SigningGuard(), trader.address).rule == "own_account"


# ── what users add ──


def test_a_refused_program_can_be_allowed_as_the_rejection_says():
    """The words of the error, followed to the letter, are enough."""
    trader = desk("pump_fun")
    memo = Instruction(Pubkey.from_string(MEMO), b"hello, memo", [])
    tx_b64 = draft(trader.sell()).with_more(memo).b64()
    error = refusal(tx_b64, SigningGuard(), trader.address)
    assert (error.rule, error.account) == ("program", MEMO)
    written = error.remedy.partition("SigningGuard(allow=")[2].partition(")")[0]
    for allowed in (eval(written), {MEMO: ["*"]}):
        guard = SigningGuard(allow=allowed)
        guard.check(tx_b64, wallet=trader.address, request=selling(trader))
        assert "allowed by you" in str(guard.explain(tx_b64))
    assert refusal(tx_b64, SigningGuard(allow={MEMO: ["other"]}), trader.address).rule == "instruction"
    anchor = Instruction(Pubkey.from_string(MEMO), discriminator("collect") + b"rest", [])
    SigningGuard(allow={MEMO: ["collect"]}).check(
        draft(trader.sell()).with_more(anchor).b64(), wallet=trader.address, request=selling(trader)
    )


def test_an_unlisted_instruction_of_a_market_can_be_allowed_as_the_rejection_says():
    """The error says what would be trusted; the words, followed to the letter, are enough, and allow no other one."""
    trader = desk("pump_fun")
    market = Pubkey.from_string(PROGRAMS["pump_fun"])
    metas = [AccountMeta(trader.wallet.pubkey(), True, True), AccountMeta(trader.listing.mint, False, False)]
    one, other = (
        draft(trader.sell()).with_more(Instruction(market, discriminator(name), metas)).b64()
        for name in ("collect", "drain")
    )
    error = refusal(one, SigningGuard(), trader.address)
    assert error.rule == "instruction"
    assert "every instruction of this program that begins so, with your signature" in error.remedy
    guard = SigningGuard(allow=eval(error.remedy.partition("SigningGuard(allow=")[2].partition(")")[0]))
    guard.check(one, wallet=trader.address, request=selling(trader))
    assert refusal(other, guard, trader.address).rule == "instruction"


def refused_instructions() -> list[tuple[str, bytes]]:
    """Each that the list names as refused, and of each of Solana's own programs one that it does not name."""
    found = []
    for program in known_programs().programs.values():
        if program.is_complete:
            unnamed = next(
                prefix
                for number in range(200, 255)
                if (prefix := bytes([number]).ljust(program.prefix_bytes, b"\0")) not in program.refused
            )
            address = str(Pubkey.from_bytes(program.address))
            found += [(address, prefix) for prefix in (*program.refused, unnamed)]
    return found


@pytest.mark.parametrize(("address", "prefix"), refused_instructions(), ids=lambda value: str(value)[:40])
def test_an_instruction_that_no_sale_needs_is_refused_for_good(address: str, prefix: bytes):
    """No text offers to allow it, and the guard takes no permission for it."""
    trader = desk("pump_fun")
    us = trader.wallet.pubkey()
    call = Instruction(Pubkey.from_string(address), prefix + bytes(8), [AccountMeta(us, True, True)])
    error = refusal(draft(trader.sell()).with_more(call).b64(), SigningGuard(), trader.address)
    offence = next(offence for offence in error.offences if offence.rule == "instruction")
    assert offence.is_final
    assert "no sale needs this" in offence.remedy
    assert "allow=" not in str(error)
    assert "service_programs" not in str(error)
    for words in (["*"], [f"0x{prefix.hex()}"]):
        with pytest.raises(ConfigurationError, match="no sale needs"):
            SigningGuard(allow={address: words})


def test_a_transaction_that_breaks_several_rules_shows_all_of_them():
    """In the error's text, its offences, after pickling, and each offence of one rule."""
    trader = desk("pump_fun")
    us = trader.wallet.pubkey()
    spoiled = draft(trader.sell()).with_more(
        token_call(4, bytes(8), us, us, owner=us), pay(us, STRANGER, 5), pay(us, stranger(9), 6),
        Instruction(Pubkey.from_string(MEMO), b"hello", []),
    ).b64()  # fmt: skip
    error = refusal(spoiled, SigningGuard(), trader.address)
    assert [(offence.rule, offence.amount) for offence in error.offences] == [
        ("program", None), ("instruction", None), ("destination", 5), ("destination", 6),
    ]  # fmt: skip
    assert (error.rule, error.account) == ("program", MEMO)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.offences) == (str(error), error.offences)
    for offence in error.offences:
        assert offence.problem in str(error)
        assert offence.remedy in str(error)
    report = SigningGuard().explain(spoiled, wallet=trader.address)
    assert report.broken == ("program", "instruction", "destination")
    assert str(stranger(9)) in str(report)


def test_a_purchase_by_an_allowed_program_alone_is_refused():
    """What it may cost cannot be read."""
    trader = desk("pump_fun")
    memo = Instruction(Pubkey.from_string(MEMO), b"hello", [AccountMeta(trader.listing.mint, False, False)])
    tx_b64 = Draft(trader.wallet.pubkey(), [memo]).b64()
    guard = SigningGuard(allow={MEMO: ["*"]})
    assert refusal(tx_b64, guard, trader.address, request=buying(trader)).rule == "side"


def test_own_and_tip_accounts_can_be_added():
    """By the options that the errors name."""
    trader = desk("raydium_launchpad")
    parts = draft(trader.sell())
    swap = parts.index(PROGRAMS["raydium_launchpad"])
    elsewhere, tipped = (
        parts.with_account(swap, 6, STRANGER).b64(),
        parts.with_more(pay(parts.payer, STRANGER, 5)).b64(),
    )
    SigningGuard(own_accounts=[str(STRANGER)]).check(elsewhere, wallet=trader.address, request=selling(trader))
    SigningGuard(tip_accounts=[str(STRANGER)]).check(tipped, wallet=trader.address, request=selling(trader))
    for option in ("own_accounts", "tip_accounts", "partner"):
        value = str(stranger(1)) if option == "partner" else [str(stranger(1))]
        assert refusal(tipped, SigningGuard(**{option: value}), trader.address).rule == "destination"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tip_lamports": -1}, "max_tip_lamports"),
        ({"max_tip_lamports": None}, "max_tip_lamports"),
        ({"max_buy_lamports": 1.5}, "max_buy_lamports"),
        ({"max_buy_usd1_units": True}, "max_buy_usd1_units"),
        ({"max_rent_lamports": 2**64}, "max_rent_lamports"),
        ({"partner": "nobody"}, "partner"),
        ({"own_accounts": ["x"]}, "own_accounts"),
        ({"own_accounts": str(STRANGER)}, "own_accounts"),
        ({"tip_accounts": [1]}, "tip_accounts"),
        ({"allow": {"x": ["*"]}}, "allow"),
        ({"allow": {MEMO: "*"}}, "allow"),
        ({"allow": {MEMO: ["0x"]}}, "allow"),
        ({"allow": {MEMO: ["not a name"]}}, "allow"),
        ({"allow": {MEMO: ["0xzz"]}}, "allow"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], field: str):
    """At once, not at the first signal."""
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard(**options)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"transaction": 5, "wallet": str(STRANGER)}, "transaction"),
        ({"transaction": "AAAA", "wallet": str(STRANGER), "request": "sell"}, "request"),
        ({"transaction": "", "wallet": "me"}, "wallet"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], field: str):
    """A wrong argument is the caller's, not the transaction's."""
    trader = desk("pump_fun")
    transaction = arguments.pop("transaction")
    good = trader.sell() if field != "transaction" else transaction
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard().check(good, **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_signal_and_a_request_exclude_each_other(signalled: tuple[Desk, ExitSignalWithTx]):
    """A signal says itself what it is about."""
    trader, signal = signalled
    with pytest.raises(ConfigurationError):
        SigningGuard().check(signal, wallet=trader.address, request=selling(trader))


# ── the report and the error ──


def test_the_report_says_what_happens_and_what_is_wrong():
    """Readable without this library's source."""
    trader = desk("pump_swap")
    tx_b64 = draft(trader.buy("helius_sender")).with_more(pay(trader.wallet.pubkey(), STRANGER, 777)).b64()
    text = str(SigningGuard().explain(tx_b64, request=buying(trader)))
    assert text.startswith("must not be signed")
    assert "pump_swap.buy: pays at most 1050000000 lamports" in text
    assert f"777 lamports to {STRANGER}" in text
    assert "REFUSED  destination: " in text
    assert "ok       token_close" in text
    assert str(SigningGuard().explain(trader.sell())).startswith("may be signed")
    assert str(SigningGuard().explain("AAAA")).startswith("must not be signed")


def test_the_error_carries_rule_account_and_remedy():
    """As attributes, in its text, and through a pickle."""
    trader = desk("pump_swap")
    error = refusal(
        draft(trader.sell()).with_more(pay(trader.wallet.pubkey(), STRANGER, 777)).b64(), SigningGuard(), trader.address
    )
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        assert (one.rule, one.account) == ("destination", str(STRANGER))
        assert str(STRANGER) in str(one)
        assert "SigningGuard(" in str(one)


# ── anything at all ──


@MANY
@given(messages(), st.booleans())
def test_random_transactions_are_refused_without_a_crash(message: AnyMessage, empty_list: bool):
    """Whatever the accounts, programs and tables: refused, and explained."""
    tx_b64 = base64.b64encode(unsigned_bytes(message, empty_list=empty_list)).decode()
    guard = SigningGuard()
    assert isinstance(refusal(tx_b64, guard, str(message.account_keys[0])), UnsafeTransactionError)
    assert str(guard.explain(tx_b64))


def test_flipped_bits_never_crash_and_never_move_money():
    """A bit anywhere: refused, or it still costs no more than it may and pays nobody but us and senders."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance, guard, passed = random.Random(seed), SigningGuard(), 0
    tips = [key for keys in TIP_ACCOUNTS.values() for key in keys]
    for _, trader, base, request in bases():
        raw = base64.b64decode(base.b64())
        for _ in range(150):
            at = chance.randrange(len(raw))
            flipped = raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :]
            tx_b64 = base64.b64encode(flipped).decode()
            report = guard.explain(tx_b64, wallet=trader.address, request=request)
            if not report.accepted:
                refusal(tx_b64, guard, trader.address, request=request)
                continue
            passed += 1
            wsol = str(token_address(base.payer, WRAPPED_SOL_MINT))
            for line in report.lines:
                target = line.partition(" lamports to ")[2]
                assert not target or target in (trader.address, wsol, *map(str, tips)), report
                if ": pays at most " in line:
                    paid = int(line.partition(" at most ")[2].split()[0])
                    cap = 1_050_000_000 if isinstance(request, BuildBuyTxRequest) else 10**9
                    assert paid <= cap, report
    assert passed, "no flip was harmless, not even in the blockhash"


def test_many_threads_may_check_at_once():
    """Checks and new look-up tables side by side: always the same answer."""
    trader, guard, errors = desk("pump_swap"), SigningGuard(), list[BaseException]()
    tx_b64, request, start = trader.sell(), selling(trader), threading.Barrier(5)

    def work(action: Callable[[int], object]) -> None:
        try:
            start.wait(30)
            for number in range(200):
                action(number)
        except BaseException as error:
            errors.append(error)

    actions: list[Callable[[int], object]] = [lambda _: guard.check(tx_b64, wallet=trader.address, request=request)] * 4
    actions.append(lambda number: guard.add_lookup_table(str(stranger(number % 50)), [str(STRANGER)]))
    threads = [threading.Thread(target=work, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


# ── the data ──


def test_the_list_is_the_services():
    """Programs, mints and tip accounts are exactly those that the sandbox knows, too."""
    known = known_programs()
    names = {program.name: str(Pubkey.from_bytes(program.address)) for program in known.programs.values()}
    assert names == {
        **PROGRAMS, "system": SYSTEM, "token": TOKEN, "token_2022": TOKEN_2022, "associated_token": ASSOCIATED,
        "compute_budget": BUDGET, **REFUSED_PROGRAMS,
    }  # fmt: skip
    assert known.currencies == {bytes(WRAPPED_SOL_MINT): "SOL", bytes(USD1_MINT): "USD1"}
    assert {bytes(key) for keys in TIP_ACCOUNTS.values() for key in keys} < known.tip_accounts


def test_what_counts_as_another_instruction_counts_as_one_that_is_listed():
    """Else no rule would look at it."""
    layouts = [layout for program in known_programs().programs.values() for layout in program.allowed.values()]
    assert {layout.kind for layout in layouts} <= {layout.name for layout in layouts}


def test_no_rule_is_named_twice():
    """An error's rule names one function."""
    names = ["encoding", *(rule.name for rule in RULES)]
    assert len(set(names)) == len(names)


def test_the_page_explains_every_rule():
    """docs/safety.md has each by name."""
    page = (Path(__file__).parents[2] / "docs" / "safety.md").read_text()
    assert [name for name in ["encoding", *(rule.name for rule in RULES)] if f"| `{name}` |" not in page] == []


@MANY
@given(messages(), st.booleans())
def test_rule_that_names_its_kinds_of_instructions_finds_nothing_without_them(message: AnyMessage, empty_list: bool):
    """``check`` does not ask it then: what it would have found must not be signed."""
    tx_b64 = base64.b64encode(unsigned_bytes(message, empty_list=empty_list)).decode()
    assert_every_rule_agrees(SigningGuard(), tx_b64, str(message.account_keys[0]), None)


def test_flipped_bits_are_judged_by_every_rule_that_finds_something():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance, guard = random.Random(seed), SigningGuard(max_buy_lamports=1)
    for _, trader, base, request in bases():
        raw = base64.b64decode(base.b64())
        for _ in range(30):
            at = chance.randrange(len(raw))
            flipped = raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :]
            assert_every_rule_agrees(guard, base64.b64encode(flipped).decode(), trader.address, request)


def assert_every_rule_agrees(
    guard: SigningGuard, tx_b64: str, wallet: str, request: BuildSellTxRequest | BuildBuyTxRequest | None
) -> None:
    """``check`` found what all rules find; ``explain`` asks all of them."""
    report = guard.explain(tx_b64, wallet=wallet, request=request)
    error = None if report.accepted else refusal(tx_b64, guard, wallet, request=request)
    found = [] if error is None else [str(offence) for offence in error.offences]
    assert found == [str(each) for verdict in report.verdicts if verdict.error for each in verdict.error.offences]


@pytest.mark.parametrize(
    "cap", [{"max_buy_lamports": 1}, {"max_buy_usd1_units": 1}, {"max_buy_usdc_units": 1, "usdc_quotes": True}]
)
def test_guard_with_one_cap_of_any_currency_caps_purchases(cap: dict[str, Any]):
    """What ``AutoSeller(mirror_buys=True)`` asks for."""
    assert SigningGuard(**cap).caps_purchases
    assert not SigningGuard(usdc_quotes=True).caps_purchases
