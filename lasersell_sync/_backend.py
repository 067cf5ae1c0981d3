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
    from lasersell_sync._core import Decoder, FrameParser, encode_frame

__all__ = ["NAME", "Decoder", "FrameParser", "encode_frame"]

#: Which one runs.
NAME: Literal["compiled", "pure"]

_COMPILED: Final = "lasersell_sync._core"
_REMEDY: Final = (
    "Install a C compiler and the Python headers and reinstall lasersell-sync, "
    "or set LASERSELL_PURE=1 to choose the pure-Python decoder without this warning."
)


def _choose() -> tuple[ModuleType, Literal["compiled", "pure"]]:
    """The module to use and its name; warns when the compiled one should have been there and is not."""
    pure = importlib.import_module("lasersell_sync._pure")
    if os.environ.get("LASERSELL_PURE") == "1":
        return pure, "pure"
    # Asked for by name, not by catching ImportError: "not built" and "built but broken" need different answers.
    if importlib.util.find_spec(_COMPILED) is None:
        _warn(f"lasersell_sync runs on its slower pure-Python decoder: the compiled one was not built. {_REMEDY}")
        return pure, "pure"
    try:
        compiled = importlib.import_module(_COMPILED)
        for name in pure.__all__:
            getattr(compiled, name)
    except Exception:  # noqa: BLE001 - whatever a broken binary raises, the twin still works
        _warn(
            f"lasersell_sync runs on its slower pure-Python decoder: the compiled one ({_COMPILED}) exists "
            f"but FAILS TO LOAD. {_REMEDY} The cause:\n{traceback.format_exc()}"
        )
        return pure, "pure"
    return compiled, "compiled"


def _warn(text: str) -> None:
    # Three frames up is the module that imports this one; Python leaves the import system's own frames out.
    warnings.warn(text, RuntimeWarning, stacklevel=4)


if not TYPE_CHECKING:
    _module, NAME = _choose()
    Decoder = _module.Decoder
    FrameParser = _module.FrameParser
    encode_frame = _module.encode_frame
