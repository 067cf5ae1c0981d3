"""Rounds of killing a seller and starting it again until every exit is finished; judged on the sandbox's ledger.

By hand, with the numbers at the end::

    python -m tests.crash.rounds --rounds 1000 --seed 7 --workers 2

A round that fails says its number and seed; alone it is played by ``--seed SEED --first NUMBER --rounds 1``. What the
machine's pace decides is not in the seed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from solders.keypair import Keypair

import lasersell_sync as ls
from tests.crash.points import PLACES, POINTS
from tests.crash.seller_program import files
from tests.crash.tally import RoundFailed, Tally
from tests.crash.template import Template
from tests.crash.world import USD1_MARKET, USD1_PER_SOL, World
from tests.support.overseer import Arrival, TwoAlive, Wish

#: A round that takes longer hangs: the slowest of thousands took 8 s, on a machine with much else to do.
ROUND_S = 60.0
#: Rounds with one sandbox; then another one, with other policies.
ROUNDS_PER_SANDBOX = 20
_TICK_S = 0.02
#: A transaction that is younger is given the time to land before slots are skipped.
_LANDS_WITHIN_S = 0.08
#: ... but not for ever: then they are skipped all the same.
_SKIP_AFTER_S = 0.6
LEVELS = ((10.0, 30.0), (20.0, 40.0), (30.0, 30.0))
#: One round of so many is a burst: so many wallets want to be sold at once.
_BURST_EVERY, BURST = 15, 40
#: An exit that was refused is signalled again after so long.
_REPEATS_AFTER_S = 0.5
#: A position that nobody wants sold is left to the seller for so long, from its session on.
_TEMPTATION_S = 0.7

#: (wallet, mint)
Place = tuple[str, str]
#: What an exit's entry in the diary is known by.
_KEY = ("wallet", "mint", "part", "generation")


@attrs.frozen
class Rebuy:
    """The second opening of a place, bought while no seller ran.

    Attributes:
        tokens: how many.
        at: when, by the monotonic clock.
        life: the number of the seller's process that had died before.
        is_wanted: the server signals it.
        landed: signatures of the sales before it.
    """

    tokens: int
    at: float
    life: int
    is_wanted: bool
    landed: frozenset[str]


class Round:
    """Some wallets' exits, from the signals to the last report, with a process that is killed and started again.

    Args:
        world: where it is played.
        template: what sellers are forked from.
        folder: for its files; empty.
        chance: decides what is left to it.
        first: the point at which the first process dies; None: left to chance.
        burst: so many wallets want to be sold at once; None: left to chance.
    """

    def __init__(
        self,
        world: World,
        template: Template,
        folder: Path,
        chance: random.Random,
        first: str | None = None,
        *,
        burst: int | None = None,
    ) -> None:
        self._world = world
        self._sandbox = world.sandbox
        self._template = template
        self._chance = chance
        self._files = files(folder)
        self._burst = burst or (BURST if chance.random() < 1 / _BURST_EVERY else 0)
        self.keys = [Keypair() for _ in range(self._burst or chance.choice((1, 1, 2)))]
        self._wallets = {str(key.pubkey()) for key in self.keys}
        self._held = [
            (wallet, mint)
            for wallet in sorted(self._wallets)
            for mint in chance.sample(self._sandbox.mints, 1 if self._burst else chance.choice((1, 1, 2)))
        ]
        self._tokens: dict[Place, int] = {}
        self._amounts: dict[Place, float] = {}
        self._kind = "whole" if self._burst else chance.choice(("whole", "ladder", "both"))
        points = [first or chance.choice(POINTS)]
        points += [chance.choice(POINTS) for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))]
        self._kills = [
            self._kill(point, is_sure=first is not None and number == 0) for number, point in enumerate(points)
        ]
        self._needs_a_dead_one = points[0] == "refresh requested"
        self._late_s = chance.choice((0.0, 0.0, 0.1, 0.3))
        self._has_links = chance.random() < 0.3
        self._forks = chance.random() < 0.25
        self._buys_again = chance.random() < 0.4
        self._rebuys: dict[Place, Rebuy] = {}
        #: The first process is killed when a node has received so many transactions; None: at a point of its own.
        self.kill_at_arrival: int | None = None
        self._diary_read = 0
        self._said: list[dict[str, Any]] = []
        self._lives = 0
        self._last_skip_at = self._repeated_at = 0.0
        #: A session is there, and its exits are not signalled yet.
        self._is_wanting = False
        self._has_lost_a_session = False
        self._raised: set[str] = set()
        #: When the whole positions are wanted as well.
        self._whole_at: float | None = None
        self.killed: list[str] = []
        self._events: collections.Counter[str] = collections.Counter({"burst of 40": int(self._burst == BURST)})

    def _kill(self, point: str, *, is_sure: bool) -> tuple[str, int, int]:
        arrivals = 1 if is_sure else self._chance.choice((1, 1, 1, 2, 3))
        if self._burst and not is_sure:
            arrivals = self._chance.randint(1, self._burst)
        return point, self._chance.randrange(len(PLACES[point])), arrivals

    def kill_first_at(self, point: str | None, *, arrivals: int = 1) -> None:
        """Let the first process die at this point, at so many arrivals there, and no other; None: at none."""
        place = 0 if point is None else self._chance.randrange(len(PLACES[point]))
        self._kills = [] if point is None else [(point, place, arrivals)]
        self._needs_a_dead_one = False

    # -- what happens

    def play(self) -> Tally:
        """Play it to its end; its numbers.

        Raises:
            RoundFailed: a double sale, a forgotten exit, or another breach.
        """
        begun_at = time.monotonic()
        self._world.begin_round()
        self._open_positions()
        try:
            while True:
                kill = self._kills.pop(0) if self._kills else None
                if self._live(kill, begun_at + ROUND_S):
                    break
                self._read_journal()
                self._buy_again()
        finally:
            self._world.end_trouble()
            for mint in self._raised:
                self._sandbox.set_price_multiplier(mint, 1 / 1.4)
        return self._judge()

    def _open_positions(self) -> None:
        for key in self.keys:
            self._world.api.register_wallet(ls.prove_ownership(key))
        for place in self._held:
            wallet, mint = place
            amount = self._chance.uniform(0.1, 1.0) * (USD1_PER_SOL if mint == self._sandbox.mints[USD1_MARKET] else 1)
            self._sandbox.script.grant(wallet, mint, amount)
            self._amounts[place] = amount
            self._tokens[place] = self._sandbox.token_balance(wallet, mint)

    def _buy_again(self) -> None:
        """While no seller runs, the user sells some positions by hand, and buys those tokens anew."""
        if not self._buys_again or self._burst:
            return
        for key in self.keys:
            for place in self._held:
                may_signal = self._kind == "whole" or place[1] in self._raised  # the price will not move any more
                if place[0] != str(key.pubkey()) or place in self._rebuys or not may_signal:
                    continue
                if self._chance.random() < 0.6:
                    self._buy_again_at(place, key)

    def _buy_again_at(self, place: Place, key: Keypair) -> None:
        tokens = self._world.buy_again(key, place[1], self._amounts[place] * self._chance.choice((1, 1, 0.5, 1.5)))
        is_wanted = self._chance.random() < 0.5
        landed = frozenset(trade.signature for trade in self._sales_at(place))
        self._rebuys[place] = Rebuy(tokens, time.monotonic(), self._lives, is_wanted, landed)
        words = "signalled" if is_wanted else "signalled by nobody"
        self._events[f"re-buy during the gap, {words}"] += 1

    def _live(self, kill: tuple[str, int, int] | None, until: float) -> bool:
        """One process, from its start to its end; whether all is finished."""
        self._lives += 1
        sandbox = self._sandbox
        before = known_session = self._newest_session(ended=True)
        pid = self._template.begin(
            {
                **self._files,
                "journal": self._journal_name(),
                "forks": self._forks,
                "log_level": "DEBUG" if os.environ.get("LASERSELL_TEST_DEBUG") else "INFO",
                "secrets": [str(key) for key in self.keys],
                "stream_url": sandbox.stream_url, "api_url": sandbox.api_url, "api_key": sandbox.api_key,
                "rpc_urls": [sandbox.rpc_url] * self._chance.choice((1, 1, 2)),
                "node_urls": sandbox.rpc_urls,
                "levels": LEVELS if self._kind != "whole" else (),
                "kill": kill,
            }
        )  # fmt: skip
        if self.kill_at_arrival is not None:
            self._kill_when_received(pid, self.kill_at_arrival)
            self.kill_at_arrival = None
        status = None
        self._session_at = float("inf")
        is_other_name_tried = False
        try:
            while True:
                status = self._template.ended(_TICK_S)
                self._read_diary()
                if status is not None:
                    self._has_lost_a_session = True
                    self._read_journal()
                    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                        self._events["forked child that outlived its seller"] += self._has_said("forked")
                        self._judge_records()
                        return False
                    raise RoundFailed("wrong", self._story(f"the seller ended with status {status}"))
                newest = self._newest_session()
                if newest > known_session:
                    if known_session == before:
                        self._session_at = time.monotonic()
                        self._world.make_trouble(
                            self._chance,
                            late_s=self._late_s,
                            dead=len(self._held) if self._lives == 1 and self._needs_a_dead_one else 0,
                        )
                    else:
                        self._has_lost_a_session = True
                    known_session = newest
                    self._is_wanting = True
                if self._is_wanting and self._may_want_exits():
                    self._is_wanting = False
                    self._want_exits()
                self._want_all_sold()
                self._repeat_what_was_refused()
                self._world.let_lies_end()
                if self._has_links and not is_other_name_tried and self._is_ready():
                    is_other_name_tried = True
                    self._try_the_other_name()
                if known_session > before and self._is_finished():
                    if kill is None and self._is_ready():
                        self._world.overseer.on_arrival = lambda _: None
                        return True
                    if kill is not None and self._chance.random() < 0.2:
                        self._has_lost_a_session = True
                        return False  # it never came to where it should have been killed
                self._let_slots_pass()
                if time.monotonic() > until:
                    raise RoundFailed("forgotten", self._story(f"not finished within {ROUND_S:g} s"))
        finally:
            if status is None:
                with contextlib.suppress(ProcessLookupError):  # it has died in this moment
                    os.kill(pid, signal.SIGKILL)
                assert self._template.ended(ROUND_S) is not None

    def _kill_when_received(self, pid: int, count: int) -> None:
        """From outside, in the middle of whatever its threads do."""
        left = count

        def received(arrival: Arrival) -> None:
            nonlocal left
            left -= arrival.wallet in self._wallets
            if left == 0:
                os.kill(pid, signal.SIGKILL)
                self._events["seller killed when a node had received so many"] += 1
                self._world.overseer.on_arrival = lambda _: None

        self._world.overseer.on_arrival = received

    def _newest_session(self, *, ended: bool = False) -> int:
        return max((one.session_id for one in self._sandbox.sessions(include_closed=ended)), default=0)

    def _is_ready(self) -> bool:
        """Whether this process has taken up what it found."""
        return self._has_said("ready")

    def _has_said(self, what: str) -> bool:
        """Whether this process has."""
        return any(entry["what"] == what and entry["life"] == self._lives for entry in self._said)

    def _journal_name(self) -> str:
        """Every other process opens the journal by a symbolic link, if there is one in this round."""
        path = Path(self._files["journal"])
        if not self._has_links or self._lives % 2:
            return str(path)
        link = path.with_name("link to the journal")
        if not link.is_symlink():
            link.symlink_to(path)
        self._events["journal by a symbolic link"] += 1
        return str(link)

    def _try_the_other_name(self) -> None:
        """A second seller with this journal, by the name that the first did not use, is refused."""
        path = Path(self._files["journal"])
        other = path.with_name("another link to the journal")
        if not other.is_symlink():
            other.symlink_to(path)
        try:
            ls.Journal(other).close()
        except ls.JournalError as error:
            if error.kind != "locked":
                raise
            self._events["second seller refused by the other name"] += 1
        else:
            # Unless the first has died in this moment.
            if self._template.has_ended(_TICK_S):
                return
            raise RoundFailed("wrong", self._story("two processes could have had the journal, by two names"))

    def _may_want_exits(self) -> bool:
        """A seller that dies before it has written an opening down needs a server that announces it again."""
        if self._world.policies.reannounce:
            return True
        return all(self._entries("opened", place) for place in self._held)

    def _repeat_what_was_refused(self) -> None:
        """On a busy machine the guard's nodes may not answer in time: the server signals such an exit again."""
        if time.monotonic() - self._repeated_at < _REPEATS_AFTER_S:
            return
        self._repeated_at = time.monotonic()
        for place in self._held:
            told = [one for one in self._entries("told", place) if one["part"] == "whole"]
            if told and told[-1]["outcome"] == "rejected" and told[-1]["life"] == self._lives:
                self._events["exit refused, reported and signalled again"] += 1
                self._force_exit_of(place)

    def _force_exit_of(self, place: Place) -> None:
        for position in self._sandbox.positions():
            if (position.wallet_pubkey, position.mint) == place and position.close_reason is None:
                # It may be closed in this moment.
                with contextlib.suppress(ValueError):
                    self._sandbox.force_exit(position.position_id, "stop_loss")

    def _want_exits(self) -> None:
        """A session is there: the server wants everything sold, or the price takes a few rungs."""
        if self._kind != "whole":
            self._raise_prices()
        if self._kind == "whole" or (self._kind == "both" and self._whole_at is not None) or self._rebuys:
            self._force_exits()

    def _want_all_sold(self) -> None:
        """After the rungs, when their sales may be anywhere between signal and landing."""
        if self._kind == "both" and self._whole_at is None and self._raised:
            self._whole_at = time.monotonic() + self._chance.choice((0.0, 0.05, 0.2))
        if self._whole_at is not None and time.monotonic() > self._whole_at:
            self._whole_at = float("inf")
            self._force_exits()

    def _raise_prices(self) -> None:
        for mint in sorted({mint for _, mint in self._held} - self._raised):
            self._raised.add(mint)
            for multiplier in self._chance.choice(((1.4,), (1.12, 1.25), (1.15, 1.1, 1.4 / 1.15 / 1.1))):
                self._sandbox.set_price_multiplier(mint, multiplier)

    def _force_exits(self) -> None:
        for position in self._sandbox.positions():
            place = (position.wallet_pubkey, position.mint)
            rebuy = self._rebuys.get(place)
            if position.close_reason is not None or place not in self._held or (rebuy and not rebuy.is_wanted):
                continue
            is_written = self._has_journalled(place, "whole", since_life=rebuy.life + 1 if rebuy else 0)
            if not is_written or self._chance.random() < 0.3:
                self._force_exit_of(place)

    def _let_slots_pass(self) -> None:
        """Blockhashes die quickly here, and that they are dead is found out quickly."""
        now = time.monotonic()
        patience_s = _LANDS_WITHIN_S + self._late_s
        if now - self._last_skip_at < 0.05:
            return
        is_flying = self._world.overseer.in_the_air(self._wallets, younger_than_s=patience_s)
        if not is_flying or now - self._last_skip_at > _SKIP_AFTER_S + self._late_s:
            self._last_skip_at = now
            self._sandbox.skip_slots(self._chance.choice((10, 40, 80)))

    # -- what is known

    def _read_diary(self) -> None:
        path = Path(self._files["diary"])
        if not path.exists():
            return
        with path.open("rb") as diary:
            diary.seek(self._diary_read)
            new = diary.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._diary_read += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            entry["life"] = self._lives
            self._said.append(entry)
            if entry["what"] == "killed":
                self.killed.append(entry["point"])

    def _records(self) -> list[ls.ExitRecord]:
        """What the journal has; nothing where its seller died before it had made the tables."""
        path = Path(self._files["journal"])
        if not path.exists():
            return []
        try:
            with ls.Journal(path, read_only=True) as journal:
                return journal.exits()
        except ls.JournalError:
            if path.stat().st_size:
                raise
            return []

    def _read_journal(self) -> None:
        """One thread may have died of another one's death between the journal's line and the diary's."""
        for key in [record.key for record in self._records()]:
            entry = {"what": "journalled", **{name: getattr(key, name) for name in _KEY}}
            if not any(entry.items() <= said.items() for said in self._said):
                # First: it was begun before anything was told of it.
                self._said.insert(0, {**entry, "life": self._lives})

    def _entries(self, what: str, place: Place) -> list[dict[str, Any]]:
        return [one for one in self._said if one["what"] == what and (one["wallet"], one["mint"]) == place]

    def _has_journalled(self, place: Place, part: str, *, since_life: int = 0) -> bool:
        written = self._entries("journalled", place)
        return any(entry["part"] == part and entry["life"] >= since_life for entry in written)

    def _written_of_the_first(self, place: Place) -> set[tuple[str, int]]:
        """(part, generation) of exits that were written down before the place was bought again."""
        rebuy = self._rebuys.get(place)
        written = self._entries("journalled", place)
        return {(one["part"], one["generation"]) for one in written if rebuy is None or one["life"] <= rebuy.life}

    def _wishes(self, place: Place, *, of_the_second: bool = False) -> list[Wish]:
        rebuy, wishes = self._rebuys.get(place), self._world.overseer.wishes_of(*place)
        return [wish for wish in wishes if (rebuy is not None and wish.at > rebuy.at) == of_the_second]

    def _wanted(self, place: Place) -> dict[str, int]:
        """By part, what the server named when it signalled it first; of the first opening."""
        wanted: dict[str, int] = {}
        for wish in self._wishes(place):
            wanted.setdefault("whole" if wish.level is None else f"level {wish.level}", wish.tokens)
        return wanted

    def _due(self, place: Place) -> dict[str, int]:
        """What of it must be finished: all but what died unwritten, and is not told again."""
        wanted = self._wanted(place)
        if place in self._rebuys:
            written = {part for part, _ in self._written_of_the_first(place)}
            return {part: tokens for part, tokens in wanted.items() if part in written}
        if self._world.repeats_exits or not self._has_lost_a_session:
            return wanted
        return {part: n for part, n in wanted.items() if part == "whole" or self._has_journalled(place, part)}

    def _begun_parts(self, place: Place) -> set[str]:
        """Parts that were written down, maybe once more, and of which nothing was told since."""
        begun: set[str] = set()
        for entry in self._said:
            if entry["what"] in {"journalled", "told"} and (entry["wallet"], entry["mint"]) == place:
                (begun.add if entry["what"] == "journalled" else begun.discard)(entry["part"])
        return begun

    def _has_unfinished(self, place: Place) -> bool:
        """True when the seller is at work: the report of an earlier end may follow a new signal of the same part."""
        return any((one.key.wallet, one.key.mint) == place and not one.is_finished for one in self._records())

    def _reported_parts(self, place: Place) -> set[str]:
        """Levels that a process left unfinished and the next one reported: they are sold by a new signal only."""
        told = self._entries("told", place)
        unsold = {one["part"] for one in told if one["life"] > 1 and one["outcome"] == "expired"}
        return unsold - {one["part"] for one in told if one["outcome"] == "confirmed"} - {"whole"}

    def _sales_at(self, place: Place) -> list[Any]:
        """All but those by the user's own hand."""
        foreign = self._world.overseer.foreign
        return [trade for trade in self._world.ledger.sales(*place) if trade.signature not in foreign]

    def _is_finished(self) -> bool:
        return all(self._is_finished_at(place) for place in self._held)

    def _is_finished_at(self, place: Place) -> bool:
        rebuy, told = self._rebuys.get(place), self._entries("told", place)
        if rebuy is None:
            wanted, due = self._wanted(place), self._due(place)
            is_told = set(due) <= {entry["part"] for entry in told} and not self._begun_parts(place)
            is_sold = "whole" not in due or not self._sandbox.token_balance(*place)
            is_over = bool(wanted) and is_told and is_sold and (self._kind == "ladder" or "whole" in wanted)
            return is_over and not self._has_unfinished(place)
        if not self._written_of_the_first(place) <= {(entry["part"], entry["generation"]) for entry in told}:
            return False
        if not rebuy.is_wanted:
            return time.monotonic() > self._session_at + _TEMPTATION_S
        landed = {trade.signature for trade in self._sales_at(place)} - rebuy.landed
        return not self._sandbox.token_balance(*place) and landed <= {entry["signature"] for entry in told}

    # -- the judgement

    def _judge(self) -> Tally:
        """By the ledger."""
        self._judge_records()
        self._judge_two_alive()
        self._events.update(self._world.events)
        tally = Tally(rounds=1, lives=self._lives, kills=collections.Counter(self.killed), events=self._events)
        for place in self._held:
            due, sales, rebuy = self._due(place), self._sales_at(place), self._rebuys.get(place)
            tally.unheard += len(self._wanted(place)) - len(due)
            tally.exits += len(due) + bool(rebuy and rebuy.is_wanted)
            tally.sales += len(sales)
            tally.transactions += len(self._world.overseer.arrivals_of(*place))
            if rebuy is None:
                reported = self._reported_parts(place)
                tally.events["part that a process left, and the next one reported"] += len(reported)
                due = {part: tokens for part, tokens in due.items() if part not in reported}
                self._judge_sales(place, due, [trade.tokens for trade in sales])
            else:
                self._judge_first_opening(place, [one.tokens for one in sales if one.signature in rebuy.landed])
                self._judge_second_opening(
                    place, rebuy, [one.tokens for one in sales if one.signature not in rebuy.landed]
                )
                tally.events["re-buy that was sold"] += rebuy.is_wanted
            self._judge_reports(place, due, {trade.signature for trade in sales})
        return tally

    def _judge_records(self) -> None:
        """After a death, and before the next life: whatever has reached a node is in the journal."""
        received = [one for wallet in self._wallets for one in self._world.overseer.arrivals_of(wallet)]
        known: set[str] = set()
        if Path(self._files["journal"]).exists():
            with ls.Journal(self._files["journal"], read_only=True) as journal:
                known = {attempt.signature for record in journal.exits() for attempt in record.attempts}
        self._events["received transaction looked up in the journal after a kill"] += len(received)
        if missing := [one.signature for one in received if one.signature not in known]:
            raise RoundFailed("unrecorded", self._story(f"sent without a record: {missing}"))

    def _judge_two_alive(self) -> None:
        """At most one transaction could land at any moment; of a whole exit two could, where a node lied."""
        with ls.Journal(self._files["journal"], read_only=True) as journal:
            exits = {one.signature: record.key for record in journal.exits() for one in record.attempts}
        for two in self._world.overseer.two_alive:
            if two.wallet not in self._wallets:
                continue
            reason = self._why_two_could_land(two, exits)
            if reason is None:
                raise RoundFailed("doubles", self._story("two transactions of one position could land", str(two)))
            self._events[reason] += 1

    def _why_two_could_land(self, two: TwoAlive, exits: dict[str, Any]) -> str | None:
        """The tally's name for what is allowed; None: it is not."""
        earlier, later = exits.get(two.earlier), exits.get(two.later)
        if earlier is None or later is None:
            return None
        if earlier != later:
            return "whole exit signed while a part could land"  # or a part that gets no further transaction
        if earlier.is_whole and self._world.events["answer that was a lie"]:
            return "second transaction of a whole exit after a false answer"
        return None

    def _judge_sales(self, place: Place, due: dict[str, int], sold: list[int]) -> None:
        held, left = self._tokens[place], self._sandbox.token_balance(*place)
        levels = collections.Counter(tokens for part, tokens in due.items() if part != "whole")
        parts = collections.Counter(sold)
        if "whole" in due:
            if left:
                raise RoundFailed("forgotten", self._story(f"{left} of {held} tokens are left"))
            # The whole position's exit sells what the levels before it have left.
            extra = parts - levels
            is_right = sum(sold) == held and extra.total() <= 1
        else:
            # What the guard could not judge, or nodes contradicted, was reported.
            unsold = [
                one["tokens"] for one in self._entries("told", place) if one["outcome"] in {"rejected", "unknown"}
            ]
            is_right = (
                not parts - levels and held - left == sum(sold) and not levels - parts - collections.Counter(unsold)
            )
        if not is_right:
            kind = "doubles" if sum(sold) > sum(due.values()) or len(sold) > len(due) else "forgotten"
            raise RoundFailed(kind, self._story(f"{place} sold {sold} of {held}; due were {due}"))

    def _judge_first_opening(self, place: Place, sold: list[int]) -> None:
        """The user sold the rest by hand: no part is sold twice, and nothing that was not signalled."""
        wanted = self._wanted(place)
        levels = collections.Counter(tokens for part, tokens in wanted.items() if part != "whole")
        if (collections.Counter(sold) - levels).total() > ("whole" in wanted):
            raise RoundFailed("doubles", self._story(f"{place} sold {sold} before it was bought again: {wanted}"))

    def _judge_second_opening(self, place: Place, rebuy: Rebuy, sold: list[int]) -> None:
        left, wishes = self._sandbox.token_balance(*place), self._wishes(place, of_the_second=True)
        if not wishes and (sold or left != rebuy.tokens):
            words = f"nobody signalled the second opening of {place}, and {sold} of {rebuy.tokens} tokens were sold"
            raise RoundFailed("unwanted", self._story(words))
        if wishes and (left or sold != [rebuy.tokens]):
            words = f"of the second opening of {place}, {sold} of {rebuy.tokens} tokens were sold"
            raise RoundFailed("doubles" if len(sold) > 1 else "forgotten", self._story(words))

    def _judge_reports(self, place: Place, due: dict[str, int], landed: set[str]) -> None:
        told = self._entries("told", place)
        confirmed = {entry["signature"] for entry in told if entry["outcome"] == "confirmed"}
        unsaid = landed - confirmed
        if self._world.events["answer that was a lie"]:
            # By a lie, an exit may end as unknown, or its landing may be noticed late.
            doubted = {entry["signature"] for entry in told if entry["outcome"] == "unknown"}
            unsaid -= doubted | {entry["signature"] for entry in self._said if entry["what"] == "late landing"}
        if unsaid or not confirmed <= landed:
            raise RoundFailed("wrong", self._story(f"told as confirmed: {confirmed}; landed: {landed}"))
        untold = set(due) - {entry["part"] for entry in told}
        if untold:
            raise RoundFailed("forgotten", self._story(f"nothing was told of {untold}"))

    def _story(self, *problems: str) -> str:
        overseer = self._world.overseer
        lines = [
            *problems,
            f"kind: {self._kind}; is_routed: {self._world.is_routed}; policies: {self._world.policies}",
            f"events: {self._events + self._world.events}",
            f"files: {self._files['log']}",
        ]
        for place in self._held:
            lines.append(f"position {place}: {self._tokens[place]} tokens")
            lines.append(f"  bought again: {self._rebuys.get(place)}")
            lines += [f"  wanted {wish}" for wish in overseer.wishes_of(*place)]
            lines += [f"  arrived {one.signature[:12]} at {one.at:.3f}" for one in overseer.arrivals_of(*place)]
            lines += [f"  {trade}" for trade in self._world.ledger.sales(*place)]
        lines += [f"  diary: {entry}" for entry in self._said]
        return "\n".join(lines)


def play(
    rounds: int, seed: str, folder: Path, points: Iterator[str | None], *, first: int = 0, keep_going: bool = False
) -> Tally:
    """Many rounds, from number ``first`` on, the first death of each at the next of the points.

    Raises:
        RoundFailed: the first that fails, unless ``keep_going``: then they are counted.
    """
    tally, world = Tally(), None
    template = Template()
    try:
        for number in range(first, first + rounds):
            if world is None or number % ROUNDS_PER_SANDBOX == 0:
                if world is not None:
                    world.close()
                world = World(random.Random(f"{seed}:world:{number // ROUNDS_PER_SANDBOX}"))
            own = folder / str(number)
            own.mkdir()
            current = Round(world, template, own, random.Random(f"{seed}:{number}"), next(points))
            try:
                tally.add(current.play())
            except RoundFailed as failure:
                print(f"round {number} of seed {seed} failed ({failure.kind}):\n{failure}", flush=True)
                if not keep_going:
                    raise
                tally.add(Tally(rounds=1, kills=collections.Counter(current.killed), **{failure.kind: 1}))
                continue
            shutil.rmtree(own)
    finally:
        if world is not None:
            world.close()
        template.close()
    return tally


def any_point() -> Iterator[str | None]:
    """Every first death is left to chance."""
    while True:
        yield None


def main() -> int:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=1000)
    options.add_argument("--seed", default=str(time.time_ns()))
    options.add_argument("--first", type=int, default=0, help="number of the first one")
    options.add_argument("--workers", type=int, default=1, help="processes that play beside each other")
    options.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    if given.workers > 1:
        tally = _beside_each_other(given.rounds, given.seed, given.workers)
    else:
        folder = Path(tempfile.mkdtemp(prefix="crash-rounds-"))
        tally = play(given.rounds, given.seed, folder, any_point(), first=given.first, keep_going=True)
        with contextlib.suppress(OSError):  # the files of rounds that failed are kept
            folder.rmdir()
    if given.part:
        print(tally.as_json())
        return 0
    print(*tally.lines(time.monotonic() - began), sep="\n")
    return 0 if tally.rounds == given.rounds and tally.is_good else 1


def _beside_each_other(rounds: int, seed: str, workers: int) -> Tally:
    shares = [rounds // workers + (number < rounds % workers) for number in range(workers)]
    command = [sys.executable, "-m", "tests.crash.rounds", "--part"]
    parts = [
        subprocess.Popen(
            [*command, "--rounds", str(share), "--seed", f"{seed}.{number}"], stdout=subprocess.PIPE, text=True
        )
        for number, share in enumerate(shares)
    ]
    tally, threads = Tally(), []

    def listen(part: subprocess.Popen[str]) -> None:
        assert part.stdout is not None
        for line in part.stdout:
            if line.startswith('{"rounds"'):
                tally.add(Tally.from_json(line))
            else:
                print(line, end="", flush=True)

    for part in parts:
        threads.append(threading.Thread(target=listen, args=(part,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return tally


if __name__ == "__main__":
    sys.exit(main())
