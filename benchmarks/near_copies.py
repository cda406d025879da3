"""Measure how many re-encoded, resized, trimmed and mirrored copies the doctor finds, and how many of its pairs are right.

    python benchmarks/near_copies.py results/near-copies-cpu.json gestures=DIR embedded=DIR [--num 60] [--seed 1]

Of each data set, some videos are one split. Copies of them, made in every way of `COPIES`, and as many other videos are the
other split. `recall` is the share of the copies that are found with the right original and the right side; `precision` the
share of the pairs found that are these. Videos in which too little moves have no signature: `recall_moving` is without them.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import describe_run
from vsn.data.records import list_videos
from vsn.data.video import open_video, write_video
from vsn.doctor.near_copies import (
    COARSE,
    FINE,
    MIN_MOTION,
    MIN_MOVES,
    MIN_SHARED,
    MIN_STAYS,
    Detail,
    Signature,
    find_near_copies,
    sign_video,
)
from vsn.system.files import write_json

LONGEST_SIDE = 480
"""Pixels to which larger videos are resized before copies are made, to save time."""


def resized(frames: np.ndarray, scale: float) -> np.ndarray:
    size = tuple(max(2, int(side * scale) // 2 * 2) for side in frames.shape[2:0:-1])
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def trimmed(frames: np.ndarray, start: float, end: float) -> np.ndarray:
    return frames[round(start * len(frames)) : len(frames) - round(end * len(frames))]


def relit(frames: np.ndarray, contrast: float, brightness: float) -> np.ndarray:
    return np.clip(frames.astype(np.float32) * contrast + brightness, 0, 255).astype(np.uint8)


def mirrored(frames: np.ndarray) -> np.ndarray:
    return frames[:, :, ::-1]


# Name -> frames of the copy, its frames per second relative to the original's, its constant rate factor.
COPIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, int]] = {
    "encoded at crf 34": (lambda frames: frames, 1, 34),
    "half the size": (lambda frames: resized(frames, 0.5), 1, 28),
    "6% cut off at both ends": (lambda frames: trimmed(frames, 0.06, 0.06), 1, 26),
    "10% cut off at the start": (lambda frames: trimmed(frames, 0.1, 0), 1, 26),
    "half the frame rate": (lambda frames: frames[::2], 0.5, 28),
    "darker, less contrast": (lambda frames: relit(frames, 0.8, -10), 1, 30),
    "mirrored": (mirrored, 1, 28),
    "mirrored, 0.6 of the size, 6% cut off, brighter, crf 36": (
        lambda frames: mirrored(relit(resized(trimmed(frames, 0.06, 0.06), 0.6), 1.1, 10)), 1, 36,
    ),
}  # fmt: skip


def sign(path: Path, detail: Detail) -> Signature:
    with open_video(path, short_side=detail.short_side) as video:
        return sign_video(video, detail)


def make_copies(path: Path, folder: Path) -> dict[str, Path]:
    with open_video(path) as video:
        frames, rate = video.all_frames(), video.frames_per_second
    frames = resized(frames, min(1.0, LONGEST_SIDE / max(frames.shape[1:3])))
    copies = {}
    for number, (name, (change, relative_rate, crf)) in enumerate(COPIES.items()):
        copies[name] = folder / f"{number}.mp4"
        write_video(copies[name], np.ascontiguousarray(change(frames)), frames_per_second=rate * relative_rate, crf=crf)
    return copies


def measure(paths: list[Path], others: list[Path], folder: Path) -> dict[str, Any]:
    second, truth = list(others), [(-1, "")] * len(others)
    for number, path in enumerate(paths):
        for name, copy in make_copies(path, folder / str(number)).items():
            second.append(copy)
            truth.append((number, name))
        print(f"{number + 1}/{len(paths)} {path.name}", file=sys.stderr, flush=True)
    originals, signed = ([sign(path, COARSE) for path in part] for part in (paths, second))
    parts = [paths, second]
    found = find_near_copies(originals, signed, lambda part, index: sign(parts[part][index], FINE))
    right: dict[str, set[int]] = {name: set() for name in COPIES}
    for first, index, likeness in found:
        original, name = truth[index]
        if first == original and likeness.mirrored == ("mirrored" in name):
            right[name].add(original)
    moving = {number for number, one in enumerate(originals) if one.motion >= MIN_MOTION}
    num_right = sum(map(len, right.values()))
    return {
        "num_originals": len(paths),
        "num_moving": len(moving),
        "num_others": len(others),
        "num_found": len(found),
        "num_right": num_right,
        "precision": num_right / max(len(found), 1),
        "recall": num_right / (len(paths) * len(COPIES)),
        "recall_moving": sum(len(of_name & moving) for of_name in right.values()) / (max(len(moving), 1) * len(COPIES)),
        "recall_by_copy": {name: len(of_name) / len(paths) for name, of_name in right.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", nargs="+", help="NAME=FOLDER of each data set")
    parser.add_argument("--num", type=int, default=60, help="originals of each data set")
    parser.add_argument("--seed", type=int, default=1)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    rows = []
    for name, _, folder in (text.partition("=") for text in options.data):
        paths = list_videos(Path(folder))
        random.Random(options.seed).shuffle(paths)
        with tempfile.TemporaryDirectory() as made:
            row = measure(paths[: options.num], paths[options.num : 2 * options.num], Path(made))
        rows.append({"data": name, **row})
        print(rows[-1], flush=True)
    # Without the folders, which are of this machine.
    command = [part.partition("=")[0] + "=DIR" if part in options.data else part for part in given]
    limits = {"min_stays": MIN_STAYS, "min_moves": MIN_MOVES, "min_shared": MIN_SHARED, "min_motion": MIN_MOTION}
    write_json(options.out, {**describe_run(__file__, command), "seed": options.seed, "limits": limits, "rows": rows})


if __name__ == "__main__":
    main()
