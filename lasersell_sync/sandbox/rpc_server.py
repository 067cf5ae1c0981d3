"""Solana JSON-RPC over HTTP, as much of it as sending and confirming transactions needs.

Two more paths play the senders of PROTOCOL.md §9: ``/fast`` (Helius Sender) and ``/iris`` (Astralane) take nothing but
``sendTransaction``, and want their tip.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox import base58
from lasersell_sync.sandbox.account_data import AccountInfo
from lasersell_sync.sandbox.addresses import TIP_ACCOUNTS, TOKEN_PROGRAM, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.budget import InvalidBudget
from lasersell_sync.sandbox.chain import (
    Chain,
    TransactionRefused,
    message_of,
    sanitise,
    tip_lamports,
)
from lasersell_sync.sandbox.exchange import Exchange
from lasersell_sync.sandbox.faults import AnswerFault
from lasersell_sync.sandbox.http_server import json_response
from lasersell_sync.sandbox.json_fields import U64_MAX, BadField, decode_value
from lasersell_sync.sandbox.ledger import TokenAccount
from lasersell_sync.sandbox.rpc_params import (
    Params,
    RpcError,
    config_of,
    decoded,
    flag,
    invalid_params,
    optional_integer,
    pubkey_of,
    required,
    signature_of,
    sliced,
    transaction_of,
    unsigned,
    watched_accounts,
)
from lasersell_sync.sandbox.slots import COMMITMENT_SLOTS, SLOTS_IN_EPOCH

#: Which sender a path belongs to, by ``send_mode``.
_SENDER_PATHS = {"/fast": "helius_sender", "/iris": "astralane"}
_API_VERSION = "2.3.0"
_MAX_SIGNATURES = 256
_MAX_BASE58_BYTES = 128
_MAX_ACCOUNTS = 100
_MAX_ACCOUNT_BYTES = 10 * 2**20
#: An account of no bytes takes so many; a byte costs two years' rent to be exempt from it.
_ACCOUNT_OVERHEAD_BYTES = 128
_RENT_LAMPORTS_PER_BYTE = 6_960


class RpcServer:
    """The application; ``HttpService`` gives it its socket.

    Threads: called on the connections' threads; all state is the exchange's.
    """

    def __init__(
        self,
        exchange: Exchange,
        ordered_error: Callable[[str], AnswerFault | None] = lambda _method: None,
        lag_slots: Callable[[], int] = lambda: 0,
    ) -> None:
        self._exchange = exchange
        self._ordered_error = ordered_error
        #: how far this node is behind the chain
        self._lag_slots = lag_slots
        self._methods: dict[str, Callable[[Params], object]] = {
            "sendTransaction": self._send_transaction,
            "simulateTransaction": self._simulate_transaction,
            "requestAirdrop": self._request_airdrop,
            "getLatestBlockhash": self._get_latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getBlockHeight": self._get_block_height,
            "getSlot": self._get_slot,
            "getEpochInfo": self._get_epoch_info,
            "getSignatureStatuses": self._get_signature_statuses,
            "getBalance": self._get_balance,
            "getAccountInfo": self._get_account_info,
            "getMultipleAccounts": self._get_multiple_accounts,
            "getMinimumBalanceForRentExemption": _get_minimum_balance,
            "getFeeForMessage": self._get_fee_for_message,
            "getTokenAccountBalance": self._get_token_account_balance,
            "getTokenAccountsByOwner": self._get_token_accounts_by_owner,
            "getHealth": lambda _params: "ok",
            "getVersion": lambda _params: {"solana-core": _API_VERSION, "feature-set": 0},
        }

    def __call__(self, request: Request) -> Response:
        """Answer one HTTP request, single or batch."""
        if request.method == "GET" and request.path in ("/health", "/ping"):
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
            answers = [self._call(item, request.path) for item in call]
            return json_response([answer for answer in answers if answer is not None])
        answer = self._call(call, request.path)
        return json_response(answer) if answer is not None else Response(status=204)

    def _call(self, call: object, path: str) -> dict[str, object] | None:
        """One call's answer; None for a notification."""
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            return _failure(None, RpcError(-32600, "Invalid request"))
        request_id = call.get("id")
        if not isinstance(request_id, (str, int, float, type(None))):
            return _failure(None, RpcError(-32600, "Invalid request"))
        try:
            result = self._dispatch(call["method"], call.get("params"), _SENDER_PATHS.get(path))
        except RpcError as error:
            answer = _failure(request_id, error)
        except TransactionRefused as error:
            answer = _failure(request_id, RpcError(error.code, error.message, error.data))
        else:
            answer = {"jsonrpc": "2.0", "result": result, "id": request_id}
        return answer if "id" in call else None

    def _dispatch(self, method: str, params: object, sender: str | None) -> object:
        handler = self._methods.get(method)
        if handler is None or (sender is not None and method != "sendTransaction"):
            raise RpcError(-32601, "Method not found")
        if params is None:
            params = []
        if not isinstance(params, list):
            raise invalid_params("params must be an array")
        if sender is not None:
            _require_tip(params, sender)
        fault = self._ordered_error(method)
        if fault is None or fault.error_code is None:
            return handler(params)
        if fault.handled:
            handler(params)
        raise RpcError(fault.error_code, fault.error_message, fault.error_data)

    def _in_context(self, value: object, slot: int | None = None) -> dict[str, object]:
        slot = self._slot("processed") if slot is None else slot
        return {"context": {"apiVersion": _API_VERSION, "slot": slot}, "value": value}

    def _slot(self, commitment: str) -> int:
        lag_slots = self._lag_slots()
        return self._exchange.ask_chain(lambda chain: chain.slots.slot(commitment) - lag_slots)

    def _commitment(self, config: dict[str, object], *, key: str = "commitment", default: str = "finalized") -> str:
        """The commitment asked for, once the chain has reached ``minContextSlot`` at it."""
        commitment = config.get(key)
        if commitment is None:
            commitment = default
        if not isinstance(commitment, str) or commitment not in COMMITMENT_SLOTS:
            raise invalid_params(f"unknown variant `{commitment}`, expected one of {', '.join(COMMITMENT_SLOTS)}")
        wanted, slot = optional_integer(config, "minContextSlot"), self._slot(commitment)
        if wanted is not None and wanted > slot:
            raise RpcError(-32016, "Minimum context slot has not been reached", {"contextSlot": slot})
        return commitment

    # -- transactions

    def _send_transaction(self, params: Params) -> str:
        config = config_of(params, 1)
        transaction = transaction_of(params, config, default_encoding="base58")
        self._commitment(config, key="preflightCommitment")
        return str(
            self._exchange.send_transaction(
                transaction,
                skip_preflight=flag(config, "skipPreflight"),
                max_retries=optional_integer(config, "maxRetries"),
            )
        )

    def _simulate_transaction(self, params: Params) -> object:
        config = config_of(params, 1)
        transaction = transaction_of(params, config, default_encoding="base58")
        verify, replace = flag(config, "sigVerify"), flag(config, "replaceRecentBlockhash")
        if verify and replace:
            raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
        self._commitment(config)
        wanted, encoding = watched_accounts(config)
        simulation = self._exchange.ask_chain(
            lambda chain: chain.simulate(transaction, verify=verify, any_blockhash=replace, watched=wanted)
        )
        shown = None
        if simulation.accounts is not None:
            shown = [self._account_value(account, {"encoding": encoding}) for account in simulation.accounts]
        answer: dict[str, object] = {
            "accounts": shown,
            "err": simulation.err,
            "innerInstructions": None,
            "logs": list(simulation.logs),
            "returnData": None,
            "unitsConsumed": simulation.units_used,
        }
        if replace:
            answer["replacementBlockhash"] = self._latest_blockhash("processed")
        return self._in_context(answer)

    def _request_airdrop(self, params: Params) -> str:
        wallet, lamports = pubkey_of(params, 0), required(params, 1)
        if isinstance(lamports, bool) or not isinstance(lamports, int) or not 0 < lamports <= U64_MAX:
            raise invalid_params("lamports must be a positive integer")
        self._commitment(config_of(params, 2))
        return str(self._exchange.airdrop(wallet, lamports))

    def _get_signature_statuses(self, params: Params) -> object:
        texts = required(params, 0)
        if not isinstance(texts, list):
            raise invalid_params("expected an array of signatures")
        if len(texts) > _MAX_SIGNATURES:
            raise invalid_params(f"Too many inputs provided; max {_MAX_SIGNATURES}")
        search = flag(config_of(params, 1), "searchTransactionHistory")
        signatures = [signature_of(text) for text in texts]
        lag_slots = self._lag_slots()

        def look(chain: Chain) -> tuple[list[dict[str, object] | None], int]:
            statuses = [chain.status(signature, search_history=search, lag_slots=lag_slots) for signature in signatures]
            return statuses, chain.slots.slot() - lag_slots

        return self._in_context(*self._exchange.ask_chain(look))

    def _get_fee_for_message(self, params: Params) -> object:
        """The fee, or null for a message whose blockhash is dead."""
        text = required(params, 0)
        if not isinstance(text, str):
            raise invalid_params("the message must be a base64 string")
        self._commitment(config_of(params, 1))
        transaction = unsigned(decoded(text, "base64"))
        sanitise(transaction)

        def fee(chain: Chain) -> int | None:
            message = message_of(transaction)
            return chain.fee_lamports(message) if chain.slots.accepts(message.recent_blockhash) else None

        try:
            return self._in_context(self._exchange.ask_chain(fee))
        except InvalidBudget as error:
            raise invalid_params(str(error)) from error

    # -- blocks

    def _get_slot(self, params: Params) -> int:
        return self._slot(self._commitment(config_of(params, 0)))

    def _get_block_height(self, params: Params) -> int:
        slot = self._slot(self._commitment(config_of(params, 0)))
        return self._exchange.ask_chain(lambda chain: chain.slots.block_height(slot))

    def _get_epoch_info(self, params: Params) -> object:
        slot = self._slot(self._commitment(config_of(params, 0)))
        epoch, slot_index = divmod(slot, SLOTS_IN_EPOCH)
        return {
            "absoluteSlot": slot,
            "blockHeight": self._exchange.ask_chain(lambda chain: chain.slots.block_height(slot)),
            "epoch": epoch,
            "slotIndex": slot_index,
            "slotsInEpoch": SLOTS_IN_EPOCH,
            "transactionCount": None,
        }

    def _get_latest_blockhash(self, params: Params) -> object:
        commitment = self._commitment(config_of(params, 0))
        return self._in_context(self._latest_blockhash(commitment), self._slot(commitment))

    def _latest_blockhash(self, commitment: str) -> dict[str, object]:
        lag_slots = self._lag_slots()
        blockhash, last_height = self._exchange.ask_chain(
            lambda chain: chain.slots.latest_blockhash(commitment, lag_slots=lag_slots)
        )
        return {"blockhash": str(blockhash), "lastValidBlockHeight": last_height}

    def _is_blockhash_valid(self, params: Params) -> object:
        text = required(params, 0)
        try:
            blockhash = Hash.from_string(text) if isinstance(text, str) else None
        except ParseHashError:  # unlike its siblings, no ValueError
            blockhash = None
        if blockhash is None:
            raise invalid_params("not a blockhash")
        slot = self._slot(self._commitment(config_of(params, 1)))
        return self._in_context(self._exchange.ask_chain(lambda chain: chain.slots.accepted(blockhash, slot)), slot)

    # -- accounts

    def _get_balance(self, params: Params) -> object:
        self._commitment(config_of(params, 1))
        return self._in_context(self._exchange.balance_lamports(pubkey_of(params, 0)))

    def _get_account_info(self, params: Params) -> object:
        address, config = pubkey_of(params, 0), config_of(params, 1)
        self._commitment(config)
        account = self._exchange.ask_chain(lambda chain: chain.account(address))
        return self._in_context(self._account_value(account, config))

    def _get_multiple_accounts(self, params: Params) -> object:
        texts, config = required(params, 0), config_of(params, 1)
        if not isinstance(texts, list) or len(texts) > _MAX_ACCOUNTS:
            raise invalid_params(f"expected an array of at most {_MAX_ACCOUNTS} addresses")
        addresses = [pubkey_of(texts, index) for index in range(len(texts))]
        self._commitment(config)
        accounts = self._exchange.ask_chain(lambda chain: [chain.account(address) for address in addresses])
        return self._in_context([self._account_value(account, config) for account in accounts])

    def _get_token_account_balance(self, params: Params) -> object:
        self._commitment(config_of(params, 1))
        account = self._exchange.token_account(pubkey_of(params, 0))
        if account is None:
            raise invalid_params("could not find account")
        return self._in_context(self._token_amount(account))

    def _token_amount(self, account: TokenAccount) -> dict[str, object]:
        mint = self._exchange.mint(account.mint)
        decimals = mint.decimals if mint is not None else 0
        whole, rest = divmod(account.amount, 10**decimals)
        digits = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".")
        amount = account.amount / 10**decimals
        return {"amount": str(account.amount), "decimals": decimals, "uiAmount": amount, "uiAmountString": digits}

    def _get_token_accounts_by_owner(self, params: Params) -> object:
        owner, mint = pubkey_of(params, 0), self._mint_filter(params)
        config = config_of(params, 2)
        self._commitment(config)
        if config.get("encoding", "base64") not in ("jsonParsed", "base64"):
            raise invalid_params("encoding must be jsonParsed or base64")
        addresses = [
            address
            for address, account in self._exchange.token_accounts_of(owner)
            if mint is None or account.mint == mint
        ]
        accounts = self._exchange.ask_chain(lambda chain: [chain.account(address) for address in addresses])
        found = zip(addresses, accounts, strict=True)
        entries = [{"account": self._account_value(item, config), "pubkey": str(address)} for address, item in found]
        return self._in_context(entries)

    def _mint_filter(self, params: Params) -> Pubkey | None:
        """The mint asked for, or None for every token of the classic program."""
        wanted = config_of(params, 1)
        if "mint" in wanted:
            return pubkey_of([wanted["mint"]], 0)
        if wanted.get("programId") != str(TOKEN_PROGRAM):
            raise invalid_params("expected a filter: mint, or the token program as programId")
        return None

    def _account_value(self, account: AccountInfo | None, config: dict[str, object]) -> dict[str, object] | None:
        if account is None:
            return None
        return {
            "data": self._account_data(account, config),
            "executable": account.executable,
            "lamports": account.lamports,
            "owner": str(account.owner),
            "rentEpoch": U64_MAX,
            "space": len(account.data),
        }

    def _account_data(self, account: AccountInfo, config: dict[str, object]) -> object:
        encoding = config.get("encoding", "base64" if account.data else "base58")
        parsed = self._parsed(account) if encoding == "jsonParsed" else None
        if parsed is not None:
            return {"parsed": parsed, "program": "spl-token", "space": len(account.data)}
        data = sliced(account.data, config.get("dataSlice"))
        if encoding == "base58":
            if len(data) > _MAX_BASE58_BYTES:
                raise RpcError(-32600, "Encoded binary (base 58) data should be less than 128 bytes, use base64.")
            return [base58.encode(data), "base58"]
        if encoding not in ("base64", "jsonParsed"):
            raise invalid_params("unsupported encoding; supported: base58, base64, jsonParsed")
        return [base64.b64encode(data).decode("ascii"), "base64"]

    def _parsed(self, account: AccountInfo) -> dict[str, object] | None:
        """A token program's account in words; None for any other, which is then shown as bytes."""
        info: dict[str, object]
        if account.token is not None:
            info = {
                "isNative": account.token.mint == WRAPPED_SOL_MINT,
                "mint": str(account.token.mint),
                "owner": str(account.token.owner),
                "state": "initialized",
                "tokenAmount": self._token_amount(account.token),
            }
            return {"info": info, "type": "account"}
        if account.mint is None:
            return None
        supply, decimals = str(account.mint.supply), account.mint.decimals
        info = {
            "decimals": decimals,
            "freezeAuthority": None,
            "isInitialized": True,
            "mintAuthority": None,
            "supply": supply,
        }
        return {"info": info, "type": "mint"}


def _failure(request_id: object, error: RpcError) -> dict[str, object]:
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "error": body, "id": request_id}


def _get_minimum_balance(params: Params) -> int:
    size = optional_integer({"size": required(params, 0)}, "size")
    if size is None or size > _MAX_ACCOUNT_BYTES:
        raise invalid_params(f"the size must be an integer from 0 to {_MAX_ACCOUNT_BYTES}")
    return (_ACCOUNT_OVERHEAD_BYTES + size) * _RENT_LAMPORTS_PER_BYTE


def _require_tip(params: Params, sender: str) -> None:
    """What senders ask for: no preflight, and something for them."""
    config = config_of(params, 1)
    if not flag(config, "skipPreflight"):
        raise invalid_params("skipPreflight must be true")
    transaction = transaction_of(params, config, default_encoding="base58")
    sanitise(transaction)
    if not tip_lamports(message_of(transaction), TIP_ACCOUNTS[sender]):
        raise invalid_params(f"the transaction pays no tip to an account of {sender}")
