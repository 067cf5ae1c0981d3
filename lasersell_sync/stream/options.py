"""What a user decides about a stream: how to connect (StreamOptions), and what to ask for (StreamConfigure)."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import MirrorConfig, StrategyConfig, WatchWallet, from_mapping
from lasersell_sync.network import tls
from lasersell_sync.network.proxy import Proxy, to_proxy
from lasersell_sync.pubkeys import pubkey_text, pubkey_texts, require_pubkey
from lasersell_sync.runtime.timeouts import bounded_s
from lasersell_sync.strategy import strategy_config_from_optional, to_strategy, validate_strategy

if TYPE_CHECKING:
    from lasersell_sync.stream.connection_events import ConnectionEvent

__all__ = [
    "LOCAL_STREAM_ENDPOINT",
    "STREAM_ENDPOINT",
    "StreamConfigure",
    "StreamOptions",
    "single_wallet_stream_configure",
    "single_wallet_stream_configure_optional",
]

STREAM_ENDPOINT = "wss://stream.lasersell.io/v1/ws"
#: The official SDKs' local mode; the sandbox listens there by default.
LOCAL_STREAM_ENDPOINT = "ws://localhost:8082/v1/ws"

SEND_MODES = ("rpc", "helius_sender", "astralane")
_U64_MAX = 2**64 - 1

LowLane = Literal["conflate", "drop_oldest", "lossless"]


def _positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(attribute.name, f"{value!r} must be a finite number > 0")


def _positive_or_none(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _positive(instance, attribute, value)


def _positive_int(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ConfigurationError(attribute.name, f"{value!r} must be an integer > 0")


def _low_lane(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("conflate", "drop_oldest", "lossless"):
        raise ConfigurationError(attribute.name, f"{value!r}: use 'conflate', 'drop_oldest' or 'lossless'")


def _verifying(_: object, attribute: attrs.Attribute[Any], value: ssl.SSLContext | None) -> None:
    tls.require_verifying(attribute.name, value)


def _readable_ca_file(instance: StreamOptions, attribute: attrs.Attribute[Any], value: object) -> None:
    tls.require_ca_file(attribute.name, value, beside=instance.ssl_context)


def _pins(value: Sequence[str]) -> tuple[str, ...]:
    return tls.require_pins("pins", value)


@attrs.frozen(kw_only=True)
class StreamOptions:
    """How a connection is made, kept and read. The defaults are a trader's; every limit can be set.

    A number of seconds that means "no limit", such as 1e10, is kept as 1,000,000 (11 days).

    Attributes:
        connect_timeout_s: look-up, TCP, TLS, upgrade and ``hello_ok`` together, for one attempt.
        ping_interval_s: silence after which a WebSocket ping asks whether the link is alive.
        pong_timeout_s: how long anything at all may take to arrive after that ping; then the link is dropped.
        app_ping_interval_s: time without any message after which an application ``ping`` asks whether the server, not
            only its transport, is alive; None switches it off.
        app_pong_timeout_s: how long any message may take to arrive after that ping; then the link is dropped.
        stall_after_s: how much too late our own timer may be before the process counts as having been stopped
            (SIGSTOP, a suspended machine); the link is then made anew at once.
        close_timeout_s: how long ``close()`` lets the server answer the close frame before the socket goes down.
        initial_backoff_s: bound of the first reconnect wait; it doubles for each failed attempt, with full jitter.
        max_backoff_s: bound of the longest reconnect wait.
        stable_after_s: a session that lasted this long counts as a success; shorter ones in a row are DEGRADED.
        max_degraded_backoff_s: bound of the waits while the server drops every session at once.
        max_session_limit_backoff_s: bound of the waits while another session holds the key.
        resync_grace_s: how long after a reconnect positions may take to be announced again, until ``resynced`` tells
            which were not.
        handler_stuck_after_s: how long a handler may run until it is reported with its stack.
        feed_silent_after_s: how long no price, liquidity or trade of any open position may come until ``feed_silent``
            tells; None for 30 times the server's ``pnl_flush_ms``, and at least 30 s.
        reconnect_on_feed_silent: make the link anew then.
        low_lane: what happens to ``pnl_update``, ``liquidity_snapshot`` and ``trade_tick`` when the consumer is slower
            than the stream. ``conflate``: the newest update and snapshot of each position wait, ticks beyond
            ``low_capacity`` lose the oldest. ``drop_oldest``: all wait, beyond ``low_capacity`` the oldest is lost.
            ``lossless``: nothing is lost; when the lane is full the reader stops reading and TCP pushes back.
        low_capacity: messages.
        high_capacity: messages; everything else waits here and is never lost: when it is full the reader stops
            reading. Until a way to consume was chosen the oldest go instead (``lagged`` tells how many). Both bounds
            are looked at before each read of the socket, so one buffer (256 KiB) may go over.
        max_message_bytes: a longer message ends the connection (close code 1009).
        send_buffer_bytes: commands that the link has not taken yet; beyond it a command raises SendBufferFull.
        api_url: REST base URL for ``connect_with_wallets``; None for the production one (local mode: the local one).
        ssl_context: for ``wss``; None for the system's trust store (certifi's where the system has none). Verification
            cannot be switched off.
        ca_file: PEM file with the only authorities to trust, in place of the system's.
        pins: ``sha256/`` and the base64 of the SHA-256 of a public key (SPKI). One certificate of the verified chain,
            whichever, must have one of these keys, or the link is dropped before the API key is sent. Name two. Needs
            the extra ``pins``.
        proxy: ``http://``, ``socks5://`` (names are looked up here) or ``socks5h://`` (by the proxy), with
            ``user:password@`` if need be. SOCKS needs the extra ``proxy``.
        trust_env: without ``proxy``, use that of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.
        allow_insecure: let the API key travel in clear text to a host that is not this machine.
        on_event: called with every connection event of a bare ``StreamConnection``, on the reader thread: return fast.
            (A session delivers them to its handlers and queue instead.)

    Raises:
        ConfigurationError: a value out of range, named.
        ImportError: ``pins`` or a SOCKS proxy without their extra, with the line that installs it.
    """

    connect_timeout_s: float = attrs.field(default=10.0, converter=bounded_s, validator=_positive)
    ping_interval_s: float = attrs.field(default=5.0, converter=bounded_s, validator=_positive)
    pong_timeout_s: float = attrs.field(default=5.0, converter=bounded_s, validator=_positive)
    app_ping_interval_s: float | None = attrs.field(
        default=10.0, converter=attrs.converters.optional(bounded_s), validator=_positive_or_none
    )
    app_pong_timeout_s: float = attrs.field(default=5.0, converter=bounded_s, validator=_positive)
    stall_after_s: float = attrs.field(default=3.0, converter=bounded_s, validator=_positive)
    close_timeout_s: float = attrs.field(default=0.3, converter=bounded_s, validator=_positive)
    initial_backoff_s: float = attrs.field(default=0.1, converter=bounded_s, validator=_positive)
    max_backoff_s: float = attrs.field(default=2.0, converter=bounded_s, validator=_positive)
    stable_after_s: float = attrs.field(default=5.0, converter=bounded_s, validator=_positive)
    max_degraded_backoff_s: float = attrs.field(default=60.0, converter=bounded_s, validator=_positive)
    max_session_limit_backoff_s: float = attrs.field(default=90.0, converter=bounded_s, validator=_positive)
    resync_grace_s: float = attrs.field(default=3.0, converter=bounded_s, validator=_positive)
    handler_stuck_after_s: float = attrs.field(default=10.0, converter=bounded_s, validator=_positive)
    feed_silent_after_s: float | None = attrs.field(
        default=None, converter=attrs.converters.optional(bounded_s), validator=_positive_or_none
    )
    reconnect_on_feed_silent: bool = False
    low_lane: LowLane = attrs.field(default="conflate", validator=_low_lane)
    low_capacity: int = attrs.field(default=1024, validator=_positive_int)
    high_capacity: int = attrs.field(default=65536, validator=_positive_int)
    max_message_bytes: int = attrs.field(default=16 * 2**20, validator=_positive_int)
    send_buffer_bytes: int = attrs.field(default=2**20, validator=_positive_int)
    api_url: str | None = None
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, validator=_verifying)
    ca_file: str | None = attrs.field(default=None, validator=_readable_ca_file)
    pins: tuple[str, ...] = attrs.field(default=(), converter=_pins)
    proxy: Proxy | None = attrs.field(default=None, converter=to_proxy)
    trust_env: bool = False
    allow_insecure: bool = False
    on_event: Callable[[ConnectionEvent], object] | None = None


# Dicts as the official SDK takes them become objects; anything else is left for ``validate`` to name.


def _to_mirror_config(value: MirrorConfig | Mapping[str, Any] | None) -> MirrorConfig | None:
    return from_mapping(MirrorConfig, value, lambda problem: ConfigurationError("mirror_config", problem))


def _to_watch_wallets(value: Sequence[WatchWallet | Mapping[str, Any]]) -> Sequence[WatchWallet]:
    return tuple(
        from_mapping(WatchWallet, item, lambda problem: ConfigurationError("watch_wallets", problem)) for item in value
    )


@attrs.frozen
class StreamConfigure:
    """What a session asks the server to do.

    Attributes:
        wallet_pubkeys: your wallets, base58; each must be registered with this API key.
        strategy: when to exit.
        deadline_timeout_sec: seconds after opening at which the *client* asks for an exit; 0 for never. Not sent.
        send_mode: ``rpc``, ``helius_sender`` or ``astralane``: where the transactions will be submitted.
        tip_lamports: tip inside the transactions; the server's default is 1 000.
        watch_wallets: foreign wallets to follow.
        mirror_config: limits on copy trading.

    Raises:
        ConfigurationError, StrategyError: from ``validate()``, which ``connect`` calls before it opens anything.
    """

    wallet_pubkeys: Sequence[str] = attrs.field(converter=pubkey_texts)
    strategy: StrategyConfig = attrs.field(converter=to_strategy)
    deadline_timeout_sec: float = 0
    send_mode: str | None = None
    tip_lamports: int | None = None
    watch_wallets: Sequence[WatchWallet] = attrs.field(default=(), converter=_to_watch_wallets)
    mirror_config: MirrorConfig | None = attrs.field(default=None, converter=_to_mirror_config)

    def validate(self) -> None:
        """Check everything that can be checked without the server."""
        require_wallets(self.wallet_pubkeys)
        validate_strategy(self.strategy, self.deadline_timeout_sec)
        if self.send_mode is not None and self.send_mode not in SEND_MODES:
            raise ConfigurationError("send_mode", f"{self.send_mode!r}: use one of {', '.join(SEND_MODES)}")
        if self.tip_lamports is not None and (
            isinstance(self.tip_lamports, bool)
            or not isinstance(self.tip_lamports, int)
            or not 0 <= self.tip_lamports <= _U64_MAX
        ):
            raise ConfigurationError("tip_lamports", f"{self.tip_lamports!r} is not an integer number of lamports ≥ 0")
        require_watch_wallets(self.watch_wallets)
        if self.mirror_config is not None and not isinstance(self.mirror_config, MirrorConfig):
            raise ConfigurationError("mirror_config", f"expected MirrorConfig, got {type(self.mirror_config).__name__}")


def single_wallet_stream_configure(
    wallet_pubkey: str, strategy: StrategyConfig, deadline_timeout_sec: float = 0
) -> StreamConfigure:
    """A configuration for one wallet."""
    return StreamConfigure([wallet_pubkey], strategy, deadline_timeout_sec)


def single_wallet_stream_configure_optional(
    wallet_pubkey: str,
    *,
    target_profit_pct: float | None = None,
    stop_loss_pct: float | None = None,
    trailing_stop_pct: float | None = None,
    deadline_timeout_sec: float | None = None,
) -> StreamConfigure:
    """A configuration for one wallet from what is set; None switches a condition off."""
    strategy = strategy_config_from_optional(
        target_profit_pct=target_profit_pct, stop_loss_pct=stop_loss_pct, trailing_stop_pct=trailing_stop_pct
    )
    return StreamConfigure([wallet_pubkey], strategy, deadline_timeout_sec or 0)


def require_wallets(wallet_pubkeys: Sequence[str]) -> tuple[str, ...]:
    """The wallets as a tuple, each checked.

    Raises:
        ConfigurationError: a bare string, or an item that is not a public key.
    """
    if isinstance(wallet_pubkeys, (str, bytes)) or not isinstance(wallet_pubkeys, Iterable):
        kind = type(wallet_pubkeys).__name__
        raise ConfigurationError("wallet_pubkeys", f"a list of public keys is needed, not one {kind}. Write [pubkey]")
    wallets = tuple(pubkey_text(wallet) for wallet in wallet_pubkeys)
    if not wallets:
        raise ConfigurationError("wallet_pubkeys", "empty: name at least one wallet to follow")
    for index, wallet in enumerate(wallets):
        require_pubkey(f"wallet_pubkeys[{index}]", wallet)
    return wallets


def require_watch_wallets(watch_wallets: Sequence[WatchWallet]) -> tuple[WatchWallet, ...]:
    """The watch wallets as a tuple, each checked.

    Raises:
        ConfigurationError: an item that is not a WatchWallet, or a key in it that is not a public key.
    """
    entries = tuple(watch_wallets)
    for index, entry in enumerate(entries):
        field = f"watch_wallets[{index}]"
        if not isinstance(entry, WatchWallet):
            raise ConfigurationError(field, f"expected WatchWallet, got {type(entry).__name__}")
        require_pubkey(f"{field}.pubkey", entry.pubkey)
        if entry.auto_buy is not None:
            require_pubkey(f"{field}.auto_buy.wallet_pubkey", entry.auto_buy.wallet_pubkey)
    return entries
