"""Where signed transactions are sent: a node, or one of two senders (docs/protocol.md 1, 9). Values, no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.network import tls
from lasersell_sync.network.endpoints import require_api_key
from lasersell_sync.network.http_endpoint import Endpoint, Route, parse_endpoint, route_to
from lasersell_sync.network.proxy import Proxy, to_proxy

__all__ = [
    "ASTRALANE_DEFAULT_REGION",
    "HELIUS_SENDER_FAST_URL",
    "MAINNET_BETA_RPC_URL",
    "SendTarget",
    "SendTargetAstralane",
    "SendTargetHeliusSender",
    "SendTargetRpc",
    "astralane_iris_url",
    "rpc_targets",
]

MAINNET_BETA_RPC_URL: Final = "https://solana-rpc.publicnode.com"
HELIUS_SENDER_FAST_URL: Final = "https://sender.helius-rpc.com/fast"
ASTRALANE_DEFAULT_REGION: Final = "fr"

_RPC_RETRIES = 3


def astralane_iris_url(region: str) -> str:
    """The Iris gateway of a region: ``fr fr2 la jp ny ams ams2 lim sg lit``, or a newer one.

    Raises:
        ConfigurationError: not a region's name.
    """
    # It becomes a part of a host name: anything else in it could name another host.
    if not isinstance(region, str) or not re.fullmatch(r"[a-z0-9-]{1,20}", region):
        raise ConfigurationError("region", "a region's short name is needed, like 'fr'")
    return f"https://{region}.gateway.astralane.io/iris"


def _shown_url(url: str | None) -> str:
    return "None" if url is None else repr(parse_endpoint("url", url, allow_insecure=True).shown)


def _readable_ca_file(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    tls.require_ca_file(attribute.name, value, beside=None)


def _lamports(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigurationError(attribute.name, "a whole number of lamports, 0 or more, is needed, or None")


@attrs.frozen(kw_only=True)
class _Target:
    """What all targets share: how they are reached, and what ``sendTransaction`` asks of them.

    Threads: immutable, any.
    """

    #: What errors call it.
    label: ClassVar[str]
    #: Beside encoding and skipPreflight (docs/protocol.md 9).
    send_options: ClassVar[dict[str, object]] = {"maxRetries": 0}
    #: What answers a GET, for ``warm_send_target``; None: it is asked for its health.
    warm_up_path: ClassVar[str | None] = None
    #: Whose tip accounts it wants a tip in (``guard/addresses.json``); None: it takes none.
    tip_accounts_of: ClassVar[str | None] = None

    allow_insecure: bool = False
    proxy: Proxy | None = attrs.field(default=None, converter=to_proxy, repr=False)
    trust_env: bool = attrs.field(default=False, repr=False)
    ca_file: str | None = attrs.field(default=None, validator=_readable_ca_file, repr=False)

    #: Where requests go: the URL, read once and not with every send.
    endpoint: Endpoint = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        endpoint = parse_endpoint("url", self._address(), allow_insecure=self.allow_insecure)
        object.__setattr__(self, "endpoint", endpoint)  # as attrs' own __init__ does: the class is frozen

    def route(self) -> Route:
        """How they get there.

        Raises:
            ConfigurationError, ImportError: the environment names a proxy that cannot be used.
        """
        return route_to(self.endpoint, proxy=self.proxy, trust_env=self.trust_env, ca_file=self.ca_file)

    def asked_through(self, client: Any) -> Any:
        """The ``RpcClient`` for this target; a recording puts one of its own in its place."""
        return client

    @property
    def tip_service(self) -> str | None:
        """Under which name ``guard/addresses.json`` has its minimum tip; None: it takes none."""
        return self.tip_accounts_of

    def _address(self) -> str:
        raise NotImplementedError


@attrs.frozen
class SendTargetRpc(_Target):
    """A Solana JSON-RPC node.

    Args:
        url: https://…; the public default is rate limited, use one of your own for trading. Providers put keys into
            it: its repr shows the host only.
        allow_insecure: ``http://`` to another machine.
        proxy: ``http://``, ``socks5://`` or ``socks5h://``, with ``user:password@`` if need be.
        trust_env: without ``proxy``, use that of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.
        ca_file: PEM file with the only authorities to trust, in place of the system's.

    Raises:
        ConfigurationError: not such a URL.
        ImportError: a SOCKS proxy without the extra ``proxy``.
    """

    label = "rpc"
    send_options = {"maxRetries": _RPC_RETRIES, "preflightCommitment": "processed"}  # noqa: RUF012 - a ClassVar of the base

    url: str = attrs.field(default=MAINNET_BETA_RPC_URL, repr=_shown_url)

    def _address(self) -> str:
        return self.url


@attrs.frozen
class SendTargetHeliusSender(_Target):
    """Helius Sender. It only sends: confirm through an RPC node.

    Args:
        url: another address of it, a regional one for example; ``?swqos_only=true`` is its cheaper service.
        minimum_tip_lamports: ``TxSender`` warns of transactions that tip less; default: what the service was seen to
            want, 1 000 000, or 5 000 with ``swqos_only``.
        allow_insecure: ``http://`` to another machine.
        proxy, trust_env, ca_file: as ``SendTargetRpc``.

    Raises:
        ConfigurationError: not such a URL.
    """

    label = "helius sender"
    warm_up_path = "/ping"
    tip_accounts_of = "helius_sender"

    url: str = attrs.field(default=HELIUS_SENDER_FAST_URL, repr=_shown_url)
    minimum_tip_lamports: int | None = attrs.field(default=None, kw_only=True, validator=_lamports)

    @property
    def tip_service(self) -> str:
        """Under which name ``guard/addresses.json`` has its minimum tip."""
        options = parse_qs(urlsplit(self.url).query)
        return "helius_sender_swqos_only" if options.get("swqos_only") == ["true"] else "helius_sender"

    def _address(self) -> str:
        return self.url


@attrs.frozen
class SendTargetAstralane(_Target):
    """Astralane Iris. It only sends: confirm through an RPC node.

    Args:
        api_key: goes into ``x-api-key``, and into no text.
        region: default ``ASTRALANE_DEFAULT_REGION``; see ``astralane_iris_url``.
        url: in place of a region's.
        minimum_tip_lamports: ``TxSender`` warns of transactions that tip less; default: what the service was seen to
            want, 10 000.
        allow_insecure: ``http://`` to another machine; the key travels in clear then.
        proxy, trust_env, ca_file: as ``SendTargetRpc``.

    Raises:
        ConfigurationError: a key, region or URL that cannot work.
    """

    label = "astralane"
    tip_accounts_of = "astralane"

    api_key: str = attrs.field(repr=False)
    region: str | None = None
    url: str | None = attrs.field(default=None, repr=_shown_url)
    minimum_tip_lamports: int | None = attrs.field(default=None, kw_only=True, validator=_lamports)

    def __attrs_post_init__(self) -> None:
        require_api_key(self.api_key)
        super().__attrs_post_init__()

    def _address(self) -> str:
        return self.url if self.url is not None else astralane_iris_url(self.region or ASTRALANE_DEFAULT_REGION)


SendTarget: TypeAlias = SendTargetRpc | SendTargetHeliusSender | SendTargetAstralane


def rpc_targets(field: str, rpcs: object) -> tuple[SendTargetRpc, ...]:
    """The nodes that an argument names: one, or a list of at least one.

    Args:
        field: the argument's name, for errors.
        rpcs: ``SendTargetRpc`` or URLs.

    Raises:
        ConfigurationError: anything else. Senders answer no questions.
    """
    several = [rpcs] if isinstance(rpcs, (str, SendTargetRpc)) else rpcs
    if not isinstance(several, Sequence) or not several:
        raise ConfigurationError(field, "a SendTargetRpc, a node's URL, or a list of at least one, is needed")
    return tuple(_rpc_target(f"{field}[{index}]", rpc) for index, rpc in enumerate(several))


def _rpc_target(field: str, rpc: object) -> SendTargetRpc:
    if isinstance(rpc, SendTargetRpc):
        return rpc
    if isinstance(rpc, str):
        return SendTargetRpc(rpc)
    raise ConfigurationError(field, f"{type(rpc).__name__} answers no questions: give a node")
