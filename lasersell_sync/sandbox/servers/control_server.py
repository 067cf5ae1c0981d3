"""The control API: faults and market events over HTTP, for bots in any language (``POST /sandbox/...``).

Every call needs the API key, as every other call does; that also keeps web pages of other sites out, which cannot send
the header. Bodies are JSON objects; an empty body is an empty object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.protocol.json_fields import U32_MAX, BadField, Fields, decode_object
from lasersell_sync.sandbox.servers.faults import Faults
from lasersell_sync.sandbox.servers.http_server import Application, json_response
from lasersell_sync.sandbox.servers.node_lies import OddItem, SimulationLie

if TYPE_CHECKING:
    from lasersell_sync.sandbox.sandbox import Sandbox

CONTROL_PREFIX = "/sandbox/"


class ControlServer:
    """The application; mounted beside the REST service's.

    Threads: called on the workers' threads; everything it calls may be called from any thread.
    """

    def __init__(self, sandbox: Sandbox, is_key: Callable[[str | None], object]) -> None:
        self._sandbox = sandbox
        self._is_key = is_key
        self._actions: dict[str, Callable[[Faults, Fields], object]] = {
            "drop": lambda faults, fields: faults.drop(_session(fields)),
            "close": _close,
            "mute": lambda faults, _fields: faults.mute(),
            "unmute": lambda faults, _fields: faults.unmute(),
            "half-open": lambda faults, fields: faults.half_open(_session(fields)),
            "error": lambda faults, fields: faults.error(fields.text("code"), fields.text("message"), _session(fields)),
            "corrupt": lambda faults, fields: faults.corrupt(fields.optional_text("kind") or "json", _session(fields)),
            "raw": _raw,
            "slow-link": lambda faults, fields: faults.slow_link(fields.optional_integer("bytes_per_s")),
            "latency": lambda faults, fields: faults.latency(fields.number("ms")),
            "restart": _restart,
            "rpc": _rpc,
            "rpc-lag": lambda faults, fields: faults.rpc_lag(fields.integer("slots")),
            "node": _node,
            "api": _api,
            "transactions": _transactions,
            "chain": _chain,
            "router": lambda faults, fields: faults.router(fields.optional_text("theft")),
            "clear": lambda faults, _fields: faults.clear(),
            "skip-slots": lambda _faults, fields: sandbox.skip_slots(
                fields.integer("slots"), empty=fields.flag("empty", default=False)
            ),
            "price": self._price,
            "exit": lambda _faults, fields: sandbox.force_exit(fields.integer("position_id"), fields.text("reason")),
        }

    def __call__(self, request: Request) -> Response:
        """Answer one request; never raises for what a client sent."""
        if not self._is_key(request.headers.get("x-api-key")):
            return json_response({"error": "missing or invalid x-api-key"}, 401)
        name = request.path.removeprefix(CONTROL_PREFIX)
        if request.method == "GET" and name == "faults":
            return json_response(self._sandbox.faults.pending)
        action = self._actions.get(name)
        if action is None:
            known = ", ".join(self._actions)
            return json_response({"error": f"no such action; known: {known}, and GET faults"}, 404)
        if request.method != "POST":
            return json_response({"error": "method not allowed: use POST"}, 405)
        try:
            body = request.get_data()
            result = action(self._sandbox.faults, Fields(decode_object(body) if body.strip() else {}))
        except (BadField, ValueError) as error:
            return json_response({"error": str(error)}, 400)
        except (RuntimeError, OSError) as error:
            return json_response({"error": str(error)}, 409)
        connections = {"connections": result} if isinstance(result, int) else {}
        return json_response({"ok": True, **connections})

    def _price(self, _faults: Faults, fields: Fields) -> None:
        self._sandbox.set_price_multiplier(fields.text("mint"), fields.number("multiplier"))


def mounted(control: ControlServer, application: Application) -> Application:
    """Both under one roof."""

    def answer(request: Request) -> Response:
        return (control if request.path.startswith(CONTROL_PREFIX) else application)(request)

    return answer


def _session(fields: Fields) -> int | None:
    return fields.optional_integer("session_id")


def _close(faults: Faults, fields: Fields) -> int:
    code = fields.optional_integer("code", most=4_999)
    return faults.close(1001 if code is None else code, fields.optional_text("reason") or "", _session(fields))


def _raw(faults: Faults, fields: Fields) -> int:
    if fields.has("text") == fields.has("hex"):
        raise BadField("exactly one of text and hex is needed")
    if fields.has("text"):
        return faults.raw(fields.text("text"), _session(fields))
    try:
        return faults.raw(bytes.fromhex(fields.text("hex")), _session(fields))
    except ValueError as error:
        raise BadField(f"hex: {error}") from error


def _restart(faults: Faults, fields: Fields) -> None:
    down_ms = fields.number("down_ms", default=0.0)
    faults.restart(keep_sessions=fields.flag("keep_sessions", default=True), down_ms=down_ms)


def _times(fields: Fields) -> int | None:
    """Absent means once, 0 means until cleared: JSON's null is an absent field here."""
    times = fields.optional_integer("times", most=U32_MAX)
    return 1 if times is None else times or None


def _rpc(faults: Faults, fields: Fields) -> None:
    faults.rpc(
        fields.optional_text("method"),
        times=_times(fields),
        delay_ms=fields.number("delay_ms", default=0.0),
        hang_up=fields.flag("hang_up", default=False),
        status=fields.optional_integer("status"),
        body=fields.optional_text("body"),
        retry_after_s=fields.optional_integer("retry_after_s"),
        error_code=_error_code(fields),
        error_message=fields.optional_text("error_message") or "ordered from the sandbox",
        handled=fields.flag("handled", default=True),
        node=fields.optional_integer("node"),
    )


def _node(faults: Faults, fields: Fields) -> None:
    faults.node(
        fields.optional_integer("number") or 0,
        lag_slots=fields.optional_integer("lag_slots") or 0,
        heights_ahead=fields.optional_integer("heights_ahead") or 0,
        stale_index_slots=fields.optional_integer("stale_index_slots") or 0,
        stale_accounts_slots=fields.optional_integer("stale_accounts_slots") or 0,
        no_history=fields.flag("no_history", default=False),
        # An unknown kind is the faults' own complaint.
        odd_item=cast("OddItem | None", fields.optional_text("odd_item")),
        absurd_numbers=fields.flag("absurd_numbers", default=False),
        simulation=cast("SimulationLie | None", fields.optional_text("simulation")),
        hangs=fields.flag("hangs", default=False),
    )


def _error_code(fields: Fields) -> int | None:
    if not fields.has("error_code"):
        return None
    number = fields.number("error_code")
    if number != int(number):
        raise BadField("error_code must be an integer")
    return int(number)


def _api(faults: Faults, fields: Fields) -> None:
    faults.api(
        fields.optional_text("path"),
        times=_times(fields),
        delay_ms=fields.number("delay_ms", default=0.0),
        hang_up=fields.flag("hang_up", default=False),
        status=fields.optional_integer("status"),
        body=fields.optional_text("body"),
        retry_after_s=fields.optional_integer("retry_after_s"),
        handled=fields.flag("handled", default=True),
    )


def _transactions(faults: Faults, fields: Fields) -> None:
    delay_ms = fields.number("landing_delay_ms", default=0.0)
    times = _times(fields)
    # An unknown fate is the faults' own complaint.
    fate = cast("Literal['late', 'lost', 'never']", fields.text("fate"))
    faults.transactions(fate, landing_delay_ms=delay_ms, times=1 if times is None else times)


def _chain(faults: Faults, fields: Fields) -> None:
    faults.chain(
        landing_delay_ms=fields.optional_number("landing_delay_ms"),
        loss_probability=fields.optional_number("loss_probability"),
    )
