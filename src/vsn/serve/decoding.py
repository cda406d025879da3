"""From an uploaded file to what the model looks at. Runs in processes of its own: a file may hang or kill one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import Recipe
from vsn.data.video.decode import VideoError, VideoInfo, probe_video
from vsn.data.video.jpeg import encode_jpeg
from vsn.inference.prediction import views_of_video
from vsn.serve.problems import Problem, cannot_decode, not_a_video, too_long, too_many_pixels
from vsn.stream.frames import FileWindows, TooShortWindowError, read_windows

MAX_SIDE = 224
"""Pixels of the longer side of a frame that is shown."""
JPEG_QUALITY = 80
UNKNOWN_RATE = 25.0
"""Frames a second of a video that does not say: for its duration alone."""


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """A file to read, and what of it is wanted."""

    path: Path
    recipe: Recipe
    classes: tuple[str, ...]
    max_seconds: float
    max_pixels: int
    frames: bool
    """Whether to show the sampled frames."""
    timeline: bool
    """Whether to find the windows of a long video too."""
    timeline_seconds: float
    window_seconds: float | None
    """None: as long as the clips of training."""
    max_windows: int


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What the model looks at of a video, and what can be shown of it."""

    info: VideoInfo
    seconds: float
    """Duration: frames by their rate."""
    clip: NDArray[np.uint8]
    """`(T, C, H, W)`, or `(views, T, C, H, W)`: what `vsn predict` looks at."""
    jpegs: tuple[bytes, ...]
    """The frames of the first view, small; empty unless asked for."""
    windows: FileWindows | None
    """None: there is no timeline; it was not asked for, or the video's frames are too far apart for one."""


def decode_upload(job: DecodeJob) -> Decoded | Problem:
    """Read a file within the limits. Whatever is wrong with the file is returned, as the answer to give."""
    try:
        info = probe_video(job.path)
    except VideoError as error:
        return not_a_video(_reason(error, job))
    seconds = info.num_frames / (info.frames_per_second or UNKNOWN_RATE)
    if info.height * info.width > job.max_pixels:
        return too_many_pixels(info.height, info.width, job.max_pixels)
    if seconds > job.max_seconds:
        return too_long(seconds, job.max_seconds)
    recipe = job.recipe
    try:
        clip = views_of_video(job.path, recipe, job.classes, recipe.eval)
        windows = None
        if job.timeline and seconds > job.timeline_seconds:
            with contextlib.suppress(TooShortWindowError):
                windows = read_windows(
                    job.path,
                    recipe,
                    seconds=job.window_seconds,
                    max_windows=job.max_windows,
                    video_seconds=seconds,
                )
    except VideoError as error:
        return cannot_decode(_reason(error, job))
    jpegs = tuple(encode_jpeg(frame, quality=JPEG_QUALITY) for frame in shown_frames(clip)) if job.frames else ()
    return Decoded(info=info, seconds=seconds, clip=clip.numpy(), jpegs=jpegs, windows=windows)


def _reason(error: VideoError, job: DecodeJob) -> str:
    """Why, without the place of the file here."""
    return error.reason.replace(str(job.path), "the file")


def shown_frames(clip: torch.Tensor) -> NDArray[np.uint8]:
    """The T frames of the first view, small: uint8 `(T, h, w, 3)`.

    Of flow the first field of a segment is shown as two colors, of differences the first frame.
    """
    frames = clip if clip.ndim == 4 else clip[0]
    if frames.shape[1] < 3:
        frames = torch.cat([frames, torch.full_like(frames[:, :1], 128)], dim=1)
    frames = frames[:, :3]
    height, width = frames.shape[-2:]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    shown: NDArray[np.uint8] = frames.permute(0, 2, 3, 1).contiguous().numpy()
    return shown
