"""A web worker that owns a session: it shows open positions at /positions, and sells them on their exit signals.

    flask --app examples/flask_app run

Settings come from the environment; see examples/README.md. A key has one session, so run one worker process with many
threads (``gunicorn --workers 1 --threads 8``): a second process would be refused with SessionLimitError.
"""

import atexit
import os
import threading
from pathlib import Path

from flask import Flask, Response, jsonify
from solders.keypair import Keypair

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    ExitApiClient,
    LaserSellError,
    PositionHandle,
    SendTargetRpc,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamSession,
    confirm_signature,
    prove_ownership,
    send_transaction_b64_to,
    sign_unsigned_tx_b64,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)


class SessionOwner:
    """Opens the worker's one session on first use, and closes it with the worker.

    Not at import: a pre-forking server imports the application in the parent, and threads do not survive a fork.
    """

    def __init__(self) -> None:
        # Held while connecting, so that two first requests make one session.
        self._lock = threading.Lock()
        self._session: StreamSession | None = None

    def get(self) -> StreamSession:
        with self._lock:
            if self._session is None:
                self._session = self._open()
                atexit.register(self._session.close)
            return self._session

    def _open(self) -> StreamSession:
        keypair = Keypair.from_json(Path(os.environ["LASERSELL_KEYPAIR"]).read_text())
        rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
        with ExitApiClient.from_env() as api:
            api.register_wallet(prove_ownership(keypair))  # needed once per wallet; repeating it is harmless
        session = StreamSession.connect(StreamClient.from_env(), StreamConfigure([str(keypair.pubkey())], STRATEGY))

        @session.on("exit_signal_with_tx")
        def sell(event: StreamEvent) -> None:
            # On the dispatcher thread: no request waits for it. What it raises is logged, and the session goes on.
            signed = sign_unsigned_tx_b64(event.message.unsigned_tx_b64, keypair)
            confirm_signature(rpc, send_transaction_b64_to(rpc, signed))

        session.start()
        return session


app = Flask(__name__)
owner = SessionOwner()


@app.get("/positions")
def positions() -> Response:
    session = owner.get()
    # The session keeps this state by itself; reading it waits for nothing.
    return jsonify([describe(session, handle) for handle in session.positions()])


@app.errorhandler(LaserSellError)
def unavailable(error: LaserSellError) -> tuple[Response, int]:
    # The next request tries again: get() keeps nothing of a failed attempt. The text holds no key.
    return jsonify(error=str(error)), 503


def describe(session: StreamSession, handle: PositionHandle) -> dict[str, object]:
    newest = session.pnl(handle)
    return {
        "position_id": handle.position_id,
        "wallet": handle.wallet_pubkey,
        "mint": handle.mint,
        "symbol": handle.token_symbol,
        "tokens": handle.tokens,
        "entry_lamports": handle.entry_quote_units,
        "profit_lamports": newest.profit_units if newest is not None else None,
        "trend": session.get_liquidity_trend(handle.position_id),
    }
