"""Which proxy a connection goes through: the one that was named, or the environment's for those who ask for it.

A proxy's URL holds a password. It is taken apart here, once; from then on the password stands in one attribute that no
repr shows, and every error names the proxy as ``host:port``.
"""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.extras import require_extra
from lasersell_sync.network.endpoints import is_loopback, require_host

__all__ = ["Proxy", "authority", "parse_proxy", "proxy_from_environment", "to_proxy"]

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
