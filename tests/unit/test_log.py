"""How often one kind of line is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lasersell_sync.runtime.log import OTHERS_AT_ONCE, WARNINGS_AT_ONCE, WINDOW_S, RepeatLimit


class Log:
    """A logger with a limit on a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.limit = RepeatLimit(lambda: self.now)
        self.logger = logging.getLogger("test_log")
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.addFilter(self.limit)
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        self.handler = handler
        self.logger.addHandler(handler)


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.logger.removeHandler(made.handler)
    made.logger.removeFilter(made.limit)


def test_log_flood_of_one_kind_is_summed_up(log: Log) -> None:
    """The first lines come at once; how many more there were is logged when the window is over, by nobody's line."""
    for number in range(1000):
        log.logger.warning("bad frame %d", number)
    assert log.lines == [f"bad frame {number}" for number in range(WARNINGS_AT_ONCE)]
    log.now += WINDOW_S / 2
    assert log.limit.log_sums() == pytest.approx(WINDOW_S / 2)
    log.now += WINDOW_S / 2
    assert log.limit.log_sums() is None
    assert log.lines[WARNINGS_AT_ONCE:] == [f"{1000 - WARNINGS_AT_ONCE} more lines in 10 s of the kind: bad frame %d"]


def test_log_line_after_the_window_brings_the_sum_before_it(log: Log) -> None:
    for _ in range(WARNINGS_AT_ONCE + 1):
        log.logger.error("again")
    log.now += WINDOW_S
    log.logger.error("again")
    assert log.lines[-2:] == ["1 more lines in 10 s of the kind: again", "again"]


def test_log_kinds_and_levels_are_counted_apart(log: Log) -> None:
    """An error is not held back because of a flood of warnings, and a debug log is long."""
    for _ in range(OTHERS_AT_ONCE + 5):
        log.logger.warning("flood")
        log.logger.info("flood")
    log.logger.error("flood")
    log.logger.warning("another")
    assert len(log.lines) == WARNINGS_AT_ONCE + OTHERS_AT_ONCE + 2
    log.limit.log_sums(all_kinds=True)
    assert sum("more lines" in line for line in log.lines) == 2


def test_log_many_kinds_are_not_kept_for_ever(log: Log) -> None:
    """Texts that someone else makes are kinds too."""
    for number in range(5000):
        log.logger.warning(f"kind {number}")  # noqa: G004 - that is the case
    assert len(log.lines) == 5000
    assert len(log.limit._kinds) <= 512
