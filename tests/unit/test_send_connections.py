"""Copies over kept connections that never block, to targets that answer oddly, late, twice, or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.trading import PendingTx, SellOutcome, SendTargetRpc, TxSender, close_rpc_connections
from lasersell_sync.trading.sending import send_connections
from lasersell_sync.trading.sending.target_sender import Warming
from lasersell_sync.trading.solana.tx_codec import UNSIGNED, decode_base64
from tests.support.certificates import Authority
from tests.support.solana_node import SignedTransfer, SolanaNode
from tests.support.stream_server import RawServer
from tests.support.waiting import PATIENCE_S, until

#: Gets the connection, the request's id and transaction, and how many requests came before it, on all connections.
Behaviour = Callable[[socket.socket, int, str, int], None]


def signature_in(tx_b64: str) -> str:
    from solders.signature import Signature

    return str(Signature.from_bytes(decode_base64(tx_b64, UNSIGNED)[1:65]))


def answer(body: object, *, head: str = "HTTP/1.1 200 OK", extra: str = "") -> bytes:
    data = json.dumps(body).encode()
    return f"{head}\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(data)}\r\n\r\n".encode() + data


def accepted(request_id: int, tx_b64: str) -> bytes:
    return answer({"jsonrpc": "2.0", "id": request_id, "result": signature_in(tx_b64)})


def accept(sock: socket.socket, request_id: int, tx_b64: str, _number: int) -> None:
    sock.sendall(accepted(request_id, tx_b64))


class Target:
    """A target that reads each request and then does what ``behave`` does."""

    def __init__(self, behave: Behaviour = accept, tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self._tls = tls
        self.let_go = threading.Event()
        #: Transactions, in the order in which they were read to their end.
        self.sent: list[str] = []
        #: Bytes that follow each request, which are not read before the gate is open.
        self.surplus = 0
        self.gate = threading.Event()
        self._server = RawServer(self._run)

    @property
    def connections(self) -> int:
        return self._server.accepted

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.port}"

    def __enter__(self) -> Target:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go.set()
        self.gate.set()
        self._server.__exit__(*error)

    def hang(self, *_: object) -> None:
        self.let_go.wait(PATIENCE_S)
        raise OSError("hung up")

    def drop_connections(self) -> None:
        for sock in self._server._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _run(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self.serve(sock)
        finally:
            sock.close()

    def serve(self, sock: socket.socket) -> None:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                received += self._some(sock)
            head, _, received = received.partition(b"\r\n\r\n")
            length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
            while len(received) < length:
                received += self._some(sock)
            call, received = json.loads(received[:length]), received[length:]
            if call["method"] != "sendTransaction":
                sock.sendall(answer({"jsonrpc": "2.0", "id": call["id"], "result": "ok"}))
                continue
            tx_b64 = call["params"][0]
            self.sent.append(tx_b64)
            if self.surplus:
                assert self.gate.wait(PATIENCE_S)
                while len(received) < self.surplus:
                    received += self._some(sock)
                received = received[self.surplus :]
            self.behave(sock, call["id"], tx_b64, len(self.sent) - 1)

    def _some(self, sock: socket.socket) -> bytes:
        data = sock.recv(65536)
        if not data:
            raise OSError("the client ended the connection")
        return data


@pytest.fixture
def world() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        stack.callback(close_rpc_connections)
        yield stack


@pytest.fixture
def make_target(world: ExitStack) -> Callable[..., Target]:
    return lambda *args: world.enter_context(Target(*args))


@pytest.fixture
def node(world: ExitStack) -> SolanaNode:
    return world.enter_context(SolanaNode())


@pytest.fixture
def make_sender(world: ExitStack, node: SolanaNode) -> Callable[..., TxSender]:
    def make(*targets: Target, **options: Any) -> TxSender:
        options = {"rebroadcast_s": 60.0, "keep_warm_s": None, "poll_s": 0.1, **options}
        ca_file = options.pop("ca_file", None)
        rpcs = [SendTargetRpc(target.url, ca_file=ca_file) for target in targets]
        sender = TxSender(rpcs, rpcs=node.url, **options)

        def end() -> None:
            for target in targets:
                target.let_go.set()
            sender.close()

        world.callback(end)
        return sender

    return make


def transfers(count: int) -> list[SignedTransfer]:
    return [SignedTransfer(number) for number in range(1, count + 1)]


def is_accepted(pending: PendingTx) -> bool:
    return pending.result(0).accepted_by == "rpc"


# ── what targets do ──────────────────────────────────────────────────────────────────────────────────────────────


def byte_by_byte(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    for byte in accepted(request_id, tx_b64):
        sock.sendall(bytes([byte]))


def interim_first(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    sock.sendall(accepted(request_id, tx_b64))


def in_chunks(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    body = accepted(request_id, tx_b64).partition(b"\r\n\r\n")[2]
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(body), 7):
        piece = body[start : start + 7]
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    sock.sendall(b"0\r\n\r\n")


def with_a_mark(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    body = b"\xef\xbb\xbf" + accepted(request_id, tx_b64).partition(b"\r\n\r\n")[2]
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def with_a_text_id(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(answer({"jsonrpc": "2.0", "id": str(request_id), "result": signature_in(tx_b64)}))


@pytest.mark.parametrize("behave", [accept, byte_by_byte, interim_first, in_chunks, with_a_mark, with_a_text_id])
def test_submit_readable_answer_is_read_and_its_connection_used_again(
    behave: Behaviour, make_target: Any, make_sender: Any
) -> None:
    target = make_target(behave)
    sender = make_sender(target, connections=1)
    for number, tx in enumerate(transfers(3), 1):
        pending = sender.submit(tx.b64)
        until(lambda pending=pending: is_accepted(pending))
        assert len(target.sent) == number
    assert target.connections == 1


def answers_twice(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(accepted(request_id, tx_b64) * 2)


def closes_after(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(accepted(request_id, tx_b64))
    raise OSError("closed without a word")


def says_close(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    body = {"jsonrpc": "2.0", "id": request_id, "result": signature_in(tx_b64)}
    sock.sendall(answer(body, extra="Connection: close\r\n"))


def until_the_end(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + accepted(request_id, tx_b64).partition(b"\r\n\r\n")[2])
    raise OSError("the end of the answer")


@pytest.mark.parametrize("behave", [answers_twice, closes_after, says_close, until_the_end])
def test_submit_connection_that_cannot_go_on_is_replaced_and_no_copy_is_lost(
    behave: Behaviour, make_target: Any, make_sender: Any
) -> None:
    """A second answer is never taken for the next request's."""
    target = make_target(behave)
    sender = make_sender(target, connections=1)
    for tx in transfers(3):
        pending = sender.submit(tx.b64)
        until(lambda pending=pending: is_accepted(pending))
    assert target.connections >= 3


def garbage(sock: socket.socket, *_: object) -> None:
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\r\n\r\n" * 50)


def reset(sock: socket.socket, *_: object) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()
    raise OSError("reset")


def huge(sock: socket.socket, *_: object) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 9_000_000)


def cut_short(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(accepted(request_id, tx_b64)[:-5])
    raise OSError("cut short")


def redirects(sock: socket.socket, *_: object) -> None:
    sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")


def reset_midway(sock: socket.socket, request_id: int, tx_b64: str, number: int) -> None:
    sock.sendall(accepted(request_id, tx_b64)[:60])
    reset(sock, request_id, tx_b64, number)


def long_head(sock: socket.socket, *_: object) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 123456789\r\n" * 5_000)


def absurd_length(sock: socket.socket, *_: object) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n{}")
    raise OSError("the end")


@pytest.mark.parametrize("bad", [garbage, reset, reset_midway, huge, cut_short, redirects, long_head, absurd_length])
def test_submit_unusable_answer_settles_nothing_and_the_next_copy_is_accepted(
    bad: Behaviour, make_target: Any, make_sender: Any
) -> None:
    target = make_target(lambda *args: (bad if args[-1] < 2 else accept)(*args))
    pending = make_sender(target, connections=2, rebroadcast_s=0.3).submit(SignedTransfer().b64)
    until(lambda: is_accepted(pending))
    assert not pending.done()
    assert len(target.sent) >= 2


def test_submit_connections_that_broke_while_idle_are_replaced(make_target: Any, make_sender: Any) -> None:
    """The target ends all of them at once; each of the next copies is written once."""
    target = make_target()
    sender = make_sender(target, connections=8)
    sender.warm()
    until(lambda: target.connections == 8)
    target.drop_connections()
    ends = [sender.submit(tx.b64) for tx in transfers(20)]
    until(lambda: all(map(is_accepted, ends)))
    assert len(target.sent) == 20


def test_submit_target_that_never_reads_does_not_block_the_caller(make_target: Any, make_sender: Any) -> None:
    """Its sockets' buffers fill up; what they did not take is written by the reader when they do."""
    full, fine = make_target(), make_target()
    sender = make_sender(full, fine, connections=1, send_timeout_s=PATIENCE_S)
    sender.warm()
    connection = next(iter(sender._lanes[0]._connections._all))
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    full.surplus = 1_000_000
    client, rest = sender._lanes[0].client, b"x" * full.surplus
    written = client.wire
    client.wire = lambda request: written(request) + rest
    began = time.monotonic()
    pending = sender.submit(SignedTransfer().b64)
    assert time.monotonic() - began < PATIENCE_S / 2
    until(lambda: is_accepted(pending))
    assert connection.has_unsent
    assert fine.sent
    full.gate.set()
    until(lambda: not connection.is_busy)
    assert not connection.is_closed


def test_submit_answer_before_the_request_was_read_ends_the_connection(make_target: Any, make_sender: Any) -> None:
    """What is left of the request must not stand before the next one."""
    target = make_target()
    sender = make_sender(target, connections=1)
    sender.warm()
    connection = next(iter(sender._lanes[0]._connections._all))
    client, big = sender._lanes[0].client, b"x" * 8_000_000
    written = client.wire
    client.wire = lambda request: written(request) + big
    pending = sender.submit(SignedTransfer(1).b64)
    until(lambda: is_accepted(pending))
    until(lambda: connection.sock.fileno() < 0)
    del client.wire
    second = sender.submit(SignedTransfer(2).b64)
    until(lambda: is_accepted(second))


def test_submit_answer_that_trickles_ends_with_the_time_limit(make_target: Any, make_sender: Any) -> None:
    def trickle(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
        for byte in accepted(request_id, tx_b64)[:-1]:
            sock.sendall(bytes([byte]))
            time.sleep(0.01)
        target.let_go.wait(PATIENCE_S)

    target = make_target()
    target.behave = lambda *args: (trickle if args[-1] < 1 else accept)(*args)
    pending = make_sender(target, connections=1, send_timeout_s=0.5, rebroadcast_s=0.2).submit(SignedTransfer().b64)
    until(lambda: is_accepted(pending))
    assert len(target.sent) >= 2


def test_warm_idle_connection_on_which_the_target_speaks_is_replaced(make_target: Any, make_sender: Any) -> None:
    """An answer that nobody asked for is never taken for the next request's."""
    target = make_target()
    serve, unasked = target.serve, threading.Semaphore(1)

    def serve_and_speak(sock: socket.socket) -> None:
        if unasked.acquire(blocking=False):
            # The answer to what keeps the connection warm, and another one.
            target._some(sock)
            for number in (1, 2):
                sock.sendall(answer({"jsonrpc": "2.0", "id": number, "result": "ok"}))
        serve(sock)

    target.serve = serve_and_speak
    sender = make_sender(target, connections=1)
    sender.warm()
    until(lambda: target.connections == 2)
    pending = sender.submit(SignedTransfer().b64)
    until(lambda: is_accepted(pending))
    assert len(target.sent) == 1


def test_submit_answer_to_another_request_is_not_believed_and_ends_its_connection(
    make_target: Any, make_sender: Any
) -> None:
    def confuse(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
        sock.sendall(accepted(request_id + 1, tx_b64))

    target = make_target()
    target.behave = lambda *args: (confuse if args[-1] < 1 else accept)(*args)
    sender = make_sender(target, connections=1)
    first = sender.submit(SignedTransfer(1).b64)
    until(lambda: target.connections == 1 and "id" in first.result(0).detail)
    second = sender.submit(SignedTransfer(2).b64)
    until(lambda: is_accepted(second))
    assert not is_accepted(first)
    assert target.connections == 2


def test_submit_copy_without_an_answer_wakes_the_sleeping_reader_at_its_end(make_target: Any, make_sender: Any) -> None:
    target = make_target()
    target.behave = lambda *_: target.let_go.wait(3 * PATIENCE_S)
    sender = make_sender(target, connections=1, send_timeout_s=0.2)
    # The reader sleeps until the end of what keeps the connection warm, at least.
    sender.warm(timeout_s=3 * PATIENCE_S)
    sender.submit(SignedTransfer().b64)
    until(lambda: target.connections == 2)


def test_submit_target_that_answers_429_is_left_alone_until_retry_after(make_target: Any, make_sender: Any) -> None:
    def slow_down(sock: socket.socket, *_: object) -> None:
        sock.sendall(answer("slow down", head="HTTP/1.1 429 Too Many Requests", extra="Retry-After: 60\r\n"))

    limited, fine = make_target(slow_down), make_target()
    sender = make_sender(limited, fine)
    client = sender._lanes[0].client
    first = sender.submit(SignedTransfer(1).b64)
    until(lambda: is_accepted(first) and client.held_for_s() > 0)
    second = sender.submit(SignedTransfer(2).b64)
    until(lambda: is_accepted(second))
    assert "rate limited for another" in second.result(0).detail
    assert limited.sent == [SignedTransfer(1).b64]
    assert not second.done()


def test_submit_target_that_answered_429_gets_copies_after_retry_after(make_target: Any, make_sender: Any) -> None:
    def slow_down(sock: socket.socket, *_: object) -> None:
        sock.sendall(answer("slow down", head="HTTP/1.1 429 Too Many Requests", extra="Retry-After: 0.3\r\n"))

    target = make_target()
    target.behave = lambda *args: (slow_down if args[-1] < 1 else accept)(*args)
    pending = make_sender(target, rebroadcast_s=0.1).submit(SignedTransfer().b64)
    until(lambda: is_accepted(pending))
    assert len(target.sent) == 2


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def close_notify_midway(sock: Any, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(accepted(request_id, tx_b64)[:60])
    sock.unwrap()
    raise OSError("closed by TLS")


def cut_without_close_notify(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(accepted(request_id, tx_b64)[:60])
    raise OSError("closed without TLS")


def answers_twice_in_two_records(sock: socket.socket, request_id: int, tx_b64: str, _: int) -> None:
    sock.sendall(accepted(request_id, tx_b64))
    sock.sendall(accepted(request_id, tx_b64))


@pytest.mark.parametrize(
    "behave", [accept, byte_by_byte, close_notify_midway, cut_without_close_notify, answers_twice_in_two_records]
)
def test_submit_over_tls_every_transaction_is_accepted(
    behave: Behaviour, make_target: Any, make_sender: Any, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    target = make_target(lambda *args: (behave if args[-1] < 2 else accept)(*args), authority.server())
    sender = make_sender(target, connections=1, ca_file=str(authority.pem), rebroadcast_s=0.3)
    sender.warm()
    for tx in transfers(4):
        pending = sender.submit(tx.b64)
        until(lambda pending=pending: is_accepted(pending))
    assert {tx.b64 for tx in transfers(4)} == set(target.sent)


# ── a system that lacks something ────────────────────────────────────────────────────────────────────────────────


def fail_once(*_: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_submit_without_descriptors_for_the_reader_is_sent_later(
    make_target: Any, make_sender: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = make_target()
    sender = make_sender(target, rebroadcast_s=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(selectors, "DefaultSelector", fail_once)
        pending = sender.submit(SignedTransfer().b64)
    until(lambda: is_accepted(pending))
    assert "is not sent now" in caplog.text


WITHOUT_DESCRIPTORS = """
import resource, sys, time
from lasersell_sync.trading import SendTargetRpc, TxSender
from lasersell_sync.trading.solana.signing import read_signed_tx
target, node, tx = sys.argv[1:]
def wait_for(condition):
    while not condition():
        time.sleep(0.01)
with TxSender(SendTargetRpc(target), rpcs=node, connections=1, rebroadcast_s=0.2, keep_warm_s=None) as sender:
    sender.warm()
    signed = read_signed_tx(tx)  # loads solders
    connection = next(iter(sender._lanes[0]._connections._all))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    connection.close()
    pending = sender.submit(signed)
    wait_for(lambda: "Too many open files" in pending.result(0).detail)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: pending.result(0).accepted_by)
print("accepted")
"""


def test_submit_without_descriptors_for_a_connection_is_sent_later(make_target: Any, node: SolanaNode) -> None:
    target, tx = make_target(), SignedTransfer()
    program = [sys.executable, "-c", WITHOUT_DESCRIPTORS, target.url, node.url, tx.b64]
    done = subprocess.run(program, capture_output=True, text=True, timeout=3 * PATIENCE_S, check=False)
    assert done.stdout == "accepted\n", done.stdout + done.stderr[-2000:]
    assert set(target.sent) == {tx.b64}


def test_submit_connection_that_cannot_be_watched_is_replaced(
    make_target: Any, make_sender: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = make_target()
    sender = make_sender(target, connections=1, send_timeout_s=3 * PATIENCE_S)
    register, failures = selectors.DefaultSelector.register, [1]

    def failing(self: Any, sock: Any, events: int, data: Any = None) -> Any:
        if data is not None and failures:
            failures.pop()
            fail_once()
        return register(self, sock, events, data)

    monkeypatch.setattr(selectors.DefaultSelector, "register", failing)
    for tx in transfers(2):
        pending = sender.submit(tx.b64)
        until(lambda pending=pending: is_accepted(pending))
    assert "cannot be watched" in caplog.text
    assert target.connections == 2


def test_copy_that_waited_and_cannot_be_written_is_sent_again(
    make_target: Any, make_sender: Any, caplog: pytest.LogCaptureFixture
) -> None:
    target = make_target()
    target.behave = lambda *args: (target.let_go.wait(PATIENCE_S), accept(*args))
    sender = make_sender(target, connections=1, rebroadcast_s=0.2, send_timeout_s=PATIENCE_S)
    first = sender.submit(SignedTransfer(1).b64)
    until(lambda: target.sent)
    second = sender.submit(SignedTransfer(2).b64)
    client, failures = sender._lanes[0].client, [1]
    written = client.wire

    def failing(request: Any) -> bytes:
        if failures:
            failures.pop()
            raise MemoryError
        return written(request)

    client.wire = failing
    target.let_go.set()
    until(lambda: is_accepted(first) and is_accepted(second))
    assert "MemoryError" in caplog.text


def test_post_after_close_raises_concurrency_error(make_target: Any, make_sender: Any) -> None:
    sender = make_sender(make_target())
    sender.warm()
    lane = sender._lanes[0]
    lane._connections.close()
    with pytest.raises(ConcurrencyError, match="closed"):
        lane._connections.post(Warming(lane, time.monotonic() + PATIENCE_S))


def test_submit_after_a_suspension_uses_no_connection_from_before(
    make_target: Any, make_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routers forget connections meanwhile: nothing is written there, and no time limit is waited for."""
    target = make_target()
    sender = make_sender(target, connections=4, send_timeout_s=PATIENCE_S)
    sender.warm()
    until(lambda: target.connections == 4)
    before = set(sender._lanes[0]._connections._all)
    until(lambda: len(sender._lanes[0]._connections._idle) == 4)
    monkeypatch.setattr(send_connections, "boot_time_s", lambda: time.monotonic() + 1e9)
    pending = sender.submit(SignedTransfer().b64)
    until(lambda: is_accepted(pending))
    until(lambda: target.connections == 8)
    assert {connection.sock.fileno() for connection in before} == {-1}
    assert not before & sender._lanes[0]._connections._all


# ── how many at once ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [0, 1, 2])
def test_submit_three_hundred_while_one_of_three_targets_hangs_all_reach_the_others(
    place: int, make_target: Any, make_sender: Any
) -> None:
    targets = [make_target() for _ in range(3)]
    targets[place].behave = targets[place].hang
    sender = make_sender(*targets, send_timeout_s=PATIENCE_S)
    txs = transfers(300)
    for tx in txs:
        sender.submit(tx.b64)
    for target in targets[:place] + targets[place + 1 :]:
        until(lambda target=target: len(target.sent) == 300)
        assert set(target.sent) == {tx.b64 for tx in txs}
        assert target.connections <= 16
    assert len(targets[place].sent) <= 16


def test_submit_from_many_threads_over_few_connections_every_answer_finds_its_own(
    make_target: Any, make_sender: Any
) -> None:
    """No pipelining: a connection has one request under way."""
    under_way: dict[int, int] = {}
    most: list[int] = []

    def behave(sock: socket.socket, *args: Any) -> None:
        under_way[id(sock)] = under_way.get(id(sock), 0) + 1
        most.append(under_way[id(sock)])
        accept(sock, *args)
        under_way[id(sock)] -= 1

    target = make_target(behave)
    sender, txs, ends = make_sender(target, connections=3), transfers(120), []
    workers = [
        threading.Thread(target=lambda n=n: ends.extend(sender.submit(tx.b64) for tx in txs[n::6])) for n in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    until(lambda: len(ends) == 120 and all(map(is_accepted, ends)))
    assert len(target.sent) == 120
    assert target.connections <= 3
    assert set(most) == {1}


def test_submit_hanging_target_frees_its_connections_after_the_time_limit(make_target: Any, make_sender: Any) -> None:
    """What waited for one is sent then, over new ones."""
    target = make_target()
    target.behave = lambda *args: (target.hang if args[-1] < 2 else accept)(*args)
    sender = make_sender(target, connections=2, send_timeout_s=0.3)
    ends = [sender.submit(tx.b64) for tx in transfers(4)]
    until(lambda: all(map(is_accepted, ends[2:])))
    assert not any(map(is_accepted, ends[:2]))


def test_submit_target_that_takes_two_connections_serves_all_copies(make_target: Any, make_sender: Any) -> None:
    """The target closes every further connection; what was written there goes again with the next copies."""
    target = make_target()
    sender = make_sender(target, connections=8, rebroadcast_s=0.2)
    sender.warm()
    until(lambda: target.connections == 8)
    target.drop_connections()
    serve, first_two = target.serve, threading.Semaphore(2)

    def limited(sock: socket.socket) -> None:
        if first_two.acquire(blocking=False):
            serve(sock)

    target.serve = limited
    ends = [sender.submit(tx.b64) for tx in transfers(40)]
    until(lambda: all(map(is_accepted, ends)))


# ── the end, and children ────────────────────────────────────────────────────────────────────────────────────────


def test_close_ends_threads_and_connections(make_target: Any, make_sender: Any) -> None:
    target = make_target()
    before = set(threading.enumerate())
    sender = make_sender(target)
    sender.warm()
    ends = [sender.submit(tx.b64) for tx in transfers(30)]
    until(lambda: all(map(is_accepted, ends)))
    connections = list(sender._lanes[0]._connections._all)
    sender.close()
    until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("lasersell")])
    assert connections
    assert {connection.sock.fileno() for connection in connections} == {-1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_close_in_a_forked_child_leaves_the_parents_connections_alone(make_target: Any, make_sender: Any) -> None:
    """The child gives its copies of the descriptors back; the parent's copies go over the same connections."""
    target = make_target()
    sender = make_sender(target, connections=2)
    sender.warm()
    until(lambda: target.connections == 2)
    connections = list(sender._lanes[0]._connections._all)
    child = os.fork()
    if not child:
        sender.close()
        os._exit(0 if {connection.sock.fileno() for connection in connections} == {-1} else 1)
    assert os.waitpid(child, 0)[1] == 0
    ends = [sender.submit(tx.b64) for tx in transfers(10)]
    until(lambda: all(map(is_accepted, ends)))
    assert target.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_close_in_a_child_forked_while_copies_are_under_way_leaves_their_answers_to_the_parent(
    make_target: Any, make_sender: Any
) -> None:
    target = make_target()
    target.behave = lambda *args: (target.let_go.wait(PATIENCE_S), accept(*args))
    sender = make_sender(target, connections=4, send_timeout_s=PATIENCE_S)
    ends = [sender.submit(tx.b64) for tx in transfers(6)]
    until(lambda: len(target.sent) == 4)
    child = os.fork()
    if not child:
        sender.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    target.let_go.set()
    until(lambda: all(map(is_accepted, ends)))
    assert len(target.sent) == 6
    assert target.connections == 4


def test_threads_of_a_sender_are_bounded_and_named(make_target: Any, make_sender: Any) -> None:
    """However many copies are under way: one reader for each target, and openers that end."""
    targets = [make_target() for _ in range(2)]
    for target in targets:
        target.behave = target.hang
    before = set(threading.enumerate())
    sender = make_sender(*targets, connections=64, send_timeout_s=PATIENCE_S)
    for tx in transfers(100):
        sender.submit(tx.b64)
    until(lambda: all(len(target.sent) == 64 for target in targets))

    def names() -> set[str]:
        return {each.name for each in set(threading.enumerate()) - before if each.name.startswith("lasersell-")}

    until(lambda: not [name for name in names() if name.startswith("lasersell-open")])
    assert {name for name in names() if "send" in name} == {"lasersell-send-0", "lasersell-send-1"}


def test_confirmed_after_everything_a_landing_is_found(make_target: Any, make_sender: Any, node: SolanaNode) -> None:
    """Accepted is not landed: the node's word settles it."""
    target, tx = make_target(garbage), SignedTransfer()
    pending = make_sender(target).submit(tx.b64)
    until(lambda: target.sent)
    assert not pending.done()
    node.land(tx.signature)
    assert pending.result(PATIENCE_S).outcome is SellOutcome.CONFIRMED


# ── cooperative threads ──────────────────────────────────────────────────────────────────────────────────────────

PATCHED_PROGRAM = """
import sys, threading, time
from lasersell_sync.trading import SendTargetRpc, TxSender
fine, hanging, node = sys.argv[1:]
ticks = []
def tick():
    for _ in range(20):
        ticks.append(1)
        time.sleep(0.01)
with TxSender([SendTargetRpc(fine), SendTargetRpc(hanging)], rpcs=node, keep_warm_s=None, send_timeout_s=1) as sender:
    sender.warm()
    thread = threading.Thread(target=tick)
    thread.start()
    ends = [sender.submit(tx) for tx in sys.stdin.read().split()]
    while not all(end.result(0).accepted_by for end in ends):
        time.sleep(0.01)
    thread.join()
print(len(ends), len(ticks))
"""


@pytest.mark.parametrize(
    "patch", ["from gevent import monkey; monkey.patch_all()", "import eventlet; eventlet.monkey_patch()"]
)
def test_submit_under_cooperative_threads_a_hanging_target_holds_nothing_up(
    patch: str, make_target: Any, node: SolanaNode
) -> None:
    fine, hanging = make_target(), make_target()
    hanging.behave = hanging.hang
    txs = transfers(60)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", patch + PATCHED_PROGRAM, fine.url, hanging.url, node.url],
        input="\n".join(tx.b64 for tx in txs),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert done.stdout == "60 20\n", done.stdout + done.stderr[-2000:]
    assert sorted(fine.sent) == sorted(tx.b64 for tx in txs)
