"""lasersell_sync: trade through the LaserSell Exit Intelligence Stream, with threads and without surprises.

Start at ``StreamSession.connect(StreamClient.from_env(), StreamConfigure(...))``; the README shows the three ways to
consume it. Everything public is importable from here. Importing loads no other module of the package, starts no thread
and opens nothing: a name's module is loaded when the name is first used. The stub beside this file has the types.
"""

import importlib as _importlib
import sys as _sys

from lasersell_sync._version import __version__

if _sys.platform == "win32":
    raise ImportError("lasersell_sync does not run on Windows: use it in WSL, the Windows Subsystem for Linux.")

#: Module to the public names that it has.
_HOMES = {
    "exceptions": (
        "AuthenticationError",
        "BrokenRule",
        "ConcurrencyError",
        "ConfigurationError",
        "DecodeError",
        "ExitApiAuthenticationError",
        "ExitApiError",
        "ForkedProcessError",
        "HandshakeError",
        "JournalError",
        "LaserSellError",
        "ProtocolError",
        "SendBufferFull",
        "SessionLimitError",
        "StrategyError",
        "StreamClientError",
        "StreamClosed",
        "StreamError",
        "ThreadDiedError",
        "TransportError",
        "TxSubmitError",
        "UnsafeTransactionError",
        "WaitTimeoutError",
        "WalletNotRegisteredError",
    ),
    "messages": (
        "AutoBuyConfig",
        "BalanceUpdate",
        "ClientMessage",
        "ClosePosition",
        "Configure",
        "ErrorMessage",
        "ExitSignalWithTx",
        "HelloOk",
        "Limits",
        "LiquiditySnapshot",
        "MarketContext",
        "MeteoraDammV2Context",
        "MeteoraDbcContext",
        "MirrorBuyFailed",
        "MirrorBuyResult",
        "MirrorBuySignal",
        "MirrorConfig",
        "MirrorWalletAutoDisabled",
        "Ping",
        "PnlUpdate",
        "Pong",
        "PositionClosed",
        "PositionOpened",
        "PumpFunContext",
        "PumpSwapContext",
        "RaydiumCpmmContext",
        "RaydiumLaunchpadContext",
        "RequestExitSignal",
        "ServerMessage",
        "SlippageBand",
        "StrategyConfig",
        "TakeProfitLevel",
        "TradeTick",
        "UnknownMessage",
        "UpdatePositionStrategy",
        "UpdateStrategy",
        "UpdateWallets",
        "UpdateWatchWallets",
        "WatchWallet",
    ),
    "positions": (
        "PositionHandle",
        "PositionKey",
    ),
    "quotes": ("format_quote",),
    "strategy": (
        "StrategyConfigBuilder",
        "strategy_config_from_optional",
        "validate_strategy",
    ),
    "retry": ("RetryPolicy",),
    "codec": (
        "backend",
        "client_message_from_text",
        "client_message_to_text",
        "message_to_dict",
        "server_message_from_text",
        "server_message_to_text",
    ),
    "stream.lifecycle": ("ConnectionState",),
    "stream.connection_events": (
        "Closed",
        "CommandDropped",
        "Connected",
        "ConnectionEvent",
        "DecodeFailure",
        "Degraded",
        "Disconnected",
        "Failed",
        "Lagged",
        "Reconnecting",
    ),
    "stream.options": (
        "LOCAL_STREAM_ENDPOINT",
        "STREAM_ENDPOINT",
        "StreamConfigure",
        "StreamOptions",
        "single_wallet_stream_configure",
        "single_wallet_stream_configure_optional",
    ),
    "stream.sender": (
        "PositionSelector",
        "StreamSender",
    ),
    "stream.stats": ("StreamStats",),
    "stream.event_queue": ("EventQueue",),
    "stream.connection": (
        "StreamConnection",
        "StreamReceiver",
    ),
    "stream.client": ("StreamClient",),
    "session.events": (
        "Contradiction",
        "FeedSilent",
        "HandlerError",
        "HandlerStuck",
        "Resynced",
        "StreamEvent",
    ),
    "session.health": ("Health",),
    "session.stream_session": ("StreamSession",),
    "autosell": (
        "Attempt",
        "AutoSeller",
        "BuyRecord",
        "BuyReport",
        "ExitKey",
        "ExitRecord",
        "Journal",
        "LegPlan",
        "LegsReport",
        "Refusal",
        "SellPolicy",
        "SellReport",
        "Step",
    ),
    "recording": (
        "RecordedFrame",
        "Recorder",
        "Recording",
        "RecordingError",
        "replay",
    ),
    "trading": (
        "ASTRALANE_DEFAULT_REGION",
        "EXIT_API_BASE_URL",
        "HELIUS_SENDER_FAST_URL",
        "LOCAL_EXIT_API_BASE_URL",
        "MAINNET_BETA_RPC_URL",
        "Account",
        "AccountLimits",
        "BuildBuyTxRequest",
        "BuildSellTxRequest",
        "BuildTxResponse",
        "ConfirmedSignature",
        "ExitApiClient",
        "ExitApiClientOptions",
        "GuardReport",
        "HistoryPage",
        "HistoryTrade",
        "PendingTx",
        "SellOutcome",
        "SellOutput",
        "SendTarget",
        "SendTargetAstralane",
        "SendTargetHeliusSender",
        "SendTargetRpc",
        "SignedTx",
        "Signer",
        "SigningGuard",
        "TradeContext",
        "TxResult",
        "TxSender",
        "WalletProof",
        "astralane_iris_url",
        "close_rpc_connections",
        "confirm_signature",
        "encode_signed_tx",
        "prove_ownership",
        "send_transaction",
        "send_transaction_b64_to",
        "sign_unsigned_tx",
        "sign_unsigned_tx_b64",
        "warm_send_target",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - strings, from the table


def __getattr__(name: str) -> object:
    """A public name, from its module, which is loaded now."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
