"""Several sources on one model: the labels of each alone, windows scored together, and failures that stay where they are."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import vsn
from tests.helpers.rtsp import rtsp_server
from vsn import cli
from vsn.config import EvalConfig, LiveConfig, WindowConfig
from vsn.data.video import VideoError, write_video
from vsn.export.export import ExportReport
from vsn.inference.predictor import Predictor
from vsn.stream.labels import WindowPrediction
from vsn.stream.scorer import WindowScorer, score_windows
from vsn.stream.stream import Stream, run_streams
from vsn.system.interrupt import StopRequest

WINDOWS = WindowConfig(seconds=0.8, smooth=0.5)
FAST = LiveConfig(fast=True)


@pytest.fixture(scope="module", params=["run", "onnx"])
def predictor(request: pytest.FixtureRequest, exported_run: ExportReport) -> Predictor:
    if request.param == "onnx":
        return vsn.Predictor.from_file(exported_run.path)
    return vsn.Predictor.from_run(exported_run.path.parents[1], device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise of three lengths, rates and shapes."""
    folder, generator = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for name, num_frames, rate, width in (("a", 40, 20, 12), ("b", 30, 10, 12), ("c", 50, 25, 18)):
        images = generator.integers(0, 256, (num_frames, 9, width, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
        write_video(folder / f"{name}.mp4", list(images), frames_per_second=rate)
    return sorted(folder.iterdir())


def opened(predictor: Predictor, source: Path | str, live: LiveConfig = FAST) -> Stream:
    return Stream(predictor, source, windows=WINDOWS, live=live)


def alone(predictor: Predictor, source: Path) -> list[WindowPrediction]:
    found: list[WindowPrediction] = []
    opened(predictor, source).run(found.append)
    return found


def test_each_source_has_the_labels_it_has_alone(predictor: Predictor, videos: list[Path]) -> None:
    streams = [opened(predictor, video) for video in videos]
    found: dict[Stream, list[WindowPrediction]] = {stream: [] for stream in streams}
    run_streams(streams, lambda stream, prediction: found[stream].append(prediction))
    for video, stream in zip(videos, streams, strict=True):
        expected = alone(predictor, video)
        assert len(expected) > 3
        assert [(one.start, one.label) for one in found[stream]] == [(one.start, one.label) for one in expected]
        assert all(
            np.array_equal(one.smoothed, other.smoothed) for one, other in zip(found[stream], expected, strict=True)
        )
        assert stream.summary.num_predictions == len(expected)
        assert (stream.summary.dropped, stream.summary.lost) == (0, "")


def test_windows_of_one_size_are_one_batch(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three sources, two with frames of one shape."""
    batches: list[int] = []
    scores = type(predictor).scores

    def counted(self: Predictor, clips: np.ndarray, view: EvalConfig) -> np.ndarray:
        batches.append(len(clips))
        return scores(self, clips, view)

    monkeypatch.setattr(type(predictor), "scores", counted)
    scorers = [WindowScorer(predictor, reuse=False) for _ in range(3)]
    images = [np.full((1, 36, width, 3), gray, np.uint8) for width, gray in ((48, 10), (54, 90), (48, 200))]
    together = score_windows([(scorer, range(4), [image] * 4) for scorer, image in zip(scorers, images, strict=True)])
    assert sorted(batches) == [1, 2]
    for scorer, image, logits in zip(scorers, images, together, strict=True):
        np.testing.assert_array_equal(scorer.score(range(4), [image] * 4), logits)


def test_a_source_that_is_lost_costs_the_others_nothing(exported_run: ExportReport, videos: list[Path]) -> None:
    """A camera whose server dies for good, beside a file."""
    predictor = vsn.Predictor.from_file(exported_run.path)
    found: dict[str, int] = {}
    with rtsp_server() as server:
        camera = opened(predictor, server.url(64), LiveConfig(reconnects=1, reconnect_wait=0.0))
        file = opened(predictor, videos[1], LiveConfig())  # 3 seconds, in real time

        def count(stream: Stream, prediction: WindowPrediction) -> None:
            name = stream.summary.source
            found[name] = found.get(name, 0) + 1
            if stream is camera and found[name] == 1:
                server.kill()

        run_streams([camera, file], count)
        server.start()
    assert camera.summary.lost
    assert not file.summary.lost
    assert found[file.summary.source] == file.summary.num_predictions == len(alone(predictor, videos[1]))
    assert file.summary.dropped == 0


def test_a_camera_that_returns(exported_run: ExportReport) -> None:
    """Of three cameras one is down until the others have had labels, and then is labeled again."""
    predictor = vsn.Predictor.from_file(exported_run.path)
    live = LiveConfig(reconnects=1000, reconnect_wait=0.1, stall_seconds=5.0, stop_after=60.0)
    counts: Counter[Stream] = Counter()
    before: dict[str, Counter[Stream]] = {}
    stop = StopRequest()
    with rtsp_server() as first, rtsp_server() as second:
        cameras = [
            opened(predictor, server.url(gray), live) for server, gray in ((first, 64), (first, 128), (second, 96))
        ]

        def act(stream: Stream, _: WindowPrediction) -> None:
            counts[stream] += 1
            if "down" not in before:
                if all(counts[camera] for camera in cameras):
                    second.kill()
                    before["down"] = Counter(counts)
            elif "up" not in before:
                if all(counts[camera] > before["down"][camera] + 1 for camera in cameras[:2]):
                    second.start()
                    before["up"] = Counter(counts)
            elif counts[cameras[2]] > before["up"][cameras[2]]:
                stop.requested = True

        run_streams(cameras, act, stop=stop)
    assert stop.requested
    assert [camera.summary.reconnected for camera in cameras] == [0, 0, 1]
    assert not any(camera.summary.lost for camera in cameras)


def test_if_no_source_works_the_first_reason_is_raised(predictor: Predictor, videos: list[Path]) -> None:
    streams = [Stream(predictor, video, windows=WindowConfig(seconds=60), live=FAST) for video in videos[:2]]
    with pytest.raises(VideoError, match=r"a\.mp4.*before a window"):
        run_streams(streams, lambda stream, prediction: None)


def test_the_command_names_the_source_of_each_label(
    exported_run: ExportReport, videos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(videos[0]), str(videos[1]), str(videos[0])]
    cli.main(["stream", str(exported_run.path), *sources, "--fast", "--seconds", "0.8"])
    printed = capsys.readouterr()
    names = [json.loads(line)["source"] for line in printed.out.splitlines()]
    assert set(names) == {sources[0], sources[1], f"{sources[0]} (2)"}
    assert names.count(sources[0]) == names.count(f"{sources[0]} (2)")
    assert printed.err.count("predictions\n") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "b.mp4", "--video", "out.mp4"], "--video is for one source, got 2"),
        ([], "needs a source"),
    ],
)
def test_sources_that_do_not_fit(exported_run: ExportReport, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        cli.main(["stream", str(exported_run.path), *arguments])
