"""The handle of each position, by its id."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

__all__ = ["Handles", "checked_id", "is_id"]

T = TypeVar("T")


def is_id(key: Any) -> bool:
    """True for what the wire can name a position by: a u64."""
    return isinstance(key, int) and 0 <= key < 2**64


def checked_id(key: Any) -> int:
    """The key, if it is an id; raises TypeError for any other."""
    if not is_id(key):
        raise TypeError(f"{key!r} is not an id: an int from 0 to 2**64 - 1")
    return int(key)


class Handles(Generic[T]):
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
