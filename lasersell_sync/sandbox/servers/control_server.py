"""The control API: faults and market events over HTTP, for bots in any language (``POST /sandbox/...``).

Every call needs the API key, as every other call does; that also keeps web pages of other sites out, which cannot send
the header. Bodies are JSON objects; an empty body is an empty object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.protocol.json_fields import BadField, Fields, decode_object
from lasersell_sync.sandbox.servers.faults import Faults
from lasersell_sync.sandbox.servers.http_server import Application, json_response

CONTROL_PREFIX = "/sandbox/"

#: An order by name; its fields are the parameters of the function, by their names and types.
Order = Callable[..., object]


class ControlServer:
    """The application; mounted on the REST service's port.

    Args:
        faults: What ``faults`` and most orders go to.
        others: More orders, by name.
        is_key: Whether an API key is good.

    Threads: called on the workers' threads; everything it calls may be called from any thread.
    """

    def __init__(self, faults: Faults, others: Mapping[str, Order], is_key: Callable[[str | None], object]) -> None:
        self._faults = faults
        self._is_key = is_key
        self._orders: dict[str, Order] = {
            "drop": faults.drop,
            "close": faults.close,
            "mute": faults.mute,
            "unmute": faults.unmute,
            "half-open": faults.half_open,
            "error": faults.error,
            "corrupt": faults.corrupt,
            "raw": self._raw,
            "slow-link": faults.slow_link,
            "latency": self._latency,
            "restart": faults.restart,
            "rpc": faults.rpc,
            "rpc-lag": faults.rpc_lag,
            "node": faults.node,
            "api": faults.api,
            "transactions": faults.transactions,
            "chain": faults.chain,
            "router": faults.router,
            "clear": faults.clear,
            **others,
        }

    def __call__(self, request: Request) -> Response:
        """Answer one request; never raises for what a client sent."""
        if not self._is_key(request.headers.get("x-api-key")):
            return json_response({"error": "missing or invalid x-api-key"}, 401)
        name = request.path.removeprefix(CONTROL_PREFIX)
        if request.method == "GET" and name == "faults":
            return json_response(self._faults.pending)
        order = self._orders.get(name)
        if order is None:
            known = ", ".join(self._orders)
            return json_response({"error": f"no such action; known: {known}, and GET faults"}, 404)
        if request.method != "POST":
            return json_response({"error": "method not allowed: use POST"}, 405)
        try:
            body = request.get_data()
            result = order(**_arguments(order, Fields(decode_object(body) if body.strip() else {})))
        except (BadField, ValueError) as error:
            return json_response({"error": str(error)}, 400)
        except (RuntimeError, OSError) as error:
            return json_response({"error": str(error)}, 409)
        connections = {"connections": result} if isinstance(result, int) else {}
        return json_response({"ok": True, **connections})

    def _latency(self, ms: float) -> None:
        self._faults.latency(ms)

    def _raw(self, text: str | None = None, hex: str | None = None, session_id: int | None = None) -> int:  # noqa: A002
        if (text is None) == (hex is None):
            raise BadField("exactly one of text and hex is needed")
        if hex is None:
            return self._faults.raw(text or "", session_id)
        try:
            return self._faults.raw(bytes.fromhex(hex), session_id)
        except ValueError as error:
            raise BadField(f"hex: {error}") from error


def _arguments(order: Order, fields: Fields) -> dict[str, object]:
    """What an order's parameters are in the body. Raises ``BadField``."""
    arguments: dict[str, object] = {}
    for name, parameter in inspect.signature(order).parameters.items():
        kind = str(parameter.annotation)
        if fields.has(name):
            arguments[name] = _value(fields, name, kind)
        elif parameter.default is parameter.empty:
            arguments[name] = None if kind.endswith("| None") else _value(fields, name, kind)
    return arguments


def _value(fields: Fields, name: str, kind: str) -> object:
    if name == "error_code":
        return _signed(fields, name)
    if (name, kind) == ("times", "int | None"):
        return fields.integer(name) or None  # 0: until cleared
    readers = {"int": fields.integer, "float": fields.number, "bool": fields.flag, "object": fields.value}
    # The kinds of an order are names; an unknown one is the order's own complaint.
    return readers.get(kind.removesuffix(" | None"), fields.text)(name)


def _signed(fields: Fields, name: str) -> int:
    number = fields.number(name)
    if number != int(number):
        raise BadField(f"{name} must be an integer")
    return int(number)


def mounted(control: ControlServer, application: Application) -> Application:
    """Both under one roof."""

    def answer(request: Request) -> Response:
        return (control if request.path.startswith(CONTROL_PREFIX) else application)(request)

    return answer
