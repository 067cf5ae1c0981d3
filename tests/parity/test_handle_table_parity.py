"""What is kept by id, and what is kept by number: equal in both makes, whatever comes and goes."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from tests.parity.cores import compiled, core, cores, decoder, scaled
from tests.parity.routing import pnl

each_core = pytest.mark.parametrize("name", cores())
_core = compiled()
NO_IDS: tuple[Any, ...] = (-1, 2**64, 1.0, "1", None, [], -(2**70))


def crowded(rand: random.Random) -> int:
    """An id out of few, some of which want the same place of a small table, and some of every size."""
    return rand.choice((rand.randrange(40), 2**63 + rand.randrange(4), 2**30 - 1 + rand.randrange(3), 2**60, 2**64 - 1))


@each_core
def test_handles_come_and_go_as_in_a_dictionary(name: str, rand: random.Random) -> None:
    """Whatever is put, replaced and forgotten in whatever order: each id has its own, and its alone."""
    handles = core(name).HandleTable()
    model: dict[int, str] = {}
    for number in range(scaled(20_000)):
        key = crowded(rand) if number % 5000 < 4000 else rand.randrange(2**64)
        if rand.random() < 0.5:
            handles[key] = model[key] = f"handle {number}"
        elif rand.random() < 0.9:
            handles.forget(key)
            model.pop(key, None)
        assert handles.get(key) == model.get(key)
        assert len(handles) == len(model)
        if number % 1000 == 0:
            assert {known: handles[known] for known in model} == model
    handles.clear()
    assert len(handles) == 0
    assert handles.get(next(iter(model))) is None


@each_core
@pytest.mark.parametrize("key", NO_IDS)
def test_what_is_no_id_is_never_known(name: str, key: Any) -> None:
    """It cannot be put, and to ask for it or to forget it is no error."""
    module = core(name)
    handles, newest = module.HandleTable(), module.LatestByKey(decoder(module, "server"))
    with pytest.raises(TypeError, match="is not an id: an int from 0 to"):
        handles[key] = "handle"
    with pytest.raises(TypeError, match="is not an id: an int from 0 to"):
        newest.put(key, pnl(1))
    with pytest.raises(KeyError):
        handles[key]
    for kept in (handles, newest):
        assert kept.get(key) is None
        kept.forget(key)


@each_core
def test_newest_messages_come_and_go_as_in_a_dictionary(name: str, rand: random.Random) -> None:
    """As handles do."""
    module = core(name)
    newest = module.LatestByKey(decoder(module, "server"))
    model: dict[int, Any] = {}
    for number in range(scaled(5000)):
        key = crowded(rand)
        if rand.random() < 0.6:
            model[key] = pnl(key, number)
            newest.put(key, model[key])
        else:
            newest.forget(key)
            model.pop(key, None)
    assert dict(newest.items()) == model


def test_handles_are_counted() -> None:
    """Replaced, forgotten, cleared or dropped with the table: every reference is given back."""
    handle = object()
    before = sys.getrefcount(handle)
    handles = _core.HandleTable()
    for number in range(1000):
        handles[number % 300] = handle
    assert sys.getrefcount(handle) == before + 300
    for number in range(100):
        handles.forget(number)
    assert sys.getrefcount(handle) == before + 200
    handles.clear()
    assert sys.getrefcount(handle) == before
    handles[1] = handle
    del handles
    assert sys.getrefcount(handle) == before


def test_a_handles_end_may_come_back_to_the_table() -> None:
    """What is let go of is let go of last: its destructor finds the table whole, and may change it."""
    handles = _core.HandleTable()

    class Handle:
        def __del__(self) -> None:
            for number in range(100):
                handles[1000 + number] = "late"

    for number in range(50):
        handles[number] = Handle()
    handles[7] = "other"
    handles.forget(8)
    assert (handles[7], handles.get(8), handles[1099]) == ("other", None, "late")
    handles.clear()
    assert handles[1000] == "late"
    assert handles.get(7) is None


@each_core
def test_the_latest_are_kept_with_their_numbers(name: str) -> None:
    """Numbers go on whether an item is kept or not; the oldest make room."""
    recent = core(name).EventRing(3)
    assert recent.kept() == []
    assert recent.keep("a") == (1, "a")
    assert recent.number("b") == (2, "b")
    assert recent.add("c") is None
    assert recent.kept() == [(1, "a"), (3, "c")]
    for item in "def":
        recent.keep(item)
    assert recent.kept() == [(4, "d"), (5, "e"), (6, "f")]
