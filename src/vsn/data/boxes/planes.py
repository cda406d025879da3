"""Draw the boxes of frames into planes beside their colors, which crops, sizes and flips move with the frames.

A plane holds one box: how much of each pixel is inside of it, as a byte. What a crop leaves of a box stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vsn.config import ConfigError, Recipe
from vsn.config.errors import quote_first
from vsn.data.boxes.files import METADATA_FILE, SUFFIX, Boxes, BoxMetadata, detector_id, read_box_metadata, read_boxes
from vsn.data.embedded.exact import embedded_boxes
from vsn.data.flow.find import possible_names
from vsn.data.part import VideoPart
from vsn.data.per_video import stored_name
from vsn.data.readers.listing import Listing
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import VideoError, VideoReader

if TYPE_CHECKING:
    from vsn.data.boxes.detect import Detector


class BoxSource(Protocol):
    """The boxes of a video."""

    def boxes_at(self, indices: Sequence[int], num_video_frames: int) -> list[Boxes]:
        """Return the boxes of frames of a video of this length. Raises `VideoError`."""
        ...


class StoredBoxes:
    """Boxes of all frames of a video, whose file is named in errors. Raises `VideoError` if there are none."""

    def __init__(self, path: Path, frames: list[Boxes]) -> None:
        self._path, self._frames = path, frames
        if not any(len(boxes) for boxes in frames):
            raise VideoError(path, f"it has no box in any of {len(frames)} frames.")

    @classmethod
    def read(cls, path: Path) -> StoredBoxes:
        """Read a file (`vsn.data.boxes.files`). Raises `VideoError`."""
        return cls(path, read_boxes(path))

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return sum(boxes.nbytes for boxes in self._frames)

    def boxes_at(self, indices: Sequence[int], num_video_frames: int) -> list[Boxes]:
        """See `BoxSource`."""
        if len(self._frames) != num_video_frames:
            raise VideoError(
                self._path,
                f"it has boxes of {len(self._frames)} frames, but the video has {num_video_frames}. Are they those of this "
                "video?",
            )
        return [self._frames[index] for index in indices]


class DetectedBoxes:
    """Boxes that a detector finds in the frames that are asked for."""

    def __init__(self, video: VideoReader, detector: Detector) -> None:
        self._video, self._detector = video, detector

    def boxes_at(self, indices: Sequence[int], num_video_frames: int) -> list[Boxes]:
        """See `BoxSource`."""
        wanted = sorted(set(indices))
        with self._video as video:
            boxes = dict(zip(wanted, self._detector(video.frames_at(wanted)), strict=True))
        return [boxes[index] for index in indices]


class BoxPlanes:
    """Make the planes of boxes; see `vsn.data.extra.ExtraPlanes`.

    Args:
        open_boxes: returns the boxes of a video or a part of it.
        num_boxes: K, planes of a frame.
    """

    def __init__(self, open_boxes: Callable[[VideoPart], BoxSource], *, num_boxes: int) -> None:
        self._open_boxes, self._num_boxes = open_boxes, num_boxes
        self._kept: dict[VideoPart, BoxSource] = {}

    def keep(self, shown: VideoPart) -> int:
        """See `ExtraPlanes.keep`."""
        source = self._kept.setdefault(shown, self._open_boxes(shown))
        return source.num_bytes if isinstance(source, StoredBoxes) else 0

    def planes(
        self, shown: VideoPart, indices: np.ndarray, *, num_video_frames: int, size: tuple[int, int]
    ) -> np.ndarray:
        """See `ExtraPlanes.planes`: uint8 `(num_clips, T, H, W, K)`."""
        source = self._kept.get(shown) or self._open_boxes(shown)
        of_frames = source.boxes_at(indices.ravel().tolist(), num_video_frames)
        planes = np.zeros((len(of_frames), self._num_boxes, *size), np.uint8)
        for of_frame, boxes in zip(planes, of_frames, strict=True):
            for plane, box in zip(of_frame, boxes, strict=False):  # more boxes than planes, or fewer
                plane[:] = draw_box(box, size)
        return planes.reshape(*indices.shape, *planes.shape[1:]).transpose(0, 1, 3, 4, 2)


def draw_box(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return how much of each pixel is inside of a box, 0 to 255: uint8 `(H, W)`.

    A box of less than a pixel is widened to one, so that it is not lost.

    >>> draw_box(np.array([0.125, 0.0, 0.75, 0.5]), (2, 4)).tolist()
    [[128, 255, 255, 0], [0, 0, 0, 0]]
    """
    (left, top, right, bottom), (height, width) = box, size
    rows, columns = _covered(top * height, bottom * height, height), _covered(left * width, right * width, width)
    plane = np.zeros(size, np.uint8)
    # A box is a small part of most frames.
    inside = np.ix_(rows > 0, columns > 0)
    plane[inside] = np.rint(255 * rows[rows > 0, None] * columns[columns > 0])
    return plane


def _covered(low: float, high: float, length: int) -> np.ndarray:
    if high - low < 1:
        middle = min(max((low + high) / 2, 0.5), length - 0.5)
        low, high = middle - 0.5, middle + 0.5
    pixels = np.arange(length)
    return (np.minimum(high, pixels + 1) - np.maximum(low, pixels)).clip(0, 1)


def box_folder(recipe: Recipe) -> Path:
    """Return the folder of the data set's boxes."""
    return Path(recipe.data.root) / (recipe.data.boxes or "boxes")


def stored_boxes(recipe: Recipe, records: RecordSet) -> tuple[BoxPlanes, str]:
    """Make planes of stored boxes; returns a note for the user too.

    Raises:
        ConfigError: There are none, or not of all of these videos, or not as the model needs them.
    """
    folder, num_boxes = box_folder(recipe), recipe.model.num_boxes
    if _has_exact_boxes(recipe):
        planes = BoxPlanes(partial(_exact_boxes, recipe), num_boxes=num_boxes)
        return planes, "Boxes: those that the videos were drawn with."
    if not folder.is_dir():
        raise ConfigError(
            f"{recipe.model.name} takes the boxes of objects, and there is no folder {str(folder)!r}. Find them with `vsn "
            f"boxes extract --out {folder}`, or set data.boxes to the folder of a file for each video (docs/boxes.md)."
        )
    listing = Listing()
    found = {record.shown: _find(record, recipe.data.root, folder, listing) for record in records.records}
    places = {shown: place for shown, place in found.items() if place}
    missing = [record.video_id for record in records.records if record.shown not in places]
    if missing:
        raise ConfigError(
            f"{folder}: {len(missing)} of {len(records.records)} videos have no boxes there, for example "
            f"{quote_first(missing)}. Expected a file with the name of the video and the suffix {SUFFIX}. Run `vsn boxes "
            "extract`, or leave these videos out."
        )
    metadata = read_box_metadata(folder)
    _check(metadata, recipe, folder)
    how = f"found by {metadata.detector}" if metadata else f"there is no {METADATA_FILE} that says how they were found"

    note = f"Boxes: {folder}, {num_boxes} of a frame at most; {how}."
    if not recipe.data.detector:
        note += " Without data.detector the run labels only videos with a file of boxes."
    return BoxPlanes(partial(_open_boxes, places), num_boxes=num_boxes), note


def _open_boxes(places: Mapping[VideoPart, Path], shown: VideoPart) -> StoredBoxes:
    return StoredBoxes.read(places[shown])  # no closure: a worker that is not forked gets it pickled


def boxes_of_video(path: Path, recipe: Recipe) -> Callable[[VideoPart], StoredBoxes] | None:
    """Return what opens the boxes of a single video: of a file beside it, or of its data set; None if there are none.

    Raises `ConfigError` if those of the data set were found otherwise than the model needs.
    """
    beside = path.with_name(stored_name(path.name) + SUFFIX)
    if beside.is_file():
        return lambda shown: StoredBoxes.read(beside)
    root, folder = Path(recipe.data.root).absolute(), box_folder(recipe)
    if not recipe.data.root or not path.absolute().is_relative_to(root):
        return None
    place = folder / (stored_name(path.absolute().relative_to(root).as_posix()) + SUFFIX)
    if place.is_file():
        _check(read_box_metadata(folder), recipe, folder)
        return lambda shown: StoredBoxes.read(place)
    return partial(_exact_boxes, recipe) if _has_exact_boxes(recipe) else None


def _has_exact_boxes(recipe: Recipe) -> bool:
    """Whether the data are the embedded set, whose boxes are known, and no others are stored or stated."""
    return recipe.data.source == "synthetic" and not (recipe.data.boxes or box_folder(recipe).is_dir())


def _exact_boxes(recipe: Recipe, shown: VideoPart) -> StoredBoxes:
    return StoredBoxes(shown.path, embedded_boxes(Path(recipe.data.root), shown.path))


def _find(record: VideoRecord, root: str, folder: Path, listing: Listing) -> Path | None:
    """Return the file of a video's boxes, None if there is none."""
    for name in possible_names(record, root):
        if listing.is_folder(f"{folder}/{name}{SUFFIX}") is False:
            return Path(f"{folder}/{name}{SUFFIX}")
    return None


def _check(stored: BoxMetadata | None, recipe: Recipe, folder: Path) -> None:
    """Raise `ConfigError` unless boxes were found as the model needs them."""
    if stored is None:
        return
    if stored.num_boxes is not None and stored.num_boxes < recipe.model.num_boxes:
        raise ConfigError(
            f"model.num_boxes is {recipe.model.num_boxes}, and {folder} has {stored.num_boxes} of a frame at most. Find "
            f"them again with --model.num-boxes {recipe.model.num_boxes}, or set it to {stored.num_boxes} or less."
        )
    expected: dict[str, tuple[str, str]] = {"by": ("clip.by", recipe.clip.by)}
    if stored.short_side is not None:  # found by the detector
        expected["short_side"] = ("clip.short_side", str(recipe.clip.short_side))
        if recipe.data.detector:
            expected["weights"] = ("the SHA-256 of data.detector", detector_id(recipe.data.detector))
    for key, (setting, here) in expected.items():
        there = getattr(stored, key)
        if there is not None and str(there) != here:
            raise ConfigError(
                f"{folder}: its boxes were found otherwise than those of new videos will be: {key} is {there!r} there, "
                f"{setting} is {here!r}. Find them again, or change the setting."
            )
