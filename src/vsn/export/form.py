"""Rewrite a model for export: the same function, in operations that are fast in CPU runtimes.

The temporal operations take contiguous frames ``(B*T, C, H, W)`` with unknown B; everything that depends on T and C is
a constant of the graph. Each equals the operation of `vsn.ops` in its docstring.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from vsn.models.classifier import FrameClassifier, VideoClassifier
from vsn.models.layers import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d
from vsn.models.split import SplitBackbone

_M = TypeVar("_M", bound=nn.Module)


def shuffle_by_transpose(frames: Tensor, num_frames: int) -> Tensor:
    """Compute `vsn.ops.video_shuffle` of contiguous frames as one transpose of rows of eta*H*W values."""
    channels, height, width = frames.shape[1:]
    # As in `video_shuffle`: T groups of eta channels each, and a rest that stays, if T does not divide C.
    eta = channels // num_frames
    used = eta * num_frames
    swapped = frames if used == channels else frames[:, :used]
    # (B, T, group, row) -> (B, group, T, row). B stays -1, as exporters allow for one unknown axis.
    swapped = swapped.reshape(-1, num_frames, num_frames, eta * height * width).transpose(1, 2)
    swapped = swapped.reshape(-1, used, height, width)
    return swapped if used == channels else torch.cat((swapped, frames[:, used:]), dim=1)


def shift_by_slices(frames: Tensor, num_frames: int, shift_div: int) -> Tensor:
    """Compute `vsn.ops.temporal_shift` of contiguous frames by slicing and concatenating the frames of all clips.

    Frames shifted in from a neighboring clip are multiplied by zero, so frames must be finite (zero times infinity is
    NaN). All tensors have four axes, which OpenVINO keeps in its blocked layout; with five axes OpenVINO and ONNX
    Runtime are slower.
    """
    fold = frames.shape[1] // shift_div
    back, ahead, rest = frames[:, :fold], frames[:, fold : 2 * fold], frames[:, 2 * fold :]
    # Frame t takes channels of frame t + 1 (back) and t - 1 (ahead). Rolling over all B*T frames mixes clips at their
    # ends: there the mask puts zeros, as the shift pads.
    back = torch.cat((back[1:], back[:1]), dim=0) * _all_but(num_frames - 1, frames, num_frames)
    ahead = torch.cat((ahead[:1], ahead[:-1]), dim=0) * _all_but(0, frames, num_frames)
    return torch.cat((back, ahead, rest), dim=1)


def _all_but(blank: int, frames: Tensor, num_frames: int) -> Tensor:
    """Return a mask ``(B*T, 1, 1, 1)``: 0 at frame ``blank`` of each clip, else 1."""
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
        model: is not changed; copied in evaluation mode, on the CPU, in float32.
        uint8: whether clips are uint8, or float32 in [0, 1].
        features: whether to return the input of the classifier too.
        half: compute in float16.
    """

    def __init__(
        self, model: VideoClassifier, *, uint8: bool = True, features: bool = False, half: bool = False
    ) -> None:
        super().__init__()
        self._features = features
        self.model = in_export_form(copy.deepcopy(model).cpu().float().eval())
        if uint8:
            # ((x / 255) - mean) / std = (x - 255 mean) / (255 std): saves one pass over the pixels.
            self.model.mean *= 255
            self.model.std *= 255
            self.model.clip_max = 255.0
        self.dtype = torch.float16 if half else torch.float32
        self.model.to(self.dtype)

    def forward(self, clip: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map a clip ``(B, T, C, H, W)``, uint8 or float32 in [0, 1], to logits ``(B, num_classes)``, float32.

        With `features` also to the input of the classifier, ``(B, T, D)``, or ``(B, D)`` if the network merges the frames.
        """
        if not self._features:
            return self.model(clip.to(self.dtype))
        # A hook, as in `view_features`: what the classifier sees, of every model.
        inputs_of_head: list[Tensor] = []
        handle = self.model.head.register_forward_pre_hook(lambda _, inputs: inputs_of_head.append(inputs[0]))
        try:
            logits = self.model(clip.to(self.dtype))
        finally:
            handle.remove()
        return logits, inputs_of_head[0].float()


class FoldedForm(nn.Module):
    """An `ExportForm` for tools that know only batches of images: one clip, whose frames are the batch.

    Args:
        form: is changed; it returns logits alone.
    """

    def __init__(self, form: ExportForm) -> None:
        super().__init__()
        self.model, self.dtype = form.model, form.dtype
        # Frames are normalized here, with four axes: XNNPACK takes no arithmetic on five. The clip is then used as it is.
        object.__setattr__(self.model, "normalized", lambda clip: clip)

    def forward(self, frames: Tensor) -> Tensor:
        """Map the frames of a clip ``(T, C, H, W)``, uint8 or float32 in [0, 1], to logits ``(1, num_classes)``."""
        model, frames = self.model, frames.to(self.dtype)
        if model.modality == "rgbdiff":
            # Images of three channels, whose mean cancels in their differences; see `VideoClassifier.normalize`.
            differences = frames[:, 3:] - frames[:, :-3]
            normalized = differences / model.std.repeat(differences.shape[1] // 3, 1, 1)
        else:
            normalized = (frames - model.mean) / model.std
        logits: Tensor = model(normalized[None])
        return logits


class FramesForm(nn.Module):
    """The first part of a split network: frames ``(N, C, H, W)``, as `ExportForm` takes them, to their features."""

    def __init__(self, form: ExportForm, split: SplitBackbone) -> None:
        super().__init__()
        self.model, self.frame_part = form.model, split.frame_part

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors ``(N, ...)`` that `ClipForm` takes."""
        return self.frame_part(self.model.normalize(frames.to(torch.float32)[None])[0])


class ClipForm(nn.Module):
    """The second part of a split network: the features of the T frames of each clip to logits and features."""

    def __init__(self, form: ExportForm, split: SplitBackbone) -> None:
        super().__init__()
        assert isinstance(form.model, FrameClassifier)
        self.model: FrameClassifier = form.model
        self.clip_part = split.clip_part

    def forward(self, *frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map tensors ``(B*T, ...)`` to logits ``(B, num_classes)`` and the input of the classifier ``(B, T, D)``."""
        features = self.clip_part(*frames).unflatten(0, (-1, self.model.num_frames))
        return self.model.scores_of(features), features


def in_export_form(model: _M) -> _M:
    """Replace the forward of every temporal layer by its export form, in place; weights and names stay."""
    forms: dict[type[nn.Module], type[nn.Module]] = {
        ShuffleConv2d: _ExportShuffleConv2d,
        ShuffleBatchNorm2d: _ExportShuffleBatchNorm2d,
        ShiftConv2d: _ExportShiftConv2d,
    }
    for module in model.modules():
        # Changing the class keeps the weights, hooks and settings of the module.
        module.__class__ = forms.get(type(module), type(module))
    return model
