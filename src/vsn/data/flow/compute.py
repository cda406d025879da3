"""Frames in, bytes of optical flow out: what extraction stores, and what prediction makes on the fly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vsn.config import ConfigError, Decoder, FlowMethod
from vsn.data.flow.values import flow_to_bytes
from vsn.data.video import FewerFramesError, VideoError, VideoReader, open_video
from vsn.data.video.jpeg import decode_gray_jpeg, encode_gray_jpeg
from vsn.data.video.reader import Choose, chosen

ComputeFlow = Callable[[np.ndarray], np.ndarray]
"""Gray frames, uint8 `(n + 1, H, W)`, to the motion from each to the next, float32 `(n, H, W, 2)`, pixels."""

STATED: dict[FlowMethod, str] = {
    "tvl1": "tv-l1",
    "tvl1-opencv": "tv-l1",
    "dis": "dis",
    "farneback": "farneback",
}
"""What `flow.json` calls the flow of a method; the two of TV-L1 give the same, to a tenth of a pixel."""
QUALITY = 95
"""Of the JPEGs of flow."""
CPU_PIXELS = 100_000
"""Of pairs computed at once: for a small frame alone a CPU spends its time on calls, and a large one gains nothing
from company."""
_TOO_SHORT = "it has one frame, and flow needs two."


def flow_method(method: FlowMethod, device: str = "cpu") -> ComputeFlow:
    """How `method` computes flow, on the torch device `device`; OpenCV's know the CPU alone.

    Raises `ConfigError` for a name that is none, a device that is not there, and OpenCV on another than the CPU.
    """
    if method not in get_args(FlowMethod):
        raise ConfigError(f"the method of flow is {method!r}; it is one of {', '.join(get_args(FlowMethod))}.")
    if method != "tvl1":
        if device != "cpu":
            raise ConfigError(f"method {method!r} runs on the CPU alone, and the device is {device!r}.")
        name = method
        return lambda frames: opencv_flow(frames, name)
    import torch

    from vsn.data.flow.tvl1 import tvl1_flow

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise ConfigError(f"the device is {device!r}; flow is computed on cpu, or on cuda where there is one.")

    def compute(frames: np.ndarray) -> np.ndarray:
        gray = torch.from_numpy(frames).to(device)
        flow = tvl1_flow(torch.stack([gray[:-1], gray[1:]], 1))
        return flow.permute(0, 2, 3, 1).cpu().numpy()

    return compute


def method_of(stated: str) -> FlowMethod:
    """The method that makes flow such as `flow.json` or `model.flow_method` names it. Raises `ConfigError`."""
    for method, name in STATED.items():
        if name == stated:
            return method
    raise ConfigError(
        f"flow by {stated!r} cannot be computed here, only by {', '.join(dict.fromkeys(STATED.values()))}; give the "
        "stored flow of the video."
    )


def to_gray(frame: np.ndarray) -> np.ndarray:
    """Brightness, uint8 `(H, W)`, of a frame, uint8 `(H, W, 3)` RGB: weights of ITU-R BT.601, rounded.

    >>> to_gray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)).tolist()
    [[76, 150, 29, 9]]
    """
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.floor(frame.astype(np.float32) @ weights + np.float32(0.5)).astype(np.uint8)


def iter_fields(
    path: str | Path,
    frames: Iterable[np.ndarray],
    compute: ComputeFlow,
    *,
    bound: float,
    pixels_at_once: int = CPU_PIXELS,
) -> Iterator[np.ndarray]:
    """The fields between frames, uint8 `(H, W, 3)` RGB of one size, as bytes `(H, W, 2)`, one after the other.

    As many pairs are computed at once as have `pixels_at_once` pixels, at least one: their number changes no
    byte, and memory does not grow with the length of the video, `path`. Raises `VideoError` for a video of one
    frame.
    """
    coming = map(to_gray, frames)
    held = list(itertools.islice(coming, 2))
    if len(held) == 1:
        raise VideoError(path, _TOO_SHORT)
    batch = max(1, pixels_at_once // max(1, held[0].size if held else 1))
    held += itertools.islice(coming, batch - 1)
    while len(held) > 1:
        yield from flow_to_bytes(compute(np.stack(held)), bound)
        held = [held[-1], *itertools.islice(coming, batch)]


def compute_fields(
    path: str | Path,
    choose: Choose,
    compute: ComputeFlow,
    *,
    bound: float,
    short_side: int | None,
    frame_template: str = "",
    decoder: Decoder = "pyav",
) -> np.ndarray:
    """Chosen fields of a video, computed of the frames they need: uint8 `(n, H, W, 2)`.

    They are as `read_flow` would read them had the flow of the whole video been stored at `short_side`, the loss
    of JPEG included, for that is what a model was trained on. Raises `VideoError`, for a video of one frame too.
    """
    with open_video(path, short_side=short_side, frame_template=frame_template, decoder=decoder) as video:
        try:
            wanted, frames = _frames_of_fields(video, choose)
        except FewerFramesError:  # a damaged file: choose from the frames that decode
            wanted, frames = _frames_of_fields(video, choose)
    fields = {
        index: _as_stored(flow_to_bytes(compute(np.stack([to_gray(first), to_gray(second)])), bound)[0])
        for index, first, second in zip(sorted(set(wanted)), frames[::2], frames[1::2], strict=True)
    }
    return np.stack([fields[index] for index in wanted])


def _frames_of_fields(video: VideoReader, choose: Choose) -> tuple[list[int], np.ndarray]:
    """The chosen fields, and two frames for each different one, in ascending order."""
    if video.num_frames < 2:
        raise VideoError(video.path, _TOO_SHORT)
    wanted = chosen(choose, video.num_frames - 1, video.frames_per_second)
    return wanted, video.frames_at([frame for index in sorted(set(wanted)) for frame in (index, index + 1)])


def _as_stored(field: np.ndarray) -> np.ndarray:
    """A field after the JPEG of `write_flow_file`."""
    height = field.shape[0]
    picture = decode_gray_jpeg(encode_gray_jpeg(np.concatenate([field[..., 0], field[..., 1]]), quality=QUALITY))
    return np.stack([picture[:height], picture[height:]], axis=2)


def opencv_flow(frames: np.ndarray, method: Literal["tvl1-opencv", "dis", "farneback"]) -> np.ndarray:
    """The motion from each frame to the next: gray frames, uint8 `(n + 1, H, W)`, to float32 `(n, H, W, 2)`.

    OpenCV's own parameters. Of its threads it uses one: processes give the parallelism. Raises `ConfigError`
    where it is not installed.
    """
    cv2 = _opencv()
    cv2.setNumThreads(1)
    calc = _calculator(cv2, method)
    return np.stack([calc(first, second) for first, second in itertools.pairwise(frames)])


def _calculator(cv2: Any, method: str) -> Any:
    match method:
        case "tvl1-opencv":
            tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
            return lambda first, second: tvl1.calc(first, second, None)
        case "dis":
            dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            return lambda first, second: dis.calc(first, second, None)
        case "farneback":
            # As in OpenCV's own samples: scale, levels, window, iterations, neighborhood, its sigma, flags.
            return lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    raise ConfigError(f"{method!r} is no method of OpenCV's; there are tvl1-opencv, dis and farneback.")


def _opencv() -> Any:
    try:
        import cv2

        cv2.optflow  # noqa: B018 - only the contrib build has it
    except (ImportError, AttributeError):
        raise ConfigError(
            "this method of flow needs opencv-contrib-python-headless, which is not installed (the plain OpenCV lacks "
            'TV-L1): pip install "vsn[flow]". --method tvl1 needs nothing more.'
        ) from None
    return cv2
