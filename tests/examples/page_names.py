"""Names that code blocks of the pages use and that the reader's program would have: a session, a signer, a handler.

Each is the real thing on the page's sandbox. A session that a block opens lives through a day: a position opens, its price
moves, it is sold, and the session is closed, so that a block which consumes the session until its end comes to that end.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import Any

import lasersell_sync as ls
from tests.examples.trading import Account

#: Only an exchange that hangs takes this long.
LIMIT_S = 40.0


class Names:
    """Lends names to one block after another.

    Args:
        account: the page's wallet on the page's sandbox.
        bot: the module that the reader wrote.
    """

    def __init__(self, account: Account, bot: ModuleType) -> None:
        self._account = account
        self._bot = bot
        self._rpc = ls.SendTargetRpc(os.environ["LASERSELL_RPC_URL"])
        self._signer = ls.Signer.from_env()
        self._newest_pnl_update: ls.PnlUpdate | None = None
        self._position_opened: ls.PositionOpened | None = None
        # A page's guard has the patience of a test: on a loaded machine the sandbox's node may take a second.
        ls.SigningGuard.__init__.__kwdefaults__["simulation_timeout_s"] = LIMIT_S
        self._guard = ls.SigningGuard(rpc=self._rpc)
        self._mints = itertools.cycle(account.sandbox.mints)
        #: Sessions whose exits an AutoSeller of the block sells.
        self._sold_by_seller: list[ls.StreamSession] = []
        self._connect = ls.StreamSession.connect
        self._watch_what_blocks_open()

    def _watch_what_blocks_open(self) -> None:
        make_seller = ls.AutoSeller.__init__

        def connect(client: ls.StreamClient, configure: ls.StreamConfigure, **more: Any) -> ls.StreamSession:
            session = self._connect(client, configure, **more)
            threading.Thread(target=self._live, args=(session,), daemon=True, name="day").start()
            return session

        def make(seller: ls.AutoSeller, session: ls.StreamSession, *more: Any, **named: Any) -> None:
            self._sold_by_seller.append(session)
            make_seller(seller, session, *more, **named)

        ls.StreamSession.connect = connect  # type: ignore[method-assign, assignment]
        ls.AutoSeller.__init__ = make  # type: ignore[method-assign]

    def lend(self, names: Sequence[str], stack: ExitStack, place: str) -> dict[str, object]:
        """The values of these names; the stack closes what has to be closed."""
        lent: dict[str, object] = {}
        for name in names:
            make: Callable[[ExitStack], object] | None = getattr(self, f"make_{name}", None)
            if make is None:
                raise SystemExit(f"{place} uses {name!r}, which neither the page nor page_names.py defines")
            lent[name] = make(stack)
        return lent

    # ── a day on the exchange ────────────────────────────────────────────────────────────────────────────────────

    def _live(self, session: ls.StreamSession) -> None:
        """Open a position, signal its exit, have it sold, close the session. A block may close it before that."""
        with suppress(ls.StreamClosed):
            _, _, signal = self._signalled(session)
            if session not in self._sold_by_seller:
                with ls.TxSender(self._rpc) as sender:
                    sender.send(self._signer.sign_tx(signal, guard=self._guard))
            session.wait_for(ls.PositionClosed, LIMIT_S)
            session.close()

    def _signalled(self, session: ls.StreamSession) -> tuple[ls.PositionOpened, ls.PnlUpdate, ls.ExitSignalWithTx]:
        """Open a position and signal its exit."""
        sandbox = self._account.sandbox
        sandbox.script.grant(self._signer.wallet, next(self._mints), 0.5)
        opened = session.wait_for(ls.PositionOpened, LIMIT_S).message
        update = session.wait_for(ls.PnlUpdate, LIMIT_S).message
        sandbox.force_exit(opened.position_id, "target_profit")
        return opened, update, session.wait_for(ls.ExitSignalWithTx, LIMIT_S).message

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

    def make_ls(self, _: ExitStack) -> object:
        """The package, as every page imports it."""
        return ls

    def make_bot(self, _: ExitStack) -> object:
        """The reader's own module."""
        return self._bot

    def make_sandbox(self, _: ExitStack) -> object:
        """The page's; the faults that a block orders end with it."""
        return self._account.sandbox

    def make_signer(self, _: ExitStack) -> object:
        """The page's wallet."""
        return self._signer

    def make_client(self, _: ExitStack) -> object:
        """For the page's sandbox."""
        return ls.StreamClient.from_env()

    def make_configure(self, _: ExitStack) -> object:
        """The page's wallet, and an exit that no price reaches: the day signals it."""
        return ls.StreamConfigure([self._signer.wallet], ls.StrategyConfig(target_profit_pct=5_000, stop_loss_pct=0))

    def make_session(self, stack: ExitStack) -> object:
        """Open, with a day ahead."""
        client, configure = self.make_client(stack), self.make_configure(stack)
        return stack.enter_context(ls.StreamSession.connect(client, configure))  # type: ignore[arg-type]

    def make_rpc(self, _: ExitStack) -> object:
        """The sandbox's node."""
        return self._rpc

    def make_sender(self, stack: ExitStack) -> object:
        """For that node."""
        return stack.enter_context(ls.TxSender(self._rpc))

    def make_api(self, stack: ExitStack) -> object:
        """The sandbox's REST API."""
        return stack.enter_context(ls.ExitApiClient.from_env())

    def make_seller(self, stack: ExitStack) -> object:
        """Sells what its own session signals."""
        session, sender = self.make_session(stack), self.make_sender(stack)
        seller = ls.AutoSeller(session, self._signer, sender=sender, journal=":memory:", guard=self._guard)  # type: ignore[arg-type]
        return stack.enter_context(seller)

    def make_i_looked_at(self, _: ExitStack) -> object:
        """A decision about a refusal."""
        return lambda refusal: not refusal.was_signed

    def make_exit_signal(self, stack: ExitStack) -> object:
        """Of an open position, which nobody sells meanwhile."""
        client, configure = self.make_client(stack), self.make_configure(stack)
        session = stack.enter_context(self._connect(client, configure))  # type: ignore[arg-type]
        self._position_opened, self._newest_pnl_update, signal = self._signalled(session)
        return signal

    def make_newest_pnl_update(self, _: ExitStack) -> object:
        """Of the position whose ``exit_signal`` the same block uses."""
        return self._newest_pnl_update

    def make_position_opened(self, _: ExitStack) -> object:
        """The same."""
        return self._position_opened

    def make_mirror_buy_signal(self, stack: ExitStack) -> object:
        """A purchase of 0.1 SOL that copies another wallet's."""
        mint = next(self._mints)
        with ls.ExitApiClient.from_env(ls.ExitApiClientOptions(connect_timeout_s=10, attempt_timeout_s=20)) as api:
            order = ls.BuildBuyTxRequest(mint, self._signer.wallet, slippage_bps=2_000, amount=0.1)
            built = api.build_buy_tx(order)
        return ls.MirrorBuySignal(
            session_id=1, watched_wallet=mint, user_wallet=self._signer.wallet, mint=mint, input="SOL",
            amount_quote_units=100_000_000, slippage_bps=2_000, unsigned_tx_b64=built.tx,
        )  # fmt: skip

    def make_sell(self, _: ExitStack) -> object:
        """A handler."""
        return lambda event: print("to sell:", event.message.mint)

    def make_show(self, _: ExitStack) -> object:
        """A handler."""
        return lambda event: print("profit:", event.message.profit_units)
