"""Makes ``docs/performance.md`` and its plots from the benchmarks' results.

The prose is in ``performance.md.in``, whose places in double braces are filled here, and in ``misses.md``; no number on
the page is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import data, plots
from benchmarks.bench_decode import SIZES
from benchmarks.bench_stream import POSITIONS
from benchmarks.command import Outcome
from benchmarks.rounds import Table
from benchmarks.targets import TARGETS, Results, Target

__all__ = ["PLOTS", "make_page", "make_plots", "unexplained"]

#: Folder beside the page.
PLOTS: Final = "performance"
_HERE: Final = Path(__file__).parent

Raw = Mapping[str, Mapping[str, Any]]


def make_page(raw: Raw) -> str:
    """The page.

    Args:
        raw: each benchmark's JSON, by its name.
    """
    results = _results(raw)
    places = {
        "about": _about(raw),
        "targets": _targets(results),
        "misses": _misses(results),
        "decode.types": _by_type(results["decode"]),
        "decode.sizes": _pivot("bytes", {f"{size:,}": results["decode"].table(f"size_{size}") for size in SIZES}),
        "stream.positions": _pivot(
            "positions", {f"{count:,}": results["stream"].table(f"positions_{count}") for count in POSITIONS}
        ),
    }
    for bench, outcome in results.items():
        places |= {f"{bench}.{table.key}": _table(table) for table in outcome.tables}
        places[f"{bench}.facts"] = _facts(outcome)
    template = (_HERE / "performance.md.in").read_text("utf-8")
    page = re.sub(r"\{\{([\w.]+)\}\}", lambda place: places[place[1]], template)
    return re.sub(r"\n{3,}", "\n\n", page)


def unexplained(raw: Raw) -> list[str]:
    """Keys of the targets that are missed without a section in ``misses.md``."""
    results, reasons = _results(raw), _reasons()
    return [target.key for target in TARGETS if target.key not in reasons and not target.is_met(results)]


def make_plots(raw: Raw) -> dict[str, str]:
    """File name to SVG."""
    decode, stream, latency = (Outcome.from_json(raw[name]) for name in ("decode", "stream", "latency"))
    sizes = {size: decode.table(f"size_{size}") for size in SIZES}
    per_byte = {
        name: [(size, table.rows[name].median / size) for size, table in sizes.items()]
        for name in ("lasersell_sync", "msgspec")
    }
    counts = {count: stream.table(f"positions_{count}") for count in POSITIONS}
    rates = {
        name: [(count, table.rows[name].median) for count, table in counts.items()]
        for name in counts[POSITIONS[0]].rows
    }
    return {
        "stream.svg": _bars("Stream, plain TCP", stream.table("plain"), but=["raw recv"]),
        "stream_tls.svg": _bars("Stream, TLS, one record a message", stream.table("tls_message"), but=["raw recv"]),
        "latency.svg": _bars("Exit signal on an idle link, median", latency.table("idle")),
        "decode_sizes.svg": plots.lines("Decoding, by size of the message", "bytes", "ns per byte", per_byte),
        "stream_positions.svg": plots.lines("Stream, by number of positions", "positions", "messages/s", rates),
    }


def _bars(title: str, table: Table, but: Sequence[str] = ()) -> str:
    values = {name: row.median for name, row in table.rows.items() if name not in but}
    return plots.bars(title, table.unit, values, [name for name in values if name.startswith("ours")])


# ── head ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _about(raw: Raw) -> str:
    latest = max(raw.values(), key=lambda fields: fields["measured"])
    versions = {name: version for fields in raw.values() for name, version in fields["versions"].items()}
    lines = [f"- {what}: {value}" for what, value in latest["machine"].items()]
    lines.append("- packages: " + ", ".join(f"{name} {one}" for name, one in versions.items() if name != "python"))
    lengths = ", ".join(f"{name} {fields['seconds']:g} s" for name, fields in raw.items())
    lines.append(f"- measured {latest['measured']} ({lengths})")
    return "\n".join(lines)


def _targets(results: Results) -> str:
    lines = ["| measure | target | reached | |", "|---|--:|--:|---|"]
    for target in TARGETS:
        verdict = "met" if target.is_met(results) else "**missed**"
        lines.append(f"| {target.measure} | {target.aim} | {_reached(target, results)} | {verdict} |")
    return "\n".join(lines)


def _results(raw: Raw) -> Results:
    return {name: Outcome.from_json(fields) for name, fields in raw.items()}


def _reasons() -> dict[str, str]:
    """The sections of ``misses.md``, by target."""
    sections = re.split(r"^# (.*)$", (_HERE / "misses.md").read_text("utf-8"), flags=re.MULTILINE)
    reasons = {key.strip(): reason.strip() for key, reason in zip(sections[1::2], sections[2::2], strict=True)}
    unknown = set(reasons) - {target.key for target in TARGETS}
    if unknown:
        raise ValueError(f"misses.md explains what is no target: {', '.join(sorted(unknown))}")
    return reasons


def _misses(results: Results) -> str:
    """Of each missed target what it reached, and why no more."""
    reasons = _reasons()
    missed = [target for target in TARGETS if not target.is_met(results)]
    parts = [
        f"**{target.measure}**: {_reached(target, results)}; the target is {target.aim}.\n\n"
        f"{reasons.get(target.key, 'The reason is not known yet.')}"
        for target in missed
    ]
    return "\n\n".join(["### Missed targets and their reasons", *parts]) if parts else ""


def _reached(target: Target, results: Results) -> str:
    return f"{_number(target.reached(results))} {target.unit}".strip()


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_type(decode: Outcome) -> str:
    return _pivot("message", {kind: decode.table(kind) for kind in (*data.TYPES, "mixed")})


def _table(table: Table) -> str:
    """One row for each contestant."""
    ours = next(iter(table.rows))
    lines = [
        f"**{table.title}** ({table.unit})\n",
        f"| | median | 99 % | worst | {ours}, against | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, row in table.rows.items():
        numbers = " | ".join(_number(value) for value in (row.median, row.p99, row.worst))
        ratio = "" if name == ours else f"{table.ratio(ours, name):.2f}"
        lines.append(f"| {name} | {numbers} | {ratio} | {table.notes.get(name, '')} |")
    return "\n".join(lines)


def _pivot(what: str, tables: Mapping[str, Table]) -> str:
    """One row for each table: its medians, and in brackets how many times better the first column is."""
    first = next(iter(tables.values()))
    ours, *others = first.rows
    lines = [
        f"Median, {first.unit}; in brackets {ours}, against:\n",
        f"| {what} | {ours} | {' | '.join(others)} |",
        "|---|" + "--:|" * len(first.rows),
    ]
    for key, table in tables.items():
        cells = [f"{_number(table.rows[name].median)} ({table.ratio(ours, name):.2f})" for name in others]
        lines.append(f"| {key} | {_number(table.rows[ours].median)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _facts(outcome: Outcome) -> str:
    return "\n".join(f"- {fact.text}: {_number(fact.value)} {fact.unit}" for fact in outcome.facts.values())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
