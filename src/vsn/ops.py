"""Compute the temporal operations: pure functions on frames, without parameters or multiply-adds.

`video_shuffle` and `temporal_shift` take frames ``(B*T, C, H, W)``, the T frames of each clip in order, of any floating or
integer dtype, contiguous or channels-last. The result has the same shape, dtype and memory format. `sample_along` takes
frames in any order, and the motion of their points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional


def video_shuffle(frames: Tensor, num_frames: int) -> Tensor:
    """Exchange channel groups between the T frames of each clip (paper, eq. 1).

    With groups of eta = C // T channels: ``out[i, t*eta + r] = in[t, i*eta + r]``, which swaps the frame axis and the
    group axis. It is its own inverse. The last C - T*eta channels do not move (our reading; the paper assumes that T
    divides C). The data is copied once.

    Args:
        frames: ``(B*T, C, H, W)``, with C >= T.
        num_frames: T. With 1 the input itself is returned.

    Raises:
        ValueError: frames is not 4-dimensional, its first axis is not a multiple of T, or C < T.

    Example:
        >>> frames = torch.tensor([[1, 2], [3, 4]]).view(2, 2, 1, 1)  # 2 frames of 2 channels
        >>> video_shuffle(frames, num_frames=2).flatten(1).tolist()
        [[1, 3], [2, 4]]
    """
    batch = _check(frames, num_frames, "video_shuffle")
    if num_frames == 1:
        return frames
    channels = frames.shape[1]
    eta = channels // num_frames
    if eta == 0:
        raise ValueError(
            f"video_shuffle: frames of shape {tuple(frames.shape)} have C = {channels} channels, fewer than num_frames = "
            f"{num_frames}; every frame needs a channel group. Use at most {channels} frames, or shuffle a wider layer."
        )
    if _is_channels_last(frames):
        # Viewed as (B, T, H, W, C) the tensor is contiguous, so that a single strided copy suffices.
        clip = frames.permute(0, 2, 3, 1).unflatten(0, (batch, num_frames))
        return _swap(clip, num_frames, eta, channel_axis=4).flatten(0, 1).permute(0, 3, 1, 2)
    clip = frames.contiguous().unflatten(0, (batch, num_frames))
    return _swap(clip, num_frames, eta, channel_axis=2).flatten(0, 1)


def temporal_shift(frames: Tensor, num_frames: int, shift_div: int = 8) -> Tensor:
    """Shift some channels by one frame, zero-padded (TSM, Lin et al. 2018, section 3).

    With fold = C // shift_div: ``out[t, :fold] = in[t+1, :fold]``, ``out[t, fold:2*fold] = in[t-1, fold:2*fold]``, and the
    other channels do not move. Frames outside the clip are zeros.

    Args:
        frames: ``(B*T, C, H, W)``, with C >= shift_div.
        num_frames: T. With 1 the input itself is returned: a single frame has no neighbors.
        shift_div: 1/shift_div of the channels move each way; at least 2.

    Raises:
        ValueError: frames is not 4-dimensional, its first axis is not a multiple of T, shift_div < 2, or C < shift_div.

    Example:
        >>> frames = torch.tensor([[1, 2, 3], [4, 5, 6]]).view(2, 3, 1, 1)  # 2 frames of 3 channels
        >>> temporal_shift(frames, num_frames=2, shift_div=3).flatten(1).tolist()
        [[4, 0, 3], [0, 2, 6]]
    """
    batch, fold = _check_shift(frames, num_frames, shift_div)
    if num_frames == 1:
        return frames
    # Compilers and exporters cannot see into an autograd.Function that writes in place.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _shift_functional(frames, batch, num_frames, fold)
    return _Shift.apply(frames, num_frames, fold, False)


_CACHED_BYTES = 32 * 2**20
"""A copy of frames of up to this size stays in the cache of a CPU until the next layer reads it."""


def worth_shifting_in_place(frames: Tensor) -> bool:
    """Return whether `shifted_in_place` takes these frames, and is faster: large ones on a CPU, without gradients."""
    return (
        frames.device.type == "cpu"
        and frames.numel() * frames.element_size() > _CACHED_BYTES
        and not torch.is_grad_enabled()
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        # Written to outside of inference mode, such a tensor raises.
        and (torch.is_inference_mode_enabled() or not frames.is_inference())
        # An expanded tensor shows the same values in several places.
        and (frames.is_contiguous() or _is_channels_last(frames))
    )


@contextmanager
def shifted_in_place(frames: Tensor, num_frames: int, shift_div: int = 8) -> Iterator[None]:
    """Have frames shifted as by `temporal_shift` within the context, and as they were after it, to the last bit.

    Only the channels that move are copied, a quarter of all by default, twice. Nothing else may read or write the frames in
    the meantime.

    Args: see `temporal_shift`.

    Raises:
        ValueError: as `temporal_shift`.

    Example:
        >>> frames = torch.tensor([[1, 2, 3], [4, 5, 6]]).view(2, 3, 1, 1)
        >>> with shifted_in_place(frames, num_frames=2, shift_div=3):
        ...     frames.flatten(1).tolist()
        [[4, 0, 3], [0, 2, 6]]
        >>> frames.flatten(1).tolist()
        [[1, 2, 3], [4, 5, 6]]
    """
    batch, fold = _check_shift(frames, num_frames, shift_div)
    if num_frames == 1:
        yield
        return
    # As data, which is not versioned: autograd may have saved these frames, and finds them unchanged later.
    clip = frames.data.unflatten(0, (batch, num_frames))
    backward, forward = clip.narrow(2, 0, fold), clip.narrow(2, fold, fold)
    first, last = backward[:, 0].clone(), forward[:, -1].clone()
    try:
        _move(backward, 1)
        backward[:, -1].zero_()
        _move(forward, -1)
        forward[:, 0].zero_()
        yield
    finally:
        _move(backward, -1)
        backward[:, 0].copy_(first)
        _move(forward, 1)
        forward[:, -1].copy_(last)


def sample_along(frames: Tensor, motion: Tensor, *, outside: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Return the value of each frame at p + motion, for every point p: bilinear between pixels.

    Args:
        frames: ``(N, C, H, W)``, floating point.
        motion: pixels to the right and down, ``(N, 2, H, W)``.
        outside: what is outside of the frame: zeros, or the nearest pixel of the border.

    Returns:
        ``(N, C, H, W)``, of the frames' dtype.

    Raises:
        ValueError: motion is not ``(N, 2, H, W)`` of these frames.

    Example:
        >>> frames = torch.tensor([[1.0, 2.0, 3.0]]).view(1, 1, 1, 3)
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
        >>> sample_along(frames, right).flatten().tolist()
        [2.0, 3.0, 0.0]
    """
    height, width = frames.shape[-2:]
    if frames.ndim != 4 or motion.shape != (frames.shape[0], 2, height, width):
        raise ValueError(
            f"sample_along: expected frames (N, C, H, W) and motion (N, 2, H, W), got shapes {tuple(frames.shape)} and "
            f"{tuple(motion.shape)}."
        )
    # Not in half precision: the pixels of a frame would be coarser than motions.
    dtype = torch.promote_types(frames.dtype, torch.float32)
    columns = torch.arange(width, device=motion.device, dtype=dtype) + motion[:, 0].to(dtype)
    rows = torch.arange(height, device=motion.device, dtype=dtype)[:, None] + motion[:, 1].to(dtype)
    # From pixels, counted at their middle, to -1 and 1 at the borders of the frame.
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    sampled = functional.grid_sample(frames.to(dtype), grid, padding_mode=outside, align_corners=False)
    return sampled.to(frames.dtype)


def _check(frames: Tensor, num_frames: int, name: str) -> int:
    """Check that frames are (B*T, C, H, W); return B."""
    if frames.ndim != 4:
        raise ValueError(
            f"{name}: expected frames (B*T, C, H, W), got shape {tuple(frames.shape)}. Fold a clip (B, T, C, H, W) with "
            "clip.flatten(0, 1)."
        )
    if num_frames < 1:
        raise ValueError(f"{name}: num_frames = {num_frames}; it must be at least 1.")
    if frames.shape[0] % num_frames:
        raise ValueError(
            f"{name}: expected a multiple of num_frames = {num_frames} frames, got shape {tuple(frames.shape)}. Pass whole "
            "clips of the T that the model was built for."
        )
    return frames.shape[0] // num_frames


def _check_shift(frames: Tensor, num_frames: int, shift_div: int) -> tuple[int, int]:
    """Check the arguments of a shift; return B and how many channels move each way."""
    batch = _check(frames, num_frames, "temporal_shift")
    if shift_div < 2:
        raise ValueError(f"temporal_shift: shift_div = {shift_div}; it must be at least 2: 1/shift_div moves each way.")
    fold = frames.shape[1] // shift_div
    if fold == 0 and num_frames > 1:
        raise ValueError(
            f"temporal_shift: frames of shape {tuple(frames.shape)} have C = {frames.shape[1]} channels, fewer than "
            f"shift_div = {shift_div}, so that nothing would move. Use a smaller shift_div."
        )
    return batch, fold


def _is_channels_last(frames: Tensor) -> bool:
    # With C = 1 or H = W = 1 a tensor is in both formats; treat it as contiguous, as PyTorch does.
    return frames.is_contiguous(memory_format=torch.channels_last) and not frames.is_contiguous()


_VECTOR_BYTES = 64


def _swap(clip: Tensor, num_frames: int, eta: int, *, channel_axis: int) -> Tensor:
    """Swap the frame axis (1) and the group axis of a contiguous clip in one copy."""
    used = num_frames * eta
    rest = clip.shape[channel_axis] - used
    # The compiler copies a transposed tensor element by element if a group is narrower than a vector register.
    narrow = channel_axis == 4 and eta * clip.element_size() < _VECTOR_BYTES
    if rest == 0 and not (narrow and torch.compiler.is_compiling()):
        grouped = clip.unflatten(channel_axis, (num_frames, eta))
        # contiguous() makes sure of a copy: for a single clip with C = T flatten would return a view.
        return grouped.transpose(1, channel_axis).contiguous().flatten(channel_axis, channel_axis + 1)
    # Group t of all output frames i is input frame t with its channels viewed as (i, eta). With T = 2, C = 5 (eta = 2):
    #   frame 0: a0 a1 a2 a3 a4        frame 0: a0 a1 b0 b1 a4
    #   frame 1: b0 b1 b2 b3 b4   ->   frame 1: a2 a3 b2 b3 b4
    # The channels left over are one more piece, so that cat makes the only copy.
    pieces = []
    for t in range(num_frames):
        groups = clip.select(1, t).narrow(channel_axis - 1, 0, used).unflatten(channel_axis - 1, (num_frames, eta))
        pieces.append(groups.movedim(channel_axis - 1, 1))
    if rest:
        pieces.append(clip.narrow(channel_axis, used, rest))
    return torch.cat(pieces, dim=channel_axis)


def _shift_functional(frames: Tensor, batch: int, num_frames: int, fold: int) -> Tensor:
    """Shift without writing in place, for compilers and exporters.

    A compiler fuses the padding into the cat over channels, so that each part is read and written once. Joined along the
    frames first, parts would be stored in between.
    """
    channels_last = _is_channels_last(frames)
    frames = frames.permute(0, 2, 3, 1) if channels_last else frames.contiguous()
    clip, axis = frames.unflatten(0, (batch, num_frames)), 4 if channels_last else 2
    backward, forward = clip.narrow(axis, 0, fold), clip.narrow(axis, fold, fold)
    parts = (
        functional.pad(backward.narrow(1, 1, num_frames - 1), (0, 0, 0, 0, 0, 0, 0, 1)),
        functional.pad(forward.narrow(1, 0, num_frames - 1), (0, 0, 0, 0, 0, 0, 1, 0)),
        clip.narrow(axis, 2 * fold, clip.shape[axis] - 2 * fold),
    )
    shifted = torch.cat(parts, dim=axis).flatten(0, 1)
    return shifted.permute(0, 3, 1, 2) if channels_last else shifted


def _move(clip: Tensor, step: int) -> None:
    """Move the frames of clips `(B, T, ...)` in place: t + step to t, step 1 or -1. The last keeps what it has."""
    count = clip.shape[1]
    for t in range(count - 1) if step == 1 else range(count - 1, 0, -1):
        clip[:, t].copy_(clip[:, t + step])


class _Shift(torch.autograd.Function):
    """Shift in eager mode: a copy of the frames, in which the channels that move are written where they go.

    The gradient of a shift is the shift in the opposite direction. The backward that autograd derives from slices and cat
    takes four times as long.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, num_frames: int, fold: int, opposite: bool) -> Tensor:
        ctx.arguments = num_frames, fold, opposite
        channels_last = _is_channels_last(frames)
        frames = frames if channels_last else frames.contiguous()
        # Channels-last, the channels that stay are many short pieces: copying everything at once is faster.
        out = frames.clone() if channels_last else torch.empty_like(frames)
        source, target = frames.unflatten(0, (-1, num_frames)), out.unflatten(0, (-1, num_frames))
        if not channels_last:
            target[:, :, 2 * fold :].copy_(source[:, :, 2 * fold :])
        # Frames 1 to T-1 move to 0 to T-2, or the other way round; the frame that receives none is zero.
        for begin, backward in ((0, not opposite), (fold, opposite)):
            read, written = source.narrow(2, begin, fold), target.narrow(2, begin, fold)
            if backward:
                written[:, :-1].copy_(read[:, 1:])
                written[:, -1].zero_()
            else:
                written[:, 1:].copy_(read[:, :-1])
                written[:, 0].zero_()
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        num_frames, fold, opposite = ctx.arguments
        return _Shift.apply(gradients[0], num_frames, fold, not opposite), None, None, None
