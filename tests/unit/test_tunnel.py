"""The dialogues with proxies, byte by byte and without a network."""

from __future__ import annotations

import random

import pytest

from lasersell_sync.network.proxy import MAX_HEAD_BYTES, TunnelRefused, open_tunnel, parse_proxy, preferred_address
from tests.support.links import whole_text
from tests.support.proxies import PASSWORD_IN_URL

HTTP = f"http://me:{PASSWORD_IN_URL}@proxy:1"
SOCKS = f"socks5h://me:{PASSWORD_IN_URL}@proxy:1"
SOCKS_GRANTED = b"\x05\x02" + b"\x01\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"


class Script:
    """A channel whose other side says ``data`` and then ends the connection."""

    def __init__(self, data: bytes) -> None:
        self.left = data
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        data, self.left = self.left[:size], self.left[size:]
        return data

    def close(self) -> None:
        pass


def refusal(url: str, data: bytes, host: str = "stream.test") -> str:
    with pytest.raises(TunnelRefused) as caught:
        open_tunnel(parse_proxy("proxy", url), Script(data), host, 443)
    assert "canary" not in whole_text(caught.value)
    return str(caught.value)


def test_connect_says_what_rfc_9110_wants():
    """One request with the target in authority form, and the password in one header only."""
    channel = Script(b"HTTP/1.1 200 OK\r\n\r\n")
    open_tunnel(parse_proxy("proxy", "http://Aladdin:open%20sesame@proxy:1"), channel, "::1", 443)
    request, *headers = channel.sent.decode().split("\r\n")
    assert request == "CONNECT [::1]:443 HTTP/1.1"
    assert "Host: [::1]:443" in headers
    assert "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==" in headers
    assert channel.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        (HTTP, b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n"),
        (HTTP, b"HTTP/1.0 204 \n\n"),
        (SOCKS, SOCKS_GRANTED),
        (SOCKS, b"\x05\x00" + b"\x05\x00\x00\x04" + bytes(18)),
        (SOCKS, b"\x05\x00" + b"\x05\x00\x00\x03\x01a\x00\x50"),
    ],
)
def test_what_follows_the_answer_stays_on_the_socket(url: str, answer: bytes):
    """A target that speaks first is heard: no byte beyond the proxy's own answer is read."""
    channel = Script(answer + b"the target")
    open_tunnel(parse_proxy("proxy", url), channel, "stream.test", 443)
    assert channel.left == b"the target"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 canary\r\n\r\n", "refused the user or password"),
        (b"HTTP/1.1 403 canary\r\n\r\n", "does not allow connections to stream.test:443"),
        (b"HTTP/1.1 502 canary\r\n\r\n", "could not reach stream.test:443"),
        (b"HTTP/1.1 302 canary\r\nlocation: http://canary\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 100 canary\r\n\r\n", "without an answer"),
        (b"HTTP/1.1 103 canary\r\n\r\nHTTP/1.1 407 canary\r\n\r\n", "refused the user or password"),
        (b"HTTP/1.1 101 canary\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP 101"),
        (b"HTTP/1.1\r\n\r\n", "no HTTP status"),
        (b"HTTP/1.1 2OO OK\r\n\r\n", "no HTTP status"),
        (b"\x05\xff", "not HTTP"),
        (b"SSH-2.0-canary\r\n", "not HTTP"),
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\n", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD_BYTES, "longer than"),
    ],
)
def test_each_refusal_of_connect_has_its_words(answer: bytes, words: str):
    """Ours, for the proxy's own may quote the request."""
    assert words in refusal(HTTP, answer)


def test_a_proxy_that_wants_a_name_says_so():
    """The user forgot the credentials, which is not the same as wrong ones."""
    assert "asks for a user and a password" in refusal("http://proxy:1", b"HTTP/1.1 407 x\r\n\r\n")
    assert "asks for a user and a password" in refusal("socks5h://proxy:1", b"\x05\xff")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x05\xff", "another kind of login"),
        (b"\x05\x02\x01\x01", "refused the user or password"),
        (b"\x05\x00\x05\x05\x00\x01" + bytes(6), "stream.test:443 refused its connection"),
        (b"\x05\x00\x05\x02\x00\x01" + bytes(6), "does not allow"),
        (b"\x05\x00\x05\x04\x00\x01" + bytes(6), "finds stream.test:443 unreachable"),
        (b"\x05\x00\x05\x63\x00\x01" + bytes(6), "not SOCKS5"),
        (b"\x05\x07", "not SOCKS5"),
        (b"HTTP/1.1 400 canary", "not SOCKS5"),
        (b"", "without an answer"),
        (b"\x05\x02", "without an answer"),
    ],
)
def test_each_refusal_of_socks_has_its_words(answer: bytes, words: str):
    """User and password, the target, or not a SOCKS proxy at all."""
    assert words in refusal(SOCKS, answer)


@pytest.mark.parametrize(("url", "answer"), [(HTTP, b"HTTP/1.1 200 OK\r\n\r\n"), (SOCKS, SOCKS_GRANTED)])
def test_garbage_is_always_a_refusal(url: str, answer: bytes, rand: random.Random):
    """Whatever bytes come, truncated or flipped: TunnelRefused or a tunnel, nothing else, and no password."""
    proxy = parse_proxy("proxy", url)
    for _ in range(2000):
        data = bytearray(answer[: rand.randrange(len(answer) + 1)])
        for _ in range(rand.randrange(3)):
            if data:
                data[rand.randrange(len(data))] = rand.randrange(256)
        refused: BaseException | None = None
        try:
            open_tunnel(proxy, Script(bytes(data)), "stream.test", 443)
        except TunnelRefused as error:
            refused = error
        assert refused is None or "canary" not in whole_text(refused)


def test_a_local_look_up_prefers_ipv4():
    """Few proxies reach IPv6 targets."""
    six, four = (10, 1, 6, "", ("::1", 443, 0, 0)), (2, 1, 6, "", ("127.0.0.1", 443))
    assert preferred_address([six, four]) == "127.0.0.1"
    assert preferred_address([six]) == "::1"
