"""What judging a transaction of unknown layout costs, beside the question that it puts to a node.

Usage: ``python -m benchmarks.bench_opaque [--json] [--versions] [--seconds S] [--require-peers]``

The guard's check of a sale through a program whose layout nobody knows: rules, a simulation by a node in another
process, and the verdict. Beside it the same request by the same client, whose answer is thrown away. A sale's guard
derives our account for each address of the transaction, and remembers it: the first sale of a coin derives those of its
own pool, "nothing derived before" all of them.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, Final

import lasersell_sync as ls
from benchmarks import command
from benchmarks.rounds import Table, interleave
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.guard import addresses
from lasersell_sync.trading.solana.json_rpc import client_for
from tests.support import router_trade

CHECKS: Final = 40
OURS: Final = "ours, SigningGuard.check()"
ANEW: Final = "ours, nothing derived before"
THROWN_AWAY: Final = "the same request, answer thrown away"


def measure(seconds: float) -> command.Outcome:
    """The check and its request, in turn."""
    trade = router_trade.honest_sale()
    signal = trade.exit_signal()
    keys = trade.keys_of(signal.unsigned_tx_b64)
    written = [str(key) for key in keys if key in trade.after]
    options = {
        "encoding": "base64", "commitment": "processed", "sigVerify": False, "replaceRecentBlockhash": True,
        "innerInstructions": True, "accounts": {"encoding": "base64", "addresses": written},
        "minContextSlot": router_trade.SLOT - 5,
    }  # fmt: skip
    answer = trade.simulated([signal.unsigned_tx_b64, options])
    with _node(answer) as url, contextlib.closing(ls.SigningGuard(rpc=url, simulation_timeout_s=30.0)) as guard:
        client = client_for(ls.SendTargetRpc(url))

        def check() -> None:
            guard.check(signal, wallet=signal.wallet_pubkey, context=trade.context)

        def check_anew() -> None:
            addresses.token_account.cache_clear()
            check()

        def ask() -> None:
            client.call("simulateTransaction", [signal.unsigned_tx_b64, options], budget=TimeBudget(30.0))

        turns = {OURS: lambda: _turn(check), ANEW: lambda: _turn(check_anew), THROWN_AWAY: lambda: _turn(ask)}
        check()
        ask()
        table = Table("opaque", "check a sale of unknown layout, one node", "µs").fill(interleave(turns, seconds))
    return command.Outcome([table])


def _turn(work: Callable[[], None]) -> list[float]:
    took_us = []
    for _ in range(CHECKS):
        start = time.perf_counter_ns()
        work()
        took_us.append((time.perf_counter_ns() - start) / 1e3)
    return took_us


@contextlib.contextmanager
def _node(result: Any) -> Iterator[str]:
    """A node in another process that has one answer ready."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, json.dumps(result)), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(told: Connection, result: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = f'{{"jsonrpc":"2.0","id":{request["id"]},"result":{result}}}'.encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=(), seconds=10))
