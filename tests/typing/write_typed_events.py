"""Writes ``lasersell_sync/session/typed_events.py``: ``python -m tests.typing.write_typed_events``, after a new event."""

from __future__ import annotations

from pathlib import Path

from lasersell_sync.messages import SERVER_MESSAGES, UnknownMessage
from lasersell_sync.session.events import EVERY, SESSION_EVENTS, UNKNOWN
from lasersell_sync.stream.connection_events import CONNECTION_EVENTS

PATH = Path(__file__).resolve().parents[2] / "lasersell_sync" / "session" / "typed_events.py"

_HEAD = '''"""Which event has which message, for type checkers: the types of ``StreamSession.on`` and ``StreamSession.wait_for``.

Written by ``python -m tests.typing.write_typed_events``; a rule test compares. Type checkers alone import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, TypeVar, overload

from lasersell_sync.messages import (
{messages}
)
from lasersell_sync.session.events import (
{session_events}
)
from lasersell_sync.stream.connection_events import (
{connection_events}
)

__all__ = ["EventName", "On", "Register", "WaitFor"]

#: Every name that a handler can be registered for.
EventName: TypeAlias = Literal[
{names}
]

_M = TypeVar("_M", bound=EventMessage)
_R = TypeVar("_R")
_H = TypeVar("_H")


class Register(Protocol[_H]):
    """What ``on`` returns without a handler: a decorator of one."""

    def __call__(self, handler: Callable[[StreamEvent[_H]], _R], /) -> Callable[[StreamEvent[_H]], _R]:
        """Register the handler, and return it."""
'''


def _overloads(title: str, doc: str, lines: list[str], last: str) -> str:
    body = "\n".join(f"    @overload\n    {line} ..." for line in lines)
    return f'\n\nclass {title}(Protocol):\n    """{doc}"""\n\n{body}\n{last}'


def text() -> str:
    """The whole file."""
    events = {**{name: cls.__name__ for name, cls in SERVER_MESSAGES.items()}, UNKNOWN: UnknownMessage.__name__}
    events |= {cls.type: cls.__name__ for cls in (*CONNECTION_EVENTS, *SESSION_EVENTS)}
    head = _HEAD.format(
        messages=_imported([*(cls.__name__ for cls in SERVER_MESSAGES.values()), UnknownMessage.__name__]),
        session_events=_imported(["EventMessage", "StreamEvent", *(cls.__name__ for cls in SESSION_EVENTS)]),
        connection_events=_imported([cls.__name__ for cls in CONNECTION_EVENTS]),
        names="\n".join(f'    "{name}",' for name in (EVERY, *events)),
    )
    known = [("type[_M]", "_M"), *((f'Literal["{name}"]', cls) for name, cls in events.items())]
    known.append((f'Literal["{EVERY}"]', "EventMessage"))
    on = []
    for wanted, cls in known:
        handler = f"Callable[[StreamEvent[{cls}]], _R]"
        on.append(f"def __call__(self, event: {wanted}, handler: None = None) -> Register[{cls}]:")
        on.append(f"def __call__(self, event: {wanted}, handler: {handler}) -> {handler}:")
    rest = "timeout: float | None = None, *, only_new: bool = False"
    waits = [f"def __call__(self, wanted: {wanted}, {rest}) -> StreamEvent[{cls}]:" for wanted, cls in known]
    waits.append(f"def __call__(self, wanted: Callable[[StreamEvent], object], {rest}) -> StreamEvent:")
    on_doc = "``StreamSession.on``; its docstring explains it."
    wait_doc = "``StreamSession.wait_for``; its docstring explains it."
    return head + _overloads("On", on_doc, on, "") + _overloads("WaitFor", wait_doc, waits, "")


def _imported(names: list[str]) -> str:
    return "\n".join(f"    {name}," for name in sorted(names))


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"written: {PATH}")
