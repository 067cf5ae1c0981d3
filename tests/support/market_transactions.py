"""What the sandbox's markets build, and the means to change it: what the signing guard is held against."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, MessageV1, TransactionConfig
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.codec import server_message_from_text
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal
from lasersell_sync.sandbox.exchange.orders import Delivery, PartnerFee
from lasersell_sync.sandbox.markets.scenario import Action, Scenario, parse_scenario
from lasersell_sync.sandbox.markets.venues import VENUES
from tests.sandbox.players import Rig

SEND_MODES = ("rpc", "helius_sender", "astralane")
#: Every market against every currency that it knows.
MARKETS = [
    (market, quote) for market in VENUES for quote in ("SOL", "USD1") if not (quote == "USD1" and "pump" in market)
]
BUDGETS = {"SOL": 10**9, "USD1": 150 * 10**6}
#: Of every draft.
BLOCKHASH = Hash(bytes([3]) * 32)
COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
#: What a version 1 transaction sets that trades.
V1_LIMITS = TransactionConfig(
    priority_fee=10_000, compute_unit_limit=200_000, loaded_accounts_data_size_limit=2**22, heap_size=32 * 1024
)
WHALE = '[[wallet]]\nname = "whale"\nsol = 1000\nusd1 = 100000\n'


def one_token(market: str, quote: str) -> Scenario:
    token = f'[[token]]\nsymbol = "COIN"\nmarket = "{market}"\nquote = "{quote}"\nrest_noise_pct = 0\n'
    return parse_scenario(f'about = "One token."\n{token}{WHALE}', "one")


class Desk:
    """One market of the sandbox, and a wallet that trades on it."""

    def __init__(self, market: str, quote: str = "SOL") -> None:
        self.quote = quote
        self.rig = Rig(scenario=one_token(market, quote))
        self.wallet = self.rig.wallet()
        self.address = str(self.wallet.pubkey())
        self.listing = self.rig.token("COIN")
        self.mint = str(self.listing.mint)

    def buy(self, send_mode: str = "rpc", *, slippage_bps: int = 500, partner_fee: PartnerFee | None = None) -> str:
        return self.rig.build_buy(
            self.listing, self.wallet.pubkey(), budget_lamports=BUDGETS[self.quote], slippage_bps=slippage_bps,
            delivery=Delivery(send_mode), partner_fee=partner_fee,
        ).tx_b64  # fmt: skip

    def sell(self, send_mode: str = "rpc", *, tokens: int = 10**9, partner_fee: PartnerFee | None = None) -> str:
        return self.rig.build_sell(
            self.listing, self.wallet.pubkey(), tokens=tokens, slippage_bps=500,
            delivery=Delivery(send_mode), partner_fee=partner_fee,
        ).tx_b64  # fmt: skip

    def signals(self, send_mode: str) -> tuple[ExitSignalWithTx, MirrorBuySignal]:
        """An exit and a copy of a purchase, as a session is told of them."""
        whale = str(self.rig.exchange.player.wallets["whale"].pubkey())
        budget = {"amount_quote_units": 10**9, "amount_usd1_units": BUDGETS["USD1"]}
        watch = {"pubkey": whale, "auto_buy": {"wallet_pubkey": self.address, **budget}}
        session, outbox = self.rig.session(
            self.wallet,
            terms={"target_profit_pct": 900, "stop_loss_pct": 0},
            watch_wallets=[watch],
            send_mode=send_mode,
        )
        assert self.rig.buy(self.wallet, self.listing, BUDGETS[self.quote]).err is None
        self.rig.advance(1.0)
        (opened,) = outbox.messages("position_opened")
        self.rig.exchange.positions.force_exit(opened["position_id"], "manual")
        self.rig.exchange.act(Action(0.0, "buy", "COIN", wallet="whale", amount=2.0))
        self.rig.advance(1.0)
        self.rig.exchange.disconnect(session)
        exit_signal, buy_signal = (
            server_message_from_text(json.dumps(outbox.messages(kind)[0]))
            for kind in ("exit_signal_with_tx", "mirror_buy_signal")
        )
        assert isinstance(exit_signal, ExitSignalWithTx)
        assert isinstance(buy_signal, MirrorBuySignal)
        return exit_signal, buy_signal


@cache
def desk(market: str, quote: str = "SOL") -> Desk:
    """Kept: starting one takes a while, and building does not change it."""
    return Desk(market, quote)


class Draft(NamedTuple):
    """A transaction taken apart: what it calls, and who pays."""

    payer: Pubkey
    instructions: list[Instruction]

    def index(self, program: str, prefix: bytes = b"") -> int:
        """Where the first instruction of this program stands."""
        key = Pubkey.from_string(program)
        found = (
            n for n, item in enumerate(self.instructions) if item.program_id == key and item.data.startswith(prefix)
        )
        return next(found)

    def with_data(self, index: int, data: bytes) -> Draft:
        item = self.instructions[index]
        return self._replaced(index, Instruction(item.program_id, data, item.accounts))

    def with_account(self, index: int, slot: int, address: Pubkey, *, is_signer: bool = False) -> Draft:
        item = self.instructions[index]
        accounts = list(item.accounts)
        accounts[slot] = AccountMeta(address, is_signer, accounts[slot].is_writable)
        return self._replaced(index, Instruction(item.program_id, item.data, accounts))

    def with_more(self, *more: Instruction) -> Draft:
        return self._replace(instructions=[*self.instructions, *more])

    def without(self, index: int) -> Draft:
        return self._replace(instructions=[item for n, item in enumerate(self.instructions) if n != index])

    def _replaced(self, index: int, instruction: Instruction) -> Draft:
        return self._replace(instructions=[instruction if n == index else i for n, i in enumerate(self.instructions)])

    def message(self, tables: Iterable[AddressLookupTableAccount] = (), blockhash: Hash = BLOCKHASH) -> MessageV0:
        return MessageV0.try_compile(self.payer, self.instructions, list(tables), blockhash)

    def v1_b64(self, config: TransactionConfig = V1_LIMITS, blockhash: Hash = BLOCKHASH) -> str:
        """As a version 1 transaction: what Compute Budget instructions said is said by the config."""
        instructions = [
            item for item in self.instructions if item.program_id != COMPUTE_BUDGET or item.data[0] not in (1, 2, 3, 4)
        ]
        return blank(MessageV1.try_compile(self.payer, instructions, blockhash, config))

    def b64(self, tables: Iterable[AddressLookupTableAccount] = ()) -> str:
        return blank(self.message(tables))


def blank(message: Any) -> str:
    """Unsigned, in base64."""
    signatures = [Signature.default()] * message.header.num_required_signatures
    return base64.b64encode(bytes(VersionedTransaction.populate(message, signatures))).decode()


def draft(tx_b64: str) -> Draft:
    """Take a transaction apart; instructions keep which accounts sign and are written to."""
    message = VersionedTransaction.from_bytes(base64.b64decode(tx_b64)).message
    keys, header = message.account_keys, message.header
    signers, written = header.num_required_signatures, len(keys) - header.num_readonly_unsigned_accounts
    metas = [
        AccountMeta(
            key, n < signers, n < written if n >= signers else n < signers - header.num_readonly_signed_accounts
        )
        for n, key in enumerate(keys)
    ]
    instructions = [
        Instruction(keys[item.program_id_index], item.data, [metas[at] for at in item.accounts])
        for item in message.instructions
    ]
    return Draft(keys[0], instructions)


def stranger(number: int = 0) -> Pubkey:
    return Keypair.from_seed(bytes([200, number]) * 16).pubkey()
