"""Bare Solana nodes in processes of their own, which note when the last byte of each transaction was read.

One thread and one selector serve all connections of a node, so that the node is never what limits a burst.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import itertools
import json
import multiprocessing
import selectors
import socket
import ssl
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from solders.signature import Signature

from benchmarks import burst_trades
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ROUTER_TRADES", "Node", "Ways"]

PATIENCE_S: Final = 60.0
#: Sales through a router that a node can simulate.
ROUTER_TRADES: Final = 100
_SIGNATURE_BYTES: Final = slice(1, 65)
_REFUSED: Final = {"code": -32002, "message": "Transaction simulation failed: custom program error: 0x1771"}


@dataclass(frozen=True)
class Ways:
    """How a node behaves until it gets other ways.

    Attributes:
        answer_delay_s: each answer waits so many seconds.
        hangs_on: methods that are read and never answered.
        refuses: messages of transactions that preflight refuses.
        has_landed: every transaction that is asked about has landed.
    """

    answer_delay_s: float = 0.0
    hangs_on: frozenset[str] = frozenset()
    refuses: frozenset[bytes] = frozenset()
    has_landed: bool = False


class Node:
    """Starts the process and talks to it. Use as a context manager.

    Args:
        is_tls: serve TLS; ``ca_file`` then names the certificate's authority.
    """

    def __init__(self, *, is_tls: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, is_tls), daemon=True)
        self._process.start()
        theirs.close()
        self.url, self.ca_file = self._answer()

    def behave(self, ways: Ways) -> None:
        """Behave so from now on, and forget which transactions were read."""
        self._ask("behave", ways)

    def land_all(self) -> None:
        """Report every transaction as landed; returns when the node was asked about one and has answered."""
        self._ask("land_all")

    def wait_for(self, messages: Iterable[bytes], patience_s: float) -> dict[bytes, int]:
        """When these transactions, named by their messages, were read.

        Args:
            messages: unsigned message bytes.
            patience_s: return without the missing ones after so many seconds.

        Returns:
            Nanoseconds by ``time.monotonic_ns()``, by message.
        """
        found: dict[bytes, int] = self._ask("wait_for", frozenset(messages), patience_s)
        return found

    def _ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        return self._answer()

    def _answer(self) -> Any:
        if not self._pipe.poll(2 * PATIENCE_S):
            raise TimeoutError("a node's process was silent")
        is_error, answer = self._pipe.recv()
        if is_error:
            raise RuntimeError(f"a node failed:\n{answer}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────


def _serve(pipe: Connection, is_tls: bool) -> None:  # noqa: FBT001 - passed by position to the process
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EOFError, KeyboardInterrupt):
        authority = Authority(Path(folder))
        server = _Server(pipe, authority.server() if is_tls else None)
        scheme = "https" if is_tls else "http"
        pipe.send((False, (f"{scheme}://127.0.0.1:{server.port}", str(authority.pem))))
        try:
            server.run()
        except (EOFError, ConnectionError):
            raise
        except Exception:  # noqa: BLE001 - the driver reports it
            pipe.send((True, traceback.format_exc()))


class _Server:
    """All connections of one node, and the driver's questions."""

    def __init__(self, pipe: Connection, tls: ssl.SSLContext | None) -> None:
        self._pipe, self._tls = pipe, tls
        self._ways = Ways()
        self._chain = _Chain()
        #: By message, when it was read first.
        self._read_ns: dict[bytes, int] = {}
        #: What the driver waits for, and until when.
        self._awaited: tuple[frozenset[bytes], float] | None = None
        self._awaits_landing = False
        #: Answers that are due later: monotonic seconds, order, connection, bytes.
        self._later: list[tuple[float, int, _Connection, bytes]] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.settimeout(0)
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(pipe, selectors.EVENT_READ, self._hear_driver)

    def run(self) -> None:
        """Serve until the driver hangs up."""
        while True:
            for key, _ in self._selector.select(self._pause_s()):
                key.data()
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, connection, answer = heapq.heappop(self._later)
                connection.write(answer)
            self._answer_driver()

    def _pause_s(self) -> float | None:
        moments = [self._later[0][0]] if self._later else []
        if self._awaited is not None:
            moments.append(self._awaited[1])
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _hear_driver(self) -> None:
        what, *arguments = self._pipe.recv()
        if what == "wait_for":
            messages, patience_s = arguments
            self._awaited = messages, time.monotonic() + patience_s
        elif what == "land_all":
            self._chain.has_landed = self._awaits_landing = True
        else:
            (self._ways,) = arguments
            self._chain.has_landed = self._ways.has_landed
            self._read_ns.clear()
            self._pipe.send((False, None))

    def _answer_driver(self) -> None:
        if self._awaited is None:
            return
        messages, until_s = self._awaited
        if messages <= self._read_ns.keys() or time.monotonic() >= until_s:
            self._awaited = None
            self._pipe.send((False, {one: self._read_ns[one] for one in messages & self._read_ns.keys()}))

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock, self._tls)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            requests = connection.read()
        except (OSError, EOFError):
            self._selector.unregister(connection.sock)
            connection.sock.close()
            return
        now_ns = time.monotonic_ns()
        for body in requests:
            self._take(connection, body, now_ns)

    def _take(self, connection: _Connection, body: bytes, now_ns: int) -> None:
        if not body:
            connection.write(_http(b""))
            return
        request = json.loads(body)
        if request["method"] in self._ways.hangs_on:
            return  # without the work of an answer: in life that is another machine's
        answer = self._answer_to(request["method"], request.get("params", []), now_ns)
        text = json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode()
        if self._ways.answer_delay_s:
            due_s = now_ns / 1e9 + self._ways.answer_delay_s
            heapq.heappush(self._later, (due_s, next(self._numbers), connection, _http(text)))
        else:
            connection.write(_http(text))
        if self._awaits_landing and request["method"] == "getSignatureStatuses":
            self._awaits_landing = False
            self._pipe.send((False, None))

    def _answer_to(self, method: str, params: list[Any], now_ns: int) -> dict[str, Any]:
        if method != "sendTransaction":
            return self._chain.answer(method, params)
        signed = base64.b64decode(params[0])
        message = burst_trades.message_of(signed)
        self._read_ns.setdefault(message, now_ns)
        if message in self._ways.refuses:
            return {"error": _REFUSED}
        return {"result": str(Signature.from_bytes(signed[_SIGNATURE_BYTES]))}


def _http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class _Connection:
    """One client's connection, with or without TLS."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.sock = sock
        self._received = bytearray()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None if tls is None else tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_greeted = False

    def read(self) -> list[bytes]:
        """Bodies of the requests that are complete now; raises OSError or EOFError at the end."""
        received = self.sock.recv(262_144)
        if not received:
            raise EOFError
        self._received += received if self._tls is None else self._decrypted(received)
        return list(iter(self._next_body, None))

    def _next_body(self) -> bytes | None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length:")
        size = int(length.split(b"\r\n", 1)[0] or 0)
        if not end or len(rest) < size:
            return None
        self._received = rest[size:]
        return bytes(rest[:size])

    def _decrypted(self, received: bytes) -> bytes:
        assert self._tls is not None
        self._incoming.write(received)
        plain = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self._is_greeted:
                self._tls.do_handshake()
                self._is_greeted = True
            while part := self._tls.read(65_536):
                plain += part
        self._flush()
        return bytes(plain)

    def write(self, plain: bytes) -> None:
        """Answers are short: they fit into the socket's buffer."""
        with contextlib.suppress(OSError):
            if self._tls is None:
                self.sock.sendall(plain)
            else:
                self._tls.write(plain)
                self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.sock.sendall(self._outgoing.read())


class _Chain:
    """Answers about a chain whose slots take 400 ms and on which nothing lands before ``has_landed``."""

    SLOT_S: Final = 0.4

    def __init__(self) -> None:
        self.has_landed = False
        self._trades = burst_trades.RouterTrades(ROUTER_TRADES)
        self._answers: dict[str, Callable[[list[Any]], Any]] = {
            "getSignatureStatuses": self._statuses,
            "getEpochInfo": lambda _: {"absoluteSlot": self._slot(), "blockHeight": self._slot() - 1_000},
            "isBlockhashValid": lambda _: self._in_context(value=True),
            "getRecentPerformanceSamples": lambda _: [{"samplePeriodSecs": 60, "numSlots": 150}],
            "getMultipleAccounts": self._trades.accounts,
            "simulateTransaction": self._trades.simulated,
            "getMinimumBalanceForRentExemption": lambda params: (128 + params[0]) * 6_960,
            "getHealth": lambda _: "ok",
        }

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        """The result, or the error of a method that this node does not know."""
        answer = self._answers.get(method)
        if answer is None:
            return {"error": {"code": -32601, "message": "Method not found"}}
        return {"result": answer(params)}

    def _slot(self) -> int:
        return burst_trades.SLOT + int(time.monotonic() / self.SLOT_S) % 1_000_000

    def _in_context(self, value: object) -> dict[str, Any]:
        return {"context": {"slot": self._slot(), "apiVersion": "4.0.0"}, "value": value}

    def _statuses(self, params: list[Any]) -> dict[str, Any]:
        landed = {"slot": self._slot() - 2, "confirmations": 3, "err": None, "confirmationStatus": "confirmed"}
        return self._in_context([landed if self.has_landed else None for _ in params[0]])
