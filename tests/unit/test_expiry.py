"""When a transaction is dead: proven against every kind of node that does not tell the whole truth."""

from __future__ import annotations

import random

import pytest

from lasersell_sync.trading.solana.expiry import (
    BLOCKHASH_LIFE_BLOCKS,
    READS_NEEDED,
    ExpiryRule,
    SlotTime,
    Tip,
)

#: The last block that takes a transaction, above its blockhash's (Solana: MAX_PROCESSING_AGE, seen from the parent).
LAST_CHANCE = 151
A, B = 0, 1
#: No node told how long a slot takes.
SLOTS = SlotTime()
#: A chain where every eighth slot has no block.
SLOTS_PER_BLOCK = 8 / 7


def tip_at(height: int) -> Tip:
    return Tip(int(height * SLOTS_PER_BLOCK), height)


def known(node: int = A, height: int = 1_000) -> ExpiryRule:
    """Of a transaction whose blockhash is the newest confirmed block's."""
    rule = ExpiryRule(SLOTS)
    rule.saw_valid(node, tip_at(height).slot)
    rule.saw_tip(node, tip_at(height))
    return rule


def test_the_bound_is_the_height_of_a_block_that_stands_on_the_blockhash() -> None:
    """150 blocks, and the one that is being built on the last of them."""
    rule = known()
    assert rule.bound == 1_000 + BLOCKHASH_LIFE_BLOCKS
    assert BLOCKHASH_LIFE_BLOCKS == LAST_CHANCE
    assert rule.is_known_to(A)
    assert not rule.is_known_to(B)


def test_two_reads_beyond_the_bound_prove_it() -> None:
    """One is not enough, and one below the bound is none."""
    rule, below, at = known(), tip_at(1_150), tip_at(1_151)
    assert not rule.saw_no_status(A, below, below.slot + 5)
    assert not rule.saw_no_status(A, below, below.slot + 5)
    assert not rule.saw_no_status(A, at, at.slot)
    assert rule.saw_no_status(A, at, at.slot + 1)
    assert READS_NEEDED == 2


def test_nothing_is_proven_without_a_block() -> None:
    """A node that tells no heights proves nothing, however often it finds nothing."""
    rule = ExpiryRule(SLOTS)
    assert rule.bound is None
    assert not any(rule.saw_no_status(A, None, 10**9) for _ in range(10))
    rule.saw_valid(A, 100)
    assert rule.bound is None
    assert not any(rule.saw_no_status(A, None, 10**9) for _ in range(10))
    assert "no node has told" in rule.explain()


def test_the_last_possible_block_is_waited_for() -> None:
    """It may stand at the bound itself: nothing that was read below it counts."""
    rule = known()
    for height in range(1_000, 1_000 + LAST_CHANCE):
        tip = tip_at(height)
        assert not rule.saw_no_status(A, tip, tip.slot + 1), "the next block may still have it"
    landed = tip_at(1_000 + LAST_CHANCE)
    rule.saw_status()
    assert not rule.saw_no_status(A, landed, landed.slot), "one read"


def test_a_search_of_an_older_state_does_not_count() -> None:
    """Behind one URL may stand several nodes; the one that searched lags behind the one that told its height."""
    rule, tip = known(), tip_at(1_200)
    for _ in range(5):
        assert not rule.saw_no_status(A, tip, tip.slot - 1)
        assert not rule.saw_no_status(A, tip, 0)
    assert not rule.saw_no_status(A, tip, tip.slot)
    assert not rule.saw_no_status(A, tip, tip.slot - 1), "still one"
    assert rule.saw_no_status(A, tip, tip.slot)


def test_a_height_of_an_older_state_bounds_nothing() -> None:
    """True came from a node at the tip, the height from one 200 blocks behind: its block may stand below the blockhash."""
    rule = ExpiryRule(SLOTS)
    rule.saw_valid(A, tip_at(1_000).slot)
    rule.saw_tip(A, tip_at(800))
    assert rule.bound is None
    assert not rule.is_bounded_by(A)
    rule.saw_tip(A, tip_at(999))
    assert rule.bound is None
    rule.saw_tip(A, tip_at(1_000))
    assert rule.bound == 1_000 + LAST_CHANCE
    rule.saw_tip(A, tip_at(1_010))
    assert rule.bound == 1_000 + LAST_CHANCE, "the lowest sound bound counts"


def test_the_lowest_bound_of_all_nodes_counts() -> None:
    """A node that lags 200 blocks sees the blockhash 200 blocks later, at the same height."""
    rule = ExpiryRule(SLOTS)
    rule.saw_valid(A, tip_at(1_020).slot)
    rule.saw_tip(A, tip_at(1_020))
    rule.saw_tip(B, tip_at(820))
    assert rule.bound == 1_020 + LAST_CHANCE
    rule.saw_valid(B, tip_at(1_001).slot)
    rule.saw_tip(B, tip_at(1_001))
    assert rule.bound == 1_001 + LAST_CHANCE


def test_a_lagging_node_has_no_say_while_it_lags() -> None:
    """It finds nothing for 200 blocks after the transaction landed; it never gets that far below the bound."""
    rule = known(A)
    rule.saw_tip(B, tip_at(800))
    for height in range(800, 1_000 + LAST_CHANCE):
        assert not rule.saw_no_status(B, tip_at(height), tip_at(height).slot)
    rule.saw_valid(B, tip_at(1_000).slot)  # it has caught up with the blockhash
    tip = tip_at(1_000 + LAST_CHANCE)
    assert not rule.saw_no_status(B, tip, tip.slot)
    assert rule.saw_no_status(A, tip, tip.slot)


def test_a_node_of_another_cluster_has_no_say() -> None:
    """It never knew the blockhash; its heights are beyond every bound, and it finds nothing."""
    rule = known(A)
    rule.saw_tip(B, tip_at(5_000_000))
    assert rule.bound == 1_000 + LAST_CHANCE
    assert not any(rule.saw_no_status(B, tip_at(5_000_000), 10**9) for _ in range(10))


def test_blockhashes_that_nobody_knows_live_as_long_as_a_node_may_lag() -> None:
    """The highest first height of all nodes, how far that one may lag, and a blockhash's life."""
    rule = ExpiryRule(SLOTS)
    rule.saw_tip(A, tip_at(1_000))
    rule.saw_tip(A, tip_at(1_400))  # only the first block after it came counts
    rule.saw_tip(B, tip_at(1_100))
    assert rule.bound == 1_100 + LAST_CHANCE + SLOTS.lag_blocks
    assert SLOTS.lag_blocks > 200
    before, at = tip_at(rule.bound - 1), tip_at(rule.bound)
    assert not any(rule.saw_no_status(A, before, before.slot) for _ in range(5))
    assert not rule.saw_no_status(A, at, at.slot)
    assert rule.saw_no_status(B, at, at.slot)


def test_a_true_that_comes_late_replaces_the_guess() -> None:
    """Also where the guess was lower."""
    rule = ExpiryRule(SLOTS)
    rule.saw_tip(A, tip_at(1_000))
    guess = rule.bound
    assert guess is not None
    rule.saw_valid(A, tip_at(1_900).slot)
    assert rule.bound is None
    rule.saw_tip(A, tip_at(1_900))
    assert rule.bound == 1_900 + LAST_CHANCE > guess


def test_a_block_that_is_not_confirmed_may_stand_on_a_lost_branch() -> None:
    """It bounds what is longer than any branch; a confirmed one is exact."""
    rule = ExpiryRule(SLOTS)
    rule.saw_valid(A, tip_at(1_000).slot)
    rule.saw_tip(A, tip_at(998))
    rule.saw_tip(A, tip_at(1_000), confirmed=False)
    assert rule.bound == 1_000 + LAST_CHANCE + SLOTS.fork_blocks
    assert rule.is_bounded_by(A, confirmed=False)
    assert not rule.is_bounded_by(A)
    rule.saw_tip(A, tip_at(1_001))
    assert rule.bound == 1_001 + LAST_CHANCE
    assert rule.is_bounded_by(A)


def test_a_status_makes_earlier_silence_worthless() -> None:
    """Somebody knows it: it stands on some branch."""
    rule, tip = known(), tip_at(2_000)
    assert not rule.saw_no_status(A, tip, tip.slot)
    rule.saw_status()
    assert not rule.saw_no_status(A, tip, tip.slot)
    assert rule.saw_no_status(A, tip, tip.slot)


def test_heights_that_go_backwards_prove_nothing_earlier() -> None:
    """Load-balanced answers jump; what was read beyond the bound stays true, what is below it is no read."""
    rule = known()
    for height in (1_151, 900, 1_150, 1_000):
        tip = tip_at(height)
        rule.saw_tip(A, tip)
        assert not rule.saw_no_status(A, tip, tip.slot)
    assert rule.bound == 1_151
    tip = tip_at(1_151)
    assert rule.saw_no_status(A, tip, tip.slot)


def test_a_tip_is_wanted_while_it_could_tell_something() -> None:
    """Heights grow no faster than slots: until then, none need be asked for."""
    rule = ExpiryRule(SLOTS)
    assert rule.wants_tip(A, 1_000, 1_000), "its first"
    rule.saw_tip(A, tip_at(1_000))
    rule.saw_valid(A, tip_at(1_001).slot)
    assert rule.wants_tip(A, 1_000, 1_000), "one that bounds"
    rule.saw_tip(A, tip_at(1_001))
    assert not rule.wants_tip(A, 1_001, 1_001)
    assert not rule.wants_tip(A, 1_001, 1_151)
    assert rule.wants_tip(A, 1_001, 1_152), "the bound may be reached"
    assert not rule.wants_tip(A, 1_152, 1_160), "it is known to be"


def test_what_is_missing_is_told() -> None:
    """For people who wait."""
    rule = known()
    rule.saw_tip(A, tip_at(1_100))
    assert rule.explain() == "no block from height 1151 on takes it; the highest confirmed block seen is 1100"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_nodes_answer_a_landed_transaction_is_never_called_expired(seed: int) -> None:
    """A model chain, nodes behind load balancers that lag up to 250 slots: proof only when it has not landed."""
    rand = random.Random(seed)
    # Height by slot; some slots have no block.
    heights, height = [], 10_000
    for _ in range(3_000):
        height += rand.random() < 0.93
        heights.append(height)
    first_slot = 100_000
    born = rand.randrange(300, 600)  # the blockhash's slot, from the first
    while heights[born] == heights[born - 1]:
        born += 1
    last = next(slot for slot in range(born, len(heights)) if heights[slot] == heights[born] + LAST_CHANCE)
    lands_at = rand.choice([None, rand.randrange(born + 1, last + 1), last])
    urls = {url: [rand.choice([0, 0, 1, 30, 128, 200, 250]) for _ in range(rand.randrange(1, 4))] for url in range(3)}
    rule, proven_at, tips = ExpiryRule(SLOTS), None, dict.fromkeys(urls)
    for now in range(born, len(heights)):
        if proven_at is not None:
            break
        for url, lags in urls.items():
            if rand.random() < 0.4:
                continue

            def state(lags: list[int] = lags, now: int = now) -> int:
                return max(0, now - rand.choice(lags))

            slot = state()
            if not rule.is_known_to(url) and heights[born] <= heights[slot] <= heights[born] + 150 and slot >= born:
                rule.saw_valid(url, first_slot + slot)
            slot = max(0, state() - 1)
            tips[url] = Tip(first_slot + slot, heights[slot])
            rule.saw_tip(url, tips[url])
            slot = state()
            if lands_at is not None and slot >= lands_at:
                rule.saw_status()
                if slot > lands_at + 1:
                    return  # confirmed: nobody asks any more
            elif rule.saw_no_status(url, tips[url], first_slot + slot):
                proven_at = now
    assert proven_at is not None, "it did not land, and nobody ever proved it"
    assert lands_at is None, f"it landed in slot {lands_at}, and was called expired in {proven_at}"
    assert proven_at >= last


def test_slot_time_shortest_of_the_nodes_counts():
    slots = SlotTime()
    assert (slots.slot_s, slots.lag_blocks, slots.fork_blocks) == (0.2, 600, 64)
    slots.saw(A, 0.4)
    assert (slots.slot_s, slots.lag_blocks, slots.fork_blocks) == (0.4, 300, 32)
    slots.saw(B, 0.214)
    assert (slots.lag_blocks, slots.fork_blocks) == (561, 60)
    slots.saw(B, 0.5)
    assert slots.slot_s == 0.4


@pytest.mark.parametrize(("said", "believed"), [(0.0, 0.05), (-3.0, 0.05), (1e-9, 0.05), (1e9, 1.0), (0.3, 0.3)])
def test_slot_time_nonsense_counts_as_the_nearest_that_can_be_true(said: float, believed: float):
    slots = SlotTime()
    slots.saw(A, said)
    assert slots.slot_s == believed


def test_slot_time_seen_later_moves_the_bound_of_a_transaction_under_way():
    slots = SlotTime()
    rule = ExpiryRule(slots)
    rule.saw_tip(A, tip_at(1_000))
    assert rule.bound == 1_000 + LAST_CHANCE + 600
    slots.saw(A, 0.4)
    assert rule.bound == 1_000 + LAST_CHANCE + 300
