"""The service over HTTP, from outside."""

import asyncio
import base64
import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.helpers.planted import CRASH, FAIL, FILL, HANG, KILLED, KILLED_ONCE, WAIT
from tests.serve.conftest import CLASSES, LIMITS, Live, make_video, wait_until
from vsn import Predictor, __version__, cli
from vsn.config import ServeConfig
from vsn.data.video.jpeg import decode_jpeg
from vsn.data.views import PROTOCOLS
from vsn.runs.run import open_run, weights_hash
from vsn.serve.guards import Guards
from vsn.serve.metrics import Metrics


def post(live: Live, content: bytes, path: str = "/v1/predict", **settings: object) -> httpx.Response:
    with live.client() as client:
        return client.post(path, files={"video": ("clip.mp4", content)}, **settings)


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert error["message"] == f"{error['received']} {error['limit']} {error['hint']}"
    assert min(map(len, error.values())) > 0
    return answer.status_code, error["code"], error["message"]


def labeled(answer: httpx.Response) -> dict[str, float]:
    assert answer.status_code == 200, answer.text
    return {one["label"]: one["probability"] for one in answer.json()["predictions"]}


def in_pieces(content: bytes, boundary: str = "x") -> Iterator[bytes]:
    """A form without an announced length."""
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="video"; filename="v"\r\n\r\n'.encode()
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]
    yield f"\r\n--{boundary}--\r\n".encode()


PIECES = {"content-type": "multipart/form-data; boundary=x"}

# --- what is answered --------------------------------------------------------------------------------


def test_concurrent_requests_are_bit_equal_to_vsn_predict(live: Live, served_run: Path, tmp_path: Path):
    sizes = [(32, 48), (48, 32), (40, 40), (64, 96)]
    videos = [make_video(tmp_path / f"{i}.mp4", num_frames=3 + 2 * i, size=sizes[i % 4], seed=i) for i in range(6)]
    predictor = Predictor.from_run(served_run, device="cpu")
    batches = live.metric("vsn_batch_clips_count"), live.metric("vsn_batch_clips_sum")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda video: post(live, video.read_bytes(), params={"top_k": 3}), videos * 3))
    for video, answer in zip(videos * 3, answers, strict=True):
        prediction = predictor.predict(video, top_k=3)
        assert list(labeled(answer).items()) == list(zip(prediction.labels, prediction.probabilities, strict=True))
    assert len({json.dumps(answer.json()["predictions"]) for answer in answers}) == 6
    assert live.metric("vsn_batch_clips_sum") - batches[1] == 18
    assert live.metric("vsn_batch_clips_count") > batches[0]


def test_answer(live: Live, clip: Path):
    answer = post(live, clip.read_bytes()).json()
    assert len(answer["predictions"]) == LIMITS.top_k
    assert (answer["protocol"], answer["num_frames"]) == ("fcn", 4)
    assert answer["video"] == {
        "num_bytes": clip.stat().st_size,
        "num_frames": 12,
        "frames_per_second": 10.0,
        "seconds": pytest.approx(1.2),
        "width": 48,
        "height": 32,
    }
    timing = answer["timing"]
    parts = timing["upload_ms"] + timing["decode_ms"] + timing["predict_ms"]
    assert timing["total_ms"] == pytest.approx(parts, abs=0.1)
    assert (answer["frames"], answer["timeline"]) == ([], None)


def test_frames_are_those_of_the_clip(live: Live, clip: Path):
    frames = post(live, clip.read_bytes(), params={"frames": True}).json()["frames"]
    pictures = [decode_jpeg(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))) for url in frames]
    assert [picture.shape for picture in pictures] == [(36, 54, 3)] * 4
    assert len(set(frames)) == 4


def test_only_a_long_video_has_a_timeline(live: Live, clip: Path, tmp_path: Path, served_run: Path):
    assert post(live, clip.read_bytes(), params={"timeline": True}).json()["timeline"] is None
    long = make_video(tmp_path / "long.mp4", num_frames=40, seed=5)
    assert post(live, long.read_bytes()).json()["timeline"] is None
    answer = post(live, long.read_bytes(), params={"timeline": True, "top_k": 1}).json()
    assert [len(one["predictions"]) for one in answer["timeline"]["windows"]] == [1] * 4
    prediction = Predictor.from_run(served_run, device="cpu").predict(long, top_k=1)
    assert answer["predictions"] == [{"label": prediction.labels[0], "probability": prediction.probabilities[0]}]


def test_the_timeline_is_that_of_the_command(live: Live, tmp_path: Path, served_run: Path):
    long = make_video(tmp_path / "long.mp4", num_frames=50, seed=5)
    served = post(live, long.read_bytes(), params={"timeline": True, "top_k": 3}).json()["timeline"]
    assert (served["window_seconds"], served["every_seconds"]) == (1.0, 1.25)  # 4 windows and no more
    out = tmp_path / "timeline.json"
    cli.main([
        "predict", str(served_run), str(long), "--device", "cpu", "--windows", "--out", str(out), "--top-k", "3",
        "--seconds", str(served["window_seconds"]), "--every", str(served["every_seconds"]),
    ])  # fmt: skip
    wanted = json.loads(out.read_text())
    assert (served["seconds"], served["every_seconds"]) == (wanted["seconds"], wanted["every"])
    segments = [(one["start_seconds"], one["end_seconds"], one["label"]) for one in served["segments"]]
    assert segments == [(one["start"], one["end"], one["label"]) for one in wanted["segments"]]
    assert segments
    for ours, theirs in zip(served["segments"], wanted["segments"], strict=True):
        assert ours["probability"] == pytest.approx(theirs["score"], abs=1e-5)
    for ours, theirs in zip(served["windows"], wanted["predictions"], strict=True):
        assert (ours["start_seconds"], ours["end_seconds"], ours["label"]) == tuple(
            theirs[key] for key in ("start", "end", "label")
        )
        assert [one["label"] for one in ours["predictions"]] == [one["label"] for one in theirs["top"]]
        for one, other in zip(ours["predictions"], theirs["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_heat_maps(live: Live, clip: Path, served_run: Path):
    answer = post(live, clip.read_bytes(), "/v1/explain").json()
    prediction = Predictor.from_run(served_run, device="cpu").predict(clip, top_k=3)
    assert (answer["label"], answer["probability"]) == (prediction.labels[0], prediction.probabilities[0])
    assert len(answer["frames"]) == len(answer["heat_maps"]) == 4
    assert not set(answer["frames"]) & set(answer["heat_maps"])
    other = post(live, clip.read_bytes(), "/v1/explain", params={"label": prediction.labels[2]}).json()
    assert (other["label"], other["probability"]) == (prediction.labels[2], prediction.probabilities[2])
    assert other["frames"] == answer["frames"]
    assert other["heat_maps"] != answer["heat_maps"]


def test_heat_maps_of_an_unknown_class(live: Live, clip: Path):
    answer = post(live, clip.read_bytes(), "/v1/explain", params={"label": "wafe"})
    status, code, message = error_of(answer)
    assert (status, code) == (422, "unknown_label")
    assert "'wafe'" in message
    assert message.endswith("Did you mean 'wave'?")


def test_card(live: Live, served_run: Path):
    with live.client() as client:
        card = client.get("/v1/model").json()
    assert card["classes"] == list(CLASSES)
    assert (card["num_frames"], card["protocol"], card["vsn"]) == (4, "fcn", __version__)
    assert card["weights_sha256"] == weights_hash(open_run(served_run))
    assert card["num_views"] == PROTOCOLS["fcn"].num_views
    (measured,) = card["accuracy"]
    assert (measured["top1"], measured["num_videos"], measured["split"]) == (1.0, 30, "test")
    assert card["limits"]["max_upload_mb"] == LIMITS.max_upload_mb
    assert str(served_run.parent) not in json.dumps(card)


# --- what is refused ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad_uploads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bad")
    long = make_video(folder / "long.mp4", num_frames=130)
    wide = make_video(folder / "wide.mp4", num_frames=2, size=(480, 656))
    return {
        "long": long.read_bytes(),
        "wide": wide.read_bytes(),
        "text": b"no video at all",
        "large": bytes(1_200_000),
        "empty": b"",
        "crash": CRASH,
        "killed": KILLED,
        "fail": FAIL,
        "fill": FILL,
    }


@pytest.mark.parametrize(
    ("name", "status", "code", "values"),
    [
        ("long", 422, "too_long", r"13\.0 s.* 12 s"),
        ("wide", 422, "too_many_pixels", r"656x480 = 314880 .*307200"),
        ("text", 415, "not_a_video", "FFmpeg"),
        ("large", 413, "too_large", r"1\.2 MB.* 1 MB"),
        ("empty", 422, "bad_form", "'video' is empty"),
        ("crash", 422, "decoder_crashed", "SIGSEGV"),
        ("killed", 503, "decoder_killed", "SIGKILL"),
        ("fail", 422, "decoder_crashed", "unexpected error"),
        ("fill", 422, "decode_memory", r"400 MB of memory.* 400 MB"),
    ],
)
def test_refused_uploads(live: Live, bad_uploads, clip: Path, name, status, code, values):
    failures = live.metric("vsn_decode_failures_total", reason=code)
    answer = post(live, bad_uploads[name])
    *kind, message = error_of(answer)
    assert kind == [status, code]
    assert re.search(values, message)
    assert str(live.uploads) not in answer.text
    decoding = code in ("not_a_video", "decoder_crashed", "decoder_killed", "decode_memory")
    assert live.metric("vsn_decode_failures_total", reason=code) - failures == decoding
    labeled(post(live, clip.read_bytes()))
    assert live.files() == []


def test_an_upload_without_content_length_is_counted_as_it_arrives(live: Live, bad_uploads):
    with live.client() as client:
        answer = client.post("/v1/predict", content=in_pieces(bytes(5_000_000)), headers=PIECES)
    assert error_of(answer)[:2] == (413, "too_large")
    assert " 1 MB" in answer.text


@pytest.mark.parametrize(
    ("request_settings", "code", "values"),
    [
        ({"content": b"abc", "headers": {"content-type": "video/mp4"}}, "not_a_form", "'video/mp4'"),
        ({}, "not_a_form", "no type"),
        ({"files": {"file": b"abc"}}, "bad_form", "no files in the field 'video'"),
        ({"files": [("video", b"abc"), ("video", b"abc")]}, "bad_form", "2 files in the field 'video'"),
        ({"content": b"--x\r\nCont", "headers": PIECES}, "bad_form", "truncated"),
        ({"content": b"nothing of a form", "headers": PIECES}, "bad_form", "cannot be parsed"),
        (
            {"content": b"", "headers": {"content-type": f"multipart/form-data; boundary={'x' * 300}"}},
            "bad_form",
            "300",
        ),
    ],
)
def test_refused_forms(live: Live, request_settings, code, values):
    with live.client() as client:
        *kind, message = error_of(client.post("/v1/predict", **request_settings))
    assert kind == [{"not_a_form": 415, "bad_form": 422}[code], code]
    assert values in message


def test_refused_settings_and_routes(live: Live, clip: Path):
    found = error_of(post(live, clip.read_bytes(), params={"top_k": 0}))
    assert found[:2] == (422, "bad_setting")
    assert found[2].startswith("top_k is '0': ")
    with live.client() as client:
        assert error_of(client.get("/v1/labels"))[0] == 404
        assert error_of(client.get("/v1/predict"))[0] == 405


def test_a_file_that_hangs_times_out_and_other_requests_are_answered(live: Live, clip: Path):
    uploading = live.metric("vsn_stage_seconds_sum", stage="upload")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(post, live, HANG)
        wait_until(live.files, "the hanging file has come")
        labeled(post(live, clip.read_bytes()))
        found = error_of(hanging.result())
    assert found[:2] == (504, "decode_timeout")
    assert " 3 s" in found[2]
    assert live.metric("vsn_stage_seconds_sum", stage="upload") - uploading < 3  # without the time of decoding
    labeled(post(live, clip.read_bytes()))


def test_a_decoder_that_is_killed_once_costs_no_request(live: Live, clip: Path, tmp_path: Path):
    marker = tmp_path / "killed"
    answer = post(live, KILLED_ONCE + bytes(marker) + b"\n" + clip.read_bytes())
    assert marker.exists()
    assert labeled(answer) == labeled(post(live, clip.read_bytes()))


class SlowUpload:
    """An upload that stops in the middle."""

    def __init__(self, live: Live, content: bytes = b"begun", *, length: int = 1000) -> None:
        host, port = live.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)))
        head = f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nX-Request-Id: leaver\r\n"
        self.socket.sendall(f"{head}Content-Type: {PIECES['content-type']}\r\n\r\n".encode())
        self.socket.sendall(next(in_pieces(b"")) + content)

    def hang_up(self) -> None:
        self.socket.close()


def test_more_than_max_requests_are_refused(live: Live, clip: Path):
    gone = live.metric("vsn_requests_total", path="/v1/predict", status="499")
    slow = [SlowUpload(live) for _ in range(LIMITS.max_requests)]
    wait_until(lambda: live.metric("vsn_videos_in_progress") == 6, "six uploads have begun")
    answer = post(live, clip.read_bytes())
    assert error_of(answer)[:2] == (503, "busy")
    assert "6 videos at once" in answer.text
    assert answer.headers["retry-after"] == "2"
    for one in slow:
        one.hang_up()
    wait_until(lambda: live.metric("vsn_videos_in_progress") == 0, "those who hung up are forgotten")
    assert live.files() == []
    counted = lambda: live.metric("vsn_requests_total", path="/v1/predict", status="499")  # noqa: E731
    wait_until(lambda: counted() - gone == 6, "they are counted")
    labeled(post(live, clip.read_bytes()))


def test_a_disconnect_during_decoding_leaves_no_file(live: Live, tmp_path: Path):
    gate = tmp_path / "gate"
    gone = live.metric("vsn_requests_total", path="/v1/predict", status="499")
    whole, begin = b"".join(in_pieces(WAIT + bytes(gate))), next(in_pieces(b""))
    upload = SlowUpload(live, whole[len(begin) :], length=len(whole))
    with live.client() as client:
        wait_until(lambda: client.get("/v1/progress/leaver").json()["stage"] == "decode", "it is read")
    upload.hang_up()
    wait_until(lambda: live.metric("vsn_videos_in_progress") == 0, "the request is forgotten")
    assert live.files() == []
    wait_until(lambda: live.metric("vsn_requests_total", path="/v1/predict", status="499") - gone == 1, "it is counted")
    gate.touch()


def test_progress_by_request_id(live: Live, tmp_path: Path):
    gate = tmp_path / "gate"
    with live.client() as client, ThreadPoolExecutor(1) as pool:
        assert client.get("/v1/progress/one").json() == {"stage": "unknown", "done": 0, "total": 0}
        running = pool.submit(post, live, WAIT + bytes(gate), headers={"x-request-id": "one"})
        wait_until(lambda: client.get("/v1/progress/one").json()["stage"] == "decode", "it says that it decodes")
        gate.touch()
        assert error_of(running.result())[0] == 415
        assert client.get("/v1/progress/one").json()["stage"] == "unknown"


# --- who may ask, and what they learn ----------------------------------------------------------------


def test_uploads_are_in_a_private_folder_under_random_names(live: Live, tmp_path: Path):
    (folder,), gate = live.uploads.iterdir(), tmp_path / "gate"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with live.client() as client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/v1/predict", files={"video": ("../../evil.mp4", WAIT + bytes(gate))})
        wait_until(live.files, "the file is there")
        (file,) = live.files()
        assert (file.parent, stat.S_IMODE(file.stat().st_mode)) == (folder, 0o600)
        assert "evil" not in " ".join(str(path) for path in live.uploads.rglob("*"))
        gate.touch()
        running.result()
    assert live.files() == []


@pytest.mark.parametrize("path", ["/", "/v1/model", "/nowhere", "/serve.js"])
def test_headers_of_every_answer(live: Live, path: str):
    with live.client() as client:
        headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers or headers["server"] == "uvicorn"


def test_pages_of_other_sites_are_refused(live: Live, clip: Path):
    found = error_of(post(live, clip.read_bytes(), headers={"origin": "https://evil.example"}))
    assert found[:2] == (403, "other_origin")
    labeled(post(live, clip.read_bytes(), headers={"origin": live.url}))
    found = error_of(post(live, clip.read_bytes(), headers={"host": "evil.example"}))
    assert found[:2] == (421, "unknown_host")


MALFORMED = ["[::1", "http://[x", "[", "]", "[::1]x", "[zz]", "a:b:c", "http://a@[", "\x7f", "a b", "[::1]:99999999"]


@pytest.mark.parametrize("header", ["Host", "Origin"])
@pytest.mark.parametrize("value", MALFORMED)
@pytest.mark.parametrize("path", ["/v1/model", "/nowhere"])
def test_malformed_hosts_and_origins_are_refused_in_one_line(
    live: Live, header: str, value: str, path: str, caplog: pytest.LogCaptureFixture
):
    address = live.url.removeprefix("http://")
    fields = {"Host": address, "Origin": live.url, header: value}
    lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.split()[1] in ("400", "403", "421")
    assert not [record for record in caplog.records if record.exc_info]


def test_a_malformed_host_is_refused_where_any_host_is_allowed():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("reached")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    guards = Guards(app, metrics=Metrics(max_batch=1), paths=[], config=ServeConfig(host="0.0.0.0"))
    scope = {"type": "http", "path": "/", "method": "GET", "headers": [(b"host", b"[::1")]}
    asyncio.run(guards(scope, None, send))
    assert sent[0]["status"] == 400


def test_openapi_describes_every_route_with_examples(live: Live):
    with live.client() as client:
        api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {
        "/v1/predict",
        "/v1/explain",
        "/v1/model",
        "/v1/progress/{request_id}",
        "/healthz",
        "/readyz",
    }
    predict = api["paths"]["/v1/predict"]["post"]
    assert "video" in predict["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"200", "408", "413", "415", "422", "503", "504"} <= set(predict["responses"])
    schemas = api["components"]["schemas"]
    assert schemas["Prediction"]["examples"][0]["predictions"][0]["label"]
    assert schemas["Error"]["examples"][0]["error"]["code"] == "too_long"


def test_health_and_metrics(live: Live):
    with live.client() as client:
        assert client.get("/healthz").json() == {"status": "ok", "reason": ""}
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready")
        text = client.get("/metrics").text
    for name in (
        'vsn_requests_total{path="/readyz",status="200"}',
        'vsn_request_seconds_bucket{le="0.1",path="/readyz"}',
        "vsn_model_queue_length 0.0",
        "vsn_decode_queue_length",
        "vsn_batch_clips_bucket",
        'vsn_decode_failures_total{reason="decode_timeout"}',
        "vsn_upload_files 0.0",
    ):
        assert name in text
    if os.path.exists("/proc/self/stat"):
        assert "process_resident_memory_bytes" in text
