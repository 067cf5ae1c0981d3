"""Proxies: which one a connection uses, and the tunnel through it."""

from __future__ import annotations

import base64
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from lasersell_sync._version import __version__
from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.network.endpoints import is_loopback, require_host
from lasersell_sync.runtime.optional_deps import require_extra

__all__ = [
    "Channel",
    "Proxy",
    "TunnelRefused",
    "authority",
    "open_tunnel",
    "parse_proxy",
    "preferred_address",
    "proxy_from_environment",
    "to_proxy",
]


# ── Which proxy a connection goes through ───────────────────────────────────────────────────────────────────────────
# A proxy's URL holds a password. It is taken apart here, once; from then on the password stands in one attribute that
# no repr shows, and every error names the proxy as ``host:port``.


_DEFAULT_PORTS: Final = {"http": 80, "socks5": 1080, "socks5h": 1080}
#: RFC 1929 counts each in one byte.
_MAX_SOCKS_CREDENTIAL = 255
#: A WebSocket is, to whoever names proxies by scheme, what it is upgraded from.
_ENVIRONMENT_SCHEMES: Final = {"ws": "http", "wss": "https"}


@attrs.frozen
class Proxy:
    """A proxy's URL in parts.

    Attributes:
        scheme: ``http`` (CONNECT), ``socks5`` (we look the target's name up) or ``socks5h`` (the proxy does).
        host: name or address.
        port: its port.
        username: None for a proxy that asks for none.
        password: the same.

    Threads: immutable, any.
    """

    scheme: str
    host: str
    port: int
    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """``host:port``: all that errors and logs may hold."""
        return authority(self.host, self.port)

    @property
    def url(self) -> str:
        """The URL without user and password."""
        return f"{self.scheme}://{self.shown}"

    @property
    def is_socks(self) -> bool:
        """SOCKS5 rather than HTTP."""
        return self.scheme.startswith("socks")

    @property
    def resolves_names(self) -> bool:
        """The proxy gets the target's name; with ``socks5`` it gets an address."""
        return self.scheme != "socks5"

    @property
    def authorization(self) -> str | None:
        """The value of ``Proxy-Authorization``; None when there is nobody to name."""
        if self.username is None:
            return None
        credentials = f"{self.username}:{self.password or ''}"
        return f"Basic {base64.b64encode(credentials.encode()).decode('ascii')}"


def authority(host: str, port: int) -> str:
    """``host:port``, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def to_proxy(value: str | Proxy | None) -> Proxy | None:
    """An option's value: the URL that the user gave becomes a Proxy, whose repr has no password.

    Raises:
        ConfigurationError, ImportError: as ``parse_proxy``.
    """
    return value if value is None or isinstance(value, Proxy) else parse_proxy("proxy", value)


def proxy_from_environment(url: str) -> Proxy | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and ALL_PROXY name for this URL, unless NO_PROXY exempts it.

    Args:
        url: the target's, a checked one.

    Raises:
        ConfigurationError, ImportError: as ``parse_proxy``.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    # No proxy can reach this machine's own loopback; those who want one there name it.
    if is_loopback(host):
        return None
    # The rules of NO_PROXY and of upper and lower case are the standard library's; it is slow to import.
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    found = getproxies_environment()
    if proxy_bypass_environment(parts.netloc, found):
        return None
    own = _ENVIRONMENT_SCHEMES.get(parts.scheme, parts.scheme)
    name = own if found.get(own) else "all"
    proxy = found.get(name)
    if not proxy:
        return None
    return parse_proxy(f"{name.upper()}_PROXY", proxy if "://" in proxy else f"http://{proxy}")


def parse_proxy(field: str, url: object) -> Proxy:
    """The URL in parts.

    Args:
        field: the option's or variable's name for the error.
        url: ``http://``, ``socks5://`` or ``socks5h://``, with ``user:password@`` if the proxy asks for them; special
            characters in these percent-encoded.

    Raises:
        ConfigurationError: a URL that cannot work. It is never repeated.
        ImportError: SOCKS without the extra ``proxy``.
    """
    parts = _split(field, url)
    if parts.scheme not in _DEFAULT_PORTS:
        more = ": TLS to the proxy itself is not spoken" if parts.scheme == "https" else ""
        raise ConfigurationError(field, f"it must start with http://, socks5:// or socks5h://{more}")
    if not parts.hostname or parts.port == 0:
        raise ConfigurationError(field, "no host, or port 0: expected something like http://user:password@host:port")
    require_host(field, parts.hostname)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigurationError(
            field, "something stands after the port: remove it; in user and password, / ? # and @ are %2F %3F %23 %40"
        )
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    proxy = Proxy(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme], username, password)
    _check_credentials(field, proxy)
    if proxy.is_socks:
        require_extra("python_socks", extra="proxy", purpose="a SOCKS proxy")
    return proxy


def _split(field: str, url: object) -> SplitResult:
    if not isinstance(url, str):
        raise ConfigurationError(field, f"expected a URL, got {type(url).__name__}")
    text = url.strip()
    if not text or any(character <= " " or character > "~" for character in text):
        raise ConfigurationError(field, "empty, or it holds a space, control or non-ASCII character: percent-encode it")
    parts: SplitResult | None = None
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for what is not a number
    except ValueError:
        parts = None
    # Raised out here, because the standard library's error quotes the URL and would hang on ours as its context.
    if parts is None:
        raise ConfigurationError(field, "not a URL: check the host, its brackets and the port; an @ in it is %40")
    return parts


def _check_credentials(field: str, proxy: Proxy) -> None:
    if proxy.username is None:
        return
    if not proxy.is_socks:
        if ":" in proxy.username:
            raise ConfigurationError(field, "the user name holds a colon, which Basic authentication cannot express")
        return
    # The dialogue's library fails on these with an error that quotes them.
    for part in (proxy.username, proxy.password or ""):
        if not part.isascii() or not 1 <= len(part) <= _MAX_SOCKS_CREDENTIAL:
            raise ConfigurationError(field, "SOCKS needs a user and a password of 1 to 255 ASCII characters each")


# ── What is said to a proxy until it passes bytes on to the target; the only importer of python_socks ───────────────
# No socket is opened here and no time is kept. The caller hands in a channel whose calls end in time and which it can
# abort: the stream's is non-blocking and watches ``close()``, that of REST and RPC blocks within the attempt's budget.


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
