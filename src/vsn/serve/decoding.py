"""Decode an upload into the clips the model takes. Runs in worker processes: a file may hang or crash its decoder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsn.config import Recipe, ServeConfig
from vsn.data.video import VideoError, VideoMetadata, open_video
from vsn.data.video.jpeg import encode_jpeg
from vsn.data.video.resize import resize_rgb
from vsn.data.views import num_view_pixels
from vsn.inference.inputs import views_of_video
from vsn.serve.problems import Problem
from vsn.stream.file_windows import FileWindows, read_windows
from vsn.stream.plan import TooShortWindowError
from vsn.system.allocator import return_freed_memory

MAX_SIDE = 224
"""Pixels of the longer side of a returned frame."""
JPEG_QUALITY = 80


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """A file to decode, and what to return of it."""

    path: Path
    recipe: Recipe
    limits: ServeConfig
    frames: bool = False
    """Whether to return the sampled frames as JPEG."""
    timeline: bool = False
    """Whether to return the windows of a long video."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The clips of a video, and what the response shows of it."""

    info: VideoMetadata
    seconds: float
    """Duration, by the time stamps."""
    clip: NDArray[np.uint8]
    """`(T, C, H, W)`, or `(views, T, C, H, W)`, as `vsn predict` samples it."""
    jpegs: tuple[bytes, ...]
    """The frames of the first view, small; empty unless requested."""
    windows: FileWindows | None
    """None without a timeline: not requested, a short video, or frames too far apart for a window."""


def decode_upload(job: DecodeJob) -> Decoded | Problem:
    """Decode a file within the limits. A fault of the file is returned, not raised: it is the response."""
    limits, recipe = job.limits, job.recipe
    return_freed_memory()  # of the job before
    try:
        video = open_video(job.path, short_side=recipe.clip.short_side)
        info = video.metadata
    except VideoError as error:
        return Problem("not_a_video", f"The file cannot be opened as a video: {_reason(error, job)}")
    seconds = video.seconds
    # Before decoding: a few kilobytes of video can hold gigabytes of frames.
    num_pixels = info.height * info.width
    if num_pixels > limits.max_pixels:
        return Problem(
            "too_many_pixels",
            f"The frames have {info.width}x{info.height} = {num_pixels} pixels.",
            limit=f"The limit is {limits.max_pixels}.",
        )
    if (problem := _too_many_model_pixels(job, info.height, info.width)) is not None:
        return problem
    if seconds > limits.max_seconds:
        return Problem("too_long", f"The video lasts {seconds:.1f} s.", limit=f"The limit is {limits.max_seconds:g} s.")
    try:
        with video:
            clip = views_of_video(video, recipe, recipe.eval, num_threads=1)  # other files are decoded meanwhile
        # A decoder may hold 16 frames of the file's size, and a timeline needs another one.
        return_freed_memory()
        windows = None
        if job.timeline and seconds > limits.timeline_seconds:
            # At a low frame rate a window may not hold the consecutive frames of one instant (rgbdiff).
            with contextlib.suppress(TooShortWindowError):
                windows = read_windows(
                    job.path,
                    recipe,
                    seconds=limits.window_seconds,
                    max_windows=limits.max_windows,
                    video_seconds=seconds,
                )
    except VideoError as error:
        return Problem("cannot_decode", f"The video cannot be decoded: {_reason(error, job)}")
    # JPEG here, not in the service: encoding then runs in parallel, and less crosses the pipe.
    jpegs = tuple(encode_jpeg(frame, quality=JPEG_QUALITY) for frame in small_frames(clip)) if job.frames else ()
    return Decoded(info=info, seconds=seconds, clip=clip, jpegs=jpegs, windows=windows)


def max_model_pixels(limits: ServeConfig, recipe: Recipe) -> int:
    """Return the limit of `num_view_pixels`: as set, or 4 times a square video, which wide screens do not exceed."""
    side = recipe.clip.short_side
    return limits.max_model_pixels or 4 * num_view_pixels(recipe, side, side)


def _too_many_model_pixels(job: DecodeJob, height: int, width: int) -> Problem | None:
    limit, num_pixels = max_model_pixels(job.limits, job.recipe), num_view_pixels(job.recipe, height, width)
    if num_pixels <= limit:
        return None
    return Problem(
        "too_many_model_pixels",
        f"For frames of {width}x{height} pixels the model would compute {num_pixels} pixels: its shorter side is "
        f"resized to {job.recipe.clip.short_side}.",
        limit=f"The limit is {limit}.",
    )


def _reason(error: VideoError, job: DecodeJob) -> str:
    # No path of the server may reach a client.
    return error.reason.replace(str(job.path), "the file")


def small_frames(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the T frames of the first view for display: uint8 `(T, h, w, 3)`, at most `MAX_SIDE` pixels.

    Flow is shown by its first field per segment, as two colors; rgbdiff by the first of its frames.
    """
    # Channels beyond the first three are later flow fields or frames of the same instant.
    frames = (clip if clip.ndim == 4 else clip[0])[:, :3].transpose(0, 2, 3, 1)
    if frames.shape[3] < 3:  # a flow field has two channels: gray (128) fills the third
        frames = np.concatenate([frames, np.full_like(frames[..., :1], 128)], axis=3)
    height, width = frames.shape[1:3]
    scale = min(1.0, MAX_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return np.stack([np.ascontiguousarray(resize_rgb(frame, *size)) for frame in frames])
