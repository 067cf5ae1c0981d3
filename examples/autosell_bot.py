"""A bot that does not sell by hand: an AutoSeller follows the session, keeps a journal, and tells how each exit ended.

    python examples/autosell_bot.py [--buy MINT --sol 0.1] [--journal sales.journal] [--once]

Kill it whenever you like: the next start goes on where it was. Settings come from the environment; see
examples/README.md.
"""

import argparse
import logging
import os
import signal
import threading

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    AutoSeller,
    BuildBuyTxRequest,
    ExitApiClient,
    SellOutcome,
    SellReport,
    SendTargetRpc,
    Signer,
    SigningGuard,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamSession,
    TxSender,
    format_quote,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)

log = logging.getLogger("autosell_bot")


def buy(api: ExitApiClient, sender: TxSender, signer: Signer, guard: SigningGuard, mint: str, sol: float) -> None:
    order = BuildBuyTxRequest(mint, signer.wallet, slippage_bps=2_000, amount=sol)
    # The guard compares the transaction with the order: it may cost no more, and buy nothing else.
    result = sender.send(signer.sign(api.build_buy_tx(order), request=order, guard=guard))
    log.info("bought: %s %s", result.outcome.value, result.signature)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sells positions on their exit signals, by itself.")
    parser.add_argument("--buy", metavar="MINT", help="open a position first")
    parser.add_argument("--sol", type=float, default=0.1, help="what to spend on it (default 0.1)")
    parser.add_argument("--journal", default="sales.journal", help="the record of sales (default sales.journal)")
    parser.add_argument("--once", action="store_true", help="end after the first sale")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    signer = Signer.from_env()
    rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
    guard = SigningGuard(rpc=rpc)  # the node simulates what no rule can read
    sold = threading.Event()

    def on_outcome(report: SellReport) -> None:
        profit = "" if report.profit_units is None else format_quote(report.profit_units, report.quote_currency)
        log.info("%s: %s %s %s", report.key, report.outcome.value, profit, report.detail)
        if report.outcome is SellOutcome.CONFIRMED:
            sold.set()

    with ExitApiClient.from_env() as api, TxSender(rpc) as sender:
        api.register_wallet(signer.prove_ownership())
        sender.warm()
        configure = StreamConfigure([signer.wallet], STRATEGY)
        with StreamSession.connect(StreamClient.from_env(), configure) as session:
            seller = AutoSeller(session, signer, sender=sender, journal=arguments.journal, guard=guard, exit_api=api)
            seller.on_outcome(on_outcome)
            with seller:
                if arguments.buy:
                    buy(api, sender, signer, guard, arguments.buy, arguments.sol)
                if arguments.once:
                    sold.wait()
                else:
                    session.wait_for("closed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        log.info("stopped")
