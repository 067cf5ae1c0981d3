"""Where an HTTP answer ends, found while its bytes arrive in pieces of any size."""

from __future__ import annotations

import random

import pytest

from lasersell_sync.network.http_endpoint import parse_endpoint
from lasersell_sync.network.http_framing import AnswerFraming, HttpFailure, plain_answer
from lasersell_sync.network.http_pool import HttpPool

MAX_BODY_BYTES = 1_000
HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = b'{"result":"x"}'
SIZED = HEAD + b"Content-Length: 14\r\n\r\n" + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\n" + BODY[:5] + b"\r\n9\r\n" + BODY[5:] + b"\r\n0\r\n"

#: Complete answers, and the bodies that they have.
ANSWERS = {
    "sized": (SIZED, BODY),
    "line feeds alone": (SIZED.replace(b"\r\n", b"\n"), BODY),
    "no body": (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    "chunked": (CHUNKED + b"\r\n", BODY),
    "chunked with trailers": (CHUNKED + b"X-Sum: 1\r\nX-More: 2\r\n\r\n", BODY),
    "interim first": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + SIZED, BODY),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "429": (b"HTTP/1.1 429 Slow\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\nno", b"no"),
}


@pytest.fixture(scope="module")
def pool() -> HttpPool:
    return HttpPool(parse_endpoint("url", "http://127.0.0.1:9"), connect_timeout_s=1, attempt_timeout_s=1)


def pieces_of(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.sample(range(1, len(data)), chance.randrange(0, min(9, len(data) - 1))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("kind", ANSWERS)
def test_framing_answer_byte_by_byte_ends_with_its_last_byte(kind: str, pool: HttpPool) -> None:
    answer, body = ANSWERS[kind]
    framing = AnswerFraming(MAX_BODY_BYTES)
    ends = [framing.feed(answer[place : place + 1]) for place in range(len(answer))]
    assert ends == [False] * (len(answer) - 1) + [True]
    read, is_reusable = pool.read(bytes(framing.received))
    assert (read.body, is_reusable) == (body, True)


@pytest.mark.parametrize("kind", ANSWERS)
def test_framing_answer_in_random_pieces_ends_once(kind: str, pool: HttpPool) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    answer, body = ANSWERS[kind]
    for _ in range(50):
        framing = AnswerFraming(MAX_BODY_BYTES)
        *firsts, last = pieces_of(answer, chance)
        assert not any(framing.feed(piece) for piece in firsts)
        assert framing.feed(last)
        assert pool.read(bytes(framing.received))[0].body == body


@pytest.mark.parametrize("kind", ANSWERS)
def test_framing_bytes_behind_the_answer_end_its_connection(kind: str, pool: HttpPool) -> None:
    framing = AnswerFraming(MAX_BODY_BYTES)
    assert framing.feed(ANSWERS[kind][0] + b"HTTP/1.1 200 OK\r\n")
    assert pool.read(bytes(framing.received))[1] is False


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 64,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        HEAD + b"x" * 70_000,
        HEAD + b"x: y\r\n" * 20_000 + b"\r\n",
        HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * 200_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b"x" * 9_000_000,
    ],
)
def test_framing_hopeless_answer_ends_at_once_and_is_a_failure(wrong: bytes) -> None:
    """It is not waited for until its time is over, nor collected for ever."""
    framing = AnswerFraming(MAX_BODY_BYTES)
    assert framing.feed(wrong)
    small = HttpPool(
        parse_endpoint("url", "http://127.0.0.1:9"), connect_timeout_s=1, attempt_timeout_s=1, max_body_bytes=1_000
    )
    with pytest.raises(HttpFailure):
        small.read(bytes(framing.received))


@pytest.mark.parametrize("length", [None, b"x", b"-3", b"9" * 5000])
def test_framing_answer_without_a_length_ends_with_its_connection(length: bytes | None, pool: HttpPool) -> None:
    framing = AnswerFraming(MAX_BODY_BYTES)
    header = b"" if length is None else b"Content-Length: " + length + b"\r\n"
    assert not framing.feed(HEAD + header + b"\r\n" + BODY)
    read, is_reusable = pool.read(bytes(framing.received))
    assert (read.body, is_reusable) == (BODY, False)


#: Answers that look plain at first sight.
NOT_PLAIN = {
    "another status": SIZED.replace(b"200", b"201"),
    "HTTP/1.0": SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "closes": HEAD + b"Connection: close\r\nContent-Length: 14\r\n\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 14\r\nContent-Length: 14\r\n\r\n" + BODY,
    "chunked, too": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 14\r\n\r\n" + BODY,
    "compressed": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 14\r\n\r\n" + BODY,
    "folded": HEAD + b"X: 1\r\n 2\r\nContent-Length: 14\r\n\r\n" + BODY,
    "spaced name": HEAD + b"Content-Length : 14\r\n\r\n" + BODY,
    "length of more digits than Python reads": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + BODY,
    "signed length": HEAD + b"Content-Length: +14\r\n\r\n" + BODY,
    "cut short": SIZED[:-1],
    "followed": SIZED + b"x",
    "no head end": HEAD + b"Content-Length: 14\r\n",
    "no length": HEAD + b"X: 1\r\n\r\n",
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_plain_answer_anything_unusual_is_left_to_the_library(kind: str) -> None:
    assert plain_answer(NOT_PLAIN[kind], MAX_BODY_BYTES) is None


@pytest.mark.parametrize("extra", [b"", b"Connection: Keep-Alive\r\n", b"Date: now \r\nServer: x: y\r\n"])
def test_plain_answer_reads_what_the_library_reads(extra: bytes, pool: HttpPool) -> None:
    answer = HEAD + extra + b"Content-Length: 14\r\n\r\n" + BODY
    plain = plain_answer(answer, MAX_BODY_BYTES)
    read, is_reusable = pool.read(answer)
    assert is_reusable
    assert plain is not None
    assert (plain.status, dict(plain.headers), plain.body) == (read.status, dict(read.headers), read.body)


def test_plain_answer_beyond_the_limit_is_left_to_the_library() -> None:
    assert plain_answer(SIZED, 13) is None
