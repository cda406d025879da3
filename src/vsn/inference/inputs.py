"""Find the videos that a path names, and read the views of one video as evaluation does."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.config.errors import quote_first
from vsn.data.boxes.files import SUFFIX
from vsn.data.boxes.planes import BoxPlanes, BoxSource, DetectedBoxes, boxes_of_video
from vsn.data.flow.compute import ComputedFlowReader, flow_method, method_named
from vsn.data.flow.find import flow_of_video, list_flow
from vsn.data.flow.values import expected_flow
from vsn.data.part import VideoPart
from vsn.data.processor import PlanesOfFrames, Processor, open_as_in
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, is_hidden, is_video, list_videos, walk_folders
from vsn.data.video import Part, PartReader, VideoError, VideoReader, at_constant_rate
from vsn.data.video.frame_folders import describe_frames
from vsn.system.limits import num_cpus
from vsn.system.numbers import counted

if TYPE_CHECKING:
    from vsn.data.extra import ExtraPlanes


def list_inputs(recipe: Recipe, path: str | Path) -> list[Path]:
    """Return the videos that a path names: itself, or those of a folder (for a flow model its stored flow, if any).

    A folder of numbered pictures is one video.

    Raises:
        ConfigError: a folder without videos.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    # Stored flow comes first: next to it there may be the videos that it was computed from.
    flow = list_flow(path) if recipe.model.modality == "flow" else []
    return (
        flow or (not _has_video_files(path) and _frame_folders(path, recipe.data.frame_template)) or list_videos(path)
    )


def describe_unread(recipe: Recipe, path: str | Path) -> str:
    """Say what `list_inputs` leaves out of a folder, and how to read it; "" if nothing is, or for a file."""
    path = Path(path)
    if not path.is_dir() or not _has_video_files(path):
        return ""
    if recipe.model.modality == "flow" and list_flow(path):  # stored flow comes first
        return ""
    frames = [str(folder) for folder in _frame_folders(path, recipe.data.frame_template)]
    suffixes = [
        Path(name).suffix.lower() for _, _, files in walk_folders(path) for name in files if not is_hidden(name)
    ]
    others = Counter(
        suffix or "no extension" for suffix in suffixes if suffix not in VIDEO_EXTENSIONS | IMAGE_EXTENSIONS
    )
    parts = [f"{suffix} ({number})" for suffix, number in others.most_common(8)]
    if frames:
        parts.append(f"{counted(len(frames), 'folder')} of frames ({quote_first(frames, 2)})")
    if not parts:
        return ""
    return (
        f"{path}: of a folder only files with the extension of a video are read, not {', '.join(parts)}. Name these one by "
        "one to read them."
    )


def _has_video_files(folder: Path) -> bool:
    """Return whether there are video files, next to which pictures may be thumbnails."""
    return any(is_video(parent / name) for parent, _, files in walk_folders(folder) for name in files)


def _frame_folders(folder: Path, template: str) -> list[Path]:
    """Folders of frames at any depth."""
    folders = []
    for parent, _, files in walk_folders(folder):
        if any(Path(name).suffix.lower() in IMAGE_EXTENSIONS for name in files):
            # A folder of a few pictures, such as a cover, is not a video.
            with contextlib.suppress(VideoError):
                describe_frames(parent, template)
                folders.append(parent)
    return folders


def views_of_video(
    video: Path | VideoReader,
    recipe: Recipe,
    view: EvalConfig,
    *,
    part: Part | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> NDArray[np.uint8]:
    """Read the views of a video that a protocol selects: uint8 ``(T, C, H, W)``, or ``(views, T, C, H, W)``.

    Args:
        video: a video file or a folder of frames, or a reader of it at the recipe's `clip.short_side`; for a flow
            model also its stored flow, a folder of pictures or a `.vsnflow` file. Without stored flow it is computed as
            for training.
        recipe: the run's.
        view: protocol and order of frames.
        part: the seconds to read; None: the whole video.
        device: where flow is computed.
        num_threads: that decode, see `vsn.data.video.open_video`; None: one per CPU.

    Raises:
        VideoError: the file cannot be read as a video, or ends before the part.
        ConfigError: stored flow does not fit the model, or flow cannot be computed here; no boxes, and no detector.
    """
    model, path = recipe.model, Path(video.path) if isinstance(video, VideoReader) else video
    # Its flow need not have the layout of the training data.
    recipe = replace(recipe, data=replace(recipe.data, flow_layout="auto"))

    def open_reader() -> VideoReader:
        if model.modality == "flow" and not flow_of_video(path, expected_flow(recipe)):
            return _computed_flow(path, recipe, device)
        if model.modality != "flow" and isinstance(video, VideoReader):
            return video
        return open_as_in(recipe, path, num_threads=num_threads or num_cpus())

    planes = _extra_planes(path, recipe, device, part) if model.extra_input else None
    with open_reader() as whole:
        return Processor(recipe, view).views(whole if part is None else PartReader(whole, part), planes=planes)


def _extra_planes(path: Path, recipe: Recipe, device: str, part: Part | None) -> PlanesOfFrames:
    """Return what makes the planes of the model's extra input of one video."""
    extra: ExtraPlanes
    match recipe.model.extra_input:
        case "boxes":
            extra = BoxPlanes(_box_source(path, recipe, device, part=part), num_boxes=recipe.model.num_boxes)
        case _:
            extra = _computed_paths(path, recipe, device, part)
    return lambda indices, num_frames, size: extra.planes(
        VideoPart(path, part), indices, num_video_frames=num_frames, size=size
    )


def _computed_paths(path: Path, recipe: Recipe, device: str, part: Part | None) -> ExtraPlanes:
    from vsn.data.paths import PathPlanes, exact_pair, has_exact_flow  # on PyTorch

    def open_flow_pair(shown: VideoPart) -> tuple[VideoReader, VideoReader]:
        # A video of the embedded set, of which the run saw the true motion.
        is_in_set = path.absolute().is_relative_to(Path(recipe.data.root).absolute())
        if part is None and is_in_set and has_exact_flow(recipe):
            return exact_pair(recipe, shown)
        forward = _computed_flow(path, recipe, device, part=part)
        return forward, _computed_flow(path, recipe, device, part=part, backward=True)

    return PathPlanes(open_flow_pair, flow_bound=recipe.model.flow_bound, path_bound=recipe.model.path_bound)


def _box_source(path: Path, recipe: Recipe, device: str, *, part: Part | None) -> Callable[[VideoPart], BoxSource]:
    """Return what opens the boxes of a video: of its file, else those that the detector finds."""
    # A file has the boxes of the whole video.
    stored = boxes_of_video(path, recipe) if part is None else None
    if stored is not None:
        return stored
    if not recipe.data.detector:
        raise ConfigError(
            f"{recipe.model.name} takes the boxes of objects, and {path} has none, in a file of its name with the suffix "
            f"{SUFFIX}{'' if part is None else ' of this part'}. Write one (docs/boxes.md), or set data.detector in the "
            "run's recipe.toml to the weights of the detector."
        )
    from vsn.data.boxes.detect import detector_of  # imports torchvision's detectors

    detector = detector_of(recipe.data.detector, num_boxes=recipe.model.num_boxes, device=device)

    def open_boxes(shown: VideoPart) -> BoxSource:
        whole = open_as_in(recipe, path)
        frames = whole if part is None else PartReader(whole, part)
        return DetectedBoxes(at_constant_rate(frames) if recipe.clip.by == "time" else frames, detector)

    return open_boxes


def _computed_flow(
    path: Path, recipe: Recipe, device: str, *, part: Part | None = None, backward: bool = False
) -> ComputedFlowReader:
    method = method_named(recipe.model.flow_method)
    # Flow is computed at the size of stored flow, which may differ from the size of the model's clips.
    return ComputedFlowReader(
        path,
        # Only our TV-L1 runs on a GPU; OpenCV's methods do not.
        flow_method(method, device if method == "tvl1" else "cpu"),
        bound=recipe.model.flow_bound,
        computed_short_side=expected_flow(recipe).short_side,
        # Motions of paths are scaled with the frames, so that they need the size they were computed at.
        short_side=recipe.clip.short_side if recipe.model.modality == "flow" else None,
        frame_template=recipe.data.frame_template,
        decoder=recipe.data.decoder,
        by=recipe.clip.by,
        part=part,
        backward=backward,
    )
