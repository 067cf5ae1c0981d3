"""Positions whose ids are used again, in any order of opens, closes, exits, commands and reconnects, against a model.

``LASERSELL_EXAMPLES=10000 python -m pytest -n0 tests/unit/test_positions_machine.py --hypothesis-show-statistics`` runs it
longer. The seed of a failure is printed.
"""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lasersell_sync import (
    BalanceUpdate,
    ExitSignalWithTx,
    PnlUpdate,
    PositionClosed,
    PositionOpened,
    RequestExitSignal,
    StrategyConfig,
    TradeTick,
    UpdatePositionStrategy,
)
from lasersell_sync.positions import Opening, OwnSales, PositionKey, is_same_opening
from tests.support.examples import examples
from tests.support.offline_session import OfflineSession
from tests.support.stream_server import MINT, WALLET

DEADLINE_S = 60.0
STABLE_S = 5.0
ACCOUNTS = "abcd"


@attrs.define
class Position:
    """One opening."""

    opening: Opening
    started_s: float
    tokens: int = 0
    fired: bool = False
    stale: bool = False
    override: float | None = None
    #: Slots of its announcements: they tell events of this opening from those of another.
    slots: set[int] = attrs.Factory(set)


class Model:
    """What is true of positions, ids and wishes; an account is a position, an id is an index of one connection."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.up = self.over = False
        self.open: dict[str, Position] = {}
        self.ids: dict[int, str] = {}
        self.old_ids: dict[int, str] = {}
        self.expected: set[str] = set()
        #: Exit wishes: when each was sent on this link; None: it waits.
        self.wishes: dict[str, float | None] = {}
        self.sales = OwnSales(lambda: int(self.now_s * 1e9))
        self.dropped = 0

    def may_send(self, account: str) -> bool:
        return self.up and (self.over or account not in self.open or account in self.ids.values())

    def send_waiting(self) -> None:
        for account, sent_s in self.wishes.items():
            if sent_s is None and self.may_send(account):
                self.wishes[account] = self.now_s

    def connect(self) -> None:
        self.up, self.over, self.expected = True, False, set(self.open)
        self.old_ids |= self.ids
        self.ids = {}
        self.send_waiting()

    def lose(self, alive_s: float) -> None:
        self.up = False
        sent = {a: s for a, s in self.wishes.items() if s is None or alive_s - s < STABLE_S}
        self.wishes = dict.fromkeys(sent)

    def announcements_over(self) -> None:
        self.over = True
        for account in self.expected:
            self.open[account].stale = True
        for position_id, account in self.old_ids.items():
            self.ids.setdefault(position_id, account)
        self.old_ids, self.expected = {}, set()
        self.send_waiting()

    def announced(self, position_id: int, account: str, opening: Opening, tokens: int) -> None:
        known = self.open.get(account)
        part_landed, under_way = self.sales.of((WALLET, account), tokens)
        if known is None or not is_same_opening(
            known.opening, opening, part_landed=part_landed, exit_under_way=under_way
        ):
            if known is not None:
                self.end(account)
            known = self.open[account] = Position(opening, self.now_s)
        if opening.opened_at_ms is None:
            opening = opening._replace(opened_at_ms=known.opening.opened_at_ms)
        known.opening, known.tokens, known.stale = opening, tokens, False
        for ids in (self.ids, self.old_ids):
            for other in [other for other, owner in ids.items() if owner == account or other == position_id]:
                del ids[other]
        self.ids[position_id] = account
        self.expected.discard(account)
        self.send_waiting()

    def end(self, account: str) -> None:
        del self.open[account]
        self.expected.discard(account)
        self.sales.forget((WALLET, account))
        self.dropped += self.wishes.pop(account, 0.0) is None

    def closed(self, position_id: int, account: str | None) -> str | None:
        self.old_ids.pop(position_id, None)
        name = account or self.ids.get(position_id)
        if name in self.open:
            self.end(name)
        elif name is not None:
            self.dropped += self.wishes.pop(name, 0.0) is None
            return None
        for ids in (self.ids, self.old_ids):
            for other in [other for other, owner in ids.items() if owner == name]:
                del ids[other]
        return name


IDS = st.integers(1, 3)
NAMES = st.sampled_from(ACCOUNTS)


class Positions(RuleBasedStateMachine):
    """The real session beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = OfflineSession(deadline_s=DEADLINE_S, stable_after_s=STABLE_S)
        self.model = Model()
        self.slot = self.transactions = self.read = 0
        self.asked: set[str] = set()
        self.connect()

    def teardown(self) -> None:
        self.rig.close()

    def key(self, account: str) -> PositionKey:
        return PositionKey(WALLET, account)

    def handle_name(self, event: Any) -> str | None:
        return None if event is None or event.handle is None else event.handle.token_account

    # ── links and time ───────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: not self.model.up)
    @rule()
    def connect(self) -> None:
        self.model.connect()
        self.rig.connect()
        self.read, self.asked = 0, set()
        self.look_at_the_wire()

    @precondition(lambda self: self.model.up)
    @rule(silent_s=st.sampled_from([0.0, 3.0, 100.0]))
    def lose(self, silent_s: float) -> None:
        self.model.lose(self.model.now_s - silent_s)
        self.rig.lose(self.rig.now_s - silent_s)

    @precondition(lambda self: self.model.up and not self.model.over)
    @rule()
    def end_announcements(self) -> None:
        self.model.announcements_over()
        self.rig.end_announcements()

    @rule(seconds=st.sampled_from([1.0, 6.0, 40.0, 200.0]))
    def pass_time(self, seconds: float) -> None:
        self.model.now_s += seconds
        for account, position in self.model.open.items():
            if not position.fired and self.model.now_s >= position.started_s + DEADLINE_S:
                position.fired = True
                if self.model.may_send(account) or self.model.wishes.get(account) is None:
                    self.model.wishes[account] = None
        self.model.send_waiting()
        self.rig.pass_time(seconds)

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.model.up)
    @rule(
        position_id=IDS,
        account=NAMES,
        entry=st.integers(1, 3),
        moment=st.sampled_from([None, None, 1, 2]),
        tokens=st.integers(0, 10),
    )
    def announce(self, position_id: int, account: str, entry: int, moment: int | None, tokens: int) -> None:
        self.slot += 1
        self.model.announced(position_id, account, Opening(entry, moment), tokens)
        self.model.open[account].slots.add(self.slot)
        event = self.rig.receive(
            PositionOpened(
                position_id=position_id, wallet_pubkey=WALLET, mint=MINT, token_account=account, tokens=tokens,
                entry_quote_units=entry, opened_at_ms=moment, slot=self.slot,
            )
        )  # fmt: skip
        assert self.handle_name(event) == account
        override = self.model.open[account].override
        if override is not None:
            assert self.latest_override(account) == override

    @precondition(lambda self: self.model.up)
    @rule(position_id=IDS, account=st.none() | NAMES)
    def close(self, position_id: int, account: str | None) -> None:
        expected = self.model.closed(position_id, account)
        event = self.rig.receive(
            PositionClosed(
                position_id=position_id, wallet_pubkey=WALLET, mint=MINT, token_account=account, reason="r", slot=1
            )
        )
        assert self.handle_name(event) == expected

    @precondition(lambda self: self.model.up)
    @rule(account=NAMES, tokens=st.integers(0, 10))
    def balance(self, account: str, tokens: int) -> None:
        position = self.model.open.get(account)
        if position is not None:
            position.tokens, position.stale = tokens, False
            self.model.sales.balance((WALLET, account), tokens)
        event = self.rig.receive(
            BalanceUpdate(wallet_pubkey=WALLET, mint=MINT, token_account=account, tokens=tokens, slot=1)
        )
        assert self.handle_name(event) == (account if position is not None else None)

    @precondition(lambda self: self.model.up)
    @rule(position_id=IDS, account=st.none() | NAMES, part=st.booleans(), new=st.booleans())
    def exit(self, position_id: int, account: str | None, part: bool, new: bool) -> None:
        model = self.model
        self.transactions += 1
        signal = ExitSignalWithTx(
            session_id=1, position_id=position_id, wallet_pubkey=WALLET, mint=MINT, token_account=account,
            position_tokens=10, sell_tokens=4 if part else None, profit_units=1, reason="r", triggered_at_ms=1,
            unsigned_tx_b64=str(self.transactions),
        )  # fmt: skip
        expected = account if account in model.open else None
        if account is None:
            expected = model.ids.get(position_id)
            if expected is None and set(model.open) == {model.old_ids.get(position_id)}:
                expected = model.old_ids[position_id]
        name = account or model.ids.get(position_id)
        if not part and name is not None and model.wishes.get(name) is not None:
            del model.wishes[name]
        if expected is not None:
            model.open[expected].stale = False
            model.sales.signalled((WALLET, expected), signal, int(model.now_s * 1e9))
        assert self.handle_name(self.rig.receive(signal)) == expected
        # The same under another id is a repeat, if its position is known.
        again = attrs.evolve(signal, position_id=position_id % 3 + 1, token_account=expected)
        if expected is not None:
            assert self.rig.receive(again) is None

    @precondition(lambda self: self.model.up)
    @rule(position_id=IDS, is_tick=st.booleans())
    def price(self, position_id: int, is_tick: bool) -> None:
        owner = self.model.ids.get(position_id)
        if owner is not None:
            self.model.open[owner].stale = False
        # What the server means, so that a consumer can see that its handle is right.
        meant = -1 if owner is None else ACCOUNTS.index(owner)
        if is_tick:
            self.rig.receive(
                TradeTick(
                    position_id=position_id,
                    time_ms=1,
                    side="buy",
                    token_amount=meant + 1,
                    quote_amount=1,
                    price_quote=1,
                )
            )
            return
        self.rig.receive(PnlUpdate(position_id=position_id, profit_units=meant, proceeds_units=1, server_time_ms=1))
        if owner is not None:
            assert self.pnl(owner) == meant

    def pnl(self, account: str) -> int | None:
        table, handle = self.rig.state.table, self.rig.state.table.by_key(self.key(account))
        if handle is None or not table.has_id(handle.key):
            return None
        newest = self.rig.state.market.pnl(handle.position_id)
        return None if newest is None else newest.profit_units

    # ── the user ─────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(account=NAMES, by_id=st.booleans())
    def request(self, account: str, by_id: bool) -> None:
        """By an id, it is the position that had it last."""
        self.model.wishes[account] = self.model.now_s if self.model.up else None
        position_id = self.rig.connection.position_id_of(account) if by_id else None
        named = None if position_id is not None else account
        self.rig.command(RequestExitSignal(position_id=position_id, token_account=named))

    @precondition(lambda self: self.model.open)
    @rule(data=st.data(), level=st.integers(0, 9))
    def override(self, data: st.DataObject, level: int) -> None:
        account = data.draw(st.sampled_from(sorted(self.model.open)))
        position_id = self.rig.connection.position_id_of(account)
        known = {owner: number for number, owner in (self.model.old_ids | self.model.ids).items()}
        assert position_id == known.get(account)
        if position_id is None:
            return
        wanted = self.model.open[account].override = 10.0 * (ACCOUNTS.index(account) + 1) + level
        strategy = StrategyConfig(target_profit_pct=wanted, stop_loss_pct=0.0)
        self.rig.command(UpdatePositionStrategy(position_id=position_id, strategy=strategy))
        if account in self.model.ids.values() and self.model.up:
            assert self.latest_override(account) == wanted

    def latest_override(self, account: str) -> float | None:
        """What the server was told last about the account's position, by the id of then."""
        ids = [position_id for position_id, owner in self.model.ids.items() if owner == account]
        told = [m for m in self.rig.wire if m["type"] == "update_position_strategy" and m["position_id"] in ids]
        return told[-1]["strategy"]["target_profit_pct"] if told else None

    @rule()
    def consume(self) -> None:
        for event in self.rig.take_low():
            self.check_low(event)

    def check_low(self, event: Any) -> None:
        """No event of the low lane is about a position that is gone, or about another than the server meant."""
        name = self.handle_name(event)
        message = event.message
        meant = message.token_amount - 1 if isinstance(message, TradeTick) else message.profit_units
        assert name == (None if meant < 0 else ACCOUNTS[meant])
        if name is not None:
            assert event.handle.slot in self.model.open[name].slots

    def look_at_the_wire(self) -> None:
        """Each command reached the position that it is for, by the ids of this moment."""
        for message in self.rig.wire[self.read :]:
            account = message.get("token_account") or self.model.ids.get(message.get("position_id"))
            if message["type"] == "request_exit_signal":
                self.asked.add(account)
                assert self.model.wishes.get(account) is not None
            else:
                assert message["strategy"]["target_profit_pct"] == self.model.open[account].override
        self.read = len(self.rig.wire)

    # ── always ───────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_table_is_the_models(self) -> None:
        table = self.rig.state.table
        assert {h.token_account: (h.tokens, h.stale) for h in table.handles()} == {
            account: (position.tokens, position.stale) for account, position in self.model.open.items()
        }
        for position_id in (1, 2, 3):
            handle, fresh = table.find(position_id), table.live_handles.get(position_id)
            owner = self.model.ids.get(position_id)
            assert (handle.token_account if handle else None) == owner
            assert fresh is (None if handle is None or handle.stale else handle)
        for account in self.model.open:
            assert self.pnl(account) in (None, ACCOUNTS.index(account))

    @invariant()
    def every_deadline_is_its_openings(self) -> None:
        clock = self.rig.deadlines
        assert {key.token_account: start.at for key, start in clock._started_at.items()} == {
            account: position.started_s for account, position in self.model.open.items()
        }
        fired = {account for account, position in self.model.open.items() if position.fired}
        assert {key.token_account for key in clock._fired} == fired
        assert not clock._held_back

    @invariant()
    def every_command_reached_its_position(self) -> None:
        self.look_at_the_wire()

    @invariant()
    def every_wish_is_on_the_wire_or_waits(self) -> None:
        desired = self.rig.writer._desired
        waiting = {*desired._pending, *desired._held_back}
        expected = {account for account, sent_s in self.model.wishes.items() if sent_s is None}
        assert {name for kind, name in waiting if kind == "request_exit_signal"} == expected
        sent = {account: sent_s for account, sent_s in self.model.wishes.items() if sent_s is not None}
        assert {account: taken_at for account, (_, taken_at) in desired.unanswered.items()} == sent
        told = [event for event in self.rig.events if event.type == "command_dropped"]
        assert len(told) == self.model.dropped
        assert self.asked >= sent.keys()

    @invariant()
    def every_override_is_its_openings(self) -> None:
        desired = self.rig.writer._desired
        assert {account: s.target_profit_pct for (_, account), s in desired._overrides.items()} == {
            account: p.override for account, p in self.model.open.items() if p.override is not None
        }


TestPositions = Positions.TestCase
TestPositions.settings = settings(
    max_examples=examples(50),
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
