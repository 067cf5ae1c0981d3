"""A bot made of handlers, beside an AutoSeller that sells every position on its exit signal.

    python examples/callback_bot.py [--buy MINT --sol 0.1] [--journal sales.journal] [--once]

Settings come from the environment; see examples/README.md. Ctrl-C or SIGTERM ends it.
"""

import argparse
import logging
import os
import signal

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    AutoSeller,
    BuildBuyTxRequest,
    ExitApiClient,
    ExitSignalWithTx,
    PositionClosed,
    PositionOpened,
    SellReport,
    SendTargetRpc,
    Signer,
    SigningGuard,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamSession,
    TxSender,
    format_quote,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)

log = logging.getLogger("callback_bot")


class Bot:
    def __init__(self, session: StreamSession, seller: AutoSeller, *, once: bool) -> None:
        self.session = session
        #: With --once: what has to happen before the bot ends.
        self.awaited = {"close", "sale"} if once else {"signal from outside"}
        session.on(PositionOpened, self.on_opened)
        session.on(ExitSignalWithTx, self.on_exit)
        session.on(PositionClosed, self.on_closed)
        seller.on_outcome(self.on_outcome)

    # A handler may block: it runs on the thread that called run(), never on the one that reads the socket. Other
    # handlers wait meanwhile; the sale does not.

    def on_opened(self, event: StreamEvent[PositionOpened]) -> None:
        log.info("position %s in %s", event.message.position_id, event.message.mint)

    def on_exit(self, event: StreamEvent[ExitSignalWithTx]) -> None:
        profit = event.message.profit_units
        shown = event.handle.format_quote(profit, signed=True) if event.handle else f"{profit} units"
        log.info("exit signal: %s, profit %s", event.message.reason, shown)

    def on_closed(self, event: StreamEvent[PositionClosed]) -> None:
        log.info("position %s closed: %s", event.message.position_id, event.message.reason)
        self.happened("close")

    def on_outcome(self, report: SellReport) -> None:
        """On a thread of the seller: once for each exit, also when it failed."""
        profit = "" if report.profit_units is None else format_quote(report.profit_units, report.quote_currency)
        log.info("sale of %s: %s %s %s", report.mint, report.outcome.value, profit, report.detail)
        self.happened("sale")

    def happened(self, what: str) -> None:
        self.awaited.discard(what)
        if not self.awaited:
            self.session.close()  # allowed in a handler; run() returns after it


def buy(api: ExitApiClient, sender: TxSender, signer: Signer, guard: SigningGuard, mint: str, sol: float) -> None:
    order = BuildBuyTxRequest(mint, signer.wallet, slippage_bps=2_000, amount=sol)
    # The guard compares the transaction with the order: it may cost no more, and buy nothing else.
    result = sender.send(signer.sign(api.build_buy_tx(order), request=order, guard=guard))
    log.info("bought: %s %s", result.outcome.value, result.signature)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sells positions on their exit signals, and tells what happens.")
    parser.add_argument("--buy", metavar="MINT", help="open a position first")
    parser.add_argument("--sol", type=float, default=0.1, help="what to spend on it (default 0.1)")
    parser.add_argument("--journal", default="sales.journal", help="the record of sales (default sales.journal)")
    parser.add_argument("--once", action="store_true", help="end after the first position closed")
    arguments = parser.parse_args()
    # Without this, only warnings and errors of the library are shown.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # A service manager's SIGTERM ends the bot as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    signer = Signer.from_env()
    rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
    guard = SigningGuard(rpc=rpc)  # the node simulates what no rule can read
    configure = StreamConfigure([signer.wallet], STRATEGY)
    with ExitApiClient.from_env() as api, TxSender(rpc) as sender:
        api.register_wallet(signer.prove_ownership())  # needed once per wallet; repeating it is harmless
        with (
            StreamSession.connect(StreamClient.from_env(), configure) as session,
            AutoSeller(session, signer, sender=sender, journal=arguments.journal, guard=guard, exit_api=api) as seller,
        ):
            Bot(session, seller, once=arguments.once)
            if arguments.buy:
                # After connecting: the server sees a position by watching its tokens arrive.
                buy(api, sender, signer, guard, arguments.buy, arguments.sol)
            session.run()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        log.info("stopped")
