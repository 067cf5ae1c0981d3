"""From an exit signal to a signed transaction on its way.

Usage: ``python -m benchmarks.bench_submit [--json] [--versions] [--seconds S] [--require-peers]``

Signing: base64 in, signed base64 out, against the signature (Ed25519) alone. Submitting: from the text of an exit
signal to the moment at which the last byte of the POST was handed to the socket, over TLS to a server in another
process. Ours and bare urllib3 use a connection that is open already, the official SDK opens one for each send. Its
authorities are a file with one certificate; with a system's whole store each of its sends would take longer.

The guarded sale: from a decoded signal to the last byte, with the signing guard on, beside the three parts that it
cannot do without: the guard's check, the signature, and a bare urllib3 request whose body is ready; in a row, which is
what they add up to after a pause, and each alone. The signals are the sandbox's, one of each market and currency. The
journal: what it costs to have a sale's record on disk.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import sqlite3
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import FileIO
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import urllib3
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

import lasersell_sync as ls
from benchmarks import command, data
from benchmarks.command import missing_packages
from benchmarks.rounds import Table, Turn, interleave
from benchmarks.targets import OFFICIAL, OURS_GUARDED, PARTS
from tests.support.certificates import Authority
from tests.support.market_transactions import MARKETS, Desk

SIGNATURES: Final = 50
SENDS: Final = 20
ALONE: Final = ("the guard alone", "Ed25519 alone (solders)", "bare urllib3 alone, body ready")


def measure(seconds: float) -> command.Outcome:
    """Signing, then submitting, then the journal."""
    keypair = Keypair()
    unsigned = [_unsigned(keypair) for _ in range(SIGNATURES)]
    signing = _signing(keypair, unsigned, seconds / 5)
    with _https_server() as (url, ca_file):
        submitting = _submitting(keypair, unsigned, url, ca_file, seconds * 3 / 10)
        guarded = _guarded(url, ca_file, seconds * 3 / 10)
    return command.Outcome([signing, submitting, guarded, _journal(seconds / 5)], {"alone": _alone(guarded)})


def _unsigned(keypair: Keypair) -> str:
    """A sale as the server builds one: a swap with its accounts, a budget, a tip."""
    accounts = [AccountMeta(Pubkey.new_unique(), is_signer=False, is_writable=index % 2 == 0) for index in range(14)]
    swap = Instruction(Pubkey.new_unique(), os.urandom(24), [*accounts, AccountMeta(keypair.pubkey(), True, True)])  # noqa: FBT003 - positional only
    budget = Instruction(Pubkey.new_unique(), os.urandom(9), [])
    message = MessageV0.try_compile(keypair.pubkey(), [budget, swap], [], Hash.new_unique())
    return base64.b64encode(bytes(VersionedTransaction.populate(message, [Signature.default()]))).decode()


# ── signing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _signing(keypair: Keypair, unsigned: list[str], seconds: float) -> Table:
    messages = [to_bytes_versioned(VersionedTransaction.from_bytes(base64.b64decode(one)).message) for one in unsigned]

    def turn(sign: Callable[[Any], object], inputs: list[Any]) -> list[float]:
        start = time.perf_counter_ns()
        for one in inputs:
            sign(one)
        return [(time.perf_counter_ns() - start) / len(inputs) / 1e3]

    turns = {
        "ours, sign_unsigned_tx_b64()": lambda: turn(lambda one: ls.sign_unsigned_tx_b64(one, keypair), unsigned),
        "Ed25519 alone (solders)": lambda: turn(keypair.sign_message, messages),
    }
    if not missing_packages(["lasersell-sdk"]):
        from lasersell_sdk import tx

        turns[OFFICIAL] = lambda: turn(lambda one: tx.encode_signed_tx(tx.sign_unsigned_tx(one, keypair)), unsigned)
    table = Table("sign", f"sign a transaction of {len(base64.b64decode(unsigned[0]))} bytes", "µs")
    return table.fill(interleave(turns, seconds))


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────


def _submitting(keypair: Keypair, unsigned: list[str], url: str, ca_file: str, seconds: float) -> Table:
    exit_signal = json.loads(data.one_type("exit_signal_with_tx", 1)[0])
    texts = [json.dumps({**exit_signal, "unsigned_tx_b64": one}, separators=(",", ":")).encode() for one in unsigned]
    sellers: dict[str, Callable[[bytes], None]] = {
        "ours, send_transaction_b64_to()": _ours(keypair, url, ca_file),
        "our signature, bare urllib3": _urllib3(keypair, url, ca_file),
    }
    if not missing_packages(["lasersell-sdk"]):
        sellers[OFFICIAL] = _official(keypair, url, ca_file)
    table = Table("submit", "exit signal's text in → last byte of the signed POST written, over TLS", "µs")
    return table.fill(_until_written(sellers, texts[:SENDS], seconds))


def _until_written(
    sellers: Mapping[str, Callable[[Any], None]],
    signals: Sequence[Any],
    seconds: float,
    beside: Mapping[str, Turn] = MappingProxyType({}),
) -> dict[str, list[Sequence[float]]]:
    """Microseconds from a call to the last byte that it wrote.

    Args:
        sellers: send a transaction for a signal.
        signals: for one turn.
        seconds: for all rounds, about.
        beside: other turns, in the same rounds.
    """
    with _writes_noted() as last_write_ns:

        def turn(sell: Callable[[Any], None]) -> list[float]:
            took_us = []
            for signal in signals:
                start = time.monotonic_ns()
                sell(signal)
                took_us.append((last_write_ns() - start) / 1e3)
            return took_us

        for sell in sellers.values():
            sell(signals[0])
        return interleave({**{name: partial(turn, sell) for name, sell in sellers.items()}, **beside}, seconds)


def _ours(keypair: Keypair, url: str, ca_file: str) -> Callable[[bytes], None]:
    target = ls.SendTargetRpc(url, ca_file=ca_file)

    def sell(text: bytes) -> None:
        message = ls.server_message_from_text(text)
        ls.send_transaction_b64_to(target, ls.sign_unsigned_tx_b64(message.unsigned_tx_b64, keypair))

    return sell


def _urllib3(keypair: Keypair, url: str, ca_file: str) -> Callable[[bytes], None]:
    """The least that one would write by hand with our decoder and signature; of the answer only the status is read."""
    pool = urllib3.connection_from_url(url, ca_certs=ca_file, maxsize=1)

    def sell(text: bytes) -> None:
        message = ls.server_message_from_text(text)
        _post(pool, _send_transaction(ls.sign_unsigned_tx_b64(message.unsigned_tx_b64, keypair)))

    return sell


def _send_transaction(signed_tx_b64: str) -> bytes:
    options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 3, "preflightCommitment": "processed"}
    request = {"jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": [signed_tx_b64, options]}
    return json.dumps(request, separators=(",", ":")).encode()


def _post(pool: urllib3.HTTPConnectionPool, body: bytes) -> None:
    answer = pool.urlopen("POST", "/", body=body, headers={"content-type": "application/json"}, retries=False)
    assert answer.status == 200


def _official(keypair: Keypair, url: str, ca_file: str) -> Callable[[bytes], None]:
    from lasersell_sdk import tx
    from lasersell_sdk.stream.proto import server_message_from_text

    os.environ["SSL_CERT_FILE"] = ca_file  # it has no setting for authorities
    loop, target = asyncio.new_event_loop(), tx.SendTargetRpc(url)

    def sell(text: bytes) -> None:
        message = server_message_from_text(text.decode())
        signed = tx.sign_unsigned_tx(message["unsigned_tx_b64"], keypair)
        loop.run_until_complete(tx.send_transaction(target, signed))

    return sell


# ── with the guard ───────────────────────────────────────────────────────────────────────────────────────────────


class _Sale(NamedTuple):
    """An exit signal with the wallet that it is for, and what the parts alone need of it."""

    signal: ls.ExitSignalWithTx
    keypair: Keypair
    signer: ls.Signer
    message: bytes
    body: bytes


def _sale(market: str, quote: str) -> _Sale:
    desk = Desk(market, quote)
    signal, _ = desk.signals("rpc")
    signer = ls.Signer.from_keypair(desk.wallet)
    message = to_bytes_versioned(VersionedTransaction.from_bytes(base64.b64decode(signal.unsigned_tx_b64)).message)
    return _Sale(signal, desk.wallet, signer, message, _send_transaction(signer.sign(signal)))


def _guarded(url: str, ca_file: str, seconds: float) -> Table:
    sales = [_sale(market, quote) for market, quote in MARKETS]
    target, guard = ls.SendTargetRpc(url, ca_file=ca_file), ls.SigningGuard()
    pool = urllib3.connection_from_url(url, ca_certs=ca_file, maxsize=1)
    sellers: dict[str, Callable[[_Sale], None]] = {
        OURS_GUARDED: lambda sale: ls.send_transaction_b64_to(target, sale.signer.sign(sale.signal, guard=guard)),
        PARTS: lambda sale: _parts_in_a_row(guard, pool, sale),
        ALONE[2]: lambda sale: _post(pool, sale.body),
    }
    if not missing_packages(["lasersell-sdk"]):
        sellers[f"{OFFICIAL}, without a guard"] = _official_sale(url, ca_file)

    def each(do: Callable[[_Sale], object]) -> list[float]:
        took_us = []
        for sale in sales:
            start = time.monotonic_ns()
            do(sale)
            took_us.append((time.monotonic_ns() - start) / 1e3)
        return took_us

    alone: dict[str, Turn] = {
        ALONE[0]: lambda: each(lambda sale: guard.check(sale.signal, wallet=sale.signer.wallet)),
        ALONE[1]: lambda: each(lambda sale: sale.keypair.sign_message(sale.message)),
    }
    table = Table("guarded", "decoded exit signal in → last byte of the guarded and signed POST written", "µs")
    return table.fill(_until_written(sellers, sales, seconds, alone))


def _alone(guarded: Table) -> command.Fact:
    """What the parts add up to when each is measured alone, the guard and the signature in a loop."""
    ours, *alone = (guarded.rows[name].rounds for name in (OURS_GUARDED, *ALONE))
    shares = (100 * sum(parts) / whole for whole, *parts in zip(ours, *alone, strict=True))
    return command.Fact("the three alone add up to so much of ours", statistics.median(shares), "%")


def _parts_in_a_row(guard: ls.SigningGuard, pool: urllib3.HTTPConnectionPool, sale: _Sale) -> None:
    guard.check(sale.signal, wallet=sale.signer.wallet)
    sale.keypair.sign_message(sale.message)
    _post(pool, sale.body)


def _official_sale(url: str, ca_file: str) -> Callable[[_Sale], None]:
    from lasersell_sdk import tx

    os.environ["SSL_CERT_FILE"] = ca_file  # it has no setting for authorities
    loop, target = asyncio.new_event_loop(), tx.SendTargetRpc(url)

    def sell(sale: _Sale) -> None:
        signed = tx.sign_unsigned_tx(sale.signal.unsigned_tx_b64, sale.keypair)
        loop.run_until_complete(tx.send_transaction(target, signed))

    return sell


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────


def _journal(seconds: float) -> Table:
    """Beside this file, because a folder for temporary files may lie in memory."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder, contextlib.ExitStack() as open_files:
        turns: dict[str, Turn] = {}
        for level in ("FULL", "NORMAL"):
            journal = open_files.enter_context(contextlib.closing(sqlite3.connect(Path(folder, level))))
            turns[f"synchronous={level}"] = partial(_commits, journal, level)
        plain = open_files.enter_context(Path(folder, "plain").open("wb", buffering=0))
        turns["4 KiB appended to a file and flushed to disk"] = partial(_appends, plain)
        table = Table("journal", "one commit to a journal of two tables, SQLite in WAL mode", "µs")
        return table.fill(interleave(turns, seconds))


def _commits(journal: sqlite3.Connection, level: str) -> list[float]:
    journal.executescript(
        f"""PRAGMA journal_mode=WAL; PRAGMA synchronous={level};
        CREATE TABLE IF NOT EXISTS exits (id INTEGER PRIMARY KEY, key TEXT, state TEXT, signature TEXT);
        CREATE TABLE IF NOT EXISTS steps (id INTEGER PRIMARY KEY, exit INTEGER, at_ns INTEGER, what TEXT);"""
    )
    took_us = []
    for _ in range(SENDS):
        start = time.monotonic_ns()
        with journal:
            row = journal.execute("INSERT INTO exits (key, state, signature) VALUES (?, 'signed', ?)", _EXIT).lastrowid
            journal.execute("INSERT INTO steps (exit, at_ns, what) VALUES (?, ?, 'signed')", (row, start))
        took_us.append((time.monotonic_ns() - start) / 1e3)
    return took_us


#: As long as a wallet with a token account, and a signature.
_EXIT: Final = ("k" * 88, "s" * 88)


def _appends(plain: FileIO) -> list[float]:
    took_us = []
    for _ in range(SENDS):
        start = time.monotonic_ns()
        plain.write(bytes(4096))
        getattr(os, "fdatasync", os.fsync)(plain.fileno())  # Platform-specific: fdatasync is what SQLite calls on Linux
        took_us.append((time.monotonic_ns() - start) / 1e3)
    return took_us


# ── when a request has left ──────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _writes_noted() -> Iterator[Callable[[], int]]:
    """When the latest write to any TLS socket of this process returned (ns, monotonic)."""
    plain, noted_ns = ssl.SSLSocket.send, 0

    def send(self: ssl.SSLSocket, *args: Any) -> int:
        nonlocal noted_ns
        sent = plain(self, *args)
        noted_ns = time.monotonic_ns()
        return sent

    def last() -> int:
        nonlocal noted_ns
        assert noted_ns, "nothing was written through ssl.SSLSocket"
        latest, noted_ns = noted_ns, 0
        return latest

    ssl.SSLSocket.send = send  # type: ignore[method-assign]
    try:
        yield last
    finally:
        ssl.SSLSocket.send = plain  # type: ignore[method-assign]


# ── a server that takes every transaction ────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _https_server() -> Iterator[tuple[str, str]]:
    """Its URL and the file of its authority; it is a process of its own."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        with _away_from(process.pid):
            yield pipe.recv()
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def _away_from(pid: int | None) -> Iterator[None]:
    """The other process has a processor of its own meanwhile.

    A server is another machine in life. On one processor its turn would begin inside our write, which wakes it.
    """
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()  # Platform-specific: Linux
    if pid is None or len(ours) < 2:
        yield
        return
    os.sched_setaffinity(pid, {max(ours)})
    os.sched_setaffinity(0, ours - {max(ours)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _serve(pipe: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        context = authority.server()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Rpc)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        pipe.send((f"https://127.0.0.1:{server.server_port}/", str(authority.pem)))
        server.serve_forever()


class _Rpc(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        signed = base64.b64decode(request["params"][0])
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": str(Signature(signed[1:65]))}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=("lasersell-sdk", "urllib3", "solders"), seconds=30))
