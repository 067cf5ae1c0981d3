"""``lasersell-sync demo``: the whole story of a trade, on this machine."""

from __future__ import annotations

import json
import math

import click
from rich.console import Console

from lasersell_sync import LaserSellError
from lasersell_sync.cli.demo_run import DemoError, DemoResult, play
from lasersell_sync.cli.screens import SilentScreen, print_summary, result_json, screen_for
from lasersell_sync.cli.wording import LedgerError

__all__ = ["demo"]


def _require_number(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("not a number of seconds")
    return value


@click.command(short_help="Trade once against a local exchange, before your eyes.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object to stdout, and nothing else.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=1,
    show_default=True,
    help="Chooses the token and its price story.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 3600, min_open=True),
    callback=_require_number,  # the range lets NaN pass
    default=30.0,
    show_default=True,
    help="Seconds after which the demo gives up.",
)
def demo(as_json: bool, seed: int, timeout_s: float) -> None:
    """Trade once against a local exchange: buy, watch, sell on the exit signal.

    Everything is real but the money: keypair, signatures, transactions, sockets. Nothing leaves this machine. Ends with
    status 0 only when the exchange's ledger says that the position was sold.
    """
    try:
        result = _play(as_json, seed, timeout_s)
    except (DemoError, LaserSellError, LedgerError, OSError) as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(error)}))
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(result_json(result))


def _play(as_json: bool, seed: int, timeout_s: float) -> DemoResult:
    if as_json:
        return play(seed=seed, timeout_s=timeout_s, screen=SilentScreen())
    console = Console()
    console.print("\n[bold]LaserSell, one trade from first to last step[/bold]\n", highlight=False)
    with screen_for(console) as screen:
        result = play(seed=seed, timeout_s=timeout_s, screen=screen)
    print_summary(console, result)
    return result
