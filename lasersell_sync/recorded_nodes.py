"""What a guard asks its Solana nodes, written down, and answered again from what was written down."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.send_targets import SendTargetRpc

__all__ = ["Exchange", "answering", "taping"]

#: One question and its answer: ``node`` (from 0), ``method``, ``params``, and ``result`` or ``error``.
Exchange = Mapping[str, Any]

#: Of a ``TxSubmitError``; its other attributes name the node.
_ERROR_FIELDS: Final = ("detail", "status", "code")


def taping(guard: SigningGuard, take: Callable[[Exchange], None]) -> SigningGuard:
    """A guard like this one, that hands every exchange with its nodes to ``take``, on the threads that ask."""
    targets = [_TapedTarget(**_arguments(target), number=n, take=take) for n, target in enumerate(guard.rpc)]
    return guard.with_rpc(targets) if targets else guard


def answering(guard: SigningGuard, exchanges: Iterable[Exchange]) -> SigningGuard:
    """A guard like this one, whose nodes are those of a recording: nothing is sent anywhere."""
    tape = _Tape(exchanges)
    targets = [
        _RecordedTarget(f"https://node-{number}.recorded.invalid", number=number, tape=tape)
        for number in range(tape.nodes)
    ]
    return guard.with_rpc(targets) if targets else guard


def _arguments(target: SendTargetRpc) -> dict[str, Any]:
    return {field.name: getattr(target, field.name) for field in attrs.fields(SendTargetRpc) if field.init}


@attrs.frozen(kw_only=True)
class _TapedTarget(SendTargetRpc):
    """A node that is asked, and whose exchanges are handed over."""

    number: int = attrs.field(eq=False)
    take: Callable[[Exchange], None] = attrs.field(eq=False, repr=False)

    def asked_through(self, client: Any) -> Any:
        return _TapedClient(client, self.number, self.take)


@attrs.frozen(kw_only=True)
class _RecordedTarget(SendTargetRpc):
    """A node that is not asked."""

    number: int = attrs.field(eq=False)
    tape: _Tape = attrs.field(eq=False, repr=False)

    def asked_through(self, client: Any) -> Any:
        return _RecordedClient(client.label, self.number, self.tape)


class _TapedClient:
    """In the place of an ``RpcClient``."""

    def __init__(self, client: Any, number: int, take: Callable[[Exchange], None]) -> None:
        self.label = client.label
        self._client = client
        self._number = number
        self._take = take

    def held_for_s(self) -> float:
        held_s: float = self._client.held_for_s()
        return held_s

    def call(self, method: str, params: list[Any], *, budget: TimeBudget, secrets: tuple[str, ...] = ()) -> Any:
        question = {"node": self._number, "method": method, "params": params}
        try:
            result = self._client.call(method, params, budget=budget, secrets=secrets)
        except TxSubmitError as error:
            words = {name: getattr(error, name) for name in _ERROR_FIELDS}
            self._take({**question, "error": {"kind": error.kind, **words}})
            raise
        self._take({**question, "result": result})
        return result

    def warm(self, path: str | None, *, budget: TimeBudget) -> None:
        self._client.warm(path, budget=budget)


class _RecordedClient:
    """In the place of an ``RpcClient``."""

    def __init__(self, label: str, number: int, tape: _Tape) -> None:
        self.label = label
        self._number = number
        self._tape = tape

    def held_for_s(self) -> float:
        return 0.0

    def call(self, method: str, params: list[Any], *, budget: TimeBudget, secrets: tuple[str, ...] = ()) -> Any:
        del budget, secrets
        answer = self._tape.next(self._number, method, params)
        if answer is None:
            problem = f"the recording has no answer to this {method}"
            raise TxSubmitError("response_read", problem, target=self.label)
        if "error" in answer:
            error = answer["error"]
            raise TxSubmitError(
                error["kind"], error["detail"], target=self.label, status=error["status"], code=error["code"]
            )
        return answer.get("result")

    def warm(self, path: str | None, *, budget: TimeBudget) -> None:
        """There is no connection."""


class _Tape:
    """Recorded answers, by question; of several to one question the first first, and the last again and again.

    Threads: any.
    """

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self._lock = threading.Lock()
        self._answers: defaultdict[str, deque[Exchange]] = defaultdict(deque)
        self.nodes = 0
        for exchange in exchanges:
            self.nodes = max(self.nodes, exchange["node"] + 1)
            self._answers[_key(exchange["node"], exchange["method"], exchange["params"])].append(exchange)

    def next(self, node: int, method: str, params: list[Any]) -> Exchange | None:
        """The next answer to a question; None: it was not asked."""
        with self._lock:
            answers = self._answers.get(_key(node, method, params))
            if not answers:
                return None
            return answers.popleft() if len(answers) > 1 else answers[0]


def _key(node: int, method: str, params: list[Any]) -> str:
    return json.dumps([node, method, params], sort_keys=True)
