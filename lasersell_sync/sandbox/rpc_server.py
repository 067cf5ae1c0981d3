"""Solana JSON-RPC over HTTP, as much of it as sending and confirming transactions needs."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable

from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox import base58
from lasersell_sync.sandbox.addresses import TOKEN_PROGRAM, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain import MAX_TRANSACTION_BYTES, TransactionRefused
from lasersell_sync.sandbox.exchange import Exchange
from lasersell_sync.sandbox.http_server import json_response
from lasersell_sync.sandbox.json_fields import U64_MAX, BadField, decode_value
from lasersell_sync.sandbox.ledger import RENT_TOKEN_ACCOUNT_LAMPORTS, TokenAccount

_API_VERSION = "2.3.0"
_MAX_SIGNATURES = 256
_MAX_BASE58_CHARACTERS = 1_683
_TOKEN_ACCOUNT_BYTES = 165

Params = list[object]


class RpcError(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class RpcServer:
    """The application; ``HttpService`` gives it its socket.

    Threads: called on the connections' threads; all state is the exchange's.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._methods: dict[str, Callable[[Params], object]] = {
            "sendTransaction": self._send_transaction,
            "simulateTransaction": self._simulate_transaction,
            "requestAirdrop": self._request_airdrop,
            "getLatestBlockhash": self._get_latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getBlockHeight": lambda _params: self._exchange.block_height(),
            "getSlot": lambda _params: self._exchange.slot(),
            "getSignatureStatuses": self._get_signature_statuses,
            "getBalance": self._get_balance,
            "getTokenAccountBalance": self._get_token_account_balance,
            "getTokenAccountsByOwner": self._get_token_accounts_by_owner,
            "getHealth": lambda _params: "ok",
            "getVersion": lambda _params: {"solana-core": _API_VERSION, "feature-set": 0},
        }

    def __call__(self, request: Request) -> Response:
        """Answer one HTTP request, single or batch."""
        if request.method == "GET" and request.path == "/health":
            return Response("ok", mimetype="text/plain")
        if request.method != "POST":
            return json_response({"error": "Used HTTP Method is not allowed. POST or OPTIONS is required"}, 405)
        try:
            call = decode_value(request.get_data())
        except BadField:
            return json_response(_failure(None, RpcError(-32700, "Parse error")))
        if isinstance(call, list):
            if not call:
                return json_response(_failure(None, RpcError(-32600, "Invalid request")))
            answers = [answer for answer in map(self._call, call) if answer is not None]
            return json_response(answers)
        answer = self._call(call)
        return json_response(answer) if answer is not None else Response(status=204)

    def _call(self, call: object) -> dict[str, object] | None:
        """One call's answer; None for a notification."""
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            return _failure(None, RpcError(-32600, "Invalid request"))
        request_id = call.get("id")
        if not isinstance(request_id, (str, int, float, type(None))):
            return _failure(None, RpcError(-32600, "Invalid request"))
        try:
            result = self._dispatch(call["method"], call.get("params"))
        except RpcError as error:
            answer = _failure(request_id, error)
        except TransactionRefused as error:
            answer = _failure(request_id, RpcError(error.code, error.message, error.data))
        else:
            answer = {"jsonrpc": "2.0", "result": result, "id": request_id}
        return answer if "id" in call else None

    def _dispatch(self, method: str, params: object) -> object:
        handler = self._methods.get(method)
        if handler is None:
            raise RpcError(-32601, "Method not found")
        if params is None:
            params = []
        if not isinstance(params, list):
            raise _invalid("params must be an array")
        return handler(params)

    def _in_context(self, value: object) -> dict[str, object]:
        return {"context": {"apiVersion": _API_VERSION, "slot": self._exchange.slot()}, "value": value}

    # -- transactions

    def _send_transaction(self, params: Params) -> str:
        config = _config(params, 1)
        transaction = _transaction(params, config, default_encoding="base58")
        skip_preflight = config.get("skipPreflight", False)
        if not isinstance(skip_preflight, bool):
            raise _invalid("skipPreflight must be a boolean")
        return str(self._exchange.send_transaction(transaction, skip_preflight=skip_preflight))

    def _simulate_transaction(self, params: Params) -> object:
        transaction = _transaction(params, _config(params, 1), default_encoding="base58")
        err, execution = self._exchange.simulate(transaction)
        logs = list(execution.logs) if execution else []
        return self._in_context({"err": err, "logs": logs, "accounts": None, "unitsConsumed": 0, "returnData": None})

    def _request_airdrop(self, params: Params) -> str:
        wallet, lamports = _pubkey(params, 0), _param(params, 1)
        if isinstance(lamports, bool) or not isinstance(lamports, int) or not 0 < lamports <= U64_MAX:
            raise _invalid("lamports must be a positive integer")
        return str(self._exchange.airdrop(wallet, lamports))

    def _get_signature_statuses(self, params: Params) -> object:
        texts = _param(params, 0)
        if not isinstance(texts, list):
            raise _invalid("expected an array of signatures")
        if len(texts) > _MAX_SIGNATURES:
            raise _invalid(f"Too many inputs provided; max {_MAX_SIGNATURES}")
        return self._in_context([self._exchange.signature_status(_signature(text)) for text in texts])

    # -- blocks

    def _get_latest_blockhash(self, _params: Params) -> object:
        blockhash, last_valid_height = self._exchange.latest_blockhash()
        return self._in_context({"blockhash": str(blockhash), "lastValidBlockHeight": last_valid_height})

    def _is_blockhash_valid(self, params: Params) -> object:
        text = _param(params, 0)
        try:
            blockhash = Hash.from_string(text) if isinstance(text, str) else None
        except ParseHashError:  # unlike its siblings, no ValueError
            blockhash = None
        if blockhash is None:
            raise _invalid("not a blockhash")
        return self._in_context(self._exchange.accepts_blockhash(blockhash))

    # -- accounts

    def _get_balance(self, params: Params) -> object:
        return self._in_context(self._exchange.balance_lamports(_pubkey(params, 0)))

    def _get_token_account_balance(self, params: Params) -> object:
        account = self._exchange.token_account(_pubkey(params, 0))
        if account is None:
            raise _invalid("could not find account")
        return self._in_context(self._token_amount(account))

    def _token_amount(self, account: TokenAccount) -> dict[str, object]:
        mint = self._exchange.mint(account.mint)
        decimals = mint.decimals if mint is not None else 0
        whole, rest = divmod(account.amount, 10**decimals)
        digits = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".")
        amount = account.amount / 10**decimals
        return {"amount": str(account.amount), "decimals": decimals, "uiAmount": amount, "uiAmountString": digits}

    def _get_token_accounts_by_owner(self, params: Params) -> object:
        owner, mint = _pubkey(params, 0), self._mint_filter(params)
        config = _config(params, 2)
        encoding = config.get("encoding", "base64")
        if encoding not in ("jsonParsed", "base64"):
            raise _invalid("encoding must be jsonParsed or base64")
        found = [
            self._account_entry(address, account, parsed=encoding == "jsonParsed")
            for address, account in self._exchange.token_accounts_of(owner)
            if mint is None or account.mint == mint
        ]
        return self._in_context(found)

    def _mint_filter(self, params: Params) -> Pubkey | None:
        """The mint asked for, or None for every token of the classic program."""
        wanted = _config(params, 1)
        if "mint" in wanted:
            return _pubkey([wanted["mint"]], 0)
        if wanted.get("programId") != str(TOKEN_PROGRAM):
            raise _invalid("expected a filter: mint, or the token program as programId")
        return None

    def _account_entry(self, address: Pubkey, account: TokenAccount, *, parsed: bool) -> dict[str, object]:
        lamports = self._exchange.balance_lamports(address)
        data: object
        if parsed:
            info = {
                "isNative": account.mint == WRAPPED_SOL_MINT,
                "mint": str(account.mint),
                "owner": str(account.owner),
                "state": "initialized",
                "tokenAmount": self._token_amount(account),
            }
            data = {
                "parsed": {"info": info, "type": "account"},
                "program": "spl-token",
                "space": _TOKEN_ACCOUNT_BYTES,
            }
        else:
            data = [base64.b64encode(_token_account_bytes(account)).decode("ascii"), "base64"]
        state = {
            "data": data,
            "executable": False,
            "lamports": lamports,
            "owner": str(TOKEN_PROGRAM),
            "rentEpoch": U64_MAX,
            "space": _TOKEN_ACCOUNT_BYTES,
        }
        return {"account": state, "pubkey": str(address)}


# -- parameters


def _invalid(message: str) -> RpcError:
    return RpcError(-32602, f"Invalid params: {message}")


def _failure(request_id: object, error: RpcError) -> dict[str, object]:
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "error": body, "id": request_id}


def _param(params: Params, index: int) -> object:
    if index >= len(params):
        raise _invalid(f"expected at least {index + 1} parameters")
    return params[index]


def _config(params: Params, index: int) -> dict[str, object]:
    config = params[index] if index < len(params) else None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise _invalid("the configuration must be an object")
    return config


def _pubkey(params: Params, index: int) -> Pubkey:
    text = _param(params, index)
    try:
        if isinstance(text, str):
            return Pubkey.from_string(text)
    except ValueError:
        pass
    raise _invalid("not a public key")


def _signature(text: object) -> Signature:
    try:
        if isinstance(text, str):
            return Signature.from_string(text)
    except ValueError:
        pass
    raise _invalid("not a signature")


def _transaction(params: Params, config: dict[str, object], *, default_encoding: str) -> VersionedTransaction:
    text = _param(params, 0)
    if not isinstance(text, str):
        raise _invalid("the transaction must be a string")
    raw = _transaction_bytes(text, config.get("encoding", default_encoding))
    try:
        transaction = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        message = f"failed to deserialize solana_transaction::versioned::VersionedTransaction: {error}"
        raise RpcError(-32602, message) from error
    if bytes(transaction) != raw:
        raise RpcError(-32602, "failed to deserialize solana_transaction: bytes left over")
    if not transaction.signatures:
        raise RpcError(-32602, "invalid transaction: Transaction failed to sanitize accounts offsets correctly")
    return transaction


def _transaction_bytes(text: str, encoding: object) -> bytes:
    try:
        if encoding == "base64":
            raw = base64.b64decode(text, validate=True)
        elif encoding == "base58":
            if len(text) > _MAX_BASE58_CHARACTERS:
                raise _invalid(f"base58 encoded transaction too large: {len(text)} characters")
            raw = base58.decode(text)
        else:
            raise _invalid("unsupported encoding; supported: base58, base64")
    except (ValueError, binascii.Error) as error:
        raise _invalid(f"invalid {encoding} encoding: {error}") from error
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise _invalid(f"decoded transaction too large: {len(raw)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)")
    return raw


def _token_account_bytes(account: TokenAccount) -> bytes:
    """The 165 bytes of an initialized account without delegate."""
    native = account.mint == WRAPPED_SOL_MINT
    return struct.pack(
        "<32s32sQ4x32xB4sQ8x4x32x",
        bytes(account.mint),
        bytes(account.owner),
        account.amount,
        1,
        struct.pack("<I", 1 if native else 0),
        RENT_TOKEN_ACCOUNT_LAMPORTS if native else 0,
    )
