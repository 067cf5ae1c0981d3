"""JSON-RPC 2.0 over kept-alive connections that the whole process shares.

A sale must not begin with a TCP and TLS handshake, and ``send_transaction`` is a function without an object to keep a
connection in: so the connections are kept here, per origin.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError
from lasersell_sync.network.http_endpoint import Endpoint, Route
from lasersell_sync.network.http_framing import HttpAnswer, HttpFailure
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.fork_guard import refuse_late_patching
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.solana.send_targets import SendTarget, SendTargetAstralane

if TYPE_CHECKING:
    # Loaded with the first request: urllib3 is most of the import time of this package.
    from lasersell_sync.network.http_pool import HttpPool

_CONNECT_TIMEOUT_S = 2.0
_ATTEMPT_TIMEOUT_S = 10.0

logger = _log.logger("trading")

#: A transaction lives for half a minute or more; a target that asks for a longer pause is asked once in between.
LONGEST_HOLD_S = 30.0

_ids = itertools.count(1)
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class RpcClient:
    """JSON-RPC 2.0 to one endpoint, over the process's shared connections.

    Args:
        endpoint: where to.
        label: what errors call it (``TxSubmitError.target``).
        api_key: sent as ``x-api-key``.
        route: how it is reached; default: directly.

    Threads: any.
    """

    def __init__(
        self, endpoint: Endpoint, label: str, api_key: str | None = None, *, route: Route | None = None
    ) -> None:
        self.label = label
        self._endpoint = endpoint
        self._route = route or Route()
        self._api_key = api_key
        self._headers = {"content-type": "application/json", **({} if api_key is None else {"x-api-key": api_key})}
        #: Monotonic seconds until which the endpoint wants no request (HTTP 429 with ``Retry-After``).
        self._held_until = 0.0

    def held_for_s(self) -> float:
        """Seconds until the endpoint may be asked again; 0 unless it limited our rate and named a time."""
        return max(0.0, self._held_until - time.monotonic())

    def call(self, method: str, params: list[Any], *, budget: TimeBudget, secrets: tuple[str, ...] = ()) -> Any:
        """One attempt; returns ``result``, None when there is none.

        Args:
            method: the RPC method.
            params: its positional parameters.
            budget: the whole attempt stays within what is left.
            secrets: taken out of every text that comes back.

        Raises:
            TxSubmitError: ``request_send``, ``response_read``, ``http_status``, ``decode_response``, ``rpc_error``.
                While the endpoint is held (``held_for_s``) nothing is sent, and this is its ``http_status`` 429 again.
        """
        return self._call(RpcRequest(method, _to_json(params), secrets), budget)

    def send_transaction(self, tx_b64: str, options_json: str, *, budget: TimeBudget) -> Any:
        """``call("sendTransaction", [tx_b64, options])``, without a search for characters to escape: a sale waits.

        Args:
            tx_b64: standard base64, checked; no character of it has a meaning in JSON.
            options_json: the second parameter, encoded.
            budget: the whole attempt stays within what is left.

        Raises:
            TxSubmitError: as ``call``; the transaction is taken out of every text that comes back.
        """
        return self._call(sending(tx_b64, options_json), budget)

    def _call(self, request: RpcRequest, budget: TimeBudget) -> Any:
        held_s = self.held_for_s()
        if held_s:
            raise TxSubmitError(
                "http_status",
                f"HTTP 429: not asked, the target accepts no request for another {held_s:.1f} s (Retry-After)",
                target=self.label,
                status=429,
                retry_after_s=held_s,
            )
        answer = self._request("POST", self._endpoint.target, request.body, budget, request.is_answered_by)
        return self.result(request, answer)

    def warm(self, path: str | None, *, budget: TimeBudget) -> None:
        """Opens a connection and leaves it ready; any answer but a redirect will do.

        Args:
            path: asked for with GET, without a key; None: ``getHealth`` is called.
            budget: all of it stays within what is left.

        Raises:
            TxSubmitError: ``request_send``, ``response_read``, or ``http_status`` for a redirect.
        """
        if path is not None:
            self._request("GET", path, None, budget)
        else:
            self._request("POST", self._endpoint.target, RpcRequest("getHealth").body, budget)

    def _request(
        self,
        method: str,
        target: str,
        body: bytes | None,
        budget: TimeBudget,
        is_expected: Callable[[HttpAnswer], bool] | None = None,
    ) -> HttpAnswer:
        pool = self.pool()
        limit_s = max(budget.remaining_s() or 0.0, 0.001)  # the first pool of a process takes a while: it loads urllib3
        headers = {} if body is None else self._headers
        try:
            return pool.request(
                method, target, headers=headers, body=body, attempt_timeout_s=limit_s, is_expected=is_expected
            )
        except HttpFailure as failure:
            raise self.failed(failure) from failure.__cause__

    # ── for those who keep connections of their own ──

    def pool(self) -> HttpPool:
        """The process's shared connections to the endpoint; what opens others like them, and reads their answers."""
        return _connections().pool_to(self._endpoint, self._route)

    def wire(self, request: RpcRequest) -> bytes:
        """A request as it is written."""
        return self.pool().wire("POST", self._endpoint.target, self._headers, request.body)

    def warming_wire(self, path: str | None) -> bytes:
        """The request of ``warm``, as it is written."""
        if path is not None:
            return self.pool().wire("GET", path, {}, None)
        return self.wire(RpcRequest("getHealth"))

    def failed(self, failure: HttpFailure) -> TxSubmitError:
        """The error that a failure of the connection is."""
        kinds = {"send": "request_send", "redirect": "http_status"}
        after = "; the request may have been received" if failure.sent and failure.stage != "redirect" else ""
        return TxSubmitError(
            kinds.get(failure.stage, "response_read"),
            _log.scrub(failure.problem, *self._endpoint.secrets, self._api_key) + after,
            target=self.label,
            status=failure.status,
        )

    def result(self, request: RpcRequest, answer: HttpAnswer) -> Any:
        """What an answer to ``request`` says: its ``result``, None when there is none.

        Raises:
            TxSubmitError: ``http_status``, ``decode_response``, ``rpc_error``. A 429 with ``Retry-After`` holds the
                endpoint (``held_for_s``).
        """
        parsed = request.parsed(answer)
        # A node may quote the request: transaction, URL and key.
        hidden = (*request.secrets, *self._endpoint.secrets, self._api_key)
        if _is_plain_result(parsed, request, answer):
            return parsed["result"]
        body = _log.shorten(_log.scrub(answer.text, *hidden))
        error = parsed.get("error") if isinstance(parsed, dict) else None
        words = _log.shorten(_log.scrub(_error_words(error), *hidden), 500)
        if not 200 <= answer.status < 300:
            detail = f"HTTP {answer.status}: {words or body or 'no words from the server'}"
            asked_s = answer.retry_after_s
            if answer.status == 429 and asked_s:
                hold_s = min(asked_s, LONGEST_HOLD_S)
                self._held_until = time.monotonic() + hold_s
                logger.warning("%s limits our rate (HTTP 429): nothing is sent there for %.1f s", self.label, hold_s)
            raise TxSubmitError(
                "http_status", detail, target=self.label, status=answer.status, body=body, retry_after_s=asked_s
            )
        if not isinstance(parsed, dict):
            problem = "the answer is not a JSON object"
            raise TxSubmitError("decode_response", problem, target=self.label, status=answer.status, body=body)
        if not request.is_answered_by(answer):
            problem = "the answer belongs to another request (its id differs)"
            raise TxSubmitError("decode_response", problem, target=self.label, status=answer.status, body=body)
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            code = code if isinstance(code, int) else None
            raise TxSubmitError("rpc_error", words, target=self.label, status=answer.status, body=body, code=code)
        return parsed.get("result")


def _is_plain_result(parsed: Any, request: RpcRequest, answer: HttpAnswer) -> bool:
    """Whether an answer is nothing but the result of this request: no words of it have to be made ready to show."""
    return (
        answer.status == 200
        and isinstance(parsed, dict)
        and parsed.get("error") is None
        and "result" in parsed
        and request.is_answered_by(answer)
    )


class RpcRequest:
    """One JSON-RPC request.

    Args:
        method: the RPC method.
        params_json: its positional parameters, encoded; None: none are sent.
        secrets: taken out of every text that comes back.

    Attributes:
        id: names it and nothing else of this process.
        body: what is posted.

    Threads: one at a time.
    """

    __slots__ = ("_parsed", "body", "id", "secrets")

    def __init__(self, method: str, params_json: str | None = None, secrets: tuple[str, ...] = ()) -> None:
        self.id = next(_ids)
        params = "" if params_json is None else f',"params":{params_json}'
        self.body = f'{{"jsonrpc":"2.0","id":{self.id},"method":"{method}"{params}}}'.encode()
        self.secrets = secrets
        #: The answer that was parsed last, and what came of it.
        self._parsed: tuple[HttpAnswer, Any] | None = None

    def parsed(self, answer: HttpAnswer) -> Any:
        """An answer's body as JSON; None when it is none."""
        if self._parsed is None or self._parsed[0] is not answer:
            self._parsed = answer, _parsed(answer)
        return self._parsed[1]

    def is_answered_by(self, answer: HttpAnswer) -> bool:
        """Whether an answer is to this request; what is not may be another one's, and so may what follows it."""
        return _is_of(self.parsed(answer), self.id, answer)


def sending(tx_b64: str, options_json: str) -> RpcRequest:
    """``sendTransaction``.

    Args:
        tx_b64: standard base64, checked; no character of it has a meaning in JSON.
        options_json: the second parameter, encoded.
    """
    return RpcRequest("sendTransaction", f'["{tx_b64}",{options_json}]', (tx_b64,))


def options_json(options: Mapping[str, object]) -> str:
    """The second parameter of ``sendTransaction``, encoded."""
    return _to_json({"encoding": "base64", "skipPreflight": True, **options})


def _parsed(answer: HttpAnswer) -> Any:
    """The body as JSON; None when it is none."""
    try:
        return json.loads(answer.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _is_of(parsed: Any, request_id: int, answer: HttpAnswer) -> bool:
    """Whether this answers our request; what does not may be another one's, and so may what follows it."""
    if not isinstance(parsed, dict):
        # A box on the way answers errors in HTML; as an answer of the node's it is nothing we asked for.
        return not 200 <= answer.status < 300
    answered = parsed.get("id")
    if answered is None:
        # A node that could not read the request answers with an error and a null id.
        return parsed.get("error") is not None or not 200 <= answer.status < 300
    # Some nodes make a text of it. (True is 1 to Python, and no id to anybody.)
    return answered in (request_id, str(request_id)) and not isinstance(answered, bool)


def client_for(target: SendTarget) -> RpcClient:
    """Of one target. A new one costs nothing: the connections are the process's.

    Raises:
        ConfigurationError: not a target.
    """
    if not isinstance(target, SendTarget):
        raise ConfigurationError("target", f"a SendTarget is needed, not {type(target).__name__}")
    api_key = target.api_key if isinstance(target, SendTargetAstralane) else None
    client: RpcClient = target.asked_through(RpcClient(target.endpoint, target.label, api_key, route=target.route()))
    return client


def _error_words(error: object) -> str:
    """A JSON-RPC error's message, with what the node adds about the transaction."""
    if error is None:
        return ""
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return json.dumps(error)
    data = error.get("data")
    cause = data.get("err") if isinstance(data, dict) else data
    return error["message"] if cause is None else f"{error['message']} ({json.dumps(cause)})"


# ── shared connections ───────────────────────────────────────────────────────────────────────────────────────────


class _Connections:
    """One pool per origin and way to it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        #: Guards ``_pools``.
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Route], HttpPool] = {}

    def pool_to(self, endpoint: Endpoint, route: Route) -> HttpPool:
        key = (endpoint.origin, route)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = _new_pool(endpoint, route)
            return pool

    def close(self) -> None:
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.close()


def _new_pool(endpoint: Endpoint, route: Route) -> HttpPool:
    refuse_late_patching()
    from lasersell_sync.network.http_pool import HttpPool

    return HttpPool(endpoint, connect_timeout_s=_CONNECT_TIMEOUT_S, attempt_timeout_s=_ATTEMPT_TIMEOUT_S, route=route)


_shared = _Connections()


def _connections() -> _Connections:
    """This process's own; a forked child starts anew, for the parent's lock may be held by a thread left behind."""
    global _shared  # noqa: PLW0603 - two threads that meet here make two, and one is dropped: no harm
    if _shared.pid != os.getpid():
        _shared = _Connections()
    return _shared


def close_rpc_connections() -> None:
    """Closes the kept connections to all RPC nodes and senders; the next call opens new ones.

    The connections of a ``TxSender`` to its targets are its own: its ``close`` ends them.

    Threads: any; a call under way in another thread may fail with ``ConcurrencyError``.
    """
    _connections().close()
