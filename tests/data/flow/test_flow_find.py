"""Which flow belongs to which video, and where it is looked for."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.lookalikes import make_frame_folders, make_kinetics, make_something_v1, make_something_v2
from tests.helpers.stored_flow import LAYOUTS, Layout, exact_flow, lay_flow, write_fields
from vsn.config import ConfigError, DataConfig
from vsn.data.flow.find import flow_of_video, list_flow, with_flow
from vsn.data.flow.stored import open_flow
from vsn.data.flow.values import FlowMetadata, flow_to_bytes, write_flow_metadata
from vsn.data.readers import read_records
from vsn.data.video import VideoError

FACTS = FlowMetadata()


def still(num_fields: int = 2) -> list[np.ndarray]:
    return [np.full((16, 24, 2), 128, np.uint8)] * num_fields


def clips(root: Path, *names: str) -> DataConfig:
    """Folders of frames, class/video."""
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (24, 16)).save(root / name / "00001.jpg")
    return DataConfig(root=str(root), val_fraction=0.5)


def places(config: DataConfig, split: str = "train") -> list[str]:
    root = Path(config.root)
    found = with_flow(read_records(config, split), config, FACTS).records
    return sorted(record.path.relative_to(root).as_posix() for record in found.records)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flow_of_something_something_v1(tmp_path: Path, layout: Layout) -> None:
    config = lay_flow(make_something_v1(tmp_path), layout)
    records = read_records(config, "train")
    stored = with_flow(records, config, FACTS)
    for number, (video, flow) in enumerate(zip(records.records, stored.records.records, strict=True)):
        assert (video.video_id, video.labels) == (flow.video_id, flow.labels)
        read = open_flow(flow.path, layout=stored.layout).all_frames()
        expected = np.stack([flow_to_bytes(field, 20.0) for field in exact_flow(video.label, number)])
        # JPEG does not keep the sharp edge of the square, nor colors that of x apart from that of y.
        assert np.abs(read.astype(int) - expected).max() <= (60 if layout == "rg" else 6)
    names = {
        "xy": "pictures from flow_x_00001.jpg and flow_y_00001.jpg on",
        "id-xy": "pictures from 000001-x_00001.jpg and 000001-y_00001.jpg on",
        "rg": "pictures from 000001.jpg on, red for x and green for y",
        "file": ".vsnflow files, 9 fields in the first",
    }
    taken = "" if layout == "file" else f" (assumed: there is no {tmp_path / 'flow' / 'flow.json'})"
    assert stored.summary == f"Flow: {names[layout]}; tv-l1, bound 20 pixels, zero 128{taken}."


@pytest.mark.parametrize("make", [make_something_v2, make_kinetics])
def test_flow_of_video_files(tmp_path: Path, make) -> None:
    config = lay_flow(make(tmp_path))
    records = read_records(config, "val")
    stored = with_flow(records, config, FACTS).records
    assert [r.path.name for r in stored.records] == [r.path.stem for r in records.records]
    assert {r.path.parent for r in stored.records} == {tmp_path / "flow"}


@pytest.mark.parametrize("folder", ["flow", "tvl1", "20bn-something-something-v1-flow"])
def test_usual_names_are_found(tmp_path: Path, folder: str) -> None:
    config = replace(lay_flow(make_something_v1(tmp_path), folder=folder), flow="")
    assert places(config)[0] == f"{folder}/1"


@pytest.mark.parametrize("below", ["train/class0", "class0", ""])
def test_a_video_may_lie_in_its_folders_or_without(tmp_path: Path, below: str) -> None:
    config = make_frame_folders(tmp_path / "clips")
    for record in read_records(config, "train").records:
        _, class_name, video = record.video_id.split("/")
        write_fields(tmp_path / "clips-flow" / below.replace("class0", class_name), video, still(), "xy")
    stored = with_flow(read_records(config, "train"), config, FACTS).records
    assert stored.records[0].path == tmp_path / "clips-flow" / below / "clip1"


def test_the_longest_name_counts(tmp_path: Path) -> None:
    config = clips(tmp_path / "clips", "a/1", "a/2", "b/1", "b/2")
    for name in ("1", "2", "a/1", "a/2", "b/1", "b/2"):
        place = tmp_path / "f" / name
        write_fields(place.parent, place.name, still(), "xy")
    config = replace(config, flow="../f")
    stored = with_flow(read_records(config, "train"), config, FACTS).records
    assert [r.path.parent.name + "/" + r.path.name for r in stored.records] == [r.video_id for r in stored.records]


def test_one_flow_of_two_videos(tmp_path: Path) -> None:
    config = clips(tmp_path / "clips", "train/a/1", "train/b/1", "val/a/2", "val/b/2")
    write_fields(tmp_path / "f", "1", still(), "xy")
    with pytest.raises(ConfigError, match=r"1 .*'train/a/1' and 'train/b/1'"):
        places(replace(config, flow="../f"))


def test_flow_beside_the_frames(tmp_path: Path) -> None:
    config = clips(tmp_path, "a/1", "a/2", "b/1", "b/2")
    for record in read_records(config, "train").records:
        write_fields(record.path.parent, record.path.name, still(3), "xy")
    stored = with_flow(read_records(config, "train"), config, FACTS)
    assert stored.layout == "xy"  # the numbered pictures are the frames
    assert open_flow(stored.records.records[0].path, layout=stored.layout).all_frames().shape == (3, 16, 24, 2)


# --- refusals --------------------------------------------------------------------------------------


def test_no_flow_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_something_v1(tmp_path)
    with pytest.raises(ConfigError, match=r"tvl1.*vsn flow extract"):
        places(config)
    with pytest.raises(ConfigError, match=r"data\.flow is 'nowhere'"):
        places(replace(config, flow="nowhere"))
    # A shell that completes names knows those of the current folder.
    here = tmp_path / "here"
    (here / "extracted").mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(ConfigError, match=rf"relative to data\.root; .*'{here / 'extracted'}'"):
        places(replace(config, flow="extracted"))


def test_videos_without_flow_are_named(tmp_path: Path) -> None:
    config = lay_flow(make_something_v1(tmp_path))
    shutil.rmtree(tmp_path / "flow" / "3")
    with pytest.raises(ConfigError, match=r"1 of 12 videos .*'20bn-something-something-v1/3'"):
        places(config)


def test_frames_in_the_place_of_flow(tmp_path: Path) -> None:
    config = make_something_v1(tmp_path)
    for record in read_records(config, "train").records:
        values = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(values).save(record.path / "00001.jpg")
    config = replace(config, flow="20bn-something-something-v1")
    with pytest.raises(ConfigError, match=r"their blue varies.*data\.flow_layout to 'rg'"):
        places(config)
    assert len(places(replace(config, flow_layout="rg"))) == 12  # who says so is believed


@pytest.mark.parametrize("moves", [True, False])
def test_gray_pictures_are_no_flow_unless_nothing_moves(tmp_path: Path, moves: bool) -> None:
    config = replace(clips(tmp_path / "clips", "a/1", "a/2", "b/1", "b/2"), flow="flow")
    noise = np.random.default_rng(0).integers(0, 256, (16, 24), dtype=np.uint8)
    picture = Image.fromarray(noise) if moves else Image.new("L", (24, 16), 128)
    records = read_records(config, "train")
    for record in records.records:
        folder = tmp_path / "clips" / "flow" / record.video_id
        folder.mkdir(parents=True)
        picture.save(folder / "000001.png")
    if not moves:
        assert len(with_flow(records, config, FACTS).records.records) == 2
        return
    with pytest.raises(ConfigError, match="they are gray"):
        with_flow(records, config, FACTS)


def test_a_folder_of_flow_that_became_a_class(tmp_path: Path) -> None:
    config = clips(tmp_path, "a/1", "a/2", "b/1", "b/2", "flow/1", "flow/2")
    with pytest.raises(ConfigError, match=r"for example 'flow/\d'"):
        places(config)


def test_other_conventions_are_refused(tmp_path: Path) -> None:
    config = lay_flow(make_something_v1(tmp_path))
    write_flow_metadata(tmp_path / "flow", FlowMetadata(bound=15.0))
    with pytest.raises(ConfigError, match=r"bound is 15\.0 there, model\.flow_bound is 20\.0"):
        places(config)
    stored = with_flow(read_records(config, "train"), config, FlowMetadata(bound=15.0))
    assert stored.summary.endswith("; tv-l1, bound 15 pixels, zero 128.")


def test_files_without_their_facts(tmp_path: Path) -> None:
    config = lay_flow(make_something_v1(tmp_path), "file")
    (tmp_path / "flow" / "flow.json").unlink()
    with pytest.raises(ConfigError, match=r"flow\.json is missing"):
        places(config)


def test_flow_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    config = lay_flow(make_something_v1(tmp_path))
    for folder in (tmp_path / "flow").iterdir():
        for file in folder.iterdir():
            file.unlink()
    with pytest.raises(ConfigError, match="neither this nor any other"):
        places(config)


# --- what prediction is given ----------------------------------------------------------------------


def test_flow_given_for_prediction(tmp_path: Path) -> None:
    folder = write_fields(tmp_path / "f", "1", still(), "xy")
    file = write_fields(tmp_path / "f", "2", still(), "file")
    both = write_fields(tmp_path / "f", "3", still(), "rg")
    assert [flow_of_video(path, FACTS) for path in (folder, file, both)] == [folder, file, both]
    assert list_flow(tmp_path) == [file, folder, both]
    assert list_flow(folder) == [folder]
    write_flow_metadata(tmp_path / "f", FlowMetadata(method="raft"))
    with pytest.raises(ConfigError, match="method is 'raft'"):
        flow_of_video(file, FACTS)


def test_a_video_given_for_prediction(tmp_path: Path, gray_video: Path) -> None:
    """Its flow is not stored: neither that of a file, nor that of a folder of frames."""
    assert flow_of_video(gray_video, FACTS) is None
    assert list_flow(gray_video.parent) == []
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "00001.png")
    assert flow_of_video(tmp_path, FACTS) is None
    (tmp_path / "00001.png").unlink()
    with pytest.raises(VideoError, match="no flow: no frames"):
        flow_of_video(tmp_path, FACTS)
