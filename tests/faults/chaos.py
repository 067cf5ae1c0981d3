"""Chaos: one session through hundreds of seeded faults, and the books balanced at the end.

    python -m tests.faults.chaos --seconds 60 [--seed N] [--report FILE]

The server numbers every high-lane message and notes at which byte of its connection it ends. The proxy knows how many
bytes of each connection the client's kernel has acknowledged. A message whose last byte was acknowledged *reached the
socket*: it must be delivered, once. (When the client itself ended the connection, bytes of the last 50 ms before that
do not count: they crossed with its close. What was swallowed, cut off or never sent is the gap that no client can close.)

Also checked: every ``configure`` carries the latest strategy, descriptors and threads are as many as at the start, and
memory does not grow.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lasersell_sync import (
    ConnectionState,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamOptions,
    StreamSession,
)
from tests.faults.rigs import library_threads, open_fd_names, open_fds, rss_bytes
from tests.support.fault_proxy import FaultProxy
from tests.support.stream_server import WALLET, closed, exit_signal, hello, opened, pnl, text_frame
from tests.support.waiting import PATIENCE_S, until

#: Positions that the server opens and closes again and again.
POOL = 20
#: Pause between two messages of one connection; the weather makes bursts of them.
PACE_S = 0.002
MAX_RSS_GROWTH = 32 * 2**20
OPTIONS: dict[str, Any] = {
    "ping_interval_s": 0.3,
    "pong_timeout_s": 0.5,
    "app_ping_interval_s": 0.6,
    "app_pong_timeout_s": 0.6,
    "connect_timeout_s": 1.5,
    "max_backoff_s": 0.3,
    "max_degraded_backoff_s": 0.5,
    "stable_after_s": 0.3,
    "resync_grace_s": 0.3,
}


class Conversation:
    """One connection at the server: what it wrote, and where each message ended."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.port: int = sock.getpeername()[1]
        self.accepted_at = time.monotonic()
        self.configured: dict[str, Any] | None = None
        #: Each message's number, and the offset of the byte after it; arrays, so that half an hour of books stays small.
        self.numbers = array("Q")
        self.ends = array("Q")
        self.offset = 0
        #: Guards the writing side: the talker and the answers to pings.
        self.lock = threading.Lock()


class NumberingServer:
    """Speaks just enough WebSocket, by hand, to know every offset."""

    def __init__(self, rand: random.Random) -> None:
        self._rand = rand
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.conversations: list[Conversation] = []
        self.next_number = 1
        #: Guards the numbers, the pool and the list above.
        self._lock = threading.Lock()
        self._open_ids: set[int] = set()
        self._stopping = threading.Event()
        self.talking = threading.Event()
        self.talking.set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="chaos-server", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._converse, sock)

    def _converse(self, sock: socket.socket) -> None:
        conversation = Conversation(sock)
        with self._lock:
            self.conversations.append(conversation)
        with contextlib.suppress(OSError, ValueError), sock:
            sock.settimeout(5.0)
            conversation.offset = shake_hands(sock)
            for opcode, payload in frames_from(sock):
                if opcode == 0x8:
                    return
                if opcode == 0x9:
                    self._write(conversation, bytes([0x8A, len(payload)]) + payload)
                elif opcode == 0x1:
                    self._take(conversation, json.loads(payload))

    def _take(self, conversation: Conversation, message: dict[str, Any]) -> None:
        if message["type"] == "configure":
            conversation.configured = message
            self._write(conversation, text_frame(hello(len(self.conversations))))
            self._start(self._talk, conversation)
        elif message["type"] == "ping":
            self._write(conversation, text_frame({"type": "pong", "server_time_ms": 1}))

    def _write(self, conversation: Conversation, data: bytes, number: int | None = None) -> None:
        with conversation.lock:
            conversation.sock.sendall(data)
            conversation.offset += len(data)
            if number is not None:
                conversation.numbers.append(number)
                conversation.ends.append(conversation.offset)

    def _talk(self, conversation: Conversation) -> None:
        """Announce what is open, then high-lane messages of every kind with low-lane ones between them."""
        pause = threading.Event()
        with contextlib.suppress(OSError):
            with self._lock:
                known = sorted(self._open_ids)
            for position_id in known:
                self.say(conversation, lambda n, p=position_id: opened(p, account=f"account-{p}", slot=n))
            while not self._stopping.is_set():
                self.talking.wait()
                self.say(conversation, self._next_message())
                for _ in range(3):
                    self._write(conversation, text_frame(pnl(self._rand.randrange(1, POOL + 1))))
                pause.wait(PACE_S)

    def say(self, conversation: Conversation, make: Callable[[int], dict[str, Any]]) -> int:
        """Write one numbered message."""
        with self._lock:
            number = self.next_number
            self.next_number += 1
        self._write(conversation, text_frame(make(number)), number)
        return number

    def _next_message(self) -> Callable[[int], dict[str, Any]]:
        """Every kind carries its number in some field that the client keeps."""
        with self._lock:
            kind = self._rand.choice(("opened", "closed", "exit", "error", "balance"))
            position_id = self._rand.randrange(1, POOL + 1)
            if kind == "opened":
                self._open_ids.add(position_id)
            elif kind == "closed":
                self._open_ids.discard(position_id)
        account = f"account-{position_id}"
        if kind == "opened":
            return lambda n: opened(position_id, account=account, slot=n)
        if kind == "closed":
            return lambda n: {**closed(position_id, account=account), "slot": n}
        if kind == "exit":
            return lambda n: exit_signal(position_id, account=account, triggered_at_ms=n, unsigned_tx_b64=f"{n:012d}")
        if kind == "error":
            return lambda n: {"type": "error", "code": "chaos", "message": str(n)}
        return lambda n: {
            "type": "balance_update",
            "wallet_pubkey": WALLET,
            "mint": "mint",
            "token_account": account,
            "tokens": n,
            "slot": n,
        }

    def stop(self) -> None:
        self._stopping.set()
        self.talking.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for conversation in self.conversations:
            with contextlib.suppress(OSError):
                conversation.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)


def shake_hands(sock: socket.socket) -> int:
    """Answer the upgrade; how many bytes the answer had. Raises OSError when the client leaves before."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = sock.recv(4096)
        if not piece:
            raise ConnectionError("gone during the upgrade")
        request += piece
    line = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    key = line.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(hashlib.sha1(key).digest())
        + b"\r\n\r\n"
    )
    sock.sendall(answer)
    return len(answer)


def frames_from(sock: socket.socket) -> Any:
    """(opcode, payload) of a client's masked frames, until it leaves; silence of more than 5 s counts as leaving."""
    # Closed by hand: a socket's descriptor lives as long as a file made of it.
    with sock.makefile("rb") as reader:
        while len(head := reader.read(2)) == 2:
            size = head[1] & 0x7F
            if size == 126:
                size = struct.unpack(">H", reader.read(2))[0]
            mask = reader.read(4)
            data = reader.read(size)
            yield head[0] & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def number_of(event: StreamEvent) -> int | None:
    """The number of a numbered message; None for everything else."""
    message = event.message
    if event.type in ("position_opened", "position_closed", "balance_update"):
        return int(message.slot)
    if event.type == "exit_signal_with_tx":
        return int(message.unsigned_tx_b64)
    if event.type == "error" and message.code == "chaos":
        return int(message.message)
    return None


class Consumer:
    """Reads the session's queue on a thread of its own, sometimes slowly."""

    def __init__(self, session: StreamSession) -> None:
        self.session = session
        #: How often each number came, by number.
        self.delivered = bytearray(1)
        self.kinds: Counter[str] = Counter()
        self.seen = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="chaos-consumer", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for event in self.session:
            number = number_of(event)
            with self.seen:
                self.kinds[event.type] += 1
                if number is not None:
                    self.delivered.extend(bytes(max(0, number + 1 - len(self.delivered))))
                    self.delivered[number] += 1
                    self.seen.notify_all()

    def wait_for(self, number: int) -> bool:
        with self.seen:
            return bool(self.seen.wait_for(lambda: self.times(number), PATIENCE_S))

    def times(self, number: int) -> int:
        """How often a number came."""
        return self.delivered[number] if number < len(self.delivered) else 0


class Weather:
    """Seeded faults, one after the other."""

    def __init__(self, proxy: FaultProxy, rand: random.Random) -> None:
        self._proxy = proxy
        self._rand = rand
        self.done: Counter[str] = Counter()
        self._faults: dict[str, Callable[[], object]] = {
            "reset": proxy.reset,
            "fin": proxy.fin,
            "slow_close": lambda: proxy.slow_close(rand.uniform(0.0, 0.3)),
            "half_open": proxy.half_open,
            "black_hole": proxy.black_hole,
            "black_hole_up": lambda: proxy.black_hole("up"),
            "black_hole_down": lambda: proxy.black_hole("down"),
            "pause": proxy.pause,
            "pause_down": lambda: proxy.pause("down"),
            "cut_reset": lambda: proxy.cut_after(rand.randrange(0, 5000), "reset"),
            "cut_fin": lambda: proxy.cut_after(rand.randrange(0, 5000), "fin"),
            "latency": lambda: proxy.shape(latency_s=rand.uniform(0.0, 0.15), jitter_s=0.05),
            "slices": lambda: proxy.shape("down", slice_bytes=rand.randrange(1, 9)),
            "narrow": lambda: proxy.shape("down", bytes_per_s=rand.uniform(20_000, 100_000)),
            "refuse": self._refuse,
            "drop_new": self._drop_new,
        }

    def _refuse(self) -> None:
        self._proxy.refuse()
        self._proxy.reset()

    def _drop_new(self) -> None:
        self._proxy.accept_and_drop()
        self._proxy.reset()

    def strike(self) -> None:
        """One fault, on top of what is or after clearing up, half the time each."""
        if self._rand.random() < 0.5:
            self.clear()
        name = self._rand.choice(sorted(self._faults))
        self.done[name] += 1
        self._faults[name]()

    def clear(self) -> None:
        self._proxy.resume()
        self._proxy.heal()


def run(seconds: float, seed: int, *, every_s: tuple[float, float] = (0.2, 5.0)) -> dict[str, Any]:
    """Chaos for so many seconds; the report. ``report["ok"]`` is the verdict."""
    rand = random.Random(seed)
    fds_before, threads_before = open_fds(), library_threads()
    server = NumberingServer(random.Random(rand.random()))
    proxy = FaultProxy(server.port, seed=rand.randrange(2**31))
    client = StreamClient("chaos-key", options=StreamOptions(**OPTIONS)).with_endpoint(proxy.url)
    #: (when update_strategy returned, target); the newest is last.
    wishes: list[tuple[float, float]] = [(time.monotonic(), 1.0)]
    configure = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=1.0, stop_loss_pct=0.0))
    session = StreamSession.connect(client, configure)
    consumer = Consumer(session)
    weather = Weather(proxy, rand)
    threads_live = library_threads()
    rss: list[int] = []
    started = time.monotonic()
    nap = threading.Event()
    while (left_s := started + seconds - time.monotonic()) > 0:
        nap.wait(min(left_s, rand.uniform(*every_s)))
        weather.strike()
        target = wishes[-1][1] + 1
        session.update_strategy(StrategyConfig(target_profit_pct=target, stop_loss_pct=0.0))
        wishes.append((time.monotonic(), target))
        if time.monotonic() - started > min(10.0, seconds / 3):
            rss.append(rss_bytes())
    return _settle(
        seconds, seed, server, proxy, session, consumer, weather, wishes, rss, fds_before, threads_before, threads_live
    )


def _settle(
    seconds: float,
    seed: int,
    server: NumberingServer,
    proxy: FaultProxy,
    session: StreamSession,
    consumer: Consumer,
    weather: Weather,
    wishes: list[tuple[float, float]],
    rss: list[int],
    fds_before: int,
    threads_before: list[str],
    threads_live: list[str],
) -> dict[str, Any]:
    """Clear the sky, send a fence, wait for it, balance the books."""
    weather.clear()
    fenced = fence(server, session, consumer)
    threads_after = library_threads()
    due, reached = due_messages(server, proxy)
    lost = sorted(number for number in due if not consumer.times(number))
    doubled = sorted(number for number, count in enumerate(consumer.delivered) if count > 1)
    stale = outdated_strategies(server, wishes)
    stats = session.stats()
    session.close()
    consumer.thread.join(PATIENCE_S)
    proxy.stop()
    server.stop()
    with contextlib.suppress(AssertionError):
        until(lambda: open_fds() <= fds_before and library_threads() == threads_before)
    growth = (max(rss[-3:]) - min(rss[:3])) if len(rss) >= 6 else 0
    report = {
        "seed": seed,
        "seconds": seconds,
        "faults": dict(sorted(weather.done.items())),
        "connections": proxy.accepted,
        "sessions": stats.sessions,
        "high_lane_written": server.next_number - 1,
        "high_lane_reached_the_socket": len(due),
        "high_lane_delivered": sum(map(bool, consumer.delivered)),
        "lost": lost[:20],
        "doubled": doubled[:20],
        "exit_repeats_counted": stats.duplicates,
        "outdated_strategies": stale,
        "decode_errors": stats.decode_errors,
        "bytes_reached": reached,
        "events": dict(sorted(consumer.kinds.items())),
        "fds": [fds_before, open_fds()],
        "fds_at_the_end": open_fd_names(),
        "threads": [threads_live, threads_after, library_threads()],
        "rss_growth_bytes": growth,
        "rss_mib": [round(sample / 2**20, 1) for sample in rss[:: max(1, len(rss) // 12)]],
        "fence_came": fenced,
    }
    report["ok"] = (
        fenced
        and not lost
        and not doubled
        and not stale
        and not stats.decode_errors
        and open_fds() <= fds_before
        and threads_after == threads_live
        and library_threads() == threads_before
        and growth <= MAX_RSS_GROWTH
    )
    return report


def fence(server: NumberingServer, session: StreamSession, consumer: Consumer) -> bool:
    """True when a message of fair weather arrives: everything before it on that connection has arrived then."""
    ends_at = time.monotonic() + 3 * PATIENCE_S
    nap = threading.Event()
    while time.monotonic() < ends_at:
        with contextlib.suppress(AssertionError, OSError, IndexError):
            until(lambda: session.status is ConnectionState.LIVE)
            server.talking.clear()
            nap.wait(4 * PACE_S)  # each talker says what it has begun
            newest = [c for c in server.conversations if c.configured is not None][-1]
            number = server.say(newest, lambda n: {"type": "error", "code": "chaos", "message": str(n)})
            if consumer.wait_for(number):
                return True
        server.talking.set()
    return False


def due_messages(server: NumberingServer, proxy: FaultProxy) -> tuple[set[int], int]:
    """Numbers of the messages that reached the client's socket, and how many bytes did."""
    reached = {c.server_sees_port: c.reached_client for c in proxy.connections if c.server_sees_port}
    due: set[int] = set()
    for conversation in server.conversations:
        # Ports come back after a while: the conversation belongs to the latest connection that began before it.
        candidates = [
            c
            for c in proxy.connections
            if c.server_sees_port == conversation.port and c.opened_at <= conversation.accepted_at + 0.5
        ]
        if candidates:
            limit = candidates[-1].reached_client
            due.update(n for n, end in zip(conversation.numbers, conversation.ends, strict=True) if end <= limit)
    return due, sum(reached.values())


def outdated_strategies(server: NumberingServer, wishes: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """Each ``configure`` whose strategy was older than the last wish before its connection was accepted."""
    wrong = []
    for conversation in server.conversations:
        if conversation.configured is None:
            continue
        said = conversation.configured["strategy"]["target_profit_pct"]
        owed = [target for at, target in wishes if at <= conversation.accepted_at][-1]
        if said < owed:
            wrong.append({"owed": owed, "said": said})
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every", type=float, nargs=2, default=(0.2, 5.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--report", type=Path, default=None)
    options = parser.parse_args(arguments)
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    print(f"chaos: seed {seed}, {options.seconds:g} s", flush=True)
    report = run(options.seconds, seed, every_s=tuple(options.every))
    text = json.dumps(report, indent=2)
    print(text)
    if options.report is not None:
        options.report.write_text(text + "\n")
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
