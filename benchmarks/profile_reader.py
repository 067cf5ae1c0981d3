"""Where the reader's time goes: processor time per message, by what the stream holds, without socket and sender.

Usage: ``python -m benchmarks.profile_reader [--rounds N]``

Feeds the mixed stream, and parts of it, to the reader's own code, with an inline handler that does nothing. It compares
with nobody, so it may look inside; ``misses.md`` quotes its shares, never its times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import lasersell_sync as ls
from benchmarks import data, sender
from benchmarks.peers import WALLET
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.stream.connected_loop import ConnectedLoop

MESSAGES = 100_000
READ_BYTES = 256 * 1024
RARE = ("balance_update", "position_opened", "exit_signal_with_tx")


class _NoLink:
    """Takes what is sent, and has nothing to read."""

    endpoint = "nowhere"
    plain = None
    unsent_bytes = 0

    def send(self, frame: memoryview) -> int:
        return len(frame)

    def flush(self) -> None:
        """Nothing waits."""

    def fileno(self) -> int:
        return 0

    def kernel_verdict(self, *, unacknowledged_is_dead: bool) -> str | None:  # noqa: ARG002 - as a link's
        return None


def _feeder(texts: Sequence[bytes]) -> Callable[[], None]:
    """Brings the messages to a handler in one go, as the reader would."""
    configure = ls.StreamConfigure([WALLET], ls.strategy_config_from_optional(target_profit_pct=5, stop_loss_pct=5))
    session = ls.StreamSession(
        ls.StreamClient("profile").with_endpoint("ws://127.0.0.1:9").prepare(configure), dispatch="inline"
    )
    session.on("*", lambda _: None)
    session._state.router.handlers = session._registry.called
    reader = session.connection.reader
    reader.sink = session._state
    serving = ConnectedLoop(reader, _NoLink(), TimeBudget(None))  # type: ignore[arg-type]
    serving._take_in(memoryview(b"".join(sender._greeting(data.POSITIONS))))
    stream = memoryview(b"".join(data.frame(text) for text in texts))

    def feed() -> None:
        for at in range(0, len(stream), READ_BYTES):
            serving._take_in(stream[at : at + READ_BYTES])

    return feed


def _decoder(texts: Sequence[bytes]) -> Callable[[], None]:
    decode = ls.server_message_from_text

    def feed() -> None:
        for text in texts:
            decode(text)

    return feed


def _is_rare(text: bytes) -> bool:
    return any(kind.encode() in text[:40] for kind in RARE)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    mixed = data.mixed(MESSAGES)
    frequent = [text for text in mixed if not _is_rare(text)]
    feeders = {
        "all, decoded alone": (_decoder(mixed), len(mixed)),
        "all": (_feeder(mixed), len(mixed)),
        "without the rare kinds": (_feeder(frequent), len(frequent)),
    }
    best = dict.fromkeys(feeders, float("inf"))
    for _ in range(rounds):
        for name, (feed, count) in feeders.items():
            started = time.thread_time_ns()
            feed()
            best[name] = min(best[name], (time.thread_time_ns() - started) / count)
    for name, value in best.items():
        print(f"{name:26} {value:6.0f} ns a message, {value / best['all']:4.0%}")
    rare_share = 1 - len(frequent) / len(mixed)
    rare_time = 1 - best["without the rare kinds"] * len(frequent) / (best["all"] * len(mixed))
    print(f"the rare kinds are {rare_share:.1%} of the messages and take {rare_time:.0%} of the time")


if __name__ == "__main__":
    main()
