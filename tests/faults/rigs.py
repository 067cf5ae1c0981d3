"""What a fault test stands on: a server of someone's, the fault proxy before it, and one face for both servers."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

from lasersell_sync import StrategyConfig, StreamClient, StreamConfigure, StreamEvent, StreamOptions, StreamSession
from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import Trader
from tests.support.fault_proxy import FaultProxy
from tests.support.stream_server import WALLET, Peer, ScriptedServer, hello
from tests.support.waiting import PATIENCE_S, until

STRATEGY = StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0)
KEY = "canary-key-0123456789"


class Rig:
    """A stream server behind a fault proxy. ``send`` and ``close`` speak to the session that is open now."""

    key = KEY
    wallet = WALLET
    port: int

    def __init__(self) -> None:
        self.proxy = FaultProxy(self.port, seed=1)

    @property
    @abstractmethod
    def sessions(self) -> int:
        """Sessions configured so far."""

    @abstractmethod
    def send(self, frame: dict[str, Any] | str | bytes) -> None:
        """One message as text; bytes as they are, framing included."""

    @abstractmethod
    def close(self, code: int) -> None:
        """Close the WebSocket with a code."""

    @abstractmethod
    def configures(self) -> list[dict[str, Any]]:
        """Every ``configure`` received."""

    @abstractmethod
    def commands(self) -> list[dict[str, Any]]:
        """Every command received but ``configure`` and ``ping``, in order."""

    @abstractmethod
    def stop_server(self) -> None:
        """Take the server down."""

    def client(self, **options: Any) -> StreamClient:
        return StreamClient(self.key, options=StreamOptions(**options)).with_endpoint(self.proxy.url)

    def configure(self, deadline_timeout_sec: float = 0) -> StreamConfigure:
        return StreamConfigure([self.wallet], STRATEGY, deadline_timeout_sec)

    def session(self, *, dispatch: Any = "thread", **options: Any) -> StreamSession:
        """A session through the proxy, past its ``hello_ok``."""
        session = StreamSession.connect(self.client(**options), self.configure(), dispatch=dispatch)
        session.wait_for("hello_ok", PATIENCE_S)
        return session

    def stop(self) -> None:
        self.proxy.stop()
        self.stop_server()


class WebsocketsRig(Rig):
    """The ``websockets`` package, greeting and recording."""

    def __init__(self) -> None:
        #: Every peer that was greeted.
        self.peers: list[Peer] = []
        self.server = ScriptedServer(self._serve)
        self.port = self.server.port
        super().__init__()

    def _serve(self, peer: Peer) -> None:
        peer.recv()
        self.greet(peer)
        with contextlib.suppress(Exception):
            for text in peer.connection:
                message = json.loads(text)
                peer.received.append(message)
                if message["type"] == "ping":
                    peer.send({"type": "pong", "server_time_ms": 1_700_000_000_000})

    def greet(self, peer: Peer) -> None:
        """Answer a peer's ``configure``."""
        # Before the greeting: whoever has seen the session live may send to its peer.
        self.peers.append(peer)
        peer.send(hello(session_id=peer.number))

    @property
    def sessions(self) -> int:
        return len(self.peers)

    def send(self, frame: dict[str, Any] | str | bytes) -> None:
        peer = self.peers[-1]
        if isinstance(frame, bytes):
            peer.connection.socket.sendall(frame)
        else:
            peer.send(frame)

    def close(self, code: int) -> None:
        self.peers[-1].connection.close(code)

    def configures(self) -> list[dict[str, Any]]:
        return [peer.received[0] for peer in self.peers]

    def commands(self) -> list[dict[str, Any]]:
        return [m for peer in list(self.peers) for m in peer.received if m["type"] not in ("configure", "ping")]

    def stop_server(self) -> None:
        self.server.stop()


class SandboxRig(Rig):
    """The sandbox. A new session replaces the old one, which after a black hole it cannot know to be dead."""

    def __init__(self) -> None:
        ports = {"stream_port": 0, "api_port": 0, "rpc_port": 0}
        self.sandbox = Sandbox(session_policy="replace", host="127.0.0.1", **ports).start()
        self.key = self.sandbox.api_key
        trader = Trader(self.sandbox)
        trader.register()
        trader.close()
        self.wallet = trader.pubkey
        self.port = int(self.sandbox.stream_url.split(":")[2].split("/")[0])
        super().__init__()

    @property
    def sessions(self) -> int:
        return len(self.sandbox.sessions(include_closed=True))

    def send(self, frame: dict[str, Any] | str | bytes) -> None:
        text = json.dumps(frame, separators=(",", ":")) if isinstance(frame, dict) else frame
        until(lambda: self.sandbox.send_raw(text))

    def close(self, code: int) -> None:
        self.sandbox.drop_connections(code)

    def configures(self) -> list[dict[str, Any]]:
        received = self.sandbox.received
        return [messages[0] for _, messages in sorted(received.items()) if messages]  # type: ignore[misc]

    def commands(self) -> list[dict[str, Any]]:
        everything = [m for _, messages in sorted(self.sandbox.received.items()) for m in messages]
        return [m for m in everything if m["type"] not in ("configure", "ping")]

    def stop_server(self) -> None:
        self.sandbox.stop()


RIGS: dict[str, type[Rig]] = {"websockets": WebsocketsRig, "sandbox": SandboxRig}


# ── frames that no library sends ─────────────────────────────────────────────────────────────────────────────────


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A server's frame, unmasked, of any length."""
    first = opcode | (0x80 if final else 0)
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 2**16:
        return bytes([first, 126]) + struct.pack(">H", size) + payload
    return bytes([first, 127]) + struct.pack(">Q", size) + payload


# ── watching a session ───────────────────────────────────────────────────────────────────────────────────────────


def at_s(event: StreamEvent) -> float:
    """When an event was made, by the monotonic clock."""
    return event.received_ns / 1e9


def since(started: float) -> float:
    """Seconds since a moment of the monotonic clock."""
    return time.monotonic() - started


def drain(session: StreamSession) -> list[StreamEvent]:
    """What waits in the session's queue."""
    events = []
    while session.events.qsize():
        events.extend(session.events.get_batch(10_000))
    return events


# ── what a process holds ─────────────────────────────────────────────────────────────────────────────────────────


def rss_bytes() -> int:
    """Resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_fds() -> int:
    """Open descriptors now (the listing's own one included, always)."""
    return len(list(Path("/proc/self/fd").iterdir()))


def open_fd_names() -> list[str]:
    """What the open descriptors are, for a report about too many."""
    names = []
    for link in sorted(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            names.append(str(link.readlink()))
    return names


def library_threads() -> list[str]:
    """Names of the client's threads, sorted; the sandbox's are not the client's."""
    names = [t.name for t in threading.enumerate()]
    return sorted(n for n in names if n.startswith("lasersell") and not n.startswith("lasersell-sandbox"))
