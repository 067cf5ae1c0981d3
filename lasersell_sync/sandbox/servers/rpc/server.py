"""Solana JSON-RPC over HTTP, as much of it as sending and confirming transactions needs.

Two more paths play the senders of docs/protocol.md 9: ``/fast`` (Helius Sender) and ``/iris`` (Astralane) take nothing
but ``sendTransaction``, and want their tip. The methods' answers are in the modules ``…_methods.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS
from lasersell_sync.sandbox.chain.blockchain import TransactionRefused, sanitise, tip_lamports
from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.protocol.json_fields import BadField, decode_value
from lasersell_sync.sandbox.servers.faults import AnswerFault
from lasersell_sync.sandbox.servers.http_server import json_response
from lasersell_sync.sandbox.servers.node_lies import TRUTHFUL, NodeLies
from lasersell_sync.sandbox.servers.rpc.account_methods import AccountMethods
from lasersell_sync.sandbox.servers.rpc.block_methods import BlockMethods
from lasersell_sync.sandbox.servers.rpc.node import API_VERSION, RpcNode
from lasersell_sync.sandbox.servers.rpc.params import Params, RpcError, config_of, flag, invalid_params, transaction_of
from lasersell_sync.sandbox.servers.rpc.simulation_methods import SimulationMethods
from lasersell_sync.sandbox.servers.rpc.transaction_methods import TransactionMethods

#: Which sender a path belongs to, by ``send_mode``.
_SENDER_PATHS = {"/fast": "helius_sender", "/iris": "astralane"}


class RpcServer:
    """The application; ``HttpService`` gives it its socket.

    Threads: called on the connections' threads; all state is the exchange's.
    """

    def __init__(
        self,
        exchange: Exchange,
        ordered_error: Callable[[str], AnswerFault | None] = lambda _method: None,
        lies: Callable[[], NodeLies] = lambda: TRUTHFUL,
    ) -> None:
        self._ordered_error = ordered_error
        node = RpcNode(exchange, lies)
        self._methods: dict[str, Callable[[Params], object]] = {
            **TransactionMethods(node).methods(),
            **SimulationMethods(node).methods(),
            **BlockMethods(node).methods(),
            **AccountMethods(node).methods(),
            "getHealth": lambda _params: "ok",
            "getVersion": lambda _params: {"solana-core": API_VERSION, "feature-set": 0},
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
        except (RpcError, TransactionRefused) as error:
            answer = _failure(request_id, error)
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


def _failure(request_id: object, error: RpcError | TransactionRefused) -> dict[str, object]:
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "error": body, "id": request_id}


def _require_tip(params: Params, sender: str) -> None:
    """What senders ask for: no preflight, and something for them."""
    config = config_of(params, 1)
    if not flag(config, "skipPreflight"):
        raise invalid_params("skipPreflight must be true")
    transaction = transaction_of(params, config, default_encoding="base58")
    if not tip_lamports(sanitise(transaction), TIP_ACCOUNTS[sender]):
        raise invalid_params(f"the transaction pays no tip to an account of {sender}")
