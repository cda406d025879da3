"""The server as a process of its own: stopping by a signal to its group, connections that say nothing, its log."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from tests.helpers.planted import WAIT
from tests.serve.conftest import LIMITS, Live, LiveServer, wait_until
from vsn.config import ServeConfig
from vsn.serve.models import open_model
from vsn.serve.server import Sparingly, connections_allowed
from vsn.serve.service import Service

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Process:
    """A service in a process group of its own."""

    running: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, content: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/predict", files={"video": content}, timeout=60)

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^{name} (.*)$", httpx.get(f"{self.url}/metrics", timeout=60).text, re.MULTILINE)
        return float(value)


@contextmanager
def process(served_run: Path, folder: Path, **settings: object) -> Iterator[Process]:
    (folder / "uploads").mkdir()
    log = folder / "log"
    arguments = [str(served_run), str(folder / "uploads"), json.dumps(settings)]
    command = [sys.executable, "-m", "tests.helpers.planted_server", *arguments]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as running,
    ):
        try:
            assert running.stdout is not None
            service = Process(running, int(running.stdout.readline() or 0), log)

            def is_ready() -> bool:
                try:
                    return httpx.get(f"{service.url}/readyz", timeout=60).status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_ready, "it is ready")
            yield service
        finally:
            running.kill()
            running.wait()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.slow  # starting a process takes seconds
def test_a_signal_to_the_group_lets_requests_finish(served_run: Path, clip: Path, tmp_path: Path):
    """As systemd, `timeout` and a shell in a container send it: to the decoders too."""
    gate, never = tmp_path / "gate", tmp_path / "never"
    good, endless = WAIT + bytes(gate) + b"\n" + clip.read_bytes(), WAIT + bytes(never)
    settings = {"decode_workers": 2, "shutdown_seconds": 4.0}
    with process(served_run, tmp_path, **settings) as service, ThreadPoolExecutor(20) as pool:
        labels_before = service.post(clip.read_bytes()).json()["predictions"]
        waiting = [pool.submit(service.post, endless)]
        wait_until(lambda: service.metric("vsn_decoders_busy") == 1, "one is decoded")
        waiting += [pool.submit(service.post, good) for _ in range(19)]
        wait_until(lambda: service.metric("vsn_videos_in_progress") == 20, "all are in progress")
        os.killpg(service.running.pid, signal.SIGTERM)
        time.sleep(0.5)
        gate.touch()
        answers = [future.result() for future in waiting]
        service.running.wait(30)
    # The first never ends; the others are read by the second decoder.
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "stopping")
    assert [answer.json()["predictions"] for answer in answers[1:]] == [labels_before] * 19
    assert "Traceback" not in service.log.read_text()
    assert list((tmp_path / "uploads").iterdir()) == []


def live_server(served_run: Path, uploads: Path, **settings: object) -> LiveServer:
    return LiveServer(Service(open_model(served_run, device="cpu"), replace(LIMITS, **settings), uploads=uploads))


def connect(url: str, content: bytes = b"") -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(content)
    return connection


def read_to_end(connection: socket.socket) -> str:
    with connection:
        try:
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except ConnectionResetError:
            return ""


BEGUN = (
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="video"\r\n\r\nbegun'
)


def test_an_upload_that_does_not_end_is_answered_when_the_service_stops(served_run: Path, tmp_path: Path):
    service = Service(open_model(served_run, device="cpu"), LIMITS, uploads=tmp_path)
    with LiveServer(service) as url:
        uploads = [connect(url, BEGUN) for _ in range(3)]
        wait_until(lambda: service.metrics.registry.get_sample_value("vsn_videos_in_progress") == 3, "they have begun")
    for answer in map(read_to_end, uploads):
        assert answer.startswith("HTTP/1.1 503 ")
        assert '"stopping"' in answer


# --- connections -------------------------------------------------------------------------------------


def test_half_open_connections_do_not_keep_others_out(served_run: Path, tmp_path: Path):
    with live_server(served_run, tmp_path, max_connections=10, header_seconds=600.0) as url:
        half_open = [connect(url, b"" if number % 2 else b"GET / HTTP/1.1\r\nHost: ") for number in range(40)]
        for _ in range(10):
            assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
        for connection in half_open[:30]:  # the oldest gave way
            assert read_to_end(connection) == ""
        for connection in half_open[30:]:
            connection.close()


def test_requests_in_progress_do_not_give_way(served_run: Path, tmp_path: Path):
    with live_server(served_run, tmp_path, max_connections=2) as url:
        uploads = [connect(url, BEGUN) for _ in range(2)]
        time.sleep(0.3)
        assert read_to_end(connect(url)) == ""
    assert all(read_to_end(one).startswith("HTTP/1.1 503 ") for one in uploads)


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /healthz HT"]
)
def test_headers_must_arrive_in_time(served_run: Path, tmp_path: Path, begun: bytes):
    with live_server(served_run, tmp_path, header_seconds=0.5) as url, httpx.Client(timeout=60) as client:
        start = time.monotonic()
        read_to_end(connect(url, begun))
        assert time.monotonic() - start < 4  # uvicorn closes an idle connection after 5
        for _ in range(2):
            assert client.get(f"{url}/healthz").status_code == 200


def test_garbage_does_not_fill_the_log(served_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with live_server(served_run, tmp_path) as url:
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)
        try:
            for _ in range(30):
                assert read_to_end(connect(url, b"\x16\x03\x01 no HTTP\r\n\r\n")).startswith("HTTP/1.1 400 ")
        finally:
            logging.getLogger("uvicorn.error").removeHandler(caplog.handler)
    assert 0 < len([one for one in caplog.records if "Invalid HTTP" in one.getMessage()]) <= 10


CHUNKED = BEGUN.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked").partition(b"--x")[0]


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + 70_000 * b"x",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        CHUNKED + b"5\r\n--x\r\n\r\nno length\r\n",
    ],
)
def test_what_is_not_http_is_a_problem_as_every_other(live: Live, content: bytes):
    def counted() -> dict[str, float]:
        places = {"other": "400", "/v1/predict": "400", "left": "499"}
        return {
            name: live.metric("vsn_requests_total", path=name.replace("left", "/v1/predict"), status=status)
            for name, status in places.items()
        }

    before, place = counted(), "/v1/predict" if content.startswith(CHUNKED) else "other"
    head, _, body = read_to_end(connect(live.url, content)).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 Bad Request\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])}
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    assert headers["x-content-type-options"] == "nosniff"
    assert json.loads(body)["error"]["code"] == "bad_request"
    wait_until(lambda: counted()[place] > before[place], "it is counted")
    assert counted() == before | {place: before[place] + 1}
    assert live.files() == []


def test_a_service_whose_requests_are_all_taken_is_not_ready(served_run: Path, tmp_path: Path):
    with live_server(served_run, tmp_path, max_requests=2) as url:
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "it is ready")
        uploads = [connect(url, BEGUN) for _ in range(2)]
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "it is full")
        assert "max_requests" in httpx.get(f"{url}/readyz").json()["reason"]
        for upload in uploads:
            upload.close()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "it is ready again")


def test_repeated_messages_are_logged_sparingly():
    now = [0.0]
    sparingly = Sparingly(most=2, seconds=60, clock=lambda: now[0])
    record = logging.LogRecord("vsn", logging.WARNING, "", 1, "failed: %s", ("a",), None)
    other = logging.LogRecord("vsn", logging.WARNING, "", 1, "other", (), None)
    assert [sparingly.filter(record) for _ in range(5)] == [True, True, False, False, False]
    assert sparingly.filter(other)
    now[0] = 61
    assert sparingly.filter(record)
    assert "3 " in record.getMessage()


@pytest.mark.parametrize(("handles", "allowed"), [(10_000, 256), (128, 8), (20, 1)])
def test_connections_leave_handles_for_the_rest(handles: int, allowed: int):
    assert connections_allowed(ServeConfig(max_requests=8, max_connections=256), handles) == allowed
