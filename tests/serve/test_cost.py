"""What a request may cost: pixels before they are computed, time in the model, and work that nobody waits for."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import LIMITS, LiveServer, make_video, wait_until
from vsn import cli
from vsn.config import ConfigError, ServeConfig
from vsn.data.video import write_video
from vsn.data.views import PROTOCOLS, num_view_pixels
from vsn.inference.inputs import views_of_video
from vsn.runs.run import open_run
from vsn.serve.decoding import Decoded, DecodeJob, decode_upload
from vsn.serve.models import open_model
from vsn.serve.problems import Problem
from vsn.serve.service import Service


def thin_picture(path: Path, width: int, height: int) -> Path:
    """A PNG of one color: hundreds of bytes at any size."""
    Image.new("RGB", (width, height), (90, 120, 40)).save(path)
    return path


# --- pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8000, 16), (16, 8000), (2000, 16), (65500, 16)])
def test_predict_and_stream_refuse_a_picture_that_would_be_blown_up(
    served_run: Path, tmp_path: Path, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
):
    picture = thin_picture(tmp_path / "thin.png", *size)
    assert picture.stat().st_size < 4000
    with pytest.raises(SystemExit):
        cli.main(["predict", str(served_run), str(picture), "--device", "cpu"])
    stated = f"{size[1]}x{size[0]} pixels would have"
    assert stated in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1600, 16), (16, 1600)])
def test_stream_refuses_frames_that_would_be_blown_up(served_run: Path, tmp_path: Path, size: tuple[int, int]):
    video = tmp_path / "thin.mp4"
    write_video(video, np.full((20, size[1], size[0], 3), 90, np.uint8), frames_per_second=10)
    with pytest.raises(SystemExit, match=f"{size[1]}x{size[0]} pixels would have"):
        cli.main(["stream", str(served_run), str(video), "--device", "cpu", "--seconds", "1"])


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_counted_pixels_bound_those_that_are_read(served_run: Path, tmp_path: Path, protocol: str):
    recipe = open_run(served_run).recipe
    if PROTOCOLS[protocol].num_frames:
        recipe = replace(recipe, model=replace(recipe.model, name="tsn_resnet14_tiny"))
    recipe = replace(recipe, eval=replace(recipe.eval, protocol=protocol))
    clip = views_of_video(make_video(tmp_path / "wide.mp4", size=(32, 96)), recipe, recipe.eval)
    num_pixels = clip.size // clip.shape[-3]
    counted = num_view_pixels(recipe, 32, 96)
    assert num_pixels <= counted
    if PROTOCOLS[protocol].crops == "whole":
        assert num_pixels == counted


@pytest.mark.parametrize(
    ("size", "accepted"),
    [((16, 64), True), ((64, 16), True), ((16, 66), False), ((66, 16), False), ((16, 2000), False)],
)
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_an_upload_of_more_pixels_than_the_model_takes_is_refused(
    served_run: Path, tmp_path: Path, size: tuple[int, int], accepted: bool, suffix: str
):
    path = tmp_path / f"upload{suffix}"
    if suffix == ".png":
        thin_picture(path, size[1], size[0])
    else:
        write_video(path, np.full((3, *size, 3), 90, np.uint8), frames_per_second=10)
    recipe = open_run(served_run).recipe
    result = decode_upload(DecodeJob(path=path, recipe=recipe, limits=ServeConfig(), timeline=True))
    if accepted:
        assert isinstance(result, Decoded)
        return
    assert isinstance(result, Problem)
    assert (result.status, result.code) == (422, "too_many_model_pixels")
    # Resized, times four frames; the limit is four times a square of 36 pixels.
    long_side = 36 * max(size) // min(size)
    assert f"{36 * long_side * 4}" in result.received
    assert f"{4 * 36 * 36 * 4}" in result.limit


def test_the_limit_of_pixels_is_an_option(served_run: Path, tmp_path: Path):
    path = make_video(tmp_path / "upload.mp4", size=(32, 48))
    recipe = open_run(served_run).recipe
    needed = num_view_pixels(recipe, 32, 48)
    for most, kind in ((needed, Decoded), (needed - 1, Problem)):
        limits = ServeConfig(max_model_pixels=most)
        assert isinstance(decode_upload(DecodeJob(path=path, recipe=recipe, limits=limits)), kind)
    with pytest.raises(ConfigError, match=r"max_model_pixels.*0"):
        ServeConfig(max_model_pixels=0)


# --- time in the model -------------------------------------------------------------------------------


class Gate:
    """The scores of a model that computes only while it is open."""

    def __init__(self) -> None:
        self.clips: list[int] = []
        """Clips of each batch."""
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, clips: list[np.ndarray]) -> list[np.ndarray]:
        self.clips.append(len(clips))
        self.begun.set()
        assert self.open.wait(60)
        return [np.zeros(3, np.float32) for _ in clips]


@contextmanager
def gated(served_run: Path, uploads: Path, **limits: object) -> Iterator[tuple[str, Service, Gate]]:
    gate = Gate()
    model = replace(open_model(served_run, device="cpu"), score=gate)
    service = Service(model, replace(LIMITS, **{"max_batch": 1, **limits}), uploads=uploads)
    with LiveServer(service) as url:
        wait_until(lambda: not service.why_not_ready(), "it is ready")
        try:
            yield url, service, gate
        finally:
            gate.open.set()


def upload(url: str, video: Path, **settings: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/predict", files={"video": video.read_bytes()}, timeout=60, **settings)


def metric(service: Service, name: str) -> float:
    return service.metrics.registry.get_sample_value(name) or 0.0


def test_a_request_has_a_limit_of_model_time(served_run: Path, clip: Path, tmp_path: Path):
    with gated(served_run, tmp_path, predict_seconds=0.3) as (url, service, gate), ThreadPoolExecutor(2) as pool:
        first = pool.submit(upload, url, clip)
        assert gate.begun.wait(60)
        second = pool.submit(upload, url, clip)
        for answer in (first.result(), second.result()):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (504, "predict_timeout")
            assert "0.3 s" in error["limit"]
        # The batch runs on: that is visible, and nobody is sent here.
        assert metric(service, "vsn_model_busy_seconds") > 0.3
        answer = httpx.get(f"{url}/readyz")
        assert answer.status_code == 503
        assert "0.3 s" in answer.json()["reason"]
        gate.open.set()
        wait_until(lambda: not service.why_not_ready(), "it is ready again")
        assert metric(service, "vsn_model_busy_seconds") == 0
        assert upload(url, clip).status_code == 200
    assert gate.clips == [1, 1]  # the second request had timed out before its batch


def test_clips_of_a_client_that_left_are_not_computed(served_run: Path, clip: Path, tmp_path: Path):
    with gated(served_run, tmp_path) as (url, service, gate), ThreadPoolExecutor(2) as pool:
        first = pool.submit(upload, url, clip)
        assert gate.begun.wait(60)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/predict", files={"video": clip.read_bytes()}, timeout=1)
        wait_until(lambda: metric(service, "vsn_videos_in_progress") == 1, "the second is forgotten")
        gate.open.set()
        assert first.result().status_code == 200
        assert upload(url, clip).status_code == 200
    assert gate.clips == [1, 1]


# --- memory ------------------------------------------------------------------------------------------


def test_few_timelines_wait_in_memory_and_keep_no_others_out(served_run: Path, clip: Path, tmp_path: Path):
    long = make_video(tmp_path / "long.mp4", num_frames=50)  # its clip and those of 4 windows
    (tmp_path / "uploads").mkdir()
    limits = {"decode_workers": 1, "max_requests": 8, "max_batch": 4}
    with gated(served_run, tmp_path / "uploads", **limits) as (url, service, gate), ThreadPoolExecutor(6) as pool:
        running = [pool.submit(upload, url, long, params={"timeline": True}) for _ in range(5)]

        def num_decoded() -> float:
            return sum(gate.clips) + metric(service, "vsn_model_queue_length")

        wait_until(lambda: num_decoded() == 2 * 5, "two are decoded")
        wait_until(lambda: metric(service, "vsn_videos_in_progress") == 5, "all have begun")
        running.append(pool.submit(upload, url, clip))
        wait_until(lambda: num_decoded() == 2 * 5 + 1, "another video is decoded")
        gate.open.set()
        answers = [one.result() for one in running]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [len(answer.json()["timeline"]["windows"]) for answer in answers[:5]] == [4] * 5


# --- one request does not cost the others --------------------------------------------------------------


def test_a_clip_that_fails_costs_only_its_own_request(served_run: Path, tmp_path: Path):
    model = open_model(served_run, device="cpu")
    bad_size = model.recipe.clip.short_side * 2

    def score(clips: list[np.ndarray]) -> list[np.ndarray]:
        if any(bad_size in clip.shape for clip in clips):
            raise RuntimeError("planted")
        return model.score(clips)

    service = Service(replace(model, score=score), replace(LIMITS, batch_wait_ms=2000.0), uploads=tmp_path)
    good, bad = make_video(tmp_path / "good.mp4"), make_video(tmp_path / "bad.mp4", size=(32, 64))
    with LiveServer(service) as url, ThreadPoolExecutor(4) as pool:
        wait_until(lambda: not service.why_not_ready(), "it is ready")
        answers = list(pool.map(lambda path: upload(url, path).status_code, [good, bad, good, good]))
    assert answers == [200, 500, 200, 200]
