"""Which event has which message, for type checkers: the types of ``StreamSession.on`` and ``StreamSession.wait_for``.

Written by ``python -m tests.typing.write_typed_events``; a rule test compares. Type checkers alone import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, TypeVar, overload

from lasersell_sync.messages import (
    BalanceUpdate,
    ErrorMessage,
    ExitSignalWithTx,
    HelloOk,
    LiquiditySnapshot,
    MirrorBuyFailed,
    MirrorBuySignal,
    MirrorWalletAutoDisabled,
    PnlUpdate,
    Pong,
    PositionClosed,
    PositionOpened,
    TradeTick,
    UnknownMessage,
)
from lasersell_sync.session.events import (
    Contradiction,
    EventMessage,
    FeedSilent,
    HandlerError,
    HandlerStuck,
    Resynced,
    StreamEvent,
)
from lasersell_sync.stream.connection_events import (
    Closed,
    CommandDropped,
    Connected,
    DecodeFailure,
    Degraded,
    Disconnected,
    Failed,
    Lagged,
    Reconnecting,
)

__all__ = ["EventName", "On", "Register", "WaitFor"]

#: Every name that a handler can be registered for.
EventName: TypeAlias = Literal[
    "*",
    "hello_ok",
    "pong",
    "error",
    "pnl_update",
    "liquidity_snapshot",
    "trade_tick",
    "balance_update",
    "position_opened",
    "position_closed",
    "exit_signal_with_tx",
    "mirror_buy_signal",
    "mirror_buy_failed",
    "mirror_wallet_auto_disabled",
    "unknown",
    "connected",
    "disconnected",
    "reconnecting",
    "degraded",
    "failed",
    "decode_error",
    "lagged",
    "command_dropped",
    "closed",
    "handler_error",
    "handler_stuck",
    "resynced",
    "contradiction",
    "feed_silent",
]

_M = TypeVar("_M", bound=EventMessage)
_R = TypeVar("_R")
_H = TypeVar("_H")


class Register(Protocol[_H]):
    """What ``on`` returns without a handler: a decorator of one."""

    def __call__(self, handler: Callable[[StreamEvent[_H]], _R], /) -> Callable[[StreamEvent[_H]], _R]:
        """Register the handler, and return it."""


class On(Protocol):
    """``StreamSession.on``; its docstring explains it."""

    @overload
    def __call__(self, event: type[_M], handler: None = None) -> Register[_M]: ...
    @overload
    def __call__(
        self, event: type[_M], handler: Callable[[StreamEvent[_M]], _R]
    ) -> Callable[[StreamEvent[_M]], _R]: ...
    @overload
    def __call__(self, event: Literal["hello_ok"], handler: None = None) -> Register[HelloOk]: ...
    @overload
    def __call__(
        self, event: Literal["hello_ok"], handler: Callable[[StreamEvent[HelloOk]], _R]
    ) -> Callable[[StreamEvent[HelloOk]], _R]: ...
    @overload
    def __call__(self, event: Literal["pong"], handler: None = None) -> Register[Pong]: ...
    @overload
    def __call__(
        self, event: Literal["pong"], handler: Callable[[StreamEvent[Pong]], _R]
    ) -> Callable[[StreamEvent[Pong]], _R]: ...
    @overload
    def __call__(self, event: Literal["error"], handler: None = None) -> Register[ErrorMessage]: ...
    @overload
    def __call__(
        self, event: Literal["error"], handler: Callable[[StreamEvent[ErrorMessage]], _R]
    ) -> Callable[[StreamEvent[ErrorMessage]], _R]: ...
    @overload
    def __call__(self, event: Literal["pnl_update"], handler: None = None) -> Register[PnlUpdate]: ...
    @overload
    def __call__(
        self, event: Literal["pnl_update"], handler: Callable[[StreamEvent[PnlUpdate]], _R]
    ) -> Callable[[StreamEvent[PnlUpdate]], _R]: ...
    @overload
    def __call__(self, event: Literal["liquidity_snapshot"], handler: None = None) -> Register[LiquiditySnapshot]: ...
    @overload
    def __call__(
        self, event: Literal["liquidity_snapshot"], handler: Callable[[StreamEvent[LiquiditySnapshot]], _R]
    ) -> Callable[[StreamEvent[LiquiditySnapshot]], _R]: ...
    @overload
    def __call__(self, event: Literal["trade_tick"], handler: None = None) -> Register[TradeTick]: ...
    @overload
    def __call__(
        self, event: Literal["trade_tick"], handler: Callable[[StreamEvent[TradeTick]], _R]
    ) -> Callable[[StreamEvent[TradeTick]], _R]: ...
    @overload
    def __call__(self, event: Literal["balance_update"], handler: None = None) -> Register[BalanceUpdate]: ...
    @overload
    def __call__(
        self, event: Literal["balance_update"], handler: Callable[[StreamEvent[BalanceUpdate]], _R]
    ) -> Callable[[StreamEvent[BalanceUpdate]], _R]: ...
    @overload
    def __call__(self, event: Literal["position_opened"], handler: None = None) -> Register[PositionOpened]: ...
    @overload
    def __call__(
        self, event: Literal["position_opened"], handler: Callable[[StreamEvent[PositionOpened]], _R]
    ) -> Callable[[StreamEvent[PositionOpened]], _R]: ...
    @overload
    def __call__(self, event: Literal["position_closed"], handler: None = None) -> Register[PositionClosed]: ...
    @overload
    def __call__(
        self, event: Literal["position_closed"], handler: Callable[[StreamEvent[PositionClosed]], _R]
    ) -> Callable[[StreamEvent[PositionClosed]], _R]: ...
    @overload
    def __call__(self, event: Literal["exit_signal_with_tx"], handler: None = None) -> Register[ExitSignalWithTx]: ...
    @overload
    def __call__(
        self, event: Literal["exit_signal_with_tx"], handler: Callable[[StreamEvent[ExitSignalWithTx]], _R]
    ) -> Callable[[StreamEvent[ExitSignalWithTx]], _R]: ...
    @overload
    def __call__(self, event: Literal["mirror_buy_signal"], handler: None = None) -> Register[MirrorBuySignal]: ...
    @overload
    def __call__(
        self, event: Literal["mirror_buy_signal"], handler: Callable[[StreamEvent[MirrorBuySignal]], _R]
    ) -> Callable[[StreamEvent[MirrorBuySignal]], _R]: ...
    @overload
    def __call__(self, event: Literal["mirror_buy_failed"], handler: None = None) -> Register[MirrorBuyFailed]: ...
    @overload
    def __call__(
        self, event: Literal["mirror_buy_failed"], handler: Callable[[StreamEvent[MirrorBuyFailed]], _R]
    ) -> Callable[[StreamEvent[MirrorBuyFailed]], _R]: ...
    @overload
    def __call__(
        self, event: Literal["mirror_wallet_auto_disabled"], handler: None = None
    ) -> Register[MirrorWalletAutoDisabled]: ...
    @overload
    def __call__(
        self,
        event: Literal["mirror_wallet_auto_disabled"],
        handler: Callable[[StreamEvent[MirrorWalletAutoDisabled]], _R],
    ) -> Callable[[StreamEvent[MirrorWalletAutoDisabled]], _R]: ...
    @overload
    def __call__(self, event: Literal["unknown"], handler: None = None) -> Register[UnknownMessage]: ...
    @overload
    def __call__(
        self, event: Literal["unknown"], handler: Callable[[StreamEvent[UnknownMessage]], _R]
    ) -> Callable[[StreamEvent[UnknownMessage]], _R]: ...
    @overload
    def __call__(self, event: Literal["connected"], handler: None = None) -> Register[Connected]: ...
    @overload
    def __call__(
        self, event: Literal["connected"], handler: Callable[[StreamEvent[Connected]], _R]
    ) -> Callable[[StreamEvent[Connected]], _R]: ...
    @overload
    def __call__(self, event: Literal["disconnected"], handler: None = None) -> Register[Disconnected]: ...
    @overload
    def __call__(
        self, event: Literal["disconnected"], handler: Callable[[StreamEvent[Disconnected]], _R]
    ) -> Callable[[StreamEvent[Disconnected]], _R]: ...
    @overload
    def __call__(self, event: Literal["reconnecting"], handler: None = None) -> Register[Reconnecting]: ...
    @overload
    def __call__(
        self, event: Literal["reconnecting"], handler: Callable[[StreamEvent[Reconnecting]], _R]
    ) -> Callable[[StreamEvent[Reconnecting]], _R]: ...
    @overload
    def __call__(self, event: Literal["degraded"], handler: None = None) -> Register[Degraded]: ...
    @overload
    def __call__(
        self, event: Literal["degraded"], handler: Callable[[StreamEvent[Degraded]], _R]
    ) -> Callable[[StreamEvent[Degraded]], _R]: ...
    @overload
    def __call__(self, event: Literal["failed"], handler: None = None) -> Register[Failed]: ...
    @overload
    def __call__(
        self, event: Literal["failed"], handler: Callable[[StreamEvent[Failed]], _R]
    ) -> Callable[[StreamEvent[Failed]], _R]: ...
    @overload
    def __call__(self, event: Literal["decode_error"], handler: None = None) -> Register[DecodeFailure]: ...
    @overload
    def __call__(
        self, event: Literal["decode_error"], handler: Callable[[StreamEvent[DecodeFailure]], _R]
    ) -> Callable[[StreamEvent[DecodeFailure]], _R]: ...
    @overload
    def __call__(self, event: Literal["lagged"], handler: None = None) -> Register[Lagged]: ...
    @overload
    def __call__(
        self, event: Literal["lagged"], handler: Callable[[StreamEvent[Lagged]], _R]
    ) -> Callable[[StreamEvent[Lagged]], _R]: ...
    @overload
    def __call__(self, event: Literal["command_dropped"], handler: None = None) -> Register[CommandDropped]: ...
    @overload
    def __call__(
        self, event: Literal["command_dropped"], handler: Callable[[StreamEvent[CommandDropped]], _R]
    ) -> Callable[[StreamEvent[CommandDropped]], _R]: ...
    @overload
    def __call__(self, event: Literal["closed"], handler: None = None) -> Register[Closed]: ...
    @overload
    def __call__(
        self, event: Literal["closed"], handler: Callable[[StreamEvent[Closed]], _R]
    ) -> Callable[[StreamEvent[Closed]], _R]: ...
    @overload
    def __call__(self, event: Literal["handler_error"], handler: None = None) -> Register[HandlerError]: ...
    @overload
    def __call__(
        self, event: Literal["handler_error"], handler: Callable[[StreamEvent[HandlerError]], _R]
    ) -> Callable[[StreamEvent[HandlerError]], _R]: ...
    @overload
    def __call__(self, event: Literal["handler_stuck"], handler: None = None) -> Register[HandlerStuck]: ...
    @overload
    def __call__(
        self, event: Literal["handler_stuck"], handler: Callable[[StreamEvent[HandlerStuck]], _R]
    ) -> Callable[[StreamEvent[HandlerStuck]], _R]: ...
    @overload
    def __call__(self, event: Literal["resynced"], handler: None = None) -> Register[Resynced]: ...
    @overload
    def __call__(
        self, event: Literal["resynced"], handler: Callable[[StreamEvent[Resynced]], _R]
    ) -> Callable[[StreamEvent[Resynced]], _R]: ...
    @overload
    def __call__(self, event: Literal["contradiction"], handler: None = None) -> Register[Contradiction]: ...
    @overload
    def __call__(
        self, event: Literal["contradiction"], handler: Callable[[StreamEvent[Contradiction]], _R]
    ) -> Callable[[StreamEvent[Contradiction]], _R]: ...
    @overload
    def __call__(self, event: Literal["feed_silent"], handler: None = None) -> Register[FeedSilent]: ...
    @overload
    def __call__(
        self, event: Literal["feed_silent"], handler: Callable[[StreamEvent[FeedSilent]], _R]
    ) -> Callable[[StreamEvent[FeedSilent]], _R]: ...
    @overload
    def __call__(self, event: Literal["*"], handler: None = None) -> Register[EventMessage]: ...
    @overload
    def __call__(
        self, event: Literal["*"], handler: Callable[[StreamEvent[EventMessage]], _R]
    ) -> Callable[[StreamEvent[EventMessage]], _R]: ...


class WaitFor(Protocol):
    """``StreamSession.wait_for``; its docstring explains it."""

    @overload
    def __call__(
        self, wanted: type[_M], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[_M]: ...
    @overload
    def __call__(
        self, wanted: Literal["hello_ok"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[HelloOk]: ...
    @overload
    def __call__(
        self, wanted: Literal["pong"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Pong]: ...
    @overload
    def __call__(
        self, wanted: Literal["error"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[ErrorMessage]: ...
    @overload
    def __call__(
        self, wanted: Literal["pnl_update"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[PnlUpdate]: ...
    @overload
    def __call__(
        self, wanted: Literal["liquidity_snapshot"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[LiquiditySnapshot]: ...
    @overload
    def __call__(
        self, wanted: Literal["trade_tick"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[TradeTick]: ...
    @overload
    def __call__(
        self, wanted: Literal["balance_update"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[BalanceUpdate]: ...
    @overload
    def __call__(
        self, wanted: Literal["position_opened"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[PositionOpened]: ...
    @overload
    def __call__(
        self, wanted: Literal["position_closed"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[PositionClosed]: ...
    @overload
    def __call__(
        self, wanted: Literal["exit_signal_with_tx"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[ExitSignalWithTx]: ...
    @overload
    def __call__(
        self, wanted: Literal["mirror_buy_signal"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[MirrorBuySignal]: ...
    @overload
    def __call__(
        self, wanted: Literal["mirror_buy_failed"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[MirrorBuyFailed]: ...
    @overload
    def __call__(
        self, wanted: Literal["mirror_wallet_auto_disabled"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[MirrorWalletAutoDisabled]: ...
    @overload
    def __call__(
        self, wanted: Literal["unknown"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[UnknownMessage]: ...
    @overload
    def __call__(
        self, wanted: Literal["connected"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Connected]: ...
    @overload
    def __call__(
        self, wanted: Literal["disconnected"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Disconnected]: ...
    @overload
    def __call__(
        self, wanted: Literal["reconnecting"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Reconnecting]: ...
    @overload
    def __call__(
        self, wanted: Literal["degraded"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Degraded]: ...
    @overload
    def __call__(
        self, wanted: Literal["failed"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Failed]: ...
    @overload
    def __call__(
        self, wanted: Literal["decode_error"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[DecodeFailure]: ...
    @overload
    def __call__(
        self, wanted: Literal["lagged"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Lagged]: ...
    @overload
    def __call__(
        self, wanted: Literal["command_dropped"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[CommandDropped]: ...
    @overload
    def __call__(
        self, wanted: Literal["closed"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Closed]: ...
    @overload
    def __call__(
        self, wanted: Literal["handler_error"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[HandlerError]: ...
    @overload
    def __call__(
        self, wanted: Literal["handler_stuck"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[HandlerStuck]: ...
    @overload
    def __call__(
        self, wanted: Literal["resynced"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Resynced]: ...
    @overload
    def __call__(
        self, wanted: Literal["contradiction"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[Contradiction]: ...
    @overload
    def __call__(
        self, wanted: Literal["feed_silent"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[FeedSilent]: ...
    @overload
    def __call__(
        self, wanted: Literal["*"], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent[EventMessage]: ...
    @overload
    def __call__(
        self, wanted: Callable[[StreamEvent], object], timeout: float | None = None, *, only_new: bool = False
    ) -> StreamEvent: ...
