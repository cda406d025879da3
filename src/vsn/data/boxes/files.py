"""Read and write the boxes of a video: a CSV file with a row for each box, by frame.

    frame,left,top,right,bottom
    0,0.10,0.25,0.40,0.80
    0,0.55,0.30,0.75,0.60
    1,,,,
    2,0.12,0.25,0.42,0.80

Frames are counted from 0 and all listed; one without boxes has a row of empty cells, so that a file that ends early is not
taken for a video without objects. Edges are shares of the width and height of the frame, so that they fit any size. The
first boxes of a frame are taken where there are more than a model needs; a column `score` sorts them.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, SampledBy
from vsn.data.video import VideoError
from vsn.system.files import file_sha256, write_csv

SUFFIX = ".boxes.csv"
METADATA_FILE = "boxes.json"
DETECTOR = "fasterrcnn_resnet50_fpn"
"""torchvision's network by which boxes are found."""
RANDOM = "none"
"""In place of a file of its weights: random ones."""
_EDGES = ("left", "top", "right", "bottom")

Boxes = NDArray[np.float64]
"""Left, top, right and bottom of the boxes of a frame as shares of its width and height, `(n, 4)`."""


@dataclass(frozen=True)
class BoxMetadata:
    """How the boxes of a folder were found. What is None is not known, and not compared."""

    detector: str
    weights: str | None = None
    """SHA-256 of the detector's weights, or "none" for random ones."""
    short_side: int | None = None
    """Shorter side, pixels, of the frames that the detector saw."""
    num_boxes: int | None = None
    """Boxes of a frame at most."""
    by: SampledBy | None = None
    """Whether its frames were at a constant rate, or as stored (`clip.by`)."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of `boxes.json`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def read_box_metadata(folder: Path) -> BoxMetadata | None:
    """Read `boxes.json` of a folder; None if there is none. Raises `ConfigError` for invalid content."""
    path = folder / METADATA_FILE
    if not path.is_file():
        return None
    try:
        return BoxMetadata(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} is invalid ({type(error).__name__}: {error}). Find the boxes again (vsn boxes extract), or remove it."
        ) from None


def write_boxes(path: Path, frames: Iterable[Boxes]) -> int:
    """Write the boxes of each frame of a video atomically; return the number of frames."""
    rows: list[tuple[object, ...]] = []
    number = -1
    for number, boxes in enumerate(frames):
        # A share of 1e-5 is less than a hundredth of a pixel.
        rows += [(number, *(f"{edge:.5f}" for edge in box)) for box in boxes] or [(number, "", "", "", "")]
    write_csv(path, [("frame", *_EDGES), *rows])
    return number + 1


def read_boxes(path: Path) -> list[Boxes]:
    """Read the boxes of each frame of a video, sorted by score if there is one.

    Raises:
        VideoError: The file is missing or damaged, leaves out a frame, or has edges that are no shares of a frame.
    """
    frames: list[list[tuple[float, ...]]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if missing := [name for name in ("frame", *_EDGES) if name not in columns]:
                raise VideoError(path, f"no column {missing[0]!r}; its columns are {', '.join(columns) or 'none'}.")
            for row in reader:
                _add_row(frames, row, path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VideoError(path, f"its boxes cannot be read ({error}).") from None
    if not frames:
        raise VideoError(path, "it lists no frame.")
    # By score, the highest first; those of equal score stay in their order.
    return [np.array([b[:4] for b in sorted(boxes, key=lambda b: -b[4])]).reshape(-1, 4) for boxes in frames]


def _add_row(frames: list[list[tuple[float, ...]]], row: dict[str, Any], path: Path, line: int) -> None:
    cells = [row[name] for name in _EDGES]
    try:
        number = int(row["frame"])
        box = tuple(map(float, cells)) if any(cells) else ()
        score = float(row.get("score") or 0) if box else 0.0
    except (ValueError, TypeError):
        raise VideoError(path, f"line {line}: expected a frame and four numbers, got {list(row.values())}.") from None
    if number not in (len(frames) - 1, len(frames)) or number < 0:
        raise VideoError(
            path,
            f"line {line} is of frame {number} after frame {len(frames) - 1}. All frames are listed in order from 0; one "
            "without boxes has a row of empty cells.",
        )
    if number == len(frames):
        frames.append([])
    if not box:
        return
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1 and math.isfinite(score)):
        raise VideoError(
            path,
            f"line {line}: the box {list(box)} is not within the frame. Edges are shares of its width and height from 0 to "
            "1, left before right and top before bottom.",
        )
    frames[-1].append((*box, score))


def detector_id(weights: str) -> str:
    """Return what identifies a detector's weights: the SHA-256 of their file, or "none".

    Raises `ConfigError` if there is no file.
    """
    if weights == RANDOM:
        return RANDOM
    if not weights:
        raise ConfigError(
            "data.detector is empty. Set it to a file of weights of torchvision's "
            f"{DETECTOR} (FasterRCNN_ResNet50_FPN_Weights.COCO_V1), or to 'none' to try the command with random ones."
        )
    if not Path(weights).is_file():
        raise ConfigError(f"data.detector names a file that does not exist: {weights!r}.")
    return file_sha256(Path(weights))
