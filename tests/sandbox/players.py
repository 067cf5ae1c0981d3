"""Who plays in the sandbox tests: an exchange with a clock of its own, and a trader with a wallet.

The trader speaks to the sandbox with other people's clients (requests, websockets, solders): nothing of lasersell_sync
but the sandbox itself is used here.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

import requests
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from websockets.sync.client import ClientConnection, connect

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.chain.blockchain import Chain
from lasersell_sync.sandbox.chain.transactions import Transaction
from lasersell_sync.sandbox.exchange.exchange import Exchange, ExchangeSettings
from lasersell_sync.sandbox.exchange.orders import Delivery, OrderTerms, PartnerFee, UnsignedTransaction
from lasersell_sync.sandbox.exchange.sessions import Session
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.scenario import Action

#: Far more than anything here takes; a wait that reaches it is a failure.
PATIENCE_S = 20.0
NOBODY = Delivery()


def strategy(target: float = 0, stop: float = 0, trailing: float = 0) -> dict[str, object]:
    """A strategy object as clients write it."""
    return {"target_profit_pct": target, "stop_loss_pct": stop, "trailing_stop_pct": trailing}


def signed(tx_b64: str, *signers: Keypair) -> VersionedTransaction:
    """An unsigned transaction of the API, signed."""
    return VersionedTransaction(VersionedTransaction.from_bytes(base64.b64decode(tx_b64)).message, list(signers))


def proof(wallet: Keypair, at_s: float | None = None) -> dict[str, str]:
    """A registration proof."""
    message = f"lasersell-register:{wallet.pubkey()}:{int(time.time() if at_s is None else at_s)}"
    return {
        "wallet_pubkey": str(wallet.pubkey()),
        "signature": str(wallet.sign_message(message.encode())),
        "message": message,
    }


class ListOutbox:
    """Collects what a session is told."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.closed: tuple[int, str] | None = None

    def post(self, frames: Sequence[Any], *, low_lane: bool = False) -> None:
        self.frames.extend(frames)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def messages(self, *kinds: str) -> list[dict[str, Any]]:
        every = [json.loads(frame) for frame in self.frames]
        return [message for message in every if not kinds or message["type"] in kinds]


class Rig:
    """An exchange without threads or sockets, whose time moves only when told to."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 1_000.0
        self.exchange = Exchange(
            ExchangeSettings(**settings), now_s=lambda: self.now_s, wall_s=lambda: 1.7e9 + self.now_s
        )

    def wallet(self, seed: int = 1, key_id: str = "key-1") -> Keypair:
        wallet = Keypair.from_seed(bytes([seed]) * 32)
        self.exchange.register_wallet(key_id, **proof(wallet, 1.7e9 + self.now_s), label=None)
        return wallet

    @property
    def listings(self) -> list[Listing]:
        return list(self.exchange.market.listings.values())

    def listing(self, market_type: str, price_path: str) -> Listing:
        found = [item for item in self.listings if (item.market_type, item.price_path) == (market_type, price_path)]
        return found[0]

    def session(
        self, *wallets: Keypair, key_id: str = "key-1", terms: dict[str, object] | None = None, **more: object
    ) -> tuple[Session, ListOutbox]:
        outbox = ListOutbox()
        session = self.exchange.connect(key_id, outbox)
        pubkeys = [str(wallet.pubkey()) for wallet in wallets]
        message = {"type": "configure", "wallet_pubkeys": pubkeys, "strategy": terms or strategy(), **more}
        self.say(session, message)
        return session, outbox

    def say(self, session: Session, message: dict[str, object]) -> None:
        self.exchange.receive(session, json.dumps(message))

    def token(self, symbol: str) -> Listing:
        """A scenario's token, as it is now."""
        return next(item for item in self.listings if item.symbol == symbol)

    def price(self, token: str, multiplier: float) -> None:
        """One trade of the crowd."""
        self.exchange.act(Action(0.0, "price", token, multiplier=multiplier))

    def advance(self, seconds: float, *, until: Callable[[], object] = lambda: False) -> None:
        """Let time pass in small steps, so that everything happens in its order."""
        end_s = self.now_s + seconds
        while self.now_s < end_s and not until():
            wait_s = self.exchange.run_due()
            self.now_s = min(end_s, self.now_s + (seconds if wait_s is None else max(wait_s, 1e-6)))
        self.exchange.run_due()

    def send(self, transaction: VersionedTransaction | Transaction, *, skip_preflight: bool = False) -> Any:
        """Send and land; the record."""
        signature = self.exchange.send_transaction(transaction, skip_preflight=skip_preflight)
        self.advance(0.41)
        records = [record for record in self.exchange.chain.records() if record.signature == str(signature)]
        return records[0] if records else None

    # The chain, asked and changed as the servers do it.

    def ask_chain(self, question: Callable[[Chain], Any]) -> Any:
        with self.exchange.request():
            return question(self.exchange.chain)

    def instruct_chain(self, order: Callable[[Chain], object]) -> None:
        with self.exchange.change():
            order(self.exchange.chain)

    def skip_slots(self, slots: int, *, empty: bool = False) -> None:
        self.instruct_chain(lambda chain: chain.slots.skip(slots, empty=empty))

    def slot(self) -> int:
        return self.ask_chain(lambda chain: chain.slots.slot())

    def block_height(self) -> int:
        return self.ask_chain(lambda chain: chain.slots.block_height())

    def latest_blockhash(self) -> tuple[Hash, int]:
        return self.ask_chain(lambda chain: chain.slots.latest_blockhash())

    def accepts_blockhash(self, blockhash: Hash) -> bool:
        return self.ask_chain(lambda chain: chain.slots.accepts(blockhash))

    def signature_status(self, signature: Signature) -> dict[str, object] | None:
        return self.ask_chain(lambda chain: chain.status(signature))

    def fund(self, wallet: Pubkey, *, lamports: int, usd1_units: int) -> None:
        with self.exchange.change():
            self.exchange.player.fund(wallet, lamports=lamports, usd1_units=usd1_units)

    def multiply_price(self, mint: Pubkey, ratio: Fraction) -> None:
        with self.exchange.change():
            self.exchange.player.multiply_price(self.exchange.market.listings[mint], ratio)

    def _terms(self, slippage_bps: int, delivery: Delivery, partner_fee: PartnerFee | None, key: str) -> OrderTerms:
        return OrderTerms(slippage_bps, delivery, partner_fee, self.exchange.tiers[key].routing_fee)

    def build_buy(
        self,
        listing: Listing,
        user: Pubkey,
        *,
        budget_lamports: int,
        slippage_bps: int,
        delivery: Delivery = NOBODY,
        partner_fee: PartnerFee | None = None,
        key_id: str = "key-1",
    ) -> UnsignedTransaction:
        terms = self._terms(slippage_bps, delivery, partner_fee, key_id)
        return self.exchange.orders.buy(listing, user, budget_lamports, terms)

    def build_sell(
        self,
        listing: Listing,
        user: Pubkey,
        *,
        tokens: int,
        slippage_bps: int,
        delivery: Delivery = NOBODY,
        partner_fee: PartnerFee | None = None,
        key_id: str = "key-1",
    ) -> UnsignedTransaction:
        terms = self._terms(slippage_bps, delivery, partner_fee, key_id)
        return self.exchange.orders.sell(listing, user, tokens, terms)

    def buy_order(
        self, wallet: Keypair, listing: Listing, lamports: int = 10**9, slippage_bps: int = 500
    ) -> VersionedTransaction:
        order = self.build_buy(listing, wallet.pubkey(), budget_lamports=lamports, slippage_bps=slippage_bps)
        return signed(order.tx_b64, wallet)

    def buy(self, wallet: Keypair, listing: Listing, lamports: int = 10**9, slippage_bps: int = 500) -> Any:
        return self.send(self.buy_order(wallet, listing, lamports, slippage_bps))

    def sell_order(self, wallet: Keypair, listing: Listing, tokens: int = 0, slippage_bps: int = 500) -> str:
        return self.build_sell(listing, wallet.pubkey(), tokens=tokens, slippage_bps=slippage_bps).tx_b64

    def sell(self, wallet: Keypair, listing: Listing, tokens: int = 0) -> Any:
        return self.send(signed(self.sell_order(wallet, listing, tokens), wallet))

    def transaction(self, payer: Keypair, *instructions: Instruction, signers: Sequence[Keypair] = ()) -> Any:
        """A transaction somebody built himself."""
        blockhash, _ = self.latest_blockhash()
        message = MessageV0.try_compile(payer.pubkey(), list(instructions), [], blockhash)
        return VersionedTransaction(message, [payer, *signers])


class Trader:
    """A wallet, and clients for the three services of a running sandbox."""

    def __init__(self, sandbox: Sandbox, seed: int = 1, api_key: str | None = None) -> None:
        self.sandbox = sandbox
        self.wallet = Keypair.from_seed(bytes([seed]) * 32)
        self.pubkey = str(self.wallet.pubkey())
        self.headers = {"x-api-key": api_key or sandbox.api_key}
        self.http = requests.Session()
        self.http.trust_env = False
        self._sockets = ExitStack()
        self._rpc_id = 0

    def close(self) -> None:
        self._sockets.close()
        self.http.close()

    # REST

    def post(self, path: str, body: object, **more: Any) -> requests.Response:
        return self.http.post(
            self.sandbox.api_url + path, json=body, headers=more.pop("headers", self.headers), timeout=PATIENCE_S
        )

    def register(self) -> Trader:
        assert self.post("/v1/wallets/register", proof(self.wallet)).status_code == 200
        return self

    def buy_body(self, mint: str, **changes: object) -> dict[str, object]:
        body = {"mint": mint, "user_pubkey": self.pubkey, "amount_in_total": 10**9, "slippage_bps": 500}
        return {**body, "input": "SOL", **changes}

    def sell_body(self, mint: str, **changes: object) -> dict[str, object]:
        body = {"mint": mint, "user_pubkey": self.pubkey, "amount_tokens": 0, "slippage_bps": 500, "output": "SOL"}
        return {**body, **changes}

    def buy(self, mint: str, **changes: object) -> str:
        answer = self.post("/v1/buy", self.buy_body(mint, **changes)).json()
        return self.send(signed(answer["tx"], self.wallet))

    # JSON-RPC

    def rpc(self, method: str, *params: object) -> dict[str, Any]:
        return self.ask_node(0, method, *params)

    def ask_node(self, node: int, method: str, *params: object) -> dict[str, Any]:
        """One call to one of the sandbox's nodes."""
        self._rpc_id += 1
        body = {"jsonrpc": "2.0", "id": self._rpc_id, "method": method, "params": list(params)}
        answer = self.http.post(self.sandbox.rpc_urls[node], json=body, timeout=PATIENCE_S)
        assert answer.status_code == 200
        # Not requests' own reader: numbers beyond 2^63 stay integers.
        parsed: dict[str, Any] = json.loads(answer.text)
        assert parsed["id"] == self._rpc_id
        return parsed

    def send(self, transaction: VersionedTransaction, **config: object) -> str:
        tx_b64 = base64.b64encode(bytes(transaction)).decode()
        answer = self.rpc("sendTransaction", tx_b64, {"encoding": "base64", **config})
        assert "result" in answer, answer
        signature: str = answer["result"]
        return signature

    def airdrops(self, count: int = 1) -> list[str]:
        """Signatures of airdrops that have landed, oldest first; with a manual clock only."""
        made = [self.rpc("requestAirdrop", str(Keypair().pubkey()), 10**6)["result"] for _ in range(count)]
        self.sandbox.advance(1)
        return made

    def landed(self, signature: str) -> Any:
        """Wait for a transaction to land; its record."""

        def find() -> Any:
            return [record for record in self.sandbox.transactions() if record.signature == signature]

        records = self.sandbox.wait_for(find, PATIENCE_S)
        assert records, "the transaction never landed"
        return records[0]

    # stream

    def connect(self, url: str | None = None) -> ClientConnection:
        address = url or self.sandbox.stream_url
        return self._sockets.enter_context(
            connect(address, additional_headers=self.headers, proxy=None, close_timeout=1)
        )

    def stream(self, terms: dict[str, object] | None = None, **more: object) -> ClientConnection:
        """Connect and configure; returns after ``hello_ok``."""
        socket = self.connect()
        body = {"type": "configure", "wallet_pubkeys": [self.pubkey], "strategy": terms or strategy(), **more}
        socket.send(json.dumps(body))
        assert receive(socket)["type"] == "hello_ok"
        return socket


def receive(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    """The next message, or the next of some kinds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        message: dict[str, Any] = json.loads(socket.recv(timeout=max(0.1, deadline_s - time.monotonic())))
        if not kinds or message["type"] in kinds:
            return message
