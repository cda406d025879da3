"""Inspect one video before a long run: whether it decodes, its length, its cost."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vsn.config import ConfigError, Decoder
from vsn.data.sampling import segment_indices
from vsn.data.video import FewerFramesError, VideoError, VideoReader, open_video
from vsn.data.video.frame_folders import describe_frames
from vsn.data.video.packed_files import packed_place
from vsn.data.video.video_facts import video_facts

Problem = Literal["", "missing", "empty", "unreadable", "crashed", "too-slow"]


@dataclass(frozen=True)
class VideoJob:
    """A video to inspect, and how training would read it."""

    path: Path
    num_frames: int
    """T, frames of a clip."""
    short_side: int
    frame_template: str = ""
    decoder: Decoder = "pyav"
    thorough: bool = False
    """Decode every frame, not only those of a clip and the last."""


@dataclass(frozen=True)
class VideoReport:
    """Properties of a video; with a `problem` the numbers are 0."""

    path: Path
    problem: Problem = ""
    reason: str = ""
    num_frames: int = 0
    """Frames that decode, or stored frames if the last one decodes."""
    announced: int = 0
    """Frames that the container announces or stores, the larger number."""
    frames_per_second: float = 0.0
    """0 if unknown."""
    height: int = 0
    width: int = 0
    num_sizes: int = 0
    """Number of different frame sizes."""
    key_interval: int = 0
    """Largest distance between key frames; 1 for images."""
    frame_names: str = ""
    """Naming scheme of a frame folder: "img_{:05d}.jpg from 1"."""
    pixels: str = ""
    """Hash of the sampled frames: identifies copies among videos of packed files."""
    seconds: float = 0.0
    """Time to read the frames of one clip."""


def inspect_video(job: VideoJob) -> VideoReport:
    """Read the frames of a test clip and the last frame. Never raises for the content of a video."""
    try:
        return _inspect(job)
    except VideoError as error:
        return VideoReport(job.path, classify_problem(job.path), error.reason)
    except ConfigError as error:
        return VideoReport(job.path, "unreadable", str(error))
    except Exception as error:  # a bug of ours with this video must not end the check of the others
        return VideoReport(job.path, "unreadable", f"{type(error).__name__}: {error}")


def _inspect(job: VideoJob) -> VideoReport:
    path = job.path
    start = time.perf_counter()
    with open_video(path, short_side=job.short_side, frame_template=job.frame_template, decoder=job.decoder) as video:
        announced = video.num_frames
        try:
            frames = _read_clip(video, job.num_frames)
        except FewerFramesError:  # num_frames is now the number of frames that decode
            frames = _read_clip(video, job.num_frames)
    seconds = time.perf_counter() - start
    # The pixels of a short clip may equal those of a longer video, so the length is hashed too.
    counts = (video.num_frames, video.frames_per_second)
    report = VideoReport(
        path,
        num_frames=video.num_frames,
        announced=announced,
        frames_per_second=video.frames_per_second,
        pixels=hashlib.sha256(repr(counts).encode() + frames.tobytes()).hexdigest(),
        seconds=seconds,
    )
    # Counted from the packets, because headers are often wrong, and a truncated file keeps its header.
    if path.is_file():
        try:
            facts = video_facts(path, decode_all=job.thorough)
        except VideoError:  # TorchCodec reads some files that PyAV does not: only the frames are known
            return replace(report, height=frames.shape[1], width=frames.shape[2], num_sizes=1)
        height, width = facts.sizes[0]
        return replace(
            report,
            announced=max(report.announced, facts.announced),
            height=height,
            width=width,
            num_sizes=len(facts.sizes),
            key_interval=facts.key_interval,
        )
    # A folder of frames or a packed video: every frame can be read on its own, so one image gives the size.
    stored = open_video(path, frame_template=job.frame_template)
    info = stored.metadata
    sizes = {(info.height, info.width)}
    if job.thorough:
        sizes |= {(frame.shape[0], frame.shape[1]) for frame in stored}
    names = ""
    if path.is_dir():
        files = describe_frames(path, job.frame_template)
        names = f"{files.template} from {files.start}"
    return replace(
        report, height=info.height, width=info.width, num_sizes=len(sizes), key_interval=1, frame_names=names
    )


def _read_clip(video: VideoReader, num_frames: int) -> np.ndarray:
    """Read the frames of a test clip, and the last frame, which is missing in truncated files."""
    return video.frames_at([*segment_indices(video.num_frames, num_frames, None).tolist(), video.num_frames - 1])


def classify_problem(path: Path) -> Problem:
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
