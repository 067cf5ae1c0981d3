"""``lasersell-sync journal``: what an automatic seller did, and what it left unfinished."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lasersell_sync.autosell import Attempt, BuyRecord, ExitRecord, Journal, Step
from lasersell_sync.cli.wording import shortened
from lasersell_sync.exceptions import JournalError

__all__ = ["journal"]

_NO_TERMINAL_COLUMNS = 1_000


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--exit", "exit_id", type=click.IntRange(min=1), help="The story of one exit, by its number.")
@click.option("--newest", type=click.IntRange(min=1), default=50, show_default=True, help="So many exits.")
@click.option("--unfinished", is_flag=True, help="Only exits with something left to do.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, amounts as whole numbers.")
def journal(file: Path, exit_id: int | None, newest: int, unfinished: bool, as_json: bool) -> None:
    """Show an automatic seller's journal; also while the seller runs."""
    try:
        with Journal(file, read_only=True) as opened:
            found = opened.unfinished() if unfinished else opened.exits(newest=None if exit_id else newest)
            if exit_id is not None:
                found = [record for record in found if record.id == exit_id]
                if not found:
                    raise click.ClickException(f"{file}: there is no exit {exit_id}")
            steps = {record.id: opened.steps(record.id) for record in found} if exit_id else {}
            buys = [] if exit_id or unfinished else opened.buys()[-newest:]
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        for record in found:
            click.echo(json.dumps(_exit_object(record, steps.get(record.id))))
        for buy in buys:
            click.echo(json.dumps(_buy_object(buy)))
    elif exit_id is not None:
        _show_story(found[0], steps[exit_id])
    else:
        _show_exits(found)
        if buys:
            _show_buys(buys)


# ── for scripts ──────────────────────────────────────────────────────────────────────────────────────────────────


def _exit_object(record: ExitRecord, steps: list[Step] | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": "exit",
        "id": record.id,
        **record.key._asdict(),
        "position_id": record.position_id,
        "reason": record.reason,
        "tokens": record.tokens,
        "state": record.state,
        "outcome": None if record.outcome is None else record.outcome.value,
        "detail": record.detail,
        "reported": record.is_reported,
        "began_ms": record.began_ms,
        "changed_ms": record.changed_ms,
        "transactions": [_attempt_object(attempt) for attempt in record.attempts],
    }
    if steps is not None:
        shown["steps"] = [{"at_ms": step.at_ms, "step": step.step, "detail": step.detail} for step in steps]
    return shown


def _attempt_object(attempt: Attempt) -> dict[str, Any]:
    return {
        "signature": attempt.signature,
        "blockhash": attempt.blockhash,
        "signed_ms": attempt.signed_ms,
        "outcome": None if attempt.outcome is None else attempt.outcome.value,
        "slot": attempt.slot,
    }


def _buy_object(buy: BuyRecord) -> dict[str, Any]:
    return {
        "kind": "buy",
        "wallet": buy.wallet,
        "mint": buy.mint,
        "watched_wallet": buy.watched_wallet,
        "signature": buy.signature,
        "signed_ms": buy.signed_ms,
        "outcome": None if buy.outcome is None else buy.outcome.value,
        "slot": buy.slot,
        "reported": buy.is_reported,
    }


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────────────


def _show_exits(records: list[ExitRecord]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("exit", "began", "wallet", "token", "part", "atomic tokens", "reason", "state", "outcome", "sent"):
        table.add_column(title, justify="right" if title in ("exit", "atomic tokens", "sent") else "left")
    for record in records:
        key = record.key
        table.add_row(
            str(record.id), _time(record.began_ms), shortened(key.wallet), shortened(key.mint), key.part,
            f"{record.tokens:,}", record.reason, record.state,
            "" if record.outcome is None else record.outcome.value, str(len(record.attempts)),
        )  # fmt: skip
    _print(table if records else "no exits")


def _show_buys(buys: list[BuyRecord]) -> None:
    table = Table(box=None, header_style="bold")
    for title in ("copied purchase", "wallet", "token", "watched", "outcome"):
        table.add_column(title)
    for buy in buys:
        outcome = "not known yet" if buy.outcome is None else buy.outcome.value
        table.add_row(
            _time(buy.signed_ms), shortened(buy.wallet), shortened(buy.mint), shortened(buy.watched_wallet), outcome
        )
    _print("")
    _print(table)


def _show_story(record: ExitRecord, steps: list[Step]) -> None:
    outcome = record.state if record.outcome is None else record.outcome.value
    _print(f"exit {record.id}: {record.key}, {record.tokens:,} atomic tokens of {record.key.mint}: {outcome}")
    for step in steps:
        _print(f"{_time(step.at_ms)}  {step.step:<10} {step.detail}".rstrip())


def _time(at_ms: int) -> str:
    moment = dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.timezone.utc).astimezone()
    return moment.isoformat(sep=" ", timespec="milliseconds")[:23]


def _print(what: Table | str) -> None:
    # What was read is text, not markup; and a file or pipe has no width to fit into.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _NO_TERMINAL_COLUMNS
    console.print(what)
