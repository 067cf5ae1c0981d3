"""What every benchmark's command line does alike: options, versions, the machine, tables as text or JSON."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import lasersell_sync
from benchmarks.rounds import Table

__all__ = ["Fact", "Outcome", "main", "missing_packages"]

#: Distribution to importable name, where they differ.
_MODULES = {"websocket-client": "websocket", "lasersell-sdk": "lasersell_sdk"}


@dataclass(frozen=True)
class Fact:
    """A single number beside the tables."""

    text: str
    value: float
    unit: str


@dataclass
class Outcome:
    """What one benchmark found."""

    tables: list[Table] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)

    def table(self, key: str) -> Table:
        """By its key."""
        return next(table for table in self.tables if table.key == key)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        facts = {key: vars(fact) for key, fact in self.facts.items()}
        return {"tables": [table.to_json() for table in self.tables], "facts": facts}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Outcome:
        """Back from ``to_json``."""
        tables = [Table.from_json(table) for table in fields["tables"]]
        return cls(tables, {key: Fact(**fact) for key, fact in fields["facts"].items()})


def main(
    doc: str | None,
    measure: Callable[[float], Outcome],
    *,
    peers: Iterable[str],
    seconds: float,
    argv: list[str] | None = None,
) -> int:
    """Run one benchmark.

    Args:
        doc: the module's, for ``--help``.
        measure: takes the seconds that all measurements together may last, about.
        peers: distributions that are compared; without one its contestants are left out.
        seconds: the default.
        argv: None for the process's own.

    Returns:
        The exit status: 1 if a peer is missing that ``--require-peers`` demands, or our compiled core is.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--versions", action="store_true", help="print the versions that are compared, and stop")
    parser.add_argument("--seconds", type=float, default=seconds, help=f"for all of it, about (default {seconds:g})")
    parser.add_argument("--require-peers", action="store_true", help="fail if a peer is not installed")
    options = parser.parse_args(argv)
    peers = list(peers)
    if options.versions:
        print(json.dumps(versions(peers), indent=1))
        return 0
    missing = missing_packages(peers)
    if missing:
        print(f"not compared, for they are not installed: {', '.join(missing)}", file=sys.stderr)
    if lasersell_sync.backend() != "compiled":
        print("lasersell_sync's compiled core is missing: there is nothing to measure", file=sys.stderr)
        return 1
    if missing and options.require_peers:
        return 1
    started = datetime.now(timezone.utc)
    outcome = measure(options.seconds)
    if options.json:
        about = {
            "measured": started.strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": options.seconds,
            "machine": machine(),
            "versions": versions(peers),
            "missing": missing,
        }
        print(json.dumps({**about, **outcome.to_json()}))
    else:
        _print(outcome)
    return 0


def missing_packages(distributions: Iterable[str]) -> list[str]:
    """Those that cannot be imported."""
    return [name for name in distributions if importlib.util.find_spec(_MODULES.get(name, name)) is None]


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Of Python, of ours and of the peers."""
    out = {"python": platform.python_version(), "lasersell-sync": lasersell_sync.__version__}
    for name in distributions:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
        model = found[1] if found else model
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
    }


def _print(outcome: Outcome) -> None:
    for table in outcome.tables:
        _print_table(table)
    for fact in outcome.facts.values():
        print(f"{fact.text}: {_number(fact.value)} {fact.unit}")


def _print_table(table: Table) -> None:
    ours = next(iter(table.rows))
    better = f"{ours} is better by"
    print(f"{table.title} ({table.unit})")
    print(f"  {'':<44}{'median':>12}{'p99':>12}{'worst':>12}  {better}")
    for name, row in table.rows.items():
        numbers = "".join(f"{_number(value):>12}" for value in (row.median, row.p99, row.worst))
        note = f"  ({table.notes[name]})" if name in table.notes else ""
        print(f"  {name:<44}{numbers}  {table.ratio(ours, name):.2f} x{note}")
    print()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
