"""A checked HTTP URL in parts, and which of them may be shown.

Nothing here costs an import, so that a wrong URL is told at once, before any network code is loaded.
"""

from __future__ import annotations

import functools
from urllib.parse import parse_qsl, urlsplit

import attrs

from lasersell_sync.network.endpoints import require_url
from lasersell_sync.network.proxy import Proxy, proxy_from_environment

_USUAL_PORT = {"http": 80, "https": 443}
# Shorter pieces of a URL ("v1", "mainnet") are words, not keys; removing them would garble every message.
_SECRET_CHARACTERS = 12


@attrs.frozen
class Endpoint:
    """Where requests go.

    RPC providers put keys into the path (``/v2/<key>``) and the query (``?api-key=<key>``): everything behind the host
    is kept out of every text.

    Threads: immutable, any.
    """

    scheme: str
    host: str
    port: int
    #: Path and query, as they stand in the request line.
    target: str = attrs.field(repr=False)

    @functools.cached_property
    def origin(self) -> str:
        """``https://host:port``: what connections are shared by."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @functools.cached_property
    def shown(self) -> str:
        """All that may be shown: scheme and host, and the port where it is not the scheme's own."""
        return self.origin.removesuffix(f":{_USUAL_PORT[self.scheme]}")

    @functools.cached_property
    def secrets(self) -> tuple[str, ...]:
        """The pieces of the target that may be a key, for ``_log.scrub``; longest first."""
        path, _, query = self.target.partition("?")
        values = (value for _, value in parse_qsl(query))
        pieces = {self.target, path, query, *path.split("/"), *values}
        return tuple(sorted((piece for piece in pieces if len(piece) >= _SECRET_CHARACTERS), key=len, reverse=True))


def parse_endpoint(field: str, url: object, *, allow_insecure: bool = False) -> Endpoint:
    """The URL in parts.

    Args:
        field: what the caller called it.
        url: ``https://…``; ``http://`` only to this machine.
        allow_insecure: ``http://`` to any host.

    Raises:
        ConfigurationError: not such a URL; names ``field`` and the problem.
    """
    parts = urlsplit(require_url(field, url, schemes=("http", "https"), allow_insecure=allow_insecure))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, parts.hostname or "", parts.port or _USUAL_PORT[parts.scheme], target)


@attrs.frozen(cache_hash=True)
class Route:
    """How an endpoint is reached: through whom, and whose word counts for its certificate.

    Connections are shared by those who take the same route only.

    Threads: immutable, any.
    """

    proxy: Proxy | None = None
    ca_file: str | None = None


def route_to(endpoint: Endpoint, *, proxy: Proxy | None, trust_env: bool, ca_file: str | None) -> Route:
    """The route that the options mean, for one endpoint.

    Raises:
        ConfigurationError, ImportError: the environment names a proxy that cannot be used.
    """
    if proxy is None and trust_env:
        proxy = proxy_from_environment(endpoint.origin)
    return Route(proxy, ca_file)
