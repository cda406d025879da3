"""Which hosts, origins and paths belong to the service, directly and behind proxies; the advice of a refusal works."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from vsn import cli
from vsn.config import ConfigError, ServeConfig
from vsn.serve import run as serve_run
from vsn.serve.app import create_app
from vsn.serve.models import open_model
from vsn.serve.service import Service

PUBLIC = {"public_url": "https://vsn.example/"}
PREFIX = {"public_url": "https://vsn.example:8443/demo/vsn/"}
OPEN = {"host": "0.0.0.0"}
HERE = "http://127.0.0.1:8000"
NGINX = {"trusted_proxies": ("127.0.0.1", "fd00::/8")}

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def ask(served_run: Path) -> Ask:
    """A request to a service with given settings, without a server; from 127.0.0.1 unless `peer` is another address."""
    model = open_model(served_run, device="cpu")
    apps: dict[ServeConfig, FastAPI] = {}

    def ask(
        settings: dict,
        headers: dict | None = None,
        path: str = "/healthz",
        peer: str = "127.0.0.1",
        method: str = "GET",
    ) -> httpx.Response:
        config = ServeConfig(**settings)
        app = apps.get(config) or apps.setdefault(config, create_app(Service(model, config)))

        async def request() -> httpx.Response:
            transport = httpx.ASGITransport(app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(request())

    return ask


@pytest.mark.parametrize(
    ("settings", "host", "origin", "status"),
    [
        # Without a proxy, for this machine only.
        ({}, "127.0.0.1:8000", None, 200),
        ({}, "localhost:8000", "http://localhost:8000", 200),
        ({}, "LOCALHOST:8000", "http://localhost:8000", 200),
        ({}, "[::1]:8000", "http://[::1]:8000", 200),
        ({}, "192.168.1.7:8000", "http://192.168.1.7:8000", 200),  # an address cannot be rebound
        ({}, "vsn.example", None, 421),
        ({}, "localhost.evil.example", None, 421),
        ({}, "127.0.0.1.evil.example", None, 421),
        ({}, "evil.example#127.0.0.1", None, 421),
        ({}, "127.0.0.1@evil.example", None, 421),
        ({}, "", None, 421),
        ({}, "localhost:8000", "http://localhost:9000", 403),
        ({}, "localhost:8000", "http://127.0.0.1:8000", 403),
        ({}, "localhost:8000", "null", 403),
        ({}, "localhost:8000", "http://localhost:8000.evil.example", 400),
        ({}, "localhost:8000", "http://evil.example@localhost:8000", 403),
        ({}, "localhost:8000", "localhost:8000", 403),
        # For others, whose names are not known.
        (OPEN, "any.example", "https://any.example", 200),
        (OPEN, "any.example:443", "https://any.example", 200),
        (OPEN, "any.example", "http://any.example:8080", 403),
        (OPEN, "any.example", "https://evil.example", 403),
        # Behind a proxy.
        (PUBLIC, "vsn.example", "https://vsn.example", 200),
        (PUBLIC, "vsn.example:8443", "https://vsn.example", 200),  # ports of hosts are of proxies
        (PUBLIC, "VSN.example", "https://vsn.example:443", 200),
        (PUBLIC, "127.0.0.1:8000", "https://vsn.example", 200),  # nginx without proxy_set_header
        (PUBLIC, "10.1.2.3:8000", None, 200),  # a probe
        (PUBLIC, "127.0.0.1:8000", "http://127.0.0.1:8000", 403),
        (PUBLIC, "vsn.example", "http://vsn.example", 403),
        (PUBLIC, "vsn.example", "https://vsn.example:8443", 403),
        (PUBLIC, "vsn.example", "https://evil.vsn.example", 403),
        (PUBLIC, "vsn.example", "null", 403),
        (PUBLIC, "evil.example", None, 421),
        (PUBLIC, "evil.example", "https://evil.example", 421),
        ({**PUBLIC, **OPEN}, "evil.example", None, 421),
        (PREFIX, "vsn.example", "https://vsn.example:8443", 200),
        (PREFIX, "vsn.example", "https://vsn.example", 403),
        ({"public_url": "http://[fd00::1]:8080"}, "[FD00::1]:8080", "http://[fd00::1]:8080", 200),
    ],
)
def test_hosts_and_origins(ask: Ask, settings: dict, host: str, origin: str | None, status: int):
    answer = ask(settings, {"host": host} | ({"origin": origin} if origin else {}))
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("settings", "headers", "peer", "status"),
    [
        (NGINX, {"x-forwarded-host": "vsn.example"}, "127.0.0.1", 200),
        (NGINX, {"x-forwarded-host": "vsn.example", "x-forwarded-proto": "https"}, "127.0.0.1", 200),
        (NGINX, {"x-forwarded-host": "vsn.example", "x-forwarded-proto": "http"}, "127.0.0.1", 403),
        (NGINX, {"x-forwarded-host": "vsn.example"}, "::ffff:127.0.0.1", 200),
        (NGINX, {"x-forwarded-host": "vsn.example"}, "fd00::7", 200),
        # Of strangers, who cannot make another page own by it.
        (NGINX, {"x-forwarded-host": "vsn.example"}, "127.0.0.2", 403),
        (NGINX, {"x-forwarded-host": "vsn.example"}, "", 403),
        ({}, {"x-forwarded-host": "vsn.example"}, "127.0.0.1", 403),
        (OPEN, {"x-forwarded-host": "vsn.example"}, "10.0.0.1", 403),
        (PUBLIC, {"x-forwarded-host": "evil.example"}, "10.0.0.1", 200),
        ({**PUBLIC, **NGINX}, {"x-forwarded-host": "evil.example"}, "127.0.0.1", 421),
        # The client's, then the proxy's.
        (NGINX, {"x-forwarded-host": "evil.example, vsn.example"}, "127.0.0.1", 200),
        (NGINX, [("x-forwarded-host", "vsn.example"), ("x-forwarded-host", "other.example")], "127.0.0.1", 403),
        (NGINX, {"x-forwarded-host": "[x"}, "127.0.0.1", 400),
        (NGINX, {"x-forwarded-host": "vsn.example", "x-forwarded-proto": "gopher"}, "127.0.0.1", 400),
        (NGINX, {"x-forwarded-for": "fd00::1", "forwarded": "host=vsn.example"}, "127.0.0.1", 403),
    ],
)
def test_forwarded_headers_are_believed_from_named_proxies(ask: Ask, settings, headers, peer: str, status: int):
    fields = [*(headers.items() if isinstance(headers, dict) else headers), ("origin", "https://vsn.example")]
    answer = ask(settings, fields, peer=peer)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("settings", "host", "origin"),
    [
        ({}, "127.0.0.1:8000", "https://vsn.example"),  # nginx without proxy_set_header
        ({}, "vsn.example", None),  # nginx with `Host $host`
        ({}, "vsn.example:8080", None),
        ({}, "vsn.example", "http://vsn.example:8080"),
        (OPEN, "vsn.example", "http://vsn.example:8080"),
        (PUBLIC, "new.example", "https://new.example"),
        (PUBLIC, "127.0.0.1:8000", "http://127.0.0.1:8000"),
        (PUBLIC, "vsn.example", "http://vsn.example"),
        (PREFIX, "vsn.example", "https://vsn.example"),
    ],
)
def test_following_the_advice_makes_the_request_succeed(ask: Ask, settings: dict, host: str, origin: str | None):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    for _ in range(2):  # of the host, then of the origin
        error = ask(settings, headers).json()["error"]
        assert error["code"] in ("unknown_host", "other_origin")
        (url,) = re.findall(r"--public-url (\S+?)\.?(?: \(|$)", error["hint"])
        settings = settings | {"public_url": url}
        if ask(settings, headers).status_code == 200:
            return
    raise AssertionError(f"still refused with {settings}")


def test_the_advice_names_the_public_url(ask: Ask):
    hint = ask(PUBLIC, {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}).json()["error"]["hint"]
    assert hint.startswith("Use https://vsn.example/.")
    error = ask({**PUBLIC, "host": "10.1.2.3"}, {"host": "evil.example"}).json()["error"]
    assert "vsn.example" in error["limit"]
    assert "10.1.2.3" not in error["message"]
    for origin in ("null", "https://vsn.example/;x", "ftp://vsn.example"):
        assert "--public-url" not in ask({}, {"origin": origin}).json()["error"]["hint"]


# --- paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/demo/vsn/", 200),
        ("/demo/vsn/serve.js", 200),
        ("/serve.js", 200),
        ("/demo/vsn/v1/model", 200),
        ("/v1/model", 200),
        ("/demo/vsn/v1/model/", 404),
        ("/demo/vsn/demo/vsn/", 404),
        ("/demo/vsn/demo/vsn", 404),
        ("/demo/vsnx/", 404),
        ("/demo/", 404),
        ("/demo/vsn//healthz", 404),
    ],
)
def test_the_prefix_may_be_removed_or_not(ask: Ask, path: str, status: int):
    for method in ("GET", "HEAD"):
        assert ask(PREFIX, path=path, method=method).status_code == status


@pytest.mark.parametrize("query", ["", "?x=1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "vsn.example"])
def test_the_slash_at_the_end_of_the_prefix_is_added_without_naming_a_host(ask: Ask, query: str, host: str):
    answer = ask(PREFIX, {"host": host}, path=f"/demo/vsn{query}")
    assert (answer.status_code, answer.headers["location"]) == (308, "/demo/vsn/")


@pytest.mark.parametrize("settings", [{}, PREFIX])
def test_no_other_path_is_redirected(ask: Ask, settings: dict):
    for path in (
        "/v1/model/",
        "/demo",
        f"{HERE}//evil.example/",
        f"{HERE}//evil.example",
        "/v1//model",
        "/openapi.json/",
    ):
        answer = ask(settings, path=path)
        assert answer.status_code == 404
        assert "location" not in answer.headers


def test_the_openapi_document_names_the_public_url(ask: Ask):
    assert ask(PREFIX, path="/openapi.json").json()["servers"] == [{"url": "https://vsn.example:8443/demo/vsn"}]
    assert "servers" not in ask({}, path="/openapi.json").json()


def test_requests_under_the_prefix_are_counted_by_route(served_run: Path):
    service = Service(open_model(served_run, device="cpu"), ServeConfig(**PREFIX))
    transport = httpx.ASGITransport(create_app(service))

    async def requests() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in ("/demo/vsn/healthz", "/healthz", "/demo/vsn"):
                await client.get(path)

    asyncio.run(requests())
    count = lambda path, status: service.metrics.registry.get_sample_value(  # noqa: E731
        "vsn_requests_total", {"path": path, "status": status}
    )
    assert (count("/healthz", "200"), count("other", "308")) == (2, 1)


# --- frames and settings -----------------------------------------------------------------------------


def test_only_named_sites_may_show_the_page_in_a_frame(ask: Ask):
    own = ask({}, path="/").headers["content-security-policy"]
    assert own.endswith("; frame-ancestors 'none'")
    named = {"frame_ancestors": ("https://huggingface.co", "http://lab.example:8080")}
    framed = ask(named, path="/").headers["content-security-policy"]
    assert framed == own.removesuffix("'none'") + "https://huggingface.co http://lab.example:8080"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"public_url": "vsn.example"}, r"public_url.*'vsn\.example'.*https://"),
        ({"public_url": ""}, "public_url"),
        ({"public_url": "ftp://vsn.example/"}, "public_url"),
        ({"public_url": "https://user@vsn.example/"}, "public_url"),
        ({"public_url": "https://vsn.example/?a=b"}, "public_url"),
        ({"public_url": "https://vsn.example/a b/"}, "public_url"),
        ({"public_url": "https://vsn.example/../"}, "public_url"),
        ({"public_url": "https://vsn.example/a//"}, "public_url"),
        ({"public_url": "https://vsn.example:99999/"}, "public_url"),
        ({"public_url": "https://[fd00::zz]/"}, "public_url"),
        ({"public_url": "https://m\N{LATIN SMALL LETTER U WITH DIAERESIS}nchen.example/"}, "public_url"),
        ({"public_url": "https://vsn.example/v1"}, "/v1/"),
        ({"public_url": "https://vsn.example/\n"}, "public_url"),
        ({"trusted_proxies": ("nginx",)}, "trusted_proxies.*'nginx'"),
        ({"trusted_proxies": ("10.0.0.1/8",)}, "trusted_proxies.*host bits"),
        ({"frame_ancestors": ("*",)}, r"frame_ancestors.*'\*'"),
        ({"frame_ancestors": ("https://a.example; script-src *",)}, "frame_ancestors"),
        ({"frame_ancestors": ("https://a.example/",)}, "frame_ancestors"),
        ({"frame_ancestors": ("'self'",)}, "frame_ancestors"),
    ],
)
def test_invalid_settings(setting: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ServeConfig(**setting)


def test_the_public_url_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    seen: list[str | None] = []
    monkeypatch.setattr(serve_run, "serve", lambda run, config, **_: seen.append(config.public_url))
    cli.main(["serve", "RUN"])
    monkeypatch.setenv("VSN_PUBLIC_URL", "https://vsn.example/")
    cli.main(["serve", "RUN"])
    cli.main(["serve", "RUN", "--public-url", "https://other.example/"])
    monkeypatch.setenv("VSN_PUBLIC_URL", "vsn.example")
    with pytest.raises(SystemExit, match="public_url"):
        cli.main(["serve", "RUN"])
    assert seen == [None, "https://vsn.example/", "https://other.example/"]
