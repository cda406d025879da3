"""A model as it is exported: the same function, in the operations that runtimes on CPUs do fastest.

The temporal operations are written for contiguous frames ``(B*T, C, H, W)`` and an unknown B; whatever
depends on T, C and the weights is a constant of the graph. Equal to `vsn.ops`, which the tests hold to be true.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vsn.models.classifier import VideoClassifier
from vsn.models.temporal import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d


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


def shift_by_joining(frames: Tensor, num_frames: int, shift_div: int) -> Tensor:
    """`vsn.ops.temporal_shift` of contiguous frames, by slices and joins on the frame axis."""
    channels, height, width = frames.shape[1:]
    fold = channels // shift_div
    clip = frames.reshape(-1, num_frames, channels, height, width)
    back, ahead, rest = clip[:, 1:, :fold], clip[:, :-1, fold : 2 * fold], clip[:, :, 2 * fold :]
    zeros = torch.zeros_like(back[:, :1])
    moved = (torch.cat((back, zeros), dim=1), torch.cat((zeros, ahead), dim=1), rest)
    return torch.cat(moved, dim=2).reshape(-1, channels, height, width)


class _ExportShuffleConv2d(ShuffleConv2d):
    def forward(self, frames: Tensor) -> Tensor:
        frames = nn.Conv2d.forward(self, shuffle_by_transpose(frames, self.num_frames))
        return shuffle_by_transpose(frames, self.num_frames) if self.unshuffle else frames


class _ExportShuffleBatchNorm2d(ShuffleBatchNorm2d):
    def forward(self, frames: Tensor) -> Tensor:
        return shuffle_by_transpose(nn.BatchNorm2d.forward(self, frames), self.num_frames)


class _ExportShiftConv2d(ShiftConv2d):
    def forward(self, frames: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, shift_by_joining(frames, self.num_frames, self.shift_div))


_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    ShuffleConv2d: _ExportShuffleConv2d,
    ShuffleBatchNorm2d: _ExportShuffleBatchNorm2d,
    ShiftConv2d: _ExportShiftConv2d,
}


class ExportForm(nn.Module):
    """A copy of a classifier for export: its layers in their export form, normalisation in one step.

    Args:
        model: left as it is; copied in evaluation mode, on the CPU, in float32.
        uint8: whether clips are uint8, or float32 in [0, 1].
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, model: VideoClassifier, *, uint8: bool = True) -> None:
        super().__init__()
        own = copy.deepcopy(model).cpu().float().eval()
        self.backbone = in_export_form(own.backbone)
        self.head = own.head
        self.differences = own.modality == "rgbdiff"
        # (x / 255 - mean) / std as x * scale + offset: two operations instead of four. Of differences the mean cancels.
        self.register_buffer("scale", 1 / (own.std * 255) if uint8 else 1 / own.std)
        self.register_buffer("offset", -own.mean / own.std)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip ``(B, T, C, H, W)``, uint8 or float32 in [0, 1], to logits ``(B, num_classes)`` float32."""
        num_frames = clip.shape[1]
        frames = clip.flatten(0, 1).to(torch.float32)
        if self.differences:
            frames = frames.unflatten(1, (-1, 3))
            frames = ((frames[:, 1:] - frames[:, :-1]) * self.scale).flatten(1, 2)
        else:
            frames = frames * self.scale + self.offset
        scores = self.head(self.backbone(frames))
        # -1 for the batch, the one axis whose size the exported graph does not know.
        return scores.reshape(-1, num_frames, scores.shape[1]).mean(dim=1)


def in_export_form(model: nn.Module) -> nn.Module:
    """Give every temporal layer of a model its export form, in place; weights and names stay."""
    for module in model.modules():
        form = _FORMS.get(type(module))
        if form is not None:
            module.__class__ = form
    return model
