"""The official SDK in ``bench_burst``: each exit signal is signed and sent in its own task, without journal or guard.

Arguments and output as ``burst_seller``'s; it does not know when a signal was read.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

from lasersell_sdk import tx
from lasersell_sdk.stream.client import StreamClient, StreamConfigure
from lasersell_sdk.stream.session import StreamSession
from solders.keypair import Keypair


async def main(task: dict[str, Any]) -> None:
    """Sell until stdin ends."""
    keypair = Keypair.from_bytes(bytes(task["keypair"]))
    target = tx.SendTargetRpc(task["targets"][0])
    client = StreamClient("benchmark-key").with_endpoint(task["stream"])
    configure = StreamConfigure([task["wallet"]], {"target_profit_pct": 15.0, "stop_loss_pct": 10.0})
    session = await StreamSession.connect(client, configure)
    threading.Thread(target=_report, daemon=True).start()
    print(json.dumps("ready"), flush=True)
    sales = set()
    while True:
        event = await session.recv()
        if event.type != "exit_signal_with_tx":
            continue
        signed = tx.sign_unsigned_tx(event.message["unsigned_tx_b64"], keypair)
        sale = asyncio.create_task(tx.send_transaction(target, signed))
        sales.add(sale)
        sale.add_done_callback(sales.discard)


def _report() -> None:
    for _ in sys.stdin:
        print(json.dumps({}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
