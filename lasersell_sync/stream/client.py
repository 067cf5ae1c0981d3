"""The front door to the stream: who you are and where to connect."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import StrategyConfig
from lasersell_sync.network import tls
from lasersell_sync.network.endpoints import require_api_key, require_url
from lasersell_sync.network.proxy import proxy_from_environment
from lasersell_sync.runtime.fork_guard import refuse_late_patching
from lasersell_sync.stream.connection import StreamConnection
from lasersell_sync.stream.options import LOCAL_STREAM_ENDPOINT, STREAM_ENDPOINT, StreamConfigure, StreamOptions
from lasersell_sync.stream.sink import Sink

if TYPE_CHECKING:
    from lasersell_sync.trading import WalletProof

__all__ = ["StreamClient"]


class StreamClient:
    """Opens stream connections with one API key.

    Args:
        api_key: sent as ``x-api-key``; never logged or shown.
        options: limits and policies; None for the defaults.

    Raises:
        ConfigurationError: an empty or unsendable key.

    Threads: any; ``with_*`` before sharing.
    """

    def __init__(self, api_key: str, *, options: StreamOptions | None = None) -> None:
        self._api_key = require_api_key(api_key)
        self._options = options or StreamOptions()
        self._local = False
        self._endpoint: str | None = None

    @classmethod
    def from_env(cls, *, options: StreamOptions | None = None) -> StreamClient:
        """A client from ``LASERSELL_API_KEY`` and, when set, ``LASERSELL_STREAM_URL`` and ``LASERSELL_API_URL``.

        Raises:
            ConfigurationError: no key, or a URL that cannot work.
        """
        options = options or StreamOptions()
        api_url = os.environ.get("LASERSELL_API_URL")
        if api_url and options.api_url is None:
            options = attrs.evolve(options, api_url=api_url)
        client = cls(os.environ.get("LASERSELL_API_KEY", ""), options=options)
        endpoint = os.environ.get("LASERSELL_STREAM_URL")
        return client.with_endpoint(endpoint) if endpoint else client

    def with_local_mode(self, local: bool = True) -> StreamClient:  # noqa: FBT001, FBT002 - official signature
        """Use ``ws://localhost:8082/v1/ws`` (where the sandbox listens) instead of production; returns itself."""
        self._local = local
        return self

    def with_endpoint(self, endpoint: str) -> StreamClient:
        """Use this ``wss://`` URL (``ws://`` for this machine only); returns itself.

        Raises:
            ConfigurationError: a URL that cannot work, or that would show the key to the network.
        """
        self._endpoint = require_url(
            "endpoint", endpoint, schemes=("ws", "wss"), allow_insecure=self._options.allow_insecure
        )
        return self

    @property
    def endpoint(self) -> str:
        """Where ``connect`` goes."""
        if self._endpoint is not None:
            return self._endpoint
        return LOCAL_STREAM_ENDPOINT if self._local else STREAM_ENDPOINT

    def connect(self, configure: StreamConfigure) -> StreamConnection:
        """Open a session: connect, send ``configure``, wait for ``hello_ok``.

        Blocks up to ``connect_timeout_s``; Ctrl-C works. A failure of this first attempt raises; a link lost later does
        not, it is repaired and shows as connection events.

        Raises:
            ConfigurationError, StrategyError: a pubkey, strategy or option that cannot work; nothing was opened.
            AuthenticationError: the key was refused.
            WalletNotRegisteredError, SessionLimitError, HandshakeError: the server's refusal, with its words.
            TransportError: no server was reached.
            ConcurrencyError: gevent or eventlet came too late.
        """
        return self.open(configure, sink=None)

    def open(self, configure: StreamConfigure, sink: Sink | None) -> StreamConnection:
        """As ``connect``, with everything handed to ``sink`` (a session) from the first message on."""
        connection = self.prepare(configure)
        connection.open(sink)
        return connection

    def prepare(self, configure: StreamConfigure) -> StreamConnection:
        """A connection that is not open yet; nothing has touched the network."""
        refuse_late_patching()
        if not isinstance(configure, StreamConfigure):
            raise ConfigurationError("configure", f"expected StreamConfigure, got {type(configure).__name__}")
        configure.validate()
        options = self._resolved_options()
        return StreamConnection(url=self.endpoint, api_key=self._api_key, configure=configure, options=options)

    def _resolved_options(self) -> StreamOptions:
        """The options with their network part settled for this endpoint: told here, on the caller's thread, if wrong.

        The connection then reads neither environment nor files again, however often it reconnects.
        """
        options, parts = self._options, urlsplit(self.endpoint)
        if parts.scheme != "wss" and options.pins:
            raise ConfigurationError("pins", f"there are no certificates on {parts.scheme}://; use wss://")
        proxy = options.proxy
        if proxy is None and options.trust_env:
            proxy = proxy_from_environment(self.endpoint)
        context = options.ssl_context
        if context is None and parts.scheme == "wss":
            context = tls.client_context(options.ca_file)
        return attrs.evolve(options, ssl_context=context, ca_file=None, proxy=proxy, trust_env=False)

    def connect_with_wallets(
        self, proofs: Sequence[WalletProof], strategy: StrategyConfig, deadline_timeout_sec: float = 0
    ) -> StreamConnection:
        """Register the wallets with the REST API, then connect with them.

        Args:
            proofs: from ``prove_ownership``.
            strategy: when to exit.
            deadline_timeout_sec: seconds after opening at which an exit is asked for; 0 for never.

        Raises:
            ExitApiError: a wallet could not be registered.
            Exception: as ``connect``.
        """
        # The one edge to the sibling package; its HTTP stack loads only for those who use it.
        from lasersell_sync.trading import ExitApiClient, ExitApiClientOptions

        options = self._options
        network = ExitApiClientOptions(
            proxy=options.proxy,
            trust_env=options.trust_env,
            ca_file=options.ca_file,
            ssl_context=options.ssl_context,
        )
        configure = StreamConfigure([proof.wallet_pubkey for proof in proofs], strategy, deadline_timeout_sec)
        configure.validate()
        with ExitApiClient(self._api_key, network).with_local_mode(self._local) as api:
            if options.api_url is not None:
                api.with_base_url(options.api_url)
            for proof in proofs:
                api.register_wallet(proof)
        return self.connect(configure)

    def __repr__(self) -> str:
        return f"<StreamClient {self.endpoint}>"
