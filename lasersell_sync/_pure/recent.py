"""The latest items, numbered: what the memory of a session is made of."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """The latest items, each with its number.

    Args:
        capacity: how many are kept.

    Threads: one numbers and keeps; any may ask.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[tuple[int, T]] = deque(maxlen=capacity)
        self._serial = 0

    def number(self, item: T, /) -> tuple[int, T]:
        """Give it the next number: (number, item)."""
        self._serial += 1
        return self._serial, item

    def keep(self, item: T, /) -> tuple[int, T]:
        """Give it the next number, and keep it instead of the oldest: (number, item)."""
        numbered = Recent.number(self, item)
        self._items.append(numbered)
        return numbered

    def add(self, item: T, /) -> None:
        """What a router calls while somebody watches; here as ``keep``."""
        self.keep(item)

    def kept(self) -> list[tuple[int, T]]:
        """All that are kept, oldest first, as (number, item); copied in one step, whoever goes on adding."""
        return list(self._items)
