"""A model as it is exported: the same function, in the operations that runtimes on CPUs do fastest.

The temporal operations are written for contiguous frames ``(B*T, C, H, W)`` and an unknown B; whatever
depends on T, C and the weights is a constant of the graph. Each is equal to the operation of `vsn.ops` it names.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from vsn.models.classifier import VideoClassifier
from vsn.models.layers import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d

_M = TypeVar("_M", bound=nn.Module)


def shuffle_by_transpose(frames: Tensor, num_frames: int) -> Tensor:
    """`vsn.ops.video_shuffle` of contiguous frames as one transpose of rows of eta*H*W values."""
    channels, height, width = frames.shape[1:]
    eta = channels // num_frames
    used = eta * num_frames
    swapped = frames if used == channels else frames[:, :used]
    # (B, T, group, row) with frame and group exchanged: an exporter takes -1 for the one axis it does not know.
    swapped = swapped.reshape(-1, num_frames, num_frames, eta * height * width).transpose(1, 2)
    swapped = swapped.reshape(-1, used, height, width)
    return swapped if used == channels else torch.cat((swapped, frames[:, used:]), dim=1)


def shift_by_slices(frames: Tensor, num_frames: int, shift_div: int) -> Tensor:
    """`vsn.ops.temporal_shift` of contiguous frames, by slices and joins of the frames of all clips.

    What comes from a neighboring clip is multiplied by zero. Four axes throughout, which leaves OpenVINO the frames
    in its own layout; clips, of five axes, cost it and ONNX Runtime more. Frames must be finite, as zero times
    infinity is none.
    """
    fold = frames.shape[1] // shift_div
    back, ahead, rest = frames[:, :fold], frames[:, fold : 2 * fold], frames[:, 2 * fold :]
    back = torch.cat((back[1:], back[:1]), dim=0) * _all_but(num_frames - 1, frames, num_frames)
    ahead = torch.cat((ahead[:1], ahead[:-1]), dim=0) * _all_but(0, frames, num_frames)
    return torch.cat((back, ahead, rest), dim=1)


def _all_but(blank: int, frames: Tensor, num_frames: int) -> Tensor:
    """``(B*T, 1, 1, 1)``: 0 at one frame of each clip, else 1."""
    clip = torch.ones(num_frames, 1, 1, 1, dtype=frames.dtype, device=frames.device)
    clip[blank] = 0
    return clip.repeat(frames.shape[0] // num_frames, 1, 1, 1)


class _ExportShuffleConv2d(ShuffleConv2d):
    def forward(self, frames: Tensor) -> Tensor:
        frames = nn.Conv2d.forward(self, shuffle_by_transpose(frames, self.num_frames))
        return shuffle_by_transpose(frames, self.num_frames) if self.unshuffle else frames


class _ExportShuffleBatchNorm2d(ShuffleBatchNorm2d):
    def forward(self, frames: Tensor) -> Tensor:
        return shuffle_by_transpose(nn.BatchNorm2d.forward(self, frames), self.num_frames)


class _ExportShiftConv2d(ShiftConv2d):
    def forward(self, frames: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, shift_by_slices(frames, self.num_frames, self.shift_div))


class ExportForm(nn.Module):
    """A copy of a model for export, with its temporal layers in their export form.

    Args:
        model: left as it is; copied in evaluation mode, on the CPU, in float32.
        uint8: whether clips are uint8, or float32 in [0, 1].
    """

    def __init__(self, model: VideoClassifier, *, uint8: bool = True) -> None:
        super().__init__()
        self.model = in_export_form(copy.deepcopy(model).cpu().float().eval())
        if uint8:
            # ((x / 255) - mean) / std as (x - 255 mean) / (255 std): one pass over the pixels less.
            self.model.mean *= 255
            self.model.std *= 255

    def forward(self, clip: Tensor) -> Tensor:
        """Clip ``(B, T, C, H, W)``, uint8 or float32 in [0, 1], to logits ``(B, num_classes)`` float32."""
        return self.model(clip.to(torch.float32))


def in_export_form(model: _M) -> _M:
    """Give every temporal layer of a model its export form, in place; weights and names stay."""
    forms: dict[type[nn.Module], type[nn.Module]] = {
        ShuffleConv2d: _ExportShuffleConv2d,
        ShuffleBatchNorm2d: _ExportShuffleBatchNorm2d,
        ShiftConv2d: _ExportShiftConv2d,
    }
    for module in model.modules():
        form = forms.get(type(module))
        if form is not None:
            module.__class__ = form  # weights, hooks and settings are the module's own
    return model
