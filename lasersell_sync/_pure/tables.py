"""What the core keeps of positions and events: handles by id, the newest message by id, a ring of recent events."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

from lasersell_sync._pure.decoder import Decoder

__all__ = ["EventRing", "HandleTable", "LatestByKey", "checked_id", "is_id"]


# ── The handle of each position, by its id ──────────────────────────────────────────────────────────────────────────


T = TypeVar("T")


def is_id(key: Any) -> bool:
    """True for what the wire can name a position by: a u64."""
    return isinstance(key, int) and 0 <= key < 2**64


def checked_id(key: Any) -> int:
    """The key, if it is an id; raises TypeError for any other."""
    if not is_id(key):
        raise TypeError(f"{key!r} is not an id: an int from 0 to 2**64 - 1")
    return int(key)


class HandleTable(Generic[T]):
    """The handle of each position, by its id (u64).

    The garbage collector does not see them: a handle refers to nothing mutable.

    Threads: any may look; one writes.
    """

    def __init__(self) -> None:
        self._handles: dict[int, T] = {}

    def __setitem__(self, key: int, handle: T) -> None:
        """Keep this handle, in place of an older one of the same id."""
        self._handles[checked_id(key)] = handle

    def __getitem__(self, key: int) -> T:
        """The handle; raises KeyError when there is none."""
        handle = self.get(key)
        if handle is None:
            raise KeyError(key)
        return handle

    def __len__(self) -> int:
        """How many there are."""
        return len(self._handles)

    def get(self, key: int, /) -> T | None:
        """The handle, or None."""
        return self._handles.get(key) if is_id(key) else None

    def forget(self, key: int, /) -> None:
        """Keep none of this id any more."""
        if is_id(key):
            self._handles.pop(key, None)

    def clear(self) -> None:
        """Keep none at all any more."""
        self._handles = {}


# ── The newest message of each position ─────────────────────────────────────────────────────────────────────────────


class LatestByKey:
    """The newest message of each id (u64).

    The garbage collector does not see them: a message refers to nothing mutable.

    Args:
        decoder: reads them, where they are kept as text; here it has nothing to do.

    Threads: any may ask; the reader writes.
    """

    def __init__(self, decoder: Decoder) -> None:
        if not isinstance(decoder, Decoder):
            raise TypeError(f"decoder is a {type(decoder).__name__}; it must be a Decoder")
        self._kept: dict[int, Any] = {}

    def put(self, key: int, message: Any, /) -> None:
        """Keep this one."""
        self._kept[checked_id(key)] = message

    def get(self, key: int, /) -> Any:
        """The newest of this id, or None."""
        return self._kept.get(key) if is_id(key) else None

    def forget(self, key: int, /) -> None:
        """Keep none of this id any more."""
        if is_id(key):
            self._kept.pop(key, None)

    def items(self) -> list[tuple[int, Any]]:
        """All as (id, message), for tests."""
        return list(self._kept.items())


# ── The latest items, numbered: what the memory of a session is made of ─────────────────────────────────────────────


class EventRing(Generic[T]):
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
        numbered = EventRing.number(self, item)
        self._items.append(numbered)
        return numbered

    def add(self, item: T, /) -> None:
        """What a router calls while somebody watches; here as ``keep``."""
        self.keep(item)

    def kept(self) -> list[tuple[int, T]]:
        """All that are kept, oldest first, as (number, item); copied in one step, whoever goes on adding."""
        return list(self._items)
