"""Chooses the decoding core once, at import: the compiled one, or the pure-Python fallback.

``LASERSELL_PURE=1`` forces the fallback; it is the one environment variable that is read at import. If the compiled
module was never built, one RuntimeWarning says so at the first connection: a program that only imports the package is
left alone. If it is there but fails to load, the warning names the cause: that is a broken installation, not a choice.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from lasersell_sync._core import (
        Decoder,
        EventRing,
        EventRouter,
        FrameParser,
        HandlerLoop,
        HandleTable,
        InstanceFactory,
        Lanes,
        LatestByKey,
        MessagePipeline,
        PriorityQueue,
        ReceiveLoop,
        decode_base64,
        encode_frame,
        read_instructions,
        read_records,
        receive,
    )

__all__ = [
    "NAME",
    "Decoder",
    "EventRing",
    "EventRouter",
    "FrameParser",
    "HandleTable",
    "HandlerLoop",
    "InstanceFactory",
    "Lanes",
    "LatestByKey",
    "MessagePipeline",
    "PriorityQueue",
    "ReceiveLoop",
    "decode_base64",
    "encode_frame",
    "read_instructions",
    "read_records",
    "receive",
    "warn_of_fallback",
]

#: Which one runs.
NAME: Literal["compiled", "pure"]

_COMPILED: Final = "lasersell_sync._core"
_PURE: Final = "lasersell_sync._pure"
_REMEDY: Final = (
    "Install a C compiler and the Python headers and reinstall lasersell-sync (in a checkout: pip install '.'), "
    "or set LASERSELL_PURE=1 to choose the pure-Python decoder without this warning."
)


def _choose() -> tuple[ModuleType, Literal["compiled", "pure"]]:
    """The module to use and its name; notes a warning when the compiled one should have been there and is not."""
    # The fallback is loaded only where it runs: reading six modules for nothing is a tenth of the import.
    if os.environ.get("LASERSELL_PURE") == "1":
        return importlib.import_module(_PURE), "pure"
    # Asked for by name, not by catching ImportError: "not built" and "built but broken" need different answers.
    if importlib.util.find_spec(_COMPILED) is None:
        _warn(f"lasersell_sync runs on its slower pure-Python decoder: the compiled one was not built. {_REMEDY}")
        return importlib.import_module(_PURE), "pure"
    try:
        compiled = importlib.import_module(_COMPILED)
        for name in __all__:
            if name not in ("NAME", "warn_of_fallback"):
                getattr(compiled, name)
    except Exception:  # noqa: BLE001 - whatever a broken binary raises, the fallback still works
        _warn(
            f"lasersell_sync runs on its slower pure-Python decoder: the compiled one ({_COMPILED}) exists "
            f"but FAILS TO LOAD. {_REMEDY} The cause:\n{traceback.format_exc()}"
        )
        return importlib.import_module(_PURE), "pure"
    return compiled, "compiled"


#: The warning that the first connection gives; None: nothing is missing, or it was given.
_unsaid: str | None = None


def _warn(text: str) -> None:
    global _unsaid  # noqa: PLW0603 - the module is the one place that knows which core runs
    _unsaid = text


def warn_of_fallback() -> None:
    """Give one RuntimeWarning in the life of the process if the compiled core is missing, at the caller's caller.

    Threads: any; two that connect first at the same time may both warn.
    """
    global _unsaid
    text, _unsaid = _unsaid, None
    if text is None:
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("lasersell_sync"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)


if not TYPE_CHECKING:
    _module, NAME = _choose()
    HandlerLoop = _module.HandlerLoop
    Decoder = _module.Decoder
    FrameParser = _module.FrameParser
    HandleTable = _module.HandleTable
    PriorityQueue = _module.PriorityQueue
    ReceiveLoop = _module.ReceiveLoop
    Lanes = _module.Lanes
    InstanceFactory = _module.InstanceFactory
    LatestByKey = _module.LatestByKey
    MessagePipeline = _module.MessagePipeline
    EventRing = _module.EventRing
    EventRouter = _module.EventRouter
    decode_base64 = _module.decode_base64
    encode_frame = _module.encode_frame
    read_instructions = _module.read_instructions
    read_records = _module.read_records
    receive = _module.receive
