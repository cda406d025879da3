"""Clips of videos whose frames are unevenly spaced in time show equal parts of time, from files, packs and memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.clips import clip_dataset
from tests.helpers.packs import pack, packed_config
from tests.helpers.videos import timed_video
from vsn.config import ClipSpec, SampledBy, Sampling
from vsn.data.dataset import VideoDataset
from vsn.data.packing.pack import pack_dataset
from vsn.data.readers import read_records
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.sampling import segment_indices
from vsn.data.video import open_video

CONSTANT = [i / 25 for i in range(250)]
SECOND_HALF_SLOW = [*(i / 25 for i in range(125)), *(5 + i / 5 for i in range(25))]
"""The same 10 seconds, of whose second half four of five frames are missing."""
SECOND_HALF_FAST = [*range(5), *(5 + i / 25 for i in range(125))]


def brightening(path: Path, times: list[float]) -> Path:
    """A video that gets brighter by 20 a second."""
    return timed_video(path, times, values=[round(20 + 20 * seconds) for seconds in times])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of a constant rate, and two of other rates."""
    root = tmp_path_factory.mktemp("uneven")
    for name in "ab":
        (root / "train" / name).mkdir(parents=True)
    brightening(root / "train" / "a" / "constant.mkv", CONSTANT)
    brightening(root / "train" / "a" / "fast.mkv", SECOND_HALF_FAST)
    brightening(root / "train" / "a" / "slow.mp4", SECOND_HALF_SLOW)
    brightening(root / "train" / "b" / "pause.mov", [*CONSTANT[:50], *CONSTANT[200:]])
    return root


def dataset(path: Path, *, train: bool = False, by: SampledBy = "time", sampling: Sampling = "segment", **settings):
    records = RecordSet((VideoRecord(path=path, labels=(0,), video_id=path.name),), classes=("a",))
    clip = ClipSpec(short_side=32, crop_size=32, crop_scales=(1.0,), by=by, sampling=sampling, frames_per_second=2.0)
    return clip_dataset(records, clip=clip, train=train, **settings)


def brightness(data: VideoDataset, epoch: int = 0) -> np.ndarray:
    return data[epoch, 0].clip.float().mean((-2, -1)).numpy()[..., 0]


@pytest.mark.parametrize("sampling", ["segment", "rate"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["fast.mkv", "slow.mp4"])
def test_clips_are_those_of_the_video_at_a_constant_rate(videos, name: str, train: bool, sampling: Sampling) -> None:
    def clips(video: str) -> np.ndarray:
        data = dataset(videos / "train" / "a" / video, train=train, sampling=sampling)
        return np.concatenate([brightness(data, epoch) for epoch in range(3)])

    wanted, got = clips("constant.mkv"), clips(name)
    # A frame lasts for up to a second: 20 of brightness.
    assert np.abs(wanted - got).max() <= 22
    assert np.abs(wanted - got).mean() <= 12


def test_by_index_keeps_the_choice_by_number(videos: Path) -> None:
    path = videos / "train" / "a" / "fast.mkv"
    expected = open_video(path).frames_at(segment_indices(130, 8, None)).mean((1, 2, 3))
    got = brightness(dataset(path, by="index"))
    assert np.abs(expected - got).max() <= 1
    assert np.abs(expected - brightness(dataset(path))).max() > 30


@pytest.mark.parametrize("by", ["time", "index"])
def test_a_constant_rate_gives_the_frames_of_before(videos: Path, by: SampledBy) -> None:
    path = videos / "train" / "a" / "constant.mkv"
    data = dataset(path, by=by)
    expected = open_video(path).frames_at(segment_indices(250, 8, None))
    assert (data[0].clip.permute(0, 2, 3, 1).numpy() == expected).all()


@pytest.mark.parametrize(
    "settings", [{}, {"modality": "rgbdiff", "flow_length": 4}, {"protocol": "dense-10clip-3crop"}]
)
@pytest.mark.parametrize("by", ["time", "index"])
@pytest.mark.parametrize("train", [False, True])
def test_memory_and_packs_give_the_clips_of_the_files(
    videos, tmp_path: Path, train: bool, by: SampledBy, settings
) -> None:
    pack(videos, tmp_path / "pack", short_side=32, quality=100)
    packed = read_records(packed_config(tmp_path / "pack"), "train").records
    for record in packed:
        file = videos / record.video_id
        clips = [
            dataset(path, train=train, by=by, **settings, **cache)[1, 0].clip.numpy().astype(int)
            for path, cache in ((file, {}), (file, {"cache": "memory"}), (record.path, {}))
        ]
        assert (clips[0] == clips[1]).all()
        assert np.abs(clips[0] - clips[2]).max() <= 2  # JPEG


def test_a_pack_is_packed_again_with_its_times(videos: Path, tmp_path: Path) -> None:
    pack(videos, tmp_path / "first", short_side=32)
    pack_dataset(packed_config(tmp_path / "first"), tmp_path / "second", short_side=24, num_workers=0, progress=False)
    for number in ("first", "second"):
        times = {
            record.video_id: open_video(record.path).times
            for record in read_records(packed_config(tmp_path / number), "train").records
        }
        for video_id, seconds in times.items():
            assert seconds == pytest.approx(open_video(videos / video_id).times, abs=2e-3)


def test_differences_are_over_equal_times(videos: Path) -> None:
    """While a frame lasts nothing moves, and frames that follow are 1/25 second apart."""
    data = dataset(videos / "train" / "a" / "fast.mkv", modality="rgbdiff", flow_length=4)
    stacks = data[0].clip.float().mean((-2, -1)).numpy().reshape(8, 5, 3)[..., 0]
    assert np.ptp(stacks[0]) == 0
    assert 2 <= np.ptp(stacks[-1]) <= 5
