"""``lasersell-sync sandbox``: the local exchange as a process of its own."""

from __future__ import annotations

import json
import shlex
import signal
import threading

import click

from lasersell_sync.sandbox import Sandbox

__all__ = ["sandbox"]

_PORT = click.IntRange(0, 65_535)
_SEED = click.IntRange(0, 2**64 - 1)


@click.command()
@click.option("--stream-port", type=_PORT, default=8082, show_default=True, help="WebSocket stream; 0: a free one.")
@click.option("--api-port", type=_PORT, default=8080, show_default=True, help="REST API; 0: a free one.")
@click.option("--rpc-port", type=_PORT, default=8899, show_default=True, help="Solana JSON-RPC; 0: a free one.")
@click.option("--seed", type=_SEED, default=1, show_default=True, help="Chooses the tokens and their price stories.")
@click.option(
    "--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="How fast the market moves."
)
@click.option("--api-key", default="sandbox-key", show_default=True, help="The API key that clients must send.")
def sandbox(stream_port: int, api_port: int, rpc_port: int, seed: int, speed: float, api_key: str) -> None:
    """Run a local exchange until Ctrl-C or SIGTERM.

    It serves the stream, the REST API and Solana JSON-RPC on this machine, with play money. Once ready, it writes one
    line of JSON to stdout: stream_url, api_url, rpc_url, api_key, mints. What is for people goes to stderr.
    """
    # Before anything is opened: from here on a signal means "close everything", and nothing interrupts the closing.
    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_stop.set())
    try:
        exchange = Sandbox(
            stream_port=stream_port, api_port=api_port, rpc_port=rpc_port, seed=seed, speed=speed, api_key=api_key
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        exchange.start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(f"{reason}. Use another port, or 0 for a free one") from error
    try:
        _tell(exchange)
        told_to_stop.wait()
    finally:
        exchange.stop()


def _tell(exchange: Sandbox) -> None:
    """The line for scripts, then the help for people."""
    ready = exchange.ready_line()
    click.echo(json.dumps(ready))
    names = ("api_key", "stream_url", "api_url", "rpc_url")
    settings = " ".join(f"LASERSELL_{name.upper()}={shlex.quote(str(ready[name]))}" for name in names)
    click.echo("\nThe sandbox is ready; Ctrl-C stops it. For clients in another terminal:", err=True)
    click.echo(f"  export {settings}", err=True)
    click.echo("\nTokens to buy, and what their price does once you hold them:", err=True)
    for token in exchange.mint_info.values():
        click.echo(f"  {token.symbol:<8} {token.tape:<6} {token.market_type:<10} {token.mint}", err=True)
