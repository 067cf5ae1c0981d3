"""Layout files: what they add, and what they cannot do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.exceptions import ConfigurationError, UnsafeTransactionError
from lasersell_sync.messages import MarketContext, PumpSwapContext
from lasersell_sync.sandbox.chain.addresses import WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.anchor import discriminator
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.programs import _FIELDS
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest
from tests.support.market_transactions import stranger
from tests.unit.test_guard_formats import COIN, PUMP_FUN, THIEF, TRADES, US, account, in_out, instruction, transaction

MARKET = stranger(40)
POOL = stranger(41)
SELL = {"user": 1, "pool": 0, "from": 4, "to": 5, "mints": [2, 3], "in": 8, "out": 16}
SYSTEM = "11111111111111111111111111111111"


def layout_file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "layouts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def market(**changes: Any) -> dict[str, Any]:
    swap = {**SELL, **changes}
    return {"programs": {"my_market": {"address": str(MARKET), "swaps": {"sell_all": swap}}}}


def call(prefix: bytes | None = None, data: bytes = in_out(1_000, 900), **changes: Pubkey) -> str:
    keys = {"pool": POOL, "user": US, "coin": COIN, "quote": WRAPPED_SOL_MINT, "paid": account(US, COIN),
            "got": account(US, WRAPPED_SOL_MINT), **changes}  # fmt: skip
    metas = [AccountMeta(key, key == US, True) for key in keys.values()]
    prefix = discriminator("sell_all") if prefix is None else prefix
    return transaction(Instruction(MARKET, prefix + data, metas))


REQUEST = BuildSellTxRequest(str(COIN), str(US), 1_000, "SOL", 500)  # type: ignore[arg-type]


def broken(guard: SigningGuard, text: str) -> tuple[str, ...]:
    return guard.explain(text, wallet=str(US), request=REQUEST).broken


def test_layout_file_makes_an_unknown_program_readable_and_every_rule_apply(tmp_path: Path):
    path = layout_file(tmp_path, market())
    assert broken(SigningGuard(), call()) == ("program", "mint")
    for guard in (SigningGuard(layouts=path), SigningGuard(layouts=str(path))):
        guard.check(call(), wallet=str(US), request=REQUEST)
        assert "my_market.sell_all: pays at most 1000 units" in str(guard.explain(call()))
        assert broken(guard, call(got=THIEF)) == ("own_account",)
        assert broken(guard, call(user=THIEF)) == ("own_account",)
        assert broken(guard, call(data=in_out(1_001, 900))) == ("amount",)
        assert broken(guard, call(data=in_out(1_000, 0))) == ("price",)
        assert broken(guard, call(coin=stranger(5), paid=account(US, stranger(5)))) == ("mint",)
        assert broken(guard, call(prefix=discriminator("other"))) == ("instruction", "mint")
        assert broken(guard, call(data=in_out(1_000, 900)[:15])) == ("instruction", "mint")


def test_layout_file_of_the_environment_is_read_by_guards_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = layout_file(tmp_path, market())
    early = SigningGuard()
    monkeypatch.setenv("LASERSELL_GUARD_LAYOUTS", str(path))
    for guard in (early, SigningGuard()):
        guard.check(call(), wallet=str(US), request=REQUEST)
    own = tmp_path / "own"
    own.mkdir()
    other = {"programs": {"another": {"address": str(stranger(43)), "swaps": {"sell": SELL}}}}
    assert "program" in broken(SigningGuard(layouts=layout_file(own, other)), call())
    monkeypatch.setenv("LASERSELL_GUARD_LAYOUTS", str(tmp_path / "missing"))
    late = SigningGuard()  # says nothing yet: programs that sign nothing must start
    for action in (late.load, lambda: late.check(call(), wallet=str(US))):
        with pytest.raises(ConfigurationError, match="missing: it cannot be read"):
            action()


def test_layout_file_adds_an_instruction_to_a_packaged_market(tmp_path: Path):
    sale = next(trade for trade in TRADES if trade.name == "sell_v2")
    fields = {
        "user": sale.user,
        "from": sale.paid,
        "to": sale.got,
        "mints": [sale.coin, sale.quote],
        "in": 8,
        "out": 16,
    }
    path = layout_file(tmp_path, {"programs": {"pump_fun": {"address": PUMP_FUN, "swaps": {"sell_v9": fields}}}})
    guard = SigningGuard(layouts=path)
    item = instruction(sale)
    v9 = Instruction(item.program_id, discriminator("sell_v9") + bytes(item.data)[8:], item.accounts)
    assert broken(SigningGuard(), transaction(v9)) == ("instruction", "mint")
    assert broken(guard, transaction(v9)) == ()
    assert broken(guard, transaction(item)) == ()


def test_layout_file_describes_short_prefixes_modes_fees_and_either_way(tmp_path: Path):
    content = market(prefix="0x09", **{"in": [1, 9], "out": [9, 1]}, mode=17, zero=18, accounts=6)
    content["programs"]["my_market"]["prefix_bytes"] = 1
    guard = SigningGuard(layouts=layout_file(tmp_path, content))

    def data(first: int, second: int, mode: int, fee: int = 0) -> bytes:
        return in_out(first, second) + bytes([mode]) + fee.to_bytes(8, "little")

    assert broken(guard, call(b"\x09", data(1_000, 900, 0))) == ()
    assert broken(guard, call(b"\x09", data(900, 1_000, 1))) == ()
    assert broken(guard, call(b"\x09", data(900, 1_001, 1))) == ("amount",)
    assert broken(guard, call(b"\x09", data(1_000, 900, 2))) == ("price",)
    assert broken(guard, call(b"\x09", data(1_000, 900, 0, fee=1))) == ("own_account",)
    assert "instruction" in broken(guard, call(b"\x0a", data(1_000, 900, 0)))
    assert "instruction" in broken(guard, call(b"\x09", data(1_000, 900, 0)[:-1]))


def test_layout_file_with_too_few_accounts_in_the_transaction_is_refused(tmp_path: Path):
    guard = SigningGuard(layouts=layout_file(tmp_path, market(accounts=7)))
    assert "instruction" in broken(guard, call())
    assert broken(guard, call(more=stranger(9))) == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("[]", "the file: list is not an object"),
        ("{", "not JSON"),
        ('{"programs": {}, "programs": {}}', "'programs' is there twice"),
        ({}, "programs: nothing is in it"),
        ({"programs": {}}, "programs: nothing is in it"),
        ({**market(), "allow": []}, "allow: this field is not one of about, programs"),
        ({"programs": {"m": []}}, "programs.m: list is not an object"),
        ({"programs": {"My Market": market()["programs"]["my_market"]}}, "lower-case letters"),
        ({"programs": {"m": {"swaps": {"sell": SELL}}}}, "programs.m.address"),
        ({"programs": {"m": {"address": "x", "swaps": {"sell": SELL}}}}, "programs.m.address"),
        ({"programs": {"m": {"address": str(MARKET)}}}, "programs.m.swaps: nothing is in it"),
        ({"programs": {"m": {"address": str(MARKET), "swaps": {}}}}, "programs.m.swaps: nothing is in it"),
        ({"programs": {"m": {"address": str(MARKET), "swaps": {"s": 5}}}}, "programs.m.swaps.s: 5 is not an object"),
        ({"programs": {"m": {"address": str(MARKET), "prefix_bytes": 0, "swaps": {"s": SELL}}}}, "prefix_bytes: 0"),
        ({"programs": {"m": {"address": str(MARKET), "prefix_bytes": 9, "swaps": {"s": SELL}}}}, "prefix_bytes: 9"),
        ({"programs": {"m": {"address": str(MARKET), "prefix_bytes": True, "swaps": {"s": SELL}}}}, "prefix_bytes"),
        ({"programs": {"m": {"address": str(MARKET), "prefix_bytes": 1, "swaps": {"s": SELL}}}}, "prefix: None"),
        ({"programs": {"m": {"address": str(MARKET), "allowed": {}, "swaps": {"s": SELL}}}}, "allowed: this field"),
        (market(prefix="0x01"), "prefix: '0x01' is not 8 bytes"),
        (market(prefix="0xzz"), "prefix: '0xzz'"),
        (market(color=1), "color: 1 is not one of the fields"),
        (market(user=-1), "user: -1 is not a whole number"),
        (market(user=255), "user: 255 is not a whole number from 0 to 254"),
        (market(user=True), "user: True"),
        (market(user=None), "user: None"),
        (market(pool="0"), "pool: '0'"),
        (market(mints=[2]), "mints: [2] is not a list of two"),
        (market(mints="SOL"), "mints: 'SOL' is not a list of two"),
        (market(mints=[2, "USD1"]), "mints: 'USD1'"),
        (market(to=None), "to: None is not an account, for its mint is not SOL"),
        (market(**{"from": None}), "from: None is not an account"),
        (market(**{"in": 7}), "in: 7 is not 8 or more"),
        (market(**{"in": 4_089}), "in: 4089 is not a whole number from 0 to 4088"),
        (market(**{"in": [8]}), "in: [8] is not a position, or a list of two or more"),
        (market(**{"in": [8, 16]}), "out: 16 is not as long as 'in'"),
        (market(**{"in": [8, 16], "out": [16, 8]}), "mode: None is not given"),
        (market(mode=24), "mode: 24 is not given where"),
        (market(either_way=1), "either_way: 1 is not true or false"),
        (market(either_way=True, to=None, mints=[2, "SOL"]), "either_way: 'true' is not possible with SOL"),
        (market(zero=1), "zero: 1 is not 8 or more"),
        (market(accounts=300), "accounts: 300"),
    ],
)  # fmt: skip
def test_layout_file_of_another_format_is_refused_with_its_place(tmp_path: Path, content: object, words: str):
    path = layout_file(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard(layouts=path)
    assert caught.value.field == "layouts"
    assert str(path) in caught.value.problem
    assert words in caught.value.problem


@pytest.mark.parametrize("missing", ["user", "from", "to", "mints", "in", "out"])
def test_layout_file_without_a_needed_field_is_refused(tmp_path: Path, missing: str):
    content = market()
    del content["programs"]["my_market"]["swaps"]["sell_all"][missing]
    with pytest.raises(ConfigurationError, match=f"sell_all.{missing}: None is not given"):
        SigningGuard(layouts=layout_file(tmp_path, content))


def entry(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "swaps": {"sell": SELL}, **more}


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ({"pump_fun": entry(PUMP_FUN)}, "0x33e685a4017f83ad is known already, as pump_fun.sell"),
        ({"pump_fun": {"address": PUMP_FUN, "swaps": {"x": {**SELL, "prefix": "0x33e685a4017f83ad"}}}}, "as pump_fun.sell"),
        ({"my_pump": entry(PUMP_FUN)}, "the program is known as pump_fun"),
        ({"pump_fun": entry(str(MARKET))}, "another program has this name"),
        ({"pump_fun": entry(PUMP_FUN, prefix_bytes=4)}, "prefix_bytes: 4 is not 8, as it is packaged"),
        ({"system": entry(SYSTEM)}, "Solana's own system program"),
        ({"s": entry(SYSTEM)}, "Solana's own system program"),
        ({"token": entry("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")}, "Solana's own token program"),
        ({"token_2022": entry("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")}, "Solana's own token_2022 program"),
        ({"loader": entry("BPFLoaderUpgradeab1e11111111111111111111111")}, "Solana's own upgradeable_loader program"),
        ({"stake": entry("Stake11111111111111111111111111111111111111")}, "Solana's own stake program"),
        ({"a": entry(str(MARKET)), "b": entry(str(MARKET))}, "the program is known as a"),
        ({"m": {"address": str(MARKET), "swaps": {"a": {**SELL, "prefix": "0x" + "01" * 8},
                                                 "b": {**SELL, "prefix": "0x" + "01" * 8}}}}, "known already, as m.a"),
    ],
)  # fmt: skip
def test_layout_file_cannot_redefine_what_is_packaged_or_refused(tmp_path: Path, programs: dict[str, Any], words: str):
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard(layouts=layout_file(tmp_path, {"programs": programs}))
    assert words in caught.value.problem


def test_layout_file_does_not_change_other_guards(tmp_path: Path):
    SigningGuard(layouts=layout_file(tmp_path, market())).check(call(), wallet=str(US), request=REQUEST)
    with pytest.raises(UnsafeTransactionError):
        SigningGuard().check(call(), wallet=str(US), request=REQUEST)


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_layout_file_that_anybody_may_write_is_refused(tmp_path: Path):
    path = layout_file(tmp_path, market())
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="chmod o-w"):
        SigningGuard(layouts=path)
    path.chmod(0o664)
    SigningGuard(layouts=path)


def test_layout_file_that_is_no_file_or_too_long_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        SigningGuard(layouts=tmp_path)
    path = tmp_path / "long.json"
    path.write_text(" " * 1_048_577)
    with pytest.raises(ConfigurationError, match="longer than"):
        SigningGuard(layouts=path)


def test_layout_of_a_program_that_calls_markets_is_held_to_the_announced_pool(tmp_path: Path):
    """It is no market, so that its name is not the announced one's; the pool must be among its accounts."""
    guard = SigningGuard(layouts=layout_file(tmp_path, market(calls_market=True)))
    plain = SigningGuard(layouts=layout_file(tmp_path, market()))
    context = MarketContext(market_type="pump_swap", pumpswap=PumpSwapContext(pool=str(POOL)))
    asked = attrs.evolve(REQUEST, market_context=context)
    assert guard.explain(call(), wallet=str(US), request=asked).broken == ()
    assert plain.explain(call(), wallet=str(US), request=asked).broken == ("pool",)
    assert guard.explain(call(pool=stranger(9)), wallet=str(US), request=asked).broken == ("pool",)


def test_the_page_of_layouts_has_every_field_and_its_example_works(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "guard-layouts.md").read_text()
    assert [field for field in sorted(_FIELDS) if f"| `{field}` |" not in page] == []
    example = page.partition("```json\n")[2].partition("```")[0]
    example = example.replace("MyMarket11111111111111111111111111111111111", str(MARKET))
    SigningGuard(layouts=layout_file(tmp_path, example))


def test_layout_of_an_opaque_program_is_read_and_its_other_instructions_stay_opaque(tmp_path: Path):
    """The LaserSell Router is opaque only as long as nobody describes it."""
    content = market(calls_market=True)
    guard = SigningGuard(layouts=layout_file(tmp_path, content), service_programs=[str(MARKET)], opaque="refuse")
    undescribed = SigningGuard(service_programs=[str(MARKET)], opaque="refuse")
    assert broken(guard, call()) == ()
    assert broken(guard, call(got=THIEF)) == ("own_account",)
    assert "opaque" in broken(guard, call(prefix=discriminator("other")))
    assert "opaque" in broken(undescribed, call())
