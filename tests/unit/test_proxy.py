"""Proxy URLs and the environment: what is understood, what is refused, and that no password is ever shown."""

from __future__ import annotations

import importlib.util
import os

import attrs
import pytest

from lasersell_sync import ConfigurationError, ExitApiClientOptions, SendTargetRpc, StreamOptions
from lasersell_sync.network.proxy import Proxy, parse_proxy, proxy_from_environment
from tests.support.links import whole_text
from tests.support.proxies import PASSWORD, PASSWORD_IN_URL


@pytest.fixture(autouse=True)
def _no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy", Proxy("http", "proxy", 80)),
        ("HTTP://Proxy:3128/", Proxy("http", "proxy", 3128)),
        ("socks5://proxy", Proxy("socks5", "proxy", 1080)),
        ("socks5h://[::1]:9050", Proxy("socks5h", "::1", 9050)),
        (f"http://me:{PASSWORD_IN_URL}@proxy:1", Proxy("http", "proxy", 1, "me", PASSWORD)),
        ("http://me@proxy:1", Proxy("http", "proxy", 1, "me", None)),
    ],
)
def test_a_proxy_url_is_taken_apart(url: str, expected: Proxy):
    """Scheme, host, port, and percent-decoded credentials."""
    assert parse_proxy("proxy", url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:3128",
        f"https://me:{PASSWORD_IN_URL}@proxy:1",
        f"socks4://me:{PASSWORD_IN_URL}@proxy:1",
        f"http://me:{PASSWORD_IN_URL}@",
        f"http://me:{PASSWORD_IN_URL}@proxy:0",
        f"http://me:{PASSWORD_IN_URL}@proxy:port",
        f"http://me:{PASSWORD_IN_URL}@proxy:99999",
        f"http://me:{PASSWORD_IN_URL}@[::1",
        f"http://me:{PASSWORD}@proxy:1",  # the slash was not encoded
        f"http://me:{PASSWORD_IN_URL}#@proxy:1",
        f"http://me:{PASSWORD_IN_URL}@proxy:1/path",
        f"http://me:{PASSWORD_IN_URL}@proxy:1?x",
        f"http://me:{PASSWORD_IN_URL} @proxy:1",
        f"http://m%3Ae:{PASSWORD_IN_URL}@proxy:1",
        "socks5h://me@proxy:1",
        f"socks5h://me:{PASSWORD_IN_URL}%C3%BC@proxy:1",
        f"socks5h://me:{PASSWORD_IN_URL * 20}@proxy:1",
        3128,
    ],
)
def test_a_proxy_url_that_cannot_work_is_refused_without_its_password(url: object):
    """ConfigurationError at construction, for stream, REST and RPC alike; not even its context has the password."""
    for make in (
        lambda: StreamOptions(proxy=url),  # type: ignore[arg-type]
        lambda: ExitApiClientOptions(proxy=url),  # type: ignore[arg-type]
        lambda: SendTargetRpc(proxy=url),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.field == "proxy"
        assert "canary" not in whole_text(caught.value)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_no_repr_shows_the_password(scheme: str):
    """Options are logged by many programs."""
    url = f"{scheme}://trader:{PASSWORD_IN_URL}@proxy:3128"
    for thing in (StreamOptions(proxy=url), ExitApiClientOptions(proxy=url), SendTargetRpc(proxy=url)):
        shown = f"{thing!r} {thing} {thing.proxy}"
        assert "canary" not in shown
        assert "trader" not in shown
        assert thing.proxy is not None
        assert thing.proxy.password == PASSWORD
        # A changed copy keeps the proxy.
        assert attrs.evolve(thing, trust_env=True).proxy == thing.proxy


def test_a_missing_extra_names_its_command(monkeypatch: pytest.MonkeyPatch):
    """SOCKS without python-socks is told at once, with the line that helps; HTTP needs nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'lasersell-sync\[proxy\]'"):
        StreamOptions(proxy="socks5h://proxy:1080")
    StreamOptions(proxy="http://proxy:3128")


# ── the environment ──


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({"https_proxy": "http://a:1"}, "wss://stream.test/v1/ws", "a:1"),
        ({"https_proxy": "http://a:1"}, "https://api.test", "a:1"),
        ({"https_proxy": "http://a:1"}, "ws://stream.test/v1/ws", None),
        ({"http_proxy": "http://b:2"}, "ws://stream.test/v1/ws", "b:2"),
        ({"http_proxy": "b:2"}, "http://api.test", "b:2"),
        ({"all_proxy": "socks5h://c:3"}, "wss://stream.test", "c:3"),
        ({"all_proxy": "socks5h://c:3", "https_proxy": "http://a:1"}, "wss://stream.test", "a:1"),
        ({"https_proxy": "http://a:1", "no_proxy": "other.test"}, "wss://stream.test", "a:1"),
        ({"https_proxy": "http://a:1", "no_proxy": "other.test, stream.test"}, "wss://stream.test", None),
        ({"https_proxy": "http://a:1", "no_proxy": ".test"}, "wss://stream.test", None),
        ({"https_proxy": "http://a:1", "no_proxy": "stream.test:9"}, "wss://stream.test:9/x", None),
        ({"https_proxy": "http://a:1", "no_proxy": "*"}, "wss://stream.test", None),
        ({"https_proxy": "http://a:1", "http_proxy": "b:2", "all_proxy": "c:3"}, "ws://localhost:8082", None),
        ({"https_proxy": "http://a:1"}, "wss://127.0.0.1:1", None),
        ({"https_proxy": "http://a:1"}, "wss://[::1]:1", None),
        ({}, "wss://stream.test", None),
    ],
)
def test_the_environment_is_read_as_other_programs_read_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None, upper: bool
):
    """HTTPS_PROXY for the secure schemes, HTTP_PROXY for the plain ones, ALL_PROXY, NO_PROXY; never to this machine."""
    for name, value in variables.items():
        monkeypatch.setenv(name.upper() if upper else name, value)
    found = proxy_from_environment(url)
    assert (found.shown if found else None) == expected


def test_a_bad_variable_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch):
    """Who set it is told which one, and not what the password was."""
    monkeypatch.setenv("HTTPS_PROXY", f"https://me:{PASSWORD_IN_URL}@proxy:1")
    with pytest.raises(ConfigurationError) as caught:
        proxy_from_environment("wss://stream.test")
    assert caught.value.field == "HTTPS_PROXY"
    assert "canary" not in whole_text(caught.value)
