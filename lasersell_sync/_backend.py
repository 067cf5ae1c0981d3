"""Chooses the decoding core once, at import: the compiled one, or its pure twin.

``LASERSELL_PURE=1`` forces the twin; it is the one environment variable that is read at import. If the compiled
module was never built, one RuntimeWarning says so. If it is there but fails to load, the warning names the cause:
that is a broken installation, not a choice.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import traceback
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from lasersell_sync._core import (
        Caller,
        Decoder,
        FrameParser,
        Handles,
        Handover,
        Intake,
        Lanes,
        Maker,
        Newest,
        Pump,
        Recent,
        Router,
        encode_frame,
        read_records,
        receive,
    )

__all__ = [
    "NAME",
    "Caller",
    "Decoder",
    "FrameParser",
    "Handles",
    "Handover",
    "Intake",
    "Lanes",
    "Maker",
    "Newest",
    "Pump",
    "Recent",
    "Router",
    "encode_frame",
    "read_records",
    "receive",
]

#: Which one runs.
NAME: Literal["compiled", "pure"]

_COMPILED: Final = "lasersell_sync._core"
_PURE: Final = "lasersell_sync._pure"
_REMEDY: Final = (
    "Install a C compiler and the Python headers and reinstall lasersell-sync, "
    "or set LASERSELL_PURE=1 to choose the pure-Python decoder without this warning."
)


def _choose() -> tuple[ModuleType, Literal["compiled", "pure"]]:
    """The module to use and its name; warns when the compiled one should have been there and is not."""
    # The twin is loaded only where it runs: reading six modules for nothing is a tenth of the import.
    if os.environ.get("LASERSELL_PURE") == "1":
        return importlib.import_module(_PURE), "pure"
    # Asked for by name, not by catching ImportError: "not built" and "built but broken" need different answers.
    if importlib.util.find_spec(_COMPILED) is None:
        _warn(f"lasersell_sync runs on its slower pure-Python decoder: the compiled one was not built. {_REMEDY}")
        return importlib.import_module(_PURE), "pure"
    try:
        compiled = importlib.import_module(_COMPILED)
        for name in __all__:
            if name != "NAME":
                getattr(compiled, name)
    except Exception:  # noqa: BLE001 - whatever a broken binary raises, the twin still works
        _warn(
            f"lasersell_sync runs on its slower pure-Python decoder: the compiled one ({_COMPILED}) exists "
            f"but FAILS TO LOAD. {_REMEDY} The cause:\n{traceback.format_exc()}"
        )
        return importlib.import_module(_PURE), "pure"
    return compiled, "compiled"


def _warn(text: str) -> None:
    # Three frames up is the module that imports this one; Python leaves the import system's own frames out.
    warnings.warn(text, RuntimeWarning, stacklevel=4)


if not TYPE_CHECKING:
    _module, NAME = _choose()
    Caller = _module.Caller
    Decoder = _module.Decoder
    FrameParser = _module.FrameParser
    Handles = _module.Handles
    Handover = _module.Handover
    Intake = _module.Intake
    Lanes = _module.Lanes
    Maker = _module.Maker
    Newest = _module.Newest
    Pump = _module.Pump
    Recent = _module.Recent
    Router = _module.Router
    encode_frame = _module.encode_frame
    read_records = _module.read_records
    receive = _module.receive
