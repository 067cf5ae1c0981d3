"""Optional packages: what is missing, and the line that installs it."""

from __future__ import annotations

import importlib.util

__all__ = ["require_extra"]


def require_extra(package: str, *, extra: str, purpose: str) -> None:
    """Say early that an optional package is missing, before anything is opened.

    Args:
        package: the name to import.
        extra: ours that installs it.
        purpose: what it is needed for, to begin the sentence.

    Raises:
        ImportError: with the command to run.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{purpose} needs {package}: pip install 'lasersell-sync[{extra}]'", name=package)
