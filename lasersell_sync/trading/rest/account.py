"""The account of an API key and its trade history (docs/protocol.md §7, §8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import urlencode

import attrs

from lasersell_sync.exceptions import ConfigurationError, ExitApiError
from lasersell_sync.pubkeys import require_pubkey

__all__ = ["Account", "AccountLimits", "HistoryPage", "HistoryTrade", "history_pages"]


# ── What an API key may do, as ``GET /v1/account`` tells it (docs/protocol.md 7, 8) ─────────────────────────────────


@attrs.frozen
class AccountLimits:
    """What the tier allows; None where the server did not say.

    Attributes:
        max_wallets: wallets in one session.
        max_positions_per_wallet: positions tracked for each.
        max_positions_per_session: positions tracked in one session.
    """

    max_wallets: int | None = None
    max_positions_per_wallet: int | None = None
    max_positions_per_session: int | None = None


@attrs.frozen
class Account:
    """The tier of an API key.

    Attributes:
        tier: 0 (Personal), 1 (Professional), 2 (Advanced), 3 (Enterprise). Partner fees need 2 or more. Read limits
            from ``limits`` and ``HelloOk.limits``, never from this number.
        tier_name: the server's name for it.
        limits: what it allows.

    Threads: immutable, any.
    """

    tier: int
    tier_name: str
    limits: AccountLimits

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Account:
        """The account in the server's JSON object; unknown fields are ignored.

        Raises:
            ValueError: a field is missing or of another kind; names it.
        """
        limits = _read(answer, "limits", _is_object, "an object")
        allowed = (
            _read(limits, field.name, _is_optional_count, "a whole number") for field in attrs.fields(AccountLimits)
        )
        tier = _read(answer, "tier", _is_count, "a whole number")
        return cls(tier, _read(answer, "tier_name", _is_text, "a text"), AccountLimits(*allowed))


def _read(fields: Mapping[str, Any], name: str, is_right: Callable[[object], bool], kind: str) -> Any:
    value = fields.get(name)
    if not is_right(value):
        raise ValueError(f"{name} is not {kind}")
    return value


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_optional_count(value: object) -> bool:
    return value is None or _is_count(value)


# ── Past trades of an API key, page by page, as ``GET /v1/history`` lists them (docs/protocol.md 7) ─────────────────


_PATH: Final = "/v1/history"
#: The service's own bound of ``limit``.
_MAX_PAGE_SIZE: Final = 200
_STRATEGY_FIELD: Final = re.compile(r"strategy_(\w+_pct)")
#: ``fromisoformat`` of Python 3.10 reads neither a Z nor other than 3 or 6 digits of a second.
_FRACTION: Final = re.compile(r"\.(\d+)")

#: Returns the answer's object and its first characters for errors.
Ask = Callable[[str], tuple[dict[str, Any], str]]


@attrs.frozen(kw_only=True)
class HistoryTrade:
    """One position of the past or present, as the service recorded it.

    Attributes:
        id: the service's own name of the record.
        session_id: the stream session that tracked it, or None.
        position_id: the id that it had in that session; ids may be used again.
        wallet_pubkey, mint: base58.
        entry_quote_units: cost, in lamports or USD1 base units.
        exit_quote_units: proceeds in the same unit, or None while it is open.
        profit_quote_units: proceeds minus cost, or None while it is open.
        tokens: atomic units of the token.
        exit_reason: the service's own word, or None.
        market_kind: the market in the service's own spelling, or None.
        strategy_pct: percentages of its strategy, such as ``{"target_profit_pct": 15.0}``.
        opened_at, closed_at: moments with a time zone; ``closed_at`` is None while it is open.

    Threads: immutable, any.
    """

    id: int | str
    session_id: int | None
    position_id: int | None
    wallet_pubkey: str
    mint: str
    entry_quote_units: int
    exit_quote_units: int | None
    profit_quote_units: int | None
    tokens: int
    exit_reason: str | None
    market_kind: str | None
    strategy_pct: Mapping[str, float]
    opened_at: datetime
    closed_at: datetime | None

    @property
    def is_closed(self) -> bool:
        """True when the service recorded the end of the position."""
        return self.closed_at is not None


@attrs.frozen(kw_only=True)
class HistoryPage:
    """Some trades, newest first.

    Attributes:
        trades: those that no earlier page of the same iteration had.
        offset: trades before the first one of this page, as the request named it.
        total: trades in all, or None when the service does not say.

    Threads: immutable, any.
    """

    trades: tuple[HistoryTrade, ...]
    offset: int
    total: int | None

    def __iter__(self) -> Iterator[HistoryTrade]:
        return iter(self.trades)

    def __len__(self) -> int:
        return len(self.trades)


def history_pages(ask: Ask, *, mint: str | None, wallet: str | None, page_size: int) -> Iterator[HistoryPage]:
    """Pages until the last one; each is requested when it is asked for.

    Args:
        ask: sends a ``GET`` of a path.
        mint: base58, or None for every token.
        wallet: base58, or None for every wallet.
        page_size: trades in one request, 1 to 200.

    Raises:
        ConfigurationError: an argument that cannot work; raised by this call.
        ExitApiError: a request failed, or ``parse``: an answer that is no history; raised by ``next``.
    """
    if isinstance(page_size, bool) or not isinstance(page_size, int) or not 1 <= page_size <= _MAX_PAGE_SIZE:
        raise ConfigurationError("page_size", f"{page_size!r} is not a whole number from 1 to {_MAX_PAGE_SIZE}")
    query = {name: require_pubkey(name, key) for name, key in (("mint", mint), ("wallet", wallet)) if key is not None}
    return _pages(ask, query, page_size)


def _pages(ask: Ask, query: Mapping[str, str], page_size: int) -> Iterator[HistoryPage]:
    offset = 0
    seen: set[int | str] = set()
    while True:
        answer, snippet = ask(f"{_PATH}?{urlencode({'limit': page_size, 'offset': offset, **query})}")
        try:
            listed = [_trade(item, f"trades[{index}]") for index, item in enumerate(_list(answer, "trades"))]
            total = _optional_whole(answer, "total", "")
        except _Unreadable as error:
            raise ExitApiError("parse", f"the answer is not a history: {error}", body=snippet) from None
        # A trade that opens between two requests moves the older ones down: they would come twice.
        new = tuple(trade for trade in listed if trade.id not in seen)
        if new or not offset:
            yield HistoryPage(trades=new, offset=offset, total=total)
        seen.update(trade.id for trade in new)
        offset += len(listed)
        # A page without anything new ends it, too: the server may ignore the offset.
        if not new or (total is not None and offset >= total):
            return


# ── one trade ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Unreadable(Exception):
    """A field that is missing or of another kind; names it."""


def _trade(item: object, at: str) -> HistoryTrade:
    if not isinstance(item, Mapping):
        raise _Unreadable(f"{at} is not an object")
    return HistoryTrade(
        id=_id(item, at),
        session_id=_optional_whole(item, "session_id", at),
        position_id=_optional_whole(item, "position_id", at),
        wallet_pubkey=_text(item, "wallet_pubkey", at),
        mint=_text(item, "mint", at),
        entry_quote_units=_whole(item, "entry_quote_units", at),
        exit_quote_units=_optional_whole(item, "exit_quote_units", at),
        profit_quote_units=_optional_whole(item, "profit_quote_units", at, signed=True),
        tokens=_whole(item, "tokens", at),
        exit_reason=_optional_text(item, "exit_reason", at),
        market_kind=_optional_text(item, "market_kind", at),
        strategy_pct=_strategy(item),
        opened_at=_moment(_text(item, "opened_at", at), f"{at}.opened_at"),
        closed_at=_optional_moment(item, "closed_at", at),
    )


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list):
        raise _Unreadable(f"{name} is not a list")
    return value


def _id(fields: Mapping[str, Any], at: str) -> int | str:
    value = fields.get("id")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _Unreadable(f"{at}.id is neither a number nor a text")
    return value


def _text(fields: Mapping[str, Any], name: str, at: str) -> str:
    value = _optional_text(fields, name, at)
    if value is None:
        raise _Unreadable(f"{at}.{name} is missing")
    return value


def _optional_text(fields: Mapping[str, Any], name: str, at: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _Unreadable(f"{at}.{name} is not a text")
    return value


def _whole(fields: Mapping[str, Any], name: str, at: str) -> int:
    value = _optional_whole(fields, name, at)
    if value is None:
        raise _Unreadable(f"{at}.{name} is missing")
    return value


def _optional_whole(fields: Mapping[str, Any], name: str, at: str, *, signed: bool = False) -> int | None:
    value = fields.get(name)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
        value = int(value)  # some services write what JavaScript cannot count as a text
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and (signed or value >= 0)):
        return value
    raise _Unreadable(f"{at}.{name} is not a whole number" if at else f"{name} is not a whole number")


def _strategy(fields: Mapping[str, Any]) -> dict[str, float]:
    found = ((_STRATEGY_FIELD.fullmatch(name), value) for name, value in fields.items())
    return {
        match[1]: float(value)
        for match, value in found
        if match is not None and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _optional_moment(fields: Mapping[str, Any], name: str, at: str) -> datetime | None:
    text = _optional_text(fields, name, at)
    return None if text is None else _moment(text, f"{at}.{name}")


def _moment(text: str, at: str) -> datetime:
    plain = _FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", text.strip(), count=1)
    if plain[-1:] in ("Z", "z"):
        plain = f"{plain[:-1]}+00:00"
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        raise _Unreadable(f"{at} is not an ISO 8601 moment") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
