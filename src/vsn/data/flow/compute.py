"""Compute optical flow from frames: fields to store, or fields for prediction from a video without stored flow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vsn.config import ConfigError, Decoder, FlowMethod, SampledBy
from vsn.config.distribution import install_command
from vsn.data.flow.stored import FlowReader, decode_field, encode_field
from vsn.data.flow.values import flow_to_bytes
from vsn.data.video import FewerFramesError, Part, PartReader, VideoError, at_constant_rate, open_video

ComputeFlow = Callable[[np.ndarray], np.ndarray]
"""Gray frames, uint8 `(n + 1, H, W)` -> motion from each to the next in pixels, float32 `(n, H, W, 2)`."""

METHOD_NAMES: dict[FlowMethod, str] = {
    "tvl1": "tv-l1",
    "tvl1-opencv": "tv-l1",
    "dis": "dis",
    "farneback": "farneback",
}
"""Names of the methods in `flow.json` and `model.flow_method`. Both TV-L1 give the same flow to a tenth of a pixel."""
CPU_PIXELS = 100_000
"""Pixels of the pairs computed at once on a CPU: batching small frames saves calls, batching large ones nothing."""
_TOO_SHORT = "it has one frame, and flow needs two."


def flow_method(method: FlowMethod, device: str = "cpu") -> ComputeFlow:
    """Return the function that computes flow by `method` on a torch device; OpenCV's methods run on the CPU only.

    Raises `ConfigError` for an unknown method, and for a device that is missing or not supported.
    """
    if method not in get_args(FlowMethod):
        raise ConfigError(f"Unknown flow method {method!r}; choose from {', '.join(get_args(FlowMethod))}.")
    if method != "tvl1":
        if device != "cpu":
            raise ConfigError(f"Flow method {method!r} runs on the CPU only, got device {device!r}.")
        opencv_method = method
        return lambda frames: opencv_flow(frames, opencv_method)
    import torch

    from vsn.data.flow.tvl1 import tvl1_flow

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise ConfigError(f"Device {device!r} cannot compute flow here; use 'cpu', or 'cuda' with a CUDA device.")

    def compute(frames: np.ndarray) -> np.ndarray:
        # n + 1 frames -> n pairs: each frame is uploaded once and used in two pairs.
        gray = torch.from_numpy(frames).to(device)
        flow = tvl1_flow(torch.stack([gray[:-1], gray[1:]], 1))
        return flow.permute(0, 2, 3, 1).cpu().numpy()

    return compute


def method_named(name: str) -> FlowMethod:
    """Return the method that computes flow of this name in `flow.json`. Raises `ConfigError` if there is none."""
    for method, method_name in METHOD_NAMES.items():
        if method_name == name:
            return method
    raise ConfigError(
        f"Flow by {name!r} cannot be computed here, only by {', '.join(dict.fromkeys(METHOD_NAMES.values()))}. Pass the "
        "stored flow of the video."
    )


def to_gray(frame: np.ndarray) -> np.ndarray:
    """Convert a frame, uint8 `(H, W, 3)` RGB, to gray, uint8 `(H, W)`: weights of ITU-R BT.601, rounded.

    >>> to_gray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)).tolist()
    [[76, 150, 29, 9]]
    """
    # floor(x + 0.5), as OpenCV rounds: np.round would round halves to even.
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.floor(frame.astype(np.float32) @ weights + np.float32(0.5)).astype(np.uint8)


def iter_fields(
    path: str | Path,
    frames: Iterable[np.ndarray],
    compute: ComputeFlow,
    *,
    bound: float,
    backward: bool = False,
    pixels_at_once: int = CPU_PIXELS,
) -> Iterator[np.ndarray]:
    """Yield the fields between consecutive frames as bytes, uint8 `(H, W, 2)`. Memory does not grow with the video.

    Field i is the motion from frame i to i + 1, `backward` from frame i + 1 to i.

    Args:
        path: The video, for error messages.
        frames: uint8 `(H, W, 3)` RGB, of one size.
        compute: See `flow_method`.
        bound: Motion, pixels, that byte 255 stands for.
        backward: From each frame to the one before, not to the next.
        pixels_at_once: Pixels of the pairs computed in one batch, of at least one pair; the bytes do not depend on it.

    Raises:
        VideoError: There is only one frame.
    """
    gray = map(to_gray, frames)
    held = list(itertools.islice(gray, 2))
    if len(held) == 1:
        raise VideoError(path, _TOO_SHORT)
    batch_size = max(1, pixels_at_once // max(1, held[0].size if held else 1))
    # A batch of n pairs needs n + 1 frames; the last frame of a batch is the first of the next:
    # batch_size 2, frames 0 1 2 3 4: pairs 01 12 of frames 0 1 2, then pairs 23 34 of frames 2 3 4.
    held += itertools.islice(gray, batch_size - 1)
    while len(held) > 1:
        yield from flow_to_bytes(_compute_fields(compute, held, backward=backward), bound)
        held = [held[-1], *itertools.islice(gray, batch_size)]


def _compute_fields(compute: ComputeFlow, gray: Sequence[np.ndarray], *, backward: bool) -> np.ndarray:
    """Compute the motion between consecutive gray frames in pixels, float32 `(n, H, W, 2)`, by the earlier frame."""
    # The motion back is that of the frames in reverse: of frames 2 1 0, the last field belongs to frames 1 and 0.
    return compute(np.stack(gray[::-1]))[::-1] if backward else compute(np.stack(gray))


class ComputedFlowReader(FlowReader):
    """Compute the flow of a video on demand, from the frames that the requested fields need.

    The fields equal those that `vsn flow extract` stores at `computed_short_side`, the loss of JPEG included, because a
    model was trained on these. Raises `VideoError` for a video that cannot be read, or has one frame.
    """

    def __init__(
        self,
        path: str | Path,
        compute: ComputeFlow,
        *,
        bound: float,
        computed_short_side: int | None,
        short_side: int | None = None,
        frame_template: str = "",
        decoder: Decoder = "pyav",
        by: SampledBy = "time",
        part: Part | None = None,
        backward: bool = False,
    ) -> None:
        video = open_video(path, short_side=computed_short_side, frame_template=frame_template, decoder=decoder)
        # Before frames at a constant rate are chosen: a part is read as a video of its own.
        video = video if part is None else PartReader(video, part)
        self._video = at_constant_rate(video) if by == "time" else video
        self._compute = compute
        self._bound, self._backward = bound, backward
        super().__init__(path, num_frames=0, frames_per_second=self._video.frames_per_second, short_side=short_side)
        self._count_fields()

    def close(self) -> None:
        """Release what the reader of the video holds open."""
        self._video.close()

    def _count_fields(self) -> None:
        self.num_frames = self._video.num_frames - 1
        if self.num_frames < 1:
            raise VideoError(self.path, _TOO_SHORT)

    def _read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        # One call for all frames, because each call decodes the file from its start.
        try:
            frames = self._video.frames_at([frame for index in indices for frame in (index, index + 1)])
        except FewerFramesError:
            self._count_fields()
            raise
        for first, second in zip(frames[::2], frames[1::2], strict=True):
            pair = [to_gray(first), to_gray(second)]
            (field,) = flow_to_bytes(_compute_fields(self._compute, pair, backward=self._backward), self._bound)
            # Through JPEG and back, for the losses that stored flow has.
            yield decode_field(encode_field(field))


def opencv_flow(frames: np.ndarray, method: Literal["tvl1-opencv", "dis", "farneback"]) -> np.ndarray:
    """Compute the motion from each frame to the next by OpenCV, with its default parameters.

    Args:
        frames: Gray, uint8 `(n + 1, H, W)`.
        method: "tvl1-opencv", "dis" or "farneback".

    Returns:
        float32 `(n, H, W, 2)`.

    Raises:
        ConfigError: OpenCV is not installed.
    """
    try:
        import cv2

        cv2.optflow  # noqa: B018 - only the contrib build has it
    except (ImportError, AttributeError):
        raise ConfigError(
            "This flow method needs opencv-contrib-python-headless (plain OpenCV lacks TV-L1): "
            f"{install_command('flow')}. --method tvl1 needs no extra package."
        ) from None
    # The worker processes give the parallelism.
    cv2.setNumThreads(1)
    calc: Callable[[np.ndarray, np.ndarray, Any], np.ndarray]
    if method == "tvl1-opencv":
        calc = cv2.optflow.DualTVL1OpticalFlow_create().calc
    elif method == "dis":
        calc = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc
    else:
        # The values of OpenCV's samples: scale, levels, window, iterations, neighborhood and its sigma, flags.
        def calc(first: np.ndarray, second: np.ndarray, flow: None) -> np.ndarray:
            return cv2.calcOpticalFlowFarneback(first, second, flow, 0.5, 3, 15, 3, 5, 1.2, 0)

    return np.stack([calc(first, second, None) for first, second in itertools.pairwise(frames)])
