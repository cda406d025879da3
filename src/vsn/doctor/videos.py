"""Inspect one video, or its stored flow, before a long run: whether it decodes, its length, its cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vsn.config import ConfigError, FlowLayout, Recipe
from vsn.data.flow.stored import open_flow
from vsn.data.part import VideoPart
from vsn.data.sampling import segment_indices, stack_indices
from vsn.data.video import OutsideVideoError, VideoError, VideoReader, at_constant_rate, open_video, part_reader
from vsn.data.video.constant_rate import even_interval
from vsn.data.video.frame_folders import FrameFolderReader, describe_frames
from vsn.data.video.packed_files import packed_place
from vsn.data.video.scan import scan_video
from vsn.doctor.mirror import motion_of
from vsn.doctor.near_copies import COARSE, Detail, Signature, sign_video

Problem = Literal["", "missing", "empty", "unreadable", "crashed", "too-slow", "outside"]
_FIELDS_PER_READ = 64


@dataclass(frozen=True)
class VideoReport:
    """Properties of a video or a segment, or of its flow; with a `problem` the numbers are 0."""

    video: VideoPart
    """The video or segment, also in the report of its flow."""
    problem: Problem = ""
    reason: str = ""
    num_frames: int = 0
    """Frames that decode, or stored frames if the last one decodes; of flow the number of fields."""
    announced: int = 0
    """Frames that the container announces or stores, the larger number."""
    frames_per_second: float = 0.0
    """Average by the time stamps; 0 if unknown."""
    usual_rate: float = 0.0
    """Frames per second at which most frames follow each other, where they are unevenly spaced in time; else 0."""
    duration: float = 0.0
    """Of a video with unevenly spaced frames, in seconds."""
    longest_still: float = 0.0
    """The longest time that one of its frames is displayed, in seconds."""
    height: int = 0
    width: int = 0
    num_sizes: int = 0
    """Number of different frame sizes."""
    key_interval: int = 0
    """Largest distance between key frames; 1 for images, 0 if unknown, as of a segment."""
    obstacle: str = ""
    """Why frames are decoded from the first one on; empty when they are not."""
    frame_names: str = ""
    """Naming scheme of a frame folder: "img_{:05d}.jpg from 1"."""
    motion: bytes = b""
    """Where the sampled frames change, see `vsn.doctor.mirror.motion_of`."""
    pixels: str = ""
    """Hash of the sampled frames: identifies copies among videos of packed files."""
    signature: Signature | None = None
    """What near copies are found by; None where the video cannot be read."""
    seconds: float = 0.0
    """Time to read the frames of one clip."""


def inspect_video(video: VideoPart, recipe: Recipe, *, thorough: bool = False) -> VideoReport:
    """Read the frames of a test clip and the last frame, or all. Never raises for the content of a video."""
    return _report_errors(video, lambda: _inspect_video(video, recipe, thorough))


def inspect_flow(path: Path, recipe: Recipe, *, layout: FlowLayout, thorough: bool = False) -> VideoReport:
    """Read the flow fields of a test clip and the last field, or all. Never raises for the content of the flow."""
    return _report_errors(VideoPart(path), lambda: _inspect_flow(path, recipe, layout, thorough))


def _report_errors(video: VideoPart, inspect: Callable[[], VideoReport]) -> VideoReport:
    try:
        return inspect()
    except OutsideVideoError as error:
        return VideoReport(video, "outside", error.reason)
    except VideoError as error:
        return VideoReport(video, _classify_problem(video.path), error.reason)
    except ConfigError as error:
        return VideoReport(video, "unreadable", str(error))
    except Exception as error:  # a bug of ours with this video must not end the check of the others
        return VideoReport(video, "unreadable", f"{type(error).__name__}: {error}")


def _inspect_video(shown: VideoPart, recipe: Recipe, thorough: bool) -> VideoReport:
    template, num_frames = recipe.data.frame_template, recipe.model.num_frames
    path, part = shown
    start = time.perf_counter()
    whole = open_video(path, short_side=recipe.clip.short_side, frame_template=template, decoder=recipe.data.decoder)
    with part_reader(whole, part) as video:
        announced = video.num_frames
        # The last frame too: it is missing in truncated files.
        frames = video.sample(lambda n: [*segment_indices(n, num_frames, None).tolist(), n - 1])
    seconds = time.perf_counter() - start
    # The pixels of a short clip may equal those of a longer video, so the length is hashed too.
    counts = (video.num_frames, video.frames_per_second)
    report = VideoReport(
        shown,
        num_frames=video.num_frames,
        announced=announced,
        frames_per_second=video.frames_per_second,
        obstacle=video.obstacle,
        motion=motion_of(frames[:-1]),
        pixels=hashlib.sha256(repr(counts).encode() + frames.tobytes()).hexdigest(),
        seconds=seconds,
    )
    report = _with_times(report, video)
    # Read again, small, so that `seconds` is the time of one clip.
    report = replace(report, signature=sign(shown, recipe, COARSE))
    # Counted from the packets, because headers are often wrong, and a truncated file keeps its header.
    if path.is_file() and part is None:
        try:
            scan = scan_video(path, decode_all=thorough)
        except VideoError:  # TorchCodec reads some files that PyAV does not: only the frames are known
            return replace(report, height=frames.shape[1], width=frames.shape[2], num_sizes=1)
        height, width = scan.sizes[0]
        return replace(
            report,
            announced=max(report.announced, scan.announced),
            height=height,
            width=width,
            num_sizes=len(scan.sizes),
            key_interval=scan.key_interval,
        )
    # A folder of frames or a packed video: every frame can be read on its own, so one image gives the size. The whole file
    # of a segment is not scanned: it may have a thousand.
    stored = part_reader(open_video(path, frame_template=template), part)
    info = stored.metadata
    sizes = {(info.height, info.width)}
    if thorough:
        for _ in stored:  # every frame decodes
            pass
    if thorough and isinstance(stored, FrameFolderReader):
        sizes = stored.displayed_sizes()
    names = ""
    if path.is_dir():
        files = describe_frames(path, template)
        names = f"{files.template} from {files.start}"
    return replace(
        report,
        height=info.height,
        width=info.width,
        num_sizes=len(sizes),
        key_interval=0 if path.is_file() else 1,
        frame_names=names,
    )


def sign(shown: VideoPart, recipe: Recipe, detail: Detail) -> Signature:
    """Read what near copies are found by. Raises `VideoError`."""
    data = recipe.data
    whole = open_video(
        shown.path, short_side=detail.short_side, frame_template=data.frame_template, decoder=data.decoder
    )
    with part_reader(whole, shown.part) as video:
        return sign_video(video, detail)


def _with_times(report: VideoReport, video: VideoReader) -> VideoReport:
    """Add the rate of a video, and the measures of frames that are unevenly spaced in time."""
    even = at_constant_rate(video)
    if even is video or even_interval(video) is not None:
        return replace(report, frames_per_second=even.frames_per_second)
    return replace(
        report,
        frames_per_second=video.num_frames / video.seconds,
        usual_rate=even.frames_per_second,
        duration=video.seconds,
        longest_still=float(np.diff(video.times, append=video.seconds).max()),
    )


def _inspect_flow(path: Path, recipe: Recipe, layout: FlowLayout, thorough: bool) -> VideoReport:
    flow, length = open_flow(path, layout=layout), recipe.model.flow_length
    num_fields = flow.num_frames
    starts = segment_indices(num_fields, recipe.model.num_frames, None, num_consecutive=length)
    fields = flow.frames_at([*stack_indices(starts, num_fields, length).ravel().tolist(), num_fields - 1])
    # In parts, because all fields of a long video may not fit in memory.
    for start in range(0, num_fields if thorough else 0, _FIELDS_PER_READ):
        flow.frames_at(range(start, min(start + _FIELDS_PER_READ, num_fields)))
    return VideoReport(VideoPart(path), num_frames=num_fields, height=fields.shape[1], width=fields.shape[2])


def _classify_problem(path: Path) -> Problem:
    """Return whether an unreadable video or flow is missing, empty or undecodable."""
    try:
        if path.is_dir():
            return "unreadable" if any(path.iterdir()) else "empty"
        if path.exists():
            return "unreadable" if path.stat().st_size else "empty"
        # The path of a packed video does not exist itself; its file does: "shard-00000.vsnpack/17".
        place = packed_place(path)
        return "unreadable" if place is not None and place[0].is_file() else "missing"
    except OSError:
        return "unreadable"
