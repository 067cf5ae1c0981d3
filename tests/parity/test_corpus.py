"""Both decoders against the reference implementation's verdict on every message of the corpus."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lasersell_sync.codec import message_to_dict
from lasersell_sync.exceptions import DecodeError
from lasersell_sync.messages import UnknownMessage
from tests.parity import corpus
from tests.parity.cores import PURE, compiled, core, cores, decoder, outcome

SIDES = ("server", "client")


def expanded(value: Any) -> Any:
    """{"$repeat": [text, n]} stands for text * n."""
    if isinstance(value, dict):
        if set(value) == {"$repeat"}:
            return value["$repeat"][0] * value["$repeat"][1]
        return {key: expanded(item) for key, item in value.items()}
    return [expanded(item) for item in value] if isinstance(value, list) else value


def without_absent(value: Any, side: str, *, top: bool = True) -> Any:
    """The reference writes some absent values (``null``, false ``watched``) that we leave out; they mean the same."""
    if isinstance(value, list):
        return [without_absent(item, side, top=False) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: without_absent(item, side, top=False)
        for key, item in value.items()
        if item is not None and not (top and side == "server" and key == "watched" and item is False)
    }


def equal(expected: Any, got: Any) -> bool:
    """Equal in kind too; the reference's float parser may be off by two units in the last place, its corpus by four."""
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and expected.keys() == got.keys()
            and all(equal(item, got[key]) for key, item in expected.items())
        )
    if isinstance(expected, list):
        return isinstance(got, list) and len(expected) == len(got) and all(map(equal, expected, got))
    if isinstance(expected, float):
        return isinstance(got, float) and math.isfinite(got) and abs(got - expected) <= 4 * math.ulp(expected)
    if isinstance(got, float) and type(expected) is int:
        return got == expected
    return type(expected) is type(got) and bool(expected == got)


def mismatch(case: dict[str, Any], decode: Any, data: object) -> str | None:
    """What is wrong about the decoder's answer, or None."""
    policy, verdict = case["client_policy"], case["verdict"]
    try:
        message = decode(data)
    except DecodeError as error:
        if policy == "either" or (policy == "same" and verdict == "err"):
            return None
        return f"rejected: {error}"
    if policy == "unknown":
        return None if isinstance(message, UnknownMessage) else "not recognised as unknown"
    if policy == "either":
        return "accepted; where the client may choose, ours rejects" if verdict == "err" else None
    if policy == "same" and verdict == "err":
        return f"accepted: {message!r:.80}"
    expected = expanded(case["canonical"] if verdict == "ok" else case["client_canonical"])
    got = message_to_dict(message)
    return None if equal(without_absent(expected, case["side"]), got) else f"expected {expected}, got {got}"


@pytest.mark.parametrize("form", ["bytes", "text"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", cores())
def test_verdict_and_value_of_every_case(name: str, side: str, form: str) -> None:
    """No message of the corpus is read otherwise than its line says."""
    decode = decoder(core(name), side).decode
    wrong = []
    for case in corpus.cases():
        if case["side"] != side:
            continue
        data = case["data"]
        if form == "text":
            try:
                data = data.decode()
            except UnicodeDecodeError:
                continue  # not a str to begin with
        problem = mismatch(case, decode, data)
        if problem is not None:
            wrong.append(f"{case['id']} ({case['note']}): {problem}")
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("side", SIDES)
def test_both_cores_agree_in_every_detail(side: str) -> None:
    """Value, reason, path and offset are the same, also where a client may choose."""
    pure, fast = decoder(PURE, side).decode, decoder(compiled(), side).decode
    wrong = [
        f"{case['id']}: pure {outcome(pure, case['data'])!r:.200}, compiled {outcome(fast, case['data'])!r:.200}"
        for case in corpus.cases()
        if case["side"] == side and outcome(pure, case["data"]) != outcome(fast, case["data"])
    ]
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("name", cores())
def test_what_clients_may_choose_is_rejected(name: str) -> None:
    """Duplicate fields, 1.0 and -0 for integers, deep nesting and positional forms are errors, here and there alike."""
    reasons = ("duplicate", "integral float", "-0", "positional", "levels", "range", "surrogate")
    decoders = {side: decoder(core(name), side).decode for side in SIDES}
    chosen = [
        case
        for case in corpus.cases()
        if case["client_policy"] == "either" and any(word in case["policy_reason"] + case["note"] for word in reasons)
    ]
    assert len(chosen) > 50
    accepted = [case for case in chosen if outcome(decoders[case["side"]], case["data"])[0] != "error"]  # type: ignore[index]
    # What stays: equal keys that are no field's name, which no reader of ours looks at.
    assert {case["policy_reason"] for case in accepted} <= {"duplicate keys (in a place serde ignores)"}
