"""The embedded data set on disk: real H.264 files that only the order of their frames tells apart.

Folder: `root/{train,val,test}/<class name>/<number>.mp4` and `root/dataset.json` (spec, its hash,
counts, versions), which is written last. What the videos show, and what a horizontal flip would do
to "clockwise", is told in `vsn.data.embedded.scenes`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from vsn.data.embedded.scenes import CLASSES, GROUPS, NUM_SEGMENTS, Difficulty, group_of, render_scene
from vsn.data.embedded.sprites import Frames
from vsn.data.video import open_video, write_video
from vsn.system.files import write_json
from vsn.system.interrupt import interrupts_blocked
from vsn.system.progress import progress_bar

__all__ = [
    "CLASSES",
    "GROUPS",
    "Difficulty",
    "SynthSpec",
    "contact_sheet",
    "render_video",
    "save_contact_sheet",
    "write_dataset",
]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

MARKER = "dataset.json"
UNFINISHED = "dataset.unfinished.json"
_FORMAT = 1
"""Counts up when the same spec gives other videos."""


@dataclass(frozen=True, kw_only=True)
class SynthSpec:
    """What set to write. Equal specs give equal videos, file by file."""

    size: int = 112
    """Height and width in pixels: even, 96 to 128."""
    num_train_per_class: int = 50
    num_val_per_class: int = 10
    num_test_per_class: int = 20
    seed: int = 0
    num_seconds: tuple[float, float] = (1.5, 4.0)
    """Shortest and longest video."""
    frames_per_second: tuple[int, int] = (12, 25)
    """Slowest and fastest video; each has a whole number of frames a second."""
    groups: tuple[str, ...] = tuple(GROUPS)
    """Groups of classes to write, of those of `GROUPS`."""
    difficulty: Difficulty = field(default_factory=Difficulty)

    def __post_init__(self) -> None:
        if not self.groups or not set(self.groups) <= set(GROUPS) or len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups are {self.groups}; choose each at most once from {', '.join(GROUPS)}.")
        # 4 and 4.0 seconds are one spec, with one fingerprint.
        object.__setattr__(self, "num_seconds", tuple(float(bound) for bound in self.num_seconds))
        if not 96 <= self.size <= 128 or self.size % 2:
            raise ValueError(f"size is {self.size}; frames have 96 to 128 pixels a side, an even number.")
        for split in SPLITS:
            count = self.num_per_class(split)
            if count < 0:
                raise ValueError(f"num_{split}_per_class is {count}; it must be 0 or more.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")
        if not self.lengths():
            raise ValueError(
                f"num_seconds {self.num_seconds} and frames_per_second {self.frames_per_second} "
                "allow no video: videos have 24, 40, 56, ... frames (8 times an odd number). Widen one."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of these groups, in group order."""
        return tuple(name for name in CLASSES if group_of(name) in self.groups)

    def num_per_class(self, split: Split) -> int:
        """Videos of each class in a split."""
        counts = self.num_train_per_class, self.num_val_per_class, self.num_test_per_class
        return counts[SPLITS.index(split)]

    def lengths(self) -> list[tuple[int, int]]:
        """All (num_frames, frames_per_second) that a video of this set may have."""
        (shortest, longest), (slowest, fastest) = self.num_seconds, self.frames_per_second
        return [
            (num_frames, rate)
            for rate in range(max(1, slowest), fastest + 1)
            for num_frames in range(3 * NUM_SEGMENTS, math.floor(longest * rate) + 1, 2 * NUM_SEGMENTS)
            if num_frames >= shortest * rate
        ]

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any setting and with the format of the set."""
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def render_video(
    class_name: str,
    generator: np.random.Generator | int | Sequence[int],
    *,
    spec: SynthSpec,
    still_background: bool = False,
) -> tuple[Frames, float]:
    """One video of a class: frames (N, size, size, 3), uint8 RGB, and frames per second.

    `generator` may be seed numbers. With equal seeds the classes of a group show the same things;
    with `still_background`, exactly the same frames in another order. Raises `ValueError` for an
    unknown class.
    """
    rng = np.random.default_rng(generator)
    lengths = spec.lengths()
    num_frames, frames_per_second = lengths[int(rng.integers(len(lengths)))]
    frames = render_scene(
        class_name,
        rng,
        size=spec.size,
        num_frames=num_frames,
        difficulty=spec.difficulty,
        still_background=still_background,
    )
    return frames, float(frames_per_second)


def write_dataset(
    root: str | Path, spec: SynthSpec | None = None, *, num_workers: int | None = None, progress: bool = True
) -> Path:
    """Write the set into `root` and return it; what is there already is kept.

    `num_workers` processes render (None: one a CPU; 0 or 1: the calling process); their number does
    not change the files. Stopped at any moment, it leaves whole files only, and goes on from there
    when called again. As with any spawned processes, a script that calls this keeps the call under
    `if __name__ == "__main__":`.

    Raises `ValueError` when `root` holds anything else: a set of another spec, or other files.
    """
    root, spec = Path(root), spec or SynthSpec()
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}; it must be 0 or more, or None for one a CPU.")
    _check_root(root, spec)
    todo = [video for video in _videos(root, spec) if not video.path.is_file()]
    if (root / MARKER).is_file() and not todo:
        return root
    root.mkdir(parents=True, exist_ok=True)
    if not (root / MARKER).is_file():
        write_json(root / UNFINISHED, _description(spec))
    for folder in {video.path.parent for video in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    _write_all(todo, spec, num_workers=num_workers, progress=progress)
    write_json(root / MARKER, _description(spec))
    (root / UNFINISHED).unlink(missing_ok=True)
    return root


@dataclass(frozen=True)
class _Video:
    path: Path
    class_name: str
    seeds: tuple[int, int, int, int]


def _videos(root: Path, spec: SynthSpec) -> Iterator[_Video]:
    """Every video of the set. The seeds (set, split, class, number) make each of them unlike the others."""
    for split_id, split in enumerate(SPLITS):
        for class_name in spec.classes:
            class_id = CLASSES.index(class_name)  # the same whatever the groups, and so are the videos
            for number in range(spec.num_per_class(split)):
                path = root / split / class_name / f"{number:04d}.mp4"
                yield _Video(path, class_name, (spec.seed, split_id, class_id, number))


def _write_one(video: _Video, spec: SynthSpec) -> None:
    frames, frames_per_second = render_video(video.class_name, video.seeds, spec=spec)
    write_video(video.path, frames, frames_per_second=frames_per_second)


def _write_all(todo: list[_Video], spec: SynthSpec, *, num_workers: int | None, progress: bool) -> None:
    if num_workers is None:
        # Containers and schedulers may allow fewer CPUs than the machine has.
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        num_workers = len(allowed)
    with progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task("writing", total=len(todo), note="")
        if num_workers <= 1:
            for video in todo:
                _write_one(video, spec)
                bar.advance(task)
            return
        # Spawned, not forked: safe beside threads, and the same on every system.
        context = multiprocessing.get_context("spawn")
        most = 61 if sys.platform == "win32" else len(todo)  # Windows waits for no more processes at once
        num_workers = min(num_workers, max(1, len(todo)), most)
        pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_ignore_interrupt)
        try:
            with interrupts_blocked():
                futures: list[Future[None]] = [pool.submit(_write_one, video, spec) for video in todo]
            for future in as_completed(futures):
                future.result()
                bar.advance(task)
        finally:
            # After Ctrl-C or an error: the videos now being written are finished, no other is begun.
            pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the one that called `write_dataset`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _description(spec: SynthSpec) -> dict[str, Any]:
    return {
        "kind": "vsn synthetic",
        "format": _FORMAT,
        "spec_hash": spec.fingerprint(),
        "spec": json.loads(json.dumps(dataclasses.asdict(spec))),
        "classes": list(spec.classes),
        "num_videos": {split: len(spec.classes) * spec.num_per_class(split) for split in SPLITS},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "av": av.__version__},
    }


def _check_root(root: Path, spec: SynthSpec) -> None:
    """Raise `ValueError` unless root is absent, empty, or a set of this spec, finished or not."""
    if not root.exists():
        return
    if not root.is_dir():
        raise ValueError(f"{root} is a file; the data set needs a folder. Choose another name.")
    description = next((root / name for name in (MARKER, UNFINISHED) if (root / name).is_file()), None)
    if description is None:
        if any(root.iterdir()):
            raise ValueError(f"{root} holds other files and no {MARKER}; choose a new or an empty folder.")
        return
    try:
        found = _flat(json.loads(description.read_text(encoding="utf-8")))
    except (ValueError, AttributeError):
        raise ValueError(f"{description} is not a data set's description; choose another folder.") from None
    if found.get("spec_hash") == spec.fingerprint():
        return
    changed = [
        f"{key} is {found.get(key)!r} there, {value!r} here"
        for key, value in _flat(_description(spec)).items()
        if key.startswith(("format", "spec.")) and found.get(key) != value
    ]
    raise ValueError(
        f"{root} holds a data set of another spec ({'; '.join(changed)}). "
        "Choose another folder, use the spec it was written with, or delete it."
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def contact_sheet(
    source: str | Path | SynthSpec, *, num_frames: int = NUM_SEGMENTS, number: int = 0, split: Split = "train"
) -> Frames:
    """One row a class: its name and `num_frames` frames of a video; uint8 (H, W, 3).

    The frames are those of a test clip, the centers of equal segments. `source` is the folder of a
    set, or a spec, whose videos are then rendered; `number` and `split` say which video of each class.
    """
    spec = source if isinstance(source, SynthSpec) else None
    folder = Path() if isinstance(source, SynthSpec) else Path(source)
    names = spec.classes if spec else [name for name in CLASSES if (folder / split / name).is_dir()]
    rows = []
    for class_name in names:
        if spec is not None:
            seeds = (spec.seed, SPLITS.index(split), CLASSES.index(class_name), number)
            frames, _ = render_video(class_name, seeds, spec=spec)
            rows.append(frames[_centers(len(frames), num_frames)])
        else:
            path = folder / split / class_name / f"{number:04d}.mp4"
            video = open_video(path)
            rows.append(video.frames_at(_centers(video.num_frames, num_frames)))
    return _lay_out(names, rows)


def save_contact_sheet(path: str | Path, sheet: Frames) -> Path:
    """Write a contact sheet as an image; the name's ending says which kind, such as .png."""
    from PIL import Image  # only sheets need it

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
    return path


def _centers(length: int, count: int) -> list[int]:
    return [int((index + 0.5) * length / count) for index in range(count)]


def _lay_out(names: Sequence[str], rows: list[Frames]) -> Frames:
    """Names on the left, frames on the right, a wider gap between groups."""
    from PIL import Image, ImageDraw, ImageFont

    size, gap, group_gap, name_width = rows[0].shape[1], 4, 14, 420
    group_of_row = [group_of(name) for name in names]
    tops, top = [], group_gap
    for row, group in enumerate(group_of_row):
        top += group_gap if row and group != group_of_row[row - 1] else 0
        tops.append(top)
        top += size + gap
    width = name_width + len(rows[0]) * (size + gap) + group_gap
    image = Image.new("RGB", (width, top + group_gap), (250, 250, 250))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=15)
    for name, group, top, frames in zip(names, group_of_row, tops, rows, strict=True):
        middle = top + size // 2
        pen.text((group_gap, middle - 10), name, fill=(30, 30, 30), font=font, anchor="lm")
        pen.text((group_gap, middle + 10), group, fill=(140, 140, 140), font=font, anchor="lm")
        for column, frame in enumerate(frames):
            image.paste(Image.fromarray(frame), (name_width + column * (size + gap), top))
    return np.asarray(image)
