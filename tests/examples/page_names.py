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
            signal = self._exit_signal(session)
            if session not in self._sold_by_seller:
                with ls.TxSender(self._rpc) as sender:
                    sender.send(self._signer.sign_tx(signal, guard=self._guard))
            session.wait_for(ls.PositionClosed, LIMIT_S)
            session.close()

    def _exit_signal(self, session: ls.StreamSession) -> ls.ExitSignalWithTx:
        sandbox = self._account.sandbox
        sandbox.script.grant(self._signer.wallet, next(self._mints), 0.5)
        opened = session.wait_for(ls.PositionOpened, LIMIT_S).message
        session.wait_for(ls.PnlUpdate, LIMIT_S)
        sandbox.force_exit(opened.position_id, "target_profit")
        return session.wait_for(ls.ExitSignalWithTx, LIMIT_S).message

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

    def make_sell(self, _: ExitStack) -> object:
        """A handler."""
        return lambda event: print("to sell:", event.message.mint)

    def make_show(self, _: ExitStack) -> object:
        """A handler."""
        return lambda event: print("profit:", event.message.profit_units)
