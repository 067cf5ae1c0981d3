"""Seeded price paths: what the crowd does to a token's price, tick by tick.

A price path yields the ratio by which the price moves at each market tick. It computes with integers (parts per
million), so one seed gives one path on every platform.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

PPM = 1_000_000
#: Market ticks per second of virtual time.
TICKS_PER_S = 10


@dataclass(frozen=True, slots=True)
class Phase:
    """A straight line to ``end_ppm`` of the starting price over ``ticks``, with noise of ± ``noise_ppm`` around it.

    As it begins, the pool keeps ``liquidity_ppm`` of both its sides, if given. ``halted``: nobody trades meanwhile.
    """

    ticks: int
    end_ppm: int
    noise_ppm: int
    liquidity_ppm: int | None = None
    halted: bool = False


#: Returns the phases of a price path; the argument draws what is left to chance.
DrawPhases = Callable[[random.Random], list[Phase]]


def _climb(rng: random.Random) -> list[Phase]:
    """Some chop, then +40 … 80 % in about 8.5 s."""
    return [Phase(15, PPM, 8_000), Phase(85, PPM + rng.randint(400_000, 800_000), 10_000)]


def _fall(rng: random.Random) -> list[Phase]:
    """Some chop, then -30 … 45 % in about 7 s."""
    return [Phase(15, PPM, 8_000), Phase(70, PPM - rng.randint(300_000, 450_000), 8_000)]


def _peak(rng: random.Random) -> list[Phase]:
    """Up by 45 … 60 % in about 4 s, then back below where it began."""
    top = PPM + rng.randint(450_000, 600_000)
    return [Phase(10, PPM, 6_000), Phase(40, top, 6_000), Phase(45, PPM - rng.randint(100_000, 200_000), 6_000)]


def _calm(_rng: random.Random) -> list[Phase]:
    """No phases: the price only fluctuates."""
    return []


PRICE_PATHS: dict[str, DrawPhases] = {"climb": _climb, "fall": _fall, "peak": _peak, "calm": _calm}
#: After the last phase the price only fluctuates.
REST_NOISE_PPM = 12_000


@dataclass(frozen=True, slots=True)
class Step:
    """One tick: the price moves by ``numerator / denominator``."""

    numerator: int
    denominator: int
    #: the pool keeps so much of both its sides first
    liquidity_ppm: int | None
    halted: bool
    #: draws the tick's trader
    lot: int


class PricePath:
    """One run of a price path. ``step`` returns the next tick; it never ends. ``resting``: the last phase is over."""

    def __init__(self, draw_phases: DrawPhases, seed: str, *, rest_noise_ppm: int = REST_NOISE_PPM) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (a price, not a secret)
        self._phases = draw_phases(self._rng)
        self._rest_noise_ppm = rest_noise_ppm
        self._phase_start_ppm = PPM
        self._phase_tick = 0
        self._last_ppm = PPM
        # Of its own, so that who trades does not change what the price does.
        self._lots = random.Random(seed + ":lots")  # noqa: S311
        #: ticks so far
        self.tick = 0

    @property
    def resting(self) -> bool:
        """True once the last phase is over."""
        return not self._phases

    @property
    def still(self) -> bool:
        """True once nothing will ever move again."""
        return self.resting and self._rest_noise_ppm == 0

    def step(self) -> Step:
        """The next tick."""
        self.tick += 1
        phase = self._phases[0] if self._phases else None
        starting = phase is not None and self._phase_tick == 0
        target_ppm = self._level_ppm()
        if phase is not None and phase.halted:
            target_ppm = self._last_ppm
        step = Step(
            target_ppm,
            self._last_ppm,
            phase.liquidity_ppm if phase is not None and starting else None,
            phase is not None and phase.halted,
            self._lots.getrandbits(32),
        )
        self._last_ppm = target_ppm
        return step

    def _level_ppm(self) -> int:
        if not self._phases:
            return max(1, self._phase_start_ppm + self._noise_ppm(self._rest_noise_ppm))
        phase = self._phases[0]
        self._phase_tick += 1
        span_ppm = phase.end_ppm - self._phase_start_ppm
        level_ppm = self._phase_start_ppm + span_ppm * self._phase_tick // phase.ticks
        if self._phase_tick == phase.ticks:
            self._phases.pop(0)
            self._phase_start_ppm, self._phase_tick = phase.end_ppm, 0
        return max(1, level_ppm + self._noise_ppm(phase.noise_ppm))

    def _noise_ppm(self, amplitude_ppm: int) -> int:
        return self._rng.randint(-amplitude_ppm, amplitude_ppm)
