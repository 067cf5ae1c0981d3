"""Faults on demand: everything that goes wrong between a client and the live service, ordered from Python.

What is ordered for "the next" call or transaction happens to exactly that one, so a test that orders faults is as
repeatable as one that does not. ``control_server.py`` offers the same to other languages.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.chain.blockchain import Fate
from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.exchange.sessions import Frame
from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.router.thefts import ROUTER_THEFTS, RouterTheft
from lasersell_sync.sandbox.servers.http_server import Application, DisturbedResponse
from lasersell_sync.sandbox.servers.network_conditions import NetworkConditions
from lasersell_sync.sandbox.servers.node_lies import TRUTHFUL, NodeLies, OddItem, SimulationLie
from lasersell_sync.sandbox.servers.stream_server import StreamServer, framed

Service = Literal["api", "rpc"]

_MAX_S = 24 * 3600.0
_PONG = '{"type":"pong","server_time_ms":1}'

#: Frames that no client should take for messages, by kind. Texts are framed, bytes are framing and all.
CORRUPT_FRAMES: dict[str, Frame] = {
    # a text frame, but no message
    "json": '{"type":"pnl_update","position_id":1,',
    "empty": "",
    "not_an_object": "[1,2,3]",
    "wrong_types": '{"type":"pnl_update","position_id":"one","profit_units":1.5,"proceeds_units":-1}',
    "unknown_type": '{"type":"from_a_newer_server","position_id":1}',
    "binary": b"\x82\x04\x00\x01\x02\x03",
    # breaches of RFC 6455
    "utf8": b"\x81\x04\xff\xfe\xc3\x28",
    "reserved_bits": b"\xc1\x00",
    "unknown_opcode": b"\x83\x00",
    "masked": b"\x81\x85\x00\x00\x00\x00hello",
    "stray_continuation": b"\x80\x00",
    "endless_length": b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff",
    # what follows on this connection is taken for the rest of this frame
    "cut_short": framed([_PONG])[0][:10],
}


@dataclass(frozen=True, slots=True)
class AnswerFault:
    """What is to happen to an answer.

    ``call`` is the JSON-RPC method or REST path it waits for; None: any. ``handled``: the call is obeyed before its
    answer is spoiled, as when a load balancer in between fails.
    """

    service: Service
    call: str | None = None
    #: which JSON-RPC node it waits for; None: any
    node: int | None = None
    delay_s: float = 0.0
    hang_up: bool = False
    status: int | None = None
    body: str | None = None
    retry_after_s: int | None = None
    error_code: int | None = None
    error_message: str = "ordered from the sandbox"
    error_data: object = None
    handled: bool = True


@dataclass(slots=True)
class _Planned:
    fault: AnswerFault
    #: how often it still happens; None: until cleared
    times: int | None


@dataclass(slots=True)
class _Plan:
    """Faults that wait for their calls.

    Threads: any.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    planned: list[_Planned] = field(default_factory=list)

    def add(self, fault: AnswerFault, times: int | None) -> None:
        with self.lock:
            self.planned.append(_Planned(fault, times))

    def take(self, service: Service, calls: list[str], *, errors: bool, node: int) -> AnswerFault | None:
        """The fault that meets these calls, used up by one; a limited one before a standing one."""
        with self.lock:
            fitting = [
                item
                for item in self.planned
                if item.fault.service == service
                and (item.fault.error_code is not None) == errors
                and (item.fault.call is None or item.fault.call in calls)
                and item.fault.node in (None, node)
            ]
            if not fitting:
                return None
            chosen = next((item for item in fitting if item.times is not None), fitting[0])
            if chosen.times is not None:
                chosen.times -= 1
                if chosen.times == 0:
                    self.planned.remove(chosen)
            return chosen.fault


class Faults:
    """Orders faults; ``sandbox.faults``.

    Those of the stream act on the connections there are now, or on one session's with ``session_id``, and return how
    many that were. Conditions of the link, and faults with ``times=None``, last until changed or ``clear``.

    Threads: every method may be called from any thread. None may be called in a ``wait_for`` predicate.

    Raises:
        ValueError: An argument makes no sense; the text names it.
        RuntimeError: The sandbox does not run.
    """

    def __init__(
        self,
        exchange: Exchange,
        stream: Callable[[], StreamServer],
        restart: Callable[..., None],
        *,
        nodes: int = 1,
    ) -> None:
        self._exchange = exchange
        self._stream = stream
        self._restart = restart
        self._plan = _Plan()
        #: what every stream connection's link is like
        self.conditions = NetworkConditions()
        #: what each JSON-RPC node says that is not so
        self._lies = [TRUTHFUL] * nodes

    # -- the stream

    def drop(self, session_id: int | None = None) -> int:
        """End TCP abruptly, without a word."""
        return self._stream().drop(None, session_id=session_id)

    def close(self, code: int = 1001, reason: str = "", session_id: int | None = None) -> int:
        """Close with a code that may stand in a close frame, and a reason of at most 123 bytes."""
        if code not in (1000, 1001, 1002, 1003, *range(1007, 1015)) and not 3000 <= code < 5000:
            raise ValueError(f"code {code!r} may not be sent in a close frame")
        if len(reason.encode("utf-8", "surrogatepass")) > 123:
            raise ValueError("reason must be at most 123 bytes")
        return self._stream().drop(code, reason, session_id)

    def mute(self) -> None:
        """Fall silent: nothing is sent, nothing read, no ping answered; sockets stay open."""
        self._stream().set_muted(muted=True)

    def unmute(self) -> None:
        """Speak again; what piled up meanwhile is sent and answered."""
        self._stream().set_muted(muted=False)

    def half_open(self, session_id: int | None = None) -> int:
        """Forget connections without telling their clients: their sessions are over, their sockets stay open."""
        return self._stream().half_open(session_id)

    def error(self, code: str, message: str, session_id: int | None = None) -> int:
        """Send an ``error`` message; the session goes on."""
        return self._stream().post([wire.error(code, message)], session_id)

    def corrupt(self, kind: str = "json", session_id: int | None = None) -> int:
        """Send a damaged frame, one of ``CORRUPT_FRAMES``."""
        if kind not in CORRUPT_FRAMES:
            raise ValueError(f"kind must be one of {', '.join(CORRUPT_FRAMES)}, not {kind!r}")
        return self._stream().post([CORRUPT_FRAMES[kind]], session_id)

    def raw(self, frame: str | bytes, session_id: int | None = None) -> int:
        """Send anything: a text as one text frame whatever it says, bytes as they are, framing included."""
        return self._stream().post([frame], session_id)

    def slow_link(self, bytes_per_s: int | None) -> None:
        """Let every connection's bytes through at this rate, frames in pieces; None: as fast as they come."""
        if bytes_per_s is not None and (isinstance(bytes_per_s, bool) or not 1 <= bytes_per_s <= 10**9):
            raise ValueError(f"bytes_per_s must be from 1 to 10^9, or None, not {bytes_per_s!r}")
        self.conditions.bytes_per_s = bytes_per_s

    def latency(self, milliseconds: float) -> None:
        """Delay everything that the stream server says, pongs included, by so much real time; 0: not at all."""
        self.conditions.latency_s = _seconds("milliseconds", milliseconds)

    def restart(self, *, keep_sessions: bool = True, down_ms: float = 0) -> None:
        """Restart the stream service; returns when it is up again, on the same port.

        Connections are closed with "going away" (1001), and refused while it is down. The market goes on meanwhile.

        Args:
            keep_sessions: The service remembers its positions: their ids, what strategies have seen of them, and what
                was set for one position. Otherwise it finds them on the chain again, as new ones.
            down_ms: How long it stays down, in real time.

        Raises:
            OSError: Somebody else took the port meanwhile; the service stays down.
        """
        self._restart(keep_sessions=keep_sessions, down_s=_seconds("down_ms", down_ms))

    # -- answers

    def rpc(
        self,
        method: str | None = None,
        *,
        times: int | None = 1,
        delay_ms: float = 0,
        hang_up: bool = False,
        status: int | None = None,
        body: str | None = None,
        retry_after_s: int | None = None,
        error_code: int | None = None,
        error_message: str = "ordered from the sandbox",
        error_data: object = None,
        handled: bool = True,
        node: int | None = None,
    ) -> None:
        """Spoil answers of the JSON-RPC service.

        Args:
            method: Which calls; None: any.
            times: How many of them, the next ones; None: all, until ``clear``.
            delay_ms: Answer so much later, in real time.
            hang_up: Cut the connection in place of an answer.
            status: Answer with this HTTP status.
            body: Answer with this body in place of the real one, whatever it is.
            retry_after_s: Send this ``Retry-After``.
            error_code: Answer with this JSON-RPC error; alone, or with its message and data.
            error_message: That error's text.
            error_data: That error's ``data``.
            handled: False: the call is not even looked at.
            node: Of which node, from 0; None: of any.
        """
        if error_code is not None and (delay_ms or hang_up or status is not None or body is not None):
            raise ValueError("error_code goes alone: order the other fault separately")
        self._plan_answer(
            "rpc",
            method,
            times,
            delay_ms,
            status,
            node=node,
            hang_up=hang_up,
            body=body,
            retry_after_s=retry_after_s,
            error_code=error_code,
            error_message=error_message,
            error_data=error_data,
            handled=handled,
        )

    def rpc_lag(self, slots: int) -> None:
        """Let the JSON-RPC node lag behind the chain; 0: it does not. Until changed or cleared.

        Slots, block heights, blockhashes, whether they are valid, statuses, signatures and accounts are those of so
        many slots ago. Transactions that it takes go to the chain all the same; preflights and simulations are of now.

        Args:
            slots: From 0 to a million.
        """
        if isinstance(slots, bool) or not isinstance(slots, int) or not 0 <= slots <= 10**6:
            raise ValueError(f"slots must be a whole number from 0 to a million, not {slots!r}")
        self._lies[0] = replace(self._lies[0], lag_slots=slots)

    def node(
        self,
        number: int = 0,
        *,
        lag_slots: int = 0,
        heights_ahead: int = 0,
        stale_index_slots: int = 0,
        stale_accounts_slots: int = 0,
        no_history: bool = False,
        odd_item: OddItem | None = None,
        absurd_numbers: bool = False,
        simulation: SimulationLie | None = None,
        hangs: bool = False,
    ) -> None:
        """Let a JSON-RPC node lie, until changed or cleared; without arguments it is honest again.

        Args:
            number: Which node, from 0.
            lag_slots: As ``rpc_lag``, up to a million, as the next three.
            heights_ahead: Slots and block heights are reported so far ahead, and blockhashes called dead by them.
            stale_index_slots: Statuses and signatures are those of so many slots ago, while slots are of now.
            stale_accounts_slots: Balances and accounts are those of so many slots ago, while slots are of now. The
                sandbox remembers them for 3 000 slots.
            no_history: Who asks for the transaction history gets -32011.
            odd_item: The middle one of a batch of statuses, accounts or signatures is nonsense: ``text``, ``number``,
                ``list``, ``empty``, ``null``, ``missing`` or ``wrong_types``.
            absurd_numbers: Slots, heights and lamports lie beyond 2^63.
            simulation: ``fails``: every simulated transaction fails in its last instruction; ``harmless``: it succeeds,
                calls nobody and changes nothing.
            hangs: Requests are neither obeyed nor answered. Those of before stay unanswered when it ends.
        """
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self._lies):
            raise ValueError(f"number must be from 0 to {len(self._lies) - 1}, not {number!r}")
        self._lies[number] = NodeLies(
            lag_slots,
            heights_ahead,
            stale_index_slots,
            stale_accounts_slots,
            no_history,
            odd_item,
            absurd_numbers,
            simulation,
            hangs,
        )

    def node_lies(self, number: int) -> NodeLies:
        """What a node says that is not so."""
        return self._lies[number]

    def api(
        self,
        path: str | None = None,
        *,
        times: int | None = 1,
        delay_ms: float = 0,
        hang_up: bool = False,
        status: int | None = None,
        body: str | None = None,
        retry_after_s: int | None = None,
        handled: bool = True,
    ) -> None:
        """Spoil answers of the REST service; ``path`` as in ``/v1/sell``, the rest as for ``rpc``."""
        answer = {"hang_up": hang_up, "body": body, "retry_after_s": retry_after_s, "handled": handled}
        self._plan_answer("api", path, times, delay_ms, status, **answer)

    def _plan_answer(
        self,
        service: Service,
        call: str | None,
        times: int | None,
        delay_ms: float,
        status: int | None,
        **answer: Any,
    ) -> None:
        if status is not None and (isinstance(status, bool) or not 200 <= status <= 599):
            raise ValueError(f"status must be from 200 to 599, not {status!r}")
        delay_s = _seconds("delay_ms", delay_ms)
        if times is not None and (isinstance(times, bool) or times < 1):
            raise ValueError(f"times must be at least 1, or None, not {times!r}")
        self._plan.add(AnswerFault(service, call, delay_s=delay_s, status=status, **answer), times)

    def disturb(self, service: Service, application: Application, *, node: int = 0) -> Application:
        """An application whose answers meet the faults ordered for a service."""

        def answer(request: Request) -> Response:
            if service == "rpc" and self._lies[node].hangs:
                return _silence()
            fault = self._take(service, _calls(service, request), errors=False, node=node)
            return application(request) if fault is None else _spoiled(fault, request, application)

        return answer

    def rpc_error(self, method: str, *, node: int = 0) -> AnswerFault | None:
        """The JSON-RPC error ordered for this call to a node, if there is one."""
        return self._take("rpc", [method], errors=True, node=node)

    def _take(self, service: Service, calls: list[str], *, errors: bool, node: int) -> AnswerFault | None:
        fault = self._plan.take(service, calls, errors=errors, node=node)
        if fault is not None:
            self._exchange.wake()  # somebody may wait for `pending` to shrink
        return fault

    # -- the chain

    def transactions(
        self, fate: Literal["late", "lost", "never"], *, landing_delay_ms: float = 0, times: int = 1
    ) -> None:
        """Decide what becomes of the next transactions that are accepted.

        Args:
            fate: ``"late"``: each lands after ``landing_delay_ms``, if its blockhash (150 blocks, 30 s) lives.
                ``"lost"``: each gets lost, on the node's own retries too; sent again, the same bytes may land.
                ``"never"``: each never lands, however often its bytes are sent again.
            landing_delay_ms: In virtual time.
            times: How many transactions.
        """
        if fate not in ("late", "lost", "never"):
            raise ValueError(f"fate must be late, lost or never, not {fate!r}")
        if isinstance(times, bool) or not 1 <= times <= 10**6:
            raise ValueError(f"times must be from 1 to a million, not {times!r}")
        order = Fate(fate, _seconds("landing_delay_ms", landing_delay_ms))
        with self._exchange.change():
            self._exchange.chain.fates.extend([order] * times)

    def chain(self, *, landing_delay_ms: float | None = None, loss_probability: float | None = None) -> None:
        """Change how long transactions take to land, and what share of them gets lost; None leaves it as it is."""
        if loss_probability is not None and not 0 <= loss_probability <= 1:
            raise ValueError(f"loss_probability must be from 0 to 1, not {loss_probability!r}")
        delay_s = None if landing_delay_ms is None else _seconds("landing_delay_ms", landing_delay_ms)
        with self._exchange.change():
            chain = self._exchange.chain
            chain.landing_delay_s = chain.landing_delay_s if delay_s is None else delay_s
            chain.loss_probability = chain.loss_probability if loss_probability is None else loss_probability

    def router(self, theft: str | None) -> None:
        """Let the Router be compromised: besides its work it steals in one way, in every trade, until changed.

        Args:
            theft: One of ``ROUTER_THEFTS``; None: it is honest again.
        """
        if theft is not None and theft not in ROUTER_THEFTS:
            raise ValueError(f"theft must be one of {', '.join(ROUTER_THEFTS)}, or None, not {theft!r}")
        with self._exchange.lock:
            self._exchange.router.theft = None if theft is None else RouterTheft(theft)

    # -- all of them

    @property
    def pending(self) -> dict[str, object]:
        """What is ordered and has not happened yet, and the link's conditions, ready for JSON."""
        with self._plan.lock:
            answers = [
                {"service": item.fault.service, "call": item.fault.call, "times": item.times}
                for item in self._plan.planned
            ]
        with self._exchange.request():
            fates, theft = [fate.kind for fate in self._exchange.chain.fates], self._exchange.router.theft
        return {
            "answers": answers,
            "transactions": fates,
            "latency_ms": self.conditions.latency_s * 1000,
            "bytes_per_s": self.conditions.bytes_per_s,
            "rpc_lag_slots": self._lies[0].lag_slots,
            "nodes": {str(number): lies.named() for number, lies in enumerate(self._lies) if lies != TRUTHFUL},
            "router_theft": None if theft is None else theft.kind,
        }

    def clear(self) -> None:
        """Order nothing any more: a good link, true answers, transactions that land. What has happened stays so."""
        with self._plan.lock:
            self._plan.planned.clear()
        self.conditions.latency_s, self.conditions.bytes_per_s = 0.0, None
        self._lies = [TRUTHFUL] * len(self._lies)
        self.router(None)
        self._stream().set_muted(muted=False)
        with self._exchange.change():
            self._exchange.chain.fates.clear()
            self._exchange.chain.loss_probability = 0.0


def _seconds(name: str, milliseconds: float) -> float:
    is_number = isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool)
    if not is_number or not 0 <= milliseconds <= _MAX_S * 1000:
        raise ValueError(f"{name} must be a number from 0 to {_MAX_S * 1000:.0f}, not {milliseconds!r}")
    return milliseconds / 1000


def _calls(service: Service, request: Request) -> list[str]:
    """What a request asks for: its path, or the methods of its JSON-RPC calls."""
    if service == "api":
        return [request.path]
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        return []
    calls = body if isinstance(body, list) else [body]
    return [call["method"] for call in calls if isinstance(call, dict) and isinstance(call.get("method"), str)]


def _silence() -> Response:
    response = DisturbedResponse()
    response.never = True
    return response


def _spoiled(fault: AnswerFault, request: Request, application: Application) -> Response:
    """The answer that a fault leaves."""
    true = application(request) if fault.handled else None
    # Without anything else ordered, a fault only delays.
    status = fault.status or (true.status_code if true is not None else 503)
    body = fault.body
    if body is None:
        keeps_body = true is not None and fault.status is None
        body = (
            true.get_data(as_text=True) if true is not None and keeps_body else '{"error":"ordered from the sandbox"}'
        )
    response = DisturbedResponse(body, status=status, mimetype="application/json")
    response.delay_s, response.hang_up = fault.delay_s, fault.hang_up
    if fault.retry_after_s is not None:
        response.headers["Retry-After"] = str(fault.retry_after_s)
    return response
