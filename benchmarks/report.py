"""Runs every benchmark, keeps what they found, and makes ``docs/performance.md`` with its plots.

Usage: ``python -m benchmarks.report [--quick] [--page-only] [--only NAME …] [--beside PYTHON] [--results DIR]
[--docs DIR]``

Without options it takes about half an hour and wants a machine that does nothing else. Each benchmark's JSON
stays in ``benchmarks/results``, so that one can be measured again alone (``--only``), and the page made from what is
there (``--page-only``). Why a target is missed is written in ``benchmarks/misses.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.page import PLOTS, make_page, make_plots, unexplained

ROOT: Final = Path(__file__).parents[1]
#: Seconds for each: the page's, and enough to see that it works.
LENGTHS: Final[dict[str, tuple[float, float]]] = {
    "decode": (60, 2),
    "stream": (240, 3),
    "latency": (180, 4),
    "submit": (30, 1),
    "burst": (600, 1),
    "idle": (60, 2),
    "memory": (60, 0.5),
    "import": (20, 1),
}


def main() -> int:
    """Measure, then write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds each: it works, its numbers mean nothing")
    parser.add_argument("--page-only", action="store_true", help="measure nothing")
    parser.add_argument("--only", nargs="+", choices=LENGTHS, default=list(LENGTHS), metavar="NAME", help="just these")
    parser.add_argument("--beside", help="the interpreter of another checkout, whose seller takes turns in bench_burst")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="for the JSON files")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="for the page and its plots")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    if not options.page_only:
        for name in options.only:
            beside = ["--beside", options.beside] if options.beside and name == "burst" else []
            _measure(name, LENGTHS[name][options.quick], options.results, beside)
    _write(options.results, options.docs)
    return 0


def _measure(name: str, seconds: float, results: Path, more: list[str]) -> None:
    print(f"bench_{name}: {seconds:g} s …", flush=True)
    started = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", "--json", "--require-peers", "--seconds", str(seconds)]
    command += more
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    (results / f"{name}.json").write_text(_layout(json.loads(found)), "utf-8")
    print(f"bench_{name}: done in {time.monotonic() - started:.0f} s", flush=True)


def _layout(found: dict[str, Any]) -> str:
    """JSON with one line for each contestant, so that a change of the results can be read."""
    head = {name: value for name, value in found.items() if name != "tables"}
    tables = [json.dumps(table, ensure_ascii=False).replace('"rows": {', '"rows": {\n  ') for table in found["tables"]]
    tables = [table.replace('}, "', '},\n  "') for table in tables]
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n" for name, value in head.items()]
    return "{\n" + "".join(lines) + ' "tables": [\n ' + ",\n ".join(tables) + "\n ]\n}\n"


def _write(results: Path, docs: Path) -> None:
    missing = [name for name in LENGTHS if not (results / f"{name}.json").is_file()]
    if missing:
        print(f"no page: in {results} there is nothing of {', '.join(missing)}")
        return
    raw = {name: json.loads((results / f"{name}.json").read_text("utf-8")) for name in LENGTHS}
    (docs / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, svg in make_plots(raw).items():
        (docs / PLOTS / name).write_text(svg, "utf-8")
    (docs / "performance.md").write_text(make_page(raw), "utf-8")
    print(f"written: {docs / 'performance.md'}; missed and not explained: {', '.join(unexplained(raw)) or 'nothing'}")


if __name__ == "__main__":
    sys.exit(main())
