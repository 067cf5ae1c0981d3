"""Seeded price stories: what the crowd does to a token's price, tick by tick.

A tape yields the ratio by which the price moves at each market tick. Integers only (parts per million), so that one
seed tells one story on every platform.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Phase:
    """A straight line to ``end_ppm`` of the starting price over ``ticks``, with noise of ± ``noise_ppm`` around it."""

    ticks: int
    end_ppm: int
    noise_ppm: int


def _climb(rng: random.Random) -> list[Phase]:
    """Some chop, then +40 … 80 % in about 8.5 s (at 100 ms a tick)."""
    return [Phase(15, PPM, 8_000), Phase(85, PPM + rng.randint(400_000, 800_000), 10_000)]


def _fall(rng: random.Random) -> list[Phase]:
    """Some chop, then -30 … 45 % in about 7 s."""
    return [Phase(15, PPM, 8_000), Phase(70, PPM - rng.randint(300_000, 450_000), 8_000)]


def _peak(rng: random.Random) -> list[Phase]:
    """Up by 45 … 60 % in about 4 s, then back below where it began."""
    top = PPM + rng.randint(450_000, 600_000)
    return [Phase(10, PPM, 6_000), Phase(40, top, 6_000), Phase(45, PPM - rng.randint(100_000, 200_000), 6_000)]


STORIES: dict[str, Callable[[random.Random], list[Phase]]] = {"climb": _climb, "fall": _fall, "peak": _peak}
#: After the story the price only breathes.
REST_NOISE_PPM = 12_000


class Tape:
    """One run of a story. ``step`` gives the next ratio; it never ends, but ``resting`` tells when the story is."""

    def __init__(self, story: str, seed: str) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (a story, not a secret)
        self._phases = STORIES[story](self._rng)
        self._phase_start_ppm = PPM
        self._phase_tick = 0
        self._last_ppm = PPM
        #: ticks so far
        self.tick = 0

    @property
    def resting(self) -> bool:
        """True once the story is told."""
        return not self._phases

    def step(self) -> tuple[int, int]:
        """The next tick's price ratio as (numerator, denominator)."""
        self.tick += 1
        target_ppm = self._level_ppm()
        ratio = (target_ppm, self._last_ppm)
        self._last_ppm = target_ppm
        return ratio

    def _level_ppm(self) -> int:
        if not self._phases:
            return self._phase_start_ppm + self._noise_ppm(REST_NOISE_PPM)
        phase = self._phases[0]
        self._phase_tick += 1
        span_ppm = phase.end_ppm - self._phase_start_ppm
        level_ppm = self._phase_start_ppm + span_ppm * self._phase_tick // phase.ticks
        if self._phase_tick == phase.ticks:
            self._phases.pop(0)
            self._phase_start_ppm, self._phase_tick = phase.end_ppm, 0
        return level_ppm + self._noise_ppm(phase.noise_ppm)

    def _noise_ppm(self, amplitude_ppm: int) -> int:
        return self._rng.randint(-amplitude_ppm, amplitude_ppm)
