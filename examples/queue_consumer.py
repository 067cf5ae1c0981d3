"""A consumer loop as one is written for a queue.Queue, which sells by hand: guard, sign, send, confirm.

    python examples/queue_consumer.py [--buy MINT --sol 0.1] [--once]

An AutoSeller (callback_bot.py, autosell_bot.py) does more: it keeps a journal, asks for fresh transactions, and sells
each exit once. Settings come from the environment; see examples/README.md. Ctrl-C or SIGTERM ends it.
"""

import argparse
import os
import signal

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    BuildBuyTxRequest,
    ExitApiClient,
    ExitSignalWithTx,
    PnlUpdate,
    PositionClosed,
    PositionOpened,
    SellOutcome,
    SendTargetRpc,
    Signer,
    SigningGuard,
    StrategyConfig,
    StreamClient,
    StreamClosed,
    StreamConfigure,
    StreamSession,
    TxSender,
    UnsafeTransactionError,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)


class Trader:
    """Signs what the guard lets pass, and sends it."""

    def __init__(self, signer: Signer, rpc: SendTargetRpc) -> None:
        self.signer = signer
        self.sender = TxSender(rpc)
        self.guard = SigningGuard(rpc=rpc)  # the node simulates what no rule can read

    def buy(self, mint: str, sol: float) -> None:
        order = BuildBuyTxRequest(mint, self.signer.wallet, slippage_bps=2_000, amount=sol)
        with ExitApiClient.from_env() as api:
            built = api.build_buy_tx(order)
        # The guard compares the transaction with the order: it may cost no more, and buy nothing else.
        result = self.sender.send(self.signer.sign(built, request=order, guard=self.guard))
        print(f"bought: {result.outcome.value} {result.signature}", flush=True)

    def sell(self, exit_signal: ExitSignalWithTx) -> None:
        print(f"exit signal: {exit_signal.reason}", flush=True)
        try:
            signed = self.signer.sign(exit_signal, guard=self.guard)
        except UnsafeTransactionError as error:
            print(f"NOT SOLD, the guard refuses the transaction: {error}", flush=True)
            return
        result = self.sender.send(signed)
        if result.outcome is SellOutcome.CONFIRMED:
            print(f"sold in slot {result.slot}: {result.signature}", flush=True)
        else:
            # UNKNOWN is not failed: it may still land, so nothing is built anew here.
            print(f"NOT SOLD (yet): {result.outcome.value} {result.detail}", flush=True)


def consume(session: StreamSession, trader: Trader, *, once: bool) -> None:
    while True:
        try:
            # Exit signals and other rare events first; of the frequent ones only the newest of each position waits, so
            # this loop never falls behind the market, however long a sale takes.
            event = session.events.get()
        except StreamClosed:
            return
        match event.message:
            case PositionOpened(position_id=position_id, mint=mint):
                print(f"position {position_id} in {mint}", flush=True)
            case PnlUpdate(position_id=position_id, profit_units=profit) if event.handle is not None:
                shown = event.handle.format_quote(profit, signed=True)
                print(f"position {position_id}: {shown} ({event.handle.profit_pct(profit):+.1f} %)", flush=True)
            case ExitSignalWithTx() as exit_signal:
                trader.sell(exit_signal)
            case PositionClosed(position_id=position_id, reason=reason):
                print(f"position {position_id} closed: {reason}", flush=True)
                if once:
                    return


def main() -> None:
    parser = argparse.ArgumentParser(description="Sells positions on their exit signals.")
    parser.add_argument("--buy", metavar="MINT", help="open a position first")
    parser.add_argument("--sol", type=float, default=0.1, help="what to spend on it (default 0.1)")
    parser.add_argument("--once", action="store_true", help="end after the first position closed")
    arguments = parser.parse_args()
    # A service manager's SIGTERM ends the program as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    signer = Signer.from_env()
    rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
    with ExitApiClient.from_env() as api:
        api.register_wallet(signer.prove_ownership())  # needed once per wallet; repeating it is harmless
    trader = Trader(signer, rpc)
    configure = StreamConfigure([signer.wallet], STRATEGY)
    with trader.sender, StreamSession.connect(StreamClient.from_env(), configure) as session:
        if arguments.buy:
            # After connecting: the server sees a position by watching its tokens arrive.
            trader.buy(arguments.buy, arguments.sol)
        consume(session, trader, once=arguments.once)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped", flush=True)
