# Types of the front door; __init__.py loads the module of a name when the name is first used.

from lasersell_sync._version import __version__
from lasersell_sync.autosell import (
    Attempt as Attempt,
)
from lasersell_sync.autosell import (
    AutoSeller,
    BuyReport,
    ExitKey,
    Journal,
    LegPlan,
    Refusal,
    SellPolicy,
    SellReport,
)
from lasersell_sync.autosell import (
    BuyRecord as BuyRecord,
)
from lasersell_sync.autosell import (
    ExitRecord as ExitRecord,
)
from lasersell_sync.autosell import (
    LegsReport as LegsReport,
)
from lasersell_sync.autosell import (
    Step as Step,
)
from lasersell_sync.codec import (
    backend,
    message_to_dict,
    server_message_from_text,
)
from lasersell_sync.codec import (
    client_message_from_text as client_message_from_text,
)
from lasersell_sync.codec import (
    client_message_to_text as client_message_to_text,
)
from lasersell_sync.codec import (
    server_message_to_text as server_message_to_text,
)
from lasersell_sync.exceptions import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    ExitApiError,
    JournalError,
    LaserSellError,
    SessionLimitError,
    StrategyError,
    StreamClosed,
    StreamError,
    TransportError,
    TxSubmitError,
    UnsafeTransactionError,
    WaitTimeoutError,
)
from lasersell_sync.exceptions import (
    BrokenRule as BrokenRule,
)
from lasersell_sync.exceptions import (
    ConcurrencyError as ConcurrencyError,
)
from lasersell_sync.exceptions import (
    ExitApiAuthenticationError as ExitApiAuthenticationError,
)
from lasersell_sync.exceptions import (
    ForkedProcessError as ForkedProcessError,
)
from lasersell_sync.exceptions import (
    HandshakeError as HandshakeError,
)
from lasersell_sync.exceptions import (
    ProtocolError as ProtocolError,
)
from lasersell_sync.exceptions import (
    SendBufferFull as SendBufferFull,
)
from lasersell_sync.exceptions import (
    StreamClientError as StreamClientError,
)
from lasersell_sync.exceptions import (
    ThreadDiedError as ThreadDiedError,
)
from lasersell_sync.exceptions import (
    WalletNotRegisteredError as WalletNotRegisteredError,
)
from lasersell_sync.messages import (
    AutoBuyConfig,
    BalanceUpdate,
    ErrorMessage,
    ExitSignalWithTx,
    HelloOk,
    LiquiditySnapshot,
    MirrorBuySignal,
    MirrorConfig,
    PnlUpdate,
    PositionClosed,
    PositionOpened,
    SlippageBand,
    StrategyConfig,
    TakeProfitLevel,
    TradeTick,
    WatchWallet,
)
from lasersell_sync.messages import (
    ClientMessage as ClientMessage,
)
from lasersell_sync.messages import (
    ClosePosition as ClosePosition,
)
from lasersell_sync.messages import (
    Configure as Configure,
)
from lasersell_sync.messages import (
    Limits as Limits,
)
from lasersell_sync.messages import (
    MarketContext as MarketContext,
)
from lasersell_sync.messages import (
    MeteoraDammV2Context as MeteoraDammV2Context,
)
from lasersell_sync.messages import (
    MeteoraDbcContext as MeteoraDbcContext,
)
from lasersell_sync.messages import (
    MirrorBuyFailed as MirrorBuyFailed,
)
from lasersell_sync.messages import (
    MirrorBuyResult as MirrorBuyResult,
)
from lasersell_sync.messages import (
    MirrorWalletAutoDisabled as MirrorWalletAutoDisabled,
)
from lasersell_sync.messages import (
    Ping as Ping,
)
from lasersell_sync.messages import (
    Pong as Pong,
)
from lasersell_sync.messages import (
    PumpFunContext as PumpFunContext,
)
from lasersell_sync.messages import (
    PumpSwapContext as PumpSwapContext,
)
from lasersell_sync.messages import (
    RaydiumCpmmContext as RaydiumCpmmContext,
)
from lasersell_sync.messages import (
    RaydiumLaunchpadContext as RaydiumLaunchpadContext,
)
from lasersell_sync.messages import (
    RequestExitSignal as RequestExitSignal,
)
from lasersell_sync.messages import (
    ServerMessage as ServerMessage,
)
from lasersell_sync.messages import (
    UnknownMessage as UnknownMessage,
)
from lasersell_sync.messages import (
    UpdatePositionStrategy as UpdatePositionStrategy,
)
from lasersell_sync.messages import (
    UpdateStrategy as UpdateStrategy,
)
from lasersell_sync.messages import (
    UpdateWallets as UpdateWallets,
)
from lasersell_sync.messages import (
    UpdateWatchWallets as UpdateWatchWallets,
)
from lasersell_sync.official import (
    DEFAULT_RETRY_POLICY as DEFAULT_RETRY_POLICY,
)
from lasersell_sync.official import (
    LOW_LATENCY_RETRY_POLICY as LOW_LATENCY_RETRY_POLICY,
)
from lasersell_sync.official import (
    ExitApiDefaults as ExitApiDefaults,
)
from lasersell_sync.official import (
    MarketTypeMsg as MarketTypeMsg,
)
from lasersell_sync.official import (
    OptionalStrategyConfig as OptionalStrategyConfig,
)
from lasersell_sync.official import (
    client_message_from_obj as client_message_from_obj,
)
from lasersell_sync.official import (
    delay_for_attempt as delay_for_attempt,
)
from lasersell_sync.official import (
    low_latency_retry_policy as low_latency_retry_policy,
)
from lasersell_sync.official import (
    parse_build_tx_response as parse_build_tx_response,
)
from lasersell_sync.official import (
    server_message_from_obj as server_message_from_obj,
)
from lasersell_sync.official import (
    summarize_error_body as summarize_error_body,
)
from lasersell_sync.positions import (
    PositionHandle,
    PositionKey,
)
from lasersell_sync.quotes import (
    format_quote,
)
from lasersell_sync.recording import (
    RecordedFrame as RecordedFrame,
)
from lasersell_sync.recording import (
    Recorder,
    Recording,
    RecordingError,
    replay,
)
from lasersell_sync.retry import (
    RetryPolicy,
)
from lasersell_sync.session.events import (
    Contradiction as Contradiction,
)
from lasersell_sync.session.events import (
    FeedSilent,
    HandlerError,
    Resynced,
    StreamEvent,
)
from lasersell_sync.session.events import (
    HandlerStuck as HandlerStuck,
)
from lasersell_sync.session.health import (
    Health,
)
from lasersell_sync.session.stream_session import (
    StreamSession,
)
from lasersell_sync.strategy import (
    StrategyConfigBuilder,
    validate_strategy,
)
from lasersell_sync.strategy import (
    strategy_config_from_optional as strategy_config_from_optional,
)
from lasersell_sync.stream.client import (
    StreamClient,
)
from lasersell_sync.stream.connection import (
    PositionSelector as PositionSelector,
)
from lasersell_sync.stream.connection import (
    StreamConnection,
    StreamSender,
)
from lasersell_sync.stream.connection import (
    StreamReceiver as StreamReceiver,
)
from lasersell_sync.stream.connection_events import (
    Closed,
    Connected,
    Disconnected,
    Failed,
    Lagged,
    Reconnecting,
)
from lasersell_sync.stream.connection_events import (
    CommandDropped as CommandDropped,
)
from lasersell_sync.stream.connection_events import (
    ConnectionEvent as ConnectionEvent,
)
from lasersell_sync.stream.connection_events import (
    DecodeFailure as DecodeFailure,
)
from lasersell_sync.stream.connection_events import (
    Degraded as Degraded,
)
from lasersell_sync.stream.event_queue import (
    EventQueue,
)
from lasersell_sync.stream.lifecycle import (
    ConnectionState,
)
from lasersell_sync.stream.options import (
    LOCAL_STREAM_ENDPOINT as LOCAL_STREAM_ENDPOINT,
)
from lasersell_sync.stream.options import (
    STREAM_ENDPOINT as STREAM_ENDPOINT,
)
from lasersell_sync.stream.options import (
    StreamConfigure,
    StreamOptions,
)
from lasersell_sync.stream.options import (
    single_wallet_stream_configure as single_wallet_stream_configure,
)
from lasersell_sync.stream.options import (
    single_wallet_stream_configure_optional as single_wallet_stream_configure_optional,
)
from lasersell_sync.stream.stats import (
    StreamStats as StreamStats,
)
from lasersell_sync.trading import (
    ASTRALANE_DEFAULT_REGION as ASTRALANE_DEFAULT_REGION,
)
from lasersell_sync.trading import (
    EXIT_API_BASE_URL as EXIT_API_BASE_URL,
)
from lasersell_sync.trading import (
    HELIUS_SENDER_FAST_URL as HELIUS_SENDER_FAST_URL,
)
from lasersell_sync.trading import (
    LOCAL_EXIT_API_BASE_URL as LOCAL_EXIT_API_BASE_URL,
)
from lasersell_sync.trading import (
    MAINNET_BETA_RPC_URL,
    BuildBuyTxRequest,
    BuildSellTxRequest,
    BuildTxResponse,
    ExitApiClient,
    ExitApiClientOptions,
    GuardReport,
    PendingTx,
    SellOutcome,
    SendTargetAstralane,
    SendTargetHeliusSender,
    SendTargetRpc,
    Signer,
    SigningGuard,
    TxResult,
    TxSender,
    confirm_signature,
    prove_ownership,
    send_transaction,
    sign_unsigned_tx,
)
from lasersell_sync.trading import (
    Account as Account,
)
from lasersell_sync.trading import (
    AccountLimits as AccountLimits,
)
from lasersell_sync.trading import (
    ConfirmedSignature as ConfirmedSignature,
)
from lasersell_sync.trading import (
    HistoryPage as HistoryPage,
)
from lasersell_sync.trading import (
    HistoryTrade as HistoryTrade,
)
from lasersell_sync.trading import (
    SellOutput as SellOutput,
)
from lasersell_sync.trading import (
    SendTarget as SendTarget,
)
from lasersell_sync.trading import (
    SignedTx as SignedTx,
)
from lasersell_sync.trading import (
    TradeContext as TradeContext,
)
from lasersell_sync.trading import (
    WalletProof as WalletProof,
)
from lasersell_sync.trading import (
    astralane_iris_url as astralane_iris_url,
)
from lasersell_sync.trading import (
    close_rpc_connections as close_rpc_connections,
)
from lasersell_sync.trading import (
    encode_signed_tx as encode_signed_tx,
)
from lasersell_sync.trading import (
    send_transaction_b64_to as send_transaction_b64_to,
)
from lasersell_sync.trading import (
    sign_unsigned_tx_b64 as sign_unsigned_tx_b64,
)
from lasersell_sync.trading import (
    warm_send_target as warm_send_target,
)

__all__ = [
    "__version__",
    "AuthenticationError",
    "ConfigurationError",
    "DecodeError",
    "ExitApiError",
    "JournalError",
    "LaserSellError",
    "SessionLimitError",
    "StrategyError",
    "StreamClosed",
    "StreamError",
    "TransportError",
    "TxSubmitError",
    "UnsafeTransactionError",
    "WaitTimeoutError",
    "AutoBuyConfig",
    "BalanceUpdate",
    "ErrorMessage",
    "ExitSignalWithTx",
    "HelloOk",
    "LiquiditySnapshot",
    "MirrorBuySignal",
    "MirrorConfig",
    "PnlUpdate",
    "PositionClosed",
    "PositionOpened",
    "SlippageBand",
    "StrategyConfig",
    "TakeProfitLevel",
    "TradeTick",
    "WatchWallet",
    "PositionHandle",
    "PositionKey",
    "format_quote",
    "StrategyConfigBuilder",
    "validate_strategy",
    "RetryPolicy",
    "backend",
    "message_to_dict",
    "server_message_from_text",
    "ConnectionState",
    "Closed",
    "Connected",
    "Disconnected",
    "Failed",
    "Lagged",
    "Reconnecting",
    "StreamConfigure",
    "StreamOptions",
    "StreamSender",
    "EventQueue",
    "StreamConnection",
    "StreamClient",
    "FeedSilent",
    "HandlerError",
    "Resynced",
    "StreamEvent",
    "Health",
    "StreamSession",
    "AutoSeller",
    "BuyReport",
    "ExitKey",
    "Journal",
    "LegPlan",
    "Refusal",
    "SellPolicy",
    "SellReport",
    "Recorder",
    "Recording",
    "RecordingError",
    "replay",
    "MAINNET_BETA_RPC_URL",
    "BuildBuyTxRequest",
    "BuildSellTxRequest",
    "BuildTxResponse",
    "ExitApiClient",
    "ExitApiClientOptions",
    "GuardReport",
    "PendingTx",
    "SellOutcome",
    "SendTargetAstralane",
    "SendTargetHeliusSender",
    "SendTargetRpc",
    "Signer",
    "SigningGuard",
    "TxResult",
    "TxSender",
    "confirm_signature",
    "prove_ownership",
    "send_transaction",
    "sign_unsigned_tx",
]

# The official SDK's spellings.
AutoBuyConfigMsg = AutoBuyConfig
BalanceUpdateServerMessage = BalanceUpdate
ClosePositionClientMessage = ClosePosition
ConfigureClientMessage = Configure
ErrorServerMessage = ErrorMessage
ExitSignalWithTxServerMessage = ExitSignalWithTx
HelloOkServerMessage = HelloOk
LimitsMsg = Limits
LiquiditySnapshotServerMessage = LiquiditySnapshot
MarketContextMsg = MarketContext
MirrorBuyFailedServerMessage = MirrorBuyFailed
MirrorBuyResultClientMessage = MirrorBuyResult
MirrorBuySignalServerMessage = MirrorBuySignal
MirrorConfigMsg = MirrorConfig
MirrorWalletAutoDisabledServerMessage = MirrorWalletAutoDisabled
PnlUpdateServerMessage = PnlUpdate
PositionClosedServerMessage = PositionClosed
PositionOpenedServerMessage = PositionOpened
RequestExitSignalClientMessage = RequestExitSignal
SlippageBandMsg = SlippageBand
StrategyConfigMsg = StrategyConfig
TakeProfitLevelMsg = TakeProfitLevel
TradeTickServerMessage = TradeTick
UpdatePositionStrategyClientMessage = UpdatePositionStrategy
UpdateStrategyClientMessage = UpdateStrategy
UpdateWalletsClientMessage = UpdateWallets
UpdateWatchWalletsClientMessage = UpdateWatchWallets
WatchWalletEntryMsg = WatchWallet
PositionSelectorInput = PositionSelector
