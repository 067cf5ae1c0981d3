"""The newest message of each position: kept as text, read when asked, equal in both makes."""

from __future__ import annotations

import random
import threading
from types import ModuleType
from typing import Any

import pytest

from benchmarks import data
from lasersell_sync.messages import PnlUpdate
from tests.parity.cores import core, cores, decoder, handles_of
from tests.parity.routing import pnl

each_core = pytest.mark.parametrize("name", cores())


def fed(module: ModuleType, texts: list[bytes]) -> tuple[Any, list[Any]]:
    """A LatestByKey after these messages came over a link, and the messages themselves."""
    reading = decoder(module, "server")
    newest = module.LatestByKey(reading)
    messages = [reading.decode(text) for text in texts]
    handles = handles_of(module, {message.position_id: "handle" for message in messages})
    router = module.EventRouter(
        reading, {PnlUpdate: (PnlUpdate.type, newest)}, "position_id", module.Lanes((), 10**6, 10), handles=handles
    )
    pipeline = module.MessagePipeline(
        module.FrameParser(),
        reading,
        on_message=lambda *_: None,
        on_frame=lambda *_: None,
        on_unreadable=lambda *_: None,
    )
    for text in texts:
        pipeline.feed(data.frame(text), 1, router)
    return newest, messages


@each_core
def test_the_newest_of_each_is_what_came_last(name: str, rand: random.Random) -> None:
    """Long and short texts in any order; each is read as the decoder reads it, and asking twice gives the same object."""
    texts = data.one_type("pnl_update", 300, positions=7)
    rand.shuffle(texts)
    newest, messages = fed(core(name), texts)
    expected = {message.position_id: message for message in messages}
    assert dict(newest.items()) == expected
    for key, message in expected.items():
        assert newest.get(key) == message
        assert newest.get(key) is newest.get(key)


@each_core
def test_what_is_put_replaces_a_text_and_the_other_way_round(name: str) -> None:
    """A message that took the long way counts like one that took the short one."""
    module = core(name)
    texts = data.one_type("pnl_update", 2, positions=1)
    newest, (first, _) = fed(module, texts[:1])[0], fed(module, texts)[1]
    key = first.position_id
    newest.put(key, pnl(key, 5))
    assert newest.get(key) == pnl(key, 5)
    newest.forget(key)
    assert newest.get(key) is None
    newest.forget(key)
    assert newest.items() == []


@each_core
def test_a_wrong_keeper_is_refused(name: str) -> None:
    """At construction, by name: a plain dict would never be read."""
    module = core(name)
    with pytest.raises(TypeError):
        module.LatestByKey(None)
    with pytest.raises(TypeError, match="LatestByKey"):
        module.EventRouter(decoder(module, "server"), {PnlUpdate: ("p", {})}, "position_id", module.Lanes((), 1, 1))


@each_core
def test_who_asks_while_the_reader_writes_gets_one_whole_message(name: str) -> None:
    """Never a half of one and a half of the next, and never an old one for good."""
    module = core(name)
    texts = data.one_type("pnl_update", 2, positions=1)
    newest, both = fed(module, texts)
    key = both[0].position_id
    seen: set[Any] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.add(newest.get(key))

    asking = threading.Thread(target=ask)
    asking.start()
    reading = decoder(module, "server")
    router = module.EventRouter(
        reading,
        {PnlUpdate: ("p", newest)},
        "position_id",
        module.Lanes(("p",), 10, 10),
        handles=handles_of(module, {key: "handle"}),
    )
    pipeline = module.MessagePipeline(
        module.FrameParser(),
        reading,
        on_message=lambda *_: None,
        on_frame=lambda *_: None,
        on_unreadable=lambda *_: None,
    )
    try:
        for turn in range(2000):
            pipeline.feed(data.frame(texts[turn % 2]), turn, router)
    finally:
        stop.set()
        asking.join()
    assert seen <= set(both)
    assert newest.get(key) == both[1]
