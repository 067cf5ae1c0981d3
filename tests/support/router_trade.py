"""A trade through a program of unknown layout, and what a node says that it does: to be changed by a test.

The layout is one of many that are possible. Nothing of the package reads it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from base58 import b58encode
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from lasersell_sync.codec import server_message_from_text
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal, PositionOpened
from lasersell_sync.trading.guard import TradeContext
from tests.support.market_transactions import blank
from tests.support.solana_node import RpcFailure, SolanaNode

ROUTER = Pubkey.from_string("77Fvqi4CFY8AumYEDWbXPwcHf2Hujod6FECSitxPtfon")
PUMP = Pubkey.from_string("6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P")
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ATA = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
SYSTEM = Pubkey.default()
SOL = Pubkey.from_string("So11111111111111111111111111111111111111112")
USD1 = Pubkey.from_string("USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB")

KEYPAIR = Keypair.from_seed(b"the wallet of an opaque trade...")
WALLET = KEYPAIR.pubkey()
RENT = 2_039_280
TOKENS = 1_000_000
SLOT = 300_000_000
NETWORK_FEE = 5_000 + 200_000 * 10_000 // 1_000_000


def address(name: str) -> Pubkey:
    """Of somebody or something, by name."""
    return Pubkey.from_bytes(hashlib.sha256(name.encode()).digest())


MINT, OTHER_MINT, THIEF = address("coin"), address("another coin of ours"), address("thief")
ACCOUNT = get_associated_token_address(WALLET, MINT, TOKEN)
CURVE, CURVE_TOKENS, MARKET_FEES = address("curve"), address("curve tokens"), address("market fees")
VAULT, SENDER_TIP = address("router fees"), Pubkey.from_string("4ACfpUFoaSD9bfPdeu6DBt89gB6ENTeHBXCAi87NhDEE")


class Account(NamedTuple):
    """An account as a node shows it."""

    lamports: int
    owner: Pubkey = SYSTEM
    data: bytes = b""

    def shown(self) -> dict[str, Any]:
        text = base64.b64encode(self.data).decode()
        return {
            "lamports": self.lamports, "owner": str(self.owner), "data": [text, "base64"], "executable": False,
            "rentEpoch": 2**64 - 1, "space": len(self.data),
        }  # fmt: skip


def token(
    mint: Pubkey, owner: Pubkey, amount: int, *, delegate: Pubkey | None = None, close: Pubkey | None = None,
    frozen: bool = False, program: Pubkey = TOKEN, lamports: int | None = None,
) -> Account:  # fmt: skip
    """A token account."""

    def option(value: Pubkey | None) -> bytes:
        return bytes(36) if value is None else b"\1\0\0\0" + bytes(value)

    native = b"\1\0\0\0" + RENT.to_bytes(8, "little") if mint == SOL else bytes(12)
    delegated = amount if delegate is not None else 0
    data = b"".join(
        [
            bytes(mint), bytes(owner), amount.to_bytes(8, "little"), option(delegate), bytes([2 if frozen else 1]),
            native, delegated.to_bytes(8, "little"), option(close),
        ]
    )  # fmt: skip
    held = RENT + (amount if mint == SOL else 0) if lamports is None else lamports
    return Account(held, program, data)


def anchor(name: str) -> bytes:
    return hashlib.sha256(f"global:{name}".encode()).digest()[:8]


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


# ── what is called inside ────────────────────────────────────────────────────────────────────────────────────────


def parsed(program: Pubkey, kind: str, depth: int, **info: object) -> dict[str, Any]:
    """As Agave shows instructions of Solana's own programs."""
    words = {key: str(value) if isinstance(value, Pubkey) else value for key, value in info.items()}
    return {"program": "x", "programId": str(program), "parsed": {"type": kind, "info": words}, "stackHeight": depth}


def raw(program: Pubkey, data: bytes, accounts: list[Pubkey], depth: int) -> dict[str, Any]:
    """As Agave shows instructions of other programs."""
    return {
        "programId": str(program),
        "accounts": list(map(str, accounts)),
        "data": b58encode(data).decode(),
        "stackHeight": depth,
    }


def paid(source: Pubkey, target: Pubkey, lamports: int, depth: int = 2) -> dict[str, Any]:
    return parsed(SYSTEM, "transfer", depth, source=source, destination=target, lamports=lamports)


def sold_inside(tokens: int = TOKENS, *, user: Pubkey = WALLET, depth: int = 2) -> list[dict[str, Any]]:
    """The market's sale, and the token transfer that it calls."""
    places = [address("global"), MARKET_FEES, MINT, CURVE, CURVE_TOKENS, ACCOUNT, user, SYSTEM, address("creator")]
    places += [TOKEN, address("events"), PUMP]
    return [
        raw(PUMP, anchor("sell") + u64(tokens) + u64(1), places, depth),
        parsed(
            TOKEN, "transferChecked", depth + 1, source=ACCOUNT, destination=CURVE_TOKENS, mint=MINT, authority=user,
            tokenAmount={"amount": str(tokens), "decimals": 6, "uiAmountString": "1"},
        ),
    ]  # fmt: skip


def bought_inside(tokens: int = TOKENS, lamports: int = 0) -> list[dict[str, Any]]:
    places = [address("global"), MARKET_FEES, MINT, CURVE, CURVE_TOKENS, ACCOUNT, WALLET, SYSTEM, TOKEN]
    places += [address("creator"), address("events"), PUMP]
    return [
        raw(PUMP, anchor("buy") + u64(tokens) + u64(lamports), places, 2),
        parsed(TOKEN, "transfer", 3, source=CURVE_TOKENS, destination=ACCOUNT, amount=str(tokens), authority=CURVE),
        paid(WALLET, CURVE, lamports, 3),
    ]


# ── the trade ────────────────────────────────────────────────────────────────────────────────────────────────────


class RouterTrade:
    """A transaction, the accounts before and after it, and the calls in between; honest until a test changes it.

    Attributes:
        metas: accounts of the opaque instruction.
        more: other instructions of the transaction, behind it.
        before, after: by address; an account that is not there does not exist.
        inner: what the opaque program calls.
        failure: the simulation's error.
        is_parsed: whether the node parses inner instructions; else it shows their places.
        says_before: whether the simulation itself says what accounts held before.
    """

    def __init__(self, *, is_parsed: bool = True, says_before: bool = True) -> None:
        self.is_parsed = is_parsed
        self.says_before = says_before
        self.metas: list[AccountMeta] = []
        self.more: list[Instruction] = []
        self.first: list[Instruction] = [set_compute_unit_price(10_000), set_compute_unit_limit(200_000)]
        self.before: dict[Pubkey, Account] = {}
        self.after: dict[Pubkey, Account] = {}
        self.inner: list[dict[str, Any]] = []
        self.failure: object = None
        self.slot = SLOT
        self.side = "sale"
        self.context = TradeContext()

    # ── changes ──

    def writes(self, *accounts: Pubkey) -> None:
        self.metas += [AccountMeta(key, is_signer=False, is_writable=True) for key in accounts]

    def reads(self, *accounts: Pubkey) -> None:
        self.metas += [AccountMeta(key, is_signer=False, is_writable=False) for key in accounts]

    def holds(self, key: Pubkey, account: Account) -> None:
        """Before and after, unless changed later."""
        self.before[key] = self.after[key] = account

    def add_lamports(self, key: Pubkey, lamports: int) -> None:
        """Afterwards, an account has so many more (or less)."""
        account = self.after.get(key, Account(0))
        self.after[key] = account._replace(lamports=account.lamports + lamports)

    # ── what a node gets and says ──

    @property
    def message(self) -> MessageV0 | Message:
        opaque = Instruction(ROUTER, b"\x01\x02\x03\x04\x05\x06\x07\x08" + u64(TOKENS), self.metas)
        return MessageV0.try_compile(WALLET, [*self.first, opaque, *self.more], [], Hash.new_unique())

    def b64(self) -> str:
        return blank(self.message)

    def exit_signal(self, **changes: object) -> ExitSignalWithTx:
        fields = {
            "session_id": 1, "position_id": 7, "wallet_pubkey": str(WALLET), "mint": str(MINT),
            "token_account": str(ACCOUNT), "position_tokens": TOKENS, "profit_units": 0, "reason": "stop_loss",
            "triggered_at_ms": 1, "unsigned_tx_b64": self.b64(), **changes,
        }  # fmt: skip
        signal = server_message_from_text(json.dumps({"type": "exit_signal_with_tx", **fields}))
        assert isinstance(signal, ExitSignalWithTx)
        return signal

    def buy_signal(self, **changes: object) -> MirrorBuySignal:
        fields = {
            "session_id": 1, "watched_wallet": str(address("whale")), "mint": str(MINT), "user_wallet": str(WALLET),
            "amount_quote_units": BUDGET, "input": "SOL", "slippage_bps": 500, "unsigned_tx_b64": self.b64(), **changes,
        }  # fmt: skip
        signal = server_message_from_text(json.dumps({"type": "mirror_buy_signal", **fields}))
        assert isinstance(signal, MirrorBuySignal)
        return signal

    def signal(self) -> ExitSignalWithTx | MirrorBuySignal:
        return self.exit_signal() if self.side == "sale" else self.buy_signal()

    def answers(self, node: SolanaNode) -> None:
        """Have a node answer so from now on, whatever it is asked to simulate."""
        node.say["simulateTransaction"] = self.simulated
        node.say["getMultipleAccounts"] = self.accounts
        node.say["getMinimumBalanceForRentExemption"] = lambda params: (128 + params[0]) * 6_960

    def accounts(self, params: list[Any]) -> dict[str, Any]:
        shown = [self.before.get(Pubkey.from_string(text)) for text in params[0]]
        return self._in_context([None if one is None else one.shown() for one in shown])

    def simulated(self, params: list[Any]) -> dict[str, Any]:
        options = params[1]
        assert (options["replaceRecentBlockhash"], options["innerInstructions"]) == (True, True)
        assert options["sigVerify"] is False
        least = options.get("minContextSlot")
        if least is not None and self.slot < least:
            raise RpcFailure(-32016, "Minimum context slot has not been reached", {"contextSlot": self.slot})
        keys = self.keys_of(params[0])
        watched = [Pubkey.from_string(text) for text in options["accounts"]["addresses"]]
        assert len(watched) <= len(keys)
        after = [self.after.get(key) for key in watched]
        value: dict[str, Any] = {
            "err": self.failure, "logs": [], "unitsConsumed": 1_000, "returnData": None,
            "accounts": [None if one is None or self.failure is not None else one.shown() for one in after],
            "innerInstructions": [{"index": len(self.first), "instructions": self._inner(keys)}],
        }  # fmt: skip
        if self.says_before:
            value["preBalances"] = [self.before.get(key, Account(0)).lamports for key in keys]
            value["preTokenBalances"] = list(self._token_balances(keys))
        return self._in_context(value)

    @staticmethod
    def keys_of(tx_b64: str) -> list[Pubkey]:
        from solders.transaction import VersionedTransaction

        return list(VersionedTransaction.from_bytes(base64.b64decode(tx_b64)).message.account_keys)

    def _in_context(self, value: object) -> dict[str, Any]:
        return {"context": {"slot": self.slot, "apiVersion": "4.0.0"}, "value": value}

    def _token_balances(self, keys: list[Pubkey]) -> Any:
        for place, key in enumerate(keys):
            account = self.before.get(key)
            if account is not None and account.owner in (TOKEN, TOKEN_2022):
                yield {
                    "accountIndex": place, "mint": str(Pubkey.from_bytes(account.data[:32])),
                    "owner": str(Pubkey.from_bytes(account.data[32:64])), "programId": str(account.owner),
                    "uiTokenAmount": {"amount": str(int.from_bytes(account.data[64:72], "little")), "decimals": 6},
                }  # fmt: skip

    def _inner(self, keys: list[Pubkey]) -> list[dict[str, Any]]:
        return self.inner if self.is_parsed else [_in_places(item, keys) for item in self.inner]


#: How Solana's own programs spell what ``parsed`` says: first bytes, accounts by role, and a number.
_SPELLINGS: dict[str, tuple[bytes, tuple[str, ...], str | None]] = {
    "transfer:system": (b"\2\0\0\0", ("source", "destination"), "lamports"),
    "assign:system": (b"\1\0\0\0", ("account",), None),
    "transfer": (b"\3", ("source", "destination", "authority"), "amount"),
    "transferChecked": (b"\x0c", ("source", "mint", "destination", "authority"), "tokenAmount"),
    "approve": (b"\4", ("source", "delegate", "owner"), "amount"),
    "revoke": (b"\5", ("source", "owner"), None),
    "setAuthority": (b"\6", ("account", "authority"), None),
    "burn": (b"\x08", ("account", "mint", "authority"), "amount"),
    "closeAccount": (b"\x09", ("account", "destination", "owner"), None),
    "create:ata": (b"", ("source", "account", "wallet", "mint", "systemProgram", "tokenProgram"), None),
}


def _in_places(item: dict[str, Any], keys: list[Pubkey]) -> dict[str, Any]:
    """An inner instruction as nodes show it that do not parse: with places in the transaction's accounts."""
    program = item["programId"]
    texts = list(map(str, keys))
    if "parsed" in item:
        kind, info = item["parsed"]["type"], item["parsed"]["info"]
        suffix = {str(SYSTEM): ":system", str(ATA): ":ata"}.get(program, "")
        prefix, roles, number = _SPELLINGS[kind + suffix]
        value = info.get(number) if number is not None else None
        amount = value["amount"] if isinstance(value, dict) else value
        data = prefix + (b"" if amount is None else u64(int(amount))) + (b"\6" if kind == "transferChecked" else b"")
        accounts = [info[role] for role in roles]
        text = b58encode(data).decode()
    else:
        accounts, text = item["accounts"], item["data"]
    return {
        "programIdIndex": texts.index(program), "accounts": [texts.index(key) for key in accounts], "data": text,
        "stackHeight": item["stackHeight"],
    }  # fmt: skip


# ── honest trades ────────────────────────────────────────────────────────────────────────────────────────────────

PROCEEDS, MARKET_FEE, ROUTING = 1_980_000_000, 20_000_000, 39_600_000
ENTRY = 2_000_000_000
BUDGET = 1_000_000_000
#: Ten kinds of programs and data that every trade reads.
_READ = (MINT, address("global"), address("creator"), address("events"), SYSTEM, TOKEN, TOKEN_2022, ATA, PUMP, ROUTER)


def announced(**changes: object) -> PositionOpened:
    fields = {
        "position_id": 7, "wallet_pubkey": str(WALLET), "mint": str(MINT), "token_account": str(ACCOUNT),
        "tokens": TOKENS, "entry_quote_units": ENTRY, "slot": SLOT - 5,
        "market_context": {"market_type": "pump_fun", "pumpfun": {}}, **changes,
    }  # fmt: skip
    message = server_message_from_text(json.dumps({"type": "position_opened", **fields}))
    assert isinstance(message, PositionOpened)
    return message


def honest_sale(*, wallet_lamports: int = 5_000_000_000, **how: bool) -> RouterTrade:
    """The market pays the wallet, and the opaque program takes its fee from there."""
    trade = RouterTrade(**how)
    trade.context = TradeContext(announcement=announced())
    trade.metas = [AccountMeta(WALLET, is_signer=True, is_writable=True)]
    trade.writes(ACCOUNT, CURVE, CURVE_TOKENS, MARKET_FEES, VAULT)
    trade.reads(*_READ)
    trade.holds(WALLET, Account(wallet_lamports))
    trade.holds(ACCOUNT, token(MINT, WALLET, TOKENS))
    trade.holds(CURVE, Account(50_000_000_000, PUMP, b"curve"))
    trade.holds(CURVE_TOKENS, token(MINT, CURVE, 10**12))
    trade.holds(MARKET_FEES, Account(10**9))
    trade.holds(VAULT, Account(10**9))
    trade.after[ACCOUNT] = token(MINT, WALLET, 0)
    trade.after[CURVE_TOKENS] = token(MINT, CURVE, 10**12 + TOKENS)
    trade.add_lamports(CURVE, -PROCEEDS - MARKET_FEE)
    trade.add_lamports(MARKET_FEES, MARKET_FEE)
    trade.add_lamports(VAULT, ROUTING)
    trade.add_lamports(WALLET, PROCEEDS - ROUTING - NETWORK_FEE)
    trade.inner = [*sold_inside(), paid(WALLET, VAULT, ROUTING)]
    return trade


def honest_purchase(*, wallet_lamports: int = 5_000_000_000, **how: bool) -> RouterTrade:
    """The opaque program takes its fee from the wallet, and the market the rest."""
    trade = RouterTrade(**how)
    trade.side = "purchase"
    trade.metas = [AccountMeta(WALLET, is_signer=True, is_writable=True)]
    trade.writes(ACCOUNT, CURVE, CURVE_TOKENS, MARKET_FEES, VAULT)
    trade.reads(*_READ)
    fee = BUDGET // 50
    trade.holds(WALLET, Account(wallet_lamports))
    trade.holds(CURVE, Account(50_000_000_000, PUMP, b"curve"))
    trade.holds(CURVE_TOKENS, token(MINT, CURVE, 10**12))
    trade.holds(MARKET_FEES, Account(10**9))
    trade.holds(VAULT, Account(10**9))
    trade.after[ACCOUNT] = token(MINT, WALLET, TOKENS)
    trade.after[CURVE_TOKENS] = token(MINT, CURVE, 10**12 - TOKENS)
    trade.add_lamports(CURVE, BUDGET)
    trade.add_lamports(VAULT, fee)
    trade.add_lamports(WALLET, -BUDGET - fee - RENT - NETWORK_FEE)
    trade.inner = [
        parsed(ATA, "create", 2, source=WALLET, account=ACCOUNT, wallet=WALLET, mint=MINT, systemProgram=SYSTEM,
               tokenProgram=TOKEN),
        *bought_inside(TOKENS, BUDGET),
        paid(WALLET, VAULT, fee),
    ]  # fmt: skip
    return trade


def honest_usd1_sale(**how: bool) -> RouterTrade:
    """Paid in USD1, and the fee taken out of the proceeds before they come."""
    trade = RouterTrade(**how)
    ours, pool, vault = get_associated_token_address(WALLET, USD1, TOKEN), address("usd1 pool"), address("usd1 fees")
    market = {"market_type": "raydium_cpmm", "raydium_cpmm": {
        "pool": str(CURVE), "config": str(address("config")), "quote_mint": str(USD1), "user_quote_account": str(ours),
    }}  # fmt: skip
    trade.context = TradeContext(announcement=announced(entry_quote_units=200_000_000, market_context=market))
    trade.metas = [AccountMeta(WALLET, is_signer=True, is_writable=True)]
    trade.writes(ACCOUNT, ours, CURVE, CURVE_TOKENS, MARKET_FEES, pool, vault)
    trade.reads(*_READ, USD1)
    trade.holds(WALLET, Account(5_000_000_000))
    trade.holds(ACCOUNT, token(MINT, WALLET, TOKENS))
    trade.holds(ours, token(USD1, WALLET, 0))
    trade.holds(CURVE, Account(50_000_000_000, PUMP, b"pool"))
    trade.holds(CURVE_TOKENS, token(MINT, CURVE, 10**12))
    trade.holds(MARKET_FEES, Account(10**9))
    trade.holds(pool, token(USD1, CURVE, 10**12))
    trade.holds(vault, token(USD1, VAULT, 10**9))
    trade.after[ACCOUNT] = token(MINT, WALLET, 0)
    trade.after[CURVE_TOKENS] = token(MINT, CURVE, 10**12 + TOKENS)
    trade.after[ours] = token(USD1, WALLET, 196_000_000)
    trade.after[pool] = token(USD1, CURVE, 10**12 - 200_000_000)
    trade.after[vault] = token(USD1, VAULT, 10**9 + 4_000_000)
    trade.add_lamports(WALLET, -NETWORK_FEE)
    trade.inner = [
        parsed(TOKEN, "transfer", 2, source=ACCOUNT, destination=CURVE_TOKENS, amount=str(TOKENS), authority=WALLET),
        parsed(TOKEN, "transfer", 2, source=pool, destination=ours, amount="196000000", authority=CURVE),
    ]
    return trade


Change = Callable[[RouterTrade], None]
