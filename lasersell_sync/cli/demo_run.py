"""One trade, from an empty wallet to a closed position, told step by step to a screen.

Nothing here knows what the screen looks like: ``play`` tells a ``Screen`` what happens and returns a ``DemoResult``.
"""

from __future__ import annotations

import contextlib
import queue
import time
from typing import Protocol, cast

import attrs
from solders.keypair import Keypair

from lasersell_sync import (
    BuildBuyTxRequest,
    ExitApiClient,
    ExitApiClientOptions,
    ExitSignalWithTx,
    PositionHandle,
    PositionOpened,
    SendTargetRpc,
    Signer,
    SigningGuard,
    SlippageBand,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamSession,
    TradeContext,
    __version__,
    backend,
    close_rpc_connections,
    confirm_signature,
    send_transaction_b64_to,
)
from lasersell_sync.cli.wording import Ledger, percent, shortened, signed_sol, sol, whole_tokens
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.sandbox import MintInfo, Sandbox

__all__ = ["DemoError", "DemoResult", "ExitTimes", "PositionView", "Screen", "play"]

SPENT_LAMPORTS = 500_000_000
STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=20)
SLIPPAGE_BPS = 2_000
#: How often the chain is asked whether a transaction landed; the measured landing is that coarse.
CONFIRM_POLL_S = 0.05
# A demo on a busy machine may take longer than a trade on a good one.
PATIENT = ExitApiClientOptions(connect_timeout_s=2.0, attempt_timeout_s=10.0)
SIMULATION_TIMEOUT_S = 10.0


class DemoError(Exception):
    """The story did not come to its end; the text says where it stopped."""


@attrs.frozen(kw_only=True)
class PositionView:
    """What a screen shows of an open position.

    Attributes:
        entry_lamports: what it cost.
        profit_lamports: what selling all of it now would bring, less that; None before the server said so.
        bands: how much of it can be sold within each slippage; empty before the first snapshot.
        trend: ``growing``, ``stable`` or ``draining``, or None.
    """

    symbol: str
    name: str
    entry_lamports: int
    profit_lamports: int | None
    bands: tuple[SlippageBand, ...]
    trend: str | None


class Screen(Protocol):
    """Shows the story; called from one thread."""

    def step(self, title: str, text: str) -> None:
        """Something was done, and what it means."""

    def position(self, view: PositionView) -> None:
        """The open position, as it is now; many a second."""


@attrs.frozen(kw_only=True)
class ExitTimes:
    """Milliseconds since the exit signal's bytes were read from the socket.

    Attributes:
        signed_ms: the guard let the transaction pass, with a node's simulation, and it was signed.
        submitted_ms: the RPC node had accepted it.
        landed_ms: the RPC node reported it as confirmed; includes the sandbox's own landing time.
    """

    signed_ms: float
    submitted_ms: float
    landed_ms: float


@attrs.frozen(kw_only=True)
class DemoResult:
    """A trade that closed on the ledger.

    Attributes:
        profit_lamports: the wallet's balance after the trade less the one before: fees are in it.
        signal_profit_lamports: the server's estimate when it sent the exit signal.
        duration_s: seconds of the whole story.
    """

    version: str
    backend: str
    seed: int
    wallet: str
    mint: str
    symbol: str
    market_type: str
    reason: str
    buy_signature: str
    exit_signature: str
    entry_lamports: int
    signal_profit_lamports: int
    profit_lamports: int
    balance_before_lamports: int
    balance_after_lamports: int
    times: ExitTimes
    messages_received: int
    decode_errors: int
    reconnects: int
    duration_s: float


def play(*, seed: int, timeout_s: float, screen: Screen) -> DemoResult:
    """Trade once on a sandbox of this process, with free ports.

    Args:
        seed: chooses the sandbox's tokens and prices.
        timeout_s: seconds for the whole story.
        screen: told what happens, on this thread.

    Raises:
        DemoError: a step did not happen in time, or the ledger does not agree that the position was sold.
        LaserSellError: a step failed.
        LedgerError: the chain could not be asked.
    """
    budget = TimeBudget(timeout_s)
    with Sandbox(seed=seed, stream_port=0, api_port=0, rpc_port=0) as sandbox:
        screen.step(
            "Exchange",
            f"a local one runs inside this process (seed {seed}): stream, REST API and Solana RPC on 127.0.0.1. "
            "Play money; nothing leaves this machine",
        )
        try:
            return _Trade(sandbox, seed, screen, budget, timeout_s).run()
        finally:
            close_rpc_connections()


class _Trade:
    """The steps, in order; each tells the screen what it did."""

    def __init__(self, sandbox: Sandbox, seed: int, screen: Screen, budget: TimeBudget, timeout_s: float) -> None:
        self._started = time.monotonic()
        self._seed = seed
        self._screen = screen
        self._budget = budget
        self._timeout_s = timeout_s
        self._signer = Signer.from_keypair(Keypair())
        self._wallet = self._signer.wallet
        #: The order caps what it costs to buy; the exchange's node simulates what its Router does.
        self._guard = SigningGuard(rpc=sandbox.rpc_url, simulation_timeout_s=SIMULATION_TIMEOUT_S)
        self._token: MintInfo = sandbox.mint_info[sandbox.mints[0]]
        self._client = StreamClient(sandbox.api_key).with_endpoint(sandbox.stream_url)
        self._api = ExitApiClient(sandbox.api_key, PATIENT).with_base_url(sandbox.api_url)
        self._rpc = SendTargetRpc(sandbox.rpc_url)
        self._ledger = Ledger(sandbox.rpc_url)
        #: What the exit signal said, kept until it may be shown.
        self._at_signal = ""

    def run(self) -> DemoResult:
        with self._api, contextlib.closing(self._guard):
            self._register()
            before = self._ledger.balance_lamports(self._wallet)
            # The stream sees a position by watching its tokens arrive: connect first, buy second.
            with self._connect() as session:
                buy_signature = self._buy()
                handle, opened = self._opened(session)
                signal, received_ns = self._watch(session)
                exit_signature, times = self._sell(signal, received_ns, opened)
                self._closed(session, exit_signature)
                stats = session.stats()
        after = self._ledger.balance_lamports(self._wallet)
        return DemoResult(
            version=__version__,
            backend=backend(),
            seed=self._seed,
            wallet=self._wallet,
            mint=handle.mint,
            symbol=self._token.symbol,
            market_type=self._token.market_type,
            reason=signal.reason,
            buy_signature=buy_signature,
            exit_signature=exit_signature,
            entry_lamports=handle.entry_quote_units,
            signal_profit_lamports=signal.profit_units,
            profit_lamports=after - before,
            balance_before_lamports=before,
            balance_after_lamports=after,
            times=times,
            messages_received=stats.messages_received,
            decode_errors=stats.decode_errors,
            reconnects=stats.sessions - 1,
            duration_s=time.monotonic() - self._started,
        )

    # ── before ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _register(self) -> None:
        self._api.register_wallet(self._signer.prove_ownership())
        self._screen.step(
            "Wallet",
            f"throwaway keypair {shortened(self._wallet)}; its owner proved it with a signature, and it is registered. "
            f"It holds {sol(self._ledger.balance_lamports(self._wallet))}",
        )

    def _connect(self) -> StreamSession:
        session = StreamSession.connect(self._client, StreamConfigure([self._wallet], STRATEGY))
        self._screen.step(
            "Stream",
            f"session {session.session_id} is open. Strategy: sell at {STRATEGY.target_profit_pct:+g} % "
            f"or at {-STRATEGY.stop_loss_pct:+g} %",
        )
        return session

    def _buy(self) -> str:
        order = BuildBuyTxRequest(self._token.mint, self._wallet, SLIPPAGE_BPS, amount_in_total=SPENT_LAMPORTS)
        signed = self._signer.sign(self._api.build_buy_tx(order), request=order, guard=self._guard)
        signature = send_transaction_b64_to(self._rpc, signed)
        landed = confirm_signature(
            self._rpc, signature, timeout_s=self._remaining_s("the purchase"), poll_interval_s=CONFIRM_POLL_S
        )
        self._screen.step(
            "Buy",
            f"{sol(SPENT_LAMPORTS)} for {self._token.symbol} ({self._token.name}, {self._token.market_type}): "
            f"built by the REST API, checked by the guard and signed here, landed in slot {landed.slot}",
        )
        return signature

    def _opened(self, session: StreamSession) -> tuple[PositionHandle, PositionOpened]:
        event = self._next(session, "position_opened")
        handle = event.handle
        assert handle is not None, "every position_opened has a handle"
        flush_ms = session.limits.pnl_flush_ms if session.limits is not None else 0
        self._screen.step(
            "Position",
            f"{whole_tokens(handle.tokens, handle.token_decimals)} {self._token.symbol} have arrived. The server "
            f"watches them now and tells profit and loss every {flush_ms} ms",
        )
        return handle, cast("PositionOpened", event.message)

    # ── the exit ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self, session: StreamSession) -> tuple[ExitSignalWithTx, int]:
        """Show the position until the server says "sell"; the signal, and when it came."""
        event = self._next(session, "exit_signal_with_tx", show=True)
        signal = cast("ExitSignalWithTx", event.message)
        entry = event.handle.entry_quote_units if event.handle is not None else 0
        return_pct = percent(signal.profit_units, entry)
        self._at_signal = f"{signal.reason} at {signed_sol(signal.profit_units)} ({return_pct})"
        return signal, event.received_ns

    def _sell(self, signal: ExitSignalWithTx, received_ns: int, opened: PositionOpened) -> tuple[str, ExitTimes]:
        # Nothing is shown before the sale is confirmed: a terminal's time has no part in what is measured.
        signed = self._signer.sign(signal, guard=self._guard, context=TradeContext(announcement=opened))
        signed_ms = _since_ms(received_ns)
        signature = send_transaction_b64_to(self._rpc, signed)
        submitted_ms = _since_ms(received_ns)
        landed = confirm_signature(
            self._rpc, signature, timeout_s=self._remaining_s("the sale"), poll_interval_s=CONFIRM_POLL_S
        )
        times = ExitTimes(signed_ms=signed_ms, submitted_ms=submitted_ms, landed_ms=_since_ms(received_ns))
        self._screen.step("Exit signal", f"{self._at_signal}. The server sent an unsigned sale with it")
        self._screen.step("Sale", f"checked by the guard, signed here, submitted, landed in slot {landed.slot}")
        return signature, times

    def _closed(self, session: StreamSession, exit_signature: str) -> None:
        """The stream says that it is over; believe the ledger."""
        self._next(session, "position_closed")
        left = self._ledger.token_balance(self._wallet, self._token.mint)
        if left or not self._ledger.succeeded(exit_signature):
            raise DemoError(f"the stream says closed, but the ledger still holds {left} atomic units of the token")
        self._screen.step("Closed", "the ledger agrees: the sale succeeded, and no tokens are left")

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _next(self, session: StreamSession, wanted: str, *, show: bool = False) -> StreamEvent:
        """The next event of a type; the position is shown meanwhile, if asked for."""
        while True:
            try:
                event = session.recv(timeout=self._remaining_s(wanted))
            except queue.Empty:
                continue  # the time is over, and the next round says so
            if event is None:
                raise DemoError(f"the session was closed while waiting for {wanted}")
            if event.type == wanted:
                return event
            if show and event.type in ("pnl_update", "liquidity_snapshot") and event.handle is not None:
                self._screen.position(self._view(session, event.handle))

    def _view(self, session: StreamSession, handle: PositionHandle) -> PositionView:
        newest = session.pnl(handle)
        return PositionView(
            symbol=self._token.symbol,
            name=self._token.name,
            entry_lamports=handle.entry_quote_units,
            profit_lamports=newest.profit_units if newest is not None else None,
            bands=session.get_slippage_bands(handle.position_id) or (),
            trend=session.get_liquidity_trend(handle.position_id),
        )

    def _remaining_s(self, waiting_for: str) -> float:
        if self._budget.expired():
            raise DemoError(f"{waiting_for} did not come within {self._timeout_s:g} s")
        return max(self._budget.remaining_s() or 0.0, 0.001)


def _since_ms(start_ns: int) -> float:
    return (time.monotonic_ns() - start_ns) / 1e6
