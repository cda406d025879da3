"""What is to be known of one video before a long run: does it decode, how long is it, how costly."""

from __future__ import annotations

import hashlib
import os
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
class FileJob:
    """A video to look into, and how training would read it."""

    path: Path
    num_frames: int
    short_side: int
    frame_template: str = ""
    decoder: Decoder = "pyav"
    thorough: bool = False
    """Decode every frame, not only those of a clip and the last."""


@dataclass(frozen=True)
class FileReport:
    """What was found. With a `problem` the numbers stay 0."""

    path: Path
    problem: Problem = ""
    reason: str = ""
    num_frames: int = 0
    """Frames that decode, or are stored where the last one decodes."""
    announced: int = 0
    """Frames that the container announces or stores, whichever is more."""
    frames_per_second: float = 0.0
    """0 when unknown."""
    height: int = 0
    width: int = 0
    num_sizes: int = 0
    """Different frame sizes met."""
    key_interval: int = 0
    """Largest distance between key frames; 1 for images."""
    frame_names: str = ""
    """How the frames of a folder are named: "img_{:05d}.jpg from 1"."""
    pixels: str = ""
    """Hash of the sampled frames: tells alike videos that are no files of their own."""
    seconds: float = 0.0
    """Time to read the frames of one clip."""


def inspect_video(job: FileJob) -> FileReport:
    """Read the frames of a test clip and the last frame; count and measure. Bad content raises nothing."""
    try:
        return _inspect(job)
    except VideoError as error:
        return FileReport(job.path, problem_of(job.path), error.reason)
    except ConfigError as error:
        return FileReport(job.path, "unreadable", str(error))
    except Exception as error:  # a fault of ours on this video: the others are looked into all the same
        return FileReport(job.path, "unreadable", f"{type(error).__name__}: {error}")


def _inspect(job: FileJob) -> FileReport:
    path = job.path
    start = time.perf_counter()
    with open_video(path, short_side=job.short_side, frame_template=job.frame_template, decoder=job.decoder) as video:
        announced = video.num_frames
        try:
            frames = _read_clip(video, job.num_frames)
        except FewerFramesError:  # num_frames is now the number of frames that decode
            frames = _read_clip(video, job.num_frames)
    seconds = time.perf_counter() - start
    counted = (video.num_frames, video.frames_per_second)
    report = FileReport(
        path,
        num_frames=video.num_frames,
        announced=announced,
        frames_per_second=video.frames_per_second,
        pixels=hashlib.sha256(repr(counted).encode() + frames.tobytes()).hexdigest(),
        seconds=seconds,
    )
    if path.is_file():
        try:
            facts = video_facts(path, decode_all=job.thorough)
        except VideoError:  # another decoder read what PyAV cannot; the frames are what there is to know
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
    """The frames of a test clip, and the last frame."""
    return video.frames_at([*segment_indices(video.num_frames, num_frames, None).tolist(), video.num_frames - 1])


def problem_of(path: Path) -> Problem:
    """What kind of unreadable a video is."""
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                return "unreadable" if any(entries) else "empty"
        if path.exists():
            return "unreadable" if path.stat().st_size else "empty"
        place = packed_place(path)
        return "unreadable" if place is not None and place[0].is_file() else "missing"
    except OSError:
        return "unreadable"
