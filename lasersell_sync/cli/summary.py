"""A finished trade, as JSON for scripts and as a panel for people."""

from __future__ import annotations

import json

import attrs
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lasersell_sync.cli.story import DemoResult
from lasersell_sync.cli.wording import percent, signed_sol, sol

__all__ = ["print_summary", "result_json"]


def result_json(result: DemoResult) -> str:
    """One JSON object on one line; ``ok`` is true, times are milliseconds since the exit signal's bytes arrived."""
    facts = attrs.asdict(result)
    times = {name: round(value, 3) for name, value in facts.pop("times").items()}
    return json.dumps({"ok": True, **facts, "duration_s": round(result.duration_s, 3), "times": times})


def print_summary(console: Console, result: DemoResult) -> None:
    """The trade in figures, and where to go from here."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, text in _rows(result):
        grid.add_row(title, text)
    console.print()
    console.print(Panel(grid, title="Summary", title_align="left", box=box.ROUNDED, expand=False))
    console.print(_next_steps(), highlight=False, soft_wrap=True)


def _rows(result: DemoResult) -> list[tuple[str, Text | str]]:
    times = result.times
    profit = f"{signed_sol(result.profit_lamports)} ({percent(result.profit_lamports, result.entry_lamports)})"
    balances = f"{sol(result.balance_before_lamports)} before, {sol(result.balance_after_lamports)} after"
    return [
        ("Exit", f"{result.reason}: {result.symbol} sold whole"),
        ("Profit", Text(f"{profit}, fees included", style="green" if result.profit_lamports >= 0 else "red")),
        ("Wallet", balances),
        ("Signal", "0.0 ms  its bytes were read from the socket"),
        ("Signed", f"{times.signed_ms:.1f} ms"),
        ("Submitted", f"{times.submitted_ms:.1f} ms  accepted by the RPC node"),
        ("Landed", f"{times.landed_ms:.1f} ms  confirmed; mostly the simulated chain's own time"),
        ("Link", f"{result.messages_received} messages, {result.reconnects} reconnects"),
        ("Duration", f"{result.duration_s:.1f} s"),
        ("Version", f"lasersell-sync {result.version}, backend: {result.backend}"),
    ]


def _next_steps() -> Text:
    text = Text("\nNext: ")
    text.append("lasersell-sync sandbox", style="bold cyan")
    text.append(" keeps such an exchange running. examples/ has\n")
    text.append("programs for it, and docs/quickstart.md leads from there to production.")
    return text
