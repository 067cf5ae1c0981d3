"""Commands to the server, from any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import (
    ClientMessage,
    ClosePosition,
    MirrorBuyResult,
    Ping,
    RequestExitSignal,
    StrategyConfig,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
    WatchWallet,
)
from lasersell_sync.positions import PositionHandle
from lasersell_sync.pubkeys import pubkey_text
from lasersell_sync.strategy import validate_strategy
from lasersell_sync.stream.options import require_wallets, require_watch_wallets

__all__ = ["PositionSelector", "StreamSender", "select_position"]

#: A position is named by its token account, its id, or a handle.
PositionSelector: TypeAlias = str | int | PositionHandle


class CommandPort(Protocol):
    """What a sender needs of a connection."""

    def command(self, message: ClientMessage) -> None:
        """Send or hold."""

    def position_id_of(self, token_account: str) -> int | None:
        """The position's current id."""

    @property
    def deadline_timeout_sec(self) -> float:
        """Of the current strategy; a deadline counts as an exit condition."""


class StreamSender:
    """Sends commands; returning means written to the socket or queued for it, not received by the server.

    While there is no link, what describes the desired state (strategies, wallets) is remembered and sent on the next
    connect; ``close_position`` and ``request_exit_signal`` wait for it, the last of each position only, and so does
    each ``mirror_buy_result``; ``ping`` raises, and so does a command with an id that was never announced.

    Every method raises:
        ConfigurationError, StrategyError: an argument out of range, named; nothing was sent.
        SendBufferFull: the link takes nothing and 1 MiB waits.
        TransportError: there is no link and this command cannot wait.
        StreamClosed: the connection was closed; its cause, when it failed.

    Threads: any, at once; copies are free.
    """

    def __init__(self, port: CommandPort) -> None:
        self._port = port

    def send(self, message: ClientMessage) -> None:
        """Send a message as it is; its kinds and ranges are checked, its meaning is not."""
        self._port.command(message)

    def ping(self, client_time_ms: int) -> None:
        """Ask for a ``pong``; ``client_time_ms`` in Unix milliseconds."""
        self.send(Ping(client_time_ms=client_time_ms))

    def update_strategy(self, strategy: StrategyConfig) -> None:
        """Replace the strategy of all positions; overrides of single positions end with it."""
        self.send(UpdateStrategy(strategy=validate_strategy(strategy, self._port.deadline_timeout_sec)))

    def update_position_strategy(self, position: PositionSelector, strategy: StrategyConfig) -> None:
        """Replace the strategy of one position, also after reconnects.

        The wire wants its id here: a token account is looked up among the announced positions.
        """
        checked = validate_strategy(strategy, self._port.deadline_timeout_sec)
        account, position_id = select_position(position)
        if account is not None:
            # A handle's own id may name another position by now.
            position_id = self._port.position_id_of(account)
        if position_id is None:
            raise ConfigurationError("position", f"no position of token account {account} is announced (yet)")
        self.send(UpdatePositionStrategy(position_id=position_id, strategy=checked))

    def close_position(self, position: PositionSelector) -> None:
        """Stop tracking a position; nothing is sold."""
        account, position_id = select_position(position)
        self.send(ClosePosition(position_id=None if account else position_id, token_account=account))

    def close_by_id(self, position_id: int) -> None:
        """As ``close_position`` with an id."""
        self.close_position(position_id)

    def request_exit_signal(self, position: PositionSelector, slippage_bps: int | None = None) -> None:
        """Ask for an exit now; ``slippage_bps`` in basis points, 0 to 65 535, None for the server's choice."""
        account, position_id = select_position(position)
        self.send(
            RequestExitSignal(
                position_id=None if account else position_id, token_account=account, slippage_bps=slippage_bps
            )
        )

    def request_exit_signal_by_id(self, position_id: int, slippage_bps: int | None = None) -> None:
        """As ``request_exit_signal`` with an id."""
        self.request_exit_signal(position_id, slippage_bps)

    def update_wallets(self, wallet_pubkeys: Sequence[str]) -> None:
        """The full new list of wallets; positions of removed ones stay until they are closed."""
        self.send(UpdateWallets(wallet_pubkeys=require_wallets(wallet_pubkeys)))

    def update_watch_wallets(self, watch_wallets: Sequence[WatchWallet]) -> None:
        """The full new list of watched wallets."""
        self.send(UpdateWatchWallets(watch_wallets=require_watch_wallets(watch_wallets)))

    def mirror_buy_result(self, mint: str, success: bool) -> None:  # noqa: FBT001 - official signature
        """Tell whether a ``mirror_buy_signal`` was signed and submitted."""
        self.send(MirrorBuyResult(mint=mint, success=success))


def select_position(position: PositionSelector) -> tuple[str | None, int | None]:
    """(token account, id) of what the caller named; an account outlives reconnects, so it is preferred."""
    position = pubkey_text(position)
    if isinstance(position, PositionHandle):
        return position.token_account, position.position_id
    if isinstance(position, str) and position:
        return position, None
    if isinstance(position, int) and not isinstance(position, bool):
        return None, position
    raise ConfigurationError(
        "position", f"{type(position).__name__} names no position: pass a token account, an id, or a PositionHandle"
    )
