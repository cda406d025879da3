"""The boxes that clips of NL-I3D + GCN carry: files, planes that move with the frames, a detector, and the embedded set."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from tests.helpers.squares import NUM_FRAMES, write_square_classes
from vsn.cli import main
from vsn.config import ClipSpec, ConfigError, DataConfig, EvalConfig, ModelConfig, Recipe
from vsn.data.boxes.extract import BoxSettings, extract_boxes
from vsn.data.boxes.files import read_boxes, write_boxes
from vsn.data.boxes.planes import draw_box
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.extra import open_extra
from vsn.data.open import open_split
from vsn.data.per_video import videos_of_data_set
from vsn.data.readers import read_records
from vsn.data.video import VideoError, open_video
from vsn.inference.inputs import views_of_video
from vsn.models.peers.gcn import boxes_of_planes

NAME = "gcn_resnet26_thin"


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_square_classes(tmp_path_factory.mktemp("squares"))


def recipe_of(root: Path, *, num_boxes: int = 2, clip: ClipSpec | None = None, **data: object) -> Recipe:
    return Recipe(
        model=ModelConfig(name=NAME, num_frames=5, num_boxes=num_boxes),
        clip=clip or ClipSpec(short_side=40, crop_size=32),
        data=DataConfig(root=str(root), num_workers=0, test_split="val", **data),
    )


def assert_boxes_are_on_squares(clip: torch.Tensor, pixels: float = 1.0) -> None:
    """The box of plane 3 of every frame `(T, C, H, W)` is that of its bright pixels."""
    boxes, shown = boxes_of_planes(clip[:, 3] / 255)
    size = torch.tensor([clip.shape[3], clip.shape[2], clip.shape[3], clip.shape[2]])
    assert shown.any()
    for frame, box, exists in zip(clip, boxes * size, shown, strict=True):
        bright = frame[0] > 127
        if not exists:
            assert bright.sum() < 2 * bright.shape[0]
            continue
        rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
        seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (box - seen).abs().max() <= pixels, (box, seen)


# Frames and boxes move together


@pytest.mark.parametrize("protocol", ["fcn", "center", "3crop", "10crop", "dense-10clip-3crop"])
def test_boxes_stay_on_their_objects_in_every_view(squares: Path, protocol) -> None:
    clips = open_split(recipe_of(squares), "val", view=EvalConfig(protocol=protocol))[0].clip
    assert clips.shape[-3] == 5
    for clip in clips if clips.ndim == 5 else clips[None]:
        assert_boxes_are_on_squares(clip)


def test_boxes_stay_on_their_objects_in_training_crops_and_flips(squares: Path) -> None:
    clip = ClipSpec(short_side=40, crop_size=32, crop_scales=(1.0, 0.7))
    recipe = recipe_of(squares, clip=clip, flip="random")
    records = read_records(recipe.data, "train")
    dataset = open_split(recipe, "train")
    from vsn.data.dataset import VideoDataset

    training = VideoDataset(records, recipe, train=True, extra=open_extra(recipe, records)[0])
    moved = set()
    for epoch in range(12):
        clip_of_epoch = training[(epoch, 0)].clip
        assert_boxes_are_on_squares(clip_of_epoch, pixels=1.5)
        boxes, shown = boxes_of_planes(clip_of_epoch[:, 3] / 255)
        if shown.all():
            moved.add(bool(boxes[-1, 0] > boxes[0, 0]))
    assert moved == {True, False}
    assert len(dataset) == 2


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_boxes_follow_the_order_of_frames(squares: Path, order) -> None:
    dataset = open_split(recipe_of(squares), "val", view=EvalConfig(protocol="fcn", order=order))
    assert_boxes_are_on_squares(dataset[0].clip)


def test_a_worker_that_is_not_forked_gets_the_boxes(squares: Path) -> None:
    dataset = open_split(recipe_of(squares), "val", view=EvalConfig(protocol="center"))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1].clip, dataset[1].clip)


def test_the_memory_cache_holds_boxes(squares: Path) -> None:
    view = EvalConfig(protocol="fcn")
    cached = open_split(recipe_of(squares, cache="memory"), "val", view=view)
    assert cached.preload() == []
    assert torch.equal(cached[1].clip, open_split(recipe_of(squares), "val", view=view)[1].clip)


def test_small_boxes_are_a_pixel_and_stay_in_the_frame() -> None:
    for box in ([0.5, 0.5, 0.501, 0.501], [0.999, 0.0, 1.0, 0.001]):
        assert draw_box(np.array(box), (10, 10)).sum() == pytest.approx(255, abs=2)


def test_the_first_boxes_are_taken_or_those_of_the_highest_score(tmp_path: Path) -> None:
    path = tmp_path / "1.boxes.csv"
    path.write_text("frame,score,left,top,right,bottom\n0,0.2,0,0,0.5,0.5\n0,0.9,0.5,0,1,0.5\n1,,,,,\n")
    first, second = read_boxes(path)
    assert first.tolist() == [[0.5, 0, 1, 0.5], [0, 0, 0.5, 0.5]]
    assert second.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,left,top,right\n0,0,0,1\n", "no column 'bottom'"),
        ("frame,left,top,right,bottom\n", "lists no frame"),
        ("frame,left,top,right,bottom\n0,10,20,110,90\n", r"line 2.*10\.0.*shares"),
        ("frame,left,top,right,bottom\n0,0.5,0,0.5,1\n", "line 2.*left before right"),
        ("frame,left,top,right,bottom\n0,nan,0,1,1\n", "line 2"),
        ("frame,left,top,right,bottom\n0,0,0,1,1\n2,0,0,1,1\n", "line 3.*frame 2 after frame 0"),
        ("frame,left,top,right,bottom\n0,0,,1,1\n", "line 2.*four numbers"),
        ("frame,left,top,right,bottom\nx,0,0,1,1\n", "line 2.*'x'"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "1.boxes.csv").write_text(text)
    with pytest.raises(VideoError, match=message):
        read_boxes(tmp_path / "1.boxes.csv")


# Data sets and single videos


def test_no_boxes_and_boxes_of_another_video(squares: Path, tmp_path: Path) -> None:
    records = read_records(recipe_of(squares).data, "val")
    with pytest.raises(ConfigError, match=r"nowhere.*vsn boxes extract"):
        open_extra(recipe_of(squares, boxes="nowhere"), records)
    some = tmp_path / "some"
    write_boxes(some / "val" / "a" / "1.boxes.csv", [np.array([[0, 0, 1, 1]])] * 4)
    with pytest.raises(ConfigError, match=r"1 of 2 videos have no boxes.*val/b/1"):
        open_extra(recipe_of(squares, boxes=str(some)), records)
    write_boxes(some / "val" / "b" / "1.boxes.csv", [np.zeros((0, 4))] * NUM_FRAMES)
    dataset = open_split(recipe_of(squares, boxes=str(some)), "val")
    with pytest.raises(VideoError, match=r"4 frames, but the video has 9"):
        dataset[0]
    with pytest.raises(VideoError, match="no box in any of 9 frames"):
        dataset[1]


def test_a_video_takes_the_boxes_beside_it_or_of_its_data_set(squares: Path, tmp_path: Path) -> None:
    recipe, view = recipe_of(squares), EvalConfig(protocol="fcn")
    stored = open_split(recipe, "val", view=view)[0].clip
    np.testing.assert_array_equal(views_of_video(squares / "val/a/1.mp4", recipe, view), stored)
    video = tmp_path / "clip.mp4"
    video.write_bytes((squares / "val/a/1.mp4").read_bytes())
    with pytest.raises(ConfigError, match=r"clip\.mp4.*data\.detector"):
        views_of_video(video, recipe, view)
    (tmp_path / "clip.boxes.csv").write_bytes((squares / "boxes/val/a/1.boxes.csv").read_bytes())
    np.testing.assert_array_equal(views_of_video(video, recipe, view), stored)


# The detector


@pytest.fixture(scope="module")
def detected(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detected") / "boxes"
    recipe = recipe_of(squares, detector="none")
    videos = videos_of_data_set(recipe.data, out)
    summary = extract_boxes(videos[:1], out, BoxSettings.of(recipe), num_workers=1, progress=False)
    assert (summary.count, summary.failed) == (NUM_FRAMES, ())
    again = extract_boxes(videos, out, BoxSettings.of(recipe), num_workers=1, progress=False)
    assert (again.num_kept, again.num_videos) == (1, 4)
    assert "random" in str(again)
    return out


def test_boxes_are_found_once_and_again_alike(squares: Path, detected: Path) -> None:
    recipe, view = recipe_of(squares, boxes=str(detected), detector="none"), EvalConfig(protocol="center")
    dataset = open_split(recipe, "val", view=view)
    frames = read_boxes(detected / "val" / "a" / "1.boxes.csv")
    assert [len(boxes) for boxes in frames] == [2] * NUM_FRAMES
    elsewhere = replace(recipe, data=replace(recipe.data, boxes="nowhere"))
    found = views_of_video(squares / "val/a/1.mp4", elsewhere, view)
    # Files hold five digits.
    assert np.abs(found.astype(int) - dataset[0].clip.numpy()).max() <= 1


def test_segments_of_a_file_have_boxes_of_their_own(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes((squares / "val/a/1.mp4").read_bytes())
    lines = [f"clip.mp4,{label},val,{start},{end}" for label, start, end in (("a", 0.0, 0.4), ("b", 0.4, 0.9))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split,start,end", *lines]))
    recipe = recipe_of(tmp_path, source="csv", annotations="list.csv", detector="none")
    videos = videos_of_data_set(recipe.data, tmp_path / "boxes")
    summary = extract_boxes(videos, tmp_path / "boxes", BoxSettings.of(recipe), num_workers=1, progress=False)
    assert (summary.num_videos, summary.count) == (2, NUM_FRAMES)
    view = EvalConfig(protocol="center")
    dataset = open_split(recipe, "val", view=view)
    for index, record in enumerate(dataset.records):
        found = views_of_video(record.path, recipe, view, part=record.part)
        assert np.abs(found.astype(int) - dataset[index].clip.numpy()).max() <= 1


def test_boxes_found_otherwise_are_refused(squares: Path, detected: Path, tmp_path: Path) -> None:
    recipe = recipe_of(squares, boxes=str(detected))
    records = read_records(recipe.data, "val")
    with pytest.raises(ConfigError, match=r"num_boxes is 3.* 2 "):
        open_extra(recipe_of(squares, num_boxes=3, boxes=str(detected)), records)
    with pytest.raises(ConfigError, match=r"short_side is 40 there, clip\.short_side is '48'"):
        open_extra(replace(recipe, clip=replace(recipe.clip, short_side=48)), records)
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    with pytest.raises(ConfigError, match="weights is 'none' there"):
        open_extra(recipe_of(squares, boxes=str(detected), detector=str(other)), records)


def test_weights_of_the_detector(squares: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, rpn_post_nms_top_n_test=2)
    # A file of frozen batch normalizations, as torchvision publishes.
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "detector.pth")
    from vsn.data.boxes.detect import Detector

    with open_video(squares / "val/a/1.mp4", short_side=64) as video:
        frames = np.stack(list(video))[:2]
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    network.eval()
    network.transform.min_size, network.transform.max_size = (64,), 1000
    captured = []
    network.rpn.register_forward_hook(lambda module, inputs, output: captured.extend(output[0]))
    with torch.inference_mode():
        network([torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in frames])
    size = np.array([frames.shape[2], frames.shape[1]] * 2)
    for ours, theirs in zip(Detector(str(tmp_path / "detector.pth"), num_boxes=2)(frames), captured, strict=True):
        np.testing.assert_allclose(ours * size, theirs.numpy(), atol=1e-2)


@pytest.mark.parametrize("change", ["missing", "another", "absent", "unset", "text"])
def test_files_of_another_detector_are_refused(squares: Path, tmp_path: Path, change) -> None:
    path = tmp_path / "detector.pth"
    if change in ("missing", "another"):
        with torch.device("meta"):
            network = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        state = {k: torch.zeros(v.shape) for k, v in network.rpn.state_dict(prefix="rpn.").items()}
        if change == "another":
            state["roi_heads.mask_head.0.weight"] = torch.zeros(2)
        torch.save(state, path)
    elif change == "text":
        path.write_text("no weights")
    weights = "" if change == "unset" else str(path)
    expected = {"absent": "does not exist", "unset": "data.detector is empty", "text": "cannot be read"}
    with pytest.raises(ConfigError, match=expected.get(change, "does not hold the weights.*names")):
        extract_boxes([], tmp_path / "out", BoxSettings(weights, 40, 2), progress=False)
    assert not (tmp_path / "out").exists()


def test_the_command(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "boxes")
    folder = str(squares / "val" / "a")
    options = ["--data.detector", "none", "--clip.short-side", "32", "--clip.crop-size", "32", "--workers", "1"]
    main(["boxes", "extract", "--out", out, "--videos", folder, "--model.num-boxes", "3", *options])
    assert "boxes of 1 of 1 videos" in capsys.readouterr().out
    assert max(map(len, read_boxes(tmp_path / "boxes" / "1.boxes.csv"))) == 3


# The embedded data set


def test_the_embedded_set_has_exact_boxes(tmp_path: Path) -> None:
    counts = {"num_train_per_class": 0, "num_val_per_class": 0, "num_test_per_class": 1}
    spec = SynthSpec(**counts, groups=("horizontal", "lamps"), num_seconds=(1.5, 2))
    root = write_dataset(tmp_path / "videos", spec, num_workers=1, progress=False)
    recipe = replace(recipe_of(root, source="synthetic"), data=DataConfig(root=str(root), source="synthetic"))
    dataset = open_split(recipe, "test", view=EvalConfig(protocol="fcn"))
    for index in range(2):
        clip = dataset[index].clip
        vivid = clip[:, :3].amax(1).int() - clip[:, :3].amin(1).int() > 150  # targets, on a dull texture
        inside = (clip[:, 3:] > 127).any(1)
        assert vivid.sum() > 40
        assert (vivid & inside).sum() > 0.95 * vivid.sum()
        assert inside.float().mean() < 0.4
    np.testing.assert_array_equal(
        views_of_video(dataset.records[0].path, recipe, EvalConfig(protocol="fcn")), dataset[0].clip
    )
    # Boxes that are asked for are not replaced by the exact ones.
    stated = replace(recipe, data=replace(recipe.data, boxes="detected"))
    with pytest.raises(ConfigError, match=r"no folder .*detected"):
        open_split(stated, "test", view=EvalConfig(protocol="fcn"))
