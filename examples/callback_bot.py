"""A bot made of handlers: it sells every position when the server sends the exit signal.

    python examples/callback_bot.py [--buy MINT --sol 0.1] [--once]

Settings come from the environment; see examples/README.md. Ctrl-C or SIGTERM ends it.
"""

import argparse
import logging
import os
import signal
from pathlib import Path

from solders.keypair import Keypair

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    BuildBuyTxRequest,
    ExitApiClient,
    SendTargetRpc,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamSession,
    TxSubmitError,
    confirm_signature,
    prove_ownership,
    send_transaction_b64_to,
    sign_unsigned_tx_b64,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)

log = logging.getLogger("callback_bot")


class Bot:
    def __init__(self, session: StreamSession, keypair: Keypair, *, once: bool) -> None:
        self.session = session
        self.keypair = keypair
        self.once = once
        self.rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
        session.on("position_opened", self.on_opened)
        session.on("exit_signal_with_tx", self.on_exit)
        session.on("position_closed", self.on_closed)

    def on_opened(self, event: StreamEvent) -> None:
        log.info("position %s in %s", event.message.position_id, event.message.mint)

    def on_exit(self, event: StreamEvent) -> None:
        # A handler may block: it runs on the thread that called run(), never on the one that reads the socket. Other
        # events wait meanwhile; a bot with many positions would hand this to a pool of its own threads.
        exit_signal = event.message
        log.info("exit signal: %s, profit %+.6f SOL", exit_signal.reason, exit_signal.profit_units / 1e9)
        signed = sign_unsigned_tx_b64(exit_signal.unsigned_tx_b64, self.keypair)
        try:
            signature = send_transaction_b64_to(self.rpc, signed)
            confirm_signature(self.rpc, signature)
        except TxSubmitError as error:
            log.warning("the sale failed: %s", error)
            # Only a sale that landed and failed is safe to repeat. One that is not confirmed may still land.
            if error.kind == "tx_failed":
                self.session.request_exit_signal(event.handle or exit_signal.position_id, slippage_bps=2_500)

    def on_closed(self, event: StreamEvent) -> None:
        log.info("position %s closed: %s", event.message.position_id, event.message.reason)
        if self.once:
            self.session.close()  # allowed in a handler; run() returns after it

    def buy(self, mint: str, sol: float) -> None:
        order = BuildBuyTxRequest(mint, str(self.keypair.pubkey()), slippage_bps=2_000, amount=sol)
        with ExitApiClient.from_env() as api:
            unsigned = api.build_buy_tx(order).tx
        send_transaction_b64_to(self.rpc, sign_unsigned_tx_b64(unsigned, self.keypair))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sells positions on their exit signals.")
    parser.add_argument("--buy", metavar="MINT", help="open a position first")
    parser.add_argument("--sol", type=float, default=0.1, help="what to spend on it (default 0.1)")
    parser.add_argument("--once", action="store_true", help="end after the first position closed")
    arguments = parser.parse_args()
    # The library logs nothing unless it is told to; a bot's log is where you learn about lost links and handlers
    # that raised.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # A service manager's SIGTERM ends the bot as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    keypair = Keypair.from_json(Path(os.environ["LASERSELL_KEYPAIR"]).read_text())
    with ExitApiClient.from_env() as api:
        api.register_wallet(prove_ownership(keypair))  # needed once per wallet; repeating it is harmless
    configure = StreamConfigure([str(keypair.pubkey())], STRATEGY)
    with StreamSession.connect(StreamClient.from_env(), configure) as session:
        bot = Bot(session, keypair, once=arguments.once)
        if arguments.buy:
            # After connecting: the server sees a position by watching its tokens arrive.
            bot.buy(arguments.buy, arguments.sol)
        session.run()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        log.info("stopped")
