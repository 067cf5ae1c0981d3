"""The world of the chaos program, in a process of its own: what it remembers must not count as the client's memory.

A server that numbers every high-lane message and notes at which byte of its connection it ends, behind the fault proxy.
It is told what to do in lines of JSON on its standard input, ``["method", argument…]``, and answers each with one on its
standard output. It ends with its input.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.fault_proxy import FaultProxy
from tests.support.stream_server import WALLET, closed, exit_signal, hello, opened, pnl, text_frame
from tests.support.waiting import PATIENCE_S

#: Positions that the server opens and closes again and again.
POOL = 20
#: Messages of one flood that cannot be read, and of one that means nothing to anybody.
FLOOD = 3_000
BAD: tuple[Callable[[int], bytes], ...] = (
    lambda n: text_frame({**pnl(n % POOL + 1), "profit_units": "much"}),
    lambda n: text_frame("not json"),
    lambda n: text_frame({"type": "position_opened", "position_id": n}),
    lambda n: b"\x82\x04\x00\xff\x00\xff",
)
MEANINGLESS: tuple[Callable[[int], bytes], ...] = (
    lambda n: text_frame(pnl(10**9 + n)),
    lambda n: text_frame({"type": f"new_{n % 5}", "n": n}),
)


class Conversation:
    """One connection at the server: what it wrote, and where each message ended."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.port: int = sock.getpeername()[1]
        self.accepted_at = time.monotonic()
        #: The strategy's target in its ``configure``.
        self.target: float | None = None
        #: Each message's number, and the offset of the byte after it; arrays, so that half an hour of books stays small.
        self.numbers = array("Q")
        self.ends = array("Q")
        self.offset = 0
        #: Guards the writing side: the talker and the answers to pings.
        self.lock = threading.Lock()


class NumberingServer:
    """Speaks just enough WebSocket, by hand, to know every offset."""

    def __init__(self, rand: random.Random, pace_s: float) -> None:
        self._rand = rand
        #: Pause between two messages of one connection; the weather makes bursts of them.
        self.pace_s = pace_s
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
        #: Interim answers before the next 101s.
        self.interim_answers = 0
        #: Bad messages that were written, whole or not.
        self.bad_written = 0
        #: Added to a position's number to get its id; another one means that ids are used again for other accounts.
        self._id_shift = 0
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
        with contextlib.suppress(OSError, ValueError), sock:
            conversation = Conversation(sock)
            with self._lock:
                self.conversations.append(conversation)
            sock.settimeout(5.0)
            conversation.offset = shake_hands(sock, self.interim_answers)
            for opcode, payload in frames_from(sock):
                if opcode == 0x8:
                    return
                if opcode == 0x9:
                    self._write(conversation, bytes([0x8A, len(payload)]) + payload)
                elif opcode == 0x1:
                    self._take(conversation, json.loads(payload))

    def _take(self, conversation: Conversation, message: dict[str, Any]) -> None:
        if message["type"] == "configure":
            conversation.target = message["strategy"]["target_profit_pct"]
            self._write(conversation, text_frame(hello(len(self.conversations))))
            self._start(self._talk, conversation)
        elif message["type"] == "ping":
            self._write(conversation, text_frame({"type": "pong", "server_time_ms": 1}))

    def _write(self, conversation: Conversation, data: bytes, number: int | None = None) -> None:
        with conversation.lock:
            try:
                conversation.sock.sendall(data)
            except OSError:
                # After half a frame nothing may follow.
                with contextlib.suppress(OSError):
                    conversation.sock.shutdown(socket.SHUT_RDWR)
                raise
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
                self.say(conversation, lambda n, p=position_id: opened(self._id(p), account=f"account-{p}", slot=n))
            while not self._stopping.is_set():
                self.talking.wait()
                self.say(conversation, self._next_message())
                for _ in range(3):
                    self._write(conversation, text_frame(pnl(self._rand.randrange(1, POOL + 1))))
                pause.wait(self.pace_s)

    def say(self, conversation: Conversation, make: Callable[[int], dict[str, Any]]) -> int:
        """Write one numbered message."""
        with self._lock:
            number = self.next_number
            self.next_number += 1
        self._write(conversation, text_frame(make(number)), number)
        return number

    def _id(self, position: int) -> int:
        return (position + self._id_shift) % POOL + 1

    def reuse_ids(self) -> None:
        """From now on every id means another account, on the links that are open too."""
        self._id_shift = self._rand.randrange(POOL)

    def flood(self, kinds: tuple[Callable[[int], bytes], ...]) -> None:
        """Write a flood on the newest connection."""
        make = self._rand.choice(kinds)
        configured = [c for c in self.conversations if c.target is not None]
        if configured:
            self._start(self._flood, configured[-1], make)

    def _flood(self, conversation: Conversation, make: Callable[[int], bytes]) -> None:
        with contextlib.suppress(OSError):
            for first in range(0, FLOOD, 100):
                self.bad_written += 100 if make in BAD else 0
                self._write(conversation, b"".join(make(first + n) for n in range(100)))

    def _next_message(self) -> Callable[[int], dict[str, Any]]:
        """Every kind carries its number in some field that the client keeps."""
        with self._lock:
            kind = self._rand.choice(("opened", "closed", "exit", "error", "balance"))
            position_id = self._rand.randrange(1, POOL + 1)
            if kind == "opened":
                self._open_ids.add(position_id)
            elif kind == "closed":
                self._open_ids.discard(position_id)
        account, wire_id = f"account-{position_id}", self._id(position_id)
        if kind == "opened":
            return lambda n: opened(wire_id, account=account, slot=n)
        if kind == "closed":
            return lambda n: {**closed(wire_id, account=account), "slot": n}
        if kind == "exit":
            return lambda n: exit_signal(wire_id, account=account, triggered_at_ms=n, unsigned_tx_b64=f"{n:012d}")
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


def shake_hands(sock: socket.socket, interim_answers: int = 0) -> int:
    """Answer the upgrade; how many bytes the answers had. Raises OSError when the client leaves before."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = sock.recv(4096)
        if not piece:
            raise ConnectionError("gone during the upgrade")
        request += piece
    line = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    key = line.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" * interim_answers
    answer += (
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


class Weather:
    """Seeded faults, one after the other."""

    def __init__(self, proxy: FaultProxy, server: NumberingServer, rand: random.Random) -> None:
        self._proxy = proxy
        self._server = server
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
            "flood_of_bad_frames": lambda: server.flood(BAD),
            "flood_without_meaning": lambda: server.flood(MEANINGLESS),
            "ids_used_again": server.reuse_ids,
            "interim_answers": self._interim_answers,
        }

    def _interim_answers(self) -> None:
        self._server.interim_answers = self._rand.randrange(1, 4)
        self._proxy.reset()

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
        self._server.interim_answers = 0
        self._proxy.resume()
        self._proxy.heal()


class World:
    """Server, proxy and weather; every public method can be called by line."""

    def __init__(self, seed: int, pace_s: float) -> None:
        rand = random.Random(seed)
        self._server = NumberingServer(random.Random(rand.random()), pace_s)
        self._proxy = FaultProxy(self._server.port, seed=rand.randrange(2**31))
        self._weather = Weather(self._proxy, self._server, rand)

    def url(self) -> str:
        """Where the client connects."""
        return self._proxy.url

    def strike(self) -> None:
        """One fault."""
        self._weather.strike()

    def fair(self) -> None:
        """No faults from now on."""
        self._weather.clear()

    def fence(self) -> int | None:
        """Stop talking and say one last message on the newest connection; its number. None when there is none."""
        self._server.talking.clear()
        threading.Event().wait(4 * self._server.pace_s)  # each talker says what it has begun
        configured = [c for c in self._server.conversations if c.target is not None]
        with contextlib.suppress(OSError, IndexError):
            return self._server.say(configured[-1], lambda n: {"type": "error", "code": "chaos", "message": str(n)})
        return None

    def talk_on(self) -> None:
        """Undo what ``fence`` did."""
        self._server.talking.set()

    def books(self) -> dict[str, Any]:
        """What was done and said; ``due`` has one byte per number: 1 for a message that reached the client's socket."""
        # In this order: a talker that was held up may still say something.
        numbers = list(self._due_numbers())
        due = bytearray(self._server.next_number)
        for number in numbers:
            due[number] = 1
        return {
            "faults": dict(sorted(self._weather.done.items())),
            "connections": self._proxy.accepted,
            "written": self._server.next_number - 1,
            "bad_written": self._server.bad_written,
            "bytes_reached": sum(c.reached_client for c in self._proxy.connections if c.server_sees_port),
            "configures": [(c.accepted_at, c.target) for c in self._server.conversations if c.target is not None],
            "due": base64.b64encode(zlib.compress(due)).decode(),
        }

    def _due_numbers(self) -> Iterator[int]:
        for conversation in self._server.conversations:
            # Ports come back after a while: the conversation belongs to the latest connection that began before it.
            candidates = [
                c
                for c in self._proxy.connections
                if c.server_sees_port == conversation.port and c.opened_at <= conversation.accepted_at + 0.5
            ]
            if candidates:
                limit = candidates[-1].reached_client
                ends = conversation.ends[:]
                yield from (n for n, end in zip(conversation.numbers[: len(ends)], ends, strict=True) if end <= limit)

    def stop(self) -> None:
        """Take everything down."""
        self._proxy.stop()
        self._server.stop()


def main() -> None:
    """Serve until the input ends."""
    seed, pace_s = sys.argv[1:]
    world = World(int(seed), float(pace_s))
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print(json.dumps(getattr(world, method)(*arguments)), flush=True)
    world.stop()


if __name__ == "__main__":
    main()
