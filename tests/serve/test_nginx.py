"""docs/nginx.conf, run by nginx with the edits that it describes and no others: pages, uploads and attacks through it."""

import os
import re
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.docs_pages import ROOT
from tests.helpers.external import program
from tests.serve.conftest import LIMITS, LiveServer, wait_until
from vsn.config import ServeConfig
from vsn.serve.models import open_model
from vsn.serve.service import Service

SITE = (ROOT / "docs" / "nginx.conf").read_text(encoding="utf-8")
# Debian's nginx.conf with the paths of a user without rights.
MAIN = """{user} daemon off; pid {0}/pid; error_log stderr; events {{}}
http {{
    access_log off;
    client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
    include {0}/site.conf;
}}
"""
# As most people begin, with the headers, limits and times of nginx itself.
MINIMAL = """server {
    listen 127.0.0.1:80;
    location / { proxy_pass http://127.0.0.1:8000; }
    location /removed/ { proxy_pass http://127.0.0.1:8000/; }
    location /kept/ { proxy_pass http://127.0.0.1:8000; }
    location = /other-page {
        default_type text/html;
        return 200 '<iframe src="http://localhost:80/kept/" width="900" height="900"></iframe>';
    }
}
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def edited(site: str, words: dict[str, str]) -> str:
    for word, replacement in words.items():
        assert word in site
        site = site.replace(word, replacement)
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError:  # as in many containers
        site = re.sub(r".*listen \[::\].*\n", "", site)
    return site


def connect(port: int, content: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(content.encode())
    return connection


@contextmanager
def nginx(folder: Path, site: str, port: int) -> Iterator[None]:
    """nginx as a child process."""
    # Without the folder's owner as its user, nginx started by root could not write there.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "main.conf").write_text(MAIN.format(folder, user=user))
    (folder / "site.conf").write_text(site)
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "main.conf")]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as running:
        try:

            def listens() -> bool:
                assert running.poll() is None, (folder / "log").read_text()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_until(listens, "nginx listens")
            yield
        finally:
            running.terminate()


@dataclass(frozen=True)
class Proxied:
    """A service behind nginx."""

    url: str
    """As clients have it."""
    inner_url: str
    service: Service
    http_port: int
    verify: ssl.SSLContext | bool = True
    stalled: socket.socket | None = None
    """A connection that sent half of its headers."""

    @property
    def origin(self) -> str:
        return str(httpx.URL(self.url).join("/")).rstrip("/")

    @property
    def path(self) -> str:
        return httpx.URL(self.url).path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.verify, timeout=60)

    def status_of(self, path: str, method: str = "GET", fields: str = "") -> int:
        """The status of the answer to a request that no library has changed."""
        port = httpx.URL(self.url).port
        with connect(port, "") as connection, ExitStack() as stack:
            if isinstance(self.verify, ssl.SSLContext):
                connection = stack.enter_context(self.verify.wrap_socket(connection, server_hostname="localhost"))
            head = f"{method} {self.path}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
            connection.sendall(head.encode())
            return int(connection.recv(100).split()[1])


def service_of(served_run: Path, folder: Path, **settings: Any) -> Service:
    (folder / "uploads").mkdir()
    return Service(open_model(served_run, device="cpu"), replace(LIMITS, **settings), uploads=folder / "uploads")


@pytest.fixture(scope="module", params=["plain", pytest.param("tls", marks=pytest.mark.needs("openssl")), "prefix"])
def proxied(request: pytest.FixtureRequest, served_run: Path, tmp_path_factory: pytest.TempPathFactory):
    program("nginx")
    folder, kind = tmp_path_factory.mktemp(request.param), request.param
    http, https = free_ports(2)
    path = "/vsn/" if kind == "prefix" else "/"
    url = f"https://localhost:{https}/" if kind == "tls" else f"http://localhost:{http}{path}"
    # The documented start. With the option, the headers that nginx sets are believed, and have to be right.
    trusted = {"trusted_proxies": ("127.0.0.1",)} if kind == "plain" else {}
    service = service_of(served_run, folder, public_url=url, **trusted)
    words = {"vsn.example.com": "localhost", "listen 80;": f"listen {http};", "[::]:80;": f"[::]:{http};"}
    site, verify = SITE, True
    if kind == "tls":
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
        command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, *files]
        subprocess.run(command, check=True, capture_output=True)
        verify = ssl.create_default_context(cafile=folder / "cert.pem")
        words |= {"/etc/ssl/vsn/": f"{folder}/", "listen 443 ": f"listen {https} ", "[::]:443 ": f"[::]:{https} "}
    else:
        site = re.sub(r".*# TLS\n", "", SITE)
    if kind == "prefix":
        words["location / {"] = "location /vsn/ {"
    with LiveServer(service) as inner:
        site = edited(site, words | {"127.0.0.1:8000": inner.removeprefix("http://")})
        with nginx(folder, site, https if kind == "tls" else http):
            wait_until(lambda: not service.why_not_ready(), "a decoder is ready")
            with connect(http, "GET / HTTP/1.1\r\nHost: loc") as stalled:
                yield Proxied(url, inner, service, http, verify, stalled)


@pytest.fixture(scope="module")
def minimal(served_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """A service that takes 100 MB behind an nginx that takes 1 MB, with and without a path, removed or kept."""
    program("nginx")
    folder, (port,) = tmp_path_factory.mktemp("minimal"), free_ports(1)
    url = f"http://localhost:{port}/kept/"
    frame = f"http://127.0.0.1:{port}"
    service = service_of(served_run, folder, public_url=url, max_upload_mb=100.0, frame_ancestors=(frame,))
    with LiveServer(service) as inner:
        words = {
            "127.0.0.1:80;": f"127.0.0.1:{port};",
            "localhost:80": f"localhost:{port}",
            "127.0.0.1:8000": inner.removeprefix("http://"),
        }
        with nginx(folder, edited(MINIMAL, words), port):
            wait_until(lambda: not service.why_not_ready(), "a decoder is ready")
            yield Proxied(url, inner, service, port)


@contextmanager
def opened(browser: Any, url: str, *, expected: str = "") -> Iterator[Any]:
    """The page of a service; it asks only for what is below its URL, and logs nothing but what contains `expected`."""
    wrong: list[str] = []
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        below = (url, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(below) or wrong.append(f"asked: {request.url}"))
        page.on("console", lambda message: (expected and expected in message.text) or wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.goto(url)
        page.wait_for_selector("#card dd", state="attached")
        yield page
    assert wrong == []


def labels(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["label"] for one in answer.json()["predictions"]]


# --- the documented file -----------------------------------------------------------------------------


@pytest.mark.needs("chromium")
@pytest.mark.needs("nginx")
def test_the_page_predicts_in_a_browser(proxied: Proxied, browser: Any, clip: Path):
    with opened(browser, proxied.url) as page:
        page.set_input_files("#file", clip)
        page.wait_for_selector("#result:not([hidden])")
        assert page.locator("#labels li").count() == 2
        page.click("#heat")
        page.wait_for_selector("#heat[aria-pressed=true]")
        assert page.get_attribute("#no-script", "hidden") is not None
        with page.expect_response("**/openapi.json") as answered:
            page.evaluate("fetch(document.querySelector('a[href*=openapi]').href)")
        assert answered.value.status == 200


@pytest.mark.needs("nginx")
def test_programs_find_the_api_by_its_description(proxied: Proxied, clip: Path):
    with proxied.client() as client:
        api = client.get("openapi.json").json()
        (server,) = api["servers"]
        answer = client.post(f"{server['url']}/v1/predict", files={"video": clip.read_bytes()})
        direct = httpx.post(f"{proxied.inner_url}/v1/predict", files={"video": clip.read_bytes()}, timeout=60)
        assert labels(answer) == labels(direct)
        # The service stays strict.
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "nginx/" not in answer.headers.get("server", "")
        head = client.head("v1/model")
        assert (head.status_code, head.content) == (200, b"")
        assert ("strict-transport-security" in answer.headers) == (proxied.url.startswith("https"))


@pytest.mark.needs("nginx")
def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(proxied: Proxied):
    allowed = ServeConfig().max_upload_bytes + 1_000_000
    assert f"client_max_body_size {allowed // 1_000_000}m;" in SITE
    assert proxied.status_of("v1/predict", "POST", f"Content-Length: {allowed * 1.1:.0f}\r\n") == 413
    with proxied.client() as client:
        # The limit of this service is smaller.
        answer = client.post("v1/predict", files={"video": bytes(2_000_000)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.needs("nginx")
def test_headers_of_strangers_do_not_reach_the_service(proxied: Proxied, clip: Path):
    forged = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher", "x-forwarded-for": "127.0.0.1"}
    with proxied.client() as client:
        assert client.get("v1/model", headers=forged).status_code == 200
        own = {"origin": proxied.origin}
        assert labels(client.post("v1/predict", headers=own, files={"video": clip.read_bytes()}))
        for headers, code in (
            ({"origin": "https://evil.example"}, "other_origin"),
            ({"origin": "https://evil.example", "x-forwarded-host": "evil.example"}, "other_origin"),
            ({"origin": "null"}, "other_origin"),
            ({"host": "evil.example"}, "unknown_host"),
            ({"host": "evil.example", "origin": "http://evil.example"}, "unknown_host"),
        ):
            answer = client.post("v1/predict", headers=headers, files={"video": clip.read_bytes()})
            assert answer.json()["error"]["code"] == code


@pytest.mark.needs("nginx")
def test_redirects_name_no_inner_address(proxied: Proxied):
    with proxied.client() as client:
        for path in ("vsn", "vsn?x=1", "vsn/vsn", "vsn/v1/model/", "v1/model/", "v1", "/127.0.0.1/"):
            location = client.get(f"{proxied.origin}/{path}").headers.get("location", "")
            # With the page under a path, whose slash is missing.
            assert location in (
                ("/vsn/", "/vsn/?x=1") if path in ("vsn", "vsn?x=1") and proxied.path == "/vsn/" else ("",)
            )
    plain = httpx.get(f"http://localhost:{proxied.http_port}/v1/model?x", headers={"host": "evil.example"})
    if proxied.url.startswith("https"):
        assert (plain.status_code, plain.headers["location"]) == (301, "https://localhost/v1/model?x")


@pytest.mark.needs("nginx")
def test_metrics_are_not_public(proxied: Proxied):
    with proxied.client() as client:
        assert client.get("metrics").status_code == 404
    for path in ("metrics", "%6detrics", "/metrics", "x/../metrics", "vsn/metrics", "vsn/vsn/metrics", "metrics?x"):
        assert proxied.status_of(path) == 404
    assert "vsn_requests" in httpx.get(f"{proxied.inner_url}/metrics").text


BEGUN = (
    "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    '--x\r\nContent-Disposition: form-data; name="video"\r\n\r\nbegun'
)


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("proxied", ["plain"], indirect=True)
def test_slow_clients_and_many_connections_are_kept_from_the_service(proxied: Proxied, clip: Path):
    with ExitStack() as stack:
        attack = [stack.enter_context(connect(proxied.http_port, BEGUN)) for _ in range(40)]
        wait_until(lambda: len(select.select(attack, [], [], 0)[0]) == 24, "all but 16 are refused")
        refused = select.select(attack, [], [], 0)[0]
        assert {one.recv(13) for one in refused} == {b"HTTP/1.1 429 "}
        # The service has seen none of it, and others are served.
        assert proxied.service.metrics.registry.get_sample_value("vsn_videos_in_progress") == 0
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=proxied.url, transport=transport, timeout=60) as other:
            assert other.get("readyz").status_code == 200
            assert labels(other.post("v1/predict", files={"video": clip.read_bytes()}))
        # It began with the first test, to be over now.
        assert proxied.stalled.recv(100) == b""
    # The attacker itself, when it has hung up.
    with proxied.client() as client:
        wait_until(lambda: client.get("healthz").status_code == 200, "its connections are forgotten")
        assert [client.get("healthz").status_code for _ in range(20)] == [200] * 20
        # At once, for the limit is on their number in a second.
        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(lambda _: client.get("healthz").status_code, range(300))) == {200, 429}


# --- what other files do -----------------------------------------------------------------------------


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("path", ["/", "/removed/", "/kept/"])
def test_a_minimal_file_works_with_the_public_url(minimal: Proxied, clip: Path, path: str):
    origin = f"http://localhost:{minimal.http_port}"
    url = f"{origin}{path}v1/predict"
    assert labels(httpx.post(url, headers={"origin": origin}, files={"video": clip.read_bytes()}, timeout=60))


@pytest.mark.needs("chromium")
@pytest.mark.needs("nginx")
def test_the_page_explains_what_a_proxy_refuses(minimal: Proxied, browser: Any, tmp_path: Path, clip: Path):
    url = minimal.url.replace("/kept/", "/removed/")
    with opened(browser, url, expected="Failed to load resource") as page:

        def answer(status: int, route: Any) -> None:
            route.fulfill(status=status, body="<html>")

        def problem() -> str:
            page.wait_for_selector("#problem:not([hidden])")
            return page.inner_text("#problem")

        for megabytes in (2, 40):
            (tmp_path / "large.mp4").write_bytes(bytes(megabytes * 1_000_000))
            page.set_input_files("#file", tmp_path / "large.mp4")
            text = problem()
            for part in ("413", f"{megabytes}.0 MB", "100 MB", "client_max_body_size"):
                assert part in text
        for status, part in ((502, "does not reach"), (504, "proxy_read_timeout"), (429, "too many"), (418, "418")):
            page.route("**/v1/predict**", partial(answer, status))
            page.set_input_files("#file", clip)
            page.wait_for_function("part => document.getElementById('problem').innerText.includes(part)", arg=part)
            assert str(status) in problem()
        page.unroute("**/v1/predict**")
        page.set_input_files("#file", clip)
        page.wait_for_selector("#result:not([hidden])")
        assert page.is_hidden("#problem")


@pytest.mark.needs("chromium")
@pytest.mark.needs("nginx")
def test_the_page_works_in_a_frame_of_a_named_site(minimal: Proxied, browser: Any, clip: Path):
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"http://127.0.0.1:{minimal.http_port}/other-page")
        frame = page.frame_locator("iframe")
        frame.locator("#file").set_input_files(clip)
        frame.locator("#labels li").first.wait_for()
        # The same page of a site that is not named.
        page.goto(f"http://localhost:{minimal.http_port}/other-page")
        page.wait_for_load_state("networkidle")
        assert frame.locator("#file").count() == 0


@pytest.mark.needs("chromium")
@pytest.mark.needs("nginx")
@pytest.mark.parametrize(
    ("status", "body", "part"),
    [
        (502, "<html>", "502"),
        (503, "<html>", "does not reach"),
        (200, "<html>", "200"),
        (421, '{"error": {"message": "planted"}}', "planted"),
    ],
)
def test_the_page_of_a_service_that_is_gone_says_so(minimal: Proxied, browser: Any, status: int, body: str, part: str):
    with browser.new_context() as context:
        page = context.new_page()
        page.route("**/v1/model", lambda route: route.fulfill(status=status, body=body))
        page.goto(minimal.url)
        page.wait_for_selector("#problem:not([hidden])")
        assert part in page.inner_text("#problem")


@pytest.mark.needs("chromium")
@pytest.mark.needs("nginx")
def test_a_page_without_its_script_says_so(minimal: Proxied, browser: Any):
    with browser.new_context() as context:
        page = context.new_page()
        page.route(re.compile(r"\.(js|css)$"), lambda route: route.abort())
        page.goto(minimal.url)
        assert page.is_visible("#no-script")
        assert "slash" in page.inner_text("#no-script")
