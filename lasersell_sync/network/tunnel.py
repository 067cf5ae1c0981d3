"""What is said to a proxy until it passes bytes on to the target; the only importer of python_socks.

No socket is opened here and no time is kept. The caller hands in a channel whose calls end in time and which it can
abort: the stream's is non-blocking and watches ``close()``, that of REST and RPC blocks within the attempt's budget.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from lasersell_sync._version import __version__
from lasersell_sync.network.proxy import Proxy, authority

__all__ = ["Channel", "TunnelRefused", "open_tunnel", "preferred_address"]

#: An answer to CONNECT is a few hundred bytes.
MAX_HEAD_BYTES: Final = 16 * 1024
_HTTP = b"HTTP/1."


class Channel(Protocol):
    """A connection to the proxy, whose every call ends in time: by an OSError, at the latest."""

    def sendall(self, data: bytes) -> None:
        """Send all of it."""

    def recv(self, size: int) -> bytes:
        """At least one byte, at most ``size``; none at the end of the connection."""

    def close(self) -> None:
        """Give the socket back; again is harmless."""


class TunnelRefused(Exception):
    """The proxy answered, but opened no way to the target. Internal; its text is ours and ready to be shown."""


def open_tunnel(proxy: Proxy, channel: Channel, host: str, port: int) -> None:
    """Make the proxy connect ``channel`` to the target; not one byte more is read than the proxy's answer.

    Args:
        proxy: who is at the other end, and as whom.
        channel: connected to it; the caller closes it after an error.
        host: the target's name or address.
        port: its port.

    Raises:
        TunnelRefused: the proxy said no.
        Exception: whatever the channel raises.
    """
    if proxy.is_socks:
        _open_socks(proxy, channel, host, port)
    else:
        _open_connect(proxy, channel, host, port)


def preferred_address(addresses: list[tuple[Any, ...]]) -> str:
    """The address to give to a ``socks5`` proxy: IPv4 if there is one, as few proxies know IPv6."""
    return str(min(addresses, key=lambda address: len(address[4]))[4][0])


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _open_connect(proxy: Proxy, channel: Channel, host: str, port: int) -> None:
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: lasersell-sync/{__version__}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    channel.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    status = _status_of(_read_head(channel))
    while 100 <= status < 200 and status != 101:  # interim: the caller's time limit bounds them
        status = _status_of(_read_head(channel))
    if not 200 <= status < 300:
        raise TunnelRefused(_connect_problem(status, target, named=proxy.username is not None))


def _read_head(channel: Channel) -> bytes:
    """The answer up to its empty line. Byte by byte: what follows belongs to the target's conversation."""
    head = bytearray()
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        byte = channel.recv(1)
        if not byte:
            raise TunnelRefused("it ended the connection without an answer")
        head += byte
        # At once, so that a server of another kind is named and not waited for.
        if not head.startswith(_HTTP[: len(head)]):
            raise TunnelRefused("its answer is not HTTP: is the port, or the scheme, another one?")
        if len(head) > MAX_HEAD_BYTES:
            raise TunnelRefused(f"its answer is longer than {MAX_HEAD_BYTES} bytes")
    return bytes(head)


def _status_of(head: bytes) -> int:
    fields = head.split(b"\n", 1)[0].split()
    if len(fields) < 2 or len(fields[1]) != 3 or not fields[1].isdigit():
        raise TunnelRefused("its answer has no HTTP status")
    return int(fields[1])


def _connect_problem(status: int, target: str, *, named: bool) -> str:
    # The proxy's own words stay out: it may quote the request, and that holds the password.
    if status == 407:
        told = "it refused the user or password" if named else "it asks for a user and a password"
        return f"{told} (HTTP 407; Basic is the only kind that is spoken)"
    if status in (401, 403, 405):
        return f"it does not allow connections to {target} (HTTP {status})"
    if status >= 500:
        return f"it could not reach {target} (HTTP {status})"
    return f"it opened no connection to {target} (HTTP {status})"


# ── SOCKS ────────────────────────────────────────────────────────────────────────────────────────────────────────

#: RFC 1928, section 6.
_SOCKS_PROBLEMS = {
    1: "it could not reach {target}",
    2: "it does not allow connections to {target}",
    3: "it finds the network of {target} unreachable",
    4: "it finds {target} unreachable",
    5: "{target} refused its connection",
    6: "{target} is too many hops away from it",
    7: "it knows no CONNECT",
    8: "it does not know that kind of address",
}


def _open_socks(proxy: Proxy, channel: Channel, host: str, port: int) -> None:
    from python_socks import ProxyError, ProxyType
    from python_socks.sync import Proxy as SocksClient

    dialogue = _SocksDialogue(channel)
    forward: Any = _AlreadyConnected(dialogue)
    client = SocksClient(
        ProxyType.SOCKS5, proxy.host, proxy.port, proxy.username, proxy.password, rdns=True, forward=forward
    )
    try:
        client.connect(host, port)
    except ProxyError as error:
        problem = dialogue.problem(error.error_code, authority(host, port), named=proxy.username is not None)
    except (ValueError, LookupError, AssertionError):  # what its parser makes of garbage
        problem = "its answer is not SOCKS5"
    else:
        return
    raise TunnelRefused(problem)


class _AlreadyConnected:
    """The place where python_socks expects the proxy before this one: it asks for a socket there, and gets ours."""

    def __init__(self, dialogue: _SocksDialogue) -> None:
        self._dialogue = dialogue

    def connect(self, **_: object) -> _SocksDialogue:
        return self._dialogue


class _SocksDialogue:
    """A channel that remembers how far the dialogue came, which python_socks tells only as a text."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sent = b""
        self._received = b""

    def sendall(self, data: bytes) -> None:
        self._sent, self._received = bytes(data), b""
        self._channel.sendall(data)

    def recv(self, size: int) -> bytes:
        data = self._channel.recv(size)
        self._received += data
        return data

    def close(self) -> None:
        self._channel.close()

    def problem(self, code: int | None, target: str, *, named: bool) -> str:
        if not self._received:
            return "it ended the connection without an answer"
        if self._sent[0] == 1:  # RFC 1929: the version of the user and password message
            return "it refused the user or password"
        if self._received == b"\x05\xff":  # RFC 1928: none of the offered ways
            return "it wants another kind of login" if named else "it asks for a user and a password"
        if code in _SOCKS_PROBLEMS:
            return f"{_SOCKS_PROBLEMS[code].format(target=target)} (SOCKS reply {code})"
        return "its answer is not SOCKS5, or incomplete: is the port, or the scheme, another one?"
