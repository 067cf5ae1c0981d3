"""The public names: complete, importable from one place, cheap to import, and nothing happens on import."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import textwrap

import pytest

import lasersell_sync

#: Names that users were promised. Removing one is a decision for the changelog.
PROMISED = [
    "HelloOk",
    "Pong",
    "ErrorMessage",
    "PnlUpdate",
    "LiquiditySnapshot",
    "TradeTick",
    "BalanceUpdate",
    "PositionOpened",
    "PositionClosed",
    "ExitSignalWithTx",
    "MirrorBuySignal",
    "MirrorBuyFailed",
    "MirrorWalletAutoDisabled",
    "UnknownMessage",
    "Ping",
    "Configure",
    "UpdateStrategy",
    "UpdatePositionStrategy",
    "ClosePosition",
    "RequestExitSignal",
    "UpdateWallets",
    "UpdateWatchWallets",
    "MirrorBuyResult",
    "Limits",
    "StrategyConfig",
    "TakeProfitLevel",
    "SlippageBand",
    "MarketContext",
    "PumpFunContext",
    "PumpSwapContext",
    "MeteoraDbcContext",
    "MeteoraDammV2Context",
    "RaydiumLaunchpadContext",
    "RaydiumCpmmContext",
    "WatchWallet",
    "AutoBuyConfig",
    "MirrorConfig",
    "ServerMessage",
    "ClientMessage",
    "server_message_from_text",
    "server_message_to_text",
    "client_message_from_text",
    "client_message_to_text",
    "message_to_dict",
    "backend",
    "StreamClient",
    "StreamConfigure",
    "StreamOptions",
    "StreamConnection",
    "StreamReceiver",
    "StreamSender",
    "StreamSession",
    "StreamEvent",
    "ConnectionState",
    "EventQueue",
    "PositionHandle",
    "StrategyConfigBuilder",
    "strategy_config_from_optional",
    "single_wallet_stream_configure",
    "single_wallet_stream_configure_optional",
    "Connected",
    "Disconnected",
    "Reconnecting",
    "Failed",
    "Closed",
    "Lagged",
    "DecodeFailure",
    "HandlerError",
    "ExitApiClient",
    "ExitApiClientOptions",
    "Account",
    "AccountLimits",
    "ExitApiError",
    "BuildSellTxRequest",
    "BuildBuyTxRequest",
    "BuildTxResponse",
    "SellOutput",
    "WalletProof",
    "prove_ownership",
    "SendTargetRpc",
    "SendTargetHeliusSender",
    "SendTargetAstralane",
    "send_transaction",
    "send_transaction_b64_to",
    "Recorder",
    "replay",
    "warm_send_target",
    "sign_unsigned_tx",
    "sign_unsigned_tx_b64",
    "encode_signed_tx",
    "confirm_signature",
    "SignedTx",
    "Signer",
    "SigningGuard",
    "TradeContext",
    "GuardReport",
    "HistoryPage",
    "format_quote",
    "HistoryTrade",
    "TxSender",
    "PendingTx",
    "TxResult",
    "SellOutcome",
    "AutoSeller",
    "SellPolicy",
    "Refusal",
    "SellReport",
    "Journal",
    "JournalError",
    "TxSubmitError",
    "UnsafeTransactionError",
    "RetryPolicy",
    "LaserSellError",
    "StreamError",
    "StreamClientError",
    "StrategyError",
    "ConfigurationError",
    "AuthenticationError",
    "BrokenRule",
    "WalletNotRegisteredError",
    "SessionLimitError",
    "HandshakeError",
    "TransportError",
    "StreamClosed",
    "ProtocolError",
    "DecodeError",
    "ConcurrencyError",
    "SendBufferFull",
]


@pytest.mark.parametrize("name", PROMISED)
def test_the_promised_name_is_there(name: str) -> None:
    """Everything comes from ``lasersell_sync``."""
    assert getattr(lasersell_sync, name) is not None


def test_all_is_what_is_visible() -> None:
    """``__all__`` lists every visible name, once, and nothing that is not there."""
    names = lasersell_sync.__all__
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(lasersell_sync, name), name
    assert {name for name in dir(lasersell_sync) if not name.startswith("_")} == set(names) - {"__version__"}


def test_front_door_lists_the_names_that_most_programs_need() -> None:
    """The others resolve, and are in the reference, but do not stand in the way of completion."""
    assert len(lasersell_sync.__all__) <= 92
    assert not lasersell_sync._RARE - lasersell_sync._HOME_OF.keys()


OFFICIAL = sorted({*lasersell_sync._OFFICIAL_SPELLINGS, *lasersell_sync._HOMES["official"]})


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_name_resolves_from_the_top_without_a_warning(name: str) -> None:
    assert getattr(lasersell_sync, name) is not None
    assert name not in dir(lasersell_sync)


def test_official_sdk_has_no_public_name_that_is_missing_here() -> None:
    """But its coroutines, and the error of one of them."""
    sdk = pytest.importorskip("lasersell_sdk")
    modules = [
        sdk,
        *(importlib.import_module(f"lasersell_sdk.{each}") for each in ("exit_api", "retry", "stream", "tx")),
    ]
    names = {name for module in modules for name in module.__all__} - {"stream"}
    asynchronous = {"retry_async", "with_timeout", "TimeoutError"}
    assert {name for name in names if not hasattr(lasersell_sync, name)} == asynchronous


@pytest.mark.parametrize(
    "module",
    [
        "exceptions",
        "messages",
        "strategy",
        "positions",
        "codec",
        "trading",
        "stream.options",
        "stream.client",
        "session.events",
    ],
)
def test_public_classes_and_functions_are_documented(module: str) -> None:
    """Every public object, and every public method of it, has a docstring."""
    loaded = importlib.import_module(f"lasersell_sync.{module}")
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert inspect.getdoc(value), name
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            if not attribute.startswith("_") and inspect.isfunction(member):
                assert member.__doc__, f"{name}.{attribute}"


def run(program: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_loads_nothing_heavy_and_starts_nothing() -> None:
    """solders, urllib3 and SQLite come with their first use; no thread, no socket, no output."""
    assert (
        run(
            """
            import sys, threading, socket
            def forbidden(*a, **k): raise AssertionError("import opened a socket")
            socket.socket.connect = forbidden
            import lasersell_sync
            heavy = [m for m in ("solders", "urllib3", "sqlite3", "websockets", "werkzeug", "click", "rich") if m in sys.modules]
            print(heavy, threading.active_count())
            """
        )
        == "[] 1"
    )


def test_heavy_packages_come_with_their_first_use() -> None:
    """Signing loads solders, and not urllib3."""
    assert (
        run(
            """
            import sys, lasersell_sync
            try: lasersell_sync.sign_unsigned_tx_b64("AAAA", object())
            except Exception: pass
            print("solders" in sys.modules, "urllib3" in sys.modules)
            """
        )
        == "True False"
    )
