"""A shuffle pair around a linear layer that sees each pixel: a pointwise convolution by another name (ConvNeXt)."""

from __future__ import annotations

from torch import Tensor, nn

from vsn.ops import video_shuffle


class ShuffleLinear(nn.Linear):
    """A linear layer between a video shuffle and its inverse. Ours, not the paper's (`vsn.models.separable`)."""

    num_frames: int

    def forward(self, frames: Tensor) -> Tensor:
        """Frames with channels last, ``(B*T, H, W, C_in)``, to ``(B*T, H, W, C_out)``."""
        # Seen as (B*T, C, H, W) they are in PyTorch's channels-last format, which the shuffle keeps.
        shuffled = video_shuffle(frames.movedim(3, 1), self.num_frames).movedim(1, 3)
        return video_shuffle(super().forward(shuffled).movedim(3, 1), self.num_frames).movedim(1, 3)

    def extra_repr(self) -> str:
        """The layer's own, and T."""
        return f"{super().extra_repr()}, num_frames={self.num_frames}"
