"""What reading one message costs: ours against what a user would otherwise write, over the same bytes.

Usage: ``python -m benchmarks.bench_decode [--json] [--versions] [--seconds S] [--require-peers]``

All contestants run in one process in interleaved rounds, so that a machine that slows down slows all of them. A round
reads a batch of messages and drops each at once, as a handler does that keeps none. The batch is read once untimed
before, because a frame that was just received is in the cache, and not what another contestant left there. Told are
the median over rounds in ns per message, the 99th percentile over rounds, and how many times ours each takes: the
median of that ratio within each round.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Final

from benchmarks import data
from lasersell_sync import messages
from lasersell_sync._pure import Decoder as PureDecoder
from lasersell_sync._version import __version__
from lasersell_sync.exceptions import DecodeError

OURS: Final = "lasersell_sync"
BATCH: Final = 1000
SLOW_NS: Final = 5000
Decode = Callable[[bytes], object]


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a required contestant is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--versions", action="store_true", help="print the versions that are compared, and stop")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for all measurements together (default 10)")
    parser.add_argument("--require-peers", action="store_true", help="fail if a peer is not installed")
    options = parser.parse_args(argv)
    contestants, missing = _contestants()
    for name, why in missing.items():
        print(f"not compared: {name}: {why}", file=sys.stderr)
    if options.versions:
        print(json.dumps(_versions(), indent=1))
        return 0
    if OURS in missing or (missing and options.require_peers):
        return 1
    corpora = {**{kind: data.one_type(kind, BATCH) for kind in data.TYPES}, "mixed": data.mixed(BATCH)}
    results = {name: _measure(contestants, corpus, options.seconds / len(corpora)) for name, corpus in corpora.items()}
    if options.json:
        print(json.dumps({"versions": _versions(), "missing": missing, "ns_per_message": results}, indent=1))
    else:
        _print(results, corpora)
    return 0


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version(), "machine": platform.machine(), "lasersell-sync": __version__}
    for package in ("msgspec", "orjson"):
        try:
            out[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            out[package] = "not installed"
    return out


# ── contestants ──────────────────────────────────────────────────────────────────────────────────────────────────


def _contestants() -> tuple[dict[str, Decode], dict[str, str]]:
    """Name to decode function, ours first; and who is missing, with the reason."""
    makers: dict[str, Callable[[], Decode]] = {
        OURS: _ours,
        "msgspec": _msgspec,
        "orjson": _orjson,
        "json": lambda: _constructing(json.loads),
        "pure": lambda: PureDecoder(messages.SERVER_MESSAGES, messages.UnknownMessage, DecodeError).decode,
    }
    found: dict[str, Decode] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def _ours() -> Decode:
    from lasersell_sync._core import Decoder

    return Decoder(messages.SERVER_MESSAGES, messages.UnknownMessage, DecodeError).decode


def _constructing(loads: Callable[[bytes], Any]) -> Decode:
    """A parser to dictionaries, then our classes' own constructors: what one writes by hand, without waste."""

    def level(cls: type) -> Callable[[dict[str, Any]], object]:
        nested = [
            (spec.name, spec.kind == "list", level(spec.cls))
            for spec in cls.wire_fields  # type: ignore[attr-defined]
            if spec.cls is not None
        ]
        if not nested:
            return lambda fields: cls(**fields)

        def build(fields: dict[str, Any]) -> object:
            for name, is_list, make in nested:
                value = fields.get(name)
                if value is not None:
                    fields[name] = tuple(map(make, value)) if is_list else make(value)
            return cls(**fields)

        return build

    builders = {name: level(cls) for name, cls in messages.SERVER_MESSAGES.items()}

    def decode(text: bytes) -> object:
        fields = loads(text)
        return builders[fields.pop("type")](fields)

    return decode


def _orjson() -> Decode:
    import orjson

    return _constructing(orjson.loads)


def _msgspec() -> Decode:
    """A tagged union of Structs from the same schema; without the wire's integer ranges, which would cost it time."""
    import msgspec

    kinds: dict[str, Any] = {
        **dict.fromkeys(("u64", "i64", "u32", "u16", "u8"), int),
        "f64": float,
        "bool": bool,
        "str": str,
    }
    made: dict[type, Any] = {}

    def struct(cls: type, tag: str | None) -> Any:
        if cls in made:
            return made[cls]
        fields: list[Any] = []
        for spec in cls.wire_fields:  # type: ignore[attr-defined]
            kind = kinds.get(spec.kind)
            if kind is None:
                nested: Any = struct(spec.cls, None)
                kind = types.GenericAlias(tuple, (nested, ...)) if spec.kind == "list" else nested
            if spec.required:
                fields.append((spec.name, kind))
            else:
                fields.append((spec.name, kind | None if spec.default is None else kind, spec.default))
        made[cls] = msgspec.defstruct(cls.__name__, fields, tag=tag, frozen=True, kw_only=True, gc=False)
        return made[cls]

    union: Any = None
    for name, cls in messages.SERVER_MESSAGES.items():
        made_struct = struct(cls, name)
        union = made_struct if union is None else union | made_struct
    return msgspec.json.Decoder(union).decode


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────


def _measure(contestants: dict[str, Decode], corpus: list[bytes], seconds: float) -> dict[str, dict[str, float]]:
    """ns per message of every contestant over one corpus, and ours against it."""
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    # The slow ones get a shorter batch, so that a round stays short and its contestants meet the same machine.
    slow = {name for name, decode in contestants.items() if _round(decode, corpus[:50]) > SLOW_NS}
    batches = {name: corpus[: BATCH // 10 if name in slow else BATCH] for name in contestants}
    deadline = time.perf_counter() + seconds
    gc.collect()
    gc.freeze()
    while time.perf_counter() < deadline or len(rounds[OURS]) < 3:
        for name, decode in contestants.items():
            rounds[name].append(_round(decode, batches[name]))
    gc.unfreeze()
    return {
        name: {
            "median": statistics.median(times),
            "p99": _percentile(times, 0.99),
            "ratio": statistics.median(peer / own for peer, own in zip(times, rounds[OURS], strict=True)),
            "rounds": len(times),
        }
        for name, times in rounds.items()
    }


def _round(decode: Decode, batch: Sequence[bytes]) -> float:
    """ns per message: the read, the object's release, and the loop's own cost."""
    for text in batch:
        decode(text)
    start = time.perf_counter_ns()
    for text in batch:
        decode(text)
    return (time.perf_counter_ns() - start) / len(batch)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _print(results: dict[str, dict[str, dict[str, float]]], corpora: dict[str, list[bytes]]) -> None:
    names = list(next(iter(results.values())))
    print("ns per message: median over rounds (99th percentile); in brackets how many times ours it takes\n")
    print(f"{'message':<22}{'bytes':>6}  " + "".join(f"{name:>26}" for name in names))
    for corpus, by_name in results.items():
        size = statistics.mean(map(len, corpora[corpus]))
        cells = [f"{cell['median']:.0f} ({cell['p99']:.0f}) [{cell['ratio']:.2f}x]" for cell in by_name.values()]
        print(f"{corpus:<22}{size:>6.0f}  " + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
