"""A web worker that owns a session: it shows open positions at /positions, and sells them on their exit signals.

    flask --app examples/flask_app run

Settings come from the environment; see examples/README.md. A key has one session, so run one worker process with many
threads (``gunicorn --workers 1 --threads 8``): a second process would be refused with SessionLimitError.
"""

import atexit
import contextlib
import os
import threading
from concurrent.futures import Future

from flask import Flask, Response, jsonify

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    AutoSeller,
    ExitApiClient,
    LaserSellError,
    PositionHandle,
    SendTargetRpc,
    Signer,
    SigningGuard,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamSession,
    TxSender,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)


class SessionOwner:
    """Opens the worker's one session on first use, and closes it with the worker.

    Not at import: a pre-forking server imports the application in the parent, and threads do not survive a fork.
    """

    def __init__(self) -> None:
        # Held for a moment, never while connecting: other requests wait for the result, not for a lock.
        self._lock = threading.Lock()
        self._session: Future[StreamSession] | None = None

    def get(self) -> StreamSession:
        with self._lock:
            opening = self._session
            is_first = opening is None
            if opening is None:
                opening = self._session = Future()
        if is_first:
            self._open_into(opening)
        return opening.result()

    def _open_into(self, opening: Future[StreamSession]) -> None:
        try:
            session = self._open()
        except BaseException as error:  # noqa: BLE001 - every request that waits must get it
            with self._lock:
                self._session = None  # the next request tries again
            opening.set_exception(error)
        else:
            opening.set_result(session)

    def _open(self) -> StreamSession:
        signer = Signer.from_env()
        rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
        journal = os.environ.get("SALES_JOURNAL", "sales.journal")
        with contextlib.ExitStack() as opened:
            api = opened.enter_context(ExitApiClient.from_env())
            api.register_wallet(signer.prove_ownership())  # needed once per wallet; repeating it is harmless
            sender = opened.enter_context(TxSender(rpc))
            configure = StreamConfigure([signer.wallet], STRATEGY)
            session = opened.enter_context(StreamSession.connect(StreamClient.from_env(), configure))
            # It sells on threads of its own: no request waits for it. What it cannot sell is logged as a warning.
            guard = SigningGuard(rpc=rpc)
            opened.enter_context(AutoSeller(session, signer, sender=sender, journal=journal, guard=guard, exit_api=api))
            # All went well: what was opened is closed with the worker, in reverse order.
            atexit.register(opened.pop_all().close)
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
        "entry": handle.format_quote(handle.entry_quote_units),
        "entry_units": handle.entry_quote_units,
        "profit": None if newest is None else handle.format_quote(newest.profit_units, signed=True),
        "profit_pct": None if newest is None else handle.profit_pct(newest.profit_units),
        "currency": handle.quote_currency,
        "trend": session.get_liquidity_trend(handle),
    }
