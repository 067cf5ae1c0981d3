"""Instances of slotted classes from the values of their slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Maker"]


class Maker:
    """Makes instances of ``cls`` from the values of the slots ``names``, in that order.

    No default, converter or validator is asked. The instances stay outside the garbage collector: nothing in them may
    ever refer to something mutable.

    Raises:
        TypeError: ``cls`` is not a slotted class with exactly these slots.

    Threads: any.
    """

    def __init__(self, cls: type, names: Sequence[str]) -> None:
        slots = {name for kind in cls.__mro__ for name in getattr(kind, "__slots__", ())}
        if slots != set(names) or len(set(names)) != len(names) or "__dict__" in dir(cls):
            raise TypeError(f"{cls.__name__} is not a slotted class with exactly the slots {', '.join(names)}")
        self._cls = cls
        # The slots' own descriptors: frozen classes refuse setattr.
        self._write = [getattr(cls, name).__set__ for name in names]

    def __call__(self, *values: Any) -> Any:
        """An instance; raises TypeError unless there is a value for each slot."""
        if len(values) != len(self._write):
            raise TypeError(f"{self._cls.__name__} has {len(self._write)} slots, and {len(values)} values were given")
        made: Any = object.__new__(self._cls)
        for write, value in zip(self._write, values, strict=True):
            write(made, value)
        return made
