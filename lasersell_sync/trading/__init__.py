"""Building, signing, sending and confirming transactions.

Importing this package loads neither urllib3 nor solders: together they cost more than everything else, and a program
that only reads the stream needs neither. The first request loads the one, the first signature the other.
"""

from __future__ import annotations

from lasersell_sync.trading.guard import GuardReport, SigningGuard, TradeContext
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.rest.account import Account, AccountLimits, HistoryPage, HistoryTrade
from lasersell_sync.trading.rest.exit_api import (
    EXIT_API_BASE_URL,
    LOCAL_EXIT_API_BASE_URL,
    ExitApiClient,
    ExitApiClientOptions,
)
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest, BuildTxResponse, SellOutput
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from lasersell_sync.trading.sending.tx_sender import PendingTx, TxSender
from lasersell_sync.trading.solana.send_targets import (
    ASTRALANE_DEFAULT_REGION,
    HELIUS_SENDER_FAST_URL,
    MAINNET_BETA_RPC_URL,
    SendTarget,
    SendTargetAstralane,
    SendTargetHeliusSender,
    SendTargetRpc,
    astralane_iris_url,
)
from lasersell_sync.trading.solana.signing import (
    SignedTx,
    WalletProof,
    encode_signed_tx,
    prove_ownership,
    sign_unsigned_tx,
    sign_unsigned_tx_b64,
)
from lasersell_sync.trading.solana.solana_rpc import (
    ConfirmedSignature,
    close_rpc_connections,
    confirm_signature,
    send_transaction,
    send_transaction_b64_to,
    warm_send_target,
)

__all__ = [
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
