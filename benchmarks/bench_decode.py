"""What reading one message costs: ours against what a user would otherwise write, over the same bytes.

Usage: ``python -m benchmarks.bench_decode [--json] [--versions] [--seconds S] [--require-peers]``

All contestants run in one process in interleaved rounds. A round reads a batch of messages and drops each at once, as a
handler does that keeps none. The batch is read once untimed before, because a frame that was just received is in the
cache, and not what another contestant left there.

The last tables are messages of growing size: linear cost shows as the same time per byte in each.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks import command, data
from benchmarks.decoders import Decode, decoders
from benchmarks.rounds import Table, interleave

BATCH: Final = 1000
SLOW_NS_PER_BYTE: Final = 20
SIZES: Final = tuple(2**power for power in (8, 10, 12, 14, 16, 18, 20))


def measure(seconds: float) -> command.Outcome:
    """One table per message type, one of the mixed stream, one per size."""
    contestants = decoders()
    corpora = {kind: data.one_type(kind, BATCH) for kind in data.TYPES} | {"mixed": data.mixed(BATCH)}
    # One batch of a size has as many bytes as one of small messages.
    growing = {size: [data.growing(size)] * max(1, 2**18 // size) for size in SIZES}
    share_s = seconds / (len(corpora) + len(growing))
    tables = []
    for name, corpus in corpora.items():
        size = round(sum(map(len, corpus)) / len(corpus))
        table = Table(name, f"decode `{name}`, {size} bytes on average", "ns per message")
        tables.append(table.fill(_rounds(contestants, corpus, share_s)))
    for size, batch in growing.items():
        table = Table(f"size_{size}", f"decode one message of {len(batch[0]):,} bytes", "ns per message")
        tables.append(table.fill(_rounds(contestants, batch, share_s)))
    return command.Outcome(tables)


def _rounds(
    contestants: Mapping[str, Decode], corpus: Sequence[bytes], seconds: float
) -> Mapping[str, Sequence[Sequence[float]]]:
    """ns per message of every contestant over one corpus."""

    def turn(decode: Decode) -> list[float]:
        return [_batch_ns(decode, batches[decode])]

    # The slow ones get a shorter batch, so that a round stays short and its contestants meet the same machine.
    small, big = corpus[: max(1, len(corpus) // 20)], corpus
    slow_ns = SLOW_NS_PER_BYTE * sum(map(len, small)) / len(small)
    batches = {decode: small if _batch_ns(decode, small) > slow_ns else big for decode in contestants.values()}
    gc.collect()
    gc.freeze()
    try:
        return interleave({name: lambda decode=decode: turn(decode) for name, decode in contestants.items()}, seconds)
    finally:
        gc.unfreeze()


def _batch_ns(decode: Decode, batch: Sequence[bytes]) -> float:
    """ns per message: the read, the object's release, and the loop's own cost."""
    for text in batch:
        decode(text)
    start = time.perf_counter_ns()
    for text in batch:
        decode(text)
    return (time.perf_counter_ns() - start) / len(batch)


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=("msgspec", "orjson", "lasersell-sdk"), seconds=20))
