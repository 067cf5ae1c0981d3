"""lasersell_sync: trade through the LaserSell Exit Intelligence Stream, with threads and without surprises.

Start at ``StreamSession.connect(StreamClient.from_env(), StreamConfigure(...))``; the README shows the three ways to
consume it. Everything public is importable from here. Importing starts no thread, opens nothing, and loads neither
solders nor urllib3; what trades is loaded when it is first named, for many programs only read.
"""

import importlib as _importlib
import typing as _typing

from lasersell_sync._version import __version__
from lasersell_sync.codec import (
    backend,
    client_message_from_text,
    client_message_to_text,
    message_to_dict,
    server_message_from_text,
    server_message_to_text,
)
from lasersell_sync.exceptions import (
    AuthenticationError,
    BrokenRule,
    ConcurrencyError,
    ConfigurationError,
    DecodeError,
    ExitApiAuthenticationError,
    ExitApiError,
    ForkedProcessError,
    HandshakeError,
    JournalError,
    LaserSellError,
    ProtocolError,
    SendBufferFull,
    SessionLimitError,
    StrategyError,
    StreamClientError,
    StreamClosed,
    StreamError,
    ThreadDiedError,
    TransportError,
    TxSubmitError,
    UnsafeTransactionError,
    WaitTimeoutError,
    WalletNotRegisteredError,
)
from lasersell_sync.messages import (
    AutoBuyConfig,
    BalanceUpdate,
    ClientMessage,
    ClosePosition,
    Configure,
    ErrorMessage,
    ExitSignalWithTx,
    HelloOk,
    Limits,
    LiquiditySnapshot,
    MarketContext,
    MeteoraDammV2Context,
    MeteoraDbcContext,
    MirrorBuyFailed,
    MirrorBuyResult,
    MirrorBuySignal,
    MirrorConfig,
    MirrorWalletAutoDisabled,
    Ping,
    PnlUpdate,
    Pong,
    PositionClosed,
    PositionOpened,
    PumpFunContext,
    PumpSwapContext,
    RaydiumCpmmContext,
    RaydiumLaunchpadContext,
    RequestExitSignal,
    ServerMessage,
    SlippageBand,
    StrategyConfig,
    TakeProfitLevel,
    TradeTick,
    UnknownMessage,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
    WatchWallet,
)
from lasersell_sync.positions import (
    PositionHandle,
    PositionKey,
)
from lasersell_sync.quotes import (
    format_quote,
)
from lasersell_sync.retry import (
    RetryPolicy,
)
from lasersell_sync.session.events import (
    Contradiction,
    FeedSilent,
    HandlerError,
    HandlerStuck,
    Resynced,
    StreamEvent,
)
from lasersell_sync.session.health import (
    Health,
)
from lasersell_sync.session.stream_session import (
    StreamSession,
)
from lasersell_sync.strategy import (
    StrategyConfigBuilder,
    strategy_config_from_optional,
    validate_strategy,
)
from lasersell_sync.stream.client import (
    StreamClient,
)
from lasersell_sync.stream.connection import (
    StreamConnection,
    StreamReceiver,
)
from lasersell_sync.stream.connection_events import (
    Closed,
    CommandDropped,
    Connected,
    ConnectionEvent,
    DecodeFailure,
    Degraded,
    Disconnected,
    Failed,
    Lagged,
    Reconnecting,
)
from lasersell_sync.stream.event_queue import (
    EventQueue,
)
from lasersell_sync.stream.lifecycle import (
    ConnectionState,
)
from lasersell_sync.stream.options import (
    LOCAL_STREAM_ENDPOINT,
    STREAM_ENDPOINT,
    StreamConfigure,
    StreamOptions,
    single_wallet_stream_configure,
    single_wallet_stream_configure_optional,
)
from lasersell_sync.stream.sender import (
    PositionSelector,
    StreamSender,
)
from lasersell_sync.stream.stats import (
    StreamStats,
)

if _typing.TYPE_CHECKING:
    from lasersell_sync.autosell import (
        Attempt,
        AutoSeller,
        BuyRecord,
        BuyReport,
        ExitKey,
        ExitRecord,
        Journal,
        LegPlan,
        LegsReport,
        Refusal,
        SellPolicy,
        SellReport,
        Step,
    )
    from lasersell_sync.recording import (
        RecordedFrame,
        Recorder,
        Recording,
        RecordingError,
        replay,
    )
    from lasersell_sync.trading import (
        ASTRALANE_DEFAULT_REGION,
        EXIT_API_BASE_URL,
        HELIUS_SENDER_FAST_URL,
        LOCAL_EXIT_API_BASE_URL,
        MAINNET_BETA_RPC_URL,
        Account,
        AccountLimits,
        BuildBuyTxRequest,
        BuildSellTxRequest,
        BuildTxResponse,
        ConfirmedSignature,
        ExitApiClient,
        ExitApiClientOptions,
        GuardReport,
        HistoryPage,
        HistoryTrade,
        PendingTx,
        SellOutcome,
        SellOutput,
        SendTarget,
        SendTargetAstralane,
        SendTargetHeliusSender,
        SendTargetRpc,
        SignedTx,
        Signer,
        SigningGuard,
        TradeContext,
        TxResult,
        TxSender,
        WalletProof,
        astralane_iris_url,
        close_rpc_connections,
        confirm_signature,
        encode_signed_tx,
        prove_ownership,
        send_transaction,
        send_transaction_b64_to,
        sign_unsigned_tx,
        sign_unsigned_tx_b64,
        warm_send_target,
    )
else:
    _OF_RECORDING = ("RecordedFrame", "Recorder", "Recording", "RecordingError", "replay")

    def __getattr__(name: str) -> object:
        """What ``__all__`` lists and nobody has named yet."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # What sells needs what trades in any case, so that is asked first.
        for package in ("recording",) if name in _OF_RECORDING else ("trading", "autosell"):
            module = _importlib.import_module(f"{__name__}.{package}")
            if hasattr(module, name):
                break
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "__version__",
    # exceptions
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
    # messages
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
    # positions
    "PositionHandle",
    "PositionKey",
    # quotes
    "format_quote",
    # strategy
    "StrategyConfigBuilder",
    "strategy_config_from_optional",
    "validate_strategy",
    # retry
    "RetryPolicy",
    # codec
    "backend",
    "client_message_from_text",
    "client_message_to_text",
    "message_to_dict",
    "server_message_from_text",
    "server_message_to_text",
    # stream.lifecycle
    "ConnectionState",
    # stream.connection_events
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
    # stream.options
    "LOCAL_STREAM_ENDPOINT",
    "STREAM_ENDPOINT",
    "StreamConfigure",
    "StreamOptions",
    "single_wallet_stream_configure",
    "single_wallet_stream_configure_optional",
    # stream.sender
    "PositionSelector",
    "StreamSender",
    # stream.stats
    "StreamStats",
    # stream.event_queue
    "EventQueue",
    # stream.connection
    "StreamConnection",
    "StreamReceiver",
    # stream.client
    "StreamClient",
    # session.events
    "Contradiction",
    "FeedSilent",
    "HandlerError",
    "HandlerStuck",
    "Resynced",
    "StreamEvent",
    # session.health
    "Health",
    # session.stream_session
    "StreamSession",
    # autosell
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
    # recording
    "RecordedFrame",
    "Recorder",
    "Recording",
    "RecordingError",
    "replay",
    # trading
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
]
