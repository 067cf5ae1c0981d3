"""What the demo shows: live screens, the summary for people, JSON for scripts."""

from __future__ import annotations

import json
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

import attrs
from rich import box
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lasersell_sync.cli.demo_run import DemoResult, PositionView, Screen
from lasersell_sync.cli.wording import percent, signed_sol, sol

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LiveScreen", "PlainScreen", "SilentScreen", "print_summary", "result_json", "screen_for"]


# ── A finished trade, as JSON for scripts and as a panel for people ─────────────────────────────────────────────────


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


# ── Where the demo's story is shown: a live table on a terminal, plain lines in a log, or nowhere ───────────────────


_PANEL_COLUMNS = 78
_TITLE_COLUMNS = 12
#: Profits kept for the little curve: more than fit make it move.
_CURVE_POINTS = 48
_CURVE = "▁▂▃▄▅▆▇█"
_PLAIN_INTERVAL_S = 1.0


def screen_for(console: Console) -> LiveScreen | PlainScreen:
    """A live table where one can be drawn, else lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console)
    return PlainScreen(console)


class SilentScreen(Screen):
    """Shows nothing: the caller wants the result alone."""

    def step(self, title: str, text: str) -> None:
        """Nothing."""

    def position(self, view: PositionView) -> None:
        """Nothing."""


class PlainScreen(Screen):
    """One line for each step, and about one a second for the position: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def step(self, title: str, text: str) -> None:
        """One line."""
        # Unwrapped: whoever reads a log cuts its lines himself.
        self._console.print(
            f"{title + ':':<{_TITLE_COLUMNS + 1}} {text}", soft_wrap=True, highlight=False, markup=False
        )

    def position(self, view: PositionView) -> None:
        """One line, unless the last one is not a second old."""
        if time.monotonic() - self._shown_at < _PLAIN_INTERVAL_S:
            return
        self._shown_at = time.monotonic()
        self.step("  now", f"{_profit_text(view).plain}, trend {view.trend or 'unknown'}")


class LiveScreen(Screen):
    """A table that follows the position; the steps stand above and below it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._curve: deque[int] = deque(maxlen=_CURVE_POINTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._freeze()

    def step(self, title: str, text: str) -> None:
        """A line with a tick; the table, if there is one, stays as it was last."""
        self._freeze()
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(width=_TITLE_COLUMNS, no_wrap=True, style="bold")
        grid.add_column(overflow="fold")
        grid.add_row(Text("✔", style="green"), title, Text(text))
        self._console.print(grid)

    def position(self, view: PositionView) -> None:
        """The table, redrawn in place."""
        if view.profit_lamports is not None:
            self._curve.append(view.profit_lamports)
        panel = _position_panel(view, self._curve, min(_PANEL_COLUMNS, self._console.width))
        if self._live is None:
            self._live = Live(panel, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(panel, refresh=True)

    def _freeze(self) -> None:
        """Leave the table on the screen and write below it from now on. Also gives the terminal its cursor back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


def _position_panel(view: PositionView, curve: deque[int], columns: int) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    grid.add_row("Entry", sol(view.entry_lamports))
    grid.add_row("Profit/loss", _profit_text(view))
    grid.add_row("", _curve_text(curve))
    grid.add_row("Sellable", _bands_table(view))
    grid.add_row("Trend", view.trend or "unknown")
    return Panel(
        grid,
        title=f"{view.symbol} ({view.name})",
        title_align="left",
        box=box.ROUNDED,
        width=columns,
        border_style=_style(view.profit_lamports),
    )


def _profit_text(view: PositionView) -> Text:
    profit = view.profit_lamports
    if profit is None:
        return Text("waiting for the first update", style="dim")
    return Text(f"{signed_sol(profit)}  {percent(profit, view.entry_lamports)}", style=_style(profit))


def _style(profit_lamports: int | None) -> str:
    if profit_lamports is None:
        return "dim"
    return "green" if profit_lamports >= 0 else "red"


def _curve_text(curve: deque[int]) -> Text:
    """The last profits as a row of bars between their lowest and highest."""
    if not curve:
        return Text("")
    lowest, highest = min(curve), max(curve)
    steps = len(_CURVE) - 1
    text = Text()
    for profit in curve:
        height = steps * (profit - lowest) // (highest - lowest) if highest > lowest else 0
        text.append(_CURVE[height], style=_style(profit))
    return text


def _bands_table(view: PositionView) -> Table | Text:
    """How much of the position each slippage band takes."""
    if not view.bands:
        return Text("waiting for the first liquidity snapshot", style="dim")
    table = Table.grid(padding=(0, 3))
    table.add_row(*(f"{band.coverage_pct:.0f} %" for band in view.bands))
    table.add_row(*(Text(f"at {band.slippage_bps / 100:g} % slip", style="dim") for band in view.bands))
    return table
