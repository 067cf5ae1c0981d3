"""Strict reading of JSON from clients: text to dict, and typed fields out of a dict.

``null`` and absent mean the same for optional fields. Integers are integers: ``true``, ``1.0`` and ``"1"`` are not.
"""

from __future__ import annotations

import json
import math

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.ledger import U64_MAX

U16_MAX = 2**16 - 1
U32_MAX = 2**32 - 1


class BadField(ValueError):
    """A field is missing, of the wrong type or out of range; ``str()`` says which and why."""


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def decode_object(data: str | bytes) -> dict[str, object]:
    """Text or UTF-8 bytes to a dict. Raises ``BadField`` for anything that is not one JSON object in valid Unicode."""
    value = decode_value(data)
    if not isinstance(value, dict):
        raise BadField("expected a JSON object")
    return value


def decode_value(data: str | bytes) -> object:
    """Text or UTF-8 bytes to a value. Raises ``BadField``."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value: object = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text.lower():
            # A lone surrogate passes json.loads but can never be written back.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise BadField("JSON is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeError, integers of too many digits
        raise BadField(f"invalid JSON: {error}") from error
    return value


class Fields:
    """Typed access to one JSON object; ``path`` names it in errors."""

    def __init__(self, values: dict[str, object], path: str = "") -> None:
        self._values = values
        self._path = path

    def name(self, key: str) -> str:
        """The field's full name."""
        return f"{self._path}.{key}" if self._path else key

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(key) is not None

    def value(self, key: str) -> object:
        """Any value but null."""
        value = self._values.get(key)
        if value is None:
            raise BadField(f"{self.name(key)} is missing")
        return value

    def text(self, key: str) -> str:
        """A string."""
        value = self.value(key)
        if not isinstance(value, str):
            raise BadField(f"{self.name(key)} must be a string")
        return value

    def optional_text(self, key: str) -> str | None:
        """A string or None."""
        return self.text(key) if self.has(key) else None

    def integer(self, key: str, *, most: int = U64_MAX) -> int:
        """An integer from 0 to ``most``."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise BadField(f"{self.name(key)} must be an integer from 0 to {most}")
        return value

    def optional_integer(self, key: str, *, most: int = U64_MAX) -> int | None:
        """An integer or None."""
        return self.integer(key, most=most) if self.has(key) else None

    def number(self, key: str, *, default: float | None = None) -> float:
        """A finite number; integers are taken too."""
        if default is not None and not self.has(key):
            return default
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadField(f"{self.name(key)} must be a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise BadField(f"{self.name(key)} must be finite")
        return number

    def optional_number(self, key: str) -> float | None:
        """A finite number or None."""
        return self.number(key) if self.has(key) else None

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """A boolean."""
        if default is not None and not self.has(key):
            return default
        value = self.value(key)
        if not isinstance(value, bool):
            raise BadField(f"{self.name(key)} must be true or false")
        return value

    def pubkey(self, key: str) -> Pubkey:
        """A base58 public key."""
        text = self.text(key)
        try:
            return Pubkey.from_string(text)
        except ValueError as error:
            raise BadField(f"{self.name(key)} is not a public key") from error

    def optional_pubkey(self, key: str) -> Pubkey | None:
        """A base58 public key or None."""
        return self.pubkey(key) if self.has(key) else None

    def child(self, key: str) -> Fields:
        """A nested object."""
        value = self.value(key)
        if not isinstance(value, dict):
            raise BadField(f"{self.name(key)} must be an object")
        return Fields(value, self.name(key))

    def children(self, key: str, *, required: bool = False) -> list[Fields]:
        """A list of nested objects; absent means none unless required."""
        if not required and not self.has(key):
            return []
        value = self.value(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise BadField(f"{self.name(key)} must be a list of objects")
        return [Fields(item, f"{self.name(key)}[{index}]") for index, item in enumerate(value)]

    def texts(self, key: str) -> list[str]:
        """A list of strings, or one string."""
        value = self.value(key)
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadField(f"{self.name(key)} must be a list of strings")
        return list(value)
