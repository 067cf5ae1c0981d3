"""What was aimed at, and what it is read from. Why it is missed where it is: ``misses.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from benchmarks.command import Outcome

__all__ = ["TARGETS", "Results", "Target"]

Results: TypeAlias = Mapping[str, Outcome]

MSGSPEC: Final = "msgspec"
INLINE: Final = "ours, inline handler"
GET: Final = "ours, events.get()"
BATCHES: Final = "ours, get_batch()"
DISPATCHER: Final = "ours, dispatcher"
PER_LANE: Final = "ours, per_lane"
PICOWS: Final = "picows + msgspec"
WEBSOCKETS: Final = "websockets sync + msgspec"
UNCHECKED: Final = "websocket-client (checks off) + msgspec"
OFFICIAL: Final = "official SDK"
BARE: Final = "raw recv"
OURS_GUARDED: Final = "ours, Signer.sign() and send_transaction_b64_to()"
PARTS: Final = "its parts in a row: guard, Ed25519, bare urllib3"


@dataclass(frozen=True)
class Target:
    """One promise of ours.

    Attributes:
        key: its name in ``misses.md``.
        measure: what is measured.
        reached: reads it from the results.
        bound: the value aimed at.
        unit: follows the value.
        at_least: False where less is better.
    """

    key: str
    measure: str
    reached: Callable[[Results], float]
    bound: float
    unit: str
    at_least: bool = True

    @property
    def aim(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}".strip()

    def is_met(self, results: Results) -> bool:
        """True when what was reached is on the good side of the bound."""
        reached = self.reached(results)
        return reached >= self.bound if self.at_least else reached <= self.bound


def _ratio(bench: str, table: str, ours: str, peer: str) -> Callable[[Results], float]:
    """How many times better ``ours`` is."""
    return lambda results: results[bench].table(table).ratio(ours, peer)


def _takes(bench: str, table: str, ours: str, peer: str) -> Callable[[Results], float]:
    """How many times as long ``ours`` takes."""
    return _ratio(bench, table, peer, ours)


def _share(bench: str, table: str, part: str, whole: str) -> Callable[[Results], float]:
    """How much of ``whole`` ``part`` is, in percent."""
    return lambda results: 100 * results[bench].table(table).ratio(whole, part)


def _p99_in_flood(name: str) -> Callable[[Results], float]:
    """How many times its 99th percentile on an idle link."""

    def reached(results: Results) -> float:
        idle, flood = (results["latency"].table(key).rows[name].p99 for key in ("idle", "flood"))
        return flood / idle

    return reached


def _fact(bench: str, key: str) -> Callable[[Results], float]:
    return lambda results: results[bench].facts[key].value


def _wakes_per_keepalive(results: Results) -> float:
    facts = results["idle"].facts
    return facts["wakes"].value / max(1.0, facts["keepalives"].value)


def _burst(key: str, measure: str, bound: float) -> Target:
    """The median burst's 99th percentile, or the median exit where they come alone."""
    return Target(
        f"burst-{key}",
        measure,
        lambda results: results["burst"].table(key).rows["ours"].median,
        bound,
        "ms",
        at_least=False,
    )


def _burst_ratio(key: str, name: str, to_key: str, to_name: str) -> Callable[[Results], float]:
    """How many times as long as another row's; infinite where that was not measured."""

    def reached(results: Results) -> float:
        burst = results["burst"]
        other = burst.table(to_key).rows.get(to_name)
        return burst.table(key).rows[name].median / other.median if other is not None else float("inf")

    return reached


TARGETS: Final = (
    # decoding
    Target(
        "decode-pnl",
        "decode `pnl_update`, against msgspec typed",
        _ratio("decode", "pnl_update", "lasersell_sync", MSGSPEC),
        2.0,
        "times",
    ),
    Target(
        "decode-mixed",
        "decode the mixed corpus, against msgspec typed",
        _ratio("decode", "mixed", "lasersell_sync", MSGSPEC),
        1.6,
        "times",
    ),
    Target(
        "decode-official",
        "decode the mixed corpus, against the official SDK",
        _ratio("decode", "mixed", "lasersell_sync", OFFICIAL),
        20,
        "times",
    ),
    # stream
    Target(
        "stream-picows",
        "stream → inline handler, against picows + msgspec",
        _ratio("stream", "plain", INLINE, PICOWS),
        3,
        "times",
    ),
    Target(
        "stream-websocket-client",
        "stream → inline handler, against websocket-client (checks off) + msgspec",
        _ratio("stream", "plain", INLINE, UNCHECKED),
        25,
        "times",
    ),
    Target(
        "stream-official",
        "stream → inline handler, against the official SDK",
        _ratio("stream", "plain", INLINE, OFFICIAL),
        60,
        "times",
    ),
    Target(
        "stream-get",
        "stream → `events.get()`, against websockets sync + msgspec",
        _ratio("stream", "plain", GET, WEBSOCKETS),
        12,
        "times",
    ),
    Target("stream-batch", "`get_batch()`, against `get()`", _ratio("stream", "plain", BATCHES, GET), 1.1, "times"),
    Target(
        "tls-large",
        "TLS, records of 16 KiB → inline handler, against picows + msgspec",
        _ratio("stream", "tls_large", INLINE, PICOWS),
        1.5,
        "times",
    ),
    Target(
        "tls-message",
        "TLS, one record a message → inline handler, against picows + msgspec",
        _ratio("stream", "tls_message", INLINE, PICOWS),
        0.9,
        "times",
    ),
    Target(
        "beside-work",
        "stream → inline handler while another thread computes",
        lambda r: r["stream"].table("beside_work").rows[INLINE].median / 1e6,
        0.5,
        "M messages/s",
    ),
    Target(
        "beside-work-exits",
        "latest exit signal at 0.5 M messages/s while another thread computes",
        lambda r: r["stream"].table("beside_work_exits").rows[INLINE].worst,
        20,
        "ms",
        at_least=False,
    ),
    # latency
    Target(
        "idle-inline",
        "exit signal on an idle link → inline handler, against a bare `recv`",
        _takes("latency", "idle", INLINE, BARE),
        1.3,
        "times",
        at_least=False,
    ),
    Target(
        "idle-dispatcher",
        "exit signal on an idle link → dispatcher, against a bare `recv`",
        _takes("latency", "idle", DISPATCHER, BARE),
        2,
        "times",
        at_least=False,
    ),
    Target(
        "idle-get",
        "exit signal on an idle link → `events.get()`, against a bare `recv`",
        _takes("latency", "idle", GET, BARE),
        2,
        "times",
        at_least=False,
    ),
    Target(
        "flood-inline",
        "99th percentile in a flood of 100,000/s, against the idle one: inline",
        _p99_in_flood(INLINE),
        5,
        "times",
        at_least=False,
    ),
    Target(
        "flood-per-lane",
        "99th percentile in a flood of 100,000/s, against the idle one: per_lane",
        _p99_in_flood(PER_LANE),
        5,
        "times",
        at_least=False,
    ),
    Target(
        "sleeping-handlers",
        "exit signal while every `pnl_update` handler sleeps 50 ms (per_lane), against handlers that do nothing",
        _takes("latency", "sleep", "ours, per_lane, sleeping 50 ms", "ours, per_lane, doing nothing"),
        1.2,
        "times",
        at_least=False,
    ),
    # submitting
    Target(
        "sign",
        "base64 in → signed base64 out, against Ed25519 alone",
        _takes("submit", "sign", "ours, sign_unsigned_tx_b64()", "Ed25519 alone (solders)"),
        1.25,
        "times",
        at_least=False,
    ),
    Target(
        "submit-official",
        "exit signal in → signed POST written, against the official SDK",
        _ratio("submit", "submit", "ours, send_transaction_b64_to()", OFFICIAL),
        5,
        "times",
    ),
    Target(
        "submit-urllib3",
        "exit signal in → signed POST written, against our signature + bare urllib3",
        _takes("submit", "submit", "ours, send_transaction_b64_to()", "our signature, bare urllib3"),
        1.15,
        "times",
        at_least=False,
    ),
    Target(
        "submit-parts",
        "guarded exit signal → signed POST written: guard + Ed25519 + one bare urllib3 request are so much of it",
        _share("submit", "guarded", PARTS, OURS_GUARDED),
        85,
        "%",
    ),
    # bursts
    _burst("single", "1 exit after a pause, journal on disk, median", 1.8),
    _burst("n100", "100 exits at once, journal on disk", 40),
    _burst("n100_sync", "the same, each fsync 10 ms longer", 75),
    _burst("n300", "300 exits at once, journal on disk", 130),
    _burst("n300_sync", "the same, each fsync 10 ms longer", 160),
    _burst("settling", "100 exits at once while 300 others settle", 50),
    _burst("settling_sync", "the same, each fsync 10 ms longer", 90),
    _burst("answers_64", "100 exits at once, target answers after 100 ms, 64 connections", 150),
    _burst("answers_128", "the same, 128 connections", 60),
    _burst("silent_40", "40 exits at once, the first of three targets never answers", 60),
    _burst("silent_100", "100 exits at once, the first of three targets never answers", 100),
    _burst("beside_balances", "a stop loss while 40 unfinished exits ask a hanging node", 10),
    _burst("beside_rest", "a stop loss while 40 levels ask a hanging REST API", 10),
    _burst("beside_callback", "a stop loss beside an `on_outcome` that takes 5 s", 10),
    _burst("router", "100 exits at once through the Router, simulation answers after 100 ms", 250),
    _burst("router_hanging", "40 exits at once through the Router, the only simulating node hangs", 900),
    _burst("router_one_hangs", "40 exits at once through the Router, one of two simulating nodes hangs", 150),
    _burst("tls_first", "the first exit of a process, over TLS", 4),
    Target(
        "burst-single-before",
        "1 exit after a pause, against the last milestone",
        _burst_ratio("single", "ours", "single", "ours, the commit before"),
        0.85,
        "times",
        at_least=False,
    ),
    Target(
        "burst-tls-warm",
        "the first exit of a process over TLS, against later ones",
        _burst_ratio("tls_first", "ours", "tls_later", "ours"),
        1.5,
        "times",
        at_least=False,
    ),
    # standing by
    Target(
        "idle-cpu",
        "idle connection: processor time",
        lambda r: r["idle"].table("cpu").rows[INLINE].median,
        0.1,
        "%",
        at_least=False,
    ),
    Target("idle-wakes", "idle connection: wake-ups for each keepalive", _wakes_per_keepalive, 3, "", at_least=False),
    Target(
        "stalled-loss",
        "20,000 positions, 200,000 updates/s, consumer stalled: exit signals lost",
        _fact("memory", "exits_lost"),
        0,
        "",
        at_least=False,
    ),
    Target(
        "stalled-memory",
        "the same: memory grew by",
        lambda r: r["memory"].table("stalled_memory").rows[GET].median,
        64,
        "MiB",
        at_least=False,
    ),
    Target(
        "stalled-reader",
        "the same: the reader kept the sender waiting (one flush interval: 100 ms)",
        _fact("memory", "reader_behind"),
        100,
        "ms",
        at_least=False,
    ),
    Target(
        "live-age",
        "consumer live: greatest age of a newest value (two flush intervals)",
        lambda r: r["memory"].table("live_age").rows[BATCHES].median,
        200,
        "ms",
        at_least=False,
    ),
    Target(
        "import",
        "`import lasersell_sync`, against websocket-client + attrs + tenacity",
        _takes("import", "import", "lasersell_sync", "websocket-client + attrs + tenacity"),
        1.6,
        "times",
        at_least=False,
    ),
)
