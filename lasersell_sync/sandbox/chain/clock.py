"""Virtual time: flows with real time, faster or slower, or stands still until ``advance``.

The exchange plays its events one after the other, each at its own virtual moment: while one is played, ``now_s`` is
that moment, however late the machine is. So what the exchange says depends on what happened and not on how fast the
machine was; and when the machine is too slow for the speed asked for, virtual time waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

#: Where virtual time begins in scenarios, so that its dates are always the same: 2026-01-01 00:00 UTC.
SCENARIO_START_MS = 1_767_225_600_000


class VirtualClock:
    """Counts virtual seconds from 0.

    Args:
        real_s: A monotonic clock.
        speed: Virtual seconds per real second.
        start_ms: The Unix time of virtual second 0.
        flowing: False: time moves by ``advance`` alone.
        waiting: Time stands still until ``begin``.
        grain_s: What happens from outside is dated back to a multiple of this; 0 dates it exactly.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        real_s: Callable[[], float],
        *,
        speed: float = 1.0,
        start_ms: int = 0,
        flowing: bool = True,
        waiting: bool = False,
        grain_s: float = 0.0,
    ) -> None:
        self._real_s = real_s
        self.speed = speed
        self._start_ms = start_ms
        self._flowing = flowing
        self._waiting = waiting
        self._grain_s = grain_s
        self._now_s = 0.0
        #: virtual time was ``_anchor_s`` when the real clock showed ``_anchor_real_s``
        self._anchor_s = 0.0
        self._anchor_real_s = real_s()

    def now_s(self) -> float:
        """The moment that is being played."""
        return self._now_s

    def now_ms(self) -> int:
        """The same as Unix milliseconds."""
        return self._start_ms + round(self._now_s * 1000)

    @property
    def flowing(self) -> bool:
        """Whether virtual time moves by itself now."""
        return self._flowing and not self._waiting

    def begin(self) -> None:
        """Let time flow, if it waited for this."""
        if self._waiting:
            self._waiting = False
            self._anchor()

    def _anchor(self) -> None:
        self._anchor_s, self._anchor_real_s = self._now_s, self._real_s()

    def target_s(self) -> float:
        """How far virtual time may be played by now."""
        if not self.flowing:
            return self._anchor_s
        return self._anchor_s + (self._real_s() - self._anchor_real_s) * self.speed

    def move_to(self, moment_s: float) -> None:
        """Play a moment; never goes back."""
        self._now_s = max(self._now_s, moment_s)

    def date_outside_event(self, next_due_s: float | None) -> None:
        """Something came from outside: it happens now, but not after a planned moment that is still to be played."""
        target_s = self.target_s()
        if self._grain_s:
            target_s -= target_s % self._grain_s
        self.move_to(target_s if next_due_s is None else min(target_s, next_due_s))

    def advance(self, seconds: float) -> None:
        """Where time does not flow: let it go on by so many seconds."""
        self._anchor_s += seconds

    def stay(self) -> None:
        """Stop the time that was allowed but not played: time goes on from here."""
        self._anchor()

    def real_wait_s(self, moment_s: float) -> float | None:
        """Real seconds until a moment may be played; None if waiting alone never brings it."""
        if not self.flowing:
            return 0.0 if moment_s <= self._anchor_s else None
        return max(0.0, (moment_s - self.target_s()) / self.speed)
