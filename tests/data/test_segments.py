"""Records that are segments of videos: the same clips as those of files cut there, and what is refused."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.data.video.test_sparse_reading import encode, moving, remux
from tests.helpers.laid_out import ids, lay
from tests.helpers.packs import packed_config
from tests.helpers.videos import timed_video
from vsn.config import ClipSpec, ConfigError, DataConfig, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.dataset import VideoDataset
from vsn.data.flow.extract import FlowSettings, extract_flow, flow_path
from vsn.data.flow.stored import open_flow
from vsn.data.open import open_datasets
from vsn.data.packing.pack import pack_dataset
from vsn.data.part import Part, VideoPart, overlapping_pairs, parse_part, parse_seconds
from vsn.data.per_video import videos_of_data_set
from vsn.data.readers import read_records
from vsn.data.video import OutsideVideoError, VideoError, open_video, part_reader
from vsn.doctor import examine
from vsn.doctor.checks import check_all
from vsn.doctor.evidence import Evidence
from vsn.doctor.splits import read_splits
from vsn.doctor.videos import inspect_video
from vsn.stream.plan import window_seconds

TIMES = ((0.4, 1.2), (1.2, 2.0), (2.4, None))
"""Segments of a video of 100 frames, 25 a second: frames 10 to 29, 30 to 49, 60 to 99."""
FRAMES = ((10, 30), (30, 50), (60, 100))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataConfig, DataConfig]:
    """Segments of one file in which every frame is a key frame, and the files that are cut there."""
    root = tmp_path_factory.mktemp("segments")
    (root / "long").mkdir()
    (root / "cut").mkdir()
    whole = encode(root / "long/day.mkv", "mjpeg", frames=moving(100), pixels="yuvj420p")
    rows, cuts = [], []
    for number, ((start, end), (first, stop)) in enumerate(zip(TIMES, FRAMES, strict=True)):
        name = remux(whole, root / f"cut/{number}.mkv", lambda i, packet, a=first, b=stop: a <= i < b).name
        for split in ("train", "val"):
            rows.append(f"day.mkv,{'ab'[number % 2]},{start},{'' if end is None else end},{split}\n")
            cuts.append(f"{name},{'ab'[number % 2]},{split}\n")
    lay(root, {"long/clips.csv": "path,label,start,end,split\n" + "".join(rows)})
    lay(root, {"cut/clips.csv": "path,label,split\n" + "".join(cuts)})
    return DataConfig(root=str(root / "long"), source="csv"), DataConfig(root=str(root / "cut"), source="csv")


RECIPE = Recipe(model=ModelConfig(num_frames=4), clip=ClipSpec(short_side=40, crop_size=32), train=TrainConfig(seed=7))
RATE = replace(RECIPE, clip=replace(RECIPE.clip, sampling="rate", frames_per_second=7))
DIFFERENCES = replace(RECIPE, model=ModelConfig(name="tsn_resnet18", num_frames=4, modality="rgbdiff"))


def data_set(recipe: Recipe, config: DataConfig, *, train: bool) -> VideoDataset:
    recipe = replace(recipe, data=replace(config, cache=recipe.data.cache))
    return VideoDataset(read_records(config, "train" if train else "val"), recipe, train=train)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        RATE,
        DIFFERENCES,
        replace(RECIPE, clip=replace(RECIPE.clip, sampling="dense", by="index")),
        replace(RECIPE, data=DataConfig(cache="memory")),
        replace(RECIPE, eval=EvalConfig(protocol="3crop-2clip")),
    ],
    ids=["segment", "rate", "rgbdiff", "dense", "memory", "two clips"],
)
def test_a_clip_of_a_segment_is_that_of_the_cut_file(both, recipe: Recipe, train: bool) -> None:
    of_segments, of_cuts = (data_set(recipe, config, train=train) for config in both)
    assert ids(read_records(both[0], "train")) == ["day.mkv#t=0.4,1.2", "day.mkv#t=1.2,2", "day.mkv#t=2.4"]
    for epoch in range(2):
        for index in range(3):
            segment, cut = of_segments[epoch, index], of_cuts[epoch, index]
            assert torch.equal(segment.clip, cut.clip)
            assert segment.target == cut.target


def test_a_pack_holds_the_segments(both, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("segments", "cuts")]
    for config, out in zip(both, outs, strict=True):
        pack_dataset(config, out, short_side=40, num_workers=0, progress=False)
    packed = [packed_config(out) for out in outs]
    assert ids(read_records(packed[0], "val")) == ids(read_records(both[0], "val"))
    of_segments, of_cuts = (data_set(RECIPE, config, train=False) for config in packed)
    assert [torch.equal(of_segments[i].clip, of_cuts[i].clip) for i in range(3)] == [True] * 3


def test_flow_of_segments_is_that_of_the_cut_files(both, tmp_path: Path) -> None:
    fields = []
    for number, config in enumerate(both):
        out = tmp_path / str(number)
        videos = videos_of_data_set(config, out)
        summary = extract_flow(videos, out, FlowSettings(short_side=40), num_workers=0, progress=False)
        assert not summary.failed
        fields.append([open_flow(flow_path(video, out, "file")).all_frames() for video in videos])
    assert [len(field) for field in fields[0]] == [19, 19, 39]
    for segment, cut in zip(*fields, strict=True):
        np.testing.assert_array_equal(segment, cut)
    # And a run on flow finds it by the times: the flow of the whole file is not that of a segment.
    flow = replace(RECIPE, model=ModelConfig(num_frames=4, modality="flow", flow_length=2), data=both[0])
    flow = replace(flow, data=replace(flow.data, flow=str(tmp_path / "0"), allow_overlap=True))
    train, _ = open_datasets(flow, Console(file=io.StringIO()))
    assert [record.path.name for record in train.records][:2] == [
        "day.mkv#t=0.4,1.2.vsnflow",
        "day.mkv#t=1.2,2.vsnflow",
    ]
    (tmp_path / "0/day.mkv#t=0.4,1.2.vsnflow").rename(tmp_path / "0/day.vsnflow")
    with pytest.raises(ConfigError, match=r"1 of 3 videos have no flow there, for example 'day.mkv#t=0.4,1.2'"):
        open_datasets(flow, Console(file=io.StringIO()))


# --- which frames ----------------------------------------------------------------------------------

UNEVEN = [0.0, 0.04, 0.08, 0.12, 0.5, 0.54, 0.56, 0.6, 0.64, 0.68, 0.72]


@pytest.mark.parametrize(
    ("part", "frames"),
    [
        (Part(0.05, 0.55), [2, 3, 4, 5]),  # time stamps in [start, end)
        (Part(0.04, 0.54), [1, 2, 3, 4]),
        (Part(0.54, 0.6), [5, 6]),
        (Part(0.61, 0.63), [7]),  # no frame begins there: the one on the screen
        (Part(0.2, 0.55), [3, 4, 5]),  # the frame that is shown from 0.12 to 0.5
        (Part(0.3, 0.4), [3]),
        (Part(0.7), [10]),
    ],
)
def test_frames_of_a_segment_of_uneven_frames(tmp_path: Path, part: Part, frames: list[int]) -> None:
    path = timed_video(tmp_path / "video.mkv", UNEVEN, options={"g": "1", "qp": "0"})
    whole = open_video(path).all_frames()
    with part_reader(open_video(path), part) as video:
        np.testing.assert_array_equal(video.all_frames(), whole[frames])
        np.testing.assert_array_equal(np.stack(list(video)), whole[frames])


def test_parts_that_follow_each_other_share_no_frame(tmp_path: Path) -> None:
    path = timed_video(tmp_path / "video.mkv", [i / 25 for i in range(50)])
    edges = np.sort(np.random.default_rng(0).uniform(0.1, 1.9, 7))
    with open_video(path) as video:
        parts = [
            video.indices_between(a, b)
            for a, b in zip([0, *edges], [*edges, None], strict=True)
            if b is None or b - a > 0.05
        ]
    assert all(a.stop <= b.start for a, b in itertools.pairwise(parts))


def test_segments_past_the_end(tmp_path: Path) -> None:
    path = timed_video(tmp_path / "video.mkv", [i / 25 for i in range(100)])  # 4 seconds
    assert part_reader(open_video(path), Part(3.5, 4.4)).num_frames == 12  # rounded up
    for part, message in (
        (Part(3.5, 4.6), r"lasts 3.99 s.*ends at 4.6"),
        (Part(5, 6.5), r"begins at 5 s and ends at 6.5 s\.$"),
        (Part(50, 75), r"100 frames: if the times are numbers of frames, divide them by its 25.04 frames"),
        (Part(500, 750), r"ends at 750 s\.$"),
    ):
        with pytest.raises(OutsideVideoError, match=message):
            part_reader(open_video(path), part)


# --- times as people write them --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("0", 0),
        ("1:02.25", 62.25),
        ("01:00:03", 3603),
        ("90:00", 5400),
        ("1e1", 10),
        ("0.03337", 0.033),
    ],
)
def test_times_that_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("12,5", "decimal point"), ("00:01:02:12", "time code"), ("1:75", "'1:75'"), ("-3", "'-3'"), ("nan", "'nan'"),
        ("inf", "'inf'"), ("1 min", "'1 min'"), ("1:2", "'1:2'"), ("", "expected seconds"),
    ],
)  # fmt: skip
def test_times_that_are_refused(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_seconds(text)


def test_pairs_of_parts_that_overlap() -> None:
    draws = np.random.default_rng(3)
    parts = [
        None,
        *(Part(a, a + b) for a, b in draws.uniform(0.1, 5, (40, 2))),
        Part(4.9),
        Part(1.0, 2.0),
        Part(2.0, 3.0),
    ]

    def overlap(a: Part | None, b: Part | None) -> bool:
        (a, b) = (a or Part(), b or Part())
        return max(a.start, b.start) < min(a.end or 99, b.end or 99) - 1e-3

    expected = {frozenset((i, j)) for i in range(len(parts)) for j in range(i) if overlap(parts[i], parts[j])}
    assert {frozenset(pair) for pair in overlapping_pairs(range(len(parts)), parts.__getitem__)} == expected
    assert parse_part("", "") is None


# --- lists -------------------------------------------------------------------------------------------

HEADER = "path,label,start,end,split\n"
GOOD = (
    "a.mkv,x,0,1,train\na.mkv,y,1,2,train\nb.mkv,x,0:00.5,1.5,train\nb.mkv,y,1.5,,train\n"
    "c.mkv,x,0,1,val\nc.mkv,y,,2,val\n".replace("y,,2,val", "y,1,2,val")
)


def lay_list(root: Path, rows: str, **settings: object) -> DataConfig:
    for name in "abcd":
        timed_video(root / f"{name}.mkv", [i / 25 for i in range(50)], values=[ord(name) + i for i in range(50)])
    lay(root, {"clips.csv": HEADER + rows})
    return DataConfig(root=str(root), source="csv", **settings)


def open_sets(config: DataConfig) -> tuple[VideoDataset, VideoDataset, str]:
    console = Console(record=True, width=900, file=io.StringIO())
    train, val = open_datasets(Recipe(data=config, model=ModelConfig(num_frames=4)), console)
    return train, val, console.export_text()


def test_a_list_of_segments(tmp_path: Path) -> None:
    train, val, text = open_sets(lay_list(tmp_path, GOOD))
    assert [record.shown for record in train.records] == [
        VideoPart(tmp_path / "a.mkv", Part(0, 1)),
        VideoPart(tmp_path / "a.mkv", Part(1, 2)),
        VideoPart(tmp_path / "b.mkv", Part(0.5, 1.5)),
        VideoPart(tmp_path / "b.mkv", Part(1.5)),
    ]
    assert len(val) == 2
    assert "'0:00.5' (line 4) is 0.5 seconds" in text


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ("d.mkv,x,1,0.5,train\n", {}, r"clips.csv: line 8: the segment starts at '1' and ends at '0.5'"),
        ("d.mkv,x,1.0,1.0,train\n", {}, r"line 8.*the end must be after the start"),
        ("d.mkv,x,1;00,2,train\n", {}, r"line 8: the time is '1;00'; expected seconds"),
        ("d.mkv,x,0,30,train\n", {}, r"'d.mkv#t=0,30' \(clips.csv, line 8\): it lasts 1.99 s.*numbers of frames"),
        ("d.mkv,x,0,30,val\n", {}, r"1 files have segments outside of them"),
        ("a.mkv,y,0.5,1.5,train\n", {}, r"overlap, 1 in all, .*'a.mkv#t=0,1' \(x, clips.csv, line 2\).*line 8.*multilabel"),
        ("a.mkv,y,,,train\n", {}, r"segments with different labels overlap"),
        ("a.mkv,x,0.5,0.9,val\n", {}, r"1 pairs of segments overlap in two splits.*'a.mkv#t=0,1'.*'train'.*line 8.*'val'"),
        ("a.mkv,y,,,val\n", {}, r"the same video has two labels.*'a.mkv#t=0,1'.*'x' and 'a.mkv'"),
        ("c.mkv,x,0.5,1.0,test\n", {}, r"overlap in two splits.*'val'.*'test'"),
        ("a.mkv,y,0,1,val\n", {"allow_overlap": True}, r"the same video has two labels.*'x'.*'y'"),
        ("a.mkv,y,0,1,train\n", {}, r"line 2 and clips.csv, line 8 give 'a.mkv#t=0,1' different labels"),
    ],
)  # fmt: skip
def test_lists_that_are_refused(tmp_path: Path, rows: str, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_sets(lay_list(tmp_path, GOOD + rows, **settings))


@pytest.mark.parametrize(
    ("rows", "settings", "note"),
    [
        ("a.mkv,x,0.95,1.0,train\n", {}, ""),  # the same label
        ("d.mkv,y,0.95,2,train\nd.mkv,x,0,1,train\n", {}, "Segments with different labels overlap a little: 1"),
        ("a.mkv,y,0.5,1.5,train\n", {"task": "multilabel"}, ""),
        ("d.mkv,x,0,1,train\nd.mkv,y,1,2,val\n", {}, "1 group is"),
        ("a.mkv,x,0,0.5,val\n", {"allow_overlap": True}, "data.allow_overlap permits it"),
        ("a.mkv,x,0,1.0004,train\n", {}, "1 line repeats a video"),
    ],
)
def test_lists_that_are_allowed(tmp_path: Path, rows: str, settings: dict, note: str) -> None:
    assert note in open_sets(lay_list(tmp_path, GOOD + rows, **settings))[2]


def test_seconds_of_a_folder_of_frames_need_its_rate(tmp_path: Path) -> None:
    folder = tmp_path / "day"
    folder.mkdir()
    for i, frame in enumerate(moving(50), 1):
        Image.fromarray(frame).save(folder / f"{i:05d}.png")
    lay(tmp_path, {"clips.csv": HEADER + "day,x,0,1,train\nday,y,1,1.5,train\nday,x,1.6,,val\n"})
    config = DataConfig(root=str(tmp_path), source="csv")
    with pytest.raises(ConfigError, match=r"line 2: day is a folder of frames.*set data.annotation_rate"):
        read_records(config, "train")
    records = read_records(replace(config, annotation_rate=20.0), "train")
    assert [record.part for record in records.records] == [Part(0, 20), Part(20, 30)]
    with part_reader(open_video(folder), records.records[1].part) as video:
        np.testing.assert_array_equal(video.all_frames(), moving(50)[20:30])
    # In a pack the frames have no times either.
    lay(tmp_path, {"clips.csv": "path,label,split\nday,x,train\nday,x,val\n"})
    pack_dataset(replace(config, task="arrow"), tmp_path / "pack", num_workers=0, progress=False)
    with pytest.raises(VideoError, match="its frames have no times"):
        part_reader(open_video(tmp_path / "pack/shard-00000.vsnpack/0"), Part(0, 1))


def test_many_whole_numbers_are_noted_as_seconds(tmp_path: Path) -> None:
    note = "all 20 times are whole numbers, and are read as seconds"
    rows = "".join(f"{i}.mkv,{'xy'[i % 2]},{i},{i + 1}{{}}\n" for i in range(10))
    for fraction, is_noted in (("", True), (".5", False)):
        text = "path,label,start,end\n" + rows.format(*[fraction] * 10)
        lay(tmp_path, {"clips.csv": text}, *(f"{i}.mkv" for i in range(10)))
        notes = read_records(DataConfig(root=str(tmp_path), source="csv"), "train").notes
        assert any(note in one for one in notes) == is_noted


def test_windows_are_as_long_as_training_segments(tmp_path: Path) -> None:
    recipe = replace(RECIPE, data=lay_list(tmp_path, GOOD))
    seconds, reason = window_seconds(recipe, 25.0)
    assert seconds == pytest.approx(1.0, abs=0.01)
    assert "the median length of 4 training videos" in reason


def test_a_copy_of_the_file_under_another_name(tmp_path: Path) -> None:
    config = lay_list(tmp_path, GOOD + "copy.mkv,x,0,1,train\ncopy.mkv,y,1,1.5,train\ncopy.mkv,y,1.5,2,val\n")
    (tmp_path / "copy.mkv").write_bytes((tmp_path / "a.mkv").read_bytes())
    with pytest.raises(
        ConfigError, match=r"1 pairs of segments overlap in two splits.*'a.mkv#t=1,2'.*'copy.mkv#t=1.5,2'"
    ):
        open_sets(replace(config))
    train, _, text = open_sets(replace(config, allow_overlap=True))
    assert "Left out of training as copies of other videos: 2, for example 'copy.mkv#t=0,1'" in text
    assert len(train) == 4


def test_the_arrow_of_time_of_segments(tmp_path: Path) -> None:
    records = read_records(lay_list(tmp_path, GOOD, task="arrow"), "train")
    assert ids(records)[:2] == ["a.mkv#t=0,1", "a.mkv#t=0,1#reversed"]
    recipe = replace(RECIPE, data=DataConfig(flip="never"))
    dataset = VideoDataset(records, recipe, train=False)
    assert torch.equal(dataset[2].clip, dataset[3].clip.flip(0))


def test_ids_name_one_segment(tmp_path: Path) -> None:
    lay_list(tmp_path, "")
    lay(tmp_path, {"clips.csv": "id,path,label,start,end\n1,a.mkv,x,0,1\n1,a.mkv,y,1,2\n"})
    with pytest.raises(ConfigError, match=r"lines 2 and 3 have the id '1'"):
        read_records(DataConfig(root=str(tmp_path), source="csv"), "train")


def lay_many(root: Path, num_files: int, num_segments: int) -> DataConfig:
    """Segments of half a second, of two classes in turns, each overlapping the next of its class."""
    rows = [
        f"{file}.mkv,{'xy'[i % 2]},{i * 10},{i * 10 + 9}\n{file}.mkv,{'xy'[i % 2]},{i * 10 + 5},{i * 10 + 10}\n"
        for file in range(num_files)
        for i in range(num_segments)
    ]
    lay(root, {"clips.csv": "path,label,start,end\n" + "".join(rows)}, *(f"{file}.mkv" for file in range(num_files)))
    return DataConfig(root=str(root), source="csv")


def test_whole_files_are_held_out(tmp_path: Path) -> None:
    config = lay_many(tmp_path, 10, 6)
    train, val = read_records(config, "train"), read_records(config, "val")
    files = [{record.path for record in part.records} for part in (train, val)]
    assert [len(paths) for paths in files] == [8, 2]
    assert not files[0] & files[1]
    assert train.records[0].group == train.records[0].path.name  # so intervals count files


def test_segments_of_one_long_file_are_held_out_without_overlap(tmp_path: Path) -> None:
    config = lay_many(tmp_path, 1, 20)
    train, val = read_records(config, "train"), read_records(config, "val")
    assert (len(train.records), len(val.records)) == (32, 8)
    pairs = overlapping_pairs([*train.records, *val.records], lambda record: record.part)
    assert not [pair for pair in pairs if (pair[0] in train.records) != (pair[1] in train.records)]
    assert any("Accuracy on them tells little about other files" in note for note in val.notes)


# --- doctor ------------------------------------------------------------------------------------------


def test_what_the_doctor_finds(tmp_path: Path) -> None:
    rows = "d.mkv,x,0,1,train\nd.mkv,y,1,1.1,val\nd.mkv,x,1.5,9,train\na.mkv,x,0.5,1,test\n"
    config = lay_list(tmp_path, GOOD + rows)
    recipe = Recipe(data=config, model=ModelConfig(num_frames=8))
    diagnosis = examine(recipe, num_workers=0, loading_seconds=0, progress=False)
    found = {finding.code: finding for finding in diagnosis.findings}
    assert found["outside"].items == (
        "d.mkv#t=1.5,9 (train): it lasts 1.99 s; the part begins at 1.5 s and ends at 9 s",
    )
    assert "d.mkv#t=1,1.1 (val): 3 frames" in found["too-short"].items
    assert found["leak"].items == ("a.mkv#t=0,1 (train) overlaps a.mkv#t=0.5,1 (test)",)
    assert found["group-leak"].items == (
        "a.mkv (train: 2 videos, test: 1 video)",
        "d.mkv (train: 2 videos, val: 1 video)",
    )


def test_the_doctor_finds_a_copy_of_a_segments_file(tmp_path: Path) -> None:
    config = lay_list(tmp_path, GOOD + "copy.mkv,x,0,1,val\ncopy.mkv,x,1.5,2,test\n")
    (tmp_path / "copy.mkv").write_bytes((tmp_path / "a.mkv").read_bytes())
    splits, _ = read_splits(config)
    copies = ((tmp_path / "a.mkv", tmp_path / "copy.mkv"),)
    findings = {f.code: f for f in check_all(Evidence(Recipe(data=config), splits, {}, copies=copies))}
    assert findings["leak"].items == ("a.mkv#t=0,1 (train) overlaps copy.mkv#t=0,1 (val)",)


def test_a_thousand_segments_of_a_file_cost_what_the_segments_cost(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mp4", options={"g": "10"}, frames=moving(300))
    report = inspect_video(VideoPart(path, Part(8.0, 8.4)), RECIPE)
    assert (report.num_frames, report.announced, report.num_sizes) == (10, 10, 1)
    with part_reader(open_video(path), Part(8.0, 8.4)) as part:
        part.sample(lambda num_frames: [0, num_frames - 1])
        assert part._whole.num_decoded <= 12


def test_a_damaged_part_of_a_file(both) -> None:
    with pytest.raises(VideoError, match=r"lasts 4\.00 s"):
        part_reader(open_video(Path(both[0].root) / "day.mkv"), Part(4.0, 4.2))
