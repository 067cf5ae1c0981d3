"""What ``lasersell-sync`` is before a command's name is read."""

from __future__ import annotations

import click

from lasersell_sync import __version__, backend
from lasersell_sync.cli.demo import demo
from lasersell_sync.cli.explain_tx import explain_tx
from lasersell_sync.cli.journal import journal
from lasersell_sync.cli.replay import replay
from lasersell_sync.cli.sandbox import sandbox

__all__ = ["lasersell_sync_command"]


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"lasersell-sync {__version__} (backend: {backend()})")
        context.exit()


@click.group()
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and the decoding backend.",
)
def lasersell_sync_command() -> None:
    """Trade through the LaserSell Exit Intelligence Stream.

    Start with "lasersell-sync demo": one trade from first to last step, on this machine, with play money.
    """


lasersell_sync_command.add_command(demo)
lasersell_sync_command.add_command(explain_tx)
lasersell_sync_command.add_command(journal)
lasersell_sync_command.add_command(replay)
lasersell_sync_command.add_command(sandbox)
