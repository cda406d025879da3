from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.clips import clip_dataset
from vsn.config import ClipSpec, DataConfig, FlipRule
from vsn.data import dataset as dataset_module
from vsn.data.dataset import Sample
from vsn.data.flips import flipped_labels
from vsn.data.readers import read_records
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.sampling import segment_indices
from vsn.data.video import VideoError, VideoReader, write_video

SPEC = ClipSpec(short_side=32, crop_size=24)


@pytest.fixture(scope="session")
def records(tiny_data: Path) -> RecordSet:
    return read_records(DataConfig(root=str(tiny_data)), "train")


@pytest.fixture(scope="session")
def side_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 frames, dark on the left and bright on the right: a flip shows."""
    path = tmp_path_factory.mktemp("side") / "side.mp4"
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, 32:] = 240
    write_video(path, [frame] * 16, frames_per_second=10)
    return path


def one_video(path: Path, *, reverse: bool = False) -> RecordSet:
    return RecordSet((VideoRecord(path, (1,), path.name, reverse=reverse),), ("a", "b"))


def is_flipped(clip: torch.Tensor) -> bool:
    return bool(clip[..., :4].float().mean() > clip[..., -4:].float().mean())


# --- samples ---------------------------------------------------------------------------------------


def test_a_test_sample_is_the_centers(gray_video: Path, frame_numbers) -> None:
    dataset = clip_dataset(one_video(gray_video), clip=SPEC, num_frames=8, train=False, protocol="center")
    sample = dataset[0]
    assert isinstance(sample, Sample)
    assert (int(sample.target), sample.index, len(dataset)) == (1, 0, 1)
    assert sample.clip.dtype == torch.uint8
    assert sample.clip.shape == (8, 3, 24, 24)
    assert sample.clip.is_contiguous()
    assert frame_numbers(sample.clip) == [1, 5, 9, 13, 16, 20, 24, 28]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("forward", [1, 5, 9, 13, 16, 20, 24, 28]),
        ("reversed", [28, 24, 20, 16, 13, 9, 5, 1]),
        ("still", [16] * 8),
    ],
)
def test_orders(gray_video: Path, frame_numbers, order, expected: list[int]) -> None:
    dataset = clip_dataset(one_video(gray_video), clip=SPEC, num_frames=8, train=False, order=order)
    assert frame_numbers(dataset[0].clip) == expected


def test_shuffled_depends_on_seed_epoch_and_index(gray_video: Path, frame_numbers) -> None:
    def shuffled(seed: int, key: int | tuple[int, int]) -> list[int]:
        records = RecordSet(one_video(gray_video).records * 2, ("a", "b"))
        dataset = clip_dataset(records, clip=SPEC, num_frames=8, train=False, order="shuffled", seed=seed)
        return frame_numbers(dataset[key].clip)

    assert sorted(shuffled(0, 0)) == [1, 5, 9, 13, 16, 20, 24, 28]
    assert shuffled(0, 0) == shuffled(0, (0, 0))
    orders = [shuffled(0, (0, 0)), shuffled(0, (0, 1)), shuffled(0, (1, 0)), shuffled(1, (0, 0))]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_reversed_record_shows_the_same_frames_last_first(
    gray_video: Path, tmp_path: Path, frame_numbers, cache
) -> None:
    for num_frames in (1, 3, 8, 30, 40):
        dataset = clip_dataset(
            one_video(gray_video, reverse=True), clip=SPEC, num_frames=num_frames, train=False, cache=cache
        )
        expected = segment_indices(30, num_frames, None)[::-1].tolist()
        assert frame_numbers(dataset[0].clip) == expected


def test_records_of_one_video_share_what_is_drawn(gray_video: Path) -> None:
    record = one_video(gray_video).records[0]
    both = RecordSet((record, replace(record, reverse=True)), ("a", "b"), per_video=2)
    dataset = clip_dataset(both, clip=SPEC, num_frames=4, train=True, flip="random")
    for epoch in range(8):
        forward, backward = dataset[(epoch, 0)].clip, dataset[(epoch, 1)].clip
        assert torch.equal(forward, backward.flip(0))


def test_training_draws_a_frame_of_each_segment(gray_video: Path, frame_numbers) -> None:
    dataset = clip_dataset(one_video(gray_video), clip=SPEC, num_frames=5, train=True)
    drawn = np.array([frame_numbers(dataset[(epoch, 0)].clip) for epoch in range(60)])
    assert (drawn // 6 == np.arange(5)).all()
    assert {int(value) for value in drawn[:, 2]} == set(range(12, 18))


def test_training_samples_depend_on_seed_epoch_and_index_alone(records: RecordSet) -> None:
    def samples(seed: int, keys: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=True, flip="random", seed=seed)
        return {key: dataset[key].clip.numpy().tobytes() for key in keys}

    keys = [(epoch, index) for epoch in (0, 1) for index in range(4)]
    assert samples(3, keys) == samples(3, keys[::-1])
    assert samples(3, keys) != samples(4, keys)
    assert len(set(samples(3, keys).values())) > 4


@pytest.mark.parametrize("train", [True, False])
def test_cache_gives_the_same_samples(records: RecordSet, train: bool) -> None:
    plain, cached = (
        clip_dataset(records, clip=SPEC, num_frames=4, train=train, flip="random", cache=cache)
        for cache in ("none", "memory")
    )
    for key in [(0, 0), (1, 0), (2, 5)]:
        assert torch.equal(plain[key].clip, cached[key].clip)


def test_whole_frames_and_centers(side_video: Path) -> None:
    for protocol, shape in (("fcn", (4, 3, 32, 64)), ("center", (4, 3, 24, 24))):
        dataset = clip_dataset(one_video(side_video), clip=SPEC, num_frames=4, train=False, protocol=protocol)
        assert dataset[0].clip.shape == shape


@pytest.mark.parametrize("index", [-1, 1])
def test_index_outside(gray_video: Path, index: int) -> None:
    dataset = clip_dataset(one_video(gray_video), clip=SPEC, num_frames=4, train=False)
    with pytest.raises(IndexError, match=f"0 to 0.* {index}"):
        dataset[index]


# --- flips -----------------------------------------------------------------------------------------

SIDES = ("go left", "go right", "turn left", "wave")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("never", {}),
        ("random", {0: 0, 1: 1, 2: 2, 3: 3}),
        ("auto", {3: 3}),
        ("swap", {0: 1, 1: 0, 3: 3}),
    ],
)
def test_flip_rules(side_video: Path, rule: FlipRule, expected: dict[int, int]) -> None:
    assert flipped_labels(SIDES, rule) == expected
    for label in range(4):
        records = RecordSet((VideoRecord(side_video, (label,), "side.mp4"),), SIDES)
        spec = ClipSpec(short_side=32, crop_size=32, crop_scales=(1.0,), crop_positions=5)
        dataset = clip_dataset(records, clip=spec, num_frames=2, train=True, flip=rule, cache="memory")
        centered = []
        for epoch in range(80):
            sample = dataset[(epoch, 0)]
            if sample.clip.float().std() > 60:  # the crop holds both halves
                centered.append((is_flipped(sample.clip), int(sample.target)))
        assert len(centered) >= 8
        allowed = {(False, label)} | ({(True, expected[label])} if label in expected else set())
        assert set(centered) == allowed


def test_tests_never_flip(side_video: Path) -> None:
    dataset = clip_dataset(one_video(side_video), clip=SPEC, num_frames=2, train=False, flip="random", protocol="fcn")
    assert not any(is_flipped(dataset[(epoch, 0)].clip) for epoch in range(20))


def test_unknown_flip_rule() -> None:
    with pytest.raises(ValueError, match=r"data.flip is 'always'"):
        flipped_labels(SIDES, "always")  # type: ignore[arg-type]


# --- memory ----------------------------------------------------------------------------------------


def test_preload_reads_every_video_once(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = read_records(DataConfig(root=str(tiny_data), task="arrow"), "val")
    read = []
    all_frames = VideoReader.all_frames
    monkeypatch.setattr(VideoReader, "all_frames", lambda self: read.append(self.path) or all_frames(self))
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False, cache="memory")
    progress: list[tuple[int, int]] = []
    dataset.preload(num_threads=2, progress=lambda done, num_all: progress.append((done, num_all)))
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert len(read) == len(records.records) // 2 == 3
    dataset.preload()
    for index in range(len(dataset)):
        dataset[index]
    assert len(read) == 3


def test_frames_that_do_not_fit_into_the_free_memory_are_refused(
    records: RecordSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decoded already counts as free: a fifth of memory is kept, and 12 of 12 videos need all of it."""
    monkeypatch.setattr(dataset_module, "available_bytes", lambda: 0)
    whole = clip_dataset(records, clip=SPEC, train=True, cache="memory")
    with pytest.raises(
        ValueError, match="The decoded frames of 12 videos would take about 0 GB of the 0 GB of memory that"
    ):
        whole.preload()
    monkeypatch.setattr(dataset_module, "available_bytes", lambda: 10**9)
    assert whole.preload() == []


def test_preload_names_the_bad_video(gray_video: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    records = RecordSet((*one_video(gray_video).records, VideoRecord(bad, (0,), "bad.mp4")), ("a", "b"))
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False, cache="memory")
    assert [str(error).partition(" (")[0] for error in dataset.preload()] == [
        f"{bad}: not a video that FFmpeg can read"
    ]
    assert dataset[0].index == 0
    for _ in range(2):
        with pytest.raises(VideoError, match=r"bad\.mp4: not a video"):
            dataset[1]


def test_preload_without_a_cache(gray_video: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.cache is 'none'"):
        clip_dataset(one_video(gray_video), clip=SPEC, num_frames=4, train=False).preload()


# --- several labels, other samplings ------------------------------------------------------------------


def test_multi_label_targets(gray_video: Path) -> None:
    records = RecordSet(
        (VideoRecord(gray_video, (0, 2), "a"), VideoRecord(gray_video, (1,), "b")),
        ("x", "y", "z"),
        multi_label=True,
    )
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False)
    assert [dataset[i].target.tolist() for i in range(2)] == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def test_multi_label_clips_flip_when_all_labels_may(side_video: Path) -> None:
    def flips(labels: tuple[int, ...], rule: FlipRule) -> set[tuple[bool, tuple[float, ...]]]:
        records = RecordSet((VideoRecord(side_video, labels, "side.mp4"),), SIDES, multi_label=True)
        dataset = clip_dataset(records, clip=ClipSpec(short_side=32, crop_size=32, crop_scales=(1.0,)),
                               num_frames=2, train=True, flip=rule)  # fmt: skip
        samples = [dataset[(epoch, 0)] for epoch in range(30)]
        return {(is_flipped(sample.clip), tuple(sample.target.tolist())) for sample in samples}

    left, right = SIDES.index("go left"), SIDES.index("go right")
    wave = SIDES.index("wave")
    kept = tuple(float(i in (left, wave)) for i in range(len(SIDES)))
    swapped = tuple(float(i in (right, wave)) for i in range(len(SIDES)))
    assert flips((left, wave), "auto") == {(False, kept)}
    assert {target for _, target in flips((left, wave), "swap")} == {kept, swapped}


def test_a_video_without_labels(gray_video: Path) -> None:
    dataset = clip_dataset(
        RecordSet((VideoRecord(gray_video, (), "a"),), ("x", "y")), clip=SPEC, num_frames=4, train=False
    )
    assert int(dataset[0].target) == -1


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_samplings_reach_the_frames(gray_video: Path, frame_numbers, cache) -> None:
    def shown(clip: ClipSpec, num_frames: int) -> list[int]:
        dataset = clip_dataset(one_video(gray_video), clip=clip, num_frames=num_frames, train=False, cache=cache)
        return frame_numbers(dataset[0].clip)

    size = {"short_side": 32, "crop_size": 24}
    # 30 frames at 12 a second, 4 a second wanted: every third, in the middle.
    assert shown(ClipSpec(sampling="rate", frames_per_second=4, **size), 5) == [8, 11, 14, 17, 20]
    assert shown(ClipSpec(sampling="dense", **size), 8) == [0, 8, 16, 24, 2, 10, 18, 26]
