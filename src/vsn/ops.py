"""The two temporal operations: pure functions on frames, without parameters or multiply-adds.

Both take frames ``(B*T, C, H, W)``, the T frames of a clip one after another, of any floating or
integer dtype, contiguous or channels-last; the result has the same shape, dtype and memory format.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def video_shuffle(frames: Tensor, num_frames: int) -> Tensor:
    """Exchange channel groups between the T frames of each clip (paper, eq. 1).

    With groups of eta = C // T channels: ``out[i, t*eta + r] = in[t, i*eta + r]``, which swaps the
    frame axis and the group axis. It is its own inverse. The last C - T*eta channels stay where
    they are (our reading, the paper has T divide C). The data is copied once.

    Args:
        frames: ``(B*T, C, H, W)``, C at least T.
        num_frames: T. With 1 the input itself is returned.

    Raises:
        ValueError: frames is not 4-dimensional, T does not divide its first axis, or C < T.

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
            f"video_shuffle: frames of shape {tuple(frames.shape)} have C = {channels} channels, fewer than "
            f"num_frames = {num_frames}; every frame needs a channel group. Use at most {channels} frames, or "
            "shuffle where there are more channels."
        )
    if _is_channels_last(frames):
        # Seen as (B, T, H, W, C) the tensor is contiguous, so that one strided copy is all it takes.
        clip = frames.permute(0, 2, 3, 1).unflatten(0, (batch, num_frames))
        return _swap(clip, num_frames, eta, channel_axis=4).flatten(0, 1).permute(0, 3, 1, 2)
    clip = frames.contiguous().unflatten(0, (batch, num_frames))
    return _swap(clip, num_frames, eta, channel_axis=2).flatten(0, 1)


def temporal_shift(frames: Tensor, num_frames: int, shift_div: int = 8) -> Tensor:
    """Shift some channels by one frame, zero-padded (TSM, Lin et al. 2018, section 3).

    With fold = C // shift_div: ``out[t, :fold] = in[t+1, :fold]``, ``out[t, fold:2*fold] =
    in[t-1, fold:2*fold]``, the other channels stay; frames outside the clip count as zeros.

    Args:
        frames: ``(B*T, C, H, W)``.
        num_frames: T. With 1 the input itself is returned: a single frame has no neighbors.
        shift_div: 1/shift_div of the channels move each way; at least 2.

    Raises:
        ValueError: frames is not 4-dimensional, T does not divide its first axis, shift_div < 2, or
            there are fewer channels than shift_div.

    Example:
        >>> frames = torch.tensor([[1, 2, 3], [4, 5, 6]]).view(2, 3, 1, 1)  # 2 frames of 3 channels
        >>> temporal_shift(frames, num_frames=2, shift_div=3).flatten(1).tolist()
        [[4, 0, 3], [0, 2, 6]]
    """
    batch = _check(frames, num_frames, "temporal_shift")
    if shift_div < 2:
        raise ValueError(
            f"temporal_shift: shift_div = {shift_div}; it must be 2 or more, two parts of 1/shift_div move."
        )
    if num_frames == 1:
        return frames
    fold = frames.shape[1] // shift_div
    if fold == 0:
        raise ValueError(
            f"temporal_shift: frames of shape {tuple(frames.shape)} have C = {frames.shape[1]} channels, fewer than "
            f"shift_div = {shift_div}, so that nothing would move. Use a smaller shift_div."
        )
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _shift_by_joining(frames, batch, num_frames, fold)
    return _Shift.apply(frames, num_frames, fold, False)


def _check(frames: Tensor, num_frames: int, name: str) -> int:
    """Number of clips B, after checking that frames are (B*T, C, H, W)."""
    if frames.ndim != 4:
        raise ValueError(
            f"{name}: frames must be (B*T, C, H, W), but have shape {tuple(frames.shape)}. "
            "A clip (B, T, C, H, W) is folded with clip.flatten(0, 1)."
        )
    if num_frames < 1:
        raise ValueError(f"{name}: num_frames = {num_frames}; a clip has at least one frame.")
    if frames.shape[0] % num_frames:
        raise ValueError(
            f"{name}: frames of shape {tuple(frames.shape)} do not split into clips: {frames.shape[0]} frames are not "
            f"a multiple of num_frames = {num_frames}. Give whole clips of the T the model was built for."
        )
    return frames.shape[0] // num_frames


def _is_channels_last(frames: Tensor) -> bool:
    # With C = 1 or H = W = 1 both formats have the same bytes, and contiguous is what PyTorch calls them.
    return frames.is_contiguous(memory_format=torch.channels_last) and not frames.is_contiguous()


def _swap(clip: Tensor, num_frames: int, eta: int, *, channel_axis: int) -> Tensor:
    """Swap frame axis (1) and group axis of a contiguous clip, in one copy."""
    used = num_frames * eta
    rest = clip.shape[channel_axis] - used
    # Compiled, a transposed copy goes element by element where a group is narrower than a vector register.
    narrow = channel_axis == 4 and eta * clip.element_size() < _VECTOR_BYTES
    if rest == 0 and not (narrow and torch.compiler.is_compiling()):
        grouped = clip.unflatten(channel_axis, (num_frames, eta))
        # Copied before flattening, which alone would return a view of a single clip with C = T.
        return grouped.transpose(1, channel_axis).contiguous().flatten(channel_axis, channel_axis + 1)
    # Output group t, for all output frames i at once, is frame t's channels seen as (i, eta); the
    # channels left over are one more piece, so that joining the pieces is the only copy.
    pieces = []
    for t in range(num_frames):
        groups = clip.select(1, t).narrow(channel_axis - 1, 0, used).unflatten(channel_axis - 1, (num_frames, eta))
        pieces.append(groups.movedim(channel_axis - 1, 1))
    if rest:
        pieces.append(clip.narrow(channel_axis, used, rest))
    return torch.cat(pieces, dim=channel_axis)


_VECTOR_BYTES = 64


def _shift_by_joining(frames: Tensor, batch: int, num_frames: int, fold: int) -> Tensor:
    """The shift without writing in place: what compilers and exporters take best.

    Padding is computed where it is written, so that each part is read once and written once; parts
    joined along the frames first would be stored before they are joined along the channels.
    """
    channels_last = _is_channels_last(frames)
    frames = frames.permute(0, 2, 3, 1) if channels_last else frames.contiguous()
    clip, axis = frames.unflatten(0, (batch, num_frames)), 4 if channels_last else 2
    back, ahead = clip.narrow(axis, 0, fold), clip.narrow(axis, fold, fold)
    parts = (
        functional.pad(back.narrow(1, 1, num_frames - 1), (0, 0, 0, 0, 0, 0, 0, 1)),
        functional.pad(ahead.narrow(1, 0, num_frames - 1), (0, 0, 0, 0, 0, 0, 1, 0)),
        clip.narrow(axis, 2 * fold, clip.shape[axis] - 2 * fold),
    )
    shifted = torch.cat(parts, dim=axis).flatten(0, 1)
    return shifted.permute(0, 3, 1, 2) if channels_last else shifted


class _Shift(torch.autograd.Function):
    """The shift in eager mode: every channel is read once and written once, where it goes.

    The gradient of a shift is the shift the other way. Left to autograd, slices and joins cost
    four times as much on the way back.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, num_frames: int, fold: int, opposite: bool) -> Tensor:
        ctx.arguments = num_frames, fold, opposite
        channels_last = _is_channels_last(frames)
        frames = frames if channels_last else frames.contiguous()
        out = torch.empty_like(frames)
        source, target = (one.unflatten(0, (-1, num_frames)) for one in (frames, out))
        target[:, :, 2 * fold :].copy_(source[:, :, 2 * fold :])
        for begin, to_the_past in ((0, not opposite), (fold, opposite)):
            read, written = source.narrow(2, begin, fold), target.narrow(2, begin, fold)
            former, later = slice(0, num_frames - 1), slice(1, num_frames)
            written[:, former if to_the_past else later].copy_(read[:, later if to_the_past else former])
            written[:, -1 if to_the_past else 0].zero_()
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        num_frames, fold, opposite = ctx.arguments
        return _Shift.apply(gradients[0], num_frames, fold, not opposite), None, None, None
