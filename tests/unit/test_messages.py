"""The wire classes as a schema: what both decoders and the encoder take from them."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import attrs
import pytest

from lasersell_sync import messages
from lasersell_sync.messages import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    ExitSignalWithTx,
    MarketContext,
    PnlUpdate,
    PumpFunContext,
    RequestExitSignal,
    UnknownMessage,
    WireValue,
)

KINDS = {"u64", "i64", "u32", "u16", "u8", "f64", "bool", "str", "object", "list", "str_list"}
CLASSES = [
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, WireValue) and attrs.has(value)
]


def sample(cls: type[WireValue], number: int = 5) -> WireValue:
    """An instance with a value of the right kind in every field."""
    return cls(**{spec.name: value_of(spec, number) for spec in cls.wire_fields})


def value_of(spec: Any, number: int) -> object:
    if spec.kind == "object":
        return sample(spec.cls, number)
    if spec.kind == "list":
        return (sample(spec.cls, number),)
    return {"f64": number / 2, "bool": True, "str": f"s{number}", "str_list": (f"s{number}",)}.get(spec.kind, number)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_schema_is_complete_and_in_order(cls: Any) -> None:
    """Every attribute has a wire field of a known kind, in the order of the class; references are to wire classes."""
    assert [spec.name for spec in cls.wire_fields] == [attribute.name for attribute in attrs.fields(cls)]
    assert cls.wire_names == tuple(spec.name for spec in cls.wire_fields)
    for spec in cls.wire_fields:
        assert spec.kind in KINDS
        assert (spec.cls is not None) == (spec.kind in ("object", "list"))
        assert spec.cls is None or issubclass(spec.cls, WireValue)
        assert not (spec.required and spec.omit_default)
        assert spec.accepts_one <= (spec.kind == "str_list")
    assert set(cls.wire_aliases.values()) <= set(cls.wire_names)


@pytest.mark.parametrize("cls", CLASSES)
def test_instances_can_be_filled_slot_by_slot(cls: Any) -> None:
    """No dictionary, no weak references, no work in the constructor: the compiled core relies on that."""
    value = sample(cls)
    assert not hasattr(value, "__dict__")
    assert not hasattr(value, "__weakref__")
    assert cls.__slots__ == cls.wire_names
    assert all(attribute.converter is None and attribute.validator is None for attribute in attrs.fields(cls))
    assert not hasattr(cls, "__attrs_post_init__")


@pytest.mark.parametrize("cls", CLASSES)
def test_values_behave_as_values(cls: Any) -> None:
    """Equal by content and class, hashable, frozen, keyword-only; copies and pickles are equal."""
    one, same, other = sample(cls), sample(cls), sample(cls, 6)
    assert one == same
    assert hash(one) == hash(same)
    assert one != "something else"
    assert (one == other) == (not cls.wire_names)
    for twin in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert twin == one
    assert repr(one).startswith(cls.__name__ + "(")
    if cls.wire_names:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(one, cls.wire_names[0], 1)
        with pytest.raises(TypeError):
            cls(1)


@pytest.mark.parametrize("cls", CLASSES)
def test_what_attrs_offers_works(cls: Any) -> None:
    """To attrs, and to whoever asks for the signature, each is a frozen class with keyword-only fields."""
    value = sample(cls)
    for attribute, spec in zip(attrs.fields(cls), cls.wire_fields, strict=True):
        assert attribute is getattr(attrs.fields(cls), spec.name)
        assert attribute.default == (attrs.NOTHING if spec.required else spec.default)
        assert (attribute.kw_only, attribute.type) == (True, cls.__annotations__[spec.name])
    assert attrs.asdict(value, recurse=False) == {name: getattr(value, name) for name in cls.wire_names}
    assert attrs.evolve(value) == value
    assert [p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY] == list(
        cls.wire_names
    )
    if cls.wire_names:
        name = cls.wire_names[0]
        changed = attrs.evolve(value, **{name: value_of(cls.wire_fields[0], 6)})
        assert [n for n in cls.wire_names if getattr(changed, n) != getattr(value, n)] == [name]
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            delattr(value, name)
    with pytest.raises((AttributeError, attrs.exceptions.FrozenInstanceError)):
        value.something_else = 1


@pytest.mark.parametrize("cls", CLASSES)
def test_the_constructor_takes_the_fields_and_nothing_else(cls: Any) -> None:
    """What is required must be there, what has a default need not, and a misspelt field is named."""
    required = {spec.name: value_of(spec, 5) for spec in cls.wire_fields if spec.required}
    made = cls(**required)
    assert [getattr(made, s.name) for s in cls.wire_fields if not s.required] == [
        s.default for s in cls.wire_fields if not s.required
    ]
    for name in required:
        with pytest.raises(TypeError, match=f"{cls.__name__}\\(\\) is missing {name}\\."):
            cls(**{other: value for other, value in required.items() if other != name})
    with pytest.raises(TypeError, match="no field misspelt"):
        cls(**required, misspelt=1)
    with pytest.raises(TypeError, match="no field misspelt"):
        cls(misspelt=1)  # the mistake, not the fields that are missing because of it


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: messages.StrategyConfig(15, 10), r"Write StrategyConfig\(target_profit_pct=…, stop_loss_pct=…\)"),
        (lambda: messages.WatchWallet("SECRET"), r"Write WatchWallet\(pubkey=…\)"),
        (lambda: messages.PumpFunContext(1), r"Write PumpFunContext\(\)"),
        (lambda: messages.StrategyConfig(target_profit=15, stop_loss_pct=1), "did you mean target_profit_pct"),
        (lambda: messages.TakeProfitLevel(profit=15, sell_pct=1), "did you mean profit_pct"),
        (lambda: messages.WatchWallet(wallet="w"), r"no field wallet.*Its fields: pubkey, auto_buy, mirror_sell"),
    ],
)
def test_message_constructor_names_the_mistake_and_not_the_value(make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        make()
    assert "SECRET" not in str(caught.value)
    assert "WireValue" not in str(caught.value)


def test_bases_are_no_attrs_classes() -> None:
    """They have no fields, and asking them must not spoil the answers of what is derived from them."""
    for base in (WireValue, messages.ServerValue, messages.ClientValue):
        assert not attrs.has(base)
    assert attrs.has(PnlUpdate)
    assert len(attrs.fields(PnlUpdate)) == len(PnlUpdate.wire_fields)


def test_equality_asks_for_the_class() -> None:
    """Two classes with equal fields are not equal."""
    pairs = (messages.MeteoraDbcContext(pool="p", config="c", quote_mint="q"), messages.MeteoraDammV2Context(pool="p"))
    assert pairs[0] != pairs[1]
    assert PumpFunContext() == PumpFunContext()


def test_the_tables_name_every_message_once() -> None:
    """13 server and 9 client messages; old clients' sell_now is the one other spelling."""
    assert len(SERVER_MESSAGES) == 13
    assert len(CLIENT_MESSAGES) == 10
    assert CLIENT_MESSAGES["sell_now"] is RequestExitSignal
    for name, cls in {**SERVER_MESSAGES, **CLIENT_MESSAGES}.items():
        assert cls.type == name or name == "sell_now"  # type: ignore[attr-defined]


def test_long_texts_stay_out_of_a_repr() -> None:
    """An unsigned transaction is told by its length: a repr ends up in logs."""
    message = attrs.evolve(sample(ExitSignalWithTx), unsigned_tx_b64="A" * 900)  # type: ignore[type-var]
    assert "AAAA" not in repr(message)
    assert "900 characters" in repr(message)
    assert repr(UnknownMessage("new", b"x" * 5000)) == "UnknownMessage(type='new', raw=<5000 bytes>)"


def test_defaults_are_what_absent_means() -> None:
    message = PnlUpdate(position_id=1, profit_units=2, proceeds_units=3, server_time_ms=4)
    assert (message.token_price_quote, message.market_cap_quote, message.watched) == (None, None, False)
    assert MarketContext(market_type="x").pumpswap is None


def test_all_is_complete() -> None:
    assert {cls.__name__ for cls in CLASSES} <= set(messages.__all__)
