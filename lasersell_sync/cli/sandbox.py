"""``lasersell-sync sandbox``: the local exchange as a process of its own."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from collections.abc import Iterable

import click

from lasersell_sync.sandbox import DEFAULT_SCENARIO, Sandbox, shipped_scenarios
from lasersell_sync.sandbox.web import WebPage

__all__ = ["sandbox"]

_PORT = click.IntRange(0, 65_535)
_SEED = click.IntRange(0, 2**64 - 1)
_MOST_LINES = 20


@click.command()
@click.option("--stream-port", type=_PORT, default=8082, show_default=True, help="WebSocket stream; 0: a free one.")
@click.option("--api-port", type=_PORT, default=8080, show_default=True, help="REST API; 0: a free one.")
@click.option("--rpc-port", type=_PORT, default=8899, show_default=True, help="Solana JSON-RPC; 0: a free one.")
@click.option(
    "--rpc-nodes",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="JSON-RPC nodes; those behind the first have free ports, and each can lie (POST /sandbox/node).",
)
@click.option(
    "--scenario",
    default=DEFAULT_SCENARIO,
    show_default=True,
    help=f"A TOML file, or one of: {', '.join(shipped_scenarios())}.",
)
@click.option("--seed", type=_SEED, default=1, show_default=True, help="Chooses the tokens and their price stories.")
@click.option(
    "--speed",
    type=click.FloatRange(0.01, 10_000),
    default=1.0,
    show_default=True,
    help="How fast time passes: at 600 an hour takes six seconds.",
)
@click.option(
    "--tier",
    type=click.IntRange(0, 3),
    default=2,
    show_default=True,
    help="Limits and routing fee of the API key: 0 Personal, 1 Professional, 2 Advanced, 3 Enterprise.",
)
@click.option(
    "--router/--no-router",
    default=True,
    show_default=True,
    help="Trade through the LaserSell Router, which takes the tier's routing fee; without it directly and without fee.",
)
@click.option(
    "--instructions",
    type=click.Choice(["today", "classic"]),
    default="today",
    show_default=True,
    help="Which instructions trades are written in: those of 2026, or those that the markets have always had.",
)
@click.option(
    "--transaction-format",
    type=click.Choice(["drawn", "legacy", "0", "1"]),
    default="drawn",
    show_default=True,
    help="The format of direct trades (--no-router); drawn: the seed chooses for each token.",
)
@click.option(
    "--session-policy",
    type=click.Choice(["refuse", "replace"]),
    default="refuse",
    show_default=True,
    help="What a second session on one key meets: session_limit, or it replaces the first (session_replaced).",
)
@click.option("--api-key", default="sandbox-key", show_default=True, help="The API key that clients must send.")
@click.option("--host", default=None, help="An IP address to listen on instead of loopback; 0.0.0.0: all there are.")
@click.option("--web", is_flag=True, help="Show everything live in a browser, with buttons for the faults.")
@click.option("--web-port", type=_PORT, default=8083, show_default=True, help="The page of --web; 0: a free one.")
def sandbox(
    stream_port: int,
    api_port: int,
    rpc_port: int,
    rpc_nodes: int,
    scenario: str,
    seed: int,
    speed: float,
    tier: int,
    router: bool,
    instructions: str,
    transaction_format: str,
    session_policy: str,
    api_key: str,
    host: str | None,
    web: bool,
    web_port: int,
) -> None:
    """Run a local exchange until Ctrl-C or SIGTERM.

    It serves the stream, the REST API and Solana JSON-RPC on this machine, with play money. Once ready, it writes one
    line of JSON to stdout: stream_url, api_url, rpc_url, rpc_urls (of every node), api_key, mints, and with --web
    web_url. What is for people goes to stderr.
    """
    # Before anything is opened: from here on a signal means "close everything", and nothing interrupts the closing.
    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_stop.set())
    try:
        exchange = Sandbox(
            stream_port=stream_port,
            api_port=api_port,
            rpc_port=rpc_port,
            rpc_nodes=rpc_nodes,
            scenario=scenario,
            seed=seed,
            speed=speed,
            tier=tier,
            router=router,
            instructions=instructions,
            transaction_format=transaction_format,
            session_policy=session_policy,
            api_key=api_key,
            host=host,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    page = WebPage(exchange, port=web_port) if web else None
    try:
        exchange.start()
        if page is not None:
            page.start()
    except OSError as error:
        exchange.stop()
        reason = error.strerror or str(error)
        raise click.ClickException(f"{reason}. Use another port, or 0 for a free one") from error
    try:
        _tell(exchange, page)
        told_to_stop.wait()
    finally:
        if page is not None:
            page.stop()
        exchange.stop()


def _tell(exchange: Sandbox, page: WebPage | None) -> None:
    """The line for scripts, then the help for people."""
    ready = exchange.ready_line() if page is None else {**exchange.ready_line(), "web_url": page.url}
    click.echo(json.dumps(ready))
    names = ("api_key", "stream_url", "api_url", "rpc_url")
    settings = " ".join(f"LASERSELL_{name.upper()}={shlex.quote(str(ready[name]))}" for name in names)
    reach = "on loopback only" if exchange.loopback_only else "for WHOEVER can reach this machine"
    click.echo(f"\nThe sandbox is ready, {reach}; Ctrl-C stops it. For clients in another terminal:", err=True)
    click.echo(f"  export {settings}", err=True)
    if page is not None:
        click.echo(f"\nSee it live: {page.url}", err=True)
    click.echo("\nTokens to buy, and what their price does once you hold them:", err=True)
    markets = {token.mint: f"{token.market_type}/{token.quote}" for token in exchange.mint_info.values()}
    _tell_some(
        f"{token.symbol:<8} {token.price_path:<8} {markets[token.mint]:<22} {token.mint}"
        for token in exchange.mint_info.values()
    )
    if exchange.wallets:
        click.echo("\nWallets of the scenario, to watch and to copy:", err=True)
        _tell_some(f"{name:<10} {keypair.pubkey()}" for name, keypair in exchange.wallets.items())


def _tell_some(lines: Iterable[str]) -> None:
    """A list for people, cut where nobody would read on."""
    every = list(lines)
    for line in every[:_MOST_LINES]:
        click.echo(f"  {line}", err=True)
    if len(every) > _MOST_LINES:
        click.echo(f"  ... and {len(every) - _MOST_LINES} more", err=True)
