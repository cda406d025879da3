"""Convolve volumes of few steps in time so that the gradient of the weights is right on a CPU.

PyTorch 2.14 reads and writes out of bounds there when a kernel that is padded along time is longer than the volume
(oneDNN; in bfloat16 from a kernel of 3 and two steps on, in float32 with a kernel of 7 and a stride of 2 up to seven
steps): the gradient is wrong by up to thirty orders of magnitude, and the process sometimes crashes. The zeros that the
convolution would add are added before it instead; outputs and gradients are those of the definition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Three = tuple[int, ...]


class ShortClipConv3d(nn.Conv3d):
    """A 3D convolution by `conv3d_short`."""

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C_in, T, H, W)`` to ``(B, C_out, T', H', W')``."""
        if (
            isinstance(self.padding, str)
            or self.dilation != (1, 1, 1)
            or self.groups != 1
            or self.padding_mode != "zeros"
        ):
            return super().forward(volume)
        return conv3d_short(volume, self.weight, self.bias, stride=self.stride, padding=self.padding)


def conv3d_short(
    volume: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Three, padding: Three
) -> Tensor:
    """Convolve a volume ``(B, C_in, T, H, W)`` as `torch.nn.functional.conv3d`; see the module's docstring."""
    learns = torch.is_grad_enabled() and weight.requires_grad
    if padding[0] and learns and volume.device.type == "cpu" and volume.shape[2] <= weight.shape[2]:
        volume = functional.pad(volume, (0, 0, 0, 0, padding[0], padding[0]))
        padding = (0, *padding[1:])
    return functional.conv3d(volume, weight, bias, stride, padding)


def guard_short_clips(body: nn.Module) -> None:
    """Convert the convolutions of a 3D network that are longer than one step, in place; weights and names are kept."""
    for module in body.modules():
        if type(module) is nn.Conv3d and module.kernel_size[0] > 1:
            module.__class__ = ShortClipConv3d
