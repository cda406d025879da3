"""Write the embedded data set: H.264 files of classes that only the order of frames distinguishes.

Folder: `root/{train,val,test}/<class name>/<number>.mp4` and `root/dataset.json` (spec, its hash, counts, versions),
which is written last. `vsn.data.embedded.scenes` describes what the videos show.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np

from vsn.config import ConfigError
from vsn.config.errors import SEEDS, check_range
from vsn.data.embedded.scenes import CLASSES, GROUPS, LEVELS, NUM_SEGMENTS, Difficulty, group_of, render_scene
from vsn.data.embedded.sprites import Frames
from vsn.data.video import write_video
from vsn.system.files import check_output_folder, remove_temporary_files, write_json
from vsn.system.interrupt import stop_requests
from vsn.system.lock import lock_folder
from vsn.system.pool import check_num_workers, run_in_processes
from vsn.system.progress import progress_bar

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

MARKER = "dataset.json"
UNFINISHED = "dataset.unfinished.json"
_FORMAT = 1
"""Incremented when the same spec gives other videos."""


@dataclass(frozen=True, kw_only=True)
class SynthSpec:
    """Size and content of a set. Equal specs give equal files."""

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
    groups: tuple[str, ...] = LEVELS["basic"][0]
    """Groups of classes to write, from `GROUPS`."""
    difficulty: Difficulty = field(default_factory=Difficulty)

    def __post_init__(self) -> None:
        if not self.groups or not set(self.groups) <= set(GROUPS) or len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups is {self.groups}; choose from {', '.join(GROUPS)}, each at most once.")
        counts = (f"num_{split}_per_class" for split in SPLITS)
        check_range(self, "[0, inf)", *counts)
        check_range(self, SEEDS, "seed")
        check_range(self, "(0, inf)", "num_seconds", "frames_per_second")
        # As floats: 4 and 4.0 seconds are one spec and need one fingerprint.
        object.__setattr__(self, "num_seconds", tuple(float(bound) for bound in self.num_seconds))
        if not 96 <= self.size <= 128 or self.size % 2:
            raise ValueError(f"size is {self.size}; it must be an even number of pixels from 96 to 128.")
        if not self.lengths():
            raise ValueError(
                f"num_seconds {self.num_seconds} and frames_per_second {self.frames_per_second} "
                "allow no video: a video has 24, 40, 56, ... frames (8 times an odd number). Widen one of the ranges."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of these groups, in group order."""
        return tuple(name for name in CLASSES if group_of(name) in self.groups)

    def num_per_class(self, split: Split) -> int:
        """Return the number of videos of each class in a split."""
        counts = self.num_train_per_class, self.num_val_per_class, self.num_test_per_class
        return counts[SPLITS.index(split)]

    def lengths(self) -> list[tuple[int, int]]:
        """Return all pairs (num_frames, frames_per_second) that a video may have."""
        (shortest, longest), (slowest, fastest) = self.num_seconds, self.frames_per_second
        # 24, 40, 56, ...: 8 times 3, 5, 7, ...; see `vsn.data.embedded.scenes` for why.
        return [
            (num_frames, rate)
            for rate in range(max(1, slowest), fastest + 1)
            for num_frames in range(3 * NUM_SEGMENTS, math.floor(longest * rate) + 1, 2 * NUM_SEGMENTS)
            if num_frames >= shortest * rate
        ]

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with any setting and with the format."""
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def render_video(
    class_name: str,
    generator: np.random.Generator | int | Sequence[int],
    *,
    spec: SynthSpec,
    still_background: bool = False,
) -> tuple[Frames, float]:
    """Render a video of a class: frames `(N, size, size, 3)`, uint8 RGB, and frames per second.

    Args:
        class_name: One of `CLASSES`.
        generator: A generator, or its seed. With equal seeds, the classes of a group show the same objects.
        spec: Size, lengths and difficulty.
        still_background: Leave out everything that moves in the background; see `render_scene`.

    Raises:
        ValueError: Unknown class.
    """
    rng = np.random.default_rng(generator)
    num_frames, frames_per_second = _draw_length(rng, spec)
    frames = render_scene(
        class_name,
        rng,
        size=spec.size,
        num_frames=num_frames,
        difficulty=spec.difficulty,
        still_background=still_background,
    )
    return frames, float(frames_per_second)


def _draw_length(rng: np.random.Generator, spec: SynthSpec) -> tuple[int, int]:
    lengths = spec.lengths()
    return lengths[int(rng.integers(len(lengths)))]


def described_scene(root: Path, video: Path) -> tuple[str, np.random.Generator, SynthSpec, int]:
    """Return what a video of a set shows, before anything is drawn.

    Returns:
        Class, generator, spec and number of frames, for the functions of `vsn.data.embedded.scenes`.

    Raises:
        ConfigError: `root` is no set of this version, or has no such video.
    """
    marker = root / MARKER
    try:
        description: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        values = _tuples(description["spec"])
        spec = SynthSpec(**{**values, "difficulty": Difficulty(**_tuples(values["difficulty"]))})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{marker} cannot be read ({type(error).__name__}: {error}). Write the set again.") from None
    if spec.fingerprint() != description.get("spec_hash"):
        raise ConfigError(
            f"{root} was written by another version, whose videos differ. Write it again (vsn data synth)."
        )
    split, class_name, name = video.absolute().parts[-3:]
    number = int(video.stem) if video.stem.isdecimal() else -1
    is_there = split in SPLITS and class_name in spec.classes and name == f"{number:04d}.mp4"
    if not is_there or root.absolute() / split / class_name / name != video.absolute():
        raise ConfigError(f"{video} is not one of the videos of {root}.")
    rng = np.random.default_rng((spec.seed, SPLITS.index(split), CLASSES.index(class_name), number))
    return class_name, rng, spec, _draw_length(rng, spec)[0]


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings as they were before JSON made lists of tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def write_dataset(
    root: str | Path, spec: SynthSpec | None = None, *, num_workers: int | None = None, progress: bool = True
) -> Path:
    """Write the data set into `root` and return it; existing videos are kept.

    Videos are written atomically. An interrupted call continues when called again with the same spec.

    Args:
        root: New or empty folder, or one of a set of the same spec.
        spec: What to write; default `SynthSpec()`.
        num_workers: Processes; None for one per CPU, 0 or 1 for the calling process. The files do not depend on it.
            A script keeps the call under `if __name__ == "__main__":`.
        progress: Show a progress bar.

    Raises:
        ConfigError: `root` holds a set of another spec, or other files.
    """
    root, spec = Path(root), spec or SynthSpec()
    num_workers = check_num_workers(num_workers)
    description = _description(spec)
    check_output_folder(root, {key: description[key] for key in ("format", "spec")}, names=(MARKER, UNFINISHED))
    todo = [video for video in _videos(root, spec) if not video.path.is_file()]
    if (root / MARKER).is_file() and not todo:  # complete: leave it untouched
        return root
    with lock_folder(root):
        if not (root / MARKER).is_file():
            write_json(root / UNFINISHED, description)
        try:
            with stop_requests(raises=True) as stop, progress_bar("videos", disable=not progress) as bar:
                task = bar.add_task("writing", total=len(todo), note="")
                for _ in run_in_processes(partial(_write, spec=spec), todo, num_workers=num_workers):
                    bar.advance(task)
                    stop.check()
        finally:
            remove_temporary_files(video.path for video in todo)
        write_json(root / MARKER, description)
        (root / UNFINISHED).unlink(missing_ok=True)
        return root


@dataclass(frozen=True)
class _Video:
    path: Path
    class_name: str
    seeds: tuple[int, int, int, int]


def _videos(root: Path, spec: SynthSpec) -> Iterator[_Video]:
    """Yield every video of the set; its seeds (set, split, class, number) are unique."""
    for split_id, split in enumerate(SPLITS):
        for class_name in spec.classes:
            # The index among all classes, so that a set of some groups has the same videos of them.
            class_id = CLASSES.index(class_name)
            for number in range(spec.num_per_class(split)):
                path = root / split / class_name / f"{number:04d}.mp4"
                yield _Video(path, class_name, (spec.seed, split_id, class_id, number))


def _write(video: _Video, *, spec: SynthSpec) -> None:
    frames, frames_per_second = render_video(video.class_name, video.seeds, spec=spec)
    write_video(video.path, frames, frames_per_second=frames_per_second)


def _description(spec: SynthSpec) -> dict[str, Any]:
    return {
        "kind": "vsn synthetic",
        "format": _FORMAT,
        "spec_hash": spec.fingerprint(),
        # Through JSON, so that tuples become lists and compare equal to those read from the file.
        "spec": json.loads(json.dumps(dataclasses.asdict(spec))),
        "classes": list(spec.classes),
        "num_videos": {split: len(spec.classes) * spec.num_per_class(split) for split in SPLITS},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "av": av.__version__},
    }
