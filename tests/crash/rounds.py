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
import select
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
from lasersell_sync.sandbox import Policies, Sandbox
from lasersell_sync.sandbox.assertions import LedgerAssertions
from tests.crash.points import PLACES, POINTS
from tests.crash.seller_program import files
from tests.support.overseer import Overseer
from tests.support.processes import IMPORT_ROOT, TESTS_ROOT, surroundings
from tests.support.stages import CALM_MARKETS

#: A round that takes longer hangs: the slowest of thousands took 8 s, on a machine with much else to do.
ROUND_S = 60.0
#: Rounds with one sandbox; then another one, with other policies.
ROUNDS_PER_SANDBOX = 20
#: Virtual seconds per real second: a landing takes 20 ms.
SPEED = 20.0
_TICK_S = 0.02
#: A transaction that is younger is given the time to land before slots are skipped.
_LANDS_WITHIN_S = 0.08
#: ... but not for ever: then they are skipped all the same.
_SKIP_AFTER_S = 0.6
#: The one of the calm markets that is paid in USD1. A part of less than a dollar there brings a unit less than its share,
#: for a market rounds down: the guard then refuses the transaction that was asked for in place of a dead one.
_USD1_MARKET, _USD1_PER_SOL = 3, 100
LEVELS = ((10.0, 30.0), (20.0, 40.0), (30.0, 30.0))


class Template:
    """The process that sellers are forked from."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(IMPORT_ROOT), str(TESTS_ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.crash.seller_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**surroundings(), "PYTHONPATH": path},
        )
        self._said = b""

    def begin(self, plan: dict[str, Any]) -> int:
        """Fork a seller; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan).encode() + b"\n")
        self._process.stdin.flush()
        words = self._line(ROUND_S)
        assert words is not None, "the template is gone"
        assert words.startswith("begun "), words
        return int(words.split()[1])

    def ended(self, within_s: float) -> int | None:
        """The wait status of the seller that runs, once it has ended; None: it runs on."""
        words = self._line(within_s)
        return None if words is None else int(words.split()[1])

    def _line(self, within_s: float) -> str | None:
        assert self._process.stdout is not None
        ends_at = time.monotonic() + within_s
        while b"\n" not in self._said:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, ends_at - time.monotonic()))
            if not readable:
                return None
            self._said += os.read(self._process.stdout.fileno(), 4096)
        line, self._said = self._said.split(b"\n", 1)
        return line.decode()

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(10)
        self._process.stdout.close()  # type: ignore[union-attr]


@attrs.define
class Tally:
    """The numbers of many rounds."""

    rounds: int = 0
    exits: int = 0
    sales: int = 0
    doubles: int = 0
    forgotten: int = 0
    wrong: int = 0
    #: Signals that died with a process before they were written down, and that the server does not repeat.
    unheard: int = 0
    lives: int = 0
    transactions: int = 0
    kills: collections.Counter[str] = attrs.field(factory=collections.Counter)

    def add(self, other: Tally) -> None:
        for name in ("rounds", "exits", "sales", "doubles", "forgotten", "wrong", "unheard", "lives", "transactions"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.kills.update(other.kills)

    def as_json(self) -> str:
        return json.dumps({**attrs.asdict(self, recurse=False), "kills": dict(self.kills)})

    @classmethod
    def from_json(cls, text: str) -> Tally:
        values = json.loads(text)
        return cls(**{**values, "kills": collections.Counter(values["kills"])})


class RoundFailed(AssertionError):
    """What must never happen has happened; the text has the whole story, ``kind`` is the tally's name for it."""

    def __init__(self, kind: str, story: str) -> None:
        super().__init__(story)
        self.kind = kind


class World:
    """One sandbox with an overseer; many rounds are played in it.

    Args:
        chance: chooses its policies and whether trades go through the Router, if they are not given.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        api_key: str = "sandbox-key",
        policies: Policies | None = None,
        is_routed: bool | None = None,
    ) -> None:
        self.policies = policies or Policies(
            replace_sessions=chance.random() < 0.5,
            hello_first=chance.random() < 0.5,
            reannounce=chance.random() < 0.7,
            stable_ids=chance.random() < 0.5,
            resend_exits=chance.random() < 0.5,
            rebuild_exits=chance.random() < 0.3,
        )
        self.is_routed = chance.random() < 0.5 if is_routed is None else is_routed
        self.sandbox = Sandbox(
            scenario=CALM_MARKETS, seed=chance.randrange(2**32), speed=SPEED,
            api_key=api_key, policies=self.policies, pnl_flush_ms=20_000, stream_port=0, api_port=0, rpc_port=0,
            router=self.is_routed,
        )  # fmt: skip
        self.sandbox.start()
        self.overseer = Overseer(self.sandbox)
        self.ledger = LedgerAssertions(self.sandbox)
        self.api = ls.ExitApiClient(self.sandbox.api_key).with_base_url(self.sandbox.api_url)
        self.repeats_exits = self.policies.resend_exits

    def close(self) -> None:
        self.api.close()
        self.sandbox.stop()


class Round:
    """Some wallets' exits, from the signals to the last report, with a process that is killed and started again.

    Args:
        world: where it is played.
        template: what sellers are forked from.
        folder: for its files; empty.
        chance: decides what is left to it.
        first: the point at which the first process dies; None: left to chance.
    """

    def __init__(
        self, world: World, template: Template, folder: Path, chance: random.Random, first: str | None = None
    ) -> None:
        self._world = world
        self._sandbox = world.sandbox
        self._template = template
        self._chance = chance
        self._files = files(folder)
        self.keys = [Keypair() for _ in range(chance.choice((1, 1, 2)))]
        self._wallets = {str(key.pubkey()) for key in self.keys}
        mints = self._sandbox.mints
        self._held = [
            (wallet, mint)
            for wallet in sorted(self._wallets)
            for mint in chance.sample(mints, chance.choice((1, 1, 2)))
        ]
        self._tokens: dict[tuple[str, str], int] = {}
        self._kind = chance.choice(("whole", "ladder", "both"))
        points = [first or chance.choice(POINTS)]
        points += [chance.choice(POINTS) for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))]
        self._kills = [
            self._kill(point, is_sure=first is not None and number == 0) for number, point in enumerate(points)
        ]
        self._needs_a_dead_one = points[0] == "refresh requested"
        self._late_s = chance.choice((0.0, 0.0, 0.1, 0.3))
        self._diary_read = 0
        self._said: list[dict[str, Any]] = []
        self._lives = 0
        self._last_skip_at = 0.0
        self._has_lost_a_session = False
        self._raised: set[str] = set()
        #: When the whole positions are wanted as well.
        self._whole_at: float | None = None
        self.killed: list[str] = []

    def _kill(self, point: str, *, is_sure: bool) -> tuple[str, int, int]:
        arrivals = 1 if is_sure else self._chance.choice((1, 1, 1, 2, 3))
        return point, self._chance.randrange(len(PLACES[point])), arrivals

    # -- what happens

    def play(self) -> Tally:
        """Play it to its end; its numbers.

        Raises:
            RoundFailed: a double sale, a forgotten exit, or another breach.
        """
        begun_at = time.monotonic()
        self._open_positions()
        try:
            while True:
                kill = self._kills.pop(0) if self._kills else None
                if self._live(kill, begun_at + ROUND_S):
                    break
        finally:
            self._sandbox.faults.clear()
            for mint in self._raised:
                self._sandbox.set_price_multiplier(mint, 1 / 1.4)
        return self._judge()

    def _open_positions(self) -> None:
        for key in self.keys:
            self._world.api.register_wallet(ls.prove_ownership(key))
        for wallet, mint in self._held:
            amount = self._chance.uniform(0.1, 1.0) * (
                _USD1_PER_SOL if mint == self._sandbox.mints[_USD1_MARKET] else 1
            )
            self._sandbox.script.grant(wallet, mint, amount)
            self._tokens[wallet, mint] = self._sandbox.token_balance(wallet, mint)

    def _live(self, kill: tuple[str, int, int] | None, until: float) -> bool:
        """One process, from its start to its end; whether all is finished."""
        self._lives += 1
        sandbox = self._sandbox
        before = known_session = self._newest_session(ended=True)
        pid = self._template.begin(
            {
                **self._files,
                "log_level": "DEBUG" if os.environ.get("LASERSELL_TEST_DEBUG") else "INFO",
                "secrets": [str(key) for key in self.keys],
                "stream_url": sandbox.stream_url, "api_url": sandbox.api_url, "api_key": sandbox.api_key,
                "rpc_urls": [sandbox.rpc_url] * self._chance.choice((1, 1, 2)),
                "levels": LEVELS if self._kind != "whole" else (),
                "kill": kill,
            }
        )  # fmt: skip
        status = None
        try:
            while True:
                status = self._template.ended(_TICK_S)
                self._read_diary()
                if status is not None:
                    self._has_lost_a_session = True
                    self._read_journal()
                    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                        return False
                    raise RoundFailed("wrong", self._story(f"the seller ended with status {status}"))
                newest = self._newest_session()
                if newest > known_session:
                    if known_session == before:
                        self._make_trouble()
                    else:
                        self._has_lost_a_session = True
                    known_session = newest
                    self._want_exits()
                self._want_all_sold()
                if known_session > before and self._is_finished():
                    if kill is None and self._is_ready():
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

    def _newest_session(self, *, ended: bool = False) -> int:
        return max((one.session_id for one in self._sandbox.sessions(include_closed=ended)), default=0)

    def _is_ready(self) -> bool:
        """Whether this process has taken up what it found."""
        return any(entry["what"] == "ready" and entry["life"] == self._lives for entry in self._said)

    def _make_trouble(self) -> None:
        chance, faults = self._chance, self._sandbox.faults
        if self._lives == 1 and self._needs_a_dead_one:
            faults.transactions("never", times=len(self._held))
        elif chance.random() < 0.6:
            fate = chance.choice(("late", "lost", "never"))
            delay_ms = self._late_s * SPEED * 1000 if fate == "late" else 0
            faults.transactions(fate, landing_delay_ms=delay_ms, times=chance.choice((1, 2)))
        if chance.random() < 0.5:
            self._spoil_answers()
        if chance.random() < 0.15:
            faults.drop()
        if chance.random() < 0.15 and not self._world.is_routed:
            faults.rpc_lag(chance.choice((1, 5, 40, 200)))
        elif chance.random() < 0.5:
            faults.rpc_lag(0)

    def _spoil_answers(self) -> None:
        """Of a routed trade, the guard asks a node before it is signed: without an answer the exit waits for the user."""
        chance = self._chance
        what = chance.choice(
            (
                {"status": 500}, {"status": 429, "retry_after_s": 1}, {"body": "<html>502 Bad Gateway</html>"},
                {"body": '{"jsonrpc":"2.0","result":null'}, {"hang_up": True}, {"error_code": -32005},
                {"status": 503, "handled": False}, {"hang_up": True, "handled": False}, {"delay_ms": 150},
            )
        )  # fmt: skip
        methods: list[str | None] = ["sendTransaction", "getSignatureStatuses", "getEpochInfo", "isBlockhashValid"]
        if not self._world.is_routed:
            methods += [None, "getMultipleAccounts"]
        self._sandbox.faults.rpc(chance.choice(methods), times=chance.choice((1, 2, 4)), **what)

    def _want_exits(self) -> None:
        """A session is there: the server wants everything sold, or the price takes a few rungs."""
        if self._kind != "whole":
            self._raise_prices()
        if self._kind == "whole" or (self._kind == "both" and self._whole_at is not None):
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
            if position.close_reason is not None or place not in self._held:
                continue
            if not self._has_journalled(*place, "whole") or self._chance.random() < 0.3:
                try:
                    self._sandbox.force_exit(position.position_id, "stop_loss")
                except ValueError:
                    continue  # it was closed in this moment

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

    def _read_journal(self) -> None:
        """One thread may have died of another one's death between the journal's line and the diary's."""
        if not Path(self._files["journal"]).exists():
            return
        with ls.Journal(self._files["journal"], read_only=True) as journal:
            keys = [record.key for record in journal.exits()]
        for key in keys:
            if not self._has_journalled(key.wallet, key.mint, key.part):
                entry = {"what": "journalled", "wallet": key.wallet, "mint": key.mint, "part": key.part}
                self._said.append({**entry, "generation": key.generation, "life": self._lives})

    def _entries(self, what: str, wallet: str, mint: str) -> list[dict[str, Any]]:
        return [one for one in self._said if one["what"] == what and (one["wallet"], one["mint"]) == (wallet, mint)]

    def _has_journalled(self, wallet: str, mint: str, part: str) -> bool:
        return any(entry["part"] == part for entry in self._entries("journalled", wallet, mint))

    def _wanted(self, wallet: str, mint: str) -> dict[str, int]:
        """By part, what the server named when it signalled it first."""
        wanted: dict[str, int] = {}
        for wish in self._world.overseer.wishes_of(wallet, mint):
            wanted.setdefault("whole" if wish.level is None else f"level {wish.level}", wish.tokens)
        return wanted

    def _due(self, wallet: str, mint: str) -> dict[str, int]:
        """What of it must be finished: all but what died unwritten, and is not told again."""
        wanted = self._wanted(wallet, mint)
        if self._world.repeats_exits or not self._has_lost_a_session:
            return wanted
        return {part: n for part, n in wanted.items() if part == "whole" or self._has_journalled(wallet, mint, part)}

    def _is_finished(self) -> bool:
        for place in self._held:
            told = {entry["part"] for entry in self._entries("told", *place)}
            wanted, due = self._wanted(*place), self._due(*place)
            if not wanted or not set(due) <= told:
                return False
            if "whole" in due and self._sandbox.token_balance(*place):
                return False
        return self._kind == "ladder" or all("whole" in self._wanted(*place) for place in self._held)

    # -- the judgement

    def _judge(self) -> Tally:
        """By the ledger."""
        tally = Tally(rounds=1, lives=self._lives, kills=collections.Counter(self.killed))
        overseer = self._world.overseer
        two_alive = [words for words in overseer.two_alive if any(wallet in words for wallet in self._wallets)]
        if two_alive:
            raise RoundFailed("doubles", self._story("two transactions of one position could land", *two_alive))
        for wallet, mint in self._held:
            due, sales = self._due(wallet, mint), self._world.ledger.sales(wallet, mint)
            tally.unheard += len(self._wanted(wallet, mint)) - len(due)
            tally.exits += len(due)
            tally.sales += len(sales)
            tally.transactions += len(overseer.arrivals_of(wallet, mint))
            self._judge_sales(wallet, mint, due, [trade.tokens for trade in sales])
            self._judge_reports(wallet, mint, due, {trade.signature for trade in sales})
        return tally

    def _judge_sales(self, wallet: str, mint: str, due: dict[str, int], sold: list[int]) -> None:
        held, left = self._tokens[wallet, mint], self._sandbox.token_balance(wallet, mint)
        levels = collections.Counter(tokens for part, tokens in due.items() if part != "whole")
        parts = collections.Counter(sold)
        if "whole" in due:
            if left:
                raise RoundFailed("forgotten", self._story(f"{left} of {held} tokens are left"))
            # The whole position's exit sells what the levels before it have left.
            extra = parts - levels
            is_right = sum(sold) == held and extra.total() <= 1
        else:
            is_right = parts == levels and held - left == sum(sold)
        if not is_right:
            kind = "doubles" if sum(sold) > sum(due.values()) or len(sold) > len(due) else "forgotten"
            raise RoundFailed(kind, self._story(f"{wallet} sold {sold} of {held} of {mint}; due were {due}"))

    def _judge_reports(self, wallet: str, mint: str, due: dict[str, int], landed: set[str]) -> None:
        told = self._entries("told", wallet, mint)
        confirmed = {entry["signature"] for entry in told if entry["outcome"] == "confirmed"}
        if confirmed != landed:
            raise RoundFailed("wrong", self._story(f"told as confirmed: {confirmed}; landed: {landed}"))
        untold = set(due) - {entry["part"] for entry in told}
        if untold:
            raise RoundFailed("forgotten", self._story(f"nothing was told of {untold}"))

    def _story(self, *problems: str) -> str:
        overseer = self._world.overseer
        lines = [
            *problems,
            f"kind: {self._kind}; is_routed: {self._world.is_routed}; policies: {self._world.policies}",
            f"files: {self._files['log']}",
        ]
        for place in self._held:
            lines.append(f"position {place}: {self._tokens[place]} tokens")
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
    print(f"{tally.rounds} rounds in {time.monotonic() - began:.0f} s, {tally.lives} processes, {tally.exits} exits,")
    print(f"{tally.sales} sales by {tally.transactions} transactions; signals that nobody heard: {tally.unheard}")
    print(f"double sales: {tally.doubles}, forgotten exits: {tally.forgotten}, wrong reports: {tally.wrong}")
    for point in POINTS:
        print(f"  killed {tally.kills[point]:5d} times: {point}")
    is_good = tally.rounds == given.rounds and not tally.doubles and not tally.forgotten and not tally.wrong
    return 0 if is_good else 1


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
