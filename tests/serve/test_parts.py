"""Batches, uploads, timelines and settings, each by itself; starting and stopping."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from tests.helpers.fake_runs import write_eval
from tests.helpers.tiny_runs import tiny_recipe
from tests.helpers.videos import with_matrix
from tests.serve.conftest import LIMITS, LiveServer, make_video, wait_until
from vsn import Predictor, cli
from vsn.config import ConfigError, ServeConfig, WindowConfig
from vsn.data.video import VideoError, write_video
from vsn.models import build_model
from vsn.runs.checkpoint import save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run, open_run
from vsn.serve.batching import Batcher
from vsn.serve.decoding import Decoded, DecodeJob, decode_upload, small_frames
from vsn.serve.guards import Guards
from vsn.serve.metrics import Metrics
from vsn.serve.models import ServedModel, has_windows, open_model
from vsn.serve.problems import Problem
from vsn.serve.service import Service
from vsn.serve.service import make_timeline as make_served_timeline
from vsn.serve.uploads import UploadFolder, receive_video
from vsn.stream.timeline import make_timeline
from vsn.system.lock import LOCK_FILE

# --- batches -----------------------------------------------------------------------------------------


class Gate:
    """Doubles numbers, once it is opened; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.open.wait(60)
        if 13 in numbers:
            raise ArithmeticError("unlucky")
        return [2 * number for number in numbers]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(gate, max_batch=3, wait_ms=1.0)
    yield batcher
    gate.open.set()
    batcher.close()


def test_waiting_items_form_batches_in_order(gate: Gate, batcher: Batcher[int, int]):
    first = batcher.submit(0)
    assert gate.begun.wait(60)
    others = [batcher.submit(number) for number in range(1, 6)]
    assert batcher.num_waiting == 5
    gate.open.set()
    assert [one.result(60) for one in [first, *others]] == [0, 2, 4, 6, 8, 10]
    assert gate.batches == [[0], [1, 2, 3], [4, 5]]


def test_an_error_fails_only_its_item(gate: Gate, batcher: Batcher[int, int]):
    first = batcher.submit(0)
    assert gate.begun.wait(60)
    good, bad, other = (batcher.submit(number) for number in (1, 13, 2))
    gate.open.set()
    assert [one.result(60) for one in (first, good, other)] == [0, 2, 4]
    with pytest.raises(ArithmeticError, match="unlucky"):
        bad.result(60)
    assert gate.batches == [[0], [1, 13, 2], [1], [13], [2]]
    assert batcher.submit(4).result(60) == 8


def test_a_score_too_few_fails_the_batch():
    batcher: Batcher[int, int] = Batcher(lambda numbers: numbers[1:], max_batch=3, wait_ms=0.0)
    with pytest.raises(ValueError, match="shorter"):
        batcher.submit(0).result(60)
    batcher.close()


def test_cancelled_items_are_not_scored(gate: Gate, batcher: Batcher[int, int]):
    batcher.submit(0)
    assert gate.begun.wait(60)
    cancelled, kept = batcher.submit(1), batcher.submit(2)
    assert cancelled.cancel()
    gate.open.set()
    assert kept.result(60) == 4
    assert gate.batches == [[0], [2]]


def test_calls_take_turns_with_batches_in_the_same_thread(gate: Gate, batcher: Batcher[int, int]):
    batcher.submit(0)
    assert gate.begun.wait(60)
    call = batcher.call(lambda: (len(gate.batches), threading.current_thread()))
    after = batcher.submit(1)
    gate.open.set()
    assert (call.result(60), after.result(60)) == ((1, gate.thread), 2)
    assert gate.batches == [[0], [1]]


def test_closing_cancels_waiting_items(gate: Gate):
    batcher: Batcher[int, int] = Batcher(gate, max_batch=1, wait_ms=0.0)
    running = batcher.submit(0)
    assert gate.begun.wait(60)
    waiting = batcher.submit(1)
    threading.Timer(0.1, gate.open.set).start()
    batcher.close()
    assert running.result(0) == 0
    with pytest.raises(CancelledError):
        waiting.result(0)
    assert batcher.submit(2).cancelled()
    assert batcher.call(gate.batches.clear).cancelled()


# --- uploads -----------------------------------------------------------------------------------------


def receive(content: bytes, target: Path, *, size: int = 50, fail_after: int = 10**9, seconds: float = 60) -> int:
    """An upload in pieces of `size` bytes; the sender stops after `fail_after` bytes."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), size):
            if start >= fail_after:
                await asyncio.sleep(3600)
            yield content[start : start + size]

    return asyncio.run(
        receive_video(
            chunks(),
            target,
            content_type='multipart/form-data; boundary="edge"',
            content_length="",
            max_bytes=1000,
            max_seconds=seconds,
        )
    )


def form(content: bytes, *, name: str = "video", before: bytes = b"") -> bytes:
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="../../x"\r\n'
    return before + head.encode() + b"Content-Type: text/html\r\n\r\n" + content + b"\r\n--edge--\r\n"


@given(content=st.binary(min_size=1, max_size=1000), size=st.integers(1, 1100))
def test_an_upload_is_written_unchanged_for_any_chunks(tmp_path_factory, content: bytes, size: int):
    target = tmp_path_factory.getbasetemp() / "received"
    other = b'--edge\r\nContent-Disposition: form-data; name="note"\r\n\r\nnot this\r\n'
    assert receive(form(content, before=other), target, size=size) == len(content)
    assert target.read_bytes() == content


def test_an_upload_beyond_the_limit_is_not_written(tmp_path: Path):
    with pytest.raises(Problem, match=r"\b1 KB") as caught:
        receive(form(bytes(100_000)), tmp_path / "received")
    assert caught.value.status == 413
    assert (tmp_path / "received").stat().st_size <= 1000


def test_other_fields_count_against_the_limit(tmp_path: Path):
    with pytest.raises(Problem, match=r"\b1 KB") as caught:
        receive(form(bytes(100_000), name="other"), tmp_path / "received", size=5000)
    assert caught.value.status == 413
    assert (tmp_path / "received").stat().st_size == 0


def test_an_upload_that_takes_too_long(tmp_path: Path):
    with pytest.raises(Problem, match=r"0\.1 s") as caught:
        receive(form(bytes(500)), tmp_path / "received", fail_after=200, seconds=0.1)
    assert caught.value.status == 408


def test_only_folders_of_killed_services_are_deleted(tmp_path: Path):
    living = UploadFolder(tmp_path)
    for name in ("vsn-serve-dead", "vsn-serve-just-starting", "other-thing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "upload-1").touch()
        (tmp_path / name / LOCK_FILE).touch()
    hour_ago = time.time() - 3600
    for folder in (tmp_path / "vsn-serve-dead", tmp_path / "other-thing", living.path):
        os.utime(folder, (hour_ago, hour_ago))
    second = UploadFolder(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {living.path.name, second.path.name, "vsn-serve-just-starting", "other-thing"}
    with living.file() as path:
        assert living.num_files == 1
        path.unlink()  # gone already is no error
    living.close()
    second.close()
    assert {path.name for path in tmp_path.iterdir()} == {"vsn-serve-just-starting", "other-thing"}


def test_without_locks_no_folder_is_taken_for_that_of_a_killed_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    folder = tmp_path / "vsn-serve-other"
    folder.mkdir()
    (folder / LOCK_FILE).touch()
    os.utime(folder, (0, 0))
    with monkeypatch.context() as patched:
        patched.setattr("vsn.system.lock._lock", none)
        UploadFolder(tmp_path).close()
    assert folder.is_dir()
    UploadFolder(tmp_path).close()
    assert not folder.exists()


# --- the body of a request that is refused -------------------------------------------------------------


def refuse(num_pieces: float, monkeypatch: pytest.MonkeyPatch, *, drain_seconds: float) -> list[str]:
    """An application that answers 413 at once to an upload of so many pieces: what happens, in order."""
    monkeypatch.setattr("vsn.serve.guards._DRAIN_SECONDS", drain_seconds)
    happened: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({}, 413)(scope, receive, send)

    async def receive() -> Message:
        await asyncio.sleep(0)
        happened.append("piece")
        return {"type": "http.request", "body": b"x", "more_body": len(happened) < num_pieces}

    async def send(message: Message) -> None:
        happened.append(message["type"])

    guards = Guards(app, metrics=Metrics(max_batch=1), paths=[], config=ServeConfig(host="0.0.0.0"))
    scope = {"type": "http", "path": "/", "headers": [(b"transfer-encoding", b"chunked"), (b"host", b"a")]}
    asyncio.run(guards(scope, receive, send))
    return happened


def test_a_refused_upload_is_drained_before_the_response(monkeypatch: pytest.MonkeyPatch):
    happened = refuse(3, monkeypatch, drain_seconds=60)
    assert happened == ["piece"] * 3 + ["http.response.start", "http.response.body"]


def test_an_endless_refused_upload_gets_a_response(monkeypatch: pytest.MonkeyPatch):
    happened = refuse(float("inf"), monkeypatch, drain_seconds=0.05)
    assert happened[-2:] == ["http.response.start", "http.response.body"]


# --- the model -----------------------------------------------------------------------------------------


def test_clips_of_several_sizes_score_as_one_by_one(served_run: Path):
    model = open_model(served_run, device="cpu")
    generator = np.random.default_rng(0)
    shapes = [(4, 3, 36, 54), (4, 3, 54, 36), (4, 3, 36, 54), (2, 4, 3, 36, 36), (4, 3, 54, 36)]
    clips = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    together = model.score(clips)
    assert [scores.tolist() for scores in together] == [model.score([clip])[0].tolist() for clip in clips]


def test_the_reason_of_a_decoding_error_has_no_server_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, *, short_side: int) -> None:
        raise VideoError(path, f"No space left: {str(path)!r}")

    monkeypatch.setattr("vsn.serve.decoding.open_video", fail)
    found = decode_upload(DecodeJob(path=tmp_path / "upload-1", recipe=tiny_recipe(tmp_path), limits=ServeConfig()))
    assert isinstance(found, Problem)
    assert "No space left: 'the file'" in str(found)
    assert str(tmp_path) not in str(found)


def test_a_mirrored_upload_is_read_mirrored(tmp_path: Path):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 200  # top left
    write_video(tmp_path / "stored.mp4", [picture] * 8, frames_per_second=10)
    mirrored = with_matrix(tmp_path / "stored.mp4", tmp_path / "mirrored.mp4", (-1, 0, 0, 1))
    recipe = tiny_recipe(tmp_path)
    clips = []
    for path in (tmp_path / "stored.mp4", mirrored):
        found = decode_upload(DecodeJob(path=path, recipe=recipe, limits=ServeConfig()))
        assert isinstance(found, Decoded)
        clips.append(found.clip[..., ::-1] if path == mirrored else found.clip)
    assert np.abs(clips[0].astype(int) - clips[1]).mean() < 3


# --- timelines -----------------------------------------------------------------------------------------


def decoded(path: Path, model: ServedModel, limits: ServeConfig) -> Decoded:
    found = decode_upload(DecodeJob(path=path, recipe=model.recipe, limits=limits, timeline=True))
    assert isinstance(found, Decoded), found
    return found


@pytest.fixture
def differences_run(tmp_path: Path) -> Path:
    """Random weights on two differences of frames at each of four instants."""
    recipe = tiny_recipe(Path("nowhere"))
    recipe = replace(recipe, model=replace(recipe.model, modality="rgbdiff", flow_length=2))
    run = new_run(tmp_path / "differences", recipe, ("swipe left", "swipe right", "wave"))
    write_run(run)
    torch.manual_seed(0)
    model = build_model(run.recipe.model)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    save_weights(run, model)
    return run.path


def test_heat_maps_of_a_model_on_differences_lie_over_its_first_frames(differences_run: Path, tmp_path: Path):
    model = open_model(differences_run, device="cpu")
    model.check_heat_maps()
    clip = decoded(make_video(tmp_path / "v.mp4", num_frames=20, rate=10.0), model, LIMITS).clip
    heat = model.heat_maps(clip, 0)
    assert heat.shape == small_frames(clip).shape
    assert (heat != small_frames(clip)).any()


def test_frames_too_far_apart_for_a_window_of_differences_have_no_timeline(differences_run: Path, tmp_path: Path):
    slow = make_video(tmp_path / "slow.mp4", num_frames=20, rate=2.0)
    assert decoded(slow, open_model(differences_run, device="cpu"), LIMITS).windows is None


@pytest.mark.parametrize("run", ["served_run", "differences_run"])
@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("most", [4, 100])
def test_timelines_equal_those_of_predict(
    request: pytest.FixtureRequest, tmp_path: Path, run: str, seed: int, most: int
):
    served_run = request.getfixturevalue(run)
    every = {("served_run", 4): 1.25, ("served_run", 100): 0.25, ("differences_run", 4): 1.2}.get((run, most), 0.2)
    long = make_video(tmp_path / "long.mp4", num_frames=50, seed=seed)
    model, limits = open_model(served_run, device="cpu"), replace(LIMITS, max_windows=most)
    windows = decoded(long, model, limits).windows
    assert windows is not None
    served = make_served_timeline(windows, model.score(windows.clips), classes=model.classes, top_k=2)
    assert served is not None
    assert (served.window_seconds, served.every_seconds) == (1.0, pytest.approx(every))
    assert len(served.windows) <= most
    config = WindowConfig(seconds=served.window_seconds, every=served.every_seconds)
    wanted = make_timeline(Predictor.from_run(served_run, device="cpu"), long, windows=config)
    assert served.seconds == wanted.seconds
    assert [(one.start_seconds, one.end_seconds, one.label) for one in served.segments] == [
        (one.start, one.end, one.label) for one in wanted.segments
    ]
    assert [one.probability for one in served.segments] == pytest.approx(
        [one.score for one in wanted.segments], abs=1e-5
    )
    for ours, theirs in zip(served.windows, wanted.predictions, strict=True):
        assert (ours.start_seconds, ours.end_seconds, ours.label) == (theirs.start, theirs.end, theirs.label)
        best = np.sort(theirs.smoothed)[::-1][:2]
        assert [one.probability for one in ours.predictions] == pytest.approx(best, abs=1e-5)


def test_a_video_shorter_than_a_window_has_no_timeline(served_run: Path, tmp_path: Path):
    model = open_model(served_run, device="cpu")
    long = make_video(tmp_path / "long.mp4", num_frames=40)
    windows = decoded(long, model, replace(LIMITS, window_seconds=9.0)).windows
    assert windows is not None
    assert make_served_timeline(windows, [], classes=model.classes, top_k=1) is None
    short = make_video(tmp_path / "short.mp4", num_frames=20)
    assert decoded(short, model, LIMITS).windows is None


@pytest.mark.parametrize(("part", "settings"), [("model", {"modality": "flow"}), ("eval", {"protocol": "3crop-2clip"})])
def test_runs_without_windows_have_no_timeline(served_run: Path, part: str, settings: dict):
    recipe = open_run(served_run).recipe
    assert has_windows(recipe)
    assert not has_windows(replace(recipe, **{part: replace(getattr(recipe, part), **settings)}))


# --- settings, starting, stopping --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"port": 70000}, r"port.*70000"),
        ({"host": ""}, "host"),
        ({"max_requests": 0}, r"max_requests.*0"),
        ({"decode_seconds": 0}, r"decode_seconds.*0"),
        ({"batch_wait_ms": -1}, r"batch_wait_ms.*-1"),
    ],
)
def test_invalid_settings(setting, message):
    with pytest.raises(ConfigError, match=message):
        ServeConfig(**setting)


def test_the_default_host_is_loopback():
    assert ServeConfig().host == "127.0.0.1"


def test_startup_errors_are_one_line(served_run: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match=rf"127\.0\.0\.1.*{port}.*--port"):
            cli.main(["serve", str(served_run), "--port", port])
    with pytest.raises(SystemExit, match=r"nowhere.* (is not|is neither) a"):
        cli.main(["serve", str(tmp_path / "nowhere")])


def test_a_service_that_stops_answers_503_to_clips_that_wait(served_run: Path, tmp_path: Path):
    model = open_model(served_run, device="cpu")
    begun, release = threading.Event(), threading.Event()

    def score(clips: list[np.ndarray]) -> list[np.ndarray]:
        begun.set()
        assert release.wait(60)
        return model.score(clips)

    (tmp_path / "uploads").mkdir()
    service = Service(replace(model, score=score), replace(LIMITS, max_batch=1), uploads=tmp_path / "uploads")
    video = make_video(tmp_path / "long.mp4", num_frames=50)
    with LiveServer(service) as url, ThreadPoolExecutor(1) as pool:
        wait_until(lambda: not service.why_not_ready(), "it is ready")
        settings = {"files": {"video": video.read_bytes()}, "params": {"timeline": True}, "timeout": 60}
        running = pool.submit(httpx.post, f"{url}/v1/predict", **settings)
        assert begun.wait(60)
        threading.Timer(0.1, release.set).start()
        service.close()
        answer = running.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
    assert list((tmp_path / "uploads").iterdir()) == []


def test_clips_of_a_failed_request_are_not_scored(served_run: Path, tmp_path: Path):
    batches: list[int] = []
    answered = threading.Event()

    def score(clips: list[np.ndarray]) -> list[np.ndarray]:
        batches.append(len(clips))
        if len(batches) == 1:
            raise ArithmeticError("out of memory")
        assert answered.wait(60)  # the thread of the model may be one batch ahead of the event loop
        return [np.zeros(3, np.float32) for _ in clips]

    model = replace(open_model(served_run, device="cpu"), score=score)
    service = Service(model, replace(LIMITS, max_batch=1), uploads=tmp_path)
    video = make_video(tmp_path / "long.mp4", num_frames=50)
    with LiveServer(service) as url:
        wait_until(lambda: not service.why_not_ready(), "it is ready")
        settings = {"files": {"video": video.read_bytes()}, "params": {"timeline": True}, "timeout": 60}
        assert httpx.post(f"{url}/v1/predict", **settings).status_code == 500
        answered.set()
        wait_until(lambda: service.metrics.registry.get_sample_value("vsn_model_queue_length") == 0, "no clip waits")
    assert len(batches) <= 2


def test_without_the_extra_the_error_names_it(served_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "vsn.serve.server")  # other tests imported it
    with pytest.raises(SystemExit, match=r"uvicorn.*pip install .vsn-video\[serve\]"):
        cli.main(["serve", str(served_run)])


@pytest.mark.slow
def test_the_command_serves_warns_and_leaves_nothing_when_it_is_stopped(served_run: Path, clip: Path, tmp_path: Path):
    command = [sys.executable, "-m", "vsn", "serve", str(served_run), "--port", "0", "--host", "0.0.0.0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stderr is not None
            url = running.stderr.readline().split(" at ")[1].split()[0].replace("0.0.0.0", "127.0.0.1")
            assert "Warning: 0.0.0.0" in running.stderr.readline()

            def is_ready() -> bool:
                try:
                    return httpx.get(f"{url}/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_ready, "it is ready")
            answer = httpx.post(f"{url}/v1/predict", files={"video": clip.read_bytes()}, timeout=60)
            assert answer.status_code == 200
            assert len(list(tmp_path.glob("vsn-serve-*"))) == 1
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(60)
        assert running.stderr.read() == "vsn: stopped; answers to uploads: 1 200\n"
    # Not even folders of the process pool.
    assert (running.returncode, list(tmp_path.iterdir())) == (0, [])


def test_the_card_of_a_multi_label_run_has_its_map(tmp_path: Path):
    recipe = tiny_recipe(tmp_path)
    run = new_run(tmp_path / "run", replace(recipe, data=replace(recipe.data, task="multilabel")), ("a", "b", "c"))
    write_run(run)
    save_weights(run, build_model(run.recipe.model))
    labels = np.eye(3, dtype=bool)
    write_eval(run.path, "forward", np.array([[1, 0, 0], [0, 1, 0], [0, 2, 1]]), labels, run.classes)
    (measured,) = open_model(run.path, device="cpu").card.accuracy
    assert measured.mean_average_precision == pytest.approx((1 + 1 / 2 + 1) / 3)
