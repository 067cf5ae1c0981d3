"""A Solana node on loopback that says what a test wants: a chain of its own, and for each method any other answer."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from typing_extensions import Self

from tests.support.http_server import Answer, HttpServer, Seen, json_answer

SLOTS_ABOVE_HEIGHT = 21_000_000
FIRST_HEIGHT = 279_000_000
WALLET = Keypair.from_seed(bytes([7]) * 32)

Say = Callable[[list[Any]], Any]


class RpcFailure(Exception):
    """Answer with this JSON-RPC error."""

    def __init__(self, code: int, message: str = "scripted", data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **({} if data is None else {"data": data})}


class SolanaNode:
    """Answers as a node does, from the state that a test sets; ``say[method]`` answers in its place.

    Attributes:
        height: its newest block; the confirmed one is one below.
        valid: blockhashes that it calls valid.
        statuses: what it knows of transactions, by signature.
        accounts: what ``getMultipleAccounts`` finds.
        history: what ``getSignaturesForAddress`` lists, by address.
        say: by method: gets the parameters; returns a result or an ``Answer``, or raises ``RpcFailure``.
        sent: what ``sendTransaction`` got, in order.
    """

    def __init__(self, *, height: int = FIRST_HEIGHT) -> None:
        self.height = height
        self.valid: set[str] = set()
        self.statuses: dict[str, Any] = {}
        self.accounts: dict[str, Any] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        #: Its oldest one, by slot.
        self.first_block = SLOTS_ABOVE_HEIGHT + height
        self.say: dict[str, Say] = {}
        self.sent: list[str] = []
        self.asked: list[str] = []
        #: Set by a test to end whatever hangs.
        self.let_go = threading.Event()
        self._server = HttpServer(respond=self._respond)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go.set()
        self._server.__exit__(*error)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def requests(self) -> list[Seen]:
        return self._server.requests

    @property
    def connections(self) -> int:
        return self._server.connections

    def drop_connections(self) -> None:
        self._server.drop_connections()

    def land(self, signature: str, *, level: str = "confirmed", err: object = None) -> None:
        self.statuses[signature] = {
            "slot": self.height + SLOTS_ABOVE_HEIGHT,
            "confirmations": None,
            "err": err,
            "confirmationStatus": level,
        }

    def hang(self, _params: list[Any] | None = None) -> Answer:
        return Answer(hold=self.let_go)

    def count(self, method: str) -> int:
        return self.asked.count(method)

    # ── answers ──

    def _respond(self, seen: Seen) -> Answer:
        if seen.method == "GET":
            self.asked.append("GET " + seen.path)
            return Answer(200, b"ok")
        call = seen.json
        try:
            return self._answer(call)
        finally:
            # Not before: a test that sees it counted may change what the next answer is.
            self.asked.append(call["method"])

    def _answer(self, call: dict[str, Any]) -> Answer:
        params = call.get("params") or []
        if call["method"] == "sendTransaction":
            self.sent.append(params[0])
        say = self.say.get(call["method"]) or getattr(self, "_" + call["method"])
        try:
            result = say(params)
        except RpcFailure as failure:
            return json_answer({"jsonrpc": "2.0", "id": call["id"], "error": failure.error})
        if isinstance(result, Answer):
            return result
        return json_answer({"jsonrpc": "2.0", "id": call["id"], "result": result})

    def in_context(self, value: object, *, confirmed: bool = False) -> dict[str, Any]:
        return {"context": {"slot": self.height + SLOTS_ABOVE_HEIGHT - confirmed}, "value": value}

    def _sendTransaction(self, params: list[Any]) -> str:
        return signature_in(params[0])

    def _getHealth(self, _params: list[Any]) -> str:
        return "ok"

    def _isBlockhashValid(self, params: list[Any]) -> object:
        return self.in_context(params[0] in self.valid)

    def _getEpochInfo(self, params: list[Any]) -> object:
        height = self.height - (params[0]["commitment"] != "processed")
        return {"absoluteSlot": height + SLOTS_ABOVE_HEIGHT, "blockHeight": height, "epoch": 1}

    def _getRecentPerformanceSamples(self, _params: list[Any]) -> object:
        raise RpcFailure(-32601, "not kept here")

    def _getMinimumBalanceForRentExemption(self, params: list[Any]) -> int:
        return (params[0] + 128) * 6_960

    def _getSignatureStatuses(self, params: list[Any]) -> object:
        assert params[1] in ({"searchTransactionHistory": True}, {"searchTransactionHistory": False})
        assert 0 < len(params[0]) <= 256
        return self.in_context([self.statuses.get(signature) for signature in params[0]])

    def _getMultipleAccounts(self, params: list[Any]) -> object:
        options = dict(params[1])
        self._require_state(options.pop("minContextSlot", 0))
        assert options == {"encoding": "base64", "commitment": "confirmed"}
        assert 0 < len(params[0]) <= 100
        return self.in_context([self.accounts.get(address) for address in params[0]])

    def _getFirstAvailableBlock(self, _params: list[Any]) -> int:
        return self.first_block

    def _getSignaturesForAddress(self, params: list[Any]) -> object:
        """From ``history``, newest first, as agave pages it."""
        address, options = params
        assert options["commitment"] == "confirmed"
        self._require_state(options["minContextSlot"])
        listed = self.history.get(address, [])
        if "before" in options:
            listed = listed[[each["signature"] for each in listed].index(options["before"]) + 1 :]
        return listed[: options["limit"]]

    def _require_state(self, slot: int) -> None:
        if self.height + SLOTS_ABOVE_HEIGHT < slot:
            raise RpcFailure(-32016, "Minimum context slot has not been reached")

    def touch(self, address: str, signature: str, slot: int, *, err: object = None, time_s: int | None = None) -> None:
        """A transaction that names an address is the newest of its history."""
        item = {"signature": signature, "slot": slot, "err": err, "memo": None, "blockTime": time_s}
        self.history.setdefault(address, []).insert(0, item)


# ── transactions ─────────────────────────────────────────────────────────────────────────────────────────────────


class SignedTransfer:
    """A transaction of ``WALLET``: its base64, signature and blockhash."""

    def __init__(self, number: int = 1, *, first: tuple[Instruction, ...] = (), to: str | None = None) -> None:
        blockhash = Hash.from_bytes(number.to_bytes(32, "big"))
        target = Pubkey.from_string(to) if to is not None else Pubkey.from_bytes(bytes([9]) * 32)
        gift = transfer(TransferParams(from_pubkey=WALLET.pubkey(), to_pubkey=target, lamports=number))
        message = MessageV0.try_compile(WALLET.pubkey(), [*first, gift], [], blockhash)
        signed = VersionedTransaction(message, [WALLET])
        self.b64 = base64.b64encode(bytes(signed)).decode()
        self.signature = str(signed.signatures[0])
        self.blockhash = str(blockhash)


def advance_nonce() -> Instruction:
    """What makes a transaction stand on a durable nonce."""
    nonce = Pubkey.from_bytes(bytes([3]) * 32)
    accounts = [
        AccountMeta(nonce, is_signer=False, is_writable=True),
        AccountMeta(
            Pubkey.from_string("SysvarRecentB1ockHashes11111111111111111111"), is_signer=False, is_writable=False
        ),
        AccountMeta(WALLET.pubkey(), is_signer=True, is_writable=False),
    ]
    return Instruction(Pubkey.default(), b"\x04\x00\x00\x00", accounts)


def signature_in(tx_b64: str) -> str:
    return str(VersionedTransaction.from_bytes(base64.b64decode(tx_b64)).signatures[0])
