"""A consumer loop as one is written for a queue.Queue: get an event, act on it, get the next.

    python examples/queue_consumer.py [--buy MINT --sol 0.1] [--once]

Settings come from the environment; see examples/README.md. Ctrl-C or SIGTERM ends it.
"""

import argparse
import os
import signal
from pathlib import Path

from solders.keypair import Keypair

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    BuildBuyTxRequest,
    ExitApiClient,
    ExitSignalWithTx,
    PnlUpdate,
    PositionClosed,
    PositionOpened,
    SendTargetRpc,
    StrategyConfig,
    StreamClient,
    StreamClosed,
    StreamConfigure,
    StreamSession,
    TxSubmitError,
    confirm_signature,
    prove_ownership,
    send_transaction_b64_to,
    sign_unsigned_tx_b64,
)

STRATEGY = StrategyConfig(target_profit_pct=15, stop_loss_pct=10)


def consume(session: StreamSession, rpc: SendTargetRpc, keypair: Keypair, *, once: bool) -> None:
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
            case PnlUpdate(position_id=position_id, profit_units=profit):
                print(f"position {position_id}: {profit / 1e9:+.6f} SOL", flush=True)
            case ExitSignalWithTx() as exit_signal:
                sell(exit_signal, rpc, keypair)
            case PositionClosed(position_id=position_id, reason=reason):
                print(f"position {position_id} closed: {reason}", flush=True)
                if once:
                    return


def sell(exit_signal: ExitSignalWithTx, rpc: SendTargetRpc, keypair: Keypair) -> None:
    print(f"exit signal: {exit_signal.reason}", flush=True)
    try:
        signature = send_transaction_b64_to(rpc, sign_unsigned_tx_b64(exit_signal.unsigned_tx_b64, keypair))
        landed = confirm_signature(rpc, signature)
    except TxSubmitError as error:
        # Not confirmed is not failed: it may still land, so nothing is built anew here.
        print(f"the sale is not confirmed: {error}", flush=True)
    else:
        print(f"sold in slot {landed.slot}: {signature}", flush=True)


def buy(mint: str, sol: float, rpc: SendTargetRpc, keypair: Keypair) -> None:
    order = BuildBuyTxRequest(mint, str(keypair.pubkey()), slippage_bps=2_000, amount=sol)
    with ExitApiClient.from_env() as api:
        unsigned = api.build_buy_tx(order).tx
    send_transaction_b64_to(rpc, sign_unsigned_tx_b64(unsigned, keypair))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sells positions on their exit signals.")
    parser.add_argument("--buy", metavar="MINT", help="open a position first")
    parser.add_argument("--sol", type=float, default=0.1, help="what to spend on it (default 0.1)")
    parser.add_argument("--once", action="store_true", help="end after the first position closed")
    arguments = parser.parse_args()
    # A service manager's SIGTERM ends the program as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    keypair = Keypair.from_json(Path(os.environ["LASERSELL_KEYPAIR"]).read_text())
    rpc = SendTargetRpc(os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL)
    with ExitApiClient.from_env() as api:
        api.register_wallet(prove_ownership(keypair))  # needed once per wallet; repeating it is harmless
    configure = StreamConfigure([str(keypair.pubkey())], STRATEGY)
    with StreamSession.connect(StreamClient.from_env(), configure) as session:
        if arguments.buy:
            # After connecting: the server sees a position by watching its tokens arrive.
            buy(arguments.buy, arguments.sol, rpc, keypair)
        consume(session, rpc, keypair, once=arguments.once)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped", flush=True)
