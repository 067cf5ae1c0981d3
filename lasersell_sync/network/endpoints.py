"""Where the API key may travel: the checks that every URL and key passes before anything is opened."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from lasersell_sync.exceptions import ConfigurationError

__all__ = ["is_loopback", "require_api_key", "require_host", "require_url"]

_MAX_LABEL = 63
_MAX_NAME = 253


def require_api_key(api_key: object) -> str:
    """The key as it is, or an error that does not repeat it.

    Raises:
        ConfigurationError: empty, or a character that cannot stand in an HTTP header.
    """
    if not isinstance(api_key, str) or not api_key:
        raise ConfigurationError(
            "api_key", "empty or not a text: pass the key (from_env() reads LaserSell's from LASERSELL_API_KEY)"
        )
    if not all("!" <= character <= "~" for character in api_key):
        raise ConfigurationError("api_key", "holds a space, line end or non-ASCII character: was it pasted whole?")
    return api_key


def require_url(field: str, url: object, *, schemes: tuple[str, str], allow_insecure: bool) -> str:
    """The URL, if a key can be sent there without showing it to the road.

    Args:
        field: the argument's name for the error.
        url: what the user gave.
        schemes: the plain and the secure scheme, ``("ws", "wss")`` or ``("http", "https")``.
        allow_insecure: accept the plain scheme to another machine.

    Raises:
        ConfigurationError: not a URL of these schemes with a host; credentials or a fragment in it; or the plain
            scheme to a host that is not this machine. The URL is not repeated: its query may hold a key.
    """
    plain, secure = schemes
    if not isinstance(url, str):
        raise ConfigurationError(field, f"expected a URL, got {type(url).__name__}")
    text = url.strip()
    if any(character <= " " or character > "~" for character in text):
        raise ConfigurationError(field, "holds a space, control or non-ASCII character")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigurationError(field, "not a URL: check the host, its brackets and the port") from None
    if parts.scheme not in schemes:
        raise ConfigurationError(
            field, f"scheme {parts.scheme!r}: it must start with {secure}:// ({plain}:// for this machine only)"
        )
    if not parts.hostname or port == 0:
        raise ConfigurationError(field, f"no host, or port 0: expected something like {secure}://host/path")
    require_host(field, parts.hostname)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ConfigurationError(field, "remove the user, password or #fragment: the API key travels in a header")
    if parts.scheme == plain and not allow_insecure and not is_loopback(parts.hostname):
        raise ConfigurationError(
            field, f"plain {plain}:// would show the API key to the network: use {secure}://, or allow_insecure=True"
        )
    return text


def require_host(field: str, host: str) -> None:
    """Refuse a name that no resolver can look up; Python's own raises ``UnicodeError`` for it, long after.

    Raises:
        ConfigurationError: an empty label, one of more than 63 characters, or more than 253 in all (RFC 1035 2.3.4).
    """
    if ":" in host:  # an IPv6 address
        return
    name = host.removesuffix(".")
    if not all(0 < len(label) <= _MAX_LABEL for label in name.split(".")):
        raise ConfigurationError(
            field, f"the host has an empty part, or one of more than {_MAX_LABEL} characters, between its dots"
        )
    if len(name) > _MAX_NAME:
        raise ConfigurationError(field, f"the host has {len(name)} characters: {_MAX_NAME} are the most")


def is_loopback(host: str) -> bool:
    """True for this machine's own name and addresses."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
