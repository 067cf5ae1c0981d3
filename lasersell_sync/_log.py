"""Logger names, and how a secret is written in a log or an error: not at all."""

from __future__ import annotations

import logging
import re

ROOT = "lasersell_sync"


def logger(area: str) -> logging.Logger:
    """The logger ``lasersell_sync.<area>``.

    No handler is attached to any of them: a program that configures no logging gets warnings and errors on stderr,
    as Python does it (``logging.lastResort``).
    """
    return logging.getLogger(f"{ROOT}.{area}")


def scrub(text: str, *secrets: str | None) -> str:
    """``text`` without the given secrets, for words that came from a server or a dependency.

    Foreign texts may quote the request that failed; whoever shows such a text passes it through here first.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[redacted]")
    return text


#: As long as the base58 form of a secret key, and shorter than any transaction. (Signatures are as long, and go, too.)
_SECRET_LIKE = re.compile(r"[A-Za-z0-9+/=_-]{80,}")


def without_secrets(text: str) -> str:
    """``text`` without anything that may be a transaction or a key, for the words of somebody else's exception."""
    return _SECRET_LIKE.sub("[redacted]", text)


def shorten(text: str, limit: int = 220) -> str:
    """At most ``limit`` characters of ``text``, control characters replaced, so that a log line stays one line."""
    clean = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
