"""Every fault planted is found, as that fault and no other; a healthy set gives neither error nor warning."""

import csv
import doctest
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.doctor.test_near_copies import moving
from tests.helpers.videos import timed_video
from vsn.config import ClipSpec, DataConfig, ModelConfig, Recipe
from vsn.data.copies import find_copies
from vsn.data.part import VideoPart
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import write_video
from vsn.doctor import Diagnosis, Finding, examine, print_page
from vsn.doctor import examine as examine_function
from vsn.doctor.checks import check_all
from vsn.doctor.evidence import Evidence, Loading
from vsn.doctor.splits import Split, choose_videos, read_splits
from vsn.doctor.videos import VideoReport, inspect_video

CLIP = ClipSpec(short_side=32, crop_size=16)
T = 4


def pictures(seed: int, num_frames: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames like no other seed's."""
    blocks = np.random.default_rng(seed).integers(40, 200, (4, 6, 3))
    image = blocks.repeat(-(-height // 4), 0).repeat(-(-width // 6), 1)[:height, :width]
    return [(image + i).astype(np.uint8) for i in range(num_frames)]


def write(path: Path, seed: int, num_frames: int = 10, **size: int) -> Path:
    write_video(path, pictures(seed, num_frames, **size), frames_per_second=10)
    return path


def encode(path: Path, frames: list[np.ndarray], codec: str = "mpeg4") -> Path:
    """Any container, by the name's ending."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, seed: int, template: str = "{:05d}.jpg", start: int = 1, count: int = 6) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(pictures(seed, count)):
        Image.fromarray(image).save(folder / template.format(start + i))
    return folder


@pytest.fixture(scope="module")
def healthy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("healthy")
    seed = 0
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for name in ("jump", "wave"):
            for i in range(count):
                write(root / split / name / f"{split}{i}.mp4", seed)
                seed += 1
    return root


@pytest.fixture
def data(healthy_set: Path, tmp_path: Path) -> Path:
    """A healthy set to plant a fault in."""
    return Path(shutil.copytree(healthy_set, tmp_path / "data"))


def diagnose(root: Path, *, num_frames: int = T, clip: ClipSpec = CLIP, **settings: object) -> Diagnosis:
    options = {name: settings.pop(name) for name in ("sample", "thorough") if name in settings}
    recipe = recipe_of(DataConfig(root=str(root), **settings), num_frames=num_frames, clip=clip)
    return examine(recipe, num_workers=0, loading_seconds=0, progress=False, **options)


def recipe_of(data: DataConfig, *, num_frames: int = T, clip: ClipSpec = CLIP) -> Recipe:
    return Recipe(data=data, clip=clip, model=ModelConfig(num_frames=num_frames))


def codes(diagnosis: Diagnosis | list[Finding]) -> list[tuple[str, str]]:
    findings = diagnosis.findings if isinstance(diagnosis, Diagnosis) else diagnosis
    return [(finding.code, finding.severity) for finding in findings]


def only(diagnosis: Diagnosis, code: str, severity: str) -> Finding:
    """The one finding there is, which must be this one."""
    assert codes(diagnosis) == [(code, severity)]
    return diagnosis.findings[0]


def test_healthy_set_has_no_findings(healthy_set: Path):
    diagnosis = diagnose(healthy_set, thorough=True)
    assert codes(diagnosis) == []
    assert diagnosis.healthy
    train = diagnosis.splits[0]
    assert (train.name, train.roles, train.num_videos, train.num_checked, train.num_bad) == (
        "train",
        ("train",),
        6,
        6,
        0,
    )
    assert (train.frames.min, train.frames.max, train.short_side.median) == (10, 10, 32)
    assert train.frames_per_second.median == 10
    assert (diagnosis.classes.num_classes, diagnosis.classes.effective) == (2, 2.0)
    assert diagnosis.proposed_flip == "random"


# --- videos that do not decode ---------------------------------------------------------------------


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


@pytest.mark.parametrize(("spoil", "code"), [(zero_bytes, "empty"), (random_bytes, "unreadable")])
@pytest.mark.parametrize(
    ("name", "bad_videos", "severity", "effect"),
    [
        ("train/wave/train1.mp4", 0.01, "error", "Training would stop:"),
        ("train/wave/train1.mp4", 0.5, "warning", "Training would skip them"),
        ("val/wave/val0.mp4", 0.5, "error", "Validation would stop."),
        ("test/wave/test0.mp4", 0.5, "error", "Testing would stop."),
    ],
)
def test_unreadable(data, spoil, code, name, bad_videos, severity, effect):
    spoil(data / name)
    diagnosis = diagnose(data, bad_videos=bad_videos)
    found = only(diagnosis, code, severity)
    assert name in found.message
    assert effect in found.message
    assert found.advice
    assert diagnosis.healthy == (severity == "warning")
    assert sum(split.num_bad for split in diagnosis.splits) == 1


def test_missing_file_in_the_annotations(data):
    with (data / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([
            ("path", "label", "split"),
            *((f"train/wave/train{i}.mp4", "wave", "train") for i in range(3)),
            *((f"train/jump/train{i}.mp4", "jump", "train") for i in range(2)),
            ("train/jump/gone.mp4", "jump", "train"),
            *((f"{split}/{name}/{split}0.mp4", name, split) for split in ("val", "test") for name in ("jump", "wave")),
        ])  # fmt: skip
    found = only(diagnose(data, source="csv"), "unreadable-split", "error")
    assert "train/jump/gone.mp4" in found.message


def test_missing_file(tmp_path):
    report = inspect_video(VideoPart(tmp_path / "gone.mp4"), recipe_of(DataConfig()))
    assert (report.problem, report.num_frames) == ("missing", 0)


@pytest.mark.parametrize("ending", ["avi", "mkv"])
def test_truncated(data, ending):
    path = encode(data / "train" / "wave" / f"cut.{ending}", [pictures(i, 1)[0] for i in range(60)])
    whole = path.read_bytes()
    assert codes(diagnose(data)) == []
    path.write_bytes(whole[: len(whole) * 2 // 3])
    found = only(diagnose(data), "truncated", "warning")
    assert f"train/wave/cut.{ending}" in found.message
    assert "of 60 frames" in found.message


def test_tail_that_does_not_decode(data):
    """All packets are there; the last five hold nothing, and no test clip has them."""
    path = encode(data / "test" / "wave" / "tail.avi", [pictures(i, 1)[0] for i in range(60)], "mjpeg")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for packet in packets[-5:]:
        content = content.replace(packet, bytes(len(packet)))
    path.write_bytes(content)
    found = only(diagnose(data), "truncated", "warning")
    assert found.items == ("test/wave/tail.avi (test): 55 of 60 frames",)


@pytest.mark.parametrize(("count", "code"), [(1, "single-frame"), (3, "too-short")])
def test_few_frames(data, count, code):
    write(data / "val" / "wave" / "brief.mp4", 99, count)
    found = only(diagnose(data), code, "warning")
    assert "val/wave/brief.mp4" in found.message


def test_key_frames_that_do_not_decode(data):
    """The frames that do are all that counts, here the second half."""
    path = encode(data / "test" / "wave" / "head.avi", [pictures(i, 1)[0] for i in range(60)], "mpeg4")
    with av.open(str(path)) as container:
        packets = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for packet, is_key in packets:
        content = content.replace(packet, bytes(len(packet))) if is_key else content
    path.write_bytes(content)
    report = inspect_video(VideoPart(path), recipe_of(DataConfig()))
    assert report.problem == ""
    assert (report.height, report.width) == (32, 48)
    assert 0 < report.num_frames < report.announced == 60


@pytest.mark.parametrize("thorough", [False, True])
def test_frame_sizes_that_change(data, tmp_path, thorough):
    parts = [
        encode(tmp_path / f"{height}.ts", pictures(99, 10, height=height), "libx264").read_bytes()
        for height in (32, 48)
    ]
    (data / "train" / "wave" / "two.ts").write_bytes(b"".join(parts))
    found = only(diagnose(data, thorough=thorough), "variable-size", "warning")
    assert "train/wave/two.ts (train): 2 sizes, the first 48x32" in found.message


@pytest.mark.parametrize("is_turned", [False, True])
def test_pictures_of_a_folder_in_different_sizes(tmp_path, is_turned):
    """Of a camera that is turned by a quarter: the same size as displayed, if the pictures say so."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(8):
        size, tags = ({}, {}) if number < 4 else ({"height": 48, "width": 32}, {"exif": turned} if is_turned else {})
        Image.fromarray(pictures(99, 8, **size)[number]).save(tmp_path / f"{number}.jpg", **tags)
    report = inspect_video(VideoPart(tmp_path), recipe_of(DataConfig()), thorough=True)
    assert (report.num_sizes, report.height, report.width) == (1 if is_turned else 2, 32, 48)


def test_long_videos_that_do_not_seek(data):
    encode(data / "test" / "wave" / "long.ts", pictures(99, 140))
    found = only(diagnose(data), "not-seekable", "note")
    assert (
        "test/wave/long.ts (test): 140 frames; seekable: no, the container (mpegts) does not seek exactly"
        in found.message
    )


@pytest.mark.parametrize(
    ("by", "severity", "advice"), [("time", "note", "equal in time"), ("index", "warning", 'clip.by = "time"')]
)
def test_unevenly_spaced_frames(data, by, severity, advice):
    # One frame a second, then 25: on average 13.
    times = [*range(5), *(5 + i / 25 for i in range(125))]
    timed_video(data / "test" / "wave" / "uneven.mkv", times, side=64, options={"g": "5"})
    diagnosis = diagnose(data, clip=replace(CLIP, by=by))
    found = only(diagnosis, "uneven", severity)
    assert (
        "test/wave/uneven.mkv (test): 13.0 frames per second on average, 25.0 where it moves, 10.0 s, one frame stays 1.0 s"
        in found.message
    )
    assert advice in found.advice
    assert diagnosis.splits[-1].frames_per_second.max == pytest.approx(13, abs=0.1)


def test_a_rate_that_is_announced_wrongly(data):
    timed_video(data / "test" / "wave" / "announced.mkv", [i / 12 for i in range(20)], side=64)  # as 30
    diagnosis = diagnose(data)
    assert codes(diagnosis) == []
    assert diagnosis.splits[-1].frames_per_second.max == pytest.approx(12, abs=0.1)


def test_costly_videos(data):
    write(data / "test" / "wave" / "large.mp4", 99, height=96, width=160)
    found = only(diagnose(data), "costly", "note")
    assert "test/wave/large.mp4" in found.message
    assert "10 frames of 160x96" in found.message


@pytest.mark.parametrize(
    ("listed", "severity", "message", "items"),
    [
        ((6, 8, 5), "warning", "2 videos with another number of frames than listed, 1 with fewer",
         ("b (train): 6 of 8 frames", "c (train): 6 of 5 frames")),
        ((5, 6, 5), "note", "2 videos with another number of frames than listed, 0 with fewer",
         ("a (train): 6 of 5 frames", "c (train): 6 of 5 frames")),
        ((6, 6, 6), None, "", ()),
    ],
)  # fmt: skip
def test_frame_counts_differ_from_the_list(tmp_path, listed, severity, message, items):
    for seed, name in enumerate("abcd"):
        write_frames(tmp_path / name, seed, count=6)
    lines = [f"{name} {count} {label}\n" for name, count, label in zip("abc", listed, (0, 1, 1), strict=True)]
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "val.txt").write_text("d 6 0\n")
    diagnosis = diagnose(tmp_path, source="tsn-list")
    found = [finding for finding in diagnosis.findings if finding.code == "listed-frames"]
    assert [(finding.severity, finding.items) for finding in found] == ([(severity, items)] if severity else [])
    assert all(finding.message.startswith(message) for finding in found)


# --- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copy", "code", "severity"),
    [
        ("test/jump/other.mp4", "leak", "error"),
        ("val/jump/other.mp4", "leak", "error"),
        ("train/jump/other.mp4", "copies", "warning"),
        ("train/wave/other.mp4", "label-conflict", "error"),
    ],
)
@pytest.mark.parametrize("link", [False, True])
def test_copies(data, copy, code, severity, link):
    original = data / "train" / "jump" / "train1.mp4"
    if link:
        (data / copy).symlink_to(original)
    else:
        shutil.copy(original, data / copy)
    found = only(diagnose(data), code, severity)
    assert "train/jump/train1.mp4" in found.message
    assert copy in found.message


def test_copies_of_validation_in_test(data):
    shutil.copy(data / "val" / "jump" / "val0.mp4", data / "test" / "jump" / "copy.mp4")
    found = only(diagnose(data), "val-in-test", "warning")
    assert found.items == ("val/jump/val0.mp4 (val) is test/jump/copy.mp4 (test)",)


def test_copies_of_frame_folders(tmp_path):
    for split, seeds in (("train", (0, 1)), ("val", (2, 3)), ("test", (4, 0))):
        for name, seed in zip(("jump", "wave"), seeds, strict=True):
            write_frames(tmp_path / split / name / f"clip{seed}", seed)
    diagnosis = diagnose(tmp_path)
    assert codes(diagnosis) == [("leak", "error"), ("label-conflict", "error")]
    assert "train/jump/clip0 (train) is test/wave/clip0 (test)" in diagnosis.findings[0].message
    assert "train/jump/clip0 (train) is jump" in diagnosis.findings[1].message


def test_files_that_differ_in_one_byte_are_no_copies(tmp_path):
    """Sizes, beginnings and ends alike, one byte in the middle not."""
    content = bytearray(200_000)
    for i in range(3):
        content[100_000] = min(i, 1)
        (tmp_path / f"{i}").write_bytes(content)
        (tmp_path / f"empty{i}").touch()
    paths = [tmp_path / f"{i}" for i in range(3)]
    assert find_copies(sorted(tmp_path.iterdir())) == ((paths[1], paths[2]),)


def test_folders_with_equal_names_and_sizes_are_no_copies(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "1.jpg").write_bytes(bytes([min(i, 1)]))
    paths = [tmp_path / f"{i}" for i in range(3)]
    assert find_copies(paths) == ((paths[1], paths[2]),)


def test_listed_twice(data):
    rows = [("path", "label", "split")]
    for path in sorted(data.rglob("*.mp4")):
        split, name, _ = path.relative_to(data).parts
        rows += [(path.relative_to(data).as_posix(), name, split)] * (2 if path.name == "test0.mp4" else 1)
    with (data / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = only(diagnose(data, source="csv"), "as-read", "note")
    assert "2 lines repeat videos" in found.message
    assert "test/jump/test0.mp4" in found.message
    assert found.advice == ""  # it says how the data is read, and there is nothing to do


# --- splits ----------------------------------------------------------------------------------------


def test_validation_on_a_held_out_part_is_said(data):
    shutil.rmtree(data / "val")
    diagnosis = diagnose(data)
    assert "held out for validation" in only(diagnosis, "as-read", "note").message
    assert [(split.name, split.num_videos) for split in diagnosis.splits] == [("train", 4), ("val", 2), ("test", 2)]


def test_copies_under_other_bytes(data):
    """Encoded again, and mirrored, which is another finding; equal bytes are the finding that they were."""
    frames = moving(1)
    write_video(data / "train/jump/original.mp4", frames, frames_per_second=20)
    write_video(data / "val/jump/again.mp4", frames[4:], frames_per_second=20, crf=34)
    write_video(data / "test/jump/mirror.mp4", frames[:, :, ::-1], frames_per_second=20)
    diagnosis = diagnose(data)
    # The copy and the mirrored copy are copies of each other too.
    assert [code for code, _ in codes(diagnosis)] == ["near-copy", "near-copy"]
    assert [finding.severity for finding in diagnosis.findings] == ["warning", "warning"]
    plain, mirrored = diagnosis.findings
    assert plain.items == ("val/jump/again.mp4 (val) is train/jump/original.mp4 (train), 93% of it in common",)
    assert [item.partition(" is ")[0] for item in mirrored.items] == ["test/jump/mirror.mp4 (test)"] * 2
    shutil.copy(data / "train/jump/original.mp4", data / "val/jump/again.mp4")
    assert [code for code, _ in codes(diagnose(data))] == ["leak", "near-copy"]


def test_a_person_who_is_in_two_splits(data):
    """A person of validation and testing only is no finding."""
    people = {"train": ["ann", "ben"], "val": ["ben", "col"], "test": ["col"]}
    for split, names in people.items():
        for number, path in enumerate(sorted((data / split).glob("*/*.mp4"))):
            path.rename(path.with_name(f"{names[number % len(names)]}_{path.name}"))
    found = only(diagnose(data, group_pattern="/([a-z]+)_"), "group-leak", "warning")
    assert found.items == ("ben (train: 3 videos, val: 1 video)",)
    assert not codes(diagnose(data))


def test_overlap_that_is_allowed_is_a_warning(data):
    shutil.copy(data / "train/jump/train1.mp4", data / "val/jump/other.mp4")
    assert diagnose(data, allow_overlap=True).healthy
    assert not diagnose(data).healthy


@pytest.mark.parametrize(("split", "severity"), [("train", "error"), ("test", "note")])
def test_absent_split(data, split, severity):
    shutil.rmtree(data / split)
    diagnosis = diagnose(data)
    assert codes(diagnosis)[0] == ("no-split", severity)
    assert repr(split) in diagnosis.findings[0].message
    assert diagnosis.healthy == (severity == "note")
    command, setting = {
        "train": ("`vsn train` stops", "nothing to train on"),
        "test": ("'train', 'val'", "`vsn eval`"),
    }[split]
    assert command in diagnosis.findings[0].message
    assert setting in diagnosis.findings[0].advice


def test_no_data(tmp_path):
    diagnosis = diagnose(tmp_path / "absent")
    found = only(diagnosis, "unreadable-data", "error")
    assert "absent" in found.message
    assert diagnosis.splits == ()
    assert "absent" in page(diagnosis).replace("\n", "")


def test_validation_and_test_share_a_split(tiny_data, tmp_path):
    for i, path in enumerate(sorted(tiny_data.rglob("*.mp4"))):
        write(tmp_path / path.relative_to(tiny_data), i)
    diagnosis = diagnose(tmp_path)
    assert codes(diagnosis) == [("val-is-test", "note"), ("as-read", "note")]
    found = diagnosis.findings[0]
    assert "val and test" in found.message
    assert [(split.name, split.num_videos) for split in diagnosis.splits] == [
        ("train", 12),
        ("val and test", 3),
    ]


def test_training_split_used_for_testing(data):
    assert ("leak", "error") in codes(diagnose(data, test_split="train"))


def test_sample_of_each_split(data):
    diagnosis = diagnose(data, sample=2)
    assert [split.num_checked for split in diagnosis.splits] == [2, 2, 2]
    assert diagnosis.splits[0].num_videos == 6
    splits, _ = read_splits(DataConfig(root=str(data)))
    draws = [choose_videos(splits, 2, seed) for seed in range(5)]
    assert draws == [choose_videos(splits, 2, seed) for seed in range(5)]
    assert len(set(map(tuple, draws))) > 1


# --- labels ----------------------------------------------------------------------------------------


def evidence(counts: dict[str, dict[str, int]], *, flip: str = "auto", **config: object) -> Evidence:
    """Splits with that many videos of each class; the videos are not looked into."""
    classes = tuple(sorted({name for of_split in counts.values() for name in of_split}))
    splits = []
    for split, of_split in counts.items():
        records = [
            VideoRecord(Path(split, name, str(i)), (classes.index(name),), f"{split}/{name}/{i}")
            for name, number in of_split.items()
            for i in range(number)
        ]
        splits.append(Split(split, (split,), RecordSet(tuple(records), classes)))
    return Evidence(recipe_of(DataConfig(flip=flip, **config)), tuple(splits), {})


@pytest.mark.parametrize(
    ("counts", "expected", "item"),
    [
        ({"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}}, [], None),
        ({"train": {"a": 2, "b": 2}}, [], None),
        ({"train": {"a": 2, "b": 0}, "test": {"a": 1, "b": 3}}, [("class-unseen", "error")], "b (3 videos in test)"),
        ({"train": {"a": 2, "b": 0}, "test": {"a": 1, "b": 0}}, [("class-empty", "warning")], "b"),
        ({"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 0}}, [("class-untested", "note")], "b"),
        ({"train": {"a": 21, "b": 1}}, [("imbalance", "warning")], "b (1 video)"),
        ({"train": {"a": 20, "b": 1}}, [], None),
    ],
)  # fmt: skip
def test_classes(counts, expected, item):
    findings = check_all(evidence(counts))
    assert codes(findings) == expected
    assert [finding.items for finding in findings] == ([(item,)] if item else [])
    assert all(item.split(" (")[0] in finding.message for finding in findings if item)


def test_class_only_in_the_test_split():
    train, test = evidence({"train": {"a": 2, "b": 2}}), evidence({"test": {"c": 1, "a": 1, "b": 1}})
    both = replace(train, splits=train.splits + test.splits)
    assert codes(check_all(both)) == [("class-unseen", "error")]


def test_balance_setting_lowers_imbalance_to_a_note():
    [found] = check_all(evidence({"train": {"a": 50, "b": 1, "c": 2}}, balance=True))
    assert (found.code, found.severity) == ("imbalance", "note")
    assert found.items == ("b (1 video)", "c (2 videos)")


def test_gap_in_the_class_numbers_of_a_list(data):
    lines = [f"{path.relative_to(data)} {2 * (path.parent.name == 'wave')}" for path in sorted(data.rglob("*.mp4"))]
    for split in ("train", "val", "test"):
        own = [line for line in lines if line.startswith(split)]
        (data / f"{split}.txt").write_text("\n".join(own), encoding="utf-8")
    found = only(diagnose(data, source="mmaction2-list"), "class-empty", "warning")
    assert found.items == ("1",)


@pytest.mark.parametrize(
    ("flip", "names", "expected"),
    [
        ("random", ("swipe left", "swipe right"), [("flip", "error")]),
        ("random", ("jump", "wave"), []),
        ("random", ("swipeleft", "swiperight"), [("flip", "error")]),
        ("random", ("swipe_l", "swipe_r"), [("flip-unclear", "warning")]),
        ("auto", ("swipe_l", "swipe_r"), [("flip-unclear", "warning")]),
        ("swap", ("swipe_l", "swipe_r"), []),
        ("auto", ("swipe left", "swipe right"), []),
        ("swap", ("swipe left", "swipe right"), []),
    ],
)
def test_flips(flip, names, expected):
    findings = check_all(evidence({"train": dict.fromkeys(names, 2)}, flip=flip))
    assert codes(findings) == expected
    if expected:
        assert names[0] in findings[0].message
        assert '"swap"' in findings[0].advice


@pytest.mark.parametrize(
    ("names", "flip", "expected"),
    [
        (("forehand", "backhand"), "auto", [("mirrored", "warning")]),
        (("forehand", "backhand"), "never", []),
        (("swipe left", "swipe right"), "auto", []),  # not flipped
    ],
)
def test_classes_that_are_mirror_images(tmp_path, names, flip, expected):
    for label, name in enumerate(names):
        for number in range(12):
            write_video(tmp_path / name / f"{number}.mp4", moving_square(label, number), frames_per_second=10)
    diagnosis = diagnose(tmp_path, flip=flip, num_frames=6)
    # The squares of two rows move as one: near copies, here.
    assert [pair for pair in codes(diagnosis) if pair[0] not in ("as-read", "val-is-test", "near-copy")] == expected
    if expected:
        assert any("backhand and forehand" in finding.message for finding in diagnosis.findings)


def moving_square(label: int, number: int) -> list[np.ndarray]:
    """A square that moves to the right, or to the left, in a row of its own."""
    frames = []
    for i in range(10):
        frame = np.full((36, 48, 3), 60 + number, np.uint8)
        left = 4 * i if label == 0 else 40 - 4 * i
        frame[2 * number : 2 * number + 10, left : left + 8] = 220
        frames.append(frame)
    return frames


def test_videos_without_labels():
    known = evidence({"train": {"a": 2, "b": 2}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}})
    for role, expected in (("val", ("unlabeled", "error")), ("test", ("no-test-labels", "note"))):
        blank = tuple(
            replace(s, records=replace(s.records, records=tuple(replace(r, labels=()) for r in s.records.records)))
            if s.name == role
            else s
            for s in known.splits
        )
        assert codes(check_all(replace(known, splits=blank))) == [expected]


def test_annotated_videos_not_on_disk():
    known = evidence({"train": {"a": 2, "b": 2}})
    [train] = known.splits
    some = replace(train, records=replace(train.records, num_missing=6))
    [found] = check_all(replace(known, splits=(some,)))
    assert (found.code, found.severity, found.items) == ("not-on-disk", "warning", ("6 of 10 of train",))


def test_arrow_of_time_counts_a_video_once(data):
    diagnosis = diagnose(data, task="arrow")
    assert codes(diagnosis) == []
    assert [split.num_videos for split in diagnosis.splits] == [6, 2, 2]
    assert (diagnosis.classes, diagnosis.proposed_flip) == (None, "")


# --- frame folders ---------------------------------------------------------------------------------


def frame_set(root: Path) -> Path:
    for i, (split, name) in enumerate((s, n) for s in ("train", "val", "test") for n in ("jump", "wave")):
        write_frames(root / split / name / "clip", i)
    return root


def test_frame_folders(tmp_path):
    diagnosis = diagnose(frame_set(tmp_path), thorough=True)
    assert codes(diagnosis) == []
    assert diagnosis.frame_names == {"{:05d}.jpg from 1": 6}
    assert diagnosis.splits[0].frames.median == 6
    assert "{:05d}.jpg from 1 (6 folders)" in page(diagnosis)


def test_frame_folders_numbered_differently(tmp_path):
    write_frames(frame_set(tmp_path) / "train" / "wave" / "late", 99, start=5)
    diagnosis = diagnose(tmp_path)
    found = only(diagnosis, "mixed-frame-names", "warning")
    assert found.items[0] == "{:05d}.jpg from 5: 1 folder, such as train/wave/late (train)"


@pytest.mark.parametrize("thorough", [False, True])
def test_frame_that_does_not_decode(tmp_path, thorough):
    """Only the thorough look reads the frames that no test clip has."""
    folder = write_frames(frame_set(tmp_path) / "test" / "wave" / "long", 99, count=200)
    (folder / "00070.jpg").write_bytes(b"not a picture")
    diagnosis = diagnose(tmp_path, thorough=thorough)
    if thorough:
        assert "test/wave/long (test)" in only(diagnosis, "unreadable", "error").message
    else:
        assert codes(diagnosis) == []


# --- processes -------------------------------------------------------------------------------------


def look_or_fail(video: VideoPart, **settings: Any) -> VideoReport:
    """What a decoder may do to its process, by the file's name."""
    if video.path.stem == "train1":
        os._exit(3)
    if video.path.stem == "train2":
        time.sleep(60)
    return inspect_video(video, **settings)


def test_video_that_crashes_its_worker_and_video_that_hangs(data, monkeypatch):
    shutil.rmtree(data / "train" / "jump")
    write(data / "train" / "jump" / "fine.mp4", 99)
    monkeypatch.setattr(sys.modules[examine_function.__module__], "inspect_video", look_or_fail)
    recipe = recipe_of(DataConfig(root=str(data)))
    diagnosis = examine(recipe, num_workers=1, seconds_per_video=1, loading_seconds=0, progress=False)
    assert codes(diagnosis) == [("crashed", "error"), ("too-slow", "error")]
    crashed, slow = diagnosis.findings
    assert "train/wave/train1.mp4" in crashed.message
    assert "exit status 3" in crashed.message
    assert "train/wave/train2.mp4" in slow.message
    assert "1 s" in slow.message
    assert [split.num_checked for split in diagnosis.splits] == [4, 2, 2]


# --- loading ---------------------------------------------------------------------------------------


def test_loading_is_measured(data):
    recipe = recipe_of(DataConfig(root=str(data), num_workers=1))
    diagnosis = examine(recipe, loading_seconds=2, gpu_videos_per_second=1e9, progress=False)
    loading = diagnosis.loading
    assert loading.num_workers == 1
    assert 0 < loading.num_clips < 6
    assert loading.epoch_seconds == pytest.approx(6 / loading.clips_per_second)
    assert only(diagnosis, "slow-loading", "warning").advice
    assert "1 worker" in page(diagnosis)


@pytest.mark.parametrize(
    ("gpu", "cpus", "expected", "advice"),
    [
        (None, 8, [], ""),
        (50.0, 8, [], ""),
        (100.0, 8, [("slow-loading", "warning")], "data.num_workers = 4,"),
        (1000.0, 8, [("slow-loading", "warning")], "about 40 CPUs, and this machine has 8"),
    ],
)
def test_loading_compared_with_the_gpu(monkeypatch, gpu, cpus, expected, advice):
    monkeypatch.setattr("vsn.doctor.checks.num_cpus", lambda: cpus)
    loading = Loading(50.0, 100, 2, 1000, 20.0)
    findings = check_all(Evidence(Recipe(), (), {}, loading=loading, gpu_videos_per_second=gpu))
    assert codes(findings) == expected
    assert all(advice in finding.advice for finding in findings)


# --- what is shown ---------------------------------------------------------------------------------


def page(diagnosis: Diagnosis) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    print_page(diagnosis, console)
    return console.export_text()


@pytest.fixture
def sick(data: Path) -> Diagnosis:
    """Many faults, and names that a terminal or markup would take amiss."""
    for i in range(7):
        (data / "test" / "wave" / f"[bold]{'very-long-name-' * 8}{i}.mp4").write_bytes(b"")
    (data / "train" / "wave" / "[bold]x.mp4").write_bytes(b"")
    write(data / "train" / "jump" / "a b\n'ü'.mp4", 98, 2)
    shutil.copy(data / "train" / "wave" / "train1.mp4", data / "val" / "jump" / "copy.mp4")
    return diagnose(data)


def test_page_fits_80_columns(sick):
    text = page(sick)
    assert max(map(len, text.splitlines())) <= 80
    assert text.index("ERROR") < text.index("WARNING")
    assert "train/wave/[bold]x.mp4" in text
    assert text.count("[bold]very-long-name") == 3
    assert "and 4 more" in text
    assert "Fix the errors before training." in text


def test_page_of_a_healthy_set(healthy_set):
    text = page(diagnose(healthy_set))
    assert "Ready for training." in text
    assert "ERROR" not in text
    assert "2 to train, 3 videos each." in text
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize(("kept", "balance"), [(3, "nearly balanced."), (1, "entropy of 1.65 equally large classes.")])
def test_page_shows_the_balance_of_classes(data, kept, balance):
    write(data / "train" / "wave" / "more.mp4", 97)
    for i in range(kept, 3):
        (data / "train" / "jump" / f"train{i}.mp4").unlink()
    assert balance in " ".join(page(diagnose(data)).split())


def test_json(sick):
    plain = sick.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["healthy"] is False
    assert [finding["code"] for finding in plain["findings"]] == [finding.code for finding in sick.findings]
    assert len(plain["findings"][0]["items"]) > 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample", 0),
        ("num_workers", -1),
        ("seconds_per_video", 0.0),
        ("gpu_videos_per_second", -1.0),
    ],
)
def test_arguments_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} .*{value}"):
        examine(Recipe(), **{name: value})


def test_inspecting_processes_do_not_import_torch():
    code = "import sys, vsn.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", ["findings", "diagnosis"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"vsn.doctor.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


# --- the wild --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("thorough", [False, True])
def test_damaged_and_unusual_videos(shared_data, tmp_path, thorough):
    files = sorted((shared_data / "data" / "odd-videos").glob("*.*"))
    for i, path in enumerate(files):
        folder = tmp_path / ("even", "odd")[i % 2]
        folder.mkdir(exist_ok=True)
        (folder / path.name).symlink_to(path)
    diagnosis = diagnose(tmp_path, num_frames=8, clip=ClipSpec(), thorough=thorough)
    found = {finding.code: " ".join(finding.items) for finding in diagnosis.findings}
    assert set(found) == {"truncated", "single-frame", "variable-size", "val-is-test", "as-read", "costly"}
    for name in ("attachment631-small.mp4", "white_zombie_scrunch-part.mp4", "mp4-init-nonkeyframe.mp4"):
        assert name in found["truncated"]
    assert "crop-to-container-dims-canon.mp4" in found["single-frame"]
    for name in ("brokensps.mp4", "av1-1-b8-03-sizeup.mp4", *(["vp90-2-05-resize.mp4"] if thorough else [])):
        assert name in found["variable-size"]  # the last changes between key frames
    assert "ref_10.avi" not in found["truncated"]  # the recorder dropped five frames
