"""Tiny data sets that look like the real ones: official annotation files, videos that decode.

Each `make_*` writes 3 classes of 4 training and 2 validation videos, 10 frames of 32x48 pixels each,
below the folder it is given, and returns the settings to read them. Classes differ in where a bright
square moves: right, left or down.
"""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vsn.config import DataConfig

NUM_FRAMES, HEIGHT, WIDTH = 10, 32, 48
NUM_TRAIN, NUM_VAL = 4, 2
SOMETHING_CLASSES = (
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Something falling like a rock",
)
_CODECS = {".mp4": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}


def draw_frames(label: int, number: int) -> list[np.ndarray]:
    """Frames, uint8 `(H, W, 3)`; `number` varies the background and the square's row."""
    frames = []
    for i in range(NUM_FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), 20 + 10 * (number % 8), np.uint8)
        along, across = 4 * i, 4 + number % 12
        top, left = [(across, along), (across, WIDTH - 8 - along), (min(along, HEIGHT - 8), across)][label]
        frame[top : top + 8, left : left + 8] = 230
        frames.append(frame)
    return frames


def write_clip(path: Path, label: int, number: int) -> None:
    """A video in the codec that goes with the file's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(_CODECS[path.suffix], rate=Fraction(12))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in draw_frames(label, number):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_frame_folder(folder: Path, label: int, number: int, template: str = "{:05d}.jpg") -> None:
    """A folder of JPEG frames, numbered from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(draw_frames(label, number), 1):
        Image.fromarray(frame).save(folder / template.format(i))


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def each_video() -> Iterator[tuple[str, int, int]]:
    """(split, label, number) of every video; the number is its own."""
    number = 0
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for label in range(3):
            for _ in range(count):
                number += 1
                yield split, label, number


def make_something_v1(root: Path) -> DataConfig:
    """Frame folders, CSV files without a header, a test split without labels."""
    _write_20bn_csv(root, "something-something-v1", SOMETHING_CLASSES)
    return DataConfig(root=str(root), source="something-v1")


def make_jester(root: Path) -> DataConfig:
    _write_20bn_csv(root, "jester-v1", ("Swiping Left", "Swiping Right", "Doing other things"))
    return DataConfig(root=str(root), source="jester")


def _write_20bn_csv(root: Path, name: str, classes: tuple[str, ...]) -> None:
    lines: dict[str, list[str]] = {"train": [], "validation": []}
    for split, label, number in each_video():
        write_frame_folder(root / f"20bn-{name}" / str(number), label, number)
        lines["train" if split == "train" else "validation"].append(f"{number};{classes[label]}")
    for number in (101, 102):
        write_frame_folder(root / f"20bn-{name}" / str(number), number % 3, number)
    write_lines(root / f"{name}-labels.csv", list(classes))
    write_lines(root / f"{name}-test.csv", ["101", "102"])
    for split, text in lines.items():
        write_lines(root / f"{name}-{split}.csv", text)


def make_something_v2(root: Path, *, redistribution: bool = False) -> DataConfig:
    """WebM videos and JSON files, under the official names or those of the redistribution."""
    entries: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    folder = root / "20bn-something-something-v2"
    for split, label, number in each_video():
        write_clip(folder / f"{number}.webm", label, number)
        template = re.sub("(?i)something", r"[\g<0>]", SOMETHING_CLASSES[label])
        text = re.sub(r"\[.*?\]", "a box", template).lower()
        entries["train" if split == "train" else "validation"].append(
            {"id": str(number), "label": text, "template": template, "placeholders": ["a box"]}
        )
    for number in (101, 102):
        write_clip(folder / f"{number}.webm", number % 3, number)
        entries["test"].append({"id": str(number)})
    prefix = root / "labels" if redistribution else root
    for split, listed in entries.items():
        write_json(prefix / (f"{split}.json" if redistribution else f"{folder.name[5:]}-{split}.json"), listed)
    labels = {name: str(label) for label, name in enumerate(SOMETHING_CLASSES)}
    write_json(prefix / ("labels.json" if redistribution else f"{folder.name[5:]}-labels.json"), labels)
    if redistribution:
        write_lines(
            prefix / "test-answers.csv",
            [f"{number};{SOMETHING_CLASSES[number % 3]}" for number in (101, 102)],
        )
    return DataConfig(root=str(root), source="something-v2")


def make_kinetics(root: Path) -> DataConfig:
    """Class folders with spaces, a header, and one training video whose link has rotted."""
    classes = ("air drumming", "pushing car", "sword fighting")
    lines: dict[str, list[str]] = {
        split: ["label,youtube_id,time_start,time_end,split,is_cc"] for split in ("train", "val")
    }
    for split, label, number in each_video():
        name = f"-id_{number:07d}"
        write_clip(root / "videos" / classes[label] / f"{name}_{number:06d}_{number + 10:06d}.mp4", label, number)
        lines[split].append(f"{classes[label]},{name},{number},{number + 10},{split},0")
    lines["train"].append(f"{classes[0]},gone4ever__,5,15,train,0")
    for split, text in lines.items():
        write_lines(root / "annotations" / f"{split}.csv", text)
    return DataConfig(root=str(root), source="kinetics")


def make_moments(root: Path) -> DataConfig:
    """Class folders below training/ and validation/, votes, and one training video that is gone."""
    classes = ("pushing", "pulling", "falling")
    lines: dict[str, list[str]] = {"training": [], "validation": []}
    for split, label, number in each_video():
        folder = "training" if split == "train" else "validation"
        name = f"{classes[label]}/yt-{number:06d}_{number}.mp4"
        write_clip(root / folder / name, label, number)
        lines[folder].append(f"{name},{classes[label]},3,{number % 2}")
    lines["training"].append("pushing/yt-gone_1.mp4,pushing,3,0")
    write_lines(root / "trainingSet.csv", lines["training"])
    write_lines(root / "validationSet.csv", lines["validation"])
    write_lines(root / "moments_categories.txt", [f"{name},{label}" for label, name in enumerate(classes)])
    return DataConfig(root=str(root), source="moments")


def make_multi_moments(root: Path) -> DataConfig:
    """As Moments in Time, but with a second label for every other video."""
    config = make_moments(root)
    for name, folder in (("trainingSet", "training"), ("validationSet", "validation")):
        (root / f"{name}.csv").unlink()
        lines = []
        for number, path in enumerate(sorted((root / folder).rglob("*.mp4"))):
            label = ("pushing", "pulling", "falling").index(path.parent.name)
            labels = (label, (label + 1) % 3) if number % 2 else (label,)
            lines.append(",".join((path.relative_to(root / folder).as_posix(), *map(str, labels))))
        write_lines(root / f"{name}.txt", lines)
    return DataConfig(root=config.root, source="moments", task="multilabel")


def make_ucf101(root: Path) -> DataConfig:
    """AVI videos; the classes' numbers count from 1; no labels in the test list."""
    classes = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for split, label, number in each_video():
        name = f"{classes[label]}/v_{classes[label]}_g{number:02d}_c01.avi"
        write_clip(root / "UCF-101" / name, label, number)
        lines["train" if split == "train" else "test"].append(f"{name} {label + 1}" if split == "train" else name)
    folder = root / "ucfTrainTestlist"
    write_lines(folder / "classInd.txt", [f"{label} {name}" for label, name in enumerate(classes, 1)])
    write_lines(folder / "trainlist01.txt", lines["train"])
    write_lines(folder / "testlist01.txt", lines["test"])
    return DataConfig(root=str(root), source="ucf101", val_split="test")


def make_hmdb51(root: Path) -> DataConfig:
    """AVI videos with odd names; a list a class and fold, with a video in neither part."""
    classes = ("brush_hair", "cartwheel", "wave")
    for wanted, name in enumerate(classes):
        lines = []
        for split, label, number in each_video():
            if label == wanted:
                video = f"#20_{name}_(nm) {number}!.avi"
                write_clip(root / "hmdb51_org" / name / video, label, number)
                lines.append(f"{video} {1 if split == 'train' else 2}")
        write_clip(root / "hmdb51_org" / name / "unused.avi", wanted, 0)
        write_lines(root / "testTrainMulti_7030_splits" / f"{name}_test_split1.txt", [*lines, "unused.avi 0 "])
    return DataConfig(root=str(root), source="hmdb51", val_split="test")


def make_diving48(root: Path) -> DataConfig:
    vocabulary = [
        ["Back", "15som", "05Twis", "FREE"],
        ["Back", "15som", "15Twis", "FREE"],
        ["Inward", "Dive", "NoTwis", "PIKE"],
    ]
    entries: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for split, label, number in each_video():
        name = f"-mmq0PT-u8k_{number:05d}"
        write_clip(root / "rgb" / f"{name}.mp4", label, number)
        entry = {"vid_name": name, "label": label, "start_frame": 0, "end_frame": NUM_FRAMES}
        entries["train" if split == "train" else "test"].append(entry)
    write_json(root / "Diving48_vocab.json", vocabulary)
    for split, listed in entries.items():
        write_json(root / f"Diving48_V2_{split}.json", listed)
    return DataConfig(root=str(root), source="diving48", val_split="test")


def make_tsn_list(root: Path) -> DataConfig:
    """Frame folders `img_00001.jpg`, lists of path, number of frames and label, and category.txt."""
    _write_list(root, "{split}_videofolder.txt", "{name} {frames} {label}", "")
    write_lines(root / "category.txt", ["right", "left", "down"])
    return DataConfig(root=str(root), source="tsn-list")


def make_mmaction2_list(root: Path, *, rawframes: bool = False) -> DataConfig:
    """Lists of videos, or of frame folders, without a file of class names."""
    if rawframes:
        _write_list(root, "kinetics_{split}_list_rawframes.txt", "{name} {frames} {label}", "")
    else:
        _write_list(root, "kinetics_{split}_list_videos.txt", "{name} {label}", ".mp4")
    return DataConfig(root=str(root), source="mmaction2-list")


def make_slowfast_list(root: Path) -> DataConfig:
    _write_list(root, "{split}.csv", "{name},{label}", ".mp4")
    return DataConfig(root=str(root), source="slowfast-list", separator=",")


def _write_list(root: Path, file_name: str, line: str, suffix: str) -> None:
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split, label, number in each_video():
        name = f"class{label}/clip{number}{suffix}"
        if suffix:
            write_clip(root / "videos" / name, label, number)
        else:
            write_frame_folder(root / "rawframes" / name, label, number, "img_{:05d}.jpg")
        lines[split].append(line.format(name=name, frames=NUM_FRAMES, label=label))
    for split, text in lines.items():
        write_lines(root / file_name.format(split=split), text)


def make_frame_folders(root: Path) -> DataConfig:
    """split/class/video, a video being a folder of frames."""
    for split, label, number in each_video():
        write_frame_folder(root / split / f"class{label}" / f"clip{number}", label, number)
    return DataConfig(root=str(root), source="folder")


def make_csv(root: Path) -> DataConfig:
    """A CSV file of frame folders and videos, both."""
    lines = ["path,label,split,id"]
    for split, label, number in each_video():
        if number % 2:
            write_clip(root / f"{number}.mp4", label, number)
            lines.append(f"{number}.mp4,class{label},{split},clip {number}")
        else:
            write_frame_folder(root / str(number), label, number)
            lines.append(f"{number},class{label},{split},clip {number}")
    write_lines(root / "clips.csv", lines)
    return DataConfig(root=str(root), source="csv")


LOOKALIKES = {
    "something-v1": make_something_v1,
    "something-v2": make_something_v2,
    "something-v2-redistribution": lambda root: make_something_v2(root, redistribution=True),
    "jester": make_jester,
    "kinetics": make_kinetics,
    "moments": make_moments,
    "multi-moments": make_multi_moments,
    "ucf101": make_ucf101,
    "hmdb51": make_hmdb51,
    "diving48": make_diving48,
    "tsn-list": make_tsn_list,
    "mmaction2-list": make_mmaction2_list,
    "mmaction2-list-rawframes": lambda root: make_mmaction2_list(root, rawframes=True),
    "slowfast-list": make_slowfast_list,
    "frame-folders": make_frame_folders,
    "csv": make_csv,
}
