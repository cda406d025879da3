"""Flow and RGB differences from the data on disk to labels: runs that learn the direction of motion."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.helpers.clips import clip_dataset
from tests.helpers.lookalikes import make_kinetics, make_something_v1
from tests.helpers.motions import moving_video, texture
from tests.helpers.stored_flow import LAYOUTS, Layout, lay_flow, write_fields
from vsn.cli import main
from vsn.config import ClipSpec, ConfigError, DataConfig, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.flow.extract import FlowSettings, extract_flow
from vsn.data.flow.values import FlowMetadata, flow_to_bytes, write_flow_metadata
from vsn.data.open import open_split
from vsn.data.part import Part
from vsn.data.per_video import videos_of_data_set, videos_of_folder
from vsn.data.readers import read_records
from vsn.data.video import VideoError, open_video, write_video
from vsn.inference.evaluate import evaluate_run, score_videos
from vsn.inference.inputs import views_of_video
from vsn.inference.predict import RunPredictor, TwoStreamPredictor
from vsn.inference.predictor import Predictor
from vsn.models import create_model
from vsn.report.illustrate import illustrated_report
from vsn.runs.checkpoint import load_model
from vsn.runs.run import open_run
from vsn.scores.metrics import softmax
from vsn.stream.plan import window_processor
from vsn.training.train import train

NUM_FRAMES, SIDE = 9, 32


def drawn(label: int, number: int) -> np.ndarray:
    """Frames, uint8 `(9, 32, 32, 3)`: a textured square moves left (0) or right (1) by 2 pixels a frame.

    A video of label 1 is one of label 0 played backwards: no frame of it tells the two apart.
    """
    generator = np.random.default_rng(number)
    texture = generator.integers(120, 256, (10, 10, 3), dtype=np.uint8)
    top, left = generator.integers(0, 22, 2) // (1, 4)
    frames = np.full((NUM_FRAMES, SIDE, SIDE, 3), generator.integers(10, 60), np.uint8)
    for i, frame in enumerate(frames):
        frame[top : top + 10, left + 2 * i : left + 2 * i + 10] = texture
    return frames[::-1] if label == 0 else frames


def write_moving(root: Path, *, flow: bool, num_train: int = 12, num_val: int = 6) -> DataConfig:
    """`split/{left,right}/number` as frames, or as flow that needs no videos."""
    for split, numbers in (("train", range(num_train)), ("val", range(100, 100 + num_val))):
        for label, name in enumerate(("left", "right")):
            for number in numbers:
                folder = root / split / name
                frames = drawn(label, number)
                if flow:
                    square = (frames[:-1, ..., :1] >= 120) * np.array([2.0 if label else -2.0, 0.0])
                    write_fields(folder, str(number), list(flow_to_bytes(square, 20.0)), "xy")
                    continue
                (folder / str(number)).mkdir(parents=True)
                for i, frame in enumerate(frames):
                    Image.fromarray(frame).save(folder / str(number) / f"{i}.png")
    return DataConfig(root=str(root), num_workers=0, test_split="val", cache="memory")


def recipe(data: DataConfig, modality: str, length: int, **settings) -> Recipe:
    train_settings = {
        "epochs": 6,
        "batch_size": 8,
        "lr": 0.02,
        "lr_batch_size": 0,
        "device": "cpu",
    } | settings
    return Recipe(
        model=ModelConfig(name="tsn_resnet14_tiny", num_frames=3, modality=modality, flow_length=length,
                          dropout=0.0),
        clip=ClipSpec(short_side=32, crop_size=32, crop_scales=(1.0,)),
        data=data,
        train=TrainConfig(**train_settings),
        eval=EvalConfig(batch_size=8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> Path:
    root = tmp_path_factory.mktemp("flow")
    data = replace(write_moving(root / "data", flow=True), flip="swap")
    return train(recipe(data, "flow", 1), root / "run", console=quiet).path


def test_a_flow_run_learns_where_things_move(flow_run: Path) -> None:
    """Half of the training clips are flipped and take the other label: right only if x is negated with it."""
    result = evaluate_run(flow_run, progress=False)
    assert (result["top1"], result["num_videos"], result["bad_videos"]) == (1.0, 12, [])
    backward = evaluate_run(flow_run, config=EvalConfig(order="reversed"), progress=False)
    assert backward["top1"] == 1.0  # the order of segments is no motion


def test_a_run_of_differences_learns_what_no_frame_shows(tmp_path: Path, quiet: Console) -> None:
    data = write_moving(tmp_path / "data", flow=False, num_train=24)
    settings = recipe(data, "rgbdiff", 1, epochs=10, optimizer="adamw", lr=2e-3)
    run = train(settings, tmp_path / "run", console=quiet)
    assert evaluate_run(run.path, progress=False)["top1"] >= 10 / 12
    predictor = Predictor.from_run(run.path)
    videos = sorted((tmp_path / "data" / "val").glob("*/*"))
    right = [predictor.predict(video).labels[0] == video.parent.name for video in videos]
    assert sum(right) >= 10  # from the bare videos: no flow is needed


def test_no_tsn_on_rgb_can_tell_those_videos_apart(tmp_path: Path) -> None:
    """3 of 9 frames, at the centers: 1, 4, 7 of either, in another order, which a TSN does not see."""
    data = write_moving(tmp_path, flow=False, num_train=1, num_val=1)
    records = read_records(data, "val")
    model = create_model("tsn_resnet14_tiny", num_classes=2, num_frames=3).eval()
    clip = ClipSpec(short_side=32, crop_size=32)
    dataset = clip_dataset(records, clip=clip, num_frames=3, train=False)
    with torch.inference_mode():
        left, right = (model(dataset[i].clip[None]) for i in range(2))
        torch.testing.assert_close(left, right)


# --- data sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epoch_on_stored_flow_of_something_something_v1(tmp_path: Path, log, layout: Layout) -> None:
    console, printed = log
    data = replace(lay_flow(make_something_v1(tmp_path), layout), num_workers=0)
    run = train(recipe(data, "flow", 5, epochs=1), tmp_path / "run", console=console)
    assert "; tv-l1, bound 20 pixels, zero 128" in printed()
    result = evaluate_run(run.path, split="val", progress=False)
    assert (result["num_videos"], result["bad_videos"]) == (6, [])
    assert load_model(open_run(run.path)).backbone.conv1.in_channels == 10


@pytest.mark.parametrize("modality", ["flow", "rgbdiff"])
def test_an_epoch_on_kinetics(tmp_path: Path, quiet: Console, modality: str) -> None:
    data = replace(lay_flow(make_kinetics(tmp_path)), num_workers=0)
    if modality == "rgbdiff":
        data = replace(data, flow="")
    run = train(recipe(data, modality, 5, epochs=1), tmp_path / "run", console=quiet)
    assert evaluate_run(run.path, split="val", progress=False)["num_videos"] == 6


def test_flow_that_moved_or_changed_is_refused(flow_run: Path, tmp_path: Path) -> None:
    write_moving(tmp_path, flow=True, num_train=1, num_val=1)
    assert evaluate_run(flow_run, root=tmp_path, progress=False)["num_videos"] == 2
    write_flow_metadata(tmp_path, FlowMetadata(bound=15.0))
    with pytest.raises(ConfigError, match=r"bound is 15\.0 there, model\.flow_bound is 20\.0"):
        evaluate_run(flow_run, root=tmp_path, progress=False)


def test_a_video_without_a_field_is_a_bad_video(tmp_path: Path, flow_run: Path) -> None:
    """One frame has no motion to show: it is no still video, and is not taken for one."""
    write_moving(tmp_path, flow=True, num_train=1, num_val=2)
    for file in (tmp_path / "val" / "left" / "100").iterdir():
        file.unlink()
    (tmp_path / "val" / "left" / "100" / "img_00001.jpg").touch()
    with pytest.raises(VideoError, match=r"100: no flow: "):
        evaluate_run(flow_run, root=tmp_path, progress=False)
    wrong = evaluate_run(flow_run, root=tmp_path, progress=False, config=EvalConfig(bad_videos="wrong"))
    assert (wrong["top1"], len(wrong["bad_videos"])) == (0.75, 1)


# --- prediction ------------------------------------------------------------------------------------


def test_stored_flow_is_predicted(flow_run: Path) -> None:
    root = flow_run.parent / "data" / "val"
    predictor = Predictor.from_run(flow_run)
    folders = predictor.list_inputs(root)
    assert folders == sorted(root.glob("*/*"))
    assert [predictor.predict(folder).labels[0] for folder in folders] == ["left"] * 6 + ["right"] * 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prediction_takes_any_layout(flow_run: Path, tmp_path: Path, layout: Layout) -> None:
    fields = [np.full((32, 32, 2), (153, 128), np.uint8)] * 4
    folder = write_fields(tmp_path, "7", fields, layout)
    assert Predictor.from_run(flow_run).predict(folder).path == folder


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """left.mp4 and right.mp4 of `drawn` squares before a texture that does not move, without stored flow."""
    root = tmp_path_factory.mktemp("moving")
    still = texture(*np.mgrid[:SIDE, :SIDE].astype(float)).astype(np.uint8)[..., None] // 3
    for label, name in enumerate(("left", "right")):
        frames = drawn(label, 50)
        frames = np.where(frames >= 120, frames, still)
        write_video(root / f"{name}.mp4", frames, frames_per_second=10, crf=8)
    return root


def test_the_flow_of_a_video_is_computed(flow_run: Path, moving: Path, capsys) -> None:
    predictor = Predictor.from_run(flow_run)
    assert predictor.list_inputs(moving) == [moving / "left.mp4", moving / "right.mp4"]
    main(["predict", str(flow_run), str(moving), "--top-k", "1"])
    printed = capsys.readouterr().out
    assert "left.mp4: left " in printed
    assert "right.mp4: right " in printed


def test_computed_flow_is_predicted_as_stored_flow(flow_run: Path, moving: Path, tmp_path: Path) -> None:
    settings = FlowSettings(short_side=SIDE)
    extract_flow(videos_of_folder(moving), tmp_path, settings, num_workers=0, progress=False)
    predictor = Predictor.from_run(flow_run)
    for name in ("left", "right"):
        stored = predictor.predict(tmp_path / f"{name}.vsnflow")
        assert replace(predictor.predict(moving / f"{name}.mp4"), path=stored.path) == stored


def test_flow_of_another_size_is_computed_at_that_size(flow_run: Path, moving: Path, tmp_path: Path) -> None:
    settings = FlowSettings(short_side=2 * SIDE)
    extract_flow(videos_of_folder(moving), tmp_path, settings, num_workers=0, progress=False)
    predictor = Predictor.from_run(flow_run)
    with pytest.raises(ConfigError, match=rf"short_side is {2 * SIDE} there.* is {SIDE}\."):
        predictor.predict(tmp_path / "left.vsnflow")
    model = replace(predictor.recipe.model, flow_short_side=2 * SIDE)
    predictor.recipe = replace(predictor.recipe, model=model)
    stored = predictor.predict(tmp_path / "left.vsnflow")
    assert replace(predictor.predict(moving / "left.mp4"), path=stored.path) == stored


def test_the_flow_of_frames_is_computed(flow_run: Path, moving: Path, tmp_path: Path) -> None:
    frames = open_video(moving / "right.mp4").all_frames()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i:05d}.png")
    predictor = Predictor.from_run(flow_run)
    assert predictor.list_inputs(tmp_path) == [tmp_path]
    video = predictor.predict(moving / "right.mp4")
    assert replace(predictor.predict(tmp_path), path=video.path) == video


def test_a_video_of_one_frame_has_no_flow(flow_run: Path, tmp_path: Path, capsys) -> None:
    video = moving_video(tmp_path / "one.mp4", 1, size=(SIDE, SIDE))
    with pytest.raises(SystemExit):
        main(["predict", str(flow_run), str(video)])
    assert "one.mp4: cannot be read: it has one frame, and flow needs two." in capsys.readouterr().err


def test_flow_that_cannot_be_computed_is_asked_for(flow_run: Path, moving: Path) -> None:
    predictor = Predictor.from_run(flow_run)
    model = replace(predictor.recipe.model, flow_method="raft")
    predictor.recipe = replace(predictor.recipe, model=model)
    with pytest.raises(ConfigError, match=r"'raft'.*stored flow"):
        predictor.predict(moving / "left.mp4")


# --- two streams -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames_predictor() -> Predictor:
    """An untrained model on frames that knows the classes of `flow_run` in another order."""
    settings = recipe(DataConfig(), "rgb", 1)
    torch.manual_seed(0)
    model = create_model("tsn_resnet14_tiny", num_classes=2, num_frames=3)
    return RunPredictor(model, settings, ("right", "left"), device="cpu")


@pytest.mark.parametrize(("name", "weight"), [("left", 1.0), ("right", 1.0), ("left", 3.0)])
def test_two_streams_are_averaged_by_name(
    flow_run: Path, moving: Path, frames_predictor: Predictor, name: str, weight: float
) -> None:
    """The frames say the same of both videos, so that the flow puts the labels in another order once."""
    flow = Predictor.from_run(flow_run, device="cpu")
    video = moving / f"{name}.mp4"
    predicted = [
        dict(zip(one.labels, one.probabilities, strict=True))
        for one in (
            frames_predictor.predict(video),
            flow.predict(video),
            TwoStreamPredictor(frames_predictor, flow, flow_weight=weight).predict(video),
        )
    ]
    assert predicted[1][name] > 0.6
    for label in ("left", "right"):
        assert predicted[2][label] == pytest.approx((predicted[0][label] + weight * predicted[1][label]) / (1 + weight))


def test_two_streams_on_the_command_line(flow_run: Path, moving: Path, tmp_path: Path, quiet, capsys) -> None:
    data = write_moving(tmp_path / "data", flow=False, num_train=4, num_val=1)
    run = train(recipe(data, "rgb", 1, epochs=1), tmp_path / "run", console=quiet).path
    predictor = TwoStreamPredictor(Predictor.from_run(run), Predictor.from_run(flow_run), flow_weight=9.0)
    main(["predict", str(run), str(moving), "--flow-run", str(flow_run), "--flow-weight", "9", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, name in zip(lines, ("left", "right"), strict=True):
        expected = predictor.predict(moving / f"{name}.mp4")
        assert line["path"] == str(moving / f"{name}.mp4")
        assert line["predictions"] == [
            {"label": n, "probability": p} for n, p in zip(expected.labels, expected.probabilities, strict=True)
        ]


def test_streams_that_do_not_fit(flow_run: Path, frames_predictor: Predictor) -> None:
    flow = Predictor.from_run(flow_run, device="cpu")
    with pytest.raises(ConfigError, match=r"'flow'.*'rgb'"):
        TwoStreamPredictor(flow, frames_predictor, flow_weight=1.0)
    with pytest.raises(ConfigError, match=r"weight of flow is 0\.0"):
        TwoStreamPredictor(frames_predictor, flow, flow_weight=0.0)
    flow.classes = ("left", "up")
    with pytest.raises(ConfigError, match=r"2 .*'right'"):
        TwoStreamPredictor(frames_predictor, flow, flow_weight=1.0)


# --- paths beside the frames -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_both_flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of textures that move to the right and down, and their flow in both directions."""
    root = tmp_path_factory.mktemp("both")
    for split, numbers in (("train", range(4)), ("val", range(10, 11))):
        for label, speed in (("fast", 3.0), ("slow", 1.0)):
            (root / split / label).mkdir(parents=True)
            for number in numbers:
                moving_video(
                    root / split / label / f"{number}.mp4",
                    11,
                    right=speed,
                    size=(40, 48),
                    seed=number + 10 * len(split),
                )
    data = DataConfig(root=str(root), test_split="val")
    for backward, name in ((False, "flow"), (True, "flow_backward")):
        settings = FlowSettings(short_side=32, backward=backward)
        extract_flow(videos_of_data_set(data, root / name), root / name, settings, num_workers=1, progress=False)
    return root


def paths_recipe(root: Path, **data: object) -> Recipe:
    return Recipe(
        model=ModelConfig(name="trajectory_resnet18_thin", num_frames=5),
        clip=ClipSpec(short_side=32, crop_size=32),
        data=DataConfig(root=str(root), num_workers=0, test_split="val", **data),
        train=TrainConfig(epochs=1, batch_size=4, lr=0.01, lr_batch_size=0, device="cpu"),
        eval=EvalConfig(batch_size=2),
    )


def test_a_run_on_frames_and_paths(with_both_flows: Path, tmp_path: Path, quiet: Console) -> None:
    run = train(paths_recipe(with_both_flows), tmp_path / "run", console=quiet)
    result = evaluate_run(run.path, config=EvalConfig(protocol="center"), progress=False)
    assert result["num_videos"] == 2
    dataset = open_split(run.recipe, "val", classes=run.classes)
    scores = score_videos(load_model(run), dataset, batch_size=2, progress=False)
    predictor = Predictor.from_run(run.path, device="cpu")
    for record, expected in zip(dataset.records, softmax(scores.logits), strict=True):
        # Of a video its flow is computed, which is stored for the data set.
        prediction = predictor.predict(record.path)
        by_name = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert [by_name[name] for name in run.classes] == expected.tolist()
    page = illustrated_report([run.path], tmp_path / "report.html", title="t", num_videos=1)
    assert page.read_text("utf-8").count("<img") >= 2 * 5
    with pytest.raises(ConfigError, match=r"trajectory_resnet18_thin.*windows"):
        window_processor(run.recipe)


def test_the_arrow_of_time_reverses_paths_too(with_both_flows: Path, tmp_path: Path, quiet: Console) -> None:
    run = train(paths_recipe(with_both_flows, task="arrow"), tmp_path / "run", console=quiet)
    assert run.classes == ("forward", "reversed")
    dataset = open_split(run.recipe, "val", view=EvalConfig(protocol="center"), classes=run.classes)
    forward, backward = dataset[0].clip, dataset[1].clip
    assert torch.equal(forward[:, :3].flip(0), backward[:, :3])
    # What is ahead for the one is behind for the other.
    assert torch.equal(forward[:, [5, 6, 3, 4]].flip(0), backward[:, 3:])


def test_paths_of_segments_of_a_file(with_both_flows: Path, tmp_path: Path, quiet: Console) -> None:
    lines = [
        f"{split}/{label}/{number}.mp4,{label},{split},{start},{start + 0.5}"
        for split, number in (("train", 1), ("val", 10))
        for label in ("fast", "slow")
        for start in (0.0, 0.5)
    ]
    root = tmp_path / "data"
    shutil.copytree(with_both_flows, root, ignore=shutil.ignore_patterns("flow*"))
    (root / "list.csv").write_text("\n".join(["path,label,split,start,end", *lines]))
    recipe = paths_recipe(root, source="csv", annotations="list.csv")
    for backward, name in ((False, "flow"), (True, "flow_backward")):
        settings = FlowSettings(short_side=32, backward=backward)
        videos = videos_of_data_set(recipe.data, root / name)
        extract_flow(videos, root / name, settings, num_workers=1, progress=False)
    dataset = open_split(recipe, "val", view=EvalConfig(protocol="center"))
    record = dataset.records[1]
    assert record.part == Part(0.5, 1.0)
    computed = views_of_video(record.path, recipe, EvalConfig(protocol="center"), part=record.part)
    assert np.array_equal(dataset[1].clip, computed)
