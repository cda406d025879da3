"""Streams: the same scores with and without reuse, the same answers in real time and fast, clean ends."""

import importlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

import vsn
from tests.helpers.tiny_runs import tiny_recipe
from vsn.config import ConfigError, EvalConfig, LiveConfig, ModelConfig, Recipe, WindowConfig
from vsn.data.sampling import segment_indices
from vsn.data.video import VideoError, open_video, write_video
from vsn.inference.predict import RunPredictor
from vsn.inference.predictor import Predictor
from vsn.models import build_model
from vsn.scores.calibrate import Calibration
from vsn.stream.collect import WindowCollector
from vsn.stream.grid import FrameFilter, WindowGrid
from vsn.stream.labels import WindowLabeler, WindowPrediction
from vsn.stream.plan import plan_grid
from vsn.stream.reader import LiveFrame
from vsn.stream.scorer import WindowScorer, score_windows
from vsn.stream.stream import Stream, WindowStream, draw_label
from vsn.stream.timeline import make_timeline
from vsn.system.interrupt import Interrupted, StopRequest

FAST = LiveConfig(fast=True)
CLASSES = ("swipe_left", "swipe_right", "wave")


def make_predictor(name: str = "vsn_resnet14_tiny", *, protocol: str = "fcn", **model: Any) -> Predictor:
    """A network at random whose normalizations say something, as after training."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=3, num_frames=4, **model)
    network = build_model(config)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    recipe = replace(tiny_recipe(Path("nowhere")), model=config, eval=EvalConfig(protocol=protocol))
    return RunPredictor(network, recipe, CLASSES, device="cpu")


@pytest.fixture(scope="module")
def noise_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of coarse noise, 20 a second, 36x48 pixels: every frame says something else."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (40, 9, 12, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    write_video(path, list(coarse.repeat(4, axis=1).repeat(4, axis=2)), frames_per_second=20)
    return path


def answers_of(
    predictor: Predictor, source: Path | str, live: LiveConfig = FAST, **windows: Any
) -> list[WindowPrediction]:
    found: list[WindowPrediction] = []
    config = WindowConfig(**{"seconds": 0.8, "smooth": 0.0, **windows})
    Stream(predictor, str(source), windows=config, live=live).run(found.append)
    return found


# --- reuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [0.1, 0.2, 0.4])
@pytest.mark.parametrize(
    ("name", "model", "protocol"),
    [
        ("vsn_resnet14_tiny", {}, "fcn"),
        ("vsn_resnet14_tiny", {"shift": False, "places": ("res4", "res5")}, "fcn"),
        ("vsn_resnet14_tiny", {"shift": False, "places": ("res5",)}, "3crop"),
        ("vsn_resnet26_thin", {}, "10crop"),
        ("tsm_resnet14_tiny", {}, "center"),
        ("tsn_resnet14_tiny", {}, "fcn"),
        ("mtrn_resnet14_tiny", {}, "fcn"),
        ("vsn_resnet14_tiny", {"modality": "rgbdiff", "flow_length": 2}, "fcn"),
        ("tsn_resnet14_tiny", {"modality": "rgbdiff", "flow_length": 5}, "10crop"),
    ],
)
def test_scores_with_reuse_are_bit_equal_to_computing_the_whole_window(
    noise_video: Path, name: str, model: dict[str, Any], protocol: str, every: float
):
    predictor = make_predictor(name, protocol=protocol, **model)
    kept, whole = WindowScorer(predictor), WindowScorer(predictor)
    plain = WindowScorer(predictor, reuse=False)  # the network's own forward, all frames at once
    images = open_video(noise_video, short_side=36).all_frames()
    images = np.concatenate([images, images[::-1]])  # what follows the last instant
    grid = WindowGrid.of(0.8, 4, every)
    largest = 0.0
    for window in range(4):
        numbers = [int(grid.instant(step) * 20) for step in grid.steps_of(window)]
        chosen = [images[number : number + kept.num_consecutive] for number in numbers]
        whole.reset()
        reused = kept.score(numbers, chosen)
        assert np.array_equal(reused, whole.score(numbers, chosen))
        expected = plain.score(numbers, chosen)
        largest = max(largest, float(np.abs(reused - expected).max() / np.abs(expected).max()))
    assert largest < 1e-5  # convolutions of one frame and of four may round otherwise
    assert whole.num_frames_computed == whole.num_frames_seen == 16
    steps = {step for window in range(4) for step in grid.steps_of(window)}
    assert kept.num_frames_computed == len(steps) < 16


def test_a_frame_that_fills_several_places_is_computed_once():
    predictor = make_predictor()
    scorer, image = WindowScorer(predictor), np.full((36, 48, 3), 90, np.uint8)
    scorer.score([3, 3, 3, 4], [image[None]] * 4)
    assert scorer.num_frames_computed == 2


def test_networks_on_volumes_reuse_nothing():
    torch.manual_seed(0)
    config = ModelConfig(name="eco_lite_thin", num_classes=3, num_frames=4)
    recipe = replace(tiny_recipe(Path("nowhere")), model=config)
    predictor = RunPredictor(build_model(config), recipe, CLASSES, device="cpu")
    scorer = WindowScorer(predictor)
    assert scorer.note.startswith("Features are not reused: eco_lite_thin mixes the frames")
    images = list(np.random.default_rng(0).integers(0, 256, (4, 1, 36, 48, 3), dtype=np.uint8))
    assert scorer.score([0, 1, 2, 3], images).shape == (3,)


# --- windows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fcn", "10crop"])
@pytest.mark.parametrize("length", [0, 1, 2, 5, 9, 20])
def test_a_window_as_long_as_the_file_sees_what_predict_sees(noise_video: Path, length: int, protocol: str):
    """Of any number of differences, and of RGB (0)."""
    model = {"modality": "rgbdiff", "flow_length": length} if length else {}
    predictor = make_predictor("tsm_resnet14_tiny", protocol=protocol, **model)
    (answer,) = answers_of(predictor, noise_video, seconds=2.0, every=2.0)
    prediction = predictor.predict(noise_video, top_k=3)
    expected = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    assert answer.smoothed.tolist() == pytest.approx([expected[name] for name in CLASSES], abs=1e-6)
    assert (answer.start, answer.end) == (0.0, 2.0)


def test_windows_see_the_frames_of_clips_cut_out(noise_video: Path, tmp_path: Path):
    """The third window, from 0.8 to 1.6 seconds, is frames 16 to 31, sampled as a video of its own."""
    predictor = make_predictor("tsm_resnet14_tiny")
    images = open_video(noise_video, short_side=36).all_frames()[16:32]
    chosen = images[segment_indices(16, 4, None)]
    expected = WindowScorer(predictor).score(range(4), list(chosen[:, None]))
    answers = answers_of(predictor, noise_video, every=0.4)
    assert [round(answer.start, 6) for answer in answers] == [0.0, 0.4, 0.8, 1.2]
    probabilities = np.exp(expected.astype(np.float64)) / np.exp(expected.astype(np.float64)).sum()
    assert answers[2].smoothed == pytest.approx(probabilities, abs=1e-12)


def test_windows_of_differences_see_the_frames_of_clips_cut_out(noise_video: Path):
    """Windows of 18 frames whose instants divide 16 of them: the second begins 4 frames after the first."""
    predictor = make_predictor("tsm_resnet14_tiny", modality="rgbdiff", flow_length=2)
    images = open_video(noise_video, short_side=36).all_frames()[4:22]
    starts = segment_indices(18, 4, None, num_consecutive=3)
    chosen = [images[start : start + 3] for start in starts]
    expected = WindowScorer(predictor).score(range(4), chosen)
    answers = answers_of(predictor, noise_video, seconds=0.9, every=0.2)
    assert [round(answer.start, 6) for answer in answers] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert [round(answer.end, 6) for answer in answers] == [0.9, 1.1, 1.3, 1.5, 1.7, 1.9]
    probabilities = np.exp(expected.astype(np.float64)) / np.exp(expected.astype(np.float64)).sum()
    assert answers[1].smoothed == pytest.approx(probabilities, abs=1e-12)


@pytest.mark.parametrize("model", [{}, {"modality": "rgbdiff", "flow_length": 3}])
def test_real_time_and_fast_give_equal_predictions(noise_video: Path, model: dict[str, Any]):
    predictor = make_predictor(**model)
    fast = {answer.start: answer for answer in answers_of(predictor, noise_video)}
    begin = time.perf_counter()
    live = answers_of(predictor, noise_video, LiveConfig())
    assert time.perf_counter() - begin > 1.8
    assert len(live) > 2  # a busy machine may leave some out
    for answer in live:
        assert np.array_equal(answer.smoothed, fast[answer.start].smoothed)
        assert answer.lag_ms > 0


def test_every_frames(noise_video: Path):
    predictor = make_predictor()
    by_frames = answers_of(predictor, noise_video, every_frames=4)
    assert [answer.start for answer in by_frames] == [
        answer.start for answer in answers_of(predictor, noise_video, every=0.2)
    ]


def test_the_calibration_divides_logits_and_sets_the_threshold(noise_video: Path):
    predictor = make_predictor()
    calibration = Calibration(
        temperature=4.0, threshold=0.99, classes=CLASSES, nll_before=1, nll_after=1, ece_before=0, ece_after=0
    )
    config, found = WindowConfig(seconds=0.8, smooth=0.0), []
    Stream(predictor, str(noise_video), windows=config, live=FAST, calibration=calibration).run(found.append)
    plain = answers_of(predictor, noise_video)
    for answer, before in zip(found, plain, strict=True):
        softened = before.smoothed ** (1 / 4)
        assert answer.smoothed == pytest.approx(softened / softened.sum(), rel=1e-6)
        assert answer.label == "unknown"
    with pytest.raises(ConfigError, match="2 classes"):
        Stream(
            predictor, str(noise_video), windows=config, live=FAST,
            calibration=replace(calibration, classes=("a", "b")),
        )  # fmt: skip


# --- behind, broken, stopped ------------------------------------------------------------------------


def frame(number: int, seconds: float, part: int = 0) -> LiveFrame:
    image = np.full((36, 48, 3), 6 * number % 256, np.uint8)
    return LiveFrame(number, part, seconds, seconds + 0.2, image, None, time.perf_counter())


def fed(*batches: list[LiveFrame]) -> tuple[WindowStream, list[list[float]]]:
    grid = WindowGrid.of(0.8, 4, None)
    predictor = make_predictor()
    stream = WindowStream(WindowScorer(predictor), grid, WindowLabeler(CLASSES, WindowConfig(), grid))
    return stream, [[round(answer.start, 6) for answer in stream.feed(batch)] for batch in batches]


def test_several_complete_windows_give_one_prediction():
    stream, starts = fed([frame(i, 0.2 * i) for i in range(4)], [frame(i, 0.2 * i) for i in range(4, 9)])
    assert starts == [[0.0], [1.0]]
    assert stream.skipped == 4


def test_no_window_reaches_across_a_break():
    frames = [[frame(i, 0.2 * i, part=i >= 6)] for i in range(11)]
    _, starts = fed(*frames)
    assert [one for one in starts if one] == [[0.0], [0.2], [0.4], [1.2], [1.4]]


@settings(deadline=None)
@given(
    dropped=st.sets(st.integers(0, 59)), count=st.integers(1, 4), every=st.sampled_from([0.05, 0.2, 0.8, 1.4]),
    broken=st.integers(0, 60), tail=st.booleans(),
)  # fmt: skip
def test_stacks_are_consecutive_for_any_dropped_frames(
    dropped: set[int], count: int, every: float, broken: int, tail: bool
) -> None:
    grid = WindowGrid.of(0.8, 4, every, tail=0.05 * (count - 1) * tail)
    wanted, finder = FrameFilter(grid, count), WindowCollector(grid, count)
    found: list[tuple[int, list[Any]]] = []
    for number in range(60):
        shown = replace(frame(number, 0.05 * number, part=number >= broken), end=0.05 * (number + 1))
        if wanted(shown) and number not in dropped:
            found += finder.feed(shown)
    assert [window for window, _ in found] == sorted({window for window, _ in found})
    for window, stacks in found:
        assert len(stacks) == 4
        numbers = [[one.number for one in stack] for stack in stacks]
        assert all(one == list(range(one[0], one[0] + count)) for one in numbers)
        assert len({one.part for stack in stacks for one in stack}) == 1
        on_display = [int(grid.instant(step) / 0.05 + 1e-6) for step in grid.steps_of(window)]
        for first, due in zip(numbers, on_display, strict=True):
            assert first[0] >= due
        if not dropped:
            assert [one[0] for one in numbers] == on_display
    if not dropped and broken in (0, 60):
        assert len(found) >= (2.2 - 0.05 * (count - 1)) // grid.every


@settings(deadline=None)
@given(steps=st.lists(st.sampled_from([1, 1, 2, 3, 7]), min_size=40, max_size=80), count=st.integers(2, 4))
def test_stacks_of_unevenly_spaced_frames_are_on_display_at_equal_distances(steps: list[int], count: int) -> None:
    interval = 0.05
    grid = WindowGrid.of(0.8, 4, None, tail=interval * (count - 1), frame_interval=interval)
    starts = [0.03 * sum(steps[:number]) for number in range(len(steps) + 1)]
    wanted, finder = FrameFilter(grid, count), WindowCollector(grid, count)
    found: list[tuple[int, list[Any]]] = []
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        shown = replace(frame(number, start), end=end)
        if wanted(shown):
            found += finder.feed(shown)
    assert found
    for window, stacks in found:
        for step, stack in zip(grid.steps_of(window), stacks, strict=True):
            instants = [grid.instant(step) + place * interval for place in range(count)]
            due = [max(i for i, start in enumerate(starts[:-1]) if start <= instant + 1e-4) for instant in instants]
            assert [one.number for one in stack] == due


def test_a_window_too_short_for_one_instant_is_refused(noise_video: Path):
    predictor = make_predictor(modality="rgbdiff", flow_length=5)
    with pytest.raises(ConfigError, match=r"6 consecutive frames .* 0\.25 seconds at 20 frames"):
        answers_of(predictor, noise_video, seconds=0.25)


def test_a_source_without_a_rate_counts_as_25_frames_per_second():
    recipe = make_predictor(modality="rgbdiff", flow_length=5).recipe
    source: Any = SimpleNamespace(begins=0.0, name="camera 0", frames_per_second=0.0, uneven_interval=lambda: 0.0)
    grid, _ = plan_grid(recipe, WindowConfig(seconds=1.0), source, num_frames=4)
    assert (grid.tail, grid.step_seconds) == (0.2, pytest.approx(0.2))


def test_memory_holds_only_what_windows_need():
    stream, _ = fed(*([frame(i, 0.2 * i)] for i in range(40)))
    assert len(stream._collector._stacks) <= 4
    assert len(stream._scorer._features) <= 4


def test_a_slow_model_drops_frames_and_counts_them(noise_video: Path, monkeypatch: pytest.MonkeyPatch):
    predictor = make_predictor()

    def slow(windows: Any) -> Any:
        time.sleep(0.7 * len(windows))
        return score_windows(windows)

    monkeypatch.setattr("vsn.stream.stream.score_windows", slow)
    live, config = LiveConfig(max_waiting=3), WindowConfig(seconds=0.4, every=0.1)
    stream, found = Stream(predictor, str(noise_video), windows=config, live=live), []
    summary = stream.run(found.append)
    assert summary.dropped > 0
    assert summary.skipped > 0
    assert len(found) == summary.num_predictions < 6
    # Whatever waited, it waited no longer than one answer takes, and a few frames.
    assert max(list(summary.lags_ms)[1:]) < 700 + 700 + 400


def test_a_stop_request_leaves_a_complete_video(noise_video: Path, tmp_path: Path):
    stop, found = StopRequest(), []

    def answer(one: WindowPrediction) -> None:
        found.append(one)
        stop.requested = len(found) == 2

    stream = Stream(
        make_predictor(), str(noise_video), windows=WindowConfig(seconds=0.8), live=LiveConfig(fast=True, max_waiting=2)
    )
    summary = stream.run(answer, video=tmp_path / "out.mp4", stop=stop)
    assert summary.num_predictions == 2
    assert 10 <= open_video(tmp_path / "out.mp4").num_frames < 40


def test_a_stop_before_the_first_frame_leaves_no_video(noise_video: Path, tmp_path: Path):
    stop = StopRequest()
    stop.requested = True
    stream = Stream(make_predictor(), str(noise_video), windows=WindowConfig(seconds=0.8), live=FAST)
    assert stream.run(lambda answer: None, video=tmp_path / "out.mp4", stop=stop).num_predictions == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Interrupted):
        make_timeline(make_predictor(), noise_video, windows=WindowConfig(seconds=0.8), stop=stop)


def test_labels_are_drawn_in_other_scripts():
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("the system has no font of other scripts")
    picture = np.zeros((180, 320, 3), np.uint8)
    first, second = (draw_label(picture, name, 0.5) for name in ("\u0431\u0435\u0433", "\u0434\u043e\u043c"))
    assert not np.array_equal(first, second)  # not two rows of boxes


def test_the_video_shows_every_frame_with_its_label(noise_video: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    stream = Stream(make_predictor(), str(noise_video), windows=WindowConfig(seconds=0.8), live=FAST)
    stream.run(lambda answer: None, video=out)
    facts = open_video(out).metadata
    assert (facts.num_frames, facts.frames_per_second, facts.height, facts.width) == (40, 20.0, 36, 48)
    images = open_video(out).frames_at([0, 39])
    expected = open_video(noise_video).frames_at([0, 39])
    band = slice(36 - 16, 36)
    assert images[:, band].mean() < 0.6 * expected[:, band].mean()  # the band is dark
    assert np.abs(images[:, :20].astype(int) - expected[:, :20]).mean() < 12


def test_a_video_that_fails_is_not_left_half_written(
    noise_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("vsn.stream.stream.score_windows", fail)
    stream = Stream(make_predictor(), str(noise_video), windows=WindowConfig(seconds=0.8), live=FAST)
    with pytest.raises(RuntimeError, match="out of memory"):
        stream.run(lambda answer: None, video=tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def changed(recipe: Recipe, **parts: dict[str, Any]) -> Recipe:
    return replace(recipe, **{name: replace(getattr(recipe, name), **values) for name, values in parts.items()})


@pytest.mark.parametrize(
    ("parts", "protocol", "message"),
    [
        ({"model": {"modality": "flow"}}, None, "model.modality 'rgb' or 'rgbdiff'"),
        ({"data": {"task": "multilabel"}}, None, "multilabel"),
        ({}, "3crop-2clip", "3crop-2clip.*fcn, center, 3crop, 10crop with --protocol"),
        ({}, "dense-10clip-3crop", "dense-10clip-3crop"),
        ({}, "25x10", "25x10.*25.*4"),
    ],
)
def test_runs_without_windows_are_refused(parts: dict[str, Any], protocol: Any, message: str):
    predictor = make_predictor()
    predictor.recipe = changed(predictor.recipe, **parts)
    with pytest.raises(ConfigError, match=message):
        WindowScorer(predictor, protocol=protocol)


def test_a_source_shorter_than_a_window_is_an_error(tmp_path: Path):
    write_video(tmp_path / "one.mp4", [np.zeros((36, 48, 3), np.uint8)], frames_per_second=10)
    with pytest.raises(VideoError, match=r"it ended after 1 frames, 0\.10 seconds, before a window of 0\.80 seconds"):
        answers_of(make_predictor(), tmp_path / "one.mp4")


# --- the command ------------------------------------------------------------------------------------


def test_the_command_writes_lines_and_a_summary(
    finished_run: Path, noise_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from vsn.cli import main

    main(
        [
            "stream",
            str(finished_run),
            str(noise_video),
            "--fast",
            "--seconds",
            "0.8",
            "--out",
            str(tmp_path / "a.jsonl"),
        ]
    )
    output = capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert output.out == ""
    assert [line["start"] for line in lines] == pytest.approx([0.2 * i for i in range(7)])
    assert set(lines[0]) == {"start", "end", "label", "probability", "top", "lag_ms", "dropped"}
    assert lines[0]["top"][0]["label"] in CLASSES
    assert "Windows of 0.80 seconds (as set): 4 frames, one every 0.200 seconds" in output.err
    assert "are computed once per frame" in output.err
    assert "2.0 seconds, 40 frames, 7 predictions" in output.err
    assert "10 of the 28 frames of all windows were computed" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "out.avi"], "out.avi"),
        (["--top-k", "0"], "top_k"),
        (["--calibration", "none.json"], "none.json"),
        (["--enter", "0.2"], "leave"),
    ],
)
def test_errors_of_the_command(
    finished_run: Path, noise_video: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    from vsn.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["stream", str(finished_run), str(noise_video), *arguments])
    assert message in str(stopped.value) + capsys.readouterr().err


def test_ctrl_c_ends_the_command_with_its_summary(
    finished_run: Path, noise_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    from vsn.cli import main

    def interrupt(*arguments: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return {"start": 0.0}

    monkeypatch.setattr(importlib.import_module("vsn.cli.stream"), "prediction_to_dict", interrupt)
    main(["stream", str(finished_run), str(noise_video), "--seconds", "0.4", "--video", str(tmp_path / "out.mp4")])
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    assert ", 1 predictions" in output.err
    assert 0 < open_video(tmp_path / "out.mp4").num_frames < 40


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_a_separate_process(finished_run: Path, noise_video: Path, tmp_path: Path):
    command = [
        sys.executable, "-m", "vsn", "stream", str(finished_run), str(noise_video), "--seconds", "0.4",
        "--video", str(tmp_path / "out.mp4"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(vsn.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(first)["start"] == 0.0
    assert all(json.loads(line) for line in rest.splitlines())
    assert "predictions" in errors
    assert "Traceback" not in errors
    assert 0 < open_video(tmp_path / "out.mp4").num_frames < 40


def test_the_page_runs(
    finished_run: Path, gray_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    page = (Path(__file__).parents[2] / "docs" / "stream.md").read_text(encoding="utf-8")
    shutil.copytree(finished_run, tmp_path / "runs" / "mine")
    shutil.copy(gray_video, tmp_path / "new.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, "docs/stream.md", "exec"), names)
    assert names["summary"].num_predictions == 7
    assert names["timeline"].seconds == 2.5
    shown = ""
    for verb in ("stream", "predict", "calibrate", "demo"):
        with pytest.raises(SystemExit):
            importlib.import_module("vsn.cli").main([verb, "--help"])
        shown += capsys.readouterr().out
    script = (Path(__file__).parents[2] / "benchmarks" / "joined.py").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z][a-z-]+", page))
    assert len(options) > 20
    assert [option for option in options if option not in shown and f'"{option}"' not in script] == []
